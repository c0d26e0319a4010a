/* Sessions of one worker: from a request to a route, an upstream and a public id. Worker thread
 * only.
 *
 * This is the layer that conn_ops notifies; it finds the route, judges Origin, subprotocol and
 * token, gives out session ids and passes messages to the route's upstream.
 */
#ifndef TIDEGATE_APP_SESSION_H
#define TIDEGATE_APP_SESSION_H

#include <stdatomic.h>
#include <stdbool.h>

#include "app/auth.h"
#include "app/permissions.h"
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
	struct auth_opts auth;
};

struct auth_job;

/* What the layer keeps of one session besides its conn, on conn->app; allocated on need, freed when
 * the conn goes. */
struct session {
	struct hub_client *hub; /* topics the session hears: app/hub.c */
	/* Of its token; all zero where the route asks for none. */
	char *subject;                      /* or NULL */
	json_t *claims;                     /* until the upstream has them; or NULL */
	struct permissions *may;            /* NULL: everything */
	struct auth_job *job;               /* a token is being verified */
	int64_t token_expires_s, expires_s; /* Unix time; the leeway between; 0: never */
	uint32_t deadline_ms; /* the worker's clock: when to look at expires_s again */
	bool judged;          /* a verdict came, for the next hello */
	uint8_t verdict;      /* enum auth_failure */
};

/* That of a conn, made when there is none yet; NULL without memory. */
struct session *session_get(struct conn *c);
/* What its token calls it; NULL: nothing. Until the session is gone or refreshes its token. */
const char *session_subject(const struct conn *c);
/* Its worker's authentication. */
struct auth *session_auth(const struct conn *c);

/* May the session do this with the topic? Where the route asks for no authentication, everything
 * is allowed. */
bool session_may(const struct conn *c, enum session_action action, const char *topic, size_t len);

struct sessions {
	struct session_opts opts;
	uint64_t id, ids_left;
	struct auth auth;
	struct slab slab; /* struct session */
};

extern const struct conn_ops session_conn_ops;

/* Hangs itself on n->app. */
void sessions_init(struct sessions *s, struct net *n, const struct session_opts *opts);
/* After the last connection. */
void sessions_fini(struct sessions *s);

#endif
