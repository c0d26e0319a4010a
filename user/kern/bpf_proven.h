/* The map `proven` from user space: who is proven, and the index made anew for maps that replace
 * others. By descriptors alone: keeper, gateway, tests. */
#ifndef TIDEGATE_KERN_BPF_PROVEN_H
#define TIDEGATE_KERN_BPF_PROVEN_H

#include <stdbool.h>
#include <stdint.h>

#include "tidegate/abi.h"

/* The entry of a prefix of tier 0, whole, and the prefix's place in it. 0, -ENOENT: it is not
 * proven (then *ret_place is where it would be put), or -errno. */
struct bpf_proven_place {
	uint32_t index, way, tag;
	struct tg_proven entry;
};
int bpf_proven_find(int proven_fd, uint64_t seed, const struct tg_prefix *prefix,
	struct bpf_proven_place *ret_place);

/* As track does. 0 or -errno. */
int bpf_proven_put(int proven_fd, uint64_t seed, const struct tg_prefix *prefix, uint32_t weight);

/* Puts in all that are in `sources` with a length of tier 0 of these settings. */
void bpf_proven_index(
	int sources_fd, int proven_fd, uint64_t seed, const struct tg_settings *tiers);

#endif
