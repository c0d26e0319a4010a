/* Which connections the access log is told of, and what. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "net/account.h"
#include "ops/access_log.h"
#include "ops/gateway_internal.h"

/* Ends that nobody has to look into. */
static bool ordinary(enum close_reason reason)
{
	return reason == CLOSE_CLIENT || reason == CLOSE_UPSTREAM || reason == CLOSE_IDLE ||
	       reason == CLOSE_KICKED || reason == CLOSE_DRAIN || reason == CLOSE_HEALTH;
}

/* A share of them, each for itself: xorshift64*. */
static bool sampled(struct gateway_worker *gw)
{
	uint64_t x = gw->access_rand;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	gw->access_rand = x;
	return (x * UINT64_C(0x2545f4914f6cdd1d) >> 32) % 100 <
	       gw->gateway->cfg->access_sample_percent;
}

static void copy_subject(struct access_record *r, const char *subject)
{
	size_t len = subject ? strlen(subject) : 0;

	r->subject_cut = len > sizeof r->subject;
	r->subject_len = (uint8_t)(r->subject_cut ? sizeof r->subject : len);
	if (len)
		memcpy(r->subject, subject, r->subject_len);
}

static void on_ended(struct conn *c)
{
	struct net *n = conn_net(c);
	struct gateway_worker *gw =
		(struct gateway_worker *)((char *)n - offsetof(struct gateway_worker, net));
	const struct config *cfg = gw->gateway->cfg;
	const struct account *a = account_of(c);
	enum close_reason reason = (enum close_reason)c->close_reason;
	struct timespec now;

	if ((ordinary(reason) || !cfg->access_failures_always) && !sampled(gw))
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	struct access_record r = {
		.ended_unix_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000,
		.duration_us = (n->w->now_ns - a->opened_ns) / 1000,
		.session = c->session,
		.peer = c->peer,
		.peer_port = c->peer_port,
		.worker = (uint16_t)n->w->id,
		.status = a->status,
		.code = a->code,
		.listener = n->opts->listeners[c->listener].name,
		.route = c->route == CONN_NO_ROUTE ? "" : conn_limits(c)->name,
		.error = a->error,
		.protocol = c->protocol == CONN_WEBSOCKET ? "websocket" : "raw",
		.bytes_in = a->bytes_in,
		.bytes_out = a->bytes_out,
		.messages_in = c->messages_in,
		.messages_out = c->messages_out,
		.dropped = a->dropped,
		.run_delay_max_us = a->run_delay_max_us,
		.reason = reason,
		.opened = a->status == ACCOUNT_OPENED,
	};
	copy_subject(&r, session_subject(c));
	access_log_put(gw->gateway->access, n->w->id, &r);
}

void gateway_access_attach(struct gateway_worker *gw)
{
	if (!gw->gateway->access)
		return;
	gw->access_rand = worker_clock_ns() | 1;
	gw->net.ended = on_ended;
}

int gateway_access_create(struct gateway *g, unsigned n_workers, int fd)
{
	if (fd < 0)
		return 0;
	return access_log_create(
		&(struct access_log_opts){
			.fd = fd,
			.n_workers = n_workers,
			.queue = g->cfg->access_queue,
			.stats = g->stats,
		},
		&g->access);
}
