/* A hash table of embedded nodes: chained, and resized a few buckets at a time, so that no single
 * change costs more than another. Allocates only its buckets; without memory it goes on with longer
 * chains. Owner thread only. */
#ifndef TIDEGATE_BASE_HASHTAB_H
#define TIDEGATE_BASE_HASHTAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hashtab_node {
	struct hashtab_node *next;
};

struct hashtab {
	struct hashtab_node **bucket, **old; /* old: being emptied from `moved` on */
	unsigned bits, old_bits;
	size_t moved, count;
	uint64_t (*hash)(const struct hashtab_node *n); /* of a node, all bits of use */
};

/* 0 or -ENOMEM. */
int hashtab_init(struct hashtab *t, uint64_t (*hash)(const struct hashtab_node *n));
/* The nodes are their owner's. */
void hashtab_fini(struct hashtab *t);

void hashtab_add(struct hashtab *t, struct hashtab_node *n);
/* n is in it. */
void hashtab_remove(struct hashtab *t, struct hashtab_node *n);
/* The first node of that hash for which equal says so, or NULL. */
struct hashtab_node *hashtab_find(const struct hashtab *t, uint64_t hash,
	bool (*equal)(const struct hashtab_node *n, const void *key), const void *key);

/* Calls fn for the nodes of up to max_buckets buckets from *cursor (0 at first) on; fn may not
 * change the table. False at the end. A table that changes between two calls may show a node twice
 * or not at all. */
bool hashtab_walk(struct hashtab *t, uint64_t *cursor, unsigned max_buckets,
	void (*fn)(struct hashtab_node *n, void *ctx), void *ctx);
/* Any node, or NULL; to empty it. Costs a look at the empty buckets. */
struct hashtab_node *hashtab_any(struct hashtab *t);

/* SipHash-2-4 (Aumasson and Bernstein 2012): strangers choose what is hashed, and must not be able
 * to put it all into one chain. The key is the process's, zero until it is set: once, before the
 * first table. */
enum {
	HASHTAB_KEY_BYTES = 16
};
void hashtab_set_key(const uint8_t key[HASHTAB_KEY_BYTES]);
uint64_t hashtab_hash(const void *data, size_t len);

/* MurmurHash3's finisher: for what nobody chooses. */
uint64_t hashtab_mix(uint64_t v);

#endif
