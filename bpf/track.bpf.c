// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/* Counts the gateway's connections as they complete their TCP handshake and as they end, by source
 * prefix, and puts prefixes into the penalty box that churn or hold too many.
 *
 * A connection is the gateway's when it was accepted on one of its ports in its network namespace.
 * What has not completed the handshake leaves no trace here: a source that anybody can forge must
 * neither fill a map nor have the forged one punished. Where there is no room, a connection goes
 * uncounted and unlimited, and that is counted. */
#include "level.bpf.h"
#include "octave.bpf.h"
#include "open.bpf.h"
#include "penalty.bpf.h"
#include "proven.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define USEC 1000ULL
#define MSEC 1000000ULL

enum {
	AF_INET = 2,
	AF_INET6 = 10,
	SOCK_DEAD = 1, /* bit of skc_flags: its owner has closed it */
	NO_MARK = -2,  /* -ENOENT */
};

/* States in which a socket has a peer: one that ends is counted as a close. */
#define STATES_OPEN                                                                                \
	(1 << BPF_TCP_ESTABLISHED | 1 << BPF_TCP_FIN_WAIT1 | 1 << BPF_TCP_FIN_WAIT2 |              \
		1 << BPF_TCP_CLOSE_WAIT | 1 << BPF_TCP_LAST_ACK | 1 << BPF_TCP_CLOSING)

const volatile __u64 track_number; /* counts while tg_pace.track is this */
/* One connection of sample_mask + 1 has its lifetime taken: what remembers it costs 320 bytes. */
const volatile __u32 sample_mask = 63;

struct event {
	__u64 now;
	struct tg_lpm_key source; /* the peer's address */
	__u32 family;             /* index */
	__u32 establish;
	__u32 exempt; /* from per-source limits */
};

/* ---- whose it is ---- */

/* An IPv4 address as in tg_lpm_key. */
static __always_inline void widen(__u8 addr[16], __be32 ip)
{
	__u32 *w = (__u32 *)addr;

	w[0] = bpf_htonl(0xffff);
	w[1] = ip;
	w[2] = 0;
	w[3] = 0;
}

/* True: it is of IPv4. A socket of both families has such addresses mapped (RFC 4291 2.5.5.2). */
static __always_inline bool widen_mapped(__u8 addr[16])
{
	const __u32 *w = (const __u32 *)addr;

	if (w[0] || w[1] || w[2] != bpf_htonl(0xffff))
		return false;
	widen(addr, w[3]);
	return true;
}

static __always_inline bool ours(const struct sock *sk)
{
	/* Not skc_num: a socket that ends has given back its port by now. */
	__be16 sport = BPF_CORE_READ((const struct inet_sock *)sk, inet_sport);
	__u16 port = bpf_ntohs(sport);
	__u32 word = port / 32, bit = 1u << port % 32;
	struct tg_port_word *p = bpf_map_lookup_elem(&ports, &word);

	if (!p || !((p->any | p->listed) & bit))
		return false;
	if (p->any & bit)
		return true;
	struct tg_address_key key = {.prefixlen = 32 + 128, .port = sport};
	if (sk->__sk_common.skc_family == AF_INET) {
		widen(key.addr, sk->__sk_common.skc_rcv_saddr);
	} else {
		BPF_CORE_READ_INTO(&key.addr, sk, __sk_common.skc_v6_rcv_saddr);
		widen_mapped(key.addr);
	}
	return bpf_map_lookup_elem(&addresses, &key);
}

static __always_inline bool read_source(const struct sock *sk, struct event *e)
{
	e->source.prefixlen = 128;
	switch (sk->__sk_common.skc_family) {
	case AF_INET:
		widen(e->source.addr, sk->__sk_common.skc_daddr);
		return true;
	case AF_INET6:
		BPF_CORE_READ_INTO(&e->source.addr, sk, __sk_common.skc_v6_daddr);
		e->family = !widen_mapped(e->source.addr);
		return true;
	}
	return false;
}

static __always_inline bool is_loopback(const struct event *e)
{
	const __u32 *w = (const __u32 *)e->source.addr;

	if (!e->family)
		return e->source.addr[4] == 127;
	return !w[0] && !w[1] && !w[2] && w[3] == bpf_htonl(1);
}

/* The key of the source's prefix in a tier. */
static __always_inline void prefix_of(const struct event *e, __u32 len, struct tg_prefix *key)
{
	const __u32 *from = (const __u32 *)e->source.addr;
	__u64 bits = e->family ? (__u64)bpf_ntohl(from[0]) << 32 | bpf_ntohl(from[1])
			       : (__u64)bpf_ntohl(from[1]) << 32;
	__u32 *w = (__u32 *)key->addr;

	bits &= ~0ULL << ((64 - len) & 63);
	w[0] = bpf_htonl(bits >> 32);
	w[1] = bpf_htonl((__u32)bits);
	key->len = len;
	key->family = e->family ? 6 : 4;
	key->zero[0] = 0;
	key->zero[1] = 0;
}

/* ---- one tier ---- */

struct weighing {
	__u32 weight;
	bool apart; /* a narrower prefix has a weight of its own: it is not this one's to limit */
};

/* The narrowest tier takes whatever weight the address has, since there is none below it. */
static __always_inline void weigh(const struct event *e, const struct tg_settings *s, __u32 tier,
	__u32 len, struct weighing *w)
{
	w->weight = 1;
	w->apart = e->exempt;
	if (!(s->flags & TG_SET_WEIGHTS))
		return;
	struct tg_lpm_key key = e->source;
	const struct tg_weight *own = bpf_map_lookup_elem(&weights, &key), *of = own;
	if (tier) {
		key.prefixlen = e->family ? len : 32 + len;
		of = bpf_map_lookup_elem(&weights, &key);
		w->apart |= of != own;
	}
	if (of && of->weight)
		w->weight = of->weight;
	w->apart |= w->weight == TG_WEIGHT_EXEMPT;
}

static __always_inline struct tg_source *source_entry(const struct event *e, struct tg_prefix *key)
{
	struct tg_source *src = bpf_map_lookup_elem(&sources, key);

	if (src || !e->establish)
		return src;
	struct tg_source fresh = {.first_ns = e->now, .last_ns = e->now};
	long rc = bpf_map_update_elem(&sources, key, &fresh, BPF_NOEXIST);
	if (rc && rc != -OPEN_EEXIST) {
		verdict_count(TG_TRACK_SOURCES_FULL, false);
		return 0;
	}
	return bpf_map_lookup_elem(&sources, key);
}

/* True: it churns too fast. */
static __always_inline bool account(const struct event *e, struct tg_source *src,
	const struct tg_tier *t, const struct weighing *w, __u32 open_before)
{
	__u64 last = src->last_ns;

	__sync_fetch_and_add(e->establish ? &src->accepts : &src->closes, 1);
	if (e->establish)
		src->weight = w->weight;
	if (__sync_val_compare_and_swap(&src->last_ns, last, e->now) == last && e->now > last)
		__sync_fetch_and_add(&src->lifetime_us, (e->now - last) / USEC * open_before);
	if (!t->churn_interval_ns || w->apart)
		return false;
	__u64 interval = t->churn_interval_ns / w->weight;

	if (!interval)
		interval = 1;
	__u64 burst = gcra_burst(t->churn_burst_ns, interval);
	return gcra_take(&src->churn_tat_ns, e->now, interval, burst, burst) == GCRA_OVER;
}

/* A global function, for the verifier. */
__noinline int prove(const struct tg_prefix *key, __u32 weight)
{
	__u32 zero = 0;
	const struct tg_settings *s = bpf_map_lookup_elem(&settings, &zero);

	if (!key || !s)
		return 0;
	const __u32 *w = (const __u32 *)key->addr;
	__u64 bits = (__u64)bpf_ntohl(w[0]) << 32 | bpf_ntohl(w[1]);
	proven_put(s, bits, key->len, key->family, weight);
	return 0;
}

static __always_inline enum open_result count_open(
	const struct event *e, const struct tg_pace *p, struct open_change *c, bool apart)
{
	c->delta = e->establish ? 1 : -1;
	c->weighted = apart ? c->delta : 0;
	c->make = e->establish || p->merging;
	enum open_result r = open_change(c);
	if (r == OPEN_FAILED)
		verdict_count(TG_TRACK_OPEN_FULL, false);
	return r;
}

static __always_inline void judge(const struct event *e, const struct tg_tier *t,
	const struct weighing *w, struct open_change *c, enum open_result counted)
{
	struct penalty_case box = {.key = c->key, .now = e->now};
	__s32 before = counted == OPEN_COUNTED ? c->connections - c->delta : 0;
	struct tg_source *src = source_entry(e, &c->key);

	if (src && account(e, src, t, w, before > 0 ? before : 0)) {
		box.reason = TG_PENALTY_CHURN;
		penalty_put(&box);
	}
	if (e->establish && counted == OPEN_COUNTED && t->open_limit && !w->apart &&
		(__u64)c->limited > (__u64)t->open_limit * w->weight) {
		box.reason = TG_PENALTY_CONCURRENCY;
		penalty_put(&box);
	}
}

__noinline int count_in_tier(const struct event *from, __u32 tier)
{
	__u32 zero = 0;
	const struct tg_settings *s = bpf_map_lookup_elem(&settings, &zero);
	const struct tg_pace *p = bpf_map_lookup_elem(&pace, &zero);
	struct open_change c = {};
	struct weighing w;

	if (!from || tier >= TG_TIERS || !s || !p)
		return 0;
	struct event e = *from;
	__u32 f = e.family & 1;
	const struct tg_tier *t = &s->tier[f][tier];
	__u32 len = t->len;
	if (!len || len > (f ? TG_PREFIX_V6_MAX : 32))
		return 0;
	prefix_of(&e, len, &c.key);
	weigh(&e, s, tier, len, &w);
	if (!tier && e.establish)
		prove(&c.key, w.weight);
	enum open_result counted = count_open(&e, p, &c, w.apart);
	if (!tier && !e.establish && counted == OPEN_ABSENT)
		verdict_count(TG_TRACK_CLOSED_UNKNOWN, false);
	judge(&e, t, &w, &c, counted);
	return 0;
}

static __always_inline void count_source(struct event *e, const struct tg_settings *s)
{
	e->exempt = s->flags & TG_SET_EXEMPT_LOOPBACK && is_loopback(e);
	for (__u32 tier = 0; tier < TG_TIERS; tier++)
		count_in_tier(e, tier);
}

/* ---- lifetime ---- */

static __always_inline void count_lifetime(__u64 ns)
{
	__u32 bucket = octave(ns / MSEC);

	if (bucket >= TG_LIFETIME_BUCKETS)
		bucket = TG_LIFETIME_BUCKETS - 1;
	__u64 *n = bpf_map_lookup_elem(&lifetime, &bucket);
	if (n)
		++*n;
}

static __always_inline void remember(struct sock *sk, __u64 now, bool outgoing)
{
	struct tg_born fresh = {.established_ns = now, .outgoing = outgoing};

	bpf_sk_storage_get(&born, sk, &fresh, BPF_LOCAL_STORAGE_GET_F_CREATE);
}

/* ---- events ---- */

static __always_inline void on_establish(
	struct sock *sk, struct event *e, const struct tg_settings *s, struct tg_pace *p)
{
	__u32 zero = 0;
	struct tg_gate *g = bpf_map_lookup_elem(&gate, &zero);

	__sync_fetch_and_add(&p->established, 1);
	verdict_count(TG_TRACK_ESTABLISHED, false);
	if (g && g->permits)
		level_update(p, g, s->workers);
	if (!(bpf_get_prandom_u32() & sample_mask))
		remember(sk, e->now, false);
	count_source(e, s);
}

/* Nobody accepted it, and neither the peer nor the network ended it (each leaves an error): its
 * listener went away, and nobody took over the queue. */
static __always_inline bool abandoned(const struct sock *sk)
{
	return !sk->sk_socket && !(sk->__sk_common.skc_flags & SOCK_DEAD) && !sk->sk_err;
}

static __always_inline void on_close(
	struct sock *sk, struct event *e, const struct tg_settings *s, struct tg_pace *p)
{
	struct tg_born *b = bpf_sk_storage_get(&born, sk, 0, 0);

	if (b && b->outgoing)
		return;
	__sync_fetch_and_add(&p->closed, 1);
	verdict_count(TG_TRACK_CLOSED, false);
	if (abandoned(sk)) {
		__sync_fetch_and_add(&p->abandoned, 1);
		verdict_count(TG_TRACK_ABANDONED, false);
	}
	if (b && e->now > b->established_ns)
		count_lifetime(e->now - b->established_ns);
	count_source(e, s);
}

static __always_inline void on_state(struct sock *sk, int from, bool ends)
{
	__u32 zero = 0;
	struct event e = {.now = bpf_ktime_get_ns(), .establish = !ends};
	struct tg_settings *s = bpf_map_lookup_elem(&settings, &zero);
	struct tg_pace *p = bpf_map_lookup_elem(&pace, &zero);

	if (!s || !p || p->track != track_number ||
		sk->__sk_common.skc_net.net->net_cookie != s->netns_cookie || !read_source(sk, &e))
		return;
	if (ends)
		on_close(sk, &e, s, p);
	else if (from == BPF_TCP_SYN_RECV)
		on_establish(sk, &e, s, p);
	else if (from == BPF_TCP_SYN_SENT)
		remember(sk, e.now, true);
}

/* ---- twice, so that nothing is missed ---- */

static __always_inline bool of_interest(const struct sock *sk, int from, int to, bool *ret_ends)
{
	*ret_ends = to == BPF_TCP_CLOSE && 1 << (from & 31) & STATES_OPEN;
	return (to == BPF_TCP_ESTABLISHED || *ret_ends) && sk->sk_protocol == IPPROTO_TCP &&
	       ours(sk);
}

/* A program is not entered again on a CPU where it runs already, and Linux 7.3 leaves preemption on
 * in tracepoints: while a thread that is in it waits for its CPU, it misses what others do there,
 * and a close that is missed counts as open for ever. So there are two, one after the other. The
 * first leaves a mark for the second, which does what bears none. A socket's owner holds its lock
 * over both, so a mark is of this event. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64); /* the socket's address */
	__type(value, __u8);
} done SEC(".maps");

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(tidegate_track, struct sock *sk, int from, int to)
{
	__u64 key = (__u64)sk;
	__u8 mark = 1;
	bool ends;

	/* Where there is no room for the mark, it is all the second one's. */
	if (of_interest(sk, from, to, &ends) && !bpf_map_update_elem(&done, &key, &mark, BPF_ANY))
		on_state(sk, from, ends);
	return 0;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(tidegate_track_missed, struct sock *sk, int from, int to)
{
	__u64 key = (__u64)sk;
	bool ends;

	if (of_interest(sk, from, to, &ends) && bpf_map_delete_elem(&done, &key) == NO_MARK)
		on_state(sk, from, ends);
	return 0;
}

/* ---- moving the counts of replaced maps ---- */

struct merge {
	struct tg_prefix key;
	__s32 delta; /* 0: ends an entry that is below zero */
};

/* Run by the keeper, an entry at a time, since user space could not add to one that moves. */
SEC("syscall")
int tidegate_merge(struct merge *m)
{
	struct open_change c = {.key = m->key, .delta = m->delta, .make = 1};

	if (!m->delta) {
		struct tg_open *o = bpf_map_lookup_elem(&open, &c.key);
		if (!o || o->connections >= 0)
			return OPEN_COUNTED;
		c.delta = -o->connections;
		c.make = 0;
	}
	return open_change(&c);
}
