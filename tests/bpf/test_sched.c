/* alone: compares waits for a CPU with those that it made */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>

#include "core/wake.h"
#include "kern/bpf_sched.h"
#include "kernel_fixture.h"

enum {
	WORKERS = 2,
	STALL_MS = 40,
	EVENTS = 5,
	SOCKETS = 400,
};

static struct bpf_sched *sched;
static struct tg_sched *says;
static struct tg_ready *ready;
static struct hist got[WORKERS]; /* wake delays that each worker found, in nanoseconds */

static void switch_to(struct kernel *k, double percent, bool run)
{
	struct bpf_sched_opts o = {.percent = percent, .run = run};
	const char *step = NULL;

	(void)k;
	kernel_ok(bpf_sched_switch(sched, &o, crowd_now_ns(), &step), step);
}

static void start(struct kernel *k)
{
	kernel_maps(k, NULL);
	k->settings.workers = WORKERS;
	kernel_write_settings(k);
	kernel_ok(bpf_sched_map(bpf_maps_fd(k->maps, BPF_MAP_sched), &says), "sched");
	kernel_ok(bpf_sched_map_ready(bpf_maps_fd(k->maps, BPF_MAP_ready), &ready), "ready");
	kernel_ok(bpf_sched_create(k->maps, &sched), "create");
	assert_true(says->seed != 0);
	for (unsigned i = 0; i < WORKERS; i++)
		hist_init(&got[i]);
}

static void stop(struct kernel *k)
{
	kernel_close(k);
	bpf_sched_destroy(sched);
	/* Who looks on sees that it is over. */
	assert_true(bpf_sched_share(says) == 0 && !says->run);
	bpf_sched_unmap(says);
	bpf_sched_unmap_ready(ready);
	bpf_maps_close(k->maps);
	sched = NULL;
}

static struct hist cpu_wait(const struct kernel *k, unsigned worker)
{
	struct hist h;

	kernel_ok(bpf_sched_read(bpf_maps_fd(k->maps, BPF_MAP_delays), worker, &h), "delays");
	return h;
}

/* ---- the side of the worker ---- */

static struct in6_addr peer_of(int fd, uint16_t *ret_tag)
{
	const struct wakes w = {says, ready};
	struct sockaddr_in6 peer;
	socklen_t len = sizeof(peer);

	assert(!getpeername(fd, (struct sockaddr *)&peer, &len));
	assert(peer.sin6_family == AF_INET6); /* mapped: the listeners are of both */
	*ret_tag = wake_tag(&w, peer.sin6_port);
	return peer.sin6_addr;
}

static void receive(int fd, struct hist *h)
{
	const struct wakes w = {says, ready};
	uint16_t tag;
	struct in6_addr peer = peer_of(fd, &tag);
	uint64_t ns;
	char c;

	assert(recv(fd, &c, 1, 0) == 1);
	if (wake_take(&w, tag, &peer, crowd_now_ns(), &ns))
		hist_add(h, ns);
}

/* The maps say that it is the gateway's thread, and it does what it is told. */
struct worker {
	pthread_t thread;
	unsigned id;
	void (*run)(struct worker *w); /* NULL: nothing */
	/* of run */
	struct kernel *k;
	unsigned connection;
	unsigned stall_ms;
	uint64_t shortest_ns, longest_ns, sum_ns; /* what the test saw of it, from outside */
};

static pthread_barrier_t together;

static void *worker_main(void *arg)
{
	struct worker *w = arg;

	bpf_sched_worker_begin(says, w->id);
	pthread_barrier_wait(&together);
	if (w->run)
		w->run(w);
	pthread_barrier_wait(&together);
	bpf_sched_worker_end(says, w->id);
	return NULL;
}

static void run_workers(struct worker w[WORKERS])
{
	assert_int_equal(pthread_barrier_init(&together, NULL, WORKERS), 0);
	for (unsigned i = 0; i < WORKERS; i++) {
		w[i].id = i;
		assert_int_equal(pthread_create(&w[i].thread, NULL, worker_main, &w[i]), 0);
	}
	for (unsigned i = 0; i < WORKERS; i++)
		assert_int_equal(pthread_join(w[i].thread, NULL), 0);
	pthread_barrier_destroy(&together);
}

/* Has it its place, or had it last? */
static bool stored(int fd)
{
	uint64_t cookie;
	socklen_t len = sizeof(cookie);
	uint16_t tag;

	peer_of(fd, &tag);
	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len), 0);
	return ready[tag % TG_READY_PLACES].cookie == cookie;
}

static void connect_pair(struct kernel *k, int listener)
{
	kernel_connect(k, "10.7.0.1", NETNS_SERVER4, KERNEL_PORT);
	CROWD_UNTIL(kernel_accept(k, listener) == 1);
}

/* Sends, lets it lie, receives; and measures the time between itself, which is longer than what
 * lies between the probes, by little. */
static void late_reader(struct worker *w)
{
	int from = w->k->client[w->connection], to = w->k->served[w->connection];
	char c = 'x';

	w->shortest_ns = UINT64_MAX;
	for (unsigned i = 0; i < EVENTS; i++) {
		uint64_t before = crowd_now_ns();

		assert(send(from, &c, 1, 0) == 1);
		/* It has arrived, and looking at it does not end its wait. */
		assert(recv(to, &c, 1, MSG_PEEK) == 1);
		if (w->stall_ms)
			crowd_sleep_ms(w->stall_ms);
		receive(to, &got[w->id]);
		uint64_t took = crowd_now_ns() - before;

		w->sum_ns += took;
		if (took > w->longest_ns)
			w->longest_ns = took;
		if (took < w->shortest_ns)
			w->shortest_ns = took;
	}
}

/* What the test measured is the truth from outside: an upper bound, and the sleep a lower one. */
static void check_late(const struct hist *h, const struct worker *w)
{
	const uint64_t stall_ns = w->stall_ms * UINT64_C(1000000);
	uint64_t in_buckets = 0;

	assert_int_equal(h->count, EVENTS);
	assert_true(h->min >= stall_ns && h->min <= w->shortest_ns);
	assert_true(h->max >= h->min && h->max <= w->longest_ns);
	assert_true(h->sum >= EVENTS * stall_ns && h->sum <= w->sum_ns);
	for (unsigned i = 0; i < HIST_BUCKETS; i++) {
		in_buckets += h->bucket[i];
		if (h->bucket[i])
			assert_true(hist_upper(i) >= h->min && hist_lower(i) <= h->max);
	}
	assert_int_equal(in_buckets, EVENTS);
	assert_true(h->bucket[hist_index(h->max)] >= 1);
	assert_true(h->bucket[hist_index(h->min)] >= 1);
}

static void test_late_reader(void **state)
{
	struct kernel *k = kernel_of(state);
	struct worker w[WORKERS] = {
		{.run = late_reader, .k = k, .connection = 0},
		{.run = late_reader, .k = k, .connection = 1, .stall_ms = STALL_MS},
	};

	start(k);
	switch_to(k, 100, false);
	int listener = crowd_listen("::", KERNEL_PORT, false);
	connect_pair(k, listener);
	connect_pair(k, listener);
	run_workers(w);
	for (unsigned i = 0; i < WORKERS; i++) {
		check_late(&got[i], &w[i]);
		assert_int_equal(cpu_wait(k, i).count, 0);
	}
	/* What the stalled one waited is not the other's. */
	assert_true(got[0].sum < got[1].sum);
	close(listener);
	stop(k);
}

/* A place that nobody freed: the next connection of the same client has it, and its own time. */
static void test_place_of_one_that_is_gone(void **state)
{
	struct kernel *k = kernel_of(state);
	uint16_t tag;

	start(k);
	switch_to(k, 100, false);
	int listener = crowd_listen("::", KERNEL_PORT, false);
	connect_pair(k, listener);
	struct in6_addr peer = peer_of(k->served[0], &tag);
	struct tg_ready *r = &ready[tag % TG_READY_PLACES];
	uint64_t now = crowd_now_ns(), longest;
	/* As if this had been left by another socket of the peer; it waits until it is stale when
	 * it is of another peer's. */
	uint32_t key = tg_ready_key(
		peer.s6_addr32[0], peer.s6_addr32[1], peer.s6_addr32[2], peer.s6_addr32[3]);
	*r = (struct tg_ready){.since_ns = now, .cookie = 1, .key = key + 1};
	assert_int_equal(send(k->client[0], "x", 1, 0), 1);
	receive(k->served[0], &got[0]);
	assert_int_equal(got[0].count, 0);
	assert_int_equal(r->since_ns, now);
	*r = (struct tg_ready){.since_ns = says->since_ns, .cookie = 1, .key = key};
	longest = crowd_now_ns();
	assert_int_equal(send(k->client[0], "x", 1, 0), 1);
	receive(k->served[0], &got[0]);
	longest = crowd_now_ns() - longest;
	assert_int_equal(got[0].count, 1);
	assert_true(got[0].max <= longest);
	assert_true(stored(k->served[0]));
	close(listener);
	stop(k);
}

/* ---- sampling, and switching ---- */

static unsigned count_stored(const struct kernel *k)
{
	unsigned n = 0;

	for (unsigned i = 0; i < k->n_served; i++)
		n += stored(k->served[i]);
	return n;
}

static void send_to_all(struct kernel *k)
{
	for (unsigned i = 0; i < k->clients; i++)
		assert_int_equal(send(k->client[i], "x", 1, 0), 1);
}

static void wait_for_all(struct kernel *k)
{
	char c;

	for (unsigned i = 0; i < k->n_served; i++)
		assert_int_equal(recv(k->served[i], &c, 1, MSG_PEEK), 1);
}

static void receive_all(struct worker *w)
{
	for (unsigned i = 0; i < w->k->n_served; i++)
		receive(w->k->served[i], &got[w->id]);
}

/* One message on each connection, received by worker 0. */
static void round_of(struct kernel *k)
{
	struct worker w[WORKERS] = {{.run = receive_all, .k = k}, {.run = NULL}};

	send_to_all(k);
	run_workers(w);
}

static int connect_sampled(struct kernel *k)
{
	int listener = crowd_listen("::", KERNEL_PORT, false);

	for (unsigned i = 0; i < SOCKETS; i++)
		connect_pair(k, listener);
	return listener;
}

static void test_sampled(void **state)
{
	struct kernel *k = kernel_of(state);

	start(k);
	switch_to(k, 25, false);
	int listener = connect_sampled(k);
	round_of(k);
	unsigned chosen = count_stored(k);
	/* Of 400, and not a hash of all the same: a quarter, give or take eight deviations. */
	assert_in_range(chosen, 30, 170);
	assert_int_equal(got[0].count, chosen);
	for (unsigned i = 0; i < TG_READY_PLACES; i++)
		assert_int_equal(ready[i].since_ns, 0); /* received from, all of them */
	/* The same ones again. */
	round_of(k);
	assert_int_equal(count_stored(k), chosen);
	assert_int_equal(got[0].count, 2 * chosen);
	assert_int_equal(got[1].count, 0);
	close(listener);
	stop(k);
}

static void test_off(void **state)
{
	struct kernel *k = kernel_of(state);

	start(k);
	int listener = connect_sampled(k);
	/* Nobody has switched it on. */
	round_of(k);
	assert_int_equal(count_stored(k), 0);
	assert_int_equal(got[0].count, 0);
	assert_int_equal(cpu_wait(k, 0).count, 0);
	/* Switched off while something waits. */
	switch_to(k, 100, true);
	send_to_all(k);
	wait_for_all(k);
	switch_to(k, 0, false);
	struct worker w[WORKERS] = {{.run = receive_all, .k = k}, {.run = NULL}};
	run_workers(w);
	/* Now and then two of them want the same place. */
	assert_in_range(count_stored(k), k->n_served * 9 / 10, k->n_served);
	assert_int_equal(got[0].count, 0);
	assert_int_equal(cpu_wait(k, 0).count, 0);
	/* And on again: what it did not see being received is not taken for waiting. */
	switch_to(k, 100, false);
	uint64_t since = crowd_now_ns();
	round_of(k);
	uint64_t longest = crowd_now_ns() - since;
	struct hist d = got[0];
	assert_in_range(d.count, k->n_served * 9 / 10, k->n_served);
	assert_true(d.max <= longest);
	close(listener);
	stop(k);
}

static void test_shares(void **state)
{
	struct kernel *k = kernel_of(state);
	static const double bad[] = {-1, 100.001, 0.0 / 0.0};
	const char *step;

	start(k);
	assert_true(bpf_sched_share(says) == 0);
	bpf_sched_adapt(says, 1, crowd_now_ns()); /* off stays off, however few there are */
	assert_int_equal(says->share, 0);
	switch_to(k, 1e-9, true);
	assert_int_equal(says->share, 1);
	uint32_t switches = says->switches;
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(bpf_sched_switch(sched,
					 &(struct bpf_sched_opts){.percent = bad[i]}, 1, &step),
			-EINVAL);
	assert_true(says->share == 1 && says->run == 1 && says->since_ns > 1);
	assert_int_equal(says->switches, switches);
	/* While there are few, more of them; never less than what was asked for. */
	switch_to(k, 10, true);
	bpf_sched_adapt(says, 0, crowd_now_ns());
	assert_true(bpf_sched_share(says) == 1);
	bpf_sched_adapt(says, 64, crowd_now_ns());
	assert_true(bpf_sched_share(says) == 1);
	uint64_t before = says->since_ns;
	bpf_sched_adapt(says, 127, crowd_now_ns());
	assert_true(bpf_sched_share(says) == 1);
	assert_int_equal(says->since_ns, before);
	bpf_sched_adapt(says, 128, crowd_now_ns());
	assert_true(bpf_sched_share(says) == 0.5);
	assert_true(says->since_ns > before); /* what waits now is forgotten */
	bpf_sched_adapt(says, 1000000, crowd_now_ns());
	assert_int_equal(says->share, TG_SCHED_SHARE_ALL / 10);
	switch_to(k, 100, false);
	assert_int_equal(says->share, TG_SCHED_SHARE_ALL);
	struct hist d;
	assert_int_equal(
		bpf_sched_read(bpf_maps_fd(k->maps, BPF_MAP_delays), TG_WORKERS_MAX, &d), -ENOENT);
	stop(k);
}

/* ---- whose it is ---- */

static void test_what_is_not_ours(void **state)
{
	struct kernel *k = kernel_of(state);
	struct bpf_endpoint one = {.port = KERNEL_PORT, .port_last = KERNEL_PORT, .bits = 64};
	struct tg_lpm_key server;

	start(k);
	switch_to(k, 100, false);
	assert_int_equal(bpf_prefix_parse(NETNS_SERVER4, &server), 0);
	memcpy(one.addr, server.addr, sizeof(one.addr));
	kernel_ok(bpf_ports_write(k->maps, &one, 1), "ports");
	/* Another port, another address, and the one; of both families' sockets. */
	int other = crowd_listen("::", 8090, false), ours = crowd_listen("::", KERNEL_PORT, false);
	kernel_connect(k, "10.7.0.1", NETNS_SERVER4, 8090);
	CROWD_UNTIL(kernel_accept(k, other) == 1);
	kernel_connect(k, "10.7.0.1", "10.98.0.1", KERNEL_PORT);
	CROWD_UNTIL(kernel_accept(k, ours) == 1);
	connect_pair(k, ours);
	round_of(k);
	assert_false(stored(k->served[0]));
	assert_false(stored(k->served[1]));
	assert_true(stored(k->served[2]));
	assert_int_equal(got[0].count, 1);
	/* In another namespace nothing is ours. */
	k->settings.netns_cookie++;
	kernel_write_settings(k);
	connect_pair(k, ours);
	assert_int_equal(k->n_served, 4);
	round_of(k);
	assert_false(stored(k->served[3]));
	assert_int_equal(got[0].count, 2); /* the one that was ours stays so */
	close(other);
	close(ours);
	stop(k);
}

/* ---- the run queue ---- */

static atomic_bool enough;
static int shared_cpu;

static void on_shared_cpu(void)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(shared_cpu, &one);
	assert(!sched_setaffinity(0, sizeof(one), &one));
}

/* Takes its CPU from whoever wants it, and is no worker. */
static void *compete(void *arg)
{
	on_shared_cpu();
	while (!atomic_load(&enough))
		;
	return NULL;
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Never sleeps: the time that passes and is not its own is the time that it waited. */
static void work(struct worker *w)
{
	on_shared_cpu();
	uint64_t since = clock_ns(CLOCK_MONOTONIC), own = clock_ns(CLOCK_THREAD_CPUTIME_ID);

	while (clock_ns(CLOCK_THREAD_CPUTIME_ID) - own < 100 * UINT64_C(1000000))
		;
	own = clock_ns(CLOCK_THREAD_CPUTIME_ID) - own;
	w->sum_ns = clock_ns(CLOCK_MONOTONIC) - since - own;
	atomic_store(&enough, true);
}

static void test_run_queue(void **state)
{
	struct kernel *k = kernel_of(state);
	struct worker w[WORKERS] = {{.run = NULL}, {.run = work}};
	pthread_t competitor;

	start(k);
	switch_to(k, 0, true);
	shared_cpu = sched_getcpu();
	atomic_store(&enough, false);
	assert_int_equal(pthread_create(&competitor, NULL, compete, NULL), 0);
	run_workers(w);
	assert_int_equal(pthread_join(competitor, NULL), 0);
	struct hist h = cpu_wait(k, 1), idle = cpu_wait(k, 0);
	/* It waited as long as the kernel's accounting says, from outside, plus what it waited
	 * before and after the test looked. */
	assert_true(h.count > 0);
	assert_true(h.sum >= w[1].sum_ns / 2);
	assert_true(h.max <= h.sum && h.min <= h.max);
	assert_true(h.sum > idle.sum);
	stop(k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_late_reader),
		cmocka_unit_test(test_place_of_one_that_is_gone),
		cmocka_unit_test(test_sampled),
		cmocka_unit_test(test_off),
		cmocka_unit_test(test_shares),
		cmocka_unit_test(test_what_is_not_ours),
		cmocka_unit_test(test_run_queue),
	};
	return cmocka_run_group_tests(tests, kernel_begin, kernel_end);
}
