/* A gateway for tests of the keeper: it takes what channel.h says, answers each connection with its
 * process id, and behaves as told. What it saw lies in memory that the test shares with it. */
#ifndef TIDEGATE_TESTS_KEEPER_GATEWAY_H
#define TIDEGATE_TESTS_KEEPER_GATEWAY_H

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "keeper/channel.h"
#include "keeper/listen.h"

enum {
	LISTENERS_MAX = 8,
	STARTS_MAX = 64,
	RECORDS_MAX = LISTENERS_MAX * LISTEN_COPIES_MAX + 3,
};

enum fake {
	FAKE_SERVES,       /* ends when told to */
	FAKE_DRAINS_LONG,  /* at DRAIN closes its listeners and waits for STOP */
	FAKE_DEAF,         /* hears neither DRAIN nor STOP */
	FAKE_FAILS,        /* at the start, and says why */
	FAKE_DIES_UNREADY, /* without a word */
	FAKE_DIES_READY,   /* right after having been ready */
	FAKE_ASKS_DRAIN,   /* itself, as for an operator */
	FAKE_STARTS_LATE,  /* reads nothing for a while */
};

struct seen {
	_Atomic unsigned starts, readies;
	_Atomic uint64_t start_ms[STARTS_MAX];
	_Atomic uint32_t epoch[STARTS_MAX];
	_Atomic int pid;
	uint16_t port[LISTENERS_MAX * LISTEN_COPIES_MAX];
	uint32_t kind[RECORDS_MAX], index[RECORDS_MAX], sub[RECORDS_MAX];
	bool right_socket[RECORDS_MAX];
	unsigned records; /* of the latest gateway */
	uid_t uid;
	gid_t gid;
	_Atomic bool drained, stopped, heard_end;
};

/* The ctx of keeper_gateway. */
struct fake_opts {
	struct seen *seen;
	enum fake fake;
	unsigned workers;
	const char *sock; /* path of the admin socket */
};

static inline uint64_t fake_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static inline void fake_sleep_ms(unsigned ms)
{
	struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

	nanosleep(&ts, NULL);
}

static inline uint16_t fake_port_of(int fd)
{
	struct sockaddr_storage addr;

	if (listen_bound_address(fd, &addr) || addr.ss_family != AF_INET)
		return 0;
	return ntohs(((struct sockaddr_in *)&addr)->sin_port);
}

static inline bool fake_is_unix(int fd, const char *path)
{
	struct sockaddr_un addr;
	socklen_t len = sizeof(addr);

	return getsockname(fd, (struct sockaddr *)&addr, &len) == 0 && addr.sun_family == AF_UNIX &&
	       strcmp(addr.sun_path, path) == 0;
}

static inline unsigned fake_receive_all(const struct fake_opts *o, int channel, int *listeners)
{
	struct seen *s = o->seen;
	struct channel_record rec;
	unsigned n = 0, i = 0;
	int fd;

	do {
		if (channel_recv(channel, &rec, &fd) != 1)
			return 0;
		s->kind[i] = rec.kind;
		s->index[i] = rec.index;
		s->sub[i] = rec.sub;
		s->right_socket[i] = rec.kind == CHANNEL_GO           ? fd == -1
				     : rec.kind == CHANNEL_ADMIN_UNIX ? fake_is_unix(fd, o->sock)
								      : fake_port_of(fd) != 0;
		i++;
		if (rec.kind == CHANNEL_LISTENER) {
			fcntl(fd, F_SETFL, O_NONBLOCK);
			s->port[n] = fake_port_of(fd);
			listeners[n++] = fd;
		}
	} while (rec.kind != CHANNEL_GO);
	s->records = i;
	s->epoch[(s->starts - 1) % STARTS_MAX] = rec.index;
	return n;
}

static inline void fake_answer(const int *listeners, unsigned n)
{
	int pid = (int)getpid(), fd;

	for (unsigned i = 0; i < n; i++) {
		while ((fd = accept(listeners[i], NULL, NULL)) >= 0) {
			if (write(fd, &pid, sizeof(pid)) < 0)
				pid = (int)getpid();
			close(fd);
		}
	}
}

/* One record of the keeper's; the exit status, or -1 to go on. */
static inline int fake_obey(
	const struct fake_opts *o, int channel, const int *listeners, unsigned n)
{
	struct channel_record rec;
	int fd, r = channel_recv(channel, &rec, &fd);

	if (r <= 0) {
		o->seen->heard_end = true;
		return 0;
	}
	if (rec.kind == CHANNEL_DRAIN) {
		o->seen->drained = true;
		for (unsigned i = 0; i < n; i++)
			close(listeners[i]);
		return o->fake == FAKE_DRAINS_LONG ? -1 : 0;
	}
	if (rec.kind == CHANNEL_STOP) {
		o->seen->stopped = true;
		return 0;
	}
	return 99;
}

static inline int keeper_gateway(void *ctx, int channel)
{
	const struct fake_opts *o = ctx;
	struct seen *s = o->seen;
	static int listeners[LISTENERS_MAX * LISTEN_COPIES_MAX];
	struct channel_record rec = {.kind = CHANNEL_FAILED};

	s->start_ms[s->starts % STARTS_MAX] = fake_now_ms();
	s->starts++;
	s->pid = (int)getpid();
	s->uid = getuid();
	s->gid = getgid();
	if (o->fake == FAKE_DIES_UNREADY)
		return 3;
	if (o->fake == FAKE_FAILS) {
		strcpy(rec.text, "no rings to be had");
		channel_send(channel, &rec, -1);
		return 1;
	}
	if (o->fake == FAKE_STARTS_LATE)
		fake_sleep_ms(300);
	unsigned n = fake_receive_all(o, channel, listeners);
	if (!n)
		return 98;
	rec = (struct channel_record){.kind = CHANNEL_READY, .sub = o->workers};
	channel_send(channel, &rec, -1);
	s->readies++;
	if (o->fake == FAKE_DIES_READY)
		return 4;
	if (o->fake == FAKE_ASKS_DRAIN) {
		rec.kind = CHANNEL_DRAIN;
		channel_send(channel, &rec, -1);
	}
	for (int status = -1;;) {
		struct pollfd p = {.fd = channel, .events = POLLIN};
		fake_answer(listeners, s->drained ? 0 : n);
		if (poll(&p, 1, 5) > 0 && o->fake != FAKE_DEAF)
			status = fake_obey(o, channel, listeners, n);
		if (status >= 0)
			return status;
		if (o->fake == FAKE_DEAF && (p.revents & POLLHUP))
			return 0; /* a test that failed leaves nothing behind */
	}
}

#endif
