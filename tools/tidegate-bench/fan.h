/* The fan-out workload: subscribers of one topic and a publisher, over the hub protocol.
 * fan_load.c is what the threads do, fan.c the steps of measuring it; fanout.c and slow.c are the
 * commands.
 *
 * Publications are numbered over all phases of a run; each phase has the same number, the first
 * ones of which warm up. Publication n is due at a fixed point in time whatever the server does,
 * and latency counts from there.
 *
 * Order, in the controlling thread: fill in opts, phases and rate, fan_create, fan_open, fan_phase
 * once per phase, fan_stop, fan_collect as often as wanted, fan_destroy.
 */
#ifndef TIDEGATE_BENCH_FAN_H
#define TIDEGATE_BENCH_FAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hist.h"
#include "control.h"
#include "load.h"

enum {
	FAN_PHASES_MAX = 3,
	FAN_SIZE_MAX = 32768,           /* of a publication's data: one send holds its frame */
	FAN_PUBLICATIONS_MAX = 1 << 20, /* of a run: each costs some bytes in every thread */
	FAN_SUBSCRIBE_MAX = 256,
};

struct fan_thread;

struct fan {
	struct bench_options opts; /* connections: subscribers; size_bytes: of the data */
	unsigned phases;
	double rate;    /* publications per second */
	unsigned count; /* of a phase; 0: what rate and opts make of it */

	unsigned warm; /* the first of a phase, which are not measured */
	char topic[32];
	char subscribe[FAN_SUBSCRIBE_MAX];
	char *publish; /* JSON text with the number at number_at */
	size_t subscribe_len, publish_len, number_at;
	struct load_ops subscriber_ops;
	struct load *subscribers, *publisher;
	struct fan_thread *threads; /* of the subscribers */
	_Atomic uint64_t *due_ns;   /* by publication */
	_Atomic uint64_t run_ns;    /* when the first publication of the phase is due */
	_Atomic uint64_t allowed;   /* publications up to the end of the phase */
	_Atomic uint64_t published;
	unsigned phase; /* the next one */
};

/* One publication in the eyes of one thread. */
struct fan_publication {
	uint64_t last_ns; /* its last delivery */
	uint32_t deliveries;
};

/* One thread of subscribers. The sums are exact after load_stop(), and so is what has no _Atomic.
 */
struct fan_thread {
	struct fan *fan;
	bool deaf;        /* they stop reading once they have subscribed */
	size_t number_at; /* where the last message had its number: very likely the next one too */
	_Atomic uint64_t subscribed, delivered;
	_Atomic uint64_t missed; /* by gaps in the numbers: known once a later one has come */
	struct hist *latency_ns; /* by phase; all deliveries */
	struct fan_publication *publications;
};

/* ---- fan_load.c ---- */

/* Makes the messages: 0 or -ENOMEM. fini takes what is half made. */
int fan_messages_init(struct fan *f);
void fan_messages_fini(struct fan *f);
struct load_ops fan_subscriber_ops(void);
extern const struct load_ops fan_publisher_ops;

/* ---- fan.c ---- */

/* 0, or -errno after a message; destroy takes what is half made. */
int fan_create(struct fan *f);
void fan_destroy(struct fan *f);

/* Connects and subscribes all, then connects the publisher: 0, or -errno after a message. */
int fan_open(struct fan *f);
/* Waits for subscriptions, sum over threads, to reach what has connected: 0, or -errno after a
 * message. */
int fan_subscribed(struct load *l, const struct fan_thread *threads, unsigned n_threads);

struct fan_phase {
	struct control_sample before, after; /* of the measured part and the wait for its end */
	uint64_t delivered;                  /* between these two */
	double seconds;
};

/* Publishes one phase from run_ns on, which leaves time to start other load, and waits for what is
 * due; watch(), if given, is called ten times a second. 0, or -errno after a message. */
int fan_phase(
	struct fan *f, uint64_t run_ns, void (*watch)(void *ctx), void *ctx, struct fan_phase *ret);
/* When the measured part of a phase that runs from run_ns on begins and ends. */
void fan_phase_times(
	const struct fan *f, uint64_t run_ns, uint64_t *ret_from_ns, uint64_t *ret_to_ns);

void fan_stop(struct fan *f);

/* After fan_stop(). */
struct fan_result {
	struct hist latency_ns;            /* of all deliveries */
	struct hist last_ns;               /* until a publication had reached every subscriber */
	uint64_t publications, incomplete; /* incomplete: somebody did not get it */
};

void fan_collect(const struct fan *f, unsigned phase, struct fan_result *ret);
/* Deliveries that should have been and were not, in all phases. */
uint64_t fan_missing(const struct fan *f);
/* Failures that count against --max-errors: connections and missing deliveries. `s` as of before
 * fan_stop(). */
uint64_t fan_errors(const struct fan *f, const struct load_totals *s);

/* What the publisher heard that it should not have, if anything. After fan_stop(). */
void fan_report_publisher(const struct fan *f, json_t *j);
/* "p50 1.0, p99 2.0, max 3.0 ms", in the table and as an object of microseconds. */
void fan_report_latency(const char *label, const struct hist *h, json_t *j, const char *key);

#endif
