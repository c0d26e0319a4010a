/* What is said of turns that take too long, how often, and how busy a worker is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ops/watchdog.h"

#define MSEC UINT64_C(1000000)

static struct tg_worker_stats stats[2];
static struct watchdog dog;
static char said[WATCHDOG_TEXT_MAX];
static unsigned lines;
static uint64_t now_ns;

static void say(void *ctx, const char *text)
{
	assert_ptr_equal(ctx, &dog);
	snprintf(said, sizeof said, "%s", text);
	lines++;
}

static int setup(void **state)
{
	const struct watchdog_opts o = {
		.n_workers = 2, .turn_us = 200, .slice_us = 2000, .say = say, .ctx = &dog};

	stats_init(&stats[0]);
	stats_init(&stats[1]);
	lines = 0;
	now_ns = 5000 * MSEC;
	return watchdog_init(&dog, &o);
}

static int teardown(void **state)
{
	watchdog_fini(&dog);
	return 0;
}

static unsigned look(uint64_t after_ms)
{
	unsigned before = lines;

	now_ns += after_ms * MSEC;
	watchdog_look(&dog, stats, now_ns);
	return lines - before;
}

static void late(
	unsigned worker, enum stats_doing doing, uint32_t conn, uint64_t session, uint64_t ns)
{
	stats[worker].late = (struct tg_worker_turn){
		.since_ns = now_ns, .doing = doing, .conn = conn, .session = session};
	stats[worker].late_ns = ns;
	stats[worker].late_turns++;
}

static void test_nothing_to_say(void **state)
{
	assert_int_equal(look(0), 0);
	stats[0].turn =
		(struct tg_worker_turn){.since_ns = now_ns, .doing = STATS_DOING_ESTABLISHED};
	assert_int_equal(look(WATCHDOG_HUNG_MS - 1), 0);
	/* It waits for as long as it likes. */
	stats[1].turn = (struct tg_worker_turn){.since_ns = now_ns, .doing = STATS_DOING_WAIT};
	stats[0].turn.since_ns = now_ns + 3600000 * MSEC; /* read while it was written */
	assert_int_equal(look(3000), 0);
}

static void test_a_late_turn(void **state)
{
	stats[1].runnable = 17;
	late(1, STATS_DOING_HANDSHAKE, (2u << 24 | 5) + 1, 0, 40 * MSEC);
	assert_int_equal(look(50), 1);
	assert_string_equal(said,
		"worker 1 took 40ms for a handshake (ring 2, slot 5, no session yet); "
		"its budget is 200us; 17 runnable");
	assert_int_equal(look(50), 0);
	late(0, STATS_DOING_ESTABLISHED, 1, 77, 3 * MSEC);
	assert_int_equal(
		look(50), 1); /* another worker's line is no reason to hold this one back */
	assert_string_equal(said,
		"worker 0 took 3ms for a session's input (ring 0, slot 0, session 77); "
		"its budget is 200us; 0 runnable");
	late(1, STATS_DOING_REAP, 0, 0, 21 * MSEC);
	assert_int_equal(look(1000), 1);
	assert_string_equal(said, "worker 1 took 21ms for reaping completions, timers and mail; "
				  "its budget is 2ms; 17 runnable");
}

/* What is held back is counted. */
static void test_rate(void **state)
{
	unsigned n = 0;

	for (unsigned ms = 0; ms < 10000; ms += 50) {
		late(0, STATS_DOING_LINKS, 0, 0, 5 * MSEC);
		late(0, STATS_DOING_LINKS, 0, 0, 5 * MSEC);
		n += look(50);
	}
	assert_int_equal(n, 10);
	assert_string_equal(said, "worker 0 took 5ms for a link; its budget is 200us; 0 runnable; "
				  "39 more late turns before");
}

static void test_a_hung_turn(void **state)
{
	stats[0].turn =
		(struct tg_worker_turn){.since_ns = now_ns, .doing = STATS_DOING_FANOUT, .conn = 0};
	assert_int_equal(look(WATCHDOG_HUNG_MS), 1);
	assert_string_equal(
		said, "worker 0 has been for 100ms at a job; its budget is 200us; 0 runnable");
	assert_int_equal(look(5000), 0); /* said once … */
	late(0, STATS_DOING_FANOUT, 0, 0, 5100 * MSEC);
	assert_int_equal(look(50), 1); /* … and how long it was in the end */
	stats[0].turn.since_ns = now_ns;
	assert_int_equal(look(WATCHDOG_HUNG_MS), 1);
}

static void test_busy(void **state)
{
	look(0);
	/* A quarter, half of it in the turn that goes on. */
	hist_add(&stats[0].loop_us, 125000);
	stats[0].turn_since_ns = now_ns + 875 * MSEC;
	look(1000);
	assert_int_equal(stats[0].busy_permille, 250);
	assert_int_equal(stats[1].busy_permille, 0);
	/* It took another 100 ms, and was the last one. */
	hist_add(&stats[0].loop_us, 225000);
	stats[0].turn_since_ns = 0;
	look(500);
	assert_int_equal(stats[0].busy_permille, 250); /* not yet */
	look(500);
	assert_int_equal(stats[0].busy_permille, 100);
	look(1000);
	assert_int_equal(stats[0].busy_permille, 0);
	stats[0].turn_since_ns = now_ns - 10 * MSEC;
	look(1000);
	assert_int_equal(stats[0].busy_permille, 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_nothing_to_say, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_late_turn, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rate, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_hung_turn, setup, teardown),
		cmocka_unit_test_setup_teardown(test_busy, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
