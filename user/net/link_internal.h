/* Shared by the files of net/link*.c only.
 *
 * Who calls whom: the worker gives a link its turn (link_io.c), which parses frames and hands those
 * of sessions to link_session.c; link_send.c writes frames of sessions into their link's out queue
 * and gives it a turn. A link that dies only marks itself: its sessions are taken over by a job of
 * the upstream (link_failover.c), a few at a time, or earlier, one by one, when something happens
 * to them. So a function that writes a frame may end the link, and never ends a session; a function
 * that calls into net/conn (send, close, accept) may end the session.
 */
#ifndef TIDEGATE_NET_LINK_INTERNAL_H
#define TIDEGATE_NET_LINK_INTERNAL_H

#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "core/job.h"
#include "net/link.h"
#include "proto/link_codec.h"

enum {
	LINK_IN_BYTES =
		128 * 1024, /* several of the longest frames a service may send in one receive */
	LINK_IN_ROOM_MIN = 64 * 1024, /* offered to a receive at least */
	LINK_CHUNK_BYTES =
		132 * 1024, /* of the out queue: four of the longest messages, or any OPEN */
	LINK_STAGE_BYTES =
		256 * 1024, /* of messages and OPENs in the out queue: control frames wait little */
	LINK_GATHER = 8,    /* chunks of one sendmsg */
	LINK_PENDING_LOW_BYTES = 16 * 1024, /* a session with more to send is not read from */
	LINK_UNPAID_MARKS = 8,              /* see struct link_unpaid */
	LINK_JOB_SESSIONS = 64,             /* of one step of the upstream's job */
	LINK_SESSIONS_PER_SHARE =
		256, /* a link's turn grows by one connection's budget for so many sessions … */
	LINK_SHARES_MAX = 8,   /* … up to this */
	LINK_HISTORY_MAX = 96, /* what a resumed session adds to its metadata */
	LINK_LINGER_MS =
		500, /* how long a link that broke the protocol may take to read our ERROR */
	LINK_MIGRATE_STEP = 16, /* buckets moved by each change of the session table */
};

/* Circular; an entry out of every list points to itself. Removing needs no head, moving a whole
 * list is O(1). */
struct link_list {
	struct link_list *prev, *next;
};

static inline void link_list_init(struct link_list *l)
{
	l->prev = l->next = l;
}

static inline bool link_list_empty(const struct link_list *l)
{
	return l->next == l;
}

static inline void link_list_remove(struct link_list *e)
{
	e->prev->next = e->next;
	e->next->prev = e->prev;
	link_list_init(e);
}

/* e is in no list. */
static inline void link_list_push(struct link_list *l, struct link_list *e)
{
	e->prev = l->prev;
	e->next = l;
	l->prev->next = e;
	l->prev = e;
}

/* All of `from` to the end of `to`. */
static inline void link_list_take(struct link_list *to, struct link_list *from)
{
	if (link_list_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	link_list_init(from);
}

enum link_state {
	LINK_WAITING,    /* for its next try */
	LINK_CONNECTING, /* socket and connect */
	LINK_HELLO,      /* connected; the service's HELLO is awaited */
	LINK_UP,
	LINK_ENDING,  /* over; what is left is our ERROR to get across */
	LINK_CLOSING, /* over; what is armed is being cancelled */
};

enum link_armed {
	LINK_ARMED_SOCKET = 1,
	LINK_ARMED_CONNECT = 2,
	LINK_ARMED_RECV = 4,
	LINK_ARMED_SEND = 8,
};

/* A piece of the out queue: whole frames. */
struct link_chunk {
	struct link_chunk *next;
	uint32_t off, len;
	uint8_t data[];
};

struct link_upstream;

struct link {
	struct runq_item run;
	struct wheel_timer
		timer; /* the next try; the end of connecting; PING; the end of lingering */
	struct link_upstream *up;
	const struct link_endpoint *endpoint;
	uint64_t endpoint_hash;
	unsigned index; /* in the worker's table: names it in user_data */
	unsigned nth;   /* in its upstream */
	enum link_state state;
	uint8_t armed; /* bits of enum link_armed */
	bool has_slot;
	bool draining; /* the service said DRAIN */
	bool pong_due;
	bool ping_sent; /* and nothing heard since */
	bool in_more;   /* the last receive left something behind */
	uint32_t slot;  /* direct descriptor in ring 0, when has_slot */
	uint16_t gen;   /* of the descriptor, in user_data */
	uint32_t epoch; /* raised when the link is over: sessions that hold an older one are orphans
			 */
	unsigned tries; /* in vain, since it was last up for a while */
	uint32_t up_ms; /* since when */
	uint32_t ping_ms; /* when the last PING was sent */
	uint32_t heard_ms;
	uint32_t rtt_us;
	uint64_t ping_ns, pong;
	char last_error[96];

	/* From the service's HELLO. */
	uint32_t session_window, payload_max, message_max;
	uint32_t credit;           /* link credit towards the service */
	struct link_window window; /* what the service may send */

	uint8_t *in;
	uint32_t in_head, in_tail;

	struct link_chunk *out_head, *out_tail, *out_spare;
	uint64_t out_bytes;
	struct msghdr msg;
	struct iovec iov[LINK_GATHER];

	struct link_list sessions; /* link_session.on_link */
	struct link_list
		ready; /* link_session.on_ready: something to send, and session credit for it */
	unsigned n_sessions;
	uint64_t pending_bytes; /* of its sessions */
};

enum session_state {
	SESSION_WAITING, /* no link is up */
	SESSION_QUEUED,  /* its OPEN waits for its turn */
	SESSION_OPENING, /* OPEN was sent */
	SESSION_OPEN,
	SESSION_LEAVING, /* the client is gone; its last messages wait for their turn, then CLOSE
			    follows */
};

/* Messages sent and not credited yet, so perhaps lost with the link: up to LINK_UNPAID_MARKS runs
 * of them, oldest first. A run that is paid for in part counts in full. When there are too many,
 * the two neighbours that span the least become one, so that the count is exact for a few messages
 * and a little high for many. */
struct link_unpaid {
	uint32_t cost[LINK_UNPAID_MARKS];  /* of the run's messages; the first less what was paid */
	uint32_t count[LINK_UNPAID_MARKS]; /* messages */
	unsigned n;
	uint32_t part; /* cost of the parts of a message that is not sent in full */
};

struct link_session {
	struct link_session *hash_next;
	struct conn *conn; /* NULL: SESSION_LEAVING */
	uint64_t id;
	struct link *link; /* NULL: SESSION_WAITING */
	uint32_t link_epoch;
	uint8_t state;
	bool was_open;            /* a service has accepted it */
	bool paused;              /* message() said so */
	bool retried;             /* a link refused it with 503 and it was sent to another one */
	bool text;                /* of the message being assembled */
	bool head_started;        /* part of the first pending message was sent */
	bool meta_counted;        /* in the upstream's buffer */
	struct link_list on_link; /* link->sessions, or up->waiting, or up->orphans */
	struct link_list on_ready;
	struct link_list on_deadline; /* while not open */
	uint32_t deadline_ms;
	uint32_t credit;           /* towards the service */
	struct link_window window; /* what the service may send */
	uint32_t deferred;   /* cost of what was delivered and is credited when the client has taken
				it */
	uint16_t close_code; /* SESSION_LEAVING */
	struct buf *pending,
		*pending_tail;   /* messages; the first byte of data tells text from binary */
	uint64_t pending_bytes;  /* payload and a header each */
	struct buf *msg;         /* message of the service being assembled */
	uint64_t sent, received; /* whole messages, since the session began: a service that resumes
				    it is told */
	uint64_t hash;           /* of the balancing key */
	struct link_unpaid unpaid;
	char *meta; /* metadata of OPEN, NULL when not needed again; LEAVING: reason of CLOSE */
	uint32_t meta_len;
};

/* Sessions by id: chained, and resized a few buckets at a time. */
struct link_table {
	struct link_session **bucket, **old; /* old: being emptied from `moved` on */
	unsigned bits, old_bits;
	size_t moved, count;
};

struct link_upstream {
	struct upstream base;
	struct link_opts opts;
	struct worker *w;
	struct link_endpoint *endpoints;
	struct link *links; /* opts.n_endpoints */
	_Atomic unsigned n_up;
	bool draining;
	unsigned turn; /* where the search for the least sessions begins */
	struct slab sessions;
	struct link_table table;
	struct link_list waiting; /* link_session.on_link; FIFO */
	struct link_list orphans; /* likewise: their link is over, failover is due */
	struct link_list unready; /* link_session.on_ready of orphans */
	struct link_list
		deadlines; /* link_session.on_deadline; FIFO, since all wait for the same time */
	uint64_t buffered; /* bytes that waiting sessions hold */
	struct job job;    /* orphans, waiting sessions, deadlines */
};

static inline struct link_upstream *link_upstream_of(struct upstream *u)
{
	return (struct link_upstream *)u;
}

static inline struct tg_worker_stats *link_stats(const struct link_upstream *up)
{
	return up->base.net->stats;
}

static inline struct buf_pool *link_bufs(const struct link_upstream *up)
{
	return &up->base.net->bufs;
}

/* The session whose list entry `member` e is. */
#define LINK_SESSION_OF(e, member)                                                                 \
	((struct link_session *)((char *)(e)-offsetof(struct link_session, member)))

/* link.c: life cycle and health */
void link_upstream_drain(struct upstream *u);
void link_upstream_destroy(struct upstream *u);
/* Ends the link: counts it, leaves its sessions to failover, says goodbye with an ERROR (error < 0:
 * without) and tries again later. No effect on one that is over already. */
__attribute__((format(printf, 3, 4))) void link_fail(
	struct link *l, int error, const char *fmt, ...);
/* As above, for a frame that breaks the protocol. */
void link_bad_frame(struct link *l, enum tg_link_error error, const char *why);
/* The service's HELLO came. */
void link_established(struct link *l, const struct link_hello *h);
void link_on_pong(struct link *l, uint64_t opaque);
/* The service asked for no more sessions and the last one is over. */
void link_drained(struct link *l);
/* Our ERROR is on its way: shuts our side, so that the service sees the end once it has read it. */
void link_said_all(struct link *l);
/* ENDING and nobody to talk to any more: cancels what is armed. */
void link_close(struct link *l);
/* CLOSING: when nothing is armed any more, gives the descriptor back and waits for the next try.
 * From link_run only, so that nobody's frame is freed under their hands. */
void link_settle(struct link *l);

/* link_io.c: frames in and out */
/* Room for a frame of len bytes, to be followed by link_out_done. NULL: no memory, the link is
 * over. */
uint8_t *link_out(struct link *l, size_t len);
void link_out_done(struct link *l, size_t len);
void link_out_drop(struct link *l);
/* Sends what there is, unless a send is under way. flags: besides MSG_NOSIGNAL. */
void link_send(struct link *l, int flags);
/* Gives the link a turn: it has something to send. */
void link_kick(struct link *l);
void link_recv_arm(struct link *l);
void link_run(struct worker *w, struct runq_item *it);
void link_on_recv(struct worker *w, struct ring *r, uint64_t ud, int res, uint32_t flags);
void link_on_send(struct worker *w, struct ring *r, uint64_t ud, int res, uint32_t flags);
/* The link a completion belongs to, its armed bit cleared. */
struct link *link_completed(struct worker *w, uint64_t ud, enum link_armed bit);

/* link_table.c */
void link_table_add(struct link_table *t, struct link_session *s);
void link_table_remove(struct link_table *t, struct link_session *s);
struct link_session *link_table_find(const struct link_table *t, uint64_t id);
/* 0 or -ENOMEM. */
int link_table_init(struct link_table *t);
void link_table_fini(struct link_table *t);

/* link_session.c */
extern const struct upstream_ops link_upstream_ops;
/* True when the session's link is the one it was attached to, still. */
static inline bool link_session_attached(const struct link_session *s)
{
	return s->link && s->link_epoch == s->link->epoch;
}
/* Frames of the service. */
void link_session_accept(struct link *l, const struct link_header *h, const uint8_t *payload);
void link_session_reject(struct link *l, const struct link_header *h, const uint8_t *payload);
void link_session_message(struct link *l, const struct link_header *h, const uint8_t *payload);
void link_session_close(struct link *l, const struct link_header *h, const uint8_t *payload);
void link_session_credit(struct link *l, uint64_t id, uint32_t bytes);
/* What the session had on a link that is over: counts the messages lost and forgets the rest. */
void link_session_reset(struct link_upstream *up, struct link_session *s);
/* Out of all lists and freed; the conn, if any, is told nothing. */
void link_session_free(struct link_upstream *up, struct link_session *s);

/* link_send.c: what goes to the service */
/* Puts it on its link's ready list if there is something to send and credit for it. */
void link_session_ready(struct link_session *s);
/* Lets ready sessions fill the out queue, a frame each in turn. */
void link_stage(struct link *l);
/* A message at once, if it may overtake nobody and there is credit for all of it. */
bool link_send_now(struct link_session *s, bool text, const uint8_t *data, size_t len);
/* A message for later; false without memory. */
bool link_hold(struct link_upstream *up, struct link_session *s, bool text, const uint8_t *data,
	size_t len);
/* Reads on when little is pending. */
void link_session_resume(struct link_session *s);
/* Gives up the messages not sent yet; returns how many. */
unsigned link_session_drop_pending(struct link_upstream *up, struct link_session *s);
/* The first of them. */
void link_pending_pop(struct link_upstream *up, struct link_session *s);
/* False: no memory, the link is over. */
bool link_send_close(
	struct link *l, uint64_t session, uint16_t code, const char *reason, size_t len);
/* The client is gone with messages still to be sent. True: there is credit for them, they go, each
 * part in its turn, and then CLOSE. */
bool link_session_stay(struct link_upstream *up, struct link_session *s, uint16_t code,
	const uint8_t *text, size_t text_len);

/* link_unpaid.c */
/* A message of this cost, above 0, was sent. */
void link_unpaid_add(struct link_unpaid *u, uint32_t cost);
/* The service granted credit. */
void link_unpaid_pay(struct link_unpaid *u, uint32_t bytes);
/* Messages sent and not paid for. */
unsigned link_unpaid_total(const struct link_unpaid *u);

/* link_open.c: the metadata of OPEN as one JSON object. 0 with *ret_meta to be freed, -ENOMEM, or
 * -EMSGSIZE. */
int link_open_metadata(
	const struct conn *c, const struct conn_hello *hello, char **ret_meta, uint32_t *ret_len);
/* True when the metadata lists the subprotocol among those the client offered. */
bool link_open_offered(const char *meta, uint32_t meta_len, const char *subprotocol, size_t len);
/* Of the claim `key`, else of the header, or of the session's id where there is neither. */
uint64_t link_open_hash(const char *key, const struct conn_hello *hello, uint64_t session);
uint64_t link_hash(const void *data, size_t len);

/* link_failover.c: which link carries a session, and what happens when there is none */
void link_failover_init(struct link_upstream *up);
/* The link is over: its sessions become orphans. */
void link_orphan_sessions(struct link *l);
/* A link is up: waiting sessions may go on. */
void link_failover_kick(struct link_upstream *up);
/* Sends a session that has no link to one, or has it wait. 0, or -ENOBUFS when what it holds does
 * not fit the buffer any more. */
int link_place(struct link_upstream *up, struct link_session *s);
/* As above, to another link than `not`; false when there is none. */
bool link_place_elsewhere(
	struct link_upstream *up, struct link_session *s, const struct link * not );
/* Starts the time within which a service must accept. */
void link_deadline_start(struct link_upstream *up, struct link_session *s);
/* If the session's link is over: moves it to another one, or to the waiting. False: that ended the
 * session. */
bool link_session_rescue(struct link_upstream *up, struct link_session *s);
/* Takes it off its link or the waiting list. */
void link_session_detach(struct link_upstream *up, struct link_session *s);

#endif
