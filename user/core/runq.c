#include "core/runq.h"

#include <assert.h>
#include <string.h>

/* A turn is held to 200 us (design); one that seems to have taken longer than this was a stopped
 * process or a suspended machine, and its class must not starve for it. */
#define COST_MAX_NS (100 * 1000 * 1000LL)

void runq_init(struct runq *q, const uint64_t quantum_ns[RUNQ_CLASSES])
{
	memset(q, 0, sizeof(*q));
	for (unsigned c = 0; c < RUNQ_CLASSES; c++) {
		q->tail[c] = &q->head[c];
		q->quantum_ns[c] = quantum_ns[c];
	}
}

void runq_push(struct runq *q, struct runq_item *it, enum runq_class class_, uint32_t now_us)
{
	assert((unsigned)class_ < RUNQ_CLASSES);
	if (it->queued)
		return;
	it->next = NULL;
	it->class_ = (uint8_t)class_;
	it->queued = true;
	it->wake = 0;
	it->since_us = now_us;
	*q->tail[class_] = it;
	q->tail[class_] = &it->next;
	q->len[class_]++;
	q->total++;
}

/* *link is an item of class c. */
static struct runq_item *unlink_item(struct runq *q, unsigned c, struct runq_item **link)
{
	struct runq_item *it = *link;

	*link = it->next;
	if (q->tail[c] == &it->next)
		q->tail[c] = link;
	it->next = NULL;
	it->queued = false;
	q->len[c]--;
	q->total--;
	return it;
}

void runq_remove(struct runq *q, struct runq_item *it)
{
	if (!it->queued)
		return;
	struct runq_item **link = &q->head[it->class_];
	while (*link && *link != it)
		link = &(*link)->next;
	assert(*link); /* queued elsewhere */
	unlink_item(q, it->class_, link);
}

/* The owner may change quanta at run time; none at all must still not starve a class. */
static int64_t quantum(const struct runq *q, unsigned c)
{
	return q->quantum_ns[c] ? (int64_t)q->quantum_ns[c] : 1;
}

/* How many rounds until a class with items may run again: a debt of many quanta costs no loop. */
static int64_t rounds_to_go(const struct runq *q)
{
	int64_t least = INT64_MAX;

	for (unsigned c = 0; c < RUNQ_CLASSES; c++) {
		if (!q->head[c])
			continue;
		int64_t rounds = -q->deficit_ns[c] / quantum(q, c) + 1;
		if (rounds < least)
			least = rounds;
	}
	return least;
}

/* Costs are known only afterwards, so deficits may be negative. An empty class works off its debt
 * as rounds go by, or one costly item at a time would go free, and has its quantum of a round when
 * items come in the middle of it; but it saves up no more than that. */
static void grant(struct runq *q, int64_t rounds)
{
	for (unsigned c = 0; c < RUNQ_CLASSES; c++) {
		int64_t each = quantum(q, c);

		if (!q->head[c] && (each - q->deficit_ns[c]) / each <= rounds)
			q->deficit_ns[c] = each;
		else
			q->deficit_ns[c] += rounds * each;
	}
}

struct runq_item *runq_peek(struct runq *q)
{
	if (!q->total)
		return NULL;
	for (;;) {
		for (unsigned c = 0; c < RUNQ_CLASSES; c++)
			if (q->head[c] && q->deficit_ns[c] > 0)
				return q->head[c];
		grant(q, rounds_to_go(q));
	}
}

struct runq_item *runq_pop(struct runq *q)
{
	struct runq_item *it = runq_peek(q);

	return it ? unlink_item(q, it->class_, &q->head[it->class_]) : NULL;
}

void runq_charge(struct runq *q, enum runq_class class_, uint64_t cost_ns)
{
	assert((unsigned)class_ < RUNQ_CLASSES);
	q->deficit_ns[class_] -= cost_ns < COST_MAX_NS ? (int64_t)cost_ns : COST_MAX_NS;
}
