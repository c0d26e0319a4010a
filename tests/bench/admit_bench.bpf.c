// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/* The admission program as it is, beside what it is measured against: an empty program, and one
 * that only does what the measurement itself needs, to give each packet another source. */
#include "admit.bpf.c"

const volatile __u32 bench_sources = 1; /* a power of two */
__u32 bench_next;

/* 16.0.0.0 and up, in an order that caches cannot guess. */
static __always_inline void bench_rewrite(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + sizeof(struct ethhdr);

	if ((void *)(ip + 1) > end)
		return;
	ip->saddr = bpf_htonl((16u << 24) + ((bench_next++ * 2654435761u) & (bench_sources - 1)));
}

/* A repetition is given what the one before has made of the frame: a SYN with 20 bytes of options
 * is put back. */
__u8 bench_frame[sizeof(struct ethhdr) + sizeof(struct iphdr) + sizeof(struct tcphdr) + 20];

static __always_inline void bench_restore(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	if (data + sizeof(bench_frame) <= end)
		__builtin_memcpy(data, bench_frame, sizeof(bench_frame));
}

SEC("xdp.frags")
int bench_empty(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("xdp.frags")
int bench_spread_empty(struct xdp_md *ctx)
{
	bench_rewrite(ctx);
	return XDP_PASS;
}

SEC("xdp.frags")
int bench_spread(struct xdp_md *ctx)
{
	bench_rewrite(ctx);
	return admit(ctx);
}

SEC("xdp.frags")
int bench_restore_empty(struct xdp_md *ctx)
{
	bench_restore(ctx);
	return XDP_PASS;
}

SEC("xdp.frags")
int bench_answer(struct xdp_md *ctx)
{
	bench_restore(ctx);
	return admit(ctx);
}
