/* The keys and secrets that tokens are verified with: one immutable set, swapped as a whole when a
 * file changes.
 *
 * Made from the contents of files, since only the keeper reads files. Every worker holds a
 * reference to the set it uses, and so does every verification under way in a crypto thread; the
 * last one that lets go frees it. Looking things up takes no lock. Any thread.
 */
#ifndef TIDEGATE_APP_AUTH_KEYS_H
#define TIDEGATE_APP_AUTH_KEYS_H

#include <stddef.h>

#include "proto/jwt.h"
#include "proto/token.h"

enum {
	AUTH_RSA_BITS_MIN = 2048, /* RFC 7518 3.3 */
	AUTH_FILE_MAX = 64 * 1024,
};

/* As configured. */
struct auth_key_spec {
	const char *kid; /* NULL: for tokens that name none; static */
	enum jwt_algorithm algorithm;
};

struct auth_key {
	const char *kid; /* NULL: none */
	enum jwt_algorithm algorithm;
	unsigned char *data; /* a PEM public key, or a secret; a NUL follows */
	size_t len;
};

/* A file's contents. */
struct auth_file {
	const void *data;
	size_t len;
};

struct auth_keys;

/* NULL when the file's contents are what they should be, else what is wrong, a static text that
 * begins with a verb. A secret has at least TOKEN_SECRET_MIN bytes, one newline at the end not
 * counted. */
const char *auth_secret_check(const struct auth_file *file);
/* Without that newline. */
size_t auth_secret_len(const struct auth_file *file);
const char *auth_key_check(enum jwt_algorithm algorithm, const struct auth_file *file);

/* files: first those of the n_secrets secrets, then those of the keys. One reference. 0; -EINVAL:
 * file number *ret_bad is wrong, as *ret_why says; -ENOMEM. */
int auth_keys_create(const struct auth_key_spec *specs, unsigned n_keys, unsigned n_secrets,
	const struct auth_file *files, struct auth_keys **ret, unsigned *ret_bad,
	const char **ret_why);
struct auth_keys *auth_keys_ref(struct auth_keys *k);
void auth_keys_unref(struct auth_keys *k); /* NULL is allowed */

/* The key a token asks for: that of its kid; without one, the only key there is, or the one without
 * kid. NULL: there is none. */
const struct auth_key *auth_keys_find(const struct auth_keys *k, const struct jwt_parts *parts);
const struct token_secret *auth_keys_secrets(const struct auth_keys *k, unsigned *ret_n);

#endif
