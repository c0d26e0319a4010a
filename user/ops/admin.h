/* The admin surface: HTTP on the admin listener (TCP) and on the admin socket (Unix), served by
 * libmicrohttpd's own threads. It never touches a worker's data: it reads counters and asks through
 * `struct admin_backend`.
 *
 * TCP (no authentication, loopback by default): GET / (the dashboard), /metrics, /healthz, /readyz,
 * /v1/live, /v1/events, /v1/page.json, and where a route goes to the hub the chat page: /chat,
 * /v1/hub.json. With the token of the configuration, by Authorization: Bearer, also GET /v1/allow,
 * /v1/deny, POST /v1/gate/set and the changes of the lists.
 * Unix socket (0600, peer credentials checked: root or the uid in opts): these and, as JSON, GET
 * /v1/status, GET /v1/workers, GET /v1/conns?limit=&route=&listener=&peer=&session=&slow=, GET
 * /v1/links, GET /v1/topics?limit=&prefix=, GET /v1/gate, POST /v1/gate/set?word=&rate=, GET
 * /v1/allow, /v1/deny, POST /v1/allow/add?prefix=, /v1/allow/del, /v1/deny/add, /v1/deny/del, POST
 * /v1/kick?session=|route=&code=&reason=, POST /v1/publish?topic= with the data as body, POST
 * /v1/drain.
 */
#ifndef TIDEGATE_OPS_ADMIN_H
#define TIDEGATE_OPS_ADMIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/stats.h"
#include "net/conn.h"
#include "net/gate_info.h"
#include "net/link_info.h"
#include "net/prefix_list.h"
#include "net/source_info.h"
#include "ops/admin_chat.h"
#include "ops/admin_token.h"
#include "ops/schedline.h"

struct conns_query {
	size_t limit;      /* at most so many infos come back */
	uint64_t session;  /* 0: any */
	char route[256];   /* "": any; a route's path as configured */
	char listener[64]; /* "": any */
	char peer[64];     /* "": any; an address in text, without port */
	bool slow;         /* those with a backlog, the greatest first */
};

struct kick_query {
	struct conns_query which;
	uint16_t code; /* close code for the clients, 1000..4999 */
	char reason[124];
};

/* One route: its path, what its sessions' out queues have dropped, over all workers, and its open
 * sessions by worker. */
struct admin_route {
	const char *path;     /* several routes may have the same */
	const char *upstream; /* static */
	enum out_policy policy;
	uint64_t dropped[OUT_POLICIES];
	uint64_t sessions[STATS_WORKERS_MAX];
};

struct topics_query {
	size_t limit;     /* at most so many infos come back */
	char prefix[256]; /* "": any */
};

/* A topic or pattern that somebody hears. */
struct topic_info {
	char topic[256];
	uint64_t sessions;
};

/* What the gateway provides. Called from admin threads; each may block for up to two seconds while
 * workers answer; -ETIMEDOUT names no worker: the caller says so. Arrays come from malloc. */
struct admin_backend {
	void *ctx;
	unsigned n_workers;
	const struct tg_worker_stats *(*stats)(void *ctx, unsigned worker);
	unsigned n_routes;
	void (*route)(void *ctx, unsigned route, struct admin_route *ret);
	int (*conns)(void *ctx, const struct conns_query *q, struct conn_info **ret, size_t *ret_n,
		size_t *ret_matched);
	int (*links)(void *ctx, struct link_info **ret, size_t *ret_n);
	int (*kick)(void *ctx, const struct kick_query *q, size_t *ret_kicked);
	int (*topics)(void *ctx, const struct topics_query *q, struct topic_info **ret,
		size_t *ret_n, size_t *ret_matched);
	/* -ENOBUFS: too many publications are waiting. */
	int (*publish)(void *ctx, const char *topic, const void *data, size_t len);
	/* The scheduler line of the last closed interval, and how long ago that was; false: there
	 * is none yet. */
	bool (*line)(void *ctx, struct schedline *ret, uint64_t *ret_age_ns);
	void (*gate)(void *ctx, struct gate_info *ret);
	/* -EOPNOTSUPP: admission is off. */
	int (*gate_say)(void *ctx, enum governor_word word, uint32_t rate);
	/* Of the programs in the kernel. -EOPNOTSUPP: there is no gate in the kernel. */
	int (*verdicts)(void *ctx, struct tg_verdict_count ret[TG_VERDICT_COUNT]);
	/* Waits of a worker's thread for a CPU, ns. NULL: never measured. -EOPNOTSUPP: not now. */
	int (*cpu_wait)(void *ctx, unsigned worker, struct hist *ret);
	/* Of the sockets, 0..1, whose wake delay is measured; 0: none. NULL: never. */
	double (*share)(void *ctx);
	/* Measures percent of them from now on, 0..100. -EOPNOTSUPP: not in the kernel; -EIO: the
	 * keeper says in the log why it could not. */
	int (*sample)(void *ctx, unsigned percent);
	/* Source prefixes, those with the most connections and churn first; array from malloc. */
	int (*sources)(void *ctx, size_t limit, struct source_info **ret, size_t *ret_n);
	/* The same into an array of limit (at most SOURCES_TOP_MAX), as often as once a second and
	 * at little cost: a great map is not walked each time. One thread. */
	int (*top_sources)(void *ctx, size_t limit, struct source_info *ret, size_t *ret_n);
	int (*why)(void *ctx, const struct in6_addr *addr, struct why_info *ret);
	int (*list)(void *ctx, enum gate_list which, struct list_info **ret, size_t *ret_n);
	/* Adds or takes out one prefix, for all workers: 0, -EEXIST, -ENOENT, -E2BIG, -EOPNOTSUPP.
	 */
	int (*list_change)(
		void *ctx, enum gate_list which, bool add, const struct prefix_entry *entry);
	int (*drain)(void *ctx);
	bool (*ready)(void *ctx, const char **ret_why_not); /* false while starting, draining, or
							       when an upstream has no link up */
};

struct admin_opts {
	int listen_fd;     /* listening TCP socket, or -1; owned by the admin from start on */
	int socket_fd;     /* listening Unix socket, or -1; owned */
	uid_t allowed_uid; /* besides root */
	const char *instance, *version;
	const struct admin_hub *hubs; /* what the chat page may connect to; copied */
	unsigned n_hubs;
	struct admin_token *token; /* allows actions on TCP; NULL or not set: there are none */
	struct admin_backend backend;
};

struct admin;

int admin_start(const struct admin_opts *opts, struct admin **ret);
void admin_stop(struct admin *a); /* NULL is allowed */

#endif
