/* Admission in user space: who may stay, decided once the peer's address is known and before any
 * handshake work. What admit.bpf.c and track.bpf.c decide in the kernel, for where there is no BPF.
 *
 * In this order: allow list, deny list, penalty box, shut gate, permits, limits of the source (open
 * connections and churn, by tiers of prefix; exceeding one puts the prefix into the box), and while
 * the gate paces: fair share of the source, the part left to unproven ones, the rate. All is
 * checked before anything is charged, so a refusal costs no budget.
 *
 * Threads: judge, served and closed in the workers, without locks (see net/source_table.h);
 * admission_gate in the governor's; lists belong to one worker and are exchanged by it. Time is an
 * argument. Error bound: checks and charges are separate, so with W workers judging in one moment a
 * rate, share or churn limit may be passed by at most W - 1 connections, which are charged and
 * missing afterwards; the count of open connections is exact. A prefix that finds no entry (its set
 * is full of open ones) is let in unlimited, and counted (TG_TRACK_OPEN_FULL).
 *
 * Call order: admission_create, then any; admission_destroy after the last worker has ended.
 */
#ifndef TIDEGATE_NET_ADMISSION_H
#define TIDEGATE_NET_ADMISSION_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/stats.h"
#include "net/governor.h"
#include "net/prefix_list.h"
#include "tidegate/abi.h"

struct admission_tier {
	unsigned len;   /* of the prefix: 1..32 or 1..128; 0: not used (the first always is) */
	uint32_t open;  /* connections open at a time; 0: no limit */
	uint32_t churn; /* accepts + closes per second; 0: no limit */
	uint32_t churn_burst; /* events ahead of it */
};

struct admission_opts {
	bool observe;        /* count, refuse nobody */
	bool limit_loopback; /* 127.0.0.0/8 and ::1 are limited like any source */
	struct admission_tier tier[TG_FAMILIES][TG_TIERS]; /* the narrowest first */
	uint64_t penalty_ns, penalty_max_ns; /* the first time; doubled at each repetition, up to */
	uint32_t source_burst; /* connections a source may be ahead of its fair share */
	uint32_t sources;      /* entries of the table of sources, 64 bytes each */
	uint64_t hash_key[2];  /* random: nobody may fill a set on purpose */
};

struct admission;

/* 0 or -ENOMEM. */
int admission_create(const struct admission_opts *opts, struct admission **ret);
void admission_destroy(struct admission *a); /* NULL is allowed */

/* The governor's word. Its thread only. */
void admission_gate(struct admission *a, const struct governor_gate *gate);

/* What the gate was last said to be, for people. Any thread. */
void admission_gate_get(const struct admission *a, struct governor_gate *ret);

/* Connections admitted and not yet served: the level that permits bound. Any thread. */
uint64_t admission_unserved(const struct admission *a);

/* Lists of a worker; immutable, counted references. */
struct admission_lists {
	unsigned refs; /* atomic */
	struct prefix_list allow, deny, weights;
};

/* What a connection holds, kept with it until admission_closed. */
enum admission_ticket {
	TICKET_TIER0 = 1, /* counted as open in this tier, and in the next two */
	TICKET_TIERS = 7,
	TICKET_UNSERVED = 8,
};

enum admission_flags {
	ADMISSION_TRUSTED = 1, /* a PROXY sender's own connection: no per-source limits */
};

struct admission_result {
	enum tg_verdict verdict;
	bool refused;   /* never in observe mode */
	uint8_t ticket; /* 0 when refused */
};

/* Judges a connection and counts the verdict in stats->verdicts, or verdicts_observed when it would
 * have been refused but for observe mode. lists may be NULL. */
struct admission_result admission_judge(struct admission *a, const struct admission_lists *lists,
	struct tg_worker_stats *stats, const struct in6_addr *peer, unsigned flags,
	uint64_t now_ns);

/* It waits for its handshake no longer, whatever the outcome. Returns the ticket to keep. */
uint8_t admission_left(struct admission *a, uint8_t ticket);

/* Its handshake is complete: likewise, and the source is proven. */
uint8_t admission_served(struct admission *a, const struct in6_addr *peer, uint8_t ticket);

/* It is over, in whatever state. Too much churn is found here too. */
void admission_closed(struct admission *a, const struct admission_lists *lists,
	struct tg_worker_stats *stats, const struct in6_addr *peer, uint8_t ticket,
	uint64_t now_ns);

/* True for the verdicts that refuse. */
bool admission_refuses(enum tg_verdict v);

/* "deny", "penalty", …; as in the kernel's verdicts. */
const char *admission_verdict_name(enum tg_verdict v);

/* The next user-space verdict from v on, or TG_VERDICT_COUNT: for (v = first(0); v < COUNT; v =
 * first(v + 1)). */
enum tg_verdict admission_verdict_from(unsigned v);

#endif
