#include "doctor.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#define GROUP "sysctls"

enum {
	BACKLOG = 4096,             /* default of listeners[].backlog */
	SEND_BUFFER = 64 << 10,     /* default of sockets.send_buffer */
	BUFFER_MIN_BUSY = 16 << 10, /* tcp_rmem's and tcp_wmem's first number; 4096 by default */
	BUFFER_MIN = 4096,
	LOCAL_PORTS = 10000, /* plenty for links, which a gateway has dozens of */
	CONNTRACK_FULL_PERCENT = 90,
};

/* Reads n numbers of a sysctl. False when it is not there, which older and newer kernels may do;
 * what cannot be read or understood is a finding. */
static bool read_sysctl(struct doctor *d, const char *name, int64_t *ret, unsigned n)
{
	char path[128], text[DOCTOR_TEXT_MAX];

	doctor_sysctl_path(name, path);
	int r = doctor_read(d, path, text);
	if (!r && !doctor_numbers(text, ret, n))
		return true;
	if (r == -ENOENT)
		return false;
	struct doctor_finding *f = doctor_add(&d->report, DOCTOR_ADVICE, GROUP, name);
	if (r)
		doctor_set(&f->has, "not known: %s", strerror(-r));
	else
		doctor_set(&f->has, "not understood: \"%.60s\"", text);
	return false;
}

static struct doctor_finding *found(
	struct doctor *d, const char *name, enum doctor_severity s, int64_t has)
{
	struct doctor_finding *f = doctor_add(&d->report, s, GROUP, name);

	doctor_set(&f->has, "%" PRId64, has);
	return f;
}

/* ---- one number, from some value on ---- */

static int64_t backlog(const struct doctor *d)
{
	(void)d;
	return BACKLOG;
}

static int64_t send_buffer(const struct doctor *d)
{
	(void)d;
	return SEND_BUFFER;
}

/* Connections stay in the table for minutes after their end, too. */
static int64_t conntrack(const struct doctor *d)
{
	return (int64_t)d->connections * 2;
}

static const struct {
	const char *name;
	int64_t (*least)(const struct doctor *d);
	enum doctor_severity severity;
	const char *why;
} leasts[] = {
	{"net.core.somaxconn", backlog, DOCTOR_WARNING,
		"it caps listeners[].backlog (4096 by default), where clients of a storm wait for "
		"accept"},
	{"net.core.wmem_max", send_buffer, DOCTOR_WARNING,
		"sockets.send_buffer (64KiB by default) is silently cut to it"},
	{"net.netfilter.nf_conntrack_max", conntrack, DOCTOR_WARNING,
		"every connection takes an entry, also for minutes after its end; with a full "
		"table "
		"packets are dropped. Or exempt the gateway's ports (notrack)"},
};

/* ---- one number out of a few ---- */

static const struct {
	const char *name;
	unsigned good; /* bits: 1 << value */
	int64_t set;   /* the one to set */
	enum doctor_severity severity;
	const char *why;
} choices[] = {
	{"kernel.unprivileged_bpf_disabled", 1 << 1 | 1 << 2, 2, DOCTOR_ADVICE,
		"any user may load BPF programs; the gate in the kernel needs no such permission"},
	{"net.core.bpf_jit_enable", 1 << 1 | 1 << 2, 1, DOCTOR_WARNING,
		"every SYN runs through an interpreter, which takes several times as long"},
	{"net.ipv4.tcp_syncookies", 1 << 1 | 1 << 2, 1, DOCTOR_WARNING,
		"a flood of SYNs that the gate does not see fills the queue, and nobody gets in"},
	{"net.ipv4.tcp_timestamps", 1 << 1 | 1 << 2, 1, DOCTOR_ADVICE,
		"connections made by SYN cookies then lose window scaling and SACK"},
	{"net.ipv4.tcp_abort_on_overflow", 1 << 0, 0, DOCTOR_WARNING,
		"a full accept queue resets clients instead of letting them try again"},
};

static void check_least(struct doctor *d, unsigned i)
{
	int64_t v, least = leasts[i].least(d);

	if (!read_sysctl(d, leasts[i].name, &v, 1))
		return;
	struct doctor_finding *f =
		found(d, leasts[i].name, v >= least ? DOCTOR_OK : leasts[i].severity, v);
	doctor_set(&f->should, "at least %" PRId64, least);
	doctor_set(&f->why, "%s", leasts[i].why);
	if (f->severity)
		doctor_set(&f->command, "sysctl -w %s=%" PRId64, leasts[i].name, least);
}

static void check_choice(struct doctor *d, unsigned i)
{
	int64_t v;

	if (!read_sysctl(d, choices[i].name, &v, 1))
		return;
	bool good = v >= 0 && v < 32 && (choices[i].good >> v & 1);
	struct doctor_finding *f =
		found(d, choices[i].name, good ? DOCTOR_OK : choices[i].severity, v);
	doctor_set(&f->should, "%" PRId64, good ? v : choices[i].set);
	doctor_set(&f->why, "%s", choices[i].why);
	if (!good)
		doctor_set(&f->command, "sysctl -w %s=%" PRId64, choices[i].name, choices[i].set);
}

/* ---- the others ---- */

/* Workers make their rings without any privilege; a group may be let off 1. */
static void check_uring(struct doctor *d)
{
	static const char name[] = "kernel.io_uring_disabled";
	int64_t v, group = -1;

	if (!read_sysctl(d, name, &v, 1))
		return;
	if (v == 1)
		doctor_read_numbers(d, "/proc/sys/kernel/io_uring_group", &group, 1);
	enum doctor_severity s = v == 0                 ? DOCTOR_OK
				 : v == 1 && group >= 0 ? DOCTOR_WARNING
							: DOCTOR_PROBLEM;
	struct doctor_finding *f = found(d, name, s, v);
	doctor_set(&f->should, "0");
	if (s == DOCTOR_WARNING)
		doctor_set(&f->why,
			"the gateway's user can have rings only as a member of group %" PRId64,
			group);
	else
		doctor_set(&f->why, "the gateway is unprivileged and all it does is io_uring");
	if (s)
		doctor_set(&f->command, "sysctl -w %s=0", name);
}

/* Without cookies the kernel keeps a quarter of it for sources it knows; with them it never looks
 * at it, and the queue is as long as the backlog. */
static void check_syn_backlog(struct doctor *d)
{
	static const char name[] = "net.ipv4.tcp_max_syn_backlog";
	int64_t v, cookies = 1;

	if (!read_sysctl(d, name, &v, 1))
		return;
	doctor_read_numbers(d, "/proc/sys/net/ipv4/tcp_syncookies", &cookies, 1);
	struct doctor_finding *f =
		found(d, name, v >= BACKLOG || cookies ? DOCTOR_OK : DOCTOR_WARNING, v);
	doctor_set(&f->should, "at least %d", BACKLOG);
	doctor_set(&f->why, "clients whose handshake is under way, as long as tcp_syncookies is 0");
	if (f->severity)
		doctor_set(&f->command, "sysctl -w %s=%d", name, BACKLOG);
}

/* Pages that all sockets may hold; one with anything queued is charged about one. */
static void check_tcp_mem(struct doctor *d)
{
	static const char name[] = "net.ipv4.tcp_mem";
	int64_t v[3], n = (int64_t)d->connections;

	if (!read_sysctl(d, name, v, 3))
		return;
	struct doctor_finding *f = doctor_add(&d->report,
		v[1] >= n   ? DOCTOR_OK
		: v[2] >= n ? DOCTOR_ADVICE
			    : DOCTOR_WARNING,
		GROUP, name);
	doctor_set(&f->has, "%" PRId64 " %" PRId64 " %" PRId64, v[0], v[1], v[2]);
	doctor_set(&f->should, "at least %" PRId64 " in the middle", n);
	doctor_set(&f->why,
		"pages of all sockets; one with anything queued holds about a page, and a "
		"broadcast "
		"queues on all of them at once. Above the middle the kernel shrinks windows, above "
		"the last it drops, and the gate shuts before");
	if (f->severity)
		doctor_set(&f->command, "sysctl -w %s=\"%" PRId64 " %" PRId64 " %" PRId64 "\"",
			name, n * 3 / 4, n, n * 3 / 2);
}

/* Least, default and greatest size of a socket's buffer. */
static void check_buffers(struct doctor *d, const char *name)
{
	int64_t v[3];

	if (!read_sysctl(d, name, v, 3))
		return;
	struct doctor_finding *f = doctor_add(
		&d->report, v[0] <= BUFFER_MIN_BUSY ? DOCTOR_OK : DOCTOR_ADVICE, GROUP, name);
	doctor_set(&f->has, "%" PRId64 " %" PRId64 " %" PRId64, v[0], v[1], v[2]);
	doctor_set(&f->should, "at most %d as the first", BUFFER_MIN_BUSY);
	doctor_set(&f->why,
		"a socket may fill the first number however short memory is: %" PRIu64
		" MiB for %" PRIu64 " connections",
		v[0] > 0 ? (uint64_t)v[0] / 1024 * d->connections / 1024 : 0, d->connections);
	if (f->severity)
		doctor_set(&f->command, "sysctl -w %s=\"%d %" PRId64 " %" PRId64 "\"", name,
			BUFFER_MIN, v[1], v[2]);
}

static void check_local_ports(struct doctor *d)
{
	static const char name[] = "net.ipv4.ip_local_port_range";
	int64_t v[2];

	if (!read_sysctl(d, name, v, 2))
		return;
	bool plenty = v[0] > 0 && v[1] <= UINT16_MAX && v[1] >= v[0] + LOCAL_PORTS - 1;
	struct doctor_finding *f =
		doctor_add(&d->report, plenty ? DOCTOR_OK : DOCTOR_ADVICE, GROUP, name);
	doctor_set(&f->has, "%" PRId64 " %" PRId64, v[0], v[1]);
	doctor_set(&f->should, "at least %d ports", LOCAL_PORTS);
	doctor_set(&f->why, "every link, and every client on this machine, takes one");
	if (f->severity)
		doctor_set(&f->command, "sysctl -w %s=\"32768 60999\"", name);
}

static void check_conntrack(struct doctor *d)
{
	static const char name[] = "net.netfilter.nf_conntrack_count";
	int64_t count, max;

	if (doctor_read_numbers(d, "/proc/sys/net/netfilter/nf_conntrack_max", &max, 1)) {
		struct doctor_finding *f =
			doctor_add(&d->report, DOCTOR_OK, GROUP, "net.netfilter.nf_conntrack_max");
		doctor_set(&f->has, "nf_conntrack is not loaded");
		return;
	}
	if (!read_sysctl(d, name, &count, 1))
		return;
	bool full = max > 0 && count >= max / 100 * CONNTRACK_FULL_PERCENT;
	struct doctor_finding *f = found(d, name, full ? DOCTOR_PROBLEM : DOCTOR_OK, count);
	doctor_set(&f->should, "below %d %% of nf_conntrack_max, %" PRId64, CONNTRACK_FULL_PERCENT,
		max);
	doctor_set(&f->why, "packets of new connections are dropped when it is full");
	if (full)
		doctor_set(&f->command, "sysctl -w net.netfilter.nf_conntrack_max=%" PRId64,
			max > conntrack(d) / 2 ? doctor_double(max) : conntrack(d));
}

void doctor_sysctls(struct doctor *d)
{
	check_uring(d);
	for (unsigned i = 0; i < sizeof(choices) / sizeof(choices[0]); i++)
		check_choice(d, i);
	for (unsigned i = 0; i < sizeof(leasts) / sizeof(leasts[0]); i++)
		check_least(d, i);
	check_conntrack(d);
	check_syn_backlog(d);
	check_tcp_mem(d);
	check_buffers(d, "net.ipv4.tcp_rmem");
	check_buffers(d, "net.ipv4.tcp_wmem");
	check_local_ports(d);
}
