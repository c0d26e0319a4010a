/* What the net layer's links ask of the layer above for their services: topics. net->topic_ops;
 * NULL: there are none. Worker thread only. */
#ifndef TIDEGATE_NET_TOPIC_OPS_H
#define TIDEGATE_NET_TOPIC_OPS_H

#include "net/conn.h"

/* One who waits until publications are taken again; embedded in a publisher, zeroed at first. */
struct topic_pause {
	struct topic_pause *next, **pprev; /* pprev NULL: does not wait */
	void (*resume)(struct topic_pause *p);
};

struct topic_ops {
	/* Topics are valid for a link; what the hub's own rules refuse is counted and has no
	 * effect. */
	void (*subscribe)(struct net *n, struct conn *c, const char *topic, size_t len);
	void (*unsubscribe)(struct net *n, struct conn *c, const char *topic, size_t len);
	/* The message is taken, or counted as lost. False: no more of them until p->resume. */
	bool (*publish)(struct net *n, const char *topic, size_t topic_len, bool text,
		const uint8_t *data, size_t len, struct topic_pause *p);
	/* The session is over. */
	void (*closed)(struct net *n, struct conn *c);
};

/* p waits no longer. */
static inline void topic_pause_end(struct topic_pause *p)
{
	if (!p->pprev)
		return;
	*p->pprev = p->next;
	if (p->next)
		p->next->pprev = p->pprev;
	p->pprev = NULL;
}

#endif
