/* RFC 6455 framing: the table of support/ws_rules.h (each case whole, byte by byte, and cut in two
 * and in three everywhere), every possible first two bytes and random streams against a model,
 * message sizes. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/mask.h"
#include "proto/ws.h"
#include "support/guard.h"
#include "support/ws_log.h"
#include "support/ws_rules.h"

enum {
	MESSAGE_MAX = 1 << 20,
	INPUT_MAX = 2048
};

static uint8_t key_of(size_t frame, size_t i)
{
	return (uint8_t)(0x5a + 31 * frame + 77 * i);
}

/* One frame, masked unless `client` (which is who parses). Returns its length. */
static size_t write_frame(
	uint8_t *out, uint8_t first, const void *payload, size_t len, bool client, size_t nth)
{
	uint8_t key[4] = {key_of(nth, 0), key_of(nth, 1), key_of(nth, 2), key_of(nth, 3)};
	size_t n = client ? ws_header_write(out, first & 15, false, len)
			  : ws_header_write_masked(out, first & 15, false, len, key);

	out[0] = first;
	for (size_t i = 0; i < len; i++)
		out[n + i] = ((const uint8_t *)payload)[i] ^ (client ? 0 : key[i % 4]);
	return n + len;
}

static size_t build(const struct rule *r, bool client, uint8_t out[INPUT_MAX])
{
	size_t len = 0;

	for (size_t i = 0; i < FRAMES_MAX && r->frames[i].payload; i++)
		len += write_frame(out + len, r->frames[i].first, r->frames[i].payload,
			r->frames[i].len, client, i);
	if (r->raw)
		memcpy(out + len, r->raw, r->raw_len);
	return len + r->raw_len;
}

/* Feeds input[0..len) cut at the given places, each piece against the guard page. */
static void feed_cut(struct ws_log *log, struct guard *g, const struct ws_limits *limits,
	const uint8_t *input, size_t len, const size_t *cuts, size_t ncuts)
{
	struct ws_parser p;
	size_t at = 0;

	ws_log_init(log, len);
	ws_parser_init(&p);
	for (size_t i = 0; i <= ncuts; i++) {
		size_t n = (i < ncuts ? cuts[i] : len) - at;

		if (!ws_log_feed(log, &p, limits, guard_copy(g, input + at, n), n))
			break;
		at += n;
	}
}

static void check_cuts(const struct rule *r, struct guard *g, const struct ws_limits *limits,
	const uint8_t *input, size_t len, const struct ws_log *whole)
{
	struct ws_log log;
	size_t every[INPUT_MAX];

	for (size_t i = 0; i < len; i++)
		every[i] = i;
	feed_cut(&log, g, limits, input, len, every, len);
	if (!ws_log_same(whole, &log))
		fail_msg("%s, byte by byte: %s %u", r->name, log.text, log.close);
	ws_log_fini(&log);
	for (size_t first = 0; first <= len; first++) {
		/* Three pieces for short inputs, two for longer ones. */
		for (size_t second = len <= 40 ? first : len; second <= len; second++) {
			size_t cuts[2] = {first, second};

			feed_cut(&log, g, limits, input, len, cuts, 2);
			if (!ws_log_same(whole, &log))
				fail_msg("%s, cut at %zu, %zu: %s", r->name, first, second,
					log.text);
			ws_log_fini(&log);
		}
	}
}

static void check_rule(const struct rule *r, struct guard *g, bool client)
{
	struct ws_limits limits = {
		.message_max = r->message_max ? r->message_max : MESSAGE_MAX, .client = client};
	uint8_t input[INPUT_MAX];
	size_t len = build(r, client, input);
	struct ws_log whole;
	struct ws_log model;

	feed_cut(&whole, g, &limits, input, len, NULL, 0);
	if (strcmp(whole.text, r->log) != 0 || whole.close != r->close)
		fail_msg("%s: got %s %u, wanted %s %u", r->name, whole.text, whole.close, r->log,
			r->close);
	check_cuts(r, g, &limits, input, len, &whole);

	ws_log_init(&model, len);
	ws_model(&model, &limits, input, len);
	if (strcmp(whole.text, model.text) != 0 || whole.close != model.close)
		fail_msg("%s: the model says %s %u", r->name, model.text, model.close);
	ws_log_fini(&model);
	ws_log_fini(&whole);
}

static void test_rules(void **state)
{
	struct guard g;

	guard_init(&g, INPUT_MAX);
	for (size_t i = 0; i < RULES; i++) {
		const struct rule *r = &rules[i];

		/* What has no raw bytes must hold for both directions. */
		if (!r->raw || !r->raw_client)
			check_rule(r, &g, false);
		if (!r->raw || r->raw_client)
			check_rule(r, &g, true);
	}
	guard_fini(&g);
}

/* All 65,536 ways to begin a frame, in each state of a message, in both directions. */
static void test_every_header(void **state)
{
	static const uint8_t opens[] = {0, TEXT, BINARY};
	uint8_t input[64];
	struct ws_log log;
	struct ws_log model;

	ws_log_init(&log, sizeof(input));
	ws_log_init(&model, sizeof(input));
	for (uint32_t v = 0; v < 6 * 0x10000; v++) {
		struct ws_limits limits = {.message_max = 300, .client = v >> 16 & 1};
		uint8_t open = opens[v >> 17];
		size_t len = open ? write_frame(input, open, "ab", 2, limits.client, v) : 0;
		struct ws_parser p;

		input[len++] = (uint8_t)(v >> 8);
		input[len++] = (uint8_t)v;
		/* A 16-bit length of 258, a 64-bit one far too big, a mask that makes ASCII,
		 * payload. */
		memcpy(input + len, "\x01\x02\x03\x04\x05\x06\x07\x08klmnopqr", 16);
		len += 16;
		log.text[log.len = 0] = '\0';
		model.text[model.len = 0] = '\0';
		log.close = model.close = 0;
		log.in_message = model.in_message = log.in_control = model.in_control = false;
		ws_parser_init(&p);
		ws_model(&model, &limits, input, len);
		ws_log_feed(&log, &p, &limits, input, len);
		assert_string_equal(log.text, model.text);
		assert_int_equal(log.close, model.close);
	}
	ws_log_fini(&log);
	ws_log_fini(&model);
}

static unsigned int seed;

static size_t dice(size_t sides)
{
	return (size_t)rand_r(&seed) % sides;
}

/* Frames that mostly obey the rules; now and then a bit is flipped. */
static size_t random_stream(uint8_t *out, size_t cap, bool client)
{
	static const size_t sizes[] = {0, 1, 8, 40, 125, 130, 700};
	uint8_t payload[700];
	size_t len = 0;
	uint8_t open = 0;

	while (len + sizeof(payload) + WS_HEADER_MAX <= cap) {
		size_t n = dice(sizes[dice(7)] + 1);
		uint8_t opcode = open ? WS_CONTINUATION : (uint8_t)(1 + dice(2));
		uint8_t fin = dice(3) ? FIN : 0;
		bool control = dice(4) == 0;

		if (control) {
			opcode = (uint8_t)(WS_CLOSE + dice(3));
			fin = FIN;
			n = n > 125 ? 125 : n;
		} else {
			open = fin ? 0 : open ? open : opcode;
		}
		for (size_t i = 0; i < n; i++)
			payload[i] = (uint8_t)(dice(40) ? 'a' + dice(26) : 0xc3);
		/* Each lead byte above gets its continuation; a cut one at the end stays. */
		for (size_t i = 1; i < n; i++)
			if (payload[i - 1] == 0xc3)
				payload[i] = 0xa9;
		if (n && payload[n - 1] == 0xc3 && dice(10))
			payload[n - 1] = '!';
		len += write_frame(out + len, fin | opcode, payload, n, client, len);
		if (dice(12) == 0)
			break;
	}
	if (dice(4) == 0)
		out[dice(len)] ^= (uint8_t)(1 << dice(8));
	return len;
}

static void test_random_streams(void **state)
{
	enum {
		CAP = 6000
	};
	uint8_t *input = malloc(CAP);
	size_t failed = 0;

	assert_non_null(input);
	seed = 1;
	for (int stream = 0; stream < 2000; stream++) {
		struct ws_limits limits = {
			.message_max = dice(3) ? MESSAGE_MAX : 600, .client = dice(2)};
		size_t len = random_stream(input, CAP, limits.client);
		struct ws_log whole;
		struct ws_log model;
		struct ws_parser p;

		ws_log_init(&whole, len);
		ws_log_init(&model, len);
		ws_parser_init(&p);
		ws_model(&model, &limits, input, len);
		ws_log_feed_copy(&whole, &p, &limits, input, len);
		assert_string_equal(whole.text, model.text);
		assert_int_equal(whole.close, model.close);
		assert_int_equal(whole.empty, model.empty);
		failed += whole.close != 0;
		for (int round = 0; round < 3; round++) {
			size_t max = (size_t[]){3, 50, 1500}[round];
			struct ws_log log;

			ws_log_init(&log, len);
			ws_parser_init(&p);
			for (size_t at = 0, n; at < len; at += n) {
				n = 1 + dice(max);
				n = n < len - at ? n : len - at;
				if (!ws_log_feed_copy(&log, &p, &limits, input + at, n))
					break;
			}
			assert_true(ws_log_same(&whole, &log));
			ws_log_fini(&log);
		}
		ws_log_fini(&whole);
		ws_log_fini(&model);
	}
	/* Both outcomes must have been common, or this test tests little. */
	assert_in_range(failed, 200, 1800);
	free(input);
}

/* Byte i of a big message: ASCII that no cut or shift leaves the same. */
static uint8_t big_byte(uint64_t i)
{
	return (uint8_t)('0' + (i * 7 + (i >> 8) + (i >> 16)) % 64);
}

struct big {
	uint64_t got;
	size_t pings;
	bool ended;
};

/* Feeds one read and checks what comes out of the message. */
static void big_feed(struct big *b, struct ws_parser *p, const struct ws_limits *limits,
	uint8_t *data, size_t len)
{
	struct ws_event ev;
	bool has_event;
	uint16_t close;
	const char *why;

	for (size_t at = 0; at < len;) {
		ssize_t n = ws_parse(p, limits, data + at, len - at, &ev, &has_event, &close, &why);

		if (n <= 0)
			fail_msg("%s", n < 0 ? why : "nothing consumed");
		at += (size_t)n;
		if (!has_event)
			continue;
		if (ev.kind == WS_EVENT_PING) {
			b->pings += ev.end;
			continue;
		}
		for (size_t i = 0; i < ev.len; i++)
			if (ev.data[i] != big_byte(b->got + i))
				fail_msg("byte %llu", (unsigned long long)(b->got + i));
		assert_int_equal(ev.start, b->got == 0);
		b->got += ev.len;
		b->ended = ev.end;
	}
}

/* A message of `total` bytes in frames of up to `frame`, a ping between them, in reads of `chunk`
 * bytes. */
static void check_big(uint8_t first, size_t total, size_t frame, size_t chunk)
{
	struct ws_limits limits = {.message_max = total};
	size_t frames = total / frame + 1;
	uint8_t *input = malloc(total + frames * (WS_HEADER_MAX + 7));
	uint8_t *payload = malloc(frame + 1);
	struct ws_parser p;
	struct big b = {0};
	size_t len = 0;
	size_t pings = 0;

	assert_non_null(input);
	assert_non_null(payload);
	for (size_t at = 0; at < total || at == 0;) {
		size_t n = total - at < frame ? total - at : frame;
		uint8_t fin = at + n == total ? FIN : 0;

		for (size_t i = 0; i < n; i++)
			payload[i] = big_byte(at + i);
		len += write_frame(input + len, fin | (at ? CONT : first), payload, n, false, at);
		if (!fin) {
			len += write_frame(input + len, PING, "!", 1, false, at);
			pings++;
		}
		at += n;
		if (total == 0)
			break;
	}
	ws_parser_init(&p);
	for (size_t at = 0; at < len; at += chunk)
		big_feed(&b, &p, &limits, input + at, chunk < len - at ? chunk : len - at);
	assert_int_equal(b.got, total);
	assert_int_equal(b.pings, pings);
	assert_true(b.ended && ws_parser_idle(&p));
	free(input);
	free(payload);
}

static void test_sizes(void **state)
{
	static const size_t sizes[] = {0, 1, 125, 126, 127, 128, 65535, 65536, 65537, 262144};
	static const size_t chunks[] = {1, 997, 65536, SIZE_MAX};

	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		for (size_t c = 0; c < 4; c++) {
			check_big(TEXT, sizes[s], sizes[s] + 1, chunks[c]);
			check_big(BINARY, sizes[s], 64, chunks[c]);
		}
	}
}

static void test_16_mib(void **state)
{
	size_t total = 16 << 20;

	check_big(TEXT, total, total, 65536);
	check_big(TEXT, total, 4096, 65536);
	check_big(BINARY, total, total, SIZE_MAX);
	check_big(BINARY, total, 1 << 20, 1500);
}

/* One byte more than allowed is refused by the length alone, before the mask and any payload. */
static void test_16_mib_and_one(void **state)
{
	struct ws_limits limits = {.message_max = 16 << 20};
	uint8_t header[] = {WHOLE_BINARY, 0xff, 0, 0, 0, 0, 1, 0, 0, 1};
	struct ws_parser p;
	struct ws_event ev;
	bool has_event = true;
	uint16_t close = 0;
	const char *why = NULL;

	ws_parser_init(&p);
	assert_int_equal(ws_parse(&p, &limits, header, 9, &ev, &has_event, &close, &why), 9);
	assert_false(has_event);
	assert_int_equal(
		ws_parse(&p, &limits, header + 9, 1, &ev, &has_event, &close, &why), -EPROTO);
	assert_int_equal(close, WS_CLOSE_TOO_BIG);
	assert_non_null(why);
}

static void test_limit_lowered(void **state)
{
	struct ws_limits limits = {.message_max = 100, .client = true};
	uint8_t frames[] = {TEXT, 5, 'a', 'b', 'c', 'd', 'e', FIN, 0};
	struct ws_parser p;
	struct ws_log log;

	ws_log_init(&log, sizeof(frames));
	ws_parser_init(&p);
	assert_true(ws_log_feed(&log, &p, &limits, frames, 7));
	log.message_len = 0;
	limits.message_max = 3;
	assert_false(ws_log_feed(&log, &p, &limits, frames + 7, 2));
	assert_int_equal(log.close, WS_CLOSE_TOO_BIG);
	ws_log_fini(&log);
}

static struct ws_event next(struct ws_parser *p, uint8_t *data, size_t len, bool want_event)
{
	struct ws_limits limits = {.message_max = MESSAGE_MAX, .client = true};
	struct ws_event ev = {0};
	bool has_event = !want_event;
	uint16_t close;
	const char *why;

	assert_int_equal(ws_parse(p, &limits, data, len, &ev, &has_event, &close, &why), len);
	assert_int_equal(has_event, want_event);
	return ev;
}

#define assert_event(ev, k, s, e, n)                                                               \
	do {                                                                                       \
		struct ws_event got_ = (ev);                                                       \
		assert_int_equal(got_.kind, k);                                                    \
		assert_int_equal(got_.start, s);                                                   \
		assert_int_equal(got_.end, e);                                                     \
		assert_int_equal(got_.len, n);                                                     \
	} while (0)

/* Which pieces there are: none of length 0 but for an empty frame, and that one as soon as its
 * header is complete. */
static void test_pieces(void **state)
{
	uint8_t in[] = {
		TEXT, 4, 'a', 'b', 'c', 'd', PING, 3, 'x', 'y', 'z', CONT, 0, PONG, 0, FIN, 1, 'e'};
	struct ws_parser p;

	ws_parser_init(&p);
	assert_true(ws_parser_idle(&p));
	next(&p, in, 1, false);
	assert_false(ws_parser_idle(&p));
	next(&p, in + 1, 1, false);
	assert_event(next(&p, in + 2, 1, true), WS_EVENT_DATA, true, false, 1);
	assert_event(next(&p, in + 3, 3, true), WS_EVENT_DATA, false, false, 3);
	assert_false(ws_parser_idle(&p));
	assert_event(next(&p, in + 6, 3, true), WS_EVENT_PING, true, false, 1);
	assert_event(next(&p, in + 9, 1, true), WS_EVENT_PING, false, false, 1);
	assert_event(next(&p, in + 10, 1, true), WS_EVENT_PING, false, true, 1);
	next(&p, in + 11, 1, false);
	assert_event(next(&p, in + 12, 1, true), WS_EVENT_DATA, false, false, 0);
	assert_event(next(&p, in + 13, 2, true), WS_EVENT_PONG, true, true, 0);
	assert_false(ws_parser_idle(&p));
	assert_event(next(&p, in + 15, 3, true), WS_EVENT_DATA, false, true, 1);
	assert_true(ws_parser_idle(&p));
	/* Nothing stays behind that would keep the next message from the short way. */
	assert_int_equal(p.flags | p.header_len | p.message_opcode | p.utf8_state, 0);
}

static void test_one_event_a_call(void **state)
{
	struct ws_limits limits = {.message_max = MESSAGE_MAX, .client = true};
	uint8_t in[] = {WHOLE_TEXT, 1, 'a', WHOLE_TEXT, 1, 'b'};
	struct ws_parser p;
	struct ws_event ev;
	bool has_event = true;
	uint16_t close = 7;
	const char *why = "untouched";

	ws_parser_init(&p);
	assert_int_equal(ws_parse(&p, &limits, in, 0, &ev, &has_event, &close, &why), 0);
	assert_false(has_event);
	assert_int_equal(ws_parse(&p, &limits, in, sizeof(in), &ev, &has_event, &close, &why), 3);
	assert_true(has_event && ev.data == in + 2 && ev.text);
	assert_event(ev, WS_EVENT_DATA, true, true, 1);
	assert_int_equal(close, 7);
	assert_string_equal(why, "untouched");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rules),
		cmocka_unit_test(test_every_header),
		cmocka_unit_test(test_random_streams),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_16_mib),
		cmocka_unit_test(test_16_mib_and_one),
		cmocka_unit_test(test_limit_lowered),
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_one_event_a_call),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
