/* keeper/descriptors: what is handed over, in which order, and how failures read. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "keeper/descriptors.h"

static struct sockaddr_storage loopback(uint16_t port)
{
	struct sockaddr_storage addr = {.ss_family = AF_INET};
	struct sockaddr_in *in = (struct sockaddr_in *)&addr;

	in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	in->sin_port = htons(port);
	return addr;
}

static unsigned open_fds(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void test_order(void **state)
{
	char dir[] = "/tmp/tidegate-descriptors-XXXXXX", path[64], log[64], error[256];
	unsigned before = open_fds();
	struct descriptors_listener l[2];
	struct channel_record rec;
	struct descriptors d;
	int fd;

	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/s", dir);
	snprintf(log, sizeof(log), "%s/log", dir);
	for (int i = 0; i < 2; i++)
		l[i] = (struct descriptors_listener){.name = "x",
			.addr = loopback(0),
			.addr_len = sizeof(struct sockaddr_in),
			.backlog = 4};

	for (unsigned variant = 0; variant < 8; variant++) {
		struct descriptors_opts o = {.listeners = l, .n_listeners = 2, .workers = 3};
		uint32_t expected[10] = {CHANNEL_LISTENER, CHANNEL_LISTENER, CHANNEL_LISTENER,
			CHANNEL_LISTENER, CHANNEL_LISTENER, CHANNEL_LISTENER};
		unsigned n = 6;
		if (variant & 1) {
			o.admin_tcp = loopback(0);
			o.admin_tcp_len = sizeof(struct sockaddr_in);
			expected[n++] = CHANNEL_ADMIN_TCP;
		}
		if (variant & 2) {
			o.admin_unix = path;
			expected[n++] = CHANNEL_ADMIN_UNIX;
		}
		if (variant & 4) {
			o.access_log = log;
			expected[n++] = CHANNEL_ACCESS_LOG;
		}
		expected[n++] = CHANNEL_GO;

		assert_int_equal(descriptors_open(&d, &o, error, sizeof(error)), 0);
		for (unsigned i = 0; i < n; i++) {
			assert_true(descriptors_record(&d, i, &rec, &fd));
			assert_int_equal(rec.kind, expected[i]);
			uint32_t index = rec.kind == CHANNEL_ADMIN_UNIX ? geteuid() : 0;
			assert_int_equal(rec.index, i < 6 ? i / 3 : index);
			assert_int_equal(rec.sub, i < 6 ? i % 3 : 0);
			if (rec.kind == CHANNEL_GO)
				assert_int_equal(fd, -1);
			else
				assert_true(fcntl(fd, F_GETFD) >= 0);
		}
		for (unsigned i = n; i < n + 5; i++)
			assert_false(descriptors_record(&d, i, &rec, &fd));

		assert_int_equal(open_fds(), before + n - 1);
		descriptors_close_listeners(&d);
		assert_int_equal(open_fds(), before + n - 1 - 6);
		descriptors_close(&d);
		assert_int_equal(open_fds(), before);
		assert_int_equal(access(path, F_OK), -1);
	}
	unlink(log);
	assert_int_equal(rmdir(dir), 0);
}

static ino_t inode(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_ino;
}

/* After the file was moved away there is a new one; when that cannot be, the old one stays. */
static void test_access_log(void **state)
{
	char dir[] = "/tmp/tidegate-descriptors-XXXXXX", log[64], moved[64], error[256];
	struct descriptors_opts o = {.workers = 1, .access_log = log};
	unsigned before = open_fds();
	struct descriptors d;

	assert_non_null(mkdtemp(dir));
	snprintf(log, sizeof(log), "%s/log", dir);
	snprintf(moved, sizeof(moved), "%s/log.1", dir);
	assert_int_equal(descriptors_open(&d, &o, error, sizeof(error)), 0);
	assert_int_equal(
		fcntl(d.access_log, F_GETFL) & (O_APPEND | O_ACCMODE), O_APPEND | O_WRONLY);
	ino_t first = inode(d.access_log);

	assert_int_equal(rename(log, moved), 0);
	assert_int_equal(descriptors_reopen_access_log(&d), 0);
	ino_t second = inode(d.access_log);
	assert_true(second != first);

	assert_int_equal(unlink(log), 0);
	assert_int_equal(mkdir(log, 0700), 0);
	assert_int_equal(descriptors_reopen_access_log(&d), -EISDIR);
	assert_true(inode(d.access_log) == second);
	descriptors_close(&d);

	assert_int_equal(descriptors_open(&d, &o, error, sizeof(error)), -EISDIR);
	assert_non_null(strstr(error, "access log: /tmp/"));
	assert_non_null(strstr(error, ": Is a directory"));
	descriptors_close(&d);
	assert_int_equal(rmdir(log), 0);
	/* A FIFO that nobody reads must not hold anybody up. */
	assert_int_equal(mkfifo(log, 0600), 0);
	assert_int_equal(descriptors_open(&d, &o, error, sizeof(error)), -ENXIO);
	descriptors_close(&d);
	assert_int_equal(open_fds(), before);
	unlink(log);
	unlink(moved);
	assert_int_equal(rmdir(dir), 0);
}

static void test_failures(void **state)
{
	unsigned before = open_fds();
	struct descriptors d;
	char error[256], expected[128];
	struct sockaddr_storage bound;
	struct descriptors_listener l[2] = {
		{.name = "raw",
			.addr = loopback(0),
			.addr_len = sizeof(struct sockaddr_in),
			.backlog = 4},
		{.name = "ws",
			.addr = loopback(0),
			.addr_len = sizeof(struct sockaddr_in),
			.backlog = 4},
	};
	struct descriptors_opts o = {.listeners = l, .n_listeners = 1, .workers = 2};

	struct descriptors taken;
	assert_int_equal(descriptors_open(&taken, &o, error, sizeof(error)), 0);
	assert_int_equal(listen_bound_address(taken.listeners[0], &bound), 0);
	unsigned port = ntohs(((struct sockaddr_in *)&bound)->sin_port);

	struct descriptors_opts second = {.listeners = l, .n_listeners = 2, .workers = 2};
	l[1].addr = bound;
	assert_int_equal(descriptors_open(&d, &second, error, sizeof(error)), -EADDRINUSE);
	snprintf(expected, sizeof(expected), "listener ws: 127.0.0.1:%u: Address already in use",
		port);
	assert_string_equal(error, expected);
	descriptors_close(&d);

	second.n_listeners = 1;
	second.admin_tcp = bound;
	second.admin_tcp_len = sizeof(struct sockaddr_in);
	assert_int_equal(descriptors_open(&d, &second, error, sizeof(error)), -EADDRINUSE);
	snprintf(expected, sizeof(expected), "admin: 127.0.0.1:%u: Address already in use", port);
	assert_string_equal(error, expected);
	descriptors_close(&d);

	second.admin_tcp_len = 0;
	second.admin_unix = "/dev/null/admin.sock";
	assert_int_equal(descriptors_open(&d, &second, error, sizeof(error)), -ENOTDIR);
	assert_string_equal(
		error, "admin socket: /dev/null/admin.sock: its directory: Not a directory");
	descriptors_close(&d);

	second.admin_unix = NULL;
	second.sockopts.user_timeout_ms = UINT32_MAX;
	l[0].addr = loopback(0);
	assert_int_equal(descriptors_open(&d, &second, error, sizeof(error)), -EINVAL);
	assert_string_equal(error, "listener raw: 127.0.0.1:0: TCP_USER_TIMEOUT: Invalid argument");
	descriptors_close(&d);

	descriptors_close(&taken);
	assert_int_equal(open_fds(), before);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_failures),
		cmocka_unit_test(test_access_log),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
