/* The gate as people want to see it. */
#ifndef TIDEGATE_NET_GATE_INFO_H
#define TIDEGATE_NET_GATE_INFO_H

#include "net/governor.h"
#include "net/memory_pressure.h"

struct gate_info {
	bool on;           /* false: admission.mode is off, everybody is let in */
	const char *mode;  /* "kernel", "user", "observe" or "off"; static */
	const char *where; /* "kernel" or "user"; "" when off */
	struct governor_gate gate;
	enum governor_word word; /* the operator's last; rate with GATE_WORD_RATE */
	uint32_t word_rate;
	uint64_t unserved;            /* accepted, handshake not complete */
	uint64_t delay_ns, target_ns; /* the standing delay of the last interval */
	uint64_t goodput;             /* handshakes completed per second, smoothed */
	uint64_t cuts, shuts, holds;  /* decisions so far; holds: cuts taken back for harm done */
	struct memory_percents memory;
	unsigned memory_high_percent; /* the gate shuts there */
	unsigned handshake_percent;   /* of busy time: below it newcomers are not to blame */
};

/* One entry of the allow or the deny list. */
struct list_info {
	char prefix[56]; /* "10.0.0.0/8", "2001:db8::/32" */
	bool configured; /* by the file; else by an operator */
};

enum gate_list {
	GATE_ALLOW,
	GATE_DENY,
	GATE_LISTS,
};

#endif
