/* A client connection: its socket in a direct descriptor, the machine that reads, the machine that
 * writes, its timers.
 *
 * Worker thread only. A conn lives in its ring's object table at its slot, 192 bytes; an idle one
 * owns nothing else but an armed poll and a timer link. Reading and writing are separate: a peer
 * that does not read never stops us from reading, a blocked write never holds the worker.
 *
 *   PROXY -> HANDSHAKE -> OPENING -> OPEN -> CLOSING -> DEAD -> FREE
 *
 * PROXY only on listeners that ask for it. OPENING waits for the upstream's word. CLOSING has sent
 * its last bytes, or is about to, and discards what comes in until the peer's FIN or a deadline.
 * DEAD waits for the completions of what is armed; only then is the slot given back. `ops` notify
 * the layer above; it calls down with the functions here.
 */
#ifndef TIDEGATE_NET_CONN_H
#define TIDEGATE_NET_CONN_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/stats.h"
#include "core/worker.h"
#include "net/admission.h"
#include "net/conn_info.h"
#include "net/outq.h"
#include "proto/http_upgrade.h"
#include "proto/raw.h"
#include "proto/ws.h"

enum conn_state {
	CONN_FREE,
	CONN_PROXY,
	CONN_HANDSHAKE,
	CONN_OPENING,
	CONN_OPEN,
	CONN_CLOSING,
	CONN_DEAD,
};

enum conn_protocol {
	CONN_WEBSOCKET,
	CONN_RAW,
};

/* What is armed in the ring: one bit per completion still to come. */
enum conn_armed {
	ARMED_POLL = 1, /* idle: one-shot poll, no buffer, 612 bytes of kernel memory less than a
			   receive */
	ARMED_RECV =
		2, /* receive into provided buffers: one-shot, or multishot for who is active */
	ARMED_SEND = 4,    /* a send was submitted in this batch and is not ruled on yet */
	ARMED_POLLOUT = 8, /* the last send was short */
	ARMED_SHUTDOWN = 16,
	ARMED_PEER = 32,
};

enum conn_flags {
	CONN_DIRTY = 1,       /* on the flush list */
	CONN_SEND_FAILED = 2, /* the send in flight failed; out_inflight is what it took before */
	CONN_STARVED = 4,     /* waits for a provided buffer */
	CONN_PAUSED = 8,      /* the upstream asked to stop reading */
	CONN_OUT_HIGH =
		16, /* the out queue was above its low mark: tell the upstream when it drains */
	CONN_CLOSE_AFTER_FLUSH = 32, /* the peer knows: close as soon as the out queue is empty */
	CONN_SHUT = 64,              /* our FIN was sent */
	CONN_TOLD = 128,       /* the layer above knows this connection and must hear of its end */
	CONN_CANCELLED = 256,  /* the armed receive or poll was cancelled on purpose */
	CONN_GREEDY = 512,     /* sent faster than it was served: one receive at a time until it
				  falls idle */
	CONN_EOF = 1024,       /* the peer's FIN came, behind what is still to be parsed */
	CONN_RESET = 2048,     /* likewise, an error */
	CONN_VERIFYING = 4096, /* HANDSHAKE: hello was put off; what was asked is in aux->ctl */
	CONN_VERDICT = 8192,   /* and may be asked again */
};

/* Allocated on need, freed when empty. */
struct conn_aux {
	struct buf *in;  /* bytes received and not yet parsed: a partial request head, or what a
			    pause left over */
	struct buf *msg; /* the message so far, when it came in pieces */
	struct buf *ctl; /* the control frame so far, likewise; while VERIFYING the request */
	const char *subprotocol;          /* selected from the configuration, during OPENING */
	char accept[HTTP_ACCEPT_LEN + 1]; /* Sec-WebSocket-Accept, during OPENING */
	bool opening;
	uint32_t out_since_ms; /* a write has made no progress since; not 0: on net.blocked */
	struct conn *conn;     /* whose it is, while blocked */
	struct conn_aux *blocked_next, **blocked_prev;
};

struct conn {
	struct runq_item run;     /* its flags: bits of admission_ticket */
	struct wheel_timer timer; /* its tag: wake_tag() of the socket's peer, 0 before it is known
				   */
	struct conn *flush_next;  /* flush list, then the list of sends in flight */
	struct outq_item *out;    /* the out queue */
	struct conn_aux *aux;
	void *up;  /* the upstream's state of this session */
	void *app; /* the layer above's */
	union {
		struct ws_parser ws;
		struct raw_parser raw;
	} parser;
	uint64_t session; /* public id; 0 before */
	struct in6_addr peer;
	uint16_t peer_port; /* network order */
	uint16_t gen;
	uint8_t ring, listener;
	uint16_t route; /* CONN_NO_ROUTE before the handshake */
	uint8_t state : 3, protocol : 1, pings_unanswered : 4;
	uint8_t pings_in;
	uint8_t armed, close_reason;       /* bits of conn_armed; enum close_reason */
	uint16_t flags;                    /* bits of conn_flags */
	uint16_t in_head, in_tail, in_off; /* pieces of provided buffers to be parsed, chained in
					      ring->piece; bytes of the first that are done */
	uint16_t in_count;                 /* of them: one batch may take every piece of the ring */
	uint16_t ping_window; /* the minute pings_in counts in; before its first turn as a session:
				 turns that debug.handshake_cost was spent in */
	uint32_t out_bytes, out_inflight;
	uint32_t opened_ms, last_rx_ms, last_message_ms;
	uint32_t due_ms; /* OPEN: the next heartbeat; CLOSING: the deadline; before its first turn:
			    the microsecond when it was accepted, or 0 */
	uint32_t messages_in, messages_out;
};

_Static_assert(sizeof(struct conn) == 192, "an idle connection owns one small struct");

enum {
	CONN_NO_ROUTE = 0xffff,
	CONN_TRIM_MS = 100,      /* buffers that nobody needed for so long are given back */
	CONN_GATHER = 8,         /* buffers of one sendmsg */
	CONN_GATHER_BATCH = 512, /* sendmsgs of one submission */
	CONN_PEER_BATCH =
		65536, /* peer addresses asked for at a time: what 16 bits of aux can name */
	CONN_ACTIVE_MS = 2000, /* messages closer together than this keep a receive armed instead of
				  a poll */
	CONN_IN_MAX =
		8, /* pieces a connection may be ahead of its turns before it counts as greedy */
	CONN_OUT_LOW_BYTES = 64 * 1024, /* below it a drained out queue is reported */
	CONN_MSG_FIRST_BYTES = 1024,    /* first size of a message being assembled */
	CONN_CLOSE_UNAUTHORIZED = 4001, /* close code: the token was refused, or expired */
};

/* What happens to a message that does not fit an out queue any more. */
enum out_policy {
	OUT_DISCONNECT,  /* the connection is closed, 1008 */
	OUT_DROP_OLDEST, /* the oldest messages go */
	OUT_DROP_NEWEST, /* it goes itself */
	OUT_CONFLATE, /* older messages of a topic that has a newer one queued; then the oldest */
	OUT_POLICIES,
};

/* "disconnect", … */
const char *out_policy_name(enum out_policy p);

/* Limits of a route; those of the handshake are in conn_opts. */
struct conn_limits {
	uint64_t message_max;
	uint32_t heartbeat_ms;
	uint32_t heartbeat_jitter_percent;
	unsigned heartbeat_missed;
	uint32_t idle_timeout_ms;
	unsigned pings_per_minute;
	uint64_t out_queue_bytes;
	uint32_t out_queue_messages;
	enum out_policy out_policy;
	uint32_t write_timeout_ms;
	const char *name, *upstream; /* the route's path, and where its messages go */
};

struct conn_listener {
	const char *name;
	enum conn_protocol protocol;
	const char *health_path; /* NULL: none */
	bool ipv6;               /* address family of the listening socket */
	bool proxy_protocol;
	const struct conn_prefix {
		struct in6_addr addr;
		unsigned len;
	} * proxy_from;
	unsigned n_proxy_from;
};

struct conn_opts {
	const struct conn_listener *listeners;
	unsigned n_listeners;
	const struct conn_limits *limits; /* by route */
	unsigned n_routes;
	struct http_limits http;
	uint32_t handshake_timeout_ms;
	/* Debugging: CPU time that every handshake costs, and of it in one turn (not 0). */
	uint32_t handshake_cost_us, handshake_turn_us;
	uint32_t close_timeout_ms;
	uint64_t buffer_cap_bytes;             /* of one worker */
	uint64_t buffer_total_bytes;           /* of all workers together; 0: no such cap */
	const struct tg_worker_stats *workers; /* of all workers, for buffer_total_bytes */
	unsigned n_workers;
};

/* What a client asked for. Slices live during the call only. */
struct conn_hello {
	enum conn_protocol protocol;
	struct http_str host, path, query;
	const struct http_request *http; /* WebSocket */
	struct http_str token;           /* raw */
	/* Who it is, where the route asked: filled in for open(). */
	const char *subject;         /* NULL: not known */
	const struct json_t *claims; /* a JSON object; NULL: none */
};

/* The answer to it. */
struct conn_answer {
	uint16_t route;
	const char *subprotocol; /* static; NULL: none */
	uint64_t session;
	uint16_t status;           /* refused: HTTP status; raw clients get its close code */
	const char *why;           /* static */
	enum protocol_error error; /* what to count it as; PROTO_ERRS: nothing */
};

struct conn_ops {
	/* 0: go on, conn_open_upstream follows; -EPROTO: refused, as *ret says; -EINPROGRESS: it is
	 * asked again, with the same request, after conn_verdict. */
	int (*hello)(struct conn *c, const struct conn_hello *hello, struct conn_answer *ret);
	/* The route, session and limits are set. 0: opened; -EINPROGRESS: conn_accept or
	 * conn_refuse comes later; -EPROTO: refused with *ret_status. */
	int (*open)(struct conn *c, const struct conn_hello *hello, uint16_t *ret_status,
		const char **ret_why);
	/* A whole message. False: stop reading until conn_resume. */
	bool (*message)(struct conn *c, bool text, uint8_t *data, size_t len);
	/* The out queue went above CONN_OUT_LOW_BYTES and is empty now. */
	void (*drained)(struct conn *c);
	/* The session is over (also one still OPENING): forget the conn. code is what the client
	 * said or would be told. */
	void (*closed)(struct conn *c, enum close_reason reason, uint16_t code, const uint8_t *text,
		size_t text_len);
	/* Of connections with conn->app only; each may be NULL. */
	/* When due() wants to be called, on the worker's clock; false: never. Asked while OPEN. */
	bool (*deadline)(const struct conn *c, uint32_t *ret_ms);
	void (*due)(struct conn *c);
	/* The slot is given back: free conn->app. */
	void (*gone)(struct conn *c);
};

/* What one route has in one worker: plain stores by the worker, read by anyone. */
struct conn_route_stats {
	uint64_t dropped[OUT_POLICIES]; /* messages that an out queue had no room for, by policy */
	uint64_t sessions;              /* open now */
};

/* Everything the net layer keeps per worker. */
struct net {
	struct worker *w;
	const struct conn_opts *opts;
	const struct conn_ops *ops;
	struct tg_worker_stats *stats;
	struct buf_pool bufs;
	struct wheel_timer trim; /* of bufs */
	struct slab aux;
	struct conn *flush_head, **flush_tail;
	struct conn_aux *blocked; /* connections whose socket takes nothing now */
	struct conn_route_stats *route_stats;
	void (*ended)(struct conn *c);              /* net/account.h; NULL: nobody asks */
	struct account *accounts[WORKER_RINGS_MAX]; /* net/account.c: by slot; NULL: none yet */
	uint32_t shed_looked_ms;                    /* net/shed.c, … */
	bool shed_above_share;                      /* … likewise */
	struct conn *inflight[WORKER_RINGS_MAX];
	struct conn_gather *gather;
	unsigned gather_used;
	struct sockaddr_in6 *peers;
	unsigned peers_out, peers_next; /* asked for and not answered; where the next answer goes */
	uint64_t rand;
	uint64_t turn_end_ns; /* of the connection whose turn it is, … */
	unsigned turn_frames; /* … and the frames it has had */
	bool draining;
	struct admission *admission; /* shared by all workers; NULL: everybody is admitted */
	bool kernel_gate; /* newcomers were judged by the kernel, but for the clients of proxies */
	struct admission_lists *lists;  /* a reference */
	void *listeners;                /* net/listener.c */
	void *links;                    /* net/link.c */
	void *app;                      /* the layer above */
	const struct topic_ops *topics; /* net/topic_ops.h; NULL: none */
	void *topics_ctx;
};

static inline struct net *net_of(struct worker *w)
{
	return w->net;
}

int conn_net_init(struct net *n, const struct conn_opts *opts, const struct conn_ops *ops,
	struct tg_worker_stats *stats);
/* At the worker's end: forgets every connection, telling the layer above. */
void conn_net_close_all(struct net *n);
void conn_net_fini(struct net *n);
/* Registers the connection's handlers in a worker's table. */
void conn_register(struct worker_ops *ops);

/* Once a turn, before submission: turns queued output into SQEs. */
void conn_flush(struct worker *w);

/* A new connection in a slot that accept filled. */
void conn_accepted(struct net *n, struct ring *r, uint32_t slot, unsigned listener);

struct net *conn_net(const struct conn *c);
struct ring *conn_ring(const struct conn *c);
uint32_t conn_slot(const struct conn *c);
const struct conn_limits *conn_limits(const struct conn *c);

/* The upstream's word on a session that was OPENING. subprotocol overrides the selected one when
 * not NULL. */
void conn_accept(struct conn *c, const char *subprotocol);
void conn_refuse(struct conn *c, uint16_t status, const char *why, enum close_reason reason);

/* hello can tell now what it put off. */
void conn_verdict(struct conn *c);
/* What ops->deadline says has changed. */
void conn_deadline_changed(struct conn *c);

/* Queues one message. 0, also when others were dropped for it; -ENOBUFS when it was itself dropped
 * by the route's policy at the cap, or the connection is being closed for it (`disconnect`: 1008,
 * reason OUT_FULL; worker out of memory: 1013); or -EPIPE when the connection is not OPEN. */
int conn_send(struct conn *c, bool text, const void *data, size_t len);

/* A message for many connections of one protocol, as it goes over the wire; key as in base/frame.h.
 * One reference, the caller's (frame_unref with &net->bufs). NULL without memory. */
struct frame *conn_frame(struct net *n, enum conn_protocol protocol, bool text, uint64_t key,
	const void *data, size_t len);
/* As conn_send; f was made for the connection's protocol, and stays the caller's. */
int conn_send_frame(struct conn *c, struct frame *f);

/* Closes with a close frame, lingering for the peer's answer; for want of memory (CLOSE_NO_MEMORY),
 * at once when anything is queued. No effect when closing already. */
void conn_close(struct conn *c, uint16_t code, const char *why, enum close_reason reason);
/* Ends it at once. */
void conn_kill(struct conn *c, enum close_reason reason);
/* Reads on after message() returned false. */
void conn_resume(struct conn *c);

void conn_describe(const struct conn *c, struct conn_info *ret);

/* Calls fn for up to max_slots slots from *cursor (ring << 32 | slot) on, skipping free ones;
 * returns false at the end. */
bool conn_walk(struct net *n, uint64_t *cursor, unsigned max_slots,
	void (*fn)(struct conn *c, void *ctx), void *ctx);

#endif
