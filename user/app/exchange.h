/* Topics across workers: who hears what, where; and the way of a publication to all of them.
 *
 * Every topic has a home, one worker, by the hash of its name without the last level: a topic and
 * the pattern that matches it share it. A worker tells the home how many of its sessions hear a
 * topic (first and last at once, the number in between within 50 ms), and a subscription is
 * confirmed when the home knows. A publication goes from its publisher's worker to the home, and
 * from there to the workers where it is heard: so a topic has one order, and a worker without
 * subscribers hears nothing. With one worker all of that is direct calls.
 *
 * Nothing blocks, and nothing grows without bound. Towards each worker, and in each of the two
 * steps, at most EXCHANGE_WINDOW_BYTES and _MESSAGES are under way; the receiver gives them back
 * when it is done with them (a home when it has passed them on, a worker when they have fanned
 * out). What finds no room waits where it is; its publisher is not read from any more, and above
 * EXCHANGE_WAITING_BYTES a publication is refused. So at most that, and twice the window for each
 * worker, is in a worker's hands.
 *
 * One struct exchange per worker; worker thread only, but for exchange_drop.
 */
#ifndef TIDEGATE_APP_EXCHANGE_H
#define TIDEGATE_APP_EXCHANGE_H

#include <stdatomic.h>

#include "app/topic.h"
#include "net/topic_ops.h"

enum {
	EXCHANGE_WINDOW_BYTES = 4 * 1024 * 1024,
	EXCHANGE_WINDOW_MESSAGES = 1024, /* a quarter of a mailbox */
	EXCHANGE_WAITING_BYTES = 64 * 1024 * 1024,
	EXCHANGE_INTEREST_MS = 50,
};

/* The workers of the gateway; an entry is NULL until the worker runs. Shared. */
struct exchange_peers {
	unsigned n;
	_Atomic(struct worker *) worker[STATS_WORKERS_MAX];
};

/* What a publication's data is. */
enum exchange_form {
	EXCHANGE_JSON, /* a value, of a hub client */
	EXCHANGE_TEXT, /* of a service */
	EXCHANGE_BINARY,
};

/* One session that hears topics; embedded in the layer above's. */
struct exchange_client {
	struct subscriber topics; /* first */
	struct conn *conn;
	bool plain; /* gets data as it is, else the hub's JSON */
};

struct exchange_ops {
	/* The subscription is heard at the home. id: as exchange_subscribe got it. */
	void (*confirmed)(struct conn *c, struct hub_str id);
	void (*counted)(struct conn *c, const char *topic, size_t topic_len, uint64_t sessions,
		struct hub_str id);
};

struct exchange_opts {
	struct exchange_peers *peers;
	uint32_t mail_kind; /* of our messages in the workers' mailboxes */
	const struct exchange_ops *ops;
};

struct exchange;

/* 0 or -ENOMEM. */
int exchange_create(struct net *n, const struct exchange_opts *opts, struct exchange **ret);
/* Every client has left. NULL is allowed. */
void exchange_destroy(struct exchange *ex);
/* A message of mail_kind. */
void exchange_mail(struct exchange *ex, const struct mailbox_msg *msg);
/* Likewise, when the worker has ended. Any thread. */
void exchange_drop(const struct mailbox_msg *msg);

/* Topics are valid by hub_topic_valid. id: comes back in ops->confirmed; empty: nobody asks.
 * 0: heard from now on; -EINPROGRESS: ops->confirmed follows; -EEXIST: as 0, and it was heard
 * already; -ENOMEM. */
int exchange_subscribe(struct exchange *ex, struct exchange_client *who, const char *topic,
	size_t len, struct hub_str id);
/* False: it was not subscribed. */
bool exchange_unsubscribe(
	struct exchange *ex, struct exchange_client *who, const char *topic, size_t len);
bool exchange_hears(
	struct exchange *ex, struct exchange_client *who, const char *topic, size_t len);
/* Ends all its subscriptions. */
void exchange_leave(struct exchange *ex, struct exchange_client *who);

/* 0; -EAGAIN: taken, but the publisher is to pause (exchange_pause); -ENOBUFS: not taken, too much
 * is waiting; -ENOMEM. */
int exchange_publish(struct exchange *ex, const char *topic, size_t topic_len,
	enum exchange_form form, const void *data, size_t len);
/* Calls p->resume when publications to the topic are taken again. */
void exchange_pause(
	struct exchange *ex, const char *topic, size_t topic_len, struct topic_pause *p);
/* ops->counted follows. 0, -EAGAIN, -ENOBUFS or -ENOMEM as of exchange_publish. */
int exchange_ask(struct exchange *ex, const struct conn *c, const char *topic, size_t topic_len,
	struct hub_str id);

/* Topics that have this worker for a home: calls fn for those of up to max_buckets hash buckets
 * from *cursor on; false at the end. sessions: patterns not counted. */
bool exchange_walk(struct exchange *ex, uint64_t *cursor, unsigned max_buckets,
	void (*fn)(void *ctx, const char *topic, size_t len, uint64_t sessions), void *ctx);

#endif
