/* A link's life: connecting, HELLO, health, its end and the next try; and the upstream that owns
 * it. */
#include "net/link_internal.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	CANCEL_WAIT_S = 1,
};

/* Links of a worker, by the index in their user_data. */
struct link_registry {
	unsigned upstreams, n;
	struct link *link[];
};

static struct link *link_of(struct worker *w, uint64_t ud)
{
	struct link_registry *reg = net_of(w)->links;

	return reg->link[ring_ud_slot(ud)];
}

static struct link *link_of_timer(struct wheel_timer *t)
{
	return (struct link *)((char *)t - offsetof(struct link, timer));
}

static uint64_t ud_of(const struct link *l, enum ring_op op)
{
	return ring_ud(op, l->gen, 0, l->index);
}

struct link *link_completed(struct worker *w, uint64_t ud, enum link_armed bit)
{
	struct link *l = link_of(w, ud);

	if (l->gen != ring_ud_gen(ud) || !(l->armed & bit)) {
		w->stats->stale_completions++;
		return NULL;
	}
	l->armed &= (uint8_t)~bit;
	if (l->state == LINK_CLOSING) {
		link_kick(l);
		return NULL;
	}
	return l;
}

static void timer_in(struct link *l, uint32_t ms)
{
	wheel_add(&l->up->w->wheel, &l->timer, l->up->w->now_ms + ms);
}

/* -------------------------------------------------------------------------------- connecting */

static void start(struct link *l)
{
	struct io_uring_sqe *sqe = ring_sqe(l->up->w->ring[0]);

	l->gen++;
	l->state = LINK_CONNECTING;
	io_uring_prep_socket_direct_alloc(sqe, l->endpoint->addr.ss_family, SOCK_STREAM, 0, 0);
	sqe->user_data = ud_of(l, OP_LINK_SOCKET);
	l->armed |= LINK_ARMED_SOCKET;
	timer_in(l, l->up->opts.connect_timeout_ms);
}

/* Exponential backoff with jitter: the workers of many gateways must not knock in step at a service
 * that comes back. */
static void try_again(struct link *l)
{
	const struct link_opts *o = &l->up->opts;
	struct net *n = l->up->base.net;
	uint64_t ms = o->reconnect_min_ms ? o->reconnect_min_ms : 1;

	ms <<= l->tries < 20 ? l->tries : 20;
	if (ms > o->reconnect_max_ms)
		ms = o->reconnect_max_ms;
	l->tries++;
	n->rand ^= n->rand << 13;
	n->rand ^= n->rand >> 7;
	n->rand ^= n->rand << 17;
	l->state = LINK_WAITING;
	timer_in(l, (uint32_t)(ms - (n->rand >> 32) % (ms / 2 + 1)));
}

static void no_delay(struct link *l)
{
	static int one = 1;
	struct io_uring_sqe *sqe = ring_sqe(l->up->w->ring[0]);

	/* A failure costs latency, nothing else: nobody waits for the answer. */
	io_uring_prep_cmd_sock(sqe, SOCKET_URING_OP_SETSOCKOPT, (int)l->slot, IPPROTO_TCP,
		TCP_NODELAY, &one, sizeof one);
	sqe->flags |= IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS;
	sqe->user_data = ring_ud(OP_NONE, 0, 0, 0);
}

static void on_socket(struct worker *w, struct ring *r, uint64_t ud, int res, uint32_t flags)
{
	struct link *l = link_of(w, ud);
	struct io_uring_sqe *sqe;

	(void)flags;
	if (res >= 0) {
		l->slot = (uint32_t)res;
		l->has_slot = true;
		r->used++;
	}
	l = link_completed(w, ud, LINK_ARMED_SOCKET);
	if (!l)
		return;
	if (res < 0) {
		link_fail(l, -1, "socket: %s", strerror(-res));
		return;
	}
	if (l->endpoint->addr.ss_family != AF_UNIX)
		no_delay(l);
	sqe = ring_sqe(r);
	io_uring_prep_connect(sqe, (int)l->slot, (const struct sockaddr *)&l->endpoint->addr,
		l->endpoint->addr_len);
	sqe->flags |= IOSQE_FIXED_FILE;
	sqe->user_data = ud_of(l, OP_LINK_CONNECT);
	l->armed |= LINK_ARMED_CONNECT;
}

static void say_hello(struct link *l)
{
	const struct link_opts *o = &l->up->opts;
	uint8_t *out = link_out(l, LINK_HELLO_FRAME_MAX);
	struct link_hello h = {
		.worker = (uint16_t)l->up->w->id,
		.session_window = o->session_window,
		.link_window = o->link_window,
		.payload_max = TG_LINK_MESSAGE_PAYLOAD_MAX,
		.message_max = (uint32_t)o->message_max,
		.features = l->up->base.net->topics ? TG_LINK_FEATURE_TOPICS : 0,
		.name = o->instance,
		.name_len = strlen(o->instance),
	};

	if (out)
		link_out_done(l, link_hello_write(out, &h));
}

static void on_connect(struct worker *w, struct ring *r, uint64_t ud, int res, uint32_t flags)
{
	struct link *l = link_completed(w, ud, LINK_ARMED_CONNECT);

	(void)r;
	(void)flags;
	if (!l)
		return;
	if (res < 0) {
		link_fail(l, -1, "connect: %s", strerror(-res));
		return;
	}
	l->in = malloc(LINK_IN_BYTES);
	if (!l->in) {
		link_fail(l, -1, "out of memory");
		return;
	}
	l->in_head = l->in_tail = 0;
	l->state = LINK_HELLO;
	l->heard_ms = w->now_ms;
	l->window = (struct link_window){0};
	l->publish_cost = 0;
	say_hello(l);
	link_recv_arm(l);
}

static void say_drain(struct link *l)
{
	uint8_t *out = link_out(l, LINK_DRAIN_FRAME_LEN);

	if (out)
		link_out_done(l, link_drain_write(out, l->up->opts.drain_ms));
}

void link_established(struct link *l, const struct link_hello *h)
{
	struct worker *w = l->up->w;

	l->session_window = h->session_window;
	l->payload_max = h->payload_max;
	l->message_max = h->message_max;
	l->credit = h->link_window;
	l->state = LINK_UP;
	l->up_ms = l->ping_ms = w->now_ms;
	l->ping_sent = l->draining = l->pong_due = false;
	l->last_error[0] = '\0';
	link_stats(l->up)->link_connects++;
	atomic_fetch_add(&l->up->n_up, 1);
	wheel_del(&w->wheel, &l->timer);
	if (l->up->opts.ping_interval_ms)
		timer_in(l, l->up->opts.ping_interval_ms);
	if (l->up->draining)
		say_drain(l);
	link_failover_kick(l->up);
}

/* -------------------------------------------------------------------------------- health */

static void health(struct link *l)
{
	const struct link_opts *o = &l->up->opts;
	uint32_t now = l->up->w->now_ms;

	if (l->ping_sent) {
		uint32_t since = (int32_t)(l->heard_ms - l->ping_ms) > 0 ? l->heard_ms : l->ping_ms;

		if (now - since >= o->ping_timeout_ms)
			link_fail(l, TG_LINK_ERROR_TIMEOUT, "silent for %u ms after a PING",
				now - since);
		else
			timer_in(l, o->ping_timeout_ms - (now - since));
		return;
	}
	if (now - l->ping_ms >= o->ping_interval_ms) {
		uint8_t *out = link_out(l, LINK_PING_FRAME_LEN);

		if (!out)
			return;
		l->ping_sent = true;
		l->ping_ms = now;
		l->ping_ns = worker_clock_ns();
		link_out_done(l, link_ping_write(out, TG_LINK_PING, l->ping_ns));
		timer_in(l, o->ping_timeout_ms);
	} else {
		timer_in(l, o->ping_interval_ms - (now - l->ping_ms));
	}
}

void link_on_pong(struct link *l, uint64_t opaque)
{
	uint32_t age = l->up->w->now_ms - l->ping_ms;

	if (!l->ping_sent || opaque != l->ping_ns)
		return;
	l->ping_sent = false;
	l->rtt_us = (uint32_t)((worker_clock_ns() - l->ping_ns) / 1000) + 1;
	timer_in(l, age < l->up->opts.ping_interval_ms ? l->up->opts.ping_interval_ms - age : 0);
}

static void on_timer(struct worker *w, struct wheel_timer *t)
{
	struct link *l = link_of_timer(t);

	(void)w;
	switch (l->state) {
	case LINK_WAITING:
		start(l);
		break;
	case LINK_CONNECTING:
		link_fail(l, -1, "connect: no answer in time");
		break;
	case LINK_HELLO:
		link_fail(l, TG_LINK_ERROR_TIMEOUT, "no HELLO in time");
		break;
	case LINK_UP:
		health(l);
		break;
	case LINK_ENDING:
		link_close(l);
		break;
	case LINK_CLOSING:
		break;
	}
}

/* -------------------------------------------------------------------------------- the end, and
 * after it */

void link_close(struct link *l)
{
	struct ring *r = l->up->w->ring[0];

	l->state = LINK_CLOSING;
	wheel_del(&l->up->w->wheel, &l->timer);
	if (l->armed & LINK_ARMED_CONNECT)
		ring_cancel(r, ud_of(l, OP_LINK_CONNECT));
	if (l->armed & LINK_ARMED_RECV)
		ring_cancel(r, ud_of(l, OP_LINK_RECV));
	if (l->armed & LINK_ARMED_SEND)
		ring_cancel(r, ud_of(l, OP_LINK_SEND));
	link_kick(l);
}

void link_settle(struct link *l)
{
	struct ring *r = l->up->w->ring[0];

	if (l->armed)
		return;
	if (l->has_slot) {
		ring_close(r, l->slot);
		r->used--;
		l->has_slot = false;
	}
	link_out_drop(l);
	free(l->in);
	l->in = NULL;
	try_again(l);
}

static void say_error(struct link *l, enum tg_link_error error)
{
	uint8_t *out = link_out(l, LINK_ERROR_FRAME_MAX);

	if (out) {
		link_out_done(l, link_error_write(out, error, l->last_error));
		timer_in(l, LINK_LINGER_MS);
	} else {
		link_close(l);
	}
}

static void end(struct link *l, int error)
{
	struct link_upstream *up = l->up;
	bool connected = l->state == LINK_HELLO || l->state == LINK_UP;

	topic_pause_end(&l->publications);
	if (l->state == LINK_UP) {
		atomic_fetch_sub(&up->n_up, 1);
		/* One that fails as soon as it is up is not to be tried at full speed for ever. */
		if (up->w->now_ms - l->up_ms > up->opts.reconnect_max_ms)
			l->tries = 0;
		link_orphan_sessions(l);
	}
	if (connected && error >= 0) {
		l->state = LINK_ENDING;
		say_error(l, (enum tg_link_error)error);
	} else {
		link_close(l);
	}
}

void link_fail(struct link *l, int error, const char *fmt, ...)
{
	va_list args;

	if (l->state != LINK_CONNECTING && l->state != LINK_HELLO && l->state != LINK_UP)
		return;
	va_start(args, fmt);
	vsnprintf(l->last_error, sizeof l->last_error, fmt, args);
	va_end(args);
	link_stats(l->up)->link_failures++;
	end(l, error);
}

void link_drained(struct link *l)
{
	snprintf(l->last_error, sizeof l->last_error, "drained");
	end(l, TG_LINK_ERROR_NONE);
}

void link_said_all(struct link *l)
{
	struct io_uring_sqe *sqe = ring_sqe(l->up->w->ring[0]);

	io_uring_prep_shutdown(sqe, (int)l->slot, SHUT_WR);
	sqe->flags |= IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS;
	sqe->user_data = ring_ud(OP_NONE, 0, 0, 0);
}

void link_bad_frame(struct link *l, enum tg_link_error error, const char *why)
{
	struct tg_worker_stats *stats = link_stats(l->up);

	stats->link_bad_frames++;
	stats->protocol_errors[PROTO_ERR_LINK_FRAME]++;
	link_fail(l, (int)error, "%s", why);
}

/* -------------------------------------------------------------------------------- the upstream */

static struct link_registry *registry_grow(struct net *n, unsigned more)
{
	struct link_registry *reg = n->links;
	unsigned have = reg ? reg->n : 0;

	reg = realloc(reg, sizeof *reg + (have + more) * sizeof *reg->link);
	if (!reg)
		return NULL;
	if (!n->links)
		reg->upstreams = reg->n = 0;
	n->links = reg;
	return reg;
}

static void create_links(struct link_upstream *up, struct link_registry *reg)
{
	for (unsigned i = 0; i < up->opts.n_endpoints; i++) {
		struct link *l = &up->links[i];

		l->up = up;
		l->publications.resume = link_publications_resume;
		l->nth = i;
		l->endpoint = &up->endpoints[i];
		l->endpoint_hash = link_hash(l->endpoint->name, strlen(l->endpoint->name));
		l->run.kind = WORKER_LINK;
		l->timer.kind = WORKER_LINK;
		link_list_init(&l->sessions);
		link_list_init(&l->ready);
		l->index = reg->n;
		reg->link[reg->n++] = l;
		start(l);
	}
}

static uint32_t clamp(uint64_t v, uint32_t min, uint32_t max)
{
	return v < min ? min : v > max ? max : (uint32_t)v;
}

int upstream_link_create(struct net *n, const struct link_opts *opts, struct upstream **ret)
{
	struct link_upstream *up = calloc(1, sizeof *up);
	struct link_registry *reg;

	if (!up)
		return -ENOMEM;
	up->base = (struct upstream){&link_upstream_ops, n, opts->name};
	up->opts = *opts;
	up->opts.session_window =
		clamp(opts->session_window, TG_LINK_WINDOW_MIN, TG_LINK_WINDOW_MAX);
	up->opts.link_window = clamp(opts->link_window, TG_LINK_WINDOW_MIN, TG_LINK_WINDOW_MAX);
	up->opts.message_max = clamp(opts->message_max, 1, UINT32_MAX);
	up->w = n->w;
	up->endpoints = calloc(opts->n_endpoints, sizeof *up->endpoints);
	up->links = calloc(opts->n_endpoints, sizeof *up->links);
	if (!up->endpoints || !up->links || link_table_init(&up->table))
		goto err;
	reg = registry_grow(n, opts->n_endpoints);
	if (!reg)
		goto err;
	memcpy(up->endpoints, opts->endpoints, opts->n_endpoints * sizeof *up->endpoints);
	slab_init(&up->sessions, sizeof(struct link_session), 64 * 1024, 0);
	link_failover_init(up);
	reg->upstreams++;
	create_links(up, reg);
	*ret = &up->base;
	return 0;

err:
	link_table_fini(&up->table);
	free(up->links);
	free(up->endpoints);
	free(up);
	return -ENOMEM;
}

void link_upstream_drain(struct upstream *u)
{
	struct link_upstream *up = link_upstream_of(u);

	if (up->draining)
		return;
	up->draining = true;
	for (unsigned i = 0; i < up->opts.n_endpoints; i++)
		if (up->links[i].state == LINK_UP)
			say_drain(&up->links[i]);
}

/* The loop has ended: what the socket takes without waiting still goes out, with a word that this
 * is an orderly end. */
static void say_goodbye(struct link *l)
{
	uint8_t *out;

	if (l->state != LINK_UP || l->armed & LINK_ARMED_SEND)
		return;
	out = link_out(l, LINK_ERROR_FRAME_MAX);
	if (!out)
		return;
	link_out_done(l, link_error_write(out, TG_LINK_ERROR_NONE, "the gateway ends"));
	link_send(l, MSG_DONTWAIT);
	ring_submit(l->up->w->ring[0]);
}

/* Nobody reaps any more; but a receive still armed could write into memory that is freed here. */
static void cancel_now(struct link *l, enum link_armed bit, enum ring_op op)
{
	struct io_uring_sync_cancel_reg reg = {
		.addr = ud_of(l, op),
		.fd = -1,
		.timeout = {.tv_sec = CANCEL_WAIT_S},
	};

	if (l->armed & bit)
		io_uring_register_sync_cancel(&l->up->w->ring[0]->u, &reg);
}

static void free_sessions(struct link_upstream *up, struct link_list *list)
{
	while (!link_list_empty(list))
		link_session_free(up, LINK_SESSION_OF(list->next, on_link));
}

void link_upstream_destroy(struct upstream *u)
{
	struct link_upstream *up = link_upstream_of(u);
	struct link_registry *reg = u->net->links;

	for (unsigned i = 0; i < up->opts.n_endpoints; i++) {
		struct link *l = &up->links[i];

		topic_pause_end(&l->publications);
		say_goodbye(l);
		cancel_now(l, LINK_ARMED_CONNECT, OP_LINK_CONNECT);
		cancel_now(l, LINK_ARMED_RECV, OP_LINK_RECV);
		cancel_now(l, LINK_ARMED_SEND, OP_LINK_SEND);
		wheel_del(&up->w->wheel, &l->timer);
		runq_remove(&up->w->runq, &l->run);
		free_sessions(up, &l->sessions);
		link_out_drop(l);
		free(l->in);
	}
	free_sessions(up, &up->waiting);
	free_sessions(up, &up->orphans);
	job_cancel(up->w, &up->job);
	link_table_fini(&up->table);
	slab_fini(&up->sessions);
	if (!--reg->upstreams) {
		free(reg);
		u->net->links = NULL;
	}
	free(up->links);
	free(up->endpoints);
	free(up);
}

static const char *state_name(const struct link *l)
{
	static const char *const names[] = {
		[LINK_WAITING] = "waiting",
		[LINK_CONNECTING] = "connecting",
		[LINK_HELLO] = "hello",
		[LINK_UP] = "up",
		[LINK_ENDING] = "waiting",
		[LINK_CLOSING] = "waiting",
	};

	return l->state == LINK_UP && l->draining ? "draining" : names[l->state];
}

void upstream_link_describe(
	struct upstream *u, void (*fn)(const struct link_info *info, void *ctx), void *ctx)
{
	struct link_upstream *up = link_upstream_of(u);

	if (u->ops != &link_upstream_ops)
		return;
	for (unsigned i = 0; i < up->opts.n_endpoints; i++) {
		const struct link *l = &up->links[i];
		int32_t left = (int32_t)(l->timer.expires_ms - up->w->now_ms);
		struct link_info info = {
			.upstream = u->name,
			.endpoint = l->endpoint->name,
			.worker = (uint16_t)up->w->id,
			.state = state_name(l),
			.up = l->state == LINK_UP,
			.sessions = l->n_sessions,
			.queued_bytes = l->out_bytes + l->pending_bytes,
			.credit_bytes = l->state == LINK_UP ? l->credit : 0,
			.retry_in_ms = l->state == LINK_WAITING && left > 0 ? (uint32_t)left : 0,
			.rtt_us = l->rtt_us,
		};

		memcpy(info.last_error, l->last_error, sizeof info.last_error);
		fn(&info, ctx);
	}
}

bool upstream_link_up(const struct upstream *u)
{
	const struct link_upstream *up = (const struct link_upstream *)u;

	return u->ops != &link_upstream_ops || atomic_load(&up->n_up) > 0;
}

void link_register(struct worker_ops *ops)
{
	ops->cqe[OP_LINK_SOCKET] = on_socket;
	ops->cqe[OP_LINK_CONNECT] = on_connect;
	ops->cqe[OP_LINK_RECV] = link_on_recv;
	ops->cqe[OP_LINK_SEND] = link_on_send;
	ops->run[WORKER_LINK] = link_run;
	ops->timer[WORKER_LINK] = on_timer;
}
