#include "proto/http_upgrade.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

enum {
	METHOD_MAX = 32, /* ours: the longest registered method has 17 characters */
	HOST_PORT_MAX = 65535,
	KEY_LEN = 24,    /* base64 of 16 bytes, RFC 6455 4.1 */
	KEY_DIGITS = 22, /* of which the last two are padding */
};

/* What a byte may be part of. Browsers send [ ] { } | ^ ` \ in a query as they are, against RFC
 * 3986. */
enum {
	TOKEN = 1, /* tchar, RFC 9110 5.6.2 */
	PATH = 2,  /* pchar without the percent sign, or '/', RFC 3986 3.3 */
	QUERY = 4, /* visible ASCII but  " # < > */
	HOST = 8,  /* reg-name without the percent sign, RFC 3986 3.2.2 */
	HEX = 16,
	LETTER = TOKEN | PATH | QUERY | HOST,
	DIGIT = LETTER | HEX,
	SUB = PATH | QUERY | HOST,
};

/* clang-format off */
static const uint8_t classes[256] = {
	['!'] = LETTER, ['#'] = TOKEN, ['$'] = LETTER, ['%'] = TOKEN | QUERY, ['&'] = LETTER,
	['\''] = LETTER, ['('] = SUB, [')'] = SUB, ['*'] = LETTER, ['+'] = LETTER, [','] = SUB,
	['-'] = LETTER, ['.'] = LETTER, ['/'] = PATH | QUERY, ['0' ... '9'] = DIGIT,
	[':'] = PATH | QUERY, [';'] = SUB, ['='] = SUB, ['?'] = QUERY, ['@'] = PATH | QUERY,
	['A' ... 'F'] = LETTER | HEX, ['G' ... 'Z'] = LETTER, ['['] = QUERY, ['\\'] = QUERY,
	[']'] = QUERY, ['^'] = TOKEN | QUERY, ['_'] = LETTER, ['`'] = TOKEN | QUERY,
	['a' ... 'f'] = LETTER | HEX, ['g' ... 'z'] = LETTER, ['{'] = QUERY, ['|'] = TOKEN | QUERY,
	['}'] = QUERY, ['~'] = LETTER,
};
/* clang-format on */

static bool is(char c, uint8_t class)
{
	return classes[(uint8_t)c] & class;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* The locale has no say in a protocol. */
static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

static bool same_nocase(const char *a, const char *b, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (lower(a[i]) != lower(b[i]))
			return false;
	return true;
}

static bool str_is_nocase(struct http_str s, const char *word)
{
	return s.len == strlen(word) && same_nocase(s.data, word, s.len);
}

static struct http_str trim(const char *data, const char *end)
{
	while (data < end && is_blank(*data))
		data++;
	while (end > data && is_blank(end[-1]))
		end--;
	return (struct http_str){data, (size_t)(end - data)};
}

/* The next element of a comma-separated list, without its white space; false at the end. *pos
 * begins at 0. */
static bool list_next(struct http_str list, size_t *pos, struct http_str *ret)
{
	if (*pos > list.len)
		return false;
	const char *start = list.data + *pos, *end = list.data + list.len;
	const char *comma = start < end ? memchr(start, ',', (size_t)(end - start)) : NULL;
	*ret = trim(start, comma ? comma : end);
	*pos = (size_t)((comma ? comma : end) - list.data) + 1;
	return true;
}

static bool list_has(struct http_str list, const char *word)
{
	struct http_str item;
	for (size_t pos = 0; list_next(list, &pos, &item);)
		if (str_is_nocase(item, word))
			return true;
	return false;
}

static int fail(struct http_error *err, uint16_t status, const char *why)
{
	*err = (struct http_error){status, why};
	return -EPROTO;
}

/* One pass from the first byte. Every step below returns 1 when it is through, 0 when the input
 * ends first, or -EPROTO with *err set. A step judges bytes strictly in order and looks at nothing
 * behind the one it judges, so a head gets the same answer, at the same byte, however it was cut.
 */
struct parse {
	const char *p, *end;
	const struct http_limits *limits;
	struct http_error *err;
	bool content_length, transfer_encoding;
	struct http_request req; /* headers[] up to n_headers only: it is not worth clearing */
};

static int parse_crlf(struct parse *s)
{
	if (s->p == s->end)
		return 0;
	if (*s->p != '\r')
		return fail(s->err, 400,
			*s->p == '\n' ? "line does not end in CR LF"
				      : "character not allowed in request head");
	if (s->p + 1 == s->end)
		return 0;
	if (s->p[1] != '\n')
		return fail(s->err, 400, "CR without LF");
	s->p += 2;
	return 1;
}

static int parse_method(struct parse *s)
{
	const char *p = s->p;
	while (p < s->end && is(*p, TOKEN))
		p++;
	size_t len = (size_t)(p - s->p);
	if (len > METHOD_MAX)
		return fail(s->err, 400, "request method too long");
	if (p == s->end)
		return 0;
	if (len == 0 || *p != ' ')
		return fail(s->err, 400, "not an HTTP request");
	s->req.method = (struct http_str){s->p, len};
	s->p = p + 1;
	return 1;
}

static int parse_target(struct parse *s)
{
	const char *start = s->p, *p = start, *query = NULL;
	uint8_t class = PATH;
	unsigned hex_due = 0; /* digits of a percent-encoding still to come */

	if (p == s->end)
		return 0;
	if (*p != '/')
		return fail(s->err, 400, "request target is not a path");
	for (; p < s->end && *p != ' '; p++) {
		if ((size_t)(p - start) >= s->limits->target_max)
			return fail(s->err, 414, "request target too long");
		if (hex_due) {
			if (!is(*p, HEX))
				return fail(s->err, 400, "bad percent-encoding in request target");
			hex_due--;
		} else if (is(*p, class)) {
			continue;
		} else if (*p == '%') {
			hex_due = 2;
		} else if (*p == '?') {
			query = p + 1;
			class = QUERY;
		} else {
			return fail(s->err, 400, "character not allowed in request target");
		}
	}
	if (p == s->end)
		return 0;
	if (hex_due)
		return fail(s->err, 400, "bad percent-encoding in request target");
	s->req.target = (struct http_str){start, (size_t)(p - start)};
	s->req.path = (struct http_str){start, (size_t)((query ? query - 1 : p) - start)};
	if (query)
		s->req.query = (struct http_str){query, (size_t)(p - query)};
	s->p = p + 1;
	return 1;
}

static int parse_version(struct parse *s)
{
	static const char pattern[] = "HTTP/0.0"; /* 0: any digit */
	enum {
		LEN = sizeof(pattern) - 1,
		MAJOR = 5,
		MINOR = 7
	};

	for (unsigned i = 0; i < LEN; i++) {
		if (s->p + i == s->end)
			return 0;
		if (pattern[i] == '0' ? !is_digit(s->p[i]) : s->p[i] != pattern[i])
			return fail(s->err, 400, "bad HTTP version");
	}
	if (s->p[MAJOR] != '1' || s->p[MINOR] != '1')
		return fail(s->err, 505, "only HTTP/1.1 is supported");
	s->p += LEN;
	return parse_crlf(s);
}

/* The end of a run of field-vchar, SP and HTAB (RFC 9110 5.5): eight bytes at a time until a block
 * holds a byte that may be none of them, then one by one. A tab
 * makes the rest of its value slow. */
static const char *value_end(const char *p, const char *end)
{
	const uint64_t ones = 0x0101010101010101, tops = 0x8080808080808080;

	for (; end - p >= 8; p += 8) {
		uint64_t w;
		memcpy(&w, p, sizeof(w));
		uint64_t del = w ^ (ones * 0x7f);
		/* (x - n) & ~x has a byte's top bit set where the byte is below n; a borrow may add
		 * false alarms, never hide one. */
		if ((((w - ones * 0x20) & ~w) | ((del - ones) & ~del)) & tops)
			break;
	}
	while (p < end && ((uint8_t)*p >= 0x20 ? *p != 0x7f : *p == '\t'))
		p++;
	return p;
}

static int parse_header_line(struct parse *s, struct http_header *ret)
{
	const char *name = s->p, *p = name;

	if (is_blank(*p))
		return fail(s->err, 400, "folded header line");
	if (s->req.n_headers == s->limits->headers_max)
		return fail(s->err, 431, "too many headers");
	while (p < s->end && is(*p, TOKEN))
		p++;
	if (p == s->end)
		return 0;
	if (p == name || *p != ':')
		return fail(s->err, 400,
			is_blank(*p) ? "space before the colon of a header" : "bad header name");
	const char *value = p + 1, *stop = value_end(value, s->end);
	s->p = stop;
	int r = parse_crlf(s);
	if (r <= 0)
		return r;
	ret->name = (struct http_str){name, (size_t)(p - name)};
	ret->value = trim(value, stop);
	return 1;
}

/* A header that may stand only once. */
static int note_single(
	struct parse *s, struct http_str *slot, struct http_str value, const char *why)
{
	if (slot->data)
		return fail(s->err, 400, why);
	*slot = value;
	return 1;
}

static bool port_valid(const char *p, const char *end)
{
	unsigned port = 0;
	for (; p < end; p++) {
		if (!is_digit(*p))
			return false;
		port = port * 10 + (unsigned)(*p - '0');
		if (port > HOST_PORT_MAX)
			return false;
	}
	return true;
}

/* uri-host [ ":" port ] of RFC 9110 7.2: a name, an IPv4 address, or something like an IPv6 address
 * in brackets. */
static bool host_valid(struct http_str host)
{
	const char *p = host.data, *end = p + host.len;

	if (p < end && *p == '[') {
		const char *start = ++p;
		while (p < end && (is(*p, HEX) || *p == ':' || *p == '.'))
			p++;
		if (p == start || p == end || *p != ']')
			return false;
		p++;
	} else {
		while (p < end && is(*p, HOST))
			p++;
		if (p == host.data)
			return false;
	}
	return p == end || (*p == ':' && port_valid(p + 1, end));
}

static int note_host(struct parse *s, struct http_str value)
{
	if (value.len == 0)
		return fail(s->err, 400, "empty Host");
	if (!host_valid(value))
		return fail(s->err, 400, "bad Host");
	return note_single(s, &s->req.host, value, "more than one Host");
}

static int note_content_length(struct parse *s, struct http_str value)
{
	if (s->content_length)
		return fail(s->err, 400, "more than one Content-Length");
	if (s->transfer_encoding)
		return fail(s->err, 400, "Content-Length beside Transfer-Encoding");
	if (value.len == 0)
		return fail(s->err, 400, "bad Content-Length");
	s->content_length = true;
	for (size_t i = 0; i < value.len; i++) {
		if (!is_digit(value.data[i]))
			return fail(s->err, 400, "bad Content-Length");
		s->req.has_body |= value.data[i] != '0';
	}
	return 1;
}

static int note_transfer_encoding(struct parse *s)
{
	if (s->content_length)
		return fail(s->err, 400, "Content-Length beside Transfer-Encoding");
	s->transfer_encoding = true;
	s->req.has_body = true;
	return 1;
}

/* Picks out the headers a handshake looks at; the length of a name rules out nearly all others. */
static int note_header(struct parse *s, const struct http_header *h)
{
	struct http_request *req = &s->req;

	switch (h->name.len) {
	case sizeof("Host") - 1:
		if (str_is_nocase(h->name, "Host"))
			return note_host(s, h->value);
		break;
	case sizeof("Origin") - 1:
		if (str_is_nocase(h->name, "Origin"))
			return note_single(s, &req->origin, h->value, "more than one Origin");
		break;
	case sizeof("Upgrade") - 1:
		if (str_is_nocase(h->name, "Upgrade"))
			req->upgrade_websocket |= list_has(h->value, "websocket");
		break;
	case sizeof("Connection") - 1:
		if (str_is_nocase(h->name, "Connection"))
			req->connection_upgrade |= list_has(h->value, "upgrade");
		break;
	case sizeof("Content-Length") - 1:
		if (str_is_nocase(h->name, "Content-Length"))
			return note_content_length(s, h->value);
		break;
	case sizeof("Transfer-Encoding") - 1: /* also the length of Sec-WebSocket-Key */
		if (str_is_nocase(h->name, "Transfer-Encoding"))
			return note_transfer_encoding(s);
		if (str_is_nocase(h->name, "Sec-WebSocket-Key"))
			return note_single(
				s, &req->key, h->value, "more than one Sec-WebSocket-Key");
		break;
	case sizeof("Sec-WebSocket-Version") - 1:
		if (str_is_nocase(h->name, "Sec-WebSocket-Version"))
			return note_single(
				s, &req->version, h->value, "more than one Sec-WebSocket-Version");
		break;
	case sizeof("Sec-WebSocket-Protocol") - 1:
		/* It may be spread over several lines (RFC 6455 11.3.4). A server is free to
		 * choose from the first alone, and no client is known to send a second. */
		if (!req->protocols.data && str_is_nocase(h->name, "Sec-WebSocket-Protocol"))
			req->protocols = h->value;
		break;
	}
	return 1;
}

static int parse_headers(struct parse *s)
{
	for (;;) {
		if (s->p == s->end)
			return 0;
		if (*s->p == '\r')
			break;
		struct http_header *h = &s->req.headers[s->req.n_headers];
		int r = parse_header_line(s, h);
		if (r > 0)
			r = note_header(s, h);
		if (r <= 0)
			return r;
		s->req.n_headers++;
	}
	int r = parse_crlf(s);
	if (r > 0 && !s->req.host.data)
		return fail(s->err, 400, "no Host");
	return r;
}

static int parse_head(struct parse *s)
{
	int r = parse_method(s);
	if (r > 0)
		r = parse_target(s);
	if (r > 0)
		r = parse_version(s);
	if (r > 0)
		r = parse_headers(s);
	return r;
}

ssize_t http_request_parse(const char *buf, size_t len, const struct http_limits *limits,
	struct http_request *ret, struct http_error *ret_err)
{
	assert(limits->headers_max <= HTTP_HEADERS_MAX);

	size_t cap = len < limits->head_max ? len : limits->head_max;
	struct parse s;
	memset(&s, 0, offsetof(struct parse, req.headers));
	s.req.n_headers = 0;
	s.req.upgrade_websocket = s.req.connection_upgrade = s.req.has_body = false;
	s.p = buf;
	s.end = buf + cap;
	s.limits = limits;
	s.err = ret_err;

	int r = parse_head(&s);
	if (r < 0)
		return r;
	if (r == 0)
		return cap == limits->head_max ? fail(ret_err, 431, "request head too large") : 0;

	size_t used =
		offsetof(struct http_request, headers) + s.req.n_headers * sizeof(s.req.headers[0]);
	memcpy(ret, &s.req, used);
	ret->n_headers = s.req.n_headers;
	ret->upgrade_websocket = s.req.upgrade_websocket;
	ret->connection_upgrade = s.req.connection_upgrade;
	ret->has_body = s.req.has_body;
	return s.p - buf;
}

struct http_str http_header_get(const struct http_request *req, const char *name)
{
	for (unsigned i = 0; i < req->n_headers; i++)
		if (str_is_nocase(req->headers[i].name, name))
			return req->headers[i].value;
	return (struct http_str){NULL, 0};
}

/* Base64 of exactly 16 bytes. The four spare bits of the last digit may hold anything: RFC 4648 3.5
 * leaves that to the decoder, and nobody decodes the key. */
static bool key_valid(struct http_str key)
{
	if (key.len != KEY_LEN || memcmp(key.data + KEY_DIGITS, "==", 2) != 0)
		return false;
	for (size_t i = 0; i < KEY_DIGITS; i++) {
		char c = key.data[i], l = lower(c);
		if (!(l >= 'a' && l <= 'z') && !is_digit(c) && c != '+' && c != '/')
			return false;
	}
	return true;
}

int http_upgrade_check(const struct http_request *req, struct http_error *ret_err)
{
	if (req->method.len != 3 || memcmp(req->method.data, "GET", 3) != 0)
		return fail(ret_err, 405, "only GET is allowed");
	if (!req->upgrade_websocket)
		return fail(ret_err, 426,
			"this is a WebSocket endpoint: Upgrade: websocket is missing");
	if (!req->connection_upgrade)
		return fail(ret_err, 400, "Connection does not name Upgrade");
	if (req->version.len != 2 || memcmp(req->version.data, "13", 2) != 0)
		return fail(ret_err, 426, "Sec-WebSocket-Version is not 13");
	if (!req->key.data)
		return fail(ret_err, 400, "no Sec-WebSocket-Key");
	if (!key_valid(req->key))
		return fail(ret_err, 400, "Sec-WebSocket-Key is not 16 bytes of base64");
	if (req->has_body)
		return fail(ret_err, 413, "a WebSocket handshake has no body");
	return 0;
}

/* Labels of a host name with a dot behind each but the last: what an asterisk stands for. */
static bool labels_valid(struct http_str s)
{
	bool label_empty = true;
	for (size_t i = 0; i < s.len; i++) {
		char c = s.data[i], l = lower(c);
		if (c == '.' && label_empty)
			return false;
		if (!(l >= 'a' && l <= 'z') && !is_digit(c) && c != '-' && c != '_' && c != '.')
			return false;
		label_empty = c == '.';
	}
	return !label_empty;
}

static bool origin_matches(struct http_str origin, const char *entry)
{
	if (strcmp(entry, "*") == 0 || str_is_nocase(origin, entry))
		return true;

	const char *star = strstr(entry, "://*.");
	if (!star)
		return false;
	size_t scheme = (size_t)(star - entry) + 3; /* "https://" */
	const char *tail = entry + scheme + 1;      /* ".example.com" */
	size_t tail_len = strlen(tail);
	if (origin.len <= scheme + tail_len)
		return false;
	struct http_str labels = {origin.data + scheme, origin.len - scheme - tail_len};
	return same_nocase(origin.data, entry, scheme) &&
	       same_nocase(labels.data + labels.len, tail, tail_len) && labels_valid(labels);
}

bool http_origin_allowed(struct http_str origin, const char *const *allowed, size_t n)
{
	if (n == 0 || !origin.data)
		return true;
	for (size_t i = 0; i < n; i++)
		if (origin_matches(origin, allowed[i]))
			return true;
	return false;
}

static bool token_valid(struct http_str s)
{
	for (size_t i = 0; i < s.len; i++)
		if (!is(s.data[i], TOKEN))
			return false;
	return s.len > 0;
}

struct http_str http_subprotocol_select(
	struct http_str offered, const char *const *supported, size_t n, bool *ret_malformed)
{
	const struct http_str none = {NULL, 0};
	struct http_str chosen = none, item;

	*ret_malformed = false;
	if (!offered.data)
		return none;
	for (size_t pos = 0; list_next(offered, &pos, &item);) {
		if (!token_valid(item)) { /* RFC 6455 4.1: "non-empty strings" */
			*ret_malformed = true;
			return none;
		}
		for (size_t i = 0; i < n && !chosen.data && item.len <= HTTP_PROTOCOL_MAX; i++)
			if (strlen(supported[i]) == item.len &&
				!memcmp(supported[i], item.data, item.len))
				chosen = item;
	}
	return chosen;
}
