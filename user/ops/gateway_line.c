/* The scheduler line, once an interval: into the log, and kept for whoever wants to show the same.
 */
#include "ops/gateway_internal.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum {
	UNLOGGED_INTERVAL_MS = 10000, /* with log.interval 0 */
};

/* Two copies of the workers' counters: what is counted while a line is written belongs to the next
 * one. */
struct gateway_line {
	struct tg_worker_stats *before, *now;
	uint64_t before_ns;
	uint64_t refused; /* by the kernel, at the last line */

	pthread_mutex_t lock; /* of what follows */
	struct schedline last;
	uint64_t last_ns; /* 0: none yet */
};

int gateway_line_init(struct gateway *g)
{
	size_t bytes = g->n_workers * sizeof *g->stats;
	struct gateway_line *l = calloc(1, sizeof *l);

	if (!l)
		return -ENOMEM;
	g->line = l;
	pthread_mutex_init(&l->lock, NULL);
	l->before = aligned_alloc(64, bytes);
	l->now = aligned_alloc(64, bytes);
	if (!l->before || !l->now)
		return -ENOMEM;
	memcpy(l->before, g->stats, bytes);
	l->before_ns = worker_clock_ns();
	l->refused = gateway_kernel_refused(&g->kernel);
	return 0;
}

void gateway_line_fini(struct gateway *g)
{
	struct gateway_line *l = g->line;

	if (!l)
		return;
	free(l->before);
	free(l->now);
	pthread_mutex_destroy(&l->lock);
	free(l);
	g->line = NULL;
}

void gateway_line_turn(struct gateway *g)
{
	uint32_t interval_ms = g->cfg->log_interval_ms;
	struct gateway_line *l = g->line;
	uint64_t now_ns = worker_clock_ns(), refused;
	struct tg_worker_stats *swap;
	struct schedline line;
	struct gate_info gate;
	char text[SCHEDLINE_MAX];

	if (now_ns - l->before_ns <
		(interval_ms ? interval_ms : UNLOGGED_INTERVAL_MS) * UINT64_C(1000000))
		return;
	memcpy(l->now, g->stats, g->n_workers * sizeof *g->stats);
	refused = gateway_kernel_refused(&g->kernel);
	gateway_gate_info(g, &gate);
	schedline_take(&line, l->now, l->before, g->n_workers, now_ns - l->before_ns,
		gate.on ? governor_state_name(gate.gate.state) : "off", refused - l->refused);
	if (interval_ms) {
		schedline_format(text, &line);
		log_line("sched", "%s", text);
	}
	l->refused = refused;
	swap = l->before;
	l->before = l->now;
	l->now = swap;
	l->before_ns = now_ns;
	pthread_mutex_lock(&l->lock);
	l->last = line;
	l->last_ns = now_ns;
	pthread_mutex_unlock(&l->lock);
}

bool gateway_line(void *ctx, struct schedline *ret, uint64_t *ret_age_ns)
{
	struct gateway_line *l = ((struct gateway *)ctx)->line;
	bool has;

	pthread_mutex_lock(&l->lock);
	has = l->last_ns != 0;
	if (has) {
		*ret = l->last;
		*ret_age_ns = worker_clock_ns() - l->last_ns;
	}
	pthread_mutex_unlock(&l->lock);
	return has;
}
