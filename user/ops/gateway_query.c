/* Questions from admin threads: each worker walks its connections in small steps of its own time,
 * and the last one to finish wakes the asker, who waits at most two seconds. Whoever is last to let
 * go of a query frees it. */
#include "ops/gateway_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "net/link.h"
#include "ops/admin_query.h"

enum {
	STEP_SLOTS = 2048,
	TIMEOUT_S = 2,
};

enum query_kind {
	QUERY_CONNS,
	QUERY_KICK,
	QUERY_LINKS,
};

/* One worker's part. */
struct query_task {
	struct query *q;
	struct query_task *next;
	uint64_t cursor;
	void *items; /* struct conn_info or struct link_info */
	size_t n, room, matched;
	bool failed;
};

struct query {
	enum query_kind kind;
	struct conns_query which;
	struct in6_addr peer;
	uint16_t code;
	char reason[124];
	pthread_mutex_t lock;
	pthread_cond_t done;
	unsigned pending, refs, n_tasks;
	struct query_task task[];
};

static void query_put(struct query *q)
{
	bool last;

	pthread_mutex_lock(&q->lock);
	last = --q->refs == 0;
	pthread_mutex_unlock(&q->lock);
	if (!last)
		return;
	for (unsigned i = 0; i < q->n_tasks; i++)
		free(q->task[i].items);
	pthread_cond_destroy(&q->done);
	pthread_mutex_destroy(&q->lock);
	free(q);
}

static void task_done(struct query_task *t)
{
	struct query *q = t->q;

	pthread_mutex_lock(&q->lock);
	if (--q->pending == 0)
		pthread_cond_signal(&q->done);
	pthread_mutex_unlock(&q->lock);
	query_put(q);
}

/* Room for one more item, or NULL. */
static void *task_item(struct query_task *t, size_t bytes)
{
	if (t->n == t->room) {
		size_t room = t->room ? 2 * t->room : 64;
		void *items = realloc(t->items, room * bytes);

		if (!items) {
			t->failed = true;
			return NULL;
		}
		t->items = items;
		t->room = room;
	}
	return (uint8_t *)t->items + t->n++ * bytes;
}

static bool matches(const struct query *q, const struct conn_info *i)
{
	if (q->which.session && q->which.session != i->session)
		return false;
	if (q->which.route[0] && strcmp(q->which.route, i->route))
		return false;
	if (q->which.listener[0] && strcmp(q->which.listener, i->listener))
		return false;
	if (q->which.slow && !i->blocked_ms && i->queued_bytes <= CONN_OUT_LOW_BYTES)
		return false;
	return !q->which.peer[0] || !memcmp(&q->peer, &i->peer.sin6_addr, sizeof q->peer);
}

static void visit(struct conn *c, void *ctx)
{
	struct query_task *t = ctx;
	struct conn_info info, *item;

	conn_describe(c, &info);
	if (c->state == CONN_DEAD || !matches(t->q, &info))
		return;
	if (t->q->kind == QUERY_KICK) {
		if (c->state == CONN_OPEN) {
			t->matched++;
			conn_close(c, t->q->code, t->q->reason, CLOSE_KICKED);
		}
		return;
	}
	t->matched++;
	/* Which are the greatest is known when all have been seen. */
	if (t->n < (t->q->which.slow ? ADMIN_CONNS_LIMIT_MAX : t->q->which.limit) &&
		(item = task_item(t, sizeof info)))
		*item = info;
}

static void add_link(const struct link_info *info, void *ctx)
{
	struct link_info *item = task_item(ctx, sizeof *info);

	if (item)
		*item = *info;
}

static void step(struct worker *w, struct job *j)
{
	struct gateway_worker *gw =
		(struct gateway_worker *)((char *)j - offsetof(struct gateway_worker, query_job));
	struct query_task *t = gw->queries;
	bool more = false;

	if (!t)
		return;
	if (t->q->kind == QUERY_LINKS) {
		for (size_t i = 0; i < gw->n_upstreams; i++)
			upstream_link_describe(gw->upstreams[i], add_link, t);
	} else {
		more = conn_walk(&gw->net, &t->cursor, STEP_SLOTS, visit, t);
	}
	if (!more) {
		gw->queries = t->next;
		task_done(t);
	}
	if (gw->queries)
		job_run(w, j, RUNQ_CONTROL);
}

void gateway_query_init(struct gateway_worker *gw)
{
	job_init(&gw->query_job, step);
	gw->queries = NULL;
}

void gateway_query_mail(struct gateway_worker *gw, struct query *q)
{
	struct query_task *t = &q->task[gw->w->id], **at = &gw->queries;

	while (*at)
		at = &(*at)->next;
	*at = t;
	job_run(gw->w, &gw->query_job, RUNQ_CONTROL);
}

void gateway_query_stop(struct gateway_worker *gw)
{
	struct query_task *t;

	job_cancel(gw->w, &gw->query_job);
	while ((t = gw->queries)) {
		gw->queries = t->next;
		t->failed = true;
		task_done(t);
	}
}

static int query_create(const struct gateway *g, enum query_kind kind, struct query **ret)
{
	struct query *q = calloc(1, sizeof *q + g->n_workers * sizeof *q->task);
	pthread_condattr_t attr;

	if (!q)
		return -ENOMEM;
	q->kind = kind;
	q->n_tasks = g->n_workers;
	q->pending = g->n_workers;
	q->refs = g->n_workers + 1;
	for (unsigned i = 0; i < g->n_workers; i++)
		q->task[i].q = q;
	pthread_mutex_init(&q->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&q->done, &attr);
	pthread_condattr_destroy(&attr);
	*ret = q;
	return 0;
}

static int set_which(struct query *q, const struct conns_query *which)
{
	struct in_addr v4;

	q->which = *which;
	if (!which->peer[0])
		return 0;
	if (inet_pton(AF_INET, which->peer, &v4) == 1) {
		memset(&q->peer, 0, 10);
		memset((uint8_t *)&q->peer + 10, 0xff, 2);
		memcpy((uint8_t *)&q->peer + 12, &v4, 4);
		return 0;
	}
	return inet_pton(AF_INET6, which->peer, &q->peer) == 1 ? 0 : -EINVAL;
}

/* Asks all workers and waits: 0, or -ETIMEDOUT. The caller still holds its reference. */
static int ask(struct gateway *g, struct query *q)
{
	struct timespec until, nap = {0, 1000000};
	int err = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += TIMEOUT_S;
	for (unsigned i = 0; i < g->n_workers; i++) {
		struct mailbox_msg msg = {.kind = MAIL_QUERY, .ptr = q};

		while ((err = worker_post(g->workers[i].w, &msg, NULL)) &&
			worker_clock_ns() / 1000000000 < (uint64_t)until.tv_sec)
			nanosleep(&nap, NULL);
		if (err) {
			/* Its part will never be looked at: let go of it in its place. */
			q->task[i].failed = true;
			task_done(&q->task[i]);
		}
	}
	pthread_mutex_lock(&q->lock);
	err = 0;
	while (q->pending && err != ETIMEDOUT)
		err = pthread_cond_timedwait(&q->done, &q->lock, &until);
	err = q->pending ? -ETIMEDOUT : 0;
	pthread_mutex_unlock(&q->lock);
	for (unsigned i = 0; !err && i < g->n_workers; i++)
		if (q->task[i].failed)
			err = -ENOMEM;
	return err;
}

static int by_backlog(const void *a, const void *b)
{
	const struct conn_info *x = a, *y = b;

	return (x->queued_bytes < y->queued_bytes) - (x->queued_bytes > y->queued_bytes);
}

/* Puts the workers' items into one array. */
static int collect(struct query *q, size_t bytes, size_t limit, void **ret, size_t *ret_n)
{
	size_t n = 0;
	uint8_t *all;

	for (unsigned i = 0; i < q->n_tasks; i++)
		n += q->task[i].n;
	all = malloc(n ? n * bytes : 1);
	if (!all)
		return -ENOMEM;
	n = 0;
	for (unsigned i = 0; i < q->n_tasks; i++) {
		size_t take = q->task[i].n;

		if (n + take > limit)
			take = limit - n;
		if (take)
			memcpy(all + n * bytes, q->task[i].items, take * bytes);
		n += take;
	}
	if (q->kind == QUERY_CONNS && q->which.slow) {
		qsort(all, n, bytes, by_backlog);
		n = n < q->which.limit ? n : q->which.limit;
	}
	*ret = all;
	*ret_n = n;
	return 0;
}

static size_t matched(const struct query *q)
{
	size_t n = 0;

	for (unsigned i = 0; i < q->n_tasks; i++)
		n += q->task[i].matched;
	return n;
}

int gateway_conns(void *ctx, const struct conns_query *which, struct conn_info **ret, size_t *ret_n,
	size_t *ret_matched)
{
	struct gateway *g = ctx;
	struct query *q;
	void *items;
	int err = query_create(g, QUERY_CONNS, &q);

	if (err)
		return err;
	err = set_which(q, which);
	if (err) {
		q->refs = 1;
		query_put(q);
		return err;
	}
	err = ask(g, q);
	if (!err)
		err = collect(
			q, sizeof **ret, which->slow ? SIZE_MAX : which->limit, &items, ret_n);
	if (!err) {
		*ret = items;
		*ret_matched = matched(q);
	}
	query_put(q);
	return err;
}

int gateway_kick(void *ctx, const struct kick_query *k, size_t *ret_kicked)
{
	struct gateway *g = ctx;
	struct query *q;
	int err = query_create(g, QUERY_KICK, &q);

	if (err)
		return err;
	err = set_which(q, &k->which);
	if (err) {
		q->refs = 1;
		query_put(q);
		return err;
	}
	q->code = k->code;
	memcpy(q->reason, k->reason, sizeof q->reason);
	err = ask(g, q);
	if (!err)
		*ret_kicked = matched(q);
	query_put(q);
	return err;
}

int gateway_links(void *ctx, struct link_info **ret, size_t *ret_n)
{
	struct gateway *g = ctx;
	struct query *q;
	void *items;
	int err = query_create(g, QUERY_LINKS, &q);

	if (err)
		return err;
	err = ask(g, q);
	if (!err)
		err = collect(q, sizeof **ret, SIZE_MAX, &items, ret_n);
	if (!err)
		*ret = items;
	query_put(q);
	return err;
}
