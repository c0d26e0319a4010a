#include "kern/bpf_steer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "bpf/steer.skel.h"
#include "kern/bpf_gate.h"

struct bpf_steer {
	const struct bpf_maps *maps;
	struct steer_bpf *skel; /* without the choosing program */
	int wakeup_fd;
	int lookup_fd; /* -1: not attached */
};

static int fail(const char **ret_step, const char *step, int rc)
{
	*ret_step = step;
	return rc;
}

/* ---- loading ---- */

/* One copy of the choosing program for each listener, since it cannot tell its group from another.
 * Without the chooser: everything else. */
static int load_part(const struct bpf_maps *maps, bool chooser, uint32_t listener,
	struct steer_bpf **ret, const char **ret_step)
{
	struct steer_bpf *skel = steer_bpf__open();

	if (!skel)
		return fail(ret_step, "opening the program", -errno);
	bpf_program__set_autoload(skel->progs.tidegate_steer, chooser);
	bpf_program__set_autoload(skel->progs.tidegate_lookup, !chooser);
	bpf_program__set_autoload(skel->progs.tidegate_wakeup, !chooser);
	skel->rodata->listener = listener;
	*ret_step = "sharing the maps";
	int rc = bpf_maps_reuse(maps, skel->obj);
	if (!rc) {
		*ret_step = "loading the program";
		rc = steer_bpf__load(skel);
	}
	if (rc) {
		steer_bpf__destroy(skel);
		return rc;
	}
	*ret = skel;
	return 0;
}

int bpf_steer_load(const struct bpf_maps *maps, struct bpf_steer **ret, const char **ret_step)
{
	struct bpf_steer *s = calloc(1, sizeof(*s));

	if (!s)
		return fail(ret_step, "memory", -ENOMEM);
	s->maps = maps;
	s->lookup_fd = -1;
	s->wakeup_fd = -1;
	int rc = load_part(maps, false, 0, &s->skel, ret_step);
	if (!rc) {
		s->wakeup_fd = bpf_raw_tracepoint_open(
			NULL, bpf_program__fd(s->skel->progs.tidegate_wakeup));
		if (s->wakeup_fd < 0)
			rc = fail(ret_step, "attaching to sched_wakeup", -errno);
	}
	if (rc) {
		bpf_steer_close(s);
		return rc;
	}
	*ret = s;
	return 0;
}

void bpf_steer_close(struct bpf_steer *s)
{
	if (!s)
		return;
	if (s->lookup_fd >= 0)
		close(s->lookup_fd);
	if (s->wakeup_fd >= 0)
		close(s->wakeup_fd);
	steer_bpf__destroy(s->skel);
	free(s);
}

/* ---- listeners ---- */

static int put_sockets(const struct bpf_steer *s, const struct bpf_steer_group *g)
{
	const struct tg_settings layout = {.workers = g->workers, .rings = g->rings};
	int fd = bpf_maps_fd(s->maps, BPF_MAP_listeners);

	for (unsigned i = 0; i < g->n; i++) {
		uint32_t index =
			tg_listener_index(&layout, g->listener, i / g->rings, i % g->rings);
		uint64_t value = (uint64_t)g->fds[i];
		if (g->fds[i] >= 0 && bpf_map_update_elem(fd, &index, &value, BPF_ANY))
			return -errno;
	}
	return 0;
}

static int attach_chooser(
	const struct bpf_steer *s, const struct bpf_steer_group *g, int fd, const char **ret_step)
{
	struct steer_bpf *skel;
	int rc = load_part(s->maps, true, g->listener, &skel, ret_step);

	if (rc)
		return rc;
	int prog = bpf_program__fd(skel->progs.tidegate_steer);
	/* The group of sockets holds the program from here on. */
	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, &prog, sizeof(prog)))
		rc = fail(ret_step, "SO_ATTACH_REUSEPORT_EBPF", -errno);
	steer_bpf__destroy(skel);
	return rc;
}

int bpf_steer_add(struct bpf_steer *s, const struct bpf_steer_group *g, const char **ret_step)
{
	unsigned sockets = 0;
	int any = -1;

	if (!g->workers || !g->rings || g->n != g->workers * g->rings)
		return fail(ret_step, "the number of sockets", -EINVAL);
	if ((uint64_t)(g->listener + 1) * g->n > bpf_maps_entries(s->maps, BPF_MAP_listeners))
		return fail(ret_step, "the size of the map listeners", -E2BIG);
	for (unsigned i = 0; i < g->n; i++) {
		if (g->fds[i] >= 0) {
			any = g->fds[i];
			sockets++;
		}
	}
	int rc = put_sockets(s, g);
	if (rc)
		return fail(ret_step, "putting a socket into listeners", rc);
	return sockets > 1 ? attach_chooser(s, g, any, ret_step) : 0;
}

int bpf_steer_remove(struct bpf_steer *s, const struct tg_settings *settings, uint32_t listener,
	uint32_t worker, uint32_t ring)
{
	uint32_t index = tg_listener_index(settings, listener, worker, ring);

	return bpf_map_delete_elem(bpf_maps_fd(s->maps, BPF_MAP_listeners), &index) ? -errno : 0;
}

/* ---- port ranges and prefixes ---- */

static bool redirect_valid(const struct bpf_redirect *r)
{
	if (!r->port || r->port_last < r->port || r->bits > 128)
		return false;
	for (unsigned bit = r->bits; bit < 128; bit++)
		if (r->addr[bit / 8] & 0x80 >> bit % 8)
			return false;
	return true;
}

int bpf_redirects_write(const struct bpf_maps *m, const struct bpf_redirect *list, unsigned n,
	struct tg_settings *settings)
{
	if (n > TG_REDIRECTS_MAX)
		return -E2BIG;
	for (unsigned i = 0; i < n; i++)
		if (!redirect_valid(&list[i]))
			return -EINVAL;
	for (uint32_t i = 0; i < n; i++) {
		struct tg_redirect r = {.port = list[i].port,
			.port_last = list[i].port_last,
			.bits = list[i].bits,
			.listener = list[i].listener};
		memcpy(r.addr, list[i].addr, sizeof(r.addr));
		if (bpf_map_update_elem(bpf_maps_fd(m, BPF_MAP_redirects), &i, &r, BPF_ANY))
			return -errno;
	}
	uint32_t before = settings->redirects;
	settings->redirects = n;
	int rc = bpf_settings_write(bpf_maps_fd(m, BPF_MAP_settings), settings);
	if (rc)
		settings->redirects = before;
	return rc;
}

int bpf_steer_attach_lookup(struct bpf_steer *s, int netns_fd, const char **ret_step)
{
	int fd = netns_fd;

	if (s->lookup_fd >= 0)
		return fail(ret_step, "attaching sk_lookup", -EBUSY);
	if (fd < 0)
		fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return fail(ret_step, "/proc/self/ns/net", -errno);
	int link = bpf_link_create(bpf_steer_lookup_fd(s), fd, BPF_SK_LOOKUP, NULL);
	int rc = link < 0 ? fail(ret_step, "attaching sk_lookup", -errno) : 0;
	if (fd != netns_fd)
		close(fd);
	if (!rc)
		s->lookup_fd = link;
	return rc;
}

int bpf_steer_lookup_fd(const struct bpf_steer *s)
{
	return bpf_program__fd(s->skel->progs.tidegate_lookup);
}
