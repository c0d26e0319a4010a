/* Who is proven: see struct tg_proven. */
#ifndef TIDEGATE_BPF_PROVEN_H
#define TIDEGATE_BPF_PROVEN_H

#include "maps.bpf.h"

/* The loader's: entries of the map - 1. */
const volatile __u32 proven_mask = 0;

/* NULL: it is not. bits as in tg_proven_hash(). */
static __always_inline struct tg_share *proven_find(
	const struct tg_settings *s, __u64 bits, __u32 len, __u32 family)
{
	__u64 hash = tg_proven_hash(s->proven_seed, bits, len, family);
	__u32 key = hash & proven_mask, tag = tg_proven_tag(hash);
	struct tg_proven *p = bpf_map_lookup_elem(&proven, &key);

	if (!p)
		return 0;
#pragma unroll
	for (int i = 0; i < TG_PROVEN_WAYS; i++)
		if (p->share[i].tag == tag)
			return &p->share[i];
	return 0;
}

static __always_inline void proven_put(
	const struct tg_settings *s, __u64 bits, __u32 len, __u32 family, __u32 weight)
{
	__u64 hash = tg_proven_hash(s->proven_seed, bits, len, family);
	__u32 key = hash & proven_mask, tag = tg_proven_tag(hash);
	struct tg_proven *p = bpf_map_lookup_elem(&proven, &key);
	__u32 at = 0;

	if (!p)
		return;
#pragma unroll
	for (int i = 0; i < TG_PROVEN_WAYS; i++) {
		if (p->share[i].tag == tag) {
			p->share[i].weight = weight;
			return;
		}
		if (tg_share_gives_way(&p->share[i], &p->share[at % TG_PROVEN_WAYS]))
			at = i;
	}
	struct tg_share *share = &p->share[at % TG_PROVEN_WAYS];
	share->tat_ns = 0;
	share->weight = weight;
	*(volatile __u32 *)&share->tag = tag;
}

#endif
