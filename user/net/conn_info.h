/* What an operator may know about one connection; a copy, taken by its worker. */
#ifndef TIDEGATE_NET_CONN_INFO_H
#define TIDEGATE_NET_CONN_INFO_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

struct conn_info {
	uint64_t session; /* public id; 0 before the handshake is over */
	uint16_t worker, ring;
	uint32_t slot;
	struct sockaddr_in6 peer; /* IPv4 mapped; the declared one behind a PROXY listener */
	const char *listener, *route, *upstream; /* names, static while the gateway lives; route is
						    its path; "" when none yet */
	const char *protocol;                    /* "websocket", "raw" */
	const char *state;        /* "proxy", "handshake", "opening", "open", "closing" */
	uint64_t age_ms, idle_ms; /* since accept; since the last byte received */
	uint32_t messages_in, messages_out;
	uint64_t queued_bytes; /* out queue */
	uint32_t queued_messages;
	uint64_t blocked_ms; /* its socket has taken nothing for so long; 0: it takes what there is
			      */
	bool reading_paused;
};

#endif
