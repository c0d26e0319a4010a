/* `tidegatectl doctor`: what of this machine keeps a gateway from doing well, with the value that
 * each thing has, the one it should have, why, and the command that sets it. Nothing is written.
 *
 * What is read lies below a root ("" but in tests); what has to be tried out (io_uring, BPF, XDP)
 * is taken as facts, so that judging can be tested on machines that are made up.
 */
#ifndef TIDEGATECTL_DOCTOR_H
#define TIDEGATECTL_DOCTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "doctor_report.h"
#include "ops/probe.h"

enum {
	DOCTOR_CONNECTIONS_DEFAULT = 100000,
	DOCTOR_CONNECTIONS_MAX = 100000000, /* more than the kernel's memory for them allows */
	DOCTOR_TEXT_MAX = 65536,            /* bytes of a file that is looked at */
};

enum doctor_xdp_mode {
	DOCTOR_XDP_NONE,
	DOCTOR_XDP_NATIVE,
	DOCTOR_XDP_GENERIC,
	DOCTOR_XDP_OFFLOAD,
	DOCTOR_XDP_SEVERAL,
};

/* The gateway that was asked, if one answered. */
struct doctor_gateway {
	bool running;
	pid_t pid; /* of the gateway process; its parent is the keeper */
	unsigned workers;
	bool in_kernel;   /* its gate */
	char version[32]; /* "" unknown */
	char instance[64];
};

struct doctor {
	const char *root;     /* before every path */
	const char *instance; /* whose pins are looked for */
	uint64_t connections; /* that it is to hold */
	unsigned cpus;        /* this process may run on */
	struct doctor_gateway gateway;
	struct probe_facts probe;
	uint64_t capabilities;  /* of this process */
	int bpf_xdp, bpf_steer; /* 1: such programs load; 0: not; negative: not tried */
	bool dispatcher;        /* libxdp's can be had */
	int (*interface_name)(unsigned ifindex, char ret[64]); /* 0 or -errno */
	/* What XDP is attached in; -errno. */
	int (*xdp_mode)(unsigned ifindex, enum doctor_xdp_mode *ret);
	struct doctor_report report;
};

/* Each adds its groups to d->report. */
void doctor_kernel(struct doctor *d);
void doctor_limits(struct doctor *d);
void doctor_sysctls(struct doctor *d);
void doctor_interfaces(struct doctor *d);
void doctor_process(struct doctor *d);

/* Workers that there are, or that a gateway would choose. */
unsigned doctor_workers(const struct doctor *d);

/* ---- reading; pure but for the file ---- */

/* The text of root + path without blanks at its end. 0, -EFBIG, or -errno; ret untouched then. */
int doctor_read(const struct doctor *d, const char *path, char ret[DOCTOR_TEXT_MAX]);
/* Exactly n decimal numbers separated by blanks, and nothing else; what is beyond an int64_t
 * becomes its greatest or least. 0, or -EINVAL and ret untouched. */
int doctor_numbers(const char *text, int64_t *ret, unsigned n);
/* Both. */
int doctor_read_numbers(const struct doctor *d, const char *path, int64_t *ret, unsigned n);
/* Twice as much, at most what an int64_t holds. */
int64_t doctor_double(int64_t v);
/* The path of a sysctl: "net.core.somaxconn". */
void doctor_sysctl_path(const char *name, char path[128]);
/* The rest of the line that begins with key, blanks skipped, in ret; false: there is none, or it
 * does not fit. */
bool doctor_line(const char *text, const char *key, char *ret, size_t len);

/* ---- the command ---- */

struct doctor_args {
	const char *socket, *instance;
	const char *connections; /* as given; NULL: not */
	bool json;
};

/* The exit code: 0, 1 when there is a problem, 2 for bad arguments. */
int doctor_run(const struct doctor_args *a);

#endif
