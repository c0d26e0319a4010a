/* keeper/spawn: the state a child begins in, how it dies, and the backoff. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "keeper/channel.h"
#include "keeper/spawn.h"

/* What the child found, in memory it shares with the test. */
struct found {
	int channel_fd;
	unsigned fds; /* open besides stdin, stdout, stderr */
	bool ignored[NSIG];
	bool any_blocked;
	char name[16];
	int no_new_privs;
	bool heard_end;
};

static struct found *found;

static int setup(void **state)
{
	found = mmap(
		NULL, sizeof(*found), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return found == MAP_FAILED ? -1 : 0;
}

static int teardown(void **state)
{
	return munmap(found, sizeof(*found));
}

static int look_around(void *ctx, int channel_fd)
{
	struct channel_record rec;
	struct sigaction sa;
	sigset_t blocked;
	int fd;

	found->channel_fd = channel_fd;
	for (fd = STDERR_FILENO + 1; fd < 1024; fd++)
		found->fds += fcntl(fd, F_GETFD) >= 0;
	for (int s = 1; s < NSIG; s++)
		found->ignored[s] = sigaction(s, NULL, &sa) == 0 && sa.sa_handler == SIG_IGN;
	sigprocmask(SIG_SETMASK, NULL, &blocked);
	for (int s = 1; s < NSIG; s++)
		found->any_blocked = found->any_blocked || sigismember(&blocked, s) == 1;
	prctl(PR_GET_NAME, found->name, 0, 0, 0);
	found->no_new_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
	rec = (struct channel_record){.kind = CHANNEL_READY};
	channel_send(channel_fd, &rec, -1);
	found->heard_end = channel_recv(channel_fd, &rec, &fd) == 0;
	return *(const int *)ctx;
}

static int wait_for(pid_t pid)
{
	int wait_status = -1;

	assert_int_equal(waitpid(pid, &wait_status, 0), pid);
	return wait_status;
}

static void wait_record(int channel, struct channel_record *rec)
{
	struct pollfd p = {.fd = channel, .events = POLLIN};
	int fd;

	assert_int_equal(poll(&p, 1, 5000), 1);
	assert_int_equal(channel_recv(channel, rec, &fd), 1);
	assert_int_equal(fd, -1);
}

static void test_child_starts_clean(void **state)
{
	int status = 7;
	struct spawn_opts o = {.name = "tidegate-gw", .child_main = look_around, .ctx = &status};
	struct spawn_child c;
	struct channel_record rec;
	sigset_t block, old;
	char text[128];

	/* The parent is as untidy as a keeper under a shell script can be. */
	int junk = open("/dev/null", O_RDONLY); /* not close-on-exec, which would not help anyway */
	sigemptyset(&block);
	sigaddset(&block, SIGTERM);
	sigaddset(&block, SIGCHLD);
	sigprocmask(SIG_BLOCK, &block, &old);
	signal(SIGQUIT, SIG_IGN);

	memset(found, 0, sizeof(*found));
	assert_int_equal(spawn_gateway(&o, &c), 0);
	assert_int_equal(fcntl(c.channel, F_GETFD), FD_CLOEXEC);
	assert_true(fcntl(c.channel, F_GETFL) & O_NONBLOCK);
	wait_record(c.channel, &rec);
	assert_int_equal(rec.kind, CHANNEL_READY);
	close(c.channel);
	int wait_status = wait_for(c.pid);
	sigprocmask(SIG_SETMASK, &old, NULL);
	signal(SIGQUIT, SIG_DFL);
	close(junk);

	assert_string_equal(spawn_death_text(wait_status, text, sizeof(text)), "exit status 7");
	assert_true(found->heard_end);
	assert_int_equal(found->channel_fd, STDERR_FILENO + 1);
	assert_int_equal(found->fds, 1);
	assert_string_equal(found->name, "tidegate-gw");
	assert_int_equal(found->no_new_privs, 1);
	assert_false(found->any_blocked);
	for (int s = 1; s < NSIG; s++)
		assert_int_equal(found->ignored[s],
			s == SIGPIPE || s == SIGINT || s == SIGTERM || s == SIGHUP);
}

static void test_killed(void **state)
{
	int status = 0;
	struct spawn_opts o = {.name = "tidegate-gw", .child_main = look_around, .ctx = &status};
	struct spawn_child c;
	struct channel_record rec;
	char text[128];
	int fd;

	assert_int_equal(spawn_gateway(&o, &c), 0);
	wait_record(c.channel, &rec);
	assert_int_equal(kill(c.pid, SIGTERM), 0); /* not for it to obey */
	struct pollfd p = {.fd = c.channel, .events = POLLIN};
	assert_int_equal(poll(&p, 1, 50), 0);
	assert_int_equal(kill(c.pid, SIGKILL), 0);
	assert_string_equal(spawn_death_text(wait_for(c.pid), text, sizeof(text)),
		"killed by signal 9 (Killed)");
	assert_int_equal(channel_recv(c.channel, &rec, &fd), 0);
	close(c.channel);
}

static void test_failed_drop_is_reported(void **state)
{
	int status = 0;
	struct privilege_user user = {.uid = (uid_t)-1, .gid = (gid_t)-1}; /* nobody can be that */
	struct spawn_opts o = {
		.name = "tidegate-gw", .user = &user, .child_main = look_around, .ctx = &status};
	struct spawn_child c;
	struct channel_record rec;
	char text[128];

	memset(found, 0, sizeof(*found));
	assert_int_equal(spawn_gateway(&o, &c), 0);
	wait_record(c.channel, &rec);
	assert_int_equal(rec.kind, CHANNEL_FAILED);
	assert_non_null(strstr(rec.text, "giving up privileges: "));
	assert_string_equal(spawn_death_text(wait_for(c.pid), text, sizeof(text)), "exit status 1");
	assert_int_equal(found->channel_fd, 0); /* child_main was never called */
	close(c.channel);
}

static void test_backoff(void **state)
{
	struct spawn_backoff b = {0};
	static const uint32_t expected[] = {0, 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000};

	for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++)
		assert_int_equal(
			spawn_backoff_ms(&b, i % 2 ? 0 : SPAWN_HEALTHY_MS / 2), expected[i]);
	/* Healthy for long enough: from the beginning. */
	assert_int_equal(spawn_backoff_ms(&b, SPAWN_HEALTHY_MS), 0);
	assert_int_equal(spawn_backoff_ms(&b, SPAWN_HEALTHY_MS - 1), 100);
	assert_int_equal(spawn_backoff_ms(&b, 10 * (uint64_t)SPAWN_HEALTHY_MS), 0);
	assert_int_equal(spawn_backoff_ms(&b, 0), 100);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_child_starts_clean),
		cmocka_unit_test(test_killed),
		cmocka_unit_test(test_failed_drop_is_reported),
		cmocka_unit_test(test_backoff),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
