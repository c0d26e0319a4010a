#include "base/buf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	SLAB_CHUNK = 64 * 1024,
	SMALL_SHARE = 16, /* one part in so many of the cap is left to small buffers */
};

void buf_pool_init(struct buf_pool *p, uint64_t cap_bytes)
{
	slab_init(&p->small, BUF_SMALL_BYTES, SLAB_CHUNK, 0);
	slab_init(&p->medium, BUF_MEDIUM_BYTES, SLAB_CHUNK, 0);
	p->bytes = 0;
	p->cap_bytes = cap_bytes;
}

void buf_pool_fini(struct buf_pool *p)
{
	slab_fini(&p->small);
	slab_fini(&p->medium);
}

struct buf *buf_alloc(struct buf_pool *p, uint64_t cap)
{
	uint64_t need = cap + sizeof(struct buf), limit = p->cap_bytes;
	struct buf *b;

	if (need > UINT32_MAX)
		return NULL;
	if (need <= BUF_SMALL_BYTES)
		need = BUF_SMALL_BYTES;
	else if (need <= BUF_MEDIUM_BYTES)
		need = BUF_MEDIUM_BYTES;
	if (need > BUF_SMALL_BYTES)
		limit -= limit / SMALL_SHARE;
	if (p->bytes + need > limit)
		return NULL;
	if (need == BUF_SMALL_BYTES)
		b = slab_alloc(&p->small);
	else if (need == BUF_MEDIUM_BYTES)
		b = slab_alloc(&p->medium);
	else
		b = malloc(need);
	if (!b)
		return NULL;
	p->bytes += need;
	b->next = NULL;
	b->off = b->len = 0;
	b->cap = (uint32_t)(need - sizeof(struct buf));
	b->held = (uint32_t)need;
	return b;
}

void buf_free(struct buf_pool *p, struct buf *b)
{
	if (!b)
		return;
	p->bytes -= b->held;
	if (b->held == BUF_SMALL_BYTES)
		slab_free(&p->small, b);
	else if (b->held == BUF_MEDIUM_BYTES)
		slab_free(&p->medium, b);
	else
		free(b);
}

int buf_append(
	struct buf_pool *p, struct buf **b, const void *data, uint32_t len, uint64_t max_bytes)
{
	struct buf *old = *b, *new = old;
	uint64_t total = (old ? old->len : 0) + (uint64_t)len;

	if (total > max_bytes)
		return -EMSGSIZE;
	if (!old || buf_room(old) < len) {
		uint64_t want =
			old && 2 * (uint64_t)old->len > total ? 2 * (uint64_t)old->len : total;

		new = buf_alloc(p, want > max_bytes ? max_bytes : want);
		if (!new)
			return -ENOMEM;
		if (old) {
			memcpy(new->data, old->data + old->off, old->len);
			new->len = old->len;
			buf_free(p, old);
		}
		*b = new;
	}
	if (len)
		memcpy(buf_end(new), data, len);
	new->len += len;
	return 0;
}
