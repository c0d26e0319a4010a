/* The admin surface's answers as JSON (jansson). Any thread; no I/O. Functions that return json_t
 * give a new reference, or NULL without memory. 64-bit ids are decimal strings, since many readers
 * keep numbers as doubles. */
#ifndef TIDEGATE_OPS_ADMIN_JSON_H
#define TIDEGATE_OPS_ADMIN_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ops/admin.h"

json_t *admin_json_error(const char *message);

struct admin_status {
	const char *instance, *version;
	int64_t pid, uptime_s;
	bool ready;
	const char *not_ready_reason;          /* when not ready; "draining…" while draining */
	const struct tg_worker_stats *workers; /* a copy of each */
	unsigned n_workers;
	const struct link_info *links;
	size_t n_links;
	const char *links_error; /* NULL, or why there are none */
	struct gate_info gate;
};

/* An object: who and how it is; every counter and gauge by its field name, summed over the workers;
 * closes and protocol_errors that are not 0; a summary of the links. */
json_t *admin_json_status(const struct admin_status *s);

/* An array of one object per worker: its counters and gauges, busy_ratio (0..1), and its delays as
 * count, p50, p99, max, in microseconds: poll_delay_us, wake_delay_us, run_delay_us, first_poll_us,
 * loop_us, and cpu_wait_us, which is null when the kernel measures nothing (cpu_wait is NULL). */
json_t *admin_json_workers(
	const struct tg_worker_stats *workers, const struct hist *cpu_wait, unsigned n_workers);

json_t *admin_json_links(const struct link_info *links, size_t n);

json_t *admin_json_topics(const struct topic_info *topics, size_t n, size_t matched);

json_t *admin_json_conn(const struct conn_info *c);

#endif
