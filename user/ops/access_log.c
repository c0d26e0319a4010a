#include "ops/access_log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

/* One producer, its worker, and one consumer, the writer. Positions only grow. */
struct access_ring {
	_Alignas(64) _Atomic uint64_t put;
	_Alignas(64) _Atomic uint64_t taken;
	struct access_record *records;
};

struct access_log {
	struct access_log_opts opts;
	int fd;
	_Atomic int next_fd; /* to be taken by the writer; -1: none */
	_Atomic bool ending;
	uint64_t give_up_ns; /* when ending */
	bool torn;           /* the last line was written in part: end it first */
	sem_t wake;
	pthread_t thread;
	struct access_ring ring[];
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void access_log_put(struct access_log *a, unsigned worker, const struct access_record *r)
{
	struct access_ring *ring = &a->ring[worker];
	struct tg_worker_stats *stats = &a->opts.stats[worker];
	uint64_t at = atomic_load_explicit(&ring->put, memory_order_relaxed);

	if (at - atomic_load_explicit(&ring->taken, memory_order_acquire) == a->opts.queue) {
		stats->access_dropped++;
		return;
	}
	ring->records[at & (a->opts.queue - 1)] = *r;
	stats->access_lines++;
	atomic_store_explicit(&ring->put, at + 1, memory_order_release);
}

/* Waits until the descriptor takes something, or the end has come. A file always takes. */
static int wait_writable(const struct access_log *a)
{
	for (;;) {
		struct pollfd p = {.fd = a->fd, .events = POLLOUT};
		bool late = atomic_load(&a->ending) && now_ns() > a->give_up_ns;
		int n = poll(&p, 1, late ? 0 : ACCESS_LOG_TICK_MS);

		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
		if (late)
			return -ETIMEDOUT;
	}
}

/* All of it or -errno; `torn` is kept. */
static int write_all(struct access_log *a, const char *text, size_t len)
{
	size_t done = 0;

	while (done < len) {
		int err = wait_writable(a);
		ssize_t n;

		if (err)
			return err;
		n = write(a->fd, text + done, len - done);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (n > 0) {
			done += (size_t)n;
			a->torn = text[done - 1] != '\n';
		}
	}
	return 0;
}

struct batch {
	char text[ACCESS_LOG_LINE_MAX];
	size_t len;
	unsigned lines;
};

static void flush(struct access_log *a, struct batch *b, unsigned worker)
{
	int err = 0;

	if (!b->lines)
		return;
	if (a->torn)
		err = write_all(a, "\n", 1);
	if (!err)
		err = write_all(a, b->text, b->len);
	if (err) {
		a->opts.stats[worker].access_failed += b->lines;
		log_warn("access", "the access log cannot be written: %s; %u lines are missing",
			strerror(-err), b->lines);
	}
	b->len = 0;
	b->lines = 0;
}

static void write_ring(struct access_log *a, unsigned worker)
{
	struct access_ring *ring = &a->ring[worker];
	uint64_t at = atomic_load_explicit(&ring->taken, memory_order_relaxed);
	uint64_t end = atomic_load_explicit(&ring->put, memory_order_acquire);
	struct batch b = {.len = 0};
	char line[ACCESS_LOG_LINE_MAX];

	for (; at != end; at++) {
		size_t len = access_log_format(&ring->records[at & (a->opts.queue - 1)], line);

		atomic_store_explicit(&ring->taken, at + 1, memory_order_release);
		if (!len) {
			a->opts.stats[worker].access_failed++;
			continue;
		}
		if (b.len + len > sizeof b.text)
			flush(a, &b, worker);
		memcpy(b.text + b.len, line, len);
		b.len += len;
		b.lines++;
	}
	flush(a, &b, worker);
}

static void take_next_fd(struct access_log *a)
{
	int fd = atomic_exchange(&a->next_fd, -1);

	if (fd < 0)
		return;
	close(a->fd);
	a->fd = fd;
	a->torn = false;
}

static void *writer_main(void *arg)
{
	struct access_log *a = arg;
	bool ending;

	prctl(PR_SET_NAME, "access-log");
	do {
		uint64_t until_ns = now_ns() + ACCESS_LOG_TICK_MS * UINT64_C(1000000);
		struct timespec until = {
			(time_t)(until_ns / 1000000000), (long)(until_ns % 1000000000)};

		sem_clockwait(&a->wake, CLOCK_MONOTONIC, &until);
		ending = atomic_load(&a->ending);
		take_next_fd(a);
		for (unsigned i = 0; i < a->opts.n_workers; i++)
			write_ring(a, i);
	} while (!ending);
	return NULL;
}

static void free_log(struct access_log *a)
{
	int next = atomic_load(&a->next_fd);

	for (unsigned i = 0; i < a->opts.n_workers; i++)
		free(a->ring[i].records);
	if (next >= 0)
		close(next);
	if (a->fd >= 0)
		close(a->fd);
	sem_destroy(&a->wake);
	free(a);
}

int access_log_create(const struct access_log_opts *opts, struct access_log **ret)
{
	size_t bytes = sizeof(struct access_log) + opts->n_workers * sizeof(struct access_ring);
	struct access_log *a = aligned_alloc(64, (bytes + 63) / 64 * 64);
	int err = 0;

	if (!a)
		return -ENOMEM;
	memset(a, 0, bytes);
	a->opts = *opts;
	atomic_init(&a->next_fd, -1);
	sem_init(&a->wake, 0, 0);
	a->fd = fcntl(opts->fd, F_DUPFD_CLOEXEC, 0);
	if (a->fd < 0)
		err = -errno;
	for (unsigned i = 0; i < opts->n_workers && !err; i++) {
		a->ring[i].records = calloc(opts->queue, sizeof *a->ring[i].records);
		if (!a->ring[i].records)
			err = -ENOMEM;
	}
	if (!err)
		err = -pthread_create(&a->thread, NULL, writer_main, a);
	if (err) {
		free_log(a);
		return err;
	}
	*ret = a;
	return 0;
}

void access_log_reopen(struct access_log *a, int fd)
{
	int unused = atomic_exchange(&a->next_fd, fd);

	if (unused >= 0)
		close(unused);
	sem_post(&a->wake);
}

void access_log_destroy(struct access_log *a)
{
	uint64_t dropped = 0;

	if (!a)
		return;
	a->give_up_ns = now_ns() + ACCESS_LOG_END_MS * UINT64_C(1000000);
	atomic_store(&a->ending, true);
	sem_post(&a->wake);
	pthread_join(a->thread, NULL);
	for (unsigned i = 0; i < a->opts.n_workers; i++)
		dropped += a->opts.stats[i].access_dropped;
	if (dropped)
		log_info("access", "the access log misses %llu lines: its queue was full",
			(unsigned long long)dropped);
	free_log(a);
}
