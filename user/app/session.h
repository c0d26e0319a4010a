/* Sessions of one worker: from a request to a route, an upstream and a public id. Worker thread
 * only.
 *
 * This is the layer that conn_ops notifies; it finds the route, judges Origin and subprotocol,
 * gives out session ids and passes messages to the route's upstream.
 */
#ifndef TIDEGATE_APP_SESSION_H
#define TIDEGATE_APP_SESSION_H

#include <stdatomic.h>
#include <stdbool.h>

#include "app/route.h"
#include "net/upstream.h"

/* Ids: restart epoch in the upper half, plus a counter; workers draw blocks of it. Shared by all
 * workers. Never 0. */
struct session_ids {
	uint64_t epoch; /* < 2^32, in seconds, larger at every start of a gateway */
	_Atomic uint64_t next;
};

struct session_opts {
	const struct route *routes;
	size_t n_routes;
	struct upstream **upstreams; /* of this worker; owned by it */
	size_t n_upstreams;
	struct session_ids *ids;
};

/* What the layer keeps of one session besides its conn, on conn->app; allocated on need. */
struct session {
	struct hub_client *hub; /* topics the session hears: app/hub.c */
};

/* May the session do this with the topic? Where the route asks for no authentication, everything
 * is allowed. */
enum session_action {
	SESSION_SUBSCRIBE,
	SESSION_PUBLISH,
};
bool session_may(const struct conn *c, enum session_action action, const char *topic, size_t len);

struct sessions {
	struct session_opts opts;
	uint64_t id, ids_left;
};

extern const struct conn_ops session_conn_ops;

/* Hangs itself on n->app. */
void sessions_init(struct sessions *s, struct net *n, const struct session_opts *opts);

#endif
