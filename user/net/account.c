#include "net/account.h"

#include <stdlib.h>
#include <string.h>

void account_begin(struct conn *c)
{
	struct net *n = conn_net(c);
	struct account *a;

	if (!n->ended)
		return;
	/* Touched only as slots are used, like the conns. */
	if (!n->accounts[c->ring])
		n->accounts[c->ring] = calloc(conn_ring(c)->slots, sizeof *a);
	a = account_of(c);
	if (!a)
		return;
	memset(a, 0, sizeof *a);
	a->opened_ns = n->w->now_ns;
}

void account_end(struct conn *c)
{
	struct net *n = conn_net(c);

	if (!n->ended)
		return;
	if (account_of(c))
		n->ended(c);
	else
		n->stats->access_dropped++;
}

void account_fini(struct net *n)
{
	for (unsigned i = 0; i < WORKER_RINGS_MAX; i++) {
		free(n->accounts[i]);
		n->accounts[i] = NULL;
	}
}
