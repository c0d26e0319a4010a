/* From the first byte to the session: PROXY header, HTTP upgrade, HELLO, and the upstream's word.
 */
#include "net/conn_internal.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "net/account.h"
#include "proto/proxy_header.h"

void conn_protocol_error(struct conn *c, enum protocol_error e)
{
	conn_net(c)->stats->protocol_errors[e]++;
	account_error(c, protocol_error_name(e));
}

static bool prefix_matches(const struct conn_prefix *p, const struct in6_addr *a)
{
	unsigned bytes = p->len / 8, bits = p->len % 8;

	if (memcmp(&p->addr, a, bytes))
		return false;
	return !bits || ((p->addr.s6_addr[bytes] ^ a->s6_addr[bytes]) >> (8 - bits)) == 0;
}

bool conn_proxy_allowed(const struct conn *c)
{
	const struct conn_listener *l = &conn_net(c)->opts->listeners[c->listener];

	for (unsigned i = 0; i < l->n_proxy_from; i++)
		if (prefix_matches(&l->proxy_from[i], &c->peer))
			return true;
	return false;
}

enum conn_more conn_parse_proxy(
	struct conn *c, const uint8_t *data, size_t len, size_t *ret_consumed)
{
	struct proxy_header h;
	const char *why;
	ssize_t used = proxy_header_parse(data, len, &h, &why);

	*ret_consumed = 0;
	if (used == 0)
		return CONN_MORE_INPUT;
	if (used < 0) {
		conn_protocol_error(c, PROTO_ERR_PROXY);
		conn_kill(c, CLOSE_HANDSHAKE);
		return CONN_MORE_NOTHING;
	}
	if (!h.local) {
		c->peer = h.peer.sin6_addr;
		c->peer_port = h.peer.sin6_port;
	}
	c->state = CONN_HANDSHAKE;
	*ret_consumed = (size_t)used;
	/* The declared client, or the trusted sender itself. */
	if (!conn_admit(c, h.local ? ADMISSION_TRUSTED : 0))
		return CONN_MORE_NOTHING;
	return CONN_MORE_INPUT;
}

/* Close code a raw client gets for an HTTP status. A token refused is told like one that expired;
 * what a service says stays a matter of policy. */
static uint16_t close_code_of(uint16_t status, enum close_reason reason)
{
	if (status == 401 && reason == CLOSE_HANDSHAKE)
		return CONN_CLOSE_UNAUTHORIZED;
	switch (status) {
	case 503:
	case 429:
		return WS_CLOSE_TRY_LATER;
	case 400:
		return WS_CLOSE_PROTOCOL_ERROR;
	case 413:
		return WS_CLOSE_TOO_BIG;
	default:
		return status >= 500 ? WS_CLOSE_INTERNAL : WS_CLOSE_POLICY;
	}
}

void conn_refuse(struct conn *c, uint16_t status, const char *why, enum close_reason reason)
{
	uint8_t out[HTTP_RESPONSE_MAX];
	struct account *a = account_of(c);
	size_t len;

	if (c->state >= CONN_OPEN)
		return;
	if (a) {
		a->status = status;
		a->code = c->protocol == CONN_RAW ? close_code_of(status, reason) : 0;
	}
	if (c->protocol == CONN_WEBSOCKET)
		len = http_response(
			(char *)out, status, why, status == 503 || status == 429 ? 1 : 0);
	else
		len = raw_close_write(out, close_code_of(status, reason), why);
	conn_tell_closed(c, reason, WS_CLOSE_TRY_LATER, NULL, 0);
	if (c->aux)
		c->aux->opening = false;
	if (conn_out_bytes(c, out, len))
		conn_linger(c, reason);
	else
		conn_kill(c, reason);
}

/* The session exists: tells the client and starts the heartbeat. */
static void opened(struct conn *c, const char *accept, const char *subprotocol)
{
	struct net *n = conn_net(c);
	struct account *a = account_of(c);
	uint8_t out[HTTP_RESPONSE_MAX];
	size_t len;

	if (c->protocol == CONN_WEBSOCKET)
		len = http_upgrade_response((char *)out, accept, subprotocol);
	else
		len = raw_welcome_write(out, c->session);
	if (!conn_out_bytes(c, out, len)) {
		conn_kill(c, CLOSE_NO_MEMORY);
		return;
	}
	if (a)
		a->status = ACCOUNT_OPENED;
	c->state = CONN_OPEN;
	n->stats->handshaking--;
	n->stats->handshakes++;
	n->stats->sessions++;
	n->route_stats[c->route].sessions++;
	n->stats->sessions_opened++;
	c->last_message_ms = n->w->now_ms;
	conn_served(c);
	conn_heartbeat_start(c);
}

static uint64_t cpu_time_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* So that a small machine can be stormed beyond its capacity: CPU time, which whoever else runs
 * here does not spend for the worker. */
bool conn_handshake_cost(struct conn *c)
{
	const struct conn_opts *o = conn_net(c)->opts;
	uint64_t spent_us = (uint64_t)c->ping_window * o->handshake_turn_us, left_us, until;

	if (spent_us >= o->handshake_cost_us)
		return false;
	c->ping_window++;
	left_us = o->handshake_cost_us - spent_us;
	until = cpu_time_ns() +
		1000 * (left_us < o->handshake_turn_us ? left_us : o->handshake_turn_us);
	while (cpu_time_ns() < until)
		;
	return left_us > o->handshake_turn_us;
}

/* Routes the request and opens the session, or refuses. */
static void open_session(struct conn *c, const struct conn_hello *hello, const char *accept)
{
	struct net *n = conn_net(c);
	struct conn_answer a = {.error = PROTO_ERRS};
	uint16_t status = 503;
	const char *why = "no upstream";
	int err = n->ops->hello(c, hello, &a);

	if (err == -EINPROGRESS) {
		c->flags |= CONN_VERIFYING;
		return;
	}
	if (err) {
		if (a.error != PROTO_ERRS)
			conn_protocol_error(c, a.error);
		conn_refuse(c, a.status, a.why, CLOSE_HANDSHAKE);
		return;
	}
	c->route = a.route;
	c->session = a.session;
	c->flags |= CONN_TOLD;
	c->state = CONN_OPENING;
	err = n->ops->open(c, hello, &status, &why);
	if (err == -EINPROGRESS) {
		struct conn_aux *x = conn_aux_get(c);

		if (!x) {
			conn_kill(c, CLOSE_NO_MEMORY);
			return;
		}
		x->opening = true;
		x->subprotocol = a.subprotocol;
		memcpy(x->accept, accept, sizeof x->accept);
		return;
	}
	if (err) {
		c->flags &= (uint16_t)~CONN_TOLD;
		conn_refuse(c, status, why, CLOSE_NO_UPSTREAM);
		return;
	}
	opened(c, accept, a.subprotocol);
}

void conn_accept(struct conn *c, const char *subprotocol)
{
	struct net *n = conn_net(c);

	if (c->state != CONN_OPENING)
		return;
	opened(c, c->aux->accept, subprotocol ? subprotocol : c->aux->subprotocol);
	if (c->state != CONN_OPEN)
		return;
	c->aux->opening = false;
	conn_aux_trim(c);
	/* Whatever the client sent early is still there; its turn also arms the next read. */
	worker_push(n->w, &c->run, RUNQ_ESTABLISHED);
}

static void http_refuse(struct conn *c, const struct http_error *e)
{
	conn_protocol_error(c, PROTO_ERR_HTTP);
	conn_refuse(c, e->status, e->why, CLOSE_HANDSHAKE);
}

static bool is_health_check(const struct conn *c, const struct http_request *req)
{
	const char *path = conn_net(c)->opts->listeners[c->listener].health_path;

	return path && req->path.len == strlen(path) &&
	       !memcmp(req->path.data, path, req->path.len) && !req->upgrade_websocket &&
	       req->method.len == 3 && !memcmp(req->method.data, "GET", 3);
}

/* What comes after a hello. The request is put aside when it is to be asked again. */
static enum conn_more after_hello(struct conn *c, const uint8_t *request, size_t len)
{
	struct buf_pool *bufs = &conn_net(c)->bufs;

	if (c->flags & CONN_VERIFYING) {
		/* A HELLO that came in pieces is there already. */
		if (conn_aux_get(c) && (c->aux->ctl || !buf_append(bufs, &c->aux->ctl, request,
							       (uint32_t)len, UINT32_MAX)))
			return CONN_MORE_UPSTREAM;
		c->flags &= (uint16_t)~CONN_VERIFYING;
		conn_kill(c, CLOSE_NO_MEMORY);
	}
	return c->state == CONN_OPEN      ? CONN_MORE_INPUT
	       : c->state == CONN_OPENING ? CONN_MORE_UPSTREAM
					  : CONN_MORE_NOTHING;
}

void conn_verdict(struct conn *c)
{
	if (c->state != CONN_HANDSHAKE || !(c->flags & CONN_VERIFYING))
		return;
	c->flags |= CONN_VERDICT;
	worker_push(conn_net(c)->w, &c->run, RUNQ_HANDSHAKE);
}

enum conn_more conn_hello_again(struct conn *c)
{
	struct buf *b = c->aux->ctl;
	enum conn_more more;
	size_t used;

	c->flags &= (uint16_t) ~(CONN_VERIFYING | CONN_VERDICT);
	c->aux->ctl = NULL;
	if (c->protocol == CONN_WEBSOCKET)
		more = conn_parse_http(c, b->data + b->off, b->len, &used);
	else
		more = conn_raw_hello(c, b->data + b->off, b->len);
	buf_free(&conn_net(c)->bufs, b);
	return more;
}

enum conn_more conn_parse_http(
	struct conn *c, const uint8_t *data, size_t len, size_t *ret_consumed)
{
	struct net *n = conn_net(c);
	char accept[HTTP_ACCEPT_LEN + 1];
	struct http_request req;
	struct conn_hello hello;
	struct http_error e;
	ssize_t used = http_request_parse((const char *)data, len, &n->opts->http, &req, &e);

	*ret_consumed = 0;
	if (used == 0)
		return CONN_MORE_INPUT;
	if (used < 0) {
		http_refuse(c, &e);
		return CONN_MORE_NOTHING;
	}
	*ret_consumed = (size_t)used;
	if (is_health_check(c, &req)) {
		if (n->draining)
			conn_refuse(c, 503, "draining", CLOSE_HEALTH);
		else
			conn_refuse(c, 200, "ok", CLOSE_HEALTH);
		return CONN_MORE_NOTHING;
	}
	if (http_upgrade_check(&req, &e)) {
		http_refuse(c, &e);
		return CONN_MORE_NOTHING;
	}
	hello = (struct conn_hello){
		.protocol = CONN_WEBSOCKET,
		.host = req.host,
		.path = req.path,
		.query = req.query,
		.http = &req,
	};
	http_accept_key(req.key, accept);
	open_session(c, &hello, accept);
	return after_hello(c, data, (size_t)used);
}

enum conn_more conn_raw_hello(struct conn *c, const uint8_t *payload, size_t len)
{
	static const char no_accept[HTTP_ACCEPT_LEN + 1];
	struct raw_hello raw;
	struct conn_hello hello;
	const char *why;

	if (raw_hello_parse(payload, len, &raw, &why)) {
		conn_protocol_error(c, PROTO_ERR_RAW_HELLO);
		conn_refuse(c, 400, why, CLOSE_HANDSHAKE);
		return CONN_MORE_NOTHING;
	}
	hello = (struct conn_hello){
		.protocol = CONN_RAW,
		.path = {raw.path, raw.path_len},
		.token = {raw.token, raw.token_len},
	};
	open_session(c, &hello, no_accept);
	return after_hello(c, payload, len);
}
