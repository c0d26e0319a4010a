/* ops/probe: judging made-up machines, and a look at this one. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "ops/probe.h"

static struct probe_facts machine(const char *release, unsigned major, unsigned minor)
{
	struct probe_facts f = {.kernel_major = major, .kernel_minor = minor, .uring_disabled = 0};

	snprintf(f.release, sizeof(f.release), "%s", release);
	f.nofile_soft = 1024;
	f.nofile_hard = 524288;
	f.memlock_soft = f.memlock_hard = UINT64_MAX;
	return f;
}

static void test_nothing_missing(void **state)
{
	struct probe_facts f = machine("6.12.0", 6, 12);
	char text[256] = "untouched";

	f.error[PROBE_send_msg_ring] = -EINVAL; /* newer than the oldest kernel supported */
	assert_false(probe_missing(&f, text, sizeof(text)));
	f = machine("7.0.1-rc1", 7, 0);
	assert_false(probe_missing(&f, text, sizeof(text)));
	assert_string_equal(text, "untouched");
}

static void test_old_kernel_names_features(void **state)
{
	struct probe_facts f = machine("6.1.0-13-amd64", 6, 1);
	char text[512];

	f.error[PROBE_socket_commands] = -EOPNOTSUPP;
	f.error[PROBE_min_wait] = -EOPNOTSUPP;
	f.error[PROBE_send_msg_ring] = -EINVAL;
	assert_true(probe_missing(&f, text, sizeof(text)));
	assert_string_equal(text,
		"Linux 6.1.0-13-amd64 is older than 6.12; missing: "
		"io_uring socket command GETSOCKOPT (6.7), io_uring minimum wait (6.12)");

	f = machine("5.14.0", 5, 14); /* whatever was put into it */
	assert_true(probe_missing(&f, text, sizeof(text)));
	assert_string_equal(text, "Linux 5.14.0 is older than 6.12");
}

static void test_no_io_uring(void **state)
{
	struct probe_facts f = machine("6.12.0", 6, 12);
	char text[256], small[16];

	for (unsigned i = 0; i < PROBE_FEATURE_COUNT; i++)
		f.error[i] = -EOPNOTSUPP;
	f.error[PROBE_io_uring] = -EPERM;
	f.uring_disabled = 2;
	assert_true(probe_missing(&f, text, sizeof(text)));
	assert_string_equal(text, "missing: io_uring (Operation not permitted: the sysctl "
				  "kernel.io_uring_disabled forbids it)");
	f.uring_disabled = -1;
	assert_true(probe_missing(&f, text, sizeof(text)));
	assert_string_equal(text, "missing: io_uring (Operation not permitted: a seccomp filter or "
				  "security module forbids it)");
	f.error[PROBE_io_uring] = -ENOSYS;
	assert_true(probe_missing(&f, text, sizeof(text)));
	assert_string_equal(text, "missing: io_uring (Function not implemented)");
	assert_true(probe_missing(&f, small, sizeof(small)));
	assert_string_equal(small, "missing: io_uri");
}

static void test_print(void **state)
{
	struct probe_facts f = machine("6.12.0", 6, 12);
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	f.error[PROBE_send_msg_ring] = -EINVAL;
	probe_print(&f, out);
	fclose(out);
	assert_non_null(strstr(text, "6.12.0\n"));
	assert_non_null(strstr(text, " no (Invalid argument), not needed\n"));
	assert_non_null(strstr(text, "1024, hard limit 524288\n"));
	assert_non_null(strstr(text, "unlimited, hard limit unlimited\n"));
	free(text);
}

static void test_this_machine(void **state)
{
	struct probe_facts f;
	char text[512];

	probe_collect(&f);
	assert_true(f.release[0] != '\0');
	assert_true(f.kernel_major > 0);
	assert_true(f.nofile_soft > 0 && f.nofile_soft <= f.nofile_hard);
	if (probe_missing(&f, text, sizeof(text))) {
		print_message("skipped: %s\n", text);
		skip();
	}
	for (unsigned i = 0; i < PROBE_send_msg_ring; i++)
		assert_int_equal(f.error[i], 0);
	assert_int_equal(f.error[PROBE_btf] == 0, access("/sys/kernel/btf/vmlinux", R_OK) == 0);
	if (geteuid() != 0)
		assert_int_equal(f.error[PROBE_freplace], -EPERM);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_missing),
		cmocka_unit_test(test_old_kernel_names_features),
		cmocka_unit_test(test_no_io_uring),
		cmocka_unit_test(test_print),
		cmocka_unit_test(test_this_machine),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
