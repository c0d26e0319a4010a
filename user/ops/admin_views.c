#include "ops/admin_views.h"

#include <errno.h>
#include <stdio.h>

#include "ops/admin_dashboard.h"

static unsigned gateway_ends(struct MHD_Response **ret)
{
	return admin_error(MHD_HTTP_SERVICE_UNAVAILABLE, "the gateway ends", ret);
}

ADMIN_ANSWER(admin_live_show)
{
	struct live_snapshot *s;
	int r = live_get(api->live, &s);
	char *line;

	if (r == -ETIMEDOUT)
		return admin_error(
			MHD_HTTP_GATEWAY_TIMEOUT, "no snapshot was made within 3 s", ret);
	if (r < 0)
		return gateway_ends(ret);
	int len = asprintf(&line, "%s\n", s->json);
	live_snapshot_put(s);
	*ret = len < 0 ? NULL : admin_text_response(line, (size_t)len, "application/json");
	return MHD_HTTP_OK;
}

ADMIN_ANSWER(admin_events_show)
{
	int r = 0;

	/* Of an answer without an end MHD would send the end after HEAD. */
	if (rq->head)
		*ret = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
	else
		r = admin_events_open(api->events, rq->connection, rq->local, ret);
	if (r == -EBUSY)
		return admin_error(MHD_HTTP_SERVICE_UNAVAILABLE,
			"too many viewers already; /v1/live answers once", ret);
	if (r == -ESHUTDOWN)
		return gateway_ends(ret);
	if (r < 0)
		return admin_backend_error(r, ret);
	admin_headers(*ret, "text/event-stream; charset=utf-8");
	return MHD_HTTP_OK;
}

static struct MHD_Response *page_response(const char *page, size_t len, const char *policy)
{
	struct MHD_Response *r = MHD_create_response_from_buffer(
		len, (void *)(uintptr_t)page, MHD_RESPMEM_PERSISTENT);

	admin_headers(r, "text/html; charset=utf-8");
	if (r) {
		MHD_add_response_header(r, "Content-Security-Policy", policy);
		MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
		MHD_add_response_header(r, "Referrer-Policy", "no-referrer");
	}
	return r;
}

ADMIN_ANSWER(admin_dashboard_show)
{
	size_t len;
	const char *page = admin_dashboard_page(&len);

	*ret = page_response(page, len, api->policy);
	return MHD_HTTP_OK;
}

/* What the dashboard offers besides what it shows. */
ADMIN_ANSWER(admin_page_show)
{
	bool actions = !rq->local && api->token && admin_token_is_set(api->token);

	return admin_json_answer(MHD_HTTP_OK,
		json_pack("{s:b, s:b}", "chat", api->chat.count > 0, "actions", actions), ret);
}

ADMIN_ANSWER(admin_chat_show)
{
	size_t len;
	const char *page = admin_chat_page(&len);

	if (!api->chat.count)
		return admin_error(MHD_HTTP_NOT_FOUND,
			"no WebSocket route goes to the hub: the chat page has nowhere to connect "
			"to",
			ret);
	*ret = page_response(page, len, api->chat.policy);
	return MHD_HTTP_OK;
}

ADMIN_ANSWER(admin_hub_show)
{
	char *text;
	int len = asprintf(&text, "%s\n", api->chat.hubs);

	*ret = len < 0 ? NULL : admin_text_response(text, (size_t)len, "application/json");
	return MHD_HTTP_OK;
}
