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

static void pong(int fd, const struct client_frame *ping)
{
	assert_true(client_ws_send(fd, WS_PONG, true, ping->data, ping->len));
}

/* Pings come at their interval, less the jitter; a client that answers stays. */
static void test_heartbeats_answered(void **state)
{
	uint64_t began;
	int fd;

	harness_defaults(&h);
	h.opts.limits[0].heartbeat_ms = 100;
	h.opts.limits[0].heartbeat_jitter_percent = 50;
	harness_start(&h);
	began = client_now_ms();
	fd = ws("/");
	for (unsigned i = 0; i < 6; i++) {
		struct client_frame f;

		assert_true(client_ws_recv(fd, &f));
		assert_int_equal(f.op, WS_PING);
		assert_int_equal(f.len, 0);
		pong(fd, &f);
		free(f.data);
	}
	assert_true(client_now_ms() - began >= 6 * 50 - 6);
	assert_true(harness_wait(&h, &h.stats->pongs_received, 6));
	assert_int_equal(harness_peek(&h, &h.up.closed), 0);
	close(fd);
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_true(harness_stop(&h));
}

/* A client that says nothing is dead after the missed pings and one interval more. */
static void test_heartbeats_missed(void **state)
{
	struct client_frame f;
	uint64_t began;
	int fd;

	harness_defaults(&h);
	h.opts.limits[0].heartbeat_ms = 30;
	h.opts.limits[0].heartbeat_missed = 3;
	harness_start(&h);
	began = client_now_ms();
	fd = ws("/");
	for (unsigned i = 0; i < 3; i++) {
		assert_true(client_ws_recv(fd, &f));
		assert_int_equal(f.op, WS_PING);
		free(f.data);
	}
	assert_true(client_gone(fd));
	assert_true(client_now_ms() - began >= 4 * 30 - 4);
	close(fd);
	assert_true(harness_wait(&h, &h.stats->closes[CLOSE_HEARTBEAT], 1));
	assert_int_equal(harness_peek(&h, &h.up.reason), CLOSE_HEARTBEAT);
	assert_int_equal(harness_peek(&h, &h.stats->pings_sent), 3);
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_true(harness_stop(&h));
}

/* Any byte proves that the client lives. */
static void test_data_counts_as_an_answer(void **state)
{
	uint64_t until;
	int fd;

	harness_defaults(&h);
	h.up.echo = false;
	h.opts.limits[0].heartbeat_ms = 150;
	h.opts.limits[0].heartbeat_missed = 1;
	harness_start(&h);
	fd = ws("/");
	for (until = client_now_ms() + 700; client_now_ms() < until; client_sleep_ms(10))
		assert_true(client_ws_send(fd, WS_BINARY, true, "x", 1));
	assert_int_equal(harness_peek(&h, &h.up.closed), 0);
	assert_true(harness_peek(&h, &h.stats->pings_sent) >= 3);
	close(fd);
	assert_true(harness_stop(&h));
}

static void resume_last(struct harness *harness, void *arg)
{
	conn_resume(harness->up.last);
}

/* Whoever is not read, because its upstream asked for a pause, cannot be heard to answer. */
static void test_paused_is_not_dead(void **state)
{
	int fd;

	harness_defaults(&h);
	h.up.pause_always = true;
	h.up.echo = false;
	h.opts.limits[0].heartbeat_ms = 20;
	h.opts.limits[0].heartbeat_missed = 2;
	harness_start(&h);
	fd = ws("/");
	assert_true(client_ws_send(fd, WS_TEXT, true, "one", 3));
	assert_true(harness_wait(&h, &h.up.messages, 1));
	for (unsigned i = 0; i < 8; i++) {
		struct client_frame f;

		assert_true(client_ws_recv(fd, &f));
		assert_int_equal(f.op, WS_PING);
		pong(fd, &f);
		free(f.data);
	}
	assert_int_equal(harness_peek(&h, &h.up.closed), 0);
	assert_int_equal(harness_peek(&h, &h.stats->pongs_received), 0);
	assert_true(client_ws_send(fd, WS_TEXT, true, "two", 3));
	harness_call(&h, resume_last, NULL);
	assert_true(harness_wait(&h, &h.up.messages, 2));
	assert_int_equal(harness_peek(&h, &h.stats->pongs_received), 8);
	close(fd);
	assert_true(harness_stop(&h));
}

/* A session is idle for idle_timeout before it is closed, also right after it was opened. */
static void test_idle(void **state)
{
	uint64_t began;
	int fd;

	harness_defaults(&h);
	h.opts.limits[0].idle_timeout_ms = 400;
	harness_start(&h);
	began = client_now_ms();
	fd = ws("/");
	client_sleep_ms(150);
	assert_true(client_ws_echo(fd, "still here"));
	assert_true(client_ws_closed_with(fd, WS_CLOSE_GOING_AWAY));
	assert_true(client_now_ms() - began >= 150 + 400 - 5);
	assert_true(client_at_eof(fd));
	close(fd);
	assert_true(harness_wait(&h, &h.stats->closes[CLOSE_IDLE], 1));

	began = client_now_ms();
	fd = ws("/");
	assert_true(client_ws_closed_with(fd, WS_CLOSE_GOING_AWAY));
	assert_true(client_now_ms() - began >= 400 - 5);
	close(fd);
	assert_true(harness_stop(&h));
}

/* Pings and pongs are no messages: they do not keep an idle session. */
static void test_idle_despite_pings(void **state)
{
	struct client_frame f;
	int fd;

	harness_defaults(&h);
	h.opts.limits[0].idle_timeout_ms = 400;
	harness_start(&h);
	fd = ws("/");
	for (unsigned i = 0; i < 3; i++) {
		assert_true(client_ws_send(fd, WS_PING, true, "p", 1));
		assert_true(client_ws_recv(fd, &f));
		assert_int_equal(f.op, WS_PONG);
		free(f.data);
		client_sleep_ms(20);
	}
	assert_true(client_ws_closed_with(fd, WS_CLOSE_GOING_AWAY));
	close(fd);
	assert_true(harness_stop(&h));
}

static void send_much(struct harness *harness, void *arg)
{
	static uint8_t data[1 << 20];

	for (unsigned i = 0; i < *(unsigned *)arg; i++)
		conn_send(harness->up.last, false, data, sizeof data);
}

/* Without progress for write_timeout: the end. With a little progress now and then: not. */
static void test_write_timeout(void **state)
{
	static uint8_t skip[256 * 1024];
	unsigned mib = 8;
	uint64_t began;
	int fd;

	harness_defaults(&h);
	h.opts.limits[0].write_timeout_ms = 400;
	h.opts.sndbuf_bytes = 16384;
	harness_start(&h);
	fd = client_connect(h.ports[0], 8192);
	assert_int_equal(client_ws_open(fd, "/", NULL), 101);
	harness_call(&h, send_much, &mib);
	began = client_now_ms();
	while (client_now_ms() - began < 800) {
		assert_true(client_read(fd, skip, sizeof skip));
		client_sleep_ms(50);
	}
	assert_int_equal(harness_peek(&h, &h.stats->closes[CLOSE_WRITE_TIMEOUT]), 0);
	began = client_now_ms();
	assert_true(harness_wait(&h, &h.stats->closes[CLOSE_WRITE_TIMEOUT], 1));
	assert_true(client_now_ms() - began >= 200);
	assert_int_equal(harness_peek(&h, &h.net.bufs.bytes), 0);
	close(fd);
	assert_true(harness_stop(&h));
}

static void close_last(struct harness *harness, void *arg)
{
	conn_close(harness->up.last, 4000, "bye", CLOSE_KICKED);
}

/* A client that neither answers the close frame nor ends its connection is cut after close_timeout.
 */
static void test_close_deadline(void **state)
{
	uint64_t began;
	int fd;

	harness_defaults(&h);
	h.opts.conn.close_timeout_ms = 300;
	harness_start(&h);
	fd = ws("/");
	began = client_now_ms();
	harness_call(&h, close_last, NULL);
	assert_true(client_ws_closed_with(fd, 4000));
	assert_true(client_at_eof(fd)); /* our half of it */
	assert_int_equal(harness_peek(&h, &h.stats->connections), 1);
	assert_true(harness_wait(&h, &h.stats->closes[CLOSE_KICKED], 1));
	assert_true(client_now_ms() - began >= 295);
	close(fd);

	/* The same where the out queue cannot be emptied. */
	unsigned mib = 8;
	fd = client_connect(h.ports[0], 8192);
	assert_int_equal(client_ws_open(fd, "/", NULL), 101);
	harness_call(&h, send_much, &mib);
	harness_call(&h, close_last, NULL);
	assert_true(harness_wait(&h, &h.stats->closes[CLOSE_KICKED], 2));
	assert_int_equal(harness_peek(&h, &h.net.bufs.bytes), 0);
	close(fd);
	assert_true(harness_stop(&h));
}

static void be_greedy(struct harness *harness, void *arg)
{
	harness_conn(harness, 0)->flags |= CONN_GREEDY;
}

/* An active connection keeps a receive armed; once it is silent it gets a poll, and still hears
 * everything. */
static void test_falls_silent(void **state)
{
	struct conn copy;
	uint64_t until;
	int fd;

	harness_defaults(&h);
	h.opts.conn.handshake_timeout_ms = 1000;
	harness_start(&h);
	fd = ws("/");
	assert_true(client_ws_echo(fd, "one"));
	harness_copy(&h, &copy, harness_conn(&h, 0), sizeof copy);
	assert_int_equal(copy.armed, ARMED_RECV);
	harness_call(&h, be_greedy, NULL);
	until = client_now_ms() + HARNESS_WAIT_MS;
	do {
		client_sleep_ms(20);
		harness_copy(&h, &copy, harness_conn(&h, 0), sizeof copy);
	} while (copy.armed != ARMED_POLL && client_now_ms() < until);
	assert_int_equal(copy.armed, ARMED_POLL);
	assert_null(copy.aux);
	assert_null(copy.out);
	assert_false(copy.flags & CONN_GREEDY); /* forgiven */
	assert_true(client_ws_echo(fd, "two"));
	close(fd);
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_true(harness_stop(&h));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_heartbeats_answered),
		cmocka_unit_test(test_heartbeats_missed),
		cmocka_unit_test(test_data_counts_as_an_answer),
		cmocka_unit_test(test_paused_is_not_dead),
		cmocka_unit_test(test_idle),
		cmocka_unit_test(test_idle_despite_pings),
		cmocka_unit_test(test_write_timeout),
		cmocka_unit_test(test_close_deadline),
		cmocka_unit_test(test_falls_silent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
