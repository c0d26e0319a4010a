/* GET /v1/events: streams of snapshots over the admin surface's real sockets. */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ops/admin_events.h"
#include "support/admin_fixture.h"

static int open_stream(enum door door)
{
	static const char request[] = "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n";
	int fd = dial(door);

	assert_true(fd >= 0);
	assert_int_equal(send(fd, request, sizeof(request) - 1, MSG_NOSIGNAL), sizeof(request) - 1);
	return fd;
}

/* What has come of a stream. */
struct stream {
	char text[1 << 20];
	size_t len;
	unsigned events;
};

/* Reads on until there are that many events, or the end, which is false. */
static bool read_events(int fd, struct stream *s, unsigned events)
{
	for (;;) {
		s->events = 0;
		for (char *p = s->text; s->len && (p = strstr(p, "\ndata: ")); p++)
			s->events += strstr(p, "\n\n") != NULL;
		if (s->events >= events)
			return true;
		ssize_t n = recv(fd, s->text + s->len, sizeof(s->text) - 1 - s->len, 0);
		if (n <= 0)
			return false;
		s->len += (size_t)n;
		s->text[s->len] = '\0';
	}
}

static struct stream a, b;

/* The snapshot of event i, which is a chunk or a few of them: their lines are taken out. */
static json_t *event(struct stream *s, unsigned i)
{
	struct reply r = {.body = strdup(strstr(s->text, "\r\n\r\n") + 4)};

	r.body_len = strlen(r.body);
	dechunk(&r);
	char *at = r.body;
	for (;; i--) {
		assert_int_equal(strncmp(at, "retry: 1000\ndata: {", 19), 0);
		at += strlen("retry: 1000\ndata: ");
		if (!i)
			break;
		at = strstr(at, "\n\n") + 2;
	}
	json_t *j = json_loads(at, JSON_DISABLE_EOF_CHECK, NULL);
	assert_non_null(j);
	free(r.body);
	return j;
}

static void test_stream(void **state)
{
	memset(&a, 0, sizeof(a));
	memset(&b, 0, sizeof(b));
	int x = open_stream(TCP), y = open_stream(LOCAL);

	assert_true(read_events(x, &a, 3));
	assert_true(read_events(y, &b, 1));
	assert_non_null(strcasestr(a.text, "HTTP/1.1 200 "));
	assert_non_null(strcasestr(a.text, "Content-Type: text/event-stream; charset=utf-8\r\n"));
	assert_non_null(strcasestr(a.text, "Cache-Control: no-store\r\n"));
	json_int_t seq = 0;
	for (unsigned i = 0; i < 3; i++) {
		json_t *j = event(&a, i);
		assert_true(number(j, "seq") > seq);
		seq = number(j, "seq");
		assert_string_equal(text(j, "instance"), "test");
		json_decref(j);
	}
	close(x);
	close(y);
}

static void test_head(void **state)
{
	int fd = dial(TCP);
	static const char request[] =
		"HEAD /v1/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
	char answer[1024] = "";

	send(fd, request, sizeof(request) - 1, 0);
	size_t len = 0;
	ssize_t n;
	while ((n = recv(fd, answer + len, sizeof(answer) - 1 - len, 0)) > 0)
		len += (size_t)n;
	assert_int_equal(n, 0);
	assert_int_equal(strncmp(answer, "HTTP/1.1 200 ", 13), 0);
	assert_string_equal(strstr(answer, "\r\n\r\n"), "\r\n\r\n");
	close(fd);
}

/* Above the bound a sentence, and room again when one leaves; the rest of the surface is served. */
static void test_too_many(void **state)
{
	int fd[ADMIN_EVENTS_LOCAL_MAX];

	for (unsigned i = 0; i < ADMIN_EVENTS_LOCAL_MAX; i++) {
		fd[i] = open_stream(LOCAL);
		memset(&a, 0, sizeof(a));
		assert_true(read_events(fd[i], &a, 1));
	}
	assert_error(LOCAL, "GET /v1/events", 503, "too many viewers");
	struct reply r = ask(LOCAL, "GET /healthz");
	assert_int_equal(r.status, 200);
	free(r.body);
	close(fd[0]);
	/* It is noticed when the next snapshot is written. */
	for (unsigned tries = 0;; tries++) {
		fd[0] = open_stream(LOCAL);
		memset(&a, 0, sizeof(a));
		read_events(fd[0], &a, 1);
		if (a.events)
			break;
		assert_true(strstr(a.text, " 503 ") && tries < 100);
		close(fd[0]);
		poll(NULL, 0, 100);
	}
	for (unsigned i = 0; i < ADMIN_EVENTS_LOCAL_MAX; i++)
		close(fd[i]);
}

static char endless[1 << 19];

/* As a great many of sources would: snapshots that fill the buffers soon. */
static int huge_links(void *ctx, struct link_info **ret, size_t *ret_n)
{
	enum {
		N = 2000
	};
	static char names[N][128];
	struct link_info *l = calloc(N, sizeof(*l));

	for (unsigned i = 0; i < N; i++) {
		memset(names[i], 'a', 120);
		snprintf(names[i] + 100, 20, "%u", i);
		l[i] = (struct link_info){
			.upstream = names[i], .endpoint = names[i], .state = "up", .up = true};
	}
	*ret = l;
	*ret_n = N;
	return 0;
}

/* One that reads nothing is cut; one beside it misses nothing by that. */
static void test_slow_viewer(void **state)
{
	admin_stop(admin);
	close(tcp_copy);
	int tcp = fake_tcp_listener(&port);
	tcp_copy = dup(tcp);
	struct admin_opts opts = {.listen_fd = tcp,
		.socket_fd = fake_unix_listener(socket_path),
		.allowed_uid = getuid(),
		.instance = "test",
		.version = "1",
		.backend = fake_backend_ops(&fake)};
	opts.backend.links = huge_links;
	assert_int_equal(admin_start(&opts, &admin), 0);

	int slow = open_stream(LOCAL), quick = open_stream(LOCAL);
	struct pollfd pfd = {.fd = slow, .events = POLLRDHUP};
	unsigned seen = 0;
	char last[16] = "";
	while (!poll(&pfd, 1, 0)) {
		ssize_t n = recv(quick, endless, sizeof(endless) - 1, 0);
		assert_true(n > 0);
		for (ssize_t i = 0; i < n; i++) { /* "data:" may be cut anywhere */
			memmove(last, last + 1, 6);
			last[6] = endless[i];
			seen += !memcmp(last, "\ndata: ", 7);
		}
		assert_true(seen < 60);
	}
	assert_true(seen > ADMIN_EVENTS_MISSED_MAX);
	close(slow);
	close(quick);
}

/* Streams end with the admin surface, at once, and orderly. */
static void test_stop(void **state)
{
	int x = open_stream(TCP), y = open_stream(LOCAL);

	memset(&a, 0, sizeof(a));
	memset(&b, 0, sizeof(b));
	assert_true(read_events(x, &a, 1));
	assert_true(read_events(y, &b, 1));
	struct timespec begin, end;
	clock_gettime(CLOCK_MONOTONIC, &begin);
	admin_stop(admin);
	clock_gettime(CLOCK_MONOTONIC, &end);
	assert_true(end.tv_sec - begin.tv_sec < 5);
	assert_false(read_events(x, &a, 1000));
	assert_false(read_events(y, &b, 1000));
	assert_string_equal(a.text + a.len - 5, "0\r\n\r\n");
	assert_string_equal(b.text + b.len - 5, "0\r\n\r\n");
	close(x);
	close(y);
	admin = NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_ADMIN(test_stream),
		WITH_ADMIN(test_head),
		WITH_ADMIN(test_too_many),
		WITH_ADMIN(test_slow_viewer),
		WITH_ADMIN(test_stop),
	};
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
