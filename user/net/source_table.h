/* What is known of source prefixes: open connections, churn, penalties. One table for all workers,
 * of a fixed size, of atomics.
 *
 * One shared table rather than one per worker with the limits divided: SO_REUSEPORT and steering
 * spread one source's connections unevenly, so a divided limit would refuse some sources at a
 * fraction of it and let others have a multiple. What a connection costs here from judging to
 * closing is about a microsecond, beside the tens that its handshake takes.
 *
 * Sets of SOURCE_WAYS entries. An entry is named by its prefix's keyed hash (the set and 40 bits
 * more), so that a set cannot be filled on purpose. Looking up and counting take no lock. Making an
 * entry takes its set's own for a moment, since two entries for one prefix would lose a count; who
 * does not get it in time goes without an entry and is not limited (counted, fail open). Entries
 * with connections open are never replaced: in a set of nothing else the newcomer goes without.
 * Others are replaced unproven before proven before penalised, the longest unseen first.
 *
 * Any thread. Whoever writes fields of an entry holds a reference (source_hold), so that it cannot
 * become somebody else's meanwhile; what is read without one is validated with source_still.
 */
#ifndef TIDEGATE_NET_SOURCE_TABLE_H
#define TIDEGATE_NET_SOURCE_TABLE_H

#include <netinet/in.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	SOURCE_WAYS = 8,
	SOURCE_OPEN_BITS = 24, /* 16 million connections of one prefix */
	SOURCE_TRIES = 64,     /* looks at a set's lock before going without */
};

struct source {
	_Atomic uint64_t word; /* 40 bits of the hash, then the connections open; 0: empty */
	_Atomic uint64_t seen_ns;
	_Atomic uint64_t churn_tat_ns; /* accepts + closes, by GCRA */
	_Atomic uint64_t share_tat_ns; /* its fair share while the gate paces … */
	_Atomic uint64_t cap_tat_ns;   /* … and twice that */
	_Atomic uint64_t penalty_until_ns;
	_Atomic uint32_t strikes; /* penalties so far, each counted from the one before */
	_Atomic uint32_t window;  /* the last activity window it was counted in */
	_Atomic uint32_t proven;  /* 1: a handshake was completed from here */
} __attribute__((aligned(64)));

_Static_assert(sizeof(struct source) == 64, "one cache line");

struct source_table {
	struct source *source;
	_Atomic uint8_t *lock; /* one a set */
	size_t n_sets;
	uint64_t key[2];
	_Atomic uint64_t full; /* times a prefix went without an entry */
};

/* `entries` is rounded up to whole sets. 0 or -ENOMEM. */
int source_table_init(struct source_table *t, size_t entries, const uint64_t key[2]);
void source_table_fini(struct source_table *t);

/* The entry of a prefix and its word at that moment, or NULL. addr is masked to len by the caller.
 */
struct source *source_find(
	struct source_table *t, const struct in6_addr *addr, unsigned len, uint64_t *ret_word);
/* True while the entry still belongs to the prefix it had when `word` was read. What it vouches for
 * was read before, with acquire. */
bool source_still(const struct source *s, uint64_t word);

/* The entry of a prefix, made if need be, with one more connection open. NULL: none to be had.
 * *ret_open: connections open, this one included. */
struct source *source_hold(struct source_table *t, const struct in6_addr *addr, unsigned len,
	uint64_t now_ns, uint32_t *ret_open);
/* One connection less. */
void source_release(struct source *s);

#endif
