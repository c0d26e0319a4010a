#include "base/frame.h"

#include <assert.h>

struct frame *frame_alloc(struct buf_pool *p, uint64_t key, uint32_t len)
{
	uint32_t held;
	struct frame *f = buf_pool_get(p, (uint64_t)len + sizeof *f, &held);

	if (!f)
		return NULL;
	f->refs = 1;
	f->len = len;
	f->held = held;
	f->key = key;
	return f;
}

void frame_unref(struct buf_pool *p, struct frame *f)
{
	if (!f)
		return;
	assert(f->refs);
	if (--f->refs == 0)
		buf_pool_put(p, f, f->held);
}
