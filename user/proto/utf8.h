/* Incremental UTF-8 validation (RFC 3629), vectorised where the CPU can; chosen at first use. Pure;
 * any thread. */
#ifndef TIDEGATE_PROTO_UTF8_H
#define TIDEGATE_PROTO_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	UTF8_ACCEPT = 0
}; /* the state between characters, and the initial one */

/* Feeds bytes to the validator. False as soon as no continuation could make the text valid
 * (overlong, surrogate, above U+10FFFF, stray or missing continuation); *state is then meaningless.
 * True: so far a valid prefix; the text is complete when *state == UTF8_ACCEPT. */
bool utf8_feed(uint8_t *state, const uint8_t *data, size_t len);

/* A whole text at once. */
bool utf8_valid(const uint8_t *data, size_t len);

/* Name of the code in use ("avx2", "sse2", "portable"), for --probe; and the override tests use
 * (NULL: automatic; returns false when this CPU cannot). */
const char *utf8_impl(void);
bool utf8_impl_force(const char *name);

#endif
