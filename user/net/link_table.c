/* Sessions of an upstream by id. */
#include "net/link_internal.h"

#include <errno.h>
#include <stdlib.h>

enum {
	BITS_MIN = 6,
	BITS_MAX = 30,
};

static size_t bucket_of(uint64_t id, unsigned bits)
{
	/* Ids count up: Fibonacci hashing (Knuth, TAOCP 3, 6.4) spreads them. */
	return (size_t)(id * UINT64_C(0x9e3779b97f4a7c15) >> (64 - bits));
}

int link_table_init(struct link_table *t)
{
	*t = (struct link_table){.bits = BITS_MIN};
	t->bucket = calloc((size_t)1 << t->bits, sizeof *t->bucket);
	return t->bucket ? 0 : -ENOMEM;
}

void link_table_fini(struct link_table *t)
{
	free(t->bucket);
	free(t->old);
	t->bucket = t->old = NULL;
}

static void push(struct link_table *t, struct link_session *s)
{
	struct link_session **at = &t->bucket[bucket_of(s->id, t->bits)];

	s->hash_next = *at;
	*at = s;
}

/* Without memory the table stays as it is, with longer chains. */
static void resize(struct link_table *t, unsigned bits)
{
	struct link_session **bucket = calloc((size_t)1 << bits, sizeof *bucket);

	if (!bucket)
		return;
	t->old = t->bucket;
	t->old_bits = t->bits;
	t->moved = 0;
	t->bucket = bucket;
	t->bits = bits;
}

static void migrate(struct link_table *t)
{
	for (unsigned i = 0; t->old && i < LINK_MIGRATE_STEP; i++) {
		struct link_session *s = t->old[t->moved], *next;

		for (; s; s = next) {
			next = s->hash_next;
			push(t, s);
		}
		t->old[t->moved++] = NULL;
		if (t->moved == (size_t)1 << t->old_bits) {
			free(t->old);
			t->old = NULL;
		}
	}
}

void link_table_add(struct link_table *t, struct link_session *s)
{
	migrate(t);
	if (!t->old && t->count >> t->bits && t->bits < BITS_MAX)
		resize(t, t->bits + 1);
	push(t, s);
	t->count++;
}

static bool take(struct link_session **at, struct link_session *s)
{
	while (*at && *at != s)
		at = &(*at)->hash_next;
	if (!*at)
		return false;
	*at = s->hash_next;
	return true;
}

void link_table_remove(struct link_table *t, struct link_session *s)
{
	if (!take(&t->bucket[bucket_of(s->id, t->bits)], s) && t->old)
		take(&t->old[bucket_of(s->id, t->old_bits)], s);
	t->count--;
	migrate(t);
	if (!t->old && t->bits > BITS_MIN && t->count < (size_t)1 << t->bits >> 3)
		resize(t, t->bits - 1);
}

struct link_session *link_table_find(const struct link_table *t, uint64_t id)
{
	struct link_session *s = t->bucket[bucket_of(id, t->bits)];

	while (s && s->id != id)
		s = s->hash_next;
	if (s || !t->old)
		return s;
	s = t->old[bucket_of(id, t->old_bits)];
	while (s && s->id != id)
		s = s->hash_next;
	return s;
}
