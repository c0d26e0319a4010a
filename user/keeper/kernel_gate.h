/* The kernel-side gate as the keeper owns it: maps and programs, loaded, attached, pinned, taken
 * over from a former start, and handed to the gateway map by map.
 *
 * Keeper only; privileged. Order: kernel_gate_open once the listeners listen, kernel_gate_record
 * for each gateway, kernel_gate_close. Closing with detach ends the gate; without, what is pinned
 * stays in force while nobody is home.
 */
#ifndef TIDEGATE_KEEPER_KERNEL_GATE_H
#define TIDEGATE_KEEPER_KERNEL_GATE_H

#include <stdbool.h>
#include <stddef.h>

#include "keeper/channel.h"
#include "kern/bpf_gate.h"
#include "kern/bpf_maps.h"
#include "tidegate/abi.h"

#define KERNEL_GATE_ROOT "/sys/fs/bpf"

enum {
	KERNEL_GATE_DIR_MAX = BPF_MAPS_DIR_MAX,
};

struct kernel_gate_weight {
	struct tg_lpm_key key;
	uint32_t weight; /* TG_WEIGHT_EXEMPT: no limits */
};

struct kernel_gate_opts {
	const char *instance; /* pins go to KERNEL_GATE_ROOT/tidegate/<instance> */
	const char *version;
	const char *const *interfaces; /* none: those that the listeners' addresses are on */
	unsigned n_interfaces;
	struct tg_settings settings; /* workers, listeners and rings are filled in */
	uint32_t sources;            /* source prefixes remembered */
	const struct tg_lpm_key *allow, *deny;
	unsigned n_allow, n_deny;
	const struct kernel_gate_weight *weights;
	unsigned n_weights;
	unsigned sample_percent; /* of the sockets: their wake delay is measured; 0: nothing is */
};

/* The listeners as they were opened: fds[listener * workers + worker]. */
struct kernel_gate_listeners {
	const int *fds;
	unsigned n, workers;
};

struct kernel_gate;

/* 0, or -errno and in error what failed, a clause for a log line: nothing is left behind then, and
 * a gate of a former start is still in force. *ret_notes, to be freed by the caller, are lines that
 * are worth saying though it worked ("eth0: generic XDP, slower than native"); one that begins with
 * ! is a warning. */
int kernel_gate_open(const struct kernel_gate_opts *opts, const struct kernel_gate_listeners *l,
	struct kernel_gate **ret, char **ret_notes, char *error, size_t error_len);

/* Record number i of the handover, a CHANNEL_MAP, and its descriptor. False: there is no such. NULL
 * has none. */
bool kernel_gate_record(
	const struct kernel_gate *k, unsigned i, struct channel_record *ret, int *ret_fd);

/* A gateway is dead: its workers are no longer there to steer to, and none of them hangs. NULL is
 * allowed. */
void kernel_gate_vacant(struct kernel_gate *k);

/* Measures the wake delay of so many of the sockets from now on, 0..100, or nothing (0). 0, or
 * -errno and in error what failed, a clause for a log line: nothing is measured then. NULL:
 * -EOPNOTSUPP. */
int kernel_gate_sample(struct kernel_gate *k, unsigned percent, char *error, size_t error_len);

/* NULL is allowed. */
void kernel_gate_close(struct kernel_gate *k, bool detach);

/* Ends the gate of an instance, with or without a keeper. 0, also when there is none, or -errno. */
int kernel_gate_remove(const char *instance);

#endif
