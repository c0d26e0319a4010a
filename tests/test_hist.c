#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "base/hist.h"

static void test_buckets_tile_all_of_64_bits(void **state)
{
	assert_int_equal(HIST_BUCKETS, 496);
	assert_int_equal(hist_lower(0), 0);
	for (unsigned i = 0; i < HIST_BUCKETS; i++) {
		assert_int_equal(hist_index(hist_lower(i)), i);
		assert_int_equal(hist_index(hist_upper(i)), i);
		assert_true(hist_upper(i) >= hist_lower(i));
		/* 12 % at most. */
		assert_true(
			(double)(hist_upper(i) - hist_lower(i)) <= 0.125 * (double)hist_lower(i));
		if (i + 1 < HIST_BUCKETS)
			assert_true(hist_lower(i + 1) == hist_upper(i) + 1);
	}
	assert_true(hist_upper(HIST_BUCKETS - 1) == UINT64_MAX);
	assert_int_equal(hist_index(UINT64_MAX), HIST_BUCKETS - 1);
}

static void test_empty(void **state)
{
	struct hist h;

	memset(&h, 0xff, sizeof(h));
	hist_init(&h);
	assert_int_equal(h.count, 0);
	assert_true(h.min == UINT64_MAX);
	assert_int_equal(h.max, 0);
	assert_int_equal(hist_quantile(&h, 0.5), 0);
	assert_int_equal(hist_count_le(&h, UINT64_MAX), 0);
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void test_quantiles_against_sorted_values(void **state)
{
	enum {
		N = 10007
	};
	static const double quantiles[] = {0, 0.001, 0.1, 0.25, 0.5, 0.9, 0.99, 0.999, 1};
	uint64_t *v = calloc(N, sizeof(*v)), sum = 0;
	struct hist h;

	assert_non_null(v);
	srandom(4);
	hist_init(&h);
	for (unsigned i = 0; i < N; i++) {
		v[i] = (uint64_t)random() >> (random() % 31);
		sum += v[i];
		hist_add(&h, v[i]);
	}
	qsort(v, N, sizeof(*v), compare);
	assert_int_equal(h.count, N);
	assert_int_equal(h.sum, sum);
	assert_int_equal(h.min, v[0]);
	assert_int_equal(h.max, v[N - 1]);
	for (size_t i = 0; i < sizeof(quantiles) / sizeof(quantiles[0]); i++) {
		double rank = ceil(quantiles[i] * N);
		uint64_t exact = v[rank > 0 ? (size_t)rank - 1 : 0];
		uint64_t got = hist_quantile(&h, quantiles[i]);
		assert_true(got >= exact && (double)got <= 1.125 * (double)exact);
	}
	assert_int_equal(hist_quantile(&h, 1), h.max);
	assert_int_equal(hist_quantile(&h, 7), h.max);
	assert_int_equal(hist_quantile(&h, -1), hist_quantile(&h, 0));
	assert_int_equal(hist_quantile(&h, NAN), hist_quantile(&h, 0));
	for (unsigned i = 0; i < HIST_BUCKETS; i++) {
		uint64_t n = 0;
		while (n < N && v[n] <= hist_upper(i))
			n++;
		assert_int_equal(hist_count_le(&h, hist_upper(i)), n);
	}
	free(v);
}

static void test_single_value_is_exact(void **state)
{
	static const uint64_t values[] = {0, 1, 7, 8, 9, 1000, 123456789, UINT64_MAX};

	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		struct hist h;
		hist_init(&h);
		hist_add(&h, values[i]);
		assert_true(hist_quantile(&h, 0) == values[i]);
		assert_true(hist_quantile(&h, 0.99) == values[i]);
		assert_true(h.min == values[i] && h.max == values[i]);
		assert_int_equal(hist_count_le(&h, UINT64_MAX), 1);
	}
}

static void test_count_le_counts_whole_buckets(void **state)
{
	struct hist h;

	hist_init(&h);
	hist_add(&h, 5);
	hist_add(&h, 1000); /* bucket 960..1023 */
	assert_int_equal(hist_count_le(&h, 4), 0);
	assert_int_equal(hist_count_le(&h, 5), 1);
	assert_int_equal(hist_count_le(&h, 1022), 1);
	assert_int_equal(hist_count_le(&h, 1023), 2);
}

static void test_merge_equals_adding_all(void **state)
{
	struct hist parts[3], all, sum;

	srandom(9);
	hist_init(&all);
	hist_init(&sum);
	for (unsigned p = 0; p < 3; p++) {
		hist_init(&parts[p]);
		for (unsigned i = 0; i < 1000 * p; i++) { /* the first stays empty */
			uint64_t v = (uint64_t)random() >> (random() % 31);
			hist_add(&parts[p], v);
			hist_add(&all, v);
		}
		hist_merge(&sum, &parts[p]);
	}
	assert_memory_equal(&sum, &all, sizeof(all));
}

static void test_difference_is_what_came_between(void **state)
{
	struct hist before, now, diff;

	hist_init(&now);
	for (unsigned i = 0; i < 100; i++)
		hist_add(&now, 1000000);
	before = now;
	hist_diff(&diff, &now, &before);
	assert_int_equal(diff.count, 0);
	assert_int_equal(diff.sum, 0);
	assert_true(diff.min == UINT64_MAX);
	assert_int_equal(hist_quantile(&diff, 0.99), 0);

	for (unsigned i = 0; i < 10; i++)
		hist_add(&now, 20 + i);
	hist_diff(&diff, &now, &before);
	assert_int_equal(diff.count, 10);
	assert_int_equal(diff.sum, 245);
	assert_int_equal(diff.min, 20);
	assert_int_equal(diff.max, 29);
	assert_int_equal(hist_quantile(&diff, 1), 29);

	/* In place, as a reader that keeps the last copy may do. */
	hist_diff(&before, &now, &before);
	assert_memory_equal(&before, &diff, sizeof(diff));

	/* A writer that started anew. */
	hist_init(&before);
	hist_add(&before, 3);
	hist_diff(&diff, &before, &now);
	assert_int_equal(diff.count, 1);
	assert_int_equal(diff.sum, 0);
	assert_int_equal(diff.max, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_buckets_tile_all_of_64_bits),
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_quantiles_against_sorted_values),
		cmocka_unit_test(test_single_value_is_exact),
		cmocka_unit_test(test_count_le_counts_whole_buckets),
		cmocka_unit_test(test_merge_equals_adding_all),
		cmocka_unit_test(test_difference_is_what_came_between),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
