#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <stdio.h>

#include "support/admission_fixture.h"

static void test_lists(void **state)
{
	struct fixture f;

	fixture_init(&f);
	fixture_start(&f);
	list_add(&f.lists.deny, "10.0.0.0", 96 + 8, 0);
	list_add(&f.lists.deny, "2001:db8::", 32, 0);
	list_add(&f.lists.allow, "10.1.2.3", 128, 0);
	assert_int_equal(verdict(&f, "10.9.9.9"), TG_DROP_DENYLIST);
	assert_int_equal(verdict(&f, "2001:db8:1::1"), TG_DROP_DENYLIST);
	assert_int_equal(verdict(&f, "10.1.2.3"), TG_ADMIT_ALLOWED);
	assert_int_equal(verdict(&f, "11.0.0.1"), TG_ADMIT_OPEN);
	assert_int_equal(f.stats.verdicts[TG_DROP_DENYLIST], 2);
	assert_int_equal(f.stats.verdicts[TG_ADMIT_ALLOWED], 1);
	assert_int_equal(f.stats.verdicts[TG_ADMIT_OPEN], 1);
	/* The allow list passes a shut gate, the deny list goes before it. */
	gate(&f, TG_GATE_SHUT, 0, 0, 0);
	assert_int_equal(verdict(&f, "10.1.2.3"), TG_ADMIT_ALLOWED);
	assert_int_equal(verdict(&f, "10.9.9.9"), TG_DROP_DENYLIST);
	assert_int_equal(verdict(&f, "11.0.0.1"), TG_DROP_SHUT);
	fixture_fini(&f);
}

/* Opens n from addresses that a format makes of i; the next one must be refused. */
static void tier_holds(const char *fmt, unsigned family, unsigned tier)
{
	struct fixture f;
	char from[64];
	struct admission_result r;

	fixture_init(&f);
	f.opts.tier[family][tier].open = 5;
	fixture_start(&f);
	for (unsigned i = 0; i < 5; i++) {
		snprintf(from, sizeof from, fmt, i + 1);
		r = judge(&f, from);
		assert_int_equal(r.verdict, TG_ADMIT_OPEN);
	}
	snprintf(from, sizeof from, fmt, 6);
	r = judge(&f, from);
	assert_int_equal(r.verdict, TG_DROP_PENALTY);
	assert_true(r.refused);
	assert_int_equal(r.ticket, 0);
	assert_int_equal(f.stats.verdicts[TG_TRACK_PENALTY_OPEN], 1);
	fixture_fini(&f);
}

static void test_open_limit_at_each_tier(void **state)
{
	tier_holds("192.0.2.1", 0, 0);
	tier_holds("192.0.2.%u", 0, 1);
	tier_holds("2001:db8:1:2::%x", 1, 0);
	tier_holds("2001:db8:1:20%x::1", 1, 1);
	tier_holds("2001:db8:1:%x00::1", 1, 2);
}

static void test_neighbours_are_untouched(void **state)
{
	struct fixture f;

	fixture_init(&f);
	f.opts.tier[0][0].open = 2;
	f.opts.tier[1][0].open = 2;
	fixture_start(&f);
	for (unsigned i = 0; i < 10; i++) {
		verdict(&f, "192.0.2.1");
		verdict(&f, "2001:db8:0:1::1");
	}
	assert_int_equal(verdict(&f, "192.0.2.2"), TG_ADMIT_OPEN);
	assert_int_equal(verdict(&f, "2001:db8:0:2::1"), TG_ADMIT_OPEN);
	fixture_fini(&f);
}

static void test_closing_makes_room(void **state)
{
	struct fixture f;
	uint8_t ticket;

	fixture_init(&f);
	f.opts.tier[0][0].open = 1;
	fixture_start(&f);
	for (unsigned i = 0; i < 100; i++) {
		struct admission_result r = judge(&f, "192.0.2.1");

		assert_int_equal(r.verdict, TG_ADMIT_OPEN);
		assert_int_equal(admission_unserved(f.a), 1);
		ticket = served(&f, "192.0.2.1", r.ticket);
		assert_int_equal(admission_unserved(f.a), 0);
		closed(&f, "192.0.2.1", ticket);
		assert_int_equal(admission_unserved(f.a), 0);
	}
	/* One that is closed before it was served leaves no permit behind either. */
	closed(&f, "192.0.2.1", judge(&f, "192.0.2.1").ticket);
	assert_int_equal(admission_unserved(f.a), 0);
	fixture_fini(&f);
}

/* 200 opens and closes a second against 100 events: in the box within a second. */
static void test_churn_leads_to_the_box(void **state)
{
	struct fixture f;
	unsigned opened = 0;
	uint64_t begin;

	fixture_init(&f);
	f.opts.tier[0][0] = (struct admission_tier){.len = 32, .churn = 100, .churn_burst = 200};
	fixture_start(&f);
	begin = f.now_ns;
	while (f.now_ns < begin + SEC) {
		struct admission_result r = judge(&f, "192.0.2.1");

		if (r.refused)
			break;
		opened++;
		closed(&f, "192.0.2.1", r.ticket);
		f.now_ns += 5 * MS;
	}
	assert_true(f.now_ns < begin + SEC);
	assert_true(opened >= 100);
	assert_int_equal(f.stats.verdicts[TG_TRACK_PENALTY_CHURN], 1);
	assert_int_equal(verdict(&f, "192.0.2.1"), TG_DROP_PENALTY);
	assert_int_equal(verdict(&f, "192.0.2.2"), TG_ADMIT_OPEN);
	f.now_ns += 10 * SEC + 1;
	assert_int_equal(verdict(&f, "192.0.2.1"), TG_ADMIT_OPEN);
	fixture_fini(&f);
}

/* A crowd that leaves in one moment is penalised once, not for as long as it was large. */
static void test_mass_close_is_forgiven(void **state)
{
	struct fixture f;
	uint8_t ticket[3000];

	fixture_init(&f);
	f.opts.tier[0][0] = (struct admission_tier){.len = 32, .churn = 100, .churn_burst = 200};
	fixture_start(&f);
	for (unsigned i = 0; i < 3000; i++) {
		struct admission_result r = judge(&f, "192.0.2.1");

		assert_false(r.refused);
		ticket[i] = r.ticket;
		f.now_ns += 11 * MS;
	}
	for (unsigned i = 0; i < 3000; i++)
		closed(&f, "192.0.2.1", ticket[i]);
	assert_int_equal(verdict(&f, "192.0.2.1"), TG_DROP_PENALTY);
	f.now_ns += 10 * SEC + 1;
	assert_int_equal(verdict(&f, "192.0.2.1"), TG_ADMIT_OPEN);
	fixture_fini(&f);
}

/* Tries until it is sentenced anew; how long that took. */
static uint64_t time_to_next_penalty(struct fixture *f)
{
	uint64_t begin = f->now_ns, before = f->stats.verdicts[TG_TRACK_PENALTY_OPEN];

	while (f->stats.verdicts[TG_TRACK_PENALTY_OPEN] == before) {
		f->now_ns += SEC;
		assert_int_equal(verdict(f, "192.0.2.1"), TG_DROP_PENALTY);
	}
	return f->now_ns - begin;
}

static void test_penalties_escalate_and_are_forgotten(void **state)
{
	static const uint64_t expected_s[] = {10, 20, 40, 60, 60};
	struct fixture f;

	fixture_init(&f);
	f.opts.tier[0][0].open = 1;
	fixture_start(&f);
	assert_int_equal(verdict(&f, "192.0.2.1"), TG_ADMIT_OPEN); /* stays open for good */
	assert_int_equal(verdict(&f, "192.0.2.1"), TG_DROP_PENALTY);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(time_to_next_penalty(&f), expected_s[i] * SEC);
	/* The sixth lasts 60 s too; penalty_max beyond its end the strikes are forgotten. */
	f.now_ns += (60 + 60) * SEC + 1;
	assert_int_equal(verdict(&f, "192.0.2.1"), TG_DROP_PENALTY);
	assert_int_equal(time_to_next_penalty(&f), 10 * SEC);
	fixture_fini(&f);
}

static void test_weights(void **state)
{
	struct fixture f;

	fixture_init(&f);
	f.opts.tier[0][0].open = 2;
	fixture_start(&f);
	list_add(&f.lists.weights, "100.64.0.0", 96 + 10, 3);
	list_add(&f.lists.weights, "100.64.9.0", 96 + 24, 0);
	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(verdict(&f, "100.64.0.1"), TG_ADMIT_OPEN);
	assert_int_equal(verdict(&f, "100.64.0.1"), TG_DROP_PENALTY);
	for (unsigned i = 0; i < 100; i++) /* exempt */
		assert_int_equal(verdict(&f, "100.64.9.1"), TG_ADMIT_OPEN);
	fixture_fini(&f);
}

static void test_loopback_and_trusted_senders(void **state)
{
	struct in6_addr peer = addr("192.0.2.1");
	struct fixture f;

	fixture_init(&f);
	f.opts.tier[0][0].open = f.opts.tier[1][0].open = 1;
	fixture_start(&f);
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(verdict(&f, "127.0.0.1"), TG_ADMIT_OPEN);
		assert_int_equal(verdict(&f, "127.9.8.7"), TG_ADMIT_OPEN);
		assert_int_equal(verdict(&f, "::1"), TG_ADMIT_OPEN);
		assert_int_equal(
			admission_judge(f.a, NULL, &f.stats, &peer, ADMISSION_TRUSTED, f.now_ns)
				.verdict,
			TG_ADMIT_OPEN);
	}
	gate(&f, TG_GATE_SHUT, 0, 0, 0); /* exempt from limits, not from the gate */
	assert_int_equal(verdict(&f, "127.0.0.1"), TG_DROP_SHUT);
	fixture_fini(&f);

	fixture_init(&f);
	f.opts.tier[0][0].open = f.opts.tier[1][0].open = 1;
	f.opts.limit_loopback = true;
	fixture_start(&f);
	verdict(&f, "127.0.0.1");
	verdict(&f, "::1");
	assert_int_equal(verdict(&f, "127.0.0.1"), TG_DROP_PENALTY);
	assert_int_equal(verdict(&f, "::1"), TG_DROP_PENALTY);
	fixture_fini(&f);
}

static void test_permits(void **state)
{
	struct fixture f;
	struct admission_result r[3];

	fixture_init(&f);
	fixture_start(&f);
	gate(&f, TG_GATE_OPEN, GOVERNOR_RATE_MAX, 0, 3);
	for (unsigned i = 0; i < 3; i++)
		r[i] = judge(&f, "192.0.2.1");
	assert_int_equal(verdict(&f, "192.0.2.1"), TG_DROP_PERMITS);
	served(&f, "192.0.2.1", r[0].ticket);
	assert_int_equal(verdict(&f, "192.0.2.1"), TG_ADMIT_OPEN);
	fixture_fini(&f);
}

static void test_stale_gate_is_ignored(void **state)
{
	struct fixture f;

	fixture_init(&f);
	f.opts.tier[0][0].open = 1;
	fixture_start(&f);
	gate(&f, TG_GATE_SHUT, 0, 0, 0);
	assert_int_equal(verdict(&f, "192.0.2.1"), TG_DROP_SHUT);
	f.now_ns += SEC + 1;
	assert_int_equal(verdict(&f, "192.0.2.1"), TG_ADMIT_OPEN);
	/* The limits of sources hold all the same. */
	assert_int_equal(verdict(&f, "192.0.2.1"), TG_DROP_PENALTY);
	fixture_fini(&f);
}

/* Attempts of many sources, each `per_s` a second (of source 0: per_s * greed), for `seconds`.
 * Returns what each was admitted. Everybody is served and gone at once. */
static void load(struct fixture *f, unsigned sources, double per_s, double greed, unsigned seconds,
	uint32_t rate, uint32_t reserve, unsigned *admitted)
{
	double *owed = calloc(sources, sizeof *owed);
	uint64_t end = f->now_ns + seconds * SEC, rand = 1;

	while (f->now_ns < end) {
		gate(f, TG_GATE_PACED, rate, reserve, GOVERNOR_PERMITS_MAX);
		f->now_ns += MS;
		for (unsigned i = 0; i < sources; i++) {
			/* In fixed steps some would always come just after the others. */
			rand = rand * 6364136223846793005u + 1442695040888963407u;
			owed[i] += per_s * (i ? 1 : greed) / 1000 * 2 * (double)(rand >> 32) /
				   UINT32_MAX;
			for (; owed[i] >= 1; owed[i]--) {
				char from[32];
				struct admission_result r;

				snprintf(from, sizeof from, "10.%u.%u.1", i >> 8, i & 255);
				r = judge(f, from);
				admitted[i] += !r.refused;
				if (!r.refused)
					closed(f, from, served(f, from, r.ticket));
			}
		}
	}
	free(owed);
}

static void test_rate_is_kept(void **state)
{
	struct fixture f;
	unsigned admitted[50] = {0}, sum = 0;

	fixture_init(&f);
	fixture_start(&f);
	load(&f, 50, 20, 1, 10, 200, 0, admitted);
	for (unsigned i = 0; i < 50; i++)
		sum += admitted[i];
	assert_true(sum <= 2000 + 20);
	assert_true(sum >= 2000 * 0.95);
	assert_true(f.stats.verdicts[TG_DROP_RATE] + f.stats.verdicts[TG_DROP_SHARE] > 7000);
	fixture_fini(&f);
}

static void test_greedy_source_gets_at_most_twice_its_share(void **state)
{
	struct fixture f;
	unsigned admitted[200] = {0};
	double sum = 0, squares = 0, share;

	fixture_init(&f);
	f.opts.sources = 8192;
	fixture_start(&f);
	/* How many there are is known once each has tried. */
	load(&f, 200, 4, 50, 2, 200, 0, admitted);
	memset(admitted, 0, sizeof admitted);
	load(&f, 200, 4, 50, 20, 200, 0, admitted);
	for (unsigned i = 1; i < 200; i++) {
		sum += admitted[i];
		squares += (double)admitted[i] * admitted[i];
	}
	assert_true(sum * sum / (199 * squares) >= 0.95); /* Jain's index */
	share = (sum + admitted[0]) / 200;
	assert_true(admitted[0] <= 2 * share + f.opts.source_burst + 1);
	assert_true(f.stats.verdicts[TG_DROP_SHARE] > 0);
	fixture_fini(&f);
}

/* Sources that are proven already want all there is; newcomers have their share all the same, half
 * of it from the first seconds on. */
static void test_newcomers_are_not_kept_out_by_the_proven(void **state)
{
	struct fixture f;
	unsigned admitted[200] = {0};
	double sum = 0, squares = 0;
	unsigned newcomers = 0;

	fixture_init(&f);
	f.opts.sources = 8192;
	fixture_start(&f);
	load(&f, 100, 40, 1, 5, 400, 100, admitted);
	memset(admitted, 0, sizeof admitted);
	load(&f, 200, 20, 1, 3, 400, 100, admitted);
	for (unsigned i = 100; i < 200; i++)
		newcomers += admitted[i];
	assert_true(newcomers >= 3 * 400 / 2 / 2);
	memset(admitted, 0, sizeof admitted);
	load(&f, 200, 20, 1, 20, 400, 100, admitted);
	for (unsigned i = 0; i < 200; i++) {
		sum += admitted[i];
		squares += (double)admitted[i] * admitted[i];
	}
	assert_true(sum * sum / (200 * squares) >= 0.95); /* Jain's index */
	fixture_fini(&f);
}

static void test_reserve_is_for_the_proven(void **state)
{
	struct fixture f;
	struct admission_result r;
	unsigned newcomers = 0, proven = 0;

	fixture_init(&f);
	f.opts.source_burst = 1000000; /* fair share is another test's */
	f.opts.sources = 65536;
	fixture_start(&f);
	r = judge(&f, "192.0.2.1");
	closed(&f, "192.0.2.1", served(&f, "192.0.2.1", r.ticket));
	for (unsigned ms = 0; ms < 10000; ms++) {
		f.now_ns += MS;
		gate(&f, TG_GATE_PACED, 100, 25, GOVERNOR_PERMITS_MAX);
		for (unsigned k = 0; k < 3; k++) {
			char from[32];

			snprintf(from, sizeof from, "10.%u.%u.%u", ms >> 8, ms & 255, k);
			newcomers += !judge(&f, from).refused;
		}
		if (ms % 50 == 0)
			proven += !judge(&f, "192.0.2.1").refused;
	}
	assert_true(newcomers <= 75 * 10 + 10);
	assert_true(newcomers >= 70 * 10);
	assert_true(proven >= 190); /* of 200 */
	assert_true(f.stats.verdicts[TG_DROP_NEWCOMER] > 0);
	fixture_fini(&f);
}

/* More sources than the table holds, as a flood would bring: memory stays as it is, those with
 * connections open keep their entries. */
static void test_flood_of_sources(void **state)
{
	struct fixture f;
	char from[64];

	fixture_init(&f);
	f.opts.sources = 512;
	f.opts.tier[0][0].open = 2;
	fixture_start(&f);
	verdict(&f, "192.0.2.1");
	verdict(&f, "192.0.2.1");
	for (unsigned i = 0; i < 200000; i++) {
		struct admission_result r;

		snprintf(from, sizeof from, "10.%u.%u.%u", i >> 16, i >> 8 & 255, i & 255);
		r = judge(&f, from);
		assert_false(r.refused);
		closed(&f, from, r.ticket);
		f.now_ns += 1000;
	}
	assert_int_equal(verdict(&f, "192.0.2.1"), TG_DROP_PENALTY);
	fixture_fini(&f);
}

/* All entries taken by open connections: the next is let in without one, and closing it hurts
 * nobody else's count. */
static void test_full_table_fails_open(void **state)
{
	struct fixture f;
	uint8_t *ticket = calloc(4096, 1);
	char from[64];

	fixture_init(&f);
	f.opts.sources = 64;
	f.opts.tier[0][1].len = 0;
	f.opts.tier[0][0].open = 1;
	fixture_start(&f);
	for (unsigned i = 0; i < 4096; i++) {
		struct admission_result r;

		snprintf(from, sizeof from, "10.0.%u.%u", i >> 8, i & 255);
		r = judge(&f, from);
		assert_false(r.refused);
		ticket[i] = r.ticket;
	}
	assert_int_equal(f.stats.verdicts[TG_TRACK_OPEN_FULL], 4096 - 64);
	for (unsigned i = 0; i < 4096; i++) {
		snprintf(from, sizeof from, "10.0.%u.%u", i >> 8, i & 255);
		closed(&f, from, ticket[i]);
	}
	assert_int_equal(admission_unserved(f.a), 0);
	verdict(&f, "10.0.0.1");
	assert_int_equal(verdict(&f, "10.0.0.1"), TG_DROP_PENALTY);
	free(ticket);
	fixture_fini(&f);
}

static void test_observe_refuses_nobody(void **state)
{
	struct fixture f;

	fixture_init(&f);
	f.opts.observe = true;
	f.opts.tier[0][0].open = 1;
	fixture_start(&f);
	list_add(&f.lists.deny, "10.0.0.0", 96 + 8, 0);
	assert_false(judge(&f, "10.0.0.1").refused);
	verdict(&f, "192.0.2.1");
	for (unsigned i = 0; i < 5; i++) {
		struct admission_result r = judge(&f, "192.0.2.1");

		assert_false(r.refused);
		assert_int_equal(r.verdict, TG_DROP_PENALTY);
		closed(&f, "192.0.2.1", r.ticket);
	}
	gate(&f, TG_GATE_SHUT, 0, 0, 0);
	assert_false(judge(&f, "198.51.100.1").refused);
	assert_int_equal(f.stats.verdicts[TG_DROP_DENYLIST], 0);
	assert_int_equal(f.stats.verdicts[TG_DROP_PENALTY], 0);
	assert_int_equal(f.stats.verdicts_observed[TG_DROP_DENYLIST], 1);
	assert_int_equal(f.stats.verdicts_observed[TG_DROP_PENALTY], 5);
	assert_int_equal(f.stats.verdicts_observed[TG_TRACK_PENALTY_OPEN], 1);
	assert_int_equal(f.stats.verdicts_observed[TG_DROP_SHUT], 1);
	fixture_fini(&f);
}

enum {
	THREADS = 4,
	ROUNDS = 20000,
};

static void *churner(void *arg)
{
	struct fixture *shared = arg;
	struct fixture f = *shared;
	unsigned long admitted = 0;

	for (unsigned i = 0; i < ROUNDS; i++) {
		char from[32];
		struct admission_result r;

		snprintf(from, sizeof from, "10.0.%u.%u", i % 5, i % 97);
		r = judge(&f, from);
		admitted += !r.refused;
		if (!r.refused)
			closed(&f, from, i % 2 ? served(&f, from, r.ticket) : r.ticket);
	}
	return (void *)admitted;
}

/* Counts are exact however many workers judge at once: when all are gone, nothing is left open. */
static void test_workers_share_one_table(void **state)
{
	pthread_t t[THREADS];
	struct fixture f;

	fixture_init(&f);
	f.opts.sources = 64; /* entries are replaced all the time */
	f.opts.tier[0][0].open = THREADS;
	f.opts.tier[0][1].open = 1;
	f.opts.penalty_ns = 1;
	fixture_start(&f);
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, churner, &f), 0);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(admission_unserved(f.a), 0);
	f.now_ns += 100 * SEC;
	for (unsigned i = 0; i < 5; i++) {
		char from[32];

		snprintf(from, sizeof from, "10.0.%u.1", i);
		assert_int_equal(verdict(&f, from), TG_ADMIT_OPEN);
		assert_int_equal(verdict(&f, from), TG_DROP_PENALTY);
	}
	fixture_fini(&f);
}

static void test_verdict_names(void **state)
{
	unsigned n = 0;

	for (enum tg_verdict v = admission_verdict_from(0); v < TG_VERDICT_COUNT;
		v = admission_verdict_from(v + 1))
		n++;
	assert_int_equal(n, 13);
	assert_string_equal(admission_verdict_name(TG_DROP_DENYLIST), "deny");
	assert_string_equal(admission_verdict_name(TG_TRACK_PENALTY_CHURN), "penalty_churn");
	assert_false(admission_refuses(TG_ADMIT_PACED));
	assert_true(admission_refuses(TG_DROP_SHARE));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_open_limit_at_each_tier),
		cmocka_unit_test(test_neighbours_are_untouched),
		cmocka_unit_test(test_closing_makes_room),
		cmocka_unit_test(test_churn_leads_to_the_box),
		cmocka_unit_test(test_mass_close_is_forgiven),
		cmocka_unit_test(test_penalties_escalate_and_are_forgotten),
		cmocka_unit_test(test_weights),
		cmocka_unit_test(test_loopback_and_trusted_senders),
		cmocka_unit_test(test_permits),
		cmocka_unit_test(test_stale_gate_is_ignored),
		cmocka_unit_test(test_rate_is_kept),
		cmocka_unit_test(test_greedy_source_gets_at_most_twice_its_share),
		cmocka_unit_test(test_newcomers_are_not_kept_out_by_the_proven),
		cmocka_unit_test(test_reserve_is_for_the_proven),
		cmocka_unit_test(test_flood_of_sources),
		cmocka_unit_test(test_full_table_fails_open),
		cmocka_unit_test(test_observe_refuses_nobody),
		cmocka_unit_test(test_workers_share_one_table),
		cmocka_unit_test(test_verdict_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
