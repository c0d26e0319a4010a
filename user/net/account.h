/* What an access log wants to know of a connection besides what its conn holds: kept beside the
 * conns, in one array a ring, and only where somebody asks for it, so that without an access log a
 * connection costs nothing more. Worker thread only.
 *
 * Asked for by net->ended, which hears of every connection's end.
 */
#ifndef TIDEGATE_NET_ACCOUNT_H
#define TIDEGATE_NET_ACCOUNT_H

#include "net/conn.h"

enum {
	ACCOUNT_OPENED = 101, /* status of a handshake that was completed: RFC 9110 15.2.2 */
};

struct account {
	uint64_t opened_ns; /* the worker's clock, at accept */
	uint64_t bytes_in, bytes_out;
	const char *error;         /* static: what it was refused or ended for, as it was counted
				      by verdict, protocol error or auth failure; NULL: nothing */
	uint32_t dropped;          /* messages that its out queue had no room for */
	uint32_t run_delay_max_us; /* the longest wait for a turn */
	uint16_t status; /* HTTP status that its handshake was answered with; of raw clients the one
			    that their answer stands for; 0: not answered */
	uint16_t code;   /* close code of a session, the client's or ours, 1006 when it just ended;
			    also what a refused raw client was told; 0: none */
};

/* NULL: none is kept. */
static inline struct account *account_of(const struct conn *c)
{
	struct account *ring = conn_net(c)->accounts[c->ring];

	return ring ? &ring[conn_slot(c)] : NULL;
}

static inline void account_error(const struct conn *c, const char *error)
{
	struct account *a = account_of(c);

	if (a)
		a->error = error;
}

/* A connection was accepted. */
void account_begin(struct conn *c);
/* It is over, its reason set; c->app is still there. Tells net->ended; without memory for an
 * account the line is lost and counted. */
void account_end(struct conn *c);
/* After the last connection. */
void account_fini(struct net *n);

#endif
