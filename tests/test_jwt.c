#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/base64url.h"
#include "proto/jwt.h"
#include "support/guard.h"

enum {
	TEXT_MAX = 8192
};

static struct guard g;

static int setup(void **state)
{
	guard_init(&g, 3 * JWT_LEN_MAX);
	return 0;
}

static int teardown(void **state)
{
	guard_fini(&g);
	return 0;
}

/* header and payload as JSON, sig as it stands; ends at the guard page. */
static const char *make(const char *header, const char *payload, const char *sig, size_t *ret_len)
{
	static char text[3 * JWT_LEN_MAX];
	size_t n = base64url_encode(text, header, strlen(header));

	text[n++] = '.';
	n += base64url_encode(text + n, payload, strlen(payload));
	text[n++] = '.';
	memcpy(text + n, sig, strlen(sig));
	n += strlen(sig);
	*ret_len = n;
	return (const char *)guard_copy(&g, text, n);
}

static enum auth_failure parse(
	const char *header, const char *payload, const char *sig, struct jwt_parts *ret)
{
	size_t len;
	const char *text = make(header, payload, sig, &len);

	return jwt_parse(text, len, ret);
}

static void test_header(void **state)
{
	struct jwt_parts p;

	assert_int_equal(
		parse("{\"alg\":\"RS256\",\"kid\":\"k1\"}", "{}", "c2ln", &p), AUTH_PASSED);
	assert_int_equal(p.algorithm, JWT_RS256);
	assert_true(p.has_kid);
	assert_string_equal(p.kid, "k1");
	assert_int_equal(p.payload_len, 3);
	assert_memory_equal(p.payload, "e30", 3);
	assert_int_equal(
		parse("{\"typ\":\"JWT\",\"alg\":\"ES256\"}", "{}", "c2ln", &p), AUTH_PASSED);
	assert_int_equal(p.algorithm, JWT_ES256);
	assert_false(p.has_kid);
	assert_int_equal(parse("{\"alg\":\"HS256\",\"kid\":\"\"}", "{}", "c2ln", &p), AUTH_PASSED);
	assert_int_equal(p.algorithm, JWT_HS256);
	assert_true(p.has_kid);
}

static void test_other_algorithms(void **state)
{
	static const char *const names[] = {"none", "None", "HS384", "RS512", "PS256", "EdDSA",
		"rs256", "RS256 ", "", "HS2560"};
	struct jwt_parts p;
	char header[64];

	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		snprintf(header, sizeof header, "{\"alg\":\"%s\"}", names[i]);
		assert_int_equal(parse(header, "{}", "c2ln", &p), AUTH_PASSED);
		assert_int_equal(p.algorithm, JWT_OTHER);
		assert_int_equal(parse(header, "{}", "", &p), AUTH_PASSED);
		assert_int_equal(p.algorithm, JWT_OTHER);
	}
	assert_int_equal(parse("{\"alg\":\"HS256\"}", "{}", "", &p), AUTH_FAIL_MALFORMED);
}

static void test_bad_headers(void **state)
{
	static const char *const headers[] = {"", "[]", "\"RS256\"", "{}", "{\"alg\":1}",
		"{\"alg\":null}", "{\"alg\":\"RS256\",\"alg\":\"none\"}", "{\"alg\":\"RS256\"",
		"{\"alg\":\"RS256\"} x", "{\"alg\":\"RS256\",\"kid\":1}",
		"{\"alg\":\"RS256\",\"crit\":[\"exp\"]}",
		"{\"alg\":\"RS256\",\"kid\":\"a\\u0000b\"}", "{\"alg\":\"\xff\"}"};
	struct jwt_parts p;

	for (size_t i = 0; i < sizeof headers / sizeof *headers; i++)
		assert_int_equal(parse(headers[i], "{}", "c2ln", &p), AUTH_FAIL_MALFORMED);
}

/* A header one byte above its bound, a kid one above its, a token one above its. */
static void test_sizes(void **state)
{
	static char header[JWT_HEADER_MAX + 2], kid[JWT_KID_MAX + 64], payload[JWT_LEN_MAX];
	struct jwt_parts p;

	for (unsigned over = 0; over < 2; over++) {
		int n = snprintf(header, sizeof header, "{\"alg\":\"RS256\",\"x\":\"");

		memset(header + n, 'y', sizeof header - (size_t)n);
		strcpy(header + JWT_HEADER_MAX + over - 2, "\"}");
		assert_int_equal(strlen(header), JWT_HEADER_MAX + over);
		assert_int_equal(
			parse(header, "{}", "c2ln", &p), over ? AUTH_FAIL_MALFORMED : AUTH_PASSED);
		snprintf(kid, sizeof kid, "{\"alg\":\"RS256\",\"kid\":\"%0*d\"}",
			JWT_KID_MAX + (int)over, 7);
		assert_int_equal(
			parse(kid, "{}", "c2ln", &p), over ? AUTH_FAIL_MALFORMED : AUTH_PASSED);
	}
	for (unsigned n = JWT_LEN_MAX / 4 * 3 - 40; n < JWT_LEN_MAX / 4 * 3; n++) {
		size_t len;
		const char *text;

		memset(payload, ' ', n);
		payload[n] = '\0';
		text = make("{\"alg\":\"RS256\"}", payload, "c2ln", &len);
		assert_int_equal(jwt_parse(text, len, &p),
			len > JWT_LEN_MAX ? AUTH_FAIL_MALFORMED : AUTH_PASSED);
	}
}

/* Every prefix of a token, and every token with one more byte somewhere. */
static void test_shape(void **state)
{
	static const char *const shapes[] = {"", ".", "..", "...", "e30", "e30.", "e30.e30",
		"e30..", ".e30.", "..c2ln", "e30=.e30.c2ln", "e30.e30=.c2ln",
		"e30.e30.c2ln=", "e30.e30.c2ln.x", "e30.e30.c2 n", "e30.e3\n.c2ln"};
	char copy[TEXT_MAX];
	struct jwt_parts p;
	size_t len;
	const char *text = make("{\"alg\":\"RS256\"}", "{\"sub\":\"x\"}", "c2lnbmF0dXJl", &len);
	const char *last = text + len - strlen("c2lnbmF0dXJl");

	memcpy(copy, text, len);
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
		assert_int_equal(
			jwt_parse((const char *)guard_copy(&g, shapes[i], strlen(shapes[i])),
				strlen(shapes[i]), &p),
			AUTH_FAIL_MALFORMED);
	for (size_t n = 0; n <= (size_t)(last - text); n++)
		assert_int_equal(jwt_parse((const char *)guard_copy(&g, copy, n), n, &p),
			AUTH_FAIL_MALFORMED);
	for (size_t at = 0; at <= len; at++) {
		static const char odd[] = {'.', '=', '+', '/', ' ', '\n', '\0', '%', (char)0x80};

		for (size_t k = 0; k < sizeof odd; k++) {
			char more[TEXT_MAX];

			memcpy(more, copy, at);
			more[at] = odd[k];
			memcpy(more + at + 1, copy + at, len - at);
			assert_int_equal(
				jwt_parse((const char *)guard_copy(&g, more, len + 1), len + 1, &p),
				AUTH_FAIL_MALFORMED);
		}
	}
}

static json_t *claims_of(const char *payload)
{
	struct jwt_parts p;

	assert_int_equal(parse("{\"alg\":\"RS256\"}", payload, "c2ln", &p), AUTH_PASSED);
	return jwt_claims(&p);
}

static void test_claims_text(void **state)
{
	static const char *const bad[] = {"x", "[]", "1", "{\"a\":1,\"a\":2}", "{", "{}{}", "\"\""};
	json_t *o = claims_of("{\"sub\":\"alice\",\"n\":[1,{\"x\":null}]}");

	assert_string_equal(json_string_value(json_object_get(o, "sub")), "alice");
	json_decref(o);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_null(claims_of(bad[i]));
}

static const char *const audiences[] = {"chat", "other"};

static enum auth_failure check(const char *payload, const struct jwt_expect *e, int64_t now_s)
{
	json_t *o = claims_of(payload);
	int64_t expires = -1;
	enum auth_failure f;

	assert_non_null(o);
	f = jwt_claims_check(o, e, now_s, &expires);
	assert_true((f == AUTH_PASSED) == (expires >= 0));
	json_decref(o);
	return f;
}

static void test_times(void **state)
{
	const struct jwt_expect exact = {.leeway_s = 0}, lenient = {.leeway_s = 30};

	assert_int_equal(check("{\"exp\":1000}", &exact, 999), AUTH_PASSED);
	assert_int_equal(check("{\"exp\":1000}", &exact, 1000), AUTH_FAIL_EXPIRED);
	assert_int_equal(check("{\"exp\":1000.9}", &exact, 999), AUTH_PASSED);
	assert_int_equal(check("{\"exp\":1000}", &lenient, 1029), AUTH_PASSED);
	assert_int_equal(check("{\"exp\":1000}", &lenient, 1030), AUTH_FAIL_EXPIRED);
	assert_int_equal(check("{\"exp\":1000,\"nbf\":500}", &exact, 500), AUTH_PASSED);
	assert_int_equal(check("{\"exp\":1000,\"nbf\":500}", &exact, 499), AUTH_FAIL_NOT_YET_VALID);
	assert_int_equal(check("{\"exp\":1000,\"nbf\":500}", &lenient, 470), AUTH_PASSED);
	assert_int_equal(
		check("{\"exp\":1000,\"nbf\":500}", &lenient, 469), AUTH_FAIL_NOT_YET_VALID);
	assert_int_equal(check("{\"exp\":0}", &exact, 0), AUTH_FAIL_EXPIRED);
}

static void test_odd_claims(void **state)
{
	static const char *const bad[] = {"{}", "{\"exp\":\"1000\"}", "{\"exp\":null}",
		"{\"exp\":-1}", "{\"exp\":true}", "{\"exp\":1e300}", "{\"exp\":[1000]}",
		"{\"exp\":1000,\"nbf\":\"1\"}", "{\"exp\":1000,\"nbf\":-1}",
		"{\"exp\":1000,\"sub\":1}", "{\"exp\":1000,\"sub\":null}"};
	const struct jwt_expect e = {.leeway_s = 0};
	char sub[JWT_SUBJECT_MAX + 64];

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_int_equal(check(bad[i], &e, 1), AUTH_FAIL_MALFORMED);
	for (int over = 0; over < 2; over++) {
		snprintf(sub, sizeof sub, "{\"exp\":1000,\"sub\":\"%0*d\"}", JWT_SUBJECT_MAX + over,
			7);
		assert_int_equal(check(sub, &e, 1), over ? AUTH_FAIL_MALFORMED : AUTH_PASSED);
	}
}

static void test_audience_and_issuer(void **state)
{
	static const struct {
		const char *claims;
		enum auth_failure want;
	} cases[] = {
		{"{\"exp\":9,\"iss\":\"me\",\"aud\":\"chat\"}", AUTH_PASSED},
		{"{\"exp\":9,\"iss\":\"me\",\"aud\":[\"x\",\"other\"]}", AUTH_PASSED},
		{"{\"exp\":9,\"iss\":\"me\",\"aud\":\"chat2\"}", AUTH_FAIL_AUDIENCE},
		{"{\"exp\":9,\"iss\":\"me\",\"aud\":\"cha\"}", AUTH_FAIL_AUDIENCE},
		{"{\"exp\":9,\"iss\":\"me\",\"aud\":[]}", AUTH_FAIL_AUDIENCE},
		{"{\"exp\":9,\"iss\":\"me\",\"aud\":[[\"chat\"],1]}", AUTH_FAIL_AUDIENCE},
		{"{\"exp\":9,\"iss\":\"me\"}", AUTH_FAIL_AUDIENCE},
		{"{\"exp\":9,\"iss\":\"Me\",\"aud\":\"chat\"}", AUTH_FAIL_ISSUER},
		{"{\"exp\":9,\"iss\":[\"me\"],\"aud\":\"chat\"}", AUTH_FAIL_ISSUER},
		{"{\"exp\":9,\"aud\":\"chat\"}", AUTH_FAIL_ISSUER},
	};
	const struct jwt_expect e = {.audiences = audiences, .n_audiences = 2, .issuer = "me"},
				any = {.leeway_s = 0};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		assert_int_equal(check(cases[i].claims, &e, 1), cases[i].want);
		assert_int_equal(check(cases[i].claims, &any, 1), AUTH_PASSED);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_other_algorithms),
		cmocka_unit_test(test_bad_headers),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_shape),
		cmocka_unit_test(test_claims_text),
		cmocka_unit_test(test_times),
		cmocka_unit_test(test_odd_claims),
		cmocka_unit_test(test_audience_and_issuer),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
