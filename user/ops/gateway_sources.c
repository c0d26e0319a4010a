/* What the kernel knows of source prefixes: the list of them, and why a SYN would be let in or not.
 */
#include "ops/gateway_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>

#include "kern/bpf_gate.h"
#include "kern/bpf_lists.h"
#include "kern/bpf_proven.h"
#include "ops/gate_options.h"

struct look {
	const struct gateway_kernel *k;
	struct tg_settings settings;
	uint64_t now_ns;
};

static int begin(const struct gateway *g, struct look *l)
{
	uint32_t zero = 0;

	if (!g->kernel.on)
		return -EOPNOTSUPP;
	l->k = &g->kernel;
	l->now_ns = worker_clock_ns();
	return bpf_map_lookup_elem(l->k->fd[BPF_MAP_settings], &zero, &l->settings) ? -errno : 0;
}

static double seconds(uint64_t ns)
{
	return (double)ns / 1e9;
}

/* ---- the list ---- */

static void describe(const struct look *l, const struct tg_prefix *key,
	const struct tg_source *source, struct source_info *ret)
{
	struct tg_penalty penalty;
	struct tg_open open;
	double known = seconds(l->now_ns - source->first_ns);

	*ret = (struct source_info){
		.accepts = source->accepts,
		.closes = source->closes,
		.churn_per_s = known > 0 ? (double)(source->accepts + source->closes) / known : 0,
		.last_s = seconds(l->now_ns - source->last_ns),
		.weight = source->weight ? source->weight : 1,
	};
	bpf_source_format(key, ret->prefix);
	if (!bpf_map_lookup_elem(l->k->fd[BPF_MAP_open], key, &open) && open.connections > 0)
		ret->open = (uint32_t)open.connections;
	if (!bpf_map_lookup_elem(l->k->fd[BPF_MAP_penalty], key, &penalty)) {
		ret->strikes = penalty.strikes;
		if (penalty.until_ns > l->now_ns)
			ret->penalty_left_s = seconds(penalty.until_ns - l->now_ns);
	}
}

static int by_weight_of_presence(const void *a, const void *b)
{
	const struct source_info *x = a, *y = b;
	double dx = x->penalty_left_s + x->open + x->churn_per_s,
	       dy = y->penalty_left_s + y->open + y->churn_per_s;

	return (dx < dy) - (dx > dy);
}

static int add(struct source_info **all, size_t *n, size_t *room, const struct source_info *one)
{
	if (*n == *room) {
		size_t more = *room ? 2 * *room : 256;
		struct source_info *p = realloc(*all, more * sizeof *p);

		if (!p)
			return -ENOMEM;
		*all = p;
		*room = more;
	}
	(*all)[(*n)++] = *one;
	return 0;
}

int gateway_sources(void *ctx, size_t limit, struct source_info **ret, size_t *ret_n)
{
	struct source_info *all = NULL, one;
	struct tg_prefix key, next;
	struct tg_source source;
	size_t n = 0, room = 0;
	void *at = NULL;
	struct look l;
	int fd, err = begin(ctx, &l);

	if (err)
		return err;
	fd = l.k->fd[BPF_MAP_sources];
	/* An LRU map moves under the walk: some may be missed, and none is waited for. */
	for (uint32_t i = 0; i < 1u << 24 && !bpf_map_get_next_key(fd, at, &next); i++) {
		key = next;
		at = &key;
		if (bpf_map_lookup_elem(fd, &key, &source))
			continue;
		describe(&l, &key, &source, &one);
		err = add(&all, &n, &room, &one);
		if (err) {
			free(all);
			return err;
		}
	}
	qsort(all, n, sizeof *all, by_weight_of_presence);
	*ret = all;
	*ret_n = n < limit ? n : limit;
	return 0;
}

/* ---- the busiest ---- */

enum {
	BATCH = 1024,       /* entries a system call; more than a bucket ever holds */
	REST_PER_WALK = 50, /* a walk takes at most 2 % of a CPU */
};

struct best {
	double presence[SOURCES_TOP_MAX]; /* greatest first */
	struct tg_prefix key[SOURCES_TOP_MAX];
	size_t n;
};

/* By what the entry alone says: who else would have to be asked of each is asked of the best. */
static double presence(const struct tg_source *s, uint64_t now_ns)
{
	double known = seconds(now_ns - s->first_ns);
	double churn = known > 0 ? (double)(s->accepts + s->closes) / known : 0;

	return churn + (s->accepts > s->closes ? (double)(s->accepts - s->closes) : 0);
}

static void consider(struct best *b, const struct tg_prefix *key, double worth)
{
	size_t i;

	if (b->n == SOURCES_TOP_MAX && worth <= b->presence[b->n - 1])
		return;
	if (b->n < SOURCES_TOP_MAX)
		b->n++;
	for (i = b->n - 1; i && b->presence[i - 1] < worth; i--) {
		b->presence[i] = b->presence[i - 1];
		b->key[i] = b->key[i - 1];
	}
	b->presence[i] = worth;
	b->key[i] = *key;
}

static int walk(const struct look *l, struct best *ret)
{
	struct tg_prefix *keys = malloc(BATCH * sizeof *keys);
	struct tg_source *values = malloc(BATCH * sizeof *values);
	uint32_t at, *in = NULL;
	int err = keys && values ? 0 : -ENOMEM;

	ret->n = 0;
	while (!err) {
		uint32_t n = BATCH;

		err = bpf_map_lookup_batch(
			l->k->fd[BPF_MAP_sources], in, &at, keys, values, &n, NULL);
		if (!err || err == -ENOENT)
			for (uint32_t i = 0; i < n; i++)
				consider(ret, &keys[i], presence(&values[i], l->now_ns));
		in = &at;
	}
	free(keys);
	free(values);
	return err == -ENOENT ? 0 : err; /* that was all */
}

int gateway_top_sources(void *ctx, size_t limit, struct source_info *ret, size_t *ret_n)
{
	struct gateway *g = ctx;
	struct gateway_top *top = &g->top;
	struct tg_source source;
	struct best best;
	struct look l;
	size_t n = 0;
	int err = begin(g, &l);

	if (!err && l.now_ns >= top->next_walk_ns) {
		err = walk(&l, &best);
		if (!err) {
			uint64_t end_ns = worker_clock_ns();

			memcpy(top->key, best.key, sizeof top->key);
			top->n = best.n;
			top->next_walk_ns = end_ns + REST_PER_WALK * (end_ns - l.now_ns);
		}
	}
	if (err)
		return err;
	for (size_t i = 0; i < top->n && n < limit; i++)
		if (!bpf_map_lookup_elem(l.k->fd[BPF_MAP_sources], &top->key[i], &source))
			describe(&l, &top->key[i], &source, &ret[n++]);
	qsort(ret, n, sizeof *ret, by_weight_of_presence);
	*ret_n = n;
	return 0;
}

/* ---- why ---- */

static bool in_list(const struct look *l, enum bpf_shared_map map, const struct tg_lpm_key *addr,
	struct why_info *ret)
{
	struct tg_list_entry e;
	struct tg_lpm_key key;

	if (bpf_list_match(l->k->fd[map], addr->addr, &key, &e))
		return false;
	bpf_prefix_format(&key, ret->entry);
	snprintf(ret->detail, sizeof ret->detail, "the %s list has it, %s",
		map == BPF_MAP_allow ? "allow" : "deny",
		e.origin == TG_ORIGIN_CONFIG ? "from the configuration" : "from an operator");
	return true;
}

static bool in_box(
	const struct look *l, const struct tg_lpm_key *addr, unsigned family, struct why_info *ret)
{
	for (unsigned i = 0; i < TG_TIERS; i++) {
		unsigned len = l->settings.tier[family][i].len;
		struct tg_penalty p;
		struct tg_prefix key;

		if (!len)
			continue;
		bpf_source_key(addr->addr, len, &key);
		if (bpf_map_lookup_elem(l->k->fd[BPF_MAP_penalty], &key, &p) ||
			p.until_ns <= l->now_ns)
			continue;
		bpf_source_format(&key, ret->entry);
		snprintf(ret->detail, sizeof ret->detail, "%s; %.0f s left, the %u. time",
			p.reason == TG_PENALTY_CHURN ? "opened and closed connections too fast"
			: p.reason == TG_PENALTY_CONCURRENCY ? "had too many connections open"
							     : "an operator put it there",
			seconds(p.until_ns - l->now_ns), p.strikes);
		return true;
	}
	return false;
}

static void judge_gate(const struct look *l, struct why_info *ret)
{
	const struct tg_gate *g = l->k->gate;
	const char *reason = bpf_gate_reason_name(g->reason);

	strcpy(ret->decides, "gate");
	ret->admitted = true;
	if (l->now_ns - g->heartbeat_ns > l->settings.stale_ns)
		strcpy(ret->detail, "the gate is open: nobody has set it for a while");
	else if (g->state == TG_GATE_SHUT) {
		ret->admitted = false;
		snprintf(ret->detail, sizeof ret->detail, "the gate is shut by %s", reason);
	} else if (g->permits && gateway_kernel_unserved(l->k) >= g->permits) {
		ret->admitted = false;
		strcpy(ret->detail, "too many connections wait to be served");
	} else if (g->state == TG_GATE_PACED && g->interval_ns)
		snprintf(ret->detail, sizeof ret->detail,
			"the gate is paced by %s to %.0f connections/s; within that it is let in",
			reason, 1e9 / (double)g->interval_ns);
	else
		strcpy(ret->detail, "the gate is open");
}

/* As bpf/gate.bpf.h has it; also where the gate is open. */
static bool answered_by_cookie(const struct look *l, const struct why_info *w, bool loopback)
{
	const struct tg_pace *p = l->k->pace;

	return l->settings.cookie_trigger && p->cookies &&
	       (l->now_ns >> TG_WINDOW_SHIFT) - p->window <= 1 && !w->proven && !loopback &&
	       w->admitted;
}

static void judge_newcomer(const struct look *l, struct why_info *ret, bool loopback)
{
	size_t len;

	judge_gate(l, ret);
	ret->cookie = answered_by_cookie(l, ret, loopback);
	if (!ret->cookie)
		return;
	len = strlen(ret->detail);
	snprintf(ret->detail + len, sizeof ret->detail - len,
		"; while so many SYNs come its own gets a cookie, and the ACK is judged");
}

int gateway_why(void *ctx, const struct in6_addr *addr, struct why_info *ret)
{
	struct tg_lpm_key key;
	struct tg_prefix narrow;
	struct bpf_proven_place place;
	struct tg_weight weight;
	struct tg_open open;
	struct look l;
	unsigned family = !IN6_IS_ADDR_V4MAPPED(addr);
	bool loopback;
	int err = begin(ctx, &l);

	if (err)
		return err;
	*ret = (struct why_info){.admitted = true};
	gate_key(addr, 128, &key);
	bpf_source_key(key.addr, l.settings.tier[family][0].len, &narrow);
	ret->proven =
		!bpf_proven_find(l.k->fd[BPF_MAP_proven], l.settings.proven_seed, &narrow, &place);
	if (!bpf_map_lookup_elem(l.k->fd[BPF_MAP_open], &narrow, &open) && open.connections > 0)
		ret->open = (uint32_t)open.connections;
	loopback = (l.settings.flags & TG_SET_EXEMPT_LOOPBACK) &&
		   (family ? IN6_IS_ADDR_LOOPBACK(addr) : addr->s6_addr[12] == 127);
	ret->exempt = loopback;
	if (!bpf_map_lookup_elem(l.k->fd[BPF_MAP_weights], &key, &weight) &&
		weight.weight == TG_WEIGHT_EXEMPT)
		ret->exempt = true;
	if (in_list(&l, BPF_MAP_allow, &key, ret)) {
		strcpy(ret->decides, "allow");
	} else if (in_list(&l, BPF_MAP_deny, &key, ret)) {
		strcpy(ret->decides, "deny");
		ret->admitted = false;
	} else if (!ret->exempt && in_box(&l, &key, family, ret)) {
		strcpy(ret->decides, "penalty");
		ret->admitted = false;
	} else {
		judge_newcomer(&l, ret, loopback);
	}
	if (!ret->admitted && (l.settings.flags & TG_SET_OBSERVE))
		ret->admitted = ret->observed = true;
	return 0;
}
