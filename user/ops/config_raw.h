/* The configuration file as libcyaml loads it: the schema, and every value as text before units are
 * resolved.
 *
 * The numeric keys are lists, X(section, key, member, unit, flags, default, least, most), from
 * which the loaded structs, the schema and the rules (units, ranges, defaults, where the result
 * goes) are made: one line is all a new number needs besides its line in docs/configuration.md.
 * Ranges are in the unit: ms, us, bytes.
 *
 * One thread. Order: config_index_build() on the same bytes, load, free.
 */
#ifndef TIDEGATE_OPS_CONFIG_RAW_H
#define TIDEGATE_OPS_CONFIG_RAW_H

#include <cyaml/cyaml.h>
#include <stddef.h>
#include <stdint.h>

#include "ops/config_errors.h"
#include "ops/config_index.h"
#include "ops/config_units.h"

enum {
	CONFIG_LISTENERS_MAX = 64,
	CONFIG_ROUTES_MAX = 1024,
	CONFIG_UPSTREAMS_MAX = 256,
	CONFIG_ENDPOINTS_MAX = 64,
	CONFIG_AUTH_KEYS_MAX = 64,
	CONFIG_AUTH_SECRETS_MAX = 16,
	CONFIG_STRINGS_MAX = 256,    /* origins, subprotocols, prefixes of one list */
	CONFIG_PREFIXES_MAX = 10000, /* of admission's lists */
};

enum config_rule_flags {
	CONFIG_RULE_ZERO = 1, /* 0 is allowed besides the range */
	CONFIG_RULE_POW2 = 2,
};

#define CONFIG_KIB  UINT64_C(1024)
#define CONFIG_MIB  (1024 * CONFIG_KIB)
#define CONFIG_GIB  (1024 * CONFIG_MIB)
#define CONFIG_SEC  UINT64_C(1000) /* of a rule in ms */
#define CONFIG_HOUR (3600 * CONFIG_SEC)

#define CONFIG_KEYS_WORKERS(X)                                                                     \
	X(workers, count, workers, NUMBER, 0, "0", 0, 64)                                          \
	X(workers, rings_max, rings_max, NUMBER, 0, "64", 1, WORKER_RINGS_MAX)                     \
	X(workers, ring_connections, ring_connections, NUMBER, ZERO, "0", 64, 1000000)             \
	X(workers, recv_buffers, recv_buffers, NUMBER, POW2, "64", 16, 32768)                      \
	X(workers, recv_buffer_size, recv_buffer_bytes, BYTES, 0, "8KiB", 256, 64 * CONFIG_KIB)    \
	X(workers, turn, turn_us, US, 0, "200us", 10, 100000)                                      \
	X(workers, turn_frames, turn_frames, NUMBER, 0, "64", 1, 65536)                            \
	X(workers, slice, slice_us, US, 0, "2ms", 100, 1000000)                                    \
	X(workers, batch_wait, batch_wait_us, US, ZERO, "50us", 1, 10000)                          \
	X(workers, buffer_cap, buffer_cap_bytes, BYTES, 0, "1GiB", CONFIG_MIB, 1024 * CONFIG_GIB)  \
	X(workers, buffer_total, buffer_total_bytes, BYTES, ZERO, "0", CONFIG_MIB,                 \
		1024 * CONFIG_GIB)

#define CONFIG_KEYS_LOG(X)                                                                         \
	X(log, interval, log_interval_ms, MS, 0, "10s", 100, CONFIG_HOUR)                          \
	X(log, rate, log_rate, NUMBER, 0, "10", 0, 1000000)

#define CONFIG_KEYS_ACCESS_LOG(X)                                                                  \
	X(access_log, sample_percent, access_sample_percent, NUMBER, 0, "100", 0, 100)             \
	X(access_log, queue, access_queue, NUMBER, POW2, "4096", 2, 1048576)

#define CONFIG_KEYS_HANDSHAKE(X)                                                                   \
	X(handshake, timeout, handshake_timeout_ms, MS, 0, "10s", 10, 600 * CONFIG_SEC)            \
	X(handshake, head_size, handshake_head_bytes, BYTES, 0, "8KiB", 512, 64 * CONFIG_KIB)      \
	X(handshake, headers, handshake_headers, NUMBER, 0, "64", 8, HTTP_HEADERS_MAX)             \
	X(handshake, close_timeout, close_timeout_ms, MS, 0, "2s", 10, 60 * CONFIG_SEC)

#define CONFIG_KEYS_AUTH(X)                                                                        \
	X(auth, token_size, auth_token_bytes, BYTES, 0, "4KiB", 256, AUTH_TOKEN_MAX)               \
	X(auth, leeway, auth_leeway_ms, MS, ZERO, "10s", CONFIG_SEC, 600 * CONFIG_SEC)

#define CONFIG_KEYS_CRYPTO(X)                                                                      \
	X(crypto, threads, crypto_threads, NUMBER, 0, "1", 1, CRYPTO_THREADS_MAX)                  \
	X(crypto, queue, crypto_queue, NUMBER, POW2, "1024", 2, 65536)

#define CONFIG_KEYS_DRAIN(X) X(drain, period, drain_period_ms, MS, 0, "10s", 10, CONFIG_HOUR)

#define CONFIG_KEYS_SOCKETS(X)                                                                     \
	X(sockets, send_buffer, send_buffer_bytes, BYTES, ZERO, "64KiB", 4 * CONFIG_KIB,           \
		64 * CONFIG_MIB)                                                                   \
	X(sockets, receive_buffer, receive_buffer_bytes, BYTES, ZERO, "0", 4 * CONFIG_KIB,         \
		64 * CONFIG_MIB)                                                                   \
	X(sockets, notsent_lowat, notsent_lowat_bytes, BYTES, ZERO, "16KiB", CONFIG_KIB,           \
		64 * CONFIG_MIB)                                                                   \
	X(sockets, user_timeout, user_timeout_ms, MS, ZERO, "60s", 100, 24 * CONFIG_HOUR)

#define CONFIG_KEYS_ADMISSION(X)                                                                   \
	X(admission, target_delay, admission.target_us, US, 0, "5ms", 100, 1000000)                \
	X(admission, rate_floor, admission.rate_floor, NUMBER, 0, "10", 1, 1000000)                \
	X(admission, rate_ceiling, admission.rate_ceiling, NUMBER, ZERO, "0", 1, 1000000)          \
	X(admission, permits, admission.permits, NUMBER, ZERO, "10000", 1, 100000000)              \
	X(admission, reserve_percent, admission.reserve_percent, NUMBER, 0, "25", 0, 90)           \
	X(admission, handshake_percent, admission.handshake_percent, NUMBER, 0, "20", 0, 100)      \
	X(admission, memory_high_percent, admission.memory_high_percent, NUMBER, 0, "90", 1, 100)  \
	X(admission, memory_low_percent, admission.memory_low_percent, NUMBER, 0, "85", 1, 100)    \
	X(admission, sources, admission.sources, NUMBER, 0, "65536", 1024, 16777216)               \
	X(admission, flood_limit, admission.flood_limit, NUMBER, ZERO, "200", 1, 30000)            \
	X(admission, cookie_trigger, admission.cookie_trigger, NUMBER, ZERO, "0", 100, 100000000)  \
	X(admission, source_burst, admission.source_burst, NUMBER, 0, "4", 1, 10000)               \
	X(admission, penalty, admission.penalty_ms, MS, 0, "30s", 100, 24 * CONFIG_HOUR)           \
	X(admission, penalty_max, admission.penalty_max_ms, MS, 0, "1h", 100, 168 * CONFIG_HOUR)   \
	X(admission, v4_32_open, admission.tier[0][0].open, NUMBER, 0, "1000", 0, 10000000)        \
	X(admission, v4_32_churn, admission.tier[0][0].churn, NUMBER, 0, "100", 0, 1000000)        \
	X(admission, v4_24_open, admission.tier[0][1].open, NUMBER, 0, "20000", 0, 10000000)       \
	X(admission, v4_24_churn, admission.tier[0][1].churn, NUMBER, 0, "1000", 0, 1000000)       \
	X(admission, v6_64_open, admission.tier[1][0].open, NUMBER, 0, "1000", 0, 10000000)        \
	X(admission, v6_64_churn, admission.tier[1][0].churn, NUMBER, 0, "100", 0, 1000000)        \
	X(admission, v6_56_open, admission.tier[1][1].open, NUMBER, 0, "4000", 0, 10000000)        \
	X(admission, v6_56_churn, admission.tier[1][1].churn, NUMBER, 0, "400", 0, 1000000)        \
	X(admission, v6_48_open, admission.tier[1][2].open, NUMBER, 0, "20000", 0, 10000000)       \
	X(admission, v6_48_churn, admission.tier[1][2].churn, NUMBER, 0, "1000", 0, 1000000)

#define CONFIG_KEYS_SCHED(X) X(sched, sample_percent, sched_sample_percent, NUMBER, 0, "10", 0, 100)

#define CONFIG_KEYS_DEBUG(X)                                                                       \
	X(debug, handshake_cost, debug_handshake_us, US, ZERO, "0", 1, 1000000)                    \
	X(debug, handshake_turn, debug_handshake_turn_us, US, 0, "1s", 50, 1000000)

#define CONFIG_KEYS_WEIGHT(X) X(weight, weight, weight, NUMBER, 0, "10", 0, 1000000)

#define CONFIG_KEYS_LISTENER(X) X(listener, backlog, backlog, NUMBER, 0, "4096", 1, 65535)

#define CONFIG_KEYS_ROUTE(X)                                                                       \
	X(route, max_message_size, max_message_bytes, BYTES, 0, "16MiB", 1, CONFIG_GIB)            \
	X(route, idle_timeout, idle_timeout_ms, MS, ZERO, "0", 10, 168 * CONFIG_HOUR)              \
	X(route, client_pings_per_minute, client_pings_per_minute, NUMBER, 0, "60", 0, 255)        \
	X(route, write_timeout, write_timeout_ms, MS, 0, "30s", 10, CONFIG_HOUR)

#define CONFIG_KEYS_HEARTBEAT(X)                                                                   \
	X(heartbeat, interval, heartbeat_ms, MS, ZERO, "30s", 10, 24 * CONFIG_HOUR)                \
	X(heartbeat, jitter_percent, heartbeat_jitter_percent, NUMBER, 0, "20", 0, 50)             \
	X(heartbeat, missed, heartbeat_missed, NUMBER, 0, "2", 1, 10)

#define CONFIG_KEYS_OUT_QUEUE(X)                                                                   \
	X(out_queue, bytes, out_queue_bytes, BYTES, 0, "17MiB", 1, 2 * CONFIG_GIB)                 \
	X(out_queue, messages, out_queue_messages, NUMBER, 0, "65535", 1, 1000000)

#define CONFIG_KEYS_HUB(X)                                                                         \
	X(hub, topics_per_session, hub_topics, NUMBER, 0, "100", 1, 10000)                         \
	X(hub, messages_per_second, hub_messages, NUMBER, 0, "0", 0, 1000000)                      \
	X(hub, bytes_per_second, hub_bytes, BYTES, 0, "0", 0, 64 * CONFIG_GIB)                     \
	X(hub, payload_size, hub_payload, BYTES, 0, "64KiB", 1, CONFIG_MIB)

#define CONFIG_KEYS_UPSTREAM(X)                                                                    \
	X(upstream, buffer, buffer_bytes, BYTES, 0, "4MiB", 0, 64 * CONFIG_GIB)                    \
	X(upstream, session_window, session_window, BYTES, 0, "256KiB", TG_LINK_WINDOW_MIN,        \
		TG_LINK_WINDOW_MAX)                                                                \
	X(upstream, link_window, link_window, BYTES, 0, "8MiB", TG_LINK_WINDOW_MIN,                \
		TG_LINK_WINDOW_MAX)                                                                \
	X(upstream, ping_interval, ping_interval_ms, MS, 0, "2s", 10, CONFIG_HOUR)                 \
	X(upstream, ping_timeout, ping_timeout_ms, MS, 0, "5s", 10, CONFIG_HOUR)                   \
	X(upstream, connect_timeout, connect_timeout_ms, MS, 0, "3s", 10, 600 * CONFIG_SEC)        \
	X(upstream, open_timeout, open_timeout_ms, MS, 0, "5s", 10, 600 * CONFIG_SEC)

#define CONFIG_KEYS_RECONNECT(X)                                                                   \
	X(reconnect, min, reconnect_min_ms, MS, 0, "100ms", 10, CONFIG_HOUR)                       \
	X(reconnect, max, reconnect_max_ms, MS, 0, "1500ms", 10, CONFIG_HOUR)

/* As loaded: NULL is a key that is not there; a choice points to its value in the schema. */
#define CONFIG_RAW_MEMBER_(section, key, member, unit, flags, def, least, most) char *key;

struct config_raw_workers {
	CONFIG_KEYS_WORKERS(CONFIG_RAW_MEMBER_)
	int *pin;
};

struct config_raw_log {
	CONFIG_KEYS_LOG(CONFIG_RAW_MEMBER_)
	int *level, *format;
};

struct config_raw_access_log {
	CONFIG_KEYS_ACCESS_LOG(CONFIG_RAW_MEMBER_)
	char *file;
	int *failures;
};

struct config_raw_admin {
	char *listen, *socket, *token_file;
};

struct config_raw_handshake {
	CONFIG_KEYS_HANDSHAKE(CONFIG_RAW_MEMBER_)
};

struct config_raw_auth_key {
	char *kid, *file;
	int *algorithm;
};

struct config_raw_auth {
	CONFIG_KEYS_AUTH(CONFIG_RAW_MEMBER_)
	char *claim, **secrets;
	struct config_raw_auth_key *keys;
	unsigned secrets_count, keys_count;
};

struct config_raw_crypto {
	CONFIG_KEYS_CRYPTO(CONFIG_RAW_MEMBER_)
};

struct config_raw_drain {
	CONFIG_KEYS_DRAIN(CONFIG_RAW_MEMBER_)
};

struct config_raw_sockets {
	CONFIG_KEYS_SOCKETS(CONFIG_RAW_MEMBER_)
};

struct config_raw_sched {
	CONFIG_KEYS_SCHED(CONFIG_RAW_MEMBER_)
};

struct config_raw_debug {
	CONFIG_KEYS_DEBUG(CONFIG_RAW_MEMBER_)
};

struct config_raw_weight {
	char *prefix;
	CONFIG_KEYS_WEIGHT(CONFIG_RAW_MEMBER_)
};

struct config_raw_admission {
	int *mode, *limit_loopback, *refuse;
	char **interfaces, **allow, **deny;
	struct config_raw_weight *weights;
	unsigned interfaces_count, allow_count, deny_count, weights_count;
	CONFIG_KEYS_ADMISSION(CONFIG_RAW_MEMBER_)
};

struct config_raw_proxy {
	char **from;
	unsigned from_count;
};

struct config_raw_listener {
	char *name, *address, *health_path;
	int *protocol;
	struct config_raw_proxy *proxy_protocol;
	CONFIG_KEYS_LISTENER(CONFIG_RAW_MEMBER_)
};

struct config_raw_heartbeat {
	CONFIG_KEYS_HEARTBEAT(CONFIG_RAW_MEMBER_)
};

struct config_raw_out_queue {
	CONFIG_KEYS_OUT_QUEUE(CONFIG_RAW_MEMBER_)
	int *policy;
};

struct config_raw_route_auth {
	int *type, *topics_default, *refresh;
	char **audience, *issuer;
	unsigned audience_count;
};

struct config_raw_hub {
	CONFIG_KEYS_HUB(CONFIG_RAW_MEMBER_)
};

struct config_raw_route {
	char *listener, *host, *path, *upstream;
	char **origins, **subprotocols;
	unsigned origins_count, subprotocols_count;
	struct config_raw_heartbeat heartbeat;
	struct config_raw_out_queue out_queue;
	struct config_raw_route_auth auth;
	struct config_raw_hub hub;
	CONFIG_KEYS_ROUTE(CONFIG_RAW_MEMBER_)
};

struct config_raw_reconnect {
	CONFIG_KEYS_RECONNECT(CONFIG_RAW_MEMBER_)
};

struct config_raw_upstream {
	char *name, *balance;
	int *type, *failover;
	char **endpoints;
	unsigned endpoints_count;
	struct config_raw_reconnect reconnect;
	CONFIG_KEYS_UPSTREAM(CONFIG_RAW_MEMBER_)
};

struct config_raw {
	char *instance, *user;
	struct config_raw_workers workers;
	struct config_raw_log log;
	struct config_raw_access_log access_log;
	struct config_raw_admin admin;
	struct config_raw_handshake handshake;
	struct config_raw_auth auth;
	struct config_raw_crypto crypto;
	struct config_raw_drain drain;
	struct config_raw_sockets sockets;
	struct config_raw_admission admission;
	struct config_raw_sched sched;
	struct config_raw_debug debug;
	struct config_raw_listener *listeners;
	struct config_raw_route *routes;
	struct config_raw_upstream *upstreams;
	unsigned listeners_count, routes_count, upstreams_count;
};

/* What a numeric key may be, where its text stands and where its value goes. */
struct config_rule {
	const char
		*key; /* below its mapping: "workers.count", or in a route "heartbeat.interval" */
	enum config_unit unit;
	unsigned flags;  /* enum config_rule_flags */
	const char *def; /* as it would be written */
	uint64_t least, most;
	size_t raw_offset; /* of the char * in struct config_raw, config_raw_listener, … */
	size_t offset;     /* of the value in struct config, config_listener, … */
	size_t bytes;      /* of the value: 4 or 8 */
};

struct config_rules {
	const char *where; /* "" or "listeners[]", "routes[]", "upstreams[]",
			      "admission.weights[]" */
	const struct config_rule *rule;
	unsigned n;
};

enum config_rule_set {
	CONFIG_RULES_TOP,
	CONFIG_RULES_LISTENER,
	CONFIG_RULES_ROUTE,
	CONFIG_RULES_UPSTREAM,
	CONFIG_RULES_WEIGHT,
	CONFIG_RULE_SETS,
};

extern const struct config_rules config_rules[CONFIG_RULE_SETS];
extern const cyaml_schema_value_t config_schema;

enum {
	CONFIG_RANGE_TEXT_MAX = 128
};

/* "0 or 64 .. 1000000", "16 .. 32768, a power of two". */
void config_rule_range(const struct config_rule *rule, char out[CONFIG_RANGE_TEXT_MAX]);

/* 0 with *ret; -EINVAL with an error added: the loader stops at the first thing that the schema
 * refuses; -ENOMEM. */
int config_raw_load(const void *data, size_t len, const struct config_index *ix,
	struct config_errors *errors, struct config_raw **ret);
void config_raw_free(struct config_raw *raw);

#endif
