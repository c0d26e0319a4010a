// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/* Sees how long the gateway's workers let events wait: from a socket's becoming readable to the
 * worker's receiving from it, and each time that a worker's thread waits for a CPU. By the kernel's
 * clock, since a thread that starves cannot tell.
 *
 * Its probes run for every socket and every switch of the machine, so each asks first what is
 * cheapest and most often says no: is it switched on, is it the gateway's. What a sampled socket
 * remembers costs 320 bytes of kernel memory; the choice is by a hash of its cookie, so that the
 * others need to remember nothing, not even that they were not chosen. */
#include "ours.bpf.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

enum {
	TASK_RUNS = 0,   /* prev_state of one that is taken off its CPU though it could go on */
	RECV_PEEK = 0x2, /* MSG_PEEK */
};

struct ready {
	__u64 since_ns; /* readable, and not yet received from; 0: not readable */
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct ready);
} sched_ready SEC(".maps");

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

/* The delays of the worker whose thread this is. All workers are of one process, so that the
 * others' threads cost one comparison. The idle thread's number is 0, as is that of no worker. */
static __always_inline struct tg_delays *delays_of(__u32 tgid, __u32 tid)
{
	__u32 zero = 0;
	const struct tg_worker_load *first = bpf_map_lookup_elem(&worker_load, &zero);
	const struct tg_settings *s = bpf_map_lookup_elem(&settings, &zero);

	if (!tid || !first || !s || first->tgid != tgid)
		return 0;
	__u32 workers = s->workers;
	for (__u32 i = 0; i < TG_WORKERS_MAX && i < workers; i++) {
		__u32 key = i;
		const struct tg_worker_load *w = bpf_map_lookup_elem(&worker_load, &key);
		if (w && w->tid == tid)
			return bpf_map_lookup_elem(&delays, &key);
	}
	return 0;
}

/* ---- from readable to received ---- */

static __always_inline bool sampled(struct sock *sk, __u32 share)
{
	__u64 cookie = bpf_get_socket_cookie(sk);

	return (__u32)(cookie * 0x9e3779b97f4a7c15ULL >> 48) < share;
}

static __always_inline bool of_our_namespace(const struct sock *sk)
{
	__u32 zero = 0;
	const struct tg_settings *s = bpf_map_lookup_elem(&settings, &zero);

	return s && sk->__sk_common.skc_net.net->net_cookie == s->netns_cookie;
}

SEC("tp_btf/sk_data_ready")
int BPF_PROG(tidegate_ready, struct sock *sk)
{
	const struct tg_sched *s = switches();

	if (!s || !s->share || sk->sk_protocol != IPPROTO_TCP ||
		sk->__sk_common.skc_state == BPF_TCP_LISTEN || !ours_socket(sk) ||
		!of_our_namespace(sk) || !sampled(sk, s->share))
		return 0;
	struct ready *r = bpf_sk_storage_get(&sched_ready, sk, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	/* The first event that waits, not the last. */
	if (r && (!r->since_ns || r->since_ns < s->since_ns))
		r->since_ns = bpf_ktime_get_ns();
	return 0;
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(tidegate_received, struct sock *sk, int ret, int flags)
{
	const struct tg_sched *s = switches();

	/* 0 is the end of the stream, which a worker has to receive, too. */
	if (!s || !s->share || ret < 0 || flags & RECV_PEEK || sk->sk_protocol != IPPROTO_TCP ||
		!ours_socket(sk))
		return 0;
	struct ready *r = bpf_sk_storage_get(&sched_ready, sk, 0, 0);
	if (!r || !r->since_ns)
		return 0;
	__u64 since = r->since_ns, now = bpf_ktime_get_ns(), id = bpf_get_current_pid_tgid();

	r->since_ns = 0;
	if (since < s->since_ns || now < since)
		return 0;
	struct tg_delays *d = delays_of(id >> 32, (__u32)id);
	if (d)
		hist_add(&d->wake, now - since);
	return 0;
}

/* ---- from runnable to running ---- */

static __always_inline int runnable(const struct task_struct *task)
{
	const struct tg_sched *s = switches();

	if (!s || !s->run)
		return 0;
	struct tg_delays *d = delays_of(task->tgid, task->pid);
	if (d)
		d->runnable_ns = bpf_ktime_get_ns();
	return 0;
}

SEC("tp_btf/sched_wakeup")
int BPF_PROG(tidegate_woken, struct task_struct *task)
{
	return runnable(task);
}

SEC("tp_btf/sched_wakeup_new")
int BPF_PROG(tidegate_woken_new, struct task_struct *task)
{
	return runnable(task);
}

SEC("tp_btf/sched_switch")
int BPF_PROG(tidegate_switch, bool preempt, struct task_struct *prev, struct task_struct *next,
	unsigned int prev_state)
{
	const struct tg_sched *s = switches();

	if (!s || !s->run)
		return 0;
	struct tg_delays *d = delays_of(prev->tgid, prev->pid);
	/* One that goes to sleep does not wait: a wake-up may have found it still awake. */
	if (d)
		d->runnable_ns = preempt || prev_state == TASK_RUNS ? bpf_ktime_get_ns() : 0;
	d = delays_of(next->tgid, next->pid);
	if (!d || !d->runnable_ns)
		return 0;
	__u64 since = d->runnable_ns, now = bpf_ktime_get_ns();

	d->runnable_ns = 0;
	if (since >= s->since_ns && now >= since)
		hist_add(&d->run, now - since);
	return 0;
}
