/* Sessions: their table, the queue towards the gateway, credit, and the public calls on them. */
#include "internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static unsigned bucket(const struct tg_link *l, uint64_t id)
{
	/* Ids count up: Fibonacci hashing (Knuth, TAOCP 3, 6.4) spreads them. */
	return (unsigned)(id * UINT64_C(0x9e3779b97f4a7c15) >> (64 - l->table_bits));
}

struct tg_link_session *tgl_session_find(const struct tg_link *l, uint64_t id)
{
	struct tg_link_session *s = l->table[bucket(l, id)];
	while (s && s->id != id)
		s = s->hash_next;
	return s;
}

/* Without memory the table stays as it is, with longer chains. */
static void table_grow(struct tg_link *l)
{
	struct tg_link_session **table = calloc((size_t)2 << l->table_bits, sizeof(*table)), *s;
	if (!table)
		return;
	free(l->table);
	l->table = table;
	l->table_bits++;
	TAILQ_FOREACH(s, &l->sessions, on_link)
	{
		struct tg_link_session **at = &l->table[bucket(l, s->id)];
		s->hash_next = *at;
		*at = s;
	}
}

struct tg_link_session *tgl_session_create(
	struct tg_link *l, uint64_t id, const uint8_t *meta, size_t meta_len)
{
	struct tg_link_session *s = calloc(1, sizeof(*s) + meta_len + 1);
	if (!s)
		return NULL;
	s->link = l;
	s->id = id;
	s->out_tail = &s->out_head;
	s->credit = l->session_window;
	s->manual = l->server->opts.manual_credit;
	s->meta_len = meta_len;
	memcpy(s->meta, meta, meta_len);
	if (l->n_sessions >> l->table_bits)
		table_grow(l);
	struct tg_link_session **at = &l->table[bucket(l, id)];
	s->hash_next = *at;
	*at = s;
	TAILQ_INSERT_TAIL(&l->sessions, s, on_link);
	l->n_sessions++;
	l->server->stats.sessions++;
	return s;
}

static void drop_queue(struct tg_link_session *s)
{
	for (struct tgl_msg *m; (m = s->out_head);) {
		s->out_head = m->next;
		free(m);
	}
	s->out_tail = &s->out_head;
	s->link->server->stats.queued_bytes -= s->queued;
	s->queued = 0;
}

void tgl_session_free(struct tg_link_session *s)
{
	free(s->end_reason);
	free(s);
}

static void set_reason(struct tg_link_session *s, const char *reason, size_t len)
{
	free(s->end_reason);
	s->end_reason = len ? strndup(reason, len) : NULL; /* without memory: no reason */
}

void tgl_session_end(struct tg_link_session *s, enum tg_link_end by, uint16_t code,
	const char *reason, size_t len)
{
	struct tg_link *l = s->link;
	struct tg_link_server *server = l->server;
	assert(s->state != TGL_ENDED);
	struct tg_link_session **at = &l->table[bucket(l, s->id)];
	while (*at != s)
		at = &(*at)->hash_next;
	*at = s->hash_next;
	TAILQ_REMOVE(&l->sessions, s, on_link);
	l->n_sessions--;
	tgl_session_unready(s);
	drop_queue(s);
	server->stats.assembly_bytes -= s->parts_cap;
	free(s->parts);
	s->parts = NULL;
	s->parts_len = s->parts_cap = 0;
	server->stats.sessions--;
	server->stats.closed++;
	s->state = TGL_ENDED;
	s->end_by = by;
	s->end_code = code;
	if (reason != s->end_reason)
		set_reason(s, reason, len);
	TAILQ_INSERT_TAIL(&server->ended, s, on_link);
	if (!server->dispatching)
		tgl_wake(server);
}

static void send_close(
	struct tg_link_session *s, uint16_t code, const char *reason, uint32_t delay_ms)
{
	struct link_close c = {
		.code = code,
		.reconnect_delay_ms = delay_ms,
		.reason = reason,
		.reason_len = reason ? strlen(reason) : 0,
	};
	uint8_t *out = tgl_out_reserve(s->link, LINK_CLOSE_FRAME_MAX);
	if (out)
		tgl_out_commit(s->link, link_close_write(out, s->id, &c));
}

void tgl_session_abort(struct tg_link_session *s, uint16_t code, const char *reason)
{
	send_close(s, code, reason, 0);
	if (s->state != TGL_ENDED)
		tgl_session_end(s, TG_LINK_END_SERVICE, code, reason, strlen(reason));
}

void tgl_session_ready(struct tg_link_session *s)
{
	const struct tgl_msg *m = s->out_head;
	if (s->ready || (!m && s->state != TGL_CLOSING))
		return;
	if (m && link_credit_allows(
			 s->credit, UINT32_MAX, s->link->payload_max, m->len - m->staged) < 0)
		return;
	s->ready = true;
	TAILQ_INSERT_TAIL(&s->link->ready, s, on_ready);
	tgl_dirty(s->link);
}

void tgl_session_unready(struct tg_link_session *s)
{
	if (!s->ready)
		return;
	s->ready = false;
	TAILQ_REMOVE(&s->link->ready, s, on_ready);
}

/* The head of the queue is on its way. */
static void message_staged(struct tg_link_session *s)
{
	struct tg_link_server *server = s->link->server;
	struct tgl_msg *m = s->out_head;
	s->out_head = m->next;
	if (!s->out_head)
		s->out_tail = &s->out_head;
	s->queued -= TG_LINK_HEADER_LEN;
	server->stats.queued_bytes -= TG_LINK_HEADER_LEN;
	s->messages_out++;
	server->stats.messages_out++;
	server->stats.bytes_out += m->len;
	free(m);
}

static void owe_writable(struct tg_link_session *s)
{
	struct tg_link_server *server = s->link->server;
	if (!s->send_refused || s->state != TGL_OPEN || s->queued > server->opts.send_queue_max / 2)
		return;
	s->send_refused = false;
	if (s->writable_due)
		return;
	s->writable_due = true;
	TAILQ_INSERT_TAIL(&server->writable, s, on_writable);
}

bool tgl_session_stage(struct tg_link_session *s)
{
	struct tg_link *l = s->link;
	struct tgl_msg *m = s->out_head;
	if (!m) {
		send_close(s, s->end_code, s->end_reason, s->end_delay_ms);
		if (s->state != TGL_ENDED)
			tgl_session_end(s, TG_LINK_END_SERVICE, s->end_code, s->end_reason, 0);
		return l->state == TGL_LINK_UP;
	}
	size_t left = m->len - m->staged;
	ssize_t n = link_credit_allows(s->credit, l->credit, l->payload_max, left);
	if (n < 0)
		return false;
	uint8_t *out = tgl_out_reserve(l, TG_LINK_HEADER_LEN + (size_t)n);
	if (!out)
		return false;
	bool more = (size_t)n < left;
	link_header_write(out, &(struct link_header){.length = (uint32_t)n,
				       .type = TG_LINK_MESSAGE,
				       .session = s->id,
				       .flags = (uint8_t)((m->text ? TG_LINK_FLAG_TEXT : 0) |
							  (more ? TG_LINK_FLAG_MORE : 0))});
	memcpy(out + TG_LINK_HEADER_LEN, m->data + m->staged, (size_t)n);
	tgl_out_commit(l, TG_LINK_HEADER_LEN + (size_t)n);
	m->staged += (size_t)n;
	s->queued -= (size_t)n;
	l->server->stats.queued_bytes -= (size_t)n;
	s->credit -= link_cost((uint32_t)n);
	l->credit -= link_cost((uint32_t)n);
	if (!more)
		message_staged(s);
	/* To the back of the line, if it may send at all. */
	tgl_session_unready(s);
	tgl_session_ready(s);
	owe_writable(s);
	return true;
}

void tgl_session_credit(struct tg_link_session *s, uint32_t cost)
{
	link_window_consume(&s->window, cost);
	uint32_t grant = link_window_grant(&s->window, s->link->server->opts.session_window);
	uint8_t *out = grant ? tgl_out_reserve(s->link, LINK_CREDIT_FRAME_LEN) : NULL;
	if (out)
		tgl_out_commit(s->link, link_credit_write(out, s->id, grant));
}

void tgl_session_consume(struct tg_link_session *s, uint64_t bytes)
{
	uint64_t cost = s->delivered_cost;
	/* Cost is at most 2^30 (a window), payload below 2^33 (and a message): no overflow. */
	if (bytes < s->delivered_payload)
		cost = cost * bytes / s->delivered_payload;
	s->delivered_cost -= cost;
	s->delivered_payload -= bytes;
	if (s->delivered_cost == 0 && s->in_message) {
		cost += s->unpaid;
		s->unpaid = 0;
	}
	if (cost)
		tgl_session_credit(s, (uint32_t)cost);
}

int tg_link_accept(struct tg_link_session *s, const char *subprotocol)
{
	size_t len = subprotocol ? strlen(subprotocol) : 0;
	if (s->state != TGL_OPENING)
		return s->state == TGL_OPEN ? -EALREADY : -EPIPE;
	if (subprotocol && !link_subprotocol_valid(subprotocol, len))
		return -EINVAL;
	uint8_t *out = tgl_out_reserve(s->link, LINK_ACCEPT_FRAME_MAX);
	if (!out)
		return -ENOMEM;
	tgl_out_commit(s->link, link_accept_write(out, s->id, subprotocol, len));
	s->state = TGL_OPEN;
	s->link->server->stats.accepted++;
	return 0;
}

static bool reason_valid(const char *reason)
{
	return !reason || !*reason || link_reason_fit(reason, strlen(reason)) > 0;
}

int tg_link_reject(struct tg_link_session *s, uint16_t status, const char *reason)
{
	if (s->state != TGL_OPENING)
		return s->state == TGL_OPEN ? -EALREADY : -EPIPE;
	if (status < 400 || status > 599 || !reason_valid(reason))
		return -EINVAL;
	size_t len = reason ? link_reason_fit(reason, strlen(reason)) : 0;
	uint8_t *out = tgl_out_reserve(s->link, LINK_REJECT_FRAME_MAX);
	if (!out)
		return -ENOMEM;
	tgl_out_commit(s->link, link_reject_write(out, s->id, status, reason, len));
	s->link->server->stats.rejected++;
	tgl_session_end(s, TG_LINK_END_SERVICE, status, reason, len);
	return 0;
}

static int writable_state(const struct tg_link_session *s)
{
	return s->state == TGL_OPEN ? 0 : s->state == TGL_OPENING ? -ENOTCONN : -EPIPE;
}

int tg_link_send(struct tg_link_session *s, const void *data, size_t len, bool text)
{
	struct tg_link_server *server = s->link->server;
	int err = writable_state(s);
	if (err)
		return err;
	if (len > s->link->message_max)
		return -EMSGSIZE;
	size_t cost = len + TG_LINK_HEADER_LEN;
	if (s->queued > 0 && s->queued + cost > server->opts.send_queue_max) {
		s->send_refused = true;
		server->stats.send_refused++;
		return -EAGAIN;
	}
	struct tgl_msg *m = malloc(sizeof(*m) + len);
	if (!m)
		return -ENOMEM;
	*m = (struct tgl_msg){.len = len, .text = text};
	if (len)
		memcpy(m->data, data, len);
	*s->out_tail = m;
	s->out_tail = &m->next;
	s->queued += cost;
	server->stats.queued_bytes += cost;
	tgl_session_ready(s);
	return 0;
}

int tg_link_close(
	struct tg_link_session *s, uint16_t code, const char *reason, uint32_t reconnect_delay_ms)
{
	int err = writable_state(s);
	if (err)
		return err;
	if (!link_close_code_valid(code, LINK_FROM_SERVICE) || !reason_valid(reason))
		return -EINVAL;
	s->state = TGL_CLOSING;
	s->end_code = code;
	s->end_delay_ms = reconnect_delay_ms;
	set_reason(s, reason, reason ? link_reason_fit(reason, strlen(reason)) : 0);
	tgl_session_ready(s);
	return 0;
}

void tg_link_session_set_manual(struct tg_link_session *s, bool manual)
{
	s->manual = manual;
	if (!manual && s->state != TGL_ENDED)
		tgl_session_consume(s, s->delivered_payload);
}

int tg_link_consume(struct tg_link_session *s, size_t bytes)
{
	if (bytes > s->delivered_payload)
		return -ERANGE;
	if (s->state != TGL_ENDED)
		tgl_session_consume(s, bytes);
	return 0;
}

static int topic_frame(struct tg_link_session *s, enum tg_link_type type, const char *topic)
{
	size_t len = strlen(topic);
	int err = writable_state(s);
	if (err)
		return err;
	if (!link_topic_valid(topic, len))
		return -EINVAL;
	if (!(s->link->features & TG_LINK_FEATURE_TOPICS))
		return -EOPNOTSUPP;
	uint8_t *out = tgl_out_reserve(s->link, LINK_TOPIC_FRAME_MAX);
	if (!out)
		return -ENOMEM;
	tgl_out_commit(s->link, link_topic_write(out, type, s->id, topic, len));
	return 0;
}

int tg_link_subscribe(struct tg_link_session *s, const char *topic)
{
	return topic_frame(s, TG_LINK_SUBSCRIBE, topic);
}

int tg_link_unsubscribe(struct tg_link_session *s, const char *topic)
{
	return topic_frame(s, TG_LINK_UNSUBSCRIBE, topic);
}

int tg_link_publish(
	struct tg_link *link, const char *topic, const void *data, size_t len, bool text)
{
	size_t topic_len = strlen(topic);
	if (link->state != TGL_LINK_UP)
		return -EPIPE;
	if (!link_topic_valid(topic, topic_len))
		return -EINVAL;
	if (!(link->features & TG_LINK_FEATURE_TOPICS))
		return -EOPNOTSUPP;
	uint32_t cost = link_cost((uint32_t)(1 + topic_len + len));
	if (len > TG_LINK_MESSAGE_PAYLOAD_MAX || cost > link->link_window)
		return -EMSGSIZE;
	if (cost > link->credit || tgl_buf_len(&link->out) > TGL_BACKLOG_MAX)
		return -EAGAIN;
	uint8_t *out = tgl_out_reserve(link, LINK_PUBLISH_HEAD_MAX + len);
	if (!out)
		return -ENOMEM;
	size_t head = link_publish_write(out, topic, topic_len, len, text);
	if (len)
		memcpy(out + head, data, len);
	link->credit -= cost;
	tgl_out_commit(link, head + len);
	return 0;
}

uint64_t tg_link_session_id(const struct tg_link_session *s)
{
	return s->id;
}

struct tg_link *tg_link_session_link(const struct tg_link_session *s)
{
	return s->link;
}

bool tg_link_session_resumed(const struct tg_link_session *s)
{
	return s->resumed;
}

size_t tg_link_session_queued(const struct tg_link_session *s)
{
	return s->queued;
}

void tg_link_session_set_data(struct tg_link_session *s, void *data)
{
	s->data = data;
}

void *tg_link_session_data(const struct tg_link_session *s)
{
	return s->data;
}

const char *tg_link_session_metadata(const struct tg_link_session *s, size_t *ret_len)
{
	if (ret_len)
		*ret_len = s->meta_len;
	return s->meta;
}

ssize_t tg_link_session_meta(const struct tg_link_session *s, const char *object, const char *key,
	char *out, size_t out_size)
{
	return tgl_json_string(s->meta, object, key, out, out_size);
}
