#include "load_ring.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

unsigned load_ring_files_limit(void)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl))
		return 1000;
	if (rl.rlim_cur < rl.rlim_max) {
		rl.rlim_cur = rl.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &rl))
			getrlimit(RLIMIT_NOFILE, &rl);
	}
	if (rl.rlim_cur > LOAD_RING_FILES_MAX)
		return LOAD_RING_FILES_MAX;
	return rl.rlim_cur > 1 ? (unsigned)rl.rlim_cur - 1
			       : 1; /* the kernel wants it below the limit */
}

static int buffers_init(struct load_ring *r, const struct load_ring_opts *opts)
{
	int err = 0;
	size_t bytes = (size_t)opts->n_bufs * opts->buf_bytes;
	void *bufs = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (bufs == MAP_FAILED)
		return -errno;
	r->bufs = bufs;
	r->n_bufs = opts->n_bufs;
	r->buf_bytes = opts->buf_bytes;
	r->buf_ring = io_uring_setup_buf_ring(&r->uring, opts->n_bufs, 0, 0, &err);
	if (!r->buf_ring)
		return err;
	for (unsigned i = 0; i < opts->n_bufs; i++)
		load_ring_put(r, i);
	load_ring_recycle(r);
	return 0;
}

int load_ring_init(struct load_ring *r, const struct load_ring_opts *opts)
{
	struct io_uring_params p = {
		.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
			 IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_CQSIZE,
		.cq_entries = opts->cq_entries,
	};

	*r = (struct load_ring){.uring.ring_fd = -1};
	int err = io_uring_queue_init_params(LOAD_RING_SQ, &r->uring, &p);
	if (err)
		return err;
	io_uring_register_ring_fd(&r->uring); /* spares a look-up per system call; optional */
	err = io_uring_register_files_sparse(&r->uring, opts->files);
	if (!err)
		err = buffers_init(r, opts);
	if (err)
		load_ring_fini(r);
	return err;
}

void load_ring_fini(struct load_ring *r)
{
	if (r->buf_ring)
		io_uring_free_buf_ring(&r->uring, r->buf_ring, r->n_bufs, 0);
	if (r->uring.ring_fd > 0)
		io_uring_queue_exit(&r->uring);
	if (r->bufs)
		munmap(r->bufs, (size_t)r->n_bufs * r->buf_bytes);
	*r = (struct load_ring){.uring.ring_fd = -1};
}

struct io_uring_sqe *load_ring_sqe(struct load_ring *r)
{
	struct io_uring_sqe *sqe;

	while (!(sqe = io_uring_get_sqe(&r->uring)))
		io_uring_submit(&r->uring);
	return sqe;
}

void load_ring_room(struct load_ring *r, unsigned n)
{
	while (io_uring_sq_space_left(&r->uring) < n)
		io_uring_submit(&r->uring);
}

void load_ring_put(struct load_ring *r, unsigned id)
{
	io_uring_buf_ring_add(r->buf_ring, load_ring_buf(r, id), r->buf_bytes, (unsigned short)id,
		io_uring_buf_ring_mask(r->n_bufs), (int)r->freed++);
}

unsigned load_ring_recycle(struct load_ring *r)
{
	unsigned n = r->freed;

	if (n)
		io_uring_buf_ring_advance(r->buf_ring, (int)n);
	r->freed = 0;
	return n;
}

bool load_ring_busy(const struct load_ring *r)
{
	return io_uring_cq_ready(&r->uring) || io_uring_sq_ready(&r->uring) ||
	       (IO_URING_READ_ONCE(*r->uring.sq.kflags) &
		       (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW));
}

/* epoll on the descriptor of a DEFER_TASKRUN ring is not woken by deferred work; an eventfd
 * registered with it is. All rings share one, edge-triggered so that nobody reads it, and silent
 * while the thread is awake. */
int load_waiter_init(struct load_waiter *w, struct load_ring *const *rings, unsigned n)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET};
	int err = 0;

	w->epoll = w->event = -1;
	if (n == 1)
		return 0;
	w->epoll = epoll_create1(EPOLL_CLOEXEC);
	w->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (w->epoll < 0 || w->event < 0 || epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->event, &ev))
		err = -errno;
	for (unsigned i = 0; i < n && !err; i++) {
		err = io_uring_register_eventfd(&rings[i]->uring, w->event);
		if (!err)
			io_uring_cq_eventfd_toggle(&rings[i]->uring, false);
	}
	if (err)
		load_waiter_fini(w);
	return err;
}

void load_waiter_fini(struct load_waiter *w)
{
	if (w->epoll >= 0)
		close(w->epoll);
	if (w->event >= 0)
		close(w->event);
	w->epoll = w->event = -1;
}

static bool any_busy(struct load_ring *const *rings, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (load_ring_busy(rings[i]))
			return true;
	return false;
}

/* Gathering: a wake-up per message costs sender and receiver more than the message does. */
static int wait_one(struct load_ring *r, uint64_t timeout_ns, unsigned batch_us)
{
	enum {
		BATCH_MAX = 64 /* completions that end the gathering early */
	};
	struct __kernel_timespec ts = {
		.tv_sec = (long long)(timeout_ns / 1000000000),
		.tv_nsec = (long long)(timeout_ns % 1000000000),
	};
	struct io_uring_cqe *cqe;
	int err;

	if (!timeout_ns || io_uring_cq_ready(&r->uring))
		err = io_uring_submit_and_get_events(&r->uring);
	else if (batch_us && timeout_ns > batch_us * 1000ull)
		err = io_uring_submit_and_wait_min_timeout(
			&r->uring, &cqe, BATCH_MAX, &ts, batch_us, NULL);
	else
		err = io_uring_submit_and_wait_timeout(&r->uring, &cqe, 1, &ts, NULL);
	return err == -ETIME || err == -EINTR || err == -EAGAIN || err == -EBUSY || err > 0 ? 0
											    : err;
}

int load_waiter_wait(
	struct load_waiter *w, struct load_ring *const *rings, unsigned n, uint64_t timeout_ns)
{
	struct timespec ts = {
		.tv_sec = (time_t)(timeout_ns / 1000000000),
		.tv_nsec = (long)(timeout_ns % 1000000000),
	};
	struct epoll_event ev;

	if (n == 1)
		return wait_one(rings[0], timeout_ns, w->batch_us);
	if (timeout_ns && !any_busy(rings, n)) {
		for (unsigned i = 0; i < n; i++)
			io_uring_cq_eventfd_toggle(&rings[i]->uring, true);
		atomic_thread_fence(memory_order_seq_cst); /* listen first, look after */
		if (!any_busy(rings, n))
			epoll_pwait2(w->epoll, &ev, 1, &ts, NULL);
		for (unsigned i = 0; i < n; i++)
			io_uring_cq_eventfd_toggle(&rings[i]->uring, false);
	}
	for (unsigned i = 0; i < n; i++) {
		if (!load_ring_busy(rings[i]))
			continue;
		int err = wait_one(rings[i], 0, 0);
		if (err)
			return err;
	}
	return 0;
}
