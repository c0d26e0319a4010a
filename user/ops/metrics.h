/* The Prometheus text exposition (format 0.0.4, names as OpenMetrics wants them). Pure: any thread,
 * everything is an argument; the admin surface takes the copies. docs/operations.md lists what is
 * exposed. */
#ifndef TIDEGATE_OPS_METRICS_H
#define TIDEGATE_OPS_METRICS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/stats.h"
#include "ops/admin.h"
#include "ops/process_stats.h"

#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

struct metrics_input {
	const char *version;
	const struct tg_worker_stats
		*workers; /* a copy of each; its place is the label worker="N" */
	unsigned n_workers;
	const struct admin_route *routes; /* two of one path are added up */
	size_t n_routes;
	const struct tg_verdict_count *kernel; /* TG_VERDICT_COUNT; NULL: no gate in the kernel */
	const struct hist *cpu_wait;           /* n_workers, nanoseconds; NULL: not measured */
	double share;                  /* of the sockets, 0..1, whose wake delay is measured */
	const struct link_info *links; /* two of one upstream, endpoint and worker are added up */
	size_t n_links;
	bool links_unknown; /* a worker did not answer: no series of links, and
			       tidegate_links_unknown is 1 */
	struct gate_info gate;
	struct process_stats process; /* what is unknown is left out */
};

/* 0 and text from malloc, NUL-terminated, its length without the NUL; or -ENOMEM. */
int metrics_render(const struct metrics_input *in, char **ret_text, size_t *ret_len);

#endif
