/* What the keeper does before the first gateway: everything that needs privilege, or may fail for a
 * reason that somebody has to mend. */
#include "keeper/keeper_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/log.h"

enum {
	ADDRESS_RETRY_MS = 50,
};

static void say_where(const struct keeper *k)
{
	const struct descriptors *d = &k->descriptors;
	uint32_t wanted = d->o->sockopts.send_buffer_bytes, granted;
	struct sockaddr_storage addr;
	char text[LISTEN_ADDRESS_TEXT];

	for (unsigned i = 0; i < d->o->n_listeners; i++) {
		int fd = d->listeners[i * d->o->workers];
		if (listen_bound_address(fd, &addr) == 0)
			log_info("keeper", "listener %s: %s", d->o->listeners[i].name,
				listen_address_text(&addr, text));
		if (wanted && listen_send_buffer(fd, &granted) == 0 && granted < wanted)
			log_warn("keeper",
				"listener %s: send buffer %" PRIu32 " bytes instead of %" PRIu32
				", limited by net.core.wmem_max",
				d->o->listeners[i].name, granted, wanted);
	}
	if (d->admin_tcp >= 0 && listen_bound_address(d->admin_tcp, &addr) == 0)
		log_info("keeper", "admin: %s", listen_address_text(&addr, text));
	if (d->o->admin_unix)
		log_info("keeper", "admin socket: %s", d->o->admin_unix);
}

static int choose_user(struct keeper *k)
{
	const char *name = k->o->user;
	int r;

	if (geteuid() != 0)
		return 0; /* whoever started it may run it */
	r = name ? privilege_find_user(name, &k->user) : -ENOENT;
	if (r == -ENOENT)
		log_error("keeper", "user: there is no user %s to run the gateway as",
			name ? name : "given");
	else if (r == -EINVAL)
		log_error("keeper",
			"user: %s has user or group id 0; the gateway does not run as root", name);
	else if (r)
		log_error("keeper", "user: %s: %s", name, strerror(-r));
	else
		k->spawn.user = &k->user;
	return r;
}

static int take_signals(struct keeper *k)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_DFL); /* inherited as ignored, it would hide how children end */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &set, NULL))
		return -errno;
	k->sigfd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	return k->sigfd < 0 ? -errno : 0;
}

/* A gateway that has just died may hold its listeners a moment longer than its process: an accept
 * pending in a ring keeps its socket, and rings are torn down by the kernel in its own time. So an
 * address in use is worth some patience, unless a signal comes in. */
static int open_descriptors(struct keeper *k)
{
	char error[256];
	uint64_t until = keeper_now_ms() + KEEPER_ADDRESS_WAIT_MS;
	struct pollfd p = {.fd = k->sigfd, .events = POLLIN};
	int r;

	while ((r = descriptors_open(&k->descriptors, &k->o->descriptors, error, sizeof(error)))) {
		if (r != -EADDRINUSE || keeper_now_ms() >= until ||
			poll(&p, 1, ADDRESS_RETRY_MS) != 0)
			break;
		descriptors_close(&k->descriptors);
	}
	if (r)
		log_error("keeper", "%s", error);
	return r;
}

static void say_notes(char *notes)
{
	char *rest = notes, *line;

	while ((line = strsep(&rest, "\n")))
		if (*line == '!')
			log_warn("keeper", "gate: %s", line + 1);
		else if (*line)
			log_info("keeper", "gate: %s", line);
	free(notes);
}

static int open_gate(struct keeper *k)
{
	struct kernel_gate_listeners l = {.fds = k->descriptors.listeners,
		.n = k->o->descriptors.n_listeners,
		.workers = k->o->descriptors.workers};
	char error[512], *notes = NULL;
	int r;

	if (!k->o->gate)
		return 0;
	r = kernel_gate_open(k->o->gate, &l, &k->gate, &notes, error, sizeof(error));
	if (!r)
		say_notes(notes);
	else if (k->o->gate_required)
		log_error("keeper", "the gate in the kernel: %s", error);
	else
		log_warn("keeper", "no gate in the kernel, admission is in user space: %s", error);
	return k->o->gate_required ? r : 0;
}

int keeper_open(struct keeper *k)
{
	char error[512];
	int r = take_signals(k);

	if (r) {
		log_error("keeper", "signals: %s", strerror(-r));
		return r;
	}
	r = privilege_raise_limits();
	if (r)
		log_warn("keeper", "raising resource limits: %s; going on with what there is",
			strerror(-r));
	r = choose_user(k);
	if (r)
		return r;
	r = secrets_load(&k->secrets, &k->o->secrets, error, sizeof(error));
	if (r) {
		log_error("keeper", "%s", error);
		return r;
	}
	r = open_descriptors(k);
	if (r)
		return r;
	say_where(k);
	return open_gate(k);
}
