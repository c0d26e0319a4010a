/* The commands of tidegatectl: what each asks of the gateway, takes and shows. */
#ifndef TIDEGATECTL_COMMANDS_H
#define TIDEGATECTL_COMMANDS_H

#include <jansson.h>
#include <stdbool.h>

/* Options that become query parameters, in this order. */
enum parameter {
	LIMIT,
	ROUTE,
	LISTENER,
	PEER,
	SESSION,
	CODE,
	REASON,
	SLOW,
	SECRET_FILE,
	SUBJECT,
	EXPIRES,
	PREFIX,
	CONNECTIONS,
	INTERVAL,
	COUNT,
	WORD, /* these are arguments, not options */
	RATE,
	PERCENT,
	SOURCE,
	TOPIC,
	PARAMETERS,
};

extern const char *const parameter_names[PARAMETERS];

/* What a command does that is not one question to a gateway. */
enum own_work {
	OWN_WORK_NONE,
	OWN_WORK_TOKEN,
	OWN_WORK_DETACH,
	OWN_WORK_DOCTOR,
	OWN_WORK_TOP,
};

struct command {
	const char *name, *usage, *summary, *help;
	const char *method, *path; /* NULL: it does its work itself */
	enum own_work own_work;
	unsigned takes;  /* bits: 1 << enum parameter */
	bool publishes;  /* takes a topic and data as arguments */
	bool about_peer; /* takes an address as argument */
	bool (*show)(const json_t *answer);
};

extern const struct command commands[];
extern const unsigned n_commands;

/* What may follow a command: a word, and for some an argument. */
struct subcommand {
	const char *command, *word;
	enum parameter argument; /* PARAMETERS: none */
	const char *path;        /* NULL: that of the command, else a POST to this */
	const char *value;       /* of the parameter `word`; NULL: not sent */
	bool (*show)(const json_t *answer);
};

extern const struct subcommand subcommands[];
extern const unsigned n_subcommands;

#endif
