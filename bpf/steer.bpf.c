// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/* Gives each new connection to the worker that will serve it soonest, and packets of whole port
 * ranges and prefixes to one listener.
 *
 * The choice is between two workers picked at random, never the one best of all: many SYNs come
 * between two publications, and they would all go to it. A worker that hangs is given nothing.
 * What cannot be decided is left to the kernel's hash over the listener's sockets. */
#include "maps.bpf.h"
#include "octave.bpf.h"
#include "verdict.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum {
	/* Delays up to 2^20 ns, 1 ms, are alike: such differences are chance, and would outweigh
	 * the connections. Above, each doubling is a step. */
	DELAY_SHIFT = 20,
	/* What a sleeping worker had for a delay is history: a step less for each 2^24 ns, 17 ms.
	 */
	SLEEP_SHIFT = 24,

	AF_INET6 = 10,

	SYN_FLAG = 0x02,
	ACK_FLAG = 0x10,
};

/* The listener whose sockets form the group that this copy of the program is attached to. */
const volatile __u32 listener;

/* ---- the state of one worker ---- */

enum worker_state {
	WORKER_ABSENT, /* has never published, or takes no connections */
	WORKER_HANGS,
	WORKER_FULL, /* no free slot */
	WORKER_READY,
};

/* Since when it owes us a sign of life; 0: it sleeps, and nobody has woken it. */
static __always_inline __u64 owes_since(
	const struct tg_worker_load *w, const struct tg_worker_picks *p)
{
	if (!w->sleeping)
		return w->heartbeat_ns;
	return (__s64)(p->wake_ns - w->heartbeat_ns) > 0 ? p->wake_ns : 0;
}

static __always_inline enum worker_state state_of(
	const struct tg_worker_load *w, const struct tg_worker_picks *p, __u64 now, __u64 hang_ns)
{
	if (!w->heartbeat_ns || !w->accepting)
		return WORKER_ABSENT;
	__u64 since = owes_since(w, p);
	if (since && (__s64)(now - since) > (__s64)hang_ns)
		return WORKER_HANGS;
	return w->free_slots ? WORKER_READY : WORKER_FULL;
}

static __always_inline __u32 delay_steps(
	const struct tg_worker_load *w, const struct tg_worker_picks *p, __u64 now)
{
	__u64 delay = w->poll_delay_ns, since = owes_since(w, p);
	__s64 age = now - (since ? since : w->heartbeat_ns);

	if (age < 0)
		age = 0; /* published after we looked at the clock */
	if (since)
		return octave((delay > (__u64)age ? delay : (__u64)age) >> DELAY_SHIFT);
	__u32 steps = octave(delay >> DELAY_SHIFT);
	__u64 past = (__u64)age >> SLEEP_SHIFT;
	return past < steps ? steps - past : 0;
}

/* Connections, and picks that its last publication cannot have contained. */
static __always_inline __u64 connections_of(
	const struct tg_worker_load *w, const struct tg_worker_picks *p)
{
	return w->connections + (p->heartbeat_ns == w->heartbeat_ns ? p->since : 0);
}

/* ---- the choice ---- */

struct choice {
	__u8 ready[TG_WORKERS_MAX], full[TG_WORKERS_MAX]; /* workers, the first n_… of them */
	__u32 n_ready, n_full, n_hanging;
	__u64 now, hang_ns;
};

struct survey {
	struct choice *choice;
};

static long survey_worker(__u32 worker, struct survey *s)
{
	struct choice *c = s->choice;
	struct tg_worker_load *w = bpf_map_lookup_elem(&worker_load, &worker);
	struct tg_worker_picks *p = bpf_map_lookup_elem(&picks, &worker);

	if (!w || !p)
		return 1;
	switch (state_of(w, p, c->now, c->hang_ns)) {
	case WORKER_HANGS:
		c->n_hanging++;
		break;
	case WORKER_FULL:
		c->full[c->n_full++ % TG_WORKERS_MAX] = worker;
		break;
	case WORKER_READY:
		c->ready[c->n_ready++ % TG_WORKERS_MAX] = worker;
		break;
	case WORKER_ABSENT:
		break;
	}
	return 0;
}

/* A global function, like those below: the verifier looks at it once, and not once for each way
 * that leads to it. */
__noinline int survey(struct choice *c, __u32 workers)
{
	struct survey s = {c};

	if (c)
		bpf_loop(workers, survey_worker, &s, 0);
	return 0;
}

/* Is a the better choice, or as good? */
__noinline int better(__u32 a, __u32 b, __u64 now)
{
	struct tg_worker_load *wa = bpf_map_lookup_elem(&worker_load, &a);
	struct tg_worker_load *wb = bpf_map_lookup_elem(&worker_load, &b);
	struct tg_worker_picks *pa = bpf_map_lookup_elem(&picks, &a);
	struct tg_worker_picks *pb = bpf_map_lookup_elem(&picks, &b);

	if (!wa || !wb || !pa || !pb)
		return 1;
	__u32 da = delay_steps(wa, pa, now), db = delay_steps(wb, pb, now);
	if (da != db)
		return da < db;
	return connections_of(wa, pa) <= connections_of(wb, pb);
}

static __always_inline void count_pick(__u32 worker)
{
	struct tg_worker_load *w = bpf_map_lookup_elem(&worker_load, &worker);
	struct tg_worker_picks *p = bpf_map_lookup_elem(&picks, &worker);

	if (!w || !p)
		return;
	__u64 heartbeat = w->heartbeat_ns, counted = p->heartbeat_ns;
	if (counted != heartbeat &&
		__sync_val_compare_and_swap(&p->heartbeat_ns, counted, heartbeat) == counted)
		p->since = 0;
	__sync_fetch_and_add(&p->since, 1);
	__sync_fetch_and_add(&p->total, 1);
}

static __always_inline int select_worker(
	struct sk_reuseport_md *ctx, const struct tg_settings *s, __u32 worker)
{
	struct tg_worker_load *w = bpf_map_lookup_elem(&worker_load, &worker);

	if (!w)
		return -1;
	__u32 ring = w->ring < s->rings ? w->ring : 0;
	__u32 index = tg_listener_index(s, listener, worker, ring);
	return bpf_sk_select_reuseport(ctx, &listeners, &index, 0);
}

/* Is it a choice that will be a connection? Others look for a listener, too: late packets of
 * connections that are gone, and the ACKs that answer SYN cookies. */
static __always_inline bool counts(const struct sk_reuseport_md *ctx)
{
	if (ctx->migrating_sk)
		return true;
	__u8 *tcp = ctx->data;
	if ((void *)(tcp + 14) > ctx->data_end)
		return false;
	return (tcp[13] & (SYN_FLAG | ACK_FLAG)) == SYN_FLAG;
}

/* Every worker that takes connections hangs, or none takes any. */
static __always_inline int choose_none(
	struct sk_reuseport_md *ctx, const struct tg_settings *s, bool hang, bool count)
{
	bool observe = s->flags & TG_SET_OBSERVE;

	/* An established connection of a listener that went away is no newcomer. */
	if (ctx->migrating_sk)
		return SK_PASS;
	if (!hang) {
		if (count)
			verdict_count(TG_STEER_HASH, false);
		return SK_PASS;
	}
	if (count)
		verdict_count(TG_STEER_HUNG, observe);
	return observe ? SK_PASS : SK_DROP; /* nobody would serve it: let it ask again */
}

/* Two of the n workers, the better one in the low byte. */
__noinline int pick_two(const struct choice *c)
{
	__u32 random = bpf_get_prandom_u32();

	if (!c)
		return 0;
	const __u8 *from = c->n_ready ? c->ready : c->full;
	__u32 n = c->n_ready ? c->n_ready : c->n_full;
	if (!n)
		return 0;
	__u32 i = (random & 0xffff) % n, j = i;
	if (n > 1) {
		j = (random >> 16) % (n - 1);
		j += j >= i;
	}
	__u32 a = from[i % TG_WORKERS_MAX], b = from[j % TG_WORKERS_MAX];
	return a == b || better(a, b, c->now) ? a | b << 8 : b | a << 8;
}

static __always_inline int choose(
	struct sk_reuseport_md *ctx, const struct tg_settings *s, bool count)
{
	struct choice c = {.now = bpf_ktime_get_ns(), .hang_ns = s->hang_ns};

	survey(&c, s->workers);
	if (!c.n_ready && !c.n_full)
		return choose_none(ctx, s, c.n_hanging, count);
	__u32 two = pick_two(&c), worker = two & 0xff;
	if (select_worker(ctx, s, worker)) {
		worker = two >> 8 & 0xff;
		if (select_worker(ctx, s, worker)) {
			if (count)
				verdict_count(TG_STEER_NO_SOCKET, false);
			return SK_PASS;
		}
	}
	if (count)
		count_pick(worker);
	if (count && !ctx->migrating_sk)
		verdict_count(TG_STEER_CHOSEN, false);
	return SK_PASS;
}

SEC("sk_reuseport/migrate")
int tidegate_steer(struct sk_reuseport_md *ctx)
{
	__u32 zero = 0;
	struct tg_settings *s = bpf_map_lookup_elem(&settings, &zero);

	if (!s || ctx->ip_protocol != IPPROTO_TCP)
		return SK_PASS;
	if (ctx->migrating_sk)
		verdict_count(TG_STEER_MIGRATED, false);
	return choose(ctx, s, counts(ctx));
}

/* ---- wake-ups that wait for their turn ---- */

SEC("tp_btf/sched_wakeup")
int BPF_PROG(tidegate_wakeup, struct task_struct *task)
{
	__u32 zero = 0, tid = task->pid, tgid = task->tgid;
	struct tg_worker_load *first = bpf_map_lookup_elem(&worker_load, &zero);
	struct tg_settings *s = bpf_map_lookup_elem(&settings, &zero);

	if (!first || !s || first->tgid != tgid)
		return 0;
	for (__u32 i = 0; i < TG_WORKERS_MAX && i < s->workers; i++) {
		__u32 key = i;
		struct tg_worker_load *w = bpf_map_lookup_elem(&worker_load, &key);
		if (!w || w->tid != tid || !w->sleeping)
			continue;
		struct tg_worker_picks *p = bpf_map_lookup_elem(&picks, &key);
		/* The first that it has not answered. */
		if (p && (__s64)(p->wake_ns - w->heartbeat_ns) <= 0)
			p->wake_ns = bpf_ktime_get_ns();
	}
	return 0;
}

/* ---- many ports and prefixes on one listener ---- */

struct destination {
	__u32 addr[4]; /* as in tg_lpm_key */
	__u32 port;
};

/* The prefix's bits of the destination are the prefix. */
static __always_inline bool covers(const struct tg_redirect *r, const struct destination *d)
{
	const __u32 *addr = (const __u32 *)r->addr;
	__u32 bits = r->bits, differ = 0;

#pragma unroll
	for (int i = 0; i < 4; i++) {
		__u32 n = bits < 32 ? bits : 32;
		__u32 mask = (__u32)(~0ULL << (32 - n));
		differ |= (bpf_ntohl(addr[i]) ^ bpf_ntohl(d->addr[i])) & mask;
		bits -= n;
	}
	return !differ;
}

__noinline int find_redirect(const struct destination *d, __u32 n)
{
	if (!d)
		return -1;
	for (__u32 i = 0; i < TG_REDIRECTS_MAX && i < n; i++) {
		__u32 key = i;
		struct tg_redirect *r = bpf_map_lookup_elem(&redirects, &key);
		if (r && d->port >= r->port && d->port <= r->port_last && covers(r, d))
			return r->listener;
	}
	return -1;
}

struct assignment {
	struct bpf_sk_lookup *ctx;
	__u32 listener, workers, rings;
	bool done;
};

/* Returns 1 to end the loop. */
static long assign_worker(__u32 worker, struct assignment *a)
{
	struct tg_worker_load *w = bpf_map_lookup_elem(&worker_load, &worker);
	__u32 ring = w && w->ring < a->rings ? w->ring : 0;
	__u32 index = (a->listener * a->workers + worker) * a->rings + ring;
	struct bpf_sock *sk = bpf_map_lookup_elem(&listeners, &index);

	if (!sk)
		return 0;
	long rc = bpf_sk_assign(a->ctx, sk, 0);
	bpf_sk_release(sk);
	if (rc)
		return 0;
	a->done = true;
	return 1;
}

/* Any socket of the listener: if there are several, tidegate_steer chooses after all. */
static __always_inline bool assign(struct bpf_sk_lookup *ctx, const struct tg_settings *s, __u32 to)
{
	struct assignment a = {
		.ctx = ctx, .listener = to, .workers = s->workers, .rings = s->rings};

	bpf_loop(a.workers, assign_worker, &a, 0);
	return a.done;
}

SEC("sk_lookup")
int tidegate_lookup(struct bpf_sk_lookup *ctx)
{
	__u32 zero = 0, port = ctx->local_port, word = port / 32, bit = 1u << port % 32;
	struct tg_settings *s = bpf_map_lookup_elem(&settings, &zero);
	struct tg_port_word *p = bpf_map_lookup_elem(&ports, &word);

	if (!s || !p || !s->redirects || ctx->protocol != IPPROTO_TCP ||
		!((p->any | p->listed) & bit))
		return SK_PASS;
	struct destination d = {.addr = {bpf_htonl(0xffff), ctx->local_ip4}, .port = port};
	if (ctx->family == AF_INET6) {
		d.addr[0] = ctx->local_ip6[0];
		d.addr[1] = ctx->local_ip6[1];
		d.addr[2] = ctx->local_ip6[2];
		d.addr[3] = ctx->local_ip6[3];
	}
	int to = find_redirect(&d, s->redirects);
	if (to < 0)
		return SK_PASS;
	if (!assign(ctx, s, to)) {
		verdict_count(TG_LOOKUP_FAILED, false);
		return SK_DROP; /* the listener is gone, and nobody else may have the port */
	}
	verdict_count(TG_LOOKUP_ASSIGNED, false);
	return SK_PASS;
}
