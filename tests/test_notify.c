/* keeper/notify: against a datagram socket in the service manager's place. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "keeper/notify.h"

static void assert_received(int fd, const char *expected)
{
	char text[64];
	ssize_t n = recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT);

	assert_true(n >= 0);
	text[n] = '\0';
	assert_string_equal(text, expected);
}

static void test_path(void **state)
{
	char dir[] = "/tmp/tidegate-notify-XXXXXX";
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	assert_non_null(mkdtemp(dir));
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/notify", dir);
	setenv("NOTIFY_SOCKET", addr.sun_path, 1);
	assert_int_equal(notify_send("READY=1"), -ENOENT);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(notify_send("READY=1\nMAINPID=7"), 0);
	assert_received(fd, "READY=1\nMAINPID=7");

	/* A manager that does not read is not waited for. */
	int r, sent = 0;
	while ((r = notify_send("STOPPING=1")) == 0 && sent < 100000)
		sent++;
	assert_int_equal(r, -EAGAIN);
	close(fd);
	unlink(addr.sun_path);
	rmdir(dir);
}

static void test_abstract(void **state)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char name[64];

	int len = snprintf(name, sizeof(name), "@tidegate-notify-%d", (int)getpid());
	memcpy(addr.sun_path + 1, name + 1, (size_t)len - 1);
	socklen_t addr_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)len);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, addr_len), 0);
	setenv("NOTIFY_SOCKET", name, 1);
	assert_int_equal(notify_send("STOPPING=1"), 0);
	assert_received(fd, "STOPPING=1");
	close(fd);
}

static void test_not_asked_for(void **state)
{
	char name[200];

	unsetenv("NOTIFY_SOCKET");
	assert_int_equal(notify_send("READY=1"), 0);
	setenv("NOTIFY_SOCKET", "", 1);
	assert_int_equal(notify_send("READY=1"), 0);
	setenv("NOTIFY_SOCKET", "vsock:2:9000", 1);
	assert_int_equal(notify_send("READY=1"), -EAFNOSUPPORT);
	memset(name, 'x', sizeof(name) - 1);
	name[0] = '/';
	name[sizeof(name) - 1] = '\0';
	setenv("NOTIFY_SOCKET", name, 1);
	assert_int_equal(notify_send("READY=1"), -ENAMETOOLONG);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_path),
		cmocka_unit_test(test_abstract),
		cmocka_unit_test(test_not_asked_for),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
