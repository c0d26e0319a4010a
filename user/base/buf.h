/* Byte buffers of a worker: queued output, partial messages, partial request heads.
 *
 * Small ones come from slabs, large ones from malloc; all count towards one cap per worker, and
 * only small ones get the last sixteenth of it: who has next to nothing queued goes on when the
 * greedy are refused. Buffers, frames (base/frame.h) and items of out queues (net/outq.h) share the
 * pool. Owner thread only.
 */
#ifndef TIDEGATE_BASE_BUF_H
#define TIDEGATE_BASE_BUF_H

#include <stdbool.h>
#include <stdint.h>

#include "base/slab.h"

enum {
	BUF_TINY_BYTES = 48,   /* a reference to a shared frame */
	BUF_SMALL_BYTES = 256, /* with its header: a handful of small frames */
	BUF_MEDIUM_BYTES = 4096,
};

struct buf {
	struct buf *next;
	uint32_t off, len; /* the bytes in use are data[off .. off + len) */
	uint32_t cap;      /* of data */
	uint32_t held;     /* bytes this buffer counts for */
	uint8_t data[];
};

struct buf_pool {
	struct slab tiny, small, medium;
	uint64_t bytes, cap_bytes;
};

/* What a pool is made of: a block of at least `bytes` (up to 4 GiB - 1), uninitialised, or NULL:
 * cap reached or no memory. *ret_held is its size, to be handed back with it. */
void *buf_pool_get(struct buf_pool *p, uint64_t bytes, uint32_t *ret_held);
void buf_pool_put(struct buf_pool *p, void *block, uint32_t held);

/* Above it only small blocks are to be had: who holds much is to be relieved of it. */
static inline uint64_t buf_pool_high(const struct buf_pool *p)
{
	return p->cap_bytes - p->cap_bytes / 16;
}

void buf_pool_init(struct buf_pool *p, uint64_t cap_bytes);
/* Small blocks come and go by the hundred each turn: their memory is kept, and given back by calls
 * of this, now and then, of which each gives back what was not needed since the one before. True:
 * there may be more to give back, later. */
bool buf_pool_trim(struct buf_pool *p);
/* Memory is kept that a trim may give back. */
static inline bool buf_pool_trimmable(const struct buf_pool *p)
{
	return (p->tiny.spares > 1) | (p->small.spares > 1) | (p->medium.spares > 1);
}
/* Every buffer must have been freed. */
void buf_pool_fini(struct buf_pool *p);

/* An empty buffer with room for at least cap bytes (up to 4 GiB - 64), or NULL: cap reached or no
 * memory. */
struct buf *buf_alloc(struct buf_pool *p, uint64_t cap);
void buf_free(struct buf_pool *p, struct buf *b); /* NULL is allowed */

static inline uint32_t buf_room(const struct buf *b)
{
	return b->cap - b->off - b->len;
}

static inline uint8_t *buf_end(struct buf *b)
{
	return b->data + b->off + b->len;
}

/* Appends to *b, which may be NULL, moving it to a larger buffer when needed (it doubles, up to
 * max_bytes of content). 0, -EMSGSIZE above max_bytes, -ENOMEM; on failure *b is untouched. */
int buf_append(
	struct buf_pool *p, struct buf **b, const void *data, uint32_t len, uint64_t max_bytes);

#endif
