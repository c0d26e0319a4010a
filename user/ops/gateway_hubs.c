/* Which routes a browser page can reach the hub by. */
#include "ops/gateway_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint16_t port_of(const struct config_listener *l)
{
	return ntohs(l->address.addr.ss_family == AF_INET6
			     ? ((const struct sockaddr_in6 *)&l->address.addr)->sin6_port
			     : ((const struct sockaddr_in *)&l->address.addr)->sin_port);
}

/* A page knows neither a balancer's header, nor the names that a route with a host answers to, nor
 * a token. */
static bool reachable(
	const struct config_route *r, const struct config_listener *l, unsigned listener)
{
	return r->upstream_index == CONFIG_UPSTREAM_HUB && !r->host && r->auth_type == AUTH_NONE &&
	       (r->listener_index < 0 || r->listener_index == (int)listener) &&
	       l->protocol == CONFIG_WEBSOCKET && !l->proxy_protocol;
}

/* The shortest path that the route matches. */
static char *path_of(const struct config_route *r)
{
	size_t len = strlen(r->path);

	if (len >= 2 && !strcmp(r->path + len - 2, "/*"))
		len -= len > 2 ? 2 : 1; /* every path: "/" */
	return strndup(r->path, len);
}

int gateway_hubs(const struct config *cfg, struct admin_hub **ret, unsigned *ret_n)
{
	struct admin_hub *hubs = calloc(cfg->n_routes * cfg->n_listeners + 1, sizeof *hubs);
	unsigned n = 0;

	if (!hubs)
		return -ENOMEM;
	for (unsigned i = 0; i < cfg->n_routes; i++) {
		for (unsigned k = 0; k < cfg->n_listeners; k++) {
			if (!reachable(&cfg->routes[i], &cfg->listeners[k], k))
				continue;
			hubs[n].port = port_of(&cfg->listeners[k]);
			hubs[n].path = path_of(&cfg->routes[i]);
			if (!hubs[n++].path) {
				gateway_hubs_free(hubs, n);
				return -ENOMEM;
			}
		}
	}
	*ret = hubs;
	*ret_n = n;
	return 0;
}

void gateway_hubs_free(struct admin_hub *hubs, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		free((void *)hubs[i].path);
	free(hubs);
}
