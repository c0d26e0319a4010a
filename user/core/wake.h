/* How long a sampled socket had been readable when its worker received from it: since when, the
 * kernel has written into the map `ready` (sched.bpf.c); the worker reads it there and frees the
 * place.
 *
 * Worker thread only; no allocation, no lock. Every receive must come here, or the place would go
 * on saying that the socket is readable. What arrives between a receive and its completion belongs
 * to it, and what follows is not measured.
 */
#ifndef TIDEGATE_CORE_WAKE_H
#define TIDEGATE_CORE_WAKE_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "tidegate/abi.h"

struct wakes {
	const struct tg_sched *sched; /* both NULL: nothing is measured, ever */
	struct tg_ready *ready;
};

/* What finds the socket again; 0: nothing does. */
static inline uint16_t wake_tag(const struct wakes *w, in_port_t port)
{
	return w->sched ? tg_ready_hash(port, w->sched->seed) : 0;
}

static inline bool wake_measuring(const struct wakes *w)
{
	return w->sched && __atomic_load_n(&w->sched->share, __ATOMIC_RELAXED);
}

/* Looks into the place of a sampled socket, and frees it. peer NULL: not known any more, whoever it
 * is is taken. False: it is another's, or empty, or it became readable after now_ns. */
bool wake_find(const struct wakes *w, uint16_t tag, const struct in6_addr *peer, uint64_t now_ns,
	uint64_t *ret_ns);

/* The same of any socket; inline is what most need. */
static inline bool wake_take(const struct wakes *w, uint16_t tag, const struct in6_addr *peer,
	uint64_t now_ns, uint64_t *ret_ns)
{
	return tag && w->sched &&
	       tg_ready_sampled(tag, __atomic_load_n(&w->sched->share, __ATOMIC_RELAXED)) &&
	       wake_find(w, tag, peer, now_ns, ret_ns);
}

#endif
