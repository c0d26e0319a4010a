/* How the reference service treats its sessions. Everything runs in the thread that dispatches. */
#ifndef TIDEGATE_SERVICE_MODES_H
#define TIDEGATE_SERVICE_MODES_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "tidegate/link.h"

enum mode_kind {
	MODE_ECHO,
	MODE_UPPERCASE, /* ASCII letters */
	MODE_DELAY,     /* echo after delay_ms */
	MODE_HANG,      /* takes every message, never answers */
	MODE_REJECT,    /* refuses the session with `status` */
	MODE_STALL,     /* accepts, then grants no credit any more */
	MODE_SILENT,    /* never answers OPEN */
	MODE_TOPICS,    /* subscribes the session to a topic and publishes there what it says */
};

struct mode {
	enum mode_kind kind;
	uint32_t delay_ms;
	uint16_t status;
};

/* A reply that waits for its time, or for room in the session's queue. */
struct reply {
	TAILQ_ENTRY(reply) on_line;   /* while it waits for its time */
	TAILQ_ENTRY(reply) on_client; /* in order */
	struct client *client;
	uint64_t due_ms;
	bool waiting; /* on_line */
	bool text;
	size_t topic_len; /* not 0: data begins with a topic to be published to */
	size_t consumes;  /* bytes of the message it answers */
	size_t len;
	uint8_t data[];
};

TAILQ_HEAD(replies, reply);

/* Replies of one delay are due in the order they came. */
struct line {
	uint32_t delay_ms;
	struct replies replies;
};

enum {
	LINES_MAX = 32, /* different delays at a time */
};

TAILQ_HEAD(blocked, client);

struct modes {
	struct mode mode;
	bool per_session; /* ?mode=… of the query, or the path's last part, goes before `mode` */
	bool commands;
	const char *name;
	struct line lines[LINES_MAX];
	unsigned n_lines;
	struct blocked blocked; /* clients with a publication that waits for link credit */
};

/* "echo", "uppercase", "delay:MS" (up to an hour), "hang", "reject", "reject:STATUS", "stall",
 * "silent", "topics". False: none of them. */
bool mode_parse(const char *text, size_t len, struct mode *ret);

void modes_init(struct modes *m);

/* ctx of these call-backs is a struct modes, zeroed but for its options. */
extern const struct tg_link_ops modes_ops;

/* Sends what is due; returns ms until more is, or -1. */
int modes_run(struct modes *m, uint64_t now_ms);

uint64_t modes_now_ms(void);

#endif
