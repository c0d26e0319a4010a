#include "ops/schedline.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "net/admission.h"

/* Scales v by thousands to at most three digits. The limits are those at which printing would round
 * up to a digit more: 999.5 to "1000", 9.95 to "10.0". */
static char *scaled(char out[HUMAN_MAX], double v, const char *const *units, unsigned n_units)
{
	unsigned unit = 0;

	while (v >= 999.5 && unit + 1 < n_units) {
		v /= 1000;
		unit++;
	}
	/* The last unit takes what is left: the clamp keeps 2^64 of anything within HUMAN_MAX. */
	if (v > 1e15)
		v = 1e15;
	if (v >= 9.95) {
		snprintf(out, HUMAN_MAX, "%.0f%s", v, units[unit]);
		return out;
	}
	unsigned tenths = (unsigned)(v * 10 + 0.5);
	if (tenths % 10)
		snprintf(out, HUMAN_MAX, "%u.%u%s", tenths / 10, tenths % 10, units[unit]);
	else
		snprintf(out, HUMAN_MAX, "%u%s", tenths / 10, units[unit]);
	return out;
}

char *human_count(char out[HUMAN_MAX], double v)
{
	static const char *const units[] = {"", "k", "M", "G"};

	return scaled(out, v > 0 ? v : 0, units, sizeof(units) / sizeof(units[0]));
}

char *human_delay_us(char out[HUMAN_MAX], uint64_t us)
{
	static const char *const units[] = {"us", "ms", "s"};

	return scaled(out, (double)us, units, sizeof(units) / sizeof(units[0]));
}

static uint64_t grown(uint64_t now, uint64_t before)
{
	return now > before ? now - before : 0;
}

static uint64_t refused(const struct tg_worker_stats *s)
{
	uint64_t sum = 0;

	for (unsigned v = 0; v < TG_VERDICT_COUNT; v++)
		if (admission_refuses((enum tg_verdict)v))
			sum += s->verdicts[v];
	return sum;
}

static uint64_t dropped(const struct tg_worker_stats *s)
{
	return s->link_messages_lost + s->link_buffer_refused + s->out_dropped;
}

static void add_worker(struct schedline *l, const struct tg_worker_stats *now,
	const struct tg_worker_stats *before, double per_s)
{
	struct hist delay;
	hist_diff(&delay, &now->poll_delay_us, &before->poll_delay_us);
	uint64_t p99 = hist_quantile(&delay, 0.99);
	if (p99 > l->delay_p99_us)
		l->delay_p99_us = p99;

	uint64_t accepts = grown(now->accepts, before->accepts);
	uint64_t turned_away = grown(refused(now), refused(before));
	l->runnable += now->runnable;
	l->conns += now->connections;
	l->accepts_per_s += (double)accepts * per_s;
	l->closes_per_s += (double)grown(stats_closes(now), stats_closes(before)) * per_s;
	l->admitted += grown(accepts, turned_away);
	l->refused += turned_away + grown(now->refused_full, before->refused_full);
	l->forced_yields += grown(now->forced_yields, before->forced_yields);
	l->dropped += grown(dropped(now), dropped(before));
}

void schedline_take(struct schedline *ret, const struct tg_worker_stats *now,
	const struct tg_worker_stats *before, unsigned n_workers, uint64_t interval_ns,
	const char *gate, uint64_t refused_in_kernel)
{
	assert(interval_ns > 0);
	*ret = (struct schedline){
		.interval_ns = interval_ns, .gate = gate, .refused = refused_in_kernel};
	for (unsigned i = 0; i < n_workers; i++)
		add_worker(ret, &now[i], &before[i], 1e9 / (double)interval_ns);
}

size_t schedline_format(char out[SCHEDLINE_MAX], const struct schedline *l)
{
	char delay[HUMAN_MAX], runnable[HUMAN_MAX], accepts[HUMAN_MAX], closed[HUMAN_MAX];
	char conns[HUMAN_MAX], admitted[HUMAN_MAX], turned_away[HUMAN_MAX], yields[HUMAN_MAX];
	char drops[HUMAN_MAX];

	int n = snprintf(out, SCHEDLINE_MAX,
		"sched_poll_delay_p99=%s runnable_tasks=%s accepts=%s/s closes=%s/s conns=%s "
		"gate=%s admitted=%s refused=%s forced_yields=%s dropped=%s",
		human_delay_us(delay, l->delay_p99_us), human_count(runnable, (double)l->runnable),
		human_count(accepts, l->accepts_per_s), human_count(closed, l->closes_per_s),
		human_count(conns, (double)l->conns), l->gate,
		human_count(admitted, (double)l->admitted),
		human_count(turned_away, (double)l->refused),
		human_count(yields, (double)l->forced_yields),
		human_count(drops, (double)l->dropped));
	assert(n > 0 && n < SCHEDLINE_MAX);
	return (size_t)n;
}
