/* A gateway that is not there: the admin backend with made-up workers, connections and links, and
 * switches for what may go wrong. Admin threads call it; a test sets and reads the fields while no
 * request is under way, after fake_sync() when the request was another process's. */
#ifndef TIDEGATE_TESTS_FAKE_BACKEND_H
#define TIDEGATE_TESTS_FAKE_BACKEND_H

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "ops/admin.h"

enum {
	FAKE_WORKERS = 2,
	FAKE_LINKS = 3,
};

struct fake_backend {
	pthread_mutex_t lock; /* see fake_sync */
	struct tg_worker_stats stats[FAKE_WORKERS];
	size_t n_conns; /* connections there are; sessions count from 1 */
	int conns_error, links_error, kick_error, drain_error; /* 0 or -errno to return */
	int gate_error, list_error, sample_error;
	unsigned sample_percent;
	struct gate_info gate;
	enum gate_list last_list;
	bool last_add;
	struct prefix_entry last_prefix;
	unsigned hang_ms; /* conns and links answer that late */
	bool ready;
	const char *why_not;
	atomic_uint drains, conns_calls;
	struct conns_query last_conns; /* what was asked last */
	struct kick_query last_kick;
	struct topics_query last_topics;
	int publish_error;
	char last_topic[256], last_data[64]; /* published, cut to fit */
	size_t last_data_len;
	atomic_uint links_calls;
	bool has_line; /* the scheduler line of the fields below */
	struct schedline line;
	size_t n_sources; /* at most SOURCES_TOP_MAX */
	struct source_info sources[SOURCES_TOP_MAX];
};

/* Orders what was written before it, in one thread, before what is read after it in another. A
 * mutex held during the calls would not let one hang beside another. */
static inline void fake_sync(struct fake_backend *f)
{
	pthread_mutex_lock(&f->lock);
	pthread_mutex_unlock(&f->lock);
}

static inline const struct tg_worker_stats *fake_stats(void *ctx, unsigned worker)
{
	struct fake_backend *f = ctx;

	assert(worker < FAKE_WORKERS);
	fake_sync(f);
	return &f->stats[worker];
}

static inline void fake_hang(const struct fake_backend *f)
{
	struct timespec ts = {f->hang_ms / 1000, (long)(f->hang_ms % 1000) * 1000000};

	if (f->hang_ms)
		nanosleep(&ts, NULL);
}

/* Connection i: odd ones are IPv6 and on /chat, even ones IPv4 and on /echo; one in ten has no
 * session yet. */
static inline void fake_conn(size_t i, struct conn_info *c)
{
	bool odd = i % 2;

	memset(c, 0, sizeof(*c));
	c->session = i % 10 == 9 ? 0 : i + 1;
	if (i == 0)
		c->session = UINT64_MAX; /* does not fit a double */
	c->worker = (uint16_t)(i % FAKE_WORKERS);
	c->slot = (uint32_t)i;
	c->peer.sin6_family = AF_INET6;
	c->peer.sin6_port = htons((uint16_t)(10000 + i % 50000));
	inet_pton(AF_INET6, odd ? "2001:db8::7" : "::ffff:192.0.2.1", &c->peer.sin6_addr);
	c->listener = "public";
	c->route = odd ? "/chat" : "/echo";
	c->upstream = odd ? "service" : "echo";
	c->protocol = "websocket";
	c->state = c->session ? "open" : "handshake";
	c->age_ms = i;
	c->idle_ms = i / 2;
	c->messages_in = (uint32_t)i;
	c->messages_out = (uint32_t)(2 * i);
	c->queued_bytes = 3 * i;
	c->reading_paused = odd;
}

static inline bool fake_matches(const struct conns_query *q, const struct conn_info *c)
{
	const char *peer = IN6_IS_ADDR_V4MAPPED(&c->peer.sin6_addr) ? "192.0.2.1" : "2001:db8::7";

	return (!q->session || q->session == c->session) &&
	       (!q->route[0] || !strcmp(q->route, c->route)) &&
	       (!q->listener[0] || !strcmp(q->listener, c->listener)) &&
	       (!q->peer[0] || !strcmp(q->peer, peer));
}

static inline int fake_conns(void *ctx, const struct conns_query *q, struct conn_info **ret,
	size_t *ret_n, size_t *ret_matched)
{
	struct fake_backend *f = ctx;
	size_t n = 0, matched = 0;

	fake_sync(f);
	f->conns_calls++;
	f->last_conns = *q;
	int error = f->conns_error;
	size_t n_conns = f->n_conns;
	fake_hang(f);
	fake_sync(f);
	if (error)
		return error;
	struct conn_info *conns = malloc((n_conns + 1) * sizeof(*conns));
	assert(conns);
	for (size_t i = 0; i < n_conns; i++) {
		fake_conn(i, &conns[n]);
		if (!fake_matches(q, &conns[n]))
			continue;
		matched++;
		if (n < q->limit)
			n++;
	}
	*ret = conns;
	*ret_n = n;
	*ret_matched = matched;
	return 0;
}

static inline int fake_links(void *ctx, struct link_info **ret, size_t *ret_n)
{
	struct fake_backend *f = ctx;

	fake_sync(f);
	f->links_calls++;
	int error = f->links_error;
	fake_hang(f);
	fake_sync(f);
	if (error)
		return error;
	struct link_info *links = calloc(FAKE_LINKS, sizeof(*links));
	assert(links);
	links[0] = (struct link_info){.upstream = "service",
		.endpoint = "tcp://127.0.0.1:9300",
		.worker = 0,
		.state = "up",
		.up = true,
		.sessions = 40,
		.queued_bytes = 10,
		.credit_bytes = 8 << 20,
		.rtt_us = 120};
	links[1] = (struct link_info){.upstream = "service",
		.endpoint = "tcp://127.0.0.1:9300",
		.worker = 1,
		.state = "up",
		.up = true,
		.sessions = 2,
		.queued_bytes = 5};
	links[2] = (struct link_info){.upstream = "service",
		.endpoint = "unix:/run/\"svc\".sock",
		.worker = 0,
		.state = "waiting",
		.retry_in_ms = 800};
	/* What a service sent may be anything. */
	strcpy(links[2].last_error, "bad HELLO: \xff\x1b[2J");
	*ret = links;
	*ret_n = FAKE_LINKS;
	return 0;
}

static inline int fake_kick(void *ctx, const struct kick_query *q, size_t *ret_kicked)
{
	struct fake_backend *f = ctx;

	fake_sync(f);
	f->last_kick = *q;
	int error = f->kick_error;
	size_t n_conns = f->n_conns, kicked = 0;
	fake_sync(f);
	if (error)
		return error;
	for (size_t i = 0; i < n_conns; i++) {
		struct conn_info c;
		fake_conn(i, &c);
		kicked += c.session && fake_matches(&q->which, &c);
	}
	*ret_kicked = kicked;
	return 0;
}

/* Three topics, heard by 3, 2 and 1. */
static inline int fake_topics(void *ctx, const struct topics_query *q, struct topic_info **ret,
	size_t *ret_n, size_t *ret_matched)
{
	static const char *const names[] = {"room/1", "room/*", "caf\303\251"};
	struct fake_backend *f = ctx;
	struct topic_info *topics = calloc(3, sizeof(*topics));
	size_t n = 0, matched = 0;

	assert(topics);
	f->last_topics = *q;
	for (unsigned i = 0; i < 3; i++) {
		if (strncmp(names[i], q->prefix, strlen(q->prefix)))
			continue;
		matched++;
		if (n == q->limit)
			continue;
		strcpy(topics[n].topic, names[i]);
		topics[n++].sessions = 3 - i;
	}
	fake_sync(f);
	*ret = topics;
	*ret_n = n;
	*ret_matched = matched;
	return 0;
}

static inline int fake_publish(void *ctx, const char *topic, const void *data, size_t len)
{
	struct fake_backend *f = ctx;

	fake_sync(f);
	strcpy(f->last_topic, topic);
	snprintf(f->last_data, sizeof(f->last_data), "%.*s", (int)len, (const char *)data);
	f->last_data_len = len;
	fake_sync(f);
	return f->publish_error;
}

static inline bool fake_line(void *ctx, struct schedline *ret, uint64_t *ret_age_ns)
{
	struct fake_backend *f = ctx;

	fake_sync(f);
	*ret = f->line;
	*ret_age_ns = 1500000000;
	return f->has_line;
}

static inline int fake_top_sources(void *ctx, size_t limit, struct source_info *ret, size_t *ret_n)
{
	struct fake_backend *f = ctx;

	fake_sync(f);
	*ret_n = f->n_sources < limit ? f->n_sources : limit;
	memcpy(ret, f->sources, *ret_n * sizeof(*ret));
	return 0;
}

static inline void fake_gate(void *ctx, struct gate_info *ret)
{
	struct fake_backend *f = ctx;

	fake_sync(f);
	*ret = f->gate;
	if (!ret->mode)
		ret->mode = "off";
}

static inline int fake_gate_say(void *ctx, enum governor_word word, uint32_t rate)
{
	struct fake_backend *f = ctx;

	pthread_mutex_lock(&f->lock);
	f->gate.word = word;
	f->gate.word_rate = rate;
	pthread_mutex_unlock(&f->lock);
	return f->gate_error;
}

static inline int fake_list(void *ctx, enum gate_list which, struct list_info **ret, size_t *ret_n)
{
	struct fake_backend *f = ctx;
	struct list_info *l = calloc(2, sizeof *l);

	assert(l);
	fake_sync(f);
	if (f->list_error) {
		free(l);
		return f->list_error;
	}
	strcpy(l[0].prefix, which == GATE_DENY ? "10.0.0.0/8" : "192.0.2.1/32");
	l[0].configured = true;
	strcpy(l[1].prefix, "2001:db8::/32");
	*ret = l;
	*ret_n = 2;
	return 0;
}

static inline int fake_list_change(
	void *ctx, enum gate_list which, bool add, const struct prefix_entry *entry)
{
	struct fake_backend *f = ctx;

	pthread_mutex_lock(&f->lock);
	f->last_list = which;
	f->last_add = add;
	f->last_prefix = *entry;
	pthread_mutex_unlock(&f->lock);
	return f->list_error;
}

static inline int fake_drain(void *ctx)
{
	struct fake_backend *f = ctx;

	fake_sync(f);
	int error = f->drain_error;
	fake_sync(f);
	if (error)
		return error;
	return f->drains++ ? -EALREADY : 0;
}

static inline bool fake_ready(void *ctx, const char **ret_why_not)
{
	struct fake_backend *f = ctx;

	fake_sync(f);
	bool ready = f->ready;
	if (!ready)
		*ret_why_not = f->why_not;
	fake_sync(f);
	return ready;
}

/* Worker 1 has waited once. */
static inline int fake_cpu_wait(void *ctx, unsigned worker, struct hist *ret)
{
	struct fake_backend *f = ctx;

	fake_sync(f);
	if (!f->sample_percent)
		return -EOPNOTSUPP;
	hist_init(ret);
	if (worker == 1)
		hist_add(ret, 40000000);
	return 0;
}

static inline double fake_share(void *ctx)
{
	struct fake_backend *f = ctx;

	fake_sync(f);
	return f->sample_percent / 100.0;
}

static inline int fake_sample(void *ctx, unsigned percent)
{
	struct fake_backend *f = ctx;

	pthread_mutex_lock(&f->lock);
	if (!f->sample_error)
		f->sample_percent = percent;
	pthread_mutex_unlock(&f->lock);
	return f->sample_error;
}

static inline void fake_backend_init(struct fake_backend *f)
{
	memset(f, 0, sizeof(*f));
	pthread_mutex_init(&f->lock, NULL);
	for (unsigned w = 0; w < FAKE_WORKERS; w++) {
		struct tg_worker_stats *s = &f->stats[w];
		stats_init(s);
		s->accepts = 1000 + w;
		s->sessions = 40 + w;
		s->handshaking = 2;
		s->connections = 42 + w;
		s->forced_yields = 7;
		s->rings = 1;
		s->accepting = 1;
		s->closes[CLOSE_CLIENT] = 900;
		s->protocol_errors[PROTO_ERR_UTF8] = w;
		for (uint64_t i = 0; i < 100; i++)
			hist_add(&s->run_delay_us, i == 99 ? 3000 : 10);
		hist_add(&s->poll_delay_us, 4000);
		s->busy_permille = 250;
		hist_add(&s->loop_us, 5);
	}
	f->n_conns = 20;
	f->ready = true;
}

static inline struct admin_backend fake_backend_ops(struct fake_backend *f)
{
	return (struct admin_backend){
		.ctx = f,
		.n_workers = FAKE_WORKERS,
		.stats = fake_stats,
		.conns = fake_conns,
		.links = fake_links,
		.kick = fake_kick,
		.topics = fake_topics,
		.publish = fake_publish,
		.line = fake_line,
		.top_sources = fake_top_sources,
		.gate = fake_gate,
		.gate_say = fake_gate_say,
		.cpu_wait = fake_cpu_wait,
		.share = fake_share,
		.sample = fake_sample,
		.list = fake_list,
		.list_change = fake_list_change,
		.drain = fake_drain,
		.ready = fake_ready,
	};
}

/* A TCP listener on a free loopback port. */
static inline int fake_tcp_listener(uint16_t *ret_port)
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert(fd >= 0 && !bind(fd, (struct sockaddr *)&addr, len) && !listen(fd, 64));
	assert(!getsockname(fd, (struct sockaddr *)&addr, &len));
	*ret_port = ntohs(addr.sin_port);
	return fd;
}

static inline int fake_unix_listener(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert(strlen(path) < sizeof(addr.sun_path));
	strcpy(addr.sun_path, path);
	unlink(path);
	assert(fd >= 0 && !bind(fd, (struct sockaddr *)&addr, sizeof(addr)) && !listen(fd, 64));
	return fd;
}

#endif
