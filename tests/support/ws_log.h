/* What a WebSocket parser said, as one string that does not depend on how the input was cut:
 *
 *     T[Hel p{x}lo]       a text message "Hello" with a ping "x" in between; B[ binary, o{ pong, c{
 * close
 *
 * Bytes that are not printable, and the brackets, are written \xx. Every event is checked against
 * the contract of ws.h on its way; a breach aborts, which both cmocka and a fuzzer notice.
 * ws_model() writes the same string for a whole input by the plainest means, from RFC 6455 and not
 * from ws.c. */
#ifndef TIDEGATE_TESTS_WS_LOG_H
#define TIDEGATE_TESTS_WS_LOG_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/ws.h"
#include "utf8_ref.h"

#define WS_LOG_CHECK(cond)                                                                         \
	do {                                                                                       \
		if (!(cond)) {                                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                 \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

struct ws_log {
	char *text;
	size_t len;
	size_t cap;
	size_t empty;   /* events without payload */
	uint16_t close; /* 0: no error */
	bool in_message;
	bool in_control;
	bool message_text;
	uint8_t control_kind;
	uint64_t message_len;
};

/* Enough room for what `input` bytes can bring forth. */
static inline void ws_log_init(struct ws_log *log, size_t input)
{
	memset(log, 0, sizeof(*log));
	log->cap = 4 * input + 64;
	log->text = malloc(log->cap);
	WS_LOG_CHECK(log->text);
	log->text[0] = '\0';
}

static inline void ws_log_fini(struct ws_log *log)
{
	free(log->text);
}

static inline void ws_log_put(struct ws_log *log, const char *text)
{
	size_t n = strlen(text);

	WS_LOG_CHECK(log->len + n < log->cap);
	memcpy(log->text + log->len, text, n + 1);
	log->len += n;
}

static inline void ws_log_bytes(struct ws_log *log, const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		char out[4] = {(char)data[i], '\0'};

		if (data[i] < 0x20 || data[i] > 0x7e || strchr("[]{}\\", data[i]))
			snprintf(out, sizeof(out), "\\%02x", data[i]);
		ws_log_put(log, out);
	}
}

static inline void ws_log_event(struct ws_log *log, const struct ws_event *ev)
{
	bool data = ev->kind == WS_EVENT_DATA;
	bool *open = data ? &log->in_message : &log->in_control;

	WS_LOG_CHECK(ev->kind <= WS_EVENT_CLOSE);
	WS_LOG_CHECK(ev->start == !*open);
	WS_LOG_CHECK(!data || !log->in_control);
	if (ev->start && data) {
		log->message_text = ev->text;
		log->message_len = 0;
		ws_log_put(log, ev->text ? "T[" : "B[");
	} else if (ev->start) {
		static const char *const names[] = {"", "p{", "o{", "c{"};

		log->control_kind = ev->kind;
		ws_log_put(log, names[ev->kind]);
	}
	if (data) {
		WS_LOG_CHECK(ev->text == log->message_text);
		log->message_len += ev->len;
	} else {
		WS_LOG_CHECK(ev->kind == log->control_kind);
		WS_LOG_CHECK(!ev->text && ev->len <= WS_CONTROL_PAYLOAD_MAX);
	}
	log->empty += ev->len == 0;
	ws_log_bytes(log, ev->data, ev->len);
	if (ev->end)
		ws_log_put(log, data ? "]" : "}");
	*open = !ev->end;
}

/* Feeds one read. False after an error, which is then asked for twice. */
static inline bool ws_log_feed(struct ws_log *log, struct ws_parser *p,
	const struct ws_limits *limits, uint8_t *data, size_t len)
{
	struct ws_event ev;
	bool has_event = false;
	uint16_t close = 0;
	const char *why = NULL;

	for (size_t at = 0; at < len;) {
		ssize_t n = ws_parse(p, limits, data + at, len - at, &ev, &has_event, &close, &why);

		if (n < 0) {
			WS_LOG_CHECK(n == -EPROTO && close && why && *why);
			log->close = close;
			close = 0;
			n = ws_parse(p, limits, data + at, len - at, &ev, &has_event, &close, &why);
			WS_LOG_CHECK(n == -EPROTO && close == log->close);
			WS_LOG_CHECK(!ws_parser_idle(p));
			return false;
		}
		WS_LOG_CHECK(n > 0 && (size_t)n <= len - at);
		if (has_event) {
			/* The event ends where the consumed bytes end. */
			WS_LOG_CHECK(ev.data >= data + at && ev.data + ev.len == data + at + n);
			ws_log_event(log, &ev);
			WS_LOG_CHECK(log->message_len <= limits->message_max);
		} else {
			WS_LOG_CHECK((size_t)n == len - at && !ws_parser_idle(p));
		}
		at += (size_t)n;
	}
	return true;
}

/* As ws_log_feed, from a heap block of exactly this size: the address sanitizer sees a read or
 * write outside. */
static inline bool ws_log_feed_copy(struct ws_log *log, struct ws_parser *p,
	const struct ws_limits *limits, const uint8_t *data, size_t len)
{
	uint8_t *copy = malloc(len ? len : 1);
	bool go_on;

	WS_LOG_CHECK(copy);
	memcpy(copy, data, len);
	go_on = ws_log_feed(log, p, limits, copy, len);
	free(copy);
	return go_on;
}

/* Whether `pieces` is what `whole` may become when the same input arrives in other cuts: the same,
 * but invalid text is noticed piece by piece, so that more of the valid text before it may have
 * been handed out. */
static inline bool ws_log_same(const struct ws_log *whole, const struct ws_log *pieces)
{
	const char *rest;

	if (whole->close != pieces->close)
		return false;
	if (whole->close != WS_CLOSE_INVALID_DATA)
		return strcmp(whole->text, pieces->text) == 0 && whole->empty == pieces->empty;
	if (strncmp(whole->text, pieces->text, whole->len) != 0)
		return false;
	rest = pieces->text + whole->len;
	if (!whole->in_message && strncmp(rest, "T[", 2) == 0)
		rest += 2;
	return strpbrk(rest, "[]{}") == NULL;
}

struct ws_model_frame {
	bool fin;
	bool control;
	uint8_t opcode;
	uint64_t len;
	size_t header; /* 0: cut off */
	uint8_t mask[4];
};

/* Reads a header; returns the close code it deserves, or 0. `open` is the opcode of the message in
 * progress. */
static inline uint16_t ws_model_header(struct ws_model_frame *f, const struct ws_limits *limits,
	uint8_t open, uint64_t message_len, const uint8_t *data, size_t len)
{
	size_t extended;

	memset(f, 0, sizeof(*f));
	f->fin = data[0] >> 7;
	f->opcode = data[0] & 15;
	f->control = f->opcode >= 8;
	if (data[0] & 0x70 || (f->opcode > 2 && f->opcode < 8) || f->opcode > 10)
		return WS_CLOSE_PROTOCOL_ERROR;
	if (f->control ? !f->fin : (f->opcode == 0) != (open != 0))
		return WS_CLOSE_PROTOCOL_ERROR;
	if (len < 2)
		return 0;
	if (data[1] >> 7 != (limits->client ? 0 : 1) || (f->control && (data[1] & 127) > 125))
		return WS_CLOSE_PROTOCOL_ERROR;
	f->len = data[1] & 127;
	extended = f->len == 126 ? 2 : f->len == 127 ? 8 : 0;
	if (len < 2 + extended)
		return 0;
	if (extended) {
		f->len = 0;
		for (size_t i = 0; i < extended; i++)
			f->len = f->len * 256 + data[2 + i];
		if (f->len < (extended == 2 ? 126 : 65536) || f->len > INT64_MAX)
			return WS_CLOSE_PROTOCOL_ERROR;
	}
	if (!f->control &&
		(f->len > limits->message_max || message_len + f->len > limits->message_max ||
			message_len + f->len > UINT32_MAX))
		return WS_CLOSE_TOO_BIG;
	if (len < 2 + extended + (limits->client ? 0 : 4))
		return 0;
	f->header = 2 + extended;
	if (!limits->client) {
		memcpy(f->mask, data + f->header, 4);
		f->header += 4;
	}
	return 0;
}

/* The log of the whole input in one piece. */
static inline void ws_model(
	struct ws_log *log, const struct ws_limits *limits, const uint8_t *data, size_t len)
{
	uint8_t *message = malloc(len + 1);
	uint8_t *control = malloc(len + 1);
	size_t message_len = 0;
	uint8_t open = 0;
	struct ws_model_frame f;

	WS_LOG_CHECK(message && control);
	for (size_t at = 0; at < len;) {
		log->close = ws_model_header(&f, limits, open, message_len, data + at, len - at);
		if (log->close || !f.header)
			break;
		at += f.header;

		size_t n = f.len < len - at ? (size_t)f.len : len - at;
		uint8_t *payload = f.control ? control : message + message_len;
		bool whole = n == f.len;
		bool starts = f.opcode != WS_CONTINUATION;

		for (size_t i = 0; i < n; i++)
			payload[i] = data[at + i] ^ f.mask[i % 4];
		at += n;
		if (!f.control) {
			open = starts ? f.opcode : open;
			message_len += n;
			if (open == WS_TEXT) {
				enum utf8_ref ref = utf8_ref(message, message_len);

				if (ref == UTF8_REF_BAD ||
					(ref == UTF8_REF_CUT && f.fin && whole)) {
					log->close = WS_CLOSE_INVALID_DATA;
					break;
				}
			}
		}
		/* A frame of which only the header came says nothing yet. */
		if (n || whole) {
			struct ws_event ev = {
				.kind = f.opcode == WS_PING    ? WS_EVENT_PING
					: f.opcode == WS_PONG  ? WS_EVENT_PONG
					: f.opcode == WS_CLOSE ? WS_EVENT_CLOSE
							       : WS_EVENT_DATA,
				.text = !f.control && open == WS_TEXT,
				.start = starts,
				.end = f.fin && whole,
				.data = payload,
				.len = n,
			};
			ws_log_event(log, &ev);
		}
		if (!f.control && f.fin && whole) {
			open = 0;
			message_len = 0;
		}
	}
	free(message);
	free(control);
}

#endif
