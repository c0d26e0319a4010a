/* The chat page over the admin's sockets: what is served, with which policy, and when. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>
#include <openssl/evp.h>

#include "support/admin_fixture.h"

static void test_page(void **state)
{
	for (int door = TCP; door <= LOCAL; door++) {
		struct reply r = ask(door, "GET /chat?x=1");
		size_t len;
		const char *page = admin_chat_page(&len);

		assert_int_equal(r.status, 200);
		assert_non_null(strcasestr(r.head, "Content-Type: text/html; charset=utf-8\r\n"));
		assert_non_null(strcasestr(r.head, "X-Content-Type-Options: nosniff\r\n"));
		assert_int_equal(r.body_len, len);
		assert_memory_equal(r.body, page, len);
		free(r.body);
		r = ask(door, "HEAD /chat");
		assert_int_equal(r.status, 200);
		assert_int_equal(r.body_len, 0);
		free(r.body);
	}
}

/* The page brings everything along, and puts no text of others into markup. */
static void test_self_contained(void **state)
{
	static const char *const never[] = {"http://", "https://", " src=", "@import", "url(",
		"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("};
	size_t len;
	const char *page = admin_chat_page(&len);

	assert_memory_equal(page, "<!DOCTYPE html>", 15);
	assert_int_equal(strlen(page), len);
	for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++)
		if (strstr(page, never[i]))
			fail_msg("the page has %s in it", never[i]);
}

static void assert_hash(const char *policy, const char *kind, const char *open, const char *close)
{
	size_t len;
	const char *from = strstr(admin_chat_page(&len), open) + strlen(open);
	uint8_t digest[32];
	char base64[64], want[128];

	EVP_Digest(from, (size_t)(strstr(from, close) - from), digest, NULL, EVP_sha256(), NULL);
	EVP_EncodeBlock((unsigned char *)base64, digest, sizeof(digest));
	snprintf(want, sizeof(want), "%s 'sha256-%s';", kind, base64);
	if (!strstr(policy, want))
		fail_msg("no %s in: %s", want, policy);
}

static void test_policy(void **state)
{
	struct reply r = ask(TCP, "GET /chat");
	char *policy = strcasestr(r.head, "Content-Security-Policy: ");

	assert_non_null(policy);
	policy[strcspn(policy, "\r")] = '\0';
	assert_non_null(strstr(policy, "default-src 'none'"));
	assert_hash(policy, "script-src", "<script>", "</script>");
	assert_hash(policy, "style-src", "<style>", "</style>");
	assert_null(strstr(policy, "unsafe"));
	/* A port once, whatever stands behind it. */
	assert_string_equal(
		strstr(policy, "connect-src"), "connect-src 'self' ws://*:8080 ws://*:8443");
	free(r.body);
}

static void test_hubs(void **state)
{
	json_t *j = ask_json("GET /v1/hub.json", 200), *list = json_object_get(j, "hubs");

	assert_int_equal(json_array_size(list), 3);
	for (unsigned i = 0; i < 3; i++) {
		assert_string_equal(text(json_array_get(list, i), "path"), hubs[i].path);
		assert_int_equal(number(json_array_get(list, i), "port"), hubs[i].port);
	}
	json_decref(j);
}

static int setup_without_hub(void **state)
{
	n_hubs = 0;
	return setup(state);
}

static int teardown_without_hub(void **state)
{
	n_hubs = 3;
	return teardown(state);
}

static void test_without_hub(void **state)
{
	json_t *j = ask_json("GET /v1/hub.json", 200);

	assert_int_equal(json_array_size(json_object_get(j, "hubs")), 0);
	json_decref(j);
	assert_error(TCP, "GET /chat", 404, "hub");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_ADMIN(test_page),
		cmocka_unit_test(test_self_contained),
		WITH_ADMIN(test_policy),
		WITH_ADMIN(test_hubs),
		cmocka_unit_test_setup_teardown(
			test_without_hub, setup_without_hub, teardown_without_hub),
	};
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
