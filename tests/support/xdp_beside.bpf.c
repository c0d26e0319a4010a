// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/* Somebody else's XDP program: counts the SYNs that come to it, and lets everything pass. See
 * xdp_beside.c. */
#include "parse.bpf.h"

__u64 syns;

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("xdp.frags")
int xdp_beside(struct xdp_md *ctx)
{
	struct syn syn = {};

	if (parse_syn(ctx, &syn, PARSE_FOR_SYN) == PARSE_FOUND)
		__sync_fetch_and_add(&syns, 1);
	return XDP_PASS;
}
