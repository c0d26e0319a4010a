#include "keeper/keeper_internal.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "keeper/channel.h"
#include "keeper/notify.h"
#include "keeper/privilege.h"
#include "keeper/spawn.h"

enum {
	/* More than a socket buffer holds, and few enough that a gateway gone mad cannot keep us
	 * from the signals. */
	RECORDS_PER_TURN = 1024,
};

static const char *const deadline_text[DEADLINES] = {
	[DEADLINE_START] = "it was not ready in time",
	[DEADLINE_END] = "it gave up and lives on",
	[DEADLINE_DRAIN] = "its drain took too long",
	[DEADLINE_STOP] = "it did not stop",
	[DEADLINE_BROKEN] = "it cannot be told what to do",
};

uint64_t keeper_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void finish(struct keeper *k, int status)
{
	if (k->done)
		return;
	k->done = true;
	k->status = status;
}

static void set_deadline(struct keeper *k, enum deadline d, uint64_t in_ms)
{
	k->kill_at_ms[d] = keeper_now_ms() + in_ms;
}

/* The earliest deadline, or DEADLINES when none is set. */
static enum deadline next_deadline(const struct keeper *k)
{
	enum deadline first = DEADLINES;

	for (enum deadline d = 0; d < DEADLINES; d++) {
		if (k->kill_at_ms[d] &&
			(first == DEADLINES || k->kill_at_ms[d] < k->kill_at_ms[first]))
			first = d;
	}
	return first;
}

static bool keys_pending(const struct keeper *k)
{
	return k->o->secrets.n && !k->keys_sent;
}

static int send_keys(struct keeper *k)
{
	struct channel_record rec = {.kind = CHANNEL_KEYS, .index = k->o->secrets.n};
	int fd, r;

	if (!keys_pending(k))
		return 0;
	fd = secrets_pack(&k->secrets);
	if (fd < 0 && k->ready) { /* it has others to go on with */
		log_error("keeper", "new keys cannot be handed over: %s", strerror(-fd));
		k->keys_sent = true;
		return 0;
	}
	if (fd < 0)
		return fd;
	r = channel_send(k->channel, &rec, fd);
	close(fd);
	k->keys_sent = r == 0;
	return r;
}

/* What the gateway is to get next: maps first, for GO is the last of the descriptors' records. */
static bool handover_record(const struct keeper *k, struct channel_record *ret, int *ret_fd)
{
	unsigned maps = k->gate ? BPF_SHARED_MAP_COUNT : 0;

	if (k->handed_over < maps)
		return kernel_gate_record(k->gate, k->handed_over, ret, ret_fd);
	return descriptors_record(&k->descriptors, k->handed_over - maps, ret, ret_fd);
}

/* Sends what there is to send, in the order channel.h promises. 0, or -EAGAIN when the rest must
 * wait, or -errno. */
static int send_pending(struct keeper *k)
{
	struct channel_record rec;
	int fd, r;

	if (k->stopping && !k->stop_sent) {
		rec = (struct channel_record){.kind = CHANNEL_STOP};
		r = channel_send(k->channel, &rec, -1);
		if (r)
			return r;
		k->stop_sent = true;
	}
	while (handover_record(k, &rec, &fd)) {
		if (rec.kind == CHANNEL_GO) {
			rec.index = k->epoch;
			r = send_keys(k);
			if (r)
				return r;
		}
		r = channel_send(k->channel, &rec, fd);
		if (r)
			return r;
		k->handed_over++;
	}
	r = send_keys(k);
	if (r)
		return r;
	if (k->log_reopened) {
		rec = (struct channel_record){.kind = CHANNEL_ACCESS_LOG};
		r = channel_send(k->channel, &rec, k->descriptors.access_log);
		if (r)
			return r;
		k->log_reopened = false;
	}
	if (k->draining && !k->drain_sent) {
		rec = (struct channel_record){.kind = CHANNEL_DRAIN};
		r = channel_send(k->channel, &rec, -1);
		if (r)
			return r;
		k->drain_sent = true;
		/* While ours were open, newcomers would pile up in a backlog nobody serves. */
		descriptors_close_listeners(&k->descriptors);
	}
	return 0;
}

static void channel_ended(struct keeper *k)
{
	close(k->channel);
	k->channel = -1;
	set_deadline(k, DEADLINE_END, KEEPER_END_LIMIT_MS);
}

static void flush_channel(struct keeper *k)
{
	if (k->channel < 0)
		return;
	int r = send_pending(k);
	if (r == 0 || r == -EAGAIN || r == -EPIPE) /* EPIPE: reading will tell */
		return;
	log_error("keeper", "sending to the gateway (pid %d): %s", (int)k->pid, strerror(-r));
	channel_ended(k);
	set_deadline(k, DEADLINE_BROKEN, 0);
}

static void start_gateway(struct keeper *k)
{
	struct spawn_child c;
	int r = spawn_gateway(&k->spawn, &c);

	if (r) {
		if (!k->ever_ready) {
			log_error("keeper", "starting the gateway: %s", strerror(-r));
			finish(k, 1);
			return;
		}
		uint32_t wait_ms = spawn_backoff_ms(&k->backoff, 0);
		log_error("keeper", "starting the gateway: %s; trying again in %" PRIu32 " ms",
			strerror(-r), wait_ms);
		k->start_at_ms = keeper_now_ms() + wait_ms;
		return;
	}
	k->pid = c.pid;
	k->channel = c.channel;
	/* Of the clock, so that it grows over restarts of the keeper too. */
	uint32_t seconds = (uint32_t)time(NULL);
	k->epoch = seconds > k->epoch ? seconds : k->epoch + 1;
	k->handed_over = 0;
	k->keys_sent = false;
	k->log_reopened = false; /* it is handed over with the rest */
	k->ready = false;
	k->failed[0] = '\0';
	k->killed = false;
	memset(k->kill_at_ms, 0, sizeof(k->kill_at_ms));
	set_deadline(k, DEADLINE_START, KEEPER_START_LIMIT_MS);
	flush_channel(k);
}

static void drain(struct keeper *k, const char *why)
{
	if (k->draining)
		return;
	log_info("keeper", "%s: draining", why);
	notify_send("STOPPING=1");
	k->draining = true;
	if (!k->pid) {
		finish(k, 0);
		return;
	}
	k->kill_at_ms[DEADLINE_START] = 0; /* it may end without having been ready */
	if (k->o->drain_limit_ms)
		set_deadline(k, DEADLINE_DRAIN, k->o->drain_limit_ms);
	flush_channel(k);
}

static void stop(struct keeper *k, const char *why)
{
	if (k->stopping)
		return;
	log_info("keeper", "%s: stopping at once", why);
	k->stopping = true;
	if (!k->pid) {
		finish(k, 0);
		return;
	}
	set_deadline(k, DEADLINE_STOP, KEEPER_STOP_MS);
	flush_channel(k);
}

static void on_ready(struct keeper *k, unsigned workers)
{
	char state[64];

	if (k->ready)
		return;
	k->ready = true;
	k->ready_since_ms = keeper_now_ms();
	k->kill_at_ms[DEADLINE_START] = 0;
	log_info("keeper", "gateway (pid %d) is serving, %u workers", (int)k->pid, workers);
	if (k->ever_ready)
		return;
	k->ever_ready = true;
	snprintf(state, sizeof(state), "READY=1\nMAINPID=%d", (int)getpid());
	int r = notify_send(state);
	if (r)
		log_warn("keeper", "telling the service manager: %s", strerror(-r));
}

static void sample(struct keeper *k, uint32_t percent)
{
	char error[256];
	int err = -EINVAL;

	snprintf(error, sizeof error, "not within 0..100: %" PRIu32, percent);
	if (percent <= 100)
		err = kernel_gate_sample(k->gate, percent, error, sizeof error);
	if (err)
		log_warn("keeper", "wake delays are not measured: %s", error);
	else
		log_info("keeper", "wake delays of %" PRIu32 " %% of the sockets are measured",
			percent);
}

static void on_record(struct keeper *k, const struct channel_record *rec)
{
	switch (rec->kind) {
	case CHANNEL_READY:
		on_ready(k, rec->sub);
		break;
	case CHANNEL_FAILED:
		memcpy(k->failed, rec->text, sizeof(k->failed));
		set_deadline(k, DEADLINE_END, KEEPER_END_LIMIT_MS);
		break;
	case CHANNEL_DRAIN:
		drain(k, "asked through the gateway");
		break;
	case CHANNEL_SAMPLE:
		sample(k, rec->index);
		break;
	default: /* the gateway faces the network: what it says is input */
		log_warn("keeper", "gateway (pid %d) sent an unknown record, kind %" PRIu32,
			(int)k->pid, rec->kind);
		break;
	}
}

static void read_channel(struct keeper *k)
{
	struct channel_record rec;
	int fd;

	for (unsigned n = 0; n < RECORDS_PER_TURN && k->channel >= 0; n++) {
		int r = channel_recv(k->channel, &rec, &fd);
		if (r == -EAGAIN)
			return;
		if (r == 1) {
			if (fd >= 0) /* nobody asked for one */
				close(fd);
			on_record(k, &rec);
		} else if (r == -EBADMSG) {
			log_warn("keeper", "gateway (pid %d) sent a malformed record", (int)k->pid);
		} else {
			if (r < 0)
				log_error("keeper", "reading from the gateway (pid %d): %s",
					(int)k->pid, strerror(-r));
			channel_ended(k);
		}
	}
}

static void on_death(struct keeper *k, int wait_status)
{
	char how[128];
	int pid = (int)k->pid;

	read_channel(k); /* its last words */
	if (k->channel >= 0)
		close(k->channel);
	k->channel = -1;
	k->pid = 0;
	kernel_gate_vacant(k->gate);
	spawn_death_text(wait_status, how, sizeof(how));

	if (k->draining || k->stopping) {
		bool clean = !k->killed && WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0;
		if (clean)
			log_info("keeper", "gateway (pid %d) has ended", pid);
		else
			log_error("keeper", "gateway (pid %d) did not end cleanly: %s%s%s", pid,
				how, k->failed[0] ? ": " : "", k->failed);
		finish(k, clean ? 0 : 1);
		return;
	}
	if (!k->ever_ready) {
		if (k->failed[0])
			log_error("keeper", "the gateway could not start: %s", k->failed);
		else
			log_error("keeper", "the gateway could not start: %s", how);
		finish(k, 1);
		return;
	}
	uint64_t now = keeper_now_ms();
	uint32_t wait_ms = spawn_backoff_ms(&k->backoff, k->ready ? now - k->ready_since_ms : 0);
	k->start_at_ms = now + wait_ms;
	log_error("keeper", "gateway (pid %d) died: %s%s%s; starting another in %" PRIu32 " ms",
		pid, how, k->failed[0] ? ": " : "", k->failed, wait_ms);
}

static void reap(struct keeper *k)
{
	int wait_status;
	pid_t pid;

	/* Several deaths may share one SIGCHLD, and orphans may have been left to us. */
	while ((pid = waitpid(-1, &wait_status, WNOHANG)) > 0) {
		if (pid == k->pid)
			on_death(k, wait_status);
	}
}

static void on_hangup(struct keeper *k)
{
	if (k->descriptors.access_log >= 0) {
		int r = descriptors_reopen_access_log(&k->descriptors);

		if (r) {
			log_error("keeper", "SIGHUP: access log: %s: %s; lines go to the old file",
				k->o->descriptors.access_log, strerror(-r));
		} else {
			log_info("keeper", "SIGHUP: access log %s opened anew",
				k->o->descriptors.access_log);
			k->log_reopened = true;
			flush_channel(k);
		}
	}
	log_warn("keeper", "SIGHUP: reloading is not supported yet; restart to apply changes");
}

static void read_signals(struct keeper *k)
{
	struct signalfd_siginfo si;

	while (read(k->sigfd, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
		switch (si.ssi_signo) {
		case SIGTERM:
			drain(k, "SIGTERM");
			break;
		case SIGINT:
			if (k->draining)
				stop(k, "SIGINT");
			else
				drain(k, "SIGINT");
			break;
		case SIGHUP:
			on_hangup(k);
			break;
		case SIGCHLD:
			reap(k);
			break;
		}
	}
}

static void on_time(struct keeper *k)
{
	uint64_t now = keeper_now_ms();

	if (!k->pid) {
		if (now >= k->start_at_ms)
			start_gateway(k);
		return;
	}
	enum deadline d = next_deadline(k);
	if (!k->killed && d != DEADLINES && now >= k->kill_at_ms[d]) {
		log_error("keeper", "killing the gateway (pid %d): %s", (int)k->pid,
			deadline_text[d]);
		k->killed = true;
		kill(k->pid, SIGKILL);
	}
}

static int timeout_ms(const struct keeper *k)
{
	enum deadline d = next_deadline(k);
	uint64_t at = k->start_at_ms, now = keeper_now_ms();

	if (k->pid) {
		if (k->killed || d == DEADLINES)
			return k->o->secrets.n ? SECRETS_POLL_MS : -1;
		at = k->kill_at_ms[d];
	}
	if (k->o->secrets.n && at > now + SECRETS_POLL_MS)
		at = now + SECRETS_POLL_MS;
	if (at <= now)
		return 0;
	return at - now > INT_MAX ? INT_MAX : (int)(at - now);
}

static bool something_pending(const struct keeper *k)
{
	struct channel_record rec;
	int fd;

	return handover_record(k, &rec, &fd) || keys_pending(k) || k->log_reopened ||
	       k->drain_sent != k->draining || k->stop_sent != k->stopping;
}

static void loop(struct keeper *k)
{
	while (!k->done) {
		on_time(k);
		if (k->o->secrets.n && secrets_poll(&k->secrets, keeper_now_ms())) {
			k->keys_sent = false;
			flush_channel(k);
		}
		if (k->done)
			break;
		struct pollfd p[2] = {
			{.fd = k->sigfd, .events = POLLIN},
			{.fd = k->channel, .events = POLLIN}, /* negative: left out */
		};
		if (something_pending(k))
			p[1].events |= POLLOUT;
		if (poll(p, 2, timeout_ms(k)) < 0) {
			if (errno == EINTR)
				continue;
			log_error("keeper", "poll: %s", strerror(errno));
			finish(k, 1);
			break;
		}
		if (p[1].revents & POLLOUT)
			flush_channel(k);
		if (p[1].revents & (POLLIN | POLLHUP | POLLERR))
			read_channel(k);
		if (p[0].revents)
			read_signals(k);
	}
}
int keeper_run(const struct keeper_opts *opts)
{
	struct keeper k = {
		.o = opts,
		.sigfd = -1,
		.descriptors = {.admin_tcp = -1, .admin_unix = {.fd = -1}, .access_log = -1},
		.channel = -1,
		.status = 1,
		.spawn = {.name = "tidegate-gw",
			.child_main = opts->gateway_main,
			.ctx = opts->ctx},
	};

	assert(opts->descriptors.workers > 0 && opts->descriptors.workers <= LISTEN_COPIES_MAX);
	prctl(PR_SET_NAME, "tidegate", 0, 0, 0);
	if (keeper_open(&k) == 0)
		loop(&k);

	if (k.pid) { /* only when the loop itself failed */
		kill(k.pid, SIGKILL);
		waitpid(k.pid, NULL, 0);
	}
	if (k.channel >= 0)
		close(k.channel);
	kernel_gate_close(k.gate, true);
	descriptors_close(&k.descriptors);
	secrets_fini(&k.secrets);
	if (k.sigfd >= 0)
		close(k.sigfd);
	return k.status;
}
