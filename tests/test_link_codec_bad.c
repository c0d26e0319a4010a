/* Malformed frames of the link protocol: each is refused with a reason, whole or cut off. */
#include "support/link_parse.h"

/* One rule broken each. G and S: who sends it. */
static const struct {
	enum link_from from;
	int want;
	size_t len;
	const char *bytes;
} malformed[] = {
#define G          LINK_FROM_GATEWAY
#define S          LINK_FROM_SERVICE
#define B(bytes)   sizeof(bytes) - 1, bytes
#define SESSION    "\0\0\0\0\0\0\0\1"
#define LINK       "\0\0\0\0\0\0\0\0"
#define HELLO_TAIL "\0\4\0\0\0\x80\0\0\0\0\x80\0\1\0\0\0\0\0\0\0n"
	/* types, reserved, flags */
	{G, -EPROTO, B("\0\0\0\0\0\0\0\0" LINK)},
	{G, -EPROTO, B("\0\0\0\0\17\0\0\0" LINK)},
	{G, -EPROTO, B("\0\0\0\0\xff\0\0\0" LINK)},
	{G, -EPROTO, B("GET /chat HTTP/1.1\r\n")},
	{G, -EPROTO, B("\0\0\0\1\5\0\1\0" SESSION "x")},
	{G, -EPROTO, B("\0\0\0\1\5\0\0\1" SESSION "x")},
	{G, -EPROTO, B("\0\0\0\1\5\4\0\0" SESSION "x")},
	{G, -EPROTO, B("\0\0\0\1\5\x80\0\0" SESSION "x")},
	{G, -EPROTO, B("\0\0\0\2\2\1\0\0" SESSION "{}")},
	{G, -EPROTO, B("\0\0\0\10\13\1\0\0" LINK "12345678")},
	{S, -EPROTO, B("\0\0\0\3\11\2\0\0" LINK "\1tx")},
	{S, -EPROTO, B("\0\0\0\0\3\1\0\0" SESSION)},
	/* direction */
	{S, -EPROTO, B("\0\0\0\2\2\0\0\0" SESSION "{}")},
	{G, -EPROTO, B("\0\0\0\0\3\0\0\0" SESSION)},
	{G, -EPROTO, B("\0\0\0\2\4\0\0\0" SESSION "\1\xf4")},
	{G, -EPROTO, B("\0\0\0\1\7\0\0\0" SESSION "t")},
	{G, -EPROTO, B("\0\0\0\1\10\0\0\0" SESSION "t")},
	{G, -EPROTO, B("\0\0\0\3\11\0\0\0" LINK "\1tx")},
	/* session */
	{G, -EPROTO, B("\0\0\0\2\2\0\0\0" LINK "{}")},
	{S, -EPROTO, B("\0\0\0\0\3\0\0\0" LINK)},
	{S, -EPROTO, B("\0\0\0\2\4\0\0\0" LINK "\1\xf4")},
	{G, -EPROTO, B("\0\0\0\1\5\0\0\0" LINK "x")},
	{G, -EPROTO, B("\0\0\0\6\6\0\0\0" LINK "\3\xe8\0\0\0\0")},
	{S, -EPROTO, B("\0\0\0\1\7\0\0\0" LINK "t")},
	{S, -EPROTO, B("\0\0\0\3\11\0\0\0" SESSION "\1tx")},
	{G, -EPROTO, B("\0\0\0\10\13\0\0\0" SESSION "12345678")},
	{G, -EPROTO, B("\0\0\0\10\14\0\0\0" SESSION "12345678")},
	{G, -EPROTO, B("\0\0\0\4\15\0\0\0" SESSION "\0\0\0\0")},
	{G, -EPROTO, B("\0\0\0\2\16\0\0\0" SESSION "\0\1")},
	/* lengths; nothing but the header is needed to know */
	{G, -EPROTO, B("\0\0\x80\1\5\0\0\0" SESSION)},
	{G, -EPROTO, B("\xff\xff\xff\xff\5\0\0\0" SESSION)},
	{G, -EPROTO, B("\0\0\0\0\5\2\0\0" SESSION)},
	{G, -EPROTO, B("\0\1\0\1\2\0\0\0" SESSION)},
	{G, -EPROTO, B("\0\0\0\1\2\0\0\0" SESSION "{")},
	{S, -EPROTO, B("\0\0\1\0\3\0\0\0" SESSION)},
	{S, -EPROTO, B("\0\0\0\1\4\0\0\0" SESSION "\1")},
	{S, -EPROTO, B("\0\0\0\176\4\0\0\0" SESSION)},
	{G, -EPROTO, B("\0\0\0\5\6\0\0\0" SESSION "\3\xe8\0\0\0")},
	{G, -EPROTO, B("\0\0\0\x82\6\0\0\0" SESSION)},
	{S, -EPROTO, B("\0\0\0\0\7\0\0\0" SESSION)},
	{S, -EPROTO, B("\0\0\1\0\7\0\0\0" SESSION)},
	{S, -EPROTO, B("\0\0\0\1\11\0\0\0" LINK "\1")},
	{S, -EPROTO, B("\0\0\x81\1\11\0\0\0" LINK)},
	{G, -EPROTO, B("\0\0\0\3\12\0\0\0" LINK "\0\0\1")},
	{G, -EPROTO, B("\0\0\0\5\12\0\0\0" LINK "\0\0\0\0\1")},
	{G, -EPROTO, B("\0\0\0\7\13\0\0\0" LINK "1234567")},
	{G, -EPROTO, B("\0\0\0\11\14\0\0\0" LINK "123456789")},
	{G, -EPROTO, B("\0\0\0\0\15\0\0\0" LINK)},
	{G, -EPROTO, B("\0\0\0\1\16\0\0\0" LINK "\0")},
	{G, -EPROTO, B("\0\0\0\5\1\0\0\0" LINK "TGLK\0")},
	{G, -EPROTO, B("\0\0\4\1\1\0\0\0" LINK)},
	/* HELLO */
	{G, -EPROTONOSUPPORT, B("\0\0\0\35\1\0\0\0" LINK "TGLX\0\1\0\0" HELLO_TAIL)},
	{G, -EPROTONOSUPPORT, B("\0\0\0\35\1\0\0\0" LINK "TGLK\0\2\0\0" HELLO_TAIL)},
	{G, -EPROTONOSUPPORT, B("\0\0\0\35\1\0\0\0" LINK "TGLK\0\0\0\0" HELLO_TAIL)},
	{G, -EPROTONOSUPPORT, B("\0\0\0\6\1\0\0\0" LINK "TGLK\1\1")},
	{G, -EPROTO, B("\0\0\0\6\1\0\0\0" LINK "TGLK\0\1")},
	{G, -EPROTO,
		B("\0\0\0\34\1\0\0\0" LINK
		  "TGLK\0\1\0\0\0\4\0\0\0\x80\0\0\0\0\x80\0\1\0\0\0\0\0\0\0")},
	{G, -EPROTO,
		B("\0\0\0\35\1\0\0\0" LINK
		  "TGLK\0\1\0\0\0\0\xf\xff\0\x80\0\0\0\0\x80\0\1\0\0\0\0\0\0\0n")},
	{G, -EPROTO,
		B("\0\0\0\35\1\0\0\0" LINK
		  "TGLK\0\1\0\0\x40\0\0\1\0\x80\0\0\0\0\x80\0\1\0\0\0\0\0\0\0n")},
	{G, -EPROTO,
		B("\0\0\0\35\1\0\0\0" LINK
		  "TGLK\0\1\0\0\0\4\0\0\0\0\0\0\0\0\x80\0\1\0\0\0\0\0\0\0n")},
	{G, -EPROTO,
		B("\0\0\0\35\1\0\0\0" LINK
		  "TGLK\0\1\0\0\0\4\0\0\xff\xff\xff\xff\0\0\x80\0\1\0\0\0\0\0\0\0n")},
	{G, -EPROTO,
		B("\0\0\0\35\1\0\0\0" LINK
		  "TGLK\0\1\0\0\0\4\0\0\0\x80\0\0\0\0\x80\1\1\0\0\0\0\0\0\0n")},
	{G, -EPROTO,
		B("\0\0\0\35\1\0\0\0" LINK
		  "TGLK\0\1\0\0\0\4\0\0\0\x80\0\0\0\0\x0f\xff\1\0\0\0\0\0\0\0n")},
	{G, -EPROTO,
		B("\0\0\0\35\1\0\0\0" LINK
		  "TGLK\0\1\0\0\0\4\0\0\0\x80\0\0\0\0\x80\0\0\0\0\0\0\0\0\0n")},
	{G, -EPROTO,
		B("\0\0\0\35\1\0\0\0" LINK
		  "TGLK\0\1\0\0\0\4\0\0\0\x80\0\0\0\0\x80\0\1\0\0\0\0\0\0\0 ")},
	{G, -EPROTO,
		B("\0\0\0\35\1\0\0\0" LINK
		  "TGLK\0\1\0\0\0\4\0\0\0\x80\0\0\0\0\x80\0\1\0\0\0\0\0\0\0\x80")},
	{S, -EPROTO,
		B("\0\0\0\36\1\0\0\0" LINK
		  "TGLK\0\1\0\0\0\4\0\0\0\x80\0\0\0\0\x80\0\1\0\0\0\0\0\0\0n\0")},
	/* payloads */
	{G, -EPROTO, B("\0\0\0\2\2\0\0\0" SESSION "[]")},
	{G, -EPROTO, B("\0\0\0\3\2\0\0\0" SESSION "{} ")},
	{G, -EPROTO, B("\0\0\0\3\2\0\0\0" SESSION "{\0}")},
	{S, -EPROTO, B("\0\0\0\3\3\0\0\0" SESSION "a b")},
	{S, -EPROTO, B("\0\0\0\3\3\0\0\0" SESSION "a,b")},
	{S, -EPROTO, B("\0\0\0\3\3\0\0\0" SESSION "a\0b")},
	{S, -EPROTO, B("\0\0\0\2\3\0\0\0" SESSION "\xc3\xa9")},
	{S, -EPROTO, B("\0\0\0\2\4\0\0\0" SESSION "\1\x8f")},
	{S, -EPROTO, B("\0\0\0\2\4\0\0\0" SESSION "\2\x58")},
	{S, -EPROTO, B("\0\0\0\3\4\0\0\0" SESSION "\1\xf7\x80")},
	{G, -EPROTO, B("\0\0\0\6\6\0\0\0" SESSION "\0\0\0\0\0\0")},
	{G, -EPROTO, B("\0\0\0\6\6\0\0\0" SESSION "\3\xe7\0\0\0\0")},
	{G, -EPROTO, B("\0\0\0\6\6\0\0\0" SESSION "\3\xec\0\0\0\0")},
	{S, -EPROTO, B("\0\0\0\6\6\0\0\0" SESSION "\3\xed\0\0\0\0")},
	{S, -EPROTO, B("\0\0\0\6\6\0\0\0" SESSION "\3\xee\0\0\0\0")},
	{G, -EPROTO, B("\0\0\0\6\6\0\0\0" SESSION "\3\xf7\0\0\0\0")},
	{G, -EPROTO, B("\0\0\0\6\6\0\0\0" SESSION "\x0b\xb7\0\0\0\0")},
	{G, -EPROTO, B("\0\0\0\6\6\0\0\0" SESSION "\x13\x88\0\0\0\0")},
	{G, -EPROTO, B("\0\0\0\7\6\0\0\0" SESSION "\3\xe8\0\0\0\0\xff")},
	{G, -EPROTO, B("\0\0\0\11\6\0\0\0" SESSION "\3\xe8\0\0\0\0\xed\xa0\x80")},
	{S, -EPROTO, B("\0\0\0\1\7\0\0\0" SESSION "\n")},
	{S, -EPROTO, B("\0\0\0\1\7\0\0\0" SESSION "\x7f")},
	{S, -EPROTO, B("\0\0\0\2\10\0\0\0" SESSION "\xc0\x80")},
	{S, -EPROTO, B("\0\0\0\2\11\0\0\0" LINK "\0x")},
	{S, -EPROTO, B("\0\0\0\3\11\0\0\0" LINK "\3tx")},
	{S, -EPROTO, B("\0\0\0\3\11\0\0\0" LINK "\1\tx")},
	{G, -EPROTO, B("\0\0\0\4\12\0\0\0" LINK "\0\0\0\0")},
	{G, -EPROTO, B("\0\0\0\4\12\0\0\0" SESSION "\x40\0\0\1")},
	{G, -EPROTO, B("\0\0\0\4\12\0\0\0" SESSION "\xff\xff\xff\xff")},
	{G, -EPROTO, B("\0\0\0\3\16\0\0\0" LINK "\0\1\xf8")},
};

static void test_malformed(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(malformed); i++) {
		const char *why = NULL;
		int ret = parse_frame((const uint8_t *)malformed[i].bytes, malformed[i].len,
			malformed[i].from, &why);
		if (ret != malformed[i].want)
			print_error("row %zu: %d\n", i, ret);
		assert_int_equal(ret, malformed[i].want);
		assert_non_null(why);
		/* Less than the whole is never taken for good. */
		for (size_t cut = 0; cut < malformed[i].len; cut++)
			assert_int_not_equal(parse_frame((const uint8_t *)malformed[i].bytes, cut,
						     malformed[i].from, &why),
				0);
	}
}

/* What a parser is given on failure stays as it was. */
static void test_outputs_untouched(void **state)
{
	const char *why = NULL;
	struct link_header h = {.length = 7, .type = 7, .flags = 7, .session = 7};
	assert_int_equal(link_header_parse((const uint8_t *)"GET / HTTP/1.1\r\n", 16,
				 LINK_FROM_GATEWAY, &h, &why),
		-EPROTO);
	assert_int_equal(h.length, 7);
	assert_true(h.session == 7);
	struct link_close c = {.code = 7};
	assert_int_equal(
		link_close_parse((const uint8_t *)"\0\0\0\0\0\0", 6, LINK_FROM_SERVICE, &c, &why),
		-EPROTO);
	assert_int_equal(c.code, 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_outputs_untouched),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
