/* Accepting: which of a worker's rings takes new connections, and when to stop.
 *
 * Each listener of the configuration has one socket per worker (SO_REUSEPORT). Accepts go to one
 * ring at a time: by multishot while that ring has more free slots than a burst could fill, then
 * one by one to its last slot, then to the next ring with room or a new one. A worker without room
 * stops accepting, so that clients wait in the backlog instead of being accepted and thrown away
 * (ENFILE); it goes on when slots come back. Worker thread only.
 */
#ifndef TIDEGATE_NET_LISTENER_H
#define TIDEGATE_NET_LISTENER_H

#include "net/conn.h"

struct listener_opts {
	int *fds; /* listening sockets of this worker, by index of conn_opts.listeners; closed, and
		     -1, after listener_stop */
	unsigned n;
	unsigned burst; /* connections that may complete between two looks: the sum of the backlogs
			 */
	unsigned reserve; /* slots of the first ring kept for links */
	unsigned most;    /* connections one ring is to hold; 0: as many as it has slots */
};

/* 0 or -ENOMEM. */
int listener_init(struct net *n, const struct listener_opts *opts);
void listener_fini(struct net *n);
/* Once a turn, before submission: arms, moves on, pauses, goes on. */
void listener_turn(struct net *n);
/* Stops accepting for good: newcomers are refused by the kernel once the keeper has closed its
 * copies too. */
void listener_stop(struct net *n);
void listener_register(struct worker_ops *ops);

#endif
