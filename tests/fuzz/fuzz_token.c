/* proto/token: what passes is what token_write would have written, byte for byte; nothing else
 * does. Two kinds of input: a token as it stands, and (first byte 'm') the text of one that is then
 * signed, which reaches the parser behind the MAC. */
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "proto/token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct token_secret secret = {"0123456789abcdef0123456789abcdef", 32};

static void check(bool ok)
{
	if (!ok)
		abort();
}

static void judge(const char *text, size_t len)
{
	char *copy = malloc(len), again[TOKEN_MAX + 1];
	struct token t;

	check(copy || !len);
	if (len)
		memcpy(copy, text, len);
	if (token_verify(copy, len, &secret, 1, 0, 0, &t) == AUTH_PASSED) {
		check(token_write(again, t.subject, t.subject_len, t.expires_s, &secret) == len);
		check(!memcmp(again, text, len));
		check(token_verify(copy, len, &secret, 1, t.expires_s, 0, &t) == AUTH_FAIL_EXPIRED);
	}
	free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char text[TOKEN_MAX + 256] = "tg1.";
	uint8_t mac[TOKEN_MAC_LEN];
	unsigned mac_len;
	size_t n = 4;

	judge((const char *)data, size);
	if (!size || data[0] != 'm' || size > TOKEN_TEXT_MAX + 16)
		return 0;
	check(HMAC(EVP_sha256(), secret.data, (int)secret.len, data + 1, size - 1, mac, &mac_len) !=
		NULL);
	n += base64url_encode(text + n, data + 1, size - 1);
	text[n++] = '.';
	n += base64url_encode(text + n, mac, sizeof mac);
	judge(text, n);
	return 0;
}
