#include "ops/metrics.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kern/bpf_gate.h"
#include "net/admission.h"

/* Upper bounds of the exposed delay histograms, 1-2-5 steps. A bound counts whole buckets of struct
 * hist, so it may leave out observations up to 12 % below itself. */
static const struct {
	uint64_t us;
	const char *seconds; /* as written: a label must not depend on how a double is printed */
} bounds[] = {
	{10, "0.00001"},
	{20, "0.00002"},
	{50, "0.00005"},
	{100, "0.0001"},
	{200, "0.0002"},
	{500, "0.0005"},
	{1000, "0.001"},
	{2000, "0.002"},
	{5000, "0.005"},
	{10000, "0.01"},
	{20000, "0.02"},
	{50000, "0.05"},
	{100000, "0.1"},
	{200000, "0.2"},
	{500000, "0.5"},
	{1000000, "1"},
	{2000000, "2"},
	{5000000, "5"},
	{10000000, "10"},
};

enum {
	N_BOUNDS = sizeof(bounds) / sizeof(bounds[0])
};

/* HELP text: backslash and newline are escaped; label values: the double quote too. */
static void put_escaped(FILE *f, const char *s, bool label)
{
	for (; *s; s++) {
		if (*s == '\\')
			fputs("\\\\", f);
		else if (*s == '\n')
			fputs("\\n", f);
		else if (*s == '"' && label)
			fputs("\\\"", f);
		else
			fputc(*s, f);
	}
}

static void put_head(FILE *f, const char *name, const char *type, const char *help)
{
	fprintf(f, "# HELP %s ", name);
	put_escaped(f, help, false);
	fprintf(f, "\n# TYPE %s %s\n", name, type);
}

static void put_worker_value(
	FILE *f, const char *name, const char *unit, unsigned worker, uint64_t v)
{
	if (!strcmp(unit, "ns"))
		fprintf(f, "%s{worker=\"%u\"} %" PRIu64 ".%09" PRIu64 "\n", name, worker,
			v / 1000000000u, v % 1000000000u);
	else
		fprintf(f, "%s{worker=\"%u\"} %" PRIu64 "\n", name, worker, v);
}

static void put_listed(FILE *f, const struct metrics_input *in)
{
#define X(field, name, unit, help)                                                                 \
	put_head(f, "tidegate_" name, type, help);                                                 \
	for (unsigned i = 0; i < in->n_workers; i++)                                               \
		put_worker_value(f, "tidegate_" name, unit, i, in->workers[i].field);
	const char *type = "counter";
	TG_COUNTERS(X)
	type = "gauge";
	TG_GAUGES(X)
#undef X
}

static void put_connection_kind(
	FILE *f, unsigned worker, const char *route, const char *kind, uint64_t v)
{
	fprintf(f, "tidegate_connections{worker=\"%u\",route=\"", worker);
	put_escaped(f, route, true);
	fprintf(f, "\",kind=\"%s\"} %" PRIu64 "\n", kind, v);
}

/* The path was seen at an earlier route already. */
static bool path_seen(const struct metrics_input *in, size_t i)
{
	for (size_t k = 0; k < i; k++)
		if (!strcmp(in->routes[k].path, in->routes[i].path))
			return true;
	return false;
}

static void put_route_sessions(FILE *f, const struct metrics_input *in, size_t route)
{
	const char *path = in->routes[route].path;

	for (unsigned i = 0; i < in->n_workers; i++) {
		uint64_t sum = 0;

		for (size_t k = route; k < in->n_routes; k++)
			if (!strcmp(in->routes[k].path, path))
				sum += in->routes[k].sessions[i];
		put_connection_kind(f, i, path, "session", sum);
	}
}

static void put_connections(FILE *f, const struct metrics_input *in)
{
	put_head(f, "tidegate_connections", "gauge",
		"Client connections by kind: before the end of their handshake, sessions by their "
		"route, and those that are being closed");
	for (unsigned i = 0; i < in->n_workers; i++) {
		const struct tg_worker_stats *s = &in->workers[i];
		uint64_t known = s->handshaking + s->sessions;

		put_connection_kind(f, i, "", "handshaking", s->handshaking);
		/* Read while the worker counts: the parts may be ahead of the whole. */
		put_connection_kind(
			f, i, "", "closing", s->connections > known ? s->connections - known : 0);
	}
	for (size_t i = 0; i < in->n_routes; i++)
		if (!path_seen(in, i))
			put_route_sessions(f, in, i);
}

static void put_by_reason(FILE *f, const struct metrics_input *in)
{
	put_head(f, "tidegate_closes_total", "counter", "Connections closed, by the reason");
	for (unsigned r = 0; r < CLOSE_REASONS; r++) {
		uint64_t sum = 0;
		for (unsigned i = 0; i < in->n_workers; i++)
			sum += in->workers[i].closes[r];
		fprintf(f, "tidegate_closes_total{reason=\"%s\"} %" PRIu64 "\n",
			close_reason_name(r), sum);
	}
	put_head(f, "tidegate_protocol_errors_total", "counter",
		"Input refused, by what was wrong with it");
	for (unsigned k = 0; k < PROTO_ERRS; k++) {
		uint64_t sum = 0;
		for (unsigned i = 0; i < in->n_workers; i++)
			sum += in->workers[i].protocol_errors[k];
		fprintf(f, "tidegate_protocol_errors_total{kind=\"%s\"} %" PRIu64 "\n",
			protocol_error_name(k), sum);
	}
	put_head(f, "tidegate_auth_failures_total", "counter", "Tokens refused, by the reason");
	for (unsigned k = 0; k < AUTH_FAILURES; k++) {
		uint64_t sum = 0;
		for (unsigned i = 0; i < in->n_workers; i++)
			sum += in->workers[i].auth_failures[k];
		fprintf(f, "tidegate_auth_failures_total{reason=\"%s\"} %" PRIu64 "\n",
			auth_failure_name(k), sum);
	}
	put_head(f, "tidegate_hub_refused_total", "counter",
		"Requests to the hub that were refused, by the code of the answer");
	for (unsigned k = 0; k < HUB_ERRORS; k++) {
		uint64_t sum = 0;
		for (unsigned i = 0; i < in->n_workers; i++)
			sum += in->workers[i].hub_refused[k];
		fprintf(f, "tidegate_hub_refused_total{code=\"%s\"} %" PRIu64 "\n",
			hub_error_name(k), sum);
	}
}

/* The path and policy were seen at an earlier route already. */
static bool series_seen(const struct metrics_input *in, size_t i, enum out_policy p)
{
	for (size_t k = 0; k < i; k++)
		if (in->routes[k].policy == p && !strcmp(in->routes[k].path, in->routes[i].path))
			return true;
	return false;
}

static void put_routes(FILE *f, const struct metrics_input *in)
{
	put_head(f, "tidegate_out_dropped_total", "counter",
		"Messages that a session's out queue had no room for, by the route's policy");
	for (size_t i = 0; i < in->n_routes; i++) {
		enum out_policy p = in->routes[i].policy;
		uint64_t sum = 0;

		if (series_seen(in, i, p))
			continue;
		for (size_t k = i; k < in->n_routes; k++)
			if (in->routes[k].policy == p &&
				!strcmp(in->routes[k].path, in->routes[i].path))
				sum += in->routes[k].dropped[p];
		fprintf(f, "tidegate_out_dropped_total{policy=\"%s\",route=\"", out_policy_name(p));
		put_escaped(f, in->routes[i].path, true);
		fprintf(f, "\"} %" PRIu64 "\n", sum);
	}
}

/* The count is that of the copied buckets: the one beside them may be an observation ahead, and a
 * histogram whose +Inf differs from its count is malformed. The unit is one in per_us of a
 * microsecond: 1 or 1000. */
static void put_histogram(
	FILE *f, const char *name, unsigned worker, const struct hist *h, unsigned per_us)
{
	const uint64_t per_s = UINT64_C(1000000) * per_us;
	uint64_t count = 0;

	for (unsigned i = 0; i < HIST_BUCKETS; i++)
		count += h->bucket[i];
	for (unsigned i = 0; i < N_BOUNDS; i++)
		fprintf(f, "%s_bucket{worker=\"%u\",le=\"%s\"} %" PRIu64 "\n", name, worker,
			bounds[i].seconds, hist_count_le(h, bounds[i].us * per_us));
	fprintf(f, "%s_bucket{worker=\"%u\",le=\"+Inf\"} %" PRIu64 "\n", name, worker, count);
	fprintf(f, "%s_sum{worker=\"%u\"} %" PRIu64 ".%0*" PRIu64 "\n", name, worker,
		h->sum / per_s, per_us == 1 ? 6 : 9, h->sum % per_s);
	fprintf(f, "%s_count{worker=\"%u\"} %" PRIu64 "\n", name, worker, count);
}

static void put_delays(FILE *f, const struct metrics_input *in)
{
	static const char run[] = "tidegate_run_delay_seconds",
			  poll[] = "tidegate_poll_delay_seconds", loop[] = "tidegate_loop_seconds",
			  first[] = "tidegate_first_poll_seconds", busy[] = "tidegate_busy_ratio";

	put_head(f, run, "histogram",
		"From an event's reception by its worker to its turn in the run queue");
	for (unsigned i = 0; i < in->n_workers; i++)
		put_histogram(f, run, i, &in->workers[i].run_delay_us, 1);
	put_head(f, poll, "histogram",
		"From a socket's readiness to its handler: wake delay and run delay of the same "
		"event, of the sampled sockets; while tidegate_sched_sample_ratio is 0, the run "
		"delay alone, of everything");
	for (unsigned i = 0; i < in->n_workers; i++)
		put_histogram(f, poll, i, &in->workers[i].poll_delay_us, 1);
	put_head(f, first, "histogram",
		"From a connection's accept to its first turn, the client's time to send something "
		"included");
	for (unsigned i = 0; i < in->n_workers; i++)
		put_histogram(f, first, i, &in->workers[i].first_poll_us, 1);
	put_head(f, loop, "histogram",
		"One turn of the worker's loop without its waiting: what an event may wait before "
		"it is received");
	for (unsigned i = 0; i < in->n_workers; i++)
		put_histogram(f, loop, i, &in->workers[i].loop_us, 1);
	put_head(f, busy, "gauge", "Share of the last second that the worker was at work");
	for (unsigned i = 0; i < in->n_workers; i++)
		fprintf(f, "%s{worker=\"%u\"} %" PRIu64 ".%03" PRIu64 "\n", busy, i,
			in->workers[i].busy_permille / 1000, in->workers[i].busy_permille % 1000);
}

static void put_kernel_delays(FILE *f, const struct metrics_input *in)
{
	static const char wake[] = "tidegate_wake_delay_seconds",
			  wait[] = "tidegate_cpu_wait_seconds";

	put_head(f, "tidegate_sched_sample_ratio", "gauge",
		"Share of the sockets whose wake delay the kernel measures; 0: none");
	fprintf(f, "tidegate_sched_sample_ratio %.5f\n", in->share);
	put_head(f, wake, "histogram",
		"From a socket's readiness, as the kernel sees it, to its reception by the worker; "
		"of the sampled sockets");
	for (unsigned i = 0; i < in->n_workers; i++)
		put_histogram(f, wake, i, &in->workers[i].wake_delay_us, 1);
	if (!in->cpu_wait)
		return;
	put_head(f, wait, "histogram", "Waits of the worker's thread for a CPU");
	for (unsigned i = 0; i < in->n_workers; i++)
		put_histogram(f, wait, i, &in->cpu_wait[i], 1000);
}

struct link_sum {
	const char *upstream, *endpoint;
	unsigned worker;
	bool up;
	uint64_t queued_bytes, sessions;
};

static int compare_links(const void *a, const void *b)
{
	const struct link_sum *x = a, *y = b;
	int c = strcmp(x->upstream, y->upstream);

	if (!c)
		c = strcmp(x->endpoint, y->endpoint);
	return c ? c : (x->worker > y->worker) - (x->worker < y->worker);
}

/* One entry per upstream, endpoint and worker, in order: an endpoint may stand in the configuration
 * twice, a series in the exposition may not. NULL without memory. */
static struct link_sum *sum_links(const struct metrics_input *in, size_t *ret_n)
{
	struct link_sum *sums = calloc(in->n_links + 1, sizeof(*sums));
	if (!sums)
		return NULL;
	for (size_t i = 0; i < in->n_links; i++) {
		const struct link_info *l = &in->links[i];
		sums[i] = (struct link_sum){
			.upstream = l->upstream,
			.endpoint = l->endpoint,
			.worker = l->worker,
			.up = l->up,
			.queued_bytes = l->queued_bytes,
			.sessions = l->sessions,
		};
	}
	qsort(sums, in->n_links, sizeof(*sums), compare_links);

	size_t n = 0;
	for (size_t i = 0; i < in->n_links; i++) {
		if (n == 0 || compare_links(&sums[n - 1], &sums[i])) {
			sums[n++] = sums[i];
			continue;
		}
		sums[n - 1].up |= sums[i].up;
		sums[n - 1].queued_bytes += sums[i].queued_bytes;
		sums[n - 1].sessions += sums[i].sessions;
	}
	*ret_n = n;
	return sums;
}

static void put_link_value(FILE *f, const char *name, const struct link_sum *l, uint64_t v)
{
	fprintf(f, "%s{upstream=\"", name);
	put_escaped(f, l->upstream, true);
	fputs("\",endpoint=\"", f);
	put_escaped(f, l->endpoint, true);
	fprintf(f, "\",worker=\"%u\"} %" PRIu64 "\n", l->worker, v);
}

static int put_links(FILE *f, const struct metrics_input *in)
{
	static const char up[] = "tidegate_link_up", queued[] = "tidegate_link_queued_bytes",
			  sessions[] = "tidegate_link_sessions";

	put_head(f, "tidegate_links_unknown", "gauge",
		"1 when a worker did not say in time what links it has: their series are missing "
		"then");
	fprintf(f, "tidegate_links_unknown %d\n", in->links_unknown);
	if (in->links_unknown)
		return 0;

	size_t n = 0;
	struct link_sum *sums = sum_links(in, &n);
	if (!sums)
		return -ENOMEM;
	put_head(f, up, "gauge", "1 while the worker's link to the endpoint is up");
	for (size_t i = 0; i < n; i++)
		put_link_value(f, up, &sums[i], sums[i].up);
	put_head(f, queued, "gauge", "Bytes that wait to be sent to the service");
	for (size_t i = 0; i < n; i++)
		put_link_value(f, queued, &sums[i], sums[i].queued_bytes);
	put_head(f, sessions, "gauge", "Sessions that the link carries");
	for (size_t i = 0; i < n; i++)
		put_link_value(f, sessions, &sums[i], sums[i].sessions);
	free(sums);
	return 0;
}

static void put_verdicts(FILE *f, const struct metrics_input *in, const char *name, bool observed)
{
	for (unsigned v = admission_verdict_from(0); v < TG_VERDICT_COUNT;
		v = admission_verdict_from(v + 1)) {
		uint64_t sum = 0;

		for (unsigned i = 0; i < in->n_workers; i++)
			sum += observed ? in->workers[i].verdicts_observed[v]
					: in->workers[i].verdicts[v];
		fprintf(f, "%s{program=\"user\",reason=\"%s\"} %" PRIu64 "\n", name,
			admission_verdict_name(v), sum);
	}
	for (unsigned v = 0; in->kernel && v < TG_VERDICT_COUNT; v++)
		fprintf(f, "%s{program=\"%s\",reason=\"%s\"} %" PRIu64 "\n", name,
			bpf_verdict_program((enum tg_verdict)v),
			bpf_verdict_name((enum tg_verdict)v),
			(uint64_t)(observed ? in->kernel[v].observed : in->kernel[v].packets));
}

static void put_gate(FILE *f, const struct metrics_input *in)
{
	static const char verdicts[] = "tidegate_verdicts_total",
			  observed[] = "tidegate_verdicts_observed_total",
			  memory[] = "tidegate_memory_pressure_ratio";
	const struct gate_info *g = &in->gate;
	const struct {
		const char *kind;
		int percent;
	} pressure[] = {{"cgroup", g->memory.cgroup}, {"tcp", g->memory.tcp},
		{"machine", g->memory.machine}};

	put_head(f, "tidegate_gate_state", "gauge",
		"0: open (also without admission), 1: paced, 2: shut");
	fprintf(f, "tidegate_gate_state %u\n", (unsigned)g->gate.state);
	put_head(f, "tidegate_gate_rate", "gauge",
		"Connections per second that the gate lets in; 1000000: no limit");
	fprintf(f, "tidegate_gate_rate %u\n", g->gate.rate);
	put_head(f, "tidegate_gate_unserved", "gauge",
		"Connections admitted whose handshake is not complete");
	fprintf(f, "tidegate_gate_unserved %" PRIu64 "\n", g->unserved);
	put_head(f, "tidegate_gate_delay_seconds", "gauge",
		"Standing delay of the governor's last interval");
	fprintf(f, "tidegate_gate_delay_seconds %" PRIu64 ".%09" PRIu64 "\n",
		g->delay_ns / 1000000000u, g->delay_ns % 1000000000u);
	put_head(f, memory, "gauge",
		"Memory in use of what may be used; what is not known is left out");
	for (unsigned i = 0; i < sizeof(pressure) / sizeof(pressure[0]); i++)
		if (pressure[i].percent != MEMORY_UNKNOWN)
			fprintf(f, "%s{kind=\"%s\"} %d.%02d\n", memory, pressure[i].kind,
				pressure[i].percent / 100, pressure[i].percent % 100);
	put_head(f, verdicts, "counter", "Decisions of admission, by the program that made them");
	put_verdicts(f, in, verdicts, false);
	put_head(
		f, observed, "counter", "Those that only observe mode kept from being carried out");
	put_verdicts(f, in, observed, true);
}

static void put_process(FILE *f, const struct metrics_input *in)
{
	const struct process_stats *p = &in->process;

	if (p->resident_bytes != PROCESS_STATS_UNKNOWN) {
		put_head(f, "process_resident_memory_bytes", "gauge",
			"Resident memory of the gateway process");
		fprintf(f, "process_resident_memory_bytes %" PRId64 "\n", p->resident_bytes);
	}
	put_head(f, "process_cpu_seconds_total", "counter",
		"User and system CPU time of the gateway process");
	fprintf(f, "process_cpu_seconds_total %" PRIu64 ".%09" PRIu64 "\n", p->cpu_ns / 1000000000u,
		p->cpu_ns % 1000000000u);
	if (p->start_unix_ms != PROCESS_STATS_UNKNOWN) {
		put_head(f, "process_start_time_seconds", "gauge",
			"When the gateway process started, in seconds of the Unix epoch");
		fprintf(f, "process_start_time_seconds %" PRId64 ".%03" PRId64 "\n",
			p->start_unix_ms / 1000, p->start_unix_ms % 1000);
	}
	if (p->open_fds != PROCESS_STATS_UNKNOWN) {
		put_head(f, "process_open_fds", "gauge",
			"Descriptors of the gateway process; client connections have none");
		fprintf(f, "process_open_fds %" PRId64 "\n", p->open_fds);
	}
	put_head(f, "tidegate_build_info", "gauge", "Always 1; the version is a label");
	fputs("tidegate_build_info{version=\"", f);
	put_escaped(f, in->version, true);
	fputs("\"} 1\n", f);
}

int metrics_render(const struct metrics_input *in, char **ret_text, size_t *ret_len)
{
	char *text = NULL;
	size_t len = 0;
	FILE *f = open_memstream(&text, &len);
	if (!f)
		return -ENOMEM;

	put_listed(f, in);
	put_connections(f, in);
	put_by_reason(f, in);
	put_routes(f, in);
	put_delays(f, in);
	put_kernel_delays(f, in);
	put_gate(f, in);
	int r = put_links(f, in);
	put_process(f, in);

	if (ferror(f))
		r = -ENOMEM;
	if (fclose(f) != 0)
		r = -ENOMEM;
	if (r < 0) {
		free(text);
		return r;
	}
	*ret_text = text;
	*ret_len = len;
	return 0;
}
