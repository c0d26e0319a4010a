#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/mailbox.h"

static struct mailbox *create(unsigned capacity)
{
	struct mailbox *m = NULL;

	assert_int_equal(mailbox_create(capacity, &m), 0);
	return m;
}

static void test_create(void **state)
{
	static const unsigned bad[] = {0, 1, 3, 6, 1000, 65535, 131072, 0x80000000};
	struct mailbox *m = (struct mailbox *)&bad;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(mailbox_create(bad[i], &m), -EINVAL);
		assert_ptr_equal(m, &bad);
	}
	for (unsigned capacity = 2; capacity <= 65536; capacity *= 2)
		mailbox_destroy(create(capacity));
	mailbox_destroy(NULL);
}

static void test_full_empty_and_many_laps(void **state)
{
	struct mailbox *m = create(8);
	struct mailbox_msg msg = {0}, got;
	uint64_t pushed = 0, popped = 0;

	assert_false(mailbox_ready(m));
	assert_false(mailbox_pop(m, &got));
	srandom(1);
	for (unsigned step = 0; step < 100000; step++) {
		for (long n = random() % 12; n; n--) {
			msg = (struct mailbox_msg){.kind = 7,
				.arg = (uint32_t)pushed,
				.a = pushed,
				.b = ~pushed,
				.ptr = &msg};
			int err = mailbox_push(m, &msg);
			assert_int_equal(err, pushed - popped == 8 ? -EAGAIN : 0);
			pushed += !err;
		}
		for (long n = random() % 12; n; n--) {
			bool any = pushed != popped;
			assert_int_equal(mailbox_ready(m), any);
			assert_int_equal(mailbox_pop(m, &got), any);
			if (!any)
				break;
			assert_int_equal(got.kind, 7);
			assert_int_equal(got.arg, (uint32_t)popped);
			assert_int_equal(got.a, popped);
			assert_int_equal(got.b, ~popped);
			assert_ptr_equal(got.ptr, &msg);
			popped++;
		}
	}
	mailbox_destroy(m);
}

static void test_one_wake_per_sleep(void **state)
{
	struct mailbox *m = create(2);

	assert_false(mailbox_take_wake(m));
	mailbox_sleep(m);
	assert_true(mailbox_take_wake(m));
	assert_false(mailbox_take_wake(m));
	mailbox_awake(m);
	assert_false(mailbox_take_wake(m));
	mailbox_sleep(m);
	mailbox_awake(m);
	assert_false(mailbox_take_wake(m));
	mailbox_destroy(m);
}

enum {
	PRODUCERS = 4,
	MESSAGES = 50000,        /* of each producer */
	WAKE_TIMEOUT_MS = 10000, /* so long without a wake-up: it was lost */
};

struct stress {
	struct mailbox *m;
	int event_fd;
	unsigned pause; /* a producer rests after so many messages, that the consumer may fall
			   asleep */
	_Atomic uint64_t wakes, full;
	_Atomic unsigned next_id;
	_Atomic unsigned failures;
};

static void wake(struct stress *s)
{
	uint64_t one = 1;

	if (!mailbox_take_wake(s->m))
		return;
	s->wakes++;
	if (write(s->event_fd, &one, sizeof(one)) != sizeof(one))
		s->failures++;
}

static void *produce(void *arg)
{
	struct stress *s = arg;
	unsigned id = s->next_id++;

	for (uint64_t i = 0; i < MESSAGES; i++) {
		/* Plain memory handed over: the thread sanitizer sees whether push orders it. */
		uint64_t *owned = malloc(sizeof(*owned));
		if (!owned)
			abort();
		*owned = i * PRODUCERS + id;
		struct mailbox_msg msg = {.kind = id, .a = i, .ptr = owned};
		while (mailbox_push(s->m, &msg) != 0) {
			s->full++;
			sched_yield();
		}
		wake(s);
		if (i % s->pause == s->pause - 1)
			usleep(id * 10);
	}
	return NULL;
}

/* Handles what is there; false when a message is out of order. */
static bool drain(struct stress *s, uint64_t *expect, uint64_t *total)
{
	struct mailbox_msg msg;

	while (mailbox_pop(s->m, &msg)) {
		uint64_t *owned = msg.ptr;
		bool good = msg.kind < PRODUCERS && msg.a == expect[msg.kind] &&
			    *owned == msg.a * PRODUCERS + msg.kind;
		free(owned);
		if (!good)
			return false;
		expect[msg.kind]++;
		++*total;
	}
	return true;
}

/* How often the consumer slept. */
static uint64_t run_stress(unsigned capacity, unsigned pause)
{
	struct stress s = {
		.m = create(capacity), .event_fd = eventfd(0, EFD_CLOEXEC), .pause = pause};
	uint64_t expect[PRODUCERS] = {0}, total = 0, announced = 0, sleeps = 0, count;
	pthread_t thread[PRODUCERS];
	const char *failure = NULL;

	assert_true(s.event_fd >= 0);
	for (unsigned i = 0; i < PRODUCERS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, produce, &s), 0);
	while (total < (uint64_t)PRODUCERS * MESSAGES) {
		if (!drain(&s, expect, &total)) {
			failure = "message out of order or damaged";
			break;
		}
		mailbox_sleep(s.m);
		announced++;
		if (!mailbox_ready(s.m) && total < (uint64_t)PRODUCERS * MESSAGES) {
			struct pollfd p = {.fd = s.event_fd, .events = POLLIN};
			sleeps++;
			if (poll(&p, 1, WAKE_TIMEOUT_MS) != 1) {
				failure = "wake-up lost";
				break;
			}
			assert_int_equal(read(s.event_fd, &count, sizeof(count)), sizeof(count));
		}
		mailbox_awake(s.m);
	}
	if (failure)
		fail_msg("%s after %llu messages", failure, (unsigned long long)total);
	for (unsigned i = 0; i < PRODUCERS; i++)
		pthread_join(thread[i], NULL);
	assert_int_equal(s.failures, 0);
	assert_false(mailbox_ready(s.m));
	assert_true(s.wakes >= sleeps && s.wakes <= announced);
	print_message("capacity %u: %llu sleeps, %llu wake-ups, %llu times full\n", capacity,
		(unsigned long long)sleeps, (unsigned long long)s.wakes,
		(unsigned long long)s.full);
	close(s.event_fd);
	mailbox_destroy(s.m);
	return sleeps;
}

static void test_producers_and_a_sleeping_consumer(void **state)
{
	uint64_t sleeps = run_stress(1024, 16);

	sleeps += run_stress(65536, 100);
	sleeps += run_stress(16, 1000);
	sleeps += run_stress(2, 64);
	assert_true(sleeps > 0);
}

struct lockstep {
	struct mailbox *m;
	int event_fd;
	_Atomic uint64_t handled;
	_Atomic bool stop;
};

static void *produce_in_lockstep(void *arg)
{
	struct lockstep *s = arg;
	struct mailbox_msg msg = {0};
	uint64_t one = 1;

	for (uint64_t i = 0; i < 2 * MESSAGES && !s->stop; i++) {
		for (volatile uint64_t delay = i % 128; delay; delay--)
			;
		if (mailbox_push(s->m, &msg) != 0)
			abort();
		if (mailbox_take_wake(s->m) && write(s->event_fd, &one, sizeof(one)) < 0)
			abort();
		for (unsigned spins = 0; s->handled <= i && !s->stop; spins++) {
			if (spins > 1000)
				sched_yield();
		}
	}
	return NULL;
}

/* One message at a time, each pushed just when the consumer goes to sleep: no later message makes
 * up for a wake-up that was lost. */
static void test_lockstep(void **state)
{
	struct lockstep s = {.m = create(2), .event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
	struct mailbox_msg msg;
	uint64_t count;
	pthread_t thread;

	assert_true(s.event_fd >= 0);
	assert_int_equal(pthread_create(&thread, NULL, produce_in_lockstep, &s), 0);
	while (s.handled < 2 * MESSAGES && !s.stop) {
		if (mailbox_pop(s.m, &msg)) {
			s.handled++;
			continue;
		}
		struct pollfd p = {.fd = s.event_fd, .events = POLLIN};
		mailbox_sleep(s.m);
		if (!mailbox_ready(s.m) && poll(&p, 1, WAKE_TIMEOUT_MS) != 1)
			s.stop = true;
		mailbox_awake(s.m);
		(void)!read(s.event_fd, &count, sizeof(count));
	}
	pthread_join(thread, NULL);
	assert_int_equal(s.handled, 2 * MESSAGES);
	assert_false(s.stop);
	close(s.event_fd);
	mailbox_destroy(s.m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_create),
		cmocka_unit_test(test_full_empty_and_many_laps),
		cmocka_unit_test(test_one_wake_per_sleep),
		cmocka_unit_test(test_producers_and_a_sleeping_consumer),
		cmocka_unit_test(test_lockstep),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
