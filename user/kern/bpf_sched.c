#include "kern/bpf_sched.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "bpf/sched.skel.h"

_Static_assert(sizeof(struct hist) == sizeof(struct tg_hist), "one layout");
_Static_assert((int)TG_HIST_BUCKETS == (int)HIST_BUCKETS, "one layout");

#define SET(field, value) __atomic_store_n(&(field), (value), __ATOMIC_RELAXED)
#define GET(field)        __atomic_load_n(&(field), __ATOMIC_RELAXED)

enum {
	LEAST_SOCKETS = 64,
};

struct bpf_sched {
	const struct bpf_maps *maps;
	struct tg_sched *to;
	struct sched_bpf *skel;       /* NULL: not loaded */
	struct bpf_link *ready, *run; /* NULL: not attached */
};

static int fail(const char **ret_step, const char *step, int rc)
{
	*ret_step = step;
	return rc;
}

/* ---- loading and attaching ---- */

static int load(struct bpf_sched *s, const char **ret_step)
{
	if (s->skel)
		return 0;
	struct sched_bpf *skel = sched_bpf__open();
	if (!skel)
		return fail(ret_step, "opening the program", -errno);
	*ret_step = "sharing the maps";
	int rc = bpf_maps_reuse(s->maps, skel->obj);
	if (!rc) {
		*ret_step = "loading the program";
		rc = sched_bpf__load(skel);
	}
	if (rc)
		sched_bpf__destroy(skel);
	else
		s->skel = skel;
	return rc;
}

static void detach(struct bpf_link **link)
{
	bpf_link__destroy(*link);
	*link = NULL;
}

static int attach(struct bpf_link **link, const struct bpf_program *prog)
{
	if (*link)
		return 0;
	struct bpf_link *l = bpf_program__attach(prog);
	if (!l)
		return -errno;
	*link = l;
	return 0;
}

static void detach_all(struct bpf_sched *s)
{
	detach(&s->ready);
	detach(&s->run);
}

static int attach_wanted(struct bpf_sched *s, bool wake, bool run, const char **ret_step)
{
	int rc = wake || run ? load(s, ret_step) : 0;

	if (rc)
		return rc;
	if (wake)
		rc = attach(&s->ready, s->skel->progs.tidegate_ready);
	else
		detach(&s->ready);
	if (rc)
		return fail(ret_step, "attaching to sk_data_ready", rc);
	if (run)
		rc = attach(&s->run, s->skel->progs.tidegate_switch);
	else
		detach(&s->run);
	return rc ? fail(ret_step, "attaching to sched_switch", rc) : 0;
}

int bpf_sched_create(const struct bpf_maps *maps, struct bpf_sched **ret)
{
	struct bpf_sched *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->maps = maps;
	int rc = bpf_sched_map(bpf_maps_fd(maps, BPF_MAP_sched), &s->to);
	/* A former start's goes on, for the connections there may be of it. */
	if (!rc && !s->to->seed && getrandom(&s->to->seed, sizeof(s->to->seed), 0) < 0)
		rc = -errno;
	if (rc) {
		bpf_sched_unmap(s->to);
		free(s);
		return rc;
	}
	*ret = s;
	return 0;
}

static void write_switches(struct tg_sched *to, uint32_t share, bool run, uint64_t now_ns)
{
	SET(to->share, 0);
	SET(to->since_ns, now_ns);
	SET(to->run, run);
	SET(to->least_share, share);
	__atomic_store_n(&to->share, share, __ATOMIC_RELEASE);
	__atomic_store_n(&to->switches, to->switches + 1, __ATOMIC_RELEASE);
}

void bpf_sched_destroy(struct bpf_sched *s)
{
	if (!s)
		return;
	write_switches(s->to, 0, false, 0);
	detach_all(s);
	sched_bpf__destroy(s->skel);
	bpf_sched_unmap(s->to);
	free(s);
}

int bpf_sched_switch(
	struct bpf_sched *s, const struct bpf_sched_opts *o, uint64_t now_ns, const char **ret_step)
{
	if (!(o->percent >= 0 && o->percent <= 100))
		return fail(ret_step, "the share", -EINVAL);
	uint32_t share = (uint32_t)(o->percent * TG_SCHED_SHARE_ALL / 100);
	if (!share && o->percent > 0)
		share = 1;
	int rc = attach_wanted(s, share, o->run, ret_step);
	if (rc)
		detach_all(s);
	write_switches(s->to, rc ? 0 : share, !rc && o->run, now_ns);
	return rc;
}

void bpf_sched_forget(struct bpf_sched *s)
{
	SET(s->to->tgid, 0);
	for (unsigned i = 0; i < TG_WORKERS_MAX; i++)
		SET(s->to->tid[i], 0);
}

/* ---- what the gateway does with the maps ---- */

int bpf_sched_map(int sched_fd, struct tg_sched **ret)
{
	void *p;
	int rc = bpf_maps_mmap(sched_fd, sizeof(**ret), true, &p);

	if (!rc)
		*ret = p;
	return rc;
}

void bpf_sched_unmap(struct tg_sched *s)
{
	bpf_maps_munmap(s, sizeof(*s));
}

void bpf_sched_worker_begin(struct tg_sched *s, unsigned worker)
{
	SET(s->tid[worker], (uint32_t)gettid());
	SET(s->tgid, (uint32_t)getpid());
}

void bpf_sched_worker_end(struct tg_sched *s, unsigned worker)
{
	SET(s->tid[worker], 0);
}

void bpf_sched_adapt(struct tg_sched *s, uint64_t connections, uint64_t now_ns)
{
	uint32_t least = GET(s->least_share), share = TG_SCHED_SHARE_ALL;

	if (!least)
		return;
	/* By halves: a change is to be rare. */
	while (share > least &&
		share / 2 * connections >= (uint64_t)TG_SCHED_SHARE_ALL * LEAST_SOCKETS)
		share /= 2;
	if (share < least)
		share = least;
	if (share == GET(s->share))
		return;
	/* Whoever is no longer sampled frees no place: what stands there now must not be found when
	 * it is sampled again. */
	SET(s->since_ns, now_ns);
	SET(s->share, share);
}

double bpf_sched_share(const struct tg_sched *s)
{
	return GET(s->least_share) ? (double)GET(s->share) / TG_SCHED_SHARE_ALL : 0;
}

int bpf_sched_read(int delays_fd, unsigned worker, struct hist *ret_cpu_wait)
{
	struct tg_delays d;
	uint32_t key = worker;

	if (bpf_map_lookup_elem(delays_fd, &key, &d))
		return -errno;
	memcpy(ret_cpu_wait, &d.run, sizeof(*ret_cpu_wait));
	if (!ret_cpu_wait->count)
		ret_cpu_wait->min = UINT64_MAX;
	return 0;
}

int bpf_sched_map_ready(int ready_fd, struct tg_ready **ret)
{
	void *p;
	int rc = bpf_maps_mmap(ready_fd, TG_READY_PLACES * sizeof(**ret), true, &p);

	if (!rc)
		*ret = p;
	return rc;
}

void bpf_sched_unmap_ready(struct tg_ready *r)
{
	bpf_maps_munmap(r, TG_READY_PLACES * sizeof(*r));
}
