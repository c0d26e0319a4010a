/* What a worker's thread does over and over. In that thread only. */
#ifndef TIDEGATE_CORE_WORKER_TURN_H
#define TIDEGATE_CORE_WORKER_TURN_H

#include "core/worker.h"

/* aux of OP_WAKE. */
enum worker_wake {
	WAKE_POLL,    /* the eventfd */
	WAKE_MESSAGE, /* from another worker's ring */
	WAKE_ALARM,   /* the next timer is due */
};
/* Has ring 0 see what is written to w->wake_fd: once, before the first turn. */
void worker_arm_wake(struct worker *w);

/* Forgets the least delays of the slot before; before the first turn, and by each that finds
 * itself in another. */
void worker_begin_slot(struct worker *w, uint32_t slot);

/* Submits what is due, waits when there is nothing to do, receives, and runs a slice. */
void worker_turn(struct worker *w);

#endif
