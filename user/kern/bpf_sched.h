/* The measuring program (bpf/sched.bpf.c): how long events and threads of the workers wait.
 *
 * Loading, switching: keeper, single-threaded; privileged. Order: bpf_maps_open, settings (with
 * bpf_track_set_netns) and ports, bpf_sched_create, bpf_sched_switch as often as wanted, destroy.
 * Switched off, nothing is attached, so that it costs nobody anything. It is not pinned: while
 * nobody is home there is nothing to measure. Needs the tracepoint sk_data_ready, of Linux 6.3, and
 * CONFIG_SCHED_INFO.
 *
 * The gateway needs the maps' descriptors alone: its workers say who they are, and find in `ready`
 * since when a socket was readable (core/wake.h); anybody reads `delays`.
 */
#ifndef TIDEGATE_KERN_BPF_SCHED_H
#define TIDEGATE_KERN_BPF_SCHED_H

#include <stdbool.h>
#include <stdint.h>

#include "base/hist.h"
#include "kern/bpf_maps.h"

struct bpf_sched;

/* Nothing is loaded before it is first switched on. maps must outlive it. 0 or -errno. */
int bpf_sched_create(const struct bpf_maps *maps, struct bpf_sched **ret);
/* NULL is allowed. What was counted stays in the map, which says that it is switched off. */
void bpf_sched_destroy(struct bpf_sched *s);

struct bpf_sched_opts {
	double percent; /* of the sockets, 0..100: their wake delay is taken */
	bool run;       /* the waits of the workers' threads, too */
};

/* Loads and attaches what is wanted, detaches what is not. A share above zero means one socket in
 * 65,536 at the least. 0; or -errno and *ret_step names what failed: it is switched off then, but
 * as it was after -EINVAL, when percent is not within 0..100. */
int bpf_sched_switch(struct bpf_sched *s, const struct bpf_sched_opts *opts, uint64_t now_ns,
	const char **ret_step);

/* The workers are dead. */
void bpf_sched_forget(struct bpf_sched *s);

/* The map `sched`, by its descriptor alone; any thread. 0 or -errno. */
int bpf_sched_map(int sched_fd, struct tg_sched **ret);
void bpf_sched_unmap(struct tg_sched *s); /* NULL is allowed */

/* Worker's own thread, at its start and its end: whose waits are measured. */
void bpf_sched_worker_begin(struct tg_sched *s, unsigned worker);
void bpf_sched_worker_end(struct tg_sched *s, unsigned worker);

/* The share that is worth its cost: that which was configured, but while there are few connections
 * so much more that some LEAST_SOCKETS of them are measured, 64. One thread of the gateway, every
 * now and then. */
void bpf_sched_adapt(struct tg_sched *s, uint64_t connections, uint64_t now_ns);
/* Of the sockets, 0..1; 0: nothing is measured. */
double bpf_sched_share(const struct tg_sched *s);

/* Of one worker: waits of its thread for a CPU, nanoseconds. 0 or -errno. */
int bpf_sched_read(int delays_fd, unsigned worker, struct hist *ret_cpu_wait);

/* The map `ready`. 0 or -errno. */
int bpf_sched_map_ready(int ready_fd, struct tg_ready **ret);
void bpf_sched_unmap_ready(struct tg_ready *r); /* NULL is allowed */

#endif
