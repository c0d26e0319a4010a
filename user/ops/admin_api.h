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

struct admin_path {
	const char *path;
	bool post;       /* POST, else GET and HEAD */
	bool local_only; /* on the Unix socket only */
	bool any_query;  /* parameters are ignored: probes and scrapers add their own */
	unsigned keys;   /* enum admin_key */
	size_t body_max; /* 0: takes no body */
	/* Returns the HTTP status and a response, or NULL without memory. */
	unsigned (*answer)(const struct admin_api *api, const struct admin_request *rq,
		struct MHD_Response **ret);
};

/* NULL: no such path there. */
const struct admin_path *admin_path_find(const char *path, bool local);

/* {"error": message} with the given status. */
unsigned admin_error(unsigned status, const char *message, struct MHD_Response **ret);

/* The object or array as the answer; takes the reference, NULL is passed on. */
unsigned admin_json_answer(unsigned status, json_t *j, struct MHD_Response **ret);

/* What a backend's -errno means to who asked. */
unsigned admin_backend_error(int r, struct MHD_Response **ret);

#endif
