/* Which sockets are the gateway's: by their own port and address, as the maps `ports` and
 * `addresses` say. The network namespace is for the caller to compare. */
#ifndef TIDEGATE_BPF_OURS_H
#define TIDEGATE_BPF_OURS_H

#include "maps.bpf.h"

enum {
	OURS_AF_INET = 2,
};

/* The address that the socket is bound to, as in tg_lpm_key; those of a socket of both families are
 * mapped (RFC 4291 2.5.5.2). */
static __always_inline void ours_address(const struct sock *sk, __u8 addr[16])
{
	__u32 *w = (__u32 *)addr;

	if (sk->__sk_common.skc_family == OURS_AF_INET) {
		w[1] = sk->__sk_common.skc_rcv_saddr;
	} else {
		struct in6_addr v6;

		BPF_CORE_READ_INTO(&v6, sk, __sk_common.skc_v6_rcv_saddr);
		__builtin_memcpy(addr, &v6, sizeof(v6));
		if (w[0] || w[1] || w[2] != bpf_htonl(0xffff))
			return;
		w[1] = w[3];
	}
	w[0] = bpf_htonl(0xffff);
	w[2] = 0;
	w[3] = 0;
}

static __always_inline bool ours_socket(const struct sock *sk)
{
	__u16 port = sk->__sk_common.skc_num;
	__u32 word = port / 32, bit = 1u << port % 32;
	struct tg_port_word *p = bpf_map_lookup_elem(&ports, &word);

	if (!p || !((p->any | p->listed) & bit))
		return false;
	if (p->any & bit)
		return true;
	struct tg_address_key key = {.prefixlen = 32 + 128, .port = bpf_htons(port)};
	ours_address(sk, key.addr);
	return bpf_map_lookup_elem(&addresses, &key);
}

#endif
