/* A blocking HTTP/1.1 client for the admin socket: one request a connection, the whole answer in
 * memory. */
#ifndef TIDEGATECTL_HTTP_CLIENT_H
#define TIDEGATECTL_HTTP_CLIENT_H

#include <stddef.h>

enum {
	HTTP_SILENCE_S = 10, /* the gateway may wait two seconds for each of its workers' answers */
	HTTP_REPLY_MAX = 256 << 20, /* a list of 100,000 connections is about 35 MB */
};

struct http_reply {
	unsigned status;
	char *body; /* NUL-terminated behind len bytes; inside data */
	size_t len;
	char *data; /* to be freed */
};

/* Sends METHOD TARGET, and body (of a POST; may be NULL), to the Unix socket at path. 0, or -errno:
 * of connecting; -ETIMEDOUT after HTTP_SILENCE_S without a byte; -EPROTO when the answer is
 * malformed or cut short; -EFBIG; -ENAMETOOLONG for path. */
int http_ask(const char *path, const char *method, const char *target, const char *body,
	struct http_reply *ret);

/* Takes an answer apart, all of it in data, which is changed: chunks are joined and data[len]
 * becomes NUL, so data has room for one byte more. Pure. 0 with ret->status, body and len, or
 * -EPROTO. */
int http_reply_parse(char *data, size_t len, struct http_reply *ret);

#endif
