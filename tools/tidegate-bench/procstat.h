/* What /proc says about a server and the machine. For the controlling thread. */
#ifndef TIDEGATE_BENCH_PROCSTAT_H
#define TIDEGATE_BENCH_PROCSTAT_H

#include <stdint.h>
#include <sys/types.h>

struct procstat {
	uint64_t cpu_us;    /* user and system time of all threads, also of those that have ended */
	uint64_t rss_bytes; /* exact (smaps_rollup) where it may be read */
};

/* Sums over the processes: 0, or -errno and *ret_bad, the first that could not be read (-ENOENT:
 * there is none). */
int procstat_read(const pid_t *pids, unsigned n, struct procstat *ret, pid_t *ret_bad);

struct procstat_kernel {
	uint64_t tcp_bytes;  /* memory charged to TCP sockets: data queued, in pages */
	uint64_t slab_bytes; /* unreclaimable kernel objects, sockets among them; the whole
				machine's */
	uint64_t tcp_inuse;
};

/* 0 or -errno. */
int procstat_kernel_read(struct procstat_kernel *ret);

#endif
