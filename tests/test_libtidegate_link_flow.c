/* libtidegate-link: credit in both directions, fairness between sessions, bounds on what is queued.
 */
#include "support/link_service.h"

/* The gateway's payload_max is kept to, and no more of a message is sent than it takes. */
static void test_gateway_limits(void **state)
{
	struct service *s = service_create((struct tg_link_server_opts){0});
	struct fake_gateway *g = fake_gateway_create(s->server);
	fake_hello_with(g, 0, 65536, 65536, 4096, 10000);
	fake_expect(g, TG_LINK_HELLO, 0);
	fake_session(g, 1);
	uint8_t *data = pattern(10001, 0);
	assert_int_equal(tg_link_send(s->last, data, 10001, false), -EMSGSIZE);
	assert_int_equal(tg_link_send(s->last, data, 10000, false), 0);
	for (int i = 0; i < 3; i++) {
		struct fake_frame f = fake_expect(g, TG_LINK_MESSAGE, 1);
		assert_int_equal(f.h.length, i < 2 ? 4096 : 10000 - 2 * 4096);
		assert_int_equal(f.h.flags, i < 2 ? TG_LINK_FLAG_MORE : 0);
	}
	assert_int_equal(tg_link_subscribe(s->last, "t"), -EOPNOTSUPP);
	assert_int_equal(tg_link_publish(s->link, "t", "x", 1, false), -EOPNOTSUPP);
	free(data);
	stop(g, s);
}

/* Two long messages share the link frame by frame; so do two arriving ones. */
static void test_interleaving(void **state)
{
	struct service *s;
	struct fake_gateway *g = start(
		(struct tg_link_server_opts){.session_window = 2 * MIB, .send_queue_max = 2 * MIB},
		&s);
	uint8_t *data[2] = {pattern(MIB, 1), pattern(MIB, 2)};
	struct tg_link_session *sessions[2];
	for (unsigned i = 0; i < 2; i++) {
		fake_session(g, i + 1);
		sessions[i] = s->last;
	}
	g->credit = true;
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(tg_link_send(sessions[i], data[i], MIB, false), 0);
	size_t at[2] = {0, 0};
	unsigned turns = 0, frames = 0;
	uint64_t before = 0;
	while (at[0] < MIB || at[1] < MIB) {
		struct fake_frame f;
		assert_true(fake_next(g, &f, FAKE_WAIT_MS));
		assert_int_equal(f.h.type, TG_LINK_MESSAGE);
		unsigned i = f.h.session == 2;
		assert_memory_equal(f.payload, data[i] + at[i], f.h.length);
		at[i] += f.h.length;
		assert_int_equal(!!(f.h.flags & TG_LINK_FLAG_MORE), at[i] < MIB);
		turns += f.h.session != before;
		before = f.h.session;
		frames++;
	}
	assert_true(turns > frames * 3 / 4);

	s->echo = true;
	for (size_t off = 0; off < MIB; off += 32768) {
		for (unsigned i = 0; i < 2; i++)
			fake_frame(g, TG_LINK_MESSAGE, off + 32768 < MIB ? TG_LINK_FLAG_MORE : 0,
				i + 1, data[i] + off, 32768);
	}
	at[0] = at[1] = 0;
	while (at[0] < MIB || at[1] < MIB) {
		struct fake_frame f;
		assert_true(fake_next(g, &f, FAKE_WAIT_MS));
		if (f.h.type == TG_LINK_CREDIT)
			continue;
		unsigned i = f.h.session == 2;
		assert_memory_equal(f.payload, data[i] + at[i], f.h.length);
		at[i] += f.h.length;
	}
	assert_int_equal(s->messages, 2);
	free(data[0]);
	free(data[1]);
	stop(g, s);
}

static void test_session_credit_out(void **state)
{
	struct service *s;
	struct fake_gateway *g = start((struct tg_link_server_opts){.send_queue_max = 200000}, &s);
	uint8_t *data = pattern(100000, 0);
	fake_session(g, 1);
	struct tg_link_session *one = s->last;
	fake_session(g, 2);
	/* 128 KiB of credit, then the queue fills up to its cap. */
	unsigned sent = 0;
	int err;
	while ((err = tg_link_send(one, data, 100000, false)) == 0) {
		sent++;
		fake_pump(g, 0);
	}
	assert_int_equal(err, -EAGAIN);
	size_t got = drain_messages(g, 1);
	assert_int_equal(got, FAKE_SESSION_WINDOW);
	assert_true(tg_link_session_queued(one) > 0 && s->writables == 0);
	/* The other session does not feel it. */
	assert_int_equal(tg_link_send(s->last, "hi", 2, true), 0);
	assert_int_equal(fake_expect(g, TG_LINK_MESSAGE, 2).h.length, 2);
	/* Exactly as much as is granted: 16 bytes are a header, and an empty part is not sent. */
	fake_credit(g, 1, 16);
	assert_int_equal(drain_messages(g, 1), 0);
	fake_credit(g, 1, 1);
	assert_int_equal(drain_messages(g, 1), 17);
	while (got + 17 < sent * 100000) {
		fake_credit(g, 1, 50000);
		size_t n = drain_messages(g, 1);
		if (n == 0)
			break;
		got += n;
	}
	assert_int_equal(tg_link_session_queued(one), 0);
	assert_int_equal(s->writables, 1);
	/* A message above the cap fits an empty queue. */
	free(data);
	data = pattern(300000, 0);
	assert_int_equal(tg_link_send(one, data, 300000, false), 0);
	assert_int_equal(tg_link_send(one, "", 0, false), -EAGAIN);
	free(data);
	stop(g, s);
}

static void test_link_credit_out(void **state)
{
	struct service *s = service_create((struct tg_link_server_opts){0});
	struct fake_gateway *g = fake_gateway_create(s->server);
	fake_hello_with(g, TG_LINK_FEATURE_TOPICS, 65536, 65536, 32768, MIB);
	fake_expect(g, TG_LINK_HELLO, 0);
	uint8_t *data = pattern(60000, 0);
	for (unsigned i = 1; i <= 2; i++) {
		fake_session(g, i);
		assert_int_equal(tg_link_send(s->last, data, 60000, false), 0);
	}
	assert_int_equal(drain_messages(g, 0), 65536);
	assert_int_equal(tg_link_publish(s->link, "t", "x", 1, false), -EAGAIN);
	fake_credit(g, 0, 1000);
	assert_int_equal(drain_messages(g, 0), 1000);
	/* A session may close although the link has no credit, once the messages before are out. */
	assert_int_equal(tg_link_close(s->last, 1000, NULL, 0), 0);
	fake_credit(g, 0, 100000);
	unsigned closes = 0;
	struct fake_frame f;
	while (fake_next(g, &f, FAKE_QUIET_MS))
		closes += f.h.type == TG_LINK_CLOSE;
	assert_int_equal(closes, 1);
	free(data);
	stop(g, s);
}

/* CREDIT for one session (or, 0, the link) that the service has granted. */
static uint32_t granted(struct fake_gateway *g, uint64_t session)
{
	struct fake_frame f;
	uint32_t sum = 0, bytes;
	const char *why;
	while (fake_next(g, &f, FAKE_QUIET_MS)) {
		if (f.h.type != TG_LINK_CREDIT || f.h.session != session)
			continue;
		assert_int_equal(link_credit_parse(f.payload, f.h.length, &bytes, &why), 0);
		sum += bytes;
	}
	return sum;
}

static void test_manual_credit(void **state)
{
	struct service *s;
	struct fake_gateway *g = start(
		(struct tg_link_server_opts){.session_window = 65536, .manual_credit = true}, &s);
	uint8_t *data = pattern(200000, 0);
	fake_session(g, 1);
	fake_message(g, 1, data, 30000, false, 30000);
	fake_message(g, 1, data, 30000, false, 30000);
	fake_message(g, 1, NULL, 0, true, 1);
	assert_int_equal(granted(g, 1), 0);
	assert_int_equal(s->messages, 3);
	assert_int_equal(tg_link_consume(s->last, 60001), -ERANGE);
	assert_int_equal(tg_link_consume(s->last, 30000), 0);
	uint32_t first = granted(g, 1);
	assert_in_range(first, 30000, 30032);
	assert_int_equal(tg_link_consume(s->last, 30000), 0);
	assert_int_equal(first + granted(g, 1), 60000 + 3 * 16);
	assert_int_equal(tg_link_consume(s->last, 1), -ERANGE);
	/* Empty messages cost a header, and are consumed with the rest. */
	for (int i = 0; i < 4096; i++)
		fake_message(g, 1, NULL, 0, true, 1);
	assert_int_equal(granted(g, 1), 0);
	assert_int_equal(tg_link_consume(s->last, 0), 0);
	assert_int_equal(granted(g, 1), 65536);

	/* A message longer than the window gets through, and only one: the next waits for
	 * consumption. */
	size_t off = 0;
	for (uint32_t credit = 65536; off < 200000;) {
		size_t n = 200000 - off < 16000 ? 200000 - off : 16000;
		while (credit < link_cost((uint32_t)n)) {
			uint32_t more = granted(g, 1);
			assert_true(more > 0);
			credit += more;
		}
		fake_frame(g, TG_LINK_MESSAGE, off + n < 200000 ? TG_LINK_FLAG_MORE : 0, 1,
			data + off, n);
		credit -= link_cost((uint32_t)n);
		off += n;
	}
	granted(g, 1);
	assert_int_equal(s->last_len, 200000);
	unsigned before = s->messages;
	fake_frame(g, TG_LINK_MESSAGE, TG_LINK_FLAG_MORE, 1, data, 30000);
	assert_int_equal(granted(g, 1), 0);
	assert_int_equal(tg_link_consume(s->last, 200000), 0);
	assert_true(granted(g, 1) > 30000);
	fake_frame(g, TG_LINK_MESSAGE, 0, 1, data, 1000);
	assert_true(fake_quiet(g));
	assert_int_equal(s->messages, before + 1);
	assert_int_equal(s->last_len, 31000);
	/* Leaving manual mode consumes what is outstanding. */
	tg_link_session_set_manual(s->last, false);
	fake_message(g, 1, data, 30000, false, 30000);
	assert_true(granted(g, 1) > 0);
	assert_int_equal(tg_link_consume(s->last, 0), 0);
	free(data);
	stop(g, s);
}

/* A session whose service does not consume stalls alone: link credit goes on. */
static void test_stall_is_per_session(void **state)
{
	struct service *s;
	struct fake_gateway *g = start(
		(struct tg_link_server_opts){.session_window = 8192, .link_window = 16384}, &s);
	uint8_t *data = pattern(8000, 0);
	struct tg_link_session *stalled[5];
	for (unsigned i = 0; i < 5; i++) {
		fake_session(g, i + 1);
		stalled[i] = s->last;
		tg_link_session_set_manual(s->last, true);
		fake_message(g, i + 1, data, 8000, false, 8000);
		assert_true(fake_quiet(g));
	}
	s->echo = true;
	g->credit = true;
	fake_session(g, 6);
	for (int i = 0; i < 20; i++) {
		fake_message(g, 6, data, 8000, false, 8000);
		fake_receive(g, 6, NULL, 8000, NULL, NULL);
	}
	assert_int_equal(s->messages, 25);
	assert_int_equal(tg_link_consume(stalled[0], 8000), 0);
	assert_true(granted(g, 1) > 0);
	free(data);
	stop(g, s);
}

/* A gateway that opens sessions and reads none of the answers is not read from without end. */
static void test_backlog(void **state)
{
	enum {
		N = 30000
	};
	struct service *s;
	struct fake_gateway *g = start((struct tg_link_server_opts){0}, &s);
	s->reject = 403;
	uint8_t frame[TG_LINK_HEADER_LEN + 2];
	memcpy(frame + TG_LINK_HEADER_LEN, "{}", 2);
	uint64_t sent = 0, answered = 0;
	struct tg_link_stats stats;
	unsigned idle = 0;
	while (sent < 100000 && idle < 50) {
		link_header_write(
			frame, &(struct link_header){
				       .length = 2, .type = TG_LINK_OPEN, .session = sent + 1});
		if (send(g->fd, frame, sizeof(frame), MSG_NOSIGNAL | MSG_DONTWAIT) ==
			sizeof(frame)) {
			sent++;
			idle = 0;
		} else {
			fake_pump(g, 0);
			idle++;
		}
	}
	assert_int_equal(idle, 50); /* the service stopped reading */
	tg_link_server_stats(s->server, &stats);
	assert_in_range(stats.opened, N, sent);
	struct fake_frame f;
	while (answered < sent && fake_next(g, &f, FAKE_WAIT_MS)) {
		assert_int_equal(f.h.type, TG_LINK_REJECT);
		assert_true(f.h.session == ++answered);
	}
	assert_int_equal(answered, sent);
	stop(g, s);
}

static void test_limits(void **state)
{
	struct service *s;
	struct tg_link_server_opts opts = {
		.message_max = 50000, .assembly_max = 100000, .sessions_max = 3, .links_max = 2};
	struct fake_gateway *g = start(opts, &s);
	uint8_t *data = pattern(60000, 0);
	fake_session(g, 1);
	fake_message(g, 1, data, 50000, false, 32768);
	assert_true(fake_quiet(g));
	assert_int_equal(s->last_len, 50000);
	fake_message(g, 1, data, 50001, false, 32768);
	struct fake_frame f = fake_expect(g, TG_LINK_CLOSE, 1);
	assert_memory_equal(f.payload, "\x03\xf1", 2); /* 1009 */
	assert_true(fake_quiet(g));
	assert_int_equal(s->end_by, TG_LINK_END_SERVICE);
	assert_int_equal(s->end_code, 1009);

	/* Three messages in progress are too many by one; what they held is given back. */
	for (uint64_t i = 2; i <= 4; i++) {
		fake_session(g, i);
		fake_frame(g, TG_LINK_MESSAGE, TG_LINK_FLAG_MORE, i, data, 32768);
		fake_frame(g, TG_LINK_MESSAGE, TG_LINK_FLAG_MORE, i, data, 10000);
	}
	f = fake_expect(g, TG_LINK_CLOSE, 4);
	assert_memory_equal(f.payload, "\x03\xf5", 2); /* 1013 */
	fake_frame(g, TG_LINK_MESSAGE, 0, 2, data, 1);
	fake_frame(g, TG_LINK_CLOSE, 0, 3, "\x03\xe8\0\0\0\0", 6);
	assert_true(fake_quiet(g));
	assert_int_equal(s->last_len, 42769);
	struct tg_link_stats stats;
	tg_link_server_stats(s->server, &stats);
	assert_int_equal(stats.assembly_bytes, 0);

	fake_session(g, 5);
	fake_session(g, 6);
	fake_open(g, 7, "{}");
	f = fake_expect(g, TG_LINK_REJECT, 7);
	assert_memory_equal(f.payload, "\x01\xf7", 2); /* 503 */
	assert_true(fake_quiet(g));

	struct fake_gateway *second = fake_gateway_create(s->server);
	fake_handshake(second, 0);
	int fds[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	assert_int_equal(tg_link_server_adopt(s->server, fds[0]), -EMFILE);
	close(fds[0]);
	close(fds[1]);
	char address[128];
	assert_int_equal(tg_link_server_listen(s->server, "127.0.0.1:0"), 0);
	assert_int_equal(tg_link_server_address(s->server, 0, address, sizeof(address)), 0);
	struct fake_gateway *third = fake_gateway_connect(s->server, address);
	assert_true(fake_ended(third, TG_LINK_ERROR_REFUSED));
	fake_gateway_destroy(third);
	fake_gateway_destroy(second);
	free(data);
	stop(g, s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gateway_limits),
		cmocka_unit_test(test_interleaving),
		cmocka_unit_test(test_session_credit_out),
		cmocka_unit_test(test_link_credit_out),
		cmocka_unit_test(test_manual_credit),
		cmocka_unit_test(test_stall_is_per_session),
		cmocka_unit_test(test_backlog),
		cmocka_unit_test(test_limits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
