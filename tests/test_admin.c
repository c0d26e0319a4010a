/* What the admin surface answers, over its real sockets, with a made-up gateway behind it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "ops/admin_query.h"
#include "support/admin_fixture.h"
#include "support/guard.h"
#include "support/prom.h"

static void test_probes(void **state)
{
	for (int door = TCP; door <= LOCAL; door++) {
		struct reply r = ask(door, "GET /healthz");
		assert_int_equal(r.status, 200);
		assert_string_equal(r.body, "ok\n");
		free(r.body);
		r = ask(door, "GET /readyz?from=balancer");
		assert_int_equal(r.status, 200);
		assert_string_equal(r.body, "ready\n");
		free(r.body);
		r = ask(door, "HEAD /healthz");
		assert_int_equal(r.status, 200);
		assert_int_equal(r.body_len, 0);
		free(r.body);
	}
	fake.ready = false;
	fake.why_not = "upstream service has no link up";
	struct reply r = ask(TCP, "GET /readyz");
	assert_int_equal(r.status, 503);
	assert_string_equal(r.body, "upstream service has no link up\n");
	free(r.body);
	r = ask(TCP, "GET /healthz");
	assert_int_equal(r.status, 200);
	free(r.body);
}

static void test_metrics(void **state)
{
	for (int door = TCP; door <= LOCAL; door++) {
		struct reply r = ask(door, "GET /metrics");
		struct prom p;
		assert_int_equal(r.status, 200);
		assert_true(r.complete);
		assert_non_null(strcasestr(
			r.head, "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
		if (!prom_parse(&p, r.body))
			fail_msg("%s", p.error);
		const char *worker[] = {"worker", "1"};
		assert_true(prom_find(&p, "tidegate_accepts_total", 1, worker)->value == 1001);
		assert_true(prom_find(&p, "process_resident_memory_bytes", 0, NULL)->value > 1e5);
		assert_non_null(prom_find(&p, "tidegate_link_up", 1, worker));
		prom_free(&p);
		free(r.body);
	}
	/* A worker that hangs must not take the metrics away. */
	fake.links_error = -ETIMEDOUT;
	struct reply r = ask(TCP, "GET /metrics");
	struct prom p;
	assert_int_equal(r.status, 200);
	assert_true(prom_parse(&p, r.body));
	assert_true(prom_find(&p, "tidegate_links_unknown", 0, NULL)->value == 1);
	prom_free(&p);
	free(r.body);
}

static void test_status(void **state)
{
	json_t *j = ask_json("GET /v1/status", 200);

	assert_string_equal(text(j, "instance"), "test");
	assert_string_equal(text(j, "version"), "9.8.7");
	assert_int_equal(number(j, "pid"), getpid());
	assert_in_range(number(j, "uptime_s"), 0, 60);
	assert_int_equal(number(j, "workers"), 2);
	assert_int_equal(number(j, "connections"), 85);
	assert_int_equal(number(j, "sessions"), 81);
	assert_int_equal(number(j, "handshaking"), 4);
	assert_int_equal(number(j, "accepts"), 2001);
	assert_int_equal(number(j, "forced_yields"), 14);
	assert_true(json_is_true(json_object_get(j, "ready")));
	assert_true(json_is_false(json_object_get(j, "draining")));
	json_t *closes = json_object_get(j, "closes");
	assert_int_equal(json_object_size(closes), 1);
	assert_int_equal(number(closes, "client"), 1800);
	json_t *errors = json_object_get(j, "protocol_errors");
	assert_int_equal(json_object_size(errors), 1);
	assert_int_equal(number(errors, "utf8"), 1);
	json_t *links = json_object_get(j, "links");
	assert_int_equal(number(links, "total"), 3);
	assert_int_equal(number(links, "up"), 2);
	assert_int_equal(number(links, "sessions"), 42);
	assert_int_equal(number(links, "queued_bytes"), 15);
	json_decref(j);
}

static void test_status_of_a_sick_gateway(void **state)
{
	fake.ready = false;
	fake.why_not = "draining: 12 s left";
	fake.links_error = -ETIMEDOUT;
	json_t *j = ask_json("GET /v1/status", 200);
	assert_true(json_is_false(json_object_get(j, "ready")));
	assert_true(json_is_true(json_object_get(j, "draining")));
	assert_string_equal(text(j, "not_ready_reason"), "draining: 12 s left");
	assert_true(json_is_null(json_object_get(j, "links")));
	assert_string_equal(text(j, "links_error"), "a worker did not answer within 2 s");
	json_decref(j);

	fake.why_not = "starting";
	j = ask_json("GET /v1/status", 200);
	assert_true(json_is_false(json_object_get(j, "draining")));
	json_decref(j);
}

static void test_workers(void **state)
{
	json_t *j = ask_json("GET /v1/workers", 200);

	assert_int_equal(json_array_size(j), 2);
	for (unsigned w = 0; w < 2; w++) {
		json_t *o = json_array_get(j, w);
		assert_int_equal(number(o, "worker"), w);
		assert_int_equal(number(o, "connections"), 42 + w);
		assert_int_equal(number(o, "accepting"), 1);
		json_t *delay = json_object_get(o, "run_delay_us");
		assert_int_equal(number(delay, "count"), 100);
		assert_int_equal(number(delay, "p50"), 10);
		assert_int_equal(number(delay, "max"), 3000);
		assert_int_equal(number(json_object_get(o, "loop_us"), "p99"), 5);
		assert_int_equal(number(json_object_get(o, "poll_delay_us"), "max"), 4000);
		assert_true(json_real_value(json_object_get(o, "busy_ratio")) == 0.25);
		assert_true(json_is_null(json_object_get(o, "cpu_wait_us")));
	}
	json_decref(j);
}

/* The same on both doors, by one sampler. */
static void test_live(void **state)
{
	for (int door = TCP; door <= LOCAL; door++) {
		struct reply r = ask(door, "GET /v1/live");
		json_t *j = json_loads(r.body, 0, NULL);

		assert_int_equal(r.status, 200);
		assert_true(r.complete);
		assert_non_null(strcasestr(r.head, "Content-Type: application/json\r\n"));
		assert_non_null(strcasestr(r.head, "Cache-Control: no-store\r\n"));
		assert_string_equal(text(j, "instance"), "test");
		assert_int_equal(json_array_size(json_object_get(j, "workers")), 2);
		assert_int_equal(json_array_size(json_object_get(j, "links")), 2);
		json_decref(j);
		free(r.body);
	}
	assert_error(TCP, "GET /v1/live?limit=1", 400, "unknown query key: limit");
	assert_error(TCP, "POST /v1/live", 405, "/v1/live takes GET, HEAD");
}

static int ask_status(const char *what, const char *headers)
{
	struct reply r = ask_with(TCP, what, headers);

	free(r.body);
	return r.status;
}

/* Without a token in the configuration there are no actions on TCP, with one its holder has some.
 */
static void test_actions_by_token(void **state)
{
	static const char right[] = "Authorization: Bearer 0123456789abcdef\r\n",
			  wrong[] = "Authorization: Bearer 0123456789abcdee\r\n";
	static const char *const allowed[] = {"POST /v1/gate/set?word=shut",
		"POST /v1/deny/add?prefix=192.0.2.0/24", "POST /v1/deny/del?prefix=192.0.2.0/24",
		"POST /v1/allow/add?prefix=192.0.2.0/24", "POST /v1/allow/del?prefix=192.0.2.0/24",
		"GET /v1/allow", "GET /v1/deny"};
	static const char *const never[] = {"POST /v1/drain", "POST /v1/kick?session=1",
		"POST /v1/publish?topic=a", "GET /v1/conns", "GET /v1/status"};
	enum {
		ALLOWED = sizeof(allowed) / sizeof(allowed[0]),
		NEVER = sizeof(never) / sizeof(never[0])
	};

	for (size_t i = 0; i < ALLOWED; i++)
		assert_int_equal(ask_status(allowed[i], right), 404);
	assert_int_equal(admin_token_set(&token, "0123456789abcdef\n", 17), 0);
	for (size_t i = 0; i < ALLOWED; i++) {
		assert_int_equal(ask_status(allowed[i], ""), 401);
		assert_int_equal(ask_status(allowed[i], wrong), 401);
		assert_int_equal(fake.gate.word, i ? GATE_WORD_SHUT : GATE_WORD_AUTO);
		assert_int_equal(ask_status(allowed[i], right), 200);
	}
	for (size_t i = 0; i < NEVER; i++)
		assert_int_equal(ask_status(never[i], right), 404);
	assert_int_equal(fake.drains, 0);
	struct reply r = ask(TCP, "GET /v1/deny");
	assert_non_null(strcasestr(r.head, "WWW-Authenticate: Bearer\r\n"));
	free(r.body);
	/* Not in the address, where logs and histories would keep it. */
	assert_int_equal(ask_status("GET /v1/deny?token=0123456789abcdef", ""), 401);
}

static void test_links(void **state)
{
	json_t *j = ask_json("GET /v1/links", 200);

	assert_int_equal(json_array_size(j), 3);
	json_t *up = json_array_get(j, 0), *down = json_array_get(j, 2);
	assert_string_equal(text(up, "upstream"), "service");
	assert_string_equal(text(up, "endpoint"), "tcp://127.0.0.1:9300");
	assert_true(json_is_true(json_object_get(up, "up")));
	assert_int_equal(number(up, "credit_bytes"), 8 << 20);
	assert_int_equal(number(up, "rtt_us"), 120);
	assert_string_equal(text(down, "state"), "waiting");
	assert_int_equal(number(down, "retry_in_ms"), 800);
	assert_string_equal(text(down, "last_error"), "bad HELLO: ?\x1b[2J");
	json_decref(j);
}

static void test_conns(void **state)
{
	json_t *j = ask_json("GET /v1/conns", 200);
	json_t *conns = json_object_get(j, "conns");

	assert_int_equal(fake.last_conns.limit, 100);
	assert_int_equal(number(j, "matched"), 20);
	assert_int_equal(json_array_size(conns), 20);
	json_t *first = json_array_get(conns, 0), *second = json_array_get(conns, 1);
	assert_string_equal(text(first, "session"), "18446744073709551615");
	assert_string_equal(text(first, "peer"), "192.0.2.1");
	assert_int_equal(number(first, "peer_port"), 10000);
	assert_string_equal(text(first, "route"), "/echo");
	assert_string_equal(text(second, "session"), "2");
	assert_string_equal(text(second, "peer"), "2001:db8::7");
	assert_string_equal(text(second, "upstream"), "service");
	assert_string_equal(text(second, "protocol"), "websocket");
	assert_string_equal(text(second, "state"), "open");
	assert_int_equal(number(second, "worker"), 1);
	assert_int_equal(number(second, "messages_out"), 2);
	assert_true(json_is_true(json_object_get(second, "reading_paused")));
	assert_string_equal(text(json_array_get(conns, 9), "session"), "0");
	json_decref(j);
}

static void test_conns_filters(void **state)
{
	json_t *j = ask_json(
		"GET /v1/conns?limit=3&route=%2Fchat&listener=public&peer=2001:DB8:0::7", 200);
	assert_int_equal(fake.last_conns.limit, 3);
	assert_string_equal(fake.last_conns.route, "/chat");
	assert_string_equal(fake.last_conns.listener, "public");
	assert_string_equal(fake.last_conns.peer, "2001:db8::7");
	assert_int_equal(number(j, "matched"), 10);
	assert_int_equal(json_array_size(json_object_get(j, "conns")), 3);
	json_decref(j);

	j = ask_json("GET /v1/conns?peer=::ffff:192.0.2.1", 200);
	assert_string_equal(fake.last_conns.peer, "192.0.2.1");
	json_decref(j);

	j = ask_json("GET /v1/conns?session=18446744073709551615", 200);
	assert_true(fake.last_conns.session == UINT64_MAX);
	assert_int_equal(number(j, "matched"), 1);
	json_decref(j);

	j = ask_json("GET /v1/conns?session=777777", 200);
	assert_int_equal(number(j, "matched"), 0);
	assert_int_equal(json_array_size(json_object_get(j, "conns")), 0);
	json_decref(j);
}

static void test_conns_huge(void **state)
{
	fake.n_conns = 50000;
	json_t *j = ask_json("GET /v1/conns?limit=100000", 200);
	json_t *conns = json_object_get(j, "conns");

	assert_int_equal(number(j, "matched"), 50000);
	assert_int_equal(json_array_size(conns), 50000);
	assert_string_equal(text(json_array_get(conns, 49998), "session"), "49999");
	json_decref(j);
}

static void test_bad_queries(void **state)
{
	static const struct {
		const char *what, *part;
	} cases[] = {
		{"GET /v1/conns?colour=red", "unknown query key: colour"},
		{"GET /v1/conns?code=1000", "unknown query key: code"},
		{"GET /v1/status?limit=1", "unknown query key: limit"},
		{"GET /v1/conns?a%0Ab%ff=1", "unknown query key: a?b?"},
		{"GET /v1/conns?limit%00x=1", "unknown query key: limit?x"},
		{"GET /v1/conns?limit", "limit needs a value"},
		{"GET /v1/conns?limit=", "limit must be"},
		{"GET /v1/conns?limit=0", "limit must be"},
		{"GET /v1/conns?limit=100001", "limit must be"},
		{"GET /v1/conns?limit=-1", "limit must be"},
		{"GET /v1/conns?limit=0x10", "limit must be"},
		{"GET /v1/conns?limit=+5", "limit must be"},
		{"GET /v1/conns?limit=1%001", "limit must not hold a NUL"},
		{"GET /v1/conns?limit=18446744073709551617", "limit must be"},
		{"GET /v1/conns?limit=5&limit=6", "limit is given twice"},
		{"GET /v1/conns?session=0", "session must be"},
		{"GET /v1/conns?session=18446744073709551616", "session must be"},
		{"GET /v1/conns?session=abc", "session must be"},
		{"GET /v1/conns?route=echo", "route must be"},
		{"GET /v1/conns?route=/a%0d%0ab", "route must be"},
		{"GET /v1/conns?listener=", "listener must be"},
		{"GET /v1/conns?peer=127.0.0.1:80", "peer must be"},
		{"GET /v1/conns?peer=localhost", "peer must be"},
		{"POST /v1/kick", "give either session or route"},
		{"POST /v1/kick?session=1&route=/echo", "give either session or route"},
		{"POST /v1/kick?session=1&code=999", "code must be"},
		{"POST /v1/kick?session=1&code=1005", "code must be"},
		{"POST /v1/kick?session=1&code=2000", "code must be"},
		{"POST /v1/kick?session=1&code=5000", "code must be"},
		{"POST /v1/kick?session=1&reason=%ff", "reason must be"},
		{"POST /v1/kick?limit=1", "unknown query key: limit"},
		{"GET /v1/topics?prefix=%ff", "prefix must be UTF-8"},
		{"GET /v1/topics?topic=a", "unknown query key: topic"},
		{"POST /v1/publish", "give the topic"},
		{"POST /v1/publish?topic=a/*", "topic must be a topic"},
		{"POST /v1/publish?topic=a//b", "topic must be a topic"},
		{"POST /v1/publish?topic=%ff", "topic must be a topic"},
		{"POST /v1/drain?now=1", "unknown query key: now"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_error(LOCAL, cases[i].what, 400, cases[i].part);
	assert_int_equal(fake.conns_calls, 0);
	assert_int_equal(fake.drains, 0);
}

static void assert_long_value(const char *before, size_t n, int status)
{
	char what[1024];
	int len = snprintf(what, sizeof(what), "%s", before);

	memset(what + len, 'r', n);
	what[(size_t)len + n] = '\0';
	struct reply r = ask(LOCAL, what);
	assert_int_equal(r.status, status);
	free(r.body);
}

static void test_longest_values(void **state)
{
	assert_long_value("GET /v1/conns?route=/", 254, 200);
	assert_int_equal(strlen(fake.last_conns.route), 255);
	assert_long_value("GET /v1/conns?route=/", 255, 400);
	assert_long_value("GET /v1/conns?listener=", 63, 200);
	assert_long_value("GET /v1/conns?listener=", 64, 400);
	assert_long_value("POST /v1/kick?session=2&reason=", 123, 200);
	assert_int_equal(strlen(fake.last_kick.reason), 123);
	assert_long_value("POST /v1/kick?session=2&reason=", 124, 400);
	assert_long_value("GET /v1/conns?peer=", 200, 400);
	assert_long_value("GET /v1/conns?", 900, 400);
}

static void test_paths_and_methods(void **state)
{
	assert_error(TCP, "GET /nothing", 404, "no such path");
	assert_error(LOCAL, "GET /v1/nothing", 404, "no such path");
	assert_error(LOCAL, "GET /v1/status/", 404, "no such path");
	assert_error(TCP, "GET /v1/status", 404, "admin socket only");
	assert_error(TCP, "POST /v1/drain", 404, "admin socket only");
	assert_error(TCP, "POST /metrics", 405, "/metrics takes GET, HEAD");
	assert_error(LOCAL, "DELETE /v1/conns", 405, "/v1/conns takes GET, HEAD");
	assert_error(LOCAL, "BREW /v1/conns", 405, "/v1/conns takes GET, HEAD");
	assert_error(LOCAL, "GET /v1/kick?session=1", 405, "/v1/kick takes POST");
	assert_error(LOCAL, "GET /v1/drain", 405, "/v1/drain takes POST");
	assert_int_equal(fake.drains, 0);

	struct reply r = ask(LOCAL, "GET /v1/drain");
	assert_non_null(strcasestr(r.head, "Allow: POST\r\n"));
	free(r.body);
}

static void test_bodies_are_refused(void **state)
{
	static const char *const heads[] = {
		"Content-Length: 5\r\n",
		"Transfer-Encoding: chunked\r\n",
	};
	for (int i = 0; i < 2; i++) {
		struct reply r = ask_with(LOCAL, "POST /v1/drain", heads[i]);
		assert_int_equal(r.status, 400);
		assert_non_null(strstr(r.body, "requests take no body"));
		free(r.body);
	}
	assert_int_equal(fake.drains, 0);
	struct reply r = ask_with(LOCAL, "POST /v1/drain", "Content-Length: 0\r\n");
	assert_int_equal(r.status, 202);
	free(r.body);
}

static void test_kick(void **state)
{
	json_t *j = ask_json("POST /v1/kick?session=2&code=4001&reason=bye%20%C3%A9", 200);
	assert_int_equal(number(j, "kicked"), 1);
	assert_true(fake.last_kick.which.session == 2);
	assert_int_equal(fake.last_kick.code, 4001);
	assert_string_equal(fake.last_kick.reason, "bye \xc3\xa9");
	json_decref(j);

	j = ask_json("POST /v1/kick?route=/echo", 200);
	assert_int_equal(number(j, "kicked"), 10);
	assert_string_equal(fake.last_kick.which.route, "/echo");
	assert_true(fake.last_kick.which.session == 0);
	assert_int_equal(fake.last_kick.code, 1008);
	assert_string_equal(fake.last_kick.reason, "");
	json_decref(j);

	assert_error(LOCAL, "POST /v1/kick?session=424242", 404, "no such session");
	fake.kick_error = -ETIMEDOUT;
	assert_error(LOCAL, "POST /v1/kick?session=2", 504, "a worker did not answer within 2 s");
}

static void test_sample(void **state)
{
	json_t *j = ask_json("GET /v1/sample", 200);

	assert_true(json_number_value(json_object_get(j, "percent")) == 0);
	json_decref(j);
	assert_error(LOCAL, "POST /v1/sample/set", 400, "give percent");
	assert_error(LOCAL, "POST /v1/sample/set?percent=101", 400,
		"percent must be a whole number from 0 to 100");
	assert_error(LOCAL, "POST /v1/sample/set?percent=2.5", 400,
		"percent must be a whole number from 0 to 100");
	json_decref(ask_json("POST /v1/sample/set?percent=25", 200));
	j = ask_json("GET /v1/sample", 200);
	assert_true(json_number_value(json_object_get(j, "percent")) == 25);
	json_decref(j);
	j = ask_json("GET /v1/workers", 200);
	json_t *wait = json_object_get(json_array_get(j, 1), "cpu_wait_us");
	assert_int_equal(number(wait, "count"), 1);
	assert_int_equal(number(wait, "max"), 40000);
	json_decref(j);
	fake.sample_error = -EOPNOTSUPP;
	assert_error(LOCAL, "POST /v1/sample/set?percent=1", 409,
		"admission is not in the kernel (admission.mode)");
	fake.sample_error = -EIO;
	assert_error(LOCAL, "POST /v1/sample/set?percent=1", 409,
		"the kernel does not measure; the log says why");
	fake.sample_error = -ETIMEDOUT;
	assert_error(LOCAL, "POST /v1/sample/set?percent=1", 503, "the keeper does not answer");
}

static void test_gate_errors(void **state)
{
	json_t *j = ask_json("GET /v1/gate", 200);

	assert_string_equal(json_string_value(json_object_get(j, "state")), "off");
	json_decref(j);
	assert_error(LOCAL, "POST /v1/gate/set", 400, "give word");
	assert_error(LOCAL, "POST /v1/gate/set?word=rate", 400, "the word rate needs rate");
	assert_error(LOCAL, "POST /v1/gate/set?word=open&rate=5", 400,
		"only the word rate takes a rate");
	assert_error(
		LOCAL, "POST /v1/gate/set?word=ajar", 400, "word must be auto, open, shut or rate");
	assert_error(LOCAL, "POST /v1/deny/add", 400, "give prefix");
	assert_error(
		LOCAL, "POST /v1/deny/add?prefix=10.0.0.0/33", 400, "prefix has a length above 32");
	assert_error(
		LOCAL, "POST /v1/allow/del?prefix=x", 400, "prefix is not an address or a prefix");
	fake.list_error = -E2BIG;
	assert_error(LOCAL, "POST /v1/deny/add?prefix=10.0.0.0/8", 409, "the list is full");
	fake.list_error = -ETIMEDOUT;
	assert_error(LOCAL, "POST /v1/deny/add?prefix=10.0.0.0/8", 504,
		"a worker did not answer within 2 s");
	assert_error(TCP, "POST /v1/gate/set?word=open", 404,
		"this path is served on the admin socket only");
}

static void test_drain(void **state)
{
	for (int i = 0; i < 2; i++) { /* the second finds it under way */
		json_t *j = ask_json("POST /v1/drain", 202);
		assert_true(json_is_true(json_object_get(j, "draining")));
		json_decref(j);
	}
	assert_int_equal(fake.drains, 2);
	fake.drain_error = -EIO;
	assert_error(LOCAL, "POST /v1/drain", 500, strerror(EIO));
}

static void test_topics(void **state)
{
	json_t *j = ask_json("GET /v1/topics", 200);
	json_t *list = json_object_get(j, "topics");

	assert_int_equal(number(j, "matched"), 3);
	assert_int_equal(json_array_size(list), 3);
	assert_string_equal(text(json_array_get(list, 1), "topic"), "room/*");
	assert_int_equal(number(json_array_get(list, 1), "sessions"), 2);
	assert_string_equal(text(json_array_get(list, 2), "topic"), "caf\303\251");
	json_decref(j);

	j = ask_json("GET /v1/topics?prefix=room/&limit=1", 200);
	assert_int_equal(number(j, "matched"), 2);
	assert_int_equal(json_array_size(json_object_get(j, "topics")), 1);
	assert_string_equal(fake.last_topics.prefix, "room/");
	assert_int_equal(fake.last_topics.limit, 1);
	json_decref(j);
}

/* A body of `len` bytes of 'x', and the status it is answered with. */
static int publish_long(size_t len)
{
	char *headers = malloc(len + 64);
	int n = snprintf(headers, 64, "Content-Length: %zu\r\n\r\n", len);

	memset(headers + n, 'x', len);
	headers[n + len] = '\0';
	struct reply r = ask_with(LOCAL, "POST /v1/publish?topic=a", headers);
	free(headers);
	free(r.body);
	return r.status;
}

static void test_publish(void **state)
{
	struct reply r = ask_with(
		LOCAL, "POST /v1/publish?topic=caf%C3%A9/1", "Content-Length: 7\r\n\r\n{\"a\":1}");

	assert_int_equal(r.status, 200);
	free(r.body);
	fake_sync(&fake);
	assert_string_equal(fake.last_topic, "caf\303\251/1");
	assert_string_equal(fake.last_data, "{\"a\":1}");
	r = ask_with(LOCAL, "POST /v1/publish?topic=a", "Content-Length: 1\r\n\r\n\xff");
	assert_int_equal(r.status, 400);
	free(r.body);
	assert_int_equal(publish_long(ADMIN_PUBLISH_MAX), 200);
	assert_int_equal(publish_long(ADMIN_PUBLISH_MAX + 1), 413);
	/* No other path takes one. */
	r = ask_with(LOCAL, "POST /v1/kick?session=1", "Content-Length: 1\r\n\r\nx");
	assert_int_equal(r.status, 400);
	free(r.body);
	fake.publish_error = -ENOBUFS;
	assert_error(LOCAL, "POST /v1/publish?topic=a", 503, "too many publications");
}

static void test_timeouts(void **state)
{
	fake.conns_error = fake.links_error = -ETIMEDOUT;
	assert_error(LOCAL, "GET /v1/conns", 504, "a worker did not answer within 2 s");
	assert_error(LOCAL, "GET /v1/links", 504, "a worker did not answer within 2 s");
	fake.conns_error = -ENOMEM;
	assert_error(LOCAL, "GET /v1/conns", 500, strerror(ENOMEM));
}

/* Keys come with a length and no NUL. */
static void test_keys_against_a_guard_page(void **state)
{
	static const char *const keys[] = {
		"limit", "limi", "limit2", "route", "", "x", "sessionsession"};
	struct guard g;

	guard_init(&g, 4096);
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		struct admin_query q;
		char error[ADMIN_ERROR_MAX] = "";
		size_t len = strlen(keys[i]);
		const char *key = (const char *)guard_copy(&g, keys[i], len);
		admin_query_init(&q);
		int r = admin_query_set(&q, ADMIN_KEY_LIMIT, key, len, "7", 1, error);
		assert_int_equal(r, strcmp(keys[i], "limit") ? -EINVAL : 0);
		assert_int_equal(error[0] != '\0', r < 0);
	}
	guard_fini(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_ADMIN(test_probes),
		WITH_ADMIN(test_metrics),
		WITH_ADMIN(test_status),
		WITH_ADMIN(test_status_of_a_sick_gateway),
		WITH_ADMIN(test_workers),
		WITH_ADMIN(test_live),
		WITH_ADMIN(test_actions_by_token),
		WITH_ADMIN(test_links),
		WITH_ADMIN(test_conns),
		WITH_ADMIN(test_conns_filters),
		WITH_ADMIN(test_conns_huge),
		WITH_ADMIN(test_bad_queries),
		WITH_ADMIN(test_longest_values),
		WITH_ADMIN(test_paths_and_methods),
		WITH_ADMIN(test_bodies_are_refused),
		WITH_ADMIN(test_kick),
		WITH_ADMIN(test_topics),
		WITH_ADMIN(test_publish),
		WITH_ADMIN(test_gate_errors),
		WITH_ADMIN(test_sample),
		WITH_ADMIN(test_drain),
		WITH_ADMIN(test_timeouts),
		cmocka_unit_test(test_keys_against_a_guard_page),
	};
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
