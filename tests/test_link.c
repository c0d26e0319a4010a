/* The gateway's side of links, against services made of plain sockets: frames, flow control,
 * health. */
#include "support/link_fixture.h"

static uint8_t big[FX_MESSAGE_MAX];

/* -------------------------------------------------------------------------------- the session
 * table */

static void test_table(void **state)
{
	enum {
		N = 20000
	};
	struct link_session *s = calloc(N, sizeof *s);
	struct link_table t;

	(void)state;
	assert_non_null(s);
	assert_int_equal(link_table_init(&t), 0);
	for (unsigned i = 0; i < N; i++) {
		s[i].id = UINT64_C(7) << 32 | i;
		link_table_add(&t, &s[i]);
		assert_ptr_equal(link_table_find(&t, s[i].id), &s[i]);
		assert_ptr_equal(link_table_find(&t, s[i / 2].id), &s[i / 2]);
		assert_null(link_table_find(&t, s[i].id + 1));
	}
	assert_true(t.bits >= 14);
	for (unsigned i = 0; i < N; i += 2)
		link_table_remove(&t, &s[i]);
	for (unsigned i = 0; i < N; i++)
		assert_ptr_equal(link_table_find(&t, s[i].id), i % 2 ? &s[i] : NULL);
	for (unsigned i = 1; i < N; i += 2) {
		link_table_remove(&t, &s[i]);
		assert_null(link_table_find(&t, s[i].id));
		assert_ptr_equal(link_table_find(&t, s[N - 1].id), i == N - 1 ? NULL : &s[N - 1]);
	}
	assert_int_equal(t.count, 0);
	assert_true(t.bits < 12);
	link_table_fini(&t);
	free(s);
}

static void test_lists(void **state)
{
	struct link_list a, b, e[4];

	(void)state;
	link_list_init(&a);
	link_list_init(&b);
	for (unsigned i = 0; i < 4; i++) {
		link_list_init(&e[i]);
		link_list_push(i < 2 ? &a : &b, &e[i]);
	}
	link_list_take(&a, &b);
	assert_true(link_list_empty(&b));
	link_list_take(&a, &b);
	for (unsigned i = 0; i < 4; i++) {
		assert_ptr_equal(a.next, &e[i]);
		link_list_remove(&e[i]);
		link_list_remove(&e[i]); /* once more does no harm */
	}
	assert_true(link_list_empty(&a));
}

/* -------------------------------------------------------------------------------- what may be lost
 */

static void test_unpaid(void **state)
{
	struct link_unpaid u = {0};

	(void)state;
	link_unpaid_pay(&u, 100);
	for (unsigned i = 0; i < LINK_UNPAID_MARKS; i++)
		link_unpaid_add(&u, 10 + i);
	assert_int_equal(link_unpaid_total(&u), LINK_UNPAID_MARKS);
	link_unpaid_pay(&u, 10 + 11 + 5); /* two, and a part of the third */
	assert_int_equal(link_unpaid_total(&u), LINK_UNPAID_MARKS - 2);
	link_unpaid_pay(&u, 7);
	assert_int_equal(link_unpaid_total(&u), LINK_UNPAID_MARKS - 3);
	u.part = 50;
	link_unpaid_pay(&u, 1000);
	assert_int_equal(link_unpaid_total(&u), 0);
	assert_int_equal(u.part, 0);
}

/* However many there are: never too few, and too many by little more than one run. */
static void test_unpaid_runs(void **state)
{
	enum {
		N = 1000
	};
	uint32_t cost[N], random = 1;

	(void)state;
	for (unsigned paid = 0; paid <= N; paid += 7) {
		struct link_unpaid u = {0};
		uint32_t bytes = 0;

		for (unsigned i = 0; i < N; i++) {
			random = random * 1664525 + 1013904223;
			cost[i] = 16 + (random >> 24);
			link_unpaid_add(&u, cost[i]);
			bytes += i < paid ? cost[i] : 0;
		}
		assert_int_equal(link_unpaid_total(&u), N);
		link_unpaid_pay(&u, bytes);
		assert_in_range(link_unpaid_total(&u), N - paid, N - paid + N / 3);
	}
}

/* -------------------------------------------------------------------------------- frames both ways
 */

static void test_session(void **state)
{
	struct fx *f = fx_create(1);
	static const char json[] =
		"\"listener\":\"raw\",\"route\":\"/*\",\"path\":\"/x\",\"session\":\"30064771072\","
		"\"protocol\":\"raw\"}";
	struct link_hello h;
	const char *why;
	uint64_t id;
	int link, c;

	(void)state;
	fx_start(f);
	link = fx_accept(f, 0);
	fx_expect(link, TG_LINK_HELLO, &fx_last);
	assert_int_equal(link_hello_parse(fx_last.payload, fx_last.h.length, &h, &why), 0);
	assert_int_equal(h.session_window, f->link.session_window);
	assert_int_equal(h.link_window, f->link.link_window);
	assert_int_equal(h.message_max, FX_MESSAGE_MAX);
	assert_int_equal(h.features, 0);
	assert_int_equal(h.name_len, 7);
	assert_memory_equal(h.name, "fixture", 7);
	assert_false(upstream_link_up(f->upstream));
	close(link);
	link = fx_link(f, 0, 65536, 65536);
	c = fx_open_session(f, link, &id);
	assert_true(upstream_link_up(f->upstream));
	assert_true(fx_last.h.length > sizeof json);
	assert_memory_equal(
		fx_last.payload + fx_last.h.length - (sizeof json - 1), json, sizeof json - 1);
	fx_raw_send(c, TG_RAW_TEXT, "hello", 5);
	fx_expect_message(link, id, "hello", 5, TG_LINK_FLAG_TEXT);
	fx_raw_send(c, TG_RAW_BINARY, "", 0);
	fx_expect_message(link, id, "", 0, 0);
	fx_frame_send(link, TG_LINK_MESSAGE, id, "par", 3, TG_LINK_FLAG_TEXT | TG_LINK_FLAG_MORE);
	fx_frame_send(link, TG_LINK_MESSAGE, id, "ts", 2, TG_LINK_FLAG_TEXT);
	fx_expect_raw(c, TG_RAW_TEXT, "parts", 5);
	fx_frame_send(link, TG_LINK_MESSAGE, id, "par", 3, TG_LINK_FLAG_MORE);
	fx_frame_send(link, TG_LINK_MESSAGE, id, "", 0, 0);
	fx_expect_raw(c, TG_RAW_BINARY, "par", 3);
	fx_frame_send(link, TG_LINK_CLOSE, id, "\x0f\xa1\0\0\0\0bye", 9, 0);
	fx_expect_raw(c, TG_RAW_CLOSE,
		"\x0f\xa1"
		"bye",
		5);
	close(c);
	close(link);
	fx_stop(f);
}

/* Everything a service says, one byte at a time. */
static void test_bytewise(void **state)
{
	struct fx *f = fx_create(1);
	uint8_t out[512];
	size_t n = 0;
	uint64_t id;
	int link, c;

	(void)state;
	fx_start(f);
	link = fx_link(f, 0, 65536, 65536);
	c = fx_client(f);
	fx_expect(link, TG_LINK_OPEN, &fx_last);
	id = fx_last.h.session;
	n += link_accept_write(out, id, NULL, 0);
	n += link_ping_write(out + n, TG_LINK_PING, 42);
	link_header_write(out + n,
		&(struct link_header){.length = 3, .type = TG_LINK_MESSAGE, .session = id});
	memcpy(out + n + TG_LINK_HEADER_LEN, "abc", 3);
	n += TG_LINK_HEADER_LEN + 3;
	n += link_close_write(
		out + n, id, &(struct link_close){.code = 1000, .reason = "ok", .reason_len = 2});
	for (size_t i = 0; i < n; i++) {
		fx_send(link, out + i, 1);
		if (i % 16 == 0)
			fx_nap_ms(1);
	}
	fx_welcome(c);
	fx_expect_raw(c, TG_RAW_BINARY, "abc", 3);
	fx_expect_raw(c, TG_RAW_CLOSE, "\x03\xe8ok", 4);
	fx_expect(link, TG_LINK_PONG, &fx_last);
	close(c);
	close(link);
	fx_stop(f);
}

static void test_long_messages(void **state)
{
	struct fx *f = fx_create(1);
	size_t at = 0, got;
	uint64_t id;
	int link, c;

	(void)state;
	for (size_t i = 0; i < sizeof big; i++)
		big[i] = (uint8_t)(i * 7 + i / 255);
	fx_start(f);
	link = fx_link(f, 0, 1 << 30, 1 << 30);
	c = fx_open_session(f, link, &id);
	fx_raw_send(c, TG_RAW_BINARY, big, sizeof big);
	while (at < sizeof big) {
		fx_expect(link, TG_LINK_MESSAGE, &fx_last);
		assert_int_equal(fx_last.h.length, TG_LINK_MESSAGE_PAYLOAD_MAX);
		assert_memory_equal(fx_last.payload, big + at, fx_last.h.length);
		at += fx_last.h.length;
		assert_int_equal(fx_last.h.flags, at < sizeof big ? TG_LINK_FLAG_MORE : 0);
	}
	/* The other way, within 64 KiB of credit. */
	uint32_t credit = f->link.session_window;
	for (at = 0; at < sizeof big; at += 16384) {
		bool more = at + 16384 < sizeof big;

		while (credit < link_cost(16384)) {
			fx_expect(link, TG_LINK_CREDIT, &fx_last);
			if (fx_last.h.session == id)
				credit += (uint32_t)fx_last.payload[0] << 24 |
					  (uint32_t)fx_last.payload[1] << 16 |
					  (uint32_t)fx_last.payload[2] << 8 | fx_last.payload[3];
		}
		fx_frame_send(
			link, TG_LINK_MESSAGE, id, big + at, 16384, more ? TG_LINK_FLAG_MORE : 0);
		credit -= link_cost(16384);
	}
	assert_int_equal(fx_raw_recv(c, fx_back, sizeof fx_back, &got), TG_RAW_BINARY);
	assert_int_equal(got, sizeof big);
	assert_memory_equal(fx_back, big, sizeof big);
	close(c);
	fx_expect(link, TG_LINK_CLOSE, &fx_last);
	close(link);
	fx_stop(f);
}

/* More frames at a time than one turn handles. */
static void test_burst(void **state)
{
	enum {
		N = 2000
	};
	struct fx *f = fx_create(1);
	uint8_t *at = big;
	uint64_t id;
	int link, c;

	(void)state;
	fx_start(f);
	link = fx_link(f, 0, 65536, 65536);
	c = fx_open_session(f, link, &id);
	for (unsigned i = 0; i < N; i++) {
		link_header_write(at,
			&(struct link_header){.length = 4, .type = TG_LINK_MESSAGE, .session = id});
		memcpy(at + TG_LINK_HEADER_LEN, &i, 4);
		at += TG_LINK_HEADER_LEN + 4;
	}
	fx_send(link, big, (size_t)(at - big));
	for (unsigned i = 0; i < N; i++)
		fx_expect_raw(c, TG_RAW_BINARY, &i, 4);
	assert_true(f->stats->forced_yields > 0);
	close(c);
	close(link);
	fx_stop(f);
}

/* What a service may not send to one client ends that session, on both sides, and nothing else. */
static void test_too_much(void **state)
{
	struct fx *f = fx_create(1);
	uint64_t id;
	int link, c;

	(void)state;
	f->link.message_max = 100000;
	f->conn.buffer_cap_bytes = 80000;
	fx_start(f);
	link = fx_link(f, 0, 65536, 65536);
	c = fx_open_session(f, link, &id);
	for (unsigned i = 0; i < 4; i++)
		fx_frame_send(link, TG_LINK_MESSAGE, id, big, 15000,
			TG_LINK_FLAG_MORE); /* held in a doubling buffer */
	fx_expect_raw(c, TG_RAW_CLOSE, "\x03\xf5out of memory", 15);
	fx_expect(link, TG_LINK_CLOSE, &fx_last);
	assert_memory_equal(fx_last.payload, "\x03\xf5", 2);
	close(c);
	close(link);
	fx_stop(f);

	f = fx_create(1);
	f->link.message_max = 1000;
	fx_start(f);
	link = fx_link(f, 0, 65536, 65536);
	for (unsigned parts = 1; parts <= 2; parts++) {
		c = fx_open_session(f, link, &id);
		fx_frame_send(link, TG_LINK_MESSAGE, id, big, 1000, 0);
		fx_expect_raw(c, TG_RAW_BINARY, big, 1000);
		if (parts == 2)
			fx_frame_send(link, TG_LINK_MESSAGE, id, big, 999, TG_LINK_FLAG_MORE);
		fx_frame_send(link, TG_LINK_MESSAGE, id, big, parts == 2 ? 2 : 1001, 0);
		fx_expect_raw(c, TG_RAW_CLOSE, "\x03\xf1the service's message is too big", 34);
		fx_expect(link, TG_LINK_CLOSE, &fx_last);
		assert_memory_equal(fx_last.payload, "\x03\xf1", 2);
		close(c);
	}
	assert_int_equal(f->stats->link_bad_frames, 0);
	close(link);
	fx_stop(f);
}

/* Two sessions with long messages take turns of one frame. */
static void test_turns(void **state)
{
	struct fx *f = fx_create(1);
	uint64_t id[2], last = 0;
	unsigned repeats = 0, n = 0;
	int link, c[2];

	(void)state;
	fx_start(f);
	link = fx_link(f, 0, 1 << 20, 4096);
	for (unsigned i = 0; i < 2; i++)
		c[i] = fx_open_session(f, link, &id[i]);
	fx_raw_send(c[0], TG_RAW_BINARY, big, 300000);
	fx_wait_until(&f->stats->messages_in, 1); /* whole, before the other begins */
	fx_raw_send(c[1], TG_RAW_BINARY, big, 300000);
	fx_expect_message(link, id[0], big, 4096 - TG_LINK_HEADER_LEN,
		TG_LINK_FLAG_MORE); /* all the link's credit */
	fx_nap_ms(100);
	fx_grant(link, 0, 1 << 20);
	for (unsigned ends = 0; ends < 2; n++) {
		fx_expect(link, TG_LINK_MESSAGE, &fx_last);
		ends += !(fx_last.h.flags & TG_LINK_FLAG_MORE);
		repeats += fx_last.h.session == last && !ends;
		last = fx_last.h.session;
	}
	assert_int_equal(repeats, 0);
	assert_int_equal(n, 2 * 10);
	close(c[0]);
	close(c[1]);
	close(link);
	fx_stop(f);
}

/* -------------------------------------------------------------------------------- health */

static void test_ping(void **state)
{
	struct fx *f = fx_create(1);
	int link;

	(void)state;
	f->link.ping_interval_ms = 20;
	f->link.ping_timeout_ms = 100;
	fx_start(f);
	link = fx_link(f, 0, 65536, 65536);
	for (unsigned i = 0; i < 3; i++) {
		fx_expect(link, TG_LINK_PING, &fx_last);
		fx_frame_send(link, TG_LINK_PONG, 0, fx_last.payload, 8, 0);
	}
	fx_expect(link, TG_LINK_PING, &fx_last);
	/* Any sign of life will do, for a while. */
	fx_nap_ms(60);
	fx_frame_send(link, TG_LINK_PING, 0, "01234567", 8, 0);
	fx_expect(link, TG_LINK_PONG, &fx_last);
	assert_memory_equal(fx_last.payload, "01234567", 8);
	assert_true(fx_quiet(link, 60));
	fx_expect(link, TG_LINK_ERROR, &fx_last);
	assert_memory_equal(fx_last.payload, "\0\4", 2);
	close(link);
	link = fx_link(f, 0, 65536, 65536);
	fx_wait_until(&f->stats->link_connects, 2);
	assert_int_equal(f->stats->link_failures, 1);
	assert_int_equal(f->stats->link_bad_frames, 0);
	close(link);
	fx_stop(f);
}

static void test_backoff(void **state)
{
	struct fx *f = fx_create(1);
	struct link_info info;
	uint64_t began;

	(void)state;
	close(f->service[0]); /* refused from now on */
	f->link.reconnect_min_ms = 10;
	f->link.reconnect_max_ms = 80;
	began = worker_clock_ns();
	fx_start(f);
	fx_nap_ms(700);
	fx_describe(f, &info);
	/* 10, 20, 40, 80, 80 … less up to half: at most 2 + 4 tries in the first 100 ms, then one
	 * in at least 40 ms. */
	assert_in_range(f->stats->link_failures, 5, 6 + (worker_clock_ns() - began) / 40000000);
	assert_string_equal(info.upstream, "svc");
	assert_string_equal(info.endpoint, f->names[0]);
	assert_true(!strcmp(info.state, "waiting") || !strcmp(info.state, "connecting"));
	assert_false(info.up);
	assert_non_null(strstr(info.last_error, "connect: "));
	f->link.n_endpoints = 0; /* closed already */
	fx_stop(f);
}

static void test_hello_timeout(void **state)
{
	struct fx *f = fx_create(1);
	int link;

	(void)state;
	f->link.connect_timeout_ms = 50;
	fx_start(f);
	link = fx_accept(f, 0);
	fx_expect(link, TG_LINK_HELLO, &fx_last);
	fx_expect(link, TG_LINK_ERROR, &fx_last);
	assert_memory_equal(fx_last.payload, "\0\4", 2);
	assert_false(fx_recv(link, &fx_last, 1));
	close(link);
	fx_stop(f);
}

static void test_connect_timeout(void **state)
{
	struct fx *f = fx_create(1);
	struct link_info info;
	int fill[8];

	(void)state;
	/* A full backlog: SYNs are dropped. */
	assert_int_equal(listen(f->service[0], 0), 0);
	for (unsigned i = 0; i < 8; i++) {
		fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		connect(fill[i], (struct sockaddr *)&f->endpoints[0].addr,
			f->endpoints[0].addr_len);
	}
	f->link.connect_timeout_ms = 50;
	fx_start(f);
	fx_wait_until(&f->stats->link_failures, 1);
	fx_describe(f, &info);
	assert_string_equal(info.last_error, "connect: no answer in time");
	fx_stop(f);
	for (unsigned i = 0; i < 8; i++)
		close(fill[i]);
}

/* -------------------------------------------------------------------------------- metadata and
 * draining */

/* Escapes that would burst an OPEN: the headers are left out. */
static void test_metadata_fits(void **state)
{
	struct fx *f = fx_create(1);
	static char request[64 * 1024];
	int link, c, n;

	(void)state;
	fx_start(f);
	link = fx_link(f, 0, 65536, 65536);
	n = snprintf(request, sizeof request,
		"GET /x?access_token=1&a=%%22 HTTP/1.1\r\nHost: h\r\nUpgrade: "
		"websocket\r\nConnection: Upgrade\r\n"
		"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: "
		"13\r\nX-Q: ");
	memset(request + n, '"', 40000);
	memcpy(request + n + 40000, "\r\n\r\n", 4);
	c = fx_connect(f, FX_WS);
	fx_send(c, request, (size_t)n + 40004);
	fx_expect(link, TG_LINK_OPEN, &fx_last);
	assert_true(fx_last.h.length < 1000);
	assert_null(memmem(fx_last.payload, fx_last.h.length, "headers", 7));
	assert_non_null(memmem(fx_last.payload, fx_last.h.length, "\"query\":\"a=%22\"", 15));
	close(c);
	close(link);
	fx_stop(f);
}

static void drain(struct fx *f, void *ctx)
{
	(void)ctx;
	f->upstream->ops->drain(f->upstream);
}

static void test_drain(void **state)
{
	struct fx *f = fx_create(1);
	uint64_t id;
	int link, c, late;

	(void)state;
	fx_start(f);
	link = fx_link(f, 0, 65536, 65536);
	c = fx_open_session(f, link, &id);
	fx_call(f, drain, NULL);
	fx_expect(link, TG_LINK_DRAIN, &fx_last);
	assert_memory_equal(fx_last.payload, "\0\0\x04\xd2", 4);
	late = fx_client(f);
	fx_expect_raw(late, TG_RAW_CLOSE, "\x03\xf5the gateway is draining", 25);
	fx_raw_send(c, TG_RAW_TEXT, "on", 2);
	fx_expect_message(link, id, "on", 2, TG_LINK_FLAG_TEXT);
	/* At the end of the worker the service hears of it in order. */
	fx_stop(f);
	fx_expect(link, TG_LINK_CLOSE, &fx_last);
	assert_memory_equal(fx_last.payload, "\x03\xe9", 2);
	fx_expect(link, TG_LINK_ERROR, &fx_last);
	assert_memory_equal(fx_last.payload, "\0\0", 2);
	close(c);
	close(late);
	close(link);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_unpaid),
		cmocka_unit_test(test_unpaid_runs),
		cmocka_unit_test(test_session),
		cmocka_unit_test(test_bytewise),
		cmocka_unit_test(test_long_messages),
		cmocka_unit_test(test_burst),
		cmocka_unit_test(test_too_much),
		cmocka_unit_test(test_turns),
		cmocka_unit_test(test_ping),
		cmocka_unit_test(test_backoff),
		cmocka_unit_test(test_hello_timeout),
		cmocka_unit_test(test_connect_timeout),
		cmocka_unit_test(test_metadata_fits),
		cmocka_unit_test(test_drain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
