/* What goes to the service: messages in their turn, OPEN and CLOSE. */
#include "net/link_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool may_send(const struct link_session *s)
{
	switch ((enum session_state)s->state) {
	case SESSION_QUEUED:
	case SESSION_LEAVING:
		return true;
	case SESSION_OPEN:
		return s->pending && link_credit_allows(s->credit, UINT32_MAX, s->link->payload_max,
					     s->pending->len) >= 0;
	case SESSION_WAITING:
	case SESSION_OPENING:
		break;
	}
	return false;
}

void link_session_ready(struct link_session *s)
{
	if (!link_list_empty(&s->on_ready) || !may_send(s))
		return;
	link_list_push(&s->link->ready, &s->on_ready);
	link_kick(s->link);
}

void link_session_resume(struct link_session *s)
{
	if (!s->paused || s->pending_bytes > LINK_PENDING_LOW_BYTES)
		return;
	s->paused = false;
	if (s->conn)
		conn_resume(s->conn);
}

static void pending_sub(struct link_upstream *up, struct link_session *s, uint64_t bytes)
{
	s->pending_bytes -= bytes;
	if (link_session_attached(s))
		s->link->pending_bytes -= bytes;
	else if (!s->link)
		up->buffered -= bytes;
}

void link_pending_pop(struct link_upstream *up, struct link_session *s)
{
	struct buf *b = s->pending;

	pending_sub(up, s, TG_LINK_HEADER_LEN + (uint64_t)b->len);
	s->pending = b->next;
	if (!s->pending)
		s->pending_tail = NULL;
	s->head_started = false;
	buf_free(link_bufs(up), b);
}

unsigned link_session_drop_pending(struct link_upstream *up, struct link_session *s)
{
	unsigned n = 0;

	while (s->pending) {
		link_pending_pop(up, s);
		n++;
	}
	return n;
}

/* One frame of a message into the out queue. */
static bool put_part(struct link_session *s, bool text, bool more, const uint8_t *data, size_t len)
{
	struct link *l = s->link;
	uint32_t cost = link_cost((uint32_t)len);
	uint8_t *out = link_out(l, cost);

	if (!out)
		return false;
	link_header_write(out, &(struct link_header){
				       .length = (uint32_t)len,
				       .type = TG_LINK_MESSAGE,
				       .flags = (uint8_t)((text ? TG_LINK_FLAG_TEXT : 0) |
							  (more ? TG_LINK_FLAG_MORE : 0)),
				       .session = s->id,
			       });
	if (len)
		memcpy(out + TG_LINK_HEADER_LEN, data, len);
	link_out_done(l, cost);
	s->credit -= cost;
	l->credit -= cost;
	s->unpaid.part += cost;
	if (!more) {
		link_unpaid_add(&s->unpaid, s->unpaid.part);
		s->unpaid.part = 0;
		s->sent++;
	}
	return true;
}

/* The next part of what is pending; false: no credit, or the link is over. */
static bool send_part(struct link_upstream *up, struct link_session *s)
{
	struct link *l = s->link;
	struct buf *b = s->pending;
	ssize_t n = link_credit_allows(s->credit, l->credit, l->payload_max, b->len);
	bool more;

	if (n < 0)
		return false;
	more = (size_t)n < b->len;
	if (!put_part(s, b->data[0], more, b->data + b->off, (size_t)n))
		return false;
	if (more) {
		b->off += (uint32_t)n;
		b->len -= (uint32_t)n;
		s->head_started = true;
		pending_sub(up, s, (uint64_t)n);
	} else {
		link_pending_pop(up, s);
	}
	return true;
}

static bool send_open(struct link_session *s)
{
	struct link *l = s->link;
	struct link_header h = {.length = s->meta_len, .type = TG_LINK_OPEN, .session = s->id};
	char history[LINK_HISTORY_MAX];
	uint8_t *out = link_out(l, TG_LINK_HEADER_LEN + s->meta_len + sizeof history);

	if (!out)
		return false;
	memcpy(out + TG_LINK_HEADER_LEN, s->meta, s->meta_len);
	if (s->was_open) {
		/* In place of the object's closing brace. */
		int n = snprintf(history, sizeof history,
			",\"resumed\":true,\"sent\":%" PRIu64 ",\"received\":%" PRIu64 "}", s->sent,
			s->received);

		memcpy(out + TG_LINK_HEADER_LEN + s->meta_len - 1, history, (size_t)n);
		h.flags = TG_LINK_FLAG_RESUMED;
		h.length += (uint32_t)n - 1;
	}
	link_header_write(out, &h);
	link_out_done(l, TG_LINK_HEADER_LEN + h.length);
	s->credit = l->session_window;
	s->state = SESSION_OPENING;
	return true;
}

bool link_send_close(struct link *l, uint64_t id, uint16_t code, const char *reason, size_t len)
{
	struct link_close close = {.code = code, .reason = reason, .reason_len = len};
	uint8_t *out = link_out(l, LINK_CLOSE_FRAME_MAX);

	if (!out)
		return false;
	link_out_done(l, link_close_write(out, id, &close));
	return true;
}

/* What a client that is gone had said is sent while credit lasts, and not waited for. */
static void leave(struct link_upstream *up, struct link_session *s)
{
	struct link *l = s->link;

	if (s->pending && send_part(up, s) && s->pending) {
		link_session_ready(s);
		return;
	}
	if (l->state != LINK_UP)
		return; /* an orphan now */
	link_stats(up)->link_messages_lost += link_session_drop_pending(up, s);
	if (link_send_close(l, s->id, s->close_code, s->meta, s->meta_len))
		link_session_free(up, s);
}

void link_stage(struct link *l)
{
	struct link_upstream *up = l->up;

	while (l->state == LINK_UP && l->out_bytes < LINK_STAGE_BYTES &&
		!link_list_empty(&l->ready)) {
		struct link_session *s = LINK_SESSION_OF(l->ready.next, on_ready);

		if (s->state == SESSION_OPEN && link_credit_allows(s->credit, l->credit,
							l->payload_max, s->pending->len) < 0)
			return; /* the link's credit is used up: it would not be here without its
				   own */
		link_list_remove(&s->on_ready);
		if (s->state == SESSION_LEAVING) {
			leave(up, s);
			continue;
		}
		if (s->state == SESSION_QUEUED ? send_open(s) : send_part(up, s)) {
			link_session_ready(s);
			link_session_resume(s);
		}
	}
}

bool link_send_now(struct link_session *s, bool text, const uint8_t *data, size_t len)
{
	struct link *l = s->link;
	ssize_t n;

	/* Those who wait already come first. */
	if (s->state != SESSION_OPEN || s->pending || !link_list_empty(&l->ready) ||
		l->out_bytes >= LINK_STAGE_BYTES)
		return false;
	n = link_credit_allows(s->credit, l->credit, l->payload_max, len);
	return n >= 0 && (size_t)n == len && put_part(s, text, false, data, len);
}

bool link_hold(struct link_upstream *up, struct link_session *s, bool text, const uint8_t *data,
	size_t len)
{
	struct buf *b = buf_alloc(link_bufs(up), len + 1);
	uint64_t bytes = TG_LINK_HEADER_LEN + (uint64_t)len;

	if (!b)
		return false;
	b->data[0] = text;
	b->off = 1;
	b->len = (uint32_t)len;
	if (len)
		memcpy(b->data + 1, data, len);
	if (s->pending_tail)
		s->pending_tail->next = b;
	else
		s->pending = b;
	s->pending_tail = b;
	s->pending_bytes += bytes;
	if (s->link)
		s->link->pending_bytes += bytes;
	else
		up->buffered += bytes;
	return true;
}

/* Cost of all that is pending. */
static uint64_t pending_cost(const struct link_session *s)
{
	uint64_t cost = 0;

	for (const struct buf *b = s->pending; b; b = b->next)
		cost += b->len + (uint64_t)TG_LINK_HEADER_LEN * (1 + b->len / s->link->payload_max);
	return cost;
}

/* The client is gone with messages still to be sent, and there is credit for them: they go, each
 * part in its turn. */
bool link_session_stay(struct link_upstream *up, struct link_session *s, uint16_t code,
	const uint8_t *text, size_t text_len)
{
	uint64_t cost = pending_cost(s);

	if (!s->pending || cost > s->credit || cost > s->link->credit)
		return false;
	link_table_remove(&up->table, s);
	s->state = SESSION_LEAVING;
	s->close_code = code;
	free(s->meta);
	s->meta = NULL;
	s->meta_len = 0;
	if (text_len && (s->meta = malloc(text_len))) {
		memcpy(s->meta, text, text_len);
		s->meta_len = (uint32_t)text_len;
	}
	link_session_ready(s);
	return true;
}
