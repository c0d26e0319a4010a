/* A worker: one pinned thread, its rings, timers, run queue and mailbox. It owns its connections
 * outright.
 *
 * The loop: flush output into SQEs -> submit and wait -> reap completions, each making something
 * runnable -> settle sends -> timers -> mailbox -> run the classes by deficit round robin within a
 * slice -> publish -> again.
 *
 * What a connection is, this layer does not know: it dispatches completions by enum ring_op, and
 * run-queue items and timers by their `kind`, to the tables in struct worker_ops. Everything below
 * without a note is for the worker's own thread. Call order: worker_create, worker_start,
 * worker_post (any thread), worker_join, worker_destroy.
 */
#ifndef TIDEGATE_CORE_WORKER_H
#define TIDEGATE_CORE_WORKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/stats.h"
#include "core/mailbox.h"
#include "core/ring.h"
#include "core/runq.h"
#include "core/timer.h"
#include "core/wake.h"

#define WORKER_SLOT_NS UINT64_C(20000000) /* of tg_worker_stats.least_delay */

enum {
	WORKER_RINGS_MAX = 64,
	WORKER_KINDS = 8,
	WORKER_MAILBOX = 4096,
	WORKER_MAIL_PER_TURN = 256,
	WORKER_TIMERS_PER_TURN =
		256, /* a late wheel is caught up in steps, so that reading still gets its share */
	WORKER_LATE = 10, /* times its budget, from which on a turn is late */
	/* So many events of a class in a slot, their wake delay known, say what the least poll
	 * delay is; fewer would take bad luck for a queue. */
	WORKER_MEASURED_LEAST = 4,
};

/* What a run-queue item or a timer is embedded in. */
enum worker_kind {
	WORKER_CONN,
	WORKER_LINK,
	WORKER_JOB,  /* resumable work of the worker itself: drain, listings */
	WORKER_TRIM, /* of memory that is kept for a while */
};

struct worker;

struct worker_ops {
	void (*cqe[RING_OPS])(
		struct worker *w, struct ring *r, uint64_t ud, int res, uint32_t flags);
	void (*run[WORKER_KINDS])(struct worker *w, struct runq_item *it);
	void (*timer[WORKER_KINDS])(struct worker *w, struct wheel_timer *t);
	void (*mail)(struct worker *w, const struct mailbox_msg *msg);
	/* What others may know of the worker: after each turn, before it sleeps (sleeping), and
	 * first thing when it wakes. May be NULL. */
	void (*publish)(struct worker *w, bool sleeping);
	int (*start)(struct worker *w);  /* in the thread, before the first turn; 0 or -errno */
	void (*flush)(struct worker *w); /* turns queued output into SQEs */
	void (*settle)(
		struct worker *w, struct ring *r); /* r's submitted sends have all been ruled on */
	void (*refill)(struct worker *w,
		struct ring *r);        /* buffers came back, or receives starve: try those again */
	void (*stop)(struct worker *w); /* in the thread, after the last turn */
};

struct worker_opts {
	unsigned id;
	int cpu;               /* -1: not pinned */
	unsigned rings_max;    /* 1..WORKER_RINGS_MAX */
	struct ring_opts ring; /* index is ignored */
	uint64_t quantum_ns[RUNQ_CLASSES];
	uint32_t slice_us;      /* run-queue time between two looks at the rings */
	uint32_t turn_us;       /* budget of one turn of a client connection, in time … */
	unsigned turn_frames;   /* … and in frames */
	uint32_t batch_wait_us; /* a busy worker that has nothing to do waits so long for a batch of
				   events before it is content with one; 0: never */
	struct tg_worker_stats *stats;
	const struct tg_sched *sched; /* whether the kernel measures; NULL: it never does */
	struct tg_ready *ready;       /* what it measures; NULL likewise */
	void *net;                    /* the net layer's per-worker state */
};

struct worker {
	const struct worker_ops *ops;
	struct worker_opts opts;
	unsigned id;
	struct tg_worker_stats *stats;
	void *net;

	struct ring *ring[WORKER_RINGS_MAX];
	unsigned n_rings;
	struct wheel wheel;
	struct runq runq;
	struct mailbox *mailbox;
	int wake_fd;

	uint64_t start_ns;
	uint64_t now_ns; /* as of the last look at the clock in this turn */
	uint32_t now_ms; /* since start; the wheel's clock */
	uint32_t cpu_looked_ms;
	uint64_t alarm_ns;      /* when the armed alarm rings; 0: none is armed */
	unsigned reaped_accept; /* completions of this turn that are of accepting */
	/* The least of the slot that goes on, UINT32_MAX: none. Run delays by class, since each has
	 * a queue of its own to stand in. */
	uint32_t slot, least_us[RUNQ_CLASSES], least_loop_us;
	/* The same of poll delays, and of how many events. */
	uint32_t least_poll_us[RUNQ_CLASSES], measured[RUNQ_CLASSES];
	bool measuring;
	struct wakes wakes;
	struct __kernel_timespec wait;
	unsigned events;        /* completions of the last turn */
	uint32_t turn_delay_us; /* the longest run delay of this turn */
	uint64_t poll_delay_ns; /* what an event has had to wait lately, smoothed */
	bool hurry; /* flush: do not wait for a completion, the outcome of a quiet send is wanted
		       now */
	bool session_input; /* a session's input has been asked for in this turn, and is there */
	uint64_t awake_since_ns; /* what is before has been counted, or it slept */
	uint64_t newcomers_ns;   /* when handshakes last had their share of a slice */
	bool stopping;
	struct runq_item *parked; /* to be queued when this turn is over */
	_Atomic int ring_error;   /* errno of the last ring that could not be added; 0: none. Any
				     thread */

	pthread_t thread;
	bool started;
	_Atomic int start_result; /* 1: not known yet */
};

static inline uint64_t worker_clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

/* Looks at the clock and updates now_ns and now_ms. */
static inline uint64_t worker_now(struct worker *w)
{
	w->now_ns = worker_clock_ns();
	w->now_ms = (uint32_t)((w->now_ns - w->start_ns) / 1000000);
	return w->now_ns;
}

static inline uint32_t worker_now_us(const struct worker *w)
{
	return (uint32_t)(w->now_ns / 1000);
}

/* With its first ring, not yet running. 0 or -errno. Any thread. */
int worker_create(
	const struct worker_opts *opts, const struct worker_ops *ops, struct worker **ret);
/* Starts the thread and waits for ops->start. 0 or -errno. The creating thread. */
int worker_start(struct worker *w);
/* Waits for the thread to end; it ends after worker_stop. The creating thread. */
void worker_join(struct worker *w);
/* NULL is allowed. After worker_join, or when never started. */
void worker_destroy(struct worker *w);

/* Ends the loop after this turn. */
void worker_stop(struct worker *w);

/* Sends a message to a worker and wakes it if it sleeps. `from`: the calling worker, or NULL from
 * any other thread. 0 or -EAGAIN when its mailbox is full: the caller's job waits and tries again.
 * Any thread. */
int worker_post(struct worker *to, const struct mailbox_msg *msg, struct worker *from);

/* One more ring, enabled and waited on. 0, -ENOSPC at rings_max, or -errno. */
int worker_add_ring(struct worker *w, struct ring **ret);

static inline void worker_push(struct worker *w, struct runq_item *it, enum runq_class class_)
{
	runq_push(&w->runq, it, class_, worker_now_us(w));
}

/* The same for what was received, with its wake delay (runq_wake, or 0: not known). */
static inline void worker_push_woken(
	struct worker *w, struct runq_item *it, enum runq_class class_, uint16_t wake)
{
	if (it->queued)
		return;
	worker_push(w, it, class_);
	it->wake = wake;
}

/* In an item's turn: which connection it is for, should somebody ask. */
static inline void worker_turn_of(struct worker *w, unsigned ring, uint32_t slot, uint64_t session)
{
	struct tg_worker_turn *t = &w->stats->turn;

	__atomic_store_n(&t->conn, ((uint32_t)ring << 24 | slot) + 1, __ATOMIC_RELAXED);
	__atomic_store_n(&t->session, session, __ATOMIC_RELAXED);
}

/* The same, but not before the worker's next turn: what has been queued for sockets goes out first.
 * For work that costs little itself and much at the sockets, of which a slice would do too much. */
void worker_push_next_turn(struct worker *w, struct runq_item *it, enum runq_class class_);
/* The same for an item whose turn ended with work left: not before what the rings have for others
 * by now, or one that always has work would keep them waiting for whole slices. */
void worker_push_again(struct worker *w, struct runq_item *it, enum runq_class class_);
/* Takes a queued item out, wherever it waits; as rare as runq_remove(). */
void worker_remove(struct worker *w, struct runq_item *it);

#endif
