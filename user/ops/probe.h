/* What this machine offers of what tidegate needs: for --probe, and for a clear error at the start.
 *
 * Collecting opens rings and sockets for a moment, none on the network, and as root loads a BPF
 * program; judging is pure.
 */
#ifndef TIDEGATE_OPS_PROBE_H
#define TIDEGATE_OPS_PROBE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum {
	/* The oldest kernel supported. */
	PROBE_KERNEL_MAJOR = 6,
	PROBE_KERNEL_MINOR = 12,
	PROBE_WHY_MAX = 160, /* the longest text of probe_feature_why, with its NUL */
};

/* name, is it needed, what it is (and since which kernel). The first one stands for io_uring as a
 * whole: without it none of the others can be looked for. */
#define PROBE_FEATURES(X)                                                                          \
	X(io_uring, true, "io_uring")                                                              \
	X(defer_taskrun, true, "io_uring SINGLE_ISSUER and DEFER_TASKRUN (6.1)")                   \
	X(direct_descriptors, true, "io_uring sparse file table with slot allocation (5.19)")      \
	X(operations, true,                                                                        \
		"io_uring accept, poll, receive, send, cancel, shutdown, close (5.19)")            \
	X(multishot_accept, true, "io_uring multishot accept into direct descriptors (5.19)")      \
	X(buffer_rings, true, "io_uring provided buffer rings (5.19)")                             \
	X(socket_commands, true, "io_uring socket command GETSOCKOPT (6.7)")                       \
	X(msg_ring, true, "io_uring MSG_RING (5.18)")                                              \
	X(min_wait, true, "io_uring minimum wait (6.12)")                                          \
	X(send_msg_ring, false, "io_uring SEND_MSG_RING without a ring (6.13)")                    \
	X(btf, false, "BTF of the kernel, for the gate in the kernel")                             \
	X(freplace, false, "BPF freplace, for other XDP programs beside the gate")

enum probe_feature {
#define X(name, needed, text) PROBE_##name,
	PROBE_FEATURES(X)
#undef X
	PROBE_FEATURE_COUNT,
};

struct probe_facts {
	char release[65];                    /* uname -r */
	unsigned kernel_major, kernel_minor; /* 0.0 when release could not be read */
	int error[PROBE_FEATURE_COUNT];      /* 0: there; else -errno of the attempt */
	uint64_t nofile_soft, nofile_hard;   /* UINT64_MAX: unlimited */
	uint64_t memlock_soft, memlock_hard; /* bytes */
	int uring_disabled;                  /* kernel.io_uring_disabled; -1: not known */
};

void probe_collect(struct probe_facts *ret);

/* Of PROBE_FEATURES. */
const char *probe_feature_text(enum probe_feature which);
bool probe_feature_needed(enum probe_feature which);
bool probe_kernel_too_old(const struct probe_facts *f);
/* Why a feature cannot be had, into text: of io_uring as a whole more than the errno's words. */
void probe_feature_why(
	const struct probe_facts *f, enum probe_feature which, char *text, size_t len);

/* Says in text what is needed and missing, by name, and returns true; false and nothing written
 * when all is there. */
bool probe_missing(const struct probe_facts *f, char *text, size_t len);

/* One line a fact. */
void probe_print(const struct probe_facts *f, FILE *out);

#endif
