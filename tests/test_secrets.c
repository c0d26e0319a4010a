#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "keeper/secrets.h"

static char folder[] = "/tmp/tidegate-test-secrets-XXXXXX", a[64], b[64], log_path[64];
static struct secrets_file files[2];
static struct secrets s;
static uint64_t now_ms;
static int log_fd;

/* "bad…" is what it does not like. */
static const char *check(int what, const void *data, size_t len)
{
	assert_true(what == 7 || what == 8);
	return len >= 3 && !memcmp(data, "bad", 3) ? "is bad" : NULL;
}

static const struct secrets_opts opts = {files, 2, check};

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static int setup_group(void **state)
{
	assert_non_null(mkdtemp(folder));
	snprintf(a, sizeof a, "%s/a", folder);
	snprintf(b, sizeof b, "%s/b", folder);
	snprintf(log_path, sizeof log_path, "%s/log", folder);
	return 0;
}

static int teardown_group(void **state)
{
	unlink(log_path);
	return rmdir(folder);
}

static int setup(void **state)
{
	log_fd = open(log_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(log_fd >= 0);
	log_init(&(struct log_opts){.level = LOG_LEVEL_DEBUG, .fd = log_fd, .who = "test"});
	files[0] = (struct secrets_file){a, "key.a", true, 7};
	files[1] = (struct secrets_file){b, "key.b", false, 8};
	put(a, "first a");
	put(b, "first b");
	s = (struct secrets){0};
	now_ms = 1000000;
	return 0;
}

static int teardown(void **state)
{
	secrets_fini(&s);
	unlink(a);
	unlink(b);
	close(log_fd);
	return 0;
}

static unsigned logged(const char *what)
{
	static char text[65536];
	ssize_t n = pread(log_fd, text, sizeof text - 1, 0);
	unsigned found = 0;

	assert_true(n >= 0);
	text[n] = '\0';
	for (const char *p = text; (p = strstr(p, what)); p++)
		found++;
	return found;
}

static void load(void)
{
	char error[256];

	assert_int_equal(secrets_load(&s, &opts, error, sizeof error), 0);
}

static bool poll_later(void)
{
	now_ms += SECRETS_POLL_MS;
	return secrets_poll(&s, now_ms);
}

static void expect(const char *want_a, const char *want_b)
{
	struct secrets_slice got[2];
	int fd = secrets_pack(&s);
	size_t len;
	void *blob;

	assert_true(fd >= 0);
	assert_int_equal(secrets_unpack(fd, 2, got, &blob, &len), 0);
	assert_int_equal(got[0].len, strlen(want_a));
	assert_memory_equal(got[0].data, want_a, got[0].len);
	assert_int_equal(got[1].len, strlen(want_b));
	assert_memory_equal(got[1].data, want_b, got[1].len);
	secrets_blob_free(blob, len);
	assert_true(write(fd, "x", 1) < 0); /* sealed */
	close(fd);
}

static void test_change(void **state)
{
	load();
	expect("first a", "first b");
	assert_false(poll_later());
	put(b, "second b");
	assert_false(secrets_poll(&s, now_ms)); /* not looked at so soon */
	assert_false(poll_later());             /* it may not be complete */
	expect("first a", "first b");
	assert_true(poll_later());
	expect("first a", "second b");
	assert_false(poll_later());
	assert_int_equal(logged("key.b"), 1);
}

/* Written for as long as it is: taken when it rests. */
static void test_slow_writer(void **state)
{
	char text[64] = "";

	load();
	for (unsigned i = 0; i < 5; i++) {
		strcat(text, "part ");
		put(a, text);
		assert_false(poll_later());
	}
	assert_true(poll_later());
	expect("part part part part part ", "first b");
}

static void test_renamed_over(void **state)
{
	char other[80];

	load();
	snprintf(other, sizeof other, "%s.new", a);
	put(other, "other a");
	assert_int_equal(rename(other, a), 0);
	assert_false(poll_later());
	assert_true(poll_later());
	expect("other a", "first b");
}

static void test_bad_and_gone(void **state)
{
	load();
	put(a, "bad one");
	put(b, "second b");
	assert_false(poll_later());
	assert_true(poll_later());
	expect("first a", "second b");
	for (unsigned i = 0; i < 3; i++)
		assert_false(poll_later());
	assert_int_equal(logged("key.a: "), 1);
	assert_int_equal(logged("is bad; what it was before stays in use"), 1);
	assert_int_equal(unlink(a), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_false(poll_later());
	assert_int_equal(logged("No such file or directory"), 1);
	put(a, "good again");
	assert_false(poll_later());
	assert_true(poll_later());
	expect("good again", "second b");
}

/* Touched, but the same: nobody is bothered. */
static void test_same_contents(void **state)
{
	load();
	unlink(a);
	put(a, "first a");
	for (unsigned i = 0; i < 3; i++)
		assert_false(poll_later());
	assert_int_equal(logged("has changed"), 0);
}

static void test_permissions(void **state)
{
	assert_int_equal(chmod(a, 0604), 0);
	assert_int_equal(chmod(b, 0644), 0);
	load();
	assert_int_equal(logged("key.a: "), 1);
	assert_int_equal(logged("may be read by every user"), 1);
}

static void expect_failure(const char *want)
{
	char error[512];

	assert_int_equal(secrets_load(&s, &opts, error, sizeof error), -EINVAL);
	assert_non_null(strstr(error, want));
	assert_non_null(strstr(error, "key.b: "));
	assert_non_null(strstr(error, b));
	secrets_fini(&s);
}

static void test_bad_at_first(void **state)
{
	char *big = calloc(1, SECRETS_FILE_MAX + 2);

	put(b, "bad");
	expect_failure("is bad");
	memset(big, 'x', SECRETS_FILE_MAX + 1);
	put(b, big);
	expect_failure("is larger than 64 KiB");
	free(big);
	unlink(b);
	expect_failure("No such file");
	assert_int_equal(mkfifo(b, 0600), 0);
	expect_failure("is not a file");
	unlink(b);
	assert_int_equal(mkdir(b, 0700), 0);
	expect_failure("is not a file");
	rmdir(b);
}

static void expect_bad(const void *data, size_t len, unsigned n)
{
	char path[80];
	struct secrets_slice got[4];
	size_t got_len;
	void *blob;
	int fd;

	snprintf(path, sizeof path, "%s/blob", folder);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, len), len);
	assert_int_equal(secrets_unpack(fd, n, got, &blob, &got_len), -EBADMSG);
	close(fd);
	unlink(path);
}

static void test_malformed_blob(void **state)
{
	const uint32_t three = 3, huge = UINT32_MAX;
	char blob[16];

	memcpy(blob, &three, 4);
	memcpy(blob + 4, "abc", 3);
	expect_bad(blob, 7, 2);
	expect_bad(blob, 6, 1);
	expect_bad(blob, 3, 1);
	expect_bad(blob, 7, 0);
	expect_bad("", 0, 1);
	memcpy(blob, &huge, 4);
	expect_bad(blob, 16, 1);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_change),
		TEST(test_slow_writer),
		TEST(test_renamed_over),
		TEST(test_bad_and_gone),
		TEST(test_same_contents),
		TEST(test_permissions),
		TEST(test_bad_at_first),
		TEST(test_malformed_blob),
	};
	return cmocka_run_group_tests(tests, setup_group, teardown_group);
}
