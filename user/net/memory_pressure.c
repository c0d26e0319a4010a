#include "net/memory_pressure.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	TEXT_MAX = 8192, /* memory.stat is the longest */
};

/* v1 says "no limit" by the largest multiple of a page in 63 bits. */
#define NO_LIMIT (UINT64_C(1) << 60)

/* A number at the begin of the text, blanks before it allowed. */
static bool number(const char *text, uint64_t *ret)
{
	char *end;
	unsigned long long v;

	text += strspn(text, " \t");
	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	v = strtoull(text, &end, 10);
	if (errno)
		return false;
	*ret = v;
	return true;
}

/* The number after `name` at the begin of a line. */
static bool line_number(const char *text, const char *name, uint64_t *ret)
{
	size_t len = strlen(name);

	for (const char *p = text; p; p = strchr(p, '\n')) {
		p += *p == '\n';
		if (!strncmp(p, name, len))
			return number(p + len, ret);
		if (!*p)
			break;
	}
	return false;
}

static int percent(uint64_t part, uint64_t whole)
{
	double p = whole ? (double)part * 100 / (double)whole : 100;

	return p < 1000 ? (int)p : 1000;
}

int memory_percent_cgroup(const char *current, const char *max, const char *stat)
{
	uint64_t used, limit, cache = 0;

	if (!number(current, &used) || !number(max, &limit) || limit >= NO_LIMIT)
		return MEMORY_UNKNOWN; /* "max" is no number */
	if (stat && !line_number(stat, "total_inactive_file ", &cache))
		line_number(stat, "inactive_file ", &cache);
	return percent(used > cache ? used - cache : 0, limit);
}

int memory_percent_tcp(const char *sockstat, const char *tcp_mem)
{
	const char *line = strstr(sockstat, "TCP:"), *mem;
	uint64_t pages, low, pressure, limit;

	if (!line)
		return MEMORY_UNKNOWN;
	mem = strstr(line, " mem ");
	if (!mem || memchr(line, '\n', (size_t)(mem - line)) || !number(mem + 5, &pages))
		return MEMORY_UNKNOWN;
	if (sscanf(tcp_mem, "%" SCNu64 " %" SCNu64 " %" SCNu64, &low, &pressure, &limit) != 3 ||
		!limit)
		return MEMORY_UNKNOWN;
	return percent(pages, limit);
}

int memory_percent_machine(const char *meminfo)
{
	uint64_t total, available;

	if (!line_number(meminfo, "MemTotal:", &total) ||
		!line_number(meminfo, "MemAvailable:", &available) || !total)
		return MEMORY_UNKNOWN;
	return percent(total > available ? total - available : 0, total);
}

bool memory_cgroup_path(const char *self_cgroup, bool *ret_v2, char ret_path[MEMORY_PATH_MAX])
{
	bool found = false;

	/* hierarchy:controllers:path; v2 is hierarchy 0 without controllers. */
	for (const char *p = self_cgroup; p && *p; p = strchr(p, '\n')) {
		const char *controllers, *path;
		size_t len;
		bool v2;

		p += *p == '\n';
		controllers = strchr(p, ':');
		path = controllers ? strchr(controllers + 1, ':') : NULL;
		if (!path || memchr(p, '\n', (size_t)(path - p)))
			continue;
		v2 = !strncmp(p, "0::", 3);
		if (!v2 && strncmp(controllers, ":memory:", 8))
			continue;
		len = strcspn(path + 1, "\n");
		if (len >= MEMORY_PATH_MAX || path[1] != '/' || (found && v2))
			continue;
		memcpy(ret_path, path + 1, len);
		ret_path[len] = '\0';
		*ret_v2 = v2;
		found = true;
	}
	return found;
}

static bool read_text(int fd, char text[TEXT_MAX])
{
	ssize_t n = fd >= 0 ? pread(fd, text, TEXT_MAX - 1, 0) : -1;

	text[n > 0 ? n : 0] = '\0';
	return n > 0;
}

static void open_cgroup(struct memory_pressure *m, const char *dir, bool v2)
{
	struct memory_cgroup *c = &m->cgroup[m->n_cgroups];
	int flags = O_RDONLY | O_CLOEXEC, at = open(dir, flags | O_DIRECTORY);

	if (at < 0)
		return;
	c->current_fd = openat(at, v2 ? "memory.current" : "memory.usage_in_bytes", flags);
	c->max_fd = openat(at, v2 ? "memory.max" : "memory.limit_in_bytes", flags);
	c->stat_fd = openat(at, "memory.stat", flags);
	close(at);
	if (c->current_fd >= 0 && c->max_fd >= 0) {
		m->n_cgroups++;
		return;
	}
	if (c->current_fd >= 0)
		close(c->current_fd);
	if (c->max_fd >= 0)
		close(c->max_fd);
	if (c->stat_fd >= 0)
		close(c->stat_fd);
}

/* From the process's own group up to the root of what is mounted: in a container that root is the
 * container's own group, and the path above may not be there. */
static void open_cgroups(struct memory_pressure *m, const char *mount, char *path, bool v2)
{
	while (m->n_cgroups < MEMORY_CGROUPS_MAX) {
		char dir[2 * MEMORY_PATH_MAX];
		char *slash = strrchr(path, '/');

		snprintf(dir, sizeof dir, "%s%s", mount, path);
		open_cgroup(m, dir, v2);
		if (!slash)
			break;
		*slash = '\0';
	}
}

void memory_pressure_open(struct memory_pressure *m)
{
	char text[TEXT_MAX], path[MEMORY_PATH_MAX];
	int self = open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC);
	bool v2;

	memset(m, 0, sizeof *m);
	m->sockstat_fd = open("/proc/net/sockstat", O_RDONLY | O_CLOEXEC);
	m->tcp_mem_fd = open("/proc/sys/net/ipv4/tcp_mem", O_RDONLY | O_CLOEXEC);
	m->meminfo_fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
	if (read_text(self, text) && memory_cgroup_path(text, &v2, path))
		open_cgroups(m, v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory", path, v2);
	if (self >= 0)
		close(self);
}

void memory_pressure_close(struct memory_pressure *m)
{
	int fds[] = {m->sockstat_fd, m->tcp_mem_fd, m->meminfo_fd};

	for (unsigned i = 0; i < m->n_cgroups; i++) {
		close(m->cgroup[i].current_fd);
		close(m->cgroup[i].max_fd);
		if (m->cgroup[i].stat_fd >= 0)
			close(m->cgroup[i].stat_fd);
	}
	m->n_cgroups = 0;
	for (unsigned i = 0; i < 3; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	m->sockstat_fd = m->tcp_mem_fd = m->meminfo_fd = -1;
}

static int greater(int a, int b)
{
	return a > b ? a : b;
}

void memory_pressure_read(const struct memory_pressure *m, struct memory_percents *ret)
{
	char a[TEXT_MAX], b[TEXT_MAX], stat[TEXT_MAX];

	*ret = (struct memory_percents){
		MEMORY_UNKNOWN, MEMORY_UNKNOWN, MEMORY_UNKNOWN, MEMORY_UNKNOWN};
	for (unsigned i = 0; i < m->n_cgroups; i++) {
		const struct memory_cgroup *c = &m->cgroup[i];

		if (read_text(c->current_fd, a) && read_text(c->max_fd, b))
			ret->cgroup = greater(
				ret->cgroup, memory_percent_cgroup(a, b,
						     read_text(c->stat_fd, stat) ? stat : NULL));
	}
	if (read_text(m->sockstat_fd, a) && read_text(m->tcp_mem_fd, b))
		ret->tcp = memory_percent_tcp(a, b);
	if (read_text(m->meminfo_fd, a))
		ret->machine = memory_percent_machine(a);
	ret->greatest = greater(ret->cgroup, greater(ret->tcp, ret->machine));
}
