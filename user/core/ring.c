#include "core/ring.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static void *reserve(size_t bytes, int extra_flags)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | extra_flags, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

static size_t buffers_bytes(const struct ring *r)
{
	return (size_t)r->n_buffers * r->buffer_bytes;
}

static size_t starved_bytes(const struct ring *r)
{
	return sizeof *r->starved[0].slot * r->slots * 2;
}

static void buffer_put(struct ring *r, uint16_t bid)
{
	io_uring_buf_ring_add(r->buf_ring, r->buffers + (size_t)bid * r->buffer_bytes,
		r->buffer_bytes, bid, io_uring_buf_ring_mask(r->n_buffers), (int)r->buf_pending);
	r->buf_pending++;
}

static int setup_buffers(struct ring *r)
{
	int err;

	/* Populated now: a page fault belongs to the start, not to the first storm. */
	r->buffers = reserve(buffers_bytes(r), MAP_POPULATE);
	if (!r->buffers)
		return -ENOMEM;
	r->buf_ring = io_uring_setup_buf_ring(
		&r->u, r->n_buffers, RING_BUF_GROUP, IOU_PBUF_RING_INC, &err);
	if (!r->buf_ring)
		return err;
	for (unsigned i = 0; i < r->n_buffers; i++)
		buffer_put(r, (uint16_t)i);
	ring_buffers_publish(r);
	return 0;
}

int ring_create(const struct ring_opts *opts, struct ring **ret)
{
	struct io_uring_params p = {
		.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
			 IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE,
		.cq_entries = RING_CQ_ENTRIES,
	};
	struct ring *r = calloc(1, sizeof *r);
	int err;

	if (!r)
		return -ENOMEM;
	r->index = opts->index;
	r->slots = opts->slots;
	r->n_buffers = opts->buffers;
	r->buffer_bytes = opts->buffer_bytes;
	r->object_bytes = opts->object_bytes;
	r->n_pieces = opts->pieces ? opts->pieces : RING_PIECES;
	err = io_uring_queue_init_params(RING_SQ_ENTRIES, &r->u, &p);
	if (err)
		goto err_free;
	err = io_uring_register_files_sparse(&r->u, r->slots);
	if (err)
		goto err_ring;
	err = setup_buffers(r);
	if (err)
		goto err_buffers;
	err = -ENOMEM;
	r->objects = reserve(r->object_bytes * r->slots, 0);
	if (!r->objects)
		goto err_buffers;
	/* One reservation for both. */
	r->starved[0].slot = reserve(starved_bytes(r), 0);
	if (!r->starved[0].slot)
		goto err_objects;
	r->starved[1].slot = r->starved[0].slot + r->slots;
	r->buf = calloc(r->n_buffers, sizeof *r->buf);
	r->piece = calloc(r->n_pieces, sizeof *r->piece);
	if (!r->buf || !r->piece)
		goto err_pieces;
	r->piece_free = RING_NO_PIECE;
	*ret = r;
	return 0;

err_pieces:
	free(r->piece);
	free(r->buf);
	munmap(r->starved[0].slot, starved_bytes(r));
err_objects:
	munmap(r->objects, r->object_bytes * r->slots);
err_buffers:
	if (r->buf_ring)
		io_uring_free_buf_ring(&r->u, r->buf_ring, r->n_buffers, RING_BUF_GROUP);
	if (r->buffers)
		munmap(r->buffers, buffers_bytes(r));
err_ring:
	io_uring_queue_exit(&r->u);
err_free:
	free(r);
	return err;
}

int ring_enable(struct ring *r)
{
	int err = io_uring_enable_rings(&r->u);

	if (err)
		return err;
	/* Saves the descriptor look-up of every enter. A thread has 16 places for it: later rings
	 * go without. */
	io_uring_register_ring_fd(&r->u);
	return 0;
}

void ring_destroy(struct ring *r)
{
	bool ours;

	if (!r)
		return;
	/* Refused to any thread but the worker's, and the mapping is then not undone either. */
	ours = io_uring_free_buf_ring(&r->u, r->buf_ring, r->n_buffers, RING_BUF_GROUP) != 0;
	io_uring_queue_exit(&r->u);
	if (ours)
		munmap(r->buf_ring, r->n_buffers * sizeof(struct io_uring_buf));
	munmap(r->buffers, buffers_bytes(r));
	munmap(r->objects, r->object_bytes * r->slots);
	munmap(r->starved[0].slot, starved_bytes(r));
	free(r->piece);
	free(r->buf);
	free(r);
}

struct io_uring_sqe *ring_sqe(struct ring *r)
{
	struct io_uring_sqe *sqe;

	while (!(sqe = io_uring_get_sqe(&r->u))) {
		int n = io_uring_submit(&r->u);
		/* Only a lack of memory or a signal can delay submission; anything else is a bug of
		 * ours. */
		assert(n >= 0 || n == -EINTR || n == -EAGAIN || n == -EBUSY);
	}
	return sqe;
}

void ring_submit(struct ring *r)
{
	int n;

	do {
		n = io_uring_submit_and_get_events(&r->u);
		assert(n >= 0 || n == -EINTR || n == -EAGAIN || n == -EBUSY);
	} while (n < 0 || io_uring_sq_ready(&r->u));
}

uint16_t ring_take(struct ring *r, uint32_t cqe_flags, uint32_t len)
{
	uint16_t bid = (uint16_t)(cqe_flags >> IORING_CQE_BUFFER_SHIFT), id = r->piece_free;
	struct ring_buf *b = &r->buf[bid];

	assert(!ring_pieces_spent(r) && len <= r->buffer_bytes - b->used);
	if (id == RING_NO_PIECE)
		id = r->piece_fresh++;
	else
		r->piece_free = r->piece[id].next;
	r->piece[id] = (struct ring_piece){
		.at = bid * r->buffer_bytes + b->used,
		.len = len,
		.buf = bid,
	};
	r->pieces_out++;
	b->used += len;
	b->pieces++;
	if (!(cqe_flags & IORING_CQE_F_BUF_MORE)) {
		b->full = true;
		r->buf_out++;
	}
	return id;
}

void ring_give(struct ring *r, uint16_t piece)
{
	uint16_t bid = r->piece[piece].buf;
	struct ring_buf *b = &r->buf[bid];

	r->piece[piece].next = r->piece_free;
	r->piece_free = piece;
	r->pieces_out--;
	b->pieces--;
	if (b->pieces || !b->full)
		return;
	*b = (struct ring_buf){0};
	r->buf_out--;
	buffer_put(r, bid);
}

void ring_buffers_publish(struct ring *r)
{
	if (!r->buf_pending)
		return;
	io_uring_buf_ring_advance(r->buf_ring, (int)r->buf_pending);
	r->buf_pending = 0;
}

void ring_starve(struct ring *r, uint32_t slot, bool newcomer)
{
	struct ring_fifo *f = &r->starved[newcomer];

	assert(f->tail - f->head < r->slots);
	f->slot[f->tail++ % r->slots] = slot;
}

bool ring_starved_pop(struct ring *r, uint32_t *ret_slot)
{
	struct ring_fifo *f = &r->starved[r->starved[0].head == r->starved[0].tail];

	if (f->head == f->tail)
		return false;
	*ret_slot = f->slot[f->head++ % r->slots];
	return true;
}

void ring_cancel(struct ring *r, uint64_t user_data)
{
	struct io_uring_sqe *sqe = ring_sqe(r);

	io_uring_prep_cancel64(sqe, user_data, 0);
	sqe->user_data = ring_ud(OP_NONE, 0, 0, 0);
	sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
}

void ring_close(struct ring *r, uint32_t slot)
{
	struct io_uring_sqe *sqe = ring_sqe(r);

	io_uring_prep_close_direct(sqe, slot);
	sqe->user_data = ring_ud(OP_NONE, 0, 0, 0);
	sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
}
