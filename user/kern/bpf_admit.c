#include "kern/bpf_admit.h"

#include <dirent.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_link.h>

#include "bpf/admit.skel.h"
#include "kern/bpf_dispatch.h"
#include "kern/bpf_error.h"

enum {
	INTERFACES_MAX = 64,
	PATH_BYTES = BPF_MAPS_DIR_MAX + 64,
};

#define LINK_PREFIX "admit_link_"
#define PROG_PREFIX "admit_prog_"
#define PROGRAM     "tidegate_admit"

struct attachment {
	unsigned ifindex;
	int link_fd;            /* -1: by the dispatcher */
	struct admit_bpf *skel; /* … which loads a program for each interface */
	struct xdp_program *prog;
};

struct bpf_admit {
	const struct bpf_maps *maps;
	struct admit_bpf *skel;
	uint64_t seed; /* of the sketch, the same in every program */
	bool cookies;
	bool dispatch;
	struct attachment at[INTERFACES_MAX];
	unsigned n;
};

static uint32_t log2_of(uint32_t power)
{
	return 31u - (uint32_t)__builtin_clz(power);
}

/* Opened, with what is constant once it is loaded and the shared maps. NULL with errno. */
static struct admit_bpf *open_skeleton(const struct bpf_admit *a)
{
	uint32_t blocks = bpf_maps_entries(a->maps, BPF_MAP_syn_sketch);
	struct admit_bpf *skel = admit_bpf__open();

	if (!skel)
		return NULL;
	skel->rodata->cookies = a->cookies;
	skel->rodata->sketch_seed = a->seed;
	skel->rodata->sketch_mask = blocks - 1;
	skel->rodata->sketch_row_bits = log2_of(blocks * TG_SKETCH_COLS);
	skel->rodata->proven_mask = bpf_maps_entries(a->maps, BPF_MAP_proven) - 1;
	skel->rodata->filter_entries = bpf_maps_entries(a->maps, BPF_MAP_penalty_filter);
	int rc = bpf_maps_reuse(a->maps, skel->obj);
	if (!rc)
		return skel;
	admit_bpf__destroy(skel);
	errno = -rc;
	return NULL;
}

int bpf_admit_load(const struct bpf_maps *maps, bool cookies, struct bpf_admit **ret)
{
	struct bpf_admit *a = calloc(1, sizeof(*a));

	if (!a)
		return -ENOMEM;
	a->maps = maps;
	a->cookies = cookies;
	if (getrandom(&a->seed, sizeof(a->seed), 0) != sizeof(a->seed)) {
		free(a);
		return -EIO;
	}
	a->skel = open_skeleton(a);
	int rc = a->skel ? admit_bpf__load(a->skel) : -errno;
	if (rc) {
		bpf_admit_close(a);
		return rc;
	}
	a->dispatch = bpf_dispatch_allowed();
	*ret = a;
	return 0;
}

void bpf_admit_avoid_dispatcher(struct bpf_admit *a)
{
	a->dispatch = false;
}

int bpf_admit_prog_fd(const struct bpf_admit *a)
{
	return bpf_program__fd(a->skel->progs.tidegate_admit);
}

int bpf_admit_cookies_sysctl(void)
{
	FILE *f = fopen("/proc/sys/net/ipv4/tcp_syncookies", "re");
	int value, rc = f ? 0 : -errno;

	if (f && fscanf(f, "%d", &value) != 1)
		rc = -EIO;
	if (f)
		fclose(f);
	return rc ? rc : value;
}

/* ---- attaching ---- */

static void pin_name(char name[32], const char *prefix, unsigned ifindex)
{
	snprintf(name, 32, "%s%u", prefix, ifindex);
}

/* What a former start pinned under this name, in the directory that this one replaces or in the
 * same one. A descriptor and its path, or -errno. */
static int old_pin(const struct bpf_admit *a, const char *name, char path[PATH_BYTES])
{
	int rc = bpf_maps_old_path(a->maps, name, path, PATH_BYTES);

	if (rc == -ENOENT)
		rc = bpf_maps_pin_path(a->maps, name, path, PATH_BYTES);
	if (rc)
		return rc;
	int fd = bpf_obj_get(path);
	return fd < 0 ? -errno : fd;
}

static int pin(const struct bpf_admit *a, int fd, const char *name)
{
	char path[PATH_BYTES];
	int rc = bpf_maps_pin_path(a->maps, name, path, sizeof(path));

	if (rc == -ENOENT)
		return 0; /* nothing is pinned */
	if (!rc && bpf_obj_pin(fd, path) && errno != EEXIST)
		rc = -errno;
	return rc;
}

static void unpin(const struct bpf_admit *a, const char *name)
{
	char path[PATH_BYTES];

	if (!bpf_maps_pin_path(a->maps, name, path, sizeof(path)))
		unlink(path);
}

static int program_id(int fd, uint32_t *ret)
{
	struct bpf_prog_info info = {0};
	uint32_t len = sizeof(info);

	if (bpf_obj_get_info_by_fd(fd, &info, &len))
		return -errno;
	*ret = info.id;
	return 0;
}

/* Drivers say in many ways that they cannot (MTU, queues, offloads): all but these mean that
 * generic mode may do. */
static bool generic_may_do(int rc)
{
	return rc < 0 && rc != -EBUSY && rc != -EEXIST && rc != -EPERM && rc != -ENODEV;
}

/* ---- by a link ---- */

/* A former start's link with this program in it, or -errno. An interface that went away leaves a
 * link that leads nowhere (-ENOLINK). */
static int take_over(const struct bpf_admit *a, const char *name)
{
	char path[PATH_BYTES];
	int fd = old_pin(a, name, path);

	if (fd < 0)
		return fd;
	if (!bpf_link_update(fd, bpf_admit_prog_fd(a), NULL))
		return fd;
	int rc = -errno;
	close(fd);
	unlink(path);
	return rc;
}

static int create_link(const struct bpf_admit *a, unsigned ifindex, uint32_t flags)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = flags);
	int fd = bpf_link_create(bpf_admit_prog_fd(a), (int)ifindex, BPF_XDP, &opts);

	return fd < 0 ? -errno : fd;
}

static int new_link(const struct bpf_admit *a, unsigned ifindex, enum bpf_admit_mode mode)
{
	int fd = -EOPNOTSUPP;

	if (mode != BPF_ADMIT_GENERIC)
		fd = create_link(a, ifindex, XDP_FLAGS_DRV_MODE);
	if (mode != BPF_ADMIT_NATIVE && generic_may_do(fd))
		fd = create_link(a, ifindex, XDP_FLAGS_SKB_MODE);
	return fd == -EEXIST ? -EBUSY : fd;
}

static int attach_link(struct bpf_admit *a, struct attachment *at, enum bpf_admit_mode mode,
	struct bpf_admit_attached *ret)
{
	char name[32];

	pin_name(name, LINK_PREFIX, at->ifindex);
	at->link_fd = take_over(a, name);
	ret->adopted = at->link_fd >= 0;
	if (at->link_fd < 0)
		at->link_fd = new_link(a, at->ifindex, mode);
	return at->link_fd < 0 ? at->link_fd : pin(a, at->link_fd, name);
}

/* ---- by the dispatcher ---- */

static int dispatch(const struct bpf_admit *a, struct attachment *at, bool native)
{
	at->skel = open_skeleton(a);
	if (!at->skel)
		return -errno;
	int rc = bpf_dispatch_attach(at->skel->obj, PROGRAM, at->ifindex, native, &at->prog);
	if (rc) {
		admit_bpf__destroy(at->skel);
		at->skel = NULL;
	}
	return rc;
}

/* The program that a former start left in the dispatcher goes, now that the new one is in. */
static bool replace_dispatched(const struct bpf_admit *a, unsigned ifindex, const char *name)
{
	char path[PATH_BYTES];
	uint32_t id = 0;
	int fd = old_pin(a, name, path);

	if (fd < 0)
		return false;
	bool was = !program_id(fd, &id) && !bpf_dispatch_detach(ifindex, id);
	close(fd);
	unlink(path);
	return was;
}

static int attach_dispatched(struct bpf_admit *a, struct attachment *at, enum bpf_admit_mode mode,
	struct bpf_admit_attached *ret)
{
	char name[32];
	int rc = -EOPNOTSUPP;

	if (mode != BPF_ADMIT_GENERIC)
		rc = dispatch(a, at, true);
	if (mode != BPF_ADMIT_NATIVE && generic_may_do(rc))
		rc = dispatch(a, at, false);
	if (rc)
		return rc == -EEXIST ? -EBUSY : rc;
	at->link_fd = -1;
	pin_name(name, PROG_PREFIX, at->ifindex);
	ret->dispatcher = true;
	ret->adopted = replace_dispatched(a, at->ifindex, name);
	return pin(a, bpf_dispatch_prog_fd(at->prog), name);
}

/* ---- either way ---- */

/* A former start's link is kept even where the dispatcher could be had: it needs no gap. */
static bool has_link(const struct bpf_admit *a, unsigned ifindex)
{
	char name[32], path[PATH_BYTES];

	pin_name(name, LINK_PREFIX, ifindex);
	int fd = old_pin(a, name, path);
	if (fd < 0)
		return false;
	close(fd);
	return true;
}

static int is_native(unsigned ifindex, bool *ret)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, query);
	int rc = bpf_xdp_query((int)ifindex, 0, &query);

	if (!rc)
		*ret = query.attach_mode == XDP_ATTACHED_DRV;
	return rc;
}

/* Ends it on its interface, and lets go of it. */
static void end(const struct bpf_admit *a, struct attachment *at)
{
	char name[32];

	pin_name(name, at->prog ? PROG_PREFIX : LINK_PREFIX, at->ifindex);
	unpin(a, name);
	if (at->prog) {
		bpf_dispatch_detach(at->ifindex, bpf_dispatch_prog_id(at->prog));
	} else {
		/* Now, not when the last descriptor is closed. */
		bpf_link_detach(at->link_fd);
	}
}

static void let_go(struct attachment *at)
{
	if (at->link_fd >= 0)
		close(at->link_fd);
	bpf_dispatch_close(at->prog);
	admit_bpf__destroy(at->skel);
}

int bpf_admit_attach(struct bpf_admit *a, unsigned ifindex, enum bpf_admit_mode mode,
	struct bpf_admit_attached *ret)
{
	char interface[IF_NAMESIZE];
	struct attachment at = {.ifindex = ifindex, .link_fd = -1};
	struct bpf_admit_attached got = {0};

	if (a->n == INTERFACES_MAX)
		return -E2BIG;
	if (!if_indextoname(ifindex, interface))
		return -ENODEV;
	int rc = a->dispatch && !has_link(a, ifindex) ? attach_dispatched(a, &at, mode, &got)
						      : attach_link(a, &at, mode, &got);
	if (!rc)
		rc = is_native(ifindex, &got.native);
	if (rc) {
		if (at.prog || at.link_fd >= 0)
			end(a, &at);
		let_go(&at);
		return rc;
	}
	a->at[a->n++] = at;
	*ret = got;
	return 0;
}

int bpf_admit_detach(struct bpf_admit *a, unsigned ifindex)
{
	for (unsigned i = 0; i < a->n; i++) {
		if (a->at[i].ifindex != ifindex)
			continue;
		end(a, &a->at[i]);
		let_go(&a->at[i]);
		a->at[i] = a->at[--a->n];
		return 0;
	}
	return -ENOENT;
}

void bpf_admit_close(struct bpf_admit *a)
{
	if (!a)
		return;
	for (unsigned i = 0; i < a->n; i++) {
		struct attachment *at = &a->at[i];
		char path[PATH_BYTES];
		/* A dispatcher would keep what nobody could find any more. */
		if (at->prog && bpf_maps_pin_path(a->maps, "", path, sizeof(path)))
			end(a, at);
		let_go(at);
	}
	admit_bpf__destroy(a->skel);
	free(a);
}

/* ---- what others left ---- */

static bool attached(const struct bpf_admit *a, const char *name)
{
	char mine[32];

	for (unsigned i = 0; a && i < a->n; i++) {
		pin_name(mine, a->at[i].prog ? PROG_PREFIX : LINK_PREFIX, a->at[i].ifindex);
		if (!strcmp(mine, name))
			return true;
	}
	return false;
}

/* At once: a link that is only unpinned ends some time later. */
static int end_pin(const char *directory, const char *name)
{
	char path[PATH_BYTES];
	uint32_t id = 0;

	snprintf(path, sizeof(path), "%.*s/%s", BPF_MAPS_DIR_MAX + 8, directory, name);
	int fd = bpf_obj_get(path), rc = 0;
	if (fd >= 0) {
		if (!strncmp(name, LINK_PREFIX, strlen(LINK_PREFIX)))
			bpf_link_detach(fd);
		else if (!program_id(fd, &id))
			rc = bpf_dispatch_detach((unsigned)atoi(name + strlen(PROG_PREFIX)), id);
		close(fd);
	}
	/* Somebody else may have taken it out. */
	if (rc && rc != -ENOENT)
		return rc;
	return unlink(path) ? -errno : 0;
}

/* All but those of a. */
static int end_others(const struct bpf_admit *a, const char *directory)
{
	DIR *d = opendir(directory);
	struct dirent *e;
	int rc = 0;

	if (!d)
		return errno == ENOENT ? 0 : -errno;
	while ((e = readdir(d))) {
		if ((strncmp(e->d_name, LINK_PREFIX, strlen(LINK_PREFIX)) &&
			    strncmp(e->d_name, PROG_PREFIX, strlen(PROG_PREFIX))) ||
			attached(a, e->d_name))
			continue;
		int failed = end_pin(directory, e->d_name);
		rc = rc ? rc : failed;
	}
	closedir(d);
	return rc;
}

int bpf_admit_detach_others(struct bpf_admit *a)
{
	char path[PATH_BYTES];
	int rc = 0;

	if (!bpf_maps_pin_path(a->maps, "", path, sizeof(path)))
		rc = end_others(a, path);
	if (!rc && !bpf_maps_old_path(a->maps, "", path, sizeof(path)))
		rc = end_others(a, path);
	return rc;
}

int bpf_admit_end(const char *dir)
{
	bpf_error_capture();
	return end_others(NULL, dir);
}
