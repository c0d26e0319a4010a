/* The worker's run queue: classes served by deficit round robin (Shreedhar and Varghese 1995), with
 * one difference: within a round the classes have an order. What comes for an earlier class is
 * served before the later ones go on, as long as its quantum of the round lasts; the shares are the
 * same.
 *
 * An item is queued at most once; within a class the order is FIFO. Worker thread only; allocates
 * nothing. The cost of a turn is what the caller says it was, in nanoseconds. The clock is an
 * argument.
 */
#ifndef TIDEGATE_CORE_RUNQ_H
#define TIDEGATE_CORE_RUNQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* In the order of service within a round. */
enum runq_class {
	RUNQ_CONTROL,     /* close, timers */
	RUNQ_LINKS,       /* one link may carry 100,000 sessions: its quantum grows with them */
	RUNQ_ESTABLISHED, /* I/O of sessions */
	RUNQ_HANDSHAKE,
	RUNQ_FANOUT,
	RUNQ_CLASSES,
};

struct runq_item {
	struct runq_item *next;
	uint8_t class_ : 4;
	uint8_t kind : 3; /* free for the owner; tells what the item is embedded in */
	uint8_t queued : 1;
	uint8_t flags;     /* free for the owner */
	uint16_t wake;     /* what its event had waited before it was received: runq_wake_us; 0: not
			      measured */
	uint32_t since_us; /* when it was pushed, low 32 bits of microseconds: run delay = now -
			      since */
};

struct runq {
	struct runq_item *head[RUNQ_CLASSES];
	struct runq_item **tail[RUNQ_CLASSES];
	uint32_t len[RUNQ_CLASSES];
	uint32_t total; /* runnable items: the metric tidegate_runnable */
	int64_t deficit_ns[RUNQ_CLASSES];
	uint64_t quantum_ns[RUNQ_CLASSES];
};

/* Microseconds in 16 bits, exact to 1 in 1,024: 11 bits, and by how many they are shifted. Never 0;
 * none at all becomes 1. */
static inline uint16_t runq_wake(uint32_t us)
{
	unsigned bits = 32 - (unsigned)__builtin_clz(us | 1), shift = bits > 11 ? bits - 11 : 0;

	return us ? (uint16_t)(shift << 11 | us >> shift) : 1;
}

static inline uint32_t runq_wake_us(uint16_t wake)
{
	return (uint32_t)(wake & 0x7ff) << (wake >> 11);
}

void runq_init(struct runq *q, const uint64_t quantum_ns[RUNQ_CLASSES]);

/* Queues at the tail of its class, with wake 0; no effect when queued already (since_us then stays
 * the older one). */
void runq_push(struct runq *q, struct runq_item *it, enum runq_class class_, uint32_t now_us);

/* Takes it out of the queue, wherever it is: O(class length), for rare use (a connection that dies
 * while queued may rather stay and be recognised at its turn). */
void runq_remove(struct runq *q, struct runq_item *it);

/* The next item to run, or NULL when all classes are empty: of the first class that has items and
 * something left of its quantum; when none has, a new round begins. A class saves up no more than a
 * quantum. With one class non-empty it is always served. */
struct runq_item *runq_peek(struct runq *q);
/* The same, taken out of its queue. */
struct runq_item *runq_pop(struct runq *q);

/* Charges what the popped item's turn cost to its class. */
void runq_charge(struct runq *q, enum runq_class class_, uint64_t cost_ns);

#endif
