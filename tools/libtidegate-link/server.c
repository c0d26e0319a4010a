/* The server: its life, dispatch, and the call-backs that are owed. */
#include "internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum {
	EVENTS_PER_ROUND = 64,
	FLUSH_ROUNDS = 4, /* on_writable may send again; beyond this the next dispatch goes on */
};

uint64_t tgl_now_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

void tgl_wake(struct tg_link_server *server)
{
	if (server->woken)
		return;
	server->woken = true;
	uint64_t one = 1;
	/* Fails only when it is set already. */
	ssize_t n = write(server->wake.fd, &one, sizeof(one));
	(void)n;
}

void tgl_tick_update(struct tg_link_server *server)
{
	bool want = !TAILQ_EMPTY(&server->links);
	for (const struct tgl_listener *l = server->listeners; l; l = l->next)
		want = want || l->paused;
	if (want == server->ticking)
		return;
	struct itimerspec it = {0};
	if (want) {
		it.it_interval.tv_sec = server->tick_ms / 1000;
		it.it_interval.tv_nsec = (long)(server->tick_ms % 1000) * 1000000;
		it.it_value = it.it_interval;
	}
	if (timerfd_settime(server->tick.fd, 0, &it, NULL) == 0)
		server->ticking = want;
}

static int fill_defaults(struct tg_link_server_opts *o)
{
	o->name = o->name ? o->name : "service";
	o->session_window = o->session_window ? o->session_window : 256 * 1024;
	o->link_window = o->link_window ? o->link_window : 8 * 1024 * 1024;
	o->message_max = o->message_max ? o->message_max : 16 * 1024 * 1024;
	o->assembly_max = o->assembly_max ? o->assembly_max : 256 * 1024 * 1024;
	o->send_queue_max = o->send_queue_max ? o->send_queue_max : 1024 * 1024;
	o->links_max = o->links_max ? o->links_max : 1024;
	o->sessions_max = o->sessions_max ? o->sessions_max : 1000000;
	o->hello_timeout_ms = o->hello_timeout_ms ? o->hello_timeout_ms : 5000;
	o->ping_interval_ms = o->ping_interval_ms ? o->ping_interval_ms : 10000;
	o->ping_timeout_ms = o->ping_timeout_ms ? o->ping_timeout_ms : 10000;
	if (!o->ops || !link_name_valid(o->name, strlen(o->name)))
		return -EINVAL;
	if (o->session_window < TG_LINK_WINDOW_MIN || o->session_window > TG_LINK_WINDOW_MAX ||
		o->link_window < TG_LINK_WINDOW_MIN || o->link_window > TG_LINK_WINDOW_MAX)
		return -EINVAL;
	return 0;
}

/* Often enough for the shortest time-out to be a quarter late at most. */
static unsigned tick_interval(const struct tg_link_server_opts *o)
{
	uint32_t least = o->hello_timeout_ms;
	least = o->ping_interval_ms < least ? o->ping_interval_ms : least;
	least = o->ping_timeout_ms < least ? o->ping_timeout_ms : least;
	least /= 4;
	return least < 10 ? 10 : least > 250 ? 250 : least;
}

static int watch(struct tg_link_server *server, struct tgl_source *source)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = source};
	return epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, source->fd, &ev) ? -errno : 0;
}

int tg_link_server_create(const struct tg_link_server_opts *opts, struct tg_link_server **ret)
{
	struct tg_link_server_opts o = *opts;
	int err = fill_defaults(&o);
	if (err)
		return err;
	struct tg_link_server *server = calloc(1, sizeof(*server));
	if (!server)
		return -ENOMEM;
	server->opts = o;
	server->ops = *o.ops;
	memcpy(server->name, o.name, strlen(o.name));
	server->opts.name = server->name;
	server->tick_ms = tick_interval(&o);
	TAILQ_INIT(&server->links);
	TAILQ_INIT(&server->dead);
	TAILQ_INIT(&server->dirty);
	TAILQ_INIT(&server->failed);
	TAILQ_INIT(&server->ended);
	TAILQ_INIT(&server->writable);
	server->wake = (struct tgl_source){TGL_WAKE, eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
	if (server->wake.fd < 0) {
		err = -errno;
		goto err_server;
	}
	server->tick = (struct tgl_source){
		TGL_TICK, timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)};
	if (server->tick.fd < 0) {
		err = -errno;
		goto err_wake;
	}
	server->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (server->epoll_fd < 0) {
		err = -errno;
		goto err_tick;
	}
	err = watch(server, &server->wake);
	if (!err)
		err = watch(server, &server->tick);
	if (err)
		goto err_epoll;
	*ret = server;
	return 0;

err_epoll:
	close(server->epoll_fd);
err_tick:
	close(server->tick.fd);
err_wake:
	close(server->wake.fd);
err_server:
	free(server);
	return err;
}

static void free_dead(struct tg_link_server *server)
{
	for (struct tg_link *l; (l = TAILQ_FIRST(&server->dead));) {
		TAILQ_REMOVE(&server->dead, l, on_server);
		tgl_link_free(l);
	}
}

void tg_link_server_destroy(struct tg_link_server *server)
{
	if (!server)
		return;
	server->dispatching = true;
	tgl_listeners_close(server);
	struct tg_link *l, *next;
	for (l = TAILQ_FIRST(&server->links); l; l = next) {
		next = TAILQ_NEXT(l, on_server);
		tgl_flush(l);
		tgl_fail(l, TG_LINK_ERROR_NONE, false, "service stopped");
	}
	tgl_notify(server);
	while ((l = TAILQ_FIRST(&server->links)))
		tgl_link_kill(l);
	free_dead(server);
	tgl_listeners_free(server);
	close(server->epoll_fd);
	close(server->tick.fd);
	close(server->wake.fd);
	free(server);
}

int tg_link_server_fd(const struct tg_link_server *server)
{
	return server->epoll_fd;
}

static void notify_closed(struct tg_link_server *server, struct tg_link_session *s)
{
	struct tg_link_close_info info = {
		.by = s->end_by,
		.code = s->end_code,
		.reason = s->end_reason ? s->end_reason : "",
		.messages_in = s->messages_in,
		.messages_out = s->messages_out,
	};
	TAILQ_REMOVE(&server->ended, s, on_link);
	if (server->ops.on_close)
		server->ops.on_close(server->opts.ctx, s, &info);
	tgl_session_free(s);
}

/* The order matters: an ended session may still be on the writable list, and a failed link has
 * sessions on the ended list. */
void tgl_notify(struct tg_link_server *server)
{
	for (;;) {
		struct tg_link_session *s = TAILQ_FIRST(&server->writable);
		struct tg_link *l;
		if (s) {
			TAILQ_REMOVE(&server->writable, s, on_writable);
			s->writable_due = false;
			if (s->state == TGL_OPEN && server->ops.on_writable)
				server->ops.on_writable(server->opts.ctx, s);
		} else if ((s = TAILQ_FIRST(&server->ended))) {
			notify_closed(server, s);
		} else if ((l = TAILQ_FIRST(&server->failed))) {
			TAILQ_REMOVE(&server->failed, l, on_failed);
			if (server->ops.on_link_down)
				server->ops.on_link_down(
					server->opts.ctx, l, l->why, l->protocol_error);
			tgl_linger(l);
		} else {
			return;
		}
	}
}

/* Takes the count out of an eventfd or timerfd, so that it is no longer readable. */
static void acknowledge(int fd)
{
	uint64_t count;
	ssize_t n = read(fd, &count, sizeof(count));
	(void)n;
}

static void tick(struct tg_link_server *server)
{
	acknowledge(server->tick.fd);
	struct tg_link *l, *next;
	for (l = TAILQ_FIRST(&server->links); l; l = next) {
		next = TAILQ_NEXT(l, on_server);
		tgl_link_tick(l);
	}
	for (struct tgl_listener *listener = server->listeners; listener; listener = listener->next)
		tgl_listener_resume(server, listener);
}

static void handle(struct tg_link_server *server, const struct epoll_event *ev)
{
	struct tgl_source *source = ev->data.ptr;
	struct tg_link *l = ev->data.ptr; /* source is its first member */
	switch (source->kind) {
	case TGL_LISTENER:
		tgl_listener_ready(server, ev->data.ptr);
		break;
	case TGL_LINK:
		if (ev->events & (EPOLLIN | EPOLLHUP | EPOLLERR))
			tgl_readable(l);
		if (ev->events & EPOLLOUT)
			tgl_dirty(l);
		break;
	case TGL_WAKE:
		server->woken = false;
		acknowledge(server->wake.fd);
		break;
	case TGL_TICK:
		tick(server);
		break;
	}
}

int tg_link_server_dispatch(struct tg_link_server *server, int timeout_ms)
{
	if (server->dispatching)
		return -EBUSY;
	struct epoll_event events[EVENTS_PER_ROUND];
	int n = epoll_wait(server->epoll_fd, events, EVENTS_PER_ROUND, timeout_ms);
	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	server->dispatching = true;
	server->now_ms = tgl_now_ms();
	for (int i = 0; i < n; i++) {
		handle(server, &events[i]);
		tgl_notify(server);
	}
	for (int round = 0; round < FLUSH_ROUNDS && !TAILQ_EMPTY(&server->dirty); round++) {
		struct tgl_links dirty = TAILQ_HEAD_INITIALIZER(dirty);
		TAILQ_CONCAT(&dirty, &server->dirty, on_dirty);
		for (struct tg_link *l; (l = TAILQ_FIRST(&dirty));) {
			TAILQ_REMOVE(&dirty, l, on_dirty);
			l->dirty = false;
			tgl_flush(l);
		}
		tgl_notify(server);
	}
	free_dead(server);
	tgl_tick_update(server);
	server->dispatching = false;
	if (!TAILQ_EMPTY(&server->dirty))
		tgl_wake(server);
	return n;
}

int tg_link_drain(struct tg_link_server *server, uint32_t grace_ms)
{
	server->draining = true;
	server->drain_grace_ms = grace_ms;
	tgl_listeners_close(server);
	struct tg_link *l, *next;
	for (l = TAILQ_FIRST(&server->links); l; l = next) {
		next = TAILQ_NEXT(l, on_server);
		uint8_t *out =
			l->state == TGL_LINK_UP ? tgl_out_reserve(l, LINK_DRAIN_FRAME_LEN) : NULL;
		if (out)
			tgl_out_commit(l, link_drain_write(out, grace_ms));
	}
	return 0;
}

void tg_link_server_stats(const struct tg_link_server *server, struct tg_link_stats *ret)
{
	*ret = server->stats;
}
