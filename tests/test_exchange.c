/* app/exchange: four workers in one thread, whose turns a random number decides, with mailboxes so
 * small that they are mostly full. Connections are made up: they write down what they are sent. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "app/exchange_internal.h"

enum {
	WORKERS = 4,
	CLIENTS = 40,
	NAMES = 9,
	MAIL = 7,
	LOG_MAX = 20000,
	MAILBOX = 4,
	BIG = 64 * 1024,
};

/* The first ones can be published to. */
static const char *const names[NAMES] = {"a", "b", "r/1", "r/2", "s/1", "s/1/x", "*", "r/*", "s/*"};
enum {
	TOPICS = 6,
};

/* A message is "number of its topic, its own number". */
struct heard {
	unsigned topic, n;
};

struct client {
	struct exchange_client x;
	unsigned worker;
	bool subscribed[NAMES];
	bool waits[NAMES]; /* for ops->confirmed */
	struct heard log[LOG_MAX];
	unsigned n_log;
	bool breaks; /* its next message ends it */
	unsigned counted;
	uint64_t count;
};

static struct client clients[CLIENTS];
static struct exchange_peers peers;
static struct worker workers[WORKERS];
static struct net nets[WORKERS];
static struct ring rings[WORKERS];
static struct conn conns[WORKERS][CLIENTS]; /* each client's at its number, on every worker */
static struct tg_worker_stats stats[WORKERS];
static struct exchange *ex[WORKERS];
static unsigned published[TOPICS];
static unsigned mails[WORKERS];
static bool asleep[WORKERS];

static struct client *client_of(const struct conn *c)
{
	return c->app;
}

/* -------------------------------------------------------------------------------- in place of net
 */

uint32_t conn_slot(const struct conn *c)
{
	return (uint32_t)(client_of(c) - clients);
}

struct frame *conn_frame(struct net *n, enum conn_protocol protocol, bool text, uint64_t key,
	const void *data, size_t len)
{
	struct frame *f = frame_alloc(&n->bufs, key, (uint32_t)len);

	(void)protocol;
	assert_true(text && key);
	if (f)
		memcpy(f->data, data, len);
	return f;
}

static void forget(struct client *cl)
{
	exchange_leave(ex[cl->worker], &cl->x);
	memset(cl->subscribed, 0, sizeof cl->subscribed);
	memset(cl->waits, 0, sizeof cl->waits);
	cl->breaks = false;
	cl->x.conn->session += CLIENTS; /* never used again */
}

static void write_down(struct client *cl, const char *data, size_t len)
{
	static const char head[] = "{\"type\":\"message\",\"topic\":\"";
	struct heard *h = &cl->log[cl->n_log++];
	char text[256];

	assert_true(cl->n_log < LOG_MAX);
	snprintf(text, sizeof text, "%.*s", (int)len, data);
	data = text;
	if (!cl->x.plain) {
		assert_memory_equal(text, head, sizeof head - 1);
		data = strstr(text, "\"data\":");
		assert_non_null(data);
		data += 7;
	}
	assert_int_equal(sscanf(data, "[%u,%u", &h->topic, &h->n), 2);
	if (!cl->x.plain)
		assert_memory_equal(
			text + sizeof head - 1, names[h->topic], strlen(names[h->topic]));
}

int conn_send_frame(struct conn *c, struct frame *f)
{
	struct client *cl = client_of(c);

	write_down(cl, (const char *)f->data, f->len);
	if (cl->breaks)
		forget(cl);
	return 0;
}

int conn_send(struct conn *c, bool text, const void *data, size_t len)
{
	(void)c;
	(void)text;
	(void)data;
	(void)len;
	fail_msg("there is memory for frames");
	return 0;
}

static void confirmed(struct conn *c, struct hub_str id)
{
	unsigned n = (unsigned)(id.data[0] - '0');

	assert_int_equal(id.len, 1);
	assert_true(client_of(c)->waits[n]);
	client_of(c)->waits[n] = false;
}

static void counted(
	struct conn *c, const char *topic, size_t topic_len, uint64_t sessions, struct hub_str id)
{
	(void)topic;
	(void)topic_len;
	assert_int_equal(id.len, 2);
	client_of(c)->counted++;
	client_of(c)->count = sessions;
}

static const struct exchange_ops ops = {.confirmed = confirmed, .counted = counted};

/* -------------------------------------------------------------------------------- workers */

static void run_job(struct worker *w, struct runq_item *it)
{
	struct job *j = (struct job *)((char *)it - offsetof(struct job, run));

	j->fn(w, j);
}

static void fire(void *ctx, struct wheel_timer *t)
{
	struct job *j = (struct job *)((char *)t - offsetof(struct job, timer));

	job_run(ctx, j, RUNQ_CONTROL);
}

/* What was put off to the worker's next turn. */
static void unpark(struct worker *w)
{
	struct runq_item *it;

	while ((it = w->parked)) {
		w->parked = it->next;
		it->queued = false;
		worker_push(w, it, (enum runq_class)it->class_);
	}
}

/* Some of what a worker does in a turn; time passes in steps of a millisecond. */
static void turn(unsigned i, unsigned mail, unsigned jobs)
{
	struct worker *w = &workers[i];
	struct mailbox_msg msg;
	struct runq_item *it;

	w->start_ns -= 1000000;
	worker_now(w);
	unpark(w);
	wheel_advance(&w->wheel, w->now_ms, 100, fire, w);
	while (mail-- && mailbox_pop(w->mailbox, &msg)) {
		assert_int_equal(msg.kind, MAIL);
		mails[i]++;
		exchange_mail(ex[i], &msg);
	}
	while (jobs-- && (it = runq_pop(&w->runq)))
		run_job(w, it);
}

static void some_turn(void)
{
	unsigned i = (unsigned)rand() % WORKERS;

	if (!asleep[i])
		turn(i, (unsigned)rand() % 4, (unsigned)rand() % 3);
}

/* Until nothing is left to do; while a worker sleeps there may always be something. */
static void settle(void)
{
	bool busy = true, all = !memchr(asleep, true, sizeof asleep);

	for (unsigned n = 0; busy || n < 2 * EXCHANGE_INTEREST_MS; n++) {
		assert_true(n < 1000000);
		if (!all && n == 1000)
			return;
		busy = false;
		for (unsigned i = 0; i < WORKERS; i++)
			if (!asleep[i])
				turn(i, 10, 10);
		for (unsigned i = 0; i < WORKERS; i++)
			busy |= !asleep[i] && (workers[i].runq.total || workers[i].parked ||
						      mailbox_ready(workers[i].mailbox) ||
						      wheel_pending(&ex[i]->retry.timer));
	}
}

static void start_worker(unsigned i, unsigned mailbox)
{
	static const uint64_t quantum[RUNQ_CLASSES] = {1, 1, 1, 1, 1};
	struct exchange_opts opts = {.peers = &peers, .mail_kind = MAIL, .ops = &ops};
	struct worker *w = &workers[i];

	w->id = i;
	w->stats = nets[i].stats = &stats[i];
	w->net = &nets[i];
	w->start_ns = worker_clock_ns();
	worker_now(w);
	wheel_init(&w->wheel, w->now_ms);
	runq_init(&w->runq, quantum);
	assert_int_equal(mailbox_create(mailbox, &w->mailbox), 0);
	rings[i].objects = (uint8_t *)conns[i];
	rings[i].object_bytes = sizeof(struct conn);
	w->ring[0] = &rings[i];
	w->n_rings = 1;
	nets[i].w = w;
	buf_pool_init(&nets[i].bufs, UINT64_C(1) << 30);
	assert_int_equal(exchange_create(&nets[i], &opts, &ex[i]), 0);
}

static void start(unsigned mailbox)
{
	srand(1);
	memset(workers, 0, sizeof workers);
	memset(nets, 0, sizeof nets);
	memset(stats, 0, sizeof stats);
	memset(clients, 0, sizeof clients);
	memset(conns, 0, sizeof conns);
	memset(published, 0, sizeof published);
	memset(mails, 0, sizeof mails);
	memset(asleep, 0, sizeof asleep);
	peers.n = WORKERS;
	for (unsigned i = 0; i < WORKERS; i++)
		start_worker(i, mailbox);
	for (unsigned i = 0; i < CLIENTS; i++) {
		struct client *cl = &clients[i];

		cl->worker = i % WORKERS;
		cl->x.conn = &conns[cl->worker][i];
		cl->x.plain = i / WORKERS % 2;
		cl->x.conn->app = cl;
		cl->x.conn->state = CONN_OPEN;
		cl->x.conn->session = i + 1;
	}
}

static int set_up(void **state)
{
	(void)state;
	start(MAILBOX);
	return 0;
}

/* Everything was given back: subscriptions, frames, messages (by the address sanitizer). */
static int tear_down(void **state)
{
	(void)state;
	for (unsigned i = 0; i < CLIENTS; i++)
		exchange_leave(ex[clients[i].worker], &clients[i].x);
	memset(asleep, 0, sizeof asleep);
	settle();
	for (unsigned i = 0; i < WORKERS; i++) {
		struct mailbox_msg msg;

		assert_int_equal(stats[i].subscriptions, 0);
		assert_int_equal(stats[i].topics, 0);
		assert_int_equal(stats[i].hub_lost, 0);
		assert_int_equal(ex[i]->waiting_bytes, 0);
		assert_int_equal(ex[i]->index.topics.count, 0);
		exchange_destroy(ex[i]);
		while (mailbox_pop(workers[i].mailbox, &msg))
			exchange_drop(&msg);
		mailbox_destroy(workers[i].mailbox);
		assert_int_equal(nets[i].bufs.bytes, 0);
		buf_pool_fini(&nets[i].bufs);
		atomic_store(&peers.worker[i], NULL);
	}
	return 0;
}

/* -------------------------------------------------------------------------------- clients */

static void subscribe(unsigned c, unsigned n)
{
	struct client *cl = &clients[c];
	char id = (char)('0' + n);
	int err;

	if (cl->waits[n])
		return; /* one answer at a time, to know whose it is */
	err = exchange_subscribe(
		ex[cl->worker], &cl->x, names[n], strlen(names[n]), (struct hub_str){&id, 1});
	assert_true(err == 0 || err == -EINPROGRESS || err == -EEXIST);
	if (err == -EEXIST)
		assert_true(cl->subscribed[n]);
	cl->waits[n] = err == -EINPROGRESS;
	cl->subscribed[n] = true;
}

static void unsubscribe(unsigned c, unsigned n)
{
	struct client *cl = &clients[c];

	assert_int_equal(exchange_unsubscribe(ex[cl->worker], &cl->x, names[n], strlen(names[n])),
		cl->subscribed[n]);
	cl->subscribed[n] = false;
}

static int publish_padded(unsigned w, unsigned t, size_t len)
{
	static char data[BIG];
	int err, n = snprintf(data, sizeof data, "[%u,%u]", t, published[t]);

	memset(data + n, ' ', sizeof data - (size_t)n);
	err = exchange_publish(ex[w], names[t], strlen(names[t]), EXCHANGE_JSON, data,
		len > (size_t)n ? len : (size_t)n);
	published[t] += !err || err == -EAGAIN;
	return err;
}

/* All of a topic by one worker: its numbers are then in its order. */
static int publish(unsigned t)
{
	return publish_padded(t % WORKERS, t, 0);
}

static bool hears(const struct client *cl, unsigned t)
{
	char pattern[16];
	size_t len = hub_topic_parent(names[t], strlen(names[t]));

	snprintf(pattern, sizeof pattern, "%.*s*", (int)len, names[t]);
	for (unsigned n = 0; n < NAMES; n++)
		if (cl->subscribed[n] && (n == t || !strcmp(names[n], pattern)))
			return true;
	return false;
}

static void check_logs(void)
{
	for (unsigned i = 0; i < CLIENTS; i++) {
		unsigned next[TOPICS] = {0};

		for (unsigned k = 0; k < clients[i].n_log; k++) {
			const struct heard *h = &clients[i].log[k];

			/* Once, and in order. */
			assert_true(h->n >= next[h->topic]);
			next[h->topic] = h->n + 1;
			assert_true(h->n < published[h->topic]);
		}
	}
}

/* -------------------------------------------------------------------------------- tests */

static void anything(void)
{
	unsigned c = (unsigned)rand() % CLIENTS, n = (unsigned)rand() % NAMES;

	switch ((unsigned)rand() % 8) {
	case 0:
	case 1:
		subscribe(c, n);
		break;
	case 2:
		unsubscribe(c, n);
		break;
	case 3:
		if (rand() % 20 == 0)
			forget(&clients[c]);
		else if (rand() % 20 == 0)
			clients[c].breaks = true;
		break;
	default:
		publish((unsigned)rand() % TOPICS);
		break;
	}
}

static void test_random(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 60; round++) {
		unsigned before[CLIENTS];

		for (unsigned i = 0; i < 300; i++) {
			anything();
			for (unsigned k = (unsigned)rand() % 4; k; k--)
				some_turn();
		}
		settle();
		check_logs();
		for (unsigned c = 0; c < CLIENTS; c++) {
			clients[c].breaks = false;
			before[c] = clients[c].n_log;
			for (unsigned n = 0; n < NAMES; n++)
				assert_false(clients[c].waits[n]);
		}
		/* All is quiet: who is subscribed hears the next one, and nobody else. */
		for (unsigned t = 0; t < TOPICS; t++)
			publish(t);
		settle();
		check_logs();
		for (unsigned c = 0; c < CLIENTS; c++) {
			unsigned expected = 0;

			for (unsigned t = 0; t < TOPICS; t++)
				expected += hears(&clients[c], t);
			assert_int_equal(clients[c].n_log - before[c], expected);
			clients[c].n_log = 0;
		}
	}
	for (unsigned i = 0; i < WORKERS; i++)
		assert_true(stats[i].mailbox_full > 0);
}

/* From the answer on, nothing is missed. */
static void test_confirmed_means_heard(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 300; round++) {
		unsigned c = (unsigned)rand() % CLIENTS, n = (unsigned)rand() % NAMES, from[TOPICS];
		struct client *cl = &clients[c];

		for (unsigned i = 0; i < CLIENTS; i++)
			clients[i].n_log = 0;
		subscribe(c, n);
		do {
			publish((unsigned)rand() % TOPICS);
			some_turn();
		} while (cl->waits[n]);
		memcpy(from, published, sizeof from);
		for (unsigned t = 0; t < TOPICS; t++)
			for (unsigned k = 0; k < 3; k++)
				publish(t);
		settle();
		for (unsigned t = 0; t < TOPICS; t++) {
			unsigned got = 0;

			for (unsigned k = 0; k < cl->n_log; k++)
				got += cl->log[k].topic == t && cl->log[k].n >= from[t];
			assert_int_equal(got, hears(cl, t) ? 3 : 0);
		}
		check_logs();
		if (round % 3)
			unsubscribe(c, n);
	}
}

static uint64_t ask(unsigned c, const char *topic)
{
	struct client *cl = &clients[c];
	unsigned before = cl->counted;

	assert_int_equal(exchange_ask(ex[cl->worker], cl->x.conn, topic, strlen(topic),
				 (struct hub_str){"17", 2}),
		0);
	settle();
	assert_int_equal(cl->counted, before + 1);
	return cl->count;
}

static void sum(void *ctx, const char *topic, size_t len, uint64_t sessions)
{
	(void)topic;
	(void)len;
	*(uint64_t *)ctx += sessions;
}

static void test_presence(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2000; i++) {
		anything();
		some_turn();
	}
	settle();
	for (unsigned n = 0; n < TOPICS; n++) {
		uint64_t expected = 0;

		for (unsigned c = 0; c < CLIENTS; c++)
			expected += clients[c].subscribed[n];
		assert_int_equal(ask(n, names[n]), expected);
		assert_int_equal(ask(n + 1, names[n]), expected);
	}
	assert_int_equal(ask(0, "nobody"), 0);
	uint64_t expected = 0, got = 0;

	for (unsigned i = 0; i < WORKERS; i++) {
		uint64_t cursor = 0;

		expected += stats[i].subscriptions;
		while (exchange_walk(ex[i], &cursor, 7, sum, &got))
			;
	}
	assert_true(expected > 0);
	assert_int_equal(got, expected);
}

/* Who asked and is gone is not answered, nor is whoever has its slot now. */
static void test_answers_to_the_gone(void **state)
{
	struct hub_str id = {"17", 2};

	(void)state;
	for (unsigned w = 0; w < WORKERS; w++) {
		struct client *cl = &clients[w];

		int err = exchange_ask(ex[w], cl->x.conn, "r/1", 3, id);

		assert_true(err == 0 || err == -EAGAIN);
		subscribe(w, 2);
		if (w % 2)
			forget(cl);
		else
			cl->x.conn->state = CONN_CLOSING;
	}
	settle();
	/* The home is one of them, and has answered at once. */
	for (unsigned w = 0; w < WORKERS; w++)
		assert_int_equal(clients[w].counted, w == exchange_home_of(ex[0], "r/1", 3));
}

static void test_who_hears_nothing_gets_nothing(void **state)
{
	unsigned home = exchange_home_of(ex[0], "s/1", 3), other = (home + 1) % WORKERS,
		 idle = (home + 2) % WORKERS;

	(void)state;
	for (unsigned c = 0; c < CLIENTS; c++)
		if (clients[c].worker == other)
			subscribe(c, 4);
	settle();
	memset(mails, 0, sizeof mails);
	for (unsigned i = 0; i < 10; i++)
		publish_padded(home, 4, 0);
	settle();
	assert_int_equal(mails[idle], 0);
	assert_int_equal(mails[other], 10); /* one for all who hear it there */
	for (unsigned c = 0; c < CLIENTS; c++)
		assert_int_equal(clients[c].n_log, clients[c].worker == other ? 10 : 0);
}

static unsigned home_of(unsigned t)
{
	return exchange_home_of(ex[0], names[t], strlen(names[t]));
}

static unsigned resumed;

static void on_resume(struct topic_pause *p)
{
	(void)p;
	resumed++;
}

/* A worker that does not come to its fan-outs: first its windows fill, then the publisher is to
 * pause, then it is refused; afterwards all that was taken arrives. */
static void test_back_pressure(void **state)
{
	unsigned home = exchange_home_of(ex[0], "r/1", 3), slow = (home + 1) % WORKERS,
		 from = (home + 2) % WORKERS, taken = 0, paused = 0, n = 0, other = 0;
	struct topic_pause pause = {.resume = on_resume};
	int err;

	(void)state;
	for (unsigned c = 0; c < CLIENTS; c++)
		if (clients[c].worker == slow)
			subscribe(c, 2);
	settle();
	asleep[slow] = true;
	while ((err = publish_padded(from, 2, BIG)) != -ENOBUFS) {
		assert_true(err == 0 || err == -EAGAIN);
		paused += err == -EAGAIN;
		taken += !paused;
		assert_true(++n < 3000);
		for (unsigned k = 0; k < 8; k++)
			some_turn();
	}
	/* One window or two, depending on how early the mailbox was full. */
	assert_in_range(taken, EXCHANGE_WINDOW_BYTES / BIG - 1,
		2 * EXCHANGE_WINDOW_BYTES / BIG + 2 * MAILBOX);
	assert_true(ex[from]->waiting_bytes <= EXCHANGE_WAITING_BYTES);
	assert_true(ex[from]->waiting_bytes > EXCHANGE_WAITING_BYTES - 2 * BIG);
	/* Topics of other homes go on meanwhile. */
	while (home_of(other) == home || home_of(other) == slow)
		assert_true(++other < TOPICS);
	for (unsigned c = 0; c < CLIENTS; c++)
		if (clients[c].worker == from)
			subscribe(c, other);
	publish_padded(from, other, 0);
	settle();
	for (unsigned c = 0; c < CLIENTS; c++)
		assert_int_equal(clients[c].n_log, clients[c].worker == from);
	for (unsigned c = 0; c < CLIENTS; c++)
		clients[c].n_log = 0;
	assert_int_equal(published[2], n);
	exchange_pause(ex[from], "r/1", 3, &pause);
	resumed = 0;
	settle();
	assert_int_equal(resumed, 0);
	asleep[slow] = false;
	settle();
	assert_int_equal(resumed, 1);
	assert_null(pause.pprev);
	for (unsigned c = 0; c < CLIENTS; c++)
		assert_int_equal(clients[c].n_log, clients[c].worker == slow ? n : 0);
	check_logs();
	assert_int_equal(publish_padded(from, 2, BIG), 0);
}

/* Small ones are bounded by their number. */
static void test_back_pressure_by_number(void **state)
{
	unsigned home = exchange_home_of(ex[0], "r/1", 3), slow = (home + 1) % WORKERS, n = 0;

	(void)state;
	clients[slow].x.plain = true;
	subscribe(slow, 2);
	settle();
	asleep[slow] = true;
	while (publish_padded(home, 2, 0) == 0) {
		assert_true(++n <= 2 * EXCHANGE_WINDOW_MESSAGES + MAILBOX);
		some_turn();
	}
	assert_true(n >= EXCHANGE_WINDOW_MESSAGES);
	asleep[slow] = false;
	settle();
	assert_int_equal(clients[slow].n_log, n + 1);
	check_logs();
}

/* What one pauses for may end first. */
static void test_pause_ended(void **state)
{
	struct topic_pause a = {.resume = on_resume}, b = {.resume = on_resume};
	unsigned home = exchange_home_of(ex[0], "r/1", 3);

	(void)state;
	resumed = 0;
	exchange_pause(ex[0], "r/1", 3, &a);
	exchange_pause(ex[0], "r/1", 3, &b);
	exchange_pause(ex[0], "r/1", 3, &a); /* moves */
	topic_pause_end(&b);
	topic_pause_end(&b);
	assert_ptr_equal(ex[0]->peer[home].paused, &a);
	publish_padded(0, 2, 0);
	settle();
	assert_int_equal(resumed, 1);
	assert_null(ex[0]->peer[home].paused);
}

/* The end with everything under way frees everything. */
static void test_destroyed_in_the_middle(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 500; i++) {
		anything();
		if (i % 5 == 0)
			some_turn();
	}
	for (unsigned i = 0; i < CLIENTS; i++)
		exchange_leave(ex[clients[i].worker], &clients[i].x);
	for (unsigned i = 0; i < WORKERS; i++) {
		struct mailbox_msg msg;

		exchange_destroy(ex[i]);
		while (mailbox_pop(workers[i].mailbox, &msg))
			exchange_drop(&msg);
		mailbox_destroy(workers[i].mailbox);
		assert_int_equal(nets[i].bufs.bytes, 0);
		buf_pool_fini(&nets[i].bufs);
		atomic_store(&peers.worker[i], NULL);
	}
}

/* Until another worker runs, what is for it waits. */
static void test_before_all_run(void **state)
{
	unsigned home = exchange_home_of(ex[0], "r/1", 3), from = (home + 1) % WORKERS;
	struct worker *w = atomic_load(&peers.worker[home]);

	(void)state;
	atomic_store(&peers.worker[home], NULL);
	asleep[home] = true;
	subscribe(from, 2);
	assert_true(clients[from].waits[2]);
	publish_padded(from, 2, 0);
	for (unsigned i = 0; i < 20; i++)
		turn(from, 1, 1);
	assert_true(clients[from].waits[2]);
	atomic_store(&peers.worker[home], w);
	asleep[home] = false;
	settle();
	assert_false(clients[from].waits[2]);
	assert_int_equal(clients[from].n_log, 1);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_random),
		TEST(test_confirmed_means_heard),
		TEST(test_presence),
		TEST(test_answers_to_the_gone),
		TEST(test_who_hears_nothing_gets_nothing),
		TEST(test_back_pressure),
		TEST(test_back_pressure_by_number),
		TEST(test_pause_ended),
		TEST(test_before_all_run),
		cmocka_unit_test_setup(test_destroyed_in_the_middle, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
