/* tidegate-service: the reference service behind a gateway, on libtidegate-link alone. */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "modes.h"

enum {
	EXIT_USAGE = 2,
	LISTENERS_MAX = 16,
	DRAIN_MS = 1000,
	ADDRESS_MAX = 256,
};

struct options {
	const char *listen[LISTENERS_MAX];
	unsigned n_listen;
	bool stats;
	uint32_t drain_ms;
	struct tg_link_server_opts link;
	struct modes modes;
};

static const char usage[] =
	"usage: tidegate-service --listen ADDRESS [OPTION...]\n"
	"\n"
	"A service for tidegate's `link` upstreams, for demonstrations and tests.\n"
	"\n"
	"  --listen ADDRESS        127.0.0.1:9300, [::1]:9300 or unix:/path; may be given several "
	"times\n"
	"  --mode MODE             what to do with sessions (echo):\n"
	"                            echo            send every message back\n"
	"                            uppercase       the same, in capitals\n"
	"                            delay:MS        send it back MS milliseconds later\n"
	"                            hang            take messages, never answer\n"
	"                            reject[:STATUS] refuse sessions, with 403 or STATUS "
	"(400..599)\n"
	"                            stall           accept sessions, then grant no credit\n"
	"                            silent          never answer the opening of a session\n"
	"                            topics          subscribe to `topic=TOPIC` of the query, "
	"publish there what comes\n"
	"  --per-session           `mode=MODE` in a session's query, or MODE as the last part of "
	"its path, goes first\n"
	"  --commands              text messages in echo mode are commands: `close CODE [REASON]`, "
	"`whoami`, `send BYTES`,\n"
	"                          `subscribe TOPIC`, `unsubscribe TOPIC`, `publish TOPIC TEXT`, "
	"`publish-binary TOPIC TEXT`\n"
	"  --name NAME             as told to gateways (tidegate-service)\n"
	"  --session-window BYTES  of flow control, 4096..1073741824 (262144)\n"
	"  --drain MS              how long to wait for sessions to end after SIGTERM (1000)\n"
	"  --stats                 print counters as JSON at SIGUSR1 and at the end\n"
	"  --help, --version\n"
	"\n"
	"SIGTERM and SIGINT drain and end it; a second one ends it at once.\n";

static int fail_usage(const char *what, const char *value)
{
	fprintf(stderr, "tidegate-service: %s: %s\nTry `tidegate-service --help`.\n", what, value);
	return EXIT_USAGE;
}

static bool parse_u32(const char *text, uint32_t min, uint32_t max, uint32_t *ret)
{
	char *end;
	errno = 0;
	unsigned long v = strtoul(text, &end, 10);
	if (errno || *text < '0' || *text > '9' || *end || v < min || v > max)
		return false;
	*ret = (uint32_t)v;
	return true;
}

/* -1: go on; else the exit status. */
static int parse_options(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{"listen", required_argument, NULL, 'l'},
		{"mode", required_argument, NULL, 'm'},
		{"per-session", no_argument, NULL, 'p'},
		{"commands", no_argument, NULL, 'c'},
		{"name", required_argument, NULL, 'n'},
		{"session-window", required_argument, NULL, 'w'},
		{"drain", required_argument, NULL, 'd'},
		{"stats", no_argument, NULL, 's'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'v'},
		{NULL, 0, NULL, 0},
	};
	for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
		switch (c) {
		case 'l':
			if (o->n_listen == LISTENERS_MAX)
				return fail_usage("too many listeners", optarg);
			o->listen[o->n_listen++] = optarg;
			break;
		case 'm':
			if (!mode_parse(optarg, strlen(optarg), &o->modes.mode))
				return fail_usage("no such mode", optarg);
			break;
		case 'p':
			o->modes.per_session = true;
			break;
		case 'c':
			o->modes.commands = true;
			break;
		case 'n':
			o->modes.name = optarg;
			break;
		case 'w':
			if (!parse_u32(optarg, TG_LINK_WINDOW_MIN, TG_LINK_WINDOW_MAX,
				    &o->link.session_window))
				return fail_usage("not a window", optarg);
			break;
		case 'd':
			if (!parse_u32(optarg, 0, 3600 * 1000, &o->drain_ms))
				return fail_usage("not a time in ms", optarg);
			break;
		case 's':
			o->stats = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return EXIT_SUCCESS;
		case 'v':
			puts("tidegate-service " TG_VERSION);
			return EXIT_SUCCESS;
		default:
			return fail_usage("bad option", argv[optind - 1]);
		}
	}
	if (optind < argc)
		return fail_usage("unexpected argument", argv[optind]);
	if (o->n_listen == 0)
		return fail_usage("nothing to listen on", "--listen is missing");
	return -1;
}

static void print_stats(const struct tg_link_server *server, const char *name)
{
	struct tg_link_stats s;
	tg_link_server_stats(server, &s);
#define FIELD(f) printf(",\"" #f "\":%llu", (unsigned long long)s.f)
	printf("{\"name\":\"%s\"", name);
	FIELD(links);
	FIELD(sessions);
	FIELD(queued_bytes);
	FIELD(assembly_bytes);
	FIELD(links_accepted);
	FIELD(links_refused);
	FIELD(links_down);
	FIELD(protocol_errors);
	FIELD(opened);
	FIELD(resumed);
	FIELD(accepted);
	FIELD(rejected);
	FIELD(closed);
	FIELD(messages_in);
	FIELD(messages_out);
	FIELD(bytes_in);
	FIELD(bytes_out);
	FIELD(frames_in);
	FIELD(frames_out);
	FIELD(stale_frames);
	FIELD(send_refused);
#undef FIELD
	puts("}");
	fflush(stdout);
}

static int listen_all(struct tg_link_server *server, const struct options *o)
{
	for (unsigned i = 0; i < o->n_listen; i++) {
		char address[ADDRESS_MAX];
		int err = tg_link_server_listen(server, o->listen[i]);
		if (err) {
			fprintf(stderr, "tidegate-service: cannot listen on %s: %s\n", o->listen[i],
				strerror(-err));
			return err == -EINVAL ? EXIT_USAGE : EXIT_FAILURE;
		}
		if (tg_link_server_address(server, i, address, sizeof(address)) == 0)
			printf("listening on %s\n", address);
	}
	fflush(stdout);
	return EXIT_SUCCESS;
}

static int signals_open(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

/* How long poll may wait: for delayed replies, and for the end of a drain (0: not draining). */
static int wait_ms(struct modes *modes, uint64_t drain_end_ms)
{
	uint64_t now = modes_now_ms();
	int ms = modes_run(modes, now);
	if (!drain_end_ms)
		return ms;
	int left = drain_end_ms > now ? (int)(drain_end_ms - now) : 0;
	return ms < 0 || left < ms ? left : ms;
}

/* Until a signal, and then until the sessions are gone or time is up. */
static int serve(struct tg_link_server *server, struct options *o, int signals)
{
	struct pollfd fds[] = {{.fd = tg_link_server_fd(server), .events = POLLIN},
		{.fd = signals, .events = POLLIN}};
	uint64_t drain_end_ms = 0;
	for (;;) {
		struct signalfd_siginfo info;
		struct tg_link_stats stats;
		if (poll(fds, 2, wait_ms(&o->modes, drain_end_ms)) < 0 && errno != EINTR)
			return -errno;
		int err = tg_link_server_dispatch(server, 0);
		if (err < 0)
			return err;
		while (read(signals, &info, sizeof(info)) == sizeof(info)) {
			if (info.ssi_signo == SIGUSR1) {
				if (o->stats)
					print_stats(server, o->modes.name);
				continue;
			}
			if (drain_end_ms)
				return 0;
			drain_end_ms = modes_now_ms() + o->drain_ms;
			tg_link_drain(server, o->drain_ms);
		}
		tg_link_server_stats(server, &stats);
		if (drain_end_ms && (stats.sessions == 0 || modes_now_ms() >= drain_end_ms))
			return 0;
	}
}

int main(int argc, char **argv)
{
	struct options o = {.drain_ms = DRAIN_MS, .modes.name = "tidegate-service"};
	modes_init(&o.modes);
	int status = parse_options(argc, argv, &o);
	if (status >= 0)
		return status;
	o.link.name = o.modes.name;
	o.link.ops = &modes_ops;
	o.link.ctx = &o.modes;
	struct tg_link_server *server;
	int err = tg_link_server_create(&o.link, &server);
	if (err == -EINVAL)
		return fail_usage("not a name", o.modes.name);
	if (err) {
		fprintf(stderr, "tidegate-service: %s\n", strerror(-err));
		return EXIT_FAILURE;
	}
	int signals = signals_open();
	if (signals < 0) {
		fprintf(stderr, "tidegate-service: signalfd: %s\n", strerror(errno));
		status = EXIT_FAILURE;
		goto out_server;
	}
	status = listen_all(server, &o);
	if (status != EXIT_SUCCESS)
		goto out_signals;
	err = serve(server, &o, signals);
	if (err) {
		fprintf(stderr, "tidegate-service: %s\n", strerror(-err));
		status = EXIT_FAILURE;
	}
	if (o.stats)
		print_stats(server, o.modes.name);
out_signals:
	close(signals);
out_server:
	tg_link_server_destroy(server);
	return status;
}
