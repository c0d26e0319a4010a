/* SYN cookies: when they are sent, and the SYN-ACK byte by byte, its checksums by an independent
 * sum. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cookie_fixture.h"

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

/* One by one: a repetition would see the answer of the one before. */
static void run_each(const struct packet *p, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		fixture_run_bytes(p, p->len, 1);
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
	};
	return cmocka_run_group_tests(tests, setup_group, NULL);
}
