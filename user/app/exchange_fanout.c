/* A worker's part of a publication: one frame for each form it is needed in, and a reference to it
 * for each who hears. A job that goes on where it stopped; topics with messages take turns. */
#include "app/exchange_internal.h"

#include <stdlib.h>
#include <string.h>

enum {
	CHUNK_BYTES = 64 * 1024,
	STEP = 16, /* subscriptions between two looks at the clock */
	/* Of a turn. A delivery is soon queued, but its send takes microseconds of the kernel's
	 * time when the turn is over, and everybody else's answers stand behind it. */
	SENDS_MAX = 32,
	SCRATCH_KEPT = 64 * 1024, /* a larger one is given back */
};

/* -------------------------------------------------------------------------------- one message */

static struct exchange_msg *message_of(const struct exchange_flow *f)
{
	return f->messages.head;
}

/* The message as hub clients get it, in ex->scratch. 0: no memory. */
static size_t write_json(struct exchange *ex, struct exchange_msg *m)
{
	size_t need = HUB_MESSAGE_HEAD_MAX + (size_t)m->len * 6 + 3, len;
	const char *data = exchange_data(m);
	bool json = m->form == EXCHANGE_JSON;
	char *out;

	if (m->form == EXCHANGE_TEXT)
		json = hub_json_valid(data, m->len);
	if (json)
		need = HUB_MESSAGE_HEAD_MAX + (size_t)m->len + 1;
	if (need > ex->scratch_bytes) {
		char *scratch = realloc(ex->scratch, need);

		if (!scratch)
			return 0;
		ex->scratch = scratch;
		ex->scratch_bytes = need;
	}
	out = ex->scratch;
	len = hub_message_head_write(out, m->topic, m->topic_len, m->form == EXCHANGE_BINARY);
	if (json) {
		memcpy(out + len, data, m->len);
		len += m->len;
	} else if (m->form == EXCHANGE_TEXT) {
		len += hub_string_write(out + len, data, m->len);
	} else {
		len += hub_base64_write(out + len, (const uint8_t *)data, m->len);
	}
	out[len++] = '}';
	return len;
}

/* The bytes and kind of a form. */
static const char *form_of(
	struct exchange *ex, struct exchange_msg *m, bool plain, bool *ret_text, size_t *ret_len)
{
	*ret_text = !plain || m->form != EXCHANGE_BINARY;
	*ret_len = plain ? m->len : write_json(ex, m);
	if (plain)
		return exchange_data(m);
	return *ret_len ? ex->scratch : NULL;
}

static struct frame *frame_of(
	struct exchange *ex, struct exchange_flow *f, bool plain, enum conn_protocol protocol)
{
	struct frame **at = &f->frame[plain][protocol];
	const char *data;
	size_t len;
	bool text;

	if (*at || f->failed[plain][protocol])
		return *at;
	data = form_of(ex, message_of(f), plain, &text, &len);
	/* Any key but 0 that is the topic's own. */
	if (data)
		*at = conn_frame(ex->net, protocol, text, f->topic->hash | 1, data, len);
	f->failed[plain][protocol] = !*at;
	return *at;
}

static void send_to(struct exchange *ex, struct exchange_flow *f, struct subscriber *who)
{
	struct exchange_client *client = (struct exchange_client *)who;
	struct conn *c = client->conn;
	struct frame *frame = frame_of(ex, f, client->plain, c->protocol);
	const char *data;
	size_t len;
	bool text;
	int err;

	ex->sent++;
	if (frame) {
		err = conn_send_frame(c, frame);
	} else {
		/* Alone it may find memory; if not, the route's policy decides. */
		data = form_of(ex, message_of(f), client->plain, &text, &len);
		if (!data) {
			exchange_stats(ex)->hub_lost++;
			return;
		}
		err = conn_send(c, text, data, len);
	}
	if (!err)
		exchange_stats(ex)->hub_delivered++;
}

static void drop_frames(struct exchange *ex, struct exchange_flow *f)
{
	for (unsigned i = 0; i < FLOW_FORMS; i++)
		for (unsigned k = 0; k < FLOW_PROTOCOLS; k++) {
			frame_unref(&ex->net->bufs, f->frame[i][k]);
			f->frame[i][k] = NULL;
			f->failed[i][k] = false;
		}
	if (ex->scratch_bytes > SCRATCH_KEPT) {
		free(ex->scratch);
		ex->scratch = NULL;
		ex->scratch_bytes = 0;
	}
}

/* -------------------------------------------------------------------------------- a flow's turn */

static bool turn_over(struct exchange *ex, uint64_t end_ns)
{
	return ex->sent >= SENDS_MAX || worker_now(ex->w) >= end_ns;
}

/* Sends to those the mark has not passed; false: the turn is over. */
static bool walk(struct exchange *ex, struct exchange_flow *f, uint64_t end_ns)
{
	uint64_t serial = message_of(f)->serial;

	while (topic_mark_is_set(&f->mark)) {
		struct subscriber *who;
		unsigned max = STEP;

		while ((who = topic_mark_next(&f->mark, serial, &max)))
			/* Who heard it by name does not hear it by a pattern again. */
			if (f->state == FLOW_EXACT ||
				!topic_heard(&ex->index, f->topic, who, serial))
				send_to(ex, f, who);
		if (topic_mark_is_set(&f->mark) && turn_over(ex, end_ns))
			return false;
	}
	return true;
}

static void begin_pattern(struct exchange *ex, struct exchange_flow *f)
{
	f->pattern = topic_find_pattern(&ex->index, f->topic->name, f->topic->len);
	if (f->pattern) {
		f->pattern->pins++;
		topic_mark_set(&f->mark, f->pattern, false);
	}
	f->state = FLOW_PATTERN;
}

static void end_pattern(struct exchange *ex, struct exchange_flow *f)
{
	if (f->pattern) {
		f->pattern->pins--;
		exchange_topic_release(ex, f->pattern);
		f->pattern = NULL;
	}
	f->topic->held--;
	f->state = FLOW_SWEEP;
}

static void end_message(struct exchange *ex, struct exchange_flow *f)
{
	struct exchange_msg *m = exchange_fifo_pop(&f->messages);
	uint32_t cost = exchange_cost(m);
	unsigned home = m->from;

	drop_frames(ex, f);
	free(m);
	f->state = FLOW_BEGIN;
	exchange_done(ex, home, EXCHANGE_TO_WORKER, cost);
}

/* The flow's next message, or what is left of it; false: the turn is over. */
static bool step(struct exchange *ex, struct exchange_flow *f, uint64_t end_ns)
{
	if (f->state == FLOW_BEGIN) {
		f->topic->held++;
		topic_mark_set(&f->mark, f->topic, true);
		f->state = FLOW_EXACT;
	}
	if (f->state == FLOW_EXACT) {
		if (!walk(ex, f, end_ns))
			return false;
		begin_pattern(ex, f);
	}
	if (f->state == FLOW_PATTERN) {
		if (!walk(ex, f, end_ns))
			return false;
		end_pattern(ex, f);
	}
	while (!topic_sweep(&ex->index, f->topic, STEP))
		if (turn_over(ex, end_ns))
			return false;
	end_message(ex, f);
	return true;
}

static void flow_end(struct exchange *ex, struct exchange_flow *f)
{
	struct topic *t = f->topic;

	exchange_topic(t)->flow = NULL;
	t->pins--;
	exchange_topic_release(ex, t);
	slab_free(&ex->flows_slab, f);
}

static void flow_push(struct exchange *ex, struct exchange_flow *f)
{
	f->next = NULL;
	if (ex->flows)
		ex->flows_tail->next = f;
	else
		ex->flows = f;
	ex->flows_tail = f;
}

/* Flow after flow, a message each, until the turn is over. */
static void fan_out(struct worker *w, struct job *j)
{
	struct exchange *ex = (struct exchange *)((char *)j - offsetof(struct exchange, fanout));
	uint64_t end_ns = w->now_ns + (uint64_t)w->opts.turn_us * 1000;
	bool more = true;

	ex->sent = 0;
	while (more && ex->flows) {
		struct exchange_flow *f = ex->flows;

		ex->flows = f->next;
		step(ex, f, end_ns);
		if (f->messages.head)
			flow_push(ex, f);
		else
			flow_end(ex, f);
		more = !turn_over(ex, end_ns);
	}
	if (ex->flows) {
		w->stats->forced_yields++;
		job_run_next_turn(w, j, RUNQ_FANOUT);
	}
}

void exchange_on_deliver(struct exchange *ex, struct exchange_msg *m)
{
	struct topic *t = topic_get(&ex->index, m->topic, m->topic_len);
	struct exchange_flow *f = t ? exchange_topic(t)->flow : NULL;

	m->serial = ++ex->serial;
	if (t && !f) {
		f = slab_alloc(&ex->flows_slab);
		if (f) {
			memset(f, 0, sizeof *f);
			f->topic = t;
			exchange_fifo_init(&f->messages);
			t->pins++;
			exchange_topic(t)->flow = f;
			flow_push(ex, f);
		} else {
			exchange_topic_release(ex, t);
		}
	}
	if (!f) {
		uint32_t cost = exchange_cost(m);
		unsigned home = m->from;

		exchange_stats(ex)->hub_lost++;
		free(m);
		exchange_done(ex, home, EXCHANGE_TO_WORKER, cost);
		return;
	}
	exchange_fifo_push(&f->messages, m);
	job_run(ex->w, &ex->fanout, RUNQ_FANOUT);
}

void exchange_fanout_init(struct exchange *ex)
{
	slab_init(&ex->flows_slab, sizeof(struct exchange_flow), CHUNK_BYTES, 0);
	job_init(&ex->fanout, fan_out);
}

void exchange_fanout_fini(struct exchange *ex)
{
	struct exchange_flow *f;

	job_cancel(ex->w, &ex->fanout);
	while ((f = ex->flows)) {
		ex->flows = f->next;
		if (topic_mark_is_set(&f->mark))
			topic_mark_clear(&f->mark);
		drop_frames(ex, f);
		exchange_fifo_clear(&f->messages);
		slab_free(&ex->flows_slab, f);
	}
	slab_fini(&ex->flows_slab);
	free(ex->scratch);
}
