#include "net/governor.h"

#include <math.h>
#include <string.h>

#define MSEC UINT64_C(1000000)

enum {
	OPEN_AFTER_MS = 2000,    /* without a refusal or a delay, the gate has nothing to pace */
	GUARD_AFTER_MS = 500,    /* a cut has shown by then what it does */
	HOLD_FIRST_MS = 2000,    /* no cuts after one that did harm; doubles every time … */
	HOLD_LAST_MS = 60000,    /* … up to this, since the next look costs goodput again */
	HOLD_BREAK = 4,          /* a delay so many times the contended one is something new */
	GROW_FAST_PERMILLE = 30, /* of the rate, an interval: while there is hardly a queue … */
	GROW_SLOW_PERMILLE = 5,  /* … and close to the target or to the capacity that was seen */
	DRAIN_INTERVALS = 3,     /* a queue that a cut does not end in so many is cut for again */
	RESUME_PERCENT = 85,     /* of the capacity, after a shut gate: leaves room to drain */
	GOODPUT_WEIGHT = 3,      /* the newest interval counts for one in so many */
};

void governor_defaults(struct governor_opts *opts)
{
	*opts = (struct governor_opts){
		.target_ns = 5 * MSEC,
		.interval_ns = 100 * MSEC,
		.cut_percent = 50,
		.rate_floor = 10,
		.permits = 10000,
		.reserve_percent = 25,
		.handshake_percent = 20,
		.memory_high_percent = 90,
		.memory_low_percent = 85,
	};
}

void governor_init(struct governor *g, const struct governor_opts *opts)
{
	memset(g, 0, sizeof *g);
	g->opts = *opts;
	if (!g->opts.rate_floor)
		g->opts.rate_floor = 1; /* a gate that is shut by delay must find out by itself when
					   to open */
	if (!g->opts.target_ns)
		g->opts.target_ns = 1;
	g->state = TG_GATE_OPEN;
	g->memory_percent = GOVERNOR_MEMORY_UNKNOWN;
	g->hold_ns = HOLD_FIRST_MS * MSEC;
}

static double most_rate(const struct governor *g)
{
	return g->opts.rate_ceiling ? (double)g->opts.rate_ceiling : GOVERNOR_RATE_MAX;
}

static double bounded(const struct governor *g, double rate)
{
	if (!(rate > g->opts.rate_floor))
		rate = g->opts.rate_floor;
	return rate < most_rate(g) ? rate : most_rate(g);
}

/* What the gateway manages. Without a queue it is not completed, only estimated. */
static double manages(const struct governor *g)
{
	return g->capacity > g->estimate ? g->capacity : g->estimate;
}

/* Paced, at what the gateway manages; open when that is not known. */
static void resume(struct governor *g)
{
	double rate = manages(g) * RESUME_PERCENT / 100;

	g->state = rate > 0 ? TG_GATE_PACED : TG_GATE_OPEN;
	g->rate = bounded(g, rate);
}

static void begin_interval(struct governor *g, uint64_t now_ns)
{
	g->begin_ns = now_ns;
	g->unserved_before = g->unserved;
	g->has_delay = false;
	g->delay_ns = 0;
	g->busy_ns = g->awake_ns = g->handshake_ns = 0;
	g->admitted = g->refused = g->served = g->served_here = 0;
}

void governor_say(struct governor *g, enum governor_word word, uint32_t rate)
{
	if (g->word != GATE_WORD_AUTO && word == GATE_WORD_AUTO) {
		/* Whoever was kept out comes now, all at once. */
		resume(g);
		g->episode = false;
		g->hold_until_ns = 0;
		g->limited_ns = g->last_ns;
		g->delay_seen_ns = g->last_ns;
		begin_interval(g, g->last_ns);
	}
	g->word = word;
	g->word_rate = rate < GOVERNOR_RATE_MAX ? rate : GOVERNOR_RATE_MAX;
}

/* Sums may come from counters that were read in the middle of an update: never wrap. */
static void add(uint64_t *to, uint64_t n)
{
	if (__builtin_add_overflow(*to, n, to))
		*to = UINT64_MAX;
}

static void gather(struct governor *g, uint64_t now_ns, const struct governor_sample *s)
{
	if (s->has_delay) {
		if (!g->has_delay || s->delay_ns < g->delay_ns)
			g->delay_ns = s->delay_ns;
		g->has_delay = true;
		g->delay_seen_ns = now_ns;
	}
	add(&g->busy_ns, s->busy_ns);
	add(&g->awake_ns, s->awake_ns);
	add(&g->handshake_ns, s->handshake_ns);
	add(&g->admitted, s->admitted);
	add(&g->refused, s->refused);
	add(&g->served, s->served);
	add(&g->served_here, s->served_here);
	g->workers = s->workers;
	g->unserved = s->unserved;
}

/* How much the newest figures count, of an interval that may have been cut short. */
static double weight(const struct governor *g, double seconds)
{
	double whole = seconds * 1e9 / (double)g->opts.interval_ns;

	return (whole < 1 ? whole : 1) / GOODPUT_WEIGHT;
}

/* Handshakes of the worst worker per second of the time it spent on them, for as much of the time
 * as its other work leaves. What they cost at the sockets is other work here: with nothing but
 * handshakes to do, the estimate is what is completed. */
static void estimate(struct governor *g, double seconds)
{
	double other = ((double)g->awake_ns - (double)g->handshake_ns) / 1e9 / seconds, e;

	if (!g->served_here || !g->handshake_ns)
		return;
	other = other > 0 ? (other < 1 ? other : 1) : 0;
	e = (double)g->served_here * 1e9 / (double)g->handshake_ns * (1 - other) * g->workers;
	if (e > GOVERNOR_RATE_MAX)
		e = GOVERNOR_RATE_MAX;
	g->estimate += g->estimate > 0 ? (e - g->estimate) * weight(g, seconds) : e;
}

/* Memory and permits are levels: they are looked at every step and need no history but the
 * hysteresis. */
static void look_at_levels(struct governor *g, const struct governor_sample *s)
{
	bool was_shut = g->memory_shut;

	g->memory_percent = s->memory_percent;
	if (s->memory_percent >= (int)g->opts.memory_high_percent)
		g->memory_shut = true;
	else if (s->memory_percent < (int)g->opts.memory_low_percent)
		g->memory_shut = false; /* also when it is unknown: nothing would ever open it again
					 */
	if (was_shut && !g->memory_shut)
		resume(g);
	g->permits_short = g->opts.permits && s->unserved >= g->opts.permits;
}

static bool newcomers_to_blame(const struct governor *g)
{
	return (double)g->handshake_ns * 100 >= (double)g->busy_ns * g->opts.handshake_percent &&
	       g->busy_ns;
}

static void begin_episode(struct governor *g, uint64_t now_ns, double base)
{
	if (g->episode)
		return;
	g->episode = true;
	g->episode_ns = now_ns;
	g->episode_was_open = g->state == TG_GATE_OPEN;
	g->episode_delay = (double)g->delay_ns;
	g->episode_goodput = g->goodput;
	g->episode_rate = base;
}

/* True when cutting has cost goodput and left the delay where it was: the queue, if there is one,
 * is not made of newcomers. The cuts are taken back and not repeated for a while. */
static bool guard(struct governor *g, uint64_t now_ns)
{
	if (!g->episode || now_ns - g->episode_ns < GUARD_AFTER_MS * MSEC)
		return false;
	/* A backlog that gets shorter is on its way to be none. Meanwhile those in it who gave up
	 * in the queue are not completed, and that is not the cuts' doing. */
	if (g->unserved < g->unserved_before - g->unserved_before / 20)
		return false;
	if ((double)g->delay_ns < 0.9 * g->episode_delay ||
		g->goodput >= 0.9 * g->episode_goodput || g->episode_goodput <= 0)
		return false;
	g->state = g->episode_was_open ? TG_GATE_OPEN : TG_GATE_PACED;
	g->rate = bounded(g, g->episode_rate);
	g->episode = false;
	g->hold_delay = (double)g->delay_ns;
	g->hold_until_ns = now_ns + g->hold_ns;
	g->hold_ns = g->hold_ns * 2 < HOLD_LAST_MS * MSEC ? g->hold_ns * 2 : HOLD_LAST_MS * MSEC;
	g->holds++;
	return true;
}

/* The queue goes as fast as fewer come than are served. It was cut for already, unless it grew. */
static bool draining(const struct governor *g, uint64_t now_ns)
{
	return g->state == TG_GATE_PACED && now_ns < g->drain_until_ns &&
	       g->delay_ns <= g->drain_delay_ns;
}

static void begin_drain(struct governor *g, uint64_t now_ns)
{
	double spare = g->capacity > g->rate ? 1 - g->rate / g->capacity : 0;
	double most_ns = DRAIN_INTERVALS * (double)g->opts.interval_ns;
	double ns = spare > 0 ? (double)g->delay_ns / spare : most_ns;

	g->drain_delay_ns = g->delay_ns;
	g->drain_until_ns = now_ns + (uint64_t)(ns < most_ns ? ns : most_ns) + g->opts.interval_ns;
}

static void cut(struct governor *g, uint64_t now_ns, double admitted)
{
	double t = (double)g->opts.target_ns, d = (double)g->delay_ns;
	double base = g->state == TG_GATE_OPEN ? admitted : g->rate;
	double factor = 1 - g->opts.cut_percent / 100.0 * (d - t) / t, least;

	/* A queue may be of those who were admitted earlier, and a moment of few newcomers says
	 * nothing about how many are too many. */
	if (g->state == TG_GATE_OPEN && base < g->goodput)
		base = g->goodput;
	if (g->state == TG_GATE_OPEN && base < g->estimate)
		base = g->estimate;
	least = g->goodput / 2;
	begin_episode(g, now_ns, base);
	/* With a queue, what is completed is what can be; the last interval of a drain is not full.
	 */
	if (g->goodput > g->capacity)
		g->capacity = g->goodput;
	else
		g->capacity += (g->goodput - g->capacity) / 10;
	if (d > 2 * t) {
		g->shuts += g->state != TG_GATE_SHUT;
		g->state = TG_GATE_SHUT;
		return;
	}
	if (g->state == TG_GATE_SHUT || draining(g, now_ns))
		return; /* out of the former, the way is below the target */
	/* A queue that still grows after it was cut for has only to drain. */
	if (g->state == TG_GATE_PACED && now_ns < g->drain_until_ns)
		least = fmin(base, g->goodput * RESUME_PERCENT / 100);
	g->state = TG_GATE_PACED;
	g->rate = fmax(base * fmax(factor, 0.5), least);
	g->rate = bounded(g, g->rate);
	begin_drain(g, now_ns);
	g->cuts++;
}

static void leave_shut(struct governor *g)
{
	double before = g->rate;

	resume(g);
	if (g->state == TG_GATE_PACED)
		return;
	/* Shut before anything was ever completed. */
	g->state = TG_GATE_PACED;
	g->rate = bounded(g, before / 2);
}

static void recover(struct governor *g, uint64_t now_ns, double admitted, bool late)
{
	bool limiting = g->refused || admitted >= 0.9 * g->rate;
	double cap = manages(g), of = g->rate > cap ? g->rate : cap;

	if (late && g->episode && now_ns - g->episode_ns < GUARD_AFTER_MS * MSEC)
		return; /* the guard has not judged the cuts yet */
	g->episode = false;
	if (!late)
		g->hold_ns = HOLD_FIRST_MS * MSEC;
	if (g->state == TG_GATE_SHUT) {
		leave_shut(g);
		return;
	}
	if (g->state != TG_GATE_PACED)
		return;
	if (limiting) {
		bool near = g->delay_ns > g->opts.target_ns / 2 ||
			    (g->rate > 0.95 * cap && g->rate < 1.1 * cap);

		g->rate += of * (near ? GROW_SLOW_PERMILLE : GROW_FAST_PERMILLE) / 1000;
		if (g->rate < g->opts.rate_floor + 1)
			g->rate = g->opts.rate_floor + 1;
	}
	g->rate = bounded(g, g->rate);
	if (now_ns - g->limited_ns >= OPEN_AFTER_MS * MSEC)
		g->state = TG_GATE_OPEN;
}

static double bounded_goodput(double per_s)
{
	return per_s < 1e9 ? per_s
			   : 1e9; /* more than a counter that was read in pieces may claim */
}

static void decide(struct governor *g, uint64_t now_ns)
{
	double seconds = (double)(now_ns - g->begin_ns) / 1e9;
	double admitted = (double)g->admitted / seconds;
	bool held = now_ns < g->hold_until_ns, late;

	estimate(g, seconds);
	g->goodput +=
		(bounded_goodput((double)g->served / seconds) - g->goodput) * weight(g, seconds);
	if (g->refused)
		g->limited_ns = now_ns;
	if (!g->has_delay) {
		if (now_ns - g->delay_seen_ns < GOVERNOR_STALE_NS)
			return; /* nothing new is known */
		g->delay_ns = 0;
	}
	g->last_delay_ns = g->delay_ns;
	late = g->delay_ns > g->opts.target_ns;
	if (late)
		g->limited_ns = now_ns;
	if (held && (double)g->delay_ns > HOLD_BREAK * g->hold_delay) {
		g->hold_until_ns = 0;
		held = false;
	}
	if (!late || !newcomers_to_blame(g)) {
		/* The guard comes first: a shut gate whose backlog is gone has no newcomers left to
		 * blame, and a delay all the same. */
		if (!late || !guard(g, now_ns))
			recover(g, now_ns, admitted, late);
	} else if (!held && !guard(g, now_ns)) {
		cut(g, now_ns, admitted);
	}
}

static void show(const struct governor *g, uint64_t now_ns, struct governor_gate *ret)
{
	const struct governor_opts *o = &g->opts;

	*ret = (struct governor_gate){
		.state = g->state,
		.reason = TG_GATE_BY_NONE,
		.rate = (uint32_t)most_rate(g),
		.permits = o->permits ? o->permits : GOVERNOR_PERMITS_MAX,
		.observe = o->observe,
		.heartbeat_ns = now_ns,
	};
	if (g->word != GATE_WORD_AUTO) {
		ret->reason = TG_GATE_BY_OPERATOR;
		ret->state = g->word == GATE_WORD_OPEN   ? TG_GATE_OPEN
			     : g->word == GATE_WORD_SHUT ? TG_GATE_SHUT
							 : TG_GATE_PACED;
		ret->rate = g->word == GATE_WORD_OPEN   ? GOVERNOR_RATE_MAX
			    : g->word == GATE_WORD_SHUT ? 0
							: g->word_rate;
		if (g->word == GATE_WORD_OPEN)
			ret->permits = GOVERNOR_PERMITS_MAX;
	} else if (g->memory_shut) {
		ret->state = TG_GATE_SHUT;
		ret->reason = TG_GATE_BY_MEMORY;
		ret->rate = 0;
	} else if (g->state == TG_GATE_SHUT) {
		ret->reason = TG_GATE_BY_DELAY;
		ret->rate = (uint32_t)bounded(g, 0);
	} else if (g->state == TG_GATE_PACED) {
		ret->reason = TG_GATE_BY_DELAY;
		ret->rate = (uint32_t)g->rate;
	} else if (g->permits_short) {
		ret->state = TG_GATE_PACED;
		ret->reason = TG_GATE_BY_PERMITS;
	}
	if (ret->state == TG_GATE_PACED)
		ret->reserve_rate = (uint32_t)((uint64_t)ret->rate * o->reserve_percent / 100);
}

/* Whether the interval's decision is known before its end. One step without a queue is the way out
 * of a shut gate. And a backlog that takes longer than an interval to serve is no burst: whoever
 * waits to see it stand lets in as many again. Its delay is then the interval's. */
static bool known_already(struct governor *g, const struct governor_sample *s)
{
	double interval_s = (double)g->opts.interval_ns * 1e-9;

	if (!s->has_delay)
		return false;
	if (g->state == TG_GATE_SHUT)
		return s->delay_ns <= g->opts.target_ns;
	if (s->delay_ns / 2 <= g->opts.target_ns || manages(g) <= 0 ||
		(double)s->unserved <= manages(g) * interval_s)
		return false;
	g->delay_ns = s->delay_ns;
	return true;
}

void governor_step(struct governor *g, uint64_t now_ns, const struct governor_sample *s,
	struct governor_gate *ret)
{
	bool leapt = !g->started || now_ns <= g->last_ns || now_ns - g->last_ns > GOVERNOR_STALE_NS;

	look_at_levels(g, s);
	if (leapt) {
		/* The sample spans an unknown time. */
		g->started = true;
		g->episode = false;
		g->hold_until_ns = g->drain_until_ns = 0;
		g->delay_seen_ns = g->limited_ns = now_ns;
		begin_interval(g, now_ns);
	} else {
		gather(g, now_ns, s);
	}
	g->last_ns = now_ns;
	if (now_ns != g->begin_ns &&
		(now_ns - g->begin_ns >= g->opts.interval_ns || known_already(g, s))) {
		if (g->word == GATE_WORD_AUTO && !g->memory_shut)
			decide(g, now_ns);
		begin_interval(g, now_ns);
	}
	show(g, now_ns, ret);
}

const char *governor_state_name(enum tg_gate_state s)
{
#define X(id, name, help) name,
	static const char *const names[] = {TG_GATE_STATES(X)};
#undef X

	return names[s];
}

const char *governor_reason_name(enum tg_gate_reason r)
{
#define X(id, name, help) name,
	static const char *const names[] = {TG_GATE_REASONS(X)};
#undef X

	return names[r];
}

const char *governor_word_name(enum governor_word w)
{
	static const char *const names[] = {"auto", "open", "shut", "rate"};

	return names[w];
}
