#include "ops/admin_page.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>

enum {
	DIGEST_BYTES = 32,
	HASH_MAX = 4 * (DIGEST_BYTES + 2) / 3 + 1, /* base64 */
};

/* base64(SHA-256) of what stands between a tag and its end, as browsers compute it. */
static int inline_hash(const char *page, const char *open, const char *close, char ret[HASH_MAX])
{
	uint8_t digest[DIGEST_BYTES];
	const char *from = strstr(page, open), *to = from ? strstr(from, close) : NULL;

	if (!to)
		return -EINVAL;
	from += strlen(open);
	if (!EVP_Digest(from, (size_t)(to - from), digest, NULL, EVP_sha256(), NULL))
		return -ENOMEM;
	EVP_EncodeBlock((unsigned char *)ret, digest, sizeof(digest));
	return 0;
}

int admin_page_policy(const char *page, const char *connect, char **ret)
{
	char script[HASH_MAX], style[HASH_MAX], *text;
	int err = inline_hash(page, "<script>", "</script>", script);

	if (!err)
		err = inline_hash(page, "<style>", "</style>", style);
	if (err)
		return err;
	if (asprintf(&text,
		    "default-src 'none'; script-src 'sha256-%s'; style-src 'sha256-%s'; "
		    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
		    "connect-src 'self'%s",
		    script, style, connect) < 0)
		return -ENOMEM;
	*ret = text;
	return 0;
}
