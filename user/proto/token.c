#include "proto/token.h"

#include <inttypes.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

#include "proto/utf8.h"

static const char prefix[] = "tg1.";

enum {
	PREFIX_LEN = sizeof prefix - 1,
};

static bool mac(
	uint8_t out[TOKEN_MAC_LEN], const struct token_secret *s, const char *text, size_t len)
{
	unsigned n = 0;

	return HMAC(EVP_sha256(), s->data, (int)s->len, (const uint8_t *)text, len, out, &n) &&
	       n == TOKEN_MAC_LEN;
}

static bool subject_valid(const char *s, size_t len)
{
	if (!len || len > TOKEN_SUBJECT_MAX)
		return false;
	for (size_t i = 0; i < len; i++)
		if ((uint8_t)s[i] < ' ' || s[i] == 0x7f)
			return false;
	return utf8_valid((const uint8_t *)s, len);
}

size_t token_write(char out[TOKEN_MAX + 1], const char *subject, size_t subject_len,
	uint64_t expires_s, const struct token_secret *secret)
{
	char text[TOKEN_TEXT_MAX + 1];
	uint8_t digest[TOKEN_MAC_LEN];
	size_t n = PREFIX_LEN;

	if (!subject_valid(subject, subject_len) || expires_s > TOKEN_EXPIRES_MAX)
		return 0;
	memcpy(text, subject, subject_len);
	subject_len += (size_t)snprintf(
		text + subject_len, sizeof text - subject_len, "|%" PRIu64, expires_s);
	if (!mac(digest, secret, text, subject_len))
		return 0;
	memcpy(out, prefix, PREFIX_LEN);
	n += base64url_encode(out + n, text, subject_len);
	out[n++] = '.';
	n += base64url_encode(out + n, digest, sizeof digest);
	out[n] = '\0';
	return n;
}

/* Decimal, without leading zeros or a sign; the bytes are those that were signed, so that there is
 * one spelling only. */
static bool parse_expiry(const char *p, size_t len, uint64_t *ret)
{
	uint64_t v = 0;

	if (!len || len > TOKEN_EXPIRY_DIGITS || (len > 1 && p[0] == '0'))
		return false;
	for (size_t i = 0; i < len; i++) {
		if (p[i] < '0' || p[i] > '9')
			return false;
		v = v * 10 + (uint64_t)(p[i] - '0');
	}
	*ret = v;
	return true;
}

/* Subject and expiry of the signed text. */
static bool parse_text(const char *text, size_t len, struct token *ret)
{
	const char *bar = memrchr(text, '|', len);
	uint64_t expires;

	if (!bar || !subject_valid(text, (size_t)(bar - text)) ||
		!parse_expiry(bar + 1, len - (size_t)(bar + 1 - text), &expires))
		return false;
	ret->subject_len = (size_t)(bar - text);
	memcpy(ret->subject, text, ret->subject_len);
	ret->subject[ret->subject_len] = '\0';
	ret->expires_s = expires;
	return true;
}

/* Looks at every secret, whichever it is. */
static bool genuine(const char *text, size_t len, const uint8_t given[TOKEN_MAC_LEN],
	const struct token_secret *secrets, unsigned n_secrets)
{
	uint8_t digest[TOKEN_MAC_LEN];
	bool found = false;

	for (unsigned i = 0; i < n_secrets; i++)
		found |= mac(digest, &secrets[i], text, len) &&
			 !CRYPTO_memcmp(digest, given, sizeof digest);
	OPENSSL_cleanse(digest, sizeof digest);
	return found;
}

enum auth_failure token_verify(const char *text, size_t len, const struct token_secret *secrets,
	unsigned n_secrets, uint64_t now_s, unsigned leeway_s, struct token *ret)
{
	char signed_text[TOKEN_TEXT_MAX];
	uint8_t given[TOKEN_MAC_LEN];
	const char *dot;
	ssize_t n;

	if (len <= PREFIX_LEN || len > TOKEN_MAX || memcmp(text, prefix, PREFIX_LEN))
		return AUTH_FAIL_MALFORMED;
	text += PREFIX_LEN;
	len -= PREFIX_LEN;
	dot = memchr(text, '.', len);
	if (!dot)
		return AUTH_FAIL_MALFORMED;
	n = base64url_decode(signed_text, sizeof signed_text, text, (size_t)(dot - text));
	if (n <= 0 || base64url_decode(given, sizeof given, dot + 1,
			      len - (size_t)(dot + 1 - text)) != sizeof given)
		return AUTH_FAIL_MALFORMED;
	/* What is not genuine is not looked into. */
	if (!genuine(signed_text, (size_t)n, given, secrets, n_secrets))
		return AUTH_FAIL_SIGNATURE;
	if (!parse_text(signed_text, (size_t)n, ret))
		return AUTH_FAIL_MALFORMED;
	return now_s >= ret->expires_s + leeway_s ? AUTH_FAIL_EXPIRED : AUTH_PASSED;
}
