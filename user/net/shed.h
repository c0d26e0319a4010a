/* What happens when memory for out queues runs short, in this order:
 *
 *   1. Above 15/16 of the worker's cap (high water) no backlog grows: a message to a connection
 * that has one is dropped, by the route's policy; under `disconnect` its connection ends.
 * Connections without a backlog go on, with small messages.
 *   2. Above high water as well, the connections whose sockets take nothing are cut, those with the
 *      most queued first, until 7/8 of the cap is not exceeded (close reason `shed`).
 *   3. New sessions are refused (503) while high water is exceeded.
 *   4. At the cap, a connection that needs memory ends (close reason `no_memory`).
 *
 * The cap of all workers together works through each worker's own: it shrinks, while the sum is
 * high, to what the worker has and its part of what is left; who has more than its share sheds.
 * Worker thread only.
 */
#ifndef TIDEGATE_NET_SHED_H
#define TIDEGATE_NET_SHED_H

#include "net/conn.h"

void shed_init(struct net *n);

/* Once a turn. */
void shed_turn(struct net *n);

/* True while new sessions are to be refused. */
static inline bool shed_short(const struct net *n)
{
	return n->bufs.bytes > buf_pool_high(&n->bufs);
}

#endif
