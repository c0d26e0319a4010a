#include "kern/bpf_maps.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/magic.h>

#include "bpf/maps.skel.h"
#include "kern/bpf_copy.h"
#include "kern/bpf_error.h"
#include "kern/bpf_proven.h"

#define STAGED "_new" /* a BPF file system allows no dots in names */

enum {
	PATH_BYTES = BPF_MAPS_DIR_MAX + 64,
};

struct bpf_maps {
	char dir[BPF_MAPS_DIR_MAX]; /* "": nothing is pinned */
	bool staged;                /* pins are in <dir>_new until commit */
	bool replaces;              /* … and dir holds those of a former start */
	bool committed;
	enum bpf_maps_found found;
	uint64_t lost;
	struct tg_meta meta;
	int fd[BPF_SHARED_MAP_COUNT];
	uint32_t entries[BPF_SHARED_MAP_COUNT];
};

#define X(name) #name,
static const char *const names[] = {BPF_SHARED_MAPS(X)};
#undef X

const char *bpf_maps_name(enum bpf_shared_map which)
{
	return (unsigned)which < BPF_SHARED_MAP_COUNT ? names[which] : "unknown";
}

static int path_of(char *path, size_t len, const char *dir, const char *suffix, const char *name)
{
	int n = snprintf(path, len, "%s%s%s%s", dir, suffix, *name ? "/" : "", name);

	return n < 0 || (size_t)n >= len ? -ENAMETOOLONG : 0;
}

/* ---- sizes ---- */

static uint32_t or_default(uint32_t n, uint32_t otherwise)
{
	return n ? n : otherwise;
}

static uint32_t power_of_two(uint32_t n)
{
	uint32_t p = 1;

	while (p < n && p < 1u << 31)
		p <<= 1;
	return p;
}

static uint32_t ring_bytes(uint32_t n)
{
	uint32_t page = (uint32_t)sysconf(_SC_PAGESIZE);

	return power_of_two(n < page ? page : n);
}

/* 0: as the object says. */
static void sizes(const struct bpf_maps_opts *o, uint32_t ret[BPF_SHARED_MAP_COUNT])
{
	memset(ret, 0, BPF_SHARED_MAP_COUNT * sizeof(*ret));
	ret[BPF_MAP_sources] = or_default(o->sources, 65536);
	/* Then one in 230 finds no room there when `sources` is full. */
	ret[BPF_MAP_proven] = power_of_two(ret[BPF_MAP_sources]);
	ret[BPF_MAP_open] = or_default(o->open, ret[BPF_MAP_sources]);
	ret[BPF_MAP_penalty] = or_default(o->penalties, 65536);
	/* Full to a quarter, one look-up in some five is for nothing; and it stays in the cache. */
	ret[BPF_MAP_penalty_filter] = power_of_two(ret[BPF_MAP_penalty] / 4 + 1);
	ret[BPF_MAP_allow] = or_default(o->list, BPF_MAPS_LIST_DEFAULT);
	ret[BPF_MAP_deny] = ret[BPF_MAP_allow];
	ret[BPF_MAP_weights] = or_default(o->weights, 4096);
	ret[BPF_MAP_addresses] = or_default(o->addresses, 1024);
	ret[BPF_MAP_syn_sketch] =
		power_of_two(or_default(o->sketch_blocks, BPF_MAPS_SKETCH_BLOCKS));
	ret[BPF_MAP_events] = ring_bytes(or_default(o->events_bytes, 262144));
	ret[BPF_MAP_listeners] = or_default(o->listeners, 4096);
}

/* ---- making and finding ---- */

static void close_all(int fd[BPF_SHARED_MAP_COUNT])
{
	for (unsigned i = 0; i < BPF_SHARED_MAP_COUNT; i++) {
		if (fd[i] >= 0)
			close(fd[i]);
		fd[i] = -1;
	}
}

/* Pairs every map of the object with its place in the list. */
static int each_map(struct maps_bpf *skel, struct bpf_map *ret[BPF_SHARED_MAP_COUNT])
{
	for (unsigned i = 0; i < BPF_SHARED_MAP_COUNT; i++) {
		ret[i] = bpf_object__find_map_by_name(skel->obj, names[i]);
		if (!ret[i])
			return -ENOENT;
	}
	return 0;
}

/* Of what is made here nobody outside may know where it falls. */
static int seed(int settings_fd)
{
	struct tg_settings s = {0};
	uint32_t zero = 0;

	if (getrandom(&s.proven_seed, sizeof(s.proven_seed), 0) != sizeof(s.proven_seed))
		return -EIO;
	return bpf_map_update_elem(settings_fd, &zero, &s, BPF_ANY) ? -errno : 0;
}

static int make(struct bpf_maps *m, struct maps_bpf *skel, struct bpf_map **map)
{
	int rc = maps_bpf__load(skel);

	for (unsigned i = 0; !rc && i < BPF_SHARED_MAP_COUNT; i++) {
		m->fd[i] = fcntl(bpf_map__fd(map[i]), F_DUPFD_CLOEXEC, 3);
		if (m->fd[i] < 0)
			rc = -errno;
	}
	return rc ? rc : seed(m->fd[BPF_MAP_settings]);
}

/* Is the map behind fd what the object would make of it today? */
static bool same_map(int fd, const struct bpf_map *map)
{
	struct bpf_map_info info = {0};
	uint32_t len = sizeof(info);

	return !bpf_obj_get_info_by_fd(fd, &info, &len) && info.type == bpf_map__type(map) &&
	       info.key_size == bpf_map__key_size(map) &&
	       info.value_size == bpf_map__value_size(map) &&
	       info.max_entries == bpf_map__max_entries(map) &&
	       info.map_flags == bpf_map__map_flags(map);
}

static int read_meta(int fd, struct tg_meta *ret)
{
	struct bpf_map_info info = {0};
	uint32_t zero = 0, len = sizeof(info);
	struct tg_meta meta = {0};

	if (bpf_obj_get_info_by_fd(fd, &info, &len))
		return -errno;
	if (info.type != BPF_MAP_TYPE_ARRAY || info.value_size != sizeof(meta))
		return -EPROTO;
	if (bpf_map_lookup_elem(fd, &zero, &meta))
		return -errno;
	*ret = meta;
	return 0;
}

/* Opens the pins of a former start, as many as there are. */
static void open_pins(const char *dir, int fd[BPF_SHARED_MAP_COUNT])
{
	char path[PATH_BYTES];

	for (unsigned i = 0; i < BPF_SHARED_MAP_COUNT; i++)
		fd[i] = path_of(path, sizeof(path), dir, "", names[i]) ? -1 : bpf_obj_get(path);
}

static bool adoptable(
	const struct bpf_maps *m, const int fd[BPF_SHARED_MAP_COUNT], struct bpf_map **map)
{
	struct tg_meta meta;

	if (fd[BPF_MAP_meta] < 0 || read_meta(fd[BPF_MAP_meta], &meta) ||
		meta.abi != TG_ABI_VERSION || strcmp(meta.boot_id, m->meta.boot_id) != 0)
		return false;
	for (unsigned i = 0; i < BPF_SHARED_MAP_COUNT; i++)
		if (fd[i] < 0 || !same_map(fd[i], map[i]))
			return false;
	return true;
}

static int pin_all(const struct bpf_maps *m)
{
	char path[PATH_BYTES];

	for (unsigned i = 0; i < BPF_SHARED_MAP_COUNT; i++) {
		int rc = bpf_maps_pin_path(m, names[i], path, sizeof(path));
		if (!rc && bpf_obj_pin(m->fd[i], path))
			rc = -errno;
		if (rc)
			return rc;
	}
	return 0;
}

/* What a start that did not come to its end left. */
static int remove_staged(const struct bpf_maps *m)
{
	char path[PATH_BYTES];
	int rc = path_of(path, sizeof(path), m->dir, STAGED, "");

	return rc ? rc : bpf_maps_remove(path);
}

static int make_directory(const struct bpf_maps *m)
{
	char path[PATH_BYTES];
	struct statfs fs;

	int rc = remove_staged(m);
	if (!rc)
		rc = path_of(path, sizeof(path), m->dir, STAGED, "");
	if (rc)
		return rc;
	if (mkdir(path, 0700))
		return -errno;
	if (statfs(path, &fs) || fs.f_type != BPF_FS_MAGIC) {
		rmdir(path);
		return -EINVAL;
	}
	return 0;
}

/* Of the sources that were copied, by the widths of the former start. */
static void index_proven(struct bpf_maps *m, int old_settings)
{
	struct tg_settings was, is;
	uint32_t zero = 0;

	if (!bpf_map_lookup_elem(old_settings, &zero, &was) &&
		!bpf_map_lookup_elem(m->fd[BPF_MAP_settings], &zero, &is))
		bpf_proven_index(
			m->fd[BPF_MAP_sources], m->fd[BPF_MAP_proven], is.proven_seed, &was);
}

/* The maps of a former start that cannot be adopted: what an operator or track put there must
 * outlive them. */
static void carry_over(struct bpf_maps *m, const int old[BPF_SHARED_MAP_COUNT])
{
	static const enum bpf_shared_map lists[] = {
		BPF_MAP_allow, BPF_MAP_deny, BPF_MAP_weights, BPF_MAP_penalty};
	static const enum bpf_shared_map counts[] = {BPF_MAP_sources, BPF_MAP_verdicts};
	struct tg_meta meta;

	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
		m->lost += bpf_copy_entries(old[lists[i]], m->fd[lists[i]]);
	/* Not open, in which there is still counted: bpf_track_attach moves that. Layouts of
	 * counters may change with the ABI; those above only grow at their end. */
	if (old[BPF_MAP_meta] >= 0 && !read_meta(old[BPF_MAP_meta], &meta) &&
		meta.abi == TG_ABI_VERSION) {
		for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
			bpf_copy_entries(old[counts[i]], m->fd[counts[i]]);
		index_proven(m, old[BPF_MAP_settings]);
	}
	bpf_penalty_index(
		m->fd[BPF_MAP_penalty], m->fd[BPF_MAP_penalty_filter], m->fd[BPF_MAP_pace]);
}

static int adopt_or_make(struct bpf_maps *m, struct maps_bpf *skel)
{
	struct bpf_map *map[BPF_SHARED_MAP_COUNT];
	int old[BPF_SHARED_MAP_COUNT];
	int rc = each_map(skel, map);

	if (rc)
		return rc;
	for (unsigned i = 0; i < BPF_SHARED_MAP_COUNT; i++) {
		if (m->entries[i])
			bpf_map__set_max_entries(map[i], m->entries[i]);
		m->entries[i] = bpf_map__max_entries(map[i]);
	}
	if (!m->dir[0])
		return make(m, skel, map);

	m->replaces = access(m->dir, F_OK) == 0;
	open_pins(m->dir, old);
	if (adoptable(m, old, map)) {
		memcpy(m->fd, old, sizeof(old));
		m->found = BPF_MAPS_ADOPTED;
		return remove_staged(m);
	}
	rc = make_directory(m);
	if (rc)
		goto out;
	m->staged = true;
	rc = make(m, skel, map);
	if (rc)
		goto out;
	rc = pin_all(m);
	if (rc)
		goto out;
	if (m->replaces) {
		m->found = BPF_MAPS_REPLACED;
		carry_over(m, old);
	}
out:
	close_all(old);
	return rc;
}

static int fill_meta(struct tg_meta *meta, const struct bpf_maps_opts *o)
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	ssize_t n = read(fd, meta->boot_id, sizeof(meta->boot_id) - 1);
	int rc = n < 0 ? -errno : 0;
	close(fd);
	meta->boot_id[strcspn(meta->boot_id, "\n")] = 0;
	meta->abi = TG_ABI_VERSION;
	meta->generation = o->generation;
	meta->created_s = (uint64_t)time(NULL);
	if (o->version)
		strncpy(meta->version, o->version, sizeof(meta->version) - 1);
	return rc;
}

int bpf_maps_open(const struct bpf_maps_opts *o, struct bpf_maps **ret)
{
	if (o->dir && (o->dir[0] != '/' || strlen(o->dir) >= BPF_MAPS_DIR_MAX))
		return o->dir[0] != '/' ? -EINVAL : -ENAMETOOLONG;
	bpf_error_capture();
	bpf_error_clear();
	struct bpf_maps *m = calloc(1, sizeof(*m));
	struct maps_bpf *skel = maps_bpf__open();
	int rc = !m || !skel ? -ENOMEM : fill_meta(&m->meta, o);

	if (m) {
		memset(m->fd, 0xff, sizeof(m->fd));
		if (o->dir)
			strcpy(m->dir, o->dir);
		sizes(o, m->entries);
	}
	if (!rc)
		rc = adopt_or_make(m, skel);
	maps_bpf__destroy(skel);
	if (rc) {
		bpf_maps_close(m);
		return rc;
	}
	*ret = m;
	return 0;
}

/* ---- use ---- */

enum bpf_maps_found bpf_maps_found(const struct bpf_maps *m)
{
	return m->found;
}

uint64_t bpf_maps_lost(const struct bpf_maps *m)
{
	return m->lost;
}

int bpf_maps_fd(const struct bpf_maps *m, enum bpf_shared_map which)
{
	return m->fd[which];
}

uint32_t bpf_maps_entries(const struct bpf_maps *m, enum bpf_shared_map which)
{
	return m->entries[which];
}

int bpf_maps_reuse(const struct bpf_maps *m, struct bpf_object *obj)
{
	for (unsigned i = 0; i < BPF_SHARED_MAP_COUNT; i++) {
		struct bpf_map *map = bpf_object__find_map_by_name(obj, names[i]);
		int rc = map ? bpf_map__reuse_fd(map, m->fd[i]) : 0;
		if (rc)
			return rc;
	}
	return 0;
}

int bpf_maps_pin_path(const struct bpf_maps *m, const char *name, char *path, size_t len)
{
	return m->dir[0] ? path_of(path, len, m->dir, m->staged ? STAGED : "", name) : -ENOENT;
}

int bpf_maps_old_path(const struct bpf_maps *m, const char *name, char *path, size_t len)
{
	return m->staged && m->replaces ? path_of(path, len, m->dir, "", name) : -ENOENT;
}

int bpf_maps_commit(struct bpf_maps *m)
{
	char fresh[PATH_BYTES];
	uint32_t zero = 0;

	if (bpf_map_update_elem(m->fd[BPF_MAP_meta], &zero, &m->meta, BPF_ANY))
		return -errno;
	m->committed = true;
	if (!m->staged)
		return 0;
	int rc = path_of(fresh, sizeof(fresh), m->dir, STAGED, "");
	if (rc)
		return rc;
	if (!m->replaces) {
		if (rename(fresh, m->dir))
			return -errno;
		m->staged = false;
		return 0;
	}
	/* At every moment there is a whole directory under the name. */
	if (renameat2(AT_FDCWD, fresh, AT_FDCWD, m->dir, RENAME_EXCHANGE))
		return -errno;
	m->staged = false;
	return bpf_maps_remove(fresh);
}

void bpf_maps_close(struct bpf_maps *m)
{
	char path[PATH_BYTES];

	if (!m)
		return;
	if (m->staged && !path_of(path, sizeof(path), m->dir, STAGED, ""))
		bpf_maps_remove(path);
	close_all(m->fd);
	free(m);
}

int bpf_maps_remove(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	int rc = 0;

	if (!d)
		return errno == ENOENT ? 0 : -errno;
	while ((e = readdir(d)))
		if (e->d_name[0] != '.' && unlinkat(dirfd(d), e->d_name, 0) && !rc)
			rc = -errno;
	closedir(d);
	if (!rc && rmdir(dir))
		rc = -errno;
	return rc;
}

static size_t whole_pages(size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return (bytes + page - 1) / page * page;
}

int bpf_maps_mmap(int fd, size_t bytes, bool writable, void **ret)
{
	void *p = mmap(NULL, whole_pages(bytes), PROT_READ | (writable ? PROT_WRITE : 0),
		MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		return -errno;
	*ret = p;
	return 0;
}

void bpf_maps_munmap(void *p, size_t bytes)
{
	if (p)
		munmap(p, whole_pages(bytes));
}
