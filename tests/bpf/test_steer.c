#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>

#include "kern/bpf_steer.h"
#include "kern/worker_load.h"
#include "kernel_fixture.h"

enum {
	WORKERS = 4,
	PICKS = 400, /* connections of a test, from half as many addresses */
};

#define MSEC 1000000ull
#define SEC  1000000000ull

static struct bpf_steer *steer;
static struct tg_worker_load *lines;
static struct worker_load load[WORKERS];
static int listener[WORKERS];
static int accepted[WORKERS];

/* ---- the workers, played by the test ---- */

static void publish_at(unsigned w, uint64_t now_ns)
{
	worker_load_publish(&lines[w], &load[w], now_ns);
}

static void publish(void)
{
	for (unsigned w = 0; w < WORKERS; w++)
		publish_at(w, crowd_now_ns());
}

/* Everybody sleeps, with nothing to do and room for more. */
static void all_alike(void)
{
	for (unsigned w = 0; w < WORKERS; w++) {
		worker_load_begin(&lines[w]);
		lines[w].tid = 0; /* the test's thread is woken for other reasons */
		load[w] = (struct worker_load){
			.sleeping = true, .accepting = true, .free_slots = 1000};
	}
	publish();
}

static void start(struct kernel *k, unsigned sockets)
{
	const char *step = NULL;
	struct bpf_steer_group group = {
		.fds = listener, .n = WORKERS, .workers = WORKERS, .rings = 1, .listener = 2};

	kernel_maps(k, NULL);
	k->settings.workers = WORKERS;
	k->settings.listeners = 3;
	kernel_write_settings(k);
	kernel_ok(worker_load_map(bpf_maps_fd(k->maps, BPF_MAP_worker_load), &lines), "load");
	all_alike();
	kernel_ok(bpf_steer_load(k->maps, &steer, &step), step);
	for (unsigned w = 0; w < WORKERS; w++)
		listener[w] = w < sockets ? crowd_listen("::", KERNEL_PORT, sockets > 1) : -1;
	kernel_ok(bpf_steer_add(steer, &group, &step), step);
	memset(accepted, 0, sizeof(accepted));
}

static void stop(struct kernel *k)
{
	kernel_close(k);
	for (unsigned w = 0; w < WORKERS; w++)
		if (listener[w] >= 0)
			close(listener[w]);
	bpf_steer_close(steer);
	worker_load_unmap(lines);
	bpf_maps_close(k->maps);
}

static void source(char text[64], unsigned n)
{
	if (n % 4 == 3)
		snprintf(text, 64, "fd07:0:%x::1", n / 2);
	else
		snprintf(text, 64, "10.7.%u.%u", n / 2 / 250, n / 2 % 250 + 1);
}

static int accept_all(struct kernel *k)
{
	int n = 0;

	for (unsigned w = 0; w < WORKERS; w++) {
		int got = listener[w] < 0 ? 0 : (int)kernel_accept(k, listener[w]);
		accepted[w] += got;
		n += got;
	}
	return n;
}

/* One connection after the other; `each` is called before each of them. */
static void connect_many(struct kernel *k, unsigned n, void (*each)(void))
{
	char from[64];
	int before = accepted[0] + accepted[1] + accepted[2] + accepted[3];

	for (unsigned i = 0; i < n; i++) {
		if (each)
			each();
		source(from, i);
		kernel_connect(
			k, from, strchr(from, ':') ? NETNS_SERVER6 : NETNS_SERVER4, KERNEL_PORT);
		accept_all(k);
	}
	CROWD_UNTIL((accept_all(k), accepted[0] + accepted[1] + accepted[2] + accepted[3]) ==
		    before + (int)n);
}

static double spread(void)
{
	double mean = 0, sum = 0;

	for (unsigned w = 0; w < WORKERS; w++)
		mean += accepted[w] / (double)WORKERS;
	for (unsigned w = 0; w < WORKERS; w++)
		sum += (accepted[w] - mean) * (accepted[w] - mean) / WORKERS;
	return sqrt(sum) / mean;
}

/* As real workers do: what they were given shows in their next line. */
static void publish_connections(void)
{
	for (unsigned w = 0; w < WORKERS; w++)
		load[w].connections = (uint32_t)accepted[w];
	publish();
}

/* ---- tests ---- */

static void test_even(void **state)
{
	struct kernel *k = kernel_of(state);

	start(k, WORKERS);
	connect_many(k, PICKS, publish_connections);
	double steered = spread();
	assert_int_equal(kernel_count(k, TG_STEER_CHOSEN, false), PICKS);
	stop(k);

	/* What the kernel's hash makes of the same. */
	start(k, WORKERS);
	for (unsigned w = 0; w < WORKERS; w++)
		worker_load_end(&lines[w]);
	connect_many(k, PICKS, NULL);
	double hashed = spread();
	assert_int_equal(kernel_count(k, TG_STEER_HASH, false), PICKS);
	assert_int_equal(kernel_count(k, TG_STEER_CHOSEN, false), 0);
	stop(k);
	print_message(
		"spread (standard deviation / mean): steered %.3f, hashed %.3f\n", steered, hashed);
	assert_true(steered < hashed);
}

/* Many SYNs between two publications: the picks themselves keep it even. */
static void test_picks_since(void **state)
{
	struct kernel *k = kernel_of(state);

	start(k, WORKERS);
	connect_many(k, PICKS, NULL);
	for (unsigned w = 0; w < WORKERS; w++) {
		struct tg_worker_picks p;
		assert_int_equal(
			bpf_map_lookup_elem(bpf_maps_fd(k->maps, BPF_MAP_picks), &w, &p), 0);
		assert_int_equal(p.total, accepted[w]);
		assert_int_equal(p.since, accepted[w]);
		assert_in_range(accepted[w], PICKS / WORKERS - 20, PICKS / WORKERS + 20);
	}
	stop(k);
}

static void test_connections(void **state)
{
	struct kernel *k = kernel_of(state);

	start(k, WORKERS);
	load[0].connections = 10000;
	load[1].connections = 9000;
	publish();
	connect_many(k, PICKS, NULL);
	/* The last never wins; the last but one only against the last: one draw of six. */
	assert_int_equal(accepted[0], 0);
	assert_in_range(accepted[1], 1, PICKS / WORKERS);
	assert_true(accepted[2] > accepted[1] && accepted[3] > accepted[1]);
	stop(k);
}

static void test_delay(void **state)
{
	struct kernel *k = kernel_of(state);

	start(k, WORKERS);
	/* Awake, so that what they say of their delay is today's; and it comes first. */
	k->settings.hang_ns = 3600 * SEC;
	kernel_write_settings(k);
	for (unsigned w = 0; w < WORKERS; w++) {
		load[w].sleeping = false;
		load[w].connections = w == 3 ? 0 : 100000;
	}
	load[3].poll_delay_ns = 3600 * SEC; /* above whatever a busy test adds as age */
	connect_many(k, PICKS, publish);
	assert_int_equal(accepted[3], 0);
	assert_true(accepted[0] && accepted[1] && accepted[2]);

	/* Below the first step, delays are alike and connections decide. */
	load[0] = (struct worker_load){.sleeping = true,
		.accepting = true,
		.free_slots = 1,
		.poll_delay_ns = 100000,
		.connections = 0};
	for (unsigned w = 1; w < WORKERS; w++) {
		load[w] = load[0];
		load[w].poll_delay_ns = 0;
		load[w].connections = 100000;
	}
	int before = accepted[0];
	connect_many(k, 100, publish);
	assert_true(accepted[0] - before > 100 / WORKERS);

	/* A sleeper's delay is of the past. */
	load[0].poll_delay_ns = SEC / 50;
	for (unsigned w = 0; w < WORKERS; w++)
		publish_at(w, crowd_now_ns() - 60 * SEC);
	before = accepted[0];
	connect_many(k, 100, NULL);
	assert_true(accepted[0] - before > 100 / WORKERS);
	stop(k);
}

static void test_hung(void **state)
{
	struct kernel *k = kernel_of(state);

	start(k, WORKERS);
	/* One has been awake for too long; the others have been asleep for longer: their right. */
	load[1].sleeping = false;
	publish_at(1, crowd_now_ns() - 21 * MSEC);
	for (unsigned w = 0; w < WORKERS; w++)
		if (w != 1)
			publish_at(w, crowd_now_ns() - 3600 * SEC);
	connect_many(k, PICKS, NULL);
	assert_int_equal(accepted[1], 0);
	for (unsigned w = 0; w < WORKERS; w++)
		if (w != 1)
			assert_in_range(accepted[w], PICKS / 3 - 20, PICKS / 3 + 20);
	/* It is back. */
	load[1].sleeping = true;
	publish_at(1, crowd_now_ns());
	connect_many(k, 40, NULL);
	assert_true(accepted[1] > 0);
	stop(k);
}

static void test_full_and_not_accepting(void **state)
{
	struct kernel *k = kernel_of(state);

	start(k, WORKERS);
	load[0].free_slots = 0;
	load[1].accepting = false;
	publish();
	connect_many(k, 100, NULL);
	assert_int_equal(accepted[0] + accepted[1], 0);
	/* A full one is better than none: it may have room by the time. */
	load[2].free_slots = load[3].free_slots = 0;
	publish();
	connect_many(k, 100, NULL);
	assert_int_equal(accepted[1], 0);
	assert_true(accepted[0] > 0);
	assert_int_equal(kernel_count(k, TG_STEER_HASH, false), 0);
	stop(k);
}

static void test_all_hung(void **state)
{
	struct kernel *k = kernel_of(state);

	start(k, WORKERS);
	for (unsigned w = 0; w < WORKERS; w++) {
		load[w].sleeping = false;
		publish_at(w, crowd_now_ns() - SEC);
	}
	for (unsigned i = 0; i < 10; i++) {
		int fd = crowd_connect(&k->net, "10.7.0.1", NETNS_SERVER4, KERNEL_PORT);
		assert_int_equal(fd, -1);
		assert_int_equal(errno, ECONNREFUSED);
	}
	assert_int_equal(kernel_count(k, TG_STEER_HUNG, false), 10);
	k->settings.flags |= TG_SET_OBSERVE;
	kernel_write_settings(k);
	connect_many(k, 10, NULL);
	assert_int_equal(kernel_count(k, TG_STEER_HUNG, false), 10);
	assert_int_equal(kernel_count(k, TG_STEER_HUNG, true), 10);
	stop(k);
}

/* A worker that is woken and does not run: it says that it sleeps, but it hangs. */
struct sleeper {
	int pipe[2];
	unsigned w;
	atomic_int state; /* 1: ready to sleep, 2: was woken, 3: may end */
};

static void *sleeper_run(void *arg)
{
	struct sleeper *s = arg;
	char c;

	worker_load_begin(&lines[s->w]);
	publish_at(s->w, crowd_now_ns());
	atomic_store(&s->state, 1);
	if (read(s->pipe[0], &c, 1) == 1)
		atomic_store(&s->state, 2);
	while (atomic_load(&s->state) != 3)
		crowd_sleep_ms(1);
	return NULL;
}

static void test_wake_pending(void **state)
{
	struct kernel *k = kernel_of(state);
	struct sleeper s = {.w = 2};
	pthread_t thread;

	start(k, WORKERS);
	assert_int_equal(pipe(s.pipe), 0);
	assert_int_equal(pthread_create(&thread, NULL, sleeper_run, &s), 0);
	CROWD_UNTIL(atomic_load(&s.state) == 1);
	crowd_sleep_ms(50); /* into its read, and longer than a hang */
	connect_many(k, 100, NULL);
	assert_true(accepted[2] > 0); /* it sleeps well */
	int before = accepted[2];
	assert_int_equal(write(s.pipe[1], "x", 1), 1);
	CROWD_UNTIL(atomic_load(&s.state) == 2);
	crowd_sleep_ms(30);
	connect_many(k, 100, NULL);
	assert_int_equal(accepted[2], before);
	atomic_store(&s.state, 3);
	pthread_join(thread, NULL);
	publish_at(2, crowd_now_ns());
	connect_many(k, 100, NULL);
	assert_true(accepted[2] > before);
	close(s.pipe[0]);
	close(s.pipe[1]);
	stop(k);
}

/* ---- a listener goes away ---- */

struct client {
	struct kernel *k;
	int fd[PICKS];
	atomic_uint done;
};

/* Connects and says its number, in a thread of the clients' side. */
static void *client_run(void *arg)
{
	struct client *c = arg;
	char from[64];

	crowd_enter(c->k->net.client);
	for (uint32_t i = 0; i < PICKS; i++) {
		source(from, i);
		c->fd[i] = crowd_connect_here(
			from, 0, strchr(from, ':') ? NETNS_SERVER6 : NETNS_SERVER4, KERNEL_PORT);
		if (c->fd[i] >= 0 && write(c->fd[i], &i, sizeof(i)) != sizeof(i)) {
			close(c->fd[i]);
			c->fd[i] = -1;
		}
		if (c->fd[i] < 0)
			fprintf(stderr, "connection %u: %s\n", i, strerror(errno));
		atomic_fetch_add(&c->done, 1);
	}
	return NULL;
}

/* A listener goes away in order: bpf_steer_remove. */
static void retire(struct kernel *k, struct client *c, uint32_t w)
{
	load[w].accepting = false;
	publish_at(w, crowd_now_ns());
	assert_int_equal(bpf_steer_remove(steer, &k->settings, 2, w, 0), 0);
	unsigned under_way = atomic_load(&c->done) + 2;
	CROWD_UNTIL(atomic_load(&c->done) >= under_way);
	close(listener[w]);
	listener[w] = -1;
}

static void test_migration(void **state)
{
	struct kernel *k = kernel_of(state);
	struct client *c = calloc(1, sizeof(*c));
	bool seen[PICKS] = {false};
	struct timeval wait = {CROWD_WAIT_S, 0};
	pthread_t thread;
	unsigned n = 0;

	start(k, WORKERS);
	c->k = k;
	assert_int_equal(pthread_create(&thread, NULL, client_run, c), 0);
	/* Nobody accepts; two listeners go away while connections come in, with their queues. */
	CROWD_UNTIL(atomic_load(&c->done) >= PICKS / 4);
	retire(k, c, 1);
	CROWD_UNTIL(atomic_load(&c->done) >= PICKS / 2);
	retire(k, c, 3);
	pthread_join(thread, NULL);
	for (unsigned i = 0; i < PICKS; i++)
		assert_true(c->fd[i] >= 0);
	CROWD_UNTIL((accept_all(k), k->n_served) == PICKS);
	assert_int_equal(accepted[1] + accepted[3], 0);
	for (unsigned i = 0; i < PICKS; i++) {
		uint32_t number = PICKS;
		setsockopt(k->served[i], SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
		assert_int_equal(read(k->served[i], &number, sizeof(number)), sizeof(number));
		assert_true(number < PICKS && !seen[number]);
		seen[number] = true;
		n++;
	}
	assert_int_equal(n, PICKS);
	assert_true(kernel_count(k, TG_STEER_MIGRATED, false) > 0);
	print_message("%llu connections changed their listener\n",
		(unsigned long long)kernel_count(k, TG_STEER_MIGRATED, false));
	for (unsigned i = 0; i < PICKS; i++)
		crowd_reset(c->fd[i]);
	free(c);
	stop(k);
}

/* Established already, so they are not refused, whoever hangs. */
static void test_migration_when_all_hang(void **state)
{
	struct kernel *k = kernel_of(state);

	start(k, WORKERS);
	load[0].connections = load[1].connections = load[2].connections = 1000;
	publish();
	for (unsigned i = 0; i < 40; i++)
		kernel_connect(k, "10.7.0.1", NETNS_SERVER4, KERNEL_PORT);
	for (unsigned w = 0; w < WORKERS; w++) {
		load[w].sleeping = false;
		publish_at(w, crowd_now_ns() - SEC);
	}
	close(listener[3]);
	listener[3] = -1;
	CROWD_UNTIL((accept_all(k), k->n_served) == 40);
	stop(k);
}

/* ---- port ranges and prefixes ---- */

static void redirect(
	struct bpf_redirect *r, const char *prefix, uint16_t port, uint16_t last, uint32_t to)
{
	struct tg_lpm_key key = {0};

	if (prefix)
		assert_int_equal(bpf_prefix_parse(prefix, &key), 0);
	*r = (struct bpf_redirect){
		.bits = (uint8_t)key.prefixlen, .port = port, .port_last = last, .listener = to};
	memcpy(r->addr, key.addr, sizeof(r->addr));
}

static void some_redirects(struct kernel *k)
{
	struct bpf_endpoint any = {.port = 20000, .port_last = 30000};
	struct bpf_redirect list[4];

	redirect(&list[0], "10.98.7.0/24", 20000, 20999, 1); /* listener 1 has no socket */
	redirect(&list[1], "10.98.0.0/16", 20000, 24999, 2);
	redirect(&list[2], "fd99::1", 20000, 20000, 2);
	redirect(&list[3], NULL, 29000, 30000, 2);
	kernel_ok(bpf_ports_write(k->maps, &any, 1), "ports");
	kernel_ok(bpf_redirects_write(k->maps, list, 4, &k->settings), "redirects");
}

static void test_redirect_table(void **state)
{
	static const struct {
		const char *to;
		uint16_t port;
		enum {
			PASS,
			OURS,
			REFUSED
		} result;
	} rows[] = {
		{"10.98.0.1", 19999, PASS},
		{"10.98.0.1", 20000, OURS},
		{"10.98.0.1", 24999, OURS},
		{"10.98.0.1", 25000, PASS},
		{"10.99.0.1", 20000, PASS},
		{"10.97.255.255", 20000, PASS},
		{"10.98.7.1", 20999, REFUSED},
		{"10.98.7.1", 21000, OURS},
		{"10.98.8.0", 20500, OURS},
		{"fd99::1", 20000, OURS},
		{"fd99::1", 20001, PASS},
		{"fd99::2", 20000, PASS},
		{"192.0.2.1", 29000, OURS},
		{"2001:db8::1", 30000, OURS},
		{"192.0.2.1", 30001, PASS},
		{"0.0.0.0", 28999, PASS},
	};
	struct kernel *k = kernel_of(state);

	start(k, 1); /* PROG_RUN has no answer for sockets that share their address */
	some_redirects(k);
	uint64_t cookie;
	socklen_t len = sizeof(cookie);
	assert_int_equal(getsockopt(listener[0], SOL_SOCKET, SO_COOKIE, &cookie, &len), 0);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct bpf_sk_lookup ctx = {.protocol = IPPROTO_TCP, .local_port = rows[i].port};
		struct crowd_address a = crowd_address(rows[i].to, 0);
		LIBBPF_OPTS(bpf_test_run_opts, run, .ctx_in = &ctx, .ctx_size_in = sizeof(ctx),
			.ctx_out = &ctx, .ctx_size_out = sizeof(ctx));

		ctx.family = a.any.sa_family;
		if (ctx.family == AF_INET)
			memcpy(&ctx.local_ip4, &a.v4.sin_addr, 4);
		else
			memcpy(ctx.local_ip6, &a.v6.sin6_addr, 16);
		assert_int_equal(bpf_prog_test_run_opts(bpf_steer_lookup_fd(steer), &run), 0);
		assert_int_equal(run.retval, rows[i].result == REFUSED ? SK_DROP : SK_PASS);
		assert_int_equal(ctx.cookie, rows[i].result == OURS ? cookie : 0);
	}
	assert_int_equal(kernel_count(k, TG_LOOKUP_FAILED, false), 1);
	assert_int_equal(kernel_count(k, TG_LOOKUP_ASSIGNED, false), 7);
	stop(k);
}

static void test_redirected_connections(void **state)
{
	struct kernel *k = kernel_of(state);
	const char *step = NULL;

	start(k, WORKERS);
	some_redirects(k);
	kernel_ok(bpf_steer_attach_lookup(steer, -1, &step), step);
	for (unsigned i = 0; i < 100; i++) {
		char to[64];
		snprintf(to, sizeof(to), "10.98.%u.%u", i % 7, i);
		kernel_connect(k, "10.7.0.1", to, (uint16_t)(20000 + 49 * i));
	}
	kernel_connect(k, "fd07::1", NETNS_SERVER6, 20000);
	CROWD_UNTIL((accept_all(k), k->n_served) == 101);
	for (unsigned w = 0; w < WORKERS; w++)
		assert_in_range(accepted[w], 10, 40); /* the choice between workers is made, too */
	assert_int_equal(crowd_connect(&k->net, "10.7.0.1", "10.98.7.1", 20000), -1);
	assert_int_equal(errno, ECONNREFUSED);
	assert_int_equal(crowd_connect(&k->net, "10.7.0.1", "10.98.0.1", 25000), -1);

	/* A listener of one socket has nobody to choose between. */
	bpf_steer_close(steer);
	steer = NULL;
	assert_int_equal(crowd_connect(&k->net, "10.7.0.1", "10.98.0.1", 20000), -1);
	stop(k);
}

static void test_bad_arguments(void **state)
{
	struct kernel *k = kernel_of(state);
	struct bpf_redirect r;
	const char *step = NULL;

	start(k, 1);
	redirect(&r, "10.98.0.0/16", 0, 100, 0);
	assert_int_equal(bpf_redirects_write(k->maps, &r, 1, &k->settings), -EINVAL);
	redirect(&r, "10.98.0.0/16", 200, 100, 0);
	assert_int_equal(bpf_redirects_write(k->maps, &r, 1, &k->settings), -EINVAL);
	redirect(&r, "10.98.0.0/16", 100, 100, 0);
	r.bits = 40;
	assert_int_equal(bpf_redirects_write(k->maps, &r, 1, &k->settings), -EINVAL);
	assert_int_equal(
		bpf_redirects_write(k->maps, &r, TG_REDIRECTS_MAX + 1, &k->settings), -E2BIG);
	assert_int_equal(k->settings.redirects, 0);

	struct bpf_steer_group g = {.fds = listener,
		.n = WORKERS,
		.workers = WORKERS,
		.rings = 1,
		.listener = 1u << 20};
	assert_int_equal(bpf_steer_add(steer, &g, &step), -E2BIG);
	g.listener = 0;
	g.n = 3;
	assert_int_equal(bpf_steer_add(steer, &g, &step), -EINVAL);
	/* Two sockets that do not share. */
	int alone[2] = {crowd_listen("::", 8081, false), crowd_listen("::", 8082, false)};
	g = (struct bpf_steer_group){.fds = alone, .n = 2, .workers = 2, .rings = 1};
	assert_int_equal(bpf_steer_add(steer, &g, &step), -EINVAL);
	assert_string_equal(step, "SO_ATTACH_REUSEPORT_EBPF");
	kernel_ok(bpf_steer_attach_lookup(steer, -1, &step), step);
	assert_int_equal(bpf_steer_attach_lookup(steer, -1, &step), -EBUSY);
	close(alone[0]);
	close(alone[1]);
	stop(k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_even),
		cmocka_unit_test(test_picks_since),
		cmocka_unit_test(test_connections),
		cmocka_unit_test(test_delay),
		cmocka_unit_test(test_hung),
		cmocka_unit_test(test_full_and_not_accepting),
		cmocka_unit_test(test_all_hung),
		cmocka_unit_test(test_wake_pending),
		cmocka_unit_test(test_migration),
		cmocka_unit_test(test_migration_when_all_hang),
		cmocka_unit_test(test_redirect_table),
		cmocka_unit_test(test_redirected_connections),
		cmocka_unit_test(test_bad_arguments),
	};
	return cmocka_run_group_tests(tests, kernel_begin, kernel_end);
}
