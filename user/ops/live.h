/* The live view: a thread that samples the gateway once a second while somebody looks, and makes
 * one JSON text of it that all viewers share. While nobody looks it sleeps.
 *
 * Any thread, but for start, stop and destroy: one. Order: start, any of the others, stop (whoever
 * waits is sent away, no notify comes any more), destroy when nobody can call.
 */
#ifndef TIDEGATE_OPS_LIVE_H
#define TIDEGATE_OPS_LIVE_H

#include <stddef.h>
#include <stdint.h>

#include "ops/admin.h"
#include "ops/process_stats.h"

/* Immutable, shared, counted. */
struct live_snapshot {
	unsigned refs;
	uint64_t seq; /* from 1 */
	size_t len;
	char json[]; /* one line, no newline; NUL-terminated */
};

struct live_snapshot *live_snapshot_ref(struct live_snapshot *s);
void live_snapshot_put(struct live_snapshot *s); /* NULL is allowed */

struct live_opts {
	const char *instance, *version;
	uint64_t started_ns; /* CLOCK_MONOTONIC */
	const struct admin_backend *backend;
	const struct process_stats_reader *process;
	/* A new snapshot is there; s is borrowed. In the live thread, which holds no lock. */
	void (*notify)(void *ctx, struct live_snapshot *s);
	void *ctx;
};

struct live;

/* 0 or -errno. What opts points to must outlive it. */
int live_start(const struct live_opts *opts, struct live **ret);
void live_stop(struct live *l);    /* NULL is allowed */
void live_destroy(struct live *l); /* likewise */

/* A reference to the latest snapshot; the first after a pause is waited for, a good quarter of a
 * second. Keeps the sampler at work for some seconds. -ETIMEDOUT: it took more than three seconds;
 * -ESHUTDOWN: stopped. */
int live_get(struct live *l, struct live_snapshot **ret);

/* Between the two, somebody is to be notified. */
void live_watch(struct live *l);
void live_unwatch(struct live *l);

#endif
