#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <regex.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

#define STAMP "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z"

/* Each test logs into a pipe that holds all it writes, and reads it back line by line. */
static int pipe_fd[2];
static char text[65536 + 1];

static int setup(void **state)
{
	return pipe2(pipe_fd, O_NONBLOCK | O_CLOEXEC);
}

static int teardown(void **state)
{
	close(pipe_fd[0]);
	close(pipe_fd[1]);
	return 0;
}

static void start(bool json, unsigned per_kind_per_s)
{
	log_init(&(struct log_opts){.level = LOG_LEVEL_INFO,
		.json = json,
		.per_kind_per_s = per_kind_per_s,
		.fd = pipe_fd[1],
		.who = NULL});
}

static char *take_all(void)
{
	ssize_t n = read(pipe_fd[0], text, sizeof(text) - 1);

	text[n > 0 ? n : 0] = '\0';
	return text;
}

/* What was logged must be one line; without its end. */
static char *take_line(void)
{
	char *line = take_all();
	char *end = strchr(line, '\n');

	assert_non_null(end);
	assert_int_equal(end[1], '\0');
	*end = '\0';
	return line;
}

static void assert_matches(const char *line, const char *pattern)
{
	regex_t re;

	assert_int_equal(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB), 0);
	if (regexec(&re, line, 0, NULL, 0) != 0)
		fail_msg("'%s' is not like '%s'", line, pattern);
	regfree(&re);
}

/* What follows the prefix of a human line. */
static const char *message_of(const char *line)
{
	const char *p = strstr(line, "test: ");

	assert_non_null(p);
	return p + strlen("test: ");
}

static json_t *take_json(void)
{
	json_error_t err;
	char *line = take_line();
	json_t *o = json_loads(line, JSON_REJECT_DUPLICATES, &err);

	if (!o)
		fail_msg("%s: %s", err.text, line);
	return o;
}

static const char *field(const json_t *o, const char *name)
{
	const char *s = json_string_value(json_object_get(o, name));

	assert_non_null(s);
	return s;
}

static void test_human_line(void **state)
{
	start(false, 0);
	log_warn("upstream", "endpoint %s down: %d", "a:1", 7);
	assert_matches(take_line(), "^" STAMP " warn upstream: endpoint a:1 down: 7$");
	log_error("x", "e");
	assert_matches(take_line(), "^" STAMP " error x: e$");
	log_info("x", "%s", "");
	assert_matches(take_line(), "^" STAMP " info x: $");
	log_init(&(struct log_opts){.level = LOG_LEVEL_INFO, .fd = pipe_fd[1], .who = "keeper"});
	log_info("x", "y");
	assert_matches(take_line(), "^" STAMP " keeper info x: y$");
	log_line("sched", "runnable_tasks=%u", 3u);
	assert_matches(take_line(), "^" STAMP " keeper info sched: runnable_tasks=3$");
}

static void test_json_line(void **state)
{
	start(true, 0);
	log_warn("upstream", "endpoint %s down", "a:1");
	assert_matches(take_line(),
		"^\\{\"ts\":\"" STAMP "\",\"level\":\"warn\",\"subsystem\":\"upstream\","
		"\"msg\":\"endpoint a:1 down\"\\}$");
	log_init(&(struct log_opts){
		.level = LOG_LEVEL_INFO, .json = true, .fd = pipe_fd[1], .who = "gateway"});
	log_line("sched", "a=1");
	json_t *o = take_json();
	assert_int_equal(json_object_size(o), 5);
	assert_string_equal(field(o, "who"), "gateway");
	assert_string_equal(field(o, "level"), "info");
	assert_string_equal(field(o, "subsystem"), "sched");
	assert_string_equal(field(o, "msg"), "a=1");
	json_decref(o);
}

static void test_levels(void **state)
{
	static const enum log_level all[] = {
		LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG};

	for (unsigned i = 0; i < 4; i++) {
		log_init(&(struct log_opts){.level = all[i], .fd = pipe_fd[1]});
		log_error("x", "m");
		log_warn("x", "m");
		log_info("x", "m");
		log_debug("x", "m");
		char *p = take_all();
		unsigned lines = 0;
		while ((p = strchr(p, '\n')))
			p++, lines++;
		assert_int_equal(lines, i + 1);
		for (unsigned j = 0; j < 4; j++)
			assert_int_equal(log_enabled(all[j]), j <= i);
	}
}

static void test_peer_cannot_forge_a_line(void **state)
{
	start(false, 0);
	log_warn("test", "path '%s'",
		"/\n2026-01-01T00:00:00.000Z error test: on fire\r\t\x1b[2J\x7f");
	assert_string_equal(message_of(take_line()),
		"path '/\\x0a2026-01-01T00:00:00.000Z error test: on fire\\x0d\\x09\\x1b[2J\\x7f'");
	/* C1 control (CSI), right-to-left override, line separator, and bytes that are no UTF-8. */
	log_warn("test", "%s",
		"\xc2\x9b"
		"1m \xe2\x80\xae \xe2\x80\xa8 \xff \xc3( \xe2\x82 \xc0\xaf \xed\xa0\x80 "
		"\xf4\x90\x80\x80");
	assert_string_equal(message_of(take_line()),
		"\\xc2\\x9b1m \\xe2\\x80\\xae \\xe2\\x80\\xa8 \\xff \\xc3( \\xe2\\x82 \\xc0\\xaf "
		"\\xed\\xa0\\x80 \\xf4\\x90\\x80\\x80");
	/* Text stays text. */
	log_warn("test", "%s", "Grüße, 世界, \xf0\x9f\x99\x82, \"a\\b\"");
	assert_string_equal(message_of(take_line()), "Grüße, 世界, \xf0\x9f\x99\x82, \"a\\b\"");
}

static void test_json_escapes(void **state)
{
	char all[256];
	json_t *o;

	start(true, 0);
	/* Everything below 0x80 comes back as it went in. */
	for (int i = 1; i < 0x80; i++)
		all[i - 1] = (char)i;
	all[0x7f] = '\0';
	log_warn("test", "%s", all);
	o = take_json();
	assert_string_equal(field(o, "msg"), all);
	json_decref(o);
	/* Bytes that are no UTF-8 become the code points of the same number. */
	log_warn("test", "%s", "\xff\x80 \xc3( \xe2\x82");
	assert_non_null(strstr(take_line(), "\"\\u00ff\\u0080 \\u00c3( \\u00e2\\u0082\"}"));
	log_warn("test", "%s", "Grüße\xc2\x9b\xe2\x80\xae\xf0\x9f\x99\x82");
	o = take_json();
	assert_string_equal(field(o, "msg"), "Grüße\xc2\x9b\xe2\x80\xae\xf0\x9f\x99\x82");
	json_decref(o);
	log_warn("test", "%s", "a\"b\\c\n\t\r\x01");
	assert_non_null(strstr(take_line(), "\"a\\\"b\\\\c\\n\\t\\u000d\\u0001\"}"));
}

static void test_long_lines_are_cut(void **state)
{
	static const char *const units[] = {"x", "\n", "\xff", "ü", "世", "\xf0\x9f\x99\x82", "\""};
	char *msg = malloc(8192);

	assert_non_null(msg);
	for (unsigned json = 0; json < 2; json++) {
		start(json, 0);
		for (unsigned u = 0; u < sizeof(units) / sizeof(units[0]); u++) {
			for (size_t pad = 0; pad < 8; pad++) {
				memset(msg, 'p', pad);
				size_t n = pad;
				for (; n < 8000; n += strlen(units[u]))
					strcpy(msg + n, units[u]);
				log_warn("test", "%s", msg);
				char *line = take_line();
				assert_in_range(strlen(line) + 1, 2000, 2048);
				assert_non_null(strstr(line, json ? "...\"}" : "..."));
				if (!json)
					continue;
				json_t *o = json_loads(line, 0, NULL);
				assert_non_null(o);
				json_decref(o);
			}
		}
	}
	/* The longest that is not cut. */
	for (size_t n = 1900; n < 2048; n++) {
		start(false, 0);
		memset(msg, 'y', n);
		msg[n] = '\0';
		log_warn("test", "%s", msg);
		const char *got = message_of(take_line());
		if (strcmp(got, msg) != 0) {
			assert_true(n > 2000);
			assert_string_equal(got + strlen(got) - 3, "...");
			free(msg);
			return;
		}
	}
	fail();
}

static time_t sleep_to_next_second(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	now.tv_sec++;
	now.tv_nsec = 1000000;
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &now, NULL);
	return now.tv_sec;
}

/* A burst that the machine stretched over two seconds says nothing about the limit. */
static void skip_unless_still(time_t second)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (now.tv_sec != second)
		skip();
}

static unsigned count_lines(const char *s)
{
	unsigned n = 0;

	for (; (s = strchr(s, '\n')); s++)
		n++;
	return n;
}

static void say(unsigned n, unsigned n_other)
{
	for (unsigned i = 0; i < n || i < n_other; i++) {
		if (i < n)
			log_warn("test", "number %u", i);
		if (i < n_other)
			log_warn("test", "other");
	}
}

static void test_rate_limit(void **state)
{
	start(false, 3);
	time_t second = sleep_to_next_second();
	say(20, 2);
	skip_unless_still(second);
	char *p = take_all();
	assert_int_equal(count_lines(p), 3 + 2);
	assert_null(strstr(p, "more like this"));
	log_line("test", "never held back");
	log_line("test", "never held back");
	assert_int_equal(count_lines(take_all()), 2);
	second = sleep_to_next_second();
	say(2, 1);
	skip_unless_still(second);
	p = take_all();
	assert_int_equal(count_lines(p), 3);
	assert_non_null(strstr(p, "test: number 0 (17 more like this)\n"));
	assert_non_null(strstr(p, "test: number 1\n"));
	assert_non_null(strstr(p, "test: other\n"));
	/* Said even where the message itself fills the line, and inside the JSON string. */
	static char big[4000];
	memset(big, 'z', sizeof(big) - 1);
	start(true, 1);
	for (unsigned round = 0; round < 2; round++) {
		second = sleep_to_next_second();
		for (unsigned i = 0; i < 5; i++)
			log_warn("test", "%s", big);
		skip_unless_still(second);
		p = take_line();
		json_t *o = json_loads(p, 0, NULL);
		assert_non_null(o);
		assert_int_equal(strstr(p, "z... (4 more like this)\"}") != NULL, round);
		json_decref(o);
	}
}

static void test_errno_is_kept(void **state)
{
	start(false, 1);
	errno = ENOENT;
	log_warn("test", "open: %m");
	assert_int_equal(errno, ENOENT);
	assert_string_equal(message_of(take_line()), "open: No such file or directory");
	/* A log nobody takes is no reason to stop. */
	log_init(&(struct log_opts){.level = LOG_LEVEL_INFO, .fd = -1});
	errno = ENOENT;
	log_warn("test", "lost");
	assert_int_equal(errno, ENOENT);
	log_line("test", "lost");
	assert_int_equal(errno, ENOENT);
}

static void test_colour_on_terminals_only(void **state)
{
	int pty = posix_openpt(O_RDWR | O_NOCTTY);
	int tty = -1;

	if (pty >= 0 && grantpt(pty) == 0 && unlockpt(pty) == 0)
		tty = open(ptsname(pty), O_RDWR | O_NOCTTY);
	if (tty < 0)
		skip(); /* no pseudo-terminals in this container */
	log_init(&(struct log_opts){.level = LOG_LEVEL_INFO, .fd = tty});
	log_error("test", "red");
	ssize_t n = read(pty, text, sizeof(text) - 1);
	assert_true(n > 0);
	text[n] = '\0';
	assert_matches(text, STAMP " \033\\[31merror\033\\[0m test: red");
	log_init(&(struct log_opts){.level = LOG_LEVEL_INFO, .json = true, .fd = tty});
	log_error("test", "plain");
	n = read(pty, text, sizeof(text) - 1);
	assert_true(n > 0);
	text[n] = '\0';
	assert_null(strchr(text, '\033'));
	close(tty);
	close(pty);
}

enum {
	THREADS = 4,
	LINES = 300
};

static void *chatter(void *arg)
{
	char pad[200];

	memset(pad, 'a' + *(int *)arg, sizeof(pad) - 1);
	pad[sizeof(pad) - 1] = '\0';
	for (unsigned i = 0; i < LINES; i++)
		log_info("test", "%s", pad);
	return NULL;
}

static void test_lines_of_threads_do_not_mix(void **state)
{
	pthread_t thread[THREADS];
	int number[THREADS];
	char line[512];
	unsigned seen[THREADS] = {0};

	/* A blocking pipe: the threads wait for the reader. */
	assert_int_equal(fcntl(pipe_fd[1], F_SETFL, 0), 0);
	assert_int_equal(fcntl(pipe_fd[0], F_SETFL, 0), 0);
	start(false, 0);
	for (int i = 0; i < THREADS; i++) {
		number[i] = i;
		assert_int_equal(pthread_create(&thread[i], NULL, chatter, &number[i]), 0);
	}
	FILE *in = fdopen(dup(pipe_fd[0]), "r");
	assert_non_null(in);
	for (unsigned i = 0; i < THREADS * LINES; i++) {
		assert_non_null(fgets(line, sizeof(line), in));
		const char *msg = message_of(line);
		unsigned who = (unsigned)(msg[0] - 'a');
		assert_true(who < THREADS);
		assert_int_equal(strspn(msg, (char[]){msg[0], '\0'}), 199);
		assert_int_equal(msg[199], '\n');
		seen[who]++;
	}
	for (int i = 0; i < THREADS; i++) {
		pthread_join(thread[i], NULL);
		assert_int_equal(seen[i], LINES);
	}
	fclose(in);
}

int main(void)
{
#define LOG_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		LOG_TEST(test_human_line),
		LOG_TEST(test_json_line),
		LOG_TEST(test_levels),
		LOG_TEST(test_peer_cannot_forge_a_line),
		LOG_TEST(test_json_escapes),
		LOG_TEST(test_long_lines_are_cut),
		LOG_TEST(test_rate_limit),
		LOG_TEST(test_errno_is_kept),
		LOG_TEST(test_colour_on_terminals_only),
		LOG_TEST(test_lines_of_threads_do_not_mix),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
