/* Rates by the generic cell rate algorithm (ITU-T I.371, annex A): one 64-bit theoretical arrival
 * time, moved on by an interval for each event that conforms. It may be at most `burst` ahead of
 * the clock. No lock and no refill: compare-and-swap. */
#ifndef TIDEGATE_BPF_GCRA_H
#define TIDEGATE_BPF_GCRA_H

#include "kernel.bpf.h"

enum {
	GCRA_TRIES = 4,
};

enum gcra_result {
	GCRA_OVER,
	GCRA_TAKEN,
	GCRA_CONTENDED, /* others moved it at every try */
};

/* A burst below one interval would admit nobody. */
static __always_inline __u64 gcra_burst(__u64 burst, __u64 interval)
{
	return burst < interval ? interval : burst;
}

/* The time that the next event counts from: never behind the clock, for unused time is no credit.
 */
static __always_inline __u64 gcra_base(__u64 tat, __u64 now)
{
	return (__s64)(tat - now) < 0 ? now : tat;
}

/* Would it be taken? `limit` <= burst: how far ahead this event may bring it. */
static __always_inline bool gcra_conforms(__u64 tat, __u64 now, __u64 interval, __u64 limit)
{
	return gcra_base(tat, now) + interval - now <= limit;
}

static __always_inline enum gcra_result gcra_take(
	__u64 *tat, __u64 now, __u64 interval, __u64 limit, __u64 burst)
{
#pragma unroll
	for (int i = 0; i < GCRA_TRIES; i++) {
		__u64 old = *(volatile __u64 *)tat;
		__u64 base = gcra_base(old, now);

		if (base + interval - now > limit) {
			/* Left from a slower rate: what is beyond the burst of today's is
			 * forgotten, or a rate that rises would first have to wait it out. */
			if (base - now > burst)
				__sync_val_compare_and_swap(tat, old, now + burst);
			return GCRA_OVER;
		}
		if (__sync_val_compare_and_swap(tat, old, base + interval) == old)
			return GCRA_TAKEN;
	}
	return GCRA_CONTENDED;
}

/* For an event that was admitted elsewhere. A plain store: two at once may count as one, in the
 * source's favour. Beyond the burst nothing is kept, as in gcra_take. */
static __always_inline void gcra_advance(__u64 *tat, __u64 now, __u64 interval, __u64 burst)
{
	__u64 base = gcra_base(*tat, now);

	if (base - now > burst)
		base = now + burst;
	*tat = base + interval;
}

#endif
