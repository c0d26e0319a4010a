/* The admin surface when workers hang, clients are stuck or hostile, users are not allowed; its
 * start and stop. */
#include <dirent.h>
#include <grp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "support/admin_fixture.h"

/* One request waits for a hanging worker; the other thread serves the rest, on this socket too. */
static void test_hanging_worker_blocks_nobody(void **state)
{
	fake.hang_ms = 1500;
	fake.conns_error = -ETIMEDOUT;
	int waiting = dial(LOCAL);
	static const char request[] =
		"GET /v1/conns HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
	send(waiting, request, sizeof(request) - 1, 0);
	while (!fake.conns_calls)
		poll(NULL, 0, 1);

	for (int i = 0; i < 5; i++) {
		struct reply r = ask(i % 2 ? LOCAL : TCP, "GET /healthz");
		assert_int_equal(r.status, 200);
		free(r.body);
	}
	struct pollfd answered = {.fd = waiting, .events = POLLIN};
	assert_int_equal(poll(&answered, 1, 0), 0);
	struct reply r = read_reply(waiting);
	assert_int_equal(r.status, 504);
	free(r.body);
}

/* Clients that say nothing, stop in the middle of a request, or do not read their answer. */
static void test_stuck_clients(void **state)
{
	int stuck[30];

	fake.n_conns = 50000;
	for (int i = 0; i < 30; i++) {
		stuck[i] = dial(i % 3 ? TCP : LOCAL);
		assert_true(stuck[i] >= 0);
		static const char half[] = "GET /hea";
		static const char big[] = "GET /v1/conns?limit=100000 HTTP/1.1\r\nHost: x\r\n\r\n";
		if (i % 3 == 1)
			send(stuck[i], half, sizeof(half) - 1, MSG_NOSIGNAL);
		if (i == 0)
			send(stuck[i], big, sizeof(big) - 1, MSG_NOSIGNAL);
	}
	for (int i = 0; i < 20; i++) {
		struct reply r = ask(i % 2 ? TCP : LOCAL, "GET /healthz");
		assert_int_equal(r.status, 200);
		free(r.body);
	}
	/* None of the silent ones was given up to make room: the others were served beside them. */
	for (int i = 1; i < 30; i++) {
		char byte;
		assert_int_equal(recv(stuck[i], &byte, 1, MSG_DONTWAIT), -1);
	}
	for (int i = 0; i < 30; i++)
		close(stuck[i]);
}

static void test_keep_alive(void **state)
{
	static const char request[] = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
	int fd = dial(TCP);

	for (int i = 0; i < 3; i++) {
		char answer[1024];
		size_t len = 0;
		send(fd, request, sizeof(request) - 1, 0);
		do {
			ssize_t n = recv(fd, answer + len, sizeof(answer) - 1 - len, 0);
			assert_true(n > 0);
			len += (size_t)n;
			answer[len] = '\0';
		} while (!strstr(answer, "\r\n\r\nok\n"));
	}
	close(fd);
}

static void test_garbage(void **state)
{
	static const char *const junk[] = {
		"\r\n\r\n\r\n\r\n",
		"GET\r\n\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"GET /healthz HTTP/9.9\r\n\r\n",
		"POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
		"POST /v1/drain HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
	};
	for (size_t i = 0; i < sizeof(junk) / sizeof(junk[0]); i++) {
		int fd = dial(LOCAL);
		send(fd, junk[i], strlen(junk[i]), MSG_NOSIGNAL);
		shutdown(fd, SHUT_WR);
		char answer[4096];
		while (recv(fd, answer, sizeof(answer), 0) > 0)
			;
		close(fd);
	}
	char *huge = malloc(100000);
	memset(huge, 'a', 100000);
	memcpy(huge, "GET /", 5);
	int fd = dial(LOCAL);
	send(fd, huge, 100000, MSG_NOSIGNAL);
	char answer[4096];
	while (recv(fd, answer, sizeof(answer), 0) > 0)
		;
	close(fd);
	free(huge);
	assert_int_equal(fake.drains, 0);
	struct reply r = ask(LOCAL, "GET /healthz");
	assert_int_equal(r.status, 200);
	free(r.body);
}

/* As another user, in a child: sends a request without asking for the connection's end, and returns
 * the answer's status; for 403 only when the connection was closed then, else -1. */
static int request_as(uid_t uid, enum door door, const char *what)
{
	char request[256], answer[4096];
	size_t got = 0;
	ssize_t n;

	if (setgroups(0, NULL) || setgid(uid) || setuid(uid))
		return -1;
	int fd = dial(door);
	if (fd < 0)
		return fd;
	int len = snprintf(request, sizeof(request), "%s HTTP/1.1\r\nHost: x\r\n\r\n", what);
	send(fd, request, (size_t)len, MSG_NOSIGNAL);
	do {
		n = recv(fd, answer + got, sizeof(answer) - 1 - got, 0);
		got += n > 0 ? (size_t)n : 0;
		answer[got] = '\0';
	} while (n > 0 && (!strstr(answer, "\r\n\r\n") || !strncmp(answer, "HTTP/1.1 403", 12)));
	return n < 0 || got < 12 ? -1 : atoi(answer + 9);
}

static int status_as(uid_t uid, enum door door, const char *what)
{
	int result[2], status = -1;

	assert_int_equal(pipe(result), 0);
	pid_t child = fork();
	if (child == 0) {
		status = request_as(uid, door, what);
		_exit(write(result[1], &status, sizeof(status)) != sizeof(status));
	}
	close(result[1]);
	assert_int_equal(read(result[0], &status, sizeof(status)), sizeof(status));
	close(result[0]);
	assert_int_equal(waitpid(child, NULL, 0), child);
	return status;
}

static void test_peer_credentials(void **state)
{
	enum {
		ALLOWED = 4242,
		STRANGER = 65534
	};
	if (getuid() != 0)
		skip(); /* needs a second user */

	start_admin(ALLOWED);
	chmod(socket_path, 0777);
	chmod(dir, 0755);
	assert_int_equal(status_as(0, LOCAL, "GET /v1/status"), 200);
	assert_int_equal(status_as(ALLOWED, LOCAL, "GET /v1/status"), 200);
	assert_int_equal(status_as(STRANGER, LOCAL, "GET /v1/status"), 403);
	assert_int_equal(status_as(STRANGER, LOCAL, "GET /healthz"), 403);
	assert_int_equal(status_as(STRANGER, LOCAL, "POST /v1/drain"), 403);
	assert_int_equal(fake.drains, 0);
	assert_int_equal(status_as(STRANGER, TCP, "GET /healthz"), 200);
	teardown(state);
}

static int descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* The keeper's copy of the listener must go on listening, and descriptors must not leak. */
static void test_stop_leaves_the_listener(void **state)
{
	int before = descriptors();

	start_admin(getuid());
	int keeper = dup(tcp_copy);
	struct reply r = ask(TCP, "GET /healthz");
	free(r.body);
	teardown(state);

	int client = dial(TCP);
	assert_true(client >= 0);
	int conn = accept(keeper, NULL, NULL);
	assert_true(conn >= 0);
	close(conn);
	close(client);
	close(keeper);
	assert_int_equal(descriptors(), before);
}

/* A worker may hang at the very moment of the stop. */
static void test_stop_during_a_request(void **state)
{
	static const char request[] = "GET /v1/conns HTTP/1.1\r\nHost: x\r\n\r\n";

	start_admin(getuid());
	fake.hang_ms = 300;
	int client = dial(LOCAL);
	send(client, request, sizeof(request) - 1, 0);
	while (!fake.conns_calls)
		poll(NULL, 0, 1);
	teardown(state);
	close(client);
}

static void test_one_door_only(void **state)
{
	fake_backend_init(&fake);
	struct admin_opts opts = {
		.listen_fd = -1,
		.socket_fd = fake_unix_listener(socket_path),
		.instance = "x",
		.version = "y",
		.backend = fake_backend_ops(&fake),
	};
	struct admin *a;
	assert_int_equal(admin_start(&opts, &a), 0);
	struct reply r = ask(LOCAL, "GET /healthz");
	assert_int_equal(r.status, getuid() == 0 ? 200 : 403);
	free(r.body);
	admin_stop(a);
	unlink(socket_path);

	opts.socket_fd = -1;
	assert_int_equal(admin_start(&opts, &a), 0);
	admin_stop(a);
	admin_stop(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_ADMIN(test_hanging_worker_blocks_nobody),
		WITH_ADMIN(test_stuck_clients),
		WITH_ADMIN(test_keep_alive),
		WITH_ADMIN(test_garbage),
		cmocka_unit_test(test_peer_credentials),
		cmocka_unit_test(test_stop_leaves_the_listener),
		cmocka_unit_test(test_stop_during_a_request),
		cmocka_unit_test(test_one_door_only),
	};
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
