/* Keys, secrets and signed tokens for tests, made at run time. */
#ifndef TIDEGATE_TESTS_AUTH_FIXTURE_H
#define TIDEGATE_TESTS_AUTH_FIXTURE_H

#include <assert.h>
#include <jwt.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <errno.h>

#include "app/auth_keys.h"

struct key_pair {
	char public_pem[2048], private_pem[4096];
};

static inline void key_pair_write(EVP_PKEY *pk, struct key_pair *ret)
{
	BIO *pub = BIO_new(BIO_s_mem()), *priv = BIO_new(BIO_s_mem());
	int n, m;

	assert(pk && PEM_write_bio_PUBKEY(pub, pk) &&
		PEM_write_bio_PrivateKey(priv, pk, NULL, NULL, 0, NULL, NULL));
	n = BIO_read(pub, ret->public_pem, sizeof ret->public_pem - 1);
	m = BIO_read(priv, ret->private_pem, sizeof ret->private_pem - 1);
	assert(n > 0 && m > 0);
	ret->public_pem[n] = ret->private_pem[m] = '\0';
	BIO_free(pub);
	BIO_free(priv);
	EVP_PKEY_free(pk);
}

static inline void key_pair_rsa(unsigned bits, struct key_pair *ret)
{
	key_pair_write(EVP_RSA_gen(bits), ret);
}

static inline void key_pair_ec(const char *curve, struct key_pair *ret)
{
	key_pair_write(EVP_EC_gen(curve), ret);
}

static inline struct auth_file file_of(const char *text)
{
	return (struct auth_file){text, strlen(text)};
}

/* To be freed. kid may be NULL. */
static inline char *jwt_make(jwt_alg_t alg, const char *key, const char *kid, const char *claims)
{
	jwt_t *jwt;
	char *text;

	assert(!jwt_new(&jwt) && !jwt_add_grants_json(jwt, claims) &&
		(!kid || !jwt_add_header(jwt, "kid", kid)) &&
		!jwt_set_alg(jwt, alg, (const unsigned char *)key, (int)strlen(key)));
	text = jwt_encode_str(jwt);
	assert(text);
	jwt_free(jwt);
	return text;
}

#endif
