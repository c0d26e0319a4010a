/* app/hub: what a client's requests are answered with, by permission, limits and time. One worker;
 * connections, sessions and permissions are made up. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "app/exchange_internal.h"
#include "app/hub.h"
#include "app/session.h"

enum {
	CONNS = 4,
	ANSWERS = 64,
	SECOND_NS = 1000000000,
};

static struct exchange_peers peers = {.n = 1};
static struct worker worker;
static struct net net;
static struct ring ring;
static struct tg_worker_stats stats;
static struct upstream *hub;
static struct conn conns[CONNS];
static char answer[CONNS][ANSWERS][512];
static unsigned n_answers[CONNS];
static bool resumed[CONNS];
static bool end_at_answer; /* as the policy `disconnect` does */
static uint64_t now_ns;    /* as far as requests see it */
static const char *denied; /* the topic that may be neither heard nor published to */

/* -------------------------------------------------------------------------------- made up */

uint32_t conn_slot(const struct conn *c)
{
	return (uint32_t)(c - conns);
}

static void end(struct conn *c)
{
	struct session *s = c->app;

	if (s)
		net.topics->closed(&net, c);
	free(s);
	c->app = NULL;
	c->state = CONN_CLOSING;
}

int conn_send(struct conn *c, bool text, const void *data, size_t len)
{
	unsigned i = conn_slot(c);

	assert_true(text && n_answers[i] < ANSWERS);
	snprintf(answer[i][n_answers[i]++], sizeof answer[i][0], "%.*s", (int)len,
		(const char *)data);
	if (end_at_answer)
		end(c);
	return 0;
}

struct frame *conn_frame(struct net *n, enum conn_protocol protocol, bool text, uint64_t key,
	const void *data, size_t len)
{
	struct frame *f = frame_alloc(&n->bufs, key, (uint32_t)len);

	(void)protocol;
	(void)text;
	memcpy(f->data, data, len);
	return f;
}

int conn_send_frame(struct conn *c, struct frame *f)
{
	return conn_send(c, true, f->data, f->len);
}

void conn_resume(struct conn *c)
{
	resumed[conn_slot(c)] = true;
}

struct session *session_get(struct conn *c)
{
	if (!c->app)
		c->app = calloc(1, sizeof(struct session));
	return c->app;
}

bool session_may(const struct conn *c, enum session_action action, const char *topic, size_t len)
{
	(void)c;
	(void)action;
	return !denied || strlen(denied) != len || memcmp(denied, topic, len);
}

/* -------------------------------------------------------------------------------- the fixture */

/* One piece of the worker's work; false: there is none. */
static bool run_one(void)
{
	struct runq_item *it = worker.parked ? worker.parked : runq_pop(&worker.runq);
	struct job *j;

	if (!it)
		return false;
	j = (struct job *)((char *)it - offsetof(struct job, run));
	if (it == worker.parked)
		worker_remove(&worker, it);
	j->fn(&worker, j);
	return true;
}

static void run(void)
{
	while (run_one())
		;
}

static int set_up(void **state)
{
	static const uint64_t quantum[RUNQ_CLASSES] = {1, 1, 1, 1, 1};
	static const struct hub_limits limits[] = {
		{.topics_per_session = 3, .payload_max = 100},
		{.topics_per_session = 3, .payload_max = 1000, .messages_per_second = 5},
		{.topics_per_session = 3, .payload_max = 1000, .bytes_per_second = 100},
	};
	struct hub_opts opts = {.peers = &peers, .limits = limits};

	(void)state;
	memset(&worker, 0, sizeof worker);
	memset(&net, 0, sizeof net);
	memset(&stats, 0, sizeof stats);
	memset(conns, 0, sizeof conns);
	memset(n_answers, 0, sizeof n_answers);
	memset(resumed, 0, sizeof resumed);
	end_at_answer = false;
	denied = NULL;
	worker.stats = net.stats = &stats;
	worker.net = &net;
	worker.opts.turn_us = 1000000;
	worker.start_ns = worker_clock_ns();
	now_ns = worker_now(&worker);
	wheel_init(&worker.wheel, worker.now_ms);
	runq_init(&worker.runq, quantum);
	ring.objects = (uint8_t *)conns;
	ring.object_bytes = sizeof(struct conn);
	worker.ring[0] = &ring;
	worker.n_rings = 1;
	net.w = &worker;
	buf_pool_init(&net.bufs, 1 << 20);
	assert_int_equal(hub_create(&net, &opts, &hub), 0);
	for (unsigned i = 0; i < CONNS; i++) {
		conns[i].state = CONN_OPEN;
		conns[i].session = i + 1;
		conns[i].route = (uint16_t)(i < 3 ? i : 0);
	}
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	for (unsigned i = 0; i < CONNS; i++)
		end(&conns[i]);
	run();
	assert_int_equal(stats.subscriptions, 0);
	assert_int_equal(stats.topics, 0);
	hub->ops->destroy(hub);
	buf_pool_fini(&net.bufs);
	return 0;
}

/* What conn i is answered with first; NULL: nothing. */
static const char *ask(unsigned i, const char *request)
{
	char copy[2048];
	size_t len = strlen(request);

	memcpy(copy, request, len);
	n_answers[i] = 0;
	worker.now_ns = now_ns;
	assert_true(hub->ops->message(hub, &conns[i], true, (uint8_t *)copy, len));
	run();
	return n_answers[i] ? answer[i][0] : NULL;
}

static void assert_code(unsigned i, const char *request, const char *code)
{
	char part[64];
	const char *got = ask(i, request);

	snprintf(part, sizeof part, "\"code\":\"%s\"", code);
	if (!got || !strstr(got, part))
		fail_msg("%s: %s", request, got ? got : "no answer");
}

static void assert_ok(unsigned i, const char *request)
{
	const char *got = ask(i, request);

	if (got && strstr(got, "\"error\""))
		fail_msg("%s: %s", request, got);
}

static uint64_t refused(void)
{
	uint64_t n = 0;

	for (unsigned e = 0; e < HUB_ERRORS; e++)
		n += stats.hub_refused[e];
	return n;
}

/* -------------------------------------------------------------------------------- tests */

static void test_permissions(void **state)
{
	(void)state;
	denied = "secret/*";
	assert_code(0, "{\"type\":\"subscribe\",\"topic\":\"secret/*\",\"id\":1}", "forbidden");
	denied = "secret/a";
	assert_code(0, "{\"type\":\"subscribe\",\"topic\":\"secret/a\"}", "forbidden");
	assert_code(0, "{\"type\":\"publish\",\"topic\":\"secret/a\",\"data\":1}", "forbidden");
	assert_code(0, "{\"type\":\"presence\",\"topic\":\"secret/a\"}", "forbidden");
	assert_int_equal(stats.hub_refused[HUB_ERROR_FORBIDDEN], 4);
	assert_int_equal(stats.subscriptions, 0);
	assert_int_equal(stats.hub_published, 0);
	assert_ok(0, "{\"type\":\"subscribe\",\"topic\":\"secret/b\"}");
	/* What was allowed once can be given up. */
	denied = "secret/b";
	assert_ok(0, "{\"type\":\"unsubscribe\",\"topic\":\"secret/b\",\"id\":1}");
	assert_string_equal(answer[0][0], "{\"type\":\"ack\",\"id\":1}");
}

static void test_messages_a_second(void **state)
{
	static const char request[] = "{\"type\":\"publish\",\"topic\":\"t\",\"data\":1}";

	(void)state;
	for (unsigned i = 0; i < 5; i++)
		assert_ok(1, request);
	assert_code(1, request, "rate_limited");
	/* Others have a rate of their own. */
	assert_ok(0, request);
	now_ns += SECOND_NS / 5;
	assert_ok(1, request);
	assert_code(1, request, "rate_limited");
	/* All requests count, whatever becomes of them, and the answer still says which one it is.
	 */
	now_ns += SECOND_NS / 5;
	assert_code(1, "{\"type\":\"unsubscribe\",\"topic\":\"t\"}", "not_subscribed");
	assert_code(1, "{\"type\":\"unsubscribe\",\"topic\":\"t\",\"id\":7}", "rate_limited");
	assert_non_null(strstr(answer[1][0], "\"id\":7"));
	/* However long it was silent, a second's worth comes at once. */
	now_ns += 100 * (uint64_t)SECOND_NS;
	for (unsigned i = 0; i < 5; i++)
		assert_ok(1, request);
	assert_code(1, request, "rate_limited");
}

static void test_bytes_a_second(void **state)
{
	char request[600];

	(void)state;
	snprintf(request, sizeof request,
		"{\"type\":\"publish\",\"topic\":\"t\",\"data\":\"%048d\"}", 0); /* 50 bytes */
	assert_ok(2, request);
	assert_ok(2, request);
	assert_code(2, request, "rate_limited");
	assert_ok(2, "{\"type\":\"subscribe\",\"topic\":\"t\"}");
	now_ns += SECOND_NS / 2;
	assert_ok(2, request);
	assert_code(2, request, "rate_limited");
	/* More than a second's worth goes when nothing is owed, and is paid for then. */
	now_ns += 2 * (uint64_t)SECOND_NS;
	snprintf(request, sizeof request,
		"{\"type\":\"publish\",\"topic\":\"t\",\"data\":\"%0498d\"}", 0);
	assert_ok(2, request);
	now_ns += 4 * (uint64_t)SECOND_NS - 1;
	assert_code(2, request, "rate_limited");
	now_ns += SECOND_NS + 1;
	assert_ok(2, request);
}

static void test_draining(void **state)
{
	struct conn_hello hello = {0};
	const char *why;
	uint16_t status;

	(void)state;
	assert_int_equal(hub->ops->open(hub, &conns[0], &hello, &status, &why), 0);
	assert_ok(0, "{\"type\":\"subscribe\",\"topic\":\"t\"}");
	hub->ops->drain(hub);
	assert_int_equal(hub->ops->open(hub, &conns[0], &hello, &status, &why), -EPROTO);
	assert_int_equal(status, 503);
	assert_code(0, "{\"type\":\"subscribe\",\"topic\":\"u\"}", "unavailable");
	/* Those there are go on talking. */
	assert_ok(1, "{\"type\":\"publish\",\"topic\":\"t\",\"data\":1}");
	assert_string_equal(
		answer[0][n_answers[0] - 1], "{\"type\":\"message\",\"topic\":\"t\",\"data\":1}");
}

static void test_binary(void **state)
{
	uint8_t data[] = "{}";

	(void)state;
	assert_true(hub->ops->message(hub, &conns[0], false, data, 2));
	assert_non_null(strstr(answer[0][0], "\"code\":\"malformed\""));
	assert_int_equal(refused(), 1);
}

/* Any answer may be the end of its session. */
static void test_sessions_that_end_at_an_answer(void **state)
{
	static const char *const requests[] = {
		"x",
		"{\"type\":\"subscribe\",\"topic\":\"t\",\"id\":1}",
		"{\"type\":\"unsubscribe\",\"topic\":\"t\",\"id\":1}",
		"{\"type\":\"publish\",\"topic\":\"t\",\"data\":1,\"id\":1}",
		"{\"type\":\"presence\",\"topic\":\"t\",\"id\":1}",
	};

	(void)state;
	for (unsigned i = 0; i < sizeof requests / sizeof requests[0]; i++) {
		end_at_answer = false;
		conns[0].state = CONN_OPEN;
		assert_ok(0, "{\"type\":\"subscribe\",\"topic\":\"t\"}");
		assert_ok(0, "{\"type\":\"subscribe\",\"topic\":\"*\"}");
		end_at_answer = true;
		ask(0, requests[i]);
		assert_null(conns[0].app);
		assert_int_equal(stats.subscriptions, 0);
	}
}

/* As services see it. */
static void test_services(void **state)
{
	struct topic_pause p = {0};

	(void)state;
	net.topics->subscribe(&net, &conns[3], "t", 1);
	net.topics->subscribe(&net, &conns[3], "a//b", 4);
	net.topics->unsubscribe(&net, &conns[3], "u", 1);
	assert_int_equal(stats.hub_refused[HUB_ERROR_BAD_TOPIC], 1);
	assert_int_equal(stats.hub_refused[HUB_ERROR_NOT_SUBSCRIBED], 1);
	assert_true(net.topics->publish(&net, "t", 1, true, (const uint8_t *)"\xff", 1, &p));
	assert_int_equal(stats.hub_refused[HUB_ERROR_MALFORMED], 1);
	assert_true(net.topics->publish(&net, "*", 1, true, (const uint8_t *)"x", 1, &p));
	assert_int_equal(stats.hub_refused[HUB_ERROR_BAD_TOPIC], 2);
	assert_int_equal(stats.hub_published, 0);
	assert_ok(0, "{\"type\":\"subscribe\",\"topic\":\"t\"}");
	/* A limit of clients is none of services'. */
	for (unsigned i = 0; i < 10; i++) {
		char topic[2] = {(char)('0' + i), 0};

		net.topics->subscribe(&net, &conns[3], topic, 1);
	}
	assert_int_equal(stats.subscriptions, 12);
	assert_true(net.topics->publish(&net, "t", 1, true, (const uint8_t *)"say \"x\"", 7, &p));
	run();
	assert_string_equal(answer[3][0], "say \"x\"");
	assert_string_equal(
		answer[0][0], "{\"type\":\"message\",\"topic\":\"t\",\"data\":\"say \\\"x\\\"\"}");
}

/* Until the fan-outs get on, a publisher is to pause; it is told when they do. */
static void test_pause(void **state)
{
	uint8_t request[] = "{\"type\":\"publish\",\"topic\":\"t\",\"data\":1,\"id\":1}";
	bool go_on = true;
	unsigned n = 0;

	(void)state;
	assert_ok(0, "{\"type\":\"subscribe\",\"topic\":\"t\"}");
	while (go_on) {
		uint8_t copy[sizeof request];

		memcpy(copy, request, sizeof request);
		n_answers[3] = 0;
		go_on = hub->ops->message(hub, &conns[3], true, copy, sizeof request - 1);
		assert_string_equal(answer[3][0], "{\"type\":\"ack\",\"id\":1}");
		assert_true(++n <= 2 * EXCHANGE_WINDOW_MESSAGES + 1);
	}
	assert_false(resumed[3]);
	for (unsigned i = 0; i < n && !resumed[3]; i++) {
		n_answers[0] = 0;
		worker.opts.turn_us = 0; /* a message a turn */
		assert_true(run_one());
	}
	assert_true(resumed[3]);
	worker.opts.turn_us = 1000000;
	end(&conns[0]);
	run();
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_permissions),
		TEST(test_messages_a_second),
		TEST(test_bytes_a_second),
		TEST(test_draining),
		TEST(test_binary),
		TEST(test_sessions_that_end_at_an_answer),
		TEST(test_services),
		TEST(test_pause),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
