#include "ops/admin_token.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

void admin_token_init(struct admin_token *t)
{
	*t = (struct admin_token){.set = false};
	pthread_mutex_init(&t->lock, NULL);
}

void admin_token_fini(struct admin_token *t)
{
	pthread_mutex_destroy(&t->lock);
}

/* Without the newline at its end, as an editor leaves it. */
static size_t token_len(const char *text, size_t len)
{
	if (len && text[len - 1] == '\n')
		len--;
	if (len && text[len - 1] == '\r')
		len--;
	return len;
}

const char *admin_token_check(const void *data, size_t len)
{
	const char *text = data;

	len = token_len(text, len);
	for (size_t i = 0; i < len; i++)
		if (text[i] <= ' ' || text[i] > '~')
			return "must be one line of visible ASCII without blanks";
	if (len < ADMIN_TOKEN_MIN)
		return "the token is shorter than 16 characters";
	return len > ADMIN_TOKEN_MAX ? "the token is longer than 1024 characters" : NULL;
}

static bool digest_of(const void *data, size_t len, uint8_t ret[ADMIN_TOKEN_DIGEST])
{
	return EVP_Digest(data, len, ret, NULL, EVP_sha256(), NULL) == 1;
}

int admin_token_set(struct admin_token *t, const void *data, size_t len)
{
	uint8_t digest[ADMIN_TOKEN_DIGEST];

	if (admin_token_check(data, len) || !digest_of(data, token_len(data, len), digest))
		return -EINVAL;
	pthread_mutex_lock(&t->lock);
	memcpy(t->digest, digest, sizeof t->digest);
	t->set = true;
	pthread_mutex_unlock(&t->lock);
	return 0;
}

bool admin_token_is_set(struct admin_token *t)
{
	bool set;

	pthread_mutex_lock(&t->lock);
	set = t->set;
	pthread_mutex_unlock(&t->lock);
	return set;
}

bool admin_token_fits(struct admin_token *t, const char *authorization)
{
	static const char scheme[] = "Bearer ";
	uint8_t digest[ADMIN_TOKEN_DIGEST];
	bool fits;

	if (!authorization || strncasecmp(authorization, scheme, sizeof scheme - 1))
		return false;
	authorization += sizeof scheme - 1;
	authorization += strspn(authorization, " ");
	if (!digest_of(authorization, strlen(authorization), digest))
		return false;
	pthread_mutex_lock(&t->lock);
	fits = t->set && !CRYPTO_memcmp(digest, t->digest, sizeof digest);
	pthread_mutex_unlock(&t->lock);
	return fits;
}
