/* Looks at the workers from outside: which of them has been in one turn for too long, and with
 * what; and how busy each is. A worker that hangs can say neither.
 *
 * Pure but for its memory: the clock and the counters are arguments, lines go to a call-back. One
 * thread, not a worker's, every WATCHDOG_STEP_MS or so. Turns that are over were noted by their
 * worker with their exact length, so none is missed between two looks but those that a longer one
 * followed; they are counted (late_turns) all the same.
 */
#ifndef TIDEGATE_OPS_WATCHDOG_H
#define TIDEGATE_OPS_WATCHDOG_H

#include <stdint.h>

#include "base/stats.h"

enum {
	WATCHDOG_STEP_MS = 50,
	WATCHDOG_HUNG_MS = 100,  /* a turn that goes on is only told from then on */
	WATCHDOG_LINE_MS = 1000, /* one line a worker in this time; what is held back is counted */
	WATCHDOG_BUSY_MS = 1000, /* what busy_permille is of */
	WATCHDOG_TEXT_MAX = 256,
};

struct watchdog_opts {
	unsigned n_workers;
	uint32_t turn_us, slice_us; /* budgets */
	void (*say)(void *ctx, const char *text);
	void *ctx;
};

struct watchdog {
	struct watchdog_opts opts;
	struct watchdog_seen *seen; /* one a worker */
};

/* 0 or -ENOMEM. */
int watchdog_init(struct watchdog *w, const struct watchdog_opts *opts);
void watchdog_fini(struct watchdog *w);

/* Says what there is to say, and writes stats[].busy_permille. */
void watchdog_look(struct watchdog *w, struct tg_worker_stats *stats, uint64_t now_ns);

#endif
