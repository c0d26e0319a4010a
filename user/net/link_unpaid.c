/* What may be lost with a link: which messages the service gave no credit for yet. */
#include "net/link_internal.h"

void link_unpaid_add(struct link_unpaid *u, uint32_t cost)
{
	if (u->n == LINK_UNPAID_MARKS) {
		unsigned least = 0;

		for (unsigned i = 1; i + 1 < u->n; i++)
			if (u->cost[i] + u->cost[i + 1] < u->cost[least] + u->cost[least + 1])
				least = i;
		u->cost[least] += u->cost[least + 1];
		u->count[least] += u->count[least + 1];
		u->n--;
		for (unsigned i = least + 1; i < u->n; i++) {
			u->cost[i] = u->cost[i + 1];
			u->count[i] = u->count[i + 1];
		}
	}
	u->cost[u->n] = cost;
	u->count[u->n++] = 1;
}

void link_unpaid_pay(struct link_unpaid *u, uint32_t bytes)
{
	unsigned paid = 0;

	while (paid < u->n && u->cost[paid] <= bytes)
		bytes -= u->cost[paid++];
	u->n -= paid;
	for (unsigned i = 0; i < u->n; i++) {
		u->cost[i] = u->cost[i + paid];
		u->count[i] = u->count[i + paid];
	}
	if (u->n)
		u->cost[0] -= bytes;
	else
		u->part -= bytes < u->part ? bytes : u->part;
}

unsigned link_unpaid_total(const struct link_unpaid *u)
{
	unsigned total = 0;

	for (unsigned i = 0; i < u->n; i++)
		total += u->count[i];
	return total;
}
