/* The HTTP side of the admin surface: one libmicrohttpd daemon per listening descriptor, with two
 * threads each, so that one request that waits for a worker does not keep the next one from being
 * answered. */
#include "ops/admin.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "ops/admin_api.h"

enum {
	THREADS = 2,
	TCP_CONNECTIONS_MAX = 64,
	/* Each may hold a list of ADMIN_CONNS_LIMIT_MAX connections. */
	LOCAL_CONNECTIONS_MAX = 16,
	IDLE_TIMEOUT_S =
		10, /* also for a client that stops in the middle of a request or an answer */
	CONNECTION_BYTES = 16384, /* request line, headers and the answer's headers */
};

/* One listening descriptor. */
struct door {
	struct admin *admin;
	struct MHD_Daemon *daemon; /* NULL: not open */
	int fd;
	bool local;
};

struct admin {
	struct admin_api api;
	uid_t allowed_uid;
	struct admin_token *token; /* NULL: none */
	struct door tcp, local;
};

/* A request whose headers were seen, and what has come of its body. */
struct upload {
	size_t len;
	bool too_large;
	char data[];
};

static enum MHD_Result queue(struct MHD_Connection *c, unsigned status, struct MHD_Response *r)
{
	if (!r)
		return MHD_NO; /* without memory for an answer the connection ends */
	enum MHD_Result queued = MHD_queue_response(c, status, r);
	MHD_destroy_response(r);
	return queued;
}

static enum MHD_Result queue_error(struct MHD_Connection *c, unsigned status, const char *message)
{
	struct MHD_Response *r;
	admin_error(status, message, &r);
	return queue(c, status, r);
}

/* The socket's mode keeps strangers out already; this also holds when somebody loosened it. */
static bool peer_allowed(const struct door *d, struct MHD_Connection *c, struct ucred *ret)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
	socklen_t len = sizeof(*ret);

	if (!info || getsockopt(info->connect_fd, SOL_SOCKET, SO_PEERCRED, ret, &len) < 0)
		return false;
	return ret->uid == 0 || ret->uid == d->admin->allowed_uid;
}

static enum MHD_Result refuse_peer(struct MHD_Connection *c, const struct ucred *peer)
{
	struct MHD_Response *r;

	log_warn("admin", "uid %u (pid %d) refused on the admin socket", (unsigned)peer->uid,
		(int)peer->pid);
	admin_error(MHD_HTTP_FORBIDDEN, "only root and the gateway's own user may ask here", &r);
	if (r)
		MHD_add_response_header(r, MHD_HTTP_HEADER_CONNECTION, "close");
	return queue(c, MHD_HTTP_FORBIDDEN, r);
}

static bool token_fits(const struct door *d, struct MHD_Connection *c)
{
	return admin_token_fits(d->admin->token,
		MHD_lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_AUTHORIZATION));
}

static enum MHD_Result refuse_token(struct MHD_Connection *c)
{
	const struct admin_request rq = {.connection = c};
	struct MHD_Response *r;
	char who[ADMIN_WHO_MAX];

	log_warn("admin", "%s refused: the token is missing or wrong", admin_who(&rq, who));
	admin_error(MHD_HTTP_UNAUTHORIZED, "give the token of admin.token_file", &r);
	if (r)
		MHD_add_response_header(r, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
	return queue(c, MHD_HTTP_UNAUTHORIZED, r);
}

static enum MHD_Result refuse_method(struct MHD_Connection *c, const struct admin_path *p)
{
	struct MHD_Response *r;
	const char *allowed = p->post ? "POST" : "GET, HEAD";
	char message[64];

	snprintf(message, sizeof(message), "%s takes %s", p->path, allowed);
	admin_error(MHD_HTTP_METHOD_NOT_ALLOWED, message, &r);
	if (r)
		MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, allowed);
	return queue(c, MHD_HTTP_METHOD_NOT_ALLOWED, r);
}

static bool method_fits(const struct admin_path *p, const char *method)
{
	if (p->post)
		return !strcmp(method, MHD_HTTP_METHOD_POST);
	return !strcmp(method, MHD_HTTP_METHOD_GET) || !strcmp(method, MHD_HTTP_METHOD_HEAD);
}

static bool has_body(struct MHD_Connection *c)
{
	const char *len =
		MHD_lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);

	return (len && strcmp(len, "0")) ||
	       MHD_lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_TRANSFER_ENCODING);
}

struct query_walk {
	struct admin_query *query;
	unsigned keys;
	char error[ADMIN_ERROR_MAX];
};

static enum MHD_Result take_parameter(void *cls, enum MHD_ValueKind kind, const char *key,
	size_t key_len, const char *value, size_t value_len)
{
	struct query_walk *w = cls;

	return admin_query_set(w->query, w->keys, key, key_len, value, value_len, w->error) < 0
		       ? MHD_NO
		       : MHD_YES;
}

static enum MHD_Result answer(struct door *d, struct MHD_Connection *c, const struct admin_path *p,
	const struct ucred *peer, bool head, const struct upload *body)
{
	struct admin_request rq = {.connection = c,
		.head = head,
		.local = d->local,
		.peer = *peer,
		.body = body->data,
		.body_len = body->len};
	struct query_walk walk = {.query = &rq.query, .keys = p->keys};

	admin_query_init(&rq.query);
	if (!p->any_query)
		MHD_get_connection_values_n(c, MHD_GET_ARGUMENT_KIND, take_parameter, &walk);
	if (walk.error[0])
		return queue_error(c, MHD_HTTP_BAD_REQUEST, walk.error);

	struct MHD_Response *r = NULL;
	unsigned status = p->answer(&d->admin->api, &rq, &r);
	return queue(c, status, r);
}

static void take_body(struct upload *up, const struct admin_path *p, const char *data, size_t len)
{
	if (len > p->body_max - up->len) {
		up->too_large = true;
		return;
	}
	memcpy(up->data + up->len, data, len);
	up->len += len;
}

static void on_completed(
	void *cls, struct MHD_Connection *c, void **con_cls, enum MHD_RequestTerminationCode why)
{
	free(*con_cls);
	*con_cls = NULL;
}

/* Called at least twice a request: when the headers are there, and when the body, which only some
 * paths take, has ended. */
static enum MHD_Result on_request(void *cls, struct MHD_Connection *c, const char *url,
	const char *method, const char *version, const char *upload_data, size_t *upload_data_size,
	void **con_cls)
{
	struct door *d = cls;
	struct ucred peer = {0};

	if (d->local && !peer_allowed(d, c, &peer))
		return refuse_peer(c, &peer);
	bool actions = d->admin->token && admin_token_is_set(d->admin->token);
	const struct admin_path *p = admin_path_find(url, d->local, actions);
	if (!p)
		return queue_error(c, MHD_HTTP_NOT_FOUND,
			!d->local && admin_path_find(url, true, false)
				? "this path is served on the admin socket only"
				: "no such path");
	if (!d->local && p->local_only && !token_fits(d, c))
		return refuse_token(c);
	if (!method_fits(p, method))
		return refuse_method(c, p);
	if (has_body(c) && !p->body_max)
		return queue_error(c, MHD_HTTP_BAD_REQUEST, "requests take no body");
	struct upload *up = *con_cls;
	if (!up) {
		*con_cls = calloc(1, sizeof(*up) + p->body_max);
		return *con_cls ? MHD_YES : MHD_NO;
	}
	if (*upload_data_size) {
		take_body(up, p, upload_data, *upload_data_size);
		*upload_data_size = 0;
		return MHD_YES;
	}
	if (up->too_large)
		return queue_error(c, MHD_HTTP_CONTENT_TOO_LARGE, "the body is too large");
	return answer(d, c, p, &peer, !strcmp(method, MHD_HTTP_METHOD_HEAD), up);
}

/* Mostly clients that went away; of interest to whoever debugs the admin surface. */
__attribute__((format(printf, 2, 0))) static void on_log(void *cls, const char *fmt, va_list args)
{
	char line[256];

	vsnprintf(line, sizeof(line), fmt, args);
	line[strcspn(line, "\r\n")] = '\0';
	log_debug("admin", "%s", line);
}

/* MHD closes the descriptor it is given in some failures and not in others, and close() must not
 * hit somebody else's: it gets a copy of its own. */
static int door_open(struct door *d)
{
	if (d->fd < 0)
		return 0;
	int copy = fcntl(d->fd, F_DUPFD_CLOEXEC, 0);
	if (copy < 0)
		return -errno;

	/* poll, since descriptor numbers may be above what select can take; ITC for
	 * MHD_quiesce_daemon; suspending for streams of events. */
	unsigned flags = MHD_USE_POLL_INTERNAL_THREAD | MHD_USE_ITC | MHD_USE_ERROR_LOG |
			 MHD_ALLOW_SUSPEND_RESUME;
	unsigned connections = d->local ? LOCAL_CONNECTIONS_MAX : TCP_CONNECTIONS_MAX;
	struct MHD_OptionItem options[] = {
		{MHD_OPTION_EXTERNAL_LOGGER, (intptr_t)on_log, NULL},
		{MHD_OPTION_LISTEN_SOCKET, copy, NULL},
		{MHD_OPTION_THREAD_POOL_SIZE, THREADS, NULL},
		{MHD_OPTION_CONNECTION_LIMIT, connections, NULL},
		{MHD_OPTION_CONNECTION_TIMEOUT, IDLE_TIMEOUT_S, NULL},
		{MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_BYTES, NULL},
		{MHD_OPTION_NOTIFY_COMPLETED, (intptr_t)on_completed, NULL},
		{MHD_OPTION_END, 0, NULL},
	};
	d->daemon = MHD_start_daemon(
		flags, 0, NULL, NULL, on_request, d, MHD_OPTION_ARRAY, options, MHD_OPTION_END);
	return d->daemon ? 0 : -ENOMEM;
}

/* MHD_stop_daemon alone would shut the listening socket down, and with it the copies that other
 * processes hold. */
static void door_close(struct door *d)
{
	if (d->daemon) {
		int copy = MHD_quiesce_daemon(d->daemon);
		MHD_stop_daemon(d->daemon);
		close(copy);
		d->daemon = NULL;
	}
	if (d->fd >= 0)
		close(d->fd);
	d->fd = -1;
}

int admin_start(const struct admin_opts *opts, struct admin **ret)
{
	struct admin *a = calloc(1, sizeof(*a));
	if (!a) {
		if (opts->listen_fd >= 0)
			close(opts->listen_fd);
		if (opts->socket_fd >= 0)
			close(opts->socket_fd);
		return -ENOMEM;
	}
	a->tcp = (struct door){.admin = a, .fd = opts->listen_fd};
	a->local = (struct door){.admin = a, .fd = opts->socket_fd, .local = true};
	a->allowed_uid = opts->allowed_uid;
	a->token = opts->token;

	int r = admin_api_init(&a->api, opts);
	if (!r)
		r = door_open(&a->tcp);
	if (!r)
		r = door_open(&a->local);
	if (r < 0) {
		admin_stop(a);
		return r;
	}
	*ret = a;
	return 0;
}

void admin_stop(struct admin *a)
{
	if (!a)
		return;
	admin_api_stop(&a->api);
	door_close(&a->tcp);
	door_close(&a->local);
	admin_api_fini(&a->api);
	free(a);
}
