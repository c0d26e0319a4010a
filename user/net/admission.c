#include "net/admission.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "net/source_table.h"

#define SEC UINT64_C(1000000000)

enum {
	RATE_BURST_MS = 50, /* how far ahead of the rate admissions may run */
	CAS_TRIES = 16,     /* then a clock is too contended for to be kept exactly */
	WINDOW_SHIFT = TG_WINDOW_SHIFT,
	STRIKES_MAX = 32,
};

struct admission {
	struct admission_opts opts;
	struct source_table table;

	/* The gate, written by the governor, heartbeat last. */
	_Atomic uint64_t heartbeat_ns;
	_Atomic uint32_t state, reason, rate, reserve_rate, permits;

	/* Moved by every admission. */
	_Atomic uint64_t rate_tat_ns __attribute__((aligned(64)));
	_Atomic uint64_t new_tat_ns; /* of the part that unproven prefixes may use */
	_Atomic int64_t unserved __attribute__((aligned(64)));

	/* Distinct sources that tried, by windows of 2^30 ns. */
	_Atomic uint32_t window __attribute__((aligned(64)));
	_Atomic uint32_t active, active_last;
};

#define LOAD(field)     atomic_load_explicit(&(field), memory_order_relaxed)
#define STORE(field, v) atomic_store_explicit(&(field), (v), memory_order_relaxed)

int admission_create(const struct admission_opts *opts, struct admission **ret)
{
	struct admission *a = aligned_alloc(64, sizeof *a);
	int err;

	if (!a)
		return -ENOMEM;
	memset(a, 0, sizeof *a);
	a->opts = *opts;
	a->rate = GOVERNOR_RATE_MAX;
	a->permits = GOVERNOR_PERMITS_MAX;
	err = source_table_init(&a->table, opts->sources, opts->hash_key);
	if (err) {
		free(a);
		return err;
	}
	*ret = a;
	return 0;
}

void admission_destroy(struct admission *a)
{
	if (!a)
		return;
	source_table_fini(&a->table);
	free(a);
}

void admission_gate(struct admission *a, const struct governor_gate *gate)
{
	STORE(a->state, gate->state);
	STORE(a->reason, gate->reason);
	STORE(a->rate, gate->rate);
	STORE(a->reserve_rate, gate->reserve_rate);
	STORE(a->permits, gate->permits);
	atomic_store_explicit(&a->heartbeat_ns, gate->heartbeat_ns, memory_order_release);
}

void admission_gate_get(const struct admission *a, struct governor_gate *ret)
{
	*ret = (struct governor_gate){
		.heartbeat_ns = atomic_load_explicit(&a->heartbeat_ns, memory_order_acquire),
		.state = LOAD(a->state),
		.reason = LOAD(a->reason),
		.rate = LOAD(a->rate),
		.reserve_rate = LOAD(a->reserve_rate),
		.permits = LOAD(a->permits),
		.observe = a->opts.observe,
	};
}

uint64_t admission_unserved(const struct admission *a)
{
	int64_t n = LOAD(a->unserved);

	return n > 0 ? (uint64_t)n : 0;
}

/* ---- rates, all by GCRA: a theoretical arrival time that each event moves on ---- */

static bool conforms(uint64_t tat, uint64_t now_ns, uint64_t burst_ns)
{
	return tat <= now_ns || tat - now_ns <= burst_ns;
}

static void charge(_Atomic uint64_t *tat, uint64_t now_ns, uint64_t interval_ns)
{
	uint64_t old = LOAD(*tat);

	for (unsigned i = 0; i < CAS_TRIES; i++) {
		uint64_t from = old > now_ns ? old : now_ns;

		if (atomic_compare_exchange_weak_explicit(tat, &old, from + interval_ns,
			    memory_order_relaxed, memory_order_relaxed))
			return;
	}
}

static bool is_loopback(const struct in6_addr *a)
{
	return IN6_IS_ADDR_V4MAPPED(a) ? a->s6_addr[12] == 127 : IN6_IS_ADDR_LOOPBACK(a);
}

/* One tier of one connection's source. */
struct held {
	const struct admission_tier *tier;
	struct in6_addr prefix;
	unsigned len; /* of the mapped address */
	struct source *source;
	uint32_t open;
};

static void tiers_of(
	const struct admission *a, const struct in6_addr *peer, struct held h[TG_TIERS])
{
	bool v4 = IN6_IS_ADDR_V4MAPPED(peer);

	for (unsigned i = 0; i < TG_TIERS; i++) {
		const struct admission_tier *t = &a->opts.tier[!v4][i];

		h[i] = (struct held){.tier = t};
		if (!t->len)
			continue;
		h[i].len = v4 ? 96 + t->len : t->len;
		h[i].prefix = prefix_mask(peer, h[i].len);
	}
}

/* Limits are this many times as high; 0: exempt. */
static uint32_t weight_of(const struct admission_lists *lists, const struct in6_addr *peer)
{
	const struct prefix_entry *e = lists ? prefix_list_find(&lists->weights, peer) : NULL;

	return e ? e->value : 1;
}

static bool penalised(struct admission *a, const struct held *h, uint64_t now_ns)
{
	for (unsigned i = 0; i < TG_TIERS && h[i].len; i++) {
		uint64_t word, until;
		struct source *s = source_find(&a->table, &h[i].prefix, h[i].len, &word);

		if (!s)
			continue;
		until = atomic_load_explicit(&s->penalty_until_ns, memory_order_acquire);
		if (until > now_ns && source_still(s, word))
			return true;
	}
	return false;
}

/* Into the box, for longer each time; strikes are forgotten after penalty_max without one. The
 * caller holds the entry. */
static void penalise(struct admission *a, struct tg_worker_stats *stats, struct source *s,
	enum tg_verdict why, uint64_t now_ns)
{
	uint64_t until = LOAD(s->penalty_until_ns), ns = a->opts.penalty_ns;
	uint32_t strikes = LOAD(s->strikes);

	if (until > now_ns)
		return; /* it is in there already */
	if (until && now_ns - until > a->opts.penalty_max_ns)
		strikes = 0;
	for (uint32_t i = 0; i < strikes && ns < a->opts.penalty_max_ns; i++)
		ns *= 2;
	if (ns > a->opts.penalty_max_ns)
		ns = a->opts.penalty_max_ns;
	STORE(s->strikes, strikes < STRIKES_MAX ? strikes + 1 : strikes);
	STORE(s->penalty_until_ns, now_ns + ns);
	(a->opts.observe ? stats->verdicts_observed : stats->verdicts)[why]++;
}

static uint64_t churn_interval(const struct admission_tier *t, uint32_t weight)
{
	return SEC / ((uint64_t)t->churn * weight);
}

static bool churns(const struct held *h, uint32_t weight, uint64_t now_ns)
{
	uint64_t interval;

	if (!h->tier->churn)
		return false;
	interval = churn_interval(h->tier, weight);
	return !conforms(
		LOAD(h->source->churn_tat_ns), now_ns, interval * h->tier->churn_burst * weight);
}

/* Up to the limit only: a crowd that leaves at once is penalised once, not for as long as it was
 * large. */
static void charge_churn(const struct held *h, uint32_t weight, uint64_t now_ns)
{
	if (h->tier->churn && !churns(h, weight, now_ns))
		charge(&h->source->churn_tat_ns, now_ns, churn_interval(h->tier, weight));
}

static void release(struct held *h)
{
	for (unsigned i = 0; i < TG_TIERS; i++)
		if (h[i].source)
			source_release(h[i].source);
}

/* Holds every tier and looks at its limits. TG_VERDICT_COUNT: within all of them. */
static enum tg_verdict hold(struct admission *a, struct tg_worker_stats *stats, struct held *h,
	uint32_t weight, uint64_t now_ns)
{
	for (unsigned i = 0; i < TG_TIERS && h[i].len; i++) {
		h[i].source = source_hold(&a->table, &h[i].prefix, h[i].len, now_ns, &h[i].open);
		if (!h[i].source)
			stats->verdicts[TG_TRACK_OPEN_FULL]++;
	}
	for (unsigned i = 0; i < TG_TIERS && h[i].len; i++) {
		bool crowd;

		if (!h[i].source)
			continue;
		crowd = h[i].tier->open && h[i].open > (uint64_t)h[i].tier->open * weight;
		if (!crowd && !churns(&h[i], weight, now_ns))
			continue;
		penalise(a, stats, h[i].source,
			crowd ? TG_TRACK_PENALTY_OPEN : TG_TRACK_PENALTY_CHURN, now_ns);
		return TG_DROP_PENALTY;
	}
	return TG_VERDICT_COUNT;
}

/* ---- the gate ---- */

/* Counts a source as active once a window, and begins the next window when it is time. */
static void note_active(struct admission *a, struct source *s, uint64_t now_ns)
{
	uint32_t window = (uint32_t)(now_ns >> WINDOW_SHIFT), old = LOAD(a->window);

	if (!window)
		window = 1; /* 0 is what an entry begins with */
	if (old != window && atomic_compare_exchange_strong_explicit(&a->window, &old, window,
				     memory_order_relaxed, memory_order_relaxed))
		STORE(a->active_last,
			atomic_exchange_explicit(&a->active, 0, memory_order_relaxed));
	if (atomic_exchange_explicit(&s->window, window, memory_order_relaxed) != window)
		atomic_fetch_add_explicit(&a->active, 1, memory_order_relaxed);
}

static uint32_t active(const struct admission *a)
{
	uint32_t now = LOAD(a->active), last = LOAD(a->active_last), n = now > last ? now : last;

	return n ? n : 1;
}

/* Admission at a rate. Over its share a source still gets what nobody else wants, up to twice the
 * share; the limit for unproven ones leaves the reserve to proven ones. */
static enum tg_verdict pace(
	struct admission *a, struct source *s, bool proven, uint32_t weight, uint64_t now_ns)
{
	uint64_t rate = LOAD(a->rate), reserve = LOAD(a->reserve_rate), interval, share = 0;
	uint64_t burst = RATE_BURST_MS * (SEC / 1000), new_interval = 0;
	bool plenty;

	if (!rate)
		return TG_DROP_SHUT;
	interval = SEC / rate;
	plenty = conforms(LOAD(a->rate_tat_ns), now_ns, 0);
	if (s) {
		uint64_t ahead;

		note_active(a, s, now_ns);
		share = SEC * active(a) / (rate * weight);
		ahead = share * a->opts.source_burst;
		if (!conforms(LOAD(s->share_tat_ns), now_ns, ahead) &&
			!(plenty && conforms(LOAD(s->cap_tat_ns), now_ns, ahead / 2)))
			return TG_DROP_SHARE;
	}
	if (!proven && reserve) {
		new_interval = rate > reserve ? SEC / (rate - reserve) : UINT64_MAX;
		if (new_interval == UINT64_MAX || !conforms(LOAD(a->new_tat_ns), now_ns, burst))
			return TG_DROP_NEWCOMER;
	}
	if (!conforms(LOAD(a->rate_tat_ns), now_ns, burst))
		return LOAD(a->state) == TG_GATE_SHUT ? TG_DROP_SHUT : TG_DROP_RATE;
	charge(&a->rate_tat_ns, now_ns, interval);
	if (new_interval)
		charge(&a->new_tat_ns, now_ns, new_interval);
	if (s) {
		charge(&s->share_tat_ns, now_ns, share);
		charge(&s->cap_tat_ns, now_ns, share / 2);
	}
	return TG_ADMIT_PACED;
}

/* A silent governor must not keep anybody out, since it would never let him in again. */
static bool gate_stale(const struct admission *a, uint64_t now_ns)
{
	return governor_gate_stale(
		atomic_load_explicit(&a->heartbeat_ns, memory_order_acquire), now_ns);
}

static enum tg_verdict judge_gated(struct admission *a, const struct admission_lists *lists,
	struct tg_worker_stats *stats, const struct in6_addr *peer, bool limited, uint64_t now_ns,
	struct held *h)
{
	bool stale = gate_stale(a, now_ns), proven = !limited;
	uint32_t weight = limited ? weight_of(lists, peer) : 0;
	enum tg_verdict v = TG_VERDICT_COUNT;

	if (weight) {
		tiers_of(a, peer, h);
		if (penalised(a, h, now_ns))
			return TG_DROP_PENALTY;
	}
	if (!stale && !LOAD(a->rate))
		return TG_DROP_SHUT;
	if (!stale && admission_unserved(a) >= LOAD(a->permits))
		return TG_DROP_PERMITS;
	if (weight) {
		v = hold(a, stats, h, weight, now_ns);
		proven = h[0].source && LOAD(h[0].source->proven);
	} else {
		proven = true; /* the operator vouches for it */
	}
	if (v == TG_VERDICT_COUNT) {
		v = TG_ADMIT_OPEN;
		if (!stale && LOAD(a->rate) < GOVERNOR_RATE_MAX)
			v = pace(a, h[0].source, proven, weight ? weight : 1, now_ns);
	}
	for (unsigned i = 0; i < TG_TIERS && !admission_refuses(v); i++)
		if (h[i].source)
			charge_churn(&h[i], weight, now_ns);
	return v;
}

struct admission_result admission_judge(struct admission *a, const struct admission_lists *lists,
	struct tg_worker_stats *stats, const struct in6_addr *peer, unsigned flags, uint64_t now_ns)
{
	bool limited =
		!(flags & ADMISSION_TRUSTED) && (a->opts.limit_loopback || !is_loopback(peer));
	struct held h[TG_TIERS] = {0};
	struct admission_result r = {0};

	if (lists && prefix_list_find(&lists->allow, peer))
		r.verdict = TG_ADMIT_ALLOWED;
	else if (lists && prefix_list_find(&lists->deny, peer))
		r.verdict = TG_DROP_DENYLIST; /* the operator said no */
	else
		r.verdict = judge_gated(a, lists, stats, peer, limited, now_ns, h);
	if (admission_refuses(r.verdict)) {
		release(h);
		if (!a->opts.observe) {
			stats->verdicts[r.verdict]++;
			r.refused = true;
			return r;
		}
		memset(h, 0, sizeof h);
		stats->verdicts_observed[r.verdict]++;
	} else {
		stats->verdicts[r.verdict]++;
	}
	for (unsigned i = 0; i < TG_TIERS; i++)
		if (h[i].source)
			r.ticket |= (uint8_t)(TICKET_TIER0 << i);
	atomic_fetch_add_explicit(&a->unserved, 1, memory_order_relaxed);
	r.ticket |= TICKET_UNSERVED;
	return r;
}

uint8_t admission_left(struct admission *a, uint8_t ticket)
{
	if (ticket & TICKET_UNSERVED)
		atomic_fetch_sub_explicit(&a->unserved, 1, memory_order_relaxed);
	return ticket & (uint8_t)~TICKET_UNSERVED;
}

uint8_t admission_served(struct admission *a, const struct in6_addr *peer, uint8_t ticket)
{
	struct held h[TG_TIERS];
	uint64_t word;

	if (ticket & TICKET_TIER0) {
		struct source *s;

		tiers_of(a, peer, h);
		/* Held by this very connection: it cannot have gone. */
		s = source_find(&a->table, &h[0].prefix, h[0].len, &word);
		if (s && !LOAD(s->proven))
			STORE(s->proven, 1);
	}
	return admission_left(a, ticket);
}

void admission_closed(struct admission *a, const struct admission_lists *lists,
	struct tg_worker_stats *stats, const struct in6_addr *peer, uint8_t ticket, uint64_t now_ns)
{
	struct held h[TG_TIERS];
	uint32_t weight;
	uint64_t word;

	admission_left(a, ticket);
	if (!(ticket & TICKET_TIERS))
		return;
	tiers_of(a, peer, h);
	weight = weight_of(lists, peer);
	for (unsigned i = 0; i < TG_TIERS; i++) {
		if (!(ticket & TICKET_TIER0 << i))
			continue;
		h[i].source = source_find(&a->table, &h[i].prefix, h[i].len, &word);
		if (!h[i].source)
			continue;
		/* A weight of 0 may have come since: exempt from now on. */
		if (weight) {
			charge_churn(&h[i], weight, now_ns);
			if (churns(&h[i], weight, now_ns))
				penalise(a, stats, h[i].source, TG_TRACK_PENALTY_CHURN, now_ns);
		}
		atomic_store_explicit(&h[i].source->seen_ns, now_ns, memory_order_relaxed);
		source_release(h[i].source);
	}
}

static bool is_user_verdict(unsigned v)
{
	switch (v) {
	case TG_ADMIT_OPEN:
	case TG_ADMIT_PACED:
	case TG_ADMIT_ALLOWED:
	case TG_TRACK_PENALTY_CHURN:
	case TG_TRACK_PENALTY_OPEN:
	case TG_TRACK_OPEN_FULL:
		return true;
	default:
		return admission_refuses(v);
	}
}

bool admission_refuses(enum tg_verdict v)
{
	switch (v) {
	case TG_DROP_DENYLIST:
	case TG_DROP_PENALTY:
	case TG_DROP_SHUT:
	case TG_DROP_PERMITS:
	case TG_DROP_RATE:
	case TG_DROP_NEWCOMER:
	case TG_DROP_SHARE:
		return true;
	default:
		return false;
	}
}

enum tg_verdict admission_verdict_from(unsigned v)
{
	while (v < TG_VERDICT_COUNT && !is_user_verdict(v))
		v++;
	return v < TG_VERDICT_COUNT ? (enum tg_verdict)v : TG_VERDICT_COUNT;
}

const char *admission_verdict_name(enum tg_verdict v)
{
#define X(id, program, name, help) name,
	static const char *const names[TG_VERDICT_COUNT] = {TG_VERDICTS(X)};
#undef X

	return names[v];
}
