#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <sys/resource.h>

#include "support/net_harness.h"

static struct harness h;

static void echoes(int fd)
{
	assert_int_equal(client_ws_open(fd, "/", NULL), 101);
	assert_true(client_ws_echo(fd, "hello"));
}

static void open_all(int *fds, unsigned n, unsigned listener)
{
	for (unsigned i = 0; i < n; i++) {
		fds[i] = client_connect(h.ports[listener], 0);
		assert_true(fds[i] >= 0);
	}
}

static void close_all(const int *fds, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		close(fds[i]);
}

/* Nobody was accepted only to be thrown away. */
static void nobody_refused(void)
{
	assert_int_equal(harness_peek(&h, &h.stats->accept_errors), 0);
	assert_int_equal(harness_peek(&h, &h.stats->refused_full), 0);
	assert_int_equal(harness_peek(&h, &h.stats->closes[CLOSE_NO_MEMORY]), 0);
}

/* A full worker leaves newcomers in the backlog, and takes them in as soon as some leave. */
static void test_full_and_not_full(void **state)
{
	int fds[100], more[20];

	harness_defaults(&h);
	h.opts.worker.ring.slots = 64;
	harness_start(&h);
	open_all(fds, 64, 0);
	assert_true(harness_wait(&h, &h.stats->accepts, 64));
	assert_true(harness_wait(&h, &h.stats->accepting, 0));
	open_all(more, 20, 0);
	client_sleep_ms(10);
	assert_int_equal(harness_peek(&h, &h.stats->accepts), 64);
	assert_int_equal(harness_peek(&h, &h.stats->accept_pauses), 1);
	echoes(fds[63]);

	close_all(fds, 20);
	assert_true(harness_wait(&h, &h.stats->accepts, 84));
	for (unsigned i = 0; i < 20; i++)
		echoes(more[i]);
	close_all(fds + 20, 44);
	close_all(more, 20);
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_true(harness_wait(&h, &h.stats->accepting, 1));
	nobody_refused();
	assert_true(harness_stop(&h));
}

/* Slots set apart for links are not given to clients. */
static void test_reserve(void **state)
{
	int fds[70];

	harness_defaults(&h);
	h.opts.worker.ring.slots = 100;
	h.opts.listener.reserve = 40;
	harness_start(&h);
	open_all(fds, 70, 0);
	assert_true(harness_wait(&h, &h.stats->accepting, 0));
	assert_int_equal(harness_peek(&h, &h.stats->accepts), 60);
	close_all(fds, 70);
	assert_true(harness_wait(&h, &h.stats->accepts, 70));
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	nobody_refused();
	assert_true(harness_stop(&h));
}

static void stop_accepting(struct harness *harness, void *arg)
{
	listener_stop(&harness->net);
	listener_stop(&harness->net);
}

/* More connections than one ring holds: the worker adds rings, and hears of all of them, asleep or
 * not. */
static void test_rings_grow(void **state)
{
	static int fds[200];

	harness_defaults(&h);
	h.opts.worker.ring.slots = 64;
	h.opts.worker.rings_max = 4;
	harness_start(&h);
	open_all(fds, 200, 0);
	assert_true(harness_wait(&h, &h.stats->accepts, 200));
	assert_int_equal(harness_peek(&h, &h.stats->rings), 4);
	for (unsigned i = 0; i < 200; i++)
		echoes(fds[i]);
	for (unsigned i = 0; i < 200; i += 10) {
		client_sleep_ms(2); /* time to fall asleep */
		assert_true(client_ws_echo(fds[i], "wake up"));
	}
	/* What leaves makes room where it was, not in a ring of its own. */
	close_all(fds + 70, 60);
	assert_true(harness_wait(&h, &h.stats->connections, 140));
	open_all(fds + 70, 60, 0);
	assert_true(harness_wait(&h, &h.stats->connections, 200));
	assert_int_equal(harness_peek(&h, &h.stats->rings), 4);
	for (unsigned i = 70; i < 130; i++)
		echoes(fds[i]);
	close_all(fds, 200);
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	nobody_refused();
	assert_true(harness_stop(&h));
}

/* Between its first connection and its last free slot a ring goes from multishot to single accepts;
 * several listeners share what is left, and the worker sleeps when nobody comes. */
static void test_listeners_share_the_last_slots(void **state)
{
	enum {
		LISTENERS = 5,
		SLOTS = 256
	};
	static int fds[SLOTS + 10];
	unsigned n = 0;
	uint64_t loops;

	for (unsigned left = 120; left > 20; left -= 20) {
		harness_defaults(&h);
		h.opts.n_listeners = LISTENERS;
		h.opts.worker.ring.slots = SLOTS;
		h.opts.listener.burst = 300;
		harness_start(&h);
		open_all(fds, SLOTS - left, 0);
		assert_true(harness_wait(&h, &h.stats->accepts, SLOTS - left));
		client_sleep_ms(5);
		loops = harness_peek(&h, &h.stats->loops);
		client_sleep_ms(100);
		assert_true(harness_peek(&h, &h.stats->loops) - loops < 50);
		n = SLOTS - left;
		for (unsigned i = 0; i < LISTENERS; i++, n++) {
			open_all(fds + n, 1, i);
			echoes(fds[n]);
		}
		close_all(fds, n);
		assert_true(harness_wait(&h, &h.stats->connections, 0));
		nobody_refused();
		assert_true(harness_stop(&h));
	}
}

/* Come and go in storms; `pace` connections at most are on their way when the worker looks. */
static void storm(int backlog, unsigned pace)
{
	enum {
		CLIENTS = 300,
		STAY = 40,
		ROUNDS = 8
	};
	static int fds[CLIENTS];

	harness_defaults(&h);
	h.opts.n_listeners = 3;
	h.opts.worker.ring.slots = 200;
	h.opts.worker.rings_max = 2;
	h.opts.backlog = backlog;
	h.opts.listener.burst = 3 * (unsigned)backlog;
	harness_start(&h);
	for (unsigned round = 0; round < ROUNDS; round++) {
		for (unsigned i = 0; i < CLIENTS; i++) {
			fds[i] = client_connect(h.ports[(i + round) % 3], 0);
			assert_true(fds[i] >= 0);
			if (i >= STAY && i % 2)
				close(fds[i - STAY]);
			if (i % pace == pace - 1)
				harness_peek(&h, &h.stats->loops);
		}
		for (unsigned i = 0; i < CLIENTS - STAY; i += 2)
			close(fds[i]);
		for (unsigned i = CLIENTS - STAY; i < CLIENTS; i++) {
			if (i % 2 == 0)
				echoes(fds[i]);
			close(fds[i]);
		}
	}
	assert_true(harness_wait(&h, &h.stats->accepts, CLIENTS * ROUNDS));
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	nobody_refused();
	assert_true(harness_stop(&h));
}

/* Faster than the worker looks: a ring smaller than the backlogs takes single accepts. */
static void test_storm(void **state)
{
	storm(512, 512);
}

/* Slowly enough for small backlogs, to and fro between multishot and single accepts. */
static void test_storm_and_small_backlogs(void **state)
{
	storm(16, 12);
}

/* More clients in the backlog than a ring has slots: some go to the next ring, none is thrown away.
 */
static void test_backlog_larger_than_a_ring(void **state)
{
	static int fds[300];

	harness_defaults(&h);
	h.opts.worker.ring.slots = 200;
	h.opts.worker.rings_max = 2;
	h.opts.listener.burst = 512;
	harness_start(&h);
	harness_hold(&h);
	open_all(fds, 300, 0);
	harness_release(&h);
	assert_true(harness_wait(&h, &h.stats->accepts, 300));
	nobody_refused();
	for (unsigned i = 0; i < 300; i++)
		echoes(fds[i]);
	close_all(fds, 300);
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_true(harness_stop(&h));
}

static uint8_t peer_ports[65536];

/* *arg becomes true when all addresses are there. */
static void collect_ports(struct harness *harness, void *arg)
{
	*(bool *)arg = !harness->net.peers_out;
	memset(peer_ports, 0, sizeof peer_ports);
	for (uint32_t slot = 0; slot < harness->w->ring[0]->used_high; slot++)
		if (harness_conn(harness, slot)->state != CONN_FREE)
			peer_ports[ntohs(harness_conn(harness, slot)->peer_port)]++;
}

/* Each connection knows its own client's address, though thousands were asked for at a time. */
static void check_ports(const int *fds, unsigned n)
{
	bool all = false;

	while (!all)
		harness_call(&h, collect_ports, &all);
	for (unsigned i = 0; i < n; i++) {
		struct sockaddr_in own;
		socklen_t len = sizeof own;

		assert_int_equal(getsockname(fds[i], (struct sockaddr *)&own, &len), 0);
		assert_true(peer_ports[ntohs(own.sin_port)]-- > 0);
	}
}

/* A whole backlog in one batch, and more. */
static void test_burst_of_thousands(void **state)
{
	enum {
		EACH = 2500,
		LISTENERS = 2
	};
	static int fds[EACH * LISTENERS];
	struct rlimit files;

	getrlimit(RLIMIT_NOFILE, &files);
	if (files.rlim_cur < 2 * EACH * LISTENERS)
		skip();
	harness_defaults(&h);
	h.opts.n_listeners = LISTENERS;
	h.opts.worker.ring.slots = 2 * EACH * LISTENERS;
	h.opts.listener.burst = EACH * LISTENERS;
	h.opts.backlog = EACH;
	harness_start(&h);
	harness_hold(&h);
	for (unsigned i = 0; i < LISTENERS; i++)
		open_all(fds + i * EACH, EACH, i);
	harness_release(&h);
	assert_true(harness_wait(&h, &h.stats->accepts, EACH * LISTENERS));
	nobody_refused();
	check_ports(fds, EACH * LISTENERS);
	for (unsigned i = 0; i < EACH * LISTENERS; i += 100)
		echoes(fds[i]);
	close_all(fds, EACH * LISTENERS);
	assert_true(harness_wait(&h, &h.stats->connections, 0));
	assert_true(harness_stop(&h));
}

static _Atomic unsigned turns_left;

static void spin(struct worker *w, struct job *j)
{
	if (turns_left && --turns_left)
		job_run(w, j, RUNQ_CONTROL);
}

static void start_spinning(struct harness *harness, void *arg)
{
	static struct job job;

	job_init(&job, spin);
	job_run(harness->w, &job, RUNQ_CONTROL);
}

/* Milliseconds that the worker takes for a number of turns. */
static uint64_t spin_ms(unsigned turns)
{
	uint64_t began = client_now_ms();

	turns_left = turns;
	harness_call(&h, start_spinning, NULL);
	while (turns_left)
		client_sleep_ms(1);
	return client_now_ms() - began;
}

/* A ring that cannot be had is not asked for at every turn: that takes longer than a turn. */
static void test_no_descriptor_for_a_ring(void **state)
{
	enum {
		TURNS = 5000
	};
	struct rlimit files, none;
	uint64_t without, with;
	int fds[65];

	harness_defaults(&h);
	h.opts.worker.ring.slots = 64;
	h.opts.worker.rings_max = 2;
	h.opts.worker.slice_us = 0; /* one job a turn */
	harness_start(&h);
	getrlimit(RLIMIT_NOFILE, &files);
	none = files;
	none.rlim_cur = 3;
	harness_hold(&h);
	open_all(fds, 65, 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	harness_release(&h);
	assert_true(harness_wait(&h, &h.stats->accepting, 0));
	without = spin_ms(TURNS);
	assert_int_equal(harness_peek(&h, &h.stats->accepts), 64);
	assert_int_equal(harness_peek(&h, &h.stats->rings), 1);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
	/* Then it can be had, and is. */
	assert_true(client_ws_open(fds[0], "/", NULL) == 101);
	while (harness_peek(&h, &h.stats->accepts) < 65)
		assert_true(client_ws_echo(fds[0], "so that there are turns"));
	assert_int_equal(harness_peek(&h, &h.stats->rings), 2);
	with = spin_ms(TURNS);
	print_message("%u turns: %u ms without it, %u ms with it\n", TURNS, (unsigned)without,
		(unsigned)with);
	assert_true(without < 3 * with + 200);
	close_all(fds, 65);
	assert_true(harness_stop(&h));
}

/* Stopped for good: those inside stay, nobody else comes in. */
static void test_stop(void **state)
{
	int fd, late;

	harness_defaults(&h);
	harness_start(&h);
	fd = client_connect(h.ports[0], 0);
	echoes(fd);
	harness_call(&h, stop_accepting, NULL);
	assert_int_equal(h.fds[0], -1);
	client_sleep_ms(5);
	late = client_connect(h.ports[0], 0);
	assert_true(late < 0);
	assert_true(client_ws_echo(fd, "still here"));
	assert_int_equal(harness_peek(&h, &h.stats->accepting), 0);
	close(fd);
	assert_true(harness_stop(&h));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_full_and_not_full),
		cmocka_unit_test(test_reserve),
		cmocka_unit_test(test_rings_grow),
		cmocka_unit_test(test_listeners_share_the_last_slots),
		cmocka_unit_test(test_storm),
		cmocka_unit_test(test_storm_and_small_backlogs),
		cmocka_unit_test(test_backlog_larger_than_a_ring),
		cmocka_unit_test(test_burst_of_thousands),
		cmocka_unit_test(test_no_descriptor_for_a_ring),
		cmocka_unit_test(test_stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
