#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "support/admission_fixture.h"

static uint32_t value(const struct prefix_list *l, const char *text)
{
	struct in6_addr a = addr(text);
	const struct prefix_entry *e = prefix_list_find(l, &a);

	return e ? e->value : 0;
}

static void test_longest_wins(void **state)
{
	const struct prefix_entry e[] = {
		{addr("10.0.0.0"), 96 + 8, 1},
		{addr("10.1.0.0"), 96 + 16, 2},
		{addr("10.1.2.3"), 128, 3},
		{addr("2001:db8::"), 32, 4},
		{addr("2001:db8::"), 33, 5},
		{addr("2001:db8:8000::"), 33, 6},
	};
	struct prefix_list l;

	assert_int_equal(prefix_list_init(&l, e, 6), 0);
	assert_int_equal(value(&l, "10.2.3.4"), 1);
	assert_int_equal(value(&l, "10.1.9.9"), 2);
	assert_int_equal(value(&l, "10.1.2.3"), 3);
	assert_int_equal(value(&l, "10.1.2.4"), 2);
	assert_int_equal(value(&l, "11.0.0.0"), 0);
	assert_int_equal(value(&l, "9.255.255.255"), 0);
	assert_int_equal(value(&l, "2001:db8::1"), 5);
	assert_int_equal(value(&l, "2001:db8:ffff::1"), 6);
	assert_int_equal(value(&l, "2001:db9::1"), 0);
	prefix_list_fini(&l);
}

static void test_edges(void **state)
{
	struct prefix_entry all = {addr("::"), 0, 7}, host_bits = {addr("10.1.2.3"), 96 + 8, 8};
	struct prefix_entry twice[] = {
		{addr("10.0.0.0"), 104, 1}, {addr("10.0.0.0"), 104, 2}, {addr("11.0.0.0"), 104, 3}};
	struct prefix_list l, none = {0};

	assert_int_equal(value(&none, "10.0.0.1"), 0);
	prefix_list_fini(&none);
	assert_int_equal(prefix_list_init(&l, NULL, 0), 0);
	assert_int_equal(value(&l, "10.0.0.1"), 0);
	prefix_list_fini(&l);
	assert_int_equal(prefix_list_init(&l, &all, 1), 0);
	assert_int_equal(value(&l, "10.0.0.1"), 7);
	assert_int_equal(value(&l, "ffff::1"), 7);
	prefix_list_fini(&l);
	assert_int_equal(prefix_list_init(&l, &host_bits, 1), 0); /* cut to the prefix */
	assert_int_equal(value(&l, "10.200.0.1"), 8);
	prefix_list_fini(&l);
	assert_int_equal(prefix_list_init(&l, twice, 3), 0);
	assert_int_equal(l.n, 2);
	assert_int_equal(value(&l, "10.0.0.1"), 2); /* the later one counts */
	assert_int_equal(value(&l, "11.0.0.1"), 3);
	prefix_list_fini(&l);
	assert_int_equal(prefix_list_init(&l, twice, PREFIX_LIST_MAX + 1), -E2BIG);
}

/* Against a search that looks at everything. */
static void test_agrees_with_a_plain_search(void **state)
{
	enum {
		N = 500
	};
	struct prefix_entry e[N];
	struct prefix_list l;
	uint64_t rand = 42;

	for (unsigned i = 0; i < N; i++) {
		memset(&e[i], 0, sizeof e[i]);
		rand = rand * 6364136223846793005u + 1442695040888963407u;
		e[i].len = (uint8_t)((rand >> 33) % 20);
		e[i].addr.s6_addr[0] = (uint8_t)(rand >> 40);
		e[i].addr.s6_addr[1] = (uint8_t)(rand >> 48 & 7);
		e[i].addr = prefix_mask(&e[i].addr, e[i].len);
		e[i].value = i + 1;
	}
	assert_int_equal(prefix_list_init(&l, e, N), 0);
	for (unsigned k = 0; k < 1 << 16; k++) {
		struct in6_addr a = {.s6_addr = {(uint8_t)(k >> 8), (uint8_t)k}};
		const struct prefix_entry *want = NULL, *got = prefix_list_find(&l, &a);

		for (unsigned i = 0; i < N; i++) {
			struct in6_addr m = prefix_mask(&a, e[i].len);

			if (!memcmp(&m, &e[i].addr, sizeof m) && (!want || e[i].len >= want->len))
				want = &e[i];
		}
		assert_int_equal(got != NULL, want != NULL);
		if (got)
			assert_int_equal(got->value, want->value);
	}
	prefix_list_fini(&l);
}

static void test_format(void **state)
{
	char text[PREFIX_TEXT_MAX];
	struct in6_addr a = addr("10.1.0.0"), b = addr("2001:db8::"), c = addr("::");

	assert_string_equal(prefix_format(&a, 112, text), "10.1.0.0/16");
	assert_string_equal(prefix_format(&b, 32, text), "2001:db8::/32");
	assert_string_equal(prefix_format(&c, 0, text), "::/0");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_longest_wins),
		cmocka_unit_test(test_edges),
		cmocka_unit_test(test_format),
		cmocka_unit_test(test_agrees_with_a_plain_search),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
