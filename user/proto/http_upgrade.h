/* The HTTP/1.1 side of a WebSocket handshake (RFC 9112, RFC 6455 4.2), without I/O. Pure; any
 * thread.
 *
 * Strict on purpose: a gateway faces the open internet, and every leniency here is a
 * request-smuggling hint elsewhere.
 */
#ifndef TIDEGATE_PROTO_HTTP_UPGRADE_H
#define TIDEGATE_PROTO_HTTP_UPGRADE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
	HTTP_HEADERS_MAX = 64,    /* bound of http_limits.headers_max; more is 431 */
	HTTP_ACCEPT_LEN = 28,     /* base64 of a SHA-1 digest, RFC 6455 4.2.2 */
	HTTP_RESPONSE_MAX = 1024, /* bound of every response written here */
	HTTP_PROTOCOL_MAX =
		512, /* bytes of a sub-protocol's name; a longer one is never selected */
};

/* A slice of the caller's buffer; not NUL-terminated. data == NULL: absent. */
struct http_str {
	const char *data;
	size_t len;
};

struct http_header {
	struct http_str name, value; /* value without surrounding white space */
};

struct http_limits {
	size_t head_max; /* bytes of request line and headers, up to the empty line; more is 431 */
	size_t target_max;    /* bytes of the request target; more is 414 */
	unsigned headers_max; /* at most HTTP_HEADERS_MAX; more is 431 */
};

struct http_request {
	struct http_str method, target, path,
		query; /* path and query are parts of target, as sent */
	struct http_str host, origin, key, version,
		protocols; /* the headers a handshake looks at */
	struct http_header headers[HTTP_HEADERS_MAX];
	unsigned n_headers;
	bool upgrade_websocket;  /* Upgrade names websocket */
	bool connection_upgrade; /* Connection names upgrade */
	bool has_body;           /* Content-Length above 0 or any Transfer-Encoding */
};

/* What to answer to a bad request. */
struct http_error {
	uint16_t status; /* 400, 403, 404, 405, 413, 414, 426, 408, 429, 431, 503, 505 */
	const char *why; /* static, for the body and the log */
};

/* Parses one request head.
 * >0: its length with the empty line; *ret is filled and points into buf.
 *  0: need more.
 * -EPROTO: malformed or over a limit; *ret_err says what to answer. Known as early as the bytes
 * allow: a bad method or a control character is not waited out. Duplicate Host, Sec-WebSocket-Key,
 * Sec-WebSocket-Version, Origin or Content-Length, obs-fold, space before a colon, a bare CR or LF,
 * an absent or empty Host, HTTP/1.0 (505), and an absolute or asterisk target are malformed. */
ssize_t http_request_parse(const char *buf, size_t len, const struct http_limits *limits,
	struct http_request *ret, struct http_error *ret_err);

/* Looks a header up by name, case-insensitively; the first one. */
struct http_str http_header_get(const struct http_request *req, const char *name);

/* Judges a parsed request as a WebSocket handshake: 0, or -EPROTO with the answer: 405 (not GET),
 * 426 (no `Upgrade: websocket`, or a Sec-WebSocket-Version other than 13), 400 (no `Connection:
 * upgrade`, key not 16 bytes of base64), 413 (a body). */
int http_upgrade_check(const struct http_request *req, struct http_error *ret_err);

/* True when `origin` equals one of the allowed ones (scheme://host[:port], case-insensitive; "*"
 * allows all; an entry whose host begins "*." allows every sub-domain of the rest, not the rest
 * itself). An absent Origin (not a browser) is allowed. n == 0 allows all. */
bool http_origin_allowed(struct http_str origin, const char *const *allowed, size_t n);

/* The first of the client's Sec-WebSocket-Protocol tokens that is in `supported`; data == NULL when
 * none is. The slice points into `offered`. *ret_malformed is set when the list is not a list of
 * tokens. */
struct http_str http_subprotocol_select(
	struct http_str offered, const char *const *supported, size_t n, bool *ret_malformed);

/* Sec-WebSocket-Accept of a key, 28 characters and a NUL. */
void http_accept_key(struct http_str key, char out[HTTP_ACCEPT_LEN + 1]);

/* Writes the 101 response for a Sec-WebSocket-Accept value; protocol may be NULL, and one that is
 * not a token of at most HTTP_PROTOCOL_MAX bytes is left out. Returns its length, at most
 * HTTP_RESPONSE_MAX. */
size_t http_upgrade_response(char out[HTTP_RESPONSE_MAX], const char *accept, const char *protocol);

/* Writes a plain-text response with `Connection: close`, Content-Length and body "why\n"; 426 adds
 * Upgrade and Sec-WebSocket-Version: 13, 405 adds Allow: GET, 401 adds WWW-Authenticate, 429 and
 * 503 add Retry-After when retry_after_s > 0. A status outside 200..599 is sent as 500. Returns its
 * length. */
size_t http_response(
	char out[HTTP_RESPONSE_MAX], uint16_t status, const char *why, unsigned retry_after_s);

#endif
