/* proto/http_upgrade: a request head grown a byte at a time gets the answer of the whole, at one
 * fixed length, and what is parsed lies inside the input. Each prefix has a heap block of its own
 * size, so that the address sanitizer sees any look behind it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/http_upgrade.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Small, so that short inputs reach them; and the growth below is quadratic. */
static const struct http_limits limits = {.head_max = 1024, .target_max = 128, .headers_max = 16};

static void check(bool ok)
{
	if (!ok)
		abort();
}

static ssize_t parse_prefix(const uint8_t *data, size_t len, struct http_error *ret_err)
{
	static struct http_request req;
	char *copy = malloc(len);
	check(copy || len == 0);
	if (len)
		memcpy(copy, data, len);
	ssize_t r = http_request_parse(copy, len, &limits, &req, ret_err);
	free(copy);
	return r;
}

static void check_inside(struct http_str s, const char *buf, size_t len)
{
	check(!s.data || (s.data >= buf && s.len <= len && s.data + s.len <= buf + len));
}

static void judge(const struct http_request *req, const char *buf, size_t len)
{
	static const char *const origins[] = {"https://example.com", "https://*.example.com"};
	static const char *const protocols[] = {"chat", "v2.chat"};
	char out[HTTP_RESPONSE_MAX], accept[HTTP_ACCEPT_LEN + 1];
	struct http_error err;
	bool malformed;

	check_inside(req->target, buf, len);
	check_inside(req->path, buf, len);
	check_inside(req->query, buf, len);
	check(req->n_headers <= limits.headers_max && req->target.len <= limits.target_max);
	for (unsigned i = 0; i < req->n_headers; i++) {
		check_inside(req->headers[i].name, buf, len);
		check_inside(req->headers[i].value, buf, len);
		check(req->headers[i].name.len > 0);
	}
	check(req->host.len > 0);
	http_origin_allowed(req->origin, origins, 2);
	struct http_str chosen = http_subprotocol_select(req->protocols, protocols, 2, &malformed);
	check_inside(chosen, buf, len);
	if (http_upgrade_check(req, &err) == 0) {
		http_accept_key(req->key, accept);
		check(strlen(accept) == HTTP_ACCEPT_LEN);
		check(http_upgrade_response(out, accept, NULL) <= sizeof(out));
	} else {
		check(http_response(out, err.status, err.why, 0) <= sizeof(out));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct http_error whole_err = {0, NULL}, err = {0, NULL};
	ssize_t whole, r = 0;

	if (size > limits.head_max + 16)
		size = limits.head_max + 16;
	whole = parse_prefix(data, size, &whole_err);
	for (size_t n = 0; n <= size && r == 0; n++) {
		r = parse_prefix(data, n, &err);
		check(r <= 0 || (size_t)r == n);
	}
	check(r == whole && err.status == whole_err.status && err.why == whole_err.why);
	if (whole > 0) {
		struct http_request req;
		const char *buf = (const char *)data;
		check(http_request_parse(buf, size, &limits, &req, &err) == whole);
		judge(&req, buf, (size_t)whole);
	}
	return 0;
}
