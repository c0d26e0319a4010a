/* What the keeper's gate in the kernel is to be, from the configuration. */
#ifndef TIDEGATE_OPS_GATE_OPTIONS_H
#define TIDEGATE_OPS_GATE_OPTIONS_H

#include "keeper/kernel_gate.h"
#include "ops/config.h"

/* 0 or -ENOMEM. The configuration's texts stay in use. */
int gate_options_init(const struct config *c, const char *version, struct kernel_gate_opts *ret);
void gate_options_fini(struct kernel_gate_opts *o);

/* Does this configuration want the gate in the kernel? */
static inline bool gate_in_kernel(const struct config *c)
{
	return c->admission.mode == CONFIG_ADMISSION_AUTO ||
	       c->admission.mode == CONFIG_ADMISSION_KERNEL ||
	       c->admission.mode == CONFIG_ADMISSION_OBSERVE;
}

/* A prefix as the kernel's tries have it. */
void gate_key(const struct in6_addr *addr, unsigned len, struct tg_lpm_key *ret);
/* And back: IPv4 mapped. */
void gate_key_prefix(const struct tg_lpm_key *key, struct in6_addr *ret_addr, uint8_t *ret_len);

#endif
