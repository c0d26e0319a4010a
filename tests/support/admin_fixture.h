/* A running admin surface on a TCP and a Unix socket, with a made-up gateway behind it, and a
 * client that asks it. Include after cmocka.h. Order: group_setup, then setup and teardown for each
 * test, group_teardown. */
#ifndef TIDEGATE_TESTS_ADMIN_FIXTURE_H
#define TIDEGATE_TESTS_ADMIN_FIXTURE_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "fake_backend.h"
#include "ops/admin.h"

static struct fake_backend fake;
static struct admin *admin;
static struct admin_token token; /* not set, unless a test does */
static int tcp_copy; /* as the keeper holds one */
static uint16_t port;
static char dir[] = "/tmp/tidegate-test-XXXXXX";
static char socket_path[64];
static const struct admin_hub hubs[] = {{"/hub", 8080}, {"/a\"b", 8080}, {"/", 8443}};
static unsigned n_hubs = 3; /* of these, known to the admin */

enum door {
	TCP,
	LOCAL
};

struct reply {
	int status;
	char head[4096];
	char *body; /* dechunked, NUL-terminated */
	size_t body_len;
	bool complete; /* the body ended as announced */
};

static inline int dial(enum door door)
{
	struct sockaddr_in in = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
		.sin_port = htons(port),
	};
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	strcpy(un.sun_path, socket_path);
	int fd = socket(door == TCP ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	struct timeval limit = {.tv_sec = 30};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	int r = door == TCP ? connect(fd, (struct sockaddr *)&in, sizeof(in))
			    : connect(fd, (struct sockaddr *)&un, sizeof(un));
	if (r < 0) {
		close(fd);
		return -errno;
	}
	return fd;
}

static inline void dechunk(struct reply *r)
{
	char *in = r->body, *end = r->body + r->body_len, *out = r->body;

	r->complete = false;
	while (in < end) {
		char *data;
		size_t n = strtoul(in, &data, 16);
		assert_true(data > in && data + 2 <= end && !memcmp(data, "\r\n", 2));
		data += 2;
		if (n == 0) {
			r->complete = true;
			break;
		}
		if (data + n + 2 > end)
			break;
		memmove(out, data, n);
		out += n;
		in = data + n + 2;
	}
	r->body_len = (size_t)(out - r->body);
	r->body[r->body_len] = '\0';
}

/* Reads to the end of the connection. */
static inline struct reply read_reply(int fd)
{
	struct reply r = {0};
	size_t len = 0, cap = 1 << 16;
	char *all = malloc(cap);
	ssize_t n;

	while ((n = recv(fd, all + len, cap - len - 1, 0)) > 0) {
		len += (size_t)n;
		if (cap - len < 4096)
			all = realloc(all, cap *= 2);
	}
	assert_int_equal(n, 0);
	close(fd);
	all[len] = '\0';
	char *end = strstr(all, "\r\n\r\n");
	if (!end)
		fail_msg("no answer: %s", all);
	snprintf(r.head, sizeof(r.head), "%.*s\r\n", (int)(end - all), all);
	assert_int_equal(sscanf(r.head, "HTTP/1.1 %d", &r.status), 1);
	r.body_len = len - (size_t)(end + 4 - all);
	memmove(all, end + 4, r.body_len + 1);
	r.body = all;
	if (strcasestr(r.head, "Transfer-Encoding: chunked")) {
		dechunk(&r);
	} else {
		char *length = strcasestr(r.head, "Content-Length: ");
		assert_non_null(length);
		r.complete = strtoul(length + 16, NULL, 10) == r.body_len;
	}
	return r;
}

/* what: "GET /path" */
static inline struct reply ask_with(enum door door, const char *what, const char *headers)
{
	int fd = dial(door);
	assert_true(fd >= 0);
	char *request;
	int len = asprintf(
		&request, "%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n", what, headers);
	assert_int_equal(send(fd, request, (size_t)len, MSG_NOSIGNAL), len);
	free(request);
	return read_reply(fd);
}

static inline struct reply ask(enum door door, const char *what)
{
	return ask_with(door, what, "");
}

static inline json_t *ask_json(const char *what, int status)
{
	struct reply r = ask(LOCAL, what);
	json_error_t e;
	json_t *j = json_loads(r.body, 0, &e);

	if (r.status != status || !j || !r.complete)
		fail_msg("%s: status %d, body %s", what, r.status, r.body);
	assert_non_null(strcasestr(r.head, "Content-Type: application/json\r\n"));
	free(r.body);
	return j;
}

static inline void assert_error(enum door door, const char *what, int status, const char *part)
{
	struct reply r = ask(door, what);
	json_t *j = json_loads(r.body, 0, NULL);
	const char *error = json_string_value(json_object_get(j, "error"));

	if (r.status != status || !error || !strstr(error, part))
		fail_msg("%s: status %d, body %s", what, r.status, r.body);
	json_decref(j);
	free(r.body);
}

static inline json_int_t number(json_t *o, const char *key)
{
	json_t *v = json_object_get(o, key);

	if (!json_is_integer(v))
		fail_msg("no number %s", key);
	return json_integer_value(v);
}

static inline const char *text(json_t *o, const char *key)
{
	const char *v = json_string_value(json_object_get(o, key));

	if (!v)
		fail_msg("no text %s", key);
	return v;
}

static inline void start_admin(uid_t allowed)
{
	int tcp = fake_tcp_listener(&port);
	tcp_copy = dup(tcp);
	struct admin_opts opts = {
		.listen_fd = tcp,
		.socket_fd = fake_unix_listener(socket_path),
		.allowed_uid = allowed,
		.instance = "test",
		.version = "9.8.7",
		.hubs = hubs,
		.n_hubs = n_hubs,
		.token = &token,
		.backend = fake_backend_ops(&fake),
	};
	fake_backend_init(&fake);
	admin_token_init(&token);
	assert_int_equal(admin_start(&opts, &admin), 0);
}

static inline int setup(void **state)
{
	start_admin(getuid());
	return 0;
}

static inline int teardown(void **state)
{
	admin_stop(admin);
	admin = NULL;
	close(tcp_copy);
	unlink(socket_path);
	return 0;
}

static inline int group_setup(void **state)
{
	assert_non_null(mkdtemp(dir));
	snprintf(socket_path, sizeof(socket_path), "%s/admin.sock", dir);
	return 0;
}

static inline int group_teardown(void **state)
{
	return rmdir(dir);
}

#define WITH_ADMIN(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
