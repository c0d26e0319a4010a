#include "ops/gate_options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kern/bpf_lists.h"

enum {
	V4_MAPPED_BITS = 96, /* of ::ffff:0:0/96 */
	V4_KEY_BITS = 32,    /* of the block that stands for IPv4 in the tries */
};

void gate_key(const struct in6_addr *addr, unsigned len, struct tg_lpm_key *ret)
{
	*ret = (struct tg_lpm_key){.prefixlen = len};
	if (len >= V4_MAPPED_BITS && IN6_IS_ADDR_V4MAPPED(addr)) {
		bpf_address_v4(&addr->s6_addr[12], ret->addr);
		ret->prefixlen = len - V4_MAPPED_BITS + V4_KEY_BITS;
	} else {
		memcpy(ret->addr, addr, sizeof ret->addr);
	}
}

void gate_key_prefix(const struct tg_lpm_key *key, struct in6_addr *ret_addr, uint8_t *ret_len)
{
	struct tg_lpm_key v4;
	struct in6_addr mapped = {0};

	mapped.s6_addr[10] = mapped.s6_addr[11] = 0xff;
	gate_key(&mapped, V4_MAPPED_BITS, &v4);
	if (key->prefixlen >= V4_KEY_BITS && !memcmp(key->addr, v4.addr, V4_KEY_BITS / 8)) {
		memcpy(&mapped.s6_addr[12], key->addr + V4_KEY_BITS / 8, 4);
		*ret_addr = mapped;
		*ret_len = (uint8_t)(key->prefixlen - V4_KEY_BITS + V4_MAPPED_BITS);
	} else {
		memcpy(ret_addr, key->addr, sizeof *ret_addr);
		*ret_len = (uint8_t)key->prefixlen;
	}
}

static struct tg_lpm_key *keys(const struct config_prefix *p, unsigned n)
{
	struct tg_lpm_key *k = calloc(n + 1, sizeof *k);

	for (unsigned i = 0; k && i < n; i++)
		gate_key(&p[i].addr, p[i].len, &k[i]);
	return k;
}

/* The configured ones, and the senders of PROXY headers, whose clients are judged by the address
 * that the header declares. */
static int take_weights(const struct config *c, struct kernel_gate_opts *o)
{
	const struct config_admission *a = &c->admission;
	unsigned n = a->n_weights;
	struct kernel_gate_weight *w;

	for (unsigned i = 0; i < c->n_listeners; i++)
		n += c->listeners[i].n_proxy_from;
	o->weights = w = calloc(n + 1, sizeof *w);
	if (!w)
		return -ENOMEM;
	for (unsigned i = 0; i < c->n_listeners; i++) {
		for (unsigned k = 0; k < c->listeners[i].n_proxy_from; k++) {
			const struct config_prefix *p = &c->listeners[i].proxy_from[k];

			gate_key(&p->addr, p->len, &w[o->n_weights].key);
			w[o->n_weights++].weight = TG_WEIGHT_EXEMPT;
		}
	}
	for (unsigned i = 0; i < a->n_weights; i++) {
		gate_key(
			&a->weights[i].prefix.addr, a->weights[i].prefix.len, &w[o->n_weights].key);
		w[o->n_weights++].weight =
			a->weights[i].weight ? a->weights[i].weight : TG_WEIGHT_EXEMPT;
	}
	return 0;
}

static void take_settings(const struct config_admission *a, struct tg_settings *s)
{
	static const unsigned len[TG_FAMILIES][TG_TIERS] = {{32, 24, 0}, {64, 56, 48}};

	bpf_settings_init(s);
	s->flags = TG_SET_FAIR;
	if (a->mode == CONFIG_ADMISSION_OBSERVE)
		s->flags |= TG_SET_OBSERVE;
	if (a->refuse_reset)
		s->flags |= TG_SET_RESET;
	if (!a->limit_loopback)
		s->flags |= TG_SET_EXEMPT_LOOPBACK;
	s->flood_limit = a->flood_limit;
	s->cookie_trigger = a->cookie_trigger;
	s->source_burst = a->source_burst;
	s->penalty_ns = (uint64_t)a->penalty_ms * 1000000;
	s->penalty_max_ns = (uint64_t)a->penalty_max_ms * 1000000;
	for (unsigned f = 0; f < TG_FAMILIES; f++) {
		for (unsigned i = 0; i < TG_TIERS; i++) {
			const struct config_tier *t = &a->tier[f][i];
			uint64_t interval_ns = t->churn ? 1000000000 / t->churn : 0;

			/* Twice a second's worth may come at once. */
			s->tier[f][i] = (struct tg_tier){.len = len[f][i],
				.open_limit = t->open,
				.churn_interval_ns = interval_ns,
				.churn_burst_ns = 2 * interval_ns * t->churn};
		}
	}
}

int gate_options_init(const struct config *c, const char *version, struct kernel_gate_opts *ret)
{
	const struct config_admission *a = &c->admission;
	struct kernel_gate_opts o = {.instance = c->instance,
		.version = version,
		.interfaces = (const char *const *)a->interfaces.item,
		.n_interfaces = a->interfaces.n,
		.sources = a->sources,
		.n_allow = a->n_allow,
		.n_deny = a->n_deny,
		.sample_percent = c->sched_sample_percent};

	take_settings(a, &o.settings);
	o.allow = keys(a->allow, a->n_allow);
	o.deny = keys(a->deny, a->n_deny);
	if (take_weights(c, &o) || !o.allow || !o.deny) {
		gate_options_fini(&o);
		return -ENOMEM;
	}
	*ret = o;
	return 0;
}

void gate_options_fini(struct kernel_gate_opts *o)
{
	free((void *)(uintptr_t)o->allow);
	free((void *)(uintptr_t)o->deny);
	free((void *)(uintptr_t)o->weights);
}
