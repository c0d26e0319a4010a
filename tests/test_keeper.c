/* keeper/keeper: a real keeper in a process of its own, with a gateway that stands in for the real
 * one. What the gateways saw lies in memory shared with the test; what the keeper logged, in a
 * file. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "keeper/channel.h"
#include "keeper/keeper.h"
#include "support/keeper_gateway.h"

enum {
	PATIENCE_MS = 10000, /* for what should take milliseconds, on a busy machine */
	NOBODY = 65534,
};

struct world {
	struct seen *seen;
	struct fake_opts fake;
	struct descriptors_listener listeners[LISTENERS_MAX];
	struct keeper_opts opts;
	char dir[64], sock[96], notify[96];
	FILE *log;
	pid_t keeper;
};

static int setup(void **state)
{
	static struct world w;

	memset(&w, 0, sizeof(w));
	w.seen = mmap(
		NULL, sizeof(*w.seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	w.log = tmpfile();
	strcpy(w.dir, "/tmp/tidegate-keeper-XXXXXX");
	if (w.seen == MAP_FAILED || !w.log || !mkdtemp(w.dir))
		return -1;
	/* Written by the keepers, read by us, through one file offset. */
	if (fcntl(fileno(w.log), F_SETFL, O_APPEND))
		return -1;
	snprintf(w.sock, sizeof(w.sock), "%s/admin.sock", w.dir);
	snprintf(w.notify, sizeof(w.notify), "%s/notify", w.dir);
	for (unsigned i = 0; i < LISTENERS_MAX; i++) {
		struct sockaddr_in *in = (struct sockaddr_in *)&w.listeners[i].addr;
		w.listeners[i].name = i == 0 ? "ws" : "other";
		w.listeners[i].addr_len = sizeof(*in);
		w.listeners[i].backlog = 16;
		in->sin_family = AF_INET;
		in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	}
	w.opts = (struct keeper_opts){
		.descriptors = {.listeners = w.listeners,
			.n_listeners = 1,
			.workers = 2,
			.admin_unix = w.sock},
		.user = "nobody",
		.gateway_main = keeper_gateway,
		.ctx = &w.fake,
	};
	*state = &w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	if (w->keeper > 0) {
		kill(w->keeper, SIGKILL);
		waitpid(w->keeper, NULL, 0);
	}
	unlink(w->sock);
	unlink(w->notify);
	rmdir(w->dir);
	fclose(w->log);
	return munmap(w->seen, sizeof(*w->seen));
}

static void start(struct world *w)
{
	w->fake.seen = w->seen;
	w->fake.workers = w->opts.descriptors.workers;
	w->fake.sock = w->sock;
	fflush(NULL); /* or the keeper would write our report a second time */
	w->keeper = fork();
	assert_true(w->keeper >= 0);
	if (w->keeper == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); /* a test that fails leaves nothing */
		log_init(&(struct log_opts){
			.level = LOG_LEVEL_INFO, .fd = fileno(w->log), .who = "keeper"});
		exit(keeper_run(&w->opts));
	}
}

#define WAIT_UNTIL(condition)                                                                      \
	do {                                                                                       \
		uint64_t until_ = fake_now_ms() + PATIENCE_MS;                                     \
		while (!(condition) && fake_now_ms() < until_)                                     \
			fake_sleep_ms(2);                                                          \
		assert_true(condition);                                                            \
	} while (0)

/* The keeper's exit status. */
static int ended(struct world *w)
{
	int wait_status = 0;
	pid_t pid = 0;

	WAIT_UNTIL(pid || (pid = waitpid(w->keeper, &wait_status, WNOHANG)));
	assert_int_equal(pid, w->keeper);
	w->keeper = 0;
	assert_true(WIFEXITED(wait_status));
	return WEXITSTATUS(wait_status);
}

static void start_serving(struct world *w)
{
	start(w);
	WAIT_UNTIL(w->seen->readies == 1);
}

static const char *log_text(struct world *w)
{
	static char text[16384];

	rewind(w->log);
	text[fread(text, 1, sizeof(text) - 1, w->log)] = '\0';
	return text;
}

static void assert_logged(struct world *w, const char *what)
{
	if (!strstr(log_text(w), what))
		fail_msg("\"%s\" is not in the log:\n%s", what, log_text(w));
}

static int try_connect(uint16_t port)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (connect(fd, (struct sockaddr *)&in, sizeof(in)) == 0)
		return fd;
	int r = -errno;
	close(fd);
	return r;
}

/* Which gateway answers. Closes fd. */
static int answer_of(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int pid = 0;

	assert_true(fd >= 0);
	assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
	assert_int_equal(read(fd, &pid, sizeof(pid)), sizeof(pid));
	close(fd);
	return pid;
}

static void check_handover(struct world *w)
{
	const struct descriptors_opts *d = &w->opts.descriptors;
	const struct seen *s = w->seen;
	unsigned i = 0;

	for (unsigned l = 0; l < d->n_listeners; l++) {
		for (unsigned worker = 0; worker < d->workers; worker++, i++) {
			assert_int_equal(s->kind[i], CHANNEL_LISTENER);
			assert_int_equal(s->index[i], l);
			assert_int_equal(s->sub[i], worker);
			assert_int_equal(s->port[i], s->port[l * d->workers]); /* one address */
		}
		assert_true(l == 0 || s->port[i - 1] != s->port[0]);
	}
	assert_int_equal(s->kind[i++], CHANNEL_ADMIN_TCP);
	assert_int_equal(s->kind[i++], CHANNEL_ADMIN_UNIX);
	assert_int_equal(s->kind[i++], CHANNEL_GO);
	assert_int_equal(s->records, i);
	while (i > 0)
		assert_true(s->right_socket[--i]);
}

static void test_handover(void **state)
{
	struct world *w = *state;
	struct stat st;

	w->opts.descriptors.n_listeners = 3;
	w->opts.descriptors.workers = 4;
	w->opts.descriptors.admin_tcp = w->listeners[0].addr;
	w->opts.descriptors.admin_tcp_len = w->listeners[0].addr_len;
	start_serving(w);
	check_handover(w);
	assert_int_equal(stat(w->sock, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(
		st.st_uid, geteuid()); /* whoever started it, not whom the gateway runs as */
	assert_int_equal(answer_of(try_connect(w->seen->port[0])), w->seen->pid);

	kill(w->keeper, SIGTERM);
	assert_int_equal(ended(w), 0);
	assert_true(w->seen->drained);
	assert_int_equal(lstat(w->sock, &st), -1);
}

static void test_handover_to_a_late_reader(void **state)
{
	struct world *w = *state;

	/* More than the socket buffer holds; and it is told to drain while most of it still waits.
	 */
	w->fake.fake = FAKE_STARTS_LATE;
	w->opts.descriptors.n_listeners = LISTENERS_MAX;
	w->opts.descriptors.workers = LISTEN_COPIES_MAX;
	w->opts.descriptors.admin_tcp = w->listeners[0].addr;
	w->opts.descriptors.admin_tcp_len = w->listeners[0].addr_len;
	start(w);
	WAIT_UNTIL(w->seen->starts == 1);
	fake_sleep_ms(50);
	kill(w->keeper, SIGTERM);
	assert_int_equal(ended(w), 0);
	check_handover(w);
	assert_true(w->seen->drained);
}

static void test_killed_gateway_is_replaced(void **state)
{
	struct world *w = *state;

	start_serving(w);
	int first = w->seen->pid;
	uint16_t port = w->seen->port[0];
	uint64_t killed_ms = fake_now_ms();
	assert_int_equal(kill(first, SIGKILL), 0);
	/* Nobody is home for a moment; the listeners are. */
	int client = try_connect(port);
	int second = answer_of(client);
	if (second == first) /* it had a last moment */
		second = answer_of(try_connect(port));
	assert_true(fake_now_ms() - killed_ms < 1000);
	assert_int_not_equal(second, first);
	assert_int_equal(w->seen->port[0], port);
	assert_logged(w, "killed by signal 9 (Killed); starting another in 0 ms");

	kill(w->keeper, SIGTERM);
	assert_int_equal(ended(w), 0);
}

static void test_crashes_back_off(void **state)
{
	struct world *w = *state;
	static const uint64_t at_least_ms[] = {0, 100, 200, 400};

	w->fake.fake = FAKE_DIES_READY;
	start(w);
	WAIT_UNTIL(w->seen->readies == 5);
	assert_true(llabs((long long)time(NULL) - w->seen->epoch[0]) < 60);
	for (unsigned i = 0; i < 4; i++) {
		uint64_t gap_ms = w->seen->start_ms[i + 1] - w->seen->start_ms[i];
		assert_true(gap_ms >= at_least_ms[i]);
		assert_true(i > 0 || gap_ms < 1000);
		assert_true(w->seen->epoch[i + 1] > w->seen->epoch[i]);
	}
	/* Between two gateways there is nobody to drain. */
	fake_sleep_ms(100);
	kill(w->keeper, SIGTERM);
	assert_int_equal(ended(w), 0);
	assert_int_equal(w->seen->starts, 5);
	assert_logged(w, "died: exit status 4; starting another in 800 ms");
}

static void test_first_start_fails(void **state)
{
	struct world *w = *state;

	w->fake.fake = FAKE_FAILS;
	start(w);
	assert_int_equal(ended(w), 1);
	assert_logged(w, "the gateway could not start: no rings to be had");
	assert_int_equal(w->seen->starts, 1);

	w->fake.fake = FAKE_DIES_UNREADY;
	start(w);
	assert_int_equal(ended(w), 1);
	assert_logged(w, "the gateway could not start: exit status 3");
	assert_int_equal(w->seen->starts, 2);
}

static void test_drain_refuses_newcomers_then_stop(void **state)
{
	struct world *w = *state;

	w->fake.fake = FAKE_DRAINS_LONG;
	start_serving(w);
	kill(w->keeper, SIGINT);
	WAIT_UNTIL(w->seen->drained);
	WAIT_UNTIL(try_connect(w->seen->port[0]) == -ECONNREFUSED);
	assert_false(w->seen->stopped);

	kill(w->keeper, SIGTERM); /* says nothing new */
	fake_sleep_ms(50);
	assert_false(w->seen->stopped);
	uint64_t then_ms = fake_now_ms();
	kill(w->keeper, SIGINT);
	assert_int_equal(ended(w), 0);
	assert_true(w->seen->stopped);
	assert_true(fake_now_ms() - then_ms < KEEPER_STOP_MS);
}

static void test_deaf_gateway_is_killed(void **state)
{
	struct world *w = *state;

	w->fake.fake = FAKE_DEAF;
	start_serving(w);
	kill(w->keeper, SIGINT);
	fake_sleep_ms(50); /* or the two would be one */
	uint64_t then_ms = fake_now_ms();
	kill(w->keeper, SIGINT);
	assert_int_equal(ended(w), 1);
	assert_true(fake_now_ms() - then_ms >= KEEPER_STOP_MS - 1);
	assert_logged(w, "it did not stop");
	assert_logged(w, "did not end cleanly: killed by signal 9");
}

static void test_drain_has_a_limit(void **state)
{
	struct world *w = *state;

	w->fake.fake = FAKE_DRAINS_LONG;
	w->opts.drain_limit_ms = 100;
	start_serving(w);
	kill(w->keeper, SIGTERM);
	assert_int_equal(ended(w), 1);
	assert_logged(w, "its drain took too long");
}

static void test_gateway_asks_for_drain(void **state)
{
	struct world *w = *state;

	w->fake.fake = FAKE_ASKS_DRAIN;
	start(w);
	assert_int_equal(ended(w), 0);
	assert_true(w->seen->drained);
	assert_int_equal(w->seen->starts, 1);
}

static void test_hangup_changes_nothing(void **state)
{
	struct world *w = *state;

	start_serving(w);
	kill(w->keeper, SIGHUP);
	WAIT_UNTIL(strstr(log_text(w), "reloading is not supported"));
	assert_int_equal(answer_of(try_connect(w->seen->port[0])), w->seen->pid);
	kill(w->keeper, SIGTERM);
	assert_int_equal(ended(w), 0);
	assert_int_equal(w->seen->starts, 1);
}

static void test_killed_keeper_ends_the_gateway(void **state)
{
	struct world *w = *state;
	int wait_status;

	/* The orphan becomes ours, so that its end can be seen. */
	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
	start_serving(w);
	kill(w->keeper, SIGKILL);
	assert_int_equal(waitpid(w->keeper, NULL, 0), w->keeper);
	w->keeper = 0;
	pid_t pid = 0;
	WAIT_UNTIL(pid || (pid = waitpid(w->seen->pid, &wait_status, WNOHANG)));
	assert_int_equal(pid, w->seen->pid);
	assert_int_equal(wait_status, 0); /* by itself, not by a signal */
	assert_true(w->seen->heard_end);
	assert_false(w->seen->drained || w->seen->stopped);
	prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0);

	/* The socket's file is left over, and no hindrance. */
	struct stat st;
	assert_int_equal(lstat(w->sock, &st), 0);
	start(w);
	WAIT_UNTIL(w->seen->readies == 2);
	kill(w->keeper, SIGTERM);
	assert_int_equal(ended(w), 0);
}

static void test_root_is_dropped(void **state)
{
	struct world *w = *state;

	if (geteuid() != 0) {
		print_message("skipped: not root, nothing to drop\n");
		skip();
	}
	start_serving(w);
	assert_int_equal(w->seen->uid, NOBODY);
	assert_int_equal(w->seen->gid, NOBODY);
	kill(w->keeper, SIGTERM);
	assert_int_equal(ended(w), 0);

	w->opts.user = "root";
	start(w);
	assert_int_equal(ended(w), 1);
	assert_logged(w, "the gateway does not run as root");
	w->opts.user = "no-such-user-here";
	start(w);
	assert_int_equal(ended(w), 1);
	assert_logged(w, "there is no user no-such-user-here");
	assert_int_equal(w->seen->starts, 1);
}

static void test_without_root(void **state)
{
	struct world *w = *state;

	if (geteuid() == 0)
		assert_int_equal(chown(w->dir, NOBODY, NOBODY), 0);
	w->opts.user = "no-such-user-here"; /* not looked at */
	w->fake = (struct fake_opts){.seen = w->seen, .workers = 2, .sock = w->sock};
	fflush(NULL);
	w->keeper = fork();
	assert_true(w->keeper >= 0);
	if (w->keeper == 0) {
		log_init(&(struct log_opts){
			.level = LOG_LEVEL_INFO, .fd = fileno(w->log), .who = "keeper"});
		if (geteuid() == 0 &&
			(setresgid(NOBODY, NOBODY, NOBODY) || setresuid(NOBODY, NOBODY, NOBODY)))
			_exit(97);
		_exit(keeper_run(&w->opts));
	}
	WAIT_UNTIL(w->seen->readies == 1);
	assert_int_not_equal(w->seen->uid, 0);
	assert_int_equal(answer_of(try_connect(w->seen->port[0])), w->seen->pid);
	kill(w->keeper, SIGTERM);
	assert_int_equal(ended(w), 0);
}

static void test_address_in_use(void **state)
{
	struct world *w = *state, other;
	struct sockaddr_in *in = (struct sockaddr_in *)&w->listeners[0].addr;
	char expected[192];

	start_serving(w);
	other = *w;
	in->sin_port = htons(w->seen->port[0]);
	start(&other);
	assert_int_equal(ended(&other), 1);
	snprintf(expected, sizeof(expected), "listener ws: 127.0.0.1:%u: Address already in use",
		w->seen->port[0]);
	assert_logged(w, expected);

	/* The admin socket alone is taken. */
	in->sin_port = 0;
	start(&other);
	assert_int_equal(ended(&other), 1);
	snprintf(expected, sizeof(expected), "admin socket: %s: Address already in use", w->sock);
	assert_logged(w, expected);
	assert_int_equal(access(w->sock, F_OK), 0);
	assert_int_equal(w->seen->starts, 1);

	/* Somebody leaves: the one that waits for the address gets it. */
	in->sin_port = htons(w->seen->port[0]);
	start(&other);
	fake_sleep_ms(150);
	kill(w->keeper, SIGTERM);
	assert_int_equal(ended(w), 0);
	WAIT_UNTIL(w->seen->readies == 2);
	kill(other.keeper, SIGTERM);
	assert_int_equal(ended(&other), 0);
}

static void test_service_manager_is_told(void **state)
{
	struct world *w = *state;
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	char text[128], expected[64];
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	strcpy(addr.sun_path, w->notify);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	setenv("NOTIFY_SOCKET", w->notify, 1);
	start_serving(w);
	unsetenv("NOTIFY_SOCKET");
	struct pollfd p = {.fd = fd, .events = POLLIN};
	assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
	text[recv(fd, text, sizeof(text) - 1, 0)] = '\0';
	snprintf(expected, sizeof(expected), "READY=1\nMAINPID=%d", (int)w->keeper);
	assert_string_equal(text, expected);

	kill(w->keeper, SIGTERM);
	assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
	text[recv(fd, text, sizeof(text) - 1, 0)] = '\0';
	assert_string_equal(text, "STOPPING=1");
	assert_int_equal(ended(w), 0);
	close(fd);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	static const struct CMUnitTest tests[] = {
		TEST(test_handover),
		TEST(test_handover_to_a_late_reader),
		TEST(test_killed_gateway_is_replaced),
		TEST(test_crashes_back_off),
		TEST(test_first_start_fails),
		TEST(test_drain_refuses_newcomers_then_stop),
		TEST(test_deaf_gateway_is_killed),
		TEST(test_drain_has_a_limit),
		TEST(test_gateway_asks_for_drain),
		TEST(test_hangup_changes_nothing),
		TEST(test_killed_keeper_ends_the_gateway),
		TEST(test_root_is_dropped),
		TEST(test_without_root),
		TEST(test_address_in_use),
		TEST(test_service_manager_is_told),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
