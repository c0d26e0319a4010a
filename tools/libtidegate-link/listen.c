/* Listeners and new connections. */
#include "internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
	BACKLOG = 1024,
	HOST_MAX = 64,  /* a numeric IPv6 address with a zone */
	TEXT_MAX = 160, /* "unix:" and a socket path, or "[" host "]:" port */
};

struct address {
	struct sockaddr_storage sa;
	socklen_t len;
};

static int parse_unix(const char *path, struct address *ret)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&ret->sa;
	size_t len = strlen(path);
	if (len == 0 || len >= sizeof(un->sun_path))
		return -EINVAL;
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path, len + 1);
	ret->len = sizeof(*un);
	return 0;
}

static int parse_tcp(const char *text, struct address *ret)
{
	const char *host = text, *host_end, *port;
	if (*text == '[') {
		host++;
		host_end = strchr(host, ']');
		if (!host_end || host_end[1] != ':')
			return -EINVAL;
		port = host_end + 2;
	} else {
		host_end = strchr(text, ':');
		if (!host_end || strchr(host_end + 1, ':'))
			return -EINVAL;
		port = host_end + 1;
	}
	char name[HOST_MAX];
	size_t len = (size_t)(host_end - host), digits = strspn(port, "0123456789");
	if (len == 0 || len >= sizeof(name))
		return -EINVAL;
	/* getaddrinfo would take a port modulo 65536. */
	if (digits < 1 || digits > 5 || port[digits] || atoi(port) > UINT16_MAX)
		return -EINVAL;
	memcpy(name, host, len);
	name[len] = 0;
	/* Numeric only: a look-up could block. */
	struct addrinfo *ai,
		hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
	if (getaddrinfo(name, port, &hints, &ai))
		return -EINVAL;
	memcpy(&ret->sa, ai->ai_addr, ai->ai_addrlen);
	ret->len = ai->ai_addrlen;
	freeaddrinfo(ai);
	return 0;
}

static int parse_address(const char *text, struct address *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (strncmp(text, "unix:", 5) == 0)
		return parse_unix(text + 5, ret);
	return parse_tcp(strncmp(text, "tcp://", 6) == 0 ? text + 6 : text, ret);
}

/* The address in use, as tg_link_server_listen would take it. */
static int format_address(int fd, char *out, size_t size)
{
	struct address a = {.len = sizeof(a.sa)};
	if (getsockname(fd, (struct sockaddr *)&a.sa, &a.len))
		return -errno;
	if (a.sa.ss_family == AF_UNIX) {
		snprintf(out, size, "unix:%s", ((struct sockaddr_un *)&a.sa)->sun_path);
		return 0;
	}
	char host[HOST_MAX], port[8];
	if (getnameinfo((struct sockaddr *)&a.sa, a.len, host, sizeof(host), port, sizeof(port),
		    NI_NUMERICHOST | NI_NUMERICSERV))
		return -EINVAL;
	snprintf(out, size, a.sa.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
	return 0;
}

/* True when nobody accepts at a Unix socket that exists: its owner died without removing it. */
static bool stale_socket(const struct address *a)
{
	struct stat st;
	if (lstat(((const struct sockaddr_un *)&a->sa)->sun_path, &st) || !S_ISSOCK(st.st_mode))
		return false;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return false;
	bool stale = connect(fd, (const struct sockaddr *)&a->sa, a->len) && errno == ECONNREFUSED;
	close(fd);
	return stale;
}

static int bind_and_listen(int fd, const struct address *a)
{
	int one = 1;
	if (a->sa.ss_family == AF_UNIX) {
		if (stale_socket(a))
			unlink(((const struct sockaddr_un *)&a->sa)->sun_path);
	} else if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one))) {
		return -errno;
	}
	if (bind(fd, (const struct sockaddr *)&a->sa, a->len) || listen(fd, BACKLOG))
		return -errno;
	return 0;
}

int tg_link_server_listen(struct tg_link_server *server, const char *address)
{
	struct address a;
	char text[TEXT_MAX];
	if (server->draining)
		return -ESHUTDOWN;
	int err = parse_address(address, &a);
	if (err)
		return err;
	int fd = socket(a.sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	err = bind_and_listen(fd, &a);
	if (!err)
		err = format_address(fd, text, sizeof(text));
	if (err)
		goto err_fd;
	struct tgl_listener *l = calloc(1, sizeof(*l) + strlen(text) + 1);
	if (!l) {
		err = -ENOMEM;
		goto err_fd;
	}
	l->source = (struct tgl_source){TGL_LISTENER, fd};
	strcpy(l->text, text);
	struct stat st;
	if (a.sa.ss_family == AF_UNIX && lstat(text + 5, &st) == 0) {
		l->is_unix = true;
		l->dev = st.st_dev;
		l->ino = st.st_ino;
	}
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = l};
	if (epoll_ctl(server->epoll_fd, EPOLL_CTL_ADD, fd, &ev)) {
		err = -errno;
		goto err_listener;
	}
	struct tgl_listener **end = &server->listeners;
	while (*end)
		end = &(*end)->next;
	*end = l;
	return 0;

err_listener:
	free(l);
err_fd:
	close(fd);
	return err;
}

int tg_link_server_address(
	const struct tg_link_server *server, unsigned index, char *out, size_t out_size)
{
	const struct tgl_listener *l = server->listeners;
	while (l && index-- > 0)
		l = l->next;
	if (!l)
		return -ENOENT;
	if (strlen(l->text) >= out_size)
		return -ENOSPC;
	strcpy(out, l->text);
	return 0;
}

void tgl_listeners_close(struct tg_link_server *server)
{
	for (struct tgl_listener *l = server->listeners; l; l = l->next) {
		struct stat st;
		if (l->source.fd < 0)
			continue;
		close(l->source.fd);
		l->source.fd = -1;
		l->paused = false;
		/* Somebody else may listen at the same path by now. */
		if (l->is_unix && lstat(l->text + 5, &st) == 0 && st.st_dev == l->dev &&
			st.st_ino == l->ino)
			unlink(l->text + 5);
	}
}

void tgl_listeners_free(struct tg_link_server *server)
{
	for (struct tgl_listener *l; (l = server->listeners);) {
		server->listeners = l->next;
		free(l);
	}
}

static void listener_watch(struct tg_link_server *server, struct tgl_listener *l, bool on)
{
	struct epoll_event ev = {.events = on ? EPOLLIN : 0, .data.ptr = l};
	if (epoll_ctl(server->epoll_fd, EPOLL_CTL_MOD, l->source.fd, &ev) == 0)
		l->paused = !on;
}

void tgl_listener_ready(struct tg_link_server *server, struct tgl_listener *l)
{
	for (int i = 0; i < TGL_ACCEPTS_PER_ROUND && l->source.fd >= 0; i++) {
		int fd = accept4(l->source.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0) {
			/* Without a pause a level-triggered listener would spin until descriptors
			 * are free again. */
			if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
				errno == ENOMEM)
				listener_watch(server, l, false);
			return;
		}
		struct tg_link *link;
		int one = 1;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one,
			sizeof(one)); /* fails on Unix sockets, which need none */
		if (tgl_link_create(server, fd, &link)) {
			close(fd);
		} else if (server->n_links > server->opts.links_max) {
			server->stats.links_refused++;
			tgl_fail(link, TG_LINK_ERROR_REFUSED, false, "too many links");
		}
	}
}

void tgl_listener_resume(struct tg_link_server *server, struct tgl_listener *l)
{
	if (l->paused)
		listener_watch(server, l, true);
}

int tg_link_server_adopt(struct tg_link_server *server, int fd)
{
	struct tg_link *link;
	if (server->draining)
		return -ESHUTDOWN;
	if (server->n_links >= server->opts.links_max)
		return -EMFILE;
	int flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK))
		return -errno;
	return tgl_link_create(server, fd, &link);
}
