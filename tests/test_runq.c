#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <math.h>

#include "core/runq.h"

static const uint64_t quanta[RUNQ_CLASSES] = {10000, 20000, 30000, 40000, 50000};

static void test_fifo_and_bookkeeping(void **state)
{
	struct runq q;
	struct runq_item it[5] = {0};

	runq_init(&q, quanta);
	assert_null(runq_pop(&q));
	for (unsigned i = 0; i < 5; i++)
		runq_push(&q, &it[i], RUNQ_ESTABLISHED, 100 + i);
	assert_int_equal(q.total, 5);
	assert_int_equal(q.len[RUNQ_ESTABLISHED], 5);
	/* Once queued, another push changes nothing, neither place nor class nor time. */
	runq_push(&q, &it[0], RUNQ_CONTROL, 999);
	assert_int_equal(q.total, 5);
	for (unsigned i = 0; i < 5; i++) {
		struct runq_item *p = runq_pop(&q);
		assert_ptr_equal(p, &it[i]);
		assert_false(p->queued);
		assert_int_equal(p->class_, RUNQ_ESTABLISHED);
		assert_int_equal(p->since_us, 100 + i);
		runq_charge(&q, RUNQ_ESTABLISHED, 1000);
	}
	assert_int_equal(q.total, 0);
	assert_null(runq_pop(&q));
	runq_push(&q, &it[0], RUNQ_CONTROL, 7);
	assert_int_equal(it[0].since_us, 7);
	assert_ptr_equal(runq_pop(&q), &it[0]);
}

static void test_remove_anywhere(void **state)
{
	for (unsigned gone = 0; gone < 4; gone++) {
		struct runq q;
		struct runq_item it[5] = {0};
		runq_init(&q, quanta);
		for (unsigned i = 0; i < 4; i++)
			runq_push(&q, &it[i], RUNQ_LINKS, 0);
		runq_remove(&q, &it[gone]);
		runq_remove(&q, &it[gone]);
		runq_remove(&q, &it[4]);
		assert_false(it[gone].queued);
		assert_int_equal(q.len[RUNQ_LINKS], 3);
		runq_push(&q, &it[4], RUNQ_LINKS, 0);
		for (unsigned i = 0; i < 5; i++) {
			if (i != gone)
				assert_ptr_equal(runq_pop(&q), &it[i]);
		}
		assert_null(runq_pop(&q));
	}
}

/* Keeps the classes of `mask` backlogged; an item of class c costs cost_ns[c]. */
static void run_backlogged(struct runq *q, unsigned mask, const uint64_t *cost_ns,
	uint64_t *spent_ns, unsigned pops, uint64_t *worst_gap_ns)
{
	struct runq_item it[RUNQ_CLASSES][3] = {0};
	uint64_t now_ns = 0, last_ns[RUNQ_CLASSES] = {0};

	for (unsigned c = 0; c < RUNQ_CLASSES; c++) {
		for (unsigned i = 0; i < 3 && mask >> c & 1; i++)
			runq_push(q, &it[c][i], c, 0);
	}
	while (pops--) {
		struct runq_item *p = runq_pop(q);
		assert_non_null(p);
		unsigned c = p->class_;
		if (now_ns - last_ns[c] > worst_gap_ns[c])
			worst_gap_ns[c] = now_ns - last_ns[c];
		now_ns += cost_ns[c];
		last_ns[c] = now_ns;
		spent_ns[c] += cost_ns[c];
		runq_charge(q, c, cost_ns[c]);
		runq_push(q, p, c, 0);
	}
}

static void check_shares(const uint64_t *cost_ns)
{
	struct runq q;
	uint64_t spent_ns[RUNQ_CLASSES] = {0}, gap_ns[RUNQ_CLASSES] = {0}, total = 0, round = 0,
		 max = 0;

	runq_init(&q, quanta);
	run_backlogged(&q, 0x1f, cost_ns, spent_ns, 200000, gap_ns);
	for (unsigned c = 0; c < RUNQ_CLASSES; c++) {
		total += spent_ns[c];
		round += quanta[c];
		max += cost_ns[c];
	}
	for (unsigned c = 0; c < RUNQ_CLASSES; c++) {
		/* Exact to one round and an item each, however long it runs. */
		double want = (double)total * (double)quanta[c] / (double)round;
		assert_true(fabs((double)spent_ns[c] - want) <= (double)(round + max));
		assert_true(total > 50 * (round + max));
		/* Its debt of one item is worked off round by round; then it runs. */
		uint64_t rounds = cost_ns[c] / quanta[c] + 2;
		assert_true(gap_ns[c] <= rounds * round + 2 * max);
	}
}

static void test_shares_follow_quanta_not_costs(void **state)
{
	check_shares((const uint64_t[RUNQ_CLASSES]){1000, 1000, 1000, 1000, 1000});
	check_shares((const uint64_t[RUNQ_CLASSES]){200000, 1000, 3000, 500, 70000});
	check_shares((const uint64_t[RUNQ_CLASSES]){300, 100000, 170, 900, 1234});
}

static void test_idle_classes_leave_their_share(void **state)
{
	struct runq q;
	uint64_t spent_ns[RUNQ_CLASSES] = {0}, gap_ns[RUNQ_CLASSES] = {0};
	const uint64_t cost_ns[RUNQ_CLASSES] = {900, 900, 900, 900, 900};

	runq_init(&q, quanta);
	run_backlogged(&q, 1 << RUNQ_LINKS | 1 << RUNQ_FANOUT, cost_ns, spent_ns, 100000, gap_ns);
	double ratio = (double)spent_ns[RUNQ_FANOUT] / (double)spent_ns[RUNQ_LINKS];
	assert_true(ratio > 2.4 && ratio < 2.6);
}

static void test_single_class_is_always_served(void **state)
{
	struct runq q;
	struct runq_item it = {0};

	runq_init(&q, (const uint64_t[RUNQ_CLASSES]){1, 1, 1, 1, 1});
	for (unsigned c = 0; c < RUNQ_CLASSES; c++) {
		for (unsigned i = 0; i < 1000; i++) {
			runq_push(&q, &it, c, 0);
			assert_ptr_equal(runq_pop(&q), &it);
			runq_charge(&q, c, i % 2 ? UINT64_MAX : 50000000);
		}
	}
}

/* Empty while it runs, queued again right after: that must not wipe out what it cost. */
static void test_lone_costly_item_gets_no_more_than_its_share(void **state)
{
	struct runq q;
	struct runq_item costly = {0}, small[2] = {0};
	uint64_t spent_ns[RUNQ_CLASSES] = {0};

	runq_init(&q, (const uint64_t[RUNQ_CLASSES]){10000, 10000, 10000, 10000, 10000});
	runq_push(&q, &costly, RUNQ_HANDSHAKE, 0);
	runq_push(&q, &small[0], RUNQ_ESTABLISHED, 0);
	runq_push(&q, &small[1], RUNQ_ESTABLISHED, 0);
	for (unsigned i = 0; i < 100000; i++) {
		struct runq_item *p = runq_pop(&q);
		uint64_t cost = p == &costly ? 1000000 : 1000;
		runq_charge(&q, p->class_, cost);
		spent_ns[p->class_] += cost;
		runq_push(&q, p, p->class_, 0);
	}
	double ratio = (double)spent_ns[RUNQ_HANDSHAKE] / (double)spent_ns[RUNQ_ESTABLISHED];
	assert_true(ratio > 0.95 && ratio < 1.05);
}

static void test_idle_time_earns_no_credit(void **state)
{
	enum {
		N = 200
	};
	struct runq q;
	struct runq_item *it = calloc(2 * N, sizeof(*it));
	unsigned in_a_row = 0;

	assert_non_null(it);
	runq_init(&q, (const uint64_t[RUNQ_CLASSES]){10000, 10000, 10000, 10000, 10000});
	/* Fan-out runs alone for long ... */
	for (unsigned i = 0; i < 10000; i++) {
		runq_push(&q, &it[0], RUNQ_FANOUT, 0);
		assert_ptr_equal(runq_pop(&q), &it[0]);
		runq_charge(&q, RUNQ_FANOUT, 1000);
	}
	/* ... and a burst of handshakes after that gets what is left of this round and its quantum
	 * of the next, then the other its own. */
	for (unsigned i = 0; i < N; i++) {
		runq_push(&q, &it[i], RUNQ_HANDSHAKE, 0);
		runq_push(&q, &it[N + i], RUNQ_FANOUT, 0);
	}
	unsigned last = RUNQ_CLASSES;
	for (struct runq_item *p; (p = runq_pop(&q));) {
		in_a_row = p->class_ == last ? in_a_row + 1 : 1;
		last = p->class_;
		assert_true(in_a_row <= 2 * 10 || q.len[RUNQ_HANDSHAKE] == 0 ||
			    q.len[RUNQ_FANOUT] == 0);
		runq_charge(&q, p->class_, 1000);
	}
	free(it);
}

/* An item of an earlier class does not wait for the later ones' quanta, as long as it has one. */
static void test_earlier_classes_first_within_a_round(void **state)
{
	struct runq q;
	struct runq_item session[2] = {0}, newcomer[50] = {0};

	runq_init(&q, (const uint64_t[RUNQ_CLASSES]){10000, 10000, 10000, 10000, 10000});
	for (unsigned i = 0; i < 50; i++)
		runq_push(&q, &newcomer[i], RUNQ_HANDSHAKE, 0);
	for (unsigned i = 0; i < 50; i++) {
		assert_ptr_equal(runq_pop(&q), &newcomer[i]);
		runq_charge(&q, RUNQ_HANDSHAKE, 3000); /* not all of the quantum */
		runq_push(&q, &session[0], RUNQ_ESTABLISHED, 0);
		runq_push(&q, &session[1], RUNQ_LINKS, 0);
		assert_ptr_equal(runq_peek(&q), &session[1]);
		assert_int_equal(q.total, 51 - i); /* peeking takes nothing out */
		assert_ptr_equal(runq_pop(&q), &session[1]);
		runq_charge(&q, RUNQ_LINKS, 10);
		assert_ptr_equal(runq_pop(&q), &session[0]);
		runq_charge(&q, RUNQ_ESTABLISHED, 10);
	}
	assert_null(runq_peek(&q));
}

/* A turn that seems to have taken an hour was a stopped process; its class is back before long. */
static void test_monstrous_cost_does_not_starve(void **state)
{
	struct runq q;
	struct runq_item it[2] = {0};
	uint64_t others_ns = 0;

	runq_init(&q, (const uint64_t[RUNQ_CLASSES]){10000, 10000, 10000, 10000, 10000});
	runq_push(&q, &it[0], RUNQ_CONTROL, 0);
	assert_ptr_equal(runq_pop(&q), &it[0]);
	runq_charge(&q, RUNQ_CONTROL, 3600ULL * 1000 * 1000 * 1000);
	runq_push(&q, &it[0], RUNQ_CONTROL, 0);
	runq_push(&q, &it[1], RUNQ_ESTABLISHED, 0);
	while (runq_pop(&q) != &it[0]) {
		runq_charge(&q, RUNQ_ESTABLISHED, 100000);
		others_ns += 100000;
		assert_true(others_ns < 200000000);
		runq_push(&q, &it[1], RUNQ_ESTABLISHED, 0);
	}
	assert_true(others_ns >= 90000000);
}

static void test_quantum_of_nothing_and_changed_quantum(void **state)
{
	struct runq q;
	uint64_t spent_ns[RUNQ_CLASSES] = {0}, gap_ns[RUNQ_CLASSES] = {0};
	const uint64_t cost_ns[RUNQ_CLASSES] = {1, 1, 1, 1, 1};
	struct runq_item it = {0};

	runq_init(&q, (const uint64_t[RUNQ_CLASSES]){0, 0, 0, 0, 0});
	runq_push(&q, &it, RUNQ_HANDSHAKE, 0);
	assert_ptr_equal(runq_pop(&q), &it);
	run_backlogged(&q, 0x1f, cost_ns, spent_ns, 1000, gap_ns);
	for (unsigned c = 0; c < RUNQ_CLASSES; c++)
		assert_in_range(spent_ns[c], 190, 210);
	runq_init(&q, quanta);
	q.quantum_ns[RUNQ_LINKS] *= 5;
	spent_ns[RUNQ_LINKS] = spent_ns[RUNQ_CONTROL] = 0;
	run_backlogged(&q, 1 << RUNQ_LINKS | 1 << RUNQ_CONTROL, cost_ns, spent_ns, 2200000, gap_ns);
	double ratio = (double)spent_ns[RUNQ_LINKS] / (double)spent_ns[RUNQ_CONTROL];
	assert_true(ratio > 9.5 && ratio < 10.5);
}

/* Random pushes, pops and removals; each class must behave like a list of its own. */
static void test_random_operations(void **state)
{
	enum {
		N = 64
	};
	struct runq q;
	struct runq_item it[N] = {0};
	uint64_t pushed_as[N] = {0}, pushes = 0;

	srandom(5);
	runq_init(&q, quanta);
	for (unsigned step = 0; step < 200000; step++) {
		struct runq_item *p = &it[random() % N];
		switch (random() % 4) {
		case 0:
		case 1:
			if (!p->queued)
				pushed_as[p - it] = ++pushes;
			runq_push(&q, p, (enum runq_class)(random() % RUNQ_CLASSES), step);
			break;
		case 2:
			runq_remove(&q, p);
			assert_false(p->queued);
			break;
		default:
			p = runq_pop(&q);
			if (!p)
				break;
			for (unsigned i = 0; i < N; i++)
				assert_true(!it[i].queued || it[i].class_ != p->class_ ||
					    pushed_as[i] > pushed_as[p - it]);
			runq_charge(&q, p->class_, (uint64_t)random() % 30000);
		}
		unsigned queued = 0, len = 0;
		for (unsigned i = 0; i < N; i++)
			queued += it[i].queued;
		for (unsigned c = 0; c < RUNQ_CLASSES; c++)
			len += q.len[c];
		assert_int_equal(q.total, queued);
		assert_int_equal(len, queued);
	}
}

/* A wake delay in 16 bits: never 0, exact to 1 in 1,024, in order. */
static void test_wake(void **state)
{
	struct runq_item it = {0};
	struct runq q;
	uint32_t before = 0;

	assert_int_equal(runq_wake_us(runq_wake(0)), 1);
	for (uint32_t us = 1; us < 2048; us++)
		assert_int_equal(runq_wake_us(runq_wake(us)), us);
	for (uint64_t us = 1; us <= UINT32_MAX; us += us / 3 + 1) {
		uint32_t back = runq_wake_us(runq_wake((uint32_t)us));

		assert_true(back <= us && back >= us - us / 1024 && back > before);
		before = back;
	}
	assert_true(runq_wake_us(runq_wake(UINT32_MAX)) >= UINT32_MAX - (1u << 21));
	runq_init(&q, (const uint64_t[RUNQ_CLASSES]){1, 1, 1, 1, 1});
	it.wake = 77; /* of its last turn */
	runq_push(&q, &it, RUNQ_LINKS, 0);
	assert_int_equal(it.wake, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_wake),
		cmocka_unit_test(test_fifo_and_bookkeeping),
		cmocka_unit_test(test_remove_anywhere),
		cmocka_unit_test(test_shares_follow_quanta_not_costs),
		cmocka_unit_test(test_idle_classes_leave_their_share),
		cmocka_unit_test(test_single_class_is_always_served),
		cmocka_unit_test(test_lone_costly_item_gets_no_more_than_its_share),
		cmocka_unit_test(test_idle_time_earns_no_credit),
		cmocka_unit_test(test_earlier_classes_first_within_a_round),
		cmocka_unit_test(test_monstrous_cost_does_not_starve),
		cmocka_unit_test(test_quantum_of_nothing_and_changed_quantum),
		cmocka_unit_test(test_random_operations),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
