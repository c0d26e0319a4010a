/* tidegate-service as scripts run it: its modes, commands, signals and output, with a fake gateway
 * at the other end. */
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "support/fake_gateway.h"

enum {
	ARGS_MAX = 16,
};

struct process {
	pid_t pid;
	FILE *out;
	char address[256];
};

/* The program of the same build. */
static const char *program(void)
{
	static char path[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 32);
	assert_true(n > 0);
	path[n] = 0;
	*strrchr(path, '/') = 0;
	strcpy(strrchr(path, '/'), "/tidegate-service");
	return path;
}

/* args are separated by blanks. */
static struct process spawn(const char *args)
{
	char *copy = strdup(args), *argv[ARGS_MAX] = {"tidegate-service"};
	int n = 1, fds[2];
	for (char *a = strtok(copy, " "); a && n < ARGS_MAX - 1; a = strtok(NULL, " "))
		argv[n++] = a;
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	struct process p = {.pid = fork()};
	if (p.pid == 0) {
		int null = open("/dev/null", O_RDWR);
		dup2(fds[1], STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
		execv(program(), argv);
		_exit(127);
	}
	assert_true(p.pid > 0);
	close(fds[1]);
	p.out = fdopen(fds[0], "r");
	free(copy);
	return p;
}

static struct process serve(const char *args)
{
	char all[512], line[512];
	snprintf(all, sizeof(all), "--listen 127.0.0.1:0 %s", args);
	struct process p = spawn(all);
	assert_non_null(fgets(line, sizeof(line), p.out));
	assert_int_equal(sscanf(line, "listening on %255s", p.address), 1);
	return p;
}

static int ended(struct process *p)
{
	int status;
	assert_int_equal(waitpid(p->pid, &status, 0), p->pid);
	fclose(p->out);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

static struct fake_gateway *link_to(const struct process *p)
{
	struct fake_gateway *g = fake_gateway_connect(NULL, p->address);
	assert_non_null(g);
	fake_handshake(g, 0);
	g->credit = true;
	return g;
}

static void finish(struct process *p, struct fake_gateway *g)
{
	fake_gateway_destroy(g);
	kill(p->pid, SIGTERM);
	assert_int_equal(ended(p), 0);
}

static void open_with(struct fake_gateway *g, uint64_t session, const char *path, const char *query)
{
	char meta[512];
	snprintf(meta, sizeof(meta), "{\"path\":\"%s\",\"query\":\"%s\"}", path, query);
	fake_open(g, session, meta);
}

static void say(struct fake_gateway *g, uint64_t session, const char *text)
{
	fake_message(g, session, text, strlen(text), true, TG_LINK_MESSAGE_PAYLOAD_MAX);
}

static void hear(struct fake_gateway *g, uint64_t session, const char *want)
{
	uint8_t buf[1024];
	bool text;
	size_t n = fake_receive(g, session, buf, sizeof(buf) - 1, &text, NULL);
	buf[n] = 0;
	assert_string_equal((char *)buf, want);
	assert_true(text);
}

static void test_usage(void **state)
{
	static const struct {
		const char *args;
		int status;
	} rows[] = {
		{"--help", 0},
		{"--version", 0},
		{"", 2},
		{"--listen", 2},
		{"--listen localhost", 2},
		{"--listen 127.0.0.1:0 extra", 2},
		{"--listen 127.0.0.1:0 --mode shout", 2},
		{"--listen 127.0.0.1:0 --mode delay:", 2},
		{"--listen 127.0.0.1:0 --mode delay:1x", 2},
		{"--listen 127.0.0.1:0 --mode delay:3600001", 2},
		{"--listen 127.0.0.1:0 --mode reject:200", 2},
		{"--listen 127.0.0.1:0 --session-window 1", 2},
		{"--listen 127.0.0.1:0 --drain -1", 2},
		{"--listen 127.0.0.1:0 --name a\"b", 2},
		{"--nonsense", 2},
		{"--listen unix:/nonexistent/s", 1},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct process p = spawn(rows[i].args);
		int status = ended(&p);
		if (status != rows[i].status)
			print_error("%s: %d\n", rows[i].args, status);
		assert_int_equal(status, rows[i].status);
	}
}

static void test_echo_and_uppercase(void **state)
{
	struct process p = serve("");
	struct fake_gateway *g = link_to(&p);
	fake_session(g, 1);
	say(g, 1, "Hello, close 1000");
	hear(g, 1, "Hello, close 1000");
	say(g, 1, "");
	hear(g, 1, "");
	finish(&p, g);
	p = serve("--mode uppercase");
	g = link_to(&p);
	fake_session(g, 1);
	say(g, 1, "az{}\xc3\xa9");
	hear(g, 1, "AZ{}\xc3\xa9");
	finish(&p, g);
}

static void test_per_session(void **state)
{
	struct process p = serve("--per-session --mode uppercase");
	struct fake_gateway *g = link_to(&p);
	open_with(g, 1, "/service", "");
	fake_expect(g, TG_LINK_ACCEPT, 1);
	say(g, 1, "a");
	hear(g, 1, "A");
	open_with(g, 2, "/service/echo", "");
	fake_expect(g, TG_LINK_ACCEPT, 2);
	say(g, 2, "a");
	hear(g, 2, "a");
	open_with(g, 3, "/service/echo", "x=1&mode=reject:429");
	assert_memory_equal(fake_expect(g, TG_LINK_REJECT, 3).payload, "\x01\xad", 2);
	open_with(g, 4, "/service", "mode=silent");
	open_with(g, 5, "/service", "mode=hang");
	fake_expect(g, TG_LINK_ACCEPT, 5);
	open_with(g, 6, "/service", "mode=stall&y");
	fake_expect(g, TG_LINK_ACCEPT, 6);
	/* Hanging takes everything, stalling no more than a window; neither answers, others go on.
	 */
	static uint8_t data[32000];
	uint32_t credit[2] = {262144, 262144};
	struct fake_frame f;
	for (int i = 0; i < 40; i++) {
		for (unsigned s = 0; s < 2; s++) {
			if (credit[s] < 32016)
				continue;
			fake_frame(g, TG_LINK_MESSAGE, 0, s + 5, data, sizeof(data));
			credit[s] -= 32016;
		}
		while (fake_next(g, &f, 2)) {
			uint32_t bytes;
			const char *why;
			assert_int_equal(f.h.type, TG_LINK_CREDIT);
			link_credit_parse(f.payload, 4, &bytes, &why);
			if (f.h.session)
				credit[f.h.session - 5] += bytes;
		}
	}
	assert_true(credit[0] > 32016);
	assert_int_equal(credit[1], 262144 - 8 * 32016);
	say(g, 1, "still");
	hear(g, 1, "STILL");
	finish(&p, g);
}

static void test_delay(void **state)
{
	struct process p = serve("--per-session --mode delay:100");
	struct fake_gateway *g = link_to(&p);
	open_with(g, 1, "/", "");
	fake_expect(g, TG_LINK_ACCEPT, 1);
	open_with(g, 2, "/", "mode=delay:20");
	fake_expect(g, TG_LINK_ACCEPT, 2);
	open_with(g, 3, "/", "mode=delay:20");
	fake_expect(g, TG_LINK_ACCEPT, 3);
	uint64_t start = fake_now_ms();
	say(g, 1, "slow 1");
	say(g, 1, "slow 2");
	say(g, 2, "quick");
	say(g, 3, "gone before");
	fake_frame(g, TG_LINK_CLOSE, 0, 3, "\x03\xe8\0\0\0\0", 6);
	hear(g, 2, "quick");
	assert_true(fake_now_ms() - start >= 19);
	hear(g, 1, "slow 1");
	hear(g, 1, "slow 2");
	assert_true(fake_now_ms() - start >= 99);
	finish(&p, g);
}

static void test_commands(void **state)
{
	struct process p = serve("--commands --name svc-b");
	struct fake_gateway *g = link_to(&p);
	fake_session(g, 0x1234);
	say(g, 0x1234, "whoami");
	hear(g, 0x1234,
		"{\"name\":\"svc-b\",\"gateway\":\"gw-a\",\"worker\":2,\"session\":"
		"\"0000000000001234\",\"resumed\":false}");
	say(g, 0x1234, "close 999 no");
	hear(g, 0x1234, "close 999 no");
	say(g, 0x1234, "close 1005 no");
	hear(g, 0x1234, "close 1005 no");
	say(g, 0x1234, "send 100000");
	assert_int_equal(fake_receive(g, 0x1234, NULL, 100000, NULL, NULL), 100000);
	say(g, 0x1234, "last");
	say(g, 0x1234, "close 4000 as you wish");
	hear(g, 0x1234, "last");
	struct fake_frame f = fake_expect(g, TG_LINK_CLOSE, 0x1234);
	assert_memory_equal(f.payload, "\x0f\xa0\0\0\0\0as you wish", 17);
	finish(&p, g);
}

/* A client that sends and does not read: its service takes a window of messages more than it could
 * answer, no more. */
static void test_reader_that_does_not_read(void **state)
{
	struct process p = serve("--mode echo --session-window 65536");
	struct fake_gateway *g = link_to(&p);
	static uint8_t data[30000];
	uint32_t credit = 65536, bytes;
	unsigned sent = 0, received = 0;
	const char *why;
	struct fake_frame f;
	g->credit = false;
	fake_session(g, 1);
	for (unsigned idle = 0; idle < 3;) {
		for (; credit >= 30016; credit -= 30016) {
			memcpy(data, &sent, sizeof(sent));
			fake_frame(g, TG_LINK_MESSAGE, 0, 1, data, sizeof(data));
			sent++;
			idle = 0;
		}
		if (!fake_next(g, &f, 30)) {
			idle++;
			continue;
		}
		if (f.h.type == TG_LINK_CREDIT && f.h.session == 1) {
			assert_int_equal(link_credit_parse(f.payload, 4, &bytes, &why), 0);
			credit += bytes;
		} else if (f.h.type == TG_LINK_MESSAGE && !(f.h.flags & TG_LINK_FLAG_MORE)) {
			received++;
		}
	}
	/* 128 KiB on the way, 1 MiB queued in the library, 64 KiB not consumed. */
	assert_in_range(sent, 30, 50);
	assert_true(received < 5);
	fake_credit(g, 1, 64 * 1024 * 1024);
	fake_credit(g, 0, 64 * 1024 * 1024);
	while (received < sent) {
		f = fake_expect(g, TG_LINK_MESSAGE, 1);
		received += !(f.h.flags & TG_LINK_FLAG_MORE);
	}
	finish(&p, g);
}

static void test_signals(void **state)
{
	struct process p = serve("--stats --name svc-a --drain 5000");
	struct fake_gateway *g = link_to(&p);
	char line[1024];
	fake_session(g, 1);
	say(g, 1, "x");
	hear(g, 1, "x");
	kill(p.pid, SIGUSR1);
	assert_non_null(fgets(line, sizeof(line), p.out));
	assert_memory_equal(line, "{\"name\":\"svc-a\",\"links\":1,\"sessions\":1,", 39);
	assert_non_null(strstr(line, "\"messages_in\":1,\"messages_out\":1,"));
	/* It drains: existing sessions live on, and it ends with the last. */
	kill(p.pid, SIGTERM);
	assert_memory_equal(fake_expect(g, TG_LINK_DRAIN, 0).payload, "\0\0\x13\x88", 4);
	say(g, 1, "y");
	hear(g, 1, "y");
	uint64_t start = fake_now_ms();
	fake_frame(g, TG_LINK_CLOSE, 0, 1, "\x03\xe8\0\0\0\0", 6);
	assert_true(fake_ended(g, TG_LINK_ERROR_NONE));
	assert_non_null(fgets(line, sizeof(line), p.out));
	assert_non_null(strstr(line, "\"messages_in\":2,"));
	assert_int_equal(ended(&p), 0);
	assert_true(fake_now_ms() - start < 2000);
	fake_gateway_destroy(g);

	/* A session that stays is waited for, but not for ever; a second signal is obeyed at once.
	 */
	p = serve("--drain 50");
	g = link_to(&p);
	fake_session(g, 1);
	kill(p.pid, SIGINT);
	assert_true(fake_ended(g, TG_LINK_ERROR_NONE));
	assert_int_equal(ended(&p), 0);
	fake_gateway_destroy(g);
	p = serve("--drain 60000");
	g = link_to(&p);
	fake_session(g, 1);
	kill(p.pid, SIGTERM);
	fake_expect(g, TG_LINK_DRAIN, 0);
	kill(p.pid, SIGTERM);
	assert_int_equal(ended(&p), 0);
	fake_gateway_destroy(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_usage),
		cmocka_unit_test(test_echo_and_uppercase),
		cmocka_unit_test(test_per_session),
		cmocka_unit_test(test_delay),
		cmocka_unit_test(test_commands),
		cmocka_unit_test(test_reader_that_does_not_read),
		cmocka_unit_test(test_signals),
	};
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
