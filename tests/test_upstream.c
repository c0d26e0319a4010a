#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <pthread.h>

#include "app/session.h"
#include "support/net_harness.h"

static struct harness h;

static const struct route routes[] = {{.listener = -1, .path = "/echo", .upstream = 0}};
static struct upstream *echo;
static struct session_ids ids = {.epoch = 1};
static struct sessions sessions;

static int start(struct harness *harness)
{
	int err = upstream_echo_create(&harness->net, &echo);

	if (err)
		return err;
	sessions_init(&sessions, &harness->net,
		&(struct session_opts){.routes = routes,
			.n_routes = 1,
			.upstreams = &echo,
			.n_upstreams = 1,
			.ids = &ids});
	return 0;
}

static void stop(struct harness *harness)
{
	echo->ops->destroy(echo);
}

static void begin(void)
{
	harness_defaults(&h);
	h.opts.ops = &session_conn_ops;
	h.opts.start = start;
	h.opts.stop = stop;
}

static int ws(int rcvbuf)
{
	int fd = client_connect(h.ports[0], rcvbuf);

	assert_int_equal(client_ws_open(fd, "/echo", NULL), 101);
	return fd;
}

static void test_sizes(void **state)
{
	static const size_t sizes[] = {0, 1, 125, 126, 65535, 65536, 1 << 20, 16 << 20};
	uint8_t *data = malloc(16 << 20);
	struct client_frame f;
	int fd;

	for (size_t i = 0; i < 16 << 20; i++)
		data[i] = (uint8_t)(i ^ i >> 9);
	begin();
	harness_start(&h);
	fd = ws(0);
	for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		assert_true(client_ws_send(fd, WS_BINARY, true, data, sizes[i]));
		assert_true(client_ws_recv(fd, &f));
		assert_int_equal(f.op, WS_BINARY);
		assert_int_equal(f.len, sizes[i]);
		assert_memory_equal(f.data, data, sizes[i]);
		free(f.data);
	}
	assert_true(client_ws_echo(fd, "text stays text"));
	close(fd);
	assert_true(harness_stop(&h));
	free(data);
}

/* A client that sends and does not read is made to wait, long before its out queue's cap; it loses
 * nothing. */
static void test_who_does_not_read_is_not_read(void **state)
{
	enum {
		MESSAGE = 10000,
		MESSAGES = 2000
	};
	uint8_t *frame = malloc(MESSAGE + WS_HEADER_MAX), data[MESSAGE];
	unsigned sent = 0, got = 0;
	size_t len, at = 0;
	int fd;

	begin();
	h.opts.limits[0].out_queue_bytes = 1 << 20;
	h.opts.limits[0].message_max = 1 << 20;
	h.opts.sndbuf_bytes = 16384;
	harness_start(&h);
	fd = ws(8192);
	memset(data, 'x', sizeof data);
	/* Until the gateway takes no more. */
	len = client_ws_frame(frame, WS_BINARY, true, data, sizeof data);
	for (unsigned idle = 0; idle < 50 && sent < MESSAGES;) {
		ssize_t n = send(fd, frame + at, len - at, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0) {
			assert_int_equal(errno, EAGAIN);
			client_sleep_ms(2);
			idle++;
			continue;
		}
		idle = 0;
		at += (size_t)n;
		if (at == len) {
			at = 0;
			sent++;
		}
	}
	assert_true(sent < MESSAGES);
	assert_true(harness_peek(&h, &h.stats->reads_paused) > 0);
	assert_true(harness_peek(&h, &h.net.bufs.bytes) < 1 << 20);
	for (got = 0; got < sent; got++) {
		struct client_frame f;

		assert_true(client_ws_recv(fd, &f));
		assert_int_equal(f.len, MESSAGE);
		assert_memory_equal(f.data, data, MESSAGE);
		free(f.data);
	}
	if (at) {
		assert_true(client_write(fd, frame + at, len - at));
		struct client_frame f;
		assert_true(client_ws_recv(fd, &f));
		free(f.data);
	}
	assert_true(client_ws_echo(fd, "all is well"));
	close(fd);
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_true(harness_stop(&h));
	free(frame);
}

static void test_many_clients(void **state)
{
	static int fds[300];
	char text[32];

	begin();
	harness_start(&h);
	for (unsigned i = 0; i < 300; i++)
		fds[i] = ws(0);
	for (unsigned round = 0; round < 5; round++) {
		for (unsigned i = 0; i < 300; i++) {
			snprintf(text, sizeof text, "%u %u", round, i);
			assert_true(client_ws_send(fds[i], WS_TEXT, true, text, strlen(text)));
		}
		for (unsigned i = 0; i < 300; i++) {
			snprintf(text, sizeof text, "%u %u", round, i);
			assert_true(client_ws_got(fds[i], text));
		}
	}
	for (unsigned i = 0; i < 300; i++)
		close(fds[i]);
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_true(harness_stop(&h));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_who_does_not_read_is_not_read),
		cmocka_unit_test(test_many_clients),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
