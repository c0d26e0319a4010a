/* keeper/channel: records and descriptors over a real socket pair. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "keeper/channel.h"

static int setup(void **state)
{
	static int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair))
		return -1;
	*state = pair;
	return 0;
}

static int teardown(void **state)
{
	int *pair = *state;

	for (int i = 0; i < 2; i++) {
		if (pair[i] >= 0)
			close(pair[i]);
	}
	return 0;
}

static unsigned open_fds(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* As many descriptors as asked for, in a payload of len bytes. */
static void send_raw(int sock, const void *data, size_t len, unsigned n_fds)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(16 * sizeof(int))];
	} control = {.buf = {0}};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	int fds[16];

	if (n_fds) {
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		for (unsigned i = 0; i < n_fds; i++)
			fds[i] = STDERR_FILENO;
		memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
	}
	assert_int_equal(sendmsg(sock, &msg, 0), (ssize_t)len);
}

static void test_record(void **state)
{
	int *pair = *state, fd = 77;
	struct channel_record in = {.kind = CHANNEL_FAILED, .index = 3, .sub = 9}, out;

	strcpy(in.text, "no rings");
	assert_int_equal(channel_send(pair[0], &in, -1), 0);
	assert_int_equal(channel_recv(pair[1], &out, &fd), 1);
	assert_int_equal(fd, -1);
	assert_memory_equal(&in, &out, sizeof(in));

	fd = 77;
	out.kind = 1234;
	assert_int_equal(channel_recv(pair[1], &out, &fd), -EAGAIN);
	assert_int_equal(fd, 77);
	assert_int_equal(out.kind, 1234);
}

static void test_descriptors_in_order(void **state)
{
	int *pair = *state, fd;
	struct channel_record rec = {.kind = CHANNEL_LISTENER};
	struct stat sent[5], got;

	for (unsigned i = 0; i < 5; i++) {
		int file = memfd_create("channel", MFD_CLOEXEC);
		assert_true(file >= 0);
		assert_int_equal(fstat(file, &sent[i]), 0);
		rec.sub = i;
		assert_int_equal(channel_send(pair[0], &rec, file), 0);
		close(file);
	}
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(channel_recv(pair[1], &rec, &fd), 1);
		assert_int_equal(rec.sub, i);
		assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
		assert_int_equal(fstat(fd, &got), 0);
		assert_int_equal(got.st_ino, sent[i].st_ino);
		close(fd);
	}
}

static void test_malformed_is_consumed(void **state)
{
	static const size_t lengths[] = {
		1, sizeof(struct channel_record) - 1, sizeof(struct channel_record) + 1, 4096};
	int *pair = *state, fd = 77;
	struct channel_record rec = {.kind = CHANNEL_GO}, out;
	char junk[4096] = {0};
	unsigned before = open_fds();

	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		send_raw(pair[0], junk, lengths[i], 1);
		assert_int_equal(channel_recv(pair[1], &out, &fd), -EBADMSG);
	}
	for (unsigned n = 2; n <= 16; n++) { /* up to more than the receiver has room for */
		send_raw(pair[0], &rec, sizeof(rec), n);
		assert_int_equal(channel_recv(pair[1], &out, &fd), -EBADMSG);
	}
	assert_int_equal(fd, 77);
	assert_int_equal(open_fds(), before);

	assert_int_equal(channel_send(pair[0], &rec, -1), 0);
	assert_int_equal(channel_recv(pair[1], &out, &fd), 1);
	assert_int_equal(out.kind, CHANNEL_GO);
}

static void test_text_is_terminated(void **state)
{
	int *pair = *state, fd;
	struct channel_record rec = {.kind = CHANNEL_FAILED}, out;

	memset(rec.text, 'x', sizeof(rec.text));
	assert_int_equal(channel_send(pair[0], &rec, -1), 0);
	assert_int_equal(channel_recv(pair[1], &out, &fd), 1);
	assert_int_equal(strlen(out.text), sizeof(out.text) - 1);
}

static void test_peer_gone(void **state)
{
	int *pair = *state, fd;
	struct channel_record rec = {.kind = CHANNEL_READY}, out;

	/* The peer leaves something unread, which resets the connection, and last words. */
	assert_int_equal(channel_send(pair[1], &rec, -1), 0);
	rec.kind = CHANNEL_FAILED;
	assert_int_equal(channel_send(pair[0], &rec, -1), 0);
	close(pair[0]);
	pair[0] = -1;
	assert_int_equal(channel_recv(pair[1], &out, &fd), 1);
	assert_int_equal(out.kind, CHANNEL_FAILED);
	assert_int_equal(channel_recv(pair[1], &out, &fd), 0);
	assert_int_equal(channel_recv(pair[1], &out, &fd), 0);
	assert_int_equal(channel_send(pair[1], &rec, -1), -EPIPE); /* SIGPIPE would end the test */
}

static void test_full(void **state)
{
	int *pair = *state, fd, r;
	struct channel_record rec = {.kind = CHANNEL_DRAIN}, out;
	unsigned sent = 0, received = 0;

	while ((r = channel_send(pair[0], &rec, -1)) == 0)
		rec.sub = ++sent;
	assert_int_equal(r, -EAGAIN);
	assert_true(sent > 16);
	while ((r = channel_recv(pair[1], &out, &fd)) == 1)
		assert_int_equal(out.sub, received++);
	assert_int_equal(r, -EAGAIN);
	assert_int_equal(received, sent);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	static const struct CMUnitTest tests[] = {
		TEST(test_record),
		TEST(test_descriptors_in_order),
		TEST(test_malformed_is_consumed),
		TEST(test_text_is_terminated),
		TEST(test_peer_gone),
		TEST(test_full),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
