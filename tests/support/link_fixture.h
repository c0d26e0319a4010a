/* A worker with a raw and a WebSocket listener in front of a link upstream, in this process; and
 * the sockets of the test itself, which plays clients and services. */
#ifndef TIDEGATE_TESTS_LINK_FIXTURE_H
#define TIDEGATE_TESTS_LINK_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "app/session.h"
#include "core/job.h"
#include "net/link_internal.h"
#include "net/listener.h"

enum {
	FX_ENDPOINTS_MAX = 4,
	FX_MESSAGE_MAX = 4 * 1024 * 1024,
	FX_PATIENCE_S = 20, /* what a hang is told from */
	FX_RAW = 0,
	FX_WS = 1,
};

enum {
	FX_MAIL_STOP,
	FX_MAIL_CALL,
};

struct fx {
	struct worker *w;
	struct net net;
	struct tg_worker_stats *stats;
	struct sessions sessions;
	struct session_ids ids;
	struct upstream *upstream;
	struct link_opts link;
	struct link_endpoint endpoints[FX_ENDPOINTS_MAX];
	char names[FX_ENDPOINTS_MAX][32];
	int service[FX_ENDPOINTS_MAX]; /* listening sockets */
	int fds[2];
	uint16_t ports[2];
	struct conn_listener listeners[2];
	struct conn_limits limits;
	struct conn_opts conn;
	struct route route;
};

struct fx_call {
	void (*fn)(struct fx *f, void *ctx);
	void *ctx;
	sem_t done;
};

static inline struct fx *fx_of(struct worker *w)
{
	return (struct fx *)((char *)w->net - offsetof(struct fx, net));
}

static inline int fx_on_start(struct worker *w)
{
	struct fx *f = fx_of(w);
	struct listener_opts listeners = {.fds = f->fds, .n = 2, .burst = 64, .reserve = 64};
	int err;

	f->net.w = w;
	err = conn_net_init(&f->net, &f->conn, &session_conn_ops, f->stats);
	if (!err)
		err = upstream_link_create(&f->net, &f->link, &f->upstream);
	if (!err)
		err = listener_init(&f->net, &listeners);
	sessions_init(&f->sessions, &f->net,
		&(struct session_opts){
			.routes = &f->route,
			.n_routes = 1,
			.upstreams = &f->upstream,
			.n_upstreams = 1,
			.ids = &f->ids,
		});
	return err;
}

static inline void fx_on_flush(struct worker *w)
{
	conn_flush(w);
	listener_turn(net_of(w));
}

static inline void fx_on_mail(struct worker *w, const struct mailbox_msg *msg)
{
	if (msg->kind == FX_MAIL_CALL) {
		struct fx_call *call = msg->ptr;

		call->fn(fx_of(w), call->ctx);
		sem_post(&call->done);
	} else {
		worker_stop(w);
	}
}

static inline void fx_on_stop(struct worker *w)
{
	struct fx *f = fx_of(w);

	conn_net_close_all(&f->net);
	f->upstream->ops->destroy(f->upstream);
	listener_fini(&f->net);
	conn_net_fini(&f->net); /* asserts that every buffer was given back */
}

static inline int fx_listen(uint16_t *ret_port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof a;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(listen(fd, 4096), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	*ret_port = ntohs(a.sin_port);
	return fd;
}

/* Defaults, which a test may change before fx_start. */
static inline struct fx *fx_create(unsigned n_endpoints)
{
	struct fx *f = calloc(1, sizeof *f);

	assert_non_null(f);
	for (unsigned i = 0; i < n_endpoints; i++) {
		struct sockaddr_in *a = (struct sockaddr_in *)&f->endpoints[i].addr;
		uint16_t port;

		f->service[i] = fx_listen(&port);
		*a = (struct sockaddr_in){.sin_family = AF_INET,
			.sin_port = htons(port),
			.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		f->endpoints[i].addr_len = sizeof *a;
		snprintf(f->names[i], sizeof f->names[i], "tcp://127.0.0.1:%u", port);
		f->endpoints[i].name = f->names[i];
	}
	f->link = (struct link_opts){
		.name = "svc",
		.instance = "fixture",
		.endpoints = f->endpoints,
		.n_endpoints = n_endpoints,
		.failover = LINK_RESUME,
		.buffer_bytes = 1024 * 1024,
		.message_max = FX_MESSAGE_MAX,
		.session_window = 64 * 1024,
		.link_window = 1024 * 1024,
		.ping_interval_ms = 60000,
		.ping_timeout_ms = 60000,
		.connect_timeout_ms = 10000,
		.reconnect_min_ms = 5,
		.reconnect_max_ms = 20,
		.open_timeout_ms = 60000,
		.drain_ms = 1234,
	};
	f->limits = (struct conn_limits){
		.message_max = FX_MESSAGE_MAX,
		.out_queue_bytes = 2 * FX_MESSAGE_MAX,
		.out_queue_messages = OUTQ_MESSAGES_MAX,
		.name = "/*",
	};
	f->route = (struct route){.listener = -1, .path = "/*"};
	f->listeners[FX_RAW] = (struct conn_listener){.name = "raw", .protocol = CONN_RAW};
	f->listeners[FX_WS] = (struct conn_listener){.name = "ws", .protocol = CONN_WEBSOCKET};
	f->conn = (struct conn_opts){
		.listeners = f->listeners,
		.n_listeners = 2,
		.limits = &f->limits,
		.n_routes = 1,
		.http = {64 * 1024, 16 * 1024, 64},
		.handshake_timeout_ms = 60000,
		.close_timeout_ms = 1000,
		.buffer_cap_bytes = 64 * 1024 * 1024,
	};
	f->ids.epoch = 7;
	return f;
}

static inline void fx_start(struct fx *f)
{
	static struct worker_ops ops = {
		.mail = fx_on_mail,
		.start = fx_on_start,
		.flush = fx_on_flush,
		.stop = fx_on_stop,
	};
	struct worker_opts opts = {
		.cpu = -1,
		.rings_max = 1,
		.ring = {.slots = 4096,
			.buffers = 256,
			.buffer_bytes = 2048,
			.object_bytes = sizeof(struct conn)},
		.slice_us = 2000,
		.turn_us = 200,
		.turn_frames = 64,
		.net = &f->net,
	};

	conn_register(&ops);
	listener_register(&ops);
	job_register(&ops);
	link_register(&ops);
	ops.flush = fx_on_flush;
	for (unsigned c = 0; c < RUNQ_CLASSES; c++)
		opts.quantum_ns[c] = 1000000;
	f->stats = aligned_alloc(64, sizeof *f->stats);
	assert_non_null(f->stats);
	stats_init(f->stats);
	opts.stats = f->stats;
	for (unsigned i = 0; i < 2; i++)
		f->fds[i] = fx_listen(&f->ports[i]);
	assert_int_equal(worker_create(&opts, &ops, &f->w), 0);
	assert_int_equal(worker_start(f->w), 0);
}

static inline void fx_post(struct fx *f, uint32_t kind, void *ptr)
{
	struct mailbox_msg msg = {.kind = kind, .ptr = ptr};

	assert_int_equal(worker_post(f->w, &msg, NULL), 0);
}

/* Runs fn in the worker and waits for it. */
static inline void fx_call(struct fx *f, void (*fn)(struct fx *f, void *ctx), void *ctx)
{
	struct fx_call call = {.fn = fn, .ctx = ctx};

	sem_init(&call.done, 0, 0);
	fx_post(f, FX_MAIL_CALL, &call);
	while (sem_wait(&call.done))
		;
	sem_destroy(&call.done);
}

static inline void fx_on_info(const struct link_info *info, void *ctx)
{
	*(struct link_info *)ctx = *info;
}

static inline void fx_on_describe(struct fx *f, void *ctx)
{
	upstream_link_describe(f->upstream, fx_on_info, ctx);
}

/* What the upstream says of its last link. */
static inline void fx_describe(struct fx *f, struct link_info *ret)
{
	fx_call(f, fx_on_describe, ret);
}

static inline void fx_stop(struct fx *f)
{
	fx_post(f, FX_MAIL_STOP, NULL);
	worker_join(f->w);
	worker_destroy(f->w);
	for (unsigned i = 0; i < f->link.n_endpoints; i++)
		close(f->service[i]);
	for (unsigned i = 0; i < 2; i++)
		close(f->fds[i]);
	free(f->stats);
	free(f);
}

/* -------------------------------------------------------------------------------- sockets */

static inline int fx_prepare(int fd)
{
	struct timeval patience = {.tv_sec = FX_PATIENCE_S};
	int one = 1;

	assert_true(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	return fd;
}

static inline void fx_send(int fd, const void *data, size_t len)
{
	const uint8_t *p = data;

	while (len) {
		ssize_t n = send(fd, p, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		assert_true(n > 0);
		p += n;
		len -= (size_t)n;
	}
}

/* False at the end of the stream. */
static inline bool fx_recv(int fd, void *data, size_t len)
{
	uint8_t *p = data;

	while (len) {
		ssize_t n = recv(fd, p, len, 0);

		if (n == 0 || (n < 0 && errno == ECONNRESET))
			return false;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			fail_msg("recv: %s", strerror(errno));
		p += n;
		len -= (size_t)n;
	}
	return true;
}

/* As poll, over interruptions: the kernel interrupts threads of a process with rings for its own
 * purposes. */
static inline int fx_poll(struct pollfd *p, unsigned n, int ms)
{
	int got;

	while ((got = poll(p, n, ms)) < 0 && errno == EINTR)
		;
	return got;
}

static inline bool fx_quiet(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return fx_poll(&p, 1, ms) == 0;
}

static inline int fx_connect(const struct fx *f, unsigned listener)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
		.sin_port = htons(f->ports[listener]),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = fx_prepare(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));

	if (connect(fd, (struct sockaddr *)&a, sizeof a)) {
		struct pollfd p = {.fd = fd, .events = POLLOUT};

		assert_int_equal(errno, EINTR); /* it goes on by itself */
		assert_int_equal(fx_poll(&p, 1, FX_PATIENCE_S * 1000), 1);
		assert_int_equal(p.revents, POLLOUT);
	}
	return fd;
}

static inline void fx_raw_send(int fd, uint8_t type, const void *data, uint32_t len)
{
	uint8_t head[TG_RAW_HEADER_LEN];

	raw_header_write(head, (enum tg_raw_type)type, len);
	fx_send(fd, head, sizeof head);
	fx_send(fd, data, len);
}

/* A raw client that has said HELLO; WELCOME follows when the service accepts. */
static inline int fx_client(const struct fx *f)
{
	static const uint8_t hello[] = {1, 2, '/', 'x'};
	int fd = fx_connect(f, FX_RAW);

	fx_raw_send(fd, TG_RAW_HELLO, hello, sizeof hello);
	return fd;
}

/* Type of the next frame; its payload, up to max bytes, and its length. */
static inline uint8_t fx_raw_recv(int fd, void *data, size_t max, size_t *ret_len)
{
	uint8_t head[TG_RAW_HEADER_LEN];
	uint32_t be;

	assert_true(fx_recv(fd, head, sizeof head));
	memcpy(&be, head, sizeof be);
	*ret_len = ntohl(be) - 1;
	assert_true(*ret_len <= max);
	assert_true(fx_recv(fd, data, *ret_len));
	return head[4];
}

static inline void fx_welcome(int fd)
{
	uint8_t data[16];
	size_t len;

	assert_int_equal(fx_raw_recv(fd, data, sizeof data, &len), TG_RAW_WELCOME);
}

/* -------------------------------------------------------------------------------- the service's
 * side of a link */

struct fx_frame {
	struct link_header h;
	uint8_t payload[LINK_PAYLOAD_MAX];
};

static inline void fx_frame_send(
	int fd, uint8_t type, uint64_t session, const void *data, uint32_t len, uint8_t flags)
{
	uint8_t head[TG_LINK_HEADER_LEN];

	link_header_write(
		head, &(struct link_header){
			      .length = len, .type = type, .flags = flags, .session = session});
	fx_send(fd, head, sizeof head);
	fx_send(fd, data, len);
}

static inline void fx_frame_recv(int fd, struct fx_frame *ret)
{
	uint8_t head[TG_LINK_HEADER_LEN];
	const char *why = "";

	assert_true(fx_recv(fd, head, sizeof head));
	if (link_header_parse(head, sizeof head, LINK_FROM_GATEWAY, &ret->h, &why) !=
		TG_LINK_HEADER_LEN)
		fail_msg("%s", why);
	assert_true(fx_recv(fd, ret->payload, ret->h.length));
}

/* The next frame that is no CREDIT, which must be of this type. */
static inline void fx_expect(int fd, uint8_t type, struct fx_frame *ret)
{
	do
		fx_frame_recv(fd, ret);
	while (ret->h.type == TG_LINK_CREDIT && type != TG_LINK_CREDIT);
	if (ret->h.type != type)
		fail_msg("%s instead of %s", link_type_name(ret->h.type), link_type_name(type));
}

static inline int fx_accept(const struct fx *f, unsigned endpoint)
{
	struct pollfd p = {.fd = f->service[endpoint], .events = POLLIN};
	int fd;

	assert_int_equal(fx_poll(&p, 1, FX_PATIENCE_S * 1000), 1);
	while ((fd = accept4(f->service[endpoint], NULL, NULL, SOCK_CLOEXEC)) < 0 && errno == EINTR)
		;
	return fx_prepare(fd);
}

/* A link that is up; windows: what the gateway may send. */
static inline int fx_link(
	const struct fx *f, unsigned endpoint, uint32_t session_window, uint32_t link_window)
{
	uint8_t out[LINK_HELLO_FRAME_MAX];
	struct link_hello h = {
		.session_window = session_window,
		.link_window = link_window,
		.payload_max = TG_LINK_MESSAGE_PAYLOAD_MAX,
		.message_max = FX_MESSAGE_MAX,
		.name = "test",
		.name_len = 4,
	};
	static struct fx_frame hello;
	int fd = fx_accept(f, endpoint);

	fx_expect(fd, TG_LINK_HELLO, &hello);
	fx_send(fd, out, link_hello_write(out, &h));
	return fd;
}

static inline void fx_grant(int fd, uint64_t session, uint32_t bytes)
{
	uint8_t out[LINK_CREDIT_FRAME_LEN];

	fx_send(fd, out, link_credit_write(out, session, bytes));
}

/* -------------------------------------------------------------------------------- both sides */

/* The frame and the message received last. */
static struct fx_frame fx_last;
static uint8_t fx_back[FX_MESSAGE_MAX];

static inline void fx_nap_ms(unsigned ms)
{
	nanosleep(&(struct timespec){.tv_nsec = (long)ms * 1000000}, NULL);
}

/* Waits for a counter, which the worker writes with plain stores. */
static inline void fx_wait_until(const uint64_t *counter, uint64_t want)
{
	for (unsigned i = 0; i < FX_PATIENCE_S * 1000 && *(volatile const uint64_t *)counter < want;
		i++)
		fx_nap_ms(1);
	assert_int_equal(*(volatile const uint64_t *)counter, want);
}

/* A client with an accepted session on this link. */
static inline int fx_open_session(struct fx *f, int link, uint64_t *ret_id)
{
	int c = fx_client(f);

	fx_expect(link, TG_LINK_OPEN, &fx_last);
	*ret_id = fx_last.h.session;
	fx_frame_send(link, TG_LINK_ACCEPT, fx_last.h.session, "", 0, 0);
	fx_welcome(c);
	return c;
}

static inline void fx_expect_message(
	int link, uint64_t session, const void *data, size_t len, uint8_t flags)
{
	fx_expect(link, TG_LINK_MESSAGE, &fx_last);
	assert_true(fx_last.h.session == session);
	assert_int_equal(fx_last.h.flags, flags);
	assert_int_equal(fx_last.h.length, len);
	assert_memory_equal(fx_last.payload, data, len);
}

static inline void fx_expect_raw(int fd, uint8_t type, const void *data, size_t len)
{
	size_t got;

	assert_int_equal(fx_raw_recv(fd, fx_back, sizeof fx_back, &got), type);
	assert_int_equal(got, len);
	assert_memory_equal(fx_back, data, len);
}

#endif
