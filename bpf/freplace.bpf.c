// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/* Does this kernel let a program take the place of another one's function? libxdp's dispatcher is
 * built on that. Both halves, loaded one after the other by user/kern/bpf_dispatch. */
#include "kernel.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

__attribute__((noinline)) int freplace_slot(struct xdp_md *ctx)
{
	volatile int ret = XDP_PASS;

	if (!ctx)
		return XDP_ABORTED;
	return ret;
}

SEC("xdp")
int freplace_target(struct xdp_md *ctx)
{
	return freplace_slot(ctx);
}

SEC("?freplace") /* only when asked for: it needs a target */
int freplace_program(struct xdp_md *ctx)
{
	return XDP_PASS;
}
