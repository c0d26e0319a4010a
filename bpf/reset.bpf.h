/* Turns a SYN into the RST|ACK that refuses it (RFC 9293 3.10.7.1), in place: same L2 header turned
 * round, IP and TCP headers without options. The frame keeps its length; what is behind the end
 * that the IP header names is padding, as Ethernet knows it. Cutting it off would make this a
 * program that changes packet data, which newer kernels do not take into the slot of a dispatcher
 * that does not.
 */
#ifndef TIDEGATE_BPF_RESET_H
#define TIDEGATE_BPF_RESET_H

#include "parse.bpf.h"

enum {
	RESET_TTL = 64,
};

static __always_inline __u16 reset_fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* Of an even number of bytes, at most 40 here: no overflow. */
static __always_inline __u32 reset_sum(const void *p, int len)
{
	const __u16 *w = p;
	__u32 sum = 0;

#pragma unroll
	for (int i = 0; i < len / 2; i++)
		sum += w[i];
	return sum;
}

static __always_inline void reset_swap_ethernet(struct ethhdr *eth)
{
	__u8 mac[ETH_ALEN];

	__builtin_memcpy(mac, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, mac, ETH_ALEN);
}

static __always_inline void reset_tcp(struct tcphdr *th, const struct syn *s, __u32 pseudo)
{
	__builtin_memset(th, 0, sizeof(*th));
	th->source = s->dport;
	th->dest = s->sport;
	th->ack_seq = bpf_htonl(s->seq + 1 + s->data_len);
	th->doff = sizeof(*th) / 4;
	th->rst = 1;
	th->ack = 1;
	th->check = reset_fold(pseudo + reset_sum(th, sizeof(*th)) + bpf_htons(IPPROTO_TCP) +
			       bpf_htons(sizeof(*th)));
}

static __always_inline int reset_ip4(void *l3, void *end, const struct syn *s)
{
	struct iphdr *ip = l3;
	struct tcphdr *th = (void *)(ip + 1);

	if ((void *)(th + 1) > end)
		return -1;
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 4;
	ip->ihl = sizeof(*ip) / 4;
	ip->tot_len = bpf_htons(sizeof(*ip) + sizeof(*th));
	ip->frag_off = bpf_htons(0x4000); /* do not fragment */
	ip->ttl = RESET_TTL;
	ip->protocol = IPPROTO_TCP;
	ip->saddr = ((const __u32 *)s->dst)[1];
	ip->daddr = ((const __u32 *)s->src.addr)[1];
	ip->check = reset_fold(reset_sum(ip, sizeof(*ip)));
	reset_tcp(th, s, reset_sum(&ip->saddr, 8));
	return 0;
}

static __always_inline int reset_ip6(void *l3, void *end, const struct syn *s)
{
	struct ipv6hdr *ip = l3;
	struct tcphdr *th = (void *)(ip + 1);

	if ((void *)(th + 1) > end)
		return -1;
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 6;
	ip->payload_len = bpf_htons(sizeof(*th));
	ip->nexthdr = IPPROTO_TCP;
	ip->hop_limit = RESET_TTL;
	__builtin_memcpy(&ip->saddr, s->dst, 16);
	__builtin_memcpy(&ip->daddr, s->src.addr, 16);
	reset_tcp(th, s, reset_sum(&ip->saddr, 32));
	return 0;
}

/* 0: the frame is the answer, send it back. -1: it cannot be. */
static __always_inline int reset_build(struct xdp_md *ctx, const struct syn *s)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 l2_len = s->l2_len;

	if (data + sizeof(struct ethhdr) > end || l2_len > sizeof(struct ethhdr) + 8)
		return -1;
	reset_swap_ethernet(data);
	void *l3 = data + l2_len;
	/* One pointer for check and use, or the verifier takes them for two. */
	asm volatile("" : "+r"(l3));
	return s->family ? reset_ip6(l3, end, s) : reset_ip4(l3, end, s);
}

#endif
