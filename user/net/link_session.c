/* Sessions: from OPEN to CLOSE, what services say to clients, and the credit for it. */
#include "net/link_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/utf8.h"

static struct link_session *find(const struct link *l, uint64_t id)
{
	struct link_session *s = link_table_find(&l->up->table, id);

	/* One that is over, or has moved to another link, is nothing to this one. */
	return s && s->link == l && link_session_attached(s) ? s : NULL;
}

/* -------------------------------------------------------------------------------- from the service
 */

static void grant(struct link_session *s)
{
	struct link *l = s->link;
	uint32_t bytes = link_window_grant(&s->window, l->up->opts.session_window);
	uint8_t *out = bytes ? link_out(l, LINK_CREDIT_FRAME_LEN) : NULL;

	if (out)
		link_out_done(l, link_credit_write(out, s->id, bytes));
}

/* A frame of the service was dealt with. While the client does not take what it was sent, the
 * service gets no more credit: it may be ahead by its window, and by a message. */
static void consumed(struct link_session *s, uint32_t cost)
{
	if (s->conn->flags & CONN_OUT_HIGH) {
		s->deferred += cost;
		return;
	}
	link_window_consume(&s->window, cost);
	grant(s);
}

void link_session_accept(struct link *l, const struct link_header *h, const uint8_t *payload)
{
	struct link_upstream *up = l->up;
	struct link_session *s = find(l, h->session);
	char subprotocol[TG_LINK_SUBPROTOCOL_MAX + 1];
	struct conn *c;
	const char *why;

	if (link_accept_parse(payload, h->length, &why)) {
		link_bad_frame(l, TG_LINK_ERROR_PROTOCOL, why);
		return;
	}
	if (!s)
		return;
	if (s->state != SESSION_OPENING) {
		link_bad_frame(l, TG_LINK_ERROR_PROTOCOL, "ACCEPT of a session that is open");
		return;
	}
	memcpy(subprotocol, payload, h->length);
	subprotocol[h->length] = '\0';
	c = s->conn;
	if (h->length && !s->was_open &&
		!link_open_offered(s->meta, s->meta_len, subprotocol, h->length)) {
		link_stats(up)->protocol_errors[PROTO_ERR_LINK_FRAME]++;
		conn_refuse(c, 502, "the service chose a subprotocol that was not offered",
			CLOSE_UPSTREAM);
		return;
	}
	s->state = SESSION_OPEN;
	s->retried = false;
	link_list_remove(&s->on_deadline);
	if (up->opts.failover == LINK_CLOSE) {
		free(s->meta);
		s->meta = NULL;
		s->meta_len = 0;
	}
	if (s->was_open) {
		link_stats(up)->sessions_failed_over++;
	} else {
		s->was_open = true;
		conn_accept(c, h->length ? subprotocol : NULL);
		if (c->up != s)
			return;
	}
	/* What was accepted for another service, or before one was known. */
	for (const struct buf *b = s->pending; b; b = b->next) {
		if (b->len > l->message_max) {
			conn_close(c, 1009, "the service takes no message of this size",
				CLOSE_TOO_BIG);
			return;
		}
	}
	link_session_ready(s);
}

/* How a client that was told its session is open hears that it is not. */
static uint16_t close_code_of(uint16_t status)
{
	if (status == 429 || status == 503)
		return 1013;
	if (status == 413)
		return 1009;
	return status >= 500 ? 1011 : 1008;
}

void link_session_reject(struct link *l, const struct link_header *h, const uint8_t *payload)
{
	struct link_upstream *up = l->up;
	struct link_session *s = find(l, h->session);
	char reason[TG_LINK_REASON_MAX + 1];
	const char *why, *text;
	uint16_t status;
	size_t len;

	if (link_reject_parse(payload, h->length, &status, &text, &len, &why)) {
		link_bad_frame(l, TG_LINK_ERROR_PROTOCOL, why);
		return;
	}
	if (!s)
		return;
	if (s->state != SESSION_OPENING) {
		link_bad_frame(l, TG_LINK_ERROR_PROTOCOL, "REJECT of a session that is open");
		return;
	}
	link_session_detach(up, s);
	if (status == 503 && !s->retried && link_place_elsewhere(up, s, l)) {
		s->retried = true;
		return;
	}
	link_stats(up)->sessions_rejected++;
	link_session_drop_pending(up, s);
	memcpy(reason, text, len);
	reason[len] = '\0';
	if (s->was_open)
		conn_close(s->conn, close_code_of(status), reason, CLOSE_NO_UPSTREAM);
	else
		conn_refuse(s->conn, status, reason, CLOSE_UPSTREAM);
}

void link_session_close(struct link *l, const struct link_header *h, const uint8_t *payload)
{
	struct link_session *s = find(l, h->session);
	char reason[TG_LINK_REASON_MAX + 1];
	struct link_close close;
	const char *why;

	if (link_close_parse(payload, h->length, LINK_FROM_SERVICE, &close, &why)) {
		link_bad_frame(l, TG_LINK_ERROR_PROTOCOL, why);
		return;
	}
	if (!s)
		return;
	memcpy(reason, close.reason, close.reason_len);
	reason[close.reason_len] = '\0';
	link_session_drop_pending(l->up, s); /* the service does not want them */
	link_session_detach(l->up, s);
	conn_close(s->conn, close.code, reason, CLOSE_UPSTREAM);
}

void link_session_topic(struct link *l, const struct link_header *h, const uint8_t *payload)
{
	struct link_session *s = find(l, h->session);
	struct net *n = l->up->base.net;
	const char *why, *topic = (const char *)payload;

	if (link_topic_parse(payload, h->length, &why)) {
		link_bad_frame(l, TG_LINK_ERROR_PROTOCOL, why);
		return;
	}
	if (!s || !s->conn || !n->topics)
		return;
	if (h->type == TG_LINK_SUBSCRIBE)
		n->topics->subscribe(n, s->conn, topic, h->length);
	else
		n->topics->unsubscribe(n, s->conn, topic, h->length);
}

void link_session_credit(struct link *l, uint64_t id, uint32_t bytes)
{
	struct link_session *s = find(l, id);

	if (!s)
		return;
	if (link_credit_add(&s->credit, bytes)) {
		link_bad_frame(l, TG_LINK_ERROR_FLOW, "more credit than a window can hold");
		return;
	}
	link_unpaid_pay(&s->unpaid, bytes);
	link_session_ready(s);
}

/* A whole message for the client. False: that ended the session. */
static bool deliver(struct link_session *s, bool text, const uint8_t *data, size_t len)
{
	struct conn *c = s->conn;

	if (text && !utf8_valid(data, len)) {
		link_stats(s->link->up)->protocol_errors[PROTO_ERR_LINK_FRAME]++;
		conn_close(c, 1007, "the service sent text that is not UTF-8", CLOSE_UPSTREAM);
		return false;
	}
	s->received++;
	conn_send(c, text, data, len);
	return c->up == s;
}

/* A part of a message, and the message when it was the last. False: that ended the session. */
static bool assemble(struct link_session *s, const struct link_header *h, const uint8_t *payload)
{
	struct link_upstream *up = s->link->up;
	struct conn *c = s->conn;
	bool ok;
	int err = buf_append(link_bufs(up), &s->msg, payload, h->length, up->opts.message_max);

	if (err) {
		if (err == -EMSGSIZE)
			conn_close(c, 1009, "the service's message is too big", CLOSE_TOO_BIG);
		else
			conn_close(c, 1013, "out of memory", CLOSE_NO_MEMORY);
		return false;
	}
	if (h->flags & TG_LINK_FLAG_MORE)
		return true;
	ok = deliver(s, s->text, s->msg->data + s->msg->off, s->msg->len);
	if (ok) {
		buf_free(link_bufs(up), s->msg);
		s->msg = NULL;
	}
	return ok;
}

void link_session_message(struct link *l, const struct link_header *h, const uint8_t *payload)
{
	struct link_upstream *up = l->up;
	struct link_session *s = find(l, h->session);
	uint32_t cost = link_cost(h->length);
	bool text = h->flags & TG_LINK_FLAG_TEXT, alive;

	if (link_window_take(&l->window, up->opts.link_window, cost)) {
		link_bad_frame(l, TG_LINK_ERROR_FLOW, "MESSAGE without link credit");
		return;
	}
	link_window_consume(&l->window,
		cost); /* one slow client holds up nobody else: its own window bounds it */
	if (!s)
		return;
	if (s->state != SESSION_OPEN) {
		link_bad_frame(
			l, TG_LINK_ERROR_PROTOCOL, "MESSAGE of a session that is not accepted");
		return;
	}
	if (link_window_take(&s->window, up->opts.session_window, cost)) {
		link_bad_frame(l, TG_LINK_ERROR_FLOW, "MESSAGE without credit");
		return;
	}
	if (s->msg && s->text != text) {
		link_bad_frame(l, TG_LINK_ERROR_PROTOCOL, "parts of a message disagree on text");
		return;
	}
	s->text = text;
	if (!s->msg && !(h->flags & TG_LINK_FLAG_MORE)) {
		if (h->length > up->opts.message_max) {
			conn_close(
				s->conn, 1009, "the service's message is too big", CLOSE_TOO_BIG);
			return;
		}
		alive = deliver(s, text, payload, h->length);
	} else {
		alive = assemble(s, h, payload);
	}
	if (alive)
		consumed(s, cost);
}

/* -------------------------------------------------------------------------------- from the client
 */

static int open_session(struct upstream *u, struct conn *c, const struct conn_hello *hello,
	uint16_t *ret_status, const char **ret_why)
{
	struct link_upstream *up = link_upstream_of(u);
	struct link_session *s;
	int err;

	*ret_status = 503;
	*ret_why = "out of memory";
	if (up->draining) {
		*ret_why = "the gateway is draining";
		return -EPROTO;
	}
	s = slab_alloc(&up->sessions);
	if (!s)
		return -EPROTO;
	*s = (struct link_session){.conn = c, .id = c->session, .state = SESSION_WAITING};
	link_list_init(&s->on_link);
	link_list_init(&s->on_ready);
	link_list_init(&s->on_deadline);
	err = link_open_metadata(c, hello, &s->meta, &s->meta_len);
	if (err) {
		slab_free(&up->sessions, s);
		if (err == -EMSGSIZE) {
			*ret_status = 414;
			*ret_why = "request target too long";
		}
		return -EPROTO;
	}
	s->hash = link_open_hash(up->opts.hash_key, hello, s->id);
	link_table_add(&up->table, s);
	if (link_place(up, s)) {
		link_session_free(up, s);
		*ret_why = "no service is up, and too many clients wait for one";
		return -EPROTO;
	}
	link_deadline_start(up, s);
	c->up = s;
	return -EINPROGRESS;
}

static bool on_message(struct upstream *u, struct conn *c, bool text, uint8_t *data, size_t len)
{
	struct link_upstream *up = link_upstream_of(u);
	struct link_session *s = c->up;

	if (!link_session_rescue(up, s))
		return true;
	if (s->link && len > s->link->message_max) {
		conn_close(c, 1009, "the service takes no message of this size", CLOSE_TOO_BIG);
		return true;
	}
	if (s->link && link_send_now(s, text, data, len))
		return true;
	/* link_send_now may have ended the link. */
	if (!link_session_rescue(up, s))
		return true;
	if (!s->link && up->buffered + TG_LINK_HEADER_LEN + len > up->opts.buffer_bytes) {
		link_stats(up)->link_buffer_refused++;
		conn_close(c, 1013, "service unavailable", CLOSE_NO_UPSTREAM);
		return true;
	}
	if (!link_hold(up, s, text, data, len)) {
		conn_close(c, 1013, "out of memory", CLOSE_NO_MEMORY);
		return true;
	}
	if (s->link)
		link_session_ready(s);
	s->paused = s->pending_bytes > LINK_PENDING_LOW_BYTES;
	return !s->paused;
}

static void on_drained(struct upstream *u, struct conn *c)
{
	struct link_session *s = c->up;

	(void)u;
	if (!s || !s->deferred || !link_session_attached(s))
		return;
	link_window_consume(&s->window, s->deferred);
	s->deferred = 0;
	grant(s);
}

static void on_closed(struct upstream *u, struct conn *c, enum close_reason reason, uint16_t code,
	const uint8_t *text, size_t text_len)
{
	struct link_upstream *up = link_upstream_of(u);
	struct link_session *s = c->up;
	struct tg_worker_stats *stats = link_stats(up);

	(void)reason;
	if (!s)
		return;
	c->up = NULL;
	s->conn = NULL;
	if (!link_close_code_valid(code, LINK_FROM_GATEWAY))
		code = 1006;
	if (s->link && !link_session_attached(s))
		link_session_reset(up, s);
	if (s->link && s->state == SESSION_OPEN && link_session_stay(up, s, code, text, text_len))
		return;
	stats->link_messages_lost += link_session_drop_pending(up, s);
	if (s->link && (s->state == SESSION_OPEN || s->state == SESSION_OPENING))
		link_send_close(s->link, s->id, code, (const char *)text, text_len);
	link_session_free(up, s);
}

/* -------------------------------------------------------------------------------- the end */

void link_session_reset(struct link_upstream *up, struct link_session *s)
{
	struct tg_worker_stats *stats = link_stats(up);

	stats->link_messages_lost += link_unpaid_total(&s->unpaid);
	if (s->head_started) {
		stats->link_messages_lost++;
		link_pending_pop(up, s);
	}
	link_list_remove(&s->on_link);
	link_list_remove(&s->on_ready);
	buf_free(link_bufs(up), s->msg);
	s->msg = NULL;
	s->unpaid = (struct link_unpaid){0};
	s->window = (struct link_window){0};
	s->credit = s->deferred = 0;
	s->link = NULL;
	if (s->state != SESSION_LEAVING)
		s->state = SESSION_WAITING;
	up->buffered += s->pending_bytes;
}

void link_session_free(struct link_upstream *up, struct link_session *s)
{
	link_session_drop_pending(up, s);
	link_session_detach(up, s);
	link_list_remove(&s->on_deadline);
	if (s->state != SESSION_LEAVING)
		link_table_remove(&up->table, s);
	buf_free(link_bufs(up), s->msg);
	free(s->meta);
	slab_free(&up->sessions, s);
}

const struct upstream_ops link_upstream_ops = {
	.open = open_session,
	.message = on_message,
	.drained = on_drained,
	.closed = on_closed,
	.drain = link_upstream_drain,
	.destroy = link_upstream_destroy,
};
