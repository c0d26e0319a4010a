/* A service on libtidegate-link that records what it hears, for tests. */
#ifndef TIDEGATE_TESTS_LINK_SERVICE_H
#define TIDEGATE_TESTS_LINK_SERVICE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "fake_gateway.h"

enum {
	MIB = 1024 * 1024,
};

/* What a test wants of its service, and what the service saw. */
struct service {
	struct tg_link_server *server;
	bool echo, keep_opening, hold;
	unsigned reject; /* status */
	const char *subprotocol;
	unsigned ups, downs, opens, messages, closes, writables, drains;
	bool down_protocol_error;
	char down_why[256];
	struct tg_link *link;
	struct tg_link_session *last; /* opened last */
	size_t last_len;
	bool last_text;
	uint32_t grace_ms;
	enum tg_link_end end_by;
	unsigned end_code;
	char end_reason[128];
	uint64_t end_in, end_out;
};

static inline void service_on_link_up(void *ctx, struct tg_link *link)
{
	struct service *s = ctx;
	s->ups++;
	s->link = link;
}

static inline void service_on_link_down(
	void *ctx, struct tg_link *link, const char *why, bool protocol_error)
{
	struct service *s = ctx;
	s->downs++;
	s->down_protocol_error = protocol_error;
	snprintf(s->down_why, sizeof(s->down_why), "%s", why);
	if (s->link == link)
		s->link = NULL;
}

static inline void service_on_open(void *ctx, struct tg_link_session *session)
{
	struct service *s = ctx;
	s->opens++;
	s->last = session;
	if (s->reject)
		assert_int_equal(tg_link_reject(session, (uint16_t)s->reject, "not today"), 0);
	else if (!s->keep_opening)
		assert_int_equal(tg_link_accept(session, s->subprotocol), 0);
}

static inline void service_on_message(
	void *ctx, struct tg_link_session *session, const void *data, size_t len, bool text)
{
	struct service *s = ctx;
	s->messages++;
	s->last_len = len;
	s->last_text = text;
	if (s->echo)
		assert_int_equal(tg_link_send(session, data, len, text), 0);
}

static inline void service_on_close(
	void *ctx, struct tg_link_session *session, const struct tg_link_close_info *info)
{
	struct service *s = ctx;
	s->closes++;
	s->end_by = info->by;
	s->end_code = info->code;
	s->end_in = info->messages_in;
	s->end_out = info->messages_out;
	snprintf(s->end_reason, sizeof(s->end_reason), "%s", info->reason);
	/* Calls on a session that is over are refused, not fatal. */
	assert_int_equal(tg_link_send(session, "x", 1, false), -EPIPE);
	assert_int_equal(tg_link_close(session, 1000, NULL, 0), -EPIPE);
	assert_int_equal(tg_link_accept(session, NULL), -EPIPE);
	if (s->last == session)
		s->last = NULL;
}

static inline void service_on_writable(void *ctx, struct tg_link_session *session)
{
	((struct service *)ctx)->writables++;
}

static inline void service_on_drain(void *ctx, struct tg_link *link, uint32_t grace_ms)
{
	((struct service *)ctx)->drains++;
	((struct service *)ctx)->grace_ms = grace_ms;
}

static const struct tg_link_ops service_ops = {
	.on_link_up = service_on_link_up,
	.on_link_down = service_on_link_down,
	.on_open = service_on_open,
	.on_message = service_on_message,
	.on_close = service_on_close,
	.on_writable = service_on_writable,
	.on_drain = service_on_drain,
};

static inline struct service *service_create(struct tg_link_server_opts opts)
{
	struct service *s = calloc(1, sizeof(*s));
	assert_non_null(s);
	opts.ops = &service_ops;
	opts.ctx = s;
	assert_int_equal(tg_link_server_create(&opts, &s->server), 0);
	return s;
}

static inline void service_destroy(struct service *s)
{
	tg_link_server_destroy(s->server);
	assert_int_equal(s->closes, s->opens);
	free(s);
}

/* A service with one link up. */
static inline struct fake_gateway *start(struct tg_link_server_opts opts, struct service **ret)
{
	*ret = service_create(opts);
	struct fake_gateway *g = fake_gateway_create((*ret)->server);
	fake_handshake(g, TG_LINK_FEATURE_TOPICS);
	assert_int_equal((*ret)->ups, 1);
	return g;
}

static inline void stop(struct fake_gateway *g, struct service *s)
{
	fake_gateway_destroy(g);
	service_destroy(s);
}

static inline uint8_t *pattern(size_t len, unsigned seed)
{
	uint8_t *p = malloc(len + 1);
	assert_non_null(p);
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)(i * 31 + i / 251 + seed);
	return p;
}

/* Frames of type MESSAGE until nothing comes any more; returns their cost. */
static inline size_t drain_messages(struct fake_gateway *g, uint64_t session)
{
	struct fake_frame f;
	size_t cost = 0;
	while (fake_next(g, &f, FAKE_QUIET_MS)) {
		if (f.h.type != TG_LINK_MESSAGE)
			continue;
		assert_true(session == 0 || f.h.session == session);
		cost += link_cost(f.h.length);
	}
	return cost;
}

#endif
