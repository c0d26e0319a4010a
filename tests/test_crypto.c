#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/resource.h>

#include "support/net_harness.h"

enum {
	JOBS = 2000
};

static struct harness h;
static struct crypto *crypto;

struct work {
	struct crypto_job job; /* first */
	pthread_t ran_in, done_in;
	unsigned nth, runs, dones;
	int niceness;
};

static struct work work[JOBS];
static uint64_t n_done, n_refused;
static unsigned order[JOBS];
static sem_t go, going;

static void run(struct crypto_job *j)
{
	struct work *w = (struct work *)j;

	w->ran_in = pthread_self();
	w->niceness = getpriority(PRIO_PROCESS, 0);
	w->runs++;
}

static void done(struct crypto_job *j)
{
	struct work *w = (struct work *)j;

	w->done_in = pthread_self();
	w->dones++;
	order[n_done++] = w->nth;
}

static void drop(struct crypto_job *j)
{
	fail();
}

static void wait_to_run(struct crypto_job *j)
{
	sem_post(&going);
	sem_wait(&go);
	run(j);
}

static void begin(unsigned threads, unsigned queue)
{
	const struct crypto_opts opts = {threads, queue, HARNESS_CRYPTO};

	harness_defaults(&h);
	harness_start(&h);
	assert_int_equal(crypto_create(&opts, &crypto), 0);
	memset(work, 0, sizeof work);
	n_done = n_refused = 0;
	for (unsigned i = 0; i < JOBS; i++) {
		work[i].job = (struct crypto_job){run, done, drop, NULL};
		work[i].nth = i;
	}
	sem_init(&go, 0, 0);
	sem_init(&going, 0, 0);
}

static void end(void)
{
	crypto_stop(crypto);
	assert_true(harness_stop(&h));
	crypto_destroy(crypto);
}

static void submit_all(struct harness *harness, void *arg)
{
	for (unsigned i = 0; i < JOBS; i++)
		if (crypto_submit(crypto, &work[i].job, harness->w))
			n_refused++;
}

/* Each runs once, in a thread that is not the worker's and less urgent, and comes back once. */
static void test_all_run(void **state)
{
	begin(3, 4096);
	harness_call(&h, submit_all, NULL);
	assert_true(harness_wait(&h, &n_done, JOBS));
	assert_int_equal(n_refused, 0);
	for (unsigned i = 0; i < JOBS; i++) {
		assert_int_equal(work[i].runs, 1);
		assert_int_equal(work[i].dones, 1);
		assert_true(pthread_equal(work[i].done_in, h.w->thread));
		assert_false(pthread_equal(work[i].ran_in, h.w->thread));
		assert_true(work[i].niceness > getpriority(PRIO_PROCESS, 0));
	}
	end();
}

static void test_one_thread_keeps_order(void **state)
{
	begin(1, 4096);
	harness_call(&h, submit_all, NULL);
	assert_true(harness_wait(&h, &n_done, JOBS));
	for (unsigned i = 0; i < JOBS; i++)
		assert_int_equal(order[i], i);
	end();
}

/* One runs, as many as the queue holds wait, the rest are refused; then there is room again. */
static void test_full(void **state)
{
	begin(1, 8);
	work[0].job.run = wait_to_run;
	assert_int_equal(crypto_submit(crypto, &work[0].job, h.w), 0);
	sem_wait(&going);
	for (unsigned i = 1; i < 12; i++)
		assert_int_equal(crypto_submit(crypto, &work[i].job, h.w), i <= 8 ? 0 : -EAGAIN);
	sem_post(&go);
	assert_true(harness_wait(&h, &n_done, 9));
	assert_int_equal(crypto_submit(crypto, &work[12].job, h.w), 0);
	assert_true(harness_wait(&h, &n_done, 10));
	assert_int_equal(work[9].runs, 0);
	end();
}

/* A thread that is held up does not hold up the others' queues: a full one is passed over. */
static void test_full_one_is_passed_over(void **state)
{
	begin(2, 2);
	work[0].job.run = wait_to_run;
	assert_int_equal(crypto_submit(crypto, &work[0].job, h.w), 0);
	sem_wait(&going);
	/* Offered in turn: two end up behind the one that is held up, and fill its queue. */
	for (unsigned i = 1; i <= 4; i++)
		assert_int_equal(crypto_submit(crypto, &work[i].job, h.w), 0);
	assert_true(harness_wait(&h, &n_done, 2));
	for (unsigned i = 5; i <= 20; i++) {
		assert_int_equal(crypto_submit(crypto, &work[i].job, h.w), 0);
		assert_true(harness_wait(&h, &n_done, i - 2));
	}
	sem_post(&go);
	assert_true(harness_wait(&h, &n_done, 21));
	end();
}

/* What was accepted is finished before the threads end; after that nothing is accepted. */
static void test_stop(void **state)
{
	begin(1, 4096);
	harness_call(&h, submit_all, NULL);
	crypto_stop(crypto);
	assert_true(harness_wait(&h, &n_done, JOBS));
	assert_int_equal(crypto_submit(crypto, &work[0].job, h.w), -EAGAIN);
	end();
}

static void test_bad_options(void **state)
{
	struct crypto *c = NULL;

	assert_int_equal(crypto_create(&(struct crypto_opts){0, 8, 0}, &c), -EINVAL);
	assert_int_equal(
		crypto_create(&(struct crypto_opts){CRYPTO_THREADS_MAX + 1, 8, 0}, &c), -EINVAL);
	assert_int_equal(crypto_create(&(struct crypto_opts){1, 7, 0}, &c), -EINVAL);
	assert_null(c);
	crypto_stop(NULL);
	crypto_destroy(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_run),
		cmocka_unit_test(test_one_thread_keeps_order),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_full_one_is_passed_over),
		cmocka_unit_test(test_stop),
		cmocka_unit_test(test_bad_options),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
