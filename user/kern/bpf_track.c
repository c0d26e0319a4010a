#include "kern/bpf_track.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "bpf/track.skel.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

#define LINK_PREFIX "track_link_"

enum {
	PATH_BYTES = BPF_MAPS_DIR_MAX + 64,
	SAMPLE_DEFAULT = 64,
	PROG_MAPS_MAX = 64,
	PROGRAMS = 2, /* that count, and see to it that nothing is counted twice */
};

struct bpf_track {
	const struct bpf_maps *maps;
	struct track_bpf *skel; /* NULL once another program was taken over */
	bool attached;
	int link_fds[PROGRAMS]; /* -1: the pin alone holds it, or there is none */
	uint64_t number;        /* of what is attached */
	struct tg_pace *pace;   /* mapped */
};

static int fail(const char **ret_step, const char *step, int rc)
{
	*ret_step = step;
	return rc;
}

/* ---- loading ---- */

/* Never used before since the machine started, so that no forgotten program counts along. */
static uint64_t fresh_number(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int load(struct bpf_track *t, const struct bpf_track_opts *o, const char **ret_step)
{
	uint32_t sample = o && o->sample ? o->sample : SAMPLE_DEFAULT;
	void *pace;

	if (sample & (sample - 1))
		return fail(ret_step, "sample", -EINVAL);
	int rc = bpf_maps_mmap(
		bpf_maps_fd(t->maps, BPF_MAP_pace), sizeof(struct tg_pace), true, &pace);
	if (rc)
		return fail(ret_step, "mapping pace", rc);
	t->pace = pace;
	t->number = fresh_number();
	t->skel = track_bpf__open();
	if (!t->skel)
		return fail(ret_step, "opening the program", -errno);
	t->skel->rodata->track_number = t->number;
	t->skel->rodata->sample_mask = sample - 1;
	t->skel->rodata->proven_mask = bpf_maps_entries(t->maps, BPF_MAP_proven) - 1;
	t->skel->rodata->filter_entries = bpf_maps_entries(t->maps, BPF_MAP_penalty_filter);
	rc = bpf_maps_reuse(t->maps, t->skel->obj);
	if (rc)
		return fail(ret_step, "sharing the maps", rc);
	rc = track_bpf__load(t->skel);
	return rc ? fail(ret_step, "loading the program", rc) : 0;
}

int bpf_track_load(const struct bpf_maps *maps, const struct bpf_track_opts *opts,
	struct bpf_track **ret, const char **ret_step)
{
	struct bpf_track *t = calloc(1, sizeof(*t));

	if (!t)
		return fail(ret_step, "memory", -ENOMEM);
	t->maps = maps;
	t->link_fds[0] = t->link_fds[1] = -1;
	int rc = load(t, opts, ret_step);
	if (rc) {
		bpf_track_close(t);
		return rc;
	}
	*ret = t;
	return 0;
}

/* ---- what a former start left ---- */

struct former {
	char dir[PATH_BYTES]; /* "": there is none */
	int link_fd;          /* of the program that counts there; -1: none does */
	uint64_t number;
	bool replaced; /* its maps are not ours */
};

/* which: of the PROGRAMS. */
static int pin_path(const char *dir, uint64_t number, unsigned which, char *path, size_t len)
{
	int n = snprintf(path, len, "%s/" LINK_PREFIX "%llu%s", dir, (unsigned long long)number,
		which ? "_missed" : "");

	return n < 0 || (size_t)n >= len ? -ENAMETOOLONG : 0;
}

static int open_map(const char *dir, enum bpf_shared_map which)
{
	char path[PATH_BYTES + 32];

	snprintf(path, sizeof(path), "%s/%s", dir, bpf_maps_name(which));
	int fd = bpf_obj_get(path);
	return fd < 0 ? -errno : fd;
}

/* tg_pace.track of the directory's own maps, which may be of another ABI. */
static uint64_t counting_number(const char *dir)
{
	struct bpf_map_info info = {0};
	uint32_t zero = 0, len = sizeof(info);
	union {
		struct tg_pace pace;
		char room[4096];
	} value = {0};
	int fd = open_map(dir, BPF_MAP_pace);

	if (fd < 0)
		return 0;
	if (bpf_obj_get_info_by_fd(fd, &info, &len) || info.value_size > sizeof(value) ||
		bpf_map_lookup_elem(fd, &zero, &value))
		value.pace.track = 0;
	close(fd);
	return value.pace.track;
}

static void find_former(const struct bpf_track *t, struct former *f)
{
	char path[PATH_BYTES + 32];

	memset(f, 0, sizeof(*f));
	f->link_fd = -1;
	f->replaced = !bpf_maps_old_path(t->maps, "", f->dir, sizeof(f->dir));
	if (!f->replaced && bpf_maps_pin_path(t->maps, "", f->dir, sizeof(f->dir))) {
		f->dir[0] = 0;
		return;
	}
	f->number = counting_number(f->dir);
	if (f->number && !pin_path(f->dir, f->number, 0, path, sizeof(path)))
		f->link_fd = bpf_obj_get(path);
}

/* All links of the directory but one (0: all). A start that did not come to its end may have left
 * one that does not count. */
static void unpin_links(const char *dir, uint64_t but)
{
	DIR *d = dir[0] ? opendir(dir) : NULL;
	struct dirent *e;

	while (d && (e = readdir(d))) {
		if (strncmp(e->d_name, LINK_PREFIX, strlen(LINK_PREFIX)) != 0)
			continue;
		if (strtoull(e->d_name + strlen(LINK_PREFIX), NULL, 10) != but)
			unlinkat(dirfd(d), e->d_name, 0);
	}
	if (d)
		closedir(d);
}

static int map_id(int fd, uint32_t *ret)
{
	struct bpf_map_info info = {0};
	uint32_t len = sizeof(info);

	if (bpf_obj_get_info_by_fd(fd, &info, &len))
		return -errno;
	*ret = info.id;
	return 0;
}

static int prog_info(int prog_fd, struct bpf_prog_info *ret, uint32_t ids[PROG_MAPS_MAX])
{
	uint32_t len = sizeof(*ret);

	memset(ret, 0, sizeof(*ret));
	ret->map_ids = (uintptr_t)ids;
	ret->nr_map_ids = PROG_MAPS_MAX;
	return bpf_obj_get_info_by_fd(prog_fd, ret, &len) ? -errno : 0;
}

static int linked_program(int link_fd)
{
	struct bpf_link_info info = {0};
	uint32_t len = sizeof(info);

	if (bpf_obj_get_info_by_fd(link_fd, &info, &len))
		return -errno;
	int fd = bpf_prog_get_fd_by_id(info.prog_id);
	return fd < 0 ? -errno : fd;
}

/* The same instructions on the same maps: nothing would change. */
static bool same_program(const struct bpf_track *t, int link_fd)
{
	uint32_t ids[PROG_MAPS_MAX], mine[PROG_MAPS_MAX], open_id = 0;
	struct bpf_prog_info theirs, ours;
	int fd = linked_program(link_fd);
	bool same = false;

	if (fd < 0)
		return false;
	if (!prog_info(fd, &theirs, ids) &&
		!prog_info(bpf_program__fd(t->skel->progs.tidegate_track), &ours, mine) &&
		!map_id(bpf_maps_fd(t->maps, BPF_MAP_open), &open_id) &&
		!memcmp(theirs.tag, ours.tag, sizeof(ours.tag)))
		for (uint32_t i = 0; i < theirs.nr_map_ids && i < PROG_MAPS_MAX; i++)
			same |= ids[i] == open_id;
	close(fd);
	return same;
}

/* ---- taking over ---- */

struct merge {
	struct tg_prefix key;
	int32_t delta;
};

static int merge_one(const struct bpf_track *t, struct merge *m)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .ctx_in = m, .ctx_size_in = sizeof(*m));

	if (bpf_prog_test_run_opts(bpf_program__fd(t->skel->progs.tidegate_merge), &opts))
		return -errno;
	return opts.retval ? -ENOSPC : 0;
}

/* An entry of replaced maps may be of another ABI: `connections` comes first in all of them. */
static void merge_open(const struct bpf_track *t, int from, struct bpf_track_attached *ret)
{
	struct bpf_map_info info = {0};
	uint32_t len = sizeof(info);
	char value[256];
	struct merge m = {0};
	void *at = NULL;

	if (bpf_obj_get_info_by_fd(from, &info, &len) || info.key_size != sizeof(m.key) ||
		info.value_size < sizeof(m.delta) || info.value_size > sizeof(value))
		return;
	while (!bpf_map_get_next_key(from, at, &m.key)) {
		at = &m.key;
		if (bpf_map_lookup_elem(from, &m.key, value))
			continue;
		memcpy(&m.delta, value, sizeof(m.delta));
		if (m.delta <= 0)
			continue;
		if (merge_one(t, &m))
			ret->lost++;
		else
			ret->moved++;
	}
}

/* What ended meanwhile and had never been counted has left entries below zero. */
static void end_debts(const struct bpf_track *t)
{
	int fd = bpf_maps_fd(t->maps, BPF_MAP_open);
	struct merge m = {0};
	struct tg_open o;
	void *at = NULL;
	struct tg_prefix key;

	while (!bpf_map_get_next_key(fd, at, &key)) {
		m.key = key;
		at = &key;
		if (!bpf_map_lookup_elem(fd, &m.key, &o) && o.connections < 0)
			merge_one(t, &m);
	}
}

static void clear_open(const struct bpf_track *t)
{
	int fd = bpf_maps_fd(t->maps, BPF_MAP_open);
	struct tg_prefix key;

	while (!bpf_map_get_next_key(fd, NULL, &key) && !bpf_map_delete_elem(fd, &key))
		;
}

static void set_counting(int pace_fd, uint64_t number)
{
	void *pace;

	if (bpf_maps_mmap(pace_fd, sizeof(struct tg_pace), true, &pace))
		return;
	__atomic_store_n(&((struct tg_pace *)pace)->track, number, __ATOMIC_RELEASE);
	bpf_maps_munmap(pace, sizeof(struct tg_pace));
}

/* Its maps' counts are final once its program does not count any more; meanwhile ours already does,
 * and may close what it has not opened. */
static void switch_maps(struct bpf_track *t, const struct former *f, struct bpf_track_attached *ret)
{
	int pace = open_map(f->dir, BPF_MAP_pace);
	/* Where nobody has counted, closes were missed. */
	int from = f->link_fd >= 0 ? open_map(f->dir, BPF_MAP_open) : -1;

	__atomic_store_n(&t->pace->merging, 1, __ATOMIC_RELEASE);
	if (pace >= 0)
		set_counting(pace, 0);
	__atomic_store_n(&t->pace->track, t->number, __ATOMIC_RELEASE);
	if (from >= 0)
		merge_open(t, from, ret);
	__atomic_store_n(&t->pace->merging, 0, __ATOMIC_RELEASE);
	end_debts(t);
	if (pace >= 0)
		close(pace);
	if (from >= 0)
		close(from);
}

static int attach_one(struct bpf_track *t, unsigned which, const char *dir, const char **ret_step)
{
	const struct bpf_program *prog =
		which ? t->skel->progs.tidegate_track_missed : t->skel->progs.tidegate_track;
	char path[PATH_BYTES + 32];

	int fd = bpf_raw_tracepoint_open(NULL, bpf_program__fd(prog));
	if (fd < 0)
		return fail(ret_step, "attaching to inet_sock_set_state", -errno);
	if (dir[0]) {
		int rc = pin_path(dir, t->number, which, path, sizeof(path));
		if (!rc && bpf_obj_pin(fd, path))
			rc = -errno;
		if (rc) {
			close(fd);
			return fail(ret_step, "pinning the link", rc);
		}
	}
	t->link_fds[which] = fd;
	return 0;
}

static void close_links(struct bpf_track *t)
{
	for (unsigned i = 0; i < PROGRAMS; i++) {
		if (t->link_fds[i] >= 0)
			close(t->link_fds[i]);
		t->link_fds[i] = -1;
	}
	t->attached = false;
}

/* In this order they run. */
static int attach(struct bpf_track *t, const char *dir, const char **ret_step)
{
	int rc = attach_one(t, 0, dir, ret_step);

	if (!rc)
		rc = attach_one(t, 1, dir, ret_step);
	if (!rc) {
		t->attached = true;
		return 0;
	}
	char path[PATH_BYTES + 32];
	if (dir[0] && t->link_fds[0] >= 0 && !pin_path(dir, t->number, 0, path, sizeof(path)))
		unlink(path);
	close_links(t);
	return rc;
}

static int take_over(struct bpf_track *t, const struct former *f, struct bpf_track_attached *ret,
	const char **ret_step)
{
	char dir[PATH_BYTES];

	if (bpf_maps_pin_path(t->maps, "", dir, sizeof(dir)))
		dir[0] = 0;
	if (!f->replaced)
		unpin_links(dir, f->number);
	int rc = attach(t, dir, ret_step);
	if (rc)
		return rc;
	if (f->replaced) {
		switch_maps(t, f, ret);
		unpin_links(f->dir, 0);
		return 0;
	}
	/* Adopted maps in which nobody has counted: closes were missed, and what is too high stays
	 * so. Too low mends itself. */
	if (f->link_fd < 0)
		clear_open(t);
	__atomic_store_n(&t->pace->track, t->number, __ATOMIC_RELEASE);
	unpin_links(dir, t->number);
	return 0;
}

int bpf_track_attach(struct bpf_track *t, struct bpf_track_attached *ret, const char **ret_step)
{
	struct bpf_track_attached got = {0};
	struct former f;
	int rc = 0;

	find_former(t, &f);
	if (f.link_fd >= 0 && !f.replaced && same_program(t, f.link_fd)) {
		unpin_links(f.dir, f.number);
		track_bpf__destroy(t->skel);
		t->skel = NULL;
		t->link_fds[0] = f.link_fd;
		t->attached = true;
		t->number = f.number;
		f.link_fd = -1;
		got.adopted = true;
	} else {
		rc = take_over(t, &f, &got, ret_step);
	}
	if (f.link_fd >= 0)
		close(f.link_fd);
	if (!rc)
		*ret = got;
	return rc;
}

void bpf_track_detach(struct bpf_track *t)
{
	char dir[PATH_BYTES];

	if (!t->attached)
		return;
	__atomic_store_n(&t->pace->track, 0, __ATOMIC_RELEASE);
	if (!bpf_maps_pin_path(t->maps, "", dir, sizeof(dir)))
		unpin_links(dir, 0);
	close_links(t);
}

void bpf_track_close(struct bpf_track *t)
{
	if (!t)
		return;
	close_links(t);
	track_bpf__destroy(t->skel);
	bpf_maps_munmap(t->pace, sizeof(*t->pace));
	free(t);
}

int bpf_track_set_netns(struct tg_settings *s)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint64_t cookie;
	socklen_t len = sizeof(cookie);

	if (fd < 0)
		return -errno;
	int rc = getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len) ? -errno : 0;
	close(fd);
	if (!rc)
		s->netns_cookie = cookie;
	return rc;
}
