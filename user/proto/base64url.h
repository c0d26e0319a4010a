/* base64url without padding (RFC 4648 5, RFC 7515 2), strict. Pure; any thread. */
#ifndef TIDEGATE_PROTO_BASE64URL_H
#define TIDEGATE_PROTO_BASE64URL_H

#include <stddef.h>
#include <sys/types.h>

/* Characters that n bytes become, and the most bytes that n characters may be. */
#define BASE64URL_LEN(n)     (((n)*4 + 2) / 3)
#define BASE64URL_DECODED(n) ((n) / 4 * 3 + 2)

/* Writes BASE64URL_LEN(len) characters, no NUL. Returns how many. */
size_t base64url_encode(char *out, const void *data, size_t len);

/* Decodes all of text into out, of `room` bytes. Returns how many, or -EPROTO: a character of
 * another alphabet, a padding, an impossible length, spare bits that are not 0 (one value has one
 * spelling), or more than room. */
ssize_t base64url_decode(void *out, size_t room, const char *text, size_t len);

#endif
