/* Frames of the link protocol: golden bytes, bounds, flow-control arithmetic. */
#include "support/link_parse.h"

/* A whole frame must parse, every prefix of it must ask for more. */
static void assert_good(const uint8_t *data, size_t len, enum link_from from)
{
	const char *why = NULL;
	for (size_t cut = 0; cut < len; cut++)
		assert_int_equal(parse_frame(data, cut, from, &why), -EAGAIN);
	int ret = parse_frame(data, len, from, &why);
	if (ret)
		print_error("refused: %s\n", why);
	assert_int_equal(ret, 0);
}

static const struct link_hello hello = {
	.worker = 3,
	.session_window = 0x40000,
	.link_window = 0x800000,
	.payload_max = 32768,
	.message_max = 0x1000000,
	.features = 1,
	.name = "gw-1",
	.name_len = 4,
};

static void assert_bytes(const uint8_t *out, size_t len, const char *want, size_t want_len)
{
	assert_int_equal(len, want_len);
	assert_memory_equal(out, want, want_len);
}

static void test_golden_bytes(void **state)
{
	static const char want_hello[] = "\0\0\0\40\1\0\0\0\0\0\0\0\0\0\0\0"
					 "TGLK\0\1\0\3\0\4\0\0\0\x80\0\0"
					 "\0\0\x80\0\1\0\0\0\0\0\0\1gw-1";
	static const char want_close[] = "\0\0\0\11\6\0\0\0\1\2\3\4\5\6\7\10"
					 "\x03\xe9\0\0\x05\xdc"
					 "bye";
	static const char want_message[] = "\0\0\x80\0\5\3\0\0\0\0\0\0\0\0\0\11";
	static const char want_publish[] = "\0\0\0\6\11\1\0\0\0\0\0\0\0\0\0\0\1t";
	struct link_close c = {
		.code = 1001, .reconnect_delay_ms = 1500, .reason = "bye", .reason_len = 3};
	struct link_header h = {.length = 32768, .type = TG_LINK_MESSAGE, .flags = 3, .session = 9};
	uint8_t out[512];
	size_t n = link_hello_write(out, &hello);
	assert_bytes(out, n, want_hello, sizeof(want_hello) - 1);
	n = link_close_write(out, UINT64_C(0x0102030405060708), &c);
	assert_bytes(out, n, want_close, sizeof(want_close) - 1);
	link_header_write(out, &h);
	assert_bytes(out, TG_LINK_HEADER_LEN, want_message, sizeof(want_message) - 1);
	n = link_publish_write(out, "t", 1, 4, true);
	assert_bytes(out, n, want_publish, sizeof(want_publish) - 1);
}

/* Appends what stands in one column of the document's example: hexadecimal digits, "text", or
 * {JSON}. */
static size_t example_column(const char *word, uint8_t *out)
{
	size_t len = strlen(word), n = 0;
	if (word[0] == '"' || word[0] == '{') {
		size_t skip = word[0] == '"';
		memcpy(out, word + skip, len - 2 * skip);
		return len - 2 * skip;
	}
	for (unsigned byte; n < len / 2; n++) {
		assert_int_equal(sscanf(word + 2 * n, "%2x", &byte), 1);
		out[n] = (uint8_t)byte;
	}
	return n;
}

/* The frames printed in docs/link-protocol.md are what this code reads and writes. */
static void test_document(void **state)
{
	FILE *doc = fopen("docs/link-protocol.md", "r");
	char line[1024];
	uint8_t frame[1024];
	unsigned frames = 0;
	assert_non_null(doc);
	while (fgets(line, sizeof(line), doc)) {
		if (strncmp(line, "G  ", 3) && strncmp(line, "S  ", 3))
			continue;
		size_t n = 0;
		for (char *word = strtok(line + 3, " \n"); word; word = strtok(NULL, " \n"))
			n += example_column(word, frame + n);
		assert_good(frame, n, line[0] == 'G' ? LINK_FROM_GATEWAY : LINK_FROM_SERVICE);
		frames++;
	}
	fclose(doc);
	assert_int_equal(frames, 7);
}

static void test_round_trips(void **state)
{
	uint8_t out[512];
	const char *why = NULL;
	size_t n = link_hello_write(out, &hello);
	assert_good(out, n, LINK_FROM_GATEWAY);
	assert_good(out, n, LINK_FROM_SERVICE);
	struct link_hello h;
	assert_int_equal(link_hello_parse(out + 16, n - 16, &h, &why), 0);
	assert_int_equal(h.worker, 3);
	assert_int_equal(h.session_window, 0x40000);
	assert_int_equal(h.link_window, 0x800000);
	assert_int_equal(h.payload_max, 32768);
	assert_int_equal(h.message_max, 0x1000000);
	assert_int_equal(h.features, 1);
	assert_int_equal(h.name_len, 4);
	assert_memory_equal(h.name, "gw-1", 4);
}

static void test_round_trips_of_sessions(void **state)
{
	uint8_t out[512];
	const char *why = NULL;
	size_t n;
	assert_good(out, link_accept_write(out, 5, NULL, 0), LINK_FROM_SERVICE);
	assert_good(out, link_accept_write(out, 5, "mqtt.v5", 7), LINK_FROM_SERVICE);

	n = link_reject_write(out, 5, 503, "later", 5);
	assert_good(out, n, LINK_FROM_SERVICE);
	uint16_t code;
	const char *reason;
	size_t reason_len;
	assert_int_equal(link_reject_parse(out + 16, n - 16, &code, &reason, &reason_len, &why), 0);
	assert_int_equal(code, 503);
	assert_int_equal(reason_len, 5);
	assert_memory_equal(reason, "later", 5);

	struct link_close c = {.code = 4999,
		.reconnect_delay_ms = UINT32_MAX,
		.reason = "r\xc3\xa9",
		.reason_len = 3};
	n = link_close_write(out, UINT64_MAX, &c);
	assert_good(out, n, LINK_FROM_SERVICE);
	assert_good(out, n, LINK_FROM_GATEWAY);
	memset(&c, 0, sizeof(c));
	assert_int_equal(link_close_parse(out + 16, n - 16, LINK_FROM_GATEWAY, &c, &why), 0);
	assert_int_equal(c.code, 4999);
	assert_int_equal(c.reconnect_delay_ms, UINT32_MAX);
	assert_int_equal(c.reason_len, 3);

	assert_good(out, link_topic_write(out, TG_LINK_SUBSCRIBE, 5, "a/b", 3), LINK_FROM_SERVICE);
	assert_good(
		out, link_topic_write(out, TG_LINK_UNSUBSCRIBE, 5, "a/b", 3), LINK_FROM_SERVICE);
}

static void test_round_trips_of_topics_and_credit(void **state)
{
	uint8_t out[512];
	const char *why = NULL;
	size_t n = link_publish_write(out, "a/b", 3, 2, false);
	memcpy(out + n, "hi", 2);
	assert_good(out, n + 2, LINK_FROM_SERVICE);
	struct link_publish p;
	assert_int_equal(link_publish_parse(out + 16, n + 2 - 16, &p, &why), 0);
	assert_int_equal(p.topic_len, 3);
	assert_int_equal(p.len, 2);
	assert_memory_equal(p.data, "hi", 2);

	n = link_credit_write(out, 0, TG_LINK_WINDOW_MAX);
	assert_good(out, n, LINK_FROM_SERVICE);
	uint32_t u32;
	assert_int_equal(link_credit_parse(out + 16, 4, &u32, &why), 0);
	assert_int_equal(u32, TG_LINK_WINDOW_MAX);
	assert_good(out, link_credit_write(out, 77, 1), LINK_FROM_GATEWAY);
}

static void test_round_trips_of_links(void **state)
{
	uint8_t out[512];
	const char *why = NULL, *reason;
	size_t reason_len;
	uint32_t u32;
	uint16_t code;
	size_t n = link_ping_write(out, TG_LINK_PING, UINT64_C(0xfedcba9876543210));
	assert_good(out, n, LINK_FROM_GATEWAY);
	uint64_t u64;
	assert_int_equal(link_ping_parse(out + 16, 8, &u64, &why), 0);
	assert_true(u64 == UINT64_C(0xfedcba9876543210));
	assert_good(out, link_ping_write(out, TG_LINK_PONG, 0), LINK_FROM_SERVICE);

	n = link_drain_write(out, 30000);
	assert_good(out, n, LINK_FROM_SERVICE);
	assert_int_equal(link_drain_parse(out + 16, 4, &u32, &why), 0);
	assert_int_equal(u32, 30000);

	n = link_error_write(out, TG_LINK_ERROR_FLOW, "too much");
	assert_good(out, n, LINK_FROM_SERVICE);
	assert_int_equal(link_error_parse(out + 16, n - 16, &code, &reason, &reason_len, &why), 0);
	assert_int_equal(code, TG_LINK_ERROR_FLOW);
	assert_memory_equal(reason, "too much", reason_len);
	assert_good(out, link_error_write(out, TG_LINK_ERROR_NONE, NULL), LINK_FROM_GATEWAY);
}

static void test_headers_round_trip(void **state)
{
	static const struct link_header headers[] = {
		{0, TG_LINK_MESSAGE, 0, 1},
		{0, TG_LINK_MESSAGE, TG_LINK_FLAG_TEXT, UINT64_MAX},
		{1, TG_LINK_MESSAGE, TG_LINK_FLAG_MORE, 1},
		{32768, TG_LINK_MESSAGE, TG_LINK_FLAG_MORE | TG_LINK_FLAG_TEXT, UINT64_C(1) << 63},
		{2, TG_LINK_OPEN, 0, 1},
		{65536, TG_LINK_OPEN, TG_LINK_FLAG_RESUMED, 42},
	};
	for (size_t i = 0; i < ARRAY_LEN(headers); i++) {
		uint8_t out[TG_LINK_HEADER_LEN];
		const char *why = NULL;
		struct link_header h;
		link_header_write(out, &headers[i]);
		const uint8_t *p = guard_copy(&guard, out, sizeof(out));
		assert_int_equal(link_header_parse(p, sizeof(out), LINK_FROM_GATEWAY, &h, &why),
			TG_LINK_HEADER_LEN);
		assert_int_equal(h.length, headers[i].length);
		assert_int_equal(h.type, headers[i].type);
		assert_int_equal(h.flags, headers[i].flags);
		assert_true(h.session == headers[i].session);
	}
}

static void test_publish_bounds(void **state)
{
	static uint8_t payload[LINK_PUBLISH_PAYLOAD_MAX];
	memset(payload, 't', sizeof(payload));
	payload[0] = 255;
	const char *why = NULL;
	struct link_publish p;
	const uint8_t *at = guard_copy(&guard, payload, sizeof(payload));
	assert_int_equal(link_publish_parse(at, sizeof(payload), &p, &why), 0);
	assert_int_equal(p.len, TG_LINK_MESSAGE_PAYLOAD_MAX);
	payload[0] = 254; /* now the message is a byte too long */
	at = guard_copy(&guard, payload, sizeof(payload));
	assert_int_equal(link_publish_parse(at, sizeof(payload), &p, &why), -EPROTO);
}

static void test_reasons(void **state)
{
	char text[200];
	memset(text, 'a', sizeof(text));
	assert_int_equal(link_reason_fit(text, 0), 0);
	assert_int_equal(link_reason_fit(text, 123), 123);
	assert_int_equal(link_reason_fit(text, 124), 123);
	memcpy(text + 122, "\xc3\xa9", 2); /* straddles the bound */
	assert_int_equal(link_reason_fit(text, 200), 122);
	memcpy(text + 120, "\xf0\x9f\x8c\x8a", 4);
	assert_int_equal(link_reason_fit(text, 200), 120);
	text[199] = (char)0xff; /* not UTF-8, even where it would be cut off */
	assert_int_equal(link_reason_fit(text, 200), 0);

	uint8_t out[LINK_ERROR_FRAME_MAX];
	memset(text, 'e', sizeof(text));
	text[199] = 0;
	assert_int_equal(link_error_write(out, TG_LINK_ERROR_INTERNAL, text), LINK_ERROR_FRAME_MAX);
}

static void test_utf8_boundaries(void **state)
{
	static const struct {
		const char *text;
		bool ok;
	} rows[] = {
		{"\x01", false},
		{"\x7e", true},
		{"\x80", false},
		{"\xc1\xbf", false},
		{"\xc2\x80", true},
		{"\xdf\xbf", true},
		{"\xdf", false},
		{"\xe0\x9f\xbf", false},
		{"\xe0\xa0\x80", true},
		{"\xed\x9f\xbf", true},
		{"\xed\xa0\x80", false},
		{"\xee\x80\x80", true},
		{"\xef\xbf\xbf", true},
		{"\xef\xbf", false},
		{"\xf0\x8f\xbf\xbf", false},
		{"\xf0\x90\x80\x80", true},
		{"\xf4\x8f\xbf\xbf", true},
		{"\xf4\x90\x80\x80", false},
		{"\xf5\x80\x80\x80", false},
		{"\xf0\x90\x80", false},
		{"\xf0\x90\x80\x41", false},
		{"\xe2\x82\x41", false},
		{"\xc2\x41", false},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		size_t len = strlen(rows[i].text);
		const char *at = (const char *)guard_copy(&guard, rows[i].text, len);
		if (link_topic_valid(at, len) != rows[i].ok)
			print_error("row %zu\n", i);
		assert_int_equal(link_topic_valid(at, len), rows[i].ok);
	}
}

static void test_text_checks(void **state)
{
	char long_text[257];
	memset(long_text, 'x', sizeof(long_text));
	assert_true(link_name_valid("a", 1) && link_name_valid(long_text, 63));
	assert_false(link_name_valid("", 0) || link_name_valid(long_text, 64) ||
		     link_name_valid("a b", 3));
	assert_false(link_name_valid("a\"b", 3) || link_name_valid("a\\b", 3));
	assert_true(link_subprotocol_valid("mqtt", 4) && link_subprotocol_valid(long_text, 255));
	assert_false(link_subprotocol_valid("", 0) || link_subprotocol_valid(long_text, 256));
	assert_true(link_topic_valid(long_text, 255));
	assert_false(link_topic_valid("", 0) || link_topic_valid(long_text, 256));
	for (unsigned code = 0; code <= UINT16_MAX; code++) {
		bool valid = (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
			     (code >= 3000 && code <= 4999);
		assert_int_equal(link_close_code_valid((uint16_t)code, LINK_FROM_SERVICE), valid);
		assert_int_equal(link_close_code_valid((uint16_t)code, LINK_FROM_GATEWAY),
			valid || code == 1005 || code == 1006);
	}
	assert_string_equal(link_type_name(TG_LINK_HELLO), "HELLO");
	assert_string_equal(link_type_name(TG_LINK_ERROR), "ERROR");
	assert_string_equal(link_type_name(0), "?");
	assert_string_equal(link_type_name(255), "?");
}

static void test_credit(void **state)
{
	assert_int_equal(link_credit_allows(100, 100, 32768, 1000), 84);
	assert_int_equal(link_credit_allows(100, 50, 32768, 1000), 34);
	assert_int_equal(link_credit_allows(100, 100, 32768, 20), 20);
	assert_int_equal(link_credit_allows(100000, 100000, 4096, 20000), 4096);
	assert_int_equal(link_credit_allows(17, 17, 32768, 20), 1);
	assert_int_equal(link_credit_allows(16, 17, 32768, 20), -1);
	assert_int_equal(link_credit_allows(16, 16, 32768, 0), 0);
	assert_int_equal(link_credit_allows(16, 15, 32768, 0), -1);
	assert_int_equal(link_credit_allows(0, 0, 32768, 0), -1);

	uint32_t credit = 5;
	assert_int_equal(link_credit_add(&credit, TG_LINK_WINDOW_MAX - 5), 0);
	assert_int_equal(credit, TG_LINK_WINDOW_MAX);
	assert_int_equal(link_credit_add(&credit, 1), -EPROTO);
	assert_int_equal(link_credit_add(&credit, UINT32_MAX), -EPROTO);
	assert_int_equal(credit, TG_LINK_WINDOW_MAX);
}

static void test_window(void **state)
{
	struct link_window w = {0};
	const uint32_t size = 8192;
	assert_int_equal(link_window_take(&w, size, 8193), -EPROTO);
	assert_int_equal(link_window_grant(&w, size), 0);
	assert_int_equal(link_window_take(&w, size, 4096), 0);
	link_window_consume(&w, 2047);
	assert_int_equal(link_window_grant(&w, size), 0); /* less than a quarter, and plenty left */
	link_window_consume(&w, 1);
	assert_int_equal(link_window_grant(&w, size), 2048);
	assert_int_equal(w.outstanding, 2048);
	assert_int_equal(link_window_take(&w, size, 6144), 0);
	assert_int_equal(link_window_take(&w, size, 1), -EPROTO);
	link_window_consume(&w, 1);
	assert_int_equal(link_window_grant(&w, size), 1); /* the peer has nothing left: at once */
	assert_int_equal(link_window_grant(&w, size), 0);
	assert_int_equal(w.outstanding, 8191);
	link_window_consume(&w, 8191);
	assert_int_equal(link_window_grant(&w, size), 8191);
	assert_int_equal(w.outstanding, 0);
}

/* Whatever order frames and consumption come in, credit is conserved and a peer whose bytes are
 * consumed never waits. */
static void test_window_model(void **state)
{
	uint64_t x = 88172645463325252u;
	struct link_window w = {0};
	const uint32_t size = TG_LINK_WINDOW_MIN;
	uint32_t credit = size, unconsumed = 0;
	for (unsigned i = 0; i < 200000; i++) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		if (x & 1) {
			ssize_t n = link_credit_allows(
				credit, UINT32_MAX, TG_LINK_MESSAGE_PAYLOAD_MAX, x >> 8 & 0xfff);
			if (n >= 0) {
				assert_int_equal(
					link_window_take(&w, size, link_cost((uint32_t)n)), 0);
				credit -= link_cost((uint32_t)n);
				unconsumed += link_cost((uint32_t)n);
			}
		} else {
			uint32_t bytes = (uint32_t)(x >> 8) % (unconsumed + 1);
			link_window_consume(&w, bytes);
			unconsumed -= bytes;
			uint32_t grant = link_window_grant(&w, size);
			if (grant)
				assert_int_equal(link_credit_add(&credit, grant), 0);
		}
		assert_int_equal(credit + w.outstanding, size);
		if (unconsumed == 0)
			assert_true(credit >= 1024);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_golden_bytes),
		cmocka_unit_test(test_document),
		cmocka_unit_test(test_round_trips),
		cmocka_unit_test(test_round_trips_of_sessions),
		cmocka_unit_test(test_round_trips_of_topics_and_credit),
		cmocka_unit_test(test_round_trips_of_links),
		cmocka_unit_test(test_headers_round_trip),
		cmocka_unit_test(test_publish_bounds),
		cmocka_unit_test(test_reasons),
		cmocka_unit_test(test_utf8_boundaries),
		cmocka_unit_test(test_text_checks),
		cmocka_unit_test(test_credit),
		cmocka_unit_test(test_window),
		cmocka_unit_test(test_window_model),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
