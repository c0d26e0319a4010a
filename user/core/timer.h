/* A hierarchical timing wheel (Varghese and Lauck 1987): millisecond ticks, O(1) add and delete,
 * millions of timers.
 *
 * Timers are embedded and linked; the wheel allocates nothing after init. Worker thread only. Time
 * is an argument, in milliseconds of a clock that starts near zero when the worker does, so that 32
 * bits last 49 days; all comparisons are modulo 2^32. Call order: wheel_init, then wheel_add /
 * wheel_del / wheel_advance in any order.
 */
#ifndef TIDEGATE_CORE_TIMER_H
#define TIDEGATE_CORE_TIMER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	WHEEL_BITS = 6,   /* 64 slots a level */
	WHEEL_LEVELS = 5, /* 2^30 ms: 12 days; a later time is clamped and re-added on the way */
};

struct wheel_timer {
	struct wheel_timer *next;
	struct wheel_timer **pprev; /* NULL: not pending */
	uint32_t expires_ms;
	uint16_t kind; /* free for the owner; tells call-backs of one wheel apart */
	uint16_t tag;  /* free for the owner */
};

struct wheel {
	uint32_t now_ms;                 /* every tick up to here has been run */
	uint32_t count;                  /* pending timers */
	uint64_t occupied[WHEEL_LEVELS]; /* a bit per slot that may hold timers */
	struct wheel_timer *slot[WHEEL_LEVELS][1 << WHEEL_BITS];
	struct wheel_timer
		*due; /* expired, not yet called back: what a bounded advance left over */
	struct wheel_timer *moving[WHEEL_LEVELS - 1]; /* left levels 1.. at now_ms, not yet placed
							 anew: likewise */
};

typedef void wheel_fn(void *ctx, struct wheel_timer *t);

void wheel_init(struct wheel *w, uint32_t now_ms);

static inline bool wheel_pending(const struct wheel_timer *t)
{
	return t->pprev != NULL;
}

/* Arms t for expires_ms; a pending t is moved. A time not after now_ms fires at the next advance.
 */
void wheel_add(struct wheel *w, struct wheel_timer *t, uint32_t expires_ms);

/* Disarms t; no effect when not pending. Safe from inside a call-back, also for a timer due in the
 * same tick. */
void wheel_del(struct wheel *w, struct wheel_timer *t);

/* Runs the wheel up to now_ms, calling fn for each expired timer (already disarmed; fn may add,
 * delete and free), at most max_timers of them; returns the number called. Timers that only move to
 * a finer level on the way are bounded too, at eight times max_timers: one level-2 slot may hold
 * 100,000 heartbeats. When it returns max_timers, or wheel_next_ms says 0, there may be more due:
 * call again next turn. Timers fire in order of their tick. Empty ticks are skipped by the bitmap,
 * so that catching up after a long sleep is cheap. */
unsigned wheel_advance(
	struct wheel *w, uint32_t now_ms, unsigned max_timers, wheel_fn *fn, void *ctx);

/* Milliseconds from now_ms to the next tick with possible work (0: work is due; may be early where
 * a cascade comes first, never late), or -1 when no timer is pending. */
int64_t wheel_next_ms(const struct wheel *w, uint32_t now_ms);

#endif
