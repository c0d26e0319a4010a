#include "handshake.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "proto/raw.h"

/* The example of RFC 6455 1.3: a key need not differ from connection to connection, and a fixed one
 * has a known answer. */
static const char key[] = "dGhlIHNhbXBsZSBub25jZQ==";
static const char accept_of_key[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

size_t handshake_request(
	uint8_t out[HANDSHAKE_REQUEST_MAX], const char *host, const char *path, const char *token)
{
	int n = snprintf((char *)out, HANDSHAKE_REQUEST_MAX,
		"GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
		"Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n%s%s%s\r\n",
		path, host, key, *token ? "Authorization: Bearer " : "", token,
		*token ? "\r\n" : "");
	return n > 0 && n < HANDSHAKE_REQUEST_MAX ? (size_t)n : 0;
}

size_t handshake_hello(uint8_t out[HANDSHAKE_REQUEST_MAX], const char *path, const char *token)
{
	size_t path_len = strlen(path), token_len = strlen(token);

	if (path_len > TG_RAW_PATH_MAX)
		return 0;
	size_t n = raw_header_write(out, TG_RAW_HELLO, (uint32_t)(2 + path_len + token_len));
	out[n++] = TG_RAW_VERSION;
	out[n++] = (uint8_t)path_len;
	memcpy(out + n, path, path_len);
	memcpy(out + n + path_len, token, token_len);
	return n + path_len + token_len;
}

/* True when a line of the head is `name: value`, name without regard to case. */
static bool line_is(const char *line, size_t len, const char *name, const char *value)
{
	size_t name_len = strlen(name), value_len = strlen(value);

	if (len <= name_len || strncasecmp(line, name, name_len) || line[name_len] != ':')
		return false;
	line += name_len + 1;
	len -= name_len + 1;
	while (len && (*line == ' ' || *line == '\t')) {
		line++;
		len--;
	}
	while (len && (line[len - 1] == ' ' || line[len - 1] == '\t'))
		len--;
	return len == value_len && !memcmp(line, value, len);
}

ssize_t handshake_answer(const char *buf, size_t len, const char **ret_why, unsigned *ret_status)
{
	static const char status_line[] = "HTTP/1.1 ";
	const char *end = memmem(buf, len, "\r\n\r\n", 4);
	bool accepted = false;

	if (!end && len < HANDSHAKE_ANSWER_MAX)
		return 0;
	*ret_status = 0;
	if (!end || end - buf < 12 || memcmp(buf, status_line, sizeof status_line - 1)) {
		*ret_why = "the answer to the handshake is not HTTP/1.1";
		return -EPROTO;
	}
	*ret_status = (unsigned)strtoul(buf + sizeof status_line - 1, NULL, 10);
	if (*ret_status != 101) {
		*ret_why = "the handshake was refused";
		return -EPROTO;
	}
	for (const char *line = buf; line < end;) {
		const char *eol = memmem(line, (size_t)(end + 2 - line), "\r\n", 2);
		if (line_is(line, (size_t)(eol - line), "Sec-WebSocket-Accept", accept_of_key))
			accepted = true;
		line = eol + 2;
	}
	if (!accepted) {
		*ret_why = "Sec-WebSocket-Accept is missing or wrong";
		return -EPROTO;
	}
	return end + 4 - buf;
}
