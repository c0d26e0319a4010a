#include "ops/admin_chat.h"

#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/admin_page.h"

ADMIN_PAGE(chat_page, "user/ops/chat/chat.html");

const char *admin_chat_page(size_t *ret_len)
{
	*ret_len = (size_t)(chat_page_end - chat_page);
	return chat_page;
}

static bool port_before(const struct admin_hub *hubs, unsigned i)
{
	for (unsigned k = 0; k < i; k++)
		if (hubs[k].port == hubs[i].port)
			return true;
	return false;
}

/* The host of the hubs' ports is whatever name the browser knows this machine by. */
static int make_policy(const struct admin_hub *hubs, unsigned n, char **ret)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);
	int err;

	if (!f)
		return -ENOMEM;
	for (unsigned i = 0; i < n; i++)
		if (!port_before(hubs, i))
			fprintf(f, " ws://*:%u", hubs[i].port);
	err = fclose(f) ? -ENOMEM : admin_page_policy(chat_page, text, ret);
	free(text);
	return err;
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
