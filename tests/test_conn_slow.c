/* Slow clients: what each policy leaves them, what is counted, and what happens when memory for
 * them runs short. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <errno.h>
#include <sys/socket.h>

#include "support/net_harness.h"

enum {
	MESSAGES = 600,
	MESSAGE_BYTES = 1000,
	TOPICS = 7,
	CAP_MESSAGES = 20,
	SNDBUF = 4096,
};

static struct harness h;

static int ws(int rcvbuf)
{
	int fd = client_connect(h.ports[0], rcvbuf);

	assert_int_equal(client_ws_open(fd, "/", NULL), 101);
	return fd;
}

/* Message i of a run: its number, its topic, and bytes that a torn message would not have. */
static void fill(uint8_t out[MESSAGE_BYTES], uint32_t i)
{
	memset(out, (int)(i % 251), MESSAGE_BYTES);
	memcpy(out, &i, sizeof i);
}

struct run {
	uint32_t from, to;
	bool frames; /* shared, with the topic as key; else of the connection's own */
	unsigned lost;
};

static void send_run(struct harness *harness, void *arg)
{
	struct run *r = arg;
	uint8_t data[MESSAGE_BYTES];

	for (uint32_t i = r->from; i < r->to; i++) {
		int err;

		fill(data, i);
		if (r->frames) {
			struct frame *f = conn_frame(&harness->net, CONN_WEBSOCKET, false,
				1 + i % TOPICS, data, sizeof data);

			if (!f)
				abort();
			err = conn_send_frame(harness->up.last, f);
			frame_unref(&harness->net.bufs, f);
		} else {
			err = conn_send(harness->up.last, false, data, sizeof data);
		}
		r->lost += err != 0;
	}
}

/* Reads what there is, in order and whole; ret_seen[i] says that message i came. */
static unsigned read_run(int fd, bool *ret_seen, uint32_t last)
{
	unsigned n = 0;
	uint32_t at = 0;

	for (;;) {
		uint8_t want[MESSAGE_BYTES];
		struct client_frame f;
		uint32_t i;

		assert_true(client_ws_recv(fd, &f));
		assert_int_equal(f.op, WS_BINARY);
		assert_int_equal(f.len, MESSAGE_BYTES);
		memcpy(&i, f.data, sizeof i);
		assert_true(i <= last && (n == 0 || i > at));
		fill(want, i);
		assert_memory_equal(f.data, want, MESSAGE_BYTES);
		free(f.data);
		ret_seen[i] = true;
		at = i;
		n++;
		if (i == last)
			return n;
	}
}

/* The client reads nothing while MESSAGES are sent, then everything, then one more comes. */
static unsigned slow_run(enum out_policy policy, bool frames, bool seen[MESSAGES + 1])
{
	struct run r = {0, MESSAGES, frames, 0}, end = {MESSAGES, MESSAGES + 1, frames, 0};
	uint64_t dropped;
	unsigned got;
	int fd;

	memset(seen, 0, (MESSAGES + 1) * sizeof *seen);
	harness_defaults(&h);
	h.opts.limits[0].out_policy = policy;
	h.opts.limits[0].out_queue_messages = CAP_MESSAGES;
	h.opts.sndbuf_bytes = SNDBUF;
	harness_start(&h);
	fd = ws(SNDBUF);
	harness_call(&h, send_run, &r);
	dropped = harness_peek(&h, &h.net.route_stats[0].dropped[policy]);
	assert_true(dropped > 0);
	assert_int_equal(harness_peek(&h, &h.stats->out_dropped), dropped);
	/* Room again, or the last one could be among the dropped. */
	if (policy == OUT_DROP_NEWEST) {
		uint32_t last = 0;

		while (last + 1 < CAP_MESSAGES) {
			struct client_frame f;

			assert_true(client_ws_recv(fd, &f));
			memcpy(&last, f.data, sizeof last);
			free(f.data);
			seen[last] = true;
		}
	}
	harness_call(&h, send_run, &end);
	assert_int_equal(end.lost, 0);
	got = read_run(fd, seen, MESSAGES);
	dropped = harness_peek(&h, &h.net.route_stats[0].dropped[policy]);
	for (uint32_t i = got = 0; i <= MESSAGES; i++)
		got += seen[i];
	assert_int_equal(got + dropped, MESSAGES + 1);
	assert_int_equal(harness_peek(&h, &h.net.bufs.bytes), 0);
	close(fd);
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_true(harness_stop(&h));
	return got;
}

static void test_drop_oldest(void **state)
{
	bool seen[MESSAGES + 1];

	(void)state;
	for (unsigned frames = 0; frames < 2; frames++) {
		slow_run(OUT_DROP_OLDEST, frames, seen);
		/* The newest are there but for a hole behind what the kernel had. Those that share
		 * an item go together, a page of them. */
		for (uint32_t i = MESSAGES - CAP_MESSAGES + 5; i <= MESSAGES; i++)
			assert_true(seen[i]);
	}
}

static void test_drop_newest(void **state)
{
	bool seen[MESSAGES + 1];

	(void)state;
	for (unsigned frames = 0; frames < 2; frames++) {
		slow_run(OUT_DROP_NEWEST, frames, seen);
		for (uint32_t i = 0; i < CAP_MESSAGES; i++)
			assert_true(seen[i]);
		assert_false(seen[MESSAGES - 1]);
	}
}

static void test_conflate(void **state)
{
	bool seen[MESSAGES + 1];
	unsigned got = slow_run(OUT_CONFLATE, true, seen);

	(void)state;
	/* The last of each topic; CAP_MESSAGES is more than there are topics. */
	for (uint32_t i = MESSAGES - TOPICS; i <= MESSAGES; i++)
		assert_true(seen[i]);
	assert_true(got < MESSAGES / 2);
}

static void test_disconnect(void **state)
{
	struct run r = {0, MESSAGES, true, 0};
	char sink[4096];
	ssize_t got;
	int fd;

	(void)state;
	harness_defaults(&h);
	h.opts.limits[0].out_queue_messages = CAP_MESSAGES;
	h.opts.conn.close_timeout_ms = 100;
	h.opts.sndbuf_bytes = SNDBUF;
	harness_start(&h);
	fd = ws(SNDBUF);
	harness_call(&h, send_run, &r);
	assert_int_equal(r.lost, MESSAGES - CAP_MESSAGES);
	assert_int_equal(harness_peek(&h, &h.net.route_stats[0].dropped[OUT_DISCONNECT]), 1);
	assert_true(harness_wait(&h, &h.stats->closes[CLOSE_OUT_FULL], 1));
	assert_int_equal(harness_peek(&h, &h.net.bufs.bytes), 0);
	/* Reset: the kernel keeps nothing for it either. */
	while ((got = recv(fd, sink, sizeof sink, 0)) > 0)
		;
	assert_int_equal(got, -1);
	assert_int_equal(errno, ECONNRESET);
	close(fd);
	assert_true(harness_stop(&h));
}

struct large {
	uint32_t bytes;
	int err;
};

static void send_large(struct harness *harness, void *arg)
{
	static uint8_t data[100 * 1000];
	struct run few = {0, 5, true, 0};
	struct large *l = arg;

	send_run(harness, &few);
	l->err = conn_send(harness->up.last, false, data, l->bytes);
}

/* A message that no queue of the route could hold costs none that are there. */
static void test_one_too_large(void **state)
{
	struct large l = {100 * 1000, 0};
	bool seen[MESSAGES + 1] = {false};
	int fd;

	(void)state;
	harness_defaults(&h);
	h.opts.limits[0].out_policy = OUT_DROP_OLDEST;
	h.opts.limits[0].out_queue_bytes = 50 * 1000;
	harness_start(&h);
	fd = ws(0);
	harness_call(&h, send_large, &l);
	assert_int_equal(l.err, -ENOBUFS);
	assert_int_equal(read_run(fd, seen, 4), 5);
	assert_int_equal(harness_peek(&h, &h.stats->out_dropped), 1);
	close(fd);
	assert_true(harness_stop(&h));
}

/* ------------------------------------------------------------------------------- shortage */

struct crowd {
	unsigned each; /* messages to every open connection but the first, by 1, 2, 3 … times */
	unsigned conns;
};

static void send_crowd(struct harness *harness, void *arg)
{
	struct crowd *c = arg;
	uint8_t data[MESSAGE_BYTES] = {0};

	for (uint32_t slot = 0; slot < harness->w->ring[0]->used_high; slot++) {
		struct conn *conn = harness_conn(harness, slot);

		if (conn->state != CONN_OPEN || slot == 0)
			continue;
		for (unsigned i = 0; i < c->each * slot; i++)
			conn_send(conn, false, data, sizeof data);
	}
}

static void start_short(uint64_t cap_bytes)
{
	harness_defaults(&h);
	h.opts.limits[0].out_policy = OUT_DROP_OLDEST;
	h.opts.conn.buffer_cap_bytes = cap_bytes;
	h.opts.sndbuf_bytes = SNDBUF;
}

/* Above high water those who hold most go first; who has no backlog does not notice. */
static void test_shed_the_greatest(void **state)
{
	struct crowd c = {.each = 30};
	int fds[10], witness;

	(void)state;
	start_short(1 << 20);
	harness_start(&h);
	witness = ws(0);
	for (unsigned i = 0; i < 10; i++)
		fds[i] = ws(SNDBUF);
	harness_call(&h, send_crowd, &c);
	for (unsigned i = 0; i < 100; i++)
		assert_true(client_ws_echo(witness, "hello"));
	assert_true(harness_peek(&h, &h.stats->closes[CLOSE_SHED]) >= 1);
	assert_true(harness_peek(&h, &h.stats->closes[CLOSE_SHED]) <= 8);
	assert_true(harness_peek(&h, &h.net.bufs.bytes) <= (1 << 20) / 8 * 7);
	/* The smallest backlogs are still there. */
	for (unsigned i = 0; i < 2; i++) {
		struct client_frame f;

		assert_true(client_ws_recv(fds[i], &f));
		assert_int_equal(f.len, MESSAGE_BYTES);
		free(f.data);
	}
	for (unsigned i = 0; i < 10; i++)
		close(fds[i]);
	close(witness);
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_true(harness_stop(&h));
}

/* Another worker has most of what all may have together: this one, above its share too, gives way.
 */
static void test_total_cap(void **state)
{
	static struct tg_worker_stats workers[2];
	struct crowd c = {.each = 60};
	int fds[10], witness;

	(void)state;
	start_short(256 << 20);
	memset(workers, 0, sizeof workers);
	workers[1].heap_bytes = 900 * 1024;
	h.opts.conn.buffer_total_bytes = 2 << 20;
	h.opts.conn.workers = workers;
	h.opts.conn.n_workers = 2;
	harness_start(&h);
	witness = ws(0);
	for (unsigned i = 0; i < 10; i++)
		fds[i] = ws(SNDBUF);
	/* The cap is looked at once a millisecond: rounds faster than that would only drop. */
	for (unsigned round = 0;
	     round < 20 || (round < 1000 && !harness_peek(&h, &h.stats->closes[CLOSE_SHED]));
	     round++) {
		uint64_t bytes;

		harness_call(&h, send_crowd, &c);
		bytes = harness_peek(&h, &h.net.bufs.bytes);
		assert_true(bytes + workers[1].heap_bytes <= 2 << 20);
		assert_true(client_ws_echo(witness, "hello"));
		client_sleep_ms(1);
	}
	assert_true(harness_peek(&h, &h.stats->out_dropped) > 0);
	assert_true(harness_peek(&h, &h.stats->closes[CLOSE_SHED]) > 0);
	assert_int_equal(harness_peek(&h, &h.stats->closes[CLOSE_NO_MEMORY]), 0);
	for (unsigned i = 0; i < 10; i++)
		close(fds[i]);
	close(witness);
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_true(harness_stop(&h));
}

/* One frame in many queues: written once, given back when the last has sent it. */
struct fan {
	unsigned conns;
	uint64_t bytes;
};

static void send_fan(struct harness *harness, void *arg)
{
	struct fan *fan = arg;
	struct frame *f;
	char text[100];

	memset(text, 'x', sizeof text);
	f = conn_frame(&harness->net, CONN_WEBSOCKET, true, 1, text, sizeof text);
	if (!f)
		abort();
	for (uint32_t slot = 0; slot < harness->w->ring[0]->used_high; slot++) {
		struct conn *c = harness_conn(harness, slot);

		if (c->state == CONN_OPEN && conn_send_frame(c, f) == 0)
			fan->conns++;
	}
	fan->bytes = harness->net.bufs.bytes;
	frame_unref(&harness->net.bufs, f);
}

static void test_one_frame_for_all(void **state)
{
	struct fan fan = {0};
	int fds[100];

	(void)state;
	harness_defaults(&h);
	harness_start(&h);
	for (unsigned i = 0; i < 100; i++)
		fds[i] = ws(0);
	harness_call(&h, send_fan, &fan);
	assert_int_equal(fan.conns, 100);
	assert_true(fan.bytes <= 100 * BUF_TINY_BYTES + BUF_SMALL_BYTES);
	for (unsigned i = 0; i < 100; i++) {
		struct client_frame f;

		assert_true(client_ws_recv(fds[i], &f));
		assert_int_equal(f.op, WS_TEXT);
		assert_int_equal(f.len, 100);
		free(f.data);
		close(fds[i]);
	}
	assert_int_equal(harness_peek(&h, &h.net.bufs.bytes), 0);
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_true(harness_stop(&h));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_drop_oldest),
		cmocka_unit_test(test_drop_newest),
		cmocka_unit_test(test_conflate),
		cmocka_unit_test(test_disconnect),
		cmocka_unit_test(test_one_too_large),
		cmocka_unit_test(test_shed_the_greatest),
		cmocka_unit_test(test_total_cap),
		cmocka_unit_test(test_one_frame_for_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
