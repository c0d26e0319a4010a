#include "net/listener.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/job.h"

enum {
	SINGLES = 32,   /* one-shot accepts in flight per listener */
	ROOM = 64,      /* free slots worth going back to a ring for */
	RETRY_MS = 100, /* after an error that another try at once would only repeat */
};

enum mode {
	PAUSED, /* no room anywhere */
	MULTI,
	SINGLE,
	SWITCHING, /* what is armed was cancelled; the next step waits for its end */
	STOPPED,
};

struct listeners {
	struct listener_opts opts;
	enum mode mode;
	unsigned ring;  /* accepts go there */
	unsigned total; /* accepts armed */
	bool backoff;
	bool no_ring; /* none could be had a moment ago */
	struct job retry;
	unsigned armed[]; /* by listener */
};

static struct listeners *listeners_of(struct net *n)
{
	return n->listeners;
}

/* Slots an accept may still take. */
static unsigned room(const struct listeners *l, const struct ring *r)
{
	unsigned reserve = r->index == 0 ? l->opts.reserve : 0;
	unsigned most = r->slots > reserve ? r->slots - reserve : 0;

	if (l->opts.most && l->opts.most < most)
		most = l->opts.most;
	return most > r->used ? most - r->used : 0;
}

/* A multishot accept stops at an empty backlog only, while more clients arrive: with fewer free
 * slots than this it could run into ENFILE. A ring that never has as many gets single accepts only.
 */
static unsigned safe_room(const struct listeners *l)
{
	return l->opts.burst + l->opts.burst / 4;
}

static void arm(struct net *n, struct listeners *l, unsigned i, bool multishot)
{
	struct io_uring_sqe *sqe = ring_sqe(n->w->ring[l->ring]);

	if (multishot)
		io_uring_prep_multishot_accept_direct(sqe, l->opts.fds[i], NULL, NULL, 0);
	else
		io_uring_prep_accept_direct(
			sqe, l->opts.fds[i], NULL, NULL, 0, IORING_FILE_INDEX_ALLOC);
	sqe->user_data = ring_ud(OP_ACCEPT, 0, (uint16_t)i, 0);
	l->armed[i]++;
	l->total++;
}

static void cancel_all(struct net *n, struct listeners *l)
{
	for (unsigned i = 0; i < l->opts.n; i++) {
		struct io_uring_sqe *sqe;

		if (!l->armed[i])
			continue;
		sqe = ring_sqe(n->w->ring[l->ring]);
		io_uring_prep_cancel64(
			sqe, ring_ud(OP_ACCEPT, 0, (uint16_t)i, 0), IORING_ASYNC_CANCEL_ALL);
		sqe->user_data = ring_ud(OP_NONE, 0, 0, 0);
		sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
	}
}

static void set_mode(struct net *n, struct listeners *l, enum mode mode, unsigned ring)
{
	l->mode = mode;
	l->ring = ring;
	n->stats->accepting = mode == MULTI || mode == SINGLE || mode == SWITCHING;
}

/* One more ring. A failure for want of memory or descriptors takes longer than a turn: not tried
 * again at every one. */
static int grow(struct net *n, struct listeners *l, struct ring **ret)
{
	int err = l->no_ring ? -EAGAIN : worker_add_ring(n->w, ret);

	if (err && err != -ENOSPC && !l->no_ring) {
		l->no_ring = true;
		job_run_in(n->w, &l->retry, RETRY_MS);
	}
	return err;
}

/* Picks the ring to accept on next. Rings there are come before a new one: fewer rings cost less.
 * At the end the last slots count too, as long as each listener can have one: nobody waits in the
 * backlog while there is one for him. */
static void choose(struct net *n, struct listeners *l)
{
	unsigned some = WORKER_RINGS_MAX, last = WORKER_RINGS_MAX, last_room = 0;
	struct ring *r;

	for (unsigned i = 0; i < n->w->n_rings; i++) {
		r = n->w->ring[i];
		if (room(l, r) > safe_room(l) + ROOM) {
			set_mode(n, l, MULTI, i);
			return;
		}
		if (some == WORKER_RINGS_MAX && room(l, r) >= ROOM)
			some = i;
		if (room(l, r) >= l->opts.n && room(l, r) > last_room) {
			last = i;
			last_room = room(l, r);
		}
	}
	if (some != WORKER_RINGS_MAX) {
		set_mode(n, l, SINGLE, some);
	} else if (grow(n, l, &r) == 0) {
		set_mode(n, l, MULTI, r->index);
	} else if (last != WORKER_RINGS_MAX) {
		set_mode(n, l, SINGLE, last);
	} else if (l->mode != PAUSED) {
		set_mode(n, l, PAUSED, 0);
		n->stats->accept_pauses++;
	}
}

static void leave(struct net *n, struct listeners *l)
{
	cancel_all(n, l);
	set_mode(n, l, SWITCHING, l->ring);
}

static void turn_multi(struct net *n, struct listeners *l)
{
	struct ring *r = n->w->ring[l->ring];

	if (room(l, r) <= safe_room(l)) {
		leave(n, l);
		return;
	}
	for (unsigned i = 0; i < l->opts.n; i++)
		if (!l->armed[i])
			arm(n, l, i, true);
}

static void turn_single(struct net *n, struct listeners *l)
{
	struct ring *r = n->w->ring[l->ring];
	unsigned left = room(l, r), share = left / l->opts.n;
	bool starved = false;

	if (left > safe_room(l) + ROOM) {
		leave(n, l);
		return;
	}
	/* No listener may keep the last slots to itself. */
	if (share > SINGLES)
		share = SINGLES;
	left -= l->total < left ? l->total : left;
	for (unsigned i = 0; i < l->opts.n; i++) {
		while (left && l->armed[i] < share) {
			arm(n, l, i, false);
			left--;
		}
		starved |= l->armed[i] == 0;
	}
	if (starved)
		leave(n, l);
}

void listener_turn(struct net *n)
{
	struct listeners *l = listeners_of(n);

	if (l->mode == STOPPED || l->backoff)
		return;
	/* Leaving a ring on which nothing is armed must go on at once: no completion will come to
	 * wake the worker. */
	do {
		if ((l->mode == SWITCHING || l->mode == PAUSED) && !l->total)
			choose(n, l);
		if (l->mode == MULTI)
			turn_multi(n, l);
		else if (l->mode == SINGLE)
			turn_single(n, l);
	} while (l->mode == SWITCHING && !l->total);
}

static void retry(struct worker *w, struct job *j)
{
	struct listeners *l = listeners_of(net_of(w));

	(void)j;
	l->backoff = l->no_ring = false;
}

static void on_accept(struct worker *w, struct ring *r, uint64_t ud, int res, uint32_t flags)
{
	struct net *n = net_of(w);
	struct listeners *l = listeners_of(n);
	unsigned i = ring_ud_aux(ud);

	if (!(flags & IORING_CQE_F_MORE)) {
		l->armed[i]--;
		l->total--;
	}
	if (res >= 0) {
		conn_accepted(n, r, (uint32_t)res, i);
		return;
	}
	if (res == -ECANCELED || res == -EINTR || res == -EAGAIN || res == -ECONNABORTED)
		return;
	n->stats->accept_errors++;
	if (res == -ENFILE)
		n->stats->refused_full++;
	if (!l->backoff) {
		l->backoff = true;
		job_run_in(w, &l->retry, RETRY_MS);
	}
}

int listener_init(struct net *n, const struct listener_opts *opts)
{
	struct listeners *l = calloc(1, sizeof *l + opts->n * sizeof *l->armed);

	if (!l)
		return -ENOMEM;
	l->opts = *opts;
	l->mode = SWITCHING;
	job_init(&l->retry, retry);
	n->listeners = l;
	return 0;
}

void listener_fini(struct net *n)
{
	free(n->listeners);
	n->listeners = NULL;
}

void listener_stop(struct net *n)
{
	struct listeners *l = listeners_of(n);

	if (l->mode == STOPPED)
		return;
	cancel_all(n, l);
	set_mode(n, l, STOPPED, l->ring);
	job_cancel(n->w, &l->retry);
	for (unsigned i = 0; i < l->opts.n; i++) {
		close(l->opts.fds[i]);
		l->opts.fds[i] = -1;
	}
}

void listener_register(struct worker_ops *ops)
{
	ops->cqe[OP_ACCEPT] = on_accept;
}
