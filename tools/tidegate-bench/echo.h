/* The echo workload: what its threads do (echo_load.c), and the steps of measuring it (echo.c),
 * which fanout also takes.
 *
 * Order, in the controlling thread: fill in opts and the settings, echo_create, control_open on
 * load, echo_run, wait for to_ns, echo_drain, load_stop on load, echo_collect, echo_destroy. */
#ifndef TIDEGATE_BENCH_ECHO_H
#define TIDEGATE_BENCH_ECHO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hist.h"
#include "load.h"

enum {
	SLICES_BYTES = 16384, /* slices begin at every fourth byte of so many; stays in the cache */
	DEPTH_MAX = 4096,
	HOG_SEND_BYTES = 4096, /* of one send: short, since a kernel may not preempt it */
};

struct echo {
	struct bench_options opts;
	unsigned depth, hogs;
	double rate; /* messages per second, all connections together; 0: closed loop */
	bool text, urgent;

	struct load *load;
	struct load_ops ops;
	uint8_t *plain, *wire; /* SLICES_BYTES + size: the random text, and the same masked */
	uint8_t header[WS_HEADER_MAX];
	size_t header_len, frame_len;
	uint8_t hog_frames[HOG_SEND_BYTES], hog_answers[HOG_SEND_BYTES]; /* tiny ones in a row */
	size_t hog_frames_len, hog_answers_len, hog_answer_len;
	/* Load begins, measuring begins, ends; set before LOAD_PHASE_RUN. What counts from split_ns
	 * on is kept apart; 0: nothing. */
	uint64_t run_ns, from_ns, to_ns, split_ns;
	struct echo_thread *threads;
	unsigned n_threads, n_conns; /* without the hogs' */
};

/* One thread's part. The connections' sums are exact after load_stop(). */
struct echo_thread {
	struct echo *echo;
	bool started;
	uint64_t next;                    /* open loop: number of the next message */
	struct hist latency_ns, later_ns; /* before split_ns, and after */
	struct hist behind_ns; /* how late messages due after split_ns were begun: not the server's
				  doing */
	_Atomic uint64_t sent, received, lost;
};

/* One connection's part, the workload's state in the engine. */
struct echo_conn {
	uint32_t due;    /* messages to be sent, the one begun included */
	uint32_t out_at; /* bytes of the frame begun that have been handed over */
	uint32_t in_at;  /* bytes of the message coming in */
	uint32_t sent, received;
	uint64_t sent_ns[]; /* closed loop: of the last `depth` messages */
};

/* 0 or -errno; destroy takes what is half made. */
int echo_create(struct echo *e);
void echo_destroy(struct echo *e);
/* Load from run_ns on; measured is what opts.warmup_s and duration_s say. */
void echo_run(struct echo *e, uint64_t run_ns);
/* Nothing new is sent; waits a while for answers that are due. */
void echo_drain(struct echo *e);

struct echo_sums {
	uint64_t sent, received, lost, hog;
};

struct echo_sums echo_sums(const struct echo *e);
/* After load_stop(): latencies (ret_later_ns, of what came after split_ns, may be NULL), and
 * messages without an echo, those of lost connections included; what was never answered is as late
 * as it has become, and counts as such. */
void echo_collect(struct echo *e, struct hist *ret_latency_ns, struct hist *ret_later_ns,
	uint64_t *ret_unanswered);

/* Makes the payloads and frames of opts, text and depth: 0 or -ENOMEM. fini takes what is half
 * made. */
int echo_messages_init(struct echo *e);
void echo_messages_fini(struct echo *e);

/* The well-behaved connections' part and the hogs'; each thread's `work` is its struct echo_thread.
 */
struct load_ops echo_ops(const struct echo *e);
extern const struct load_ops echo_hog_ops;

/* Which of the thread's histograms a message belongs to. */
struct hist *echo_hist(struct echo_thread *et, uint64_t counts_ns);

/* When the connection's next message to be answered was meant to go out (open loop) or went out. */
uint64_t echo_sent_at(
	const struct load_thread *t, const struct load_conn *c, const struct echo_conn *ec);

#endif
