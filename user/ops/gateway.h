/* The gateway process: receives its descriptors, starts workers and admin, logs the scheduler line,
 * drains. */
#ifndef TIDEGATE_OPS_GATEWAY_H
#define TIDEGATE_OPS_GATEWAY_H

#include "ops/config.h"

/* Runs until told to end over the channel, or until the keeper is gone (end of file: it then ends
 * by itself, cleanly). Owns channel_fd. Returns the exit status. The configuration outlives it. */
int gateway_run(const struct config *cfg, int channel_fd);

#endif
