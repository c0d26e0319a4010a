/* What a wrong configuration is answered with: the exact line and key of every error. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/config_parse.h"
#include "support/guard.h"

#define N(array) (sizeof(array) / sizeof(*(array)))

/* Lines 1-3, 4-6 and, where used, 7-10 of a file. */
#define L "listeners:\n  - name: ws\n    address: 127.0.0.1:8080\n"
#define R "routes:\n  - path: /echo\n    upstream: echo\n"
#define U "upstreams:\n  - name: svc\n    endpoints:\n      - tcp://127.0.0.1:9300\n"

struct bad {
	const char *yaml;
	const char *at;  /* "LINE: KEY: " */
	const char *why; /* part of the rest */
};

static const struct bad structure[] = {
	{"", "1: yaml: ", "empty"},
	{"# nothing\n", "1: yaml: ", "empty"},
	{"---\n", "2: yaml: ", "must be a mapping"},
	{"\n\nhello\n", "3: yaml: ", "must be a mapping"},
	{"- a\n- b\n", "1: yaml: ", "must be a mapping"},
	{L R "a: b: c\n", "7: yaml: ", "mapping values are not allowed"},
	{L R "log:\n  level: info\n format: json\n", "9: yaml: ", "did not find expected key"},
	{L R "log:\n\tlevel: info\n", "8: yaml: ", "cannot start any token"},
	{L R "user: \"abc\n", "8: yaml: ", "quoted scalar that begins on line 7"},
	{L R "user: {a: 1\n", "8: yaml: ", "flow mapping"},
	{L R "user: \xff\xfe\n", "7: yaml: ", "UTF-8"},
	{L R "user: a\x01z\n", "7: yaml: ", "control characters"},
	{L R "user: @x\n", "7: yaml: ", "cannot start any token"},
	{"\xff\xfe", "1: yaml: ", "empty"}, /* a UTF-16 mark and nothing else */
	{L R "---\na: 1\n", "7: yaml: ", "second document"},
	{L R "x: &a b\ny: *a\n", "8: y: ", "aliases"},
	{"listeners: &l\n  - name: ws\nroutes:\n  - *l\n", "4: routes[0]: ", "aliases"},
	{L R "*a : b\n", "7: *: ", "aliases"},
	{L R "? [a, b]\n: c\n", "7: yaml: ", "plain text"},
	{L R "log:\n  ? {a: b}\n  : c\n", "8: log: ", "plain text"},
	{L R "\"a\\0b\": c\n", "7: yaml: ", "plain text"},
	{L R "user: \"a\\0b\"\n", "7: user: ", "NUL"},
	{L R "user: !include x\n", "7: user: ", "tag (!include)"},
	{L R "log: !!map {level: info}\n", "7: log: ", "tag"},
	{L R "user:\n", "7: user: ", "no value"},
	{L R "user: ~\n", "7: user: ", "no value"},
	{L R "user: null\n", "7: user: ", "no value"},
	{L R "workers:\nuser: nobody\n", "7: workers: ", "no value"},
	{L "routes:\n  -\n", "5: routes[0]: ", "no value"},
	{L R "user: a\nuser: b\n", "8: user: ", "given twice, first on line 7"},
	{L R R, "7: routes: ", "given twice, first on line 4"},
	{L "routes:\n  - path: /a\n    upstream: echo\n    path: /b\n",
		"7: routes[0].path: ", "given twice, first on line 5"},
	{L R "a: {b: {c: {d: {e: {f: {g: {h: {i: j}}}}}}}}\n",
		"7: a.b.c.d.e.f.g.h: ", "too deeply"},
	{L R "x: [[[[[[[[[[[[[[[[\n", "7: x[0][0][0][0][0][0][0]: ", "too deeply"},
	{L R "users: a\n", "7: users: ", "unknown key; known here: instance, user, workers"},
	{L R "workers:\n  count: 1\n  threads: 2\n", "9: workers.threads: ", "unknown key"},
	{"listeners:\n  - name: ws\n    address: 127.0.0.1:80\n    port: 80\n" R,
		"4: listeners[0].port: ", "unknown key; known here: name, address"},
	{L "routes:\n  - path: /a\n    upstream: echo\n  - path: /b\n    upsteam: echo\n",
		"8: routes[1].upsteam: ", "unknown key"},
	{L R "upstreams:\n  - name: a\n    reconnect:\n      mn: 1s\n",
		"10: upstreams[0].reconnect.mn: ", "known here: min, max"},
	{L R "a.b[3]: c\n", "7: a.b[3]: ", "unknown key"},
	{L R "\"a\\nb\": c\n", "7: a?b: ", "unknown key"},
	{"routes:\n  - path: /a\n    upstream: echo\n", "1: listeners: ", "is missing"},
	{"\n\n" L, "3: routes: ", "is missing"},
	{"{}\n", "1: listeners: ", "is missing"},
	{"listeners:\n  - address: 127.0.0.1:80\n" R, "2: listeners[0].name: ", "is missing"},
	{"listeners:\n  - name: a\n" R, "2: listeners[0].address: ", "is missing"},
	{L "routes:\n  - path: /a\n    upstream: echo\n  - upstream: echo\n",
		"7: routes[1].path: ", "is missing"},
	{L "routes:\n  - path: /a\n", "5: routes[0].upstream: ", "is missing"},
	{L R "upstreams:\n  - name: a\n", "8: upstreams[0].endpoints: ", "is missing"},
	{"listeners:\n  - name: a\n    address: 127.0.0.1:80\n    proxy_protocol: {}\n" R,
		"4: listeners[0].proxy_protocol.from: ", "is missing"},
	{L R "log: info\n", "7: log: ", "must be a mapping (key: value), not a single value"},
	{L R "log: [info]\n", "7: log: ", "must be a mapping (key: value), not a list"},
	{L R "user: [a]\n", "7: user: ", "must be a single value, not a list"},
	{L R "user:\n  a: b\n", "7: user: ", "must be a single value, not a mapping"},
	{L R "log:\n  level: {}\n", "8: log.level: ", "must be a single value, not a mapping"},
	{L "routes: /echo\n", "4: routes: ", "must be a list, not a single value"},
	{L "routes:\n  path: /echo\n", "4: routes: ", "must be a list, not a mapping"},
	{L "routes:\n  - /echo\n",
		"5: routes[0]: ", "must be a mapping (key: value), not a single"},
	{L "routes:\n  - path: /a\n    upstream: echo\n    origins: https://a\n",
		"7: routes[0].origins: ", "must be a list"},
	{L "routes:\n  - path: /a\n    upstream: echo\n    origins:\n      - https://a\n      - "
	   "[b]\n",
		"9: routes[0].origins[1]: ", "must be a single value, not a list"},
	{L R "log:\n  level: loud\n",
		"8: log.level: ", "\"loud\" is not one of: error, warn, info, debug"},
	{L R "log:\n  format: JSON\n", "8: log.format: ", "not one of: human, json"},
	{L R "log:\n  level: 1\n", "8: log.level: ", "not one of"},
	{L R "workers:\n  pin: yes\n", "8: workers.pin: ", "\"yes\" is not one of: true, false"},
	{"listeners:\n  - name: a\n    address: 127.0.0.1:80\n  - name: b\n    address: "
	 "127.0.0.1:81\n"
	 "    protocol: tcp\n" R,
		"6: listeners[1].protocol: ", "not one of: websocket, raw"},
	{L R U "    type: nats\n", "11: upstreams[0].type: ", "not one of: link"},
	{L R U "    failover: retry\n", "11: upstreams[0].failover: ", "not one of: resume, close"},
};

#define KEYS "auth:\n  keys:\n    - algorithm: RS256\n      file: /k.pem\n" /* 7-10 */

static const struct bad values[] = {
	{L R "auth:\n  keys:\n    - file: /k.pem\n      algorithm: RS256\n    - file: /l.pem\n"
	     "      algorithm: ES256\n",
		"11: auth.keys[1].kid: ", "is missing, as in auth.keys[0]"},
	{L R "auth:\n  keys:\n    - file: /k.pem\n      algorithm: RS256\n      kid: a\n"
	     "    - file: /l.pem\n      algorithm: ES256\n      kid: a\n",
		"14: auth.keys[1].kid: ", "already the kid of auth.keys[0]"},
	{L R "auth:\n  keys:\n    - file: k.pem\n      algorithm: RS256\n",
		"9: auth.keys[0].file: ", "is not an absolute path"},
	{L R "auth:\n  secrets:\n    - /a\n    - /a\n", "10: auth.secrets[1]: ", "given twice"},
	{L R "auth:\n  secrets: [a]\n", "8: auth.secrets[0]: ", "is not an absolute path"},
	{L R "auth:\n  leeway: 1500ms\n", "8: auth.leeway: ", "must be whole seconds"},
	{L R "auth:\n  claim: \"\"\n", "8: auth.claim: ", "must not be empty"},
	{L R "crypto:\n  queue: 1000\n", "8: crypto.queue: ", "a power of two"},
	{L R "    auth:\n      type: token\n", "8: routes[0].auth.type: ", "auth.secrets"},
	{L R "    auth:\n      type: jwt\n", "8: routes[0].auth.type: ", "auth.keys"},
	{L R "    auth:\n      refresh: true\n", "8: routes[0].auth.refresh: ", "no token"},
	{L R "    auth:\n      issuer: x\n" KEYS,
		"8: routes[0].auth.issuer: ", "only tokens of type jwt"},
	{L R "    auth:\n      audience: [x]\n" KEYS,
		"8: routes[0].auth.audience: ", "only tokens of type jwt"},
	{L R "    subprotocols: [tg.token.x]\n",
		"7: routes[0].subprotocols[0]: ", "client's token"},
	{"listeners: []\n" R, "1: listeners: ", "at least one"},
	{L "routes: []\n", "4: routes: ", "at least one"},
	{L R "instance: a/b\n", "7: instance: ", "letters, digits"},
	{L R "instance: \"\"\n", "7: instance: ", "must not be empty"},
	{L R "user: a b\n", "7: user: ", "not an account name"},
	{L R "workers:\n  count: 65\n", "8: workers.count: ", "65 is out of range: 0 .. 64"},
	{L R "workers:\n  count: many\n", "8: workers.count: ", "\"many\" is not a whole number"},
	{L R "workers:\n  count: -1\n", "8: workers.count: ", "not a whole number"},
	{L R "workers:\n  count: 0x4\n", "8: workers.count: ", "not a whole number"},
	{L R "workers:\n  rings_max: 65\n", "8: workers.rings_max: ", "out of range: 1 .. 64"},
	{L R "workers:\n  rings_max: 0\n", "8: workers.rings_max: ", "out of range"},
	{L R "workers:\n  ring_connections: 63\n",
		"8: workers.ring_connections: ", "out of range: 0 or 64 .. 1000000"},
	{L R "workers:\n  recv_buffers: 100\n", "8: workers.recv_buffers: ", "a power of two"},
	{L R "workers:\n  recv_buffers: 65536\n", "8: workers.recv_buffers: ", "out of range"},
	{L R "workers:\n  recv_buffer_size: 128KiB\n",
		"8: workers.recv_buffer_size: ", "128KiB is out of range: 256 .. 64KiB"},
	{L R "workers:\n  turn: 5\n", "8: workers.turn: ", "no unit"},
	{L R "workers:\n  turn: 5us\n", "8: workers.turn: ", "out of range: 10us .. 100ms"},
	{L R "workers:\n  turn: 10ms\n", "8: workers.turn: ", "must not be above slice"},
	{L R "workers:\n  slice: 2min\n", "8: workers.slice: ", "not a duration"},
	{L R "workers:\n  turn_frames: 0\n", "8: workers.turn_frames: ", "out of range"},
	{L R "workers:\n  buffer_cap: 1GB\n", "8: workers.buffer_cap: ", "not a size"},
	{L R "log:\n  interval: 0\n", "8: log.interval: ", "out of range: 100ms .. 1h"},
	{L R "log:\n  rate: 1000001\n", "8: log.rate: ", "out of range"},
	{L R "admin:\n  listen: localhost:9180\n", "8: admin.listen: ", "not resolved"},
	{L R "access_log:\n  file: access.log\n", "8: access_log.file: ", "not an absolute path"},
	{L R "access_log:\n  file: stdout\n", "8: access_log.file: ", "not an absolute path"},
	{L R "access_log:\n  queue: 3\n", "8: access_log.queue: ", "a power of two"},
	{L R "access_log:\n  sample_percent: 101\n",
		"8: access_log.sample_percent: ", "out of range"},
	{L R "admin:\n  socket: run/x.sock\n", "8: admin.socket: ", "not an absolute path"},
	{L R "admin:\n  token_file: token\n", "8: admin.token_file: ", "not an absolute path"},
	{L R "admin:\n  socket: \"\"\n", "8: admin.socket: ", "not an absolute path"},
	{L R "handshake:\n  timeout: 1us\n", "8: handshake.timeout: ", "milliseconds"},
	{L R "handshake:\n  head_size: 511\n", "8: handshake.head_size: ", "out of range"},
	{L R "handshake:\n  headers: 65\n", "8: handshake.headers: ", "out of range: 8 .. 64"},
	{L R "handshake:\n  close_timeout: 2h\n", "8: handshake.close_timeout: ", "out of range"},
	{L R "drain:\n  period: -1s\n", "8: drain.period: ", "not a duration"},
	{L R "sockets:\n  send_buffer: 1KiB\n", "8: sockets.send_buffer: ", "0 or 4KiB .. 64MiB"},
	{L R "sockets:\n  notsent_lowat: 1\n", "8: sockets.notsent_lowat: ", "out of range"},
	{L R "sockets:\n  user_timeout: 25h\n", "8: sockets.user_timeout: ", "0 or 100ms .. 24h"},
	{L R "admission:\n  mode: strict\n", "8: admission.mode: ",
		"\"strict\" is not one of: auto, kernel, user, observe, off"},
	{L R "admission:\n  target_delay: 5\n", "8: admission.target_delay: ", "no unit"},
	{L R "admission:\n  rate_floor: 0\n", "8: admission.rate_floor: ", "1 .. 1000000"},
	{L R "admission: {rate_floor: 20, rate_ceiling: 10}\n",
		"7: admission.rate_floor: ", "must not be above rate_ceiling"},
	{L R "admission: {memory_low_percent: 95}\n",
		"7: admission.memory_low_percent: ", "must not be above memory_high_percent"},
	{L R "admission: {penalty: 2h}\n",
		"7: admission.penalty: ", "must not be above penalty_max"},
	{L R "admission:\n  deny:\n    - 10.0.0.0/8\n    - 10.0.0.1/8\n",
		"10: admission.deny[1]: ", "bits beyond"},
	{L R "admission:\n  allow: [localhost]\n",
		"8: admission.allow[0]: ", "not an address or a prefix"},
	{L R "admission:\n  weights:\n    - prefix: 10.0.0.0/33\n",
		"9: admission.weights[0].prefix: ", "above 32"},
	{L R "admission:\n  weights:\n    - weight: 3\n",
		"9: admission.weights[0].prefix: ", "is missing"},
	{L R "admission:\n  v4_32_open: -1\n", "8: admission.v4_32_open: ", "not a whole number"},
	{L R "sched: {sample_percent: 101}\n", "7: sched.sample_percent: ", "out of range"},
	{L R "debug: {handshake_cost: 2s}\n", "7: debug.handshake_cost: ", "out of range"},
	{"listeners:\n  - name: a b\n    address: 127.0.0.1:80\n" R,
		"2: listeners[0].name: ", "letters, digits"},
	{"listeners:\n  - name: a\n    address: example.com:80\n" R, "3: listeners[0].address: ",
		"\"example.com:80\" has a host that is not a numeric address"},
	{"listeners:\n  - name: a\n    address: 127.0.0.1:0\n" R,
		"3: listeners[0].address: ", "1 .. 65535"},
	{"listeners:\n  - name: a\n    address: unix:/x\n" R, "3: listeners[0].address: ", "TCP"},
	{L "    backlog: 0\n" R, "4: listeners[0].backlog: ", "out of range: 1 .. 65535"},
	{L "    health_path: healthz\n" R, "4: listeners[0].health_path: ", "begin with '/'"},
	{L "    health_path: /h/*\n" R, "4: listeners[0].health_path: ", "must not contain '*'"},
	{L "    protocol: raw\n    health_path: /healthz\n" R,
		"5: listeners[0].health_path: ", "a raw listener has no health path"},
	{L "    proxy_protocol:\n      from: []\n" R,
		"5: listeners[0].proxy_protocol.from: ", "at least one"},
	{L "    proxy_protocol:\n      from:\n        - 10.0.0.0/8\n        - 10.0.0.1/8\n" R,
		"7: listeners[0].proxy_protocol.from[1]: ", "bits beyond"},
	{L "    proxy_protocol: {from: [example.com]}\n" R,
		"4: listeners[0].proxy_protocol.from[0]: ", "not an address or a prefix"},
	{L "  - name: ws\n    address: 127.0.0.1:81\n" R,
		"4: listeners[1].name: ", "\"ws\" is already the name of listeners[0]"},
	{L "  - name: x\n    address: 127.0.0.1:8080\n" R,
		"5: listeners[1].address: ", "already the address of listeners[0]"},
	{L R "admin:\n  listen: 127.0.0.1:8080\n",
		"3: listeners[0].address: ", "already the address of admin.listen"},
	{L R "    listener: raw\n", "7: routes[0].listener: ", "there is no listener \"raw\""},
	{L R "    host: example.com:80\n", "7: routes[0].host: ", "must not have a port"},
	{L R "    host: a..b\n", "7: routes[0].host: ", "empty part"},
	{L "routes:\n  - path: echo\n    upstream: echo\n",
		"5: routes[0].path: ", "begin with '/'"},
	{L "routes:\n  - path: /a*\n    upstream: echo\n", "5: routes[0].path: ", "last part"},
	{L "routes:\n  - path: /a?b=c\n    upstream: echo\n", "5: routes[0].path: ", "query"},
	{L "routes:\n  - path: /a\n    upstream: svc\n",
		"6: routes[0].upstream: ", "there is no upstream \"svc\""},
	{L R "    hub: {payload_size: 1KiB}\n",
		"7: routes[0].hub: ", "only of use with upstream hub"},
	{L "routes:\n  - path: /h\n    upstream: hub\n    hub: {payload_size: 2MiB}\n",
		"7: routes[0].hub.payload_size: ", "out of range: 1 .. 1MiB"},
	{L R "    origins:\n      - https://a\n      - https://a/\n",
		"9: routes[0].origins[1]: ", "must not have a path"},
	{L R "    subprotocols: [a, b c]\n", "7: routes[0].subprotocols[1]: ", "not a token"},
	{L R "    subprotocols: [a, b, a]\n", "7: routes[0].subprotocols[2]: ", "given twice"},
	{L R "    max_message_size: 0\n",
		"7: routes[0].max_message_size: ", "out of range: 1 .. 1GiB"},
	{L R "    max_message_size: 2GiB\n", "7: routes[0].max_message_size: ", "out of range"},
	{L R "    heartbeat:\n      interval: 30\n",
		"8: routes[0].heartbeat.interval: ", "no unit"},
	{L R "    heartbeat:\n      jitter_percent: 51\n",
		"8: routes[0].heartbeat.jitter_percent: ", "out of range: 0 .. 50"},
	{L R "    heartbeat: {missed: 0}\n",
		"7: routes[0].heartbeat.missed: ", "out of range: 1 .. 10"},
	{L R "    idle_timeout: 1ms\n", "7: routes[0].idle_timeout: ", "0 or 10ms .. 168h"},
	{L R "    client_pings_per_minute: 256\n",
		"7: routes[0].client_pings_per_minute: ", "out of range: 0 .. 255"},
	{L R "    client_pings_per_minute: 6e3\n",
		"7: routes[0].client_pings_per_minute: ", "not a whole number"},
	{L R "    out_queue:\n      bytes: 15MiB\n",
		"8: routes[0].out_queue.bytes: ", "must not be below max_message_size (16MiB)"},
	{L R "    write_timeout: 0\n", "7: routes[0].write_timeout: ", "out of range"},
	{L R "  - path: /echo\n    upstream: echo\n",
		"7: routes[1].path: ", "already taken by routes[0]"},
	{L "routes:\n  - path: /a\n    host: A.example\n    upstream: echo\n"
	   "  - path: /a\n    host: a.EXAMPLE\n    upstream: echo\n",
		"8: routes[1].path: ", "already taken"},
	{L "    protocol: raw\n" R "    origins: [https://a]\n",
		"8: routes[0].origins: ", "only WebSocket clients"},
	{L "    protocol: raw\n" R "    listener: ws\n    subprotocols: [a]\n",
		"9: routes[0].subprotocols: ", "only WebSocket clients"},
	{L "    protocol: raw\n" R "    host: a\n",
		"8: routes[0].host: ", "only WebSocket clients"},
	{L R "upstreams:\n  - name: echo\n    endpoints: [tcp://127.0.0.1:1]\n",
		"8: upstreams[0].name: ", "built-in"},
	{L R "upstreams:\n  - name: hub\n    endpoints: [tcp://127.0.0.1:1]\n",
		"8: upstreams[0].name: ", "built-in"},
	{L R U "  - name: svc\n    endpoints: [tcp://127.0.0.1:1]\n",
		"11: upstreams[1].name: ", "already the name of upstreams[0]"},
	{L R "upstreams:\n  - name: a\n    endpoints: []\n",
		"9: upstreams[0].endpoints: ", "at least one"},
	{L R U "      - 127.0.0.1:9300\n", "11: upstreams[0].endpoints[1]: ", "not an endpoint"},
	{L R U "      - tcp://127.0.0.1:9300\n", "11: upstreams[0].endpoints[1]: ", "given twice"},
	{L R U "      - unix:run/x\n", "11: upstreams[0].endpoints[1]: ", "absolute path"},
	{L R U "    balance: random\n",
		"11: upstreams[0].balance: ", "least-sessions or hash:NAME"},
	{L R U "    balance: \"hash:\"\n", "11: upstreams[0].balance: ", "must not be empty"},
	{L R U "    balance: \"hash:a b\"\n", "11: upstreams[0].balance: ", "not a token"},
	{L R U "    buffer: lots\n", "11: upstreams[0].buffer: ", "not a size"},
	{L R U "    session_window: 4095\n",
		"11: upstreams[0].session_window: ", "out of range: 4KiB .. 1GiB"},
	{L R U "    link_window: 128KiB\n",
		"8: upstreams[0].session_window: ", "must not be above link_window"},
	{L R U "    session_window: 9MiB\n",
		"11: upstreams[0].session_window: ", "must not be above link_window"},
	{L R U "    ping_interval: 0\n", "11: upstreams[0].ping_interval: ", "out of range"},
	{L R U "    ping_timeout: 2\n", "11: upstreams[0].ping_timeout: ", "no unit"},
	{L R U "    connect_timeout: 1h\n", "11: upstreams[0].connect_timeout: ", "out of range"},
	{L R U "    reconnect:\n      min: 2s\n",
		"12: upstreams[0].reconnect.min: ", "must not be above reconnect.max"},
	{L R U "    reconnect:\n      min: 1s\n      max: 0\n",
		"13: upstreams[0].reconnect.max: ", "out of range"},
	{L R U "    open_timeout: 5\n", "11: upstreams[0].open_timeout: ", "no unit"},
};

/* One error, exactly, with this beginning. */
static void expect(const struct bad *bad)
{
	struct config *c = NULL;
	char *errors = NULL;
	char begin[256];
	struct guard g;
	size_t len = strlen(bad->yaml);

	guard_init(&g, len + 1);
	int err = config_parse("t.yaml", guard_copy(&g, bad->yaml, len), len, &c, &errors);
	guard_fini(&g);
	if (err != -EINVAL || c || !errors)
		fail_msg("%d for\n%s", err, bad->yaml);

	snprintf(begin, sizeof(begin), "t.yaml:%s", bad->at);
	if (strncmp(errors, begin, strlen(begin)) != 0 || !strstr(errors, bad->why) ||
		strchr(errors, '\n') != errors + strlen(errors) - 1)
		fail_msg("wanted %s...%s\ngot    %s\nfor\n%s", begin, bad->why, errors, bad->yaml);
	free(errors);
}

static void test_structure(void **state)
{
	for (size_t i = 0; i < N(structure); i++)
		expect(&structure[i]);
}

static void test_values(void **state)
{
	for (size_t i = 0; i < N(values); i++)
		expect(&values[i]);
}

static char *errors_of(const char *yaml)
{
	struct config *c = NULL;
	char *errors = NULL;

	assert_int_equal(config_parse("t.yaml", yaml, strlen(yaml), &c, &errors), -EINVAL);
	assert_null(c);
	assert_non_null(errors);
	return errors;
}

/* All of them, in file order, although the upstreams stand first and are judged last. */
static void test_all_in_order(void **state)
{
	char *errors = errors_of("upstreams:\n"
				 "  - name: svc\n"
				 "    endpoints: [tcp://db:1, tcp://127.0.0.1:9300]\n"
				 "    reconnect: {min: 1h, max: 1s}\n"
				 "log:\n"
				 "  interval: 10\n"
				 "routes:\n"
				 "  - path: a\n"
				 "    upstream: svc\n"
				 "  - path: /b\n"
				 "    upstream: nowhere\n"
				 "    heartbeat: {missed: 11, interval: 1}\n"
				 "listeners:\n"
				 "  - name: ws\n"
				 "    address: 127.0.0.1:70000\n");
	static const char *const want[] = {
		"t.yaml:3: upstreams[0].endpoints[0]: ",
		"t.yaml:4: upstreams[0].reconnect.min: ",
		"t.yaml:6: log.interval: ",
		"t.yaml:8: routes[0].path: ",
		"t.yaml:11: routes[1].upstream: ",
		"t.yaml:12: routes[1].heartbeat.interval: ",
		"t.yaml:12: routes[1].heartbeat.missed: ",
		"t.yaml:15: listeners[0].address: ",
	};
	const char *line = errors;

	for (size_t i = 0; i < N(want); i++) {
		if (strncmp(line, want[i], strlen(want[i])) != 0)
			fail_msg("wanted %s, got %s", want[i], line);
		line = strchr(line, '\n') + 1;
	}
	assert_string_equal(line, "");
	free(errors);
}

static void test_duplicates_together(void **state)
{
	char *errors = errors_of(L R "user: a\nuser: b\nlog: {rate: 1, rate: 2}\nuser: c\n");

	assert_string_equal(errors, "t.yaml:8: user: given twice, first on line 7\n"
				    "t.yaml:9: log.rate: given twice, first on line 9\n"
				    "t.yaml:10: user: given twice, first on line 7\n");
	free(errors);
}

/* Nobody reads a thousand errors: a hundred are shown, the rest counted. */
static void test_error_flood(void **state)
{
	char *yaml = NULL;
	size_t len;
	FILE *f = open_memstream(&yaml, &len);

	fputs(L "routes:\n", f);
	for (int i = 0; i < 150; i++)
		fprintf(f, "  - {path: x%d, upstream: echo}\n", i);
	fclose(f);
	char *errors = errors_of(yaml);
	const char *last = strstr(errors, "t.yaml:104: routes[99].path: ");
	assert_non_null(last);
	assert_null(strstr(errors, "routes[100]"));
	assert_string_equal(strchr(last, '\n') + 1, "t.yaml: and 50 more errors\n");
	free(errors);
	free(yaml);
}

static char *repeated(const char *head, const char *fmt, int n)
{
	char *yaml = NULL;
	size_t len;
	FILE *f = open_memstream(&yaml, &len);

	fputs(head, f);
	for (int i = 0; i < n; i++)
		fprintf(f, fmt, i, i);
	fclose(f);
	return yaml;
}

static void expect_bound(char *yaml, const char *want)
{
	char *errors = errors_of(yaml);

	if (!strstr(errors, want))
		fail_msg("wanted %s, got %s", want, errors);
	free(errors);
	free(yaml);
}

static void test_bounds(void **state)
{
	expect_bound(repeated(R "listeners:\n", "  - name: n%d\n    address: 127.0.0.1:%d\n", 65),
		"t.yaml:4: listeners: has more than 64 entries");
	expect_bound(repeated(L "routes:\n", "  - path: /%d\n    upstream: echo\n", 1025),
		"t.yaml:4: routes: has more than 1024 entries");
	expect_bound(repeated(L R "    origins:\n", "      - https://a%d\n", 257),
		"t.yaml:7: routes[0].origins: has more than 256 entries");
	expect_bound(repeated(L R "upstreams:\n  - name: a\n    endpoints:\n",
			     "      - tcp://127.0.0.1:%d\n", 65),
		"t.yaml:9: upstreams[0].endpoints: has more than 64 entries");
	expect_bound(repeated(L R, "k%d: v\n", 100), "more than 64 keys in one mapping");
	expect_bound(repeated(L R "    origins: [", "x,", 250001), "more than 250000 values");
}

/* Long and unprintable input must not spill over: one line per error, cut. */
static void test_long_texts(void **state)
{
	char *yaml = repeated(L R, "x", 900); /* libyaml takes keys of up to 1,024 */
	char *errors;

	memcpy(yaml + strlen(yaml) - 6, ": abc\n", 6);
	errors = errors_of(yaml);
	assert_non_null(strstr(errors, "t.yaml:7: xxxx"));
	assert_true(strlen(errors) < 1200);
	free(errors);
	free(yaml);

	errors = errors_of(L R "user: \"a\\nt.yaml:1: faked: \\e[31m\"\n");
	assert_string_equal(
		errors, "t.yaml:7: user: \"a?t.yaml:1: faked: ?[31m\" is not an account name\n");
	free(errors);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_structure),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_all_in_order),
		cmocka_unit_test(test_duplicates_together),
		cmocka_unit_test(test_error_flood),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_long_texts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
