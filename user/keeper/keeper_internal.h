/* Shared by the files of keeper/keeper*.c only. */
#ifndef TIDEGATE_KEEPER_KEEPER_INTERNAL_H
#define TIDEGATE_KEEPER_KEEPER_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "keeper/keeper.h"
#include "keeper/privilege.h"
#include "keeper/spawn.h"

/* What a gateway may not take too long for. */
enum deadline {
	DEADLINE_START,
	DEADLINE_END,
	DEADLINE_DRAIN,
	DEADLINE_STOP,
	DEADLINE_BROKEN,
	DEADLINES,
};

struct keeper {
	const struct keeper_opts *o;
	int sigfd;
	struct spawn_opts spawn;
	struct privilege_user user;

	struct descriptors descriptors;
	struct kernel_gate *gate; /* NULL: none */
	struct secrets secrets;

	pid_t pid;            /* 0: no gateway now; start_at_ms says when */
	int channel;          /* -1 when there is none, or it has ended */
	uint32_t epoch;       /* of this gateway */
	unsigned handed_over; /* records sent to this gateway, as descriptors_record numbers them */
	bool keys_sent;       /* as they are now */
	bool ready;
	uint64_t ready_since_ms;
	char failed[sizeof(((struct channel_record *)0)->text)]; /* what it said, or "" */
	uint64_t kill_at_ms[DEADLINES];                          /* 0: not set */
	bool killed;                                             /* for one of these */

	bool ever_ready;
	struct spawn_backoff backoff;
	uint64_t start_at_ms;
	bool log_reopened; /* the gateway has not got it yet */
	bool draining, drain_sent;
	bool stopping, stop_sent;

	bool done;
	int status;
};

/* keeper.c: CLOCK_MONOTONIC. */
uint64_t keeper_now_ms(void);

/* keeper_open.c: signals, limits, user, secrets, listeners, the gate; what fails is logged. What
 * was opened stays in k, also on failure. 0 or -errno. */
int keeper_open(struct keeper *k);

#endif
