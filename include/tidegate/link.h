/* The link protocol: one TCP or Unix stream connection from a gateway worker to a service, carrying
 * many sessions; and libtidegate-link, the C library with which a service takes part in it.
 * docs/link-protocol.md explains both.
 *
 * The gateway connects, the service listens. Every frame is
 *
 *     u32 length     of the payload
 *     u8  type       enum tg_link_type
 *     u8  flags      enum tg_link_flags, those of the type; all others 0
 *     u16 reserved   0
 *     u64 session    0: the link itself
 *     ...            payload, length bytes
 *
 * All integers are in network byte order, all text is UTF-8 and not NUL-terminated. Whoever
 * receives a frame that breaks a rule answers with ERROR and ends the link. This header is C11 and
 * C++.
 */
#ifndef TIDEGATE_LINK_H
#define TIDEGATE_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------ wire format */

/* Raised by any change an older peer would misread. The header, and magic and version of HELLO,
 * never change. */
#define TG_LINK_VERSION 1
#define TG_LINK_MAGIC   UINT32_C(0x54474c4b) /* "TGLK" */

enum {
	TG_LINK_HEADER_LEN = 16,
	/* A longer message is split, so that no session holds a link up. */
	TG_LINK_MESSAGE_PAYLOAD_MAX = 32 * 1024,
	/* The least payload_max a HELLO may announce. */
	TG_LINK_MESSAGE_PAYLOAD_MIN = 4 * 1024,
	/* Metadata of OPEN. */
	TG_LINK_OPEN_MAX = 64 * 1024,
	/* Payload of a HELLO of any version. */
	TG_LINK_HELLO_MAX = 1024,
	/* Name in HELLO: printable ASCII but for space, quotation mark and backslash. */
	TG_LINK_NAME_MAX = 63,
	/* One token of RFC 9110 5.6.2. */
	TG_LINK_SUBPROTOCOL_MAX = 255,
	/* What a WebSocket close frame can carry, RFC 6455 5.5.1. */
	TG_LINK_REASON_MAX = 123,
	/* No control characters. */
	TG_LINK_TOPIC_MAX = 255,
	/* Of a window; the greatest also of the credit a sender may hold at any time: 1 GiB. */
	TG_LINK_WINDOW_MIN = 4 * 1024,
	TG_LINK_WINDOW_MAX = 1 << 30,
};

/* Direction: G gateway to service, S service to gateway. Sizes are of the payload. */
enum tg_link_type {
	/* G S, session 0, the first frame of each side, sent without waiting for the other's:
	 *   u32 magic, TG_LINK_MAGIC
	 *   u16 version, TG_LINK_VERSION
	 *   u16 worker, of the gateway; a service sends 0
	 *   u32 session_window, of what comes to the sender of this HELLO: WINDOW_MIN..WINDOW_MAX
	 *   u32 link_window, the same for all sessions together
	 *   u32 payload_max, largest MESSAGE it takes: MESSAGE_PAYLOAD_MIN..MESSAGE_PAYLOAD_MAX
	 *   u32 message_max, longest whole message it takes, at least 1; a longer one is 1009
	 *   u32 features, enum tg_link_features; unknown bits are ignored
	 *   name, the rest, 1..63: instance of the gateway, name of the service
	 * A gateway sends nothing after its HELLO before it has the service's. */
	TG_LINK_HELLO = 1,
	/* G, a new session: metadata, one JSON object, 2..65536. Flag RESUMED. The id was not open
	 * on this link before. */
	TG_LINK_OPEN = 2,
	/* S, answers OPEN: the subprotocol chosen from those offered, or empty. */
	TG_LINK_ACCEPT = 3,
	/* S, answers OPEN, the session is over: u16 HTTP status, 400..599 | reason, 0..123. */
	TG_LINK_REJECT = 4,
	/* G S, after ACCEPT: a message or a part of one, 0..payload_max. Flags TEXT, the same in
	 * all parts, and MORE on all but the last. A part with MORE is not empty. Costs its payload
	 * and its header, of both windows. */
	TG_LINK_MESSAGE = 5,
	/* G S, the session is over, at once and both ways, without an answer:
	 *   u16 code of RFC 6455 7.4 (S: one that may be sent; G: 1005 and 1006 as well)
	 *   u32 reconnect delay in ms the client is advised to wait, 0: none | reason, 0..123 */
	TG_LINK_CLOSE = 6,
	/* S, this session hears the topic, or no longer does: topic, 1..255. */
	TG_LINK_SUBSCRIBE = 7,
	TG_LINK_UNSUBSCRIBE = 8,
	/* S, session 0: u8 topic length, 1..255 | topic | message, 0..32768. Flag TEXT. Costs its
	 * payload and its header, of the link window only. */
	TG_LINK_PUBLISH = 9,
	/* G S, u32 bytes, 1..TG_LINK_WINDOW_MAX, that the other side may send in addition; session
	 * 0: of the link window, else of this session's. */
	TG_LINK_CREDIT = 10,
	/* G S, session 0: 8 bytes, returned by a PONG. Of several PINGs at hand only the newest
	 * needs an answer. */
	TG_LINK_PING = 11,
	TG_LINK_PONG = 12,
	/* G S, session 0: u32 ms the sender means to wait for sessions to end. No new sessions on
	 * this link, please: an OPEN that was under way is answered with REJECT 503. */
	TG_LINK_DRAIN = 13,
	/* G S, session 0, the last frame of its sender: u16 enum tg_link_error | reason, 0..123. */
	TG_LINK_ERROR = 14,
};

enum tg_link_flags {
	/* MESSAGE, PUBLISH: UTF-8; else binary. */
	TG_LINK_FLAG_TEXT = 0x01,
	/* MESSAGE: the message goes on in this session's next MESSAGE. */
	TG_LINK_FLAG_MORE = 0x02,
	/* OPEN: the session was open on another link before. */
	TG_LINK_FLAG_RESUMED = 0x04,
};

enum tg_link_features {
	/* G: SUBSCRIBE, UNSUBSCRIBE and PUBLISH have an effect; without it they have none. */
	TG_LINK_FEATURE_TOPICS = 0x01,
};

enum tg_link_error {
	TG_LINK_ERROR_NONE = 0,     /* an orderly end */
	TG_LINK_ERROR_PROTOCOL = 1, /* a malformed or unexpected frame */
	TG_LINK_ERROR_VERSION = 2,  /* not TG_LINK_MAGIC, or another version */
	TG_LINK_ERROR_FLOW = 3,     /* sent without credit, or credit above TG_LINK_WINDOW_MAX */
	TG_LINK_ERROR_TIMEOUT = 4,  /* no HELLO in time, or silence after a PING */
	TG_LINK_ERROR_REFUSED = 5,  /* no more links are wanted */
	TG_LINK_ERROR_INTERNAL = 6, /* the sender is out of memory, or such */
};

/* ---------------------------------------------------------------------------------- library
 *
 * A server owns listeners, links and sessions. It has no threads and no locks: all calls for one
 * server come from one thread, call-backs run in that thread, inside tg_link_server_dispatch and
 * tg_link_server_destroy and nowhere else. No call blocks but dispatch, for as long as it was told
 * to. SIGPIPE is never raised. Functions return 0 or -errno.
 *
 *     static void on_message(void *ctx, struct tg_link_session *s, const void *data,
 *                            size_t len, bool text)
 *     {
 *             tg_link_send(s, data, len, text);
 *     }
 *
 *     static const struct tg_link_ops ops = { .on_message = on_message };
 *     struct tg_link_server_opts opts = { .name = "echo", .ops = &ops };
 *     struct tg_link_server *server;
 *     if (tg_link_server_create(&opts, &server) || tg_link_server_listen(server, "127.0.0.1:9300"))
 *             ...
 *     while (!stop)
 *             tg_link_server_dispatch(server, 1000);
 *     tg_link_server_destroy(server);
 *
 * Inside another event loop: poll tg_link_server_fd() for reading and dispatch with a timeout of 0.
 */

struct tg_link_server;
struct tg_link;         /* valid from on_link_up until on_link_down has returned */
struct tg_link_session; /* valid from on_open until on_close has returned */

/* Who ended a session. */
enum tg_link_end {
	/* CLOSE came: the client or the gateway ended it. */
	TG_LINK_END_GATEWAY,
	/* tg_link_close or tg_link_reject, or a limit of this server. */
	TG_LINK_END_SERVICE,
	/* The link went down; the gateway may resume the session elsewhere, or here. */
	TG_LINK_END_LINK,
};

struct tg_link_close_info {
	enum tg_link_end by;
	/* Of CLOSE; the status of REJECT; 1006 when the link went down. */
	uint16_t code;
	/* NUL-terminated, never NULL; valid during the call-back. */
	const char *reason;
	/* Whole messages given to on_message; whole messages put on the link. */
	uint64_t messages_in, messages_out;
};

/* Call-backs; each may be NULL. They may call every function below except dispatch and destroy. */
struct tg_link_ops {
	/* Both HELLOs are exchanged. */
	void (*on_link_up)(void *ctx, struct tg_link *link);
	/* The link is gone; on_close was called for each of its sessions. why: for people, never
	 * NULL. Also called for a connection that never came up (tg_link_name is then "").
	 * protocol_error: the gateway broke the protocol. */
	void (*on_link_down)(void *ctx, struct tg_link *link, const char *why, bool protocol_error);
	/* A new session: answer with tg_link_accept or tg_link_reject, now or later. NULL: every
	 * session is accepted. */
	void (*on_open)(void *ctx, struct tg_link_session *s);
	/* A whole message of an accepted session. data is valid during the call-back. Text is UTF-8
	 * as the gateway checked it. */
	void (*on_message)(
		void *ctx, struct tg_link_session *s, const void *data, size_t len, bool text);
	/* The session is over; once for each session, whoever ended it. */
	void (*on_close)(
		void *ctx, struct tg_link_session *s, const struct tg_link_close_info *info);
	/* tg_link_send had answered -EAGAIN; now at most half of the queue's cap is used. */
	void (*on_writable)(void *ctx, struct tg_link_session *s);
	/* The gateway sent DRAIN: it will open no more sessions on this link. */
	void (*on_drain)(void *ctx, struct tg_link *link, uint32_t grace_ms);
};

/* 0 stands for the default, which is named first, in every number. */
struct tg_link_server_opts {
	/* Sent in HELLO; NULL: "service". As said at TG_LINK_NAME_MAX. Copied. */
	const char *name;
	/* Copied. ctx is the first argument of every call-back. */
	const struct tg_link_ops *ops;
	void *ctx;
	/* 256 KiB: bytes a session may send ahead of consumption; 4 KiB..1 GiB. */
	uint32_t session_window;
	/* 8 MiB: bytes a link may send ahead of being read; 4 KiB..1 GiB. */
	uint32_t link_window;
	/* 16 MiB: longest message taken. A longer one ends its session with 1009. */
	uint32_t message_max;
	/* 256 MiB: memory for messages that have not arrived in full, of all sessions together. The
	 * session that would go beyond it ends with 1013. */
	uint64_t assembly_max;
	/* 1 MiB: bytes one session may have queued. One message always fits an empty queue. */
	size_t send_queue_max;
	/* 1024: further ones get ERROR. */
	unsigned links_max;
	/* 1,000,000: further ones get REJECT 503. */
	unsigned sessions_max;
	/* 5,000: a link without HELLO for so long ends. */
	uint32_t hello_timeout_ms;
	/* 10,000: a link silent for so long gets a PING, … */
	uint32_t ping_interval_ms;
	/* 10,000: … and ends when it stays silent for so long after that. */
	uint32_t ping_timeout_ms;
	/* New sessions start in manual mode, see tg_link_session_set_manual. */
	bool manual_credit;
};

/* Counters since creation, but for the gauges. */
struct tg_link_stats {
	/* Gauges: links that are up; sessions open, those awaiting an answer included. */
	uint64_t links, sessions;
	/* Gauges: messages waiting to be put on a link; memory of partial messages. */
	uint64_t queued_bytes, assembly_bytes;
	uint64_t links_accepted, links_refused, links_down, protocol_errors;
	uint64_t opened, resumed, accepted, rejected, closed;
	/* Whole messages and their payload. */
	uint64_t messages_in, messages_out, bytes_in, bytes_out;
	uint64_t frames_in, frames_out;
	/* Frames of sessions already over, ignored. */
	uint64_t stale_frames;
	/* tg_link_send answered -EAGAIN. */
	uint64_t send_refused;
};

/* -EINVAL: an option is out of range or ops is NULL; -ENOMEM; or an errno of epoll_create1,
 * eventfd, timerfd_create. */
int tg_link_server_create(const struct tg_link_server_opts *opts, struct tg_link_server **ret);

/* Ends every link with ERROR_NONE, as far as the sockets take it without waiting, calls on_close
 * and on_link_down for all, removes its Unix sockets from the file system. NULL is allowed. */
void tg_link_server_destroy(struct tg_link_server *server);

/* Listens at "host:port", "[v6]:port", either with "tcp://" in front, or "unix:/path". Hosts are
 * numeric; port 0 lets the kernel choose. A Unix socket nobody listens at any more is replaced. May
 * be called several times. -EINVAL: malformed; -EADDRINUSE, -EACCES, …: as bind and listen say;
 * -ESHUTDOWN while draining. */
int tg_link_server_listen(struct tg_link_server *server, const char *address);

/* The index-th listener's address in the form above, with the port in use. 0, or -ENOENT, or
 * -ENOSPC. */
int tg_link_server_address(
	const struct tg_link_server *server, unsigned index, char *out, size_t out_size);

/* Takes over a connected stream socket (made non-blocking here) as a link. On failure it stays the
 * caller's: -EMFILE above links_max, -ESHUTDOWN while draining, -ENOMEM, or an errno of fcntl or
 * epoll_ctl. */
int tg_link_server_adopt(struct tg_link_server *server, int fd);

/* A descriptor that is readable whenever there is something to dispatch, time-outs included. Owned
 * by the server. */
int tg_link_server_fd(const struct tg_link_server *server);

/* Waits up to timeout_ms (-1: without limit, 0: not at all) for something to do, does one round of
 * it and returns how many descriptors had something; 0 after the timeout or a signal. -EBUSY:
 * called from a call-back. */
int tg_link_server_dispatch(struct tg_link_server *server, int timeout_ms);

/* Closes the listeners and sends DRAIN on all links; OPENs still under way are rejected with 503.
 * Sessions live on. */
int tg_link_drain(struct tg_link_server *server, uint32_t grace_ms);

void tg_link_server_stats(const struct tg_link_server *server, struct tg_link_stats *ret);

/* What the gateway said in HELLO; the name is "" and the rest 0 before that. */
const char *tg_link_name(const struct tg_link *link);
unsigned tg_link_worker(const struct tg_link *link);
uint32_t tg_link_features(const struct tg_link *link);
/* Sessions open on this link. */
unsigned tg_link_sessions(const struct tg_link *link);
void tg_link_set_data(struct tg_link *link, void *data);
void *tg_link_data(const struct tg_link *link);

/* Answers on_open. subprotocol: one the client offered, or NULL.
 * -EINVAL: not a token of 1..255 characters; -EALREADY: answered already; -EPIPE: the session is
 * ending. */
int tg_link_accept(struct tg_link_session *s, const char *subprotocol);

/* Answers on_open with a refusal; on_close follows. 503 lets the gateway try another endpoint.
 * reason: NULL or UTF-8, cut to 123 bytes. -EINVAL: status not 400..599 or reason not UTF-8;
 * -EALREADY, -EPIPE as above. */
int tg_link_reject(struct tg_link_session *s, uint16_t status, const char *reason);

/* Queues a message; the data is copied. It leaves as the session's and the link's credit allow.
 * text: data is UTF-8, which is the caller's duty. -EAGAIN: the queue's cap is reached, on_writable
 * will follow; -EMSGSIZE: above the gateway's message_max; -ENOTCONN: not accepted yet; -EPIPE: the
 * session is ending; -ENOMEM. */
int tg_link_send(struct tg_link_session *s, const void *data, size_t len, bool text);

/* Ends an accepted session behind the messages queued so far; on_close follows when CLOSE is on its
 * way. Messages that still arrive are discarded. code: 1000..1003, 1007..1014, 3000..4999. reason:
 * NULL or UTF-8, cut to 123 bytes. reconnect_delay_ms: hint for the client, 0: none. -EINVAL;
 * -ENOTCONN: not accepted (use tg_link_reject); -EPIPE. */
int tg_link_close(
	struct tg_link_session *s, uint16_t code, const char *reason, uint32_t reconnect_delay_ms);

/* Automatic mode (the default): a message is consumed when on_message has returned. Manual mode:
 * when the service says so with tg_link_consume; the gateway may then be ahead by session_window
 * bytes and, beyond them, by one message that came in parts. Takes effect with the next message;
 * turning manual mode off consumes what is outstanding. */
void tg_link_session_set_manual(struct tg_link_session *s, bool manual);

/* Manual mode: `bytes` of messages received are dealt with. -ERANGE: more than is outstanding
 * (nothing is consumed). An outstanding empty message is consumed by the call that consumes all
 * bytes, which may be 0. */
int tg_link_consume(struct tg_link_session *s, size_t bytes);

uint64_t tg_link_session_id(const struct tg_link_session *s);
struct tg_link *tg_link_session_link(const struct tg_link_session *s);
/* The session was open on another link before: see "Failover" in docs/link-protocol.md. */
bool tg_link_session_resumed(const struct tg_link_session *s);
/* Bytes queued by tg_link_send and not yet put on the link. */
size_t tg_link_session_queued(const struct tg_link_session *s);
void tg_link_session_set_data(struct tg_link_session *s, void *data);
void *tg_link_session_data(const struct tg_link_session *s);

/* The metadata of OPEN: one JSON object, NUL-terminated; *ret_len (may be NULL) is its length.
 * Valid as long as s. */
const char *tg_link_session_metadata(const struct tg_link_session *s, size_t *ret_len);

/* A string member of the metadata, unescaped and NUL-terminated: `key` of the object itself (object
 * == NULL), or of its member `object` ("headers", "user-agent"). Returns its length; -ENOENT:
 * absent or not a string; -ENOSPC: longer than out_size - 1; -EBADMSG: the metadata is not JSON as
 * far as it was read. out is untouched on failure. */
ssize_t tg_link_session_meta(const struct tg_link_session *s, const char *object, const char *key,
	char *out, size_t out_size);

/* Topics, for gateways that announce TG_LINK_FEATURE_TOPICS; -EOPNOTSUPP for others. -EINVAL: topic
 * not 1..255 bytes of UTF-8 without control characters; -ENOTCONN, -EPIPE as for tg_link_send. */
int tg_link_subscribe(struct tg_link_session *s, const char *topic);
int tg_link_unsubscribe(struct tg_link_session *s, const char *topic);
/* -EMSGSIZE: len above 32,768; -EAGAIN: the link's credit is used up (no call-back follows: try
 * later). */
int tg_link_publish(
	struct tg_link *link, const char *topic, const void *data, size_t len, bool text);

#ifdef __cplusplus
}
#endif

#endif
