#include "keeper/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int set(int fd, int level, int name, int value, const char *what, const char **ret_step)
{
	if (setsockopt(fd, level, name, &value, sizeof(value)) == 0)
		return 0;
	*ret_step = what;
	return -errno;
}

#define SET(fd, level, name, value) set(fd, level, name, value, #name, ret_step)

static int set_sockopts(int fd, const struct listen_sockopts *o, const char **ret_step)
{
	int r = 0;

	/* A privileged keeper may pass wmem_max; anyone else gets what it allows. */
	if (o->send_buffer_bytes) {
		int value = (int)o->send_buffer_bytes;
		if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &value, sizeof(value)))
			r = SET(fd, SOL_SOCKET, SO_SNDBUF, value);
	}
	if (!r && o->receive_buffer_bytes) {
		int value = (int)o->receive_buffer_bytes;
		if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &value, sizeof(value)))
			r = SET(fd, SOL_SOCKET, SO_RCVBUF, value);
	}
	if (!r && o->notsent_lowat_bytes)
		r = SET(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, (int)o->notsent_lowat_bytes);
	if (!r && o->user_timeout_ms)
		r = SET(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)o->user_timeout_ms);
	if (!r && o->nodelay)
		r = SET(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	if (!r && o->keepalive)
		r = SET(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	return r;
}

/* One listening socket. reuseport: join those already there; otherwise the address must be free. */
static int open_one(const struct listen_opts *o, const struct sockaddr_storage *addr,
	bool reuseport, int *ret_fd, const char **ret_step)
{
	int type = SOCK_STREAM | SOCK_CLOEXEC | (o->nonblock ? SOCK_NONBLOCK : 0);
	int fd = socket(addr->ss_family, type, IPPROTO_TCP);
	int r;

	if (fd < 0) {
		r = -errno;
		*ret_step = "socket";
		return r;
	}
	r = SET(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (!r && addr->ss_family == AF_INET6)
		r = SET(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	if (!r && reuseport)
		r = SET(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	if (!r)
		r = set_sockopts(fd, &o->sockopts, ret_step);
	if (r)
		goto err_fd;
	if (bind(fd, (const struct sockaddr *)addr, o->addr_len) || listen(fd, (int)o->backlog)) {
		r = -errno;
		*ret_step = NULL;
		goto err_fd;
	}
	*ret_fd = fd;
	return 0;

err_fd:
	close(fd);
	return r;
}

int listen_tcp(const struct listen_opts *o, int *ret_fds, const char **ret_step)
{
	int fds[LISTEN_COPIES_MAX];
	struct sockaddr_storage addr = o->addr;
	unsigned n = 0;
	int r;

	*ret_step = NULL;
	if (o->copies < 1 || o->copies > LISTEN_COPIES_MAX)
		return -EINVAL;

	/* The first socket takes the address alone and turns SO_REUSEPORT on only once it listens.
	 * Had it asked for it from the start, the bind would succeed beside another keeper of the
	 * same user, and the two would share the clients without a word. */
	r = open_one(o, &addr, false, &fds[0], ret_step);
	if (r)
		return r;
	n = 1;
	if (o->copies > 1) {
		r = SET(fds[0], SOL_SOCKET, SO_REUSEPORT, 1);
		if (!r)
			r = listen_bound_address(fds[0], &addr);
	}
	for (; !r && n < o->copies; n++) {
		r = open_one(o, &addr, true, &fds[n], ret_step);
		if (r)
			break;
	}
	if (r) {
		while (n > 0)
			close(fds[--n]);
		return r;
	}
	memcpy(ret_fds, fds, n * sizeof(fds[0]));
	return 0;
}

int listen_send_buffer(int fd, uint32_t *ret_bytes)
{
	int value;
	socklen_t len = sizeof(value);

	if (getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &value, &len))
		return -errno;
	*ret_bytes = (uint32_t)value / 2; /* socket(7): set values are doubled */
	return 0;
}

/* Makes each missing part of path's directory, and judges the last one. */
static int make_parents(const char *path)
{
	char dir[sizeof(((struct sockaddr_un *)0)->sun_path)];
	char *slash = NULL;
	struct stat st;

	for (size_t i = 0; path[i]; i++) {
		dir[i] = path[i];
		if (path[i] != '/')
			continue;
		slash = dir + i;
		if (i == 0)
			continue;
		dir[i] = '\0';
		if (mkdir(dir, 0755) && errno != EEXIST)
			return -errno;
		dir[i] = '/';
	}
	if (!slash)
		return 0; /* in the working directory */
	slash[slash == dir] = '\0';
	if (stat(dir, &st))
		return -errno;
	if (!S_ISDIR(st.st_mode))
		return -ENOTDIR;
	/* Whoever owns the directory can swap the socket for one of their own. */
	return st.st_uid == 0 || st.st_uid == geteuid() ? 0 : -EPERM;
}

/* 0 when the address is free, a dead socket file having been removed. */
static int clear_stale(const struct sockaddr_un *addr)
{
	struct stat st;

	if (lstat(addr->sun_path, &st))
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;

	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	int r = connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) ? -errno : 0;
	close(fd);
	if (r == -ENOENT)
		return 0;
	if (r != -ECONNREFUSED) /* an answer, or a full backlog: somebody is there */
		return r == 0 || r == -EAGAIN ? -EADDRINUSE : r;
	return unlink(addr->sun_path) && errno != ENOENT ? -errno : 0;
}

int listen_unix(const char *path, unsigned backlog, struct listen_unix *ret, const char **ret_step)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	size_t len = strlen(path);
	struct stat st;
	int r, fd;

	*ret_step = NULL;
	if (len == 0)
		return -EINVAL;
	if (len >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	memcpy(addr.sun_path, path, len + 1);

	r = make_parents(path);
	if (r) {
		*ret_step = "its directory";
		return r;
	}
	r = clear_stale(&addr);
	if (r)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		r = -errno;
		*ret_step = "socket";
		return r;
	}
	/* By the mask, not by chmod: at no moment may anyone else connect. */
	mode_t mask = umask(0177);
	r = bind(fd, (struct sockaddr *)&addr, sizeof(addr)) ? -errno : 0;
	umask(mask);
	if (r)
		goto err_fd;
	if (listen(fd, (int)backlog) || lstat(path, &st)) {
		r = -errno;
		goto err_path;
	}
	*ret = (struct listen_unix){.fd = fd, .dev = st.st_dev, .ino = st.st_ino};
	memcpy(ret->path, path, len + 1);
	return 0;

err_path:
	unlink(path);
err_fd:
	close(fd);
	return r;
}

void listen_unix_close(struct listen_unix *u)
{
	struct stat st;

	if (u->fd < 0)
		return;
	if (lstat(u->path, &st) == 0 && st.st_dev == u->dev && st.st_ino == u->ino)
		unlink(u->path);
	close(u->fd);
	u->fd = -1;
}

const char *listen_address_text(const struct sockaddr_storage *addr, char text[LISTEN_ADDRESS_TEXT])
{
	char host[INET6_ADDRSTRLEN];

	if (addr->ss_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)addr;
		inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
		snprintf(text, LISTEN_ADDRESS_TEXT, "[%s]:%u", host, ntohs(in6->sin6_port));
	} else {
		const struct sockaddr_in *in = (const struct sockaddr_in *)addr;
		inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
		snprintf(text, LISTEN_ADDRESS_TEXT, "%s:%u", host, ntohs(in->sin_port));
	}
	return text;
}

int listen_bound_address(int fd, struct sockaddr_storage *ret)
{
	struct sockaddr_storage addr = {0};
	socklen_t len = sizeof(addr);

	if (getsockname(fd, (struct sockaddr *)&addr, &len))
		return -errno;
	*ret = addr;
	return 0;
}
