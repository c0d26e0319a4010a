/* app/topic: subscriptions against a naive model, and fan-outs that are interrupted by everything
 * that may happen meanwhile. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "app/topic.h"

enum {
	WHO = 40,
	NAMES = 12,
	ROUNDS = 20000,
};

static const char *const names[NAMES] = {
	"a", "b", "*", "a/b", "a/c", "a/*", "a/b/c", "a/b/*", "x/y", "x/z", "x/*", "y"};

static struct topic_index ix;
static struct subscriber who[WHO];
static bool model[WHO][NAMES];
static uint64_t since[WHO][NAMES];
static uint64_t serial;

static int set_up(void **state)
{
	(void)state;
	assert_int_equal(topic_index_init(&ix, 24), 0);
	memset(who, 0, sizeof who);
	memset(model, 0, sizeof model);
	srand(1);
	serial = 0;
	return 0;
}

static void leave(unsigned w)
{
	struct topic *t;

	while ((t = topic_leave_one(&ix, &who[w]))) {
		t->pins--;
		topic_release(&ix, t);
	}
	assert_int_equal(who[w].count, 0);
	memset(model[w], 0, sizeof model[w]);
}

static int tear_down(void **state)
{
	(void)state;
	for (unsigned i = 0; i < WHO; i++)
		leave(i);
	assert_int_equal(ix.count, 0);
	assert_int_equal(ix.topics.count, 0);
	topic_index_fini(&ix);
	return 0;
}

static struct topic *find(unsigned n)
{
	return topic_find(&ix, names[n], strlen(names[n]));
}

static void subscribe(unsigned w, unsigned n)
{
	struct topic *t = topic_get(&ix, names[n], strlen(names[n]));
	bool was = topic_subscribed(&ix, t, &who[w]);

	assert_int_equal(was, model[w][n]);
	assert_int_equal(topic_subscribe(&ix, t, &who[w], serial), was ? -EEXIST : 0);
	if (!was)
		since[w][n] = serial;
	model[w][n] = true;
}

static void unsubscribe(unsigned w, unsigned n)
{
	struct topic *t = find(n);

	if (!t) {
		assert_false(model[w][n]);
		return;
	}
	assert_int_equal(topic_unsubscribe(&ix, t, &who[w]), model[w][n]);
	model[w][n] = false;
	topic_release(&ix, t);
}

static void check(void)
{
	size_t topics = 0, subscriptions = 0, patterns = 0;

	for (unsigned n = 0; n < NAMES; n++) {
		struct topic *t = find(n);
		unsigned count = 0;

		for (unsigned w = 0; w < WHO; w++)
			count += model[w][n];
		assert_int_equal(t ? t->count : 0, count);
		assert_int_equal(t != NULL, count > 0);
		topics += count > 0;
		patterns += count > 0 && strchr(names[n], '*');
		subscriptions += count;
	}
	assert_int_equal(ix.topics.count, topics);
	assert_int_equal(ix.patterns, patterns);
	assert_int_equal(ix.count, subscriptions);
	for (unsigned w = 0; w < WHO; w++) {
		unsigned count = 0;

		for (unsigned n = 0; n < NAMES; n++)
			count += model[w][n];
		assert_int_equal(who[w].count, count);
	}
}

static void anything(void)
{
	unsigned w = (unsigned)rand() % WHO, n = (unsigned)rand() % NAMES,
		 what = (unsigned)rand() % 20;

	if (what == 0)
		leave(w);
	else if (what < 11)
		subscribe(w, n);
	else
		unsubscribe(w, n);
}

static void test_model(void **state)
{
	(void)state;
	for (unsigned i = 0; i < ROUNDS; i++) {
		anything();
		if (i % 100 == 0)
			check();
	}
	check();
}

static void test_extra(void **state)
{
	struct topic *t = topic_get(&ix, "a", 1), *again;
	static const char zero[24];

	(void)state;
	assert_memory_equal(topic_extra(t), zero, sizeof zero);
	memset(topic_extra(t), 0xff, sizeof zero);
	t->pins++;
	topic_release(&ix, t);
	again = topic_get(&ix, "a", 1);
	assert_ptr_equal(again, t);
	assert_memory_equal(t->name, "a", 1);
	t->pins--;
	topic_release(&ix, t);
	assert_null(topic_find(&ix, "a", 1));
}

static void test_patterns(void **state)
{
	(void)state;
	assert_null(topic_find_pattern(&ix, "a/b", 3));
	subscribe(0, 5);
	subscribe(0, 2);
	assert_ptr_equal(topic_find_pattern(&ix, "a/b", 3), find(5));
	assert_ptr_equal(topic_find_pattern(&ix, "a/anything", 10), find(5));
	assert_ptr_equal(topic_find_pattern(&ix, "a", 1), find(2));
	assert_null(topic_find_pattern(&ix, "a/b/c", 5));
	assert_null(topic_find_pattern(&ix, "b/c", 3));
}

/* One message to a topic and the pattern that matches it, a few subscriptions a step, with changes
 * in between: whoever was subscribed from before it until after it has it once; nobody has it
 * twice, and nobody who came later. */
static void fan_out(unsigned exact, unsigned pattern)
{
	bool before[WHO], by_name[WHO], by_pattern[WHO];
	unsigned got[WHO] = {0};
	struct topic *t = topic_get(&ix, names[exact], strlen(names[exact])), *p = NULL;
	struct topic_mark mark;
	uint64_t mine = ++serial;

	for (unsigned w = 0; w < WHO; w++) {
		by_name[w] = model[w][exact];
		by_pattern[w] = model[w][pattern];
		before[w] = by_name[w] || by_pattern[w];
	}
	t->pins++;
	t->held++;
	for (unsigned phase = 0; phase < 2; phase++) {
		if (phase) {
			p = topic_find_pattern(&ix, names[exact], strlen(names[exact]));
			if (!p)
				break;
			p->pins++;
		}
		topic_mark_set(&mark, phase ? p : t, !phase);
		while (topic_mark_is_set(&mark)) {
			unsigned max = 1 + (unsigned)rand() % 4;
			struct subscriber *s;

			while ((s = topic_mark_next(&mark, mine, &max)))
				if (!phase || !topic_heard(&ix, t, s, mine))
					got[s - who]++;
			for (unsigned i = (unsigned)rand() % 3; i; i--)
				anything();
			for (unsigned w = 0; w < WHO; w++) {
				by_name[w] &= model[w][exact] && since[w][exact] < mine;
				by_pattern[w] &= model[w][pattern] && since[w][pattern] < mine;
			}
		}
	}
	if (p) {
		p->pins--;
		topic_release(&ix, p);
	}
	t->held--;
	while (!topic_sweep(&ix, t, 3))
		;
	t->pins--;
	topic_release(&ix, t);
	for (unsigned w = 0; w < WHO; w++) {
		assert_true(got[w] <= 1);
		if (!before[w])
			assert_int_equal(got[w], 0);
		if (by_name[w] || by_pattern[w])
			assert_int_equal(got[w], 1);
	}
}

static void test_fan_out_undisturbed(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2000; i++) {
		unsigned got[WHO] = {0}, max = UINT32_MAX;
		struct topic *t, *p;
		struct topic_mark mark;
		struct subscriber *s;
		uint64_t mine;

		for (unsigned k = 0; k < 10; k++)
			anything();
		mine = ++serial;
		t = topic_get(&ix, "a/b", 3);
		t->pins++;
		topic_mark_set(&mark, t, true);
		while ((s = topic_mark_next(&mark, mine, &max)))
			got[s - who]++;
		p = topic_find_pattern(&ix, "a/b", 3);
		if (p) {
			topic_mark_set(&mark, p, false);
			while ((s = topic_mark_next(&mark, mine, &max)))
				got[s - who] += !topic_heard(&ix, t, s, mine);
		}
		t->pins--;
		topic_release(&ix, t);
		for (unsigned w = 0; w < WHO; w++)
			assert_int_equal(got[w], model[w][3] || model[w][5]);
	}
}

static void test_fan_out_interrupted(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3000; i++) {
		for (unsigned k = 0; k < 5; k++)
			anything();
		if (i % 2)
			fan_out(3, 5);
		else
			fan_out(9, 10);
	}
	check();
}

/* Two fan-outs in one pattern do not see each other's marks. */
static void test_marks_among_marks(void **state)
{
	struct topic_mark a, b;
	struct subscriber *s;
	unsigned max, n = 0;

	(void)state;
	for (unsigned w = 0; w < 10; w++)
		subscribe(w, 5);
	serial = 1;
	topic_mark_set(&a, find(5), false);
	topic_mark_set(&b, find(5), false);
	for (max = 5; (s = topic_mark_next(&a, 1, &max));)
		n++;
	assert_true(topic_mark_is_set(&a));
	for (max = 100; (s = topic_mark_next(&b, 1, &max));)
		n++;
	assert_false(topic_mark_is_set(&b));
	for (max = 100; (s = topic_mark_next(&a, 1, &max));)
		n++;
	assert_int_equal(n, 20);
	topic_mark_set(&a, find(5), false);
	topic_mark_clear(&a);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_model),
		TEST(test_extra),
		TEST(test_patterns),
		TEST(test_fan_out_undisturbed),
		TEST(test_fan_out_interrupted),
		TEST(test_marks_among_marks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
