#include "core/worker_turn.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
	SLICE_NS = 100000, /* the shortest there is */
};

int worker_create(const struct worker_opts *opts, const struct worker_ops *ops, struct worker **ret)
{
	struct ring_opts ring = opts->ring;
	struct worker *w = calloc(1, sizeof *w);
	int err;

	if (!w)
		return -ENOMEM;
	w->ops = ops;
	w->opts = *opts;
	w->id = opts->id;
	w->stats = opts->stats;
	w->net = opts->net;
	w->start_ns = w->awake_since_ns = worker_clock_ns();
	w->start_result = 1;
	worker_begin_slot(w, (uint32_t)(w->start_ns / WORKER_SLOT_NS));
	wheel_init(&w->wheel, 0);
	runq_init(&w->runq, opts->quantum_ns);
	w->wakes = (struct wakes){opts->sched, opts->ready};
	err = mailbox_create(WORKER_MAILBOX, &w->mailbox);
	if (err)
		goto err_free;
	w->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (w->wake_fd < 0) {
		err = -errno;
		goto err_mailbox;
	}
	ring.index = 0;
	err = ring_create(&ring, &w->ring[0]);
	if (err)
		goto err_wake;
	w->n_rings = 1;
	*ret = w;
	return 0;

err_wake:
	close(w->wake_fd);
err_mailbox:
	mailbox_destroy(w->mailbox);
err_free:
	free(w);
	return err;
}

void worker_destroy(struct worker *w)
{
	if (!w)
		return;
	for (unsigned i = 0; i < w->n_rings; i++)
		ring_destroy(w->ring[i]);
	close(w->wake_fd);
	mailbox_destroy(w->mailbox);
	free(w);
}

int worker_add_ring(struct worker *w, struct ring **ret)
{
	struct ring_opts opts = w->opts.ring;
	struct ring *r;
	int err;

	if (w->n_rings >= w->opts.rings_max)
		return -ENOSPC;
	opts.index = w->n_rings;
	err = ring_create(&opts, &r);
	if (err)
		goto err_count;
	err = ring_enable(r);
	if (!err)
		err = io_uring_register_eventfd(&r->u, w->wake_fd);
	if (err) {
		ring_destroy(r);
		goto err_count;
	}
	io_uring_cq_eventfd_toggle(&r->u, false);
	w->ring[w->n_rings++] = r;
	w->stats->rings = w->n_rings;
	w->stats->rings_grown++;
	*ret = r;
	return 0;

err_count:
	w->stats->ring_failures++;
	atomic_store(&w->ring_error, -err);
	return err;
}

int worker_post(struct worker *to, const struct mailbox_msg *msg, struct worker *from)
{
	int err = mailbox_push(to->mailbox, msg);

	if (err) {
		/* The one counter of a worker that others write. */
		__atomic_fetch_add(&to->stats->mailbox_full, 1, __ATOMIC_RELAXED);
		return err;
	}
	if (!mailbox_take_wake(to->mailbox))
		return 0;
	if (from) {
		struct io_uring_sqe *sqe = ring_sqe(from->ring[0]);

		io_uring_prep_msg_ring(
			sqe, to->ring[0]->u.ring_fd, 0, ring_ud(OP_WAKE, 0, WAKE_MESSAGE, 0), 0);
		sqe->user_data = ring_ud(OP_NONE, 0, 0, 0);
		sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
	} else {
		uint64_t one = 1;

		if (write(to->wake_fd, &one, sizeof one) < 0)
			return 0; /* the counter is full: it has been readable all along */
	}
	return 0;
}

/* Asks for a short time slice (Linux 6.12): a worker that wakes then runs at once, instead of after
 * the slice of whoever shares its CPU, a crypto thread in the middle of a signature for instance. A
 * kernel that does not know it goes on as ever. */
static void shorten_slice(void)
{
	struct {
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t runtime, deadline, period;
	} attr = {
		.size = sizeof attr,
		.policy = SCHED_OTHER,
		.nice = getpriority(PRIO_PROCESS, (id_t)gettid()),
		.runtime = SLICE_NS,
	};

	syscall(SYS_sched_setattr, 0, &attr, 0);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	char name[16];
	int err;

	snprintf(name, sizeof name, "worker-%u", w->id);
	prctl(PR_SET_NAME, name);
	if (w->opts.cpu >= 0) {
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET(w->opts.cpu, &set);
		pthread_setaffinity_np(pthread_self(), sizeof set, &set);
	}
	shorten_slice();
	err = ring_enable(w->ring[0]);
	w->stats->rings = 1;
	if (!err) {
		worker_arm_wake(w);
		worker_now(w);
		err = w->ops->start(w);
	}
	atomic_store(&w->start_result, err);
	if (err)
		return NULL;
	while (!w->stopping)
		worker_turn(w);
	w->ops->stop(w);
	return NULL;
}

int worker_start(struct worker *w)
{
	struct timespec tick = {0, 1000000};
	int err = pthread_create(&w->thread, NULL, worker_main, w);

	if (err)
		return -err;
	w->started = true;
	while ((err = atomic_load(&w->start_result)) == 1)
		nanosleep(&tick, NULL);
	return err;
}

void worker_join(struct worker *w)
{
	if (!w->started)
		return;
	pthread_join(w->thread, NULL);
	w->started = false;
}

void worker_stop(struct worker *w)
{
	w->stopping = true;
}
