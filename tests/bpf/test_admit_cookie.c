/* SYN cookies: when they are sent, the SYN-ACK byte by byte, its checksums by an independent sum,
 * and what becomes of the ACKs. In a network namespace of its own, whose kernel makes the cookies
 * for a listener of ours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "bpf_fixture.h"
#include "netns.h"

#define V6       .src = "2001:db8::1"
#define SYSCTL   "/proc/sys/net/ipv4/tcp_syncookies"
#define CLIENT   "192.0.2.1" /* packet.h */
#define TRIGGER  200
#define WINDOW   (1ull << TG_WINDOW_SHIFT)
#define NEVER_NS (1ull << 62)

static int listener = -1;

static const uint8_t several[] = {0, 60, 43, 0xff};

static const struct row {
	struct packet_opts o;
	uint16_t mss; /* what is offered back; 0: no option */
} rows[] = {
	{{.seq = 0, .tcp_options = 4, .mss = 1460}, 1460},
	{{.seq = 1000, .tcp_options = 20, .mss = 1459}, 1440},
	{{.seq = 0xffffffff, .tcp_options = 40, .mss = 1300}, 1300},
	{{.seq = 5, .tcp_options = 20, .mss = 65535}, 1460},
	{{.seq = 5, .tcp_options = 20, .mss = 100}, 536},
	{{.seq = 0xfffffff0, .tcp_options = 20}, 536}, /* who does not say takes that */
	{{.seq = 7}, 0},
	{{.seq = 7, .padding = 6}, 536},
	{{.seq = 7, .data = 100}, 536},
	{{.seq = 7, .vlans = 1, .tcp_options = 40, .mss = 1460}, 1460},
	{{.seq = 7, .vlans = 2, .ip_options = 40, .tcp_options = 40, .data = 1, .mss = 1460}, 1460},
	{{.sport = 65535, .src = "223.255.255.254", .dst = "223.255.255.253", .tcp_options = 4},
		536},
	{{V6, .seq = 0, .tcp_options = 20, .mss = 1440}, 1440},
	{{V6, .seq = 0xffffffff, .tcp_options = 20, .data = 33}, 1220},
	{{V6, .seq = 5}, 0},
	{{V6, .seq = 5, .vlans = 1, .tcp_options = 4, .mss = 1430}, 1420},
	{{V6, .vlans = 2, .extensions = several, .extension_bytes = 16, .tcp_options = 8,
		 .mss = 1440},
		1440},
	{{V6, .seq = 6, .fragment_header = true, .tcp_options = 4, .mss = 1220}, 1220},
	{{.src = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe",
		 .dst = "::ffff:ffff",
		 .tcp_options = 4,
		 .mss = 1440},
		1440},
};

enum {
	ROWS = sizeof(rows) / sizeof(rows[0]),
};

/* ---- the mode ---- */

/* As SYNs above the trigger switch it on. */
static void switch_on(void)
{
	struct tg_pace p = fixture_pace();

	p.window = fixture_now() >> TG_WINDOW_SHIFT;
	p.cookies = 1;
	p.cookies_until_ns = NEVER_NS;
	p.syns = 2 * TRIGGER; /* a window that ends now does not end it */
	fixture_set_pace(&p);
}

/* Puts one packet to the program while the mode is on: it would not be, had we been held up for
 * longer than it lasts, so once more then. */
static uint32_t run_on(const struct packet *p, unsigned len)
{
	uint64_t began;

	do {
		began = fixture_now();
		switch_on();
		fixture_mark();
		fixture_run_bytes(p, len, 1);
	} while (fixture_now() - began > WINDOW / 2);
	return fx->action;
}

static uint32_t run_opts_on(const struct packet_opts *o)
{
	struct packet p;

	packet_build(&p, o);
	return run_on(&p, p.len);
}

/* One by one: a repetition would see the answer of the one before. */
static void run_each(const struct packet *p, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		fixture_run_bytes(p, p->len, 1);
}

static void begin(void)
{
	fx->settings.flood_limit = 0;
	fx->settings.cookie_trigger = TRIGGER;
	fixture_settings();
}

/* ---- the SYN-ACK ---- */

static unsigned tcp_len(uint16_t mss)
{
	return mss ? 24 : 20;
}

static void check_ip4(const uint8_t *in, const uint8_t *out, uint16_t mss)
{
	assert_int_equal(out[0], 0x45);
	assert_int_equal(packet_get16(out + 2), 20 + tcp_len(mss));
	assert_int_equal(packet_get16(out + 6), 0x4000);
	assert_int_equal(out[8], 64);
	assert_int_equal(out[9], 6);
	assert_int_equal(packet_sum(out, 20, 0), 0xffff);
	assert_memory_equal(out + 12, in + 16, 4);
	assert_memory_equal(out + 16, in + 12, 4);
}

static void check_ip6(const uint8_t *in, const uint8_t *out, uint16_t mss)
{
	assert_int_equal(packet_get32(out), 0x60000000);
	assert_int_equal(packet_get16(out + 4), tcp_len(mss));
	assert_int_equal(out[6], 6);
	assert_int_equal(out[7], 64);
	assert_memory_equal(out + 8, in + 24, 16);
	assert_memory_equal(out + 24, in + 8, 16);
}

static void check_tcp(const struct packet *in, const struct packet_opts *o, uint16_t mss)
{
	const uint8_t *th = fx->out.b + fx->out.l4;

	assert_memory_equal(th, in->b + in->l4 + 2, 2);
	assert_memory_equal(th + 2, in->b + in->l4, 2);
	assert_int_equal(packet_get32(th + 8), (uint32_t)(o->seq + 1));
	assert_int_equal(th[12], tcp_len(mss) / 4 << 4);
	assert_int_equal(th[13], PACKET_SYN | PACKET_ACK);
	assert_int_equal(packet_get16(th + 14), 14600);
	assert_int_equal(packet_get16(th + 18), 0);
	if (mss)
		assert_int_equal(packet_get32(th + 20), 0x02040000u | mss);
	assert_int_equal(packet_tcp_sum(&fx->out, tcp_len(mss)), 0xffff);
}

static void test_bytes(void **state)
{
	struct packet p;

	FIXTURE_NEEDED();
	begin();
	for (unsigned i = 0; i < ROWS; i++) {
		packet_build(&p, &rows[i].o);
		assert_int_equal(run_on(&p, p.len), XDP_TX);
		fixture_expect(TG_COOKIE_SENT, 1);
		assert_int_equal(fx->out.len, p.len);
		assert_memory_equal(fx->out.b, p.b + 6, 6);
		assert_memory_equal(fx->out.b + 6, p.b, 6);
		assert_memory_equal(fx->out.b + 12, p.b + 12, p.l3 - 12);
		if (p.v6)
			check_ip6(p.b + p.l3, fx->out.b + p.l3, rows[i].mss);
		else
			check_ip4(p.b + p.l3, fx->out.b + p.l3, rows[i].mss);
		check_tcp(&p, &rows[i].o, rows[i].mss);
	}
	assert_int_equal(fixture_entries(BPF_MAP_sources), 0);
}

/* A SYN without all of its options cannot be read: it is judged as if there were no cookies. */
static void test_cut_short(void **state)
{
	struct packet p;

	FIXTURE_NEEDED();
	begin();
	packet_build(&p, &(struct packet_opts){.tcp_options = 40, .mss = 1460, .data = 20});
	for (unsigned len = p.l4 + 20; len < p.l4 + 60; len++) {
		assert_int_equal(run_on(&p, len), XDP_PASS);
		assert_int_equal(fixture_counted(TG_COOKIE_FAILED).packets, 1);
		assert_int_equal(fixture_counted(TG_ADMIT_OPEN).packets, 1);
		assert_memory_equal(fx->out.b, p.b, len);
	}
	for (unsigned len = p.l4 + 60; len <= p.len; len++) {
		assert_int_equal(run_on(&p, len), XDP_TX);
		assert_int_equal(fx->out.len, len);
		assert_int_equal(packet_tcp_sum(&fx->out, 24), 0xffff);
	}
}

/* What the interface cannot take is not offered. */
static void test_small_mtu(void **state)
{
	struct packet_opts v4 = {.tcp_options = 4, .mss = 1460},
			   v6 = {V6, .tcp_options = 4, .mss = 1440};

	FIXTURE_NEEDED();
	begin();
	assert_int_equal(netns_run("ip link set lo mtu 1300"), 0);
	run_opts_on(&v4);
	assert_int_equal(packet_get16(fx->out.b + fx->out.l4 + 22), 1260);
	run_opts_on(&v6);
	assert_int_equal(packet_get16(fx->out.b + fx->out.l4 + 22), 1240);
	assert_int_equal(netns_run("ip link set lo mtu 65536"), 0);
}

/* ---- who gets one ---- */

static void test_who(void **state)
{
	const struct packet_opts syn = {.tcp_options = 4}, other = {.src = "198.51.100.1"};

	FIXTURE_NEEDED();
	begin();
	run_opts_on(&syn);
	fixture_expect(TG_COOKIE_SENT, 1);

	fixture_prove(CLIENT, 32, 1);
	assert_int_equal(run_opts_on(&syn), XDP_PASS);
	fixture_expect(TG_ADMIT_OPEN, 1);
	run_opts_on(&other);
	fixture_expect(TG_COOKIE_SENT, 1);

	fixture_penalise("198.51.100.1", 32, NEVER_NS);
	run_opts_on(&other);
	fixture_expect(TG_DROP_PENALTY, 1);
	fixture_list(BPF_MAP_deny, "198.51.100.0/24");
	run_opts_on(&other);
	fixture_expect(TG_DROP_DENYLIST, 1);
	fixture_list(BPF_MAP_allow, "198.51.100.1/32");
	run_opts_on(&other);
	fixture_expect(TG_ADMIT_ALLOWED, 1);
	run_opts_on(&(struct packet_opts){.src = "203.0.113.1", .dport = 9999});
	fixture_expect_none();

	fx->gate.state = TG_GATE_SHUT;
	fixture_gate();
	run_opts_on(&(struct packet_opts){.src = "203.0.113.1"});
	fixture_expect(TG_DROP_SHUT, 1);
}

static void test_flood_of_one_source_is_not_answered(void **state)
{
	struct packet p;

	FIXTURE_NEEDED();
	fx->settings.flood_limit = 10;
	fx->settings.cookie_trigger = TRIGGER;
	fixture_settings();
	packet_build(&p, &(struct packet_opts){.tcp_options = 4});
	switch_on();
	run_each(&p, 1000);
	assert_int_equal(fx->action, XDP_DROP);
	assert_true(fixture_counted(TG_DROP_FLOOD).packets > 500);
}

static void test_observed(void **state)
{
	const struct packet_opts syn = {.tcp_options = 4};
	struct packet p;

	FIXTURE_NEEDED();
	begin();
	fx->settings.flags |= TG_SET_OBSERVE;
	fixture_settings();
	packet_build(&p, &syn);
	assert_int_equal(run_on(&p, p.len), XDP_PASS);
	assert_int_equal(fixture_counted(TG_COOKIE_SENT).observed, 1);
	assert_int_equal(fixture_counted(TG_COOKIE_SENT).packets, 0);
	assert_memory_equal(fx->out.b, p.b, p.len);
}

static void write_sysctl(const char *value)
{
	FILE *f = fopen(SYSCTL, "w");

	assert_non_null(f);
	assert_true(fputs(value, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static void test_the_kernel_makes_none(void **state)
{
	const struct packet_opts syn = {.tcp_options = 4};
	uint32_t zero = 0;

	FIXTURE_NEEDED();
	begin();
	write_sysctl("1");
	assert_int_equal(run_opts_on(&syn), XDP_PASS);
	assert_int_equal(fixture_counted(TG_COOKIE_FAILED).packets, 1);
	assert_int_equal(fixture_counted(TG_ADMIT_OPEN).packets, 1);
	write_sysctl("2");
	run_opts_on(&syn);
	fixture_expect(TG_COOKIE_SENT, 1);

	assert_int_equal(bpf_map_delete_elem(fixture_fd(BPF_MAP_listeners), &zero), 0);
	assert_int_equal(run_opts_on(&syn), XDP_PASS);
	assert_int_equal(fixture_counted(TG_COOKIE_FAILED).packets, 1);
	assert_int_equal(fixture_counted(TG_ADMIT_OPEN).packets, 1);
}

/* ---- when ---- */

static void test_the_trigger(void **state)
{
	struct packet syn;
	struct tg_pace p;

	FIXTURE_NEEDED();
	begin();
	packet_build(&syn, &(struct packet_opts){.tcp_options = 4});
	run_each(&syn, TRIGGER - 10);
	p = fixture_pace();
	assert_int_equal(p.cookies, 0);
	assert_int_equal(p.cookies_until_ns, 0);
	assert_int_equal(fixture_counted(TG_COOKIE_SENT).packets, 0);

	/* Within a window, however slow. */
	do
		run_each(&syn, TRIGGER);
	while (!(p = fixture_pace()).cookies);
	assert_true(p.cookies_until_ns > fixture_now());
	fixture_run_bytes(&syn, syn.len, 1);
	assert_int_equal(fx->action, XDP_TX);

	/* A pause. */
	p.window -= 2;
	fixture_set_pace(&p);
	fixture_mark();
	fixture_run_bytes(&syn, syn.len, 1);
	fixture_expect(TG_ADMIT_OPEN, 1);
	assert_int_equal(fixture_pace().cookies, 0);
}

/* Whoever read the clock just before a window began, does not undo what the first in it did. */
static void test_late_for_the_window(void **state)
{
	const struct packet_opts syn = {.tcp_options = 4};
	struct tg_pace ahead, after;
	struct packet p;

	FIXTURE_NEEDED();
	begin();
	packet_build(&p, &syn);
	switch_on();
	ahead = fixture_pace();
	ahead.window += 2; /* ahead of us even where a window ends meanwhile */
	ahead.active_last[0] = 7;
	ahead.syns_last = 8;
	fixture_set_pace(&ahead);
	fixture_mark();
	fixture_run_bytes(&p, p.len, 1);
	fixture_expect(TG_COOKIE_SENT, 1);
	after = fixture_pace();
	assert_int_equal(after.window, ahead.window);
	assert_int_equal(after.active_last[0], 7);
	assert_int_equal(after.syns_last, 8);
}

static void test_never_by_default(void **state)
{
	FIXTURE_NEEDED();
	fx->settings.flood_limit = 0;
	fixture_settings();
	fixture_run_many(&(struct packet_opts){.tcp_options = 4}, 100000);
	fixture_expect(TG_ADMIT_OPEN, 100000);
	assert_int_equal(fixture_pace().cookies_until_ns, 0);
}

/* ---- the ACK ---- */

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

/* ---- life ---- */

static int setup(void **state)
{
	uint32_t zero = 0;
	uint64_t fd = (uint64_t)listener;

	if (listener < 0)
		return 0;
	fixture_setup(state);
	if (fx)
		fixture_write(BPF_MAP_listeners, &zero, &fd);
	return 0;
}

static void listen_on_8080(void)
{
	struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(8080)};

	listener = socket(AF_INET6, SOCK_STREAM, 0);
	assert_true(listener >= 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&any, sizeof(any)), 0);
	assert_int_equal(listen(listener, 128), 0);
}

static int setup_group(void **state)
{
	fixture_cookies = true;
	if (netns_new() < 0)
		return 0; /* not permitted: fx stays NULL, every test is skipped */
	write_sysctl("2");
	listen_on_8080();
	return 0;
}

#define cookie_test(f) cmocka_unit_test_setup_teardown(f, setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cookie_test(test_bytes),
		cookie_test(test_cut_short),
		cookie_test(test_small_mtu),
		cookie_test(test_who),
		cookie_test(test_flood_of_one_source_is_not_answered),
		cookie_test(test_observed),
		cookie_test(test_the_kernel_makes_none),
		cookie_test(test_the_trigger),
		cookie_test(test_late_for_the_window),
		cookie_test(test_never_by_default),
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
