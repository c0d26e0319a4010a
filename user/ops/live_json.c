/* Two samples as one JSON object. */
#include "ops/live_sample.h"

#include <stdlib.h>
#include <string.h>

#include "core/runq.h"
#include "kern/bpf_gate.h"
#include "net/admission.h"
#include "ops/json_put.h"

enum {
	NS_PER_US = 1000,
	/* Sub-buckets of struct hist that make one of the heat map: two of those an octave. */
	HEAT_BUCKETS = 1 << (HIST_SUB_BITS - 1),
};

/* Per second, to a thousandth: JSON would print all the digits of a double. */
static double per_s(uint64_t now, uint64_t before, uint64_t interval_ns)
{
	double v = now > before ? (double)(now - before) * 1e9 / (double)interval_ns : 0;

	return (double)(uint64_t)(v * 1000 + 0.5) / 1000;
}

static double thousandths(double v)
{
	return (double)(int64_t)(v * 1000 + 0.5) / 1000;
}

static json_t *line_json(const struct live_sample *s)
{
	const struct schedline *l = &s->line;
	json_t *o = json_object();

	if (!s->has_line) {
		json_decref(o);
		return json_null();
	}
	json_put_number(&o, "sched_poll_delay_p99_ns", l->delay_p99_us * NS_PER_US);
	json_put_number(&o, "runnable_tasks", l->runnable);
	json_put_real(&o, "accepts_per_s", thousandths(l->accepts_per_s));
	json_put_real(&o, "closes_per_s", thousandths(l->closes_per_s));
	json_put_number(&o, "conns", l->conns);
	json_put_text(&o, "gate", l->gate);
	json_put_number(&o, "admitted", l->admitted);
	json_put_number(&o, "refused", l->refused);
	json_put_number(&o, "forced_yields", l->forced_yields);
	json_put_number(&o, "dropped", l->dropped);
	json_put_real(&o, "interval_s", thousandths((double)l->interval_ns / 1e9));
	json_put_real(&o, "age_s", thousandths((double)s->line_age_ns / 1e9));
	return o;
}

/* ---- workers ---- */

static json_t *heat_json(const struct hist *h)
{
	json_t *a = json_array();

	for (unsigned i = 0; i < HIST_BUCKETS; i += HEAT_BUCKETS) {
		uint64_t n = 0;

		for (unsigned k = i; k < i + HEAT_BUCKETS; k++)
			n += h->bucket[k];
		if (!n)
			continue;
		json_t *pair = json_array();
		json_put_number(&pair, NULL, hist_upper(i + HEAT_BUCKETS - 1) * NS_PER_US);
		json_put_number(&pair, NULL, n);
		json_put(&a, NULL, pair);
	}
	return a;
}

static double busy(
	const struct tg_worker_stats *now, const struct tg_worker_stats *before, uint64_t ns)
{
	double part = per_s(now->loop_us.sum, before->loop_us.sum, ns) / 1e6;

	return part < 1 ? thousandths(part) : 1;
}

/* Of the time at work, that which went into handshakes and accepts; 0 when it did not work. */
static double handshake_share(
	const struct tg_worker_stats *now, const struct tg_worker_stats *before)
{
	double all = 0, part;

	for (unsigned i = 0; i < STATS_CLASSES; i++)
		all += (double)(now->class_ns[i] - before->class_ns[i]);
	part = (double)(now->class_ns[RUNQ_HANDSHAKE] - before->class_ns[RUNQ_HANDSHAKE]);
	return all > 0 ? thousandths(part / all) : 0;
}

static json_t *worker_json(
	const struct live_sample *before, const struct live_sample *now, unsigned i)
{
	const struct tg_worker_stats *b = &before->workers[i], *n = &now->workers[i];
	uint64_t ns = now->now_ns - before->now_ns;
	json_t *o = json_object();
	struct hist delay;

	hist_diff(&delay, &n->poll_delay_us, &b->poll_delay_us);
	json_put_number(&o, "worker", i);
	json_put_number(&o, "connections", n->connections);
	json_put_number(&o, "sessions", n->sessions);
	json_put_number(&o, "handshaking", n->handshaking);
	json_put_number(&o, "runnable", n->runnable);
	json_put_number(&o, "blocked", n->blocked);
	json_put_real(&o, "busy", busy(n, b, ns));
	json_put_real(&o, "handshake_share", handshake_share(n, b));
	json_put_real(&o, "accepts_per_s", per_s(n->accepts, b->accepts, ns));
	json_put_real(&o, "closes_per_s", per_s(stats_closes(n), stats_closes(b), ns));
	json_put_real(&o, "messages_in_per_s", per_s(n->messages_in, b->messages_in, ns));
	json_put_real(&o, "messages_out_per_s", per_s(n->messages_out, b->messages_out, ns));
	json_put_number(&o, "poll_delay_p50_ns", hist_quantile(&delay, 0.5) * NS_PER_US);
	json_put_number(&o, "poll_delay_p99_ns", hist_quantile(&delay, 0.99) * NS_PER_US);
	json_put_number(&o, "poll_delay_max_ns", delay.max * NS_PER_US);
	json_put(&o, "poll_delay_hist", heat_json(&delay));
	if (now->measures && before->measures) {
		hist_diff(&delay, &n->wake_delay_us, &b->wake_delay_us);
		json_put_number(&o, "wake_delay_p99_ns", hist_quantile(&delay, 0.99) * NS_PER_US);
	} else {
		json_put(&o, "wake_delay_p99_ns", json_null());
	}
	json_put_number(&o, "forced_yields", n->forced_yields);
	json_put_real(&o, "forced_yields_per_s", per_s(n->forced_yields, b->forced_yields, ns));
	json_put_number(&o, "heap_bytes", n->heap_bytes);
	json_put_number(&o, "rings", n->rings);
	return o;
}

static json_t *workers_json(const struct live_sample *before, const struct live_sample *now)
{
	json_t *a = json_array();

	for (unsigned i = 0; i < now->n_workers; i++)
		json_put(&a, NULL, worker_json(before, now, i));
	return a;
}

/* ---- the gate ---- */

static json_t *limit_or_null(uint64_t v, uint64_t none)
{
	return v >= none ? json_null() : json_integer((json_int_t)v);
}

static json_t *gate_json(const struct live_sample *before, const struct live_sample *now)
{
	const struct gate_info *g = &now->gate;
	uint64_t busy_ns = 0, handshake_ns = 0;
	json_t *o = json_object();

	for (unsigned i = 0; i < now->n_workers; i++) {
		const struct tg_worker_stats *n = &now->workers[i], *b = &before->workers[i];

		handshake_ns += n->class_ns[RUNQ_HANDSHAKE] - b->class_ns[RUNQ_HANDSHAKE];
		for (unsigned k = 0; k < STATS_CLASSES; k++)
			busy_ns += n->class_ns[k] - b->class_ns[k];
	}
	json_put_text(&o, "state", g->on ? governor_state_name(g->gate.state) : "off");
	json_put_text(&o, "reason", governor_reason_name(g->gate.reason));
	json_put_text(&o, "mode", g->mode);
	json_put_text(&o, "where", g->where ? g->where : "");
	json_put_text(&o, "word", governor_word_name(g->word));
	json_put(&o, "rate", limit_or_null(g->gate.rate, GOVERNOR_RATE_MAX));
	json_put_number(&o, "reserve_rate", g->gate.reserve_rate);
	json_put(&o, "permits", limit_or_null(g->gate.permits, GOVERNOR_PERMITS_MAX));
	json_put_number(&o, "unserved", g->unserved);
	json_put_number(&o, "delay_ns", g->delay_ns);
	json_put_number(&o, "target_ns", g->target_ns);
	json_put_real(&o, "handshake_share",
		busy_ns ? thousandths((double)handshake_ns / (double)busy_ns) : 0);
	json_put_real(&o, "handshake_share_min", g->handshake_percent / 100.0);
	json_put_number(&o, "goodput_per_s", g->goodput);
	json_put_number(&o, "cuts", g->cuts);
	json_put_number(&o, "shuts", g->shuts);
	json_put_number(&o, "holds", g->holds);
	return o;
}

static void add_verdict(json_t **a, const char *program, const char *reason, bool refuses,
	const uint64_t total[2], const uint64_t observed[2], uint64_t ns)
{
	json_t *o;

	if (!total[1] && !observed[1])
		return;
	o = json_object();
	json_put_text(&o, "program", program);
	json_put_text(&o, "reason", reason);
	json_put(&o, "refuses", json_boolean(refuses));
	json_put_number(&o, "total", total[1]);
	json_put_real(&o, "per_s", per_s(total[1], total[0], ns));
	json_put_number(&o, "observed", observed[1]);
	json_put_real(&o, "observed_per_s", per_s(observed[1], observed[0], ns));
	json_put(a, NULL, o);
}

/* Those that have happened. */
static json_t *verdicts_json(const struct live_sample *before, const struct live_sample *now)
{
	uint64_t ns = now->now_ns - before->now_ns;
	json_t *a = json_array();

	for (unsigned v = admission_verdict_from(0); v < TG_VERDICT_COUNT;
		v = admission_verdict_from(v + 1)) {
		uint64_t total[2] = {0, 0}, observed[2] = {0, 0};

		for (unsigned i = 0; i < now->n_workers; i++) {
			total[0] += before->workers[i].verdicts[v];
			total[1] += now->workers[i].verdicts[v];
			observed[0] += before->workers[i].verdicts_observed[v];
			observed[1] += now->workers[i].verdicts_observed[v];
		}
		add_verdict(&a, "user", admission_verdict_name(v),
			admission_refuses((enum tg_verdict)v), total, observed, ns);
	}
	for (unsigned v = 0; now->has_kernel && v < TG_VERDICT_COUNT; v++) {
		const struct tg_verdict_count *n = &now->kernel[v],
					      *b = before->has_kernel ? &before->kernel[v] : n;

		add_verdict(&a, bpf_verdict_program((enum tg_verdict)v),
			bpf_verdict_name((enum tg_verdict)v),
			bpf_verdict_refuses((enum tg_verdict)v),
			(uint64_t[]){b->packets, n->packets},
			(uint64_t[]){b->observed, n->observed}, ns);
	}
	return a;
}

/* ---- sources, routes, links, memory ---- */

static const struct source_info *find_source(const struct live_sample *s, const char *prefix)
{
	for (size_t i = 0; s->has_sources && i < s->n_sources; i++)
		if (!strcmp(s->sources[i].prefix, prefix))
			return &s->sources[i];
	return NULL;
}

static json_t *sources_json(const struct live_sample *before, const struct live_sample *now)
{
	uint64_t ns = now->now_ns - before->now_ns;
	json_t *a = json_array();

	if (!now->has_sources) {
		json_decref(a);
		return json_null();
	}
	for (size_t i = 0; i < now->n_sources; i++) {
		const struct source_info *n = &now->sources[i], *b = find_source(before, n->prefix);
		json_t *o = json_object();

		json_put_text(&o, "prefix", n->prefix);
		json_put_number(&o, "open", n->open);
		json_put_number(&o, "accepts", n->accepts);
		json_put_number(&o, "closes", n->closes);
		/* Of one that was not among them before, since it is known. */
		json_put_real(&o, "churn_per_s",
			b ? per_s(n->accepts + n->closes, b->accepts + b->closes, ns)
			  : thousandths(n->churn_per_s));
		json_put_number(&o, "strikes", n->strikes);
		json_put_number(&o, "penalty_left_ms", (uint64_t)(n->penalty_left_s * 1000));
		json_put(&a, NULL, o);
	}
	return a;
}

static uint64_t sessions(const struct admin_route *r)
{
	uint64_t n = 0;

	for (unsigned w = 0; w < STATS_WORKERS_MAX; w++)
		n += r->sessions[w];
	return n;
}

static int by_connections(const void *a, const void *b)
{
	const struct admin_route *x = *(struct admin_route *const *)a;
	const struct admin_route *y = *(struct admin_route *const *)b;

	return (sessions(x) < sessions(y)) - (sessions(x) > sessions(y));
}

static uint64_t dropped(const struct admin_route *r)
{
	uint64_t n = 0;

	for (unsigned p = 0; p < OUT_POLICIES; p++)
		n += r->dropped[p];
	return n;
}

static json_t *routes_json(const struct live_sample *before, const struct live_sample *now)
{
	const struct admin_route **order = calloc(now->n_routes + 1, sizeof *order);
	json_t *a = order ? json_array() : NULL;

	for (unsigned i = 0; order && i < now->n_routes; i++)
		order[i] = &now->routes[i];
	if (order)
		qsort(order, now->n_routes, sizeof *order, by_connections);
	for (unsigned i = 0; order && i < now->n_routes && i < LIVE_ROUTES_MAX; i++) {
		const struct admin_route *n = order[i], *b = &before->routes[n - now->routes];
		json_t *o = json_object();

		json_put_text(&o, "path", n->path);
		json_put_text(&o, "upstream", n->upstream);
		json_put_text(&o, "policy", out_policy_name(n->policy));
		json_put_number(&o, "connections", sessions(n));
		json_put_number(&o, "dropped", dropped(n));
		json_put_real(&o, "dropped_per_s",
			per_s(dropped(n), dropped(b), now->now_ns - before->now_ns));
		json_put(&a, NULL, o);
	}
	free(order);
	return a;
}

static int by_endpoint(const void *a, const void *b)
{
	const struct link_info *x = *(struct link_info *const *)a;
	const struct link_info *y = *(struct link_info *const *)b;
	int c = strcmp(x->upstream, y->upstream);

	return c ? c : strcmp(x->endpoint, y->endpoint);
}

/* Those of one endpoint, of all workers. */
static json_t *endpoint_json(const struct link_info *const *links, size_t n)
{
	const struct link_info *shown = links[0]; /* one that is not up, if there is any */
	uint64_t up = 0, sessions = 0, queued = 0, rtt_us = 0;
	json_t *o = json_object();

	for (size_t i = 0; i < n; i++) {
		up += links[i]->up;
		sessions += links[i]->sessions;
		queued += links[i]->queued_bytes;
		if (links[i]->rtt_us > rtt_us)
			rtt_us = links[i]->rtt_us;
		if (!links[i]->up)
			shown = links[i];
	}
	json_put_text(&o, "upstream", shown->upstream);
	json_put_text(&o, "endpoint", shown->endpoint);
	json_put_number(&o, "links", n);
	json_put_number(&o, "up", up);
	json_put_number(&o, "sessions", sessions);
	json_put_number(&o, "queued_bytes", queued);
	json_put_number(&o, "rtt_us", rtt_us);
	json_put_text(&o, "state", shown->state);
	json_put_text(&o, "last_error", shown->last_error);
	return o;
}

static json_t *links_json(const struct live_about *about)
{
	size_t total = about->n_links, n;
	const struct link_info **order;
	json_t *a;

	if (about->links_error)
		return json_null();
	order = calloc(total + 1, sizeof *order);
	a = order ? json_array() : NULL;
	for (size_t i = 0; order && i < total; i++)
		order[i] = &about->links[i];
	if (order)
		qsort(order, total, sizeof *order, by_endpoint);
	for (size_t i = 0; order && i < total; i += n) {
		for (n = 1; i + n < total && !by_endpoint(&order[i], &order[i + n]); n++)
			;
		json_put(&a, NULL, endpoint_json(&order[i], n));
	}
	free(order);
	return a;
}

static json_t *ratio(int percent)
{
	return percent == MEMORY_UNKNOWN ? json_null() : json_real(percent / 100.0);
}

static json_t *memory_json(const struct live_sample *s)
{
	int64_t rss = s->process.resident_bytes;
	const struct gate_info *g = &s->gate;
	uint64_t connections = 0;
	json_t *o = json_object();

	for (unsigned i = 0; i < s->n_workers; i++)
		connections += s->workers[i].connections;
	json_put(&o, "rss", rss == PROCESS_STATS_UNKNOWN ? json_null() : json_integer(rss));
	json_put(&o, "per_connection",
		rss == PROCESS_STATS_UNKNOWN || !connections
			? json_null()
			: json_integer(rss / (int64_t)connections));
	json_put(&o, "pressure", g->on ? ratio(g->memory.greatest) : json_null());
	json_put(&o, "cgroup", g->on ? ratio(g->memory.cgroup) : json_null());
	json_put(&o, "tcp", g->on ? ratio(g->memory.tcp) : json_null());
	json_put(&o, "machine", g->on ? ratio(g->memory.machine) : json_null());
	json_put(&o, "limit", g->on ? ratio((int)g->memory_high_percent) : json_null());
	return o;
}

json_t *live_json(const struct live_about *about, const struct live_sample *before,
	const struct live_sample *now)
{
	json_t *o = json_object();

	json_put_text(&o, "instance", about->instance);
	json_put_text(&o, "version", about->version);
	json_put_number(&o, "seq", about->seq);
	json_put_real(&o, "time", thousandths(about->unix_s));
	json_put_real(&o, "interval_s", thousandths((double)(now->now_ns - before->now_ns) / 1e9));
	json_put_real(&o, "uptime_s", thousandths(about->uptime_s));
	json_put(&o, "line", line_json(now));
	json_put(&o, "workers", workers_json(before, now));
	json_put(&o, "gate", gate_json(before, now));
	json_put(&o, "verdicts", verdicts_json(before, now));
	json_put(&o, "sources", sources_json(before, now));
	json_put(&o, "routes", routes_json(before, now));
	json_put(&o, "links", links_json(about));
	if (about->links_error)
		json_put_text(&o, "links_error", about->links_error);
	json_put(&o, "memory", memory_json(now));
	return o;
}
