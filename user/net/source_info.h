/* What is known of one source prefix, and what would become of a SYN from an address. */
#ifndef TIDEGATE_NET_SOURCE_INFO_H
#define TIDEGATE_NET_SOURCE_INFO_H

#include <stdbool.h>
#include <stdint.h>

enum {
	SOURCES_TOP_MAX = 20, /* of a list of the busiest */
};

struct source_info {
	char prefix[56];          /* "192.0.2.1/32", "2001:db8::/64" */
	uint64_t accepts, closes; /* since it is known */
	uint32_t open;            /* connections, now */
	double churn_per_s;       /* accepts + closes, since it is known */
	double last_s;            /* since the last of them */
	uint32_t weight;          /* 1: its limits as configured */
	double penalty_left_s;    /* 0: none */
	uint32_t strikes;         /* penalties so far */
};

/* In the order in which the kernel decides. */
struct why_info {
	bool admitted;
	bool observed;    /* would be refused, but for observe mode */
	char decides[24]; /* "allow", "deny", "penalty", "gate", "none" */
	char entry[56];   /* the prefix that does, "" for the gate */
	char detail[240]; /* a sentence */
	bool proven;      /* the source has completed a handshake before */
	bool exempt;      /* loopback, or a weight without limits */
	bool cookie;      /* its SYN is answered with a SYN cookie, its ACK judged as said */
	uint32_t open;    /* connections of the narrowest prefix */
};

#endif
