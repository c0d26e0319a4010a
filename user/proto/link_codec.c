#include "proto/link_codec.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

enum {
	GATEWAY = 1 << LINK_FROM_GATEWAY,
	SERVICE = 1 << LINK_FROM_SERVICE,
	BOTH = GATEWAY | SERVICE,
};

enum session_rule {
	SESSION_ZERO,
	SESSION_SOME,
	SESSION_ANY,
};

/* What a header of each type may hold. */
static const struct {
	const char *name;
	uint32_t min, max; /* payload */
	uint8_t flags;
	uint8_t from;
	uint8_t session;
} types[] = {
	/* A HELLO of another version may be longer; only its first six bytes are known. */
	[TG_LINK_HELLO] = {"HELLO", 6, TG_LINK_HELLO_MAX, 0, BOTH, SESSION_ZERO},
	[TG_LINK_OPEN] = {"OPEN", 2, TG_LINK_OPEN_MAX, TG_LINK_FLAG_RESUMED, GATEWAY, SESSION_SOME},
	[TG_LINK_ACCEPT] = {"ACCEPT", 0, TG_LINK_SUBPROTOCOL_MAX, 0, SERVICE, SESSION_SOME},
	[TG_LINK_REJECT] = {"REJECT", 2, 2 + TG_LINK_REASON_MAX, 0, SERVICE, SESSION_SOME},
	[TG_LINK_MESSAGE] = {"MESSAGE", 0, TG_LINK_MESSAGE_PAYLOAD_MAX,
		TG_LINK_FLAG_TEXT | TG_LINK_FLAG_MORE, BOTH, SESSION_SOME},
	[TG_LINK_CLOSE] = {"CLOSE", 6, 6 + TG_LINK_REASON_MAX, 0, BOTH, SESSION_SOME},
	[TG_LINK_SUBSCRIBE] = {"SUBSCRIBE", 1, TG_LINK_TOPIC_MAX, 0, SERVICE, SESSION_SOME},
	[TG_LINK_UNSUBSCRIBE] = {"UNSUBSCRIBE", 1, TG_LINK_TOPIC_MAX, 0, SERVICE, SESSION_SOME},
	[TG_LINK_PUBLISH] = {"PUBLISH", 2, LINK_PUBLISH_PAYLOAD_MAX, TG_LINK_FLAG_TEXT, SERVICE,
		SESSION_ZERO},
	[TG_LINK_CREDIT] = {"CREDIT", 4, 4, 0, BOTH, SESSION_ANY},
	[TG_LINK_PING] = {"PING", 8, 8, 0, BOTH, SESSION_ZERO},
	[TG_LINK_PONG] = {"PONG", 8, 8, 0, BOTH, SESSION_ZERO},
	[TG_LINK_DRAIN] = {"DRAIN", 4, 4, 0, BOTH, SESSION_ZERO},
	[TG_LINK_ERROR] = {"ERROR", 2, 2 + TG_LINK_REASON_MAX, 0, BOTH, SESSION_ZERO},
};

static int bad(const char **ret_why, const char *why)
{
	*ret_why = why;
	return -EPROTO;
}

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static uint64_t get64(const uint8_t *p)
{
	return (uint64_t)get32(p) << 32 | get32(p + 4);
}

static void put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, (uint16_t)(v >> 16));
	put16(p + 2, (uint16_t)v);
}

static void put64(uint8_t *p, uint64_t v)
{
	put32(p, (uint32_t)(v >> 32));
	put32(p + 4, (uint32_t)v);
}

/* Length of the UTF-8 sequence at p (RFC 3629: shortest form, no surrogates, up to U+10FFFF), 0
 * when there is none. Texts here are short; proto/utf8.h is for messages, and the library does
 * without it. */
static size_t utf8_sequence(const uint8_t *p, size_t len)
{
	if (len == 0)
		return 0;
	uint8_t c = p[0];
	if (c < 0x80)
		return 1;
	size_t n = c >= 0xc2 && c <= 0xdf   ? 2
		   : c >= 0xe0 && c <= 0xef ? 3
		   : c >= 0xf0 && c <= 0xf4 ? 4
					    : 0;
	if (n == 0 || n > len)
		return 0;
	uint8_t low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
	uint8_t high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
	if (p[1] < low || p[1] > high)
		return 0;
	for (size_t i = 2; i < n; i++) {
		if (p[i] < 0x80 || p[i] > 0xbf)
			return 0;
	}
	return n;
}

static bool utf8_valid(const uint8_t *p, size_t len)
{
	for (size_t i = 0, n; i < len; i += n) {
		n = utf8_sequence(p + i, len - i);
		if (n == 0)
			return false;
	}
	return true;
}

const char *link_type_name(uint8_t type)
{
	return type < sizeof(types) / sizeof(types[0]) && types[type].name ? types[type].name : "?";
}

ssize_t link_header_parse(const uint8_t *data, size_t len, enum link_from from,
	struct link_header *ret, const char **ret_why)
{
	if (len < TG_LINK_HEADER_LEN)
		return 0;
	struct link_header h = {
		.length = get32(data),
		.type = data[4],
		.flags = data[5],
		.session = get64(data + 8),
	};
	if (h.type >= sizeof(types) / sizeof(types[0]) || !types[h.type].name)
		return bad(ret_why, "unknown frame type");
	if (get16(data + 6) != 0)
		return bad(ret_why, "reserved field is not zero");
	if (!(types[h.type].from & 1 << from))
		return bad(ret_why, "frame type of the other side");
	if (h.flags & ~types[h.type].flags)
		return bad(ret_why, "flag that the frame type does not have");
	if (h.length < types[h.type].min)
		return bad(ret_why, "frame too short for its type");
	if (h.length > types[h.type].max)
		return bad(ret_why, "frame too long for its type");
	if (types[h.type].session == SESSION_ZERO && h.session != 0)
		return bad(ret_why, "session given for a frame of the link");
	if (types[h.type].session == SESSION_SOME && h.session == 0)
		return bad(ret_why, "session 0 for a frame of a session");
	if (h.type == TG_LINK_MESSAGE && h.flags & TG_LINK_FLAG_MORE && h.length == 0)
		return bad(ret_why, "empty part of a message");
	*ret = h;
	return TG_LINK_HEADER_LEN;
}

void link_header_write(uint8_t out[TG_LINK_HEADER_LEN], const struct link_header *h)
{
	put32(out, h->length);
	out[4] = h->type;
	out[5] = h->flags;
	put16(out + 6, 0);
	put64(out + 8, h->session);
}

bool link_name_valid(const char *s, size_t len)
{
	if (len < 1 || len > TG_LINK_NAME_MAX)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (s[i] <= ' ' || s[i] > '~' || s[i] == '"' || s[i] == '\\')
			return false;
	}
	return true;
}

bool link_subprotocol_valid(const char *s, size_t len)
{
	if (len < 1 || len > TG_LINK_SUBPROTOCOL_MAX)
		return false;
	for (size_t i = 0; i < len; i++) {
		/* RFC 9110 5.6.2: visible ASCII but for the delimiters */
		if (s[i] <= ' ' || s[i] > '~' || strchr("\"(),/:;<=>?@[\\]{}", s[i]))
			return false;
	}
	return true;
}

bool link_topic_valid(const char *s, size_t len)
{
	if (len < 1 || len > TG_LINK_TOPIC_MAX || !utf8_valid((const uint8_t *)s, len))
		return false;
	for (size_t i = 0; i < len; i++) {
		if ((uint8_t)s[i] < ' ' || s[i] == 0x7f)
			return false;
	}
	return true;
}

bool link_close_code_valid(uint16_t code, enum link_from from)
{
	/* RFC 6455 7.4.2 and the IANA registry; 1005 and 1006 tell a service how the client went,
	 * and no client hears them. */
	if (code == 1005 || code == 1006)
		return from == LINK_FROM_GATEWAY;
	return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
	       (code >= 3000 && code <= 4999);
}

size_t link_reason_fit(const char *reason, size_t len)
{
	const uint8_t *p = (const uint8_t *)reason;
	size_t fit = 0;
	for (size_t i = 0, n; i < len; i += n) {
		n = utf8_sequence(p + i, len - i);
		if (n == 0)
			return 0;
		if (i + n <= TG_LINK_REASON_MAX)
			fit = i + n;
	}
	return fit;
}

int link_hello_parse(
	const uint8_t *payload, size_t len, struct link_hello *ret, const char **ret_why)
{
	if (len < 6)
		return bad(ret_why, "HELLO too short");
	if (get32(payload) != TG_LINK_MAGIC) {
		*ret_why = "not the link protocol";
		return -EPROTONOSUPPORT;
	}
	if (get16(payload + 4) != TG_LINK_VERSION) {
		*ret_why = "protocol version not supported, this side speaks 1";
		return -EPROTONOSUPPORT;
	}
	if (len < LINK_HELLO_FIXED_LEN)
		return bad(ret_why, "HELLO too short");
	struct link_hello h = {
		.worker = get16(payload + 6),
		.session_window = get32(payload + 8),
		.link_window = get32(payload + 12),
		.payload_max = get32(payload + 16),
		.message_max = get32(payload + 20),
		.features = get32(payload + 24),
		.name = (const char *)payload + LINK_HELLO_FIXED_LEN,
		.name_len = len - LINK_HELLO_FIXED_LEN,
	};
	if (h.session_window < TG_LINK_WINDOW_MIN || h.session_window > TG_LINK_WINDOW_MAX)
		return bad(ret_why, "session window out of range");
	if (h.link_window < TG_LINK_WINDOW_MIN || h.link_window > TG_LINK_WINDOW_MAX)
		return bad(ret_why, "link window out of range");
	if (h.payload_max < TG_LINK_MESSAGE_PAYLOAD_MIN ||
		h.payload_max > TG_LINK_MESSAGE_PAYLOAD_MAX)
		return bad(ret_why, "payload_max out of range");
	if (h.message_max == 0)
		return bad(ret_why, "message_max is zero");
	if (!link_name_valid(h.name, h.name_len))
		return bad(ret_why, "name is not 1 to 63 printable characters");
	*ret = h;
	return 0;
}

int link_open_parse(const uint8_t *payload, size_t len, const char **ret_why)
{
	if (len < 2 || payload[0] != '{' || payload[len - 1] != '}' || memchr(payload, 0, len))
		return bad(ret_why, "metadata is not a JSON object");
	return 0;
}

int link_accept_parse(const uint8_t *payload, size_t len, const char **ret_why)
{
	if (len > 0 && !link_subprotocol_valid((const char *)payload, len))
		return bad(ret_why, "subprotocol is not a token");
	return 0;
}

int link_reject_parse(const uint8_t *payload, size_t len, uint16_t *ret_status,
	const char **ret_reason, size_t *ret_reason_len, const char **ret_why)
{
	if (len < 2 || get16(payload) < 400 || get16(payload) > 599)
		return bad(ret_why, "status of REJECT is not 400 to 599");
	if (!utf8_valid(payload + 2, len - 2))
		return bad(ret_why, "reason is not UTF-8");
	*ret_status = get16(payload);
	*ret_reason = (const char *)payload + 2;
	*ret_reason_len = len - 2;
	return 0;
}

int link_close_parse(const uint8_t *payload, size_t len, enum link_from from,
	struct link_close *ret, const char **ret_why)
{
	if (len < 6 || !link_close_code_valid(get16(payload), from))
		return bad(ret_why, "close code that may not be sent");
	if (!utf8_valid(payload + 6, len - 6))
		return bad(ret_why, "reason is not UTF-8");
	*ret = (struct link_close){
		.code = get16(payload),
		.reconnect_delay_ms = get32(payload + 2),
		.reason = (const char *)payload + 6,
		.reason_len = len - 6,
	};
	return 0;
}

int link_topic_parse(const uint8_t *payload, size_t len, const char **ret_why)
{
	if (!link_topic_valid((const char *)payload, len))
		return bad(ret_why, "topic is not UTF-8 without control characters");
	return 0;
}

int link_publish_parse(
	const uint8_t *payload, size_t len, struct link_publish *ret, const char **ret_why)
{
	if (len < 2 || payload[0] == 0 || payload[0] > len - 1)
		return bad(ret_why, "topic does not fit its frame");
	size_t topic_len = payload[0], data_len = len - 1 - topic_len;
	if (data_len > TG_LINK_MESSAGE_PAYLOAD_MAX)
		return bad(ret_why, "published message too long");
	if (!link_topic_valid((const char *)payload + 1, topic_len))
		return bad(ret_why, "topic is not UTF-8 without control characters");
	*ret = (struct link_publish){
		.topic = (const char *)payload + 1,
		.topic_len = topic_len,
		.data = payload + 1 + topic_len,
		.len = data_len,
	};
	return 0;
}

int link_credit_parse(const uint8_t *payload, size_t len, uint32_t *ret_bytes, const char **ret_why)
{
	if (len != 4 || get32(payload) == 0 || get32(payload) > TG_LINK_WINDOW_MAX)
		return bad(ret_why, "credit out of range");
	*ret_bytes = get32(payload);
	return 0;
}

int link_ping_parse(const uint8_t *payload, size_t len, uint64_t *ret_opaque, const char **ret_why)
{
	if (len != 8)
		return bad(ret_why, "PING and PONG carry 8 bytes");
	*ret_opaque = get64(payload);
	return 0;
}

int link_drain_parse(
	const uint8_t *payload, size_t len, uint32_t *ret_grace_ms, const char **ret_why)
{
	if (len != 4)
		return bad(ret_why, "DRAIN carries 4 bytes");
	*ret_grace_ms = get32(payload);
	return 0;
}

int link_error_parse(const uint8_t *payload, size_t len, uint16_t *ret_code,
	const char **ret_reason, size_t *ret_reason_len, const char **ret_why)
{
	if (len < 2 || !utf8_valid(payload + 2, len - 2))
		return bad(ret_why, "reason is not UTF-8");
	*ret_code = get16(payload);
	*ret_reason = (const char *)payload + 2;
	*ret_reason_len = len - 2;
	return 0;
}

/* Header and the text at its end; what lies between is the caller's. */
static size_t frame(uint8_t *out, enum tg_link_type type, uint64_t session, size_t fixed,
	const char *text, size_t len)
{
	link_header_write(out, &(struct link_header){.length = (uint32_t)(fixed + len),
				       .type = (uint8_t)type,
				       .session = session});
	if (len > 0)
		memcpy(out + TG_LINK_HEADER_LEN + fixed, text, len);
	return TG_LINK_HEADER_LEN + fixed + len;
}

size_t link_hello_write(uint8_t out[LINK_HELLO_FRAME_MAX], const struct link_hello *h)
{
	uint8_t *p = out + TG_LINK_HEADER_LEN;
	put32(p, TG_LINK_MAGIC);
	put16(p + 4, TG_LINK_VERSION);
	put16(p + 6, h->worker);
	put32(p + 8, h->session_window);
	put32(p + 12, h->link_window);
	put32(p + 16, h->payload_max);
	put32(p + 20, h->message_max);
	put32(p + 24, h->features);
	return frame(out, TG_LINK_HELLO, 0, LINK_HELLO_FIXED_LEN, h->name, h->name_len);
}

size_t link_accept_write(
	uint8_t out[LINK_ACCEPT_FRAME_MAX], uint64_t session, const char *subprotocol, size_t len)
{
	return frame(out, TG_LINK_ACCEPT, session, 0, subprotocol, len);
}

size_t link_reject_write(uint8_t out[LINK_REJECT_FRAME_MAX], uint64_t session, uint16_t status,
	const char *reason, size_t len)
{
	put16(out + TG_LINK_HEADER_LEN, status);
	return frame(out, TG_LINK_REJECT, session, 2, reason, link_reason_fit(reason, len));
}

size_t link_close_write(
	uint8_t out[LINK_CLOSE_FRAME_MAX], uint64_t session, const struct link_close *c)
{
	put16(out + TG_LINK_HEADER_LEN, c->code);
	put32(out + TG_LINK_HEADER_LEN + 2, c->reconnect_delay_ms);
	return frame(out, TG_LINK_CLOSE, session, 6, c->reason,
		link_reason_fit(c->reason, c->reason_len));
}

size_t link_topic_write(uint8_t out[LINK_TOPIC_FRAME_MAX], enum tg_link_type type, uint64_t session,
	const char *topic, size_t len)
{
	return frame(out, type, session, 0, topic, len);
}

size_t link_publish_write(uint8_t out[LINK_PUBLISH_HEAD_MAX], const char *topic, size_t topic_len,
	size_t data_len, bool text)
{
	link_header_write(out, &(struct link_header){.length = (uint32_t)(1 + topic_len + data_len),
				       .type = TG_LINK_PUBLISH,
				       .flags = text ? TG_LINK_FLAG_TEXT : 0});
	out[TG_LINK_HEADER_LEN] = (uint8_t)topic_len;
	memcpy(out + TG_LINK_HEADER_LEN + 1, topic, topic_len);
	return TG_LINK_HEADER_LEN + 1 + topic_len;
}

size_t link_credit_write(uint8_t out[LINK_CREDIT_FRAME_LEN], uint64_t session, uint32_t bytes)
{
	put32(out + TG_LINK_HEADER_LEN, bytes);
	return frame(out, TG_LINK_CREDIT, session, 4, NULL, 0);
}

size_t link_ping_write(uint8_t out[LINK_PING_FRAME_LEN], enum tg_link_type type, uint64_t opaque)
{
	put64(out + TG_LINK_HEADER_LEN, opaque);
	return frame(out, type, 0, 8, NULL, 0);
}

size_t link_drain_write(uint8_t out[LINK_DRAIN_FRAME_LEN], uint32_t grace_ms)
{
	put32(out + TG_LINK_HEADER_LEN, grace_ms);
	return frame(out, TG_LINK_DRAIN, 0, 4, NULL, 0);
}

size_t link_error_write(
	uint8_t out[LINK_ERROR_FRAME_MAX], enum tg_link_error code, const char *reason)
{
	put16(out + TG_LINK_HEADER_LEN, (uint16_t)code);
	return frame(out, TG_LINK_ERROR, 0, 2, reason,
		reason ? link_reason_fit(reason, strlen(reason)) : 0);
}

int link_credit_add(uint32_t *credit, uint32_t bytes)
{
	if (bytes > TG_LINK_WINDOW_MAX || *credit > TG_LINK_WINDOW_MAX - bytes)
		return -EPROTO;
	*credit += bytes;
	return 0;
}

int link_window_take(struct link_window *w, uint32_t size, uint32_t cost)
{
	if (cost > size || w->outstanding > size - cost)
		return -EPROTO;
	w->outstanding += cost;
	return 0;
}

void link_window_consume(struct link_window *w, uint32_t bytes)
{
	assert(bytes <= w->outstanding - w->consumed);
	w->consumed += bytes;
}

uint32_t link_window_grant(struct link_window *w, uint32_t size)
{
	uint32_t bytes = w->consumed;
	if (bytes == 0 || (bytes < size / 4 && size - w->outstanding >= 1024))
		return 0;
	w->outstanding -= bytes;
	w->consumed = 0;
	return bytes;
}
