/* The steps that commands share, and how they talk to people. The controlling thread only. */
#ifndef TIDEGATE_BENCH_CONTROL_H
#define TIDEGATE_BENCH_CONTROL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/hist.h"
#include "load.h"
#include "options.h"
#include "procstat.h"

/* Subcommands; argv[0] is the subcommand's name. Return an enum bench_exit. */
int cmd_echo(int argc, char **argv);
int cmd_hold(int argc, char **argv);
int cmd_fanout(int argc, char **argv);
int cmd_slow(int argc, char **argv);
int cmd_storm(int argc, char **argv);

/* Makes SIGINT and SIGTERM end the measurement early, with a report. */
void control_catch_signals(void);
bool control_interrupted(void);

/* Starts the threads and waits, with progress, until each connection is open or has failed, none
 * has opened for the time of --timeout (the report counts the rest), or a signal came. -errno,
 * after a message, when a thread cannot work or not one connection opened; the threads have been
 * stopped then. */
int control_open(struct load *l);

/* Sleeps until a point of CLOCK_MONOTONIC or a signal; once a second calls progress(), if given and
 * not --quiet. */
void control_until(const struct load *l, uint64_t until_ns, void (*progress)(void *ctx), void *ctx);

/* One progress line on stderr; on a terminal it takes the place of the one before. Nothing under
 * --quiet. */
__attribute__((format(printf, 2, 3))) void control_progress(
	const struct bench_options *o, const char *fmt, ...);
/* Ends a progress line that a terminal still shows. */
void control_progress_end(const struct bench_options *o);

/* One line of the table. */
__attribute__((format(printf, 2, 3))) void control_row(const char *label, const char *fmt, ...);
/* 1234567 as "1,234,567"; buf holds at least 32 bytes. */
const char *control_thousands(char *buf, uint64_t v);

/* The server and this program over a measured phase. */
struct control_sample {
	uint64_t at_ns, own_cpu_us;
	struct procstat server;
};

/* 0, or -errno after a message: a process of --pid is gone or may not be read. */
int control_sample(const struct bench_options *o, struct control_sample *ret);

/* Connections that never opened, those that did not even fail among them, and those lost. */
uint64_t control_failed(const struct load *l, const struct load_totals *s);
/* The row and the JSON members that every command has: connections, failures and why. `s` as of
 * before load_stop(). */
void control_report(const struct load *l, const struct load_totals *s, json_t *j);
/* Prints the JSON object when --json asks for it, and drops it. */
void control_json(const struct bench_options *o, json_t *j);

#endif
