/* Who of one worker hears what: topics and patterns by name, and the subscriptions to them.
 *
 * Pure data; worker thread only. A subscription takes 64 bytes and two hash chains: subscribing,
 * unsubscribing and telling a duplicate are O(1). A fan-out walks a topic's subscriptions by a mark
 * that stands among them, so that it can stop anywhere and survives whatever comes and goes
 * meanwhile.
 *
 * Each message that fans out has a serial number, and each subscription the one it began at, or
 * the last one it had (`since`): it hears what is younger. A subscription that ends while its topic
 * is held by a fan-out is kept as `left` until that message is through, since whoever had the
 * message by it must not get it again by a pattern.
 */
#ifndef TIDEGATE_APP_TOPIC_H
#define TIDEGATE_APP_TOPIC_H

#include "base/hashtab.h"
#include "base/slab.h"
#include "proto/hub_codec.h"

struct topic_node {
	struct topic_node *prev, *next;
};

struct topic {
	struct hashtab_node by_name;
	uint64_t hash;
	struct topic_node heard; /* its subscriptions, the newest first, and marks */
	struct topic_node left;
	uint32_t count; /* subscriptions heard */
	uint32_t pins;  /* it stays while somebody has a use for it */
	uint32_t held;  /* by fan-outs of its own messages: those who leave are kept */
	uint8_t len;
	bool pattern;
	char *name;
};

/* One who hears; embedded in what the owner keeps of it. */
struct subscriber {
	struct subscription *first;
	uint32_t count;
};

struct subscription {
	struct topic_node node; /* topic->heard or topic->left; first */
	struct hashtab_node by_pair;
	struct topic *topic;
	struct subscriber *who;             /* NULL: a mark */
	struct subscription *next, **pprev; /* of the same subscriber */
	uint64_t since;                     /* lowest bit: left */
};

_Static_assert(sizeof(struct subscription) == 64, "what a subscription costs");

struct topic_index {
	struct hashtab topics, pairs;
	struct slab subscriptions;
	size_t extra_bytes;
	size_t patterns; /* topics that are */
	size_t count;    /* subscriptions */
};

/* extra_bytes: of the caller's own with each topic (topic_extra), zeroed. 0 or -ENOMEM. */
int topic_index_init(struct topic_index *ix, size_t extra_bytes);
/* Frees the topics; every subscription is over. */
void topic_index_fini(struct topic_index *ix);

static inline void *topic_extra(struct topic *t)
{
	return t + 1;
}

struct topic *topic_find(const struct topic_index *ix, const char *name, size_t len);
/* The pattern that matches the topic; NULL: nobody hears it. */
struct topic *topic_find_pattern(const struct topic_index *ix, const char *name, size_t len);
/* Makes it when there is none; NULL without memory. To be followed by a pin or a subscription, or
 * by topic_release. */
struct topic *topic_get(struct topic_index *ix, const char *name, size_t len);
/* Frees it when it has neither pins nor subscriptions. */
void topic_release(struct topic_index *ix, struct topic *t);

/* 0; -EEXIST: it was subscribed already; -ENOMEM. */
int topic_subscribe(
	struct topic_index *ix, struct topic *t, struct subscriber *who, uint64_t serial);
/* False: it was not subscribed. Does not release the topic. */
bool topic_unsubscribe(struct topic_index *ix, struct topic *t, struct subscriber *who);
bool topic_subscribed(
	const struct topic_index *ix, const struct topic *t, const struct subscriber *who);
/* The subscriber ends: takes one of its subscriptions away, or what is left of one; the topic it
 * was to, pinned once, or NULL when there is none any more. */
struct topic *topic_leave_one(struct topic_index *ix, struct subscriber *who);
/* Has it had the topic's message of this serial by a subscription to the topic itself? */
bool topic_heard(const struct topic_index *ix, const struct topic *t, const struct subscriber *who,
	uint64_t serial);

/* A fan-out's place in a topic; own: of a message of that very topic, not of one that a pattern
 * matches. topic_mark_set, topic_mark_next until NULL; topic_mark_clear when
 * it ends earlier. */
struct topic_mark {
	struct subscription at;
	bool own;
};
void topic_mark_set(struct topic_mark *m, struct topic *t, bool own);
/* The next one who hears what has this serial, of at most *max subscriptions looked at (*max counts
 * down); NULL at the end, when the mark is cleared, or at max. */
struct subscriber *topic_mark_next(struct topic_mark *m, uint64_t serial, unsigned *max);
void topic_mark_clear(struct topic_mark *m);
bool topic_mark_is_set(const struct topic_mark *m);

/* Forgets up to max of those who left; false when there are more. */
bool topic_sweep(struct topic_index *ix, struct topic *t, unsigned max);

#endif
