#include "app/hub.h"

#include <errno.h>
#include <stdlib.h>

#include "app/session.h"
#include "proto/utf8.h"

enum {
	CHUNK_BYTES = 64 * 1024,
};

/* A session that hears topics or has said something; on conn->app. */
struct hub_client {
	struct exchange_client heard; /* first */
	struct topic_pause pause;
	/* When what was taken so far is within the rates (GCRA: theoretical arrival times). */
	uint64_t messages_tat_ns, bytes_tat_ns;
};

struct hub {
	struct upstream base;
	struct hub_opts opts;
	struct exchange *ex;
	struct slab clients;
	bool draining;
};

static struct hub *hub_of(const struct net *n)
{
	return n->topics_ctx;
}

static struct tg_worker_stats *stats_of(const struct hub *h)
{
	return h->base.net->stats;
}

static void resume(struct topic_pause *p)
{
	struct hub_client *client =
		(struct hub_client *)((char *)p - offsetof(struct hub_client, pause));

	conn_resume(client->heard.conn);
}

/* NULL without memory. */
static struct hub_client *client_get(struct hub *h, struct conn *c, bool plain)
{
	struct session *s = session_get(c);
	struct hub_client *client;

	if (!s || s->hub)
		return s ? s->hub : NULL;
	client = slab_alloc(&h->clients);
	if (!client)
		return NULL;
	*client = (struct hub_client){
		.heard = {.conn = c, .plain = plain},
		.pause = {.resume = resume},
	};
	s->hub = client;
	return client;
}

static void client_end(struct net *n, struct conn *c)
{
	struct hub *h = hub_of(n);
	struct session *s = c->app;
	struct hub_client *client = s ? s->hub : NULL;

	if (!client)
		return;
	s->hub = NULL;
	topic_pause_end(&client->pause);
	exchange_leave(h->ex, &client->heard);
	slab_free(&h->clients, client);
}

/* -------------------------------------------------------------------------------- answers */

static void ack(struct conn *c, struct hub_str id)
{
	char out[HUB_ANSWER_MAX];

	if (id.len)
		conn_send(c, true, out, hub_ack_write(out, id));
}

static void refuse(
	struct hub *h, struct conn *c, enum hub_error error, const char *why, struct hub_str id)
{
	char out[HUB_ANSWER_MAX];

	stats_of(h)->hub_refused[error]++;
	conn_send(c, true, out, hub_error_write(out, error, why, id));
}

static void counted(
	struct conn *c, const char *topic, size_t topic_len, uint64_t sessions, struct hub_str id)
{
	char out[HUB_ANSWER_MAX];

	conn_send(c, true, out, hub_presence_write(out, topic, topic_len, sessions, id));
}

static const struct exchange_ops exchange_ops = {
	.confirmed = ack,
	.counted = counted,
};

/* -------------------------------------------------------------------------------- limits */

/* Takes `amount` from a rate of per_second, of which a second's worth may come at once. What is
 * more than that by itself is taken when nothing is owed. */
static bool rate_take(uint64_t *tat_ns, uint64_t now_ns, uint64_t amount, uint64_t per_second)
{
	const uint64_t second = UINT64_C(1000000000);
	uint64_t tat = *tat_ns > now_ns ? *tat_ns : now_ns, cost;

	if (!per_second)
		return true;
	cost = (uint64_t)((double)amount * (double)second / (double)per_second);
	if (tat > now_ns && tat + cost > now_ns + second)
		return false;
	*tat_ns = tat + cost;
	return true;
}

static const struct hub_limits *limits_of(const struct hub *h, const struct conn *c)
{
	return &h->opts.limits[c->route];
}

/* -------------------------------------------------------------------------------- requests */

static const char no_memory[] = "out of memory";

static void on_subscribe(
	struct hub *h, struct conn *c, struct hub_client *client, const struct hub_request *rq)
{
	int err;

	if (h->draining) {
		refuse(h, c, HUB_ERROR_UNAVAILABLE, "the gateway is draining", rq->id);
		return;
	}
	if (!session_may(c, SESSION_SUBSCRIBE, rq->topic, rq->topic_len)) {
		refuse(h, c, HUB_ERROR_FORBIDDEN, "not allowed to subscribe to this topic", rq->id);
		return;
	}
	if (client->heard.topics.count >= limits_of(h, c)->topics_per_session &&
		!exchange_hears(h->ex, &client->heard, rq->topic, rq->topic_len)) {
		refuse(h, c, HUB_ERROR_TOO_MANY_TOPICS, "subscribed to as many topics as allowed",
			rq->id);
		return;
	}
	err = exchange_subscribe(h->ex, &client->heard, rq->topic, rq->topic_len, rq->id);
	if (err == -ENOMEM)
		refuse(h, c, HUB_ERROR_UNAVAILABLE, no_memory, rq->id);
	else if (err != -EINPROGRESS)
		ack(c, rq->id);
}

static void on_unsubscribe(
	struct hub *h, struct conn *c, struct hub_client *client, const struct hub_request *rq)
{
	if (exchange_unsubscribe(h->ex, &client->heard, rq->topic, rq->topic_len))
		ack(c, rq->id);
	else
		refuse(h, c, HUB_ERROR_NOT_SUBSCRIBED, "not subscribed to this topic", rq->id);
}

/* The outcome of exchange_publish or exchange_ask; false: the client is to pause. */
static bool taken(struct hub *h, struct conn *c, struct hub_client *client,
	const struct hub_request *rq, int err)
{
	if (err == -ENOMEM || err == -ENOBUFS) {
		refuse(h, c, HUB_ERROR_UNAVAILABLE,
			err == -ENOMEM ? no_memory : "too many publications are waiting", rq->id);
		return true;
	}
	/* The answer may end the session, and the client with it. */
	if (err)
		exchange_pause(h->ex, rq->topic, rq->topic_len, &client->pause);
	if (rq->type == HUB_PUBLISH)
		ack(c, rq->id);
	return !err;
}

static bool on_publish(
	struct hub *h, struct conn *c, struct hub_client *client, const struct hub_request *rq)
{
	const struct hub_limits *l = limits_of(h, c);
	int err;

	if (!session_may(c, SESSION_PUBLISH, rq->topic, rq->topic_len)) {
		refuse(h, c, HUB_ERROR_FORBIDDEN, "not allowed to publish to this topic", rq->id);
		return true;
	}
	if (rq->data.len > l->payload_max) {
		refuse(h, c, HUB_ERROR_TOO_LARGE, "data is larger than allowed", rq->id);
		return true;
	}
	if (!rate_take(&client->bytes_tat_ns, h->base.net->w->now_ns, rq->data.len,
		    l->bytes_per_second)) {
		refuse(h, c, HUB_ERROR_RATE_LIMITED, "too many bytes a second", rq->id);
		return true;
	}
	err = exchange_publish(
		h->ex, rq->topic, rq->topic_len, EXCHANGE_JSON, rq->data.data, rq->data.len);
	if (!err || err == -EAGAIN)
		stats_of(h)->hub_published++;
	return taken(h, c, client, rq, err);
}

static bool on_presence(
	struct hub *h, struct conn *c, struct hub_client *client, const struct hub_request *rq)
{
	if (!session_may(c, SESSION_SUBSCRIBE, rq->topic, rq->topic_len)) {
		refuse(h, c, HUB_ERROR_FORBIDDEN, "not allowed to subscribe to this topic", rq->id);
		return true;
	}
	return taken(h, c, client, rq, exchange_ask(h->ex, c, rq->topic, rq->topic_len, rq->id));
}

static bool on_request(
	struct hub *h, struct conn *c, struct hub_client *client, const struct hub_request *rq)
{
	switch (rq->type) {
	case HUB_SUBSCRIBE:
		on_subscribe(h, c, client, rq);
		return true;
	case HUB_UNSUBSCRIBE:
		on_unsubscribe(h, c, client, rq);
		return true;
	case HUB_PUBLISH:
		return on_publish(h, c, client, rq);
	case HUB_PRESENCE:
		return on_presence(h, c, client, rq);
	case HUB_TYPES:
		break;
	}
	return true;
}

/* -------------------------------------------------------------------------------- the upstream */

static bool hub_message(struct upstream *u, struct conn *c, bool text, uint8_t *data, size_t len)
{
	struct hub *h = (struct hub *)u;
	struct hub_client *client = client_get(h, c, false);
	struct hub_request rq;
	enum hub_error error;
	const char *why;
	int err;

	if (!text) {
		refuse(h, c, HUB_ERROR_MALFORMED, "a binary message is not JSON",
			(struct hub_str){0});
		return true;
	}
	err = hub_request_parse((const char *)data, len, &rq, &error, &why);
	if (!client)
		refuse(h, c, HUB_ERROR_UNAVAILABLE, no_memory, rq.id);
	else if (!rate_take(&client->messages_tat_ns, u->net->w->now_ns, 1,
			 limits_of(h, c)->messages_per_second))
		refuse(h, c, HUB_ERROR_RATE_LIMITED, "too many messages a second", rq.id);
	else if (err)
		refuse(h, c, error, why, rq.id);
	else
		return on_request(h, c, client, &rq);
	return true;
}

static int hub_open(struct upstream *u, struct conn *c, const struct conn_hello *hello,
	uint16_t *ret_status, const char **ret_why)
{
	struct hub *h = (struct hub *)u;

	(void)c;
	(void)hello;
	if (!h->draining)
		return 0;
	*ret_status = 503;
	*ret_why = "the gateway is draining";
	return -EPROTO;
}

static void hub_drained(struct upstream *u, struct conn *c)
{
	(void)u;
	(void)c;
}

/* client_end does it, for sessions of links too. */
static void hub_closed(struct upstream *u, struct conn *c, enum close_reason reason, uint16_t code,
	const uint8_t *text, size_t text_len)
{
	(void)u;
	(void)c;
	(void)reason;
	(void)code;
	(void)text;
	(void)text_len;
}

static void hub_drain(struct upstream *u)
{
	((struct hub *)u)->draining = true;
}

static void hub_destroy(struct upstream *u)
{
	struct hub *h = (struct hub *)u;

	u->net->topics = NULL;
	exchange_destroy(h->ex);
	slab_fini(&h->clients);
	free(h);
}

static const struct upstream_ops hub_ops = {
	.open = hub_open,
	.message = hub_message,
	.drained = hub_drained,
	.closed = hub_closed,
	.drain = hub_drain,
	.destroy = hub_destroy,
};

/* -------------------------------------------------------------------------------- services */

/* Services have no answer to a refusal: it is counted. */
static bool service_topic(struct hub *h, const char *topic, size_t len, bool pattern)
{
	if (hub_topic_valid(topic, len, pattern))
		return true;
	stats_of(h)->hub_refused[HUB_ERROR_BAD_TOPIC]++;
	return false;
}

static void service_subscribe(struct net *n, struct conn *c, const char *topic, size_t len)
{
	struct hub *h = hub_of(n);
	struct hub_client *client;

	if (!service_topic(h, topic, len, true))
		return;
	client = client_get(h, c, true);
	if (!client || exchange_subscribe(h->ex, &client->heard, topic, len, (struct hub_str){0}) ==
			       -ENOMEM)
		stats_of(h)->hub_refused[HUB_ERROR_UNAVAILABLE]++;
}

static void service_unsubscribe(struct net *n, struct conn *c, const char *topic, size_t len)
{
	struct hub *h = hub_of(n);
	struct session *s = c->app;

	if (!service_topic(h, topic, len, true))
		return;
	if (!s || !s->hub || !exchange_unsubscribe(h->ex, &s->hub->heard, topic, len))
		stats_of(h)->hub_refused[HUB_ERROR_NOT_SUBSCRIBED]++;
}

static bool service_publish(struct net *n, const char *topic, size_t topic_len, bool text,
	const uint8_t *data, size_t len, struct topic_pause *p)
{
	struct hub *h = hub_of(n);
	int err;

	if (!service_topic(h, topic, topic_len, false))
		return true;
	if (text && !utf8_valid(data, len)) {
		stats_of(h)->hub_refused[HUB_ERROR_MALFORMED]++;
		return true;
	}
	err = exchange_publish(
		h->ex, topic, topic_len, text ? EXCHANGE_TEXT : EXCHANGE_BINARY, data, len);
	if (err && err != -EAGAIN) {
		stats_of(h)->hub_refused[HUB_ERROR_UNAVAILABLE]++;
		return true;
	}
	stats_of(h)->hub_published++;
	if (err)
		exchange_pause(h->ex, topic, topic_len, p);
	return !err;
}

static const struct topic_ops topic_ops = {
	.subscribe = service_subscribe,
	.unsubscribe = service_unsubscribe,
	.publish = service_publish,
	.closed = client_end,
};

int hub_create(struct net *n, const struct hub_opts *opts, struct upstream **ret)
{
	struct hub *h = calloc(1, sizeof *h);
	struct exchange_opts exchange = {
		.peers = opts->peers, .mail_kind = opts->mail_kind, .ops = &exchange_ops};
	int err;

	if (!h)
		return -ENOMEM;
	err = exchange_create(n, &exchange, &h->ex);
	if (err) {
		free(h);
		return err;
	}
	h->base = (struct upstream){.ops = &hub_ops, .net = n, .name = "hub"};
	h->opts = *opts;
	slab_init(&h->clients, sizeof(struct hub_client), CHUNK_BYTES, 0);
	n->topics = &topic_ops;
	n->topics_ctx = h;
	*ret = &h->base;
	return 0;
}

struct exchange *hub_exchange(struct upstream *u)
{
	return ((struct hub *)u)->ex;
}
