/* What the live views show, read at one moment, and the JSON made of two such moments. One thread;
 * a sample is big: keep it, and take it again. */
#ifndef TIDEGATE_OPS_LIVE_SAMPLE_H
#define TIDEGATE_OPS_LIVE_SAMPLE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ops/admin.h"
#include "ops/process_stats.h"

enum {
	LIVE_ROUTES_MAX = 100, /* of a snapshot; those with the most connections */
};

struct live_sample {
	uint64_t now_ns; /* CLOCK_MONOTONIC */
	unsigned n_workers, n_routes;
	struct tg_worker_stats *workers;
	bool measures; /* the kernel: wake_delay_us means something */
	struct admin_route *routes;
	struct tg_verdict_count kernel[TG_VERDICT_COUNT];
	bool has_kernel;
	struct source_info sources[SOURCES_TOP_MAX];
	size_t n_sources;
	bool has_sources;
	struct gate_info gate;
	struct schedline line;
	uint64_t line_age_ns;
	bool has_line;
	struct process_stats process;
};

/* 0 or -ENOMEM; fini takes what is half made. */
int live_sample_init(struct live_sample *s, const struct admin_backend *b);
void live_sample_fini(struct live_sample *s);

/* Reads everything but the links, which a worker that hangs would keep waiting. */
void live_sample_take(struct live_sample *s, const struct admin_backend *b,
	const struct process_stats_reader *process, uint64_t now_ns);

struct live_about {
	const char *instance, *version;
	uint64_t seq;    /* of the snapshot, from 1 */
	double unix_s;   /* when `now` was taken */
	double uptime_s; /* of the admin surface */
	const struct link_info *links;
	size_t n_links;
	const char *links_error; /* NULL, or why there are none */
};

/* A new reference, or NULL without memory. docs/operations.md has its members. Rates and quantiles
 * are those of the time between the two, whose now_ns must differ. */
json_t *live_json(const struct live_about *about, const struct live_sample *before,
	const struct live_sample *now);

#endif
