#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "support/net_harness.h"

static struct harness h;

static int ws(void)
{
	int fd = client_connect(h.ports[0], 0);

	assert_int_equal(client_ws_open(fd, "/", NULL), 101);
	return fd;
}

static void close_last(struct harness *harness, void *arg)
{
	conn_close(harness->up.last, 4001, "that is all", CLOSE_KICKED);
	conn_close(harness->up.last, 4002, "twice", CLOSE_DRAIN); /* no effect */
}

/* The client closes: its code comes back, then our FIN, whatever it sent behind its close frame. */
static void test_client_closes(void **state)
{
	uint8_t out[64];
	size_t len;
	int fd;

	harness_defaults(&h);
	harness_start(&h);
	for (unsigned i = 0; i < 3; i++) {
		static const struct {
			const char *payload;
			size_t len, code;
		} closes[] = {{"\x03\xe8", 2, 1000},
			{"\x0f\xa0"
			 "bye",
				5, 4000},
			{"", 0, WS_CLOSE_NO_STATUS}};
		struct client_frame f;

		fd = ws();
		len = client_ws_frame(out, WS_CLOSE, true, closes[i].payload, closes[i].len);
		assert_true(client_write(fd, out, len));
		assert_true(client_ws_recv(fd, &f));
		assert_int_equal(f.op, WS_CLOSE);
		assert_int_equal(f.len, closes[i].len ? 2 : 0);
		if (f.len)
			assert_int_equal(f.data[0] << 8 | f.data[1], closes[i].code);
		free(f.data);
		assert_true(client_at_eof(fd));
		close(fd);
		assert_true(harness_wait(&h, &h.stats->connections, 0));
		assert_int_equal(harness_peek(&h, &h.up.code), closes[i].code);
		assert_int_equal(harness_peek(&h, &h.up.reason), CLOSE_CLIENT);
		if (i == 1)
			assert_string_equal(h.up.text, "bye");
	}
	assert_int_equal(harness_peek(&h, &h.stats->closes[CLOSE_CLIENT]), 3);
	assert_int_equal(harness_peek(&h, &h.stats->sessions), 0);
	assert_true(harness_stop(&h));
}

/* We close: the client reads the close frame and our FIN, may still send, and ends the connection
 * by its own. */
static void test_gateway_closes(void **state)
{
	int fd;

	harness_defaults(&h);
	harness_start(&h);
	fd = ws();
	harness_call(&h, close_last, NULL);
	assert_int_equal(harness_peek(&h, &h.up.closed), 1);
	assert_int_equal(harness_peek(&h, &h.up.code), 4001);
	assert_int_equal(harness_peek(&h, &h.stats->sessions), 0);
	assert_true(client_ws_closed_with(fd, 4001));
	assert_true(client_at_eof(fd));
	assert_true(client_ws_send(fd, WS_TEXT, true, "in flight", 9));
	assert_true(client_ws_send_close(fd, 4001));
	client_sleep_ms(5);
	assert_int_equal(harness_peek(&h, &h.stats->connections), 1);
	assert_int_equal(harness_peek(&h, &h.up.messages), 0);
	close(fd);
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_int_equal(harness_peek(&h, &h.stats->closes[CLOSE_KICKED]), 1);
	assert_int_equal(harness_peek(&h, &h.up.closed), 1);
	assert_true(harness_stop(&h));
}

static void test_raw_closes(void **state)
{
	struct client_frame f;
	int fd;

	harness_defaults(&h);
	h.opts.listeners[0].protocol = CONN_RAW;
	harness_start(&h);
	fd = client_connect(h.ports[0], 0);
	assert_true(client_raw_open(fd, "/", NULL));
	assert_true(client_raw_send(fd, TG_RAW_CLOSE, "\x0f\xa0why", 5));
	assert_true(client_raw_recv(fd, &f));
	assert_int_equal(f.op, TG_RAW_CLOSE);
	assert_int_equal(f.data[0] << 8 | f.data[1], 4000);
	free(f.data);
	assert_true(client_at_eof(fd));
	close(fd);
	assert_true(harness_wait(&h, &h.up.closed, 1));
	assert_int_equal(harness_peek(&h, &h.up.code), 4000);

	fd = client_connect(h.ports[0], 0);
	assert_true(client_raw_open(fd, "/", NULL));
	harness_call(&h, close_last, NULL);
	assert_true(client_raw_recv(fd, &f));
	assert_int_equal(f.op, TG_RAW_CLOSE);
	assert_int_equal(f.data[0] << 8 | f.data[1], 4001);
	free(f.data);
	assert_true(client_at_eof(fd));
	close(fd);
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_true(harness_stop(&h));
}

/* ---------------------------------------------------------------- every state */

enum stage {
	IN_PROXY,     /* part of a PROXY header came */
	IN_HANDSHAKE, /* part of a request */
	IN_OPENING,   /* request and an early message */
	IN_OPEN_IDLE,
	IN_OPEN_ACTIVE,
	IN_MESSAGE, /* part of a fragmented message, inside a frame */
	IN_CONTROL, /* part of a ping's payload */
	IN_PAUSE,   /* with input kept */
	IN_BLOCKED, /* a full out queue */
	IN_CLOSING, /* our FIN was sent, theirs is awaited */
	IN_CLOSING_BLOCKED,
	STAGES,
};

static uint8_t much[1 << 20];

static void send_much(struct harness *harness, void *arg)
{
	if (conn_send(harness->up.last, false, much, sizeof much))
		abort();
}

static void set_opening(struct harness *harness, void *arg)
{
	harness->up.open = *(int *)arg;
}

static void set_pausing(struct harness *harness, void *arg)
{
	harness->up.pause_always = *(bool *)arg;
}

static void stage_opts(void)
{
	static const struct conn_prefix all = {.len = 0};

	harness_defaults(&h);
	h.opts.n_listeners = 2;
	h.opts.listeners[1].proxy_protocol = true;
	h.opts.listeners[1].proxy_from = &all;
	h.opts.listeners[1].n_proxy_from = 1;
	h.opts.sndbuf_bytes = 16384;
}

/* Brings a new connection there; its client socket. */
static int reach(enum stage stage)
{
	uint64_t opens = harness_peek(&h, &h.up.opens), messages = harness_peek(&h, &h.up.messages);
	uint64_t blocked = harness_peek(&h, &h.stats->out_blocked), bytes;
	int fd = client_connect(h.ports[stage == IN_PROXY], 4096), opening = -EINPROGRESS;
	uint8_t out[1024];
	size_t len;
	bool yes = true;

	assert_true(fd >= 0);
	if (stage == IN_PROXY || stage == IN_HANDSHAKE) {
		bytes = harness_peek(&h, &h.stats->bytes_in);
		assert_true(client_write(fd, "PROXY TCP4 ", stage == IN_PROXY ? 11 : 2));
		assert_true(
			harness_wait(&h, &h.stats->bytes_in, bytes + (stage == IN_PROXY ? 11 : 2)));
		return fd;
	}
	if (stage == IN_OPENING)
		harness_call(&h, set_opening, &opening);
	if (stage == IN_PAUSE)
		harness_call(&h, set_pausing, &yes);
	len = (size_t)client_ws_request((char *)out, sizeof out, "/", NULL);
	if (stage == IN_OPENING)
		len += client_ws_frame(out + len, WS_TEXT, true, "early", 5);
	assert_true(client_write(fd, out, len));
	assert_true(harness_wait(&h, &h.up.opens, opens + 1));
	if (stage == IN_OPENING) {
		opening = 0;
		harness_call(&h, set_opening, &opening);
		return fd;
	}
	assert_int_equal(client_read_head(fd, NULL, 0), 101);
	if (stage >= IN_OPEN_ACTIVE && stage != IN_PAUSE)
		assert_true(client_ws_echo(fd, "hello"));
	bytes = harness_peek(&h, &h.stats->bytes_in);
	switch (stage) {
	case IN_MESSAGE:
		len = client_ws_frame(out, WS_TEXT, false, "abc", 3);
		len += client_ws_frame(out + len, WS_CONTINUATION, true, "defghij", 7) - 3;
		break;
	case IN_CONTROL:
		len = client_ws_frame(out, WS_PING, true, "abcdef", 6) - 3;
		break;
	case IN_PAUSE:
		len = client_ws_frame(out, WS_TEXT, true, "one", 3);
		len += client_ws_frame(out + len, WS_TEXT, true, "two", 3);
		break;
	case IN_BLOCKED:
	case IN_CLOSING_BLOCKED:
		harness_call(&h, send_much, NULL);
		assert_true(harness_wait(&h, &h.stats->out_blocked, blocked + 1));
		len = 0;
		break;
	default:
		len = 0;
	}
	if (len) {
		assert_true(client_write(fd, out, len));
		assert_true(harness_wait(&h, &h.stats->bytes_in, bytes + len));
	}
	if (stage == IN_PAUSE) {
		assert_true(harness_wait(&h, &h.up.messages, messages + 1));
		yes = false;
		harness_call(&h, set_pausing, &yes);
	}
	if (stage == IN_CLOSING || stage == IN_CLOSING_BLOCKED)
		harness_call(&h, close_last, NULL);
	if (stage == IN_CLOSING)
		assert_true(client_ws_closed_with(fd, 4001) && client_at_eof(fd));
	return fd;
}

static void kill_first(struct harness *harness, void *arg)
{
	conn_kill(harness_conn(harness, 0), CLOSE_KICKED);
}

static void check_empty(unsigned round)
{
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_int_equal(harness_peek(&h, &h.stats->sessions), 0);
	assert_int_equal(harness_peek(&h, &h.stats->handshaking), 0);
	assert_int_equal(harness_peek(&h, &h.net.bufs.bytes), 0);
	assert_int_equal(harness_peek(&h, &h.net.aux.used), 0);
	assert_int_equal(harness_peek(&h, &h.up.closed), harness_peek(&h, &h.up.opens));
	assert_int_equal(harness_peek(&h, &h.stats->accepts), round);
}

/* Ended from either side in every state, one at a time: nothing is left, and the slot serves the
 * next. */
static void test_end_in_every_state(void **state)
{
	unsigned round = 0;
	struct conn copy;

	stage_opts();
	harness_start(&h);
	for (enum stage stage = 0; stage < STAGES; stage++) {
		for (unsigned way = 0; way < 3; way++) {
			int fd = reach(stage);

			if (way == 0) {
				harness_call(&h, kill_first, NULL);
				assert_true(client_gone(fd));
				close(fd);
			} else if (way == 1) {
				client_reset(fd);
			} else {
				close(fd);
			}
			/* OPENING and PAUSED read nothing: there the end shows when someone writes.
			 */
			if (way && (stage == IN_OPENING || stage == IN_PAUSE)) {
				client_sleep_ms(2);
				harness_call(&h, kill_first, NULL);
			}
			check_empty(++round);
		}
	}
	harness_copy(&h, &copy, harness_conn(&h, 0), sizeof copy);
	assert_int_equal(
		copy.gen, round); /* always the same slot, each time under another generation */
	assert_int_equal(harness_peek(&h, &h.stats->stale_completions), 0);
	assert_true(harness_stop(&h));
}

/* The worker ends with connections in every state: each session hears of it, and nothing is left.
 */
static void test_stop_in_every_state(void **state)
{
	int fds[STAGES];
	uint64_t opens;

	stage_opts();
	harness_start(&h);
	for (enum stage stage = 0; stage < STAGES; stage++)
		fds[stage] = reach(stage);
	opens = harness_peek(&h, &h.up.opens);
	assert_true(harness_stop(&h));
	assert_int_equal(h.up.closed, opens);
	for (enum stage stage = 0; stage < STAGES; stage++)
		close(fds[stage]);
}

/* Call-backs may end the connection that they are called for. */
static bool kill_in_message(
	struct harness *harness, struct conn *c, bool text, uint8_t *data, size_t len)
{
	bool go_on = data[1] == 'r'; /* a killed connection's message is gone with it */

	if (data[0] == 'k')
		conn_kill(c, CLOSE_UPSTREAM);
	else
		conn_close(c, 4001, "enough", CLOSE_UPSTREAM);
	return go_on;
}

static void test_end_in_a_callback(void **state)
{
	static const char *const texts[] = {"kp", "kr", "cp", "cr"};
	uint8_t out[256];
	size_t len;

	harness_defaults(&h);
	h.up.message = kill_in_message;
	harness_start(&h);
	for (unsigned i = 0; i < 8; i++) {
		const char *text = texts[i / 2];
		int fd = ws();

		/* Whole, or in pieces; with more behind it either way. */
		if (i % 2) {
			len = client_ws_frame(out, WS_TEXT, false, text, 1);
			len += client_ws_frame(out + len, WS_CONTINUATION, true, text + 1, 1);
		} else {
			len = client_ws_frame(out, WS_TEXT, true, text, 2);
		}
		len += client_ws_frame(out + len, WS_TEXT, true, "more", 4);
		len += client_ws_frame(out + len, WS_TEXT, true, "and more", 8);
		assert_true(client_write(fd, out, len));
		if (text[0] == 'c')
			assert_true(client_ws_closed_with(fd, 4001));
		assert_true(client_gone(fd));
		close(fd);
		assert_true(harness_wait(&h, &h.stats->connections, 0));
		assert_int_equal(harness_peek(&h, &h.up.messages), i + 1);
		assert_int_equal(harness_peek(&h, &h.up.closed), i + 1);
	}
	assert_int_equal(harness_peek(&h, &h.net.bufs.bytes), 0);
	assert_true(harness_stop(&h));
}

/* Thousands of short lives on a few slots. */
static void test_slots_are_used_again(void **state)
{
	enum {
		LIVES = 2000
	};

	harness_defaults(&h);
	harness_start(&h);
	for (unsigned i = 0; i < LIVES; i++) {
		int fd = ws();

		assert_true(client_ws_send(fd, WS_TEXT, true, "hello", 5));
		if (i % 3 == 0)
			client_reset(fd);
		else if (i % 3 == 1)
			close(fd);
		else
			assert_true(client_ws_got(fd, "hello") && close(fd) == 0);
	}
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_int_equal(harness_peek(&h, &h.stats->accepts), LIVES);
	assert_int_equal(harness_peek(&h, &h.stats->handshakes), LIVES);
	assert_int_equal(harness_peek(&h, &h.stats->stale_completions), 0);
	assert_true(harness_stop(&h));
}

struct walk {
	unsigned found, steps;
	uint64_t sessions;
};

static void count_conn(struct conn *c, void *arg)
{
	struct walk *w = arg;
	struct conn_info info;

	conn_describe(c, &info);
	w->found++;
	w->sessions += info.session;
	if (strcmp(info.state, "open") || strcmp(info.protocol, "websocket") ||
		strcmp(info.route, "/") || strcmp(info.listener, "test") ||
		info.slot != conn_slot(c) || info.messages_in != 1)
		w->found += 1000;
}

static void walk(struct harness *harness, void *arg)
{
	struct walk *w = arg;
	uint64_t cursor = 0;

	do {
		w->steps++;
	} while (conn_walk(&harness->net, &cursor, 3, count_conn, w));
}

static void test_walk_and_describe(void **state)
{
	struct walk w = {0};
	int fds[20];

	harness_defaults(&h);
	harness_start(&h);
	for (unsigned i = 0; i < 20; i++) {
		fds[i] = ws();
		assert_true(client_ws_echo(fds[i], "hello"));
	}
	for (unsigned i = 0; i < 20; i += 2)
		close(fds[i]);
	assert_true(harness_wait(&h, &h.stats->connections, 10));
	harness_call(&h, walk, &w);
	assert_int_equal(w.found, 10);
	assert_int_equal(w.sessions, 2 + 4 + 6 + 8 + 10 + 12 + 14 + 16 + 18 + 20);
	assert_true(w.steps >= 6);
	for (unsigned i = 1; i < 20; i += 2)
		close(fds[i]);
	assert_true(harness_stop(&h));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_client_closes),
		cmocka_unit_test(test_gateway_closes),
		cmocka_unit_test(test_raw_closes),
		cmocka_unit_test(test_end_in_every_state),
		cmocka_unit_test(test_stop_in_every_state),
		cmocka_unit_test(test_end_in_a_callback),
		cmocka_unit_test(test_slots_are_used_again),
		cmocka_unit_test(test_walk_and_describe),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
