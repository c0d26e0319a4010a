#include "base/hashtab.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

enum {
	BITS_MIN = 6,
	BITS_MAX = 30,
	MIGRATE_STEP = 16, /* buckets moved by each change */
};

static size_t bucket_of(uint64_t hash, unsigned bits)
{
	return (size_t)(hash >> (64 - bits));
}

uint64_t hashtab_mix(uint64_t v)
{
	v ^= v >> 33;
	v *= UINT64_C(0xff51afd7ed558ccd);
	v ^= v >> 33;
	v *= UINT64_C(0xc4ceb9fe1a85ec53);
	return v ^ v >> 33;
}

uint64_t hashtab_hash(const void *data, size_t len)
{
	const uint8_t *p = data;
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * UINT64_C(0x100000001b3);
	return hashtab_mix(h);
}

int hashtab_init(struct hashtab *t, uint64_t (*hash)(const struct hashtab_node *n))
{
	*t = (struct hashtab){.bits = BITS_MIN, .hash = hash};
	t->bucket = calloc((size_t)1 << t->bits, sizeof *t->bucket);
	return t->bucket ? 0 : -ENOMEM;
}

void hashtab_fini(struct hashtab *t)
{
	free(t->bucket);
	free(t->old);
	t->bucket = t->old = NULL;
}

static void push(struct hashtab *t, struct hashtab_node *n)
{
	struct hashtab_node **at = &t->bucket[bucket_of(t->hash(n), t->bits)];

	n->next = *at;
	*at = n;
}

static void resize(struct hashtab *t, unsigned bits)
{
	struct hashtab_node **bucket = calloc((size_t)1 << bits, sizeof *bucket);

	if (!bucket)
		return;
	t->old = t->bucket;
	t->old_bits = t->bits;
	t->moved = 0;
	t->bucket = bucket;
	t->bits = bits;
}

static void migrate(struct hashtab *t)
{
	for (unsigned i = 0; t->old && i < MIGRATE_STEP; i++) {
		struct hashtab_node *n = t->old[t->moved], *next;

		for (; n; n = next) {
			next = n->next;
			push(t, n);
		}
		t->old[t->moved++] = NULL;
		if (t->moved == (size_t)1 << t->old_bits) {
			free(t->old);
			t->old = NULL;
		}
	}
}

void hashtab_add(struct hashtab *t, struct hashtab_node *n)
{
	migrate(t);
	if (!t->old && t->count >> t->bits && t->bits < BITS_MAX)
		resize(t, t->bits + 1);
	push(t, n);
	t->count++;
}

static bool unlink_from(struct hashtab_node **at, struct hashtab_node *n)
{
	while (*at && *at != n)
		at = &(*at)->next;
	if (!*at)
		return false;
	*at = n->next;
	return true;
}

void hashtab_remove(struct hashtab *t, struct hashtab_node *n)
{
	uint64_t hash = t->hash(n);
	bool found = unlink_from(&t->bucket[bucket_of(hash, t->bits)], n) ||
		     (t->old && unlink_from(&t->old[bucket_of(hash, t->old_bits)], n));

	assert(found);
	(void)found;
	t->count--;
	migrate(t);
	if (!t->old && t->bits > BITS_MIN && t->count < (size_t)1 << t->bits >> 3)
		resize(t, t->bits - 1);
}

static struct hashtab_node *find_in(const struct hashtab *t, struct hashtab_node *n, uint64_t hash,
	bool (*equal)(const struct hashtab_node *n, const void *key), const void *key)
{
	while (n && !(t->hash(n) == hash && equal(n, key)))
		n = n->next;
	return n;
}

struct hashtab_node *hashtab_find(const struct hashtab *t, uint64_t hash,
	bool (*equal)(const struct hashtab_node *n, const void *key), const void *key)
{
	struct hashtab_node *n = find_in(t, t->bucket[bucket_of(hash, t->bits)], hash, equal, key);

	if (n || !t->old)
		return n;
	return find_in(t, t->old[bucket_of(hash, t->old_bits)], hash, equal, key);
}

bool hashtab_walk(struct hashtab *t, uint64_t *cursor, unsigned max_buckets,
	void (*fn)(struct hashtab_node *n, void *ctx), void *ctx)
{
	while (t->old)
		migrate(t);
	for (; *cursor < (uint64_t)1 << t->bits; (*cursor)++) {
		if (!max_buckets--)
			return true;
		for (struct hashtab_node *n = t->bucket[*cursor]; n; n = n->next)
			fn(n, ctx);
	}
	return false;
}

struct hashtab_node *hashtab_any(struct hashtab *t)
{
	while (t->old)
		migrate(t);
	for (size_t i = 0; t->count && i < (size_t)1 << t->bits; i++)
		if (t->bucket[i])
			return t->bucket[i];
	return NULL;
}
