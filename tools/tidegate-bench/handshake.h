/* The client's side of a connection's beginning: the request sent and the judgement of the answer.
 * Pure; any thread. */
#ifndef TIDEGATE_BENCH_HANDSHAKE_H
#define TIDEGATE_BENCH_HANDSHAKE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
	HANDSHAKE_REQUEST_MAX = 3072, /* a token of 2048 included */
	HANDSHAKE_ANSWER_MAX = 4096,  /* longer heads of an answer are refused */
};

/* Writes the upgrade request, the same for every connection; token: "" for none. Returns its
 * length, or 0 when host and path are too long. */
size_t handshake_request(
	uint8_t out[HANDSHAKE_REQUEST_MAX], const char *host, const char *path, const char *token);

/* Writes a tg-raw HELLO. Returns its length, or 0 when the path is too long. */
size_t handshake_hello(uint8_t out[HANDSHAKE_REQUEST_MAX], const char *path, const char *token);

/* Judges the answer to handshake_request(): >0 length of its head, frames may follow; 0 need more;
 * -EPROTO with *ret_why, which is static, and *ret_status, the HTTP status or 0. */
ssize_t handshake_answer(const char *buf, size_t len, const char **ret_why, unsigned *ret_status);

#endif
