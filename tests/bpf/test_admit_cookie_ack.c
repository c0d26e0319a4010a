/* What becomes of the ACKs while SYN cookies may be answered: to a cookie, to another one, of a
 * connection that the kernel has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <netinet/tcp.h>

#include "cookie_fixture.h"

/* The ACK to the cookie that this SYN gets. */
static struct packet_opts answer_of(struct packet_opts o)
{
	assert_int_equal(run_opts_on(&o), XDP_TX);
	o.ack = packet_get32(fx->out.b + fx->out.l4 + 4) + 1;
	o.seq++;
	o.tcp_options = 0;
	o.mss = 0;
	o.flags = PACKET_ACK;
	return o;
}

static void expect_accepted(enum tg_verdict v)
{
	assert_int_equal(fx->action, XDP_PASS);
	assert_int_equal(fixture_counted(v).packets, 1);
	assert_int_equal(fixture_counted(TG_COOKIE_ACCEPTED).packets, 1);
}

static void expect_ignored(void)
{
	assert_int_equal(fx->action, XDP_PASS);
	fixture_expect_none();
}

static void test_answers(void **state)
{
	static const struct packet_opts syns[] = {
		{.seq = 0xffffffff, .tcp_options = 4},
		{.seq = 8, .vlans = 2, .ip_options = 8, .tcp_options = 4},
		{V6, .seq = 8, .tcp_options = 4},
		{V6, .seq = 9, .vlans = 1, .extensions = several, .tcp_options = 4},
	};

	FIXTURE_NEEDED();
	begin();
	for (unsigned i = 0; i < sizeof(syns) / sizeof(syns[0]); i++) {
		struct packet_opts ack = answer_of(syns[i]), data = ack;

		run_opts_on(&ack);
		expect_accepted(TG_ADMIT_OPEN);
		/* Its data come before the kernel has made a socket. */
		data.flags = PACKET_ACK | PACKET_PSH;
		data.data = 100;
		run_opts_on(&data);
		expect_ignored();
	}
}

static void test_other_packets(void **state)
{
	struct packet_opts ack, o;
	struct packet p;

	FIXTURE_NEEDED();
	begin();
	ack = answer_of((struct packet_opts){.seq = 100, .tcp_options = 4});
	o = ack;
	o.ack += 1000; /* the next few differ in the MSS only */
	run_opts_on(&o);
	expect_ignored();
	o = ack;
	o.seq++;
	run_opts_on(&o);
	expect_ignored();
	o = ack;
	o.src = "192.0.2.9";
	run_opts_on(&o);
	expect_ignored();
	o = ack;
	o.dport = 9999;
	run_opts_on(&o);
	expect_ignored();
	o = ack;
	o.flags = PACKET_ACK | PACKET_RST;
	run_opts_on(&o);
	expect_ignored();
	o.flags = PACKET_ACK | PACKET_SYN;
	run_opts_on(&o);
	expect_ignored();
	packet_build(&p, &ack);
	for (unsigned len = 14; len < p.len; len++) {
		run_on(&p, len);
		expect_ignored();
	}
	/* With a FIN the kernel would take it, too. */
	o = ack;
	o.flags = PACKET_ACK | PACKET_FIN;
	run_opts_on(&o);
	expect_accepted(TG_ADMIT_OPEN);
}

/* An hour after the last cookie nothing is looked at. */
static void test_long_after(void **state)
{
	struct packet_opts ack;
	struct tg_pace p;

	FIXTURE_NEEDED();
	begin();
	ack = answer_of((struct packet_opts){.tcp_options = 4});
	p = fixture_pace();
	p.cookies_until_ns = 1;
	fixture_set_pace(&p);
	fixture_mark();
	fixture_run(&ack);
	expect_ignored();
	assert_int_equal(fixture_pace().cookies_until_ns, 0);
}

/* Proven for longer than a cookie lives, it has none; for less, it may have got some before. */
static void test_proven_meanwhile(void **state)
{
	/* Before 0, where the machine has not been up for so long. */
	struct tg_source s = {.accepts = 1, .first_ns = fixture_now() - TG_COOKIE_LIFE_NS - WINDOW};
	struct tg_prefix key;
	struct packet_opts ack;

	FIXTURE_NEEDED();
	begin();
	key = fixture_source(CLIENT, 32);
	ack = answer_of((struct packet_opts){.tcp_options = 4});
	fixture_write(BPF_MAP_sources, &key, &s);
	run_opts_on(&ack);
	expect_ignored();
	s.first_ns = fixture_now();
	fixture_write(BPF_MAP_sources, &key, &s);
	run_opts_on(&ack);
	expect_accepted(TG_ADMIT_OPEN);
}

/* A paced proven source is charged with its SYN, which the kernel answers. */
static void test_proven_syn_is_charged_once(void **state)
{
	struct packet_opts syn = {.tcp_options = 4}, ack;
	struct tg_source s = {.accepts = 1, .first_ns = fixture_now()};
	struct tg_prefix key;

	FIXTURE_NEEDED();
	begin();
	ack = answer_of(syn); /* the kernel would make the same */
	key = fixture_source(CLIENT, 32);
	fixture_write(BPF_MAP_sources, &key, &s);
	fixture_prove(CLIENT, 32, 1);
	run_opts_on(&syn);
	fixture_expect(TG_ADMIT_OPEN, 1);
	run_opts_on(&ack);
	expect_ignored();
}

static void test_rate_is_taken_by_answers(void **state)
{
	struct packet_opts ack[8];
	unsigned admitted = 0;

	FIXTURE_NEEDED();
	begin();
	bpf_gate_set_rate(&fx->gate, 0.001, 0.5, 0);
	fixture_gate();
	for (unsigned i = 0; i < 8; i++) {
		ack[i] = answer_of(
			(struct packet_opts){.sport = (uint16_t)(50000 + i), .tcp_options = 4});
		fixture_expect(TG_COOKIE_SENT, 1);
	}
	assert_int_equal(fixture_pace().tat_ns, 0);
	assert_int_equal(fixture_pace().new_tat_ns, 0);
	for (unsigned i = 0; i < 8; i++) {
		run_opts_on(&ack[i]);
		if (fx->action == XDP_PASS) {
			expect_accepted(TG_ADMIT_PACED);
			admitted++;
		} else {
			assert_int_equal(fixture_counted(TG_DROP_NEWCOMER).packets, 1);
			assert_int_equal(fixture_counted(TG_COOKIE_ACCEPTED).packets, 0);
		}
	}
	/* Newcomers' part of the burst. */
	assert_int_equal(admitted, 2);
	assert_true(fixture_pace().new_tat_ns > fixture_now());
	/* Again: the first ones were charged. */
	run_opts_on(&ack[0]);
	expect_ignored();
	assert_int_equal(run_opts_on(&ack[7]), XDP_DROP);
}

static void test_refused_by_reset(void **state)
{
	struct packet_opts ack = {V6, .seq = 7, .tcp_options = 4};
	const uint8_t *th;

	FIXTURE_NEEDED();
	begin();
	ack = answer_of(ack);
	fixture_list(BPF_MAP_deny, "2001:db8::/32");
	fx->settings.flags |= TG_SET_RESET;
	fixture_settings();
	assert_int_equal(run_opts_on(&ack), XDP_TX);
	assert_int_equal(fixture_counted(TG_DROP_DENYLIST).packets, 1);
	th = fx->out.b + fx->out.l4;
	assert_int_equal(packet_get32(th + 4), ack.ack);
	assert_int_equal(packet_get32(th + 8), 0);
	assert_int_equal(th[13], PACKET_RST);
	assert_int_equal(packet_tcp_sum(&fx->out, 20), 0xffff);
}

/* ---- a connection of the kernel's ---- */

static uint32_t next_sequence(int fd, int queue)
{
	uint32_t seq;
	socklen_t len = sizeof(seq);

	assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, &queue, sizeof(queue)), 0);
	assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, &seq, &len), 0);
	return seq;
}

/* The ACK with which a connection to the listener began, which is still there. */
static struct packet_opts connect_one(int *ret_fd)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
		.sin_port = htons(8080),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct packet_opts ack = {.src = "127.0.0.1", .dst = "127.0.0.1", .flags = PACKET_ACK};
	struct sockaddr_in me;
	socklen_t len = sizeof(me);
	int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&me, &len), 0);
	assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)), 0);
	ack.sport = ntohs(me.sin_port);
	ack.ack = next_sequence(fd, 1);
	ack.seq = next_sequence(fd, 2);
	*ret_fd = fd;
	return ack;
}

static void test_connections_are_left_alone(void **state)
{
	int client, server;

	FIXTURE_NEEDED();
	begin();
	struct packet_opts ack = connect_one(&client);
	fixture_list(BPF_MAP_deny, "127.0.0.0/8");
	run_opts_on(&ack);
	expect_ignored();
	/* In repair its end sends nothing: the other one closes, and forgets. */
	server = accept(listener, NULL, NULL);
	assert_true(server >= 0);
	struct linger now = {.l_onoff = 1};
	assert_int_equal(setsockopt(server, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
	close(server);
	close(client);
	assert_int_equal(run_opts_on(&ack), XDP_DROP);
	fixture_expect(TG_DROP_DENYLIST, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cookie_test(test_answers),
		cookie_test(test_other_packets),
		cookie_test(test_long_after),
		cookie_test(test_proven_meanwhile),
		cookie_test(test_proven_syn_is_charged_once),
		cookie_test(test_rate_is_taken_by_answers),
		cookie_test(test_refused_by_reset),
		cookie_test(test_connections_are_left_alone),
	};
	return cmocka_run_group_tests(tests, setup_group, NULL);
}
