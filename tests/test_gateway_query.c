#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <pthread.h>

#include "support/gateway_harness.h"

static struct gateway_harness h;

static const struct conns_query all = {.limit = 1000000};

struct answer {
	struct conn_info *conns;
	size_t n, matched;
};

static struct answer ask(const struct conns_query *q)
{
	struct answer a = {NULL, 0, 0};

	assert_int_equal(gateway_conns(&h.g, q, &a.conns, &a.n, &a.matched), 0);
	return a;
}

static size_t count(const struct conns_query *q)
{
	struct answer a = ask(q);

	free(a.conns);
	assert_int_equal(a.n, a.matched);
	return a.n;
}

/* Sessions by the workers' own count. */
static uint64_t on_route(unsigned route)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < GWH_WORKERS; i++)
		n += __atomic_load_n(
			&h.workers[i].net.route_stats[route].sessions, __ATOMIC_RELAXED);
	return n;
}

static void test_conns(void **state)
{
	struct conns_query q;
	int fds[2][12], raw;
	struct answer a;

	gwh_begin(&h, 0);
	assert_int_equal(count(&all), 0);
	for (unsigned w = 0; w < 2; w++)
		for (unsigned i = 0; i < 12; i++)
			fds[w][i] = gwh_client(&h, w, i < 3 ? "/b" : "/a");
	raw = client_connect(h.ports[1][1], 0);
	assert_true(client_raw_open(raw, "/a", NULL));

	a = ask(&all);
	assert_int_equal(a.n, 25);
	for (size_t i = 0; i < a.n; i++) {
		bool is_raw = !strcmp(a.conns[i].protocol, "raw");

		assert_int_equal(a.conns[i].session >> 32, 9);
		assert_string_equal(a.conns[i].state, "open");
		assert_string_equal(a.conns[i].upstream, "echo");
		assert_string_equal(a.conns[i].listener, is_raw ? "raw" : "web");
		assert_true(a.conns[i].worker < 2);
		for (size_t k = 0; k < i; k++)
			assert_int_not_equal(a.conns[i].session, a.conns[k].session);
	}
	q = all;
	q.session = a.conns[7].session;
	free(a.conns);
	assert_int_equal(count(&q), 1);
	q.session = 12345;
	assert_int_equal(count(&q), 0);
	q = all;
	strcpy(q.route, "/b");
	assert_int_equal(count(&q), 6);
	assert_int_equal(on_route(1), 6);
	strcpy(q.route, "/c");
	assert_int_equal(count(&q), 0);
	q = all;
	strcpy(q.listener, "raw");
	assert_int_equal(count(&q), 1);
	strcpy(q.route, "/b");
	assert_int_equal(count(&q), 0);
	q = all;
	strcpy(q.peer, "127.0.0.1");
	assert_int_equal(count(&q), 25);
	strcpy(q.peer, "::ffff:127.0.0.1");
	assert_int_equal(count(&q), 25);
	strcpy(q.peer, "127.0.0.2");
	assert_int_equal(count(&q), 0);
	strcpy(q.peer, "localhost");
	assert_int_equal(gateway_conns(&h.g, &q, &a.conns, &a.n, &a.matched), -EINVAL);

	/* No more than the limit, in all; how many there are is said all the same. */
	for (size_t limit = 0; limit <= 30; limit += 5) {
		q = all;
		q.limit = limit;
		a = ask(&q);
		assert_int_equal(a.n, limit < 25 ? limit : 25);
		assert_int_equal(a.matched, 25);
		free(a.conns);
	}
	for (unsigned i = 0; i < 24; i++)
		close(fds[i / 12][i % 12]);
	close(raw);
	for (unsigned tries = 0; tries < 2000 && on_route(0) + on_route(1); tries++)
		client_sleep_ms(1);
	assert_int_equal(on_route(0), 0);
	assert_int_equal(on_route(1), 0);
	gwh_end(&h);
}

/* More slots than one step looks at. */
static void test_many(void **state)
{
	enum {
		CLIENTS = 2500
	};
	static int fds[CLIENTS];

	gwh_begin(&h, 0);
	for (unsigned i = 0; i < CLIENTS; i++)
		assert_true((fds[i] = client_connect(h.ports[0][0], 0)) >= 0);
	for (unsigned tries = 0; tries < 2000 && count(&all) < CLIENTS; tries++)
		client_sleep_ms(1);
	assert_int_equal(count(&all), CLIENTS);
	for (unsigned i = 0; i < CLIENTS; i++)
		close(fds[i]);
	gwh_end(&h);
}

static void test_kick(void **state)
{
	struct kick_query k = {.which = all, .code = 4123, .reason = "because"};
	struct client_frame f;
	size_t kicked = 99;
	struct answer a;
	int fds[2][5];

	gwh_begin(&h, 0);
	for (unsigned w = 0; w < 2; w++)
		for (unsigned i = 0; i < 5; i++)
			fds[w][i] = gwh_client(&h, w, i ? "/a" : "/b");
	strcpy(k.which.route, "/b");
	assert_int_equal(gateway_kick(&h.g, &k, &kicked), 0);
	assert_int_equal(kicked, 2);
	for (unsigned w = 0; w < 2; w++) {
		assert_true(client_ws_recv(fds[w][0], &f));
		assert_int_equal(f.op, WS_CLOSE);
		assert_int_equal(f.data[0] << 8 | f.data[1], 4123);
		assert_string_equal((char *)f.data + 2, "because");
		free(f.data);
		assert_true(client_at_eof(fds[w][0]));
	}
	/* They linger, but are not kicked twice. */
	assert_int_equal(gateway_kick(&h.g, &k, &kicked), 0);
	assert_int_equal(kicked, 0);

	k.which = all;
	a = ask(&all);
	for (size_t i = 0; i < a.n; i++)
		if (!strcmp(a.conns[i].state, "open"))
			k.which.session = a.conns[i].session;
	free(a.conns);
	assert_int_equal(gateway_kick(&h.g, &k, &kicked), 0);
	assert_int_equal(kicked, 1);
	k.which = all;
	assert_int_equal(gateway_kick(&h.g, &k, &kicked), 0);
	assert_int_equal(kicked, 7);
	for (unsigned i = 0; i < 10; i++) {
		assert_true(client_gone(fds[i / 5][i % 5]));
		close(fds[i / 5][i % 5]);
	}
	strcpy(k.which.peer, "nobody");
	assert_int_equal(gateway_kick(&h.g, &k, &kicked), -EINVAL);
	gwh_end(&h);
}

static void test_links(void **state)
{
	struct link_info *links = NULL;
	size_t n = 99;

	gwh_begin(&h, 0);
	assert_int_equal(gateway_links(&h.g, &links, &n), 0);
	assert_int_equal(n, 0); /* an echo has none */
	free(links);
	gwh_end(&h);
}

/* One worker does not answer: the asker is told after two seconds, and the late answer hurts
 * nobody. */
static void test_timeout(void **state)
{
	struct conn_info *conns = NULL;
	size_t n = 99, matched = 99;
	uint64_t began;
	int fd;

	gwh_begin(&h, 0);
	fd = gwh_client(&h, 1, "/a");
	gwh_hold(&h, 1);
	began = client_now_ms();
	assert_int_equal(gateway_conns(&h.g, &all, &conns, &n, &matched), -ETIMEDOUT);
	assert_true(client_now_ms() - began >= 1900 && client_now_ms() - began < 4000);
	assert_null(conns);
	assert_int_equal(n, 99);
	sem_post(&h.release);
	assert_int_equal(count(&all), 1);
	close(fd);
	gwh_end(&h);
}

static void *ask_once(void *arg)
{
	struct conn_info *conns = NULL;
	size_t n, matched;
	int *err = arg;

	*err = gateway_conns(&h.g, &all, &conns, &n, &matched);
	free(conns);
	return NULL;
}

/* A worker that ends lets go of the questions it has not answered. */
static void test_worker_ends(void **state)
{
	pthread_t thread;
	uint64_t began;
	int err = 1;

	gwh_begin(&h, 0);
	gwh_hold(&h, 1);
	gwh_post(&h, 1, MAIL_STOP); /* ahead of the question */
	h.stopped[1] = true;
	began = client_now_ms();
	assert_int_equal(pthread_create(&thread, NULL, ask_once, &err), 0);
	client_sleep_ms(20);
	sem_post(&h.release);
	pthread_join(thread, NULL);
	assert_true(client_now_ms() - began < 1500);
	assert_true(err == 0 || err == -ENOMEM);
	worker_join(h.workers[1].w);
	gwh_end(&h);
}

static void *ask_often(void *arg)
{
	unsigned *bad = arg;

	for (unsigned i = 0; i < 100; i++) {
		struct conn_info *conns = NULL;
		size_t n = 0, matched = 0;

		if (gateway_conns(&h.g, &all, &conns, &n, &matched) || n != 20 || matched != 20)
			++*bad;
		free(conns);
	}
	return NULL;
}

static void test_many_askers(void **state)
{
	unsigned bad[4] = {0};
	pthread_t threads[4];
	int fds[20];

	gwh_begin(&h, 0);
	for (unsigned i = 0; i < 20; i++)
		fds[i] = gwh_client(&h, i % 2, "/a");
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, ask_often, &bad[i]), 0);
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(bad[i], 0);
	}
	for (unsigned i = 0; i < 20; i++)
		close(fds[i]);
	gwh_end(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_conns),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_kick),
		cmocka_unit_test(test_links),
		cmocka_unit_test(test_timeout),
		cmocka_unit_test(test_worker_ends),
		cmocka_unit_test(test_many_askers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
