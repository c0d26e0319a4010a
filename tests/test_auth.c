/* Tokens at a worker: what happens while one is verified, and what a session may then do. The
 * crypto thread is held up where the order of things matters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <semaphore.h>
#include <time.h>

#include "app/session.h"
#include "support/auth_fixture.h"
#include "support/net_harness.h"

static struct harness h;
static struct key_pair rsa, other;
static struct auth_keys *keys;
static struct crypto *crypto;
static char good[2048], no_topics[2048], topics[2048];
static const char secret[] = "0123456789abcdef0123456789abcdef";

static struct conn *last; /* opened last; the worker's */
static uint64_t opens, closed;
static char subject[64];

static int up_open(struct upstream *u, struct conn *c, const struct conn_hello *hello,
	uint16_t *ret_status, const char **ret_why)
{
	last = c;
	opens++;
	snprintf(subject, sizeof subject, "%s", hello->subject ? hello->subject : "");
	return 0;
}

static bool up_message(struct upstream *u, struct conn *c, bool text, uint8_t *data, size_t len)
{
	conn_send(c, text, data, len);
	return true;
}

static void up_drained(struct upstream *u, struct conn *c)
{
}

static void up_closed(struct upstream *u, struct conn *c, enum close_reason reason, uint16_t code,
	const uint8_t *text, size_t len)
{
	closed++;
}

static const struct upstream_ops up_ops = {
	.open = up_open, .message = up_message, .drained = up_drained, .closed = up_closed};
static struct upstream up = {.ops = &up_ops, .name = "fake"};
static struct upstream *ups[] = {&up};

static const struct auth_policy jwt_policy = {.type = AUTH_JWT, .topics_all = true},
				strict_policy = {.type = AUTH_JWT},
				token_policy = {
					.type = AUTH_TOKEN, .topics_all = true, .refresh = true};
static const struct route routes[] = {
	{.listener = -1, .path = "/open"},
	{.listener = -1, .path = "/jwt", .auth = &jwt_policy},
	{.listener = -1, .path = "/strict", .auth = &strict_policy},
	{.listener = -1, .path = "/token", .auth = &token_policy},
};
static struct session_ids ids = {.epoch = 1};
static struct sessions sessions;

static struct auth_keys *make_keys(const struct key_pair *pair)
{
	static const struct auth_key_spec specs[] = {{"rs", JWT_RS256}, {"hs", JWT_HS256}};
	const struct auth_file files[] = {
		file_of(secret), file_of(pair->public_pem), file_of(secret)};
	struct auth_keys *k;
	const char *why;
	unsigned bad;

	assert_int_equal(auth_keys_create(specs, 2, 1, files, &k, &bad, &why), 0);
	return k;
}

static int group_setup(void **state)
{
	char claims[256], *t;
	long exp = (long)time(NULL) + 3600;

	key_pair_rsa(2048, &rsa);
	key_pair_rsa(2048, &other);
	snprintf(claims, sizeof claims, "{\"sub\":\"alice\",\"exp\":%ld}", exp);
	t = jwt_make(JWT_ALG_RS256, rsa.private_pem, "rs", claims);
	strcpy(good, t);
	free(t);
	snprintf(claims, sizeof claims,
		"{\"exp\":%ld,\"may\":{\"subscribe\":[\"room/*\"],\"publish\":[\"room/7\"]}}", exp);
	t = jwt_make(JWT_ALG_HS256, secret, "hs", claims);
	strcpy(topics, t);
	free(t);
	snprintf(claims, sizeof claims, "{\"exp\":%ld,\"may\":true}", exp);
	t = jwt_make(JWT_ALG_HS256, secret, "hs", claims);
	strcpy(no_topics, t);
	free(t);
	return 0;
}

static int start(struct harness *harness)
{
	sessions_init(&sessions, &harness->net,
		&(struct session_opts){
			.routes = routes,
			.n_routes = 4,
			.upstreams = ups,
			.n_upstreams = 1,
			.ids = &ids,
			.auth = {.claim = "may", .token_max = 4096, .crypto = crypto, .keys = keys},
		});
	return 0;
}

static uint64_t left_sessions;

static void stop(struct harness *harness)
{
	left_sessions = sessions.slab.used;
	sessions_fini(&sessions);
}

static void begin(uint32_t handshake_timeout_ms)
{
	const struct crypto_opts opts = {.threads = 1, .queue = 2, .mail_kind = HARNESS_CRYPTO};

	harness_defaults(&h);
	opens = closed = 0;
	up.net = &h.net;
	keys = make_keys(&rsa);
	assert_int_equal(crypto_create(&opts, &crypto), 0);
	h.opts.n_listeners = 2;
	h.opts.listeners[1].protocol = CONN_RAW;
	h.opts.n_routes = 4;
	h.opts.ops = &session_conn_ops;
	h.opts.start = start;
	h.opts.stop = stop;
	h.opts.conn.handshake_timeout_ms = handshake_timeout_ms;
	h.opts.conn.close_timeout_ms = 50;
	harness_start(&h);
}

static void end(void)
{
	crypto_stop(crypto);
	assert_true(harness_stop(&h));
	crypto_destroy(crypto);
	auth_keys_unref(keys);
	assert_int_equal(left_sessions, 0);
}

/* A job that holds the crypto thread up. */
static struct crypto_job plug;
static sem_t plugged, unplug;

static void plug_run(struct crypto_job *j)
{
	sem_post(&plugged);
	sem_wait(&unplug);
}

static void plug_done(struct crypto_job *j)
{
}

static void hold_crypto(void)
{
	sem_init(&plugged, 0, 0);
	sem_init(&unplug, 0, 0);
	plug = (struct crypto_job){plug_run, plug_done, plug_done, NULL};
	assert_int_equal(crypto_submit(crypto, &plug, h.w), 0);
	sem_wait(&plugged);
}

static int ask(const char *path, const char *token)
{
	char request[4096], more[2200];
	int fd = client_connect(h.ports[0], 0), len;

	snprintf(more, sizeof more, "Authorization: Bearer %s\r\n", token);
	len = client_ws_request(request, sizeof request, path, more);
	assert_true(client_write(fd, request, (size_t)len));
	return fd;
}

static int answer(int fd)
{
	int status = client_read_head(fd, NULL, 0);

	close(fd);
	return status;
}

static uint64_t failures(enum auth_failure f)
{
	return harness_peek(&h, &h.stats->auth_failures[f]);
}

static void test_verified(void **state)
{
	char who[sizeof subject];

	begin(10000);
	assert_int_equal(answer(ask("/jwt", good)), 101);
	harness_copy(&h, who, subject, sizeof who);
	assert_string_equal(who, "alice");
	assert_int_equal(answer(ask("/jwt", topics)), 101);
	assert_int_equal(answer(ask("/jwt", "x")), 401);
	assert_int_equal(failures(AUTH_FAIL_MALFORMED), 1);
	end();
}

/* Who needs no token carries nothing for it. */
static void test_open_route_costs_nothing(void **state)
{
	struct conn *c, copy;
	int fd;

	begin(10000);
	fd = client_connect(h.ports[0], 0);
	assert_int_equal(client_ws_open(fd, "/open", NULL), 101);
	harness_copy(&h, &c, &last, sizeof c);
	harness_copy(&h, &copy, c, sizeof copy);
	assert_null(copy.app);
	close(fd);
	end();
}

static void wait_for_sessions(uint64_t n)
{
	while (harness_peek(&h, (uint64_t *)&sessions.slab.used) != n)
		client_sleep_ms(1);
}

static void remember(struct conn *c, void *ctx)
{
	*(struct conn **)ctx = c;
}

static void only_conn(struct harness *harness, void *arg)
{
	uint64_t cursor = 0;

	conn_walk(&harness->net, &cursor, 1000, remember, arg);
}

/* The handshake's deadline holds while a token waits; the verdict that comes after it finds nobody,
 * also where somebody else has the slot by then. */
static void test_deadline_and_reuse(void **state)
{
	struct conn *first = NULL, *second;
	int fd, next;

	begin(100);
	hold_crypto();
	fd = ask("/jwt", good);
	wait_for_sessions(1);
	harness_call(&h, only_conn, &first);
	assert_int_equal(client_read_head(fd, NULL, 0), 408);
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	next = client_connect(h.ports[0], 0);
	assert_int_equal(client_ws_open(next, "/open", NULL), 101);
	harness_copy(&h, &second, &last, sizeof second);
	assert_ptr_equal(second, first);
	sem_post(&unplug);
	close(fd);
	assert_true(client_ws_echo(next, "not disturbed"));
	assert_int_equal(harness_peek(&h, &opens), 1);
	close(next);
	end();
}

static void kill_all(struct conn *c, void *ctx)
{
	conn_kill(c, CLOSE_KICKED);
}

static void kick(struct harness *harness, void *arg)
{
	uint64_t cursor = 0;

	conn_walk(&harness->net, &cursor, 1000, kill_all, NULL);
}

/* Ended by an operator, and by the worker's end, while their tokens wait. */
static void test_ended_meanwhile(void **state)
{
	int a, b;

	begin(10000);
	hold_crypto();
	a = ask("/jwt", good);
	wait_for_sessions(1);
	harness_call(&h, kick, NULL);
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	wait_for_sessions(0);
	b = ask("/jwt", good);
	wait_for_sessions(1);
	sem_post(&unplug);
	end();
	close(a);
	close(b);
}

/* One token is held up, two may wait: the fourth is told to come back. */
static void test_busy(void **state)
{
	int fd[3];

	begin(10000);
	hold_crypto();
	for (unsigned i = 0; i < 2; i++) {
		fd[i] = ask("/jwt", good);
		wait_for_sessions(i + 1);
	}
	assert_int_equal(answer(ask("/jwt", good)), 503);
	assert_int_equal(answer(ask("/jwt", topics)), 101); /* HS256 waits for nobody */
	assert_int_equal(failures(AUTH_FAIL_BUSY), 1);
	sem_post(&unplug);
	assert_int_equal(answer(fd[0]), 101);
	assert_int_equal(answer(fd[1]), 101);
	end();
}

static void swap(struct harness *harness, void *arg)
{
	auth_keys_swap(&sessions.auth, arg);
}

/* Who was being verified when the keys changed is judged by those it came with. */
static void test_keys_change_meanwhile(void **state)
{
	int fd;

	begin(10000);
	hold_crypto();
	fd = ask("/jwt", good);
	wait_for_sessions(1);
	harness_call(&h, swap, make_keys(&other));
	sem_post(&unplug);
	assert_int_equal(answer(fd), 101);
	assert_int_equal(answer(ask("/jwt", good)), 401);
	assert_int_equal(failures(AUTH_FAIL_SIGNATURE), 1);
	end();
}

struct may {
	bool sub_room, sub_star, sub_other, pub_7, pub_8;
};

static void look(struct harness *harness, void *arg)
{
	struct may *m = arg;

	*m = (struct may){
		session_may(last, SESSION_SUBSCRIBE, "room/1", 6),
		session_may(last, SESSION_SUBSCRIBE, "room/*", 6),
		session_may(last, SESSION_SUBSCRIBE, "other", 5),
		session_may(last, SESSION_PUBLISH, "room/7", 6),
		session_may(last, SESSION_PUBLISH, "room/8", 6),
	};
}

static void expect_may(const char *path, const char *token, struct may want)
{
	struct may got;
	int fd = ask(path, token);

	assert_int_equal(client_read_head(fd, NULL, 0), 101);
	harness_call(&h, look, &got);
	assert_memory_equal(&got, &want, sizeof got);
	close(fd);
}

static void test_permissions_of_claims(void **state)
{
	const struct may all = {true, true, true, true, true},
			 none = {false, false, false, false, false},
			 some = {true, true, false, true, false};
	char token[TOKEN_MAX + 1];

	begin(10000);
	assert_true(token_write(token, "bob", 3, (uint64_t)time(NULL) + 100,
		&(struct token_secret){secret, strlen(secret)}));
	expect_may("/open", "x", all);
	expect_may("/jwt", good, all);
	expect_may("/strict", good, none);
	expect_may("/jwt", topics, some);
	expect_may("/strict", topics, some);
	expect_may("/jwt", no_topics, none); /* the claim is there, and grants nothing */
	expect_may("/token", token, all);
	end();
}

/* Raw clients are told by the code that tells of an expiry too. */
static void test_raw(void **state)
{
	char hello[4096] = {TG_RAW_VERSION, 4, '/', 'j', 'w', 't'};
	uint8_t frame[4200];
	size_t n;
	int fd;

	begin(10000);
	for (unsigned bad = 0; bad < 2; bad++) {
		uint8_t got[5 + 125];

		strcpy(hello + 6, good);
		if (bad)
			hello[6 + strlen(good) - 2] ^= 1;
		n = raw_header_write(frame, TG_RAW_HELLO, (uint32_t)(6 + strlen(good)));
		memcpy(frame + n, hello, 6 + strlen(good));
		fd = client_connect(h.ports[1], 0);
		assert_true(client_write(fd, frame, n + 6 + strlen(good)));
		assert_true(client_read(fd, got, 7));
		assert_int_equal(got[4], bad ? TG_RAW_CLOSE : TG_RAW_WELCOME);
		if (bad)
			assert_int_equal(got[5] << 8 | got[6], CONN_CLOSE_UNAUTHORIZED);
		close(fd);
	}
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_verified),
		cmocka_unit_test(test_open_route_costs_nothing),
		cmocka_unit_test(test_deadline_and_reuse),
		cmocka_unit_test(test_ended_meanwhile),
		cmocka_unit_test(test_busy),
		cmocka_unit_test(test_keys_change_meanwhile),
		cmocka_unit_test(test_permissions_of_claims),
		cmocka_unit_test(test_raw),
	};
	return cmocka_run_group_tests(tests, group_setup, NULL);
}
