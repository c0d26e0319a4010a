/* The keeper: the small parent that opens what needs privilege, hands it to the gateway and keeps
 * one alive.
 *
 * Single-threaded, and the process is the keeper's from the call on: it owns the signals SIGTERM
 * (drain), SIGINT (drain; during a drain: stop), SIGHUP and SIGCHLD, and leaves them blocked, so
 * that one more SIGTERM cannot turn a clean end into a death by signal. The caller returns from
 * main with the result.
 *
 * The listeners stay open over a crash of the gateway: whoever connects in between waits in the
 * backlog and is served by the next one. A drain closes them, so that newcomers are refused.
 *
 * Drain, from SIGTERM, SIGINT or the gateway itself: CHANNEL_DRAIN, then the keeper waits for the
 * gateway's end. Stop: CHANNEL_STOP, and SIGKILL after KEEPER_STOP_MS. Restart: at once, then with
 * backoff (spawn.h). A gateway that dies before the first one has been ready ends the keeper too:
 * what fails at the start fails again.
 */
#ifndef TIDEGATE_KEEPER_KEEPER_H
#define TIDEGATE_KEEPER_KEEPER_H

#include <stdbool.h>
#include <stdint.h>

#include "keeper/descriptors.h"
#include "keeper/kernel_gate.h"
#include "keeper/secrets.h"

enum {
	KEEPER_ADDRESS_WAIT_MS = 2000, /* for an address in use to become free, at the start */
	KEEPER_STOP_MS = 1000,
	KEEPER_START_LIMIT_MS = 30000, /* from the fork to CHANNEL_READY */
	KEEPER_END_LIMIT_MS = 10000,   /* from CHANNEL_FAILED or a closed channel to its death */
};

struct keeper_opts {
	struct descriptors_opts descriptors;
	struct secrets_opts secrets; /* n 0: none */
	/* Whom the gateway runs as when the keeper is root; must not be root. */
	const char *user;
	uint64_t drain_limit_ms; /* a gateway that drains for longer is killed; 0: no limit */

	/* The kernel-side gate; NULL: none is wanted. */
	const struct kernel_gate_opts *gate;
	bool gate_required; /* without it the keeper does not start; else the gateway does the same
			       in user space */

	/* The gateway, in its own process. It owns channel_fd and receives as channel.h says. */
	int (*gateway_main)(void *ctx, int channel_fd);
	void *ctx;
};

/* Runs until told to end, or until the first gateway fails. The exit status: 0, or 1 after saying
 * why in the log. */
int keeper_run(const struct keeper_opts *opts);

#endif
