#include "base/hashtab.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

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

static uint64_t key0, key1;

void hashtab_set_key(const uint8_t key[HASHTAB_KEY_BYTES])
{
	memcpy(&key0, key, 8);
	memcpy(&key1, key + 8, 8);
}

static uint64_t rotate(uint64_t v, unsigned bits)
{
	return v << bits | v >> (64 - bits);
}

static void sip_rounds(uint64_t v[4], unsigned n)
{
	while (n--) {
		v[0] += v[1];
		v[1] = rotate(v[1], 13) ^ v[0];
		v[0] = rotate(v[0], 32);
		v[2] += v[3];
		v[3] = rotate(v[3], 16) ^ v[2];
		v[0] += v[3];
		v[3] = rotate(v[3], 21) ^ v[0];
		v[2] += v[1];
		v[1] = rotate(v[1], 17) ^ v[2];
		v[2] = rotate(v[2], 32);
	}
}

static void sip_block(uint64_t v[4], uint64_t m)
{
	v[3] ^= m;
	sip_rounds(v, 2);
	v[0] ^= m;
}

/* Words are taken in the machine's byte order: the result need not be the same elsewhere. */
uint64_t hashtab_hash(const void *data, size_t len)
{
	uint64_t v[4] = {
		key0 ^ UINT64_C(0x736f6d6570736575),
		key1 ^ UINT64_C(0x646f72616e646f6d),
		key0 ^ UINT64_C(0x6c7967656e657261),
		key1 ^ UINT64_C(0x7465646279746573),
	};
	const uint8_t *p = data;
	uint64_t m;

	for (size_t left = len; left >= 8; left -= 8, p += 8) {
		memcpy(&m, p, 8);
		sip_block(v, m);
	}
	m = 0;
	memcpy(&m, p, len % 8);
	sip_block(v, m | (uint64_t)len << 56);
	v[2] ^= 0xff;
	sip_rounds(v, 4);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
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
