/* A worker's subscriptions, and what it tells their homes. */
#include "app/exchange_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	LATE_PER_TURN = 256,
};

static void pin(struct topic *t)
{
	t->pins++;
}

static void unpin(struct exchange *ex, struct topic *t)
{
	t->pins--;
	exchange_topic_release(ex, t);
}

/* While the home has something to take back, the topic must stay to say so. */
void exchange_topic_release(struct exchange *ex, struct topic *t)
{
	struct exchange_topic *x = exchange_topic(t);

	if (!x->told && !x->waiters)
		topic_release(&ex->index, t);
}

static struct conn *conn_of(struct exchange *ex, const struct exchange_asker *a)
{
	struct conn *c = ring_object(ex->w->ring[a->ring], a->slot);

	/* Ids are never used again. */
	return c->state == CONN_OPEN && c->session == a->session ? c : NULL;
}

static void release_waiters(struct exchange *ex, struct exchange_topic *x)
{
	struct exchange_waiter *wt;

	while ((wt = x->waiters)) {
		struct conn *c = conn_of(ex, &wt->asker);

		x->waiters = wt->next;
		if (c)
			ex->opts.ops->confirmed(c, (struct hub_str){wt->id, wt->id_len});
		free(wt);
	}
}

static void tell_late(struct exchange *ex, struct topic *t)
{
	struct exchange_topic *x = exchange_topic(t);

	if (x->late)
		return;
	x->late = true;
	pin(t);
	x->late_next = NULL;
	*ex->late_tail = t;
	ex->late_tail = &x->late_next;
	if (ex->late_armed)
		return;
	ex->late_armed = true;
	job_run_in(ex->w, &ex->late_job, EXCHANGE_INTEREST_MS);
}

static void tell(struct exchange *ex, struct topic *t)
{
	struct exchange_topic *x = exchange_topic(t);
	struct exchange_msg *m =
		exchange_msg_new(EXCHANGE_INTEREST, ex->self, t->name, t->len, NULL, 0);

	if (!m) {
		tell_late(ex, t);
		return;
	}
	m->interest.topic = t;
	m->interest.count = t->count;
	x->told = t->count;
	x->asking = true;
	pin(t); /* the CONFIRM points to it */
	exchange_control(ex, exchange_home_of(ex, t->name, t->len), m);
}

/* The number of those who hear it has changed, or the home has heard the last one. The topic is
 * pinned. */
static void tell_change(struct exchange *ex, struct topic *t)
{
	struct exchange_topic *x = exchange_topic(t);

	if (x->asking)
		return;
	if (t->count == x->told) {
		/* Whoever still waits has unsubscribed before the home was even asked. */
		if (!t->count)
			release_waiters(ex, x);
		return;
	}
	if (!t->count || !x->told)
		tell(ex, t);
	else
		tell_late(ex, t);
}

void exchange_tell_now(struct exchange *ex, const char *topic, size_t len)
{
	struct topic *t = topic_find(&ex->index, topic, len);

	if (t && exchange_topic(t)->late && !exchange_topic(t)->asking &&
		t->count != exchange_topic(t)->told)
		tell(ex, t);
}

void exchange_on_confirm(struct exchange *ex, struct exchange_msg *m)
{
	struct topic *t = m->interest.topic;
	struct exchange_topic *x = exchange_topic(t);
	bool failed = m->interest.count != x->told;

	x->asking = false;
	x->confirmed = m->interest.count;
	if (failed) {
		/* The home had no memory for it. */
		x->told = x->confirmed;
		tell_late(ex, t);
	}
	/* An answer may end its session, and with it more than one subscription. */
	if (x->confirmed)
		release_waiters(ex, x);
	if (!failed)
		tell_change(ex, t);
	unpin(ex, t);
	free(m);
}

static void late(struct worker *w, struct job *j)
{
	struct exchange *ex = (struct exchange *)((char *)j - offsetof(struct exchange, late_job));

	ex->late_armed = false;
	for (unsigned i = 0; ex->late && i < LATE_PER_TURN; i++) {
		struct topic *t = ex->late;
		struct exchange_topic *x = exchange_topic(t);

		ex->late = x->late_next;
		if (!ex->late)
			ex->late_tail = &ex->late;
		x->late = false;
		if (!x->asking && t->count != x->told)
			tell(ex, t);
		else
			tell_change(ex, t);
		unpin(ex, t);
	}
	if (ex->late && !ex->late_armed) {
		ex->late_armed = true;
		job_run(w, j, RUNQ_CONTROL);
	}
}

/* -------------------------------------------------------------------------------- clients */

/* False: without memory for it. */
static bool wait_for(struct exchange_topic *x, const struct conn *c, struct hub_str id)
{
	struct exchange_waiter *wt = malloc(sizeof *wt + id.len);

	if (!wt)
		return false;
	*wt = (struct exchange_waiter){
		.asker = {c->session, conn_slot(c), c->ring}, .id_len = (uint32_t)id.len};
	memcpy(wt->id, id.data, id.len);
	if (x->waiters)
		x->waiters_tail->next = wt;
	else
		x->waiters = wt;
	x->waiters_tail = wt;
	return true;
}

int exchange_subscribe(struct exchange *ex, struct exchange_client *who, const char *topic,
	size_t len, struct hub_str id)
{
	struct topic *t = topic_get(&ex->index, topic, len);
	struct exchange_topic *x;
	bool heard;
	int err;

	if (!t)
		return -ENOMEM;
	x = exchange_topic(t);
	pin(t);
	err = topic_subscribe(&ex->index, t, &who->topics, ex->serial);
	if (err == -ENOMEM) {
		unpin(ex, t);
		return err;
	}
	exchange_stats(ex)->subscriptions = ex->index.count;
	tell_change(ex, t);
	heard = x->told && x->confirmed;
	if (!heard && id.len && !wait_for(x, who->conn, id)) {
		/* A home that answers at once has confirmed it, so this one is undone. */
		if (!err)
			topic_unsubscribe(&ex->index, t, &who->topics);
		err = -ENOMEM;
		tell_change(ex, t);
	}
	unpin(ex, t);
	if (err == -ENOMEM)
		return err;
	return heard ? err : -EINPROGRESS;
}

bool exchange_unsubscribe(
	struct exchange *ex, struct exchange_client *who, const char *topic, size_t len)
{
	struct topic *t = topic_find(&ex->index, topic, len);
	bool was;

	if (!t)
		return false;
	pin(t);
	was = topic_unsubscribe(&ex->index, t, &who->topics);
	exchange_stats(ex)->subscriptions = ex->index.count;
	tell_change(ex, t);
	unpin(ex, t);
	return was;
}

bool exchange_hears(struct exchange *ex, struct exchange_client *who, const char *topic, size_t len)
{
	const struct topic *t = topic_find(&ex->index, topic, len);

	return t && topic_subscribed(&ex->index, t, &who->topics);
}

void exchange_leave(struct exchange *ex, struct exchange_client *who)
{
	struct topic *t;

	while ((t = topic_leave_one(&ex->index, &who->topics))) {
		tell_change(ex, t);
		unpin(ex, t);
	}
	exchange_stats(ex)->subscriptions = ex->index.count;
}

void exchange_on_answer(struct exchange *ex, struct exchange_msg *m)
{
	struct conn *c = conn_of(ex, &m->ask.asker);

	if (c)
		ex->opts.ops->counted(c, m->topic, m->topic_len, m->ask.count,
			(struct hub_str){exchange_data(m), m->len});
	free(m);
}

void exchange_interest_init(struct exchange *ex)
{
	ex->late_tail = &ex->late;
	job_init(&ex->late_job, late);
}

static void forget_waiters(struct hashtab_node *n, void *ctx)
{
	struct exchange_topic *x =
		exchange_topic((struct topic *)((char *)n - offsetof(struct topic, by_name)));
	struct exchange_waiter *wt;

	(void)ctx;
	while ((wt = x->waiters)) {
		x->waiters = wt->next;
		free(wt);
	}
}

void exchange_interest_fini(struct exchange *ex)
{
	uint64_t cursor = 0;

	job_cancel(ex->w, &ex->late_job);
	hashtab_walk(&ex->index.topics, &cursor, UINT32_MAX, forget_waiters, NULL);
}
