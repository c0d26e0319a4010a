/* Maps, settings and namespaces for tests of the BPF programs with real sockets. Root; else every
 * test of the group is skipped. */
#ifndef TIDEGATE_TESTS_KERNEL_FIXTURE_H
#define TIDEGATE_TESTS_KERNEL_FIXTURE_H

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "crowd.h"
#include "kern/bpf_error.h"
#include "kern/bpf_gate.h"
#include "kern/bpf_lists.h"
#include "kern/bpf_maps.h"
#include "kern/bpf_proven.h"
#include "kern/bpf_track.h"

enum {
	KERNEL_PORT = 8080,
	KERNEL_CONNECTIONS_MAX = 4096,
};

struct kernel {
	struct netns net;
	struct bpf_maps_opts opts;
	struct bpf_maps *maps;
	struct tg_settings settings;
	char dir[BPF_MAPS_DIR_MAX]; /* "": nothing is pinned */
	int client[KERNEL_CONNECTIONS_MAX], served[KERNEL_CONNECTIONS_MAX];
	unsigned clients, n_served;
};

/* Group set-up. */
static inline int kernel_begin(void **state)
{
	struct kernel *k = calloc(1, sizeof(*k));

	assert(k);
	*state = k;
	bpf_error_capture();
	if (geteuid() != 0 || netns_init(&k->net) || crowd_init(&k->net)) {
		free(k);
		*state = NULL;
	}
	return 0;
}

static inline int kernel_end(void **state)
{
	struct kernel *k = *state;

	if (k)
		netns_fini(&k->net);
	free(k);
	return 0;
}

static inline struct kernel *kernel_of(void **state)
{
	if (!*state)
		skip(); /* needs root, and a kernel that lets it make namespaces */
	return *state;
}

static inline void kernel_check(int rc, const char *step)
{
	if (rc)
		fprintf(stderr, "%s: %s; %s\n", step ? step : "?", strerror(-rc), bpf_error_text());
	assert_int_equal(rc, 0);
}

/* The step is looked at after the call that names it. */
#define kernel_ok(call, step)                                                                      \
	do {                                                                                       \
		int rc_ = (call);                                                                  \
		kernel_check(rc_, (step));                                                         \
	} while (0)

static inline void kernel_write_settings(const struct kernel *k)
{
	kernel_ok(bpf_settings_write(bpf_maps_fd(k->maps, BPF_MAP_settings), &k->settings),
		"settings");
}

/* Maps, of these numbers of `sources` and `open` if given; port 8080 on every address is the
 * gateway's. */
static inline void kernel_maps(struct kernel *k, const struct bpf_maps_opts *opts)
{
	static const struct bpf_endpoint port = {.port = KERNEL_PORT, .port_last = KERNEL_PORT};

	crowd_enter(k->net.server);
	/* Small ones: there are many tests. */
	k->opts = (struct bpf_maps_opts){
		.sources = 8192, .penalties = 1024, .list = 64, .listeners = 1024};
	if (opts && opts->sources)
		k->opts.sources = opts->sources;
	if (opts && opts->open)
		k->opts.open = opts->open;
	k->opts.dir = k->dir[0] ? k->dir : NULL;
	kernel_ok(bpf_maps_open(&k->opts, &k->maps), "maps");
	bpf_settings_init(&k->settings);
	kernel_ok(bpf_track_set_netns(&k->settings), "cookie");
	kernel_write_settings(k);
	kernel_ok(bpf_ports_write(k->maps, &port, 1), "ports");
}

/* What is made from now on is pinned. */
static inline void kernel_pin(struct kernel *k)
{
	snprintf(k->dir, sizeof(k->dir), "%s/tidegate", k->net.bpffs);
}

static inline uint64_t kernel_count(const struct kernel *k, enum tg_verdict v, bool observed)
{
	struct tg_verdict_count n[TG_VERDICT_COUNT];

	kernel_ok(bpf_verdicts_read(bpf_maps_fd(k->maps, BPF_MAP_verdicts), n), "verdicts");
	return observed ? n[v].observed : n[v].packets;
}

static inline struct tg_pace kernel_pace(const struct kernel *k)
{
	struct tg_pace pace;
	uint32_t zero = 0;

	assert_int_equal(bpf_map_lookup_elem(bpf_maps_fd(k->maps, BPF_MAP_pace), &zero, &pace), 0);
	return pace;
}

static inline unsigned kernel_entries(const struct kernel *k, enum bpf_shared_map which)
{
	struct tg_prefix key;
	unsigned n = 0;
	void *at = NULL;

	while (!bpf_map_get_next_key(bpf_maps_fd(k->maps, which), at, &key)) {
		at = &key;
		n++;
	}
	return n;
}

/* The key of sources, open, penalty: the first bits of "10.7.0.1/24", of whatever address. */
static inline struct tg_prefix kernel_prefix(const char *text)
{
	char address[64];
	unsigned bits;
	struct tg_lpm_key lpm;
	struct tg_prefix key;

	assert_int_equal(sscanf(text, "%63[^/]/%u", address, &bits), 2);
	assert_int_equal(bpf_prefix_parse(address, &lpm), 0);
	bpf_source_key(lpm.addr, bits, &key);
	return key;
}

static inline bool kernel_source(const struct kernel *k, const char *prefix, struct tg_source *ret)
{
	struct tg_prefix key = kernel_prefix(prefix);

	return !bpf_map_lookup_elem(bpf_maps_fd(k->maps, BPF_MAP_sources), &key, ret);
}

/* Its weight, or -ENOENT: the prefix is not proven. */
static inline int kernel_proven(const struct kernel *k, const char *prefix)
{
	struct tg_prefix key = kernel_prefix(prefix);
	struct tg_settings s;
	struct bpf_proven_place p;
	uint32_t zero = 0;

	assert_int_equal(bpf_map_lookup_elem(bpf_maps_fd(k->maps, BPF_MAP_settings), &zero, &s), 0);
	int rc = bpf_proven_find(bpf_maps_fd(k->maps, BPF_MAP_proven), s.proven_seed, &key, &p);
	return rc ? rc : (int)p.entry.share[p.way].weight;
}

/* 0: no entry. */
static inline int kernel_open(const struct kernel *k, const char *prefix)
{
	struct tg_prefix key = kernel_prefix(prefix);
	struct tg_open o;

	return bpf_map_lookup_elem(bpf_maps_fd(k->maps, BPF_MAP_open), &key, &o) ? 0
										 : o.connections;
}

static inline bool kernel_penalty(
	const struct kernel *k, const char *prefix, struct tg_penalty *ret)
{
	struct tg_prefix key = kernel_prefix(prefix);

	return !bpf_map_lookup_elem(bpf_maps_fd(k->maps, BPF_MAP_penalty), &key, ret);
}

/* A connection is the server's a little after connect has returned on the client's side. */
static inline bool kernel_penalty_comes(
	const struct kernel *k, const char *prefix, struct tg_penalty *ret)
{
	for (unsigned ms = 0; ms < 5000; ms++) {
		if (kernel_penalty(k, prefix, ret))
			return true;
		crowd_sleep_ms(1);
	}
	return false;
}

/* The end of penalties that admit finds for the prefix before it looks for an entry. */
static inline uint64_t kernel_filter(const struct kernel *k, const char *prefix)
{
	struct tg_prefix key = kernel_prefix(prefix);
	struct tg_penalty_filter f = {0};

	uint32_t i = tg_filter_index(
		bpf_prefix_bits(&key), key.len, bpf_maps_entries(k->maps, BPF_MAP_penalty_filter));
	assert_int_equal(
		bpf_map_lookup_elem(bpf_maps_fd(k->maps, BPF_MAP_penalty_filter), &i, &f), 0);
	return f.until_ns;
}

static inline void kernel_weight(const struct kernel *k, const char *prefix, uint32_t weight)
{
	struct tg_weight w = {.weight = weight, .origin = TG_ORIGIN_CONFIG};
	struct tg_lpm_key key;

	assert_int_equal(bpf_prefix_parse(prefix, &key), 0);
	kernel_ok(bpf_weight_add(bpf_maps_fd(k->maps, BPF_MAP_weights), &key, &w), "weight");
}

/* ---- connections ---- */

static inline void kernel_connect(struct kernel *k, const char *from, const char *to, uint16_t port)
{
	assert_true(k->clients < KERNEL_CONNECTIONS_MAX);
	int fd = crowd_connect(&k->net, from, to, port);
	if (fd < 0)
		fprintf(stderr, "%s -> %s: %s\n", from, to, strerror(errno));
	assert_true(fd >= 0);
	k->client[k->clients++] = fd;
}

/* What waits at a listener. */
static inline unsigned kernel_accept(struct kernel *k, int listener)
{
	unsigned n = 0;
	int fd;

	while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		assert_true(k->n_served < KERNEL_CONNECTIONS_MAX);
		k->served[k->n_served++] = fd;
		n++;
	}
	return n;
}

/* Both sides, at once. */
static inline void kernel_close(struct kernel *k)
{
	for (unsigned i = 0; i < k->n_served; i++)
		crowd_reset(k->served[i]);
	for (unsigned i = 0; i < k->clients; i++)
		crowd_reset(k->client[i]);
	k->n_served = 0;
	k->clients = 0;
}

#endif
