/* Somebody else's XDP program on an interface: attached through libxdp, natively, so that it shares
 * the interface with those that came before. Prints "attached" when it is, and for each line of
 * standard input how many SYNs it has seen since the last one; at its end, it is taken off.
 *
 * Usage: xdp_beside DEVICE PRIORITY: the lesser runs first; 50 is what libxdp gives others. */
#include <errno.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <xdp/libxdp.h>

#include "tests/support/xdp_beside.skel.h"

static int fail(const char *what, int rc)
{
	fprintf(stderr, "xdp_beside: %s: %s\n", what, strerror(-rc));
	return EXIT_FAILURE;
}

/* libxdp loaded it, not the skeleton, whose view of the count is none of the kernel's. */
static uint64_t seen(const struct xdp_beside_bpf *skel)
{
	struct xdp_beside_bpf__bss now = {0};
	uint32_t key = 0;

	if (bpf_map_lookup_elem(bpf_map__fd(skel->maps.bss), &key, &now))
		exit(fail("reading the count", -errno));
	return now.syns;
}

static void answer(const struct xdp_beside_bpf *skel)
{
	uint64_t told = 0;
	int c;

	while ((c = getchar()) != EOF) {
		if (c != '\n')
			continue;
		uint64_t now = seen(skel);
		printf("%llu\n", (unsigned long long)(now - told));
		fflush(stdout);
		told = now;
	}
}

static int attached(struct xdp_beside_bpf *skel, struct xdp_program *prog, int ifindex)
{
	int rc = xdp_program__attach(prog, ifindex, XDP_MODE_NATIVE, 0);

	if (rc)
		return fail("attaching", rc);
	puts("attached");
	fflush(stdout);
	answer(skel);
	rc = xdp_program__detach(prog, ifindex, XDP_MODE_NATIVE, 0);
	return rc ? fail("detaching", rc) : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	int ifindex = argc == 3 ? (int)if_nametoindex(argv[1]) : 0;

	if (!ifindex) {
		fputs("Usage: xdp_beside DEVICE PRIORITY\n", stderr);
		return 2;
	}
	libbpf_set_print(
		NULL); /* it warns of every section of the dispatcher that it does not know */
	struct xdp_beside_bpf *skel = xdp_beside_bpf__open();
	if (!skel)
		return fail("opening", -errno);
	DECLARE_LIBXDP_OPTS(xdp_program_opts, opts, .obj = skel->obj, .prog_name = "xdp_beside");
	struct xdp_program *prog = xdp_program__create(&opts);
	int rc = (int)libxdp_get_error(prog);
	if (!rc)
		rc = xdp_program__set_run_prio(prog, (unsigned)atoi(argv[2]));
	if (!rc)
		rc = xdp_program__set_xdp_frags_support(prog, true);
	rc = rc ? fail("preparing", rc) : attached(skel, prog, ifindex);
	xdp_program__close(prog);
	xdp_beside_bpf__destroy(skel);
	return rc;
}
