/* Starts the gateway process, and says when to start the next one. Keeper only, single-threaded. */
#ifndef TIDEGATE_KEEPER_SPAWN_H
#define TIDEGATE_KEEPER_SPAWN_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "keeper/privilege.h"

enum {
	SPAWN_RESTART_MIN_MS = 100,
	SPAWN_RESTART_MAX_MS = 5000,
	SPAWN_HEALTHY_MS = 30000, /* serving for so long wipes the slate clean */
};

struct spawn_opts {
	const char *name;                             /* of the process, at most 15 characters */
	const struct privilege_user *user;            /* NULL: no change of user */
	int (*child_main)(void *ctx, int channel_fd); /* its result is the exit status */
	void *ctx;
};

struct spawn_child {
	pid_t pid;
	int channel; /* the keeper's end: non-blocking, close-on-exec */
};

/* Forks. The child has stdin, stdout, stderr and its end of the channel, nothing else; default
 * signal dispositions and an empty mask, except that SIGPIPE is ignored, and so are SIGINT, SIGTERM
 * and SIGHUP, since the keeper commands it through the channel and a terminal's ^C goes to both; no
 * privileges (privilege_drop). Should one of these fail, the child sends CHANNEL_FAILED and exits
 * with 1 before child_main. 0 or -errno. */
int spawn_gateway(const struct spawn_opts *opts, struct spawn_child *ret);

/* "exit status 3", "killed by signal 9 (Killed)". Returns text. wait_status: from waitpid. */
const char *spawn_death_text(int wait_status, char *text, size_t len);

/* When to restart. All zero: no restart so far. */
struct spawn_backoff {
	uint32_t next_ms;
};

/* How long to wait before the next start, after a child that served for served_ms (0: it never
 * did): nothing at first, then SPAWN_RESTART_MIN_MS and twice as much each time, up to
 * SPAWN_RESTART_MAX_MS. */
uint32_t spawn_backoff_ms(struct spawn_backoff *b, uint64_t served_ms);

#endif
