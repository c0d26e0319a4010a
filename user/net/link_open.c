/* What a service is told about a new session. */
#include "net/link_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
	HEADER_NAME_MAX = 64, /* a longer name of an x- header is left out */
	PEER_TEXT = INET6_ADDRSTRLEN + 8,
	META_MAX = TG_LINK_OPEN_MAX - LINK_HISTORY_MAX,
};

static bool same(struct http_str a, const char *b)
{
	return a.len == strlen(b) && !strncasecmp(a.data, b, a.len);
}

/* jansson refuses what is not UTF-8: such a value is left out. False without memory. */
static bool put(json_t *o, const char *key, const char *data, size_t len)
{
	json_t *v = json_stringn(data, len);

	return !v || json_object_set_new_nocheck(o, key, v) == 0;
}

static void peer_text(const struct conn *c, char out[PEER_TEXT])
{
	char host[INET6_ADDRSTRLEN];

	if (IN6_IS_ADDR_V4MAPPED(&c->peer)) {
		inet_ntop(AF_INET, (const uint8_t *)&c->peer + 12, host, sizeof host);
		snprintf(out, PEER_TEXT, "%s:%u", host, ntohs(c->peer_port));
	} else {
		inet_ntop(AF_INET6, &c->peer, host, sizeof host);
		snprintf(out, PEER_TEXT, "[%s]:%u", host, ntohs(c->peer_port));
	}
}

static int hex(char c)
{
	return c >= '0' && c <= '9'                 ? c - '0'
	       : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
						    : -1;
}

/* The parameter's name is access_token (RFC 6750 2.3), however it is escaped. */
static bool is_token(const char *p, size_t len)
{
	static const char name[] = "access_token";
	size_t k = 0;

	for (size_t i = 0; i < len && p[i] != '='; i++) {
		int ch = (uint8_t)p[i];

		if (ch == '%' && len - i > 2 && hex(p[i + 1]) >= 0 && hex(p[i + 2]) >= 0) {
			ch = hex(p[i + 1]) << 4 | hex(p[i + 2]);
			i += 2;
		}
		if (k == sizeof name - 1 || ch != name[k++])
			return false;
	}
	return k == sizeof name - 1;
}

/* The query without tokens: they are for the gateway alone. */
static bool put_query(json_t *o, struct http_str query)
{
	char *out;
	size_t n = 0;
	bool ok;

	if (!query.data)
		return true;
	out = malloc(query.len + 1);
	if (!out)
		return false;
	for (size_t at = 0; at <= query.len;) {
		const char *p = query.data + at;
		const char *amp = memchr(p, '&', query.len - at);
		size_t len = amp ? (size_t)(amp - p) : query.len - at;

		if (!is_token(p, len)) {
			if (n)
				out[n++] = '&';
			memcpy(out + n, p, len);
			n += len;
		}
		at += len + 1;
	}
	ok = put(o, "query", out, n);
	free(out);
	return ok;
}

static bool header_wanted(struct http_str name)
{
	return same(name, "origin") || same(name, "user-agent") ||
	       (name.len > 2 && name.len <= HEADER_NAME_MAX && (name.data[0] | 32) == 'x' &&
		       name.data[1] == '-');
}

/* One header; a second one of its name is joined to it, as RFC 9110 5.3 allows. */
static bool put_header(json_t *headers, const struct http_header *h)
{
	char name[HEADER_NAME_MAX + 1];
	const json_t *before;
	json_t *v;

	for (size_t i = 0; i < h->name.len; i++)
		name[i] = h->name.data[i] >= 'A' && h->name.data[i] <= 'Z'
				  ? (char)(h->name.data[i] | 32)
				  : h->name.data[i];
	name[h->name.len] = '\0';
	v = json_stringn(h->value.data ? h->value.data : "", h->value.len);
	before = json_object_get(headers, name);
	if (v && before) {
		json_t *joined =
			json_sprintf("%s, %s", json_string_value(before), json_string_value(v));

		json_decref(v);
		v = joined;
	}
	return !v || json_object_set_new_nocheck(headers, name, v) == 0;
}

static bool put_headers(json_t *o, const struct http_request *req)
{
	json_t *headers = json_object();
	bool ok = headers != NULL;

	for (unsigned i = 0; ok && i < req->n_headers; i++)
		if (header_wanted(req->headers[i].name))
			ok = put_header(headers, &req->headers[i]);
	return json_object_set_new_nocheck(o, "headers", headers) == 0 && ok;
}

/* A token in disguise (docs/authentication.md): for the gateway alone. */
static bool is_token_offer(const char *p, size_t len)
{
	static const char prefix[] = "tg.token.";

	return len >= sizeof prefix - 1 && !memcmp(p, prefix, sizeof prefix - 1);
}

/* The tokens the client offers, in its order; the list was checked with the request. */
static bool put_subprotocols(json_t *o, struct http_str list)
{
	json_t *out = json_array();
	const char *p = list.data, *end = list.data + list.len;
	bool ok = out != NULL;

	while (ok && list.data && p < end) {
		const char *comma = memchr(p, ',', (size_t)(end - p));
		const char *next = comma ? comma + 1 : end, *stop = comma ? comma : end;

		while (p < stop && (*p == ' ' || *p == '\t'))
			p++;
		while (stop > p && (stop[-1] == ' ' || stop[-1] == '\t'))
			stop--;
		if (link_subprotocol_valid(p, (size_t)(stop - p)) &&
			!is_token_offer(p, (size_t)(stop - p)))
			ok = json_array_append_new(out, json_stringn(p, (size_t)(stop - p))) == 0;
		p = next;
	}
	return json_object_set_new_nocheck(o, "subprotocols", out) == 0 && ok;
}

static bool fill(json_t *o, const struct conn *c, const struct conn_hello *hello)
{
	const struct net *n = conn_net(c);
	const char *listener = n->opts->listeners[c->listener].name, *route = conn_limits(c)->name;
	char peer[PEER_TEXT], id[24];
	bool ok;

	peer_text(c, peer);
	ok = put(o, "peer", peer, strlen(peer)) && put(o, "listener", listener, strlen(listener)) &&
	     put(o, "route", route, strlen(route)) &&
	     put(o, "path", hello->path.data, hello->path.len) && put_query(o, hello->query);
	if (ok && hello->host.data)
		ok = put(o, "host", hello->host.data, hello->host.len);
	if (ok && hello->subject)
		ok = put(o, "subject", hello->subject, strlen(hello->subject));
	if (ok && hello->claims)
		ok = json_object_set(o, "claims", (json_t *)(uintptr_t)hello->claims) == 0;
	snprintf(id, sizeof id, "%" PRIu64, c->session);
	ok = ok && put(o, "session", id, strlen(id)) &&
	     put(o, "protocol", hello->http ? "websocket" : "raw", hello->http ? 9 : 3);
	if (ok && hello->http)
		ok = put_subprotocols(o, hello->http->protocols) && put_headers(o, hello->http);
	return ok;
}

int link_open_metadata(
	const struct conn *c, const struct conn_hello *hello, char **ret_meta, uint32_t *ret_len)
{
	json_t *o = json_object();
	char *meta = NULL;
	size_t len;

	if (o && fill(o, c, hello))
		meta = json_dumps(o, JSON_COMPACT);
	/* Escapes may make a request that was within its limits too long: headers are what can be
	 * done without. */
	if (meta && strlen(meta) > META_MAX) {
		free(meta);
		json_object_del(o, "headers");
		meta = json_dumps(o, JSON_COMPACT);
	}
	json_decref(o);
	if (!meta)
		return -ENOMEM;
	len = strlen(meta);
	if (len > META_MAX) {
		free(meta);
		return -EMSGSIZE;
	}
	*ret_meta = meta;
	*ret_len = (uint32_t)len;
	return 0;
}

bool link_open_offered(const char *meta, uint32_t meta_len, const char *subprotocol, size_t len)
{
	json_t *o = json_loadb(meta, meta_len, 0, NULL);
	const json_t *list = json_object_get(o, "subprotocols"), *v;
	bool found = false;
	size_t i;

	json_array_foreach(list, i, v) found |=
		json_string_length(v) == len && !memcmp(json_string_value(v), subprotocol, len);
	json_decref(o);
	return found;
}

uint64_t link_hash(const void *data, size_t len)
{
	const uint8_t *p = data;
	uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a, with the finaliser of SplitMix64
						      against its weak high bits */

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * UINT64_C(0x100000001b3);
	h = (h ^ h >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	h = (h ^ h >> 27) * UINT64_C(0x94d049bb133111eb);
	return h ^ h >> 31;
}

uint64_t link_open_hash(const char *key, const struct conn_hello *hello, uint64_t session)
{
	struct http_str value = {NULL, 0};
	const json_t *claim = key ? json_object_get(hello->claims, key) : NULL;
	char number[24];

	if (json_is_string(claim)) {
		value = (struct http_str){json_string_value(claim), json_string_length(claim)};
	} else if (json_is_integer(claim)) {
		value.len = (size_t)snprintf(
			number, sizeof number, "%" JSON_INTEGER_FORMAT, json_integer_value(claim));
		value.data = number;
	} else if (key && hello->subject && !strcmp(key, "sub")) { /* of a token without claims */
		value = (struct http_str){hello->subject, strlen(hello->subject)};
	} else if (key && hello->http)
		value = http_header_get(hello->http, key);
	return value.data ? link_hash(value.data, value.len) : link_hash(&session, sizeof session);
}
