#include "control.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define SECOND_NS 1000000000ull

static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
	interrupted = 1;
}

void control_catch_signals(void)
{
	struct sigaction sa = {.sa_handler = on_signal};

	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
}

bool control_interrupted(void)
{
	return interrupted;
}

/* ---- for people ---- */

static bool on_terminal(void)
{
	return isatty(STDERR_FILENO);
}

void control_progress(const struct bench_options *o, const char *fmt, ...)
{
	va_list args;

	if (o->quiet)
		return;
	fprintf(stderr, on_terminal() ? "\r\033[K%s: " : "%s: ", o->command);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputs(on_terminal() ? "" : "\n", stderr);
}

void control_progress_end(const struct bench_options *o)
{
	if (!o->quiet && on_terminal())
		fputs("\r\033[K", stderr);
}

void control_row(const char *label, const char *fmt, ...)
{
	va_list args;

	printf("  %-14s", label);
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	putchar('\n');
}

const char *control_thousands(char *buf, uint64_t v)
{
	char digits[24];
	int n = snprintf(digits, sizeof digits, "%llu", (unsigned long long)v);
	char *out = buf;

	for (int i = 0; i < n; i++) {
		if (i && (n - i) % 3 == 0)
			*out++ = ',';
		*out++ = digits[i];
	}
	*out = 0;
	return buf;
}

/* ---- steps ---- */

static void nap(uint64_t ns)
{
	struct timespec ts = {(time_t)(ns / SECOND_NS), (long)(ns % SECOND_NS)};

	nanosleep(&ts, NULL);
}

void control_until(const struct load *l, uint64_t until_ns, void (*progress)(void *ctx), void *ctx)
{
	uint64_t now_ns = load_now_ns(), said_ns = now_ns;

	while (now_ns < until_ns && !interrupted) {
		uint64_t left_ns = until_ns - now_ns;
		nap(left_ns < SECOND_NS / 10 ? left_ns : SECOND_NS / 10);
		now_ns = load_now_ns();
		if (progress && !l->opts->quiet && now_ns - said_ns >= SECOND_NS) {
			progress(ctx);
			said_ns += SECOND_NS;
		}
	}
}

static void say_opening(const struct load *l, const struct load_totals *s)
{
	control_progress(l->opts, "%llu of %u connections open, %llu failed",
		(unsigned long long)s->opened, l->n_conns,
		(unsigned long long)(s->connect_failed + s->handshake_failed));
}

static int open_all(struct load *l)
{
	uint64_t said_ns, changed_ns, done = 0;

	int err = load_start(l);
	if (err)
		return err;
	for (said_ns = changed_ns = load_now_ns();;) {
		struct load_totals s = load_totals(l);
		uint64_t now_ns = load_now_ns(),
			 now_done = s.opened + s.connect_failed + s.handshake_failed;
		if (s.dead)
			return -EIO;
		if (now_done >= l->n_conns)
			return 0;
		if (interrupted)
			return -EINTR;
		if (now_done != done ||
			s.started == now_done) /* the latter: --connect-rate makes it wait */
			changed_ns = now_ns;
		else if ((double)(now_ns - changed_ns) * 1e-9 > l->opts->timeout_s)
			return -ETIMEDOUT;
		done = now_done;
		if (now_ns - said_ns >= SECOND_NS) {
			say_opening(l, &s);
			said_ns += SECOND_NS;
		}
		nap(SECOND_NS / 200);
	}
}

int control_open(struct load *l)
{
	char why[256];

	int err = open_all(l);
	bool some = load_totals(l).opened > 0;
	if (some && (!err || err == -EINTR || err == -ETIMEDOUT))
		return 0;
	load_stop(l);
	control_progress_end(l->opts);
	load_first_failure(l, why, sizeof why);
	fprintf(stderr, "tidegate-bench: %s%s\n", err == -EIO ? "" : "no connection opened: ",
		*why                ? why
		: err == -EINTR     ? "interrupted"
		: err == -ETIMEDOUT ? "no answer"
				    : strerror(-err));
	return err ? err : -ENOTCONN;
}

int control_sample(const struct bench_options *o, struct control_sample *ret)
{
	struct rusage ru;
	struct control_sample s = {.at_ns = load_now_ns()};
	pid_t bad;

	int err = procstat_read(o->pids, o->n_pids, &s.server, &bad);
	if (err) {
		control_progress_end(o);
		fprintf(stderr, "tidegate-bench: --pid %d: %s\n", bad,
			err == -ENOENT ? "no such process" : strerror(-err));
		return err;
	}
	getrusage(RUSAGE_SELF, &ru);
	s.own_cpu_us = (uint64_t)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) * 1000000 +
		       (uint64_t)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec);
	*ret = s;
	return 0;
}

/* ---- reports ---- */

uint64_t control_failed(const struct load *l, const struct load_totals *s)
{
	return l->n_conns - s->opened + s->closed;
}

void control_report(const struct load *l, const struct load_totals *s, json_t *j)
{
	uint64_t never = l->n_conns - s->opened;
	uint64_t unanswered = never - s->connect_failed - s->handshake_failed;
	double took_s = s->opened ? (double)(s->last_open_ns - s->first_start_ns) * 1e-9 : 0;
	double rate = took_s > 0 ? (double)s->opened / took_s : 0;
	char why[256], a[32], b[32];

	control_row("connections",
		"%s opened in %.2f s, %s/s; %llu never opened, %llu of them unanswered; %llu lost",
		control_thousands(a, s->opened), took_s, control_thousands(b, (uint64_t)rate),
		(unsigned long long)never, (unsigned long long)unanswered,
		(unsigned long long)s->closed);
	load_first_failure(l, why, sizeof why);
	if (*why)
		control_row("first failure", "%s", why);
	json_object_set_new(j, "connections", json_integer(l->n_conns));
	json_object_set_new(j, "opened", json_integer((json_int_t)s->opened));
	json_object_set_new(j, "connect_failed", json_integer((json_int_t)s->connect_failed));
	json_object_set_new(j, "handshake_failed", json_integer((json_int_t)s->handshake_failed));
	json_object_set_new(j, "unanswered_handshakes", json_integer((json_int_t)unanswered));
	json_object_set_new(j, "lost", json_integer((json_int_t)s->closed));
	json_object_set_new(j, "connect_seconds", json_real(took_s));
	json_object_set_new(j, "connects_per_s", json_real(rate));
	json_object_set_new(j, "first_failure", json_string(why));
	json_t *g = json_object();
	json_object_set_new(g, "no_buffer", json_integer((json_int_t)s->no_buffer));
	json_object_set_new(g, "cq_overflows", json_integer((json_int_t)s->overflows));
	json_object_set_new(g, "sends_blocked", json_integer((json_int_t)s->sends_blocked));
	json_object_set_new(j, "generator", g);
}

void control_json(const struct bench_options *o, json_t *j)
{
	if (o->json) {
		json_dumpf(j, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
		putchar('\n');
	}
	json_decref(j);
	fflush(stdout);
}
