// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/* Sees how long the gateway's workers let events wait: since when a socket is readable, and each
 * time that a worker's thread waits for a CPU. By the kernel's clock, since a thread that starves
 * cannot tell.
 *
 * Its probes run for every socket and every switch of the machine, so each asks first what is
 * cheapest and most often says no, and reads for it nothing that anybody writes. What they cost
 * most is being called at all: so there is none for what somebody else knows as well. That a socket
 * was received from, its worker knows; when a thread became runnable, the kernel has written down.
 *
 * Which sockets are sampled is chosen by a hash of their peer's port, of which neither side has to
 * remember anything. Nor do those that were chosen: what is readable stands in a table for as long
 * as it is, where the same hash finds it, for both sides. The kernel's own storage of a socket
 * takes 320 bytes of each, and five cache misses at each event, of lines that go back and forth
 * between the CPUs, where this takes one. */
#include "ours.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Somebody who is gone without having been received from. */
#define READY_STALE_NS 10000000000ULL

static __always_inline const struct tg_sched *switches(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&sched, &zero);
}

/* ---- histograms ---- */

static __always_inline __u32 bucket_of(__u64 v)
{
	__u32 shift = 0;
	__u64 rest = v >> TG_HIST_SUB_BITS;

	if (!rest)
		return v;
#pragma unroll
	for (__u32 step = 32; step; step /= 2) {
		if (rest >> step) {
			rest >>= step;
			shift += step;
		}
	}
	return (shift + 1) << TG_HIST_SUB_BITS | (v >> shift & ((1 << TG_HIST_SUB_BITS) - 1));
}

static __always_inline void hist_add(struct tg_hist *h, __u64 v)
{
	__u32 i = bucket_of(v);

	if (i >= TG_HIST_BUCKETS)
		return;
	h->bucket[i]++;
	h->sum += v;
	if (!h->count || v < h->min)
		h->min = v;
	if (v > h->max)
		h->max = v;
	h->count++;
}

/* ---- workers ---- */

enum {
	NO_WORKER = TG_WORKERS_MAX
};

/* The worker whose thread this is, of the process s->tgid. */
static __always_inline __u32 worker_of(const struct tg_sched *s, __u32 tid)
{
	__u32 zero = 0;
	const struct tg_settings *set = bpf_map_lookup_elem(&settings, &zero);

	if (!set || !tid) /* the idle thread's number, as that of no worker */
		return NO_WORKER;
	__u32 workers = set->workers;
	for (__u32 i = 0; i < TG_WORKERS_MAX && i < workers; i++)
		if (s->tid[i] == tid)
			return i;
	return NO_WORKER;
}

/* ---- since when it is readable ---- */

static __always_inline bool is_ours(const struct sock *sk)
{
	__u32 zero = 0;
	const struct tg_settings *s = bpf_map_lookup_elem(&settings, &zero);

	return s && sk->__sk_common.skc_state != BPF_TCP_LISTEN && ours_socket(sk) &&
	       sk->__sk_common.skc_net.net->net_cookie == s->netns_cookie;
}

static __always_inline __u32 key_of(const struct sock *sk)
{
	__u32 a[4] = {0, 0, bpf_htonl(0xffff), sk->__sk_common.skc_daddr};

	if (sk->__sk_common.skc_family != OURS_AF_INET)
		BPF_CORE_READ_INTO(&a, sk, __sk_common.skc_v6_daddr);
	return tg_ready_key(a[0], a[1], a[2], a[3]);
}

SEC("tp_btf/sk_data_ready")
int BPF_PROG(tidegate_ready, struct sock *sk)
{
	const struct tg_sched *s = switches();

	if (!s)
		return 0;
	__u32 place = tg_ready_hash(sk->__sk_common.skc_dport, s->seed);
	if (!tg_ready_sampled(place, s->share) || sk->sk_protocol != IPPROTO_TCP)
		return 0;
	place %= TG_READY_PLACES;
	struct tg_ready *r = bpf_map_lookup_elem(&ready, &place);
	__u64 cookie = sk->__sk_common.skc_cookie.counter;
	/* Whose place it was before is known to be ours, without asking the lists again. */
	bool again = r && cookie && r->cookie == cookie;
	if (!r || (!again && !is_ours(sk)))
		return 0;
	bool waits = r->since_ns && r->since_ns >= s->since_ns;
	if (waits && again)
		return 0; /* the first event that waits, not the last */
	__u32 key = again ? r->key : key_of(sk);
	__u64 now = bpf_ktime_get_ns();
	if (waits && key != r->key && now - r->since_ns < READY_STALE_NS)
		return 0; /* another's place */
	if (!again) {
		r->cookie = bpf_get_socket_cookie(sk);
		r->key = key;
	}
	r->since_ns = now;
	return 0;
}

/* ---- from runnable to running ---- */

/* A thread leaves its CPU: before it ran, it may have waited. The kernel has added that up already,
 * so there is nothing to be done when it was woken, and no clock to be asked. */
SEC("tp_btf/sched_switch")
int BPF_PROG(tidegate_switch, bool preempt, struct task_struct *prev)
{
	const struct tg_sched *s = switches();

	if (!s || (__u32)prev->tgid != s->tgid || !s->run)
		return 0;
	__u32 tid = prev->pid, worker = worker_of(s, tid);
	struct tg_delays *d = bpf_map_lookup_elem(&delays, &worker);
	if (!d)
		return 0;
	__u64 waited = prev->sched_info.run_delay, seen = d->run_seen_ns;
	bool known = d->run_tid == tid && d->run_since_ns == s->since_ns;

	d->run_seen_ns = waited;
	d->run_tid = tid;
	d->run_since_ns = s->since_ns;
	/* Once each time that it ran, also if it had not to wait. */
	if (known && waited >= seen)
		hist_add(&d->run, waited - seen);
	return 0;
}
