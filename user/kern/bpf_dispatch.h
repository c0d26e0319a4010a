/* Attaching by libxdp's dispatcher, so that other XDP programs on the same interface go on working.
 *
 * Keeper, single-threaded; privileged. Not on every kernel: the dispatcher replaces functions of a
 * program (freplace), which some refuse; there libxdp would attach in another way and leave the
 * program behind, so ask bpf_dispatch_allowed first. What is attached outlives this process by
 * libxdp's own pins under /sys/fs/bpf/xdp, and is ended by the program's id alone.
 */
#ifndef TIDEGATE_KERN_BPF_DISPATCH_H
#define TIDEGATE_KERN_BPF_DISPATCH_H

#include <stdbool.h>
#include <stdint.h>

struct bpf_object;
struct xdp_program;

/* Tries it out. False also without privilege. */
bool bpf_dispatch_allowed(void);

/* obj is opened and given its maps, but not loaded: libxdp does that, once for each interface.
 * *ret is to be closed by bpf_dispatch_close, before obj; that does not detach. 0, or -errno. */
int bpf_dispatch_attach(struct bpf_object *obj, const char *program, unsigned ifindex, bool native,
	struct xdp_program **ret);
int bpf_dispatch_prog_fd(const struct xdp_program *prog);
uint32_t bpf_dispatch_prog_id(const struct xdp_program *prog);
void bpf_dispatch_close(struct xdp_program *prog);

/* Takes the program of this id out of the interface's dispatcher. 0, -ENOENT, or -errno. */
int bpf_dispatch_detach(unsigned ifindex, uint32_t prog_id);

#endif
