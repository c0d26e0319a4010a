#include "proto/base64url.h"

#include <errno.h>
#include <stdint.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

size_t base64url_encode(char *out, const void *data, size_t len)
{
	const uint8_t *in = data;
	uint32_t bits = 0;
	unsigned held = 0;
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		bits = bits << 8 | in[i];
		for (held += 8; held >= 6; held -= 6)
			out[n++] = alphabet[bits >> (held - 6) & 63];
	}
	if (held)
		out[n++] = alphabet[bits << (6 - held) & 63];
	return n;
}

static int value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '-' ? 62 : c == '_' ? 63 : -1;
}

ssize_t base64url_decode(void *out, size_t room, const char *text, size_t len)
{
	uint8_t *p = out;
	uint32_t bits = 0;
	unsigned held = 0;
	size_t n = 0;

	if (len % 4 == 1)
		return -EPROTO;
	for (size_t i = 0; i < len; i++) {
		int v = value(text[i]);

		if (v < 0)
			return -EPROTO;
		bits = bits << 6 | (uint32_t)v;
		held += 6;
		if (held < 8)
			continue;
		held -= 8;
		if (n == room)
			return -EPROTO;
		p[n++] = (uint8_t)(bits >> held);
	}
	return bits & ((1u << held) - 1) ? -EPROTO : (ssize_t)n;
}
