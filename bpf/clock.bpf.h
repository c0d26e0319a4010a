/* The time, and what else a CPU keeps for itself between two packets. */
#ifndef TIDEGATE_BPF_CLOCK_H
#define TIDEGATE_BPF_CLOCK_H

#include "kernel.bpf.h"

struct admit_local {
	__u64 tick;   /* jiffies … */
	__u64 now_ns; /* … and the time when they became that */
	__u64 held;   /* refusals without an event */
	__u32 syns;   /* not yet in pace.syns */
	__u32 zero;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct admit_local);
} admit_local SEC(".maps");

/* CLOCK_MONOTONIC of the last tick. The coarse clock only moves at ticks, and jiffies are one load
 * where every clock is a call: so it is asked once a tick. */
static __always_inline __u64 clock_now(struct admit_local *local)
{
	__u64 tick = bpf_jiffies64();

	if (local->tick != tick) {
		local->now_ns = bpf_ktime_get_coarse_ns();
		local->tick = tick;
	}
	return local->now_ns;
}

#endif
