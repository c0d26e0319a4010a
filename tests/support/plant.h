/* A small deterministic model of a gateway's worker, to run the governor against: arrivals in, a
 * FIFO of handshakes served at a fixed capacity, delay out. One tick is one millisecond. No clock,
 * no chance. */
#ifndef TIDEGATE_TESTS_PLANT_H
#define TIDEGATE_TESTS_PLANT_H

#include <math.h>
#include <string.h>

#include "net/governor.h"

#define PLANT_MS UINT64_C(1000000)

enum {
	PLANT_LAG_MAX = 4
};

struct plant {
	struct governor g;
	struct governor_gate gate;
	uint64_t now_ns;

	/* The load, free to change between runs. */
	double offered;         /* attempts per second */
	double capacity;        /* handshakes per second the worker can serve */
	double fanout_share;    /* of the worker's time goes to other work … */
	double fanout_delay_ns; /* … which delays every event by so much */
	double lock_delay_ns;   /* a delay of handshakes that no queue explains */
	double hidden_share;    /* of what a handshake costs: not charged to any */
	double patience_s;      /* who waits longer than this is gone at his turn; 0: nobody */
	unsigned lag;           /* steps until a delay is seen, below PLANT_LAG_MAX */
	int memory_percent;
	bool idle; /* nothing has a delay to show */

	uint64_t seen_ns[PLANT_LAG_MAX];
	unsigned steps;
	double queue, credit, owed, done_part; /* connections */
	uint64_t served_total, admitted_total, refused_total;
	double worst_delay_ns;
	unsigned changes; /* of state */
};

static inline void plant_init(struct plant *p, const struct governor_opts *opts)
{
	memset(p, 0, sizeof *p);
	governor_init(&p->g, opts);
	p->now_ns = 1000 * PLANT_MS;
	p->capacity = 1000;
	p->memory_percent = GOVERNOR_MEMORY_UNKNOWN;
	p->gate.rate = GOVERNOR_RATE_MAX;
	p->gate.permits = GOVERNOR_PERMITS_MAX;
}

static inline void plant_admit(struct plant *p, struct governor_sample *s)
{
	p->credit = fmin(p->credit + p->gate.rate / 1000.0, fmax(p->gate.rate / 50.0, 1));
	for (p->owed += p->offered / 1000; p->owed >= 1; p->owed--) {
		bool ok =
			p->gate.observe || ((p->gate.rate >= GOVERNOR_RATE_MAX || p->credit >= 1) &&
						   p->queue < p->gate.permits);

		if (ok) {
			p->credit--;
			p->queue++;
			s->admitted++;
		} else {
			s->refused++;
		}
	}
}

/* One step of the governor: 20 ms of the model. */
static inline void plant_step(struct plant *p)
{
	struct governor_sample s = {.memory_percent = p->memory_percent, .workers = 1};
	enum tg_gate_state before = p->gate.state;
	double least = INFINITY;

	for (unsigned ms = 0; ms < 20; ms++) {
		double can = p->capacity * (1 - p->fanout_share) / 1000, did;

		plant_admit(p, &s);
		did = fmin(p->queue, can);
		p->queue -= did;
		if (!p->patience_s || p->queue / can < p->patience_s * 1000)
			p->done_part += did;
		double work_ns = did / can * (1 - p->fanout_share) * 1e6;
		double fanout_ns = p->fanout_share * 1e6;

		s.handshake_ns += (uint64_t)(work_ns * (1 - p->hidden_share));
		s.busy_ns += (uint64_t)(work_ns * (1 - p->hidden_share) + fanout_ns);
		s.awake_ns += (uint64_t)(work_ns + fanout_ns);
		least = fmin(least, p->queue / can * 1e6 + p->fanout_delay_ns + p->lock_delay_ns);
	}
	s.served = (uint64_t)p->done_part;
	p->done_part -= (double)s.served;
	s.served_here = s.served;
	s.has_delay = !p->idle;
	p->seen_ns[p->steps % PLANT_LAG_MAX] = (uint64_t)least;
	s.delay_ns = p->steps >= p->lag ? p->seen_ns[(p->steps - p->lag) % PLANT_LAG_MAX] : 0;
	p->steps++;
	s.unserved = (uint64_t)p->queue;
	p->worst_delay_ns = fmax(p->worst_delay_ns, least);
	p->served_total += s.served;
	p->admitted_total += s.admitted;
	p->refused_total += s.refused;
	p->now_ns += GOVERNOR_STEP_NS;
	governor_step(&p->g, p->now_ns, &s, &p->gate);
	p->changes += p->gate.state != before;
}

static inline void plant_run(struct plant *p, double seconds)
{
	for (unsigned i = 0; i < seconds * 50; i++)
		plant_step(p);
}

/* Forgets what was counted, not what is queued. */
static inline void plant_count_anew(struct plant *p)
{
	p->served_total = p->admitted_total = p->refused_total = 0;
	p->worst_delay_ns = 0;
	p->changes = 0;
}

#endif
