/* proto/proxy_header: PROXY v1 and v2 headers, whole and grown a byte at a time against a guard
 * page. */
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/proxy_header.h"
#include "support/guard.h"

#define ELEMENTS(a) (sizeof(a) / sizeof((a)[0]))
#define BYTES(s)    (s), sizeof(s) - 1

#define SIG "\r\n\r\n\0\r\nQUIT\n"
#define INET4                                                                                      \
	"\xc0\0\x02\x01\xc6\x33\x64\x02\x30\x39\x01\xbb" /* 192.0.2.1:12345 198.51.100.2:443 */
#define INET6                                                                                      \
	"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"                                               \
	"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02"                                               \
	"\x30\x39\x01\xbb"

/* Parses data whole and grown byte by byte, each time ending at the guard page; both must agree,
 * and outputs must stay untouched wherever they are not due. *ret_at is the number of bytes that
 * decided. */
static ssize_t parse_both(const void *data, size_t len, struct proxy_header *ret, size_t *ret_at)
{
	struct guard g;
	guard_init(&g, len + 1);
	struct proxy_header h, untouched;
	const char *why = NULL, *whole_why = NULL;
	size_t n;
	ssize_t r = 0;

	memset(&untouched, 0x5a, sizeof(untouched));
	for (n = 0; n <= len && r == 0; n++) {
		h = untouched;
		r = proxy_header_parse(guard_copy(&g, data, n), n, &h, &why);
		if (r <= 0)
			assert_memory_equal(&h, &untouched, sizeof(h));
		assert_true((r < 0) == (why != NULL));
	}
	*ret_at = n - 1;
	assert_int_equal(proxy_header_parse(guard_copy(&g, data, len), len, ret, &whole_why), r);
	assert_true(why == whole_why);
	guard_fini(&g);
	return r;
}

static void assert_address(const struct sockaddr_in6 *sa, const char *text, uint16_t port)
{
	char got[INET6_ADDRSTRLEN];
	assert_int_equal(sa->sin6_family, AF_INET6);
	assert_string_equal(inet_ntop(AF_INET6, &sa->sin6_addr, got, sizeof(got)), text);
	assert_int_equal(ntohs(sa->sin6_port), port);
}

struct good {
	const char *data;
	size_t len;
	const char *peer; /* NULL: local */
	uint16_t peer_port;
	const char *dest;
	uint16_t dest_port;
};

static void check_good(const struct good *c, size_t n, uint8_t version)
{
	for (size_t i = 0; i < n; i++) {
		struct proxy_header h;
		size_t at;
		ssize_t r = parse_both(c[i].data, c[i].len, &h, &at);
		if (r != (ssize_t)c[i].len || at != c[i].len)
			fail_msg("v%u case %zu: %zd after %zu bytes of %zu", version, i, r, at,
				c[i].len);
		assert_int_equal(h.version, version);
		assert_int_equal(h.local, !c[i].peer);
		if (h.local)
			continue;
		assert_address(&h.peer, c[i].peer, c[i].peer_port);
		assert_address(&h.dest, c[i].dest, c[i].dest_port);
	}
}

static const char *const longest_unknown =
	"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
	"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";

static void v1_good(void **state)
{
	static const struct good cases[] = {
		{BYTES("PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\n"), "::ffff:192.0.2.1",
			12345, "::ffff:198.51.100.2", 443},
		{BYTES("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"),
			"::ffff:255.255.255.255", 65535, "::ffff:255.255.255.255", 65535},
		{BYTES("PROXY TCP4 0.0.0.0 1.2.3.4 0 1\r\n"), "::ffff:0.0.0.0", 0, "::ffff:1.2.3.4",
			1},
		{BYTES("PROXY TCP6 2001:db8::1 ::1 12345 443\r\n"), "2001:db8::1", 12345, "::1",
			443},
		{BYTES("PROXY TCP6 2001:DB8:0:0:0:0:0:1 ::ffff:192.0.2.1 1 2\r\n"), "2001:db8::1",
			1, "::ffff:192.0.2.1", 2},
		{BYTES("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
		       "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"),
			"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535,
			"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535},
		{BYTES("PROXY UNKNOWN\r\n"), NULL, 0, NULL, 0},
		{BYTES("PROXY UNKNOWN \r\n"), NULL, 0, NULL, 0},
		{BYTES("PROXY UNKNOWN any \x01\xff thing\r\n"), NULL, 0, NULL, 0},
	};
	check_good(cases, ELEMENTS(cases), 1);

	assert_int_equal(strlen(longest_unknown), PROXY_V1_MAX);
	const struct good longest = {longest_unknown, PROXY_V1_MAX, NULL, 0, NULL, 0};
	check_good(&longest, 1, 1);
}

static void v2_good(void **state)
{
	static const struct good cases[] = {
		{BYTES(SIG "\x21\x11\0\x0c" INET4), "::ffff:192.0.2.1", 12345,
			"::ffff:198.51.100.2", 443},
		{BYTES(SIG "\x21\x21\0\x24" INET6), "2001:db8::1", 12345, "2001:db8::2", 443},
		/* TLVs: empty NOOP, ALPN "h2", an unknown one */
		{BYTES(SIG "\x21\x11\0\x18" INET4 "\x04\0\0\x01\0\x02h2\xee\0\x01x"),
			"::ffff:192.0.2.1", 12345, "::ffff:198.51.100.2", 443},
		/* SSL with a version and a CN */
		{BYTES(SIG "\x21\x11\0\x22" INET4
			   "\x20\0\x13\x01\0\0\0\0\x21\0\x07TLSv1.3\x22\0\x01x"),
			"::ffff:192.0.2.1", 12345, "::ffff:198.51.100.2", 443},
		/* LOCAL: family and block are not looked at */
		{BYTES(SIG "\x20\0\0\0"), NULL, 0, NULL, 0},
		{BYTES(SIG "\x20\x11\0\x0c" INET4), NULL, 0, NULL, 0},
		{BYTES(SIG "\x20\xff\0\x03\xff\xff\xff"), NULL, 0, NULL, 0},
		{BYTES(SIG "\x20\x11\0\x02xx"), NULL, 0, NULL, 0},
		/* UNSPEC: nor is this one */
		{BYTES(SIG "\x21\0\0\0"), NULL, 0, NULL, 0},
		{BYTES(SIG "\x21\x01\0\x05xxxxx"), NULL, 0, NULL, 0},
	};
	check_good(cases, ELEMENTS(cases), 2);

	char unix_header[16 + 216 + 3] = SIG "\x21\x31\0\xdb";
	memset(unix_header + 16, 'p', 216);
	memcpy(unix_header + 16 + 216, "\x04\0\0", 3);
	const struct good unix_case = {unix_header, sizeof(unix_header), NULL, 0, NULL, 0};
	check_good(&unix_case, 1, 2);

	char *longest = calloc(1, PROXY_V2_MAX);
	memcpy(longest, SIG "\x21\x11\x0f\xf0" INET4 "\x04\x0f\xe1", 16 + 12 + 3);
	const struct good longest_case = {
		longest, PROXY_V2_MAX, "::ffff:192.0.2.1", 12345, "::ffff:198.51.100.2", 443};
	check_good(&longest_case, 1, 2);
	free(longest);
}

/* What follows a header is not part of it. */
static void bytes_behind_are_left(void **state)
{
	struct proxy_header h;
	size_t at;
	assert_int_equal(
		parse_both(BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\n"), &h, &at),
		32);
	assert_int_equal(at, 32);
	assert_int_equal(parse_both(BYTES("PROXY UNKNOWN\r\nGET / HTTP/1.1\r\n"), &h, &at), 15);
	assert_int_equal(
		parse_both(BYTES(SIG "\x21\x11\0\x0c" INET4 "GET / HTTP/1.1\r\n"), &h, &at), 28);
	assert_int_equal(at, 28);
}

/* The bitwise definition, beside the table in the parser. */
static uint32_t crc32c(const uint8_t *data, size_t len)
{
	uint32_t crc = UINT32_MAX;
	for (size_t i = 0; i < len; i++) {
		crc ^= data[i];
		for (unsigned bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
	}
	return ~crc;
}

static void checksum(void **state)
{
	uint8_t header[] = SIG "\x21\x11\0\x1a" INET4 "\x04\0\x01n\x03\0\x04\0\0\0\0\x04\0\0";
	const size_t len = sizeof(header) - 1, sum_at = 16 + 12 + 4 + 3;
	struct proxy_header h;
	size_t at;

	assert_int_equal(crc32c((const uint8_t *)"123456789", 9),
		0xe3069283); /* RFC 3720 B.4's check value */
	uint32_t sum = htonl(crc32c(header, len));
	memcpy(header + sum_at, &sum, 4);
	assert_int_equal(parse_both(header, len, &h, &at), len);
	assert_address(&h.peer, "::ffff:192.0.2.1", 12345);

	for (size_t i = 16; i < len; i++) { /* the fixed part has rules of its own */
		if (i == sum_at - 3)
			continue; /* with another type it is no checksum */
		header[i] ^= 0x40;
		assert_int_equal(parse_both(header, len, &h, &at), -EPROTO);
		header[i] ^= 0x40;
	}
	assert_int_equal(parse_both(header, len, &h, &at), len);
}

static const struct bad {
	const char *data;
	size_t len;
	size_t at; /* bytes after which it must be known; 0: the last one */
} bad[] = {
	/* neither */
	{BYTES("GET / HTTP/1.1\r\n"), 1},
	{BYTES("\x16\x03\x01"), 1},
	{BYTES("\0"), 1},
	{BYTES("\n"), 1},
	{BYTES("proxy TCP4 "), 1},
	{BYTES("PRI * HTTP/2.0\r\n"), 3},
	{BYTES("PROXY\tTCP4"), 6},
	/* v1, protocol */
	{BYTES("PROXY  TCP4"), 7},
	{BYTES("PROXY TCP5 "), 10},
	{BYTES("PROXY TCP "), 10},
	{BYTES("PROXY TCP44 "), 11},
	{BYTES("PROXY UDP4 "), 8},
	{BYTES("PROXY tcp4 "), 7},
	{BYTES("PROXY UNKNOWNX\r\n"), 14},
	{BYTES("PROXY UNKNOWN\n"), 14},
	{BYTES("PROXY UNKNOWN x\n"), 16},
	{BYTES("PROXY UNKNOWN x\rx"), 17},
	{BYTES("PROXY \r\n"), 7},
	/* v1, addresses */
	{BYTES("PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n"), 12},
	{BYTES("PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n"), 17},
	{BYTES("PROXY TCP4 1.2.3.4.5 5.6.7.8 1 2\r\n"), 21},
	{BYTES("PROXY TCP4 1.2.3.256 5.6.7.8 1 2\r\n"), 21},
	{BYTES("PROXY TCP4 1.2.3.04 5.6.7.8 1 2\r\n"), 20},
	{BYTES("PROXY TCP4 1.2.3.-4 "), 18},
	{BYTES("PROXY TCP4 1.2.3.0x4 "), 19},
	{BYTES("PROXY TCP4 1.2.3.4\0 5.6.7.8 1 2\r\n"), 19},
	{BYTES("PROXY TCP4 1111111111111111"), 27},
	{BYTES("PROXY TCP4 ::1 ::2 1 2\r\n"), 12},
	{BYTES("PROXY TCP4 1.2.3.4\t5.6.7.8 1 2\r\n"), 19},
	{BYTES("PROXY TCP4 1.2.3.4  5.6.7.8 1 2\r\n"), 20},
	{BYTES("PROXY TCP4 1.2.3.4 ::1 1 2\r\n"), 20},
	{BYTES("PROXY TCP4 1.2.3.4\r\n"), 19},
	{BYTES("PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n"), 19},
	{BYTES("PROXY TCP6 2001:db8::1::2 ::1 1 2\r\n"), 26},
	{BYTES("PROXY TCP6 12345::1 ::1 1 2\r\n"), 20},
	{BYTES("PROXY TCP6 1:2:3:4:5:6:7 ::1 1 2\r\n"), 25},
	{BYTES("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n"), 19},
	{BYTES("PROXY TCP6 [::1] ::1 1 2\r\n"), 12},
	{BYTES("PROXY TCP6 ::g ::1 1 2\r\n"), 14},
	{BYTES("PROXY TCP6 0000:0000:0000:0000:0000:0000:0000:00000"), 51},
	/* v1, ports and the end of the line */
	{BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n"), 33},
	{BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 100000 2\r\n"), 33},
	{BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n"), 29},
	{BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 00 2\r\n"), 29},
	{BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n"), 28},
	{BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n"), 28},
	{BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1a 2\r\n"), 29},
	{BYTES("PROXY TCP4 1.2.3.4 5.6.7.8  2\r\n"), 28},
	{BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n"), 29},
	{BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 \r\n"), 30},
	{BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n"), 31},
	{BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n"), 31},
	{BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\rX"), 32},
	{BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n"), 35},
	/* v2, fixed part */
	{BYTES("\r\n\r\n\0\r\nQUIX\n"), 11},
	{BYTES("\r\n\r\nGET / HTTP/1.1"), 5},
	{BYTES(SIG "\x11\x11\0\x0c" INET4), 13},
	{BYTES(SIG "\x31\x11\0\x0c" INET4), 13},
	{BYTES(SIG "\x01\x11\0\x0c" INET4), 13},
	{BYTES(SIG "\x22\x11\0\x0c" INET4), 13},
	{BYTES(SIG "\x2f\x11\0\x0c" INET4), 13},
	{BYTES(SIG "\x21\x12\0\x0c" INET4), 14}, /* DGRAM */
	{BYTES(SIG "\x21\x22\0\x24" INET6), 14},
	{BYTES(SIG "\x21\x32\0\xd8"), 14},
	{BYTES(SIG "\x21\x02\0\0"), 14},
	{BYTES(SIG "\x21\x10\0\x0c" INET4), 14}, /* transport UNSPEC */
	{BYTES(SIG "\x21\x13\0\x0c" INET4), 14},
	{BYTES(SIG "\x21\x41\0\x0c" INET4), 14},
	{BYTES(SIG "\x21\xf1\0\x0c" INET4), 14},
	{BYTES(SIG "\x21\x11\0\x0b" INET4), 16},
	{BYTES(SIG "\x21\x11\0\0"), 16},
	{BYTES(SIG "\x21\x21\0\x23" INET6), 16},
	{BYTES(SIG "\x21\x21\0\x0c" INET4), 16},
	{BYTES(SIG "\x21\x31\0\xd7"), 16},
	{BYTES(SIG "\x21\x11\x0f\xf1" INET4), 16}, /* 4097 bytes */
	{BYTES(SIG "\x20\0\xff\xff"), 16},
	/* v2, TLVs */
	{BYTES(SIG "\x21\x11\0\x0d" INET4 "\x04"), 0},
	{BYTES(SIG "\x21\x11\0\x0e" INET4 "\x04\0"), 0},
	{BYTES(SIG "\x21\x11\0\x0f" INET4 "\x04\0\x01"), 0},
	{BYTES(SIG "\x21\x11\0\x10" INET4 "\x04\xff\xffx"), 0},
	{BYTES(SIG "\x21\x11\0\x13" INET4 "\x04\0\0\x04\0\x02x"), 0},
	{BYTES(SIG "\x21\x21\0\x27" INET6 "\x01\0\x01"), 0},
	{BYTES(SIG "\x21\x11\0\x12" INET4 "\x03\0\x03xxx"), 0},      /* CRC32C of three bytes */
	{BYTES(SIG "\x21\x11\0\x14" INET4 "\x03\0\x05xxxxx"), 0},    /* of five */
	{BYTES(SIG "\x21\x11\0\x13" INET4 "\x03\0\x04\0\0\0\0"), 0}, /* wrong */
	{BYTES(SIG "\x21\x11\0\x1a" INET4 "\x03\0\x04\0\0\0\0\x03\0\x04\0\0\0\0"), 0}, /* two */
	{BYTES(SIG "\x21\x11\0\x13" INET4 "\x20\0\x04\0\0\0\0"),
		0}, /* SSL without its five bytes */
	{BYTES(SIG "\x21\x11\0\x15" INET4 "\x20\0\x06\0\0\0\0\0\x21"),
		0}, /* half a TLV inside it */
	{BYTES(SIG "\x21\x11\0\x17" INET4 "\x20\0\x08\0\0\0\0\0\x21\0\x01"), 0},
};

static void malformed(void **state)
{
	for (size_t i = 0; i < ELEMENTS(bad); i++) {
		struct proxy_header h;
		size_t at, want = bad[i].at ? bad[i].at : bad[i].len;
		ssize_t r = parse_both(bad[i].data, bad[i].len, &h, &at);
		if (r != -EPROTO || at != want)
			fail_msg("case %zu: %zd after %zu bytes, not %zu", i, r, at, want);
	}
}

static void v1_line_too_long(void **state)
{
	char text[PROXY_V1_MAX + 1];
	struct proxy_header h;
	size_t at;

	memset(text, 'x', sizeof(text));
	memcpy(text, BYTES("PROXY UNKNOWN "));
	memcpy(text + PROXY_V1_MAX - 1, "\r\n", 2); /* 108 bytes */
	assert_int_equal(parse_both(text, sizeof(text), &h, &at), -EPROTO);
	assert_int_equal(at, PROXY_V1_MAX); /* no longer one could be accepted */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(v1_good),
		cmocka_unit_test(v2_good),
		cmocka_unit_test(bytes_behind_are_left),
		cmocka_unit_test(checksum),
		cmocka_unit_test(malformed),
		cmocka_unit_test(v1_line_too_long),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
