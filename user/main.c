/* tidegate: options, configuration, and the wiring of keeper and gateway. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "app/auth_keys.h"
#include "base/log.h"
#include "keeper/keeper.h"
#include "ops/admin_token.h"
#include "ops/config.h"
#include "ops/gate_options.h"
#include "ops/gateway.h"
#include "ops/probe.h"

enum {
	EXIT_USAGE = 2, /* usage or configuration */
	/* Beyond the drain period and the closing handshake, before a drain counts as hung. */
	DRAIN_MARGIN_MS = 30000,
};

struct options {
	const char *config; /* NULL: the built-in demo */
	bool check, probe;
};

static void usage(FILE *out)
{
	fputs("Usage: tidegate [-c FILE] [--check | --probe]\n"
	      "  -c, --config FILE  configuration (YAML); without it the built-in demo runs\n"
	      "      --check        check the configuration and exit\n"
	      "      --probe        print what this machine offers of what tidegate needs, and "
	      "exit\n"
	      "      --version      print the version and exit\n"
	      "  -h, --help         print this text and exit\n"
	      "Exit status: 0, 1 failure, 2 usage or configuration.\n",
		out);
}

/* -1: go on with *ret; else the exit status. */
static int parse_options(int argc, char **argv, struct options *ret)
{
	enum {
		OPT_CHECK = 256,
		OPT_PROBE,
		OPT_VERSION
	};
	static const struct option longs[] = {
		{"config", required_argument, NULL, 'c'},
		{"check", no_argument, NULL, OPT_CHECK},
		{"probe", no_argument, NULL, OPT_PROBE},
		{"version", no_argument, NULL, OPT_VERSION},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	struct options o = {0};
	int c;

	while ((c = getopt_long(argc, argv, "c:h", longs, NULL)) != -1) {
		switch (c) {
		case 'c':
			o.config = optarg;
			break;
		case OPT_CHECK:
			o.check = true;
			break;
		case OPT_PROBE:
			o.probe = true;
			break;
		case OPT_VERSION:
			puts("tidegate " TG_VERSION);
			return EXIT_SUCCESS;
		case 'h':
			usage(stdout);
			return EXIT_SUCCESS;
		default:
			usage(stderr);
			return EXIT_USAGE;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "tidegate: unexpected argument: %s\n", argv[optind]);
		usage(stderr);
		return EXIT_USAGE;
	}
	*ret = o;
	return -1;
}

/* A socket that took the place of a closed stderr would receive the log. */
static void occupy_stdio(void)
{
	int fd;

	do {
		fd = open("/dev/null", O_RDWR);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

static int run_probe(void)
{
	struct probe_facts facts;
	char missing[1024];

	probe_collect(&facts);
	probe_print(&facts, stdout);
	if (!probe_missing(&facts, missing, sizeof(missing)))
		return EXIT_SUCCESS;
	fprintf(stderr, "tidegate: %s\n", missing);
	return EXIT_FAILURE;
}

static unsigned choose_workers(unsigned configured)
{
	cpu_set_t allowed;
	long cpus;

	if (configured)
		return configured;
	/* EINVAL on machines of more CPUs than a cpu_set_t names: there the cap decides anyway. */
	cpus = sched_getaffinity(0, sizeof(allowed), &allowed) ? sysconf(_SC_NPROCESSORS_ONLN)
							       : CPU_COUNT(&allowed);
	cpus = cpus * 3 / 4;
	if (cpus < 1)
		return 1;
	return cpus > LISTEN_COPIES_MAX ? LISTEN_COPIES_MAX : (unsigned)cpus;
}

static void start_log(const struct config *c, const char *who)
{
	log_init(&(struct log_opts){
		.level = (enum log_level)c->log_level,
		.json = c->log_json,
		.per_kind_per_s = c->log_rate,
		.fd = STDERR_FILENO,
		.who = who,
	});
}

static int gateway_main(void *ctx, int channel_fd)
{
	const struct config *c = ctx;

	start_log(c, "gateway");
	return gateway_run(c, channel_fd);
}

enum {
	/* `what` of a file; of a key it is its algorithm */
	TOKEN_SECRET = -1,
	ADMIN_TOKEN = -2,
};

static const char *check_secret(int what, const void *data, size_t len)
{
	struct auth_file f = {data, len};

	if (what == ADMIN_TOKEN)
		return admin_token_check(data, len);
	return what == TOKEN_SECRET ? auth_secret_check(&f)
				    : auth_key_check((enum jwt_algorithm)what, &f);
}

/* The files in the order that the gateway knows: secrets, keys, the token of the admin listener. */
static int list_secrets(const struct config *c, struct secrets_file *ret)
{
	char *name;
	unsigned n = 0;

	for (unsigned i = 0; i < c->auth_secrets.n; i++) {
		if (asprintf(&name, "auth.secrets[%u]", i) < 0)
			return -ENOMEM;
		ret[n++] = (struct secrets_file){c->auth_secrets.item[i], name, true, TOKEN_SECRET};
	}
	for (unsigned i = 0; i < c->n_auth_keys; i++) {
		const struct config_auth_key *k = &c->auth_keys[i];

		if (asprintf(&name, "auth.keys[%u].file", i) < 0)
			return -ENOMEM;
		ret[n++] = (struct secrets_file){
			k->file, name, k->algorithm == JWT_HS256, k->algorithm};
	}
	if (c->admin_token_file) {
		name = strdup("admin.token_file");
		if (!name)
			return -ENOMEM;
		ret[n++] = (struct secrets_file){c->admin_token_file, name, true, ADMIN_TOKEN};
	}
	return 0;
}

/* Without privilege there is nothing to try. */
static bool gate_wanted(const struct config *c)
{
	if (!gate_in_kernel(c))
		return false;
	if (geteuid() == 0 || c->admission.mode == CONFIG_ADMISSION_KERNEL)
		return true;
	log_warn("main", "not started as root: admission is in user space");
	return false;
}

static int run(struct config *c)
{
	unsigned n_secrets = c->auth_secrets.n + c->n_auth_keys + (c->admin_token_file != NULL);
	struct descriptors_listener *listeners;
	struct secrets_file *secrets;
	struct kernel_gate_opts gate;
	struct probe_facts facts;
	char missing[1024];

	start_log(c, "keeper");
	probe_collect(&facts);
	if (probe_missing(&facts, missing, sizeof(missing))) {
		log_error("main", "%s", missing);
		return EXIT_FAILURE;
	}
	c->workers = choose_workers(c->workers);

	listeners = calloc(c->n_listeners + 1, sizeof(*listeners));
	secrets = calloc(n_secrets + 1, sizeof(*secrets));
	if (!listeners || !secrets || list_secrets(c, secrets) ||
		gate_options_init(c, TG_VERSION, &gate)) {
		log_error("main", "%s", strerror(ENOMEM));
		return EXIT_FAILURE;
	}
	for (unsigned i = 0; i < c->n_listeners; i++) {
		const struct config_listener *l = &c->listeners[i];
		listeners[i] = (struct descriptors_listener){
			.name = l->name,
			.addr = l->address.addr,
			.addr_len = l->address.addr_len,
			.backlog = l->backlog,
		};
	}
	struct keeper_opts opts = {
		.descriptors =
			{
				.listeners = listeners,
				.n_listeners = c->n_listeners,
				.workers = c->workers,
				.sockopts =
					{
						.send_buffer_bytes = c->send_buffer_bytes,
						.receive_buffer_bytes = c->receive_buffer_bytes,
						.notsent_lowat_bytes = c->notsent_lowat_bytes,
						.user_timeout_ms = c->user_timeout_ms,
						.nodelay = true,
						.keepalive = true,
					},
				.admin_tcp = c->admin.addr,
				.admin_tcp_len = c->admin_off ? 0 : c->admin.addr_len,
				.admin_unix = c->admin_socket,
				.access_log = c->access_stderr ? NULL : c->access_file,
			},
		.secrets = {.files = secrets, .n = n_secrets, .check = check_secret},
		.gate = gate_wanted(c) ? &gate : NULL,
		.gate_required = c->admission.mode == CONFIG_ADMISSION_KERNEL,
		.user = c->user,
		.drain_limit_ms =
			(uint64_t)c->drain_period_ms + c->close_timeout_ms + DRAIN_MARGIN_MS,
		.gateway_main = gateway_main,
		.ctx = c,
	};
	int status = keeper_run(&opts);
	for (unsigned i = 0; i < n_secrets; i++)
		free((char *)(uintptr_t)secrets[i].key);
	gate_options_fini(&gate);
	free(secrets);
	free(listeners);
	return status;
}

int main(int argc, char **argv)
{
	struct options o;
	struct config *c;
	char *errors = NULL;

	occupy_stdio();
	int status = parse_options(argc, argv, &o);
	if (status >= 0)
		return status;
	if (o.probe)
		return run_probe();

	int r = config_load(o.config, &c, &errors);
	if (r) {
		if (errors) {
			size_t len = strlen(errors);
			fputs(errors, stderr);
			if (!len || errors[len - 1] != '\n')
				fputc('\n', stderr);
		} else {
			fprintf(stderr, "%s: %s\n", o.config ? o.config : "built-in demo",
				strerror(-r));
		}
		free(errors);
		return EXIT_USAGE;
	}
	if (o.check)
		printf("%s: ok (%u listeners, %u routes, %u upstreams)\n",
			o.config ? o.config : "built-in demo", c->n_listeners, c->n_routes,
			c->n_upstreams);
	else
		status = run(c);
	config_free(c);
	return o.check ? EXIT_SUCCESS : status;
}
