/* Crypto threads: work of 0.1 to 1 ms that would break a worker's turn budget (signatures of RS256
 * and ES256 tokens).
 *
 * A worker submits a job; a thread runs it and mails it back, and the worker calls its `done`. The
 * queue is bounded: when it is full the work is refused, so that a flood costs the flooders. The
 * threads are less urgent than workers (nice, SCHED_BATCH): they yield where both want a CPU.
 *
 * Order, in the main thread: create, then the workers; stop while the workers still take mail,
 * destroy when they have ended. Jobs belong to their submitter; whoever holds one while everything
 * ends calls its `drop`.
 */
#ifndef TIDEGATE_CORE_CRYPTO_H
#define TIDEGATE_CORE_CRYPTO_H

#include "core/worker.h"

enum {
	CRYPTO_THREADS_MAX = 16,
	CRYPTO_NICE = 19, /* above that of the process */
};

struct crypto_job {
	void (*run)(struct crypto_job *j);  /* in a crypto thread */
	void (*done)(struct crypto_job *j); /* in the worker that submitted it */
	void (*drop)(struct crypto_job *j); /* instead of done, at the end; any thread */
	struct worker *from;
};

struct crypto_opts {
	unsigned threads;   /* 1..CRYPTO_THREADS_MAX */
	unsigned queue;     /* jobs that wait for one thread; a power of two, 2..65536 */
	uint32_t mail_kind; /* of the message that carries a job (ptr) back */
};

struct crypto;

/* 0 or -errno. */
int crypto_create(const struct crypto_opts *opts, struct crypto **ret);
/* 0, or -EAGAIN: every queue is full, or the threads are stopping. Any worker. */
int crypto_submit(struct crypto *c, struct crypto_job *j, struct worker *from);
/* The worker's part, when mail_kind brings a job back. */
static inline void crypto_done(struct crypto_job *j)
{
	j->done(j);
}

/* Finishes what is queued, and ends the threads. */
void crypto_stop(struct crypto *c);
/* Drops what a worker submitted too late. NULL is allowed. */
void crypto_destroy(struct crypto *c);

#endif
