/* A message as it goes over the wire, written once and shared by the out queues of one worker: what
 * a publication costs is one frame a worker and a reference a subscriber. Owner thread only: the
 * count is not atomic. */
#ifndef TIDEGATE_BASE_FRAME_H
#define TIDEGATE_BASE_FRAME_H

#include "base/buf.h"

struct frame {
	uint32_t refs;
	uint32_t len;  /* of data */
	uint32_t held; /* bytes it counts for in the pool, once */
	uint64_t key;  /* of two frames with the same key, not 0, the newer one stands for both
			  (policy `conflate`); a topic's */
	uint8_t data[];
};

/* One reference, the caller's; data is uninitialised. NULL: cap reached or no memory. */
struct frame *frame_alloc(struct buf_pool *p, uint64_t key, uint32_t len);

static inline struct frame *frame_ref(struct frame *f)
{
	f->refs++;
	return f;
}

void frame_unref(struct buf_pool *p, struct frame *f); /* NULL is allowed */

#endif
