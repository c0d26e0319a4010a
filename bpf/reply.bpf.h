/* Turns a SYN, or the ACK that answers a SYN cookie, into our answer to it, in place: same L2
 * header turned round, IP and TCP headers without options but the MSS. The frame keeps its length;
 * what is behind the end that the IP header names is padding, as Ethernet knows it. Cutting it off
 * would make this a program that changes packet data, which newer kernels do not take into the slot
 * of a dispatcher that does not.
 */
#ifndef TIDEGATE_BPF_REPLY_H
#define TIDEGATE_BPF_REPLY_H

#include "parse.bpf.h"

enum {
	REPLY_TTL = 64,
	REPLY_MSS_OPTION = 2 << 24 | 4 << 16, /* kind and length; RFC 9293 3.2 */
};

/* In host order. */
struct reply {
	__u32 seq, ack;
	__u16 window;
	__u16 mss; /* 0: no option; nor where the frame has no room for it */
	__u8 flags;
};

static __always_inline __u16 reply_fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* Of an even number of bytes, at most 40 here: no overflow. */
static __always_inline __u32 reply_sum(const void *p, int len)
{
	const __u16 *w = p;
	__u32 sum = 0;

#pragma unroll
	for (int i = 0; i < len / 2; i++)
		sum += w[i];
	return sum;
}

static __always_inline void reply_swap_ethernet(struct ethhdr *eth)
{
	__u8 mac[ETH_ALEN];

	__builtin_memcpy(mac, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, mac, ETH_ALEN);
}

/* The option's place behind the TCP header, or NULL: there is none. */
static __always_inline __be32 *reply_option(
	struct tcphdr *th, const void *end, const struct reply *r)
{
	__be32 *option = (__be32 *)(th + 1);

	return r->mss && (void *)(option + 1) <= end ? option : 0;
}

static __always_inline void reply_tcp(
	struct tcphdr *th, __be32 *option, const struct syn *s, const struct reply *r, __u32 pseudo)
{
	__u32 len = sizeof(*th) + (option ? sizeof(*option) : 0);
	__u32 sum = pseudo + bpf_htons(IPPROTO_TCP) + bpf_htons(len);

	__builtin_memset(th, 0, sizeof(*th));
	th->source = s->dport;
	th->dest = s->sport;
	th->seq = bpf_htonl(r->seq);
	th->ack_seq = bpf_htonl(r->ack);
	th->doff = len / 4;
	((__u8 *)th)[13] = r->flags;
	th->window = bpf_htons(r->window);
	if (option) {
		*option = bpf_htonl(REPLY_MSS_OPTION | r->mss);
		sum += reply_sum(option, sizeof(*option));
	}
	th->check = reply_fold(sum + reply_sum(th, sizeof(*th)));
}

static __always_inline int reply_ip4(
	void *l3, void *end, const struct syn *s, const struct reply *r)
{
	struct iphdr *ip = l3;
	struct tcphdr *th = (void *)(ip + 1);

	if ((void *)(th + 1) > end)
		return -1;
	__be32 *option = reply_option(th, end, r);
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 4;
	ip->ihl = sizeof(*ip) / 4;
	ip->tot_len = bpf_htons(sizeof(*ip) + sizeof(*th) + (option ? sizeof(*option) : 0));
	ip->frag_off = bpf_htons(0x4000); /* do not fragment */
	ip->ttl = REPLY_TTL;
	ip->protocol = IPPROTO_TCP;
	ip->saddr = ((const __u32 *)s->dst)[1];
	ip->daddr = ((const __u32 *)s->src.addr)[1];
	ip->check = reply_fold(reply_sum(ip, sizeof(*ip)));
	reply_tcp(th, option, s, r, reply_sum(&ip->saddr, 8));
	return 0;
}

static __always_inline int reply_ip6(
	void *l3, void *end, const struct syn *s, const struct reply *r)
{
	struct ipv6hdr *ip = l3;
	struct tcphdr *th = (void *)(ip + 1);

	if ((void *)(th + 1) > end)
		return -1;
	__be32 *option = reply_option(th, end, r);
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 6;
	ip->payload_len = bpf_htons(sizeof(*th) + (option ? sizeof(*option) : 0));
	ip->nexthdr = IPPROTO_TCP;
	ip->hop_limit = REPLY_TTL;
	__builtin_memcpy(&ip->saddr, s->dst, 16);
	__builtin_memcpy(&ip->daddr, s->src.addr, 16);
	reply_tcp(th, option, s, r, reply_sum(&ip->saddr, 32));
	return 0;
}

/* 0: the frame is the answer, send it back. -1: it cannot be. */
static __always_inline int reply_build(
	struct xdp_md *ctx, const struct syn *s, const struct reply *r)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 l2_len = s->l2_len;

	if (data + sizeof(struct ethhdr) > end || l2_len > sizeof(struct ethhdr) + 8)
		return -1;
	reply_swap_ethernet(data);
	void *l3 = data + l2_len;
	/* One pointer for check and use, or the verifier takes them for two. */
	asm volatile("" : "+r"(l3));
	return s->family ? reply_ip6(l3, end, s, r) : reply_ip4(l3, end, s, r);
}

/* The RST that refuses it (RFC 9293 3.10.7.1). */
static __always_inline int reply_reset(struct xdp_md *ctx, const struct syn *s)
{
	struct reply r = {.ack = s->seq + 1 + s->data_len, .flags = TCP_RST | TCP_ACK};

	if (s->flags & TCP_ACK)
		r = (struct reply){.seq = s->ack, .flags = TCP_RST};
	return reply_build(ctx, s, &r);
}

#endif
