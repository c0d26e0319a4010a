#include "doctor.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GROUP "network"
#define NET   "/sys/class/net/"
#define PINS  "/sys/fs/bpf/tidegate/"

enum {
	MASK_BITS = 32, /* of a CPU mask's words, which commas separate */
	NAME_BYTES = 64,
	LOOPBACK = 1, /* its index in every namespace */
};

struct interface {
	char name[NAME_BYTES];
	unsigned ifindex, rx_queues;
	bool device; /* behind it, so that it is not virtual */
	bool up;
};

/* Calls fn for each entry of root + path, in no order. 0 or -errno. */
static int each_entry(const struct doctor *d, const char *path,
	void (*fn)(const char *name, void *ctx), void *ctx)
{
	char full[PATH_MAX];
	struct dirent *e;

	if (snprintf(full, sizeof(full), "%s%s", d->root, path) >= (int)sizeof(full))
		return -ENAMETOOLONG;
	DIR *dir = opendir(full);
	if (!dir)
		return -errno;
	while ((e = readdir(dir)))
		if (e->d_name[0] != '.')
			fn(e->d_name, ctx);
	closedir(dir);
	return 0;
}

static bool exists(const struct doctor *d, const char *path)
{
	char full[PATH_MAX];

	return snprintf(full, sizeof(full), "%s%s", d->root, path) < (int)sizeof(full) &&
	       access(full, F_OK) == 0;
}

static void count_rx(const char *name, void *ctx)
{
	if (!strncmp(name, "rx-", 3))
		++*(unsigned *)ctx;
}

/* What sysfs says of it. That may be another network namespace's: entering one mounts none. False
 * when it has no such interface. */
static bool look_at(const struct doctor *d, const char *name, struct interface *ret)
{
	char path[160], text[DOCTOR_TEXT_MAX];
	struct interface i = {0};
	int64_t v;

	if (strlen(name) >= sizeof(i.name))
		return false;
	strcpy(i.name, name);
	snprintf(path, sizeof(path), NET "%s/ifindex", name);
	if (doctor_read_numbers(d, path, &v, 1) || v <= 0)
		return false;
	i.ifindex = (unsigned)v;
	snprintf(path, sizeof(path), NET "%s/device", name);
	i.device = exists(d, path);
	snprintf(path, sizeof(path), NET "%s/operstate", name);
	i.up = !doctor_read(d, path, text) && strcmp(text, "down");
	snprintf(path, sizeof(path), NET "%s/queues", name);
	each_entry(d, path, count_rx, &i.rx_queues);
	*ret = i;
	return true;
}

/* ---- the gate's programs ---- */

static const char *const mode_names[] = {
	[DOCTOR_XDP_NONE] = "none",
	[DOCTOR_XDP_NATIVE] = "native",
	[DOCTOR_XDP_GENERIC] = "generic",
	[DOCTOR_XDP_OFFLOAD] = "offloaded",
	[DOCTOR_XDP_SEVERAL] = "several",
};

static enum doctor_severity judge_mode(const struct interface *i, enum doctor_xdp_mode mode)
{
	if (mode == DOCTOR_XDP_NONE)
		return DOCTOR_PROBLEM;
	if (mode != DOCTOR_XDP_GENERIC || i->ifindex == LOOPBACK)
		return DOCTOR_OK;
	return i->device ? DOCTOR_WARNING : DOCTOR_ADVICE;
}

static void check_xdp(struct doctor *d, const struct interface *i, bool dispatched)
{
	enum doctor_xdp_mode mode;
	char name[NAME_BYTES + 16];
	int r = d->xdp_mode(i->ifindex, &mode);

	snprintf(name, sizeof(name), "XDP on %s", i->name);
	struct doctor_finding *f =
		doctor_add(&d->report, r ? DOCTOR_ADVICE : judge_mode(i, mode), GROUP, name);
	if (r) {
		doctor_set(&f->has, "not known: %s", strerror(-r));
		return;
	}
	doctor_set(&f->has, "%s, %s", mode_names[mode],
		dispatched ? "in libxdp's dispatcher" : "by a plain link");
	doctor_set(&f->should, "%s", i->ifindex == LOOPBACK ? "generic" : "native");
	if (f->severity == DOCTOR_PROBLEM) {
		doctor_set(&f->why, "the gate is pinned for it, but nothing is attached: SYNs pass "
				    "unseen");
		doctor_set(&f->command, "restart tidegate");
	} else if (f->severity) {
		doctor_set(&f->why, "generic mode copies each packet first; the driver cannot do "
				    "better, or not with this MTU or number of queues");
		if (i->device)
			doctor_set(&f->command,
				"ip link set dev %s mtu 1500; ethtool -L %s combined %u; then "
				"restart tidegate",
				i->name, i->name, doctor_workers(d));
	} else {
		doctor_set(&f->why, "the gate decides there");
	}
}

/* ---- queues ---- */

static void mask_of(unsigned cpus, char ret[128])
{
	unsigned words = (cpus + MASK_BITS - 1) / MASK_BITS, first = cpus % MASK_BITS;
	int at = snprintf(ret, 128, "%x", first ? (1u << first) - 1 : UINT32_MAX);

	for (unsigned w = 1; w < words && at < 100; w++)
		at += snprintf(ret + at, 128 - (size_t)at, ",ffffffff");
}

static bool has_rps(const struct doctor *d, const struct interface *i)
{
	char path[160], text[DOCTOR_TEXT_MAX];

	for (unsigned q = 0; q < i->rx_queues; q++) {
		snprintf(path, sizeof(path), NET "%s/queues/rx-%u/rps_cpus", i->name, q);
		if (!doctor_read(d, path, text) && strpbrk(text, "123456789abcdefABCDEF"))
			return true;
	}
	return false;
}

static void check_queues(struct doctor *d, const struct interface *i)
{
	unsigned want = doctor_workers(d) < d->cpus ? doctor_workers(d) : d->cpus;
	char name[NAME_BYTES + 16], mask[128];
	bool rps = has_rps(d, i);

	snprintf(name, sizeof(name), "queues of %s", i->name);
	struct doctor_finding *f = doctor_add(
		&d->report, i->rx_queues >= want || rps ? DOCTOR_OK : DOCTOR_ADVICE, GROUP, name);
	doctor_set(&f->has, "%u for receiving%s", i->rx_queues, rps ? ", spread by RPS" : "");
	doctor_set(&f->should, "at least %u, or RPS", want);
	doctor_set(&f->why,
		"as many CPUs take packets in as there are queues; %u worker%s would "
		"wait for them",
		doctor_workers(d), doctor_workers(d) == 1 ? "" : "s");
	mask_of(d->cpus, mask);
	if (f->severity)
		doctor_set(&f->command,
			"ethtool -L %s combined %u, or echo %s > " NET "%s/queues/rx-0/rps_cpus",
			i->name, want, mask, i->name);
}

/* ---- what was lost ---- */

/* The second number of each line, in hex: packets a CPU had no room for. */
static void check_softnet(struct doctor *d)
{
	char text[DOCTOR_TEXT_MAX], *next = text, *line;
	uint64_t dropped = 0;
	unsigned seen, lost;
	int64_t room = 0;

	if (doctor_read(d, "/proc/net/softnet_stat", text))
		return;
	while ((line = strsep(&next, "\n")))
		if (sscanf(line, "%x %x", &seen, &lost) == 2)
			dropped += lost;
	struct doctor_finding *f = doctor_add(&d->report, dropped ? DOCTOR_ADVICE : DOCTOR_OK,
		GROUP, "packets dropped before XDP or TCP");
	doctor_set(&f->has, "%" PRIu64 " since the boot", dropped);
	doctor_set(&f->should, "0");
	doctor_set(&f->why, "a CPU's queue of incoming packets overflowed");
	if (dropped && !doctor_read_numbers(d, "/proc/sys/net/core/netdev_max_backlog", &room, 1))
		doctor_set(&f->command, "sysctl -w net.core.netdev_max_backlog=%" PRId64,
			doctor_double(room));
}

/* A counter of /proc/net/netstat: a line of names, a line of numbers. */
static bool netstat(char *text, const char *name, uint64_t *ret)
{
	char *names = strstr(text, "TcpExt:");
	char *values = names ? strstr(names + 1, "TcpExt:") : NULL, *n, *v, *end;

	if (!values)
		return false;
	values[-1] = '\0';
	values[strcspn(values, "\n")] = '\0';
	while ((n = strsep(&names, " ")) && (v = strsep(&values, " "))) {
		if (strcmp(n, name))
			continue;
		*ret = strtoull(v, &end, 10);
		return end != v && !*end;
	}
	return false;
}

static void check_overflows(struct doctor *d)
{
	char text[DOCTOR_TEXT_MAX];
	uint64_t n;

	if (doctor_read(d, "/proc/net/netstat", text) || !netstat(text, "ListenOverflows", &n))
		return;
	struct doctor_finding *f = doctor_add(
		&d->report, n ? DOCTOR_ADVICE : DOCTOR_OK, GROUP, "accept queues that overflowed");
	doctor_set(
		&f->has, "%" PRIu64 " time%s since the boot, of any program", n, n == 1 ? "" : "s");
	doctor_set(&f->should, "0");
	doctor_set(&f->why,
		"more clients came than were accepted: somaxconn or listeners[].backlog "
		"is too small, or the gate too generous");
}

/* ---- all of them ---- */

struct each {
	struct doctor *d;
	unsigned gates;
};

static void check_pin(const char *pin, void *ctx)
{
	static const char link[] = "admit_link_", prog[] = "admit_prog_";
	struct each *e = ctx;
	char name[NAME_BYTES];
	struct interface i;
	int64_t ifindex;
	bool dispatched = !strncmp(pin, prog, sizeof(prog) - 1);

	if ((!dispatched && strncmp(pin, link, sizeof(link) - 1)) ||
		doctor_numbers(pin + sizeof(link) - 1, &ifindex, 1) || ifindex <= 0)
		return;
	e->gates++;
	if (e->d->interface_name((unsigned)ifindex, name))
		snprintf(name, sizeof(name), "interface %u", (unsigned)ifindex);
	if (!look_at(e->d, name, &i) || i.ifindex != (unsigned)ifindex) {
		i = (struct interface){.ifindex = (unsigned)ifindex};
		strcpy(i.name, name);
	}
	check_xdp(e->d, &i, dispatched);
}

static void check_device(const char *name, void *ctx)
{
	struct each *e = ctx;
	struct interface i;

	if (look_at(e->d, name, &i) && i.device && i.up && i.rx_queues)
		check_queues(e->d, &i);
}

/* What the pins say as a whole. */
static void check_gate(struct doctor *d, const char *path, unsigned gates)
{
	if (gates && !d->gateway.running) {
		struct doctor_finding *f =
			doctor_add(&d->report, DOCTOR_WARNING, GROUP, "gate without a gateway");
		doctor_set(&f->has, "attached to %u interface%s", gates, gates == 1 ? "" : "s");
		doctor_set(&f->should, "none, or a gateway that runs");
		doctor_set(&f->why, "what a crash left behind stays in force until the next start");
		doctor_set(&f->command, "tidegatectl --instance %s detach", d->instance);
	} else if (!gates && d->gateway.running && d->gateway.in_kernel) {
		struct doctor_finding *f =
			doctor_add(&d->report, DOCTOR_ADVICE, GROUP, "XDP of the gateway");
		doctor_set(&f->has, "not known: nothing of it can be seen under %s", path);
		doctor_set(&f->should, "visible");
		doctor_set(&f->why, "that takes root, and the BPF file system of the gateway");
	}
}

void doctor_interfaces(struct doctor *d)
{
	struct each e = {.d = d};
	char path[sizeof(PINS) + NAME_BYTES];

	snprintf(path, sizeof(path), PINS "%s", d->instance);
	each_entry(d, path, check_pin, &e);
	each_entry(d, NET, check_device, &e);
	check_gate(d, path, e.gates);
	check_softnet(d);
	check_overflows(d);
}
