/* GET /v1/events: the live snapshots as server-sent events, one a second to each viewer.
 *
 * A viewer with nothing to send is suspended: it costs its admin thread nothing. One that reads too
 * slowly gets the newest snapshot when it has read the last, and is cut when it takes nothing for
 * some seconds; nobody waits for it. Order: create, answer (admin threads) and notify (live
 * thread), stop when notify is no longer called, destroy when the HTTP daemons have ended.
 */
#ifndef TIDEGATE_OPS_ADMIN_EVENTS_H
#define TIDEGATE_OPS_ADMIN_EVENTS_H

#include <microhttpd.h>
#include <stdbool.h>

#include "ops/live.h"

enum {
	/* Half of what a door serves at a time, so that streams never lock others out. */
	ADMIN_EVENTS_TCP_MAX = 32,
	ADMIN_EVENTS_LOCAL_MAX = 8,
	ADMIN_EVENTS_MISSED_MAX = 5, /* snapshots during which a viewer may take nothing */
};

struct admin_events;

/* NULL without memory. */
struct admin_events *admin_events_create(void);
/* Before the first answer. */
void admin_events_attach(struct admin_events *e, struct live *live);

/* A stream for this connection, which must be of a daemon that allows MHD_suspend_connection. 0,
 * -EBUSY: too many viewers there, -ESHUTDOWN, -ENOMEM. */
int admin_events_open(
	struct admin_events *e, struct MHD_Connection *c, bool local, struct MHD_Response **ret);

/* As live_opts.notify; ctx is the struct admin_events. */
void admin_events_notify(void *ctx, struct live_snapshot *s);

/* Ends all streams; there will be no new ones. Waits a moment for those that read. */
void admin_events_stop(struct admin_events *e);
void admin_events_destroy(struct admin_events *e); /* NULL is allowed */

#endif
