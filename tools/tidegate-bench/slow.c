/* slow: a fan-out to clients that read, without, with and again without others that subscribe to
 * the same topic and never read.
 *
 * What it is about: how late the readers' messages are, what the server and the kernel keep for
 * those who do not read, and that it stays within bounds.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control.h"
#include "fan.h"

enum {
	LEAD_MS = 100,
	RSS_EVERY = 10, /* calls of the watch: reading it walks the server's address space */
	PHASES = 3,     /* without, with, without */
	WITH = 1,
};

struct slow {
	struct fan fan;
	struct bench_options deaf_opts;
	unsigned deaf; /* connections that never read */
	int rcvbuf_bytes;
	struct load_ops deaf_ops;
	struct load *deaf_load;
	struct fan_thread deaf_thread;
	struct load_totals deaf_totals;
	struct fan_phase phase[PHASES];

	/* While the deaf ones are there. */
	unsigned watched;
	uint64_t tcp_before_bytes, tcp_peak_bytes, rss_before_bytes, rss_peak_bytes;
};

static int kernel_tcp(uint64_t *ret_bytes)
{
	struct procstat_kernel k;
	int err = procstat_kernel_read(&k);

	if (err)
		fprintf(stderr, "tidegate-bench: /proc/net/sockstat: %s\n", strerror(-err));
	else
		*ret_bytes = k.tcp_bytes;
	return err;
}

static void watch(void *ctx)
{
	struct slow *x = ctx;
	const struct bench_options *o = &x->fan.opts;
	struct procstat_kernel k;
	struct procstat p;
	pid_t bad;

	if (!procstat_kernel_read(&k) && k.tcp_bytes > x->tcp_peak_bytes)
		x->tcp_peak_bytes = k.tcp_bytes;
	if (x->watched++ % RSS_EVERY == 0 && !procstat_read(o->pids, o->n_pids, &p, &bad) &&
		p.rss_bytes > x->rss_peak_bytes)
		x->rss_peak_bytes = p.rss_bytes;
}

static int deaf_open(struct slow *x)
{
	x->deaf_ops = fan_subscriber_ops();
	x->deaf_ops.rcvbuf_bytes = x->rcvbuf_bytes;
	x->deaf_thread = (struct fan_thread){.fan = &x->fan, .deaf = true};
	int err = load_create(&x->deaf_opts, &x->deaf_load);
	if (!err)
		err = load_add(x->deaf_load, &(struct load_thread_opts){
						     .ops = &x->deaf_ops,
						     .work = &x->deaf_thread,
						     .connections = x->deaf,
						     .n_bufs = 256,
						     .buf_bytes = 1024,
					     });
	if (err)
		fprintf(stderr, "tidegate-bench: %s\n", strerror(-err));
	if (!err)
		err = control_open(x->deaf_load);
	return err ? err : fan_subscribed(x->deaf_load, &x->deaf_thread, 1);
}

static int run_phase(struct slow *x, unsigned i)
{
	return fan_phase(&x->fan, load_now_ns() + LEAD_MS * 1000000ull, i == WITH ? watch : NULL, x,
		&x->phase[i]);
}

static int measure(struct slow *x)
{
	int err = fan_open(&x->fan);

	if (!err)
		err = run_phase(x, 0);
	if (!err)
		err = kernel_tcp(&x->tcp_before_bytes);
	if (err)
		return err;
	x->rss_before_bytes = x->phase[0].after.server.rss_bytes;
	err = deaf_open(x);
	if (!err)
		err = run_phase(x, WITH);
	if (err)
		return err;
	if (x->phase[WITH].after.server.rss_bytes > x->rss_peak_bytes)
		x->rss_peak_bytes = x->phase[WITH].after.server.rss_bytes;
	x->deaf_totals = load_totals(x->deaf_load);
	load_stop(x->deaf_load);
	return run_phase(x, 2);
}

static void report_memory(const struct slow *x, json_t *j)
{
	double tcp = (double)x->tcp_peak_bytes - (double)x->tcp_before_bytes;
	json_t *k = json_object();

	control_row("kernel",
		"TCP memory %.1f MiB before, %.1f at most: %.0f bytes a deaf connection",
		(double)x->tcp_before_bytes / 1048576, (double)x->tcp_peak_bytes / 1048576,
		tcp / x->deaf);
	json_object_set_new(k, "before_bytes", json_integer((json_int_t)x->tcp_before_bytes));
	json_object_set_new(k, "peak_bytes", json_integer((json_int_t)x->tcp_peak_bytes));
	json_object_set_new(k, "bytes_per_deaf", json_real(tcp / x->deaf));
	json_object_set_new(j, "kernel_tcp", k);
	if (!x->fan.opts.n_pids)
		return;
	json_t *s = json_object();
	control_row("server", "memory %.1f MiB before, %.1f at most",
		(double)x->rss_before_bytes / 1048576, (double)x->rss_peak_bytes / 1048576);
	json_object_set_new(s, "rss_before_bytes", json_integer((json_int_t)x->rss_before_bytes));
	json_object_set_new(s, "rss_peak_bytes", json_integer((json_int_t)x->rss_peak_bytes));
	json_object_set_new(j, "server", s);
}

static void report_readers(const struct slow *x, json_t *j)
{
	static struct fan_result alone, again, beside;

	fan_collect(&x->fan, 0, &alone);
	fan_collect(&x->fan, WITH, &beside);
	fan_collect(&x->fan, 2, &again);
	hist_merge(&alone.latency_ns, &again.latency_ns);
	double calm = (double)hist_quantile(&alone.latency_ns, 0.99);
	double ratio = calm > 0 ? (double)hist_quantile(&beside.latency_ns, 0.99) / calm : 0;

	control_row("publications", "%llu without, %llu with those who do not read",
		(unsigned long long)(alone.publications + again.publications),
		(unsigned long long)beside.publications);
	fan_report_latency("readers alone", &alone.latency_ns, j, "alone_us");
	fan_report_latency("beside them", &beside.latency_ns, j, "beside_us");
	control_row("  p99", "x %.2f", ratio);
	json_object_set_new(j, "p99_ratio", json_real(ratio));
	json_object_set_new(j, "publications",
		json_integer((json_int_t)(alone.publications + beside.publications +
					  again.publications)));
}

static int report(const struct slow *x, const struct load_totals *s)
{
	const struct bench_options *o = &x->fan.opts;
	uint64_t missing = fan_missing(&x->fan), errors = fan_errors(&x->fan, s);
	bool ok = errors <= o->max_errors && !control_interrupted();
	json_t *j = json_object();

	printf("slow %s, %u readers, %u who do not read, %u bytes, %g publications/s\n", o->url,
		o->connections, x->deaf, o->size_bytes, x->fan.rate);
	json_object_set_new(j, "command", json_string("slow"));
	json_object_set_new(j, "url", json_string(o->url));
	json_object_set_new(j, "size", json_integer(o->size_bytes));
	control_report(x->fan.subscribers, s, j);
	fan_report_publisher(&x->fan, j);
	report_readers(x, j);
	control_row("the deaf", "%llu subscribed, %llu ended by the server",
		(unsigned long long)load_read(&x->deaf_thread.subscribed),
		(unsigned long long)x->deaf_totals.closed);
	json_object_set_new(j, "deaf", json_integer((json_int_t)x->deaf_thread.subscribed));
	json_object_set_new(j, "deaf_ended", json_integer((json_int_t)x->deaf_totals.closed));
	report_memory(x, j);
	control_row("errors", "%llu, of them %llu deliveries to readers missing",
		(unsigned long long)errors, (unsigned long long)missing);
	json_object_set_new(j, "errors", json_integer((json_int_t)errors));
	json_object_set_new(j, "missing", json_integer((json_int_t)missing));
	json_object_set_new(j, "ok", json_boolean(ok));
	control_json(o, j);
	return ok ? BENCH_OK : BENCH_FAILED;
}

enum {
	OPT_RATE = BENCH_OPTION_OWN,
	OPT_SLOW,
	OPT_RCVBUF,
};

static int own_set(void *ctx, int val, const char *arg)
{
	struct slow *x = ctx;
	double v = 0;
	int err = 0;

	switch (val) {
	case OPT_RATE:
		err = bench_number("rate", arg, 0.1, 1e6, &x->fan.rate);
		break;
	case OPT_SLOW:
		err = bench_number("slow", arg, 1, 1e6, &v);
		x->deaf = (unsigned)v;
		break;
	case OPT_RCVBUF:
		err = bench_number("rcvbuf", arg, 1, 1 << 30, &v);
		x->rcvbuf_bytes = (int)v;
		break;
	}
	return err;
}

int cmd_slow(int argc, char **argv)
{
	static const struct option own[] = {
		{"rate", required_argument, NULL, OPT_RATE},
		{"slow", required_argument, NULL, OPT_SLOW},
		{"rcvbuf", required_argument, NULL, OPT_RCVBUF},
		{0},
	};
	static const char usage[] =
		"  --rate N              publications per second, each due at its time (default "
		"100)\n"
		"  --slow N              connections that subscribe and never read (default 100)\n"
		"  --rcvbuf BYTES        their SO_RCVBUF (default 4096)\n"
		"\n--connections are the readers; one more connection publishes. --duration and "
		"--warmup are those of each of\nthree phases: without, with and again without the "
		"slow ones.\n"
		"defaults: 1000 connections, 512 bytes, 1 s of warm-up, 5 s measured\n";
	static struct slow x = {
		.fan =
			{
				.opts =
					{
						.url = "ws://127.0.0.1:8080/hub",
						.connections = 1000,
						.threads = 1,
						.size_bytes = 512,
						.duration_s = 5,
						.warmup_s = 1,
						.connect_inflight = 256,
						.timeout_s = 10,
					},
				.phases = PHASES,
				.rate = 100,
			},
		.deaf = 100,
		.rcvbuf_bytes = 4096,
	};
	int status = BENCH_FAILED;

	int err = bench_options_parse(
		argc, argv, &(struct bench_own_options){own, own_set, &x, usage}, &x.fan.opts);
	if (err)
		return err > 0 ? BENCH_OK : BENCH_USAGE;
	x.deaf_opts = x.fan.opts;
	x.deaf_opts.connections = x.deaf;
	x.deaf_opts.threads = 1;
	control_catch_signals();
	if (!fan_create(&x.fan) && !measure(&x)) {
		struct load_totals s = load_totals(x.fan.subscribers);
		fan_stop(&x.fan);
		status = report(&x, &s);
	}
	fan_stop(&x.fan);
	if (x.deaf_load)
		load_stop(x.deaf_load);
	load_destroy(x.deaf_load);
	fan_destroy(&x.fan);
	return status;
}
