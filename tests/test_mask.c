/* ws_mask against a byte loop, for every implementation this CPU has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/mask.h"
#include "support/guard.h"

enum {
	LEN_MAX = 300,
	ALIGN_MAX = 33,
	ROOM = LEN_MAX + 2 * ALIGN_MAX
};

static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d};
static const char *const impls[] = {"portable", "sse2", "avx2"};

static void reference(uint8_t *data, size_t len, uint8_t phase)
{
	for (size_t i = 0; i < len; i++)
		data[i] ^= mask[(phase + i) % 4];
}

static void fill(uint8_t *data, size_t len, unsigned int seed)
{
	for (size_t i = 0; i < len; i++)
		data[i] = (uint8_t)(rand_r(&seed) >> 7);
}

/* Every length, alignment and phase; the bytes around must stay. */
static void every_shape(void)
{
	uint8_t before[ROOM];
	uint8_t got[ROOM];
	uint8_t want[ROOM];

	fill(before, ROOM, 1);
	for (size_t align = 0; align < ALIGN_MAX; align++) {
		for (size_t len = 0; len <= LEN_MAX; len++) {
			uint8_t phase = (uint8_t)((len + align) % 4);

			for (int i = 0; i < 4; i++, phase = (phase + 1) % 4) {
				memcpy(got, before, ROOM);
				memcpy(want, before, ROOM);
				reference(want + align, len, phase);
				assert_int_equal(
					ws_mask(got + align, len, mask, phase), (phase + len) % 4);
				assert_memory_equal(got, want, ROOM);
				if (align > 8)
					break;
			}
		}
	}
}

/* Nothing behind the end is read or written. */
static void at_the_guard(void)
{
	struct guard g;

	guard_init(&g, LEN_MAX);
	for (size_t len = 0; len <= LEN_MAX; len++) {
		uint8_t want[LEN_MAX];
		uint8_t *data = guard_tail(&g, len);

		fill(want, len, (unsigned int)len);
		if (len)
			memcpy(data, want, len);
		reference(want, len, 2);
		ws_mask(data, len, mask, 2);
		assert_memory_equal(data, want, len);
	}
	guard_fini(&g);
}

/* A long payload in random cuts, the phase carried on, and back again in one piece. */
static void in_pieces(void)
{
	size_t total = 1 << 20;
	uint8_t *data = malloc(total);
	uint8_t *want = malloc(total);
	unsigned int seed = 7;
	uint8_t phase = 0;
	size_t at = 0;

	assert_non_null(data);
	assert_non_null(want);
	fill(data, total, 3);
	memcpy(want, data, total);
	reference(want, total, 0);
	while (at < total) {
		size_t n = (size_t)rand_r(&seed) % (rand_r(&seed) % 8 ? 70 : 5000);

		if (n > total - at)
			n = total - at;
		phase = ws_mask(data + at, n, mask, phase);
		at += n;
		assert_int_equal(phase, at % 4);
	}
	assert_memory_equal(data, want, total);
	ws_mask(data, total, mask, 0);
	reference(want, total, 0);
	assert_memory_equal(data, want, total);
	free(data);
	free(want);
}

static void with_every_impl(void (*check)(void))
{
	int tried = 0;

	for (size_t i = 0; i < sizeof(impls) / sizeof(impls[0]); i++) {
		if (!ws_mask_impl_force(impls[i]))
			continue;
		assert_string_equal(ws_mask_impl(), impls[i]);
		check();
		tried++;
	}
	assert_true(tried >= 1);
	assert_true(ws_mask_impl_force(NULL));
}

static void test_every_shape(void **state)
{
	with_every_impl(every_shape);
}

static void test_guard(void **state)
{
	with_every_impl(at_the_guard);
}

static void test_pieces(void **state)
{
	with_every_impl(in_pieces);
}

static void test_phase_wraps(void **state)
{
	uint8_t a[9] = {0};
	uint8_t b[9] = {0};

	assert_int_equal(ws_mask(a, 9, mask, 3), 0);
	assert_int_equal(ws_mask(b, 9, mask, 7), 0); /* mask[phase % 4] */
	assert_memory_equal(a, b, 9);
}

static void test_force(void **state)
{
	const char *automatic;

	assert_true(ws_mask_impl_force(NULL));
	automatic = ws_mask_impl();
	assert_true(ws_mask_impl_force("portable"));
	assert_string_equal(ws_mask_impl(), "portable");
	assert_false(ws_mask_impl_force("no such code"));
	assert_string_equal(ws_mask_impl(), "portable");
	assert_true(ws_mask_impl_force(NULL));
	assert_string_equal(ws_mask_impl(), automatic);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_shape),
		cmocka_unit_test(test_guard),
		cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_phase_wraps),
		cmocka_unit_test(test_force),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
