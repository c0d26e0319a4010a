#include "ops/admin_api.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "ops/admin_conns.h"
#include "ops/admin_dashboard.h"
#include "ops/admin_gate.h"
#include "ops/admin_json.h"
#include "ops/admin_page.h"
#include "ops/admin_views.h"
#include "ops/metrics.h"
#include "proto/utf8.h"

static const char no_answer[] = "a worker did not answer within 2 s";

static uint64_t monotonic_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

int admin_api_init(struct admin_api *api, const struct admin_opts *opts)
{
	size_t len;

	process_stats_init(&api->process);
	/* Reads the system's random device, which a confined process may no longer open. */
	json_object_seed(0);
	api->started_ns = monotonic_ns();
	api->backend = opts->backend;
	api->token = opts->token;
	api->instance = strdup(opts->instance);
	api->version = strdup(opts->version);
	int r = admin_chat_init(&api->chat, opts->hubs, opts->n_hubs);
	if (!r)
		r = admin_page_policy(admin_dashboard_page(&len), "", &api->policy);
	api->events = admin_events_create();
	if (!r && (!api->instance || !api->version || !api->events))
		r = -ENOMEM;
	if (!r)
		r = live_start(&(struct live_opts){.instance = api->instance,
				       .version = api->version,
				       .started_ns = api->started_ns,
				       .backend = &api->backend,
				       .process = &api->process,
				       .notify = admin_events_notify,
				       .ctx = api->events},
			&api->live);
	if (!r)
		admin_events_attach(api->events, api->live);
	return r;
}

void admin_api_stop(struct admin_api *api)
{
	live_stop(api->live);
	if (api->events)
		admin_events_stop(api->events);
}

void admin_api_fini(struct admin_api *api)
{
	admin_events_destroy(api->events);
	live_destroy(api->live);
	process_stats_fini(&api->process);
	admin_chat_fini(&api->chat);
	free(api->policy);
	free(api->instance);
	free(api->version);
	api->instance = api->version = NULL;
}

void admin_headers(struct MHD_Response *r, const char *content_type)
{
	if (!r)
		return;
	MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
	MHD_add_response_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
}

struct MHD_Response *admin_text_response(char *text, size_t len, const char *content_type)
{
	struct MHD_Response *r = MHD_create_response_from_buffer(len, text, MHD_RESPMEM_MUST_FREE);

	if (!r)
		free(text);
	admin_headers(r, content_type);
	return r;
}

unsigned admin_json_answer(unsigned status, json_t *j, struct MHD_Response **ret)
{
	char *dump = j ? json_dumps(j, JSON_INDENT(1)) : NULL, *line = NULL;
	int len = dump ? asprintf(&line, "%s\n", dump) : -1;

	json_decref(j);
	free(dump);
	*ret = len < 0 ? NULL : admin_text_response(line, (size_t)len, "application/json");
	return status;
}

unsigned admin_error(unsigned status, const char *message, struct MHD_Response **ret)
{
	return admin_json_answer(status, admin_json_error(message), ret);
}

const char *admin_who(const struct admin_request *rq, char ret[ADMIN_WHO_MAX])
{
	const union MHD_ConnectionInfo *info;
	char host[INET6_ADDRSTRLEN] = "?";

	if (rq->local) {
		snprintf(ret, ADMIN_WHO_MAX, "uid %u (pid %d)", (unsigned)rq->peer.uid,
			(int)rq->peer.pid);
		return ret;
	}
	info = MHD_get_connection_info(rq->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	if (info)
		getnameinfo(info->client_addr,
			info->client_addr->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
								 : sizeof(struct sockaddr_in),
			host, sizeof(host), NULL, 0, NI_NUMERICHOST);
	snprintf(ret, ADMIN_WHO_MAX, "the client at %s", host);
	return ret;
}

unsigned admin_backend_error(int r, struct MHD_Response **ret)
{
	if (r == -ETIMEDOUT)
		return admin_error(MHD_HTTP_GATEWAY_TIMEOUT, no_answer, ret);
	return admin_error(MHD_HTTP_INTERNAL_SERVER_ERROR, strerror(-r), ret);
}

/* A copy of every worker's counters, so that an answer is of one moment; NULL without memory. */
static struct tg_worker_stats *copy_stats(const struct admin_api *api)
{
	const struct admin_backend *b = &api->backend;
	struct tg_worker_stats *copy =
		aligned_alloc(_Alignof(struct tg_worker_stats), (b->n_workers + 1) * sizeof(*copy));

	for (unsigned i = 0; copy && i < b->n_workers; i++)
		copy[i] = *b->stats(b->ctx, i);
	return copy;
}

/* NULL: not measured, or without memory. */
static struct hist *copy_waits(const struct admin_api *api)
{
	const struct admin_backend *b = &api->backend;
	struct hist *copy = b->cpu_wait ? calloc(b->n_workers + 1, sizeof(*copy)) : NULL;

	for (unsigned i = 0; copy && i < b->n_workers; i++) {
		if (!b->cpu_wait(b->ctx, i, &copy[i]))
			continue;
		free(copy);
		copy = NULL;
	}
	return copy;
}

static unsigned answer_metrics(
	const struct admin_api *api, const struct admin_request *rq, struct MHD_Response **ret)
{
	const struct admin_backend *b = &api->backend;
	struct tg_worker_stats *workers = copy_stats(api);
	if (!workers)
		return admin_backend_error(-ENOMEM, ret);
	struct link_info *links = NULL;
	struct metrics_input in = {
		.version = api->version,
		.workers = workers,
		.n_workers = b->n_workers,
	};
	struct admin_route *routes = calloc(b->n_routes + 1, sizeof(*routes));
	for (unsigned i = 0; routes && i < b->n_routes; i++, in.n_routes++)
		b->route(b->ctx, i, &routes[i]);
	in.routes = routes;
	/* A worker that hangs must not hide the counters that show it. */
	in.links_unknown = b->links(b->ctx, &links, &in.n_links) < 0;
	in.links = links;
	struct tg_verdict_count kernel[TG_VERDICT_COUNT];
	b->gate(b->ctx, &in.gate);
	in.kernel = b->verdicts && !b->verdicts(b->ctx, kernel) ? kernel : NULL;
	struct hist *waits = copy_waits(api);
	in.cpu_wait = waits;
	in.share = b->share ? b->share(b->ctx) : 0;
	process_stats_read(&api->process, &in.process);

	char *text;
	size_t len;
	int r = metrics_render(&in, &text, &len);
	free(workers);
	free(waits);
	free(routes);
	free(links);
	if (r < 0)
		return admin_backend_error(r, ret);
	*ret = admin_text_response(text, len, METRICS_CONTENT_TYPE);
	return MHD_HTTP_OK;
}

static unsigned plain_answer(unsigned status, const char *text, struct MHD_Response **ret)
{
	char *line;
	int len = asprintf(&line, "%s\n", text);

	*ret = len < 0 ? NULL : admin_text_response(line, (size_t)len, "text/plain; charset=utf-8");
	return status;
}

static unsigned answer_healthz(
	const struct admin_api *api, const struct admin_request *rq, struct MHD_Response **ret)
{
	return plain_answer(MHD_HTTP_OK, "ok", ret);
}

static bool ready(const struct admin_api *api, const char **ret_why_not)
{
	const char *why = NULL;
	bool yes = api->backend.ready(api->backend.ctx, &why);

	*ret_why_not = why ? why : "not ready";
	return yes;
}

static unsigned answer_readyz(
	const struct admin_api *api, const struct admin_request *rq, struct MHD_Response **ret)
{
	const char *why;

	if (ready(api, &why))
		return plain_answer(MHD_HTTP_OK, "ready", ret);
	return plain_answer(MHD_HTTP_SERVICE_UNAVAILABLE, why, ret);
}

static unsigned answer_status(
	const struct admin_api *api, const struct admin_request *rq, struct MHD_Response **ret)
{
	const struct admin_backend *b = &api->backend;
	struct tg_worker_stats *workers = copy_stats(api);
	if (!workers)
		return admin_backend_error(-ENOMEM, ret);
	struct link_info *links = NULL;
	struct admin_status status = {
		.instance = api->instance,
		.version = api->version,
		.pid = getpid(),
		.uptime_s = (int64_t)((monotonic_ns() - api->started_ns) / 1000000000u),
		.workers = workers,
		.n_workers = b->n_workers,
	};
	status.ready = ready(api, &status.not_ready_reason);
	/* The status is wanted most when something hangs: it comes without links then. */
	int r = b->links(b->ctx, &links, &status.n_links);
	if (r < 0)
		status.links_error = r == -ETIMEDOUT ? no_answer : strerror(-r);
	status.links = links;
	b->gate(b->ctx, &status.gate);

	unsigned code = admin_json_answer(MHD_HTTP_OK, admin_json_status(&status), ret);
	free(links);
	free(workers);
	return code;
}

static unsigned answer_workers(
	const struct admin_api *api, const struct admin_request *rq, struct MHD_Response **ret)
{
	struct tg_worker_stats *workers = copy_stats(api);
	if (!workers)
		return admin_backend_error(-ENOMEM, ret);
	struct hist *waits = copy_waits(api);
	unsigned code = admin_json_answer(
		MHD_HTTP_OK, admin_json_workers(workers, waits, api->backend.n_workers), ret);
	free(workers);
	free(waits);
	return code;
}

static unsigned answer_conns(
	const struct admin_api *api, const struct admin_request *rq, struct MHD_Response **ret)
{
	struct conn_info *conns = NULL;
	size_t n = 0, matched = 0;
	int r = api->backend.conns(api->backend.ctx, &rq->query.kick.which, &conns, &n, &matched);
	if (r < 0)
		return admin_backend_error(r, ret);
	*ret = admin_conns_response(conns, n, matched);
	admin_headers(*ret, "application/json");
	return MHD_HTTP_OK;
}

static unsigned answer_links(
	const struct admin_api *api, const struct admin_request *rq, struct MHD_Response **ret)
{
	struct link_info *links = NULL;
	size_t n = 0;
	int r = api->backend.links(api->backend.ctx, &links, &n);
	if (r < 0)
		return admin_backend_error(r, ret);
	unsigned code = admin_json_answer(MHD_HTTP_OK, admin_json_links(links, n), ret);
	free(links);
	return code;
}

static unsigned answer_kick(
	const struct admin_api *api, const struct admin_request *rq, struct MHD_Response **ret)
{
	const struct admin_query *q = &rq->query;
	bool by_session = q->given & ADMIN_KEY_SESSION, by_route = q->given & ADMIN_KEY_ROUTE;
	if (by_session == by_route)
		return admin_error(MHD_HTTP_BAD_REQUEST, "give either session or route", ret);

	size_t kicked = 0;
	int r = api->backend.kick(api->backend.ctx, &q->kick, &kicked);
	if (r < 0)
		return admin_backend_error(r, ret);
	if (by_session && !kicked)
		return admin_error(MHD_HTTP_NOT_FOUND, "no such session", ret);
	if (by_session)
		log_info("admin", "uid %u (pid %d) kicked session %" PRIu64, (unsigned)rq->peer.uid,
			(int)rq->peer.pid, q->kick.which.session);
	else
		log_info("admin", "uid %u (pid %d) kicked the %zu session(s) of route %s",
			(unsigned)rq->peer.uid, (int)rq->peer.pid, kicked, q->kick.which.route);
	json_t *o = json_pack("{s:I}", "kicked", (json_int_t)kicked);
	return admin_json_answer(MHD_HTTP_OK, o, ret);
}

static unsigned answer_topics(
	const struct admin_api *api, const struct admin_request *rq, struct MHD_Response **ret)
{
	struct topics_query q = {.limit = rq->query.kick.which.limit};
	struct topic_info *topics = NULL;
	size_t n = 0, matched = 0;

	strcpy(q.prefix, rq->query.prefix);
	int r = api->backend.topics(api->backend.ctx, &q, &topics, &n, &matched);
	if (r < 0)
		return admin_backend_error(r, ret);
	unsigned code = admin_json_answer(MHD_HTTP_OK, admin_json_topics(topics, n, matched), ret);
	free(topics);
	return code;
}

static unsigned answer_publish(
	const struct admin_api *api, const struct admin_request *rq, struct MHD_Response **ret)
{
	const char *topic = rq->query.topic;

	if (!*topic)
		return admin_error(MHD_HTTP_BAD_REQUEST, "give the topic", ret);
	if (!utf8_valid((const uint8_t *)rq->body, rq->body_len))
		return admin_error(MHD_HTTP_BAD_REQUEST, "the data must be UTF-8", ret);
	int r = api->backend.publish(api->backend.ctx, topic, rq->body, rq->body_len);
	if (r == -ENOBUFS)
		return admin_error(MHD_HTTP_SERVICE_UNAVAILABLE,
			"too many publications are waiting already", ret);
	if (r < 0)
		return admin_backend_error(r, ret);
	log_info("admin", "uid %u (pid %d) published %zu bytes to %s", (unsigned)rq->peer.uid,
		(int)rq->peer.pid, rq->body_len, topic);
	return admin_json_answer(MHD_HTTP_OK, json_pack("{s:b}", "published", 1), ret);
}

static unsigned answer_drain(
	const struct admin_api *api, const struct admin_request *rq, struct MHD_Response **ret)
{
	int r = api->backend.drain(api->backend.ctx);
	if (r < 0 && r != -EALREADY)
		return admin_backend_error(r, ret);
	log_info("admin", "drain asked for by uid %u (pid %d)%s", (unsigned)rq->peer.uid,
		(int)rq->peer.pid, r < 0 ? "; it was under way" : "");
	return admin_json_answer(MHD_HTTP_ACCEPTED, json_pack("{s:b}", "draining", 1), ret);
}

static const struct admin_path paths[] = {
	{.path = "/", .any_query = true, .answer = admin_dashboard_show},
	{.path = "/v1/page.json", .any_query = true, .answer = admin_page_show},
	{.path = "/chat", .any_query = true, .answer = admin_chat_show},
	{.path = "/v1/hub.json", .any_query = true, .answer = admin_hub_show},
	{.path = "/metrics", .any_query = true, .answer = answer_metrics},
	{.path = "/healthz", .any_query = true, .answer = answer_healthz},
	{.path = "/readyz", .any_query = true, .answer = answer_readyz},
	{.path = "/v1/live", .answer = admin_live_show},
	{.path = "/v1/events", .answer = admin_events_show},
	{.path = "/v1/status", .local_only = true, .answer = answer_status},
	{.path = "/v1/workers", .local_only = true, .answer = answer_workers},
	{
		.path = "/v1/conns",
		.local_only = true,
		.keys = ADMIN_KEY_LIMIT | ADMIN_KEY_ROUTE | ADMIN_KEY_LISTENER | ADMIN_KEY_PEER |
			ADMIN_KEY_SESSION | ADMIN_KEY_SLOW,
		.answer = answer_conns,
	},
	{.path = "/v1/links", .local_only = true, .answer = answer_links},
	{
		.path = "/v1/kick",
		.post = true,
		.local_only = true,
		.keys = ADMIN_KEY_SESSION | ADMIN_KEY_ROUTE | ADMIN_KEY_CODE | ADMIN_KEY_REASON,
		.answer = answer_kick,
	},
	{
		.path = "/v1/topics",
		.local_only = true,
		.keys = ADMIN_KEY_LIMIT | ADMIN_KEY_PREFIX,
		.answer = answer_topics,
	},
	{
		.path = "/v1/publish",
		.post = true,
		.local_only = true,
		.keys = ADMIN_KEY_TOPIC,
		.body_max = ADMIN_PUBLISH_MAX,
		.answer = answer_publish,
	},
	{.path = "/v1/gate", .local_only = true, .answer = admin_gate_show},
	{
		.path = "/v1/sources",
		.local_only = true,
		.keys = ADMIN_KEY_LIMIT,
		.answer = admin_sources_show,
	},
	{
		.path = "/v1/why",
		.local_only = true,
		.keys = ADMIN_KEY_PEER,
		.answer = admin_why_show,
	},
	{
		.path = "/v1/gate/set",
		.post = true,
		.local_only = true,
		.by_token = true,
		.keys = ADMIN_KEY_WORD | ADMIN_KEY_RATE,
		.answer = admin_gate_set,
	},
	{.path = "/v1/sample", .local_only = true, .answer = admin_sample_show},
	{
		.path = "/v1/sample/set",
		.post = true,
		.local_only = true,
		.keys = ADMIN_KEY_PERCENT,
		.answer = admin_sample_set,
	},
#define LIST(name)                                                                                 \
	{                                                                                          \
		.path = "/v1/" #name,                                                              \
		.local_only = true,                                                                \
		.by_token = true,                                                                  \
		.answer = admin_##name##_show,                                                     \
	},                                                                                         \
		{                                                                                  \
			.path = "/v1/" #name "/add",                                               \
			.post = true,                                                              \
			.local_only = true,                                                        \
			.by_token = true,                                                          \
			.keys = ADMIN_KEY_SOURCE,                                                  \
			.answer = admin_##name##_add,                                              \
		},                                                                                 \
	{                                                                                          \
		.path = "/v1/" #name "/del", .post = true, .local_only = true, .by_token = true,   \
		.keys = ADMIN_KEY_SOURCE, .answer = admin_##name##_del,                            \
	}
	LIST(allow),
	LIST(deny),
#undef LIST
	{.path = "/v1/drain", .post = true, .local_only = true, .answer = answer_drain},
};

const struct admin_path *admin_path_find(const char *path, bool local, bool by_token)
{
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		if (!strcmp(paths[i].path, path) &&
			(local || !paths[i].local_only || (by_token && paths[i].by_token)))
			return &paths[i];
	return NULL;
}
