/* Inside libtidegate-link. One server's objects belong to one thread.
 *
 * Who calls whom: dispatch (server.c) reads and writes links (link.c), which hands whole frames to
 * frames.c; public calls (session.c) only change state, put control frames into a link's out buffer
 * and mark the link dirty. All sending, and every call-back about an end, happens at the bottom of
 * dispatch's stack (tgl_notify): a session or link that ends stays in memory, on a list, until
 * then, and no function needs to fear that a call-back freed what it works on.
 */
#ifndef TIDEGATE_LINK_INTERNAL_H
#define TIDEGATE_LINK_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "proto/link_codec.h"
#include "tidegate/link.h"

#pragma GCC visibility push(hidden)

enum {
	/* Of a link: any whole frame, and several messages in one receive. */
	TGL_IN_BYTES = 128 * 1024,
	/* Messages are put into the out buffer up to here, so that control frames wait little. */
	TGL_STAGE_BYTES = 128 * 1024,
	/* A link whose out buffer holds more is not read from. */
	TGL_BACKLOG_MAX = 1024 * 1024,
	/* An emptied out buffer above this is given back. */
	TGL_OUT_KEEP_BYTES = 512 * 1024,
	/* One link may send so much, and receive so many times, in one round. */
	TGL_FLUSH_BYTES = 1024 * 1024,
	TGL_READ_ROUNDS = 4,
	TGL_ACCEPTS_PER_ROUND = 64,
	/* How long a failed link waits for its peer to read the ERROR. */
	TGL_LINGER_MS = 1000,
	TGL_WHY_LEN = 192,
};

/* What an epoll event points to. */
enum tgl_kind {
	TGL_LISTENER,
	TGL_LINK,
	TGL_WAKE,
	TGL_TICK,
};

struct tgl_source {
	enum tgl_kind kind;
	int fd;
};

struct tgl_buf {
	uint8_t *data;
	size_t head, tail, cap; /* bytes from head to tail are in use */
};

static inline size_t tgl_buf_len(const struct tgl_buf *b)
{
	return b->tail - b->head;
}

/* A message waiting to be put on the link. */
struct tgl_msg {
	struct tgl_msg *next;
	size_t len, staged;
	bool text;
	uint8_t data[];
};

enum tgl_session_state {
	TGL_OPENING, /* on_open was called, no answer yet */
	TGL_OPEN,
	TGL_CLOSING, /* tg_link_close was called: CLOSE waits behind queued messages */
	TGL_ENDED,   /* out of the table, on server->ended until on_close has been called */
};

struct tg_link_session {
	struct tg_link *link;
	uint64_t id;
	struct tg_link_session *hash_next;
	TAILQ_ENTRY(tg_link_session) on_link;     /* link->sessions, or server->ended */
	TAILQ_ENTRY(tg_link_session) on_ready;    /* link->ready, when ready */
	TAILQ_ENTRY(tg_link_session) on_writable; /* server->writable, when writable_due */
	void *data;
	enum tgl_session_state state;
	bool resumed, manual;
	bool ready;        /* something to send, and session credit for some of it */
	bool send_refused; /* on_writable is owed once the queue is half empty */
	bool writable_due;

	struct tgl_msg *out_head, **out_tail;
	size_t queued; /* payload not yet staged, and a header for each message */
	uint32_t credit;

	struct link_window window;
	/* What is still in the window of the message in progress, and of messages delivered and
	 * not consumed; and the payload of the latter. */
	uint32_t unpaid;
	uint64_t delivered_cost, delivered_payload;
	uint64_t messages_in, messages_out;

	uint8_t *parts; /* of the message in progress; kept to message_max */
	size_t parts_len, parts_cap;
	bool parts_text, in_message;

	enum tg_link_end end_by;
	uint16_t end_code; /* TGL_CLOSING: to be sent */
	uint32_t end_delay_ms;
	char *end_reason; /* heap; NULL: empty */

	size_t meta_len;
	char meta[]; /* NUL-terminated */
};

TAILQ_HEAD(tgl_sessions, tg_link_session);

enum tgl_link_state {
	TGL_LINK_HELLO, /* ours is sent, theirs is awaited */
	TGL_LINK_UP,
	TGL_LINK_FAILED, /* on server->failed until on_link_down has been called */
	TGL_LINK_LINGER, /* gone for the service; what is left is the ERROR frame to get across */
	TGL_LINK_DEAD,   /* closed; freed at the end of dispatch, when no event names it any more */
};

struct tg_link {
	struct tgl_source source;
	struct tg_link_server *server;
	TAILQ_ENTRY(tg_link) on_server;
	TAILQ_ENTRY(tg_link) on_dirty;  /* server->dirty, when dirty */
	TAILQ_ENTRY(tg_link) on_failed; /* server->failed */
	enum tgl_link_state state;
	bool dirty;
	bool protocol_error;
	bool ping_sent; /* and nothing heard since */
	bool pong_due;
	bool shut;       /* write side shut down */
	uint32_t events; /* what epoll was told */
	void *data;
	uint64_t since_ms; /* of the state */
	uint64_t heard_ms;
	uint64_t pong;
	char why[TGL_WHY_LEN];

	/* from the gateway's HELLO */
	char name[TG_LINK_NAME_MAX + 1];
	uint16_t worker;
	uint32_t features, session_window, link_window, payload_max, message_max;

	uint32_t credit;           /* link credit to send */
	struct link_window window; /* what the gateway may send */
	struct tgl_buf in, out;

	struct tgl_sessions sessions;
	struct tgl_sessions ready;
	struct tg_link_session **table; /* by id, chained; a power of two of buckets */
	unsigned table_bits, n_sessions;
};

TAILQ_HEAD(tgl_links, tg_link);

struct tgl_listener {
	struct tgl_source source;
	struct tgl_listener *next;
	/* A Unix socket is removed from the file system at the end, if it is still ours. */
	bool is_unix;
	uint64_t dev, ino;
	bool paused; /* out of descriptors or memory: tried again at the next tick */
	char text[]; /* address, with the port in use */
};

struct tg_link_server {
	struct tg_link_server_opts opts; /* defaults filled in */
	struct tg_link_ops ops;
	char name[TG_LINK_NAME_MAX + 1];
	int epoll_fd;
	struct tgl_source wake, tick;
	bool woken;   /* the eventfd is set */
	bool ticking; /* the timerfd is armed */
	bool dispatching;
	bool draining;
	uint32_t drain_grace_ms;
	uint64_t now_ms;
	unsigned tick_ms;
	struct tgl_listener *listeners;
	struct tgl_links links; /* all that are not dead */
	struct tgl_links dead;
	struct tgl_links dirty;
	struct tgl_links failed;
	unsigned n_links; /* awaiting HELLO or up */
	struct tgl_sessions ended;
	struct tgl_sessions writable;
	struct tg_link_stats stats;
};

/* server.c */
uint64_t tgl_now_ms(void);
/* There is work for dispatch: makes the server's descriptor readable. */
void tgl_wake(struct tg_link_server *server);
/* Owed call-backs: on_writable, on_close, on_link_down. From dispatch and destroy only. */
void tgl_notify(struct tg_link_server *server);
/* Arms or disarms the periodic tick, which runs while there are links or a paused listener. */
void tgl_tick_update(struct tg_link_server *server);

/* listen.c */
void tgl_listener_ready(struct tg_link_server *server, struct tgl_listener *l);
void tgl_listener_resume(struct tg_link_server *server, struct tgl_listener *l);
/* Closes them; an event of this round may still name them, so their memory goes with the server. */
void tgl_listeners_close(struct tg_link_server *server);
void tgl_listeners_free(struct tg_link_server *server);

/* link.c */
int tgl_link_create(struct tg_link_server *server, int fd, struct tg_link **ret);
void tgl_link_free(struct tg_link *l);
/* Closes the descriptor; the memory goes at the end of dispatch. */
void tgl_link_kill(struct tg_link *l);
/* Room for n bytes at the end of the out buffer, to be committed; NULL: out of memory, the link has
 * failed. */
uint8_t *tgl_out_reserve(struct tg_link *l, size_t n);
/* n bytes, one frame, were written there. */
void tgl_out_commit(struct tg_link *l, size_t n);
/* Has dispatch flush the link. */
void tgl_dirty(struct tg_link *l);
/* Ends the link: sends an ERROR (error < 0: none), ends its sessions. No effect on a link that has
 * failed already. */
__attribute__((format(printf, 4, 5))) void tgl_fail(
	struct tg_link *l, int error, bool protocol_error, const char *fmt, ...);
void tgl_readable(struct tg_link *l);
void tgl_flush(struct tg_link *l);
/* Once a tick: time-outs and pings. */
void tgl_link_tick(struct tg_link *l);
/* After on_link_down: the link goes on without its service, until its ERROR is across or time is
 * up. */
void tgl_linger(struct tg_link *l);

/* frames.c: one whole frame; the link may have failed afterwards. */
void tgl_frame(struct tg_link *l, const struct link_header *h, const uint8_t *payload);

/* session.c */
struct tg_link_session *tgl_session_find(const struct tg_link *l, uint64_t id);
/* In the table, TGL_OPENING. NULL: out of memory. */
struct tg_link_session *tgl_session_create(
	struct tg_link *l, uint64_t id, const uint8_t *meta, size_t meta_len);
void tgl_session_free(struct tg_link_session *s);
/* Out of the table and onto server->ended; unsent messages are dropped. reason need not be
 * NUL-terminated. */
void tgl_session_end(struct tg_link_session *s, enum tg_link_end by, uint16_t code,
	const char *reason, size_t len);
/* Sends CLOSE at once, dropping what is queued: a limit of ours was broken. */
void tgl_session_abort(struct tg_link_session *s, uint16_t code, const char *reason);
/* Puts a session with something to send on the ready list, if its credit allows. */
void tgl_session_ready(struct tg_link_session *s);
void tgl_session_unready(struct tg_link_session *s);
/* Puts the next frame of a ready session into the out buffer. False: link credit is used up, or the
 * link failed. */
bool tgl_session_stage(struct tg_link_session *s);
/* cost was consumed: grants it when due. */
void tgl_session_credit(struct tg_link_session *s, uint32_t cost);
/* Consumes `bytes` of payload delivered, and, once nothing delivered is left, the parts of a
 * message in progress (which must be able to arrive in full even when it is longer than the
 * window). */
void tgl_session_consume(struct tg_link_session *s, uint64_t bytes);

/* meta.c: the work behind tg_link_session_meta. json is NUL-terminated. */
ssize_t tgl_json_string(
	const char *json, const char *object, const char *key, char *out, size_t out_size);

#pragma GCC visibility pop

#endif
