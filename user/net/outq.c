#include "net/outq.h"

#include <assert.h>
#include <string.h>

enum {
	/* Behind a first item there is a backlog: fewer and larger ones, which the worker's cap
	 * refuses first. */
	BACKLOG_BYTES = BUF_MEDIUM_BYTES - sizeof(struct outq_item),
};

static void append(struct outq_item **tail, struct outq_item *it)
{
	it->total = outq_messages(*tail) + it->messages;
	if (*tail) {
		it->next = (*tail)->next;
		(*tail)->next = it;
	} else {
		it->next = it;
	}
	*tail = it;
}

static void item_free(struct buf_pool *p, struct outq_item *it)
{
	frame_unref(p, it->frame);
	buf_pool_put(p, it, it->held);
}

/* Takes the item after prev out and frees it. */
static void remove_after(struct buf_pool *p, struct outq_item **tail, struct outq_item *prev)
{
	struct outq_item *it = prev->next;
	uint32_t total = (*tail)->total - it->messages;

	if (it == prev) {
		*tail = NULL;
	} else {
		prev->next = it->next;
		if (*tail == it)
			*tail = prev;
		(*tail)->total = total;
	}
	item_free(p, it);
}

/* Control frames and messages do not share an item: only the latter may be dropped. */
static bool fits(const struct outq_item *it, size_t len, unsigned messages)
{
	return !it->frame && it->cap - it->off - it->len >= len &&
	       (messages ? it->messages && !it->pinned && it->messages < OUTQ_MESSAGES_MAX
			 : !it->messages);
}

uint8_t *outq_room(struct buf_pool *p, struct outq_item **tail, size_t len, unsigned messages)
{
	struct outq_item *it = *tail;
	uint8_t *at;

	if (!it || !fits(it, len, messages)) {
		size_t want = it && len < BACKLOG_BYTES && messages ? BACKLOG_BYTES : len;
		uint32_t held;

		it = buf_pool_get(p, want + sizeof *it, &held);
		if (!it)
			return NULL;
		*it = (struct outq_item){.cap = held - (uint32_t)sizeof *it, .held = held};
		append(tail, it);
	}
	at = it->data + it->off + it->len;
	it->len += (uint32_t)len;
	it->messages += (uint16_t)messages;
	(*tail)->total += messages;
	return at;
}

bool outq_add(struct buf_pool *p, struct outq_item **tail, struct frame *f)
{
	uint32_t held;
	struct outq_item *it = buf_pool_get(p, sizeof *it, &held);

	if (!it)
		return false;
	*it = (struct outq_item){.frame = frame_ref(f), .len = f->len, .held = held, .messages = 1};
	append(tail, it);
	return true;
}

void outq_consume(struct buf_pool *p, struct outq_item **tail, uint32_t n)
{
	struct outq_item *it;
	uint32_t take;

	while (*tail) {
		it = (*tail)->next;
		take = n < it->len ? n : it->len;
		it->off += take;
		it->len -= take;
		n -= take;
		if (it->len)
			break;
		remove_after(p, tail, *tail);
	}
	assert(n == 0);
	/* What the kernel did not take may be left out again, but not the rest of what it took in
	 * part. */
	it = outq_head(*tail);
	if (!it)
		return;
	it->pinned = it->off > 0;
	for (; it != *tail && it->next->pinned; it = it->next)
		it->next->pinned = 0;
}

static bool droppable(const struct outq_item *it)
{
	return it->messages && !it->pinned;
}

struct outq_dropped outq_drop_oldest(struct buf_pool *p, struct outq_item **tail, uint64_t bytes,
	uint64_t max_bytes, uint32_t max_messages)
{
	struct outq_dropped d = {0, 0};
	struct outq_item *prev = *tail, *last = *tail;

	while (*tail && (bytes > max_bytes || outq_messages(*tail) > max_messages)) {
		struct outq_item *it = prev->next;
		bool end = it == last;

		if (droppable(it)) {
			bytes -= it->len;
			d.bytes += it->len;
			d.messages += it->messages;
			remove_after(p, tail, prev);
		} else {
			prev = it;
		}
		if (end)
			break;
	}
	return d;
}

/* The newest item of each key, in a small open table. */
struct newest {
	uint64_t key[OUTQ_CONFLATE_KEYS * 2];
	const struct outq_item *item[OUTQ_CONFLATE_KEYS * 2];
	unsigned n;
};

/* The key's place, or NULL when the table is full. */
static const struct outq_item **newest_of(struct newest *t, uint64_t key)
{
	unsigned size = OUTQ_CONFLATE_KEYS * 2;
	unsigned i = (unsigned)((key * UINT64_C(0x9e3779b97f4a7c15)) >> 32) % size;

	while (t->key[i] && t->key[i] != key)
		i = (i + 1) % size;
	if (!t->key[i]) {
		if (t->n == OUTQ_CONFLATE_KEYS)
			return NULL;
		t->key[i] = key;
		t->n++;
	}
	return &t->item[i];
}

struct outq_dropped outq_conflate(struct buf_pool *p, struct outq_item **tail, uint64_t key)
{
	struct outq_dropped d = {0, 0};
	struct outq_item *prev = *tail, *last = *tail, *it;
	const struct outq_item **place;
	struct newest t = {.n = 0};
	bool end;

	if (!*tail)
		return d;
	it = *tail;
	do {
		it = it->next;
		place = it->frame && it->frame->key ? newest_of(&t, it->frame->key) : NULL;
		if (place)
			*place = it;
	} while (it != last);
	/* The one to be added is newer than all. */
	place = key ? newest_of(&t, key) : NULL;
	if (place)
		*place = NULL;
	do {
		it = prev->next;
		end = it == last;
		place = it->frame && it->frame->key ? newest_of(&t, it->frame->key) : NULL;
		if (place && *place != it && droppable(it)) {
			d.bytes += it->len;
			d.messages += it->messages;
			remove_after(p, tail, prev);
		} else {
			prev = it;
		}
	} while (!end);
	return d;
}

void outq_clear(struct buf_pool *p, struct outq_item **tail)
{
	while (*tail)
		remove_after(p, tail, *tail);
}
