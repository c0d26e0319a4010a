/* The counters of one worker, made from include/tidegate/stats.h. The worker writes with plain
 * stores; readers read whenever they like and may see a moment's mixture. */
#ifndef TIDEGATE_BASE_STATS_H
#define TIDEGATE_BASE_STATS_H

#include <stdint.h>

#include "base/hist.h"
#include "tidegate/abi.h"
#include "tidegate/stats.h"

#define X(id, ...) CLOSE_##id,
enum close_reason {
	TG_CLOSE_REASONS(X) CLOSE_REASONS
};
#undef X

#define X(id, ...) PROTO_ERR_##id,
enum protocol_error {
	TG_PROTOCOL_ERRORS(X) PROTO_ERRS
};
#undef X

#define X(id, ...) AUTH_FAIL_##id,
enum auth_failure {
	TG_AUTH_FAILURES(X) AUTH_FAILURES,
	AUTH_PASSED = AUTH_FAILURES,
};
#undef X

#define X(id, ...) HUB_ERROR_##id,
enum hub_error {
	TG_HUB_ERRORS(X) HUB_ERRORS
};
#undef X

enum {
	STATS_WORKERS_MAX = 64, /* worker_load's size, design */
	STATS_CLASSES = 5,      /* those of core/runq.h */
};

/* What a worker is at. The last ones are turns of its run queue, in the order of core/runq.h. */
#define STATS_DOINGS(X)                                                                            \
	X(WAIT, "waiting")                                                                         \
	X(FLUSH, "submitting output")                                                              \
	X(REAP, "reaping completions, timers and mail")                                            \
	X(CONTROL, "a connection's close")                                                         \
	X(LINKS, "a link")                                                                         \
	X(ESTABLISHED, "a session's input")                                                        \
	X(HANDSHAKE, "a handshake")                                                                \
	X(FANOUT, "a job")

enum stats_doing {
#define X(id, ...) STATS_DOING_##id,
	STATS_DOINGS(X)
#undef X
	STATS_DOING_ALL
};

/* A turn, of the run queue or of the loop itself. Each field alone is whole. */
struct tg_worker_turn {
	uint64_t since_ns;
	uint64_t session; /* whose connection it is for; 0: none, or not yet */
	uint32_t conn;    /* ring << 24 | slot, + 1; 0: not for a connection */
	uint32_t doing;   /* enum stats_doing */
};

struct tg_worker_stats {
#define X(field, ...) uint64_t field;
	TG_COUNTERS(X)
	TG_GAUGES(X)
#undef X
	uint64_t closes[CLOSE_REASONS];
	uint64_t protocol_errors[PROTO_ERRS];
	uint64_t auth_failures[AUTH_FAILURES];
	uint64_t hub_refused[HUB_ERRORS];
	/* Decisions of admission in user space: those made, and those that only observe mode kept
	 * from refusing somebody. */
	uint64_t verdicts[TG_VERDICT_COUNT], verdicts_observed[TG_VERDICT_COUNT];
	uint64_t class_ns[STATS_CLASSES]; /* time at work, by class of the run queue */
	/* The least delay of a whole 20 ms slot that had any: slot (upper half) and microseconds,
	 * in one word so that the pair is read as it was written. */
	uint64_t least_delay;
	uint64_t awake_ns; /* turns, and what lies between two of them unless it is sleep: at the
			      sockets, which no turn is charged for */
	uint64_t turn_since_ns;     /* when the turn that goes on now began; 0: the worker waits */
	struct tg_worker_turn turn; /* what it is at in it */
	/* The last of what took above ten times its budget (late_turns counts them): written before
	 * it is counted. */
	struct tg_worker_turn late;
	uint64_t late_ns;       /* how long it took */
	uint64_t busy_permille; /* of the last second, time at work. The watchdog's thread writes it
				 */
	struct hist run_delay_us;  /* received -> its turn in the run queue */
	struct hist wake_delay_us; /* readable -> received, of the sampled sockets */
	/* Readable -> its turn: wake delay + run delay of the same event, of the same sockets;
	 * while nothing is measured, of all items, the run delay alone. */
	struct hist poll_delay_us;
	struct hist first_poll_us; /* of new connections: accepted -> their first turn */
	struct hist loop_us; /* one turn of the loop, waiting excluded: the delay an event may find
				before it is even received */
} __attribute__((aligned(64)));

/* "client", "reset", …; and the sentence that explains it. */
const char *close_reason_name(enum close_reason r);
const char *close_reason_help(enum close_reason r);
const char *protocol_error_name(enum protocol_error e);
const char *protocol_error_help(enum protocol_error e);
const char *auth_failure_name(enum auth_failure f);
const char *auth_failure_help(enum auth_failure f);
const char *hub_error_name(enum hub_error e);
const char *stats_doing_name(enum stats_doing d); /* "waiting", … */

void stats_init(struct tg_worker_stats *s);
/* Connections closed, for whatever reason. */
uint64_t stats_closes(const struct tg_worker_stats *s);
/* into += from, all of it. */
void stats_merge(struct tg_worker_stats *into, const struct tg_worker_stats *from);

#endif
