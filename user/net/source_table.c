#include "net/source_table.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define OPEN_MASK ((UINT64_C(1) << SOURCE_OPEN_BITS) - 1)
#define TAG_MASK  (~OPEN_MASK)

int source_table_init(struct source_table *t, size_t entries, const uint64_t key[2])
{
	size_t sets = (entries + SOURCE_WAYS - 1) / SOURCE_WAYS, bytes;

	memset(t, 0, sizeof *t);
	if (!sets)
		sets = 1;
	if (__builtin_mul_overflow(sets, SOURCE_WAYS * sizeof *t->source, &bytes))
		return -ENOMEM;
	/* Zero, and memory only where it is used. */
	t->source = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (t->source == MAP_FAILED)
		t->source = NULL;
	t->n_sets = sets;
	t->lock = calloc(sets, sizeof *t->lock);
	if (!t->source || !t->lock) {
		source_table_fini(t);
		return -ENOMEM;
	}
	t->key[0] = key[0];
	t->key[1] = key[1];
	return 0;
}

void source_table_fini(struct source_table *t)
{
	if (t->source)
		munmap(t->source, t->n_sets * SOURCE_WAYS * sizeof *t->source);
	free((void *)t->lock);
	t->source = NULL;
	t->lock = NULL;
}

static uint64_t rotate(uint64_t v, unsigned bits)
{
	return v << bits | v >> (64 - bits);
}

static void sip_round(uint64_t v[4])
{
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

static void sip_word(uint64_t v[4], uint64_t m)
{
	v[3] ^= m;
	sip_round(v);
	v[0] ^= m;
}

/* SipHash-1-3 (Aumasson and Bernstein 2012) of the address and its length. */
static uint64_t hash(const struct source_table *t, const struct in6_addr *addr, unsigned len)
{
	uint64_t v[4] = {t->key[0] ^ 0x736f6d6570736575, t->key[1] ^ 0x646f72616e646f6d,
		t->key[0] ^ 0x6c7967656e657261, t->key[1] ^ 0x7465646279746573};
	uint64_t m[2];

	memcpy(m, addr, sizeof m);
	sip_word(v, m[0]);
	sip_word(v, m[1]);
	sip_word(v, (uint64_t)17 << 56 | len); /* 17 bytes, the last one is the length */
	v[2] ^= 0xff;
	for (unsigned i = 0; i < 3; i++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static uint64_t tag_of(uint64_t h)
{
	uint64_t tag = h & TAG_MASK;

	return tag ? tag : UINT64_C(1) << SOURCE_OPEN_BITS; /* 0 is an empty entry */
}

/* The set comes from bits the tag has not. */
static struct source *set_of(struct source_table *t, uint64_t h, size_t *ret_index)
{
	*ret_index = (size_t)(((h & OPEN_MASK) << 32 | h >> 32) % t->n_sets);
	return &t->source[*ret_index * SOURCE_WAYS];
}

static struct source *find_in(struct source *set, uint64_t tag, uint64_t *ret_word)
{
	for (unsigned i = 0; i < SOURCE_WAYS; i++) {
		uint64_t word = atomic_load_explicit(&set[i].word, memory_order_acquire);

		if ((word & TAG_MASK) == tag) {
			*ret_word = word;
			return &set[i];
		}
	}
	return NULL;
}

struct source *source_find(
	struct source_table *t, const struct in6_addr *addr, unsigned len, uint64_t *ret_word)
{
	uint64_t h = hash(t, addr, len);
	size_t index;
	struct source *set = set_of(t, h, &index);

	return find_in(set, tag_of(h), ret_word);
}

bool source_still(const struct source *s, uint64_t word)
{
	return ((atomic_load_explicit(&s->word, memory_order_relaxed) ^ word) & TAG_MASK) == 0;
}

/* How dear an entry is: what would be lost with it. */
static unsigned worth(const struct source *s, uint64_t now_ns)
{
	if (atomic_load_explicit(&s->penalty_until_ns, memory_order_relaxed) > now_ns)
		return 2;
	return atomic_load_explicit(&s->proven, memory_order_relaxed) != 0;
}

/* Empties the entry that is missed least. NULL when all have connections open. */
static struct source *evict(struct source *set, uint64_t now_ns)
{
	for (unsigned tries = 0; tries < SOURCE_WAYS; tries++) {
		struct source *victim = NULL;
		uint64_t victim_word = 0, seen = 0;
		unsigned dear = 0;

		for (unsigned i = 0; i < SOURCE_WAYS; i++) {
			uint64_t word = atomic_load_explicit(&set[i].word, memory_order_relaxed);
			uint64_t at = atomic_load_explicit(&set[i].seen_ns, memory_order_relaxed);
			unsigned w = worth(&set[i], now_ns);

			if (!word)
				return &set[i];
			if (word & OPEN_MASK)
				continue;
			if (!victim || w < dear || (w == dear && at < seen)) {
				victim = &set[i];
				victim_word = word;
				dear = w;
				seen = at;
			}
		}
		if (!victim)
			return NULL;
		if (atomic_compare_exchange_strong(&victim->word, &victim_word, 0))
			return victim;
	}
	return NULL;
}

static bool take_lock(_Atomic uint8_t *lock)
{
	for (unsigned i = 0; i < SOURCE_TRIES; i++)
		if (!atomic_exchange_explicit(lock, 1, memory_order_acquire))
			return true;
	return false;
}

static struct source *make(struct source_table *t, struct source *set, size_t index, uint64_t tag,
	uint64_t now_ns, uint64_t *ret_word)
{
	struct source *s = NULL;

	if (!take_lock(&t->lock[index]))
		return NULL;
	s = find_in(set, tag, ret_word);
	if (!s && (s = evict(set, now_ns))) {
		s->seen_ns = now_ns;
		s->churn_tat_ns = s->share_tat_ns = s->cap_tat_ns = s->penalty_until_ns = 0;
		s->strikes = s->window = s->proven = 0;
		*ret_word = tag;
		atomic_store_explicit(&s->word, tag, memory_order_release);
	}
	atomic_store_explicit(&t->lock[index], 0, memory_order_release);
	return s;
}

/* Raises the count unless the entry has become somebody else's. */
static bool raise(struct source *s, uint64_t word, uint32_t *ret_open)
{
	uint64_t tag = word & TAG_MASK;

	do {
		if ((word & TAG_MASK) != tag || (word & OPEN_MASK) == OPEN_MASK)
			return false;
	} while (!atomic_compare_exchange_weak(&s->word, &word, word + 1));
	*ret_open = (uint32_t)(word & OPEN_MASK) + 1;
	return true;
}

struct source *source_hold(struct source_table *t, const struct in6_addr *addr, unsigned len,
	uint64_t now_ns, uint32_t *ret_open)
{
	uint64_t h = hash(t, addr, len), tag = tag_of(h), word;
	size_t index;
	struct source *set = set_of(t, h, &index);

	for (unsigned i = 0; i < SOURCE_WAYS; i++) {
		struct source *s = find_in(set, tag, &word);

		if (!s)
			s = make(t, set, index, tag, now_ns, &word);
		if (!s)
			break;
		if (raise(s, word, ret_open)) {
			atomic_store_explicit(&s->seen_ns, now_ns, memory_order_relaxed);
			return s;
		}
	}
	atomic_fetch_add_explicit(&t->full, 1, memory_order_relaxed);
	return NULL;
}

void source_release(struct source *s)
{
	uint64_t before = atomic_fetch_sub(&s->word, 1);

	assert(before & OPEN_MASK);
	(void)before;
}
