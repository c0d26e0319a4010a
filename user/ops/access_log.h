/* The access log: one JSON line for a connection that has ended.
 *
 * Each worker has a ring of records of its own, which it fills without waiting; when that is full
 * the line is dropped and counted. One thread looks at the rings every ACCESS_LOG_TICK_MS, makes
 * lines and writes them, so a disk or a reader that stalls holds up nobody else. What cannot be
 * written is counted and said in the log.
 *
 * Call order: access_log_create, then access_log_put (each worker for itself) and access_log_reopen
 * (main thread), access_log_destroy after the last worker has ended: it writes what is left, but
 * waits for a reader that does not read no longer than ACCESS_LOG_END_MS.
 */
#ifndef TIDEGATE_OPS_ACCESS_LOG_H
#define TIDEGATE_OPS_ACCESS_LOG_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/stats.h"

enum {
	ACCESS_LOG_TICK_MS = 50,
	ACCESS_LOG_END_MS = 500, /* below KEEPER_STOP_MS */
	ACCESS_LOG_SUBJECT_MAX = 128,
	ACCESS_LOG_LINE_MAX = 4096, /* PIPE_BUF: a pipe takes it whole, beside lines of the log */
};

struct access_record {
	int64_t ended_unix_ms;
	uint64_t duration_us; /* since accept */
	uint64_t session;     /* 0: none */
	struct in6_addr peer; /* IPv4 mapped; the declared one behind a PROXY listener */
	uint16_t peer_port;   /* network order */
	uint16_t worker;
	uint16_t status, code;                /* as in net/account.h */
	const char *listener, *route, *error; /* static while the gateway lives; route "" and error
						 NULL: none */
	const char *protocol;                 /* "websocket", "raw" */
	uint64_t bytes_in, bytes_out;
	uint32_t messages_in, messages_out, dropped, run_delay_max_us;
	enum close_reason reason;
	bool opened;                          /* its handshake was completed */
	bool subject_cut;                     /* it is longer */
	uint8_t subject_len;                  /* 0: none */
	char subject[ACCESS_LOG_SUBJECT_MAX]; /* cut at any byte */
};

struct access_log_opts {
	int fd; /* a copy is made */
	unsigned n_workers;
	unsigned queue;                /* records a worker's ring holds; a power of two */
	struct tg_worker_stats *stats; /* of the workers: access_lines, … are counted there */
};

struct access_log;

/* 0 or -errno. Starts the thread. */
int access_log_create(const struct access_log_opts *opts, struct access_log **ret);
/* Worker thread `worker`; copies *r. */
void access_log_put(struct access_log *a, unsigned worker, const struct access_record *r);
/* From now on lines go to fd, which becomes the log's. */
void access_log_reopen(struct access_log *a, int fd);
void access_log_destroy(struct access_log *a); /* NULL is allowed */

/* The line with its newline, which is not NUL-terminated: at most ACCESS_LOG_LINE_MAX bytes of
 * ASCII; what a client chose is escaped by the rules of JSON. Its length; 0 without memory. */
size_t access_log_format(const struct access_record *r, char line[ACCESS_LOG_LINE_MAX]);

#endif
