#include "net/conn_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "net/account.h"
#include "net/shed.h"

/* A worker thread has one net; a conn need not carry a pointer to it. */
static _Thread_local struct net *net_self __attribute__((tls_model("initial-exec")));

struct net *conn_net(const struct conn *c)
{
	(void)c;
	return net_self;
}

struct ring *conn_ring(const struct conn *c)
{
	return net_self->w->ring[c->ring];
}

uint32_t conn_slot(const struct conn *c)
{
	return (uint32_t)(((const uint8_t *)c - conn_ring(c)->objects) / sizeof *c);
}

const struct conn_limits *conn_limits(const struct conn *c)
{
	return &net_self->opts->limits[c->route];
}

int conn_net_init(struct net *n, const struct conn_opts *opts, const struct conn_ops *ops,
	struct tg_worker_stats *stats)
{
	n->opts = opts;
	n->ops = ops;
	n->stats = stats;
	n->flush_tail = &n->flush_head;
	n->rand = worker_clock_ns() | 1;
	buf_pool_init(&n->bufs, opts->buffer_cap_bytes);
	n->trim.kind = WORKER_TRIM;
	slab_init(&n->aux, sizeof(struct conn_aux), 64 * 1024, 0);
	n->gather = calloc(CONN_GATHER_BATCH, sizeof *n->gather);
	n->peers = calloc(CONN_PEER_BATCH, sizeof *n->peers);
	n->route_stats = calloc(opts->n_routes + 1, sizeof *n->route_stats);
	shed_init(n);
	if (!n->gather || !n->peers || !n->route_stats)
		return -ENOMEM;
	net_self = n;
	return 0;
}

static void drop_buffers(struct conn *c)
{
	struct net *n = net_self;

	conn_input_drop(c);
	if (!c->aux)
		return;
	buf_free(&n->bufs, c->aux->in);
	buf_free(&n->bufs, c->aux->msg);
	buf_free(&n->bufs, c->aux->ctl);
	c->aux->in = c->aux->msg = c->aux->ctl = NULL;
	c->aux->opening = false;
	conn_aux_trim(c);
}

static void forget_app(struct conn *c)
{
	if (c->app && net_self->ops->gone)
		net_self->ops->gone(c);
	c->app = NULL;
}

void conn_net_close_all(struct net *n)
{
	for (unsigned i = 0; i < n->w->n_rings; i++) {
		struct ring *r = n->w->ring[i];

		/* Whatever is still armed dies with the ring. */
		for (uint32_t slot = 0; slot < r->used_high; slot++) {
			struct conn *c = ring_object(r, slot);

			if (c->state == CONN_FREE)
				continue;
			if (c->close_reason == CLOSE_REASONS)
				c->close_reason = CLOSE_DRAIN;
			wheel_del(&n->w->wheel, &c->timer);
			conn_tell_closed(c, CLOSE_DRAIN, WS_CLOSE_GOING_AWAY, NULL, 0);
			conn_out_drop(c);
			conn_unblock(c);
			drop_buffers(c);
			n->stats->closes[c->close_reason]++;
			account_end(c);
			forget_app(c);
			if (c->aux)
				slab_free(&n->aux, c->aux);
			c->aux = NULL;
			c->state = CONN_FREE;
		}
	}
}

void conn_net_fini(struct net *n)
{
	free(n->gather);
	free(n->peers);
	free(n->route_stats);
	account_fini(n);
	slab_fini(&n->aux);
	buf_pool_fini(&n->bufs);
}

struct conn_aux *conn_aux_get(struct conn *c)
{
	if (!c->aux) {
		c->aux = slab_alloc(&net_self->aux);
		if (c->aux)
			memset(c->aux, 0, sizeof *c->aux);
	}
	return c->aux;
}

void conn_aux_trim(struct conn *c)
{
	struct conn_aux *x = c->aux;

	if (!x || x->in || x->msg || x->ctl || x->opening || x->out_since_ms)
		return;
	slab_free(&net_self->aux, x);
	c->aux = NULL;
}

/* Asks for the peer's address; the answer lands in the batch's scratch space with the completions
 * of this submission. */
static bool ask_peer(struct net *n, struct ring *r, struct conn *c, uint32_t slot)
{
	struct io_uring_sqe *sqe;
	/* The kernel refuses more room than the family's address takes. */
	bool ipv6 = n->opts->listeners[c->listener].ipv6;
	unsigned i;

	if (!n->peers_out)
		n->peers_next =
			0; /* low entries first: what a burst touched is not touched again */
	if (n->peers_out == CONN_PEER_BATCH)
		return false;
	i = n->peers_next++ % CONN_PEER_BATCH;
	n->peers_out++;
	sqe = ring_sqe(r);
	io_uring_prep_cmd_sock(sqe, SOCKET_URING_OP_GETSOCKOPT, (int)slot, SOL_SOCKET, SO_PEERNAME,
		&n->peers[i], ipv6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in));
	sqe->flags |= IOSQE_FIXED_FILE;
	sqe->user_data = ring_ud(OP_CONN_PEER, c->gen, (uint16_t)i, slot);
	c->armed |= ARMED_PEER;
	return true;
}

void conn_accepted(struct net *n, struct ring *r, uint32_t slot, unsigned listener)
{
	struct conn *c = ring_object(r, slot);
	const struct conn_listener *l = &n->opts->listeners[listener];
	uint16_t gen = c->gen;

	assert(c->state == CONN_FREE);
	memset(c, 0, sizeof *c);
	c->gen = (uint16_t)(gen + 1);
	c->ring = (uint8_t)r->index;
	c->listener = (uint8_t)listener;
	c->protocol = l->protocol;
	c->route = CONN_NO_ROUTE;
	c->state = l->proxy_protocol ? CONN_PROXY : CONN_HANDSHAKE;
	c->run.kind = WORKER_CONN;
	c->timer.kind = WORKER_CONN;
	c->close_reason = CLOSE_REASONS;
	c->opened_ms = c->last_rx_ms = c->last_message_ms = n->w->now_ms;
	c->due_ms = worker_now_us(n->w);
	if (c->protocol == CONN_WEBSOCKET)
		ws_parser_init(&c->parser.ws);
	else
		raw_parser_init(&c->parser.raw);
	r->used++;
	if (slot >= r->used_high)
		r->used_high = slot + 1;
	n->stats->accepts++;
	n->stats->connections++;
	n->stats->handshaking++;
	account_begin(c);
	if (!ask_peer(n, r, c, slot)) {
		conn_kill(c, CLOSE_NO_MEMORY);
		return;
	}
	/* A trusted sender is judged before its first byte is believed: wait for the address. */
	if (!l->proxy_protocol)
		conn_arm(c);
	conn_timer_update(c);
}

static void set_peer(struct conn *c, const struct sockaddr_in6 *sa)
{
	if (sa->sin6_family == AF_INET6) {
		c->peer = sa->sin6_addr;
		c->peer_port = sa->sin6_port;
	} else if (sa->sin6_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)sa;

		memset(&c->peer, 0, 10);
		memset((uint8_t *)&c->peer + 10, 0xff, 2);
		memcpy((uint8_t *)&c->peer + 12, &in->sin_addr, 4);
		c->peer_port = in->sin_port;
	}
	c->timer.tag = wake_tag(&net_self->w->wakes, c->peer_port);
}

void conn_served(struct conn *c)
{
	if (c->run.flags)
		c->run.flags = admission_served(net_self->admission, &c->peer, c->run.flags);
}

/* The kernel then forgets the connection at once: RST, no TIME-WAIT, nothing to wait for. */
static void reset_at_close(struct conn *c)
{
	static struct linger none = {.l_onoff = 1};
	struct io_uring_sqe *sqe = ring_sqe(conn_ring(c));

	io_uring_prep_cmd_sock(sqe, SOCKET_URING_OP_SETSOCKOPT, (int)conn_slot(c), SOL_SOCKET,
		SO_LINGER, &none, sizeof none);
	sqe->flags |= IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS;
	sqe->user_data = ring_ud(OP_NONE, 0, 0, 0);
}

bool conn_admit(struct conn *c, unsigned flags)
{
	struct net *n = net_self;
	struct admission_result r;

	if (!n->admission || (n->kernel_gate && !n->opts->listeners[c->listener].proxy_protocol))
		return true;
	r = admission_judge(n->admission, n->lists, n->stats, &c->peer, flags, n->w->now_ns);
	c->run.flags = r.ticket;
	if (!r.refused)
		return true;
	account_error(c, admission_verdict_name(r.verdict));
	reset_at_close(c);
	conn_kill(c, CLOSE_REFUSED);
	return false;
}

static void on_peer(struct worker *w, struct ring *r, uint64_t ud, int res, uint32_t flags)
{
	struct net *n = net_of(w);
	struct conn *c = ring_object(r, ring_ud_slot(ud));

	(void)flags;
	n->peers_out--;
	if (c->gen != ring_ud_gen(ud)) {
		n->stats->stale_completions++;
		return;
	}
	c->armed &= (uint8_t)~ARMED_PEER;
	if (c->state == CONN_DEAD) {
		conn_try_free(c);
		return;
	}
	if (res > 0)
		set_peer(c, &n->peers[ring_ud_aux(ud)]);
	else if (c->state <= CONN_HANDSHAKE) {
		conn_kill(c, CLOSE_RESET); /* gone before it was looked at */
		return;
	}
	if (c->state != CONN_PROXY) {
		/* The answer may be later than the handshake, should the kernel have put it off. */
		if (c->state < CONN_CLOSING && conn_admit(c, 0) && c->state == CONN_OPEN)
			conn_served(c);
		return;
	}
	if (conn_proxy_allowed(c)) {
		conn_arm(c);
	} else {
		conn_protocol_error(c, PROTO_ERR_PROXY_SOURCE);
		conn_kill(c, CLOSE_HANDSHAKE);
	}
}

void conn_tell_closed(
	struct conn *c, enum close_reason reason, uint16_t code, const uint8_t *text, size_t len)
{
	if (!(c->flags & CONN_TOLD))
		return;
	c->flags &= (uint16_t)~CONN_TOLD;
	if (c->state == CONN_OPEN) {
		struct account *a = account_of(c);

		if (a)
			a->code = code;
		net_self->stats->sessions--;
		net_self->route_stats[c->route].sessions--;
	}
	net_self->ops->closed(c, reason, code, text, len);
}

static void leave_handshake(struct conn *c)
{
	if (c->state == CONN_PROXY || c->state == CONN_HANDSHAKE || c->state == CONN_OPENING)
		net_self->stats->handshaking--;
	if (c->run.flags & TICKET_UNSERVED)
		c->run.flags = admission_left(net_self->admission, c->run.flags);
}

static void cancel_read(struct conn *c)
{
	struct ring *r = conn_ring(c);
	uint32_t slot = conn_slot(c);

	if (c->flags & CONN_CANCELLED)
		return;
	if (c->armed & ARMED_POLL)
		ring_cancel(r, ring_ud(OP_CONN_POLL, c->gen, 0, slot));
	else if (c->armed & ARMED_RECV)
		ring_cancel(r, ring_ud(OP_CONN_RECV, c->gen, 0, slot));
	else
		return;
	c->flags |= CONN_CANCELLED;
}

void conn_kill(struct conn *c, enum close_reason reason)
{
	struct net *n = net_self;

	if (c->state == CONN_DEAD || c->state == CONN_FREE)
		return;
	if (c->close_reason == CLOSE_REASONS)
		c->close_reason = (uint8_t)reason;
	conn_tell_closed(c, reason, WS_CLOSE_ABNORMAL, NULL, 0);
	leave_handshake(c);
	c->state = CONN_DEAD;
	wheel_del(&n->w->wheel, &c->timer);
	/* What the kernel holds for a peer that takes nothing would stay until TCP_USER_TIMEOUT. */
	if (c->aux && c->aux->out_since_ms)
		reset_at_close(c);
	conn_unblock(c);
	drop_buffers(c);
	cancel_read(c);
	if (c->armed & ARMED_POLLOUT)
		ring_cancel(conn_ring(c), ring_ud(OP_CONN_POLLOUT, c->gen, 0, conn_slot(c)));
	if (!(c->armed & ARMED_SEND))
		conn_out_drop(c);
	conn_try_free(c);
}

void conn_try_free(struct conn *c)
{
	struct net *n = net_self;
	struct ring *r = conn_ring(c);

	if (c->armed || (c->flags & (CONN_DIRTY | CONN_STARVED)) || c->run.queued)
		return; /* whoever holds it comes back here */
	/* Whoever ended it said why. */
	assert(c->close_reason < CLOSE_REASONS);
	account_end(c);
	conn_out_drop(c);
	forget_app(c);
	if (c->aux) {
		slab_free(&n->aux, c->aux);
		c->aux = NULL;
	}
	if (c->run.flags)
		admission_closed(
			n->admission, n->lists, n->stats, &c->peer, c->run.flags, n->w->now_ns);
	ring_close(r, conn_slot(c));
	r->used--;
	c->state = CONN_FREE;
	n->stats->connections--;
	n->stats->closes[c->close_reason]++;
}

void conn_linger(struct conn *c, enum close_reason reason)
{
	struct net *n = net_self;

	if (c->state >= CONN_CLOSING)
		return;
	if (c->close_reason == CLOSE_REASONS)
		c->close_reason = (uint8_t)reason;
	leave_handshake(c);
	c->state = CONN_CLOSING;
	c->flags &= (uint16_t)~CONN_PAUSED;
	c->due_ms = n->w->now_ms + n->opts->close_timeout_ms;
	conn_timer_update(c);
	conn_dirty(c);
	worker_push(
		n->w, &c->run, RUNQ_CONTROL); /* drops what was read and arms a read for the FIN */
}

void conn_close(struct conn *c, uint16_t code, const char *why, enum close_reason reason)
{
	uint8_t frame[2 + WS_CONTROL_PAYLOAD_MAX + TG_RAW_HEADER_LEN];
	size_t len;

	if (c->state >= CONN_CLOSING)
		return;
	if (c->state != CONN_OPEN) {
		conn_refuse(c, 503, why, reason);
		return;
	}
	/* What is queued for it is what memory ran out for: that goes now, not when the peer has
	 * read it. */
	if (reason == CLOSE_NO_MEMORY && c->out) {
		conn_kill(c, reason);
		return;
	}
	if (c->protocol == CONN_WEBSOCKET)
		len = ws_close_write(frame, code, why);
	else
		len = raw_close_write(frame, code, why);
	conn_tell_closed(c, reason, code, NULL, 0);
	if (!conn_out_bytes(c, frame, len)) {
		conn_kill(c, reason);
		return;
	}
	conn_linger(c, reason);
}

void conn_resume(struct conn *c)
{
	if (!(c->flags & CONN_PAUSED))
		return;
	c->flags &= (uint16_t)~CONN_PAUSED;
	conn_wake(c); /* what has waited so far waited for the upstream */
	if (c->state == CONN_OPEN)
		worker_push(net_self->w, &c->run, RUNQ_ESTABLISHED);
}

void conn_describe(const struct conn *c, struct conn_info *ret)
{
	static const char *const states[] = {
		"free", "proxy", "handshake", "opening", "open", "closing", "closing"};
	const struct net *n = net_self;
	uint32_t now = n->w->now_ms;

	*ret = (struct conn_info){
		.session = c->session,
		.worker = (uint16_t)n->w->id,
		.ring = c->ring,
		.slot = conn_slot(c),
		.peer = {.sin6_family = AF_INET6, .sin6_port = c->peer_port, .sin6_addr = c->peer},
		.listener = n->opts->listeners[c->listener].name,
		.route = c->route == CONN_NO_ROUTE ? "" : conn_limits(c)->name,
		.upstream = c->route == CONN_NO_ROUTE ? "" : conn_limits(c)->upstream,
		.protocol = c->protocol == CONN_WEBSOCKET ? "websocket" : "raw",
		.state = states[c->state],
		.age_ms = now - c->opened_ms,
		.idle_ms = now - c->last_rx_ms,
		.messages_in = c->messages_in,
		.messages_out = c->messages_out,
		.queued_bytes = c->out_bytes,
		.queued_messages = outq_messages(c->out),
		.blocked_ms = c->aux && c->aux->out_since_ms ? now - c->aux->out_since_ms + 1 : 0,
		.reading_paused = c->flags & CONN_PAUSED,
	};
}

bool conn_walk(struct net *n, uint64_t *cursor, unsigned max_slots,
	void (*fn)(struct conn *c, void *ctx), void *ctx)
{
	uint32_t ring = (uint32_t)(*cursor >> 32), slot = (uint32_t)*cursor;

	while (ring < n->w->n_rings) {
		struct ring *r = n->w->ring[ring];

		for (; slot < r->used_high; slot++) {
			struct conn *c = ring_object(r, slot);

			if (!max_slots--) {
				*cursor = (uint64_t)ring << 32 | slot;
				return true;
			}
			if (c->state != CONN_FREE)
				fn(c, ctx);
		}
		slot = 0;
		ring++;
	}
	*cursor = (uint64_t)ring << 32;
	return false;
}

void conn_register(struct worker_ops *ops)
{
	ops->cqe[OP_CONN_PEER] = on_peer;
	ops->cqe[OP_CONN_POLL] = conn_on_poll;
	ops->cqe[OP_CONN_RECV] = conn_on_recv;
	ops->cqe[OP_CONN_SEND] = conn_on_send;
	ops->cqe[OP_CONN_POLLOUT] = conn_on_pollout;
	ops->cqe[OP_CONN_SHUTDOWN] = conn_on_shutdown;
	ops->run[WORKER_CONN] = conn_run;
	ops->timer[WORKER_CONN] = conn_timer_fire;
	ops->timer[WORKER_TRIM] = conn_trim;
	ops->settle = conn_settle;
	ops->refill = conn_refill;
}
