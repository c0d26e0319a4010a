/* The gate's decision on one SYN that no list and no penalty has decided on: flood limit, then
 * shut, permits, rate.
 *
 * The rate is one GCRA for everybody. Two rules say who goes first. Prefixes that are not proven
 * have a second, slower rate of their own, so that a spoofed flood leaves the reserved share to
 * proven ones. And the less of its fair share (the rate by the number of sources that try) a source
 * had, the more of the burst it may use: whatever others leave unused goes to those who had least.
 * That holds within the share, too: sources that try at a steady pace arrive in the same order
 * again and again, and the same ones would come too late each time. Both are looked at before the
 * rate is taken, so that a refusal costs the others nothing.
 */
#ifndef TIDEGATE_BPF_GATE_H
#define TIDEGATE_BPF_GATE_H

#include "clock.bpf.h"
#include "cookie.bpf.h"
#include "gcra.bpf.h"
#include "level.bpf.h"
#include "maps.bpf.h"
#include "parse.bpf.h"
#include "proven.bpf.h"
#include "sketch.bpf.h"

enum {
	LOOPBACK_IFINDEX = 1, /* in every network namespace */
	GATE_SYNS_BATCH = 16,
	GATE_LEN_V4 = 32, /* tier 0, if the settings have none */
	GATE_LEN_V6 = 64,
};

/* The loader's: SYN cookies may be answered. What only they need is not part of the program else.
 */
const volatile __u32 cookies = 0;

/* Nobody's fair share is less than one connection in this time. */
#define GATE_SHARE_MAX_NS 10000000000ULL

#define NSEC_PER_SEC 1000000000ULL

/* How far an admission may bring the rate's clock ahead, in sixteenths of the burst: those of the
 * rank with the most get a turn first. At four sixteenths some of the rate is left even to who is
 * refused by all the others (abi.h: what the burst has to be for that). */
enum gate_rank {
	GATE_FARTHEST_OVER = 4,
	GATE_FAR_OVER = 6,
	GATE_OVER = 8,   /* its fair share; newcomers: in tries, and nothing is reserved */
	GATE_AHEAD = 10, /* of its share, within its burst; by quarters of that up to GATE_EVEN */
	GATE_EVEN = 13,
	GATE_BEHIND = 14,
	GATE_FAR_BEHIND = 15, /* had nothing for a whole share's time */
	GATE_FIRST = 16, /* newcomers, as far as their own rate lets them, and who is not judged */
};

struct gate_request {
	const struct tg_settings *settings;
	struct tg_pace *pace;
	struct admit_local *local;
	const struct tg_gate *gate; /* NULL: stale */
	struct tg_share *source;    /* NULL: not proven; looked up while paced */
	__u64 now;
	bool exempt; /* from per-source limits */
	/* It answers a cookie, or was to be answered with one: its SYN was counted already, and the
	 * gate is to decide. */
	bool again;
	bool paced;
	bool cookies;              /* newcomers are answered with one */
	struct sketch_answer seen; /* count 0: nobody looked */
	/* Of gate_pace. */
	enum gate_rank rank;
	bool over;   /* its share */
	__u64 share; /* of a proven source, 0: it has none */
};

static __always_inline __u64 gate_mask(__u64 prefix, __u32 len)
{
	return prefix & ~0ULL << ((64 - len) & 63);
}

static __always_inline void gate_key(
	struct tg_prefix *key, const struct syn *syn, __u64 prefix, __u32 len)
{
	__u32 *w = (__u32 *)key->addr;

	w[0] = bpf_htonl(prefix >> 32);
	w[1] = bpf_htonl((__u32)prefix);
	key->len = len;
	key->family = syn->family ? 6 : 4;
	key->zero[0] = 0;
	key->zero[1] = 0;
}

/* So many in a window, by a limit in a second. */
static __always_inline bool gate_syns_above(__u64 syns, __u32 limit)
{
	return limit && syns * NSEC_PER_SEC >> TG_WINDOW_SHIFT > limit;
}

/* A new window begins; one CPU does it. What others count meanwhile may go to either. */
static __always_inline void gate_turn_window(
	const struct tg_settings *s, struct tg_pace *p, __u64 window)
{
	__u64 old = p->window;
	bool next = old + 1 == window;

	if (__sync_val_compare_and_swap(&p->window, old, window) != old)
		return;
	p->active_last[0] = next ? p->active[0] : 0;
	p->active_last[1] = next ? p->active[1] : 0;
	p->syns_last = next ? p->syns : 0;
	if (cookies)
		p->cookies = gate_syns_above(p->syns_last, s->cookie_trigger);
	p->active[0] = 0;
	p->active[1] = 0;
	p->syns = 0;
}

static __always_inline void gate_count_syn(const struct gate_request *r)
{
	struct tg_pace *p = r->pace;

	if (++r->local->syns < GATE_SYNS_BATCH)
		return;
	r->local->syns = 0;
	__sync_fetch_and_add(&p->syns, GATE_SYNS_BATCH);
	if (cookies && gate_syns_above(p->syns, r->settings->cookie_trigger)) {
		p->cookies_until_ns = r->now + TG_COOKIE_LIFE_NS;
		p->cookies = 1;
	}
}

/* Cookie mode lasts while SYNs are above the trigger in this window or in the one before. */
static __always_inline bool gate_cookie_mode(const struct gate_request *r)
{
	const struct tg_pace *p = r->pace;

	return p->cookies && r->now >> TG_WINDOW_SHIFT <= p->window + 1;
}

/* The source's prefix of tier 0. */
static __always_inline __u64 gate_prefix(
	const struct tg_settings *s, const struct syn *syn, __u32 *ret_len)
{
	__u32 len = s->tier[syn->family & 1][0].len;

	if (!len)
		len = syn->family ? GATE_LEN_V6 : GATE_LEN_V4;
	__u64 prefix = gate_mask(syn->prefix, len);
	*ret_len = len;
	return prefix;
}

static __always_inline void gate_find_source(
	struct gate_request *r, const struct syn *syn, __u64 prefix, __u32 len)
{
	r->source = proven_find(r->settings, prefix, len, syn->family ? 6 : 4);
}

/* False: its SYN was counted before. */
static __always_inline bool gate_begin_cookies(
	struct gate_request *r, const struct syn *syn, __u64 prefix, __u32 len)
{
	if (r->again) {
		r->seen = (struct sketch_answer){.count = 1, .first = true};
		return false;
	}
	r->cookies = !r->exempt && gate_cookie_mode(r);
	if (r->cookies && !r->paced)
		gate_find_source(r, syn, prefix, len);
	return true;
}

/* settings, pace, local, now, exempt and again are set. */
static __always_inline void gate_begin(struct gate_request *r, const struct syn *syn)
{
	const struct tg_settings *s = r->settings;
	__u32 zero = 0, len;
	struct tg_gate *g = bpf_map_lookup_elem(&gate, &zero);
	__u64 prefix = gate_prefix(s, syn, &len);

	/* The coarse clock may be behind the governor's. */
	if (g && (__s64)(r->now - g->heartbeat_ns) <= (__s64)s->stale_ns)
		r->gate = g;
	r->paced = r->gate && g->state == TG_GATE_PACED && g->interval_ns;
	/* Here, so that the CPU fetches its line and the sketch's block from memory side by side.
	 */
	if (r->paced && !r->exempt)
		gate_find_source(r, syn, prefix, len);
	bool counts = s->flood_limit || (cookies && s->cookie_trigger) ||
		      (r->paced && s->flags & TG_SET_FAIR);
	/* One test where there are none, which is nearly always. */
	if (cookies && r->pace->cookies | r->again)
		counts = gate_begin_cookies(r, syn, prefix, len) && counts;
	if (r->exempt || !counts)
		return;
	__u64 window = r->now >> TG_WINDOW_SHIFT, last = r->pace->window;
	if (last < window)
		gate_turn_window(s, r->pace, window);
	else
		window = last; /* another CPU may be in the next one already */
	sketch_add(prefix, syn->family, window, &r->seen);
	gate_count_syn(r);
}

/* Only where it would be refused: most have none, and one flag says so. */
static __always_inline __u32 gate_weight(const struct tg_settings *s, const struct syn *syn)
{
	if (!(s->flags & TG_SET_WEIGHTS))
		return 1;
	struct tg_weight *w = bpf_map_lookup_elem(&weights, &syn->src);
	return w && w->weight ? w->weight : 1;
}

/* A steady source counts up to twice its SYNs of a window. What chance collisions with a flood of
 * others add is allowed for: the mean of a row, or a flood would have the innocent refused. */
static __always_inline bool gate_flooding(struct gate_request *r, const struct syn *syn)
{
	const struct tg_pace *p = r->pace;
	__u64 limit = 2ULL * r->settings->flood_limit;
	__u64 syns = p->syns > p->syns_last ? p->syns : p->syns_last;
	__u64 noise = syns >> (sketch_row_bits - 1);

	if (!limit || r->seen.count <= limit + noise)
		return false;
	__u32 weight = gate_weight(r->settings, syn);
	return weight != TG_WEIGHT_EXEMPT && r->seen.count > limit * weight + noise;
}

/* track adds the level up at each establish; nobody does while all are refused, so it is added up
 * again before anybody is. */
static __always_inline bool gate_permits_spent(const struct gate_request *r)
{
	struct tg_pace *p = r->pace;
	__u64 permits = r->gate->permits;

	if (!permits || p->unserved < permits)
		return false;
	return level_update(p, r->gate, r->settings->workers) >= permits;
}

/* Distinct sources that try, as far as that is known in the middle of a window. */
static __always_inline __u64 gate_active(const struct tg_pace *p, __u32 unproven)
{
	__u32 active = p->active[unproven], last = p->active_last[unproven];

	return active > last ? active : last;
}

/* One admission in this time is what only proven ones may use. */
static __always_inline __u64 gate_reserve_interval(__u64 interval, __u64 new_interval)
{
	__u64 share = interval * ((new_interval << 8) / (new_interval - interval)) >> 8;

	return share > GATE_SHARE_MAX_NS ? GATE_SHARE_MAX_NS : share;
}

/* One admission in this time is everybody's fair share: the rate by all that try. Were proven
 * sources to divide it among themselves alone, they would use it up and no newcomer would ever be
 * proven. But however many newcomers there are, forged ones, too, all of them together have their
 * part of the rate and proven ones the reserve. */
static __always_inline __u64 gate_share(const struct gate_request *r, bool unproven)
{
	__u64 proven = gate_active(r->pace, 0), newcomers = gate_active(r->pace, 1);
	__u64 interval = r->gate->interval_ns, new_interval = r->gate->new_interval_ns;
	__u64 all = proven + newcomers, share = interval * (all ? all : 1);

	if (new_interval > interval && newcomers * new_interval > share) {
		share = unproven ? newcomers * new_interval
				 : proven * gate_reserve_interval(interval, new_interval);
	}
	return share > GATE_SHARE_MAX_NS ? GATE_SHARE_MAX_NS : share;
}

static __always_inline __u64 gate_share_burst(const struct gate_request *r, __u64 share)
{
	return share * (r->settings->source_burst ? r->settings->source_burst : 1);
}

/* 0: none, it is exempt. Its weight stands in its entry, where track wrote it. */
static __always_inline __u64 gate_source_share(const struct gate_request *r)
{
	__u64 share = gate_share(r, false);
	__u32 weight = r->source->weight;

	if (weight <= 1)
		return share;
	return weight == TG_WEIGHT_EXEMPT ? 0 : share / weight;
}

/* Of a source over its share, which begins where it is a burst ahead. */
static __always_inline enum gate_rank gate_rank_over(__u64 ahead, __u64 burst)
{
	if (ahead <= burst + burst / 2)
		return GATE_OVER;
	return ahead <= 2 * burst ? GATE_FAR_OVER : GATE_FARTHEST_OVER;
}

/* Of one within: by what it is ahead before this admission. */
static __always_inline enum gate_rank gate_rank_within(__s64 ahead, __u64 share, __u64 burst)
{
	if (ahead <= 0)
		return ahead <= -(__s64)share ? GATE_FAR_BEHIND : GATE_BEHIND;
	if ((__u64)ahead <= burst / 4)
		return GATE_EVEN;
	if ((__u64)ahead <= burst / 2)
		return GATE_EVEN - 1;
	return (__u64)ahead <= burst / 2 + burst / 4 ? GATE_EVEN - 2 : GATE_AHEAD;
}

/* A proven source is judged by what it was given. */
static __always_inline void gate_rank_source(struct gate_request *r)
{
	__u64 share = gate_source_share(r), burst = gate_share_burst(r, share);
	__u64 tat = r->source->tat_ns, ahead = gcra_base(tat, r->now) + share - r->now;

	r->share = share;
	if (!share)
		return;
	r->over = ahead > burst;
	r->rank = r->over ? gate_rank_over(ahead, burst)
			  : gate_rank_within(tat - r->now, share, burst);
}

/* A newcomer by how often it tried, for it has no entry that could remember what it was given. */
static __always_inline bool gate_newcomer_over(const struct gate_request *r, const struct syn *syn)
{
	__u64 share = gate_share(r, true);
	__u64 bound = gate_share_burst(r, share) + (2ULL << TG_WINDOW_SHIFT);

	if (r->seen.count * share <= bound)
		return false;
	__u32 weight = gate_weight(r->settings, syn);
	return weight != TG_WEIGHT_EXEMPT && r->seen.count * (share / weight) > bound;
}

static __always_inline __u64 gate_limit(__u64 burst, __u64 interval, enum gate_rank rank)
{
	return rank == GATE_FIRST ? burst : gcra_burst(burst / GATE_FIRST * rank, interval);
}

/* All newcomers together have this rate, and those that tried too often half of its burst. */
static __always_inline bool gate_newcomers_spent(const struct gate_request *r)
{
	__u64 interval = r->gate->new_interval_ns;

	if (!interval)
		return false; /* nothing is reserved */
	return !gcra_conforms(r->pace->new_tat_ns, r->now, interval,
		gate_limit(gcra_burst(r->gate->burst_ns, interval), interval,
			r->over ? GATE_OVER : GATE_FIRST));
}

static __always_inline void gate_charge(struct gate_request *r, bool unproven)
{
	__u64 interval = r->gate->new_interval_ns;

	if (unproven && interval)
		gcra_advance(&r->pace->new_tat_ns, r->now, interval,
			gcra_burst(r->gate->burst_ns, interval));
	if (r->source && r->share)
		gcra_advance(
			&r->source->tat_ns, r->now, r->share, 2 * gate_share_burst(r, r->share));
}

static __always_inline enum tg_verdict gate_pace(struct gate_request *r, const struct syn *syn)
{
	const struct tg_gate *g = r->gate;
	__u64 interval = g->interval_ns, burst = gcra_burst(g->burst_ns, interval);
	bool unproven;

	r->rank = GATE_FIRST;
	unproven = !r->exempt && !r->source;
	if (!r->exempt && r->settings->flags & TG_SET_FAIR) {
		if (r->seen.first)
			__sync_fetch_and_add(&r->pace->active[unproven], 1);
		if (r->source) {
			gate_rank_source(r);
		} else {
			/* One that is let in is proven from then on. So newcomers had nothing yet,
			 * however often they tried; it is their number that is limited. */
			r->over = gate_newcomer_over(r, syn);
			if (r->over && !g->new_interval_ns)
				r->rank = GATE_OVER;
		}
	}
	if (unproven && gate_newcomers_spent(r))
		return r->over ? TG_DROP_SHARE : TG_DROP_NEWCOMER; /* the rest is for proven ones */

	switch (gcra_take(
		&r->pace->tat_ns, r->now, interval, gate_limit(burst, interval, r->rank), burst)) {
	case GCRA_OVER:
		return r->over ? TG_DROP_SHARE : TG_DROP_RATE; /* more than can be served in time */
	case GCRA_CONTENDED:
		return TG_DROP_CONTENDED; /* others were admitted at each try */
	case GCRA_TAKEN:
		break;
	}
	gate_charge(r, unproven);
	return TG_ADMIT_PACED;
}

static __always_inline enum tg_verdict gate_decide(struct gate_request *r, const struct syn *syn)
{
	/* Without a gate nobody is home to open it again. */
	if (r->gate && r->gate->state == TG_GATE_SHUT)
		return TG_DROP_SHUT; /* memory is short, or the operator said so */
	if (r->gate && gate_permits_spent(r))
		return TG_DROP_PERMITS; /* too many that were admitted still wait */
	/* Before it costs any of the rate: it may be forged. */
	if (cookies && r->cookies && !r->source)
		return TG_COOKIE_SENT;
	enum tg_verdict v = r->paced ? gate_pace(r, syn) : TG_ADMIT_OPEN;
	/* The kernel answers it with a cookie of its own. */
	if (cookies && r->cookies && v <= TG_ADMIT_PACED)
		cookie_remember(syn, syn->seq);
	return v;
}

#endif
