/* The reading machine: what is armed, what was received, and a connection's turn. */
#include "net/conn_internal.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "net/account.h"

enum {
	RECV_EXPECTED = 512, /* bytes that a receive is taken to find */
};

static void prep_recv(struct conn *c, bool expect_more, bool multishot)
{
	struct io_uring_sqe *sqe = ring_sqe(conn_ring(c));

	if (multishot)
		io_uring_prep_recv_multishot(sqe, (int)conn_slot(c), NULL, 0, 0);
	else
		io_uring_prep_recv(sqe, (int)conn_slot(c), NULL, 0, 0);
	sqe->flags |= IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT;
	sqe->buf_group = RING_BUF_GROUP;
	if (!expect_more)
		sqe->ioprio |=
			IORING_RECVSEND_POLL_FIRST; /* spares a receive that would find nothing */
	sqe->user_data = ring_ud(OP_CONN_RECV, c->gen, 0, conn_slot(c));
	c->armed |= ARMED_RECV;
}

static void prep_poll(struct conn *c)
{
	struct io_uring_sqe *sqe = ring_sqe(conn_ring(c));

	io_uring_prep_poll_add(sqe, (int)conn_slot(c), POLLIN | POLLRDHUP);
	sqe->flags |= IOSQE_FIXED_FILE;
	sqe->user_data = ring_ud(OP_CONN_POLL, c->gen, 0, conn_slot(c));
	c->armed |= ARMED_POLL;
	c->flags &= (uint16_t)~CONN_GREEDY;
}

/* Arms the next read, unless one is armed or input is still to be parsed: a receive for those who
 * talk (multishot, so that it stays armed), a poll for those who do not. */
void conn_arm(struct conn *c)
{
	struct net *n = conn_net(c);

	if ((c->armed & (ARMED_POLL | ARMED_RECV)) ||
		(c->flags & (CONN_STARVED | CONN_PAUSED | CONN_VERIFYING | CONN_EOF | CONN_RESET)))
		return;
	if (c->state != CONN_OPEN)
		prep_recv(c, c->state <= CONN_HANDSHAKE, false);
	else if (!c->messages_in || n->w->now_ms - c->last_message_ms > CONN_ACTIVE_MS)
		prep_poll(c);
	else
		prep_recv(c, false, !(c->flags & CONN_GREEDY));
	if (c->state == CONN_OPEN && (c->armed & ARMED_RECV) && !wheel_pending(&c->timer))
		conn_timer_update(c); /* nothing else would notice that it fell silent */
}

static uint8_t *in_data(const struct conn *c)
{
	return ring_piece_data(conn_ring(c), c->in_head) + c->in_off;
}

static uint32_t in_len(const struct conn *c)
{
	return conn_ring(c)->piece[c->in_head].len - c->in_off;
}

/* Gives the first piece back. */
static void in_pop(struct conn *c)
{
	struct ring *r = conn_ring(c);
	uint16_t piece = c->in_head;

	c->in_head = r->piece[piece].next;
	c->in_off = 0;
	c->in_count--;
	ring_give(r, piece);
}

static void in_push(struct conn *c, uint16_t piece)
{
	struct ring *r = conn_ring(c);

	if (c->in_count)
		r->piece[c->in_tail].next = piece;
	else
		c->in_head = piece;
	c->in_tail = piece;
	c->in_count++;
}

void conn_input_drop(struct conn *c)
{
	while (c->in_count)
		in_pop(c);
}

/* The connection a completion is for, with its armed bit cleared; NULL when it is none of the
 * living ones'. */
static struct conn *completed(
	struct worker *w, struct ring *r, uint64_t ud, enum conn_armed bit, bool more)
{
	struct conn *c = ring_object(r, ring_ud_slot(ud));

	if (c->gen != ring_ud_gen(ud) || c->state == CONN_FREE) {
		w->stats->stale_completions++;
		return NULL;
	}
	if (!more) {
		c->armed &= (uint8_t)~bit;
		c->flags &= (uint16_t)~CONN_CANCELLED;
	}
	if (c->state == CONN_DEAD) {
		conn_try_free(c);
		return NULL;
	}
	return c;
}

void conn_on_poll(struct worker *w, struct ring *r, uint64_t ud, int res, uint32_t flags)
{
	struct conn *c = completed(w, r, ud, ARMED_POLL, false);

	(void)flags;
	if (!c)
		return;
	if (res < 0) {
		conn_arm(c);
	} else {
		prep_recv(c, true, false);
		w->session_input = true;
	}
}

static enum runq_class class_of(const struct conn *c)
{
	if (c->state == CONN_OPEN)
		return RUNQ_ESTABLISHED;
	return c->state == CONN_CLOSING ? RUNQ_CONTROL : RUNQ_HANDSHAKE;
}

/* One connection must not sit on the buffers that all share: who is far ahead of its turns loses
 * its multishot. */
static void limit_greed(struct conn *c, bool short_of_pieces)
{
	if ((c->in_count < CONN_IN_MAX && !short_of_pieces) || !(c->armed & ARMED_RECV) ||
		(c->flags & CONN_CANCELLED))
		return;
	ring_cancel(conn_ring(c), ring_ud(OP_CONN_RECV, c->gen, 0, conn_slot(c)));
	c->flags |= CONN_CANCELLED | CONN_GREEDY;
}

/* Moves what is in provided buffers to a buffer of the connection's own. False: the connection was
 * ended. */
static bool keep(struct conn *c)
{
	struct net *n = conn_net(c);

	while (c->in_count) {
		struct conn_aux *x = conn_aux_get(c);

		if (!x || buf_append(&n->bufs, &x->in, in_data(c), in_len(c), UINT32_MAX)) {
			conn_kill(c, CLOSE_NO_MEMORY);
			return false;
		}
		in_pop(c);
	}
	return true;
}

/* A newcomer may wait long for its turn, behind all the others: it must not hold a buffer meanwhile
 * that sessions could use. */
static bool should_keep(const struct conn *c)
{
	const struct ring *r = conn_ring(c);

	return c->state < CONN_OPEN && r->buf_out >= r->n_buffers / 4;
}

uint16_t conn_wake(struct conn *c)
{
	const struct net *n = conn_net(c);
	/* What a proxy said is another's address than the socket's. */
	bool proxied = n->opts->listeners[c->listener].proxy_protocol;
	uint64_t ns;

	if (!wake_take(&n->w->wakes, c->timer.tag, proxied ? NULL : &c->peer, n->w->now_ns, &ns))
		return 0;
	ns /= 1000;
	return runq_wake(ns > UINT32_MAX ? UINT32_MAX : (uint32_t)ns);
}

static void received(struct conn *c, uint16_t piece, uint32_t len)
{
	struct net *n = conn_net(c);
	struct account *a = account_of(c);
	uint16_t wake = conn_wake(c);
	bool short_of_pieces;

	if (wake)
		hist_add(&n->stats->wake_delay_us, runq_wake_us(wake));
	in_push(c, piece);
	c->last_rx_ms = n->w->now_ms;
	c->pings_unanswered = 0;
	n->stats->bytes_in += len;
	if (a)
		a->bytes_in += len;
	short_of_pieces = ring_pieces_spent(conn_ring(c));
	n->stats->recv_copied += short_of_pieces;
	if ((short_of_pieces || should_keep(c)) && !keep(c))
		return;
	limit_greed(c, short_of_pieces);
	worker_push_woken(n->w, &c->run, class_of(c), wake);
}

/* The peer sends nothing more. What is queued for it is still its due; nothing is awaited after
 * that. */
static void finish(struct conn *c)
{
	if (!c->out) {
		conn_kill(c, CLOSE_CLIENT);
		return;
	}
	conn_tell_closed(c, CLOSE_CLIENT, WS_CLOSE_ABNORMAL, NULL, 0);
	c->flags |= CONN_CLOSE_AFTER_FLUSH;
	conn_linger(c, CLOSE_CLIENT);
}

/* The peer's end: what came before it is parsed first. */
static void ended(struct conn *c, bool reset)
{
	bool kept =
		(c->state >= CONN_OPENING && c->aux && c->aux->in) || (c->flags & CONN_VERIFYING);

	c->flags |= reset ? CONN_RESET : CONN_EOF;
	if (c->in_count || c->run.queued || (kept && !reset))
		return;
	if (reset)
		conn_kill(c, CLOSE_RESET);
	else
		finish(c);
}

void conn_on_recv(struct worker *w, struct ring *r, uint64_t ud, int res, uint32_t flags)
{
	uint16_t piece = RING_NO_PIECE;
	struct conn *c;

	if (flags & IORING_CQE_F_BUFFER)
		piece = ring_take(r, flags, res > 0 ? (uint32_t)res : 0);
	c = completed(w, r, ud, ARMED_RECV, flags & IORING_CQE_F_MORE);
	if (piece != RING_NO_PIECE && (!c || res <= 0))
		ring_give(r, piece);
	if (!c)
		return;
	if (res > 0) {
		received(c, piece, (uint32_t)res);
	} else if (res == -ENOBUFS) {
		w->stats->recv_no_buffer++;
		c->flags |= CONN_STARVED;
		ring_starve(r, conn_slot(c), c->state != CONN_OPEN);
	} else if (res == -ECANCELED || res == -EAGAIN || res == -EINTR) {
		if (!c->in_count && !c->run.queued)
			conn_arm(c);
	} else {
		ended(c, res < 0);
	}
}

/* Retries starved receives, the oldest first and no more than there is room for in free buffers:
 * retrying all of them would only buy another round of ENOBUFS. Free ones count even if they came
 * back earlier: when a full submission queue is emptied in the middle of a turn, a receive finds no
 * buffer and tells so only after the last one was handed back. */
void conn_refill(struct worker *w, struct ring *r)
{
	unsigned budget = (r->n_buffers - r->buf_out) * (1 + r->buffer_bytes / RECV_EXPECTED);
	uint32_t slot;

	(void)w;
	ring_buffers_publish(r);
	while (budget && ring_starved_pop(r, &slot)) {
		struct conn *c = ring_object(r, slot);

		c->flags &= (uint16_t)~CONN_STARVED;
		if (c->state == CONN_DEAD) {
			conn_try_free(c);
			continue;
		}
		if (!(c->armed & (ARMED_POLL | ARMED_RECV)) &&
			!(c->flags & (CONN_PAUSED | CONN_VERIFYING)))
			prep_recv(c, true, false);
		budget--;
	}
}

/* Parses what an earlier turn kept, with what came since: a partial request head must be looked at
 * in one piece. */
static enum conn_more parse_kept(struct conn *c)
{
	struct net *n = conn_net(c);
	enum conn_more more;
	struct buf *in;
	size_t used;

	if (!keep(c))
		return CONN_MORE_NOTHING;
	in = c->aux->in;
	c->aux->in = NULL;
	more = conn_parse(c, in->data + in->off, in->len, &used);
	in->off += (uint32_t)used;
	in->len -= (uint32_t)used;
	if (c->state == CONN_FREE || c->state >= CONN_CLOSING || !in->len) {
		buf_free(&n->bufs, in);
	} else if (conn_aux_get(c)) {
		c->aux->in = in;
	} else {
		buf_free(&n->bufs, in);
		conn_kill(c, CLOSE_NO_MEMORY);
		more = CONN_MORE_NOTHING;
	}
	return more;
}

/* Parses piece after piece in place. */
static enum conn_more parse_buffers(struct conn *c)
{
	enum conn_more more = CONN_MORE_INPUT;
	unsigned pieces = 0;

	while (c->in_count && more == CONN_MORE_INPUT) {
		size_t used;

		if (pieces++ == CONN_IN_MAX)
			return CONN_MORE_TIME;
		more = conn_parse(c, in_data(c), in_len(c), &used);
		/* A call-back may have ended the connection and given the buffers back. */
		if (!c->in_count)
			break;
		if (used == in_len(c)) {
			in_pop(c);
			continue;
		}
		c->in_off +=
			(uint16_t)used; /* fits: less than a piece, which is 65536 bytes at most */
		if (more == CONN_MORE_INPUT)
			return more; /* a partial head: kept, and continued with what follows */
	}
	return more;
}

/* A connection that is closing reads on for the peer's FIN only. */
static void discard(struct conn *c)
{
	conn_input_drop(c);
	if (c->aux) {
		struct buf_pool *bufs = &conn_net(c)->bufs;

		buf_free(bufs, c->aux->in);
		buf_free(bufs, c->aux->msg);
		buf_free(bufs, c->aux->ctl);
		c->aux->in = c->aux->msg = c->aux->ctl = NULL;
		conn_aux_trim(c);
	}
	if (c->flags & CONN_RESET)
		conn_kill(c, CLOSE_RESET);
	else if (c->flags & CONN_EOF)
		finish(c);
	else
		conn_arm(c);
}

/* Paused by the upstream: a multishot would go on filling buffers. */
static void stop_reading(struct conn *c)
{
	if (!(c->armed & ARMED_RECV) || (c->flags & CONN_CANCELLED))
		return;
	ring_cancel(conn_ring(c), ring_ud(OP_CONN_RECV, c->gen, 0, conn_slot(c)));
	c->flags |= CONN_CANCELLED;
}

/* How long it waited for this turn, as the worker counts it. */
static void note_delay(const struct worker *w, const struct conn *c)
{
	struct account *a = account_of(c);
	uint32_t us = worker_now_us(w) - c->run.since_us;

	if (a && us <= INT32_MAX && us > a->run_delay_max_us)
		a->run_delay_max_us = us;
}

/* It takes but a few connections that are far ahead of their turns to hold all buffers. */
static bool buffers_scarce(const struct conn *c)
{
	const struct ring *r = conn_ring(c);

	return r->buf_out > r->n_buffers / 2;
}

static bool has_input(const struct conn *c)
{
	return c->in_count || (c->aux && c->aux->in);
}

void conn_run(struct worker *w, struct runq_item *it)
{
	struct conn *c = conn_of_run(it);
	struct net *n = net_of(w);
	enum conn_more more;

	if (c->state == CONN_DEAD) {
		conn_try_free(c);
		return;
	}
	if (c->state == CONN_FREE)
		return;
	if (c->state == CONN_CLOSING) {
		discard(c);
		return;
	}
	note_delay(w, c);
	worker_turn_of(w, c->ring, conn_slot(c), c->session);
	if (c->state <= CONN_HANDSHAKE && c->due_ms) {
		hist_add(&n->stats->first_poll_us, worker_now_us(w) - c->due_ms);
		c->due_ms = 0;
	}
	n->turn_end_ns = w->now_ns + (uint64_t)w->opts.turn_us * 1000;
	n->turn_frames = 0;
	if (c->state <= CONN_HANDSHAKE && has_input(c) && conn_handshake_cost(c))
		more = CONN_MORE_TIME;
	else
		more = c->flags & CONN_VERDICT ? conn_hello_again(c) : CONN_MORE_INPUT;
	if (more == CONN_MORE_INPUT) {
		if (c->flags & (CONN_PAUSED | CONN_VERIFYING))
			more = CONN_MORE_UPSTREAM;
		else
			more = c->aux && c->aux->in ? parse_kept(c) : parse_buffers(c);
	}
	if (c->state == CONN_DEAD || c->state == CONN_FREE)
		return;
	if (c->state == CONN_CLOSING) {
		discard(c);
		return;
	}
	if (more == CONN_MORE_TIME) {
		if (buffers_scarce(c) && !keep(c))
			return;
		w->stats->forced_yields++;
		worker_push_again(w, &c->run, class_of(c));
		return;
	}
	/* Provided buffers are shared by all: only who is about to run again may hold on to them.
	 */
	if (!keep(c))
		return;
	conn_aux_trim(c);
	if (more == CONN_MORE_UPSTREAM)
		stop_reading(c);
	else if (c->flags & CONN_RESET)
		conn_kill(c, CLOSE_RESET);
	else if (c->flags & CONN_EOF)
		finish(c);
	else
		conn_arm(c);
}
