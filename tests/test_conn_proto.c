#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "support/net_harness.h"

static struct harness h;

static int ws(const char *path)
{
	int fd = client_connect(h.ports[0], 0);

	assert_int_equal(client_ws_open(fd, path, NULL), 101);
	return fd;
}

static void wants(int fd, unsigned op, const char *text)
{
	struct client_frame f;

	assert_true(client_ws_recv(fd, &f));
	assert_int_equal(f.op, op);
	assert_string_equal((char *)f.data, text);
	free(f.data);
}

/* A fragmented message with control frames in between comes out whole, and they are answered at
 * once. */
static void test_fragments_and_pings(void **state)
{
	int fd;

	harness_defaults(&h);
	harness_start(&h);
	fd = ws("/");
	assert_true(client_ws_send(fd, WS_TEXT, false, "one ", 4));
	assert_true(client_ws_send(fd, WS_PING, true, "now", 3));
	wants(fd, WS_PONG, "now");
	assert_true(client_ws_send(fd, WS_CONTINUATION, false, "two ", 4));
	assert_true(client_ws_send(fd, WS_PONG, true, "unasked", 7));
	assert_true(client_ws_send(fd, WS_CONTINUATION, false, "", 0));
	assert_true(client_ws_send(fd, WS_PING, true, "", 0));
	wants(fd, WS_PONG, "");
	assert_true(client_ws_send(fd, WS_CONTINUATION, true, "three", 5));
	wants(fd, WS_TEXT, "one two three");
	assert_true(client_ws_send(fd, WS_BINARY, true, "", 0));
	wants(fd, WS_BINARY, "");
	assert_int_equal(harness_peek(&h, &h.stats->pongs_received), 1);
	assert_int_equal(harness_peek(&h, &h.up.messages), 2);
	assert_int_equal(harness_peek(&h, &h.net.bufs.bytes), 0);
	close(fd);
	assert_true(harness_stop(&h));
}

/* Bytes trickling in one by one: every frame is cut everywhere. */
static void test_byte_by_byte(void **state)
{
	uint8_t out[256];
	size_t len;
	int fd;

	harness_defaults(&h);
	harness_start(&h);
	fd = ws("/");
	len = client_ws_frame(out, WS_TEXT, false, "ab", 2);
	len += client_ws_frame(out + len, WS_PING, true, "ping", 4);
	len += client_ws_frame(out + len, WS_CONTINUATION, true, "cd", 2);
	len += client_ws_frame(out + len, WS_BINARY, true, "efgh", 4);
	len += client_ws_frame(out + len, WS_CLOSE, true, "\x03\xe8", 2);
	for (size_t i = 0; i < len; i++) {
		assert_true(client_write(fd, out + i, 1));
		client_sleep_ms(1);
	}
	wants(fd, WS_PONG, "ping");
	wants(fd, WS_TEXT, "abcd");
	wants(fd, WS_BINARY, "efgh");
	assert_true(client_ws_closed_with(fd, 1000));
	assert_true(client_at_eof(fd));
	close(fd);
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_true(harness_stop(&h));
}

/* What breaks the protocol, the code it is closed with, and what it counts as. */
static void test_bad_frames(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
		uint16_t code;
		enum protocol_error error;
		enum close_reason reason;
	} cases[] = {
		{"\xc1\x80\0\0\0\0", 6, 1002, PROTO_ERR_WS_FRAME, CLOSE_PROTOCOL}, /* RSV1 */
		{"\x83\x80\0\0\0\0", 6, 1002, PROTO_ERR_WS_FRAME, CLOSE_PROTOCOL}, /* opcode 3 */
		{"\x81\x00", 2, 1002, PROTO_ERR_WS_FRAME, CLOSE_PROTOCOL},         /* not masked */
		{"\x80\x80\0\0\0\0", 6, 1002, PROTO_ERR_WS_FRAME,
			CLOSE_PROTOCOL}, /* nothing to continue */
		{"\x09\x80\0\0\0\0", 6, 1002, PROTO_ERR_WS_FRAME,
			CLOSE_PROTOCOL}, /* ping, fragmented */
		{"\x81\x81\0\0\0\0\xff", 7, 1007, PROTO_ERR_UTF8, CLOSE_PROTOCOL}, /* not UTF-8 */
		{"\x82\xfe\x10\x00\0\0\0\0", 8, 1009, PROTO_ERR_SIZE,
			CLOSE_TOO_BIG}, /* 4096 > 4000 */
		{"\x88\x81\0\0\0\0\x03", 7, 1002, PROTO_ERR_WS_FRAME,
			CLOSE_PROTOCOL}, /* close of one byte */
		{"\x88\x82\0\0\0\0\x03\xed", 8, 1002, PROTO_ERR_WS_FRAME,
			CLOSE_PROTOCOL}, /* code 1005 */
		{"\x88\x83\0\0\0\0\x03\xe8\xff", 9, 1007, PROTO_ERR_UTF8, CLOSE_PROTOCOL},
	};
	uint64_t errors[PROTO_ERRS] = {0};
	struct tg_worker_stats *s;

	harness_defaults(&h);
	h.opts.limits[0].message_max = 4000;
	harness_start(&h);
	s = h.stats;
	for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		int fd = ws("/");

		assert_true(client_write(fd, cases[i].bytes, cases[i].len));
		assert_true(client_ws_closed_with(fd, cases[i].code));
		assert_true(client_at_eof(fd));
		close(fd);
		assert_true(harness_wait(&h, &s->connections, 0));
		errors[cases[i].error]++;
		assert_int_equal(harness_peek(&h, &s->protocol_errors[cases[i].error]),
			errors[cases[i].error]);
		assert_int_equal(harness_peek(&h, &h.up.reason), cases[i].reason);
		assert_int_equal(harness_peek(&h, &h.up.code), cases[i].code);
	}
	assert_int_equal(harness_peek(&h, &h.up.messages), 0);
	assert_true(harness_stop(&h));
}

/* A message may be exactly as long as its route's limit, also in fragments; not one byte longer. */
static void test_size_limit(void **state)
{
	uint8_t data[4001] = {0};
	struct client_frame f;
	int fd;

	harness_defaults(&h);
	h.opts.n_routes = 2;
	h.opts.limits[1].message_max = 4000;
	harness_start(&h);
	fd = ws("/1");
	assert_true(client_ws_send(fd, WS_BINARY, true, data, 4000));
	assert_true(client_ws_recv(fd, &f));
	assert_int_equal(f.len, 4000);
	free(f.data);
	assert_true(client_ws_send(fd, WS_BINARY, false, data, 3999));
	assert_true(client_ws_send(fd, WS_CONTINUATION, true, data, 1));
	assert_true(client_ws_recv(fd, &f));
	assert_int_equal(f.len, 4000);
	free(f.data);
	assert_true(client_ws_send(fd, WS_BINARY, false, data, 3999));
	assert_true(client_ws_send(fd, WS_CONTINUATION, true, data, 2));
	assert_true(client_ws_closed_with(fd, 1009));
	close(fd);
	fd = ws("/");
	assert_true(client_ws_send(fd, WS_BINARY, true, data, 4001));
	assert_true(client_ws_recv(fd, &f));
	assert_int_equal(f.len, 4001);
	free(f.data);
	close(fd);
	assert_true(harness_stop(&h));
}

static void test_ping_flood(void **state)
{
	int fd;

	harness_defaults(&h);
	h.opts.limits[0].pings_per_minute = 5;
	h.opts.n_routes = 2;
	h.opts.limits[1].pings_per_minute = 0;
	harness_start(&h);
	fd = ws("/");
	for (unsigned i = 0; i < 5; i++) {
		assert_true(client_ws_send(fd, WS_PING, true, "x", 1));
		wants(fd, WS_PONG, "x");
	}
	assert_true(client_ws_send(fd, WS_PING, true, "x", 1));
	assert_true(client_ws_closed_with(fd, WS_CLOSE_POLICY));
	close(fd);
	assert_true(harness_wait(&h, &h.stats->closes[CLOSE_PING_FLOOD], 1));
	/* No limit: beyond what eight bits count, too. */
	fd = ws("/1");
	for (unsigned i = 0; i < 600; i++) {
		assert_true(client_ws_send(fd, WS_PING, true, "x", 1));
		wants(fd, WS_PONG, "x");
	}
	close(fd);
	assert_true(harness_stop(&h));
}

static void test_highest_ping_limit(void **state)
{
	int fd;

	harness_defaults(&h);
	h.opts.limits[0].pings_per_minute = 255;
	harness_start(&h);
	fd = ws("/");
	for (unsigned i = 0; i < 255; i++) {
		assert_true(client_ws_send(fd, WS_PING, true, "x", 1));
		wants(fd, WS_PONG, "x");
	}
	assert_true(client_ws_send(fd, WS_PING, true, "x", 1));
	assert_true(client_ws_closed_with(fd, WS_CLOSE_POLICY));
	close(fd);
	assert_true(harness_stop(&h));
}

static void wants_raw(int fd, unsigned op, const char *text)
{
	struct client_frame f;

	assert_true(client_raw_recv(fd, &f));
	assert_int_equal(f.op, op);
	assert_string_equal((char *)f.data, text);
	free(f.data);
}

static void test_raw(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
		uint16_t code;
	} bad[] = {
		{"\0\0\0\0", 4, 1002}, {"\0\0\0\x02\x63x", 6, 1002},
		{"\0\0\0\x02\x03\xff", 6, 1007}, {"\0\1\0\0\x04", 5, 1009},
		{"\0\0\0\x02\x07x", 6, 1002},
		{"\0\0\0\x04\x01\x01\x01/", 8, 1002}, /* a second HELLO */
	};
	uint8_t out[64];
	size_t len;
	int fd;

	harness_defaults(&h);
	h.opts.listeners[0].protocol = CONN_RAW;
	h.opts.limits[0].message_max = 4000;
	harness_start(&h);
	fd = client_connect(h.ports[0], 0);
	assert_true(client_raw_open(fd, "/", NULL));
	assert_true(client_raw_send(fd, TG_RAW_TEXT, "text", 4));
	wants_raw(fd, TG_RAW_TEXT, "text");
	assert_true(client_raw_send(fd, TG_RAW_BINARY, "", 0));
	wants_raw(fd, TG_RAW_BINARY, "");
	assert_true(client_raw_send(fd, TG_RAW_PING, "p", 1));
	wants_raw(fd, TG_RAW_PONG, "p");
	len = raw_header_write(out, TG_RAW_PING, 4);
	memcpy(out + len, "ping", 4);
	len += 4;
	len += raw_header_write(out + len, TG_RAW_TEXT, 5);
	memcpy(out + len, "hello", 5);
	len += 5;
	for (size_t i = 0; i < len; i++) {
		assert_true(client_write(fd, out + i, 1));
		client_sleep_ms(1);
	}
	wants_raw(fd, TG_RAW_PONG, "ping");
	wants_raw(fd, TG_RAW_TEXT, "hello");
	close(fd);

	for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct client_frame f;

		fd = client_connect(h.ports[0], 0);
		assert_true(client_raw_open(fd, "/", NULL));
		assert_true(client_write(fd, bad[i].bytes, bad[i].len));
		assert_true(client_raw_recv(fd, &f));
		assert_int_equal(f.op, TG_RAW_CLOSE);
		assert_int_equal(f.data[0] << 8 | f.data[1], bad[i].code);
		free(f.data);
		assert_true(client_at_eof(fd));
		close(fd);
	}
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_int_equal(harness_peek(&h, &h.stats->protocol_errors[PROTO_ERR_RAW_FRAME]), 4);
	assert_int_equal(harness_peek(&h, &h.stats->protocol_errors[PROTO_ERR_UTF8]), 1);
	assert_int_equal(harness_peek(&h, &h.stats->protocol_errors[PROTO_ERR_SIZE]), 1);
	assert_true(harness_stop(&h));
}

/* Without memory for the rest of a message: 1013, and the next connection finds all of it again. */
static void test_no_memory(void **state)
{
	static uint8_t data[300000];
	struct client_frame f;
	int fd;

	harness_defaults(&h);
	h.opts.conn.buffer_cap_bytes = 256 * 1024;
	harness_start(&h);
	fd = ws("/");
	assert_true(client_ws_send(fd, WS_BINARY, false, data, 100000));
	client_ws_send(fd, WS_CONTINUATION, true, data, 300000);
	assert_true(client_gone(fd)); /* 1013, if it is read in time */
	close(fd);
	assert_true(harness_wait(&h, &h.stats->closes[CLOSE_NO_MEMORY], 1));
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_int_equal(harness_peek(&h, &h.net.bufs.bytes), 0);
	fd = ws("/");
	assert_true(client_ws_send(fd, WS_BINARY, true, data, 50000));
	assert_true(client_ws_recv(fd, &f));
	assert_int_equal(f.len, 50000);
	free(f.data);
	close(fd);
	assert_true(harness_stop(&h));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fragments_and_pings),
		cmocka_unit_test(test_byte_by_byte),
		cmocka_unit_test(test_bad_frames),
		cmocka_unit_test(test_size_limit),
		cmocka_unit_test(test_ping_flood),
		cmocka_unit_test(test_highest_ping_limit),
		cmocka_unit_test(test_raw),
		cmocka_unit_test(test_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
