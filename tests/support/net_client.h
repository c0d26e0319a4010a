/* Plain blocking clients over loopback, for tests of the net layer: WebSocket and raw frames,
 * written and read one at a time. Every wait ends after CLIENT_WAIT_S, so that a test which goes
 * wrong fails instead of hanging. */
#ifndef TIDEGATE_TESTS_NET_CLIENT_H
#define TIDEGATE_TESTS_NET_CLIENT_H

#include <arpa/inet.h>
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "proto/raw.h"
#include "proto/ws.h"

enum {
	CLIENT_WAIT_S = 10,
	CLIENT_HEAD_BYTES = 4096,
};

struct client_frame {
	unsigned op; /* enum ws_opcode, or enum tg_raw_type */
	bool fin;
	uint8_t *data; /* malloc'ed, with a NUL behind it */
	size_t len;
};

static inline uint64_t client_now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static inline void client_sleep_ms(unsigned ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000l};

	nanosleep(&t, NULL);
}

/* -1 and errno when refused. rcvbuf_bytes 0: the system's own. */
static inline int client_connect(uint16_t port, int rcvbuf_bytes)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct timeval wait = {CLIENT_WAIT_S, 0};
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert(fd >= 0);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (rcvbuf_bytes)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf_bytes, sizeof rcvbuf_bytes);
	if (connect(fd, (struct sockaddr *)&to, sizeof to)) {
		int err = errno;

		close(fd);
		errno = err;
		return -1;
	}
	/* Only now: a connect with a timeout would not be restarted when interrupted. */
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
	return fd;
}

/* A ring that this thread has just closed may interrupt a call that has a timeout: once more, then.
 */
static inline ssize_t client_recv(int fd, void *data, size_t len)
{
	ssize_t n;

	do {
		n = recv(fd, data, len, 0);
	} while (n < 0 && errno == EINTR);
	return n;
}

static inline bool client_write(int fd, const void *data, size_t len)
{
	const uint8_t *p = data;

	while (len) {
		ssize_t n = send(fd, p, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		p += n;
		len -= (size_t)n;
	}
	return true;
}

static inline bool client_read(int fd, void *data, size_t len)
{
	uint8_t *p = data;

	while (len) {
		ssize_t n = client_recv(fd, p, len);

		if (n <= 0)
			return false;
		p += n;
		len -= (size_t)n;
	}
	return true;
}

/* True for a FIN with nothing before it. */
static inline bool client_at_eof(int fd)
{
	char ch;

	return client_recv(fd, &ch, 1) == 0;
}

/* True for a FIN or a reset, whatever came before it. */
static inline bool client_gone(int fd)
{
	char skip[4096];
	ssize_t n;

	while ((n = client_recv(fd, skip, sizeof skip)) > 0)
		;
	return n == 0 || errno == ECONNRESET || errno == EPIPE;
}

/* Ends the connection by RST. */
static inline void client_reset(int fd)
{
	struct linger hard = {1, 0};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
	close(fd);
}

/* Reads a response head byte by byte (what follows it is the caller's); its status, or 0. head may
 * be NULL. */
static inline int client_read_head(int fd, char *head, size_t room)
{
	char own[CLIENT_HEAD_BYTES];
	size_t n = 0;
	int status;

	if (!head) {
		head = own;
		room = sizeof own;
	}
	while (n + 1 < room && (n < 4 || memcmp(head + n - 4, "\r\n\r\n", 4))) {
		if (client_recv(fd, head + n, 1) != 1)
			return 0;
		n++;
	}
	head[n] = 0;
	return sscanf(head, "HTTP/1.1 %d", &status) == 1 ? status : 0;
}

/* Writes a WebSocket handshake; `more` are further header lines with their line ends, or NULL.
 * Returns its length. */
static inline int client_ws_request(char *out, size_t room, const char *path, const char *more)
{
	return snprintf(out, room,
		"GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: "
		"Upgrade\r\n"
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: "
		"13\r\n%s\r\n",
		path, more ? more : "");
}

/* The status of the answer, 101 when the session is open; 0 when there was none. */
static inline int client_ws_open(int fd, const char *path, const char *more)
{
	char out[CLIENT_HEAD_BYTES];
	int len = client_ws_request(out, sizeof out, path, more);

	return client_write(fd, out, (size_t)len) ? client_read_head(fd, NULL, 0) : 0;
}

/* A client's frame into out (len + WS_HEADER_MAX bytes); its length. */
static inline size_t client_ws_frame(
	uint8_t *out, enum ws_opcode op, bool fin, const void *data, size_t len)
{
	static const uint8_t mask[4] = {0x12, 0x34, 0x56, 0x78};
	size_t head = ws_header_write_masked(out, op, fin, len, mask);

	for (size_t i = 0; i < len; i++)
		out[head + i] = ((const uint8_t *)data)[i] ^ mask[i % 4];
	return head + len;
}

static inline bool client_ws_send(int fd, enum ws_opcode op, bool fin, const void *data, size_t len)
{
	uint8_t *out = malloc(len + WS_HEADER_MAX);
	bool ok;

	assert(out);
	ok = client_write(fd, out, client_ws_frame(out, op, fin, data, len));
	free(out);
	return ok;
}

static inline bool client_ws_send_close(int fd, uint16_t code)
{
	uint16_t be = htobe16(code);

	return client_ws_send(fd, WS_CLOSE, true, &be, sizeof be);
}

static inline bool client_frame_body(int fd, struct client_frame *f)
{
	f->data = malloc(f->len + 1);
	assert(f->data);
	if (!client_read(fd, f->data, f->len)) {
		free(f->data);
		f->data = NULL;
		return false;
	}
	f->data[f->len] = 0;
	return true;
}

/* False at the end of the stream, or when nothing came in time. The caller frees ret->data. */
static inline bool client_ws_recv(int fd, struct client_frame *ret)
{
	uint8_t head[2], more[8] = {0};

	*ret = (struct client_frame){0};
	if (!client_read(fd, head, 2) || (head[1] & 0x80))
		return false;
	ret->fin = head[0] & 0x80;
	ret->op = head[0] & 0x0f;
	ret->len = head[1];
	if (ret->len == 126) {
		if (!client_read(fd, more + 6, 2))
			return false;
	} else if (ret->len == 127) {
		if (!client_read(fd, more, 8))
			return false;
	}
	if (ret->len >= 126) {
		uint64_t be;

		memcpy(&be, more, 8);
		ret->len = be64toh(be);
	}
	return client_frame_body(fd, ret);
}

/* The next frame is a close with this code. */
static inline bool client_ws_closed_with(int fd, uint16_t code)
{
	struct client_frame f;
	bool ok;

	if (!client_ws_recv(fd, &f))
		return false;
	ok = f.op == WS_CLOSE && f.len >= 2 && (f.data[0] << 8 | f.data[1]) == code;
	free(f.data);
	return ok;
}

/* The next frame is a text, and this one. */
static inline bool client_ws_got(int fd, const char *text)
{
	struct client_frame f;
	bool ok;

	if (!client_ws_recv(fd, &f))
		return false;
	ok = f.op == WS_TEXT && f.fin && f.len == strlen(text) && !memcmp(f.data, text, f.len);
	free(f.data);
	return ok;
}

/* Sends a text and reads it back. */
static inline bool client_ws_echo(int fd, const char *text)
{
	return client_ws_send(fd, WS_TEXT, true, text, strlen(text)) && client_ws_got(fd, text);
}

static inline bool client_raw_send(int fd, enum tg_raw_type type, const void *data, size_t len)
{
	uint8_t *out = malloc(len + TG_RAW_HEADER_LEN);
	size_t head;
	bool ok;

	assert(out);
	head = raw_header_write(out, type, (uint32_t)len);
	if (len)
		memcpy(out + head, data, len);
	ok = client_write(fd, out, head + len);
	free(out);
	return ok;
}

static inline bool client_raw_recv(int fd, struct client_frame *ret)
{
	uint8_t head[TG_RAW_HEADER_LEN];
	uint32_t be;

	*ret = (struct client_frame){0};
	if (!client_read(fd, head, sizeof head))
		return false;
	memcpy(&be, head, sizeof be);
	ret->op = head[4];
	ret->fin = true;
	ret->len = be32toh(be) - 1;
	return client_frame_body(fd, ret);
}

/* HELLO, and WELCOME for an answer; *ret_session may be NULL. */
static inline bool client_raw_open(int fd, const char *path, uint64_t *ret_session)
{
	uint8_t hello[2 + 255] = {TG_RAW_VERSION, (uint8_t)strlen(path)};
	struct client_frame f;
	uint64_t be;

	memcpy(hello + 2, path, strlen(path));
	if (!client_raw_send(fd, TG_RAW_HELLO, hello, 2 + strlen(path)) || !client_raw_recv(fd, &f))
		return false;
	if (f.op != TG_RAW_WELCOME || f.len != 9) {
		free(f.data);
		return false;
	}
	memcpy(&be, f.data + 1, sizeof be);
	if (ret_session)
		*ret_session = be64toh(be);
	free(f.data);
	return true;
}

#endif
