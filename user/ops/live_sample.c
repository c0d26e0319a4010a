#include "ops/live_sample.h"

#include <errno.h>
#include <stdlib.h>

int live_sample_init(struct live_sample *s, const struct admin_backend *b)
{
	size_t align = _Alignof(struct tg_worker_stats);

	*s = (struct live_sample){.n_workers = b->n_workers, .n_routes = b->n_routes};
	s->workers = aligned_alloc(align, (b->n_workers + 1) * sizeof *s->workers);
	s->routes = calloc(b->n_routes + 1, sizeof *s->routes);
	return s->workers && s->routes ? 0 : -ENOMEM;
}

void live_sample_fini(struct live_sample *s)
{
	free(s->workers);
	free(s->routes);
	*s = (struct live_sample){0};
}

void live_sample_take(struct live_sample *s, const struct admin_backend *b,
	const struct process_stats_reader *process, uint64_t now_ns)
{
	s->now_ns = now_ns;
	for (unsigned i = 0; i < s->n_workers; i++)
		s->workers[i] = *b->stats(b->ctx, i);
	s->measures = b->share && b->share(b->ctx) > 0;
	for (unsigned i = 0; i < s->n_routes; i++)
		b->route(b->ctx, i, &s->routes[i]);
	s->has_kernel = b->verdicts && !b->verdicts(b->ctx, s->kernel);
	s->has_sources = b->top_sources &&
			 !b->top_sources(b->ctx, SOURCES_TOP_MAX, s->sources, &s->n_sources);
	b->gate(b->ctx, &s->gate);
	s->has_line = b->line(b->ctx, &s->line, &s->line_age_ns);
	process_stats_read(process, &s->process);
}
