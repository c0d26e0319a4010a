#include "app/auth.h"

#include <errno.h>
#include <jwt.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "app/session.h"
#include "net/account.h"

enum {
	REFRESH_MAX = AUTH_TOKEN_MAX + 1024, /* a longer message is none */
	ANSWER_MAX = 256,
	LOOK_AGAIN_MS = 3600 * 1000, /* a deadline is looked at by the wall clock at least so often:
					it may be set, and is beyond the timers' 32 bits */
};

/* What a token says. */
struct identity {
	char *subject;  /* or NULL */
	json_t *claims; /* or NULL */
	int64_t expires_s;
};

struct auth_job {
	struct crypto_job crypto; /* first */
	struct conn *conn;        /* worker only; NULL: gone */
	struct auth_keys *keys;
	const struct auth_key *key;
	const struct auth_policy *policy;
	bool refresh;
	enum auth_failure verdict;
	struct identity who;
	struct jwt_parts parts;
	size_t len;
	char token[];
};

static int64_t wall_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void identity_fini(struct identity *who)
{
	free(who->subject);
	json_decref(who->claims);
	*who = (struct identity){0};
}

static void job_free(struct auth_job *j)
{
	identity_fini(&j->who);
	auth_keys_unref(j->keys);
	OPENSSL_cleanse(j->token, j->len);
	free(j);
}

/* ---- the token within the request ---- */

struct found {
	struct http_str token;
	bool several; /* different ones */
};

static void find(struct found *f, const char *data, size_t len)
{
	if (f->token.data && (f->token.len != len || memcmp(f->token.data, data, len)))
		f->several = true;
	f->token = (struct http_str){data, len};
}

static bool named(const struct http_header *h, const char *name)
{
	return h->name.len == strlen(name) && !strncasecmp(h->name.data, name, h->name.len);
}

static void find_bearer(struct found *f, struct http_str value)
{
	static const char scheme[] = "Bearer ";
	size_t at = sizeof scheme - 1;

	if (value.len < at || strncasecmp(value.data, scheme, at))
		return;
	while (at < value.len && value.data[at] == ' ')
		at++;
	find(f, value.data + at, value.len - at);
}

static void find_subprotocol(struct found *f, struct http_str list)
{
	static const char prefix[] = AUTH_SUBPROTOCOL;
	const char *p = list.data, *end = list.data + list.len;

	while (p < end) {
		const char *comma = memchr(p, ',', (size_t)(end - p));
		const char *stop = comma ? comma : end, *next = comma ? comma + 1 : end;

		while (p < stop && (*p == ' ' || *p == '\t'))
			p++;
		while (stop > p && (stop[-1] == ' ' || stop[-1] == '\t'))
			stop--;
		if ((size_t)(stop - p) >= sizeof prefix - 1 &&
			!memcmp(p, prefix, sizeof prefix - 1))
			find(f, p + sizeof prefix - 1, (size_t)(stop - p) - (sizeof prefix - 1));
		p = next;
	}
}

/* As it stands: no character of a token needs an escape. */
static void find_query(struct found *f, struct http_str query)
{
	static const char name[] = "access_token=";
	const char *p = query.data, *end = query.data + query.len;

	while (query.data && p < end) {
		const char *amp = memchr(p, '&', (size_t)(end - p));
		const char *stop = amp ? amp : end;

		if ((size_t)(stop - p) >= sizeof name - 1 && !memcmp(p, name, sizeof name - 1))
			find(f, p + sizeof name - 1, (size_t)(stop - p) - (sizeof name - 1));
		p = amp ? amp + 1 : end;
	}
}

static struct found find_token(const struct conn_hello *hello)
{
	struct found f = {{NULL, 0}, false};

	for (unsigned i = 0; hello->http && i < hello->http->n_headers; i++) {
		const struct http_header *h = &hello->http->headers[i];

		if (named(h, "Authorization"))
			find_bearer(&f, h->value);
		else if (named(h, "Sec-WebSocket-Protocol"))
			find_subprotocol(&f, h->value);
	}
	find_query(&f, hello->query);
	if (hello->token.len)
		find(&f, hello->token.data, hello->token.len);
	return f;
}

/* ---- verification ---- */

/* The signature, by libjwt, whose idea of the algorithm has been settled before. */
static enum auth_failure verify_signature(const struct auth_job *j)
{
	static const jwt_alg_t algs[] = {
		[JWT_HS256] = JWT_ALG_HS256,
		[JWT_RS256] = JWT_ALG_RS256,
		[JWT_ES256] = JWT_ALG_ES256,
	};
	jwt_t *jwt = NULL;
	int err = jwt_decode(&jwt, j->token, j->key->data, (int)j->key->len);
	bool same = !err && jwt_get_alg(jwt) == algs[j->key->algorithm];

	jwt_free(jwt);
	ERR_clear_error();
	if (err)
		return err == ENOMEM ? AUTH_FAIL_BUSY : AUTH_FAIL_SIGNATURE;
	return same ? AUTH_PASSED : AUTH_FAIL_ALGORITHM;
}

static enum auth_failure verify(struct auth_job *j)
{
	enum auth_failure f = verify_signature(j);
	const char *subject;

	if (f != AUTH_PASSED)
		return f;
	j->who.claims = jwt_claims(&j->parts);
	if (!j->who.claims)
		return AUTH_FAIL_MALFORMED;
	f = jwt_claims_check(
		j->who.claims, &j->policy->expect, wall_ms() / 1000, &j->who.expires_s);
	if (f != AUTH_PASSED)
		return f;
	subject = json_string_value(json_object_get(j->who.claims, "sub"));
	if (subject) {
		j->who.subject = strdup(subject);
		if (!j->who.subject)
			return AUTH_FAIL_BUSY;
	}
	return AUTH_PASSED;
}

static enum auth_failure verify_token(const struct auth *a, const struct auth_policy *p,
	struct http_str text, struct identity *ret)
{
	struct token t;
	unsigned n;
	const struct token_secret *secrets = auth_keys_secrets(a->keys, &n);
	enum auth_failure f = token_verify(text.data, text.len, secrets, n,
		(uint64_t)(wall_ms() / 1000), p->expect.leeway_s, &t);

	if (f != AUTH_PASSED)
		return f;
	ret->subject = strdup(t.subject);
	ret->expires_s = (int64_t)t.expires_s;
	return ret->subject ? AUTH_PASSED : AUTH_FAIL_BUSY;
}

static struct auth_job *job_create(struct auth *a, struct conn *c, const struct auth_policy *p,
	struct http_str text, bool refresh)
{
	struct auth_job *j = calloc(1, sizeof *j + text.len + 1);

	if (!j)
		return NULL;
	j->conn = c;
	j->policy = p;
	j->refresh = refresh;
	j->keys = auth_keys_ref(a->keys);
	j->len = text.len;
	memcpy(j->token, text.data, text.len);
	return j;
}

/* Everything that can be known without a signature. */
static enum auth_failure job_prepare(struct auth_job *j)
{
	enum auth_failure f = jwt_parse(j->token, j->len, &j->parts);

	if (f != AUTH_PASSED)
		return f;
	if (j->parts.algorithm == JWT_OTHER)
		return AUTH_FAIL_ALGORITHM;
	j->key = auth_keys_find(j->keys, &j->parts);
	if (!j->key)
		return AUTH_FAIL_UNKNOWN_KEY;
	return j->key->algorithm == j->parts.algorithm ? AUTH_PASSED : AUTH_FAIL_ALGORITHM;
}

static void job_run_crypto(struct crypto_job *cj)
{
	struct auth_job *j = (struct auth_job *)cj;

	j->verdict = verify(j);
}

static void job_done(struct crypto_job *cj);

static void job_drop(struct crypto_job *cj)
{
	job_free((struct auth_job *)cj);
}

/* AUTH_PASSED with *ret, or what is wrong; *ret_pending: a crypto thread will say. */
static enum auth_failure judge(struct auth *a, struct conn *c, const struct auth_policy *p,
	struct http_str text, bool refresh, struct identity *ret, bool *ret_pending)
{
	struct session *s = c->app;
	struct auth_job *j;
	enum auth_failure f;

	if (!text.len)
		return AUTH_FAIL_MISSING;
	if (text.len > a->opts.token_max)
		return AUTH_FAIL_TOO_LARGE;
	if (p->type == AUTH_TOKEN)
		return verify_token(a, p, text, ret);
	j = job_create(a, c, p, text, refresh);
	if (!j)
		return AUTH_FAIL_BUSY;
	f = job_prepare(j);
	if (f == AUTH_PASSED && j->key->algorithm != JWT_HS256) {
		j->crypto = (struct crypto_job){job_run_crypto, job_done, job_drop, NULL};
		if (a->opts.crypto && !crypto_submit(a->opts.crypto, &j->crypto, conn_net(c)->w)) {
			s->job = j;
			*ret_pending = true;
			return AUTH_PASSED;
		}
		f = AUTH_FAIL_BUSY;
	}
	if (f == AUTH_PASSED)
		f = verify(j);
	if (f == AUTH_PASSED) {
		*ret = j->who;
		j->who = (struct identity){0};
	}
	job_free(j);
	return f;
}

/* ---- what a session has of it ---- */

static void set_deadline(struct conn *c, struct session *s)
{
	int64_t left = s->expires_s * 1000 - wall_ms();

	s->deadline_ms = conn_net(c)->w->now_ms + (uint32_t)(left > LOOK_AGAIN_MS ? LOOK_AGAIN_MS
							     : left > 0           ? left
										  : 0);
}

/* Moves *who into the session. False without memory. */
static bool adopt(
	const struct auth *a, struct conn *c, const struct auth_policy *p, struct identity *who)
{
	struct session *s = c->app;
	const json_t *claim = json_object_get(who->claims, a->opts.claim);
	struct permissions *may = NULL;

	if (claim || !p->topics_all) {
		may = permissions_create(claim);
		if (!may)
			return false;
	}
	free(s->subject);
	json_decref(s->claims);
	permissions_destroy(s->may);
	s->subject = who->subject;
	s->claims = who->claims;
	s->may = may;
	s->token_expires_s = who->expires_s;
	s->expires_s = who->expires_s + p->expect.leeway_s;
	*who = (struct identity){0};
	set_deadline(c, s);
	return true;
}

static const char *why_of(enum auth_failure f)
{
	/* Only of a genuine token is more said than that it is no good. */
	switch (f) {
	case AUTH_FAIL_MISSING:
		return "a token is required";
	case AUTH_FAIL_EXPIRED:
		return "the token has expired";
	case AUTH_FAIL_NOT_YET_VALID:
		return "the token is not valid yet";
	case AUTH_FAIL_BUSY:
		return "too many tokens are being verified";
	case AUTH_FAIL_SUBJECT:
		return "the token is somebody else's";
	default:
		return "the token is not valid";
	}
}

static int refuse(struct conn *c, enum auth_failure f, uint16_t status, const char *why,
	struct conn_answer *ret)
{
	conn_net(c)->stats->auth_failures[f]++;
	account_error(c, auth_failure_name(f));
	ret->status = status;
	ret->why = why;
	ret->error = PROTO_ERRS;
	return -EPROTO;
}

static int answer(struct conn *c, enum auth_failure f, struct conn_answer *ret)
{
	return f == AUTH_PASSED ? 0 : refuse(c, f, f == AUTH_FAIL_BUSY ? 503 : 401, why_of(f), ret);
}

int auth_hello(struct auth *a, struct conn *c, const struct auth_policy *p,
	const struct conn_hello *hello, struct conn_answer *ret)
{
	struct session *s = c->app;
	struct identity who = {0};
	enum auth_failure f;
	bool pending = false;
	struct found found;

	if (p->type == AUTH_NONE)
		return 0;
	if (s && s->job)
		return -EINPROGRESS;
	if (s && s->judged)
		return answer(c, (enum auth_failure)s->verdict, ret);
	found = find_token(hello);
	if (found.several)
		return refuse(c, AUTH_FAIL_MALFORMED, 400, "two different tokens", ret);
	s = session_get(c);
	if (!s || !a->keys)
		return answer(c, AUTH_FAIL_BUSY, ret);
	f = judge(a, c, p, found.token, false, &who, &pending);
	if (pending)
		return -EINPROGRESS;
	if (f == AUTH_PASSED && !adopt(a, c, p, &who)) {
		identity_fini(&who);
		f = AUTH_FAIL_BUSY;
	}
	return answer(c, f, ret);
}

/* ---- refresh ---- */

static const char *code_of(enum auth_failure f)
{
	switch (f) {
	case AUTH_FAIL_MISSING:
	case AUTH_FAIL_EXPIRED:
	case AUTH_FAIL_NOT_YET_VALID:
	case AUTH_FAIL_BUSY:
	case AUTH_FAIL_SUBJECT:
		return auth_failure_name(f);
	default:
		return "invalid";
	}
}

static bool same_subject(const struct session *s, const struct identity *who)
{
	if (!s->subject || !who->subject)
		return s->subject == who->subject;
	return !strcmp(s->subject, who->subject);
}

/* Tells the client; the old token stays in force unless the new one passed. */
static void finish_refresh(struct auth *a, struct conn *c, const struct auth_policy *p,
	enum auth_failure f, struct identity *who)
{
	char text[ANSWER_MAX];
	struct session *s = c->app;
	int n;

	if (f == AUTH_PASSED && !same_subject(s, who))
		f = AUTH_FAIL_SUBJECT;
	if (f == AUTH_PASSED && !adopt(a, c, p, who))
		f = AUTH_FAIL_BUSY;
	identity_fini(who);
	if (f == AUTH_PASSED) {
		json_decref(s->claims); /* services have those of the handshake */
		s->claims = NULL;
		conn_deadline_changed(c);
		n = snprintf(text, sizeof text, "{\"type\":\"tg.refreshed\",\"expires\":%lld}",
			(long long)s->token_expires_s);
	} else {
		conn_net(c)->stats->auth_failures[f]++;
		n = snprintf(text, sizeof text,
			"{\"type\":\"tg.error\",\"code\":\"%s\",\"message\":\"%s\"}", code_of(f),
			why_of(f));
	}
	conn_send(c, true, text, (size_t)n);
}

bool auth_refresh(struct auth *a, struct conn *c, const struct auth_policy *p, const uint8_t *data,
	size_t len)
{
	static const char type[] = "tg.refresh";
	struct identity who = {0};
	struct http_str text = {NULL, 0};
	enum auth_failure f = AUTH_FAIL_BUSY;
	struct session *s = c->app;
	bool pending = false;
	const char *given;
	const json_t *token;
	json_t *o;

	if (!s || len > REFRESH_MAX || !memmem(data, len, type, sizeof type - 1))
		return false;
	o = json_loadb((const char *)data, len, JSON_REJECT_DUPLICATES, NULL);
	given = json_string_value(json_object_get(o, "type"));
	if (!given || strcmp(given, type)) {
		json_decref(o);
		return false;
	}
	token = json_object_get(o, "token");
	if (json_is_string(token))
		text = (struct http_str){json_string_value(token), json_string_length(token)};
	if (!s->job)
		f = judge(a, c, p, text, true, &who, &pending);
	json_decref(o);
	if (!pending)
		finish_refresh(a, c, p, f, &who);
	return true;
}

static void job_done(struct crypto_job *cj)
{
	struct auth_job *j = (struct auth_job *)cj;
	struct conn *c = j->conn;

	if (c) {
		struct session *s = c->app;
		struct auth *a = session_auth(c);

		s->job = NULL;
		if (j->refresh) {
			if (c->state == CONN_OPEN)
				finish_refresh(a, c, j->policy, j->verdict, &j->who);
		} else {
			if (j->verdict == AUTH_PASSED && !adopt(a, c, j->policy, &j->who))
				j->verdict = AUTH_FAIL_BUSY;
			s->verdict = (uint8_t)j->verdict;
			s->judged = true;
			conn_verdict(c);
		}
	}
	job_free(j);
}

void auth_due(struct conn *c)
{
	struct session *s = c->app;

	if (s->expires_s * 1000 > wall_ms())
		set_deadline(c, s);
	else
		conn_close(c, CONN_CLOSE_UNAUTHORIZED, "the token has expired", CLOSE_AUTH_EXPIRED);
}

void auth_forget(struct conn *c)
{
	struct session *s = c->app;

	if (s->job)
		s->job->conn = NULL;
	free(s->subject);
	json_decref(s->claims);
	permissions_destroy(s->may);
}

void auth_init(struct auth *a, const struct auth_opts *opts)
{
	a->opts = *opts;
	a->keys = opts->keys ? auth_keys_ref(opts->keys) : NULL;
}

void auth_fini(struct auth *a)
{
	auth_keys_unref(a->keys);
	a->keys = NULL;
}

void auth_keys_swap(struct auth *a, struct auth_keys *keys)
{
	auth_keys_unref(a->keys);
	a->keys = keys;
}
