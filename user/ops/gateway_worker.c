/* One worker of the gateway: how it is set up, and what it does with the main thread's messages. */
#include "ops/gateway_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "net/link.h"

enum {
	LINK_SLOTS = 256, /* slots of each worker's first ring that accepts leave to links */
	FD_RESERVE = 64,  /* RLIMIT_NOFILE bounds a ring's table; this many stay for ordinary
			     descriptors */
	RING_SLOTS_MAX = 1 << 20,
};

static const uint64_t quantum_ns[RUNQ_CLASSES] = {
	[RUNQ_CONTROL] = 1000000,
	[RUNQ_LINKS] = 1000000,
	[RUNQ_ESTABLISHED] = 1000000,
	[RUNQ_HANDSHAKE] = 500000,
	[RUNQ_FANOUT] = 500000,
};

/* -------------------------------------------------------------------------------- in the worker's
 * thread */

static struct gateway_worker *worker_of(struct worker *w)
{
	return (struct gateway_worker *)((char *)w->net - offsetof(struct gateway_worker, net));
}

static int create_link(
	struct gateway_worker *gw, const struct config_upstream *u, struct upstream **ret)
{
	const struct config *cfg = gw->gateway->cfg;
	struct link_endpoint *endpoints = calloc(u->n_endpoints, sizeof *endpoints);
	struct link_opts opts = {
		.name = u->name,
		.instance = cfg->instance,
		.endpoints = endpoints,
		.n_endpoints = u->n_endpoints,
		.balance = u->balance == CONFIG_HASH ? LINK_HASH : LINK_LEAST_SESSIONS,
		.hash_key = u->hash_key,
		.failover = u->failover == CONFIG_FAILOVER_RESUME ? LINK_RESUME : LINK_CLOSE,
		.buffer_bytes = u->buffer_bytes,
		.session_window = u->session_window,
		.link_window = u->link_window,
		.ping_interval_ms = u->ping_interval_ms,
		.ping_timeout_ms = u->ping_timeout_ms,
		.connect_timeout_ms = u->connect_timeout_ms,
		.reconnect_min_ms = u->reconnect_min_ms,
		.reconnect_max_ms = u->reconnect_max_ms,
		.open_timeout_ms = u->open_timeout_ms,
		.drain_ms = cfg->drain_period_ms,
	};
	int err;

	if (!endpoints)
		return -ENOMEM;
	for (unsigned i = 0; i < u->n_endpoints; i++)
		endpoints[i] = (struct link_endpoint){
			u->endpoints[i].text, u->endpoints[i].addr, u->endpoints[i].addr_len};
	for (unsigned i = 0; i < cfg->n_routes; i++)
		if (cfg->routes[i].upstream_index >= 0 &&
			&cfg->upstreams[cfg->routes[i].upstream_index] == u &&
			cfg->routes[i].max_message_bytes > opts.message_max)
			opts.message_max = cfg->routes[i].max_message_bytes;
	err = upstream_link_create(&gw->net, &opts, ret);
	free(endpoints);
	return err;
}

static int create_upstreams(struct gateway_worker *gw)
{
	struct gateway *g = gw->gateway;
	const struct config *cfg = g->cfg;
	struct hub_opts hub = {
		.peers = &g->peers, .mail_kind = MAIL_TOPICS, .limits = g->hub_limits};
	int err;

	gw->upstreams = calloc(UPSTREAM_CONFIGURED + cfg->n_upstreams, sizeof *gw->upstreams);
	if (!gw->upstreams)
		return -ENOMEM;
	err = upstream_echo_create(&gw->net, &gw->upstreams[UPSTREAM_ECHO]);
	if (err)
		return err;
	gw->n_upstreams++;
	err = hub_create(&gw->net, &hub, &gw->upstreams[UPSTREAM_HUB]);
	if (err)
		return err;
	gw->n_upstreams++;
	for (unsigned i = 0; i < cfg->n_upstreams; i++) {
		err = create_link(gw, &cfg->upstreams[i], &gw->upstreams[UPSTREAM_CONFIGURED + i]);
		if (err)
			return err;
		gw->n_upstreams++;
	}
	return 0;
}

static int on_start(struct worker *w)
{
	struct gateway_worker *gw = worker_of(w);
	struct gateway *g = gw->gateway;
	struct listener_opts listeners = {.fds = gw->listener_fds,
		.n = g->conn.n_listeners,
		.reserve = LINK_SLOTS,
		.most = g->cfg->ring_connections};
	int err;

	for (unsigned i = 0; i < g->cfg->n_listeners; i++)
		listeners.burst += g->cfg->listeners[i].backlog;
	gw->net.w = w;
	err = conn_net_init(&gw->net, &g->conn, &session_conn_ops, gw->stats);
	if (!err)
		err = create_upstreams(gw);
	if (!err)
		err = listener_init(&gw->net, &listeners);
	if (err)
		return err;
	sessions_init(&gw->sessions, &gw->net,
		&(struct session_opts){
			.routes = g->routes,
			.n_routes = g->cfg->n_routes,
			.upstreams = gw->upstreams,
			.n_upstreams = gw->n_upstreams,
			.ids = &g->ids,
			.auth = g->auth,
		});
	gateway_query_init(gw);
	gateway_access_attach(gw);
	gateway_gate_attach(g, &gw->net);
	gateway_kernel_begin(gw);
	return 0;
}

static void on_flush(struct worker *w)
{
	conn_flush(w);
	listener_turn(net_of(w)); /* last: it counts the slots that have just become free, and none
				     may be overlooked */
}

static void on_publish(struct worker *w, bool sleeping)
{
	gateway_kernel_publish(worker_of(w), sleeping);
}

static void on_mail(struct worker *w, const struct mailbox_msg *msg)
{
	struct gateway_worker *gw = worker_of(w);

	switch ((enum gateway_mail)msg->kind) {
	case MAIL_DRAIN:
		gateway_drain_start(gw);
		break;
	case MAIL_STOP:
		worker_stop(w);
		break;
	case MAIL_QUERY:
		gateway_query_mail(gw, msg->ptr);
		break;
	case MAIL_LISTS:
		gateway_gate_mail(&gw->net, msg->ptr);
		break;
	case MAIL_CRYPTO:
		crypto_done(msg->ptr);
		break;
	case MAIL_KEYS:
		auth_keys_swap(&gw->sessions.auth, msg->ptr);
		break;
	case MAIL_TOPICS:
		exchange_mail(hub_exchange(gw->upstreams[UPSTREAM_HUB]), msg);
		break;
	}
}

static void on_stop(struct worker *w)
{
	struct gateway_worker *gw = worker_of(w);
	struct mailbox_msg msg;

	while (mailbox_pop(w->mailbox, &msg)) {
		if (msg.kind == MAIL_QUERY || msg.kind == MAIL_CRYPTO || msg.kind == MAIL_KEYS ||
			msg.kind == MAIL_LISTS)
			on_mail(w, &msg);
		else if (msg.kind == MAIL_TOPICS)
			exchange_drop(&msg);
	}
	gateway_kernel_end(gw);
	gateway_query_stop(gw);
	conn_net_close_all(&gw->net);
	/* The hub last: links hold on to it. */
	for (size_t i = gw->n_upstreams; i-- > 0;)
		gw->upstreams[i]->ops->destroy(gw->upstreams[i]);
	free(gw->upstreams);
	sessions_fini(&gw->sessions);
	listener_fini(&gw->net);
	conn_net_fini(&gw->net);
	gateway_gate_detach(&gw->net);
}

static struct worker_ops worker_ops = {
	.mail = on_mail,
	.publish = on_publish,
	.start = on_start,
	.flush = on_flush,
	.stop = on_stop,
};

/* -------------------------------------------------------------------------------- in the gateway's
 * main thread */

/* The n-th CPU this process may run on, or -1. */
static int nth_cpu(unsigned n)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof set, &set))
		return -1;
	n %= (unsigned)CPU_COUNT(&set);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &set) && n-- == 0)
			return cpu;
	return -1;
}

static unsigned ring_slots(const struct config *cfg)
{
	struct rlimit rl;
	rlim_t most = 1024;

	if (!getrlimit(RLIMIT_NOFILE, &rl))
		most = rl.rlim_cur;
	most = most > 2 * FD_RESERVE ? most - FD_RESERVE : FD_RESERVE;
	if (most > RING_SLOTS_MAX)
		most = RING_SLOTS_MAX;
	if (cfg->ring_connections && cfg->ring_connections + LINK_SLOTS < most)
		return cfg->ring_connections + LINK_SLOTS;
	return (unsigned)most;
}

void gateway_mail_drop(struct gateway_worker *gw)
{
	struct mailbox_msg msg;

	while (gw->w && mailbox_pop(gw->w->mailbox, &msg))
		if (msg.kind == MAIL_TOPICS)
			exchange_drop(&msg);
}

int gateway_workers_create(struct gateway *g, int *fds, unsigned n_workers, int access_fd)
{
	const struct config *cfg = g->cfg;
	int err;

	conn_register(&worker_ops);
	listener_register(&worker_ops);
	job_register(&worker_ops);
	link_register(&worker_ops);
	g->n_workers = n_workers;
	g->peers.n = n_workers;
	g->workers = calloc(g->n_workers, sizeof *g->workers);
	g->stats = aligned_alloc(64, g->n_workers * sizeof *g->stats);
	if (!g->workers || !g->stats)
		return -ENOMEM;
	g->conn.workers = g->stats;
	g->conn.n_workers = n_workers;
	for (unsigned i = 0; i < n_workers; i++)
		stats_init(&g->stats[i]);
	err = gateway_access_create(g, n_workers, access_fd);
	if (err)
		return err;
	for (unsigned i = 0; i < g->n_workers; i++) {
		struct gateway_worker *gw = &g->workers[i];
		struct worker_opts opts = {
			.id = i,
			.cpu = cfg->pin ? nth_cpu(i) : -1,
			.rings_max = cfg->rings_max,
			.ring =
				{
					.slots = ring_slots(cfg),
					.buffers = cfg->recv_buffers,
					.buffer_bytes = cfg->recv_buffer_bytes,
					.object_bytes = sizeof(struct conn),
				},
			.slice_us = cfg->slice_us,
			.turn_us = cfg->turn_us,
			.turn_frames = cfg->turn_frames,
			.batch_wait_us = cfg->batch_wait_us,
			.sched = g->kernel.sched,
			.ready = g->kernel.ready,
			.net = &gw->net,
		};

		gw->gateway = g;
		gw->listener_fds = &fds[i * cfg->n_listeners];
		gw->stats = opts.stats = &g->stats[i];
		memcpy(opts.quantum_ns, quantum_ns, sizeof quantum_ns);
		err = worker_create(&opts, &worker_ops, &gw->w);
		if (!err)
			err = worker_start(gw->w);
		if (err)
			return err;
	}
	return 0;
}
