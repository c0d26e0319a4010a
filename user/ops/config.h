/* The configuration: one YAML file, read once into plain structs with units resolved and defaults
 * filled in.
 *
 * docs/configuration.md lists every key; docs/tidegate.example.yaml is annotated. Durations are
 * written `30s`, `200us`, `1500ms`, `5m`; sizes `64KiB`, `16MiB`, `4096`. Everything is owned by
 * struct config, immutable after load.
 */
#ifndef TIDEGATE_OPS_CONFIG_H
#define TIDEGATE_OPS_CONFIG_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

struct config_prefix {
	struct in6_addr addr; /* IPv4 as ::ffff:a.b.c.d */
	unsigned len;         /* 0..128, of the mapped address */
};

struct config_address {
	char *text; /* as written: "127.0.0.1:8080", "[::1]:8080", "unix:/run/x.sock",
		       "tcp://127.0.0.1:9300" */
	struct sockaddr_storage addr; /* AF_INET, AF_INET6 or AF_UNIX */
	socklen_t addr_len;
};

struct config_strings {
	char **item;
	unsigned n;
};

enum config_protocol {
	CONFIG_WEBSOCKET,
	CONFIG_RAW,
};

struct config_listener {
	char *name;                    /* listeners[].name, unique */
	struct config_address address; /* .address; TCP only */
	enum config_protocol protocol; /* .protocol: websocket | raw */
	unsigned backlog;              /* .backlog, 4096 */
	char *health_path; /* .health_path, "/healthz"; websocket only; "" turns it off */
	struct config_prefix *proxy_from; /* .proxy_protocol.from; when present every connection
					     must begin with a PROXY header */
	unsigned n_proxy_from;
	bool proxy_protocol; /* .proxy_protocol present */
	unsigned line;       /* where it stands in the file, for later messages */
};

struct config_auth_key {
	char *kid;     /* auth.keys[].kid, optional: the key of tokens that name none; unique */
	int algorithm; /* .algorithm: enum jwt_algorithm */
	char *file;    /* .file: absolute path */
};

enum config_builtin {
	CONFIG_UPSTREAM_ECHO = -1,
	CONFIG_UPSTREAM_HUB = -2,
};

struct config_route {
	char *listener;     /* routes[].listener, optional: all listeners */
	char *host;         /* .host, optional: any; compared without port, case-insensitive;
			       "*.example.com" allowed */
	char *path;         /* .path: exact, or a prefix when it ends in "/""*" (slash star) */
	char *upstream;     /* .upstream: name of an upstream, "echo" or "hub" */
	int upstream_index; /* into config.upstreams, or one of enum config_builtin */
	int listener_index; /* -1: all */
	struct config_strings origins;      /* .origins, empty: any */
	struct config_strings subprotocols; /* .subprotocols */
	uint64_t max_message_bytes;         /* .max_message_size, 16MiB; 1 .. 1GiB */
	uint32_t heartbeat_ms;              /* .heartbeat.interval, 30s; 0: none */
	uint32_t heartbeat_jitter_percent;  /* .heartbeat.jitter_percent, 20; 0..50 */
	unsigned heartbeat_missed;          /* .heartbeat.missed, 2; 1..10 */
	uint32_t idle_timeout_ms;           /* .idle_timeout, 0: none */
	unsigned client_pings_per_minute; /* .client_pings_per_minute, 60; above: close 1008; 0: no
					     limit */
	uint64_t out_queue_bytes; /* .out_queue.bytes, 17MiB or max_message_size + 1MiB, the larger:
				     cap of one session's out queue */
	unsigned out_queue_messages; /* .out_queue.messages, 65535: likewise */
	int out_policy;              /* .out_queue.policy: enum out_policy */
	uint32_t write_timeout_ms;   /* .write_timeout, 30s: no progress for so long ends the
					connection */
	int auth_type;               /* .auth.type, none: enum auth_type */
	struct config_strings auth_audience; /* .auth.audience, empty: any; jwt only */
	char *auth_issuer;                   /* .auth.issuer, optional: any; jwt only */
	bool auth_topics_all;                /* .auth.topics_default: all | none */
	bool auth_refresh;                   /* .auth.refresh, false */
	unsigned hub_topics;                 /* .hub.topics_per_session, 100; 1..10000 */
	unsigned hub_messages;               /* .hub.messages_per_second, 0: no limit */
	uint64_t hub_bytes;                  /* .hub.bytes_per_second, 0: no limit */
	uint64_t hub_payload;                /* .hub.payload_size, 64KiB; up to 1MiB */
	unsigned line;
};

enum config_balance {
	CONFIG_LEAST_SESSIONS,
	CONFIG_HASH, /* "hash:<header or claim>" */
};

enum config_failover {
	CONFIG_FAILOVER_RESUME, /* re-open the session on another endpoint */
	CONFIG_FAILOVER_CLOSE,  /* close it with 1013 */
};

struct config_upstream {
	char *name; /* upstreams[].name, unique, not "echo" or "hub" */
	/* .type: link is the only one so far */
	struct config_address *endpoints; /* .endpoints: tcp://host-address:port, unix:/path */
	unsigned n_endpoints;             /* 1..64 */
	enum config_balance balance;      /* .balance: least-sessions | hash:NAME */
	char *hash_key;                   /* NAME: a claim or request header, or NULL */
	enum config_failover failover;    /* .failover: resume | close */
	uint64_t buffer_bytes;     /* .buffer, 4MiB per worker: messages held while no link is up */
	uint32_t session_window;   /* .session_window, 256KiB: bytes a session may have un-credited
				      towards the gateway */
	uint32_t link_window;      /* .link_window, 8MiB: the same for a whole link */
	uint32_t ping_interval_ms; /* .ping_interval, 2s */
	uint32_t ping_timeout_ms; /* .ping_timeout, 5s: an unanswered PING for so long ends the link
				   */
	uint32_t connect_timeout_ms; /* .connect_timeout, 3s */
	uint32_t reconnect_min_ms;   /* .reconnect.min, 100ms */
	uint32_t reconnect_max_ms;   /* .reconnect.max, 1500ms */
	uint32_t open_timeout_ms;    /* .open_timeout, 5s: a session not accepted for so long is
					refused */
	unsigned line;
};

enum config_admission_mode {
	CONFIG_ADMISSION_AUTO,   /* in the kernel where that is possible, else in user space */
	CONFIG_ADMISSION_KERNEL, /* in the kernel, or not at all */
	CONFIG_ADMISSION_USER,
	CONFIG_ADMISSION_OBSERVE, /* count what would be refused, refuse nobody */
	CONFIG_ADMISSION_OFF,
};

/* Limits of one width of source prefix; 0: none. */
struct config_tier {
	uint32_t open;  /* connections at a time */
	uint32_t churn; /* accepts + closes per second; twice that may come at once */
};

struct config_weight {
	struct config_prefix prefix;
	uint32_t weight;
};

struct config_admission {
	enum config_admission_mode mode; /* admission.mode, auto */
	uint32_t target_us;              /* .target_delay, 5ms */
	uint32_t rate_floor;             /* .rate_floor, 10 per second */
	uint32_t rate_ceiling;           /* .rate_ceiling, 0: none */
	uint32_t permits;                /* .permits, 10000: accepted and not yet served; 0: none */
	uint32_t reserve_percent;   /* .reserve_percent, 25: of the rate, for proven prefixes */
	uint32_t handshake_percent; /* .handshake_percent, 20: of busy time; below it nobody is cut
				     */
	uint32_t memory_high_percent; /* .memory_high_percent, 90 */
	uint32_t memory_low_percent;  /* .memory_low_percent, 85 */
	uint32_t sources;             /* .sources, 65536 prefixes remembered */
	uint32_t source_burst;        /* .source_burst, 4 connections ahead of a fair share */
	uint32_t penalty_ms, penalty_max_ms; /* .penalty, 30s; .penalty_max, 1h */
	bool limit_loopback;                 /* .limit_loopback, false */
	struct config_strings
		interfaces;      /* .interfaces; none: those the listeners' addresses are on
				  */
	bool refuse_reset;       /* .refuse: drop | reset */
	uint32_t flood_limit;    /* .flood_limit, 200 SYNs per second of one prefix; 0: none */
	uint32_t cookie_trigger; /* .cookie_trigger, 0 SYNs per second; 0: no SYN cookies */
	struct config_tier tier[2][3]; /* .v4_32_open …: IPv4 /32 and /24; IPv6 /64, /56, /48 */
	struct config_prefix *allow, *deny; /* .allow, .deny */
	struct config_weight *weights;      /* .weights */
	unsigned n_allow, n_deny, n_weights;
};

struct config {
	char *path;     /* the file, or NULL for the built-in demo */
	char *instance; /* instance, "default"; letters, digits, '-', '_' */
	char *user; /* user the gateway runs as when started as root: "tidegate" if there is one,
		       else "nobody" */

	unsigned workers; /* workers.count, 0: three quarters of the CPUs allowed, at least 1; <= 64
			   */
	bool pin;         /* workers.pin, true: one CPU each */
	unsigned rings_max;         /* workers.rings_max, 64 per worker */
	unsigned ring_connections;  /* workers.ring_connections, 0: what RLIMIT_NOFILE allows,
				       else 64..1000000 */
	unsigned recv_buffers;      /* workers.recv_buffers, 64 per ring; power of two 16..32768 */
	uint32_t recv_buffer_bytes; /* workers.recv_buffer_size, 8KiB; 256..64KiB */
	uint32_t turn_us;           /* workers.turn, 200us */
	unsigned turn_frames;       /* workers.turn_frames, 64 */
	uint32_t slice_us; /* workers.slice, 2ms: run-queue time between two looks at the rings */
	uint32_t batch_wait_us;      /* workers.batch_wait, 50us; 0: off */
	uint64_t buffer_cap_bytes;   /* workers.buffer_cap, 1GiB per worker: out queues and partial
					messages */
	uint64_t buffer_total_bytes; /* workers.buffer_total, 0 (none): of all workers together */

	int log_level;            /* log.level: error | warn | info | debug */
	bool log_json;            /* log.format: human | json */
	uint32_t log_interval_ms; /* log.interval, 10s: the scheduler line */
	unsigned log_rate;        /* log.rate, 10 lines per second and kind; 0: unlimited */

	struct config_address admin; /* admin.listen, 127.0.0.1:9180; "" none */
	bool admin_off;
	/* access_log.file: "" is none, "stderr", or a path */
	bool access_stderr;
	char *access_file;              /* NULL: none */
	unsigned access_sample_percent; /* access_log.sample_percent, 100: of ordinary ends */
	bool access_failures_always;    /* access_log.failures: always | sampled */
	unsigned access_queue; /* access_log.queue, 4096 records a worker; a power of two */

	char *admin_socket;     /* admin.socket, /run/tidegate/<instance>/admin.sock (without root
				   $XDG_RUNTIME_DIR or /tmp/tidegate-<uid>) */
	char *admin_token_file; /* admin.token_file, "": NULL, no actions on admin.listen */

	uint32_t handshake_timeout_ms; /* handshake.timeout, 10s */
	uint32_t handshake_head_bytes; /* handshake.head_size, 8KiB; 512..64KiB */
	unsigned handshake_headers;    /* handshake.headers, 64 */
	uint32_t close_timeout_ms; /* handshake.close_timeout, 2s: how long a close frame waits for
				      its answer */
	uint32_t drain_period_ms;  /* drain.period, 10s */

	struct config_strings auth_secrets; /* auth.secrets: files of secrets for `token` */
	struct config_auth_key *auth_keys;  /* auth.keys */
	unsigned n_auth_keys;
	uint32_t auth_token_bytes; /* auth.token_size, 4KiB; 256..32KiB */
	uint32_t auth_leeway_ms;   /* auth.leeway, 10s: whole seconds */
	char *auth_claim;          /* auth.claim, "tidegate": of topic permissions */
	unsigned crypto_threads;   /* crypto.threads, 1 */
	unsigned crypto_queue;     /* crypto.queue, 1024: jobs waiting, per thread */

	uint32_t send_buffer_bytes;    /* sockets.send_buffer, 64KiB; 0: the kernel's own sizing */
	uint32_t receive_buffer_bytes; /* sockets.receive_buffer, 0: the kernel's own sizing */
	uint32_t notsent_lowat_bytes;  /* sockets.notsent_lowat, 16KiB; 0: off */
	uint32_t user_timeout_ms;      /* sockets.user_timeout, 60s; 0: off */

	struct config_admission admission;
	uint32_t sched_sample_percent;    /* sched.sample_percent, 10; 0: nothing is measured */
	uint32_t debug_handshake_us;      /* debug.handshake_cost, 0 */
	uint32_t debug_handshake_turn_us; /* debug.handshake_turn, 1 s */

	struct config_listener *listeners;
	unsigned n_listeners;
	struct config_route *routes;
	unsigned n_routes;
	struct config_upstream *upstreams;
	unsigned n_upstreams;
};

/* Reads and checks a file; NULL: the built-in demo configuration (design.md: websocket 8080 with
 * /echo, raw 8081, admin 9180). 0 with *ret, or -EINVAL (or another errno for the file itself) with
 * *ret_errors: one line per error, "FILE:LINE: KEY: what is wrong" and a newline, in file order, to
 * be freed. -ENOMEM leaves *ret_errors alone. */
int config_load(const char *path, struct config **ret, char **ret_errors);
void config_free(struct config *c);

/* The built-in demo as YAML text, static; the same loader reads it. */
const char *config_demo_yaml(void);

#endif
