/* echo: sends messages, checks that each comes back as it was, and measures how long that took.
 *
 * Closed loop: each connection keeps --depth messages on their way. Open loop (--rate): message k
 * of a thread is due at start + k / rate whatever the server does, connections taking turns, and
 * latency counts from that moment, so a stall is charged to every message it delays. With --hog,
 * further connections in a thread of the lowest priority pipeline tiny frames as fast as the server
 * takes them; the figures are those of the others.
 */
#include "echo.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control.h"

enum {
	DRAIN_S = 5
}; /* for answers after the measured phase */

static uint32_t buffer_bytes(const struct echo *e)
{
	uint64_t want = (uint64_t)e->frame_len * (e->rate > 0 ? 4 : e->depth), n = 512;

	while (n < want && n < 65536)
		n *= 2;
	return (uint32_t)n;
}

int echo_create(struct echo *e)
{
	const struct bench_options *o = &e->opts;
	unsigned n = o->threads;

	e->ops = echo_ops(e);
	e->threads = calloc(n + 1, sizeof *e->threads);
	int err = e->threads ? echo_messages_init(e) : -ENOMEM;
	if (!err)
		err = load_create(o, &e->load);
	for (unsigned i = 0; i < n + (e->hogs > 0) && !err; i++) {
		uint32_t bytes = i < n ? buffer_bytes(e) : 16384;
		struct load_thread_opts opts = {
			.ops = i < n ? &e->ops : &echo_hog_ops,
			.work = &e->threads[i],
			.connections =
				i < n ? o->connections / n + (i < o->connections % n) : e->hogs,
			.background = i == n,
			.urgent = e->urgent,
			.n_bufs = load_buffers(i < n ? o->connections / n + 1 : 1024, bytes),
			.buf_bytes = bytes,
		};
		e->threads[i].echo = e;
		hist_init(&e->threads[i].latency_ns);
		hist_init(&e->threads[i].later_ns);
		hist_init(&e->threads[i].behind_ns);
		err = load_add(e->load, &opts);
	}
	e->n_threads = n;
	e->n_conns = o->connections;
	return err;
}

struct echo_sums echo_sums(const struct echo *e)
{
	struct echo_sums s = {0};

	for (unsigned i = 0; i < e->n_threads; i++) {
		s.received += load_read(&e->threads[i].received);
		s.sent += load_read(&e->threads[i].sent);
		s.lost += load_read(&e->threads[i].lost);
	}
	s.hog = load_read(&e->threads[e->n_threads].received);
	return s;
}

struct progress {
	struct echo *echo;
	struct echo_sums last;
};

static void say_progress(void *ctx)
{
	struct progress *p = ctx;
	struct echo_sums s = echo_sums(p->echo);
	char a[32];

	control_progress(&p->echo->opts, "%s messages/s, %.0f s to go",
		control_thousands(a, s.received - p->last.received),
		((double)p->echo->to_ns - (double)load_now_ns()) * 1e-9);
	p->last = s;
}

struct measured {
	struct control_sample before, after;
	struct echo_sums first, last;
	struct load_totals totals;
	struct hist latency_ns;
	uint64_t unanswered;
};

void echo_run(struct echo *e, uint64_t run_ns)
{
	e->run_ns = run_ns;
	e->from_ns = run_ns + (uint64_t)(e->opts.warmup_s * 1e9);
	e->to_ns = e->from_ns + (uint64_t)(e->opts.duration_s * 1e9);
	load_phase_set(e->load, LOAD_PHASE_RUN);
}

void echo_drain(struct echo *e)
{
	load_phase_set(e->load, LOAD_PHASE_DRAIN);
	uint64_t limit_ns = load_now_ns() + DRAIN_S * 1000000000ull;
	for (struct echo_sums s = echo_sums(e);
		s.received + s.lost < s.sent && load_now_ns() < limit_ns; s = echo_sums(e))
		control_until(e->load, load_now_ns() + 10000000, NULL, NULL);
}

static int measure(struct echo *e, struct measured *m)
{
	const struct bench_options *o = &e->opts;
	struct progress p = {.echo = e};

	int err = control_open(e->load);
	if (err)
		return err;
	echo_run(e, load_now_ns() + 10000000);
	control_until(e->load, e->from_ns, NULL, NULL);
	m->first = p.last = echo_sums(e);
	err = control_sample(o, &m->before);
	if (err)
		return err;
	control_until(e->load, e->to_ns, say_progress, &p);
	m->last = echo_sums(e);
	err = control_sample(o, &m->after);
	echo_drain(e);
	control_progress_end(o);
	return err;
}

void echo_collect(struct echo *e, struct hist *ret_latency_ns, struct hist *ret_later_ns,
	uint64_t *ret_unanswered)
{
	uint64_t now_ns = load_now_ns();

	*ret_unanswered = 0;
	hist_init(ret_latency_ns);
	if (ret_later_ns)
		hist_init(ret_later_ns);
	for (unsigned i = 0; i < e->n_threads; i++) {
		struct load_thread *t = e->load->thread[i];
		*ret_unanswered += load_read(&e->threads[i].lost);
		for (unsigned k = 0; k < t->n_conns; k++) {
			struct load_conn *c = load_conn_at(t, k);
			struct echo_conn *ec = load_conn_work(t, c);
			for (uint32_t end = ec->sent + ec->due;
				c->state == LOAD_OPEN && ec->received < end; ec->received++) {
				uint64_t at_ns = echo_sent_at(t, c, ec);
				++*ret_unanswered;
				if (at_ns >= e->from_ns && at_ns < e->to_ns)
					hist_add(echo_hist(&e->threads[i], at_ns), now_ns - at_ns);
			}
		}
		hist_merge(ret_latency_ns, &e->threads[i].latency_ns);
		if (ret_later_ns)
			hist_merge(ret_later_ns, &e->threads[i].later_ns);
	}
}

void echo_destroy(struct echo *e)
{
	load_destroy(e->load);
	free(e->threads);
	echo_messages_fini(e);
	e->load = NULL;
	e->threads = NULL;
}

static double us(uint64_t ns)
{
	return (double)ns * 1e-3;
}

static void report_latency(const struct measured *m, json_t *j)
{
	const struct hist *h = &m->latency_ns;
	double p50 = us(hist_quantile(h, 0.5)), p90 = us(hist_quantile(h, 0.9));
	double p99 = us(hist_quantile(h, 0.99)), p999 = us(hist_quantile(h, 0.999));
	double mean = h->count ? us(h->sum) / (double)h->count : 0;
	json_t *l = json_object();

	control_row("latency", "p50 %.1f, p90 %.1f, p99 %.1f, p99.9 %.1f, max %.1f us", p50, p90,
		p99, p999, us(h->max));
	json_object_set_new(l, "mean", json_real(mean));
	json_object_set_new(l, "p50", json_real(p50));
	json_object_set_new(l, "p90", json_real(p90));
	json_object_set_new(l, "p99", json_real(p99));
	json_object_set_new(l, "p99_9", json_real(p999));
	json_object_set_new(l, "max", json_real(us(h->max)));
	json_object_set_new(j, "latency_us", l);
}

static void report_cpu(const struct echo *e, const struct measured *m, uint64_t messages,
	double seconds, json_t *j)
{
	double server_us = (double)(m->after.server.cpu_us - m->before.server.cpu_us);
	double own_us = (double)(m->after.own_cpu_us - m->before.own_cpu_us);
	double each = messages ? server_us / (double)messages : 0;

	control_row("this program", "CPU %.0f %%", own_us / seconds / 1e4);
	json_object_set_new(j, "own_cpu_percent", json_real(own_us / seconds / 1e4));
	if (!e->opts.n_pids)
		return;
	json_t *s = json_object();
	control_row("server", "CPU %.0f %%, %.2f us a message; memory %.1f MiB",
		server_us / seconds / 1e4, each, (double)m->after.server.rss_bytes / 1048576);
	json_object_set_new(s, "cpu_percent", json_real(server_us / seconds / 1e4));
	json_object_set_new(s, "cpu_us_per_message", json_real(each));
	json_object_set_new(s, "rss_bytes", json_integer((json_int_t)m->after.server.rss_bytes));
	json_object_set_new(j, "server", s);
}

static int report(const struct echo *e, const struct measured *m)
{
	const struct bench_options *o = &e->opts;
	double seconds = (double)(m->after.at_ns - m->before.at_ns) * 1e-9;
	uint64_t messages = m->last.received - m->first.received, hog = m->last.hog - m->first.hog;
	uint64_t errors = control_failed(e->load, &m->totals) + m->unanswered;
	bool ok = errors <= o->max_errors && !control_interrupted();
	char a[32], b[32];
	json_t *j = json_object();

	if (e->rate > 0)
		printf("echo %s, %u bytes, open loop at %g messages/s\n", o->url, o->size_bytes,
			e->rate);
	else
		printf("echo %s, %u bytes, closed loop, %u under way per connection\n", o->url,
			o->size_bytes, e->depth);
	json_object_set_new(j, "command", json_string("echo"));
	json_object_set_new(j, "url", json_string(o->url));
	json_object_set_new(j, "size", json_integer(o->size_bytes));
	control_report(e->load, &m->totals, j);
	control_row("messages", "%s in %.2f s: %s/s", control_thousands(a, messages), seconds,
		control_thousands(b, (uint64_t)((double)messages / seconds)));
	json_object_set_new(j, "messages", json_integer((json_int_t)messages));
	json_object_set_new(j, "seconds", json_real(seconds));
	json_object_set_new(j, "messages_per_s", json_real((double)messages / seconds));
	report_latency(m, j);
	report_cpu(e, m, messages, seconds, j);
	if (e->hogs) {
		control_row("hogs", "%u, %s messages/s", e->hogs,
			control_thousands(a, (uint64_t)((double)hog / seconds)));
		json_object_set_new(j, "hogs", json_integer(e->hogs));
		json_object_set_new(j, "hog_messages_per_s", json_real((double)hog / seconds));
	}
	control_row("errors", "%llu, of them %llu messages unanswered; %llu echoes or frames wrong",
		(unsigned long long)errors, (unsigned long long)m->unanswered,
		(unsigned long long)m->totals.bad_data);
	json_object_set_new(j, "errors", json_integer((json_int_t)errors));
	json_object_set_new(j, "unanswered", json_integer((json_int_t)m->unanswered));
	json_object_set_new(j, "bad_data", json_integer((json_int_t)m->totals.bad_data));
	json_object_set_new(j, "ok", json_boolean(ok));
	control_json(o, j);
	return ok ? BENCH_OK : BENCH_FAILED;
}

enum {
	OPT_DEPTH = BENCH_OPTION_OWN,
	OPT_RATE,
	OPT_HOG,
	OPT_TEXT,
};

static int own_set(void *ctx, int val, const char *arg)
{
	struct echo *e = ctx;
	double v = 0;
	int err = 0;

	switch (val) {
	case OPT_DEPTH:
		err = bench_number("depth", arg, 1, DEPTH_MAX, &v);
		e->depth = (unsigned)v;
		break;
	case OPT_RATE:
		err = bench_number("rate", arg, 0, 1e9, &e->rate);
		break;
	case OPT_HOG:
		err = bench_number("hog", arg, 0, 1000, &v);
		e->hogs = (unsigned)v;
		break;
	case OPT_TEXT:
		e->text = true;
		break;
	}
	return err;
}

int cmd_echo(int argc, char **argv)
{
	static const struct option own[] = {
		{"depth", required_argument, NULL, OPT_DEPTH},
		{"rate", required_argument, NULL, OPT_RATE},
		{"hog", required_argument, NULL, OPT_HOG},
		{"text", no_argument, NULL, OPT_TEXT},
		{0},
	};
	static const char usage[] =
		"  --depth N             closed loop: messages under way per connection (default "
		"1)\n"
		"  --rate N              open loop: messages per second, all connections together; "
		"latency counts from\n"
		"                        the moment a message was due\n"
		"  --hog N               as many further connections that pipeline 1-byte messages "
		"without end, on the\n"
		"                        CPU time the others leave; the figures are those of the "
		"others\n"
		"  --text                text messages instead of binary ones\n"
		"\ndefaults: 100 connections, 64 bytes, 1 s of warm-up, 10 s measured\n";
	static struct echo e = {
		.opts =
			{
				.connections = 100,
				.threads = 1,
				.size_bytes = 64,
				.duration_s = 10,
				.warmup_s = 1,
				.connect_inflight = 256,
				.timeout_s = 10,
			},
		.depth = 1,
	};
	struct measured m = {0};
	int status = BENCH_FAILED;

	int err = bench_options_parse(
		argc, argv, &(struct bench_own_options){own, own_set, &e, usage}, &e.opts);
	if (err)
		return err > 0 ? BENCH_OK : BENCH_USAGE;
	control_catch_signals();
	err = echo_create(&e);
	if (err) {
		fprintf(stderr, "tidegate-bench: %s\n", strerror(-err));
	} else if (!measure(&e, &m)) {
		m.totals = load_totals(e.load);
		load_stop(e.load);
		echo_collect(&e, &m.latency_ns, NULL, &m.unanswered);
		status = report(&e, &m);
	} else {
		load_stop(e.load);
	}
	echo_destroy(&e);
	return status;
}
