/* What the gateway's frames do. Each function may fail the link; its callers look at the state
 * afterwards. */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	PARTS_MIN = 4 * 1024, /* first allocation for a message in parts */
};

static void protocol_error(struct tg_link *l, const char *why)
{
	tgl_fail(l, TG_LINK_ERROR_PROTOCOL, true, "%s", why);
}

static void on_hello(struct tg_link *l, const uint8_t *payload, size_t len)
{
	struct tg_link_server *server = l->server;
	struct link_hello h;
	const char *why;
	int err = link_hello_parse(payload, len, &h, &why);
	if (err) {
		tgl_fail(l,
			err == -EPROTONOSUPPORT ? TG_LINK_ERROR_VERSION : TG_LINK_ERROR_PROTOCOL,
			true, "%s", why);
		return;
	}
	memcpy(l->name, h.name, h.name_len);
	l->worker = h.worker;
	l->features = h.features;
	l->session_window = h.session_window;
	l->link_window = h.link_window;
	l->payload_max = h.payload_max;
	l->message_max = h.message_max;
	l->credit = h.link_window;
	l->state = TGL_LINK_UP;
	server->stats.links++;
	if (server->draining) {
		uint8_t *out = tgl_out_reserve(l, LINK_DRAIN_FRAME_LEN);
		if (!out)
			return;
		tgl_out_commit(l, link_drain_write(out, server->drain_grace_ms));
	}
	if (server->ops.on_link_up)
		server->ops.on_link_up(server->opts.ctx, l);
}

/* A refusal the service never hears of. */
static void reject(struct tg_link *l, uint64_t id, const char *reason)
{
	uint8_t *out = tgl_out_reserve(l, LINK_REJECT_FRAME_MAX);
	if (out)
		tgl_out_commit(l, link_reject_write(out, id, 503, reason, strlen(reason)));
	l->server->stats.rejected++;
}

static void on_open(struct tg_link *l, const struct link_header *h, const uint8_t *payload)
{
	struct tg_link_server *server = l->server;
	const char *why;
	if (link_open_parse(payload, h->length, &why)) {
		protocol_error(l, why);
		return;
	}
	if (tgl_session_find(l, h->session)) {
		protocol_error(l, "OPEN of a session that is open");
		return;
	}
	server->stats.opened++;
	if (server->draining) {
		reject(l, h->session, "draining");
		return;
	}
	if (server->stats.sessions >= server->opts.sessions_max) {
		reject(l, h->session, "too many sessions");
		return;
	}
	struct tg_link_session *s = tgl_session_create(l, h->session, payload, h->length);
	if (!s) {
		reject(l, h->session, "out of memory");
		return;
	}
	s->resumed = h->flags & TG_LINK_FLAG_RESUMED;
	server->stats.resumed += s->resumed;
	if (server->ops.on_open)
		server->ops.on_open(server->opts.ctx, s);
	else
		tg_link_accept(s, NULL);
}

/* A whole message: it is the service's until consumed. */
static void deliver(struct tg_link_session *s, const void *data, size_t len, bool text)
{
	struct tg_link_server *server = s->link->server;
	s->in_message = false;
	s->delivered_cost += s->unpaid;
	s->delivered_payload += len;
	s->unpaid = 0;
	s->messages_in++;
	server->stats.messages_in++;
	server->stats.bytes_in += len;
	bool manual = s->manual;
	if (server->ops.on_message)
		server->ops.on_message(server->opts.ctx, s, data, len, text);
	if (!manual && s->state != TGL_ENDED)
		tgl_session_consume(s, s->delivered_payload);
}

/* Room for len more bytes of the message in progress; false when there is none, and the session has
 * been ended. What is held counts, not what has come: many sessions may each begin a message and
 * stop. */
static bool parts_reserve(struct tg_link_session *s, size_t len)
{
	struct tg_link_server *server = s->link->server;
	size_t cap = s->parts_cap ? s->parts_cap : PARTS_MIN;
	while (cap - s->parts_len < len)
		cap *= 2;
	if (cap > server->opts.message_max)
		cap = server->opts.message_max;
	if (cap == s->parts_cap)
		return true;
	if (server->stats.assembly_bytes + (cap - s->parts_cap) > server->opts.assembly_max) {
		tgl_session_abort(s, 1013, "too many messages in progress");
		return false;
	}
	uint8_t *parts = realloc(s->parts, cap);
	if (!parts) {
		tgl_session_abort(s, 1013, "out of memory");
		return false;
	}
	server->stats.assembly_bytes += cap - s->parts_cap;
	s->parts = parts;
	s->parts_cap = cap;
	return true;
}

static void assemble(struct tg_link_session *s, const struct link_header *h, const uint8_t *payload)
{
	struct tg_link_server *server = s->link->server;
	if (!parts_reserve(s, h->length))
		return;
	if (h->length)
		memcpy(s->parts + s->parts_len, payload, h->length);
	s->parts_len += h->length;
	if (h->flags & TG_LINK_FLAG_MORE) {
		s->in_message = true;
		if (s->delivered_cost == 0)
			tgl_session_consume(s, 0);
		return;
	}
	uint8_t *parts = s->parts;
	size_t len = s->parts_len;
	server->stats.assembly_bytes -= s->parts_cap;
	s->parts = NULL;
	s->parts_len = s->parts_cap = 0;
	deliver(s, parts, len, s->parts_text);
	free(parts);
}

static void on_message(struct tg_link *l, const struct link_header *h, const uint8_t *payload)
{
	const struct tg_link_server_opts *opts = &l->server->opts;
	uint32_t cost = link_cost(h->length);
	bool text = h->flags & TG_LINK_FLAG_TEXT;
	if (link_window_take(&l->window, opts->link_window, cost)) {
		tgl_fail(l, TG_LINK_ERROR_FLOW, true, "more sent than the link has credit for");
		return;
	}
	/* Read is consumed, as far as the link goes: only its own window may stall a session. */
	link_window_consume(&l->window, cost);
	struct tg_link_session *s = tgl_session_find(l, h->session);
	if (!s) {
		l->server->stats.stale_frames++;
		return;
	}
	if (s->state == TGL_OPENING) {
		protocol_error(l, "MESSAGE before ACCEPT");
		return;
	}
	if (link_window_take(&s->window, opts->session_window, cost)) {
		tgl_fail(l, TG_LINK_ERROR_FLOW, true, "more sent than the session has credit for");
		return;
	}
	if (s->in_message && text != s->parts_text) {
		protocol_error(l, "parts of one message differ in TEXT");
		return;
	}
	if (s->state == TGL_CLOSING) { /* nobody wants it any more */
		tgl_session_credit(s, cost);
		return;
	}
	s->unpaid += cost;
	if (s->parts_len + (size_t)h->length > opts->message_max) {
		tgl_session_abort(s, 1009, "message too long");
		return;
	}
	s->parts_text = text;
	if (s->in_message || h->flags & TG_LINK_FLAG_MORE)
		assemble(s, h, payload);
	else
		deliver(s, payload, h->length, text);
}

static void on_close(struct tg_link *l, const struct link_header *h, const uint8_t *payload)
{
	struct link_close c;
	const char *why;
	if (link_close_parse(payload, h->length, LINK_FROM_GATEWAY, &c, &why)) {
		protocol_error(l, why);
		return;
	}
	struct tg_link_session *s = tgl_session_find(l, h->session);
	if (s)
		tgl_session_end(s, TG_LINK_END_GATEWAY, c.code, c.reason, c.reason_len);
	else
		l->server->stats.stale_frames++;
}

static void on_credit(struct tg_link *l, const struct link_header *h, const uint8_t *payload)
{
	uint32_t bytes;
	const char *why;
	if (link_credit_parse(payload, h->length, &bytes, &why)) {
		protocol_error(l, why);
		return;
	}
	struct tg_link_session *s = h->session ? tgl_session_find(l, h->session) : NULL;
	if (h->session && !s) {
		l->server->stats.stale_frames++;
		return;
	}
	if (link_credit_add(s ? &s->credit : &l->credit, bytes)) {
		tgl_fail(l, TG_LINK_ERROR_FLOW, true, "more credit than a window can hold");
		return;
	}
	if (s)
		tgl_session_ready(s);
	tgl_dirty(l);
}

static void on_ping(struct tg_link *l, const struct link_header *h, const uint8_t *payload)
{
	const char *why;
	uint64_t opaque;
	if (link_ping_parse(payload, h->length, &opaque, &why)) {
		protocol_error(l, why);
		return;
	}
	if (h->type == TG_LINK_PONG)
		return; /* hearing anything is what counts */
	l->pong = opaque;
	l->pong_due = true;
	tgl_dirty(l);
}

static void on_drain(struct tg_link *l, const struct link_header *h, const uint8_t *payload)
{
	struct tg_link_server *server = l->server;
	const char *why;
	uint32_t grace_ms;
	if (link_drain_parse(payload, h->length, &grace_ms, &why))
		protocol_error(l, why);
	else if (server->ops.on_drain)
		server->ops.on_drain(server->opts.ctx, l, grace_ms);
}

static void on_error(struct tg_link *l, const struct link_header *h, const uint8_t *payload)
{
	const char *why, *reason;
	size_t reason_len;
	uint16_t code;
	if (link_error_parse(payload, h->length, &code, &reason, &reason_len, &why))
		protocol_error(l, why);
	else
		tgl_fail(l, -1, false, "gateway ended the link, error %u: %.*s", code,
			(int)reason_len, reason);
}

void tgl_frame(struct tg_link *l, const struct link_header *h, const uint8_t *payload)
{
	if ((l->state == TGL_LINK_HELLO) != (h->type == TG_LINK_HELLO)) {
		protocol_error(l,
			h->type == TG_LINK_HELLO ? "second HELLO" : "the first frame is not HELLO");
		return;
	}
	switch ((enum tg_link_type)h->type) {
	case TG_LINK_HELLO:
		on_hello(l, payload, h->length);
		break;
	case TG_LINK_OPEN:
		on_open(l, h, payload);
		break;
	case TG_LINK_MESSAGE:
		on_message(l, h, payload);
		break;
	case TG_LINK_CLOSE:
		on_close(l, h, payload);
		break;
	case TG_LINK_CREDIT:
		on_credit(l, h, payload);
		break;
	case TG_LINK_PING:
	case TG_LINK_PONG:
		on_ping(l, h, payload);
		break;
	case TG_LINK_DRAIN:
		on_drain(l, h, payload);
		break;
	case TG_LINK_ERROR:
		on_error(l, h, payload);
		break;
	case TG_LINK_ACCEPT:
	case TG_LINK_REJECT:
	case TG_LINK_SUBSCRIBE:
	case TG_LINK_UNSUBSCRIBE:
	case TG_LINK_PUBLISH:
		break; /* link_header_parse lets none of these come from a gateway */
	}
}
