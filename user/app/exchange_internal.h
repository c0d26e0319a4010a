/* Shared by the files of app/exchange*.c only. */
#ifndef TIDEGATE_APP_EXCHANGE_INTERNAL_H
#define TIDEGATE_APP_EXCHANGE_INTERNAL_H

#include "app/exchange.h"
#include "core/job.h"

enum exchange_kind {
	EXCHANGE_INTEREST, /* worker -> home: so many hear it */
	EXCHANGE_CONFIRM,  /* home -> worker: that INTEREST again */
	EXCHANGE_PUBLISH,  /* publisher's worker -> home */
	EXCHANGE_DELIVER,  /* home -> worker: the same */
	EXCHANGE_ASK,      /* worker -> home: how many? */
	EXCHANGE_ANSWER,   /* home -> worker: that ASK again */
	EXCHANGE_CREDIT,   /* without a message: done with so much of a pipe */
};

/* Who asked for something that takes time; it may be gone by then. */
struct exchange_asker {
	uint64_t session;
	uint32_t slot;
	uint8_t ring;
};

/* From malloc, since it moves between threads; name, then data behind it. */
struct exchange_msg {
	struct exchange_msg *next;
	uint8_t kind; /* enum exchange_kind */
	uint8_t form; /* enum exchange_form */
	uint8_t from; /* worker */
	uint8_t topic_len;
	uint32_t len; /* of data; of the id of an ASK */
	union {
		struct {
			struct topic *topic; /* of the worker that sent it */
			uint32_t count;
		} interest;
		struct {
			struct exchange_asker asker;
			uint64_t count;
		} ask;
		uint64_t serial; /* DELIVER, at its worker */
	};
	char topic[];
};

static inline char *exchange_data(struct exchange_msg *m)
{
	return m->topic + m->topic_len;
}

static inline uint32_t exchange_cost(const struct exchange_msg *m)
{
	return (uint32_t)sizeof *m + m->topic_len + m->len;
}

struct exchange_fifo {
	struct exchange_msg *head, **tail;
};

void exchange_fifo_init(struct exchange_fifo *f);
void exchange_fifo_push(struct exchange_fifo *f, struct exchange_msg *m);
struct exchange_msg *exchange_fifo_pop(struct exchange_fifo *f);
void exchange_fifo_clear(struct exchange_fifo *f);

/* The two steps of a publication, each with a window of its own: else two workers could wait for
 * each other. */
enum exchange_step {
	EXCHANGE_TO_HOME,
	EXCHANGE_TO_WORKER,
	EXCHANGE_STEPS,
};

/* Towards one worker, in one step. */
struct exchange_pipe {
	struct exchange_fifo waiting;
	uint64_t flight_bytes; /* sent, and not given back */
	uint32_t flight_messages;
	/* In the other direction: done with, and not told yet. */
	uint64_t owed_bytes;
	uint32_t owed_messages;
};

struct exchange_peer {
	struct exchange_fifo control; /* INTEREST, CONFIRM, ANSWER: one per topic or ASK at most */
	struct exchange_pipe pipe[EXCHANGE_STEPS];
	struct topic_pause *paused; /* publishers */
};

/* What a worker keeps with each topic it hears or that fans out. */
struct exchange_topic {
	struct topic *late_next;
	struct exchange_waiter *waiters, *waiters_tail;
	struct exchange_flow *flow;
	uint32_t told, confirmed; /* counts: the last INTEREST's, and that of the last CONFIRM */
	bool asking;              /* an INTEREST has not been confirmed */
	bool late;                /* on ex->late */
};

/* A subscriber who wants to know. */
struct exchange_waiter {
	struct exchange_waiter *next;
	struct exchange_asker asker;
	uint32_t id_len;
	char id[];
};

enum {
	FLOW_FORMS = 2, /* plain or the hub's JSON */
	FLOW_PROTOCOLS = 2,
};

/* A topic's messages that fan out, one after the other. */
struct exchange_flow {
	struct exchange_flow *next; /* ex->flows: those with work take turns */
	struct topic *topic, *pattern;
	struct exchange_fifo messages; /* the first is under way */
	struct topic_mark mark;
	enum {
		FLOW_BEGIN,
		FLOW_EXACT,
		FLOW_PATTERN,
		FLOW_SWEEP,
	} state;
	struct frame *frame[FLOW_FORMS][FLOW_PROTOCOLS]; /* made when first needed */
	bool failed[FLOW_FORMS][FLOW_PROTOCOLS];         /* no memory for it */
};

struct exchange {
	struct net *net;
	struct worker *w;
	struct exchange_opts opts;
	unsigned self;
	struct exchange_peer *peer; /* opts.peers->n, our own included */
	struct topic_index index;
	uint64_t serial; /* of the last message that began to fan out here */

	struct topic *late, **late_tail; /* topics whose count is to be told later */
	struct job late_job;
	bool late_armed;
	struct job retry;
	bool retry_armed;

	/* As a home. */
	struct hashtab home;
	size_t home_patterns;
	struct exchange_fifo inbox; /* publications that wait for room towards a worker */

	uint64_t waiting_bytes; /* in the pipes to homes */
	struct slab flows_slab;
	struct exchange_flow *flows, *flows_tail;
	struct job fanout;
	unsigned sent; /* by it in this turn */
	char *scratch; /* a message being written for hub clients */
	size_t scratch_bytes;
};

static inline struct tg_worker_stats *exchange_stats(const struct exchange *ex)
{
	return ex->net->stats;
}

static inline struct exchange_topic *exchange_topic(struct topic *t)
{
	return topic_extra(t);
}

/* exchange.c */
unsigned exchange_home_of(const struct exchange *ex, const char *topic, size_t len);
struct exchange_msg *exchange_msg_new(enum exchange_kind kind, unsigned from, const char *topic,
	size_t topic_len, const void *data, size_t len);
/* A message that needs no credit; m moves. */
void exchange_control(struct exchange *ex, unsigned to, struct exchange_msg *m);
/* True when the pipe takes a message of this cost now. */
bool exchange_has_room(
	const struct exchange *ex, unsigned to, enum exchange_step step, uint32_t cost);
/* Puts it into the pipe; m moves. */
void exchange_send(
	struct exchange *ex, unsigned to, enum exchange_step step, struct exchange_msg *m);
/* Done with a message that worker `from` sent in that step. */
void exchange_done(struct exchange *ex, unsigned from, enum exchange_step step, uint32_t cost);
/* Tries again what found no room, soon. */
void exchange_retry_later(struct exchange *ex);

/* exchange_interest.c */
void exchange_on_confirm(struct exchange *ex, struct exchange_msg *m);
void exchange_on_answer(struct exchange *ex, struct exchange_msg *m);
void exchange_interest_init(struct exchange *ex);
void exchange_interest_fini(struct exchange *ex);
/* Tells the home at once what was to be told later. */
void exchange_tell_now(struct exchange *ex, const char *topic, size_t len);
void exchange_topic_release(struct exchange *ex, struct topic *t);

/* exchange_home.c; 0 or -ENOMEM */
int exchange_home_init(struct exchange *ex);
void exchange_home_fini(struct exchange *ex);
void exchange_on_interest(struct exchange *ex, struct exchange_msg *m);
void exchange_on_publish(struct exchange *ex, struct exchange_msg *m);
void exchange_on_ask(struct exchange *ex, struct exchange_msg *m);
/* Passes on what waited. */
void exchange_home_flush(struct exchange *ex);

/* exchange_fanout.c */
void exchange_fanout_init(struct exchange *ex);
void exchange_fanout_fini(struct exchange *ex);
void exchange_on_deliver(struct exchange *ex, struct exchange_msg *m);

#endif
