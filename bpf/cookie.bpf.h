/* SYN cookies: a SYN is answered without anything being remembered of it, and whoever sends the ACK
 * that answers has shown that its address is not forged.
 *
 * The cookies are the kernel's own, made and checked for a socket of the listener, so that the
 * kernel takes the ACK, too; it wants net.ipv4.tcp_syncookies=2 for that. Nothing but the MSS is
 * offered: what else a client asks for would have to travel in a timestamp, whose offset only the
 * kernel knows. */
#ifndef TIDEGATE_BPF_COOKIE_H
#define TIDEGATE_BPF_COOKIE_H

#include "maps.bpf.h"
#include "reply.bpf.h"
#include "sketch.bpf.h"

enum {
	COOKIE_WINDOW = 14600, /* what a client sends at first (RFC 6928); then the kernel speaks */
	COOKIE_TCP_MAX = 60,
	COOKIE_FLOWS = 4096,
};

/* ---- the flows that need no second look ---- */

/* Clients whose packets admit has let in, by a hash: their ACK was charged with their SYN or with
 * an earlier ACK, and data often comes right behind it, before the kernel has made the socket. One
 * that was overwritten is judged once more. */
__u64 cookie_flows[COOKIE_FLOWS];

static __always_inline __u64 cookie_flow(const struct syn *s, __u32 isn)
{
	const __u64 *low = (const __u64 *)(s->src.addr + 8);

	return tg_mix(tg_mix(s->prefix ^ *low ^ sketch_seed) ^
		      ((__u64)isn << 32 | (__u32)s->sport << 16 | s->dport));
}

static __always_inline void cookie_remember(const struct syn *s, __u32 isn)
{
	__u64 flow = cookie_flow(s, isn);

	cookie_flows[flow % COOKIE_FLOWS] = flow;
}

static __always_inline bool cookie_known(const struct syn *s, __u32 isn)
{
	__u64 flow = cookie_flow(s, isn);

	return cookie_flows[flow % COOKIE_FLOWS] == flow;
}

/* ---- with the kernel's help ---- */

struct cookie_work {
	/* What the kernel makes a cookie of; of the IP header the version and the addresses. */
	union {
		struct iphdr v4;
		struct ipv6hdr v6;
	} ip;
	__u8 tcp[COOKIE_TCP_MAX];
	__u32 tcp_len;
	__u32 listener, workers, rings;
	__u32 check; /* the headers are an ACK's; else a cookie is made for a SYN */
	__s64 result;
};

/* Too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cookie_work);
} cookie_scratch SEC(".maps");

struct cookie_loop {
	struct cookie_work *work;
};

/* In two steps: of a single comparison of a difference, as the compiler would make it, the verifier
 * learns nothing. */
static __always_inline bool cookie_bounded(__u32 *tcp_len)
{
	if (*tcp_len < sizeof(struct tcphdr))
		return false;
	asm volatile("" : "+r"(*tcp_len));
	return *tcp_len <= COOKIE_TCP_MAX;
}

/* Returns 1 to end the loop: each socket of the listener knows the same cookies, but one whose
 * accept queue is full makes none. */
static long cookie_worker(__u32 worker, struct cookie_loop *loop)
{
	struct cookie_work *w = loop->work;

	if (!w)
		return 1;
	__u32 index = (w->listener * w->workers + worker) * w->rings, len = w->tcp_len;
	struct tcphdr *th = (struct tcphdr *)w->tcp;
	struct bpf_sock *sk = bpf_map_lookup_elem(&listeners, &index);

	if (!sk)
		return 0;
	if (w->check)
		w->result =
			bpf_tcp_check_syncookie(sk, &w->ip.v6, sizeof(w->ip.v6), th, sizeof(*th));
	else if (cookie_bounded(&len))
		w->result = bpf_tcp_gen_syncookie(sk, &w->ip.v6, sizeof(w->ip.v6), th, len);
	bpf_sk_release(sk);
	return w->check || w->result >= 0;
}

static __always_inline int cookie_load(
	struct xdp_md *ctx, const struct syn *s, struct cookie_work *w)
{
	__u32 len = s->l4_len;

	if (s->family) {
		w->ip.v6.version = 6;
		__builtin_memcpy(&w->ip.v6.saddr, s->src.addr, 16);
		__builtin_memcpy(&w->ip.v6.daddr, s->dst, 16);
	} else {
		w->ip.v4.version = 4;
		w->ip.v4.saddr = ((const __u32 *)s->src.addr)[1];
		w->ip.v4.daddr = ((const __u32 *)s->dst)[1];
	}
	if (!cookie_bounded(&len))
		return -1;
	w->tcp_len = len;
	return bpf_xdp_load_bytes(ctx, s->l4_off, w->tcp, len);
}

/* Below zero: no listener, or it makes none, or does not take this one. */
static __always_inline __s64 cookie_work(struct xdp_md *ctx, const struct syn *s, bool check)
{
	struct tg_address_key key = {.prefixlen = 32 + 128, .port = s->dport};
	__u32 zero = 0;
	const struct tg_settings *set = bpf_map_lookup_elem(&settings, &zero);
	struct cookie_loop loop = {bpf_map_lookup_elem(&cookie_scratch, &zero)};
	struct cookie_work *w = loop.work;

	__builtin_memcpy(key.addr, s->dst, 16);
	const struct tg_address *a = bpf_map_lookup_elem(&addresses, &key);
	if (!a || !set || !w || cookie_load(ctx, s, w))
		return -1;
	w->listener = a->listener;
	w->workers = set->workers;
	w->rings = set->rings;
	w->check = check;
	w->result = -1;
	bpf_loop(w->workers, cookie_worker, &loop, 0);
	return w->result;
}

/* What we can receive: what the device takes, and no more than the client takes, for where its way
 * is narrow ours is. */
static __always_inline __u16 cookie_mss(struct xdp_md *ctx, const struct syn *s, __u16 client)
{
	__u32 headers =
		sizeof(struct tcphdr) + (s->family ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
	__u32 mtu = 0;

	if (bpf_check_mtu(ctx, 0, &mtu, 0, 0) < 0 || mtu <= headers || client + headers <= mtu)
		return client;
	return mtu - headers;
}

/* Makes the SYN its answer. 0, or -1 and it is as it was. */
__noinline int cookie_answer(struct xdp_md *ctx, const struct syn *s)
{
	if (!s)
		return -1;
	__s64 made = cookie_work(ctx, s, false);
	if (made < 0)
		return -1;
	struct reply r = {.seq = made,
		.ack = s->seq + 1, /* what data it carries is to be sent again */
		.flags = TCP_SYN | TCP_ACK,
		.window = COOKIE_WINDOW,
		.mss = cookie_mss(ctx, s, made >> 32)};
	return reply_build(ctx, s, &r);
}

/* 1: the ACK answers a cookie of these minutes. */
__noinline int cookie_answered(struct xdp_md *ctx, const struct syn *ack)
{
	return ack && !cookie_work(ctx, ack, true);
}

/* 1: it is of a connection that the kernel has. */
__noinline int cookie_connected(struct xdp_md *ctx, const struct syn *ack)
{
	struct bpf_sock_tuple t = {};
	__u32 size = sizeof(t.ipv4);

	if (!ack)
		return 0;
	if (ack->family) {
		__builtin_memcpy(t.ipv6.saddr, ack->src.addr, 16);
		__builtin_memcpy(t.ipv6.daddr, ack->dst, 16);
		t.ipv6.sport = ack->sport;
		t.ipv6.dport = ack->dport;
		size = sizeof(t.ipv6);
	} else {
		t.ipv4.saddr = ((const __u32 *)ack->src.addr)[1];
		t.ipv4.daddr = ((const __u32 *)ack->dst)[1];
		t.ipv4.sport = ack->sport;
		t.ipv4.dport = ack->dport;
	}
	struct bpf_sock *sk = bpf_skc_lookup_tcp(ctx, &t, size, BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return 0;
	int connected = sk->state != BPF_TCP_LISTEN;
	bpf_sk_release(sk);
	return connected;
}

#endif
