/* proto/jwt: no input makes it read behind a token's end, and a token that passes has the parts it
 * says. Two kinds of input: a token as it stands, and (first byte 'm') header and payload in plain,
 * a NUL between them, which are then encoded. */
#include <stdlib.h>
#include <string.h>

#include "proto/base64url.h"
#include "proto/jwt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
	INPUT_MAX = 4096
};

static void check(bool ok)
{
	if (!ok)
		abort();
}

static void judge(const char *text, size_t len)
{
	static const char *const audiences[] = {"a"};
	const struct jwt_expect expect = {audiences, 1, "b", 10};
	char *copy = malloc(len);
	struct jwt_parts p;

	check(copy || !len);
	if (len)
		memcpy(copy, text, len);
	if (jwt_parse(copy, len, &p) == AUTH_PASSED) {
		json_t *claims = jwt_claims(&p);
		int64_t expires = -1;

		check(p.payload > copy && p.payload + p.payload_len < copy + len);
		check(p.payload[-1] == '.' && p.payload[p.payload_len] == '.');
		check(p.has_kid || !*p.kid);
		if (claims && jwt_claims_check(claims, &expect, 1000, &expires) == AUTH_PASSED)
			check(expires + 10 > 1000);
		json_decref(claims);
	}
	free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char text[2 * INPUT_MAX];
	const uint8_t *nul;
	size_t n;

	if (size > INPUT_MAX)
		return 0;
	judge((const char *)data, size);
	if (!size || data[0] != 'm')
		return 0;
	data++;
	size--;
	nul = memchr(data, 0, size);
	if (!nul)
		return 0;
	n = base64url_encode(text, data, (size_t)(nul - data));
	text[n++] = '.';
	n += base64url_encode(text + n, nul + 1, (size_t)(data + size - nul - 1));
	memcpy(text + n, ".c2ln", 5);
	judge(text, n + 5);
	return 0;
}
