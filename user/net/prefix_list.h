/* Lists of address prefixes: allow, deny, weights. Longest match; built once, immutable then, so
 * that any number of threads may look into one without a lock.
 *
 * Small and static by nature: a few thousand entries, one binary search per distinct length.
 */
#ifndef TIDEGATE_NET_PREFIX_LIST_H
#define TIDEGATE_NET_PREFIX_LIST_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	PREFIX_LIST_MAX = 100000,
};

struct prefix_entry {
	struct in6_addr addr; /* IPv4 as ::ffff:a.b.c.d; bits beyond len are zero */
	uint8_t len;          /* 0..128, of the mapped address */
	uint32_t value;       /* free for the owner: a weight */
};

struct prefix_list {
	struct prefix_entry *entry; /* by descending length, then by address */
	size_t n;
	struct prefix_span { /* the entries of one length */
		size_t begin, n;
		uint8_t len;
	} span[129];
	unsigned n_spans;
};

/* Copies the entries; of two with one prefix the later counts. 0, -ENOMEM, or -E2BIG above
 * PREFIX_LIST_MAX. */
int prefix_list_init(struct prefix_list *l, const struct prefix_entry *entries, size_t n);
void prefix_list_fini(struct prefix_list *l); /* a zeroed list is allowed */

/* The longest prefix that holds the address, or NULL. */
const struct prefix_entry *prefix_list_find(
	const struct prefix_list *l, const struct in6_addr *addr);

/* The address's first len bits, the rest zero. */
struct in6_addr prefix_mask(const struct in6_addr *addr, unsigned len);

enum {
	PREFIX_TEXT_MAX =
		56, /* an address of 45 characters, '/', three digits and the NUL, rounded */
};

/* "10.0.0.0/8", "2001:db8::/32"; an IPv4-mapped prefix of 96 bits or more is shown as IPv4. Returns
 * out. */
char *prefix_format(const struct in6_addr *addr, unsigned len, char out[PREFIX_TEXT_MAX]);

#endif
