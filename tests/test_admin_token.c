/* The token for actions over TCP: what a file may hold, and what fits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ops/admin_token.h"

static void test_check(void **state)
{
	char longest[ADMIN_TOKEN_MAX + 2];

	memset(longest, 'x', sizeof(longest));
	assert_null(admin_token_check("0123456789abcdef", 16));
	assert_null(admin_token_check("0123456789abcdef\n", 17));
	assert_null(admin_token_check("0123456789abcdef\r\n", 18));
	assert_null(admin_token_check(longest, ADMIN_TOKEN_MAX));
	assert_non_null(admin_token_check("", 0));
	assert_non_null(admin_token_check("\n", 1));
	assert_non_null(admin_token_check("0123456789abcde", 15));
	assert_non_null(admin_token_check("0123456789abcde\n", 16));
	assert_non_null(admin_token_check("0123456789abcdef\n\n", 18));
	assert_non_null(admin_token_check("0123456789 abcdef", 17));
	assert_non_null(admin_token_check("0123456789\0abcdef", 17));
	assert_non_null(admin_token_check("0123456789\xc3\xa9 abcdef", 18));
	assert_non_null(admin_token_check(longest, ADMIN_TOKEN_MAX + 1));
}

static void test_fits(void **state)
{
	struct admin_token t;

	admin_token_init(&t);
	assert_false(admin_token_is_set(&t));
	assert_false(admin_token_fits(&t, "Bearer "));
	assert_int_equal(admin_token_set(&t, "0123456789abcdef\n", 17), 0);
	assert_true(admin_token_is_set(&t));
	assert_true(admin_token_fits(&t, "Bearer 0123456789abcdef"));
	assert_true(admin_token_fits(&t, "bearer  0123456789abcdef"));
	static const char *const wrong[] = {"", "Bearer", "Bearer ", "0123456789abcdef",
		"Basic 0123456789abcdef", "Bearer 0123456789abcdeF", "Bearer 0123456789abcde",
		"Bearer 0123456789abcdef0", "Bearer 0123456789abcdef\n",
		"Bearer\t0123456789abcdef"};
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_false(admin_token_fits(&t, wrong[i]));
	assert_false(admin_token_fits(&t, NULL));

	/* A new one takes the place of the old one, a bad one does not. */
	assert_true(admin_token_set(&t, "short", 5) < 0);
	assert_true(admin_token_fits(&t, "Bearer 0123456789abcdef"));
	assert_int_equal(admin_token_set(&t, "fedcba9876543210", 16), 0);
	assert_false(admin_token_fits(&t, "Bearer 0123456789abcdef"));
	assert_true(admin_token_fits(&t, "Bearer fedcba9876543210"));
	admin_token_fini(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_check),
		cmocka_unit_test(test_fits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
