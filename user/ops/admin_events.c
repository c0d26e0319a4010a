#include "ops/admin_events.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum {
	BLOCK_BYTES = 4096,
	SEND_BUFFER_BYTES = 65536, /* the kernel's; it would grow to megabytes */
	STOP_MS = 500,             /* for streams to end orderly */
};

/* What stands around a snapshot in the stream. `retry` is how soon a browser comes back. */
static const char event_head[] = "retry: 1000\ndata: ", event_tail[] = "\n\n";

struct viewer {
	struct admin_events *events;
	struct viewer *next;
	struct MHD_Connection *connection;
	int fd; /* of the connection, MHD's */
	bool local, suspended;
	struct live_snapshot *sending, *pending; /* begun; the newest that is not */
	size_t sent;
	unsigned missed; /* snapshots that came since it last took something */
};

/* The lock is held over MHD's suspend and resume, which take none that MHD holds when it calls
 * here. */
struct admin_events {
	struct live *live;
	pthread_mutex_t lock;
	pthread_cond_t left; /* a viewer has */
	bool stop;
	struct viewer *viewers;
	unsigned n[2]; /* [local] */
};

struct admin_events *admin_events_create(void)
{
	struct admin_events *e = calloc(1, sizeof *e);
	pthread_condattr_t attr;

	if (!e)
		return NULL;
	pthread_mutex_init(&e->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&e->left, &attr);
	pthread_condattr_destroy(&attr);
	return e;
}

void admin_events_attach(struct admin_events *e, struct live *live)
{
	e->live = live;
}

void admin_events_destroy(struct admin_events *e)
{
	if (!e)
		return;
	pthread_cond_destroy(&e->left);
	pthread_mutex_destroy(&e->lock);
	free(e);
}

/* ---- one viewer, in its connection's thread ---- */

/* Copies what [from, from + max) of a text takes of the part that begins at *at, which is moved on.
 */
static size_t copy_part(char *to, size_t max, const char *part, size_t len, size_t from, size_t *at)
{
	size_t skip = from > *at ? from - *at : 0, n;

	*at += len;
	if (skip >= len)
		return 0;
	n = len - skip < max ? len - skip : max;
	memcpy(to, part + skip, n);
	return n;
}

/* The next bytes of the event; 0: that was all. */
static size_t copy_event(const struct live_snapshot *s, size_t from, char *to, size_t max)
{
	size_t at = 0, n;

	n = copy_part(to, max, event_head, sizeof event_head - 1, from, &at);
	n += copy_part(to + n, max - n, s->json, s->len, from + n, &at);
	return n + copy_part(to + n, max - n, event_tail, sizeof event_tail - 1, from + n, &at);
}

static ssize_t read_more(void *cls, uint64_t pos, char *buf, size_t max)
{
	struct viewer *v = cls;
	struct admin_events *e = v->events;
	size_t n = 0;

	pthread_mutex_lock(&e->lock);
	if (v->sending && !(n = copy_event(v->sending, v->sent, buf, max))) {
		live_snapshot_put(v->sending);
		v->sending = NULL;
	}
	if (!v->sending && v->pending) {
		v->sending = v->pending;
		v->pending = NULL;
		v->sent = 0;
		n = copy_event(v->sending, 0, buf, max);
	}
	v->sent += n;
	if (n)
		v->missed = 0;
	if (e->stop) {
		pthread_mutex_unlock(&e->lock);
		return MHD_CONTENT_READER_END_OF_STREAM;
	}
	if (!n) {
		v->suspended = true;
		MHD_suspend_connection(v->connection);
	}
	pthread_mutex_unlock(&e->lock);
	return (ssize_t)n;
}

static void forget(void *cls)
{
	struct viewer *v = cls, **at;
	struct admin_events *e = v->events;

	pthread_mutex_lock(&e->lock);
	for (at = &e->viewers; *at != v; at = &(*at)->next)
		;
	*at = v->next;
	e->n[v->local]--;
	pthread_cond_signal(&e->left);
	pthread_mutex_unlock(&e->lock);
	live_unwatch(e->live);
	live_snapshot_put(v->sending);
	live_snapshot_put(v->pending);
	free(v);
}

static int add(struct admin_events *e, struct viewer *v)
{
	int err = 0;

	pthread_mutex_lock(&e->lock);
	if (e->stop)
		err = -ESHUTDOWN;
	else if (e->n[v->local] >= (v->local ? ADMIN_EVENTS_LOCAL_MAX : ADMIN_EVENTS_TCP_MAX))
		err = -EBUSY;
	if (!err) {
		e->n[v->local]++;
		v->next = e->viewers;
		e->viewers = v;
	}
	pthread_mutex_unlock(&e->lock);
	return err;
}

int admin_events_open(
	struct admin_events *e, struct MHD_Connection *c, bool local, struct MHD_Response **ret)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct viewer *v = calloc(1, sizeof *v);
	int err, bytes = SEND_BUFFER_BYTES;

	if (!v || !info) {
		free(v);
		return -ENOMEM;
	}
	*v = (struct viewer){.events = e, .connection = c, .fd = info->connect_fd, .local = local};
	err = add(e, v);
	if (err) {
		free(v);
		return err;
	}
	live_watch(e->live);
	setsockopt(v->fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
	*ret = MHD_create_response_from_callback(
		MHD_SIZE_UNKNOWN, BLOCK_BYTES, read_more, v, forget);
	if (*ret)
		return 0;
	forget(v);
	return -ENOMEM;
}

/* ---- all viewers ---- */

static void resume(struct viewer *v)
{
	if (!v->suspended)
		return;
	v->suspended = false;
	MHD_resume_connection(v->connection);
}

void admin_events_notify(void *ctx, struct live_snapshot *s)
{
	struct admin_events *e = ctx;

	pthread_mutex_lock(&e->lock);
	for (struct viewer *v = e->viewers; v; v = v->next) {
		if (v->sending || v->pending)
			v->missed++;
		live_snapshot_put(v->pending);
		v->pending = live_snapshot_ref(s);
		/* MHD sees the end and lets go of it, which calls forget(). */
		if (v->missed > ADMIN_EVENTS_MISSED_MAX)
			shutdown(v->fd, SHUT_RDWR);
		resume(v);
	}
	pthread_mutex_unlock(&e->lock);
}

void admin_events_stop(struct admin_events *e)
{
	struct timespec until;
	int err = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += STOP_MS * 1000000L;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&e->lock);
	e->stop = true;
	for (struct viewer *v = e->viewers; v; v = v->next)
		resume(v);
	while (e->viewers && !err)
		err = pthread_cond_timedwait(&e->left, &e->lock, &until);
	pthread_mutex_unlock(&e->lock);
}
