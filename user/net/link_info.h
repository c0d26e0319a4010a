/* What an operator may know about one link. */
#ifndef TIDEGATE_NET_LINK_INFO_H
#define TIDEGATE_NET_LINK_INFO_H

#include <stdbool.h>
#include <stdint.h>

/* One link, copied by its worker. */
struct link_info {
	const char *upstream, *endpoint; /* names, static */
	uint16_t worker;
	const char
		*state; /* "connecting", "hello", "up", "waiting" (for its next try), "draining" */
	bool up;
	uint32_t sessions;
	uint64_t queued_bytes; /* towards the service */
	uint64_t credit_bytes; /* link credit left towards the service */
	uint32_t retry_in_ms;  /* waiting */
	uint32_t rtt_us;       /* last PING; 0: none yet */
	char last_error[96];
};

#endif
