/* The gate: stale, shut, permits, rate, newcomers, fair shares. Intervals of hours, so that the
 * time a test takes does not matter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>

#include "bpf_fixture.h"

#define HOUR FIXTURE_HOUR_NS
/* Between two SYNs of a test there is less. */
#define MINUTE (HOUR / 60)

static void expect(const char *src, uint32_t action, enum tg_verdict v)
{
	fixture_run(&(struct packet_opts){.src = src});
	if (fx->action != action)
		print_error("%s: action %u\n", src, fx->action);
	assert_int_equal(fx->action, action);
	fixture_expect(v, 1);
}

/* n SYNs at once: how many of them had this verdict. */
static uint64_t burst_of(const char *src, int n, enum tg_verdict v)
{
	fixture_mark();
	fixture_run_many(&(struct packet_opts){.src = src}, n);
	return fixture_counted(v).packets;
}

/* Without fair shares and flood limit. */
static void pace(uint64_t interval_ns, uint64_t burst_ns, uint64_t new_interval_ns)
{
	fx->settings.flags &= ~(uint32_t)TG_SET_FAIR;
	fx->settings.flood_limit = 0;
	fixture_settings();
	fx->gate = (struct tg_gate){.state = TG_GATE_PACED,
		.interval_ns = interval_ns,
		.burst_ns = burst_ns,
		.new_interval_ns = new_interval_ns};
	fixture_gate();
}

static void test_open_without_a_governor(void **state)
{
	FIXTURE_NEEDED();
	expect("192.0.2.1", XDP_PASS, TG_ADMIT_OPEN);
	expect("2001:db8::1", XDP_PASS, TG_ADMIT_OPEN);
}

static void test_shut(void **state)
{
	FIXTURE_NEEDED();
	fx->gate = (struct tg_gate){.state = TG_GATE_SHUT, .reason = TG_GATE_BY_MEMORY};
	fixture_gate();
	fixture_prove("192.0.2.1", 32, 0);
	fixture_list(BPF_MAP_allow, "198.51.100.1");
	expect("192.0.2.1", XDP_DROP, TG_DROP_SHUT);
	expect("2001:db8::1", XDP_DROP, TG_DROP_SHUT);
	expect("198.51.100.1", XDP_PASS, TG_ADMIT_ALLOWED);
}

static void test_stale_gate_is_open_but_lists_hold(void **state)
{
	uint32_t zero = 0;

	FIXTURE_NEEDED();
	fx->settings.stale_ns = 1000000000;
	fixture_settings();
	fx->gate = (struct tg_gate){
		.state = TG_GATE_SHUT, .permits = 1, .heartbeat_ns = fixture_now() - 2000000000};
	fixture_write(BPF_MAP_gate, &zero, &fx->gate);
	fixture_penalise("203.0.113.1", 32, fixture_now() + HOUR);
	fixture_list(BPF_MAP_deny, "198.51.100.1");
	expect("192.0.2.1", XDP_PASS, TG_ADMIT_OPEN);
	expect("203.0.113.1", XDP_DROP, TG_DROP_PENALTY);
	expect("198.51.100.1", XDP_DROP, TG_DROP_DENYLIST);
	/* It is the age that matters, and its bound is a setting. */
	fx->settings.stale_ns = HOUR;
	fixture_settings();
	expect("192.0.2.1", XDP_DROP, TG_DROP_SHUT);
	/* A heartbeat ahead of the coarse clock is not an old one. */
	fx->gate.heartbeat_ns = fixture_now() + HOUR;
	fixture_write(BPF_MAP_gate, &zero, &fx->gate);
	expect("192.0.2.1", XDP_DROP, TG_DROP_SHUT);
}

static void serve(uint32_t worker, uint64_t n)
{
	struct tg_worker_load w = {.heartbeat_ns = 1, .served = n};

	fixture_write(BPF_MAP_worker_load, &worker, &w);
}

static void test_permits_are_a_level(void **state)
{
	struct tg_pace p = {.established = 110, .unserved = 3};

	FIXTURE_NEEDED();
	fx->settings.workers = 2;
	fixture_settings();
	fx->gate = (struct tg_gate){.permits = 3, .permits_base = 100};
	fixture_gate();
	fixture_set_pace(&p);
	serve(0, 4);
	serve(1, 3);
	serve(2, 1000); /* not in use */
	expect("192.0.2.1", XDP_DROP, TG_DROP_PERMITS);
	/* A SYN admitted takes none: it may never complete. */
	serve(1, 4);
	assert_int_equal(burst_of("192.0.2.1", 50, TG_ADMIT_OPEN), 50);
	fixture_mark();
	assert_int_equal(fixture_pace().unserved, 2);
	/* track says how many there are; then the workers' counts are added up again. */
	p = fixture_pace();
	p.established = 120;
	p.unserved = 12;
	fixture_set_pace(&p);
	expect("192.0.2.1", XDP_DROP, TG_DROP_PERMITS);
	assert_int_equal(fixture_pace().unserved, 12);
	/* More served than established: counted too early, no debt. */
	serve(0, 500);
	expect("192.0.2.1", XDP_PASS, TG_ADMIT_OPEN);
	assert_int_equal(fixture_pace().unserved, 0);
	/* 0 is no limit. */
	fx->gate.permits = 0;
	fixture_gate();
	p.unserved = 1000000;
	fixture_set_pace(&p);
	expect("192.0.2.1", XDP_PASS, TG_ADMIT_OPEN);
}

static void test_rate(void **state)
{
	FIXTURE_NEEDED();
	pace(HOUR, 5 * HOUR, 0);
	assert_int_equal(burst_of("192.0.2.1", 3, TG_ADMIT_PACED), 3);
	assert_int_equal(burst_of("2001:db8::1", 20, TG_ADMIT_PACED), 2);
	assert_int_equal(burst_of("198.51.100.1", 20, TG_DROP_RATE), 20);
	/* Not from the allow list. */
	fixture_list(BPF_MAP_allow, "198.51.100.1");
	assert_int_equal(burst_of("198.51.100.1", 20, TG_ADMIT_ALLOWED), 20);
	assert_int_equal(fixture_proven(), 0);
}

static void test_rate_comes_back_with_time_but_no_more_than_the_burst(void **state)
{
	struct tg_pace p;

	FIXTURE_NEEDED();
	pace(HOUR, 5 * HOUR, 0);
	assert_int_equal(burst_of("192.0.2.1", 20, TG_ADMIT_PACED), 5);
	/* Two hours and a bit pass. */
	p = fixture_pace();
	p.tat_ns -= 2 * HOUR + MINUTE;
	fixture_set_pace(&p);
	assert_int_equal(burst_of("192.0.2.1", 20, TG_ADMIT_PACED), 2);
	/* Months. */
	p = fixture_pace();
	p.tat_ns = 1;
	fixture_set_pace(&p);
	assert_int_equal(burst_of("192.0.2.1", 20, TG_ADMIT_PACED), 5);
}

static void test_a_slow_rate_leaves_no_debt(void **state)
{
	struct tg_pace p;

	FIXTURE_NEEDED();
	pace(HOUR, 2 * HOUR, 0);
	p = fixture_pace();
	p.tat_ns = fixture_now() + 1000 * HOUR;
	fixture_set_pace(&p);
	expect("192.0.2.1", XDP_DROP, TG_DROP_RATE);
	assert_true(fixture_pace().tat_ns <= fixture_now() + 2 * HOUR);
	p = fixture_pace();
	p.tat_ns -= HOUR + MINUTE;
	fixture_set_pace(&p);
	expect("192.0.2.1", XDP_PASS, TG_ADMIT_PACED);
	expect("192.0.2.1", XDP_DROP, TG_DROP_RATE);
}

static void test_a_burst_below_the_interval_still_admits(void **state)
{
	FIXTURE_NEEDED();
	pace(HOUR, 1, 0);
	assert_int_equal(burst_of("192.0.2.1", 20, TG_ADMIT_PACED), 1);
}

static void test_state_and_interval_make_the_rate(void **state)
{
	FIXTURE_NEEDED();
	pace(HOUR, HOUR, 0);
	fx->gate.state = TG_GATE_OPEN;
	fixture_gate();
	assert_int_equal(burst_of("192.0.2.1", 20, TG_ADMIT_OPEN), 20);
	fx->gate.state = TG_GATE_PACED;
	fx->gate.interval_ns = 0;
	fixture_gate();
	assert_int_equal(burst_of("192.0.2.1", 20, TG_ADMIT_OPEN), 20);
}

/* Half is reserved: newcomers get 5 of 10, however often they try; proven ones all the rest. */
static void test_newcomers_leave_the_reserve(void **state)
{
	FIXTURE_NEEDED();
	pace(HOUR, 10 * HOUR, 2 * HOUR);
	fixture_prove("203.0.113.7", 32, 0);
	assert_int_equal(burst_of("192.0.2.1", 1000, TG_ADMIT_PACED), 5);
	assert_int_equal(burst_of("2001:db8::1", 1000, TG_DROP_NEWCOMER), 1000);
	assert_int_equal(burst_of("203.0.113.7", 3, TG_ADMIT_PACED), 3);
	assert_int_equal(burst_of("203.0.113.8", 10, TG_DROP_NEWCOMER), 10);
	assert_int_equal(burst_of("203.0.113.7", 10, TG_ADMIT_PACED), 2);
	assert_int_equal(burst_of("203.0.113.7", 10, TG_DROP_RATE), 10);
	assert_int_equal(fixture_proven(), 1);
}

/* What proven ones use, newcomers do not have beside their own part. */
static void test_newcomers_share_the_whole_rate(void **state)
{
	FIXTURE_NEEDED();
	pace(HOUR, 10 * HOUR, 2 * HOUR);
	fixture_prove("203.0.113.7", 32, 0);
	assert_int_equal(burst_of("203.0.113.7", 8, TG_ADMIT_PACED), 8);
	assert_int_equal(burst_of("192.0.2.1", 10, TG_ADMIT_PACED), 2);
	assert_int_equal(burst_of("192.0.2.1", 10, TG_DROP_RATE), 10);
	/* Refusals cost the newcomers' part nothing: 3 of its 5 are left when the rate is back. */
	struct tg_pace p = fixture_pace();
	p.tat_ns = 1;
	fixture_set_pace(&p);
	assert_int_equal(burst_of("192.0.2.1", 10, TG_ADMIT_PACED), 3);
}

/* The clock of the rate is so far ahead, less a minute. */
static void set_ahead(uint64_t ahead_ns)
{
	struct tg_pace p = fixture_pace();

	p.tat_ns = fixture_now() + ahead_ns - MINUTE;
	p.new_tat_ns = 0;
	fixture_set_pace(&p);
}

static void fair(uint64_t interval_ns, uint64_t burst_ns)
{
	pace(interval_ns, burst_ns, 0);
	fx->settings.flags |= TG_SET_FAIR;
	fx->settings.source_burst = 4;
	fixture_settings();
}

/* The farther a source is above its share, the less of the burst it has. A share of 10 s, which is
 * the longest: 4 connections within it, 2 more up to one and a half, 2 more up to twice the
 * source's burst. */
static void test_fair_share(void **state)
{
	FIXTURE_NEEDED();
	fair(HOUR, 100 * HOUR);
	fixture_prove("192.0.2.1", 32, 0);
	fixture_prove("192.0.2.2", 32, 0);
	fixture_prove("2001:db8::", 64, 0);
	assert_int_equal(burst_of("192.0.2.1", 1000, TG_ADMIT_PACED), 25);
	assert_int_equal(burst_of("192.0.2.1", 1000, TG_DROP_SHARE), 1000);
	assert_int_equal(burst_of("192.0.2.2", 1000, TG_ADMIT_PACED), 8);
	assert_int_equal(burst_of("2001:db8::9", 3, TG_ADMIT_PACED), 3);
	assert_int_equal(burst_of("2001:db8::10", 1000, TG_ADMIT_PACED), 3);
	assert_int_equal(burst_of("2001:db8::11", 3, TG_DROP_SHARE), 3);
	/* The refused are not charged: with the burst back, all begins again. */
	set_ahead(0);
	assert_int_equal(burst_of("192.0.2.1", 1000, TG_ADMIT_PACED), 25);
}

/* As if it had been given so many tenths of its share, of 10 s, ahead of time. */
static void set_given(const char *address, int tenths)
{
	struct bpf_proven_place p;

	fixture_prove(address, 32, 0);
	p = fixture_share(address, 32);
	p.entry.share[p.way].tat_ns = fixture_now() + tenths * 1000000000LL;
	fixture_write(BPF_MAP_proven, &p.index, &p.entry);
}

/* Who had less may use more of the burst, also within the share: or those that happen to come first
 * each time would take all. */
static void test_ranks(void **state)
{
	static const struct {
		int tenths; /* of its share that it is ahead before this one, with a burst of 4 */
		unsigned sixteenths;
		enum tg_verdict refused;
	} rows[] = {
		{-1000, 15, TG_DROP_RATE},
		{-15, 15, TG_DROP_RATE},
		{-5, 14, TG_DROP_RATE},
		{5, 13, TG_DROP_RATE},
		{15, 12, TG_DROP_RATE},
		{25, 11, TG_DROP_RATE},
		{28, 11, TG_DROP_RATE},
		{35, 8, TG_DROP_SHARE},
		{45, 8, TG_DROP_SHARE},
		{55, 6, TG_DROP_SHARE},
		{65, 6, TG_DROP_SHARE},
		{75, 4, TG_DROP_SHARE},
	};

	FIXTURE_NEEDED();
	fair(HOUR, 160 * HOUR);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (int beyond = 0; beyond < 2; beyond++) {
			enum tg_verdict v = beyond ? rows[i].refused : TG_ADMIT_PACED;

			set_given("192.0.2.1", rows[i].tenths);
			set_ahead(10 * HOUR * rows[i].sixteenths - !beyond * HOUR);
			if (burst_of("192.0.2.1", 1, v) != 1) {
				print_error("%d tenths, %s\n", rows[i].tenths,
					beyond ? "beyond" : "within");
				fail();
			}
		}
	}
}

/* What proven sources may use of the burst ends before what newcomers may, or nobody would be
 * proven any more while they use it all; and the other way round there is the reserve. */
static void test_neither_proven_ones_nor_newcomers_take_all(void **state)
{
	FIXTURE_NEEDED();
	fair(HOUR, 100 * HOUR);
	fx->settings.source_burst = 1000;
	fixture_settings();
	fixture_prove("192.0.2.1", 32, 0);
	for (unsigned reserve = 0; reserve < 2; reserve++) {
		fx->gate.new_interval_ns = reserve ? 2 * HOUR : 0;
		fixture_gate();
		set_ahead(0);
		assert_int_equal(burst_of("192.0.2.1", 1000, TG_ADMIT_PACED), 81);
		assert_int_equal(burst_of("192.0.2.1", 1000, TG_DROP_RATE), 1000);
		assert_int_equal(burst_of("203.0.113.1", 8, TG_ADMIT_PACED), 8);
		assert_int_equal(burst_of("203.0.113.2", 8, TG_ADMIT_PACED), 8);
		assert_int_equal(burst_of("203.0.113.3", 8, TG_ADMIT_PACED), 3);
		assert_int_equal(burst_of("203.0.113.3", 8, TG_DROP_RATE), 8);
	}
	set_ahead(0);
	assert_int_equal(burst_of("203.0.113.4", 1000, TG_ADMIT_PACED), 50);
	assert_int_equal(burst_of("203.0.113.5", 1000, TG_DROP_NEWCOMER), 1000);
	assert_int_equal(burst_of("192.0.2.1", 1000, TG_ADMIT_PACED), 31);
}

/* Newcomers that try often leave half of their rate's burst to those that do not. */
static void test_newcomers_that_try_often(void **state)
{
	FIXTURE_NEEDED();
	fair(HOUR, 100 * HOUR);
	fx->gate.new_interval_ns = 2 * HOUR;
	fixture_gate();
	assert_int_equal(burst_of("203.0.113.1", 1000, TG_ADMIT_PACED), 25);
	assert_int_equal(burst_of("203.0.113.1", 1000, TG_DROP_SHARE), 1000);
	assert_int_equal(burst_of("203.0.113.2", 4, TG_ADMIT_PACED), 4);
}

/* The share is the rate by all that try; however many newcomers there are, proven ones have the
 * reserve, and newcomers what that leaves. */
static void test_the_share_of_many(void **state)
{
	static const struct {
		unsigned proven, newcomers;
		uint64_t interval_ms, new_interval_us, share_ms;
	} rows[] = {
		{100, 0, 10, 0, 1000}, {100, 0, 10, 12500, 1000}, {100, 100, 10, 0, 2000},
		{100, 100, 10, 12500, 2000}, {10, 990, 10, 0, 9990 + 10},
		{10, 990, 10, 12500, 10 * 50}, /* a fifth is reserved: 50 ms */
		{10, 990, 10, 20000, 10 * 20}, /* a half */
		{10, 100000, 10, 0, 10000},    /* the longest there is */
	};

	FIXTURE_NEEDED();
	fair(HOUR, 100 * HOUR);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct tg_share s;
		struct bpf_proven_place place;
		struct tg_pace p = {.active_last = {rows[i].proven, rows[i].newcomers}};
		uint64_t before, after;
		char src[32];

		fx->gate.interval_ns = rows[i].interval_ms * 1000000;
		fx->gate.burst_ns = 100 * fx->gate.interval_ns;
		fx->gate.new_interval_ns = rows[i].new_interval_us * 1000;
		fixture_gate();
		for (unsigned tries = 0;; tries++) {
			assert_true(tries < 20);
			snprintf(src, sizeof(src), "192.0.%u.%u", i, tries);
			fixture_prove(src, 32, 0);
			before = fixture_now();
			p.window = before >> TG_WINDOW_SHIFT;
			fixture_set_pace(&p);
			fixture_run(&(struct packet_opts){.src = src});
			after = fixture_now();
			if (fixture_pace().window == p.window)
				break;
		}
		place = fixture_share(src, 32);
		s = place.entry.share[place.way];
		/* From the last tick on, which may have been before. */
		uint64_t least = before - MINUTE / 60 + rows[i].share_ms * 1000000;
		if (s.tat_ns < least || s.tat_ns > after + rows[i].share_ms * 1000000)
			print_error(
				"row %u: %lld ms\n", i, (long long)(s.tat_ns - before) / 1000000);
		assert_true(s.tat_ns >= least);
		assert_true(s.tat_ns <= after + rows[i].share_ms * 1000000);
	}
}

static void test_weight_of_a_proven_source(void **state)
{
	FIXTURE_NEEDED();
	fair(HOUR, 100 * HOUR);
	fixture_prove("192.0.2.1", 32, 0);
	fixture_prove("192.0.2.2", 32, 3);
	fixture_prove("192.0.2.3", 32, TG_WEIGHT_EXEMPT);
	assert_int_equal(burst_of("192.0.2.1", 1000, TG_ADMIT_PACED), 25);
	/* A share of a third of the time, as often ahead. */
	assert_int_equal(burst_of("192.0.2.2", 1000, TG_ADMIT_PACED), 8);
	assert_int_equal(burst_of("192.0.2.3", 1000, TG_ADMIT_PACED), 67);
}

/* Newcomers are judged by their tries. */
static void test_fair_share_of_newcomers(void **state)
{
	FIXTURE_NEEDED();
	fair(HOUR, 100 * HOUR);
	uint64_t greedy = burst_of("192.0.2.1", 1000, TG_ADMIT_PACED);
	assert_int_equal(greedy, 50);
	assert_int_equal(burst_of("192.0.2.1", 100, TG_DROP_SHARE), 100);
	assert_int_equal(burst_of("192.0.2.2", 4, TG_ADMIT_PACED), 4);
	assert_int_equal(fixture_proven(), 0);
}

static void test_active_sources_are_counted(void **state)
{
	struct tg_pace p;

	FIXTURE_NEEDED();
	fair(HOUR, 1000 * HOUR);
	for (unsigned tries = 0;; tries++) {
		uint64_t window = fixture_now() >> TG_WINDOW_SHIFT;
		char src[32];
		assert_true(tries < 20);
		for (unsigned i = 0; i < 40; i++) {
			snprintf(src, sizeof(src), "203.0.%u.%u", 113 + tries, i);
			if (i < 30)
				fixture_prove(src, 32, 0);
			for (unsigned n = 0; n < 3; n++)
				fixture_run(&(struct packet_opts){.src = src});
		}
		p = fixture_pace();
		if (fixture_now() >> TG_WINDOW_SHIFT == window && p.window == window)
			break;
	}
	/* A window that began with an earlier attempt has counted that one, too. */
	assert_true(p.active[0] >= 29 && p.active[0] <= 31);
	assert_true(p.active[1] >= 9 && p.active[1] <= 11);
}

/* ---- many at once ---- */

enum {
	RACERS = 4,
	RACES = 5000,
	BURST = 1000,
};

static void *race(void *ctx)
{
	struct packet p;
	uint8_t out[PACKET_MAX];

	packet_build(&p, &(struct packet_opts){0});
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = p.b, .data_size_in = p.len, .data_out = out,
		.data_size_out = sizeof(out), .repeat = RACES);
	return (void *)(intptr_t)bpf_prog_test_run_opts(bpf_admit_prog_fd(fx->admit), &opts);
}

static void test_no_two_take_the_same_turn(void **state)
{
	pthread_t threads[RACERS];
	void *rc;

	FIXTURE_NEEDED();
	pace(HOUR, BURST * HOUR, 0);
	for (unsigned i = 0; i < RACERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, race, NULL), 0);
	for (unsigned i = 0; i < RACERS; i++) {
		pthread_join(threads[i], &rc);
		assert_null(rc);
	}
	assert_int_equal(fixture_counted(TG_ADMIT_PACED).packets, BURST);
	assert_int_equal(
		fixture_counted(TG_DROP_RATE).packets + fixture_counted(TG_DROP_CONTENDED).packets,
		RACERS * RACES - BURST);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		fixture_test(test_open_without_a_governor),
		fixture_test(test_shut),
		fixture_test(test_stale_gate_is_open_but_lists_hold),
		fixture_test(test_permits_are_a_level),
		fixture_test(test_rate),
		fixture_test(test_rate_comes_back_with_time_but_no_more_than_the_burst),
		fixture_test(test_a_slow_rate_leaves_no_debt),
		fixture_test(test_a_burst_below_the_interval_still_admits),
		fixture_test(test_state_and_interval_make_the_rate),
		fixture_test(test_newcomers_leave_the_reserve),
		fixture_test(test_newcomers_share_the_whole_rate),
		fixture_test(test_fair_share),
		fixture_test(test_ranks),
		fixture_test(test_neither_proven_ones_nor_newcomers_take_all),
		fixture_test(test_newcomers_that_try_often),
		fixture_test(test_the_share_of_many),
		fixture_test(test_weight_of_a_proven_source),
		fixture_test(test_fair_share_of_newcomers),
		fixture_test(test_active_sources_are_counted),
		fixture_test(test_no_two_take_the_same_turn),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
