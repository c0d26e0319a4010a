/* Log-linear histograms: 8 sub-buckets an octave (12 % error), with exact count, sum, min and max.
 *
 * One writer with plain stores, readers may copy at any time and see values slightly apart. Unit is
 * the owner's (microseconds for delays). 496 buckets cover all of 64 bits.
 */
#ifndef TIDEGATE_BASE_HIST_H
#define TIDEGATE_BASE_HIST_H

#include <stdint.h>

enum {
	HIST_SUB_BITS = 3,
	HIST_BUCKETS = (64 - HIST_SUB_BITS + 1) << HIST_SUB_BITS, /* 496 */
};

struct hist {
	uint64_t count, sum, min, max; /* min is UINT64_MAX while empty */
	uint64_t bucket[HIST_BUCKETS];
};

void hist_init(struct hist *h);

static inline unsigned hist_index(uint64_t v)
{
	if (v < (1u << HIST_SUB_BITS))
		return (unsigned)v;
	unsigned shift = 63 - (unsigned)__builtin_clzll(v) - HIST_SUB_BITS;
	return ((shift + 1) << HIST_SUB_BITS) +
	       (unsigned)((v >> shift) & ((1u << HIST_SUB_BITS) - 1));
}

static inline void hist_add(struct hist *h, uint64_t v)
{
	h->bucket[hist_index(v)]++;
	h->count++;
	h->sum += v;
	if (v < h->min)
		h->min = v;
	if (v > h->max)
		h->max = v;
}

/* Lowest and highest value that falls into bucket i. */
uint64_t hist_lower(unsigned i);
uint64_t hist_upper(unsigned i);

/* The value at quantile q (0..1): the upper edge of its bucket, not above max. 0 when empty. */
uint64_t hist_quantile(const struct hist *h, double q);

/* into += from;  and  into = now - before (min and max of the difference are bucket edges). */
void hist_merge(struct hist *into, const struct hist *from);
void hist_diff(struct hist *into, const struct hist *now, const struct hist *before);

/* Observations <= v, counting whole buckets: for exposition in fixed bounds. */
uint64_t hist_count_le(const struct hist *h, uint64_t v);

#endif
