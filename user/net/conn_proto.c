/* Frames in: what a turn of an open connection does with the bytes at hand. */
#include "net/conn_internal.h"

#include <errno.h>
#include <string.h>

enum {
	CLOCK_EVERY_FRAMES = 16, /* a look at the clock costs as much as a small frame */
	PING_WINDOW_MS = 60 * 1000,
};

/* What one event means, whichever protocol it came by. */
struct event {
	enum {
		EV_DATA,
		EV_PING,
		EV_PONG,
		EV_CLOSE,
		EV_HELLO
	} kind;
	bool text, start, end;
	uint8_t *data;
	size_t len;
};

static void bad_frame(struct conn *c, uint16_t code, const char *why)
{
	enum protocol_error e = c->protocol == CONN_RAW ? PROTO_ERR_RAW_FRAME : PROTO_ERR_WS_FRAME;

	if (code == WS_CLOSE_INVALID_DATA)
		e = PROTO_ERR_UTF8;
	else if (code == WS_CLOSE_TOO_BIG)
		e = PROTO_ERR_SIZE;
	else if (c->state == CONN_HANDSHAKE)
		e = PROTO_ERR_RAW_HELLO;
	conn_protocol_error(c, e);
	if (c->state == CONN_OPEN)
		conn_close(c, code, why, code == WS_CLOSE_TOO_BIG ? CLOSE_TOO_BIG : CLOSE_PROTOCOL);
	else
		conn_refuse(c, code == WS_CLOSE_TOO_BIG ? 413 : 400, why, CLOSE_HANDSHAKE);
}

/* Puts pieces together; false without memory. *data and *len become the whole when end. */
static bool assemble(struct conn *c, struct buf **where, uint64_t max, uint8_t **data, size_t *len)
{
	if (buf_append(&conn_net(c)->bufs, where, *data, (uint32_t)*len, max))
		return false;
	*data = (*where)->data + (*where)->off;
	*len = (*where)->len;
	return true;
}

static enum conn_more on_data(struct conn *c, struct event *ev)
{
	struct net *n = conn_net(c);
	bool whole = ev->start && ev->end, go_on;

	if (!whole) {
		if (!conn_aux_get(c) || !assemble(c, &c->aux->msg, conn_limits(c)->message_max,
						&ev->data, &ev->len)) {
			conn_close(c, WS_CLOSE_TRY_LATER, "out of memory", CLOSE_NO_MEMORY);
			return CONN_MORE_NOTHING;
		}
		if (!ev->end)
			return CONN_MORE_INPUT;
	}
	c->messages_in++;
	n->stats->messages_in++;
	c->last_message_ms = n->w->now_ms;
	go_on = n->ops->message(c, ev->text, ev->data, ev->len);
	if (!whole && c->aux && c->aux->msg) {
		buf_free(&n->bufs, c->aux->msg);
		c->aux->msg = NULL;
	}
	if (c->state != CONN_OPEN)
		return CONN_MORE_NOTHING;
	if (go_on)
		return CONN_MORE_INPUT;
	c->flags |= CONN_PAUSED;
	n->stats->reads_paused++;
	return CONN_MORE_UPSTREAM;
}

static bool control_frame(struct conn *c, bool ping, const uint8_t *data, size_t len)
{
	uint8_t out[WS_SERVER_HEADER_MAX + WS_CONTROL_PAYLOAD_MAX];
	size_t h;

	if (c->protocol == CONN_WEBSOCKET)
		h = ws_header_write(out, ping ? WS_PING : WS_PONG, true, len);
	else
		h = raw_header_write(out, ping ? TG_RAW_PING : TG_RAW_PONG, (uint32_t)len);
	if (len)
		memcpy(out + h, data, len);
	return conn_out_bytes(c, out, h + len);
}

void conn_send_ping(struct conn *c)
{
	struct net *n = conn_net(c);

	n->stats->pings_sent++;
	if (!control_frame(c, true, NULL, 0))
		conn_kill(c, CLOSE_NO_MEMORY);
}

static enum conn_more on_ping(struct conn *c, const uint8_t *data, size_t len)
{
	struct net *n = conn_net(c);
	unsigned limit = conn_limits(c)->pings_per_minute;

	uint16_t window = (uint16_t)(n->w->now_ms / PING_WINDOW_MS);

	if (window != c->ping_window) {
		c->ping_window = window;
		c->pings_in = 0;
	}
	if (limit && c->pings_in++ >= limit) {
		conn_close(c, WS_CLOSE_POLICY, "too many pings", CLOSE_PING_FLOOD);
		return CONN_MORE_NOTHING;
	}
	/* A peer that pings and does not read gets no queue of answers: the cap of the out queue
	 * counts for them too. */
	if (c->out_bytes > conn_limits(c)->out_queue_bytes) {
		conn_close(c, WS_CLOSE_POLICY, "too slow: the out queue is full", CLOSE_OUT_FULL);
		return CONN_MORE_NOTHING;
	}
	if (!control_frame(c, false, data, len)) {
		conn_kill(c, CLOSE_NO_MEMORY);
		return CONN_MORE_NOTHING;
	}
	return CONN_MORE_INPUT;
}

/* The client says goodbye: it gets its own code back, and then our FIN. */
static enum conn_more on_close(struct conn *c, const uint8_t *data, size_t len)
{
	uint8_t out[2 + WS_CONTROL_PAYLOAD_MAX + TG_RAW_HEADER_LEN];
	const uint8_t *text;
	size_t text_len, out_len;
	uint16_t code;

	if (ws_close_parse(data, len, &code, &text, &text_len)) {
		bad_frame(c, code, "malformed close frame");
		return CONN_MORE_NOTHING;
	}
	conn_tell_closed(c, CLOSE_CLIENT, code, text, text_len);
	if (c->protocol == CONN_RAW)
		out_len = raw_close_write(
			out, code == WS_CLOSE_NO_STATUS ? WS_CLOSE_NORMAL : code, "");
	else if (code == WS_CLOSE_NO_STATUS)
		out_len = ws_header_write(out, WS_CLOSE, true, 0);
	else
		out_len = ws_close_write(out, code, "");
	if (conn_out_bytes(c, out, out_len)) {
		c->flags |= CONN_CLOSE_AFTER_FLUSH;
		conn_linger(c, CLOSE_CLIENT);
	} else {
		conn_kill(c, CLOSE_CLIENT);
	}
	return CONN_MORE_NOTHING;
}

static enum conn_more on_control(struct conn *c, struct event *ev)
{
	struct net *n = conn_net(c);
	enum conn_more more = CONN_MORE_INPUT;
	bool whole = ev->start && ev->end;

	if (!whole) {
		if (!conn_aux_get(c) ||
			!assemble(c, &c->aux->ctl, TG_RAW_HELLO_MAX, &ev->data, &ev->len)) {
			conn_kill(c, CLOSE_NO_MEMORY);
			return CONN_MORE_NOTHING;
		}
		if (!ev->end)
			return CONN_MORE_INPUT;
	}
	switch (ev->kind) {
	case EV_PING:
		more = on_ping(c, ev->data, ev->len);
		break;
	case EV_PONG:
		n->stats->pongs_received++;
		break;
	case EV_CLOSE:
		more = on_close(c, ev->data, ev->len);
		break;
	case EV_HELLO:
		more = conn_raw_hello(c, ev->data, ev->len);
		break;
	case EV_DATA:
		break;
	}
	/* A HELLO that is put off stays. */
	if (!whole && c->aux && c->aux->ctl && !(c->flags & CONN_VERIFYING)) {
		buf_free(&n->bufs, c->aux->ctl);
		c->aux->ctl = NULL;
	}
	return more;
}

/* The next event of a WebSocket connection. */
static ssize_t next_ws(struct conn *c, uint8_t *data, size_t len, struct event *ret, bool *ret_has)
{
	struct ws_limits limits = {.message_max = conn_limits(c)->message_max};
	struct ws_event ev;
	const char *why;
	uint16_t code;
	ssize_t used = ws_parse(&c->parser.ws, &limits, data, len, &ev, ret_has, &code, &why);

	if (used < 0) {
		bad_frame(c, code, why);
		return used;
	}
	if (*ret_has) {
		static const uint8_t kinds[] = {
			[WS_EVENT_DATA] = EV_DATA,
			[WS_EVENT_PING] = EV_PING,
			[WS_EVENT_PONG] = EV_PONG,
			[WS_EVENT_CLOSE] = EV_CLOSE,
		};
		*ret = (struct event){kinds[ev.kind], ev.text, ev.start, ev.end, ev.data, ev.len};
	}
	return used;
}

static ssize_t next_raw(struct conn *c, uint8_t *data, size_t len, struct event *ret, bool *ret_has)
{
	struct raw_limits limits = {
		.message_max =
			c->route == CONN_NO_ROUTE ? 0 : (uint32_t)conn_limits(c)->message_max,
		.expect_hello = c->state == CONN_HANDSHAKE,
	};
	struct raw_event ev;
	const char *why;
	uint16_t code;
	ssize_t used = raw_parse(&c->parser.raw, &limits, data, len, &ev, ret_has, &code, &why);

	if (used < 0) {
		bad_frame(c, code, why);
		return used;
	}
	if (*ret_has) {
		static const uint8_t kinds[] = {
			[TG_RAW_HELLO] = EV_HELLO,
			[TG_RAW_TEXT] = EV_DATA,
			[TG_RAW_BINARY] = EV_DATA,
			[TG_RAW_PING] = EV_PING,
			[TG_RAW_PONG] = EV_PONG,
			[TG_RAW_CLOSE] = EV_CLOSE,
		};
		*ret = (struct event){
			kinds[ev.type], ev.type == TG_RAW_TEXT, ev.start, ev.end, ev.data, ev.len};
	}
	return used;
}

/* Frame after frame until the bytes, the budget or the upstream's patience run out. */
static enum conn_more parse_frames(struct conn *c, uint8_t *data, size_t len, size_t *ret_consumed)
{
	struct net *n = conn_net(c);
	struct worker *w = n->w;
	enum conn_more more = CONN_MORE_INPUT;
	size_t at = 0;

	while (at < len) {
		struct event ev;
		bool has = false;
		ssize_t used;

		if (n->turn_frames >= w->opts.turn_frames ||
			(n->turn_frames % CLOCK_EVERY_FRAMES == CLOCK_EVERY_FRAMES - 1 &&
				worker_now(w) > n->turn_end_ns)) {
			more = CONN_MORE_TIME;
			break;
		}
		used = c->protocol == CONN_WEBSOCKET ? next_ws(c, data + at, len - at, &ev, &has)
						     : next_raw(c, data + at, len - at, &ev, &has);
		if (used < 0) {
			more = CONN_MORE_NOTHING;
			break;
		}
		at += (size_t)used;
		if (!has)
			continue;
		n->turn_frames++;
		more = ev.kind == EV_DATA ? on_data(c, &ev) : on_control(c, &ev);
		if (more != CONN_MORE_INPUT)
			break;
	}
	*ret_consumed = at;
	return more;
}

enum conn_more conn_parse(struct conn *c, uint8_t *data, size_t len, size_t *ret_consumed)
{
	enum conn_more more = CONN_MORE_INPUT;
	size_t at = 0, used;

	if (c->state == CONN_PROXY) {
		more = conn_parse_proxy(c, data, len, &used);
		at += used;
		if (c->state != CONN_HANDSHAKE || at == len) {
			*ret_consumed = at;
			return more;
		}
	}
	if (c->state == CONN_HANDSHAKE && c->protocol == CONN_WEBSOCKET) {
		more = conn_parse_http(c, (const uint8_t *)data + at, len - at, &used);
		at += used;
		if (c->state != CONN_OPEN || at == len) {
			*ret_consumed = at;
			return more;
		}
	}
	if (c->state == CONN_OPENING || (c->flags & CONN_VERIFYING)) {
		*ret_consumed = at;
		return CONN_MORE_UPSTREAM;
	}
	more = parse_frames(c, data + at, len - at, &used);
	*ret_consumed = at + used;
	return more;
}
