#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "support/worker_harness.h"

static void take_20_ms(struct bare *b, void *arg)
{
	uint64_t until = bare_now_ms() + 21;

	while (bare_now_ms() < until)
		;
}

/* The time a turn takes is all of it, whatever it was spent on. */
static void test_turns_are_measured(void **state)
{
	struct bare b = {0};
	struct worker_opts opts = bare_opts(&b);
	uint64_t begin_ms;

	assert_int_equal(bare_begin(&b, &opts), 0);
	begin_ms = bare_now_ms();
	bare_run(&b, take_20_ms, NULL);
	bare_sleep_ms(200);
	bare_end(&b);
	assert_true(b.stats->loop_us.max >= 20000);
	assert_true(b.stats->awake_ns >= 20000000);
	assert_true(b.stats->awake_ns / 1000000 <= bare_now_ms() - begin_ms - 100); /* it slept */
	assert_int_equal(b.stats->loop_us.count, b.stats->loops);
	bare_free(&b);
}

static void job_of_20_ms(struct worker *w, struct job *j)
{
	take_20_ms(NULL, NULL);
}

static void job_of_no_time(struct worker *w, struct job *j)
{
}

/* The second waits for the first. */
static void queue_two(struct bare *b, void *arg)
{
	struct job *j = arg;

	job_init(&j[0], job_of_20_ms);
	job_init(&j[1], job_of_no_time);
	job_run(b->w, &j[0], RUNQ_HANDSHAKE);
	job_run(b->w, &j[1], RUNQ_HANDSHAKE);
}

static void nothing(struct bare *b, void *arg)
{
}

static uint64_t turn_since(const struct bare *b)
{
	return __atomic_load_n(&b->stats->turn_since_ns, __ATOMIC_RELAXED);
}

struct told {
	uint64_t turn_since_ns, least_delay;
};

static void tell(struct bare *b, void *arg)
{
	*(struct told *)arg = (struct told){turn_since(b), b->stats->least_delay};
}

static void copy_stats(struct bare *b, void *arg)
{
	memcpy(arg, b->stats, sizeof *b->stats);
}

/* What takes more than ten times its budget is noted: what it was, and for how long. */
static void test_late_turns(void **state)
{
	struct bare b = {0};
	struct worker_opts opts = bare_opts(&b);
	struct tg_worker_stats seen;
	struct job jobs[2];
	uint64_t deadline_ns = worker_clock_ns() + UINT64_C(30000000000);

	opts.slice_us = 2100; /* 21 ms are late for a job, not for the loop */
	opts.turn_us = 1900;
	assert_int_equal(bare_begin(&b, &opts), 0);
	bare_run(&b, queue_two, jobs);
	/* Mail may come before the jobs have their turn. */
	do
		bare_run(&b, copy_stats, &seen);
	while (!seen.late_turns && worker_clock_ns() < deadline_ns);
	assert_true(seen.late_turns >= 1); /* more on a machine that stops now and then */
	if (seen.late_turns == 1) {
		assert_int_equal(seen.late.doing, STATS_DOING_HANDSHAKE);
		assert_true(
			seen.late_ns >= 20000000 && seen.late_ns <= seen.loop_us.max * 1000 + 1000);
	}
	assert_int_equal(
		seen.turn.doing, STATS_DOING_REAP); /* mail: it is here that it was copied */
	bare_end(&b);
	bare_free(&b);
}

static struct tg_sched measures;
static struct job woken[WORKER_MEASURED_LEAST];

/* Each has waited for 1.5 s before it was received, which somebody measured. */
static void queue_woken(struct bare *b, void *arg)
{
	for (unsigned i = 0; i < WORKER_MEASURED_LEAST; i++) {
		job_init(&woken[i], job_of_no_time);
		worker_push_woken(b->w, &woken[i].run, RUNQ_ESTABLISHED, runq_wake(1500000));
	}
	job_init(arg, job_of_no_time);
	job_run(b->w, arg, RUNQ_HANDSHAKE); /* of this one nobody knows */
}

/* The sum of both delays of an event where the first one is known; the second alone while nothing
 * is measured. It is what the governor reads then. */
static void test_poll_delay(void **state)
{
	struct bare b = {0};
	struct worker_opts opts = bare_opts(&b);
	struct tg_worker_stats seen = {0};
	struct job other, jobs[2];
	uint64_t before;

	measures.share = 0;
	opts.sched = &measures;
	assert_int_equal(bare_begin(&b, &opts), 0);
	bare_run(&b, queue_two, jobs);
	while (seen.run_delay_us.count < 2)
		bare_run(&b, copy_stats, &seen);
	assert_int_equal(seen.poll_delay_us.count, 2);
	assert_int_equal(seen.poll_delay_us.sum, seen.run_delay_us.sum);
	__atomic_store_n(&measures.share, 1, __ATOMIC_RELAXED);
	/* It looks once a turn. */
	for (before = seen.loops; seen.loops < before + 2;)
		bare_run(&b, copy_stats, &seen);
	before = seen.poll_delay_us.count;
	for (unsigned i = 1; i <= 20; i++) {
		bare_run(&b, queue_woken, &other);
		bare_sleep_ms(2 * WORKER_SLOT_NS / 1000000);
		bare_run(&b, nothing, NULL);
		bare_run(&b, copy_stats, &seen);
		assert_int_equal(seen.poll_delay_us.count, before + i * WORKER_MEASURED_LEAST);
		/* They may lie in two slots. */
		if ((uint32_t)seen.least_delay >= 1499000)
			break;
	}
	assert_true(seen.poll_delay_us.max >= 1499000 && seen.run_delay_us.max < 1499000);
	assert_true((uint32_t)seen.least_delay >= 1499000);
	bare_end(&b);
	bare_free(&b);
}

/* What the governor reads: time by class, the least delay of a slot, and the turn that goes on. */
static void test_least_delay_is_published(void **state)
{
	struct bare b = {0};
	struct worker_opts opts = bare_opts(&b);
	struct job jobs[2];
	struct told told = {0};
	uint64_t until;

	assert_int_equal(bare_begin(&b, &opts), 0);
	/* When a slot ends between the last two, its own least delay is told instead. */
	for (unsigned i = 0; i < 20 && (uint32_t)told.least_delay < 20000; i++) {
		bare_run(&b, queue_two, jobs);
		bare_sleep_ms(50);           /* the slot in which the second ran is over */
		bare_run(&b, nothing, NULL); /* the end of this turn publishes it */
		bare_run(&b, tell, &told);
	}
	assert_true((uint32_t)told.least_delay >= 20000);
	assert_true(told.least_delay >> 32 <= worker_clock_ns() / WORKER_SLOT_NS);
	assert_true(told.turn_since_ns > 0 && told.turn_since_ns <= worker_clock_ns());
	until = bare_now_ms() + 10000;
	while (turn_since(&b) && bare_now_ms() < until)
		bare_sleep_ms(1);
	assert_int_equal(turn_since(&b), 0); /* it waits */
	bare_end(&b);
	assert_true(b.stats->class_ns[RUNQ_HANDSHAKE] >= 20000000);
	assert_int_equal(b.stats->class_ns[RUNQ_FANOUT], 0);
	bare_free(&b);
}

/* In which turn each job ran, as counted by flushes. */
struct turns {
	struct job newcomer[2], session;
	unsigned newcomer_turn[2], session_turn;
	_Atomic unsigned ran; /* of the newcomers */
};

static struct turns turns;

static void run_session(struct worker *w, struct job *j)
{
	turns.session_turn = bare_of(w)->flushes;
}

static void run_newcomer(struct worker *w, struct job *j)
{
	uint64_t until = worker_clock_ns() + 10000;

	turns.newcomer_turn[j - turns.newcomer] = bare_of(w)->flushes;
	if (j == turns.newcomer && turns.session.fn)
		job_run(w, &turns.session, RUNQ_ESTABLISHED);
	while (worker_clock_ns() < until)
		;
	turns.ran++;
}

static void queue_newcomers(struct bare *b, void *arg)
{
	job_init(&turns.newcomer[0], run_newcomer);
	job_init(&turns.newcomer[1], run_newcomer);
	job_run(b->w, &turns.newcomer[0], RUNQ_HANDSHAKE);
	job_run(b->w, &turns.newcomer[1], RUNQ_HANDSHAKE);
}

static void queue_newcomers_and_input(struct bare *b, void *arg)
{
	queue_newcomers(b, NULL);
	b->w->session_input = true;
	b->w->newcomers_ns = b->w->now_ns;
	*(unsigned *)arg = b->flushes;
}

static void no_longer_than(struct bare *b, uint32_t turn_us)
{
	struct worker_opts opts = bare_opts(b);

	opts.turn_us = turn_us;
	opts.slice_us = 1000000000;
	memset(&turns, 0, sizeof turns);
	assert_int_equal(bare_begin(b, &opts), 0);
}

/* Newcomers have half a turn's time of a slice; then the rings are looked at for sessions. */
static void test_newcomers_share_a_slice_with_nobody(void **state)
{
	struct bare b = {0};

	no_longer_than(&b, 15); /* a handshake takes 10 */
	bare_run(&b, queue_newcomers, NULL);
	assert_true(bare_wait(&turns.ran, 2));
	bare_end(&b);
	assert_true(turns.newcomer_turn[0] > 0);
	assert_true(turns.newcomer_turn[1] > turns.newcomer_turn[0]);
	bare_free(&b);
}

/* What a session has just been answered goes out before the next handshake, and what is on its way
 * from one is looked at before. */
static void test_sessions_do_not_wait_for_newcomers(void **state)
{
	struct bare b = {0};
	unsigned asked = 0;

	no_longer_than(&b, 1000000000);
	job_init(&turns.session, run_session);
	bare_run(&b, queue_newcomers, NULL);
	assert_true(bare_wait(&turns.ran, 2));
	bare_end(&b);
	assert_int_equal(turns.session_turn, turns.newcomer_turn[0]);
	assert_true(turns.newcomer_turn[1] > turns.session_turn);
	bare_free(&b);

	memset(&b, 0, sizeof b);
	no_longer_than(&b, 1000000000);
	bare_run(&b, queue_newcomers_and_input, &asked);
	assert_true(bare_wait(&turns.ran, 2));
	bare_end(&b);
	assert_true(turns.newcomer_turn[0] > asked);
	assert_int_equal(turns.newcomer_turn[1], turns.newcomer_turn[0]);
	bare_free(&b);
}

enum {
	TAKERS = 5,
	TURNS = 4
};

static _Atomic unsigned taken;
static struct job taker[TAKERS];
static bool in_order;

static void take_turns(struct worker *w, struct job *j)
{
	in_order &= j == &taker[taken % TAKERS];
	if (++taken <= TAKERS * (TURNS - 1))
		job_run_next_turn(w, j, RUNQ_FANOUT);
}

static void queue_takers(struct bare *b, void *arg)
{
	for (unsigned i = 0; i < TAKERS; i++) {
		job_init(&taker[i], take_turns);
		job_run(b->w, &taker[i], RUNQ_FANOUT);
	}
}

/* Whoever waits for the next turn comes in the order in which it began to wait. */
static void test_next_turn_in_order(void **state)
{
	struct bare b = {0};
	struct worker_opts opts = bare_opts(&b);

	taken = 0;
	in_order = true;
	assert_int_equal(bare_begin(&b, &opts), 0);
	bare_run(&b, queue_takers, NULL);
	assert_true(bare_wait(&taken, TAKERS * TURNS));
	bare_end(&b);
	assert_int_equal(taken, TAKERS * TURNS);
	assert_true(in_order);
	bare_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_turns_are_measured),
		cmocka_unit_test(test_least_delay_is_published),
		cmocka_unit_test(test_newcomers_share_a_slice_with_nobody),
		cmocka_unit_test(test_sessions_do_not_wait_for_newcomers),
		cmocka_unit_test(test_next_turn_in_order),
		cmocka_unit_test(test_late_turns),
		cmocka_unit_test(test_poll_delay),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
