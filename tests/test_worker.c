#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include "support/worker_harness.h"

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) ||                               \
	__has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

static void test_start_and_stop(void **state)
{
	struct bare b = {0};
	struct worker_opts opts = bare_opts(&b);

	assert_int_equal(bare_begin(&b, &opts), 0);
	assert_int_equal(b.starts, 1);
	assert_int_equal(b.stops, 0);
	bare_end(&b);
	assert_int_equal(b.stops, 1);
	assert_int_equal(b.stats->rings, 1);
	assert_true(b.flushes > 0 && b.settles > 0);
	worker_join(b.w); /* no effect */
	bare_free(&b);
	worker_destroy(NULL);
}

/* What ops->start says is what worker_start returns. */
static void test_start_fails(void **state)
{
	struct bare b = {.start_result = -EIO};
	struct worker_opts opts = bare_opts(&b);

	assert_int_equal(bare_begin(&b, &opts), -EIO);
	worker_join(b.w);
	assert_int_equal(b.stops, 0);
	assert_int_equal(b.flushes, 0);
	bare_free(&b);
}

static void test_create_fails(void **state)
{
	struct bare b = {0};
	struct worker_opts opts = bare_opts(&b);
	static const struct worker_ops ops;
	struct worker *w = (struct worker *)&b;

	opts.ring.slots = 1u << 30;
	assert_int_equal(worker_create(&opts, &ops, &w), -EMFILE);
	assert_ptr_equal(w, &b);
	/* Created and never started. */
	opts.ring.slots = 64;
	assert_int_equal(worker_create(&opts, &ops, &w), 0);
	worker_join(w);
	worker_destroy(w);
}

static void look_at_cpu(struct bare *b, void *arg)
{
	*(int *)arg = sched_getcpu();
}

static void test_pinned(void **state)
{
	struct bare b = {0};
	struct worker_opts opts = bare_opts(&b);
	cpu_set_t allowed;
	int cpu = -1;

	assert_int_equal(sched_getaffinity(0, sizeof allowed, &allowed), 0);
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &allowed))
			opts.cpu = i;
	assert_int_equal(bare_begin(&b, &opts), 0);
	bare_run(&b, look_at_cpu, &cpu);
	assert_int_equal(cpu, opts.cpu);
	bare_end(&b);
	bare_free(&b);
}

/* A thread's message wakes a worker that has nothing to wait for. */
static void test_thread_wakes_sleeper(void **state)
{
	struct bare b = {0};
	struct worker_opts opts = bare_opts(&b);

	assert_int_equal(bare_begin(&b, &opts), 0);
	for (unsigned i = 1; i <= 200; i++) {
		if (i % 4 == 0)
			bare_sleep_ms(1); /* asleep; or just on its way, the other times */
		bare_send(&b, BARE_COUNT, i, NULL);
		if (i % 3 == 0)
			assert_true(bare_wait(&b.mails, i));
	}
	assert_true(bare_wait(&b.mails, 200));
	bare_end(&b);
	assert_false(b.out_of_order);
	assert_true(b.stats->loops < 2000); /* it did sleep */
	bare_free(&b);
}

/* Two workers that each sleep until the other's message comes. */
static void test_worker_wakes_worker(void **state)
{
	enum {
		ROUNDS = 5000
	};
	struct bare a = {0}, b = {0};
	struct worker_opts opts = bare_opts(&a);

	assert_int_equal(bare_begin(&a, &opts), 0);
	opts.net = &b;
	opts.id = 1;
	assert_int_equal(bare_begin(&b, &opts), 0);
	bare_send(&a, BARE_ECHO, 2 * ROUNDS, b.w);
	while (sem_wait(&a.done))
		;
	assert_int_equal(a.mails, ROUNDS + 1);
	assert_int_equal(b.mails, ROUNDS);
	bare_end(&a);
	bare_end(&b);
	bare_free(&a);
	bare_free(&b);
}

struct hold {
	sem_t held, release;
};

static void hold_up(struct bare *b, void *arg)
{
	struct hold *h = arg;

	sem_post(&h->held);
	while (sem_wait(&h->release))
		;
}

/* A full mailbox refuses and says so; nothing of what it took is lost. */
static void test_mailbox_full(void **state)
{
	struct bare b = {0};
	struct worker_opts opts = bare_opts(&b);
	struct mailbox_msg msg = {.kind = BARE_COUNT};
	struct bare_call call = {.fn = hold_up};
	struct hold hold;
	unsigned n = 0;

	sem_init(&hold.held, 0, 0);
	sem_init(&hold.release, 0, 0);
	sem_init(&call.done, 0, 0);
	call.arg = &hold;
	assert_int_equal(bare_begin(&b, &opts), 0);
	bare_send(&b, BARE_CALL, 0, &call);
	while (sem_wait(&hold.held))
		;
	for (;;) {
		msg.a = n + 1;
		int err = worker_post(b.w, &msg, NULL);

		if (err) {
			assert_int_equal(err, -EAGAIN);
			break;
		}
		n++;
	}
	assert_int_equal(worker_post(b.w, &msg, NULL), -EAGAIN);
	assert_true(n >= WORKER_MAILBOX - 1 && n <= WORKER_MAILBOX);
	sem_post(&hold.release);
	assert_true(bare_wait(&b.mails, n + 1));
	assert_int_equal(b.last_a, n);
	assert_false(b.out_of_order);
	bare_end(&b);
	assert_int_equal(b.stats->mailbox_full, 2);
	bare_free(&b);
	sem_destroy(&hold.held);
	sem_destroy(&hold.release);
	sem_destroy(&call.done);
}

/* ---------------------------------------------------------------- timers */

enum {
	TIMERS = 1000
};

struct clockwork {
	struct wheel_timer timer[TIMERS];
	uint32_t late_ms, last_ms;
	bool early, disorder;
	uint64_t loops;
};

static void on_timer(struct bare *b, struct wheel_timer *t)
{
	struct clockwork *c = b->user;
	uint32_t now = b->w->now_ms;

	c->early |= (int32_t)(now - t->expires_ms) < 0;
	c->disorder |= (int32_t)(t->expires_ms - c->last_ms) < 0;
	c->last_ms = t->expires_ms;
	if (now - t->expires_ms > c->late_ms)
		c->late_ms = now - t->expires_ms;
	if (b->timers == TIMERS - 1) /* the last one */
		c->loops = b->stats->loops - c->loops;
}

static void add_timers(struct bare *b, void *arg)
{
	struct clockwork *c = b->user;
	unsigned spread_ms = *(unsigned *)arg;

	for (unsigned i = 0; i < TIMERS; i++) {
		c->timer[i].kind = WORKER_CONN;
		wheel_add(&b->w->wheel, &c->timer[i],
			b->w->now_ms + 5 + (i * 7919 % TIMERS) * spread_ms / TIMERS);
	}
	c->loops = b->stats->loops;
	c->last_ms = b->w->now_ms;
}

/* Timers wake the worker, none early and all in order. */
static void test_timers(void **state)
{
	struct bare b = {.on_timer = on_timer};
	struct worker_opts opts = bare_opts(&b);
	struct clockwork c = {0};
	unsigned spread_ms = 200;

	b.user = &c;
	assert_int_equal(bare_begin(&b, &opts), 0);
	bare_run(&b, add_timers, &spread_ms);
	assert_true(bare_wait(&b.timers, TIMERS));
	bare_end(&b);
	assert_false(c.early);
	assert_false(c.disorder);
	assert_true(c.late_ms < 1000); /* a busy machine */
	assert_true(b.stats->loops < 1000);
	bare_free(&b);
}

/* A thousand at once are served in several turns. */
static void test_timers_are_bounded(void **state)
{
	struct bare b = {.on_timer = on_timer};
	struct worker_opts opts = bare_opts(&b);
	struct clockwork c = {0};
	unsigned spread_ms = 0;

	b.user = &c;
	assert_int_equal(bare_begin(&b, &opts), 0);
	bare_run(&b, add_timers, &spread_ms);
	assert_true(bare_wait(&b.timers, TIMERS));
	bare_end(&b);
	assert_true(c.loops >= TIMERS / WORKER_TIMERS_PER_TURN);
	bare_free(&b);
}

/* ---------------------------------------------------------------- rings */

static void add_rings(struct bare *b, void *arg)
{
	struct ring *r;
	int err;

	while (!(err = worker_add_ring(b->w, &r)))
		;
	*(int *)arg = err;
}

struct arming {
	unsigned ring;
	int fd; /* to be put into slot 0; then closed */
};

static void arm_receive(struct ring *r)
{
	static char byte[WORKER_RINGS_MAX];
	struct io_uring_sqe *sqe = ring_sqe(r);

	io_uring_prep_recv(sqe, 0, &byte[r->index], 1, 0);
	sqe->flags |= IOSQE_FIXED_FILE;
	sqe->user_data = ring_ud(OP_CONN_RECV, 0, (uint16_t)r->index, 0);
}

static void put_and_arm(struct bare *b, void *arg)
{
	struct arming *a = arg;
	struct ring *r = b->w->ring[a->ring];

	if (io_uring_register_files_update(&r->u, 0, &a->fd, 1) != 1)
		abort();
	close(a->fd);
	arm_receive(r);
}

static void arm_again(struct bare *b, void *arg)
{
	arm_receive(b->w->ring[*(unsigned *)arg]);
}

static _Atomic unsigned last_ring;

static void note_ring(struct bare *b, struct ring *r, uint64_t ud, int res, uint32_t flags)
{
	last_ring = ring_ud_aux(ud) == r->index && ring_ud_op(ud) == OP_CONN_RECV ? r->index : 1000;
}

/* Whichever of its rings something comes in on, the worker hears it, asleep or about to fall
 * asleep. */
static void test_every_ring_wakes_it(void **state)
{
	enum {
		RINGS = 6,
		ROUNDS = 300
	};
	struct bare b = {.on_cqe = note_ring};
	struct worker_opts opts = bare_opts(&b);
	int err = 0, fds[RINGS][2];

	opts.rings_max = RINGS;
	assert_int_equal(bare_begin(&b, &opts), 0);
	bare_run(&b, add_rings, &err);
	assert_int_equal(err, -ENOSPC);
	for (unsigned i = 0; i < RINGS; i++) {
		struct arming a = {.ring = i};

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds[i]), 0);
		a.fd = fds[i][1];
		bare_run(&b, put_and_arm, &a);
	}
	for (unsigned n = 0; n < ROUNDS; n++) {
		unsigned i = n * 5 % RINGS;

		if (n >= RINGS)
			bare_run(&b, arm_again, &i);
		if (n % 3)
			bare_sleep_ms(1);
		assert_int_equal(write(fds[i][0], "x", 1), 1);
		assert_true(bare_wait(&b.completions, n + 1));
		assert_int_equal(last_ring, i);
	}
	bare_end(&b);
	assert_int_equal(b.stats->rings, RINGS);
	assert_int_equal(b.stats->rings_grown, RINGS - 1);
	assert_true(b.stats->loops < 10 * ROUNDS);
	bare_free(&b);
	for (unsigned i = 0; i < RINGS; i++)
		close(fds[i][0]);
}

static void queue_nops(struct bare *b, void *arg)
{
	for (unsigned i = 0; i < *(unsigned *)arg; i++) {
		struct io_uring_sqe *sqe = ring_sqe(b->w->ring[i % b->w->n_rings]);

		io_uring_prep_nop(sqe);
		sqe->user_data = ring_ud(OP_CONN_PEER, 0, 0, 0);
	}
}

/* More completions than the queues hold: all are handed out. */
static void test_completion_queue_overflows(void **state)
{
	struct bare b = {0};
	struct worker_opts opts = bare_opts(&b);
	unsigned n = 5 * RING_CQ_ENTRIES;
	int err;

	opts.rings_max = 2;
	assert_int_equal(bare_begin(&b, &opts), 0);
	bare_run(&b, add_rings, &err);
	bare_run(&b, queue_nops, &n);
	assert_true(bare_wait(&b.completions, n));
	bare_end(&b);
	assert_int_equal(b.completions, n);
	assert_true(b.stats->cq_overflows > 0);
	bare_free(&b);
}

static void starve_all(struct bare *b, void *arg)
{
	for (uint32_t slot = 0; slot < 40; slot++)
		ring_starve(b->w->ring[0], slot, false);
}

static void retry_some(struct bare *b, struct ring *r)
{
	uint32_t slot;

	for (unsigned i = 0; i < 4 && ring_starved_pop(r, &slot); i++)
		if (slot != b->last_a++)
			b->out_of_order = true;
}

/* Starved receives are tried again as long as there are any and buffers are free, without anything
 * else to wake the worker for it. */
static void test_starved_are_tried_again(void **state)
{
	struct bare b = {.on_refill = retry_some};
	struct worker_opts opts = bare_opts(&b);

	assert_int_equal(bare_begin(&b, &opts), 0);
	bare_run(&b, starve_all, NULL);
	assert_true(bare_wait(&b.refills, 10));
	bare_end(&b);
	assert_int_equal(b.last_a, 40);
	assert_false(b.out_of_order);
	bare_free(&b);
}

static unsigned long mapped_bytes(void)
{
	FILE *f = fopen("/proc/self/statm", "re");
	unsigned long pages = 0;

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%lu", &pages), 1);
	fclose(f);
	return pages * (unsigned long)sysconf(_SC_PAGESIZE);
}

static unsigned count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* Workers come and go without a trace. */
static void test_nothing_is_left(void **state)
{
	enum {
		WORKERS = 30,
		BUFFERS = 16384
	};
	unsigned long mapped = 0;
	unsigned fds = 0;

	for (unsigned i = 0; i < WORKERS + 2; i++) {
		struct bare b = {0};
		struct worker_opts opts = bare_opts(&b);
		int err;

		if (i == 2) { /* by now the thread and the allocator have what they keep */
			fds = count_fds();
			mapped = mapped_bytes();
		}
		opts.rings_max = 2;
		opts.ring.buffers = BUFFERS;
		assert_int_equal(bare_begin(&b, &opts), 0);
		bare_run(&b, add_rings, &err);
		bare_end(&b);
		bare_free(&b);
	}
	assert_int_equal(count_fds(), fds);
	/* Less than the smallest part of a worker that is as large as its count of buffers. The
	 * sanitizers' allocators keep what was freed. */
	if (!SANITIZED)
		assert_true(
			mapped_bytes() < mapped + WORKERS * BUFFERS * sizeof(struct io_uring_buf));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_start_and_stop),
		cmocka_unit_test(test_start_fails),
		cmocka_unit_test(test_create_fails),
		cmocka_unit_test(test_pinned),
		cmocka_unit_test(test_thread_wakes_sleeper),
		cmocka_unit_test(test_worker_wakes_worker),
		cmocka_unit_test(test_mailbox_full),
		cmocka_unit_test(test_timers),
		cmocka_unit_test(test_timers_are_bounded),
		cmocka_unit_test(test_every_ring_wakes_it),
		cmocka_unit_test(test_completion_queue_overflows),
		cmocka_unit_test(test_starved_are_tried_again),
		cmocka_unit_test(test_nothing_is_left),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
