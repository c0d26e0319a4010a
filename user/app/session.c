#include "app/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "net/shed.h"
#include "net/topic_ops.h"

enum {
	ID_BLOCK = 4096, /* ids a worker draws at a time */
};

static struct sessions *sessions_of(const struct conn *c)
{
	return conn_net(c)->app;
}

static struct upstream *upstream_of(const struct conn *c)
{
	struct sessions *s = sessions_of(c);

	return s->opts.upstreams[s->opts.routes[c->route].upstream];
}

static uint64_t next_id(struct sessions *s)
{
	if (!s->ids_left) {
		/* The counter carries into the epoch, which is in seconds: the next start's is
		 * ahead of it by far. */
		s->id = (s->opts.ids->epoch << 32) + atomic_fetch_add(&s->opts.ids->next, ID_BLOCK);
		s->ids_left = ID_BLOCK;
		if (!s->id) { /* that is: no session */
			s->id++;
			s->ids_left--;
		}
	}
	s->ids_left--;
	return s->id++;
}

static int refuse(struct conn_answer *ret, uint16_t status, const char *why, enum protocol_error e)
{
	ret->status = status;
	ret->why = why;
	ret->error = e;
	return -EPROTO;
}

static int on_hello(struct conn *c, const struct conn_hello *hello, struct conn_answer *ret)
{
	struct sessions *s = sessions_of(c);
	const struct route *route;
	int i;

	if (conn_net(c)->draining)
		return refuse(ret, 503, "the gateway is draining", PROTO_ERRS);
	if (shed_short(conn_net(c)))
		return refuse(ret, 503, "the gateway is short of memory", PROTO_ERRS);
	i = route_match(s->opts.routes, s->opts.n_routes, c->listener, hello->host, hello->path);
	if (i < 0)
		return refuse(ret, 404, "no such route", PROTO_ERR_ROUTE);
	route = &s->opts.routes[i];
	ret->subprotocol = NULL;
	if (hello->http) {
		struct http_str chosen;
		bool malformed;

		if (!http_origin_allowed(hello->http->origin, route->origins, route->n_origins))
			return refuse(ret, 403, "Origin not allowed", PROTO_ERR_ORIGIN);
		chosen = http_subprotocol_select(hello->http->protocols, route->subprotocols,
			route->n_subprotocols, &malformed);
		if (malformed)
			return refuse(ret, 400, "malformed Sec-WebSocket-Protocol", PROTO_ERR_HTTP);
		/* The configuration's own string, which outlives the request. */
		for (size_t k = 0; chosen.data && k < route->n_subprotocols; k++)
			if (strlen(route->subprotocols[k]) == chosen.len &&
				!memcmp(route->subprotocols[k], chosen.data, chosen.len))
				ret->subprotocol = route->subprotocols[k];
	}
	if (route->auth) {
		int err = auth_hello(&s->auth, c, route->auth, hello, ret);

		if (err)
			return err;
	}
	ret->route = (uint16_t)i;
	ret->session = next_id(s);
	return 0;
}

struct session *session_get(struct conn *c)
{
	if (!c->app) {
		struct session *s = slab_alloc(&sessions_of(c)->slab);

		if (s)
			memset(s, 0, sizeof *s);
		c->app = s;
	}
	return c->app;
}

const char *session_subject(const struct conn *c)
{
	const struct session *s = c->app;

	return s ? s->subject : NULL;
}

struct auth *session_auth(const struct conn *c)
{
	return &sessions_of(c)->auth;
}

bool session_may(const struct conn *c, enum session_action action, const char *topic, size_t len)
{
	const struct session *s = c->app;

	return !s || !s->may || permissions_allow(s->may, action, topic, len);
}

static int on_open(
	struct conn *c, const struct conn_hello *hello, uint16_t *ret_status, const char **ret_why)
{
	struct upstream *u = upstream_of(c);
	struct session *s = c->app;
	struct conn_hello known;
	int err;

	if (!s || !s->expires_s)
		return u->ops->open(u, c, hello, ret_status, ret_why);
	known = *hello;
	known.subject = s->subject;
	known.claims = s->claims;
	err = u->ops->open(u, c, &known, ret_status, ret_why);
	json_decref(s->claims);
	s->claims = NULL;
	return err;
}

static bool on_message(struct conn *c, bool text, uint8_t *data, size_t len)
{
	struct sessions *s = sessions_of(c);
	const struct auth_policy *auth = s->opts.routes[c->route].auth;
	struct upstream *u = upstream_of(c);

	if (text && auth && auth->refresh && auth_refresh(&s->auth, c, auth, data, len))
		return true;
	return u->ops->message(u, c, text, data, len);
}

static void on_drained(struct conn *c)
{
	struct upstream *u = upstream_of(c);

	u->ops->drained(u, c);
}

static void on_closed(struct conn *c, enum close_reason reason, uint16_t code, const uint8_t *text,
	size_t text_len)
{
	struct upstream *u = upstream_of(c);
	struct net *n = conn_net(c);

	if (c->app && n->topics)
		n->topics->closed(n, c);
	u->ops->closed(u, c, reason, code, text, text_len);
}

static bool on_deadline(const struct conn *c, uint32_t *ret_ms)
{
	const struct session *s = c->app;

	if (!s->expires_s)
		return false;
	*ret_ms = s->deadline_ms;
	return true;
}

static void on_gone(struct conn *c)
{
	auth_forget(c);
	slab_free(&sessions_of(c)->slab, c->app);
}

const struct conn_ops session_conn_ops = {
	.hello = on_hello,
	.open = on_open,
	.message = on_message,
	.drained = on_drained,
	.closed = on_closed,
	.deadline = on_deadline,
	.due = auth_due,
	.gone = on_gone,
};

void sessions_init(struct sessions *s, struct net *n, const struct session_opts *opts)
{
	s->opts = *opts;
	s->id = s->ids_left = 0;
	auth_init(&s->auth, &opts->auth);
	slab_init(&s->slab, sizeof(struct session), 64 * 1024, 0);
	n->app = s;
}

void sessions_fini(struct sessions *s)
{
	auth_fini(&s->auth);
	slab_fini(&s->slab);
}
