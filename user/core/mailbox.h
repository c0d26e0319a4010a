/* A bounded multi-producer, single-consumer queue of small messages between threads (Vyukov's
 * bounded queue).
 *
 * Producers: any thread. Consumer: the owning worker. A full mailbox refuses (-EAGAIN): the
 * producer's job waits, never a worker. No lock, no allocation after init. FIFO per producer.
 */
#ifndef TIDEGATE_CORE_MAILBOX_H
#define TIDEGATE_CORE_MAILBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mailbox_msg {
	uint32_t kind; /* the receiver's business */
	uint32_t arg;
	uint64_t a, b;
	void *ptr; /* ownership moves with the message */
};

struct mailbox;

/* capacity: a power of two, 2..65536. -EINVAL, -ENOMEM. */
int mailbox_create(unsigned capacity, struct mailbox **ret);
/* Messages still inside are dropped; their owner drains first. NULL is allowed. */
void mailbox_destroy(struct mailbox *m);

/* 0, or -EAGAIN when full. Release semantics: what was written before is seen by the consumer. */
int mailbox_push(struct mailbox *m, const struct mailbox_msg *msg);

/* True and *ret when there was one. Consumer thread only. */
bool mailbox_pop(struct mailbox *m, struct mailbox_msg *ret);

/* True when a message may be waiting. Consumer thread only. */
bool mailbox_ready(const struct mailbox *m);

/* Sleep protocol, so that producers wake only sleepers: the consumer calls mailbox_sleep (seq_cst),
 * then checks mailbox_ready once more, waits, then mailbox_awake. mailbox_push's caller asks
 * mailbox_take_wake: true for exactly one producer per sleep, who then owes the wake-up. */
void mailbox_sleep(struct mailbox *m);
void mailbox_awake(struct mailbox *m);
bool mailbox_take_wake(struct mailbox *m);

#endif
