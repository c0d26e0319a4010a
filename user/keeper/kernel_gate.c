#include "keeper/kernel_gate.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>

#include <linux/magic.h>

#include "kern/bpf_admit.h"
#include "kern/bpf_error.h"
#include "kern/bpf_lists.h"
#include "kern/bpf_sched.h"
#include "kern/bpf_steer.h"
#include "kern/bpf_track.h"
#include "kern/worker_load.h"

enum {
	INTERFACES_MAX = 64,
};

struct kernel_gate {
	const struct kernel_gate_opts *o;
	char dir[KERNEL_GATE_DIR_MAX];
	struct bpf_maps *maps;
	struct bpf_admit *admit;
	struct bpf_track *track;
	struct bpf_steer *steer;
	struct bpf_sched *sched; /* NULL: its map could not be had */
	struct tg_worker_load *load;
	unsigned ifindex[INTERFACES_MAX];
	unsigned n_interfaces;
	bool cookies;
	FILE *notes;
};

static int fail(int err, char *error, size_t len, const char *what, const char *more)
{
	const char *text = bpf_error_text();

	snprintf(error, len, "%s%s%s: %s%s%s", what, more ? " " : "", more ? more : "",
		strerror(-err), *text ? ": " : "", text);
	return err;
}

/* ---- where it is pinned ---- */

/* Containers often come without one. */
static int need_bpffs(void)
{
	struct statfs fs;

	if (statfs(KERNEL_GATE_ROOT, &fs) == 0 && fs.f_type == BPF_FS_MAGIC)
		return 0;
	return mount("bpf", KERNEL_GATE_ROOT, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=700")
		       ? -errno
		       : 0;
}

static int make_dir(const char *instance, char dir[KERNEL_GATE_DIR_MAX])
{
	int n = snprintf(dir, KERNEL_GATE_DIR_MAX, KERNEL_GATE_ROOT "/tidegate");

	if (mkdir(dir, 0700) && errno != EEXIST)
		return -errno;
	n = snprintf(dir, KERNEL_GATE_DIR_MAX, KERNEL_GATE_ROOT "/tidegate/%s", instance);
	return n < KERNEL_GATE_DIR_MAX ? 0 : -ENAMETOOLONG;
}

int kernel_gate_remove(const char *instance)
{
	char dir[KERNEL_GATE_DIR_MAX];
	struct statfs fs;
	int err;

	if (statfs(KERNEL_GATE_ROOT "/tidegate", &fs))
		return errno == ENOENT ? 0 : -errno;
	if (snprintf(dir, sizeof dir, KERNEL_GATE_ROOT "/tidegate/%s", instance) >= (int)sizeof dir)
		return -ENAMETOOLONG;
	if (statfs(dir, &fs))
		return errno == ENOENT ? 0 : -errno;
	bpf_error_capture();
	err = bpf_admit_end(dir);
	return err ? err : bpf_maps_remove(dir);
}

/* ---- the gateway's addresses, and the interfaces they are on ---- */

static bool is_any(const struct sockaddr_storage *a)
{
	if (a->ss_family == AF_INET)
		return ((const struct sockaddr_in *)a)->sin_addr.s_addr == htonl(INADDR_ANY);
	return IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)a)->sin6_addr);
}

static bool is_loopback(const struct sockaddr_storage *a)
{
	if (a->ss_family == AF_INET)
		return ntohl(((const struct sockaddr_in *)a)->sin_addr.s_addr) >> 24 == 127;
	return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)a)->sin6_addr);
}

static bool same_address(const struct sockaddr_storage *a, const struct sockaddr *b)
{
	if (!b || b->sa_family != a->ss_family)
		return false;
	if (a->ss_family == AF_INET)
		return ((const struct sockaddr_in *)a)->sin_addr.s_addr ==
		       ((const struct sockaddr_in *)(const void *)b)->sin_addr.s_addr;
	return !memcmp(&((const struct sockaddr_in6 *)a)->sin6_addr,
		&((const struct sockaddr_in6 *)(const void *)b)->sin6_addr,
		sizeof(struct in6_addr));
}

static void endpoint_of(const struct sockaddr_storage *a, unsigned listener, struct bpf_endpoint *e)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)a;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)a;

	*e = (struct bpf_endpoint){.listener = listener};
	e->port = e->port_last = ntohs(a->ss_family == AF_INET ? v4->sin_port : v6->sin6_port);
	if (is_any(a))
		return;
	if (a->ss_family == AF_INET) {
		bpf_address_v4((const uint8_t *)&v4->sin_addr, e->addr);
		e->bits = 64;
	} else {
		memcpy(e->addr, &v6->sin6_addr, sizeof e->addr);
		e->bits = 128;
	}
}

static int add_interface(struct kernel_gate *k, unsigned ifindex)
{
	for (unsigned i = 0; i < k->n_interfaces; i++)
		if (k->ifindex[i] == ifindex)
			return 0;
	if (k->n_interfaces == INTERFACES_MAX)
		return -E2BIG;
	k->ifindex[k->n_interfaces++] = ifindex;
	return 0;
}

/* Those that hold the address; for a wildcard, all that are up. */
static int interfaces_of(
	struct kernel_gate *k, const struct sockaddr_storage *a, const struct ifaddrs *all)
{
	int err = 0;

	for (const struct ifaddrs *i = all; i && !err; i = i->ifa_next) {
		unsigned ifindex = if_nametoindex(i->ifa_name);
		bool here = is_any(a)        ? (i->ifa_flags & IFF_UP) != 0
			    : is_loopback(a) ? (i->ifa_flags & IFF_LOOPBACK) != 0
					     : same_address(a, i->ifa_addr);

		if (here && ifindex)
			err = add_interface(k, ifindex);
	}
	return err;
}

static int take_addresses(struct kernel_gate *k, const struct kernel_gate_listeners *l,
	struct bpf_endpoint *endpoints)
{
	struct ifaddrs *all = NULL;
	int err = getifaddrs(&all) ? -errno : 0;

	for (unsigned i = 0; i < l->n && !err; i++) {
		struct sockaddr_storage a;
		socklen_t len = sizeof a;

		if (getsockname(l->fds[i * l->workers], (struct sockaddr *)&a, &len))
			err = -errno;
		if (!err)
			endpoint_of(&a, i, &endpoints[i]);
		if (!err && !k->o->n_interfaces)
			err = interfaces_of(k, &a, all);
	}
	if (all)
		freeifaddrs(all);
	return err;
}

/* ---- what the maps hold before anything is attached ---- */

static int write_list(int fd, const struct tg_lpm_key *keys, unsigned n)
{
	struct tg_list_entry e = {.created_s = (uint64_t)time(NULL), .origin = TG_ORIGIN_CONFIG};
	int err = 0;

	for (unsigned i = 0; i < n && !err; i++)
		err = bpf_list_add(fd, &keys[i], &e);
	return err;
}

struct stale {
	int fd;
	struct tg_lpm_key key;
	bool found;
};

static int find_configured(
	void *ctx, const struct tg_lpm_key *key, const struct tg_list_entry *entry)
{
	struct stale *s = ctx;

	if (entry->origin != TG_ORIGIN_CONFIG)
		return 0;
	s->key = *key;
	s->found = true;
	return 1;
}

/* What a former configuration put into an adopted list; what an operator did stays. */
static int drop_configured(int fd)
{
	struct stale s = {.fd = fd};
	int err;

	do {
		s.found = false;
		err = bpf_list_each(fd, find_configured, &s);
		if (s.found)
			err = bpf_list_del(fd, &s.key);
		else if (err > 0)
			err = 0;
	} while (!err && s.found);
	return err;
}

static int fill_lists(struct kernel_gate *k)
{
	const struct kernel_gate_opts *o = k->o;
	int allow = bpf_maps_fd(k->maps, BPF_MAP_allow), deny = bpf_maps_fd(k->maps, BPF_MAP_deny);
	int err = drop_configured(allow);

	if (!err)
		err = drop_configured(deny);
	if (!err)
		err = write_list(allow, o->allow, o->n_allow);
	if (!err)
		err = write_list(deny, o->deny, o->n_deny);
	for (unsigned i = 0; i < o->n_weights && !err; i++) {
		struct tg_weight w = {.weight = o->weights[i].weight, .origin = TG_ORIGIN_CONFIG};

		err = bpf_weight_add(bpf_maps_fd(k->maps, BPF_MAP_weights), &o->weights[i].key, &w);
	}
	return err;
}

/* Asked for, and this kernel would take the answers? The sysctl is the operator's: it is for every
 * listener of the machine, not for ours alone. */
static bool may_send_cookies(const struct kernel_gate *k)
{
	int value;

	if (!k->o->settings.cookie_trigger)
		return false;
	value = bpf_admit_cookies_sysctl();
	if (value == BPF_COOKIES_SYSCTL)
		return true;
	if (value < 0)
		fprintf(k->notes, "!no SYN cookies: net.ipv4.tcp_syncookies: %s\n",
			strerror(-value));
	else
		fprintf(k->notes,
			"!no SYN cookies: admission.cookie_trigger needs "
			"net.ipv4.tcp_syncookies = %d, and it is %d\n",
			BPF_COOKIES_SYSCTL, value);
	return false;
}

static int fill_maps(
	struct kernel_gate *k, const struct kernel_gate_listeners *l, char *error, size_t len)
{
	struct bpf_endpoint *endpoints = calloc(l->n + 1, sizeof *endpoints);
	struct tg_settings s = k->o->settings;
	int err = endpoints ? take_addresses(k, l, endpoints) : -ENOMEM;

	if (err) {
		free(endpoints);
		return fail(err, error, len, "addresses", NULL);
	}
	s.workers = l->workers;
	s.listeners = l->n;
	s.rings = 1;
	k->cookies = may_send_cookies(k);
	if (!k->cookies)
		s.cookie_trigger = 0;
	if (k->o->n_weights)
		s.flags |= TG_SET_WEIGHTS;
	err = bpf_track_set_netns(&s);
	if (!err)
		err = bpf_settings_write(bpf_maps_fd(k->maps, BPF_MAP_settings), &s);
	if (!err)
		err = bpf_ports_write(k->maps, endpoints, l->n);
	free(endpoints);
	if (err)
		return fail(err, error, len, "settings", NULL);
	err = fill_lists(k);
	return err ? fail(err, error, len, "lists", NULL) : 0;
}

/* ---- programs ---- */

/* Without cookies, if it is they that this kernel does not take. */
static int load_admit(struct kernel_gate *k)
{
	int err = bpf_admit_load(k->maps, k->cookies, &k->admit);

	if (!err || !k->cookies)
		return err;
	fprintf(k->notes, "!no SYN cookies, the kernel refuses their program: %s: %s\n",
		strerror(-err), bpf_error_text());
	bpf_error_clear();
	return bpf_admit_load(k->maps, false, &k->admit);
}

static int attach_admit(struct kernel_gate *k, char *error, size_t len)
{
	char name[IF_NAMESIZE];
	int err = load_admit(k);

	if (err)
		return fail(err, error, len, "loading admit", NULL);
	for (unsigned i = 0; i < k->o->n_interfaces && !err; i++) {
		unsigned ifindex = if_nametoindex(k->o->interfaces[i]);

		err = ifindex ? add_interface(k, ifindex) : -errno;
		if (err)
			return fail(err, error, len, "interface", k->o->interfaces[i]);
	}
	for (unsigned i = 0; i < k->n_interfaces; i++) {
		struct bpf_admit_attached how;

		if (!if_indextoname(k->ifindex[i], name))
			continue; /* gone since */
		err = bpf_admit_attach(k->admit, k->ifindex[i], BPF_ADMIT_ANY, &how);
		if (err)
			return fail(err, error, len, "attaching admit to", name);
		fprintf(k->notes, "%s: %s XDP%s%s\n", name, how.native ? "native" : "generic",
			how.dispatcher ? " in libxdp's dispatcher" : "",
			how.adopted ? ", taken over from a former start" : "");
	}
	return 0;
}

static int attach_steer(
	struct kernel_gate *k, const struct kernel_gate_listeners *l, const char **ret_step)
{
	int err = bpf_steer_load(k->maps, &k->steer, ret_step);

	for (unsigned i = 0; i < l->n && !err; i++) {
		struct bpf_steer_group group = {.listener = i,
			.fds = &l->fds[i * l->workers],
			.n = l->workers,
			.workers = l->workers,
			.rings = 1};

		err = bpf_steer_add(k->steer, &group, ret_step);
	}
	return err;
}

int kernel_gate_sample(struct kernel_gate *k, unsigned percent, char *error, size_t len)
{
	struct bpf_sched_opts o = {.percent = percent, .run = percent};
	const char *step = "the map";
	struct timespec now;
	int err = 0;

	if (!k)
		return fail(-EOPNOTSUPP, error, len, "no gate in the kernel", NULL);
	bpf_error_clear();
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (!k->sched)
		err = bpf_sched_create(k->maps, &k->sched);
	if (!err)
		err = bpf_sched_switch(k->sched, &o,
			(uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec, &step);
	return err ? fail(err, error, len, step, NULL) : 0;
}

/* The gate is in force without it, on kernels, too, that lack the tracepoints. */
static void attach_sched(struct kernel_gate *k)
{
	char error[256];

	if (kernel_gate_sample(k, k->o->sample_percent, error, sizeof error))
		fprintf(k->notes, "wake delays are not measured: %s\n", error);
}

static int attach(
	struct kernel_gate *k, const struct kernel_gate_listeners *l, char *error, size_t len)
{
	struct bpf_track_attached track;
	struct bpf_track_opts track_opts = {0};
	const char *step = NULL;
	int err = bpf_track_load(k->maps, &track_opts, &k->track, &step);

	if (!err)
		err = bpf_track_attach(k->track, &track, &step);
	if (err)
		return fail(err, error, len, "track:", step);
	if (track.lost)
		fprintf(k->notes, "%llu sources' open connections found no room in the new maps\n",
			(unsigned long long)track.lost);
	err = attach_admit(k, error, len);
	if (err)
		return err;
	err = attach_steer(k, l, &step);
	if (err)
		return fail(err, error, len, "steer:", step);
	attach_sched(k);
	return 0;
}

int kernel_gate_open(const struct kernel_gate_opts *opts, const struct kernel_gate_listeners *l,
	struct kernel_gate **ret, char **ret_notes, char *error, size_t error_len)
{
	struct kernel_gate *k = calloc(1, sizeof *k);
	struct bpf_maps_opts maps = {
		.sources = opts->sources, .listeners = l->n * l->workers, .version = opts->version};
	char *notes = NULL;
	size_t notes_len;
	int err;

	if (!k)
		return fail(-ENOMEM, error, error_len, "memory", NULL);
	bpf_error_capture();
	bpf_error_clear();
	k->o = opts;
	k->notes = open_memstream(&notes, &notes_len);
	err = k->notes ? need_bpffs() : -ENOMEM;
	if (!err)
		err = make_dir(opts->instance, k->dir);
	if (err) {
		fail(err, error, error_len, KERNEL_GATE_ROOT, NULL);
		goto err_close;
	}
	maps.dir = k->dir;
	maps.generation = (uint64_t)time(NULL);
	err = bpf_maps_open(&maps, &k->maps);
	if (err) {
		fail(err, error, error_len, "maps", NULL);
		goto err_close;
	}
	err = worker_load_map(bpf_maps_fd(k->maps, BPF_MAP_worker_load), &k->load);
	if (err) {
		fail(err, error, error_len, "worker_load", NULL);
		goto err_close;
	}
	kernel_gate_vacant(k);
	err = fill_maps(k, l, error, error_len);
	if (!err)
		err = attach(k, l, error, error_len);
	if (err)
		goto err_close;
	err = bpf_admit_detach_others(k->admit);
	if (!err)
		err = bpf_maps_commit(k->maps);
	if (err) {
		fail(err, error, error_len, "pinning", NULL);
		goto err_close;
	}
	if (bpf_maps_found(k->maps) == BPF_MAPS_ADOPTED)
		fputs("maps of a former start are taken over\n", k->notes);
	if (bpf_maps_lost(k->maps))
		fprintf(k->notes, "%llu entries of a former start found no room in the new maps\n",
			(unsigned long long)bpf_maps_lost(k->maps));
	fclose(k->notes);
	k->notes = NULL;
	*ret = k;
	*ret_notes = notes;
	return 0;

err_close:
	if (k->notes)
		fclose(k->notes);
	k->notes = NULL;
	free(notes);
	kernel_gate_close(k, false);
	return err;
}

bool kernel_gate_record(
	const struct kernel_gate *k, unsigned i, struct channel_record *ret, int *ret_fd)
{
	if (!k || i >= BPF_SHARED_MAP_COUNT)
		return false;
	*ret = (struct channel_record){.kind = CHANNEL_MAP, .index = i};
	*ret_fd = bpf_maps_fd(k->maps, (enum bpf_shared_map)i);
	return true;
}

void kernel_gate_vacant(struct kernel_gate *k)
{
	for (unsigned i = 0; k && i < TG_WORKERS_MAX; i++)
		worker_load_end(&k->load[i]);
	if (k && k->sched)
		bpf_sched_forget(k->sched);
}

void kernel_gate_close(struct kernel_gate *k, bool detach)
{
	if (!k)
		return;
	worker_load_unmap(k->load);
	bpf_steer_close(k->steer);
	bpf_sched_destroy(k->sched);
	if (detach && k->admit)
		for (unsigned i = 0; i < k->n_interfaces; i++)
			bpf_admit_detach(k->admit, k->ifindex[i]);
	if (detach && k->track)
		bpf_track_detach(k->track);
	bpf_admit_close(k->admit);
	bpf_track_close(k->track);
	bpf_maps_close(k->maps);
	if (detach)
		bpf_maps_remove(k->dir);
	free(k);
}
