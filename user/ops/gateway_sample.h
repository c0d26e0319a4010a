/* From the workers' counters to what the governor wants to know: differences since the last look,
 * and which worker is worst off. Pure but for its memory of the last look; the governor's thread.
 */
#ifndef TIDEGATE_OPS_GATEWAY_SAMPLE_H
#define TIDEGATE_OPS_GATEWAY_SAMPLE_H

#include "base/stats.h"
#include "net/governor.h"

struct gateway_sampler {
	struct worker_seen *seen; /* one a worker */
	unsigned n_workers;
};

/* 0 or -ENOMEM. */
int gateway_sampler_init(struct gateway_sampler *s, unsigned n_workers);
void gateway_sampler_fini(struct gateway_sampler *s);

/* `unserved` and `memory_percent` are left to the caller. A worker that has not ended a turn for
 * longer than a slot counts with the age of that turn: it publishes nothing while it hangs. */
void gateway_sample(struct gateway_sampler *s, const struct tg_worker_stats *stats, uint64_t now_ns,
	struct governor_sample *ret);

#endif
