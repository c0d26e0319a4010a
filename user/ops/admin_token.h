/* The token that allows actions on the admin listener: `Authorization: Bearer TOKEN`. Only its
 * SHA-256 is kept, and compared in constant time. Any thread. */
#ifndef TIDEGATE_OPS_ADMIN_TOKEN_H
#define TIDEGATE_OPS_ADMIN_TOKEN_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	ADMIN_TOKEN_MIN = 16, /* characters: nobody guesses one that is random */
	ADMIN_TOKEN_MAX = 1024,
	ADMIN_TOKEN_DIGEST = 32,
};

struct admin_token {
	pthread_mutex_t lock;
	bool set; /* false: there is none, nothing fits */
	uint8_t digest[ADMIN_TOKEN_DIGEST];
};

void admin_token_init(struct admin_token *t);
void admin_token_fini(struct admin_token *t);

/* The contents of a token file: one line, visible ASCII, the newline at its end optional. NULL:
 * good; else what is wrong, static. */
const char *admin_token_check(const void *data, size_t len);

/* From such contents. 0, or -EINVAL: the token stays as it was. */
int admin_token_set(struct admin_token *t, const void *data, size_t len);

bool admin_token_is_set(struct admin_token *t);
/* The value of an Authorization header; NULL fits nothing. */
bool admin_token_fits(struct admin_token *t, const char *authorization);

#endif
