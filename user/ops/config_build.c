#include "ops/config_build.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/auth.h"
#include "base/log.h"
#include "net/conn.h"
#include "ops/config_address.h"
#include "ops/config_text.h"

#define WITH_DEFAULT(choice, def) ((choice) ? *(choice) : (def))

/* Room that a default out queue leaves above the largest message, for the frames around it. */
#define OUT_QUEUE_ROOM    CONFIG_MIB
#define OUT_QUEUE_DEFAULT (17 * CONFIG_MIB)

void config_build_error(struct config_build *b, const char *key, const char *fmt, ...)
{
	char text[CONFIG_ERROR_TEXT_MAX];
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	config_errors_add(b->errors, config_index_find(b->index, key)->line, key, "%s", text);
}

char *config_build_copy(struct config_build *b, const char *text)
{
	char *copy = text ? strdup(text) : NULL;

	if (text && !copy)
		b->out_of_memory = true;
	return copy;
}

static void *zeroed(struct config_build *b, size_t n, size_t size)
{
	void *p = calloc(n ? n : 1, size);

	if (!p)
		b->out_of_memory = true;
	return p;
}

/* A text with its grammar; wrong ones are kept, so that what refers to them is still found. */
static char *text_checked(struct config_build *b, const char *key, const char *text,
	const char *(*grammar)(const char *))
{
	const char *why = text ? grammar(text) : NULL;

	if (why)
		config_build_error(b, key, "\"%s\" %s", text, why);
	return config_build_copy(b, text);
}

static bool in_range(const struct config_rule *rule, uint64_t value)
{
	if (value == 0 && (rule->flags & CONFIG_RULE_ZERO))
		return true;
	if (value < rule->least || value > rule->most)
		return false;
	return !(rule->flags & CONFIG_RULE_POW2) || (value & (value - 1)) == 0;
}

static void store(const struct config_rule *rule, void *dest, uint64_t value)
{
	char *at = (char *)dest + rule->offset;

	if (rule->bytes == sizeof(uint32_t)) {
		assert(value <= UINT32_MAX); /* every such rule ends below it */
		uint32_t narrow = (uint32_t)value;
		memcpy(at, &narrow, sizeof(narrow));
	} else {
		assert(rule->bytes == sizeof(value));
		memcpy(at, &value, sizeof(value));
	}
}

static void build_number(struct config_build *b, const struct config_rule *rule, const char *prefix,
	const char *text, void *dest)
{
	char path[CONFIG_PATH_MAX], range[CONFIG_RANGE_TEXT_MAX];
	uint64_t value = 0;
	const char *why;

	config_index_format(path, "%s%s", prefix, rule->key);
	if (config_unit_parse(rule->unit, text, &value, &why) != 0) {
		config_build_error(b, path, "\"%s\" %s", text, why);
		return;
	}
	if (!in_range(rule, value)) {
		config_rule_range(rule, range);
		config_build_error(b, path, "%s is out of range: %s", text, range);
		return;
	}
	store(rule, dest, value);
}

/* Every number of a mapping; `prefix` is its path with the dot ("routes[2]."), or "". */
static void build_numbers(struct config_build *b, enum config_rule_set set, const char *prefix,
	const void *raw, void *dest)
{
	const struct config_rules *rules = &config_rules[set];

	for (unsigned i = 0; i < rules->n; i++) {
		const struct config_rule *rule = &rules->rule[i];
		char *text;
		memcpy(&text, (const char *)raw + rule->raw_offset, sizeof(text));
		build_number(b, rule, prefix, text ? text : rule->def, dest);
	}
}

static void build_address(struct config_build *b, const char *key, const char *text,
	int (*parse)(const char *, struct config_address *, const char **),
	struct config_address *ret)
{
	const char *why = "";
	int err = parse(text, ret, &why);

	if (err == -ENOMEM)
		b->out_of_memory = true;
	else if (err)
		config_build_error(b, key, "\"%s\" %s", text, why);
}

static void build_strings(struct config_build *b, const char *key, char *const *item, unsigned n,
	const char *(*grammar)(const char *), struct config_strings *ret)
{
	char path[CONFIG_PATH_MAX];

	if (n == 0)
		return;
	ret->item = zeroed(b, n, sizeof(*ret->item));
	if (!ret->item)
		return;
	for (; ret->n < n; ret->n++)
		ret->item[ret->n] = text_checked(
			b, config_index_format(path, "%s[%u]", key, ret->n), item[ret->n], grammar);
}

static void build_user(struct config_build *b, const struct config_raw *raw, struct config *c)
{
	if (!raw->user) {
		c->user = config_build_copy(b, getpwnam("tidegate") ? "tidegate" : "nobody");
		return;
	}
	c->user = text_checked(b, "user", raw->user, config_text_user);
	/* Only root uses the account; others may check a file where it does not exist. */
	if (geteuid() == 0 && !config_text_user(raw->user) && !getpwnam(raw->user))
		config_build_error(b, "user", "there is no user \"%s\"", raw->user);
}

/* Root serves from /run, everybody else from a directory that is theirs. */
static void default_socket(const char *instance, char *path, size_t room)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");

	if (geteuid() == 0)
		snprintf(path, room, "/run/tidegate/%s/admin.sock", instance);
	else if (runtime && *runtime == '/')
		snprintf(path, room, "%s/tidegate/%s/admin.sock", runtime, instance);
	else
		snprintf(path, room, "/tmp/tidegate-%u/%s/admin.sock", (unsigned)geteuid(),
			instance);
}

static void build_admin(struct config_build *b, const struct config_raw *raw, struct config *c)
{
	const char *listen = raw->admin.listen ? raw->admin.listen : "127.0.0.1:9180";
	char path[2 * CONFIG_PATH_MAX];

	c->admin_off = *listen == '\0';
	if (!c->admin_off)
		build_address(b, "admin.listen", listen, config_address_tcp, &c->admin);

	if (raw->admin.socket)
		snprintf(path, sizeof(path), "%s", raw->admin.socket);
	else
		default_socket(raw->instance ? raw->instance : "default", path, sizeof(path));
	if (*path != '/')
		config_build_error(b, "admin.socket", "\"%s\" is not an absolute path", path);
	else if (strlen(path) > CONFIG_UNIX_PATH_MAX)
		config_build_error(b, "admin.socket", "\"%s\" is longer than %d bytes", path,
			(int)CONFIG_UNIX_PATH_MAX);
	c->admin_socket = config_build_copy(b, path);
	if (raw->admin.token_file && *raw->admin.token_file)
		c->admin_token_file = text_checked(
			b, "admin.token_file", raw->admin.token_file, config_text_file);
}

static void build_access_log(
	struct config_build *b, const struct config_raw_access_log *raw, struct config *c)
{
	const char *file = raw->file ? raw->file : "";

	c->access_failures_always = WITH_DEFAULT(raw->failures, true);
	c->access_stderr = !strcmp(file, "stderr");
	if (*file && !c->access_stderr)
		c->access_file = text_checked(b, "access_log.file", file, config_text_file);
}

/* A list of prefixes; what is wrong is left out. */
static struct config_prefix *build_prefixes(
	struct config_build *b, const char *list, char **texts, unsigned n, unsigned *ret_n)
{
	struct config_prefix *out = zeroed(b, n, sizeof(*out));
	char path[CONFIG_PATH_MAX];
	const char *why;

	for (unsigned i = 0; out && i < n; i++) {
		if (config_prefix_parse(texts[i], &out[*ret_n], &why) == 0) {
			(*ret_n)++;
			continue;
		}
		config_index_format(path, "%s[%u]", list, i);
		config_build_error(b, path, "\"%s\" %s", texts[i], why);
	}
	return out;
}

static void build_admission(
	struct config_build *b, const struct config_raw_admission *raw, struct config_admission *a)
{
	char path[CONFIG_PATH_MAX], prefix[CONFIG_PATH_MAX];
	const char *why;

	a->mode = WITH_DEFAULT(raw->mode, CONFIG_ADMISSION_AUTO);
	a->limit_loopback = WITH_DEFAULT(raw->limit_loopback, false);
	a->refuse_reset = WITH_DEFAULT(raw->refuse, false);
	build_strings(b, "admission.interfaces", raw->interfaces, raw->interfaces_count,
		config_text_interface, &a->interfaces);
	a->allow = build_prefixes(b, "admission.allow", raw->allow, raw->allow_count, &a->n_allow);
	a->deny = build_prefixes(b, "admission.deny", raw->deny, raw->deny_count, &a->n_deny);
	a->weights = zeroed(b, raw->weights_count, sizeof(*a->weights));
	for (; a->weights && a->n_weights < raw->weights_count; a->n_weights++) {
		const struct config_raw_weight *w = &raw->weights[a->n_weights];

		config_index_format(prefix, "admission.weights[%u].", a->n_weights);
		build_numbers(b, CONFIG_RULES_WEIGHT, prefix, w, &a->weights[a->n_weights]);
		config_index_format(path, "%sprefix", prefix);
		if (config_prefix_parse(w->prefix, &a->weights[a->n_weights].prefix, &why) != 0)
			config_build_error(b, path, "\"%s\" %s", w->prefix, why);
	}
}

static void build_proxy(struct config_build *b, const char *prefix,
	const struct config_raw_proxy *raw, struct config_listener *l)
{
	char path[CONFIG_PATH_MAX];
	const char *why;

	if (!raw)
		return;
	l->proxy_protocol = true;
	config_index_format(path, "%sproxy_protocol.from", prefix);
	if (raw->from_count == 0)
		config_build_error(b, path, "must name at least one prefix");
	l->proxy_from = zeroed(b, raw->from_count, sizeof(*l->proxy_from));
	if (!l->proxy_from)
		return;
	for (unsigned i = 0; i < raw->from_count; i++) {
		config_index_format(path, "%sproxy_protocol.from[%u]", prefix, i);
		if (config_prefix_parse(raw->from[i], &l->proxy_from[i], &why) != 0)
			config_build_error(b, path, "\"%s\" %s", raw->from[i], why);
	}
	l->n_proxy_from = raw->from_count;
}

static void build_health_path(struct config_build *b, const char *prefix,
	const struct config_raw_listener *raw, struct config_listener *l)
{
	char path[CONFIG_PATH_MAX];
	const char *given = raw->health_path;

	config_index_format(path, "%shealth_path", prefix);
	if (l->protocol == CONFIG_RAW) {
		if (given && *given)
			config_build_error(b, path, "a raw listener has no health path");
		l->health_path = config_build_copy(b, "");
	} else if (!given || *given == '\0')
		l->health_path = config_build_copy(b, given ? "" : "/healthz");
	else
		l->health_path = text_checked(b, path, given, config_text_path);
}

static void build_listener(struct config_build *b, unsigned i,
	const struct config_raw_listener *raw, struct config_listener *l)
{
	char prefix[CONFIG_PATH_MAX], path[CONFIG_PATH_MAX];

	l->line = config_index_find(b->index, config_index_format(path, "listeners[%u]", i))->line;
	config_index_format(prefix, "listeners[%u].", i);
	build_numbers(b, CONFIG_RULES_LISTENER, prefix, raw, l);
	l->name = text_checked(
		b, config_index_format(path, "%sname", prefix), raw->name, config_text_name);
	build_address(b, config_index_format(path, "%saddress", prefix), raw->address,
		config_address_tcp, &l->address);
	l->protocol = WITH_DEFAULT(raw->protocol, CONFIG_WEBSOCKET);
	build_health_path(b, prefix, raw, l);
	build_proxy(b, prefix, raw->proxy_protocol, l);
}

static void build_auth_keys(
	struct config_build *b, const struct config_raw_auth *raw, struct config *c)
{
	c->auth_keys = zeroed(b, raw->keys_count, sizeof(*c->auth_keys));
	for (; c->auth_keys && c->n_auth_keys < raw->keys_count; c->n_auth_keys++) {
		const struct config_raw_auth_key *from = &raw->keys[c->n_auth_keys];
		struct config_auth_key *k = &c->auth_keys[c->n_auth_keys];
		char path[CONFIG_PATH_MAX];

		config_index_format(path, "auth.keys[%u].kid", c->n_auth_keys);
		k->kid = text_checked(b, path, from->kid, config_text_kid);
		config_index_format(path, "auth.keys[%u].file", c->n_auth_keys);
		k->file = text_checked(b, path, from->file, config_text_file);
		k->algorithm = *from->algorithm;
	}
}

static void build_auth(struct config_build *b, const struct config_raw_auth *raw, struct config *c)
{
	build_strings(b, "auth.secrets", raw->secrets, raw->secrets_count, config_text_file,
		&c->auth_secrets);
	build_auth_keys(b, raw, c);
	c->auth_claim = text_checked(
		b, "auth.claim", raw->claim ? raw->claim : "tidegate", config_text_claim);
	if (c->auth_leeway_ms % 1000)
		config_build_error(b, "auth.leeway", "must be whole seconds");
}

static void build_route_auth(struct config_build *b, const char *prefix,
	const struct config_raw_route_auth *raw, struct config_route *r)
{
	char path[CONFIG_PATH_MAX];

	r->auth_type = WITH_DEFAULT(raw->type, AUTH_NONE);
	r->auth_topics_all = WITH_DEFAULT(raw->topics_default, 1);
	r->auth_refresh = WITH_DEFAULT(raw->refresh, false);
	build_strings(b, config_index_format(path, "%sauth.audience", prefix), raw->audience,
		raw->audience_count, config_text_claim, &r->auth_audience);
	r->auth_issuer = text_checked(b, config_index_format(path, "%sauth.issuer", prefix),
		raw->issuer, config_text_claim);
}

static void build_route(struct config_build *b, unsigned i, const struct config_raw_route *raw,
	struct config_route *r)
{
	char prefix[CONFIG_PATH_MAX], path[CONFIG_PATH_MAX];

	r->line = config_index_find(b->index, config_index_format(path, "routes[%u]", i))->line;
	config_index_format(prefix, "routes[%u].", i);
	build_numbers(b, CONFIG_RULES_ROUTE, prefix, raw, r);
	r->listener = config_build_copy(b, raw->listener);
	r->host = text_checked(
		b, config_index_format(path, "%shost", prefix), raw->host, config_text_host);
	r->path = text_checked(
		b, config_index_format(path, "%spath", prefix), raw->path, config_text_route_path);
	r->upstream = config_build_copy(b, raw->upstream);
	build_strings(b, config_index_format(path, "%sorigins", prefix), raw->origins,
		raw->origins_count, config_text_origin, &r->origins);
	build_strings(b, config_index_format(path, "%ssubprotocols", prefix), raw->subprotocols,
		raw->subprotocols_count, config_text_token, &r->subprotocols);
	build_route_auth(b, prefix, &raw->auth, r);
	r->out_policy = WITH_DEFAULT(raw->out_queue.policy, OUT_DISCONNECT);
	if (!raw->out_queue.bytes && r->max_message_bytes + OUT_QUEUE_ROOM > OUT_QUEUE_DEFAULT)
		r->out_queue_bytes = r->max_message_bytes + OUT_QUEUE_ROOM;
}

static void build_balance(
	struct config_build *b, const char *prefix, const char *given, struct config_upstream *u)
{
	static const char hash[] = "hash:";
	char path[CONFIG_PATH_MAX];

	config_index_format(path, "%sbalance", prefix);
	if (!given || strcmp(given, "least-sessions") == 0)
		return;
	if (strncmp(given, hash, strlen(hash)) != 0) {
		config_build_error(b, path, "\"%s\" is not least-sessions or hash:NAME", given);
		return;
	}
	u->balance = CONFIG_HASH;
	u->hash_key = text_checked(b, path, given + strlen(hash), config_text_token);
}

static void build_upstream(struct config_build *b, unsigned i,
	const struct config_raw_upstream *raw, struct config_upstream *u)
{
	char prefix[CONFIG_PATH_MAX], path[CONFIG_PATH_MAX];

	u->line = config_index_find(b->index, config_index_format(path, "upstreams[%u]", i))->line;
	config_index_format(prefix, "upstreams[%u].", i);
	build_numbers(b, CONFIG_RULES_UPSTREAM, prefix, raw, u);
	u->name = text_checked(
		b, config_index_format(path, "%sname", prefix), raw->name, config_text_name);
	u->failover = WITH_DEFAULT(raw->failover, CONFIG_FAILOVER_RESUME);
	build_balance(b, prefix, raw->balance, u);

	if (raw->endpoints_count == 0)
		config_build_error(b, config_index_format(path, "%sendpoints", prefix),
			"must name at least one endpoint");
	u->endpoints = zeroed(b, raw->endpoints_count, sizeof(*u->endpoints));
	if (!u->endpoints)
		return;
	for (; u->n_endpoints < raw->endpoints_count; u->n_endpoints++)
		build_address(b,
			config_index_format(path, "%sendpoints[%u]", prefix, u->n_endpoints),
			raw->endpoints[u->n_endpoints], config_address_endpoint,
			&u->endpoints[u->n_endpoints]);
}

static void build_lists(struct config_build *b, const struct config_raw *raw, struct config *c)
{
	c->listeners = zeroed(b, raw->listeners_count, sizeof(*c->listeners));
	for (; c->listeners && c->n_listeners < raw->listeners_count; c->n_listeners++)
		build_listener(b, c->n_listeners, &raw->listeners[c->n_listeners],
			&c->listeners[c->n_listeners]);

	c->routes = zeroed(b, raw->routes_count, sizeof(*c->routes));
	for (; c->routes && c->n_routes < raw->routes_count; c->n_routes++)
		build_route(b, c->n_routes, &raw->routes[c->n_routes], &c->routes[c->n_routes]);

	c->upstreams = zeroed(b, raw->upstreams_count, sizeof(*c->upstreams));
	for (; c->upstreams && c->n_upstreams < raw->upstreams_count; c->n_upstreams++)
		build_upstream(b, c->n_upstreams, &raw->upstreams[c->n_upstreams],
			&c->upstreams[c->n_upstreams]);
}

void config_build(struct config_build *b, const struct config_raw *raw, struct config *c)
{
	const char *instance = raw->instance ? raw->instance : "default";

	c->instance = text_checked(b, "instance", instance, config_text_name);
	build_user(b, raw, c);
	build_numbers(b, CONFIG_RULES_TOP, "", raw, c);
	c->pin = WITH_DEFAULT(raw->workers.pin, true);
	c->log_level = WITH_DEFAULT(raw->log.level, LOG_LEVEL_INFO);
	c->log_json = WITH_DEFAULT(raw->log.format, false);
	build_access_log(b, &raw->access_log, c);
	build_admin(b, raw, c);
	build_admission(b, &raw->admission, &c->admission);
	build_auth(b, &raw->auth, c);
	build_lists(b, raw, c);
}
