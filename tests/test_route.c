#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <string.h>

#include "app/route.h"
#include "support/guard.h"

static struct http_str str(const char *text)
{
	return (struct http_str){text, text ? strlen(text) : 0};
}

struct expectation {
	int listener;
	const char *host, *path;
	int want;
};

static void check(const struct route *routes, size_t n, const struct expectation *e, size_t n_e)
{
	for (size_t i = 0; i < n_e; i++) {
		int got = route_match(routes, n, e[i].listener, str(e[i].host), str(e[i].path));

		if (got != e[i].want)
			print_message("listener %d, host %s, path %s: %d, not %d\n", e[i].listener,
				e[i].host ? e[i].host : "(none)", e[i].path, got, e[i].want);
		assert_int_equal(got, e[i].want);
	}
}

#define CHECK(routes, expectations)                                                                \
	check(routes, sizeof(routes) / sizeof(routes)[0], expectations,                            \
		sizeof(expectations) / sizeof(expectations)[0])

static void test_paths(void **state)
{
	static const struct route routes[] = {
		{.listener = -1, .path = "/echo"}, {.listener = -1, .path = "/chat/*"},
		{.listener = -1, .path = "/chat/rooms/*"},
		{.listener = -1, .path = "/chat/rooms/lobby"}, {.listener = -1, .path = "/star*"},
		{.listener = -1, .path = "/chat/*"}, /* the first of equals */
	};
	static const struct expectation e[] = {
		{0, "a", "/echo", 0},
		{0, "a", "/echo/", -1},
		{0, "a", "/ech", -1},
		{0, "a", "/Echo", -1},
		{0, "a", "/", -1},
		{0, "a", "/chat", 1},
		{0, "a", "/chat/", 1},
		{0, "a", "/chat/x", 1},
		{0, "a", "/chatter", -1},
		{0, "a", "/chat/rooms", 2},
		{0, "a", "/chat/roomsx", 1},
		{0, "a", "/chat/rooms/x/y", 2},
		{0, "a", "/chat/rooms/lobby", 3},
		{0, "a", "/chat/rooms/lobby/", 2},
		{0, "a", "/star*", 4}, /* a star behind anything but a slash is a star */
		{0, "a", "/starx", -1},
	};

	CHECK(routes, e);
}

static void test_any_path(void **state)
{
	static const struct route routes[] = {
		{.listener = -1, .path = "/*"},
		{.listener = -1, .path = "/"},
	};
	static const struct expectation e[] = {
		{0, "a", "/", 1},
		{0, "a", "/x", 0},
		{0, "a", "/x/y/z", 0},
	};

	CHECK(routes, e);
}

static void test_hosts(void **state)
{
	static const struct route routes[] = {
		{.listener = -1, .path = "/*"},
		{.listener = -1, .path = "/*", .host = "Example.com"},
		{.listener = -1, .path = "/*", .host = "*.example.com"},
		{.listener = -1, .path = "/x", .host = "other.net"},
		{.listener = -1, .path = "/*", .host = "[::1]"},
		{.listener = -1, .path = "/y"},
		{.listener = -1, .path = "/y", .host = "*.example.com"},
	};
	static const struct expectation e[] = {
		{0, "nowhere.org", "/x", 0},
		{0, "example.com", "/x", 1},
		{0, "EXAMPLE.COM:8080", "/x", 1},
		{0, "a.example.com", "/x", 2},
		{0, "a.b.example.com:1", "/x", 2},
		{0, ".example.com", "/x", 0},
		{0, "badexample.com", "/x", 0},
		{0, "other.net", "/x", 3},
		{0, "other.net", "/z", 0},
		{0, "[::1]", "/x", 4},
		{0, "[::1]:8080", "/x", 4},
		{0, "[::2]:8080", "/x", 0},
		{0, "nowhere.org", "/y", 5},
		{0, "example.com", "/y", 5}, /* an exact path before a named host */
		{0, "a.example.com", "/y", 6},
		{0, NULL, "/x", 0}, /* raw clients name none */
		{0, "8080", "/x", 0},
		{0, ":8080", "/x", 0},
	};

	CHECK(routes, e);
}

static void test_listeners(void **state)
{
	static const struct route routes[] = {
		{.listener = 1, .path = "/a"},
		{.listener = 0, .path = "/a"},
		{.listener = -1, .path = "/*"},
	};
	static const struct expectation e[] = {
		{0, "a", "/a", 1},
		{1, "a", "/a", 0},
		{2, "a", "/a", 2},
		{1, "a", "/b", 2},
	};

	CHECK(routes, e);
	assert_int_equal(route_match(NULL, 0, 0, str("a"), str("/")), -1);
}

/* Host and path are not NUL-terminated. */
static void test_reads_no_further(void **state)
{
	static const struct route routes[] = {
		{.listener = -1, .path = "/chat/rooms/*", .host = "*.example.com"},
		{.listener = -1, .path = "/chat", .host = "example.com"},
	};
	static const char path[] = "/chat/rooms/lobby", host[] = "a.example.com:80";
	struct guard g;

	guard_init(&g, 64);
	for (size_t len = 0; len <= strlen(path); len++) {
		uint8_t *p = guard_tail(&g, len);

		memcpy(p, path, len);
		int want = len >= strlen("/chat/rooms") && (len == 11 || path[11] == '/') ? 0 : -1;
		assert_int_equal(route_match(routes, 2, 0, str("a.example.com"),
					 (struct http_str){(char *)p, len}),
			want);
	}
	for (size_t len = 0; len <= strlen(host); len++) {
		uint8_t *p = guard_tail(&g, len);

		memcpy(p, host, len);
		assert_int_equal(route_match(routes, 2, 0, (struct http_str){(char *)p, len},
					 str("/chat/rooms")),
			len >= strlen("a.example.com") ? 0 : -1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_any_path),
		cmocka_unit_test(test_hosts),
		cmocka_unit_test(test_listeners),
		cmocka_unit_test(test_reads_no_further),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
