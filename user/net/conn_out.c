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

#include "net/account.h"
#include "net/shed.h"

static const char *const policy_names[OUT_POLICIES] = {
	[OUT_DISCONNECT] = "disconnect",
	[OUT_DROP_OLDEST] = "drop-oldest",
	[OUT_DROP_NEWEST] = "drop-newest",
	[OUT_CONFLATE] = "conflate",
};

const char *out_policy_name(enum out_policy p)
{
	return policy_names[p];
}

void conn_out_drop(struct conn *c)
{
	outq_clear(&conn_net(c)->bufs, &c->out);
	c->out_bytes = 0;
}

/* len bytes were added to the queue. */
static void grown(struct conn *c, size_t len)
{
	c->out_bytes += (uint32_t)len;
	if (c->out_bytes > CONN_OUT_LOW_BYTES)
		c->flags |= CONN_OUT_HIGH;
	conn_dirty(c);
}

/* Room for len bytes at the end of the out queue, or NULL without memory. */
static uint8_t *out_room(struct conn *c, size_t len, unsigned messages)
{
	uint8_t *p;

	if (c->out_bytes + (uint64_t)len > UINT32_MAX)
		return NULL;
	p = outq_room(&conn_net(c)->bufs, &c->out, len, messages);
	if (p)
		grown(c, len);
	return p;
}

bool conn_out_bytes(struct conn *c, const void *data, size_t len)
{
	uint8_t *p = out_room(c, len, 0);

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

static void count_drop(struct conn *c, enum out_policy policy, uint32_t messages)
{
	struct net *n = conn_net(c);
	struct account *a = account_of(c);

	if (a)
		a->dropped += messages;
	n->stats->out_dropped += messages;
	n->route_stats[c->route].dropped[policy] += messages;
}

static void dropped(struct conn *c, enum out_policy policy, struct outq_dropped d)
{
	c->out_bytes -= d.bytes;
	if (d.messages)
		count_drop(c, policy, d.messages);
}

static bool within_cap(const struct conn *c, uint64_t len)
{
	const struct conn_limits *l = conn_limits(c);

	return c->out_bytes + len <= l->out_queue_bytes + WS_SERVER_HEADER_MAX &&
	       outq_messages(c->out) < l->out_queue_messages;
}

/* Applies the route's policy to a queue that has no room for a message of len bytes on the wire.
 * False: the message is lost, and perhaps the connection. */
static bool make_room(struct conn *c, uint64_t key, uint64_t len)
{
	const struct conn_limits *l = conn_limits(c);
	struct buf_pool *bufs = &conn_net(c)->bufs;
	uint64_t cap = l->out_queue_bytes + WS_SERVER_HEADER_MAX;

	if (l->out_policy == OUT_DISCONNECT) {
		count_drop(c, OUT_DISCONNECT, 1);
		conn_close(c, WS_CLOSE_POLICY, "too slow: the out queue is full", CLOSE_OUT_FULL);
		return false;
	}
	if (l->out_policy == OUT_CONFLATE)
		dropped(c, OUT_CONFLATE, outq_conflate(bufs, &c->out, key));
	/* One that will never fit must not cost those that do. */
	if (l->out_policy != OUT_DROP_NEWEST && len <= cap && !within_cap(c, len))
		dropped(c, l->out_policy,
			outq_drop_oldest(
				bufs, &c->out, c->out_bytes, cap - len, l->out_queue_messages - 1));
	if (within_cap(c, len))
		return true;
	count_drop(c, l->out_policy, 1);
	return false;
}

/* The worker has no memory for a message: under `disconnect` its client must not miss it unawares.
 */
static int no_memory(struct conn *c)
{
	enum out_policy policy = conn_limits(c)->out_policy;

	count_drop(c, policy, 1);
	if (policy == OUT_DISCONNECT)
		conn_close(c, WS_CLOSE_TRY_LATER, "out of memory", CLOSE_NO_MEMORY);
	return -ENOBUFS;
}

static void message_queued(struct conn *c)
{
	struct net *n = conn_net(c);

	/* A session that only listens is not idle; it is still polled rather than received from, so
	 * only where it matters. */
	if (conn_limits(c)->idle_timeout_ms)
		c->last_message_ms = n->w->now_ms;
	c->messages_out++;
	n->stats->messages_out++;
}

static size_t message_header(
	uint8_t out[WS_SERVER_HEADER_MAX], enum conn_protocol protocol, bool text, size_t len)
{
	if (protocol == CONN_WEBSOCKET)
		return ws_header_write(out, text ? WS_TEXT : WS_BINARY, true, len);
	return raw_header_write(out, text ? TG_RAW_TEXT : TG_RAW_BINARY, (uint32_t)len);
}

int conn_send(struct conn *c, bool text, const void *data, size_t len)
{
	uint8_t header[WS_SERVER_HEADER_MAX];
	size_t header_len;
	uint8_t *p;

	if (c->state != CONN_OPEN)
		return -EPIPE;
	header_len = message_header(header, c->protocol, text, len);
	if (!within_cap(c, header_len + len) && !make_room(c, 0, header_len + len))
		return -ENOBUFS;
	p = out_room(c, header_len + len, 1);
	if (!p)
		return no_memory(c);
	memcpy(p, header, header_len);
	if (len)
		memcpy(p + header_len, data, len);
	message_queued(c);
	return 0;
}

struct frame *conn_frame(struct net *n, enum conn_protocol protocol, bool text, uint64_t key,
	const void *data, size_t len)
{
	uint8_t header[WS_SERVER_HEADER_MAX];
	size_t header_len = message_header(header, protocol, text, len);
	struct frame *f = header_len + len > UINT32_MAX
				  ? NULL
				  : frame_alloc(&n->bufs, key, (uint32_t)(header_len + len));

	if (!f)
		return NULL;
	memcpy(f->data, header, header_len);
	if (len)
		memcpy(f->data + header_len, data, len);
	return f;
}

int conn_send_frame(struct conn *c, struct frame *f)
{
	if (c->state != CONN_OPEN)
		return -EPIPE;
	if (!within_cap(c, f->len) && !make_room(c, f->key, f->len))
		return -ENOBUFS;
	if (c->out_bytes + (uint64_t)f->len > UINT32_MAX ||
		!outq_add(&conn_net(c)->bufs, &c->out, f))
		return no_memory(c);
	grown(c, f->len);
	message_queued(c);
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
	struct outq_item *it = outq_head(c->out);
	uint32_t slot = conn_slot(c);
	struct io_uring_sqe *sqe;

	if (it == c->out) {
		sqe = ring_sqe(r);
		io_uring_prep_send(sqe, (int)slot, outq_bytes(it), it->len, RING_SEND_FLAGS);
		c->out_inflight = it->len;
		it->pinned = true;
	} else {
		struct conn_gather *g = gather_get(n);
		unsigned i = 0;

		c->out_inflight = 0;
		do {
			g->iov[i] = (struct iovec){(void *)outq_bytes(it), it->len};
			c->out_inflight += it->len;
			it->pinned = true;
			it = it->next;
		} while (++i < CONN_GATHER && it != outq_head(c->out));
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
	if (!wheel_pending(&n->trim) && buf_pool_trimmable(&n->bufs))
		wheel_add(&w->wheel, &n->trim, w->now_ms + CONN_TRIM_MS);
	shed_turn(n);
}

void conn_trim(struct worker *w, struct wheel_timer *t)
{
	if (buf_pool_trim(&net_of(w)->bufs))
		wheel_add(&w->wheel, t, w->now_ms + CONN_TRIM_MS);
}

void conn_unblock(struct conn *c)
{
	struct conn_aux *x = c->aux;

	if (!x || !x->out_since_ms)
		return;
	x->out_since_ms = 0;
	*x->blocked_prev = x->blocked_next;
	if (x->blocked_next)
		x->blocked_next->blocked_prev = x->blocked_prev;
	conn_net(c)->stats->blocked--;
}

static void blocked(struct conn *c, bool progress)
{
	struct net *n = conn_net(c);
	struct io_uring_sqe *sqe;
	struct conn_aux *x = conn_aux_get(c);

	if (!x) {
		conn_kill(c, CLOSE_NO_MEMORY);
		return;
	}
	if (!x->out_since_ms) {
		x->conn = c;
		x->blocked_next = n->blocked;
		x->blocked_prev = &n->blocked;
		if (n->blocked)
			n->blocked->blocked_prev = &x->blocked_next;
		n->blocked = x;
		n->stats->blocked++;
		progress = true;
	}
	if (progress)
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
	struct account *a = account_of(c);

	c->armed &= (uint8_t)~ARMED_SEND;
	c->flags &= (uint16_t)~CONN_SEND_FAILED;
	c->out_inflight = 0;
	if (c->state == CONN_DEAD) {
		conn_try_free(c);
		return;
	}
	n->stats->bytes_out += was;
	if (a)
		a->bytes_out += was;
	c->out_bytes -= was;
	outq_consume(&n->bufs, &c->out, was);
	if (failed) {
		blocked(c, was > 0);
		return;
	}
	if (c->aux && c->aux->out_since_ms) {
		conn_unblock(c);
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
