/* The gateway's own token: who, until when, and a MAC that only holders of the secret can make.
 * Pure; any thread; the clock is an argument.
 *
 *     tg1.<base64url of "subject|expiry">.<base64url of HMAC-SHA256 of the same bytes>
 *
 * `expiry` is in seconds of the Unix epoch, decimal; it stands behind the last '|', so that a
 * subject may hold one. `tg1` is the format's version: another one would have another prefix.
 * Characters are those of an HTTP token (RFC 9110 5.6.2), so that it fits a header, a query and a
 * subprotocol unescaped. With a shell:
 *
 *     p='alice|1900000000'; b() { base64 -w0 | tr +/ -_ | tr -d =; }
 *     echo "tg1.$(printf %s "$p" | b).$(printf %s "$p" | openssl dgst -sha256 -hmac "$S" -binary |
 * b)"
 */
#ifndef TIDEGATE_PROTO_TOKEN_H
#define TIDEGATE_PROTO_TOKEN_H

#include <stddef.h>
#include <stdint.h>

#include "base/stats.h"
#include "proto/base64url.h"

enum {
	TOKEN_SUBJECT_MAX = 256,
	TOKEN_EXPIRY_DIGITS = 12,
	TOKEN_MAC_LEN = 32,
	TOKEN_TEXT_MAX = TOKEN_SUBJECT_MAX + 1 + TOKEN_EXPIRY_DIGITS,
	TOKEN_MAX = 4 + BASE64URL_LEN(TOKEN_TEXT_MAX) + 1 + BASE64URL_LEN(TOKEN_MAC_LEN),
	TOKEN_SECRET_MIN = 32, /* of the hash's length, RFC 2104 3 */
};

#define TOKEN_EXPIRES_MAX UINT64_C(999999999999)

struct token_secret {
	const void *data;
	size_t len;
};

struct token {
	char subject[TOKEN_SUBJECT_MAX + 1]; /* UTF-8 without control characters, NUL-terminated */
	size_t subject_len;
	uint64_t expires_s; /* Unix time; not valid from then on */
};

/* Writes a token and a NUL. Its length, or 0: the subject is empty, longer than TOKEN_SUBJECT_MAX,
 * not UTF-8 or has control characters, or the expiry is above TOKEN_EXPIRES_MAX. */
size_t token_write(char out[TOKEN_MAX + 1], const char *subject, size_t subject_len,
	uint64_t expires_s, const struct token_secret *secret);

/* AUTH_PASSED with *ret; MALFORMED; SIGNATURE when none of the secrets made it; EXPIRED, known only
 * of a genuine one: *ret is filled then too. The MAC is compared in constant time. leeway_s: for so
 * long an expired one is still good. */
enum auth_failure token_verify(const char *text, size_t len, const struct token_secret *secrets,
	unsigned n_secrets, uint64_t now_s, unsigned leeway_s, struct token *ret);

#endif
