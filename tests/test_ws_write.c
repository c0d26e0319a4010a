/* Close payloads, and the headers and close frames that ws.c writes. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proto/ws.h"
#include "support/guard.h"

#define X25   "xxxxxxxxxxxxxxxxxxxxxxxxx"
#define X125  X25 X25 X25 X25 X25
#define KOSME "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"
#define KEY   "\x37\xfa\x21\x3d"

/* RFC 6455 7.4.2 and the IANA registry, code by code. */
static void test_close_parse_codes(void **state)
{
	for (uint32_t code = 0; code <= UINT16_MAX; code++) {
		uint8_t payload[] = {(uint8_t)(code >> 8), (uint8_t)code, 'o', 'k'};
		bool ok = (code >= 1000 && code < 1015 && code != 1004 && code != 1005 &&
				  code != 1006) ||
			  (code >= 3000 && code < 5000);
		uint16_t got = 0;
		const uint8_t *reason = NULL;
		size_t reason_len = 99;
		int r = ws_close_parse(payload, sizeof(payload), &got, &reason, &reason_len);

		assert_int_equal(r, ok ? 0 : -EPROTO);
		assert_int_equal(got, ok ? code : WS_CLOSE_PROTOCOL_ERROR);
		assert_int_equal(reason_len, ok ? 2 : 99);
		assert_ptr_equal(reason, ok ? payload + 2 : NULL);
	}
}

static void test_close_parse(void **state)
{
	static const struct {
		const char *payload;
		size_t len;
		int ret;
		uint16_t code;
		size_t reason_len;
	} cases[] = {
		{"", 0, 0, WS_CLOSE_NO_STATUS, 0},
		{"\x03", 1, -EPROTO, 1002, 0},
		{"\x03\xe8", 2, 0, 1000, 0},
		{"\x03\xe8hello", 7, 0, 1000, 5},
		{"\x03\xe8" KOSME, 13, 0, 1000, 11},
		{"\x03\xe8\xce", 3, -EPROTO, 1007, 0},
		{"\x03\xe8" KOSME "\xed\xa0\x80", 16, -EPROTO, 1007, 0},
		{"\x03\xed\xff", 3, -EPROTO, 1002, 0},
		{"\x03\xe8" X25 X25 X25 X25 X25, 125, 0, 1000, 123},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct guard g;
		uint16_t code = 0;
		const uint8_t *reason = NULL;
		size_t reason_len = 0;

		guard_init(&g, 256);
		assert_int_equal(ws_close_parse(guard_copy(&g, cases[i].payload, cases[i].len),
					 cases[i].len, &code, &reason, &reason_len),
			cases[i].ret);
		assert_int_equal(code, cases[i].code);
		assert_int_equal(reason_len, cases[i].reason_len);
		guard_fini(&g);
	}
}

static void test_header_write(void **state)
{
	static const struct {
		uint64_t len;
		size_t header;
		const char *bytes;
	} cases[] = {
		{0, 2, "\x82\x00"},
		{125, 2, "\x82\x7d"},
		{126, 4, "\x82\x7e\x00\x7e"},
		{65535, 4, "\x82\x7e\xff\xff"},
		{65536, 10, "\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"},
		{INT64_MAX, 10, "\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint8_t out[WS_HEADER_MAX];

		assert_int_equal(
			ws_header_write(out, WS_BINARY, true, cases[i].len), cases[i].header);
		assert_memory_equal(out, cases[i].bytes, cases[i].header);
		assert_int_equal(ws_header_write(out, WS_CONTINUATION, false, cases[i].len),
			cases[i].header);
		assert_int_equal(out[0], 0);
		assert_int_equal(ws_header_write_masked(
					 out, WS_BINARY, true, cases[i].len, (const uint8_t *)KEY),
			cases[i].header + 4);
		assert_int_equal(out[1], (uint8_t)cases[i].bytes[1] | 0x80);
		assert_memory_equal(out + 2, cases[i].bytes + 2, cases[i].header - 2);
		assert_memory_equal(out + cases[i].header, KEY, 4);
	}
}

static void test_close_write(void **state)
{
	uint8_t out[2 + WS_CONTROL_PAYLOAD_MAX];
	char reason[200];

	assert_int_equal(ws_close_write(out, 1000, NULL), 4);
	assert_memory_equal(out, "\x88\x02\x03\xe8", 4);
	assert_int_equal(ws_close_write(out, 1001, "going"), 9);
	assert_memory_equal(out, "\x88\x07\x03\xe9going", 9);
	assert_int_equal(ws_close_write(out, 1002, X125), 127);
	assert_memory_equal(out, "\x88\x7d\x03\xea" X25 X25 X25 X25, 104);

	/* 123 bytes fit; a character that would stand across that border is left out. */
	for (size_t before = 118; before <= 124; before++) {
		static const char *const characters[] = {
			"\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x8c\x8a"};

		for (size_t c = 0; c < 3; c++) {
			size_t n = strlen(characters[c]);
			size_t want = before + n <= 123 ? before + n : before < 123 ? before : 123;

			memset(reason, 'r', before);
			memcpy(reason + before, characters[c], n + 1);
			assert_int_equal(ws_close_write(out, 3000, reason), 4 + want);
			assert_int_equal(out[1], 2 + want);
			assert_memory_equal(out + 4, reason, want);
		}
	}
	/* Bytes that are not UTF-8 end the reason; a code that may not be sent makes the frame
	 * empty. */
	assert_int_equal(ws_close_write(out, 1011, "ab\xff yz"), 6);
	assert_int_equal(ws_close_write(out, WS_CLOSE_NO_STATUS, "x"), 2);
	assert_memory_equal(out, "\x88\x00", 2);
	assert_int_equal(ws_close_write(out, WS_CLOSE_ABNORMAL, NULL), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_close_parse_codes),
		cmocka_unit_test(test_close_parse),
		cmocka_unit_test(test_header_write),
		cmocka_unit_test(test_close_write),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
