/* The scheduler line: how the gateway's scheduling was over the last interval, in one log line.
 *
 *     sched_poll_delay_p99=37ms runnable_tasks=182k accepts=9k/s closes=8.7k/s conns=1.8M
 *     gate=open admitted=90k refused=0 forced_yields=212 dropped=0
 *
 * The keys and their order are fixed, others read them. Pure: any thread, no clock, no allocation.
 * The caller keeps one copy of every worker's counters from the last time and takes a new one.
 */
#ifndef TIDEGATE_OPS_SCHEDLINE_H
#define TIDEGATE_OPS_SCHEDLINE_H

#include <stddef.h>
#include <stdint.h>

#include "base/stats.h"

enum {
	SCHEDLINE_MAX = 384, /* the longest line there can be, with its NUL */
	HUMAN_MAX = 24,      /* the longest text of human_count and human_delay_us, with its NUL */
};

/* One interval, as the line says it. */
struct schedline {
	uint64_t interval_ns;
	uint64_t delay_p99_us;    /* of poll_delay_us, in the interval, of the worker where it is
				     greatest */
	uint64_t runnable, conns; /* levels at its end, summed over the workers */
	double accepts_per_s, closes_per_s;
	const char *gate;           /* as given */
	uint64_t admitted, refused; /* connections let in; those turned away by admission or for
				       want of a slot, and by the kernel */
	uint64_t forced_yields;     /* turns */
	uint64_t dropped; /* client messages that were lost with a link or found a buffer full */
};

/* `now` and `before` hold n_workers copies each, `before` taken interval_ns (> 0) earlier; a
 * counter that went backwards counts as unchanged. gate, static: "open", "paced", "shut"; "off"
 * without admission. refused_in_kernel: in the interval. */
void schedline_take(struct schedline *ret, const struct tg_worker_stats *now,
	const struct tg_worker_stats *before, unsigned n_workers, uint64_t interval_ns,
	const char *gate, uint64_t refused_in_kernel);

/* Writes the line, without a newline, into out; returns its length. */
size_t schedline_format(char out[SCHEDLINE_MAX], const struct schedline *l);

/* "7", "999", "8.7k", "182k", "1.8M", "3G": one decimal below 10 unless it is 0, none above.
 * Returns out. */
char *human_count(char out[HUMAN_MAX], double v);

/* Microseconds as "0us", "850us", "3.2ms", "37ms", "1.2s", "90s". Returns out. */
char *human_delay_us(char out[HUMAN_MAX], uint64_t us);

#endif
