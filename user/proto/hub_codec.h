/* The hub's JSON (docs/hub-protocol.md), without I/O: requests in, answers out.
 *
 * Every publication passes here, so nothing is built: a request is checked to be one JSON object
 * (RFC 8259) and its members are slices of it. The text is valid UTF-8 already, as WebSocket and
 * tg-raw see to. Pure; any thread.
 */
#ifndef TIDEGATE_PROTO_HUB_CODEC_H
#define TIDEGATE_PROTO_HUB_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/stats.h"

enum {
	HUB_TOPIC_MAX = 255,    /* bytes; a link's PUBLISH says the length in one */
	HUB_ID_MAX = 64,        /* bytes of an id that is a string, */
	HUB_ID_DIGITS_MAX = 20, /* characters of one that is an integer: any of 64 bits */
	HUB_DEPTH_MAX = 128,    /* of nested arrays and objects in a request */
};

enum hub_type {
	HUB_SUBSCRIBE,
	HUB_UNSUBSCRIBE,
	HUB_PUBLISH,
	HUB_PRESENCE,
	HUB_TYPES,
};

/* A slice of somebody else's text. */
struct hub_str {
	const char *data;
	size_t len;
};

struct hub_request {
	enum hub_type type;
	char topic[HUB_TOPIC_MAX]; /* escapes undone */
	size_t topic_len;
	struct hub_str id;   /* as it stands there, with its quotes; empty: none */
	struct hub_str data; /* as it stands there */
};

/* 0, or -EPROTO with what is wrong; ret->id is set then too when the request had one that can be
 * told. */
int hub_request_parse(const char *text, size_t len, struct hub_request *ret,
	enum hub_error *ret_error, const char **ret_why);

/* Is it one JSON value (with white space around it)? */
bool hub_json_valid(const char *text, size_t len);

/* The rules of docs/hub-protocol.md; pattern: `*` may be the last level. Text is UTF-8. */
bool hub_topic_valid(const char *topic, size_t len, bool pattern);
/* True when the last level is `*`. */
bool hub_topic_is_pattern(const char *topic, size_t len);
/* How much of the topic is not its last level: the slash included, or 0. */
size_t hub_topic_parent(const char *topic, size_t len);

enum {
	/* Every byte of an id may be an escape of six; the rest of an answer is short. */
	HUB_ANSWER_ID_MAX = 2 + 6 * HUB_ID_MAX,
	/* A topic holds no control characters: quote and backslash take one more byte. */
	HUB_ANSWER_TOPIC_MAX = 2 * HUB_TOPIC_MAX,
	HUB_ANSWER_MAX = HUB_ANSWER_ID_MAX + HUB_ANSWER_TOPIC_MAX + 256,
	HUB_MESSAGE_HEAD_MAX = HUB_ANSWER_TOPIC_MAX + 64,
};

/* All return the bytes written. */
size_t hub_ack_write(char out[HUB_ANSWER_MAX], struct hub_str id);
/* why: up to 100 bytes that need no escapes. */
size_t hub_error_write(
	char out[HUB_ANSWER_MAX], enum hub_error error, const char *why, struct hub_str id);
size_t hub_presence_write(char out[HUB_ANSWER_MAX], const char *topic, size_t topic_len,
	uint64_t count, struct hub_str id);

/* A publication is head, value, '}'. The value of a service's text that is no JSON is
 * hub_string_write's, that of its bytes hub_base64_write's. */
size_t hub_message_head_write(
	char out[HUB_MESSAGE_HEAD_MAX], const char *topic, size_t topic_len, bool base64);
/* A JSON string. At most 6 bytes for each of text, and 2. */
size_t hub_string_write(char *out, const char *text, size_t len);
/* Likewise, of base64: 4 bytes for every 3 begun, and 2. */
size_t hub_base64_write(char *out, const uint8_t *data, size_t len);

#endif
