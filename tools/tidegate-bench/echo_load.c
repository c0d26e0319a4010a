/* A payload is a slice of one random text; which slice follows from connection and message number,
 * so that an echo of another message, or in the wrong order, is noticed without remembering what
 * was sent.
 */
#include "echo.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/mask.h"
#include "proto/raw.h"
#include "proto/ws.h"

/* ---- messages ---- */

static const uint8_t mask[4] = {0x6b, 0x1d, 0xc4, 0x93};

static size_t frame_header(const struct echo *e, uint8_t *out, uint64_t payload_len)
{
	if (e->opts.raw)
		return raw_header_write(
			out, e->text ? TG_RAW_TEXT : TG_RAW_BINARY, (uint32_t)payload_len);
	return ws_header_write_masked(out, e->text ? WS_TEXT : WS_BINARY, true, payload_len, mask);
}

/* Fills a buffer of HOG_SEND_BYTES with as many copies of its first n bytes as it holds whole. */
static size_t repeat(uint8_t *buf, size_t n)
{
	size_t len = n;

	for (; len + n <= HOG_SEND_BYTES; len += n)
		memcpy(buf + len, buf, n);
	return len;
}

int echo_messages_init(struct echo *e)
{
	size_t len = SLICES_BYTES + e->opts.size_bytes;
	uint64_t x = 0x9e3779b97f4a7c15;

	e->plain = malloc(len);
	e->wire = malloc(len);
	if (!e->plain || !e->wire)
		return -ENOMEM;
	for (size_t i = 0; i < len; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		e->plain[i] = (uint8_t)(' ' + (x >> 33) % 95); /* printable: it may be text */
	}
	memcpy(e->wire, e->plain, len);
	if (!e->opts.raw)
		ws_mask(e->wire, len, mask, 0);
	e->header_len = frame_header(e, e->header, e->opts.size_bytes);
	e->frame_len = e->header_len + e->opts.size_bytes;

	size_t n = frame_header(e, e->hog_frames, 1);
	e->hog_frames[n++] = (uint8_t)(e->opts.raw ? 'x' : 'x' ^ mask[0]);
	e->hog_frames_len = repeat(e->hog_frames, n);
	n = e->opts.raw ? frame_header(e, e->hog_answers, 1)
			: ws_header_write(e->hog_answers, e->text ? WS_TEXT : WS_BINARY, true, 1);
	e->hog_answers[n++] = 'x';
	e->hog_answer_len = n;
	e->hog_answers_len = repeat(e->hog_answers, n);
	return 0;
}

void echo_messages_fini(struct echo *e)
{
	free(e->plain);
	free(e->wire);
	e->plain = e->wire = NULL;
}

/* Where the payload of a connection's n-th message begins: a multiple of 4, which keeps the mask in
 * step. */
static size_t slice(unsigned conn, uint32_t n)
{
	return ((conn * 2654435761u) ^ (n * 2246822519u)) >> 13 & (SLICES_BYTES - 4);
}

/* Copies up to cap bytes of frame n from its byte `at` on. */
static size_t frame_copy(
	const struct echo *e, unsigned conn, uint32_t n, size_t at, uint8_t *out, size_t cap)
{
	size_t len = e->frame_len - at, head = 0;

	if (len > cap)
		len = cap;
	if (at < e->header_len) {
		head = e->header_len - at < len ? e->header_len - at : len;
		memcpy(out, e->header + at, head);
	}
	if (len > head)
		memcpy(out + head, e->wire + slice(conn, n) + (at + head - e->header_len),
			len - head);
	return len;
}

/* ---- in the threads ---- */

static void echo_want(struct load_thread *t, struct load_conn *c, unsigned n)
{
	struct echo_thread *et = t->work;
	struct echo_conn *ec = load_conn_work(t, c);

	ec->due += n;
	load_count(&et->sent, n);
	load_send_wanted(t, c);
}

static void echo_fill(struct load_thread *t, struct load_conn *c, struct load_fill *f)
{
	const struct echo *e = ((struct echo_thread *)t->work)->echo;
	struct echo_conn *ec = load_conn_work(t, c);
	unsigned number = load_conn_number(t, c);

	while (ec->due && f->len < f->cap) {
		if (!ec->out_at && e->rate == 0)
			ec->sent_ns[ec->sent % e->depth] = load_now_ns();
		size_t n = frame_copy(
			e, number, ec->sent, ec->out_at, f->buf + f->len, f->cap - f->len);
		f->len += n;
		ec->out_at += (uint32_t)n;
		if (ec->out_at < e->frame_len)
			break;
		ec->out_at = 0;
		ec->sent++;
		ec->due--;
	}
	f->mid_frame = ec->out_at != 0;
	f->more = ec->due != 0;
}

uint64_t echo_sent_at(
	const struct load_thread *t, const struct load_conn *c, const struct echo_conn *ec)
{
	const struct echo *e = ((const struct echo_thread *)t->work)->echo;

	if (e->rate == 0)
		return ec->sent_ns[ec->received % e->depth];
	uint64_t k = (uint64_t)ec->received * t->n_conns + (load_conn_number(t, c) - t->first);
	return e->run_ns + (uint64_t)((double)k * 1e9 / (e->rate * t->n_conns / e->n_conns));
}

struct hist *echo_hist(struct echo_thread *et, uint64_t counts_ns)
{
	uint64_t split_ns = et->echo->split_ns;

	return split_ns && counts_ns >= split_ns ? &et->later_ns : &et->latency_ns;
}

static void on_echo(struct load_thread *t, struct load_conn *c, struct echo_conn *ec)
{
	struct echo_thread *et = t->work;
	const struct echo *e = et->echo;
	uint64_t now_ns = load_now_ns(), at_ns = echo_sent_at(t, c, ec);
	uint64_t counts_ns = e->rate > 0 ? at_ns : now_ns;

	if (counts_ns >= e->from_ns && counts_ns < e->to_ns)
		hist_add(echo_hist(et, counts_ns), now_ns > at_ns ? now_ns - at_ns : 0);
	ec->received++;
	ec->in_at = 0;
	load_count(&et->received, 1);
	if (e->rate == 0 && load_phase_get(t->load) == LOAD_PHASE_RUN)
		echo_want(t, c, 1);
}

static void echo_on_message(struct load_thread *t, struct load_conn *c, const struct load_piece *p)
{
	const struct echo *e = ((struct echo_thread *)t->work)->echo;
	struct echo_conn *ec = load_conn_work(t, c);

	if (ec->received == ec->sent) {
		load_fail(t, c, "a message that answers nothing");
	} else if (p->text != e->text) {
		load_fail(t, c, "echo %u is of the wrong type", ec->received);
	} else if (ec->in_at + p->len > e->opts.size_bytes ||
		   (p->end && ec->in_at + p->len != e->opts.size_bytes)) {
		load_fail(t, c, "echo %u has the wrong length", ec->received);
	} else if (p->len &&
		   memcmp(p->data,
			   e->plain + slice(load_conn_number(t, c), ec->received) + ec->in_at,
			   p->len)) {
		load_fail(t, c, "echo %u differs from what was sent", ec->received);
	} else {
		ec->in_at += (uint32_t)p->len;
		if (p->end)
			on_echo(t, c, ec);
	}
}

static void echo_on_closed(struct load_thread *t, struct load_conn *c)
{
	struct echo_thread *et = t->work;
	struct echo_conn *ec = load_conn_work(t, c);

	load_count(&et->lost, ec->sent + ec->due - ec->received);
}

static uint64_t echo_tick(struct load_thread *t, uint64_t now_ns)
{
	struct echo_thread *et = t->work;
	const struct echo *e = et->echo;

	if (load_phase_get(t->load) != LOAD_PHASE_RUN)
		return UINT64_MAX;
	if (e->rate == 0) {
		for (unsigned i = 0; i < t->n_conns && !et->started; i++) {
			struct load_conn *c = load_conn_at(t, i);
			if (c->state == LOAD_OPEN)
				echo_want(t, c, e->depth);
		}
		et->started = true;
		return UINT64_MAX;
	}
	double rate = e->rate * t->n_conns / e->n_conns;
	uint64_t until_ns = now_ns < e->to_ns ? now_ns : e->to_ns;
	for (uint64_t due_ns;
		(due_ns = e->run_ns + (uint64_t)((double)et->next * 1e9 / rate)) < until_ns;) {
		struct load_conn *c = load_conn_at(t, (unsigned)(et->next++ % t->n_conns));
		if (e->split_ns && due_ns >= e->split_ns)
			hist_add(&et->behind_ns, now_ns - due_ns);
		if (c->state == LOAD_OPEN)
			echo_want(t, c, 1);
	}
	uint64_t next_ns = e->run_ns + (uint64_t)((double)et->next * 1e9 / rate);
	return next_ns < e->to_ns ? next_ns : UINT64_MAX;
}

static void hog_fill(struct load_thread *t, struct load_conn *c, struct load_fill *f)
{
	const struct echo *e = ((struct echo_thread *)t->work)->echo;

	if (load_phase_get(t->load) != LOAD_PHASE_RUN)
		return;
	memcpy(f->buf, e->hog_frames, e->hog_frames_len);
	f->len = e->hog_frames_len;
	f->more = true;
}

static void hog_on_message(struct load_thread *t, struct load_conn *c, const struct load_piece *p)
{
	struct echo_thread *et = t->work;

	if (p->end)
		load_count(&et->received, 1);
}

/* Comparing whole buffers instead of parsing frames leaves the hog's time for hogging. */
static size_t hog_skip(struct load_thread *t, const uint8_t *data, size_t len)
{
	struct echo_thread *et = t->work;
	const struct echo *e = et->echo;
	size_t n = (len < e->hog_answers_len ? len : e->hog_answers_len) / e->hog_answer_len;

	if (memcmp(data, e->hog_answers, n * e->hog_answer_len))
		return 0;
	load_count(&et->received, n);
	return n * e->hog_answer_len;
}

static uint64_t hog_tick(struct load_thread *t, uint64_t now_ns)
{
	struct echo_thread *et = t->work;

	if (!et->started && load_phase_get(t->load) == LOAD_PHASE_RUN) {
		for (unsigned i = 0; i < t->n_conns; i++)
			load_send_wanted(t, load_conn_at(t, i));
		et->started = true;
	}
	return UINT64_MAX;
}

const struct load_ops echo_hog_ops = {
	.fill = hog_fill,
	.on_message = hog_on_message,
	.skip = hog_skip,
	.tick = hog_tick,
};

struct load_ops echo_ops(const struct echo *e)
{
	return (struct load_ops){
		.conn_bytes =
			sizeof(struct echo_conn) + (e->rate > 0 ? 0 : e->depth * sizeof(uint64_t)),
		.on_message = echo_on_message,
		.on_closed = echo_on_closed,
		.fill = echo_fill,
		.tick = echo_tick,
	};
}
