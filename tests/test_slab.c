#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <stdbool.h>
#include <string.h>

#include "base/slab.h"

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#define HAVE_ASAN   1
#define POISONED(p) __asan_address_is_poisoned(p)
#endif

enum {
	CHUNK = 16384,
};

static void test_sizes(void **state)
{
	static const size_t sizes[] = {1, 8, 16, 17, 100, 192, 1000, 4000, CHUNK - 64};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct slab s;
		slab_init(&s, sizes[i], CHUNK, 0);
		assert_true(s.object_bytes >= sizes[i] && s.object_bytes < sizes[i] + 16);
		assert_int_equal(s.object_bytes % 16, 0);
		assert_int_equal(s.per_chunk, (CHUNK - 64) / s.object_bytes);
		assert_int_equal(slab_bytes(&s), 0);
		uint8_t *last = NULL;
		for (unsigned n = 0; n < s.per_chunk; n++) {
			uint8_t *p = slab_alloc(&s);
			assert_non_null(p);
			assert_int_equal((uintptr_t)p % 16, 0);
			assert_true(!last || (size_t)(p - last) >= s.object_bytes);
			memset(p, 0xa5, sizes[i]);
			last = p;
		}
		assert_int_equal(slab_bytes(&s), CHUNK);
		uint8_t *chunk = (uint8_t *)((uintptr_t)last & ~(uintptr_t)(CHUNK - 1));
		assert_true(last + s.object_bytes <= chunk + CHUNK);
		for (unsigned n = 0; n < s.per_chunk; n++)
			slab_free(&s, chunk + 64 + n * s.object_bytes);
		assert_int_equal(s.used, 0);
		slab_fini(&s);
		assert_int_equal(slab_bytes(&s), 0);
	}
}

static void test_cap(void **state)
{
	struct slab s;
	void *p[10];

	slab_init(&s, 64, CHUNK, 10);
	for (unsigned i = 0; i < 10; i++)
		assert_non_null(p[i] = slab_alloc(&s));
	assert_null(slab_alloc(&s));
	slab_free(&s, p[3]);
	assert_ptr_equal(slab_alloc(&s), p[3]); /* freed memory first */
	assert_null(slab_alloc(&s));
	for (unsigned i = 0; i < 10; i++)
		slab_free(&s, p[i]);
	slab_fini(&s);
}

/* A storm comes and goes: one chunk stays, in whatever order the objects went. */
static void test_empty_chunks_are_given_back(void **state)
{
	enum {
		N = 20000
	};
	struct slab s;
	void **p = calloc(N, sizeof(*p));

	assert_non_null(p);
	slab_init(&s, 192, CHUNK, 0);
	srandom(3);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < N; i++) {
			assert_non_null(p[i] = slab_alloc(&s));
			memset(p[i], 1, 192);
		}
		assert_int_equal(s.used, N);
		assert_int_equal(s.chunks, (N + s.per_chunk - 1) / s.per_chunk);
		for (unsigned i = N - 1; i && round; i--) {
			unsigned j = (unsigned)random() % (i + 1);
			void *swap = p[i];
			p[i] = p[j];
			p[j] = swap;
		}
		for (unsigned i = 0; i < N; i++)
			slab_free(&s, p[i]);
		assert_int_equal(s.used, 0);
		assert_int_equal(slab_bytes(&s), CHUNK);
	}
	slab_fini(&s);
	free(p);
}

/* One object that comes and goes must not map and unmap a chunk each time. */
static void test_one_chunk_is_kept(void **state)
{
	struct slab s;

	slab_init(&s, 4000, 4096, 0);
	assert_int_equal(s.per_chunk, 1);
	void *p = slab_alloc(&s);
	void *first = p;
	for (unsigned i = 0; i < 100; i++) {
		slab_free(&s, p);
		assert_int_equal(s.chunks, 1);
		p = slab_alloc(&s);
		assert_ptr_equal(p, first);
	}
	slab_free(&s, p);
	slab_fini(&s);
}

/* Where many come and go each turn, what they need stays, and nothing more for longer than between
 * two trims. */
static void test_kept_until_trimmed(void **state)
{
	enum {
		STORM = 100,
		STEADY = 10
	};
	struct slab s;
	void *p[STORM];

	slab_init(&s, 4000, 4096, 0);
	slab_keep(&s);
	assert_false(slab_trim(&s));
	for (unsigned i = 0; i < STORM; i++)
		assert_non_null(p[i] = slab_alloc(&s));
	for (unsigned i = 0; i < STORM; i++)
		slab_free(&s, p[i]);
	assert_int_equal(s.chunks, STORM);
	assert_true(slab_trim(&s)); /* they were needed a moment ago */
	assert_int_equal(s.chunks, STORM);
	for (unsigned round = 0; round < 100; round++) {
		for (unsigned i = 0; i < STEADY; i++)
			assert_non_null(p[i] = slab_alloc(&s));
		for (unsigned i = 0; i < STEADY; i++)
			slab_free(&s, p[i]);
		if (round % 10 != 9)
			continue;
		assert_true(slab_trim(&s));
		assert_int_equal(s.chunks, STEADY);
	}
	/* Nobody comes any more: one stays. */
	assert_true(!slab_trim(&s) || !slab_trim(&s));
	assert_int_equal(s.chunks, 1);
	assert_false(slab_trim(&s));
	assert_int_equal(s.chunks, 1);
	p[0] = slab_alloc(&s);
	assert_int_equal(s.chunks, 1);
	slab_free(&s, p[0]);
	slab_fini(&s);
}

static void test_random_operations(void **state)
{
	enum {
		N = 3000,
		BYTES = 48
	};
	struct slab s;
	uint8_t **p = calloc(N, sizeof(*p));
	uint8_t expect[BYTES];

	assert_non_null(p);
	slab_init(&s, BYTES, 4096, 0);
	srandom(8);
	for (unsigned step = 0; step < 300000; step++) {
		/* Waves, so that chunks fill and empty. */
		unsigned i = (unsigned)random() % N;
		bool fill = random() % 100 < (step / 20000 % 2 ? 10 : 90);
		if (fill && !p[i]) {
			assert_non_null(p[i] = slab_alloc(&s));
			memset(p[i], (int)(i & 0xff), BYTES);
		} else if (!fill && p[i]) {
			memset(expect, (int)(i & 0xff), BYTES);
			assert_memory_equal(p[i], expect, BYTES);
			slab_free(&s, p[i]);
			p[i] = NULL;
		}
		assert_true(s.used <= s.chunks * s.per_chunk);
	}
	size_t used = 0;
	for (unsigned i = 0; i < N; i++) {
		used += p[i] != NULL;
		if (p[i]) {
			memset(expect, (int)(i & 0xff), BYTES);
			assert_memory_equal(p[i], expect, BYTES);
		}
	}
	assert_int_equal(s.used, used);
	for (unsigned i = 0; i < N; i++) {
		if (p[i])
			slab_free(&s, p[i]);
	}
	slab_fini(&s);
	free(p);
}

#ifdef HAVE_ASAN
static void test_freed_memory_is_poisoned(void **state)
{
	struct slab s;

	slab_init(&s, 64, CHUNK, 0);
	uint8_t *p = slab_alloc(&s), *q = slab_alloc(&s);
	assert_false(POISONED(p) || POISONED(p + 63));
	assert_true(POISONED(q + 64)); /* not handed out yet */
	slab_free(&s, p);
	assert_true(POISONED(p) && POISONED(p + 63));
	assert_false(POISONED(q));
	assert_ptr_equal(slab_alloc(&s), p);
	assert_false(POISONED(p) || POISONED(p + 63));
	slab_free(&s, p);
	slab_free(&s, q);
	slab_fini(&s);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_cap),
		cmocka_unit_test(test_empty_chunks_are_given_back),
		cmocka_unit_test(test_one_chunk_is_kept),
		cmocka_unit_test(test_kept_until_trimmed),
		cmocka_unit_test(test_random_operations),
#ifdef HAVE_ASAN
		cmocka_unit_test(test_freed_memory_is_poisoned),
#endif
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
