/* tg-raw: the framed protocol of raw TCP clients.
 *
 * A frame is
 *
 *     u32 length   network byte order; counts the type byte and the payload, so at least 1
 *     u8  type     enum tg_raw_type
 *     ...          payload, length - 1 bytes
 *
 * The client speaks first, with HELLO; the gateway answers WELCOME or CLOSE. After that both sides
 * send TEXT and BINARY messages, PING (answered by PONG with the same payload) and, last, CLOSE.
 * There is no fragmentation: one frame is one message, of at most the route's max_message_size
 * bytes (more is answered with CLOSE 1009).
 */
#ifndef TIDEGATE_RAW_H
#define TIDEGATE_RAW_H

#include <stdint.h>

#define TG_RAW_VERSION 1

enum {
	TG_RAW_HEADER_LEN = 5,
	TG_RAW_CONTROL_PAYLOAD_MAX = 125, /* PING, PONG and CLOSE */
	TG_RAW_HELLO_MAX = 4096,          /* payload of HELLO */
	TG_RAW_PATH_MAX = 255,
};

enum tg_raw_type {
	/* client -> gateway: u8 version (1) | u8 path length | path, begins with '/' | token, the
	 * rest, may be empty */
	TG_RAW_HELLO = 1,
	/* gateway -> client: u8 version | u64 session id, network byte order */
	TG_RAW_WELCOME = 2,
	/* both ways */
	TG_RAW_TEXT = 3, /* payload is UTF-8 (checked, CLOSE 1007) */
	TG_RAW_BINARY = 4,
	TG_RAW_PING = 5,  /* payload <= 125 bytes */
	TG_RAW_PONG = 6,  /* payload <= 125 bytes */
	TG_RAW_CLOSE = 7, /* u16 code, network byte order, of RFC 6455 7.4 | UTF-8 reason; payload
			     empty or 2..125 bytes */
};

#endif
