/* Between workers: pipes with windows, control messages, and what is tried again. */
#include "app/exchange_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	RETRY_MS = 1,
	/* Credit is given back a quarter of the window at a time: a sender has three more. */
	CREDIT_BYTES = EXCHANGE_WINDOW_BYTES / 4,
	CREDIT_MESSAGES = EXCHANGE_WINDOW_MESSAGES / 4,
};

void exchange_fifo_init(struct exchange_fifo *f)
{
	f->head = NULL;
	f->tail = &f->head;
}

void exchange_fifo_push(struct exchange_fifo *f, struct exchange_msg *m)
{
	m->next = NULL;
	*f->tail = m;
	f->tail = &m->next;
}

struct exchange_msg *exchange_fifo_pop(struct exchange_fifo *f)
{
	struct exchange_msg *m = f->head;

	f->head = m->next;
	if (!f->head)
		f->tail = &f->head;
	return m;
}

void exchange_fifo_clear(struct exchange_fifo *f)
{
	while (f->head)
		free(exchange_fifo_pop(f));
}

unsigned exchange_home_of(const struct exchange *ex, const char *topic, size_t len)
{
	return (unsigned)(hashtab_hash(topic, hub_topic_parent(topic, len)) % ex->opts.peers->n);
}

struct exchange_msg *exchange_msg_new(enum exchange_kind kind, unsigned from, const char *topic,
	size_t topic_len, const void *data, size_t len)
{
	struct exchange_msg *m = malloc(sizeof *m + topic_len + len);

	if (!m)
		return NULL;
	*m = (struct exchange_msg){.kind = (uint8_t)kind,
		.from = (uint8_t)from,
		.topic_len = (uint8_t)topic_len,
		.len = (uint32_t)len};
	memcpy(m->topic, topic, topic_len);
	if (len)
		memcpy(exchange_data(m), data, len);
	return m;
}

static void handle(struct exchange *ex, struct exchange_msg *m)
{
	switch ((enum exchange_kind)m->kind) {
	case EXCHANGE_INTEREST:
		exchange_on_interest(ex, m);
		break;
	case EXCHANGE_CONFIRM:
		exchange_on_confirm(ex, m);
		break;
	case EXCHANGE_PUBLISH:
		exchange_on_publish(ex, m);
		break;
	case EXCHANGE_DELIVER:
		exchange_on_deliver(ex, m);
		break;
	case EXCHANGE_ASK:
		exchange_on_ask(ex, m);
		break;
	case EXCHANGE_ANSWER:
		exchange_on_answer(ex, m);
		break;
	case EXCHANGE_CREDIT:
		break; /* comes without a message */
	}
}

/* 0, or -EAGAIN: no room, or the worker does not run yet. */
static int post(struct exchange *ex, unsigned to, const struct mailbox_msg *msg)
{
	struct worker *w = atomic_load_explicit(&ex->opts.peers->worker[to], memory_order_acquire);

	return w ? worker_post(w, msg, ex->w) : -EAGAIN;
}

static int pass(struct exchange *ex, unsigned to, struct exchange_msg *m)
{
	struct mailbox_msg msg = {.kind = ex->opts.mail_kind, .arg = m->kind, .ptr = m};

	if (to != ex->self)
		return post(ex, to, &msg);
	handle(ex, m);
	return 0;
}

/* -------------------------------------------------------------------------------- control */

/* False: something waits. */
static bool control_flush(struct exchange *ex, unsigned to)
{
	struct exchange_fifo *f = &ex->peer[to].control;

	while (f->head) {
		struct mailbox_msg msg = {
			.kind = ex->opts.mail_kind, .arg = f->head->kind, .ptr = f->head};
		struct exchange_msg *m = f->head, *next = m->next;

		/* It is another thread's as soon as it is posted. */
		if (post(ex, to, &msg))
			return false;
		f->head = next;
		if (!next)
			f->tail = &f->head;
	}
	return true;
}

void exchange_control(struct exchange *ex, unsigned to, struct exchange_msg *m)
{
	if (to == ex->self) {
		handle(ex, m);
		return;
	}
	exchange_fifo_push(&ex->peer[to].control, m);
	if (!control_flush(ex, to))
		exchange_retry_later(ex);
}

/* -------------------------------------------------------------------------------- pipes */

static bool window_allows(const struct exchange_pipe *p, uint32_t cost)
{
	return !p->flight_bytes || (p->flight_bytes + cost <= EXCHANGE_WINDOW_BYTES &&
					   p->flight_messages < EXCHANGE_WINDOW_MESSAGES);
}

bool exchange_has_room(
	const struct exchange *ex, unsigned to, enum exchange_step step, uint32_t cost)
{
	const struct exchange_pipe *p = &ex->peer[to].pipe[step];

	return !p->waiting.head && window_allows(p, cost);
}

static void resume_publishers(struct exchange_peer *peer)
{
	struct topic_pause *p;

	while ((p = peer->paused)) {
		topic_pause_end(p);
		p->resume(p);
	}
}

/* Sends what waits, as far as there is room; false: only the mailbox keeps it from going on. */
static bool pipe_flush(struct exchange *ex, unsigned to, enum exchange_step step)
{
	struct exchange_peer *peer = &ex->peer[to];
	struct exchange_pipe *p = &peer->pipe[step];
	struct exchange_msg *m;

	while ((m = p->waiting.head)) {
		uint32_t cost = exchange_cost(m);

		if (!window_allows(p, cost))
			return true;
		exchange_fifo_pop(&p->waiting);
		p->flight_bytes += cost;
		p->flight_messages++;
		if (step == EXCHANGE_TO_HOME)
			ex->waiting_bytes -= cost;
		if (!pass(ex, to, m))
			continue;
		p->flight_bytes -= cost;
		p->flight_messages--;
		if (step == EXCHANGE_TO_HOME)
			ex->waiting_bytes += cost;
		m->next = p->waiting.head;
		if (!m->next)
			p->waiting.tail = &m->next;
		p->waiting.head = m;
		return false;
	}
	if (step == EXCHANGE_TO_HOME)
		resume_publishers(peer);
	return true;
}

void exchange_send(
	struct exchange *ex, unsigned to, enum exchange_step step, struct exchange_msg *m)
{
	struct exchange_pipe *p = &ex->peer[to].pipe[step];
	bool first = !p->waiting.head;

	if (step == EXCHANGE_TO_HOME)
		ex->waiting_bytes += exchange_cost(m);
	exchange_fifo_push(&p->waiting, m);
	if (first && !pipe_flush(ex, to, step))
		exchange_retry_later(ex);
}

static bool owes(const struct exchange_pipe *p)
{
	return p->owed_bytes >= CREDIT_BYTES || p->owed_messages >= CREDIT_MESSAGES;
}

/* Credit has come back: what waited for it goes. */
static void on_credit(struct exchange *ex, unsigned from, enum exchange_step step, uint64_t bytes,
	uint64_t messages)
{
	struct exchange_pipe *p = &ex->peer[from].pipe[step];

	p->flight_bytes -= bytes;
	p->flight_messages -= (uint32_t)messages;
	if (!pipe_flush(ex, from, step))
		exchange_retry_later(ex);
	if (step == EXCHANGE_TO_WORKER)
		exchange_home_flush(ex);
}

static bool give_credit(struct exchange *ex, unsigned to, enum exchange_step step)
{
	struct exchange_pipe *p = &ex->peer[to].pipe[step];
	struct mailbox_msg msg = {
		.kind = ex->opts.mail_kind,
		.arg = (uint32_t)(EXCHANGE_CREDIT | step << 8 | ex->self << 16),
		.a = p->owed_bytes,
		.b = p->owed_messages,
	};

	if (!owes(p))
		return true;
	if (to != ex->self && post(ex, to, &msg))
		return false;
	p->owed_bytes = p->owed_messages = 0;
	if (to == ex->self)
		on_credit(ex, to, step, msg.a, msg.b);
	return true;
}

void exchange_done(struct exchange *ex, unsigned from, enum exchange_step step, uint32_t cost)
{
	struct exchange_pipe *p = &ex->peer[from].pipe[step];

	p->owed_bytes += cost;
	p->owed_messages++;
	if (!give_credit(ex, from, step))
		exchange_retry_later(ex);
}

/* -------------------------------------------------------------------------------- publishers */

static int send_to_home(struct exchange *ex, unsigned home, struct exchange_msg *m)
{
	if (!m)
		return -ENOMEM;
	if (ex->waiting_bytes + exchange_cost(m) > EXCHANGE_WAITING_BYTES) {
		free(m);
		return -ENOBUFS;
	}
	exchange_send(ex, home, EXCHANGE_TO_HOME, m);
	return ex->peer[home].pipe[EXCHANGE_TO_HOME].waiting.head ? -EAGAIN : 0;
}

int exchange_publish(struct exchange *ex, const char *topic, size_t topic_len,
	enum exchange_form form, const void *data, size_t len)
{
	struct exchange_msg *m =
		exchange_msg_new(EXCHANGE_PUBLISH, ex->self, topic, topic_len, data, len);

	if (m)
		m->form = (uint8_t)form;
	return send_to_home(ex, exchange_home_of(ex, topic, topic_len), m);
}

int exchange_ask(struct exchange *ex, const struct conn *c, const char *topic, size_t topic_len,
	struct hub_str id)
{
	struct exchange_msg *m =
		exchange_msg_new(EXCHANGE_ASK, ex->self, topic, topic_len, id.data, id.len);

	exchange_tell_now(ex, topic, topic_len);
	if (m)
		m->ask.asker = (struct exchange_asker){c->session, conn_slot(c), c->ring};
	return send_to_home(ex, exchange_home_of(ex, topic, topic_len), m);
}

void exchange_pause(struct exchange *ex, const char *topic, size_t topic_len, struct topic_pause *p)
{
	struct exchange_peer *peer = &ex->peer[exchange_home_of(ex, topic, topic_len)];

	topic_pause_end(p);
	p->next = peer->paused;
	p->pprev = &peer->paused;
	if (p->next)
		p->next->pprev = &p->next;
	peer->paused = p;
}

/* -------------------------------------------------------------------------------- life */

void exchange_retry_later(struct exchange *ex)
{
	if (ex->retry_armed)
		return;
	ex->retry_armed = true;
	job_run_in(ex->w, &ex->retry, RETRY_MS);
}

static struct exchange *exchange_of(struct worker *w, struct job *j, size_t offset)
{
	(void)w;
	return (struct exchange *)((char *)j - offset);
}

static void retry(struct worker *w, struct job *j)
{
	struct exchange *ex = exchange_of(w, j, offsetof(struct exchange, retry));
	bool all = true;

	ex->retry_armed = false;
	for (unsigned i = 0; i < ex->opts.peers->n; i++) {
		all &= control_flush(ex, i);
		for (unsigned step = 0; step < EXCHANGE_STEPS; step++) {
			all &= give_credit(ex, i, (enum exchange_step)step);
			all &= pipe_flush(ex, i, (enum exchange_step)step);
		}
	}
	exchange_home_flush(ex);
	if (!all)
		exchange_retry_later(ex);
}

int exchange_create(struct net *n, const struct exchange_opts *opts, struct exchange **ret)
{
	struct exchange *ex = calloc(1, sizeof *ex);
	int err = -ENOMEM;

	if (!ex)
		return -ENOMEM;
	ex->net = n;
	ex->w = n->w;
	ex->opts = *opts;
	ex->self = n->w->id;
	ex->peer = calloc(opts->peers->n, sizeof *ex->peer);
	if (!ex->peer)
		goto err_free;
	for (unsigned i = 0; i < opts->peers->n; i++) {
		exchange_fifo_init(&ex->peer[i].control);
		for (unsigned step = 0; step < EXCHANGE_STEPS; step++)
			exchange_fifo_init(&ex->peer[i].pipe[step].waiting);
	}
	err = topic_index_init(&ex->index, sizeof(struct exchange_topic));
	if (err)
		goto err_peer;
	err = exchange_home_init(ex);
	if (err)
		goto err_index;
	job_init(&ex->retry, retry);
	exchange_interest_init(ex);
	exchange_fanout_init(ex);
	atomic_store_explicit(&opts->peers->worker[ex->self], ex->w, memory_order_release);
	*ret = ex;
	return 0;

err_index:
	topic_index_fini(&ex->index);
err_peer:
	free(ex->peer);
err_free:
	free(ex);
	return err;
}

void exchange_destroy(struct exchange *ex)
{
	if (!ex)
		return;
	job_cancel(ex->w, &ex->retry);
	exchange_fanout_fini(ex);
	exchange_interest_fini(ex);
	exchange_home_fini(ex);
	for (unsigned i = 0; i < ex->opts.peers->n; i++) {
		exchange_fifo_clear(&ex->peer[i].control);
		for (unsigned step = 0; step < EXCHANGE_STEPS; step++)
			exchange_fifo_clear(&ex->peer[i].pipe[step].waiting);
	}
	topic_index_fini(&ex->index);
	free(ex->peer);
	free(ex);
}

void exchange_mail(struct exchange *ex, const struct mailbox_msg *msg)
{
	if ((msg->arg & 0xff) == EXCHANGE_CREDIT)
		on_credit(ex, msg->arg >> 16, (enum exchange_step)(msg->arg >> 8 & 0xff), msg->a,
			msg->b);
	else
		handle(ex, msg->ptr);
}

void exchange_drop(const struct mailbox_msg *msg)
{
	if ((msg->arg & 0xff) != EXCHANGE_CREDIT)
		free(msg->ptr);
}
