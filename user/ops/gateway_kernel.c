/* What the gateway does with the maps of the kernel-side gate: workers say how they are, the
 * governor sets the gate and reads what was refused, operators change lists. All by descriptors
 * that the keeper opened; the gateway itself may load nothing. */
#include "ops/gateway_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "base/log.h"

#include "keeper/channel.h"
#include "kern/bpf_gate.h"
#include "kern/bpf_lists.h"
#include "kern/bpf_sched.h"
#include "kern/worker_load.h"
#include "ops/gate_options.h"

enum {
	PAGE_BYTES = 4096,
	BURST_MS = 50,      /* of the rate; admit needs 40 */
	SWITCH_TRIES = 400, /* of 5 ms: as long as an answer of the admin surface may take */
	V4_BLOCK_BYTES = 4, /* that stand before an IPv4 address in a trie's key */
};

/* Refusals and penalties; the programs send no more than settings.event_interval_ns allows. */
static int on_event(void *ctx, void *data, size_t len)
{
	const struct tg_event *e = data;
	struct tg_lpm_key key = {.prefixlen = 128};
	char source[BPF_PREFIX_TEXT], more[48] = "";
	uint8_t v4[16];

	(void)ctx;
	if (len < sizeof *e)
		return 0;
	memcpy(key.addr, e->source, sizeof key.addr);
	bpf_address_v4((const uint8_t[4]){0}, v4);
	if (e->source_len < key.prefixlen)
		key.prefixlen = e->source_len;
	else if (!memcmp(key.addr, v4, V4_BLOCK_BYTES))
		key.prefixlen = 8 * V4_BLOCK_BYTES + 32; /* an address, all of it */
	bpf_prefix_format(&key, source);
	if (e->held)
		snprintf(
			more, sizeof more, ", and %llu others before", (unsigned long long)e->held);
	log_info("kernel", "%s %s: %s%s%s", bpf_verdict_program(e->verdict),
		bpf_verdict_name(e->verdict), source, e->observed ? " (observed only)" : "", more);
	return 0;
}

void gateway_kernel_events(struct gateway_kernel *k)
{
	if (k->events)
		ring_buffer__consume(k->events);
}

int gateway_kernel_init(struct gateway_kernel *k)
{
	void *p;
	int err;

	k->on = k->fd[BPF_MAP_gate] >= 0;
	err = worker_load_map(k->on ? k->fd[BPF_MAP_worker_load] : -1, &k->load);
	if (err || !k->on)
		return err;
	err = bpf_maps_mmap(k->fd[BPF_MAP_gate], PAGE_BYTES, true, &p);
	if (err)
		return err;
	k->gate = p;
	err = bpf_maps_mmap(k->fd[BPF_MAP_pace], PAGE_BYTES, false, &p);
	if (err)
		return err;
	k->pace = p;
	err = bpf_sched_map(k->fd[BPF_MAP_sched], &k->sched);
	if (!err)
		err = bpf_sched_map_ready(k->fd[BPF_MAP_ready], &k->ready);
	if (err)
		return err;
	k->events = ring_buffer__new(k->fd[BPF_MAP_events], on_event, NULL, NULL);
	if (!k->events)
		log_warn("kernel", "events of the gate cannot be read: %s", strerror(errno));
	/* The workers' counts begin anew; what a former gateway left behind is no longer waited
	 * for. */
	k->gate->permits_base = k->pace->established - k->pace->abandoned;
	return 0;
}

void gateway_kernel_fini(struct gateway_kernel *k)
{
	ring_buffer__free(k->events);
	worker_load_unmap(k->load);
	bpf_sched_unmap(k->sched);
	bpf_sched_unmap_ready(k->ready);
	if (k->gate)
		bpf_maps_munmap(k->gate, PAGE_BYTES);
	if (k->pace)
		bpf_maps_munmap(k->pace, PAGE_BYTES);
	for (unsigned i = 0; i < BPF_SHARED_MAP_COUNT; i++)
		if (k->fd[i] >= 0)
			close(k->fd[i]);
}

/* ---- workers ---- */

static struct tg_worker_load *line_of(const struct gateway_worker *gw)
{
	return &gw->gateway->kernel.load[gw->w->id];
}

void gateway_kernel_begin(struct gateway_worker *gw)
{
	struct tg_sched *sched = gw->gateway->kernel.sched;

	worker_load_begin(line_of(gw));
	if (sched)
		bpf_sched_worker_begin(sched, gw->w->id);
}

/* Of the rings there are; a worker that accepts has room, if only in a ring to come. */
static uint32_t free_slots(const struct worker *w)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < w->n_rings; i++)
		n += w->ring[i]->slots - w->ring[i]->used;
	return n ? n : 1;
}

void gateway_kernel_publish(struct gateway_worker *gw, bool sleeping)
{
	const struct worker *w = gw->w;
	const struct tg_worker_stats *s = gw->stats;
	struct worker_load load = {
		.poll_delay_ns = w->poll_delay_ns,
		.served = s->accepts - s->handshaking,
		.accepts = s->accepts,
		.runnable = w->runq.total,
		.connections = (uint32_t)s->connections,
		.sleeping = sleeping,
		.accepting = s->accepting != 0,
		.free_slots = s->accepting ? free_slots(w) : 0,
	};

	worker_load_publish(line_of(gw), &load, w->now_ns);
}

void gateway_kernel_end(struct gateway_worker *gw)
{
	struct tg_sched *sched = gw->gateway->kernel.sched;

	if (sched)
		bpf_sched_worker_end(sched, gw->w->id);
	worker_load_end(line_of(gw));
}

/* ---- the governor ---- */

uint64_t gateway_kernel_unserved(const struct gateway_kernel *k)
{
	uint64_t served = 0;
	int64_t level;

	for (unsigned i = 0; i < TG_WORKERS_MAX; i++)
		served += __atomic_load_n(&k->load[i].served, __ATOMIC_RELAXED);
	level = (int64_t)(k->pace->established - k->pace->abandoned - k->gate->permits_base -
			  served);
	return level > 0 ? (uint64_t)level : 0;
}

static bool is_gate(enum tg_verdict v)
{
	return v == TG_DROP_SHUT || v == TG_DROP_PERMITS || v == TG_DROP_RATE ||
	       v == TG_DROP_NEWCOMER || v == TG_DROP_SHARE || v == TG_DROP_CONTENDED;
}

void gateway_kernel_sample(struct gateway_kernel *k, struct tg_verdict_count seen[TG_VERDICT_COUNT],
	struct governor_sample *s)
{
	struct tg_verdict_count now[TG_VERDICT_COUNT];

	if (!k->on || bpf_verdicts_read(k->fd[BPF_MAP_verdicts], now))
		return;
	for (unsigned v = 0; v < TG_VERDICT_COUNT; v++) {
		uint64_t n = now[v].packets - seen[v].packets,
			 observed = now[v].observed - seen[v].observed;

		if (v == TG_ADMIT_OPEN || v == TG_ADMIT_PACED || v == TG_ADMIT_ALLOWED)
			s->admitted += n;
		else if (is_gate((enum tg_verdict)v))
			s->refused += n + observed;
	}
	memcpy(seen, now, sizeof now);
	s->unserved = gateway_kernel_unserved(k);
}

void gateway_kernel_gate(struct gateway_kernel *k, const struct governor_gate *g, uint64_t now_ns)
{
	struct tg_gate gate = {
		.state = g->state,
		.reason = g->reason,
		.permits = g->permits >= GOVERNOR_PERMITS_MAX ? 0 : g->permits,
	};

	if (!k->on)
		return;
	gate.permits_base = k->gate->permits_base;
	/* Shut by delay still lets the floor in, as probes; the kernel's own word for that is a
	 * rate. */
	if (g->state == TG_GATE_SHUT && g->rate)
		gate.state = TG_GATE_PACED;
	if (gate.state == TG_GATE_PACED && g->rate < GOVERNOR_RATE_MAX)
		bpf_gate_set_rate(&gate, g->rate, (double)g->reserve_rate / g->rate,
			BURST_MS * UINT64_C(1000000));
	bpf_gate_publish(k->gate, &gate, now_ns);
}

/* ---- for people ---- */

uint64_t gateway_kernel_refused(const struct gateway_kernel *k)
{
	struct tg_verdict_count now[TG_VERDICT_COUNT];
	uint64_t sum = 0;

	if (!k->on || bpf_verdicts_read(k->fd[BPF_MAP_verdicts], now))
		return 0;
	for (unsigned v = 0; v < TG_VERDICT_COUNT; v++)
		if (bpf_verdict_refuses((enum tg_verdict)v))
			sum += now[v].packets;
	return sum;
}

int gateway_kernel_verdicts(void *ctx, struct tg_verdict_count ret[TG_VERDICT_COUNT])
{
	const struct gateway *g = ctx;

	if (!g->kernel.on)
		return -EOPNOTSUPP;
	return bpf_verdicts_read(g->kernel.fd[BPF_MAP_verdicts], ret);
}

int gateway_kernel_cpu_wait(void *ctx, unsigned worker, struct hist *ret)
{
	const struct gateway *g = ctx;

	if (!gateway_kernel_share(ctx))
		return -EOPNOTSUPP;
	return bpf_sched_read(g->kernel.fd[BPF_MAP_delays], worker, ret);
}

double gateway_kernel_share(void *ctx)
{
	const struct gateway *g = ctx;

	return g->kernel.sched ? bpf_sched_share(g->kernel.sched) : 0;
}

int gateway_kernel_measure(void *ctx, unsigned percent)
{
	const struct gateway *g = ctx;
	struct channel_record rec = {.kind = CHANNEL_SAMPLE, .index = percent};
	struct timespec nap = {0, 5000000};
	uint32_t before;
	int err, tries = 0;

	if (!g->kernel.sched)
		return -EOPNOTSUPP;
	before = __atomic_load_n(&g->kernel.sched->switches, __ATOMIC_ACQUIRE);
	err = channel_send(g->channel, &rec, -1);
	if (err)
		return err;
	while (__atomic_load_n(&g->kernel.sched->switches, __ATOMIC_ACQUIRE) == before) {
		if (++tries == SWITCH_TRIES)
			return -ETIMEDOUT;
		nanosleep(&nap, NULL);
	}
	return !gateway_kernel_share(ctx) == !percent ? 0 : -EIO;
}

struct each {
	int (*fn)(void *ctx, const struct prefix_entry *entry);
	void *ctx;
};

static int each_entry(void *ctx, const struct tg_lpm_key *key, const struct tg_list_entry *e)
{
	struct prefix_entry entry = {.value = TG_ORIGIN_OPERATOR};
	struct each *each = ctx;

	if (e->origin != TG_ORIGIN_OPERATOR)
		return 0;
	gate_key_prefix(key, &entry.addr, &entry.len);
	return each->fn(each->ctx, &entry);
}

int gateway_kernel_each(struct gateway_kernel *k, enum gate_list which,
	int (*fn)(void *ctx, const struct prefix_entry *entry), void *ctx)
{
	struct each each = {fn, ctx};

	if (!k->on)
		return 0;
	return bpf_list_each(
		k->fd[which == GATE_ALLOW ? BPF_MAP_allow : BPF_MAP_deny], each_entry, &each);
}

int gateway_kernel_list(
	struct gateway_kernel *k, enum gate_list which, bool add, const struct prefix_entry *entry)
{
	struct tg_list_entry e = {.created_s = (uint64_t)time(NULL), .origin = TG_ORIGIN_OPERATOR};
	int fd = k->fd[which == GATE_ALLOW ? BPF_MAP_allow : BPF_MAP_deny];
	struct tg_lpm_key key;

	if (!k->on)
		return 0;
	gate_key(&entry->addr, entry->len, &key);
	return add ? bpf_list_add(fd, &key, &e) : bpf_list_del(fd, &key);
}
