/* Masking: one XOR loop per instruction set. Lengths that do not divide by the block are finished
 * by a block that ends with the data and overlaps the one before; it is loaded before anything is
 * stored, so nothing is masked twice. */
#include "proto/mask.h"

#include <stdatomic.h>
#include <string.h>

#if defined(__x86_64__) || defined(__i386__)
#define MASK_X86 1
#include <immintrin.h>
#endif

enum {
	SHORT_MAX = 16
}; /* up to here no loop and no indirect call */

struct mask_code {
	const char *name;
	bool (*usable)(void);
	/* len > SHORT_MAX; key is the mask in memory order, its first byte belongs to data[0] */
	void (*run)(uint8_t *data, size_t len, uint32_t key);
};

/* The key as it stands `offset` bytes further on. */
static inline uint32_t key_at(uint32_t key, size_t offset)
{
	unsigned int bits = (unsigned int)(offset & 3) * 8;

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return key >> bits | key << (-bits & 31);
#else
	return key << bits | key >> (-bits & 31);
#endif
}

static inline uint64_t twice(uint32_t key)
{
	return (uint64_t)key << 32 | key;
}

static inline uint64_t load64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline uint32_t load32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline void store64(uint8_t *p, uint64_t v)
{
	memcpy(p, &v, sizeof(v));
}

static inline void store32(uint8_t *p, uint32_t v)
{
	memcpy(p, &v, sizeof(v));
}

static void mask_short(uint8_t *data, size_t len, uint32_t key)
{
	if (len >= 8) {
		uint64_t first = load64(data) ^ twice(key);
		uint64_t last = load64(data + len - 8) ^ twice(key_at(key, len - 8));

		store64(data, first);
		store64(data + len - 8, last);
	} else if (len >= 4) {
		uint32_t first = load32(data) ^ key;
		uint32_t last = load32(data + len - 4) ^ key_at(key, len - 4);

		store32(data, first);
		store32(data + len - 4, last);
	} else {
		uint8_t bytes[4];

		store32(bytes, key);
		for (size_t i = 0; i < len; i++)
			data[i] ^= bytes[i];
	}
}

static bool always(void)
{
	return true;
}

static void mask_portable(uint8_t *data, size_t len, uint32_t key)
{
	uint64_t wide = twice(key);
	uint64_t last = load64(data + len - 8) ^ twice(key_at(key, len - 8));

	for (size_t i = 0; i + 8 < len; i += 8)
		store64(data + i, load64(data + i) ^ wide);
	store64(data + len - 8, last);
}

#ifdef MASK_X86
static bool has_sse2(void)
{
	return __builtin_cpu_supports("sse2");
}

static bool has_avx2(void)
{
	return __builtin_cpu_supports("avx2");
}

#define SSE2 __attribute__((target("sse2")))
#define AVX2 __attribute__((target("avx2")))

SSE2 static inline void xor16(uint8_t *p, __m128i key)
{
	_mm_storeu_si128((__m128i *)p, _mm_xor_si128(_mm_loadu_si128((const __m128i *)p), key));
}

SSE2 static void mask_sse2(uint8_t *data, size_t len, uint32_t key)
{
	__m128i wide = _mm_set1_epi32((int)key);
	uint8_t *end = data + len - 16;
	__m128i last = _mm_xor_si128(
		_mm_loadu_si128((const __m128i *)end), _mm_set1_epi32((int)key_at(key, len - 16)));
	size_t i = 0;

	for (; i + 64 < len; i += 64) {
		xor16(data + i, wide);
		xor16(data + i + 16, wide);
		xor16(data + i + 32, wide);
		xor16(data + i + 48, wide);
	}
	for (; i + 16 < len; i += 16)
		xor16(data + i, wide);
	_mm_storeu_si128((__m128i *)end, last);
}

AVX2 static inline void xor32(uint8_t *p, __m256i key)
{
	_mm256_storeu_si256(
		(__m256i *)p, _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)p), key));
}

AVX2 static void mask_avx2(uint8_t *data, size_t len, uint32_t key)
{
	if (len < 32) {
		mask_sse2(data, len, key);
		return;
	}

	__m256i wide = _mm256_set1_epi32((int)key);
	uint8_t *end = data + len - 32;
	__m256i last = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)end),
		_mm256_set1_epi32((int)key_at(key, len - 32)));
	size_t i = 0;

	for (; i + 128 < len; i += 128) {
		xor32(data + i, wide);
		xor32(data + i + 32, wide);
		xor32(data + i + 64, wide);
		xor32(data + i + 96, wide);
	}
	for (; i + 32 < len; i += 32)
		xor32(data + i, wide);
	_mm256_storeu_si256((__m256i *)end, last);
}
#endif

/* Best first; the last is usable everywhere. */
static const struct mask_code codes[] = {
#ifdef MASK_X86
	{"avx2", has_avx2, mask_avx2},
	{"sse2", has_sse2, mask_sse2},
#endif
	{"portable", always, mask_portable},
};

/* Two threads that find it unset choose the same. */
static _Atomic(const struct mask_code *) chosen;

static const struct mask_code *choose(void)
{
	const struct mask_code *c = codes;

	while (!c->usable())
		c++;
	atomic_store_explicit(&chosen, c, memory_order_relaxed);
	return c;
}

static inline const struct mask_code *code(void)
{
	const struct mask_code *c = atomic_load_explicit(&chosen, memory_order_relaxed);

	return c ? c : choose();
}

uint8_t ws_mask(uint8_t *data, size_t len, const uint8_t mask[4], uint8_t phase)
{
	uint32_t key = key_at(load32(mask), phase);

	if (len <= SHORT_MAX)
		mask_short(data, len, key);
	else
		code()->run(data, len, key);
	return (uint8_t)((phase + len) & 3);
}

const char *ws_mask_impl(void)
{
	return code()->name;
}

bool ws_mask_impl_force(const char *name)
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
