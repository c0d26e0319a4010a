#include "app/topic.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	CHUNK_BYTES = 64 * 1024,
	/* In struct subscription's since, below the serial. */
	LEFT = 1,
	HAD = 2, /* the message of that serial; else it began then */
	FLAG_BITS = 2,
};

static void node_init(struct topic_node *n)
{
	n->prev = n->next = n;
}

static void node_remove(struct topic_node *n)
{
	n->prev->next = n->next;
	n->next->prev = n->prev;
	node_init(n);
}

static void node_insert_after(struct topic_node *at, struct topic_node *n)
{
	n->prev = at;
	n->next = at->next;
	at->next->prev = n;
	at->next = n;
}

static struct topic *topic_of(const struct hashtab_node *n)
{
	return (struct topic *)((char *)n - offsetof(struct topic, by_name));
}

static struct subscription *pair_of(const struct hashtab_node *n)
{
	return (struct subscription *)((char *)n - offsetof(struct subscription, by_pair));
}

static uint64_t topic_hash(const struct hashtab_node *n)
{
	return topic_of(n)->hash;
}

static uint64_t pair_hash_of(const struct topic *t, const struct subscriber *who)
{
	return hashtab_mix((uint64_t)(uintptr_t)who ^ t->hash);
}

static uint64_t pair_hash(const struct hashtab_node *n)
{
	const struct subscription *s = pair_of(n);

	return pair_hash_of(s->topic, s->who);
}

int topic_index_init(struct topic_index *ix, size_t extra_bytes)
{
	int err;

	*ix = (struct topic_index){.extra_bytes = extra_bytes};
	slab_init(&ix->subscriptions, sizeof(struct subscription), CHUNK_BYTES, 0);
	err = hashtab_init(&ix->topics, topic_hash);
	if (!err)
		err = hashtab_init(&ix->pairs, pair_hash);
	if (err)
		hashtab_fini(&ix->topics);
	return err;
}

static void topic_free(struct topic_index *ix, struct topic *t)
{
	hashtab_remove(&ix->topics, &t->by_name);
	ix->patterns -= t->pattern;
	free(t);
}

void topic_index_fini(struct topic_index *ix)
{
	struct hashtab_node *n;

	while ((n = hashtab_any(&ix->topics)))
		topic_free(ix, topic_of(n));
	hashtab_fini(&ix->topics);
	hashtab_fini(&ix->pairs);
	slab_fini(&ix->subscriptions);
}

static bool name_equal(const struct hashtab_node *n, const void *key)
{
	const struct topic *t = topic_of(n);
	const struct hub_str *name = key;

	return t->len == name->len && !memcmp(t->name, name->data, name->len);
}

static struct topic *find(const struct topic_index *ix, struct hub_str name, uint64_t hash)
{
	struct hashtab_node *n = hashtab_find(&ix->topics, hash, name_equal, &name);

	return n ? topic_of(n) : NULL;
}

struct topic *topic_find(const struct topic_index *ix, const char *name, size_t len)
{
	return find(ix, (struct hub_str){name, len}, hashtab_hash(name, len));
}

struct topic *topic_find_pattern(const struct topic_index *ix, const char *name, size_t len)
{
	char pattern[HUB_TOPIC_MAX + 1];

	if (!ix->patterns)
		return NULL;
	len = hub_topic_parent(name, len);
	memcpy(pattern, name, len);
	pattern[len] = '*';
	return topic_find(ix, pattern, len + 1);
}

struct topic *topic_get(struct topic_index *ix, const char *name, size_t len)
{
	uint64_t hash = hashtab_hash(name, len);
	struct topic *t = find(ix, (struct hub_str){name, len}, hash);

	assert(len && len <= HUB_TOPIC_MAX);
	if (t)
		return t;
	t = calloc(1, sizeof *t + ix->extra_bytes + len);
	if (!t)
		return NULL;
	t->hash = hash;
	t->len = (uint8_t)len;
	t->name = (char *)(t + 1) + ix->extra_bytes;
	memcpy(t->name, name, len);
	t->pattern = hub_topic_is_pattern(name, len);
	node_init(&t->heard);
	node_init(&t->left);
	hashtab_add(&ix->topics, &t->by_name);
	ix->patterns += t->pattern;
	return t;
}

void topic_release(struct topic_index *ix, struct topic *t)
{
	if (!t->pins && !t->count && t->left.next == &t->left && t->heard.next == &t->heard)
		topic_free(ix, t);
}

/* -------------------------------------------------------------------------------- subscriptions */

struct pair_key {
	const struct topic *topic;
	const struct subscriber *who;
};

static bool pair_equal(const struct hashtab_node *n, const void *key)
{
	const struct subscription *s = pair_of(n);
	const struct pair_key *k = key;

	return s->topic == k->topic && s->who == k->who;
}

static struct subscription *find_pair(
	const struct topic_index *ix, const struct topic *t, const struct subscriber *who)
{
	struct pair_key key = {t, who};
	struct hashtab_node *n = hashtab_find(&ix->pairs, pair_hash_of(t, who), pair_equal, &key);

	return n ? pair_of(n) : NULL;
}

int topic_subscribe(
	struct topic_index *ix, struct topic *t, struct subscriber *who, uint64_t serial)
{
	struct subscription *s = find_pair(ix, t, who);

	if (s && !(s->since & LEFT))
		return -EEXIST;
	if (s) {
		/* Came back before the message was through: it keeps its place in time. */
		s->since &= ~(uint64_t)LEFT;
		node_remove(&s->node);
	} else {
		s = slab_alloc(&ix->subscriptions);
		if (!s)
			return -ENOMEM;
		*s = (struct subscription){.topic = t, .who = who, .since = serial << FLAG_BITS};
		hashtab_add(&ix->pairs, &s->by_pair);
		s->next = who->first;
		s->pprev = &who->first;
		if (s->next)
			s->next->pprev = &s->next;
		who->first = s;
	}
	node_insert_after(&t->heard, &s->node);
	t->count++;
	who->count++;
	ix->count++;
	return 0;
}

static void forget(struct topic_index *ix, struct subscription *s)
{
	node_remove(&s->node);
	hashtab_remove(&ix->pairs, &s->by_pair);
	*s->pprev = s->next;
	if (s->next)
		s->next->pprev = s->pprev;
	slab_free(&ix->subscriptions, s);
}

static void count_out(struct topic_index *ix, struct subscription *s)
{
	s->topic->count--;
	s->who->count--;
	ix->count--;
}

bool topic_unsubscribe(struct topic_index *ix, struct topic *t, struct subscriber *who)
{
	struct subscription *s = find_pair(ix, t, who);

	if (!s || (s->since & LEFT))
		return false;
	count_out(ix, s);
	if (!t->held || !(s->since & HAD)) {
		forget(ix, s);
		return true;
	}
	s->since |= LEFT;
	node_remove(&s->node);
	node_insert_after(&t->left, &s->node);
	return true;
}

bool topic_subscribed(
	const struct topic_index *ix, const struct topic *t, const struct subscriber *who)
{
	const struct subscription *s = find_pair(ix, t, who);

	return s && !(s->since & LEFT);
}

struct topic *topic_leave_one(struct topic_index *ix, struct subscriber *who)
{
	struct subscription *s = who->first;
	struct topic *t;

	if (!s)
		return NULL;
	t = s->topic;
	t->pins++;
	if (!(s->since & LEFT))
		count_out(ix, s);
	forget(ix, s);
	return t;
}

bool topic_heard(const struct topic_index *ix, const struct topic *t, const struct subscriber *who,
	uint64_t serial)
{
	const struct subscription *s;

	if (!t->count && t->left.next == &t->left)
		return false;
	s = find_pair(ix, t, who);
	return s && (s->since & HAD) && s->since >> FLAG_BITS == serial;
}

bool topic_sweep(struct topic_index *ix, struct topic *t, unsigned max)
{
	while (t->left.next != &t->left) {
		if (!max--)
			return false;
		forget(ix, (struct subscription *)t->left.next);
	}
	return true;
}

/* -------------------------------------------------------------------------------- marks */

void topic_mark_set(struct topic_mark *m, struct topic *t, bool own)
{
	m->at = (struct subscription){.topic = t};
	m->own = own;
	node_insert_after(&t->heard, &m->at.node);
}

struct subscriber *topic_mark_next(struct topic_mark *m, uint64_t serial, unsigned *max)
{
	struct topic_node *end = &m->at.topic->heard;

	while (*max) {
		struct topic_node *n = m->at.node.next;
		struct subscription *s = (struct subscription *)n;

		if (n == end) {
			topic_mark_clear(m);
			return NULL;
		}
		node_remove(&m->at.node);
		node_insert_after(n, &m->at.node);
		--*max;
		if (!s->who || s->since >> FLAG_BITS >= serial)
			continue;
		/* Messages of a topic come in their order; those that a pattern matches may not. */
		if (m->own)
			s->since = serial << FLAG_BITS | HAD;
		return s->who;
	}
	return NULL;
}

void topic_mark_clear(struct topic_mark *m)
{
	node_remove(&m->at.node);
	m->at.topic = NULL;
}

bool topic_mark_is_set(const struct topic_mark *m)
{
	return m->at.topic;
}
