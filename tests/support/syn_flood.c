/* A flood of SYNs with forged sources, as fast as one CPU can send them, out of one end of a veth
 * pair: for namespaces that a test has made. Where there is a default route, and from a device that
 * is no veth, it refuses to run. It ends after a number of seconds or of frames, and prints
 *   {"sent": N, "sources": N, "seconds": S}
 *
 * The frames are BPF_PROG_RUN's "live frames" (Linux 5.18), which reach the other end through its
 * XDP program if it has a native one; else they are lost.
 *
 * Usage: syn_flood DEVICE MAC ADDRESS PORT SECONDS [SOURCES [FRAMES]]: the target's; SOURCES
 * distinct addresses from 11.0.0.0 on, a power of two (4194304). */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "syn_flood.h"
#include "tests/support/syn_flood.skel.h"

enum {
	SECONDS_MAX = 120,
	SOURCES = 1 << 22,
	SOURCES_MAX = 1 << 24, /* 11.0.0.0/8 */
	SOURCE_BASE = 11 << 24,
	BATCH = 64,
	FRAMES_A_CALL = 2048 * BATCH, /* a call has much to prepare: a tenth of a second */
};

static int fail(const char *what, int err)
{
	fprintf(stderr, "syn_flood: %s: %s\n", what, strerror(err));
	return 1;
}

static double seconds_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* A namespace that leads anywhere else than to what is at the other end has a default route. */
static bool leads_out(void)
{
	char line[256], destination[16];
	bool out = false;
	FILE *f = fopen("/proc/self/net/route", "re");

	if (!f)
		return true;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%*s %15s", destination) == 1 && !strcmp(destination, "00000000"))
			out = true;
	fclose(f);
	return out;
}

/* Only where nobody but the test that made the place is hit. */
static bool may_flood(const char *device)
{
	struct ethtool_drvinfo info = {.cmd = ETHTOOL_GDRVINFO};
	struct ifreq ifr = {.ifr_data = (char *)&info};
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", device);
	if (s < 0 || ioctl(s, SIOCETHTOOL, &ifr))
		info.driver[0] = '\0';
	if (s >= 0)
		close(s);
	return !strcmp(info.driver, "veth") && !leads_out();
}

static uint32_t sum16(const unsigned short *words, size_t n)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += words[i];
	return sum;
}

static unsigned short fold(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (unsigned short)~((sum & 0xffff) + (sum >> 16));
}

static int build(struct syn_flood_frame *f, const char *mac, const char *address, unsigned port)
{
	unsigned char *b = (unsigned char *)f;
	uint32_t pseudo;

	memset(f, 0, sizeof(*f));
	if (sscanf(mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", b, b + 1, b + 2, b + 3, b + 4, b + 5) != 6)
		return -EINVAL;
	b[6] = 2; /* a local address */
	f->eth[6] = htons(0x0800);
	f->ip[0] = htons(0x4500);
	f->ip[1] = htons(40);
	f->ip[3] = htons(0x4000); /* do not fragment */
	f->ip[4] = htons(64 << 8 | IPPROTO_TCP);
	if (inet_pton(AF_INET, address, f->destination) != 1)
		return -EINVAL;
	f->port = htons((uint16_t)port);
	f->flags = htons(5 << 12 | 0x02);
	f->window = htons(65535);
	pseudo = htons(IPPROTO_TCP) + htons(20) + sum16(f->destination, 2);
	f->ip_check = fold(sum16(f->ip, 5) + sum16(f->destination, 2));
	f->check = fold(pseudo + sum16(&f->source_port, 10));
	return 0;
}

static int flood(struct syn_flood_bpf *s, double seconds, uint64_t frames)
{
	const struct syn_flood_frame frame = s->bss->frame;
	struct xdp_md ctx = {.data_end = sizeof(frame), .ingress_ifindex = s->rodata->ifindex};
	double begin = seconds_now(), spent = 0;

	while (spent < seconds && (!frames || s->bss->sent < frames)) {
		LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = &frame,
			.data_size_in = sizeof(frame), .ctx_in = &ctx, .ctx_size_in = sizeof(ctx),
			.repeat = FRAMES_A_CALL, .flags = BPF_F_TEST_XDP_LIVE_FRAMES,
			.batch_size = BATCH);
		int rc = bpf_prog_test_run_opts(bpf_program__fd(s->progs.syn_flood), &opts);

		if (rc && rc != -EINTR)
			return fail("BPF_PROG_RUN", -rc);
		spent = seconds_now() - begin;
	}
	uint64_t sources = (uint64_t)s->rodata->source_mask + 1;
	printf("{\"sent\": %llu, \"sources\": %llu, \"seconds\": %.3f}\n",
		(unsigned long long)s->bss->sent,
		(unsigned long long)(s->bss->sent < sources ? s->bss->sent : sources), spent);
	return 0;
}

int main(int argc, char **argv)
{
	unsigned ifindex = argc > 1 ? if_nametoindex(argv[1]) : 0;
	unsigned port = argc > 4 ? (unsigned)atoi(argv[4]) : 0;
	double seconds = argc > 5 ? atof(argv[5]) : 0;
	unsigned sources = argc > 6 ? (unsigned)atoi(argv[6]) : SOURCES;
	uint64_t frames = argc > 7 ? strtoull(argv[7], NULL, 10) : 0;
	struct syn_flood_frame frame;
	struct syn_flood_bpf *s;
	int rc;

	if (argc < 6 || argc > 8 || !port || port > 65535 || !(seconds > 0) ||
		seconds > SECONDS_MAX || !sources || sources > SOURCES_MAX ||
		sources & (sources - 1) || build(&frame, argv[2], argv[3], port)) {
		fprintf(stderr,
			"usage: syn_flood DEVICE MAC ADDRESS PORT SECONDS [SOURCES [FRAMES]]\n");
		return 2;
	}
	if (!ifindex || !may_flood(argv[1])) {
		fprintf(stderr, "syn_flood: only from a veth, where no default route is\n");
		return 2;
	}
	s = syn_flood_bpf__open();
	if (!s)
		return fail("opening the program", errno);
	s->bss->frame = frame;
	s->rodata->ifindex = ifindex;
	s->rodata->source_base = SOURCE_BASE;
	s->rodata->source_mask = sources - 1;
	rc = syn_flood_bpf__load(s);
	rc = rc ? fail("loading the program", -rc) : flood(s, seconds, frames);
	syn_flood_bpf__destroy(s);
	return rc;
}
