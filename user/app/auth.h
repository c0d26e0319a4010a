/* Who a client is: its token, found in the request, judged by the route's policy; and what becomes
 * of a session when the token expires or is refreshed. Worker thread only.
 *
 * `token` and HS256 take microseconds and are verified at once. RS256 and ES256 go to a crypto
 * thread: the hello is put off (-EINPROGRESS) and asked again when the verdict is there. A
 * connection that ends meanwhile lets go of its job, whose answer then only frees it.
 */
#ifndef TIDEGATE_APP_AUTH_H
#define TIDEGATE_APP_AUTH_H

#include "app/auth_keys.h"
#include "app/permissions.h"
#include "core/crypto.h"
#include "net/conn.h"

enum {
	AUTH_TOKEN_MAX = JWT_LEN_MAX,
};

/* The protocol offered by clients that can set no header, and never chosen. */
#define AUTH_SUBPROTOCOL "tg.token."

enum auth_type {
	AUTH_NONE,
	AUTH_TOKEN,
	AUTH_JWT,
};

/* Of a route. */
struct auth_policy {
	enum auth_type type;
	struct jwt_expect expect;
	bool topics_all; /* tokens without the claim may do everything; else nothing */
	bool refresh;    /* tg.refresh messages are the gateway's */
};

struct auth_opts {
	const char *claim;      /* of topic permissions */
	size_t token_max;       /* bytes, AUTH_TOKEN_MAX at most */
	struct crypto *crypto;  /* NULL: no key needs one */
	struct auth_keys *keys; /* a reference is taken; NULL: none */
};

/* Of one worker. */
struct auth {
	struct auth_opts opts;
	struct auth_keys *keys;
};

void auth_init(struct auth *a, const struct auth_opts *opts);
/* After the last connection. */
void auth_fini(struct auth *a);
/* From now on; the reference is a's. */
void auth_keys_swap(struct auth *a, struct auth_keys *keys);

/* 0: may pass, its session says who it is; -EPROTO: refused, as *ret says, and counted;
 * -EINPROGRESS: asked again by conn_verdict. */
int auth_hello(struct auth *a, struct conn *c, const struct auth_policy *p,
	const struct conn_hello *hello, struct conn_answer *ret);

/* A message on a route with refresh: true when it was a tg.refresh, and is answered, now or later.
 */
bool auth_refresh(struct auth *a, struct conn *c, const struct auth_policy *p, const uint8_t *data,
	size_t len);

/* The deadline of the session's token came: closes it, unless a refresh or the clock moved it. */
void auth_due(struct conn *c);

/* The conn goes: an answer on its way no longer finds it. */
void auth_forget(struct conn *c);

#endif
