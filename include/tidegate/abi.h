/* Maps and events: the layouts that the BPF programs and user space share, one copy for both.
 *
 * A map is pinned as /sys/fs/bpf/tidegate/<instance>/<name>, with BTF, and its definition stands in
 * bpf/maps.bpf.h. Above each struct: the map, who writes it, who reads it. Times ending in _ns are
 * CLOCK_MONOTONIC unless said otherwise; addresses and ports are in network order where the type
 * is bytes or __be16, in host order else. Whatever changes a layout here raises TG_ABI_VERSION.
 */
#ifndef TIDEGATE_ABI_H
#define TIDEGATE_ABI_H

#include <linux/types.h>

#define TG_ABI_VERSION 2

enum {
	TG_WORKERS_MAX = 64, /* entries of worker_load and picks */
	TG_TIERS = 3,    /* widths of source prefix that limits look at; tier 0 is the narrowest */
	TG_FAMILIES = 2, /* index 0: IPv4, 1: IPv6 */
	TG_PORT_WORDS = 2048, /* of 32 ports each */
	TG_PREFIX_V6_MAX =
		64, /* an IPv6 source prefix is never longer: hosts choose the rest freely */

	/* Activity is counted, and the sketch halved, in windows of 2^30 ns, 1.07 s. */
	TG_WINDOW_SHIFT = 30,

	TG_REDIRECTS_MAX = 64, /* port ranges and prefixes that sk_lookup gives to a listener */

	/* Lifetimes of connections, in octaves of milliseconds: bucket 0 is below 1 ms, bucket n
	 * from 2^(n-1) up to 2^n, the last without end (from 13 months on). */
	TG_LIFETIME_BUCKETS = 37,

	TG_PROVEN_WAYS = 4, /* prefixes of an entry of `proven` */

	TG_SKETCH_ROWS = 2, /* hash functions */
	TG_SKETCH_COLS = 8, /* cells of a row in one block */
};

/* The kernel takes the answer to a SYN cookie for two minutes, rounded down to whole ones; and
 * cookies are sent for up to two windows after tg_pace.cookies_until_ns was last moved. */
#define TG_COOKIE_LIFE_NS 125000000000ULL

/* ---- keys ---- */

/* Key of sources, open, penalty. A source prefix: the address's first len bits, the rest zero. IPv4
 * has 4 bytes and four zero ones. */
struct tg_prefix {
	__u8 addr[8];
	__u8 len;    /* bits: 1..32 for IPv4, 1..TG_PREFIX_V6_MAX for IPv6 */
	__u8 family; /* 4 or 6 */
	__u8 zero[2];
} __attribute__((aligned(4)));
_Static_assert(sizeof(struct tg_prefix) == 12, "one round of the hash map's hash function");

/* Key of allow, deny, weights (LPM tries). IPv4 a.b.c.d/n is 0:ffff:a.b.c.d::/(32 + n), a block
 * that no IPv6 host has: the trie compares 8 bytes at a time, and there all of an IPv4 address is
 * in the first 8. */
struct tg_lpm_key {
	__u32 prefixlen; /* 0..128, of IPv4 32..64; host order, as the kernel wants it */
	__u8 addr[16];
};
_Static_assert(sizeof(struct tg_lpm_key) == 20, "LPM trie key without padding");

/* Key of addresses (LPM trie): a port, then an address prefix. */
struct tg_address_key {
	__u32 prefixlen; /* 32 + bits of the address, 32..160 */
	__be16 port;
	__u16 zero;
	__u8 addr[16]; /* IPv4 as in tg_lpm_key */
};
_Static_assert(sizeof(struct tg_address_key) == 24, "LPM trie key without padding");

/* ---- configuration: written by the keeper, read by the programs ---- */

/* tg_settings.flags */
enum {
	TG_SET_OBSERVE = 1 << 0,         /* count every verdict, refuse nobody */
	TG_SET_RESET = 1 << 1,           /* refusals are answered with RST; else dropped */
	TG_SET_EXEMPT_LOOPBACK = 1 << 2, /* 127.0.0.0/8 and ::1 know no per-source limits */
	TG_SET_FAIR = 1 << 3,            /* fair share per source while the gate paces */
	TG_SET_WEIGHTS = 1 << 5,         /* the map `weights` has entries */
};

/* Limits of one tier of source prefixes. 0 switches a limit off. */
struct tg_tier {
	__u32 len;        /* bits of the prefix; 0: the tier is not used (tier 0 always is) */
	__u32 open_limit; /* connections open at a time */
	/* Churn, establishes + closes, by GCRA: one event an interval, burst ahead at most. */
	__u64 churn_interval_ns;
	__u64 churn_burst_ns;
};
_Static_assert(sizeof(struct tg_tier) == 24, "no padding");

/* Map `settings`, array[1]. Keeper; admit, track, steer. An update is not atomic: each field
 * stands alone. */
struct tg_settings {
	__u32 flags;   /* TG_SET_* */
	__u32 workers; /* 1..TG_WORKERS_MAX, in use */
	__u32 rings;   /* accepting rings a worker, for the index into listeners; at least 1 */
	__u32 listeners;

	/* admit */
	__u32 flood_limit;       /* SYNs a second from one source prefix (tier 0); 0: no limit */
	__u32 source_burst;      /* connections that a source may be ahead of its fair share */
	__u32 cookie_trigger;    /* SYNs a second above which newcomers get cookies; 0: never */
	__u32 redirects;         /* steer: entries of the map `redirects` in use */
	__u64 stale_ns;          /* a gate whose heartbeat is older is ignored: 1 s */
	__u64 event_interval_ns; /* one event an interval, by GCRA; 0: no events */
	__u64 event_burst_ns;

	/* admit (len), track */
	struct tg_tier tier[TG_FAMILIES][TG_TIERS];
	__u64 penalty_ns; /* the first time in the box; 0: nobody is put there */
	/* Doubled at each repetition up to here. Repetition is forgotten after as long a time
	 * outside the box. */
	__u64 penalty_max_ns;
	__u64 netns_cookie; /* track looks at sockets of this network namespace only */

	/* steer */
	__u64 hang_ns; /* an awake worker whose heartbeat is older hangs: 20 ms */

	/* Of tg_proven_hash: made with the maps and kept as long, known to nobody outside. */
	__u64 proven_seed;
};
_Static_assert(sizeof(struct tg_settings) == 56 + 24 * TG_FAMILIES * TG_TIERS + 40, "no padding");

/* Map `ports`, array[TG_PORT_WORDS], index = port / 32, bit = port % 32: which ports are the
 * gateway's. Keeper; admit, track, steer. */
struct tg_port_word {
	__u32 any;    /* on every address */
	__u32 listed; /* on the addresses in the map `addresses` only */
};
_Static_assert(sizeof(struct tg_port_word) == 8, "no padding");

/* Map `addresses`, LPM trie, key struct tg_address_key. Keeper; admit, track, steer. */
struct tg_address {
	__u32 listener; /* index of the configuration */
	__u32 zero;
};

/* Map `redirects`, array[TG_REDIRECTS_MAX], the first that matches decides: packets to these ports
 * and addresses go to one listener, which is bound elsewhere. Keeper; steer. The ports must be in
 * `ports`, too. */
struct tg_redirect {
	__u8 addr[16]; /* destination, as in tg_lpm_key; beyond `bits` zero */
	__u16 port, port_last;
	__u8 bits; /* of addr; 0: every address of both families */
	__u8 zero[3];
	__u32 listener; /* as in the index of `listeners` */
	__u32 zero1;
};
_Static_assert(sizeof(struct tg_redirect) == 32, "no padding");

/* Maps `allow` and `deny`, LPM tries, key struct tg_lpm_key. Keeper (tidegatectl through it);
 * admit. */
enum {
	TG_ORIGIN_CONFIG = 1,   /* from the configuration file: replaced by a reload */
	TG_ORIGIN_OPERATOR = 2, /* from tidegatectl: stays until taken back */
};

struct tg_list_entry {
	__u64 created_s; /* CLOCK_REALTIME, seconds */
	__u32 origin;    /* TG_ORIGIN_* */
	__u32 zero;
};
_Static_assert(sizeof(struct tg_list_entry) == 16, "no padding");

/* Map `weights`, LPM trie, key struct tg_lpm_key: prefixes behind which many clients stand (CGNAT,
 * proxies). Keeper; admit, where it would otherwise refuse; track, which copies the weight into the
 * prefix's entry in `sources`. */
#define TG_WEIGHT_EXEMPT 0xffffffffu /* no per-source limits at all */

struct tg_weight {
	__u32 weight; /* per-source limits are this many times as high; 0 counts as 1 */
	__u32 origin; /* TG_ORIGIN_* */
};
_Static_assert(sizeof(struct tg_weight) == 8, "no padding");

/* ---- the gate ---- */

/* What the gate does, name and help. */
#define TG_GATE_STATES(X)                                                                          \
	X(OPEN, "open", "every SYN that no list, penalty or limit refuses is admitted")            \
	X(PACED, "paced", "admissions are limited to a rate, or by permits")                       \
	X(SHUT, "shut", "nobody is admitted but the allow list")

/* Why the gate is not open. */
#define TG_GATE_REASONS(X)                                                                         \
	X(NONE, "none", "nothing asks for it")                                                     \
	X(DELAY, "delay", "the poll delay is above its target")                                    \
	X(MEMORY, "memory", "memory is above its high-water mark")                                 \
	X(PERMITS, "permits", "too many connections wait to be served")                            \
	X(OPERATOR, "operator", "an operator said so")

#define X(id, ...) TG_GATE_##id,
enum tg_gate_state {
	TG_GATE_STATES(X) TG_GATE_STATE_COUNT
};
#undef X
#define X(id, ...) TG_GATE_BY_##id,
enum tg_gate_reason {
	TG_GATE_REASONS(X) TG_GATE_REASON_COUNT
};
#undef X

/* Map `gate`, array[1], mmapable. The governor, by plain stores, heartbeat last; admit. With a
 * heartbeat older than settings.stale_ns admit takes the gate for open: state, rate and permits
 * are ignored, the lists, penalties and the flood limit hold. */
struct tg_gate {
	__u64 heartbeat_ns;
	__u32 state;  /* enum tg_gate_state */
	__u32 reason; /* enum tg_gate_reason; for people */
	/* PACED: one admission an interval, by GCRA over all sources. 0: no rate. The burst is how
	 * far ahead of time admissions may run; admit's clock moves in ticks (1 to 10 ms), so less
	 * than 40 ms wastes rate, and fair shares need four intervals of it. */
	__u64 interval_ns;
	__u64 burst_ns;
	/* The same for prefixes without an entry in `sources`: what the share reserved for proven
	 * ones leaves, interval_ns / (1 - share). 0: nothing is reserved. */
	__u64 new_interval_ns;
	/* Refuse while the level of tg_pace.unserved is at least this. 0: no limit. In every state
	 * but SHUT. */
	__u64 permits;
	/* tg_pace.established - tg_pace.abandoned when the gateway started, its workers' `served`
	 * being 0. */
	__u64 permits_base;
	__u64 zero;
};
_Static_assert(sizeof(struct tg_gate) == 64, "one cache line");

/* Map `pace`, array[1], mmapable: what the programs keep of the gate. admit and track; governor
 * and tools read. */
struct tg_pace {
	/* Line 1: admit, moved by compare-and-swap at each paced admission. */
	__u64 tat_ns;     /* theoretical arrival time of the whole rate */
	__u64 new_tat_ns; /* … of the part for unproven prefixes */
	__u64 event_tat_ns;
	__u64 line1[5];
	/* Line 2: admit, activity by windows. */
	__u64 window; /* the time >> TG_WINDOW_SHIFT */
	/* Distinct source prefixes that tried in this window and in the one before, by a Bloom
	 * filter in the sketch: too low above some 20,000. [0] proven ones, [1] others. */
	__u32 active[2], active_last[2];
	/* The same for SYNs that reached the sketch; counted in batches. */
	__u64 syns, syns_last;
	/* Until then an ACK may answer a SYN cookie of ours, so they are looked at; 0: none can. */
	__u64 cookies_until_ns;
	__u32 cookies; /* 1: SYNs of unproven prefixes are answered with cookies; of `window` or the
			* one before, else it is out of date and 0 */
	__u32 zero;
	__u64 line2;
	/* Line 3: track. */
	__u64 established; /* connections of the gateway's ports that completed the TCP handshake */
	__u64 closed;
	/* The level that permits bound: connections that are established and that no worker has
	 * counted as served, in the accept queue or in its handshake. It is
	 *   established - abandoned - tg_gate.permits_base - the sum of tg_worker_load.served
	 * as last added up: by track at each establish, by admit before it refuses. A connection
	 * that its peer resets in the accept queue is still accepted, so it is a worker that counts
	 * it; one that ended because its listener went away is in `abandoned`. */
	__u64 unserved;
	/* The latest end of any penalty: until then admit looks for one. */
	__u64 penalty_until_ns;
	__u64 abandoned;
	/* Which program counts: the one that was loaded with this number, no other. The keeper
	 * moves it on, so that no event is counted by both the old program and the new one. */
	__u64 track;
	/* 1 while the counts of replaced maps are added to `open`, whose entries may meanwhile be
	 * below zero. Keeper. */
	__u64 merging;
	__u64 line3;
};
_Static_assert(sizeof(struct tg_pace) == 192, "three cache lines");

/* Map `worker_load`, array[TG_WORKERS_MAX], mmapable. Each worker its own line, by plain stores,
 * heartbeat last, at the end of each batch and before it waits; steer, governor, admit (served),
 * tools. */
struct tg_worker_load {
	__u64 heartbeat_ns;  /* 0: no such worker */
	__u64 poll_delay_ns; /* recent, smoothed: what a newcomer has to expect */
	/* Connections, ever, whose handshake and authentication ended: in a session, or in their
	 * close. Each accepted connection once. */
	__u64 served;
	__u64 accepts;   /* connections, ever; less `connections`: closes */
	__u32 sleeping;  /* 1: waits for events, nothing to do */
	__u32 accepting; /* 1: takes connections */
	__u32 runnable;
	__u32 connections;
	__u32 ring;       /* the ring that accepts … */
	__u32 free_slots; /* … and its free slots; 0: given no connection while others have some */
	/* Of the worker's thread, as the first PID namespace numbers it; 0: unknown, then a wake-up
	 * that waits for its turn is not noticed. */
	__u32 tid, tgid;
};
_Static_assert(sizeof(struct tg_worker_load) == 64, "one cache line per worker");

/* Map `picks`, array[TG_WORKERS_MAX]. steer. `total` is what the kernel gave to each worker; what
 * the worker made of it stands in its own line of worker_load. */
struct tg_worker_picks {
	__u64 total;        /* connections given to this worker, ever */
	__u64 heartbeat_ns; /* of the publication that `since` counts from */
	__u64 since;
	__u64 wake_ns; /* when it was first woken since its heartbeat; older: not at all */
	__u64 line[4];
};
_Static_assert(sizeof(struct tg_worker_picks) == 64, "one cache line per worker");

/* ---- sources ---- */

/* The finaliser of splitmix64: every bit of the result depends on every bit of x. */
static inline __u64 tg_mix(__u64 x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ULL;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

/* A proven prefix, and its share while the gate paces. */
struct tg_share {
	__u32 tag;    /* upper half of its tg_proven_hash(), never 0; 0: free */
	__u32 weight; /* as in tg_weight */
	__u64 tat_ns; /* admit */
};

/* Map `proven`, array, a power of two of entries, index = the low bits of tg_proven_hash(): the
 * prefixes of tier 0 that are proven, for admit, which asks at every SYN. A hash map has it wait
 * for memory three times one after the other, an entry here is one cache line. track puts a prefix
 * there once a connection from it is ESTABLISHED, and nobody else does; where all are taken, the
 * one that was admitted least lately while the gate paced has to prove itself again, and of two
 * that come at once, one may. Written without atomics. */
struct tg_proven {
	struct tg_share share[TG_PROVEN_WAYS];
};
_Static_assert(sizeof(struct tg_proven) == 64, "one cache line");

/* Where all of an entry are taken: should this one give way rather than that one? Free is best. */
static inline int tg_share_gives_way(const struct tg_share *one, const struct tg_share *than)
{
	return than->tag && (!one->tag || one->tat_ns < than->tat_ns);
}

/* bits: the prefix's address as a number, its first bit the highest of 64; family: 4 or 6. */
static inline __u64 tg_proven_hash(__u64 seed, __u64 bits, __u32 len, __u32 family)
{
	return tg_mix((bits + len + (family << 8)) ^ seed);
}

static inline __u32 tg_proven_tag(__u64 hash)
{
	return (__u32)(hash >> 32) | 1;
}

/* Map `sources`, LRU hash, key struct tg_prefix. track, which makes an entry once a connection from
 * the prefix is ESTABLISHED, and nobody else does; governor and tools read. */
struct tg_source {
	__u64 churn_tat_ns; /* track: establishes + closes */
	__u64 accepts;
	__u64 closes;
	__u64 lifetime_us; /* open connections times time; by accepts, their mean life */
	__u64 first_ns;
	__u64 last_ns; /* establish or close */
	__u32 weight;  /* as in tg_weight */
	__u32 zero;
	__u64 line;
};
_Static_assert(sizeof(struct tg_source) == 64, "one cache line");

/* Map `open`, hash without LRU, key struct tg_prefix; deleted at zero. track; tools.
 *
 * connections and tag are moved together, by compare-and-swap: an entry may be deleted, and its
 * memory given to another prefix, while some CPU still holds a pointer to it. Deleted is what has
 * zero connections. An entry that could not be made (the map is full) is counted and leaves its
 * connection unlimited; the close of a connection that is not in the count takes nothing from an
 * absent entry, and one too many from a present one. So errors are towards too few. */
struct tg_open {
	__s32 connections;
	__u32 tag; /* hash of the key */
	/* Of these, such as a narrower entry of `weights` covers than this prefix: they do not
	 * count towards this prefix's limits. Not exact when weights change meanwhile. */
	__s32 weighted;
	__u32 peak;
};
_Static_assert(sizeof(struct tg_open) == 16, "no padding");

/* Map `lifetime`, per-CPU array[TG_LIFETIME_BUCKETS] of counters: ended connections by their life
 * from the TCP handshake to the close, of a sample. track; metrics, tools. */

/* Map `born`, socket storage, for the sampled ones. track. */
struct tg_born {
	__u64 established_ns;
	__u32 outgoing; /* 1: not from a client, somebody here used a gateway's port to connect */
	__u32 zero;
};
_Static_assert(sizeof(struct tg_born) == 16, "no padding");

/* Why a prefix is in the penalty box. */
#define TG_PENALTIES(X)                                                                            \
	X(CHURN, "churn", "opened and closed connections too fast")                                \
	X(CONCURRENCY, "concurrency", "too many connections open")                                 \
	X(OPERATOR, "operator", "an operator put it there")

#define X(id, ...) TG_PENALTY_##id,
enum tg_penalty_reason {
	TG_PENALTIES(X) TG_PENALTY_REASON_COUNT
};
#undef X

/* Map `penalty`, LRU hash, key struct tg_prefix. track, which raises the prefix's penalty_filter
 * and tg_pace.penalty_until_ns first; admit. An entry whose time is over stays, as the memory of
 * repetition, until evicted. */
struct tg_penalty {
	__u64 until_ns;
	__u64 since_ns;
	__u32 reason;  /* enum tg_penalty_reason */
	__u32 strikes; /* how often, this time included */
};
_Static_assert(sizeof(struct tg_penalty) == 24, "no padding");

/* Map `penalty_filter`, array, a power of two of entries, index = tg_filter_index() of the prefix:
 * the latest end of any penalty of the prefixes that fall there. Most SYNs find none, at a fraction
 * of what a look into `penalty` costs. track (a lost race is made good at the next offence); admit.
 */
struct tg_penalty_filter {
	__u64 until_ns;
};

/* bits: the prefix's address as a number, its first bit the highest of 64. */
static inline __u32 tg_filter_index(__u64 bits, __u32 len, __u32 entries)
{
	return (__u32)(((bits + len) * 0x9e3779b97f4a7c15ULL) >> 32) & (entries - 1);
}

/* Map `syn_sketch`, array, mmapable, a power of two of entries: count-min sketch of SYNs by source
 * prefix. All cells of a prefix are in one block, so that it costs one cache line. admit. */
struct tg_sketch_block {
	/* window << 16 | count, both low 16 bits; a count is halved for each window that has
	 * passed. Written without atomics: a lost increment is forgiven. */
	__u32 cell[TG_SKETCH_ROWS * TG_SKETCH_COLS];
};
_Static_assert(sizeof(struct tg_sketch_block) == 64, "one cache line");

/* ---- what happened ---- */

/* X(id, program, name, help): verdicts_total{program,reason}, and the index into `verdicts`. */
#define TG_VERDICTS(X)                                                                             \
	X(ADMIT_OPEN, "admit", "open", "SYNs admitted by an open gate")                            \
	X(ADMIT_PACED, "admit", "paced", "SYNs admitted within the rate")                          \
	X(ADMIT_ALLOWED, "admit", "allowed", "SYNs of the allow list")                             \
	X(ADMIT_MALFORMED, "admit", "malformed",                                                   \
		"SYNs with an impossible header, left to the kernel's TCP")                        \
	X(DROP_DENYLIST, "admit", "deny", "SYNs refused by the deny list")                         \
	X(DROP_PENALTY, "admit", "penalty", "SYNs refused because their prefix is in the box")     \
	X(DROP_FLOOD, "admit", "flood", "SYNs above the limit of one source prefix")               \
	X(DROP_SHUT, "admit", "shut", "SYNs refused by a shut gate")                               \
	X(DROP_PERMITS, "admit", "permits", "SYNs refused since too many wait to be served")       \
	X(DROP_RATE, "admit", "rate", "SYNs above the gate's rate")                                \
	X(DROP_NEWCOMER, "admit", "newcomer",                                                      \
		"SYNs of unproven prefixes above what proven ones leave of the rate")              \
	X(DROP_SHARE, "admit", "share", "SYNs of sources above their fair share of the rate")      \
	X(DROP_CONTENDED, "admit", "contended",                                                    \
		"SYNs refused because too many at once moved the rate's clock")                    \
	X(RESET_SENT, "admit", "reset_sent", "Refusals that were answered with RST")               \
	X(RESET_FAILED, "admit", "reset_failed",                                                   \
		"Refusals that could not be answered and were dropped")                            \
	X(COOKIE_SENT, "admit", "cookie_sent", "SYNs answered with a SYN cookie")                  \
	X(COOKIE_FAILED, "admit", "cookie_failed",                                                 \
		"SYN cookies that could not be made: the SYN was judged like any other")           \
	X(COOKIE_ACCEPTED, "admit", "cookie_accepted",                                             \
		"ACKs that answered a SYN cookie and were let in")                                 \
	X(EVENT_SENT, "admit", "event_sent", "Events written to the ring buffer")                  \
	X(EVENT_LOST, "admit", "event_lost", "Events lost because the ring buffer was full")       \
	X(STEER_CHOSEN, "steer", "chosen", "Connections given to the less delayed of two workers") \
	X(STEER_HASH, "steer", "hash",                                                             \
		"Connections spread by hash: no worker is known to take them")                     \
	X(STEER_MIGRATED, "steer", "migrated", "Requests moved from a listener that went away")    \
	X(STEER_HUNG, "steer", "hung", "Connections refused because every worker hangs")           \
	X(STEER_NO_SOCKET, "steer", "no_socket",                                                   \
		"Choices that had no socket and fell back to the hash")                            \
	X(LOOKUP_ASSIGNED, "steer", "assigned", "Packets given to a listener by sk_lookup")        \
	X(LOOKUP_FAILED, "steer", "assign_failed",                                                 \
		"Packets whose listener was not there: refused")                                   \
	X(TRACK_ESTABLISHED, "track", "established", "TCP handshakes completed")                   \
	X(TRACK_CLOSED, "track", "closed", "Connections that ended")                               \
	X(TRACK_PENALTY_CHURN, "track", "penalty_churn", "Prefixes put into the box for churn")    \
	X(TRACK_PENALTY_OPEN, "track", "penalty_concurrency",                                      \
		"Prefixes put into the box for too many open connections")                         \
	X(TRACK_SOURCES_FULL, "track", "sources_failed",                                           \
		"Sources that found no entry: they stay unproven")                                 \
	X(TRACK_OPEN_FULL, "track", "open_failed",                                                 \
		"Connections not counted as open: their concurrency is not limited")               \
	X(TRACK_PENALTY_FULL, "track", "penalty_failed", "Penalties that found no entry")          \
	X(TRACK_CLOSED_UNKNOWN, "track", "closed_unknown",                                         \
		"Connections that ended and were not in the count of their source")                \
	X(TRACK_ABANDONED, "track", "abandoned",                                                   \
		"Connections that ended in the accept queue because their listener went away")

#define X(id, ...) TG_##id,
enum tg_verdict {
	TG_VERDICTS(X) TG_VERDICT_COUNT
};
#undef X

/* Map `verdicts`, per-CPU array[TG_VERDICT_COUNT], index enum tg_verdict. All programs; metrics. */
struct tg_verdict_count {
	__u64 packets;  /* it was done */
	__u64 observed; /* it would have been done, but for observe mode */
};
_Static_assert(sizeof(struct tg_verdict_count) == 16, "no padding");

/* Map `events`, ring buffer. admit, track; the daemon's log. Limited to settings.event_interval_ns.
 */
struct tg_event {
	__u64 time_ns;
	__u64 held;      /* refusals that this CPU sent no event for since its last one */
	__u32 verdict;   /* enum tg_verdict */
	__u32 observed;  /* 1: observe mode, nothing was refused */
	__u8 source[16]; /* the address; IPv4 as in tg_lpm_key; penalties: the prefix, zero-filled
			  */
	__u8 source_len; /* bits: 128, or those of the prefix (IPv4: 32 + n) */
	__u8 zero;
	__u16 port;     /* the gateway's; 0: none in particular */
	__u32 ifindex;  /* 0: none */
	__u64 until_ns; /* penalties: their end; 0 else */
};
_Static_assert(sizeof(struct tg_event) == 56, "no padding");

/* Map `listeners`, SOCKMAP: index = (listener * settings.workers + worker) * settings.rings + ring.
 * The daemon; steer (reuseport and sk_lookup), admit (cookies). */
static inline __u32 tg_listener_index(
	const struct tg_settings *s, __u32 listener, __u32 worker, __u32 ring)
{
	return (listener * s->workers + worker) * s->rings + ring;
}

/* ---- delays, as the kernel sees them ---- */

enum {
	/* Log-linear buckets, 8 an octave, as in user/base/hist.h: 496 cover all of 64 bits. */
	TG_HIST_SUB_BITS = 3,
	TG_HIST_BUCKETS = (64 - TG_HIST_SUB_BITS + 1) << TG_HIST_SUB_BITS,

	TG_SCHED_SHARE_ALL = 65536, /* tg_sched.share: every socket */

	TG_READY_PLACES = 8192, /* entries of `ready`; a power of two */
};

/* Map `sched`, array[1], mmapable, read at every event and written hardly ever. All zero: nothing
 * is measured, and no socket holds storage for it. */
struct tg_sched {
	/* Sockets of TG_SCHED_SHARE_ALL whose wake delay is taken; 0: none. The keeper, when it
	 * switches; the gateway raises it while it has few connections. */
	__u32 share;
	__u32 least_share; /* what the keeper switched to; 0: the programs are not attached */
	__u32 run;         /* 1: the workers' waits for a CPU are taken. The keeper */
	__u32 switches;    /* how often it was switched. The keeper, last */
	/* When that was, or when share was last changed: what became ready earlier is forgotten,
	 * since nobody may have seen it being received. */
	__u64 since_ns;
	/* The workers, each its own: threads of one process, as the first PID namespace numbers
	 * them; 0: none. A copy of what worker_load says, on lines that nobody writes. */
	__u32 tgid;
	__u32 seed; /* of tg_ready_hash(), so that no client can aim at being measured or not */
	__u32 tid[TG_WORKERS_MAX];
};
_Static_assert(sizeof(struct tg_sched) == 32 + 4 * TG_WORKERS_MAX, "no padding");

/* One writer at a time, plain stores: readers see values slightly apart. Nanoseconds. */
struct tg_hist {
	__u64 count, sum;
	__u64 min; /* nothing, while count is 0 */
	__u64 max;
	__u64 bucket[TG_HIST_BUCKETS];
};
_Static_assert(sizeof(struct tg_hist) == 32 + 8 * TG_HIST_BUCKETS, "no padding");

/* Map `delays`, array[TG_WORKERS_MAX], index as in worker_load, mmapable. sched; metrics, tools.
 * They grow for ever, over restarts of the gateway, too. */
struct tg_delays {
	/* Of each time that the worker's thread waited for a CPU, by the kernel's own accounting
	 * (sched_info); counted when the thread leaves the CPU again. */
	struct tg_hist run;
	/* sched's own: whose waits these are, since when, and how much of them is in the histogram.
	 */
	__u64 run_since_ns, run_seen_ns;
	__u32 run_tid, zero;
};
_Static_assert(sizeof(struct tg_delays) == sizeof(struct tg_hist) + 24, "no padding");

/* Map `ready`, array[TG_READY_PLACES], mmapable, index tg_ready_hash() % TG_READY_PLACES: the
 * sampled sockets that are readable now, and since when. sched fills a place; the worker that has
 * received from the socket frees it. Two sockets may want one place: the second is then not
 * measured. Both sides may write at the same time, and lose the one or the other measurement by it;
 * a place that nobody freed is taken by the next socket of the same peer at once, by others after
 * ten seconds. */
struct tg_ready {
	__u64 since_ns; /* 0: free */
	__u64 cookie;   /* of the socket: sched's own */
	__u32 key;      /* tg_ready_key() of its peer */
	__u32 zero;
	__u64 zero1;
};
_Static_assert(sizeof(struct tg_ready) == 32, "two in a cache line");

/* Of the peer's port, which the kernel has at hand when nothing else is. */
static inline __u16 tg_ready_hash(__be16 port, __u32 seed)
{
	__u32 h = (port ^ seed) * 0x9e3779b1u;

	return (__u16)((h ^ h >> 15) * 0x85ebca6bu >> 16);
}

/* Tells those of one hash apart: by address, IPv4 mapped, in network order. */
static inline __u32 tg_ready_key(__u32 a, __u32 b, __u32 c, __u32 d)
{
	return a ^ b ^ c ^ d;
}

/* share as in tg_sched. */
static inline int tg_ready_sampled(__u16 hash, __u32 share)
{
	return hash >= TG_SCHED_SHARE_ALL - share;
}

/* Map `meta`, array[1]. The keeper, once the rest is in place; every next start, tools. */
struct tg_meta {
	__u32 abi; /* TG_ABI_VERSION */
	__u32 zero;
	__u64 generation; /* of the configuration; grows at each load */
	__u64 created_s;  /* CLOCK_REALTIME, seconds */
	char version[24]; /* tidegate's, for people */
	char boot_id[40]; /* /proc/sys/kernel/random/boot_id, without the newline */
};
_Static_assert(sizeof(struct tg_meta) == 88, "no padding");

#endif
