/* libtidegate-link against a fake gateway: sessions, messages, ends, addresses. Flow
 * control and malformed gateways have programs of their own. */
#include "support/link_service.h"

#include <poll.h>
#include <sys/resource.h>

static void test_options(void **state)
{
	struct tg_link_server *server = NULL;
	struct tg_link_server_opts opts = {.ops = NULL};
	assert_int_equal(tg_link_server_create(&opts, &server), -EINVAL);
	opts = (struct tg_link_server_opts){.ops = &service_ops, .name = "two words"};
	assert_int_equal(tg_link_server_create(&opts, &server), -EINVAL);
	opts = (struct tg_link_server_opts){.ops = &service_ops, .session_window = 4095};
	assert_int_equal(tg_link_server_create(&opts, &server), -EINVAL);
	opts = (struct tg_link_server_opts){.ops = &service_ops, .link_window = UINT32_MAX};
	assert_int_equal(tg_link_server_create(&opts, &server), -EINVAL);
	assert_null(server);
	tg_link_server_destroy(NULL);
}

static void test_handshake(void **state)
{
	struct tg_link_server_opts opts = {
		.name = "svc", .session_window = 65536, .link_window = 131072, .message_max = 1234};
	struct service *s = service_create(opts);
	struct fake_gateway *g = fake_gateway_create(s->server);
	/* The service's HELLO needs no prompting. */
	struct fake_frame f = fake_expect(g, TG_LINK_HELLO, 0);
	struct link_hello h;
	const char *why;
	assert_int_equal(link_hello_parse(f.payload, f.h.length, &h, &why), 0);
	assert_int_equal(h.session_window, 65536);
	assert_int_equal(h.link_window, 131072);
	assert_int_equal(h.message_max, 1234);
	assert_int_equal(h.payload_max, 32768);
	assert_int_equal(h.name_len, 3);
	assert_memory_equal(h.name, "svc", 3);
	assert_int_equal(s->ups, 0);
	fake_hello_with(g, 6, 4096, 4096, 4096, 1);
	fake_pump(g, 0);
	assert_int_equal(s->ups, 1);
	assert_string_equal(tg_link_name(s->link), "gw-a");
	assert_int_equal(tg_link_worker(s->link), 2);
	assert_int_equal(tg_link_features(s->link), 6);
	assert_int_equal(tg_link_sessions(s->link), 0);
	tg_link_set_data(s->link, s);
	assert_ptr_equal(tg_link_data(s->link), s);
	stop(g, s);
}

static void test_open(void **state)
{
	struct service *s;
	struct fake_gateway *g = start((struct tg_link_server_opts){0}, &s);
	s->subprotocol = "chat.v2";
	static const char meta[] =
		"{\"path\":\"/service\", \"query\":\"mode=echo&x=\\u00e9\\\"\", \"n\": "
		"[1,{\"path\":\"no\"}],"
		"\"headers\":{\"user-agent\":\"ua/1\",\"x\":1},\"subject\":null}";
	fake_frame(g, TG_LINK_OPEN, TG_LINK_FLAG_RESUMED, UINT64_C(0x100000000000007), meta,
		strlen(meta));
	struct fake_frame f = fake_expect(g, TG_LINK_ACCEPT, UINT64_C(0x100000000000007));
	assert_int_equal(f.h.length, 7);
	assert_memory_equal(f.payload, "chat.v2", 7);
	assert_true(tg_link_session_id(s->last) == UINT64_C(0x100000000000007));
	assert_true(tg_link_session_resumed(s->last));
	assert_ptr_equal(tg_link_session_link(s->last), s->link);
	assert_int_equal(tg_link_sessions(s->link), 1);
	size_t len;
	assert_string_equal(tg_link_session_metadata(s->last, &len), meta);
	assert_int_equal(len, strlen(meta));
	char out[32] = "?";
	assert_int_equal(tg_link_session_meta(s->last, NULL, "path", out, sizeof(out)), 8);
	assert_string_equal(out, "/service");
	assert_int_equal(tg_link_session_meta(s->last, NULL, "query", out, sizeof(out)), 15);
	assert_string_equal(out, "mode=echo&x=\xc3\xa9\"");
	assert_int_equal(
		tg_link_session_meta(s->last, "headers", "user-agent", out, sizeof(out)), 4);
	assert_string_equal(out, "ua/1");
	assert_int_equal(tg_link_session_meta(s->last, "headers", "x", out, sizeof(out)), -ENOENT);
	assert_int_equal(tg_link_session_meta(s->last, NULL, "subject", out, sizeof(out)), -ENOENT);
	assert_int_equal(tg_link_session_meta(s->last, NULL, "nothing", out, sizeof(out)), -ENOENT);
	assert_int_equal(tg_link_session_meta(s->last, NULL, "path", out, 8), -ENOSPC);
	assert_string_equal(out, "ua/1");
	tg_link_session_set_data(s->last, g);
	assert_ptr_equal(tg_link_session_data(s->last), g);
	assert_int_equal(tg_link_accept(s->last, NULL), -EALREADY);
	assert_int_equal(tg_link_reject(s->last, 400, NULL), -EALREADY);
	struct tg_link_stats stats;
	tg_link_server_stats(s->server, &stats);
	assert_int_equal(stats.opened, 1);
	assert_int_equal(stats.resumed, 1);
	assert_int_equal(stats.accepted, 1);
	assert_int_equal(stats.sessions, 1);
	assert_int_equal(stats.links, 1);
	stop(g, s);
}

static void test_open_later_and_reject(void **state)
{
	struct service *s;
	struct fake_gateway *g = start((struct tg_link_server_opts){0}, &s);
	s->keep_opening = true;
	fake_open(g, 1, "{}");
	assert_true(fake_quiet(g));
	assert_int_equal(tg_link_send(s->last, "x", 1, false), -ENOTCONN);
	assert_int_equal(tg_link_close(s->last, 1000, NULL, 0), -ENOTCONN);
	assert_int_equal(tg_link_accept(s->last, "not a token"), -EINVAL);
	assert_int_equal(tg_link_accept(s->last, ""), -EINVAL);
	assert_int_equal(tg_link_reject(s->last, 200, NULL), -EINVAL);
	assert_int_equal(tg_link_reject(s->last, 403, "\xff"), -EINVAL);
	assert_int_equal(tg_link_accept(s->last, NULL), 0);
	assert_int_equal(fake_expect(g, TG_LINK_ACCEPT, 1).h.length, 0);

	s->reject = 403;
	fake_open(g, 2, "{}");
	struct fake_frame f = fake_expect(g, TG_LINK_REJECT, 2);
	assert_int_equal(f.h.length, 11);
	assert_memory_equal(f.payload, "\x01\x93not today", 11);
	assert_int_equal(s->closes, 1);
	assert_int_equal(s->end_by, TG_LINK_END_SERVICE);
	assert_int_equal(s->end_code, 403);
	assert_string_equal(s->end_reason, "not today");

	/* The client leaves before it was let in: what answer there is comes too late. */
	s->reject = 0;
	fake_open(g, 3, "{}");
	assert_true(fake_quiet(g));
	fake_frame(g, TG_LINK_CLOSE, 0, 3, "\x03\xee\0\0\0\0gone", 10);
	assert_true(fake_quiet(g));
	assert_int_equal(s->closes, 2);
	assert_int_equal(s->end_by, TG_LINK_END_GATEWAY);
	assert_int_equal(s->end_code, 1006);
	assert_string_equal(s->end_reason, "gone");
	stop(g, s);
}

/* Without on_open every session is accepted; all call-backs may be absent. */
static void test_no_callbacks(void **state)
{
	static const struct tg_link_ops none = {.on_open = NULL};
	struct tg_link_server_opts opts = {.ops = &none};
	struct tg_link_server *server;
	assert_int_equal(tg_link_server_create(&opts, &server), 0);
	struct fake_gateway *g = fake_gateway_create(server);
	fake_handshake(g, 0);
	fake_session(g, 1);
	fake_message(g, 1, "hello", 5, true, 5);
	fake_frame(g, TG_LINK_DRAIN, 0, 0, "\0\0\0\0", 4);
	fake_frame(g, TG_LINK_CLOSE, 0, 1, "\x03\xe8\0\0\0\0", 6);
	assert_true(fake_quiet(g));
	fake_gateway_destroy(g);
	tg_link_server_destroy(server);
}

static void test_echo_sizes(void **state)
{
	static const size_t sizes[] = {
		0, 1, 125, 126, 4095, 4096, 32767, 32768, 32769, 65536, 65537, 300000, MIB};
	struct service *s;
	struct fake_gateway *g = start(
		(struct tg_link_server_opts){.session_window = MIB, .send_queue_max = 2 * MIB}, &s);
	uint8_t *back = malloc(MIB);
	s->echo = true;
	g->credit = true;
	fake_session(g, 9);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint8_t *data = pattern(sizes[i], (unsigned)i);
		bool text;
		unsigned frames;
		fake_message(g, 9, data, sizes[i], i & 1, 20000);
		assert_int_equal(fake_receive(g, 9, back, MIB, &text, &frames), sizes[i]);
		assert_memory_equal(back, data, sizes[i]);
		assert_int_equal(text, i & 1);
		assert_true(frames >= (sizes[i] + 32767) / 32768);
		free(data);
	}
	struct tg_link_stats stats;
	tg_link_server_stats(s->server, &stats);
	assert_int_equal(stats.messages_in, sizeof(sizes) / sizeof(sizes[0]));
	assert_int_equal(stats.messages_out, stats.messages_in);
	assert_int_equal(stats.bytes_in, stats.bytes_out);
	assert_int_equal(stats.queued_bytes, 0);
	assert_int_equal(stats.assembly_bytes, 0);
	free(back);
	stop(g, s);
}

static void test_close(void **state)
{
	struct service *s;
	struct fake_gateway *g = start((struct tg_link_server_opts){0}, &s);
	fake_session(g, 1);
	assert_int_equal(tg_link_close(s->last, 1005, NULL, 0), -EINVAL);
	assert_int_equal(tg_link_close(s->last, 1000, "\xc3", 0), -EINVAL);
	assert_int_equal(tg_link_send(s->last, "bye", 3, true), 0);
	struct tg_link_session *closing = s->last;
	assert_int_equal(tg_link_close(closing, 4001, "done", 2500), 0);
	assert_int_equal(tg_link_close(closing, 4001, "done", 0), -EPIPE);
	assert_int_equal(tg_link_send(closing, "x", 1, true), -EPIPE);
	assert_int_equal(s->closes, 0); /* call-backs only from dispatch */
	fake_expect(g, TG_LINK_MESSAGE, 1);
	struct fake_frame f = fake_expect(g, TG_LINK_CLOSE, 1);
	struct link_close c;
	const char *why;
	assert_int_equal(link_close_parse(f.payload, f.h.length, LINK_FROM_SERVICE, &c, &why), 0);
	assert_int_equal(c.code, 4001);
	assert_int_equal(c.reconnect_delay_ms, 2500);
	assert_int_equal(c.reason_len, 4);
	assert_memory_equal(c.reason, "done", 4);
	assert_int_equal(s->closes, 1);
	assert_int_equal(s->end_by, TG_LINK_END_SERVICE);
	assert_int_equal(s->end_code, 4001);
	assert_string_equal(s->end_reason, "done");
	assert_int_equal(s->end_out, 1);
	/* Frames that crossed the CLOSE are ignored. */
	fake_message(g, 1, "late", 4, true, 4);
	fake_credit(g, 1, 100);
	fake_frame(g, TG_LINK_CLOSE, 0, 1, "\x03\xe8\0\0\0\0", 6);
	assert_true(fake_quiet(g));
	struct tg_link_stats stats;
	tg_link_server_stats(s->server, &stats);
	assert_int_equal(stats.stale_frames, 3);
	assert_int_equal(s->messages, 0);
	assert_int_equal(s->downs, 0);

	/* A close that waits for credit: what arrives meanwhile is discarded, and the gateway may
	 * be first. */
	fake_session(g, 2);
	uint8_t *data = pattern(200000, 0);
	assert_int_equal(tg_link_send(s->last, data, 200000, false), 0);
	assert_int_equal(tg_link_close(s->last, 1000, NULL, 0), 0);
	assert_int_equal(drain_messages(g, 2), FAKE_SESSION_WINDOW);
	fake_message(g, 2, data, 100000, true, 32768);
	assert_true(fake_quiet(g));
	assert_int_equal(s->messages, 0);
	fake_frame(g, TG_LINK_CLOSE, 0, 2, "\x03\xe9\0\0\0\0", 6);
	assert_true(fake_quiet(g));
	assert_int_equal(s->end_by, TG_LINK_END_GATEWAY);
	assert_int_equal(s->end_code, 1001);
	assert_int_equal(s->end_out, 0);
	free(data);
	stop(g, s);
}

static void test_topics(void **state)
{
	struct service *s;
	struct fake_gateway *g = start((struct tg_link_server_opts){0}, &s);
	fake_session(g, 1);
	assert_int_equal(tg_link_subscribe(s->last, ""), -EINVAL);
	assert_int_equal(tg_link_subscribe(s->last, "a/b"), 0);
	assert_int_equal(tg_link_unsubscribe(s->last, "a/b"), 0);
	assert_int_equal(tg_link_publish(s->link, "\n", "x", 1, false), -EINVAL);
	assert_int_equal(tg_link_publish(s->link, "a/b", "news", 4, true), 0);
	uint8_t *data = pattern(32769, 0);
	assert_int_equal(tg_link_publish(s->link, "a/b", data, 32769, false), -EMSGSIZE);
	assert_int_equal(tg_link_publish(s->link, "a/b", data, 32768, false), 0);
	assert_memory_equal(fake_expect(g, TG_LINK_SUBSCRIBE, 1).payload, "a/b", 3);
	assert_memory_equal(fake_expect(g, TG_LINK_UNSUBSCRIBE, 1).payload, "a/b", 3);
	struct fake_frame f = fake_expect(g, TG_LINK_PUBLISH, 0);
	assert_int_equal(f.h.flags, TG_LINK_FLAG_TEXT);
	assert_int_equal(f.h.length, 8);
	assert_memory_equal(f.payload, "\3a/bnews", 8);
	f = fake_expect(g, TG_LINK_PUBLISH, 0);
	assert_int_equal(f.h.length, 4 + 32768);
	assert_memory_equal(f.payload + 4, data, 32768);
	free(data);
	stop(g, s);
}

/* The link dies: every session hears of it, with the counts that tell what may be lost. */
static void test_link_down(void **state)
{
	struct service *s;
	struct fake_gateway *g = start((struct tg_link_server_opts){0}, &s);
	s->echo = true;
	for (uint64_t i = 1; i <= 3; i++)
		fake_session(g, i);
	fake_message(g, 3, "a", 1, false, 1);
	fake_receive(g, 3, NULL, 1, NULL, NULL);
	fake_message(g, 3, "b", 1, false, 1);
	fake_receive(g, 3, NULL, 1, NULL, NULL);
	s->echo = false;
	fake_message(g, 3, "c", 1, false, 1);
	fake_gateway_destroy(g);
	for (int i = 0; i < 3; i++)
		assert_true(tg_link_server_dispatch(s->server, 0) >= 0);
	assert_int_equal(s->downs, 1);
	assert_false(s->down_protocol_error);
	assert_int_equal(s->closes, 3);
	assert_int_equal(s->end_by, TG_LINK_END_LINK);
	assert_int_equal(s->end_code, 1006);
	assert_int_equal(s->end_in, 3);
	assert_int_equal(s->end_out, 2);
	struct tg_link_stats stats;
	tg_link_server_stats(s->server, &stats);
	assert_int_equal(stats.links, 0);
	assert_int_equal(stats.sessions, 0);

	g = fake_gateway_create(s->server);
	fake_handshake(g, 0);
	fake_frame(g, TG_LINK_ERROR, 0, 0, "\0\0upgrading", 11);
	struct fake_frame f;
	assert_false(fake_next(g, &f, FAKE_WAIT_MS));
	assert_true(g->eof);
	assert_int_equal(s->downs, 2);
	assert_non_null(strstr(s->down_why, "upgrading"));
	stop(g, s);
}

static void test_timeouts(void **state)
{
	struct service *s = service_create((struct tg_link_server_opts){
		.hello_timeout_ms = 60, .ping_interval_ms = 60, .ping_timeout_ms = 60});
	struct fake_gateway *g = fake_gateway_create(s->server);
	assert_true(fake_ended(g, TG_LINK_ERROR_TIMEOUT));
	assert_int_equal(s->ups, 0);
	assert_int_equal(s->downs, 1);
	fake_gateway_destroy(g);

	g = fake_gateway_create(s->server);
	fake_handshake(g, 0);
	for (int i = 0; i < 4; i++) {
		struct fake_frame f = fake_expect(g, TG_LINK_PING, 0);
		fake_frame(g, TG_LINK_PONG, 0, 0, f.payload, 8);
	}
	fake_expect(g, TG_LINK_PING, 0); /* unanswered */
	assert_true(fake_ended(g, TG_LINK_ERROR_TIMEOUT));
	assert_false(s->down_protocol_error);
	stop(g, s);
}

static void test_ping(void **state)
{
	struct service *s;
	struct fake_gateway *g = start((struct tg_link_server_opts){0}, &s);
	fake_frame(g, TG_LINK_PING, 0, 0, "12345678", 8);
	assert_memory_equal(fake_expect(g, TG_LINK_PONG, 0).payload, "12345678", 8);
	/* Of many at hand the newest is answered. */
	uint8_t pings[100][LINK_PING_FRAME_LEN];
	for (unsigned i = 0; i < 100; i++)
		link_ping_write(pings[i], TG_LINK_PING, i);
	fake_write(g, pings, sizeof(pings));
	assert_memory_equal(fake_expect(g, TG_LINK_PONG, 0).payload, "\0\0\0\0\0\0\0\x63", 8);
	assert_true(fake_quiet(g));
	stop(g, s);
}

static void test_drain(void **state)
{
	struct service *s;
	struct fake_gateway *g = start((struct tg_link_server_opts){0}, &s);
	char address[128];
	assert_int_equal(tg_link_server_listen(s->server, "127.0.0.1:0"), 0);
	assert_int_equal(tg_link_server_address(s->server, 0, address, sizeof(address)), 0);
	fake_session(g, 1);
	struct fake_gateway *late = fake_gateway_connect(s->server, address);
	fake_pump(late, 100);
	assert_int_equal(tg_link_drain(s->server, 30000), 0);
	assert_memory_equal(fake_expect(g, TG_LINK_DRAIN, 0).payload, "\0\0\x75\x30", 4);
	fake_open(g, 2, "{}");
	fake_expect(g, TG_LINK_REJECT, 2);
	assert_int_equal(s->opens, 1);
	s->echo = true;
	fake_message(g, 1, "still here", 10, true, 10);
	assert_int_equal(fake_receive(g, 1, NULL, 10, NULL, NULL), 10);
	/* A link that was connecting is told at once. */
	fake_handshake(late, 0);
	fake_expect(late, TG_LINK_DRAIN, 0);
	assert_null(fake_gateway_connect(s->server, address));
	assert_int_equal(tg_link_server_listen(s->server, "127.0.0.1:0"), -ESHUTDOWN);
	assert_int_equal(tg_link_server_adopt(s->server, 0), -ESHUTDOWN);
	fake_frame(g, TG_LINK_DRAIN, 0, 0, "\0\0\0\x05", 4);
	assert_true(fake_quiet(g));
	assert_int_equal(s->drains, 1);
	assert_int_equal(s->grace_ms, 5);
	fake_gateway_destroy(late);
	stop(g, s);
}

static void test_destroy_says_goodbye(void **state)
{
	struct service *s;
	struct fake_gateway *g = start((struct tg_link_server_opts){0}, &s);
	fake_session(g, 1);
	assert_int_equal(tg_link_send(s->last, "last words", 10, true), 0);
	tg_link_server_destroy(s->server);
	assert_int_equal(s->closes, 1);
	assert_int_equal(s->downs, 1);
	g->tail = g->head = 0;
	ssize_t n = recv(g->fd, g->in, sizeof(g->in), MSG_DONTWAIT);
	assert_true(n > 0);
	g->tail = (size_t)n;
	struct fake_frame f;
	assert_true(fake_next(g, &f, 0) && f.h.type == TG_LINK_MESSAGE);
	assert_true(fake_next(g, &f, 0) && f.h.type == TG_LINK_ERROR);
	assert_memory_equal(f.payload, "\0\0", 2);
	fake_gateway_destroy(g);
	free(s);
}

static void test_listen(void **state)
{
	static const char *const bad[] = {
		"",
		"unix:",
		"127.0.0.1",
		"127.0.0.1:",
		":80",
		"localhost:80",
		"[::1]",
		"[::1]80",
		"::1:80",
		"1.2.3.4:99999999",
		"1.2.3.4:http",
		"tcp://",
		"unix:/"
		"a-path-that-is-far-too-long-for-a-socket-address-because-it-has-more-than-the-one-"
		"hundred-and-eight-bytes-that-fit",
	};
	struct service *s = service_create((struct tg_link_server_opts){0}),
		       *other = service_create((struct tg_link_server_opts){0});
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(tg_link_server_listen(s->server, bad[i]), -EINVAL);
	char dir[] = "/tmp/tidegate-link-XXXXXX", path[64], address[128], small[4];
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "unix:%s/s", dir);
	assert_int_equal(tg_link_server_listen(s->server, path), 0);
	assert_int_equal(tg_link_server_listen(other->server, path), -EADDRINUSE);
	assert_int_equal(tg_link_server_listen(s->server, "tcp://127.0.0.1:0"), 0);
	assert_int_equal(tg_link_server_listen(s->server, "[::1]:0"), 0);
	assert_int_equal(tg_link_server_address(s->server, 3, address, sizeof(address)), -ENOENT);
	assert_int_equal(tg_link_server_address(s->server, 0, small, sizeof(small)), -ENOSPC);
	assert_int_equal(tg_link_server_address(s->server, 2, address, sizeof(address)), 0);
	assert_memory_equal(address, "[::1]:", 6);
	s->echo = true;
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(tg_link_server_address(s->server, i, address, sizeof(address)), 0);
		struct fake_gateway *g = fake_gateway_connect(s->server, address);
		fake_handshake(g, 0);
		fake_session(g, 1);
		fake_message(g, 1, "over here", 9, true, 9);
		assert_int_equal(fake_receive(g, 1, NULL, 9, NULL, NULL), 9);
		fake_gateway_destroy(g);
	}
	/* A socket whose owner is gone is replaced; its owner, gone properly, removes it. */
	service_destroy(s);
	assert_int_equal(access(path + 5, F_OK), -1);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	strcpy(un.sun_path, path + 5);
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	close(fd);
	assert_int_equal(tg_link_server_listen(other->server, path), 0);
	service_destroy(other);
	assert_int_equal(rmdir(dir), 0);
}

/* Without descriptors the listener rests instead of spinning, and takes up again by itself. */
static void test_out_of_descriptors(void **state)
{
	struct service *s = service_create((struct tg_link_server_opts){0});
	struct rlimit limit, low;
	char address[128];
	assert_int_equal(tg_link_server_listen(s->server, "127.0.0.1:0"), 0);
	assert_int_equal(tg_link_server_address(s->server, 0, address, sizeof(address)), 0);
	struct fake_gateway *g = fake_gateway_connect(s->server, address);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	low = limit;
	low.rlim_cur = 3;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	unsigned busy = 0;
	uint64_t end = fake_now_ms() + 300;
	while (fake_now_ms() < end)
		busy += tg_link_server_dispatch(s->server, 20) > 0;
	assert_in_range(busy, 1, 8);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	fake_handshake(g, 0);
	assert_int_equal(s->ups, 1);
	stop(g, s);
}

/* In a foreign event loop: the descriptor tells when there is work, also for calls made outside
 * dispatch. */
static void test_poll(void **state)
{
	struct service *s;
	struct fake_gateway *g = start((struct tg_link_server_opts){.ping_interval_ms = 3600000,
					       .ping_timeout_ms = 3600000,
					       .hello_timeout_ms = 3600000},
		&s);
	fake_session(g, 1);
	struct pollfd p = {.fd = tg_link_server_fd(s->server), .events = POLLIN};
	while (poll(&p, 1, 0) > 0)
		assert_true(tg_link_server_dispatch(s->server, 0) >= 0);
	assert_int_equal(tg_link_send(s->last, "hello", 5, true), 0);
	assert_int_equal(poll(&p, 1, 0), 1);
	assert_true(tg_link_server_dispatch(s->server, 0) > 0);
	assert_int_equal(recv(g->fd, g->in, sizeof(g->in), MSG_DONTWAIT), TG_LINK_HEADER_LEN + 5);
	assert_int_equal(tg_link_server_dispatch(s->server, 0), 0);
	stop(g, s);
}

static void test_many_sessions(void **state)
{
	enum {
		N = 5000
	};
	struct service *s;
	struct fake_gateway *g = start((struct tg_link_server_opts){0}, &s);
	s->echo = true;
	for (uint64_t i = 1; i <= N; i++)
		fake_open(g, i << 32 | i, "{}");
	for (uint64_t i = 1; i <= N; i++)
		fake_expect(g, TG_LINK_ACCEPT, i << 32 | i);
	assert_int_equal(tg_link_sessions(s->link), N);
	for (uint64_t i = N; i >= 1; i--) {
		uint64_t id = i << 32 | i;
		fake_message(g, id, &id, sizeof(id), false, 8);
		uint64_t back;
		fake_receive(g, id, (uint8_t *)&back, sizeof(back), NULL, NULL);
		assert_true(back == id);
		fake_credit(g, 0, TG_LINK_HEADER_LEN + 8);
		if (i & 1)
			fake_frame(g, TG_LINK_CLOSE, 0, id, "\x03\xe8\0\0\0\0", 6);
	}
	assert_true(fake_quiet(g));
	assert_int_equal(tg_link_sessions(s->link), N / 2);
	stop(g, s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_options),
		cmocka_unit_test(test_handshake),
		cmocka_unit_test(test_open),
		cmocka_unit_test(test_open_later_and_reject),
		cmocka_unit_test(test_no_callbacks),
		cmocka_unit_test(test_echo_sizes),
		cmocka_unit_test(test_close),
		cmocka_unit_test(test_topics),
		cmocka_unit_test(test_link_down),
		cmocka_unit_test(test_timeouts),
		cmocka_unit_test(test_ping),
		cmocka_unit_test(test_drain),
		cmocka_unit_test(test_destroy_says_goodbye),
		cmocka_unit_test(test_listen),
		cmocka_unit_test(test_out_of_descriptors),
		cmocka_unit_test(test_poll),
		cmocka_unit_test(test_many_sessions),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
