#include "kern/bpf_gate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#define NSEC_PER_SEC  1000000000ull
#define NSEC_PER_MSEC 1000000ull

enum {
	/* Two ticks of the slowest kernel: with less, a rate is lost between two looks of admit at
	 * its clock. */
	BURST_LEAST_MS = 40, /* four of the kernel's longest ticks … */
	BURST_INTERVALS = 4, /* … and so many connections: abi.h */
};

/* ---- settings ---- */

void bpf_settings_init(struct tg_settings *s)
{
	static const uint32_t len[TG_FAMILIES][TG_TIERS] = {{32, 24, 0}, {64, 56, 48}};

	memset(s, 0, sizeof(*s));
	s->flags = TG_SET_EXEMPT_LOOPBACK | TG_SET_FAIR;
	s->workers = 1;
	s->rings = 1;
	s->flood_limit = 200;
	s->source_burst = 4;
	s->stale_ns = NSEC_PER_SEC;
	s->event_interval_ns = 100 * NSEC_PER_MSEC;
	s->event_burst_ns = NSEC_PER_SEC;
	for (unsigned f = 0; f < TG_FAMILIES; f++)
		for (unsigned t = 0; t < TG_TIERS; t++)
			s->tier[f][t].len = len[f][t];
	s->penalty_ns = 60 * NSEC_PER_SEC;
	s->penalty_max_ns = 3600 * NSEC_PER_SEC;
	s->hang_ns = 20 * NSEC_PER_MSEC;
}

static bool settings_valid(const struct tg_settings *s)
{
	static const uint32_t longest[TG_FAMILIES] = {32, TG_PREFIX_V6_MAX};

	for (unsigned f = 0; f < TG_FAMILIES; f++)
		for (unsigned t = 0; t < TG_TIERS; t++)
			if (s->tier[f][t].len > longest[f])
				return false;
	return s->workers >= 1 && s->workers <= TG_WORKERS_MAX && s->rings >= 1 &&
	       s->flood_limit <= BPF_FLOOD_LIMIT_MAX && s->tier[0][0].len && s->tier[1][0].len;
}

int bpf_settings_write(int settings_fd, const struct tg_settings *s)
{
	struct tg_settings now = *s, old;
	uint32_t zero = 0;

	if (!settings_valid(s))
		return -EINVAL;
	if (bpf_map_lookup_elem(settings_fd, &zero, &old))
		return -errno;
	now.proven_seed = old.proven_seed;
	return bpf_map_update_elem(settings_fd, &zero, &now, BPF_ANY) ? -errno : 0;
}

/* ---- ports ---- */

static bool endpoint_valid(const struct bpf_endpoint *e)
{
	return e->port && e->port_last >= e->port && e->bits <= 128;
}

/* Of a port on every address, too, for the listener that its SYN cookies are made by. A range of
 * such, which may be of every port, has none. */
static bool has_entry(const struct bpf_endpoint *e)
{
	return e->bits || e->port == e->port_last;
}

static void address_key(const struct bpf_endpoint *e, unsigned port, struct tg_address_key *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->prefixlen = 32u + e->bits;
	ret->port = htobe16((uint16_t)port);
	for (unsigned bit = 0; bit < e->bits; bit++)
		ret->addr[bit / 8] |= e->addr[bit / 8] & (uint8_t)(0x80 >> bit % 8);
}

static void mark_ports(const struct bpf_endpoint *e, struct tg_port_word *words)
{
	for (unsigned port = e->port; port <= e->port_last; port++) {
		uint32_t bit = 1u << port % 32;
		if (e->bits)
			words[port / 32].listed |= bit;
		else
			words[port / 32].any |= bit;
	}
}

static int add_addresses(int fd, const struct bpf_endpoint *e)
{
	struct tg_address value = {.listener = e->listener};
	struct tg_address_key key;

	for (unsigned port = e->port; has_entry(e) && port <= e->port_last; port++) {
		address_key(e, port, &key);
		if (bpf_map_update_elem(fd, &key, &value, BPF_ANY))
			return -errno;
	}
	return 0;
}

/* What was there before, so that a failure can be taken back. */
struct keys {
	struct tg_address_key *key;
	unsigned n;
};

static int snapshot(int fd, uint32_t entries, struct keys *ret)
{
	struct tg_address_key key, next;
	void *at = NULL;

	ret->n = 0;
	ret->key = calloc(entries, sizeof(*ret->key));
	if (!ret->key)
		return -ENOMEM;
	while (ret->n < entries && !bpf_map_get_next_key(fd, at, &next)) {
		key = next;
		at = &key;
		ret->key[ret->n++] = key;
	}
	return 0;
}

static bool among(const struct tg_address_key *key, const struct keys *keys)
{
	for (unsigned i = 0; i < keys->n; i++)
		if (!memcmp(&keys->key[i], key, sizeof(*key)))
			return true;
	return false;
}

static bool configured(
	const struct tg_address_key *key, const struct bpf_endpoint *list, unsigned n)
{
	unsigned port = be16toh(key->port);
	struct tg_address_key mine;

	for (unsigned i = 0; i < n; i++) {
		if (!has_entry(&list[i]) || port < list[i].port || port > list[i].port_last)
			continue;
		address_key(&list[i], port, &mine);
		if (!memcmp(&mine, key, sizeof(mine)))
			return true;
	}
	return false;
}

static int write_words(int ports, const struct bpf_endpoint *list, unsigned n)
{
	struct tg_port_word *words = calloc(TG_PORT_WORDS, sizeof(*words));
	int rc = words ? 0 : -ENOMEM;

	for (unsigned i = 0; !rc && i < n; i++)
		mark_ports(&list[i], words);
	for (uint32_t w = 0; !rc && w < TG_PORT_WORDS; w++)
		if (bpf_map_update_elem(ports, &w, &words[w], BPF_ANY))
			rc = -errno;
	free(words);
	return rc;
}

int bpf_ports_write(const struct bpf_maps *m, const struct bpf_endpoint *list, unsigned n)
{
	int fd = bpf_maps_fd(m, BPF_MAP_addresses);
	struct keys old, all;
	int rc = 0;

	for (unsigned i = 0; i < n; i++)
		if (!endpoint_valid(&list[i]))
			return -EINVAL;
	rc = snapshot(fd, bpf_maps_entries(m, BPF_MAP_addresses), &old);
	for (unsigned i = 0; !rc && i < n; i++)
		rc = add_addresses(fd, &list[i]);
	if (!rc)
		rc = write_words(bpf_maps_fd(m, BPF_MAP_ports), list, n);
	/* Those that are not wanted any more, or, after a failure, those that were not before. */
	if (!snapshot(fd, bpf_maps_entries(m, BPF_MAP_addresses), &all))
		for (unsigned i = 0; i < all.n; i++)
			if (rc ? !among(&all.key[i], &old) : !configured(&all.key[i], list, n))
				bpf_map_delete_elem(fd, &all.key[i]);
	free(old.key);
	free(all.key);
	return rc;
}

/* ---- the gate ---- */

void bpf_gate_set_rate(struct tg_gate *g, double rate, double reserved, uint64_t burst_ns)
{
	double interval = (double)NSEC_PER_SEC / rate;

	if (reserved > 0.99)
		reserved = 0.99;
	if (interval < 1)
		interval = 1;
	if (burst_ns < BURST_LEAST_MS * NSEC_PER_MSEC)
		burst_ns = BURST_LEAST_MS * NSEC_PER_MSEC;
	if ((double)burst_ns < BURST_INTERVALS * interval)
		burst_ns = (uint64_t)(BURST_INTERVALS * interval);
	g->state = TG_GATE_PACED;
	g->interval_ns = (uint64_t)interval;
	g->burst_ns = burst_ns;
	g->new_interval_ns = reserved > 0 ? (uint64_t)(interval / (1 - reserved)) : 0;
}

void bpf_gate_publish(struct tg_gate *mapped, const struct tg_gate *g, uint64_t now_ns)
{
	/* Fields may be seen old and new together for a moment; each alone is in its range. */
	__atomic_store_n(&mapped->interval_ns, g->interval_ns, __ATOMIC_RELAXED);
	__atomic_store_n(&mapped->burst_ns, g->burst_ns, __ATOMIC_RELAXED);
	__atomic_store_n(&mapped->new_interval_ns, g->new_interval_ns, __ATOMIC_RELAXED);
	__atomic_store_n(&mapped->permits, g->permits, __ATOMIC_RELAXED);
	__atomic_store_n(&mapped->permits_base, g->permits_base, __ATOMIC_RELAXED);
	__atomic_store_n(&mapped->reason, g->reason, __ATOMIC_RELAXED);
	__atomic_store_n(&mapped->state, g->state, __ATOMIC_RELAXED);
	__atomic_store_n(&mapped->heartbeat_ns, now_ns, __ATOMIC_RELEASE);
}

#define X(id, name, help) name,
static const char *const state_names[] = {TG_GATE_STATES(X)};
static const char *const reason_names[] = {TG_GATE_REASONS(X)};
#undef X

const char *bpf_gate_state_name(uint32_t state)
{
	return state < TG_GATE_STATE_COUNT ? state_names[state] : "unknown";
}

const char *bpf_gate_reason_name(uint32_t reason)
{
	return reason < TG_GATE_REASON_COUNT ? reason_names[reason] : "unknown";
}

/* ---- verdicts ---- */

#define X(id, program, name, help) {program, name, help},
static const struct {
	const char *program, *name, *help;
} verdicts[] = {TG_VERDICTS(X)};
#undef X

const char *bpf_verdict_program(enum tg_verdict v)
{
	return (unsigned)v < TG_VERDICT_COUNT ? verdicts[v].program : "unknown";
}

const char *bpf_verdict_name(enum tg_verdict v)
{
	return (unsigned)v < TG_VERDICT_COUNT ? verdicts[v].name : "unknown";
}

const char *bpf_verdict_help(enum tg_verdict v)
{
	return (unsigned)v < TG_VERDICT_COUNT ? verdicts[v].help : "unknown";
}

bool bpf_verdict_refuses(enum tg_verdict v)
{
	return v >= TG_DROP_DENYLIST && v <= TG_DROP_CONTENDED;
}

int bpf_verdicts_read(int verdicts_fd, struct tg_verdict_count ret[TG_VERDICT_COUNT])
{
	int cpus = libbpf_num_possible_cpus(), rc = 0;
	struct tg_verdict_count sum[TG_VERDICT_COUNT] = {{0}};
	struct tg_verdict_count *per = cpus > 0 ? calloc((size_t)cpus, sizeof(*per)) : NULL;

	if (!per)
		return cpus < 0 ? cpus : -ENOMEM;
	for (uint32_t v = 0; !rc && v < TG_VERDICT_COUNT; v++) {
		if (bpf_map_lookup_elem(verdicts_fd, &v, per))
			rc = -errno;
		for (int c = 0; !rc && c < cpus; c++) {
			sum[v].packets += per[c].packets;
			sum[v].observed += per[c].observed;
		}
	}
	free(per);
	if (!rc)
		memcpy(ret, sum, sizeof(sum));
	return rc;
}
