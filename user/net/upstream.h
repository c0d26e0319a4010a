/* Where a route's messages go. One `struct upstream` per worker and configured upstream; worker
 * thread only.
 *
 * The kinds (echo, link, …) implement struct upstream_ops; app/session.c calls them for the
 * sessions of its routes. A session's state of the upstream hangs on conn->up, which nobody else
 * touches.
 */
#ifndef TIDEGATE_NET_UPSTREAM_H
#define TIDEGATE_NET_UPSTREAM_H

#include "net/conn.h"

struct upstream;

struct upstream_ops {
	/* As conn_ops.open: 0, -EINPROGRESS (conn_accept / conn_refuse later), or -EPROTO with
	 * *ret_status, *ret_why. */
	int (*open)(struct upstream *u, struct conn *c, const struct conn_hello *hello,
		uint16_t *ret_status, const char **ret_why);
	/* As conn_ops.message: takes the whole message; false: reading stops until conn_resume. */
	bool (*message)(struct upstream *u, struct conn *c, bool text, uint8_t *data, size_t len);
	/* The client's out queue was high and is empty now. */
	void (*drained)(struct upstream *u, struct conn *c);
	/* The session is over; forget the conn. Not called when open failed. */
	void (*closed)(struct upstream *u, struct conn *c, enum close_reason reason, uint16_t code,
		const uint8_t *text, size_t text_len);
	/* New sessions are refused from here on; those there are go on. */
	void (*drain)(struct upstream *u);
	/* In the worker's thread, at its end. */
	void (*destroy)(struct upstream *u);
};

/* Embedded first in each kind's own struct. */
struct upstream {
	const struct upstream_ops *ops;
	struct net *net;
	const char *name; /* static */
};

/* The built-in echo. 0 or -ENOMEM. */
int upstream_echo_create(struct net *n, struct upstream **ret);

#endif
