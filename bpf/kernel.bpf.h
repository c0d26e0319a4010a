/* What BPF programs need of the kernel's types: its public headers, and the few internal structs in
 * use, cut down to the members in use. CO-RE relocates these at load time, so that the build does
 * not depend on the kernel of the machine it runs on (as a dumped vmlinux.h would). */
#ifndef TIDEGATE_BPF_KERNEL_H
#define TIDEGATE_BPF_KERNEL_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/types.h>
#include <stdbool.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "tidegate/abi.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct net {
	__u64 net_cookie;
};

typedef struct {
	struct net *net;
} possible_net_t;

typedef struct {
	long long counter;
} atomic64_t;

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	atomic64_t skc_cookie;   /* 0: nobody has asked for it yet */
	unsigned long skc_flags; /* enum sock_flags, not in the public headers */
};

struct socket;

struct sock {
	struct sock_common __sk_common;
	struct socket *sk_socket; /* NULL: nobody has accepted it yet, or its owner has closed it */
	int sk_err;
	__u16 sk_protocol;
};

struct inet_sock {
	__be16 inet_sport;
};

/* Empty without CONFIG_SCHED_INFO. */
struct sched_info {
	unsigned long long run_delay; /* ever waited for a CPU, ns */
};

struct task_struct {
	int pid, tgid; /* a thread's, and its process's */
	struct sched_info sched_info;
};

#pragma clang attribute pop

#endif
