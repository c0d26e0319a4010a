/* keeper/listen: the options that listeners carry, sharing of ports, and the admin socket's file.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "keeper/listen.h"

static struct listen_opts loopback(unsigned copies)
{
	struct listen_opts o = {
		.addr_len = sizeof(struct sockaddr_in), .backlog = 64, .copies = copies};
	struct sockaddr_in *in = (struct sockaddr_in *)&o.addr;

	in->sin_family = AF_INET;
	in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return o;
}

static int get(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	assert_int_equal(getsockopt(fd, level, name, &value, &len), 0);
	return value;
}

static int connect_to(const struct sockaddr_storage *addr, socklen_t len)
{
	int fd = socket(addr->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (const struct sockaddr *)addr, len), 0);
	return fd;
}

static void test_accepted_inherits(void **state)
{
	struct listen_opts o = loopback(2);
	struct sockaddr_storage addr;
	const char *step;
	uint32_t bytes;
	int fds[2];

	o.sockopts = (struct listen_sockopts){.send_buffer_bytes = 65536,
		.notsent_lowat_bytes = 16384,
		.user_timeout_ms = 60000,
		.nodelay = true,
		.keepalive = true};
	assert_int_equal(listen_tcp(&o, fds, &step), 0);
	assert_int_equal(listen_bound_address(fds[0], &addr), 0);
	assert_int_equal(listen_send_buffer(fds[0], &bytes), 0);
	assert_int_equal(bytes, 65536);

	for (int i = 0; i < 64; i++) { /* whichever copy it falls to */
		struct pollfd p[2] = {
			{.fd = fds[0], .events = POLLIN}, {.fd = fds[1], .events = POLLIN}};
		int client = connect_to(&addr, o.addr_len);
		assert_int_equal(poll(p, 2, 5000), 1);
		int fd = accept(p[0].revents ? fds[0] : fds[1], NULL, NULL);
		assert_true(fd >= 0);
		assert_int_equal(get(fd, SOL_SOCKET, SO_SNDBUF), 2 * 65536);
		assert_int_equal(get(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT), 16384);
		assert_int_equal(get(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 60000);
		assert_int_equal(get(fd, IPPROTO_TCP, TCP_NODELAY), 1);
		assert_int_equal(get(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
		close(fd);
		close(client);
	}
	close(fds[0]);
	close(fds[1]);
}

static void test_copies_share_and_spread(void **state)
{
	enum {
		COPIES = 4,
		CLIENTS = 200
	};
	struct listen_opts o = loopback(COPIES);
	struct sockaddr_storage addr[COPIES];
	int fds[COPIES], clients[CLIENTS];
	unsigned got[COPIES] = {0};
	const char *step;

	o.backlog = CLIENTS;
	assert_int_equal(listen_tcp(&o, fds, &step), 0);
	for (int i = 0; i < COPIES; i++) {
		assert_int_equal(listen_bound_address(fds[i], &addr[i]), 0);
		assert_memory_equal(&addr[i], &addr[0], sizeof(struct sockaddr_in));
		assert_int_equal(get(fds[i], SOL_SOCKET, SO_REUSEPORT), 1);
		assert_int_equal(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
		assert_false(fcntl(fds[i], F_GETFL) & O_NONBLOCK);
		assert_int_equal(fcntl(fds[i], F_SETFL, O_NONBLOCK), 0);
	}
	for (int i = 0; i < CLIENTS; i++)
		clients[i] = connect_to(&addr[0], o.addr_len);
	for (int i = 0; i < COPIES; i++) {
		int fd;
		while ((fd = accept(fds[i], NULL, NULL)) >= 0) {
			got[i]++;
			close(fd);
		}
		/* The first one, which turned sharing on late, is a full member too. */
		assert_true(got[i] > CLIENTS / COPIES / 4);
		close(fds[i]);
	}
	assert_int_equal(got[0] + got[1] + got[2] + got[3], CLIENTS);
	for (int i = 0; i < CLIENTS; i++)
		close(clients[i]);
}

static void test_in_use(void **state)
{
	struct listen_opts o = loopback(3);
	const char *step = "untouched";
	int fds[3], more[3] = {-7, -7, -7};

	assert_int_equal(listen_tcp(&o, fds, &step), 0);
	assert_int_equal(listen_bound_address(fds[0], &o.addr), 0);
	/* Ours shares its port, and the user is the same: it is refused all the same. */
	assert_int_equal(listen_tcp(&o, more, &step), -EADDRINUSE);
	assert_null(step);
	o.copies = 1;
	assert_int_equal(listen_tcp(&o, more, &step), -EADDRINUSE);
	assert_int_equal(more[0], -7);
	for (int i = 0; i < 3; i++)
		close(fds[i]);

	/* Connections of the one before in TIME_WAIT do not matter. */
	assert_int_equal(listen_tcp(&o, more, &step), 0);
	int client = connect_to(&o.addr, o.addr_len), fd = accept(more[0], NULL, NULL);
	close(fd);
	close(client);
	close(more[0]);
	assert_int_equal(listen_tcp(&o, more, &step), 0);
	close(more[0]);
}

static void test_errors_name_the_step(void **state)
{
	struct listen_opts o = loopback(2);
	const char *step;
	int fds[2];

	o.sockopts.user_timeout_ms = UINT32_MAX; /* negative for the kernel */
	assert_int_equal(listen_tcp(&o, fds, &step), -EINVAL);
	assert_string_equal(step, "TCP_USER_TIMEOUT");

	o = loopback(1);
	((struct sockaddr_in *)&o.addr)->sin_addr.s_addr =
		htonl(0xc0000201); /* 192.0.2.1, nobody's */
	assert_int_equal(listen_tcp(&o, fds, &step), -EADDRNOTAVAIL);
	assert_null(step);

	o = loopback(0);
	assert_int_equal(listen_tcp(&o, fds, &step), -EINVAL);
	o = loopback(LISTEN_COPIES_MAX + 1);
	assert_int_equal(listen_tcp(&o, fds, &step), -EINVAL);
}

static void test_v6_only(void **state)
{
	struct listen_opts o = {.addr_len = sizeof(struct sockaddr_in6),
		.backlog = 8,
		.copies = 2,
		.nonblock = true};
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&o.addr;
	char text[LISTEN_ADDRESS_TEXT], expected[LISTEN_ADDRESS_TEXT];
	const char *step;
	int v6[2], v4[2];

	in6->sin6_family = AF_INET6;
	in6->sin6_addr = in6addr_any;
	int r = listen_tcp(&o, v6, &step);
	if (r == -EAFNOSUPPORT || r == -EADDRNOTAVAIL) {
		print_message("skipped: no IPv6 here\n");
		skip();
	}
	assert_int_equal(r, 0);
	assert_true(fcntl(v6[1], F_GETFL) & O_NONBLOCK);
	assert_int_equal(get(v6[1], IPPROTO_IPV6, IPV6_V6ONLY), 1);
	assert_int_equal(listen_bound_address(v6[1], &o.addr), 0);
	snprintf(expected, sizeof(expected), "[::]:%u", ntohs(in6->sin6_port));
	assert_string_equal(listen_address_text(&o.addr, text), expected);

	/* The same port of the other family is free. */
	struct listen_opts o4 = loopback(2);
	((struct sockaddr_in *)&o4.addr)->sin_addr.s_addr = htonl(INADDR_ANY);
	((struct sockaddr_in *)&o4.addr)->sin_port = in6->sin6_port;
	assert_int_equal(listen_tcp(&o4, v4, &step), 0);
	snprintf(expected, sizeof(expected), "0.0.0.0:%u", ntohs(in6->sin6_port));
	assert_string_equal(listen_address_text(&o4.addr, text), expected);
	for (int i = 0; i < 2; i++) {
		close(v4[i]);
		close(v6[i]);
	}
}

struct place {
	char dir[64], sub[96], path[128];
};

static int place_setup(void **state)
{
	static struct place p;

	strcpy(p.dir, "/tmp/tidegate-listen-XXXXXX");
	if (!mkdtemp(p.dir))
		return -1;
	snprintf(p.sub, sizeof(p.sub), "%s/run/default", p.dir);
	snprintf(p.path, sizeof(p.path), "%s/admin.sock", p.sub);
	*state = &p;
	return 0;
}

static int place_teardown(void **state)
{
	struct place *p = *state;
	char up[96];

	snprintf(up, sizeof(up), "%s/run", p->dir);
	unlink(p->path);
	rmdir(p->sub);
	rmdir(up);
	return rmdir(p->dir);
}

static void test_unix_made_and_removed(void **state)
{
	struct place *p = *state;
	struct listen_unix u;
	struct stat st;
	const char *step;
	mode_t mask = umask(022);

	assert_int_equal(listen_unix(p->path, 8, &u, &step), 0);
	assert_int_equal(umask(mask), 022); /* as it was */
	assert_int_equal(stat(p->path, &st), 0);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(st.st_uid, geteuid());
	assert_int_equal(stat(p->sub, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);

	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	strcpy(addr.sun_path, p->path);
	int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(client, (struct sockaddr *)&addr, sizeof(addr)), 0);
	int fd = accept(u.fd, NULL, NULL);
	assert_true(fd >= 0);
	close(fd);
	close(client);

	listen_unix_close(&u);
	assert_int_equal(u.fd, -1);
	assert_int_equal(lstat(p->path, &st), -1);
	assert_int_equal(errno, ENOENT);
	listen_unix_close(&u); /* twice is harmless */
}

static void test_unix_stale(void **state)
{
	struct place *p = *state;
	struct listen_unix first, second;
	const char *step;
	struct stat st;

	assert_int_equal(listen_unix(p->path, 8, &first, &step), 0);
	assert_int_equal(listen_unix(p->path, 8, &second, &step), -EADDRINUSE); /* it answers */
	assert_null(step);
	assert_int_equal(lstat(p->path, &st), 0);

	close(first.fd); /* as if killed: the file stays */
	assert_int_equal(listen_unix(p->path, 8, &second, &step), 0);
	assert_int_equal(lstat(p->path, &st), 0);
	assert_int_equal(st.st_ino, second.ino);

	/* One whose file was replaced leaves the other's alone. */
	first = second;
	assert_int_equal(unlink(p->path), 0);
	second.fd = -1;
	assert_int_equal(listen_unix(p->path, 8, &second, &step), 0);
	listen_unix_close(&first);
	assert_int_equal(lstat(p->path, &st), 0);
	assert_int_equal(st.st_ino, second.ino);
	listen_unix_close(&second);
}

static void test_unix_refusals(void **state)
{
	struct place *p = *state;
	struct listen_unix u = {.fd = -7};
	const char *step;
	char path[256];
	struct stat st;

	memset(path, 'x', sizeof(path) - 1);
	path[0] = '/';
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(listen_unix(path, 8, &u, &step), -ENAMETOOLONG);
	assert_int_equal(listen_unix("", 8, &u, &step), -EINVAL);

	/* A file that is no socket is somebody's data. */
	snprintf(path, sizeof(path), "%s/data", p->dir);
	int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(listen_unix(path, 8, &u, &step), -EEXIST);
	assert_int_equal(lstat(path, &st), 0);
	/* Nor does a parent that is a file become a directory. */
	strcat(path, "/admin.sock");
	assert_int_equal(listen_unix(path, 8, &u, &step), -ENOTDIR);
	assert_string_equal(step, "its directory");
	snprintf(path, sizeof(path), "%s/data", p->dir);
	unlink(path);
	assert_int_equal(u.fd, -7);
}

static void test_unix_foreign_directory(void **state)
{
	struct place *p = *state;
	struct listen_unix u;
	const char *step;
	char path[128];

	if (geteuid() != 0) {
		print_message("skipped: only root can give a directory away\n");
		skip();
	}
	assert_int_equal(chown(p->dir, 65534, 65534), 0);
	snprintf(path, sizeof(path), "%s/admin.sock", p->dir);
	assert_int_equal(listen_unix(path, 8, &u, &step), -EPERM);
	assert_int_equal(chown(p->dir, 0, 0), 0);
}

int main(void)
{
#define PLACE(name) cmocka_unit_test_setup_teardown(name, place_setup, place_teardown)
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_accepted_inherits),
		cmocka_unit_test(test_copies_share_and_spread),
		cmocka_unit_test(test_in_use),
		cmocka_unit_test(test_errors_name_the_step),
		cmocka_unit_test(test_v6_only),
		PLACE(test_unix_made_and_removed),
		PLACE(test_unix_stale),
		PLACE(test_unix_refusals),
		PLACE(test_unix_foreign_directory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
