/* What admission costs a packet: nanoseconds added over an empty XDP program in the same run, by
 * BPF_PROG_RUN. Each line switches one more step on, so that the difference is that step's share;
 * the lines with a bar have everything on. Best of several runs, for what disturbs only adds. */
#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "../support/packet.h"
#include "kern/bpf_copy.h"
#include "kern/bpf_error.h"
#include "kern/bpf_gate.h"
#include "kern/bpf_lists.h"
#include "kern/bpf_maps.h"
#include "kern/bpf_proven.h"
#include "tests/bench/admit_bench.skel.h"

enum {
	SOURCES = 1 << 20,
	LIST_ENTRIES = 100,
	LIST_MORE = 10000,
	REPEAT = 5000, /* half a millisecond: short enough to be left alone now and then */
	ROUNDS = 150,
	REPEAT_MANY = SOURCES / 4, /* the next run goes on where this one ends */
	ROUNDS_MANY = 40,
};

struct bench {
	struct bpf_maps *maps;
	struct admit_bench_bpf *skel;
	struct tg_settings settings;
	struct tg_gate gate;
	bool missed;
};

static void die(const char *what, int rc)
{
	fprintf(stderr, "bench-bpf: %s: %s %s\n", what, strerror(-rc), bpf_error_text());
	exit(1);
}

static void must(const char *what, int rc)
{
	if (rc < 0)
		die(what, rc);
}

static uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

/* ---- measuring ---- */

static double once(struct bpf_program *prog, const struct packet *p, int repeat, uint32_t verdict)
{
	uint8_t out[PACKET_MAX];
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = p->b, .data_size_in = p->len,
		.data_out = out, .data_size_out = sizeof(out), .repeat = repeat);

	must("BPF_PROG_RUN", bpf_prog_test_run_opts(bpf_program__fd(prog), &opts));
	if (opts.retval != verdict) {
		fprintf(stderr,
			"bench-bpf: %s said %u, expected %u: this measures something else\n",
			bpf_program__name(prog), opts.retval, verdict);
		exit(1);
	}
	/* The loop alone, to a nanosecond: making the buffers of a run takes milliseconds. */
	return opts.duration;
}

/* The heartbeat goes on, or the gate would be ignored after a second. */
static void beat(struct bench *b)
{
	uint32_t zero = 0;
	struct tg_pace pace;

	b->gate.heartbeat_ns = clock_ns();
	must("gate", bpf_map_update_elem(bpf_maps_fd(b->maps, BPF_MAP_gate), &zero, &b->gate, 0));
	/* Everybody is within the rate and its share: the longest way through the program. */
	must("pace", bpf_map_lookup_elem(bpf_maps_fd(b->maps, BPF_MAP_pace), &zero, &pace));
	pace.tat_ns = 0;
	must("pace", bpf_map_update_elem(bpf_maps_fd(b->maps, BPF_MAP_pace), &zero, &pace, 0));
}

/* Added by prog over base, the two taking turns. */
static double added(struct bench *b, struct bpf_program *prog, struct bpf_program *base,
	const struct packet *p, uint32_t verdict, int repeat, int rounds)
{
	double best = 1e9, best_base = 1e9;

	for (int i = 0; i < rounds; i++) {
		double ns = once(base, p, repeat, XDP_PASS);
		if (ns < best_base)
			best_base = ns;
		if (b->gate.interval_ns)
			beat(b);
		ns = once(prog, p, repeat, verdict);
		if (ns < best)
			best = ns;
	}
	return best - best_base;
}

static double one(struct bench *b, const struct packet *p, uint32_t verdict)
{
	return added(b, b->skel->progs.tidegate_admit, b->skel->progs.bench_empty, p, verdict,
		REPEAT, ROUNDS);
}

static void line(struct bench *b, const char *what, double ns, double before, double bar)
{
	printf("  %-58s %7.1f", what, ns);
	if (before >= 0)
		printf(" %+7.1f", ns - before);
	else
		printf("        ");
	if (bar > 0) {
		printf("  <= %3.0f  %s", bar, ns <= bar ? "ok" : "MISSES");
		b->missed |= ns > bar;
	}
	printf("\n");
	fflush(stdout);
}

/* ---- the steps ---- */

static void write_settings(struct bench *b)
{
	uint32_t zero = 0;

	/* Not by bpf_settings_write, which knows what makes no sense. */
	must("settings", bpf_map_update_elem(
				 bpf_maps_fd(b->maps, BPF_MAP_settings), &zero, &b->settings, 0));
}

static void setup(struct bench *b)
{
	struct bpf_maps_opts opts = {.sources = SOURCES};
	struct bpf_endpoint any = {.port = 8080, .port_last = 8080};

	must("maps", bpf_maps_open(&opts, &b->maps));
	b->skel = admit_bench_bpf__open();
	if (!b->skel)
		die("open", -errno);
	uint32_t blocks = bpf_maps_entries(b->maps, BPF_MAP_syn_sketch);
	b->skel->rodata->sketch_seed = clock_ns();
	b->skel->rodata->sketch_mask = blocks - 1;
	b->skel->rodata->sketch_row_bits = 31 - (uint32_t)__builtin_clz(blocks * TG_SKETCH_COLS);
	b->skel->rodata->proven_mask = bpf_maps_entries(b->maps, BPF_MAP_proven) - 1;
	b->skel->rodata->filter_entries = bpf_maps_entries(b->maps, BPF_MAP_penalty_filter);
	b->skel->rodata->bench_sources = SOURCES;
	b->skel->rodata->cookies = 1;
	must("reuse", bpf_maps_reuse(b->maps, b->skel->obj));
	must("load", admit_bench_bpf__load(b->skel));
	must("ports", bpf_ports_write(b->maps, &any, 1));
	bpf_settings_init(&b->settings);
	b->settings.flags = 0;
	b->settings.flood_limit = 0;
	b->settings.event_interval_ns = 0;
	write_settings(b);
}

static void fill_list(struct bench *b, enum bpf_shared_map which, uint8_t first, unsigned n)
{
	struct tg_list_entry entry = {.origin = TG_ORIGIN_CONFIG};
	struct tg_lpm_key key;
	char text[64];

	for (unsigned i = 0; i < n; i++) {
		uint32_t r = i * 2654435761u;
		snprintf(
			text, sizeof(text), "%u.%u.%u.0/24", first + i % 8, r >> 24, r >> 16 & 255);
		must("prefix", bpf_prefix_parse(text, &key));
		must("list", bpf_list_add(bpf_maps_fd(b->maps, which), &key, &entry));
	}
}

/* Somebody is in the box in every tier, or admit would not look there. */
static void fill_penalties(struct bench *b)
{
	int fd = bpf_maps_fd(b->maps, BPF_MAP_penalty);
	struct tg_penalty box = {.until_ns = UINT64_MAX / 2};
	for (unsigned i = 0; i < LIST_ENTRIES; i++) {
		struct tg_prefix key = {.family = 4,
			.len = i & 1 ? 24 : 32,
			.addr = {10, (uint8_t)(i >> 8), (uint8_t)i, 0}};
		must("penalty", bpf_map_update_elem(fd, &key, &box, 0));
	}
	bpf_penalty_index(fd, bpf_maps_fd(b->maps, BPF_MAP_penalty_filter),
		bpf_maps_fd(b->maps, BPF_MAP_pace));
}

static void prove(struct bench *b, const uint8_t addr[4])
{
	struct tg_prefix key = {.family = 4, .len = 32};

	memcpy(key.addr, addr, 4);
	must("proven", bpf_proven_put(bpf_maps_fd(b->maps, BPF_MAP_proven), b->settings.proven_seed,
			       &key, 0));
}

static void cpu_name(char *name, size_t len)
{
	char text[256];
	FILE *f = fopen("/proc/cpuinfo", "r");

	snprintf(name, len, "unknown CPU");
	while (f && fgets(text, sizeof(text), f))
		if (!strncmp(text, "model name", 10) && strchr(text, ':')) {
			snprintf(name, len, "%s", strchr(text, ':') + 2);
			name[strcspn(name, "\n")] = 0;
			break;
		}
	if (f)
		fclose(f);
}

/* One more step switched on in each line; returns the last. */
static double steps(struct bench *b, const struct packet *syn, const struct packet *other)
{
	double before = one(b, other, XDP_PASS), ns;

	line(b, "SYN to a port of others: headers, ports", before, -1, 0);
	ns = one(b, syn, XDP_PASS);
	line(b, "SYN, nothing configured: settings, clock, empty lists", ns, before, 0);
	fill_list(b, BPF_MAP_allow, 96, LIST_ENTRIES);
	before = ns;
	ns = one(b, syn, XDP_PASS);
	line(b, "  + allow list, 100 prefixes", ns, before, 0);
	fill_list(b, BPF_MAP_deny, 128, LIST_ENTRIES);
	before = ns;
	ns = one(b, syn, XDP_PASS);
	line(b, "  + deny list, 100 prefixes", ns, before, 0);
	fill_penalties(b);
	before = ns;
	ns = one(b, syn, XDP_PASS);
	line(b, "  + penalty box, 2 tiers, 100 in it", ns, before, 0);
	b->settings.flood_limit =
		UINT32_MAX / 2; /* one source millions of times a second is a flood */
	b->settings.event_interval_ns = 1000000000;
	b->settings.cookie_trigger = UINT32_MAX / 2;
	b->settings.flags = TG_SET_EXEMPT_LOOPBACK;
	write_settings(b);
	before = ns;
	ns = one(b, syn, XDP_PASS);
	line(b, "  + flood sketch", ns, before, 0);
	bpf_gate_set_rate(&b->gate, 1e9, 0.5, 3600000000000ull);
	b->gate.permits = UINT64_MAX;
	before = ns;
	ns = one(b, syn, XDP_PASS);
	line(b, "  + gate: permits, rate, proven or not", ns, before, 0);
	return ns;
}

/* ---- SYN cookies ---- */

/* Cookies are out and none is being sent: ACKs are looked at. */
static void cookies_out(struct bench *b)
{
	struct tg_pace pace;
	uint32_t zero = 0;

	must("pace", bpf_map_lookup_elem(bpf_maps_fd(b->maps, BPF_MAP_pace), &zero, &pace));
	pace.cookies_until_ns = UINT64_MAX / 2;
	must("pace", bpf_map_update_elem(bpf_maps_fd(b->maps, BPF_MAP_pace), &zero, &pace, 0));
}

/* A listener for whom the kernel makes and checks cookies, in a network namespace of its own, whose
 * sysctl is ours to set. */
static void listen_for_cookies(struct bench *b)
{
	struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(8080)};
	int fd = unshare(CLONE_NEWNET) ? -1 : socket(AF_INET, SOCK_STREAM, 0);
	FILE *f = fopen("/proc/sys/net/ipv4/tcp_syncookies", "w");
	uint32_t zero = 0;
	uint64_t value = (uint64_t)fd;

	if (fd < 0 || !f || fputs("2", f) < 0 || fclose(f) ||
		bind(fd, (struct sockaddr *)&any, sizeof(any)) || listen(fd, 128))
		die("a listener", -errno);
	must("listeners",
		bpf_map_update_elem(bpf_maps_fd(b->maps, BPF_MAP_listeners), &zero, &value, 0));
}

static void cookie_lines(struct bench *b, const struct packet *data)
{
	const struct packet_opts newcomer = {.src = "203.0.113.1", .tcp_options = 20};
	/* Of `data`; known for long. */
	const struct tg_prefix key = {.family = 4, .len = 32, .addr = {192, 0, 2, 1}};
	const struct tg_source old = {.accepts = 1, .first_ns = 1};
	struct packet_opts ack = newcomer;
	struct packet stranger, syn;

	ack.flags = PACKET_ACK;
	packet_build(&stranger, &ack);
	packet_build(&syn, &newcomer);
	must("sources", bpf_map_update_elem(bpf_maps_fd(b->maps, BPF_MAP_sources), &key, &old, 0));
	listen_for_cookies(b);
	cookies_out(b);
	printf("\n  while SYN cookies may be answered\n");
	line(b, "not a SYN, of a proven source", one(b, data, XDP_PASS), -1, 0);
	line(b, "not a SYN, of an unproven one: checked, no cookie", one(b, &stranger, XDP_PASS),
		-1, 0);
	b->settings.cookie_trigger = 1;
	write_settings(b);
	memcpy(b->skel->bss->bench_frame, syn.b, sizeof(b->skel->bss->bench_frame));
	line(b, "SYN answered with a cookie",
		added(b, b->skel->progs.bench_answer, b->skel->progs.bench_restore_empty, &syn,
			XDP_TX, REPEAT, ROUNDS),
		-1, 0);
}

int main(void)
{
	static const uint8_t one_source[4] = {192, 0, 2, 1};
	struct bench b = {0};
	struct packet syn, other, data, denied, syn6;
	char cpu[128];

	if (geteuid()) {
		fprintf(stderr, "bench-bpf: needs root\n");
		return 1;
	}
	setpriority(PRIO_PROCESS, 0, -20); /* if it fails, the figures are worse */
	setup(&b);
	packet_build(&syn, &(struct packet_opts){.tcp_options = 20});
	packet_build(&other, &(struct packet_opts){.tcp_options = 20, .dport = 9999});
	packet_build(&data, &(struct packet_opts){.flags = PACKET_ACK, .data = 64});
	packet_build(&denied, &(struct packet_opts){.src = "128.0.0.7", .tcp_options = 20});
	packet_build(&syn6, &(struct packet_opts){.src = "2001:db8::1", .tcp_options = 20});
	cpu_name(cpu, sizeof(cpu));
	printf("ns added over an empty XDP program, %s; best of %d runs\n\n", cpu, ROUNDS);
	printf("  %-58s %7s %7s\n", "", "ns", "step");

	double before = steps(&b, &syn, &other), ns;
	b.settings.flags |= TG_SET_FAIR;
	write_settings(&b);
	prove(&b, one_source);
	ns = one(&b, &syn, XDP_PASS);
	line(&b, "  + fair share of a proven source", ns, before, 0);
	b.settings.flags |= TG_SET_WEIGHTS;
	write_settings(&b);
	must("weights", bpf_weight_add(bpf_maps_fd(b.maps, BPF_MAP_weights),
				&(struct tg_lpm_key){.prefixlen = 128},
				&(struct tg_weight){2, TG_ORIGIN_CONFIG}));

	printf("\n  everything on\n");
	line(&b, "not a SYN", one(&b, &data, XDP_PASS), -1, 15);
	line(&b, "SYN refused by the deny list", one(&b, &denied, XDP_DROP), -1, 60);
	line(&b, "SYN admitted, one source", one(&b, &syn, XDP_PASS), ns, 80);
	line(&b, "SYN admitted, one source, IPv6", one(&b, &syn6, XDP_PASS), -1, 0);
	for (uint32_t i = 0; i < SOURCES; i++)
		prove(&b, (uint8_t[4]){16, (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i});
	ns = added(&b, b.skel->progs.bench_spread, b.skel->progs.bench_spread_empty, &syn, XDP_PASS,
		REPEAT_MANY, ROUNDS_MANY);
	line(&b, "SYN admitted, 1,048,576 proven sources at random", ns, -1, 320);
	fill_list(&b, BPF_MAP_deny, 128, LIST_MORE);
	line(&b, "SYN refused by a deny list of 10,000 prefixes", one(&b, &denied, XDP_DROP), -1,
		0);
	cookie_lines(&b, &data);
	admit_bench_bpf__destroy(b.skel);
	bpf_maps_close(b.maps);
	return 0;
}
