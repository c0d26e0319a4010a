/* The dashboard as it is served: the page, its policy, and what it offers. How it looks and lives
 * is tests/e2e/test_dashboard.py's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/evp.h>

#include "ops/admin_dashboard.h"
#include "ops/admin_page.h"
#include "support/admin_fixture.h"

static void test_page(void **state)
{
	for (int door = TCP; door <= LOCAL; door++) {
		struct reply r = ask(door, "GET /?x=1");
		size_t len;
		const char *page = admin_dashboard_page(&len);

		assert_int_equal(r.status, 200);
		assert_non_null(strcasestr(r.head, "Content-Type: text/html; charset=utf-8\r\n"));
		assert_non_null(strcasestr(r.head, "X-Content-Type-Options: nosniff\r\n"));
		assert_non_null(strcasestr(r.head, "Referrer-Policy: no-referrer\r\n"));
		assert_int_equal(r.body_len, len);
		assert_memory_equal(r.body, page, len);
		free(r.body);
		r = ask(door, "HEAD /");
		assert_int_equal(r.status, 200);
		assert_int_equal(r.body_len, 0);
		free(r.body);
	}
	assert_error(TCP, "POST /", 405, "/ takes GET, HEAD");
}

/* One file with the library and its licence in it, and no text of others in markup. */
static void test_self_contained(void **state)
{
	static const char *const never[] = {" src=", "@import", "url(", "innerHTML", "outerHTML",
		"insertAdjacentHTML", "document.write", "eval(", "@STYLE@", "@SCRIPT@",
		"@LICENSE@"};
	size_t len;
	const char *page = admin_dashboard_page(&len);

	assert_memory_equal(page, "<!DOCTYPE html>", 15);
	assert_int_equal(strlen(page), len);
	assert_non_null(strstr(page, "The MIT License (MIT)"));
	assert_non_null(strstr(page, "var uPlot="));
	for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++)
		if (strstr(page, never[i]))
			fail_msg("the page has %s in it", never[i]);
}

static void assert_hash(const char *policy, const char *kind, const char *open, const char *close)
{
	size_t len;
	const char *from = strstr(admin_dashboard_page(&len), open) + strlen(open);
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
	struct reply r = ask(TCP, "GET /");
	char *policy = strcasestr(r.head, "Content-Security-Policy: ");

	assert_non_null(policy);
	policy[strcspn(policy, "\r")] = '\0';
	assert_non_null(strstr(policy, "default-src 'none'"));
	assert_non_null(strstr(policy, "frame-ancestors 'none'"));
	assert_hash(policy, "script-src", "<script>", "</script>");
	assert_hash(policy, "style-src", "<style>", "</style>");
	assert_null(strstr(policy, "unsafe"));
	assert_string_equal(strstr(policy, "connect-src"), "connect-src 'self'");
	free(r.body);
}

static void test_policy_of_what_is_no_page(void **state)
{
	char *policy;

	assert_int_equal(admin_page_policy("<html></html>", "", &policy), -EINVAL);
	assert_int_equal(admin_page_policy("<script>1</script>", "", &policy), -EINVAL);
	assert_int_equal(admin_page_policy("<script>1</script><style>", "", &policy), -EINVAL);
	assert_int_equal(
		admin_page_policy("<style></style><script>1</script>", " ws://x", &policy), 0);
	assert_non_null(strstr(policy, "connect-src 'self' ws://x"));
	free(policy);
}

static void assert_offers(bool chat, bool actions)
{
	struct reply r = ask(TCP, "GET /v1/page.json");
	json_t *j = json_loads(r.body, 0, NULL);

	assert_int_equal(r.status, 200);
	assert_int_equal(json_is_true(json_object_get(j, "chat")), chat);
	assert_int_equal(json_is_true(json_object_get(j, "actions")), actions);
	json_decref(j);
	free(r.body);
}

static void test_offers(void **state)
{
	assert_offers(true, false);
	assert_int_equal(admin_token_set(&token, "0123456789abcdef", 16), 0);
	assert_offers(true, true);
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
	struct reply r = ask(TCP, "GET /");

	assert_int_equal(r.status, 200);
	free(r.body);
	assert_offers(false, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_ADMIN(test_page),
		cmocka_unit_test(test_self_contained),
		WITH_ADMIN(test_policy),
		cmocka_unit_test(test_policy_of_what_is_no_page),
		WITH_ADMIN(test_offers),
		cmocka_unit_test_setup_teardown(
			test_without_hub, setup_without_hub, teardown_without_hub),
	};
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
