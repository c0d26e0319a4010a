#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/stats.h"

static void test_names_and_helps(void **state)
{
	assert_string_equal(close_reason_name(CLOSE_CLIENT), "client");
	assert_string_equal(close_reason_name(CLOSE_HEALTH), "health");
	assert_string_equal(close_reason_help(CLOSE_KICKED), "closed by an operator");
	assert_string_equal(protocol_error_name(PROTO_ERR_HTTP), "http");
	assert_string_equal(protocol_error_name(PROTO_ERR_LINK_FRAME), "link_frame");
	assert_string_equal(protocol_error_help(PROTO_ERR_ROUTE), "no such route");
	assert_string_equal(close_reason_name(CLOSE_REASONS), "unknown");
	assert_string_equal(close_reason_help((enum close_reason) - 1), "unknown");
	assert_string_equal(protocol_error_name(PROTO_ERRS), "unknown");
	assert_string_equal(auth_failure_name(AUTH_FAIL_MISSING), "missing");
	assert_string_equal(auth_failure_name(AUTH_PASSED), "unknown");
	assert_string_equal(auth_failure_help(AUTH_FAIL_SIGNATURE), "the signature is wrong");
	assert_string_equal(protocol_error_help((enum protocol_error) - 1), "unknown");
}

/* Names become label values and series names: unique, and of the letters that need no quoting. */
static void check_names(const char *const *name, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		assert_true(name[i][0]);
		assert_int_equal(
			strspn(name[i], "abcdefghijklmnopqrstuvwxyz0123456789_"), strlen(name[i]));
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(name[i], name[j]);
	}
}

static void test_names_are_unique(void **state)
{
#define X(field, name, ...) name,
	static const char *const series[] = {TG_COUNTERS(X) TG_GAUGES(X)};
	static const char *const counters[] = {TG_COUNTERS(X)};
#undef X
	const char *closes[CLOSE_REASONS], *errors[PROTO_ERRS];

	for (unsigned i = 0; i < CLOSE_REASONS; i++)
		closes[i] = close_reason_name(i);
	for (unsigned i = 0; i < PROTO_ERRS; i++)
		errors[i] = protocol_error_name(i);
	check_names(series, sizeof(series) / sizeof(series[0]));
	check_names(closes, CLOSE_REASONS);
	check_names(errors, PROTO_ERRS);
	for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
		assert_string_equal(counters[i] + strlen(counters[i]) - 6, "_total");
}

static void test_init(void **state)
{
	struct tg_worker_stats s, zero;

	memset(&s, 0xff, sizeof(s));
	stats_init(&s);
	memset(&zero, 0, sizeof(zero));
	zero.run_delay_us.min = zero.loop_us.min = UINT64_MAX;
	zero.wake_delay_us.min = zero.poll_delay_us.min = zero.first_poll_us.min = UINT64_MAX;
	assert_memory_equal(&s, &zero, sizeof(s));
}

/* A different value everywhere, so that a forgotten or swapped field shows. */
static void fill(struct tg_worker_stats *s, uint64_t v)
{
	stats_init(s);
#define X(field, ...) s->field = v++;
	TG_COUNTERS(X)
	TG_GAUGES(X)
#undef X
	for (unsigned i = 0; i < CLOSE_REASONS; i++)
		s->closes[i] = v++;
	for (unsigned i = 0; i < PROTO_ERRS; i++)
		s->protocol_errors[i] = v++;
	for (unsigned i = 0; i < AUTH_FAILURES; i++)
		s->auth_failures[i] = v++;
	hist_add(&s->run_delay_us, v);
	hist_add(&s->loop_us, v * 2);
}

static void test_merge_adds_every_field(void **state)
{
	struct tg_worker_stats a, b, total;
	uint64_t v = 1100;

	fill(&a, 1000);
	fill(&b, 100);
	stats_init(&total);
	stats_merge(&total, &a);
	assert_memory_equal(&total, &a, sizeof(a));
	stats_merge(&total, &b);
#define X(field, ...)                                                                              \
	assert_int_equal(total.field, v);                                                          \
	v += 2;
	TG_COUNTERS(X)
	TG_GAUGES(X)
#undef X
	for (unsigned i = 0; i < CLOSE_REASONS; i++, v += 2)
		assert_int_equal(total.closes[i], v);
	for (unsigned i = 0; i < PROTO_ERRS; i++, v += 2)
		assert_int_equal(total.protocol_errors[i], v);
	for (unsigned i = 0; i < AUTH_FAILURES; i++, v += 2)
		assert_int_equal(total.auth_failures[i], v);
	assert_int_equal(total.run_delay_us.count, 2);
	assert_int_equal(total.run_delay_us.sum, v);
	assert_int_equal(total.loop_us.count, 2);
	assert_int_equal(total.loop_us.sum, 2 * v);
	assert_int_equal(total.loop_us.max, a.loop_us.max);
	assert_int_equal(total.loop_us.min, b.loop_us.min);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names_and_helps),
		cmocka_unit_test(test_names_are_unique),
		cmocka_unit_test(test_init),
		cmocka_unit_test(test_merge_adds_every_field),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
