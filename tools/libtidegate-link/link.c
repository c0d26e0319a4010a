/* One link's bytes: receiving, the out buffer and what is put into it, time-outs, failure. */
#include "internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	TABLE_BITS_MIN = 4,
};

/* Tells epoll what the link waits for, when that has changed. */
static void update_events(struct tg_link *l)
{
	uint32_t want = 0;
	if (l->state == TGL_LINK_LINGER ||
		(l->state <= TGL_LINK_UP && tgl_buf_len(&l->out) < TGL_BACKLOG_MAX))
		want |= EPOLLIN;
	if (tgl_buf_len(&l->out) > 0)
		want |= EPOLLOUT;
	if (want == l->events)
		return;
	struct epoll_event ev = {.events = want, .data.ptr = l};
	if (epoll_ctl(l->server->epoll_fd, EPOLL_CTL_MOD, l->source.fd, &ev) == 0)
		l->events = want;
}

static void send_hello(struct tg_link *l)
{
	const struct tg_link_server *server = l->server;
	struct link_hello h = {
		.session_window = server->opts.session_window,
		.link_window = server->opts.link_window,
		.payload_max = TG_LINK_MESSAGE_PAYLOAD_MAX,
		.message_max = server->opts.message_max,
		.name = server->name,
		.name_len = strlen(server->name),
	};
	uint8_t *out = tgl_out_reserve(l, LINK_HELLO_FRAME_MAX);
	if (out)
		tgl_out_commit(l, link_hello_write(out, &h));
}

int tgl_link_create(struct tg_link_server *server, int fd, struct tg_link **ret)
{
	int err = -ENOMEM;
	struct tg_link *l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->source = (struct tgl_source){TGL_LINK, fd};
	l->server = server;
	TAILQ_INIT(&l->sessions);
	TAILQ_INIT(&l->ready);
	l->table_bits = TABLE_BITS_MIN;
	l->table = calloc((size_t)1 << l->table_bits, sizeof(*l->table));
	l->in = (struct tgl_buf){.data = malloc(TGL_IN_BYTES), .cap = TGL_IN_BYTES};
	l->out = (struct tgl_buf){.data = malloc(TGL_STAGE_BYTES), .cap = TGL_STAGE_BYTES};
	if (!l->table || !l->in.data || !l->out.data)
		goto err_link;
	l->events = EPOLLIN;
	struct epoll_event ev = {.events = l->events, .data.ptr = l};
	if (epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, fd, &ev)) {
		err = -errno;
		goto err_link;
	}
	l->since_ms = l->heard_ms = tgl_now_ms();
	TAILQ_INSERT_TAIL(&server->links, l, on_server);
	server->n_links++;
	server->stats.links_accepted++;
	tgl_tick_update(server);
	send_hello(l);
	*ret = l;
	return 0;

err_link:
	l->source.fd = -1; /* stays the caller's */
	tgl_link_free(l);
	return err;
}

void tgl_link_free(struct tg_link *l)
{
	if (l->source.fd >= 0)
		close(l->source.fd);
	free(l->table);
	free(l->in.data);
	free(l->out.data);
	free(l);
}

void tgl_link_kill(struct tg_link *l)
{
	struct tg_link_server *server = l->server;
	close(l->source.fd);
	l->source.fd = -1;
	l->state = TGL_LINK_DEAD;
	if (l->dirty)
		TAILQ_REMOVE(&server->dirty, l, on_dirty);
	l->dirty = false;
	TAILQ_REMOVE(&server->links, l, on_server);
	TAILQ_INSERT_TAIL(&server->dead, l, on_server);
}

void tgl_dirty(struct tg_link *l)
{
	if (l->dirty || l->state == TGL_LINK_DEAD)
		return;
	l->dirty = true;
	TAILQ_INSERT_TAIL(&l->server->dirty, l, on_dirty);
	if (!l->server->dispatching)
		tgl_wake(l->server);
}

uint8_t *tgl_out_reserve(struct tg_link *l, size_t n)
{
	struct tgl_buf *b = &l->out;
	if (b->cap - b->tail >= n)
		return b->data + b->tail;
	if (b->head > 0) {
		memmove(b->data, b->data + b->head, tgl_buf_len(b));
		b->tail -= b->head;
		b->head = 0;
	}
	if (b->cap - b->tail < n) {
		size_t cap = b->cap ? b->cap : TGL_STAGE_BYTES;
		while (cap - b->tail < n)
			cap *= 2;
		uint8_t *data = realloc(b->data, cap);
		if (!data) {
			tgl_fail(l, -1, false, "out of memory");
			return NULL;
		}
		b->data = data;
		b->cap = cap;
	}
	return b->data + b->tail;
}

void tgl_out_commit(struct tg_link *l, size_t n)
{
	l->out.tail += n;
	l->server->stats.frames_out++;
	tgl_dirty(l);
}

/* One send of what is in the out buffer. True when all of it went. */
static bool send_some(struct tg_link *l)
{
	struct tgl_buf *b = &l->out;
	while (tgl_buf_len(b) > 0) {
		ssize_t n = send(l->source.fd, b->data + b->head, tgl_buf_len(b),
			MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
			b->head = b->tail = 0; /* nobody will read it */
			tgl_fail(l, -1, false, "send: %s", strerror(errno));
			return false;
		}
		if (n < 0)
			return false;
		b->head += (size_t)n;
	}
	b->head = b->tail = 0;
	if (b->cap > TGL_OUT_KEEP_BYTES) {
		free(b->data);
		*b = (struct tgl_buf){0};
	}
	return true;
}

/* Answers a PING, grants link credit, then lets the ready sessions take turns of one frame. */
static void stage(struct tg_link *l)
{
	uint8_t *out;
	if (l->state != TGL_LINK_UP)
		return;
	if (l->pong_due && (out = tgl_out_reserve(l, LINK_PING_FRAME_LEN))) {
		l->pong_due = false;
		tgl_out_commit(l, link_ping_write(out, TG_LINK_PONG, l->pong));
	}
	uint32_t grant = link_window_grant(&l->window, l->server->opts.link_window);
	if (grant && (out = tgl_out_reserve(l, LINK_CREDIT_FRAME_LEN)))
		tgl_out_commit(l, link_credit_write(out, 0, grant));
	struct tg_link_session *s;
	while (tgl_buf_len(&l->out) < TGL_STAGE_BYTES && (s = TAILQ_FIRST(&l->ready))) {
		if (!tgl_session_stage(s))
			break;
	}
}

void tgl_flush(struct tg_link *l)
{
	if (l->state == TGL_LINK_DEAD)
		return;
	for (size_t sent = 0; sent < TGL_FLUSH_BYTES;) {
		stage(l);
		size_t len = tgl_buf_len(&l->out);
		if (len == 0 || !send_some(l))
			break;
		sent += len;
	}
	if (l->state == TGL_LINK_DEAD)
		return;
	/* Staging made the link dirty again; what is left now waits for EPOLLOUT, for credit, or
	 * for another round. */
	bool more = tgl_buf_len(&l->out) == 0 && !TAILQ_EMPTY(&l->ready) &&
		    l->state == TGL_LINK_UP && l->credit > TG_LINK_HEADER_LEN;
	if (l->dirty && !more) {
		l->dirty = false;
		TAILQ_REMOVE(&l->server->dirty, l, on_dirty);
	}
	if (l->state == TGL_LINK_LINGER && tgl_buf_len(&l->out) == 0 && !l->shut) {
		shutdown(l->source.fd, SHUT_WR);
		l->shut = true;
	}
	update_events(l);
}

void tgl_fail(struct tg_link *l, int error, bool protocol_error, const char *fmt, ...)
{
	struct tg_link_server *server = l->server;
	if (l->state > TGL_LINK_UP)
		return;
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(l->why, sizeof(l->why), fmt, ap);
	va_end(ap);
	bool was_up = l->state == TGL_LINK_UP;
	l->state = TGL_LINK_FAILED;
	l->since_ms = tgl_now_ms();
	l->protocol_error = protocol_error;
	server->n_links--;
	server->stats.links -= was_up;
	server->stats.links_down += was_up;
	server->stats.protocol_errors += protocol_error;
	uint8_t *out = error >= 0 ? tgl_out_reserve(l, LINK_ERROR_FRAME_MAX) : NULL;
	if (out)
		tgl_out_commit(l, link_error_write(out, (enum tg_link_error)error, l->why));
	else
		l->out.head = l->out.tail = 0;
	for (struct tg_link_session *s; (s = TAILQ_FIRST(&l->sessions));)
		tgl_session_end(s, TG_LINK_END_LINK, 1006, l->why, strlen(l->why));
	TAILQ_INSERT_TAIL(&server->failed, l, on_failed);
	if (!server->dispatching)
		tgl_wake(server);
}

void tgl_linger(struct tg_link *l)
{
	if (tgl_buf_len(&l->out) == 0) {
		tgl_link_kill(l);
		return;
	}
	/* Closing now, with bytes of the peer unread, would reset the connection and destroy the
	 * ERROR on its way. */
	l->state = TGL_LINK_LINGER;
	tgl_flush(l);
}

/* All whole frames that have arrived. */
static void take_frames(struct tg_link *l)
{
	struct tgl_buf *b = &l->in;
	while (l->state <= TGL_LINK_UP) {
		struct link_header h;
		const char *why;
		ssize_t n = link_header_parse(
			b->data + b->head, tgl_buf_len(b), LINK_FROM_GATEWAY, &h, &why);
		if (n < 0)
			tgl_fail(l, TG_LINK_ERROR_PROTOCOL, true, "%s", why);
		if (n <= 0 || tgl_buf_len(b) - (size_t)n < h.length)
			break;
		const uint8_t *payload = b->data + b->head + n;
		b->head += (size_t)n + h.length;
		l->server->stats.frames_in++;
		tgl_frame(l, &h, payload);
		tgl_notify(l->server);
	}
	memmove(b->data, b->data + b->head, tgl_buf_len(b));
	b->tail -= b->head;
	b->head = 0;
}

/* After an ERROR of ours, what still comes is thrown away until the peer closes. */
static void discard(struct tg_link *l)
{
	for (int i = 0; i < TGL_READ_ROUNDS; i++) {
		ssize_t n = recv(l->source.fd, l->in.data, l->in.cap, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
			tgl_link_kill(l);
		if (n <= 0)
			return;
	}
}

void tgl_readable(struct tg_link *l)
{
	if (l->state == TGL_LINK_LINGER)
		discard(l);
	for (int i = 0; i < TGL_READ_ROUNDS && l->state <= TGL_LINK_UP; i++) {
		struct tgl_buf *b = &l->in;
		size_t room = b->cap - b->tail;
		ssize_t n = recv(l->source.fd, b->data + b->tail, room, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
			break;
		if (n < 0) {
			tgl_fail(l, -1, false, "receive: %s", strerror(errno));
			break;
		}
		if (n == 0) {
			bool cut = tgl_buf_len(b) > 0;
			tgl_fail(l, -1, cut,
				cut ? "closed in the middle of a frame" : "closed by the gateway");
			break;
		}
		b->tail += (size_t)n;
		l->heard_ms = l->server->now_ms;
		l->ping_sent = false;
		take_frames(l);
		if ((size_t)n < room || tgl_buf_len(&l->out) >= TGL_BACKLOG_MAX)
			break;
	}
	if (l->state <= TGL_LINK_UP)
		tgl_dirty(l); /* credit to grant, answers to send */
}

/* `since` may be a moment ahead of this round's clock. */
static uint64_t elapsed_ms(uint64_t now_ms, uint64_t since_ms)
{
	return now_ms > since_ms ? now_ms - since_ms : 0;
}

void tgl_link_tick(struct tg_link *l)
{
	const struct tg_link_server *server = l->server;
	uint64_t now = server->now_ms, silent = elapsed_ms(now, l->heard_ms);
	switch (l->state) {
	case TGL_LINK_HELLO:
		if (elapsed_ms(now, l->since_ms) >= server->opts.hello_timeout_ms)
			tgl_fail(l, TG_LINK_ERROR_TIMEOUT, false, "no HELLO in time");
		break;
	case TGL_LINK_UP:
		if (l->ping_sent && silent >= (uint64_t)server->opts.ping_interval_ms +
						      server->opts.ping_timeout_ms) {
			tgl_fail(l, TG_LINK_ERROR_TIMEOUT, false, "silent after a PING");
		} else if (!l->ping_sent && silent >= server->opts.ping_interval_ms) {
			uint8_t *out = tgl_out_reserve(l, LINK_PING_FRAME_LEN);
			if (!out)
				break;
			tgl_out_commit(l, link_ping_write(out, TG_LINK_PING, now));
			l->ping_sent = true;
		}
		break;
	case TGL_LINK_LINGER:
		if (elapsed_ms(now, l->since_ms) >= TGL_LINGER_MS)
			tgl_link_kill(l);
		break;
	case TGL_LINK_FAILED:
	case TGL_LINK_DEAD:
		break;
	}
}

const char *tg_link_name(const struct tg_link *link)
{
	return link->name;
}

unsigned tg_link_worker(const struct tg_link *link)
{
	return link->worker;
}

uint32_t tg_link_features(const struct tg_link *link)
{
	return link->features;
}

unsigned tg_link_sessions(const struct tg_link *link)
{
	return link->n_sessions;
}

void tg_link_set_data(struct tg_link *link, void *data)
{
	link->data = data;
}

void *tg_link_data(const struct tg_link *link)
{
	return link->data;
}
