/* One frame of the link protocol, header and payload, through the parsers of its type, on an input
 * that ends at a guard page. */
#ifndef TIDEGATE_TESTS_LINK_PARSE_H
#define TIDEGATE_TESTS_LINK_PARSE_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "guard.h"
#include "proto/link_codec.h"

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

static struct guard guard;

static inline int setup(void **state)
{
	guard_init(&guard, LINK_PAYLOAD_MAX + TG_LINK_HEADER_LEN);
	return 0;
}

static inline int teardown(void **state)
{
	guard_fini(&guard);
	return 0;
}

/* 0: accepted; -EAGAIN: more is needed; else what the parsers say. */
static inline int parse_frame(
	const uint8_t *data, size_t len, enum link_from from, const char **ret_why)
{
	const uint8_t *p = guard_copy(&guard, data, len);
	struct link_header h;
	ssize_t n = link_header_parse(p, len, from, &h, ret_why);
	if (n <= 0)
		return n == 0 ? -EAGAIN : (int)n;
	p += n;
	len -= (size_t)n;
	if (len < h.length)
		return -EAGAIN;
	struct link_hello hello;
	struct link_close close_;
	struct link_publish publish;
	uint64_t u64;
	uint32_t u32;
	uint16_t u16;
	const char *reason;
	size_t reason_len;
	switch (h.type) {
	case TG_LINK_HELLO:
		return link_hello_parse(p, h.length, &hello, ret_why);
	case TG_LINK_OPEN:
		return link_open_parse(p, h.length, ret_why);
	case TG_LINK_ACCEPT:
		return link_accept_parse(p, h.length, ret_why);
	case TG_LINK_REJECT:
		return link_reject_parse(p, h.length, &u16, &reason, &reason_len, ret_why);
	case TG_LINK_CLOSE:
		return link_close_parse(p, h.length, from, &close_, ret_why);
	case TG_LINK_SUBSCRIBE:
	case TG_LINK_UNSUBSCRIBE:
		return link_topic_parse(p, h.length, ret_why);
	case TG_LINK_PUBLISH:
		return link_publish_parse(p, h.length, &publish, ret_why);
	case TG_LINK_CREDIT:
		return link_credit_parse(p, h.length, &u32, ret_why);
	case TG_LINK_PING:
	case TG_LINK_PONG:
		return link_ping_parse(p, h.length, &u64, ret_why);
	case TG_LINK_DRAIN:
		return link_drain_parse(p, h.length, &u32, ret_why);
	case TG_LINK_ERROR:
		return link_error_parse(p, h.length, &u16, &reason, &reason_len, ret_why);
	}
	return 0;
}

#endif
