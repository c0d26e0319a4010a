#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "kern/worker_load.h"

/* Without BPF: memory of this process alone. */
static void test_lines(void **state)
{
	const struct worker_load w = {.poll_delay_ns = 1,
		.served = 2,
		.accepts = 3,
		.runnable = 4,
		.connections = 5,
		.ring = 6,
		.free_slots = 7,
		.sleeping = true,
		.accepting = true};
	struct tg_worker_load *lines, l;

	assert_int_equal(worker_load_map(-1, &lines), 0);
	for (unsigned i = 0; i < TG_WORKERS_MAX; i++)
		assert_false(worker_load_read(&lines[i], &l));
	worker_load_begin(&lines[1]);
	assert_false(worker_load_read(&lines[1], &l)); /* nothing was said yet */
	worker_load_publish(&lines[1], &w, 99);
	assert_true(worker_load_read(&lines[1], &l));
	assert_int_equal(l.heartbeat_ns, 99);
	assert_int_equal(l.poll_delay_ns, 1);
	assert_int_equal(l.served, 2);
	assert_int_equal(l.accepts, 3);
	assert_int_equal(l.runnable, 4);
	assert_int_equal(l.connections, 5);
	assert_int_equal(l.ring, 6);
	assert_int_equal(l.free_slots, 7);
	assert_int_equal(l.sleeping, 1);
	assert_int_equal(l.accepting, 1);
	assert_int_equal(l.tid, gettid());
	assert_int_equal(l.tgid, getpid());
	/* The neighbours' lines are theirs. */
	assert_false(worker_load_read(&lines[0], &l));
	assert_false(worker_load_read(&lines[2], &l));
	worker_load_end(&lines[1]);
	assert_false(worker_load_read(&lines[1], &l));
	/* A former gateway's counts are none of the next one's. */
	worker_load_begin(&lines[1]);
	assert_int_equal(lines[1].served, 0);
	assert_int_equal(lines[1].connections, 0);
	worker_load_unmap(lines);
	worker_load_unmap(NULL);
}

static void test_bad_descriptor(void **state)
{
	struct tg_worker_load *lines = NULL;
	int fd[2];

	assert_int_equal(pipe(fd), 0);
	assert_true(worker_load_map(fd[0], &lines) < 0);
	assert_null(lines);
	close(fd[0]);
	close(fd[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_bad_descriptor),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
