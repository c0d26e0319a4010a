/* What the process costs: memory, CPU time, descriptors, start. Files under /proc are opened once,
 * at init, so that reading goes on after the process gave up its file access. Reading is for any
 * thread. */
#ifndef TIDEGATE_OPS_PROCESS_STATS_H
#define TIDEGATE_OPS_PROCESS_STATS_H

#include <stdint.h>

enum {
	PROCESS_STATS_UNKNOWN = -1
};

struct process_stats {
	/* PROCESS_STATS_UNKNOWN where /proc does not say */
	int64_t resident_bytes;
	int64_t open_fds;
	int64_t start_unix_ms;
	uint64_t cpu_ns; /* user and system, all threads */
};

struct process_stats_reader {
	int statm_fd, fd_dir; /* -1: not there */
	int64_t start_unix_ms;
};

/* Never fails: what cannot be opened is unknown later. */
void process_stats_init(struct process_stats_reader *r);
void process_stats_fini(struct process_stats_reader *r);
void process_stats_read(const struct process_stats_reader *r, struct process_stats *ret);

#endif
