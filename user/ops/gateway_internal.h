/* Shared by the files of ops/gateway*.c only. */
#ifndef TIDEGATE_OPS_GATEWAY_INTERNAL_H
#define TIDEGATE_OPS_GATEWAY_INTERNAL_H

#include "app/hub.h"
#include "app/session.h"
#include "core/job.h"
#include "kern/bpf_maps.h"
#include "net/listener.h"
#include "ops/access_log.h"
#include "ops/admin.h"
#include "ops/admin_token.h"
#include "ops/config.h"

/* Messages to workers. */
enum gateway_mail {
	MAIL_DRAIN,
	MAIL_STOP,
	MAIL_QUERY,  /* ptr: struct query */
	MAIL_CRYPTO, /* ptr: struct crypto_job, done */
	MAIL_KEYS,   /* ptr: struct auth_keys, a reference */
	MAIL_TOPICS, /* app/exchange's */
	MAIL_LISTS,  /* ptr: struct admission_lists, a reference of the worker's */
};

struct query;

enum gateway_upstream {
	UPSTREAM_ECHO,
	UPSTREAM_HUB,
	UPSTREAM_CONFIGURED,
};

/* Everything of one worker. */
struct gateway_worker {
	struct gateway *gateway;
	struct worker *w;
	struct net net;
	struct sessions sessions;
	struct tg_worker_stats *stats;
	int *listener_fds;
	struct upstream **upstreams; /* enum gateway_upstream, then those of the configuration */
	size_t n_upstreams;
	struct job drain;
	uint64_t drain_cursor;
	unsigned drain_slots, drain_walked; /* at its begin; of them, those looked at */
	uint32_t drain_begin_ms;
	struct job query_job;
	struct query_task *queries; /* FIFO */
	uint64_t access_rand;       /* gateway_access.c */
	int ring_error_said;        /* main thread: the last ring_error that was logged */
};

/* The gate in the kernel, as far as the keeper has handed it over. */
struct gateway_kernel {
	bool on;
	int fd[BPF_SHARED_MAP_COUNT]; /* -1: not handed over */
	struct tg_gate *gate;         /* mapped, written by the governor */
	struct tg_pace *pace;         /* mapped, read only */
	struct tg_worker_load *load;  /* one a worker; the process's own when not on */
	struct ring_buffer *events;   /* NULL: none can be read */
	/* What measures delays, both NULL when not on. */
	struct tg_sched *sched;
	struct tg_ready *ready;
};

/* The busiest source prefixes, found by a walk that costs little of the time between two. */
struct gateway_top {
	struct tg_prefix key[SOURCES_TOP_MAX];
	size_t n;
	uint64_t next_walk_ns;
};

struct gateway {
	const struct config *cfg;
	int channel; /* to the keeper */
	unsigned n_workers;
	struct gateway_worker *workers;
	struct tg_worker_stats *stats;

	/* What the net layer sees of the configuration. */
	struct conn_listener *listeners;
	struct conn_limits *limits;
	struct route *routes;
	struct conn_opts conn;
	struct session_ids ids;
	struct auth_policy *policies; /* by route */
	struct auth_key_spec *key_specs;
	struct auth_opts auth;
	struct admin_token admin_token;
	struct hub_limits *hub_limits; /* by route */
	struct exchange_peers peers;

	struct access_log *access; /* NULL: none is written */
	struct gateway_gate *gate; /* NULL: admission is off */
	struct gateway_kernel kernel;
	struct gateway_line *line;
	struct gateway_top top; /* of the one thread that asks for it */
	_Atomic bool draining;
};

/* gateway_worker.c: creates and starts the workers; fds[worker * listeners + listener] are their
 * listening sockets, access_fd is where the access log goes, or -1. What was created stays in g,
 * also on failure. In the main thread. */
int gateway_workers_create(struct gateway *g, int *fds, unsigned n_workers, int access_fd);

/* gateway_access.c: the access log, when fd is one (it stays the caller's). Main thread, between
 * the workers' counters and their threads. 0 or -errno. */
int gateway_access_create(struct gateway *g, unsigned n_workers, int fd);
/* A new worker's net begins to tell it. In the worker. */
void gateway_access_attach(struct gateway_worker *gw);

/* gateway_auth.c: policies of the routes, keys, crypto threads. keys_fd: of CHANNEL_KEYS, or -1.
 * Main thread. What was made stays in g, also on failure; *ret_why says more then, or is NULL. */
int gateway_auth_create(struct gateway *g, int keys_fd, const char **ret_why);
/* New contents of the files: the workers get them by mail, or the old ones stay and it is logged.
 */
void gateway_auth_reload(struct gateway *g, int keys_fd);
/* Before the workers are told to stop; after they have ended. */
void gateway_auth_stop(struct gateway *g);
void gateway_auth_destroy(struct gateway *g);
/* What was posted to a worker that has ended. In the main thread. */
void gateway_mail_drop(struct gateway_worker *gw);

/* gateway_drain.c: closes the sessions of a worker with 1001, spread over the drain period. In the
 * worker. */
void gateway_drain_start(struct gateway_worker *gw);

/* gateway_gate.c: admission's lists and the governor's thread. In the main thread, in this order:
 * init before the workers (it opens files, which later nobody may), start once they run, stop
 * before they end, fini after. 0 or -errno. */
int gateway_gate_init(struct gateway *g, unsigned n_workers);
int gateway_gate_start(struct gateway *g);
void gateway_gate_stop(struct gateway *g);
void gateway_gate_fini(struct gateway *g);
/* What a new worker's net begins with. In the worker. */
void gateway_gate_attach(struct gateway *g, struct net *n);
void gateway_gate_detach(struct net *n);
/* From MAIL_LISTS. In the worker. */
void gateway_gate_mail(struct net *n, struct admission_lists *lists);
/* Any thread. */
void gateway_gate_info(void *ctx, struct gate_info *ret);
int gateway_gate_say(void *ctx, enum governor_word word, uint32_t rate);
int gateway_list(void *ctx, enum gate_list which, struct list_info **ret, size_t *ret_n);
int gateway_list_change(
	void *ctx, enum gate_list which, bool add, const struct prefix_entry *entry);

/* gateway_kernel.c: what the gateway does with the maps of the kernel-side gate. In the main
 * thread: */
int gateway_kernel_init(struct gateway_kernel *k);
void gateway_kernel_fini(struct gateway_kernel *k);
/* Worker: its line of worker_load. */
void gateway_kernel_begin(struct gateway_worker *gw);
void gateway_kernel_publish(struct gateway_worker *gw, bool sleeping);
void gateway_kernel_end(struct gateway_worker *gw);
/* Governor's thread: what the kernel has counted since *seen, which is moved on; and the gate. */
void gateway_kernel_sample(struct gateway_kernel *k, struct tg_verdict_count seen[TG_VERDICT_COUNT],
	struct governor_sample *s);
/* Logs what the programs had to say. */
void gateway_kernel_events(struct gateway_kernel *k);
void gateway_kernel_gate(struct gateway_kernel *k, const struct governor_gate *g, uint64_t now_ns);
/* Any thread. */
uint64_t gateway_kernel_unserved(const struct gateway_kernel *k);
/* SYNs refused by the kernel so far. */
uint64_t gateway_kernel_refused(const struct gateway_kernel *k);
int gateway_kernel_verdicts(void *ctx, struct tg_verdict_count ret[TG_VERDICT_COUNT]);
/* Waits of a worker's thread for a CPU, ns; -EOPNOTSUPP while they are not measured. */
int gateway_kernel_cpu_wait(void *ctx, unsigned worker, struct hist *ret);
/* Of the sockets, 0..1, whose wake delay is measured now; 0: none. */
double gateway_kernel_share(void *ctx);
/* Asks the keeper to measure percent of them, 0..100, and waits for what comes of it. 0,
 * -EOPNOTSUPP, -ETIMEDOUT; -EIO: the keeper could not, and says why in the log. */
int gateway_kernel_measure(void *ctx, unsigned percent);
/* One entry of a list in the kernel. */
int gateway_kernel_list(
	struct gateway_kernel *k, enum gate_list which, bool add, const struct prefix_entry *entry);
/* Calls fn for every entry that an operator put into a list, also one of a former start. */
int gateway_kernel_each(struct gateway_kernel *k, enum gate_list which,
	int (*fn)(void *ctx, const struct prefix_entry *entry), void *ctx);
/* gateway_sources.c */
int gateway_sources(void *ctx, size_t limit, struct source_info **ret, size_t *ret_n);
int gateway_top_sources(void *ctx, size_t limit, struct source_info *ret, size_t *ret_n);
int gateway_why(void *ctx, const struct in6_addr *addr, struct why_info *ret);

/* gateway_line.c: the scheduler line. In the main thread; turn as often as possible, it closes the
 * interval and logs it when it is due. */
int gateway_line_init(struct gateway *g);
void gateway_line_turn(struct gateway *g);
void gateway_line_fini(struct gateway *g);
/* Any thread: the last closed interval and how long ago that was; false before there is one. */
bool gateway_line(void *ctx, struct schedline *ret, uint64_t *ret_age_ns);

/* gateway_query.c: questions from admin threads that the workers answer. */
void gateway_query_init(struct gateway_worker *gw);
void gateway_query_mail(struct gateway_worker *gw, struct query *q);
/* Drops what is unanswered. In the worker, at its end. */
void gateway_query_stop(struct gateway_worker *gw);
int gateway_conns(void *ctx, const struct conns_query *q, struct conn_info **ret, size_t *ret_n,
	size_t *ret_matched);
int gateway_links(void *ctx, struct link_info **ret, size_t *ret_n);
int gateway_topics(void *ctx, const struct topics_query *q, struct topic_info **ret, size_t *ret_n,
	size_t *ret_matched);
int gateway_publish(void *ctx, const char *topic, const void *data, size_t len);
int gateway_kick(void *ctx, const struct kick_query *q, size_t *ret_kicked);

/* gateway_hubs.c: where a browser may reach the hub, from the configuration. 0 or -ENOMEM. */
int gateway_hubs(const struct config *cfg, struct admin_hub **ret, unsigned *ret_n);
void gateway_hubs_free(struct admin_hub *hubs, unsigned n);

#endif
