/* storm: sessions that exchange messages, first alone, then while connections are attempted at a
 * rate that knows nothing of what the server can serve.
 *
 * The sessions are opened once and have a thread of their own, ahead of the storm's where the
 * system allows it: a generator that is busy with beginning connections must not be what delays an
 * echo.
 */
#include "storm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control.h"
#include "echo.h"
#include "fan.h"

enum {
	LEAD_MS = 200, /* from now to the first message: threads look at the phase every 50 ms */
	STORM_RING = 4096, /* attempts are given up by cancelling them */
	STORM_BUFS = 512,
	STORM_BUF_BYTES = 512, /* the answer to the handshake, with room for a longer one */
	UNDER_WAY_MAX = 10000000,
};

/* Connections that the load needs: every attempt may stay unanswered until it is given up. */
static unsigned slots(const struct storm *s)
{
	double n = s->rate > 0 ? s->rate * (s->deadline_s + 0.5) + 64 : s->under_way;

	return n < UNDER_WAY_MAX ? (unsigned)n : UNDER_WAY_MAX;
}

int storm_create(struct storm *s)
{
	struct bench_options *o = &s->opts;
	int err;

	o->connections = slots(s);
	if (o->threads > o->connections)
		o->threads = o->connections;
	s->threads = calloc(o->threads, sizeof *s->threads);
	err = s->threads ? load_create(o, &s->load) : -ENOMEM;
	for (unsigned i = 0; i < o->threads && !err; i++) {
		s->threads[i].storm = s;
		hist_init(&s->threads[i].answer_ns);
		err = load_add(s->load, &(struct load_thread_opts){
						.ops = &storm_ops,
						.work = &s->threads[i],
						.connections = o->connections / o->threads +
							       (i < o->connections % o->threads),
						.ring_connections = STORM_RING,
						.n_bufs = STORM_BUFS,
						.buf_bytes = STORM_BUF_BYTES,
					});
	}
	return err;
}

void storm_destroy(struct storm *s)
{
	load_destroy(s->load);
	free(s->threads);
	s->load = NULL;
	s->threads = NULL;
}

void storm_times(struct storm *s, uint64_t run_ns, uint64_t to_ns)
{
	s->run_ns = run_ns;
	s->to_ns = to_ns;
}

struct storm_sums storm_sums(const struct storm *s)
{
	struct load_totals l = load_totals(s->load);
	struct storm_sums r = {.refused = l.connect_failed, .broken = l.handshake_failed};
	uint64_t over;

	for (unsigned i = 0; i < s->opts.threads; i++) {
		const struct storm_thread *st = &s->threads[i];
		r.completed += load_read(&st->completed);
		r.in_time += load_read(&st->in_time);
		r.timed_out += load_read(&st->timed_out);
		r.exhausted += load_read(&st->exhausted);
		r.attempts += load_read(&st->attempts);
	}
	over = r.completed + r.timed_out + r.refused + r.broken;
	r.under_way = r.attempts > over ? r.attempts - over : 0;
	return r;
}

void storm_collect(const struct storm *s, struct hist *ret_answer_ns, uint64_t *ret_behind_ns)
{
	*ret_behind_ns = 0;
	hist_init(ret_answer_ns);
	for (unsigned i = 0; i < s->opts.threads; i++) {
		hist_merge(ret_answer_ns, &s->threads[i].answer_ns);
		if (s->threads[i].behind_ns > *ret_behind_ns)
			*ret_behind_ns = s->threads[i].behind_ns;
	}
}

/* ---- the command ---- */

struct storming {
	struct echo echo;
	struct storm storm;
	struct control_sample before, after; /* of the storm */
	struct storm_sums last;              /* after the last answer */
	struct hist calm_ns, storm_ns, answer_ns;
	uint64_t unanswered, behind_ns;
	struct load_totals sessions;
};

static void progress(void *ctx)
{
	struct storming *x = ctx;
	struct storm_sums s = storm_sums(&x->storm);
	char a[32], b[32];

	if (!s.attempts) {
		control_progress(&x->storm.opts, "sessions alone");
		return;
	}
	control_progress(&x->storm.opts, "%s attempts, %s completed, %llu under way",
		control_thousands(a, s.attempts), control_thousands(b, s.completed),
		(unsigned long long)s.under_way);
}

/* Answers to what was begun in the storm count until they are given up. */
static void drain(struct storming *x)
{
	uint64_t end_ns = load_now_ns() + (uint64_t)(x->storm.deadline_s * 1e9);

	while (storm_sums(&x->storm).under_way && load_now_ns() < end_ns && !control_interrupted())
		control_until(x->storm.load, load_now_ns() + 10000000, NULL, NULL);
	x->last = storm_sums(&x->storm);
}

static int measure(struct storming *x)
{
	const struct bench_options *o = &x->storm.opts;
	uint64_t duration_ns = (uint64_t)(o->duration_s * 1e9), run_ns;

	int err = control_open(x->echo.load);
	if (err)
		return err;
	run_ns = load_now_ns() + LEAD_MS * 1000000ull;
	x->echo.split_ns = run_ns + (uint64_t)(x->echo.opts.warmup_s * 1e9) + duration_ns;
	storm_times(&x->storm, x->echo.split_ns, x->echo.split_ns + duration_ns);
	err = load_start(x->storm.load);
	if (err) {
		fprintf(stderr, "tidegate-bench: %s\n", strerror(-err));
		return err;
	}
	echo_run(&x->echo, run_ns);
	control_until(x->storm.load, x->storm.run_ns, progress, x);
	err = control_sample(o, &x->before);
	if (err)
		return err;
	control_until(x->storm.load, x->storm.to_ns, progress, x);
	err = control_sample(o, &x->after);
	drain(x);
	echo_drain(&x->echo);
	control_progress_end(o);
	return err;
}

static void stop(struct storming *x)
{
	if (x->storm.load)
		load_stop(x->storm.load);
	if (x->echo.load)
		load_stop(x->echo.load);
}

static void report_attempts(const struct storming *x, double seconds, json_t *j)
{
	const struct storm_sums *s = &x->last;
	uint64_t given_up = s->timed_out + s->under_way;
	char a[32], b[32], c[32], why[256];

	control_row("attempts", "%s, %s/s; the generator was late by %.1f ms at most",
		control_thousands(a, s->attempts),
		control_thousands(b, (uint64_t)((double)s->attempts / seconds)),
		(double)x->behind_ns * 1e-6);
	if (s->exhausted)
		control_row("", "%llu more were due and not made, for want of a connection",
			(unsigned long long)s->exhausted);
	control_row("completed", "%s, %s of them in the storm: %s/s",
		control_thousands(a, s->completed), control_thousands(b, s->in_time),
		control_thousands(c, (uint64_t)((double)s->in_time / seconds)));
	control_row("others",
		"%llu connections refused, %llu handshakes refused or cut short, %llu given up "
		"after %g s",
		(unsigned long long)s->refused, (unsigned long long)s->broken,
		(unsigned long long)given_up, x->storm.deadline_s);
	load_first_failure(x->storm.load, why, sizeof why);
	if (*why)
		control_row("first failure", "%s", why);
	json_object_set_new(j, "attempts", json_integer((json_int_t)s->attempts));
	json_object_set_new(j, "attempts_per_s", json_real((double)s->attempts / seconds));
	json_object_set_new(j, "not_made", json_integer((json_int_t)s->exhausted));
	json_object_set_new(j, "late_ms", json_real((double)x->behind_ns * 1e-6));
	json_object_set_new(j, "completed", json_integer((json_int_t)s->completed));
	json_object_set_new(j, "completed_per_s", json_real((double)s->in_time / seconds));
	json_object_set_new(j, "refused", json_integer((json_int_t)s->refused));
	json_object_set_new(j, "handshakes_refused", json_integer((json_int_t)s->broken));
	json_object_set_new(j, "given_up", json_integer((json_int_t)given_up));
	json_object_set_new(j, "first_failure", json_string(why));
	fan_report_latency("handshake", &x->answer_ns, j, "handshake_us");
}

static void report_sessions(const struct storming *x, json_t *j)
{
	double calm = (double)hist_quantile(&x->calm_ns, 0.99);
	double ratio = calm > 0 ? (double)hist_quantile(&x->storm_ns, 0.99) / calm : 0;
	json_t *e = json_object();

	control_row("sessions", "%llu, %g messages/s; %llu lost, %llu messages unanswered",
		(unsigned long long)x->sessions.opened, x->echo.rate,
		(unsigned long long)x->sessions.closed, (unsigned long long)x->unanswered);
	fan_report_latency("  in the calm", &x->calm_ns, e, "calm_us");
	fan_report_latency("  meanwhile", &x->storm_ns, e, "storm_us");
	fan_report_latency("  begun late", &x->echo.threads[0].behind_ns, e, "behind_us");
	control_row("  p99", "x %.2f", ratio);
	json_object_set_new(e, "sessions", json_integer((json_int_t)x->sessions.opened));
	json_object_set_new(e, "rate", json_real(x->echo.rate));
	json_object_set_new(e, "lost", json_integer((json_int_t)x->sessions.closed));
	json_object_set_new(e, "unanswered", json_integer((json_int_t)x->unanswered));
	json_object_set_new(e, "p99_ratio", json_real(ratio));
	json_object_set_new(j, "echo", e);
}

static void report_cpu(const struct storming *x, double seconds, json_t *j)
{
	double own_us = (double)(x->after.own_cpu_us - x->before.own_cpu_us);
	double server_us = (double)(x->after.server.cpu_us - x->before.server.cpu_us);
	json_t *s;

	control_row("this program", "CPU %.0f %%", own_us / seconds / 1e4);
	json_object_set_new(j, "own_cpu_percent", json_real(own_us / seconds / 1e4));
	if (!x->storm.opts.n_pids)
		return;
	s = json_object();
	control_row("server", "CPU %.0f %%; memory %.1f MiB", server_us / seconds / 1e4,
		(double)x->after.server.rss_bytes / 1048576);
	json_object_set_new(s, "cpu_percent", json_real(server_us / seconds / 1e4));
	json_object_set_new(s, "rss_bytes", json_integer((json_int_t)x->after.server.rss_bytes));
	json_object_set_new(j, "server", s);
}

static int report(const struct storming *x)
{
	const struct bench_options *o = &x->storm.opts;
	double seconds = (double)(x->after.at_ns - x->before.at_ns) * 1e-9;
	uint64_t errors = control_failed(x->echo.load, &x->sessions) + x->unanswered;
	bool ok = errors <= o->max_errors && x->last.completed && !control_interrupted();
	json_t *j = json_object();

	if (x->storm.rate > 0)
		printf("storm %s, %g attempts/s for %g s\n", o->url, x->storm.rate, o->duration_s);
	else
		printf("storm %s, %u attempts under way for %g s\n", o->url, x->storm.under_way,
			o->duration_s);
	json_object_set_new(j, "command", json_string("storm"));
	json_object_set_new(j, "url", json_string(o->url));
	json_object_set_new(j, "seconds", json_real(seconds));
	report_attempts(x, seconds, j);
	report_sessions(x, j);
	report_cpu(x, seconds, j);
	json_object_set_new(j, "ok", json_boolean(ok));
	control_json(o, j);
	return ok ? BENCH_OK : BENCH_FAILED;
}

enum {
	OPT_RATE = BENCH_OPTION_OWN,
	OPT_UNDER_WAY,
	OPT_DEADLINE,
	OPT_ECHO_RATE,
};

static int own_set(void *ctx, int val, const char *arg)
{
	struct storming *x = ctx;
	double v = 0;
	int err = 0;

	switch (val) {
	case OPT_RATE:
		err = bench_number("rate", arg, 0, 1e6, &x->storm.rate);
		break;
	case OPT_UNDER_WAY:
		err = bench_number("under-way", arg, 1, 100000, &v);
		x->storm.under_way = (unsigned)v;
		break;
	case OPT_DEADLINE:
		err = bench_number("deadline", arg, 0.01, 600, &x->storm.deadline_s);
		break;
	case OPT_ECHO_RATE:
		err = bench_number("echo-rate", arg, 1, 1e6, &x->echo.rate);
		break;
	}
	return err;
}

/* The sessions' part of the options; the storm's attempts come from threads of their own. */
static int create(struct storming *x)
{
	int err;

	x->echo.opts = x->storm.opts;
	x->echo.opts.threads = 1;
	x->echo.opts.duration_s *= 2; /* alone, then in the storm */
	err = echo_create(&x->echo);
	if (!err)
		err = storm_create(&x->storm);
	if (err)
		fprintf(stderr, "tidegate-bench: %s\n", strerror(-err));
	return err;
}

int cmd_storm(int argc, char **argv)
{
	static const struct option own[] = {
		{"rate", required_argument, NULL, OPT_RATE},
		{"under-way", required_argument, NULL, OPT_UNDER_WAY},
		{"deadline", required_argument, NULL, OPT_DEADLINE},
		{"echo-rate", required_argument, NULL, OPT_ECHO_RATE},
		{0},
	};
	static const char usage[] =
		"  --rate N              attempts per second, each due at its time; 0: as many as "
		"are "
		"completed (default\n"
		"                        1000)\n"
		"  --under-way N         with --rate 0: attempts under way at all times (default "
		"16)\n"
		"  --deadline S          an attempt without an answer is given up after so long "
		"(default 3)\n"
		"  --echo-rate N         messages per second of the sessions, all together "
		"(default "
		"2000)\n"
		"\n--connections are the sessions, which are open before and echo throughout: for "
		"--duration alone,\n"
		"then for as long during the storm. --connect-rate and -inflight are for opening "
		"them.\n"
		"defaults: 100 connections, 64 bytes, 1 s of warm-up, 10 s alone and 10 s of "
		"storm\n";
	static struct storming x = {
		.echo = {.depth = 1, .rate = 2000, .urgent = true},
		.storm =
			{
				.opts =
					{
						.connections = 100,
						.threads = 1,
						.size_bytes = 64,
						.duration_s = 10,
						.warmup_s = 1,
						.connect_inflight = 8,
						.timeout_s = 10,
					},
				.rate = 1000,
				.under_way = 16,
				.deadline_s = 3,
			},
	};
	int status = BENCH_FAILED;

	int err = bench_options_parse(
		argc, argv, &(struct bench_own_options){own, own_set, &x, usage}, &x.storm.opts);
	if (err)
		return err > 0 ? BENCH_OK : BENCH_USAGE;
	control_catch_signals();
	if (!create(&x) && !measure(&x)) {
		x.sessions = load_totals(x.echo.load);
		stop(&x);
		echo_collect(&x.echo, &x.calm_ns, &x.storm_ns, &x.unanswered);
		storm_collect(&x.storm, &x.answer_ns, &x.behind_ns);
		status = report(&x);
	}
	stop(&x);
	storm_destroy(&x.storm);
	echo_destroy(&x.echo);
	return status;
}
