/* A publication's data is {"n":"0000002a","pad":"…"}: subscribers find the number by its name
 * wherever the server puts the data in its message, and parse nothing else of what arrives by the
 * hundred thousand a second.
 */
#include "fan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proto/mask.h"
#include "proto/raw.h"
#include "proto/ws.h"

enum {
	DIGITS = 8,
	NAME_LEN = 5, /* of number_name */
	PART_MAX = 2 * FAN_SIZE_MAX,
};

static const char number_name[] = "\"n\":\"";

/* One connection's part, the workload's state in the engine. */
struct subscriber {
	uint32_t next; /* number of the next publication */
	bool asked;
	uint32_t part_len; /* of a message that comes in pieces */
	char *part;
};

struct publisher {
	uint32_t sent; /* handed to the engine */
};

/* ---- messages ---- */

int fan_messages_init(struct fan *f)
{
	static const char head[] = "{\"type\":\"publish\",\"topic\":\"%s\",\"data\":{\"n\":\"";
	static const char middle[] = "\",\"pad\":\"", tail[] = "\"}}";
	size_t data_least = NAME_LEN + 1 + DIGITS + sizeof middle - 1 + 2;
	size_t pad = f->opts.size_bytes > data_least ? f->opts.size_bytes - data_least : 0;
	size_t room = sizeof head + sizeof f->topic + DIGITS + sizeof middle + pad + sizeof tail;

	snprintf(f->topic, sizeof f->topic, "bench/%d", (int)getpid());
	f->subscribe_len = (size_t)snprintf(f->subscribe, sizeof f->subscribe,
		"{\"type\":\"subscribe\",\"topic\":\"%s\",\"id\":1}", f->topic);
	f->publish = malloc(room);
	if (!f->publish)
		return -ENOMEM;
	size_t n = (size_t)snprintf(f->publish, room, head, f->topic);
	f->number_at = n;
	memset(f->publish + n, '0', DIGITS);
	n += DIGITS;
	memcpy(f->publish + n, middle, sizeof middle - 1);
	n += sizeof middle - 1;
	memset(f->publish + n, 'x', pad);
	n += pad;
	memcpy(f->publish + n, tail, sizeof tail - 1);
	f->publish_len = n + sizeof tail - 1;
	return 0;
}

void fan_messages_fini(struct fan *f)
{
	free(f->publish);
	f->publish = NULL;
}

/* A text message as a client sends it; returns its length, and where the text stands. */
static size_t frame(const struct fan *f, uint8_t *out, const char *text, size_t len, long number)
{
	static const uint8_t mask[4] = {0x59, 0x0e, 0xb1, 0xe6};
	size_t n = f->opts.raw ? raw_header_write(out, TG_RAW_TEXT, (uint32_t)len)
			       : ws_header_write_masked(out, WS_TEXT, true, len, mask);
	char digits[DIGITS + 1];

	memcpy(out + n, text, len);
	if (number >= 0) {
		snprintf(digits, sizeof digits, "%08lx", (unsigned long)number & 0xffffffff);
		memcpy(out + n + f->number_at, digits, DIGITS);
	}
	if (!f->opts.raw)
		ws_mask(out + n, len, mask, 0);
	return n + len;
}

/* ---- subscribers ---- */

static void subscriber_on_open(struct load_thread *t, struct load_conn *c)
{
	load_send_wanted(t, c);
}

static void subscriber_fill(struct load_thread *t, struct load_conn *c, struct load_fill *fill)
{
	const struct fan *f = ((struct fan_thread *)t->work)->fan;
	struct subscriber *s = load_conn_work(t, c);

	if (s->asked)
		return;
	s->asked = true;
	fill->len = frame(f, fill->buf, f->subscribe, f->subscribe_len, -1);
}

/* The number in a message, or -1. */
static long number_in(struct fan_thread *ft, const char *text, size_t len)
{
	size_t at = ft->number_at;
	long v = 0;

	if (at + NAME_LEN > len || memcmp(text + at, number_name, NAME_LEN)) {
		const char *found = memmem(text, len, number_name, NAME_LEN);
		if (!found)
			return -1;
		ft->number_at = at = (size_t)(found - text);
	}
	if (len - at < NAME_LEN + DIGITS)
		return -1;
	for (unsigned i = 0; i < DIGITS; i++) {
		char ch = text[at + NAME_LEN + i];
		bool digit = ch >= '0' && ch <= '9';
		if (!digit && (ch < 'a' || ch > 'f'))
			return -1;
		v = v << 4 | (digit ? ch - '0' : ch - 'a' + 10);
	}
	return v;
}

static void on_publication(
	struct load_thread *t, struct load_conn *c, struct subscriber *s, long number)
{
	struct fan_thread *ft = t->work;
	struct fan *f = ft->fan;
	uint64_t now_ns = load_now_ns();

	if ((uint64_t)number >= load_read(&f->published)) {
		load_fail(t, c, "publication %ld, which nobody made", number);
		return;
	}
	if ((uint32_t)number < s->next) {
		load_fail(t, c, "publication %ld after %u: twice, or out of order", number,
			s->next - 1);
		return;
	}
	uint64_t due_ns = load_read(&f->due_ns[number]);
	struct fan_publication *p = &ft->publications[number];
	p->deliveries++;
	p->last_ns = now_ns;
	if ((unsigned)number % f->count >= f->warm)
		hist_add(&ft->latency_ns[(unsigned)number / f->count],
			now_ns > due_ns ? now_ns - due_ns : 0);
	if ((uint32_t)number > s->next)
		load_count(&ft->missed, (uint32_t)number - s->next);
	s->next = (uint32_t)number + 1;
	load_count(&ft->delivered, 1);
}

static void on_text(struct load_thread *t, struct load_conn *c, struct subscriber *s,
	const char *text, size_t len)
{
	struct fan_thread *ft = t->work;
	long number = number_in(ft, text, len);

	if (number >= 0 && ft->deaf) {
		return; /* it came with the acknowledgement */
	} else if (number >= 0) {
		on_publication(t, c, s, number);
	} else if (memmem(text, len, "\"ack\"", 5)) {
		load_count(&ft->subscribed, 1);
		if (ft->deaf)
			load_stop_reading(t, c);
	} else {
		load_fail(t, c, "the hub says %.*s", len < 100 ? (int)len : 100, text);
	}
}

static void subscriber_on_message(
	struct load_thread *t, struct load_conn *c, const struct load_piece *p)
{
	struct subscriber *s = load_conn_work(t, c);
	uint16_t gen = c->gen;

	if (p->start && p->end) {
		on_text(t, c, s, (const char *)p->data, p->len);
		return;
	}
	char *part = s->part_len + p->len <= PART_MAX ? realloc(s->part, s->part_len + p->len + 1)
						      : NULL;
	if (!part) {
		load_fail(t, c, "a message of more than %d bytes", PART_MAX);
		return;
	}
	if (p->len)
		memcpy(part + s->part_len, p->data, p->len);
	s->part = part;
	s->part_len += (uint32_t)p->len;
	if (!p->end)
		return;
	on_text(t, c, s, part, s->part_len);
	if (c->gen == gen) {
		free(s->part);
		s->part = NULL;
		s->part_len = 0;
	}
}

static void subscriber_on_closed(struct load_thread *t, struct load_conn *c)
{
	struct subscriber *s = load_conn_work(t, c);

	free(s->part);
	s->part = NULL;
	s->part_len = 0;
}

struct load_ops fan_subscriber_ops(void)
{
	return (struct load_ops){
		.conn_bytes = sizeof(struct subscriber),
		.on_open = subscriber_on_open,
		.on_message = subscriber_on_message,
		.on_closed = subscriber_on_closed,
		.fill = subscriber_fill,
	};
}

/* ---- the publisher ---- */

static void publisher_fill(struct load_thread *t, struct load_conn *c, struct load_fill *fill)
{
	struct fan *f = t->work;
	struct publisher *p = load_conn_work(t, c);
	size_t each = WS_HEADER_MAX + f->publish_len;

	while (p->sent < load_read(&f->published) && fill->cap - fill->len >= each)
		fill->len += frame(
			f, fill->buf + fill->len, f->publish, f->publish_len, (long)p->sent++);
	fill->more = p->sent < load_read(&f->published);
}

static void publisher_on_message(
	struct load_thread *t, struct load_conn *c, const struct load_piece *p)
{
	load_fail(t, c, "the hub says %.*s", p->len < 100 ? (int)p->len : 100, p->data);
}

static uint64_t publisher_tick(struct load_thread *t, uint64_t now_ns)
{
	struct fan *f = t->work;
	struct load_conn *c = load_conn_at(t, 0);

	if (load_phase_get(t->load) != LOAD_PHASE_RUN)
		return UINT64_MAX;
	uint64_t n = load_read(&f->published), allowed = load_read(&f->allowed);
	uint64_t first = allowed - f->count, run_ns = load_read(&f->run_ns), due_ns = UINT64_MAX;
	for (; n < allowed; n++) {
		due_ns = run_ns + (uint64_t)((double)(n - first) * 1e9 / f->rate);
		if (due_ns > now_ns)
			break;
		atomic_store_explicit(&f->due_ns[n], due_ns, memory_order_relaxed);
		atomic_store_explicit(&f->published, n + 1, memory_order_release);
		if (c->state == LOAD_OPEN)
			load_send_wanted(t, c);
		due_ns = UINT64_MAX;
	}
	return due_ns;
}

const struct load_ops fan_publisher_ops = {
	.conn_bytes = sizeof(struct publisher),
	.on_message = publisher_on_message,
	.fill = publisher_fill,
	.tick = publisher_tick,
};
