/* The workers' lines of the map worker_load (include/tidegate/abi.h): what the kernel steers by.
 *
 * Mapped once for the process, from the descriptor that the keeper handed over. Each worker writes
 * its own line at the end of each batch and before it waits, by plain stores: no system call, no
 * lock, no other writer. Anybody reads. Without BPF (fd -1) the lines are memory of this process
 * alone, so that its governor and its metrics read them all the same. */
#ifndef TIDEGATE_KERN_WORKER_LOAD_H
#define TIDEGATE_KERN_WORKER_LOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "tidegate/abi.h"

/* Any thread, before the workers start. 0 or -errno. */
int worker_load_map(int fd, struct tg_worker_load **ret);
/* After they have ended. NULL is allowed. */
void worker_load_unmap(struct tg_worker_load *lines);

/* What a worker says of itself. */
struct worker_load {
	uint64_t poll_delay_ns;
	uint64_t served, accepts; /* ever */
	uint32_t runnable, connections;
	uint32_t ring, free_slots;
	bool sleeping, accepting;
};

/* Worker's own thread, first: an empty line with the thread's ids, and no sign of life yet. */
void worker_load_begin(struct tg_worker_load *line);
/* Worker's own thread. The last store is the heartbeat. A worker that goes to sleep says so here;
 * the first batch after that publishes again, before its work, or it would hang unseen. */
void worker_load_publish(struct tg_worker_load *line, const struct worker_load *w, uint64_t now_ns);
/* Worker's own thread, last, when it takes no connections any more. */
void worker_load_end(struct tg_worker_load *line);

/* Anybody: a copy, of which every field is whole, though not all of one moment. False: there is no
 * such worker. */
bool worker_load_read(const struct tg_worker_load *line, struct tg_worker_load *ret);

#endif
