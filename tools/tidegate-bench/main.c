/* tidegate-bench: a load generator for WebSocket and tg-raw servers, over its own io_uring rings.
 */
#include <stdio.h>
#include <string.h>

#include "control.h"

static const struct command {
	const char *name, *summary;
	int (*run)(int argc, char **argv);
} commands[] = {
	{"echo", "messages per second and latency of an echo, open or closed loop", cmd_echo},
	{"hold", "many idle connections: how fast they open, what they cost, whether they stay",
		cmd_hold},
	{"fanout",
		"one topic, many subscribers: deliveries, delays, and what echoes suffer meanwhile",
		cmd_fanout},
	{"storm",
		"connection attempts at a rate, whether they are answered or not: goodput, and "
		"what "
		"sessions suffer",
		cmd_storm},
	{"slow", "subscribers that never read: what readers, server and kernel suffer", cmd_slow},
};

enum {
	N_COMMANDS = sizeof commands / sizeof *commands
};

static void usage(FILE *to)
{
	fprintf(to, "usage: tidegate-bench COMMAND [OPTION]...\n\ncommands:\n");
	for (int i = 0; i < N_COMMANDS; i++)
		fprintf(to, "  %-8s%s\n", commands[i].name, commands[i].summary);
	fprintf(to, "\ntidegate-bench COMMAND --help lists the options of a command.\n");
}

int main(int argc, char **argv)
{
	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		usage(stdout);
		return BENCH_OK;
	}
	if (argc > 1 && !strcmp(argv[1], "--version")) {
		printf("tidegate-bench %s\n", TG_VERSION);
		return BENCH_OK;
	}
	for (int i = 0; argc > 1 && i < N_COMMANDS; i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	if (argc > 1)
		fprintf(stderr, "tidegate-bench: no command '%s'\n", argv[1]);
	usage(stderr);
	return BENCH_USAGE;
}
