/* The words of the configuration: numbers, durations, sizes, addresses, prefixes, names, paths,
 * hosts, origins. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/un.h>

#include "ops/config_address.h"
#include "ops/config_text.h"
#include "ops/config_units.h"
#include "support/guard.h"

#define N(array) (sizeof(array) / sizeof(*(array)))

static const struct {
	enum config_unit unit;
	const char *text;
	uint64_t value;
} good_units[] = {
	{CONFIG_UNIT_NUMBER, "0", 0},
	{CONFIG_UNIT_NUMBER, "42", 42},
	{CONFIG_UNIT_NUMBER, "010", 10}, /* decimal, not octal */
	{CONFIG_UNIT_NUMBER, "18446744073709551615", UINT64_MAX},
	{CONFIG_UNIT_MS, "0", 0},
	{CONFIG_UNIT_MS, "0s", 0},
	{CONFIG_UNIT_MS, "30s", 30000},
	{CONFIG_UNIT_MS, "1500ms", 1500},
	{CONFIG_UNIT_MS, "3000us", 3},
	{CONFIG_UNIT_MS, "5m", 300000},
	{CONFIG_UNIT_MS, "1h", 3600000},
	{CONFIG_UNIT_US, "200us", 200},
	{CONFIG_UNIT_US, "2ms", 2000},
	{CONFIG_UNIT_US, "1s", 1000000},
	{CONFIG_UNIT_BYTES, "0", 0},
	{CONFIG_UNIT_BYTES, "4096", 4096},
	{CONFIG_UNIT_BYTES, "64KiB", 65536},
	{CONFIG_UNIT_BYTES, "16MiB", 16 << 20},
	{CONFIG_UNIT_BYTES, "1GiB", 1 << 30},
	{CONFIG_UNIT_BYTES, "17179869183GiB", UINT64_MAX - (1 << 30) + 1},
};

static void test_units(void **state)
{
	struct guard g;
	const char *why;

	guard_init(&g, 64);
	for (size_t i = 0; i < N(good_units); i++) {
		char back[CONFIG_UNIT_TEXT_MAX];
		uint64_t value = 1, again = 2;
		const char *text = (const char *)guard_copy(
			&g, good_units[i].text, strlen(good_units[i].text) + 1);
		assert_int_equal(config_unit_parse(good_units[i].unit, text, &value, &why), 0);
		assert_true(value == good_units[i].value);
		config_unit_format(good_units[i].unit, value, back);
		assert_int_equal(config_unit_parse(good_units[i].unit, back, &again, &why), 0);
		assert_true(again == value);
	}
	guard_fini(&g);
}

static const struct {
	enum config_unit unit;
	const char *text, *why;
} bad_units[] = {
	{CONFIG_UNIT_NUMBER, "", "not a whole number"},
	{CONFIG_UNIT_NUMBER, "-1", "not a whole number"},
	{CONFIG_UNIT_NUMBER, "+1", "not a whole number"},
	{CONFIG_UNIT_NUMBER, "0x10", "not a whole number"},
	{CONFIG_UNIT_NUMBER, "1.5", "not a whole number"},
	{CONFIG_UNIT_NUMBER, "10s", "not a whole number"},
	{CONFIG_UNIT_NUMBER, " 1", "not a whole number"},
	{CONFIG_UNIT_NUMBER, "18446744073709551616", "too large"},
	{CONFIG_UNIT_MS, "", "not a duration"},
	{CONFIG_UNIT_MS, "s", "not a duration"},
	{CONFIG_UNIT_MS, "30", "no unit"},
	{CONFIG_UNIT_MS, "30 s", "not a duration"},
	{CONFIG_UNIT_MS, "1.5s", "not a duration"},
	{CONFIG_UNIT_MS, "1h30m", "not a duration"},
	{CONFIG_UNIT_MS, "30S", "not a duration"},
	{CONFIG_UNIT_MS, "-5s", "not a duration"},
	{CONFIG_UNIT_MS, "00x", "not a duration"},
	{CONFIG_UNIT_MS, "1us", "whole number of milliseconds"},
	{CONFIG_UNIT_MS, "1500us", "whole number of milliseconds"},
	{CONFIG_UNIT_MS, "99999999999999999999s", "too large"},
	{CONFIG_UNIT_MS, "9999999999999999999h", "too large"},
	{CONFIG_UNIT_US, "7", "no unit"},
	{CONFIG_UNIT_US, "7d", "not a duration"},
	{CONFIG_UNIT_BYTES, "", "not a size"},
	{CONFIG_UNIT_BYTES, "KiB", "not a size"},
	{CONFIG_UNIT_BYTES, "4k", "not a size"},
	{CONFIG_UNIT_BYTES, "4KB", "not a size"},
	{CONFIG_UNIT_BYTES, "4kib", "not a size"},
	{CONFIG_UNIT_BYTES, "1TiB", "not a size"},
	{CONFIG_UNIT_BYTES, "17179869184GiB", "too large"},
};

static void test_bad_units(void **state)
{
	for (size_t i = 0; i < N(bad_units); i++) {
		uint64_t value = 77;
		const char *why = "";
		assert_int_equal(
			config_unit_parse(bad_units[i].unit, bad_units[i].text, &value, &why),
			-EINVAL);
		assert_non_null(strstr(why, bad_units[i].why));
		assert_true(value == 77); /* untouched on failure */
	}
}

static void test_format(void **state)
{
	static const struct {
		enum config_unit unit;
		uint64_t value;
		const char *text;
	} cases[] = {
		{CONFIG_UNIT_MS, 30000, "30s"},
		{CONFIG_UNIT_MS, 90000, "90s"},
		{CONFIG_UNIT_MS, 120000, "2m"},
		{CONFIG_UNIT_MS, 1500, "1500ms"},
		{CONFIG_UNIT_US, 200, "200us"},
		{CONFIG_UNIT_BYTES, 4097, "4097"},
		{CONFIG_UNIT_BYTES, 65536, "64KiB"},
		{CONFIG_UNIT_NUMBER, 0, "0"},
		{CONFIG_UNIT_MS, UINT64_MAX, "18446744073709551615ms"},
		{CONFIG_UNIT_US, UINT64_MAX, "18446744073709551615us"},
	};
	for (size_t i = 0; i < N(cases); i++) {
		char out[CONFIG_UNIT_TEXT_MAX];
		config_unit_format(cases[i].unit, cases[i].value, out);
		assert_string_equal(out, cases[i].text);
	}
}

static void test_tcp(void **state)
{
	struct config_address a = {0}, b = {0};
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)&a.addr;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&b.addr;
	const char *why;

	assert_int_equal(config_address_tcp("127.0.0.1:8080", &a, &why), 0);
	assert_int_equal(v4->sin_family, AF_INET);
	assert_int_equal(ntohs(v4->sin_port), 8080);
	assert_int_equal(ntohl(v4->sin_addr.s_addr), INADDR_LOOPBACK);
	assert_int_equal(a.addr_len, sizeof(*v4));
	assert_string_equal(a.text, "127.0.0.1:8080");

	assert_int_equal(config_address_tcp("[::1]:65535", &b, &why), 0);
	assert_int_equal(v6->sin6_family, AF_INET6);
	assert_int_equal(ntohs(v6->sin6_port), 65535);
	assert_memory_equal(&v6->sin6_addr, &in6addr_loopback, 16);
	assert_int_equal(b.addr_len, sizeof(*v6));

	assert_true(config_address_equal(&a, &a));
	assert_false(config_address_equal(&a, &b));
	config_address_fini(&a);
	assert_false(config_address_equal(&a, &a)); /* unset equals nothing */
	config_address_fini(&b);
}

static void test_bad_tcp(void **state)
{
	static const struct {
		const char *text, *why;
	} cases[] = {
		{"", "no port"},
		{"127.0.0.1", "no port"},
		{"[::1]", "no port"},
		{"[", "no port"},
		{"[:80", "no port"},
		{"[::1]80", "no port"},
		{":8080", "no host"},
		{"[]:8080", "no host"},
		{"localhost:8080", "not resolved"},
		{"example.com:80", "not resolved"},
		{"*:80", "not resolved"},
		{"127.0.0.1.5:80", "not resolved"},
		{"127.0.0.256:80", "not resolved"},
		{"127.1:80", "not resolved"},
		{"[127.0.0.1]:80", "not resolved"},
		{"[::1%lo]:80", "not resolved"},
		{"[1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb]:80", "not resolved"},
		{"::1:80", "without brackets"},
		{"fe80::1:80", "without brackets"},
		{"127.0.0.1:", "port that is not"},
		{"127.0.0.1:0", "port that is not"},
		{"127.0.0.1:65536", "port that is not"},
		{"127.0.0.1:123456", "port that is not"},
		{"127.0.0.1:http", "port that is not"},
		{"127.0.0.1:+80", "port that is not"},
		{"127.0.0.1:80 ", "port that is not"},
		{"tcp://127.0.0.1:80", "no scheme"},
		{"unix:/run/x.sock", "no scheme"},
	};
	for (size_t i = 0; i < N(cases); i++) {
		struct config_address a = {.text = NULL};
		const char *why = "";
		assert_int_equal(config_address_tcp(cases[i].text, &a, &why), -EINVAL);
		if (!strstr(why, cases[i].why))
			fail_msg("%s: %s", cases[i].text, why);
		assert_null(a.text);
	}
}

static void test_endpoint(void **state)
{
	struct config_address a;
	const struct sockaddr_un *un = (const struct sockaddr_un *)&a.addr;
	char path[5 + CONFIG_UNIX_PATH_MAX + 2] = "unix:/";
	const char *why = "";

	assert_int_equal(config_address_endpoint("tcp://[2001:db8::1]:9300", &a, &why), 0);
	assert_int_equal(a.addr.ss_family, AF_INET6);
	config_address_fini(&a);

	memset(path + 6, 'x', CONFIG_UNIX_PATH_MAX - 1);
	assert_int_equal(config_address_endpoint(path, &a, &why), 0);
	assert_int_equal(un->sun_family, AF_UNIX);
	assert_string_equal(un->sun_path, path + 5);
	assert_int_equal(a.addr_len, sizeof(struct sockaddr_un));
	config_address_fini(&a);

	path[5 + CONFIG_UNIX_PATH_MAX] = 'x';
	assert_int_equal(config_address_endpoint(path, &a, &why), -EINVAL);
	assert_non_null(strstr(why, "107"));

	static const char *const bad[] = {"", "127.0.0.1:9300", "unix:", "unix:run/x", "tcp://",
		"tcp://host:1", "udp://127.0.0.1:1", "TCP://127.0.0.1:1"};
	for (size_t i = 0; i < N(bad); i++)
		assert_int_equal(config_address_endpoint(bad[i], &a, &why), -EINVAL);
}

static void test_prefix(void **state)
{
	static const struct {
		const char *text, *addr;
		unsigned len;
	} cases[] = {
		{"10.0.0.0/8", "::ffff:10.0.0.0", 104},
		{"0.0.0.0/0", "::ffff:0.0.0.0", 96},
		{"192.0.2.1", "::ffff:192.0.2.1", 128},
		{"192.0.2.1/32", "::ffff:192.0.2.1", 128},
		{"2001:db8::/32", "2001:db8::", 32},
		{"::/0", "::", 0},
		{"::1", "::1", 128},
		{"fe80::/10", "fe80::", 10},
	};
	for (size_t i = 0; i < N(cases); i++) {
		struct config_prefix p;
		struct in6_addr want;
		const char *why;
		assert_int_equal(config_prefix_parse(cases[i].text, &p, &why), 0);
		assert_int_equal(inet_pton(AF_INET6, cases[i].addr, &want), 1);
		assert_memory_equal(&p.addr, &want, sizeof(want));
		assert_int_equal(p.len, cases[i].len);
	}
	static const struct {
		const char *text, *why;
	} bad[] = {
		{"", "not an address"},
		{"/8", "not an address"},
		{"10.0.0/8", "not an address"},
		{"example.com/8", "not an address"},
		{"[::1]/128", "not an address"},
		{"1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc/8", "not an address"},
		{"10.0.0.0/", "length"},
		{"10.0.0.0/x", "length"},
		{"10.0.0.0/8x", "length"},
		{"10.0.0.0/-1", "length"},
		{"10.0.0.0/1000", "length"},
		{"10.0.0.0/33", "above 32"},
		{"::/129", "above 128"},
		{"10.0.0.1/8", "bits beyond"},
		{"2001:db8::1/64", "bits beyond"},
	};
	for (size_t i = 0; i < N(bad); i++) {
		struct config_prefix p = {.len = 7};
		const char *why = "";
		assert_int_equal(config_prefix_parse(bad[i].text, &p, &why), -EINVAL);
		if (!strstr(why, bad[i].why))
			fail_msg("%s: %s", bad[i].text, why);
		assert_int_equal(p.len, 7);
	}
}

struct words {
	const char *(*grammar)(const char *);
	const char *good[16], *bad[24];
};

#define LONG_64 "0123456789012345678901234567890123456789012345678901234567890123"

static const struct words words[] = {
	{config_text_name, {"a", "a-b_C9", "-"}, {"", "a b", "a.b", "a/b", "\xc3\xa9", LONG_64}},
	{config_text_user, {"nobody", "john.doe", "_x"},
		{"", "a b", "-x", "a/b", "a:b", "012345678901234567890123456789012"}},
	{config_text_path, {"/", "/healthz", "/a/b;c=%20"},
		{"", "x", "/a b", "/a?b", "/a#b", "/*", "/a\t", "/\xc3\xa9",
			"/" LONG_64 LONG_64 LONG_64 LONG_64}},
	{config_text_route_path, {"/", "/*", "/chat/*", "/a/b"},
		{"", "*", "x/*", "/a*", "/*/b", "/a/**", "/a?*", "/a/*/*", "/a /*",
			"/" LONG_64 LONG_64 LONG_64 LONG_64 "/*"}},
	{config_text_host,
		{"example.com", "*.example.com", "localhost", "192.0.2.1", "[::1]", "a_b"},
		{"", "*", "*.", "example.com:80", "a:b:c", "::1", "[::1", "[::1]:80", "[]", "[x]",
			".a", "a.", "a..b", "*.*.a", "a.*", "a b", "a/b", "[1.2.3.4]",
			LONG_64 LONG_64 LONG_64 LONG_64}},
	{config_text_origin,
		{"*", "https://example.com", "http://localhost:3000", "https://*.example.com",
			"https://[::1]:8443", "chrome-extension://abcdef", "https://a:1"},
		{"", "example.com", "https:", "https://", "://a", "https://a/", "https://a/b",
			"https://a?x", "https://a:", "https://a:0", "https://a:65536",
			"https://a:x", "https://[::1", "https://[::1]x", "ht tp://a", "https://a b",
			"**", "https://*", "https://u@a"}},
	{config_text_token, {"chat.v1", "graphql-ws", "x|y"},
		{"", "a b", "a,b", "a/b", "a\"", "\xc3\xa9", LONG_64 LONG_64 "x"}},
};

static void test_words(void **state)
{
	for (size_t i = 0; i < N(words); i++) {
		for (size_t k = 0; k < N(words[i].good) && words[i].good[k]; k++)
			if (words[i].grammar(words[i].good[k]))
				fail_msg("%zu: %s: %s", i, words[i].good[k],
					words[i].grammar(words[i].good[k]));
		for (size_t k = 0; k < N(words[i].bad) && words[i].bad[k]; k++)
			if (!words[i].grammar(words[i].bad[k]))
				fail_msg("%zu: \"%s\" passed", i, words[i].bad[k]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_units),
		cmocka_unit_test(test_bad_units),
		cmocka_unit_test(test_format),
		cmocka_unit_test(test_tcp),
		cmocka_unit_test(test_bad_tcp),
		cmocka_unit_test(test_endpoint),
		cmocka_unit_test(test_prefix),
		cmocka_unit_test(test_words),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
