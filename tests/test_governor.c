#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "support/plant.h"

static struct governor_opts defaults(void)
{
	struct governor_opts o;

	governor_defaults(&o);
	o.permits = 0;
	return o;
}

static void test_open_below_capacity(void **state)
{
	struct governor_opts o = defaults();
	struct plant p;

	plant_init(&p, &o);
	p.offered = 900;
	plant_run(&p, 10);
	assert_int_equal(p.changes, 0);
	assert_int_equal(p.refused_total, 0);
	assert_int_equal(p.gate.state, TG_GATE_OPEN);
	assert_int_equal(p.gate.reason, TG_GATE_BY_NONE);
	assert_int_equal(p.gate.rate, GOVERNOR_RATE_MAX);
	assert_int_equal(p.gate.permits, GOVERNOR_PERMITS_MAX);
	assert_int_equal(p.gate.heartbeat_ns, p.now_ns);
}

/* After it has settled: nearly all of the capacity is used, and what is admitted waits little. */
static void settles_at(double times, double hidden, unsigned lag)
{
	struct governor_opts o = defaults();
	struct plant p;
	double late = 0;

	plant_init(&p, &o);
	p.hidden_share = hidden;
	p.lag = lag;
	p.offered = times * p.capacity;
	plant_run(&p, 15);
	plant_count_anew(&p);
	for (unsigned i = 0; i < 50 * 20; i++) {
		plant_step(&p);
		late += p.g.last_delay_ns > 2 * o.target_ns;
	}
	assert_true(p.served_total >= 0.94 * p.capacity * 20);
	assert_true(p.refused_total > 0);
	assert_true(p.worst_delay_ns < 8.0 * (double)o.target_ns);
	assert_true(late / (50 * 20) < 0.1);
	/* Neither does it swing between the states. */
	assert_true(p.changes <= 2 * 20);
}

static void test_converges_at_twice_the_capacity(void **state)
{
	settles_at(2, 0, 0);
}

static void test_converges_at_ten_times_the_capacity(void **state)
{
	settles_at(10, 0, 0);
}

/* As it is measured of a real worker: a part of the work is done by the kernel between its turns,
 * and a delay is known two steps later. */
static void test_converges_on_imperfect_figures(void **state)
{
	for (unsigned lag = 0; lag <= 2; lag++)
		settles_at(10, 0.25, lag);
}

/* A backlog of more than an interval's work need not be watched for one. */
static void test_a_long_backlog_shuts_at_once(void **state)
{
	struct governor_opts o = defaults();
	struct plant p;

	plant_init(&p, &o);
	p.lag = 2;
	p.offered = 500;
	plant_run(&p, 5);
	plant_count_anew(&p);
	p.offered = 10000;
	plant_run(&p, 0.3);
	assert_int_equal(p.gate.state, TG_GATE_SHUT);
	assert_true(p.admitted_total <= 10000 * 0.1);
}

/* A short queue is soon gone, and a shut gate must notice, or its workers have nothing to do for
 * longer than the queue was. */
static void test_a_short_queue_shuts_only_for_a_moment(void **state)
{
	struct governor_opts o = defaults();
	struct plant p;

	plant_init(&p, &o);
	p.offered = 10000;
	plant_run(&p, 10);
	plant_count_anew(&p);
	for (unsigned i = 0; i < 10; i++) {
		p.queue += 15; /* 15 ms of work, at once */
		plant_run(&p, 1);
	}
	assert_true(p.served_total >= 0.9 * p.capacity * 10);
}

static void test_storm_shuts_and_recovers(void **state)
{
	struct governor_opts o = defaults();
	struct plant p;
	bool shut = false;

	plant_init(&p, &o);
	p.offered = 500;
	plant_run(&p, 5);
	p.offered = 10000;
	for (unsigned i = 0; i < 50; i++) {
		plant_step(&p);
		if (p.gate.state == TG_GATE_SHUT) {
			shut = true;
			assert_int_equal(p.gate.reason, TG_GATE_BY_DELAY);
			assert_int_equal(p.gate.rate, o.rate_floor);
		}
	}
	assert_true(shut);
	plant_run(&p, 10);
	p.offered = 500;
	plant_run(&p, 8);
	assert_int_equal(p.gate.state, TG_GATE_OPEN);
	plant_count_anew(&p);
	plant_run(&p, 5);
	assert_int_equal(p.refused_total, 0);
	assert_int_equal(p.changes, 0);
}

/* A cut never leaves less than half, and a recovery is bounded: no interval more than 3 % up. */
static void test_steps_are_bounded(void **state)
{
	struct governor_opts o = defaults();
	struct plant p;
	double before;

	plant_init(&p, &o);
	p.offered = 3000;
	plant_run(&p, 10);
	for (unsigned i = 0; i < 3000; i++) {
		enum tg_gate_state was = p.g.state;

		before = p.g.rate;
		plant_step(&p);
		if (was != TG_GATE_PACED || p.g.state != TG_GATE_PACED)
			continue;
		assert_true(p.g.rate >= 0.5 * before - 1e-6);
		assert_true(p.g.rate <= before + 0.03 * fmax(before, p.g.capacity) + 1 + 1e-6);
	}
}

static struct governor_sample sample(uint64_t delay_ns)
{
	return (struct governor_sample){
		.has_delay = true,
		.delay_ns = delay_ns,
		.busy_ns = GOVERNOR_STEP_NS,
		.awake_ns = GOVERNOR_STEP_NS,
		.handshake_ns = GOVERNOR_STEP_NS / 2,
		.admitted = 20,
		.served = 20,
		.served_here = 20,
		.workers = 1,
		.memory_percent = GOVERNOR_MEMORY_UNKNOWN,
	};
}

static void steps(struct governor *g, uint64_t *now_ns, unsigned n, const struct governor_sample *s,
	struct governor_gate *gate)
{
	while (n--) {
		*now_ns += GOVERNOR_STEP_NS;
		governor_step(g, *now_ns, s, gate);
	}
}

static void test_cut_follows_the_formula(void **state)
{
	struct governor_opts o = defaults();
	struct governor g;
	struct governor_gate gate;
	struct governor_sample calm = sample(0), late = sample(0);
	uint64_t now = PLANT_MS;

	for (unsigned tenths = 11; tenths <= 20; tenths++) {
		double excess = tenths / 10.0 - 1;

		governor_init(&g, &o);
		steps(&g, &now, 51, &calm, &gate);
		assert_int_equal(gate.state, TG_GATE_OPEN);
		late.delay_ns = o.target_ns * tenths / 10;
		steps(&g, &now, 5, &late, &gate);
		assert_int_equal(gate.state, TG_GATE_PACED);
		assert_int_equal(gate.reason, TG_GATE_BY_DELAY);
		/* 20 every 20 ms are 1,000/s. */
		assert_true(fabs(g.rate - 1000 * fmax(1 - 0.5 * excess, 0.5)) < 1);
		assert_int_equal(gate.reserve_rate, gate.rate / 4);
	}
	late.delay_ns = 2 * o.target_ns + 1;
	governor_init(&g, &o);
	steps(&g, &now, 56, &late, &gate);
	assert_int_equal(gate.state, TG_GATE_SHUT);
}

/* Cut, and cut again while the queue that was cut for has not had the time to go: the workers would
 * have nothing to do when it is. */
static void test_one_queue_is_cut_for_once(void **state)
{
	struct governor_opts o = defaults();
	struct governor g;
	struct governor_gate gate;
	struct governor_sample calm = sample(0), late = sample(8 * PLANT_MS);
	uint64_t now = PLANT_MS, cuts;
	double rate;

	governor_init(&g, &o);
	steps(&g, &now, 51, &calm, &gate);
	steps(&g, &now, 5, &late, &gate);
	rate = g.rate;
	assert_int_equal(g.cuts, 1);
	steps(&g, &now, 5, &late, &gate);
	assert_int_equal(g.cuts, 1);
	assert_true(g.rate == rate);
	/* Unless it grows; but even then it has only to drain, below the 1,000 that are served. */
	governor_init(&g, &o);
	steps(&g, &now, 51, &calm, &gate);
	late.delay_ns = o.target_ns * 11 / 10;
	steps(&g, &now, 5, &late, &gate);
	assert_true(fabs(g.rate - 950) < 1);
	late.delay_ns = o.target_ns * 2;
	steps(&g, &now, 5, &late, &gate);
	assert_int_equal(g.cuts, 2);
	assert_true(g.rate > 0.82 * 1000 && g.rate <= 0.85 * 1000);
	/* Nor for ever. */
	cuts = g.cuts;
	steps(&g, &now, 5 * 6, &late, &gate);
	assert_true(g.cuts > cuts);
}

/* A worker that stands still for a moment while hardly anybody comes: the gate must not take their
 * number for what it manages, or it would keep the next ones out for long. */
static void test_a_stall_of_few_newcomers_is_soon_forgotten(void **state)
{
	struct governor_opts o = defaults();
	struct plant p;

	plant_init(&p, &o);
	p.offered = 30;
	plant_run(&p, 5);
	p.lock_delay_ns = 100e6;
	plant_run(&p, 0.2);
	p.lock_delay_ns = 0;
	assert_int_not_equal(p.gate.state, TG_GATE_OPEN);
	plant_run(&p, 0.2);
	plant_count_anew(&p);
	p.offered = 700;
	plant_run(&p, 5);
	assert_int_equal(p.refused_total, 0);
}

/* One event that waited for nothing shows that there is no standing queue. */
static void test_burst_is_no_queue(void **state)
{
	struct governor_opts o = defaults();
	struct governor g;
	struct governor_gate gate;
	struct governor_sample late = sample(50 * PLANT_MS), calm = sample(0);
	uint64_t now = PLANT_MS;

	governor_init(&g, &o);
	for (unsigned i = 0; i < 100; i++) {
		steps(&g, &now, 4, &late, &gate);
		steps(&g, &now, 1, &calm, &gate);
		assert_int_equal(gate.state, TG_GATE_OPEN);
	}
}

static void test_fanout_delay_does_not_cut(void **state)
{
	struct governor_opts o = defaults();
	struct plant p;

	plant_init(&p, &o);
	p.offered = 20;
	p.fanout_share = 0.9;
	p.fanout_delay_ns = 30e6;
	plant_run(&p, 20);
	assert_int_equal(p.gate.state, TG_GATE_OPEN);
	assert_int_equal(p.refused_total, 0);
	/* The same delay counts once newcomers take their share of the time. */
	p.fanout_share = 0.3;
	p.offered = 5000;
	plant_run(&p, 0.5);
	assert_int_equal(p.gate.state, TG_GATE_SHUT);
}

/* Every handshake waits 12 ms for a lock, however few there are: refusing them is no cure. */
static void test_contention_stops_the_cutting(void **state)
{
	for (double lock_ns = 7e6; lock_ns < 20e6; lock_ns += 5e6) {
		struct governor_opts o = defaults();
		struct plant p;

		plant_init(&p, &o);
		p.offered = 700;
		p.fanout_share = 0.1;
		plant_run(&p, 5);
		p.lock_delay_ns = lock_ns;
		plant_run(&p, 30);
		assert_true(p.g.holds > 0);
		plant_count_anew(&p);
		plant_run(&p, 120);
		assert_true(p.served_total >= 0.95 * 700 * 120);
		/* And when the lock is gone, the governor is as it was. */
		p.lock_delay_ns = 0;
		plant_run(&p, 70);
		assert_int_equal(p.gate.state, TG_GATE_OPEN);
		p.offered = 10000;
		plant_run(&p, 1);
		assert_int_not_equal(p.gate.state, TG_GATE_OPEN);
	}
}

/* Clients that give up while they stand in the queue are not completed at their turn: little
 * goodput and a long delay, but no contention. Whoever takes the cuts back lets in as many again.
 */
static void test_a_backlog_that_gave_up_is_no_contention(void **state)
{
	struct governor_opts o = defaults();
	struct plant p;

	plant_init(&p, &o);
	p.offered = 500;
	plant_run(&p, 5);
	p.patience_s = 0.5;
	p.offered = 20000;
	plant_run(&p, 15);
	assert_int_equal(p.g.holds, 0);
	plant_count_anew(&p);
	plant_run(&p, 20);
	assert_true(p.served_total >= 0.94 * p.capacity * 20);
}

/* A real storm in the middle of a hold is not waited out. */
static void test_hold_breaks_on_a_new_queue(void **state)
{
	struct governor_opts o = defaults();
	struct plant p;

	plant_init(&p, &o);
	p.offered = 700;
	p.lock_delay_ns = 8e6;
	plant_run(&p, 60);
	while (p.now_ns >= p.g.hold_until_ns)
		plant_step(&p);
	assert_int_equal(p.gate.state, TG_GATE_OPEN);
	p.offered = 10000;
	plant_run(&p, 1);
	assert_int_not_equal(p.gate.state, TG_GATE_OPEN);
}

static void test_no_sample_is_zero_after_a_second(void **state)
{
	struct governor_opts o = defaults();
	struct governor g;
	struct governor_gate gate;
	struct governor_sample late = sample(50 * PLANT_MS), none = {.memory_percent = -1};
	uint64_t now = PLANT_MS;

	governor_init(&g, &o);
	steps(&g, &now, 100, &late, &gate);
	assert_int_equal(gate.state, TG_GATE_SHUT);
	steps(&g, &now, 45, &none, &gate);
	assert_int_equal(gate.state, TG_GATE_SHUT);
	steps(&g, &now, 15, &none, &gate);
	assert_int_equal(gate.state, TG_GATE_PACED);
	steps(&g, &now, 150, &none, &gate);
	assert_int_equal(gate.state, TG_GATE_OPEN);
}

/* Nothing at all, from the first step on, keeps the gate open and divides by nothing. */
static void test_zero_samples(void **state)
{
	struct governor_opts o = defaults();
	struct governor g;
	struct governor_gate gate;
	struct governor_sample zero = {0};
	uint64_t now = 0;

	governor_init(&g, &o);
	steps(&g, &now, 1000, &zero, &gate);
	assert_int_equal(gate.state, TG_GATE_OPEN);
	zero.has_delay = true;
	steps(&g, &now, 1000, &zero, &gate);
	assert_int_equal(gate.state, TG_GATE_OPEN);
	zero.delay_ns = UINT64_MAX; /* without any work that newcomers could be blamed for */
	steps(&g, &now, 1000, &zero, &gate);
	assert_int_equal(gate.state, TG_GATE_OPEN);
}

static void test_floor_is_never_undercut(void **state)
{
	struct governor_opts o = defaults();
	struct plant p;

	o.rate_floor = 50;
	plant_init(&p, &o);
	p.capacity = 10; /* the floor itself is too much */
	p.offered = 1000;
	for (unsigned i = 0; i < 50 * 60; i++) {
		plant_step(&p);
		assert_true(p.gate.rate >= 50);
	}
}

static void test_ceiling(void **state)
{
	struct governor_opts o = defaults();
	struct plant p;

	o.rate_ceiling = 300;
	plant_init(&p, &o);
	p.offered = 5000;
	plant_run(&p, 20);
	assert_int_equal(p.gate.rate, 300);
	assert_true(p.admitted_total <= 300 * 21);
	assert_true(p.admitted_total >= 300 * 18);
}

static void test_permits_are_a_level(void **state)
{
	struct governor_opts o = defaults();
	struct governor g;
	struct governor_gate gate;
	struct governor_sample s = sample(0);
	uint64_t now = PLANT_MS;

	o.permits = 100;
	governor_init(&g, &o);
	s.unserved = 99;
	steps(&g, &now, 10, &s, &gate);
	assert_int_equal(gate.state, TG_GATE_OPEN);
	assert_int_equal(gate.permits, 100);
	s.unserved = 100;
	steps(&g, &now, 1, &s, &gate);
	assert_int_equal(gate.state, TG_GATE_PACED);
	assert_int_equal(gate.reason, TG_GATE_BY_PERMITS);
	s.unserved = 99;
	steps(&g, &now, 1, &s, &gate);
	assert_int_equal(gate.state, TG_GATE_OPEN);
}

static void test_memory_shuts_with_hysteresis(void **state)
{
	struct governor_opts o = defaults();
	struct governor g;
	struct governor_gate gate;
	struct governor_sample s = sample(0);
	uint64_t now = PLANT_MS;

	governor_init(&g, &o);
	s.memory_percent = 89;
	steps(&g, &now, 10, &s, &gate);
	assert_int_equal(gate.state, TG_GATE_OPEN);
	s.memory_percent = 90;
	steps(&g, &now, 1, &s, &gate);
	assert_int_equal(gate.state, TG_GATE_SHUT);
	assert_int_equal(gate.reason, TG_GATE_BY_MEMORY);
	assert_int_equal(gate.rate, 0); /* the floor does not hold against memory */
	s.memory_percent = 85;
	steps(&g, &now, 500, &s, &gate);
	assert_int_equal(gate.state, TG_GATE_SHUT);
	s.memory_percent = 84;
	steps(&g, &now, 1, &s, &gate);
	assert_int_not_equal(gate.state, TG_GATE_SHUT);
	s.memory_percent = 100;
	steps(&g, &now, 1, &s, &gate);
	assert_int_equal(gate.state, TG_GATE_SHUT);
	s.memory_percent = GOVERNOR_MEMORY_UNKNOWN;
	steps(&g, &now, 1, &s, &gate);
	assert_int_not_equal(gate.state, TG_GATE_SHUT);
}

static void test_operators_word_beats_all(void **state)
{
	struct governor_opts o = defaults();
	struct governor g;
	struct governor_gate gate;
	struct governor_sample bad = sample(100 * PLANT_MS), good = sample(0);
	uint64_t now = PLANT_MS;

	bad.memory_percent = 99;
	governor_init(&g, &o);
	governor_say(&g, GATE_WORD_OPEN, 0);
	steps(&g, &now, 200, &bad, &gate);
	assert_int_equal(gate.state, TG_GATE_OPEN);
	assert_int_equal(gate.reason, TG_GATE_BY_OPERATOR);
	assert_int_equal(gate.rate, GOVERNOR_RATE_MAX);
	assert_int_equal(gate.permits, GOVERNOR_PERMITS_MAX);

	governor_say(&g, GATE_WORD_SHUT, 0);
	steps(&g, &now, 200, &good, &gate);
	assert_int_equal(gate.state, TG_GATE_SHUT);
	assert_int_equal(gate.reason, TG_GATE_BY_OPERATOR);
	assert_int_equal(gate.rate, 0);

	governor_say(&g, GATE_WORD_RATE, 77);
	steps(&g, &now, 200, &bad, &gate);
	assert_int_equal(gate.state, TG_GATE_PACED);
	assert_int_equal(gate.rate, 77);
	governor_say(&g, GATE_WORD_RATE, UINT32_MAX);
	steps(&g, &now, 1, &bad, &gate);
	assert_int_equal(gate.rate, GOVERNOR_RATE_MAX);

	governor_say(&g, GATE_WORD_AUTO, 0);
	steps(&g, &now, 1, &bad, &gate);
	assert_int_equal(gate.reason, TG_GATE_BY_MEMORY);
	steps(&g, &now, 300, &good, &gate);
	assert_int_equal(gate.state, TG_GATE_OPEN);
	assert_int_equal(gate.reason, TG_GATE_BY_NONE);
}

static void test_observe_decides_all_the_same(void **state)
{
	struct governor_opts o = defaults();
	struct plant p;

	o.observe = true;
	plant_init(&p, &o);
	p.offered = 5000;
	plant_run(&p, 1);
	assert_int_equal(p.refused_total, 0);
	assert_true(p.gate.observe);
	assert_int_equal(p.gate.state, TG_GATE_SHUT);
}

static void test_clock_jumps(void **state)
{
	struct governor_opts o = defaults();
	struct governor g;
	struct governor_gate gate;
	struct governor_sample late = sample(8 * PLANT_MS);
	uint64_t now = UINT64_C(1) << 40, paced;

	late.served = late.served_here = 1; /* or half the goodput would bound the cuts */
	governor_init(&g, &o);
	steps(&g, &now, 30, &late, &gate);
	assert_int_equal(gate.state, TG_GATE_PACED);
	paced = gate.rate;

	/* Forward by an hour, back by a day, and standing: each decides nothing by itself. */
	now += 3600 * 1000 * PLANT_MS;
	governor_step(&g, now, &late, &gate);
	assert_int_equal(gate.rate, paced);
	now -= UINT64_C(1) << 39;
	governor_step(&g, now, &late, &gate);
	assert_int_equal(gate.rate, paced);
	for (unsigned i = 0; i < 100; i++)
		governor_step(&g, now, &late, &gate);
	assert_int_equal(gate.rate, paced);
	assert_int_equal(gate.heartbeat_ns, now);
	/* And it goes on from there. */
	steps(&g, &now, 5, &late, &gate);
	assert_true(gate.rate < paced);
	now = UINT64_MAX - 10 * GOVERNOR_STEP_NS;
	steps(&g, &now, 9, &late, &gate);
}

static void test_stale_heartbeat(void **state)
{
	assert_false(governor_gate_stale(5, 5));
	assert_false(governor_gate_stale(5, 5 + GOVERNOR_STALE_NS));
	assert_true(governor_gate_stale(5, 6 + GOVERNOR_STALE_NS));
	assert_false(governor_gate_stale(UINT64_MAX, 0)); /* ahead of the reader's clock */
	assert_true(governor_gate_stale(0, UINT64_MAX));
}

static void test_extreme_values(void **state)
{
	static const uint64_t edge[] = {0, 1, 1000, UINT32_MAX, INT64_MAX, UINT64_MAX};
	struct governor_opts o = defaults();
	struct governor g;
	struct governor_gate gate;
	uint64_t now = 1, rand = 1;

	o.permits = UINT32_MAX;
	o.interval_ns = 0;
	o.target_ns = 0;
	o.rate_floor = 0;
	governor_init(&g, &o);
	for (unsigned i = 0; i < 100000; i++) {
		struct governor_sample s;
		uint64_t *field[] = {&s.delay_ns, &s.busy_ns, &s.awake_ns, &s.handshake_ns,
			&s.admitted, &s.refused, &s.served, &s.unserved, &s.served_here};

		memset(&s, 0, sizeof s);
		for (unsigned k = 0; k < sizeof field / sizeof *field; k++) {
			rand = rand * 6364136223846793005u + 1442695040888963407u;
			*field[k] = edge[(rand >> 33) % (sizeof edge / sizeof *edge)];
		}
		s.has_delay = rand >> 40 & 1;
		s.workers = (unsigned)(rand >> 42 & 63);
		s.memory_percent = (int)(rand >> 41 & 0xff) - 100;
		now += edge[(rand >> 50) % 4];
		governor_step(&g, now, &s, &gate);
		assert_true(gate.rate <= GOVERNOR_RATE_MAX);
		assert_true(gate.reserve_rate <= gate.rate);
		assert_true(gate.rate >= 1 || gate.reason == TG_GATE_BY_MEMORY);
		assert_true(g.rate == g.rate && g.goodput == g.goodput);
	}
}

static void test_names(void **state)
{
	assert_string_equal(governor_state_name(TG_GATE_OPEN), "open");
	assert_string_equal(governor_state_name(TG_GATE_SHUT), "shut");
	assert_string_equal(governor_reason_name(TG_GATE_BY_NONE), "none");
	assert_string_equal(governor_reason_name(TG_GATE_BY_OPERATOR), "operator");
	assert_string_equal(governor_word_name(GATE_WORD_RATE), "rate");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_open_below_capacity),
		cmocka_unit_test(test_converges_at_twice_the_capacity),
		cmocka_unit_test(test_converges_at_ten_times_the_capacity),
		cmocka_unit_test(test_converges_on_imperfect_figures),
		cmocka_unit_test(test_a_long_backlog_shuts_at_once),
		cmocka_unit_test(test_a_short_queue_shuts_only_for_a_moment),
		cmocka_unit_test(test_one_queue_is_cut_for_once),
		cmocka_unit_test(test_storm_shuts_and_recovers),
		cmocka_unit_test(test_steps_are_bounded),
		cmocka_unit_test(test_cut_follows_the_formula),
		cmocka_unit_test(test_burst_is_no_queue),
		cmocka_unit_test(test_a_stall_of_few_newcomers_is_soon_forgotten),
		cmocka_unit_test(test_fanout_delay_does_not_cut),
		cmocka_unit_test(test_contention_stops_the_cutting),
		cmocka_unit_test(test_a_backlog_that_gave_up_is_no_contention),
		cmocka_unit_test(test_hold_breaks_on_a_new_queue),
		cmocka_unit_test(test_no_sample_is_zero_after_a_second),
		cmocka_unit_test(test_zero_samples),
		cmocka_unit_test(test_floor_is_never_undercut),
		cmocka_unit_test(test_ceiling),
		cmocka_unit_test(test_permits_are_a_level),
		cmocka_unit_test(test_memory_shuts_with_hysteresis),
		cmocka_unit_test(test_operators_word_beats_all),
		cmocka_unit_test(test_observe_decides_all_the_same),
		cmocka_unit_test(test_clock_jumps),
		cmocka_unit_test(test_stale_heartbeat),
		cmocka_unit_test(test_extreme_values),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
