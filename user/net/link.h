/* The link upstream: persistent links of one worker to the endpoints of a service, and the sessions
 * they carry.
 *
 * The gateway's side of include/tidegate/link.h. One link per worker and endpoint, kept up with
 * PINGs and jittered reconnects; new sessions go to the link with the fewest sessions or by a hash
 * of a claim or header; credit flows both ways, so that a service that stops reading stalls only
 * its own sessions. Worker thread only.
 */
#ifndef TIDEGATE_NET_LINK_H
#define TIDEGATE_NET_LINK_H

#include <sys/socket.h>

#include "net/link_info.h"
#include "net/upstream.h"

enum link_balance {
	LINK_LEAST_SESSIONS,
	LINK_HASH,
};

enum link_failover {
	LINK_RESUME, /* open the session on another endpoint; lost messages are counted */
	LINK_CLOSE,  /* close it with 1013 */
};

struct link_endpoint {
	const char *name; /* as configured; static */
	struct sockaddr_storage addr;
	socklen_t addr_len;
};

struct link_opts {
	const char *name;                      /* of the upstream; static */
	const char *instance;                  /* sent in HELLO; static */
	const struct link_endpoint *endpoints; /* static */
	unsigned n_endpoints;
	enum link_balance balance;
	const char *hash_key; /* a claim of the client's token, or else a request header; with
				 neither, sessions hash by id */
	enum link_failover failover;
	uint64_t buffer_bytes; /* held for all sessions of this upstream while no link is up */
	uint64_t message_max; /* largest message of a service, the greatest of the routes' limits */
	uint32_t session_window, link_window;
	uint32_t ping_interval_ms, ping_timeout_ms;
	uint32_t connect_timeout_ms;
	uint32_t reconnect_min_ms, reconnect_max_ms;
	uint32_t open_timeout_ms;
	uint32_t drain_ms; /* told to services by DRAIN */
};

/* In the worker's thread: starts connecting at once. 0 or -ENOMEM. opts is copied, what it points
 * to is not. */
int upstream_link_create(struct net *n, const struct link_opts *opts, struct upstream **ret);

/* Calls fn for each link of u; none when u is of another kind. */
void upstream_link_describe(
	struct upstream *u, void (*fn)(const struct link_info *info, void *ctx), void *ctx);

/* True when u is no link upstream or one of its links is up. Any thread. */
bool upstream_link_up(const struct upstream *u);

/* Registers the completions, timers and run-queue handlers of links in a worker's table. */
void link_register(struct worker_ops *ops);

#endif
