/* Pinned maps over several starts: adopted, replaced when sizes or the ABI differ, what is copied,
 * what a start that fails leaves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/mman.h>

#include "bpf_fixture.h"
#include "netns.h"

static struct netns ns;
static bool permitted;
static char dir[128];

#define NEEDED()                                                                                   \
	do {                                                                                       \
		if (!permitted)                                                                    \
			skip();                                                                    \
	} while (0)

static struct bpf_maps *start(const struct bpf_maps_opts *o, enum bpf_maps_found want)
{
	struct bpf_maps_opts opts = *o;
	struct bpf_maps *m = NULL;

	opts.dir = dir;
	int rc = bpf_maps_open(&opts, &m);
	if (rc)
		print_error("%s: %s\n", strerror(-rc), bpf_error_text());
	assert_int_equal(rc, 0);
	assert_int_equal(bpf_maps_found(m), want);
	return m;
}

static const struct bpf_maps_opts small = {.sources = 1024, .penalties = 1024, .list = 64};

static void list_add(struct bpf_maps *m, enum bpf_shared_map which, const char *prefix)
{
	struct tg_list_entry entry = {.created_s = 42, .origin = TG_ORIGIN_OPERATOR};
	struct tg_lpm_key key;

	assert_int_equal(bpf_prefix_parse(prefix, &key), 0);
	assert_int_equal(bpf_list_add(bpf_maps_fd(m, which), &key, &entry), 0);
}

static bool listed(struct bpf_maps *m, enum bpf_shared_map which, const char *prefix)
{
	struct tg_lpm_key key;
	struct tg_list_entry entry;

	assert_int_equal(bpf_prefix_parse(prefix, &key), 0);
	return !bpf_map_lookup_elem(bpf_maps_fd(m, which), &key, &entry) && entry.created_s == 42;
}

static bool pinned(const char *suffix, const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s%s/%s", dir, suffix, name);
	return access(path, F_OK) == 0;
}

static void test_first_start(void **state)
{
	NEEDED();
	struct bpf_maps *m = start(&small, BPF_MAPS_NONE);
	/* Nothing under the name before all of it is there. */
	assert_false(pinned("", "deny"));
	assert_int_equal(bpf_maps_commit(m), 0);
	for (unsigned i = 0; i < BPF_SHARED_MAP_COUNT; i++)
		assert_true(pinned("", bpf_maps_name((enum bpf_shared_map)i)));
	assert_false(pinned("_new", ""));
	assert_int_equal(bpf_maps_commit(m), 0);
	bpf_maps_close(m);
	assert_true(pinned("", "deny"));
	assert_int_equal(bpf_maps_remove(dir), 0);
	assert_false(pinned("", ""));
	assert_int_equal(bpf_maps_remove(dir), 0);
}

static void test_a_start_that_fails_leaves_nothing(void **state)
{
	NEEDED();
	struct bpf_maps *m = start(&small, BPF_MAPS_NONE);
	bpf_maps_close(m);
	assert_false(pinned("", ""));
	assert_false(pinned("_new", ""));
	/* Nor does it matter what one that was killed left. */
	char path[256];
	snprintf(path, sizeof(path), "%s_new", dir);
	assert_int_equal(mkdir(path, 0700), 0);
	m = start(&small, BPF_MAPS_NONE);
	assert_int_equal(bpf_maps_commit(m), 0);
	bpf_maps_close(m);
	assert_int_equal(bpf_maps_remove(dir), 0);
}

static uint32_t map_id(struct bpf_maps *m, enum bpf_shared_map which)
{
	struct bpf_map_info info = {0};
	uint32_t len = sizeof(info);

	assert_int_equal(bpf_obj_get_info_by_fd(bpf_maps_fd(m, which), &info, &len), 0);
	return info.id;
}

static void test_same_sizes_are_adopted(void **state)
{
	NEEDED();
	struct bpf_maps *m = start(&small, BPF_MAPS_NONE);
	list_add(m, BPF_MAP_deny, "198.51.100.0/24");
	assert_int_equal(bpf_maps_commit(m), 0);
	uint32_t id = map_id(m, BPF_MAP_sources);
	bpf_maps_close(m);
	/* Beside what a start left that was killed. */
	char path[256];
	snprintf(path, sizeof(path), "%s_new", dir);
	assert_int_equal(mkdir(path, 0700), 0);
	m = start(&small, BPF_MAPS_ADOPTED);
	assert_true(listed(m, BPF_MAP_deny, "198.51.100.0/24"));
	assert_int_equal(map_id(m, BPF_MAP_sources), id);
	assert_false(pinned("_new", ""));
	assert_int_equal(bpf_maps_commit(m), 0);
	bpf_maps_close(m);
	assert_int_equal(bpf_maps_remove(dir), 0);
}

static void put(struct bpf_maps *m, enum bpf_shared_map which, unsigned i, const void *value)
{
	struct tg_prefix key = {
		.family = 4, .len = 32, .addr = {10, 0, (uint8_t)(i >> 8), (uint8_t)i}};

	assert_int_equal(bpf_map_update_elem(bpf_maps_fd(m, which), &key, value, BPF_ANY), 0);
}

static int get(struct bpf_maps *m, enum bpf_shared_map which, unsigned i, void *value)
{
	struct tg_prefix key = {
		.family = 4, .len = 32, .addr = {10, 0, (uint8_t)(i >> 8), (uint8_t)i}};

	return bpf_map_lookup_elem(bpf_maps_fd(m, which), &key, value);
}

static struct tg_settings settings(struct bpf_maps *m)
{
	struct tg_settings s;
	uint32_t zero = 0;

	assert_int_equal(bpf_map_lookup_elem(bpf_maps_fd(m, BPF_MAP_settings), &zero, &s), 0);
	return s;
}

/* As the keeper does: the defaults; the seed stays that of the maps. */
static void configure(struct bpf_maps *m)
{
	uint64_t seed = settings(m).proven_seed;
	struct tg_settings s;

	bpf_settings_init(&s);
	assert_int_equal(bpf_settings_write(bpf_maps_fd(m, BPF_MAP_settings), &s), 0);
	assert_true(settings(m).proven_seed == seed && seed);
}

static int proven(struct bpf_maps *m, unsigned i, struct bpf_proven_place *ret)
{
	struct tg_prefix key = {
		.family = 4, .len = 32, .addr = {10, 0, (uint8_t)(i >> 8), (uint8_t)i}};

	return bpf_proven_find(bpf_maps_fd(m, BPF_MAP_proven), settings(m).proven_seed, &key, ret);
}

static void fill(struct bpf_maps *m)
{
	configure(m);
	list_add(m, BPF_MAP_deny, "198.51.100.0/24");
	list_add(m, BPF_MAP_deny, "2001:db8:bad::/48");
	list_add(m, BPF_MAP_allow, "0.0.0.0/0");
	put(m, BPF_MAP_penalty, 7,
		&(struct tg_penalty){.until_ns = 1000, .since_ns = 3, .reason = 1, .strikes = 5});
	put(m, BPF_MAP_sources, 8, &(struct tg_source){.accepts = 12, .weight = 2});
	put(m, BPF_MAP_open, 8, &(struct tg_open){.connections = 3, .peak = 4});
}

static void check_filled(struct bpf_maps *m, bool counts)
{
	struct tg_penalty box;
	struct tg_source source;
	struct tg_open open;
	struct tg_pace pace;
	uint32_t zero = 0;

	assert_true(listed(m, BPF_MAP_deny, "198.51.100.0/24"));
	assert_true(listed(m, BPF_MAP_deny, "2001:db8:bad::/48"));
	assert_true(listed(m, BPF_MAP_allow, "0.0.0.0/0"));
	assert_int_equal(get(m, BPF_MAP_penalty, 7, &box), 0);
	assert_int_equal(box.until_ns, 1000);
	assert_int_equal(box.strikes, 5);
	assert_int_equal(bpf_map_lookup_elem(bpf_maps_fd(m, BPF_MAP_pace), &zero, &pace), 0);
	assert_int_equal(pace.penalty_until_ns, 1000);
	assert_int_equal(get(m, BPF_MAP_sources, 8, &source), counts ? 0 : -ENOENT);
	/* Still counted in by the former program: bpf_track_attach moves it. */
	assert_int_equal(get(m, BPF_MAP_open, 8, &open), -ENOENT);
	if (counts)
		assert_int_equal(source.accepts, 12);
	/* Made anew, by another seed. */
	struct bpf_proven_place place;
	assert_int_equal(proven(m, 8, &place), counts ? 0 : -ENOENT);
	assert_int_equal(place.entry.share[place.way].weight, counts ? 2 : 0);
	assert_int_equal(proven(m, 9, &place), -ENOENT);
	configure(m);
}

/* Who was admitted least lately gives way; who comes again keeps his place. */
static void test_a_full_line_of_proven_ones(void **state)
{
	NEEDED();
	struct bpf_maps *m = start(&(struct bpf_maps_opts){.sources = 1}, BPF_MAPS_NONE);
	int fd = bpf_maps_fd(m, BPF_MAP_proven);
	uint64_t seed = settings(m).proven_seed;
	struct bpf_proven_place place;

	assert_int_equal(bpf_maps_entries(m, BPF_MAP_proven), 1);
	for (unsigned i = 1; i <= TG_PROVEN_WAYS + 1; i++) {
		struct tg_prefix key = {.family = 4, .len = 32, .addr = {10, 0, 0, (uint8_t)i}};

		assert_int_equal(proven(m, i, &place), -ENOENT);
		assert_int_equal(bpf_proven_put(fd, seed, &key, i), 0);
		assert_int_equal(bpf_proven_put(fd, seed, &key, 10 + i), 0);
		assert_int_equal(proven(m, i, &place), 0);
		assert_int_equal(place.entry.share[place.way].weight, 10 + i);
		place.entry.share[place.way].tat_ns = i == 3 ? 5 : 100 + i;
		assert_int_equal(bpf_map_update_elem(fd, &place.index, &place.entry, BPF_ANY), 0);
	}
	for (unsigned i = 1; i <= TG_PROVEN_WAYS + 1; i++)
		assert_int_equal(proven(m, i, &place), i == 3 ? -ENOENT : 0);
	bpf_maps_close(m);
}

static void test_other_sizes_and_back(void **state)
{
	struct bpf_maps_opts large = {.sources = 4096, .penalties = 2048, .list = 128};

	NEEDED();
	struct bpf_maps *m = start(&small, BPF_MAPS_NONE);
	fill(m);
	assert_int_equal(bpf_maps_commit(m), 0);
	bpf_maps_close(m);
	for (unsigned i = 0; i < 3; i++) {
		m = start(i & 1 ? &small : &large, BPF_MAPS_REPLACED);
		assert_int_equal(bpf_maps_lost(m), 0);
		check_filled(m, true);
		assert_int_equal(bpf_maps_commit(m), 0);
		assert_false(pinned("_new", ""));
		bpf_maps_close(m);
	}
	/* One that does not commit changes nothing. */
	bpf_maps_close(start(&small, BPF_MAPS_REPLACED));
	m = start(&large, BPF_MAPS_ADOPTED);
	check_filled(m, true);
	bpf_maps_close(m);
	assert_int_equal(bpf_maps_remove(dir), 0);
}

static void rewrite_meta(struct bpf_maps *m, uint32_t abi, const char *boot_id)
{
	struct tg_meta meta;
	uint32_t zero = 0;
	int fd = bpf_maps_fd(m, BPF_MAP_meta);

	assert_int_equal(bpf_map_lookup_elem(fd, &zero, &meta), 0);
	assert_int_equal(meta.abi, TG_ABI_VERSION);
	assert_string_equal(meta.version, "1.2.3");
	assert_int_equal(meta.generation, 77);
	meta.abi = abi;
	if (boot_id)
		strcpy(meta.boot_id, boot_id);
	assert_int_equal(bpf_map_update_elem(fd, &zero, &meta, BPF_ANY), 0);
}

static void test_another_abi(void **state)
{
	struct bpf_maps_opts named = small;

	NEEDED();
	named.version = "1.2.3";
	named.generation = 77;
	struct bpf_maps *m = start(&named, BPF_MAPS_NONE);
	fill(m);
	assert_int_equal(bpf_maps_commit(m), 0);
	rewrite_meta(m, TG_ABI_VERSION + 1, NULL);
	bpf_maps_close(m);
	/* What its counters mean is not known; lists and penalties hold. */
	m = start(&named, BPF_MAPS_REPLACED);
	check_filled(m, false);
	assert_int_equal(bpf_maps_commit(m), 0);
	rewrite_meta(m, TG_ABI_VERSION, "another boot");
	bpf_maps_close(m);
	m = start(&named, BPF_MAPS_REPLACED);
	check_filled(m, false);
	bpf_maps_close(m);
	assert_int_equal(bpf_maps_remove(dir), 0);
}

static void test_a_missing_pin(void **state)
{
	char path[256];

	NEEDED();
	struct bpf_maps *m = start(&small, BPF_MAPS_NONE);
	fill(m);
	assert_int_equal(bpf_maps_commit(m), 0);
	bpf_maps_close(m);
	snprintf(path, sizeof(path), "%s/gate", dir);
	assert_int_equal(unlink(path), 0);
	m = start(&small, BPF_MAPS_REPLACED);
	check_filled(m, true);
	assert_int_equal(bpf_maps_commit(m), 0);
	bpf_maps_close(m);
	assert_int_equal(bpf_maps_remove(dir), 0);
}

static void test_lists_that_do_not_fit_are_reported(void **state)
{
	struct bpf_maps_opts tiny = {.sources = 1024, .penalties = 1024, .list = 4};

	NEEDED();
	struct bpf_maps *m = start(&small, BPF_MAPS_NONE);
	for (unsigned i = 0; i < 10; i++) {
		char text[32];
		snprintf(text, sizeof(text), "10.%u.0.0/16", i);
		list_add(m, BPF_MAP_deny, text);
	}
	assert_int_equal(bpf_maps_commit(m), 0);
	bpf_maps_close(m);
	m = start(&tiny, BPF_MAPS_REPLACED);
	assert_int_equal(bpf_maps_lost(m), 6);
	bpf_maps_close(m);
	assert_int_equal(bpf_maps_remove(dir), 0);
}

static void test_bad_directories(void **state)
{
	struct bpf_maps *m = NULL;
	char path[300];

	NEEDED();
	assert_int_equal(bpf_maps_open(&(struct bpf_maps_opts){.dir = "pins"}, &m), -EINVAL);
	memset(path, 'x', sizeof(path));
	path[0] = '/';
	path[sizeof(path) - 1] = 0;
	assert_int_equal(bpf_maps_open(&(struct bpf_maps_opts){.dir = path}, &m), -ENAMETOOLONG);
	snprintf(path, sizeof(path), "%s/none/here", ns.bpffs);
	assert_int_equal(bpf_maps_open(&(struct bpf_maps_opts){.dir = path}, &m), -ENOENT);
	snprintf(path, sizeof(path), "/tmp/tidegate-no-bpffs-%d", getpid());
	assert_int_equal(bpf_maps_open(&(struct bpf_maps_opts){.dir = path}, &m), -EINVAL);
	strcat(path, "_new");
	assert_int_equal(access(path, F_OK), -1);
	assert_null(m);
}

static void test_mapping_is_the_map(void **state)
{
	struct tg_gate *gate = NULL, seen;
	struct tg_worker_load *load = NULL, line;
	uint32_t zero = 0, last = TG_WORKERS_MAX - 1;
	struct bpf_maps *m;

	NEEDED();
	assert_int_equal(bpf_maps_open(&small, &m), 0);
	assert_int_equal(
		bpf_maps_mmap(bpf_maps_fd(m, BPF_MAP_gate), sizeof(*gate), true, (void **)&gate),
		0);
	bpf_gate_publish(gate, &(struct tg_gate){.state = TG_GATE_PACED, .interval_ns = 5}, 99);
	assert_int_equal(bpf_map_lookup_elem(bpf_maps_fd(m, BPF_MAP_gate), &zero, &seen), 0);
	assert_int_equal(seen.heartbeat_ns, 99);
	assert_int_equal(seen.interval_ns, 5);
	assert_int_equal(seen.state, TG_GATE_PACED);
	assert_int_equal(bpf_maps_mmap(bpf_maps_fd(m, BPF_MAP_worker_load),
				 TG_WORKERS_MAX * sizeof(*load), true, (void **)&load),
		0);
	load[last].served = 12;
	assert_int_equal(bpf_map_lookup_elem(bpf_maps_fd(m, BPF_MAP_worker_load), &last, &line), 0);
	assert_int_equal(line.served, 12);
	bpf_maps_munmap(gate, sizeof(*gate));
	bpf_maps_munmap(load, TG_WORKERS_MAX * sizeof(*load));
	void *none = NULL;
	assert_true(bpf_maps_mmap(bpf_maps_fd(m, BPF_MAP_deny), 64, false, &none) < 0);
	bpf_maps_close(m);
}

/* What bpftool prints has names: each pinned map knows its types. */
static void test_maps_know_their_types(void **state)
{
	NEEDED();
	struct bpf_maps *m;

	assert_int_equal(bpf_maps_open(&small, &m), 0);
	for (unsigned i = 0; i < BPF_SHARED_MAP_COUNT; i++) {
		struct bpf_map_info info = {0};
		uint32_t len = sizeof(info);
		assert_int_equal(
			bpf_obj_get_info_by_fd(bpf_maps_fd(m, (enum bpf_shared_map)i), &info, &len),
			0);
		/* Rings and sockets have neither keys nor values of ours. */
		if (i != BPF_MAP_events && i != BPF_MAP_listeners)
			assert_true(info.btf_id && info.btf_value_type_id);
		assert_string_equal(info.name, bpf_maps_name((enum bpf_shared_map)i));
	}
	bpf_maps_close(m);
}

static int setup(void **state)
{
	permitted = !geteuid() && !netns_mount(&ns);
	snprintf(dir, sizeof(dir), "%s/instance", ns.bpffs);
	return 0;
}

static int teardown(void **state)
{
	netns_fini(&ns);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_first_start),
		cmocka_unit_test(test_a_start_that_fails_leaves_nothing),
		cmocka_unit_test(test_same_sizes_are_adopted),
		cmocka_unit_test(test_a_full_line_of_proven_ones),
		cmocka_unit_test(test_other_sizes_and_back),
		cmocka_unit_test(test_another_abi),
		cmocka_unit_test(test_a_missing_pin),
		cmocka_unit_test(test_lists_that_do_not_fit_are_reported),
		cmocka_unit_test(test_bad_directories),
		cmocka_unit_test(test_mapping_is_the_map),
		cmocka_unit_test(test_maps_know_their_types),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
