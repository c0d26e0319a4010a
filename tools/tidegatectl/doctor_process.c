#include "doctor.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GROUP "gateway"

struct capability {
	unsigned bit, instead; /* CAP_SYS_ADMIN also holds for BPF's */
	const char *name, *why;
};

static const struct capability wanted[] = {
	{CAP_BPF, CAP_SYS_ADMIN, "CAP_BPF", "the gate in the kernel is BPF programs and maps"},
	{CAP_NET_ADMIN, CAP_NET_ADMIN, "CAP_NET_ADMIN", "the gate is attached to interfaces"},
	{CAP_PERFMON, CAP_SYS_ADMIN, "CAP_PERFMON", "the gate counts by tracepoints"},
	{CAP_SYS_RESOURCE, CAP_SYS_RESOURCE, "CAP_SYS_RESOURCE",
		"the keeper raises RLIMIT_NOFILE and RLIMIT_MEMLOCK itself"},
	{CAP_NET_BIND_SERVICE, CAP_NET_BIND_SERVICE, "CAP_NET_BIND_SERVICE",
		"listeners on ports below 1024"},
	{CAP_SETUID, CAP_SETUID, "CAP_SETUID", "the gateway becomes a user of its own"},
};

/* "name:" of /proc/<pid>/status. */
static bool status_line(const struct doctor *d, long pid, const char *name, char *ret, size_t len)
{
	char path[64], text[DOCTOR_TEXT_MAX];

	snprintf(path, sizeof(path), "/proc/%ld/status", pid);
	return !doctor_read(d, path, text) && doctor_line(text, name, ret, len);
}

static bool capabilities_of(const struct doctor *d, long pid, uint64_t *ret)
{
	char line[64], *end;

	if (!status_line(d, pid, "CapEff:", line, sizeof(line)))
		return false;
	unsigned long long v = strtoull(line, &end, 16);
	if (end == line || *end)
		return false;
	*ret = v;
	return true;
}

/* Of who starts a gateway: the keeper, or whoever runs this. */
static void check_privileges(struct doctor *d, const char *who, uint64_t has)
{
	char missing[256] = "", why[512] = "";
	size_t at = 0, why_at = 0;

	for (unsigned i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		if (has >> wanted[i].bit & 1 || has >> wanted[i].instead & 1)
			continue;
		at += (size_t)snprintf(
			missing + at, sizeof(missing) - at, "%s%s", at ? ", " : "", wanted[i].name);
		why_at += (size_t)snprintf(why + why_at, sizeof(why) - why_at, "%s%s",
			why_at ? "; " : "", wanted[i].why);
	}
	struct doctor_finding *f =
		doctor_add(&d->report, at ? DOCTOR_ADVICE : DOCTOR_OK, GROUP, "privileges");
	doctor_set(&f->has, "%s%s%s", who, at ? " lacks " : " has all it can use", missing);
	doctor_set(&f->should, "all it can use");
	doctor_set(&f->why, "%s", at ? why : "the keeper alone is privileged");
	if (at)
		doctor_set(&f->command,
			"start tidegate as root, where a unit or container leaves it %s; the "
			"gateway gives all of it up",
			missing);
}

static void check_unprivileged(struct doctor *d, uint64_t has)
{
	struct doctor_finding *f = doctor_add(
		&d->report, has ? DOCTOR_WARNING : DOCTOR_OK, GROUP, "capabilities of the gateway");

	if (has)
		doctor_set(&f->has, "0x%" PRIx64, has);
	else
		doctor_set(&f->has, "none");
	doctor_set(&f->should, "none");
	doctor_set(&f->why, "it reads what strangers send");
}

static void check_namespace(struct doctor *d)
{
	char path[PATH_MAX], mine[128], its[128];

	snprintf(path, sizeof(path), "%s/proc/self/ns/net", d->root);
	ssize_t n = readlink(path, mine, sizeof(mine) - 1);
	snprintf(path, sizeof(path), "%s/proc/%ld/ns/net", d->root, (long)d->gateway.pid);
	ssize_t m = readlink(path, its, sizeof(its) - 1);
	if (n < 0 || m < 0 || (n == m && !memcmp(mine, its, (size_t)n)))
		return;
	struct doctor_finding *f =
		doctor_add(&d->report, DOCTOR_WARNING, GROUP, "network namespace");
	doctor_set(&f->has, "another one than the gateway's");
	doctor_set(&f->should, "the same");
	doctor_set(&f->why, "most of what stands under sysctls and network is not about it");
	doctor_set(&f->command, "nsenter --net -t %ld tidegatectl doctor", (long)d->gateway.pid);
}

/* ---- its cgroup (v2) ---- */

/* A file of the gateway's cgroup or of one above it that says something other than `none`; false:
 * none does. */
static bool cgroup_limit(const struct doctor *d, const char *file, const char *none,
	char ret[DOCTOR_TEXT_MAX], char ret_path[PATH_MAX])
{
	static const char *const mounts[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};
	char path[64], text[DOCTOR_TEXT_MAX], group[512];

	snprintf(path, sizeof(path), "/proc/%ld/cgroup", (long)d->gateway.pid);
	if (doctor_read(d, path, text) || !doctor_line(text, "0::", group, sizeof(group)))
		return false;
	for (char *slash; (slash = strrchr(group, '/')); *slash = '\0') {
		for (unsigned i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
			snprintf(ret_path, PATH_MAX, "%s%s/%s", mounts[i], group, file);
			if (!doctor_read(d, ret_path, ret) && strncmp(ret, none, strlen(none)))
				return true;
		}
	}
	return false;
}

static void check_cgroup(struct doctor *d)
{
	char text[DOCTOR_TEXT_MAX], path[PATH_MAX];
	bool limited = cgroup_limit(d, "cpu.max", "max", text, path);
	struct doctor_finding *f = doctor_add(
		&d->report, limited ? DOCTOR_WARNING : DOCTOR_OK, GROUP, "CPU quota (cgroup)");

	if (limited)
		doctor_set(&f->has, "%.40s us of each period", text);
	else
		doctor_set(&f->has, "none");
	doctor_set(&f->should, "none");
	doctor_set(&f->why,
		"a group that used its quota up stands still for the rest of the period, "
		"and every connection with it");
	if (limited)
		doctor_set(&f->command, "echo max > %s", path);

	limited = cgroup_limit(d, "memory.max", "max", text, path);
	f = doctor_add(&d->report, DOCTOR_OK, GROUP, "memory limit (cgroup)");
	if (limited)
		doctor_set(&f->has, "%.40s bytes", text);
	else
		doctor_set(&f->has, "none");
	doctor_set(&f->why, "the gate shuts before it is reached");
}

void doctor_process(struct doctor *d)
{
	char line[64];
	int64_t keeper;
	uint64_t has;

	struct doctor_finding *f = doctor_add(
		&d->report, d->gateway.running ? DOCTOR_OK : DOCTOR_ADVICE, GROUP, "tidegate");
	if (!d->gateway.running) {
		doctor_set(&f->has, "not running: what only it could say was not looked at");
		check_privileges(d, "whoever runs this", d->capabilities);
		return;
	}
	doctor_set(&f->has, "%s, pid %ld", d->gateway.version, (long)d->gateway.pid);
	if (strcmp(d->gateway.version, TG_VERSION)) {
		f->severity = DOCTOR_ADVICE;
		doctor_set(&f->should, "%s, as this tidegatectl", TG_VERSION);
		doctor_set(&f->why, "they may not understand each other");
	}
	if (status_line(d, (long)d->gateway.pid, "PPid:", line, sizeof(line)) &&
		!doctor_numbers(line, &keeper, 1) && capabilities_of(d, (long)keeper, &has))
		check_privileges(d, "the keeper", has);
	if (capabilities_of(d, (long)d->gateway.pid, &has))
		check_unprivileged(d, has);
	check_namespace(d);
	check_cgroup(d);
}
