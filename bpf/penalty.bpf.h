/* The penalty box: who comes in, and for how long. */
#ifndef TIDEGATE_BPF_PENALTY_H
#define TIDEGATE_BPF_PENALTY_H

#include "gcra.bpf.h"
#include "verdict.bpf.h"

enum {
	PENALTY_TRIES = 8,
	PENALTY_DOUBLINGS_MAX = 32,
	PENALTY_EEXIST = 17,
};

/* The loader's: of penalty_filter. */
const volatile __u32 filter_entries = 1;

struct penalty_case {
	struct tg_prefix key;
	__u32 reason; /* enum tg_penalty_reason */
	__u64 now;
};

static __always_inline void penalty_event(const struct penalty_case *c, const struct tg_settings *s,
	struct tg_pace *p, enum tg_verdict v, __u64 until)
{
	__u64 interval = s->event_interval_ns, burst = gcra_burst(s->event_burst_ns, interval);

	if (!interval || gcra_take(&p->event_tat_ns, c->now, interval, burst, burst) != GCRA_TAKEN)
		return;
	struct tg_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		verdict_count(TG_EVENT_LOST, false);
		return;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->time_ns = c->now;
	e->verdict = v;
	e->observed = !!(s->flags & TG_SET_OBSERVE);
	if (c->key.family == 6) {
		__builtin_memcpy(e->source, c->key.addr, 8);
		e->source_len = c->key.len;
	} else {
		e->source[2] = 0xff;
		e->source[3] = 0xff;
		__builtin_memcpy(e->source + 4, c->key.addr, 4);
		e->source_len = 32 + c->key.len;
	}
	e->until_ns = until;
	bpf_ringbuf_submit(e, 0);
	verdict_count(TG_EVENT_SENT, false);
}

static __always_inline __u64 penalty_longest(const struct tg_settings *s)
{
	return s->penalty_max_ns > s->penalty_ns ? s->penalty_max_ns : s->penalty_ns;
}

static __always_inline __u64 penalty_length(const struct tg_settings *s, __u32 strikes)
{
	__u64 length = s->penalty_ns, longest = penalty_longest(s);

	for (__u32 i = 1; i < PENALTY_DOUBLINGS_MAX && i < strikes && length < longest; i++)
		length += length;
	return length < longest ? length : longest;
}

static __always_inline void penalty_raise(__u64 *end, __u64 until)
{
	for (int i = 0; i < PENALTY_TRIES; i++) {
		__u64 old = *(volatile __u64 *)end;
		if (old >= until || __sync_val_compare_and_swap(end, old, until) == old)
			return;
	}
}

/* Before the entry is there, since admit looks for it only until then. */
static __always_inline void penalty_announce(
	const struct penalty_case *c, struct tg_pace *p, __u64 until)
{
	const __u32 *w = (const __u32 *)c->key.addr;
	__u64 bits = (__u64)bpf_ntohl(w[0]) << 32 | bpf_ntohl(w[1]);
	__u32 i = tg_filter_index(bits, c->key.len, filter_entries);
	struct tg_penalty_filter *f = bpf_map_lookup_elem(&penalty_filter, &i);

	if (f)
		penalty_raise(&f->until_ns, until);
	penalty_raise(&p->penalty_until_ns, until);
}

static __always_inline void penalty_decide(
	const struct penalty_case *c, const struct tg_settings *s, struct tg_pace *p)
{
	enum tg_verdict v =
		c->reason == TG_PENALTY_CHURN ? TG_TRACK_PENALTY_CHURN : TG_TRACK_PENALTY_OPEN;
	struct tg_penalty fresh = {.since_ns = c->now, .reason = c->reason, .strikes = 1};

	if (!s->penalty_ns)
		return;
	struct tg_penalty *box = bpf_map_lookup_elem(&penalty, &c->key);
	if (!box) {
		fresh.until_ns = c->now + penalty_length(s, 1);
		penalty_announce(c, p, fresh.until_ns);
		long rc = bpf_map_update_elem(&penalty, &c->key, &fresh, BPF_NOEXIST);
		if (rc == -PENALTY_EEXIST)
			return; /* another CPU put it there */
		if (rc) {
			verdict_count(TG_TRACK_PENALTY_FULL, false);
			return; /* it stays out: a gate that is short of memory is open */
		}
	} else {
		__u64 old = *(volatile __u64 *)&box->until_ns;
		if (old > c->now)
			return; /* what it still has open ends now: no reason for more */
		if (c->now - old < penalty_longest(s))
			fresh.strikes = box->strikes + 1;
		fresh.until_ns = c->now + penalty_length(s, fresh.strikes);
		penalty_announce(c, p, fresh.until_ns);
		if (__sync_val_compare_and_swap(&box->until_ns, old, fresh.until_ns) != old)
			return;
		box->since_ns = fresh.since_ns;
		box->reason = fresh.reason;
		box->strikes = fresh.strikes;
	}
	verdict_count(v, false);
	penalty_event(c, s, p, v, fresh.until_ns);
}

__noinline int penalty_put(const struct penalty_case *from)
{
	__u32 zero = 0;
	const struct tg_settings *s = bpf_map_lookup_elem(&settings, &zero);
	struct tg_pace *p = bpf_map_lookup_elem(&pace, &zero);

	if (!from || !s || !p)
		return 0;
	struct penalty_case c = *from;
	penalty_decide(&c, s, p);
	return 0;
}

#endif
