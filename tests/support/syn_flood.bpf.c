// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/* Makes each frame that BPF_PROG_RUN sends ("live frames") another forged SYN, and puts it on the
 * wire. See syn_flood.c. */
#include "kernel.bpf.h"

#include "../tests/support/syn_flood.h"

const volatile __u32 ifindex = 0;
const volatile __u32 source_base = 0; /* the first address … */
const volatile __u32 source_mask = 0; /* … and how many, a power of two, less one */

__u64 sent;
struct syn_flood_frame frame; /* with checksums of what is left 0 */

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline __u16 with(__u16 check, __u32 a, __u32 b, __u32 c)
{
	__u32 sum = (__u16)~check + a + b + c;

	sum = (sum & 0xffff) + (sum >> 16);
	return ~((sum & 0xffff) + (sum >> 16));
}

SEC("xdp")
int syn_flood(struct xdp_md *ctx)
{
	struct syn_flood_frame *f = (void *)(long)ctx->data;

	if ((void *)(f + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	/* An odd factor: each address once before any comes again, in an order without order. */
	__u32 n = sent++;
	__u32 source = bpf_htonl(source_base + ((n * 2654435761u) & source_mask));
	__u32 r = bpf_get_prandom_u32();
	__u16 a = source, b = source >> 16, port = bpf_htons(1024 + (r >> 17)), seq = r;

	/* All of it: the kernel uses the page again as the receiver left it. */
	__builtin_memcpy(f, &frame, sizeof(*f));
	f->source[0] = a;
	f->source[1] = b;
	f->source_port = port;
	f->seq[0] = seq;
	f->ip_check = with(f->ip_check, a, b, 0);
	f->check = with(f->check, a, b, (__u32)port + seq);
	return bpf_redirect(ifindex, 0);
}
