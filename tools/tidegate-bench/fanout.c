/* fanout: one publisher, many subscribers of its topic, and others whose echoes are measured first
 * in the calm and then while the fan-out runs.
 *
 * The echo connections and the publisher have threads of their own, ahead of the subscribers' where
 * the system allows it: a generator that is busy with receiving a hundred thousand messages must
 * not be what delays an echo.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control.h"
#include "echo.h"
#include "fan.h"

enum {
	LEAD_MS =
		100, /* from now to the first publication: threads look at the phase every 50 ms */
	ECHO_BYTES = 64,
};

struct fanout {
	struct fan fan;
	struct bench_options echo_opts;
	const char *echo_url; /* NULL: /echo on the host of --url */
	unsigned echoes;
	double echo_rate;
	struct fan_phase phase;
	/* The echoes. */
	struct hist calm_ns, loud_ns;
	uint64_t unanswered;
	double calm_cpu_us_per_s; /* of the server */
	uint64_t echo_failed;
};

static uint64_t lead_ns(void)
{
	return load_now_ns() + LEAD_MS * 1000000ull;
}

static int echo_open(const struct fanout *x, struct echo *e)
{
	*e = (struct echo){.opts = x->echo_opts, .depth = 1, .rate = x->echo_rate, .urgent = true};
	int err = echo_create(e);
	if (err)
		fprintf(stderr, "tidegate-bench: %s\n", strerror(-err));
	return err ? err : control_open(e->load);
}

static void echo_close(struct fanout *x, struct echo *e, struct hist *ret)
{
	uint64_t unanswered;

	echo_drain(e);
	struct load_totals s = load_totals(e->load);
	x->echo_failed += control_failed(e->load, &s);
	load_stop(e->load);
	echo_collect(e, ret, NULL, &unanswered);
	x->unanswered += unanswered;
}

static int measure_calm(struct fanout *x)
{
	static struct echo e;
	struct control_sample before, after;

	int err = echo_open(x, &e);
	if (!err) {
		echo_run(&e, lead_ns());
		control_progress(&x->fan.opts, "echoes alone for %g s",
			x->echo_opts.warmup_s + x->echo_opts.duration_s);
		control_until(e.load, e.from_ns, NULL, NULL);
		err = control_sample(&x->fan.opts, &before);
	}
	if (!err) {
		control_until(e.load, e.to_ns, NULL, NULL);
		err = control_sample(&x->fan.opts, &after);
	}
	if (!err) {
		echo_close(x, &e, &x->calm_ns);
		x->calm_cpu_us_per_s = (double)(after.server.cpu_us - before.server.cpu_us) /
				       ((double)(after.at_ns - before.at_ns) * 1e-9);
	} else if (e.load) {
		load_stop(e.load);
	}
	echo_destroy(&e);
	return err;
}

static int measure_loud(struct fanout *x)
{
	static struct echo e;
	uint64_t run_ns;

	int err = x->echoes ? echo_open(x, &e) : 0;
	if (!err) {
		run_ns = lead_ns();
		if (x->echoes)
			echo_run(&e, run_ns);
		err = fan_phase(&x->fan, run_ns, NULL, NULL, &x->phase);
	}
	if (!err && x->echoes)
		echo_close(x, &e, &x->loud_ns);
	else if (e.load)
		load_stop(e.load);
	echo_destroy(&e);
	return err;
}

static int measure(struct fanout *x)
{
	int err = fan_open(&x->fan);

	if (!err && x->echoes) {
		x->echo_opts.warmup_s = x->fan.warm / x->fan.rate;
		x->echo_opts.duration_s = (x->fan.count - x->fan.warm) / x->fan.rate;
		err = measure_calm(x);
	}
	return err ? err : measure_loud(x);
}

static void report_echo(const struct fanout *x, json_t *j)
{
	double calm = (double)hist_quantile(&x->calm_ns, 0.99);
	double loud = (double)hist_quantile(&x->loud_ns, 0.99);
	json_t *e = json_object();

	control_row("echo", "%u connections to %s, %g messages/s; %llu unanswered", x->echoes,
		x->echo_opts.path, x->echo_rate, (unsigned long long)x->unanswered);
	fan_report_latency("  in the calm", &x->calm_ns, e, "calm_us");
	fan_report_latency("  meanwhile", &x->loud_ns, e, "fanout_us");
	control_row("  p99", "x %.2f", calm > 0 ? loud / calm : 0);
	json_object_set_new(e, "connections", json_integer(x->echoes));
	json_object_set_new(e, "rate", json_real(x->echo_rate));
	json_object_set_new(e, "unanswered", json_integer((json_int_t)x->unanswered));
	json_object_set_new(e, "p99_ratio", json_real(calm > 0 ? loud / calm : 0));
	json_object_set_new(j, "echo", e);
}

/* What the echoes cost in the calm is not on the subscribers' account. */
static void report_server(const struct fanout *x, json_t *j)
{
	const struct fan_phase *p = &x->phase;
	double cpu_us = (double)(p->after.server.cpu_us - p->before.server.cpu_us);
	double own_us = cpu_us - x->calm_cpu_us_per_s * p->seconds;
	double each = p->delivered ? own_us * 1e3 / (double)p->delivered : 0;
	json_t *s = json_object();

	control_row("server", "CPU %.0f %%, %.0f ns a delivery%s; memory %.1f MiB",
		cpu_us / p->seconds / 1e4, each,
		x->echoes ? " (without what the echoes cost in the calm)" : "",
		(double)p->after.server.rss_bytes / 1048576);
	json_object_set_new(s, "cpu_percent", json_real(cpu_us / p->seconds / 1e4));
	json_object_set_new(s, "cpu_ns_per_delivery", json_real(each));
	json_object_set_new(s, "rss_bytes", json_integer((json_int_t)p->after.server.rss_bytes));
	json_object_set_new(j, "server", s);
}

static void report_fan(const struct fanout *x, const struct fan_result *r, json_t *j)
{
	const struct fan_phase *p = &x->phase;
	double rate = (double)p->delivered / p->seconds;
	double own_us = (double)(p->after.own_cpu_us - p->before.own_cpu_us);
	char a[32], b[32];

	control_row("publications", "%llu, %g a second; %llu did not reach everyone",
		(unsigned long long)r->publications, x->fan.rate,
		(unsigned long long)r->incomplete);
	control_row("deliveries", "%s in %.2f s: %s/s", control_thousands(a, p->delivered),
		p->seconds, control_thousands(b, (uint64_t)rate));
	fan_report_latency("delivery", &r->latency_ns, j, "delivery_us");
	fan_report_latency("last one", &r->last_ns, j, "last_us");
	control_row("this program", "CPU %.0f %%", own_us / p->seconds / 1e4);
	json_object_set_new(j, "publications", json_integer((json_int_t)r->publications));
	json_object_set_new(j, "incomplete", json_integer((json_int_t)r->incomplete));
	json_object_set_new(j, "deliveries", json_integer((json_int_t)p->delivered));
	json_object_set_new(j, "seconds", json_real(p->seconds));
	json_object_set_new(j, "deliveries_per_s", json_real(rate));
	json_object_set_new(j, "own_cpu_percent", json_real(own_us / p->seconds / 1e4));
}

static int report(const struct fanout *x, const struct load_totals *s)
{
	static struct fan_result r;
	const struct bench_options *o = &x->fan.opts;
	uint64_t missing = fan_missing(&x->fan);
	uint64_t errors = fan_errors(&x->fan, s) + x->echo_failed + x->unanswered;
	bool ok = errors <= o->max_errors && !control_interrupted();
	json_t *j = json_object();

	fan_collect(&x->fan, 0, &r);
	printf("fanout %s, %u subscribers, %u bytes\n", o->url, o->connections, o->size_bytes);
	json_object_set_new(j, "command", json_string("fanout"));
	json_object_set_new(j, "url", json_string(o->url));
	json_object_set_new(j, "size", json_integer(o->size_bytes));
	control_report(x->fan.subscribers, s, j);
	fan_report_publisher(&x->fan, j);
	report_fan(x, &r, j);
	if (o->n_pids)
		report_server(x, j);
	if (x->echoes)
		report_echo(x, j);
	control_row("errors", "%llu, of them %llu deliveries missing", (unsigned long long)errors,
		(unsigned long long)missing);
	json_object_set_new(j, "errors", json_integer((json_int_t)errors));
	json_object_set_new(j, "missing", json_integer((json_int_t)missing));
	json_object_set_new(j, "ok", json_boolean(ok));
	control_json(o, j);
	return ok ? BENCH_OK : BENCH_FAILED;
}

enum {
	OPT_RATE = BENCH_OPTION_OWN,
	OPT_COUNT,
	OPT_ECHO,
	OPT_ECHO_URL,
	OPT_ECHO_RATE,
};

static int own_set(void *ctx, int val, const char *arg)
{
	struct fanout *x = ctx;
	double v = 0;
	int err = 0;

	switch (val) {
	case OPT_RATE:
		err = bench_number("rate", arg, 0.1, 1e6, &x->fan.rate);
		break;
	case OPT_COUNT:
		err = bench_number("count", arg, 1, FAN_PUBLICATIONS_MAX, &v);
		x->fan.count = (unsigned)v;
		break;
	case OPT_ECHO:
		err = bench_number("echo", arg, 0, 10000, &v);
		x->echoes = (unsigned)v;
		break;
	case OPT_ECHO_URL:
		x->echo_url = arg;
		break;
	case OPT_ECHO_RATE:
		err = bench_number("echo-rate", arg, 1, 1e6, &x->echo_rate);
		break;
	}
	return err;
}

static int echo_options(struct fanout *x)
{
	struct bench_options *o = &x->echo_opts;

	*o = x->fan.opts;
	o->connections = x->echoes;
	o->threads = 1;
	o->sources = 0;
	o->size_bytes = ECHO_BYTES;
	if (x->echo_url)
		return bench_url(o, "echo-url", x->echo_url);
	strcpy(o->path, "/echo");
	return 0;
}

int cmd_fanout(int argc, char **argv)
{
	static const struct option own[] = {
		{"rate", required_argument, NULL, OPT_RATE},
		{"count", required_argument, NULL, OPT_COUNT},
		{"echo", required_argument, NULL, OPT_ECHO},
		{"echo-url", required_argument, NULL, OPT_ECHO_URL},
		{"echo-rate", required_argument, NULL, OPT_ECHO_RATE},
		{0},
	};
	static const char usage[] =
		"  --rate N              publications per second, each due at its time (default "
		"10)\n"
		"  --count N             as many publications, however long they take; no warm-up\n"
		"  --echo N              connections whose echoes are measured, first alone and "
		"then "
		"during the fan-out\n"
		"                        (default 100)\n"
		"  --echo-url URL        where they connect (default: /echo on the host of --url)\n"
		"  --echo-rate N         their messages per second, all together (default 2000)\n"
		"\n--connections are the subscribers; one more connection publishes.\n"
		"defaults: 1000 connections, 64 bytes, 1 s of warm-up, 10 s measured\n";
	static struct fanout x = {
		.fan =
			{
				.opts =
					{
						.url = "ws://127.0.0.1:8080/hub",
						.connections = 1000,
						.threads = 1,
						.size_bytes = 64,
						.duration_s = 10,
						.warmup_s = 1,
						.connect_inflight = 256,
						.timeout_s = 10,
					},
				.phases = 1,
				.rate = 10,
			},
		.echoes = 100,
		.echo_rate = 2000,
	};
	int status = BENCH_FAILED;

	int err = bench_options_parse(
		argc, argv, &(struct bench_own_options){own, own_set, &x, usage}, &x.fan.opts);
	if (!err)
		err = echo_options(&x);
	if (err)
		return err > 0 ? BENCH_OK : BENCH_USAGE;
	control_catch_signals();
	if (!fan_create(&x.fan) && !measure(&x)) {
		struct load_totals s = load_totals(x.fan.subscribers);
		fan_stop(&x.fan);
		status = report(&x, &s);
	}
	fan_stop(&x.fan);
	fan_destroy(&x.fan);
	return status;
}
