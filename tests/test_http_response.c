/* proto/http_response: what is answered, byte for byte, and that the longest answer fits its
 * buffer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/http_upgrade.h"
#include "support/guard.h"

#define KEY    "dGhlIHNhbXBsZSBub25jZQ==" /* RFC 6455 1.3, with its answer */
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

static struct http_str str(const char *s)
{
	return (struct http_str){s, s ? strlen(s) : 0};
}

static void assert_answer(const char *got, size_t len, const char *want)
{
	assert_int_equal(len, strlen(want));
	assert_memory_equal(got, want, len);
}

static void accept_key(void **state)
{
	char out[HTTP_ACCEPT_LEN + 1];
	http_accept_key(str(KEY), out);
	assert_string_equal(out, ACCEPT);
	http_accept_key(str("x3JJHMbDL1EzLkh9GBhXDw=="), out);
	assert_string_equal(out, "HSmrc0sMlYUkAGmm5OPpG2HaGWk=");
}

static void responses(void **state)
{
	struct guard g;
	guard_init(&g, HTTP_RESPONSE_MAX);
	char *out = (char *)guard_tail(&g, HTTP_RESPONSE_MAX);

	assert_answer(out, http_upgrade_response(out, ACCEPT, NULL),
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n");
	assert_answer(out, http_upgrade_response(out, ACCEPT, "chat"),
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: "
		"chat\r\n\r\n");
	assert_answer(out, http_response(out, 404, "no such route", 3),
		"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Type: text/plain; "
		"charset=utf-8\r\n"
		"Content-Length: 14\r\n\r\nno such route\n");
	assert_answer(out, http_response(out, 503, "draining", 3),
		"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 3\r\n"
		"Content-Type: text/plain; charset=utf-8\r\nContent-Length: 9\r\n\r\ndraining\n");

	out[http_response(out, 426, "x", 0)] = '\0';
	assert_non_null(strstr(out, "\r\nConnection: close, Upgrade\r\n"));
	assert_non_null(strstr(out, "\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"));
	out[http_response(out, 405, "x", 0)] = '\0';
	assert_non_null(strstr(out, "\r\nAllow: GET\r\n"));
	out[http_response(out, 401, "x", 0)] = '\0';
	assert_non_null(strstr(out, "\r\nWWW-Authenticate: Bearer realm=\"tidegate\"\r\n"));
	out[http_response(out, 429, "x", 0)] = '\0';
	assert_null(strstr(out, "WWW-Authenticate"));
	assert_null(strstr(out, "Retry-After"));
	assert_null(strstr(out, "Upgrade"));

	static const uint16_t not_final[] = {0, 101, 199, 600, 65535};
	for (size_t i = 0; i < sizeof(not_final) / sizeof(not_final[0]); i++) {
		out[http_response(out, not_final[i], "x", 0)] = '\0';
		assert_ptr_equal(strstr(out, "HTTP/1.1 500 Internal Server Error\r\n"), out);
	}
	guard_fini(&g);
}

/* The name may come from a service: nothing but a token reaches the header. */
static void bad_protocols_are_left_out(void **state)
{
	char too_long[HTTP_PROTOCOL_MAX + 2], out[HTTP_RESPONSE_MAX];
	memset(too_long, 'p', sizeof(too_long) - 1);
	too_long[sizeof(too_long) - 1] = '\0';
	const char *const bad[] = {
		"", "a b", "a,b", "a\r\nX-Injected: 1", "a\n", "\xc3\xa9", "a;", too_long};
	size_t without = http_upgrade_response(out, ACCEPT, NULL);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(http_upgrade_response(out, ACCEPT, bad[i]), without);
}

static void longest_responses_fit(void **state)
{
	char name[601], why[2001];
	memset(name, 'p', sizeof(name) - 1);
	name[600] = '\0';
	memset(why, 'w', sizeof(why) - 1);
	why[2000] = '\0';
	const char *supported[] = {name};
	struct guard g;
	guard_init(&g, HTTP_RESPONSE_MAX);
	char *out = (char *)guard_tail(&g, HTTP_RESPONSE_MAX);
	bool bad;

	/* a name that would not fit is not selected; the longest one that is fits */
	assert_null(http_subprotocol_select(str(name), supported, 1, &bad).data);
	name[HTTP_PROTOCOL_MAX] = '\0';
	struct http_str chosen = http_subprotocol_select(str(name), supported, 1, &bad);
	assert_int_equal(chosen.len, HTTP_PROTOCOL_MAX);
	assert_in_range(
		http_upgrade_response(out, ACCEPT, name), HTTP_PROTOCOL_MAX, HTTP_RESPONSE_MAX);

	size_t n = http_response(out, 431, why, 0);
	assert_in_range(n, 512, HTTP_RESPONSE_MAX - 1);
	out[n] = '\0';
	assert_non_null(strstr(out, "Content-Length: 513\r\n"));
	assert_int_equal(strlen(strstr(out, "\r\n\r\n") + 4), 513);
	guard_fini(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accept_key),
		cmocka_unit_test(responses),
		cmocka_unit_test(bad_protocols_are_left_out),
		cmocka_unit_test(longest_responses_fit),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
