#include "top.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "doctor.h"
#include "ops/schedline.h"
#include "table.h"
#include "top_draw.h"
#include "top_fetch.h"
#include "top_layout.h"

enum {
	EXIT_USAGE = 2,
	INTERVAL_MAX_S = 3600,
	COUNT_MAX = 1000000000,
};

/* ---- lines ---- */

static void print_snapshot(const json_t *snapshot, bool json)
{
	char line[SCHEDLINE_MAX];

	if (json) {
		json_dumpf(snapshot, stdout, JSON_COMPACT);
	} else {
		top_line(snapshot, line);
		text_clean(line);
		fputs(line, stdout);
	}
	putchar('\n');
}

static void complain(char why[TOP_WHY_MAX])
{
	text_clean(why);
	fprintf(stderr, "tidegatectl: %s\n", why);
}

/* Until so many are printed (0: for ever). A gateway that goes away is said once, and waited for.
 */
static int print_lines(const struct top_args *a, int64_t interval_s, int64_t count)
{
	char why[TOP_WHY_MAX];
	bool lost = false;

	for (int64_t printed = 0; !count || printed < count;) {
		struct timespec next;
		clock_gettime(CLOCK_MONOTONIC, &next);
		next.tv_sec += interval_s;
		json_t *snapshot = top_ask(a->socket, "GET", "/v1/live", why);

		if (snapshot) {
			print_snapshot(snapshot, a->json);
			json_decref(snapshot);
			if (fflush(stdout) || ferror(stdout)) {
				perror("tidegatectl: cannot write");
				return EXIT_FAILURE;
			}
		} else if (!lost) {
			complain(why);
		}
		if (!snapshot && !printed)
			return EXIT_FAILURE;
		lost = !snapshot;
		printed += !lost;
		if (count && printed == count)
			break;
		while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL) == EINTR)
			;
	}
	return EXIT_SUCCESS;
}

/* ---- the screen ---- */

static bool show(const struct top_model *m)
{
	struct top_screen s;

	if (!top_draw_screen(&s))
		return false;
	top_layout(m, &s);
	top_draw(&s);
	top_screen_fini(&s);
	return true;
}

static void take_news(struct top_model *m, struct top_fetch *f)
{
	struct top_news news;

	top_fetch_take(f, &news);
	if (news.snapshot)
		top_model_snapshot(m, news.snapshot);
	if (news.answered)
		top_model_answer(m, news.good, news.answer);
	if (news.lost)
		top_model_lost(m, news.why);
}

/* False: leave. */
static bool take_keys(struct top_model *m, struct top_fetch *f)
{
	uint32_t key;

	while ((key = top_draw_key())) {
		enum top_do what = top_model_key(m, key);

		if (what == TOP_DO_QUIT)
			return false;
		if (what != TOP_DO_POST)
			continue;
		if (top_fetch_post(f, m->target))
			top_model_answer(m, true, "asked for");
		else
			top_model_answer(m, false, "the gateway has not answered the last one yet");
	}
	return true;
}

static int show_screen(struct top_model *m, struct top_fetch *f)
{
	struct pollfd p[] = {
		{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = top_fetch_fd(f), .events = POLLIN}};

	while (show(m)) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return -errno;
		if (p[1].revents)
			take_news(m, f);
		/* The end of the terminal is no key. */
		if (p[0].revents & (POLLHUP | POLLERR | POLLNVAL) || !take_keys(m, f))
			return 0;
	}
	return -ENOMEM;
}

static int watch(const struct top_args *a, int64_t interval_s, json_t *first)
{
	struct top_fetch *f;
	struct top_model m;

	top_model_init(&m);
	top_model_snapshot(&m, first);
	int r = top_fetch_start(a->socket, (unsigned)interval_s * 1000, &f);
	if (!r)
		r = show_screen(&m, f);
	top_draw_end();
	top_model_fini(&m);
	if (!r)
		return EXIT_SUCCESS;
	fprintf(stderr, "tidegatectl: %s\n", strerror(-r));
	return EXIT_FAILURE;
}

/* False: said why. */
static bool number(const char *given, const char *name, int64_t most, int64_t *ret)
{
	if (!given || (!doctor_numbers(given, ret, 1) && *ret >= 1 && *ret <= most))
		return true;
	fprintf(stderr, "tidegatectl: --%s must be a number from 1 to %lld\n", name,
		(long long)most);
	return false;
}

int top_run(const struct top_args *a)
{
	int64_t interval_s = 1, count = 0;
	char why[TOP_WHY_MAX];
	json_t *first;

	if (!number(a->interval, "interval", INTERVAL_MAX_S, &interval_s) ||
		!number(a->count, "count", COUNT_MAX, &count))
		return EXIT_USAGE;
	if (a->json || count)
		return print_lines(a, interval_s, count);
	/* Before there is a screen, or the reason would vanish with it. */
	first = top_ask(a->socket, "GET", "/v1/live", why);
	if (!first) {
		complain(why);
		return EXIT_FAILURE;
	}
	if (top_draw_begin())
		return watch(a, interval_s, first);
	json_decref(first);
	return print_lines(a, interval_s, count);
}
