/* RFC 6455 framing. A whole small frame at hand, which is nearly every frame, is handled without
 * touching the parser; everything else goes through the header (collected in p->header) and then
 * piece by piece through the payload. */
#include "proto/ws.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "proto/mask.h"
#include "proto/utf8.h"

_Static_assert(sizeof(struct ws_parser) <= 40, "part of every idle connection");

/* Bits of the first two header bytes, RFC 6455 5.2. */
enum {
	BIT_FIN = 0x80,
	BITS_RSV = 0x70,
	BITS_OPCODE = 0x0f,
	BIT_CONTROL = 0x08, /* within the opcode */
	BIT_MASKED = 0x80,
	BITS_LENGTH = 0x7f,
	LENGTH_16 = 126,
	LENGTH_64 = 127,
	MASK_LEN = 4,
};

/* Opcodes as bits of a word. */
enum {
	OPCODES_KNOWN = 1 << WS_CONTINUATION | 1 << WS_TEXT | 1 << WS_BINARY | 1 << WS_CLOSE |
			1 << WS_PING | 1 << WS_PONG,
	OPCODES_WHOLE = OPCODES_KNOWN & ~(1 << WS_CONTINUATION), /* may stand alone */
};

/* ws_parser.flags; none is set between messages, which is what the short way through ws_parse asks
 * for */
enum {
	FLAG_FRAME = 1 << 0,           /* in a frame's payload; its mask is header[0..3] */
	FLAG_FIN = 1 << 1,             /* that frame is its message's last */
	FLAG_MESSAGE_STARTED = 1 << 2, /* a piece of the message was handed out */
	FLAG_CONTROL_STARTED = 1 << 3, /* a piece of the control frame was handed out */
	FLAG_FAILED = 1 << 4,          /* final; frame_opcode holds the enum fault */
};

enum fault {
	FAULT_NONE,
	FAULT_RSV,
	FAULT_OPCODE,
	FAULT_CONTROL_FRAGMENTED,
	FAULT_CONTROL_TOO_LONG,
	FAULT_NOTHING_TO_CONTINUE,
	FAULT_MESSAGE_UNFINISHED,
	FAULT_UNMASKED,
	FAULT_MASKED,
	FAULT_LENGTH_NOT_MINIMAL,
	FAULT_LENGTH_TOP_BIT,
	FAULT_TOO_BIG,
	FAULT_NOT_UTF8,
	FAULT_UTF8_CUT,
};

static const struct {
	uint16_t code;
	const char *why;
} faults[] = {
	[FAULT_RSV] = {WS_CLOSE_PROTOCOL_ERROR, "reserved bit set"},
	[FAULT_OPCODE] = {WS_CLOSE_PROTOCOL_ERROR, "reserved opcode"},
	[FAULT_CONTROL_FRAGMENTED] = {WS_CLOSE_PROTOCOL_ERROR, "fragmented control frame"},
	[FAULT_CONTROL_TOO_LONG] = {WS_CLOSE_PROTOCOL_ERROR, "control frame longer than 125 bytes"},
	[FAULT_NOTHING_TO_CONTINUE] = {WS_CLOSE_PROTOCOL_ERROR, "continuation without a message"},
	[FAULT_MESSAGE_UNFINISHED] = {WS_CLOSE_PROTOCOL_ERROR,
		"new message inside a fragmented one"},
	[FAULT_UNMASKED] = {WS_CLOSE_PROTOCOL_ERROR, "unmasked frame from a client"},
	[FAULT_MASKED] = {WS_CLOSE_PROTOCOL_ERROR, "masked frame from a server"},
	[FAULT_LENGTH_NOT_MINIMAL] = {WS_CLOSE_PROTOCOL_ERROR, "length not in its shortest form"},
	[FAULT_LENGTH_TOP_BIT] = {WS_CLOSE_PROTOCOL_ERROR, "length above 2^63 - 1"},
	[FAULT_TOO_BIG] = {WS_CLOSE_TOO_BIG, "message too big"},
	[FAULT_NOT_UTF8] = {WS_CLOSE_INVALID_DATA, "text is not UTF-8"},
	[FAULT_UTF8_CUT] = {WS_CLOSE_INVALID_DATA, "text ends inside a character"},
};

static const uint8_t event_kind[BITS_OPCODE + 1] = {
	[WS_CONTINUATION] = WS_EVENT_DATA,
	[WS_TEXT] = WS_EVENT_DATA,
	[WS_BINARY] = WS_EVENT_DATA,
	[WS_CLOSE] = WS_EVENT_CLOSE,
	[WS_PING] = WS_EVENT_PING,
	[WS_PONG] = WS_EVENT_PONG,
};

void ws_parser_init(struct ws_parser *p)
{
	memset(p, 0, sizeof(*p));
}

bool ws_parser_idle(const struct ws_parser *p)
{
	return (p->header_len | p->message_opcode | (p->flags & (FLAG_FRAME | FLAG_FAILED))) == 0;
}

static ssize_t fail(
	struct ws_parser *p, enum fault fault, uint16_t *ret_close, const char **ret_why)
{
	p->flags = FLAG_FAILED;
	p->frame_opcode = (uint8_t)fault;
	*ret_close = faults[fault].code;
	*ret_why = faults[fault].why;
	return -EPROTO;
}

static uint64_t read_be(const uint8_t *p, size_t bytes)
{
	uint64_t v = 0;

	for (size_t i = 0; i < bytes; i++)
		v = v << 8 | p[i];
	return v;
}

static void write_be(uint8_t *p, uint64_t v, size_t bytes)
{
	for (size_t i = bytes; i > 0; i--, v >>= 8)
		p[i - 1] = (uint8_t)v;
}

/* Bytes of extended length behind the first two bytes. */
static size_t extended_len(uint8_t second)
{
	uint8_t length = second & BITS_LENGTH;

	return length == LENGTH_16 ? 2 : length == LENGTH_64 ? 8 : 0;
}

static uint64_t payload_len(const uint8_t *header)
{
	size_t extended = extended_len(header[1]);

	return extended ? read_be(header + 2, extended) : header[1] & BITS_LENGTH;
}

static enum fault length_fault(const struct ws_parser *p, const struct ws_limits *limits)
{
	uint64_t len = payload_len(p->header);
	uint64_t before = p->message_opcode ? p->message_len : 0;

	if (len >> 63)
		return FAULT_LENGTH_TOP_BIT;
	switch (p->header[1] & BITS_LENGTH) {
	case LENGTH_16:
		if (len < LENGTH_16)
			return FAULT_LENGTH_NOT_MINIMAL;
		break;
	case LENGTH_64:
		if (len <= UINT16_MAX)
			return FAULT_LENGTH_NOT_MINIMAL;
		break;
	default:
		break;
	}
	if (p->header[0] & BIT_CONTROL)
		return FAULT_NONE;
	/* The limit may have been lowered since the message began, hence two comparisons. */
	if (before > limits->message_max || len > limits->message_max - before ||
		len > UINT32_MAX - before)
		return FAULT_TOO_BIG;
	return FAULT_NONE;
}

/* What is wrong with the header's first header_len bytes. In the order of the bytes, so that it
 * does not matter how the input was cut. */
static enum fault header_fault(const struct ws_parser *p, const struct ws_limits *limits)
{
	uint8_t opcode = p->header[0] & BITS_OPCODE;
	bool control = opcode & BIT_CONTROL;

	if (p->header[0] & BITS_RSV)
		return FAULT_RSV;
	if (!(OPCODES_KNOWN >> opcode & 1))
		return FAULT_OPCODE;
	if (control && !(p->header[0] & BIT_FIN))
		return FAULT_CONTROL_FRAGMENTED;
	if (opcode == WS_CONTINUATION && !p->message_opcode)
		return FAULT_NOTHING_TO_CONTINUE;
	if (!control && opcode != WS_CONTINUATION && p->message_opcode)
		return FAULT_MESSAGE_UNFINISHED;

	if (p->header_len < 2)
		return FAULT_NONE;
	if (!(p->header[1] & BIT_MASKED) != limits->client)
		return limits->client ? FAULT_MASKED : FAULT_UNMASKED;
	if (control && (p->header[1] & BITS_LENGTH) > WS_CONTROL_PAYLOAD_MAX)
		return FAULT_CONTROL_TOO_LONG;

	if (p->header_len < 2 + extended_len(p->header[1]))
		return FAULT_NONE;
	return length_fault(p, limits);
}

/* Moves on from a complete header to its payload. */
static void frame_begin(struct ws_parser *p, const struct ws_limits *limits)
{
	uint8_t opcode = p->header[0] & BITS_OPCODE;
	uint64_t len = payload_len(p->header);

	if (!(opcode & BIT_CONTROL)) {
		if (opcode != WS_CONTINUATION) {
			p->message_opcode = opcode;
			p->message_len = 0;
		}
		p->message_len += (uint32_t)len;
	}
	p->frame_left = len;
	p->frame_opcode = opcode;
	p->flags |= p->header[0] & BIT_FIN ? FLAG_FRAME | FLAG_FIN : FLAG_FRAME;
	if (!limits->client)
		memmove(p->header, p->header + p->header_len - MASK_LEN, MASK_LEN);
	p->mask_phase = 0;
	p->header_len = 0;
}

/* Copies up to `want` header bytes in all; returns the bytes taken. */
static size_t header_fill(struct ws_parser *p, size_t want, const uint8_t *data, size_t len)
{
	size_t n = want - p->header_len;

	if (n > len)
		n = len;
	memcpy(p->header + p->header_len, data, n);
	p->header_len = (uint8_t)(p->header_len + n);
	return n;
}

/* Takes header bytes; *ret_taken of them. With the last one FLAG_FRAME is set. */
static enum fault header_take(struct ws_parser *p, const struct ws_limits *limits,
	const uint8_t *data, size_t len, size_t *ret_taken)
{
	size_t taken = 0;
	size_t whole = 2;
	enum fault fault;

	if (p->header_len < 2)
		taken = header_fill(p, 2, data, len);
	if (p->header_len >= 2) {
		whole = 2 + extended_len(p->header[1]) + (limits->client ? 0 : MASK_LEN);
		taken += header_fill(p, whole, data + taken, len - taken);
	}
	fault = header_fault(p, limits);
	if (fault)
		return fault;
	if (p->header_len == whole)
		frame_begin(p, limits);
	*ret_taken = taken;
	return FAULT_NONE;
}

/* Hands out the n payload bytes at data, which lie in the current frame. Between messages
 * utf8_state is UTF8_ACCEPT: a text that ends otherwise is a fault. */
static enum fault payload_take(struct ws_parser *p, const struct ws_limits *limits, uint8_t *data,
	size_t n, struct ws_event *ret_ev)
{
	bool control = p->frame_opcode & BIT_CONTROL;
	bool text = !control && p->message_opcode == WS_TEXT;
	uint8_t started = control ? FLAG_CONTROL_STARTED : FLAG_MESSAGE_STARTED;
	bool end = n == p->frame_left && (p->flags & FLAG_FIN);

	if (!limits->client)
		p->mask_phase = ws_mask(data, n, p->header, p->mask_phase);
	if (text) {
		if (!utf8_feed(&p->utf8_state, data, n))
			return FAULT_NOT_UTF8;
		if (end && p->utf8_state != UTF8_ACCEPT)
			return FAULT_UTF8_CUT;
	}
	ret_ev->kind = event_kind[p->frame_opcode];
	ret_ev->text = text;
	ret_ev->start = !(p->flags & started);
	ret_ev->end = end;
	ret_ev->data = data;
	ret_ev->len = n;

	p->flags |= started;
	p->frame_left -= n;
	if (p->frame_left == 0)
		p->flags &= (uint8_t) ~(FLAG_FRAME | FLAG_FIN);
	if (end) {
		p->flags &= (uint8_t)~started;
		if (!control)
			p->message_opcode = 0;
	}
	return FAULT_NONE;
}

/* Any state, any cut. */
static ssize_t parse_pieces(struct ws_parser *p, const struct ws_limits *limits, uint8_t *data,
	size_t len, struct ws_event *ret_ev, bool *ret_has_event, uint16_t *ret_close,
	const char **ret_why)
{
	size_t taken = 0;
	size_t n;
	enum fault fault;

	if (p->flags & FLAG_FAILED)
		return fail(p, p->frame_opcode, ret_close, ret_why);
	if (!(p->flags & FLAG_FRAME)) {
		fault = header_take(p, limits, data, len, &taken);
		if (fault)
			return fail(p, fault, ret_close, ret_why);
		if (!(p->flags & FLAG_FRAME)) {
			*ret_has_event = false;
			return (ssize_t)taken;
		}
	}
	n = len - taken < p->frame_left ? len - taken : (size_t)p->frame_left;
	if (n == 0 && p->frame_left > 0) {
		*ret_has_event = false;
		return (ssize_t)taken;
	}
	fault = payload_take(p, limits, data + taken, n, ret_ev);
	if (fault)
		return fail(p, fault, ret_close, ret_why);
	*ret_has_event = true;
	return (ssize_t)(taken + n);
}

ssize_t ws_parse(struct ws_parser *p, const struct ws_limits *limits, uint8_t *data, size_t len,
	struct ws_event *ret_ev, bool *ret_has_event, uint16_t *ret_close, const char **ret_why)
{
	size_t head = limits->client ? 2 : 2 + MASK_LEN;

	if (len == 0) {
		*ret_has_event = false;
		return 0;
	}
	if (len < head || (p->flags | p->header_len | p->message_opcode))
		return parse_pieces(
			p, limits, data, len, ret_ev, ret_has_event, ret_close, ret_why);

	uint8_t opcode = data[0] & BITS_OPCODE;
	bool masked = data[1] & BIT_MASKED;
	size_t n = data[1] & BITS_LENGTH;
	uint8_t *payload = data + head;

	if ((data[0] & (BIT_FIN | BITS_RSV)) != BIT_FIN || !(OPCODES_WHOLE >> opcode & 1) ||
		masked == limits->client || n > WS_CONTROL_PAYLOAD_MAX || n > len - head ||
		n > limits->message_max)
		return parse_pieces(
			p, limits, data, len, ret_ev, ret_has_event, ret_close, ret_why);
	if (masked)
		ws_mask(payload, n, data + 2, 0);
	if (opcode == WS_TEXT) {
		uint8_t state = UTF8_ACCEPT;

		if (!utf8_feed(&state, payload, n))
			return fail(p, FAULT_NOT_UTF8, ret_close, ret_why);
		if (state != UTF8_ACCEPT)
			return fail(p, FAULT_UTF8_CUT, ret_close, ret_why);
	}
	*ret_ev = (struct ws_event){
		.kind = event_kind[opcode],
		.text = opcode == WS_TEXT,
		.start = true,
		.end = true,
		.data = payload,
		.len = n,
	};
	*ret_has_event = true;
	return (ssize_t)(head + n);
}

/* RFC 6455 7.4.2: a code that may stand in a close frame. */
static bool code_sendable(uint16_t code)
{
	if (code >= 3000)
		return code <= 4999;
	/* 1004 is reserved; 1005, 1006 and 1015 are for local use; 1012-1014 are registered with
	 * IANA. */
	return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014);
}

int ws_close_parse(const uint8_t *payload, size_t len, uint16_t *ret_code,
	const uint8_t **ret_reason, size_t *ret_reason_len)
{
	uint16_t code = WS_CLOSE_NO_STATUS;
	size_t head = 0;

	if (len == 1) {
		*ret_code = WS_CLOSE_PROTOCOL_ERROR;
		return -EPROTO;
	}
	if (len >= 2) {
		head = 2;
		code = (uint16_t)read_be(payload, 2);
		if (!code_sendable(code)) {
			*ret_code = WS_CLOSE_PROTOCOL_ERROR;
			return -EPROTO;
		}
	}
	if (!utf8_valid(payload + head, len - head)) {
		*ret_code = WS_CLOSE_INVALID_DATA;
		return -EPROTO;
	}
	*ret_code = code;
	*ret_reason = payload + head;
	*ret_reason_len = len - head;
	return 0;
}

static size_t header_write(
	uint8_t *out, enum ws_opcode op, bool fin, uint64_t len, uint8_t mask_bit)
{
	assert(len <= INT64_MAX);
	out[0] = (uint8_t)((fin ? BIT_FIN : 0) | op);
	if (len < LENGTH_16) {
		out[1] = (uint8_t)(mask_bit | len);
		return 2;
	}
	if (len <= UINT16_MAX) {
		out[1] = mask_bit | LENGTH_16;
		write_be(out + 2, len, 2);
		return 4;
	}
	out[1] = mask_bit | LENGTH_64;
	write_be(out + 2, len, 8);
	return 10;
}

size_t ws_header_write(uint8_t out[WS_SERVER_HEADER_MAX], enum ws_opcode op, bool fin, uint64_t len)
{
	return header_write(out, op, fin, len, 0);
}

size_t ws_header_write_masked(uint8_t out[WS_HEADER_MAX], enum ws_opcode op, bool fin, uint64_t len,
	const uint8_t mask[4])
{
	size_t n = header_write(out, op, fin, len, BIT_MASKED);

	memcpy(out + n, mask, MASK_LEN);
	return n + MASK_LEN;
}

/* Length of the longest prefix of at most `max` bytes that is whole UTF-8 characters. */
static size_t whole_characters(const char *text, size_t max)
{
	uint8_t state = UTF8_ACCEPT;
	size_t whole = 0;

	for (size_t i = 0; i < max && text[i]; i++) {
		if (!utf8_feed(&state, (const uint8_t *)text + i, 1))
			break;
		if (state == UTF8_ACCEPT)
			whole = i + 1;
	}
	return whole;
}

/* A code that may not be sent (1005: the peer gave none) makes an empty close frame, which is how
 * it is said on the wire. */
size_t ws_close_write(uint8_t out[2 + WS_CONTROL_PAYLOAD_MAX], uint16_t code, const char *reason)
{
	size_t reason_len = reason ? whole_characters(reason, WS_CONTROL_PAYLOAD_MAX - 2) : 0;

	if (!code_sendable(code))
		return ws_header_write(out, WS_CLOSE, true, 0);

	size_t head = ws_header_write(out, WS_CLOSE, true, 2 + reason_len);

	write_be(out + head, code, 2);
	if (reason_len)
		memcpy(out + head + 2, reason, reason_len);
	return head + 2 + reason_len;
}
