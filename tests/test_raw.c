/* proto/raw: frames whole, cut in two anywhere, one byte at a time, each against a guard page. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/raw.h"
#include "support/guard.h"

#define ELEMENTS(a) (sizeof(a) / sizeof((a)[0]))
#define BYTES(s)    (s), sizeof(s) - 1

#define HELLO   "\0\0\0\x08\x01\x01\x05/echo" /* no token */
#define WELCOME "\0\0\0\x0a\x02\x01\0\0\0\0\0\0\0\x07"

enum {
	MESSAGE_MAX = 1000,
	FRAMES_MAX = 16,
	TRACE_PAYLOAD_MAX = 8192
};

static const struct raw_limits begin = {.message_max = MESSAGE_MAX, .expect_hello = true};
static const struct raw_limits open_ = {.message_max = MESSAGE_MAX};
static const struct raw_limits client = {.message_max = MESSAGE_MAX, .client = true};

/* What came out of a parser: whole frames put together from their pieces. */
struct trace {
	unsigned n;
	struct {
		uint8_t type;
		size_t offset, len; /* into payload */
	} frame[FRAMES_MAX];
	uint8_t payload[TRACE_PAYLOAD_MAX];
	size_t payload_len;
	bool in_frame;
	bool idle;
	int error; /* 0 or -EPROTO */
	uint16_t close;
	const char *why;
	size_t at; /* bytes fed when the error was known, or all */
};

static void trace_event(struct trace *t, const struct raw_event *ev)
{
	assert_true(ev->start == !t->in_frame);
	if (ev->start) {
		assert_in_range(t->n, 0, FRAMES_MAX - 1);
		t->frame[t->n].type = ev->type;
		t->frame[t->n].offset = t->payload_len;
		t->frame[t->n].len = 0;
	}
	assert_int_equal(t->frame[t->n].type, ev->type);
	assert_in_range(t->payload_len + ev->len, 0, TRACE_PAYLOAD_MAX);
	if (ev->len)
		memcpy(t->payload + t->payload_len, ev->data, ev->len);
	t->payload_len += ev->len;
	t->frame[t->n].len += ev->len;
	t->in_frame = !ev->end;
	t->n += ev->end;
}

/* Feeds one buffer; false when the peer broke the protocol. */
static bool feed(struct trace *t, struct raw_parser *p, const struct raw_limits *limits,
	uint8_t *data, size_t len)
{
	size_t fed = t->at;
	t->at += len;
	while (len) {
		struct raw_event ev;
		bool has_event = false;
		ssize_t n = raw_parse(p, limits, data, len, &ev, &has_event, &t->close, &t->why);
		if (n < 0) {
			t->error = (int)n;
			return false;
		}
		assert_in_range(n, 1, len);
		if (has_event) {
			assert_true(ev.data >= data && ev.data + ev.len == data + n);
			trace_event(t, &ev);
		}
		data += n;
		len -= (size_t)n;
		fed += (size_t)n;
	}
	assert_int_equal(fed, t->at);
	t->idle = raw_parser_idle(p);
	assert_true(!t->in_frame || !t->idle);
	return true;
}

/* Feeds `data` in pieces of `piece` bytes, the first of `first` bytes (0: like the others). */
static struct trace *run(
	const struct raw_limits *limits, const char *data, size_t len, size_t first, size_t piece)
{
	struct trace *t = calloc(1, sizeof(*t));
	struct raw_parser p;
	struct guard g;

	guard_init(&g, len + 1);
	raw_parser_init(&p);
	assert_true(raw_parser_idle(&p));
	t->idle = true;
	for (size_t pos = 0; pos < len;) {
		size_t n = pos == 0 && first ? first : piece;
		n = n < len - pos ? n : len - pos;
		if (!feed(t, &p, limits, guard_copy(&g, data + pos, n), n))
			break;
		pos += n;
	}
	guard_fini(&g);
	return t;
}

static void assert_same(const struct trace *a, const struct trace *b)
{
	assert_int_equal(a->error, b->error);
	assert_int_equal(a->close, b->close);
	assert_true(a->why == b->why);
	assert_int_equal(a->n, b->n);
	for (unsigned i = 0; i < a->n; i++) {
		assert_int_equal(a->frame[i].type, b->frame[i].type);
		assert_int_equal(a->frame[i].len, b->frame[i].len);
		assert_memory_equal(a->payload + a->frame[i].offset,
			b->payload + b->frame[i].offset, a->frame[i].len);
	}
	if (!a->error)
		assert_int_equal(a->idle, b->idle);
}

/* However the bytes are cut, the outcome is the same; that of one byte at a time is handed back. */
static struct trace *run_all(const struct raw_limits *limits, const char *data, size_t len)
{
	struct trace *bytes = run(limits, data, len, 0, 1);
	for (size_t first = 1; first <= len; first++) {
		struct trace *t = run(limits, data, len, first, len);
		assert_same(t, bytes);
		free(t);
	}
	return bytes;
}

static void assert_frame(
	const struct trace *t, unsigned i, uint8_t type, const char *payload, size_t len)
{
	assert_int_equal(t->frame[i].type, type);
	assert_int_equal(t->frame[i].len, len);
	if (len)
		assert_memory_equal(t->payload + t->frame[i].offset, payload, len);
}

static void every_frame(void **state)
{
	static const char in[] =
		HELLO "\0\0\0\x07\x03h\xc3\xa4\xe2\x82\xac" /* text: 1, 2 and 3 bytes a character */
		      "\0\0\0\x01\x03"
		      "\0\0\0\x01\x04"
		      "\0\0\0\x04\x04\0\xff\x80"
		      "\0\0\0\x01\x05"
		      "\0\0\0\x03\x06ok"
		      "\0\0\0\x01\x07"
		      "\0\0\0\x03\x07\x03\xe8"
		      "\0\0\0\x06\x07\x03\xe8"
		      "bye";
	struct trace *t = run_all(&begin, BYTES(in));

	assert_int_equal(t->error, 0);
	assert_true(t->idle);
	assert_int_equal(t->n, 10);
	assert_frame(t, 0, TG_RAW_HELLO, BYTES("\x01\x05/echo"));
	assert_frame(t, 1, TG_RAW_TEXT, BYTES("h\xc3\xa4\xe2\x82\xac"));
	assert_frame(t, 2, TG_RAW_TEXT, BYTES(""));
	assert_frame(t, 3, TG_RAW_BINARY, BYTES(""));
	assert_frame(t, 4, TG_RAW_BINARY, BYTES("\0\xff\x80"));
	assert_frame(t, 5, TG_RAW_PING, BYTES(""));
	assert_frame(t, 6, TG_RAW_PONG, BYTES("ok"));
	assert_frame(t, 7, TG_RAW_CLOSE, BYTES(""));
	assert_frame(t, 8, TG_RAW_CLOSE, BYTES("\x03\xe8"));
	assert_frame(t, 9, TG_RAW_CLOSE,
		BYTES("\x03\xe8"
		      "bye"));
	free(t);

	t = run_all(&client, BYTES(WELCOME "\0\0\0\x03\x03hi"));
	assert_int_equal(t->error, 0);
	assert_int_equal(t->n, 2);
	assert_frame(t, 0, TG_RAW_WELCOME, BYTES("\x01\0\0\0\0\0\0\0\x07"));
	free(t);
}

/* Every cut inside a frame: no error, no whole frame, not idle. */
static void truncations(void **state)
{
	static const char in[] = HELLO "\0\0\0\x03\x03hi";
	for (size_t len = 1; len < sizeof(in) - 1; len++) {
		struct trace *t = run(&begin, in, len, 0, len);
		assert_int_equal(t->error, 0);
		assert_int_equal(t->n, len >= sizeof(HELLO) - 1);
		assert_int_equal(t->idle, len == sizeof(HELLO) - 1);
		free(t);
	}
	struct raw_parser p;
	struct raw_event ev;
	bool has_event = true;
	raw_parser_init(&p);
	assert_int_equal(raw_parse(&p, &begin, NULL, 0, &ev, &has_event, NULL, NULL), 0);
	assert_false(has_event);
}

/* A frame at hand is one event, with start and end; two frames are two calls. */
static void one_event_a_frame(void **state)
{
	uint8_t in[] = {0, 0, 0, 3, TG_RAW_TEXT, 'h', 'i', 0, 0, 0, 1, TG_RAW_PING};
	struct raw_parser p;
	struct raw_event ev;
	bool has_event;
	uint16_t code;
	const char *why;

	raw_parser_init(&p);
	assert_int_equal(raw_parse(&p, &open_, in, sizeof(in), &ev, &has_event, &code, &why), 7);
	assert_true(has_event && ev.start && ev.end && ev.data == in + 5 && ev.len == 2);
	assert_int_equal(raw_parse(&p, &open_, in + 7, 5, &ev, &has_event, &code, &why), 5);
	assert_true(has_event && ev.start && ev.end && ev.len == 0 && ev.type == TG_RAW_PING);
}

static const struct bad {
	const struct raw_limits *limits;
	const char *data;
	size_t len;
	uint16_t close;
	size_t at; /* bytes after which it must be known; 0: the last one */
} bad[] = {
	{&begin, BYTES("\0\0\0\0"), 1002, 0},
	{&begin, BYTES("GET / HTTP/1.1\r\n"), 1002, 5},
	{&begin, BYTES("\x16\x03\x01\x02\0"), 1002, 5},
	{&begin, BYTES("\0\0\0\x02\0x"), 1002, 5},
	{&begin, BYTES("\0\0\0\x02\x08x"), 1002, 5},
	{&begin, BYTES("\0\0\0\x02\xffx"), 1002, 5},
	{&begin, BYTES("\0\0\0\x02\x03x"), 1002, 5}, /* anything before HELLO */
	{&begin, BYTES("\0\0\0\x02\x04x"), 1002, 5},
	{&begin, BYTES("\0\0\0\x01\x05"), 1002, 5},
	{&begin, BYTES("\0\0\0\x01\x06"), 1002, 5},
	{&begin, BYTES("\0\0\0\x01\x07"), 1002, 5},
	{&begin, BYTES(WELCOME), 1002, 5},
	{&begin, BYTES("\0\0\x10\x02\x01"), 1009, 0}, /* 4097 */
	{&begin, BYTES("\xff\xff\xff\xff\x01"), 1009, 0},
	{&begin, BYTES(HELLO HELLO), 1002, sizeof(HELLO) - 1 + 5},
	{&begin, BYTES(HELLO "\0\0\0\0"), 1002, 0},
	{&begin, BYTES(HELLO WELCOME), 1002, sizeof(HELLO) - 1 + 5},
	{&begin, BYTES(HELLO "\0\0\0\x01\x09"), 1002, 0},
	{&open_, BYTES(HELLO), 1002, 5},
	{&open_, BYTES("\0\0\x03\xea\x03"), 1009, 0}, /* 1001 */
	{&open_, BYTES("\0\0\x03\xea\x04"), 1009, 0},
	{&open_, BYTES("\xff\xff\xff\xff\x04"), 1009, 0},
	{&open_, BYTES("\x80\0\0\0\x03"), 1009, 0},
	{&open_, BYTES("\0\0\0\x7f\x05"), 1002, 0}, /* 126 */
	{&open_, BYTES("\0\0\0\x7f\x06"), 1002, 0},
	{&open_, BYTES("\0\0\0\x7f\x07"), 1002, 0},
	{&open_, BYTES("\xff\xff\xff\xff\x05"), 1002, 0},
	{&open_, BYTES("\0\0\0\x02\x07\x03"), 1002, 5},
	{&open_,
		BYTES("\0\0\0\x05\x03"
		      "ab\xff"
		      "c"),
		1007, 8},
	{&open_, BYTES("\0\0\0\x09\x03\x80zzzzzzz"), 1007, 6},          /* stray continuation */
	{&open_, BYTES("\0\0\0\x09\x03\xc0\xafzzzzzz"), 1007, 6},       /* overlong */
	{&open_, BYTES("\0\0\0\x09\x03\xe0\x80\x80zzzzz"), 1007, 7},    /* overlong */
	{&open_, BYTES("\0\0\0\x09\x03\xed\xa0\x80zzzzz"), 1007, 7},    /* surrogate */
	{&open_, BYTES("\0\0\0\x09\x03\xf4\x90\x80\x80zzzz"), 1007, 7}, /* above U+10FFFF */
	{&open_, BYTES("\0\0\0\x09\x03\xf5zzzzzzz"), 1007, 6},
	{&open_, BYTES("\0\0\0\x09\x03\xe2\x82zzzzzz"), 1007, 8}, /* missing continuation */
	{&open_, BYTES("\0\0\0\x03\x03\xe2\x82"), 1007, 7},       /* cut at the end of the frame */
	{&open_, BYTES("\0\0\0\x02\x03\xc3\0\0\0\x02\x03\xa4"), 1007,
		6}, /* not carried over to the next */
	{&client, BYTES(HELLO), 1002, 5},
	{&client, BYTES(WELCOME WELCOME), 1002, sizeof(WELCOME) - 1 + 5},
	{&client, BYTES("\0\0\0\x09\x02\x01\0\0\0\0\0\0\0"), 1002, 5},
	{&client, BYTES("\0\0\0\x0b\x02\x01\0\0\0\0\0\0\0\0\0"), 1002, 5},
	{&client, BYTES("\0\0\x03\xea\x03"), 1009, 0},
	{&client, BYTES("\0\0\0\0"), 1002, 0},
};

static void malformed(void **state)
{
	for (size_t i = 0; i < ELEMENTS(bad); i++) {
		struct trace *t = run_all(bad[i].limits, bad[i].data, bad[i].len);
		size_t at = bad[i].at ? bad[i].at : bad[i].len;
		if (t->error != -EPROTO || t->close != bad[i].close || t->at != at)
			fail_msg("case %zu: %d, close %u after %zu bytes", i, t->error, t->close,
				t->at);
		assert_true(t->why && t->why[0]);
		free(t);
	}
}

/* The largest of everything passes. */
static void limits_are_inclusive(void **state)
{
	static const struct {
		const struct raw_limits *limits;
		uint8_t type;
		uint32_t len;
	} cases[] = {
		{&begin, TG_RAW_HELLO, TG_RAW_HELLO_MAX},
		{&open_, TG_RAW_TEXT, MESSAGE_MAX},
		{&open_, TG_RAW_BINARY, MESSAGE_MAX},
		{&open_, TG_RAW_PING, TG_RAW_CONTROL_PAYLOAD_MAX},
		{&open_, TG_RAW_PONG, TG_RAW_CONTROL_PAYLOAD_MAX},
		{&open_, TG_RAW_CLOSE, TG_RAW_CONTROL_PAYLOAD_MAX},
	};
	for (size_t i = 0; i < ELEMENTS(cases); i++) {
		size_t len = TG_RAW_HEADER_LEN + cases[i].len;
		char *in = malloc(len);
		memset(in, 'x', len);
		assert_int_equal(raw_header_write((uint8_t *)in, cases[i].type, cases[i].len),
			TG_RAW_HEADER_LEN);
		struct trace *t = run_all(cases[i].limits, in, len);
		assert_int_equal(t->error, 0);
		assert_int_equal(t->n, 1);
		assert_frame(t, 0, cases[i].type, in + TG_RAW_HEADER_LEN, cases[i].len);
		free(t);
		free(in);
	}
	struct raw_parser p;
	const struct raw_limits big = {.message_max = UINT32_MAX};
	struct trace *t = calloc(1, sizeof(*t));
	raw_parser_init(&p);
	assert_true(feed(t, &p, &big, (uint8_t[]){0xff, 0xff, 0xff, 0xff, TG_RAW_BINARY}, 5));
	assert_int_equal(p.frame_left, UINT32_MAX - 1);
	free(t);
}

static void hello(void **state)
{
	static const struct {
		const char *payload;
		size_t len;
		const char *path, *token; /* NULL: malformed */
	} cases[] = {
		{BYTES("\x01\x05/echo"), "/echo", ""},
		{BYTES("\x01\x01/"), "/", ""},
		{BYTES("\x01\x05/echotoken"), "/echo", "token"},
		{BYTES("\x01\x02/a/b"), "/a", "/b"},
		{BYTES(""), NULL, NULL},
		{BYTES("\x01"), NULL, NULL},
		{BYTES("\x01\0"), NULL, NULL},
		{BYTES("\x01\0token"), NULL, NULL},
		{BYTES("\0\x05/echo"), NULL, NULL},
		{BYTES("\x02\x05/echo"), NULL, NULL},
		{BYTES("\x01\x06/echo"), NULL, NULL},
		{BYTES("\x01\xff/echo"), NULL, NULL},
		{BYTES("\x01\x04"
		       "echo"),
			NULL, NULL},
		{BYTES("\x01\x05/e ho"), NULL, NULL},
		{BYTES("\x01\x05/e\0ho"), NULL, NULL},
		{BYTES("\x01\x05/e\nho"), NULL, NULL},
		{BYTES("\x01\x05/e\x7fho"), NULL, NULL},
		{BYTES("\x01\x05/e\xc3\xa4o"), NULL, NULL},
	};
	struct guard g;
	guard_init(&g, 512);
	for (size_t i = 0; i < ELEMENTS(cases); i++) {
		struct raw_hello h = {.path = "untouched"};
		const char *why = NULL;
		uint8_t *in = guard_copy(&g, cases[i].payload, cases[i].len);
		int r = raw_hello_parse(in, cases[i].len, &h, &why);
		assert_int_equal(r, cases[i].path ? 0 : -EPROTO);
		if (r < 0) {
			assert_non_null(why);
			assert_string_equal(h.path, "untouched");
			continue;
		}
		assert_int_equal(h.path_len, strlen(cases[i].path));
		assert_memory_equal(h.path, cases[i].path, h.path_len);
		assert_int_equal(h.token_len, strlen(cases[i].token));
		assert_memory_equal(h.token, cases[i].token, h.token_len);
	}

	uint8_t longest[2 + TG_RAW_PATH_MAX] = {TG_RAW_VERSION, TG_RAW_PATH_MAX};
	memset(longest + 2, '/', TG_RAW_PATH_MAX);
	struct raw_hello h;
	const char *why;
	assert_int_equal(raw_hello_parse(longest, sizeof(longest), &h, &why), 0);
	assert_int_equal(h.path_len, TG_RAW_PATH_MAX);
	assert_int_equal(raw_hello_parse(longest, sizeof(longest) - 1, &h, &why), -EPROTO);
	guard_fini(&g);
}

static void writers(void **state)
{
	uint8_t header[TG_RAW_HEADER_LEN];
	assert_int_equal(raw_header_write(header, TG_RAW_BINARY, 0x01020304), sizeof(header));
	assert_memory_equal(header, "\x01\x02\x03\x05\x04", sizeof(header));

	uint8_t welcome[TG_RAW_HEADER_LEN + 9];
	assert_int_equal(raw_welcome_write(welcome, 0x0102030405060708), sizeof(welcome));
	assert_memory_equal(
		welcome, "\0\0\0\x0a\x02\x01\x01\x02\x03\x04\x05\x06\x07\x08", sizeof(welcome));

	struct guard g;
	guard_init(&g, TG_RAW_HEADER_LEN + TG_RAW_CONTROL_PAYLOAD_MAX);
	uint8_t *out = guard_tail(&g, TG_RAW_HEADER_LEN + TG_RAW_CONTROL_PAYLOAD_MAX);
	assert_int_equal(raw_close_write(out, 1001, "bye"), 10);
	assert_memory_equal(out,
		"\0\0\0\x06\x07\x03\xe9"
		"bye",
		10);
	assert_int_equal(raw_close_write(out, 1000, ""), 7);
	assert_int_equal(raw_close_write(out, 1000, NULL), 7);
	assert_memory_equal(out, "\0\0\0\x03\x07\x03\xe8", 7);
	assert_int_equal(raw_close_write(out, 1005, "never sent"), 5);
	assert_memory_equal(out, "\0\0\0\x01\x07", 5);

	/* 121 letters and a character of 1 to 4 bytes: 123 bytes of reason fit, and no character is
	 * cut */
	static const char *const characters[] = {
		"z", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80"};
	for (size_t i = 0; i < ELEMENTS(characters); i++) {
		char reason[256];
		memset(reason, 'a', 121);
		strcpy(reason + 121, characters[i]);
		strcat(reason, "bc");
		size_t size = strlen(characters[i]);
		size_t want = size == 1 ? 123 : size == 2 ? 123 : 121;
		assert_int_equal(raw_close_write(out, 1000, reason), 7 + want);
		assert_memory_equal(out + 7, reason, want);
		assert_int_equal(out[3], 1 + 2 + want);
	}
	guard_fini(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_frame),
		cmocka_unit_test(truncations),
		cmocka_unit_test(one_event_a_frame),
		cmocka_unit_test(malformed),
		cmocka_unit_test(limits_are_inclusive),
		cmocka_unit_test(hello),
		cmocka_unit_test(writers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
