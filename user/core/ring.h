/* One io_uring of a worker: a sparse table of direct descriptors, a provided-buffer ring, and
 * submission helpers.
 *
 * Provided buffers are consumed incrementally (IOU_PBUF_RING_INC, Linux 6.12): what is received for
 * whichever connection follows what was received last, so that a buffer holds many small messages
 * or a good part of a large one. Each receive is a piece of its buffer; a buffer goes back to the
 * kernel when it is full and all its pieces have been given back.
 *
 * Created anywhere, enabled and used by its worker thread only (SINGLE_ISSUER, DEFER_TASKRUN:
 * completions are posted when the worker asks for them, never by interrupting it). Needs
 * Linux 6.12. Call order: ring_create, ring_enable (in the worker), use, ring_destroy (in the
 * worker, or anywhere after its thread has ended).
 *
 * Hazards that shape the interface:
 *  - Pointers in an SQE are read when it is submitted, so what they name must live until then: no
 * stack variables.
 *  - A direct slot that is closed while a request is armed on it frees the slot but not the socket.
 * Cancel first.
 *  - The generation in user_data rejects completions of a slot's former owner.
 */
#ifndef TIDEGATE_CORE_RING_H
#define TIDEGATE_CORE_RING_H

#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>

/* Every kind of completion. The worker hands each to the handler registered for it. */
enum ring_op {
	OP_NONE, /* nobody waits for it */
	OP_WAKE, /* the worker's eventfd, or a message from another worker's ring */
	OP_ACCEPT,
	OP_CONN_PEER,
	OP_CONN_POLL,
	OP_CONN_RECV,
	OP_CONN_SEND,
	OP_CONN_POLLOUT,
	OP_CONN_SHUTDOWN,
	OP_LINK_SOCKET,
	OP_LINK_CONNECT,
	OP_LINK_RECV,
	OP_LINK_SEND,
	OP_LINK_CLOSE,
	RING_OPS,
};

enum {
	RING_SLOT_BITS = 24,
	RING_BUF_GROUP = 0,
	RING_PIECES = 8192,
	RING_NO_PIECE = 0xffff,
	/* Both are memory the kernel accounts to an unprivileged user (RLIMIT_MEMLOCK), some 110
	 * KiB a ring. The second one also sizes the cancellation table: a look-up among 20,000
	 * armed requests takes a few microseconds. */
	RING_SQ_ENTRIES = 512,
	RING_CQ_ENTRIES = 4096,
	/* A full send posts no completion under CQE_SKIP_SUCCESS; a short or failed one does. Never
	 * goes asynchronous. */
	RING_SEND_FLAGS = MSG_DONTWAIT | MSG_WAITALL | MSG_NOSIGNAL,
};

/* user_data: op (8 bits) | generation (16) | aux (16) | slot or index (24). */
static inline uint64_t ring_ud(enum ring_op op, uint16_t gen, uint16_t aux, uint32_t slot)
{
	return (uint64_t)op << 56 | (uint64_t)gen << 40 | (uint64_t)aux << 24 | (slot & 0xffffff);
}

static inline enum ring_op ring_ud_op(uint64_t ud)
{
	return (enum ring_op)(ud >> 56);
}

static inline uint16_t ring_ud_gen(uint64_t ud)
{
	return (uint16_t)(ud >> 40);
}

static inline uint16_t ring_ud_aux(uint64_t ud)
{
	return (uint16_t)(ud >> 24);
}

static inline uint32_t ring_ud_slot(uint64_t ud)
{
	return (uint32_t)(ud & 0xffffff);
}

struct ring_opts {
	unsigned index;   /* within its worker */
	unsigned slots;   /* direct descriptors; at most RLIMIT_NOFILE */
	unsigned buffers; /* a power of two, up to 32768 */
	uint32_t buffer_bytes;
	unsigned pieces;     /* received and not given back yet, up to 65535; 0: RING_PIECES */
	size_t object_bytes; /* a zeroed object per slot, touched only when used */
};

struct ring {
	struct io_uring u;
	unsigned index;
	unsigned slots;
	unsigned used;      /* slots that hold a descriptor; the owners of slots keep it */
	unsigned used_high; /* objects ever touched are below it */
	uint8_t *objects;
	size_t object_bytes;

	struct io_uring_buf_ring *buf_ring;
	uint8_t *buffers;
	unsigned n_buffers;
	uint32_t buffer_bytes;
	unsigned buf_pending; /* handed back, not yet published to the kernel */
	unsigned buf_out;     /* full, and not handed back: pieces of them are left */
	struct ring_buf {
		uint32_t used; /* by the kernel, from the front */
		uint32_t pieces : 31, full : 1;
	} * buf;
	struct ring_piece {
		uint32_t at; /* in `buffers` */
		uint32_t len;
		uint16_t buf;
		uint16_t next; /* free for whoever has the piece */
	} * piece;
	unsigned n_pieces, pieces_out;
	uint16_t piece_free, piece_fresh; /* given back; never taken from here on */

	/* Slots whose receive found no buffer: of sessions, and of newcomers. */
	struct ring_fifo {
		uint32_t *slot; /* as many as the ring has */
		uint64_t head, tail;
	} starved[2];
};

/* 0 or -errno; -EMFILE when `slots` is above RLIMIT_NOFILE. */
int ring_create(const struct ring_opts *opts, struct ring **ret);
int ring_enable(struct ring *r);
void ring_destroy(struct ring *r); /* NULL is allowed */

static inline void *ring_object(struct ring *r, uint32_t slot)
{
	return r->objects + (size_t)slot * r->object_bytes;
}

static inline uint8_t *ring_piece_data(const struct ring *r, uint16_t piece)
{
	return r->buffers + r->piece[piece].at;
}

/* None is left to be taken: some must be given back before the next completion is looked at. */
static inline bool ring_pieces_spent(const struct ring *r)
{
	return r->pieces_out == r->n_pieces;
}

/* A free SQE; submits when the queue is full. Never NULL. */
struct io_uring_sqe *ring_sqe(struct ring *r);

/* Submits all that is queued and lets the kernel run what is due, without waiting for completions.
 */
void ring_submit(struct ring *r);

/* The kernel has completions to post, or (it says so for a while after) has just posted them. */
static inline bool ring_news(const struct ring *r)
{
	return IO_URING_READ_ONCE(*r->u.sq.kflags) & IORING_SQ_TASKRUN;
}

/* True when the ring has something to submit or to reap. */
static inline bool ring_busy(struct ring *r)
{
	return io_uring_cq_ready(&r->u) || io_uring_sq_ready(&r->u) ||
	       (IO_URING_READ_ONCE(*r->u.sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW));
}

static inline bool ring_overflowed(struct ring *r)
{
	return IO_URING_READ_ONCE(*r->u.sq.kflags) & IORING_SQ_CQ_OVERFLOW;
}

/* The piece that a completion brought: len bytes, in a buffer that its flags tell. Completions must
 * be taken in the order in which they came. */
uint16_t ring_take(struct ring *r, uint32_t cqe_flags, uint32_t len);
/* Gives a piece back. The kernel sees buffers that this frees after ring_buffers_publish. */
void ring_give(struct ring *r, uint16_t piece);
void ring_buffers_publish(struct ring *r);

/* Remembers that a slot's receive found no buffer; each slot at most once at a time. */
void ring_starve(struct ring *r, uint32_t slot, bool newcomer);
static inline bool ring_starving(const struct ring *r)
{
	return r->starved[0].head != r->starved[0].tail || r->starved[1].head != r->starved[1].tail;
}

/* The longest-waiting starved slot, sessions before newcomers. False when none. */
bool ring_starved_pop(struct ring *r, uint32_t *ret_slot);

/* Cancels one request by its user_data; its own completion says -ECANCELED (or that it was faster).
 */
void ring_cancel(struct ring *r, uint64_t user_data);

/* Closes a direct descriptor; nothing may be armed on it any more. No completion. */
void ring_close(struct ring *r, uint32_t slot);

#endif
