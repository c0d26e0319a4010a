/* A worker as the home of topics: where each is heard, and the one order of its messages. */
#include "app/exchange_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct home_topic {
	struct hashtab_node by_name;
	uint64_t hash;
	uint64_t total;   /* sessions, of all workers */
	uint64_t workers; /* a bit for each where somebody hears it */
	uint8_t len;
	bool pattern;
	char *name;
	uint32_t count[]; /* by worker */
};

_Static_assert(STATS_WORKERS_MAX <= 64, "a bit for each worker");

static struct home_topic *home_of(const struct hashtab_node *n)
{
	return (struct home_topic *)((char *)n - offsetof(struct home_topic, by_name));
}

static uint64_t hash_of(const struct hashtab_node *n)
{
	return home_of(n)->hash;
}

static bool name_equal(const struct hashtab_node *n, const void *key)
{
	const struct home_topic *h = home_of(n);
	const struct hub_str *name = key;

	return h->len == name->len && !memcmp(h->name, name->data, name->len);
}

static struct home_topic *find(const struct exchange *ex, const char *name, size_t len)
{
	struct hub_str key = {name, len};
	struct hashtab_node *n = hashtab_find(&ex->home, hashtab_hash(name, len), name_equal, &key);

	return n ? home_of(n) : NULL;
}

static struct home_topic *create(struct exchange *ex, const char *name, size_t len)
{
	size_t counts = ex->opts.peers->n * sizeof(uint32_t);
	struct home_topic *h = calloc(1, sizeof *h + counts + len);

	if (!h)
		return NULL;
	h->hash = hashtab_hash(name, len);
	h->len = (uint8_t)len;
	h->name = (char *)(h + 1) + counts;
	memcpy(h->name, name, len);
	h->pattern = hub_topic_is_pattern(name, len);
	ex->home_patterns += h->pattern;
	hashtab_add(&ex->home, &h->by_name);
	exchange_stats(ex)->topics = ex->home.count;
	return h;
}

static void destroy(struct exchange *ex, struct home_topic *h)
{
	hashtab_remove(&ex->home, &h->by_name);
	ex->home_patterns -= h->pattern;
	exchange_stats(ex)->topics = ex->home.count;
	free(h);
}

int exchange_home_init(struct exchange *ex)
{
	exchange_fifo_init(&ex->inbox);
	return hashtab_init(&ex->home, hash_of);
}

void exchange_home_fini(struct exchange *ex)
{
	struct hashtab_node *n;

	while ((n = hashtab_any(&ex->home)))
		destroy(ex, home_of(n));
	hashtab_fini(&ex->home);
	exchange_fifo_clear(&ex->inbox);
}

void exchange_on_interest(struct exchange *ex, struct exchange_msg *m)
{
	struct home_topic *h = find(ex, m->topic, m->topic_len);
	unsigned from = m->from;

	if (!h && m->interest.count)
		h = create(ex, m->topic, m->topic_len);
	if (h) {
		h->total += m->interest.count - (uint64_t)h->count[from];
		h->count[from] = m->interest.count;
		if (m->interest.count)
			h->workers |= UINT64_C(1) << from;
		else
			h->workers &= ~(UINT64_C(1) << from);
		if (!h->total)
			destroy(ex, h);
	} else {
		m->interest.count = 0; /* no memory: it will ask again */
	}
	m->kind = EXCHANGE_CONFIRM;
	exchange_control(ex, from, m);
}

void exchange_on_ask(struct exchange *ex, struct exchange_msg *m)
{
	const struct home_topic *h = find(ex, m->topic, m->topic_len);
	unsigned from = m->from;
	uint32_t cost = exchange_cost(m);

	m->kind = EXCHANGE_ANSWER;
	m->ask.count = h ? h->total : 0;
	exchange_control(ex, from, m);
	exchange_done(ex, from, EXCHANGE_TO_HOME, cost);
}

/* The workers where somebody hears the topic. */
static uint64_t heard_at(const struct exchange *ex, const struct exchange_msg *m)
{
	const struct home_topic *h = find(ex, m->topic, m->topic_len);
	uint64_t workers = h ? h->workers : 0;

	if (ex->home_patterns) {
		char pattern[HUB_TOPIC_MAX + 1];
		size_t len = hub_topic_parent(m->topic, m->topic_len);

		memcpy(pattern, m->topic, len);
		pattern[len] = '*';
		h = find(ex, pattern, len + 1);
		workers |= h ? h->workers : 0;
	}
	return workers;
}

static bool all_have_room(const struct exchange *ex, uint64_t workers, uint32_t cost)
{
	for (; workers; workers &= workers - 1)
		if (!exchange_has_room(
			    ex, (unsigned)__builtin_ctzll(workers), EXCHANGE_TO_WORKER, cost))
			return false;
	return true;
}

/* To each worker a message of its own; the last one gets m. */
static void deliver(struct exchange *ex, uint64_t workers, struct exchange_msg *m)
{
	m->kind = EXCHANGE_DELIVER;
	m->from = (uint8_t)ex->self;
	for (; workers; workers &= workers - 1) {
		unsigned to = (unsigned)__builtin_ctzll(workers);
		struct exchange_msg *copy = m;

		if (workers & (workers - 1)) {
			copy = exchange_msg_new(EXCHANGE_DELIVER, ex->self, m->topic, m->topic_len,
				exchange_data(m), m->len);
			if (!copy) {
				exchange_stats(ex)->hub_lost++;
				continue;
			}
			copy->form = m->form;
		}
		exchange_send(ex, to, EXCHANGE_TO_WORKER, copy);
	}
}

/* Takes the publications at the front of the inbox, as long as there is room for them. */
void exchange_home_flush(struct exchange *ex)
{
	struct exchange_msg *m;

	while ((m = ex->inbox.head)) {
		uint64_t workers = heard_at(ex, m);
		uint32_t cost = exchange_cost(m);
		unsigned from = m->from;

		if (!all_have_room(ex, workers, cost))
			return;
		exchange_fifo_pop(&ex->inbox);
		if (workers)
			deliver(ex, workers, m);
		else
			free(m);
		exchange_done(ex, from, EXCHANGE_TO_HOME, cost);
	}
}

void exchange_on_publish(struct exchange *ex, struct exchange_msg *m)
{
	exchange_fifo_push(&ex->inbox, m);
	exchange_home_flush(ex);
}

/* -------------------------------------------------------------------------------- listing */

struct walk {
	void (*fn)(void *ctx, const char *topic, size_t len, uint64_t sessions);
	void *ctx;
};

static void visit(struct hashtab_node *n, void *ctx)
{
	const struct home_topic *h = home_of(n);
	const struct walk *walk = ctx;

	walk->fn(walk->ctx, h->name, h->len, h->total);
}

bool exchange_walk(struct exchange *ex, uint64_t *cursor, unsigned max_buckets,
	void (*fn)(void *ctx, const char *topic, size_t len, uint64_t sessions), void *ctx)
{
	return hashtab_walk(&ex->home, cursor, max_buckets, visit, &(struct walk){fn, ctx});
}
