/* libtidegate-link against gateways that break the protocol: each loses its link, with an ERROR
 * that says why, and no other link notices. Also conversations cut into single bytes, and metadata
 * that is not what it should be. */
#include "support/link_service.h"

#include "../tools/libtidegate-link/internal.h"
#include "support/guard.h"

/* What the link has been through before the bad bytes. */
enum stage {
	FRESH,   /* connected, no HELLO */
	UP,      /* HELLO exchanged */
	OPENING, /* session 1 opened, not answered */
	OPEN,    /* session 1 accepted */
};

/* Server: session_window 8192, link_window 16384. */
static const struct {
	enum stage stage;
	enum tg_link_error want;
	size_t len;
	const char *bytes;
} bad[] = {
#define B(bytes)   sizeof(bytes) - 1, bytes
#define P          TG_LINK_ERROR_PROTOCOL
#define S1         "\0\0\0\0\0\0\0\1"
#define S2         "\0\0\0\0\0\0\0\2"
#define LINK       "\0\0\0\0\0\0\0\0"
#define HELLO_HEAD "\0\0\0\35\1\0\0\0" LINK
	/* before HELLO */
	{FRESH, P, B("GET / HTTP/1.1\r\nHost: x\r\n\r\n")},
	{FRESH, P, B("\x16\x03\x01\x02\0\1\0\1\xfc\3\3\0\0\0\0\0\0\0\0\0")}, /* a TLS client */
	{FRESH, P, B("\0\0\0\0\0\0\0\0" LINK)},
	{FRESH, P, B("\0\0\0\2\2\0\0\0" S1 "{}")},
	{FRESH, P, B("\0\0\0\10\13\0\0\0" LINK "12345678")},
	{FRESH, P, B("\0\0\0\2\16\0\0\0" LINK "\0\0")},
	{FRESH, TG_LINK_ERROR_VERSION,
		B(HELLO_HEAD "TGLX\0\1\0\0\0\4\0\0\0\x80\0\0\0\0\x80\0\1\0\0\0\0\0\0\0n")},
	{FRESH, TG_LINK_ERROR_VERSION,
		B(HELLO_HEAD "TGLK\0\2\0\0\0\4\0\0\0\x80\0\0\0\0\x80\0\1\0\0\0\0\0\0\0n")},
	{FRESH, TG_LINK_ERROR_VERSION, B("\0\0\0\6\1\0\0\0" LINK "TGLK\xff\xff")},
	{FRESH, P,
		B("\0\0\0\34\1\0\0\0" LINK
		  "TGLK\0\1\0\0\0\4\0\0\0\x80\0\0\0\0\x80\0\1\0\0\0\0\0\0\0")},
	{FRESH, P, B(HELLO_HEAD "TGLK\0\1\0\0\0\0\0\0\0\x80\0\0\0\0\x80\0\1\0\0\0\0\0\0\0n")},
	{FRESH, P, B(HELLO_HEAD "TGLK\0\1\0\0\0\4\0\0\xff\0\0\0\0\0\x80\0\1\0\0\0\0\0\0\0n")},
	{FRESH, P, B(HELLO_HEAD "TGLK\0\1\0\0\0\4\0\0\0\x80\0\0\1\0\0\0\1\0\0\0\0\0\0\0n")},
	{FRESH, P, B(HELLO_HEAD "TGLK\0\1\0\0\0\4\0\0\0\x80\0\0\0\0\x80\0\0\0\0\0\0\0\0\0n")},
	{FRESH, P, B(HELLO_HEAD "TGLK\0\1\0\0\0\4\0\0\0\x80\0\0\0\0\x80\0\1\0\0\0\0\0\0\0\n")},
	/* after it */
	{UP, P, B(HELLO_HEAD "TGLK\0\1\0\0\0\4\0\0\0\x80\0\0\0\0\x80\0\1\0\0\0\0\0\0\0n")},
	{UP, P, B("\0\0\0\0\0\0\0\0" LINK)},
	{UP, P, B("\0\0\0\0\17\0\0\0" LINK)},
	{UP, P, B("\0\0\0\0\xff\0\0\0" LINK)},
	{UP, P, B("\xff\xff\xff\xff\5\0\0\0" S1)},
	{UP, P, B("\0\0\x80\1\5\0\0\0" S1)},
	{UP, P, B("\0\1\0\1\2\0\0\0" S2)},
	{UP, P, B("\0\0\0\2\2\0\0\0" LINK "{}")},
	{UP, P, B("\0\0\0\2\2\0\1\0" S2 "{}")},
	{UP, P, B("\0\0\0\2\2\1\0\0" S2 "{}")},
	{UP, P, B("\0\0\0\2\2\2\0\0" S2 "{}")},
	{UP, P, B("\0\0\0\0\2\0\0\0" S2)},
	{UP, P, B("\0\0\0\2\2\0\0\0" S2 "[]")},
	{UP, P, B("\0\0\0\3\2\0\0\0" S2 "{\0}")},
	{UP, P, B("\0\0\0\0\3\0\0\0" S1)},
	{UP, P, B("\0\0\0\2\4\0\0\0" S1 "\1\xf4")},
	{UP, P, B("\0\0\0\1\7\0\0\0" S1 "t")},
	{UP, P, B("\0\0\0\1\10\0\0\0" S1 "t")},
	{UP, P, B("\0\0\0\3\11\0\0\0" LINK "\1tx")},
	{UP, P, B("\0\0\0\4\12\0\0\0" LINK "\0\0\0\0")},
	{UP, P, B("\0\0\0\4\12\0\0\0" LINK "\x40\0\0\1")},
	{UP, TG_LINK_ERROR_FLOW, B("\0\0\0\4\12\0\0\0" LINK "\x40\0\0\0")},
	{UP, P, B("\0\0\0\3\12\0\0\0" LINK "\0\0\1")},
	{UP, P, B("\0\0\0\11\13\0\0\0" LINK "123456789")},
	{UP, P, B("\0\0\0\10\13\0\0\0" S1 "12345678")},
	{UP, P, B("\0\0\0\10\14\2\0\0" LINK "12345678")},
	{UP, P, B("\0\0\0\3\15\0\0\0" LINK "\0\0\0")},
	{UP, P, B("\0\0\0\1\16\0\0\0" LINK "\0")},
	{UP, P, B("\0\0\0\3\16\0\0\0" LINK "\0\1\xff")},
	/* sessions */
	{OPENING, P, B("\0\0\0\1\5\0\0\0" S1 "x")},
	{OPENING, P, B("\0\0\0\2\2\0\0\0" S1 "{}")},
	{OPEN, P, B("\0\0\0\2\2\0\0\0" S1 "{}")},
	{OPEN, P, B("\0\0\0\2\2\4\0\0" S1 "{}")},
	{OPEN, P, B("\0\0\0\0\5\2\0\0" S1)},
	{OPEN, P, B("\0\0\0\1\5\4\0\0" S1 "x")},
	{OPEN, P,
		B("\0\0\0\1\5\2\0\0" S1 "x"
		  "\0\0\0\1\5\1\0\0" S1 "x")},
	{OPEN, P,
		B("\0\0\0\1\5\3\0\0" S1 "x"
		  "\0\0\0\1\5\2\0\0" S1 "x")},
	{OPEN, P, B("\0\0\0\6\6\0\0\0" LINK "\3\xe8\0\0\0\0")},
	{OPEN, P, B("\0\0\0\5\6\0\0\0" S1 "\3\xe8\0\0\0")},
	{OPEN, P, B("\0\0\0\6\6\0\0\0" S1 "\0\0\0\0\0\0")},
	{OPEN, P, B("\0\0\0\6\6\0\0\0" S1 "\3\xec\0\0\0\0")},
	{OPEN, P, B("\0\0\0\7\6\0\0\0" S1 "\3\xe8\0\0\0\0\x80")},
	{OPEN, TG_LINK_ERROR_FLOW, B("\0\0\0\4\12\0\0\0" S1 "\x40\0\0\0")},
	{OPEN, P, B("\0\0\0\4\12\0\0\0" S1 "\xff\xff\xff\xff")},
#undef B
#undef P
};

static struct service *bad_service(void)
{
	struct service *s = service_create((struct tg_link_server_opts){
		.session_window = 8192, .link_window = 16384, .hello_timeout_ms = 60000});
	s->echo = true;
	return s;
}

static void reach(struct fake_gateway *g, struct service *s, enum stage stage)
{
	if (stage >= UP)
		fake_handshake(g, 0);
	s->keep_opening = stage == OPENING;
	if (stage == OPENING)
		fake_open(g, 1, "{}");
	if (stage == OPEN)
		fake_session(g, 1);
	fake_pump(g, 0);
	s->keep_opening = false;
}

static void witness_works(struct fake_gateway *w)
{
	char back[8];
	fake_message(w, 7, "witness", 7, true, 7);
	assert_int_equal(fake_receive(w, 7, (uint8_t *)back, sizeof(back), NULL, NULL), 7);
	assert_memory_equal(back, "witness", 7);
}

static struct fake_gateway *witness(struct service *s)
{
	struct fake_gateway *w = fake_gateway_create(s->server);
	fake_handshake(w, 0);
	w->credit = true;
	fake_session(w, 7);
	return w;
}

static void test_bad_frames(void **state)
{
	struct service *s = bad_service();
	struct fake_gateway *w = witness(s);
	const unsigned n = sizeof(bad) / sizeof(bad[0]);
	for (unsigned i = 0; i < n; i++) {
		struct fake_gateway *g = fake_gateway_create(s->server);
		reach(g, s, bad[i].stage);
		fake_write(g, bad[i].bytes, bad[i].len);
		bool ended = fake_ended(g, bad[i].want);
		if (!ended)
			print_error("row %u\n", i);
		assert_true(ended);
		assert_int_equal(s->downs, i + 1);
		assert_true(s->down_protocol_error);
		assert_true(s->down_why[0] != 0);
		assert_int_equal(s->opens - s->closes, 1); /* the witness */
		fake_gateway_destroy(g);
		witness_works(w);
	}
	struct tg_link_stats stats;
	tg_link_server_stats(s->server, &stats);
	assert_int_equal(stats.protocol_errors, n);
	assert_int_equal(stats.links, 1);
	assert_int_equal(stats.sessions, 1);
	stop(w, s);
}

/* The same bytes, one at a time: the same end, or at least no other one before the last byte. */
static void test_bad_frames_byte_by_byte(void **state)
{
	struct service *s = bad_service();
	struct fake_gateway *w = witness(s);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct fake_gateway *g = fake_gateway_create(s->server);
		reach(g, s, bad[i].stage);
		for (size_t at = 0; at < bad[i].len && fake_write(g, bad[i].bytes + at, 1); at++)
			fake_pump(g, 0);
		assert_true(fake_ended(g, bad[i].want));
		fake_gateway_destroy(g);
	}
	witness_works(w);
	stop(w, s);
}

/* More than the windows allow, in ways a single frame cannot show. */
static void test_flow_violations(void **state)
{
	struct service *s = bad_service();
	struct fake_gateway *w = witness(s);
	static uint8_t data[TG_LINK_MESSAGE_PAYLOAD_MAX];
	for (unsigned i = 0; i < 5; i++) {
		struct fake_gateway *g = fake_gateway_create(s->server);
		reach(g, s, OPEN);
		struct tg_link_session *one = s->last;
		tg_link_session_set_manual(one, true);
		switch (i) {
		case 0: /* one frame beyond the session's window */
			fake_frame(g, TG_LINK_MESSAGE, 0, 1, data, 8192);
			break;
		case 1: /* unconsumed messages fill it up, the next byte is too many */
			fake_frame(g, TG_LINK_MESSAGE, 0, 1, data, 8192 - 32);
			fake_receive(g, 1, NULL, 8192, NULL, NULL);
			fake_frame(g, TG_LINK_MESSAGE, 0, 1, NULL, 0);
			fake_frame(g, TG_LINK_MESSAGE, 0, 1, NULL, 0);
			break;
		case 2: /* empty messages are not free */
			for (int j = 0; j < 513 && !g->eof; j++)
				fake_frame(g, TG_LINK_MESSAGE, 0, 1, NULL, 0);
			break;
		case 3: /* a session that is gone costs the link's window all the same */
			fake_frame(g, TG_LINK_MESSAGE, 0, 99, data, 16384);
			break;
		case 4: /* parts that pile up behind an unconsumed message */
			fake_frame(g, TG_LINK_MESSAGE, 0, 1, data, 4000);
			fake_frame(g, TG_LINK_MESSAGE, TG_LINK_FLAG_MORE, 1, data, 4000);
			fake_frame(g, TG_LINK_MESSAGE, TG_LINK_FLAG_MORE, 1, data, 4000);
			break;
		}
		assert_true(fake_ended(g, TG_LINK_ERROR_FLOW));
		fake_gateway_destroy(g);
		witness_works(w);
	}
	stop(w, s);
}

/* Whatever prefix of a good conversation a gateway stops after, nothing but its own link ends. */
static void test_cut_off(void **state)
{
	struct service *s = bad_service();
	struct fake_gateway *w = witness(s);
	uint8_t script[512];
	struct link_hello h = {.session_window = 8192,
		.link_window = 8192,
		.payload_max = 4096,
		.message_max = 4096,
		.name = "n",
		.name_len = 1};
	size_t len = link_hello_write(script, &h), hello_len = len;
	link_header_write(script + len,
		&(struct link_header){.length = 2, .type = TG_LINK_OPEN, .session = 5});
	memcpy(script + len + 16, "{}", 2);
	len += 18;
	link_header_write(script + len,
		&(struct link_header){.length = 3, .type = TG_LINK_MESSAGE, .session = 5});
	memcpy(script + len + 16, "abc", 3);
	len += 19;
	len += link_close_write(script + len, 5, &(struct link_close){.code = 1000});
	for (size_t cut = 0; cut <= len; cut++) {
		struct fake_gateway *g = fake_gateway_create(s->server);
		unsigned downs = s->downs;
		fake_write(g, script, cut);
		shutdown(g->fd, SHUT_WR);
		struct fake_frame f;
		while (fake_next(g, &f, FAKE_WAIT_MS))
			;
		assert_true(g->eof);
		assert_int_equal(s->downs, downs + 1);
		bool whole = cut == 0 || cut == hello_len || cut == hello_len + 18 ||
			     cut == hello_len + 37 || cut == len;
		assert_int_equal(s->down_protocol_error, !whole);
		fake_gateway_destroy(g);
	}
	witness_works(w);
	stop(w, s);
}

/* A whole conversation, byte by byte, says what it says in one piece. */
static void test_byte_by_byte(void **state)
{
	struct service *s = service_create((struct tg_link_server_opts){0});
	struct fake_gateway *g = fake_gateway_create(s->server);
	static uint8_t script[TG_LINK_MESSAGE_PAYLOAD_MAX];
	static const char meta[] = "{\"path\":\"/x\"}";
	s->echo = true;
	struct link_hello h = {.session_window = 8192,
		.link_window = 8192,
		.payload_max = 4096,
		.message_max = 4096,
		.name = "n",
		.name_len = 1};
	size_t len = link_hello_write(script, &h);
	link_header_write(script + len,
		&(struct link_header){
			.length = sizeof(meta) - 1, .type = TG_LINK_OPEN, .session = 5});
	memcpy(script + len + 16, meta, sizeof(meta) - 1);
	len += 16 + sizeof(meta) - 1;
	for (size_t at = 0; at < len; at++) {
		fake_write(g, script + at, 1);
		fake_pump(g, 0);
	}
	fake_expect(g, TG_LINK_HELLO, 0);
	fake_expect(g, TG_LINK_ACCEPT, 5);
	len = 0;
	for (unsigned i = 0; i < 3; i++) {
		link_header_write(script + len,
			&(struct link_header){.length = 700,
				.type = TG_LINK_MESSAGE,
				.session = 5,
				.flags = TG_LINK_FLAG_TEXT | (i < 2 ? TG_LINK_FLAG_MORE : 0)});
		memset(script + len + 16, 'a' + (int)i, 700);
		len += 716;
	}
	len += link_ping_write(script + len, TG_LINK_PING, 1);
	len += link_credit_write(script + len, 5, 1000);
	len += link_drain_write(script + len, 9);
	len += link_close_write(script + len, 5,
		&(struct link_close){.code = 1000, .reason = "ok", .reason_len = 2});
	for (size_t at = 0; at < len; at++) {
		fake_write(g, script + at, 1);
		fake_pump(g, 0);
	}
	uint8_t back[2100];
	bool text;
	assert_int_equal(fake_receive(g, 5, back, sizeof(back), &text, NULL), 2100);
	assert_true(text && back[0] == 'a' && back[700] == 'b' && back[2099] == 'c');
	fake_expect(g, TG_LINK_PONG, 0);
	assert_true(fake_quiet(g));
	assert_int_equal(s->closes, 1);
	assert_int_equal(s->drains, 1);
	assert_string_equal(s->end_reason, "ok");
	assert_int_equal(s->downs, 0);
	stop(g, s);
}

/* Random bytes behind a valid HELLO; the server survives all of it. */
static void test_noise(void **state)
{
	struct service *s = bad_service();
	struct fake_gateway *w = witness(s);
	uint64_t x = 88172645463325252u;
	for (int round = 0; round < 200; round++) {
		struct fake_gateway *g = fake_gateway_create(s->server);
		reach(g, s, round & 1 ? OPEN : UP);
		uint8_t noise[256];
		for (size_t i = 0; i < sizeof(noise); i++) {
			x ^= x << 13, x ^= x >> 7, x ^= x << 17;
			noise[i] = (uint8_t)x;
			/* Half of them look like frames at first. */
			if (round & 2 && i < 16)
				noise[i] = i == 3    ? (uint8_t)x % 9
					   : i == 4  ? 1 + (uint8_t)x % 14
					   : i == 15 ? 1
						     : 0;
		}
		fake_write(g, noise, sizeof(noise));
		shutdown(g->fd, SHUT_WR);
		struct fake_frame f;
		while (fake_next(g, &f, FAKE_WAIT_MS))
			;
		assert_true(g->eof);
		fake_gateway_destroy(g);
	}
	witness_works(w);
	stop(w, s);
}

static const struct {
	const char *json, *object, *key;
	ssize_t want;
	const char *value;
} metadata[] = {
	{"{}", NULL, "a", -ENOENT, NULL},
	{" { } ", NULL, "a", -ENOENT, NULL},
	{"{\"a\":\"b\"}", NULL, "a", 1, "b"},
	{"{ \"x\" : 1 , \"a\"\t:\n\"b\" }", NULL, "a", 1, "b"},
	{"{\"a\":\"\"}", NULL, "a", 0, ""},
	{"{\"a\":\"1\",\"a\":\"2\"}", NULL, "a", 1, "1"},
	{"{\"\\u0061\":\"b\"}", NULL, "a", 1, "b"},
	{"{\"a\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"}", NULL, "a", 8, "\"\\/\b\f\n\r\t"},
	{"{\"a\":\"\\u00e9\\u20ac\\ud83c\\udf0a\"}", NULL, "a", 9,
		"\xc3\xa9\xe2\x82\xac\xf0\x9f\x8c\x8a"},
	{"{\"x\":{\"a\":\"no\"},\"a\":\"b\"}", NULL, "a", 1, "b"},
	{"{\"x\":{\"a\":\"yes\"},\"a\":\"b\"}", "x", "a", 3, "yes"},
	{"{\"x\":[{\"a\":[]},null,true,false,-1.5e+3],\"a\":\"b\"}", NULL, "a", 1, "b"},
	{"{\"x\":\"a\",\"a\":\"b\"}", "x", "a", -ENOENT, NULL},
	{"{\"x\":{},\"a\":\"b\"}", "x", "a", -ENOENT, NULL},
	{"{\"x\":{\"b\":1}}", "x", "a", -ENOENT, NULL},
	{"{\"a\":1}", NULL, "a", -ENOENT, NULL},
	{"{\"a\":{}}", NULL, "a", -ENOENT, NULL},
	{"{\"a\":\"0123456789abcdef\"}", NULL, "a", -ENOSPC, NULL},
	{"[]", NULL, "a", -EBADMSG, NULL},
	{"{a:1}", NULL, "a", -EBADMSG, NULL},
	{"{\"a\"}", NULL, "a", -EBADMSG, NULL},
	{"{\"a\":\"b}", NULL, "a", -EBADMSG, NULL},
	{"{\"x\":,}", NULL, "a", -EBADMSG, NULL},
	{"{\"x\":1 \"a\":\"b\"}", NULL, "a", -EBADMSG, NULL},
	{"{\"x\":1,}", NULL, "a", -EBADMSG, NULL},
	{"{\"x\":[1}", NULL, "a", -EBADMSG, NULL},
	{"{\"x\":?}", NULL, "a", -EBADMSG, NULL},
	{"{\"a\":\"\\x\"}", NULL, "a", -EBADMSG, NULL},
	{"{\"a\":\"\\u00g0\"}", NULL, "a", -EBADMSG, NULL},
	{"{\"a\":\"\\u0000\"}", NULL, "a", -EBADMSG, NULL},
	{"{\"a\":\"\\udc00\"}", NULL, "a", -EBADMSG, NULL},
	{"{\"a\":\"\\ud800x\"}", NULL, "a", -EBADMSG, NULL},
	{"{\"a\":\"\\ud800\\u0041\"}", NULL, "a", -EBADMSG, NULL},
	{"{\"a\":\"\n\"}", NULL, "a", -EBADMSG, NULL},
};

/* Every document, and every prefix of it, ends at a guard page. */
static void test_metadata(void **state)
{
	struct guard guard;
	guard_init(&guard, 4096);
	for (unsigned i = 0; i < sizeof(metadata) / sizeof(metadata[0]); i++) {
		char out[16] = "untouched";
		size_t len = strlen(metadata[i].json);
		const char *json = (const char *)guard_copy(&guard, metadata[i].json, len + 1);
		ssize_t n = tgl_json_string(
			json, metadata[i].object, metadata[i].key, out, sizeof(out));
		if (n != metadata[i].want)
			print_error("row %u: %zd\n", i, n);
		assert_int_equal(n, metadata[i].want);
		assert_string_equal(out, n >= 0 ? metadata[i].value : "untouched");
		for (size_t cut = 0; cut < len; cut++) {
			char *p = (char *)guard_copy(&guard, metadata[i].json, cut + 1);
			p[cut] = 0;
			tgl_json_string(p, metadata[i].object, metadata[i].key, out, sizeof(out));
		}
	}
	char deep[512] = "{\"x\":";
	memset(deep + 5, '[', 400);
	assert_int_equal(tgl_json_string(deep, NULL, "a", deep, sizeof(deep)), -EBADMSG);
	guard_fini(&guard);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bad_frames),
		cmocka_unit_test(test_bad_frames_byte_by_byte),
		cmocka_unit_test(test_flow_violations),
		cmocka_unit_test(test_cut_off),
		cmocka_unit_test(test_byte_by_byte),
		cmocka_unit_test(test_noise),
		cmocka_unit_test(test_metadata),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
