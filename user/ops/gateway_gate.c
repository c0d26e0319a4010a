/* The gate of a gateway without BPF: the governor's thread, and the lists of admission.
 *
 * The thread samples the workers' counters every GOVERNOR_STEP_NS, lets the governor decide and
 * publishes the gate to net/admission. Lists are immutable: a change builds new ones and posts them
 * to every worker, which lets go of the old ones; so nobody takes a lock to look into one. */
#include "ops/gateway_internal.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>

#include "base/log.h"
#include "ops/gateway_sample.h"

enum {
	MEMORY_EVERY = 10, /* steps; reading the files takes longer than the rest of one */
	POST_TRIES =
		2000, /* of a millisecond: as long as an answer of the admin surface may take */
};

/* What the configuration and operators have put into one list. `value` is an enum tg_origin. */
struct entries {
	struct prefix_entry *e;
	size_t n;
};

struct gateway_gate {
	struct gateway *gateway;
	struct admission *admission;
	struct admission_lists *lists; /* with one reference of our own */
	pthread_mutex_t lock;          /* governor, memory and entries: nothing of the data path */
	struct governor governor;
	struct memory_percents memory;
	struct entries entries[GATE_LISTS];
	struct entries weights;

	struct memory_pressure pressure;
	struct gateway_sampler sampler;
	pthread_t thread;
	bool started;
	_Atomic bool stop;
};

/* ---- lists ---- */

static void put_lists(struct admission_lists *l)
{
	if (!l || __atomic_sub_fetch(&l->refs, 1, __ATOMIC_ACQ_REL))
		return;
	prefix_list_fini(&l->allow);
	prefix_list_fini(&l->deny);
	prefix_list_fini(&l->weights);
	free(l);
}

static int build_lists(const struct gateway_gate *t, struct admission_lists **ret)
{
	struct admission_lists *l = calloc(1, sizeof *l);
	int err;

	if (!l)
		return -ENOMEM;
	l->refs = 1;
	err = prefix_list_init(&l->allow, t->entries[GATE_ALLOW].e, t->entries[GATE_ALLOW].n);
	if (!err)
		err = prefix_list_init(&l->deny, t->entries[GATE_DENY].e, t->entries[GATE_DENY].n);
	if (!err)
		err = prefix_list_init(&l->weights, t->weights.e, t->weights.n);
	if (err) {
		put_lists(l);
		return err;
	}
	*ret = l;
	return 0;
}

void gateway_gate_mail(struct net *n, struct admission_lists *lists)
{
	put_lists(n->lists);
	n->lists = lists;
}

void gateway_gate_attach(struct gateway *g, struct net *n)
{
	if (!g->gate)
		return;
	n->admission = g->gate->admission;
	n->kernel_gate = g->kernel.on;
	__atomic_add_fetch(&g->gate->lists->refs, 1, __ATOMIC_RELAXED);
	n->lists = g->gate->lists;
}

void gateway_gate_detach(struct net *n)
{
	put_lists(n->lists);
	n->lists = NULL;
}

/* Hands the new lists to every worker. -ETIMEDOUT when one has no room for mail. */
static int post_lists(struct gateway_gate *t, struct admission_lists *l)
{
	struct gateway *g = t->gateway;
	struct timespec nap = {0, 1000000};
	int err = 0;

	for (unsigned i = 0; i < g->n_workers; i++) {
		struct mailbox_msg msg = {.kind = MAIL_LISTS, .ptr = l};
		int tries = 0;

		__atomic_add_fetch(&l->refs, 1, __ATOMIC_RELAXED);
		while (worker_post(g->workers[i].w, &msg, NULL) && ++tries < POST_TRIES)
			nanosleep(&nap, NULL);
		if (tries == POST_TRIES) {
			put_lists(l);
			err = -ETIMEDOUT;
		}
	}
	return err;
}

static struct prefix_entry *find_entry(struct entries *list, const struct prefix_entry *entry)
{
	for (size_t i = 0; i < list->n; i++)
		if (list->e[i].len == entry->len &&
			!memcmp(&list->e[i].addr, &entry->addr, sizeof entry->addr))
			return &list->e[i];
	return NULL;
}

static int add_entry(struct entries *list, const struct prefix_entry *entry)
{
	struct prefix_entry *e;

	if (find_entry(list, entry))
		return -EEXIST;
	if (list->n >= PREFIX_LIST_MAX)
		return -E2BIG;
	e = realloc(list->e, (list->n + 1) * sizeof *e);
	if (!e)
		return -ENOMEM;
	list->e = e;
	e[list->n++] = *entry;
	return 0;
}

static int remove_entry(struct entries *list, const struct prefix_entry *entry)
{
	struct prefix_entry *e = find_entry(list, entry);

	if (!e)
		return -ENOENT;
	*e = list->e[--list->n];
	return 0;
}

int gateway_list_change(void *ctx, enum gate_list which, bool add, const struct prefix_entry *entry)
{
	struct gateway_gate *t = ((struct gateway *)ctx)->gate;
	struct prefix_entry e = *entry;
	struct admission_lists *l;
	int err;

	if (!t)
		return -EOPNOTSUPP;
	e.value = TG_ORIGIN_OPERATOR;
	pthread_mutex_lock(&t->lock);
	err = add ? add_entry(&t->entries[which], &e) : remove_entry(&t->entries[which], &e);
	if (!err) {
		err = build_lists(t, &l);
		/* Without memory for it nothing has changed; what was taken out fits in again. */
		if (err && add)
			remove_entry(&t->entries[which], &e);
		else if (err)
			add_entry(&t->entries[which], &e);
	}
	if (!err) {
		put_lists(t->lists);
		t->lists = l;
		err = post_lists(t, l);
	}
	if (!err)
		err = gateway_kernel_list(&t->gateway->kernel, which, add, &e);
	pthread_mutex_unlock(&t->lock);
	return err;
}

int gateway_list(void *ctx, enum gate_list which, struct list_info **ret, size_t *ret_n)
{
	struct gateway_gate *t = ((struct gateway *)ctx)->gate;
	struct list_info *infos;
	size_t n;

	if (!t)
		return -EOPNOTSUPP;
	pthread_mutex_lock(&t->lock);
	n = t->entries[which].n;
	infos = calloc(n + 1, sizeof *infos);
	for (size_t i = 0; infos && i < n; i++) {
		const struct prefix_entry *e = &t->entries[which].e[i];

		prefix_format(&e->addr, e->len, infos[i].prefix);
		infos[i].configured = e->value == TG_ORIGIN_CONFIG;
	}
	pthread_mutex_unlock(&t->lock);
	if (!infos)
		return -ENOMEM;
	*ret = infos;
	*ret_n = n;
	return 0;
}

/* ---- the governor ---- */

int gateway_gate_say(void *ctx, enum governor_word word, uint32_t rate)
{
	struct gateway_gate *t = ((struct gateway *)ctx)->gate;

	if (!t)
		return -EOPNOTSUPP;
	pthread_mutex_lock(&t->lock);
	governor_say(&t->governor, word, rate);
	pthread_mutex_unlock(&t->lock);
	return 0;
}

void gateway_gate_info(void *ctx, struct gate_info *ret)
{
	struct gateway_gate *t = ((struct gateway *)ctx)->gate;
	const struct governor *g;

	*ret = (struct gate_info){.mode = "off",
		.where = "",
		.gate = {.rate = GOVERNOR_RATE_MAX, .permits = GOVERNOR_PERMITS_MAX},
		.memory = {MEMORY_UNKNOWN, MEMORY_UNKNOWN, MEMORY_UNKNOWN, MEMORY_UNKNOWN}};
	if (!t)
		return;
	g = &t->governor;
	pthread_mutex_lock(&t->lock);
	ret->on = true;
	ret->where = t->gateway->kernel.on ? "kernel" : "user";
	ret->mode = g->opts.observe ? "observe" : ret->where;
	ret->word = g->word;
	ret->word_rate = g->word_rate;
	ret->delay_ns = g->last_delay_ns;
	ret->target_ns = g->opts.target_ns;
	ret->goodput = (uint64_t)g->goodput;
	ret->cuts = g->cuts;
	ret->shuts = g->shuts;
	ret->holds = g->holds;
	ret->memory = t->memory;
	ret->memory_high_percent = g->opts.memory_high_percent;
	ret->handshake_percent = g->opts.handshake_percent;
	pthread_mutex_unlock(&t->lock);
	ret->unserved = t->gateway->kernel.on ? gateway_kernel_unserved(&t->gateway->kernel)
					      : admission_unserved(t->admission);
	admission_gate_get(t->admission, &ret->gate);
}

static void say_change(const struct governor_gate *before, const struct governor_gate *now)
{
	if (before->state == now->state && before->reason == now->reason)
		return;
	if (now->state == TG_GATE_OPEN)
		log_info("gate", "open%s",
			now->reason == TG_GATE_BY_OPERATOR ? " by the operator's word" : "");
	else
		log_info("gate", "%s by %s at %u connections/s%s", governor_state_name(now->state),
			governor_reason_name(now->reason), now->rate,
			now->observe ? " (observed only)" : "");
}

static void *governor_main(void *arg)
{
	struct tg_verdict_count seen[TG_VERDICT_COUNT] = {0};
	struct gateway_gate *t = arg;
	struct gateway_kernel *kernel = &t->gateway->kernel;
	struct governor_gate gate = {.rate = GOVERNOR_RATE_MAX}, before;
	struct memory_percents memory;
	struct governor_sample s = {0};
	struct timespec at;

	prctl(PR_SET_NAME, "governor");
	clock_gettime(CLOCK_MONOTONIC, &at);
	gateway_kernel_sample(kernel, seen, &s); /* what was counted before this gateway */
	for (unsigned step = 0; !atomic_load(&t->stop); step++) {
		uint64_t now_ns;

		if (step % MEMORY_EVERY == 0)
			memory_pressure_read(&t->pressure, &memory);
		now_ns = worker_clock_ns();
		gateway_sample(&t->sampler, t->gateway->stats, now_ns, &s);
		s.unserved = admission_unserved(t->admission);
		gateway_kernel_sample(kernel, seen, &s);
		s.memory_percent = memory.greatest;
		before = gate;
		pthread_mutex_lock(&t->lock);
		t->memory = memory;
		governor_step(&t->governor, now_ns, &s, &gate);
		pthread_mutex_unlock(&t->lock);
		admission_gate(t->admission, &gate);
		gateway_kernel_gate(kernel, &gate, now_ns);
		gateway_kernel_events(kernel);
		say_change(&before, &gate);

		at.tv_nsec += (long)GOVERNOR_STEP_NS;
		if (at.tv_nsec >= 1000000000) {
			at.tv_nsec -= 1000000000;
			at.tv_sec++;
		}
		/* Steps that were missed are missed: catching up would measure nothing. */
		if ((uint64_t)at.tv_sec * 1000000000 + (uint64_t)at.tv_nsec < now_ns)
			clock_gettime(CLOCK_MONOTONIC, &at);
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
	}
	return NULL;
}

/* ---- life ---- */

static int take_config(struct gateway_gate *t, const struct config_admission *c)
{
	const struct {
		const struct config_prefix *prefix;
		unsigned n;
	} lists[GATE_LISTS] = {
		[GATE_ALLOW] = {c->allow, c->n_allow}, [GATE_DENY] = {c->deny, c->n_deny}};

	for (unsigned k = 0; k < GATE_LISTS; k++) {
		struct entries *list = &t->entries[k];

		list->e = calloc(lists[k].n + 1, sizeof *list->e);
		if (!list->e)
			return -ENOMEM;
		for (unsigned i = 0; i < lists[k].n; i++)
			list->e[list->n++] = (struct prefix_entry){lists[k].prefix[i].addr,
				(uint8_t)lists[k].prefix[i].len, TG_ORIGIN_CONFIG};
	}
	t->weights.e = calloc(c->n_weights + 1, sizeof *t->weights.e);
	if (!t->weights.e)
		return -ENOMEM;
	for (unsigned i = 0; i < c->n_weights; i++)
		t->weights.e[t->weights.n++] = (struct prefix_entry){c->weights[i].prefix.addr,
			(uint8_t)c->weights[i].prefix.len, c->weights[i].weight};
	return build_lists(t, &t->lists);
}

static int keep_allowed(void *ctx, const struct prefix_entry *e)
{
	struct gateway_gate *t = ctx;
	int err = add_entry(&t->entries[GATE_ALLOW], e);

	return err == -EEXIST ? 0 : err;
}

static int keep_denied(void *ctx, const struct prefix_entry *e)
{
	struct gateway_gate *t = ctx;
	int err = add_entry(&t->entries[GATE_DENY], e);

	return err == -EEXIST ? 0 : err;
}

/* What operators put into the kernel's lists before this gateway started is in force still. */
static int take_former(struct gateway_gate *t)
{
	struct gateway_kernel *k = &t->gateway->kernel;
	int err = gateway_kernel_each(k, GATE_ALLOW, keep_allowed, t);

	if (!err)
		err = gateway_kernel_each(k, GATE_DENY, keep_denied, t);
	if (err || !k->on)
		return err;
	put_lists(t->lists);
	t->lists = NULL;
	return build_lists(t, &t->lists);
}

static struct governor_opts governor_opts(const struct config_admission *c)
{
	struct governor_opts o;

	governor_defaults(&o);
	o.target_ns = (uint64_t)c->target_us * 1000;
	o.rate_floor = c->rate_floor;
	o.rate_ceiling = c->rate_ceiling;
	o.permits = c->permits;
	o.reserve_percent = c->reserve_percent;
	o.handshake_percent = c->handshake_percent;
	o.memory_high_percent = c->memory_high_percent;
	o.memory_low_percent = c->memory_low_percent;
	o.observe = c->mode == CONFIG_ADMISSION_OBSERVE;
	return o;
}

static int create_admission(struct gateway_gate *t, const struct config_admission *c)
{
	static const unsigned len[TG_FAMILIES][TG_TIERS] = {{32, 24, 0}, {64, 56, 48}};
	struct admission_opts o = {
		.observe = c->mode == CONFIG_ADMISSION_OBSERVE,
		.limit_loopback = c->limit_loopback,
		.penalty_ns = (uint64_t)c->penalty_ms * 1000000,
		.penalty_max_ns = (uint64_t)c->penalty_max_ms * 1000000,
		.source_burst = c->source_burst,
		.sources = c->sources,
	};

	for (unsigned f = 0; f < TG_FAMILIES; f++)
		for (unsigned i = 0; i < TG_TIERS; i++)
			o.tier[f][i] = (struct admission_tier){len[f][i], c->tier[f][i].open,
				c->tier[f][i].churn, 2 * c->tier[f][i].churn};
	if (getrandom(o.hash_key, sizeof o.hash_key, 0) != sizeof o.hash_key)
		return -EIO;
	return admission_create(&o, &t->admission);
}

int gateway_gate_init(struct gateway *g, unsigned n_workers)
{
	const struct config_admission *c = &g->cfg->admission;
	struct gateway_gate *t;
	struct governor_opts o;
	int err;

	if (c->mode == CONFIG_ADMISSION_OFF)
		return 0;
	t = calloc(1, sizeof *t);
	if (!t)
		return -ENOMEM;
	g->gate = t;
	t->gateway = g;
	pthread_mutex_init(&t->lock, NULL);
	memory_pressure_open(&t->pressure);
	memory_pressure_read(&t->pressure, &t->memory);
	o = governor_opts(c);
	governor_init(&t->governor, &o);
	err = take_config(t, c);
	if (!err)
		err = take_former(t);
	if (!err)
		err = create_admission(t, c);
	if (!err)
		err = gateway_sampler_init(&t->sampler, n_workers);
	return err;
}

int gateway_gate_start(struct gateway *g)
{
	struct gateway_gate *t = g->gate;
	int err;

	if (!t)
		return 0;
	err = pthread_create(&t->thread, NULL, governor_main, t);
	if (err)
		return -err;
	t->started = true;
	log_info("gate", "admission in %s%s", g->kernel.on ? "the kernel" : "user space",
		t->governor.opts.observe ? ", observing only" : "");
	return 0;
}

void gateway_gate_stop(struct gateway *g)
{
	struct gateway_gate *t = g->gate;

	if (!t || !t->started)
		return;
	atomic_store(&t->stop, true);
	pthread_join(t->thread, NULL);
	t->started = false;
}

void gateway_gate_fini(struct gateway *g)
{
	struct gateway_gate *t = g->gate;

	if (!t)
		return;
	memory_pressure_close(&t->pressure);
	gateway_sampler_fini(&t->sampler);
	put_lists(t->lists);
	admission_destroy(t->admission);
	for (unsigned k = 0; k < GATE_LISTS; k++)
		free(t->entries[k].e);
	free(t->weights.e);
	pthread_mutex_destroy(&t->lock);
	free(t);
	g->gate = NULL;
}
