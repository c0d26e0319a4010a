#include "kern/bpf_dispatch.h"

#include <errno.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/bpf.h>
#include <xdp/libxdp.h>

#include "bpf/freplace.skel.h"

/* ---- is it allowed ---- */

/* Loads one half; target_fd < 0: the target itself. */
static int load_half(struct freplace_bpf *skel, int target_fd)
{
	bool extension = target_fd >= 0;
	int rc = 0;

	bpf_program__set_autoload(skel->progs.freplace_target, !extension);
	bpf_program__set_autoload(skel->progs.freplace_program, extension);
	if (extension)
		rc = bpf_program__set_attach_target(
			skel->progs.freplace_program, target_fd, "freplace_slot");
	return rc ? rc : freplace_bpf__load(skel);
}

bool bpf_dispatch_allowed(void)
{
	struct freplace_bpf *target = freplace_bpf__open(), *extension = freplace_bpf__open();
	bool ok = target && extension && !load_half(target, -1) &&
		  !load_half(extension, bpf_program__fd(target->progs.freplace_target));

	freplace_bpf__destroy(extension);
	freplace_bpf__destroy(target);
	return ok;
}

/* ---- attaching ---- */

int bpf_dispatch_attach(struct bpf_object *obj, const char *program, unsigned ifindex, bool native,
	struct xdp_program **ret)
{
	DECLARE_LIBXDP_OPTS(xdp_program_opts, opts, .obj = obj, .prog_name = program);
	struct xdp_program *prog = xdp_program__create(&opts);
	int rc = (int)libxdp_get_error(prog);

	if (rc)
		return rc;
	/* libxdp does not see it in the section. */
	rc = xdp_program__set_xdp_frags_support(prog, true);
	/* Whatever it passes is for the next one to see. */
	if (!rc)
		rc = xdp_program__set_chain_call_enabled(prog, XDP_PASS, true);
	if (!rc)
		rc = xdp_program__attach(
			prog, (int)ifindex, native ? XDP_MODE_NATIVE : XDP_MODE_SKB, 0);
	if (rc) {
		xdp_program__close(prog);
		return rc;
	}
	*ret = prog;
	return 0;
}

int bpf_dispatch_prog_fd(const struct xdp_program *prog)
{
	return xdp_program__fd(prog);
}

uint32_t bpf_dispatch_prog_id(const struct xdp_program *prog)
{
	return xdp_program__id(prog);
}

void bpf_dispatch_close(struct xdp_program *prog)
{
	if (prog)
		xdp_program__close(prog);
}

int bpf_dispatch_detach(unsigned ifindex, uint32_t prog_id)
{
	struct xdp_multiprog *multi = xdp_multiprog__get_from_ifindex((int)ifindex);
	int rc = (int)libxdp_get_error(multi);

	if (rc)
		return rc == -ENOENT ? -ENOENT : rc;
	struct xdp_program *prog = NULL;
	rc = -ENOENT;
	while ((prog = xdp_multiprog__next_prog(prog, multi)))
		if (xdp_program__id(prog) == prog_id) {
			rc = xdp_program__detach(
				prog, (int)ifindex, xdp_multiprog__attach_mode(multi), 0);
			break;
		}
	xdp_multiprog__close(multi);
	return rc;
}
