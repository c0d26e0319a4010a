/* What happens when memory for out queues and partial messages runs short, in this order:
 *
 *   1. Above 7/8 of the worker's cap new sessions are refused (503), and the connections whose
 * sockets take nothing are cut, those with the most queued first, until 3/4 is not exceeded (close
 *      reason `shed`).
 *   2. Above 15/16 no backlog grows: a message to a connection that has one is dropped, by the
 *      route's policy; under `disconnect` its connection ends. Connections without a backlog go on,
 *      with small messages.
 *   3. At the cap a connection that needs memory ends (close reason `no_memory`).
 *
 * The cap of all workers together works through each worker's own, which is, once a millisecond,
 * set to what the worker has and its part of what is left. Where the sum is above 7/8, a worker
 * that has more than 7/8 of its share sheds down to 3/4 of that. Worker thread only.
 */
#ifndef TIDEGATE_NET_SHED_H
#define TIDEGATE_NET_SHED_H

#include "net/conn.h"

void shed_init(struct net *n);

/* Once a turn. */
void shed_turn(struct net *n);

/* True while new sessions are to be refused. */
bool shed_short(const struct net *n);

#endif
