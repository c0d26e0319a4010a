/* Sessions whose link, service or client goes away. */
#include "support/link_fixture.h"

static uint8_t big[FX_MESSAGE_MAX];

/* -------------------------------------------------------------------------------- the client goes
 */

/* Two messages of 5,000 bytes and goodbye, in one go. */
static void last_words(int c)
{
	uint8_t out[3 * TG_RAW_HEADER_LEN + 2 * 5000 + 2];

	memset(out, 'x', sizeof out);
	for (unsigned i = 0; i < 2; i++)
		raw_header_write(out + i * (TG_RAW_HEADER_LEN + 5000), TG_RAW_BINARY, 5000);
	raw_header_write(out + 2 * (TG_RAW_HEADER_LEN + 5000), TG_RAW_CLOSE, 2);
	memcpy(out + sizeof out - 2, "\x03\xe8", 2);
	fx_send(c, out, sizeof out);
	fx_expect_raw(c, TG_RAW_CLOSE, "\x03\xe8", 2);
	close(c);
}

enum {
	TALKERS = 4
};

/* A link that is kept busy: more than the sockets take waits for a service that does not read, and
 * behind it the last words of a client that is gone. */
static int busy_link(struct fx *f, int c[TALKERS], uint64_t *ret_gone)
{
	int link, goes, small = 4096;
	uint64_t id;

	setsockopt(f->service[0], SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
	fx_start(f);
	link = fx_link(f, 0, 1 << 30, 1 << 30);
	for (unsigned i = 0; i < TALKERS; i++)
		c[i] = fx_open_session(f, link, &id);
	goes = fx_open_session(f, link, ret_gone);
	for (unsigned i = 0; i < TALKERS; i++)
		fx_raw_send(c[i], TG_RAW_BINARY, big, sizeof big);
	fx_wait_until(&f->stats->messages_in, TALKERS);
	last_words(goes);
	return link;
}

static void test_last_words_sent(void **state)
{
	struct fx *f = fx_create(1);
	unsigned seen = 0;
	int link, c[TALKERS];
	uint64_t gone;

	(void)state;
	link = busy_link(f, c, &gone);
	do {
		fx_frame_recv(link, &fx_last);
		if (fx_last.h.type == TG_LINK_MESSAGE && fx_last.h.session == gone) {
			assert_int_equal(fx_last.h.length, 5000);
			seen++;
		}
	} while (fx_last.h.type != TG_LINK_CLOSE);
	assert_true(fx_last.h.session == gone);
	assert_int_equal(seen, 2);
	assert_memory_equal(fx_last.payload, "\x03\xe8\0\0\0\0", 6);
	assert_int_equal(f->stats->link_messages_lost, 0);
	for (unsigned i = 0; i < TALKERS; i++)
		close(c[i]);
	close(link);
	fx_stop(f);
}

/* They do not move to another link. */
static void test_last_words_orphaned(void **state)
{
	struct fx *f = fx_create(1);
	int link, c[TALKERS];
	uint64_t gone;

	(void)state;
	f->link.buffer_bytes = 64 * 1024 * 1024;
	link = busy_link(f, c, &gone);
	close(link);
	link = fx_link(f, 0, 1 << 30, 1 << 30);
	for (unsigned i = 0; i < TALKERS; i++) {
		fx_expect(link, TG_LINK_OPEN, &fx_last);
		assert_true(fx_last.h.session != gone);
	}
	assert_true(fx_quiet(link, 50));
	assert_in_range(f->stats->link_messages_lost, 3, 2 + TALKERS);
	for (unsigned i = 0; i < TALKERS; i++)
		close(c[i]);
	close(link);
	fx_stop(f);
}

/* Without credit for it the message is not waited for, but counted. */
static void test_last_words_lost(void **state)
{
	struct fx *f = fx_create(1);
	uint64_t id;
	int link, c;

	(void)state;
	fx_start(f);
	link = fx_link(f, 0, 4096, 65536);
	c = fx_open_session(f, link, &id);
	last_words(c);
	do
		fx_frame_recv(link, &fx_last);
	while (fx_last.h.type == TG_LINK_MESSAGE && fx_last.h.flags == TG_LINK_FLAG_MORE);
	assert_int_equal(fx_last.h.type, TG_LINK_CLOSE);
	assert_int_equal(f->stats->link_messages_lost, 2);
	close(link);
	fx_stop(f);
}

/* -------------------------------------------------------------------------------- the link goes */

static void test_many_move(void **state)
{
	enum {
		N = 600
	};
	struct fx *f = fx_create(1);
	static int c[N];
	struct link_info info;
	uint64_t id;
	int link;

	(void)state;
	fx_start(f);
	link = fx_link(f, 0, 65536, 1 << 20);
	for (unsigned i = 0; i < N; i++)
		c[i] = fx_open_session(f, link, &id);
	fx_describe(f, &info);
	assert_int_equal(info.sessions, N);
	assert_string_equal(info.state, "up");
	/* Each has one message that arrived, and the first half has one that nobody read. */
	for (unsigned i = 0; i < N; i++)
		fx_raw_send(c[i], TG_RAW_BINARY, big, 100);
	for (unsigned i = 0; i < N; i++) {
		fx_expect(link, TG_LINK_MESSAGE, &fx_last);
		fx_grant(link, fx_last.h.session, link_cost(100));
	}
	for (unsigned i = 0; i < N / 2; i++)
		fx_raw_send(c[i], TG_RAW_BINARY, big, 200);
	fx_wait_until(&f->stats->messages_in, N + N / 2);
	close(link);
	link = fx_link(f, 0, 65536, 1 << 20);
	for (unsigned i = 0; i < N; i++) {
		fx_expect(link, TG_LINK_OPEN, &fx_last);
		assert_int_equal(fx_last.h.flags, TG_LINK_FLAG_RESUMED);
		assert_non_null(memmem(fx_last.payload, fx_last.h.length, "\"resumed\":true", 14));
		fx_frame_send(link, TG_LINK_ACCEPT, fx_last.h.session, "", 0, 0);
		fx_frame_send(link, TG_LINK_MESSAGE, fx_last.h.session, "back", 4, 0);
	}
	for (unsigned i = 0; i < N; i++)
		fx_expect_raw(c[i], TG_RAW_BINARY, "back", 4);
	assert_int_equal(f->stats->sessions_failed_over, N);
	assert_int_equal(f->stats->link_messages_lost, N / 2);
	for (unsigned i = 0; i < N; i++)
		close(c[i]);
	for (unsigned i = 0; i < N; i++)
		fx_expect(link, TG_LINK_CLOSE, &fx_last);
	close(link);
	fx_stop(f);
}

/* Many messages of one session without credit: the count is never too low, and little too high. */
static void test_lost_count(void **state)
{
	enum {
		SENT = 500,
		PAID = 333
	};
	struct fx *f = fx_create(1);
	uint64_t id;
	int link, c;

	(void)state;
	fx_start(f);
	link = fx_link(f, 0, 1 << 20, 1 << 20);
	c = fx_open_session(f, link, &id);
	for (unsigned i = 0; i < SENT; i++)
		fx_raw_send(c, TG_RAW_BINARY, big, 84);
	for (unsigned i = 0; i < SENT; i++)
		fx_expect(link, TG_LINK_MESSAGE, &fx_last);
	fx_grant(link, id, PAID * link_cost(84));
	fx_frame_send(link, TG_LINK_PING, 0, "01234567", 8, 0);
	fx_expect(link, TG_LINK_PONG, &fx_last);
	close(link);
	link = fx_link(f, 0, 1 << 20, 1 << 20);
	fx_expect(link, TG_LINK_OPEN, &fx_last);
	assert_in_range(f->stats->link_messages_lost, SENT - PAID, SENT - PAID + SENT / 2);
	close(c);
	close(link);
	fx_stop(f);
}

/* A message of which the dead link had a part is lost as a whole, those behind it are sent on the
 * next link. */
static void test_part_sent(void **state)
{
	struct fx *f = fx_create(1);
	uint64_t id;
	int link, c;

	(void)state;
	fx_start(f);
	link = fx_link(f, 0, 16384, 1 << 20);
	c = fx_open_session(f, link, &id);
	fx_raw_send(c, TG_RAW_BINARY, big, 20000);
	fx_expect_message(link, id, big, 16384 - TG_LINK_HEADER_LEN, TG_LINK_FLAG_MORE);
	fx_raw_send(c, TG_RAW_TEXT, "behind", 6);
	fx_wait_until(&f->stats->messages_in, 2);
	close(link);
	link = fx_link(f, 0, 16384, 1 << 20);
	fx_expect(link, TG_LINK_OPEN, &fx_last);
	fx_frame_send(link, TG_LINK_ACCEPT, id, "", 0, 0);
	fx_expect_message(link, id, "behind", 6, TG_LINK_FLAG_TEXT);
	assert_int_equal(f->stats->link_messages_lost, 1);
	close(c);
	fx_expect(link, TG_LINK_CLOSE, &fx_last);
	close(link);
	fx_stop(f);
}

/* What waits for its turn when the last link dies must fit the buffer. */
static void test_buffer_at_failover(void **state)
{
	struct fx *f = fx_create(1);
	uint64_t id;
	int link, c;

	(void)state;
	f->link.buffer_bytes = 4096;
	fx_start(f);
	link = fx_link(f, 0, 4096, 65536);
	c = fx_open_session(f, link, &id);
	fx_raw_send(c, TG_RAW_BINARY, big, 2000);
	fx_raw_send(c, TG_RAW_BINARY, big,
		4096 - 3 * TG_LINK_HEADER_LEN - 2000); /* what is left is no use */
	fx_raw_send(c, TG_RAW_BINARY, big, 5000);
	fx_wait_until(&f->stats->messages_in, 3);
	close(f->service[0]);
	close(link);
	fx_expect_raw(c, TG_RAW_CLOSE, "\x03\xf5service unavailable", 21);
	assert_int_equal(f->stats->link_messages_lost, 2);
	assert_int_equal(f->stats->link_buffer_refused, 1);
	close(c);
	f->link.n_endpoints = 0;
	fx_stop(f);
}

/* How a session that was open hears that it is not wanted any more. */
static void test_reject_resumed(void **state)
{
	static const struct {
		uint16_t status, code;
	} cases[] = {{401, 1008}, {413, 1009}, {429, 1013}, {500, 1011}, {503, 1013}};
	struct fx *f = fx_create(1);
	uint64_t id;
	int link, c;

	(void)state;
	fx_start(f);
	link = fx_link(f, 0, 65536, 65536);
	for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		uint8_t out[LINK_REJECT_FRAME_MAX],
			close_[3] = {(uint8_t)(cases[i].code >> 8), (uint8_t)cases[i].code, 'r'};

		c = fx_open_session(f, link, &id);
		close(link);
		link = fx_link(f, 0, 65536, 65536);
		fx_expect(link, TG_LINK_OPEN, &fx_last);
		fx_send(link, out, link_reject_write(out, id, cases[i].status, "r", 1));
		fx_expect_raw(c, TG_RAW_CLOSE, close_, 3);
		close(c);
	}
	close(link);
	fx_stop(f);
}

static void test_failover_close(void **state)
{
	struct fx *f = fx_create(2);
	uint64_t id[2];
	int link[2], c[2];

	(void)state;
	f->link.failover = LINK_CLOSE;
	fx_start(f);
	for (unsigned i = 0; i < 2; i++)
		link[i] = fx_link(f, i, 65536, 65536);
	fx_wait_until(&f->stats->link_connects, 2);
	for (unsigned i = 0; i < 2; i++) {
		c[i] = fx_client(f);
		struct pollfd p[2] = {
			{.fd = link[0], .events = POLLIN}, {.fd = link[1], .events = POLLIN}};

		assert_int_equal(fx_poll(p, 2, FX_PATIENCE_S * 1000), 1);
		unsigned on = p[1].revents ? 1 : 0;
		fx_expect(link[on], TG_LINK_OPEN, &fx_last);
		id[on] = fx_last.h.session;
		fx_frame_send(link[on], TG_LINK_ACCEPT, fx_last.h.session, "", 0, 0);
		fx_welcome(c[i]);
		if (i != on) { /* c[k] is on link[k] */
			c[on] = c[i];
			if (i == 1 && on == 0)
				c[1] = c[0];
		}
	}
	assert_true(id[0] != id[1]); /* least sessions: one each */
	close(link[0]);
	/* One of the two clients is closed, the other one goes on. */
	struct pollfd p[2] = {{.fd = c[0], .events = POLLIN}, {.fd = c[1], .events = POLLIN}};
	assert_int_equal(fx_poll(p, 2, FX_PATIENCE_S * 1000), 1);
	unsigned closed = p[1].revents ? 1 : 0;
	fx_expect_raw(c[closed], TG_RAW_CLOSE, "\x03\xf5service unavailable", 21);
	fx_raw_send(c[!closed], TG_RAW_TEXT, "on", 2);
	fx_expect_message(link[1], id[1], "on", 2, TG_LINK_FLAG_TEXT);
	close(c[0]);
	close(c[1]);
	close(link[1]);
	fx_stop(f);
}

static void test_open_timeout(void **state)
{
	struct fx *f = fx_create(1);
	uint64_t id;
	int link, waits, resumes;

	(void)state;
	f->link.open_timeout_ms = 100;
	fx_start(f);
	link = fx_link(f, 0, 65536, 65536);
	resumes = fx_open_session(f, link, &id);
	waits = fx_client(f);
	fx_expect(link, TG_LINK_OPEN, &fx_last);
	id = fx_last.h.session;
	fx_expect_raw(waits, TG_RAW_CLOSE, "\x03\xf5no service answered in time", 29);
	fx_expect(link, TG_LINK_CLOSE, &fx_last);
	assert_true(fx_last.h.session == id);
	fx_frame_send(link, TG_LINK_ACCEPT, id, "", 0, 0); /* too late, and no error */
	close(waits);
	close(link);
	link = fx_link(f, 0, 65536, 65536);
	fx_expect(link, TG_LINK_OPEN, &fx_last);
	fx_expect_raw(resumes, TG_RAW_CLOSE, "\x03\xf5service unavailable", 21);
	fx_expect(link, TG_LINK_CLOSE, &fx_last);
	assert_int_equal(f->stats->link_bad_frames, 0);
	close(resumes);
	close(link);
	fx_stop(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_last_words_sent),
		cmocka_unit_test(test_last_words_orphaned),
		cmocka_unit_test(test_last_words_lost),
		cmocka_unit_test(test_many_move),
		cmocka_unit_test(test_lost_count),
		cmocka_unit_test(test_part_sent),
		cmocka_unit_test(test_buffer_at_failover),
		cmocka_unit_test(test_reject_resumed),
		cmocka_unit_test(test_failover_close),
		cmocka_unit_test(test_open_timeout),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
