#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "track_fixture.h"

static void test_concurrency(void **state)
{
	struct kernel *k = kernel_of(state);
	struct tg_penalty box;

	start(k, NULL);
	k->settings.tier[0][0].open_limit = 5;
	k->settings.tier[1][0].open_limit = 5;
	k->settings.tier[0][1].open_limit = 20;
	kernel_write_settings(k);
	int listener = listen_both();
	connect_some(k, "10.7.0.1", 5);
	connect_some(k, "fd07::1", 5);
	assert_int_equal(kernel_entries(k, BPF_MAP_penalty), 0);
	connect_some(k, "10.7.0.1", 1);
	assert_true(kernel_penalty_comes(k, "10.7.0.1/32", &box));
	assert_int_equal(box.reason, TG_PENALTY_CONCURRENCY);
	assert_int_equal(box.strikes, 1);
	assert_int_equal(box.until_ns - box.since_ns, k->settings.penalty_ns);
	assert_int_equal(kernel_pace(k).penalty_until_ns, box.until_ns);
	assert_int_equal(kernel_filter(k, "10.7.0.1/32"), box.until_ns);
	assert_int_equal(kernel_filter(k, "10.7.0.2/32"), 0);
	/* While it is in there, more of the same is no repetition. */
	connect_some(k, "10.7.0.1", 2);
	assert_true(kernel_penalty_comes(k, "10.7.0.1/32", &box));
	assert_int_equal(box.strikes, 1);
	assert_int_equal(kernel_entries(k, BPF_MAP_penalty), 1);
	assert_int_equal(kernel_count(k, TG_TRACK_PENALTY_OPEN, false), 1);

	/* Its own limit is the /24's business only together with its neighbours. */
	for (unsigned i = 2; i < 5; i++) {
		char from[64];
		snprintf(from, sizeof(from), "10.7.0.%u", i);
		assert_false(kernel_penalty(k, "10.7.0.0/24", &box));
		connect_some(k, from, 5);
	}
	assert_true(kernel_penalty_comes(k, "10.7.0.0/24", &box));
	assert_false(kernel_penalty(k, "10.7.0.3/32", &box));
	assert_int_equal(kernel_pace(k).penalty_until_ns, box.until_ns);
	assert_int_equal(kernel_filter(k, "10.7.0.0/24"), box.until_ns);
	connect_some(k, "fd07::2", 1); /* of the same /64 */
	assert_true(kernel_penalty_comes(k, "fd07::/64", &box));
	close(listener);
	stop(k);
}

/* Opens and closes. */
static void churn(struct kernel *k, int listener, const char *from, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		uint64_t closed = kernel_pace(k).closed;
		connect_some(k, from, 1);
		CROWD_UNTIL(kernel_accept(k, listener) == 1);
		kernel_close(k);
		CROWD_UNTIL(kernel_pace(k).closed == closed + 1);
	}
}

/* `events` at once and one more every hour: in a test, none more. */
static void limit_churn(struct kernel *k, unsigned family, unsigned tier, unsigned events)
{
	struct tg_tier *t = &k->settings.tier[family][tier];

	t->churn_interval_ns = 3600 * SEC;
	t->churn_burst_ns = events * t->churn_interval_ns;
	kernel_write_settings(k);
}

/* Each tier alone: sources that differ below it share its limit, those beside it do not. */
static void test_churn_by_tier(void **state)
{
	static const struct {
		unsigned family, tier;
		const char *in[3], *beside, *box;
	} rows[] = {
		{0, 0, {"10.7.0.1", "10.7.0.1", "10.7.0.1"}, "10.7.0.2", "10.7.0.1/32"},
		{0, 1, {"10.7.0.1", "10.7.0.2", "10.7.0.3"}, "10.7.1.1", "10.7.0.0/24"},
		{1, 0, {"fd07::1", "fd07::2", "fd07::3"}, "fd07:0:0:1::1", "fd07::/64"},
		{1, 1, {"fd07::1", "fd07:0:0:1::1", "fd07:0:0:2::1"}, "fd07:0:0:100::1",
			"fd07::/56"},
		{1, 2, {"fd07::1", "fd07:0:0:100::1", "fd07:0:0:200::1"}, "fd07:0:1::1",
			"fd07::/48"},
	};
	struct kernel *k = kernel_of(state);

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct tg_penalty box;

		start(k, NULL);
		limit_churn(k, rows[i].family, rows[i].tier, 5);
		int listener = listen_both();
		churn(k, listener, rows[i].in[0], 1);
		churn(k, listener, rows[i].in[1], 1);
		churn(k, listener, rows[i].beside, 2);
		assert_int_equal(kernel_entries(k, BPF_MAP_penalty), 0);
		churn(k, listener, rows[i].in[2], 1); /* its close is the sixth event */
		assert_int_equal(kernel_entries(k, BPF_MAP_penalty), 1);
		assert_true(kernel_penalty_comes(k, rows[i].box, &box));
		assert_int_equal(box.reason, TG_PENALTY_CHURN);
		assert_int_equal(box.until_ns, kernel_pace(k).penalty_until_ns);
		assert_int_equal(box.until_ns, kernel_filter(k, rows[i].box));
		assert_int_equal(kernel_count(k, TG_TRACK_PENALTY_CHURN, false), 1);
		close(listener);
		stop(k);
	}
}

static void wait_past(uint64_t time_ns)
{
	while (crowd_now_ns() <= time_ns)
		crowd_sleep_ms(1);
}

static void test_escalation(void **state)
{
	struct kernel *k = kernel_of(state);
	const uint64_t first = SEC / 20, longest = 3 * first;
	const uint64_t lengths[] = {first, 2 * first, longest, longest};
	struct tg_penalty box;

	start(k, NULL);
	k->settings.penalty_ns = first;
	k->settings.penalty_max_ns = longest;
	limit_churn(k, 0, 0, 1);
	int listener = listen_both();
	for (uint32_t i = 0; i < 4; i++) {
		churn(k, listener, "10.7.0.1", 1);
		assert_true(kernel_penalty_comes(k, "10.7.0.1/32", &box));
		assert_int_equal(box.until_ns - box.since_ns, lengths[i]);
		/* Outside for as long as the longest time: then it is forgotten. A busy machine
		 * may take that long for a connection. */
		if (i && box.strikes == 1)
			break;
		assert_int_equal(box.strikes, i + 1);
		wait_past(box.until_ns);
	}
	wait_past(box.until_ns + longest);
	churn(k, listener, "10.7.0.1", 1);
	assert_true(kernel_penalty_comes(k, "10.7.0.1/32", &box));
	assert_int_equal(box.strikes, 1);
	assert_int_equal(box.until_ns - box.since_ns, first);

	/* No time: nobody is put there. */
	k->settings.penalty_ns = 0;
	kernel_write_settings(k);
	churn(k, listener, "10.7.0.9", 2);
	assert_false(kernel_penalty(k, "10.7.0.9/32", &box));
	close(listener);
	stop(k);
}

static void test_weights(void **state)
{
	struct kernel *k = kernel_of(state);
	struct tg_penalty box;

	start(k, NULL);
	k->settings.flags |= TG_SET_WEIGHTS;
	k->settings.tier[0][0].open_limit = 3;
	k->settings.tier[0][1].open_limit = 6;
	limit_churn(k, 0, 0, 20);
	kernel_weight(k, "10.7.0.1/32", 4);                /* a proxy in a /24 of others */
	kernel_weight(k, "10.7.0.2/32", TG_WEIGHT_EXEMPT); /* a trusted one */
	kernel_weight(k, "10.7.4.0/22", 3);                /* a CGNAT, of four /24 */
	int listener = listen_both();
	connect_some(k, "10.7.0.1", 12);
	connect_some(k, "10.7.0.2", 50);
	connect_some(k, "10.7.0.3", 3);
	connect_some(k, "10.7.0.4", 3);
	connect_some(k, "10.7.5.1", 9);
	connect_some(k, "10.7.5.2", 9);
	assert_int_equal(kernel_entries(k, BPF_MAP_penalty), 0);
	connect_some(k, "10.7.0.1", 1);
	assert_true(kernel_penalty_comes(k, "10.7.0.1/32", &box));
	connect_some(k, "10.7.5.1", 1); /* the tenth of it, and the 19th of its /24 */
	assert_true(kernel_penalty_comes(k, "10.7.5.1/32", &box));
	assert_true(kernel_penalty_comes(k, "10.7.5.0/24", &box));
	assert_int_equal(kernel_entries(k, BPF_MAP_penalty), 3);
	/* The proxies' connections do not count against their neighbours. */
	connect_some(k, "10.7.0.5", 1);
	assert_true(kernel_penalty_comes(k, "10.7.0.0/24", &box));
	assert_false(kernel_penalty(k, "10.7.0.5/32", &box));
	/* admit finds the weight beside the source. */
	struct tg_source s;
	assert_true(kernel_source(k, "10.7.0.1/32", &s));
	assert_int_equal(s.weight, 4);
	assert_true(kernel_source(k, "10.7.0.3/32", &s));
	assert_int_equal(s.weight, 1);
	kernel_accept(k, listener);
	uint64_t open = k->clients;
	kernel_close(k);
	CROWD_UNTIL(kernel_pace(k).closed == open);
	assert_int_equal(kernel_entries(k, BPF_MAP_open), 0);
	/* 13 + 13 of 4 x 20 events, but 53 of 20 for nobody: exempt. */
	assert_false(kernel_penalty(k, "10.7.0.2/32", &box));
	close(listener);
	stop(k);
}

static void test_loopback(void **state)
{
	struct kernel *k = kernel_of(state);
	struct tg_penalty box;

	for (unsigned exempt = 0; exempt < 2; exempt++) {
		start(k, NULL);
		if (!exempt)
			k->settings.flags &= ~(uint32_t)TG_SET_EXEMPT_LOOPBACK;
		k->settings.tier[0][0].open_limit = 3;
		k->settings.tier[1][0].open_limit = 3;
		kernel_write_settings(k);
		int listener = listen_both();
		for (unsigned i = 0; i < 10; i++) {
			k->client[k->clients++] =
				crowd_connect_here("127.0.0.9", 0, "127.0.0.1", KERNEL_PORT);
			k->client[k->clients++] = crowd_connect_here("::1", 0, "::1", KERNEL_PORT);
		}
		assert_int_equal(kernel_open(k, "127.0.0.9/32"), 10);
		assert_int_equal(kernel_penalty(k, "127.0.0.9/32", &box), !exempt);
		assert_int_equal(kernel_penalty(k, "::/64", &box), !exempt);
		close(listener);
		stop(k);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_concurrency),
		cmocka_unit_test(test_churn_by_tier),
		cmocka_unit_test(test_escalation),
		cmocka_unit_test(test_weights),
		cmocka_unit_test(test_loopback),
	};
	return cmocka_run_group_tests(tests, kernel_begin, kernel_end);
}
