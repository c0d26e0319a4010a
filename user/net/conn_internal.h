/* Shared by the files of net/conn*.c only. */
#ifndef TIDEGATE_NET_CONN_INTERNAL_H
#define TIDEGATE_NET_CONN_INTERNAL_H

#include "net/conn.h"

#include <sys/socket.h>
#include <sys/uio.h>

struct conn_gather {
	struct msghdr msg;
	struct iovec iov[CONN_GATHER];
};

static inline struct conn *conn_of_run(struct runq_item *it)
{
	return (struct conn *)((char *)it - offsetof(struct conn, run));
}

static inline struct conn *conn_of_timer(struct wheel_timer *t)
{
	return (struct conn *)((char *)t - offsetof(struct conn, timer));
}

/* conn.c: life cycle */
struct conn_aux *conn_aux_get(struct conn *c); /* NULL without memory */
void conn_aux_trim(struct conn *c);
void conn_tell_closed(
	struct conn *c, enum close_reason reason, uint16_t code, const uint8_t *text, size_t len);
/* The last bytes are queued: discard input, send them, FIN, wait for the peer's until the deadline.
 */
void conn_linger(struct conn *c, enum close_reason reason);
/* DEAD and nothing armed any more: give the slot back. */
void conn_try_free(struct conn *c);

/* Judges the client by c->peer. False: it was refused and is dead. flags: enum admission_flags. */
bool conn_admit(struct conn *c, unsigned flags);
/* Its handshake is complete. */
void conn_served(struct conn *c);

/* conn_in.c: the reading machine */
void conn_arm(struct conn *c);
void conn_input_drop(struct conn *c);
/* How long its socket, just received from, had been readable, as runq_wake(); 0: not known. */
uint16_t conn_wake(struct conn *c);
void conn_on_poll(struct worker *w, struct ring *r, uint64_t ud, int res, uint32_t flags);
void conn_on_recv(struct worker *w, struct ring *r, uint64_t ud, int res, uint32_t flags);
void conn_refill(struct worker *w, struct ring *r);
void conn_run(struct worker *w, struct runq_item *it);

/* conn_out.c: the writing machine */
void conn_out_drop(struct conn *c);
void conn_dirty(struct conn *c);
/* No longer counts as blocked. */
void conn_unblock(struct conn *c);
/* Gives back what queues do not need any more. */
void conn_trim(struct worker *w, struct wheel_timer *t);
void conn_settle(struct worker *w, struct ring *r);
void conn_on_send(struct worker *w, struct ring *r, uint64_t ud, int res, uint32_t flags);
void conn_on_pollout(struct worker *w, struct ring *r, uint64_t ud, int res, uint32_t flags);
void conn_on_shutdown(struct worker *w, struct ring *r, uint64_t ud, int res, uint32_t flags);
/* Queues bytes that no cap applies to beyond the worker's (control frames, HTTP answers). False
 * without memory. */
bool conn_out_bytes(struct conn *c, const void *data, size_t len);

/* conn_proto.c: handshakes and frames. Each consumes what it can of data and returns how much; the
 * rest comes again. */
enum conn_more {
	CONN_MORE_INPUT,    /* needs bytes that are not here yet, or has consumed all */
	CONN_MORE_TIME,     /* the turn's budget is used up */
	CONN_MORE_UPSTREAM, /* paused */
	CONN_MORE_NOTHING,  /* closing or dead: drop the input */
};
enum conn_more conn_parse(struct conn *c, uint8_t *data, size_t len, size_t *ret_consumed);
void conn_send_ping(struct conn *c);

/* conn_handshake.c */
enum conn_more conn_parse_proxy(
	struct conn *c, const uint8_t *data, size_t len, size_t *ret_consumed);
enum conn_more conn_parse_http(
	struct conn *c, const uint8_t *data, size_t len, size_t *ret_consumed);
enum conn_more conn_raw_hello(struct conn *c, const uint8_t *payload, size_t len);
/* Asks hello again, with what was put aside. */
enum conn_more conn_hello_again(struct conn *c);
/* Spends what this turn is to cost for debugging. True: there is more to spend, in other turns. */
bool conn_handshake_cost(struct conn *c);
bool conn_proxy_allowed(const struct conn *c);
void conn_protocol_error(struct conn *c, enum protocol_error e);

/* conn_timer.c */
void conn_timer_fire(struct worker *w, struct wheel_timer *t);
/* Arms the timer for the earliest deadline of the state the connection is in. */
void conn_timer_update(struct conn *c);
void conn_heartbeat_start(struct conn *c);

#endif
