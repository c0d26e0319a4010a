#include "net/shed.h"

#include "net/conn_internal.h"

enum {
	/* Of blocked connections looked at in a turn: at a microsecond or so for a hundred of them,
	 * a turn's budget. What is not reached now is at the front of the list later on, as those
	 * that were looked at end or are joined by others. */
	LOOK_MAX = 16384,
};

void shed_init(struct net *n)
{
	n->shed_looked_ms = 0;
	n->shed_above_share = false;
}

static uint64_t part(uint64_t of, unsigned eighths)
{
	return of / 8 * eighths;
}

/* The cap of all workers, seen from this one. */
static void look_at_total(struct net *n)
{
	uint64_t total = n->opts->buffer_total_bytes, sum = n->bufs.bytes, left, cap;
	unsigned workers = n->opts->n_workers;

	for (unsigned i = 0; i < workers; i++)
		if (i != n->w->id)
			sum += __atomic_load_n(&n->opts->workers[i].heap_bytes, __ATOMIC_RELAXED);
	left = total > sum ? total - sum : 0;
	cap = n->bufs.bytes + left / workers;
	n->bufs.cap_bytes = cap < n->opts->buffer_cap_bytes ? cap : n->opts->buffer_cap_bytes;
	n->shed_above_share = sum > part(total, 7) && n->bufs.bytes > part(total / workers, 7);
}

bool shed_short(const struct net *n)
{
	return n->shed_above_share || n->bufs.bytes > part(n->opts->buffer_cap_bytes, 7);
}

/* Cuts the blocked connections that hold at least half of what the greatest of them does. */
static void cut(struct net *n, uint64_t until_bytes)
{
	struct conn_aux *x, *next;
	uint32_t most = 0;
	unsigned i = 0;

	for (x = n->blocked; x && i++ < LOOK_MAX; x = x->blocked_next)
		if (x->conn->out_bytes > most)
			most = x->conn->out_bytes;
	i = 0;
	for (x = n->blocked; x && i++ < LOOK_MAX && n->bufs.bytes > until_bytes; x = next) {
		next = x->blocked_next;
		if (x->conn->out_bytes >= most / 2)
			conn_kill(x->conn, CLOSE_SHED);
	}
}

void shed_turn(struct net *n)
{
	uint64_t cap = n->opts->buffer_cap_bytes;

	if (n->opts->buffer_total_bytes && n->w->now_ms != n->shed_looked_ms) {
		n->shed_looked_ms = n->w->now_ms;
		look_at_total(n);
	}
	if (!n->blocked)
		return;
	if (n->bufs.bytes > part(cap, 7))
		cut(n, part(cap, 6));
	else if (n->shed_above_share)
		cut(n, part(n->opts->buffer_total_bytes / n->opts->n_workers, 6));
}
