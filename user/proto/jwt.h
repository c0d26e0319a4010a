/* JSON Web Tokens in compact form (RFC 7519, RFC 7515), but for the signature: what must be known
 * before a library sees a token, and what its claims must say after one has verified it. Pure; any
 * thread; the clock is an argument.
 *
 * The library in use follows the header's algorithm and checks no claims. So the header is read
 * here first, sizes bounded, and a token goes on only when its algorithm is the one its key is
 * configured for (RFC 8725 3.1).
 */
#ifndef TIDEGATE_PROTO_JWT_H
#define TIDEGATE_PROTO_JWT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/stats.h"

enum {
	JWT_HEADER_MAX = 1024, /* decoded; alg, typ and kid take about 100 */
	JWT_KID_MAX = 128,
	JWT_SUBJECT_MAX = 256,
	JWT_LEN_MAX = 32 * 1024, /* of a whole token */
};

enum jwt_algorithm {
	JWT_HS256,
	JWT_RS256,
	JWT_ES256,
	JWT_OTHER, /* none and all the rest */
};

struct jwt_parts {
	enum jwt_algorithm algorithm;
	bool has_kid;
	char kid[JWT_KID_MAX + 1];
	const char *payload; /* within the token */
	size_t payload_len;
};

/* Splits a token and reads its header. AUTH_PASSED with *ret, or MALFORMED: not three parts of
 * base64url, a header that is no JSON object or too long, without `alg`, with a member twice, or
 * with `crit` (of what it names nothing is understood here). */
enum auth_failure jwt_parse(const char *token, size_t len, struct jwt_parts *ret);

/* The claims of a token whose signature was verified: an object to be json_decref'ed, or NULL: no
 * JSON object, a member twice, or no memory. */
json_t *jwt_claims(const struct jwt_parts *parts);

/* What a route expects. */
struct jwt_expect {
	const char *const
		*audiences; /* one of them must be in `aud`; none: `aud` is not looked at */
	size_t n_audiences;
	const char *issuer; /* NULL: `iss` is not looked at */
	unsigned leeway_s;  /* how far other clocks may be off */
};

/* AUTH_PASSED with *ret_expires_s, or EXPIRED, NOT_YET_VALID, ISSUER, AUDIENCE, or MALFORMED: no
 * `exp`, or a claim of the wrong kind. `sub` may be absent, and has JWT_SUBJECT_MAX bytes at most.
 */
enum auth_failure jwt_claims_check(const json_t *claims, const struct jwt_expect *expect,
	int64_t now_s, int64_t *ret_expires_s);

#endif
