/* RFC 6455 framing, without I/O: bytes in, events out; and the headers of frames to send.
 *
 * A parser is 40 bytes, lives inside a connection and owns no memory. It is fed whatever arrived,
 * cut anywhere, and hands back one event a call; payload is unmasked in place. Any thread, no
 * locks, no clock. Call order: ws_parser_init, then ws_parse until it has consumed everything.
 */
#ifndef TIDEGATE_PROTO_WS_H
#define TIDEGATE_PROTO_WS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
	WS_CONTROL_PAYLOAD_MAX = 125, /* RFC 6455 5.5 */
	WS_HEADER_MAX = 14,           /* 2 + 8 (64-bit length) + 4 (mask), RFC 6455 5.2 */
	WS_SERVER_HEADER_MAX = 10,    /* no mask */
};

enum ws_opcode {
	WS_CONTINUATION = 0x0,
	WS_TEXT = 0x1,
	WS_BINARY = 0x2,
	WS_CLOSE = 0x8,
	WS_PING = 0x9,
	WS_PONG = 0xa,
};

/* RFC 6455 7.4.1 and the IANA registry. */
enum ws_close_code {
	WS_CLOSE_NORMAL = 1000,
	WS_CLOSE_GOING_AWAY = 1001,
	WS_CLOSE_PROTOCOL_ERROR = 1002,
	WS_CLOSE_UNSUPPORTED = 1003,
	WS_CLOSE_NO_STATUS = 1005, /* never on the wire */
	WS_CLOSE_ABNORMAL = 1006,  /* never on the wire */
	WS_CLOSE_INVALID_DATA = 1007,
	WS_CLOSE_POLICY = 1008,
	WS_CLOSE_TOO_BIG = 1009,
	WS_CLOSE_INTERNAL = 1011,
	WS_CLOSE_RESTART = 1012,
	WS_CLOSE_TRY_LATER = 1013,
};

enum ws_event_kind {
	WS_EVENT_DATA, /* a piece of a text or binary message; `end` marks the message's last piece
			*/
	WS_EVENT_PING, /* a piece of a control frame's payload; `end` marks the frame's last piece
			*/
	WS_EVENT_PONG,
	WS_EVENT_CLOSE,
};

struct ws_event {
	uint8_t kind; /* enum ws_event_kind */
	bool text;    /* DATA: the message is text; its bytes up to here are a valid UTF-8 prefix */
	bool start;   /* first piece of the message (DATA) or of the control frame */
	bool end; /* last piece; a whole unfragmented frame at hand is one event with start and end
		   */
	uint8_t *data; /* unmasked, inside the caller's buffer; may be of length 0 */
	size_t len;
};

struct ws_parser {
	uint64_t frame_left;  /* payload bytes of the current frame still to come */
	uint32_t message_len; /* payload bytes of the current message announced by its frame headers
				 so far */
	uint8_t header[WS_HEADER_MAX]; /* a frame header cut off by the end of the input; mask of
					  the current frame */
	uint8_t header_len;
	uint8_t frame_opcode;
	uint8_t message_opcode; /* 0: no message in progress */
	uint8_t mask_phase;     /* offset into the mask, 0..3 */
	uint8_t utf8_state;
	uint8_t flags;
};

struct ws_limits {
	uint64_t message_max; /* bytes of one message, all fragments together; more, and from 4 GiB
				 on in any case, is 1009 as soon as a header says so */
	bool client; /* parse what a server sends (frames must not be masked), for tools and tests
		      */
};

void ws_parser_init(struct ws_parser *p);

/* Consumes bytes of `data` up to and including the next event.
 * >0: bytes consumed. *ret_ev is filled when *ret_has_event; a call may consume the start of a
 * header without one. 0: only for len == 0. -EPROTO: the peer broke the protocol; *ret_close is the
 * close code to send (1002, 1007, 1009) and *ret_why a static English reason. The parser must not
 * be fed again. */
ssize_t ws_parse(struct ws_parser *p, const struct ws_limits *limits, uint8_t *data, size_t len,
	struct ws_event *ret_ev, bool *ret_has_event, uint16_t *ret_close, const char **ret_why);

/* True when no frame and no message is in progress. */
bool ws_parser_idle(const struct ws_parser *p);

/* Reads the payload of a close frame. 0 with *ret_code (1005 when empty) and the reason's place, or
 * -EPROTO: length 1, a code that may not be sent (RFC 6455 7.4.2: below 1000, 1004-1006, 1015,
 * 1016-2999, 5000 and up), reason not UTF-8
 * (*ret_code is then 1002 or 1007, the code to answer with). */
int ws_close_parse(const uint8_t *payload, size_t len, uint16_t *ret_code,
	const uint8_t **ret_reason, size_t *ret_reason_len);

/* Writes a server's frame header (2, 4 or 10 bytes); returns its length. */
size_t ws_header_write(
	uint8_t out[WS_SERVER_HEADER_MAX], enum ws_opcode op, bool fin, uint64_t len);

/* Writes a client's frame header with its mask (6, 8 or 14 bytes); returns its length. */
size_t ws_header_write_masked(uint8_t out[WS_HEADER_MAX], enum ws_opcode op, bool fin, uint64_t len,
	const uint8_t mask[4]);

/* Writes a whole close frame of a server: code, then as much of reason as fits without cutting a
 * UTF-8 sequence. Returns its length, at most 127. */
size_t ws_close_write(uint8_t out[2 + WS_CONTROL_PAYLOAD_MAX], uint16_t code, const char *reason);

#endif
