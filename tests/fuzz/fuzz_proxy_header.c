/* proto/proxy_header: a header grown a byte at a time gets the answer of the whole, at one fixed
 * length. Each prefix has a heap block of its own size, so that the address sanitizer sees any look
 * behind it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/proxy_header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
	INPUT_MAX = 1024
}; /* growth is quadratic; longer headers differ in length only */

static void check(bool ok)
{
	if (!ok)
		abort();
}

static ssize_t parse_prefix(
	const uint8_t *data, size_t len, struct proxy_header *ret, const char **ret_why)
{
	uint8_t *copy = malloc(len);
	check(copy || len == 0);
	if (len)
		memcpy(copy, data, len);
	ssize_t r = proxy_header_parse(copy, len, ret, ret_why);
	free(copy);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct proxy_header whole_header, header;
	const char *whole_why = NULL, *why = NULL;
	ssize_t whole, r = 0;

	if (size > INPUT_MAX)
		size = INPUT_MAX;
	whole = parse_prefix(data, size, &whole_header, &whole_why);
	for (size_t n = 0; n <= size && r == 0; n++) {
		r = parse_prefix(data, n, &header, &why);
		check(r <= 0 || (size_t)r == n);
	}
	check(r == whole && why == whole_why && (r < 0) == (why != NULL));
	if (whole > 0) {
		check(header.version == whole_header.version);
		check(header.local == whole_header.local);
		check(!memcmp(&header.peer, &whole_header.peer, sizeof(header.peer)));
		check(!memcmp(&header.dest, &whole_header.dest, sizeof(header.dest)));
		check(header.local || header.peer.sin6_family == AF_INET6);
	}
	return 0;
}
