#include "ops/gateway_sample.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/worker.h"

struct worker_seen {
	uint64_t busy_us, awake_ns, handshake_ns, admitted, refused, handshakes;
};

_Static_assert((int)STATS_CLASSES == (int)RUNQ_CLASSES, "one counter a class");

int gateway_sampler_init(struct gateway_sampler *s, unsigned n_workers)
{
	s->seen = calloc(n_workers, sizeof *s->seen);
	s->n_workers = n_workers;
	return s->seen ? 0 : -ENOMEM;
}

void gateway_sampler_fini(struct gateway_sampler *s)
{
	free(s->seen);
	s->seen = NULL;
}

/* How much it has grown; the next look begins here. */
static uint64_t grown(uint64_t *seen, uint64_t now)
{
	uint64_t n = now > *seen ? now - *seen : 0;

	*seen = now;
	return n;
}

static uint64_t sum(const uint64_t *counter, const enum tg_verdict *of, unsigned n)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < n; i++)
		v += counter[of[i]];
	return v;
}

/* Refused by the gate, or that would have been; lists and penalties are not its doing. */
static uint64_t refused(const struct tg_worker_stats *w)
{
	static const enum tg_verdict gate[] = {
		TG_DROP_SHUT, TG_DROP_PERMITS, TG_DROP_RATE, TG_DROP_NEWCOMER, TG_DROP_SHARE};
	unsigned n = sizeof gate / sizeof *gate;

	return sum(w->verdicts, gate, n) + sum(w->verdicts_observed, gate, n);
}

static uint64_t admitted(const struct tg_worker_stats *w)
{
	static const enum tg_verdict in[] = {TG_ADMIT_OPEN, TG_ADMIT_PACED, TG_ADMIT_ALLOWED};

	return sum(w->verdicts, in, sizeof in / sizeof *in);
}

/* The least delay of the last whole slot, when it is recent, or the age of a turn that does not
 * end. */
static bool delay_of(const struct tg_worker_stats *w, uint64_t now_ns, uint64_t *ret_ns)
{
	uint64_t word = __atomic_load_n(&w->least_delay, __ATOMIC_RELAXED);
	uint64_t since = __atomic_load_n(&w->turn_since_ns, __ATOMIC_RELAXED);
	uint32_t age = (uint32_t)(now_ns / WORKER_SLOT_NS) - (uint32_t)(word >> 32);
	bool has = word && age <= 2;

	*ret_ns = has ? (word & UINT32_MAX) * 1000 : 0;
	if (since && now_ns > since && now_ns - since > WORKER_SLOT_NS) {
		if (now_ns - since > *ret_ns)
			*ret_ns = now_ns - since;
		has = true;
	}
	return has;
}

void gateway_sample(struct gateway_sampler *s, const struct tg_worker_stats *stats, uint64_t now_ns,
	struct governor_sample *ret)
{
	memset(ret, 0, sizeof *ret);
	for (unsigned i = 0; i < s->n_workers; i++) {
		const struct tg_worker_stats *w = &stats[i];
		struct worker_seen *seen = &s->seen[i];
		uint64_t busy_ns = grown(&seen->busy_us, w->loop_us.sum) * 1000, delay_ns;
		uint64_t awake_ns = grown(&seen->awake_ns, w->awake_ns);
		uint64_t handshake_ns = grown(&seen->handshake_ns, w->class_ns[RUNQ_HANDSHAKE]);
		uint64_t handshakes = grown(&seen->handshakes, w->handshakes);

		ret->admitted += grown(&seen->admitted, admitted(w));
		ret->refused += grown(&seen->refused, refused(w));
		ret->served += handshakes;
		if (!delay_of(w, now_ns, &delay_ns) || (ret->has_delay && delay_ns < ret->delay_ns))
			continue;
		ret->has_delay = true;
		ret->delay_ns = delay_ns;
		ret->busy_ns = busy_ns;
		ret->awake_ns = awake_ns;
		ret->handshake_ns = handshake_ns;
		ret->served_here = handshakes;
	}
	ret->workers = s->n_workers;
}
