/* The out queue of a connection: what is to be sent, in order, and what may be left out of it.
 *
 * Items hold bytes of their own (several small messages may share one) or refer to a frame that
 * stands in other queues as well. An item is dropped whole or not at all, and only while none of
 * its bytes has been handed to the kernel: never in the middle of a message. A queue is a pointer
 * to its last item, NULL when empty. No I/O; worker thread only.
 */
#ifndef TIDEGATE_NET_OUTQ_H
#define TIDEGATE_NET_OUTQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/frame.h"

struct outq_item {
	struct outq_item *next; /* the last one's is the first */
	struct frame *frame;    /* the bytes; NULL: data */
	uint32_t off, len;      /* what is still to be sent */
	uint32_t cap, held;     /* of data; of the pool */
	uint16_t messages;      /* whole messages inside; 0: control, which is never dropped */
	uint16_t pinned;        /* handed to the kernel, at least in part */
	uint32_t total;         /* the last item: messages of the whole queue */
	uint8_t data[];
};

_Static_assert(sizeof(struct outq_item) <= BUF_TINY_BYTES, "a reference fits a tiny block");

enum {
	OUTQ_CONFLATE_KEYS = 256, /* keys told apart in one pass; frames of further ones are kept */
	OUTQ_MESSAGES_MAX = 65535,
};

static inline struct outq_item *outq_head(const struct outq_item *tail)
{
	return tail ? tail->next : NULL;
}

static inline const uint8_t *outq_bytes(const struct outq_item *it)
{
	return (it->frame ? it->frame->data : it->data) + it->off;
}

static inline uint32_t outq_messages(const struct outq_item *tail)
{
	return tail ? tail->total : 0;
}

/* Room for len bytes at the end, of one message or of control frames (messages 0), or NULL. */
uint8_t *outq_room(struct buf_pool *p, struct outq_item **tail, size_t len, unsigned messages);

/* One message, by a reference of its own to f. False without memory. */
bool outq_add(struct buf_pool *p, struct outq_item **tail, struct frame *f);

/* Takes n bytes that were sent off the front. */
void outq_consume(struct buf_pool *p, struct outq_item **tail, uint32_t n);

/* What a drop took away. */
struct outq_dropped {
	uint32_t bytes, messages;
};

/* Drops droppable items, the oldest first, until the rest is at most max_bytes and max_messages;
 * stops early when only others are left. bytes: of the whole queue now. */
struct outq_dropped outq_drop_oldest(struct buf_pool *p, struct outq_item **tail, uint64_t bytes,
	uint64_t max_bytes, uint32_t max_messages);

/* Drops each droppable frame that a newer one of the same key follows, the frame about to be added
 * (key; 0: none) included. */
struct outq_dropped outq_conflate(struct buf_pool *p, struct outq_item **tail, uint64_t key);

/* Drops everything, sent or not. */
void outq_clear(struct buf_pool *p, struct outq_item **tail);

#endif
