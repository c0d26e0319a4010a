/* Loading: the demo, defaults, every value given, files that cannot be read, and input that is no
 * configuration. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "ops/config_parse.h"
#include "support/guard.h"

#define EXAMPLE "docs/tidegate.example.yaml"

static struct config *load(const char *yaml)
{
	struct config *c = NULL;
	char *errors = NULL;

	if (config_parse("t.yaml", yaml, strlen(yaml), &c, &errors) != 0)
		fail_msg("%s", errors ? errors : "no errors");
	return c;
}

static char *read_text(const char *path, size_t *ret_len)
{
	FILE *f = fopen(path, "r");
	char *text = calloc(1, 1 << 16);

	assert_non_null(f);
	assert_non_null(text);
	*ret_len = fread(text, 1, (1 << 16) - 1, f);
	fclose(f);
	return text;
}

static const char minimal[] = "listeners:\n"
			      "  - name: a\n"
			      "    address: 127.0.0.1:1\n"
			      "routes:\n"
			      "  - path: /\n"
			      "    upstream: svc\n"
			      "upstreams:\n"
			      "  - name: svc\n"
			      "    endpoints:\n"
			      "      - unix:/run/svc.sock\n";

static void test_defaults_top(void **state)
{
	struct config *c = load(minimal);

	assert_string_equal(c->path, "t.yaml");
	assert_string_equal(c->instance, "default");
	assert_string_equal(c->user, getpwnam("tidegate") ? "tidegate" : "nobody");
	assert_int_equal(c->workers, 0);
	assert_true(c->pin);
	assert_int_equal(c->rings_max, 64);
	assert_int_equal(c->ring_connections, 0);
	assert_int_equal(c->recv_buffers, 64);
	assert_int_equal(c->recv_buffer_bytes, 8192);
	assert_int_equal(c->turn_us, 200);
	assert_int_equal(c->turn_frames, 64);
	assert_int_equal(c->slice_us, 2000);
	assert_int_equal(c->buffer_cap_bytes, 1 << 30);
	assert_int_equal(c->log_level, LOG_LEVEL_INFO);
	assert_false(c->log_json);
	assert_int_equal(c->log_interval_ms, 10000);
	assert_int_equal(c->log_rate, 10);
	assert_null(c->access_file);
	assert_false(c->access_stderr);
	assert_int_equal(c->access_sample_percent, 100);
	assert_true(c->access_failures_always);
	assert_int_equal(c->access_queue, 4096);
	assert_string_equal(c->admin.text, "127.0.0.1:9180");
	assert_false(c->admin_off);
	assert_int_equal(c->handshake_timeout_ms, 10000);
	assert_int_equal(c->handshake_head_bytes, 8192);
	assert_int_equal(c->handshake_headers, 64);
	assert_int_equal(c->close_timeout_ms, 2000);
	assert_int_equal(c->drain_period_ms, 10000);
	assert_int_equal(c->send_buffer_bytes, 65536);
	assert_int_equal(c->notsent_lowat_bytes, 16384);
	assert_int_equal(c->user_timeout_ms, 60000);
	config_free(c);
}

static void test_defaults_lists(void **state)
{
	struct config *c = load(minimal);
	const struct config_listener *l = &c->listeners[0];
	const struct config_route *r = &c->routes[0];
	const struct config_upstream *u = &c->upstreams[0];

	assert_int_equal(c->n_listeners, 1);
	assert_int_equal(l->protocol, CONFIG_WEBSOCKET);
	assert_int_equal(l->backlog, 4096);
	assert_string_equal(l->health_path, "/healthz");
	assert_false(l->proxy_protocol);
	assert_int_equal(l->line, 2);

	assert_int_equal(c->n_routes, 1);
	assert_null(r->listener);
	assert_null(r->host);
	assert_int_equal(r->listener_index, -1);
	assert_int_equal(r->upstream_index, 0);
	assert_int_equal(r->origins.n, 0);
	assert_int_equal(r->subprotocols.n, 0);
	assert_int_equal(r->max_message_bytes, 16 << 20);
	assert_int_equal(r->heartbeat_ms, 30000);
	assert_int_equal(r->heartbeat_jitter_percent, 20);
	assert_int_equal(r->heartbeat_missed, 2);
	assert_int_equal(r->idle_timeout_ms, 0);
	assert_int_equal(r->client_pings_per_minute, 60);
	assert_int_equal(r->out_queue_bytes, 17 << 20);
	assert_int_equal(r->write_timeout_ms, 30000);
	assert_int_equal(r->line, 5);

	assert_int_equal(c->n_upstreams, 1);
	assert_int_equal(u->endpoints[0].addr.ss_family, AF_UNIX);
	assert_int_equal(u->balance, CONFIG_LEAST_SESSIONS);
	assert_null(u->hash_key);
	assert_int_equal(u->failover, CONFIG_FAILOVER_RESUME);
	assert_int_equal(u->buffer_bytes, 4 << 20);
	assert_int_equal(u->session_window, 256 << 10);
	assert_int_equal(u->link_window, 8 << 20);
	assert_int_equal(u->ping_interval_ms, 2000);
	assert_int_equal(u->ping_timeout_ms, 5000);
	assert_int_equal(u->connect_timeout_ms, 3000);
	assert_int_equal(u->reconnect_min_ms, 100);
	assert_int_equal(u->reconnect_max_ms, 1500);
	assert_int_equal(u->open_timeout_ms, 5000);
	assert_int_equal(u->line, 8);
	config_free(c);
}

static const char everything[] =
	"instance: blue\n"
	"user: root\n"
	"workers: {count: 3, pin: false, rings_max: 2, ring_connections: 64, recv_buffers: 16,\n"
	"  recv_buffer_size: 256, turn: 1ms, turn_frames: 1, slice: 5ms, buffer_cap: 1MiB}\n"
	"log: {level: debug, format: json, interval: 1s, rate: 0}\n"
	"admin: {listen: \"\", socket: /tmp/x.sock, token_file: /x/token}\n"
	"handshake: {timeout: 1s, head_size: 512, headers: 8, close_timeout: 10ms}\n"
	"drain: {period: 1m}\n"
	"sockets: {send_buffer: 0, notsent_lowat: 0, user_timeout: 0}\n"
	"listeners:\n"
	"  - {name: one, address: \"[::1]:65535\", protocol: raw, backlog: 1,\n"
	"     proxy_protocol: {from: [10.0.0.0/8, \"::1\"]}}\n"
	"  - {name: two, address: 0.0.0.0:1, protocol: websocket, health_path: \"\"}\n"
	"routes:\n"
	"  - {listener: one, path: /raw/*, upstream: echo, max_message_size: 1, idle_timeout: 5m,\n"
	"     heartbeat: {interval: 0, jitter_percent: 0, missed: 10}, client_pings_per_minute: "
	"0,\n"
	"     out_queue: {bytes: 1}, write_timeout: 1h}\n"
	"  - {listener: two, host: \"*.Example.com\", path: /, upstream: b, max_message_size: "
	"1GiB,\n"
	"     origins: [\"*\"], subprotocols: [x, y]}\n"
	"upstreams:\n"
	"  - {name: a, type: link, endpoints: [\"tcp://[::1]:1\"], failover: resume}\n"
	"  - {name: b, endpoints: [unix:/x, tcp://127.0.0.1:9], balance: \"hash:X-User\",\n"
	"     failover: close, buffer: 0, session_window: 4KiB, link_window: 4KiB,\n"
	"     ping_interval: 10ms, ping_timeout: 10ms, connect_timeout: 10ms, open_timeout: 10ms,\n"
	"     reconnect: {min: 10ms, max: 10ms}}\n"
	"access_log: {file: /x/access.log, sample_percent: 7, failures: sampled, queue: 2}\n";

static void test_given_top(void **state)
{
	struct config *c = load(everything);

	assert_string_equal(c->instance, "blue");
	assert_string_equal(c->user, "root");
	assert_int_equal(c->workers, 3);
	assert_false(c->pin);
	assert_int_equal(c->rings_max, 2);
	assert_int_equal(c->ring_connections, 64);
	assert_int_equal(c->recv_buffers, 16);
	assert_int_equal(c->recv_buffer_bytes, 256);
	assert_int_equal(c->turn_us, 1000);
	assert_int_equal(c->turn_frames, 1);
	assert_int_equal(c->slice_us, 5000);
	assert_int_equal(c->buffer_cap_bytes, 1 << 20);
	assert_int_equal(c->log_level, LOG_LEVEL_DEBUG);
	assert_true(c->log_json);
	assert_int_equal(c->log_interval_ms, 1000);
	assert_int_equal(c->log_rate, 0);
	assert_string_equal(c->access_file, "/x/access.log");
	assert_false(c->access_stderr);
	assert_int_equal(c->access_sample_percent, 7);
	assert_false(c->access_failures_always);
	assert_int_equal(c->access_queue, 2);
	assert_true(c->admin_off);
	assert_int_equal(c->admin.addr_len, 0);
	assert_string_equal(c->admin_socket, "/tmp/x.sock");
	assert_string_equal(c->admin_token_file, "/x/token");
	assert_int_equal(c->handshake_timeout_ms, 1000);
	assert_int_equal(c->handshake_head_bytes, 512);
	assert_int_equal(c->handshake_headers, 8);
	assert_int_equal(c->close_timeout_ms, 10);
	assert_int_equal(c->drain_period_ms, 60000);
	assert_int_equal(c->send_buffer_bytes, 0);
	assert_int_equal(c->notsent_lowat_bytes, 0);
	assert_int_equal(c->user_timeout_ms, 0);
	config_free(c);
}

static void test_admission(void **state)
{
	struct config *c = load("listeners: [{name: a, address: \"127.0.0.1:1\"}]\n"
				"routes: [{path: /, upstream: echo}]\n");
	const struct config_admission *a = &c->admission;

	assert_int_equal(a->mode, CONFIG_ADMISSION_AUTO);
	assert_int_equal(a->target_us, 5000);
	assert_int_equal(a->tier[0][0].open, 1000);
	assert_int_equal(a->tier[1][2].churn, 1000);
	assert_int_equal(a->penalty_ms, 30000);
	assert_false(a->limit_loopback);
	assert_int_equal(a->n_allow + a->n_deny + a->n_weights, 0);
	assert_int_equal(c->sched_sample_percent, 10);
	assert_int_equal(c->debug_handshake_us, 0);
	config_free(c);

	c = load("listeners: [{name: a, address: \"127.0.0.1:1\"}]\n"
		 "routes: [{path: /, upstream: echo}]\n"
		 "admission: {mode: observe, limit_loopback: true, v4_24_churn: 7, v6_56_open: 8,\n"
		 "  rate_floor: 3, rate_ceiling: 3, allow: [10.0.0.0/8, \"::1\"],\n"
		 "  deny: [2001:db8::/32], weights: [{prefix: 100.64.0.0/10, weight: 0},\n"
		 "  {prefix: 192.0.2.1}]}\n"
		 "sched: {sample_percent: 100}\n"
		 "debug: {handshake_cost: 2ms}\n");
	a = &c->admission;
	assert_int_equal(a->mode, CONFIG_ADMISSION_OBSERVE);
	assert_true(a->limit_loopback);
	assert_int_equal(a->tier[0][1].churn, 7);
	assert_int_equal(a->tier[1][1].open, 8);
	assert_int_equal(a->rate_floor, 3);
	assert_int_equal(a->rate_ceiling, 3);
	assert_int_equal(a->n_allow, 2);
	assert_int_equal(a->allow[0].len, 104);
	assert_int_equal(a->n_deny, 1);
	assert_int_equal(a->deny[0].len, 32);
	assert_int_equal(a->n_weights, 2);
	assert_int_equal(a->weights[0].weight, 0);
	assert_int_equal(a->weights[1].weight, 10);
	assert_int_equal(a->weights[1].prefix.len, 128);
	assert_int_equal(c->sched_sample_percent, 100);
	assert_int_equal(c->debug_handshake_us, 2000);
	config_free(c);
}

static void test_given_listeners(void **state)
{
	struct config *c = load(everything);
	const struct config_listener *l = c->listeners;

	assert_int_equal(c->n_listeners, 2);
	assert_string_equal(l[0].name, "one");
	assert_int_equal(l[0].address.addr.ss_family, AF_INET6);
	assert_int_equal(l[0].protocol, CONFIG_RAW);
	assert_int_equal(l[0].backlog, 1);
	assert_string_equal(l[0].health_path, "");
	assert_true(l[0].proxy_protocol);
	assert_int_equal(l[0].n_proxy_from, 2);
	assert_int_equal(l[0].proxy_from[0].len, 104);
	assert_int_equal(l[0].proxy_from[1].len, 128);
	assert_memory_equal(&l[0].proxy_from[1].addr, &in6addr_loopback, 16);
	assert_int_equal(l[0].line, 11);
	assert_string_equal(l[1].health_path, "");
	assert_int_equal(l[1].line, 13);
	config_free(c);
}

static void test_given_routes(void **state)
{
	struct config *c = load(everything);
	const struct config_route *r = c->routes;

	assert_int_equal(c->n_routes, 2);
	assert_int_equal(r[0].listener_index, 0);
	assert_int_equal(r[0].upstream_index, -1);
	assert_string_equal(r[0].path, "/raw/*");
	assert_int_equal(r[0].max_message_bytes, 1);
	assert_int_equal(r[0].heartbeat_ms, 0);
	assert_int_equal(r[0].heartbeat_jitter_percent, 0);
	assert_int_equal(r[0].heartbeat_missed, 10);
	assert_int_equal(r[0].idle_timeout_ms, 300000);
	assert_int_equal(r[0].client_pings_per_minute, 0);
	assert_int_equal(r[0].out_queue_bytes, 1);
	assert_int_equal(r[0].write_timeout_ms, 3600000);
	assert_int_equal(r[1].listener_index, 1);
	assert_int_equal(r[1].upstream_index, 1);
	assert_string_equal(r[1].host, "*.Example.com");
	assert_int_equal(r[1].origins.n, 1);
	assert_string_equal(r[1].origins.item[0], "*");
	assert_int_equal(r[1].subprotocols.n, 2);
	assert_string_equal(r[1].subprotocols.item[1], "y");
	/* The default follows the largest message. */
	assert_true(r[1].out_queue_bytes == (UINT64_C(1) << 30) + (1 << 20));
	config_free(c);
}

static void test_given_upstreams(void **state)
{
	struct config *c = load(everything);
	const struct config_upstream *u = &c->upstreams[1];
	const struct sockaddr_un *un = (const struct sockaddr_un *)&u->endpoints[0].addr;

	assert_int_equal(c->n_upstreams, 2);
	assert_int_equal(c->upstreams[0].endpoints[0].addr.ss_family, AF_INET6);
	assert_int_equal(u->n_endpoints, 2);
	assert_string_equal(un->sun_path, "/x");
	assert_int_equal(u->endpoints[1].addr.ss_family, AF_INET);
	assert_int_equal(u->balance, CONFIG_HASH);
	assert_string_equal(u->hash_key, "X-User");
	assert_int_equal(u->failover, CONFIG_FAILOVER_CLOSE);
	assert_int_equal(u->buffer_bytes, 0);
	assert_int_equal(u->session_window, 4096);
	assert_int_equal(u->link_window, 4096);
	assert_int_equal(u->ping_interval_ms, 10);
	assert_int_equal(u->ping_timeout_ms, 10);
	assert_int_equal(u->connect_timeout_ms, 10);
	assert_int_equal(u->reconnect_min_ms, 10);
	assert_int_equal(u->reconnect_max_ms, 10);
	assert_int_equal(u->open_timeout_ms, 10);
	config_free(c);
}

/* What may look alike and is not: the same path on another listener or host, the same port on
 * another address. */
static void test_near_twins(void **state)
{
	config_free(load("listeners:\n"
			 "  - {name: a, address: 127.0.0.1:1}\n"
			 "  - {name: b, address: 127.0.0.2:1}\n"
			 "  - {name: c, address: \"[::1]:1\", protocol: raw}\n"
			 "routes:\n"
			 "  - {path: /x, upstream: echo}\n"
			 "  - {path: /x, upstream: echo, listener: a}\n"
			 "  - {path: /x, upstream: echo, listener: b}\n"
			 "  - {path: /x, upstream: echo, listener: c}\n"
			 "  - {path: /x, upstream: echo, host: a, origins: [https://a]}\n"
			 "  - {path: /x/*, upstream: echo}\n"
			 "  - {path: /X, upstream: echo}\n"));
}

static void test_demo(void **state)
{
	struct config *c = NULL;
	char *errors = NULL;

	assert_int_equal(config_load(NULL, &c, &errors), 0);
	assert_null(errors);
	assert_null(c->path);
	assert_int_equal(c->n_listeners, 2);
	assert_string_equal(c->listeners[0].address.text, "127.0.0.1:8080");
	assert_int_equal(c->listeners[0].protocol, CONFIG_WEBSOCKET);
	assert_string_equal(c->listeners[1].address.text, "127.0.0.1:8081");
	assert_int_equal(c->listeners[1].protocol, CONFIG_RAW);
	assert_int_equal(c->n_routes, 3);
	assert_string_equal(c->routes[0].path, "/echo");
	assert_int_equal(c->routes[0].upstream_index, CONFIG_UPSTREAM_ECHO);
	assert_string_equal(c->routes[1].path, "/hub");
	assert_int_equal(c->routes[1].upstream_index, CONFIG_UPSTREAM_HUB);
	assert_string_equal(c->routes[2].path, "/service");
	assert_int_equal(c->routes[2].upstream_index, 0);
	assert_string_equal(c->upstreams[0].endpoints[0].text, "tcp://127.0.0.1:9300");
	assert_string_equal(c->admin.text, "127.0.0.1:9180");
	config_free(c);
	config_free(NULL);
}

static void test_admin_socket(void **state)
{
	char want[128];
	struct config *c;

	setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
	c = load(everything);
	assert_string_equal(c->admin_socket, "/tmp/x.sock");
	config_free(c);

	c = load(minimal);
	snprintf(want, sizeof(want), "%s/tidegate/default/admin.sock",
		geteuid() == 0 ? "/run" : "/run/user/7");
	assert_string_equal(c->admin_socket, want);
	config_free(c);

	unsetenv("XDG_RUNTIME_DIR");
	c = load(minimal);
	if (geteuid() == 0)
		snprintf(want, sizeof(want), "/run/tidegate/default/admin.sock");
	else
		snprintf(want, sizeof(want), "/tmp/tidegate-%u/default/admin.sock", geteuid());
	assert_string_equal(c->admin_socket, want);
	config_free(c);
}

static void test_unreadable(void **state)
{
	struct config *c = NULL;
	char *errors = NULL;

	assert_int_equal(config_load("/nonexistent/x.yaml", &c, &errors), -ENOENT);
	assert_string_equal(errors, "/nonexistent/x.yaml: No such file or directory\n");
	free(errors);
	assert_int_equal(config_load("/", &c, &errors), -EISDIR);
	assert_string_equal(errors, "/: Is a directory\n");
	free(errors);
	assert_int_equal(config_load("/dev/zero", &c, &errors), -EFBIG);
	assert_string_equal(errors, "/dev/zero: File too large\n");
	free(errors);
	assert_int_equal(config_load("/dev/null", &c, &errors), -EINVAL);
	assert_string_equal(errors, "/dev/null:1: yaml: the file is empty\n");
	free(errors);
	assert_null(c);
}

static void test_file(void **state)
{
	char path[] = "/tmp/tidegate-test-XXXXXX", want[128];
	struct config *c = NULL;
	char *errors = NULL;
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, minimal, strlen(minimal)), strlen(minimal));
	assert_int_equal(config_load(path, &c, &errors), 0);
	assert_string_equal(c->path, path);
	config_free(c);

	c = NULL;
	assert_int_equal(write(fd, "x: 1\n", 5), 5);
	assert_int_equal(config_load(path, &c, &errors), -EINVAL);
	snprintf(want, sizeof(want), "%s:11: x: unknown key", path);
	assert_memory_equal(errors, want, strlen(want));
	assert_null(c);
	free(errors);
	close(fd);
	unlink(path);
}

/* The input ends at a page that must not be touched; every outcome is a configuration or errors
 * that name a line. */
static void try_input(struct guard *g, const char *text, size_t len)
{
	struct config *c = NULL;
	char *errors = NULL;
	int err = config_parse("t", guard_copy(g, text, len), len, &c, &errors);

	if (err == 0) {
		assert_non_null(c);
		assert_null(errors);
	} else {
		assert_int_equal(err, -EINVAL);
		assert_null(c);
		assert_memory_equal(errors, "t:", 2);
		assert_true(atoi(errors + 2) > 0);
	}
	config_free(c);
	free(errors);
}

static void test_cut_off(void **state)
{
	struct guard g;
	size_t len = strlen(everything);

	guard_init(&g, 1 << 16);
	for (size_t i = 0; i <= len; i++)
		try_input(&g, everything, i);

	char *text = read_text(EXAMPLE, &len);
	for (size_t i = 0; i <= len; i += 7)
		try_input(&g, text, i);
	free(text);
	guard_fini(&g);
}

static uint32_t next_random(uint32_t *seed)
{
	*seed = *seed * 1664525 +
		1013904223; /* Numerical Recipes' constants; the same bytes at every run */
	return *seed >> 8;
}

static void test_garbage(void **state)
{
	static const char spice[] = "{}[]:,-?&*!|>'\"%@`#\n\t \\\x00\x01\x7f\xc3\xff~0";
	uint32_t seed = 1;
	struct guard g;
	char text[sizeof(everything)];

	guard_init(&g, sizeof(text));
	for (int round = 0; round < 3000; round++) {
		memcpy(text, everything, sizeof(text));
		for (unsigned n = 1 + next_random(&seed) % 6; n > 0; n--) {
			char c = spice[next_random(&seed) % (sizeof(spice) - 1)];
			text[next_random(&seed) % (sizeof(text) - 1)] = c;
		}
		try_input(&g, text, sizeof(text) - 1);
	}
	for (int round = 0; round < 1000; round++) {
		size_t len = next_random(&seed) % 200;
		for (size_t i = 0; i < len; i++)
			text[i] = (char)next_random(&seed);
		try_input(&g, text, len);
	}
	guard_fini(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults_top),
		cmocka_unit_test(test_defaults_lists),
		cmocka_unit_test(test_given_top),
		cmocka_unit_test(test_admission),
		cmocka_unit_test(test_given_listeners),
		cmocka_unit_test(test_given_routes),
		cmocka_unit_test(test_given_upstreams),
		cmocka_unit_test(test_near_twins),
		cmocka_unit_test(test_demo),
		cmocka_unit_test(test_admin_socket),
		cmocka_unit_test(test_unreadable),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_cut_off),
		cmocka_unit_test(test_garbage),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
