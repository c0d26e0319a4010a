/* hold: opens many connections, leaves them alone, and says what they cost.
 *
 * Pings of the server are answered by the engine. The server's memory is measured from before the
 * first connection to the end of the hold, so whatever it sizes on demand counts.
 */
#include <stdio.h>
#include <string.h>

#include "control.h"

enum {
	HOLD_BUFS = 512,
	HOLD_BUF_BYTES = 512, /* the answer to the handshake, with room for a longer one */
};

struct hold {
	struct bench_options opts;
	struct load *load;
	struct control_sample before, opened, end;
	struct procstat_kernel kernel_before, kernel_end;
};

static const struct load_ops hold_ops = {.poll_idle = true};

static int hold_create(struct hold *h)
{
	const struct bench_options *o = &h->opts;

	int err = load_create(o, &h->load);
	for (unsigned i = 0; i < o->threads && !err; i++)
		err = load_add(h->load, &(struct load_thread_opts){
						.ops = &hold_ops,
						.connections = o->connections / o->threads +
							       (i < o->connections % o->threads),
						.n_bufs = HOLD_BUFS,
						.buf_bytes = HOLD_BUF_BYTES,
					});
	return err;
}

static void progress(void *ctx)
{
	struct hold *h = ctx;
	struct load_totals s = load_totals(h->load);

	control_progress(&h->opts, "%llu connections held, %llu lost, %llu pings answered",
		(unsigned long long)(s.opened - s.closed), (unsigned long long)s.closed,
		(unsigned long long)s.pings);
}

static int kernel_sample(struct procstat_kernel *ret)
{
	int err = procstat_kernel_read(ret);

	if (err)
		fprintf(stderr, "tidegate-bench: /proc/net/sockstat, /proc/meminfo: %s\n",
			strerror(-err));
	return err;
}

static int measure(struct hold *h)
{
	int err = control_sample(&h->opts, &h->before);
	if (!err)
		err = kernel_sample(&h->kernel_before);
	if (err)
		return err;
	err = control_open(h->load);
	if (!err)
		err = control_sample(&h->opts, &h->opened);
	if (err)
		return err;
	load_phase_set(h->load, LOAD_PHASE_RUN);
	control_until(h->load, load_now_ns() + (uint64_t)(h->opts.duration_s * 1e9), progress, h);
	control_progress_end(&h->opts);
	err = control_sample(&h->opts, &h->end);
	return err ? err : kernel_sample(&h->kernel_end);
}

static double per(uint64_t before, uint64_t after, uint64_t n)
{
	return n ? ((double)after - (double)before) / (double)n : 0;
}

static void report_server(const struct hold *h, uint64_t n, json_t *j)
{
	const struct procstat *a = &h->before.server, *b = &h->opened.server, *c = &h->end.server;
	double hold_s = (double)(h->end.at_ns - h->opened.at_ns) * 1e-9;
	double percent = hold_s > 0 ? (double)(c->cpu_us - b->cpu_us) / hold_s / 1e4 : 0;
	json_t *s = json_object();

	control_row("server memory",
		"%.1f MiB before, %.1f once open, %.1f at the end: %.1f bytes a connection",
		(double)a->rss_bytes / 1048576, (double)b->rss_bytes / 1048576,
		(double)c->rss_bytes / 1048576, per(a->rss_bytes, c->rss_bytes, n));
	control_row("server CPU", "%.1f us a connection opened; %.1f %% while held",
		per(a->cpu_us, b->cpu_us, n), percent);
	json_object_set_new(s, "rss_before_bytes", json_integer((json_int_t)a->rss_bytes));
	json_object_set_new(s, "rss_open_bytes", json_integer((json_int_t)b->rss_bytes));
	json_object_set_new(s, "rss_end_bytes", json_integer((json_int_t)c->rss_bytes));
	json_object_set_new(
		s, "rss_bytes_per_connection", json_real(per(a->rss_bytes, c->rss_bytes, n)));
	json_object_set_new(s, "cpu_us_per_connect", json_real(per(a->cpu_us, b->cpu_us, n)));
	json_object_set_new(s, "hold_cpu_percent", json_real(percent));
	json_object_set_new(j, "server", s);
}

static int report(const struct hold *h, const struct load_totals *s)
{
	const struct bench_options *o = &h->opts;
	const struct procstat_kernel *a = &h->kernel_before, *b = &h->kernel_end;
	uint64_t n = s->opened - s->closed, failed = control_failed(h->load, s);
	bool ok = failed <= o->max_errors && !control_interrupted();
	json_t *j = json_object();

	printf("hold %s, %u connections for %g s\n", o->url, o->connections, o->duration_s);
	json_object_set_new(j, "command", json_string("hold"));
	json_object_set_new(j, "url", json_string(o->url));
	control_report(h->load, s, j);
	control_row("pings", "%llu answered", (unsigned long long)s->pings);
	if (o->n_pids)
		report_server(h, n, j);
	control_row("kernel",
		"%.0f bytes of TCP memory and %.0f of slab a connection (both ends, whole machine)",
		per(a->tcp_bytes, b->tcp_bytes, n), per(a->slab_bytes, b->slab_bytes, n));
	json_object_set_new(j, "held", json_integer((json_int_t)n));
	json_object_set_new(
		j, "duration_s", json_real((double)(h->end.at_ns - h->opened.at_ns) * 1e-9));
	json_object_set_new(j, "pings_answered", json_integer((json_int_t)s->pings));
	json_object_set_new(j, "kernel_tcp_bytes_per_connection",
		json_real(per(a->tcp_bytes, b->tcp_bytes, n)));
	json_object_set_new(j, "kernel_slab_bytes_per_connection",
		json_real(per(a->slab_bytes, b->slab_bytes, n)));
	json_object_set_new(j, "ok", json_boolean(ok));
	control_json(o, j);
	return ok ? BENCH_OK : BENCH_FAILED;
}

int cmd_hold(int argc, char **argv)
{
	static const struct option own[] = {{0}};
	struct hold h = {
		.opts =
			{
				.connections = 15000,
				.threads = 1,
				.duration_s = 10,
				.connect_inflight = 256,
				.timeout_s = 10,
			},
	};
	int status = BENCH_FAILED;

	int err = bench_options_parse(
		argc, argv, &(struct bench_own_options){.own = own, .usage = ""}, &h.opts);
	if (err)
		return err > 0 ? BENCH_OK : BENCH_USAGE;
	control_catch_signals();
	err = hold_create(&h);
	if (err) {
		fprintf(stderr, "tidegate-bench: %s\n", strerror(-err));
	} else if (!measure(&h)) {
		struct load_totals s = load_totals(h.load);
		load_stop(h.load);
		status = report(&h, &s);
	} else {
		load_stop(h.load);
	}
	load_destroy(h.load);
	return status;
}
