#include "ops/gateway.h"
#include "ops/gateway_internal.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/hashtab.h"
#include "base/log.h"
#include "keeper/channel.h"
#include "kern/bpf_sched.h"
#include "net/link.h"
#include "ops/watchdog.h"

enum {
	DRAIN_GRACE_MS = 2000, /* after drain.period and close_timeout, whoever is left is cut */
};

static const char *const *strings(const struct config_strings *s)
{
	return s->n ? (const char *const *)s->item : NULL;
}

static unsigned upstream_of(int index)
{
	if (index == CONFIG_UPSTREAM_ECHO)
		return UPSTREAM_ECHO;
	return index == CONFIG_UPSTREAM_HUB ? UPSTREAM_HUB : UPSTREAM_CONFIGURED + (unsigned)index;
}

/* Translates the configuration into the net layer's terms. */
static int translate(struct gateway *g)
{
	const struct config *cfg = g->cfg;

	g->listeners = calloc(cfg->n_listeners, sizeof *g->listeners);
	g->limits = calloc(cfg->n_routes, sizeof *g->limits);
	g->routes = calloc(cfg->n_routes, sizeof *g->routes);
	g->hub_limits = calloc(cfg->n_routes, sizeof *g->hub_limits);
	if (!g->listeners || !g->limits || !g->routes || !g->hub_limits)
		return -ENOMEM;
	for (unsigned i = 0; i < cfg->n_listeners; i++) {
		const struct config_listener *l = &cfg->listeners[i];
		struct conn_prefix *from =
			calloc(l->n_proxy_from ? l->n_proxy_from : 1, sizeof *from);

		if (!from)
			return -ENOMEM;
		for (unsigned k = 0; k < l->n_proxy_from; k++)
			from[k] = (struct conn_prefix){l->proxy_from[k].addr, l->proxy_from[k].len};
		g->listeners[i] = (struct conn_listener){
			.name = l->name,
			.protocol = l->protocol == CONFIG_RAW ? CONN_RAW : CONN_WEBSOCKET,
			.health_path = l->health_path && *l->health_path ? l->health_path : NULL,
			.ipv6 = l->address.addr.ss_family == AF_INET6,
			.proxy_protocol = l->proxy_protocol,
			.proxy_from = from,
			.n_proxy_from = l->n_proxy_from,
		};
	}
	for (unsigned i = 0; i < cfg->n_routes; i++) {
		const struct config_route *r = &cfg->routes[i];

		g->limits[i] = (struct conn_limits){
			.message_max = r->max_message_bytes,
			.heartbeat_ms = r->heartbeat_ms,
			.heartbeat_jitter_percent = r->heartbeat_jitter_percent,
			.heartbeat_missed = r->heartbeat_missed,
			.idle_timeout_ms = r->idle_timeout_ms,
			.pings_per_minute = r->client_pings_per_minute,
			.out_queue_bytes = r->out_queue_bytes,
			.out_queue_messages = r->out_queue_messages,
			.out_policy = (enum out_policy)r->out_policy,
			.write_timeout_ms = r->write_timeout_ms,
			.name = r->path,
			.upstream = r->upstream,
		};
		g->hub_limits[i] = (struct hub_limits){
			.topics_per_session = r->hub_topics,
			.messages_per_second = r->hub_messages,
			.bytes_per_second = r->hub_bytes,
			.payload_max = r->hub_payload,
		};
		g->routes[i] = (struct route){
			.listener = r->listener_index,
			.host = r->host,
			.path = r->path,
			.origins = strings(&r->origins),
			.n_origins = r->origins.n,
			.subprotocols = strings(&r->subprotocols),
			.n_subprotocols = r->subprotocols.n,
			.upstream = upstream_of(r->upstream_index),
			.auth = r->auth_type == AUTH_NONE ? NULL : &g->policies[i],
		};
	}
	g->conn = (struct conn_opts){
		.listeners = g->listeners,
		.n_listeners = cfg->n_listeners,
		.limits = g->limits,
		.n_routes = cfg->n_routes,
		.http = {cfg->handshake_head_bytes, cfg->handshake_head_bytes / 2,
			cfg->handshake_headers},
		.handshake_timeout_ms = cfg->handshake_timeout_ms,
		.handshake_cost_us = cfg->debug_handshake_us,
		.handshake_turn_us = cfg->debug_handshake_turn_us,
		.close_timeout_ms = cfg->close_timeout_ms,
		.buffer_cap_bytes = cfg->buffer_cap_bytes,
		.buffer_total_bytes = cfg->buffer_total_bytes,
	};
	return 0;
}

/* What the keeper hands over before CHANNEL_GO. */
struct handover {
	int *maps; /* by enum bpf_shared_map; -1: none */
	int admin_tcp, admin_unix, access_log, keys;
	uid_t owner; /* of the admin socket: may use it besides root */
	int *fds;    /* [worker * n_listeners + listener] */
	unsigned n_workers, n_listeners;
	uint32_t epoch;
};

static int take_listener(struct handover *h, const struct channel_record *rec, int fd)
{
	unsigned need = rec->sub + 1;

	if (rec->index >= h->n_listeners || rec->sub >= STATS_WORKERS_MAX || fd < 0)
		return -EBADMSG;
	if (need > h->n_workers) {
		int *fds = realloc(h->fds, need * h->n_listeners * sizeof *fds);

		if (!fds)
			return -ENOMEM;
		for (unsigned i = h->n_workers * h->n_listeners; i < need * h->n_listeners; i++)
			fds[i] = -1;
		h->fds = fds;
		h->n_workers = need;
	}
	h->fds[rec->sub * h->n_listeners + rec->index] = fd;
	return 0;
}

static bool handover_complete(const struct handover *h)
{
	for (unsigned i = 0; i < h->n_workers * h->n_listeners; i++)
		if (h->fds[i] < 0)
			return false;
	return h->n_workers > 0;
}

static int receive_handover(int channel, struct handover *h)
{
	for (;;) {
		struct channel_record rec;
		int fd = -1, err = channel_recv(channel, &rec, &fd);

		if (err == 0)
			return -EPIPE;
		if (err < 0)
			return err;
		switch ((enum channel_kind)rec.kind) {
		case CHANNEL_LISTENER:
			err = take_listener(h, &rec, fd);
			if (err)
				return err;
			break;
		case CHANNEL_ADMIN_TCP:
			h->admin_tcp = fd;
			break;
		case CHANNEL_MAP:
			if (rec.index >= BPF_SHARED_MAP_COUNT || fd < 0)
				return -EBADMSG;
			h->maps[rec.index] = fd;
			break;
		case CHANNEL_ADMIN_UNIX:
			h->admin_unix = fd;
			h->owner = rec.index;
			break;
		case CHANNEL_ACCESS_LOG:
			h->access_log = fd;
			break;
		case CHANNEL_KEYS:
			if (h->keys >= 0)
				close(h->keys);
			h->keys = fd;
			break;
		case CHANNEL_GO:
			h->epoch = rec.index;
			return handover_complete(h) ? 0 : -EBADMSG;
		case CHANNEL_STOP:
		case CHANNEL_DRAIN:
			return -ECANCELED;
		default:
			return -EBADMSG;
		}
	}
}

static void post_all(struct gateway *g, enum gateway_mail kind)
{
	struct timespec nap = {0, 1000000};

	for (unsigned i = 0; i < g->n_workers; i++) {
		struct mailbox_msg msg = {.kind = kind};

		while (g->workers[i].w && worker_post(g->workers[i].w, &msg, NULL))
			nanosleep(&nap, NULL);
	}
}

static const struct tg_worker_stats *backend_stats(void *ctx, unsigned worker)
{
	struct gateway *g = ctx;

	return &g->stats[worker];
}

static void backend_route(void *ctx, unsigned route, struct admin_route *ret)
{
	struct gateway *g = ctx;

	*ret = (struct admin_route){.path = g->limits[route].name,
		.upstream = g->limits[route].upstream,
		.policy = g->limits[route].out_policy};
	for (unsigned i = 0; i < g->n_workers; i++) {
		const struct conn_route_stats *s = &g->workers[i].net.route_stats[route];

		ret->sessions[i] = s->sessions;
		for (unsigned p = 0; p < OUT_POLICIES; p++)
			ret->dropped[p] += s->dropped[p];
	}
}

/* The keeper orders the drain: it has listeners of its own to close, and must not start another
 * gateway. */
static int backend_drain(void *ctx)
{
	struct gateway *g = ctx;
	struct channel_record rec = {.kind = CHANNEL_DRAIN};

	return channel_send(g->channel, &rec, -1);
}

static bool backend_ready(void *ctx, const char **ret_why_not)
{
	struct gateway *g = ctx;

	if (atomic_load(&g->draining)) {
		*ret_why_not = "draining";
		return false;
	}
	for (unsigned i = 0; i < g->n_workers; i++) {
		for (size_t k = 0; k < g->workers[i].n_upstreams; k++) {
			if (!upstream_link_up(g->workers[i].upstreams[k])) {
				*ret_why_not = "an upstream has no link up";
				return false;
			}
		}
	}
	return true;
}

static uint64_t connections(const struct gateway *g)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < g->n_workers; i++)
		n += g->stats[i].connections;
	return n;
}

/* Says, once until the worker accepts again, that it is full earlier than configured. */
static void report_rings(struct gateway *g)
{
	for (unsigned i = 0; i < g->n_workers; i++) {
		struct gateway_worker *gw = &g->workers[i];
		int err = atomic_exchange(&gw->w->ring_error, 0);

		if (gw->stats->accepting)
			gw->ring_error_said = 0;
		if (!err || err == gw->ring_error_said)
			continue;
		gw->ring_error_said = err;
		log_warn("worker",
			"worker %u cannot add a ring to its %u: %s; further clients wait in the "
			"backlog until others leave%s",
			i, (unsigned)gw->stats->rings, strerror(err),
			err == ENOMEM ? " (is RLIMIT_MEMLOCK too small?)" : "");
	}
}

static void say_late(void *ctx, const char *text)
{
	(void)ctx;
	log_warn("watchdog", "%s", text);
}

/* Until the workers are to end. True: after a drain or an order; false: the keeper is gone. */
static bool supervise(struct gateway *g, int channel)
{
	struct watchdog dog = {0};
	bool stop = false, orphan = false;
	uint64_t drain_end_ns = 0;

	if (watchdog_init(&dog, &(struct watchdog_opts){.n_workers = g->n_workers,
					.turn_us = g->cfg->turn_us,
					.slice_us = g->cfg->slice_us,
					.say = say_late}))
		log_warn("gateway", "no memory to watch the workers' turns");
	while (!stop) {
		struct pollfd pfd = {.fd = channel, .events = POLLIN};
		struct channel_record rec;
		int fd = -1;

		if (poll(&pfd, 1, WATCHDOG_STEP_MS) > 0) {
			int got = channel_recv(channel, &rec, &fd);

			if (got > 0 && rec.kind == CHANNEL_KEYS && fd >= 0)
				gateway_auth_reload(g, fd);
			if (got > 0 && rec.kind == CHANNEL_ACCESS_LOG && fd >= 0 && g->access) {
				access_log_reopen(g->access, fd);
				fd = -1;
			}
			if (fd >= 0)
				close(fd);
			orphan = got == 0 || (got < 0 && got != -EAGAIN && got != -EINTR);
			stop = orphan || (got > 0 && rec.kind == CHANNEL_STOP);
			if (got > 0 && rec.kind == CHANNEL_DRAIN)
				atomic_store(&g->draining, true);
		}
		if (atomic_load(&g->draining) && !drain_end_ns) {
			uint64_t ms = (uint64_t)g->cfg->drain_period_ms + g->cfg->close_timeout_ms +
				      DRAIN_GRACE_MS;

			log_info("gateway", "draining %llu connections over %u ms",
				(unsigned long long)connections(g), g->cfg->drain_period_ms);
			drain_end_ns = worker_clock_ns() + ms * 1000000;
			post_all(g, MAIL_DRAIN);
		}
		if (drain_end_ns && (!connections(g) || worker_clock_ns() > drain_end_ns))
			stop = true;
		report_rings(g);
		if (g->kernel.sched)
			bpf_sched_adapt(g->kernel.sched, connections(g), worker_clock_ns());
		if (dog.seen)
			watchdog_look(&dog, g->stats, worker_clock_ns());
		gateway_line_turn(g);
	}
	watchdog_fini(&dog);
	return !orphan;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void destroy(struct gateway *g, struct handover *h)
{
	for (unsigned i = 0; i < g->n_workers && g->workers; i++)
		if (g->workers[i].w)
			worker_join(g->workers[i].w);
	for (unsigned i = 0; i < g->n_workers && g->workers; i++)
		gateway_mail_drop(&g->workers[i]);
	for (unsigned i = 0; i < g->n_workers && g->workers; i++)
		worker_destroy(g->workers[i].w);
	for (unsigned i = 0; i < h->n_workers * h->n_listeners; i++)
		if (h->fds[i] >= 0)
			close(h->fds[i]);
	for (unsigned i = 0; g->listeners && i < g->cfg->n_listeners; i++)
		free((void *)g->listeners[i].proxy_from);
	access_log_destroy(g->access);
	close_fd(&h->access_log);
	gateway_line_fini(g);
	gateway_gate_fini(g);
	gateway_kernel_fini(&g->kernel);
	if (h->keys >= 0)
		close(h->keys);
	gateway_auth_destroy(g);
	free(h->fds);
	free(g->workers);
	free(g->stats);
	free(g->listeners);
	free(g->limits);
	free(g->routes);
	free(g->hub_limits);
}

static int fail(int channel, const char *what, int err)
{
	struct channel_record rec = {.kind = CHANNEL_FAILED};

	snprintf(rec.text, sizeof rec.text, "%s: %s", what, strerror(-err));
	channel_send(channel, &rec, -1);
	return 1;
}

static int start_admin(struct gateway *g, const struct handover *h, struct admin **ret)
{
	struct admin_hub *hubs;
	unsigned n_hubs;
	int err = gateway_hubs(g->cfg, &hubs, &n_hubs);

	if (err)
		return err;
	struct admin_opts opts = {
		.listen_fd = h->admin_tcp,
		.socket_fd = h->admin_unix,
		.allowed_uid = h->owner,
		.instance = g->cfg->instance,
		.version = TG_VERSION,
		.hubs = hubs,
		.n_hubs = n_hubs,
		.token = &g->admin_token,
		.backend =
			{
				.ctx = g,
				.n_workers = g->n_workers,
				.stats = backend_stats,
				.n_routes = g->cfg->n_routes,
				.route = backend_route,
				.conns = gateway_conns,
				.links = gateway_links,
				.kick = gateway_kick,
				.topics = gateway_topics,
				.publish = gateway_publish,
				.line = gateway_line,
				.gate = gateway_gate_info,
				.gate_say = gateway_gate_say,
				.verdicts = gateway_kernel_verdicts,
				.cpu_wait = gateway_kernel_cpu_wait,
				.share = gateway_kernel_share,
				.sample = gateway_kernel_measure,
				.sources = gateway_sources,
				.top_sources = gateway_top_sources,
				.why = gateway_why,
				.list = gateway_list,
				.list_change = gateway_list_change,
				.drain = backend_drain,
				.ready = backend_ready,
			},
	};

	err = admin_start(&opts, ret);
	gateway_hubs_free(hubs, n_hubs);
	return err;
}

/* libcrypto initialises itself at first use, and reads its configuration file then: not in the
 * middle of a storm. */
static void warm_up(void)
{
	uint8_t hash_key[HASHTAB_KEY_BYTES];
	static const char key[] = "AAAAAAAAAAAAAAAAAAAAAA==";
	char accept[HTTP_ACCEPT_LEN + 1];

	http_accept_key((struct http_str){key, sizeof key - 1}, accept);
	/* Without it topics are only hashed predictably. */
	if (getrandom(hash_key, sizeof hash_key, 0) == sizeof hash_key)
		hashtab_set_key(hash_key);
}

int gateway_run(const struct config *cfg, int channel_fd)
{
	struct gateway g = {.cfg = cfg, .channel = channel_fd};
	struct handover h = {.maps = g.kernel.fd,
		.admin_tcp = -1,
		.admin_unix = -1,
		.access_log = -1,
		.keys = -1,
		.n_listeners = cfg->n_listeners};
	struct channel_record ready = {.kind = CHANNEL_READY};
	struct admin *admin = NULL;
	const char *why;
	int err, status = 0;

	warm_up();
	admin_token_init(&g.admin_token);
	for (unsigned i = 0; i < BPF_SHARED_MAP_COUNT; i++)
		g.kernel.fd[i] = -1;

	err = receive_handover(channel_fd, &h);
	if (err == -ECANCELED || err == -EPIPE)
		goto out;
	if (err) {
		status = fail(channel_fd, "handover", err);
		goto out;
	}
	g.ids.epoch = h.epoch;
	err = gateway_auth_create(&g, h.keys, &why);
	if (err) {
		status = fail(channel_fd, why ? why : "authentication", err);
		goto out;
	}
	err = translate(&g);
	if (!err)
		err = gateway_kernel_init(&g.kernel);
	if (!err)
		err = gateway_gate_init(&g, h.n_workers);
	if (!err)
		err = gateway_workers_create(
			&g, h.fds, h.n_workers, cfg->access_stderr ? STDERR_FILENO : h.access_log);
	close_fd(&h.access_log); /* after a rotation nothing may keep the old file */
	if (!err)
		err = gateway_gate_start(&g);
	if (!err)
		err = gateway_line_init(&g);
	if (err) {
		status = fail(channel_fd, "workers", err);
		goto out_workers;
	}
	err = start_admin(&g, &h, &admin);
	if (err) {
		status = fail(channel_fd, "admin", err);
		goto out_workers;
	}
	ready.sub = g.n_workers;
	channel_send(channel_fd, &ready, -1);
	if (!supervise(&g, channel_fd))
		log_warn("gateway", "the keeper is gone; ending");
	admin_stop(admin);
out_workers:
	gateway_gate_stop(&g);
	gateway_auth_stop(&g); /* what is being verified finds its worker */
	post_all(&g, MAIL_STOP);
out:
	destroy(&g, &h);
	admin_token_fini(&g.admin_token);
	close(channel_fd);
	return status;
}
