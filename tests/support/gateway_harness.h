/* The workers of a gateway without the process around them: what ops/gateway_query.c and
 * ops/gateway_drain.c work on. Every client is echoed; listeners are on loopback. */
#ifndef TIDEGATE_TESTS_GATEWAY_HARNESS_H
#define TIDEGATE_TESTS_GATEWAY_HARNESS_H

#include <semaphore.h>

#include "net_client.h"
#include "ops/gateway_internal.h"

enum {
	GWH_WORKERS = 2,
	GWH_LISTENERS = 2, /* WebSocket and raw */
	GWH_HOLD = 100,    /* a message of ours, beside those of enum gateway_mail */
};

struct gateway_harness {
	struct gateway g;
	struct config cfg;
	struct gateway_worker workers[GWH_WORKERS];
	struct tg_worker_stats *stats;
	struct conn_listener listeners[GWH_LISTENERS];
	struct conn_limits limits[2];
	struct route routes[2];
	int fds[GWH_WORKERS][GWH_LISTENERS];
	uint16_t ports[GWH_WORKERS][GWH_LISTENERS];
	bool stopped[GWH_WORKERS];
	uint64_t left_bytes;
	sem_t held, release;
};

static inline struct gateway_harness *gwh_of(struct worker *w)
{
	struct gateway_worker *gw =
		(struct gateway_worker *)((char *)w->net - offsetof(struct gateway_worker, net));

	return (struct gateway_harness *)gw->gateway; /* its first member */
}

static inline struct gateway_worker *gwh_worker(struct worker *w)
{
	return &gwh_of(w)->workers[w->id];
}

static inline int gwh_start(struct worker *w)
{
	struct gateway_harness *h = gwh_of(w);
	struct gateway_worker *gw = gwh_worker(w);
	struct listener_opts listeners = {.fds = gw->listener_fds, .n = GWH_LISTENERS, .burst = 64};
	int err;

	gw->net.w = w;
	err = conn_net_init(&gw->net, &h->g.conn, &session_conn_ops, gw->stats);
	if (!err)
		err = upstream_echo_create(&gw->net, &gw->upstreams[0]);
	if (!err)
		err = listener_init(&gw->net, &listeners);
	if (err)
		return err;
	gw->n_upstreams = 1;
	sessions_init(&gw->sessions, &gw->net,
		&(struct session_opts){.routes = h->routes,
			.n_routes = 2,
			.upstreams = gw->upstreams,
			.n_upstreams = 1,
			.ids = &h->g.ids});
	gateway_query_init(gw);
	return 0;
}

static inline void gwh_flush(struct worker *w)
{
	conn_flush(w);
	listener_turn(net_of(w));
}

static inline void gwh_mail(struct worker *w, const struct mailbox_msg *msg)
{
	switch (msg->kind) {
	case MAIL_DRAIN:
		gateway_drain_start(gwh_worker(w));
		break;
	case MAIL_STOP:
		worker_stop(w);
		break;
	case MAIL_QUERY:
		gateway_query_mail(gwh_worker(w), msg->ptr);
		break;
	case GWH_HOLD:
		sem_post(&gwh_of(w)->held);
		while (sem_wait(&gwh_of(w)->release))
			;
		worker_now(w);
		break;
	}
}

static inline void gwh_stop(struct worker *w)
{
	struct gateway_worker *gw = gwh_worker(w);
	struct mailbox_msg msg;

	while (mailbox_pop(w->mailbox, &msg))
		if (msg.kind == MAIL_QUERY)
			gateway_query_mail(gw, msg.ptr);
	gateway_query_stop(gw);
	conn_net_close_all(&gw->net);
	gw->upstreams[0]->ops->destroy(gw->upstreams[0]);
	listener_fini(&gw->net);
	conn_net_fini(&gw->net);
}

static inline void gwh_listen(struct gateway_harness *h, unsigned worker, unsigned i)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof at;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 512) ||
		getsockname(fd, (struct sockaddr *)&at, &len))
		abort();
	h->fds[worker][i] = fd;
	h->ports[worker][i] = ntohs(at.sin_port);
}

/* What the configuration would say. */
static inline void gwh_describe(struct gateway_harness *h)
{
	static const char *const paths[] = {"/a", "/b"};

	h->listeners[0] = (struct conn_listener){.name = "web", .protocol = CONN_WEBSOCKET};
	h->listeners[1] = (struct conn_listener){.name = "raw", .protocol = CONN_RAW};
	for (unsigned i = 0; i < 2; i++) {
		h->routes[i] = (struct route){.listener = -1, .path = paths[i]};
		h->limits[i] = (struct conn_limits){.message_max = 1 << 20,
			.out_queue_bytes = 2 << 20,
			.out_queue_messages = OUTQ_MESSAGES_MAX,
			.heartbeat_missed = 2,
			.write_timeout_ms = 30000,
			.name = paths[i],
			.upstream = "echo"};
	}
	h->g.cfg = &h->cfg;
	h->g.n_workers = GWH_WORKERS;
	h->g.workers = h->workers;
	h->g.ids.epoch = 9;
	h->g.conn = (struct conn_opts){
		.listeners = h->listeners,
		.n_listeners = GWH_LISTENERS,
		.limits = h->limits,
		.n_routes = 2,
		.http = {8192, 4096, 64},
		.handshake_timeout_ms = 10000,
		.close_timeout_ms = 2000,
		.buffer_cap_bytes = 64 << 20,
	};
}

static inline void gwh_begin(struct gateway_harness *h, unsigned drain_period_ms)
{
	static struct upstream *upstreams[GWH_WORKERS][1];
	static struct worker_ops ops = {
		.mail = gwh_mail, .start = gwh_start, .flush = gwh_flush, .stop = gwh_stop};

	memset(h, 0, sizeof *h);
	conn_register(&ops);
	listener_register(&ops);
	job_register(&ops);
	gwh_describe(h);
	h->cfg.drain_period_ms = drain_period_ms;
	h->stats = aligned_alloc(64, GWH_WORKERS * sizeof *h->stats);
	if (!h->stats || sem_init(&h->held, 0, 0) || sem_init(&h->release, 0, 0))
		abort();
	h->g.stats = h->stats;
	for (unsigned i = 0; i < GWH_WORKERS; i++) {
		struct gateway_worker *gw = &h->workers[i];
		struct worker_opts opts = {
			.id = i,
			.cpu = -1,
			.rings_max = 1,
			.ring = {.slots = 3000,
				.buffers = 64,
				.buffer_bytes = 1024,
				.object_bytes = sizeof(struct conn)},
			.quantum_ns = {1000000, 1000000, 1000000, 500000, 500000},
			.slice_us = 2000,
			.turn_us = 200,
			.turn_frames = 64,
			.stats = &h->stats[i],
			.net = &gw->net,
		};

		for (unsigned k = 0; k < GWH_LISTENERS; k++)
			gwh_listen(h, i, k);
		gw->gateway = &h->g;
		gw->stats = &h->stats[i];
		gw->listener_fds = h->fds[i];
		gw->upstreams = upstreams[i];
		stats_init(gw->stats);
		if (worker_create(&opts, &ops, &gw->w) || worker_start(gw->w))
			abort();
	}
}

static inline void gwh_post(struct gateway_harness *h, unsigned worker, unsigned kind)
{
	struct mailbox_msg msg = {.kind = kind};

	while (worker_post(h->workers[worker].w, &msg, NULL))
		client_sleep_ms(1);
}

static inline void gwh_hold(struct gateway_harness *h, unsigned worker)
{
	gwh_post(h, worker, GWH_HOLD);
	while (sem_wait(&h->held))
		;
}

static inline void gwh_end_worker(struct gateway_harness *h, unsigned i)
{
	if (h->stopped[i])
		return;
	h->stopped[i] = true;
	gwh_post(h, i, MAIL_STOP);
	worker_join(h->workers[i].w);
}

static inline void gwh_end(struct gateway_harness *h)
{
	for (unsigned i = 0; i < GWH_WORKERS; i++)
		gwh_end_worker(h, i);
	for (unsigned i = 0; i < GWH_WORKERS; i++) {
		worker_destroy(h->workers[i].w);
		for (unsigned k = 0; k < GWH_LISTENERS; k++)
			if (h->fds[i][k] >= 0)
				close(h->fds[i][k]);
	}
	free(h->stats);
	sem_destroy(&h->held);
	sem_destroy(&h->release);
}

/* A WebSocket client of one worker; its session is open. */
static inline int gwh_client(struct gateway_harness *h, unsigned worker, const char *path)
{
	int fd = client_connect(h->ports[worker][0], 0);

	if (fd < 0 || client_ws_open(fd, path, NULL) != 101)
		abort();
	return fd;
}

#endif
