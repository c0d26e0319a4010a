#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "base/buf.h"

enum {
	KIB = 1024,
	MIB = 1024 * KIB,
};

/* Each size class at its edges: there is room, it counts, and it is given back. */
static void test_sizes(void **state)
{
	static const uint64_t sizes[] = {0, 1, BUF_SMALL_BYTES - sizeof(struct buf),
		BUF_SMALL_BYTES - sizeof(struct buf) + 1, BUF_MEDIUM_BYTES - sizeof(struct buf),
		BUF_MEDIUM_BYTES - sizeof(struct buf) + 1, 100 * KIB, 5 * MIB};
	struct buf *all[sizeof sizes / sizeof sizes[0]];
	struct buf_pool p;

	buf_pool_init(&p, 64 * MIB);
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		struct buf *b = all[i] = buf_alloc(&p, sizes[i]);

		assert_non_null(b);
		assert_int_equal(b->len, 0);
		assert_true(buf_room(b) >= sizes[i]);
		assert_true(b->held >= sizes[i] + sizeof *b);
		memset(buf_end(b), (int)i, buf_room(b)); /* the sanitizer would object */
	}
	assert_true(p.bytes > 5 * MIB + 100 * KIB);
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		for (uint32_t k = 0; k < all[i]->cap; k++)
			assert_int_equal(all[i]->data[k], i);
		buf_free(&p, all[i]);
	}
	buf_free(&p, NULL);
	assert_int_equal(p.bytes, 0);
	buf_pool_fini(&p);
}

static void test_cap(void **state)
{
	struct buf *b[16], *more;
	struct buf_pool p;

	buf_pool_init(&p, 16 * BUF_SMALL_BYTES);
	for (unsigned i = 0; i < 16; i++)
		assert_non_null(b[i] = buf_alloc(&p, 10));
	assert_null(buf_alloc(&p, 10));
	assert_null(buf_alloc(&p, 0));
	buf_free(&p, b[3]);
	assert_null(buf_alloc(&p, BUF_SMALL_BYTES));
	assert_non_null(more = buf_alloc(&p, 10));
	buf_free(&p, more);
	for (unsigned i = 0; i < 16; i++)
		if (i != 3)
			buf_free(&p, b[i]);
	buf_pool_fini(&p);
}

/* No size wraps around in 32 bits. */
static void test_too_large(void **state)
{
	struct buf_pool p;

	buf_pool_init(&p, UINT64_MAX);
	assert_null(buf_alloc(&p, UINT32_MAX));
	assert_null(buf_alloc(&p, UINT32_MAX - sizeof(struct buf) + 1));
	assert_null(buf_alloc(&p, (uint64_t)UINT32_MAX + 1));
	assert_null(buf_alloc(&p, UINT64_MAX - sizeof(struct buf)));
	assert_int_equal(p.bytes, 0);
	buf_pool_fini(&p);
}

static uint8_t pattern(size_t i)
{
	return (uint8_t)(i ^ i >> 7);
}

/* Appended in pieces of any size, the content is what was appended, and it moves seldom. */
static void test_append(void **state)
{
	static const uint32_t pieces[] = {0, 1, 7, 200, 24, 1, 3000, 900, 5000, 100000, 1, 1};
	uint8_t *data = malloc(100000);
	struct buf *b = NULL, *before;
	unsigned moves = 0;
	struct buf_pool p;
	size_t len = 0;

	buf_pool_init(&p, 64 * MIB);
	for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
		for (uint32_t k = 0; k < pieces[i]; k++)
			data[k] = pattern(len + k);
		assert_int_equal(buf_append(&p, &b, data, pieces[i], MIB), 0);
		len += pieces[i];
		assert_int_equal(b->len, len);
	}
	for (size_t i = 0; i < len; i++)
		assert_int_equal(b->data[b->off + i], pattern(i));
	for (unsigned i = 0; i < 900000; i++) {
		before = b;
		data[0] = pattern(len);
		assert_int_equal(buf_append(&p, &b, data, 1, 2 * MIB), 0);
		len++;
		moves += b != before;
	}
	assert_true(moves <= 5);
	for (size_t i = 0; i < len; i += 11)
		assert_int_equal(b->data[b->off + i], pattern(i));
	assert_int_equal(p.bytes, b->held);
	buf_free(&p, b);
	buf_pool_fini(&p);
	free(data);
}

/* What was taken off the front is not copied along. */
static void test_append_after_consuming(void **state)
{
	uint8_t data[1000];
	struct buf *b = NULL;
	struct buf_pool p;
	size_t len = 0, taken = 0;

	buf_pool_init(&p, MIB);
	for (unsigned round = 0; round < 50; round++) {
		for (uint32_t k = 0; k < sizeof data; k++)
			data[k] = pattern(len + k);
		assert_int_equal(buf_append(&p, &b, data, sizeof data, MIB), 0);
		len += sizeof data;
		b->off += 950;
		b->len -= 950;
		taken += 950;
		assert_int_equal(b->len, len - taken);
		for (size_t k = 0; k < b->len; k++)
			assert_int_equal(b->data[b->off + k], pattern(taken + k));
	}
	assert_true(b->cap < 20 * KIB);
	buf_free(&p, b);
	buf_pool_fini(&p);
}

static void test_append_fails(void **state)
{
	static const uint8_t data[10000];
	struct buf *b = NULL, *same;
	struct buf_pool p;

	buf_pool_init(&p, 12 * KIB);
	assert_int_equal(buf_append(&p, &b, data, 101, 100), -EMSGSIZE);
	assert_null(b);
	assert_int_equal(buf_append(&p, &b, data, 100, 100), 0);
	same = b;
	assert_int_equal(buf_append(&p, &b, data, 1, 100), -EMSGSIZE);
	assert_int_equal(buf_append(&p, &b, data, UINT32_MAX, UINT64_MAX), -ENOMEM);
	assert_int_equal(buf_append(&p, &b, data, 10000, UINT64_MAX), 0);
	same = b;
	assert_int_equal(buf_append(&p, &b, data, 3000, UINT64_MAX), -ENOMEM);
	assert_ptr_equal(b, same);
	assert_int_equal(b->len, 10100);
	buf_free(&p, b);
	assert_int_equal(p.bytes, 0);
	buf_pool_fini(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_cap),
		cmocka_unit_test(test_too_large),
		cmocka_unit_test(test_append),
		cmocka_unit_test(test_append_after_consuming),
		cmocka_unit_test(test_append_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
