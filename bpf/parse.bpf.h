/* From a frame to the SYN in it, or to the ACK that may answer a SYN cookie: Ethernet, up to two
 * VLAN tags, IPv4 with options, IPv6 with extension headers, TCP. Each header is bounded once, by
 * the cursor, before it is read.
 *
 * Whatever is not a whole SYN (or ACK) is PARSE_OTHER and none of ours: fragments, too, since only
 * the kernel puts them together. An IPv6 fragment header that stands for a whole packet (RFC 6946)
 * is skipped like any other extension, or it would be a way around the gate. */
#ifndef TIDEGATE_BPF_PARSE_H
#define TIDEGATE_BPF_PARSE_H

#include "kernel.bpf.h"

#include <stddef.h>

enum {
	PARSE_VLANS_MAX = 2,      /* 802.1ad over 802.1Q */
	PARSE_EXTENSIONS_MAX = 8, /* more is nothing a client sends */

	PARSE_IP4_FRAGMENT = 0x3fff, /* offset, or more to come */
	PARSE_IP6_FRAGMENT = 0xfff9,

	TCP_FIN = 0x01,
	TCP_SYN = 0x02,
	TCP_RST = 0x04,
	TCP_ACK = 0x10,
};

enum parse_result {
	PARSE_OTHER,
	PARSE_FOUND,
	PARSE_MALFORMED, /* it cannot be one; the kernel's TCP will drop it */
};

struct syn {
	__u32 pad;             /* the address in src is aligned to 8 */
	struct tg_lpm_key src; /* prefixlen 128 */
	__u8 dst[16];          /* as in tg_lpm_key */
	__u64 prefix;          /* IPv4: address << 32; IPv6: the upper 64 bits; host order */
	__u32 seq, ack;        /* ack: 0 of a SYN */
	__u32 data_len;        /* after the TCP header */
	__u32 family;          /* index: 0 IPv4, 1 IPv6 */
	__be16 sport, dport;
	__u16 port;   /* dport in host order */
	__u16 l2_len; /* up to the IP header */
	__u16 l4_off; /* up to the TCP header … */
	__u16 l4_len; /* … and its length */
	__u16 flags;  /* of the TCP header */
	__u16 local;  /* 1: from 127.0.0.0/8 or ::1 */
};
_Static_assert(sizeof(struct syn) == 80, "no padding: functions of their own are given it");

/* What is looked for. */
enum parse_what {
	/* What a listening socket takes for a SYN; the other flags do not matter to it. */
	PARSE_FOR_SYN,
	/* What it may take for the answer to a SYN cookie: an ACK, with data or a FIN or without.
	 */
	PARSE_FOR_ANSWER,
};

struct cursor {
	void *pos, *end;
};

#define PARSE_NEXT(c, type)                                                                        \
	({                                                                                         \
		type *parse_h = (c)->pos;                                                          \
		(c)->pos = parse_h + 1;                                                            \
		(c)->pos > (c)->end ? 0 : parse_h;                                                 \
	})

struct parse_vlan {
	__be16 tag, proto;
};

struct parse_extension {
	__u8 next, len;
	__be16 fragment; /* of a fragment header */
	__be32 rest;
};

/* The network protocol, or 0. */
static __always_inline __be16 parse_ethernet(struct cursor *c)
{
	struct ethhdr *eth = PARSE_NEXT(c, struct ethhdr);
	if (!eth)
		return 0;
	/* The struct is packed, and two loads of a byte would be made of it. */
	__be16 proto = *(__be16 *)((void *)eth + offsetof(struct ethhdr, h_proto));

#pragma unroll
	for (int i = 0; i < PARSE_VLANS_MAX; i++) {
		if (proto != bpf_htons(ETH_P_8021Q) && proto != bpf_htons(ETH_P_8021AD))
			break;
		struct parse_vlan *vlan = PARSE_NEXT(c, struct parse_vlan);
		if (!vlan)
			return 0;
		proto = vlan->proto;
	}
	return proto;
}

/* Moves the cursor to the end of the extension headers. The protocol, or -1. */
static __always_inline int parse_extensions(struct cursor *c, int next)
{
	for (int i = 0; i < PARSE_EXTENSIONS_MAX; i++) {
		struct parse_extension *ext = c->pos;
		if (next == IPPROTO_TCP)
			return next;
		if ((void *)(ext + 1) > c->end)
			return -1;
		switch (next) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
			c->pos += (ext->len + 1) * 8;
			break;
		case IPPROTO_AH:
			c->pos += (ext->len + 2) * 4;
			break;
		case IPPROTO_FRAGMENT:
			if (ext->fragment & bpf_htons(PARSE_IP6_FRAGMENT))
				return -1;
			c->pos += sizeof(*ext);
			break;
		default:
			return -1;
		}
		next = ext->next;
	}
	return next == IPPROTO_TCP ? next : -1;
}

static __always_inline struct tcphdr *parse_tcp(struct cursor *c, enum parse_what what)
{
	struct tcphdr *th = PARSE_NEXT(c, struct tcphdr);

	if (!th)
		return 0;
	__u8 flags = ((__u8 *)th)[13];
	if (what == PARSE_FOR_SYN)
		return (flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) == TCP_SYN ? th : 0;
	return (flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_ACK ? th : 0;
}

static __always_inline enum parse_result parse_finish(
	struct syn *s, const struct tcphdr *th, int payload, enum parse_what what)
{
	int len = th->doff * 4, data_len = payload - len;

	s->src.prefixlen = 128;
	s->sport = th->source;
	s->dport = th->dest;
	s->port = bpf_ntohs(th->dest);
	s->seq = bpf_ntohl(th->seq);
	s->ack = what == PARSE_FOR_ANSWER ? bpf_ntohl(th->ack_seq) : 0;
	s->data_len = data_len;
	s->l4_len = len;
	s->flags = ((const __u8 *)th)[13];
	return len < (int)sizeof(*th) || data_len < 0 ? PARSE_MALFORMED : PARSE_FOUND;
}

/* IPv4 among the IPv6 addresses, as tg_lpm_key has it. */
static __always_inline void parse_widen(__u8 addr[16], __be32 ip)
{
	__u64 *w = (__u64 *)addr;

	w[0] = bpf_cpu_to_be64(0xffffULL << 32 | bpf_ntohl(ip));
	w[1] = 0;
}

static __always_inline enum parse_result parse_ip4(
	struct cursor *c, struct syn *s, enum parse_what what)
{
	struct iphdr *ip = PARSE_NEXT(c, struct iphdr);
	if (!ip || ip->protocol != IPPROTO_TCP)
		return PARSE_OTHER;
	int len = ip->ihl * 4;
	if (ip->version != 4 || len < (int)sizeof(*ip) ||
		ip->frag_off & bpf_htons(PARSE_IP4_FRAGMENT))
		return PARSE_OTHER;
	c->pos = (void *)ip + len;

	struct tcphdr *th = parse_tcp(c, what);
	if (!th)
		return PARSE_OTHER;
	s->family = 0;
	parse_widen(s->src.addr, ip->saddr);
	parse_widen(s->dst, ip->daddr);
	s->prefix = (__u64)bpf_ntohl(ip->saddr) << 32;
	s->local = s->prefix >> 56 == 127;
	return parse_finish(s, th, (int)bpf_ntohs(ip->tot_len) - len, what);
}

static __always_inline enum parse_result parse_ip6(
	struct cursor *c, struct syn *s, enum parse_what what)
{
	struct ipv6hdr *ip = PARSE_NEXT(c, struct ipv6hdr);
	if (!ip || ip->version != 6)
		return PARSE_OTHER;
	void *first = c->pos;
	if (ip->nexthdr != IPPROTO_TCP && parse_extensions(c, ip->nexthdr) < 0)
		return PARSE_OTHER;
	int extensions = c->pos - first;

	struct tcphdr *th = parse_tcp(c, what);
	if (!th)
		return PARSE_OTHER;
	s->family = 1;
	__builtin_memcpy(s->src.addr, &ip->saddr, 16);
	__builtin_memcpy(s->dst, &ip->daddr, 16);
	__u32 *w = (__u32 *)s->src.addr;
	s->prefix = (__u64)bpf_ntohl(w[0]) << 32 | bpf_ntohl(w[1]);
	s->local = !s->prefix && !w[2] && w[3] == bpf_htonl(1);
	return parse_finish(s, th, (int)bpf_ntohs(ip->payload_len) - extensions, what);
}

/* PARSE_OTHER leaves s as it was. */
static __always_inline enum parse_result parse_syn(
	struct xdp_md *ctx, struct syn *s, enum parse_what what)
{
	void *data = (void *)(long)ctx->data;
	struct cursor c = {data, (void *)(long)ctx->data_end};
	__be16 proto = parse_ethernet(&c);
	void *l3 = c.pos;
	enum parse_result r = PARSE_OTHER;

	if (proto == bpf_htons(ETH_P_IP))
		r = parse_ip4(&c, s, what);
	else if (proto == bpf_htons(ETH_P_IPV6))
		r = parse_ip6(&c, s, what);
	if (r == PARSE_OTHER)
		return r;
	s->l2_len = l3 - data;
	s->l4_off = c.pos - data - sizeof(struct tcphdr);
	return r;
}

#endif
