#include "ops/admin_chat.h"

#include <errno.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The path is the build's: make runs the compiler at the top, and rebuilds this file with it. */
__asm__(".pushsection .rodata\n"
	".hidden chat_page, chat_page_end\n"
	".globl chat_page, chat_page_end\n"
	"chat_page:\n"
	".incbin \"user/ops/chat/chat.html\"\n"
	"chat_page_end:\n"
	".byte 0\n" /* text functions may read it */
	".popsection\n");

extern const char chat_page[] __attribute__((visibility("hidden")));
extern const char chat_page_end[] __attribute__((visibility("hidden")));

enum {
	DIGEST_BYTES = 32,
	HASH_MAX = 4 * (DIGEST_BYTES + 2) / 3 + 1, /* base64 */
};

const char *admin_chat_page(size_t *ret_len)
{
	*ret_len = (size_t)(chat_page_end - chat_page);
	return chat_page;
}

/* base64(SHA-256) of what stands between a tag and its end, as browsers compute it. */
static int inline_hash(const char *open, const char *close, char ret[HASH_MAX])
{
	uint8_t digest[DIGEST_BYTES];
	const char *from = strstr(chat_page, open), *to = from ? strstr(from, close) : NULL;

	if (!to)
		return -EINVAL;
	from += strlen(open);
	if (!EVP_Digest(from, (size_t)(to - from), digest, NULL, EVP_sha256(), NULL))
		return -ENOMEM;
	EVP_EncodeBlock((unsigned char *)ret, digest, sizeof(digest));
	return 0;
}

static bool port_before(const struct admin_hub *hubs, unsigned i)
{
	for (unsigned k = 0; k < i; k++)
		if (hubs[k].port == hubs[i].port)
			return true;
	return false;
}

/* Nothing may be loaded, and nobody talked to but this listener and the hubs' ports. The host of
 * those is whatever name the browser knows this machine by. */
static int make_policy(const struct admin_hub *hubs, unsigned n, char **ret)
{
	char script[HASH_MAX], style[HASH_MAX];
	char *text = NULL;
	size_t len;

	int err = inline_hash("<script>", "</script>", script);
	if (!err)
		err = inline_hash("<style>", "</style>", style);
	if (err)
		return err;
	FILE *f = open_memstream(&text, &len);
	if (!f)
		return -ENOMEM;
	fprintf(f, "default-src 'none'; script-src 'sha256-%s'; style-src 'sha256-%s'; ", script,
		style);
	fputs("img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
	      "connect-src 'self'",
		f);
	for (unsigned i = 0; i < n; i++)
		if (!port_before(hubs, i))
			fprintf(f, " ws://*:%u", hubs[i].port);
	if (fclose(f)) {
		free(text);
		return -ENOMEM;
	}
	*ret = text;
	return 0;
}

static char *make_list(const struct admin_hub *hubs, unsigned n)
{
	json_t *list = json_array(), *o = json_pack("{s:o}", "hubs", list);

	for (unsigned i = 0; i < n; i++)
		json_array_append_new(
			list, json_pack("{s:s, s:i}", "path", hubs[i].path, "port", hubs[i].port));
	char *text = o && json_array_size(list) == n ? json_dumps(o, JSON_COMPACT) : NULL;
	json_decref(o);
	return text;
}

int admin_chat_init(struct admin_chat *c, const struct admin_hub *hubs, unsigned n)
{
	c->count = n;
	c->hubs = make_list(hubs, n);
	return c->hubs ? make_policy(hubs, n, &c->policy) : -ENOMEM;
}

void admin_chat_fini(struct admin_chat *c)
{
	free(c->hubs);
	free(c->policy);
	*c = (struct admin_chat){0};
}
