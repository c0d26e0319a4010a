/* The hub upstream: clients that subscribe and publish to topics by JSON (docs/hub-protocol.md),
 * and what the services of links do with topics.
 *
 * One per worker; worker thread only. It judges a client's requests by the route's limits and the
 * session's permissions; who hears what, and how a publication gets there, is app/exchange's.
 */
#ifndef TIDEGATE_APP_HUB_H
#define TIDEGATE_APP_HUB_H

#include "app/exchange.h"
#include "net/upstream.h"

/* Of a route. */
struct hub_limits {
	uint32_t topics_per_session;
	uint32_t messages_per_second; /* 0: no limit; a second's worth may come at once */
	uint64_t bytes_per_second;    /* of published data; likewise */
	uint64_t payload_max;         /* likewise */
};

struct hub_opts {
	struct exchange_peers *peers;
	uint32_t mail_kind;              /* of the exchange's messages between workers */
	const struct hub_limits *limits; /* by route */
};

/* In the worker's thread. Links may use it from then on (net->topics). 0 or -ENOMEM. */
int hub_create(struct net *n, const struct hub_opts *opts, struct upstream **ret);
struct exchange *hub_exchange(struct upstream *u);

#endif
