#include "core/mailbox.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

enum {
	CACHE_LINE = 64,
	CAPACITY_MAX = 65536,
};

/* A cell's sequence says whose turn it is: position p may be written when it is p, read when it is
 * p + 1, and is handed to the next lap as p + capacity. */
struct cell {
	_Atomic uint64_t sequence;
	struct mailbox_msg msg;
};

struct mailbox {
	/* Producers' line. */
	_Alignas(CACHE_LINE) _Atomic uint64_t push_at;
	/* Consumer's line. */
	_Alignas(CACHE_LINE) uint64_t pop_at;
	/* Read by producers at every message, written only around a sleep. */
	_Alignas(CACHE_LINE) _Atomic bool sleeping;
	_Alignas(CACHE_LINE) uint64_t mask;
	struct cell cell[];
};

int mailbox_create(unsigned capacity, struct mailbox **ret)
{
	if (capacity < 2 || capacity > CAPACITY_MAX || (capacity & (capacity - 1)))
		return -EINVAL;
	size_t bytes = sizeof(struct mailbox) + capacity * sizeof(struct cell);
	bytes = (bytes + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1);
	struct mailbox *m = aligned_alloc(CACHE_LINE, bytes);
	if (!m)
		return -ENOMEM;
	atomic_init(&m->push_at, 0);
	m->pop_at = 0;
	atomic_init(&m->sleeping, false);
	m->mask = capacity - 1;
	for (unsigned i = 0; i < capacity; i++)
		atomic_init(&m->cell[i].sequence, i);
	*ret = m;
	return 0;
}

void mailbox_destroy(struct mailbox *m)
{
	free(m);
}

/* The sleep protocol is Dekker's: the producer publishes and then looks at `sleeping`, the consumer
 * sets `sleeping` and then looks for a message; at least one must see the other. That takes
 * sequential consistency on all four accesses (the store here, the loads in mailbox_ready and
 * mailbox_take_wake, the store in mailbox_sleep), which costs what a fence would and, unlike one,
 * can be checked by the thread sanitizer. */
int mailbox_push(struct mailbox *m, const struct mailbox_msg *msg)
{
	uint64_t at = atomic_load_explicit(&m->push_at, memory_order_relaxed);
	struct cell *cell;

	for (;;) {
		cell = &m->cell[at & m->mask];
		uint64_t sequence = atomic_load_explicit(&cell->sequence, memory_order_acquire);
		if (sequence == at) {
			if (atomic_compare_exchange_weak_explicit(&m->push_at, &at, at + 1,
				    memory_order_relaxed, memory_order_relaxed))
				break;
		} else if ((int64_t)(sequence - at) < 0) {
			return -EAGAIN; /* still holds the message of the lap before */
		} else {
			at = atomic_load_explicit(&m->push_at, memory_order_relaxed);
		}
	}
	cell->msg = *msg;
	atomic_store_explicit(&cell->sequence, at + 1, memory_order_seq_cst);
	return 0;
}

bool mailbox_ready(const struct mailbox *m)
{
	const struct cell *cell = &m->cell[m->pop_at & m->mask];

	return atomic_load_explicit(&cell->sequence, memory_order_seq_cst) == m->pop_at + 1;
}

bool mailbox_pop(struct mailbox *m, struct mailbox_msg *ret)
{
	struct cell *cell = &m->cell[m->pop_at & m->mask];

	if (atomic_load_explicit(&cell->sequence, memory_order_acquire) != m->pop_at + 1)
		return false;
	*ret = cell->msg;
	atomic_store_explicit(&cell->sequence, m->pop_at + m->mask + 1, memory_order_release);
	m->pop_at++;
	return true;
}

void mailbox_sleep(struct mailbox *m)
{
	atomic_store_explicit(&m->sleeping, true, memory_order_seq_cst);
}

void mailbox_awake(struct mailbox *m)
{
	atomic_store_explicit(&m->sleeping, false, memory_order_seq_cst);
}

bool mailbox_take_wake(struct mailbox *m)
{
	/* The load keeps the line shared while nobody sleeps; the exchange picks one of several
	 * wakers. */
	return atomic_load_explicit(&m->sleeping, memory_order_seq_cst) &&
	       atomic_exchange_explicit(&m->sleeping, false, memory_order_seq_cst);
}
