/* How often a source prefix tried lately, in fixed memory: a count-min sketch (Cormode and
 * Muthukrishnan 2005) with conservative update (Estan and Varghese 2002), whose cells are halved
 * for each window that has passed. The cells' windows double as a Bloom filter of who tried in this
 * one. Layout and window: tidegate/abi.h. */
#ifndef TIDEGATE_BPF_SKETCH_H
#define TIDEGATE_BPF_SKETCH_H

#include "maps.bpf.h"

enum {
	SKETCH_COUNT_MAX = 0xffff,
	SKETCH_AGE_MAX = 15,
	SKETCH_COL_BITS = 3, /* of the hash for each row, from the top, where the block's are not */
	SKETCH_COL_SHIFT = 64 - SKETCH_COL_BITS * TG_SKETCH_ROWS,
};

_Static_assert(1 << SKETCH_COL_BITS == TG_SKETCH_COLS, "bits of the hash for a column");

/* The loader's: a seed that nobody outside knows, or prefixes that collide could be chosen; blocks
 * of the map - 1; log2 of the cells of a row over all blocks. */
const volatile __u64 sketch_seed = 0;
const volatile __u32 sketch_mask = 0;
const volatile __u32 sketch_row_bits = SKETCH_COL_BITS;

struct sketch_answer {
	__u32 count; /* SYNs lately, this one included: all of this window, half of the last, … */
	bool first;  /* the first in this window; seldom wrong */
};

static __always_inline void sketch_add(
	__u64 prefix, __u32 family, __u32 window, struct sketch_answer *ret)
{
	__u64 h = tg_mix((prefix + family) ^ sketch_seed);
	__u32 key = h & sketch_mask;
	struct tg_sketch_block *b = bpf_map_lookup_elem(&syn_sketch, &key);
	__u32 n[TG_SKETCH_ROWS], at[TG_SKETCH_ROWS], least = SKETCH_COUNT_MAX - 1;

	if (!b)
		return;
#pragma unroll
	for (int i = 0; i < TG_SKETCH_ROWS; i++) {
		at[i] = i * TG_SKETCH_COLS +
			(h >> (SKETCH_COL_SHIFT + SKETCH_COL_BITS * i)) % TG_SKETCH_COLS;
		__u32 cell = b->cell[at[i]];
		__u32 age = (window - (cell >> 16)) & 0xffff;
		n[i] = age > SKETCH_AGE_MAX ? 0 : (cell & 0xffff) >> age;
		if (n[i] < least)
			least = n[i];
		if (age)
			ret->first = true;
	}
	ret->count = least + 1;
#pragma unroll
	for (int i = 0; i < TG_SKETCH_ROWS; i++)
		b->cell[at[i]] = window << 16 | (n[i] > least ? n[i] : least + 1);
}

#endif
