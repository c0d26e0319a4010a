/* The query parameters of the admin surface: bounded, validated, unknown ones refused by name.
 * Pure: any thread. */
#ifndef TIDEGATE_OPS_ADMIN_QUERY_H
#define TIDEGATE_OPS_ADMIN_QUERY_H

#include <stddef.h>
#include <stdint.h>

#include "ops/admin.h"

enum {
	ADMIN_CONNS_LIMIT_DEFAULT = 100,
	ADMIN_CONNS_LIMIT_MAX = 100000, /* about 20 MB of copies: what one request may cost */
	ADMIN_PUBLISH_MAX = 1 << 20,    /* as the greatest hub.payload_size */
	ADMIN_ERROR_MAX = 256,
};

/* Bits: which parameters a path takes, and which were given. */
enum admin_key {
	ADMIN_KEY_LIMIT = 1 << 0,
	ADMIN_KEY_ROUTE = 1 << 1,
	ADMIN_KEY_LISTENER = 1 << 2,
	ADMIN_KEY_PEER = 1 << 3,
	ADMIN_KEY_SESSION = 1 << 4,
	ADMIN_KEY_CODE = 1 << 5,
	ADMIN_KEY_REASON = 1 << 6,
	ADMIN_KEY_SLOW = 1 << 7,
	ADMIN_KEY_PREFIX = 1 << 8,
	ADMIN_KEY_TOPIC = 1 << 9,
	ADMIN_KEY_WORD = 1 << 10,
	ADMIN_KEY_RATE = 1 << 11,
	ADMIN_KEY_PERCENT = 1 << 13,
	ADMIN_KEY_SOURCE = 1 << 12, /* "prefix" too, where the other one is not taken */
};

struct admin_query {
	unsigned given;         /* enum admin_key */
	struct kick_query kick; /* .which is also the query for connections */
	char prefix[256];       /* of topics; kick.which.limit is theirs too */
	char topic[256];
	enum governor_word word;
	uint32_t rate;
	unsigned percent;
	struct prefix_entry source;
};

/* Defaults: the first 100 connections, any; close code 1008. */
void admin_query_init(struct admin_query *q);

/* Takes one parameter, percent-decoded; value NULL when there was no '='. 0, or -EINVAL with a
 * sentence that names the key in ret_error.
 *
 *   limit     1..100000
 *   route     a route's path as configured: begins with '/', up to 255 bytes
 *   listener  up to 63 bytes
 *   peer      an IPv4 or IPv6 address; kept in its shortest form, IPv4-mapped as IPv4
 *   session   1..2^64-1
 *   code      a code that may be sent (RFC 6455 7.4.2): 1000-1003, 1007-1014, 3000-4999
 *   slow      true, false
 *   reason    UTF-8, up to 123 bytes (a control frame holds 125)
 *   prefix    of topics: UTF-8, up to 255 bytes
 *   topic     one that may be published to (docs/hub-protocol.md)
 *   word      auto, open, shut, rate
 *   rate      0..1000000, connections per second
 *   percent   0..100
 *   prefix    of a list: an address or a prefix, without address bits beyond its length */
int admin_query_set(struct admin_query *q, unsigned allowed, const char *key, size_t key_len,
	const char *value, size_t value_len, char ret_error[ADMIN_ERROR_MAX]);

#endif
