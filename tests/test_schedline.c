/* The scheduler line: its keys, its numbers, and whose delay it shows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ops/schedline.h"

static const uint64_t ten_s_ns = 10000000000u;

static void test_count(void **state)
{
	static const struct {
		double v;
		const char *text;
	} cases[] = {
		{0, "0"},
		{-3, "0"},
		{0.04, "0"},
		{0.3, "0.3"},
		{1, "1"},
		{9.94, "9.9"},
		{9.96, "10"},
		{42.4, "42"},
		{999, "999"},
		{999.4, "999"},
		{999.5, "1k"},
		{1000, "1k"},
		{8700, "8.7k"},
		{9000, "9k"},
		{9949, "9.9k"},
		{9960, "10k"},
		{182000, "182k"},
		{182499, "182k"},
		{999499, "999k"},
		{999500, "1M"},
		{1800000, "1.8M"},
		{1e9, "1G"},
		{2.5e10, "25G"},
		{1.8446744073709552e19, "18446744074G"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char out[HUMAN_MAX];
		assert_string_equal(human_count(out, cases[i].v), cases[i].text);
	}
}

static void test_delay(void **state)
{
	static const struct {
		uint64_t us;
		const char *text;
	} cases[] = {
		{0, "0us"},
		{3, "3us"},
		{850, "850us"},
		{999, "999us"},
		{1000, "1ms"},
		{3249, "3.2ms"},
		{9999, "10ms"},
		{37000, "37ms"},
		{999499, "999ms"},
		{999500, "1s"},
		{1200000, "1.2s"},
		{90000000, "90s"},
		{86400000000u, "86400s"},
		{UINT64_MAX, "18446744073710s"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char out[HUMAN_MAX];
		assert_string_equal(human_delay_us(out, cases[i].us), cases[i].text);
	}
}

struct pair {
	struct tg_worker_stats before[2], now[2];
};

static void pair_init(struct pair *p)
{
	for (int i = 0; i < 2; i++) {
		stats_init(&p->before[i]);
		stats_init(&p->now[i]);
	}
}

static void assert_line(const struct pair *p, uint64_t interval_ns, const char *expected)
{
	char line[SCHEDLINE_MAX];
	struct schedline l;

	schedline_take(&l, p->now, p->before, 2, interval_ns, "open", 0);
	size_t len = schedline_format(line, &l);

	assert_string_equal(line, expected);
	assert_int_equal(len, strlen(expected));
}

static void test_nothing_happened(void **state)
{
	struct pair p;

	pair_init(&p);
	assert_line(&p, ten_s_ns,
		"sched_poll_delay_p99=0us runnable_tasks=0 accepts=0/s closes=0/s conns=0 "
		"gate=open "
		"admitted=0 refused=0 forced_yields=0 dropped=0");
}

static void test_deltas(void **state)
{
	struct pair p;

	pair_init(&p);
	p.before[0].accepts = 1000000;
	p.now[0].accepts = 1050000;
	p.now[1].accepts = 40000;
	p.before[0].closes[CLOSE_CLIENT] = 500;
	p.now[0].closes[CLOSE_CLIENT] = 80500;
	p.now[1].closes[CLOSE_DRAIN] = 7000;
	p.now[0].runnable = 100000;
	p.now[1].runnable = 82000;
	p.before[1].runnable = 5; /* levels are not differences */
	p.now[0].connections = 1000000;
	p.now[1].connections = 800000;
	p.before[0].connections = 1;
	p.before[1].refused_full = 10;
	p.now[1].refused_full = 22;
	p.now[0].forced_yields = 212;
	p.now[0].link_messages_lost = 3;
	p.now[1].link_buffer_refused = 4;
	assert_line(&p, ten_s_ns,
		"sched_poll_delay_p99=0us runnable_tasks=182k accepts=9k/s closes=8.7k/s "
		"conns=1.8M "
		"gate=open admitted=90k refused=12 forced_yields=212 dropped=7");
}

/* Admission refuses after the accept: those are not among the admitted. Penalties and observations
 * refuse nobody by themselves. */
static void test_refused_by_admission(void **state)
{
	struct pair p;

	pair_init(&p);
	p.now[0].accepts = 100;
	p.before[0].verdicts[TG_DROP_RATE] = 5;
	p.now[0].verdicts[TG_DROP_RATE] = 15;
	p.now[1].accepts = 20;
	p.now[1].verdicts[TG_DROP_DENYLIST] = 3;
	p.now[1].verdicts[TG_TRACK_PENALTY_CHURN] = 7;
	p.now[1].verdicts_observed[TG_DROP_SHUT] = 7;
	p.now[1].refused_full = 2;
	assert_line(&p, ten_s_ns,
		"sched_poll_delay_p99=0us runnable_tasks=0 accepts=12/s closes=0/s conns=0 "
		"gate=open admitted=107 refused=15 forced_yields=0 dropped=0");
}

static void test_rates_follow_the_interval(void **state)
{
	struct pair p;

	pair_init(&p);
	p.now[0].accepts = 3;
	assert_line(&p, ten_s_ns,
		"sched_poll_delay_p99=0us runnable_tasks=0 accepts=0.3/s closes=0/s conns=0 "
		"gate=open "
		"admitted=3 refused=0 forced_yields=0 dropped=0");
	assert_line(&p, 500000000,
		"sched_poll_delay_p99=0us runnable_tasks=0 accepts=6/s closes=0/s conns=0 "
		"gate=open "
		"admitted=3 refused=0 forced_yields=0 dropped=0");
}

/* A worker with many quick turns must not hide one that is late, nor the past the present. */
static void test_worst_worker_of_the_interval(void **state)
{
	struct pair p;

	pair_init(&p);
	for (int i = 0; i < 1000; i++) {
		hist_add(&p.before[0].poll_delay_us, 5000000);
		hist_add(&p.now[0].poll_delay_us, 5000000);
	}
	for (int i = 0; i < 100000; i++)
		hist_add(&p.now[0].poll_delay_us, 3);
	for (int i = 0; i < 10; i++)
		hist_add(&p.now[1].poll_delay_us, 6);
	assert_line(&p, ten_s_ns,
		"sched_poll_delay_p99=6us runnable_tasks=0 accepts=0/s closes=0/s conns=0 "
		"gate=open "
		"admitted=0 refused=0 forced_yields=0 dropped=0");

	for (int i = 0; i < 10; i++)
		hist_add(&p.now[1].poll_delay_us, 36800); /* its bucket ends at 36863 */
	assert_line(&p, ten_s_ns,
		"sched_poll_delay_p99=37ms runnable_tasks=0 accepts=0/s closes=0/s conns=0 "
		"gate=open "
		"admitted=0 refused=0 forced_yields=0 dropped=0");
}

static void test_counters_gone_backwards(void **state)
{
	struct pair p;

	pair_init(&p);
	p.before[0].accepts = 100;
	p.before[0].closes[CLOSE_CLIENT] = 100;
	p.before[0].refused_full = 100;
	p.before[0].forced_yields = 100;
	p.before[0].link_messages_lost = 100;
	p.now[1].accepts = 20;
	assert_line(&p, ten_s_ns,
		"sched_poll_delay_p99=0us runnable_tasks=0 accepts=2/s closes=0/s conns=0 "
		"gate=open "
		"admitted=20 refused=0 forced_yields=0 dropped=0");
}

/* Everything at its greatest still fits. */
static void test_longest(void **state)
{
	struct pair p;
	char line[SCHEDLINE_MAX];
	struct schedline l;

	pair_init(&p);
	p.now[0].accepts = p.now[0].runnable = p.now[0].connections = UINT64_MAX;
	p.now[0].refused_full = p.now[0].forced_yields = p.now[0].link_messages_lost = UINT64_MAX;
	p.now[0].closes[CLOSE_CLIENT] = UINT64_MAX;
	hist_add(&p.now[0].poll_delay_us, UINT64_MAX);
	schedline_take(&l, p.now, p.before, 2, 1, "paced", UINT64_MAX / 2);
	size_t len = schedline_format(line, &l);
	assert_int_equal(len, strlen(line));
	assert_non_null(strstr(line, " dropped="));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_count),
		cmocka_unit_test(test_delay),
		cmocka_unit_test(test_nothing_happened),
		cmocka_unit_test(test_deltas),
		cmocka_unit_test(test_refused_by_admission),
		cmocka_unit_test(test_rates_follow_the_interval),
		cmocka_unit_test(test_worst_worker_of_the_interval),
		cmocka_unit_test(test_counters_gone_backwards),
		cmocka_unit_test(test_longest),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
