#include "options.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	OPT_URL = 1,
	OPT_TOKEN_FILE,
	OPT_CONNECTIONS,
	OPT_THREADS,
	OPT_SIZE,
	OPT_DURATION,
	OPT_WARMUP,
	OPT_SOURCES,
	OPT_SOURCE_RANGE,
	OPT_CONNECT_RATE,
	OPT_CONNECT_INFLIGHT,
	OPT_TIMEOUT,
	OPT_MAX_ERRORS,
	OPT_PIN,
	OPT_PID,
	OPT_JSON,
	OPT_QUIET,
	OPT_HELP,
};

static const struct option common[] = {
	{"url", required_argument, NULL, OPT_URL},
	{"token-file", required_argument, NULL, OPT_TOKEN_FILE},
	{"connections", required_argument, NULL, OPT_CONNECTIONS},
	{"threads", required_argument, NULL, OPT_THREADS},
	{"size", required_argument, NULL, OPT_SIZE},
	{"duration", required_argument, NULL, OPT_DURATION},
	{"warmup", required_argument, NULL, OPT_WARMUP},
	{"sources", required_argument, NULL, OPT_SOURCES},
	{"source-range", required_argument, NULL, OPT_SOURCE_RANGE},
	{"connect-rate", required_argument, NULL, OPT_CONNECT_RATE},
	{"connect-inflight", required_argument, NULL, OPT_CONNECT_INFLIGHT},
	{"timeout", required_argument, NULL, OPT_TIMEOUT},
	{"max-errors", required_argument, NULL, OPT_MAX_ERRORS},
	{"pin", required_argument, NULL, OPT_PIN},
	{"pid", required_argument, NULL, OPT_PID},
	{"json", no_argument, NULL, OPT_JSON},
	{"quiet", no_argument, NULL, OPT_QUIET},
	{"help", no_argument, NULL, OPT_HELP},
};

static const char common_usage[] =
	"  --url URL             ws://HOST[:PORT]/PATH or raw://HOST[:PORT]/PATH (default "
	"ws://127.0.0.1:8080/echo,\n"
	"                        of fanout and slow ws://127.0.0.1:8080/hub)\n"
	"  --token-file FILE     a token to show in every handshake, as Bearer or in the HELLO\n"
	"  --connections N       client connections\n"
	"  --threads N           threads, each with its own rings (default 1)\n"
	"  --size BYTES          payload of a message\n"
	"  --duration S          seconds measured\n"
	"  --warmup S            seconds of load before that\n"
	"  --sources N           source addresses 127.1.a.b, when the target is in 127.0.0.0/8\n"
	"                        (default and least: one for every 10,000 connections)\n"
	"  --source-range A-B    IPv4 source addresses A to B, in turn, wherever the target is\n"
	"  --connect-rate N      connections opened per second (default 0: as fast as they are "
	"answered)\n"
	"  --connect-inflight N  connections not open yet, at most (default 256)\n"
	"  --timeout S           give up on connections when none opens for so long (default 10)\n"
	"  --max-errors N        failed or lost connections that still count as success (default "
	"0)\n"
	"  --pin LIST            CPUs for the threads, in turn: 1 or 0,2-3\n"
	"  --pid PID             process of the server: its CPU time and memory are measured too; "
	"may be repeated\n"
	"  --json                one JSON object as the last line of output\n"
	"  --quiet               no progress on stderr\n";

int bench_number(const char *option, const char *arg, double min, double max, double *ret)
{
	char *end;

	errno = 0;
	double v = strtod(arg, &end);
	if (errno || *end || end == arg || !(v >= min && v <= max)) {
		fprintf(stderr, "tidegate-bench: --%s: '%s' is not a number from %g to %g\n",
			option, arg, min, max);
		return -EINVAL;
	}
	*ret = v;
	return 0;
}

static int whole_number(
	const char *option, const char *arg, unsigned min, unsigned max, unsigned *ret)
{
	double v;

	int err = bench_number(option, arg, min, max, &v);
	if (err)
		return err;
	if (v != (double)(unsigned)v) {
		fprintf(stderr, "tidegate-bench: --%s: '%s' is not a whole number\n", option, arg);
		return -EINVAL;
	}
	*ret = (unsigned)v;
	return 0;
}

static int pin_set(struct bench_options *o, const char *arg)
{
	const char *p = arg;

	o->n_cpus = 0;
	while (*p) {
		char *end;
		long from = strtol(p, &end, 10), to = from;
		if (end == p || from < 0)
			break;
		p = end;
		if (*p == '-') {
			to = strtol(p + 1, &end, 10);
			if (end == p + 1 || to < from)
				break;
			p = end;
		}
		for (long cpu = from; cpu <= to && cpu < 1024 && o->n_cpus < BENCH_CPUS_MAX; cpu++)
			o->cpus[o->n_cpus++] = (int)cpu;
		if (*p == ',' && p[1])
			p++;
		else if (!*p)
			return 0;
		else
			break;
	}
	fprintf(stderr, "tidegate-bench: --pin: '%s' is not a list of CPUs such as 0,2-3\n", arg);
	return -EINVAL;
}

static int source_range(struct bench_options *o, const char *arg)
{
	char first[INET_ADDRSTRLEN] = "";
	const char *dash = strchr(arg, '-');
	struct in_addr a, b;

	if (dash && (size_t)(dash - arg) < sizeof first)
		memcpy(first, arg, (size_t)(dash - arg));
	if (!dash || inet_pton(AF_INET, first, &a) != 1 || inet_pton(AF_INET, dash + 1, &b) != 1 ||
		ntohl(b.s_addr) < ntohl(a.s_addr) ||
		ntohl(b.s_addr) - ntohl(a.s_addr) >= BENCH_SOURCES_MAX) {
		fprintf(stderr,
			"tidegate-bench: --source-range: '%s' is not a range of at most %d IPv4 "
			"addresses such as 10.0.0.1-10.0.0.200\n",
			arg, BENCH_SOURCES_MAX);
		return -EINVAL;
	}
	o->source_first = ntohl(a.s_addr);
	o->source_range = ntohl(b.s_addr) - ntohl(a.s_addr) + 1;
	return 0;
}

static int pid_add(struct bench_options *o, const char *arg)
{
	unsigned pid;

	if (o->n_pids == BENCH_PIDS_MAX) {
		fprintf(stderr, "tidegate-bench: --pid: at most %d processes\n", BENCH_PIDS_MAX);
		return -EINVAL;
	}
	int err = whole_number("pid", arg, 1, 1u << 30, &pid);
	if (!err)
		o->pids[o->n_pids++] = (pid_t)pid;
	return err;
}

/* Cuts HOST[:PORT] into its parts; an IPv6 address stands in brackets. */
static int host_port(
	const char *text, size_t len, char *host, size_t host_cap, char *port, size_t port_cap)
{
	const char *end = text + len, *colon;
	size_t host_len, port_len;

	if (len && *text == '[') {
		const char *close = memchr(text, ']', len);
		if (!close)
			return -EINVAL;
		host_len = (size_t)(close - ++text);
		colon = close + 1;
	} else {
		colon = memchr(text, ':', len);
		if (!colon)
			colon = end;
		host_len = (size_t)(colon - text);
	}
	if (!host_len || host_len >= host_cap || (colon < end && *colon != ':'))
		return -EINVAL;
	memcpy(host, text, host_len);
	host[host_len] = 0;
	if (colon == end)
		return 0;
	port_len = (size_t)(end - colon - 1);
	if (!port_len || port_len >= port_cap)
		return -EINVAL;
	memcpy(port, colon + 1, port_len);
	port[port_len] = 0;
	return 0;
}

int bench_url(struct bench_options *o, const char *option, const char *url)
{
	static const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	char host[128], port[16] = "80";
	struct addrinfo *found;

	if (!strncmp(url, "ws://", 5)) {
		o->raw = false;
	} else if (!strncmp(url, "raw://", 6)) {
		o->raw = true;
		strcpy(port, "8081");
	} else {
		fprintf(stderr, "tidegate-bench: --%s: '%s' begins with neither ws:// nor raw://\n",
			option, url);
		return -EINVAL;
	}
	const char *at = strstr(url, "://") + 3;
	size_t len = strcspn(at, "/");
	if (len >= sizeof o->host || strlen(at + len) >= sizeof o->path ||
		host_port(at, len, host, sizeof host, port, sizeof port)) {
		fprintf(stderr, "tidegate-bench: --%s: '%s' has no proper HOST[:PORT]\n", option,
			url);
		return -EINVAL;
	}
	o->url = url;
	memcpy(o->host, at, len);
	o->host[len] = 0;
	strcpy(o->path, at[len] ? at + len : "/");
	int err = getaddrinfo(host, port, &hints, &found);
	if (err) {
		fprintf(stderr, "tidegate-bench: --%s: %s port %s: %s\n", option, host, port,
			gai_strerror(err));
		return -EINVAL;
	}
	memcpy(&o->target, found->ai_addr, found->ai_addrlen);
	o->target_len = found->ai_addrlen;
	const struct sockaddr_in *in = (const struct sockaddr_in *)&o->target;
	o->loopback4 = found->ai_family == AF_INET && ntohl(in->sin_addr.s_addr) >> 24 == 127;
	freeaddrinfo(found);
	return 0;
}

/* The first line of a file; not an argument, which every user could see. */
static int token_read(struct bench_options *o, const char *path)
{
	FILE *f = fopen(path, "r");
	char line[BENCH_TOKEN_MAX + 2] = "";

	if (!f || !fgets(line, sizeof line, f)) {
		fprintf(stderr, "tidegate-bench: --token-file: %s: %s\n", path,
			f ? "is empty" : strerror(errno));
		if (f)
			fclose(f);
		return -EINVAL;
	}
	fclose(f);
	line[strcspn(line, "\r\n")] = '\0';
	if (strlen(line) > BENCH_TOKEN_MAX) {
		fprintf(stderr, "tidegate-bench: --token-file: %s: longer than %d bytes\n", path,
			BENCH_TOKEN_MAX);
		return -EINVAL;
	}
	strcpy(o->token, line);
	return 0;
}

static int common_set(struct bench_options *o, int val, const char *arg)
{
	switch (val) {
	case OPT_URL:
		return bench_url(o, "url", arg);
	case OPT_TOKEN_FILE:
		return token_read(o, arg);
	case OPT_CONNECTIONS:
		return whole_number("connections", arg, 1, BENCH_CONNECTIONS_MAX, &o->connections);
	case OPT_THREADS:
		return whole_number("threads", arg, 1, BENCH_THREADS_MAX, &o->threads);
	case OPT_SIZE:
		return whole_number("size", arg, 0, 1u << 30, &o->size_bytes);
	case OPT_DURATION:
		return bench_number("duration", arg, 0.1, 1e6, &o->duration_s);
	case OPT_WARMUP:
		return bench_number("warmup", arg, 0, 1e6, &o->warmup_s);
	case OPT_SOURCES:
		return whole_number("sources", arg, 1, BENCH_SOURCES_MAX, &o->sources);
	case OPT_SOURCE_RANGE:
		return source_range(o, arg);
	case OPT_CONNECT_RATE:
		return bench_number("connect-rate", arg, 0, 1e9, &o->connect_rate);
	case OPT_CONNECT_INFLIGHT:
		return whole_number("connect-inflight", arg, 1, 1000000, &o->connect_inflight);
	case OPT_TIMEOUT:
		return bench_number("timeout", arg, 0.1, 1e6, &o->timeout_s);
	case OPT_MAX_ERRORS:
		return whole_number("max-errors", arg, 0, 1u << 31, &o->max_errors);
	case OPT_PIN:
		return pin_set(o, arg);
	case OPT_PID:
		return pid_add(o, arg);
	case OPT_JSON:
		o->json = true;
		return 0;
	case OPT_QUIET:
		o->quiet = true;
		return 0;
	}
	return -EINVAL; /* getopt_long said why */
}

int bench_options_parse(
	int argc, char **argv, const struct bench_own_options *own, struct bench_options *o)
{
	enum {
		N_COMMON = sizeof common / sizeof *common,
		OWN_MAX = 16
	};
	struct option all[N_COMMON + OWN_MAX] = {0};
	int n_own = 0, err;

	memcpy(all, common, sizeof common);
	for (; own->own[n_own].name && n_own < OWN_MAX - 1; n_own++)
		all[N_COMMON + n_own] = own->own[n_own];
	o->command = argv[0];
	err = bench_url(o, "url", o->url ? o->url : "ws://127.0.0.1:8080/echo");
	optind = 1;
	for (int val; !err && (val = getopt_long(argc, argv, "", all, NULL)) != -1;) {
		if (val == OPT_HELP) {
			printf("usage: tidegate-bench %s [OPTION]...\n\n%s%s", argv[0],
				common_usage, own->usage);
			return 1;
		}
		err = val >= BENCH_OPTION_OWN ? own->set(own->ctx, val, optarg)
					      : common_set(o, val, optarg);
	}
	if (!err && optind < argc) {
		fprintf(stderr, "tidegate-bench: %s: unexpected argument '%s'\n", argv[0],
			argv[optind]);
		err = -EINVAL;
	}
	if (!err && o->source_range && o->target.ss_family != AF_INET) {
		fprintf(stderr, "tidegate-bench: --source-range: %s is not an IPv4 address\n",
			o->host);
		err = -EINVAL;
	}
	if (!err && o->threads > o->connections)
		o->threads = o->connections;
	return err;
}
