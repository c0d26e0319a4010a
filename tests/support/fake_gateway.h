/* The gateway's end of a link, for tests of libtidegate-link: writes any bytes, reads whole frames.
 * Server and gateway live in one thread; whoever waits for a frame lets the server run meanwhile.
 * Without a server (NULL) the peer is another process. */
#ifndef TIDEGATE_TESTS_FAKE_GATEWAY_H
#define TIDEGATE_TESTS_FAKE_GATEWAY_H

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "proto/link_codec.h"

enum {
	FAKE_IN_BYTES = 256 * 1024,
	FAKE_WAIT_MS = 5000,
	FAKE_QUIET_MS = 20,
	FAKE_SESSION_WINDOW = 128 * 1024,
	FAKE_LINK_WINDOW = 1024 * 1024,
};

struct fake_frame {
	struct link_header h;
	const uint8_t *payload; /* until the next frame is read */
};

struct fake_gateway {
	struct tg_link_server *server;
	int fd;
	bool eof;    /* the server closed */
	bool credit; /* grant back at once what MESSAGEs cost */
	uint8_t in[FAKE_IN_BYTES];
	size_t head, tail;
};

static inline uint64_t fake_now_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* The gateway's end of a socket pair whose other end the server takes over. */
static inline struct fake_gateway *fake_gateway_create(struct tg_link_server *server)
{
	struct fake_gateway *g = calloc(1, sizeof(*g));
	int fds[2];
	assert(g && socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
	g->server = server;
	g->fd = fds[0];
	assert(tg_link_server_adopt(server, fds[1]) == 0);
	return g;
}

/* A connection to one of the server's listeners: "unix:/path" or "127.0.0.1:port". */
static inline struct fake_gateway *fake_gateway_connect(
	struct tg_link_server *server, const char *address)
{
	struct fake_gateway *g = calloc(1, sizeof(*g));
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	bool is_unix = strncmp(address, "unix:", 5) == 0;
	assert(g);
	if (is_unix)
		memccpy(un.sun_path, address + 5, 0, sizeof(un.sun_path) - 1);
	else
		in.sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1));
	g->server = server;
	g->fd = socket(is_unix ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert(g->fd >= 0);
	if (connect(g->fd, is_unix ? (struct sockaddr *)&un : (struct sockaddr *)&in,
		    is_unix ? sizeof(un) : sizeof(in))) {
		close(g->fd);
		free(g);
		return NULL;
	}
	return g;
}

static inline void fake_gateway_destroy(struct fake_gateway *g)
{
	close(g->fd);
	free(g);
}

static inline void fake_pump(struct fake_gateway *g, int timeout_ms)
{
	if (!g->server) {
		poll(&(struct pollfd){.fd = g->fd, .events = POLLIN}, 1, timeout_ms);
		return;
	}
	assert(tg_link_server_dispatch(g->server, timeout_ms) >= 0);
}

/* False when the server closed the connection before everything was written. */
static inline bool fake_write(struct fake_gateway *g, const void *data, size_t len)
{
	const uint8_t *p = data;
	uint64_t deadline = fake_now_ms() + FAKE_WAIT_MS;
	while (len > 0) {
		ssize_t n = send(g->fd, p, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno != EAGAIN)
			return false;
		if (n < 0)
			fake_pump(g, 1);
		else
			p += n, len -= (size_t)n;
		assert(fake_now_ms() < deadline);
	}
	return true;
}

static inline void fake_frame(struct fake_gateway *g, enum tg_link_type type, unsigned flags,
	uint64_t session, const void *payload, size_t len)
{
	uint8_t header[TG_LINK_HEADER_LEN];
	link_header_write(header, &(struct link_header){.length = (uint32_t)len,
					  .type = (uint8_t)type,
					  .flags = (uint8_t)flags,
					  .session = session});
	fake_write(g, header, sizeof(header));
	fake_write(g, payload, len);
}

static inline void fake_credit(struct fake_gateway *g, uint64_t session, uint32_t bytes)
{
	uint8_t out[LINK_CREDIT_FRAME_LEN];
	fake_write(g, out, link_credit_write(out, session, bytes));
}

/* A message in parts of at most part bytes; the caller minds the credit. */
static inline void fake_message(struct fake_gateway *g, uint64_t session, const void *data,
	size_t len, bool text, size_t part)
{
	size_t at = 0;
	do {
		size_t n = len - at < part ? len - at : part;
		unsigned flags =
			(text ? TG_LINK_FLAG_TEXT : 0u) | (at + n < len ? TG_LINK_FLAG_MORE : 0u);
		fake_frame(g, TG_LINK_MESSAGE, flags, session,
			n ? (const uint8_t *)data + at : NULL, n);
		at += n;
	} while (at < len);
}

static inline void fake_hello_with(struct fake_gateway *g, uint32_t features,
	uint32_t session_window, uint32_t link_window, uint32_t payload_max, uint32_t message_max)
{
	struct link_hello h = {
		.worker = 2,
		.session_window = session_window,
		.link_window = link_window,
		.payload_max = payload_max,
		.message_max = message_max,
		.features = features,
		.name = "gw-a",
		.name_len = 4,
	};
	uint8_t out[LINK_HELLO_FRAME_MAX];
	fake_write(g, out, link_hello_write(out, &h));
}

/* The next frame if it comes within wait_ms. */
static inline bool fake_next(struct fake_gateway *g, struct fake_frame *f, unsigned wait_ms)
{
	uint64_t deadline = fake_now_ms() + wait_ms;
	for (;;) {
		const char *why = NULL;
		ssize_t n = link_header_parse(
			g->in + g->head, g->tail - g->head, LINK_FROM_SERVICE, &f->h, &why);
		assert(n >= 0);
		if (n > 0 && g->tail - g->head - (size_t)n >= f->h.length) {
			f->payload = g->in + g->head + n;
			g->head += (size_t)n + f->h.length;
			if (g->credit && f->h.type == TG_LINK_MESSAGE) {
				fake_credit(g, f->h.session, link_cost(f->h.length));
				fake_credit(g, 0, link_cost(f->h.length));
			}
			return true;
		}
		memmove(g->in, g->in + g->head, g->tail - g->head);
		g->tail -= g->head;
		g->head = 0;
		ssize_t got = g->eof ? 0
				     : recv(g->fd, g->in + g->tail, sizeof(g->in) - g->tail,
					       MSG_DONTWAIT);
		if (got > 0) {
			g->tail += (size_t)got;
			continue;
		}
		if (got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK))
			g->eof = true;
		uint64_t now = fake_now_ms();
		if (g->eof || now >= deadline)
			return false;
		fake_pump(g, now + 5 < deadline ? 5 : (int)(deadline - now));
	}
}

/* The next frame, which must be of this type and session; CREDIT frames before it are passed over
 * unless asked for. */
static inline struct fake_frame fake_expect(
	struct fake_gateway *g, enum tg_link_type type, uint64_t session)
{
	struct fake_frame f;
	do {
		bool came = fake_next(g, &f, FAKE_WAIT_MS);
		assert(came);
	} while (f.h.type == TG_LINK_CREDIT && type != TG_LINK_CREDIT);
	assert(f.h.type == type && f.h.session == session);
	return f;
}

/* Nothing but CREDIT comes for a while. */
static inline bool fake_quiet(struct fake_gateway *g)
{
	struct fake_frame f;
	while (fake_next(g, &f, FAKE_QUIET_MS)) {
		if (f.h.type != TG_LINK_CREDIT)
			return false;
	}
	return true;
}

/* The server ends the link with an ERROR of this code, and then closes. */
static inline bool fake_ended(struct fake_gateway *g, enum tg_link_error want)
{
	struct fake_frame f;
	bool seen = false;
	while (fake_next(g, &f, FAKE_WAIT_MS)) {
		const char *why, *reason;
		size_t reason_len;
		uint16_t code;
		if (f.h.type != TG_LINK_ERROR)
			continue;
		assert(link_error_parse(f.payload, f.h.length, &code, &reason, &reason_len, &why) ==
			0);
		seen = code == want && reason_len > 0;
	}
	return seen && g->eof;
}

/* Both HELLOs. */
static inline void fake_handshake(struct fake_gateway *g, uint32_t features)
{
	fake_hello_with(g, features, FAKE_SESSION_WINDOW, FAKE_LINK_WINDOW,
		TG_LINK_MESSAGE_PAYLOAD_MAX, 16 * 1024 * 1024);
	fake_expect(g, TG_LINK_HELLO, 0);
	fake_pump(g, 0);
}

static inline void fake_open(struct fake_gateway *g, uint64_t session, const char *metadata)
{
	fake_frame(g, TG_LINK_OPEN, 0, session, metadata, strlen(metadata));
}

/* A session the server accepts at once. */
static inline void fake_session(struct fake_gateway *g, uint64_t session)
{
	fake_open(g, session, "{\"protocol\":\"raw\"}");
	fake_expect(g, TG_LINK_ACCEPT, session);
}

/* A whole message of this session; returns its length. buf: NULL throws it away. */
static inline size_t fake_receive(struct fake_gateway *g, uint64_t session, uint8_t *buf,
	size_t cap, bool *ret_text, unsigned *ret_frames)
{
	size_t len = 0;
	for (unsigned frames = 1;; frames++) {
		struct fake_frame f = fake_expect(g, TG_LINK_MESSAGE, session);
		assert(len + f.h.length <= cap);
		if (f.h.length && buf)
			memcpy(buf + len, f.payload, f.h.length);
		len += f.h.length;
		if (f.h.flags & TG_LINK_FLAG_MORE)
			continue;
		if (ret_text)
			*ret_text = f.h.flags & TG_LINK_FLAG_TEXT;
		if (ret_frames)
			*ret_frames = frames;
		return len;
	}
}

#endif
