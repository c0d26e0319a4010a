/* UTF-8 validation. A byte-wise automaton defines what is valid and carries the state between
 * calls; vector code checks the bulk in between. The vector loops only start at a character
 * boundary with three checked bytes before it, so "the byte before", "two before" and "three
 * before" are plain loads, and the last block may overlap the one before. What a block cannot see
 * is a character cut off by the end: the automaton runs over that again. */
#include "proto/utf8.h"

#include <stdatomic.h>
#include <string.h>

#if defined(__x86_64__) || defined(__i386__)
#define UTF8_X86 1
#include <immintrin.h>
#endif

/* States between UTF8_ACCEPT and UTF8_REJECT say what may follow (RFC 3629 section 4). */
enum {
	TAIL1 = 1, /* one more continuation byte */
	TAIL2,
	TAIL3,
	AFTER_E0, /* a0-bf: shorter forms exist below */
	AFTER_ED, /* 80-9f: surrogates above */
	AFTER_F0, /* 90-bf: shorter forms exist below */
	AFTER_F4, /* 80-8f: beyond U+10FFFF above */
	STATES,
	UTF8_REJECT = 0xff,
};

enum {
	CONTEXT = 3,    /* bytes before a block that a character in it may have begun in */
	SHORT_MAX = 16, /* up to here no indirect call */
};

struct utf8_code {
	const char *name;
	bool (*usable)(void);
	/* len > SHORT_MAX */
	bool (*feed)(uint8_t *state, const uint8_t *data, size_t len);
};

static const uint8_t lead[256] = {
	[0x80 ... 0xc1] = UTF8_REJECT,
	[0xc2 ... 0xdf] = TAIL1,
	[0xe0] = AFTER_E0,
	[0xe1 ... 0xec] = TAIL2,
	[0xed] = AFTER_ED,
	[0xee ... 0xef] = TAIL2,
	[0xf0] = AFTER_F0,
	[0xf1 ... 0xf3] = TAIL3,
	[0xf4] = AFTER_F4,
	[0xf5 ... 0xff] = UTF8_REJECT,
};

static const struct {
	uint8_t first, count, next; /* bytes first .. first + count - 1 lead to state next */
} follow[STATES] = {
	[TAIL1] = {0x80, 0x40, UTF8_ACCEPT},
	[TAIL2] = {0x80, 0x40, TAIL1},
	[TAIL3] = {0x80, 0x40, TAIL2},
	[AFTER_E0] = {0xa0, 0x20, TAIL1},
	[AFTER_ED] = {0x80, 0x20, TAIL1},
	[AFTER_F0] = {0x90, 0x30, TAIL2},
	[AFTER_F4] = {0x80, 0x10, TAIL2},
};

static inline uint8_t step(uint8_t state, uint8_t byte)
{
	if (state == UTF8_ACCEPT)
		return lead[byte];
	if ((uint8_t)(byte - follow[state].first) < follow[state].count)
		return follow[state].next;
	return UTF8_REJECT;
}

static inline uint64_t high_bits64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v & 0x8080808080808080u;
}

static bool always(void)
{
	return true;
}

static bool feed_portable(uint8_t *state, const uint8_t *data, size_t len)
{
	uint8_t s = *state;
	size_t at = 0;

	while (at < len) {
		if (s == UTF8_ACCEPT) {
			while (len - at >= 8 && !high_bits64(data + at))
				at += 8;
			if (at == len)
				break;
		}
		s = step(s, data[at++]);
		if (s == UTF8_REJECT)
			return false;
	}
	*state = s;
	return true;
}

#ifdef UTF8_X86
#define SSE2 __attribute__((target("sse2")))
#define AVX2 __attribute__((target("avx2")))

static bool has_sse2(void)
{
	return __builtin_cpu_supports("sse2");
}

static bool has_avx2(void)
{
	return __builtin_cpu_supports("avx2");
}

/* Where the character begins that the end cuts off, or len. Looks at no more than CONTEXT bytes. */
static size_t cut_character(const uint8_t *data, size_t len)
{
	for (size_t back = 1; back <= CONTEXT; back++) {
		uint8_t byte = data[len - back];

		if (byte < 0x80)
			break;
		if (byte >= 0xc0) {
			size_t bytes = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;

			return bytes > back ? len - back : len;
		}
	}
	return len;
}

/* From *at byte by byte up to the first character boundary that has CONTEXT bytes before it. */
static bool feed_head(uint8_t *state, const uint8_t *data, size_t len, size_t *at)
{
	uint8_t s = *state;

	while (*at < len && (*at < CONTEXT || s != UTF8_ACCEPT)) {
		s = step(s, data[(*at)++]);
		if (s == UTF8_REJECT)
			return false;
	}
	*state = s;
	return true;
}

SSE2 static inline __m128i load16(const uint8_t *p)
{
	return _mm_loadu_si128((const __m128i *)p);
}

SSE2 static inline __m128i all16(unsigned int byte)
{
	return _mm_set1_epi8((char)byte);
}

/* Bit 7 of each byte: set where the byte cannot stand. SSE2 has no byte shuffle, so the rules are
 * compares. A saturating subtraction of n - 0x80 leaves bit 7 set exactly in bytes >= n. */
SSE2 static inline __m128i errors16(const uint8_t *p)
{
	__m128i in = load16(p);
	__m128i before = load16(p - 1);
	__m128i due = _mm_or_si128(_mm_subs_epu8(before, all16(0xc0 - 0x80)),
		_mm_or_si128(_mm_subs_epu8(load16(p - 2), all16(0xe0 - 0x80)),
			_mm_subs_epu8(load16(p - 3), all16(0xf0 - 0x80))));
	__m128i is_tail = _mm_cmplt_epi8(in, all16(0xc0));
	__m128i bad = _mm_xor_si128(due, is_tail);

	/* Bytes that never occur: c0, c1, f5 and up. */
	bad = _mm_or_si128(bad, _mm_cmpeq_epi8(_mm_and_si128(in, all16(0xfe)), all16(0xc0)));
	bad = _mm_or_si128(bad, _mm_subs_epu8(in, all16(0xf5 - 0x80)));

	/* Second bytes with a narrower range. Bytes that are no continuation are already bad, so
	 * signed compares do. */
	__m128i from_a0 = _mm_cmpgt_epi8(in, all16(0x9f));
	__m128i from_90 = _mm_cmpgt_epi8(in, all16(0x8f));

	bad = _mm_or_si128(bad, _mm_andnot_si128(from_a0, _mm_cmpeq_epi8(before, all16(0xe0))));
	bad = _mm_or_si128(bad, _mm_and_si128(from_a0, _mm_cmpeq_epi8(before, all16(0xed))));
	bad = _mm_or_si128(bad, _mm_andnot_si128(from_90, _mm_cmpeq_epi8(before, all16(0xf0))));
	return _mm_or_si128(bad, _mm_and_si128(from_90, _mm_cmpeq_epi8(before, all16(0xf4))));
}

/* Checks data[at .. len), at least 16 bytes. */
SSE2 static bool blocks_sse2(const uint8_t *data, size_t at, size_t len)
{
	__m128i bad = _mm_setzero_si128();

	while (at < len) {
		if (len - at < 16)
			at = len - 16;
		if (_mm_movemask_epi8(_mm_or_si128(load16(data + at), load16(data + at - CONTEXT))))
			bad = _mm_or_si128(bad, errors16(data + at));
		at += 16;
	}
	return _mm_movemask_epi8(bad) == 0;
}

/* Bytes of ASCII at the start: a multiple of 16, or all. len >= 16. The blocks lie as ws_mask
 * stored them, which just happened as a rule: other cuts would wait for the stores. */
SSE2 static size_t ascii_sse2(const uint8_t *data, size_t len)
{
	size_t at = 0;

	for (; len - at >= 16; at += 16)
		if (_mm_movemask_epi8(load16(data + at)))
			return at;
	return _mm_movemask_epi8(load16(data + len - 16)) ? at : len;
}

SSE2 static bool feed_sse2(uint8_t *state, const uint8_t *data, size_t len)
{
	size_t at = *state == UTF8_ACCEPT ? ascii_sse2(data, len) : 0;

	if (!feed_head(state, data, len, &at))
		return false;
	if (len - at >= 16) {
		if (!blocks_sse2(data, at, len))
			return false;
		at = cut_character(data, len);
	}
	return feed_portable(state, data + at, len - at);
}

/* After Keiser and Lemire, "Validating UTF-8 in less than one instruction per byte" (2021). Each
 * wrong pair of neighbours belongs to a class that is a product of three sets: high nibble of the
 * first byte, its low nibble, high nibble of the second. One bit per class; a pair is wrong when
 * one bit is set in all three look-ups. PAIR is no error by itself: two continuation bytes in a row
 * must stand exactly where a long character's third and fourth byte are due. */
enum {
	CLASS_SHORT = 1 << 0,     /* lead byte, then no continuation */
	CLASS_STRAY = 1 << 1,     /* ASCII, then a continuation */
	CLASS_OVERLONG2 = 1 << 2, /* c0, c1 */
	CLASS_OVERLONG3 = 1 << 3, /* e0, then 80-9f */
	CLASS_SURROGATE = 1 << 4, /* ed, then a0-bf */
	CLASS_EDGE4 = 1 << 5,     /* f0 (overlong), f5 and up (too large), then 80-8f */
	CLASS_LARGE = 1 << 6,     /* f4 and up, then 90-bf */
	CLASS_PAIR = 1 << 7,      /* two continuations */
	CLASS_ANY_LOW = CLASS_SHORT | CLASS_STRAY | CLASS_PAIR,
};

/* clang-format off */
#define FIRST_HIGH(n) \
	((n) < 0x8 ? CLASS_STRAY : (n) < 0xc ? CLASS_PAIR : CLASS_SHORT | \
	((n) == 0xc ? CLASS_OVERLONG2 : 0) | \
	((n) == 0xe ? CLASS_OVERLONG3 | CLASS_SURROGATE : 0) | \
	((n) == 0xf ? CLASS_EDGE4 | CLASS_LARGE : 0))
#define FIRST_LOW(n) \
	(CLASS_ANY_LOW | ((n) <= 0x1 ? CLASS_OVERLONG2 : 0) | \
	((n) == 0x0 ? CLASS_OVERLONG3 : 0) | ((n) == 0xd ? CLASS_SURROGATE : 0) | \
	((n) == 0x0 || (n) >= 0x5 ? CLASS_EDGE4 : 0) | ((n) >= 0x4 ? CLASS_LARGE : 0))
#define SECOND_HIGH(n) \
	((n) < 0x8 || (n) >= 0xc ? CLASS_SHORT : CLASS_STRAY | CLASS_OVERLONG2 | CLASS_PAIR | \
	((n) <= 0x9 ? CLASS_OVERLONG3 : CLASS_SURROGATE) | \
	((n) == 0x8 ? CLASS_EDGE4 : CLASS_LARGE))
#define NIBBLES(f) \
	{ f(0x0), f(0x1), f(0x2), f(0x3), f(0x4), f(0x5), f(0x6), f(0x7), \
	  f(0x8), f(0x9), f(0xa), f(0xb), f(0xc), f(0xd), f(0xe), f(0xf) }
/* clang-format on */

static const uint8_t first_high[16] = NIBBLES(FIRST_HIGH);
static const uint8_t first_low[16] = NIBBLES(FIRST_LOW);
static const uint8_t second_high[16] = NIBBLES(SECOND_HIGH);

AVX2 static inline __m256i load32(const uint8_t *p)
{
	return _mm256_loadu_si256((const __m256i *)p);
}

AVX2 static inline __m256i all32(unsigned int byte)
{
	return _mm256_set1_epi8((char)byte);
}

AVX2 static inline __m256i table32(const uint8_t table[16])
{
	return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table));
}

AVX2 static inline __m256i high_nibbles(__m256i v)
{
	return _mm256_and_si256(_mm256_srli_epi16(v, 4), all32(0x0f));
}

/* Any bit set: the byte cannot stand. */
AVX2 static inline __m256i errors32(const uint8_t *p, __m256i in)
{
	__m256i before = load32(p - 1);
	__m256i classes = _mm256_shuffle_epi8(table32(first_high), high_nibbles(before));

	classes = _mm256_and_si256(classes,
		_mm256_shuffle_epi8(table32(first_low), _mm256_and_si256(before, all32(0x0f))));
	classes = _mm256_and_si256(
		classes, _mm256_shuffle_epi8(table32(second_high), high_nibbles(in)));

	__m256i pair_due = _mm256_or_si256(_mm256_subs_epu8(load32(p - 2), all32(0xe0 - 0x80)),
		_mm256_subs_epu8(load32(p - 3), all32(0xf0 - 0x80)));

	return _mm256_xor_si256(classes, _mm256_and_si256(pair_due, all32(0x80)));
}

/* Checks data[at .. len), at least 32 bytes. */
AVX2 static bool blocks_avx2(const uint8_t *data, size_t at, size_t len)
{
	__m256i bad = _mm256_setzero_si256();

	while (at < len) {
		if (len - at < 32)
			at = len - 32;

		__m256i in = load32(data + at);

		if (_mm256_movemask_epi8(_mm256_or_si256(in, load32(data + at - CONTEXT))))
			bad = _mm256_or_si256(bad, errors32(data + at, in));
		at += 32;
	}
	return _mm256_testz_si256(bad, bad);
}

/* As ascii_sse2, by 32; len >= 32. */
AVX2 static size_t ascii_avx2(const uint8_t *data, size_t len)
{
	size_t at = 0;

	for (; len - at >= 32; at += 32)
		if (_mm256_movemask_epi8(load32(data + at)))
			return at;
	return _mm256_movemask_epi8(load32(data + len - 32)) ? at : len;
}

AVX2 static bool feed_avx2(uint8_t *state, const uint8_t *data, size_t len)
{
	size_t at = 0;

	if (*state == UTF8_ACCEPT)
		at = (len >= 32 ? ascii_avx2 : ascii_sse2)(data, len);
	if (!feed_head(state, data, len, &at))
		return false;
	if (len - at >= 16) {
		if (!(len - at >= 32 ? blocks_avx2 : blocks_sse2)(data, at, len))
			return false;
		at = cut_character(data, len);
	}
	return feed_portable(state, data + at, len - at);
}
#endif

/* Best first; the last is usable everywhere. */
static const struct utf8_code codes[] = {
#ifdef UTF8_X86
	{"avx2", has_avx2, feed_avx2},
	{"sse2", has_sse2, feed_sse2},
#endif
	{"portable", always, feed_portable},
};

/* Two threads that find it unset choose the same. */
static _Atomic(const struct utf8_code *) chosen;

static const struct utf8_code *choose(void)
{
	const struct utf8_code *c = codes;

	while (!c->usable())
		c++;
	atomic_store_explicit(&chosen, c, memory_order_relaxed);
	return c;
}

static inline const struct utf8_code *code(void)
{
	const struct utf8_code *c = atomic_load_explicit(&chosen, memory_order_relaxed);

	return c ? c : choose();
}

bool utf8_feed(uint8_t *state, const uint8_t *data, size_t len)
{
	if (len <= SHORT_MAX) {
		if (len >= 8 && *state == UTF8_ACCEPT &&
			!(high_bits64(data) | high_bits64(data + len - 8)))
			return true;
		return feed_portable(state, data, len);
	}
	return code()->feed(state, data, len);
}

bool utf8_valid(const uint8_t *data, size_t len)
{
	uint8_t state = UTF8_ACCEPT;

	return utf8_feed(&state, data, len) && state == UTF8_ACCEPT;
}

const char *utf8_impl(void)
{
	return code()->name;
}

bool utf8_impl_force(const char *name)
{
	if (!name) {
		choose();
		return true;
	}
	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		if (strcmp(codes[i].name, name) == 0 && codes[i].usable()) {
			atomic_store_explicit(&chosen, &codes[i], memory_order_relaxed);
			return true;
		}
	}
	return false;
}
