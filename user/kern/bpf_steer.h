/* The steering programs (bpf/steer.bpf.c): which worker gets a new connection, and which listener
 * the packets of whole port ranges and prefixes.
 *
 * Keeper, single-threaded; privileged. Order: bpf_maps_open, settings and ports (bpf_gate.h),
 * bpf_steer_load, listeners are opened, bpf_steer_add for each, bpf_redirects_write,
 * bpf_steer_attach_lookup. Nothing of it is pinned: without a gateway there is nobody to steer to.
 */
#ifndef TIDEGATE_KERN_BPF_STEER_H
#define TIDEGATE_KERN_BPF_STEER_H

#include <stdbool.h>
#include <stdint.h>

#include "kern/bpf_maps.h"

struct bpf_steer;

/* Loads it, and notices wake-ups of workers from now on. 0, or -errno, and *ret_step names what
 * failed. maps must outlive it. */
int bpf_steer_load(const struct bpf_maps *maps, struct bpf_steer **ret, const char **ret_step);
/* NULL is allowed. Ends the look-up and the wake-ups; a listener's own program lives as long as its
 * sockets do. */
void bpf_steer_close(struct bpf_steer *s);

/* Sockets of one listener, all bound alike. */
struct bpf_steer_group {
	uint32_t listener; /* as in the configuration, below tg_settings.listeners */
	const int *fds;    /* [workers * rings], by worker, then by ring; -1: it has none */
	unsigned n;
	/* As in the settings, or as they will be: the index into `listeners` comes of them. */
	uint32_t workers, rings;
};

/* The sockets must listen. Puts them into `listeners`, and if there are two or more, which then
 * have to share their address by SO_REUSEPORT, the program chooses between them from now on. 0, or
 * -errno and *ret_step: -E2BIG when the map has no room for the index. */
int bpf_steer_add(struct bpf_steer *s, const struct bpf_steer_group *group, const char **ret_step);

/* Takes a socket out of `listeners`: connections that begin now go elsewhere. For a listener that
 * is to be closed while others of its group go on, so that none of its connections is lost: the
 * worker publishes that it does not accept; this; a moment, for handshakes that are under way;
 * close, and what waits in its accept queue moves to the others. One that completes its handshake
 * in the very moment of the close may be reset by the kernel. 0, -ENOENT, or -errno. */
int bpf_steer_remove(struct bpf_steer *s, const struct tg_settings *settings, uint32_t listener,
	uint32_t worker, uint32_t ring);

/* A port range on a prefix of addresses, given to a listener that is bound elsewhere. */
struct bpf_redirect {
	uint8_t addr[16]; /* as in tg_lpm_key */
	uint8_t bits;     /* of addr, for IPv4 32 + n; 0: every address of both families */
	uint16_t port, port_last;
	uint32_t listener;
};

/* Makes exactly these the ones in force, the first that matches first; `settings` is written with
 * their number. -EINVAL: no port, or bits set beyond the prefix; -E2BIG: over TG_REDIRECTS_MAX. */
int bpf_redirects_write(const struct bpf_maps *m, const struct bpf_redirect *list, unsigned n,
	struct tg_settings *settings);

/* In the network namespace behind the descriptor, once for each; -1: the caller's own. */
int bpf_steer_attach_lookup(struct bpf_steer *s, int netns_fd, const char **ret_step);
/* For BPF_PROG_RUN. */
int bpf_steer_lookup_fd(const struct bpf_steer *s);

#endif
