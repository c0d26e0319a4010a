/* The yardstick of `make bench`: a plain, single-threaded epoll WebSocket server on the codec of
 * the gateway. It echoes, but on /hub, where what one client publishes goes to all who have
 * subscribed.
 *
 * It is written to be fast in the ordinary way, so that a comparison with it says something:
 * level-triggered epoll with batches of events, one recv into a large shared buffer, every frame of
 * it parsed, all answers gathered into one send, no timers, no logging, EPOLLOUT only while a
 * socket is full. What it leaves out (routes, limits, heartbeats, statistics) makes it cheaper than
 * any gateway.
 *
 * The fan-out is what one would write first: a loop over the sockets, with a frame made and sent
 * for each. It knows one topic, reads no more of the JSON than it must, and leaves the echoes
 * waiting.
 *
 * Usage: epoll_server [--port N] [--cpu N]; it listens on 127.0.0.1 and says where on its first
 * line of output.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/http_upgrade.h"
#include "proto/ws.h"

enum {
	EVENTS_MAX = 512,
	RECV_BYTES = 64 * 1024,
	ACCEPT_BATCH = 64, /* connections taken per readiness of the listener, so that open ones are
			      not starved */
	HEAD_MAX = 8192,
	MESSAGE_MAX = 16 << 20,
	BACKLOG = 4096,
};

struct bytes {
	uint8_t *data;
	size_t len, cap;
};

/* Idle: this struct and the kernel's socket; buffers exist only while something is incomplete. */
struct conn {
	int fd;
	bool open; /* past the handshake */
	bool hub;  /* it came by /hub */
	bool subscribed;
	size_t subscriber; /* its place in the server's list */
	bool closing;      /* a close frame is queued; the connection ends once it is sent */
	bool blocked; /* EPOLLOUT armed, EPOLLIN not: a peer that does not read is not read from */
	struct ws_parser parser;
	struct bytes in;      /* a request head or a message that has not arrived in full */
	struct bytes control; /* the same for a control frame, which may stand inside a message */
	struct bytes out;     /* what the socket did not take */
	size_t out_sent;
};

struct server {
	int epoll, listener;
	bool full; /* out of descriptors: the listener is not watched until a connection ends */
	uint8_t recv[RECV_BYTES];
	struct bytes answers; /* of the readable event being handled */
	struct conn **subscribers;
	size_t n_subscribers, subscribers_room;
	struct bytes frame; /* of the delivery being made */
};

static volatile sig_atomic_t stop;

static void on_signal(int sig)
{
	stop = 1;
}

/* Room for n more bytes; the program has nothing useful to do without memory. */
static uint8_t *bytes_room(struct bytes *b, size_t n)
{
	if (b->cap - b->len < n) {
		size_t cap = b->cap ? b->cap : 1024;
		while (cap < b->len + n)
			cap *= 2;
		b->data = realloc(b->data, cap);
		if (!b->data) {
			perror("epoll_server");
			exit(1);
		}
		b->cap = cap;
	}
	return b->data + b->len;
}

static void bytes_add(struct bytes *b, const void *data, size_t len)
{
	if (!len)
		return;
	memcpy(bytes_room(b, len), data, len);
	b->len += len;
}

static void bytes_free(struct bytes *b)
{
	free(b->data);
	*b = (struct bytes){0};
}

static void listener_watch(struct server *s, bool watch)
{
	struct epoll_event ev = {.events = watch ? EPOLLIN : 0};

	epoll_ctl(s->epoll, EPOLL_CTL_MOD, s->listener, &ev);
	s->full = !watch;
}

static void unsubscribe(struct server *s, struct conn *c)
{
	if (!c->subscribed)
		return;
	struct conn *last = s->subscribers[--s->n_subscribers];
	s->subscribers[c->subscriber] = last;
	last->subscriber = c->subscriber;
	c->subscribed = false;
}

static void conn_end(struct server *s, struct conn *c)
{
	unsubscribe(s, c);
	close(c->fd); /* takes it out of the epoll set too */
	if (s->full)
		listener_watch(s, true);
	bytes_free(&c->in);
	bytes_free(&c->control);
	bytes_free(&c->out);
	free(c);
}

static int conn_watch(struct server *s, struct conn *c, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = c};
	return epoll_ctl(s->epoll, EPOLL_CTL_MOD, c->fd, &ev);
}

static void answer_frame(struct server *s, enum ws_opcode op, const void *data, size_t len)
{
	struct bytes *b = &s->answers;
	b->len += ws_header_write(bytes_room(b, WS_SERVER_HEADER_MAX + len), op, true, len);
	bytes_add(b, data, len);
}

static void answer_close(struct server *s, struct conn *c, uint16_t code, const char *why)
{
	struct bytes *b = &s->answers;
	b->len += ws_close_write(bytes_room(b, 2 + WS_CONTROL_PAYLOAD_MAX), code, why);
	c->closing = true;
}

static void on_close_frame(struct server *s, struct conn *c, const uint8_t *payload, size_t len)
{
	uint16_t code;
	const uint8_t *reason;
	size_t reason_len;
	int err = ws_close_parse(payload, len, &code, &reason, &reason_len);
	answer_close(s, c, !err && code == WS_CLOSE_NO_STATUS ? WS_CLOSE_NORMAL : code, "");
}

/* Sends; what does not fit is kept for EPOLLOUT. Returns false when the connection is gone. */
static bool conn_send(struct server *s, struct conn *c, const uint8_t *data, size_t len)
{
	if (c->blocked) {
		bytes_add(&c->out, data, len);
		return true;
	}
	ssize_t n = send(c->fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n < 0 && errno != EAGAIN && errno != EINTR)
		return false;
	if (n < 0)
		n = 0;
	if ((size_t)n == len)
		return !c->closing;
	bytes_add(&c->out, data + n, len - (size_t)n);
	c->blocked = true;
	return conn_watch(s, c, EPOLLOUT) == 0;
}

static void subscribe(struct server *s, struct conn *c)
{
	static const char ack[] = "{\"type\":\"ack\",\"id\":1}";

	if (s->n_subscribers == s->subscribers_room) {
		s->subscribers_room = s->subscribers_room ? 2 * s->subscribers_room : 1024;
		s->subscribers = realloc(s->subscribers, s->subscribers_room * sizeof c);
		if (!s->subscribers) {
			perror("epoll_server");
			exit(1);
		}
	}
	if (!c->subscribed) {
		c->subscribed = true;
		c->subscriber = s->n_subscribers;
		s->subscribers[s->n_subscribers++] = c;
	}
	answer_frame(s, WS_TEXT, ack, sizeof ack - 1);
}

/* `data` is the publication's, with the brace that ends the message. */
static void publish(struct server *s, const char *data, size_t len)
{
	static const char head[] = "{\"type\":\"message\",\"topic\":\"bench\",\"data\":";

	for (size_t i = 0; i < s->n_subscribers; i++) {
		struct conn *c = s->subscribers[i];
		struct bytes *b = &s->frame;

		b->len = 0;
		b->len += ws_header_write(
			bytes_room(b, WS_SERVER_HEADER_MAX), WS_TEXT, true, sizeof head - 1 + len);
		bytes_add(b, head, sizeof head - 1);
		bytes_add(b, data, len);
		if (!conn_send(s, c, b->data, b->len))
			shutdown(c->fd, SHUT_RDWR); /* its next event ends it */
	}
}

static void on_hub_message(struct server *s, struct conn *c, const uint8_t *text, size_t len)
{
	static const char is_subscribe[] = "\"type\":\"subscribe\"", data[] = "\"data\":";
	const char *found;

	if (memmem(text, len, is_subscribe, sizeof is_subscribe - 1)) {
		subscribe(s, c);
	} else if ((found = memmem(text, len, data, sizeof data - 1))) {
		found += sizeof data - 1;
		publish(s, found, len - (size_t)(found - (const char *)text));
	}
}

/* What is at hand in one piece, the usual case, is answered out of the receive buffer; the rest is
 * put together first. */
static void on_event(struct server *s, struct conn *c, const struct ws_event *ev)
{
	struct bytes *part = ev->kind == WS_EVENT_DATA ? &c->in : &c->control;
	const uint8_t *data = ev->data;
	size_t len = ev->len;

	if (!ev->start || !ev->end) {
		bytes_add(part, ev->data, ev->len);
		if (!ev->end)
			return;
		data = part->data;
		len = part->len;
	}
	if (ev->kind == WS_EVENT_DATA && c->hub)
		on_hub_message(s, c, data, len);
	else if (ev->kind == WS_EVENT_DATA)
		answer_frame(s, ev->text ? WS_TEXT : WS_BINARY, data, len);
	else if (ev->kind == WS_EVENT_PING)
		answer_frame(s, WS_PONG, data, len);
	else if (ev->kind == WS_EVENT_CLOSE)
		on_close_frame(s, c, data, len);
	if (part->data)
		bytes_free(part);
}

static void on_frames(struct server *s, struct conn *c, uint8_t *data, size_t len)
{
	static const struct ws_limits limits = {.message_max = MESSAGE_MAX};

	while (len && !c->closing) {
		struct ws_event ev;
		bool has_event;
		uint16_t code;
		const char *why;
		ssize_t n = ws_parse(&c->parser, &limits, data, len, &ev, &has_event, &code, &why);
		if (n < 0) {
			answer_close(s, c, code, why);
			return;
		}
		if (has_event)
			on_event(s, c, &ev);
		data += n;
		len -= (size_t)n;
	}
}

/* Puts the answer to a request into s->answers. Returns the bytes of the head, or 0: more is
 * needed, or it was refused. */
static size_t on_head(struct server *s, struct conn *c, const uint8_t *data, size_t len)
{
	static const struct http_limits limits = {HEAD_MAX, 2048, HTTP_HEADERS_MAX};
	struct http_request req;
	struct http_error err;
	ssize_t n = http_request_parse((const char *)data, len, &limits, &req, &err);

	if (n == 0)
		return 0;
	char *out = (char *)bytes_room(&s->answers, HTTP_RESPONSE_MAX);
	if (n < 0 || http_upgrade_check(&req, &err)) {
		s->answers.len += http_response(out, err.status, err.why, 0);
		c->closing = true;
		return 0;
	}
	char accept_key[HTTP_ACCEPT_LEN + 1];
	http_accept_key(req.key, accept_key);
	s->answers.len += http_upgrade_response(out, accept_key, NULL);
	c->open = true;
	c->hub = req.path.len == 4 && !memcmp(req.path.data, "/hub", 4);
	ws_parser_init(&c->parser);
	return (size_t)n;
}

/* Before the handshake is over: a head that came whole is parsed where it lies, another one in
 * c->in. */
static void on_handshake(struct server *s, struct conn *c, uint8_t *data, size_t len)
{
	struct bytes whole = {0};

	if (c->in.len) {
		bytes_add(&c->in, data, len);
		data = c->in.data;
		len = c->in.len;
	}
	size_t head = on_head(s, c, data, len);
	if (c->open) {
		whole = c->in; /* frames may put messages together in c->in from here on */
		c->in = (struct bytes){0};
		on_frames(s, c, data + head, len - head);
		bytes_free(&whole);
	} else if (!c->closing && !c->in.len) {
		bytes_add(&c->in, data, len);
	}
}

static bool on_readable(struct server *s, struct conn *c)
{
	ssize_t n = recv(c->fd, s->recv, sizeof s->recv, MSG_DONTWAIT);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (n == 0)
		return false;
	s->answers.len = 0;
	if (c->open)
		on_frames(s, c, s->recv, (size_t)n);
	else
		on_handshake(s, c, s->recv, (size_t)n);
	return !s->answers.len || conn_send(s, c, s->answers.data, s->answers.len);
}

static bool on_writable(struct server *s, struct conn *c)
{
	size_t left = c->out.len - c->out_sent;
	ssize_t n = send(c->fd, c->out.data + c->out_sent, left, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	c->out_sent += (size_t)n;
	if ((size_t)n < left)
		return true;
	bytes_free(&c->out);
	c->out_sent = 0;
	if (c->closing)
		return false;
	c->blocked = false;
	return conn_watch(s, c, EPOLLIN) == 0;
}

static void on_connectable(struct server *s)
{
	for (int i = 0; i < ACCEPT_BATCH; i++) {
		int fd = accept4(s->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0) {
			if (errno == EMFILE || errno == ENFILE)
				listener_watch(s, false);
			return;
		}
		struct conn *c = calloc(1, sizeof *c);
		struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
		if (!c || epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &ev)) {
			close(fd);
			free(c);
			return;
		}
		c->fd = fd;
	}
}

static void serve(struct server *s)
{
	struct epoll_event ev[EVENTS_MAX];

	while (!stop) {
		int n = epoll_wait(s->epoll, ev, EVENTS_MAX, -1);
		for (int i = 0; i < n; i++) {
			struct conn *c = ev[i].data.ptr;
			if (!c)
				on_connectable(s);
			else if (!(c->blocked ? on_writable(s, c) : on_readable(s, c)))
				conn_end(s, c);
		}
	}
}

static int listen_on(uint16_t port)
{
	struct sockaddr_in a = {
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof a;
	int one = 1;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) ||
		setsockopt(
			fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) || /* inherited by accept */
		bind(fd, (struct sockaddr *)&a, sizeof a) ||
		listen(fd, BACKLOG) || getsockname(fd, (struct sockaddr *)&a, &len)) {
		perror("epoll_server: listen");
		exit(1);
	}
	printf("listening on 127.0.0.1:%u\n", ntohs(a.sin_port));
	fflush(stdout);
	return fd;
}

static long number(const char *text, long max)
{
	char *end;
	long v = strtol(text, &end, 10);

	if (*end || end == text || v < 0 || v > max) {
		fprintf(stderr, "epoll_server: %s is not a number from 0 to %ld\n", text, max);
		exit(2);
	}
	return v;
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof set, &set)) {
		perror("epoll_server: --cpu");
		exit(2);
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"port", required_argument, NULL, 'p'},
		{"cpu", required_argument, NULL, 'c'},
		{0},
	};
	static struct server s;
	uint16_t port = 0;

	for (int opt; (opt = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		if (opt == 'p') {
			port = (uint16_t)number(optarg, 65535);
		} else if (opt == 'c') {
			pin((int)number(optarg, CPU_SETSIZE - 1));
		} else {
			fprintf(stderr, "usage: epoll_server [--port N] [--cpu N]\n");
			return 2;
		}
	}
	struct rlimit files;
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	signal(SIGINT, on_signal);
	signal(SIGTERM, on_signal);
	s.epoll = epoll_create1(EPOLL_CLOEXEC);
	s.listener = listen_on(port);
	struct epoll_event ev = {.events = EPOLLIN};
	if (s.epoll < 0 || epoll_ctl(s.epoll, EPOLL_CTL_ADD, s.listener, &ev)) {
		perror("epoll_server");
		return 1;
	}
	serve(&s);
	_exit(0); /* with the connections as they are; the kernel takes everything back */
}
