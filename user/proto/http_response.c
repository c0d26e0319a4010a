/* What the gateway answers to a handshake: the second half of proto/http_upgrade.h. */
#include <assert.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "proto/http_upgrade.h"

enum {
	KEY_LEN = 24, /* base64 of 16 bytes, RFC 6455 4.1 */
	SHA1_LEN = 20,
	WHY_MAX = 512, /* ours: more of a reason is not sent, so that it fits a response */
};

/* Fetched once: OpenSSL's own look-up at each use takes a lock that all threads share. */
static EVP_MD *sha1;
static pthread_once_t sha1_once = PTHREAD_ONCE_INIT;

static void sha1_fetch(void)
{
	sha1 = EVP_MD_fetch(NULL, "SHA1", NULL);
}

void http_accept_key(struct http_str key, char out[HTTP_ACCEPT_LEN + 1])
{
	static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; /* RFC 6455 1.3 */
	char text[KEY_LEN + sizeof(guid) - 1];
	uint8_t digest[SHA1_LEN];

	assert(key.len == KEY_LEN);
	memcpy(text, key.data, KEY_LEN);
	memcpy(text + KEY_LEN, guid, sizeof(guid) - 1);
	pthread_once(&sha1_once, sha1_fetch);
	out[0] = '\0'; /* without memory for a digest the answer is empty, and the client refuses it
			*/
	if (sha1 && EVP_Digest(text, sizeof(text), digest, NULL, sha1, NULL))
		EVP_EncodeBlock((unsigned char *)out, digest, sizeof(digest));
}

static char *put(char *p, const char *text)
{
	size_t len = strlen(text);
	memcpy(p, text, len);
	return p + len;
}

/* A service may name the protocol, and must not be able to write headers with it. */
static bool protocol_valid(const char *protocol)
{
	static const char tchars[] = "!#$%&'*+-.^_`|~0123456789"
				     "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
	size_t len = strspn(protocol, tchars);
	return len > 0 && len <= HTTP_PROTOCOL_MAX && protocol[len] == '\0';
}

size_t http_upgrade_response(char out[HTTP_RESPONSE_MAX], const char *accept, const char *protocol)
{
	char *p = out;

	assert(strlen(accept) <= HTTP_ACCEPT_LEN);
	p = put(p, "HTTP/1.1 101 Switching Protocols\r\n"
		   "Upgrade: websocket\r\n"
		   "Connection: Upgrade\r\n"
		   "Sec-WebSocket-Accept: ");
	p = put(p, accept);
	if (protocol && protocol_valid(protocol)) {
		p = put(p, "\r\nSec-WebSocket-Protocol: ");
		p = put(p, protocol);
	}
	p = put(p, "\r\n\r\n");
	return (size_t)(p - out);
}

static const char *reason_phrase(uint16_t status)
{
	static const struct {
		uint16_t status;
		const char *phrase;
	} known[] = {
		{200, "OK"},
		{400, "Bad Request"},
		{401, "Unauthorized"},
		{403, "Forbidden"},
		{404, "Not Found"},
		{405, "Method Not Allowed"},
		{408, "Request Timeout"},
		{413, "Content Too Large"},
		{414, "URI Too Long"},
		{426, "Upgrade Required"},
		{429, "Too Many Requests"},
		{431, "Request Header Fields Too Large"},
		{500, "Internal Server Error"},
		{502, "Bad Gateway"},
		{503, "Service Unavailable"},
		{505, "HTTP Version Not Supported"},
	};
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (known[i].status == status)
			return known[i].phrase;
	return ""; /* it may be empty, RFC 9112 4 */
}

size_t http_response(
	char out[HTTP_RESPONSE_MAX], uint16_t status, const char *why, unsigned retry_after_s)
{
	int why_len = (int)strnlen(why, WHY_MAX);
	char extra[64] = "";

	if (status < 200 || status > 599) /* not a final answer: whoever chose it failed */
		status = 500;
	if (status == 405)
		strcpy(extra, "Allow: GET\r\n");
	else if (status == 401) /* without one it is no 401, RFC 9110 15.5.2 */
		strcpy(extra, "WWW-Authenticate: Bearer realm=\"tidegate\"\r\n");
	else if (status == 426)
		strcpy(extra, "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n");
	else if ((status == 429 || status == 503) && retry_after_s > 0)
		snprintf(extra, sizeof(extra), "Retry-After: %u\r\n", retry_after_s);

	/* An Upgrade header is named in Connection, RFC 9110 7.8. */
	int n = snprintf(out, HTTP_RESPONSE_MAX,
		"HTTP/1.1 %u %s\r\n"
		"Connection: close%s\r\n"
		"%s"
		"Content-Type: text/plain; charset=utf-8\r\n"
		"Content-Length: %d\r\n"
		"\r\n"
		"%.*s\n",
		status, reason_phrase(status), status == 426 ? ", Upgrade" : "", extra, why_len + 1,
		why_len, why);
	assert(n > 0 && n < HTTP_RESPONSE_MAX);
	return (size_t)n;
}
