/* tidegatectl: asks a running gateway, over its admin socket, how it is and tells it what to do. */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "doctor.h"
#include "http_client.h"
#include "keeper/kernel_gate.h"
#include "show.h"
#include "table.h"
#include "token.h"
#include "top.h"

enum {
	EXIT_USAGE = 2,
	INSTANCE_MAX = 63,
};

struct ctl {
	const struct command *command;
	const struct subcommand *sub;  /* NULL: the command alone */
	const char *socket, *instance; /* NULL: not given */
	const char *parameter[PARAMETERS];
	const char *body;
	bool json, help;
};

__attribute__((format(printf, 1, 2))) static int usage_error(const char *fmt, ...)
{
	va_list args;

	fputs("tidegatectl: ", stderr);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputs("\nTry 'tidegatectl --help'.\n", stderr);
	return EXIT_USAGE;
}

static void print_common_options(void)
{
	fputs("  --socket PATH    admin socket of the gateway\n"
	      "  --instance NAME  its instance, to find the socket (default: default)\n"
	      "  --json           print the answer as JSON\n"
	      "  --help           print this\n",
		stdout);
}

static void print_help(const struct command *c)
{
	if (c) {
		printf("Usage: tidegatectl [--socket PATH | --instance NAME] [--json] %s%s\n\n%s: "
		       "%s.\n%s\n",
			c->name, c->usage, c->name, c->summary, c->help);
		print_common_options();
		return;
	}
	puts("Usage: tidegatectl [--socket PATH | --instance NAME] [--json] COMMAND [OPTIONS]\n");
	for (unsigned i = 0; i < n_commands; i++)
		printf("  %-16s %s\n", commands[i].name, commands[i].summary);
	puts("");
	print_common_options();
	puts("  --version        print the version\n\n"
	     "'tidegatectl COMMAND --help' lists a command's options.\n"
	     "Exit codes: 0 done, 1 failed, 2 wrong usage.");
}

static const struct command *find_command(const char *name)
{
	for (unsigned i = 0; i < n_commands; i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}

static bool has_subcommands(const struct command *c)
{
	for (unsigned i = 0; i < n_subcommands; i++)
		if (!strcmp(subcommands[i].command, c->name))
			return true;
	return false;
}

/* What stands behind the command. -1, or the exit code. */
static int parse_arguments(int n, char **arg, struct ctl *ret)
{
	bool words = has_subcommands(ret->command);

	if (n == 0)
		return -1;
	if (ret->command->publishes && n >= 2) {
		ret->parameter[TOPIC] = *arg++;
		ret->body = *arg++;
		return n > 2 ? usage_error("unexpected argument: %s", *arg) : -1;
	}
	if (ret->command->about_peer) {
		ret->parameter[PEER] = *arg++;
		return n > 1 ? usage_error("unexpected argument: %s", *arg) : -1;
	}
	if (ret->command->publishes)
		return -1; /* check_options says what is missing */
	for (unsigned i = 0; words && i < n_subcommands; i++)
		if (!strcmp(subcommands[i].command, ret->command->name) &&
			!strcmp(subcommands[i].word, arg[0]))
			ret->sub = &subcommands[i];
	if (!ret->sub)
		return usage_error("unexpected argument: %s", arg[0]);
	ret->parameter[WORD] = ret->sub->value;
	n--;
	arg++;
	if (ret->sub->argument != PARAMETERS) {
		if (!n)
			return usage_error("%s %s needs a %s", ret->command->name, ret->sub->word,
				parameter_names[ret->sub->argument]);
		ret->parameter[ret->sub->argument] = *arg++;
		n--;
	}
	return n ? usage_error("unexpected argument: %s", *arg) : -1;
}

/* Options may stand before and behind the command. -1, or the exit code. */
static int parse_options(int argc, char **argv, struct ctl *ret)
{
	enum {
		SOCKET = 256,
		INSTANCE,
		JSON,
		HELP,
		VERSION
	};
	static const struct option options[] = {
		{"limit", required_argument, NULL, LIMIT},
		{"route", required_argument, NULL, ROUTE},
		{"listener", required_argument, NULL, LISTENER},
		{"peer", required_argument, NULL, PEER},
		{"session", required_argument, NULL, SESSION},
		{"code", required_argument, NULL, CODE},
		{"reason", required_argument, NULL, REASON},
		{"slow", no_argument, NULL, SLOW},
		{"secret-file", required_argument, NULL, SECRET_FILE},
		{"subject", required_argument, NULL, SUBJECT},
		{"expires", required_argument, NULL, EXPIRES},
		{"prefix", required_argument, NULL, PREFIX},
		{"connections", required_argument, NULL, CONNECTIONS},
		{"interval", required_argument, NULL, INTERVAL},
		{"count", required_argument, NULL, COUNT},
		{"socket", required_argument, NULL, SOCKET},
		{"instance", required_argument, NULL, INSTANCE},
		{"json", no_argument, NULL, JSON},
		{"help", no_argument, NULL, HELP},
		{"version", no_argument, NULL, VERSION},
		{0},
	};
	int opt;

	opterr = 0;
	while ((opt = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (opt == '?')
			return usage_error("unknown option: %s", argv[optind - 1]);
		if (opt == ':')
			return usage_error("%s needs a value", argv[optind - 1]);
		if (opt == SOCKET)
			ret->socket = optarg;
		else if (opt == INSTANCE)
			ret->instance = optarg;
		else if (opt == JSON)
			ret->json = true;
		else if (opt == HELP)
			ret->help = true;
		else if (opt == VERSION)
			return puts("tidegatectl " TG_VERSION) < 0;
		else
			ret->parameter[opt] = opt == SLOW ? "true" : optarg;
	}
	if (optind < argc) {
		ret->command = find_command(argv[optind]);
		if (!ret->command)
			return usage_error("unknown command: %s", argv[optind]);
		return parse_arguments(argc - optind - 1, argv + optind + 1, ret);
	}
	return -1;
}

/* -1, or the exit code. Values are the gateway's to judge. */
static int check_options(const struct ctl *ctl)
{
	if (ctl->socket && ctl->instance)
		return usage_error("--socket and --instance exclude each other");
	if (ctl->instance &&
		(!*ctl->instance || strlen(ctl->instance) > INSTANCE_MAX ||
			ctl->instance[strspn(ctl->instance, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijkl"
							    "mnopqrstuvwxyz0123456789-_")]))
		return usage_error(
			"--instance takes letters, digits, '-' and '_', at most %d", INSTANCE_MAX);
	for (unsigned i = 0; i < WORD; i++)
		if (ctl->parameter[i] && !(ctl->command->takes & 1u << i))
			return usage_error(
				"%s takes no --%s", ctl->command->name, parameter_names[i]);
	if (!strcmp(ctl->command->name, "kick") &&
		!ctl->parameter[SESSION] == !ctl->parameter[ROUTE])
		return usage_error("kick needs either --session or --route");
	if (ctl->command->own_work == OWN_WORK_TOKEN &&
		(!ctl->parameter[SECRET_FILE] || !ctl->parameter[SUBJECT] ||
			!ctl->parameter[EXPIRES]))
		return usage_error("token needs --secret-file, --subject and --expires");
	if (ctl->command->about_peer && !ctl->parameter[PEER])
		return usage_error("%s needs an address", ctl->command->name);
	if (ctl->command->publishes && !ctl->body)
		return usage_error("%s needs a topic and data", ctl->command->name);
	return -1;
}

/* Where the gateway puts its socket (docs/operations.md). From malloc; NULL without memory. */
static char *socket_path(const struct ctl *ctl)
{
	const char *instance = ctl->instance ? ctl->instance : "default";
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	char *path;
	int n;

	if (ctl->socket)
		return strdup(ctl->socket);
	if (geteuid() == 0)
		n = asprintf(&path, "/run/tidegate/%s/admin.sock", instance);
	else if (runtime && *runtime)
		n = asprintf(&path, "%s/tidegate/%s/admin.sock", runtime, instance);
	else
		n = asprintf(
			&path, "/tmp/tidegate-%u/%s/admin.sock", (unsigned)geteuid(), instance);
	return n < 0 ? NULL : path;
}

/* The command's path and its parameters, percent-encoded. From malloc; NULL without memory. */
static char *request_target(const struct ctl *ctl)
{
	static const char plain[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/:";
	char *target = NULL, separator = '?';
	size_t len;
	FILE *f = open_memstream(&target, &len);
	if (!f)
		return NULL;

	fputs(ctl->sub && ctl->sub->path ? ctl->sub->path : ctl->command->path, f);
	for (unsigned i = 0; i < PARAMETERS; i++) {
		if (!ctl->parameter[i])
			continue;
		fprintf(f, "%c%s=", separator, parameter_names[i]);
		separator = '&';
		for (const char *s = ctl->parameter[i]; *s; s++)
			fprintf(f, strchr(plain, *s) ? "%c" : "%%%02X", (unsigned char)*s);
	}
	if (fclose(f) == 0)
		return target;
	free(target);
	return NULL;
}

static int report_unreachable(const char *path, int r)
{
	const char *hint = "";

	if (r == -ETIMEDOUT) {
		fprintf(stderr, "tidegatectl: no answer from %s for %d s\n", path, HTTP_SILENCE_S);
		return EXIT_FAILURE;
	}
	if (r == -EPROTO) {
		fprintf(stderr, "tidegatectl: %s: the answer is malformed or cut short\n", path);
		return EXIT_FAILURE;
	}
	if (r == -ENOENT || r == -ECONNREFUSED)
		hint = "; is tidegate running?";
	else if (r == -EACCES)
		hint = "; only root and the gateway's own user may use it";
	fprintf(stderr, "tidegatectl: cannot reach %s: %s%s\n", path, strerror(-r), hint);
	return EXIT_FAILURE;
}

/* An answer other than 2xx. What the gateway calls a bad request is wrong usage of ours. */
static int report_refusal(const struct http_reply *reply, const json_t *answer)
{
	const char *error = json_string_value(json_object_get(answer, "error"));
	char *shown = error ? strdup(error) : NULL;

	if (shown)
		text_clean(shown);
	if (shown)
		fprintf(stderr, "tidegatectl: %s\n", shown);
	else
		fprintf(stderr, "tidegatectl: the gateway answered with HTTP status %u\n",
			reply->status);
	free(shown);
	return reply->status == 400 ? EXIT_USAGE : EXIT_FAILURE;
}

static int report(const struct ctl *ctl, const struct http_reply *reply)
{
	bool (*show)(const json_t *) = ctl->sub ? ctl->sub->show : ctl->command->show;
	json_t *answer = json_loadb(reply->body, reply->len, 0, NULL);
	int code = EXIT_SUCCESS;

	if (reply->status / 100 != 2) {
		code = report_refusal(reply, answer);
	} else if (!answer || (!ctl->json && !show(answer))) {
		fputs("tidegatectl: the gateway's answer is not what this tidegatectl understands; "
		      "--json prints it when it is JSON\n",
			stderr);
		code = EXIT_FAILURE;
	} else if (ctl->json) {
		fwrite(reply->body, 1, reply->len, stdout);
	}
	json_decref(answer);
	/* A full disk or a closed pipe must not look like success. */
	if ((fflush(stdout) != 0 || ferror(stdout)) && code == EXIT_SUCCESS) {
		perror("tidegatectl: cannot write");
		code = EXIT_FAILURE;
	}
	return code;
}

static int detach(const struct ctl *ctl)
{
	const char *instance = ctl->instance ? ctl->instance : "default";
	int r = kernel_gate_remove(instance);

	if (r < 0) {
		fprintf(stderr, "tidegatectl: detaching the gate of %s: %s\n", instance,
			strerror(-r));
		return EXIT_FAILURE;
	}
	if (ctl->json)
		printf("{\"detached\": \"%s\"}\n", instance);
	else
		printf("the gate of %s is detached\n", instance);
	return EXIT_SUCCESS;
}

static int out_of_memory(void)
{
	fputs("tidegatectl: out of memory\n", stderr);
	return EXIT_FAILURE;
}

static int work(const struct ctl *ctl, const char *path)
{
	switch (ctl->command->own_work) {
	case OWN_WORK_DETACH:
		return detach(ctl);
	case OWN_WORK_DOCTOR:
		return doctor_run(&(struct doctor_args){.socket = path,
			.instance = ctl->instance ? ctl->instance : "default",
			.connections = ctl->parameter[CONNECTIONS],
			.json = ctl->json});
	case OWN_WORK_TOP:
		return top_run(&(struct top_args){.socket = path,
			.interval = ctl->parameter[INTERVAL],
			.count = ctl->parameter[COUNT],
			.json = ctl->json});
	default:
		return token_print(ctl->parameter[SECRET_FILE], ctl->parameter[SUBJECT],
			ctl->parameter[EXPIRES], ctl->json);
	}
}

static int ask(const struct ctl *ctl, const char *path)
{
	char *target = request_target(ctl);
	struct http_reply reply;
	int code;

	if (!target)
		return out_of_memory();
	int r = http_ask(path, ctl->sub && ctl->sub->path ? "POST" : ctl->command->method, target,
		ctl->body, &reply);
	free(target);
	if (r < 0)
		return report_unreachable(path, r);
	code = report(ctl, &reply);
	free(reply.data);
	return code;
}

int main(int argc, char **argv)
{
	struct ctl ctl = {0};
	int code = parse_options(argc, argv, &ctl);
	if (code >= 0)
		return code;
	if (ctl.help) {
		print_help(ctl.command);
		return EXIT_SUCCESS;
	}
	if (!ctl.command)
		return usage_error("no command given");
	code = check_options(&ctl);
	if (code >= 0)
		return code;

	char *path = socket_path(&ctl);
	if (!path)
		return out_of_memory();
	code = ctl.command->own_work ? work(&ctl, path) : ask(&ctl, path);
	free(path);
	return code;
}
