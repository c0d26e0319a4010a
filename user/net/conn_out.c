/* The writing machine: the out queue, one unconfirmed send a connection, and what happens when it
 * is short.
 *
 * A send is submitted with MSG_DONTWAIT | MSG_WAITALL and posts a completion only when it was short
 * or failed. So when a batch has been submitted and its completions reaped, every send without one
 * has succeeded in full: that is `settle`. The queue's buffers stay untouched in between.
 */
#include "net/conn_internal.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <string.h>

enum {
	BACKLOG_BYTES = BUF_MEDIUM_BYTES - sizeof(struct buf),
};

static struct buf *out_head(const struct conn *c)
{
	return c->out ? c->out->next : NULL;
}

static void out_append(struct conn *c, struct buf *b)
{
	if (c->out) {
		b->next = c->out->next;
		c->out->next = b;
	} else {
		b->next = b;
	}
	c->out = b;
}

/* Takes n bytes off the front. */
static void out_consume(struct conn *c, uint32_t n)
{
	struct buf_pool *bufs = &conn_net(c)->bufs;

	assert(n <= c->out_bytes);
	c->out_bytes -= n;
	while (c->out) {
		struct buf *b = c->out->next;
		uint32_t take = n < b->len ? n : b->len;

		b->off += take;
		b->len -= take;
		n -= take;
		if (b->len)
			return;
		if (b == c->out)
			c->out = NULL;
		else
			c->out->next = b->next;
		buf_free(bufs, b);
	}
}

void conn_out_drop(struct conn *c)
{
	if (c->out_bytes)
		out_consume(c, c->out_bytes);
}

uint8_t *conn_out_room(struct conn *c, size_t len)
{
	struct buf *b = c->out;
	uint8_t *p;

	if (c->out_bytes + (uint64_t)len > UINT32_MAX)
		return NULL;
	if (!b || buf_room(b) < len) {
		/* Behind a first buffer there is a backlog: fewer and larger ones, which the
		 * worker's cap refuses first. */
		b = buf_alloc(
			&conn_net(c)->bufs, c->out && len < BACKLOG_BYTES ? BACKLOG_BYTES : len);
		if (!b)
			return NULL;
		out_append(c, b);
	}
	p = buf_end(b);
	b->len += (uint32_t)len;
	c->out_bytes += (uint32_t)len;
	if (c->out_bytes > CONN_OUT_LOW_BYTES)
		c->flags |= CONN_OUT_HIGH;
	conn_dirty(c);
	return p;
}

bool conn_out_bytes(struct conn *c, const void *data, size_t len)
{
	uint8_t *p = conn_out_room(c, len);

	if (!p)
		return false;
	memcpy(p, data, len);
	return true;
}

void conn_dirty(struct conn *c)
{
	struct net *n = conn_net(c);

	if (c->flags & CONN_DIRTY || c->armed & (ARMED_SEND | ARMED_POLLOUT))
		return; /* settle or the poll will look at the queue */
	c->flags |= CONN_DIRTY;
	c->flush_next = NULL;
	*n->flush_tail = c;
	n->flush_tail = &c->flush_next;
}

int conn_send(struct conn *c, bool text, const void *data, size_t len)
{
	struct net *n = conn_net(c);
	uint8_t header[WS_SERVER_HEADER_MAX];
	size_t header_len;
	uint8_t *p;

	if (c->state != CONN_OPEN)
		return -EPIPE;
	if (c->protocol == CONN_WEBSOCKET)
		header_len = ws_header_write(header, text ? WS_TEXT : WS_BINARY, true, len);
	else
		header_len =
			raw_header_write(header, text ? TG_RAW_TEXT : TG_RAW_BINARY, (uint32_t)len);
	if (c->out_bytes + header_len + len >
		conn_limits(c)->out_queue_bytes + WS_SERVER_HEADER_MAX) {
		conn_close(c, WS_CLOSE_POLICY, "too slow: the out queue is full", CLOSE_OUT_FULL);
		return -ENOBUFS;
	}
	p = conn_out_room(c, header_len + len);
	if (!p) {
		conn_close(c, WS_CLOSE_TRY_LATER, "out of memory", CLOSE_NO_MEMORY);
		return -ENOBUFS;
	}
	memcpy(p, header, header_len);
	if (len)
		memcpy(p + header_len, data, len);
	/* A session that only listens is not idle; it is still polled rather than received from, so
	 * only where it matters. */
	if (conn_limits(c)->idle_timeout_ms)
		c->last_message_ms = n->w->now_ms;
	c->messages_out++;
	n->stats->messages_out++;
	return 0;
}

/* The gather space may be reused once everything that points to it was submitted. */
static struct conn_gather *gather_get(struct net *n)
{
	if (n->gather_used == CONN_GATHER_BATCH) {
		for (unsigned i = 0; i < n->w->n_rings; i++)
			ring_submit(n->w->ring[i]);
		n->gather_used = 0;
	}
	return &n->gather[n->gather_used++];
}

static void prep_send(struct net *n, struct conn *c)
{
	struct ring *r = conn_ring(c);
	struct buf *b = out_head(c);
	uint32_t slot = conn_slot(c);
	struct io_uring_sqe *sqe;

	if (b == c->out) {
		sqe = ring_sqe(r);
		io_uring_prep_send(sqe, (int)slot, b->data + b->off, b->len, RING_SEND_FLAGS);
		c->out_inflight = b->len;
	} else {
		struct conn_gather *g = gather_get(n);
		unsigned i = 0;

		c->out_inflight = 0;
		do {
			g->iov[i] = (struct iovec){b->data + b->off, b->len};
			c->out_inflight += b->len;
			b = b->next;
		} while (++i < CONN_GATHER && b != out_head(c));
		g->msg = (struct msghdr){.msg_iov = g->iov, .msg_iovlen = i};
		sqe = ring_sqe(r);
		io_uring_prep_sendmsg(sqe, (int)slot, &g->msg, RING_SEND_FLAGS);
	}
	sqe->flags |= IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS;
	sqe->user_data = ring_ud(OP_CONN_SEND, c->gen, 0, slot);
	c->armed |= ARMED_SEND;
	/* Success is silent: where something follows it, it must not wait for the next completion
	 * of someone else. */
	if (c->state != CONN_OPEN || (c->flags & CONN_OUT_HIGH) || c->out_inflight < c->out_bytes)
		n->w->hurry = true;
	c->flush_next = n->inflight[c->ring];
	n->inflight[c->ring] = c;
}

/* An empty queue ends a closing connection's sending side. */
static void flushed(struct net *n, struct conn *c)
{
	if (c->state == CONN_CLOSING && !(c->flags & CONN_SHUT)) {
		struct io_uring_sqe *sqe;

		if (c->flags & CONN_CLOSE_AFTER_FLUSH) {
			conn_kill(c, CLOSE_CLIENT);
			return;
		}
		sqe = ring_sqe(conn_ring(c));
		io_uring_prep_shutdown(sqe, (int)conn_slot(c), SHUT_WR);
		sqe->flags |= IOSQE_FIXED_FILE;
		sqe->user_data = ring_ud(OP_CONN_SHUTDOWN, c->gen, 0, conn_slot(c));
		c->armed |= ARMED_SHUTDOWN;
		c->flags |= CONN_SHUT;
		return;
	}
	if (c->flags & CONN_OUT_HIGH) {
		c->flags &= (uint16_t)~CONN_OUT_HIGH;
		if (c->state == CONN_OPEN)
			n->ops->drained(c);
	}
}

void conn_flush(struct worker *w)
{
	struct net *n = net_of(w);
	struct conn *c;

	n->gather_used = 0;
	while ((c = n->flush_head)) {
		n->flush_head = c->flush_next;
		if (!n->flush_head)
			n->flush_tail = &n->flush_head;
		c->flags &= (uint16_t)~CONN_DIRTY;
		if (c->state == CONN_DEAD)
			conn_try_free(c);
		else if (c->out)
			prep_send(n, c);
		else
			flushed(n, c);
	}
	n->stats->heap_bytes = n->bufs.bytes;
}

static void blocked(struct conn *c, bool progress)
{
	struct net *n = conn_net(c);
	struct io_uring_sqe *sqe;
	bool again = c->aux && c->aux->out_since_ms;
	struct conn_aux *x = conn_aux_get(c);

	if (!x) {
		conn_kill(c, CLOSE_NO_MEMORY);
		return;
	}
	if (progress || !again)
		x->out_since_ms = n->w->now_ms | 1;
	n->stats->out_blocked++;
	sqe = ring_sqe(conn_ring(c));
	io_uring_prep_poll_add(sqe, (int)conn_slot(c), POLLOUT);
	sqe->flags |= IOSQE_FIXED_FILE;
	sqe->user_data = ring_ud(OP_CONN_POLLOUT, c->gen, 0, conn_slot(c));
	c->armed |= ARMED_POLLOUT;
	conn_timer_update(c);
}

/* One send is ruled on: out_inflight bytes are gone; with CONN_SEND_FAILED that was less than all,
 * or an error. */
static void sent(struct net *n, struct conn *c, uint32_t was)
{
	bool failed = c->flags & CONN_SEND_FAILED;

	c->armed &= (uint8_t)~ARMED_SEND;
	c->flags &= (uint16_t)~CONN_SEND_FAILED;
	c->out_inflight = 0;
	if (c->state == CONN_DEAD) {
		conn_try_free(c);
		return;
	}
	n->stats->bytes_out += was;
	out_consume(c, was);
	if (failed) {
		blocked(c, was > 0);
		return;
	}
	if (c->aux && c->aux->out_since_ms) {
		c->aux->out_since_ms = 0;
		conn_aux_trim(c);
	}
	if (c->out)
		conn_dirty(c);
	else if (c->state == CONN_CLOSING || (c->flags & CONN_OUT_HIGH))
		flushed(n, c);
}

void conn_settle(struct worker *w, struct ring *r)
{
	struct net *n = net_of(w);
	struct conn *c;

	while ((c = n->inflight[r->index])) {
		n->inflight[r->index] = c->flush_next;
		sent(n, c, c->out_inflight);
	}
}

void conn_on_send(struct worker *w, struct ring *r, uint64_t ud, int res, uint32_t flags)
{
	struct conn *c = ring_object(r, ring_ud_slot(ud));

	(void)flags;
	if (c->gen != ring_ud_gen(ud) || !(c->armed & ARMED_SEND)) {
		w->stats->stale_completions++;
		return;
	}
	/* Only noted here: the conn is on the in-flight list, which settle walks next. */
	c->flags |= CONN_SEND_FAILED;
	c->out_inflight = res > 0 ? (uint32_t)res : 0;
	if (res < 0 && res != -EAGAIN && res != -EINTR && res != -ENOBUFS)
		conn_kill(c, CLOSE_RESET);
}

void conn_on_pollout(struct worker *w, struct ring *r, uint64_t ud, int res, uint32_t flags)
{
	struct conn *c = ring_object(r, ring_ud_slot(ud));

	(void)flags;
	(void)res; /* an error shows at the next send */
	if (c->gen != ring_ud_gen(ud) || !(c->armed & ARMED_POLLOUT)) {
		w->stats->stale_completions++;
		return;
	}
	c->armed &= (uint8_t)~ARMED_POLLOUT;
	if (c->state == CONN_DEAD)
		conn_try_free(c);
	else
		conn_dirty(c);
}

void conn_on_shutdown(struct worker *w, struct ring *r, uint64_t ud, int res, uint32_t flags)
{
	struct conn *c = ring_object(r, ring_ud_slot(ud));

	(void)flags;
	if (c->gen != ring_ud_gen(ud) || !(c->armed & ARMED_SHUTDOWN)) {
		w->stats->stale_completions++;
		return;
	}
	c->armed &= (uint8_t)~ARMED_SHUTDOWN;
	if (c->state == CONN_DEAD)
		conn_try_free(c);
	else if (res < 0)
		conn_kill(c, CLOSE_RESET);
}
