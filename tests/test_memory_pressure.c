#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <string.h>

#include "net/memory_pressure.h"

static void test_cgroup(void **state)
{
	assert_int_equal(memory_percent_cgroup("50\n", "200\n", NULL), 25);
	assert_int_equal(memory_percent_cgroup("200\n", "200\n", NULL), 100);
	assert_int_equal(memory_percent_cgroup("199\n", "200\n", NULL), 99);
	assert_int_equal(memory_percent_cgroup("50\n", "max\n", NULL), MEMORY_UNKNOWN);
	assert_int_equal(
		memory_percent_cgroup("50\n", "9223372036854771712\n", NULL), MEMORY_UNKNOWN);
	assert_int_equal(memory_percent_cgroup("", "200\n", NULL), MEMORY_UNKNOWN);
	assert_int_equal(memory_percent_cgroup("junk", "200\n", NULL), MEMORY_UNKNOWN);
	assert_int_equal(memory_percent_cgroup("-5", "200\n", NULL), MEMORY_UNKNOWN);
	assert_int_equal(
		memory_percent_cgroup("99999999999999999999999", "200\n", NULL), MEMORY_UNKNOWN);
	assert_int_equal(memory_percent_cgroup("5", "0\n", NULL), 100);
}

/* What the kernel would give up at once is not pressure. */
static void test_cgroup_cache(void **state)
{
	assert_int_equal(
		memory_percent_cgroup("150", "200", "anon 1\ninactive_file 50\nx 2\n"), 50);
	assert_int_equal(memory_percent_cgroup("150", "200",
				 "inactive_file 1\nmapped 2\ntotal_inactive_file 100\n"),
		25);
	assert_int_equal(memory_percent_cgroup("150", "200", "inactive_file 900\n"), 0);
	assert_int_equal(memory_percent_cgroup("150", "200", "active_file 50\n"), 75);
	assert_int_equal(memory_percent_cgroup("150", "200", "inactive_file"), 75);
}

static void test_tcp(void **state)
{
	static const char sockstat[] = "sockets: used 290\nTCP: inuse 5 orphan 0 tw 2 alloc 7 mem "
				       "25\nUDP: inuse 1 mem 900\n";

	assert_int_equal(memory_percent_tcp(sockstat, "10\t20\t100\n"), 25);
	assert_int_equal(memory_percent_tcp(sockstat, "1 2 3\n"), 833);
	assert_int_equal(memory_percent_tcp(sockstat, "1 2\n"), MEMORY_UNKNOWN);
	assert_int_equal(memory_percent_tcp(sockstat, "1 2 0\n"), MEMORY_UNKNOWN);
	assert_int_equal(memory_percent_tcp(sockstat, ""), MEMORY_UNKNOWN);
	assert_int_equal(memory_percent_tcp("", "1 2 3\n"), MEMORY_UNKNOWN);
	/* Not another protocol's number. */
	assert_int_equal(memory_percent_tcp("TCP: inuse 5\nUDP: inuse 1 mem 900\n", "1 2 1000"),
		MEMORY_UNKNOWN);
}

static void test_machine(void **state)
{
	assert_int_equal(
		memory_percent_machine(
			"MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:   250 kB\n"),
		75);
	assert_int_equal(memory_percent_machine("MemTotal: 1000 kB\nMemAvailable: 2000 kB\n"), 0);
	assert_int_equal(memory_percent_machine("MemTotal: 1000 kB\n"), MEMORY_UNKNOWN);
	assert_int_equal(
		memory_percent_machine("MemTotal: 0 kB\nMemAvailable: 0 kB\n"), MEMORY_UNKNOWN);
	assert_int_equal(memory_percent_machine(""), MEMORY_UNKNOWN);
}

static void test_path(void **state)
{
	char path[MEMORY_PATH_MAX], huge[2 * MEMORY_PATH_MAX] = "0::/";
	bool v2;

	assert_true(memory_cgroup_path("0::/system.slice/tidegate.service\n", &v2, path));
	assert_true(v2);
	assert_string_equal(path, "/system.slice/tidegate.service");
	/* With both, memory is counted by v1's controller. */
	assert_true(memory_cgroup_path("5:cpu:/c\n4:memory:/m\n0::/\n", &v2, path));
	assert_false(v2);
	assert_string_equal(path, "/m");
	assert_true(memory_cgroup_path("0::/u\n4:memory:/m\n", &v2, path));
	assert_false(v2);
	assert_true(memory_cgroup_path("4:memory:/m", &v2, path)); /* no newline at the end */
	assert_string_equal(path, "/m");
	assert_false(memory_cgroup_path("", &v2, path));
	assert_false(memory_cgroup_path("junk\n::\n:\n4:cpu:/x\n", &v2, path));
	assert_false(memory_cgroup_path("0::relative\n", &v2, path));
	memset(huge + 4, 'x', sizeof huge - 5);
	assert_false(memory_cgroup_path(huge, &v2, path));
}

/* The machine this runs on: whatever it has must make sense. */
static void test_reader(void **state)
{
	struct memory_pressure m;
	struct memory_percents p;

	memory_pressure_open(&m);
	memory_pressure_read(&m, &p);
	assert_in_range(p.machine, 0, 100);
	assert_true(p.greatest >= p.machine && p.greatest >= p.tcp && p.greatest >= p.cgroup);
	memory_pressure_close(&m);
	memory_pressure_read(&m, &p);
	assert_int_equal(p.greatest, MEMORY_UNKNOWN);
	memory_pressure_close(&m); /* twice closes nobody else's */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cgroup),
		cmocka_unit_test(test_cgroup_cache),
		cmocka_unit_test(test_tcp),
		cmocka_unit_test(test_machine),
		cmocka_unit_test(test_path),
		cmocka_unit_test(test_reader),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
