#include "keeper/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "keeper/channel.h"

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
enum {
	LEAK_CHECKED = 1
};
#else
enum {
	LEAK_CHECKED = 0
};
#endif

enum {
	CHILD_CHANNEL_FD = STDERR_FILENO + 1
};

static void reset_signals(void)
{
	static const int ignored[] = {SIGPIPE, SIGINT, SIGTERM, SIGHUP};
	struct sigaction sa = {.sa_handler = SIG_DFL}, was;
	sigset_t none;

	/* What the keeper's own parent chose to ignore. The keeper has no handlers; a sanitizer's
	 * are to stay. */
	for (int s = 1; s < NSIG; s++) {
		if (sigaction(s, NULL, &was) == 0 && was.sa_handler == SIG_IGN)
			sigaction(s, &sa, NULL);
	}
	sa.sa_handler = SIG_IGN;
	for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
		sigaction(ignored[i], &sa, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static int keep_only_channel(int channel, const char **ret_step)
{
	*ret_step = "moving the channel";
	if (channel != CHILD_CHANNEL_FD && dup2(channel, CHILD_CHANNEL_FD) < 0)
		return -errno;
	if (fcntl(CHILD_CHANNEL_FD, F_SETFD, FD_CLOEXEC))
		return -errno;
	*ret_step = "close_range";
	return close_range(CHILD_CHANNEL_FD + 1, ~0U, 0) ? -errno : 0;
}

/* How the leak checker gets its say: it runs in exit(), and stops threads by ptrace, which a
 * process that changed its user refuses. */
static void leave(int status)
{
	if (!LEAK_CHECKED)
		_exit(status);
	prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	exit(status);
}

static void child(const struct spawn_opts *o, int channel)
{
	const char *step;
	int r;

	reset_signals();
	prctl(PR_SET_NAME, o->name, 0, 0, 0);
	r = keep_only_channel(channel, &step);
	if (!r) {
		channel = CHILD_CHANNEL_FD;
		r = privilege_drop(o->user, &step);
	}
	if (r) {
		struct channel_record rec = {.kind = CHANNEL_FAILED};
		snprintf(rec.text, sizeof(rec.text), "giving up privileges: %s: %s", step,
			strerror(-r));
		channel_send(channel, &rec, -1);
		leave(1);
	}
	if (LEAK_CHECKED)
		prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	leave(o->child_main(o->ctx, channel));
}

int spawn_gateway(const struct spawn_opts *o, struct spawn_child *ret)
{
	int pair[2], flags, r;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return -errno;
	flags = fcntl(pair[0], F_GETFL);
	if (flags < 0 || fcntl(pair[0], F_SETFL, flags | O_NONBLOCK))
		goto err_pair;
	fflush(NULL); /* or the child would write what is buffered a second time */
	pid = fork();
	if (pid < 0)
		goto err_pair;
	if (pid == 0)
		child(o, pair[1]);
	close(pair[1]);
	*ret = (struct spawn_child){.pid = pid, .channel = pair[0]};
	return 0;

err_pair:
	r = -errno;
	close(pair[0]);
	close(pair[1]);
	return r;
}

const char *spawn_death_text(int wait_status, char *text, size_t len)
{
	if (WIFSIGNALED(wait_status))
		snprintf(text, len, "killed by signal %d (%s)%s", WTERMSIG(wait_status),
			strsignal(WTERMSIG(wait_status)),
			WCOREDUMP(wait_status) ? ", core dumped" : "");
	else
		snprintf(text, len, "exit status %d", WEXITSTATUS(wait_status));
	return text;
}

uint32_t spawn_backoff_ms(struct spawn_backoff *b, uint64_t served_ms)
{
	if (served_ms >= SPAWN_HEALTHY_MS)
		b->next_ms = 0;

	uint32_t wait_ms = b->next_ms;
	b->next_ms = wait_ms ? wait_ms * 2 : SPAWN_RESTART_MIN_MS;
	if (b->next_ms > SPAWN_RESTART_MAX_MS)
		b->next_ms = SPAWN_RESTART_MAX_MS;
	return wait_ms;
}
