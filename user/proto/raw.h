/* tg-raw framing (include/tidegate/raw.h), without I/O: the raw counterpart of proto/ws.h. Pure;
 * any thread. */
#ifndef TIDEGATE_PROTO_RAW_H
#define TIDEGATE_PROTO_RAW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tidegate/raw.h"

struct raw_event {
	uint8_t type; /* enum tg_raw_type */
	bool start;   /* first piece of the frame */
	bool end;     /* last piece of the frame; start && end: the whole frame at hand */
	uint8_t *data;
	size_t len;
};

struct raw_parser {
	uint32_t frame_left; /* payload bytes still to come */
	uint8_t header[TG_RAW_HEADER_LEN];
	uint8_t header_len;
	uint8_t type;
	uint8_t utf8_state;
	uint8_t flags;
};

struct raw_limits {
	uint32_t message_max; /* payload bytes of TEXT and BINARY */
	bool expect_hello;    /* gateway side, before HELLO: any other type is -EPROTO 1002 */
	bool client; /* parse what a gateway sends (WELCOME allowed, HELLO not), for tools and tests
		      */
};

void raw_parser_init(struct raw_parser *p);

/* As ws_parse(): >0 consumed, 0 for len == 0, -EPROTO with close code and reason. A second HELLO is
 * 1002. */
ssize_t raw_parse(struct raw_parser *p, const struct raw_limits *limits, uint8_t *data, size_t len,
	struct raw_event *ret_ev, bool *ret_has_event, uint16_t *ret_close, const char **ret_why);

bool raw_parser_idle(const struct raw_parser *p);

struct raw_hello {
	const char
		*path; /* into the payload, not NUL-terminated, begins with '/', printable ASCII */
	size_t path_len;
	const char *token;
	size_t token_len; /* 0: none */
};

/* Reads a HELLO payload: 0 or -EPROTO with *ret_why. */
int raw_hello_parse(
	const uint8_t *payload, size_t len, struct raw_hello *ret, const char **ret_why);

/* Writes a frame header; returns TG_RAW_HEADER_LEN. */
size_t raw_header_write(
	uint8_t out[TG_RAW_HEADER_LEN], enum tg_raw_type type, uint32_t payload_len);
/* Whole frames; return their length. */
size_t raw_welcome_write(uint8_t out[TG_RAW_HEADER_LEN + 9], uint64_t session_id);
size_t raw_close_write(uint8_t out[TG_RAW_HEADER_LEN + TG_RAW_CONTROL_PAYLOAD_MAX], uint16_t code,
	const char *reason);

#endif
