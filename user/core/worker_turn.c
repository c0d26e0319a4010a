/* One turn of a worker: waits, reaps, runs a slice of its queue, publishes. */
#include "core/worker_turn.h"

#include <poll.h>

enum {
	WAIT_FOREVER_MS = 3600 * 1000,
	BATCH_LEAST = 16,  /* events of a turn from which on the worker counts as busy */
	BATCH_WANTED = 64, /* it does not wait for more of them than this */
	BATCH_MOST = 512,  /* nor serves many more in one turn */
	CPU_LOOK_MS = 100,
};

/* Every ring but the first signals the eventfd; the first one polls it, and is what the thread
 * waits on. */
void worker_arm_wake(struct worker *w)
{
	struct io_uring_sqe *sqe = ring_sqe(w->ring[0]);

	io_uring_prep_poll_multishot(sqe, w->wake_fd, POLLIN);
	sqe->user_data = ring_ud(OP_WAKE, 0, WAKE_POLL, 0);
}

static void on_wake(struct worker *w, uint32_t flags, uint64_t ud)
{
	if (ring_ud_aux(ud) == WAKE_ALARM)
		w->alarm_ns = 0;
	else if (ring_ud_aux(ud) == WAKE_POLL && !(flags & IORING_CQE_F_MORE))
		worker_arm_wake(w);
}

void worker_begin_slot(struct worker *w, uint32_t slot)
{
	w->slot = slot;
	for (unsigned c = 0; c < RUNQ_CLASSES; c++) {
		w->least_us[c] = w->least_poll_us[c] = UINT32_MAX;
		w->measured[c] = 0;
	}
	w->least_loop_us = UINT32_MAX;
}

/* ---- what it is at, for whoever looks on ---- */

_Static_assert((int)STATS_DOING_CONTROL + (int)RUNQ_CLASSES == (int)STATS_DOING_ALL, "each class");
_Static_assert((int)STATS_CLASSES == (int)RUNQ_CLASSES, "one counter a class");

/* Its first glance at the clock was the last one before. */
static void begin(struct worker *w, enum stats_doing doing)
{
	struct tg_worker_turn *t = &w->stats->turn;

	__atomic_store_n(&t->since_ns, w->now_ns, __ATOMIC_RELAXED);
	__atomic_store_n(&t->doing, doing, __ATOMIC_RELAXED);
	__atomic_store_n(&t->conn, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&t->session, 0, __ATOMIC_RELAXED);
}

static void note_late(struct worker *w, uint64_t ns)
{
	const struct tg_worker_turn *t = &w->stats->turn;
	struct tg_worker_turn *late = &w->stats->late;

	__atomic_store_n(&late->since_ns, t->since_ns, __ATOMIC_RELAXED);
	__atomic_store_n(&late->doing, t->doing, __ATOMIC_RELAXED);
	__atomic_store_n(&late->conn, t->conn, __ATOMIC_RELAXED);
	__atomic_store_n(&late->session, t->session, __ATOMIC_RELAXED);
	__atomic_store_n(&w->stats->late_ns, ns, __ATOMIC_RELAXED);
	__atomic_store_n(&w->stats->late_turns, w->stats->late_turns + 1, __ATOMIC_RELEASE);
}

/* What began is over; the clock has been looked at. */
static void end(struct worker *w, uint32_t budget_us)
{
	uint64_t ns = w->now_ns - w->stats->turn.since_ns;

	if (ns > (uint64_t)budget_us * 1000 * WORKER_LATE)
		note_late(w, ns);
}

static void reap(struct worker *w, struct ring *r)
{
	struct io_uring_cqe *cqe;
	unsigned head, n;

	do {
		n = 0;
		io_uring_for_each_cqe(&r->u, head, cqe)
		{
			uint64_t ud = cqe->user_data;
			enum ring_op op = ring_ud_op(ud);

			n++;
			w->reaped_accept += op == OP_ACCEPT || op == OP_CONN_PEER;
			w->events++;
			if (op == OP_WAKE)
				on_wake(w, cqe->flags, ud);
			else if (w->ops->cqe[op])
				w->ops->cqe[op](w, r, ud, cqe->res, cqe->flags);
		}
		io_uring_cq_advance(&r->u, n);
		/* What overflowed is kept by the kernel and posted once there is room: nothing is
		 * lost, but a send's verdict may be among it, so sends are settled only after this.
		 */
		if (ring_overflowed(r)) {
			w->stats->cq_overflows++;
			io_uring_get_events(&r->u);
		} else if (n) {
			break;
		}
	} while (n || io_uring_cq_ready(&r->u));
}

/* The kernel runs some 20 deferred completions a call: lets it post the rest of what is ready, so
 * that one turn serves a whole batch, while there are buffers to receive into. That it says there
 * is more need not be so: it may have run that already. */
static void reap_batch(struct worker *w, struct ring *r)
{
	unsigned most = w->events + BATCH_MOST, before;

	do {
		before = w->events;
		reap(w, r);
		if (!ring_news(r) || w->events >= most || r->buf_out > r->n_buffers / 2)
			break;
		io_uring_get_events(&r->u);
		worker_now(w);
	} while (w->events > before || io_uring_cq_ready(&r->u));
}

static int64_t wait_ms(struct worker *w)
{
	int64_t ms;

	if (w->runq.total || w->hurry || w->stopping || mailbox_ready(w->mailbox))
		return 0;
	/* A starved receive that was retried may have found nothing to receive, and left its buffer
	 * to the next one. */
	for (unsigned i = 0; i < w->n_rings; i++)
		if (ring_starving(w->ring[i]) && w->ring[i]->buf_out < w->ring[i]->n_buffers)
			return 0;
	ms = wheel_next_ms(&w->wheel, w->now_ms);
	return ms < 0 || ms > WAIT_FOREVER_MS ? WAIT_FOREVER_MS : ms;
}

/* Mutes or unmutes the rings behind the eventfd; true when one of them has something to do already.
 */
static bool listen_others(struct worker *w, bool on)
{
	bool busy = false;

	for (unsigned i = 1; i < w->n_rings; i++)
		io_uring_cq_eventfd_toggle(&w->ring[i]->u, on);
	if (!on)
		return false;
	__sync_synchronize(); /* a fence that the thread sanitizer bears */
	for (unsigned i = 1; i < w->n_rings; i++)
		busy |= ring_busy(w->ring[i]);
	return busy;
}

/* Sees to it that the thread is awake in ms from now. The alarm stays armed over many waits, which
 * saves each of them a timer of its own; one that rings early is looked at and set again. */
static void set_alarm(struct worker *w, int64_t ms)
{
	uint64_t at_ns = w->now_ns + (uint64_t)ms * 1000000;
	uint64_t ud = ring_ud(OP_WAKE, 0, WAKE_ALARM, 0);
	struct io_uring_sqe *sqe;

	if (w->alarm_ns && w->alarm_ns <= at_ns)
		return;
	w->wait = (struct __kernel_timespec){
		(int64_t)(at_ns / 1000000000), (long long)(at_ns % 1000000000)};
	sqe = ring_sqe(w->ring[0]);
	if (w->alarm_ns) {
		io_uring_prep_timeout_update(sqe, &w->wait, ud, IORING_TIMEOUT_ABS);
		sqe->user_data = ring_ud(OP_NONE, 0, 0, 0);
		sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
	} else {
		io_uring_prep_timeout(sqe, &w->wait, 0, IORING_TIMEOUT_ABS);
		sqe->user_data = ud;
	}
	w->alarm_ns = at_ns;
}

/* Sleeps until something completes. After a turn of many events more are on their way: a moment's
 * wait for twice as many makes fewer and larger turns, so that waking up, and waking the clients,
 * costs each event less. */
static void wait_for_events(struct worker *w)
{
	static struct __kernel_timespec for_ever = {WAIT_FOREVER_MS / 1000, 0};
	struct io_uring *u = &w->ring[0]->u;
	unsigned wanted = w->events < BATCH_WANTED / 2 ? 2 * w->events : BATCH_WANTED;
	struct io_uring_cqe *cqe;

	if (w->events < BATCH_LEAST || !w->opts.batch_wait_us)
		io_uring_submit_and_wait(u, 1);
	else
		io_uring_submit_and_wait_min_timeout(
			u, &cqe, wanted, &for_ever, w->opts.batch_wait_us, NULL);
}

static void publish(struct worker *w, bool sleeping)
{
	if (w->ops->publish)
		w->ops->publish(w, sleeping);
}

/* Submits everything, and waits when there is nothing to do. */
static void submit_and_wait(struct worker *w)
{
	struct ring *r0 = w->ring[0];
	int64_t ms;
	bool sleep;

	for (unsigned i = 1; i < w->n_rings; i++) {
		ring_buffers_publish(w->ring[i]);
		if (ring_busy(w->ring[i]))
			ring_submit(w->ring[i]);
	}
	ring_buffers_publish(r0);
	ms = wait_ms(w);
	sleep = ms > 0;
	if (sleep) {
		mailbox_sleep(w->mailbox);
		if (mailbox_ready(w->mailbox) || listen_others(w, true))
			sleep = false;
		for (unsigned i = 1; sleep && i < w->n_rings; i++)
			sleep = !io_uring_cq_ready(&w->ring[i]->u);
	}
	if (sleep) {
		set_alarm(w, ms);
		w->stats->turn_since_ns = 0;
		begin(w, STATS_DOING_WAIT);
		publish(w, true);
		wait_for_events(w);
		if (io_uring_sq_ready(&r0->u))
			ring_submit(r0);
	} else if (ring_busy(r0)) {
		ring_submit(r0);
	}
	if (ms > 0) {
		listen_others(w, false);
		mailbox_awake(w->mailbox);
	}
	worker_now(w);
	if (sleep) {
		w->awake_since_ns = w->now_ns;
		publish(w, false);
	}
}

static void look_at_cpu_time(struct worker *w)
{
	struct timespec t;

	if (w->now_ms - w->cpu_looked_ms < CPU_LOOK_MS)
		return;
	w->cpu_looked_ms = w->now_ms;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	w->stats->cpu_ns = (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void run_timer(void *ctx, struct wheel_timer *t)
{
	struct worker *w = ctx;

	w->ops->timer[t->kind](w, t);
}

/* Work for newcomers between two looks at what has arrived for sessions, which waits as long. */
static uint64_t newcomers_share_ns(const struct worker *w)
{
	return (uint64_t)w->opts.turn_us * 1000 / 2;
}

/* Newcomers wait until what was just done for sessions is on its way, and what is on its way to
 * them has been looked at: a handshake takes longer than an answer, and would stand before it. No
 * longer than a turn, or sessions that are always busy would keep everybody out. */
static bool newcomers_wait(const struct worker *w, bool sessions_ran)
{
	return (sessions_ran || w->session_input) &&
	       w->now_ns - w->newcomers_ns < (uint64_t)w->opts.turn_us * 1000;
}

/* An item's turn has come: how long it has waited, and its event before that. */
static void note_delay(struct worker *w, const struct runq_item *it)
{
	enum runq_class class_ = (enum runq_class)it->class_;
	uint32_t run_us = worker_now_us(w) - it->since_us;

	run_us = run_us > INT32_MAX ? 0 : run_us;
	hist_add(&w->stats->run_delay_us, run_us);
	if (run_us > w->turn_delay_us)
		w->turn_delay_us = run_us;
	if (run_us < w->least_us[class_])
		w->least_us[class_] = run_us;
	if (it->wake) {
		uint64_t us = (uint64_t)run_us + runq_wake_us(it->wake);

		hist_add(&w->stats->poll_delay_us, us);
		w->measured[class_]++;
		if (us < w->least_poll_us[class_])
			w->least_poll_us[class_] = (uint32_t)us;
	} else if (!w->measuring) {
		hist_add(&w->stats->poll_delay_us, run_us);
	}
}

static void run_slice(struct worker *w)
{
	uint64_t since = w->now_ns, newcomers_ns = 0;
	bool sessions_ran = false;
	struct runq_item *it;

	while ((it = runq_peek(&w->runq))) {
		uint64_t before = w->now_ns;
		enum runq_class class_ = (enum runq_class)it->class_;

		if (class_ == RUNQ_HANDSHAKE && newcomers_wait(w, sessions_ran))
			break;
		runq_pop(&w->runq);
		note_delay(w, it);
		begin(w, (enum stats_doing)(STATS_DOING_CONTROL + class_));
		w->ops->run[it->kind](w, it);
		worker_now(w);
		end(w, w->opts.turn_us);
		w->stats->class_ns[class_] += w->now_ns - before;
		runq_charge(&w->runq, class_, w->now_ns - before);
		if (class_ == RUNQ_HANDSHAKE) {
			w->newcomers_ns = w->now_ns;
			newcomers_ns += w->now_ns - before;
		}
		sessions_ran |= class_ == RUNQ_ESTABLISHED || class_ == RUNQ_LINKS;
		/* Who has a session need not wait for all newcomers. */
		if (w->now_ns - since > (uint64_t)w->opts.slice_us * 1000 ||
			newcomers_ns >= newcomers_share_ns(w))
			break;
	}
}

void worker_push_next_turn(struct worker *w, struct runq_item *it, enum runq_class class_)
{
	if (it->queued)
		return;
	it->queued = true;
	it->class_ = (uint8_t)class_;
	it->next = w->parked;
	w->parked = it;
}

void worker_push_again(struct worker *w, struct runq_item *it, enum runq_class class_)
{
	bool news = false;

	for (unsigned i = 0; i < w->n_rings; i++)
		news |= ring_news(w->ring[i]);
	if (news)
		worker_push_next_turn(w, it, class_);
	else
		worker_push(w, it, class_);
}

static void unpark(struct worker *w)
{
	struct runq_item *it, *first = NULL;

	while ((it = w->parked)) { /* the last one first */
		w->parked = it->next;
		it->next = first;
		first = it;
	}
	while ((it = first)) {
		first = it->next;
		it->queued = false;
		worker_push(w, it, (enum runq_class)it->class_);
	}
}

void worker_remove(struct worker *w, struct runq_item *it)
{
	struct runq_item **link = &w->parked;

	while (*link && *link != it)
		link = &(*link)->next;
	if (!*link) {
		runq_remove(&w->runq, it);
		return;
	}
	*link = it->next;
	it->queued = false;
}

/* What accepting took of reaping, by its share of the completions. */
static void charge_accepts(struct worker *w, uint64_t since)
{
	if (w->reaped_accept)
		w->stats->class_ns[RUNQ_HANDSHAKE] +=
			(worker_now(w) - since) * w->reaped_accept / w->events;
	w->reaped_accept = 0;
}

/* The least delay of the worst class of connections. Poll delays where they are known; else the run
 * delay, or that of the loop itself: an event that comes in the middle of a turn waits for its end
 * before it is even received. */
static uint32_t worst_class(const struct worker *w)
{
	static const enum runq_class counts[] = {RUNQ_LINKS, RUNQ_ESTABLISHED, RUNQ_HANDSHAKE};
	uint32_t worst = 0;
	bool measured = false;

	for (unsigned i = 0; i < sizeof counts / sizeof *counts; i++) {
		bool known = w->measured[counts[i]] >= WORKER_MEASURED_LEAST;
		uint32_t us = known ? w->least_poll_us[counts[i]] : w->least_us[counts[i]];

		measured |= known;
		if (us != UINT32_MAX && us > worst)
			worst = us;
	}
	return measured || w->least_loop_us < worst ? worst : w->least_loop_us;
}

static void publish_slot(struct worker *w, uint64_t loop_us)
{
	uint32_t slot = (uint32_t)(w->now_ns / WORKER_SLOT_NS);

	if (loop_us < w->least_loop_us)
		w->least_loop_us = (uint32_t)loop_us;
	if (slot == w->slot)
		return;
	__atomic_store_n(
		&w->stats->least_delay, (uint64_t)w->slot << 32 | worst_class(w), __ATOMIC_RELAXED);
	worker_begin_slot(w, slot);
}

void worker_turn(struct worker *w)
{
	struct mailbox_msg msg;
	uint64_t since, loop_us;

	w->hurry = false;
	begin(w, STATS_DOING_FLUSH);
	w->ops->flush(w);
	submit_and_wait(w);
	if (w->stats->turn.doing == STATS_DOING_FLUSH)
		end(w, w->opts.slice_us);
	since = w->now_ns;
	w->stats->turn_since_ns = since;
	begin(w, STATS_DOING_REAP);
	w->events = 0;
	w->session_input = false;
	for (unsigned i = 0; i < w->n_rings; i++) {
		reap_batch(w, w->ring[i]);
		w->ops->settle(w, w->ring[i]);
	}
	w->measuring = wake_measuring(&w->wakes);
	charge_accepts(w, since);
	wheel_advance(&w->wheel, w->now_ms, WORKER_TIMERS_PER_TURN, run_timer, w);
	for (unsigned i = 0; i < WORKER_MAIL_PER_TURN && mailbox_pop(w->mailbox, &msg); i++)
		w->ops->mail(w, &msg);
	worker_now(w);
	end(w, w->opts.slice_us);
	run_slice(w);
	unpark(w);
	for (unsigned i = 0; i < w->n_rings; i++)
		if (w->ring[i]->buf_pending || ring_starving(w->ring[i]))
			w->ops->refill(w, w->ring[i]);
	w->stats->runnable = w->runq.total;
	w->stats->loops++;
	look_at_cpu_time(w);
	loop_us = (worker_now(w) - since) / 1000;
	w->stats->awake_ns += w->now_ns - w->awake_since_ns;
	w->awake_since_ns = w->now_ns;
	hist_add(&w->stats->loop_us, loop_us);
	publish_slot(w, loop_us);
	/* An eighth of the news at a time: what steers newcomers should not jump. */
	w->poll_delay_ns =
		w->poll_delay_ns - w->poll_delay_ns / 8 + (w->turn_delay_us + loop_us) * 1000 / 8;
	w->turn_delay_us = 0;
	publish(w, false);
}
