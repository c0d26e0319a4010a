#include "net/upstream.h"

#include <errno.h>
#include <stdlib.h>

static int echo_open(struct upstream *u, struct conn *c, const struct conn_hello *hello,
	uint16_t *ret_status, const char **ret_why)
{
	(void)u;
	(void)c;
	(void)hello;
	(void)ret_status;
	(void)ret_why;
	return 0;
}

/* A client that sends faster than it reads its echoes is made to wait: one that stops reading stops
 * being read. */
static bool echo_message(struct upstream *u, struct conn *c, bool text, uint8_t *data, size_t len)
{
	(void)u;
	conn_send(c, text, data, len);
	return !(c->flags & CONN_OUT_HIGH);
}

static void echo_drained(struct upstream *u, struct conn *c)
{
	(void)u;
	conn_resume(c);
}

static void echo_closed(struct upstream *u, struct conn *c, enum close_reason reason, uint16_t code,
	const uint8_t *text, size_t text_len)
{
	(void)u;
	(void)c;
	(void)reason;
	(void)code;
	(void)text;
	(void)text_len;
}

static void echo_drain(struct upstream *u)
{
	(void)u;
}

static void echo_destroy(struct upstream *u)
{
	free(u);
}

static const struct upstream_ops echo_ops = {
	.open = echo_open,
	.message = echo_message,
	.drained = echo_drained,
	.closed = echo_closed,
	.drain = echo_drain,
	.destroy = echo_destroy,
};

int upstream_echo_create(struct net *n, struct upstream **ret)
{
	struct upstream *u = calloc(1, sizeof *u);

	if (!u)
		return -ENOMEM;
	u->ops = &echo_ops;
	u->net = n;
	u->name = "echo";
	*ret = u;
	return 0;
}
