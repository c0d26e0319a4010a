/* How short memory is, in percent: the greatest of the process's control groups, TCP's share of
 * tcp_mem, and the machine's 1 - MemAvailable.
 *
 * The parsers are pure: text in, percent out. The reader opens its files once, since a confined
 * process may not open any later, and reads them again and again. One thread. Order: open, percent,
 * close.
 */
#ifndef TIDEGATE_NET_MEMORY_PRESSURE_H
#define TIDEGATE_NET_MEMORY_PRESSURE_H

#include <stdbool.h>
#include <stddef.h>

enum {
	MEMORY_UNKNOWN = -1,
	MEMORY_CGROUPS_MAX =
		8, /* levels from the process's own group upwards: any may be the limit */
	MEMORY_PATH_MAX = 1024,
};

struct memory_pressure {
	struct memory_cgroup {
		int current_fd, max_fd, stat_fd; /* stat: -1 when there is none */
	} cgroup[MEMORY_CGROUPS_MAX];
	unsigned n_cgroups;
	int sockstat_fd, tcp_mem_fd, meminfo_fd; /* -1: not there */
};

/* Which of them is how large; MEMORY_UNKNOWN for what cannot be read or has no limit. */
struct memory_percents {
	int cgroup, tcp, machine;
	int greatest;
};

/* Opens what there is; nothing is required. */
void memory_pressure_open(struct memory_pressure *m);
void memory_pressure_close(struct memory_pressure *m);
void memory_pressure_read(const struct memory_pressure *m, struct memory_percents *ret);

/* memory.current and memory.max, or v1's usage_in_bytes and limit_in_bytes; of memory.stat (may be
 * NULL) the cache that is given up without pain is subtracted. */
int memory_percent_cgroup(const char *current, const char *max, const char *stat);
/* /proc/net/sockstat, in pages, and the third number of net.ipv4.tcp_mem. */
int memory_percent_tcp(const char *sockstat, const char *tcp_mem);
/* /proc/meminfo. */
int memory_percent_machine(const char *meminfo);
/* The group of /proc/self/cgroup that counts memory: v1's memory controller where there is one,
 * else v2's. False when there is none, or its path is too long. */
bool memory_cgroup_path(const char *self_cgroup, bool *ret_v2, char ret_path[MEMORY_PATH_MAX]);

#endif
