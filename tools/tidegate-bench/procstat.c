#include "procstat.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Reads a small file whole, NUL-terminated. */
static int slurp(const char *path, char *buf, size_t cap)
{
	FILE *f = fopen(path, "re");

	if (!f)
		return -errno;
	size_t n = fread(buf, 1, cap - 1, f);
	int err = ferror(f) ? -EIO : 0;
	fclose(f);
	buf[n] = 0;
	return err ? err : n ? 0 : -ESRCH;
}

/* The number behind `key` at the beginning of a line. */
static int field(const char *text, const char *key, uint64_t *ret)
{
	size_t len = strlen(key);

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, key, len)) {
			*ret = strtoull(line + len, NULL, 10);
			return 0;
		}
	}
	return -ENOENT;
}

static int cpu_read(pid_t pid, uint64_t *ret_us)
{
	char path[64], buf[1024];
	unsigned long long user, sys;

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	int err = slurp(path, buf, sizeof buf);
	if (err)
		return err;
	/* The second field, the name, may hold anything; fields 14 and 15 are counted from its
	 * closing bracket. */
	const char *p = strrchr(buf, ')');
	if (!p || sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user,
			  &sys) != 2)
		return -EINVAL;
	*ret_us = (uint64_t)(user + sys) * 1000000 / (uint64_t)sysconf(_SC_CLK_TCK);
	return 0;
}

/* statm is cheaper, but counts in per-CPU batches: off by hundreds of KiB. */
static int rss_read(pid_t pid, uint64_t *ret_bytes)
{
	char path[64], buf[4096];
	uint64_t kib;
	unsigned long long pages;

	snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid);
	if (!slurp(path, buf, sizeof buf) && !field(buf, "Rss:", &kib)) {
		*ret_bytes = kib * 1024;
		return 0;
	}
	snprintf(path, sizeof path, "/proc/%d/statm", pid);
	int err = slurp(path, buf, sizeof buf);
	if (err)
		return err;
	if (sscanf(buf, "%*u %llu", &pages) != 1)
		return -EINVAL;
	*ret_bytes = (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
	return 0;
}

int procstat_read(const pid_t *pids, unsigned n, struct procstat *ret, pid_t *ret_bad)
{
	struct procstat sum = {0};

	for (unsigned i = 0; i < n; i++) {
		uint64_t cpu_us, rss_bytes;
		int err = cpu_read(pids[i], &cpu_us);
		if (!err)
			err = rss_read(pids[i], &rss_bytes);
		if (err) {
			*ret_bad = pids[i];
			return err;
		}
		sum.cpu_us += cpu_us;
		sum.rss_bytes += rss_bytes;
	}
	*ret = sum;
	return 0;
}

int procstat_kernel_read(struct procstat_kernel *ret)
{
	char buf[8192];
	struct procstat_kernel k;
	unsigned long long inuse, pages;

	int err = slurp("/proc/net/sockstat", buf, sizeof buf);
	if (err)
		return err;
	const char *tcp = strstr(buf, "TCP:");
	if (!tcp || sscanf(tcp, "TCP: inuse %llu orphan %*u tw %*u alloc %*u mem %llu", &inuse,
			    &pages) != 2)
		return -EINVAL;
	k.tcp_inuse = inuse;
	k.tcp_bytes = pages * (uint64_t)sysconf(_SC_PAGESIZE);
	err = slurp("/proc/meminfo", buf, sizeof buf);
	if (!err)
		err = field(buf, "SUnreclaim:", &k.slab_bytes);
	if (err)
		return err;
	k.slab_bytes *= 1024;
	*ret = k;
	return 0;
}
