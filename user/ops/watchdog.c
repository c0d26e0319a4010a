#include "ops/watchdog.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/worker.h"
#include "ops/schedline.h"

#define MSEC UINT64_C(1000000)

struct watchdog_seen {
	uint64_t late_turns, held; /* as last looked at; of them, those not told */
	uint64_t said_ns;          /* 0: never */
	uint64_t hung_since_ns;    /* of the turn that was told while it went on */
	uint64_t busy_ns, busy_at_ns;
};

int watchdog_init(struct watchdog *w, const struct watchdog_opts *opts)
{
	w->opts = *opts;
	w->seen = calloc(opts->n_workers + 1, sizeof *w->seen);
	return w->seen ? 0 : -ENOMEM;
}

void watchdog_fini(struct watchdog *w)
{
	free(w->seen);
	w->seen = NULL;
}

static struct tg_worker_turn copy_of(const struct tg_worker_turn *t)
{
	return (struct tg_worker_turn){
		.since_ns = __atomic_load_n(&t->since_ns, __ATOMIC_RELAXED),
		.session = __atomic_load_n(&t->session, __ATOMIC_RELAXED),
		.conn = __atomic_load_n(&t->conn, __ATOMIC_RELAXED),
		.doing = __atomic_load_n(&t->doing, __ATOMIC_RELAXED),
	};
}

/* " (ring 0, slot 17, session 5)", or nothing. */
static void whose(const struct tg_worker_turn *t, char *out, size_t len)
{
	char session[32] = "no session yet";

	*out = '\0';
	if (!t->conn)
		return;
	if (t->session)
		snprintf(session, sizeof session, "session %" PRIu64, t->session);
	snprintf(out, len, " (ring %u, slot %u, %s)", (t->conn - 1) >> 24, (t->conn - 1) & 0xffffff,
		session);
}

static void say_turn(struct watchdog *w, unsigned worker, const struct tg_worker_turn *t,
	uint64_t ns, bool over, uint64_t runnable)
{
	bool of_loop = t->doing < STATS_DOING_CONTROL;
	char text[WATCHDOG_TEXT_MAX], who[80], took[HUMAN_MAX], budget[HUMAN_MAX], more[64] = "";
	struct watchdog_seen *s = &w->seen[worker];

	whose(t, who, sizeof who);
	if (s->held)
		snprintf(more, sizeof more, "; %" PRIu64 " more late turns before", s->held);
	snprintf(text, sizeof text,
		"worker %u %s %s %s %s%s; its budget is %s; %" PRIu64 " runnable%s", worker,
		over ? "took" : "has been for", human_delay_us(took, ns / 1000),
		over ? "for" : "at", stats_doing_name((enum stats_doing)t->doing), who,
		human_delay_us(budget, of_loop ? w->opts.slice_us : w->opts.turn_us), runnable,
		more);
	s->held = 0;
	w->opts.say(w->opts.ctx, text);
}

/* A turn that is over, if there is a new one and it is time for a line. */
static void look_back(
	struct watchdog *w, unsigned worker, const struct tg_worker_stats *st, uint64_t now_ns)
{
	struct watchdog_seen *s = &w->seen[worker];
	uint64_t late = __atomic_load_n(&st->late_turns, __ATOMIC_ACQUIRE),
		 n = late - s->late_turns;

	s->late_turns = late;
	s->held += n;
	if (!n || (s->said_ns && now_ns - s->said_ns < WATCHDOG_LINE_MS * MSEC))
		return;
	struct tg_worker_turn t = copy_of(&st->late);
	s->held--;
	s->said_ns = now_ns;
	say_turn(
		w, worker, &t, __atomic_load_n(&st->late_ns, __ATOMIC_RELAXED), true, st->runnable);
}

/* One that goes on; once. */
static void look_on(
	struct watchdog *w, unsigned worker, const struct tg_worker_stats *st, uint64_t now_ns)
{
	struct tg_worker_turn t = copy_of(&st->turn);
	uint32_t budget_us = t.doing < STATS_DOING_CONTROL ? w->opts.slice_us : w->opts.turn_us;
	uint64_t limit_ns = (uint64_t)budget_us * 1000 * WORKER_LATE;

	if (limit_ns < WATCHDOG_HUNG_MS * MSEC)
		limit_ns = WATCHDOG_HUNG_MS * MSEC;
	if (t.doing == STATS_DOING_WAIT || now_ns < t.since_ns || now_ns - t.since_ns < limit_ns ||
		!t.since_ns || t.since_ns == w->seen[worker].hung_since_ns)
		return;
	w->seen[worker].hung_since_ns = t.since_ns;
	say_turn(w, worker, &t, now_ns - t.since_ns, false, st->runnable);
}

static void look_at_busy(struct watchdog_seen *s, struct tg_worker_stats *st, uint64_t now_ns)
{
	uint64_t since = __atomic_load_n(&st->turn_since_ns, __ATOMIC_RELAXED), permille = 0;
	uint64_t busy_ns = st->loop_us.sum * 1000, elapsed = now_ns - s->busy_at_ns;

	if (s->busy_at_ns && elapsed < WATCHDOG_BUSY_MS * MSEC)
		return;
	/* What the turn that goes on now has taken so far, which the sum will have later. */
	if (since && now_ns > since)
		busy_ns += now_ns - since;
	if (s->busy_at_ns && busy_ns > s->busy_ns)
		permille = (busy_ns - s->busy_ns) * 1000 / elapsed;
	s->busy_ns = busy_ns;
	s->busy_at_ns = now_ns;
	__atomic_store_n(&st->busy_permille, permille < 1000 ? permille : 1000, __ATOMIC_RELAXED);
}

void watchdog_look(struct watchdog *w, struct tg_worker_stats *stats, uint64_t now_ns)
{
	for (unsigned i = 0; i < w->opts.n_workers; i++) {
		look_back(w, i, &stats[i], now_ns);
		look_on(w, i, &stats[i], now_ns);
		look_at_busy(&w->seen[i], &stats[i], now_ns);
	}
}
