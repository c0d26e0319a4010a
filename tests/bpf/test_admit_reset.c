/* The RST that refuses a SYN, byte by byte, its checksums by an independent sum. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bpf_fixture.h"

#define V6 .src = "2001:db8::1"

static const uint8_t several[] = {0, 60, 43, 0xff};

static const struct packet_opts rows[] = {
	{.seq = 0},
	{.seq = 1000, .tcp_options = 20},
	{.seq = 0xffffffff},
	{.seq = 0xfffffff0, .data = 100},
	{.seq = 7, .vlans = 1, .tcp_options = 40},
	{.seq = 7, .vlans = 2, .ip_options = 40, .tcp_options = 40, .data = 1},
	{.seq = 9, .padding = 6},
	{.seq = 9, .sport = 65535, .src = "255.255.255.254", .dst = "255.255.255.253"},
	{V6, .seq = 0},
	{V6, .seq = 0xffffffff, .tcp_options = 20, .data = 33},
	{V6, .seq = 5, .vlans = 1},
	{V6, .seq = 5, .vlans = 2, .extensions = several, .extension_bytes = 16, .data = 2},
	{V6, .seq = 6, .fragment_header = true},
	{.src = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", .dst = "::ffff:ffff"},
};

enum {
	ROWS = sizeof(rows) / sizeof(rows[0]),
};

static void refuse_all_by_reset(void)
{
	fixture_list(BPF_MAP_deny, "0.0.0.0/0");
	fixture_list(BPF_MAP_deny, "::/0");
	fx->settings.flags |= TG_SET_RESET;
	fixture_settings();
}

static void check_ip4(const uint8_t *in, const uint8_t *out)
{
	assert_int_equal(out[0], 0x45);
	assert_int_equal(packet_get16(out + 2), 40);
	assert_int_equal(packet_get16(out + 6), 0x4000);
	assert_int_equal(out[8], 64);
	assert_int_equal(out[9], 6);
	assert_int_equal(packet_sum(out, 20, 0), 0xffff);
	assert_memory_equal(out + 12, in + 16, 4);
	assert_memory_equal(out + 16, in + 12, 4);
}

static void check_ip6(const uint8_t *in, const uint8_t *out)
{
	assert_int_equal(packet_get32(out), 0x60000000);
	assert_int_equal(packet_get16(out + 4), 20);
	assert_int_equal(out[6], 6);
	assert_int_equal(out[7], 64);
	assert_memory_equal(out + 8, in + 24, 16);
	assert_memory_equal(out + 24, in + 8, 16);
}

static void check_tcp(const struct packet *in, const struct packet_opts *o)
{
	const uint8_t *th = fx->out.b + fx->out.l4;

	assert_memory_equal(th, in->b + in->l4 + 2, 2);
	assert_memory_equal(th + 2, in->b + in->l4, 2);
	assert_int_equal(packet_get32(th + 4), 0);
	assert_int_equal(packet_get32(th + 8), (uint32_t)(o->seq + 1 + o->data));
	assert_int_equal(th[12], 0x50);
	assert_int_equal(th[13], PACKET_RST | PACKET_ACK);
	assert_int_equal(packet_get16(th + 14), 0);
	assert_int_equal(packet_get16(th + 18), 0);
	assert_int_equal(packet_tcp_sum(&fx->out, 20), 0xffff);
}

static void test_bytes(void **state)
{
	struct packet p;

	FIXTURE_NEEDED();
	refuse_all_by_reset();
	for (unsigned i = 0; i < ROWS; i++) {
		packet_build(&p, &rows[i]);
		assert_int_equal(fixture_run_bytes(&p, p.len, 1), XDP_TX);
		assert_int_equal(fixture_counted(TG_DROP_DENYLIST).packets, 1);
		assert_int_equal(fixture_counted(TG_RESET_SENT).packets, 1);
		fixture_mark();
		assert_int_equal(fx->out.len, p.len);
		assert_memory_equal(fx->out.b, p.b + 6, 6);
		assert_memory_equal(fx->out.b + 6, p.b, 6);
		assert_memory_equal(fx->out.b + 12, p.b + 12, p.l3 - 12);
		if (p.v6)
			check_ip6(p.b + p.l3, fx->out.b + p.l3);
		else
			check_ip4(p.b + p.l3, fx->out.b + p.l3);
		check_tcp(&p, &rows[i]);
	}
}

/* A SYN cut short behind its TCP header is answered like any other. */
static void test_cut_short(void **state)
{
	struct packet p;

	FIXTURE_NEEDED();
	refuse_all_by_reset();
	packet_build(&p, &(struct packet_opts){.tcp_options = 40, .data = 20});
	for (unsigned len = p.l4 + 20; len <= p.len; len++) {
		assert_int_equal(fixture_run_bytes(&p, len, 1), XDP_TX);
		assert_int_equal(fx->out.len, len);
		assert_int_equal(packet_tcp_sum(&fx->out, 20), 0xffff);
	}
}

static void test_flood_is_not_answered(void **state)
{
	FIXTURE_NEEDED();
	fx->settings.flags |= TG_SET_RESET;
	fx->settings.flood_limit = 1;
	fixture_settings();
	fixture_run_many(&(struct packet_opts){0}, 1000);
	assert_int_equal(fx->action, XDP_DROP);
	assert_int_equal(fixture_counted(TG_RESET_SENT).packets, 0);
	assert_true(fixture_counted(TG_DROP_FLOOD).packets > 900);
}

static void test_admitted_is_untouched(void **state)
{
	struct packet p;

	FIXTURE_NEEDED();
	fx->settings.flags |= TG_SET_RESET;
	fixture_settings();
	for (unsigned i = 0; i < ROWS; i++) {
		packet_build(&p, &rows[i]);
		assert_int_equal(fixture_run_bytes(&p, p.len, 1), XDP_PASS);
		assert_int_equal(fx->out.len, p.len);
		assert_memory_equal(fx->out.b, p.b, p.len);
	}
	fixture_expect(TG_ADMIT_OPEN, ROWS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		fixture_test(test_bytes),
		fixture_test(test_cut_short),
		fixture_test(test_flood_is_not_answered),
		fixture_test(test_admitted_is_untouched),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
