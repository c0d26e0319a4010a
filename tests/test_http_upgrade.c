/* proto/http_upgrade: request heads in one piece, grown a byte at a time against a guard page, and
 * what is answered. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proto/http_upgrade.h"
#include "support/guard.h"

#define ELEMENTS(a) (sizeof(a) / sizeof((a)[0]))
#define TEXT(s)     (s), sizeof(s) - 1

#define LINE "GET /echo HTTP/1.1\r\n"
#define HOST "Host: gw.example.com\r\n"
#define KEY  "dGhlIHNhbXBsZSBub25jZQ=="
#define UPGRADE                                                                                    \
	"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"               \
	"Sec-WebSocket-Key: " KEY "\r\n"

static const struct http_limits limits = {.head_max = 8192, .target_max = 2048, .headers_max = 64};

static struct http_str str(const char *s)
{
	return (struct http_str){s, s ? strlen(s) : 0};
}

static void assert_str(struct http_str s, const char *want)
{
	if (!want) {
		assert_null(s.data);
		return;
	}
	assert_non_null(s.data);
	assert_int_equal(s.len, strlen(want));
	assert_memory_equal(s.data, want, s.len);
}

/* Parses text whole and grown byte by byte, each time ending at the guard page; both must agree,
 * and outputs must stay untouched wherever they are not due. *ret_at is the number of bytes that
 * decided. */
static ssize_t parse_both(const char *text, size_t len, const struct http_limits *lim,
	struct http_error *ret_err, size_t *ret_at)
{
	struct guard g;
	guard_init(&g, len + 1);
	struct http_request *req = malloc(sizeof(*req)), *untouched = malloc(sizeof(*req));
	memset(untouched, 0x5a, sizeof(*untouched));
	struct http_error err = {1, "untouched"};
	size_t n;
	ssize_t r = 0;

	for (n = 0; n <= len && r == 0; n++) {
		*req = *untouched;
		r = http_request_parse((char *)guard_copy(&g, text, n), n, lim, req, &err);
		if (r <= 0)
			assert_memory_equal(req, untouched, sizeof(*req));
		if (r >= 0)
			assert_int_equal(err.status, 1);
	}
	*ret_at = n - 1;

	struct http_error whole_err = {1, "untouched"};
	ssize_t whole =
		http_request_parse((char *)guard_copy(&g, text, len), len, lim, req, &whole_err);
	assert_int_equal(whole, r);
	assert_int_equal(whole_err.status, err.status);
	assert_string_equal(whole_err.why, err.why);
	*ret_err = err;
	free(req);
	free(untouched);
	guard_fini(&g);
	return r;
}

static void valid_request(void **state)
{
	static const char text[] = "GET /a%20b/c?x=1&y=[2] HTTP/1.1\r\n"
				   "host:  gw.example.com:8080 \t\r\n"
				   "User-Agent: t\xc3\xa9st\tagent 1\r\n"
				   "UPGRADE: h2c, WebSocket\r\n"
				   "Connection: keep-alive\r\n"
				   "Connection: , upgrade\r\n"
				   "Sec-WebSocket-Key: " KEY "\r\n"
				   "Sec-WebSocket-Version: 13\r\n"
				   "Sec-WebSocket-Protocol: chat, superchat\r\n"
				   "X-Empty:\r\n"
				   "Origin: https://example.com\r\n"
				   "\r\n"
				   "behind the head";
	size_t head = sizeof(text) - 1 - strlen("behind the head"), at;
	struct http_request req;
	struct http_error err;

	assert_int_equal(http_request_parse(TEXT(text), &limits, &req, &err), head);
	assert_str(req.method, "GET");
	assert_str(req.target, "/a%20b/c?x=1&y=[2]");
	assert_str(req.path, "/a%20b/c");
	assert_str(req.query, "x=1&y=[2]");
	assert_str(req.host, "gw.example.com:8080");
	assert_str(req.origin, "https://example.com");
	assert_str(req.key, KEY);
	assert_str(req.version, "13");
	assert_str(req.protocols, "chat, superchat");
	assert_int_equal(req.n_headers, 10);
	assert_true(req.upgrade_websocket);
	assert_true(req.connection_upgrade);
	assert_false(req.has_body);
	assert_str(req.headers[1].name, "User-Agent");
	assert_str(http_header_get(&req, "user-agent"), "t\xc3\xa9st\tagent 1");
	assert_str(http_header_get(&req, "CONNECTION"), "keep-alive");
	assert_str(http_header_get(&req, "x-empty"), "");
	assert_str(http_header_get(&req, "x-none"), NULL);
	assert_int_equal(http_upgrade_check(&req, &err), 0);

	assert_int_equal(parse_both(text, head, &limits, &err, &at), head);
	assert_int_equal(at, head); /* every shorter one needs more */
}

static void valid_forms(void **state)
{
	static const char *const heads[] = {
		LINE HOST "\r\n",
		"GET / HTTP/1.1\r\nHost:a\r\n\r\n",
		"GET /? HTTP/1.1\r\nHost:\ta:1\r\n\r\n",
		"GET /a;b=c/@:$&'()*+,=!~_-.?/?a=`{}|^\\% HTTP/1.1\r\n" HOST "\r\n",
		"GET /%00%fF HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n",
		"POST /x HTTP/1.1\r\nHost: [::ffff:192.0.2.1]\r\nContent-Length: 12\r\n\r\n",
		"M-SEARCH / HTTP/1.1\r\nHost: h:\r\n\r\n",
		"GET / HTTP/1.1\r\n!#$%&'*+-.^_`|~09azAZ: v\r\n" HOST "\r\n",
		"GET / HTTP/1.1\r\nHost: h:65535\r\nTransfer-Encoding: chunked\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 000\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: h\r\nX: 0123456\t89abcdefghij\xff\x80 klm\r\n\r\n",
	};
	for (size_t i = 0; i < ELEMENTS(heads); i++) {
		size_t at, len = strlen(heads[i]);
		struct http_error err;
		assert_int_equal(parse_both(heads[i], len, &limits, &err, &at), len);
		assert_int_equal(at, len);
	}
}

static void absent_and_empty(void **state)
{
	struct http_request req;
	struct http_error err;

	assert_true(http_request_parse(TEXT("GET /p? HTTP/1.1\r\n" HOST "Origin:\r\n\r\n"), &limits,
			    &req, &err) > 0);
	assert_str(req.path, "/p");
	assert_str(req.query, "");
	assert_str(req.origin, "");
	assert_str(req.key, NULL);
	assert_true(http_request_parse(
			    TEXT("GET /p HTTP/1.1\r\n" HOST "\r\n"), &limits, &req, &err) > 0);
	assert_str(req.query, NULL);
	assert_str(req.origin, NULL);
}

struct bad {
	const char *text;
	size_t len;
	uint16_t status;
	size_t at; /* 0: any; else the bytes after which it must be known */
};

static const struct bad bad_heads[] = {
	/* what is not HTTP at all */
	{TEXT("\x16\x03\x01\x02\x00\x01"), 400, 1}, /* TLS ClientHello */
	{TEXT("\0"), 400, 1},
	{TEXT("\r\nGET / HTTP/1.1\r\n"), 400, 1},
	{TEXT(" GET / HTTP/1.1\r\n"), 400, 1},
	{TEXT("\xff\xd8\xff"), 400, 1},
	{TEXT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 400, 5},
	/* method */
	{TEXT("G\tT / HTTP/1.1\r\n"), 400, 2},
	{TEXT("GET\t/ HTTP/1.1\r\n"), 400, 4},
	{TEXT("GE(T) / HTTP/1.1\r\n"), 400, 3},
	{TEXT("GET\r\n"), 400, 4},
	{TEXT("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\n"), 400, 33},
	/* target */
	{TEXT("GET  / HTTP/1.1\r\n"), 400, 5},
	{TEXT("GET * HTTP/1.1\r\n"), 400, 5},
	{TEXT("GET http://h/ HTTP/1.1\r\n"), 400, 5},
	{TEXT("CONNECT h:443 HTTP/1.1\r\n"), 400, 9},
	{TEXT("GET ?a HTTP/1.1\r\n"), 400, 5},
	{TEXT("GET /a#b HTTP/1.1\r\n"), 400, 7},
	{TEXT("GET /a?b#c HTTP/1.1\r\n"), 400, 9},
	{TEXT("GET /a\0b HTTP/1.1\r\n"), 400, 7},
	{TEXT("GET /a\x7f HTTP/1.1\r\n"), 400, 7},
	{TEXT("GET /\xc3\xa9 HTTP/1.1\r\n"), 400, 6},
	{TEXT("GET /a\"b HTTP/1.1\r\n"), 400, 7},
	{TEXT("GET /a[0] HTTP/1.1\r\n"), 400, 7},
	{TEXT("GET /?<a> HTTP/1.1\r\n"), 400, 7},
	{TEXT("GET /%g0 HTTP/1.1\r\n"), 400, 7},
	{TEXT("GET /%4x HTTP/1.1\r\n"), 400, 8},
	{TEXT("GET /%4 HTTP/1.1\r\n"), 400, 8},
	{TEXT("GET /% HTTP/1.1\r\n"), 400, 7},
	{TEXT("GET /\r\n"), 400, 6}, /* HTTP/0.9 */
	{TEXT("GET /\tHTTP/1.1\r\n"), 400, 6},
	/* version */
	{TEXT("GET / HTTP/1.0\r\n"), 505, 14},
	{TEXT("GET / HTTP/2.0\r\n"), 505, 14},
	{TEXT("GET / HTTP/0.9\r\n"), 505, 14},
	{TEXT("GET / HTTP/1.2\r\n"), 505, 14},
	{TEXT("GET /  HTTP/1.1\r\n"), 400, 7},
	{TEXT("GET / http/1.1\r\n"), 400, 7},
	{TEXT("GET / HTTP/11\r\n"), 400, 13},
	{TEXT("GET / HTTP/1.1 \r\n"), 400, 15},
	{TEXT("GET / HTTP/1.10\r\n"), 400, 15},
	{TEXT("GET / HTTP/1.1\n"), 400, 15},
	{TEXT("GET / HTTP/1.1\rX"), 400, 16},
	/* header lines */
	{TEXT(LINE " Host: a\r\n\r\n"), 400, sizeof(LINE)},
	{TEXT(LINE HOST " folded\r\n\r\n"), 400, sizeof(LINE HOST)},
	{TEXT(LINE HOST "\tfolded\r\n\r\n"), 400, sizeof(LINE HOST)},
	{TEXT(LINE "Host : a\r\n\r\n"), 400, sizeof(LINE "Host")},
	{TEXT(LINE HOST ": v\r\n\r\n"), 400, sizeof(LINE HOST)},
	{TEXT(LINE HOST "NoColon\r\n\r\n"), 400, sizeof(LINE HOST "NoColon")},
	{TEXT(LINE HOST "A(b): v\r\n\r\n"), 400, sizeof(LINE HOST "A")},
	{TEXT(LINE HOST "A\xe9: v\r\n\r\n"), 400, sizeof(LINE HOST "A")},
	{TEXT(LINE HOST "A\0: v\r\n\r\n"), 400, sizeof(LINE HOST "A")},
	{TEXT(LINE HOST "X: a\0b\r\n\r\n"), 400, sizeof(LINE HOST "X: a")},
	{TEXT(LINE HOST "X: 0123456789\x01 0123456789\r\n\r\n"), 400,
		sizeof(LINE HOST "X: 0123456789")},
	{TEXT(LINE HOST "X: 0123456789\x7f 0123456789\r\n\r\n"), 400,
		sizeof(LINE HOST "X: 0123456789")},
	{TEXT(LINE HOST "X: a\nY: b\r\n\r\n"), 400, sizeof(LINE HOST "X: a")},
	{TEXT(LINE HOST "X: a\rY: b\r\n\r\n"), 400, sizeof(LINE HOST "X: a\r")},
	{TEXT(LINE HOST "X: a\r\r\n\r\n"), 400, sizeof(LINE HOST "X: a\r")},
	{TEXT(LINE HOST "\n"), 400, sizeof(LINE HOST)},
	{TEXT(LINE HOST "\r\r\n"), 400, sizeof(LINE HOST "\r")},
	/* Host */
	{TEXT(LINE "\r\n"), 400, sizeof(LINE "\r\n") - 1},
	{TEXT(LINE "X-Host: a\r\n\r\n"), 400, 0},
	{TEXT(LINE "Host:\r\n\r\n"), 400, sizeof(LINE "Host:\r\n") - 1},
	{TEXT(LINE "Host: \t \r\n\r\n"), 400, 0},
	{TEXT(LINE HOST HOST "\r\n"), 400, sizeof(LINE HOST HOST) - 1},
	{TEXT(LINE HOST "hOST: b\r\n\r\n"), 400, 0},
	{TEXT(LINE "Host: a b\r\n\r\n"), 400, 0},
	{TEXT(LINE "Host: a/b\r\n\r\n"), 400, 0},
	{TEXT(LINE "Host: u@h\r\n\r\n"), 400, 0},
	{TEXT(LINE "Host: :80\r\n\r\n"), 400, 0},
	{TEXT(LINE "Host: h:8x\r\n\r\n"), 400, 0},
	{TEXT(LINE "Host: h:65536\r\n\r\n"), 400, 0},
	{TEXT(LINE "Host: ::1\r\n\r\n"), 400, 0},
	{TEXT(LINE "Host: [::1\r\n\r\n"), 400, 0},
	{TEXT(LINE "Host: []\r\n\r\n"), 400, 0},
	{TEXT(LINE "Host: [::1]x\r\n\r\n"), 400, 0},
	{TEXT(LINE "Host: \xc3\xa9\r\n\r\n"), 400, 0},
	/* duplicates and bodies */
	{TEXT(LINE HOST UPGRADE "Sec-WebSocket-Key: " KEY "\r\n\r\n"), 400, 0},
	{TEXT(LINE HOST UPGRADE "sec-websocket-version: 13\r\n\r\n"), 400, 0},
	{TEXT(LINE HOST "Origin: a\r\nOrigin: a\r\n\r\n"), 400, 0},
	{TEXT(LINE HOST "Origin:\r\nOrigin:\r\n\r\n"), 400, 0},
	{TEXT(LINE HOST "Content-Length: 0\r\nContent-Length: 0\r\n\r\n"), 400, 0},
	{TEXT(LINE HOST "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400, 0},
	{TEXT(LINE HOST "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n"), 400, 0},
	{TEXT(LINE HOST "Content-Length: -1\r\n\r\n"), 400, 0},
	{TEXT(LINE HOST "Content-Length: +1\r\n\r\n"), 400, 0},
	{TEXT(LINE HOST "Content-Length: 0x1\r\n\r\n"), 400, 0},
	{TEXT(LINE HOST "Content-Length: 1, 1\r\n\r\n"), 400, 0},
	{TEXT(LINE HOST "Content-Length: 1 1\r\n\r\n"), 400, 0},
	{TEXT(LINE HOST "Content-Length:\r\n\r\n"), 400, 0},
};

static void malformed(void **state)
{
	for (size_t i = 0; i < ELEMENTS(bad_heads); i++) {
		const struct bad *b = &bad_heads[i];
		struct http_error err;
		size_t at;
		ssize_t r = parse_both(b->text, b->len, &limits, &err, &at);
		if (r != -EPROTO || err.status != b->status || (b->at && at != b->at))
			fail_msg("case %zu: %zd, status %u (%s) after %zu bytes: %.*s", i, r,
				err.status, err.why, at, (int)b->len, b->text);
		assert_true(err.why[0] != '\0');
	}
}

/* A head of exactly `len` bytes. */
static char *padded_head(size_t len)
{
	static const char before[] = LINE HOST "X: ";
	char *text = malloc(len);
	memset(text, 'x', len);
	memcpy(text, before, sizeof(before) - 1);
	memcpy(text + len - 4, "\r\n\r\n", 4);
	return text;
}

static void limit_of_the_head(void **state)
{
	const struct http_limits lim = {.head_max = 300, .target_max = 100, .headers_max = 8};
	struct http_error err;
	size_t at;

	char *text = padded_head(300);
	assert_int_equal(parse_both(text, 300, &lim, &err, &at), 300);
	free(text);
	text = padded_head(301);
	assert_int_equal(parse_both(text, 301, &lim, &err, &at), -EPROTO);
	assert_int_equal(err.status, 431);
	assert_int_equal(at, 300); /* no longer one could be accepted */
	free(text);
}

static void limit_of_the_target(void **state)
{
	const struct http_limits lim = {.head_max = 8192, .target_max = 10, .headers_max = 8};
	struct http_error err;
	size_t at;

	assert_true(
		parse_both(TEXT("GET /234?678=a HTTP/1.1\r\n" HOST "\r\n"), &lim, &err, &at) > 0);
	assert_int_equal(
		parse_both(TEXT("GET /234?678=ab HTTP/1.1\r\n" HOST "\r\n"), &lim, &err, &at),
		-EPROTO);
	assert_int_equal(err.status, 414);
	assert_int_equal(at, 15);
	/* a percent-encoding across the limit, good and bad */
	assert_int_equal(
		parse_both(TEXT("GET /2345678%20 HTTP/1.1\r\n"), &lim, &err, &at), -EPROTO);
	assert_int_equal(err.status, 414);
	assert_int_equal(
		parse_both(TEXT("GET /2345678%2x HTTP/1.1\r\n"), &lim, &err, &at), -EPROTO);
	assert_int_equal(err.status, 414);
	assert_int_equal(parse_both(TEXT("GET /2345678%x HTTP/1.1\r\n"), &lim, &err, &at), -EPROTO);
	assert_int_equal(err.status, 400);
}

static void limit_of_the_headers(void **state)
{
	const struct http_limits lim = {.head_max = 8192, .target_max = 100, .headers_max = 3};
	struct http_error err;
	size_t at;

	assert_true(parse_both(TEXT(LINE HOST "A: 1\r\nB: 2\r\n\r\n"), &lim, &err, &at) > 0);
	assert_int_equal(
		parse_both(TEXT(LINE HOST "A: 1\r\nB: 2\r\nC: 3\r\n\r\n"), &lim, &err, &at),
		-EPROTO);
	assert_int_equal(err.status, 431);
	assert_int_equal(at, sizeof(LINE HOST "A: 1\r\nB: 2\r\n")); /* its first byte */

	char text[8192] = LINE HOST;
	for (unsigned i = 1; i < HTTP_HEADERS_MAX; i++)
		sprintf(text + strlen(text), "X-%u: %u\r\n", i, i);
	strcat(text, "\r\n");
	assert_int_equal(parse_both(text, strlen(text), &limits, &err, &at), strlen(text));
	strcpy(text + strlen(text) - 2, "Y: 1\r\n\r\n");
	assert_int_equal(parse_both(text, strlen(text), &limits, &err, &at), -EPROTO);
	assert_int_equal(err.status, 431);
}

/* Every byte at every place of a value, so that the fast path is judged against the rule. */
static void every_byte_in_a_value(void **state)
{
	for (unsigned place = 0; place < 20; place++) {
		for (unsigned byte = 0; byte < 256; byte++) {
			char text[] = LINE HOST "X: 01234567890123456789.\r\n\r\n";
			text[sizeof(LINE HOST "X: ") - 1 + place] = (char)byte;
			struct http_request req;
			struct http_error err;
			ssize_t r = http_request_parse(TEXT(text), &limits, &req, &err);
			bool good = byte == '\t' || (byte >= 0x20 && byte != 0x7f);
			assert_int_equal(r, good ? (ssize_t)sizeof(text) - 1 : -EPROTO);
		}
	}
}

static void upgrade_check(void **state)
{
	static const struct {
		const char *head;
		uint16_t status; /* 0: fine */
	} cases[] = {
		{LINE HOST UPGRADE "\r\n", 0},
		{LINE HOST UPGRADE "Content-Length: 0\r\n\r\n", 0},
		{"POST /echo HTTP/1.1\r\n" HOST UPGRADE "\r\n", 405},
		{"get /echo HTTP/1.1\r\n" HOST UPGRADE "\r\n", 405},
		{"GETS /echo HTTP/1.1\r\n" HOST UPGRADE "\r\n", 405},
		{LINE HOST "\r\n", 426},
		{LINE HOST "Connection: Upgrade\r\nSec-WebSocket-Version: "
			   "13\r\nSec-WebSocket-Key: " KEY "\r\n\r\n",
			426},
		{LINE HOST "Upgrade: websockets\r\nConnection: Upgrade\r\n\r\n", 426},
		{LINE HOST "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: " KEY
			   "\r\n\r\n",
			426},
		{LINE HOST "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: "
			   "8\r\n\r\n",
			426},
		{LINE HOST "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: "
			   "13, 8\r\n\r\n",
			426},
		{LINE HOST
			"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " KEY
			"\r\n\r\n",
			400},
		{LINE HOST "Upgrade: websocket\r\nConnection: close, x-upgrade\r\n\r\n", 400},
		{LINE HOST UPGRADE "Content-Length: 5\r\n\r\n", 413},
		{LINE HOST UPGRADE "Transfer-Encoding: chunked\r\n\r\n", 413},
	};
	for (size_t i = 0; i < ELEMENTS(cases); i++) {
		struct http_request req;
		struct http_error err = {0, NULL};
		assert_true(http_request_parse(
				    cases[i].head, strlen(cases[i].head), &limits, &req, &err) > 0);
		assert_int_equal(http_upgrade_check(&req, &err), cases[i].status ? -EPROTO : 0);
		assert_int_equal(err.status, cases[i].status);
	}
}

static void upgrade_keys(void **state)
{
	static const struct {
		const char *key;
		bool good;
	} cases[] = {
		{KEY, true},
		{"AAAAAAAAAAAAAAAAAAAAAA==", true},
		{"+/+/+/+/+/+/+/+/+/+/+w==", true},
		{NULL, false},
		{"", false},
		{"dGhlIHNhbXBsZSBub25jZQ", false},
		{"dGhlIHNhbXBsZSBub25jZQ=", false},
		{"dGhlIHNhbXBsZSBub25jZQ===", false},
		{"dGhlIHNhbXBsZSBub25jZQQ=", false},
		{"dGhlIHNhbXBsZSBub25jZQQQ", false},
		{"dGhlIHNhbXBsZSBub25j==Q=", false},
		{"dGhlIHNhbXBsZSBub25j-_==", false},
		{"dGhlIHNh XBsZSBub25jZQ==", false},
		{"dGhlIHNhbXBsZSBub25jZ\x80==", false},
		{"dGhlIHNhbXBsZSBub25jZSBub25jZQ==", false},
	};
	for (size_t i = 0; i < ELEMENTS(cases); i++) {
		char head[512];
		struct http_request req;
		struct http_error err;
		snprintf(head, sizeof(head),
			LINE HOST "Upgrade: websocket\r\nConnection: "
				  "Upgrade\r\nSec-WebSocket-Version: 13\r\n%s%s%s\r\n",
			cases[i].key ? "Sec-WebSocket-Key: " : "", cases[i].key ? cases[i].key : "",
			cases[i].key ? "\r\n" : "");
		assert_true(http_request_parse(head, strlen(head), &limits, &req, &err) > 0);
		assert_int_equal(http_upgrade_check(&req, &err), cases[i].good ? 0 : -EPROTO);
		if (!cases[i].good)
			assert_int_equal(err.status, 400);
	}
}

static void origins(void **state)
{
	static const char *const list[] = {
		"https://example.com", "https://*.example.org", "http://*.dev.test:8080"};
	static const char *const all[] = {"*"};
	static const char *const allowed[] = {
		"https://example.com",
		"HTTPS://Example.COM",
		"https://a.example.org",
		"https://a.b.Example.org",
		"http://x_1.dev.test:8080",
		"https://xn--bcher-kva.example.org",
	};
	static const char *const refused[] = {
		"",
		"null",
		"http://example.com",
		"https://example.com:8443",
		"https://www.example.com",
		"https://example.com.evil.test",
		"https://example.org",
		"https://.example.org",
		"https://a..example.org",
		"https://evilexample.org",
		"https://evil.test/.example.org",
		"https://evil.test:1.example.org",
		"https://u@a.example.org",
		"http://a.example.org",
		"http://x.dev.test",
		"http://x.dev.test:80800",
		"https://*.example.org.evil.test",
		"https://example.com https://a.example.org",
	};
	for (size_t i = 0; i < ELEMENTS(allowed); i++)
		assert_true(http_origin_allowed(str(allowed[i]), list, ELEMENTS(list)));
	for (size_t i = 0; i < ELEMENTS(refused); i++) {
		if (http_origin_allowed(str(refused[i]), list, ELEMENTS(list)))
			fail_msg("allowed: %s", refused[i]);
		assert_true(http_origin_allowed(str(refused[i]), all, 1));
		assert_true(http_origin_allowed(str(refused[i]), NULL, 0));
	}
	assert_true(http_origin_allowed(str(NULL), list, ELEMENTS(list)));
}

static void subprotocols(void **state)
{
	static const char *const supported[] = {"v2.chat", "v1.chat"};
	static const struct {
		const char *offered, *want;
		bool malformed;
	} cases[] = {
		{NULL, NULL, false},
		{"v1.chat", "v1.chat", false},
		{"x, v1.chat ,v2.chat", "v1.chat", false},
		{"x", NULL, false},
		{"V1.chat", NULL, false},
		{"v1.cha", NULL, false},
		{"v1.chatt", NULL, false},
		{"", NULL, true},
		{",", NULL, true},
		{"v1.chat,", NULL, true},
		{"v1.chat,,x", NULL, true},
		{"v1 chat", NULL, true},
		{"v1.chat, a/b", NULL, true},
		{"\"v1.chat\"", NULL, true},
		{"v1.chat\xc3\xa9", NULL, true},
	};
	struct guard g;
	guard_init(&g, 64);
	for (size_t i = 0; i < ELEMENTS(cases); i++) {
		struct http_str offered = str(cases[i].offered);
		if (offered.data)
			offered.data = (char *)guard_copy(&g, offered.data, offered.len);
		bool bad = !cases[i].malformed;
		assert_str(http_subprotocol_select(offered, supported, ELEMENTS(supported), &bad),
			cases[i].want);
		assert_int_equal(bad, cases[i].malformed);
	}
	guard_fini(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(valid_request),
		cmocka_unit_test(valid_forms),
		cmocka_unit_test(absent_and_empty),
		cmocka_unit_test(malformed),
		cmocka_unit_test(limit_of_the_head),
		cmocka_unit_test(limit_of_the_target),
		cmocka_unit_test(limit_of_the_headers),
		cmocka_unit_test(every_byte_in_a_value),
		cmocka_unit_test(upgrade_check),
		cmocka_unit_test(upgrade_keys),
		cmocka_unit_test(origins),
		cmocka_unit_test(subprotocols),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
