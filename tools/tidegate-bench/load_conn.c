#include "load_conn.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* user_data: operation, generation and slot of the connection, one bit of detail. */
enum op {
	OP_IGNORE, /* nothing follows from its result */
	OP_SETUP,  /* a step before the connect; completes only when it failed */
	OP_CONNECT,
	OP_RECV,      /* multishot */
	OP_RECV_ONCE, /* after a poll event */
	OP_POLL,      /* multishot, readable */
	OP_POLL_OUT,
	OP_HANGUP, /* of a connection that is not read from */
	OP_SEND,   /* completes only when short or failed */
};

enum {
	FLAG_DIRTY = 1,      /* in the dirty list */
	FLAG_IN_STARVED = 2, /* in the starved list */
	FLAG_STARVED = 4,  /* and waiting for a buffer (the slot may have been reused meanwhile) */
	FLAG_ARMED = 8,    /* a multishot receive or poll is armed */
	FLAG_BLOCKED = 16, /* the socket was full; OP_POLL_OUT is armed */
	FLAG_MID_FRAME = 32,    /* the last bytes of fill() ended inside a frame */
	FLAG_REQUEST_DUE = 64,  /* the handshake request has to be sent */
	FLAG_RECV_QUEUED = 128, /* OP_RECV_ONCE is on its way */
	FLAG_DEAF = 256,        /* nothing is read any more; OP_HANGUP is armed */
};

static const int on = 1;
static const struct linger reset_on_close = {.l_onoff = 1, .l_linger = 0};

static uint64_t user_data(enum op op, uint16_t gen, unsigned slot)
{
	return (uint64_t)op << 56 | (uint64_t)gen << 40 | slot;
}

static unsigned slot_of(const struct load_conns *rs, const struct load_conn *c)
{
	return (unsigned)(c - rs->conn);
}

static struct load_conns *conns_of(const struct load_thread *t, const struct load_conn *c)
{
	return &t->rings[c->ring];
}

static struct io_uring_sqe *conn_sqe(struct load_conns *rs)
{
	return load_ring_sqe(&rs->ring);
}

/* ---- what a connection holds beyond its struct ---- */

struct load_extra *load_extra_get(struct load_conn *c)
{
	if (!c->extra)
		c->extra = calloc(1, sizeof *c->extra);
	return c->extra;
}

static void extra_free(struct load_conn *c)
{
	if (!c->extra)
		return;
	free(c->extra->in);
	free(c->extra->out);
	free(c->extra);
	c->extra = NULL;
}

void load_extra_tidy(struct load_conn *c)
{
	struct load_extra *x = c->extra;

	if (x && !x->in_len && x->out_at == x->out_len && !x->control_in_len && !x->control_out_len)
		extra_free(c);
}

/* ---- lists ---- */

void load_send_wanted(struct load_thread *t, struct load_conn *c)
{
	struct load_conns *rs = conns_of(t, c);
	uint32_t slot = slot_of(rs, c);

	if (c->flags & FLAG_DIRTY)
		return;
	c->flags |= FLAG_DIRTY;
	c->next_dirty = LOAD_NIL;
	if (rs->dirty_head == LOAD_NIL)
		rs->dirty_head = slot;
	else
		rs->conn[rs->dirty_tail].next_dirty = slot;
	rs->dirty_tail = slot;
}

static void starve(struct load_conns *rs, struct load_conn *c)
{
	uint32_t slot = slot_of(rs, c);

	c->flags |= FLAG_STARVED;
	if (c->flags & FLAG_IN_STARVED)
		return;
	c->flags |= FLAG_IN_STARVED;
	c->next_starved = LOAD_NIL;
	if (rs->starved_head == LOAD_NIL)
		rs->starved_head = slot;
	else
		rs->conn[rs->starved_tail].next_starved = slot;
	rs->starved_tail = slot;
}

/* ---- receiving ---- */

static void recv_once(struct load_conns *rs, struct load_conn *c)
{
	if (c->flags & FLAG_RECV_QUEUED)
		return;
	c->flags |= FLAG_RECV_QUEUED;
	struct io_uring_sqe *sqe = conn_sqe(rs);
	io_uring_prep_recv(sqe, (int)slot_of(rs, c), NULL, 0, MSG_DONTWAIT);
	sqe->flags |= IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT;
	sqe->buf_group = 0;
	sqe->user_data = user_data(OP_RECV_ONCE, c->gen, slot_of(rs, c));
}

static void arm(struct load_thread *t, struct load_conns *rs, struct load_conn *c)
{
	unsigned slot = slot_of(rs, c);
	struct io_uring_sqe *sqe = conn_sqe(rs);

	c->flags |= FLAG_ARMED;
	if (t->ops->poll_idle) {
		io_uring_prep_poll_multishot(sqe, (int)slot, POLLIN | POLLRDHUP);
		sqe->flags |= IOSQE_FIXED_FILE;
		sqe->user_data = user_data(OP_POLL, c->gen, slot);
		return;
	}
	io_uring_prep_recv_multishot(sqe, (int)slot, NULL, 0, 0);
	sqe->flags |= IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT;
	sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
	sqe->buf_group = 0;
	sqe->user_data = user_data(OP_RECV, c->gen, slot);
}

void load_conns_recycle(struct load_thread *t, struct load_conns *rs)
{
	for (unsigned n = load_ring_recycle(&rs->ring); n && rs->starved_head != LOAD_NIL; n--) {
		struct load_conn *c = &rs->conn[rs->starved_head];
		rs->starved_head = c->next_starved;
		bool wants = c->flags & FLAG_STARVED;
		c->flags &= (uint16_t) ~(FLAG_IN_STARVED | FLAG_STARVED);
		if (!wants || (c->flags & FLAG_DEAF))
			continue;
		if (t->ops->poll_idle)
			recv_once(rs, c);
		else
			arm(t, rs, c);
	}
}

/* ---- the end of a connection ---- */

static void note_failure(
	struct load_thread *t, const struct load_conn *c, const char *what, const char *why)
{
	if (!t->first_failure[0])
		snprintf(t->first_failure, sizeof t->first_failure, "connection %u: %s%s%s",
			load_conn_number(t, c), what, *why ? ": " : "", why);
}

static void cancel(struct load_conns *rs, const struct load_conn *c, enum op op)
{
	struct io_uring_sqe *sqe = conn_sqe(rs);

	io_uring_prep_cancel64(sqe, user_data(op, c->gen, slot_of(rs, c)), 0);
	sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
	sqe->user_data = user_data(OP_IGNORE, 0, 0);
}

void load_stop_reading(struct load_thread *t, struct load_conn *c)
{
	struct load_conns *rs = conns_of(t, c);

	if (c->flags & FLAG_ARMED)
		cancel(rs, c, t->ops->poll_idle ? OP_POLL : OP_RECV);
	c->flags = (uint16_t)((c->flags & ~FLAG_ARMED) | FLAG_DEAF);
	struct io_uring_sqe *sqe = conn_sqe(rs);
	io_uring_prep_poll_add(sqe, (int)slot_of(rs, c), POLLRDHUP);
	sqe->flags |= IOSQE_FIXED_FILE;
	sqe->user_data = user_data(OP_HANGUP, c->gen, slot_of(rs, c));
}

static void reset_when_closed(struct load_conns *rs, unsigned slot)
{
	struct io_uring_sqe *sqe = conn_sqe(rs);

	io_uring_prep_cmd_sock(sqe, SOCKET_URING_OP_SETSOCKOPT, (int)slot, SOL_SOCKET, SO_LINGER,
		(void *)(uintptr_t)&reset_on_close, sizeof reset_on_close);
	sqe->flags |= IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS;
	sqe->user_data = user_data(OP_IGNORE, 0, 0);
}

/* Closing a descriptor with an armed request would free the slot and leave the socket open: cancel
 * first. */
static void conn_close(struct load_thread *t, struct load_conn *c)
{
	struct load_conns *rs = conns_of(t, c);
	unsigned slot = slot_of(rs, c);

	if (c->flags & FLAG_ARMED)
		cancel(rs, c, t->ops->poll_idle ? OP_POLL : OP_RECV);
	if (c->flags & FLAG_BLOCKED)
		cancel(rs, c, OP_POLL_OUT);
	if (c->flags & FLAG_DEAF)
		cancel(rs, c, OP_HANGUP);
	struct io_uring_sqe *sqe = conn_sqe(rs);
	io_uring_prep_close_direct(sqe, slot);
	sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
	sqe->user_data = user_data(OP_IGNORE, 0, 0);

	extra_free(c);
	if (c->state == LOAD_CONNECTING || c->state == LOAD_HANDSHAKE)
		t->in_flight--;
	c->gen++;
	c->state = LOAD_FREE;
	c->flags &= FLAG_DIRTY | FLAG_IN_STARVED; /* these follow the slot */
}

static void conn_end(struct load_thread *t, struct load_conn *c)
{
	uint8_t state = c->state;
	bool was_open = state != LOAD_CONNECTING && state != LOAD_HANDSHAKE;

	conn_close(t, c);
	if (state == LOAD_CONNECTING)
		load_count(&t->count.connect_failed, 1);
	else if (state == LOAD_HANDSHAKE)
		load_count(&t->count.handshake_failed, 1);
	else
		load_count(&t->count.closed, 1);
	if (was_open && t->ops->on_closed)
		t->ops->on_closed(t, c);
	if (!was_open && t->ops->on_failed)
		t->ops->on_failed(t, c);
}

void load_drop(struct load_thread *t, struct load_conn *c)
{
	struct load_conns *rs = conns_of(t, c);

	if (c->state == LOAD_CONNECTING)
		cancel(rs, c, OP_CONNECT);
	else
		reset_when_closed(rs, slot_of(rs, c));
	conn_close(t, c);
}

void load_conn_fail(struct load_thread *t, struct load_conn *c, const char *what, const char *why)
{
	note_failure(t, c, what, why);
	conn_end(t, c);
}

void load_fail(struct load_thread *t, struct load_conn *c, const char *fmt, ...)
{
	char text[128];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	load_count(&t->count.bad_data, 1);
	load_conn_fail(t, c, text, "");
}

static void on_recv(struct load_thread *t, struct load_conns *rs, struct load_conn *c,
	const struct io_uring_cqe *cqe, bool once)
{
	uint16_t gen = c->gen;
	int res = cqe->res;

	if (c->flags & FLAG_DEAF)
		return; /* it was on its way already */
	if (once)
		c->flags &= (uint16_t)~FLAG_RECV_QUEUED;
	else if (!(cqe->flags & IORING_CQE_F_MORE))
		c->flags &= (uint16_t)~FLAG_ARMED;
	if (res > 0)
		load_bytes(t, c, load_ring_buf(&rs->ring, cqe->flags >> IORING_CQE_BUFFER_SHIFT),
			(size_t)res);
	if (c->gen != gen || (c->flags & FLAG_DEAF) || (once && res == -EAGAIN))
		return;
	if (res == -ENOBUFS) {
		load_count(&t->count.no_buffer, 1);
		starve(rs, c);
	} else if (res <= 0) {
		load_conn_fail(t, c,
			c->state == LOAD_HANDSHAKE ? "lost during the handshake" : "lost",
			res ? strerror(-res) : "closed by the server");
	} else if (once && (uint32_t)res == rs->ring.buf_bytes) {
		recv_once(rs, c);
	} else if (!once && !(c->flags & FLAG_ARMED)) {
		arm(t, rs, c);
	}
}

/* ---- sending ---- */

static size_t stage_out(struct load_extra *x, uint8_t *buf, size_t cap)
{
	size_t n = x->out_len - x->out_at;

	if (n > cap)
		n = cap;
	memcpy(buf, x->out + x->out_at, n);
	x->out_at += n;
	if (x->out_at == x->out_len) {
		free(x->out);
		x->out = NULL;
		x->out_at = x->out_len = 0;
	}
	return n;
}

/* Puts the connection's next bytes into buf: what waited, the request, control frames, then the
 * workload's. */
static size_t stage(struct load_thread *t, struct load_conn *c, uint8_t *buf, bool *ret_more)
{
	struct load_extra *x = c->extra;
	size_t n = 0;

	*ret_more = false;
	if (x && x->out) {
		n = stage_out(x, buf, LOAD_SEND_MAX);
		*ret_more = true;
		return n;
	}
	if (c->flags & FLAG_REQUEST_DUE) {
		c->flags &= (uint16_t)~FLAG_REQUEST_DUE;
		memcpy(buf, t->load->request, t->load->request_len);
		return t->load->request_len;
	}
	if (x && x->control_out_len && !(c->flags & FLAG_MID_FRAME)) {
		n = x->control_out_len;
		memcpy(buf, x->control_out, n);
		x->control_out_len = 0;
		load_extra_tidy(c);
	}
	if (c->state != LOAD_OPEN || !t->ops->fill)
		return n;
	struct load_fill f = {.buf = buf + n, .cap = LOAD_SEND_MAX - n};
	t->ops->fill(t, c, &f);
	if (f.len)
		c->flags = (uint16_t)((c->flags & ~FLAG_MID_FRAME) |
				      (f.mid_frame ? FLAG_MID_FRAME : 0));
	*ret_more = f.more;
	return n + f.len;
}

static void send_staged(
	struct load_thread *t, struct load_conns *rs, struct load_conn *c, size_t len)
{
	enum {
		SUBMIT_BATCH = 32
	}; /* so that the server works while the rest is prepared */
	unsigned slot = slot_of(rs, c);
	struct io_uring_sqe *sqe = conn_sqe(rs);

	io_uring_prep_send(sqe, (int)slot, t->staging + t->staged, len,
		MSG_DONTWAIT | MSG_WAITALL | MSG_NOSIGNAL);
	sqe->flags |= IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS;
	sqe->user_data = user_data(OP_SEND, c->gen, slot);
	c->staged_at = (uint32_t)t->staged;
	c->staged_len = (uint32_t)len;
	t->staged += len;
	if (++t->unsubmitted == SUBMIT_BATCH) {
		io_uring_submit(&rs->ring.uring);
		t->unsubmitted = 0;
	}
}

void load_conns_flush(struct load_thread *t, struct load_conns *rs)
{
	uint32_t slot = rs->dirty_head, last = rs->dirty_tail;

	while (slot != LOAD_NIL && LOAD_STAGING_BYTES - t->staged >= LOAD_SEND_MAX) {
		struct load_conn *c = &rs->conn[slot];
		bool more, done = slot == last;
		rs->dirty_head = c->next_dirty;
		c->flags &= (uint16_t)~FLAG_DIRTY;
		if (c->state >= LOAD_HANDSHAKE && !(c->flags & FLAG_BLOCKED)) {
			size_t n = stage(t, c, t->staging + t->staged, &more);
			if (n)
				send_staged(t, rs, c, n);
			if (more)
				load_send_wanted(t, c);
		}
		if (done)
			break; /* what has been added since waits for the next turn */
		slot = rs->dirty_head;
	}
}

/* Keeps the part of a send that did not go out, in front of what waits already, until the socket is
 * writable. */
static int keep_unsent(struct load_thread *t, struct load_conn *c, size_t done)
{
	struct load_extra *x = load_extra_get(c);
	size_t unsent = c->staged_len - done;

	if (!x)
		return -ENOMEM;
	size_t waiting = x->out_len - x->out_at;
	uint8_t *out = malloc(unsent + waiting);
	if (!out)
		return -ENOMEM;
	memcpy(out, t->staging + c->staged_at + done, unsent);
	if (waiting)
		memcpy(out + unsent, x->out + x->out_at, waiting);
	free(x->out);
	x->out = out;
	x->out_at = 0;
	x->out_len = unsent + waiting;
	return 0;
}

static void on_send(struct load_thread *t, struct load_conns *rs, struct load_conn *c, int res)
{
	if (res == -EAGAIN)
		res = 0;
	if (res < 0 || keep_unsent(t, c, (size_t)res)) {
		load_conn_fail(t, c, "send failed", strerror(res < 0 ? -res : ENOMEM));
		return;
	}
	load_count(&t->count.sends_blocked, 1);
	c->flags |= FLAG_BLOCKED;
	struct io_uring_sqe *sqe = conn_sqe(rs);
	io_uring_prep_poll_add(sqe, (int)slot_of(rs, c), POLLOUT);
	sqe->flags |= IOSQE_FIXED_FILE;
	sqe->user_data = user_data(OP_POLL_OUT, c->gen, slot_of(rs, c));
}

/* ---- opening ---- */

/* socket, its options, bind to a source address and connect, as one chain: of all but the last only
 * a failure completes, and it takes the place of the connect's completion. */
void load_conn_start(struct load_thread *t, struct load_conns *rs, unsigned slot)
{
	const struct load *l = t->load;
	struct load_conn *c = &rs->conn[slot];
	struct io_uring_sqe *step[5];
	unsigned n = 0;

	c->state = LOAD_CONNECTING;
	t->in_flight++;
	load_count(&t->count.started, 1);
	load_ring_room(&rs->ring, 5);
	step[n] = conn_sqe(rs);
	io_uring_prep_socket_direct(step[n++], l->opts->target.ss_family, SOCK_STREAM, 0, slot, 0);
	if (t->ops->rcvbuf_bytes) {
		step[n] = conn_sqe(rs);
		io_uring_prep_cmd_sock(step[n++], SOCKET_URING_OP_SETSOCKOPT, (int)slot, SOL_SOCKET,
			SO_RCVBUF, (void *)(uintptr_t)&t->ops->rcvbuf_bytes,
			sizeof t->ops->rcvbuf_bytes);
	}
	if (l->n_sources) {
		const struct sockaddr_in *source =
			&l->source[load_conn_number(t, c) % l->n_sources];
		step[n] = conn_sqe(rs);
		io_uring_prep_cmd_sock(step[n++], SOCKET_URING_OP_SETSOCKOPT, (int)slot, IPPROTO_IP,
			IP_BIND_ADDRESS_NO_PORT, (void *)(uintptr_t)&on, sizeof on);
		step[n] = conn_sqe(rs);
		io_uring_prep_bind(
			step[n++], (int)slot, (struct sockaddr *)(uintptr_t)source, sizeof *source);
	}
	for (unsigned i = 0; i < n; i++) {
		step[i]->flags |=
			IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS | (i ? IOSQE_FIXED_FILE : 0);
		step[i]->user_data = user_data(OP_SETUP, c->gen, slot);
	}
	step[n] = conn_sqe(rs);
	io_uring_prep_connect(
		step[n], (int)slot, (const struct sockaddr *)&l->opts->target, l->opts->target_len);
	step[n]->flags |= IOSQE_FIXED_FILE;
	step[n]->user_data = user_data(OP_CONNECT, c->gen, slot);
}

void load_connect(struct load_thread *t, unsigned i)
{
	struct load_conn *c = load_conn_at(t, i);
	struct load_conns *rs = conns_of(t, c);
	unsigned slot = slot_of(rs, c);

	if (rs->started <= slot)
		rs->started = slot + 1;
	load_conn_start(t, rs, slot);
}

static void on_connected(struct load_thread *t, struct load_conns *rs, struct load_conn *c, int res)
{
	if (res < 0) {
		load_conn_fail(t, c, "connect failed", strerror(-res));
		return;
	}
	struct io_uring_sqe *sqe = conn_sqe(rs);
	io_uring_prep_cmd_sock(sqe, SOCKET_URING_OP_SETSOCKOPT, (int)slot_of(rs, c), IPPROTO_TCP,
		TCP_NODELAY, (void *)(uintptr_t)&on, sizeof on);
	sqe->flags |= IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS;
	sqe->user_data = user_data(OP_IGNORE, 0, 0);
	c->state = LOAD_HANDSHAKE;
	c->flags |= FLAG_REQUEST_DUE;
	memset(&c->parser, 0, sizeof c->parser);
	if (t->load->opts->raw)
		raw_parser_init(&c->parser.raw);
	else
		ws_parser_init(&c->parser.ws);
	arm(t, rs, c);
	load_send_wanted(t, c);
}

/* ---- completions ---- */

static void dispatch(struct load_thread *t, struct load_conns *rs, struct load_conn *c, enum op op,
	const struct io_uring_cqe *cqe)
{
	switch (op) {
	case OP_SETUP:
	case OP_CONNECT:
		on_connected(t, rs, c, cqe->res);
		break;
	case OP_RECV:
	case OP_RECV_ONCE:
		on_recv(t, rs, c, cqe, op == OP_RECV_ONCE);
		break;
	case OP_POLL:
		if (c->flags & FLAG_DEAF)
			break;
		if (!(cqe->flags & IORING_CQE_F_MORE))
			arm(t, rs, c);
		recv_once(rs, c);
		break;
	case OP_POLL_OUT:
		c->flags &= (uint16_t)~FLAG_BLOCKED;
		load_send_wanted(t, c);
		break;
	case OP_HANGUP:
		load_conn_fail(t, c, "lost", "reset by the server");
		break;
	case OP_SEND:
		on_send(t, rs, c, cqe->res);
		break;
	case OP_IGNORE:
		break;
	}
}

void load_conn_complete(
	struct load_thread *t, struct load_conns *rs, const struct io_uring_cqe *cqe)
{
	enum op op = (enum op)(cqe->user_data >> 56);
	uint16_t gen = (uint16_t)(cqe->user_data >> 40);
	struct load_conn *c = &rs->conn[(uint32_t)cqe->user_data];

	if (op != OP_IGNORE && c->gen == gen)
		dispatch(t, rs, c, op, cqe);
	if (cqe->flags & IORING_CQE_F_BUFFER)
		load_ring_put(&rs->ring, cqe->flags >> IORING_CQE_BUFFER_SHIFT);
}

void load_conns_abandon(struct load_thread *t, struct load_conns *rs)
{
	for (unsigned slot = 0; slot < rs->started; slot++) {
		if (rs->conn[slot].state == LOAD_FREE)
			continue;
		extra_free(&rs->conn[slot]);
		reset_when_closed(rs, slot);
	}
	io_uring_submit(&rs->ring.uring);
}
