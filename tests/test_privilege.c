/* keeper/privilege: in a child each, since none of it can be undone. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "keeper/privilege.h"

/* Children say by their exit status which line failed. */
#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "line %d: %s: %s\n", __LINE__, #condition,                 \
				strerror(errno));                                                  \
			_exit(1);                                                                  \
		}                                                                                  \
	} while (0)

static void in_child(void (*body)(void))
{
	int wait_status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		body();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &wait_status, 0), pid);
	assert_int_equal(wait_status, 0);
}

/* A line of /proc/self/status in hexadecimal. */
static uint64_t status_hex(const char *key)
{
	char line[256];
	uint64_t value = UINT64_MAX;
	FILE *f = fopen("/proc/self/status", "re");

	CHECK(f);
	while (fgets(line, sizeof(line), f)) {
		if (strncmp(line, key, strlen(key)) == 0)
			value = strtoull(line + strlen(key), NULL, 16);
	}
	fclose(f);
	return value;
}

static void check_no_capabilities(bool bounding)
{
	CHECK(status_hex("CapInh:") == 0);
	CHECK(status_hex("CapPrm:") == 0);
	CHECK(status_hex("CapEff:") == 0);
	CHECK(status_hex("CapAmb:") == 0);
	CHECK(!bounding || status_hex("CapBnd:") == 0);
	CHECK(status_hex("NoNewPrivs:") == 1);
}

static void drop_root(void)
{
	struct privilege_user user;
	gid_t groups[2] = {0, 1};
	const char *step = NULL;
	uid_t r, e, s;

	CHECK(privilege_find_user("nobody", &user) == 0);
	CHECK(setgroups(2, groups) == 0); /* something to lose */
	bool setpcap = status_hex("CapEff:") >> 8 & 1;
	CHECK(privilege_drop(&user, &step) == 0);

	CHECK(getresuid(&r, &e, &s) == 0);
	CHECK(r == user.uid && e == user.uid && s == user.uid);
	CHECK(getresgid(&r, &e, &s) == 0);
	CHECK(r == user.gid && e == user.gid && s == user.gid);
	CHECK(getgroups(0, NULL) == 0);
	check_no_capabilities(setpcap);

	/* No way back, by any call. */
	CHECK(setuid(0) < 0);
	CHECK(seteuid(0) < 0);
	CHECK(setresuid(-1, 0, -1) < 0);
	CHECK(setgid(0) < 0);
	CHECK(setgroups(2, groups) < 0);
	CHECK(open("/etc/shadow", O_RDONLY) < 0);
	CHECK(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0) < 0);
}

static void test_drop_root(void **state)
{
	if (geteuid() != 0) {
		print_message("skipped: not root, nothing to drop\n");
		skip();
	}
	in_child(drop_root);
}

static void drop_capabilities_only(void)
{
	const char *step = NULL;
	uid_t uid = geteuid();

	CHECK(privilege_drop(NULL, &step) == 0);
	CHECK(geteuid() == uid);
	check_no_capabilities(false);
	CHECK(privilege_drop(NULL, &step) == 0); /* nothing left to drop is fine */
}

static void test_without_user(void **state)
{
	in_child(drop_capabilities_only);
}

static void drop_twice(void)
{
	struct privilege_user user = {.uid = geteuid() + 1, .gid = getegid() + 1};
	const char *step = NULL;

	CHECK(privilege_drop(NULL, &step) == 0);
	CHECK(privilege_drop(&user, &step) == -EPERM);
	CHECK(strcmp(step, "setgroups") == 0);
}

static void test_refusal_names_the_step(void **state)
{
	in_child(drop_twice);
}

static void test_find_user(void **state)
{
	struct privilege_user user = {.uid = 12, .gid = 34};

	assert_int_equal(privilege_find_user("no-such-user-here", &user), -ENOENT);
	assert_int_equal(privilege_find_user("root", &user), -EINVAL);
	assert_int_equal(user.uid, 12);
	assert_int_equal(user.gid, 34);
	assert_int_equal(privilege_find_user("nobody", &user), 0);
	assert_int_equal(user.uid, getpwnam("nobody")->pw_uid);
}

static void raise_limits(void)
{
	struct rlimit lim;

	CHECK(getrlimit(RLIMIT_NOFILE, &lim) == 0);
	lim.rlim_cur = 64;
	CHECK(setrlimit(RLIMIT_NOFILE, &lim) == 0);
	CHECK(getrlimit(RLIMIT_MEMLOCK, &lim) == 0);
	lim.rlim_cur = 4096;
	CHECK(setrlimit(RLIMIT_MEMLOCK, &lim) == 0);

	CHECK(privilege_raise_limits() == 0);
	CHECK(getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur == lim.rlim_max);
	CHECK(getrlimit(RLIMIT_MEMLOCK, &lim) == 0 && lim.rlim_cur == lim.rlim_max);
}

static void test_raise_limits(void **state)
{
	in_child(raise_limits);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_find_user),
		cmocka_unit_test(test_drop_root),
		cmocka_unit_test(test_without_user),
		cmocka_unit_test(test_refusal_names_the_step),
		cmocka_unit_test(test_raise_limits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
