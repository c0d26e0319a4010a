/* PROXY protocol v1 and v2 (the HAProxy specification, revision 2020/03/05), receiver side, without
 * I/O. */
#ifndef TIDEGATE_PROTO_PROXY_HEADER_H
#define TIDEGATE_PROTO_PROXY_HEADER_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
	PROXY_V1_MAX = 107,  /* section 2.1, with CR LF */
	PROXY_V2_MAX = 4096, /* ours: 16 + addresses + TLVs; more is malformed */
};

struct proxy_header {
	uint8_t version; /* 1 or 2 */
	bool local;      /* v2 LOCAL or v1 UNKNOWN: use the connection's own addresses */
	struct sockaddr_in6
		peer; /* the declared client; IPv4 as ::ffff:a.b.c.d; port in network order */
	struct sockaddr_in6 dest;
};

/* >0 length of the header (v2: with its TLVs, which are skipped), 0 need more, -EPROTO malformed
 * with *ret_why. Decided as early as possible: a first byte that can begin neither version is
 * malformed at once. */
ssize_t proxy_header_parse(
	const uint8_t *buf, size_t len, struct proxy_header *ret, const char **ret_why);

#endif
