/* A worker with its net layer on loopback listeners, in the test's own process, and an upstream
 * that does what the test says. What the worker owns is looked at and changed in its thread only,
 * through harness_call.
 *
 * Order: harness_defaults, fields of opts, harness_start, …, harness_stop, which also checks that
 * no connection left a buffer behind.
 */
#ifndef TIDEGATE_TESTS_NET_HARNESS_H
#define TIDEGATE_TESTS_NET_HARNESS_H

#include <semaphore.h>

#include "core/crypto.h"
#include "core/job.h"
#include "net/conn.h"
#include "net/listener.h"
#include "net_client.h"

enum {
	HARNESS_LISTENERS = 8,
	HARNESS_ROUTES = 8,
	HARNESS_WAIT_MS = 10000,
	HARNESS_MESSAGES = 4096, /* whose message came when: the first so many are remembered */
};

struct harness;

struct harness_opts {
	unsigned n_listeners, n_routes;
	struct conn_listener listeners[HARNESS_LISTENERS];
	struct conn_limits limits[HARNESS_ROUTES];
	struct conn_opts conn; /* listeners and limits are filled in */
	struct worker_opts worker;
	struct listener_opts listener; /* fds and n likewise */
	int backlog, sndbuf_bytes;
	const struct conn_ops *ops;      /* NULL: the upstream below */
	int (*start)(struct harness *h); /* in the worker, before it accepts; may be NULL */
	void (*stop)(struct harness *h); /* in the worker, after the last connection */
};

/* What the upstream does, and what it saw. */
struct harness_upstream {
	int open; /* 0, -EINPROGRESS or -EPROTO (404) */
	bool echo;
	bool pause_always; /* every message pauses its connection */
	bool pause_high;   /* as the built-in echo: until the out queue has drained */
	bool (*message)(struct harness *h, struct conn *c, bool text, uint8_t *data,
		size_t len); /* instead of echo */

	uint64_t hellos, opens, messages, bytes, drained, closed;
	uint32_t order[HARNESS_MESSAGES]; /* slot of each message's connection */
	struct conn *last;                /* opened last */
	uint64_t reason, code;            /* of the session closed last */
	char text[128];
	uint64_t session; /* id given out last */
};

struct harness {
	struct net net; /* first: conn_net() leads here */
	struct harness_opts opts;
	struct harness_upstream up;
	struct worker *w;
	struct tg_worker_stats *stats;
	int fds[HARNESS_LISTENERS];
	uint16_t ports[HARNESS_LISTENERS];
	uint64_t left_bytes, left_aux,
		left_pieces; /* after the last connection: must be nothing */
	sem_t held, release;
	void *user; /* the test's own */
};

enum harness_mail {
	HARNESS_STOP,
	HARNESS_CALL,
	HARNESS_HOLD,
	HARNESS_CRYPTO, /* ptr: struct crypto_job */
};

struct harness_call {
	void (*fn)(struct harness *h, void *arg);
	void *arg;
	sem_t done;
};

static inline struct harness *harness_of(const struct conn *c)
{
	return (struct harness *)conn_net(c);
}

/* ---------------------------------------------------------------- the upstream; worker thread */

static inline int harness_on_hello(
	struct conn *c, const struct conn_hello *hello, struct conn_answer *ret)
{
	struct harness *h = harness_of(c);

	h->up.hellos++;
	if (hello->path.len == 2 && hello->path.data[1] == '!') {
		*ret = (struct conn_answer){
			.status = 404, .why = "no such route", .error = PROTO_ERR_ROUTE};
		return -EPROTO;
	}
	/* "/3…": route 3. */
	ret->route = hello->path.len > 1 && hello->path.data[1] > '0' && hello->path.data[1] <= '9'
			     ? (uint16_t)(hello->path.data[1] - '0')
			     : 0;
	ret->session = ++h->up.session;
	ret->subprotocol = NULL;
	return 0;
}

static inline int harness_on_open(
	struct conn *c, const struct conn_hello *hello, uint16_t *ret_status, const char **ret_why)
{
	struct harness *h = harness_of(c);

	h->up.opens++;
	h->up.last = c;
	if (h->up.open == -EPROTO) {
		*ret_status = 404;
		*ret_why = "the upstream refuses";
	}
	return h->up.open;
}

static inline bool harness_on_message(struct conn *c, bool text, uint8_t *data, size_t len)
{
	struct harness *h = harness_of(c);

	if (h->up.messages < HARNESS_MESSAGES)
		h->up.order[h->up.messages] = conn_slot(c);
	h->up.messages++;
	h->up.bytes += len;
	if (h->up.message)
		return h->up.message(h, c, text, data, len);
	if (h->up.echo)
		conn_send(c, text, data, len);
	return !h->up.pause_always && !(h->up.pause_high && (c->flags & CONN_OUT_HIGH));
}

static inline void harness_on_drained(struct conn *c)
{
	harness_of(c)->up.drained++;
	if (!harness_of(c)->up.pause_always)
		conn_resume(c);
}

static inline void harness_on_closed(
	struct conn *c, enum close_reason reason, uint16_t code, const uint8_t *text, size_t len)
{
	struct harness *h = harness_of(c);

	h->up.closed++;
	h->up.reason = reason;
	h->up.code = code;
	if (len)
		memcpy(h->up.text, text, len);
	h->up.text[len] = 0;
}

static const struct conn_ops harness_conn_ops = {
	.hello = harness_on_hello,
	.open = harness_on_open,
	.message = harness_on_message,
	.drained = harness_on_drained,
	.closed = harness_on_closed,
};

/* ---------------------------------------------------------------- the worker's side */

static inline int harness_on_start(struct worker *w)
{
	struct harness *h = w->net;
	int err;

	h->net.w = w;
	err = conn_net_init(
		&h->net, &h->opts.conn, h->opts.ops ? h->opts.ops : &harness_conn_ops, h->stats);
	if (!err)
		err = listener_init(&h->net, &h->opts.listener);
	if (!err && h->opts.start)
		err = h->opts.start(h);
	return err;
}

static inline void harness_on_flush(struct worker *w)
{
	conn_flush(w);
	listener_turn(net_of(w));
}

static inline void harness_on_mail(struct worker *w, const struct mailbox_msg *msg)
{
	struct harness *h = w->net;
	struct harness_call *call = msg->ptr;

	switch ((enum harness_mail)msg->kind) {
	case HARNESS_STOP:
		worker_stop(w);
		break;
	case HARNESS_CALL:
		call->fn(h, call->arg);
		sem_post(&call->done);
		break;
	case HARNESS_HOLD:
		sem_post(&h->held);
		sem_wait(&h->release);
		worker_now(w);
		break;
	case HARNESS_CRYPTO:
		crypto_done(msg->ptr);
		break;
	}
}

static inline void harness_on_stop(struct worker *w)
{
	struct harness *h = w->net;

	conn_net_close_all(&h->net);
	if (h->opts.stop)
		h->opts.stop(h);
	h->left_bytes = h->net.bufs.bytes;
	h->left_aux = h->net.aux.used;
	for (unsigned i = 0; i < w->n_rings; i++)
		h->left_pieces += w->ring[i]->pieces_out + w->ring[i]->buf_out;
	if (h->left_bytes || h->left_aux)
		return; /* harness_stop says so; the slabs would abort */
	listener_fini(&h->net);
	conn_net_fini(&h->net);
}

static struct worker_ops harness_worker_ops = {
	.mail = harness_on_mail,
	.start = harness_on_start,
	.flush = harness_on_flush,
	.stop = harness_on_stop,
};

/* ---------------------------------------------------------------- the test's side */

static inline void harness_listen(struct harness *h, unsigned i)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof at;
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
	    sndbuf = h->opts.sndbuf_bytes;

	assert(fd >= 0);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (sndbuf)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &sndbuf, sizeof sndbuf);
	if (bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, h->opts.backlog) ||
		getsockname(fd, (struct sockaddr *)&at, &len))
		abort();
	h->fds[i] = fd;
	h->ports[i] = ntohs(at.sin_port);
}

static inline void harness_start(struct harness *h)
{
	struct worker_ops *ops = &harness_worker_ops;

	conn_register(ops);
	listener_register(ops);
	job_register(ops);
	ops->flush = harness_on_flush;
	for (unsigned i = 0; i < h->opts.n_listeners; i++)
		harness_listen(h, i);
	h->opts.conn.listeners = h->opts.listeners;
	h->opts.conn.n_listeners = h->opts.n_listeners;
	h->opts.conn.limits = h->opts.limits;
	h->opts.conn.n_routes = h->opts.n_routes;
	h->opts.listener.fds = h->fds;
	h->opts.listener.n = h->opts.n_listeners;
	h->stats = aligned_alloc(64, sizeof *h->stats);
	if (!h->stats || sem_init(&h->held, 0, 0) || sem_init(&h->release, 0, 0))
		abort();
	stats_init(h->stats);
	h->opts.worker.stats = h->stats;
	h->opts.worker.net = &h->net;
	if (worker_create(&h->opts.worker, ops, &h->w) || worker_start(h->w))
		abort();
}

static inline void harness_post(struct harness *h, enum harness_mail kind, void *ptr)
{
	struct mailbox_msg msg = {.kind = kind, .ptr = ptr};

	while (worker_post(h->w, &msg, NULL))
		client_sleep_ms(1);
}

/* Runs fn in the worker and waits for it. */
static inline void harness_call(
	struct harness *h, void (*fn)(struct harness *h, void *arg), void *arg)
{
	struct harness_call call = {.fn = fn, .arg = arg};

	sem_init(&call.done, 0, 0);
	harness_post(h, HARNESS_CALL, &call);
	while (sem_wait(&call.done))
		;
	sem_destroy(&call.done);
}

/* Holds the worker up, so that what clients do meanwhile reaches it in one batch. */
static inline void harness_hold(struct harness *h)
{
	harness_post(h, HARNESS_HOLD, NULL);
	sem_wait(&h->held);
}

static inline void harness_release(struct harness *h)
{
	sem_post(&h->release);
}

/* Returns true when nothing leaked. */
static inline bool harness_stop(struct harness *h)
{
	bool clean;

	harness_release(h);
	harness_post(h, HARNESS_STOP, NULL);
	worker_join(h->w);
	worker_destroy(h->w);
	h->w = NULL;
	for (unsigned i = 0; i < h->opts.n_listeners; i++)
		if (h->fds[i] >= 0)
			close(h->fds[i]);
	clean = !h->left_bytes && !h->left_aux && !h->left_pieces;
	if (!clean)
		fprintf(stderr, "left behind: %llu bytes, %llu aux, %llu pieces received\n",
			(unsigned long long)h->left_bytes, (unsigned long long)h->left_aux,
			(unsigned long long)h->left_pieces);
	free(h->stats);
	sem_destroy(&h->held);
	sem_destroy(&h->release);
	return clean;
}

/* h is static; a harness that a failed test left running is stopped first. */
static inline void harness_defaults(struct harness *h)
{
	if (h->w)
		harness_stop(h);
	memset(h, 0, sizeof *h);
	h->opts.n_listeners = h->opts.n_routes = 1;
	for (unsigned i = 0; i < HARNESS_LISTENERS; i++)
		h->opts.listeners[i] =
			(struct conn_listener){.name = "test", .health_path = "/healthz"};
	for (unsigned i = 0; i < HARNESS_ROUTES; i++)
		h->opts.limits[i] = (struct conn_limits){
			.message_max = 16 << 20,
			.heartbeat_missed = 2,
			.pings_per_minute = 60,
			.out_queue_bytes = 17 << 20,
			.out_queue_messages = OUTQ_MESSAGES_MAX,
			.write_timeout_ms = 30000,
			.name = "/",
			.upstream = "test",
		};
	h->opts.conn = (struct conn_opts){
		.http = {8192, 4096, 64},
		.handshake_timeout_ms = 10000,
		.close_timeout_ms = 2000,
		.buffer_cap_bytes = 256 << 20,
	};
	h->opts.worker = (struct worker_opts){
		.cpu = -1,
		.rings_max = 1,
		.ring = {.slots = 1024,
			.buffers = 64,
			.buffer_bytes = 2048,
			.object_bytes = sizeof(struct conn)},
		.quantum_ns = {1000000, 1000000, 1000000, 500000, 500000},
		.slice_us = 2000,
		.turn_us = 2000,
		.turn_frames = 64,
	};
	h->opts.listener.burst = 64;
	h->opts.backlog = 512;
	h->up.echo = true;
}

struct harness_peek {
	const void *from;
	void *to;
	size_t len;
};

static inline void harness_do_peek(struct harness *h, void *arg)
{
	struct harness_peek *p = arg;

	memcpy(p->to, p->from, p->len);
}

/* Copies what the worker owns. */
static inline void harness_copy(struct harness *h, void *to, const void *from, size_t len)
{
	struct harness_peek p = {from, to, len};

	harness_call(h, harness_do_peek, &p);
}

static inline uint64_t harness_peek(struct harness *h, const uint64_t *counter)
{
	uint64_t v;

	harness_copy(h, &v, counter, sizeof v);
	return v;
}

/* Waits until *counter is `want`; false when it does not become that. */
static inline bool harness_wait(struct harness *h, const uint64_t *counter, uint64_t want)
{
	uint64_t until = client_now_ms() + HARNESS_WAIT_MS, v;

	while ((v = harness_peek(h, counter)) != want) {
		if (client_now_ms() > until) {
			fprintf(stderr, "counter is %llu, not %llu\n", (unsigned long long)v,
				(unsigned long long)want);
			return false;
		}
		client_sleep_ms(1);
	}
	return true;
}

/* Waits for one connection to be in a state; false when it is not in time. */
static inline bool harness_wait_state(struct harness *h, const struct conn *c, enum conn_state want)
{
	uint64_t until = client_now_ms() + HARNESS_WAIT_MS;
	struct conn copy;

	do {
		harness_copy(h, &copy, c, sizeof copy);
		if (copy.state == (unsigned)want)
			return true;
		client_sleep_ms(1);
	} while (client_now_ms() < until);
	return false;
}

/* The object of a slot of the first ring. */
static inline struct conn *harness_conn(struct harness *h, uint32_t slot)
{
	return ring_object(h->w->ring[0], slot);
}

#endif
