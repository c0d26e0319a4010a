#include "ops/gateway_internal.h"

#include <stddef.h>

enum {
	STEP_MS = 20,
	SLOTS_AT_ONCE = 1u << 20,
};

static void close_one(struct conn *c, void *ctx)
{
	(void)ctx;
	if (c->state == CONN_OPEN || c->state == CONN_OPENING)
		conn_close(c, WS_CLOSE_GOING_AWAY, "the gateway is going away", CLOSE_DRAIN);
	else if (c->state < CONN_OPENING)
		conn_kill(c, CLOSE_DRAIN);
}

/* One step: as many slots as the time that has passed stands for, so that clients do not all come
 * back in the same moment and a few are spread as evenly as many. */
static void drain_step(struct worker *w, struct job *j)
{
	struct gateway_worker *gw =
		(struct gateway_worker *)((char *)j - offsetof(struct gateway_worker, drain));
	uint32_t period = gw->gateway->cfg->drain_period_ms,
		 passed = w->now_ms - gw->drain_begin_ms;
	unsigned due = SLOTS_AT_ONCE;

	if (passed < period)
		due = (unsigned)((uint64_t)gw->drain_slots * passed / period) - gw->drain_walked;
	gw->drain_walked += due;
	if (due && !conn_walk(&gw->net, &gw->drain_cursor, due, close_one, NULL))
		gw->drain_cursor = 0; /* once more: some were accepted behind the cursor */
	if (gw->stats->connections)
		job_run_in(w, j, STEP_MS);
}

void gateway_drain_start(struct gateway_worker *gw)
{
	struct worker *w = gw->w;

	if (gw->net.draining)
		return;
	gw->net.draining = true;
	listener_stop(&gw->net);
	for (size_t i = 0; i < gw->n_upstreams; i++)
		gw->upstreams[i]->ops->drain(gw->upstreams[i]);
	for (unsigned i = 0; i < w->n_rings; i++)
		gw->drain_slots += w->ring[i]->used_high;
	gw->drain_begin_ms = w->now_ms;
	job_init(&gw->drain, drain_step);
	job_run(w, &gw->drain, RUNQ_CONTROL);
}
