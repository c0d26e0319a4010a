#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/auth_fixture.h"

static struct key_pair rsa, small, ec, p384;
static const char secret[] = "0123456789abcdef0123456789abcdef";

static int setup(void **state)
{
	key_pair_rsa(2048, &rsa);
	key_pair_rsa(1024, &small);
	key_pair_ec("P-256", &ec);
	key_pair_ec("P-384", &p384);
	return 0;
}

static void expect(enum jwt_algorithm a, const char *content, const char *want)
{
	struct auth_file f = file_of(content);
	const char *why = auth_key_check(a, &f);

	if (want)
		assert_string_equal(why, want);
	else
		assert_null(why);
}

static void test_checks(void **state)
{
	char cut[2048];

	expect(JWT_RS256, rsa.public_pem, NULL);
	expect(JWT_ES256, ec.public_pem, NULL);
	expect(JWT_HS256, secret, NULL);
	expect(JWT_RS256, ec.public_pem, "is not an RSA key");
	expect(JWT_ES256, rsa.public_pem, "is not an EC key");
	expect(JWT_RS256, small.public_pem, "has fewer than 2048 bits");
	expect(JWT_ES256, p384.public_pem, "is not of the curve P-256");
	expect(JWT_RS256, rsa.private_pem,
		"holds a private key: the gateway needs the public one only");
	/* The public key as a secret is how a forger would have it. */
	expect(JWT_HS256, rsa.public_pem, "is a PEM file, not a secret");
	expect(JWT_RS256, secret, "is not a public key in PEM");
	expect(JWT_RS256, "", "is not a public key in PEM");
	for (size_t n = 0; n < strlen(rsa.public_pem) - 30; n += 7) {
		memcpy(cut, rsa.public_pem, n);
		cut[n] = '\0';
		expect(JWT_RS256, cut, "is not a public key in PEM");
	}
}

static void test_secret_length(void **state)
{
	static const struct {
		const char *text;
		size_t len;
	} cases[] = {{"0123456789abcdef0123456789abcde", 0},
		{"0123456789abcdef0123456789abcde\n", 0}, {"0123456789abcdef0123456789abcdef", 32},
		{"0123456789abcdef0123456789abcdef\n", 32},
		{"0123456789abcdef0123456789abcdef\r\n", 32},
		{"0123456789abcdef0123456789abcdef\n\n", 33}};
	char *big = calloc(1, AUTH_FILE_MAX + 1);

	assert_non_null(big);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct auth_file f = file_of(cases[i].text);

		assert_int_equal(auth_secret_check(&f) == NULL, cases[i].len != 0);
		if (cases[i].len)
			assert_int_equal(auth_secret_len(&f), cases[i].len);
	}
	assert_null(auth_secret_check(&(struct auth_file){big, AUTH_FILE_MAX}));
	assert_non_null(auth_secret_check(&(struct auth_file){big, AUTH_FILE_MAX + 1}));
	assert_non_null(auth_secret_check(&(struct auth_file){NULL, 0}));
	free(big);
}

static const struct auth_key *find(const struct auth_keys *k, const char *kid)
{
	struct jwt_parts p = {.has_kid = kid != NULL};

	if (kid)
		strcpy(p.kid, kid);
	return auth_keys_find(k, &p);
}

static void test_find(void **state)
{
	static const struct auth_key_spec specs[] = {
		{"a", JWT_RS256}, {NULL, JWT_ES256}, {"h", JWT_HS256}};
	const struct auth_file files[] = {file_of("first secret, first secret, first secret\n"),
		file_of("second secret, second secret, second secret"), file_of(rsa.public_pem),
		file_of(ec.public_pem), file_of(secret)};
	struct auth_keys *k;
	const struct token_secret *s;
	const char *why;
	unsigned n, bad;

	assert_int_equal(auth_keys_create(specs, 3, 2, files, &k, &bad, &why), 0);
	assert_string_equal((const char *)find(k, "a")->data, rsa.public_pem);
	assert_int_equal(find(k, "h")->len, 32);
	assert_int_equal(find(k, NULL)->algorithm, JWT_ES256);
	assert_null(find(k, "b"));
	assert_null(find(k, ""));
	s = auth_keys_secrets(k, &n);
	assert_int_equal(n, 2);
	assert_int_equal(s[0].len, strlen("first secret, first secret, first secret"));
	assert_memory_equal(s[1].data, "second", 6);
	auth_keys_ref(k);
	auth_keys_unref(k);
	assert_non_null(find(k, "a"));
	auth_keys_unref(k);

	/* The only key is also that of tokens that name none; not of those that name another. */
	assert_int_equal(auth_keys_create(specs, 1, 0, &files[2], &k, &bad, &why), 0);
	assert_non_null(find(k, NULL));
	assert_non_null(find(k, "a"));
	assert_null(find(k, "b"));
	auth_keys_unref(k);
	assert_int_equal(auth_keys_create(NULL, 0, 1, files, &k, &bad, &why), 0);
	assert_null(find(k, NULL));
	auth_keys_unref(k);
	auth_keys_unref(NULL);
}

static void test_bad_file(void **state)
{
	static const struct auth_key_spec specs[] = {{"a", JWT_RS256}, {"b", JWT_ES256}};
	struct auth_file files[] = {
		file_of(secret), file_of(rsa.public_pem), file_of(rsa.public_pem)};
	struct auth_keys *k = NULL;
	const char *why = NULL;
	unsigned bad = 99;

	assert_int_equal(auth_keys_create(specs, 2, 1, files, &k, &bad, &why), -EINVAL);
	assert_int_equal(bad, 2);
	assert_string_equal(why, "is not an EC key");
	assert_null(k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_checks),
		cmocka_unit_test(test_secret_length),
		cmocka_unit_test(test_find),
		cmocka_unit_test(test_bad_file),
	};
	return cmocka_run_group_tests(tests, setup, NULL);
}
