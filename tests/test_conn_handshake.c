#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "support/net_harness.h"

static struct harness h;

/* Sends bytes and wants a status; then the gateway's FIN. */
static void wants_status(const char *request, int status)
{
	int fd = client_connect(h.ports[0], 0);

	assert_true(client_write(fd, request, strlen(request)));
	assert_int_equal(client_read_head(fd, NULL, 0), status);
	assert_true(client_gone(fd));
	close(fd);
}

static void test_websocket_answers(void **state)
{
	char long_target[5000];

	harness_defaults(&h);
	harness_start(&h);
	wants_status("BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 405);
	wants_status("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 426);
	wants_status("GET / HTTP/1.1\r\n\r\n", 400);
	wants_status("\x16\x03\x01 not a request", 400);
	wants_status("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 200);
	memset(long_target, 'a', sizeof long_target - 1);
	long_target[sizeof long_target - 1] = 0;
	memcpy(long_target, "GET /", 5);
	wants_status(long_target, 414);

	int fd = client_connect(h.ports[0], 0);
	assert_int_equal(client_ws_open(fd, "/!", NULL), 404);
	close(fd);
	fd = client_connect(h.ports[0], 0);
	assert_int_equal(client_ws_open(fd, "/", NULL), 101);
	assert_true(client_ws_echo(fd, "hello"));
	close(fd);

	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_int_equal(harness_peek(&h, &h.stats->handshaking), 0);
	assert_int_equal(harness_peek(&h, &h.stats->sessions), 0);
	assert_int_equal(harness_peek(&h, &h.stats->handshakes), 1);
	assert_int_equal(harness_peek(&h, &h.stats->closes[CLOSE_HEALTH]), 1);
	assert_int_equal(harness_peek(&h, &h.stats->closes[CLOSE_HANDSHAKE]), 6);
	assert_int_equal(harness_peek(&h, &h.stats->protocol_errors[PROTO_ERR_HTTP]), 5);
	assert_int_equal(harness_peek(&h, &h.stats->protocol_errors[PROTO_ERR_ROUTE]), 1);
	assert_int_equal(harness_peek(&h, &h.up.hellos), 2);
	assert_true(harness_stop(&h));
}

static void drain(struct harness *harness, void *arg)
{
	harness->net.draining = true;
}

static void test_health_while_draining(void **state)
{
	harness_defaults(&h);
	harness_start(&h);
	harness_call(&h, drain, NULL);
	wants_status("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 503);
	assert_true(harness_stop(&h));
}

static void test_one_byte_at_a_time(void **state)
{
	char request[CLIENT_HEAD_BYTES];
	int len, fd;

	harness_defaults(&h);
	harness_start(&h);
	fd = client_connect(h.ports[0], 0);
	len = client_ws_request(request, sizeof request, "/", NULL);
	for (int i = 0; i < len; i++) {
		assert_true(client_write(fd, request + i, 1));
		if (i % 16 == 0)
			client_sleep_ms(1); /* so that at least some arrive alone */
	}
	assert_int_equal(client_read_head(fd, NULL, 0), 101);
	assert_true(client_ws_echo(fd, "hello"));
	close(fd);
	assert_true(harness_stop(&h));
}

/* The request and the first messages in one segment. */
static void test_early_data(void **state)
{
	uint8_t out[CLIENT_HEAD_BYTES];
	size_t len;
	int fd;

	harness_defaults(&h);
	harness_start(&h);
	fd = client_connect(h.ports[0], 0);
	len = (size_t)client_ws_request((char *)out, sizeof out, "/", NULL);
	len += client_ws_frame(out + len, WS_TEXT, true, "one", 3);
	len += client_ws_frame(out + len, WS_TEXT, true, "two", 3);
	assert_true(client_write(fd, out, len));
	assert_int_equal(client_read_head(fd, NULL, 0), 101);
	assert_true(client_ws_got(fd, "one"));
	assert_true(client_ws_got(fd, "two"));
	close(fd);
	assert_true(harness_stop(&h));
}

static void accept_last(struct harness *harness, void *arg)
{
	conn_accept(harness->up.last, arg);
}

static void refuse_last(struct harness *harness, void *arg)
{
	conn_refuse(harness->up.last, 429, "not now", CLOSE_UPSTREAM);
}

static void close_last(struct harness *harness, void *arg)
{
	conn_close(harness->up.last, WS_CLOSE_GOING_AWAY, "going away", CLOSE_DRAIN);
}

static void kill_last(struct harness *harness, void *arg)
{
	conn_kill(harness->up.last, CLOSE_UPSTREAM);
}

/* OPENING: what the client sends early waits for the upstream's word. */
static void test_opening_accepted(void **state)
{
	char head[CLIENT_HEAD_BYTES];
	uint8_t out[CLIENT_HEAD_BYTES];
	size_t len;
	int fd;

	harness_defaults(&h);
	h.up.open = -EINPROGRESS;
	harness_start(&h);
	fd = client_connect(h.ports[0], 0);
	len = (size_t)client_ws_request((char *)out, sizeof out, "/", NULL);
	len += client_ws_frame(out + len, WS_TEXT, true, "early", 5);
	assert_true(client_write(fd, out, len - 2)); /* the early frame is not even whole */
	assert_true(harness_wait(&h, &h.up.opens, 1));
	client_sleep_ms(5);
	assert_int_equal(harness_peek(&h, &h.up.messages), 0);
	assert_true(client_write(fd, out + len - 2, 2));
	harness_call(&h, accept_last, (char *)"chat");
	assert_int_equal(client_read_head(fd, head, sizeof head), 101);
	assert_non_null(strstr(head, "Sec-WebSocket-Protocol: chat\r\n"));
	assert_true(client_ws_got(fd, "early"));
	assert_true(client_ws_echo(fd, "late"));
	close(fd);
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_int_equal(harness_peek(&h, &h.up.closed), 1);
	assert_true(harness_stop(&h));
}

/* Each way a session may end before it was open: the upstream hears of it once, the client gets an
 * answer. */
static void test_opening_refused(void **state)
{
	static const struct {
		void (*fn)(struct harness *h, void *arg);
		int status;
	} ways[] = {{refuse_last, 429}, {close_last, 503}, {kill_last, 0}};

	harness_defaults(&h);
	h.up.open = -EINPROGRESS;
	harness_start(&h);
	for (unsigned i = 0; i < 3; i++) {
		char request[CLIENT_HEAD_BYTES];
		int fd = client_connect(h.ports[0], 0);

		client_ws_request(request, sizeof request, "/", NULL);
		assert_true(client_write(fd, request, strlen(request)));
		assert_true(harness_wait(&h, &h.up.opens, i + 1));
		harness_call(&h, ways[i].fn, NULL);
		assert_int_equal(client_read_head(fd, NULL, 0), ways[i].status);
		assert_true(client_gone(fd));
		close(fd);
		assert_true(harness_wait(&h, &h.stats->connections, 0));
		assert_int_equal(harness_peek(&h, &h.up.closed), i + 1);
	}
	assert_int_equal(harness_peek(&h, &h.stats->handshaking), 0);
	assert_int_equal(harness_peek(&h, &h.stats->sessions), 0);
	assert_true(harness_stop(&h));
}

static void test_upstream_refuses_at_once(void **state)
{
	harness_defaults(&h);
	h.up.open = -EPROTO;
	harness_start(&h);
	int fd = client_connect(h.ports[0], 0);
	assert_int_equal(client_ws_open(fd, "/", NULL), 404);
	assert_true(client_gone(fd));
	close(fd);
	assert_true(harness_wait(&h, &h.stats->closes[CLOSE_NO_UPSTREAM], 1));
	assert_int_equal(harness_peek(&h, &h.up.closed), 0); /* it never had the session */
	assert_true(harness_stop(&h));
}

static void test_timeouts(void **state)
{
	char request[CLIENT_HEAD_BYTES];

	harness_defaults(&h);
	h.opts.n_listeners = 3;
	h.opts.listeners[1].protocol = CONN_RAW;
	h.opts.listeners[2].proxy_protocol = true;
	h.opts.listeners[2].proxy_from = &(struct conn_prefix){.len = 0};
	h.opts.listeners[2].n_proxy_from = 1;
	h.opts.conn.handshake_timeout_ms = 300;
	h.up.open = -EINPROGRESS;
	harness_start(&h);

	int silent = client_connect(h.ports[0], 0), raw = client_connect(h.ports[1], 0);
	int proxy = client_connect(h.ports[2], 0), waiting = client_connect(h.ports[0], 0);
	struct client_frame f;

	client_ws_request(request, sizeof request, "/", NULL);
	assert_true(client_write(silent, "GET /", 5));
	assert_true(client_write(waiting, request, strlen(request)));
	assert_int_equal(client_read_head(silent, NULL, 0), 408);
	assert_true(client_raw_recv(raw, &f));
	assert_int_equal(f.op, TG_RAW_CLOSE);
	free(f.data);
	assert_true(client_gone(proxy));
	assert_int_equal(client_read_head(waiting, NULL, 0), 503);
	close(silent);
	close(raw);
	close(proxy);
	close(waiting);
	assert_true(harness_wait(&h, &h.stats->closes[CLOSE_HANDSHAKE_TIMEOUT], 4));
	assert_int_equal(harness_peek(&h, &h.up.closed), 1);
	assert_true(harness_stop(&h));
}

/* What a handshake costs for debugging is spent once, a part of it in each of its turns. */
static void test_cost(void **state)
{
	enum {
		COST_US = 2000,
	};
	static const struct {
		uint32_t turn_us;
		unsigned turns;
	} cases[] = {{1000000, 1}, {COST_US, 1}, {COST_US / 2, 2}, {COST_US / 2 - 1, 3}};

	for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		harness_defaults(&h);
		h.opts.conn.handshake_cost_us = COST_US;
		h.opts.conn.handshake_turn_us = cases[i].turn_us;
		harness_start(&h);
		int fd = client_connect(h.ports[0], 0);
		assert_int_equal(client_ws_open(fd, "/", NULL), 101);
		assert_int_equal(harness_peek(&h, &h.stats->forced_yields), cases[i].turns - 1);
		assert_true(harness_peek(&h, &h.stats->class_ns[RUNQ_HANDSHAKE]) >=
			    (uint64_t)COST_US * 1000);
		assert_true(client_ws_echo(fd, "hello"));
		assert_int_equal(harness_peek(&h, &h.stats->forced_yields), cases[i].turns - 1);
		close(fd);
		assert_true(harness_stop(&h));
	}
}

static void test_raw_hello(void **state)
{
	static const uint8_t hello[] = {0, 0, 0, 4, TG_RAW_HELLO, TG_RAW_VERSION, 1, '/'};
	struct client_frame f;
	uint64_t session = 0;
	int fd;

	harness_defaults(&h);
	h.opts.listeners[0].protocol = CONN_RAW;
	h.up.session = 41;
	harness_start(&h);
	fd = client_connect(h.ports[0], 0);
	assert_true(client_raw_open(fd, "/", &session));
	assert_int_equal(session, 42);
	assert_true(client_raw_send(fd, TG_RAW_BINARY, "abc", 3));
	assert_true(client_raw_recv(fd, &f));
	assert_int_equal(f.op, TG_RAW_BINARY);
	assert_string_equal((char *)f.data, "abc");
	free(f.data);
	close(fd);

	fd = client_connect(h.ports[0], 0);
	for (unsigned i = 0; i < sizeof hello; i++) {
		assert_true(client_write(fd, hello + i, 1));
		client_sleep_ms(2);
	}
	assert_true(client_raw_recv(fd, &f));
	assert_int_equal(f.op, TG_RAW_WELCOME);
	free(f.data);
	close(fd);

	static const uint8_t bad[][8] = {
		{0, 0, 0, 4, TG_RAW_HELLO, 9, 1, '/'},    /* version */
		{0, 0, 0, 4, TG_RAW_HELLO, 1, 9, '/'},    /* path length */
		{0, 0, 0, 4, TG_RAW_TEXT, 'a', 'b', 'c'}, /* not HELLO */
		{0, 0, 0, 4, 99, 'a', 'b', 'c'},          /* no type */
		{0xff, 0xff, 0xff, 0xff, TG_RAW_HELLO, 1, 1, '/'},
	};
	for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		fd = client_connect(h.ports[0], 0);
		assert_true(client_write(fd, bad[i], sizeof bad[i]));
		assert_true(client_raw_recv(fd, &f));
		assert_int_equal(f.op, TG_RAW_CLOSE);
		free(f.data);
		assert_true(client_gone(fd));
		close(fd);
	}
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_int_equal(harness_peek(&h, &h.stats->protocol_errors[PROTO_ERR_RAW_HELLO]), 4);
	assert_int_equal(harness_peek(&h, &h.stats->protocol_errors[PROTO_ERR_SIZE]), 1);
	assert_true(harness_stop(&h));
}

static void describe_last(struct harness *harness, void *arg)
{
	conn_describe(harness->up.last, arg);
}

static void proxy_opts(struct conn_prefix *from)
{
	harness_defaults(&h);
	h.opts.listeners[0].proxy_protocol = true;
	h.opts.listeners[0].proxy_from = from;
	h.opts.listeners[0].n_proxy_from = 1;
}

/* 127.0.0.0/8, IPv4-mapped. */
static struct conn_prefix loopback = {
	.addr = {.s6_addr = {[10] = 0xff, [11] = 0xff, [12] = 127}},
	.len = 96 + 8,
};

static void test_proxy(void **state)
{
	static const char v1[] = "PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n";
	char request[CLIENT_HEAD_BYTES], text[INET6_ADDRSTRLEN];
	struct conn_info info;
	int fd;

	proxy_opts(&loopback);
	harness_start(&h);
	for (unsigned way = 0; way < 3; way++) {
		fd = client_connect(h.ports[0], 0);
		strcpy(request, v1);
		client_ws_request(request + strlen(v1), sizeof request - strlen(v1), "/", NULL);
		/* In one piece, header and request apart, the header in two. */
		size_t first = way == 0 ? strlen(request) : way == 1 ? strlen(v1) : 9;
		assert_true(client_write(fd, request, first));
		if (way)
			client_sleep_ms(10);
		assert_true(client_write(fd, request + first, strlen(request) - first));
		assert_int_equal(client_read_head(fd, NULL, 0), 101);
		harness_call(&h, describe_last, &info);
		inet_ntop(AF_INET6, &info.peer.sin6_addr, text, sizeof text);
		assert_string_equal(text, "::ffff:192.0.2.7");
		assert_int_equal(ntohs(info.peer.sin6_port), 4711);
		assert_true(client_ws_echo(fd, "hello"));
		close(fd);
	}
	assert_true(harness_stop(&h));
}

/* Malformed, also where the first piece looked well. */
static void test_proxy_malformed(void **state)
{
	proxy_opts(&loopback);
	harness_start(&h);
	for (unsigned way = 0; way < 2; way++) {
		int fd = client_connect(h.ports[0], 0);

		assert_true(client_write(fd, "PROXY TCP4 1", 12));
		if (way)
			client_sleep_ms(20);
		assert_true(client_write(fd, "92.0.2.x junk\r\nmore", 19));
		assert_true(client_gone(fd));
		close(fd);
	}
	assert_true(harness_wait(&h, &h.stats->closes[CLOSE_HANDSHAKE], 2));
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_int_equal(harness_peek(&h, &h.stats->protocol_errors[PROTO_ERR_PROXY]), 2);
	assert_int_equal(harness_peek(&h, &h.net.bufs.bytes), 0);
	assert_true(harness_stop(&h));
}

static void test_proxy_source(void **state)
{
	struct conn_prefix elsewhere = loopback;

	elsewhere.len = 128; /* 127.0.0.0 alone */
	proxy_opts(&elsewhere);
	harness_start(&h);
	int fd = client_connect(h.ports[0], 0);
	client_write(fd, "PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n", 40);
	assert_true(client_gone(fd));
	close(fd);
	assert_true(harness_wait(&h, &h.stats->protocol_errors[PROTO_ERR_PROXY_SOURCE], 1));
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_true(harness_stop(&h));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_websocket_answers),
		cmocka_unit_test(test_health_while_draining),
		cmocka_unit_test(test_one_byte_at_a_time),
		cmocka_unit_test(test_early_data),
		cmocka_unit_test(test_opening_accepted),
		cmocka_unit_test(test_opening_refused),
		cmocka_unit_test(test_upstream_refuses_at_once),
		cmocka_unit_test(test_timeouts),
		cmocka_unit_test(test_cost),
		cmocka_unit_test(test_raw_hello),
		cmocka_unit_test(test_proxy),
		cmocka_unit_test(test_proxy_malformed),
		cmocka_unit_test(test_proxy_source),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
