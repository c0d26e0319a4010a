// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/* XDP: decides on every SYN to one of the gateway's ports, and on nothing else.
 *
 * In this order: allow list, deny list, penalty box, flood limit, gate (shut, permits, rate, fair
 * share). What cannot be found or built fails open: a broken gate must not be an outage. A prefix
 * is proven when track has seen a handshake from it complete, for only that cannot be forged; a
 * spoofed SYN leaves no trace here but a count in the sketch. */
#include "gate.bpf.h"
#include "verdict.bpf.h"

/* The loader's: of penalty_filter. */
const volatile __u32 filter_entries = 1;

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* The gateway's, on this address? */
static __always_inline bool ours(const struct syn *syn)
{
	__u32 word = syn->port / 32, bit = 1u << syn->port % 32;
	struct tg_port_word *p = bpf_map_lookup_elem(&ports, &word);

	if (!p)
		return false;
	if (p->any & bit)
		return true;
	if (!(p->listed & bit))
		return false;
	struct tg_address_key key = {.prefixlen = 32 + 128, .port = syn->dport};
	__builtin_memcpy(key.addr, syn->dst, 16);
	return bpf_map_lookup_elem(&addresses, &key);
}

static __always_inline bool in_the_box(const struct syn *syn, __u64 prefix, __u32 len, __u64 now)
{
	__u32 i = tg_filter_index(prefix, len, filter_entries);
	struct tg_penalty_filter *f = bpf_map_lookup_elem(&penalty_filter, &i);

	if (!f || f->until_ns <= now)
		return false;
	struct tg_prefix key;
	gate_key(&key, syn, prefix, len);
	struct tg_penalty *box = bpf_map_lookup_elem(&penalty, &key);
	return box && box->until_ns > now;
}

/* A prefix with a weight of its own is not part of the wider ones around it, whose limits it does
 * not count towards (track.bpf.c); and who is exempt has no penalty. Asked only before a refusal.
 */
static __noinline bool stands_apart(const struct syn *syn, __u32 tier, __u32 len)
{
	struct tg_lpm_key key = syn->src;
	struct tg_weight *own = bpf_map_lookup_elem(&weights, &key);

	if (!own)
		return false;
	if (own->weight == TG_WEIGHT_EXEMPT)
		return true;
	key.prefixlen = syn->family ? len : 32 + len;
	return tier && bpf_map_lookup_elem(&weights, &key) != own;
}

static __always_inline bool penalised(
	const struct tg_settings *s, const struct tg_pace *p, const struct syn *syn, __u64 now)
{
	__u32 family = syn->family & 1;

	if (p->penalty_until_ns <= now)
		return false;
#pragma unroll
	for (int i = 0; i < TG_TIERS; i++) {
		__u32 len = s->tier[family][i].len;
		if (!len || !in_the_box(syn, gate_mask(syn->prefix, len), len, now))
			continue;
		if (!(s->flags & TG_SET_WEIGHTS) || !stands_apart(syn, i, len))
			return true;
	}
	return false;
}

/* What every step needs. */
struct admission {
	const struct tg_settings *settings;
	struct tg_pace *pace;
	struct admit_local *local;
	__u64 now;
	bool exempt; /* from per-source limits */
	bool again;  /* as in gate_request */
};

static __always_inline enum tg_verdict decide(const struct admission *a, const struct syn *syn)
{
	if (bpf_map_lookup_elem(&allow, &syn->src))
		return TG_ADMIT_ALLOWED;
	if (bpf_map_lookup_elem(&deny, &syn->src))
		return TG_DROP_DENYLIST; /* the operator said no */

	struct gate_request r = {.settings = a->settings,
		.pace = a->pace,
		.local = a->local,
		.now = a->now,
		.exempt = a->exempt,
		.again = a->again};
	gate_begin(&r, syn);
	if (!a->exempt) {
		if (penalised(a->settings, a->pace, syn, a->now))
			return TG_DROP_PENALTY; /* it churned; track says for how long */
		if (gate_flooding(&r, syn))
			return TG_DROP_FLOOD; /* no client tries that often */
	}
	return gate_decide(&r, syn);
}

static __noinline void send_event(
	const struct syn *syn, enum tg_verdict v, __u32 ifindex, __u32 observed, __u64 now)
{
	__u32 zero = 0;
	struct admit_local *local = bpf_map_lookup_elem(&admit_local, &zero);
	struct tg_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e) {
		verdict_count(TG_EVENT_LOST, false);
		return;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->time_ns = now;
	if (local) {
		e->held = local->held;
		local->held = 0;
	}
	e->verdict = v;
	e->observed = observed;
	__builtin_memcpy(e->source, syn->src.addr, 16);
	e->source_len = 128;
	e->port = syn->port;
	e->ifindex = ifindex;
	bpf_ringbuf_submit(e, 0);
	verdict_count(TG_EVENT_SENT, false);
}

static __always_inline void report(struct xdp_md *ctx, const struct admission *a,
	const struct syn *syn, enum tg_verdict v, bool observe)
{
	__u64 interval = a->settings->event_interval_ns;
	__u64 burst = gcra_burst(a->settings->event_burst_ns, interval);
	__u64 *tat = &a->pace->event_tat_ns;

	if (!interval)
		return;
	/* Looked at before it is moved: a flood must not make the CPUs fight for this line. */
	if (gcra_conforms(*tat, a->now, interval, burst) &&
		gcra_take(tat, a->now, interval, burst, burst) == GCRA_TAKEN)
		send_event(syn, v, ctx->ingress_ifindex, observe, a->now);
	else
		a->local->held++;
}

static __always_inline int refuse(
	struct xdp_md *ctx, const struct admission *a, const struct syn *syn, enum tg_verdict v)
{
	bool observe = a->settings->flags & TG_SET_OBSERVE;

	verdict_count(v, observe);
	report(ctx, a, syn, v, observe);
	if (observe)
		return XDP_PASS;
	/* A flood may be forged: no answers to those who never asked. */
	if (!(a->settings->flags & TG_SET_RESET) || v == TG_DROP_FLOOD)
		return XDP_DROP;
	if (reply_reset(ctx, syn)) {
		verdict_count(TG_RESET_FAILED, false);
		return XDP_DROP;
	}
	verdict_count(TG_RESET_SENT, false);
	return XDP_TX;
}

static __always_inline bool begin(
	const struct xdp_md *ctx, const struct syn *syn, struct admission *a)
{
	__u32 zero = 0;

	a->settings = bpf_map_lookup_elem(&settings, &zero);
	a->pace = bpf_map_lookup_elem(&pace, &zero);
	a->local = bpf_map_lookup_elem(&admit_local, &zero);
	if (!a->settings || !a->pace || !a->local)
		return false;
	a->now = clock_now(a->local);
	/* Only lo itself: from elsewhere such a source is forged, and the kernel drops it later. */
	a->exempt = syn->local && a->settings->flags & TG_SET_EXEMPT_LOOPBACK &&
		    ctx->ingress_ifindex == LOOPBACK_IFINDEX;
	return true;
}

/* ---- SYN cookies ---- */

/* Cookies go to prefixes that are not proven. So who is proven for longer than one lives holds
 * none: that is nearly everybody with a connection. */
static __always_inline bool may_hold_cookie(const struct admission *a, const struct syn *ack)
{
	struct tg_prefix key;
	__u32 len;
	__u64 prefix = gate_prefix(a->settings, ack, &len);

	gate_key(&key, ack, prefix, len);
	const struct tg_source *source = bpf_map_lookup_elem(&sources, &key);
	return !source || (__s64)(a->now - source->first_ns) < (__s64)TG_COOKIE_LIFE_NS;
}

/* The first to find that no cookie is good any more says so. */
static __always_inline bool cookies_expired(const struct admission *a)
{
	__u64 until = a->pace->cookies_until_ns;

	if ((__s64)(until - a->now) > 0)
		return false;
	__sync_val_compare_and_swap(&a->pace->cookies_until_ns, until, 0);
	return true;
}

/* While cookies are out: may it be an ACK that answers one? Fills in ack. */
__noinline int may_answer(struct xdp_md *ctx, struct syn *ack)
{
	struct admission a;

	if (!ack || parse_syn(ctx, ack, PARSE_FOR_ANSWER) != PARSE_FOUND || !ours(ack) ||
		!begin(ctx, ack, &a) || cookies_expired(&a) || a.exempt)
		return 0;
	return may_hold_cookie(&a, ack) && !cookie_known(ack, ack->seq - 1);
}

/* Is it an ACK that answers a cookie, and of no connection yet? All others are passed, whatever
 * they are: what belongs to no connection the kernel refuses itself. */
static __always_inline bool answers(struct xdp_md *ctx, struct syn *ack)
{
	__u32 zero = 0;
	const struct tg_pace *p = bpf_map_lookup_elem(&pace, &zero);

	if (!p || !p->cookies_until_ns)
		return false;
	__builtin_memset(ack, 0, sizeof(*ack)); /* functions of their own may read all of it */
	return may_answer(ctx, ack) && cookie_answered(ctx, ack) && !cookie_connected(ctx, ack);
}

/* True: it was, and the frame is the answer. */
static __always_inline bool answer(struct xdp_md *ctx, struct syn *syn)
{
	syn->pad = 0;
	if (cookie_answer(ctx, syn)) {
		verdict_count(TG_COOKIE_FAILED, false);
		return false;
	}
	verdict_count(TG_COOKIE_SENT, false);
	return true;
}

static __always_inline int let_in_answer(const struct syn *ack, enum tg_verdict v)
{
	if (v == TG_ADMIT_ALLOWED)
		return XDP_PASS; /* its SYN was let in, and counted */
	verdict_count(v, false);
	verdict_count(TG_COOKIE_ACCEPTED, false);
	cookie_remember(ack, ack->seq - 1);
	return XDP_PASS;
}

/* ---- one packet ---- */

static __always_inline int admit(struct xdp_md *ctx)
{
	struct syn syn;
	struct admission a = {};
	enum parse_result r = parse_syn(ctx, &syn, PARSE_FOR_SYN);

	if (r == PARSE_OTHER) {
		if (!cookies || !answers(ctx, &syn))
			return XDP_PASS;
		a.again = true;
	} else if (!ours(&syn)) {
		return XDP_PASS;
	}
	if (r == PARSE_MALFORMED) {
		verdict_count(TG_ADMIT_MALFORMED, false);
		return XDP_PASS;
	}
	if (!begin(ctx, &syn, &a))
		return XDP_PASS;
	enum tg_verdict v = decide(&a, &syn);

	if (cookies && v == TG_COOKIE_SENT) {
		if (a.settings->flags & TG_SET_OBSERVE) {
			verdict_count(v, true);
			return XDP_PASS;
		}
		if (answer(ctx, &syn))
			return XDP_TX;
		a.again = true;
		v = decide(&a, &syn);
	}
	if (v > TG_ADMIT_MALFORMED)
		return refuse(ctx, &a, &syn, v);
	if (cookies && r == PARSE_OTHER)
		return let_in_answer(&syn, v);
	verdict_count(v, false);
	return XDP_PASS;
}

SEC("xdp.frags")
int tidegate_admit(struct xdp_md *ctx)
{
	return admit(ctx);
}
