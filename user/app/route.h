/* Which route a request takes: listener, host and path. Pure; any thread. */
#ifndef TIDEGATE_APP_ROUTE_H
#define TIDEGATE_APP_ROUTE_H

#include <stddef.h>

#include "proto/http_upgrade.h"

struct auth_policy;

struct route {
	int listener;     /* index, or -1: any */
	const char *host; /* NULL: any; "*.example.com": any sub-domain; compared
			     case-insensitively, without port */
	const char *
		path; /* exact; a trailing slash star matches the path before it and all below it */
	const char *const *origins; /* allowed Origins; none: all */
	size_t n_origins;
	const char *const *subprotocols;
	size_t n_subprotocols;
	unsigned upstream;              /* index of the worker's upstreams */
	const struct auth_policy *auth; /* app/auth.h; NULL: anybody may come */
};

/* The index of the best match: an exact path before a prefix, a longer prefix before a shorter one,
 * a named host before any host, then the order of the table; or -1. */
int route_match(const struct route *routes, size_t n, int listener, struct http_str host,
	struct http_str path);

#endif
