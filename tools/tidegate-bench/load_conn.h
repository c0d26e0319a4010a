/* The connections of one thread of the load, for load.c, which runs the thread. load_conn.c opens
 * and closes them, sends and receives; load_input.c makes sense of what was received. */
#ifndef TIDEGATE_BENCH_LOAD_CONN_H
#define TIDEGATE_BENCH_LOAD_CONN_H

#include "load.h"

enum {
	LOAD_STAGING_BYTES = 4 << 20,
	LOAD_SEND_MAX = 64 << 10, /* bytes of one send */
};

#define LOAD_NIL UINT32_MAX

/* What only few connections have at a time: an incomplete answer to the handshake or ping, output
 * that waits. */
struct load_extra {
	uint8_t *in;
	size_t in_len;
	uint8_t *out;
	size_t out_at, out_len;
	uint8_t control_in[WS_CONTROL_PAYLOAD_MAX];
	uint8_t control_in_len;
	uint8_t control_out[4 * (WS_HEADER_MAX + WS_CONTROL_PAYLOAD_MAX)]; /* whole frames */
	size_t control_out_len;
};

/* Queues the operations that open connection `slot`; its completion comes through
 * load_conn_complete(). */
void load_conn_start(struct load_thread *t, struct load_conns *rs, unsigned slot);

/* Handles one completion of a ring. */
void load_conn_complete(
	struct load_thread *t, struct load_conns *rs, const struct io_uring_cqe *cqe);

/* Gives buffers back to the kernel and lets as many starved connections receive again, oldest
 * first: more of them would only find the buffers gone again. */
void load_conns_recycle(struct load_thread *t, struct load_conns *rs);

/* Sends for the connections that want to, until the staging area is full. Only when no send is
 * unconfirmed. */
void load_conns_flush(struct load_thread *t, struct load_conns *rs);

/* Makes every connection of the ring be reset, not closed, when the ring goes away; frees what they
 * hold. */
void load_conns_abandon(struct load_thread *t, struct load_conns *rs);

/* ---- between load_conn.c and load_input.c ---- */

/* load_input.c: bytes of the peer. The connection may be gone afterwards (its generation has
 * changed then). */
void load_bytes(struct load_thread *t, struct load_conn *c, uint8_t *data, size_t len);

/* Ends the connection, counts it as failed or lost by its state, and keeps the text of the thread's
 * first failure. */
void load_conn_fail(struct load_thread *t, struct load_conn *c, const char *what, const char *why);

/* Allocates the extra part on first use (NULL without memory), and frees it when nothing is in it.
 */
struct load_extra *load_extra_get(struct load_conn *c);
void load_extra_tidy(struct load_conn *c);

#endif
