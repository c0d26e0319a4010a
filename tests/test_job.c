#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "support/worker_harness.h"

static struct bare b;

/* Embedded first, as its owner's state would be. */
struct counted {
	struct job job;
	_Atomic unsigned runs;
	unsigned again;    /* times it asks to be run at once */
	uint32_t again_ms; /* or after so long */
	uint32_t asked_ms, ran_ms;
	struct counted *cancels; /* another, in its turn */
	bool next_turn;          /* it asks for that rather than for a place in the queue */
	uint64_t loops[8];       /* the worker's turns as of each of the first runs */
};

static void count(struct worker *w, struct job *j)
{
	struct counted *c = (struct counted *)j;

	c->ran_ms = w->now_ms;
	if (c->runs < 8)
		c->loops[c->runs] = w->stats->loops;
	if (c->cancels)
		job_cancel(w, &c->cancels->job);
	if (c->again) {
		c->again--;
		if (c->next_turn)
			job_run_next_turn(w, j, RUNQ_FANOUT);
		else if (c->again_ms)
			job_run_in(w, j, c->again_ms);
		else
			job_run(w, j, RUNQ_FANOUT);
	}
	c->runs++;
}

static void begin(void)
{
	struct worker_opts opts = bare_opts(&b);

	memset(&b, 0, sizeof b);
	assert_int_equal(bare_begin(&b, &opts), 0);
}

static void end(void)
{
	bare_end(&b);
	bare_free(&b);
}

static void run_twice(struct bare *bare, void *arg)
{
	struct counted *c = arg;

	job_run(bare->w, &c->job, RUNQ_CONTROL);
	job_run(bare->w, &c->job, RUNQ_FANOUT); /* queued already: no effect */
}

static void test_runs_once(void **state)
{
	struct counted c = {.runs = 0};

	begin();
	job_init(&c.job, count);
	bare_run(&b, run_twice, &c);
	assert_true(bare_wait(&c.runs, 1));
	bare_run(&b, run_twice, &c);
	assert_true(bare_wait(&c.runs, 2));
	bare_sleep_ms(5);
	assert_int_equal(c.runs, 2);
	end();
}

static void run_in(struct bare *bare, void *arg)
{
	struct counted *c = arg;

	c->asked_ms = bare->w->now_ms;
	job_run_in(bare->w, &c->job, 20);
}

static void run_in_twice(struct bare *bare, void *arg)
{
	uint32_t began;

	run_in(bare, arg);
	for (began = bare->w->now_ms; bare->w->now_ms - began < 10; worker_now(bare->w))
		;
	run_in(bare, arg);
}

/* Later, not earlier; asked again while it waits, it waits from then. */
static void test_runs_later(void **state)
{
	struct counted c = {.runs = 0};

	begin();
	job_init(&c.job, count);
	bare_run(&b, run_in, &c);
	assert_true(bare_wait(&c.runs, 1));
	assert_true(c.ran_ms - c.asked_ms >= 20);
	bare_run(&b, run_in_twice, &c);
	assert_true(bare_wait(&c.runs, 2));
	assert_true(c.ran_ms - c.asked_ms >= 20);
	bare_sleep_ms(30);
	assert_int_equal(c.runs, 2);
	end();
}

/* In steps, each a turn of its own: others come in between. */
static void test_resumes(void **state)
{
	struct counted steps = {.again = 5000}, slow = {.again = 3, .again_ms = 5},
		       other = {.runs = 0};

	begin();
	job_init(&steps.job, count);
	job_init(&slow.job, count);
	job_init(&other.job, count);
	bare_run(&b, run_twice, &steps);
	bare_run(&b, run_twice, &slow);
	bare_run(&b, run_twice, &other);
	assert_true(bare_wait(&other.runs, 1));
	assert_true(bare_wait(&steps.runs, 5001));
	assert_true(bare_wait(&slow.runs, 4));
	end();
	assert_int_equal(steps.runs, 5001);
	assert_int_equal(slow.runs, 4);
}

static void run_and_cancel(struct bare *bare, void *arg)
{
	struct counted *c = arg;

	job_cancel(bare->w, &c->job); /* neither: no effect */
	job_run(bare->w, &c->job, RUNQ_LINKS);
	job_run_in(bare->w, &c->job, 1);
	job_cancel(bare->w, &c->job);
	job_cancel(bare->w, &c->job);
}

static void test_cancel(void **state)
{
	struct counted c = {.runs = 0}, victim = {.runs = 0}, killer = {.cancels = &victim};

	begin();
	job_init(&c.job, count);
	bare_run(&b, run_and_cancel, &c);
	bare_sleep_ms(5);
	assert_int_equal(c.runs, 0);
	bare_run(&b, run_twice, &c); /* and it can still be run */
	assert_true(bare_wait(&c.runs, 1));

	job_init(&victim.job, count);
	job_init(&killer.job, count);
	bare_run(&b, run_in, &victim);
	bare_run(&b, run_twice, &killer);
	assert_true(bare_wait(&killer.runs, 1));
	bare_sleep_ms(30);
	assert_int_equal(victim.runs, 0);
	end();
}

static void queue_both(struct bare *bare, void *arg)
{
	struct counted *pair = arg;

	job_run(bare->w, &pair[0].job, RUNQ_CONTROL);
	job_run(bare->w, &pair[1].job, RUNQ_CONTROL);
}

/* The first of two in the queue takes the second one out. */
static void test_cancel_in_the_queue(void **state)
{
	struct counted pair[2] = {{.cancels = &pair[1]}, {.runs = 0}};

	begin();
	job_init(&pair[0].job, count);
	job_init(&pair[1].job, count);
	bare_run(&b, queue_both, pair);
	assert_true(bare_wait(&pair[0].runs, 1));
	bare_sleep_ms(5);
	assert_int_equal(pair[1].runs, 0);
	end();
}

/* In the next turn means at most once in each. */
static void test_next_turn(void **state)
{
	struct counted c = {.again = 4, .next_turn = true};

	begin();
	job_init(&c.job, count);
	bare_run(&b, run_twice, &c);
	assert_true(bare_wait(&c.runs, 5));
	end();
	for (unsigned i = 1; i < 5; i++)
		assert_true(c.loops[i] > c.loops[i - 1]);
}

static void park_three(struct bare *bare, void *arg)
{
	struct counted *c = arg;

	for (unsigned i = 0; i < 3; i++) {
		job_run_next_turn(bare->w, &c[i].job, RUNQ_FANOUT);
		job_run(bare->w, &c[i].job, RUNQ_CONTROL); /* waits already: no effect */
	}
	job_cancel(bare->w, &c[1].job);
	assert_false(c[1].job.run.queued);
}

static void test_cancel_before_the_next_turn(void **state)
{
	struct counted c[3] = {{.runs = 0}, {.runs = 0}, {.runs = 0}};

	begin();
	for (unsigned i = 0; i < 3; i++)
		job_init(&c[i].job, count);
	bare_run(&b, park_three, c);
	assert_true(bare_wait(&c[0].runs, 1) && bare_wait(&c[2].runs, 1));
	bare_sleep_ms(5);
	assert_int_equal(c[1].runs, 0);
	assert_int_equal(c[0].runs, 1);
	end();
}

/* The worker ends with jobs that wait, are queued, or would go on for ever. */
static void test_stop(void **state)
{
	struct counted waiting = {.runs = 0}, endless = {.again = UINT32_MAX};

	begin();
	job_init(&waiting.job, count);
	job_init(&endless.job, count);
	bare_run(&b, run_in, &waiting);
	bare_run(&b, run_twice, &endless);
	assert_true(bare_wait(&endless.runs, 100));
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_runs_once),
		cmocka_unit_test(test_runs_later),
		cmocka_unit_test(test_resumes),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_cancel_in_the_queue),
		cmocka_unit_test(test_next_turn),
		cmocka_unit_test(test_cancel_before_the_next_turn),
		cmocka_unit_test(test_stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
