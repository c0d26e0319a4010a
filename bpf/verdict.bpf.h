/* Counting what programs decide: one per-CPU counter a verdict, two columns, done and only
 * observed. */
#ifndef TIDEGATE_BPF_VERDICT_H
#define TIDEGATE_BPF_VERDICT_H

#include "maps.bpf.h"

static __always_inline void verdict_count(enum tg_verdict v, bool observed)
{
	__u32 key = v;
	struct tg_verdict_count *n = bpf_map_lookup_elem(&verdicts, &key);

	if (!n)
		return;
	if (observed)
		n->observed++;
	else
		n->packets++;
}

#endif
