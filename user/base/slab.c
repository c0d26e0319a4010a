#include "base/slab.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#define SLAB_ASAN 1
#else
#define SLAB_ASAN                         0
#define ASAN_POISON_MEMORY_REGION(p, n)   ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define __asan_address_is_poisoned(p)     ((void)(p), 0)
#endif

enum {
	OBJECT_ALIGN = 16,
	CACHE_LINE = 64,
};

struct free_object {
	struct free_object *next;
};

/* At the start of each chunk; objects find it by masking their address. In use: `used` objects; the
 * others are on the free list or, never touched yet, at or after `fresh`. */
struct slab_chunk {
	_Alignas(CACHE_LINE) struct slab_chunk *next;
	struct slab_chunk **pprev;
	struct slab *owner;
	struct free_object *free;
	unsigned used, fresh;
};

/* Under the address sanitizer chunks come from malloc, since the leak check does not look into
 * mappings and would call everything leaked that only an object points to. */
static void *chunk_map(size_t bytes)
{
	if (SLAB_ASAN)
		return aligned_alloc(bytes, bytes);

	/* The kernel places mappings side by side: after the first, most are aligned by themselves.
	 */
	uint8_t *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	if (((uintptr_t)p & (bytes - 1)) == 0)
		return p;
	munmap(p, bytes);
	p = mmap(NULL, 2 * bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	size_t before = -(uintptr_t)p & (bytes - 1);
	if (before)
		munmap(p, before);
	munmap(p + before + bytes, bytes - before);
	return p + before;
}

static void chunk_unmap(void *p, size_t bytes)
{
	if (SLAB_ASAN) {
		ASAN_UNPOISON_MEMORY_REGION(p, bytes);
		free(p);
		return;
	}
	munmap(p, bytes);
}

static void link_chunk(struct slab_chunk **head, struct slab_chunk *c)
{
	c->next = *head;
	c->pprev = head;
	if (c->next)
		c->next->pprev = &c->next;
	*head = c;
}

static void unlink_chunk(struct slab_chunk *c)
{
	*c->pprev = c->next;
	if (c->next)
		c->next->pprev = c->pprev;
}

void slab_init(struct slab *s, size_t object_bytes, size_t chunk_bytes, size_t cap)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	assert(chunk_bytes && (chunk_bytes & (chunk_bytes - 1)) == 0);
	memset(s, 0, sizeof(*s));
	s->object_bytes = (object_bytes + OBJECT_ALIGN - 1) & ~(size_t)(OBJECT_ALIGN - 1);
	if (!s->object_bytes)
		s->object_bytes = OBJECT_ALIGN;
	s->chunk_bytes = chunk_bytes < page ? page : chunk_bytes;
	assert(s->chunk_bytes >= sizeof(struct slab_chunk) + s->object_bytes);
	s->per_chunk = (unsigned)((s->chunk_bytes - sizeof(struct slab_chunk)) / s->object_bytes);
	s->cap = cap;
}

/* The n spares that were used longest ago. */
static void give_back(struct slab *s, size_t n)
{
	struct slab_chunk **link = &s->spare, *c;

	for (size_t i = n; i < s->spares; i++)
		link = &(*link)->next;
	s->spares -= n;
	s->chunks -= n;
	while ((c = *link)) {
		*link = c->next;
		chunk_unmap(c, s->chunk_bytes);
	}
}

void slab_keep(struct slab *s)
{
	s->keeps = true;
}

bool slab_trim(struct slab *s)
{
	size_t n = s->spares ? s->spares - 1 : 0;

	give_back(s, s->idle < n ? s->idle : n);
	s->idle = s->spares;
	return s->spares > 1;
}

void slab_fini(struct slab *s)
{
	assert(!s->used && !s->partial && !s->full);
	give_back(s, s->spares);
}

static struct slab_chunk *chunk_create(struct slab *s)
{
	struct slab_chunk *c = chunk_map(s->chunk_bytes);

	if (!c)
		return NULL;
	*c = (struct slab_chunk){.owner = s};
	ASAN_POISON_MEMORY_REGION(c + 1, s->chunk_bytes - sizeof(*c));
	s->chunks++;
	return c;
}

static struct slab_chunk *take_spare(struct slab *s)
{
	struct slab_chunk *c = s->spare;

	s->spare = c->next;
	s->spares--;
	if (s->spares < s->idle)
		s->idle = s->spares;
	return c;
}

void *slab_alloc(struct slab *s)
{
	struct slab_chunk *c = s->partial;
	void *p;

	if (s->cap && s->used >= s->cap)
		return NULL;
	if (!c) {
		c = s->spare ? take_spare(s) : chunk_create(s);
		if (!c)
			return NULL;
		link_chunk(&s->partial, c);
	}
	if (c->free) {
		p = c->free;
		ASAN_UNPOISON_MEMORY_REGION(p, s->object_bytes);
		c->free = c->free->next;
	} else {
		p = (uint8_t *)(c + 1) + c->fresh++ * s->object_bytes;
		ASAN_UNPOISON_MEMORY_REGION(p, s->object_bytes);
	}
	s->used++;
	if (++c->used == s->per_chunk) {
		unlink_chunk(c);
		link_chunk(&s->full, c);
	}
	return p;
}

void slab_free(struct slab *s, void *p)
{
	struct slab_chunk *c =
		(struct slab_chunk *)((uintptr_t)p & ~(uintptr_t)(s->chunk_bytes - 1));
	struct free_object *o = p;

	assert(c->owner == s && c->used);
	assert(!__asan_address_is_poisoned(p)); /* freed twice */
	o->next = c->free;
	c->free = o;
	ASAN_POISON_MEMORY_REGION(p, s->object_bytes);
	s->used--;
	if (c->used-- == s->per_chunk) {
		/* To the front: full chunks fill up again first, and the others get a chance to
		 * empty. */
		unlink_chunk(c);
		link_chunk(&s->partial, c);
	}
	if (c->used)
		return;
	unlink_chunk(c);
	if (!s->spares || s->keeps) {
		c->next = s->spare;
		s->spare = c;
		s->spares++;
		return;
	}
	s->chunks--;
	chunk_unmap(c, s->chunk_bytes);
}

size_t slab_bytes(const struct slab *s)
{
	return s->chunks * s->chunk_bytes;
}
