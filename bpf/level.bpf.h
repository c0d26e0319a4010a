/* The level that permits bound: established and not yet served. See tg_pace.unserved. */
#ifndef TIDEGATE_BPF_LEVEL_H
#define TIDEGATE_BPF_LEVEL_H

#include "maps.bpf.h"

/* A global function: the verifier looks at its loop once, and not once for each way that leads to
 * it.
 */
__noinline __u64 level_served(__u32 workers)
{
	__u64 sum = 0;

	for (__u32 i = 0; i < TG_WORKERS_MAX && i < workers; i++) {
		__u32 key = i;
		struct tg_worker_load *w = bpf_map_lookup_elem(&worker_load, &key);
		if (w)
			sum += w->served;
	}
	return sum;
}

/* Adds the level up and writes it down. */
static __always_inline __u64 level_update(struct tg_pace *p, const struct tg_gate *g, __u32 workers)
{
	__s64 level = p->established - p->abandoned - g->permits_base - level_served(workers);

	if (level < 0)
		level = 0; /* a worker counted before track did */
	p->unserved = level;
	return level;
}

#endif
