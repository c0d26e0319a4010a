#include "fan.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	DRAIN_S = 5,          /* for deliveries after the last publication of a phase */
	STANDSTILL_MS = 1000, /* no longer than so without one */
	STEP_MS = 100,
	BATCH_US = 100, /* of the subscribers: deliveries look up to so much later */
};

static int say(int err)
{
	if (err)
		fprintf(stderr, "tidegate-bench: %s\n", strerror(-err));
	return err;
}

/* How many publications a phase has. */
static int set_count(struct fan *f)
{
	const struct bench_options *o = &f->opts;

	if (f->count)
		f->warm = 0;
	else {
		f->warm = (unsigned)(o->warmup_s * f->rate);
		f->count = f->warm + (unsigned)(o->duration_s * f->rate + 0.5);
		f->count += f->count == f->warm; /* at least one that counts */
	}
	if ((uint64_t)f->count * f->phases <= FAN_PUBLICATIONS_MAX)
		return 0;
	fprintf(stderr, "tidegate-bench: %llu publications are more than %d\n",
		(unsigned long long)f->count * f->phases, FAN_PUBLICATIONS_MAX);
	return -E2BIG;
}

static uint32_t buffer_bytes(const struct fan *f)
{
	uint32_t n = 512;

	while (n < f->publish_len + WS_HEADER_MAX && n < 65536)
		n *= 2;
	return n;
}

static int thread_create(struct fan *f, unsigned i)
{
	const struct bench_options *o = &f->opts;
	struct fan_thread *ft = &f->threads[i];
	unsigned connections = o->connections / o->threads + (i < o->connections % o->threads);
	uint32_t bytes = buffer_bytes(f);

	ft->fan = f;
	ft->latency_ns = calloc(f->phases, sizeof *ft->latency_ns);
	ft->publications = calloc((size_t)f->count * f->phases, sizeof *ft->publications);
	if (!ft->latency_ns || !ft->publications)
		return -ENOMEM;
	for (unsigned k = 0; k < f->phases; k++)
		hist_init(&ft->latency_ns[k]);
	return load_add(f->subscribers, &(struct load_thread_opts){
						.ops = &f->subscriber_ops,
						.work = ft,
						.connections = connections,
						.batch_us = BATCH_US,
						.n_bufs = load_buffers(connections, bytes),
						.buf_bytes = bytes,
					});
}

int fan_create(struct fan *f)
{
	const struct bench_options *o = &f->opts;

	if (o->size_bytes > FAN_SIZE_MAX) {
		fprintf(stderr, "tidegate-bench: --size: at most %d\n", FAN_SIZE_MAX);
		return -EINVAL;
	}
	int err = set_count(f);
	if (err)
		return err;
	f->subscriber_ops = fan_subscriber_ops();
	f->threads = calloc(o->threads, sizeof *f->threads);
	f->due_ns = calloc((size_t)f->count * f->phases, sizeof *f->due_ns);
	err = f->threads && f->due_ns ? fan_messages_init(f) : -ENOMEM;
	if (!err)
		err = load_create(o, &f->subscribers);
	for (unsigned i = 0; i < o->threads && !err; i++)
		err = thread_create(f, i);
	if (!err)
		err = load_create(o, &f->publisher);
	if (!err)
		err = load_add(f->publisher, &(struct load_thread_opts){
						     .ops = &fan_publisher_ops,
						     .work = f,
						     .connections = 1,
						     .urgent = true,
						     .n_bufs = 16,
						     .buf_bytes = 1024,
					     });
	return say(err);
}

void fan_destroy(struct fan *f)
{
	/* Parts of messages that were under way when the threads ended. */
	for (unsigned i = 0; f->subscribers && i < f->subscribers->n_threads; i++) {
		struct load_thread *t = f->subscribers->thread[i];
		for (unsigned k = 0; t->rings && !t->error && k < t->n_conns; k++)
			f->subscriber_ops.on_closed(t, load_conn_at(t, k));
	}
	load_destroy(f->subscribers);
	load_destroy(f->publisher);
	for (unsigned i = 0; f->threads && i < f->opts.threads; i++) {
		free(f->threads[i].latency_ns);
		free(f->threads[i].publications);
	}
	free(f->threads);
	free((void *)f->due_ns);
	fan_messages_fini(f);
}

static uint64_t sum_subscribed(const struct fan_thread *threads, unsigned n)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum += load_read(&threads[i].subscribed);
	return sum;
}

static uint64_t sum_delivered(const struct fan *f)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < f->opts.threads; i++)
		sum += load_read(&f->threads[i].delivered);
	return sum;
}

static uint64_t sum_missed(const struct fan *f)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < f->opts.threads; i++)
		sum += load_read(&f->threads[i].missed);
	return sum;
}

int fan_subscribed(struct load *l, const struct fan_thread *threads, unsigned n_threads)
{
	uint64_t last = 0, changed_ns = load_now_ns();
	char why[256];

	for (;;) {
		struct load_totals s = load_totals(l);
		uint64_t n = sum_subscribed(threads, n_threads), now_ns = load_now_ns();
		if (n + s.closed >= s.opened && n)
			return 0;
		if (n != last)
			changed_ns = now_ns;
		last = n;
		if (s.closed < s.opened && !control_interrupted() &&
			(double)(now_ns - changed_ns) * 1e-9 < l->opts->timeout_s) {
			control_until(l, now_ns + 5000000, NULL, NULL);
			continue;
		}
		load_stop(l);
		load_first_failure(l, why, sizeof why);
		fprintf(stderr, "tidegate-bench: %llu of %llu subscribed: %s\n",
			(unsigned long long)n, (unsigned long long)s.opened,
			*why ? why : "no acknowledgement");
		return -ENOTCONN;
	}
}

int fan_open(struct fan *f)
{
	int err = control_open(f->subscribers);

	if (!err)
		err = fan_subscribed(f->subscribers, f->threads, f->opts.threads);
	return err ? err : control_open(f->publisher);
}

void fan_phase_times(
	const struct fan *f, uint64_t run_ns, uint64_t *ret_from_ns, uint64_t *ret_to_ns)
{
	*ret_from_ns = run_ns + (uint64_t)(f->warm * 1e9 / f->rate);
	*ret_to_ns = run_ns + (uint64_t)(f->count * 1e9 / f->rate);
}

/* Sleeps in steps, between which watch() is called. */
static void watched_until(
	const struct fan *f, uint64_t until_ns, void (*watch)(void *ctx), void *ctx)
{
	uint64_t before = sum_delivered(f), step = 0;
	char a[32];

	for (uint64_t now_ns; (now_ns = load_now_ns()) < until_ns && !control_interrupted();) {
		uint64_t next_ns = now_ns + STEP_MS * 1000000ull;
		control_until(f->subscribers, next_ns < until_ns ? next_ns : until_ns, NULL, NULL);
		if (watch)
			watch(ctx);
		if (++step % (1000 / STEP_MS))
			continue;
		uint64_t now = sum_delivered(f);
		control_progress(&f->opts, "%s deliveries/s, %.0f s to go",
			control_thousands(a, now - before),
			((double)until_ns - (double)load_now_ns()) * 1e-9);
		before = now;
	}
}

/* Waits for deliveries that are due. */
static void drain(const struct fan *f, void (*watch)(void *ctx), void *ctx)
{
	uint64_t began_ns = load_now_ns(), changed_ns = began_ns, last = 0;

	while (!control_interrupted()) {
		struct load_totals s = load_totals(f->subscribers);
		uint64_t done = sum_delivered(f) + sum_missed(f), now_ns = load_now_ns();
		if (done >= load_read(&f->published) * (s.opened - s.closed) ||
			now_ns - began_ns > DRAIN_S * 1000000000ull)
			break;
		if (done != last)
			changed_ns = now_ns;
		last = done;
		if (now_ns - changed_ns > STANDSTILL_MS * 1000000ull)
			break;
		control_until(f->subscribers, now_ns + 2000000, NULL, NULL);
	}
	if (watch)
		watch(ctx);
}

int fan_phase(
	struct fan *f, uint64_t run_ns, void (*watch)(void *ctx), void *ctx, struct fan_phase *ret)
{
	uint64_t from_ns, to_ns;

	fan_phase_times(f, run_ns, &from_ns, &to_ns);
	atomic_store(&f->run_ns, run_ns);
	atomic_store(&f->allowed, (uint64_t)f->count * ++f->phase);
	load_phase_set(f->publisher, LOAD_PHASE_RUN);
	watched_until(f, from_ns, watch, ctx);
	uint64_t before = sum_delivered(f);
	int err = control_sample(&f->opts, &ret->before);
	if (err)
		return err;
	watched_until(f, to_ns, watch, ctx);
	load_phase_set(f->publisher, LOAD_PHASE_DRAIN);
	drain(f, watch, ctx);
	ret->delivered = sum_delivered(f) - before;
	err = control_sample(&f->opts, &ret->after);
	ret->seconds = (double)(ret->after.at_ns - ret->before.at_ns) * 1e-9;
	control_progress_end(&f->opts);
	return err;
}

void fan_stop(struct fan *f)
{
	if (f->publisher)
		load_stop(f->publisher);
	if (f->subscribers)
		load_stop(f->subscribers);
}

void fan_collect(const struct fan *f, unsigned phase, struct fan_result *ret)
{
	uint64_t first = (uint64_t)phase * f->count, end = first + f->count;
	uint64_t published = load_read(&f->published);

	*ret = (struct fan_result){0};
	hist_init(&ret->latency_ns);
	hist_init(&ret->last_ns);
	for (unsigned i = 0; i < f->opts.threads; i++)
		hist_merge(&ret->latency_ns, &f->threads[i].latency_ns[phase]);
	for (uint64_t n = first + f->warm; n < end && n < published; n++) {
		uint64_t last_ns = 0, deliveries = 0, due_ns = load_read(&f->due_ns[n]);
		for (unsigned i = 0; i < f->opts.threads; i++) {
			const struct fan_publication *p = &f->threads[i].publications[n];
			deliveries += p->deliveries;
			last_ns = p->last_ns > last_ns ? p->last_ns : last_ns;
		}
		ret->publications++;
		ret->incomplete += deliveries < f->opts.connections;
		if (deliveries == f->opts.connections)
			hist_add(&ret->last_ns, last_ns > due_ns ? last_ns - due_ns : 0);
	}
}

uint64_t fan_missing(const struct fan *f)
{
	return load_read(&f->published) * f->opts.connections - sum_delivered(f);
}

uint64_t fan_errors(const struct fan *f, const struct load_totals *s)
{
	struct load_totals p = load_totals(f->publisher);

	return control_failed(f->subscribers, s) + p.closed + fan_missing(f);
}

void fan_report_publisher(const struct fan *f, json_t *j)
{
	char why[256];

	load_first_failure(f->publisher, why, sizeof why);
	if (*why)
		control_row("publisher", "%s", why);
	json_object_set_new(j, "publisher_failure", json_string(why));
}

void fan_report_latency(const char *label, const struct hist *h, json_t *j, const char *key)
{
	double p50 = (double)hist_quantile(h, 0.5) * 1e-3,
	       p99 = (double)hist_quantile(h, 0.99) * 1e-3;
	double max = (double)h->max * 1e-3;
	json_t *l = json_object();

	control_row(label, "p50 %.3f, p99 %.3f, max %.3f ms", p50 * 1e-3, p99 * 1e-3, max * 1e-3);
	json_object_set_new(l, "p50", json_real(p50));
	json_object_set_new(l, "p99", json_real(p99));
	json_object_set_new(l, "max", json_real(max));
	json_object_set_new(j, key, l);
}
