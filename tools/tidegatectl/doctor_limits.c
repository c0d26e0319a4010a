#include "doctor.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/worker.h"

#define GROUP "limits"

enum {
	DESCRIPTORS_KEPT = 64,   /* of RLIMIT_NOFILE; the rest bounds a ring's table */
	RINGS_PLENTY = 16,       /* of a worker: more cost more per heartbeat */
	RING_BYTES = 110 << 10,  /* of locked memory, with the default buffers */
	CONNECTION_BYTES = 4608, /* 4.3 KiB of the kernel for an idle socket, 0.2 of the gateway */
	FILES_ELSEWHERE = 10000, /* open files of the rest of the machine */
	NOFILE_MOST = 1 << 20,   /* a ring's table does not get larger */
};

/* A limit of the gateway process, or of this one's heirs: the keeper raises the soft limit. */
static bool limit(const struct doctor *d, const char *name, uint64_t otherwise, uint64_t *ret)
{
	char path[64], text[DOCTOR_TEXT_MAX], line[128], *end;

	if (!d->gateway.running) {
		*ret = otherwise;
		return true;
	}
	snprintf(path, sizeof(path), "/proc/%ld/limits", (long)d->gateway.pid);
	if (doctor_read(d, path, text) || !doctor_line(text, name, line, sizeof(line)))
		return false;
	if (!strncmp(line, "unlimited", 9)) {
		*ret = UINT64_MAX;
		return true;
	}
	errno = 0;
	unsigned long long v = strtoull(line, &end, 10);
	if (errno || end == line || (*end && *end != ' '))
		return false;
	*ret = v;
	return true;
}

static struct doctor_finding *unknown(struct doctor *d, const char *name)
{
	struct doctor_finding *f = doctor_add(&d->report, DOCTOR_ADVICE, GROUP, name);

	doctor_set(&f->has, "not known: /proc/%ld/limits cannot be read or understood",
		(long)d->gateway.pid);
	return f;
}

static uint64_t round_up(uint64_t n, uint64_t by)
{
	return (n + by - 1) / by;
}

/* What a ring's table holds. */
static uint64_t ring_connections(uint64_t nofile)
{
	uint64_t most =
		nofile > 2 * DESCRIPTORS_KEPT ? nofile - DESCRIPTORS_KEPT : DESCRIPTORS_KEPT;

	return most < NOFILE_MOST ? most : NOFILE_MOST;
}

static void check_nofile(struct doctor *d)
{
	static const char name[] = "RLIMIT_NOFILE";
	uint64_t has, share = round_up(d->connections, doctor_workers(d));

	if (!limit(d, "Max open files", d->probe.nofile_hard, &has)) {
		unknown(d, name);
		return;
	}
	uint64_t rings = round_up(share, ring_connections(has));
	uint64_t should =
		share + DESCRIPTORS_KEPT < NOFILE_MOST ? share + DESCRIPTORS_KEPT : NOFILE_MOST;
	struct doctor_finding *f = doctor_add(&d->report,
		rings <= RINGS_PLENTY       ? DOCTOR_OK
		: rings <= WORKER_RINGS_MAX ? DOCTOR_ADVICE
					    : DOCTOR_PROBLEM,
		GROUP, name);
	if (has == UINT64_MAX)
		doctor_set(&f->has, "unlimited");
	else
		doctor_set(&f->has, "%" PRIu64 ": a ring holds %" PRIu64 " connections", has,
			ring_connections(has));
	doctor_set(&f->should, "at least %" PRIu64, should);
	doctor_set(&f->why,
		"it bounds a ring's table: %" PRIu64 " connections on %u worker%s need %" PRIu64
		" ring%s each, of %d at most; fewer, larger rings cost less",
		d->connections, doctor_workers(d), doctor_workers(d) == 1 ? "" : "s", rings,
		rings == 1 ? "" : "s", WORKER_RINGS_MAX);
	if (f->severity)
		doctor_set(&f->command,
			"ulimit -n %" PRIu64
			" (or LimitNOFILE= of the unit) before tidegate starts",
			should);
}

/* Descriptors that a process may be given at all. */
static void check_nr_open(struct doctor *d)
{
	static const char name[] = "fs.nr_open";
	uint64_t share = round_up(d->connections, doctor_workers(d)) + DESCRIPTORS_KEPT;
	int64_t v, should = (int64_t)(share < NOFILE_MOST ? share : NOFILE_MOST);

	if (doctor_read_numbers(d, "/proc/sys/fs/nr_open", &v, 1))
		return;
	struct doctor_finding *f =
		doctor_add(&d->report, v >= should ? DOCTOR_OK : DOCTOR_ADVICE, GROUP, name);
	doctor_set(&f->has, "%" PRId64, v);
	doctor_set(&f->should, "at least %" PRId64, should);
	doctor_set(&f->why, "RLIMIT_NOFILE cannot be raised above it");
	if (f->severity)
		doctor_set(&f->command, "sysctl -w %s=%d", name, NOFILE_MOST);
}

/* A connection takes no descriptor, but a file all the same. */
static void check_file_max(struct doctor *d)
{
	static const char name[] = "fs.file-max";
	int64_t max, nr[3] = {0}, need = (int64_t)d->connections + FILES_ELSEWHERE;

	if (doctor_read_numbers(d, "/proc/sys/fs/file-max", &max, 1)) {
		struct doctor_finding *f = doctor_add(&d->report, DOCTOR_ADVICE, GROUP, name);
		doctor_set(&f->has, "not known: it cannot be read or understood");
		return;
	}
	doctor_read_numbers(d, "/proc/sys/fs/file-nr", nr, 3);
	struct doctor_finding *f = doctor_add(&d->report,
		max >= need                      ? DOCTOR_OK
		: max >= (int64_t)d->connections ? DOCTOR_WARNING
						 : DOCTOR_PROBLEM,
		GROUP, name);
	doctor_set(&f->has, "%" PRId64 ", %" PRId64 " in use", max, nr[0]);
	doctor_set(&f->should, "at least %" PRId64, need);
	doctor_set(&f->why, "every connection takes an open file of the machine, though no "
			    "descriptor; without privilege nothing opens above it");
	if (f->severity)
		doctor_set(&f->command, "sysctl -w %s=%" PRId64, name, need);
}

static bool privileged_memory(const struct doctor *d)
{
	enum {
		IPC_LOCK = 14, /* CAP_IPC_LOCK */
	};
	return !d->gateway.running && (d->capabilities >> IPC_LOCK & 1);
}

/* Rings are charged to an unprivileged user, which the gateway always is; a keeper with
 * CAP_SYS_RESOURCE takes the limit away. */
static void check_memlock(struct doctor *d)
{
	static const char name[] = "RLIMIT_MEMLOCK";
	uint64_t has, nofile, share = round_up(d->connections, doctor_workers(d));

	if (!limit(d, "Max locked memory", d->probe.memlock_hard, &has) ||
		!limit(d, "Max open files", d->probe.nofile_hard, &nofile)) {
		unknown(d, name);
		return;
	}
	uint64_t rings = round_up(share, ring_connections(nofile)) * doctor_workers(d);
	uint64_t should = rings * RING_BYTES;
	struct doctor_finding *f = doctor_add(&d->report,
		has >= should          ? DOCTOR_OK
		: privileged_memory(d) ? DOCTOR_ADVICE
				       : DOCTOR_WARNING,
		GROUP, name);
	if (has == UINT64_MAX)
		doctor_set(&f->has, "unlimited");
	else
		doctor_set(&f->has, "%" PRIu64 " KiB", has >> 10);
	doctor_set(&f->should, "unlimited, at least %" PRIu64 " KiB", should >> 10);
	doctor_set(&f->why, "%" PRIu64 " rings for %" PRIu64 " connections lock some %d KiB each",
		rings, d->connections, RING_BYTES >> 10);
	if (f->severity)
		doctor_set(&f->command,
			"ulimit -l unlimited (or LimitMEMLOCK=infinity of the unit) "
			"before tidegate starts");
}

static void check_memory(struct doctor *d)
{
	char text[DOCTOR_TEXT_MAX], line[64];
	uint64_t need_mib = d->connections * CONNECTION_BYTES >> 20;
	int64_t kib;

	if (doctor_read(d, "/proc/meminfo", text) ||
		!doctor_line(text, "MemAvailable:", line, sizeof(line)))
		return;
	line[strcspn(line, " ")] = '\0';
	if (doctor_numbers(line, &kib, 1))
		return;
	struct doctor_finding *f = doctor_add(&d->report,
		d->gateway.running || (uint64_t)kib >> 10 >= need_mib ? DOCTOR_OK : DOCTOR_WARNING,
		GROUP, "memory");
	doctor_set(&f->has, "%" PRId64 " MiB available", kib >> 10);
	doctor_set(&f->should, "at least %" PRIu64 " MiB before a start", need_mib);
	doctor_set(&f->why, "%" PRIu64 " idle connections take some %.1f KiB each, buffers apart",
		d->connections, CONNECTION_BYTES / 1024.0);
}

void doctor_limits(struct doctor *d)
{
	check_nofile(d);
	check_nr_open(d);
	check_file_max(d);
	check_memlock(d);
	check_memory(d);
}
