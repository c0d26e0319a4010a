#include "app/auth_keys.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct auth_keys {
	_Atomic unsigned refs;
	unsigned n_keys, n_secrets;
	struct auth_key *keys;
	struct token_secret *secrets;
};

/* An editor's newline is not part of a secret. */
size_t auth_secret_len(const struct auth_file *f)
{
	const char *p = f->data;
	size_t len = f->len;

	if (len && p[len - 1] == '\n')
		len--;
	if (len && p[len - 1] == '\r')
		len--;
	return len;
}

const char *auth_secret_check(const struct auth_file *file)
{
	if (file->len > AUTH_FILE_MAX)
		return "is larger than 64 KiB";
	if (file->len && memmem(file->data, file->len, "-----BEGIN ", 11))
		return "is a PEM file, not a secret";
	if (auth_secret_len(file) < TOKEN_SECRET_MIN)
		return "has fewer than 32 bytes";
	return NULL;
}

static const char *check_public(enum jwt_algorithm algorithm, const EVP_PKEY *pk)
{
	char group[32] = "";

	if (algorithm == JWT_RS256) {
		if (EVP_PKEY_get_base_id(pk) != EVP_PKEY_RSA)
			return "is not an RSA key";
		return EVP_PKEY_get_bits(pk) < AUTH_RSA_BITS_MIN ? "has fewer than 2048 bits"
								 : NULL;
	}
	if (EVP_PKEY_get_base_id(pk) != EVP_PKEY_EC)
		return "is not an EC key";
	if (!EVP_PKEY_get_group_name(pk, group, sizeof group, NULL) || strcmp(group, "prime256v1"))
		return "is not of the curve P-256";
	return NULL;
}

const char *auth_key_check(enum jwt_algorithm algorithm, const struct auth_file *file)
{
	const char *why;
	EVP_PKEY *pk;
	BIO *bio;

	if (algorithm == JWT_HS256)
		return auth_secret_check(file);
	if (file->len > AUTH_FILE_MAX)
		return "is larger than 64 KiB";
	if (file->len && memmem(file->data, file->len, "PRIVATE KEY-----", 16))
		return "holds a private key: the gateway needs the public one only";
	bio = BIO_new_mem_buf(file->len ? file->data : "", (int)file->len);
	if (!bio)
		return "cannot be read: out of memory";
	pk = PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL);
	BIO_free(bio);
	ERR_clear_error();
	if (!pk)
		return "is not a public key in PEM";
	why = check_public(algorithm, pk);
	EVP_PKEY_free(pk);
	return why;
}

static unsigned char *copy(const void *data, size_t len)
{
	unsigned char *p = malloc(len + 1);

	if (p) {
		memcpy(p, data, len);
		p[len] = '\0';
	}
	return p;
}

static int add_secret(struct auth_keys *k, const struct auth_file *f)
{
	size_t len = auth_secret_len(f);
	void *p = copy(f->data, len);

	if (!p)
		return -ENOMEM;
	k->secrets[k->n_secrets++] = (struct token_secret){p, len};
	return 0;
}

static int add_key(struct auth_keys *k, const struct auth_key_spec *s, const struct auth_file *f)
{
	size_t len = s->algorithm == JWT_HS256 ? auth_secret_len(f) : f->len;
	void *p = copy(f->data, len);

	if (!p)
		return -ENOMEM;
	k->keys[k->n_keys++] = (struct auth_key){s->kid, s->algorithm, p, len};
	return 0;
}

int auth_keys_create(const struct auth_key_spec *specs, unsigned n_keys, unsigned n_secrets,
	const struct auth_file *files, struct auth_keys **ret, unsigned *ret_bad,
	const char **ret_why)
{
	struct auth_keys *k;
	int err = 0;

	for (unsigned i = 0; i < n_secrets + n_keys; i++) {
		const char *why =
			i < n_secrets ? auth_secret_check(&files[i])
				      : auth_key_check(specs[i - n_secrets].algorithm, &files[i]);

		if (why) {
			*ret_bad = i;
			*ret_why = why;
			return -EINVAL;
		}
	}
	k = calloc(1, sizeof *k);
	if (!k)
		return -ENOMEM;
	atomic_init(&k->refs, 1);
	k->keys = calloc(n_keys + 1, sizeof *k->keys);
	k->secrets = calloc(n_secrets + 1, sizeof *k->secrets);
	if (!k->keys || !k->secrets)
		err = -ENOMEM;
	for (unsigned i = 0; !err && i < n_secrets; i++)
		err = add_secret(k, &files[i]);
	for (unsigned i = 0; !err && i < n_keys; i++)
		err = add_key(k, &specs[i], &files[n_secrets + i]);
	if (err)
		auth_keys_unref(k);
	else
		*ret = k;
	return err;
}

struct auth_keys *auth_keys_ref(struct auth_keys *k)
{
	atomic_fetch_add_explicit(&k->refs, 1, memory_order_relaxed);
	return k;
}

void auth_keys_unref(struct auth_keys *k)
{
	if (!k || atomic_fetch_sub_explicit(&k->refs, 1, memory_order_acq_rel) != 1)
		return;
	for (unsigned i = 0; i < k->n_keys; i++) {
		OPENSSL_cleanse(k->keys[i].data, k->keys[i].len);
		free(k->keys[i].data);
	}
	for (unsigned i = 0; i < k->n_secrets; i++) {
		OPENSSL_cleanse((void *)k->secrets[i].data, k->secrets[i].len);
		free((void *)k->secrets[i].data);
	}
	free(k->keys);
	free(k->secrets);
	free(k);
}

const struct auth_key *auth_keys_find(const struct auth_keys *k, const struct jwt_parts *parts)
{
	for (unsigned i = 0; i < k->n_keys; i++) {
		const char *kid = k->keys[i].kid;

		if (parts->has_kid ? kid && !strcmp(kid, parts->kid) : !kid || k->n_keys == 1)
			return &k->keys[i];
	}
	return NULL;
}

const struct token_secret *auth_keys_secrets(const struct auth_keys *k, unsigned *ret_n)
{
	*ret_n = k->n_secrets;
	return k->secrets;
}
