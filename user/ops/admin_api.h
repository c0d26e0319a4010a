/* What the admin surface answers, path by path, and nothing of how requests come in (that is
 * admin.c). Admin threads only; each call may block for as long as the backend does. */
#ifndef TIDEGATE_OPS_ADMIN_API_H
#define TIDEGATE_OPS_ADMIN_API_H

#include <jansson.h>
#include <microhttpd.h>
#include <stdbool.h>
#include <sys/socket.h>

#include "ops/admin.h"
#include "ops/admin_events.h"
#include "ops/admin_query.h"
#include "ops/live.h"
#include "ops/process_stats.h"

/* Immutable after the start; shared by all admin threads. */
struct admin_api {
	char *instance, *version;
	struct admin_chat chat;
	char *policy; /* the dashboard's Content-Security-Policy */
	struct admin_token *token;
	struct admin_backend backend;
	struct process_stats_reader process;
	uint64_t started_ns; /* CLOCK_MONOTONIC */
	struct live *live;
	struct admin_events *events;
};

/* 0 or -errno. Opens what reading needs, so that it works on without file access. */
int admin_api_init(struct admin_api *api, const struct admin_opts *opts);
/* Sends away whoever waits for something. Before the threads that ask have ended; then fini, which
 * takes what is half made. */
void admin_api_stop(struct admin_api *api);
void admin_api_fini(struct admin_api *api);

struct admin_request {
	struct admin_query query;
	struct MHD_Connection *connection;
	bool head;         /* HEAD: only the headers of the answer are of use */
	bool local;        /* on the Unix socket */
	struct ucred peer; /* who asks, there */
	const char *body;
	size_t body_len;
};

/* Declares or defines what answers a path: returns the HTTP status and *ret, or *ret NULL without
 * memory. */
#define ADMIN_ANSWER(name)                                                                         \
	unsigned name(const struct admin_api *api, const struct admin_request *rq,                 \
		struct MHD_Response **ret)

struct admin_path {
	const char *path;
	bool post;       /* POST, else GET and HEAD */
	bool local_only; /* on the Unix socket only */
	bool by_token;   /* local_only, but with the token on TCP, too */
	bool any_query;  /* parameters are ignored: probes and scrapers add their own */
	unsigned keys;   /* enum admin_key */
	size_t body_max; /* 0: takes no body */
	unsigned (*answer)(const struct admin_api *api, const struct admin_request *rq,
		struct MHD_Response **ret);
};

/* NULL: no such path there; by_token: nor with the token. */
const struct admin_path *admin_path_find(const char *path, bool local, bool by_token);

enum {
	ADMIN_WHO_MAX = 80,
};

/* Who asks, for the log: "uid 0 (pid 12)", or "the client at 192.0.2.1". */
const char *admin_who(const struct admin_request *rq, char ret[ADMIN_WHO_MAX]);

/* Type of the content, and that nothing keeps it; r may be NULL. */
void admin_headers(struct MHD_Response *r, const char *content_type);
/* Takes text, which is from malloc. NULL without memory. */
struct MHD_Response *admin_text_response(char *text, size_t len, const char *content_type);

/* {"error": message} with the given status. */
unsigned admin_error(unsigned status, const char *message, struct MHD_Response **ret);

/* The object or array as the answer; takes the reference, NULL is passed on. */
unsigned admin_json_answer(unsigned status, json_t *j, struct MHD_Response **ret);

/* What a backend's -errno means to who asked. */
unsigned admin_backend_error(int r, struct MHD_Response **ret);

#endif
