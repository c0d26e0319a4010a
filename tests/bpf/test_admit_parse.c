/* What the admission program looks at, and what it lets alone: every header oddity, cut at every
 * byte. Everybody is on the deny list here, so a SYN that was recognised is a dropped one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bpf_fixture.h"

#define V6 .src = "2001:db8::1"

struct row {
	const char *what;
	struct packet_opts o;
	bool looked_at;
};

static const uint8_t hop[] = {0, 0xff}, routing[] = {43, 0xff}, dest[] = {60, 0xff},
		     auth[] = {51, 0xff}, several[] = {0, 60, 43, 51, 60, 0xff},
		     eight[] = {0, 60, 60, 60, 60, 60, 60, 60, 0xff},
		     nine[] = {0, 60, 60, 60, 60, 60, 60, 60, 60, 0xff}, esp[] = {50, 0xff},
		     none[] = {59, 0xff}, mobility[] = {135, 0xff}, after[] = {0, 50, 0xff};

static const struct row rows[] = {
	{"IPv4", {0}, true},
	{"IPv6", {V6}, true},
	{"one VLAN tag", {.vlans = 1}, true},
	{"one VLAN tag, IPv6", {V6, .vlans = 1}, true},
	{"two VLAN tags", {.vlans = 2}, true},
	{"two VLAN tags, IPv6", {V6, .vlans = 2}, true},
	{"three VLAN tags", {.vlans = 3}, false},
	{"IP options", {.ip_options = 4}, true},
	{"all the IP options there can be", {.ip_options = 40}, true},
	{"TCP options", {.tcp_options = 20}, true},
	{"all the TCP options there can be", {.tcp_options = 40}, true},
	{"TCP options, IPv6", {V6, .tcp_options = 40}, true},
	{"data in the SYN", {.data = 100}, true},
	{"padding", {.padding = 6}, true},
	{"everything at once", {.vlans = 2, .ip_options = 40, .tcp_options = 40, .data = 9}, true},
	{"do not fragment", {.fragment = 0x4000}, true},
	{"the reserved bit", {.fragment = 0x8000}, true},
	{"first fragment", {.fragment = 0x2000}, false},
	{"middle fragment", {.fragment = 0x2010}, false},
	{"last fragment", {.fragment = 0x0010}, false},
	{"hop-by-hop options", {V6, .extensions = hop}, true},
	{"long hop-by-hop options", {V6, .extensions = hop, .extension_bytes = 264}, true},
	{"routing header", {V6, .extensions = routing}, true},
	{"destination options", {V6, .extensions = dest}, true},
	{"authentication header", {V6, .extensions = auth, .extension_bytes = 24}, true},
	{"several extension headers", {V6, .extensions = several}, true},
	{"as many extension headers as it follows", {V6, .extensions = eight}, true},
	{"one more", {V6, .extensions = nine}, false},
	{"encrypted", {V6, .extensions = esp}, false},
	{"no next header", {V6, .extensions = none}, false},
	{"mobility header", {V6, .extensions = mobility}, false},
	{"encrypted after options", {V6, .extensions = after}, false},
	{"fragment of its own", {V6, .fragment_header = true}, true},
	{"its reserved bits", {V6, .fragment_header = true, .fragment = 0x0006}, true},
	{"first IPv6 fragment", {V6, .fragment_header = true, .fragment = 0x0001}, false},
	{"last IPv6 fragment", {V6, .fragment_header = true, .fragment = 0x0008}, false},
	{"fragment after options",
		{V6, .extensions = hop, .fragment_header = true, .fragment = 0x0009}, false},
	{"ACK", {.flags = PACKET_ACK}, false},
	{"SYN and ACK", {.flags = PACKET_SYN | PACKET_ACK}, false},
	{"RST", {.flags = PACKET_RST}, false},
	{"SYN and RST", {.flags = PACKET_SYN | PACKET_RST}, false},
	{"SYN and FIN", {.flags = PACKET_SYN | PACKET_FIN}, false},
	{"FIN and ACK", {.flags = PACKET_FIN | PACKET_ACK}, false},
	{"SYN with ECN", {.flags = PACKET_SYN | PACKET_ECE | PACKET_CWR}, true},
	{"SYN and PSH", {.flags = PACKET_SYN | PACKET_PSH}, true},
	{"another port", {.dport = 8081}, false},
	{"another port of the same word", {.dport = 8095}, false},
	{"another port, IPv6", {V6, .dport = 80}, false},
};

enum {
	ROWS = sizeof(rows) / sizeof(rows[0]),
};

static void deny_all(void)
{
	fixture_list(BPF_MAP_deny, "0.0.0.0/0");
	fixture_list(BPF_MAP_deny, "::/0");
}

static void expect_looked_at(const char *what, bool looked_at)
{
	uint32_t want = looked_at ? XDP_DROP : XDP_PASS;

	if (fx->action != want)
		print_error("%s: action %u\n", what, fx->action);
	assert_int_equal(fx->action, want);
	fixture_expect(TG_DROP_DENYLIST, looked_at);
}

static void test_headers(void **state)
{
	FIXTURE_NEEDED();
	deny_all();
	for (unsigned i = 0; i < ROWS; i++) {
		fixture_run(&rows[i].o);
		expect_looked_at(rows[i].what, rows[i].looked_at);
	}
}

/* Cut anywhere, a packet is a SYN only with its whole TCP header; and never is it changed. */
static void test_truncation_at_every_byte(void **state)
{
	struct packet p;

	FIXTURE_NEEDED();
	deny_all();
	for (unsigned i = 0; i < ROWS; i++) {
		packet_build(&p, &rows[i].o);
		for (unsigned len = 14; len < p.len; len++) {
			fixture_run_bytes(&p, len, 1);
			expect_looked_at(rows[i].what, rows[i].looked_at && len >= p.l4 + 20);
			assert_int_equal(fx->out.len, len);
			assert_memory_equal(fx->out.b, p.b, len);
		}
	}
}

/* Every value of every byte before the TCP header, one at a time: no verdict is required but a
 * verdict there is, and the frame is untouched. */
static void test_any_byte_may_be_anything(void **state)
{
	static const uint8_t values[] = {
		0, 1, 4, 6, 0x0f, 0x40, 0x45, 0x60, 0x7f, 0x81, 0xfe, 0xff};
	struct packet p;

	FIXTURE_NEEDED();
	deny_all();
	for (unsigned i = 0; i < ROWS; i++) {
		packet_build(&p, &rows[i].o);
		for (unsigned at = 0; at < p.l4 + 20; at++) {
			uint8_t was = p.b[at];
			for (unsigned v = 0; v < sizeof(values); v++) {
				p.b[at] = values[v];
				fixture_run_bytes(&p, p.len, 1);
				assert_true(fx->action == XDP_PASS || fx->action == XDP_DROP);
				assert_memory_equal(fx->out.b, p.b, p.len);
			}
			p.b[at] = was;
		}
	}
}

static void poke(const struct packet_opts *o, unsigned l3, unsigned l4, uint8_t value,
	enum tg_verdict want, uint64_t packets)
{
	struct packet p;

	packet_build(&p, o);
	p.b[l4 ? p.l4 + l4 : p.l3 + l3] = value;
	fixture_run_bytes(&p, p.len, 1);
	assert_int_equal(fx->action, want == TG_DROP_DENYLIST && packets ? XDP_DROP : XDP_PASS);
	fixture_expect(want, packets);
}

static void test_malformed(void **state)
{
	const struct packet_opts v4 = {.tcp_options = 20}, v6 = {V6, .tcp_options = 20};

	FIXTURE_NEEDED();
	deny_all();
	/* A TCP header of less than 20 bytes, or longer than the packet says it is. */
	poke(&v4, 0, 12, 0x40, TG_ADMIT_MALFORMED, 1);
	poke(&v6, 0, 12, 0x40, TG_ADMIT_MALFORMED, 1);
	poke(&v4, 0, 12, 0xb0, TG_ADMIT_MALFORMED, 1);
	poke(&v6, 0, 12, 0xb0, TG_ADMIT_MALFORMED, 1);
	poke(&v4, 0, 12, 0xa0, TG_DROP_DENYLIST, 1);
	/* A length in the IP header that leaves no room for it. */
	poke(&v4, 3, 0, 30, TG_ADMIT_MALFORMED, 1);
	poke(&v6, 5, 0, 10, TG_ADMIT_MALFORMED, 1);
	/* No IP header at all. */
	poke(&v4, 0, 0, 0x44, TG_DROP_DENYLIST, 0);
	poke(&v4, 0, 0, 0x65, TG_DROP_DENYLIST, 0);
	poke(&v6, 0, 0, 0x45, TG_DROP_DENYLIST, 0);
	/* UDP. */
	poke(&v4, 9, 0, 17, TG_DROP_DENYLIST, 0);
	poke(&v6, 6, 0, 17, TG_DROP_DENYLIST, 0);
}

/* ---- the gateway's ports and addresses ---- */

static struct bpf_endpoint endpoint(const char *prefix, uint16_t port, uint16_t last)
{
	struct bpf_endpoint e = {.port = port, .port_last = last};
	struct tg_lpm_key key = fixture_prefix(prefix);

	memcpy(e.addr, key.addr, sizeof(e.addr));
	e.bits = (uint8_t)key.prefixlen;
	return e;
}

static void to(const char *src, const char *dst, uint16_t port, bool looked_at)
{
	fixture_run(&(struct packet_opts){.src = src, .dst = dst, .dport = port});
	expect_looked_at(dst, looked_at);
}

static void test_addresses(void **state)
{
	FIXTURE_NEEDED();
	struct bpf_endpoint list[] = {
		endpoint("192.0.2.2", 8080, 8080),
		endpoint("198.51.100.0/24", 9000, 9009),
		endpoint("2001:db8:1::/48", 8080, 8080),
		endpoint("0.0.0.0/0", 7000, 7000),
		{.port = 6000, .port_last = 6063},
	};

	deny_all();
	assert_int_equal(bpf_ports_write(fx->maps, list, 5), 0);
	to(NULL, "192.0.2.2", 8080, true);
	to(NULL, "192.0.2.3", 8080, false);
	to("2001:db8::1", "2001:db8:1::7", 8080, true);
	to("2001:db8::1", "2001:db8:2::7", 8080, false);
	to(NULL, "198.51.100.1", 8999, false);
	to(NULL, "198.51.100.1", 9000, true);
	to(NULL, "198.51.100.255", 9009, true);
	to(NULL, "198.51.100.1", 9010, false);
	to(NULL, "198.51.101.1", 9005, false);
	/* Every IPv4 address, and no IPv6 one. */
	to(NULL, "203.0.113.9", 7000, true);
	to("2001:db8::1", "2001:db8::9", 7000, false);
	/* Every address, over two words of ports. */
	to("2001:db8::1", "2001:db8::9", 6000, true);
	to(NULL, "203.0.113.9", 6063, true);
	to(NULL, "203.0.113.9", 6064, false);

	/* Another configuration takes their place. */
	assert_int_equal(bpf_ports_write(fx->maps, &list[2], 1), 0);
	to(NULL, "192.0.2.2", 8080, false);
	to(NULL, "198.51.100.1", 9000, false);
	to(NULL, "203.0.113.9", 6000, false);
	to("2001:db8::1", "2001:db8:1::7", 8080, true);
	assert_int_equal(fixture_entries(BPF_MAP_addresses), 1);
	/* Bad ones change nothing. */
	assert_int_equal(bpf_ports_write(fx->maps, &(struct bpf_endpoint){.port = 0}, 1), -EINVAL);
	assert_int_equal(
		bpf_ports_write(fx->maps, &(struct bpf_endpoint){.port = 9, .port_last = 8}, 1),
		-EINVAL);
	struct bpf_endpoint many = endpoint("192.0.2.2", 1, 65535);
	assert_int_equal(bpf_ports_write(fx->maps, &many, 1), -ENOSPC);
	to("2001:db8::1", "2001:db8:1::7", 8080, true);
	to(NULL, "192.0.2.2", 8080, false);
	assert_int_equal(fixture_entries(BPF_MAP_addresses), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		fixture_test(test_headers),
		fixture_test(test_truncation_at_every_byte),
		fixture_test(test_any_byte_may_be_anything),
		fixture_test(test_malformed),
		fixture_test(test_addresses),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
