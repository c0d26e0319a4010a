#include <string.h>
#include <strings.h>

#include "app/auth.h"
#include "ops/config_address.h"
#include "ops/config_build.h"

/* Names that routes may give as upstream and that are no entry of upstreams[]. */
static bool is_builtin(const char *name)
{
	return strcmp(name, "echo") == 0 || strcmp(name, "hub") == 0;
}

static bool same_text(const char *a, const char *b)
{
	return a && b && strcmp(a, b) == 0;
}

static void check_listener(struct config_build *b, const struct config *c, unsigned i)
{
	const struct config_listener *l = &c->listeners[i];
	char path[CONFIG_PATH_MAX];

	config_index_format(path, "listeners[%u].name", i);
	for (unsigned j = 0; j < i; j++)
		if (same_text(l->name, c->listeners[j].name)) {
			config_build_error(
				b, path, "\"%s\" is already the name of listeners[%u]", l->name, j);
			break;
		}

	config_index_format(path, "listeners[%u].address", i);
	for (unsigned j = 0; j < i; j++)
		if (config_address_equal(&l->address, &c->listeners[j].address)) {
			config_build_error(b, path, "%s is already the address of listeners[%u]",
				l->address.text, j);
			break;
		}
	if (config_address_equal(&l->address, &c->admin))
		config_build_error(
			b, path, "%s is already the address of admin.listen", l->address.text);
}

static void resolve_listener(
	struct config_build *b, const struct config *c, unsigned i, struct config_route *r)
{
	char path[CONFIG_PATH_MAX];

	r->listener_index = -1;
	if (!r->listener)
		return;
	for (unsigned j = 0; j < c->n_listeners && r->listener_index < 0; j++)
		if (same_text(r->listener, c->listeners[j].name))
			r->listener_index = (int)j;
	config_index_format(path, "routes[%u].listener", i);
	if (r->listener_index < 0)
		config_build_error(b, path, "there is no listener \"%s\"", r->listener);
}

static void resolve_upstream(
	struct config_build *b, const struct config *c, unsigned i, struct config_route *r)
{
	char path[CONFIG_PATH_MAX];

	r->upstream_index = CONFIG_UPSTREAM_ECHO;
	if (!r->upstream || strcmp(r->upstream, "echo") == 0)
		return;
	if (strcmp(r->upstream, "hub") == 0) {
		r->upstream_index = CONFIG_UPSTREAM_HUB;
		return;
	}
	for (unsigned j = 0; j < c->n_upstreams && r->upstream_index < 0; j++)
		if (same_text(r->upstream, c->upstreams[j].name))
			r->upstream_index = (int)j;
	config_index_format(path, "routes[%u].upstream", i);
	if (r->upstream_index < 0)
		config_build_error(b, path, "there is no upstream \"%s\"", r->upstream);
}

static void check_hub(struct config_build *b, const struct config_route *r, unsigned i)
{
	char path[CONFIG_PATH_MAX];
	const struct config_node *route =
		config_index_find(b->index, config_index_format(path, "routes[%u]", i));

	if (r->upstream_index == CONFIG_UPSTREAM_HUB || !config_index_child(b->index, route, "hub"))
		return;
	config_index_format(path, "routes[%u].hub", i);
	config_build_error(b, path, "only of use with upstream hub");
}

/* True when no WebSocket client can come by this route; false while its listener is unknown. */
static bool is_raw_only(const struct config *c, const struct config_route *r)
{
	if (r->listener)
		return r->listener_index >= 0 &&
		       c->listeners[r->listener_index].protocol == CONFIG_RAW;
	for (unsigned j = 0; j < c->n_listeners; j++)
		if (c->listeners[j].protocol != CONFIG_RAW)
			return false;
	return c->n_listeners > 0;
}

static void check_raw_only(struct config_build *b, const struct config_route *r, unsigned i)
{
	const struct {
		const char *key;
		bool given;
	} of_websocket[] = {
		{"host", r->host != NULL},
		{"origins", r->origins.n > 0},
		{"subprotocols", r->subprotocols.n > 0},
	};
	char path[CONFIG_PATH_MAX];

	for (size_t k = 0; k < sizeof(of_websocket) / sizeof(*of_websocket); k++) {
		if (!of_websocket[k].given)
			continue;
		config_index_format(path, "routes[%u].%s", i, of_websocket[k].key);
		config_build_error(b, path,
			"only WebSocket clients send one; this route has raw listeners only");
	}
}

static bool same_host(const char *a, const char *b)
{
	return a == b || (a && b && strcasecmp(a, b) == 0);
}

static void check_route_twin(
	struct config_build *b, const struct config *c, const struct config_route *r, unsigned i)
{
	char path[CONFIG_PATH_MAX];

	config_index_format(path, "routes[%u].path", i);
	for (unsigned j = 0; j < i; j++) {
		const struct config_route *o = &c->routes[j];
		bool same_listener = r->listener && o->listener
					     ? same_text(r->listener, o->listener)
					     : r->listener == o->listener;
		if (same_listener && same_host(r->host, o->host) && same_text(r->path, o->path)) {
			config_build_error(b, path,
				"\"%s\" is already taken by routes[%u], with the same listener and "
				"host",
				r->path, j);
			return;
		}
	}
}

static void check_repeats(struct config_build *b, const struct config_strings *s, const char *list)
{
	char path[CONFIG_PATH_MAX];

	for (unsigned i = 1; i < s->n; i++)
		for (unsigned j = 0; j < i; j++)
			if (same_text(s->item[i], s->item[j])) {
				config_index_format(path, "%s[%u]", list, i);
				config_build_error(b, path, "\"%s\" is given twice", s->item[i]);
				break;
			}
}

static void check_auth_keys(struct config_build *b, const struct config *c)
{
	char path[CONFIG_PATH_MAX];

	check_repeats(b, &c->auth_secrets, "auth.secrets");
	for (unsigned i = 1; i < c->n_auth_keys; i++)
		for (unsigned j = 0; j < i; j++) {
			const char *kid = c->auth_keys[i].kid, *other = c->auth_keys[j].kid;

			if (kid != other && !same_text(kid, other))
				continue;
			config_index_format(path, "auth.keys[%u].kid", i);
			if (kid)
				config_build_error(b, path,
					"\"%s\" is already the kid of auth.keys[%u]", kid, j);
			else
				config_build_error(b, path,
					"is missing, as in auth.keys[%u]; one key may do without",
					j);
			break;
		}
}

static void check_route_auth(
	struct config_build *b, const struct config *c, const struct config_route *r, unsigned i)
{
	const struct {
		const char *key;
		bool given;
	} of_jwt[] = {{"audience", r->auth_audience.n > 0}, {"issuer", r->auth_issuer != NULL}};
	char path[CONFIG_PATH_MAX];

	config_index_format(path, "routes[%u].auth.type", i);
	if (r->auth_type == AUTH_TOKEN && !c->auth_secrets.n)
		config_build_error(b, path, "token needs a file in auth.secrets");
	if (r->auth_type == AUTH_JWT && !c->n_auth_keys)
		config_build_error(b, path, "jwt needs a key in auth.keys");
	for (size_t k = 0; k < sizeof(of_jwt) / sizeof(*of_jwt); k++)
		if (of_jwt[k].given && r->auth_type != AUTH_JWT) {
			config_index_format(path, "routes[%u].auth.%s", i, of_jwt[k].key);
			config_build_error(b, path, "only tokens of type jwt have one");
		}
	config_index_format(path, "routes[%u].auth.refresh", i);
	if (r->auth_refresh && r->auth_type == AUTH_NONE)
		config_build_error(b, path, "there is no token to refresh without auth.type");
	for (unsigned k = 0; k < r->subprotocols.n; k++) {
		config_index_format(path, "routes[%u].subprotocols[%u]", i, k);
		if (r->subprotocols.item[k] && !strncmp(r->subprotocols.item[k], AUTH_SUBPROTOCOL,
						       strlen(AUTH_SUBPROTOCOL)))
			config_build_error(b, path, "\"%s\" would be taken for a client's token",
				r->subprotocols.item[k]);
	}
}

static void check_route(struct config_build *b, const struct config *c, unsigned i)
{
	struct config_route *r = &c->routes[i];
	char path[CONFIG_PATH_MAX], most[CONFIG_UNIT_TEXT_MAX];

	resolve_listener(b, c, i, r);
	resolve_upstream(b, c, i, r);
	check_route_twin(b, c, r, i);
	check_route_auth(b, c, r, i);
	check_hub(b, r, i);
	if (is_raw_only(c, r))
		check_raw_only(b, r, i);

	config_index_format(path, "routes[%u].subprotocols", i);
	check_repeats(b, &r->subprotocols, path);

	config_index_format(path, "routes[%u].out_queue.bytes", i);
	if (r->out_queue_bytes && r->out_queue_bytes < r->max_message_bytes) {
		config_unit_format(CONFIG_UNIT_BYTES, r->max_message_bytes, most);
		config_build_error(b, path,
			"must not be below max_message_size (%s), or such a message could never be "
			"sent",
			most);
	}
}

static void check_endpoints(struct config_build *b, const struct config_upstream *u, unsigned i)
{
	char path[CONFIG_PATH_MAX];

	for (unsigned e = 1; e < u->n_endpoints; e++)
		for (unsigned o = 0; o < e; o++)
			if (config_address_equal(&u->endpoints[e], &u->endpoints[o])) {
				config_index_format(path, "upstreams[%u].endpoints[%u]", i, e);
				config_build_error(
					b, path, "%s is given twice", u->endpoints[e].text);
				break;
			}
}

/* `low` must not be above `high`; 0 is a value that was refused already. */
static void check_order(struct config_build *b, const char *mapping, const char *low_key,
	uint64_t low, const char *high_key, uint64_t high)
{
	char path[CONFIG_PATH_MAX];

	if (!low || !high || low <= high)
		return;
	config_index_format(path, "%s%s", mapping, low_key);
	config_build_error(b, path, "must not be above %s", high_key);
}

static void check_upstream(struct config_build *b, const struct config *c, unsigned i)
{
	const struct config_upstream *u = &c->upstreams[i];
	char path[CONFIG_PATH_MAX];

	config_index_format(path, "upstreams[%u].name", i);
	if (u->name && is_builtin(u->name))
		config_build_error(b, path, "\"%s\" is the name of a built-in upstream", u->name);
	for (unsigned j = 0; j < i; j++)
		if (same_text(u->name, c->upstreams[j].name)) {
			config_build_error(
				b, path, "\"%s\" is already the name of upstreams[%u]", u->name, j);
			break;
		}

	check_endpoints(b, u, i);
	config_index_format(path, "upstreams[%u].", i);
	check_order(b, path, "session_window", u->session_window, "link_window", u->link_window);
	check_order(b, path, "reconnect.min", u->reconnect_min_ms, "reconnect.max",
		u->reconnect_max_ms);
}

void config_check(struct config_build *b, struct config *c)
{
	if (c->n_listeners == 0)
		config_build_error(b, "listeners", "must have at least one entry");
	if (c->n_routes == 0)
		config_build_error(b, "routes", "must have at least one entry");
	check_auth_keys(b, c);
	check_order(b, "workers.", "turn", c->turn_us, "slice", c->slice_us);
	check_repeats(b, &c->admission.interfaces, "admission.interfaces");
	check_order(b, "admission.", "penalty", c->admission.penalty_ms, "penalty_max",
		c->admission.penalty_max_ms);
	check_order(b, "admission.", "memory_low_percent", c->admission.memory_low_percent,
		"memory_high_percent", c->admission.memory_high_percent);
	check_order(b, "admission.", "rate_floor", c->admission.rate_floor, "rate_ceiling",
		c->admission.rate_ceiling);

	for (unsigned i = 0; i < c->n_listeners; i++)
		check_listener(b, c, i);
	for (unsigned i = 0; i < c->n_routes; i++)
		check_route(b, c, i);
	for (unsigned i = 0; i < c->n_upstreams; i++)
		check_upstream(b, c, i);
}
