/* The order allow, deny, penalty, flood; observe mode; events; the exemption of loopback. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bpf_fixture.h"

static void expect(const char *src, uint32_t action, enum tg_verdict v)
{
	fixture_run(&(struct packet_opts){.src = src});
	if (fx->action != action)
		print_error("%s: action %u\n", src, fx->action);
	assert_int_equal(fx->action, action);
	fixture_expect(v, 1);
}

static void test_longest_match_of_either_list(void **state)
{
	FIXTURE_NEEDED();
	fixture_list(BPF_MAP_deny, "198.51.100.0/24");
	fixture_list(BPF_MAP_deny, "2001:db8:bad::/48");
	fixture_list(BPF_MAP_allow, "198.51.100.64/26");
	fixture_list(BPF_MAP_allow, "2001:db8:bad:1::/64");
	expect("198.51.99.255", XDP_PASS, TG_ADMIT_OPEN);
	expect("198.51.100.0", XDP_DROP, TG_DROP_DENYLIST);
	expect("198.51.100.63", XDP_DROP, TG_DROP_DENYLIST);
	expect("198.51.100.64", XDP_PASS, TG_ADMIT_ALLOWED);
	expect("198.51.100.127", XDP_PASS, TG_ADMIT_ALLOWED);
	expect("198.51.100.128", XDP_DROP, TG_DROP_DENYLIST);
	expect("198.51.101.0", XDP_PASS, TG_ADMIT_OPEN);
	expect("2001:db8:bad::1", XDP_DROP, TG_DROP_DENYLIST);
	expect("2001:db8:bad:1::1", XDP_PASS, TG_ADMIT_ALLOWED);
	expect("2001:db8:bae::1", XDP_PASS, TG_ADMIT_OPEN);
	/* A wider allow list wins over a narrower deny list, too: allow is looked at first. */
	fixture_list(BPF_MAP_allow, "198.51.0.0/16");
	expect("198.51.100.0", XDP_PASS, TG_ADMIT_ALLOWED);
	/* Families do not meet. */
	fixture_list(BPF_MAP_deny, "0.0.0.0/0");
	expect("203.0.113.1", XDP_DROP, TG_DROP_DENYLIST);
	expect("2001:db8::1", XDP_PASS, TG_ADMIT_OPEN);
	fixture_list(BPF_MAP_allow, "::/0");
	expect("2001:db8:bad::1", XDP_PASS, TG_ADMIT_ALLOWED);
}

static void test_penalty_of_each_tier(void **state)
{
	uint64_t later = fixture_now() + FIXTURE_HOUR_NS;

	FIXTURE_NEEDED();
	fixture_penalise("198.51.100.7", 32, later);
	fixture_penalise("203.0.113.0", 24, later);
	fixture_penalise("2001:db8:1:1::", 64, later);
	fixture_penalise("2001:db8:2:100::", 56, later);
	fixture_penalise("2001:db8:3::", 48, later);
	expect("198.51.100.7", XDP_DROP, TG_DROP_PENALTY);
	expect("198.51.100.8", XDP_PASS, TG_ADMIT_OPEN);
	expect("203.0.113.200", XDP_DROP, TG_DROP_PENALTY);
	expect("203.0.114.1", XDP_PASS, TG_ADMIT_OPEN);
	expect("2001:db8:1:1::99", XDP_DROP, TG_DROP_PENALTY);
	expect("2001:db8:1:2::99", XDP_PASS, TG_ADMIT_OPEN);
	expect("2001:db8:2:1ff::1", XDP_DROP, TG_DROP_PENALTY);
	expect("2001:db8:2:200::1", XDP_PASS, TG_ADMIT_OPEN);
	expect("2001:db8:3:ffff::1", XDP_DROP, TG_DROP_PENALTY);
	expect("2001:db8:4::1", XDP_PASS, TG_ADMIT_OPEN);
	/* A prefix of another width does not count for the one it begins like. */
	fixture_penalise("192.0.2.0", 32, later);
	expect("192.0.2.0", XDP_DROP, TG_DROP_PENALTY);
	expect("192.0.2.1", XDP_PASS, TG_ADMIT_OPEN);
	/* The lists come first. */
	fixture_list(BPF_MAP_allow, "198.51.100.7");
	fixture_list(BPF_MAP_deny, "203.0.113.200");
	expect("198.51.100.7", XDP_PASS, TG_ADMIT_ALLOWED);
	expect("203.0.113.200", XDP_DROP, TG_DROP_DENYLIST);
}

static void weigh(const char *prefix, uint32_t weight)
{
	struct tg_weight w = {.weight = weight, .origin = TG_ORIGIN_CONFIG};
	struct tg_lpm_key key = fixture_prefix(prefix);

	assert_int_equal(bpf_weight_add(fixture_fd(BPF_MAP_weights), &key, &w), 0);
}

/* Who has a weight of its own is not punished for its neighbours, nor the exempt for anything. */
static void test_penalty_and_weights(void **state)
{
	static const struct {
		const char *src;
		enum tg_verdict v;
	} rows[] = {
		{"203.0.113.6", TG_DROP_PENALTY},
		{"203.0.113.7", TG_ADMIT_OPEN},
		{"203.0.113.8", TG_ADMIT_OPEN},
		{"203.0.113.9", TG_ADMIT_OPEN},
		{"203.0.113.10", TG_DROP_PENALTY}, /* for what it did itself */
		{"198.51.100.1", TG_DROP_PENALTY}, /* all of it has the weight */
		{"2001:db8:1:1::7", TG_DROP_PENALTY},
		{"2001:db8:1:2::7", TG_ADMIT_OPEN},
	};
	const uint64_t later = fixture_now() + FIXTURE_HOUR_NS;

	FIXTURE_NEEDED();
	fx->settings.flags |= TG_SET_WEIGHTS;
	fixture_settings();
	fixture_penalise("203.0.113.0", 24, later);
	fixture_penalise("203.0.113.9", 32, later);
	fixture_penalise("203.0.113.10", 32, later);
	fixture_penalise("198.51.100.0", 24, later);
	fixture_penalise("2001:db8:1::", 48, later);
	weigh("203.0.113.7/32", TG_WEIGHT_EXEMPT);
	weigh("203.0.113.8/32", 10);
	weigh("203.0.113.9/32", TG_WEIGHT_EXEMPT);
	weigh("203.0.113.10/32", 10);
	weigh("198.51.100.0/22", 10);
	weigh("2001:db8:1:2::/64", 10);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		fixture_run(&(struct packet_opts){.src = rows[i].src});
		fixture_expect(rows[i].v, 1);
	}
}

static void test_penalty_ends(void **state)
{
	FIXTURE_NEEDED();
	fixture_penalise("198.51.100.8", 32, fixture_now() + FIXTURE_HOUR_NS);
	fixture_penalise("198.51.100.7", 32, fixture_now() - 1000000000);
	expect("198.51.100.7", XDP_PASS, TG_ADMIT_OPEN);
	expect("198.51.100.8", XDP_DROP, TG_DROP_PENALTY);
	/* A tier that the settings do not use is not looked at. */
	fixture_penalise("2001:db8:2:100::", 56, fixture_now() + FIXTURE_HOUR_NS);
	expect("2001:db8:2:100::1", XDP_DROP, TG_DROP_PENALTY);
	fx->settings.tier[1][1].len = 0;
	fixture_settings();
	expect("2001:db8:2:100::1", XDP_PASS, TG_ADMIT_OPEN);
}

/* Counts are halved when a window begins: not in the middle of these. */
static uint64_t window(void)
{
	return fixture_now() >> TG_WINDOW_SHIFT;
}

static uint64_t flood(const char *src, int syns)
{
	fixture_mark();
	fixture_run_many(&(struct packet_opts){.src = src}, syns);
	return fixture_counted(TG_DROP_FLOOD).packets;
}

static void test_flood_limit(void **state)
{
	FIXTURE_NEEDED();
	fx->settings.flood_limit = 100;
	fixture_settings();
	for (unsigned i = 1;; i++) {
		char src[32], neighbour[32];
		uint64_t began = window();
		snprintf(src, sizeof(src), "198.51.100.%u", 2 * i);
		snprintf(neighbour, sizeof(neighbour), "198.51.100.%u", 2 * i + 1);
		assert_true(i < 100);
		uint64_t first = flood(src, 200), then = flood(src, 1000),
			 others = flood(neighbour, 100);
		char host[32], other[32];
		snprintf(host, sizeof(host), "2001:db8:1:%x::1", i);
		snprintf(other, sizeof(other), "2001:db8:1:%x:1::", i);
		uint64_t v6 = flood(host, 150) + flood(other, 150);
		if (window() != began)
			continue;
		/* Twice the limit in a window; then nothing. One source is one prefix. */
		assert_int_equal(first, 0);
		assert_int_equal(then, 1000);
		assert_int_equal(others, 0);
		assert_true(v6 >= 90 && v6 <= 100);
		break;
	}
	assert_int_equal(fixture_proven(), 0);
}

/* Who counts for a window that another CPU has begun, by a clock that is not there yet, does not
 * put back what was counted. */
static void test_flood_across_a_window(void **state)
{
	uint64_t before, then, began;

	FIXTURE_NEEDED();
	fx->settings.flood_limit = 100;
	fixture_settings();
	for (unsigned i = 1;; i++) {
		char src[32];
		struct tg_pace p;
		assert_true(i < 100);
		snprintf(src, sizeof(src), "198.51.100.%u", i);
		fixture_run(&(struct packet_opts){.src = "203.0.113.9"}); /* the window is begun */
		p = fixture_pace();
		began = window();
		p.window = began + 1;
		fixture_set_pace(&p);
		before = flood(src, 150);
		if (window() != began)
			continue;
		while (window() == began)
			;
		then = flood(src, 100);
		if (window() == began + 1)
			break;
	}
	/* 250 in one window, where 200 are let in. */
	assert_int_equal(before, 0);
	assert_true(then >= 40 && then <= 50);
}

static void test_flood_of_one_leaves_no_state(void **state)
{
	FIXTURE_NEEDED();
	fx->settings.flood_limit = 1;
	fixture_settings();
	for (unsigned i = 0; i < 256; i++) {
		char src[32];
		snprintf(src, sizeof(src), "198.51.100.%u", i);
		fixture_run_many(&(struct packet_opts){.src = src}, 50);
	}
	assert_int_equal(fixture_proven(), 0);
	assert_int_equal(fixture_entries(BPF_MAP_open), 0);
	assert_int_equal(fixture_entries(BPF_MAP_penalty), 0);
}

static void test_weight_raises_the_flood_limit(void **state)
{
	struct tg_lpm_key net = fixture_prefix("198.51.100.0/24"),
			  proxy = fixture_prefix("203.0.113.1");
	uint64_t began, weighted, exempt;

	FIXTURE_NEEDED();
	bpf_weight_add(fixture_fd(BPF_MAP_weights), &net, &(struct tg_weight){.weight = 5});
	bpf_weight_add(fixture_fd(BPF_MAP_weights), &proxy,
		&(struct tg_weight){.weight = TG_WEIGHT_EXEMPT});
	fx->settings.flood_limit = 100;
	fx->settings.flags |= TG_SET_WEIGHTS;
	fixture_settings();
	for (unsigned i = 1;; i++) {
		char src[32];
		assert_true(i < 100);
		snprintf(src, sizeof(src), "198.51.100.%u", i);
		began = window();
		weighted = flood(src, 1100);
		exempt = flood("203.0.113.1", 20000);
		if (window() == began)
			break;
	}
	/* Collisions are allowed for, by what was seen lately. */
	assert_true(weighted >= 90 && weighted <= 100);
	assert_int_equal(exempt, 0);
}

static void test_observe_refuses_nobody(void **state)
{
	struct tg_verdict_count n;

	FIXTURE_NEEDED();
	fx->settings.flags |= TG_SET_OBSERVE | TG_SET_RESET;
	fixture_settings();
	fixture_list(BPF_MAP_deny, "198.51.100.0/24");
	fixture_penalise("203.0.113.1", 32, fixture_now() + FIXTURE_HOUR_NS);
	assert_int_equal(fixture_run(&(struct packet_opts){.src = "198.51.100.1"}), XDP_PASS);
	n = fixture_counted(TG_DROP_DENYLIST);
	assert_int_equal(n.packets, 0);
	assert_int_equal(n.observed, 1);
	assert_int_equal(fixture_run(&(struct packet_opts){.src = "203.0.113.1"}), XDP_PASS);
	n = fixture_counted(TG_DROP_PENALTY);
	assert_int_equal(n.packets, 0);
	assert_int_equal(n.observed, 1);
	assert_int_equal(fixture_counted(TG_RESET_SENT).packets, 0);
	assert_int_equal(fixture_run(&(struct packet_opts){.src = "192.0.2.9"}), XDP_PASS);
	assert_int_equal(fixture_counted(TG_ADMIT_OPEN).packets, 1);
}

static void test_loopback_is_exempt_on_lo_only(void **state)
{
	FIXTURE_NEEDED();
	fx->settings.flags |= TG_SET_EXEMPT_LOOPBACK;
	fixture_settings();
	for (unsigned i = 0; i < 2; i++) {
		fixture_penalise(
			i ? "::1" : "127.0.0.5", i ? 64 : 32, fixture_now() + FIXTURE_HOUR_NS);
		expect(i ? "::1" : "127.0.0.5", XDP_PASS, TG_ADMIT_OPEN);
	}
	/* Not ::2, though it is of the same prefix. */
	expect("::2", XDP_DROP, TG_DROP_PENALTY);
	/* The operator's lists hold for everybody. */
	fixture_list(BPF_MAP_deny, "127.0.0.0/8");
	expect("127.0.0.5", XDP_DROP, TG_DROP_DENYLIST);
}

/* ---- events ---- */

static struct tg_event event;
static unsigned events;

static int take_event(void *ctx, void *data, size_t len)
{
	assert_int_equal(len, sizeof(event));
	event = *(struct tg_event *)data;
	events++;
	return 0;
}

static void test_events_are_limited(void **state)
{
	FIXTURE_NEEDED();
	struct ring_buffer *ring =
		ring_buffer__new(fixture_fd(BPF_MAP_events), take_event, NULL, NULL);

	assert_non_null(ring);
	events = 0;
	fx->settings.event_interval_ns = FIXTURE_HOUR_NS;
	fx->settings.event_burst_ns = 3 * FIXTURE_HOUR_NS;
	fixture_settings();
	fixture_list(BPF_MAP_deny, "198.51.100.0/24");
	fixture_run(&(struct packet_opts){.src = "198.51.100.9"});
	assert_int_equal(ring_buffer__consume(ring), 1);
	assert_int_equal(event.verdict, TG_DROP_DENYLIST);
	assert_int_equal(event.observed, 0);
	assert_int_equal(event.port, 8080);
	assert_int_equal(event.ifindex, 1);
	assert_int_equal(event.source_len, 128);
	struct tg_lpm_key want = fixture_prefix("198.51.100.9");
	assert_memory_equal(event.source, want.addr, 16);
	fixture_run_many(&(struct packet_opts){.src = "198.51.100.9"}, 1000);
	assert_int_equal(ring_buffer__consume(ring), 2);
	assert_int_equal(fixture_counted(TG_EVENT_SENT).packets, 3);
	assert_int_equal(fixture_counted(TG_DROP_DENYLIST).packets, 1001);
	/* Nobody who is admitted makes one. */
	fixture_run_many(&(struct packet_opts){.src = "192.0.2.1"}, 10);
	assert_int_equal(ring_buffer__consume(ring), 0);
	/* A full buffer is counted. */
	fx->settings.event_interval_ns = 1;
	fx->settings.event_burst_ns = UINT64_MAX / 4;
	fixture_settings();
	fixture_run_many(&(struct packet_opts){.src = "198.51.100.9"}, 10000);
	assert_true(fixture_counted(TG_EVENT_LOST).packets > 0);
	assert_int_equal(
		fixture_counted(TG_EVENT_LOST).packets + fixture_counted(TG_EVENT_SENT).packets,
		10003);
	ring_buffer__free(ring);
	assert_int_equal(events, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		fixture_test(test_longest_match_of_either_list),
		fixture_test(test_penalty_of_each_tier),
		fixture_test(test_penalty_and_weights),
		fixture_test(test_penalty_ends),
		fixture_test(test_flood_limit),
		fixture_test(test_flood_across_a_window),
		fixture_test(test_flood_of_one_leaves_no_state),
		fixture_test(test_weight_raises_the_flood_limit),
		fixture_test(test_observe_refuses_nobody),
		fixture_test(test_loopback_is_exempt_on_lo_only),
		fixture_test(test_events_are_limited),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
