/* tidegatectl as people and scripts run it, against the real admin surface with a made-up gateway
 * behind it; and its reading of HTTP answers. */
#include <fcntl.h>
#include <grp.h>
#include <libgen.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cmocka.h>
#include <jansson.h>

/* The program's own source: its client is in no library. */
#include "../tools/tidegatectl/http_client.c"
#include "ops/admin.h"
#include "support/fake_backend.h"
#include "support/guard.h"

enum {
	ARGS_MAX = 16
};

static struct fake_backend fake;
static struct admin *admin;
static char dir[] = "/tmp/tidegate-test-XXXXXX";
static char socket_path[128];
static char program[PATH_MAX];

struct result {
	int code;
	char *out, *err;
};

static char *slurp(int fd)
{
	off_t len = lseek(fd, 0, SEEK_END);
	char *s = malloc((size_t)len + 1);

	assert_int_equal(pread(fd, s, (size_t)len, 0), len);
	s[len] = '\0';
	close(fd);
	return s;
}

/* Runs the program with arguments separated by '|' (so that one may hold blanks), as the given
 * user. */
static struct result run_as(uid_t uid, const char *args)
{
	char *argv[ARGS_MAX + 2] = {"tidegatectl"}, *copy = strdup(args), *next = copy;
	int n = 1, out = memfd_create("out", 0), err = memfd_create("err", 0), status;
	/* Opened before the change of user, who may not be able to reach the build's folder. */
	int exe = open(program, O_RDONLY | O_CLOEXEC);

	for (char *a; *args && (a = strsep(&next, "|"));)
		argv[n++] = a;
	fake_sync(&fake);
	pid_t child = fork();
	if (child == 0) {
		if (uid != getuid() && (setgroups(0, NULL) || setgid(uid) || setuid(uid)))
			_exit(99);
		dup2(out, STDOUT_FILENO);
		dup2(err, STDERR_FILENO);
		fexecve(exe, argv, environ);
		_exit(98);
	}
	close(exe);
	free(copy);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	fake_sync(&fake);
	return (struct result){WEXITSTATUS(status), slurp(out), slurp(err)};
}

/* The same, with --socket in front. */
static struct result run(const char *args)
{
	char line[1024];

	snprintf(line, sizeof(line), "--socket|%s|%s", socket_path, args);
	return run_as(getuid(), line);
}

static void result_free(struct result *r)
{
	free(r->out);
	free(r->err);
}

static void assert_result(struct result r, int code, const char *out_part, const char *err_part)
{
	if (r.code != code || !strstr(r.out, out_part) || !strstr(r.err, err_part))
		fail_msg("exit code %d\nstdout: %s\nstderr: %s", r.code, r.out, r.err);
	if (code)
		assert_string_equal(r.out, "");
	else
		assert_string_equal(r.err, "");
	result_free(&r);
}

static int setup(void **state)
{
	struct admin_opts opts = {
		.listen_fd = -1,
		.socket_fd = fake_unix_listener(socket_path),
		.allowed_uid = getuid(),
		.instance = "test",
		.version = "9.8.7",
		.backend = fake_backend_ops(&fake),
	};
	fake_backend_init(&fake);
	return admin_start(&opts, &admin);
}

static int teardown(void **state)
{
	admin_stop(admin);
	return unlink(socket_path);
}

static void test_status(void **state)
{
	assert_result(run("status"), 0, "tidegate 9.8.7, instance test, pid ", "");
	assert_result(run("status"), 0,
		"state            ready\n"
		"gate             off\n"
		"workers          2, 2 accepting, 2 rings\n"
		"connections      85: 81 sessions, 4 in their handshake\n"
		"runnable         0\n"
		"buffered         0B\n"
		"accepts          2001\n"
		"refused          0\n"
		"handshakes       0\n"
		"messages in      0\n"
		"messages out     0\n"
		"forced yields    14\n"
		"closes           client 1800\n"
		"protocol errors  utf8 1\n"
		"links            2 of 3 up, 42 sessions, 15B queued\n",
		"");
	fake.ready = false;
	fake.why_not = "draining";
	fake.links_error = -ETIMEDOUT;
	assert_result(run("status"), 0, "state            not ready: draining\n", "");
	assert_result(run("status"), 0,
		"links            unknown: a worker did not answer within 2 s\n", "");
}

static void test_workers(void **state)
{
	assert_result(run("workers"), 0,
		"WORKER  ACCEPTING  CONNS  SESSIONS  HANDSHAKING  RINGS  RUNNABLE  BUFFERED  "
		"ACCEPTS  YIELDS  DELAY-P50  DELAY-P99  LOOP-P50  LOOP-P99\n"
		"     0  yes           42        40            2      1         0        0B     "
		"1000       7       10us       10us       5us       5us\n"
		"     1  yes           43        41            2      1         0        0B     "
		"1001       7       10us       10us       5us       5us\n",
		"");
}

static void test_conns(void **state)
{
	fake.n_conns = 3;
	assert_result(run("conns|--limit|2"), 0,
		"             SESSION  WORKER  PEER                 LISTENER  ROUTE  UPSTREAM  "
		"PROTOCOL   STATE        AGE  IDLE  IN  OUT  QUEUED  MESSAGES  BLOCKED\n"
		"18446744073709551615       0  192.0.2.1:10000      public    /echo  echo      "
		"websocket  open         0us   0us   0    0      0B         0        -\n"
		"                   2       1  [2001:db8::7]:10001  public    /chat  service   "
		"websocket  open,paused  1ms   0us   1    2      3B         0        -\n"
		"2 of 3 connections; --limit N shows more\n",
		"");
	fake.n_conns = 10;
	/* the tenth has no session yet */
	assert_result(run("conns"), 0, "\n                   -       1  [2001:db8::7]:10009", "");
	assert_result(run("conns"), 0, "\n10 of 10 connections\n", "");
	fake.n_conns = 0;
	assert_result(run("conns"), 0, "SESSION  WORKER", "");
	assert_result(run("conns"), 0, "\n0 of 0 connections\n", "");
}

static void test_conns_filters(void **state)
{
	assert_result(
		run("conns|--route|/a b&c=d?é%|--listener|x+y|--peer|2001:db8::7|--session|12"), 0,
		"0 of 0", "");
	assert_string_equal(fake.last_conns.route, "/a b&c=d?é%");
	assert_string_equal(fake.last_conns.listener, "x+y");
	assert_string_equal(fake.last_conns.peer, "2001:db8::7");
	assert_true(fake.last_conns.session == 12);
	assert_result(run("--limit=7|conns"), 0, "7 of 20 connections; ", "");
	assert_int_equal(fake.last_conns.limit, 7);
}

static void test_links(void **state)
{
	assert_result(run("links"), 0,
		"UPSTREAM  ENDPOINT              WORKER  STATE    SESSIONS  QUEUED  CREDIT    RTT  "
		"RETRY-IN  LAST-ERROR\n"
		"service   tcp://127.0.0.1:9300       0  up             40     10B  8.0MiB  120us  "
		"       -  -\n"
		"service   tcp://127.0.0.1:9300       1  up              2      5B      0B      -  "
		"       -  -\n"
		"service   unix:/run/\"svc\".sock       0  waiting         0      0B      0B      "
		"-     800ms  bad HELLO: ??[2J\n",
		"");
}

static void test_kick(void **state)
{
	assert_result(
		run("kick|--session|2|--code|4000|--reason|so long"), 0, "1 session closed\n", "");
	assert_int_equal(fake.last_kick.code, 4000);
	assert_string_equal(fake.last_kick.reason, "so long");
	assert_result(run("kick|--route|/echo"), 0, "10 sessions closed\n", "");
	assert_result(run("kick|--session|4242"), 1, "", "tidegatectl: no such session\n");
	fake.kick_error = -ETIMEDOUT;
	assert_result(run("kick|--session|2"), 1, "",
		"tidegatectl: a worker did not answer within 2 s\n");
}

static void test_gate(void **state)
{
	fake.gate = (struct gate_info){
		.on = true,
		.mode = "user",
		.gate = {.state = TG_GATE_PACED,
			.reason = TG_GATE_BY_DELAY,
			.rate = 1200,
			.reserve_rate = 300,
			.permits = GOVERNOR_PERMITS_MAX},
		.unserved = 17,
		.delay_ns = 6000000,
		.target_ns = 5000000,
		.goodput = 1100,
		.cuts = 3,
		.shuts = 2,
		.holds = 1,
		.memory = {MEMORY_UNKNOWN, 4, 50, 50},
	};
	fake.stats[1].verdicts[TG_DROP_RATE] = 9;
	assert_result(run("gate"), 0,
		"gate             paced by delay\n"
		"mode             user, the operator says auto\n"
		"rate             1200/s\n"
		"reserve          300/s for proven prefixes\n"
		"permits          no limit\n"
		"unserved         17\n"
		"standing delay   6ms of 5ms\n"
		"handshakes       1.1k/s\n"
		"decisions        3 cuts, 2 shuts, 1 taken back\n"
		"memory           cgroup -, tcp 4 %, machine 50 %\n"
		"verdicts         rate 9\n"
		"observed         none\n",
		"");
	assert_result(run("status"), 0, "gate             paced by delay\n", "");
	assert_result(run("gate|rate|77"), 0, "the gate is told: rate\n", "");
	fake_sync(&fake);
	assert_int_equal(fake.gate.word, GATE_WORD_RATE);
	assert_int_equal(fake.gate.word_rate, 77);
	assert_result(run("gate|shut|--json"), 0, "\"word\": \"shut\"", "");
	fake_sync(&fake);
	assert_int_equal(fake.gate.word, GATE_WORD_SHUT);
	assert_result(run("gate|rate|x"), 2, "", "rate must be connections per second");
	fake.gate_error = -EOPNOTSUPP;
	assert_result(run("gate|auto"), 1, "", "admission is off");
	assert_result(run("sample"), 0, "wake delays are not measured\n", "");
	assert_result(
		run("sample|set|7"), 0, "wake delays are measured of 7 % of the sockets\n", "");
	assert_result(run("sample|set|101"), 2, "", "percent must be a whole number from 0 to 100");
	assert_result(run("sample|set"), 2, "", "sample set needs a percent");
}

static void test_lists(void **state)
{
	assert_result(run("deny"), 0, "PREFIX         ORIGIN\n", "");
	assert_result(run("deny|list"), 0, "10.0.0.0/8     config\n2001:db8::/32  operator\n", "");
	assert_result(run("allow|--json"), 0, "\"prefix\": \"192.0.2.1/32\"", "");
	assert_result(run("deny|add|10.1.0.0/16"), 0, "added 10.1.0.0/16\n", "");
	fake_sync(&fake);
	assert_int_equal(fake.last_list, GATE_DENY);
	assert_true(fake.last_add);
	assert_int_equal(fake.last_prefix.len, 96 + 16);
	assert_result(run("allow|del|2001:db8::1"), 0, "deleted 2001:db8::1/128\n", "");
	fake_sync(&fake);
	assert_int_equal(fake.last_list, GATE_ALLOW);
	assert_false(fake.last_add);
	assert_result(run("deny|add|10.1.0.1/16"), 2, "", "prefix has address bits beyond");
	fake.list_error = -EEXIST;
	assert_result(run("deny|add|10.1.0.0/16"), 1, "", "in the list already");
	fake.list_error = -ENOENT;
	assert_result(run("deny|del|10.1.0.0/16"), 1, "", "not in the list");
	fake.list_error = -EOPNOTSUPP;
	assert_result(run("deny"), 1, "", "admission is off");
}

static void test_drain(void **state)
{
	assert_result(run("drain"), 0, "draining\n", "");
	assert_int_equal(fake.drains, 1);
}

static void test_json(void **state)
{
	static const char *const commands[] = {"status|--json", "--json|workers", "conns|--json",
		"links|--json", "--json|kick|--session|2", "drain|--json"};

	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		struct result r = run(commands[i]);
		json_t *j = json_loads(r.out, 0, NULL);
		assert_int_equal(r.code, 0);
		assert_non_null(j);
		assert_string_equal(r.err, "");
		assert_int_equal(r.out[strlen(r.out) - 1], '\n');
		json_decref(j);
		result_free(&r);
	}
	fake.conns_error = -ETIMEDOUT;
	assert_result(run("conns|--json"), 1, "", "a worker did not answer within 2 s");
}

static void test_huge_list(void **state)
{
	fake.n_conns = 50000;
	struct result r = run("conns|--json|--limit|100000");
	assert_int_equal(r.code, 0);
	json_t *j = json_loads(r.out, 0, NULL);
	assert_int_equal(json_array_size(json_object_get(j, "conns")), 50000);
	json_decref(j);
	result_free(&r);
	assert_result(run("conns|--limit|5000"), 0, "\n5000 of 50000 connections; ", "");
}

static void test_usage_errors(void **state)
{
	static const struct {
		const char *args, *part;
	} cases[] = {
		{"", "no command given"},
		{"fly", "unknown command: fly"},
		{"status|now", "unexpected argument: now"},
		{"status|--colour", "unknown option: --colour"},
		{"status|-x", "unknown option: -x"},
		{"conns|--limit", "--limit needs a value"},
		{"status|--limit|3", "status takes no --limit"},
		{"conns|--code|1000", "conns takes no --code"},
		{"publish", "publish needs a topic and data"},
		{"publish|a", "publish needs a topic and data"},
		{"publish|a|b|c", "unexpected argument: c"},
		{"topics|--route|/x", "topics takes no --route"},
		{"kick", "kick needs either --session or --route"},
		{"kick|--session|1|--route|/x", "kick needs either --session or --route"},
		{"status|--connections|5", "status takes no --connections"},
		{"doctor|--limit|5", "doctor takes no --limit"},
		{"top|--limit|5", "top takes no --limit"},
		{"doctor|now", "unexpected argument: now"},
		{"doctor|--connections|many", "--connections must be a number from 1 to"},
		{"--socket|/x|--instance|y|status", "--socket and --instance exclude each other"},
		{"--instance|a/b|status", "--instance takes letters"},
		{"--instance||status", "--instance takes letters"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_result(run_as(getuid(), cases[i].args), 2, "", cases[i].part);
	/* What only the gateway can judge. */
	assert_result(run("conns|--limit|0"), 2, "",
		"tidegatectl: limit must be a number from 1 to 100000\n");
	assert_result(run("conns|--peer|example.com"), 2, "", "peer must be");
	assert_result(run("kick|--session|1|--code|1005"), 2, "", "code must be");
}

static void test_topics(void **state)
{
	assert_result(run("topics|--prefix|room/"), 0, "room/*\n2 of 2 topics\n", "");
	assert_result(run("topics|--limit|1"), 0, "1 of 3 topics; --limit N shows more\n", "");
	assert_result(run("publish|a/b|{\"x\": [1]}"), 0, "published\n", "");
	assert_string_equal(fake.last_topic, "a/b");
	assert_string_equal(fake.last_data, "{\"x\": [1]}");
	assert_result(run("publish|a||--json"), 0, "\"published\": true", "");
	assert_int_equal(fake.last_data_len, 0);
	assert_result(run("publish|a/*|x"), 2, "", "topic must be a topic");
	fake.publish_error = -ENOBUFS;
	assert_result(run("publish|a|x"), 1, "", "too many publications are waiting already\n");
}

static void test_help(void **state)
{
	assert_result(run_as(getuid(), "--help"), 0, "Usage: tidegatectl ", "");
	assert_result(run_as(getuid(), "--version"), 0, "tidegatectl " TG_VERSION "\n", "");
	static const char *const commands[] = {"status", "workers", "conns", "links", "topics",
		"publish", "kick", "drain", "doctor",
		"top"};
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		char args[64], part[64];
		snprintf(args, sizeof(args), "%s|--help", commands[i]);
		snprintf(part, sizeof(part), "[--json] %s", commands[i]);
		assert_result(run_as(getuid(), args), 0, part, "");
	}
}

static void test_unreachable(void **state)
{
	char args[512], part[512];

	snprintf(args, sizeof(args), "--socket|%s/none.sock|status", dir);
	snprintf(part, sizeof(part),
		"tidegatectl: cannot reach %s/none.sock: No such file or directory; is tidegate "
		"running?\n",
		dir);
	assert_result(run_as(getuid(), args), 1, "", part);

	char path[256];
	snprintf(path, sizeof(path), "%s/dead.sock", dir);
	close(fake_unix_listener(path));
	snprintf(args, sizeof(args), "--socket|%s|status", path);
	assert_result(run_as(getuid(), args), 1, "", "Connection refused; is tidegate running?");
	unlink(path);

	memset(args, 'x', 200);
	memcpy(args, "--socket|/", 10);
	strcpy(args + 200, "|status");
	assert_result(run_as(getuid(), args), 1, "", "File name too long");
}

static void test_default_socket(void **state)
{
	char path[256], part[512];

	if (getuid() == 0) {
		assert_result(run_as(0, "--instance|no-such-instance|status"), 1, "",
			"cannot reach /run/tidegate/no-such-instance/admin.sock: ");
		unsetenv("XDG_RUNTIME_DIR");
		assert_result(run_as(65534, "--instance|no-such|status"), 1, "",
			"cannot reach /tmp/tidegate-65534/no-such/admin.sock: ");
	}
	setenv("XDG_RUNTIME_DIR", dir, 1);
	snprintf(path, sizeof(path), "%s/tidegate/default/admin.sock", dir);
	snprintf(part, sizeof(part), "cannot reach %s: ", path);
	assert_result(run_as(getuid() ? getuid() : 65534, "status"), 1, "", part);
	unsetenv("XDG_RUNTIME_DIR");
}

static void test_refused_user(void **state)
{
	char args[256];

	if (getuid() != 0)
		skip(); /* needs a second user */
	chmod(dir, 0755);
	snprintf(args, sizeof(args), "--socket|%s|status", socket_path);
	chmod(socket_path, 0600);
	assert_result(run_as(65534, args), 1, "",
		"Permission denied; only root and the gateway's own user may use it");
	chmod(socket_path, 0777);
	assert_result(
		run_as(65534, args), 1, "", "only root and the gateway's own user may ask here");
}

/* A server that answers one request with given bytes. */
struct canned {
	int fd;
	const char *answer;
};

static void *serve_canned(void *arg)
{
	struct canned *c = arg;
	char request[1024];
	int fd = accept(c->fd, NULL, NULL);

	if (recv(fd, request, sizeof(request), 0) > 0)
		send(fd, c->answer, strlen(c->answer), MSG_NOSIGNAL);
	close(fd);
	return NULL;
}

static void assert_canned(const char *answer, const char *args, int code, const char *err_part)
{
	char path[128], line[512];
	pthread_t thread;

	snprintf(path, sizeof(path), "%s/canned.sock", dir);
	struct canned c = {fake_unix_listener(path), answer};
	assert_int_equal(pthread_create(&thread, NULL, serve_canned, &c), 0);
	snprintf(line, sizeof(line), "--socket|%s|%s", path, args);
	assert_result(run_as(getuid(), line), code, "", err_part);
	pthread_join(thread, NULL);
	close(c.fd);
	unlink(path);
}

static void test_strange_answers(void **state)
{
	assert_canned("", "status", 1, "malformed or cut short");
	assert_canned("SSH-2.0-x\r\n", "status", 1, "malformed or cut short");
	assert_canned("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "status", 1,
		"malformed or cut short");
	assert_canned("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "status", 1,
		"not what this tidegatectl understands");
	assert_canned("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "status|--json", 1,
		"not what this tidegatectl understands");
	assert_canned(
		"HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\nno", "status", 1, "HTTP status 500");
	assert_canned("HTTP/1.1 500 X\r\nContent-Length: 20\r\n\r\n{\"error\":\"a\\u001bb\"}",
		"status", 1, "tidegatectl: a?b\n");
}

static void test_full_disk(void **state)
{
	char *command;

	assert_true(asprintf(&command, "%s --socket %s status >/dev/full 2>&1", program,
			    socket_path) > 0);
	int status = system(command);
	free(command);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 1);
}

static const char plain_reply[] =
	"HTTP/1.1 404 Not Found\r\nX: y\r\ncontent-length:  5\r\n\r\nhello";
static const char chunked_reply[] =
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n00a;x=y\r\n, "
	"worlds!!\r\n0\r\n\r\n";

/* Parses a copy that ends, with the byte its parser may write, at a guard page. */
static int parse_guarded(struct guard *g, const char *data, size_t len, struct http_reply *ret)
{
	char *at = (char *)guard_tail(g, len + 1);

	memcpy(at, data, len);
	return http_reply_parse(at, len, ret);
}

#define CHUNKED "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

static void test_reply_parser(void **state)
{
	static const char *const bad[] = {
		"HTTP/2 200 OK\r\n\r\n",
		"HTTP/1.1 20 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n\r\na",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\na",
		CHUNKED,
		CHUNKED "x\r\n",
		CHUNKED "-1\r\n",
		CHUNKED "0x1\r\na\r\n0\r\n\r\n",
		CHUNKED "ffffffffffffffff\r\na\r\n0\r\n\r\n",
		CHUNKED "1\r\nab\r\n0\r\n\r\n",
	};
	struct http_reply r;
	struct guard g;

	guard_init(&g, 4096);
	assert_int_equal(parse_guarded(&g, plain_reply, sizeof(plain_reply) - 1, &r), 0);
	assert_int_equal(r.status, 404);
	assert_string_equal(r.body, "hello");
	assert_int_equal(parse_guarded(&g, chunked_reply, sizeof(chunked_reply) - 1, &r), 0);
	assert_int_equal(r.status, 200);
	assert_int_equal(r.len, 15);
	assert_string_equal(r.body, "hello, worlds!!");

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (parse_guarded(&g, bad[i], strlen(bad[i]), &r) != -EPROTO)
			fail_msg("accepted: %s", bad[i]);
	/* Cut anywhere: the chunked one is whole once its last chunk's line is. */
	for (size_t len = 0; len < sizeof(plain_reply) - 1; len++)
		assert_int_equal(parse_guarded(&g, plain_reply, len, &r), -EPROTO);
	for (size_t len = 0; len < sizeof(chunked_reply) - 1 - 2; len++)
		assert_int_equal(parse_guarded(&g, chunked_reply, len, &r), -EPROTO);
	guard_fini(&g);
}

static int group_setup(void **state)
{
	char self[PATH_MAX] = "";

	assert_true(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
	snprintf(program, sizeof(program), "%.4000s/../tidegatectl", dirname(self));
	if (access(program, X_OK) < 0)
		fail_msg("%s is not built", program);
	assert_non_null(mkdtemp(dir));
	snprintf(socket_path, sizeof(socket_path), "%s/admin.sock", dir);
	return 0;
}

static int group_teardown(void **state)
{
	return rmdir(dir);
}

#define WITH_ADMIN(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_ADMIN(test_status),
		WITH_ADMIN(test_workers),
		WITH_ADMIN(test_conns),
		WITH_ADMIN(test_conns_filters),
		WITH_ADMIN(test_links),
		WITH_ADMIN(test_kick),
		WITH_ADMIN(test_topics),
		WITH_ADMIN(test_gate),
		WITH_ADMIN(test_lists),
		WITH_ADMIN(test_drain),
		WITH_ADMIN(test_json),
		WITH_ADMIN(test_huge_list),
		WITH_ADMIN(test_usage_errors),
		WITH_ADMIN(test_help),
		WITH_ADMIN(test_unreachable),
		WITH_ADMIN(test_default_socket),
		WITH_ADMIN(test_refused_user),
		WITH_ADMIN(test_strange_answers),
		WITH_ADMIN(test_full_disk),
		cmocka_unit_test(test_reply_parser),
	};
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
