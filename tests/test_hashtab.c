/* base/hashtab: random adds and removes against an array, while it grows and shrinks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hashtab.h"

enum {
	KEYS = 5000,
	ROUNDS = 60000,
};

struct entry {
	struct hashtab_node node;
	uint64_t key;
	bool in;
};

static struct entry entries[KEYS];

static uint64_t hash_of(const struct hashtab_node *n)
{
	return hashtab_mix(((const struct entry *)n)->key);
}

/* All in one chain. */
static uint64_t hash_same(const struct hashtab_node *n)
{
	(void)n;
	return 7;
}

static bool equal(const struct hashtab_node *n, const void *key)
{
	return ((const struct entry *)n)->key == *(const uint64_t *)key;
}

static struct hashtab_node *find(const struct hashtab *t, uint64_t key)
{
	struct entry like = {.key = key};

	return hashtab_find(t, t->hash(&like.node), equal, &key);
}

static void visit(struct hashtab_node *n, void *ctx)
{
	struct entry *e = (struct entry *)n;

	assert_true(e->in);
	++*(size_t *)ctx;
}

static void check(struct hashtab *t, unsigned keys)
{
	size_t n = 0, seen = 0;
	uint64_t cursor = 0;

	for (unsigned i = 0; i < keys; i++) {
		assert_ptr_equal(find(t, i), entries[i].in ? &entries[i].node : NULL);
		n += entries[i].in;
	}
	assert_int_equal(t->count, n);
	while (hashtab_walk(t, &cursor, 10, visit, &seen))
		;
	assert_int_equal(seen, n);
}

static void run(uint64_t (*hash)(const struct hashtab_node *n), unsigned keys, unsigned rounds)
{
	struct hashtab_node *n;
	struct hashtab t;

	srand(1);
	assert_int_equal(hashtab_init(&t, hash), 0);
	assert_null(hashtab_any(&t));
	for (unsigned i = 0; i < keys; i++)
		entries[i] = (struct entry){.key = i};
	for (unsigned i = 0; i < rounds; i++) {
		/* Mostly adds at first, mostly removes in the end. */
		bool add = (unsigned)rand() % rounds > i;
		struct entry *e = &entries[(unsigned)rand() % keys];

		if (e->in == add)
			continue;
		e->in = add;
		if (add)
			hashtab_add(&t, &e->node);
		else
			hashtab_remove(&t, &e->node);
		if (i % (rounds / 20) == 0)
			check(&t, keys);
	}
	check(&t, keys);
	while ((n = hashtab_any(&t))) {
		((struct entry *)n)->in = false;
		hashtab_remove(&t, n);
	}
	check(&t, keys);
	hashtab_fini(&t);
}

static void test_random(void **state)
{
	(void)state;
	run(hash_of, KEYS, ROUNDS);
}

static void test_collisions(void **state)
{
	(void)state;
	run(hash_same, 50, 2000);
}

/* The last of the vectors of the paper, appendix A. */
static void test_siphash(void **state)
{
	uint8_t key[HASHTAB_KEY_BYTES], text[15];

	(void)state;
	for (uint8_t i = 0; i < sizeof key; i++)
		key[i] = i;
	memcpy(text, key, sizeof text);
	hashtab_set_key(key);
	assert_true(hashtab_hash(text, sizeof text) == UINT64_C(0xa129ca6149be45e5));
	memset(key, 0, sizeof key);
	hashtab_set_key(key);
	assert_true(hashtab_hash(text, sizeof text) != UINT64_C(0xa129ca6149be45e5));
}

static void test_hash_spreads(void **state)
{
	unsigned bucket[64] = {0};

	(void)state;
	for (unsigned i = 0; i < 6400; i++) {
		char name[16] = "room/";

		for (unsigned k = 0, v = i; k < 4; k++, v /= 10)
			name[5 + k] = (char)('0' + v % 10);
		bucket[hashtab_hash(name, 9) >> 58]++;
	}
	for (unsigned i = 0; i < 64; i++)
		assert_in_range(bucket[i], 50, 200);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_collisions),
		cmocka_unit_test(test_siphash),
		cmocka_unit_test(test_hash_spreads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
