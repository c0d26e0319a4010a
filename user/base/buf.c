#include "base/buf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	SLAB_CHUNK = 64 * 1024,
};

void buf_pool_init(struct buf_pool *p, uint64_t cap_bytes)
{
	slab_init(&p->tiny, BUF_TINY_BYTES, SLAB_CHUNK, 0);
	slab_init(&p->small, BUF_SMALL_BYTES, SLAB_CHUNK, 0);
	slab_init(&p->medium, BUF_MEDIUM_BYTES, SLAB_CHUNK, 0);
	slab_keep(&p->tiny);
	slab_keep(&p->small);
	slab_keep(&p->medium);
	p->bytes = 0;
	p->cap_bytes = cap_bytes;
}

bool buf_pool_trim(struct buf_pool *p)
{
	bool tiny = slab_trim(&p->tiny), small = slab_trim(&p->small);

	return slab_trim(&p->medium) || tiny || small;
}

void buf_pool_fini(struct buf_pool *p)
{
	slab_fini(&p->tiny);
	slab_fini(&p->small);
	slab_fini(&p->medium);
}

/* The slab for blocks of this size; NULL: malloc. */
static struct slab *slab_of(struct buf_pool *p, uint32_t held)
{
	switch (held) {
	case BUF_TINY_BYTES:
		return &p->tiny;
	case BUF_SMALL_BYTES:
		return &p->small;
	case BUF_MEDIUM_BYTES:
		return &p->medium;
	default:
		return NULL;
	}
}

void *buf_pool_get(struct buf_pool *p, uint64_t bytes, uint32_t *ret_held)
{
	uint64_t limit = p->cap_bytes;
	struct slab *slab;
	void *block;

	if (bytes > UINT32_MAX)
		return NULL;
	if (bytes <= BUF_TINY_BYTES)
		bytes = BUF_TINY_BYTES;
	else if (bytes <= BUF_SMALL_BYTES)
		bytes = BUF_SMALL_BYTES;
	else if (bytes <= BUF_MEDIUM_BYTES)
		bytes = BUF_MEDIUM_BYTES;
	if (bytes > BUF_SMALL_BYTES)
		limit = buf_pool_high(p);
	if (p->bytes + bytes > limit)
		return NULL;
	slab = slab_of(p, (uint32_t)bytes);
	block = slab ? slab_alloc(slab) : malloc(bytes);
	if (!block)
		return NULL;
	p->bytes += bytes;
	*ret_held = (uint32_t)bytes;
	return block;
}

void buf_pool_put(struct buf_pool *p, void *block, uint32_t held)
{
	struct slab *slab = slab_of(p, held);

	p->bytes -= held;
	if (slab)
		slab_free(slab, block);
	else
		free(block);
}

struct buf *buf_alloc(struct buf_pool *p, uint64_t cap)
{
	uint64_t need = cap + sizeof(struct buf);
	uint32_t held;
	struct buf *b = buf_pool_get(p, need < BUF_SMALL_BYTES ? BUF_SMALL_BYTES : need, &held);

	if (!b)
		return NULL;
	b->next = NULL;
	b->off = b->len = 0;
	b->cap = held - (uint32_t)sizeof *b;
	b->held = held;
	return b;
}

void buf_free(struct buf_pool *p, struct buf *b)
{
	if (b)
		buf_pool_put(p, b, b->held);
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
