/* The governor: the control law that opens, paces and shuts the gate by measured delay.
 *
 * Pure arithmetic: time and measurements are arguments, nothing is allocated, logged or read. One
 * thread (the governor's) calls governor_step every GOVERNOR_STEP_NS and publishes the gate it
 * returns; any number of governors may exist. Call order: governor_init, then steps and words.
 *
 * The law, decided once per interval (five steps), on the interval's minimum delay d:
 *
 *   d <= target           recover: the rate grows by a bounded step while it is what limits, and
 *                         the gate opens when nobody had to be refused for two seconds
 *   target < d <= 2x      cut the rate by max(1 - k (d - t) / t, 0.5), but never below half of
 *                         what is being completed; once, until that queue had the time to go: if it
 *                         grows meanwhile, never below 85 % of what is being completed
 *   d > 2x                shut: only the floor rate goes in, as probes; at d <= target the gate is
 *                         paced again at 85 % of what the workers manage
 *
 * In a shut gate every step may end the interval, or the workers would be idle until its end; and
 * so may a backlog that takes longer than an interval to serve, which needs no proof that it
 * stands.
 *
 * The minimum is what tells a standing queue from a burst (CoDel, RFC 8289): a burst has a last
 * event that waited for nothing. A delay counts against newcomers only while accepting and
 * shaking hands are a stated share of the worker's time, and a cut that costs goodput without
 * lowering the delay is taken back (lock contention looks like a queue and is none).
 */
#ifndef TIDEGATE_NET_GOVERNOR_H
#define TIDEGATE_NET_GOVERNOR_H

#include <stdbool.h>
#include <stdint.h>

#include "tidegate/abi.h"

#define GOVERNOR_STEP_NS  UINT64_C(20000000)   /* how often the thread steps */
#define GOVERNOR_STALE_NS UINT64_C(1000000000) /* a heartbeat older than this: nobody steps */

enum {
	GOVERNOR_RATE_MAX = 1000000, /* per second: no limit */
	GOVERNOR_PERMITS_MAX = 0x7fffffff,
	GOVERNOR_MEMORY_UNKNOWN = -1,
};

/* What the operator said last. */
enum governor_word {
	GATE_WORD_AUTO,
	GATE_WORD_OPEN,
	GATE_WORD_SHUT,
	GATE_WORD_RATE,
};

struct governor_opts {
	uint64_t target_ns;       /* standing delay to stay below, 5 ms */
	uint64_t interval_ns;     /* of one decision, 100 ms */
	unsigned cut_percent;     /* k of the cut, 50 */
	uint32_t rate_floor;      /* connections per second, >= 1; let in even when shut by delay */
	uint32_t rate_ceiling;    /* 0: none */
	uint32_t permits;         /* connections accepted and not yet served; 0: no limit */
	unsigned reserve_percent; /* of the rate, for prefixes that have proven themselves */
	unsigned handshake_percent; /* of busy time: below it newcomers are not to blame */
	unsigned memory_high_percent, memory_low_percent; /* shuts at the first, until below the
							     second */
	bool observe;                                     /* decide and say, refuse nobody */
};

/* The defaults, as docs/configuration.md states them. */
void governor_defaults(struct governor_opts *opts);

/* What was measured since the last step. Delay, busy and handshake time are those of the worker
 * that was worst off; the rest is summed. */
struct governor_sample {
	bool has_delay;    /* false: no event waited for anything, or nothing happened */
	uint64_t delay_ns; /* the smallest delay of an event of the worst class: poll delay where
			      the kernel measures; else run delay or loop lag, the larger */
	uint64_t busy_ns, handshake_ns; /* time at work; of it, accepting and shaking hands … */
	uint64_t served_here;           /* … and the handshakes completed by it */
	uint64_t awake_ns; /* like busy_ns, with what is spent between turns, at the sockets */
	unsigned workers;  /* how many there are like it */
	uint64_t admitted, refused; /* connections let in; those the gate turned away */
	uint64_t served;            /* handshakes completed: the goodput */
	uint64_t unserved;          /* level: accepted and not yet served */
	int memory_percent;         /* pressure, or GOVERNOR_MEMORY_UNKNOWN */
};

/* What admission compares against. */
struct governor_gate {
	enum tg_gate_state state;
	enum tg_gate_reason reason;
	uint32_t rate; /* per second; GOVERNOR_RATE_MAX: no limit; 0: nobody. Not 0 in a gate that
			  delay has shut: the probes */
	uint32_t reserve_rate; /* the part of it that only proven prefixes may use */
	uint32_t permits;      /* GOVERNOR_PERMITS_MAX: no limit */
	bool observe;
	uint64_t heartbeat_ns;
};

struct governor {
	struct governor_opts opts;
	enum governor_word word;
	uint32_t word_rate;

	/* The law's own state, whatever the operator says. */
	enum tg_gate_state state;
	double rate;
	double capacity; /* completed per second while there was a queue; 0: not seen yet */
	double goodput;  /* smoothed */
	double estimate; /* what the workers could complete, by what handshakes cost and how much
			    time other work leaves; 0: not known yet */
	bool memory_shut, permits_short;
	int memory_percent;

	/* The interval being gathered. */
	uint64_t last_ns, begin_ns;
	bool started, has_delay;
	uint64_t delay_ns, busy_ns, awake_ns, handshake_ns, admitted, refused, served, served_here;
	unsigned workers;
	uint64_t unserved, unserved_before; /* the level; when the interval began */
	uint64_t delay_seen_ns;             /* when there was a delay at all */
	uint64_t drain_until_ns; /* the queue that was cut for last needs so long to go … */
	uint64_t drain_delay_ns; /* … and was this long then */
	uint64_t limited_ns;     /* when somebody was last refused, or the delay was too long */

	/* The run of cuts that the goodput guard watches. */
	bool episode, episode_was_open;
	uint64_t episode_ns;
	double episode_delay, episode_goodput, episode_rate;
	uint64_t hold_ns, hold_until_ns; /* length of the next hold; no cuts before */
	double hold_delay;

	/* For people. */
	uint64_t last_delay_ns, cuts, shuts, holds;
};

void governor_init(struct governor *g, const struct governor_opts *opts);

/* The operator's word beats every signal, from the next step on. rate is for GATE_WORD_RATE. */
void governor_say(struct governor *g, enum governor_word word, uint32_t rate);

/* One step; now_ns is monotonic. A clock that stands, runs backwards or leaps by more than
 * GOVERNOR_STALE_NS decides nothing: the gate stays as it was. */
void governor_step(struct governor *g, uint64_t now_ns, const struct governor_sample *s,
	struct governor_gate *ret);

/* True when the governor has not stepped for GOVERNOR_STALE_NS: rate and permits are then ignored,
 * since nobody would raise them again. */
static inline bool governor_gate_stale(uint64_t heartbeat_ns, uint64_t now_ns)
{
	return now_ns > heartbeat_ns && now_ns - heartbeat_ns > GOVERNOR_STALE_NS;
}

const char *governor_state_name(enum tg_gate_state s);   /* "open", "paced", "shut" */
const char *governor_reason_name(enum tg_gate_reason r); /* "none", "delay", … */
const char *governor_word_name(enum governor_word w);    /* "auto", "open", "shut", "rate" */

#endif
