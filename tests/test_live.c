/* The live snapshot: what two samples make of it, and the thread that all viewers share. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "core/runq.h"
#include "ops/live.h"
#include "ops/live_sample.h"
#include "support/fake_backend.h"

#define S_NS UINT64_C(1000000000)

static struct fake_backend fake;
static struct admin_backend backend;
static struct process_stats_reader process;
static struct live_sample before, now;

static json_int_t number(json_t *o, const char *key)
{
	json_t *v = json_object_get(o, key);

	if (!json_is_integer(v))
		fail_msg("no number %s", key);
	return json_integer_value(v);
}

static double real(json_t *o, const char *key)
{
	json_t *v = json_object_get(o, key);

	if (!json_is_real(v))
		fail_msg("no real %s", key);
	return json_real_value(v);
}

static const char *text(json_t *o, const char *key)
{
	const char *v = json_string_value(json_object_get(o, key));

	if (!v)
		fail_msg("no text %s", key);
	return v;
}

static int setup(void **state)
{
	fake_backend_init(&fake);
	backend = fake_backend_ops(&fake);
	process_stats_init(&process);
	assert_int_equal(live_sample_init(&before, &backend), 0);
	assert_int_equal(live_sample_init(&now, &backend), 0);
	live_sample_take(&before, &backend, &process, 100 * S_NS);
	return 0;
}

static int teardown(void **state)
{
	live_sample_fini(&before);
	live_sample_fini(&now);
	process_stats_fini(&process);
	return 0;
}

/* What `seconds` after the first sample looks like. */
static json_t *look(double seconds)
{
	struct live_about about = {.instance = "test",
		.version = "9.8.7",
		.seq = 7,
		.unix_s = 1700000000.1234,
		.uptime_s = 60};

	live_sample_take(&now, &backend, &process, 100 * S_NS + (uint64_t)(seconds * (double)S_NS));
	json_t *j = live_json(&about, &before, &now);
	assert_non_null(j);
	return j;
}

static json_t *worker_of(json_t *j, unsigned i)
{
	return json_array_get(json_object_get(j, "workers"), i);
}

static void test_nothing_happened(void **state)
{
	json_t *j = look(1), *w = worker_of(j, 1);

	assert_string_equal(text(j, "instance"), "test");
	assert_string_equal(text(j, "version"), "9.8.7");
	assert_int_equal(number(j, "seq"), 7);
	assert_true(real(j, "time") == 1700000000.123);
	assert_true(real(j, "interval_s") == 1);
	assert_true(json_is_null(json_object_get(j, "line")));
	assert_int_equal(json_array_size(json_object_get(j, "workers")), FAKE_WORKERS);
	assert_int_equal(number(w, "connections"), 43);
	assert_true(real(w, "accepts_per_s") == 0);
	assert_true(real(w, "busy") == 0);
	assert_int_equal(number(w, "poll_delay_p99_ns"), 0);
	assert_int_equal(number(w, "poll_delay_max_ns"), 0);
	assert_int_equal(json_array_size(json_object_get(w, "poll_delay_hist")), 0);
	assert_true(json_is_null(json_object_get(w, "wake_delay_p99_ns")));
	assert_int_equal(json_array_size(json_object_get(j, "verdicts")), 0);
	assert_int_equal(json_array_size(json_object_get(j, "routes")), 0);
	assert_int_equal(json_array_size(json_object_get(j, "links")), 0);
	json_decref(j);
}

/* Rates and quantiles are the interval's, not those since the start. */
static void test_workers(void **state)
{
	struct tg_worker_stats *s = &fake.stats[0];

	s->accepts += 500;
	s->closes[CLOSE_CLIENT] += 100;
	s->closes[CLOSE_RESET] += 50;
	s->loop_us.sum += 1500000;
	s->class_ns[RUNQ_HANDSHAKE] += 300;
	s->class_ns[RUNQ_ESTABLISHED] += 700;
	s->runnable = 9;
	for (unsigned i = 0; i < 98; i++)
		hist_add(&s->poll_delay_us, 5);
	hist_add(&s->poll_delay_us, 40000);
	hist_add(&s->poll_delay_us, 40000);
	json_t *j = look(2), *w = worker_of(j, 0), *quiet = worker_of(j, 1);

	assert_true(real(w, "accepts_per_s") == 250);
	assert_true(real(w, "closes_per_s") == 75);
	assert_true(real(w, "busy") == 0.75);
	assert_true(real(w, "handshake_share") == 0.3);
	assert_int_equal(number(w, "runnable"), 9);
	assert_int_equal(number(w, "poll_delay_p50_ns"), 5000);
	assert_in_range(number(w, "poll_delay_p99_ns"), 40000000, 45000000);
	assert_int_equal(number(w, "poll_delay_p99_ns"), number(w, "poll_delay_max_ns"));
	json_t *heat = json_object_get(w, "poll_delay_hist");
	assert_int_equal(json_array_size(heat), 2);
	assert_int_equal(json_integer_value(json_array_get(json_array_get(heat, 0), 1)), 98);
	assert_in_range(json_integer_value(json_array_get(json_array_get(heat, 0), 0)), 5000, 8000);
	assert_int_equal(json_integer_value(json_array_get(json_array_get(heat, 1), 1)), 2);
	assert_in_range(
		json_integer_value(json_array_get(json_array_get(heat, 1), 0)), 40000000, 60000000);
	assert_true(real(quiet, "accepts_per_s") == 0);
	assert_int_equal(number(quiet, "poll_delay_p99_ns"), 0);
	json_decref(j);
}

static void test_busy_is_at_most_one(void **state)
{
	fake.stats[0].loop_us.sum += 5000000; /* a turn of five seconds that has ended now */
	json_t *j = look(1);

	assert_true(real(worker_of(j, 0), "busy") == 1);
	json_decref(j);
}

static void test_line(void **state)
{
	fake.has_line = true;
	fake.line = (struct schedline){.interval_ns = 10 * S_NS,
		.delay_p99_us = 37000,
		.runnable = 182000,
		.conns = 1800000,
		.accepts_per_s = 9000,
		.closes_per_s = 8700.04,
		.gate = "paced",
		.admitted = 90000,
		.refused = 3,
		.forced_yields = 212,
		.dropped = 1};
	json_t *j = look(1), *l = json_object_get(j, "line");

	assert_int_equal(number(l, "sched_poll_delay_p99_ns"), 37000000);
	assert_int_equal(number(l, "runnable_tasks"), 182000);
	assert_int_equal(number(l, "conns"), 1800000);
	assert_true(real(l, "accepts_per_s") == 9000);
	assert_true(real(l, "closes_per_s") == 8700.04);
	assert_string_equal(text(l, "gate"), "paced");
	assert_int_equal(number(l, "admitted"), 90000);
	assert_int_equal(number(l, "refused"), 3);
	assert_int_equal(number(l, "forced_yields"), 212);
	assert_int_equal(number(l, "dropped"), 1);
	assert_true(real(l, "interval_s") == 10);
	assert_true(real(l, "age_s") == 1.5);
	json_decref(j);
}

static void test_gate(void **state)
{
	fake.gate = (struct gate_info){.on = true,
		.mode = "user",
		.where = "user",
		.gate = {.state = TG_GATE_PACED,
			.reason = TG_GATE_BY_DELAY,
			.rate = 1200,
			.permits = GOVERNOR_PERMITS_MAX},
		.word = GATE_WORD_AUTO,
		.delay_ns = 6000000,
		.target_ns = 5000000,
		.goodput = 900,
		.cuts = 4,
		.memory = {MEMORY_UNKNOWN, 12, 40, 40},
		.memory_high_percent = 90,
		.handshake_percent = 20};
	fake.stats[0].class_ns[RUNQ_HANDSHAKE] += 1;
	fake.stats[1].class_ns[RUNQ_FANOUT] += 3;
	fake.stats[0].verdicts[TG_DROP_RATE] += 30;
	fake.stats[1].verdicts[TG_DROP_RATE] += 10;
	fake.stats[1].verdicts_observed[TG_DROP_DENYLIST] += 5;
	json_t *j = look(2), *g = json_object_get(j, "gate"), *m = json_object_get(j, "memory");

	assert_string_equal(text(g, "state"), "paced");
	assert_string_equal(text(g, "reason"), "delay");
	assert_string_equal(text(g, "word"), "auto");
	assert_int_equal(number(g, "rate"), 1200);
	assert_true(json_is_null(json_object_get(g, "permits")));
	assert_int_equal(number(g, "delay_ns"), 6000000);
	assert_int_equal(number(g, "target_ns"), 5000000);
	assert_true(real(g, "handshake_share") == 0.25);
	assert_true(real(g, "handshake_share_min") == 0.2);
	assert_int_equal(number(g, "goodput_per_s"), 900);
	assert_true(json_is_null(json_object_get(m, "cgroup")));
	assert_true(real(m, "tcp") == 0.12);
	assert_true(real(m, "pressure") == 0.4);
	assert_true(real(m, "limit") == 0.9);
	assert_true(number(m, "rss") > 100000);
	assert_int_equal(number(m, "per_connection"), number(m, "rss") / 85);

	json_t *verdicts = json_object_get(j, "verdicts"), *v;
	size_t i;
	assert_int_equal(json_array_size(verdicts), 2);
	json_array_foreach(verdicts, i, v)
	{
		bool rate = !strcmp(text(v, "reason"), "rate");

		assert_string_equal(text(v, "program"), "user");
		assert_true(json_is_true(json_object_get(v, "refuses")));
		assert_int_equal(number(v, "total"), rate ? 40 : 0);
		assert_true(real(v, "per_s") == (rate ? 20 : 0));
		assert_int_equal(number(v, "observed"), rate ? 0 : 5);
	}
	json_decref(j);
}

static void test_sources(void **state)
{
	fake.n_sources = 2;
	fake.sources[0] = (struct source_info){.prefix = "192.0.2.1/32",
		.open = 7,
		.accepts = 100,
		.closes = 90,
		.churn_per_s = 1.5,
		.strikes = 1,
		.penalty_left_s = 2.5};
	live_sample_take(&before, &backend, &process, 100 * S_NS);
	fake.sources[0].accepts += 30;
	fake.sources[0].closes += 10;
	fake.sources[1] = (struct source_info){.prefix = "2001:db8::/64", .churn_per_s = 3};
	/* One that is new, since the count was one then. */
	before.n_sources = 1;
	json_t *j = look(2), *all = json_object_get(j, "sources");

	assert_int_equal(json_array_size(all), 2);
	json_t *s = json_array_get(all, 0);
	assert_string_equal(text(s, "prefix"), "192.0.2.1/32");
	assert_int_equal(number(s, "open"), 7);
	assert_int_equal(number(s, "accepts"), 130);
	assert_true(real(s, "churn_per_s") == 20);
	assert_int_equal(number(s, "penalty_left_ms"), 2500);
	assert_true(real(json_array_get(all, 1), "churn_per_s") == 3);
	json_decref(j);

	backend.top_sources = NULL;
	j = look(2);
	assert_true(json_is_null(json_object_get(j, "sources")));
	json_decref(j);
}

/* The links of one endpoint are one; one that is down is the one that is shown. */
static void test_links(void **state)
{
	struct live_about about = {.instance = "", .version = ""};
	struct link_info *links;

	assert_int_equal(backend.links(backend.ctx, &links, &about.n_links), 0);
	about.links = links;
	strcpy(links[1].last_error, "gone");
	links[1].up = false;
	links[1].state = "waiting";
	live_sample_take(&now, &backend, &process, 101 * S_NS);
	json_t *j = live_json(&about, &before, &now), *all = json_object_get(j, "links");

	assert_int_equal(json_array_size(all), 2);
	json_t *l = json_array_get(all, 0);
	assert_string_equal(text(l, "upstream"), "service");
	assert_string_equal(text(l, "endpoint"), "tcp://127.0.0.1:9300");
	assert_int_equal(number(l, "links"), 2);
	assert_int_equal(number(l, "up"), 1);
	assert_int_equal(number(l, "sessions"), 42);
	assert_int_equal(number(l, "queued_bytes"), 15);
	assert_string_equal(text(l, "state"), "waiting");
	assert_string_equal(text(l, "last_error"), "gone");
	assert_string_equal(text(json_array_get(all, 1), "last_error"), "bad HELLO: ?\x1b[2J");
	json_decref(j);
	free(links);

	about = (struct live_about){.instance = "", .version = "", .links_error = "it hangs"};
	j = live_json(&about, &before, &now);
	assert_true(json_is_null(json_object_get(j, "links")));
	assert_string_equal(text(j, "links_error"), "it hangs");
	json_decref(j);
}

static struct admin_route many[300];

static void many_route(void *ctx, unsigned route, struct admin_route *ret)
{
	*ret = many[route];
}

static void test_routes(void **state)
{
	backend.n_routes = 300;
	backend.route = many_route;
	for (unsigned i = 0; i < 300; i++) {
		many[i] = (struct admin_route){.path = "/r",
			.upstream = "echo",
			.policy = OUT_CONFLATE,
			.sessions = {0, (i * 7) % 300}};
	}
	live_sample_fini(&before);
	live_sample_fini(&now);
	assert_int_equal(live_sample_init(&before, &backend), 0);
	assert_int_equal(live_sample_init(&now, &backend), 0);
	live_sample_take(&before, &backend, &process, 100 * S_NS);
	for (unsigned i = 0; i < 300; i++)
		many[i].dropped[OUT_CONFLATE] = many[i].sessions[1] == 299 ? 30 : 0;
	json_t *j = look(1), *all = json_object_get(j, "routes");

	assert_int_equal(json_array_size(all), LIVE_ROUTES_MAX);
	assert_int_equal(number(json_array_get(all, 0), "connections"), 299);
	assert_int_equal(number(json_array_get(all, 0), "dropped"), 30);
	assert_true(real(json_array_get(all, 0), "dropped_per_s") == 30);
	assert_string_equal(text(json_array_get(all, 0), "policy"), "conflate");
	assert_int_equal(number(json_array_get(all, 99), "connections"), 200);
	json_decref(j);
}

/* ---- the thread ---- */

static atomic_uint notified;

static void on_snapshot(void *ctx, struct live_snapshot *s)
{
	assert_ptr_equal(ctx, &notified);
	assert_true(strlen(s->json) == s->len && s->json[0] == '{');
	notified++;
}

static struct live *start(void)
{
	struct live *l;

	notified = 0;
	assert_int_equal(live_start(&(struct live_opts){.instance = "test",
					    .version = "1",
					    .backend = &backend,
					    .process = &process,
					    .notify = on_snapshot,
					    .ctx = &notified},
				 &l),
		0);
	return l;
}

static void nap_ms(unsigned ms)
{
	nanosleep(&(struct timespec){ms / 1000, (long)(ms % 1000) * 1000000}, NULL);
}

static void test_thread(void **state)
{
	struct live *l = start();
	struct live_snapshot *a, *b;

	nap_ms(50);
	assert_int_equal(fake.links_calls, 0); /* nobody looks: nothing is asked */
	assert_int_equal(live_get(l, &a), 0);
	assert_int_equal(live_get(l, &b), 0);
	assert_true(b->seq >= a->seq);
	json_t *j = json_loads(a->json, 0, NULL);
	assert_int_equal(number(j, "seq"), (json_int_t)a->seq);
	assert_int_equal(json_array_size(json_object_get(j, "links")), 2);
	json_decref(j);
	live_snapshot_put(b);
	uint64_t seq = a->seq;
	live_snapshot_put(a);
	for (unsigned i = 0; i < 1000; i++) {
		assert_int_equal(live_get(l, &a), 0);
		bool next = a->seq > seq;
		live_snapshot_put(a);
		if (next)
			break;
		assert_int_not_equal(i, 999);
		nap_ms(20);
	}
	assert_true(notified >= 2);
	live_stop(l);
	assert_int_equal(live_get(l, &a), -ESHUTDOWN);
	live_destroy(l);
}

/* Watchers keep it going, and it sleeps when the last one leaves. */
static void test_watchers(void **state)
{
	struct live *l = start();

	live_watch(l);
	live_watch(l);
	for (unsigned i = 0; i < 1000 && notified < 3; i++)
		nap_ms(20);
	assert_true(notified >= 3);
	live_unwatch(l);
	unsigned one_left = notified;
	for (unsigned i = 0; i < 1000 && notified == one_left; i++)
		nap_ms(20);
	assert_true(notified > one_left);
	live_unwatch(l);
	nap_ms(100);
	unsigned last = notified;
	nap_ms(1500);
	assert_int_equal(notified, last);
	live_stop(l);
	live_destroy(l);
}

/* A worker that hangs: its snapshot comes all the same, and says what is missing. */
static void test_a_worker_hangs(void **state)
{
	fake.links_error = -ETIMEDOUT;
	struct live *l = start();
	struct live_snapshot *s;

	assert_int_equal(live_get(l, &s), 0);
	json_t *j = json_loads(s->json, 0, NULL);
	assert_string_equal(text(j, "links_error"), "a worker did not answer within 2 s");
	json_decref(j);
	live_snapshot_put(s);
	live_watch(l);
	for (unsigned i = 0; i < 1000 && notified < 3; i++)
		nap_ms(20);
	assert_int_equal(fake.links_calls, 1); /* it is not asked at every tick */
	live_unwatch(l);
	live_stop(l);
	live_destroy(l);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_nothing_happened),
		TEST(test_workers),
		TEST(test_busy_is_at_most_one),
		TEST(test_line),
		TEST(test_gate),
		TEST(test_sources),
		TEST(test_links),
		TEST(test_routes),
		TEST(test_thread),
		TEST(test_watchers),
		TEST(test_a_worker_hangs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
