/* The lists of address prefixes: allow, deny, weights. By descriptor of the map.
 *
 * Anybody who holds the descriptor; entries may change under a walk, which then may miss or repeat
 * some. Text is "10.0.0.0/8", "2001:db8::/32", or an address alone. */
#ifndef TIDEGATE_KERN_BPF_LISTS_H
#define TIDEGATE_KERN_BPF_LISTS_H

#include <stddef.h>
#include <stdint.h>

#include "tidegate/abi.h"

enum {
	BPF_PREFIX_TEXT = 56, /* bytes for any prefix, the terminating 0 included */
};

/* An IPv4 address among the IPv6 ones, as tg_lpm_key has it. */
void bpf_address_v4(const uint8_t v4[4], uint8_t ret[16]);

/* 0, or -EINVAL: no address, a length beyond the family's, or bits set after it. A v4-mapped IPv6
 * prefix of 96 bits or more is the IPv4 one. */
int bpf_prefix_parse(const char *text, struct tg_lpm_key *ret);
void bpf_prefix_format(const struct tg_lpm_key *key, char text[BPF_PREFIX_TEXT]);
/* Of a key of sources, open, penalty. */
void bpf_source_format(const struct tg_prefix *key, char text[BPF_PREFIX_TEXT]);
/* The source prefix of an address (as in tg_lpm_key): its first bits, 1..32 or 1..64. */
void bpf_source_key(const uint8_t addr[16], unsigned bits, struct tg_prefix *ret);
/* Its address as a number, the first bit the highest: what abi.h hashes. */
uint64_t bpf_prefix_bits(const struct tg_prefix *prefix);

/* 0, -ENOSPC when the list is full, or -errno. An entry that is there already is replaced. */
int bpf_list_add(int fd, const struct tg_lpm_key *key, const struct tg_list_entry *entry);
/* 0, -ENOENT, or -errno. */
int bpf_list_del(int fd, const struct tg_lpm_key *key);
/* The entry that decides for an address, its longest match. It, or the entries' count, may be of
 * use in an answer to `why`. 0, -ENOENT: none does, or -errno. */
int bpf_list_match(
	int fd, const uint8_t addr[16], struct tg_lpm_key *ret_key, struct tg_list_entry *ret);

/* Calls each until it returns non-zero, which is returned; else 0, or -errno. */
int bpf_list_each(int fd,
	int (*each)(void *ctx, const struct tg_lpm_key *key, const struct tg_list_entry *entry),
	void *ctx);

/* The same of weights. */
int bpf_weight_add(int fd, const struct tg_lpm_key *key, const struct tg_weight *weight);

#endif
