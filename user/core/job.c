#include "core/job.h"

#include <stddef.h>
#include <string.h>

void job_init(struct job *j, void (*fn)(struct worker *w, struct job *j))
{
	memset(j, 0, sizeof *j);
	j->run.kind = WORKER_JOB;
	j->timer.kind = WORKER_JOB;
	j->fn = fn;
}

void job_run(struct worker *w, struct job *j, enum runq_class class_)
{
	worker_push(w, &j->run, class_);
}

void job_run_next_turn(struct worker *w, struct job *j, enum runq_class class_)
{
	worker_push_next_turn(w, &j->run, class_);
}

void job_run_in(struct worker *w, struct job *j, uint32_t delay_ms)
{
	wheel_add(&w->wheel, &j->timer, w->now_ms + delay_ms);
}

void job_cancel(struct worker *w, struct job *j)
{
	wheel_del(&w->wheel, &j->timer);
	if (j->run.queued)
		worker_remove(w, &j->run);
}

static void run(struct worker *w, struct runq_item *it)
{
	struct job *j = (struct job *)((char *)it - offsetof(struct job, run));

	j->fn(w, j);
}

static void fire(struct worker *w, struct wheel_timer *t)
{
	struct job *j = (struct job *)((char *)t - offsetof(struct job, timer));

	job_run(w, j, RUNQ_CONTROL);
}

void job_register(struct worker_ops *ops)
{
	ops->run[WORKER_JOB] = run;
	ops->timer[WORKER_JOB] = fire;
}
