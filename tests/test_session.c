#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "app/session.h"
#include "support/net_harness.h"

static struct harness h;

/* An upstream that only remembers: each route's own. */
struct fake {
	struct upstream u;
	uint64_t opens, messages, drained, closed;
	struct conn *last;
	unsigned reason, code;
	int open;
};

static int fake_open(struct upstream *u, struct conn *c, const struct conn_hello *hello,
	uint16_t *ret_status, const char **ret_why)
{
	struct fake *f = (struct fake *)u;

	f->opens++;
	f->last = c;
	if (f->open) {
		*ret_status = 503;
		*ret_why = "not today";
	}
	return f->open;
}

static bool fake_message(struct upstream *u, struct conn *c, bool text, uint8_t *data, size_t len)
{
	((struct fake *)u)->messages++;
	conn_send(c, text, data, len);
	return true;
}

static void fake_drained(struct upstream *u, struct conn *c)
{
	((struct fake *)u)->drained++;
}

static void fake_closed(struct upstream *u, struct conn *c, enum close_reason reason, uint16_t code,
	const uint8_t *text, size_t len)
{
	struct fake *f = (struct fake *)u;

	f->closed++;
	f->reason = reason;
	f->code = code;
}

static const struct upstream_ops fake_ops = {
	.open = fake_open,
	.message = fake_message,
	.drained = fake_drained,
	.closed = fake_closed,
};

static const char *const origins[] = {"https://good.example"};
static const char *const protocols[] = {"v2.chat", "v1.chat"};

static const struct route routes[] = {
	{.listener = -1, .path = "/a", .upstream = 0},
	{.listener = -1,
		.path = "/b/*",
		.upstream = 1,
		.origins = origins,
		.n_origins = 1,
		.subprotocols = protocols,
		.n_subprotocols = 2},
	{.listener = -1, .path = "/c", .upstream = 2},
	{.listener = 1, .path = "/raw", .upstream = 0},
};

static struct fake fakes[3];
static struct upstream *upstreams[] = {&fakes[0].u, &fakes[1].u, &fakes[2].u};
static struct session_ids ids;
static struct sessions sessions;

static int start(struct harness *harness)
{
	sessions_init(&sessions, &harness->net,
		&(struct session_opts){
			.routes = routes,
			.n_routes = 4,
			.upstreams = upstreams,
			.n_upstreams = 3,
			.ids = &ids,
		});
	return 0;
}

static void begin(uint64_t epoch, uint64_t next)
{
	harness_defaults(&h);
	memset(fakes, 0, sizeof fakes);
	for (unsigned i = 0; i < 3; i++)
		fakes[i].u = (struct upstream){.ops = &fake_ops, .net = &h.net, .name = "fake"};
	ids.epoch = epoch;
	atomic_store(&ids.next, next);
	h.opts.n_listeners = 2;
	h.opts.listeners[1].protocol = CONN_RAW;
	h.opts.n_routes = 4;
	h.opts.ops = &session_conn_ops;
	h.opts.start = start;
	harness_start(&h);
}

static int open_with(const char *path, const char *more, char *head)
{
	char request[CLIENT_HEAD_BYTES];
	int fd = client_connect(h.ports[0], 0), len, status;

	len = client_ws_request(request, sizeof request, path, more);
	assert_true(client_write(fd, request, (size_t)len));
	status = client_read_head(fd, head, head ? CLIENT_HEAD_BYTES : 0);
	close(fd);
	return status;
}

static void refuse_last(struct harness *harness, void *arg)
{
	fakes[2].open = -EPROTO;
}

static void test_routes(void **state)
{
	int fd;

	begin(1, 0);
	assert_int_equal(open_with("/a", NULL, NULL), 101);
	assert_int_equal(open_with("/a?token=x", NULL, NULL), 101);
	assert_int_equal(open_with("/b", NULL, NULL), 101);
	assert_int_equal(open_with("/b/x/y", NULL, NULL), 101);
	assert_int_equal(open_with("/", NULL, NULL), 404);
	assert_int_equal(open_with("/raw", NULL, NULL), 404); /* of another listener */
	harness_call(&h, refuse_last, NULL);
	assert_int_equal(open_with("/c", NULL, NULL), 503);
	fd = client_connect(h.ports[1], 0);
	assert_true(client_raw_open(fd, "/raw", NULL));
	close(fd);
	fd = client_connect(h.ports[1], 0);
	assert_false(client_raw_open(fd, "/nowhere", NULL));
	close(fd);
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_int_equal(harness_peek(&h, &fakes[0].opens), 3);
	assert_int_equal(harness_peek(&h, &fakes[0].closed), 3);
	assert_int_equal(harness_peek(&h, &fakes[1].opens), 2);
	assert_int_equal(harness_peek(&h, &fakes[1].closed), 2);
	assert_int_equal(harness_peek(&h, &fakes[2].opens), 1);
	assert_int_equal(harness_peek(&h, &fakes[2].closed), 0);
	assert_int_equal(harness_peek(&h, &h.stats->protocol_errors[PROTO_ERR_ROUTE]), 3);
	assert_int_equal(harness_peek(&h, &h.stats->closes[CLOSE_NO_UPSTREAM]), 1);
	assert_true(harness_stop(&h));
}

static void test_messages_reach_their_upstream(void **state)
{
	int a, b;

	begin(1, 0);
	a = client_connect(h.ports[0], 0);
	b = client_connect(h.ports[0], 0);
	assert_int_equal(client_ws_open(a, "/a", NULL), 101);
	assert_int_equal(client_ws_open(b, "/b/x", NULL), 101);
	for (unsigned i = 0; i < 3; i++)
		assert_true(client_ws_echo(a, "to a"));
	assert_true(client_ws_echo(b, "to b"));
	assert_true(client_ws_send_close(a, 4002));
	assert_true(client_ws_closed_with(a, 4002));
	assert_true(harness_wait(&h, &fakes[0].closed, 1));
	assert_int_equal(fakes[0].code, 4002);
	assert_int_equal(fakes[0].reason, CLOSE_CLIENT);
	assert_int_equal(harness_peek(&h, &fakes[0].messages), 3);
	assert_int_equal(harness_peek(&h, &fakes[1].messages), 1);
	close(a);
	close(b);
	assert_true(harness_stop(&h));
}

static void test_origin(void **state)
{
	begin(1, 0);
	assert_int_equal(open_with("/b", "Origin: https://good.example\r\n", NULL), 101);
	assert_int_equal(open_with("/b", "Origin: https://evil.example\r\n", NULL), 403);
	assert_int_equal(open_with("/b", "Origin: null\r\n", NULL), 403);
	assert_int_equal(open_with("/a", "Origin: https://evil.example\r\n", NULL), 101);
	assert_int_equal(harness_peek(&h, &h.stats->protocol_errors[PROTO_ERR_ORIGIN]), 2);
	assert_true(harness_stop(&h));
}

static void test_subprotocol(void **state)
{
	static const struct {
		const char *more, *want;
		int status;
	} cases[] = {
		{NULL, NULL, 101},
		{"Sec-WebSocket-Protocol: v1.chat\r\n", "v1.chat", 101},
		{"Sec-WebSocket-Protocol: v3.chat, v2.chat, v1.chat\r\n", "v2.chat", 101},
		{"Sec-WebSocket-Protocol: v1.chat, v2.chat\r\n", "v1.chat", 101},
		{"Sec-WebSocket-Protocol: v2.cha\r\n", NULL, 101},
		{"Sec-WebSocket-Protocol: v2.chat;\r\n", NULL, 400},
	};
	char head[CLIENT_HEAD_BYTES], line[64];

	begin(1, 0);
	for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		assert_int_equal(open_with("/b", cases[i].more, head), cases[i].status);
		if (cases[i].want) {
			snprintf(
				line, sizeof line, "Sec-WebSocket-Protocol: %s\r\n", cases[i].want);
			assert_non_null(strstr(head, line));
		} else {
			assert_null(strstr(head, "Sec-WebSocket-Protocol"));
		}
	}
	assert_true(harness_stop(&h));
}

static uint64_t open_raw(void)
{
	uint64_t id = 0;
	int fd = client_connect(h.ports[1], 0);

	assert_true(client_raw_open(fd, "/raw", &id));
	close(fd);
	return id;
}

/* Ids carry the epoch, follow each other, and are never given twice, never 0. */
static void test_ids(void **state)
{
	uint64_t id;

	begin(7, 0);
	id = open_raw();
	assert_int_equal(id >> 32, 7);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(open_raw(), ++id);
	assert_true(harness_stop(&h));

	begin(0, 0);
	assert_int_not_equal(open_raw(), 0);
	assert_true(harness_stop(&h));
}

/* Another worker draws its ids from the same source. */
static void test_ids_of_two_workers(void **state)
{
	uint64_t first, second;

	begin(7, 0);
	first = open_raw();
	assert_true(harness_stop(&h));
	second = atomic_load(&ids.next);
	begin(7, second);
	assert_true(open_raw() > first);
	assert_true(harness_stop(&h));
}

/* After 2^32 sessions of one gateway, which a busy one has after a few days, ids go on rising. */
static void test_ids_beyond_32_bits(void **state)
{
	uint64_t last = 0;

	begin(7, 0xfffff000);
	for (unsigned i = 0; i < 4100; i++) {
		uint64_t id = open_raw();

		assert_true(id > last);
		last = id;
	}
	assert_true(harness_stop(&h));
}

static void drain(struct harness *harness, void *arg)
{
	harness->net.draining = true;
}

static void test_draining(void **state)
{
	char head[CLIENT_HEAD_BYTES];
	int fd;

	begin(1, 0);
	fd = client_connect(h.ports[0], 0);
	assert_int_equal(client_ws_open(fd, "/a", NULL), 101);
	harness_call(&h, drain, NULL);
	assert_int_equal(open_with("/a", NULL, head), 503);
	assert_non_null(strstr(head, "Retry-After"));
	assert_true(client_ws_echo(fd, "those inside go on"));
	close(fd);
	assert_true(harness_stop(&h));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_routes),
		cmocka_unit_test(test_messages_reach_their_upstream),
		cmocka_unit_test(test_origin),
		cmocka_unit_test(test_subprotocol),
		cmocka_unit_test(test_ids),
		cmocka_unit_test(test_ids_of_two_workers),
		cmocka_unit_test(test_ids_beyond_32_bits),
		cmocka_unit_test(test_draining),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
