/* The exposition, read back by a strict parser. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "ops/metrics.h"
#include "support/prom.h"

static struct tg_worker_stats workers[3];

static void fill_workers(void)
{
	uint64_t n = 1;

	for (unsigned w = 0; w < 3; w++) {
		stats_init(&workers[w]);
#define X(field, ...) workers[w].field = n++;
		TG_COUNTERS(X)
		TG_GAUGES(X)
#undef X
		for (unsigned i = 0; i < CLOSE_REASONS; i++)
			workers[w].closes[i] = n++;
		for (unsigned i = 0; i < PROTO_ERRS; i++)
			workers[w].protocol_errors[i] = n++;
		for (unsigned i = 0; i < AUTH_FAILURES; i++)
			workers[w].auth_failures[i] = n++;
	}
}

static struct metrics_input input(void)
{
	return (struct metrics_input){
		.version = "1.2.3",
		.workers = workers,
		.n_workers = 3,
		.process =
			{
				.resident_bytes = 4096,
				.open_fds = 17,
				.start_unix_ms = 1700000000042,
				.cpu_ns = 12000000345u,
			},
	};
}

static void render(const struct metrics_input *in, struct prom *ret)
{
	char *text;
	size_t len;

	assert_int_equal(metrics_render(in, &text, &len), 0);
	assert_int_equal(strlen(text), len);
	if (!prom_parse(ret, text))
		fail_msg("%s", ret->error);
	free(text);
}

static double value(const struct prom *p, const char *name, unsigned n_pairs, ...)
{
	const char *pairs[2 * PROM_LABELS_MAX];
	va_list args;

	va_start(args, n_pairs);
	for (unsigned i = 0; i < 2 * n_pairs; i++)
		pairs[i] = va_arg(args, const char *);
	va_end(args);
	const struct prom_sample *m = prom_find(p, name, n_pairs, pairs);
	if (!m) {
		fail_msg("no sample of %s", name);
		return 0;
	}
	return m->value;
}

#define VALUE(p, name, n, ...) ((uint64_t)value(p, name, n, ##__VA_ARGS__))

/* The parser refuses what it should: a test that cannot fail proves nothing. */
static void test_parser_is_strict(void **state)
{
	static const char *const bad[] = {
		"a 1\n",
		"# HELP a b\na 1\n",
		"# HELP a b\n# TYPE a gauge\na 1",
		"# HELP a b\n# TYPE a gauge\na 1\na 2\n",
		"# HELP a b\n# TYPE a counter\na 1\n",
		"# HELP a_total b\n# TYPE a_total gauge\na_total 1\n",
		"# HELP a b\n# TYPE a gauge\na{x=\"1\"} 1\na{x=\"1\"} 2\n",
		"# HELP a b\n# TYPE a gauge\na{x=\"1\",x=\"2\"} 1\n",
		"# HELP a b\n# TYPE a gauge\na{x=\"1} 1\n",
		"# HELP a b\n# TYPE a gauge\na{x=\"\\q\"} 1\n",
		"# HELP a b\n# TYPE a gauge\na{} 1\n",
		"# HELP a b\n# TYPE a gauge\na one\n",
		"# HELP a b\n# TYPE a gauge\na  1\n",
		"# HELP a b\n# TYPE a gauge\nb 1\n",
		"# HELP a b\n# TYPE a gauge\n# HELP c d\n# TYPE c gauge\nc 1\na 1\n",
		"# HELP a b\n# TYPE a gauge\n# HELP a b\n# TYPE a gauge\n",
		"# HELP a b\n# TYPE a histogram\na_bucket{worker=\"0\",le=\"+Inf\"} "
		"2\na_sum{worker=\"0\"} 1\na_count{worker=\"0\"} 1\n",
		"# HELP a b\n# TYPE a histogram\na_bucket{worker=\"0\",le=\"1\"} "
		"2\na_sum{worker=\"0\"} 1\na_count{worker=\"0\"} 2\n",
		"# HELP a b\n# TYPE a histogram\na_bucket{worker=\"0\",le=\"+Inf\"} "
		"2\na_sum{worker=\"0\"} 1\n",
		"# HELP a b\n# TYPE a histogram\na_bucket{worker=\"0\",le=\"2\"} "
		"2\na_bucket{worker=\"0\",le=\"1\"} 2\na_bucket{worker=\"0\",le=\"+Inf\"} "
		"2\na_sum{worker=\"0\"} 1\na_count{worker=\"0\"} 2\n",
		"# HELP a b\n# TYPE a histogram\na_bucket{worker=\"0\",le=\"1\"} "
		"3\na_bucket{worker=\"0\",le=\"+Inf\"} 2\na_sum{worker=\"0\"} "
		"1\na_count{worker=\"0\"} 2\n",
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct prom p;
		if (prom_parse(&p, bad[i]))
			fail_msg("accepted: %s", bad[i]);
		prom_free(&p);
	}
}

static void test_every_listed_counter(void **state)
{
	struct metrics_input in = input();
	struct prom p;

	render(&in, &p);
	for (unsigned w = 0; w < 3; w++) {
		char label[8];
		snprintf(label, sizeof(label), "%u", w);
#define X(field, name, unit, ...)                                                                  \
	assert_true(value(&p, "tidegate_" name, 1, "worker", label) ==                             \
		    (double)workers[w].field / (strcmp(unit, "ns") ? 1 : 1e9));
		TG_COUNTERS(X)
		TG_GAUGES(X)
#undef X
	}
	prom_free(&p);
}

/* Two routes of one path are one series; what their sessions' out queues dropped is told by policy.
 */
static void test_routes(void **state)
{
	struct admin_route routes[] = {
		{.path = "/a", .policy = OUT_CONFLATE, .sessions = {1, 2, 3}},
		{.path = "/b\"", .policy = OUT_DISCONNECT, .sessions = {10, 20, 30}},
		{.path = "/a", .policy = OUT_CONFLATE, .sessions = {100, 200, 300}},
	};
	struct metrics_input in = input();
	struct prom p;

	in.routes = routes;
	in.n_routes = 3;
	routes[0].dropped[OUT_CONFLATE] = 5;
	routes[1].dropped[OUT_DISCONNECT] = 7;
	routes[2].dropped[OUT_CONFLATE] = 11;
	workers[1].connections = 1000;
	workers[1].handshaking = 30;
	workers[1].sessions = 222;
	/* As when they are read in the middle of an accept. */
	workers[2].connections = 10;
	workers[2].handshaking = 30;
	workers[2].sessions = 333;
	render(&in, &p);
#define CONNECTIONS(worker, route, kind)                                                           \
	VALUE(&p, "tidegate_connections", 3, "worker", worker, "route", route, "kind", kind)
	assert_int_equal(CONNECTIONS("0", "/a", "session"), 101);
	assert_int_equal(CONNECTIONS("2", "/a", "session"), 303);
	assert_int_equal(CONNECTIONS("1", "/b\"", "session"), 20);
	assert_int_equal(CONNECTIONS("1", "", "handshaking"), 30);
	assert_int_equal(CONNECTIONS("1", "", "closing"), 1000 - 30 - 222);
	assert_int_equal(CONNECTIONS("2", "", "closing"), 0);
#undef CONNECTIONS
	assert_int_equal(
		VALUE(&p, "tidegate_out_dropped_total", 2, "policy", "conflate", "route", "/a"),
		16);
	assert_int_equal(
		VALUE(&p, "tidegate_out_dropped_total", 2, "policy", "disconnect", "route", "/b\""),
		7);
	prom_free(&p);
}

static void test_sums_over_workers(void **state)
{
	struct metrics_input in = input();
	struct prom p;

	render(&in, &p);
	for (unsigned i = 0; i < CLOSE_REASONS; i++)
		assert_int_equal(
			VALUE(&p, "tidegate_closes_total", 1, "reason", close_reason_name(i)),
			workers[0].closes[i] + workers[1].closes[i] + workers[2].closes[i]);
	for (unsigned i = 0; i < PROTO_ERRS; i++)
		assert_int_equal(VALUE(&p, "tidegate_protocol_errors_total", 1, "kind",
					 protocol_error_name(i)),
			workers[0].protocol_errors[i] + workers[1].protocol_errors[i] +
				workers[2].protocol_errors[i]);
	for (unsigned i = 0; i < AUTH_FAILURES; i++)
		assert_int_equal(VALUE(&p, "tidegate_auth_failures_total", 1, "reason",
					 auth_failure_name(i)),
			workers[0].auth_failures[i] + workers[1].auth_failures[i] +
				workers[2].auth_failures[i]);
	prom_free(&p);
}

static void test_histograms(void **state)
{
	struct metrics_input in = input();
	struct prom p;

	fill_workers();
	hist_add(&workers[1].run_delay_us, 0);
	hist_add(&workers[1].run_delay_us, 9);
	hist_add(&workers[1].run_delay_us, 10);
	hist_add(&workers[1].run_delay_us, 11);
	hist_add(&workers[1].run_delay_us, 40000);
	hist_add(&workers[1].run_delay_us, 3600000000u);
	workers[1].poll_delay_us = workers[1].run_delay_us;
	hist_add(&workers[1].loop_us, 150);
	hist_add(&workers[2].first_poll_us, 30);
	workers[2].busy_permille = 42;
	render(&in, &p);

	static const char *const names[] = {
		"tidegate_run_delay_seconds", "tidegate_poll_delay_seconds"};
	for (int i = 0; i < 2; i++) {
		char bucket[64], sum[64], count[64];
		snprintf(bucket, sizeof(bucket), "%s_bucket", names[i]);
		snprintf(sum, sizeof(sum), "%s_sum", names[i]);
		snprintf(count, sizeof(count), "%s_count", names[i]);
		assert_int_equal(VALUE(&p, bucket, 2, "worker", "1", "le", "0.00001"), 3);
		assert_int_equal(VALUE(&p, bucket, 2, "worker", "1", "le", "0.00002"), 4);
		assert_int_equal(VALUE(&p, bucket, 2, "worker", "1", "le", "0.02"), 4);
		assert_int_equal(VALUE(&p, bucket, 2, "worker", "1", "le", "0.05"), 5);
		assert_int_equal(VALUE(&p, bucket, 2, "worker", "1", "le", "10"), 5);
		assert_int_equal(VALUE(&p, bucket, 2, "worker", "1", "le", "+Inf"), 6);
		assert_int_equal(VALUE(&p, count, 1, "worker", "1"), 6);
		assert_true(value(&p, sum, 1, "worker", "1") == 3600.040030);
		assert_int_equal(VALUE(&p, count, 1, "worker", "0"), 0);
	}
	assert_int_equal(
		VALUE(&p, "tidegate_loop_seconds_bucket", 2, "worker", "1", "le", "0.0001"), 0);
	assert_int_equal(
		VALUE(&p, "tidegate_loop_seconds_bucket", 2, "worker", "1", "le", "0.0002"), 1);
	assert_true(value(&p, "tidegate_first_poll_seconds_sum", 1, "worker", "2") == 0.00003);
	assert_true(value(&p, "tidegate_busy_ratio", 1, "worker", "2") == 0.042);
	assert_true(value(&p, "tidegate_busy_ratio", 1, "worker", "1") == 0);
	prom_free(&p);
	/* Each is shown as it is. */
	hist_add(&workers[1].run_delay_us, 7);
	render(&in, &p);
	assert_int_equal(VALUE(&p, "tidegate_run_delay_seconds_count", 1, "worker", "1"), 7);
	assert_int_equal(VALUE(&p, "tidegate_poll_delay_seconds_count", 1, "worker", "1"), 6);
	prom_free(&p);
}

/* A copy taken while the worker wrote: the count beside the buckets is ahead. */
static void test_histogram_torn_copy(void **state)
{
	struct metrics_input in = input();
	struct prom p;

	fill_workers();
	hist_add(&workers[0].run_delay_us, 5);
	workers[0].run_delay_us.count = 2;
	render(&in, &p);
	assert_int_equal(VALUE(&p, "tidegate_run_delay_seconds_count", 1, "worker", "0"), 1);
	prom_free(&p);
}

static void test_links(void **state)
{
	struct link_info links[] = {
		{.upstream = "svc",
			.endpoint = "tcp://127.0.0.1:9300",
			.worker = 1,
			.up = true,
			.sessions = 7,
			.queued_bytes = 100},
		{.upstream = "a\"b\\c\nd", .endpoint = "unix:/run/x.sock", .worker = 0},
		{.upstream = "svc", .endpoint = "tcp://127.0.0.1:9300", .worker = 0, .up = true},
		/* the same endpoint, listed twice in the configuration */
		{.upstream = "svc",
			.endpoint = "tcp://127.0.0.1:9300",
			.worker = 1,
			.sessions = 2,
			.queued_bytes = 5},
	};
	struct metrics_input in = input();
	struct prom p;

	in.links = links;
	in.n_links = 4;
	render(&in, &p);
	const char *svc = "svc", *tcp = "tcp://127.0.0.1:9300";
	assert_int_equal(
		VALUE(&p, "tidegate_link_up", 3, "upstream", svc, "endpoint", tcp, "worker", "1"),
		1);
	assert_int_equal(
		VALUE(&p, "tidegate_link_up", 3, "upstream", svc, "endpoint", tcp, "worker", "0"),
		1);
	assert_int_equal(VALUE(&p, "tidegate_link_up", 2, "upstream", "a\"b\\c\nd", "endpoint",
				 "unix:/run/x.sock"),
		0);
	assert_int_equal(VALUE(&p, "tidegate_link_sessions", 2, "upstream", svc, "worker", "1"), 9);
	assert_int_equal(
		VALUE(&p, "tidegate_link_queued_bytes", 2, "upstream", svc, "worker", "1"), 105);
	assert_int_equal(VALUE(&p, "tidegate_links_unknown", 0), 0);
	prom_free(&p);

	in.links_unknown = true;
	render(&in, &p);
	assert_null(prom_find(&p, "tidegate_link_up", 0, NULL));
	assert_int_equal(VALUE(&p, "tidegate_links_unknown", 0), 1);
	prom_free(&p);
}

static void test_process(void **state)
{
	struct metrics_input in = input();
	struct prom p;

	in.version = "0.1.0-\"x\"";
	render(&in, &p);
	assert_int_equal(VALUE(&p, "process_resident_memory_bytes", 0), 4096);
	assert_int_equal(VALUE(&p, "process_open_fds", 0), 17);
	assert_true(value(&p, "process_start_time_seconds", 0) == 1700000000.042);
	assert_true(value(&p, "process_cpu_seconds_total", 0) == 12.000000345);
	assert_int_equal(VALUE(&p, "tidegate_build_info", 1, "version", "0.1.0-\"x\""), 1);
	prom_free(&p);

	in.process.resident_bytes = in.process.open_fds = in.process.start_unix_ms =
		PROCESS_STATS_UNKNOWN;
	render(&in, &p);
	assert_null(prom_find(&p, "process_resident_memory_bytes", 0, NULL));
	assert_null(prom_find(&p, "process_open_fds", 0, NULL));
	assert_null(prom_find(&p, "process_start_time_seconds", 0, NULL));
	prom_free(&p);
}

static void test_no_workers(void **state)
{
	struct metrics_input in = input();
	struct prom p;

	in.n_workers = 0;
	render(&in, &p);
	assert_int_equal(VALUE(&p, "tidegate_closes_total", 1, "reason", "client"), 0);
	prom_free(&p);
}

static void test_process_reader(void **state)
{
	struct process_stats_reader r;
	struct process_stats s, later;

	process_stats_init(&r);
	process_stats_read(&r, &s);
	assert_true(s.resident_bytes > 100000 && s.resident_bytes < (1LL << 40));
	int64_t now_ms = (int64_t)time(NULL) * 1000;
	assert_in_range(s.start_unix_ms, now_ms - 600000, now_ms + 2000);

	/* The descriptor count needs Linux 6.2. */
	int extra[5];
	for (int i = 0; i < 5; i++)
		extra[i] = dup(STDERR_FILENO);
	process_stats_read(&r, &later);
	if (s.open_fds != PROCESS_STATS_UNKNOWN)
		assert_int_equal(later.open_fds, s.open_fds + 5);
	for (int i = 0; i < 5; i++)
		close(extra[i]);

	while (later.cpu_ns < s.cpu_ns + 2000000)
		process_stats_read(&r, &later);
	process_stats_fini(&r);
}

static int setup(void **state)
{
	fill_workers();
	return 0;
}

static void test_gate(void **state)
{
	struct metrics_input in = input();
	struct prom p;

	fill_workers();
	workers[0].verdicts[TG_DROP_RATE] = 3;
	workers[2].verdicts[TG_DROP_RATE] = 4;
	workers[1].verdicts_observed[TG_DROP_DENYLIST] = 5;
	in.gate = (struct gate_info){.on = true,
		.gate = {.state = TG_GATE_PACED, .rate = 1234},
		.unserved = 17,
		.delay_ns = 6000000,
		.memory = {MEMORY_UNKNOWN, 4, 101, 101}};
	render(&in, &p);
	assert_int_equal(VALUE(&p, "tidegate_gate_state", 0), 1);
	assert_int_equal(VALUE(&p, "tidegate_gate_rate", 0), 1234);
	assert_int_equal(VALUE(&p, "tidegate_gate_unserved", 0), 17);
	assert_true(value(&p, "tidegate_gate_delay_seconds", 0) == 0.006);
	assert_true(value(&p, "tidegate_memory_pressure_ratio", 1, "kind", "machine") == 1.01);
	assert_true(value(&p, "tidegate_memory_pressure_ratio", 1, "kind", "tcp") == 0.04);
	const char *cgroup[] = {"kind", "cgroup"};
	assert_null(prom_find(&p, "tidegate_memory_pressure_ratio", 1, cgroup));
	assert_int_equal(
		VALUE(&p, "tidegate_verdicts_total", 2, "program", "user", "reason", "rate"), 7);
	assert_int_equal(VALUE(&p, "tidegate_verdicts_observed_total", 2, "program", "user",
				 "reason", "deny"),
		5);
	prom_free(&p);
}

/* Nanoseconds, where the others are microseconds; absent when nothing is measured. */
static void test_kernel_delays(void **state)
{
	struct hist waits[3];
	struct metrics_input in = input();
	struct prom p;

	fill_workers();
	render(&in, &p);
	assert_null(prom_find(
		&p, "tidegate_cpu_wait_seconds_count", 1, (const char *[]){"worker", "0"}));
	assert_true(value(&p, "tidegate_sched_sample_ratio", 0) == 0);
	prom_free(&p);
	for (unsigned i = 0; i < 3; i++)
		hist_init(&waits[i]);
	hist_add(&workers[1].wake_delay_us, 40000);
	hist_add(&workers[1].wake_delay_us, 7);
	hist_add(&waits[2], 1500000001);
	in.cpu_wait = waits;
	in.share = 0.1;
	render(&in, &p);
	assert_true(value(&p, "tidegate_sched_sample_ratio", 0) == 0.1);
	assert_int_equal(VALUE(&p, "tidegate_wake_delay_seconds_count", 1, "worker", "0"), 0);
	assert_int_equal(VALUE(&p, "tidegate_wake_delay_seconds_count", 1, "worker", "1"), 2);
	assert_true(value(&p, "tidegate_wake_delay_seconds_sum", 1, "worker", "1") == 0.040007);
	assert_int_equal(
		VALUE(&p, "tidegate_wake_delay_seconds_bucket", 2, "worker", "1", "le", "0.00001"),
		1);
	assert_int_equal(
		VALUE(&p, "tidegate_wake_delay_seconds_bucket", 2, "worker", "1", "le", "0.02"), 1);
	assert_int_equal(
		VALUE(&p, "tidegate_wake_delay_seconds_bucket", 2, "worker", "1", "le", "0.05"), 2);
	assert_true(value(&p, "tidegate_cpu_wait_seconds_sum", 1, "worker", "2") == 1.500000001);
	prom_free(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kernel_delays),
		cmocka_unit_test(test_gate),
		cmocka_unit_test(test_parser_is_strict),
		cmocka_unit_test_setup(test_every_listed_counter, setup),
		cmocka_unit_test_setup(test_routes, setup),
		cmocka_unit_test_setup(test_sums_over_workers, setup),
		cmocka_unit_test_setup(test_histograms, setup),
		cmocka_unit_test_setup(test_histogram_torn_copy, setup),
		cmocka_unit_test_setup(test_links, setup),
		cmocka_unit_test_setup(test_process, setup),
		cmocka_unit_test_setup(test_no_workers, setup),
		cmocka_unit_test(test_process_reader),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
