#include "ops/live.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "ops/live_sample.h"

#define MS_NS UINT64_C(1000000)

enum {
	INTERVAL_MS = 1000,
	FIRST_MS = 250,        /* the first interval after a pause: somebody waits for it */
	LINGER_MS = 5000,      /* after the last live_get */
	GET_TIMEOUT_MS = 3000, /* of a live_get: a hanging worker keeps the links waiting for two */
	LINKS_PAUSE_MS = 10000, /* after a worker that did not answer: it would hold up the rest */
};

struct live {
	struct live_opts opts;
	pthread_t thread;

	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t moved; /* any of it has changed */
	bool stop;
	unsigned watchers;
	uint64_t wanted_until_ns;
	struct live_snapshot *latest; /* NULL while asleep */

	/* The thread's own. */
	struct live_sample sample[2];
	uint64_t seq;
	struct link_info *links;
	size_t n_links;
	const char *links_error;
	uint64_t links_pause_until_ns;
};

/* ---- snapshots ---- */

struct live_snapshot *live_snapshot_ref(struct live_snapshot *s)
{
	__atomic_add_fetch(&s->refs, 1, __ATOMIC_RELAXED);
	return s;
}

void live_snapshot_put(struct live_snapshot *s)
{
	if (s && !__atomic_sub_fetch(&s->refs, 1, __ATOMIC_ACQ_REL))
		free(s);
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* NULL without memory. */
static struct live_snapshot *make_snapshot(
	struct live *l, const struct live_sample *before, const struct live_sample *now)
{
	struct live_about about = {
		.instance = l->opts.instance,
		.version = l->opts.version,
		.seq = l->seq + 1,
		.unix_s = (double)clock_ns(CLOCK_REALTIME) / 1e9,
		.uptime_s = (double)(now->now_ns - l->opts.started_ns) / 1e9,
		.links = l->links,
		.n_links = l->n_links,
		.links_error = l->links_error,
	};
	json_t *j = live_json(&about, before, now);
	size_t len = j ? json_dumpb(j, NULL, 0, JSON_COMPACT | JSON_REAL_PRECISION(15)) : 0;
	struct live_snapshot *s = len ? malloc(sizeof *s + len + 1) : NULL;

	if (s) {
		s->refs = 1;
		s->seq = ++l->seq;
		s->len = len;
		json_dumpb(j, s->json, len, JSON_COMPACT | JSON_REAL_PRECISION(15));
		s->json[len] = '\0';
	}
	json_decref(j);
	return s;
}

/* ---- the thread ---- */

static bool wanted(const struct live *l, uint64_t now_ns)
{
	return l->watchers || now_ns < l->wanted_until_ns;
}

/* True: until_ns has come; false: nobody looks any more, or the end. With the lock held. */
static bool sleep_until(struct live *l, uint64_t until_ns)
{
	struct timespec ts = {(time_t)(until_ns / 1000000000), (long)(until_ns % 1000000000)};

	for (;;) {
		uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);

		if (l->stop || !wanted(l, now_ns))
			return false;
		if (now_ns >= until_ns)
			return true;
		pthread_cond_timedwait(&l->moved, &l->lock, &ts);
	}
}

static void publish(struct live *l, struct live_snapshot *s)
{
	struct live_snapshot *old;

	pthread_mutex_lock(&l->lock);
	old = l->latest;
	l->latest = s;
	pthread_cond_broadcast(&l->moved);
	pthread_mutex_unlock(&l->lock);
	live_snapshot_put(old);
	if (s && l->opts.notify)
		l->opts.notify(l->opts.ctx, s);
}

/* After the snapshot of the tick, since it may take two seconds: the next one shows them. */
static void take_links(struct live *l)
{
	const struct admin_backend *b = l->opts.backend;
	uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
	struct link_info *links = NULL;
	size_t n = 0;
	int err;

	if (now_ns < l->links_pause_until_ns)
		return;
	err = b->links(b->ctx, &links, &n);
	free(l->links);
	l->links = links;
	l->n_links = n;
	l->links_error = !err                ? NULL
			 : err == -ETIMEDOUT ? "a worker did not answer within 2 s"
					     : strerrordesc_np(-err);
	if (err == -ETIMEDOUT)
		l->links_pause_until_ns = clock_ns(CLOCK_MONOTONIC) + LINKS_PAUSE_MS * MS_NS;
}

/* From the first look to the last. */
static void run(struct live *l)
{
	struct live_sample *before = &l->sample[0], *now = &l->sample[1], *swap;
	uint64_t next_ns = clock_ns(CLOCK_MONOTONIC) + FIRST_MS * MS_NS;
	bool due;

	live_sample_take(before, l->opts.backend, l->opts.process, clock_ns(CLOCK_MONOTONIC));
	for (;;) {
		uint64_t now_ns;

		take_links(l);
		pthread_mutex_lock(&l->lock);
		due = sleep_until(l, next_ns);
		pthread_mutex_unlock(&l->lock);
		if (!due)
			break;
		now_ns = clock_ns(CLOCK_MONOTONIC);
		live_sample_take(now, l->opts.backend, l->opts.process, now_ns);
		publish(l, make_snapshot(l, before, now));
		swap = before;
		before = now;
		now = swap;
		/* Ticks that were missed are missed. */
		next_ns += INTERVAL_MS * MS_NS;
		if (next_ns <= now_ns)
			next_ns = now_ns + INTERVAL_MS * MS_NS;
	}
	publish(l, NULL);
}

static void *live_main(void *arg)
{
	struct live *l = arg;

	prctl(PR_SET_NAME, "live");
	pthread_mutex_lock(&l->lock);
	while (!l->stop) {
		if (!wanted(l, clock_ns(CLOCK_MONOTONIC))) {
			pthread_cond_wait(&l->moved, &l->lock);
			continue;
		}
		pthread_mutex_unlock(&l->lock);
		run(l);
		pthread_mutex_lock(&l->lock);
	}
	pthread_mutex_unlock(&l->lock);
	return NULL;
}

/* ---- viewers ---- */

int live_get(struct live *l, struct live_snapshot **ret)
{
	uint64_t now_ns = clock_ns(CLOCK_MONOTONIC), until_ns = now_ns + GET_TIMEOUT_MS * MS_NS;
	struct timespec ts = {(time_t)(until_ns / 1000000000), (long)(until_ns % 1000000000)};
	int err = 0;

	pthread_mutex_lock(&l->lock);
	l->wanted_until_ns = now_ns + LINGER_MS * MS_NS;
	pthread_cond_broadcast(&l->moved);
	while (!l->stop && !l->latest && err != ETIMEDOUT)
		err = pthread_cond_timedwait(&l->moved, &l->lock, &ts);
	if (l->stop)
		err = -ESHUTDOWN;
	else if (l->latest)
		err = 0;
	else
		err = -ETIMEDOUT;
	if (!err)
		*ret = live_snapshot_ref(l->latest);
	pthread_mutex_unlock(&l->lock);
	return err;
}

void live_watch(struct live *l)
{
	pthread_mutex_lock(&l->lock);
	l->watchers++;
	pthread_cond_broadcast(&l->moved);
	pthread_mutex_unlock(&l->lock);
}

void live_unwatch(struct live *l)
{
	pthread_mutex_lock(&l->lock);
	l->watchers--;
	pthread_cond_broadcast(&l->moved);
	pthread_mutex_unlock(&l->lock);
}

/* ---- life ---- */

static void free_live(struct live *l)
{
	live_sample_fini(&l->sample[0]);
	live_sample_fini(&l->sample[1]);
	live_snapshot_put(l->latest);
	free(l->links);
	pthread_cond_destroy(&l->moved);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

int live_start(const struct live_opts *opts, struct live **ret)
{
	struct live *l = calloc(1, sizeof *l);
	pthread_condattr_t attr;
	int err;

	if (!l)
		return -ENOMEM;
	l->opts = *opts;
	pthread_mutex_init(&l->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&l->moved, &attr);
	pthread_condattr_destroy(&attr);
	err = live_sample_init(&l->sample[0], opts->backend);
	if (!err)
		err = live_sample_init(&l->sample[1], opts->backend);
	if (!err)
		err = -pthread_create(&l->thread, NULL, live_main, l);
	if (err) {
		free_live(l);
		return err;
	}
	*ret = l;
	return 0;
}

void live_stop(struct live *l)
{
	if (!l)
		return;
	pthread_mutex_lock(&l->lock);
	l->stop = true;
	pthread_cond_broadcast(&l->moved);
	pthread_mutex_unlock(&l->lock);
	pthread_join(l->thread, NULL);
}

void live_destroy(struct live *l)
{
	if (l)
		free_live(l);
}
