/* The admission program (bpf/admit.bpf.c): loading it, and attaching it to interfaces.
 *
 * Keeper, single-threaded; privileged. Order: bpf_maps_open, settings, ports and lists
 * (bpf_gate.h, bpf_lists.h), bpf_admit_load, bpf_admit_attach for each interface,
 * bpf_admit_detach_others, bpf_maps_commit. bpf_admit_close leaves what is pinned in force;
 * bpf_admit_detach ends it.
 *
 * How it is attached: native where the driver can, else generic, unless one is asked for. By
 * libxdp's dispatcher where the kernel allows it, so that other XDP programs stay in place; else by
 * a bpf_link. What attached it is pinned, as admit_link_<ifindex> (the link) or
 * admit_prog_<ifindex> (the program, by which the next start finds it in the dispatcher), and
 * outlives this process. A link of a former start is given the new program in one step; in a
 * dispatcher the new program comes in before the old one goes, and counts what both see twice for a
 * moment. No packet goes undecided.
 */
#ifndef TIDEGATE_KERN_BPF_ADMIT_H
#define TIDEGATE_KERN_BPF_ADMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "kern/bpf_maps.h"

struct bpf_admit;

enum {
	BPF_COOKIES_SYSCTL = 2, /* cookies for everybody: only then does the kernel take ours */
};

/* net.ipv4.tcp_syncookies of the caller's network namespace: SYN cookies can be answered where it
 * is BPF_COOKIES_SYSCTL. Or -errno: -ENOENT, the kernel knows none. */
int bpf_admit_cookies_sysctl(void);

enum bpf_admit_mode {
	BPF_ADMIT_ANY,
	BPF_ADMIT_NATIVE,
	BPF_ADMIT_GENERIC,
};

struct bpf_admit_attached {
	bool native;
	bool dispatcher; /* by libxdp's; else by a link */
	bool adopted;    /* a former start's place, with the new program */
};

/* 0, or -errno: -EPERM, -ENOMEM, or the verifier's refusal (bpf_error_text says more). maps must
 * outlive it. cookies: it may answer SYN cookies, above tg_settings.cookie_trigger; without, it
 * asks less of the kernel, and ACKs are none of its business. */
int bpf_admit_load(const struct bpf_maps *maps, bool cookies, struct bpf_admit **ret);
/* The program, loaded but attached nowhere itself: for BPF_PROG_RUN. */
int bpf_admit_prog_fd(const struct bpf_admit *a);
/* Before attaching: never by the dispatcher. */
void bpf_admit_avoid_dispatcher(struct bpf_admit *a);

/* 0, or -errno: -ENODEV, -EBUSY when another program is attached there, -EOPNOTSUPP when the driver
 * cannot do the mode asked for, -E2BIG above 64 interfaces. */
int bpf_admit_attach(struct bpf_admit *a, unsigned ifindex, enum bpf_admit_mode mode,
	struct bpf_admit_attached *ret);
/* 0, or -ENOENT: it is not attached there. */
int bpf_admit_detach(struct bpf_admit *a, unsigned ifindex);
/* Ends what a former start left on interfaces that this one did not attach to. */
int bpf_admit_detach_others(struct bpf_admit *a);
/* NULL is allowed. Links that are not pinned end. */
void bpf_admit_close(struct bpf_admit *a);

/* Without a daemon: ends what is attached by the pins in dir. 0 also when there is nothing. Before
 * bpf_maps_remove, which then unpins the rest. */
int bpf_admit_end(const char *dir);

#endif
