/* The command line that all subcommands share, and what each may add to it. */
#ifndef TIDEGATE_BENCH_OPTIONS_H
#define TIDEGATE_BENCH_OPTIONS_H

#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

enum {
	BENCH_CPUS_MAX = 64,
	BENCH_PIDS_MAX = 16,
	BENCH_THREADS_MAX = 64,
	BENCH_CONNECTIONS_MAX = 10000000,
	BENCH_PER_SOURCE_MAX =
		10000, /* beyond half the port range each connect() searches for milliseconds */
	BENCH_SOURCES_MAX = 60000,
	BENCH_TOKEN_MAX = 2048,
	BENCH_OPTION_OWN = 1000, /* the first `val` of a subcommand's own options */
};

enum bench_exit {
	BENCH_OK,
	BENCH_FAILED,
	BENCH_USAGE,
};

struct bench_options {
	const char *command;
	const char *url;
	bool raw;       /* raw://, else ws:// */
	bool loopback4; /* the target is in 127.0.0.0/8: connections come from many source addresses
			 */
	struct sockaddr_storage target;
	socklen_t target_len;
	uint32_t source_first; /* of --source-range, host order */
	unsigned source_range; /* addresses in it; 0: none was given */
	char host[128];        /* for the Host header, with port */
	char path[256];
	char token[BENCH_TOKEN_MAX + 1]; /* shown in the handshake; "": none */
	unsigned connections, threads, sources, max_errors, connect_inflight;
	uint32_t size_bytes;
	double duration_s, warmup_s, connect_rate, timeout_s;
	int cpus[BENCH_CPUS_MAX];
	unsigned n_cpus;
	pid_t pids[BENCH_PIDS_MAX];
	unsigned n_pids;
	bool json, quiet;
};

/* A subcommand's own options. `own` ends with a zero entry; set() answers 0, or -EINVAL after a
 * message to stderr. */
struct bench_own_options {
	const struct option *own;
	int (*set)(void *ctx, int val, const char *arg);
	void *ctx;
	const char *usage; /* lines for --help, after the common ones */
};

/* Reads argv[1..]; *o holds the subcommand's defaults before, of which `url` may be NULL. -EINVAL:
 * a message stands on stderr. 1: --help was printed. */
int bench_options_parse(
	int argc, char **argv, const struct bench_own_options *own, struct bench_options *o);

/* Sets everything that follows from a URL; `option` is for the message before -EINVAL. */
int bench_url(struct bench_options *o, const char *option, const char *url);

/* For set(): a number in [min, max], or -EINVAL after a message that names the option. */
int bench_number(const char *option, const char *arg, double min, double max, double *ret);

#endif
