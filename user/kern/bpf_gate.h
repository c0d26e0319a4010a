/* What is written to and read from the shared maps: settings, ports, the gate, verdict counters.
 *
 * By descriptor, so that either process can do what its descriptors allow: the keeper writes
 * settings and ports, the gateway's governor the gate (through its mapping), anybody reads
 * verdicts.
 */
#ifndef TIDEGATE_KERN_BPF_GATE_H
#define TIDEGATE_KERN_BPF_GATE_H

#include <stdbool.h>
#include <stdint.h>

#include "kern/bpf_maps.h"
#include "tidegate/abi.h"

/* ---- settings ---- */

enum {
	BPF_FLOOD_LIMIT_MAX = 30000, /* SYNs a second; the sketch's counters end at 65,535 */
};

/* The defaults of design: observe off, drop, loopback exempt, fair; /32, /24 and /64, /56, /48;
 * no limits but a flood limit of 200 a second; stale after 1 s; 10 events a second. */
void bpf_settings_init(struct tg_settings *s);
/* -EINVAL: a field out of its range (see abi.h); nothing was written. */
/* All but proven_seed, which is the maps'. */
int bpf_settings_write(int settings_fd, const struct tg_settings *s);

/* ---- the gateway's addresses ---- */

struct bpf_endpoint {
	uint8_t addr[16];         /* IPv4 as in tg_lpm_key */
	uint8_t bits;             /* of addr; 0: every address of both families */
	uint16_t port, port_last; /* a range; port >= 1 */
	uint32_t listener;
};

/* Makes exactly these the gateway's. At no moment is one of both the old and the new ones missing.
 * -EINVAL, -ENOSPC when the addresses do not fit their map (then nothing was taken away), or
 * -errno. */
int bpf_ports_write(const struct bpf_maps *m, const struct bpf_endpoint *list, unsigned n);

/* ---- the gate ---- */

/* PACED at `rate` a second, of which prefixes that are not proven may use 1 - reserved (0..0.99).
 * burst_ns is raised to what the rate and the kernel's clock need. rate must be above 0. */
void bpf_gate_set_rate(struct tg_gate *g, double rate, double reserved, uint64_t burst_ns);

/* Into the mapped gate: plain stores, the heartbeat last. One writer. */
void bpf_gate_publish(struct tg_gate *mapped, const struct tg_gate *g, uint64_t now_ns);

const char *bpf_gate_state_name(uint32_t state);
const char *bpf_gate_reason_name(uint32_t reason);

/* ---- verdicts ---- */

const char *bpf_verdict_program(enum tg_verdict v);
const char *bpf_verdict_name(enum tg_verdict v);
const char *bpf_verdict_help(enum tg_verdict v);
/* Of admit: is it a refusal (those of tg_verdict named DROP_)? */
bool bpf_verdict_refuses(enum tg_verdict v);

/* Summed over the CPUs. 0 or -errno, then ret is untouched. */
int bpf_verdicts_read(int verdicts_fd, struct tg_verdict_count ret[TG_VERDICT_COUNT]);

#endif
