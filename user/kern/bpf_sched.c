#include "kern/bpf_sched.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "bpf/sched.skel.h"

_Static_assert(sizeof(struct hist) == sizeof(struct tg_hist), "one layout");
_Static_assert((int)TG_HIST_BUCKETS == (int)HIST_BUCKETS, "one layout");

struct bpf_sched {
	struct sched_bpf *skel;
};

static int fail(const char **ret_step, const char *step, int rc)
{
	*ret_step = step;
	return rc;
}

static int load(struct bpf_sched *s, const struct bpf_maps *maps, const char **ret_step)
{
	s->skel = sched_bpf__open();
	if (!s->skel)
		return fail(ret_step, "opening the program", -errno);
	int rc = bpf_maps_reuse(maps, s->skel->obj);
	if (rc)
		return fail(ret_step, "sharing the maps", rc);
	rc = sched_bpf__load(s->skel);
	if (rc)
		return fail(ret_step, "loading the program", rc);
	rc = sched_bpf__attach(s->skel);
	return rc ? fail(ret_step, "attaching to the tracepoints", rc) : 0;
}

int bpf_sched_open(const struct bpf_maps *maps, struct bpf_sched **ret, const char **ret_step)
{
	struct bpf_sched *s = calloc(1, sizeof(*s));

	if (!s)
		return fail(ret_step, "memory", -ENOMEM);
	int rc = load(s, maps, ret_step);
	if (rc) {
		bpf_sched_close(s);
		return rc;
	}
	*ret = s;
	return 0;
}

void bpf_sched_close(struct bpf_sched *s)
{
	if (!s)
		return;
	sched_bpf__destroy(s->skel);
	free(s);
}

int bpf_sched_storage(const struct bpf_sched *s)
{
	return bpf_map__fd(s->skel->maps.sched_ready);
}

int bpf_sched_switch(int sched_fd, const struct bpf_sched_opts *o, uint64_t now_ns)
{
	struct tg_sched to = {.run = o->run, .since_ns = now_ns};
	uint32_t zero = 0;

	if (!(o->percent >= 0 && o->percent <= 100))
		return -EINVAL;
	to.share = (uint32_t)(o->percent * TG_SCHED_SHARE_ALL / 100);
	if (!to.share && o->percent > 0)
		to.share = 1;
	return bpf_map_update_elem(sched_fd, &zero, &to, BPF_ANY) ? -errno : 0;
}

int bpf_sched_read(int delays_fd, unsigned worker, struct bpf_sched_delays *ret)
{
	struct tg_delays d;
	uint32_t key = worker;

	if (bpf_map_lookup_elem(delays_fd, &key, &d))
		return -errno;
	memcpy(&ret->wake, &d.wake, sizeof(ret->wake));
	memcpy(&ret->run, &d.run, sizeof(ret->run));
	if (!ret->wake.count)
		ret->wake.min = UINT64_MAX;
	if (!ret->run.count)
		ret->run.min = UINT64_MAX;
	return 0;
}
