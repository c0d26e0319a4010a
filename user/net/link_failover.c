/* Which link carries a session, and what happens when there is none or it dies. */
#include "net/link_internal.h"

#include <errno.h>

static bool available(const struct link *l)
{
	return l->state == LINK_UP && !l->draining;
}

/* Rendezvous hashing (Thaler and Ravishankar 1998): every endpoint has a weight for every key and
 * the greatest wins, so that only a dead endpoint's sessions go elsewhere, and they spread over all
 * others. */
static uint64_t weight(const struct link_session *s, const struct link *l)
{
	uint64_t both[2] = {s->hash, l->endpoint_hash};

	return link_hash(both, sizeof both);
}

static struct link *pick(
	struct link_upstream *up, const struct link_session *s, const struct link * not )
{
	unsigned n = up->opts.n_endpoints;
	struct link *best = NULL;

	for (unsigned i = 0; i < n; i++) {
		struct link *l = &up->links[(up->turn + i) % n];
		bool better;

		if (!available(l) || l == not )
			continue;
		if (up->opts.balance == LINK_HASH)
			better = !best || weight(s, l) > weight(s, best);
		else
			better = !best || l->n_sessions < best->n_sessions;
		if (better)
			best = l;
	}
	if (best)
		up->turn = (best->nth + 1) % n; /* ties are broken in turn */
	return best;
}

static void attach(struct link_upstream *up, struct link_session *s, struct link *l)
{
	s->link = l;
	s->link_epoch = l->epoch;
	s->state = SESSION_QUEUED;
	link_list_push(&l->sessions, &s->on_link);
	l->n_sessions++;
	l->pending_bytes += s->pending_bytes;
	up->buffered -= s->pending_bytes;
	link_session_ready(s);
}

void link_session_detach(struct link_upstream *up, struct link_session *s)
{
	link_list_remove(&s->on_link);
	link_list_remove(&s->on_ready);
	if (s->meta_counted) {
		s->meta_counted = false;
		up->buffered -= s->meta_len;
	}
	if (!s->link)
		return;
	up->buffered += s->pending_bytes;
	if (link_session_attached(s)) {
		s->link->n_sessions--;
		s->link->pending_bytes -= s->pending_bytes;
		if (s->link->draining)
			link_kick(s->link); /* it may have been the last */
	}
	s->link = NULL;
	if (s->state != SESSION_LEAVING)
		s->state = SESSION_WAITING;
}

bool link_place_elsewhere(
	struct link_upstream *up, struct link_session *s, const struct link * not )
{
	struct link *l = pick(up, s, not );

	if (l)
		attach(up, s, l);
	return l != NULL;
}

int link_place(struct link_upstream *up, struct link_session *s)
{
	if (link_place_elsewhere(up, s, NULL))
		return 0;
	/* A session that was open keeps its metadata anyway; what it waits with counts already. */
	s->meta_counted = !s->was_open;
	if (s->meta_counted)
		up->buffered += s->meta_len;
	link_list_push(&up->waiting, &s->on_link);
	return (s->pending_bytes || s->meta_counted) && up->buffered > up->opts.buffer_bytes
		       ? -ENOBUFS
		       : 0;
}

void link_deadline_start(struct link_upstream *up, struct link_session *s)
{
	link_list_remove(&s->on_deadline);
	s->deadline_ms = up->w->now_ms + up->opts.open_timeout_ms;
	/* All wait equally long: only the first of a list can be the next. */
	if (link_list_empty(&up->deadlines) && !up->job.run.queued)
		job_run_in(up->w, &up->job, up->opts.open_timeout_ms);
	link_list_push(&up->deadlines, &s->on_deadline);
}

void link_orphan_sessions(struct link *l)
{
	struct link_upstream *up = l->up;

	l->epoch++;
	link_list_take(&up->orphans, &l->sessions);
	link_list_take(&up->unready, &l->ready);
	l->n_sessions = 0;
	l->pending_bytes = 0;
	link_failover_kick(up);
}

void link_failover_kick(struct link_upstream *up)
{
	job_run(up->w, &up->job, RUNQ_LINKS);
}

/* The client hears that there is no service for it. */
static void give_up(struct link_session *s, const char *why)
{
	if (s->was_open)
		conn_close(s->conn, 1013, "service unavailable", CLOSE_NO_UPSTREAM);
	else
		conn_refuse(s->conn, 503, why, CLOSE_NO_UPSTREAM);
}

static unsigned pending_messages(const struct link_session *s)
{
	unsigned n = 0;

	for (const struct buf *b = s->pending; b; b = b->next)
		n++;
	return n;
}

bool link_session_rescue(struct link_upstream *up, struct link_session *s)
{
	bool was_accepted = s->state == SESSION_OPEN;

	if (!s->link || link_session_attached(s))
		return true;
	link_session_reset(up, s);
	if (s->state == SESSION_LEAVING) {
		link_stats(up)->link_messages_lost += link_session_drop_pending(up, s);
		link_session_free(up, s);
		return false;
	}
	if (s->was_open && up->opts.failover == LINK_CLOSE) {
		give_up(s, "");
		return false;
	}
	if (was_accepted)
		link_deadline_start(up, s);
	if (link_place(up, s)) {
		link_stats(up)->link_buffer_refused += pending_messages(s);
		link_session_drop_pending(up, s);
		give_up(s, "no service is up, and too many clients wait for one");
		return false;
	}
	link_session_resume(s);
	return true;
}

static bool due(const struct link_upstream *up, const struct link_session *s)
{
	return (int32_t)(up->w->now_ms - s->deadline_ms) >= 0;
}

static bool any_available(const struct link_upstream *up)
{
	for (unsigned i = 0; i < up->opts.n_endpoints; i++)
		if (available(&up->links[i]))
			return true;
	return false;
}

/* Some sessions at a time, since a link may have carried 100,000. */
static void step(struct worker *w, struct job *j)
{
	struct link_upstream *up =
		(struct link_upstream *)((char *)j - offsetof(struct link_upstream, job));
	unsigned left = LINK_JOB_SESSIONS;
	bool place = any_available(up);

	for (; left && !link_list_empty(&up->orphans); left--)
		link_session_rescue(up, LINK_SESSION_OF(up->orphans.next, on_link));
	for (; left && place && !link_list_empty(&up->waiting); left--) {
		struct link_session *s = LINK_SESSION_OF(up->waiting.next, on_link);

		link_session_detach(up, s);
		link_place(up, s);
	}
	for (; left && !link_list_empty(&up->deadlines); left--) {
		struct link_session *s = LINK_SESSION_OF(up->deadlines.next, on_deadline);

		if (!due(up, s))
			break;
		link_list_remove(&s->on_deadline);
		give_up(s, s->link ? "no service answered in time" : "no service is up");
	}
	if (!left) {
		job_run(w, j, RUNQ_LINKS);
	} else if (!link_list_empty(&up->deadlines)) {
		const struct link_session *s = LINK_SESSION_OF(up->deadlines.next, on_deadline);

		job_run_in(w, j, s->deadline_ms - w->now_ms);
	}
}

void link_failover_init(struct link_upstream *up)
{
	link_list_init(&up->waiting);
	link_list_init(&up->orphans);
	link_list_init(&up->unready);
	link_list_init(&up->deadlines);
	job_init(&up->job, step);
}
