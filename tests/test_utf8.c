/* UTF-8 validation against a reference written from the definition, for every implementation this
 * CPU has. Sequences are tried alone and at changing places inside longer text, so that the vector
 * code sees them across its blocks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/utf8.h"
#include "support/guard.h"
#include "support/utf8_ref.h"

static const char *const impls[] = {"portable", "sse2", "avx2"};

/* The first and last bytes of every range that the rules tell apart, and their neighbours. */
static const uint8_t edges[] = {0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2,
	0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xf8, 0xfb, 0xff};
enum {
	EDGES = sizeof(edges)
};

static enum utf8_ref feed(uint8_t *state, const uint8_t *data, size_t len)
{
	if (!utf8_feed(state, data, len))
		return UTF8_REF_BAD;
	return *state == UTF8_ACCEPT ? UTF8_REF_WHOLE : UTF8_REF_CUT;
}

static enum utf8_ref verdict(const uint8_t *data, size_t len)
{
	uint8_t state = UTF8_ACCEPT;

	return feed(&state, data, len);
}

/* A text with long characters near both ends. A sequence goes in between, and so much ASCII follows
 * that a vector block after it is nothing else. */
enum {
	FRAME_LEN = 128,
	FRAME_FROM = 11,
	FRAME_TO = 70
};

static uint8_t frame[FRAME_LEN];

static int frame_init(void **state)
{
	memset(frame, 'a', FRAME_LEN);
	memcpy(frame + 5, "\xf0\x9f\x8c\x8a", 4);
	memcpy(frame + 110, "\xe2\x82\xac", 3);
	memcpy(frame + 120, "\xc3\xa9", 2);
	return 0;
}

/* There are millions of these: cmocka's assertions would take most of the time. */
static void expect(const uint8_t *data, size_t len, enum utf8_ref want)
{
	if (verdict(data, len) != want)
		fail_msg("%s: %d instead of %d, %02x %02x %02x %02x, %zu bytes", utf8_impl(),
			(int)verdict(data, len), (int)want, data[0], data[1], data[2], data[3],
			len);
}

/* The sequence alone, embedded at `place`, and at the end of the text. */
static void check_sequence(const uint8_t seq[4], size_t n, size_t place)
{
	enum utf8_ref alone = utf8_ref(seq, n);

	expect(seq, n, alone);
	place = FRAME_FROM + place % (FRAME_TO - FRAME_FROM);
	for (size_t i = 0; i < n; i++)
		frame[place + i] = seq[i];
	/* ASCII follows: what was cut is now wrong. */
	expect(frame, FRAME_LEN, alone == UTF8_REF_WHOLE ? UTF8_REF_WHOLE : UTF8_REF_BAD);
	expect(frame, place + n, alone);
	for (size_t i = 0; i < n; i++)
		frame[place + i] = 'a';
}

static void every_character(void)
{
	uint8_t seq[4] = {0};

	for (uint32_t cp = 0; cp <= 0x1fffff; cp++) {
		bool character = cp <= 0x10ffff && (cp < 0xd800 || cp > 0xdfff);

		/* Beyond U+10FFFF a sample is enough. */
		if (cp > 0x110000 && cp % 61)
			continue;
		size_t n = utf8_ref_write(seq, cp);

		if (utf8_ref(seq, n) != (character ? UTF8_REF_WHOLE : UTF8_REF_BAD))
			fail_msg("the reference is wrong about %x", cp);
		check_sequence(seq, n, cp);
	}
}

/* All characters in one text, whole and cut at odd places. */
static void one_long_text(void)
{
	size_t cap = 4 * 0x110000;
	uint8_t *text = malloc(cap);
	size_t len = 0;
	uint8_t state = UTF8_ACCEPT;

	assert_non_null(text);
	for (uint32_t cp = 0; cp <= 0x10ffff; cp++)
		if (cp < 0xd800 || cp > 0xdfff)
			len += utf8_ref_write(text + len, cp);
	assert_true(utf8_valid(text, len));
	for (size_t at = 0, n = 1; at < len; at += n, n = n * 7 % 211 + 1) {
		if (n > len - at)
			n = len - at;
		assert_true(utf8_feed(&state, text + at, n));
	}
	assert_int_equal(state, UTF8_ACCEPT);
	for (size_t at = 1; at < len; at += 99991) {
		uint8_t was = text[at];

		text[at] = 0xff;
		assert_false(utf8_valid(text, len));
		text[at] = was;
	}
	free(text);
}

static void short_sequences(void)
{
	uint8_t seq[4] = {0};
	size_t place = 0;

	for (unsigned int v = 0; v < 0x10000; v++) {
		seq[0] = (uint8_t)(v >> 8);
		seq[1] = (uint8_t)v;
		check_sequence(seq, 1, place++);
		check_sequence(seq, 2, place++);
	}
	for (size_t v = 0; v < (size_t)EDGES * EDGES * EDGES; v++) {
		seq[0] = edges[v / EDGES / EDGES];
		seq[1] = edges[v / EDGES % EDGES];
		seq[2] = edges[v % EDGES];
		for (size_t i = 0; i < 4; i++)
			check_sequence(seq, 3, place++);
	}
	for (size_t v = 0; v < (size_t)EDGES * EDGES * EDGES * EDGES; v++) {
		seq[0] = edges[v / EDGES / EDGES / EDGES];
		seq[1] = edges[v / EDGES / EDGES % EDGES];
		seq[2] = edges[v / EDGES % EDGES];
		seq[3] = edges[v % EDGES];
		check_sequence(seq, 4, place++);
	}
}

/* Random texts, mostly valid, in random cuts: the verdict of every prefix must be the reference's.
 */
static void random_texts(void)
{
	unsigned int seed = 11;
	uint8_t text[400];

	for (int round = 0; round < 3000; round++) {
		size_t len = 0;
		size_t want = (size_t)rand_r(&seed) % (sizeof(text) - 4);
		uint8_t state = UTF8_ACCEPT;

		while (len < want) {
			static const uint32_t caps[] = {0x80, 0x80, 0x800, 0x10000, 0x110000};
			uint32_t cp = (uint32_t)rand_r(&seed) % caps[rand_r(&seed) % 5];

			if (cp < 0xd800 || cp > 0xdfff)
				len += utf8_ref_write(text + len, cp);
		}
		if (len && round % 3 == 0)
			text[(size_t)rand_r(&seed) % len] ^= (uint8_t)(1 << rand_r(&seed) % 8);
		for (size_t at = 0; at < len;) {
			size_t n = (size_t)rand_r(&seed) % 90;
			enum utf8_ref wanted;

			if (n > len - at)
				n = len - at;
			wanted = utf8_ref(text, at + n);
			assert_int_equal(feed(&state, text + at, n), wanted);
			if (wanted == UTF8_REF_BAD)
				break;
			at += n;
		}
	}
}

/* A long character at every place of texts of every length, cut in two everywhere. */
static void every_cut(void)
{
	static const char *const characters[] = {"\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x8c\x8a"};
	uint8_t text[100];

	for (size_t c = 0; c < 3; c++) {
		size_t n = strlen(characters[c]);

		for (size_t place = 0; place + n <= sizeof(text); place += 1 + place / 24) {
			memset(text, 'z', sizeof(text));
			memcpy(text + place, characters[c], n);
			for (size_t cut = 0; cut <= sizeof(text); cut++) {
				uint8_t state = UTF8_ACCEPT;

				assert_true(utf8_feed(&state, text, cut));
				assert_int_equal(
					state != UTF8_ACCEPT, cut > place && cut < place + n);
				assert_true(utf8_feed(&state, text + cut, sizeof(text) - cut));
				assert_int_equal(state, UTF8_ACCEPT);
			}
		}
	}
}

static void at_the_guard(void)
{
	struct guard g;
	uint8_t text[200];

	guard_init(&g, sizeof(text));
	for (size_t i = 0; i < sizeof(text); i += 4)
		memcpy(text + i, i % 8 ? "\xf0\x9f\x8c\x8a" : "ab\xc3\xa9", 4);
	for (size_t len = 0; len <= sizeof(text); len++) {
		uint8_t *p = guard_copy(&g, text, len);

		assert_int_equal(verdict(p, len), utf8_ref(text, len));
		memset(p, 'a', len);
		assert_int_equal(verdict(p, len), UTF8_REF_WHOLE);
	}
	guard_fini(&g);
}

static void with_every_impl(void (*check)(void))
{
	int tried = 0;

	for (size_t i = 0; i < sizeof(impls) / sizeof(impls[0]); i++) {
		if (!utf8_impl_force(impls[i]))
			continue;
		assert_string_equal(utf8_impl(), impls[i]);
		check();
		tried++;
	}
	assert_true(tried >= 1);
	assert_true(utf8_impl_force(NULL));
}

static void test_every_character(void **state)
{
	with_every_impl(every_character);
}

static void test_one_long_text(void **state)
{
	with_every_impl(one_long_text);
}

static void test_short_sequences(void **state)
{
	with_every_impl(short_sequences);
}

static void test_random_texts(void **state)
{
	with_every_impl(random_texts);
}

static void test_every_cut(void **state)
{
	with_every_impl(every_cut);
}

static void test_guard(void **state)
{
	with_every_impl(at_the_guard);
}

static void test_fails_fast(void **state)
{
	static const struct {
		const char *text;
		enum utf8_ref verdict;
	} cases[] = {
		{"", UTF8_REF_WHOLE},
		{"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5", UTF8_REF_WHOLE},
		{"\xce", UTF8_REF_CUT},
		{"\xf4\x8f\xbf", UTF8_REF_CUT},
		{"\xf4\x90", UTF8_REF_BAD},
		{"\xf5", UTF8_REF_BAD},
		{"\xc0", UTF8_REF_BAD},
		{"\xe0\x80", UTF8_REF_BAD},
		{"\xed\xa0", UTF8_REF_BAD},
		{"\xf0\x80", UTF8_REF_BAD},
		{"\x80", UTF8_REF_BAD},
		{"\xe2\x28", UTF8_REF_BAD},
		{"\xfe", UTF8_REF_BAD},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const uint8_t *text = (const uint8_t *)cases[i].text;

		assert_int_equal(verdict(text, strlen(cases[i].text)), cases[i].verdict);
		assert_int_equal(utf8_valid(text, strlen(cases[i].text)),
			cases[i].verdict == UTF8_REF_WHOLE);
	}
}

static void test_force(void **state)
{
	const char *automatic;

	assert_true(utf8_impl_force(NULL));
	automatic = utf8_impl();
	assert_true(utf8_impl_force("portable"));
	assert_string_equal(utf8_impl(), "portable");
	assert_false(utf8_impl_force("no such code"));
	assert_string_equal(utf8_impl(), "portable");
	assert_true(utf8_impl_force(NULL));
	assert_string_equal(utf8_impl(), automatic);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_character),
		cmocka_unit_test(test_one_long_text),
		cmocka_unit_test(test_short_sequences),
		cmocka_unit_test(test_random_texts),
		cmocka_unit_test(test_every_cut),
		cmocka_unit_test(test_guard),
		cmocka_unit_test(test_fails_fast),
		cmocka_unit_test(test_force),
	};

	return cmocka_run_group_tests(tests, frame_init, NULL);
}
