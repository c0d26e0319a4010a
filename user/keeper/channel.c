#include "keeper/channel.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	/* One descriptor is expected; room for more, so that a peer's surplus can be closed instead
	 * of lost. */
	CHANNEL_FDS_MAX = 8,
};

union control {
	struct cmsghdr align;
	char buf[CMSG_SPACE(sizeof(int) * CHANNEL_FDS_MAX)];
};

int channel_send(int sock, const struct channel_record *rec, int fd)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)rec, .iov_len = sizeof(*rec)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	union control control;
	ssize_t n;

	if (fd >= 0) {
		memset(&control, 0, sizeof(control));
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
	}
	do {
		n = sendmsg(sock, &msg, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

/* Takes the descriptors of a message: how many, the first of them in *ret_fd, the rest closed. */
static unsigned take_fds(struct msghdr *msg, int *ret_fd)
{
	unsigned taken = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (taken++ == 0)
				*ret_fd = fd;
			else
				close(fd);
		}
	}
	return taken;
}

int channel_recv(int sock, struct channel_record *ret, int *ret_fd)
{
	struct channel_record rec;
	struct iovec iov = {.iov_base = &rec, .iov_len = sizeof(rec)};
	union control control;
	struct msghdr msg;
	ssize_t n;

	/* A peer that closed with records unread leaves ECONNRESET, once, before what it had sent
	 * itself. */
	do {
		msg = (struct msghdr){.msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = control.buf,
			.msg_controllen = sizeof(control.buf)};
		n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	} while (n < 0 && (errno == EINTR || errno == ECONNRESET));
	if (n < 0)
		return -errno;

	int fd = -1;
	unsigned fds = take_fds(&msg, &fd);
	if (n == 0 && fds == 0)
		return 0;
	if (n != (ssize_t)sizeof(rec) || fds > 1 || (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
		if (fd >= 0)
			close(fd);
		return -EBADMSG;
	}
	rec.text[sizeof(rec.text) - 1] = '\0';
	*ret = rec;
	*ret_fd = fd;
	return 1;
}
