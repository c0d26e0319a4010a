/* Fixed-size objects from chunks, one owner thread, with a cap. Freed objects are reused first; a
 * chunk whose objects are all free is given back to the system (but for one), so that a storm
 * leaves no lasting footprint: at once, or where many come and go each turn, by slab_trim. */
#ifndef TIDEGATE_BASE_SLAB_H
#define TIDEGATE_BASE_SLAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct slab_chunk;

struct slab {
	size_t object_bytes; /* rounded up to 16 */
	size_t chunk_bytes;  /* a power of two; chunks are aligned to it */
	unsigned per_chunk;
	size_t used, cap; /* objects; cap 0: none */
	struct slab_chunk *partial, *full;
	struct slab_chunk *spare; /* empty chunks, the last used first */
	size_t chunks, spares;
	size_t idle; /* spares that nobody has needed since the last slab_trim */
	bool keeps;
};

void slab_init(struct slab *s, size_t object_bytes, size_t chunk_bytes, size_t cap);
/* Every object must have been freed (asserted). */
void slab_fini(struct slab *s);
/* Uninitialised memory, or NULL at the cap or without memory. */
void *slab_alloc(struct slab *s);
void slab_free(struct slab *s, void *p);
/* From now on empty chunks are kept until slab_trim. */
void slab_keep(struct slab *s);
/* Gives back the empty chunks that nobody has needed since the last call, but for one. True: more
 * of them are kept, which a later call may give back. */
bool slab_trim(struct slab *s);
/* Bytes held from the system. */
size_t slab_bytes(const struct slab *s);

#endif
