#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <pthread.h>

#include "support/net_harness.h"

static struct harness h;

static int ws(void)
{
	int fd = client_connect(h.ports[0], 0);

	assert_int_equal(client_ws_open(fd, "/", NULL), 101);
	return fd;
}

/* One that talked a moment ago: a multishot receive is armed. */
static int active_ws(void)
{
	int fd = ws();

	assert_true(client_ws_echo(fd, "hello"));
	return fd;
}

/* What one connection sends must arrive complete and in order: byte i of the stream is pattern(i).
 */
static uint8_t pattern(uint64_t i)
{
	return (uint8_t)(i ^ i >> 8 ^ i >> 16);
}

struct stream {
	uint64_t bytes;
	bool broken;
	unsigned most_buffers; /* greatest in_count seen */
};

static bool check_stream(
	struct harness *harness, struct conn *c, bool text, uint8_t *data, size_t len)
{
	struct stream *s = harness->user;

	for (size_t i = 0; i < len; i++)
		s->broken |= data[i] != pattern(s->bytes + i);
	s->bytes += len;
	if (c->in_count > s->most_buffers)
		s->most_buffers = c->in_count;
	return true;
}

struct sender {
	int fd;
	uint64_t bytes;
	size_t message;
};

static void *send_stream(void *arg)
{
	struct sender *s = arg;
	uint8_t *data = malloc(s->message);

	for (uint64_t at = 0; at < s->bytes; at += s->message) {
		for (size_t i = 0; i < s->message; i++)
			data[i] = pattern(at + i);
		if (!client_ws_send(s->fd, WS_BINARY, true, data, s->message))
			break;
	}
	free(data);
	return NULL;
}

/* Sends a stream from a thread of its own and waits until the upstream has it all. */
static void stream(size_t message, uint64_t bytes)
{
	struct stream seen = {0};
	struct sender s = {.bytes = bytes, .message = message};
	pthread_t thread;

	h.user = &seen;
	h.up.message = check_stream;
	harness_start(&h);
	s.fd = ws();
	assert_int_equal(pthread_create(&thread, NULL, send_stream, &s), 0);
	assert_true(harness_wait(&h, &seen.bytes, bytes));
	pthread_join(thread, NULL);
	assert_false(seen.broken);
	assert_int_equal(harness_peek(&h, &h.up.messages), bytes / message);
	close(s.fd);
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_true(harness_stop(&h));
}

static void test_streams(void **state)
{
	static const struct {
		unsigned buffers, bytes;
		size_t message;
	} cases[] = {
		{64, 2048, 1000},
		{64, 2048, 1 << 20},
		{16, 256, 100},
		{16, 65536, 64}, /* 65536 does not fit 16 bits */
		{16, 65536, 1 << 20},
		{4096, 256, 256}, /* one connection could take hundreds of buffers */
		{4096, 256, 1 << 20},
	};

	for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		harness_defaults(&h);
		h.opts.worker.ring.buffers = cases[i].buffers;
		h.opts.worker.ring.buffer_bytes = cases[i].bytes;
		stream(cases[i].message,
			cases[i].message < 1000 ? cases[i].message * 10000 : cases[i].message * 8);
	}
}

/* While the worker is busy, one connection can fill buffer after buffer of everybody's, hundreds of
 * them: its receive is then cancelled, and it gets one at a time after that. Nothing of it is lost.
 */
static void test_greed_is_limited(void **state)
{
	struct stream seen = {0};
	struct conn copy;
	uint8_t *data = malloc(1 << 20);
	int fd;

	harness_defaults(&h);
	h.opts.worker.ring.buffers = 1024;
	h.opts.worker.ring.buffer_bytes = 256;
	h.up.message = check_stream;
	h.user = &seen;
	harness_start(&h);
	fd = ws();
	for (size_t i = 0; i < 1 << 20; i++)
		data[i] = pattern(i);
	assert_true(client_ws_send(fd, WS_BINARY, true, data, 10));
	assert_true(harness_wait(&h, &seen.bytes, 10));
	for (unsigned round = 0; round < 4; round++) {
		harness_hold(&h);
		for (unsigned i = 0; i < 100; i++) {
			for (unsigned k = 0; k < 1000; k++)
				data[k] = pattern(10 + round * 100000 + i * 1000 + k);
			assert_true(client_ws_send(fd, WS_BINARY, true, data, 1000));
		}
		harness_release(&h);
		assert_true(harness_wait(&h, &seen.bytes, 10 + (round + 1) * 100000));
	}
	assert_false(seen.broken);
	harness_copy(&h, &copy, harness_conn(&h, 0), sizeof copy);
	assert_true(copy.flags & CONN_GREEDY);
	assert_true(seen.most_buffers >= CONN_IN_MAX);
	close(fd);
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_true(harness_stop(&h));
	free(data);
}

enum {
	TALKERS = 200
};

/* Talkers who all say something at once, again and again, and are answered; the harness is as the
 * caller made it. The most chunks that medium-sized blocks were seen to take. */
static uint64_t talk(int fds[TALKERS], int width)
{
	enum {
		ROUNDS = 20
	};
	uint64_t most = 0, chunks;
	char text[2048];

	harness_start(&h);
	for (unsigned i = 0; i < TALKERS; i++)
		fds[i] = active_ws();
	for (unsigned round = 0; round < ROUNDS; round++) {
		harness_hold(&h);
		for (unsigned i = 0; i < TALKERS; i++) {
			snprintf(text, sizeof text, "round %u, talker %-*u", round, width, i);
			assert_true(client_ws_send(fds[i], WS_TEXT, true, text, strlen(text)));
		}
		harness_release(&h);
		for (unsigned i = 0; i < TALKERS; i++) {
			snprintf(text, sizeof text, "round %u, talker %-*u", round, width, i);
			assert_true(client_ws_got(fds[i], text));
		}
		chunks = harness_peek(&h, &h.net.bufs.medium.chunks);
		most = chunks > most ? chunks : most;
	}
	return most;
}

/* 200 talkers, 16 buffers: receives starve, and everybody is served all the same. */
static void test_starvation(void **state)
{
	static int fds[TALKERS];

	harness_defaults(&h);
	h.opts.worker.ring.buffers = 16;
	h.opts.worker.ring.buffer_bytes = 256;
	talk(fds, 200);
	assert_true(harness_peek(&h, &h.stats->recv_no_buffer) > TALKERS);
	assert_int_equal(harness_peek(&h, &h.stats->recv_copied), 0);
	/* Some of them die while they wait for a buffer. */
	harness_hold(&h);
	for (unsigned i = 0; i < TALKERS; i++) {
		assert_true(client_ws_send(fds[i], WS_TEXT, true, "last", 4));
		if (i % 2)
			client_reset(fds[i]);
		else
			close(fds[i]);
	}
	harness_release(&h);
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_int_equal(harness_peek(&h, &h.up.closed), TALKERS);
	assert_true(harness_stop(&h));
}

/* Room in buffers, but not for so many pieces: what exceeds them waits in memory of its own. */
static void test_pieces_run_out(void **state)
{
	static int fds[TALKERS];

	harness_defaults(&h);
	h.opts.worker.ring.pieces = 3;
	talk(fds, 200);
	assert_int_equal(harness_peek(&h, &h.stats->recv_no_buffer), 0);
	assert_true(harness_peek(&h, &h.stats->recv_copied) > TALKERS / 2);
	for (unsigned i = 0; i < TALKERS; i++)
		close(fds[i]);
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_true(harness_stop(&h));
}

/* The memory of hundreds of answers stays while they come, and goes when they have ceased. */
static void test_memory_is_given_back(void **state)
{
	static int fds[TALKERS];

	harness_defaults(&h);
	assert_true(talk(fds, 1000) > 5);
	assert_true(harness_wait(&h, &h.net.bufs.medium.chunks, 1));
	for (unsigned i = 0; i < TALKERS; i++)
		close(fds[i]);
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_true(harness_stop(&h));
}

static unsigned most_out;

static int watch_hello(struct conn *c, const struct conn_hello *hello, struct conn_answer *ret)
{
	struct harness *harness = harness_of(c);

	if (harness->w->ring[0]->buf_out > most_out)
		most_out = harness->w->ring[0]->buf_out;
	return harness_on_hello(c, hello, ret);
}

/* Newcomers wait for their turn without the buffers that sessions need meanwhile. */
static void test_newcomers_hold_no_buffers(void **state)
{
	enum {
		NEWCOMERS = 100,
		BUFFERS = 16
	};
	struct conn_ops ops = harness_conn_ops;
	char request[CLIENT_HEAD_BYTES];
	int fds[NEWCOMERS];

	most_out = 0;
	ops.hello = watch_hello;
	harness_defaults(&h);
	h.opts.ops = &ops;
	h.opts.worker.ring.buffers = BUFFERS;
	harness_start(&h);
	client_ws_request(request, sizeof request, "/", NULL);
	harness_hold(&h);
	for (unsigned i = 0; i < NEWCOMERS; i++) {
		fds[i] = client_connect(h.ports[0], 0);
		assert_true(client_write(fds[i], request, strlen(request)));
	}
	harness_release(&h);
	for (unsigned i = 0; i < NEWCOMERS; i++) {
		assert_int_equal(client_read_head(fds[i], NULL, 0), 101);
		assert_true(client_ws_echo(fds[i], "hello"));
		close(fds[i]);
	}
	assert_true(most_out <= BUFFERS / 4);
	assert_true(harness_stop(&h));
}

static void starve_first(struct harness *harness, void *arg)
{
	struct conn *c = harness_conn(harness, 0);

	c->flags |= CONN_STARVED;
	ring_starve(harness->w->ring[0], 0, false);
}

static void no_reply(struct harness *harness, void *arg)
{
	harness->up.open = -EINPROGRESS;
}

static void accept_last(struct harness *harness, void *arg)
{
	conn_accept(harness->up.last, NULL);
}

/* A receive may be found starved only after the buffers that it lacked have all come back: it must
 * not wait for others to come back after them. */
static void test_starved_with_buffers_free(void **state)
{
	char request[CLIENT_HEAD_BYTES];
	int fd;

	harness_defaults(&h);
	harness_start(&h);
	harness_call(&h, no_reply, NULL);
	fd = client_connect(h.ports[0], 0);
	client_ws_request(request, sizeof request, "/", NULL);
	assert_true(client_write(fd, request, strlen(request)));
	assert_true(harness_wait(&h, &h.up.opens, 1));
	/* Nothing is armed on it while it is OPENING. */
	harness_call(&h, starve_first, NULL);
	harness_call(&h, accept_last, NULL);
	assert_int_equal(client_read_head(fd, NULL, 0), 101);
	assert_true(client_ws_echo(fd, "hello"));
	close(fd);
	assert_true(harness_stop(&h));
}

static bool pause_each(
	struct harness *harness, struct conn *c, bool text, uint8_t *data, size_t len)
{
	return false;
}

static void resume_first(struct harness *harness, void *arg)
{
	conn_resume(harness_conn(harness, 0));
}

/* A paused connection takes in no more than what was on its way; resumed, it goes on in order. */
static void test_pause_and_resume(void **state)
{
	uint8_t data[1000];
	struct conn copy;
	uint64_t taken;
	int fd;

	harness_defaults(&h);
	h.opts.worker.ring.buffers = 256;
	h.up.message = pause_each;
	harness_start(&h);
	fd = ws();
	for (unsigned i = 0; i < 2000; i++) {
		memset(data, (int)i, sizeof data);
		uint8_t frame[sizeof data + WS_HEADER_MAX];
		size_t len = client_ws_frame(frame, WS_BINARY, true, data, sizeof data);

		if (send(fd, frame, len, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)len)
			break;
	}
	assert_true(harness_wait(&h, &h.up.messages, 1));
	client_sleep_ms(20);
	harness_copy(&h, &copy, harness_conn(&h, 0), sizeof copy);
	assert_true(copy.flags & CONN_PAUSED);
	assert_int_equal(copy.armed, 0);
	assert_int_equal(copy.in_count, 0); /* what it keeps, it keeps in memory of its own */
	taken = harness_peek(&h, &h.stats->bytes_in);
	assert_true(taken < 200 * 2048);
	for (unsigned i = 2; i < 40; i++) {
		harness_call(&h, resume_first, NULL);
		assert_true(harness_wait(&h, &h.up.messages, i));
	}
	harness_call(&h, resume_first, NULL);
	close(fd);
	for (unsigned i = 0; i < 5; i++)
		harness_call(&h, resume_first, NULL);
	assert_true(harness_stop(&h));
}

/* Messages and the FIN in one batch: the messages count, and what they were answered with still
 * goes out. */
static void test_end_behind_messages(void **state)
{
	struct client_frame f;
	uint8_t out[256];
	size_t len = 0;
	int fd;

	harness_defaults(&h);
	harness_start(&h);
	for (unsigned way = 0; way < 2; way++) {
		fd = active_ws();
		len = client_ws_frame(out, WS_TEXT, true, "one", 3);
		len += client_ws_frame(out + len, WS_TEXT, true, "two", 3);
		if (way)
			len += client_ws_frame(out + len, WS_CLOSE, true, "\x03\xe8", 2);
		harness_hold(&h);
		assert_true(client_write(fd, out, len));
		shutdown(fd, SHUT_WR);
		harness_release(&h);
		assert_true(client_ws_got(fd, "one"));
		assert_true(client_ws_got(fd, "two"));
		if (way) {
			assert_true(client_ws_recv(fd, &f));
			assert_int_equal(f.op, WS_CLOSE);
			free(f.data);
		}
		assert_true(client_at_eof(fd));
		close(fd);
		assert_true(harness_wait(&h, &h.stats->connections, 0));
		assert_int_equal(harness_peek(&h, &h.up.reason), CLOSE_CLIENT);
		assert_int_equal(
			harness_peek(&h, &h.up.code), way ? WS_CLOSE_NORMAL : WS_CLOSE_ABNORMAL);
	}
	assert_int_equal(harness_peek(&h, &h.up.closed), 2);
	assert_true(harness_stop(&h));
}

/* The end of a connection that is paused with input kept waits for its turn; a reset does not. */
static void test_end_while_paused(void **state)
{
	uint8_t out[256];
	size_t len;
	int fd;

	harness_defaults(&h);
	h.up.message = pause_each;
	harness_start(&h);
	len = client_ws_frame(out, WS_TEXT, true, "one", 3);
	len += client_ws_frame(out + len, WS_TEXT, true, "two", 3);
	for (unsigned way = 0; way < 2; way++) {
		fd = ws();
		assert_true(client_write(fd, out, len));
		assert_true(harness_wait(&h, &h.up.messages, 2 * way + 1));
		if (way)
			client_reset(fd);
		else
			close(fd);
		client_sleep_ms(10);
		harness_call(&h, resume_first, NULL);
		assert_true(harness_wait(&h, &h.up.messages, 2 * way + 2));
		harness_call(&h, resume_first, NULL);
		assert_true(harness_wait(&h, &h.stats->connections, 0));
	}
	assert_int_equal(harness_peek(&h, &h.up.closed), 2);
	assert_true(harness_stop(&h));
}

/* One turn is 64 frames, however many buffers they came in: who waits behind a talker waits for no
 * more than that. */
static void test_turn_budget(void **state)
{
	enum {
		FRAMES = 400
	};
	uint8_t *out = malloc(FRAMES * 64);
	uint32_t slot;
	size_t len = 0;
	unsigned run = 0;
	int talker, other;

	harness_defaults(&h);
	h.opts.worker.ring.buffer_bytes = 256; /* a few frames each */
	h.opts.worker.turn_us = 100000;
	h.opts.worker.slice_us = 100000;
	h.up.echo = false;
	harness_start(&h);
	talker = ws();
	other = ws();
	assert_true(client_ws_send(talker, WS_TEXT, true, "a", 1));
	assert_true(harness_wait(&h, &h.up.messages, 1));
	assert_true(client_ws_send(other, WS_TEXT, true, "b", 1));
	assert_true(harness_wait(&h, &h.up.messages, 2));
	for (unsigned i = 0; i < FRAMES; i++)
		len += client_ws_frame(out + len, WS_TEXT, true, "x", 1);
	harness_hold(&h);
	assert_true(client_write(talker, out, len));
	assert_true(client_ws_send(other, WS_TEXT, true, "b", 1));
	harness_release(&h);
	assert_true(harness_wait(&h, &h.up.messages, FRAMES + 3));
	slot = h.up.order[1];
	for (unsigned i = 2; i < FRAMES + 3 && h.up.order[i] != slot; i++)
		run++;
	assert_true(run <= 64);
	assert_true(harness_peek(&h, &h.stats->forced_yields) >= FRAMES / 64);
	close(talker);
	close(other);
	assert_true(harness_stop(&h));
	free(out);
}

struct passing {
	int other; /* who begins to speak at the talker's message number `at` */
	unsigned at, messages, heard;
};

static bool speak_meanwhile(
	struct harness *harness, struct conn *c, bool text, uint8_t *data, size_t len)
{
	struct passing *p = harness->user;

	if (*data == 'b')
		p->heard = p->messages;
	else if (++p->messages == p->at)
		client_ws_send(p->other, WS_TEXT, true, "b", 1);
	return true;
}

/* Nor does one wait for more who speaks while a talker has everything for a whole slice at hand. */
static void test_turn_ends_the_slice(void **state)
{
	enum {
		FRAMES = 8000
	};
	struct passing p = {.at = FRAMES};
	uint8_t *out = malloc(FRAMES * 16);
	size_t len = 0;
	int talker;

	harness_defaults(&h);
	h.opts.worker.ring.buffer_bytes = 8192;
	h.opts.worker.turn_us = 1000000;
	h.opts.worker.slice_us = 10000000;
	h.up.message = speak_meanwhile;
	h.user = &p;
	harness_start(&h);
	talker = ws();
	p.other = ws();
	assert_true(client_ws_send(talker, WS_TEXT, true, "a", 1));
	assert_true(client_ws_send(p.other, WS_TEXT, true, "a", 1));
	assert_true(harness_wait(&h, &h.up.messages, 2));
	for (unsigned i = 0; i < FRAMES; i++)
		len += client_ws_frame(out + len, WS_TEXT, true, "a", 1);
	harness_hold(&h);
	p.messages = 0;
	p.at = 1000;
	assert_true(client_write(talker, out, len));
	harness_release(&h);
	assert_true(harness_wait(&h, &h.up.messages, 2 + FRAMES + 1));
	assert_true(p.heard > p.at);
	assert_true(p.heard - p.at <= 2 * 64);
	close(talker);
	close(p.other);
	assert_true(harness_stop(&h));
	free(out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_streams),
		cmocka_unit_test(test_greed_is_limited),
		cmocka_unit_test(test_starvation),
		cmocka_unit_test(test_pieces_run_out),
		cmocka_unit_test(test_memory_is_given_back),
		cmocka_unit_test(test_newcomers_hold_no_buffers),
		cmocka_unit_test(test_starved_with_buffers_free),
		cmocka_unit_test(test_pause_and_resume),
		cmocka_unit_test(test_end_behind_messages),
		cmocka_unit_test(test_end_while_paused),
		cmocka_unit_test(test_turn_budget),
		cmocka_unit_test(test_turn_ends_the_slice),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
