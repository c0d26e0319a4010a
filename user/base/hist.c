#include "base/hist.h"

#include <string.h>

enum {
	SUBS = 1 << HIST_SUB_BITS,
};

void hist_init(struct hist *h)
{
	memset(h, 0, sizeof(*h));
	h->min = UINT64_MAX;
}

uint64_t hist_lower(unsigned i)
{
	if (i < SUBS)
		return i;
	return (uint64_t)(SUBS + i % SUBS) << (i / SUBS - 1);
}

uint64_t hist_upper(unsigned i)
{
	if (i < SUBS)
		return i;
	return hist_lower(i) + ((1ULL << (i / SUBS - 1)) - 1);
}

uint64_t hist_quantile(const struct hist *h, double q)
{
	if (!h->count)
		return 0;
	/* The smallest rank that covers the share q; written so that a NaN is taken for 0. */
	double want = q > 0 ? q * (double)h->count : 0;
	uint64_t seen = 0;

	for (unsigned i = 0; i < HIST_BUCKETS; i++) {
		seen += h->bucket[i];
		if (seen && (double)seen >= want)
			return hist_upper(i) < h->max ? hist_upper(i) : h->max;
	}
	return h->max; /* q > 1, or a copy taken while the writer wrote */
}

void hist_merge(struct hist *into, const struct hist *from)
{
	into->count += from->count;
	into->sum += from->sum;
	if (from->min < into->min)
		into->min = from->min;
	if (from->max > into->max)
		into->max = from->max;
	for (unsigned i = 0; i < HIST_BUCKETS; i++)
		into->bucket[i] += from->bucket[i];
}

/* A writer that started anew counts from zero again: no difference rather than a huge one. */
static uint64_t grown(uint64_t now, uint64_t before)
{
	return now > before ? now - before : 0;
}

void hist_diff(struct hist *into, const struct hist *now, const struct hist *before)
{
	uint64_t count = 0, min = UINT64_MAX, max = 0;

	into->sum = grown(now->sum, before->sum);
	for (unsigned i = 0; i < HIST_BUCKETS; i++) {
		uint64_t n = grown(now->bucket[i], before->bucket[i]);
		into->bucket[i] = n;
		if (!n)
			continue;
		if (!count)
			min = hist_lower(i);
		max = hist_upper(i);
		count += n;
	}
	/* The buckets' own sum, so that quantiles of two copies taken while the writer wrote still
	 * add up. */
	into->count = count;
	into->min = min;
	into->max = max;
}

uint64_t hist_count_le(const struct hist *h, uint64_t v)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < HIST_BUCKETS && hist_upper(i) <= v; i++)
		n += h->bucket[i];
	return n;
}
