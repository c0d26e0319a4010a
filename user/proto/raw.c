#include "proto/raw.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "proto/utf8.h"
#include "proto/ws.h"

enum {
	LENGTH_LEN = 4,  /* of the header, the length */
	WELCOME_LEN = 9, /* version, session id */
	CODE_LEN = 2,    /* of a CLOSE payload, the code */
};

/* raw_parser.flags */
enum {
	OPENED = 1,   /* HELLO (from a gateway: WELCOME) was seen */
	IN_FRAME = 2, /* the header is complete, the payload's last piece was not handed out */
	STARTED = 4,  /* the payload's first piece was handed out */
};

void raw_parser_init(struct raw_parser *p)
{
	*p = (struct raw_parser){.utf8_state = UTF8_ACCEPT};
}

bool raw_parser_idle(const struct raw_parser *p)
{
	return p->header_len == 0 && !(p->flags & IN_FRAME);
}

static ssize_t fail(uint16_t *ret_close, const char **ret_why, uint16_t code, const char *why)
{
	*ret_close = code;
	*ret_why = why;
	return -EPROTO;
}

static uint32_t read_be32(const uint8_t *p)
{
	uint32_t v;
	memcpy(&v, p, sizeof(v));
	return be32toh(v);
}

/* What is wrong with a frame of this type and payload length at this point, and the code to close
 * with; or NULL. */
static const char *frame_judge(const struct raw_parser *p, const struct raw_limits *limits,
	uint8_t type, uint32_t len, uint16_t *ret_close)
{
	bool opened = p->flags & OPENED, client = limits->client;

	*ret_close = WS_CLOSE_PROTOCOL_ERROR;
	if (type < TG_RAW_HELLO || type > TG_RAW_CLOSE)
		return "unknown frame type";
	if (type == TG_RAW_WELCOME) {
		if (!client)
			return "WELCOME from a client";
		if (opened)
			return "second WELCOME";
		return len == WELCOME_LEN ? NULL : "WELCOME of the wrong length";
	}
	if (type == TG_RAW_HELLO) {
		if (client)
			return "HELLO from a gateway";
		if (opened || !limits->expect_hello)
			return "second HELLO";
		*ret_close = WS_CLOSE_TOO_BIG;
		return len <= TG_RAW_HELLO_MAX ? NULL : "HELLO too long";
	}
	if (!client && limits->expect_hello && !opened)
		return "first frame is not HELLO";
	if (type == TG_RAW_TEXT || type == TG_RAW_BINARY) {
		*ret_close = WS_CLOSE_TOO_BIG;
		return len <= limits->message_max ? NULL : "message too big";
	}
	if (len > TG_RAW_CONTROL_PAYLOAD_MAX)
		return "control frame too long";
	return type == TG_RAW_CLOSE && len == 1 ? "CLOSE payload of one byte" : NULL;
}

/* Takes header bytes until the header is whole or the input ends, and begins the frame. Returns the
 * bytes taken. */
static ssize_t header_parse(struct raw_parser *p, const struct raw_limits *limits,
	const uint8_t *data, size_t len, uint16_t *ret_close, const char **ret_why)
{
	size_t take = TG_RAW_HEADER_LEN - p->header_len;
	if (take > len)
		take = len;
	memcpy(p->header + p->header_len, data, take);
	p->header_len = (uint8_t)(p->header_len + take);
	if (p->header_len < LENGTH_LEN)
		return (ssize_t)take;

	uint32_t length = read_be32(p->header);
	if (length == 0) /* there is not even a type byte to wait for */
		return fail(ret_close, ret_why, WS_CLOSE_PROTOCOL_ERROR, "frame of length 0");
	if (p->header_len < TG_RAW_HEADER_LEN)
		return (ssize_t)take;

	uint8_t type = p->header[LENGTH_LEN];
	uint16_t code;
	const char *why = frame_judge(p, limits, type, length - 1, &code);
	if (why)
		return fail(ret_close, ret_why, code, why);
	if (type == TG_RAW_HELLO || type == TG_RAW_WELCOME)
		p->flags |= OPENED;
	p->flags |= IN_FRAME;
	p->type = type;
	p->frame_left = length - 1;
	p->header_len = 0;
	p->utf8_state = UTF8_ACCEPT;
	return (ssize_t)take;
}

ssize_t raw_parse(struct raw_parser *p, const struct raw_limits *limits, uint8_t *data, size_t len,
	struct raw_event *ret_ev, bool *ret_has_event, uint16_t *ret_close, const char **ret_why)
{
	size_t used = 0;

	if (len == 0) {
		*ret_has_event = false;
		return 0;
	}
	if (!(p->flags & IN_FRAME)) {
		ssize_t n = header_parse(p, limits, data, len, ret_close, ret_why);
		if (n < 0)
			return n;
		used = (size_t)n;
		/* A frame without payload is an event now; nothing more of it will come. */
		if (!(p->flags & IN_FRAME) || (used == len && p->frame_left)) {
			*ret_has_event = false;
			return n;
		}
	}

	size_t piece = len - used < p->frame_left ? len - used : p->frame_left;
	bool start = !(p->flags & STARTED), end = piece == p->frame_left;
	if (p->type == TG_RAW_TEXT && (!utf8_feed(&p->utf8_state, data + used, piece) ||
					      (end && p->utf8_state != UTF8_ACCEPT)))
		return fail(ret_close, ret_why, WS_CLOSE_INVALID_DATA, "text is not UTF-8");

	*ret_ev = (struct raw_event){p->type, start, end, data + used, piece};
	*ret_has_event = true;
	p->frame_left -= (uint32_t)piece;
	p->flags |= STARTED;
	if (end)
		p->flags &= (uint8_t) ~(IN_FRAME | STARTED);
	return (ssize_t)(used + piece);
}

static bool path_valid(const uint8_t *path, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (path[i] <= ' ' || path[i] > '~')
			return false;
	return len > 0 && path[0] == '/';
}

int raw_hello_parse(const uint8_t *payload, size_t len, struct raw_hello *ret, const char **ret_why)
{
	const char *why = NULL;
	size_t path_len = len >= 2 ? payload[1] : 0;

	if (len < 2)
		why = "HELLO too short";
	else if (payload[0] != TG_RAW_VERSION)
		why = "HELLO of an unknown version";
	else if (path_len > len - 2)
		why = "HELLO shorter than its path";
	else if (!path_valid(payload + 2, path_len))
		why = "HELLO with a bad path";
	if (why) {
		*ret_why = why;
		return -EPROTO;
	}
	*ret = (struct raw_hello){
		.path = (const char *)payload + 2,
		.path_len = path_len,
		.token = (const char *)payload + 2 + path_len,
		.token_len = len - 2 - path_len,
	};
	return 0;
}

size_t raw_header_write(uint8_t out[TG_RAW_HEADER_LEN], enum tg_raw_type type, uint32_t payload_len)
{
	assert(payload_len < UINT32_MAX); /* the length counts the type byte */
	uint32_t length = htobe32(payload_len + 1);
	memcpy(out, &length, LENGTH_LEN);
	out[LENGTH_LEN] = (uint8_t)type;
	return TG_RAW_HEADER_LEN;
}

size_t raw_welcome_write(uint8_t out[TG_RAW_HEADER_LEN + WELCOME_LEN], uint64_t session_id)
{
	uint64_t id = htobe64(session_id);

	raw_header_write(out, TG_RAW_WELCOME, WELCOME_LEN);
	out[TG_RAW_HEADER_LEN] = TG_RAW_VERSION;
	memcpy(out + TG_RAW_HEADER_LEN + 1, &id, sizeof(id));
	return TG_RAW_HEADER_LEN + WELCOME_LEN;
}

/* As much of a UTF-8 text as fits, without half a character at its end. */
static size_t utf8_fit(const char *text, size_t max)
{
	size_t len = strnlen(text, max + 1);
	if (len <= max)
		return len;
	for (len = max; len > 0 && ((uint8_t)text[len] & 0xc0) == 0x80;)
		len--;
	return len;
}

/* Code 1005 stands for a close without one (RFC 6455 7.1.5) and is never sent: the payload is then
 * empty. */
size_t raw_close_write(uint8_t out[TG_RAW_HEADER_LEN + TG_RAW_CONTROL_PAYLOAD_MAX], uint16_t code,
	const char *reason)
{
	if (code == WS_CLOSE_NO_STATUS)
		return raw_header_write(out, TG_RAW_CLOSE, 0);

	size_t reason_len = reason ? utf8_fit(reason, TG_RAW_CONTROL_PAYLOAD_MAX - CODE_LEN) : 0;
	uint16_t be_code = htobe16(code);

	raw_header_write(out, TG_RAW_CLOSE, (uint32_t)(CODE_LEN + reason_len));
	memcpy(out + TG_RAW_HEADER_LEN, &be_code, CODE_LEN);
	if (reason_len)
		memcpy(out + TG_RAW_HEADER_LEN + CODE_LEN, reason, reason_len);
	return TG_RAW_HEADER_LEN + CODE_LEN + reason_len;
}
