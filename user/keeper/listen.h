/* Opens the listening sockets: data listeners, the admin port, the admin Unix socket.
 *
 * Keeper only, before the first gateway is spawned. What is set on a listener is inherited by the
 * sockets it accepts. Errors are -errno; *ret_step names the step that failed ("SO_SNDBUF"), or is
 * NULL when it was taking the address itself, where the errno says all there is to say. All
 * descriptors are close-on-exec.
 */
#ifndef TIDEGATE_KEEPER_LISTEN_H
#define TIDEGATE_KEEPER_LISTEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

enum {
	LISTEN_COPIES_MAX = 64, /* one per worker */
	LISTEN_ADDRESS_TEXT = 64,
};

struct listen_sockopts {
	/* SO_SNDBUF, which the kernel doubles for its own book-keeping; 0: the kernel's sizing. */
	uint32_t send_buffer_bytes;
	uint32_t receive_buffer_bytes; /* SO_RCVBUF, doubled likewise; 0: the kernel's sizing */
	uint32_t notsent_lowat_bytes; /* TCP_NOTSENT_LOWAT; 0: off */
	uint32_t user_timeout_ms;     /* TCP_USER_TIMEOUT; 0: off */
	bool nodelay;                 /* TCP_NODELAY */
	bool keepalive;               /* SO_KEEPALIVE, with the system's intervals */
};

struct listen_opts {
	/* AF_INET or AF_INET6. Port 0: the kernel picks one, the same for all copies. */
	struct sockaddr_storage addr;
	socklen_t addr_len;
	unsigned backlog;
	/* 1..LISTEN_COPIES_MAX sockets that share the address by SO_REUSEPORT; 1: without it. */
	unsigned copies;
	/* For poll loops. Not for io_uring, where an accept on such a socket may answer EAGAIN
	 * instead of waiting. */
	bool nonblock;
	struct listen_sockopts sockopts;
};

/* Opens all copies into ret_fds[copies], or none. -EADDRINUSE also when the address belongs to
 * another program of the same user that shares ports, such as a second keeper. */
int listen_tcp(const struct listen_opts *opts, int *ret_fds, const char **ret_step);

/* The send buffer the kernel granted, in the unit of send_buffer_bytes (net.core.wmem_max caps it
 * silently). 0 or -errno. */
int listen_send_buffer(int fd, uint32_t *ret_bytes);

/* A non-blocking Unix socket in the file system, mode 0600, owned by the calling user. */
struct listen_unix {
	int fd;
	char path[108]; /* sockaddr_un.sun_path */
	dev_t dev;      /* which file it is: somebody may have put another in its place since */
	ino_t ino;
};

/* Makes missing parent directories (0755 less the umask) and takes the place of a socket file
 * nobody answers on. -EADDRINUSE: somebody does. -EEXIST: the path is no socket. -EPERM: its
 * directory belongs to another user. -ENAMETOOLONG. */
int listen_unix(const char *path, unsigned backlog, struct listen_unix *ret, const char **ret_step);

/* Closes it and removes the file if it is still the one that was made. */
void listen_unix_close(struct listen_unix *u);

/* "127.0.0.1:8080", "[::1]:8080". Returns text. */
const char *listen_address_text(
	const struct sockaddr_storage *addr, char text[LISTEN_ADDRESS_TEXT]);

/* The address a socket is bound to, to learn the port that port 0 became. 0 or -errno. */
int listen_bound_address(int fd, struct sockaddr_storage *ret);

#endif
