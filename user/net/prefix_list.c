#include "net/prefix_list.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct in6_addr prefix_mask(const struct in6_addr *addr, unsigned len)
{
	struct in6_addr out = {0};
	unsigned bytes = len / 8;

	memcpy(&out, addr, bytes);
	if (len % 8)
		out.s6_addr[bytes] = addr->s6_addr[bytes] & (uint8_t)(0xff00 >> len % 8);
	return out;
}

static int compare(const void *a, const void *b)
{
	const struct prefix_entry *x = a, *y = b;

	if (x->len != y->len)
		return x->len > y->len ? -1 : 1;
	return memcmp(&x->addr, &y->addr, sizeof x->addr);
}

/* Drops all but the last of equal prefixes. The sort is stable for them: `value` is set to the
 * position first. */
static size_t unique(struct prefix_entry *e, size_t n)
{
	size_t out = 0;

	for (size_t i = 0; i < n; i++) {
		if (out && !compare(&e[out - 1], &e[i])) {
			if (e[i].value > e[out - 1].value)
				e[out - 1] = e[i];
		} else {
			e[out++] = e[i];
		}
	}
	return out;
}

int prefix_list_init(struct prefix_list *l, const struct prefix_entry *entries, size_t n)
{
	struct prefix_entry *e;

	if (n > PREFIX_LIST_MAX)
		return -E2BIG;
	e = calloc(n + 1, sizeof *e);
	if (!e)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		e[i] = (struct prefix_entry){.len = entries[i].len, .value = (uint32_t)i};
		e[i].addr = prefix_mask(&entries[i].addr, entries[i].len);
	}
	qsort(e, n, sizeof *e, compare);
	n = unique(e, n);
	memset(l, 0, sizeof *l);
	for (size_t i = 0; i < n; i++) {
		e[i].value = entries[e[i].value].value;
		if (!i || e[i].len != e[i - 1].len)
			l->span[l->n_spans++] = (struct prefix_span){.begin = i, .len = e[i].len};
		l->span[l->n_spans - 1].n++;
	}
	l->entry = e;
	l->n = n;
	return 0;
}

void prefix_list_fini(struct prefix_list *l)
{
	free(l->entry);
	memset(l, 0, sizeof *l);
}

const struct prefix_entry *prefix_list_find(
	const struct prefix_list *l, const struct in6_addr *addr)
{
	for (unsigned i = 0; i < l->n_spans; i++) {
		struct prefix_entry key = {.len = l->span[i].len};
		const struct prefix_entry *hit;

		key.addr = prefix_mask(addr, key.len);
		hit = bsearch(&key, l->entry + l->span[i].begin, l->span[i].n, sizeof key, compare);
		if (hit)
			return hit;
	}
	return NULL;
}

char *prefix_format(const struct in6_addr *addr, unsigned len, char out[PREFIX_TEXT_MAX])
{
	bool v4 = len >= 96 && IN6_IS_ADDR_V4MAPPED(addr);
	char text[INET6_ADDRSTRLEN];

	inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? &addr->s6_addr[12] : addr->s6_addr, text,
		sizeof text);
	snprintf(out, PREFIX_TEXT_MAX, "%s/%u", text, v4 ? len - 96 : len);
	return out;
}
