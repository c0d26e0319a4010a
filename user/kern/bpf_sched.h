/* The measuring program (bpf/sched.bpf.c): how long events and threads of the workers wait.
 *
 * Loading, attaching: keeper, single-threaded; privileged. Order: bpf_maps_open, settings (with
 * bpf_track_set_netns) and ports, bpf_sched_open, then bpf_sched_switch, close. It is not pinned:
 * while nobody is home there is nothing to measure, and its sockets' storage goes with it. Needs
 * the tracepoints sk_data_ready and sock_recv_length, of Linux 6.3.
 *
 * Switching and reading need the descriptors of the maps `sched` and `delays` alone.
 */
#ifndef TIDEGATE_KERN_BPF_SCHED_H
#define TIDEGATE_KERN_BPF_SCHED_H

#include <stdint.h>

#include "base/hist.h"
#include "kern/bpf_maps.h"

struct bpf_sched;

/* Loads and attaches; what it measures, if anything, the map `sched` says. 0, or -errno, and
 * *ret_step names what failed: nothing is left behind then. maps must outlive it. */
int bpf_sched_open(const struct bpf_maps *maps, struct bpf_sched **ret, const char **ret_step);
/* NULL is allowed. What was counted stays in the map. */
void bpf_sched_close(struct bpf_sched *s);

/* Descriptor of the storage of the sampled sockets, for tests and tools. */
int bpf_sched_storage(const struct bpf_sched *s);

struct bpf_sched_opts {
	double percent; /* of the sockets, 0..100: their wake delay is taken */
	bool run;       /* the waits of the workers' threads, too */
};

/* Any thread; at any time, also before the program is loaded. A share above zero means one socket
 * in 65,536 at the least. 0, or -errno; -EINVAL when percent is not within 0..100. */
int bpf_sched_switch(int sched_fd, const struct bpf_sched_opts *opts, uint64_t now_ns);

/* Of one worker, nanoseconds. 0 or -errno. */
struct bpf_sched_delays {
	struct hist wake, run;
};
int bpf_sched_read(int delays_fd, unsigned worker, struct bpf_sched_delays *ret);

#endif
