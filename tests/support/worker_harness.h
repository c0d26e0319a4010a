/* A bare worker for tests of core/: its handlers count, and run what the test posts. */
#ifndef TIDEGATE_TESTS_WORKER_HARNESS_H
#define TIDEGATE_TESTS_WORKER_HARNESS_H

#include <assert.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/job.h"
#include "core/worker.h"

enum bare_mail {
	BARE_STOP,
	BARE_CALL,  /* ptr: struct bare_call */
	BARE_COUNT, /* a: must rise by one */
	BARE_ECHO,  /* ptr: the worker to send it back to, a: times left */
};

/* What one worker saw. Atomic where the test looks while it runs. An event is counted once its
 * handler is done: a test that waits for the count may look at what the handler left. */
struct bare {
	struct worker *w;
	struct tg_worker_stats *stats;
	int start_result;
	_Atomic unsigned starts, stops, flushes, settles, refills, mails, completions, timers;
	_Atomic uint64_t last_a;
	_Atomic bool out_of_order;
	void (*on_cqe)(struct bare *b, struct ring *r, uint64_t ud, int res, uint32_t flags);
	void (*on_timer)(struct bare *b, struct wheel_timer *t);
	void (*on_refill)(struct bare *b, struct ring *r);
	sem_t done; /* BARE_ECHO came to its end */
	void *user;
};

struct bare_call {
	void (*fn)(struct bare *b, void *arg);
	void *arg;
	sem_t done;
};

static inline struct bare *bare_of(struct worker *w)
{
	return w->net;
}

static inline void bare_cqe(struct worker *w, struct ring *r, uint64_t ud, int res, uint32_t flags)
{
	struct bare *b = bare_of(w);

	if (b->on_cqe)
		b->on_cqe(b, r, ud, res, flags);
	b->completions++;
}

static inline void bare_timer(struct worker *w, struct wheel_timer *t)
{
	struct bare *b = bare_of(w);

	if (b->on_timer)
		b->on_timer(b, t);
	b->timers++;
}

static inline void bare_on_mail(struct worker *w, const struct mailbox_msg *msg)
{
	struct bare *b = bare_of(w);
	struct bare_call *call = msg->ptr;
	struct mailbox_msg back = *msg;

	b->mails++;
	switch ((enum bare_mail)msg->kind) {
	case BARE_STOP:
		worker_stop(w);
		break;
	case BARE_CALL:
		call->fn(b, call->arg);
		sem_post(&call->done);
		break;
	case BARE_COUNT:
		if (msg->a != b->last_a + 1)
			b->out_of_order = true;
		b->last_a = msg->a;
		break;
	case BARE_ECHO:
		if (!msg->a) {
			sem_post(&b->done);
			break;
		}
		back.a--;
		back.ptr = w;
		if (worker_post(msg->ptr, &back, w))
			abort();
		break;
	}
}

static inline int bare_start(struct worker *w)
{
	bare_of(w)->starts++;
	return bare_of(w)->start_result;
}

static inline void bare_flush(struct worker *w)
{
	bare_of(w)->flushes++;
}

static inline void bare_settle(struct worker *w, struct ring *r)
{
	bare_of(w)->settles++;
}

static inline void bare_refill(struct worker *w, struct ring *r)
{
	struct bare *b = bare_of(w);

	if (b->on_refill)
		b->on_refill(b, r);
	b->refills++;
}

static inline void bare_stop(struct worker *w)
{
	bare_of(w)->stops++;
}

static inline struct worker_opts bare_opts(struct bare *b)
{
	return (struct worker_opts){
		.cpu = -1,
		.rings_max = 1,
		.ring = {.slots = 64, .buffers = 16, .buffer_bytes = 256, .object_bytes = 64},
		.quantum_ns = {1000000, 1000000, 1000000, 500000, 500000},
		.slice_us = 2000,
		.turn_us = 200,
		.turn_frames = 64,
		.net = b,
	};
}

/* b->start_result and the call-backs may be set before; everything else is zero. Returns
 * worker_start's result. */
static inline int bare_begin(struct bare *b, const struct worker_opts *opts)
{
	static struct worker_ops ops = {
		.mail = bare_on_mail,
		.start = bare_start,
		.flush = bare_flush,
		.settle = bare_settle,
		.refill = bare_refill,
		.stop = bare_stop,
	};
	struct worker_opts own = *opts;

	job_register(&ops);
	for (unsigned op = OP_WAKE + 1; op < RING_OPS; op++)
		ops.cqe[op] = bare_cqe;
	ops.timer[WORKER_CONN] = bare_timer;
	b->stats = aligned_alloc(64, sizeof *b->stats);
	assert(b->stats && sem_init(&b->done, 0, 0) == 0);
	stats_init(b->stats);
	own.stats = b->stats;
	if (worker_create(&own, &ops, &b->w))
		abort();
	return worker_start(b->w);
}

static inline void bare_send(struct bare *b, enum bare_mail kind, uint64_t a, void *ptr)
{
	struct mailbox_msg msg = {.kind = kind, .a = a, .ptr = ptr};
	struct timespec nap = {0, 1000000};

	while (worker_post(b->w, &msg, NULL))
		nanosleep(&nap, NULL);
}

/* Runs fn in the worker and waits for it. */
static inline void bare_run(struct bare *b, void (*fn)(struct bare *b, void *arg), void *arg)
{
	struct bare_call call = {.fn = fn, .arg = arg};

	sem_init(&call.done, 0, 0);
	bare_send(b, BARE_CALL, 0, &call);
	while (sem_wait(&call.done))
		;
	sem_destroy(&call.done);
}

static inline void bare_end(struct bare *b)
{
	bare_send(b, BARE_STOP, 0, NULL);
	worker_join(b->w);
}

static inline void bare_free(struct bare *b)
{
	worker_destroy(b->w);
	sem_destroy(&b->done);
	free(b->stats);
}

static inline uint64_t bare_now_ms(void)
{
	return worker_clock_ns() / 1000000;
}

static inline void bare_sleep_ms(unsigned ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000l};

	nanosleep(&t, NULL);
}

/* Waits until *counter is at least `want`; false when it does not become that. */
static inline bool bare_wait(_Atomic unsigned *counter, unsigned want)
{
	uint64_t until = bare_now_ms() + 10000;

	while (*counter < want) {
		if (bare_now_ms() > until)
			return false;
		bare_sleep_ms(1);
	}
	return true;
}

#endif
