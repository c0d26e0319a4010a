#include "core/timer.h"

#include <assert.h>
#include <string.h>

enum {
	SLOTS = 1 << WHEEL_BITS,
	SLOT_MASK = SLOTS - 1,
	SPAN_MS = 1 << (WHEEL_BITS * WHEEL_LEVELS), /* what the coarsest level reaches */
	MOVES_PER_TIMER = 8, /* placing anew costs a cache miss, a call-back many and a send */
};

/* Level l holds timers 64^l to 64^(l+1) - 1 ms ahead, 1 to 64 slots after the current one: every
 * slot of it holds one stretch of time only. Level 0 holds 1 to 63 ms, so its current slot is free:
 * there go timers that are late already. */
static unsigned slot_index(uint32_t tick_ms, unsigned level)
{
	return (tick_ms >> (level * WHEEL_BITS)) & SLOT_MASK;
}

static bool slot_occupied(const struct wheel *w, unsigned level, unsigned index)
{
	return w->occupied[level] >> index & 1;
}

static void push_front(struct wheel_timer **head, struct wheel_timer *t)
{
	t->next = *head;
	t->pprev = head;
	if (t->next)
		t->next->pprev = &t->next;
	*head = t;
}

static struct wheel_timer *pop_front(struct wheel_timer **head)
{
	struct wheel_timer *t = *head;

	*head = t->next;
	if (t->next)
		t->next->pprev = head;
	t->next = NULL;
	t->pprev = NULL;
	return t;
}

/* Moves a whole slot to an empty list. */
static void take_slot(struct wheel *w, unsigned level, unsigned index, struct wheel_timer **list)
{
	struct wheel_timer **slot = &w->slot[level][index];

	assert(!*list);
	if (!*slot)
		return;
	*list = *slot;
	(*list)->pprev = list;
	*slot = NULL;
	w->occupied[level] &= ~(1ULL << index);
}

static void place(struct wheel *w, struct wheel_timer *t)
{
	uint32_t tick_ms = t->expires_ms;
	uint32_t ahead_ms = tick_ms - w->now_ms;
	unsigned level = 0;

	if ((int32_t)ahead_ms <= 0) {
		tick_ms = w->now_ms;
	} else {
		if (ahead_ms >= SPAN_MS) {
			ahead_ms = SPAN_MS - 1;
			tick_ms = w->now_ms + ahead_ms;
		}
		level = (31 - (unsigned)__builtin_clz(ahead_ms)) / WHEEL_BITS;
	}
	unsigned index = slot_index(tick_ms, level);
	push_front(&w->slot[level][index], t);
	w->occupied[level] |= 1ULL << index;
}

/* Distance to the next occupied slot's first tick: at least 1, UINT32_MAX when the wheel is empty.
 * The slot of late timers is the caller's business. */
static uint32_t next_distance_ms(const struct wheel *w)
{
	uint32_t best_ms = UINT32_MAX;

	for (unsigned level = 0; level < WHEEL_LEVELS; level++) {
		uint64_t bits = w->occupied[level];
		if (!bits)
			continue;
		uint32_t current = w->now_ms >> (level * WHEEL_BITS);
		unsigned turn = (current + 1) & SLOT_MASK;
		bits = bits >> turn | bits << (-turn & SLOT_MASK);
		uint32_t next = current + 1 + (uint32_t)__builtin_ctzll(bits);
		uint32_t distance_ms = (next << (level * WHEEL_BITS)) - w->now_ms;
		if (distance_ms < best_ms)
			best_ms = distance_ms;
	}
	return best_ms;
}

static bool any_moving(const struct wheel *w)
{
	for (unsigned i = 0; i < WHEEL_LEVELS - 1; i++) {
		if (w->moving[i])
			return true;
	}
	return false;
}

/* False when the bound is reached first. */
static bool place_moving(struct wheel *w, unsigned *moves_left)
{
	for (unsigned i = 0; i < WHEEL_LEVELS - 1; i++) {
		while (w->moving[i]) {
			if (!*moves_left)
				return false;
			--*moves_left;
			place(w, pop_front(&w->moving[i]));
		}
	}
	return true;
}

/* Goes to the next tick with work, not beyond until_ms, and empties the coarser slots that begin
 * there. Timers that call-backs armed for the past meanwhile come first, with the very next tick: a
 * call-back that does so always moves time on and cannot hold the wheel. */
static void step(struct wheel *w, uint32_t until_ms)
{
	uint32_t step_ms = 1;

	if (slot_occupied(w, 0, slot_index(w->now_ms, 0))) {
		take_slot(w, 0, slot_index(w->now_ms, 0), &w->due);
	} else {
		uint32_t left_ms = until_ms - w->now_ms;
		step_ms = next_distance_ms(w);
		if (step_ms > left_ms)
			step_ms = left_ms;
	}
	w->now_ms += step_ms;
	for (unsigned level = 1; level < WHEEL_LEVELS; level++) {
		if (w->now_ms & ((1u << (level * WHEEL_BITS)) - 1))
			break;
		take_slot(w, level, slot_index(w->now_ms, level), &w->moving[level - 1]);
	}
}

void wheel_init(struct wheel *w, uint32_t now_ms)
{
	memset(w, 0, sizeof(*w));
	w->now_ms = now_ms;
}

void wheel_add(struct wheel *w, struct wheel_timer *t, uint32_t expires_ms)
{
	wheel_del(w, t);
	t->expires_ms = expires_ms;
	place(w, t);
	w->count++;
}

void wheel_del(struct wheel *w, struct wheel_timer *t)
{
	if (!t->pprev)
		return;
	*t->pprev = t->next;
	if (t->next) {
		t->next->pprev = t->pprev;
	} else {
		/* The last of a slot clears its bit, or the worker would wake for nothing. */
		uintptr_t offset = (uintptr_t)t->pprev - (uintptr_t)w->slot;
		size_t i = offset / sizeof(w->slot[0][0]);
		if (offset < sizeof(w->slot) && !*t->pprev)
			w->occupied[i / SLOTS] &= ~(1ULL << (i % SLOTS));
	}
	t->next = NULL;
	t->pprev = NULL;
	w->count--;
}

unsigned wheel_advance(
	struct wheel *w, uint32_t now_ms, unsigned max_timers, wheel_fn *fn, void *ctx)
{
	unsigned called = 0;
	unsigned moves_left = max_timers < UINT32_MAX / MOVES_PER_TIMER
				      ? max_timers * MOVES_PER_TIMER
				      : UINT32_MAX;
	bool taken = false; /* current slot emptied: what comes to it later is for the next call */

	while (called < max_timers) {
		if (w->due) {
			struct wheel_timer *t = pop_front(&w->due);
			w->count--;
			called++;
			fn(ctx, t);
		} else if (any_moving(w)) {
			if (!place_moving(w, &moves_left))
				break;
		} else if (!taken) {
			take_slot(w, 0, slot_index(w->now_ms, 0), &w->due);
			taken = true;
		} else if ((int32_t)(now_ms - w->now_ms) > 0) {
			step(w, now_ms);
			taken = false;
		} else {
			break;
		}
	}
	return called;
}

int64_t wheel_next_ms(const struct wheel *w, uint32_t now_ms)
{
	if (!w->count)
		return -1;
	if (w->due || any_moving(w) || slot_occupied(w, 0, slot_index(w->now_ms, 0)))
		return 0;
	int32_t wait_ms = (int32_t)(w->now_ms + next_distance_ms(w) - now_ms);
	return wait_ms > 0 ? wait_ms : 0;
}
