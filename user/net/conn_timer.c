/* A connection has one timer, armed for the earliest of its deadlines. Deadlines that move often
 * (the last byte, the last message) are not chased: the timer fires at the old one, looks, and is
 * armed again. */
#include "net/conn_internal.h"

enum {
	QUIET_MS = 5000, /* an active connection that says nothing for so long is polled again */
};

static uint32_t rand32(struct net *n)
{
	n->rand ^= n->rand << 13;
	n->rand ^= n->rand >> 7;
	n->rand ^= n->rand << 17;
	return (uint32_t)(n->rand >> 32);
}

/* a is before b, modulo 2^32. */
static bool before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

static uint32_t heartbeat_ms(struct conn *c)
{
	const struct conn_limits *l = conn_limits(c);
	uint32_t span = (uint32_t)((uint64_t)l->heartbeat_ms * l->heartbeat_jitter_percent / 100);

	return l->heartbeat_ms - (span ? rand32(conn_net(c)) % (span + 1) : 0);
}

void conn_heartbeat_start(struct conn *c)
{
	if (conn_limits(c)->heartbeat_ms)
		c->due_ms = conn_net(c)->w->now_ms + heartbeat_ms(c);
	conn_timer_update(c);
}

static void earliest(uint32_t *at, bool *any, uint32_t deadline)
{
	if (!*any || before(deadline, *at))
		*at = deadline;
	*any = true;
}

/* The layer above may have one, of the session. */
static bool app_deadline(const struct conn *c, uint32_t *ret)
{
	const struct conn_ops *ops = conn_net(c)->ops;

	return c->app && ops->deadline && ops->deadline(c, ret);
}

void conn_deadline_changed(struct conn *c)
{
	conn_timer_update(c);
}

void conn_timer_update(struct conn *c)
{
	struct net *n = conn_net(c);
	uint32_t at = 0, app_at;
	bool any = false;

	if (c->state < CONN_OPEN) {
		earliest(&at, &any, c->opened_ms + n->opts->handshake_timeout_ms);
	} else if (c->state == CONN_CLOSING) {
		earliest(&at, &any, c->due_ms);
	} else if (c->state == CONN_OPEN) {
		const struct conn_limits *l = conn_limits(c);

		if (l->heartbeat_ms)
			earliest(&at, &any, c->due_ms);
		if (l->idle_timeout_ms)
			earliest(&at, &any, c->last_message_ms + l->idle_timeout_ms);
		if (c->armed & ARMED_RECV)
			earliest(&at, &any, c->last_rx_ms + QUIET_MS);
		if (c->aux && c->aux->out_since_ms && l->write_timeout_ms)
			earliest(&at, &any, c->aux->out_since_ms + l->write_timeout_ms);
		if (app_deadline(c, &app_at))
			earliest(&at, &any, app_at);
	}
	if (!any)
		return;
	if (wheel_pending(&c->timer) && c->timer.expires_ms == at)
		return;
	wheel_add(&n->w->wheel, &c->timer, at);
}

/* True when the connection lives on. */
static bool heartbeat(struct conn *c, uint32_t now)
{
	const struct conn_limits *l = conn_limits(c);

	if (!l->heartbeat_ms || before(now, c->due_ms))
		return true;
	if (c->pings_unanswered >= l->heartbeat_missed) {
		conn_kill(c, CLOSE_HEARTBEAT);
		return false;
	}
	/* Who is not read from cannot be heard to answer. The ping still goes out: if nobody is
	 * there, TCP will say so. */
	if (!(c->flags & CONN_PAUSED))
		c->pings_unanswered++;
	c->due_ms = now + heartbeat_ms(c);
	conn_send_ping(c);
	return c->state == CONN_OPEN;
}

static void open_deadlines(struct conn *c, uint32_t now)
{
	const struct conn_limits *l = conn_limits(c);
	uint32_t app_at;

	if (app_deadline(c, &app_at) && !before(now, app_at)) {
		conn_net(c)->ops->due(c);
		if (c->state != CONN_OPEN)
			return;
	}
	if (c->aux && c->aux->out_since_ms && l->write_timeout_ms &&
		!before(now, c->aux->out_since_ms + l->write_timeout_ms)) {
		conn_kill(c, CLOSE_WRITE_TIMEOUT);
		return;
	}
	if (l->idle_timeout_ms && !before(now, c->last_message_ms + l->idle_timeout_ms)) {
		conn_close(c, WS_CLOSE_GOING_AWAY, "idle", CLOSE_IDLE);
		return;
	}
	if (!heartbeat(c, now))
		return;
	if ((c->armed & ARMED_RECV) && !before(now, c->last_rx_ms + QUIET_MS) &&
		!(c->flags & CONN_CANCELLED)) {
		/* Its completion arms a poll instead. */
		ring_cancel(conn_ring(c), ring_ud(OP_CONN_RECV, c->gen, 0, conn_slot(c)));
		c->flags |= CONN_CANCELLED;
		c->last_rx_ms = now; /* not again before that */
	}
	conn_timer_update(c);
}

void conn_timer_fire(struct worker *w, struct wheel_timer *t)
{
	struct conn *c = conn_of_timer(t);
	uint32_t now = w->now_ms;

	switch ((enum conn_state)c->state) {
	case CONN_PROXY:
	case CONN_HANDSHAKE:
		if (before(now, c->opened_ms + net_of(w)->opts->handshake_timeout_ms))
			conn_timer_update(c);
		else if (c->state == CONN_PROXY)
			conn_kill(c, CLOSE_HANDSHAKE_TIMEOUT);
		else
			conn_refuse(c, 408, "the handshake took too long", CLOSE_HANDSHAKE_TIMEOUT);
		break;
	case CONN_OPENING:
		if (before(now, c->opened_ms + net_of(w)->opts->handshake_timeout_ms))
			conn_timer_update(c);
		else
			conn_refuse(c, 503, "no service answered in time", CLOSE_HANDSHAKE_TIMEOUT);
		break;
	case CONN_OPEN:
		open_deadlines(c, now);
		break;
	case CONN_CLOSING:
		if (before(now, c->due_ms))
			conn_timer_update(c);
		else
			conn_kill(c, (enum close_reason)c->close_reason);
		break;
	case CONN_FREE:
	case CONN_DEAD:
		break;
	}
}
