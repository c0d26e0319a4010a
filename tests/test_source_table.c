#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <pthread.h>
#include <string.h>

#include "net/source_table.h"

static const uint64_t key[2] = {0x0706050403020100, 0x0f0e0d0c0b0a0908};

static struct in6_addr addr(unsigned i)
{
	struct in6_addr a = {0};

	a.s6_addr[10] = a.s6_addr[11] = 0xff;
	a.s6_addr[12] = 10;
	a.s6_addr[13] = (uint8_t)(i >> 16);
	a.s6_addr[14] = (uint8_t)(i >> 8);
	a.s6_addr[15] = (uint8_t)i;
	return a;
}

static struct source *hold(struct source_table *t, unsigned i, uint64_t now_ns, uint32_t *ret_open)
{
	struct in6_addr a = addr(i);

	return source_hold(t, &a, 128, now_ns, ret_open);
}

static struct source *find(struct source_table *t, unsigned i, uint64_t *ret_word)
{
	struct in6_addr a = addr(i);

	return source_find(t, &a, 128, ret_word);
}

/* One set, so that every prefix competes with every other. */
static void one_set(struct source_table *t)
{
	assert_int_equal(source_table_init(t, 1, key), 0);
	assert_int_equal(t->n_sets, 1);
}

static void test_counts(void **state)
{
	struct source_table t;
	struct source *s;
	uint64_t word;
	uint32_t open;

	assert_int_equal(source_table_init(&t, 1000, key), 0);
	assert_int_equal(t.n_sets, 1000 / SOURCE_WAYS);
	assert_null(find(&t, 1, &word));
	for (unsigned n = 1; n <= 3; n++) {
		s = hold(&t, 1, n, &open);
		assert_non_null(s);
		assert_int_equal(open, n);
		assert_int_equal(s->seen_ns, n);
		assert_ptr_equal(find(&t, 1, &word), s);
		assert_true(source_still(s, word));
	}
	for (unsigned n = 0; n < 3; n++)
		source_release(s);
	/* Known, with nothing open; and still the same that was looked at before. */
	assert_true(source_still(s, word));
	assert_ptr_equal(hold(&t, 1, 9, &open), s);
	assert_int_equal(open, 1);
	assert_int_equal(t.full, 0);
	source_table_fini(&t);
}

/* The same address under another length is another prefix; another key names all differently. */
static void test_names(void **state)
{
	struct source_table t, other;
	struct in6_addr a = addr(0);
	struct source *s[3];
	uint64_t word;
	uint32_t open;

	assert_int_equal(source_table_init(&t, 64, key), 0);
	for (unsigned i = 0; i < 3; i++) {
		s[i] = source_hold(&t, &a, 128 - 8 * i, 1, &open);
		assert_non_null(s[i]);
		assert_int_equal(open, 1);
		for (unsigned k = 0; k < i; k++)
			assert_ptr_not_equal(s[k], s[i]);
	}
	assert_int_equal(source_table_init(&other, 64, (uint64_t[2]){1, 2}), 0);
	assert_non_null(source_hold(&other, &a, 128, 1, &open));
	assert_non_null(source_find(&other, &a, 128, &word));
	assert_false(source_still(s[0], word));
	source_table_fini(&other);
	source_table_fini(&t);
}

/* Who has connections open is never replaced: the newcomer goes without, and that is counted. */
static void test_full(void **state)
{
	struct source_table t;
	struct source *s[SOURCE_WAYS];
	uint64_t word;
	uint32_t open;

	one_set(&t);
	for (unsigned i = 0; i < SOURCE_WAYS; i++)
		assert_non_null(s[i] = hold(&t, i, i + 1, &open));
	assert_null(hold(&t, SOURCE_WAYS, 100, &open));
	assert_int_equal(t.full, 1);
	for (unsigned i = 0; i < SOURCE_WAYS; i++)
		assert_ptr_equal(find(&t, i, &word), s[i]);
	/* One that has none any more makes room, though it was seen last. */
	assert_ptr_equal(find(&t, SOURCE_WAYS - 1, &word), s[SOURCE_WAYS - 1]);
	source_release(s[SOURCE_WAYS - 1]);
	assert_ptr_equal(hold(&t, SOURCE_WAYS, 101, &open), s[SOURCE_WAYS - 1]);
	assert_int_equal(open, 1);
	assert_false(source_still(s[SOURCE_WAYS - 1], word));
	assert_null(find(&t, SOURCE_WAYS - 1, &word));
	assert_int_equal(t.full, 1);
	source_table_fini(&t);
}

/* Replaced are the unproven before the proven before the penalised, each the longest unseen first;
 * a penalty that is over protects nobody; and whoever comes inherits nothing. */
static void test_eviction_order(void **state)
{
	static const unsigned proven[] = {0, 3}, penalised[] = {1, 5}, order[] = {2, 4, 6, 7, 0, 3};
	struct source_table t;
	struct source *s[SOURCE_WAYS];
	uint64_t word, now = 1000;
	uint32_t open;

	one_set(&t);
	for (unsigned i = 0; i < SOURCE_WAYS; i++) {
		assert_non_null(s[i] = hold(&t, i, i + 1, &open));
		s[i]->churn_tat_ns = s[i]->share_tat_ns = s[i]->cap_tat_ns = 77;
		s[i]->strikes = s[i]->window = 7;
		source_release(s[i]);
	}
	for (unsigned i = 0; i < 2; i++) {
		s[proven[i]]->proven = 1;
		s[penalised[i]]->penalty_until_ns = now + 100;
	}
	s[6]->penalty_until_ns = now; /* over */
	for (unsigned i = 0; i < sizeof order / sizeof *order; i++) {
		struct source *got = hold(&t, 100 + i, now, &open);

		assert_ptr_equal(got, s[order[i]]);
		assert_null(find(&t, order[i], &word));
		assert_int_equal(open, 1);
		assert_int_equal(got->churn_tat_ns | got->share_tat_ns | got->cap_tat_ns, 0);
		assert_int_equal(
			got->strikes | got->window | got->proven | got->penalty_until_ns, 0);
	}
	/* Only the penalised are left, and they go rather than that a connection is not counted. */
	assert_ptr_equal(hold(&t, 200, now, &open), s[1]);
	assert_ptr_equal(hold(&t, 201, now, &open), s[5]);
	assert_null(hold(&t, 202, now, &open));
	source_table_fini(&t);
}

/* ---------------------------------------------------------------- threads */

enum {
	THREADS = 4,
	ROUNDS = 50000,
	PREFIXES = 12, /* more than one set takes, fewer than all threads hold at a time */
};

struct crowd {
	struct source_table t;
	_Atomic unsigned wrong;
};

/* Holds up to four prefixes, lets one go, and so on. An entry that is held stays its prefix's. */
static void *come_and_go(void *arg)
{
	static _Atomic unsigned seeds = 1;
	struct crowd *c = arg;
	unsigned seed = seeds++ * 7919;
	struct {
		struct source *s;
		unsigned prefix;
	} held[4] = {0};

	for (unsigned n = 0; n < ROUNDS; n++) {
		unsigned k = (unsigned)rand_r(&seed) % 4,
			 prefix = (unsigned)rand_r(&seed) % PREFIXES;
		uint64_t word;
		uint32_t open;

		if (held[k].s) {
			c->wrong += find(&c->t, held[k].prefix, &word) != held[k].s;
			source_release(held[k].s);
		}
		held[k].s = hold(&c->t, prefix, n, &open);
		held[k].prefix = prefix;
		c->wrong += held[k].s && (!open || open > 4 * THREADS);
	}
	for (unsigned k = 0; k < 4; k++)
		if (held[k].s)
			source_release(held[k].s);
	return NULL;
}

/* Whatever comes between, no count is lost, and no prefix has two entries. */
static void test_threads(void **state)
{
	static struct crowd c;
	pthread_t thread[THREADS];

	one_set(&c.t);
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, come_and_go, &c), 0);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	assert_int_equal(c.wrong, 0);
	for (unsigned i = 0; i < SOURCE_WAYS; i++) {
		uint64_t word = c.t.source[i].word;

		assert_int_equal(word & ((1u << SOURCE_OPEN_BITS) - 1), 0);
		for (unsigned k = 0; word && k < i; k++)
			assert_int_not_equal(c.t.source[k].word, word);
	}
	source_table_fini(&c.t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_counts),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_eviction_order),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
