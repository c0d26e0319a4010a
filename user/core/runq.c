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
	q->deficit_ns[q->turn] = (int64_t)quantum_ns[q->turn];
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

/* Costs are known only afterwards, so deficits may be negative. An empty class works off its debt
 * as rounds go by, or one costly item at a time would go free, but collects no credit. */
static void grant(struct runq *q, unsigned c, int64_t rounds)
{
	if (!q->head[c] && -q->deficit_ns[c] / quantum(q, c) < rounds)
		q->deficit_ns[c] = 0;
	else
		q->deficit_ns[c] += rounds * quantum(q, c);
}

/* Rounds in which no class could be served, taken at once: a debt of many quanta costs no loop. */
static void skip_barren_rounds(struct runq *q)
{
	int64_t barren = INT64_MAX;

	for (unsigned c = 0; c < RUNQ_CLASSES; c++) {
		if (!q->head[c])
			continue;
		if (q->deficit_ns[c] > 0)
			return;
		int64_t rounds = -q->deficit_ns[c] / quantum(q, c);
		if (rounds < barren)
			barren = rounds;
	}
	if (!barren)
		return;
	for (unsigned c = 0; c < RUNQ_CLASSES; c++)
		grant(q, c, barren);
}

struct runq_item *runq_pop(struct runq *q)
{
	if (!q->total) {
		if (q->deficit_ns[q->turn] > 0)
			q->deficit_ns[q->turn] = 0;
		return NULL;
	}
	if (!q->head[q->turn] || q->deficit_ns[q->turn] <= 0)
		skip_barren_rounds(q);
	while (!q->head[q->turn] || q->deficit_ns[q->turn] <= 0) {
		if (q->deficit_ns[q->turn] > 0)
			q->deficit_ns[q->turn] = 0;
		q->turn = (q->turn + 1) % RUNQ_CLASSES;
		grant(q, q->turn, 1);
	}
	return unlink_item(q, q->turn, &q->head[q->turn]);
}

void runq_charge(struct runq *q, enum runq_class class_, uint64_t cost_ns)
{
	assert((unsigned)class_ < RUNQ_CLASSES);
	q->deficit_ns[class_] -= cost_ns < COST_MAX_NS ? (int64_t)cost_ns : COST_MAX_NS;
}
