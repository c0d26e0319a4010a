#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

#include "proto/token.h"
#include "support/guard.h"

static const struct token_secret secrets[] = {
	{"0123456789abcdef0123456789abcdef", 32},
	{"another secret of thirty-six bytes..", 36},
	{"a third one that nobody is told of...", 37},
};

static struct guard g;

static int setup(void **state)
{
	guard_init(&g, 4096);
	return 0;
}

static int teardown(void **state)
{
	guard_fini(&g);
	return 0;
}

/* Every token is looked at where its end meets a page that may not be touched. */
static enum auth_failure verify(const char *text, size_t len, uint64_t now_s, struct token *ret)
{
	return token_verify(
		(const char *)guard_copy(&g, text, len), len, secrets, 2, now_s, 0, ret);
}

/* base64url of RFC 4648's test vectors, without padding, and what is none. */
static void test_base64url(void **state)
{
	static const struct {
		const char *plain, *text;
	} cases[] = {
		{"", ""},
		{"f", "Zg"},
		{"fo", "Zm8"},
		{"foo", "Zm9v"},
		{"foob", "Zm9vYg"},
		{"fooba", "Zm9vYmE"},
		{"foobar", "Zm9vYmFy"},
		{"\xfb\xff\xfe", "-__-"},
	};
	static const char *const bad[] = {"Z", "Zg==", "Zh", "Zm9", "Zm+v", "Zm/v", "Zm9v\n",
		"Zm 9v", "Zm9vY", "Zm9v.", "Zm9\xc3"};
	char out[16];

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		size_t plain = strlen(cases[i].plain), text = strlen(cases[i].text);

		assert_int_equal(base64url_encode(out, cases[i].plain, plain), text);
		assert_memory_equal(out, cases[i].text, text);
		assert_int_equal(BASE64URL_LEN(plain), text);
		assert_int_equal(base64url_decode(out, sizeof out, cases[i].text, text), plain);
		assert_memory_equal(out, cases[i].plain, plain);
		assert_true(BASE64URL_DECODED(text) >= plain);
		if (plain)
			assert_int_equal(
				base64url_decode(out, plain - 1, cases[i].text, text), -EPROTO);
		assert_int_equal(base64url_decode(out, plain, cases[i].text, text), plain);
	}
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(
			base64url_decode(out, sizeof out, bad[i], strlen(bad[i])), -EPROTO);
}

static void test_round_trip(void **state)
{
	static const char *const subjects[] = {
		"a", "alice", "a|b|7", "|", "gr\xc3\xbc\xc3\x9f", " "};
	char text[TOKEN_MAX + 1];
	struct token t;

	for (size_t i = 0; i < sizeof subjects / sizeof *subjects; i++)
		for (unsigned k = 0; k < 2; k++) {
			size_t len = token_write(
				text, subjects[i], strlen(subjects[i]), 2000, &secrets[k]);

			assert_true(len > 0 && len <= TOKEN_MAX);
			assert_int_equal(strlen(text), len);
			assert_int_equal(verify(text, len, 1999, &t), AUTH_PASSED);
			assert_string_equal(t.subject, subjects[i]);
			assert_int_equal(t.subject_len, strlen(subjects[i]));
			assert_int_equal(t.expires_s, 2000);
		}
}

/* Made with printf and openssl, as the header describes. */
static void test_known(void **state)
{
	static const char text[] = "tg1.YWxpY2V8MTkwMDAwMDAwMA."
				   "NRbhZgPRZith7jxfaj5354Sr_aEGosPGUpvpgwpW-yA";
	struct token t;

	assert_int_equal(verify(text, strlen(text), 1899999999, &t), AUTH_PASSED);
	assert_string_equal(t.subject, "alice");
	assert_int_equal(t.expires_s, 1900000000);
}

static void test_expiry(void **state)
{
	char text[TOKEN_MAX + 1];
	size_t len = token_write(text, "x", 1, 1000, &secrets[0]);
	struct token t;

	assert_int_equal(verify(text, len, 0, &t), AUTH_PASSED);
	assert_int_equal(verify(text, len, 999, &t), AUTH_PASSED);
	assert_int_equal(verify(text, len, 1000, &t), AUTH_FAIL_EXPIRED);
	assert_int_equal(verify(text, len, UINT64_MAX, &t), AUTH_FAIL_EXPIRED);
	assert_int_equal(token_verify(text, len, secrets, 1, 1029, 30, &t), AUTH_PASSED);
	assert_int_equal(token_verify(text, len, secrets, 1, 1030, 30, &t), AUTH_FAIL_EXPIRED);
	len = token_write(text, "x", 1, TOKEN_EXPIRES_MAX, &secrets[0]);
	assert_int_equal(verify(text, len, TOKEN_EXPIRES_MAX - 1, &t), AUTH_PASSED);
}

static void test_secrets(void **state)
{
	char text[TOKEN_MAX + 1];
	size_t len = token_write(text, "x", 1, 1000, &secrets[2]);
	struct token t;

	assert_int_equal(verify(text, len, 0, &t), AUTH_FAIL_SIGNATURE);
	assert_int_equal(token_verify(text, len, secrets, 3, 0, 0, &t), AUTH_PASSED);
	assert_int_equal(token_verify(text, len, secrets, 0, 0, 0, &t), AUTH_FAIL_SIGNATURE);
}

static void test_what_cannot_be_written(void **state)
{
	char text[TOKEN_MAX + 1], subject[TOKEN_SUBJECT_MAX + 1];
	struct token t;
	size_t len;

	memset(subject, 'x', sizeof subject);
	len = token_write(text, subject, TOKEN_SUBJECT_MAX, TOKEN_EXPIRES_MAX, &secrets[0]);
	assert_int_equal(len, TOKEN_MAX); /* the bound is the longest one's length */
	assert_int_equal(verify(text, len, 0, &t), AUTH_PASSED);
	assert_int_equal(token_write(text, subject, TOKEN_SUBJECT_MAX + 1, 1, &secrets[0]), 0);
	assert_int_equal(token_write(text, "x", 1, TOKEN_EXPIRES_MAX + 1, &secrets[0]), 0);
	assert_int_equal(token_write(text, "", 0, 1, &secrets[0]), 0);
	assert_int_equal(token_write(text, "a\nb", 3, 1, &secrets[0]), 0);
	assert_int_equal(token_write(text, "a\0b", 3, 1, &secrets[0]), 0);
	assert_int_equal(token_write(text, "\xff", 1, 1, &secrets[0]), 0);
}

/* Every length but the right one, every byte but the right one. */
static void test_near_misses(void **state)
{
	char text[TOKEN_MAX + 8];
	size_t len = token_write(text, "alice", 5, 2000, &secrets[0]);
	struct token t;

	for (size_t n = 0; n < len; n++)
		assert_int_not_equal(verify(text, n, 0, &t), AUTH_PASSED);
	for (unsigned c = 0; c < 256; c++) {
		text[len] = (char)c;
		assert_int_not_equal(verify(text, len + 1, 0, &t), AUTH_PASSED);
	}
	for (size_t i = 0; i < len; i++) {
		char was = text[i];

		for (unsigned c = 0; c < 256; c++) {
			text[i] = (char)c;
			if (text[i] != was)
				assert_int_not_equal(verify(text, len, 0, &t), AUTH_PASSED);
		}
		text[i] = was;
	}
	assert_int_equal(verify(text, len, 0, &t), AUTH_PASSED);
}

/* Genuine, and still not what it should be: one who has the secret made a mistake. */
static void test_odd_contents(void **state)
{
	static const char *const texts[] = {"alice", "alice|", "|5", "alice|05", "alice|-5",
		"alice|+5", "alice|5 ", "alice|0x5", "alice|1234567890123", "al\nice|5", "\xff|5"};
	struct token t;

	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		unsigned char mac[TOKEN_MAC_LEN];
		char text[TOKEN_MAX + 1] = "tg1.";
		size_t len = 4, n = strlen(texts[i]);
		unsigned mac_len;

		assert_non_null(HMAC(EVP_sha256(), secrets[0].data, (int)secrets[0].len,
			(const unsigned char *)texts[i], n, mac, &mac_len));
		len += base64url_encode(text + len, texts[i], n);
		text[len++] = '.';
		len += base64url_encode(text + len, mac, sizeof mac);
		assert_int_equal(verify(text, len, 0, &t), AUTH_FAIL_MALFORMED);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_base64url),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_known),
		cmocka_unit_test(test_expiry),
		cmocka_unit_test(test_secrets),
		cmocka_unit_test(test_what_cannot_be_written),
		cmocka_unit_test(test_near_misses),
		cmocka_unit_test(test_odd_contents),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
