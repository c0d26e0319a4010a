#include "http_client.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static int dial(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct timeval limit = {.tv_sec = HTTP_SILENCE_S};

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* The limit for sending is also that for connecting, when the backlog is full. */
	int r = setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (!r)
		r = setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (!r)
		r = connect(fd, (struct sockaddr *)&addr, sizeof(addr));
	if (r < 0) {
		r = errno == EAGAIN ? -ETIMEDOUT : -errno;
		close(fd);
		return r;
	}
	return fd;
}

static int send_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		data += n;
		len -= (size_t)n;
	}
	return 0;
}

/* Reads until the peer closes. 0 and a buffer with room for one more byte. */
static int receive_all(int fd, char **ret, size_t *ret_len)
{
	size_t len = 0, cap = 1 << 16;
	char *data = malloc(cap);
	int r = data ? 0 : -ENOMEM;

	while (!r) {
		if (len + 1 == cap) {
			char *more = cap < HTTP_REPLY_MAX ? realloc(data, cap * 2) : NULL;
			if (!more) {
				r = cap < HTTP_REPLY_MAX ? -ENOMEM : -EFBIG;
				break;
			}
			data = more;
			cap *= 2;
		}
		ssize_t n = recv(fd, data + len, cap - len - 1, 0);
		if (n == 0) {
			*ret = data;
			*ret_len = len;
			return 0;
		}
		if (n > 0)
			len += (size_t)n;
		else if (errno != EINTR)
			r = errno == EAGAIN ? -ETIMEDOUT : -errno;
	}
	free(data);
	return r;
}

/* The value of a header among the lines of head, or NULL; ended by "\r\n". */
static const char *header(const char *head, const char *name)
{
	size_t n = strlen(name);

	for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
		line += 2;
		if (strncasecmp(line, name, n) || line[n] != ':')
			continue;
		line += n + 1;
		return line + strspn(line, " \t");
	}
	return NULL;
}

/* Joins chunks in place (RFC 9112 7.1); trailers are ignored. */
static int join_chunks(char *body, size_t len, size_t *ret_len)
{
	char *in = body, *out = body, *end = body + len;

	for (;;) {
		char *line_end = memchr(in, '\n', (size_t)(end - in));
		size_t digits = strspn(in, "0123456789abcdefABCDEF");
		if (!line_end || digits == 0 || digits > 8 ||
			(in[digits] != '\r' && in[digits] != ';'))
			return -EPROTO;
		unsigned long size = strtoul(in, NULL, 16);
		in = line_end + 1;
		if (size == 0)
			break;
		if ((size_t)(end - in) < 2 || size > (size_t)(end - in) - 2 ||
			memcmp(in + size, "\r\n", 2))
			return -EPROTO;
		memmove(out, in, size);
		out += size;
		in += size + 2;
	}
	*ret_len = (size_t)(out - body);
	return 0;
}

int http_reply_parse(char *data, size_t len, struct http_reply *ret)
{
	unsigned major, status;
	size_t body_len;

	data[len] = '\0';
	char *head_end = strstr(data, "\r\n\r\n");
	if (!head_end || sscanf(data, "HTTP/1.%1u %3u", &major, &status) != 2 || status < 100)
		return -EPROTO;
	char *body = head_end + 4;
	head_end[2] = '\0'; /* headers are looked for up to here; each still ends in "\r\n" */
	body_len = len - (size_t)(body - data);

	const char *coding = header(data, "Transfer-Encoding"),
		   *length = header(data, "Content-Length");
	if (coding && !strncasecmp(coding, "chunked\r\n", 9)) {
		if (join_chunks(body, body_len, &body_len) < 0)
			return -EPROTO;
	} else if (length) {
		char *end;
		unsigned long long announced = strtoull(length, &end, 10);
		if (end == length || *end != '\r' || announced > body_len)
			return -EPROTO;
		body_len = announced;
	} else if (coding) {
		return -EPROTO;
	}
	body[body_len] = '\0';
	ret->status = status;
	ret->body = body;
	ret->len = body_len;
	return 0;
}

int http_ask(const char *path, const char *method, const char *target, const char *body,
	struct http_reply *ret)
{
	struct http_reply reply = {0};
	char *request = NULL, length[64] = "";
	size_t len = 0;
	int fd = dial(path);
	if (fd < 0)
		return fd;

	if (!strcmp(method, "POST"))
		snprintf(
			length, sizeof(length), "Content-Length: %zu\r\n", body ? strlen(body) : 0);
	int n = asprintf(&request,
		"%s %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: tidegatectl\r\n"
		"Connection: close\r\n%s\r\n",
		method, target, length);
	int r = n < 0 ? -ENOMEM : send_all(fd, request, (size_t)n);
	if (!r && body)
		r = send_all(fd, body, strlen(body));
	free(n < 0 ? NULL : request);
	if (!r)
		r = receive_all(fd, &reply.data, &len);
	close(fd);
	if (!r)
		r = http_reply_parse(reply.data, len, &reply);
	if (r < 0) {
		free(reply.data);
		return r;
	}
	*ret = reply;
	return 0;
}
