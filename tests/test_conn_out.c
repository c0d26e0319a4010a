#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <pthread.h>

#include "support/net_harness.h"

static struct harness h;

static uint8_t pattern(uint64_t i)
{
	return (uint8_t)(i ^ i >> 8 ^ i >> 16);
}

static int ws(int rcvbuf)
{
	int fd = client_connect(h.ports[0], rcvbuf);

	assert_int_equal(client_ws_open(fd, "/", NULL), 101);
	return fd;
}

/* What the gateway is to send: a stream of pattern bytes in messages of growing and odd sizes. */
struct plan {
	uint64_t bytes, at;
	uint64_t messages;
};

static uint32_t next_size(const struct plan *p)
{
	static const uint32_t sizes[] = {
		1, 100, 231, 232, 233, 4071, 4072, 4073, 70000, 5, 0, 1 << 20};
	uint32_t n = sizes[p->messages % (sizeof sizes / sizeof sizes[0])];

	return p->bytes - p->at < n ? (uint32_t)(p->bytes - p->at) : n;
}

static uint8_t scratch[1 << 20];

static void send_plan(struct harness *harness, void *arg)
{
	struct plan *p = arg;

	while (p->at < p->bytes) {
		uint32_t n = next_size(p);

		for (uint32_t i = 0; i < n; i++)
			scratch[i] = pattern(p->at + i);
		if (conn_send(harness->up.last, false, scratch, n))
			abort();
		p->at += n;
		p->messages++;
	}
}

/* Reads the same plan, a little at a time when slow. */
static bool read_plan(int fd, uint64_t bytes, bool slow)
{
	struct plan p = {.bytes = bytes};
	struct client_frame f;
	bool ok = true;

	while (ok && p.at < bytes) {
		uint32_t n = next_size(&p);

		if (!client_ws_recv(fd, &f))
			return false;
		ok = f.op == WS_BINARY && f.len == n;
		for (uint32_t i = 0; ok && i < n; i++)
			ok = f.data[i] == pattern(p.at + i);
		free(f.data);
		p.at += n;
		p.messages++;
		if (slow && p.messages % 4 == 0)
			client_sleep_ms(1);
	}
	return ok;
}

/* Order and bytes survive short sends: 1 to 8 MiB through small socket buffers and a slow reader.
 */
static void test_order_through_a_slow_reader(void **state)
{
	for (unsigned mib = 1; mib <= 8; mib *= 2) {
		struct plan p = {.bytes = (uint64_t)mib << 20};
		int fd;

		harness_defaults(&h);
		h.opts.sndbuf_bytes = 16384;
		harness_start(&h);
		fd = ws(4096);
		harness_call(&h, send_plan, &p);
		assert_true(read_plan(fd, p.bytes, true));
		assert_true(harness_peek(&h, &h.stats->out_blocked) > 0);
		assert_true(harness_wait(&h, &h.up.drained, 1));
		assert_int_equal(harness_peek(&h, &h.net.bufs.bytes), 0);
		assert_int_equal(harness_peek(&h, &h.stats->messages_out), p.messages);
		assert_true(client_ws_echo(fd, "still there"));
		close(fd);
		assert_true(harness_wait(&h, &h.stats->connections, 0));
		assert_true(harness_stop(&h));
	}
}

struct echo_sender {
	int fd;
	uint64_t bytes;
};

static void *send_echoes(void *arg)
{
	struct echo_sender *s = arg;
	struct plan p = {.bytes = s->bytes};
	uint8_t *data = malloc(1 << 20);

	while (p.at < p.bytes) {
		uint32_t n = next_size(&p);

		for (uint32_t i = 0; i < n; i++)
			data[i] = pattern(p.at + i);
		if (!client_ws_send(s->fd, WS_BINARY, true, data, n))
			break;
		p.at += n;
		p.messages++;
	}
	free(data);
	return NULL;
}

/* Both directions at once, the reading paused whenever the writing is behind. */
static void test_echo_with_pauses(void **state)
{
	struct echo_sender s = {.bytes = 8 << 20};
	pthread_t thread;

	harness_defaults(&h);
	h.up.pause_high = true;
	h.opts.sndbuf_bytes = 16384;
	harness_start(&h);
	s.fd = ws(4096);
	assert_int_equal(pthread_create(&thread, NULL, send_echoes, &s), 0);
	assert_true(read_plan(s.fd, s.bytes, true));
	pthread_join(thread, NULL);
	assert_true(harness_peek(&h, &h.stats->reads_paused) > 0);
	close(s.fd);
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_true(harness_stop(&h));
}

struct many {
	unsigned conns, each;
};

/* Queues of many buffers on many connections in one turn: more gathers than one submission takes.
 */
static void send_many(struct harness *harness, void *arg)
{
	struct many *m = arg;
	char text[3000]; /* a buffer each */

	for (unsigned k = 0; k < m->each; k++) {
		for (uint32_t slot = 0; slot < harness->w->ring[0]->used_high; slot++) {
			struct conn *c = harness_conn(harness, slot);

			memset(text, 'a' + (int)k % 26, sizeof text);
			memcpy(text, &k, sizeof k);
			memcpy(text + 4, &slot, sizeof slot);
			if (c->state == CONN_OPEN && conn_send(c, false, text, sizeof text))
				abort();
		}
	}
}

static void test_more_gathers_than_a_batch(void **state)
{
	struct many m = {700, 12};
	static int fds[700];

	harness_defaults(&h);
	harness_start(&h);
	for (unsigned i = 0; i < m.conns; i++)
		fds[i] = ws(0);
	harness_call(&h, send_many, &m);
	for (unsigned i = 0; i < m.conns; i++) {
		uint32_t slot = UINT32_MAX;

		for (unsigned k = 0; k < m.each; k++) {
			struct client_frame f;
			unsigned got;

			assert_true(client_ws_recv(fds[i], &f));
			assert_int_equal(f.len, 3000);
			memcpy(&got, f.data, sizeof got);
			assert_int_equal(got, k);
			memcpy(&got, f.data + 4, sizeof got);
			assert_true(slot == UINT32_MAX || slot == got);
			slot = got;
			free(f.data);
		}
	}
	for (unsigned i = 0; i < m.conns; i++)
		close(fds[i]);
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_true(harness_stop(&h));
}

struct flood {
	uint32_t bytes;
	unsigned sent;
	int err;
};

static void flood_last(struct harness *harness, void *arg)
{
	struct flood *f = arg;

	do {
		f->err = conn_send(harness->up.last, false, scratch, f->bytes);
		f->sent += !f->err;
	} while (!f->err && f->sent < 10000);
}

/* At the cap the connection ends with 1008; what was queued before goes out first. */
static void test_cap(void **state)
{
	struct flood f = {.bytes = 1000};
	struct client_frame frame;
	int fd;

	harness_defaults(&h);
	h.opts.limits[0].out_queue_bytes = 10 * 1004;
	harness_start(&h);
	fd = ws(0);
	harness_call(&h, flood_last, &f);
	assert_int_equal(f.err, -ENOBUFS);
	assert_int_equal(f.sent, 10);
	f.err = 0;
	harness_call(&h, flood_last, &f);
	assert_int_equal(f.err, -EPIPE);
	for (unsigned i = 0; i < 10; i++) {
		assert_true(client_ws_recv(fd, &frame));
		assert_int_equal(frame.len, 1000);
		free(frame.data);
	}
	assert_true(client_ws_closed_with(fd, WS_CLOSE_POLICY));
	assert_true(client_at_eof(fd));
	close(fd);
	assert_true(harness_wait(&h, &h.stats->closes[CLOSE_OUT_FULL], 1));
	assert_int_equal(harness_peek(&h, &h.up.reason), CLOSE_OUT_FULL);
	assert_int_equal(harness_peek(&h, &h.stats->sessions), 0);
	assert_true(harness_stop(&h));
}

/* The worker's cap on all buffers together: 1013, and whoever has nothing queued goes on. */
static void test_worker_cap(void **state)
{
	struct flood f = {.bytes = 10000};
	int slow, other;

	harness_defaults(&h);
	h.opts.conn.buffer_cap_bytes = 1 << 20;
	h.opts.conn.close_timeout_ms = 100;
	h.opts.sndbuf_bytes = 16384;
	harness_start(&h);
	other = ws(0);
	slow = ws(4096);
	harness_call(&h, flood_last, &f);
	assert_int_equal(f.err, -ENOBUFS);
	assert_true(f.sent >= 80 && f.sent <= 105);
	assert_true(harness_wait(&h, &h.stats->closes[CLOSE_NO_MEMORY], 1));
	assert_int_equal(harness_peek(&h, &h.net.bufs.bytes), 0);
	assert_true(client_ws_echo(other, "hello"));
	close(slow);
	close(other);
	assert_true(harness_stop(&h));
}

static void kill_last(struct harness *harness, void *arg)
{
	conn_kill(harness->up.last, CLOSE_KICKED);
}

static void send_and_kill(struct harness *harness, void *arg)
{
	flood_last(harness, arg);
	kill_last(harness, NULL);
	kill_last(harness, NULL); /* once is enough */
}

/* Killed with output queued, with a send blocked, and by the peer's reset: all is given back at
 * once. */
static void test_ends_while_blocked(void **state)
{
	harness_defaults(&h);
	h.opts.sndbuf_bytes = 16384;
	h.opts.limits[0].out_queue_bytes = 2 << 20;
	harness_start(&h);
	for (unsigned way = 0; way < 3; way++) {
		struct plan p = {.bytes = 1 << 20};
		struct flood f = {.bytes = 1000, .sent = 9900};
		int fd = ws(4096);

		if (way == 0) {
			harness_call(&h, send_and_kill, &f);
		} else {
			harness_call(&h, send_plan, &p);
			assert_true(harness_wait(&h, &h.stats->out_blocked, way));
			if (way == 1)
				harness_call(&h, kill_last, NULL);
			else
				client_reset(fd);
		}
		assert_true(harness_wait(&h, &h.stats->connections, 0));
		assert_int_equal(harness_peek(&h, &h.net.bufs.bytes), 0);
		assert_int_equal(harness_peek(&h, &h.net.aux.used), 0);
		if (way != 2)
			close(fd);
	}
	assert_int_equal(harness_peek(&h, &h.stats->closes[CLOSE_KICKED]), 2);
	assert_int_equal(harness_peek(&h, &h.stats->closes[CLOSE_RESET]), 1);
	assert_int_equal(harness_peek(&h, &h.up.closed), 3);
	assert_true(harness_stop(&h));
}

/* A blocked connection holds nobody up. */
static void test_others_go_on(void **state)
{
	struct plan p = {.bytes = 4 << 20};
	int other, slow;

	harness_defaults(&h);
	h.opts.sndbuf_bytes = 16384;
	harness_start(&h);
	other = ws(0);
	slow = ws(4096);
	harness_call(&h, send_plan, &p);
	for (unsigned i = 0; i < 100; i++)
		assert_true(client_ws_echo(other, "hello"));
	/* And the blocked one is still read. */
	assert_true(client_ws_send(slow, WS_TEXT, true, "are you there", 13));
	assert_true(harness_wait(&h, &h.up.messages, 101));
	assert_true(read_plan(slow, p.bytes, false));
	assert_true(client_ws_got(slow, "are you there"));
	close(slow);
	close(other);
	assert_true(harness_stop(&h));
}

/* A peer that pings and never reads gets no queue of answers without an end. */
static void test_pongs_count_towards_the_cap(void **state)
{
	uint8_t out[1 << 16];
	size_t len = 0;
	int fd;

	harness_defaults(&h);
	h.opts.sndbuf_bytes = 4096;
	h.opts.limits[0].pings_per_minute = 0;
	h.opts.limits[0].out_queue_bytes = 64 * 1024;
	h.opts.conn.close_timeout_ms = 50;
	harness_start(&h);
	fd = ws(4096);
	while (len + 140 < sizeof out)
		len += client_ws_frame(out + len, WS_PING, true, scratch, 125);
	for (unsigned i = 0; i < 1000 && client_write(fd, out, len); i++)
		;
	assert_true(harness_wait(&h, &h.stats->closes[CLOSE_OUT_FULL], 1));
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	close(fd);
	assert_true(harness_stop(&h));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order_through_a_slow_reader),
		cmocka_unit_test(test_echo_with_pauses),
		cmocka_unit_test(test_more_gathers_than_a_batch),
		cmocka_unit_test(test_cap),
		cmocka_unit_test(test_worker_cap),
		cmocka_unit_test(test_ends_while_blocked),
		cmocka_unit_test(test_others_go_on),
		cmocka_unit_test(test_pongs_count_towards_the_cap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
