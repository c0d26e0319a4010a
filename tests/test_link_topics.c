/* What links do with SUBSCRIBE, UNSUBSCRIBE and PUBLISH of a service; what becomes of topics is
 * made up here. */
#include "support/link_fixture.h"

#include "net/topic_ops.h"

enum {
	CALLS_MAX = 64,
};

/* As the worker was called. */
static struct call {
	char what;
	uint64_t session;
	char topic[16], data[16];
	size_t len;
	bool text;
} calls[CALLS_MAX];
static _Atomic uint64_t n_calls;
static bool no_room;
static struct topic_pause *paused;

static struct call *call(char what, const char *topic, size_t len)
{
	struct call *c = &calls[n_calls];

	assert_true(n_calls < CALLS_MAX);
	*c = (struct call){.what = what};
	snprintf(c->topic, sizeof c->topic, "%.*s", (int)len, topic);
	return c;
}

static void on_subscribe(struct net *n, struct conn *c, const char *topic, size_t len)
{
	(void)n;
	call('s', topic, len)->session = c->session;
	n_calls++;
}

static void on_unsubscribe(struct net *n, struct conn *c, const char *topic, size_t len)
{
	(void)n;
	call('u', topic, len)->session = c->session;
	n_calls++;
}

static bool on_publish(struct net *n, const char *topic, size_t topic_len, bool text,
	const uint8_t *data, size_t len, struct topic_pause *p)
{
	struct call *c = call('p', topic, topic_len);

	(void)n;
	c->text = text;
	c->len = len;
	snprintf(c->data, sizeof c->data, "%.*s", (int)len, (const char *)data);
	n_calls++;
	if (!no_room)
		return true;
	topic_pause_end(p);
	p->next = NULL;
	p->pprev = &paused;
	paused = p;
	return false;
}

static void on_closed(struct net *n, struct conn *c)
{
	(void)n;
	(void)c;
}

static const struct topic_ops topics = {
	.subscribe = on_subscribe,
	.unsubscribe = on_unsubscribe,
	.publish = on_publish,
	.closed = on_closed,
};

static struct fx *create(void)
{
	struct fx *f = fx_create(1);

	n_calls = 0;
	no_room = false;
	paused = NULL;
	f->net.topics = &topics;
	return f;
}

static void publish(int link, const char *topic, const void *data, size_t len, uint8_t flags)
{
	static uint8_t payload[LINK_PUBLISH_PAYLOAD_MAX];
	size_t topic_len = strlen(topic);

	payload[0] = (uint8_t)topic_len;
	memcpy(payload + 1, topic, topic_len);
	memcpy(payload + 1 + topic_len, data, len);
	fx_frame_send(link, TG_LINK_PUBLISH, 0, payload, (uint32_t)(1 + topic_len + len), flags);
}

static void wait_calls(uint64_t n)
{
	for (unsigned ms = 0; n_calls < n; ms++) {
		assert_true(ms < FX_PATIENCE_S * 1000);
		fx_nap_ms(1);
	}
}

static void assert_call(unsigned i, char what, uint64_t session, const char *topic)
{
	wait_calls(i + 1);
	assert_int_equal(calls[i].what, what);
	assert_true(calls[i].session == session);
	assert_string_equal(calls[i].topic, topic);
}

static void test_announced(void **state)
{
	struct fx *f = create();
	struct link_hello h;
	const char *why;
	int link;

	(void)state;
	fx_start(f);
	link = fx_accept(f, 0);
	fx_expect(link, TG_LINK_HELLO, &fx_last);
	assert_int_equal(link_hello_parse(fx_last.payload, fx_last.h.length, &h, &why), 0);
	assert_int_equal(h.features, TG_LINK_FEATURE_TOPICS);
	close(link);
	fx_stop(f);
}

static void test_calls(void **state)
{
	struct fx *f = create();
	int link, c, d;
	uint64_t id, other;

	(void)state;
	fx_start(f);
	link = fx_link(f, 0, 65536, 65536);
	c = fx_open_session(f, link, &id);
	d = fx_open_session(f, link, &other);
	fx_frame_send(link, TG_LINK_SUBSCRIBE, id, "a/b", 3, 0);
	fx_frame_send(link, TG_LINK_SUBSCRIBE, other, "a/*", 3, 0);
	fx_frame_send(link, TG_LINK_SUBSCRIBE, 12345, "x", 1, 0); /* nobody's */
	fx_frame_send(link, TG_LINK_UNSUBSCRIBE, id, "a/b", 3, 0);
	publish(link, "t", "text", 4, TG_LINK_FLAG_TEXT);
	publish(link, "u", "", 0, 0);
	assert_call(0, 's', id, "a/b");
	assert_call(1, 's', other, "a/*");
	assert_call(2, 'u', id, "a/b");
	assert_call(3, 'p', 0, "t");
	assert_string_equal(calls[3].data, "text");
	assert_true(calls[3].text);
	assert_call(4, 'p', 0, "u");
	assert_int_equal(calls[4].len, 0);
	assert_false(calls[4].text);
	assert_int_equal(f->stats->link_bad_frames, 0);
	close(link);
	close(c);
	close(d);
	fx_stop(f);
}

static void resume(struct fx *f, void *ctx)
{
	struct topic_pause *p = paused;

	(void)f;
	(void)ctx;
	topic_pause_end(p);
	assert_null(paused);
	p->resume(p);
}

/* Credit for what found no room comes when there is some, and all of it then. */
static void test_credit_withheld(void **state)
{
	static uint8_t data[TG_LINK_MESSAGE_PAYLOAD_MAX];
	struct fx *f = create();
	uint32_t cost = link_cost(1 + 1 + sizeof data), granted, n;
	const char *why;
	int link;

	(void)state;
	f->link.link_window = 8 * cost;
	no_room = true;
	fx_start(f);
	link = fx_link(f, 0, 65536, 65536);
	for (unsigned i = 0; i < 8; i++)
		publish(link, "t", data, sizeof data, 0);
	wait_calls(8);
	assert_true(fx_quiet(link, 50));
	no_room = false;
	fx_call(f, resume, NULL);
	fx_expect(link, TG_LINK_CREDIT, &fx_last);
	assert_true(fx_last.h.session == 0);
	assert_int_equal(link_credit_parse(fx_last.payload, fx_last.h.length, &granted, &why), 0);
	assert_int_equal(granted, 8 * cost);
	/* And the usual way again. */
	for (n = granted = 0; granted < 2 * cost; n++) {
		publish(link, "t", data, sizeof data, 0);
		if (!fx_quiet(link, 50)) {
			fx_expect(link, TG_LINK_CREDIT, &fx_last);
			link_credit_parse(fx_last.payload, fx_last.h.length, &granted, &why);
		}
		assert_true(n < 8);
	}
	close(link);
	fx_stop(f);
}

/* One that ends while it waits waits no longer. */
static void test_ends_while_paused(void **state)
{
	struct fx *f = create();
	int link;

	(void)state;
	no_room = true;
	fx_start(f);
	link = fx_link(f, 0, 65536, 65536);
	publish(link, "t", "x", 1, 0);
	wait_calls(1);
	close(link);
	link = fx_link(f, 0, 65536, 65536);
	assert_null(paused);
	publish(link, "t", "x", 1, 0);
	wait_calls(2);
	assert_non_null(paused);
	fx_stop(f);
	assert_null(paused);
	close(link);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_announced),
		cmocka_unit_test(test_calls),
		cmocka_unit_test(test_credit_withheld),
		cmocka_unit_test(test_ends_while_paused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
