#include "proto/jwt.h"

#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "proto/base64url.h"

/* Beyond it a double is no longer exact to the second, and nobody's clock goes there. */
#define TIME_MAX (INT64_C(1) << 53)

static bool alphabet_only(const char *p, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		char c = p[i];

		if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
			    c == '-' || c == '_'))
			return false;
	}
	return len > 0;
}

static enum jwt_algorithm algorithm_of(const char *name)
{
	static const char *const names[] = {
		[JWT_HS256] = "HS256", [JWT_RS256] = "RS256", [JWT_ES256] = "ES256"};

	for (unsigned i = 0; i < JWT_OTHER; i++)
		if (!strcmp(name, names[i]))
			return (enum jwt_algorithm)i;
	return JWT_OTHER;
}

static bool read_header(const char *text, size_t len, struct jwt_parts *ret)
{
	json_t *o = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
	const char *alg = json_string_value(json_object_get(o, "alg"));
	const json_t *kid = json_object_get(o, "kid");
	bool ok = alg && !json_object_get(o, "crit");

	ret->has_kid = kid != NULL;
	ret->kid[0] = '\0';
	if (ok && kid) {
		size_t kid_len = json_string_length(kid);

		ok = json_is_string(kid) && kid_len <= JWT_KID_MAX;
		if (ok)
			memcpy(ret->kid, json_string_value(kid), kid_len + 1);
	}
	if (ok)
		ret->algorithm = algorithm_of(alg);
	json_decref(o);
	return ok;
}

enum auth_failure jwt_parse(const char *token, size_t len, struct jwt_parts *ret)
{
	const char *dot = memchr(token, '.', len), *end = token + len, *second;
	char header[JWT_HEADER_MAX];
	ssize_t n;

	if (!dot || len > JWT_LEN_MAX)
		return AUTH_FAIL_MALFORMED;
	ret->payload = dot + 1;
	second = memchr(ret->payload, '.', (size_t)(end - ret->payload));
	if (!second)
		return AUTH_FAIL_MALFORMED;
	ret->payload_len = (size_t)(second - ret->payload);
	n = base64url_decode(header, sizeof header, token, (size_t)(dot - token));
	if (n <= 0 || !alphabet_only(ret->payload, ret->payload_len) ||
		!read_header(header, (size_t)n, ret))
		return AUTH_FAIL_MALFORMED;
	/* Without a signature is how `none` looks; what is pinned tells it better than its form. */
	if (second + 1 == end ? ret->algorithm != JWT_OTHER
			      : !alphabet_only(second + 1, (size_t)(end - second - 1)))
		return AUTH_FAIL_MALFORMED;
	return AUTH_PASSED;
}

json_t *jwt_claims(const struct jwt_parts *parts)
{
	size_t room = BASE64URL_DECODED(parts->payload_len);
	char *text = malloc(room);
	json_t *claims = NULL;
	ssize_t n;

	if (!text)
		return NULL;
	n = base64url_decode(text, room, parts->payload, parts->payload_len);
	if (n > 0)
		claims = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, NULL);
	free(text);
	if (claims && !json_is_object(claims)) {
		json_decref(claims);
		claims = NULL;
	}
	return claims;
}

/* NumericDate, RFC 7519 2: seconds, perhaps with a fraction. */
static bool read_time(const json_t *v, int64_t *ret)
{
	double t;

	if (!json_is_number(v))
		return false;
	t = json_number_value(v);
	if (!(t >= 0 && t <= (double)TIME_MAX))
		return false;
	*ret = (int64_t)t;
	return true;
}

static bool is_text(const json_t *v, const char *want)
{
	return json_is_string(v) && json_string_length(v) == strlen(want) &&
	       !strcmp(json_string_value(v), want);
}

/* `aud` is a string or a list of them, RFC 7519 4.1.3. */
static bool audience_fits(const json_t *aud, const struct jwt_expect *e)
{
	for (size_t k = 0; k < e->n_audiences; k++) {
		const json_t *v;
		size_t i;

		if (is_text(aud, e->audiences[k]))
			return true;
		json_array_foreach(aud, i, v) if (is_text(v, e->audiences[k])) return true;
	}
	return !e->n_audiences;
}

enum auth_failure jwt_claims_check(
	const json_t *claims, const struct jwt_expect *e, int64_t now_s, int64_t *ret_expires_s)
{
	const json_t *nbf = json_object_get(claims, "nbf"), *sub = json_object_get(claims, "sub");
	int64_t expires, from = 0;

	if (!read_time(json_object_get(claims, "exp"), &expires) ||
		(nbf && !read_time(nbf, &from)) ||
		(sub && (!json_is_string(sub) || json_string_length(sub) > JWT_SUBJECT_MAX)))
		return AUTH_FAIL_MALFORMED;
	if (now_s >= expires + e->leeway_s)
		return AUTH_FAIL_EXPIRED;
	if (now_s + e->leeway_s < from)
		return AUTH_FAIL_NOT_YET_VALID;
	if (e->issuer && !is_text(json_object_get(claims, "iss"), e->issuer))
		return AUTH_FAIL_ISSUER;
	if (!audience_fits(json_object_get(claims, "aud"), e))
		return AUTH_FAIL_AUDIENCE;
	*ret_expires_s = expires;
	return AUTH_PASSED;
}
