#include "kern/bpf_lists.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>

enum {
	V4_AT = 4,           /* where an IPv4 address stands (tidegate/abi.h) … */
	V4_BITS = V4_AT * 8, /* … and the bits in front of it */
};

static const uint8_t v4_block[V4_AT] = {0, 0, 0xff, 0xff};
static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}; /* RFC 4291 2.5.5.2 */

void bpf_address_v4(const uint8_t v4[4], uint8_t ret[16])
{
	memset(ret, 0, 16);
	memcpy(ret, v4_block, V4_AT);
	memcpy(ret + V4_AT, v4, 4);
}

static bool is_v4(const uint8_t addr[16])
{
	return !memcmp(addr, v4_block, V4_AT);
}

static int parse_bits(const char *text, unsigned longest, unsigned *ret)
{
	char *end;

	if (!text) {
		*ret = longest;
		return 0;
	}
	if (text[0] < '0' || text[0] > '9')
		return -EINVAL;
	unsigned long n = strtoul(text, &end, 10);
	if (*end || n > longest)
		return -EINVAL;
	*ret = (unsigned)n;
	return 0;
}

/* Bits behind the prefix would never match anything: a slip of the pen, most likely. */
static int bits_after(const uint8_t addr[16], unsigned bits)
{
	for (unsigned bit = bits; bit < 128; bit++)
		if (addr[bit / 8] & 0x80 >> bit % 8)
			return 1;
	return 0;
}

int bpf_prefix_parse(const char *text, struct tg_lpm_key *ret)
{
	struct tg_lpm_key key = {0};
	char copy[BPF_PREFIX_TEXT];
	uint8_t v4[4];
	unsigned bits;

	if (strlen(text) >= sizeof(copy))
		return -EINVAL;
	strcpy(copy, text);
	char *slash = strchr(copy, '/');
	if (slash)
		*slash++ = 0;
	if (inet_pton(AF_INET, copy, v4) == 1) {
		if (parse_bits(slash, 32, &bits))
			return -EINVAL;
		bpf_address_v4(v4, key.addr);
		bits += V4_BITS;
	} else if (inet_pton(AF_INET6, copy, key.addr) != 1 || parse_bits(slash, 128, &bits)) {
		return -EINVAL;
	} else if (bits >= V4_BITS && !memcmp(key.addr, v4_block, V4_AT)) {
		return -EINVAL; /* stands for IPv4 here; no host has such an address */
	} else if (bits >= 96 && !memcmp(key.addr, mapped, sizeof(mapped))) {
		memcpy(v4, key.addr + sizeof(mapped), sizeof(v4));
		bpf_address_v4(v4, key.addr);
		bits -= 96 - V4_BITS;
	}
	key.prefixlen = bits;
	if (bits_after(key.addr, bits))
		return -EINVAL;
	*ret = key;
	return 0;
}

void bpf_prefix_format(const struct tg_lpm_key *key, char text[BPF_PREFIX_TEXT])
{
	char addr[INET6_ADDRSTRLEN];

	if (key->prefixlen >= V4_BITS && is_v4(key->addr)) {
		inet_ntop(AF_INET, key->addr + V4_AT, addr, sizeof(addr));
		snprintf(text, BPF_PREFIX_TEXT, "%s/%u", addr, key->prefixlen - V4_BITS);
		return;
	}
	inet_ntop(AF_INET6, key->addr, addr, sizeof(addr));
	snprintf(text, BPF_PREFIX_TEXT, "%s/%u", addr, key->prefixlen);
}

void bpf_source_format(const struct tg_prefix *key, char text[BPF_PREFIX_TEXT])
{
	struct tg_lpm_key wide = {.prefixlen = key->len};

	if (key->family == 4) {
		wide.prefixlen += V4_BITS;
		bpf_address_v4(key->addr, wide.addr);
	} else {
		memcpy(wide.addr, key->addr, sizeof(key->addr));
	}
	bpf_prefix_format(&wide, text);
}

void bpf_source_key(const uint8_t addr[16], unsigned bits, struct tg_prefix *ret)
{
	bool v4 = is_v4(addr);
	const uint8_t *from = v4 ? addr + V4_AT : addr;

	memset(ret, 0, sizeof(*ret));
	ret->len = (uint8_t)bits;
	ret->family = v4 ? 4 : 6;
	for (unsigned bit = 0; bit < bits; bit++)
		ret->addr[bit / 8] |= from[bit / 8] & (uint8_t)(0x80 >> bit % 8);
}

uint64_t bpf_prefix_bits(const struct tg_prefix *prefix)
{
	uint64_t bits = 0;

	for (unsigned i = 0; i < sizeof(prefix->addr); i++)
		bits = bits << 8 | prefix->addr[i];
	return bits;
}

int bpf_list_add(int fd, const struct tg_lpm_key *key, const struct tg_list_entry *entry)
{
	return bpf_map_update_elem(fd, key, entry, BPF_ANY) ? -errno : 0;
}

int bpf_weight_add(int fd, const struct tg_lpm_key *key, const struct tg_weight *weight)
{
	return bpf_map_update_elem(fd, key, weight, BPF_ANY) ? -errno : 0;
}

int bpf_list_del(int fd, const struct tg_lpm_key *key)
{
	return bpf_map_delete_elem(fd, key) ? -errno : 0;
}

static bool matches(const struct tg_lpm_key *key, const uint8_t addr[16])
{
	for (unsigned bit = 0; bit < key->prefixlen; bit++)
		if ((key->addr[bit / 8] ^ addr[bit / 8]) & 0x80 >> bit % 8)
			return false;
	return true;
}

struct best {
	const uint8_t *addr;
	struct tg_lpm_key key;
	struct tg_list_entry entry;
	bool found;
};

static int keep_longest(void *ctx, const struct tg_lpm_key *key, const struct tg_list_entry *entry)
{
	struct best *b = ctx;

	if (!matches(key, b->addr) || (b->found && key->prefixlen <= b->key.prefixlen))
		return 0;
	b->key = *key;
	b->entry = *entry;
	b->found = true;
	return 0;
}

/* The kernel's look-up gives the value but not the key it stands under; so the list is walked, but
 * only where there is a match. */
int bpf_list_match(
	int fd, const uint8_t addr[16], struct tg_lpm_key *ret_key, struct tg_list_entry *ret)
{
	struct tg_lpm_key key = {.prefixlen = 128};
	struct tg_list_entry entry;
	struct best best = {.addr = addr};

	memcpy(key.addr, addr, sizeof(key.addr));
	if (bpf_map_lookup_elem(fd, &key, &entry))
		return -errno;
	int rc = bpf_list_each(fd, keep_longest, &best);
	if (rc)
		return rc;
	if (!best.found)
		return -ENOENT; /* taken away meanwhile */
	*ret_key = best.key;
	*ret = best.entry;
	return 0;
}

int bpf_list_each(int fd,
	int (*each)(void *ctx, const struct tg_lpm_key *key, const struct tg_list_entry *entry),
	void *ctx)
{
	struct tg_lpm_key key, next;
	struct tg_list_entry entry;
	void *at = NULL;

	while (!bpf_map_get_next_key(fd, at, &next)) {
		key = next;
		at = &key;
		/* Exactly this one: its own prefixlen does not look further. */
		if (bpf_map_lookup_elem(fd, &key, &entry))
			continue;
		int rc = each(ctx, &key, &entry);
		if (rc)
			return rc;
	}
	return errno == ENOENT ? 0 : -errno;
}
