/* WebSocket masking (RFC 6455 5.3), vectorised where the CPU can; chosen at first use. Pure; any
 * thread. */
#ifndef TIDEGATE_PROTO_MASK_H
#define TIDEGATE_PROTO_MASK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* XORs data in place with the mask, beginning at mask[phase % 4]; returns the phase after it, 0..3.
 * Any alignment. */
uint8_t ws_mask(uint8_t *data, size_t len, const uint8_t mask[4], uint8_t phase);

const char *ws_mask_impl(void);
bool ws_mask_impl_force(const char *name); /* "avx2", "sse2", "portable", NULL: automatic */

#endif
