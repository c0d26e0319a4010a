#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/timer.h"

#define ALL UINT32_MAX

static uint64_t rng_state;

static uint32_t rng(void)
{
	rng_state += 0x9e3779b97f4a7c15;
	uint64_t z = rng_state;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return (uint32_t)((z ^ (z >> 31)) >> 16);
}

/* Spread over the magnitudes, so that every level is used. */
static uint32_t rng_delay(unsigned max_bits)
{
	return rng() & (uint32_t)((1ULL << (rng() % (max_bits + 1))) - 1);
}

static void count_call(void *ctx, struct wheel_timer *t)
{
	assert_false(wheel_pending(t));
	++*(unsigned *)ctx;
}

static void test_fires_at_its_tick(void **state)
{
	static const uint32_t bases[] = {
		0, 1, 63, 64, 4095, 262143, 0x3fffffff, 0x7ffffff0, 0x80000000, 0xfffffff0};
	static const uint32_t delays[] = {1, 2, 62, 63, 64, 65, 127, 128, 4032, 4095, 4096, 4097,
		262143, 262144, 262145, 16777215, 16777216, 16777217, (1u << 30) - 1, 1u << 30,
		(1u << 30) + 1, (1u << 30) + 12345678, 0x7fffffff};

	for (size_t b = 0; b < sizeof(bases) / sizeof(bases[0]); b++) {
		for (size_t d = 0; d < sizeof(delays) / sizeof(delays[0]); d++) {
			struct wheel w;
			struct wheel_timer t = {0};
			unsigned called = 0;
			uint32_t at = bases[b] + delays[d];
			wheel_init(&w, bases[b]);
			wheel_add(&w, &t, at);
			assert_true(wheel_pending(&t));
			assert_int_equal(w.count, 1);
			assert_int_equal(wheel_advance(&w, at - 1, ALL, count_call, &called), 0);
			assert_int_equal(wheel_next_ms(&w, at - 1), 1);
			assert_int_equal(wheel_next_ms(&w, at), 0);
			assert_int_equal(wheel_advance(&w, at, ALL, count_call, &called), 1);
			assert_int_equal(called, 1);
			assert_int_equal(w.count, 0);
			assert_int_equal(wheel_next_ms(&w, at), -1);
		}
	}
}

static void test_late_timer_fires_at_next_advance(void **state)
{
	struct wheel w;
	struct wheel_timer t[3] = {0};
	unsigned called = 0;

	wheel_init(&w, 1000);
	wheel_add(&w, &t[0], 1000);
	wheel_add(&w, &t[1], 5);
	wheel_add(&w, &t[2], 1001);
	assert_int_equal(wheel_next_ms(&w, 1000), 0);
	assert_int_equal(wheel_advance(&w, 1000, ALL, count_call, &called), 2);
	assert_true(wheel_pending(&t[2]));
	assert_int_equal(wheel_next_ms(&w, 1000), 1);
	/* A clock that stands still or steps back does no harm. */
	assert_int_equal(wheel_advance(&w, 990, ALL, count_call, &called), 0);
	assert_int_equal(wheel_advance(&w, 1001, ALL, count_call, &called), 1);
}

static void test_add_moves_and_del_disarms(void **state)
{
	struct wheel w;
	struct wheel_timer t = {0}, u = {0};
	unsigned called = 0;

	wheel_init(&w, 0);
	wheel_del(&w, &t);
	wheel_add(&w, &t, 10);
	wheel_add(&w, &t, 5000);
	assert_int_equal(w.count, 1);
	assert_int_equal(wheel_advance(&w, 4999, ALL, count_call, &called), 0);
	wheel_add(&w, &u, 5000);
	wheel_del(&w, &t);
	assert_false(wheel_pending(&t));
	wheel_del(&w, &t);
	assert_int_equal(w.count, 1);
	assert_int_equal(wheel_advance(&w, 6000, ALL, count_call, &called), 1);
	assert_false(wheel_pending(&u));
	/* Deleting the last timer of a slot leaves no wake-up behind. */
	wheel_add(&w, &t, 6010);
	wheel_add(&w, &u, 9000000);
	wheel_del(&w, &t);
	assert_true(wheel_next_ms(&w, 6000) > 1000);
	wheel_del(&w, &u);
	assert_int_equal(wheel_next_ms(&w, 6000), -1);
}

struct chain {
	struct wheel *w;
	struct wheel_timer t, *victims;
	unsigned called, n_victims;
	uint32_t again_ms;
};

static void on_chain(void *ctx, struct wheel_timer *t)
{
	struct chain *c = ctx;

	c->called++;
	if (t == &c->t)
		wheel_add(c->w, t, c->again_ms);
	for (unsigned i = 0; i < c->n_victims; i++)
		wheel_del(c->w, &c->victims[i]);
}

static void test_call_back_that_rearms_itself_as_late(void **state)
{
	struct wheel w;
	struct chain c = {.w = &w, .again_ms = 0};

	wheel_init(&w, 100);
	wheel_add(&w, &c.t, 100);
	for (unsigned i = 1; i <= 5; i++) {
		assert_int_equal(wheel_advance(&w, 100, ALL, on_chain, &c), 1);
		assert_int_equal(c.called, i);
	}
	/* Catching up it runs at most once a tick, twice in the first and in the last. */
	unsigned n = wheel_advance(&w, 110, ALL, on_chain, &c);
	assert_in_range(n, 1, 22);
	assert_int_equal(w.now_ms, 110);
	assert_true(wheel_pending(&c.t));
}

static void test_call_back_deletes_timers_of_the_same_tick(void **state)
{
	struct wheel w;
	struct wheel_timer t[16] = {0};
	struct chain c = {.w = &w, .victims = t, .n_victims = 16};

	wheel_init(&w, 0);
	for (unsigned i = 0; i < 16; i++)
		wheel_add(&w, &t[i], 70);
	assert_int_equal(wheel_advance(&w, 100, ALL, on_chain, &c), 1);
	assert_int_equal(w.count, 0);
	assert_int_equal(wheel_next_ms(&w, 100), -1);
	/* The same for those a bounded advance left over, deleted from outside. */
	c.n_victims = 0;
	for (unsigned i = 0; i < 16; i++)
		wheel_add(&w, &t[i], 170);
	assert_int_equal(wheel_advance(&w, 200, 4, on_chain, &c), 4);
	for (unsigned i = 0; i < 16; i += 2)
		wheel_del(&w, &t[i]);
	unsigned left = w.count;
	assert_int_equal(wheel_advance(&w, 200, ALL, on_chain, &c), left);
	assert_int_equal(w.count, 0);
}

static void free_timer(void *ctx, struct wheel_timer *t)
{
	++*(unsigned *)ctx;
	free(t);
}

static void test_call_back_may_free(void **state)
{
	struct wheel w;
	unsigned called = 0;

	wheel_init(&w, 0);
	for (unsigned i = 0; i < 1000; i++) {
		struct wheel_timer *t = calloc(1, sizeof(*t));
		assert_non_null(t);
		wheel_add(&w, t, i * 7 % 200);
	}
	while (w.count)
		wheel_advance(&w, 300, 13, free_timer, &called);
	assert_int_equal(called, 1000);
}

struct order {
	uint32_t last_ms;
	unsigned called;
};

static void check_order(void *ctx, struct wheel_timer *t)
{
	struct order *o = ctx;

	assert_true((int32_t)(t->expires_ms - o->last_ms) >= 0);
	o->last_ms = t->expires_ms;
	o->called++;
}

static void test_bounded_advance_keeps_order(void **state)
{
	enum {
		N = 5000
	};
	struct wheel w;
	struct wheel_timer *t = calloc(N, sizeof(*t));
	uint32_t start = 0xfffffe00; /* across the wrap of 32 bits */
	struct order o = {.last_ms = start};

	assert_non_null(t);
	rng_state = 1;
	wheel_init(&w, start);
	for (unsigned i = 0; i < N; i++)
		wheel_add(&w, &t[i], start + 1 + rng() % 3000);
	unsigned turns = 0;
	while (o.called < N) {
		unsigned n = wheel_advance(&w, start + 3000, 10, check_order, &o);
		assert_true(n <= 10);
		assert_true(n == 10 || o.called == N || wheel_next_ms(&w, start + 3000) == 0);
		assert_true(++turns < N);
	}
	assert_int_equal(wheel_advance(&w, start + 3000, 10, check_order, &o), 0);
	assert_int_equal(w.now_ms, start + 3000);
	free(t);
}

/* Many heartbeats in one coarse slot: placing them anew must not hold the worker up either. */
static void test_bounded_moves(void **state)
{
	enum {
		N = 100000,
		MAX = 100
	};
	struct wheel w;
	struct wheel_timer *t = calloc(N, sizeof(*t));
	struct order o = {0};
	unsigned turns = 0;

	assert_non_null(t);
	rng_state = 2;
	wheel_init(&w, 0);
	for (unsigned i = 0; i < N; i++)
		wheel_add(&w, &t[i], 28672 + rng() % 4096);
	assert_int_equal(wheel_advance(&w, 28671, MAX, check_order, &o), 0);
	assert_int_equal(wheel_next_ms(&w, 28671), 1);
	while (o.called == 0) {
		wheel_advance(&w, 28700, MAX, check_order, &o);
		assert_int_equal(wheel_next_ms(&w, 28700), 0);
		turns++;
	}
	assert_in_range(turns, N / (8 * MAX), N / MAX);
	/* Deletion and addition in the middle of it. */
	wheel_init(&w, 0);
	for (unsigned i = 0; i < N; i++) {
		t[i] = (struct wheel_timer){0};
		wheel_add(&w, &t[i], 28672 + rng() % 4096);
	}
	o = (struct order){0};
	assert_int_equal(wheel_advance(&w, 28672, MAX, check_order, &o), 0);
	for (unsigned i = 0; i < N; i += 2)
		wheel_del(&w, &t[i]);
	for (unsigned i = 0; i < N; i += 4)
		wheel_add(&w, &t[i], 28672 + rng() % 262144);
	while (w.count)
		wheel_advance(&w, 28672 + 262144, MAX, check_order, &o);
	assert_int_equal(o.called, N / 2 + N / 4);
	free(t);
}

static void test_million_timers_and_a_long_sleep(void **state)
{
	enum {
		N = 1000000
	};
	struct wheel w;
	struct wheel_timer *t = calloc(N, sizeof(*t));
	struct order o = {.last_ms = 77};
	unsigned deleted = 0;

	assert_non_null(t);
	rng_state = 3;
	wheel_init(&w, 77);
	for (unsigned i = 0; i < N; i++)
		wheel_add(&w, &t[i], 78 + rng() % (3600 * 1000));
	for (unsigned i = 0; i < N; i += 3, deleted++)
		wheel_del(&w, &t[i]);
	assert_int_equal(w.count, N - deleted);
	assert_int_equal(wheel_advance(&w, 4000000, ALL, check_order, &o), N - deleted);
	assert_int_equal(w.count, 0);
	/* Ticks without timers cost nothing: 24 days, in steps no timer asks for. */
	o.last_ms = 4000000;
	wheel_add(&w, &t[0], 4000000u + 0x7ffffff0);
	assert_int_equal(wheel_advance(&w, 4000000u + 0x7fffffef, ALL, check_order, &o), 0);
	assert_int_equal(wheel_advance(&w, 4000000u + 0x7ffffff0, ALL, check_order, &o), 1);
	free(t);
}

/* The model: for each timer, whether it is armed, and between which ticks it must fire. */
enum {
	MODEL_TIMERS = 400
};

struct model {
	struct wheel w;
	struct wheel_timer t[MODEL_TIMERS];
	bool armed[MODEL_TIMERS];
	uint32_t first_ms[MODEL_TIMERS], last_ms[MODEL_TIMERS];
	unsigned count;
	bool inside;
	uint64_t fired;
};

static void model_add(struct model *m, unsigned i, uint32_t expires_ms)
{
	uint32_t now = m->w.now_ms;
	bool late = (int32_t)(expires_ms - now) <= 0;

	m->count += !m->armed[i];
	m->armed[i] = true;
	m->first_ms[i] = late ? now : expires_ms;
	m->last_ms[i] = late && m->inside ? now + 1 : m->first_ms[i];
	wheel_add(&m->w, &m->t[i], expires_ms);
}

static void model_del(struct model *m, unsigned i)
{
	m->count -= m->armed[i];
	m->armed[i] = false;
	wheel_del(&m->w, &m->t[i]);
}

static void model_change(struct model *m)
{
	unsigned i = rng() % MODEL_TIMERS;

	switch (rng() % 4) {
	case 0:
		model_del(m, i);
		break;
	case 1:
		model_add(m, i, m->w.now_ms - rng_delay(20));
		break;
	default:
		model_add(m, i, m->w.now_ms + rng_delay(31));
		break;
	}
}

static void model_fire(void *ctx, struct wheel_timer *t)
{
	struct model *m = ctx;
	unsigned i = t->kind;

	assert_ptr_equal(t, &m->t[i]);
	assert_true(m->armed[i]);
	assert_false(wheel_pending(t));
	uint32_t now = m->w.now_ms;
	assert_true((int32_t)(now - m->first_ms[i]) >= 0 && (int32_t)(now - m->last_ms[i]) <= 0);
	m->armed[i] = false;
	m->count--;
	m->fired++;
	for (unsigned n = rng() % 3; n; n--)
		model_change(m);
}

static void model_check(struct model *m, uint32_t now_ms, bool all_run)
{
	int64_t nearest = -1;

	assert_int_equal(m->w.count, m->count);
	for (unsigned i = 0; i < MODEL_TIMERS; i++) {
		assert_int_equal(wheel_pending(&m->t[i]), m->armed[i]);
		if (!m->armed[i])
			continue;
		int32_t wait = (int32_t)(m->first_ms[i] - now_ms);
		/* What is overdue when all was run can only have been armed by a call-back. */
		assert_true(!all_run || wait > 0 || m->last_ms[i] == now_ms + 1);
		if (nearest < 0 || wait < nearest)
			nearest = wait > 0 ? wait : 0;
	}
	int64_t next = wheel_next_ms(&m->w, now_ms);
	assert_true(nearest < 0 ? next == -1 : next >= 0 && next <= nearest);
}

static void run_model(uint64_t seed, uint32_t start_ms, unsigned steps)
{
	struct model *m = calloc(1, sizeof(*m));
	uint32_t now = start_ms;

	assert_non_null(m);
	rng_state = seed;
	wheel_init(&m->w, start_ms);
	for (unsigned i = 0; i < MODEL_TIMERS; i++)
		m->t[i].kind = i;
	for (unsigned s = 0; s < steps; s++) {
		for (unsigned n = rng() % 8; n; n--)
			model_change(m);
		unsigned max = rng() % 4 ? ALL : 1 + rng() % 20;
		int64_t next = wheel_next_ms(&m->w, now);
		/* Mostly to the next event, or right before it; at times anywhere. The wheel may
		 * lag behind `now` after a bounded advance, but not by half of its range. */
		if (m->w.now_ms == now && next > 0 && rng() % 4)
			now += (uint32_t)next - rng() % 2;
		else if (m->w.now_ms == now)
			now += rng_delay(26);
		m->inside = true;
		unsigned n = wheel_advance(&m->w, now, max, model_fire, m);
		m->inside = false;
		assert_true(n <= max);
		assert_true(m->w.now_ms == now || n == max || wheel_next_ms(&m->w, now) == 0);
		model_check(m, now, max == ALL);
	}
	assert_true(m->fired > steps / 4);
	free(m);
}

static void test_against_model(void **state)
{
	run_model(11, 0, 20000);
	run_model(12, 0xffff0000, 20000);
	run_model(13, 0x7fff0000, 20000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fires_at_its_tick),
		cmocka_unit_test(test_late_timer_fires_at_next_advance),
		cmocka_unit_test(test_add_moves_and_del_disarms),
		cmocka_unit_test(test_call_back_that_rearms_itself_as_late),
		cmocka_unit_test(test_call_back_deletes_timers_of_the_same_tick),
		cmocka_unit_test(test_call_back_may_free),
		cmocka_unit_test(test_bounded_advance_keeps_order),
		cmocka_unit_test(test_bounded_moves),
		cmocka_unit_test(test_million_timers_and_a_long_sleep),
		cmocka_unit_test(test_against_model),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
