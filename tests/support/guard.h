/* A buffer that ends right before a PROT_NONE page: a parser that reads or writes one byte too far
 * dies at once. */
#ifndef TIDEGATE_TESTS_GUARD_H
#define TIDEGATE_TESTS_GUARD_H

#include <assert.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct guard {
	uint8_t *map;
	size_t map_bytes;
	size_t usable;
};

static inline void guard_init(struct guard *g, size_t usable)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	g->usable = (usable + page - 1) / page * page;
	g->map_bytes = g->usable + page;
	g->map = mmap(
		NULL, g->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert(g->map != MAP_FAILED);
	assert(mprotect(g->map + g->usable, page, PROT_NONE) == 0);
}

/* Room for len bytes that end at the guard page. */
static inline uint8_t *guard_tail(struct guard *g, size_t len)
{
	assert(len <= g->usable);
	return g->map + g->usable - len;
}

static inline uint8_t *guard_copy(struct guard *g, const void *data, size_t len)
{
	uint8_t *p = guard_tail(g, len);
	if (len)
		memcpy(p, data, len);
	return p;
}

static inline void guard_fini(struct guard *g)
{
	munmap(g->map, g->map_bytes);
}

#endif
