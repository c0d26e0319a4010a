/* Frames in and out of one link, and its turn. */
#include "net/link_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	CLOCK_EVERY_FRAMES = 16, /* a look at the clock costs as much as a small frame */
	CHUNK_DATA_BYTES = LINK_CHUNK_BYTES - sizeof(struct link_chunk),
};

_Static_assert(CHUNK_DATA_BYTES >= TG_LINK_HEADER_LEN + TG_LINK_OPEN_MAX, "a frame is never split");
_Static_assert(LINK_IN_BYTES - LINK_IN_ROOM_MIN > TG_LINK_HEADER_LEN + LINK_PUBLISH_PAYLOAD_MAX,
	"what is left of the longest frame a service may send leaves room for more");

static struct ring *ring_of(const struct link *l)
{
	return l->up->w->ring[0];
}

void link_kick(struct link *l)
{
	worker_push(l->up->w, &l->run, RUNQ_LINKS);
}

/* -------------------------------------------------------------------------------- out */

uint8_t *link_out(struct link *l, size_t len)
{
	struct link_chunk *c = l->out_tail;

	if (!c || c->off + c->len + len > CHUNK_DATA_BYTES) {
		c = l->out_spare ? l->out_spare : malloc(LINK_CHUNK_BYTES);
		if (!c) {
			link_fail(l, -1, "out of memory");
			return NULL;
		}
		l->out_spare = NULL;
		c->next = NULL;
		c->off = c->len = 0;
		if (l->out_tail)
			l->out_tail->next = c;
		else
			l->out_head = c;
		l->out_tail = c;
	}
	return c->data + c->off + c->len;
}

void link_out_done(struct link *l, size_t len)
{
	l->out_tail->len += (uint32_t)len;
	l->out_bytes += len;
	link_stats(l->up)->link_frames_out++;
	link_kick(l);
}

static void pop_chunk(struct link *l)
{
	struct link_chunk *c = l->out_head;

	l->out_head = c->next;
	if (!l->out_head)
		l->out_tail = NULL;
	if (l->out_spare)
		free(c);
	else
		l->out_spare = c;
}

static void out_consume(struct link *l, uint32_t n)
{
	l->out_bytes -= n;
	while (n || (l->out_head && !l->out_head->len)) {
		struct link_chunk *c = l->out_head;
		uint32_t take = n < c->len ? n : c->len;

		c->off += take;
		c->len -= take;
		n -= take;
		if (!c->len)
			pop_chunk(l);
	}
}

void link_out_drop(struct link *l)
{
	while (l->out_head)
		pop_chunk(l);
	free(l->out_spare);
	l->out_spare = NULL;
	l->out_bytes = 0;
}

/* One send at a time; frames that come meanwhile are appended behind what it gathered. */
void link_send(struct link *l, int flags)
{
	struct link_chunk *c = l->out_head;
	struct io_uring_sqe *sqe;
	unsigned n = 0;

	if (l->armed & LINK_ARMED_SEND || !l->out_bytes)
		return;
	for (; c && n < LINK_GATHER; c = c->next)
		l->iov[n++] = (struct iovec){c->data + c->off, c->len};
	l->msg = (struct msghdr){.msg_iov = l->iov, .msg_iovlen = n};
	sqe = ring_sqe(ring_of(l));
	io_uring_prep_sendmsg(sqe, (int)l->slot, &l->msg, MSG_NOSIGNAL | flags);
	sqe->flags |= IOSQE_FIXED_FILE;
	sqe->user_data = ring_ud(OP_LINK_SEND, l->gen, 0, l->index);
	l->armed |= LINK_ARMED_SEND;
}

void link_on_send(struct worker *w, struct ring *r, uint64_t ud, int res, uint32_t flags)
{
	struct link *l = link_completed(w, ud, LINK_ARMED_SEND);

	(void)r;
	(void)flags;
	if (!l)
		return;
	if (res > 0)
		out_consume(l, (uint32_t)res);
	else if (res < 0 && res != -EAGAIN && res != -EINTR) {
		if (l->state == LINK_ENDING)
			link_close(l);
		else
			link_fail(l, -1, "send: %s", strerror(-res));
		return;
	}
	if (l->out_bytes || !link_list_empty(&l->ready))
		link_kick(l);
	else if (l->state == LINK_ENDING)
		link_said_all(l);
}

/* -------------------------------------------------------------------------------- in */

void link_recv_arm(struct link *l)
{
	struct io_uring_sqe *sqe;
	uint32_t len = l->in_tail - l->in_head;

	if (l->armed & LINK_ARMED_RECV)
		return;
	if (!len) {
		l->in_head = l->in_tail = 0;
	} else if (LINK_IN_BYTES - l->in_tail < LINK_IN_ROOM_MIN) {
		memmove(l->in, l->in + l->in_head, len);
		l->in_head = 0;
		l->in_tail = len;
	}
	sqe = ring_sqe(ring_of(l));
	io_uring_prep_recv(sqe, (int)l->slot, l->in + l->in_tail, LINK_IN_BYTES - l->in_tail, 0);
	sqe->flags |= IOSQE_FIXED_FILE;
	if (!l->in_more)
		sqe->ioprio |=
			IORING_RECVSEND_POLL_FIRST; /* spares a receive that would find nothing */
	sqe->user_data = ring_ud(OP_LINK_RECV, l->gen, 0, l->index);
	l->armed |= LINK_ARMED_RECV;
}

void link_on_recv(struct worker *w, struct ring *r, uint64_t ud, int res, uint32_t flags)
{
	struct link *l = link_completed(w, ud, LINK_ARMED_RECV);

	(void)r;
	if (!l)
		return;
	if (res > 0) {
		l->in_tail += (uint32_t)res;
		l->in_more = flags & IORING_CQE_F_SOCK_NONEMPTY;
		l->heard_ms = w->now_ms;
		link_kick(l);
	} else if (res == -EINTR || res == -EAGAIN || res == -ECANCELED) {
		link_recv_arm(l);
	} else if (l->state == LINK_ENDING) {
		link_close(l);
	} else if (res == 0) {
		link_fail(l, -1, "closed by the service");
	} else {
		link_fail(l, -1, "receive: %s", strerror(-res));
	}
}

static void on_hello(struct link *l, const struct link_header *h, const uint8_t *payload)
{
	struct link_hello hello;
	const char *why;
	int err = link_hello_parse(payload, h->length, &hello, &why);

	if (err)
		link_bad_frame(l,
			err == -EPROTONOSUPPORT ? TG_LINK_ERROR_VERSION : TG_LINK_ERROR_PROTOCOL,
			why);
	else
		link_established(l, &hello);
}

void link_publications_resume(struct topic_pause *p)
{
	struct link *l = (struct link *)((char *)p - offsetof(struct link, publications));

	if (l->state != LINK_UP)
		return;
	link_window_consume(&l->window, l->publish_cost);
	l->publish_cost = 0;
	link_kick(l);
}

/* Credit for what finds no room is withheld until it does: then the service cannot send more of it
 * than its window. */
static void on_publish(struct link *l, const struct link_header *h, const uint8_t *payload)
{
	struct net *n = l->up->base.net;
	uint32_t cost = link_cost(h->length);
	struct link_publish publish;
	const char *why;

	if (link_publish_parse(payload, h->length, &publish, &why)) {
		link_bad_frame(l, TG_LINK_ERROR_PROTOCOL, why);
		return;
	}
	if (link_window_take(&l->window, l->up->opts.link_window, cost)) {
		link_bad_frame(l, TG_LINK_ERROR_FLOW, "PUBLISH without link credit");
		return;
	}
	if (n->topics &&
		!n->topics->publish(n, publish.topic, publish.topic_len,
			h->flags & TG_LINK_FLAG_TEXT, publish.data, publish.len, &l->publications))
		l->publish_cost += cost;
	else
		link_window_consume(&l->window, cost);
}

static void on_credit(struct link *l, const struct link_header *h, const uint8_t *payload)
{
	const char *why;
	uint32_t bytes;

	if (link_credit_parse(payload, h->length, &bytes, &why))
		link_bad_frame(l, TG_LINK_ERROR_PROTOCOL, why);
	else if (h->session)
		link_session_credit(l, h->session, bytes);
	else if (link_credit_add(&l->credit, bytes))
		link_bad_frame(l, TG_LINK_ERROR_FLOW, "more link credit than a window can hold");
}

static void on_link_frame(struct link *l, const struct link_header *h, const uint8_t *payload)
{
	const char *why, *reason;
	size_t reason_len;
	uint64_t opaque;
	uint32_t grace_ms;
	uint16_t code;
	int err;

	switch ((enum tg_link_type)h->type) {
	case TG_LINK_PING:
		err = link_ping_parse(payload, h->length, &l->pong, &why);
		l->pong_due |= !err;
		break;
	case TG_LINK_PONG:
		err = link_ping_parse(payload, h->length, &opaque, &why);
		if (!err)
			link_on_pong(l, opaque);
		break;
	case TG_LINK_DRAIN:
		err = link_drain_parse(payload, h->length, &grace_ms, &why);
		l->draining |= !err;
		break;
	default:
		err = link_error_parse(payload, h->length, &code, &reason, &reason_len, &why);
		if (!err)
			link_fail(l, -1, "ended by the service, error %u: %.*s", code,
				(int)reason_len, reason);
		break;
	}
	if (err)
		link_bad_frame(l, TG_LINK_ERROR_PROTOCOL, why);
}

static void on_frame(struct link *l, const struct link_header *h, const uint8_t *payload)
{
	if ((l->state == LINK_HELLO) != (h->type == TG_LINK_HELLO) &&
		!(l->state == LINK_HELLO && h->type == TG_LINK_ERROR)) {
		link_bad_frame(l, TG_LINK_ERROR_PROTOCOL,
			h->type == TG_LINK_HELLO ? "second HELLO" : "the first frame is not HELLO");
		return;
	}
	switch ((enum tg_link_type)h->type) {
	case TG_LINK_HELLO:
		on_hello(l, h, payload);
		break;
	case TG_LINK_ACCEPT:
		link_session_accept(l, h, payload);
		break;
	case TG_LINK_REJECT:
		link_session_reject(l, h, payload);
		break;
	case TG_LINK_MESSAGE:
		link_session_message(l, h, payload);
		break;
	case TG_LINK_CLOSE:
		link_session_close(l, h, payload);
		break;
	case TG_LINK_SUBSCRIBE:
	case TG_LINK_UNSUBSCRIBE:
		link_session_topic(l, h, payload);
		break;
	case TG_LINK_PUBLISH:
		on_publish(l, h, payload);
		break;
	case TG_LINK_CREDIT:
		on_credit(l, h, payload);
		break;
	case TG_LINK_PING:
	case TG_LINK_PONG:
	case TG_LINK_DRAIN:
	case TG_LINK_ERROR:
		on_link_frame(l, h, payload);
		break;
	case TG_LINK_OPEN:
		break; /* link_header_parse lets none come from a service */
	}
}

/* Frame after frame until the bytes or the budget run out; true: there is more. A link works for
 * all its sessions, so its budget grows with them. */
static bool parse(struct link *l)
{
	struct worker *w = l->up->w;
	unsigned shares = 1 + l->n_sessions / LINK_SESSIONS_PER_SHARE;
	unsigned frames = 0, frames_max;
	uint64_t end_ns;

	if (shares > LINK_SHARES_MAX)
		shares = LINK_SHARES_MAX;
	frames_max = shares * w->opts.turn_frames;
	end_ns = w->now_ns + (uint64_t)shares * w->opts.turn_us * 1000;
	while (l->state == LINK_HELLO || l->state == LINK_UP) {
		struct link_header h;
		const char *why;
		const uint8_t *data = l->in + l->in_head;
		ssize_t n = link_header_parse(
			data, l->in_tail - l->in_head, LINK_FROM_SERVICE, &h, &why);

		if (n < 0)
			link_bad_frame(l, TG_LINK_ERROR_PROTOCOL, why);
		if (n <= 0 || l->in_tail - l->in_head < TG_LINK_HEADER_LEN + h.length)
			return false;
		if (frames >= frames_max ||
			(frames % CLOCK_EVERY_FRAMES == CLOCK_EVERY_FRAMES - 1 &&
				worker_now(w) > end_ns))
			return true;
		frames++;
		l->in_head += TG_LINK_HEADER_LEN + h.length;
		link_stats(l->up)->link_frames_in++;
		on_frame(l, &h, data + TG_LINK_HEADER_LEN);
	}
	return false;
}

/* Answers that are given once a turn, however many frames asked for them. */
static void answer(struct link *l)
{
	uint32_t grant = link_window_grant(&l->window, l->up->opts.link_window);
	uint8_t *out;

	if (grant) {
		out = link_out(l, LINK_CREDIT_FRAME_LEN);
		if (!out)
			return;
		link_out_done(l, link_credit_write(out, 0, grant));
	}
	if (l->pong_due) {
		out = link_out(l, LINK_PING_FRAME_LEN);
		if (!out)
			return;
		link_out_done(l, link_ping_write(out, TG_LINK_PONG, l->pong));
		l->pong_due = false;
	}
}

void link_run(struct worker *w, struct runq_item *it)
{
	struct link *l = (struct link *)((char *)it - offsetof(struct link, run));
	bool more = false;

	if (l->state == LINK_CLOSING)
		link_settle(l);
	if (l->state == LINK_HELLO || l->state == LINK_UP)
		more = parse(l);
	if (l->state == LINK_UP)
		answer(l);
	if (l->state == LINK_UP)
		link_stage(l);
	if (l->state == LINK_UP && l->draining && !l->n_sessions)
		link_drained(l);
	if (l->state == LINK_ENDING)
		l->in_head = l->in_tail = 0;
	if (l->state != LINK_HELLO && l->state != LINK_UP && l->state != LINK_ENDING)
		return;
	link_send(l, 0);
	if (more) {
		w->stats->forced_yields++;
		link_kick(l);
	} else {
		link_recv_arm(l);
	}
}
