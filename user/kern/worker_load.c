#include "kern/worker_load.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
	LINES_BYTES = TG_WORKERS_MAX * sizeof(struct tg_worker_load),
};

_Static_assert(LINES_BYTES % 4096 == 0, "mapped whole");

#define SET(field, value) __atomic_store_n(&(field), (value), __ATOMIC_RELAXED)
#define GET(field)        __atomic_load_n(&(field), __ATOMIC_RELAXED)

int worker_load_map(int fd, struct tg_worker_load **ret)
{
	int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	void *p = mmap(NULL, LINES_BYTES, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (p == MAP_FAILED)
		return -errno;
	*ret = p;
	return 0;
}

void worker_load_unmap(struct tg_worker_load *lines)
{
	if (lines)
		munmap(lines, LINES_BYTES);
}

void worker_load_begin(struct tg_worker_load *line)
{
	/* A line that a former gateway left says nothing about this one. */
	__atomic_store_n(&line->heartbeat_ns, 0, __ATOMIC_RELEASE);
	SET(line->poll_delay_ns, 0);
	SET(line->served, 0);
	SET(line->accepts, 0);
	SET(line->sleeping, 0);
	SET(line->accepting, 0);
	SET(line->runnable, 0);
	SET(line->connections, 0);
	SET(line->ring, 0);
	SET(line->free_slots, 0);
	SET(line->tid, (uint32_t)gettid());
	SET(line->tgid, (uint32_t)getpid());
}

void worker_load_publish(struct tg_worker_load *line, const struct worker_load *w, uint64_t now_ns)
{
	SET(line->poll_delay_ns, w->poll_delay_ns);
	SET(line->served, w->served);
	SET(line->accepts, w->accepts);
	SET(line->sleeping, w->sleeping);
	SET(line->accepting, w->accepting);
	SET(line->runnable, w->runnable);
	SET(line->connections, w->connections);
	SET(line->ring, w->ring);
	SET(line->free_slots, w->free_slots);
	/* Last: who sees the new heartbeat sees what goes with it. */
	__atomic_store_n(&line->heartbeat_ns, now_ns, __ATOMIC_RELEASE);
}

void worker_load_end(struct tg_worker_load *line)
{
	SET(line->accepting, 0);
	SET(line->tid, 0);
	SET(line->tgid, 0);
	__atomic_store_n(&line->heartbeat_ns, 0, __ATOMIC_RELEASE);
}

bool worker_load_read(const struct tg_worker_load *line, struct tg_worker_load *ret)
{
	struct tg_worker_load l = {
		.heartbeat_ns = __atomic_load_n(&line->heartbeat_ns, __ATOMIC_ACQUIRE)};

	if (!l.heartbeat_ns)
		return false;
	l.poll_delay_ns = GET(line->poll_delay_ns);
	l.served = GET(line->served);
	l.accepts = GET(line->accepts);
	l.sleeping = GET(line->sleeping);
	l.accepting = GET(line->accepting);
	l.runnable = GET(line->runnable);
	l.connections = GET(line->connections);
	l.ring = GET(line->ring);
	l.free_slots = GET(line->free_slots);
	l.tid = GET(line->tid);
	l.tgid = GET(line->tgid);
	*ret = l;
	return true;
}
