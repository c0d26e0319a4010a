#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <string.h>

#include "net/outq.h"

enum {
	MODEL_MAX = 4096,
	POOL = 64 << 20,
};

/* A message of the model: its bytes are its number, repeated. */
struct model_message {
	uint8_t byte;
	uint32_t len, left;
	uint64_t key;
	bool control, shared;
};

static struct buf_pool pool;
static struct outq_item *tail;

static int setup(void **state)
{
	(void)state;
	buf_pool_init(&pool, POOL);
	tail = NULL;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	outq_clear(&pool, &tail);
	assert_int_equal(pool.bytes, 0);
	buf_pool_fini(&pool);
	return 0;
}

static void add_own(uint8_t byte, size_t len, unsigned messages)
{
	uint8_t *p = outq_room(&pool, &tail, len, messages);

	assert_non_null(p);
	memset(p, byte, len);
}

static void add_frame(uint8_t byte, uint32_t len, uint64_t key)
{
	struct frame *f = frame_alloc(&pool, key, len);

	assert_non_null(f);
	memset(f->data, byte, len);
	assert_true(outq_add(&pool, &tail, f));
	frame_unref(&pool, f);
}

static uint64_t bytes(void)
{
	uint64_t n = 0;
	struct outq_item *it = outq_head(tail);

	if (!it)
		return 0;
	do {
		n += it->len;
		it = it->next;
	} while (it != outq_head(tail));
	return n;
}

/* The queue's bytes, a character per byte. */
static const char *text(void)
{
	static char out[1 << 16];
	struct outq_item *it = outq_head(tail);
	size_t at = 0;

	out[0] = '\0';
	if (!it)
		return out;
	do {
		assert_true(at + it->len < sizeof out);
		memcpy(out + at, outq_bytes(it), it->len);
		at += it->len;
		it = it->next;
	} while (it != outq_head(tail));
	out[at] = '\0';
	return out;
}

/* The first n items are handed to the kernel. */
static void pin(unsigned n)
{
	struct outq_item *it = outq_head(tail);

	while (n--) {
		it->pinned = true;
		it = it->next;
	}
}

static struct outq_dropped drop(uint64_t max_bytes, uint32_t max_messages)
{
	return outq_drop_oldest(&pool, &tail, bytes(), max_bytes, max_messages);
}

static void test_empty(void **state)
{
	struct outq_dropped d = drop(0, 0);

	(void)state;
	assert_int_equal(d.messages, 0);
	d = outq_conflate(&pool, &tail, 1);
	assert_int_equal(d.messages, 0);
	outq_consume(&pool, &tail, 0);
	assert_int_equal(outq_messages(tail), 0);
}

static void test_oldest_go_first(void **state)
{
	struct outq_dropped d;

	(void)state;
	for (uint8_t i = 0; i < 5; i++)
		add_frame((uint8_t)('a' + i), 10, 0);
	assert_int_equal(outq_messages(tail), 5);
	d = drop(29, 100);
	assert_int_equal(d.messages, 3);
	assert_int_equal(d.bytes, 30);
	assert_string_equal(text(), "ddddddddddeeeeeeeeee");
	d = drop(100, 1);
	assert_int_equal(d.messages, 1);
	assert_string_equal(text(), "eeeeeeeeee");
	d = drop(0, 0);
	assert_int_equal(d.messages, 1);
	assert_null(tail);
}

static void test_what_the_kernel_has_stays(void **state)
{
	struct outq_dropped d;

	(void)state;
	for (uint8_t i = 0; i < 5; i++)
		add_frame((uint8_t)('a' + i), 4, 0);
	pin(2);
	d = drop(0, 0);
	assert_int_equal(d.messages, 3);
	assert_string_equal(text(), "aaaabbbb");
	/* A short send: the second was not begun, and may go after all. */
	outq_consume(&pool, &tail, 3);
	assert_string_equal(text(), "abbbb");
	d = drop(0, 0);
	assert_int_equal(d.messages, 1);
	assert_string_equal(text(), "a");
	outq_consume(&pool, &tail, 1);
	assert_null(tail);
}

static void test_control_stays(void **state)
{
	struct outq_dropped d;

	(void)state;
	add_own('a', 3, 1);
	add_own('P', 2, 0);
	add_own('b', 3, 1);
	add_own('Q', 2, 0);
	d = drop(0, 0);
	assert_int_equal(d.messages, 2);
	assert_string_equal(text(), "PPQQ");
	assert_int_equal(outq_messages(tail), 0);
}

/* Small messages that share an item go together. */
static void test_small_messages_share(void **state)
{
	struct outq_dropped d;

	(void)state;
	add_own('a', 10, 1);
	add_own('b', 10, 1);
	assert_ptr_equal(outq_head(tail), tail);
	assert_int_equal(outq_messages(tail), 2);
	d = drop(15, 100);
	assert_int_equal(d.messages, 2);
	assert_null(tail);
	/* Not with one the kernel has begun: the rest of it could not be dropped. */
	add_own('a', 10, 1);
	pin(1);
	add_own('b', 10, 1);
	d = drop(0, 0);
	assert_int_equal(d.messages, 1);
	assert_string_equal(text(), "aaaaaaaaaa");
}

static void test_conflate(void **state)
{
	struct outq_dropped d;

	(void)state;
	add_frame('a', 1, 1);
	add_frame('b', 1, 2);
	add_own('p', 1, 1);
	add_frame('c', 1, 1);
	add_frame('d', 1, 0);
	add_frame('e', 1, 2);
	add_frame('f', 1, 0);
	d = outq_conflate(&pool, &tail, 0);
	assert_int_equal(d.messages, 2);
	assert_string_equal(text(), "pcdef");
	/* The one to come is the newest of its key. */
	d = outq_conflate(&pool, &tail, 2);
	assert_int_equal(d.messages, 1);
	assert_string_equal(text(), "pcdf");
	pin(2);
	d = outq_conflate(&pool, &tail, 1);
	assert_int_equal(d.messages, 0);
	d = outq_conflate(&pool, &tail, 7);
	assert_int_equal(d.messages, 0);
}

static void test_conflate_many_keys(void **state)
{
	struct outq_dropped d;

	(void)state;
	for (uint64_t key = 1; key <= 1000; key++)
		add_frame('a', 1, key);
	for (uint64_t key = 1; key <= 1000; key++)
		add_frame('b', 1, key);
	d = outq_conflate(&pool, &tail, 0);
	/* A bounded table: those it holds are conflated, the others kept. */
	assert_int_equal(d.messages, OUTQ_CONFLATE_KEYS);
	assert_int_equal(outq_messages(tail), 2000 - OUTQ_CONFLATE_KEYS);
}

static void test_no_memory(void **state)
{
	struct frame *f;
	struct outq_item *queue = NULL;
	struct buf_pool small;
	unsigned n = 0;

	(void)state;
	buf_pool_init(&small, 4096);
	f = frame_alloc(&small, 0, 100);
	assert_non_null(f);
	while (outq_add(&small, &queue, f))
		n++;
	assert_true(n > 50);
	assert_int_equal(outq_messages(queue), n);
	assert_int_equal(f->refs, n + 1);
	assert_null(outq_room(&small, &queue, 1000, 1));
	outq_clear(&small, &queue);
	assert_int_equal(f->refs, 1);
	frame_unref(&small, f);
	assert_int_equal(small.bytes, 0);
	buf_pool_fini(&small);
}

static uint32_t dice_state = 1;

static uint32_t dice(uint32_t sides)
{
	dice_state = dice_state * 1664525 + 1013904223;
	return (dice_state >> 8) % sides;
}

/* Whatever is done to it, the queue yields whole messages in order, and what it dropped is what is
 * missing. The stream read so far must be a sequence of complete messages of the model. */
static void random_run(unsigned steps)
{
	static struct model_message all[MODEL_MAX];
	unsigned n = 0, next_out = 0;
	uint64_t added = 0, dropped = 0, out = 0, total_bytes = 0;
	uint32_t inside = 0; /* bytes read of the message that is being read */

	for (unsigned s = 0; s < steps && n < MODEL_MAX; s++) {
		uint32_t len = 1 + dice(300);
		struct outq_dropped d = {0, 0};

		switch (dice(6)) {
		case 0:
		case 1:
			all[n] = (struct model_message){
				(uint8_t)(1 + n % 250), len, len, 0, .control = dice(4) == 0};
			add_own(all[n].byte, len, !all[n].control);
			added += !all[n].control;
			total_bytes += len;
			n++;
			break;
		case 2:
			all[n] = (struct model_message){
				(uint8_t)(1 + n % 250), len, len, .key = dice(5), .shared = true};
			add_frame(all[n].byte, len, all[n].key);
			added++;
			total_bytes += len;
			n++;
			break;
		case 3:
			d = drop(dice(2000), 1 + dice(20));
			break;
		case 4:
			d = outq_conflate(&pool, &tail, dice(5));
			break;
		default: { /* a send of up to eight items, perhaps short */
			struct outq_item *it = outq_head(tail);
			uint32_t flight = 0, take;

			for (unsigned i = 0; it && i < 8; i++) {
				it->pinned = true;
				flight += it->len;
				it = it->next == outq_head(tail) ? NULL : it->next;
			}
			take = dice(2) ? flight : dice(flight + 1);
			it = outq_head(tail);
			for (uint32_t at = 0, k = 0; at < take; at++, k++) {
				while (k == it->len) {
					it = it->next;
					k = 0;
				}
				uint8_t byte = outq_bytes(it)[k];

				if (!inside) { /* the next message that was not dropped */
					while (all[next_out].byte != byte)
						next_out++;
					assert_true(next_out < n);
				}
				assert_int_equal(byte, all[next_out].byte);
				if (++inside == all[next_out].len) {
					out += !all[next_out].control;
					next_out++;
					inside = 0;
				}
			}
			outq_consume(&pool, &tail, take);
			total_bytes -= take;
			break;
		}
		}
		total_bytes -= d.bytes;
		dropped += d.messages;
		assert_int_equal(bytes(), total_bytes);
		assert_true(dropped + out <= added);
		/* A shared item counts until its last byte is sent. */
		assert_true(outq_messages(tail) >= added - dropped - out);
	}
	outq_clear(&pool, &tail);
	assert_int_equal(pool.bytes, 0);
}

static void test_random(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 200; i++)
		random_run(400);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_empty, setup, teardown),
		cmocka_unit_test_setup_teardown(test_oldest_go_first, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_the_kernel_has_stays, setup, teardown),
		cmocka_unit_test_setup_teardown(test_control_stays, setup, teardown),
		cmocka_unit_test_setup_teardown(test_small_messages_share, setup, teardown),
		cmocka_unit_test_setup_teardown(test_conflate, setup, teardown),
		cmocka_unit_test_setup_teardown(test_conflate_many_keys, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_memory, setup, teardown),
		cmocka_unit_test_setup_teardown(test_random, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
