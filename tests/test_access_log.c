/* The access log: what a line is, and that nothing which happens to its descriptor holds up those
 * who put lines in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "ops/access_log.h"

enum {
	QUEUE = 8,
	WAIT_MS = 20000,
};

static struct tg_worker_stats stats[2];

static struct access_record record(void)
{
	struct access_record r = {
		.ended_unix_ms = 1772366400123, /* 2026-03-01T12:00:00.123Z */
		.duration_us = 81234567,
		.session = 7612345678901248,
		.peer_port = htons(51234),
		.worker = 3,
		.status = 101,
		.code = 1001,
		.listener = "ws",
		.route = "/chat/*",
		.protocol = "websocket",
		.bytes_in = 5120,
		.bytes_out = UINT64_C(1) << 40,
		.messages_in = 40,
		.messages_out = 977,
		.dropped = 2,
		.run_delay_max_us = 412,
		.reason = CLOSE_CLIENT,
		.opened = true,
		.subject_len = 5,
		.subject = "alice",
	};
	inet_pton(AF_INET6, "::ffff:192.0.2.17", &r.peer);
	return r;
}

/* The line as an object; it is one line of ASCII. */
static json_t *parsed(const struct access_record *r)
{
	char line[ACCESS_LOG_LINE_MAX];
	size_t len = access_log_format(r, line);
	json_error_t e;

	assert_true(len > 1);
	assert_int_equal(line[len - 1], '\n');
	for (size_t i = 0; i < len - 1; i++)
		assert_in_range(line[i], ' ', '~');
	json_t *o = json_loadb(line, len, JSON_REJECT_DUPLICATES, &e);
	if (!o)
		fail_msg("%s: %.*s", e.text, (int)len, line);
	return o;
}

#define TEXT(o, key)    json_string_value(json_object_get(o, key))
#define NUMBER(o, key)  json_integer_value(json_object_get(o, key))
#define IS_NULL(o, key) json_is_null(json_object_get(o, key))

static void test_fields(void **state)
{
	struct access_record r = record();
	json_t *o = parsed(&r);

	assert_int_equal(json_object_size(o), 21);
	assert_string_equal(TEXT(o, "ts"), "2026-03-01T12:00:00.123Z");
	assert_string_equal(TEXT(o, "session"), "7612345678901248");
	assert_string_equal(TEXT(o, "peer"), "192.0.2.17");
	assert_int_equal(NUMBER(o, "peer_port"), 51234);
	assert_string_equal(TEXT(o, "listener"), "ws");
	assert_string_equal(TEXT(o, "route"), "/chat/*");
	assert_string_equal(TEXT(o, "protocol"), "websocket");
	assert_string_equal(TEXT(o, "subject"), "alice");
	assert_int_equal(NUMBER(o, "worker"), 3);
	assert_string_equal(TEXT(o, "handshake"), "completed");
	assert_int_equal(NUMBER(o, "status"), 101);
	assert_int_equal(NUMBER(o, "duration_us"), 81234567);
	assert_int_equal(NUMBER(o, "bytes_in"), 5120);
	assert_int_equal(NUMBER(o, "bytes_out"), UINT64_C(1) << 40);
	assert_int_equal(NUMBER(o, "messages_in"), 40);
	assert_int_equal(NUMBER(o, "messages_out"), 977);
	assert_int_equal(NUMBER(o, "dropped"), 2);
	assert_int_equal(NUMBER(o, "run_delay_max_us"), 412);
	assert_string_equal(TEXT(o, "reason"), "client");
	assert_int_equal(NUMBER(o, "code"), 1001);
	assert_true(IS_NULL(o, "error"));
	json_decref(o);
}

static void test_what_is_not_known_is_null(void **state)
{
	static const char *const keys[] = {
		"session", "peer", "peer_port", "route", "subject", "status", "code", "error"};
	struct access_record r = {
		.listener = "ws", .route = "", .protocol = "raw", .reason = CLOSE_RESET};
	json_t *o = parsed(&r);

	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
		assert_true(IS_NULL(o, keys[i]));
	assert_string_equal(TEXT(o, "handshake"), "incomplete");
	json_decref(o);

	r.status = 401;
	r.reason = CLOSE_HANDSHAKE;
	r.error = "expired";
	inet_pton(AF_INET6, "2001:db8::1", &r.peer);
	o = parsed(&r);
	assert_string_equal(TEXT(o, "peer"), "2001:db8::1");
	assert_string_equal(TEXT(o, "handshake"), "refused");
	assert_string_equal(TEXT(o, "error"), "expired");
	json_decref(o);
}

static json_t *with_subject(struct access_record *r, const char *subject)
{
	r->subject_len = (uint8_t)strlen(subject);
	memcpy(r->subject, subject, r->subject_len);
	return parsed(r);
}

/* Whatever a subject holds, the line stays one line of ASCII (as parsed() sees to) and means the
 * same.
 */
static void test_subjects(void **state)
{
	static const char *const subjects[] = {"\"},{\"reason\":\"", "a\nb\r\t\x01\x1b[31m\x7f",
		"\xe2\x80\xa8\xe2\x80\xae" /* line separator, right to left */, "\xf0\x9f\x90\xa7",
		"\\u0000", "</script>"};
	struct access_record r = record();

	for (size_t i = 0; i < sizeof subjects / sizeof *subjects; i++) {
		/* 0x7f is a printable's neighbour that JSON leaves alone. */
		json_t *o;

		if (strchr(subjects[i], 0x7f)) {
			char line[ACCESS_LOG_LINE_MAX];

			r.subject_len = (uint8_t)strlen(subjects[i]);
			memcpy(r.subject, subjects[i], r.subject_len);
			size_t len = access_log_format(&r, line);
			o = json_loadb(line, len, 0, NULL);
			assert_null(memchr(line, '\n', len - 1));
			assert_null(memchr(line, '\x1b', len));
		} else {
			o = with_subject(&r, subjects[i]);
		}
		assert_string_equal(TEXT(o, "subject"), subjects[i]);
		assert_string_equal(TEXT(o, "reason"), "client");
		json_decref(o);
	}
	json_t *o = with_subject(&r, "a\xff\xfe");
	assert_string_equal(TEXT(o, "subject"), "(3 bytes, not UTF-8)");
	json_decref(o);
}

static void test_a_cut_subject_ends_at_a_character(void **state)
{
	struct access_record r = record();

	/* 128 bytes end after one, two and three bytes of a character of four. */
	for (unsigned begin = 1; begin < 4; begin++) {
		char whole[ACCESS_LOG_SUBJECT_MAX + 1];
		unsigned kept = ACCESS_LOG_SUBJECT_MAX - begin;

		memset(whole, 'x', sizeof whole);
		memcpy(whole + kept, "\xf0\x9f\x90\xa7", begin);
		memcpy(r.subject, whole, sizeof r.subject);
		r.subject_len = sizeof r.subject;
		r.subject_cut = true;
		json_t *o = parsed(&r);
		assert_int_equal(json_string_length(json_object_get(o, "subject")), kept);
		json_decref(o);
	}
}

/* The longest there can be: names of the configuration at their most, every byte of the subject an
 * escape. */
static void test_the_longest_line_fits(void **state)
{
	char listener[64], route[256], line[ACCESS_LOG_LINE_MAX];
	struct access_record r = record();

	memset(listener, 'l', 63);
	listener[63] = '\0';
	memset(route, '"', 255);
	route[255] = '\0';
	memset(r.subject, 1, sizeof r.subject);
	r.subject_len = sizeof r.subject;
	r.listener = listener;
	r.route = route;
	r.session = r.duration_us = r.bytes_in = r.bytes_out = INT64_MAX;
	r.error = "penalty_concurrency";
	assert_in_range(access_log_format(&r, line), 1000, ACCESS_LOG_LINE_MAX);
}

static struct access_log *start(int fd)
{
	struct access_log *a;

	for (unsigned i = 0; i < 2; i++)
		stats_init(&stats[i]);
	assert_int_equal(access_log_create(
				 &(struct access_log_opts){
					 .fd = fd, .n_workers = 2, .queue = QUEUE, .stats = stats},
				 &a),
		0);
	return a;
}

/* Lines in a file, each a whole object; -1 when one is not. */
static int lines_in(const char *path)
{
	char line[ACCESS_LOG_LINE_MAX];
	FILE *f = fopen(path, "r");
	int n = 0;

	assert_non_null(f);
	while (n >= 0 && fgets(line, sizeof line, f)) {
		json_t *o = json_loads(line, 0, NULL);

		n = o && strchr(line, '\n') ? n + 1 : -1;
		json_decref(o);
	}
	fclose(f);
	return n;
}

static void nap(void)
{
	nanosleep(&(struct timespec){0, 1000000}, NULL);
}

#define WAIT_UNTIL(cond)                                                                           \
	for (unsigned waited_ = 0; !(cond); waited_++) {                                           \
		if (waited_ == WAIT_MS)                                                            \
			fail_msg("waited in vain for " #cond);                                     \
		nap();                                                                             \
	}

static int setup(void **state)
{
	char *path = strdup("/tmp/tidegate-access-XXXXXX");

	close(mkstemp(path));
	*state = path;
	return 0;
}

static int teardown(void **state)
{
	unlink(*state);
	free(*state);
	return 0;
}

static void test_writes_and_opens_anew(void **state)
{
	const char *path = *state;
	char moved[64];
	int fd = open(path, O_WRONLY | O_APPEND);
	struct access_record r = record();
	struct access_log *a = start(fd);

	close(fd); /* it has a copy */
	for (unsigned i = 0; i < 2; i++)
		access_log_put(a, i, &r);
	WAIT_UNTIL(lines_in(path) == 2);
	assert_int_equal(stats[0].access_lines + stats[1].access_lines, 2);

	snprintf(moved, sizeof moved, "%s.1", path);
	assert_int_equal(rename(path, moved), 0);
	access_log_reopen(a, open(path, O_WRONLY | O_APPEND | O_CREAT, 0600));
	access_log_reopen(a, open(path, O_WRONLY | O_APPEND)); /* one that is overtaken is closed */
	access_log_put(a, 1, &r);
	access_log_destroy(a); /* writes what is left */
	assert_true(lines_in(moved) + lines_in(path) == 3);
	assert_true(lines_in(path) == 1);
	unlink(moved);
}

/* A reader that stalls: the queue fills, what comes then is dropped and counted, nobody waits, and
 * the end comes all the same. */
static void test_a_stalled_reader(void **state)
{
	struct access_record r = record();
	char full[65536];
	int pipe_fd[2];

	assert_int_equal(pipe2(pipe_fd, O_CLOEXEC | O_NONBLOCK), 0);
	memset(full, ' ', sizeof full);
	while (write(pipe_fd[1], full, sizeof full) > 0)
		;
	struct access_log *a = start(pipe_fd[1]);
	/* The writer may have taken what was there when it stalled, and then nothing more. */
	for (unsigned i = 0; i < 4 * QUEUE; i++)
		access_log_put(a, 0, &r);
	WAIT_UNTIL(({
		access_log_put(a, 0, &r);
		stats[0].access_dropped > QUEUE;
	}));
	assert_true(stats[0].access_lines >= QUEUE);
	access_log_put(a, 1, &r); /* that of another worker has room */
	assert_int_equal(stats[1].access_lines, 1);

	uint64_t lines = stats[0].access_lines + stats[1].access_lines;
	access_log_destroy(a);
	assert_int_equal(stats[0].access_failed + stats[1].access_failed, lines);
	close(pipe_fd[0]);
	close(pipe_fd[1]);
}

static void test_a_full_disk(void **state)
{
	struct access_record r = record();
	int fd = open("/dev/full", O_WRONLY);
	struct access_log *a = start(fd);

	close(fd);
	access_log_put(a, 0, &r);
	WAIT_UNTIL(__atomic_load_n(&stats[0].access_failed, __ATOMIC_RELAXED) == 1);
	/* There is room again: the next one is written. */
	access_log_reopen(a, open(*state, O_WRONLY | O_APPEND));
	access_log_put(a, 0, &r);
	WAIT_UNTIL(lines_in(*state) == 1);
	access_log_destroy(a);
	assert_int_equal(stats[0].access_failed, 1);
}

static void test_cannot_start(void **state)
{
	struct access_log *a;

	assert_int_equal(access_log_create(
				 &(struct access_log_opts){
					 .fd = -1, .n_workers = 1, .queue = QUEUE, .stats = stats},
				 &a),
		-EBADF);
	access_log_destroy(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fields),
		cmocka_unit_test(test_what_is_not_known_is_null),
		cmocka_unit_test(test_subjects),
		cmocka_unit_test(test_a_cut_subject_ends_at_a_character),
		cmocka_unit_test(test_the_longest_line_fits),
		cmocka_unit_test_setup_teardown(test_writes_and_opens_anew, setup, teardown),
		cmocka_unit_test(test_a_stalled_reader),
		cmocka_unit_test_setup_teardown(test_a_full_disk, setup, teardown),
		cmocka_unit_test(test_cannot_start),
	};
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	log_init(&(struct log_opts){.level = LOG_LEVEL_ERROR, .fd = null});
	return cmocka_run_group_tests(tests, NULL, NULL);
}
