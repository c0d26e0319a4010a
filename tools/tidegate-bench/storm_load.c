#include "storm.h"

enum {
	NOBODY = UINT32_MAX,
};

static struct storm_conn *conn_of(struct load_thread *t, uint32_t i)
{
	return load_conn_work(t, load_conn_at(t, i));
}

static uint32_t number_of(const struct load_thread *t, const struct load_conn *c)
{
	return load_conn_number(t, c) - t->first;
}

/* ---- lists ---- */

static void append(struct load_thread *t, struct storm_list *l, uint32_t i)
{
	struct storm_conn *sc = conn_of(t, i);

	sc->prev = l->last;
	sc->next = NOBODY;
	if (l->last == NOBODY)
		l->first = i;
	else
		conn_of(t, l->last)->next = i;
	l->last = i;
}

static void take_out(struct load_thread *t, struct storm_list *l, uint32_t i)
{
	struct storm_conn *sc = conn_of(t, i);

	if (sc->prev == NOBODY)
		l->first = sc->next;
	else
		conn_of(t, sc->prev)->next = sc->next;
	if (sc->next == NOBODY)
		l->last = sc->prev;
	else
		conn_of(t, sc->next)->prev = sc->prev;
}

static void begin(struct load_thread *t, struct storm_thread *st)
{
	st->waiting = st->unused = (struct storm_list){NOBODY, NOBODY};
	for (uint32_t i = 0; i < t->n_conns; i++)
		append(t, &st->unused, i);
	st->ready = true;
}

/* ---- attempts ---- */

static void attempt(
	struct load_thread *t, struct storm_thread *st, uint64_t due_ns, uint64_t now_ns)
{
	uint32_t i = st->unused.first;

	st->next++;
	if (now_ns - due_ns > st->behind_ns)
		st->behind_ns = now_ns - due_ns;
	if (i == NOBODY) {
		load_count(&st->exhausted, 1);
		return;
	}
	take_out(t, &st->unused, i);
	append(t, &st->waiting, i);
	*conn_of(t, i) = (struct storm_conn){
		.prev = conn_of(t, i)->prev, .next = NOBODY, .due_ns = due_ns, .begun_ns = now_ns};
	load_count(&st->attempts, 1);
	load_connect(t, i);
}

static void over(struct load_thread *t, struct storm_thread *st, uint32_t i)
{
	take_out(t, &st->waiting, i);
	append(t, &st->unused, i);
}

static void on_open(struct load_thread *t, struct load_conn *c)
{
	struct storm_thread *st = t->work;
	uint64_t now_ns = load_now_ns();
	uint32_t i = number_of(t, c);

	hist_add(&st->answer_ns, now_ns - conn_of(t, i)->due_ns);
	load_count(&st->completed, 1);
	if (now_ns < st->storm->to_ns)
		load_count(&st->in_time, 1);
	load_drop(t, c);
	over(t, st, i);
}

static void on_failed(struct load_thread *t, struct load_conn *c)
{
	over(t, t->work, number_of(t, c));
}

/* One attempt at a time is begun, and one given up, in one submission: a kernel that cannot be
 * preempted in it would delay whoever else uses the CPU, the sessions' thread for one. */

/* Gives up what is too old; returns when the next one may be. */
static uint64_t give_up(struct load_thread *t, struct storm_thread *st, uint64_t now_ns)
{
	uint32_t i = st->waiting.first;
	uint64_t at_ns;

	if (i == NOBODY)
		return UINT64_MAX;
	at_ns = conn_of(t, i)->begun_ns + (uint64_t)(st->storm->deadline_s * 1e9);
	if (at_ns <= now_ns) {
		load_drop(t, load_conn_at(t, i));
		over(t, st, i);
		load_count(&st->timed_out, 1);
	}
	return at_ns;
}

static uint64_t open_loop(struct load_thread *t, struct storm_thread *st, uint64_t now_ns)
{
	const struct storm *s = st->storm;
	double rate = s->rate * t->n_conns / t->load->n_conns;
	uint64_t due_ns = s->run_ns + (uint64_t)((double)st->next * 1e9 / rate);

	if (due_ns >= s->to_ns)
		return UINT64_MAX;
	if (due_ns <= now_ns)
		attempt(t, st, due_ns, now_ns);
	return due_ns;
}

/* All of a thread's connections are under way at all times. */
static uint64_t closed_loop(struct load_thread *t, struct storm_thread *st, uint64_t now_ns)
{
	const struct storm *s = st->storm;

	if (now_ns < s->run_ns)
		return s->run_ns;
	while (now_ns < s->to_ns && st->unused.first != NOBODY)
		attempt(t, st, now_ns, now_ns);
	return UINT64_MAX; /* the next completion makes room */
}

static uint64_t tick(struct load_thread *t, uint64_t now_ns)
{
	struct storm_thread *st = t->work;
	uint64_t at_ns, begin_ns;

	if (!st->ready)
		begin(t, st);
	at_ns = give_up(t, st, now_ns);
	begin_ns = st->storm->rate > 0 ? open_loop(t, st, now_ns) : closed_loop(t, st, now_ns);
	return begin_ns < at_ns ? begin_ns : at_ns;
}

const struct load_ops storm_ops = {
	.conn_bytes = sizeof(struct storm_conn),
	.starts = true,
	.on_open = on_open,
	.on_failed = on_failed,
	.tick = tick,
};
