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
	n->shed_looked_ms = n->w ? n->w->now_ms : 0;
}

/* The cap of all workers, seen from this one. True: the sum is above its high water, and this
 * worker has more than its share. */
static bool look_at_total(struct net *n)
{
	uint64_t total = n->opts->buffer_total_bytes, sum = 0, left, cap;
	unsigned workers = n->opts->n_workers;

	if (!total)
		return false;
	for (unsigned i = 0; i < workers; i++)
		sum += __atomic_load_n(&n->opts->workers[i].heap_bytes, __ATOMIC_RELAXED);
	cap = n->opts->buffer_cap_bytes;
	left = total > sum ? total - sum : 0;
	if (sum > total / 2 && n->bufs.bytes + left / workers < cap)
		cap = n->bufs.bytes + left / workers;
	n->bufs.cap_bytes = cap;
	return sum > total - total / 16 && n->bufs.bytes > total / workers;
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
	bool above_share = false;

	if (n->w->now_ms != n->shed_looked_ms) {
		n->shed_looked_ms = n->w->now_ms;
		above_share = look_at_total(n);
	}
	if (!n->blocked)
		return;
	if (n->bufs.bytes > cap - cap / 16)
		cut(n, cap - cap / 8);
	else if (above_share)
		cut(n, n->opts->buffer_total_bytes / n->opts->n_workers / 8 * 7);
}
