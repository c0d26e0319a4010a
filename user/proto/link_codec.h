/* Frames of the link protocol (include/tidegate/link.h), without I/O: shared by the gateway and
 * libtidegate-link.
 *
 * Pure: no memory, no clock, any thread; parsed text points into the caller's payload. Reading:
 * link_header_parse on whatever has arrived, wait for `length` more bytes (MESSAGE may be passed on
 * in pieces), then the parser of the type. Parsers return -EPROTO for a frame that breaks a rule
 * and set *ret_why to a static English reason, for the ERROR frame and the log; other outputs are
 * untouched then. What a frame means (is the session open, is there credit) is the caller's
 * business.
 */
#ifndef TIDEGATE_PROTO_LINK_CODEC_H
#define TIDEGATE_PROTO_LINK_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tidegate/link.h"

/* Not part of the library's surface. */
#pragma GCC visibility push(hidden)

enum {
	LINK_HELLO_FIXED_LEN = 28, /* before the name */
	LINK_HELLO_FRAME_MAX = TG_LINK_HEADER_LEN + LINK_HELLO_FIXED_LEN + TG_LINK_NAME_MAX,
	LINK_ACCEPT_FRAME_MAX = TG_LINK_HEADER_LEN + TG_LINK_SUBPROTOCOL_MAX,
	LINK_REJECT_FRAME_MAX = TG_LINK_HEADER_LEN + 2 + TG_LINK_REASON_MAX,
	LINK_CLOSE_FRAME_MAX = TG_LINK_HEADER_LEN + 6 + TG_LINK_REASON_MAX,
	LINK_TOPIC_FRAME_MAX = TG_LINK_HEADER_LEN + TG_LINK_TOPIC_MAX,
	LINK_PUBLISH_HEAD_MAX = TG_LINK_HEADER_LEN + 1 + TG_LINK_TOPIC_MAX, /* before the message */
	LINK_PUBLISH_PAYLOAD_MAX = 1 + TG_LINK_TOPIC_MAX + TG_LINK_MESSAGE_PAYLOAD_MAX,
	LINK_CREDIT_FRAME_LEN = TG_LINK_HEADER_LEN + 4,
	LINK_PING_FRAME_LEN = TG_LINK_HEADER_LEN + 8,
	LINK_DRAIN_FRAME_LEN = TG_LINK_HEADER_LEN + 4,
	LINK_ERROR_FRAME_MAX = TG_LINK_HEADER_LEN + 2 + TG_LINK_REASON_MAX,
	/* The longest frame but OPEN, MESSAGE and PUBLISH. */
	LINK_CONTROL_FRAME_MAX = LINK_ACCEPT_FRAME_MAX,
	/* Of any frame: a buffer of a header and this holds every one. */
	LINK_PAYLOAD_MAX = TG_LINK_OPEN_MAX,
};

/* Who sent the frame; several types go one way only. */
enum link_from {
	LINK_FROM_GATEWAY,
	LINK_FROM_SERVICE,
};

struct link_header {
	uint32_t length; /* of the payload, within the bounds of the type */
	uint8_t type;    /* enum tg_link_type */
	uint8_t flags;   /* enum tg_link_flags, only those of the type */
	uint64_t session;
};

struct link_hello {
	uint16_t worker;
	uint32_t session_window, link_window;
	uint32_t payload_max, message_max;
	uint32_t features;
	const char *name; /* not NUL-terminated */
	size_t name_len;
};

struct link_close {
	uint16_t code;
	uint32_t reconnect_delay_ms;
	const char *reason; /* not NUL-terminated */
	size_t reason_len;
};

struct link_publish {
	const char *topic; /* not NUL-terminated */
	size_t topic_len;
	const uint8_t *data;
	size_t len;
};

/* "MESSAGE" etc., static; "?" for a type that is none. */
const char *link_type_name(uint8_t type);

/* TG_LINK_HEADER_LEN: *ret is filled, and consistent in itself (type, direction, flags, length,
 * session); 0: need more; -EPROTO. */
ssize_t link_header_parse(const uint8_t *data, size_t len, enum link_from from,
	struct link_header *ret, const char **ret_why);

/* h describes a frame that link_header_parse accepts (asserted by the tests, not here). */
void link_header_write(uint8_t out[TG_LINK_HEADER_LEN], const struct link_header *h);

/* Payload parsers: payload is complete, len its header's length. 0 or -EPROTO; link_hello_parse:
 * -EPROTONOSUPPORT for another magic or version, which is answered with TG_LINK_ERROR_VERSION. */
int link_hello_parse(
	const uint8_t *payload, size_t len, struct link_hello *ret, const char **ret_why);
/* Looks only at the ends of the object and for NUL bytes: JSON is for whoever reads it. */
int link_open_parse(const uint8_t *payload, size_t len, const char **ret_why);
/* The subprotocol is the whole payload; empty: none. */
int link_accept_parse(const uint8_t *payload, size_t len, const char **ret_why);
int link_reject_parse(const uint8_t *payload, size_t len, uint16_t *ret_status,
	const char **ret_reason, size_t *ret_reason_len, const char **ret_why);
int link_close_parse(const uint8_t *payload, size_t len, enum link_from from,
	struct link_close *ret, const char **ret_why);
/* SUBSCRIBE, UNSUBSCRIBE: the topic is the whole payload. */
int link_topic_parse(const uint8_t *payload, size_t len, const char **ret_why);
int link_publish_parse(
	const uint8_t *payload, size_t len, struct link_publish *ret, const char **ret_why);
int link_credit_parse(
	const uint8_t *payload, size_t len, uint32_t *ret_bytes, const char **ret_why);
int link_ping_parse(const uint8_t *payload, size_t len, uint64_t *ret_opaque, const char **ret_why);
int link_drain_parse(
	const uint8_t *payload, size_t len, uint32_t *ret_grace_ms, const char **ret_why);
/* Any code is accepted; unknown ones are for people. */
int link_error_parse(const uint8_t *payload, size_t len, uint16_t *ret_code,
	const char **ret_reason, size_t *ret_reason_len, const char **ret_why);

/* Checks of what a caller means to send: the same rules as the parsers'. */
bool link_close_code_valid(uint16_t code, enum link_from from);
bool link_subprotocol_valid(const char *s, size_t len); /* 1..255 */
bool link_topic_valid(const char *s, size_t len);       /* 1..255 */
bool link_name_valid(const char *s, size_t len);        /* 1..63 */
/* Bytes of a reason that fit without cutting a UTF-8 sequence, <= TG_LINK_REASON_MAX; 0 when it is
 * not UTF-8. */
size_t link_reason_fit(const char *reason, size_t len);

/* Writers of whole frames; arguments must be valid by the checks above (a reason is cut to what
 * fits; NULL: empty). They return the length of the frame. */
size_t link_hello_write(uint8_t out[LINK_HELLO_FRAME_MAX], const struct link_hello *h);
size_t link_accept_write(
	uint8_t out[LINK_ACCEPT_FRAME_MAX], uint64_t session, const char *subprotocol, size_t len);
size_t link_reject_write(uint8_t out[LINK_REJECT_FRAME_MAX], uint64_t session, uint16_t status,
	const char *reason, size_t len);
size_t link_close_write(
	uint8_t out[LINK_CLOSE_FRAME_MAX], uint64_t session, const struct link_close *c);
/* type: SUBSCRIBE or UNSUBSCRIBE. */
size_t link_topic_write(uint8_t out[LINK_TOPIC_FRAME_MAX], enum tg_link_type type, uint64_t session,
	const char *topic, size_t len);
/* All of the frame but the message of data_len bytes that follows. */
size_t link_publish_write(uint8_t out[LINK_PUBLISH_HEAD_MAX], const char *topic, size_t topic_len,
	size_t data_len, bool text);
size_t link_credit_write(uint8_t out[LINK_CREDIT_FRAME_LEN], uint64_t session, uint32_t bytes);
/* type: PING or PONG. */
size_t link_ping_write(uint8_t out[LINK_PING_FRAME_LEN], enum tg_link_type type, uint64_t opaque);
size_t link_drain_write(uint8_t out[LINK_DRAIN_FRAME_LEN], uint32_t grace_ms);
size_t link_error_write(
	uint8_t out[LINK_ERROR_FRAME_MAX], enum tg_link_error code, const char *reason);

/* --- Flow control: the arithmetic both ends share. A MESSAGE or PUBLISH costs header and payload,
 * so that empty messages are not free. */

static inline uint32_t link_cost(uint32_t payload_len)
{
	return TG_LINK_HEADER_LEN + payload_len;
}

/* Sender's side: payload bytes of a MESSAGE that session and link credit allow now, at most `want`
 * and payload_max, or -1: not even an empty one. 0 for want > 0 is never returned. */
static inline ssize_t link_credit_allows(
	uint32_t session_credit, uint32_t link_credit, uint32_t payload_max, size_t want)
{
	uint32_t credit = session_credit < link_credit ? session_credit : link_credit;
	if (credit < TG_LINK_HEADER_LEN + (want > 0))
		return -1;
	credit -= TG_LINK_HEADER_LEN;
	if (credit > payload_max)
		credit = payload_max;
	return want < credit ? (ssize_t)want : (ssize_t)credit;
}

/* Sender's side, a CREDIT came: -EPROTO when the credit held would pass TG_LINK_WINDOW_MAX. */
int link_credit_add(uint32_t *credit, uint32_t bytes);

/* Receiver's side: what the peer has sent and was not credited for. consumed <= outstanding <= the
 * window's size. */
struct link_window {
	uint32_t outstanding;
	uint32_t consumed;
};

/* A frame of this cost came: -EPROTO when the peer had no credit for it. */
int link_window_take(struct link_window *w, uint32_t size, uint32_t cost);
/* bytes of what is outstanding were consumed; more than that is a bug (asserted). */
void link_window_consume(struct link_window *w, uint32_t bytes);
/* Bytes to grant by a CREDIT now, which are then no longer outstanding; 0: not yet. Grants come by
 * the quarter of a window, or at once while the peer is left with less than 1 KiB, so that it never
 * waits for what was consumed. */
uint32_t link_window_grant(struct link_window *w, uint32_t size);

#pragma GCC visibility pop

#endif
