/* The storm workload: connection attempts that are begun whatever becomes of those before, and
 * given up after a while. storm_load.c is what the threads do, storm.c the command.
 *
 * Attempt n of the storm is due at run_ns + n / rate; how long a handshake took counts from there.
 * With a rate of 0 a fixed number is under way at all times instead: as many handshakes as the
 * server completes when it is offered just that. A handshake that is complete is the end of its
 * connection, which is reset at once.
 *
 * Order, in the controlling thread: fill in opts and the settings, storm_create, storm_times before
 * the threads are started by load_start on load, then load_stop on load, storm_collect,
 * storm_destroy.
 */
#ifndef TIDEGATE_BENCH_STORM_H
#define TIDEGATE_BENCH_STORM_H

#include <stdint.h>

#include "base/hist.h"
#include "load.h"

struct storm_thread;

struct storm {
	struct bench_options opts; /* connections: what the others set, not attempts */
	double rate;               /* attempts per second, all threads together; 0: closed loop */
	unsigned under_way;        /* of the closed loop */
	double deadline_s;         /* an attempt is given up after so long */

	struct load *load;
	struct storm_thread *threads;
	uint64_t run_ns, to_ns; /* attempts begin, and end */
};

/* Attempts of one thread are in a list by age, free connections in one by when they became so. */
struct storm_list {
	uint32_t first, last;
};

/* One thread's part; all but the counters is exact after load_stop(). */
struct storm_thread {
	struct storm *storm;
	bool ready;
	uint64_t next; /* number of the next attempt */
	struct storm_list waiting, unused;
	uint64_t behind_ns;    /* the most that an attempt was late */
	struct hist answer_ns; /* of the handshakes completed */
	_Atomic uint64_t attempts, completed, timed_out;
	_Atomic uint64_t in_time;   /* completed before to_ns */
	_Atomic uint64_t exhausted; /* attempts that were due when no connection was unused */
};

/* One connection's part, the workload's state in the engine. */
struct storm_conn {
	uint32_t prev, next;
	uint64_t due_ns, begun_ns;
};

/* 0 or -errno; destroy takes what is half made. */
int storm_create(struct storm *s);
void storm_destroy(struct storm *s);
/* Attempts are made from run_ns on. */
void storm_times(struct storm *s, uint64_t run_ns, uint64_t to_ns);

struct storm_sums {
	uint64_t attempts, completed, in_time, timed_out, exhausted;
	uint64_t refused, broken; /* the connection was; the handshake was refused or cut short */
	uint64_t under_way;       /* as of now */
};

struct storm_sums storm_sums(const struct storm *s);
/* After load_stop(). */
void storm_collect(const struct storm *s, struct hist *ret_answer_ns, uint64_t *ret_behind_ns);

/* storm_load.c. */
extern const struct load_ops storm_ops;

#endif
