/* A resumable piece of a worker's own work: a drain, a listing, a retry. It runs from the run queue
 * in bounded steps, and may ask to be run again at once or later. Worker thread only. */
#ifndef TIDEGATE_CORE_JOB_H
#define TIDEGATE_CORE_JOB_H

#include "core/worker.h"

struct job {
	struct runq_item run;
	struct wheel_timer timer;
	void (*fn)(struct worker *w, struct job *j);
};

void job_init(struct job *j, void (*fn)(struct worker *w, struct job *j));
/* Runs it in the class given, as soon as its turn comes. */
void job_run(struct worker *w, struct job *j, enum runq_class class_);
/* The same, but in a later turn of the worker: see worker_push_next_turn(). */
void job_run_next_turn(struct worker *w, struct job *j, enum runq_class class_);
/* Runs it (RUNQ_CONTROL) after delay_ms. */
void job_run_in(struct worker *w, struct job *j, uint32_t delay_ms);
/* Neither queued nor waiting any more. */
void job_cancel(struct worker *w, struct job *j);
/* Registers the handlers of WORKER_JOB. */
void job_register(struct worker_ops *ops);

#endif
