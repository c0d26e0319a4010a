#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/ring.h"

enum {
	SLOTS = 64,
	BUFFERS = 16,
	BUFFER_BYTES = 256,
};

static struct ring *create(void)
{
	struct ring_opts opts = {.index = 3,
		.slots = SLOTS,
		.buffers = BUFFERS,
		.buffer_bytes = BUFFER_BYTES,
		.object_bytes = 192};
	struct ring *r = NULL;

	assert_int_equal(ring_create(&opts, &r), 0);
	assert_int_equal(ring_enable(r), 0);
	return r;
}

struct completion {
	uint64_t user_data;
	int res;
	unsigned flags;
};

/* The next completion, waited for. */
static struct completion next(struct ring *r)
{
	struct __kernel_timespec wait = {5, 0};
	struct completion copy;
	struct io_uring_cqe *cqe;

	io_uring_submit(&r->u);
	assert_int_equal(io_uring_wait_cqe_timeout(&r->u, &cqe, &wait), 0);
	copy = (struct completion){cqe->user_data, cqe->res, cqe->flags};
	io_uring_cqe_seen(&r->u, cqe);
	return copy;
}

static void nothing_more(struct ring *r)
{
	ring_submit(r);
	assert_int_equal(io_uring_cq_ready(&r->u), 0);
	assert_false(ring_busy(r));
}

/* Puts one end of a socket pair into a slot; the other end. */
static int fill_slot(struct ring *r, uint32_t slot)
{
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(io_uring_register_files_update(&r->u, slot, &fds[0], 1), 1);
	close(fds[0]);
	return fds[1];
}

static void receive(struct ring *r, uint32_t slot, uint64_t ud)
{
	struct io_uring_sqe *sqe = ring_sqe(r);

	io_uring_prep_recv(sqe, (int)slot, NULL, 0, 0);
	sqe->flags |= IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT;
	sqe->buf_group = RING_BUF_GROUP;
	sqe->user_data = ud;
}

static void test_create(void **state)
{
	struct ring_opts opts = {.slots = SLOTS,
		.buffers = BUFFERS,
		.buffer_bytes = BUFFER_BYTES,
		.object_bytes = 64};
	struct ring *r = (struct ring *)&opts;
	struct rlimit files;

	getrlimit(RLIMIT_NOFILE, &files);
	opts.slots = (unsigned)files.rlim_max + 1;
	assert_int_equal(ring_create(&opts, &r), -EMFILE);
	opts.slots = SLOTS;
	opts.buffers = 17; /* not a power of two */
	assert_int_equal(ring_create(&opts, &r), -EINVAL);
	opts.buffers = 65536;
	assert_int_equal(ring_create(&opts, &r), -EINVAL);
	assert_ptr_equal(r, &opts); /* untouched */

	r = create();
	assert_int_equal(r->index, 3);
	assert_int_equal(r->buf_out, 0);
	assert_int_equal(r->buf_pending, 0);
	assert_false(ring_starving(r));
	nothing_more(r);
	ring_destroy(r);
	ring_destroy(NULL);
}

static void test_user_data(void **state)
{
	static const struct {
		enum ring_op op;
		uint16_t gen, aux;
		uint32_t slot;
	} cases[] = {
		{OP_NONE, 0, 0, 0},
		{OP_LINK_CLOSE, 0xffff, 0xffff, 0xffffff},
		{OP_CONN_RECV, 0x8001, 0, 1},
		{OP_ACCEPT, 0, 63, 0},
		{OP_CONN_PEER, 1, 0x8000, 0x800000},
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		uint64_t ud = ring_ud(cases[i].op, cases[i].gen, cases[i].aux, cases[i].slot);

		assert_int_equal(ring_ud_op(ud), cases[i].op);
		assert_int_equal(ring_ud_gen(ud), cases[i].gen);
		assert_int_equal(ring_ud_aux(ud), cases[i].aux);
		assert_int_equal(ring_ud_slot(ud), cases[i].slot);
	}
}

static void test_objects(void **state)
{
	struct ring *r = create();

	for (uint32_t slot = 0; slot < SLOTS; slot++) {
		uint8_t *o = ring_object(r, slot);

		for (unsigned i = 0; i < 192; i++)
			assert_int_equal(o[i], 0);
		memset(o, 0xff, 192);
	}
	assert_ptr_equal((uint8_t *)ring_object(r, 5) + 192, ring_object(r, 6));
	ring_destroy(r);
}

/* Sends len bytes to a slot and receives them, piece by piece; how many pieces there were, in
 * order, and in ret_cqe the completion of the last. */
static unsigned pieces_of(struct ring *r, int fd, const void *data, size_t len, uint16_t piece[],
	struct completion *ret_cqe)
{
	const uint8_t *at = data;
	unsigned n = 0;

	assert_int_equal(write(fd, data, len), len);
	while (len) {
		receive(r, 7, n);
		*ret_cqe = next(r);
		if (ret_cqe->res <= 0)
			return n;
		assert_true(ret_cqe->flags & IORING_CQE_F_BUFFER && (size_t)ret_cqe->res <= len);
		piece[n] = ring_take(r, ret_cqe->flags, (uint32_t)ret_cqe->res);
		assert_int_equal(r->piece[piece[n]].len, ret_cqe->res);
		assert_memory_equal(ring_piece_data(r, piece[n]), at, (size_t)ret_cqe->res);
		at += ret_cqe->res;
		len -= (size_t)ret_cqe->res;
		n++;
	}
	return n;
}

/* Pieces fill a buffer from its beginning to its last byte, and then the next one; with all full
 * ENOBUFS; a buffer whose pieces are all back is handed out again. */
static void test_buffers(void **state)
{
	enum {
		MESSAGE = 100, /* two in a buffer, and a part of a third */
		MOST = BUFFERS * 4,
	};
	struct ring *r = create();
	uint16_t piece[MOST + 2], first;
	int fd = fill_slot(r, 7);
	struct completion cqe = {0};
	unsigned n = 0;

	for (unsigned i = 0; cqe.res != -ENOBUFS; i++) {
		uint8_t message[MESSAGE];

		assert_true(n < MOST);
		memset(message, (int)i, MESSAGE);
		n += pieces_of(r, fd, message, MESSAGE, piece + n, &cqe);
	}
	assert_false(cqe.flags & IORING_CQE_F_BUFFER);
	assert_int_equal(r->buf_out, BUFFERS);
	assert_int_equal(r->pieces_out, n);
	first = r->piece[piece[0]].buf;
	for (unsigned i = 0, used = 0; i < n; i++) {
		const struct ring_piece *p = &r->piece[piece[i]];

		assert_int_equal(p->at, p->buf * BUFFER_BYTES + used);
		used = (used + p->len) % BUFFER_BYTES;
	}

	/* Of the first buffer all but one. */
	assert_int_equal(r->piece[piece[2]].buf, first);
	assert_int_not_equal(r->piece[piece[3]].buf, first);
	ring_give(r, piece[0]);
	ring_give(r, piece[2]);
	assert_int_equal(r->buf_out, BUFFERS);
	assert_int_equal(r->buf_pending, 0);
	ring_give(r, piece[1]);
	assert_int_equal(r->buf_out, BUFFERS - 1);
	assert_int_equal(r->buf_pending, 1);
	receive(r, 7, 100);
	assert_int_equal(next(r).res, -ENOBUFS); /* not published yet */
	ring_buffers_publish(r);
	assert_int_equal(r->buf_pending, 0);
	receive(r, 7, 101);
	cqe = next(r);
	assert_true(cqe.res > 0 && cqe.flags & IORING_CQE_F_BUF_MORE);
	piece[0] = ring_take(r, cqe.flags, (uint32_t)cqe.res);
	assert_int_equal(r->piece[piece[0]].at, first * BUFFER_BYTES);

	/* The rest, in any order. */
	piece[1] = piece[n - 1];
	piece[2] = piece[n - 2];
	n -= 2;
	srandom(2);
	while (n) {
		unsigned i = (unsigned)random() % n;

		ring_give(r, piece[i]);
		piece[i] = piece[--n];
	}
	assert_int_equal(r->pieces_out, 0);
	assert_int_equal(r->buf_out, 0);
	assert_int_equal(r->buf_pending, BUFFERS - 1);
	close(fd);
	ring_destroy(r);
}

/* A message longer than a buffer fills buffer after buffer, to the last byte. */
static void test_buffers_are_as_large_as_said(void **state)
{
	enum {
		BYTES = 65536
	};
	struct ring_opts opts = {
		.slots = 8, .buffers = BUFFERS, .buffer_bytes = BYTES, .object_bytes = 64};
	uint8_t *data = malloc(3 * BYTES);
	uint16_t piece[64];
	struct completion cqe;
	int fd, size = 1 << 20;
	struct ring *r;
	unsigned n;

	for (unsigned i = 0; i < 3 * BYTES; i++)
		data[i] = (uint8_t)(i ^ i >> 8);
	assert_int_equal(ring_create(&opts, &r), 0);
	assert_int_equal(ring_enable(r), 0);
	fd = fill_slot(r, 7);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	n = pieces_of(r, fd, data, 3 * BYTES, piece, &cqe);
	assert_true(n >= 3 && n < 64);
	assert_int_equal(r->buf_out, 3);
	while (n)
		ring_give(r, piece[--n]);
	assert_int_equal(r->buf_out, 0);
	close(fd);
	ring_destroy(r);
	free(data);
}

/* However small what is received, there are so many pieces and no more. */
static void test_pieces_are_bounded(void **state)
{
	enum {
		PIECES = 100
	};
	struct ring_opts opts = {.slots = 8,
		.buffers = BUFFERS,
		.buffer_bytes = 8192,
		.pieces = PIECES,
		.object_bytes = 64};
	uint16_t piece[PIECES + 1];
	bool seen[PIECES] = {false};
	struct completion cqe;
	struct ring *r;
	int fd;

	assert_int_equal(ring_create(&opts, &r), 0);
	assert_int_equal(ring_enable(r), 0);
	fd = fill_slot(r, 7);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < PIECES; i++) {
			uint8_t byte = (uint8_t)i;

			assert_false(ring_pieces_spent(r));
			assert_int_equal(pieces_of(r, fd, &byte, 1, piece + i, &cqe), 1);
			assert_true(piece[i] < PIECES);
			seen[piece[i]] = true;
		}
		assert_true(ring_pieces_spent(r));
		for (unsigned i = 0; i < PIECES; i++) {
			assert_true(seen[i]);
			assert_int_equal(*ring_piece_data(r, piece[i]), i);
			ring_give(r, piece[i]);
			assert_false(ring_pieces_spent(r));
		}
	}
	assert_int_equal(r->buf_out, 0); /* nor was any buffer filled */
	close(fd);
	ring_destroy(r);
}

/* First in, first out, around the end of the array many times. */
static void test_starved(void **state)
{
	struct ring *r = create();
	uint32_t slot = 0, in = 0, out = 0;

	assert_false(ring_starved_pop(r, &slot));
	srandom(1);
	for (unsigned step = 0; step < 5000; step++) {
		for (long n = random() % 20; n && in - out < SLOTS; n--)
			ring_starve(r, in++ % SLOTS, false);
		for (long n = random() % 20; n && in != out; n--) {
			assert_true(ring_starving(r));
			assert_true(ring_starved_pop(r, &slot));
			assert_int_equal(slot, out++ % SLOTS);
		}
	}
	while (in != out) {
		assert_true(ring_starved_pop(r, &slot));
		assert_int_equal(slot, out++ % SLOTS);
	}
	assert_false(ring_starving(r));
	assert_false(ring_starved_pop(r, &slot));
	ring_destroy(r);
}

/* However long newcomers have waited. */
static void test_starved_sessions_come_before_newcomers(void **state)
{
	struct ring *r = create();
	uint32_t slot = 0;

	ring_starve(r, 1, true);
	ring_starve(r, 2, true);
	ring_starve(r, 3, false);
	assert_true(ring_starved_pop(r, &slot));
	assert_int_equal(slot, 3);
	ring_starve(r, 4, false);
	for (uint32_t want = 4; want; want = want == 4 ? 1 : want == 1 ? 2 : 0) {
		assert_true(ring_starving(r));
		assert_true(ring_starved_pop(r, &slot));
		assert_int_equal(slot, want);
	}
	assert_false(ring_starving(r));
	ring_destroy(r);
}

static void test_cancel(void **state)
{
	struct ring *r = create();
	uint64_t first = ring_ud(OP_CONN_RECV, 1, 0, 7), second = ring_ud(OP_CONN_RECV, 2, 0, 7);
	int fd = fill_slot(r, 7);
	struct completion cqe;

	receive(r, 7, first);
	ring_cancel(r, second); /* another generation: leaves it alone, and says so to nobody */
	cqe = next(r);
	assert_int_equal(ring_ud_op(cqe.user_data), OP_NONE);
	assert_int_equal(cqe.res, -ENOENT);
	nothing_more(r);
	ring_cancel(r, first);
	cqe = next(r);
	assert_int_equal(cqe.user_data, first);
	assert_int_equal(cqe.res, -ECANCELED);
	nothing_more(r);
	close(fd);
	ring_destroy(r);
}

/* The slot is free, and the peer sees the end. */
static void test_close(void **state)
{
	struct ring *r = create();
	int fd = fill_slot(r, 9);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char ch;

	ring_close(r, 9);
	nothing_more(r);
	assert_int_equal(poll(&p, 1, 5000), 1);
	assert_int_equal(read(fd, &ch, 1), 0);
	close(fd);
	ring_close(r, 9); /* nothing there */
	assert_int_equal(next(r).res, -EBADF);
	fd = fill_slot(r, 9);
	assert_int_equal(write(fd, "new", 3), 3);
	receive(r, 9, 5);
	assert_int_equal(next(r).res, 3);
	close(fd);
	ring_destroy(r);
}

/* A full submission queue submits by itself, and a completion queue that overflows loses nothing.
 */
static void test_overflow(void **state)
{
	enum {
		NOPS = 3 * RING_CQ_ENTRIES
	};
	struct ring *r = create();
	unsigned char *seen = calloc(NOPS, 1);
	unsigned n = 0;

	for (unsigned i = 0; i < NOPS; i++) {
		struct io_uring_sqe *sqe = ring_sqe(r);

		io_uring_prep_nop(sqe);
		sqe->user_data = i;
	}
	ring_submit(r);
	assert_true(ring_overflowed(r));
	while (io_uring_cq_ready(&r->u) || ring_overflowed(r)) {
		struct io_uring_cqe *cqe;
		unsigned head, k = 0;

		io_uring_for_each_cqe(&r->u, head, cqe)
		{
			assert_true(cqe->user_data < NOPS);
			assert_int_equal(seen[cqe->user_data], 0);
			seen[cqe->user_data] = 1;
			k++;
		}
		io_uring_cq_advance(&r->u, k);
		n += k;
		io_uring_get_events(&r->u);
	}
	assert_int_equal(n, NOPS);
	free(seen);
	ring_destroy(r);
}

/* The kind of send that connections use: silent when complete, one completion when short or failed,
 * before submission returns. */
static void test_quiet_send(void **state)
{
	struct ring *r = create();
	static uint8_t data[8 << 20];
	int fd = fill_slot(r, 1);
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;

	sqe = ring_sqe(r);
	io_uring_prep_send(sqe, 1, data, 1000, RING_SEND_FLAGS);
	sqe->flags |= IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS;
	sqe->user_data = 1;
	nothing_more(r);

	sqe = ring_sqe(r);
	io_uring_prep_send(sqe, 1, data, sizeof data, RING_SEND_FLAGS);
	sqe->flags |= IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS;
	sqe->user_data = 2;
	ring_submit(r);
	assert_int_equal(io_uring_cq_ready(&r->u), 1);
	assert_int_equal(io_uring_peek_cqe(&r->u, &cqe), 0);
	assert_int_equal(cqe->user_data, 2);
	assert_true(cqe->res > 0 && cqe->res < (int)sizeof data);
	io_uring_cqe_seen(&r->u, cqe);

	sqe = ring_sqe(r);
	io_uring_prep_send(sqe, 1, data, 1, RING_SEND_FLAGS);
	sqe->flags |= IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS;
	sqe->user_data = 3;
	ring_submit(r);
	assert_int_equal(io_uring_peek_cqe(&r->u, &cqe), 0);
	assert_int_equal(cqe->res, -EAGAIN);
	io_uring_cqe_seen(&r->u, cqe);

	close(fd);
	sqe = ring_sqe(r);
	io_uring_prep_send(sqe, 1, data, 1, RING_SEND_FLAGS);
	sqe->flags |= IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS;
	sqe->user_data = 4;
	ring_submit(r);
	assert_int_equal(io_uring_peek_cqe(&r->u, &cqe), 0);
	assert_true(cqe->res == -EPIPE || cqe->res == -ECONNRESET);
	io_uring_cqe_seen(&r->u, cqe);
	ring_destroy(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_create),
		cmocka_unit_test(test_user_data),
		cmocka_unit_test(test_objects),
		cmocka_unit_test(test_buffers),
		cmocka_unit_test(test_buffers_are_as_large_as_said),
		cmocka_unit_test(test_pieces_are_bounded),
		cmocka_unit_test(test_starved),
		cmocka_unit_test(test_starved_sessions_come_before_newcomers),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_close),
		cmocka_unit_test(test_overflow),
		cmocka_unit_test(test_quiet_send),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
