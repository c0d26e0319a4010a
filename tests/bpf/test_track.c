#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>

#include "track_fixture.h"

enum {
	SOURCES = 200,
};

/* ---- counting ---- */

static void check_family(struct kernel *k, void (*address)(char[64], unsigned), const char *to,
	unsigned len, const char *wide)
{
	int listener = crowd_listen(to, KERNEL_PORT, false);
	struct tg_source s;
	char from[64];

	for (unsigned i = 0; i < 2 * SOURCES; i++) {
		address(from, i / 2);
		kernel_connect(k, from, to, KERNEL_PORT);
	}
	CROWD_UNTIL(kernel_pace(k).established == 2 * SOURCES);
	assert_int_equal(kernel_accept(k, listener), 2 * SOURCES);
	for (unsigned i = 0; i < SOURCES; i++) {
		address(from, i);
		assert_true(kernel_source(k, with_len(from, len), &s));
		assert_int_equal(s.accepts, 2);
		assert_int_equal(s.closes, 0);
		assert_true(s.first_ns && s.last_ns >= s.first_ns);
		assert_int_equal(kernel_open(k, with_len(from, len)), 2);
	}
	assert_int_equal(kernel_open(k, wide), 2 * SOURCES);

	/* Clients that leave in order, those that reset, and those that we reset. */
	for (unsigned i = 0; i < 2 * SOURCES; i += 3)
		crowd_reset(k->client[i]);
	for (unsigned i = 1; i < 2 * SOURCES; i += 3)
		crowd_reset(k->served[i]);
	for (unsigned i = 2; i < 2 * SOURCES; i += 3)
		close(k->client[i]);
	for (unsigned i = 0; i < 2 * SOURCES; i++) {
		if (i % 3 != 1)
			close(k->served[i]);
		else
			close(k->client[i]);
	}
	k->clients = k->n_served = 0;
	CROWD_UNTIL(kernel_pace(k).closed == 2 * SOURCES);
	CROWD_UNTIL(kernel_entries(k, BPF_MAP_open) == 0);
	for (unsigned i = 0; i < SOURCES; i++) {
		address(from, i);
		assert_true(kernel_source(k, with_len(from, len), &s));
		assert_int_equal(s.closes, 2);
		assert_true(s.lifetime_us > 0);
	}
	assert_int_equal(kernel_count(k, TG_TRACK_ESTABLISHED, false), 2 * SOURCES);
	assert_int_equal(kernel_count(k, TG_TRACK_CLOSED, false), 2 * SOURCES);
	assert_int_equal(kernel_count(k, TG_TRACK_CLOSED_UNKNOWN, false), 0);
	close(listener);
}

static uint64_t lifetimes(const struct kernel *k)
{
	uint64_t per[256], sum = 0;

	for (uint32_t i = 0; i < TG_LIFETIME_BUCKETS; i++) {
		assert_int_equal(
			bpf_map_lookup_elem(bpf_maps_fd(k->maps, BPF_MAP_lifetime), &i, per), 0);
		for (int c = 0; c < libbpf_num_possible_cpus(); c++)
			sum += per[c];
	}
	return sum;
}

static void test_ipv4(void **state)
{
	struct kernel *k = kernel_of(state);

	start(k, NULL);
	check_family(k, v4, NETNS_SERVER4, 32, "10.7.0.0/24");
	assert_int_equal(lifetimes(k), 2 * SOURCES);
	stop(k);
}

static void test_ipv6(void **state)
{
	struct kernel *k = kernel_of(state);

	start(k, NULL);
	check_family(k, v6, NETNS_SERVER6, 64, "fd07::/56");
	stop(k);
}

/* A dual-stack socket sees IPv4 clients as mapped addresses: still the same sources. */
static void test_mapped(void **state)
{
	struct kernel *k = kernel_of(state);

	start(k, NULL);
	int listener = crowd_listen("::", KERNEL_PORT, false);
	kernel_connect(k, "10.7.1.1", NETNS_SERVER4, KERNEL_PORT);
	CROWD_UNTIL(kernel_pace(k).established == 1);
	assert_int_equal(kernel_open(k, "10.7.1.1/32"), 1);
	assert_int_equal(kernel_open(k, "10.7.1.0/24"), 1);
	assert_int_equal(kernel_entries(k, BPF_MAP_sources), 2);
	assert_int_equal(kernel_proven(k, "10.7.1.1/32"), 1);
	assert_int_equal(kernel_proven(k, "10.7.1.2/32"), -ENOENT);
	assert_int_equal(kernel_proven(k, "10.7.1.0/24"), -ENOENT);
	close(listener);
	stop(k);
}

static void test_what_is_not_ours(void **state)
{
	struct kernel *k = kernel_of(state);
	struct bpf_endpoint one = {.port = KERNEL_PORT, .port_last = KERNEL_PORT, .bits = 128};

	start(k, NULL);
	/* Another port; the same port in another namespace; the same port on another address. */
	int other = crowd_listen(NETNS_SERVER4, 8090, false);
	kernel_connect(k, "10.7.0.1", NETNS_SERVER4, 8090);
	crowd_enter(k->net.client);
	int foreign = crowd_listen("10.99.0.2", KERNEL_PORT, false);
	k->client[k->clients++] = crowd_connect_here("10.7.0.1", 0, "10.99.0.2", KERNEL_PORT);
	crowd_enter(k->net.server);

	struct tg_lpm_key server;
	assert_int_equal(bpf_prefix_parse(NETNS_SERVER4, &server), 0);
	memcpy(one.addr, server.addr, sizeof(one.addr));
	kernel_ok(bpf_ports_write(k->maps, &one, 1), "ports");
	int second = crowd_listen("10.98.0.1", KERNEL_PORT, false);
	kernel_connect(k, "10.7.0.1", "10.98.0.1", KERNEL_PORT);
	assert_int_equal(kernel_pace(k).established, 0);

	/* And the one that is, last, so that the others had their time. */
	int ours = crowd_listen(NETNS_SERVER4, KERNEL_PORT, false);
	kernel_connect(k, "10.7.0.1", NETNS_SERVER4, KERNEL_PORT);
	CROWD_UNTIL(kernel_pace(k).established == 1);
	assert_int_equal(kernel_accept(k, other) + kernel_accept(k, second), 2);
	kernel_accept(k, ours);
	kernel_close(k);
	CROWD_UNTIL(kernel_pace(k).closed == 1);
	assert_int_equal(kernel_pace(k).established, 1);
	close(other);
	close(foreign);
	close(second);
	close(ours);
	stop(k);
}

/* Somebody on this machine connects from a gateway's port: its end is no client's. */
static void test_outgoing(void **state)
{
	struct kernel *k = kernel_of(state);

	start(k, NULL);
	crowd_enter(k->net.client);
	int server = crowd_listen("10.99.0.2", 9999, false);
	crowd_enter(k->net.server);
	int fd = crowd_connect_here(NETNS_SERVER4, KERNEL_PORT, "10.99.0.2", 9999);
	assert_true(fd >= 0);
	crowd_reset(fd);
	close(server);
	assert_int_equal(kernel_pace(k).established, 0);
	assert_int_equal(kernel_pace(k).closed, 0);
	assert_int_equal(kernel_count(k, TG_TRACK_CLOSED_UNKNOWN, false), 0);
	stop(k);
}

/* One address from several threads: its entry is made and deleted all the time. */
enum {
	CROWDED_THREADS = 4,
	CROWDED_EACH = 500,
};

static struct kernel *crowded;
static atomic_int crowded_error; /* errno of one that failed */

static void *crowded_run(void *arg)
{
	crowd_enter(crowded->net.client);
	for (unsigned i = 0; i < CROWDED_EACH; i++) {
		int fd = crowd_connect_here("10.7.0.1", 0, NETNS_SERVER4, KERNEL_PORT);
		if (fd < 0)
			atomic_store(&crowded_error, errno);
		else
			crowd_reset(fd);
	}
	return NULL;
}

static void test_crowded_entry(void **state)
{
	struct kernel *k = kernel_of(state);
	pthread_t threads[CROWDED_THREADS];
	const unsigned all = CROWDED_THREADS * CROWDED_EACH;
	struct tg_source s;

	start(k, NULL);
	int listener = crowd_listen(NETNS_SERVER4, KERNEL_PORT, false);
	crowded = k;
	atomic_store(&crowded_error, 0);
	for (unsigned i = 0; i < CROWDED_THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, crowded_run, NULL), 0);
	for (unsigned got = 0; got < all && kernel_pace(k).closed < all;) {
		int fd = accept(listener, NULL, NULL);
		if (fd < 0) {
			crowd_sleep_ms(1);
			continue;
		}
		close(fd);
		got++;
	}
	for (unsigned i = 0; i < CROWDED_THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(atomic_load(&crowded_error), 0);
	CROWD_UNTIL(kernel_pace(k).closed == all);
	assert_int_equal(kernel_pace(k).established, all);
	assert_int_equal(kernel_entries(k, BPF_MAP_open), 0);
	assert_int_equal(kernel_count(k, TG_TRACK_OPEN_FULL, false), 0);
	assert_int_equal(kernel_count(k, TG_TRACK_CLOSED_UNKNOWN, false), 0);
	assert_true(kernel_source(k, "10.7.0.1/32", &s));
	assert_int_equal(s.accepts, all);
	assert_int_equal(s.closes, all);
	close(listener);
	stop(k);
}

/* ---- full maps ---- */

/* One entry of `proven` for all: as many as it has places, and the last one among them. */
static void test_few_proven(void **state)
{
	struct kernel *k = kernel_of(state);
	unsigned proven = 0;
	char from[64];

	start(k, &(struct bpf_maps_opts){.sources = 1, .open = 64});
	int listener = crowd_listen(NETNS_SERVER4, KERNEL_PORT, false);
	for (unsigned i = 0; i < TG_PROVEN_WAYS + 2; i++) {
		v4(from, i);
		kernel_connect(k, from, NETNS_SERVER4, KERNEL_PORT);
		CROWD_UNTIL(kernel_pace(k).established == i + 1);
		CROWD_UNTIL(kernel_proven(k, with_len(from, 32)) == 1);
	}
	for (unsigned i = 0; i < TG_PROVEN_WAYS + 2; i++) {
		v4(from, i);
		proven += kernel_proven(k, with_len(from, 32)) == 1;
	}
	assert_int_equal(proven, TG_PROVEN_WAYS);
	close(listener);
	stop(k);
}

static void test_few_sources(void **state)
{
	struct kernel *k = kernel_of(state);
	char from[64];

	/* Less than there are sources: the oldest are forgotten, the open ones are not. */
	start(k, &(struct bpf_maps_opts){.sources = 64, .open = 4096});
	int listener = crowd_listen(NETNS_SERVER4, KERNEL_PORT, false);
	for (unsigned i = 0; i < 1000; i++) {
		v4(from, i);
		kernel_connect(k, from, NETNS_SERVER4, KERNEL_PORT);
	}
	CROWD_UNTIL(kernel_pace(k).established == 1000);
	assert_true(kernel_entries(k, BPF_MAP_sources) <= 64);
	assert_int_equal(kernel_entries(k, BPF_MAP_open), 1000 + 4);
	kernel_accept(k, listener);
	kernel_close(k);
	CROWD_UNTIL(kernel_pace(k).closed == 1000);
	assert_int_equal(kernel_entries(k, BPF_MAP_open), 0);
	assert_int_equal(kernel_count(k, TG_TRACK_CLOSED_UNKNOWN, false), 0);
	close(listener);
	stop(k);
}

/* No room: the connections are served, uncounted, and say so. */
static void test_few_open(void **state)
{
	struct kernel *k = kernel_of(state);
	char from[64];

	start(k, &(struct bpf_maps_opts){.open = 50});
	int listener = crowd_listen(NETNS_SERVER4, KERNEL_PORT, false);
	for (unsigned i = 0; i < SOURCES; i++) {
		v4(from, i);
		kernel_connect(k, from, NETNS_SERVER4, KERNEL_PORT);
	}
	CROWD_UNTIL(kernel_pace(k).established == SOURCES);
	unsigned counted = kernel_entries(k, BPF_MAP_open);
	assert_true(counted <= 50);
	assert_int_equal(kernel_count(k, TG_TRACK_OPEN_FULL, false), SOURCES + 1 - counted);
	assert_int_equal(kernel_accept(k, listener), SOURCES);
	kernel_close(k);
	CROWD_UNTIL(kernel_pace(k).closed == SOURCES);
	assert_int_equal(kernel_entries(k, BPF_MAP_open), 0);
	assert_int_equal(kernel_count(k, TG_TRACK_CLOSED_UNKNOWN, false), SOURCES + 1 - counted);
	close(listener);
	stop(k);
}

/* ---- spoofed SYNs ---- */

static void test_spoofed(void **state)
{
	struct kernel *k = kernel_of(state);
	struct crowd_sender sender;
	struct packet p;
	char from[64];

	start(k, NULL);
	int listener = crowd_listen(NETNS_SERVER4, KERNEL_PORT, false);
	int listener6 = crowd_listen(NETNS_SERVER6, KERNEL_PORT, false);
	kernel_connect(k, "10.7.0.1", NETNS_SERVER4, KERNEL_PORT);
	crowd_sender_open(&k->net, &sender);
	for (unsigned i = 0; i < 5000; i++) {
		snprintf(from, sizeof(from), "198.18.%u.%u", i >> 8 & 255, i & 255);
		packet_build(&p,
			&(struct packet_opts){
				.src = from, .dst = NETNS_SERVER4, .dport = KERNEL_PORT, .seq = i});
		crowd_send(&sender, &p);
		snprintf(from, sizeof(from), "2001:db8:%x::1", i + 1);
		packet_build(&p,
			&(struct packet_opts){
				.src = from, .dst = NETNS_SERVER6, .dport = KERNEL_PORT, .seq = i});
		crowd_send(&sender, &p);
		/* And ACKs that nobody asked for. */
		packet_build(&p, &(struct packet_opts){.src = "198.19.0.1",
					 .dst = NETNS_SERVER4,
					 .dport = KERNEL_PORT,
					 .flags = PACKET_ACK,
					 .seq = i});
		crowd_send(&sender, &p);
	}
	kernel_connect(k, "10.7.0.2", NETNS_SERVER4, KERNEL_PORT);
	kernel_connect(k, "fd07::2", NETNS_SERVER6, KERNEL_PORT);
	CROWD_UNTIL(kernel_pace(k).established == 3);
	/* Two IPv4 sources and their /24; one IPv6 with its /56 and /48. */
	assert_int_equal(kernel_entries(k, BPF_MAP_sources), 3 + 3);
	assert_int_equal(kernel_entries(k, BPF_MAP_open), 3 + 3);
	assert_int_equal(kernel_entries(k, BPF_MAP_penalty), 0);
	assert_int_equal(kernel_proven(k, "10.7.0.2/32"), 1);
	assert_int_equal(kernel_proven(k, "fd07::/64"), 1);
	assert_int_equal(kernel_proven(k, "198.18.0.1/32"), -ENOENT);
	assert_int_equal(kernel_proven(k, "2001:db8:1::/64"), -ENOENT);
	assert_int_equal(kernel_proven(k, "198.19.0.1/32"), -ENOENT);
	close(sender.fd);
	close(listener);
	close(listener6);
	stop(k);
}

/* ---- established and not yet served ---- */

static void test_level(void **state)
{
	struct kernel *k = kernel_of(state);
	struct tg_gate gate = {.permits = 1000};
	struct tg_worker_load line = {.heartbeat_ns = 1};
	uint32_t zero = 0;

	start(k, NULL);
	int listener = listen_both();
	connect_some(k, "10.7.0.1", 3);
	/* A gateway starts now, and serves two of the next ten. */
	gate.permits_base = kernel_pace(k).established - kernel_pace(k).abandoned;
	assert_int_equal(gate.permits_base, 3);
	bpf_map_update_elem(bpf_maps_fd(k->maps, BPF_MAP_gate), &zero, &gate, BPF_ANY);
	connect_some(k, "10.7.0.1", 9);
	line.served = 2;
	bpf_map_update_elem(bpf_maps_fd(k->maps, BPF_MAP_worker_load), &zero, &line, BPF_ANY);
	connect_some(k, "10.7.0.1", 1);
	assert_int_equal(kernel_pace(k).unserved, 8);
	/* Reset by its peer before anybody took it: accept still gives it out, so it is for the
	 * worker to count. */
	crowd_reset(k->client[--k->clients]);
	CROWD_UNTIL(kernel_pace(k).closed == 1);
	assert_int_equal(kernel_pace(k).abandoned, 0);
	assert_int_equal(kernel_accept(k, listener), 13);

	/* The listener goes away with four in its queue: nobody can take those. */
	connect_some(k, "10.7.0.1", 4);
	assert_int_equal(kernel_pace(k).unserved, 12);
	close(listener);
	CROWD_UNTIL(kernel_pace(k).abandoned == 4);
	assert_int_equal(kernel_count(k, TG_TRACK_ABANDONED, false), 4);
	listener = listen_both();
	connect_some(k, "10.7.0.1", 1);
	assert_int_equal(kernel_pace(k).unserved, 9);
	/* One that was accepted is not abandoned when its owner closes it, in whatever way. */
	assert_int_equal(kernel_accept(k, listener), 1);
	close(k->served[--k->n_served]);
	kernel_close(k);
	CROWD_UNTIL(kernel_pace(k).closed == 18);
	assert_int_equal(kernel_pace(k).abandoned, 4);
	close(listener);
	stop(k);
}

/* ---- restarts ---- */

static void leave(struct kernel *k)
{
	bpf_track_close(track);
	bpf_maps_close(k->maps);
}

static struct bpf_track_attached resume(struct kernel *k, const struct bpf_maps_opts *opts)
{
	static const struct bpf_track_opts every = {.sample = 1};
	struct bpf_track_attached attached;
	const char *step = NULL;

	kernel_maps(k, opts);
	kernel_ok(bpf_track_load(k->maps, &every, &track, &step), step);
	kernel_ok(bpf_track_attach(track, &attached, &step), step);
	kernel_ok(bpf_maps_commit(k->maps), "commit");
	return attached;
}

static void test_nobody_home(void **state)
{
	struct kernel *k = kernel_of(state);

	kernel_pin(k);
	assert_false(resume(k, NULL).adopted);
	int listener = listen_both();
	connect_some(k, "10.7.0.1", 10);
	kernel_accept(k, listener);
	leave(k);
	for (unsigned i = 0; i < 4; i++)
		crowd_reset(k->client[--k->clients]);
	connect_some(k, "10.7.0.1", 3);

	struct bpf_track_attached attached = resume(k, NULL);
	assert_int_equal(bpf_maps_found(k->maps), BPF_MAPS_ADOPTED);
	assert_true(attached.adopted);
	CROWD_UNTIL(kernel_pace(k).closed == 4);
	assert_int_equal(kernel_pace(k).established, 13);
	assert_int_equal(kernel_open(k, "10.7.0.1/32"), 9);
	connect_some(k, "10.7.0.1", 1);
	assert_int_equal(kernel_pace(k).established, 14); /* once, not twice */
	kernel_accept(k, listener);
	kernel_close(k);
	CROWD_UNTIL(kernel_entries(k, BPF_MAP_open) == 0);
	close(listener);
	stop(k);
}

/* Other sizes: new maps and a new program, while connections come and go. */
static void test_replaced_maps(void **state)
{
	struct kernel *k = kernel_of(state);
	char from[64];

	kernel_pin(k);
	resume(k, NULL);
	int listener = listen_both();
	for (unsigned i = 0; i < SOURCES; i++) {
		v4(from, i);
		connect_some(k, from, 2);
	}
	kernel_accept(k, listener);
	for (unsigned round = 0; round < 3; round++) {
		struct bpf_maps_opts other = {.sources = 3000 + round, .open = 2000 + round};

		leave(k);
		struct bpf_track_attached attached = resume(k, &other);
		assert_int_equal(bpf_maps_found(k->maps), BPF_MAPS_REPLACED);
		assert_false(attached.adopted);
		assert_int_equal(attached.moved, SOURCES + 1);
		assert_int_equal(attached.lost, 0);
		assert_int_equal(kernel_open(k, "10.7.0.0/24"), 2 * SOURCES);
		v4(from, 7);
		assert_int_equal(kernel_open(k, with_len(from, 32)), 2);
		/* One program counts, not two. */
		uint64_t before = kernel_pace(k).established;
		connect_some(k, "10.7.9.9", 1);
		assert_int_equal(kernel_pace(k).established, before + 1);
		kernel_accept(k, listener);
		crowd_reset(k->client[--k->clients]);
		CROWD_UNTIL(kernel_open(k, "10.7.9.9/32") == 0);
	}
	kernel_close(k);
	CROWD_UNTIL(kernel_entries(k, BPF_MAP_open) == 0);
	assert_int_equal(kernel_count(k, TG_TRACK_CLOSED_UNKNOWN, false), 0);
	close(listener);
	stop(k);
}

/* Maps whose program was taken away have missed closes: what they say is open cannot be believed.
 */
static void test_uncounted_time(void **state)
{
	struct kernel *k = kernel_of(state);
	struct tg_source s;

	kernel_pin(k);
	resume(k, NULL);
	int listener = listen_both();
	connect_some(k, "10.7.0.1", 5);
	bpf_track_detach(track);
	leave(k);
	kernel_accept(k, listener);
	kernel_close(k);
	assert_false(resume(k, NULL).adopted);
	assert_int_equal(bpf_maps_found(k->maps), BPF_MAPS_ADOPTED);
	assert_int_equal(kernel_entries(k, BPF_MAP_open), 0);
	assert_true(kernel_source(k, "10.7.0.1/32", &s));
	assert_int_equal(s.accepts, 5);
	connect_some(k, "10.7.0.1", 1);
	assert_int_equal(kernel_open(k, "10.7.0.1/32"), 1);
	close(listener);
	stop(k);
}

/* ---- the second of the two programs ---- */

/* What the first program leaves its marks in. The pin's name has a number in it. */
static int marks(const struct kernel *k)
{
	char dir[BPF_MAPS_DIR_MAX + 64], path[sizeof(dir) + 256] = "";
	struct bpf_link_info link = {0};
	struct bpf_prog_info prog = {0};
	uint32_t ids[64], len = sizeof(link);

	assert_int_equal(bpf_maps_pin_path(k->maps, "", dir, sizeof(dir)), 0);
	DIR *d = opendir(dir);
	assert_non_null(d);
	for (struct dirent *e; (e = readdir(d));)
		if (!strncmp(e->d_name, "track_link_", 11) && strstr(e->d_name, "_missed"))
			snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
	closedir(d);
	int fd = bpf_obj_get(path);
	assert_true(fd >= 0);
	assert_int_equal(bpf_obj_get_info_by_fd(fd, &link, &len), 0);
	close(fd);
	fd = bpf_prog_get_fd_by_id(link.prog_id);
	prog.map_ids = (uintptr_t)ids;
	prog.nr_map_ids = 64;
	len = sizeof(prog);
	assert_int_equal(bpf_obj_get_info_by_fd(fd, &prog, &len), 0);
	close(fd);
	for (uint32_t i = 0; i < prog.nr_map_ids; i++) {
		struct bpf_map_info map = {0};
		len = sizeof(map);
		fd = bpf_map_get_fd_by_id(ids[i]);
		assert_int_equal(bpf_obj_get_info_by_fd(fd, &map, &len), 0);
		if (!strcmp(map.name, "done"))
			return fd;
		close(fd);
	}
	fail();
	return -1;
}

/* The first one cannot leave a mark, and so does nothing. */
static void test_second_program(void **state)
{
	struct kernel *k = kernel_of(state);
	uint8_t mark = 1;
	uint64_t n = 0;

	kernel_pin(k);
	resume(k, NULL);
	int listener = listen_both(), fd = marks(k);
	/* No socket is at these addresses. */
	while (!bpf_map_update_elem(fd, &(uint64_t){n + 1}, &mark, BPF_NOEXIST))
		n++;
	assert_true(n > 0);
	connect_some(k, "10.7.0.1", 5);
	assert_int_equal(kernel_pace(k).established, 5);
	assert_int_equal(kernel_open(k, "10.7.0.1/32"), 5);
	kernel_accept(k, listener);
	kernel_close(k);
	CROWD_UNTIL(kernel_pace(k).closed == 5);
	assert_int_equal(kernel_entries(k, BPF_MAP_open), 0);
	/* With room again, it is the first one's, and no mark stays behind. */
	assert_int_equal(bpf_map_delete_elem(fd, &n), 0);
	connect_some(k, "10.7.0.2", 1);
	assert_int_equal(kernel_pace(k).established, 6);
	assert_int_equal(bpf_map_update_elem(fd, &n, &mark, BPF_NOEXIST), 0);
	kernel_accept(k, listener);
	kernel_close(k);
	close(fd);
	close(listener);
	stop(k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ipv4),
		cmocka_unit_test(test_ipv6),
		cmocka_unit_test(test_mapped),
		cmocka_unit_test(test_what_is_not_ours),
		cmocka_unit_test(test_outgoing),
		cmocka_unit_test(test_crowded_entry),
		cmocka_unit_test(test_few_proven),
		cmocka_unit_test(test_few_sources),
		cmocka_unit_test(test_few_open),
		cmocka_unit_test(test_spoofed),
		cmocka_unit_test(test_level),
		cmocka_unit_test(test_nobody_home),
		cmocka_unit_test(test_replaced_maps),
		cmocka_unit_test(test_uncounted_time),
		cmocka_unit_test(test_second_program),
	};
	return cmocka_run_group_tests(tests, kernel_begin, kernel_end);
}
