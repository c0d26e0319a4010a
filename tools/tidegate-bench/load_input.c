#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load_conn.h"

static void control_send(
	struct load_thread *t, struct load_conn *c, bool close, const uint8_t *data, size_t len)
{
	static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d};
	struct load_extra *x = load_extra_get(c);

	if (!x || x->control_out_len + WS_HEADER_MAX + len > sizeof x->control_out)
		return; /* as RFC 6455 5.5.3 allows, an older ping goes unanswered when newer ones
			   follow */
	uint8_t *out = x->control_out + x->control_out_len;
	size_t n;
	if (t->load->opts->raw) {
		n = raw_header_write(out, close ? TG_RAW_CLOSE : TG_RAW_PONG, (uint32_t)len);
		memcpy(out + n, data, len);
	} else {
		n = ws_header_write_masked(out, close ? WS_CLOSE : WS_PONG, true, len, mask);
		for (size_t i = 0; i < len; i++)
			out[n + i] = data[i] ^ mask[i & 3];
	}
	x->control_out_len += n + len;
	load_send_wanted(t, c);
}

/* A ping or close frame, put together when it came in pieces. */
static void on_control(
	struct load_thread *t, struct load_conn *c, bool close, const struct load_piece *p)
{
	const uint8_t *data = p->data;
	size_t len = p->len;

	if (!p->start || !p->end) {
		struct load_extra *x = load_extra_get(c);
		if (!x || x->control_in_len + len > sizeof x->control_in)
			return;
		if (len)
			memcpy(x->control_in + x->control_in_len, data, len);
		x->control_in_len += (uint8_t)len;
		if (!p->end)
			return;
		data = x->control_in;
		len = x->control_in_len;
		x->control_in_len = 0;
	}
	if (close) {
		if (!t->first_failure[0] && len >= 2)
			snprintf(t->first_failure, sizeof t->first_failure,
				"connection %u: closed by the server with %u %.*s",
				load_conn_number(t, c), data[0] << 8 | data[1], (int)(len - 2),
				data + 2);
		c->state = LOAD_CLOSING;
		control_send(t, c, true, data, len < 2 ? 0 : 2);
	} else {
		load_count(&t->count.pings, 1);
		control_send(t, c, false, data, len);
	}
}

static void on_opened(struct load_thread *t, struct load_conn *c)
{
	c->state = LOAD_OPEN;
	t->in_flight--;
	load_count(&t->count.opened, 1);
	atomic_store_explicit(&t->count.last_open_ns, load_now_ns(), memory_order_relaxed);
	if (t->ops->on_open)
		t->ops->on_open(t, c);
}

static void on_ws_event(struct load_thread *t, struct load_conn *c, const struct ws_event *ev)
{
	struct load_piece p = {ev->data, ev->len, ev->text, ev->start, ev->end};

	if (ev->kind == WS_EVENT_DATA && t->ops->on_message)
		t->ops->on_message(t, c, &p);
	else if (ev->kind == WS_EVENT_PING || ev->kind == WS_EVENT_CLOSE)
		on_control(t, c, ev->kind == WS_EVENT_CLOSE, &p);
}

static void on_raw_event(struct load_thread *t, struct load_conn *c, const struct raw_event *ev)
{
	struct load_piece p = {ev->data, ev->len, ev->type == TG_RAW_TEXT, ev->start, ev->end};

	if (c->state == LOAD_HANDSHAKE && ev->type != TG_RAW_WELCOME)
		load_conn_fail(t, c, "the handshake was refused",
			ev->type == TG_RAW_CLOSE ? "CLOSE" : "no WELCOME");
	else if (ev->type == TG_RAW_WELCOME && c->state == LOAD_HANDSHAKE && ev->end)
		on_opened(t, c);
	else if ((ev->type == TG_RAW_TEXT || ev->type == TG_RAW_BINARY) && t->ops->on_message)
		t->ops->on_message(t, c, &p);
	else if (ev->type == TG_RAW_PING || ev->type == TG_RAW_CLOSE)
		on_control(t, c, ev->type == TG_RAW_CLOSE, &p);
}

static ssize_t parse_one(
	struct load_thread *t, struct load_conn *c, uint8_t *data, size_t len, const char **ret_why)
{
	static const struct ws_limits ws_limits = {.message_max = 1ull << 31, .client = true};
	static const struct raw_limits raw_limits = {.message_max = 1u << 31, .client = true};
	uint16_t code;
	bool has_event;
	ssize_t n;

	if (t->load->opts->raw) {
		struct raw_event ev;
		n = raw_parse(
			&c->parser.raw, &raw_limits, data, len, &ev, &has_event, &code, ret_why);
		if (n > 0 && has_event)
			on_raw_event(t, c, &ev);
	} else {
		struct ws_event ev;
		n = ws_parse(&c->parser.ws, &ws_limits, data, len, &ev, &has_event, &code, ret_why);
		if (n > 0 && has_event)
			on_ws_event(t, c, &ev);
	}
	return n;
}

/* Whole messages that the workload recognises; 0 inside a frame. */
static size_t skip(
	struct load_thread *t, const struct load_conn *c, const uint8_t *data, size_t len)
{
	bool idle = t->load->opts->raw ? raw_parser_idle(&c->parser.raw)
				       : ws_parser_idle(&c->parser.ws);

	return t->ops->skip && idle && c->state == LOAD_OPEN ? t->ops->skip(t, data, len) : 0;
}

static void on_frames(struct load_thread *t, struct load_conn *c, uint8_t *data, size_t len)
{
	uint16_t gen = c->gen;

	while (len && c->gen == gen && c->state != LOAD_CLOSING) {
		const char *why = "";
		size_t skipped = skip(t, c, data, len);
		data += skipped;
		len -= skipped;
		ssize_t n = len ? parse_one(t, c, data, len, &why) : 0;
		if (n < 0) {
			load_count(&t->count.bad_data, 1);
			load_conn_fail(t, c, "malformed frame from the server", why);
			return;
		}
		data += n;
		len -= (size_t)n;
	}
}

/* The HTTP answer; the bytes behind it are frames already. */
static void on_answer(struct load_thread *t, struct load_conn *c, uint8_t *data, size_t len)
{
	struct load_extra *x = c->extra;
	uint8_t *whole = NULL;
	const char *why;
	unsigned status;

	if (x && x->in_len) {
		whole = realloc(x->in, x->in_len + len);
		if (!whole) {
			load_conn_fail(t, c, "no memory", "");
			return;
		}
		memcpy(whole + x->in_len, data, len);
		data = whole;
		len += x->in_len;
		x->in = NULL;
		x->in_len = 0;
	}
	uint16_t gen = c->gen;
	ssize_t n = handshake_answer((const char *)data, len, &why, &status);
	if (n < 0) {
		char text[32] = "";
		if (status)
			snprintf(text, sizeof text, "status %u", status);
		load_conn_fail(t, c, why, text);
	} else if (n > 0) {
		on_opened(t, c);
		if (c->gen == gen)
			on_frames(t, c, data + n, len - (size_t)n);
	} else {
		x = load_extra_get(c);
		x->in = whole ? whole : malloc(len);
		if (x->in) {
			memmove(x->in, data, len);
			x->in_len = len;
		}
		whole = NULL;
	}
	free(whole);
}

void load_bytes(struct load_thread *t, struct load_conn *c, uint8_t *data, size_t len)
{
	if (c->state == LOAD_HANDSHAKE && !t->load->opts->raw)
		on_answer(t, c, data, len);
	else if (c->state != LOAD_CLOSING)
		on_frames(t, c, data, len);
	load_extra_tidy(c);
}
