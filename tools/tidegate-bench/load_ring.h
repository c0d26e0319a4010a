/* One io_uring of the load generator: direct descriptors, a ring of provided buffers, and waiting
 * on several of them.
 *
 * Owned by the thread that made it (SINGLE_ISSUER, DEFER_TASKRUN). A ring's file table must stay
 * below RLIMIT_NOFILE, so more connections than that mean more rings in one thread; struct
 * load_waiter sleeps on all of them at once.
 */
#ifndef TIDEGATE_BENCH_LOAD_RING_H
#define TIDEGATE_BENCH_LOAD_RING_H

#include <liburing.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	LOAD_RING_SQ = 1024,
	LOAD_RING_FILES_MAX = 131072, /* of one ring, where RLIMIT_NOFILE would allow more */
};

struct load_ring {
	struct io_uring uring;
	struct io_uring_buf_ring *buf_ring;
	uint8_t *bufs;
	uint32_t n_bufs, buf_bytes; /* n_bufs is a power of two, at most 32768 */
	unsigned freed;             /* buffers given back since the last load_ring_recycle() */
};

struct load_ring_opts {
	unsigned files;
	uint32_t n_bufs, buf_bytes;
	unsigned cq_entries; /* a power of two */
};

/* Files a ring may hold under the present RLIMIT_NOFILE, which is raised to its hard limit first.
 */
unsigned load_ring_files_limit(void);

/* 0 or -errno; fini also takes a ring that is all zeros. */
int load_ring_init(struct load_ring *r, const struct load_ring_opts *opts);
void load_ring_fini(struct load_ring *r);

/* A free submission entry; submits what is queued when there is none. */
struct io_uring_sqe *load_ring_sqe(struct load_ring *r);
/* Makes room for n entries that belong together, since a chain must not be cut by a submission. */
void load_ring_room(struct load_ring *r, unsigned n);

/* Provided buffers: the one a completion names, and giving it back. */
static inline uint8_t *load_ring_buf(const struct load_ring *r, unsigned id)
{
	return r->bufs + (size_t)id * r->buf_bytes;
}

void load_ring_put(struct load_ring *r, unsigned id);
/* Shows the kernel the buffers given back; returns how many. */
unsigned load_ring_recycle(struct load_ring *r);

/* True when there is something to submit or to reap. */
bool load_ring_busy(const struct load_ring *r);

/* Sleeps on one or several rings of a thread. */
struct load_waiter {
	int epoll, event; /* -1 with one ring, which can wait by itself */
	unsigned
		batch_us; /* with one ring: once awake, gather completions for so long; 0: do not */
};

/* batch_us is the caller's to set, before or after. */
int load_waiter_init(struct load_waiter *w, struct load_ring *const *rings, unsigned n);
void load_waiter_fini(struct load_waiter *w);
/* Submits what is queued on all rings, then sleeps until one has completions or timeout_ns has
 * passed (0: not at all). 0 or -errno. */
int load_waiter_wait(
	struct load_waiter *w, struct load_ring *const *rings, unsigned n, uint64_t timeout_ns);

#endif
