#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>

#include "load_conn.h"

enum {
	TURN_MAX_NS = 50 * 1000 * 1000, /* a thread looks at the phase at least so often */
	SOURCES_PER_BYTE = 250,         /* 127.1.a.b with b in 1..250 */
};

uint64_t load_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

uint32_t load_buffers(unsigned connections, uint32_t bytes)
{
	enum {
		BUFFERS_MIN = 256,
		BUFFERS_MAX = 16384,
		MEMORY_MAX = 16 << 20
	};
	uint32_t n = BUFFERS_MIN;

	while (n < BUFFERS_MAX && n < connections && (uint64_t)n * bytes * 2 <= MEMORY_MAX)
		n *= 2;
	return n;
}

/* ---- a thread's connections ---- */

struct load_conn *load_conn_at(const struct load_thread *t, unsigned i)
{
	unsigned r = 0;

	while (i >= t->rings[r].first + t->rings[r].n)
		r++;
	return &t->rings[r].conn[i - t->rings[r].first];
}

unsigned load_conn_number(const struct load_thread *t, const struct load_conn *c)
{
	const struct load_conns *rs = &t->rings[c->ring];

	return t->first + rs->first + (unsigned)(c - rs->conn);
}

void *load_conn_work(const struct load_thread *t, const struct load_conn *c)
{
	const struct load_conns *rs = &t->rings[c->ring];

	return rs->work + (size_t)(c - rs->conn) * t->ops->conn_bytes;
}

static unsigned cq_entries(unsigned conns)
{
	unsigned n = 4096;

	while (n < conns * 2 && n < 32768)
		n *= 2;
	return n;
}

static int conns_init(
	struct load_thread *t, struct load_conns *rs, unsigned index, unsigned n, unsigned first)
{
	struct load_ring_opts opts = {
		.files = n,
		.n_bufs = t->n_bufs,
		.buf_bytes = t->buf_bytes,
		.cq_entries = cq_entries(n),
	};

	int err = load_ring_init(&rs->ring, &opts);
	if (err)
		return err;
	rs->n = n;
	rs->first = first;
	rs->dirty_head = rs->starved_head = LOAD_NIL;
	rs->conn = calloc(n, sizeof *rs->conn);
	rs->work = calloc(n, t->ops->conn_bytes ? t->ops->conn_bytes : 1);
	if (!rs->conn || !rs->work)
		return -ENOMEM;
	for (unsigned i = 0; i < n; i++)
		rs->conn[i].ring = (uint8_t)index;
	return 0;
}

static int thread_init(struct load_thread *t)
{
	unsigned limit = load_ring_files_limit(), n_rings, first = 0;
	int err = 0;

	if (t->ring_connections && t->ring_connections < limit)
		limit = t->ring_connections;
	n_rings = (t->n_conns + limit - 1) / limit;

	if (n_rings > UINT8_MAX)
		return -EMFILE;
	t->rings = calloc(n_rings, sizeof *t->rings);
	t->ring_list = calloc(n_rings, sizeof(struct load_ring *));
	t->staging = mmap(NULL, LOAD_STAGING_BYTES, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (t->staging == MAP_FAILED) {
		t->staging = NULL;
		return -ENOMEM;
	}
	if (!t->rings || !t->ring_list)
		return -ENOMEM;
	for (unsigned i = 0; i < n_rings && !err; i++) {
		unsigned n = t->n_conns / n_rings + (i < t->n_conns % n_rings);
		err = conns_init(t, &t->rings[i], i, n, first);
		t->ring_list[i] = &t->rings[i].ring;
		t->n_rings = i + 1;
		first += n;
	}
	return err ? err : load_waiter_init(&t->waiter, t->ring_list, n_rings);
}

static void thread_fini(struct load_thread *t)
{
	for (unsigned i = 0; i < t->n_rings; i++) {
		free(t->rings[i].conn);
		free(t->rings[i].work);
	}
	free(t->rings);
	free(t->ring_list);
	if (t->staging)
		munmap(t->staging, LOAD_STAGING_BYTES);
	free(t);
}

/* ---- a thread's life ---- */

/* Opens connections as the rate and the bound on unfinished ones allow; returns when the rate
 * allows the next one. */
static uint64_t connect_more(struct load_thread *t, uint64_t now_ns)
{
	const struct load *l = t->load;
	const struct bench_options *o = l->opts;
	unsigned limit = o->connect_inflight / l->n_threads;
	uint64_t started = load_read(&t->count.started), allowed = t->n_conns;
	double rate = o->connect_rate * t->n_conns / l->n_conns;

	if (!started)
		atomic_store_explicit(&t->count.first_start_ns, now_ns, memory_order_relaxed);
	if (rate > 0) {
		allowed = (uint64_t)((double)(now_ns - l->start_ns) * 1e-9 * rate) + 1;
		if (allowed > t->n_conns)
			allowed = t->n_conns;
	}
	while (started < allowed && t->in_flight < (limit ? limit : 1)) {
		struct load_conns *rs = &t->rings[t->fill_ring];
		if (rs->started == rs->n) {
			t->fill_ring++;
			continue;
		}
		load_conn_start(t, rs, rs->started++);
		started++;
	}
	if (rate > 0 && started == allowed)
		return l->start_ns + (uint64_t)((double)started / rate * 1e9) + 1;
	return UINT64_MAX; /* the next completion makes room */
}

static void reap(struct load_thread *t, struct load_conns *rs)
{
	struct io_uring *u = &rs->ring.uring;
	struct io_uring_cqe *cqe;
	unsigned head, n;

	for (;;) {
		n = 0;
		io_uring_for_each_cqe(u, head, cqe)
		{
			load_conn_complete(t, rs, cqe);
			n++;
		}
		io_uring_cq_advance(u, n);
		if (!io_uring_cq_has_overflow(u))
			break;
		load_count(&t->count.overflows, 1);
		io_uring_get_events(u);
	}
	load_conns_recycle(t, rs);
}

static bool all_submitted(const struct load_thread *t)
{
	for (unsigned i = 0; i < t->n_rings; i++)
		if (io_uring_sq_ready(&t->rings[i].ring.uring))
			return false;
	return true;
}

/* One turn. Sends are staged only when those of the turn before are confirmed: submitted, and their
 * completions (there are some only for failures) reaped. */
static int turn(struct load_thread *t)
{
	uint64_t now_ns = load_now_ns(), next_ns = now_ns + TURN_MAX_NS;
	bool dirty = false, confirmed = t->staged == 0;

	if (!t->ops->starts && load_read(&t->count.started) < t->n_conns) {
		uint64_t at_ns = connect_more(t, now_ns);
		next_ns = at_ns < next_ns ? at_ns : next_ns;
	}
	if (t->ops->tick) {
		uint64_t at_ns = t->ops->tick(t, now_ns);
		next_ns = at_ns < next_ns ? at_ns : next_ns;
	}
	for (unsigned i = 0; i < t->n_rings; i++) {
		if (confirmed)
			load_conns_flush(t, &t->rings[i]);
		dirty |= t->rings[i].dirty_head != LOAD_NIL;
	}
	now_ns = load_now_ns();
	int err = load_waiter_wait(&t->waiter, t->ring_list, t->n_rings,
		dirty || next_ns <= now_ns ? 0 : next_ns - now_ns);
	if (err)
		return err;
	bool submitted = all_submitted(t);
	for (unsigned i = 0; i < t->n_rings; i++)
		reap(t, &t->rings[i]);
	if (submitted)
		t->staged = 0;
	t->unsubmitted = 0;
	return 0;
}

static void thread_schedule(const struct load_thread *t)
{
	const struct bench_options *o = t->load->opts;
	cpu_set_t set;

	CPU_ZERO(&set);
	if (o->n_cpus) {
		CPU_SET(o->cpus[t->index % o->n_cpus], &set);
		pthread_setaffinity_np(pthread_self(), sizeof set, &set);
	}
	if (t->urgent)
		pthread_setschedparam(
			pthread_self(), SCHED_FIFO, &(struct sched_param){.sched_priority = 1});
	if (t->background)
		pthread_setschedparam(pthread_self(), SCHED_IDLE, &(struct sched_param){0});
	prctl(PR_SET_TIMERSLACK, 1); /* the default of 50 us would show in latencies */
}

static void *thread_main(void *arg)
{
	struct load_thread *t = arg;

	thread_schedule(t);
	t->error = thread_init(t);
	while (!t->error && load_phase_get(t->load) != LOAD_PHASE_STOP)
		t->error = turn(t);
	if (t->error)
		atomic_store_explicit(&t->dead, true, memory_order_release);
	/* Only the thread that made a ring may take it apart; what workloads keep outlives it. */
	load_waiter_fini(&t->waiter);
	for (unsigned i = 0; i < t->n_rings; i++) {
		if (t->rings[i].started)
			load_conns_abandon(t, &t->rings[i]);
		load_ring_fini(&t->rings[i].ring);
	}
	return NULL;
}

/* ---- the whole load, for the controlling thread ---- */

static uint32_t source_address(const struct bench_options *o, unsigned i)
{
	return o->source_range ? o->source_first + i
			       : 0x7f010001 + (i / SOURCES_PER_BYTE << 8) + i % SOURCES_PER_BYTE;
}

static int sources_init(struct load *l)
{
	const struct bench_options *o = l->opts;
	unsigned n = (o->connections + BENCH_PER_SOURCE_MAX - 1) / BENCH_PER_SOURCE_MAX;

	if (!o->loopback4 && !o->source_range)
		return 0;
	if (n < o->sources)
		n = o->sources;
	if (o->source_range)
		n = o->source_range;
	l->source = calloc(n, sizeof *l->source);
	if (!l->source)
		return -ENOMEM;
	for (unsigned i = 0; i < n; i++)
		l->source[i] = (struct sockaddr_in){
			.sin_family = AF_INET,
			.sin_addr.s_addr = htonl(source_address(o, i)),
		};
	l->n_sources = n;
	return 0;
}

int load_create(const struct bench_options *opts, struct load **ret)
{
	struct load *l = calloc(1, sizeof *l);

	if (!l)
		return -ENOMEM;
	l->opts = opts;
	l->request_len =
		opts->raw ? handshake_hello(l->request, opts->path, opts->token)
			  : handshake_request(l->request, opts->host, opts->path, opts->token);
	l->thread = calloc(BENCH_THREADS_MAX + 1, sizeof(struct load_thread *));
	int err = !l->request_len ? -ENAMETOOLONG : !l->thread ? -ENOMEM : sources_init(l);
	if (err) {
		load_destroy(l);
		return err;
	}
	*ret = l;
	return 0;
}

void load_destroy(struct load *l)
{
	if (!l)
		return;
	for (unsigned i = 0; i < l->n_threads; i++)
		thread_fini(l->thread[i]);
	free(l->thread);
	free(l->source);
	free(l);
}

int load_add(struct load *l, const struct load_thread_opts *opts)
{
	if (l->n_threads > BENCH_THREADS_MAX)
		return -E2BIG;
	struct load_thread *t = calloc(1, sizeof *t);
	if (!t)
		return -ENOMEM;
	t->load = l;
	t->ops = opts->ops;
	t->work = opts->work;
	t->index = l->n_threads;
	t->n_conns = opts->connections;
	t->first = l->n_conns;
	t->background = opts->background;
	t->urgent = opts->urgent;
	t->n_bufs = opts->n_bufs;
	t->buf_bytes = opts->buf_bytes;
	t->ring_connections = opts->ring_connections;
	t->waiter = (struct load_waiter){-1, -1, opts->batch_us};
	l->thread[l->n_threads++] = t;
	l->n_conns += opts->connections;
	return 0;
}

int load_start(struct load *l)
{
	l->start_ns = load_now_ns();
	for (unsigned i = 0; i < l->n_threads; i++) {
		int err = pthread_create(&l->thread[i]->thread, NULL, thread_main, l->thread[i]);
		if (err) {
			load_stop(l);
			return -err;
		}
		l->thread[i]->running = true;
	}
	return 0;
}

void load_phase_set(struct load *l, enum load_phase phase)
{
	atomic_store_explicit(&l->phase, phase, memory_order_release);
}

void load_stop(struct load *l)
{
	load_phase_set(l, LOAD_PHASE_STOP);
	for (unsigned i = 0; i < l->n_threads; i++) {
		if (l->thread[i]->running)
			pthread_join(l->thread[i]->thread, NULL);
		l->thread[i]->running = false;
	}
}

struct load_totals load_totals(const struct load *l)
{
	struct load_totals s = {0};

	for (unsigned i = 0; i < l->n_threads; i++) {
		const struct load_counters *c = &l->thread[i]->count;
		uint64_t first_ns = load_read(&c->first_start_ns),
			 last_ns = load_read(&c->last_open_ns);
		s.started += load_read(&c->started);
		s.opened += load_read(&c->opened);
		s.connect_failed += load_read(&c->connect_failed);
		s.handshake_failed += load_read(&c->handshake_failed);
		s.closed += load_read(&c->closed);
		s.pings += load_read(&c->pings);
		s.bad_data += load_read(&c->bad_data);
		s.no_buffer += load_read(&c->no_buffer);
		s.overflows += load_read(&c->overflows);
		s.sends_blocked += load_read(&c->sends_blocked);
		if (first_ns && (!s.first_start_ns || first_ns < s.first_start_ns))
			s.first_start_ns = first_ns;
		if (last_ns > s.last_open_ns)
			s.last_open_ns = last_ns;
		s.dead += atomic_load_explicit(&l->thread[i]->dead, memory_order_acquire);
	}
	return s;
}

const char *load_first_failure(const struct load *l, char *buf, size_t len)
{
	buf[0] = 0;
	for (unsigned i = 0; i < l->n_threads && !buf[0]; i++) {
		const struct load_thread *t = l->thread[i];
		if (t->error)
			snprintf(buf, len, "thread %u: %s", i, strerror(-t->error));
		else
			snprintf(buf, len, "%s", t->first_failure);
	}
	return buf;
}
