/* Since when a socket was readable, as the kernel wrote it, and what the worker makes of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/wake.h"

enum {
	NOW = 1000000,
};

static struct tg_sched sched;
static struct tg_ready ready[TG_READY_PLACES];
static const struct wakes w = {&sched, ready};
static struct in6_addr one = {{{0x20, 1, 0xd, 0xb8, [15] = 1}}},
		       two = {{{0x20, 1, 0xd, 0xb8, [15] = 2}}};

static int setup(void **state)
{
	memset(ready, 0, sizeof ready);
	sched = (struct tg_sched){.share = TG_SCHED_SHARE_ALL, .seed = 12345};
	return 0;
}

/* As sched.bpf.c does. */
static void write_ready(in_port_t port, const struct in6_addr *peer, uint64_t since_ns)
{
	struct tg_ready *r = &ready[tg_ready_hash(port, sched.seed) % TG_READY_PLACES];

	*r = (struct tg_ready){.since_ns = since_ns,
		.cookie = 7,
		.key = tg_ready_key(peer->s6_addr32[0], peer->s6_addr32[1], peer->s6_addr32[2],
			peer->s6_addr32[3])};
}

static bool take(in_port_t port, const struct in6_addr *peer, uint64_t *ret)
{
	return wake_take(&w, wake_tag(&w, port), peer, NOW, ret);
}

static void test_nothing_measured(void **state)
{
	static const struct wakes never;
	uint64_t ns = 1;

	assert_int_equal(wake_tag(&never, 80), 0);
	assert_false(wake_measuring(&never));
	assert_false(wake_take(&never, 5, &one, NOW, &ns));
	assert_true(wake_measuring(&w));
	/* Off: what stands there is of earlier. */
	write_ready(80, &one, NOW - 1);
	sched.share = 0;
	assert_false(wake_measuring(&w));
	assert_false(take(80, &one, &ns));
	assert_int_equal(ns, 1);
}

static void test_once(void **state)
{
	uint64_t ns;

	write_ready(80, &one, NOW - 400);
	assert_true(take(80, &one, &ns));
	assert_int_equal(ns, 400);
	assert_false(take(80, &one, &ns));
	assert_int_equal(ready[wake_tag(&w, 80) % TG_READY_PLACES].since_ns, 0);
	/* Its peer's address is not known yet. */
	write_ready(80, &one, NOW - 400);
	assert_false(wake_take(&w, 0, &one, NOW, &ns));
	/* Nor any more: whoever it is. */
	assert_true(take(80, NULL, &ns));
}

static void test_anothers_place(void **state)
{
	uint64_t ns;

	write_ready(80, &one, NOW - 400);
	assert_false(take(80, &two, &ns));
	assert_true(take(80, &one, &ns));
}

/* A time that says nothing is taken away all the same, or it would stand for the next event. */
static void test_times_of_no_use(void **state)
{
	uint64_t ns = 1;

	write_ready(80, &one, NOW + 1); /* came after the receive */
	assert_false(take(80, &one, &ns));
	sched.since_ns = NOW - 100;
	write_ready(81, &one, NOW - 101); /* of before the last switch */
	assert_false(take(81, &one, &ns));
	assert_int_equal(ns, 1);
	for (unsigned i = 0; i < TG_READY_PLACES; i++)
		assert_int_equal(ready[i].since_ns, 0);
	write_ready(81, &one, NOW - 100);
	assert_true(take(81, &one, &ns));
}

/* The share is kept, whatever the seed and however close together the ports are; and one that grows
 * only adds to those that were in it. */
static void test_share(void **state)
{
	static const uint32_t shares[] = {TG_SCHED_SHARE_ALL / 100, TG_SCHED_SHARE_ALL / 10,
		TG_SCHED_SHARE_ALL / 2, TG_SCHED_SHARE_ALL};

	srandom(1);
	for (unsigned round = 0; round < 100; round++) {
		uint32_t seed = (uint32_t)random();
		bool in[28232] = {false};

		for (unsigned s = 0; s < 4; s++) {
			unsigned n = 0;

			for (unsigned p = 0; p < 28232; p++) {
				uint16_t h = tg_ready_hash(htons((uint16_t)(32768 + p)), seed);
				bool now = tg_ready_sampled(h, shares[s]);

				assert_true(now || !in[p]);
				in[p] = now;
				n += now;
			}
			double want = 28232.0 * shares[s] / TG_SCHED_SHARE_ALL;
			assert_true(n >= want * 0.8 && n <= want * 1.2);
		}
	}
	for (unsigned p = 0; p < 65536; p++)
		assert_false(tg_ready_sampled(tg_ready_hash((in_port_t)p, 1), 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_nothing_measured, setup),
		cmocka_unit_test_setup(test_once, setup),
		cmocka_unit_test_setup(test_anothers_place, setup),
		cmocka_unit_test_setup(test_times_of_no_use, setup),
		cmocka_unit_test_setup(test_share, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
