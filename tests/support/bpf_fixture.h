/* The admission program and its maps, loaded but not attached, and packets put to it by
 * BPF_PROG_RUN. Without root, or where BPF is refused, every test of the group is skipped, which
 * the report counts apart. */
#ifndef TIDEGATE_TESTS_BPF_FIXTURE_H
#define TIDEGATE_TESTS_BPF_FIXTURE_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>

#include "kern/bpf_admit.h"
#include "kern/bpf_copy.h"
#include "kern/bpf_error.h"
#include "kern/bpf_gate.h"
#include "kern/bpf_lists.h"
#include "kern/bpf_maps.h"
#include "kern/bpf_proven.h"
#include "packet.h"

#define FIXTURE_HOUR_NS 3600000000000ull

struct fixture {
	struct bpf_maps *maps;
	struct bpf_admit *admit;
	struct tg_settings settings;
	struct tg_gate gate;
	struct tg_verdict_count before[TG_VERDICT_COUNT];
	uint32_t ifindex; /* packets come in here; 0: lo */
	/* Of the last run. */
	struct packet out;
	uint32_t action;
};

static struct fixture *fx; /* NULL: not permitted here */
/* Set before the first test: the program that may answer SYN cookies. */
static bool fixture_cookies;

static inline uint64_t fixture_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static inline int fixture_fd(enum bpf_shared_map which)
{
	return bpf_maps_fd(fx->maps, which);
}

static inline void fixture_write(enum bpf_shared_map which, const void *key, const void *value)
{
	assert_int_equal(bpf_map_update_elem(fixture_fd(which), key, value, BPF_ANY), 0);
}

static inline void fixture_settings(void)
{
	assert_int_equal(bpf_settings_write(fixture_fd(BPF_MAP_settings), &fx->settings), 0);
}

/* With a heartbeat of now. */
static inline void fixture_gate(void)
{
	uint32_t zero = 0;

	fx->gate.heartbeat_ns = fixture_now();
	fixture_write(BPF_MAP_gate, &zero, &fx->gate);
}

static inline struct tg_pace fixture_pace(void)
{
	struct tg_pace p;
	uint32_t zero = 0;

	assert_int_equal(bpf_map_lookup_elem(fixture_fd(BPF_MAP_pace), &zero, &p), 0);
	return p;
}

static inline void fixture_set_pace(const struct tg_pace *p)
{
	uint32_t zero = 0;

	fixture_write(BPF_MAP_pace, &zero, p);
}

static inline struct tg_lpm_key fixture_prefix(const char *text)
{
	struct tg_lpm_key key;

	assert_int_equal(bpf_prefix_parse(text, &key), 0);
	return key;
}

static inline void fixture_list(enum bpf_shared_map which, const char *prefix)
{
	struct tg_list_entry entry = {.created_s = 1, .origin = TG_ORIGIN_OPERATOR};
	struct tg_lpm_key key = fixture_prefix(prefix);

	assert_int_equal(bpf_list_add(fixture_fd(which), &key, &entry), 0);
}

/* As a key of sources, of the given length. */
static inline struct tg_prefix fixture_source(const char *address, unsigned len)
{
	struct tg_lpm_key key = fixture_prefix(address);
	struct tg_prefix ret;

	bpf_source_key(key.addr, len, &ret);
	return ret;
}

static inline uint64_t fixture_seed(void)
{
	struct tg_settings s;
	uint32_t zero = 0;

	assert_int_equal(bpf_map_lookup_elem(fixture_fd(BPF_MAP_settings), &zero, &s), 0);
	return s.proven_seed;
}

/* The share of a proven prefix. */
static inline struct bpf_proven_place fixture_share(const char *address, unsigned len)
{
	struct tg_prefix key = fixture_source(address, len);
	struct bpf_proven_place p;

	assert_int_equal(bpf_proven_find(fixture_fd(BPF_MAP_proven), fixture_seed(), &key, &p), 0);
	return p;
}

/* How many are. */
static inline unsigned fixture_proven(void)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < bpf_maps_entries(fx->maps, BPF_MAP_proven); i++) {
		struct tg_proven p;

		assert_int_equal(bpf_map_lookup_elem(fixture_fd(BPF_MAP_proven), &i, &p), 0);
		for (unsigned way = 0; way < TG_PROVEN_WAYS; way++)
			n += p.share[way].tag != 0;
	}
	return n;
}

/* As track does once a connection from there is established. */
static inline void fixture_prove(const char *address, unsigned len, uint32_t weight)
{
	struct tg_prefix key = fixture_source(address, len);

	assert_int_equal(
		bpf_proven_put(fixture_fd(BPF_MAP_proven), fixture_seed(), &key, weight), 0);
}

static inline void fixture_penalise(const char *address, unsigned len, uint64_t until_ns)
{
	struct tg_penalty box = {.until_ns = until_ns, .strikes = 1};
	struct tg_prefix key = fixture_source(address, len);

	fixture_write(BPF_MAP_penalty, &key, &box);
	bpf_penalty_index(fixture_fd(BPF_MAP_penalty), fixture_fd(BPF_MAP_penalty_filter),
		fixture_fd(BPF_MAP_pace));
}

static inline int fixture_entries(enum bpf_shared_map which)
{
	uint8_t key[64], next[64];
	int n = 0;

	for (void *at = NULL; !bpf_map_get_next_key(fixture_fd(which), at, next); n++)
		at = memcpy(key, next, sizeof(key));
	return n;
}

/* Puts the first len bytes of the frame to the program. */
static inline uint32_t fixture_run_bytes(const struct packet *p, unsigned len, int repeat)
{
	struct xdp_md ctx = {.data_end = len, .ingress_ifindex = fx->ifindex};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = p->b, .data_size_in = len,
		.data_out = fx->out.b, .data_size_out = PACKET_MAX, .repeat = repeat);

	if (fx->ifindex) {
		opts.ctx_in = &ctx;
		opts.ctx_size_in = sizeof(ctx);
	}
	assert_int_equal(bpf_prog_test_run_opts(bpf_admit_prog_fd(fx->admit), &opts), 0);
	fx->out.len = opts.data_size_out;
	fx->out.l3 = p->l3;
	fx->out.l4 = p->l3 + (p->v6 ? 40 : 20);
	fx->out.v6 = p->v6;
	fx->action = opts.retval;
	return opts.retval;
}

static inline uint32_t fixture_run(const struct packet_opts *o)
{
	struct packet p;

	packet_build(&p, o);
	return fixture_run_bytes(&p, p.len, 1);
}

static inline uint32_t fixture_run_many(const struct packet_opts *o, int repeat)
{
	struct packet p;

	packet_build(&p, o);
	return fixture_run_bytes(&p, p.len, repeat);
}

/* ---- verdicts since the last look ---- */

static inline void fixture_mark(void)
{
	assert_int_equal(bpf_verdicts_read(fixture_fd(BPF_MAP_verdicts), fx->before), 0);
}

static inline struct tg_verdict_count fixture_counted(enum tg_verdict v)
{
	struct tg_verdict_count now[TG_VERDICT_COUNT];

	assert_int_equal(bpf_verdicts_read(fixture_fd(BPF_MAP_verdicts), now), 0);
	now[v].packets -= fx->before[v].packets;
	now[v].observed -= fx->before[v].observed;
	return now[v];
}

/* Exactly these verdicts were counted, the events' own apart. */
static inline void fixture_expect(enum tg_verdict v, uint64_t packets)
{
	struct tg_verdict_count now[TG_VERDICT_COUNT];

	assert_int_equal(bpf_verdicts_read(fixture_fd(BPF_MAP_verdicts), now), 0);
	for (unsigned i = 0; i < TG_VERDICT_COUNT; i++) {
		uint64_t want = i == (unsigned)v ? packets : 0;
		uint64_t got = now[i].packets - fx->before[i].packets;
		if (i == TG_EVENT_SENT || i == TG_EVENT_LOST)
			continue;
		if (got != want)
			print_error("%s: %llu counted, %llu expected\n",
				bpf_verdict_name((enum tg_verdict)i), (unsigned long long)got,
				(unsigned long long)want);
		assert_int_equal(got, want);
		assert_int_equal(now[i].observed, fx->before[i].observed);
	}
	memcpy(fx->before, now, sizeof(now));
}

static inline void fixture_expect_none(void)
{
	fixture_expect(TG_ADMIT_OPEN, 0);
}

/* ---- life ---- */

static inline void fixture_close(void)
{
	if (!fx)
		return;
	bpf_admit_close(fx->admit);
	bpf_maps_close(fx->maps);
	free(fx);
	fx = NULL;
}

/* Before each test: fresh maps, the port 8080 on every address, settings as by default but without
 * loopback's exemption, since the packets of BPF_PROG_RUN come in on lo. */
static inline int fixture_setup(void **state)
{
	struct bpf_maps_opts opts = {.sources = 4096, .penalties = 4096, .list = 1024};
	struct bpf_endpoint any = {.port = 8080, .port_last = 8080};

	fx = calloc(1, sizeof(*fx));
	assert_non_null(fx);
	int rc = bpf_maps_open(&opts, &fx->maps);
	if (rc == -EPERM) {
		fixture_close();
		return 0;
	}
	if (!rc)
		rc = bpf_admit_load(fx->maps, fixture_cookies, &fx->admit);
	if (rc)
		print_error("%s: %s\n", strerror(-rc), bpf_error_text());
	assert_int_equal(rc, 0);
	bpf_settings_init(&fx->settings);
	fx->settings.flags &= ~(uint32_t)TG_SET_EXEMPT_LOOPBACK;
	fx->settings.stale_ns = FIXTURE_HOUR_NS; /* a slow machine must not open the gate */
	fixture_settings();
	assert_int_equal(bpf_ports_write(fx->maps, &any, 1), 0);
	fixture_mark();
	return 0;
}

static inline int fixture_teardown(void **state)
{
	fixture_close();
	return 0;
}

/* First in every test. */
#define FIXTURE_NEEDED()                                                                           \
	do {                                                                                       \
		if (!fx)                                                                           \
			skip();                                                                    \
	} while (0)

#define fixture_test(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)

#endif
