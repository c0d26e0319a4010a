/* What valid UTF-8 is, written from the definition (RFC 3629) and as unlike the code under test as
 * possible: decode a character to its number, then ask whether that number may be written in that
 * many bytes. */
#ifndef TIDEGATE_TESTS_UTF8_REF_H
#define TIDEGATE_TESTS_UTF8_REF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum utf8_ref {
	UTF8_REF_WHOLE, /* valid and complete */
	UTF8_REF_CUT,   /* a valid prefix that ends inside a character */
	UTF8_REF_BAD,   /* no continuation makes it valid */
};

/* Whether some number in low..high is a character that takes `bytes` bytes. */
static inline bool utf8_ref_any(uint32_t low, uint32_t high, size_t bytes)
{
	static const uint32_t first[] = {0, 0, 0x80, 0x800, 0x10000};

	if (low < first[bytes])
		low = first[bytes];
	if (high > 0x10ffff)
		high = 0x10ffff;
	if (low >= 0xd800 && low <= 0xdfff)
		low = 0xe000;
	if (high >= 0xd800 && high <= 0xdfff)
		high = 0xd7ff;
	return low <= high;
}

static inline enum utf8_ref utf8_ref(const uint8_t *data, size_t len)
{
	size_t at = 0;

	while (at < len) {
		uint8_t b = data[at++];
		size_t bytes = b < 0x80   ? 1
			       : b < 0xc0 ? 0
			       : b < 0xe0 ? 2
			       : b < 0xf0 ? 3
			       : b < 0xf8 ? 4
					  : 0;
		uint32_t low;
		uint32_t high;

		if (bytes == 0)
			return UTF8_REF_BAD;
		if (bytes == 1)
			continue;
		low = high = b & (0x7fu >> bytes);
		for (size_t i = 1; i < bytes; i++) {
			if (at < len && (data[at] & 0xc0) != 0x80)
				return UTF8_REF_BAD;
			low = low << 6 | (at < len ? data[at] & 0x3f : 0);
			high = high << 6 | (at < len ? data[at] & 0x3f : 0x3f);
			at++;
		}
		if (!utf8_ref_any(low, high, bytes))
			return UTF8_REF_BAD;
		if (at > len)
			return UTF8_REF_CUT;
	}
	return UTF8_REF_WHOLE;
}

/* Writes cp in its shortest form, also where it may not be written (surrogates, beyond U+10FFFF up
 * to 1fffff). */
static inline size_t utf8_ref_write(uint8_t out[4], uint32_t cp)
{
	if (cp < 0x80) {
		out[0] = (uint8_t)cp;
		return 1;
	}
	if (cp < 0x800) {
		out[0] = (uint8_t)(0xc0 | cp >> 6);
		out[1] = (uint8_t)(0x80 | (cp & 0x3f));
		return 2;
	}
	if (cp < 0x10000) {
		out[0] = (uint8_t)(0xe0 | cp >> 12);
		out[1] = (uint8_t)(0x80 | (cp >> 6 & 0x3f));
		out[2] = (uint8_t)(0x80 | (cp & 0x3f));
		return 3;
	}
	out[0] = (uint8_t)(0xf0 | cp >> 18);
	out[1] = (uint8_t)(0x80 | (cp >> 12 & 0x3f));
	out[2] = (uint8_t)(0x80 | (cp >> 6 & 0x3f));
	out[3] = (uint8_t)(0x80 | (cp & 0x3f));
	return 4;
}

#endif
