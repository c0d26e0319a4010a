#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "app/permissions.h"

static struct permissions *made(const char *claim)
{
	json_t *o = json_loads(claim, JSON_DECODE_ANY, NULL);
	struct permissions *p = permissions_create(o);

	assert_non_null(p);
	json_decref(o);
	return p;
}

static bool may(const struct permissions *p, enum session_action a, const char *topic)
{
	return permissions_allow(p, a, topic, strlen(topic));
}

static void test_patterns(void **state)
{
	struct permissions *p = made(
		"{\"subscribe\":[\"room/*\",\"a/b/c\",\"top\"],\"publish\":[\"room/7\",\"in/*\"]}");
	static const char *const yes[] = {"room/7", "room/x", "room/*", "a/b/c", "top",
		"room/\xc3\xbc"},
				 *const no[] = {"room", "room/", "room/7/x", "rooms/7", "roo",
					 "a/b", "a/b/c/d", "a/b/*", "*", "to", "topp", "",
					 "xroom/7", "/room/7", "in/x", "room/7/*"},
				 *const pub[] = {"room/7", "in/x"},
				 *const no_pub[] = {
					 "room/8", "room/*", "in/*", "in", "top", "*", ""};

	for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
		assert_true(may(p, SESSION_SUBSCRIBE, yes[i]));
	for (size_t i = 0; i < sizeof no / sizeof *no; i++)
		assert_false(may(p, SESSION_SUBSCRIBE, no[i]));
	for (size_t i = 0; i < sizeof pub / sizeof *pub; i++)
		assert_true(may(p, SESSION_PUBLISH, pub[i]));
	for (size_t i = 0; i < sizeof no_pub / sizeof *no_pub; i++)
		assert_false(may(p, SESSION_PUBLISH, no_pub[i]));
	permissions_destroy(p);
}

/* A star alone is one level too, and grants no deeper one. */
static void test_star(void **state)
{
	struct permissions *p = made("{\"subscribe\":[\"*\"]}");

	assert_true(may(p, SESSION_SUBSCRIBE, "room"));
	assert_true(may(p, SESSION_SUBSCRIBE, "*"));
	assert_false(may(p, SESSION_SUBSCRIBE, "room/7"));
	assert_false(may(p, SESSION_PUBLISH, "room"));
	permissions_destroy(p);
}

/* What is no pattern grants nothing, and does not disturb the others. */
static void test_bad_claims(void **state)
{
	static const char *const bad[] = {"null", "7", "[]", "{}", "{\"subscribe\":\"room/7\"}",
		"{\"subscribe\":{\"x\":\"room/7\"}}",
		"{\"subscribe\":[7,null,[\"room/7\"],\"\",\"/room/7\",\"room/7/\",\"room//7\",\"*/"
		"7\",\"ro*\","
		"\"room/*/7\",\"room/**\",\"room/7*\"]}"};
	static const char *const topics[] = {"room/7", "room/*", "7", "*", "room", "room//7",
		"/room/7", "room/7/", "room/**", "*/7"};
	char longest[300];
	struct permissions *p;

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		p = made(bad[i]);
		for (size_t k = 0; k < sizeof topics / sizeof *topics; k++) {
			assert_false(may(p, SESSION_SUBSCRIBE, topics[k]));
			assert_false(may(p, SESSION_PUBLISH, topics[k]));
		}
		permissions_destroy(p);
	}
	p = permissions_create(NULL);
	assert_false(may(p, SESSION_SUBSCRIBE, "x"));
	permissions_destroy(p);
	p = made("{\"subscribe\":[\"\",\"x\"]}");
	assert_true(may(p, SESSION_SUBSCRIBE, "x"));
	permissions_destroy(p);
	for (size_t n = PERMISSIONS_PATTERN_MAX; n < PERMISSIONS_PATTERN_MAX + 2; n++) {
		json_t *o;

		memset(longest, 'x', n);
		longest[n] = '\0';
		o = json_pack("{s:[s]}", "publish", longest);
		p = permissions_create(o);
		assert_int_equal(may(p, SESSION_PUBLISH, longest), n == PERMISSIONS_PATTERN_MAX);
		json_decref(o);
		permissions_destroy(p);
	}
	permissions_destroy(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_patterns),
		cmocka_unit_test(test_star),
		cmocka_unit_test(test_bad_claims),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
