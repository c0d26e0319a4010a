#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/worker.h"
#include "ops/gateway_sample.h"

#define US UINT64_C(1000)

static struct tg_worker_stats stats[2];
static struct gateway_sampler sampler;
static const uint64_t now_ns = 1000 * WORKER_SLOT_NS;

static int setup(void **state)
{
	stats_init(&stats[0]);
	stats_init(&stats[1]);
	return gateway_sampler_init(&sampler, 2);
}

static int teardown(void **state)
{
	gateway_sampler_fini(&sampler);
	return 0;
}

static void publish(unsigned worker, uint64_t slot, uint32_t us)
{
	stats[worker].least_delay = slot << 32 | us;
}

static void test_nothing_is_no_sample(void **state)
{
	struct governor_sample s;

	gateway_sample(&sampler, stats, now_ns, &s);
	assert_false(s.has_delay);
	assert_int_equal(s.admitted + s.refused + s.served + s.busy_ns, 0);
}

static void test_the_worst_worker_counts(void **state)
{
	struct governor_sample s;

	publish(0, 999, 100);
	publish(1, 999, 7000);
	stats[0].loop_us.sum = 20000;
	stats[1].loop_us.sum = 10000;
	stats[0].class_ns[RUNQ_HANDSHAKE] = 1;
	stats[1].class_ns[RUNQ_HANDSHAKE] = 5000;
	stats[1].class_ns[RUNQ_FANOUT] = 999;
	stats[0].handshakes = 2;
	stats[1].handshakes = 7;
	gateway_sample(&sampler, stats, now_ns, &s);
	assert_true(s.has_delay);
	assert_int_equal(s.delay_ns, 7000 * US);
	assert_int_equal(s.busy_ns, 10000 * US);
	assert_int_equal(s.handshake_ns, 5000);
	assert_int_equal(s.served_here, 7);
	assert_int_equal(s.served, 9);
	assert_int_equal(s.workers, 2);
}

static void test_counters_are_differences(void **state)
{
	struct governor_sample s;

	stats[0].verdicts[TG_ADMIT_OPEN] = 10;
	stats[0].verdicts[TG_ADMIT_PACED] = 5;
	stats[1].verdicts[TG_ADMIT_ALLOWED] = 1;
	stats[0].verdicts[TG_DROP_RATE] = 3;
	stats[1].verdicts_observed[TG_DROP_SHUT] = 4;
	stats[1].verdicts[TG_DROP_DENYLIST] = 100;
	stats[1].verdicts[TG_DROP_PENALTY] = 100;
	stats[1].handshakes = 9;
	gateway_sample(&sampler, stats, now_ns, &s);
	assert_int_equal(s.admitted, 16);
	assert_int_equal(s.refused, 7);
	assert_int_equal(s.served, 9);
	gateway_sample(&sampler, stats, now_ns, &s);
	assert_int_equal(s.admitted + s.refused + s.served, 0);
	stats[1].handshakes = 0; /* backwards is nothing */
	gateway_sample(&sampler, stats, now_ns, &s);
	assert_int_equal(s.served, 0);
}

static void test_old_slots_say_nothing(void **state)
{
	struct governor_sample s;

	publish(0, 998, 7000);
	gateway_sample(&sampler, stats, now_ns, &s);
	assert_true(s.has_delay);
	publish(0, 997, 7000);
	gateway_sample(&sampler, stats, now_ns, &s);
	assert_false(s.has_delay);
}

/* A worker that hangs publishes nothing: the age of its turn speaks for it. */
static void test_hanging_worker(void **state)
{
	struct governor_sample s;

	publish(0, 999, 10);
	stats[1].turn_since_ns = now_ns - WORKER_SLOT_NS; /* still within a slot */
	gateway_sample(&sampler, stats, now_ns, &s);
	assert_int_equal(s.delay_ns, 10 * US);
	stats[1].turn_since_ns = now_ns - 400000 * US;
	gateway_sample(&sampler, stats, now_ns, &s);
	assert_int_equal(s.delay_ns, 400000 * US);
	stats[1].turn_since_ns = now_ns + 1; /* began after we looked at the clock */
	gateway_sample(&sampler, stats, now_ns, &s);
	assert_int_equal(s.delay_ns, 10 * US);
	stats[1].turn_since_ns = 0; /* it waits */
	gateway_sample(&sampler, stats, now_ns, &s);
	assert_int_equal(s.delay_ns, 10 * US);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_nothing_is_no_sample, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_worst_worker_counts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_counters_are_differences, setup, teardown),
		cmocka_unit_test_setup_teardown(test_old_slots_say_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hanging_worker, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
