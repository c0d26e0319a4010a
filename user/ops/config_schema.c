#include <stdio.h>

#include "app/auth.h"
#include "base/log.h"
#include "core/crypto.h"
#include "core/worker.h"
#include "net/conn.h"
#include "ops/config.h"
#include "ops/config_raw.h"
#include "proto/http_upgrade.h"
#include "tidegate/link.h"

#define OPTIONAL        CYAML_FLAG_OPTIONAL
#define REQUIRED        CYAML_FLAG_DEFAULT
#define OPTIONAL_LIST   (CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL)
#define REQUIRED_LIST   CYAML_FLAG_POINTER
#define OPTIONAL_CHOICE (CYAML_FLAG_STRICT | CYAML_FLAG_OPTIONAL)

#define TEXT(key, flags, type) CYAML_FIELD_STRING_PTR(#key, flags, type, key, 0, CYAML_UNLIMITED)
#define CHOICE(key, type, choices)                                                                 \
	CYAML_FIELD_ENUM_PTR(#key, OPTIONAL_CHOICE, type, key, choices, CYAML_ARRAY_LEN(choices))
/* How many are needed is checked with the values, so that it is told together with the other
 * errors. */
#define LIST(key, flags, type, entry, most)                                                        \
	CYAML_FIELD_SEQUENCE(#key, flags, type, key, entry, 0, most)
#define NUMBER_(section, key, member, unit, flags, def, least, most)                               \
	TEXT(key, OPTIONAL, struct config_raw_##section),

static const cyaml_strval_t booleans[] = {{"true", 1}, {"false", 0}};
static const cyaml_strval_t levels[] = {{"error", LOG_LEVEL_ERROR}, {"warn", LOG_LEVEL_WARN},
	{"info", LOG_LEVEL_INFO}, {"debug", LOG_LEVEL_DEBUG}};
static const cyaml_strval_t formats[] = {{"human", 0}, {"json", 1}};
static const cyaml_strval_t failures[] = {{"always", 1}, {"sampled", 0}};
static const cyaml_strval_t protocols[] = {{"websocket", CONFIG_WEBSOCKET}, {"raw", CONFIG_RAW}};
static const cyaml_strval_t algorithms[] = {
	{"HS256", JWT_HS256}, {"RS256", JWT_RS256}, {"ES256", JWT_ES256}};
static const cyaml_strval_t auth_types[] = {
	{"none", AUTH_NONE}, {"token", AUTH_TOKEN}, {"jwt", AUTH_JWT}};
static const cyaml_strval_t topics[] = {{"all", 1}, {"none", 0}};
static const cyaml_strval_t types[] = {{"link", 0}};
static const cyaml_strval_t policies[] = {{"disconnect", OUT_DISCONNECT},
	{"drop-oldest", OUT_DROP_OLDEST}, {"drop-newest", OUT_DROP_NEWEST},
	{"conflate", OUT_CONFLATE}};
static const cyaml_strval_t failovers[] = {
	{"resume", CONFIG_FAILOVER_RESUME}, {"close", CONFIG_FAILOVER_CLOSE}};

static const cyaml_strval_t modes[] = {{"auto", CONFIG_ADMISSION_AUTO},
	{"kernel", CONFIG_ADMISSION_KERNEL}, {"user", CONFIG_ADMISSION_USER},
	{"observe", CONFIG_ADMISSION_OBSERVE}, {"off", CONFIG_ADMISSION_OFF}};

static const cyaml_strval_t refusals[] = {{"drop", 0}, {"reset", 1}};

static const cyaml_schema_value_t text_entry = {
	CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char *, 0, CYAML_UNLIMITED)};

static const cyaml_schema_field_t workers_fields[] = {
	CONFIG_KEYS_WORKERS(NUMBER_) CHOICE(pin, struct config_raw_workers, booleans),
	CYAML_FIELD_END};

static const cyaml_schema_field_t log_fields[] = {
	CONFIG_KEYS_LOG(NUMBER_) CHOICE(level, struct config_raw_log, levels),
	CHOICE(format, struct config_raw_log, formats), CYAML_FIELD_END};

static const cyaml_schema_field_t access_log_fields[] = {
	TEXT(file, OPTIONAL, struct config_raw_access_log),
	CHOICE(failures, struct config_raw_access_log, failures),
	CONFIG_KEYS_ACCESS_LOG(NUMBER_) CYAML_FIELD_END};

static const cyaml_schema_field_t admin_fields[] = {TEXT(listen, OPTIONAL, struct config_raw_admin),
	TEXT(socket, OPTIONAL, struct config_raw_admin),
	TEXT(token_file, OPTIONAL, struct config_raw_admin), CYAML_FIELD_END};

static const cyaml_schema_field_t handshake_fields[] = {
	CONFIG_KEYS_HANDSHAKE(NUMBER_) CYAML_FIELD_END};

static const cyaml_schema_field_t auth_key_fields[] = {
	TEXT(kid, OPTIONAL, struct config_raw_auth_key),
	CYAML_FIELD_ENUM_PTR("algorithm", CYAML_FLAG_STRICT, struct config_raw_auth_key, algorithm,
		algorithms, CYAML_ARRAY_LEN(algorithms)),
	TEXT(file, REQUIRED, struct config_raw_auth_key), CYAML_FIELD_END};

static const cyaml_schema_value_t auth_key_entry = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct config_raw_auth_key, auth_key_fields)};

static const cyaml_schema_field_t auth_fields[] = {
	LIST(secrets, OPTIONAL_LIST, struct config_raw_auth, &text_entry, CONFIG_AUTH_SECRETS_MAX),
	LIST(keys, OPTIONAL_LIST, struct config_raw_auth, &auth_key_entry, CONFIG_AUTH_KEYS_MAX),
	TEXT(claim, OPTIONAL, struct config_raw_auth), CONFIG_KEYS_AUTH(NUMBER_) CYAML_FIELD_END};

static const cyaml_schema_field_t crypto_fields[] = {CONFIG_KEYS_CRYPTO(NUMBER_) CYAML_FIELD_END};

static const cyaml_schema_field_t drain_fields[] = {CONFIG_KEYS_DRAIN(NUMBER_) CYAML_FIELD_END};

static const cyaml_schema_field_t sockets_fields[] = {CONFIG_KEYS_SOCKETS(NUMBER_) CYAML_FIELD_END};

static const cyaml_schema_field_t sched_fields[] = {CONFIG_KEYS_SCHED(NUMBER_) CYAML_FIELD_END};

static const cyaml_schema_field_t debug_fields[] = {CONFIG_KEYS_DEBUG(NUMBER_) CYAML_FIELD_END};

static const cyaml_schema_field_t weight_fields[] = {
	TEXT(prefix, REQUIRED, struct config_raw_weight),
	CONFIG_KEYS_WEIGHT(NUMBER_) CYAML_FIELD_END};

static const cyaml_schema_value_t weight_entry = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct config_raw_weight, weight_fields)};

static const cyaml_schema_field_t admission_fields[] = {
	CHOICE(mode, struct config_raw_admission, modes),
	CHOICE(limit_loopback, struct config_raw_admission, booleans),
	CHOICE(refuse, struct config_raw_admission, refusals),
	LIST(interfaces, OPTIONAL_LIST, struct config_raw_admission, &text_entry,
		CONFIG_STRINGS_MAX),
	LIST(allow, OPTIONAL_LIST, struct config_raw_admission, &text_entry, CONFIG_PREFIXES_MAX),
	LIST(deny, OPTIONAL_LIST, struct config_raw_admission, &text_entry, CONFIG_PREFIXES_MAX),
	LIST(weights, OPTIONAL_LIST, struct config_raw_admission, &weight_entry,
		CONFIG_PREFIXES_MAX),
	CONFIG_KEYS_ADMISSION(NUMBER_) CYAML_FIELD_END};

static const cyaml_schema_field_t proxy_fields[] = {
	LIST(from, REQUIRED_LIST, struct config_raw_proxy, &text_entry, CONFIG_STRINGS_MAX),
	CYAML_FIELD_END};

static const cyaml_schema_field_t listener_fields[] = {
	TEXT(name, REQUIRED, struct config_raw_listener),
	TEXT(address, REQUIRED, struct config_raw_listener),
	CHOICE(protocol, struct config_raw_listener, protocols),
	TEXT(health_path, OPTIONAL, struct config_raw_listener),
	CYAML_FIELD_MAPPING_PTR("proxy_protocol", OPTIONAL, struct config_raw_listener,
		proxy_protocol, proxy_fields),
	CONFIG_KEYS_LISTENER(NUMBER_) CYAML_FIELD_END};

static const cyaml_schema_value_t listener_entry = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct config_raw_listener, listener_fields)};

static const cyaml_schema_field_t heartbeat_fields[] = {
	CONFIG_KEYS_HEARTBEAT(NUMBER_) CYAML_FIELD_END};

static const cyaml_schema_field_t out_queue_fields[] = {
	CONFIG_KEYS_OUT_QUEUE(NUMBER_) CHOICE(policy, struct config_raw_out_queue, policies),
	CYAML_FIELD_END};

static const cyaml_schema_field_t route_auth_fields[] = {
	CHOICE(type, struct config_raw_route_auth, auth_types),
	LIST(audience, OPTIONAL_LIST, struct config_raw_route_auth, &text_entry,
		CONFIG_STRINGS_MAX),
	TEXT(issuer, OPTIONAL, struct config_raw_route_auth),
	CHOICE(topics_default, struct config_raw_route_auth, topics),
	CHOICE(refresh, struct config_raw_route_auth, booleans), CYAML_FIELD_END};

static const cyaml_schema_field_t hub_fields[] = {CONFIG_KEYS_HUB(NUMBER_) CYAML_FIELD_END};

static const cyaml_schema_field_t route_fields[] = {
	TEXT(listener, OPTIONAL, struct config_raw_route),
	TEXT(host, OPTIONAL, struct config_raw_route),
	TEXT(path, REQUIRED, struct config_raw_route),
	TEXT(upstream, REQUIRED, struct config_raw_route),
	LIST(origins, OPTIONAL_LIST, struct config_raw_route, &text_entry, CONFIG_STRINGS_MAX),
	LIST(subprotocols, OPTIONAL_LIST, struct config_raw_route, &text_entry, CONFIG_STRINGS_MAX),
	CYAML_FIELD_MAPPING(
		"heartbeat", OPTIONAL, struct config_raw_route, heartbeat, heartbeat_fields),
	CYAML_FIELD_MAPPING(
		"out_queue", OPTIONAL, struct config_raw_route, out_queue, out_queue_fields),
	CYAML_FIELD_MAPPING("auth", OPTIONAL, struct config_raw_route, auth, route_auth_fields),
	CYAML_FIELD_MAPPING("hub", OPTIONAL, struct config_raw_route, hub, hub_fields),
	CONFIG_KEYS_ROUTE(NUMBER_) CYAML_FIELD_END};

static const cyaml_schema_value_t route_entry = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct config_raw_route, route_fields)};

static const cyaml_schema_field_t reconnect_fields[] = {
	CONFIG_KEYS_RECONNECT(NUMBER_) CYAML_FIELD_END};

static const cyaml_schema_field_t upstream_fields[] = {
	TEXT(name, REQUIRED, struct config_raw_upstream),
	CHOICE(type, struct config_raw_upstream, types),
	LIST(endpoints, REQUIRED_LIST, struct config_raw_upstream, &text_entry,
		CONFIG_ENDPOINTS_MAX),
	TEXT(balance, OPTIONAL, struct config_raw_upstream),
	CHOICE(failover, struct config_raw_upstream, failovers),
	CYAML_FIELD_MAPPING(
		"reconnect", OPTIONAL, struct config_raw_upstream, reconnect, reconnect_fields),
	CONFIG_KEYS_UPSTREAM(NUMBER_) CYAML_FIELD_END};

static const cyaml_schema_value_t upstream_entry = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct config_raw_upstream, upstream_fields)};

#define SECTION(key) CYAML_FIELD_MAPPING(#key, OPTIONAL, struct config_raw, key, key##_fields)

static const cyaml_schema_field_t top_fields[] = {TEXT(instance, OPTIONAL, struct config_raw),
	TEXT(user, OPTIONAL, struct config_raw), SECTION(workers), SECTION(log),
	SECTION(access_log), SECTION(admin), SECTION(handshake), SECTION(auth), SECTION(crypto),
	SECTION(drain), SECTION(sockets), SECTION(admission), SECTION(sched), SECTION(debug),
	LIST(listeners, REQUIRED_LIST, struct config_raw, &listener_entry, CONFIG_LISTENERS_MAX),
	LIST(routes, REQUIRED_LIST, struct config_raw, &route_entry, CONFIG_ROUTES_MAX),
	LIST(upstreams, OPTIONAL_LIST, struct config_raw, &upstream_entry, CONFIG_UPSTREAMS_MAX),
	CYAML_FIELD_END};

const cyaml_schema_value_t config_schema = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct config_raw, top_fields)};

/* Flags are written without their prefix in the lists; 0 is none. */
#define FLAG_0    0
#define FLAG_ZERO CONFIG_RULE_ZERO
#define FLAG_POW2 CONFIG_RULE_POW2

#define RULE(name, raw, raw_member, dest, dest_member, unit_, flags_, def_, least_, most_)         \
	{                                                                                          \
		.key = name,                                                                       \
		.unit = CONFIG_UNIT_##unit_,                                                       \
		.flags = FLAG_##flags_,                                                            \
		.def = def_,                                                                       \
		.least = least_,                                                                   \
		.most = most_,                                                                     \
		.raw_offset = offsetof(struct raw, raw_member),                                    \
		.offset = offsetof(struct dest, dest_member),                                      \
		.bytes = sizeof(((struct dest *)NULL)->dest_member),                               \
	},

/* A key of the mapping itself, and one of a mapping below it. */
#define TOP_BELOW(s, k, m, ...) RULE(#s "." #k, config_raw, s.k, config, m, __VA_ARGS__)
#define LISTENER(s, k, m, ...)  RULE(#k, config_raw_listener, k, config_listener, m, __VA_ARGS__)
#define ROUTE(s, k, m, ...)     RULE(#k, config_raw_route, k, config_route, m, __VA_ARGS__)
#define ROUTE_BELOW(s, k, m, ...)                                                                  \
	RULE(#s "." #k, config_raw_route, s.k, config_route, m, __VA_ARGS__)
#define WEIGHT(s, k, m, ...)   RULE(#k, config_raw_weight, k, config_weight, m, __VA_ARGS__)
#define UPSTREAM(s, k, m, ...) RULE(#k, config_raw_upstream, k, config_upstream, m, __VA_ARGS__)
#define UPSTREAM_BELOW(s, k, m, ...)                                                               \
	RULE(#s "." #k, config_raw_upstream, s.k, config_upstream, m, __VA_ARGS__)

static const struct config_rule top_rules[] = {
	CONFIG_KEYS_WORKERS(TOP_BELOW) CONFIG_KEYS_LOG(TOP_BELOW) CONFIG_KEYS_ACCESS_LOG(TOP_BELOW)
		CONFIG_KEYS_HANDSHAKE(TOP_BELOW) CONFIG_KEYS_AUTH(TOP_BELOW)
			CONFIG_KEYS_CRYPTO(TOP_BELOW) CONFIG_KEYS_DRAIN(TOP_BELOW)
				CONFIG_KEYS_SOCKETS(TOP_BELOW) CONFIG_KEYS_ADMISSION(TOP_BELOW)
					CONFIG_KEYS_SCHED(TOP_BELOW) CONFIG_KEYS_DEBUG(TOP_BELOW)};

static const struct config_rule listener_rules[] = {CONFIG_KEYS_LISTENER(LISTENER)};

static const struct config_rule route_rules[] = {CONFIG_KEYS_ROUTE(ROUTE) CONFIG_KEYS_HEARTBEAT(
	ROUTE_BELOW) CONFIG_KEYS_OUT_QUEUE(ROUTE_BELOW) CONFIG_KEYS_HUB(ROUTE_BELOW)};

static const struct config_rule upstream_rules[] = {
	CONFIG_KEYS_UPSTREAM(UPSTREAM) CONFIG_KEYS_RECONNECT(UPSTREAM_BELOW)};

static const struct config_rule weight_rules[] = {CONFIG_KEYS_WEIGHT(WEIGHT)};

const struct config_rules config_rules[CONFIG_RULE_SETS] = {
	[CONFIG_RULES_TOP] = {"", top_rules, CYAML_ARRAY_LEN(top_rules)},
	[CONFIG_RULES_LISTENER] = {"listeners[]", listener_rules, CYAML_ARRAY_LEN(listener_rules)},
	[CONFIG_RULES_ROUTE] = {"routes[]", route_rules, CYAML_ARRAY_LEN(route_rules)},
	[CONFIG_RULES_UPSTREAM] = {"upstreams[]", upstream_rules, CYAML_ARRAY_LEN(upstream_rules)},
	[CONFIG_RULES_WEIGHT] = {"admission.weights[]", weight_rules,
		CYAML_ARRAY_LEN(weight_rules)},
};

void config_rule_range(const struct config_rule *rule, char out[CONFIG_RANGE_TEXT_MAX])
{
	char least[CONFIG_UNIT_TEXT_MAX], most[CONFIG_UNIT_TEXT_MAX];

	config_unit_format(rule->unit, rule->least, least);
	config_unit_format(rule->unit, rule->most, most);
	snprintf(out, CONFIG_RANGE_TEXT_MAX, "%s%s .. %s%s",
		rule->flags & CONFIG_RULE_ZERO ? "0 or " : "", least, most,
		rule->flags & CONFIG_RULE_POW2 ? ", a power of two" : "");
}
