/* The engine under every workload: threads that own rings that own client connections.
 *
 * It connects (from many source addresses on loopback), shakes hands in WebSocket or tg-raw, parses
 * what arrives, answers pings and close frames, and sends what a workload hands it. A workload is
 * one struct load_ops and the command around it; the engine knows nothing of what the messages
 * mean.
 *
 * Order, all of it from the controlling thread: load_create, load_add once per thread, load_start,
 * then load_phase_set as the command goes on, load_stop (joins the threads), load_destroy. The ops
 * run in the threads; a connection never leaves its thread. The controlling thread may read
 * counters at any time.
 *
 * Sending. At most one unconfirmed send per connection: sends are quiet (a completion only when one
 * was short or failed), so a connection gets its next one only after the completions of the
 * submission that carried the last have been reaped. What a socket did not take is kept on the heap
 * and goes out first when it is writable.
 */
#ifndef TIDEGATE_BENCH_LOAD_H
#define TIDEGATE_BENCH_LOAD_H

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "handshake.h"
#include "load_ring.h"
#include "options.h"
#include "proto/raw.h"
#include "proto/ws.h"

enum load_state {
	LOAD_FREE,
	LOAD_CONNECTING,
	LOAD_HANDSHAKE,
	LOAD_OPEN,
	LOAD_CLOSING, /* a close frame is going out, as an answer to the peer's */
};

enum load_phase {
	LOAD_PHASE_CONNECT, /* connections are opened */
	LOAD_PHASE_RUN,     /* the workload runs */
	LOAD_PHASE_DRAIN,   /* the workload starts nothing new */
	LOAD_PHASE_STOP,    /* the threads end */
};

struct load_extra;

/* 72 bytes, of which an idle connection has no more but the workload's own. */
struct load_conn {
	union {
		struct ws_parser ws;
		struct raw_parser raw;
	} parser;
	struct load_extra *extra; /* what few connections have (load_conn.h); NULL almost always */
	uint32_t next_dirty, next_starved; /* lists of the ring */
	uint32_t staged_at, staged_len;    /* its last send, in the thread's staging area */
	uint16_t gen;                      /* rejects completions of the slot's former connection */
	uint8_t state;                     /* enum load_state */
	uint8_t ring;                      /* index within the thread */
	uint16_t flags;
};

/* A piece of a message from the peer, as in proto/ws.h. */
struct load_piece {
	const uint8_t *data;
	size_t len;
	bool text, start, end;
};

/* What a workload's fill() gives back. */
struct load_fill {
	uint8_t *buf;
	size_t cap, len; /* len: bytes written, whole frames but for mid_frame */
	bool mid_frame;  /* the bytes end inside a frame: the next ones must continue it */
	bool more;       /* there is more to send now */
};

struct load_thread;

struct load_ops {
	size_t conn_bytes; /* of the workload's state per connection, zeroed at first */
	/* Arm a poll, not a receive: for connections that hear little; it costs less of the
	 * kernel's memory, and a system call more per readiness. */
	bool poll_idle;
	int rcvbuf_bytes; /* SO_RCVBUF, before the connect; 0: the kernel's own sizing */
	/* The workload starts connections itself, load_connect(), as often as it wants; not as many
	 * as there are, once, at the beginning. */
	bool starts;
	void (*on_open)(struct load_thread *t, struct load_conn *c);
	void (*on_message)(struct load_thread *t, struct load_conn *c, const struct load_piece *p);
	/* Optional, for a load that must cost the generator next to nothing: how many bytes, at a
	 * frame's beginning, are whole messages that need no parsing. */
	size_t (*skip)(struct load_thread *t, const uint8_t *data, size_t len);
	void (*on_closed)(struct load_thread *t, struct load_conn *c); /* was open */
	void (*on_failed)(struct load_thread *t, struct load_conn *c); /* never was */
	/* Soon after load_send_wanted(). */
	void (*fill)(struct load_thread *t, struct load_conn *c, struct load_fill *f);
	/* Once a turn; returns when it wants to be called at the latest (UINT64_MAX: any time). */
	uint64_t (*tick)(struct load_thread *t, uint64_t now_ns);
};

/* One thread's counters: written by it with plain stores, read by anyone. */
struct load_counters {
	_Atomic uint64_t started, opened;
	_Atomic uint64_t connect_failed, handshake_failed; /* never opened */
	_Atomic uint64_t closed;   /* opened, then ended by the peer or an error */
	_Atomic uint64_t pings;    /* received and answered */
	_Atomic uint64_t bad_data; /* reported by the workload, load_fail() */
	_Atomic uint64_t no_buffer, overflows, sends_blocked;
	_Atomic uint64_t first_start_ns, last_open_ns;
};

static inline void load_count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
		memory_order_relaxed);
}

static inline uint64_t load_read(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

struct load_conns {
	struct load_ring ring;
	struct load_conn *conn;
	uint8_t *work;     /* the workload's state, conn_bytes each */
	unsigned n, first; /* connections, and the number of the first within the thread */
	unsigned started;
	uint32_t dirty_head, dirty_tail;     /* connections that want to send */
	uint32_t starved_head, starved_tail; /* whose receive ended for want of a buffer */
};

struct load;

struct load_thread {
	struct load *load;
	const struct load_ops *ops;
	void *work; /* the workload's, given to load_add() */
	unsigned index;
	unsigned n_conns, first; /* connections; the number of the first within the whole load */
	bool background; /* SCHED_IDLE: runs only while no other thread of the load wants the CPU */
	bool urgent;     /* SCHED_FIFO, where that is allowed: ahead of the load's other threads */
	uint32_t n_bufs, buf_bytes;
	unsigned ring_connections;

	struct load_conns *rings;
	struct load_ring **ring_list;
	unsigned n_rings;
	unsigned in_flight; /* connections started but not open yet */
	unsigned fill_ring; /* the ring whose connections are started next */
	uint8_t *staging;   /* bytes of sends not confirmed yet */
	size_t staged;
	unsigned unsubmitted; /* sends queued since the last submission */
	struct load_waiter waiter;
	pthread_t thread;
	bool running;      /* to be joined */
	int error;         /* -errno of a thread that could not work; read after load_stop() */
	_Atomic bool dead; /* it ended because of `error` */
	struct load_counters count;
	char first_failure[192]; /* read after load_stop() */
};

struct load_thread_opts {
	const struct load_ops *ops;
	void *work;
	unsigned connections;
	bool background, urgent;
	unsigned batch_us;          /* see struct load_waiter */
	uint32_t n_bufs, buf_bytes; /* provided buffers of one ring */
	/* Of one ring, at most; 0: what RLIMIT_NOFILE allows. A cancellation looks through a part
	 * of all that is armed on its ring. */
	unsigned ring_connections;
};

struct load {
	const struct bench_options *opts;
	struct load_thread **thread;
	unsigned n_threads, n_conns;
	struct sockaddr_in *source; /* connection i is bound to source[i % n_sources], if any */
	unsigned n_sources;
	uint8_t request[HANDSHAKE_REQUEST_MAX];
	size_t request_len;
	uint64_t start_ns;
	_Atomic int phase;
};

uint64_t load_now_ns(void);
/* How many provided buffers suit so many connections of one thread: running out costs a completion
 * and a new receive each time. */
uint32_t load_buffers(unsigned connections, uint32_t bytes);

int load_create(const struct bench_options *opts, struct load **ret);
void load_destroy(struct load *l); /* NULL is allowed */
int load_add(struct load *l, const struct load_thread_opts *opts);
int load_start(struct load *l);
void load_phase_set(struct load *l, enum load_phase phase);
/* Ends and joins the threads; connections are reset, which leaves no ports in TIME_WAIT behind. May
 * be called again. */
void load_stop(struct load *l);

static inline enum load_phase load_phase_get(const struct load *l)
{
	return (enum load_phase)atomic_load_explicit(&l->phase, memory_order_acquire);
}

/* Sums over all threads. */
struct load_totals {
	uint64_t started, opened, connect_failed, handshake_failed, closed, pings, bad_data;
	uint64_t no_buffer, overflows, sends_blocked;
	uint64_t first_start_ns, last_open_ns;
	unsigned dead; /* threads that could not work */
};

struct load_totals load_totals(const struct load *l);
/* What went wrong first, for people; "" when nothing did. After load_stop(). */
const char *load_first_failure(const struct load *l, char *buf, size_t len);

/* For workloads, in their threads. */
/* Asks for fill() in this turn or the next. */
void load_send_wanted(struct load_thread *t, struct load_conn *c);
/* Reads no more from the connection, ever: the peer finds its window shut. A reset by the peer
 * still ends it. */
void load_stop_reading(struct load_thread *t, struct load_conn *c);
/* Begins to open the thread's i-th connection, which is LOAD_FREE. */
void load_connect(struct load_thread *t, unsigned i);
/* Ends a connection that is not free, whatever its state, without a word: a reset goes out when
 * there is a peer. Counted nowhere, and no op is called for it. */
void load_drop(struct load_thread *t, struct load_conn *c);
/* The i-th connection of the thread. */
struct load_conn *load_conn_at(const struct load_thread *t, unsigned i);
/* Its number within the whole load. */
unsigned load_conn_number(const struct load_thread *t, const struct load_conn *c);
void *load_conn_work(const struct load_thread *t, const struct load_conn *c);
/* Counts bad data, keeps the text of the thread's first failure and ends the connection. */
__attribute__((format(printf, 3, 4))) void load_fail(
	struct load_thread *t, struct load_conn *c, const char *fmt, ...);

#endif
