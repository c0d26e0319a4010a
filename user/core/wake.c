#include "core/wake.h"

#include <string.h>

static uint32_t key_of(const struct in6_addr *peer)
{
	uint32_t a[4];

	memcpy(a, peer, sizeof a);
	return tg_ready_key(a[0], a[1], a[2], a[3]);
}

bool wake_find(const struct wakes *w, uint16_t tag, const struct in6_addr *peer, uint64_t now_ns,
	uint64_t *ret_ns)
{
	struct tg_ready *r = &w->ready[tag % TG_READY_PLACES];
	uint64_t since = __atomic_load_n(&r->since_ns, __ATOMIC_RELAXED);

	if (!since || (peer && __atomic_load_n(&r->key, __ATOMIC_RELAXED) != key_of(peer)))
		return false;
	__atomic_store_n(&r->since_ns, 0, __ATOMIC_RELAXED);
	/* Before it was last switched on, nobody may have freed it. */
	if (since > now_ns || since < __atomic_load_n(&w->sched->since_ns, __ATOMIC_RELAXED))
		return false;
	*ret_ns = now_ns - since;
	return true;
}
