#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "kern/bpf_gate.h"
#include "kern/bpf_lists.h"

static void test_prefixes_there_and_back(void **state)
{
	static const struct {
		const char *text, *formatted;
		unsigned bits;
	} good[] = {
		{"0.0.0.0/0", "0.0.0.0/0", 32},
		{"10.0.0.0/8", "10.0.0.0/8", 40},
		{"192.0.2.1", "192.0.2.1/32", 64},
		{"192.0.2.1/32", "192.0.2.1/32", 64},
		{"128.0.0.0/1", "128.0.0.0/1", 33},
		{"::/0", "::/0", 0},
		{"2001:db8::/32", "2001:db8::/32", 32},
		{"2001:DB8:0::1", "2001:db8::1/128", 128},
		{"8000::/1", "8000::/1", 1},
		{"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128",
			"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", 128},
		/* The same addresses, otherwise written. */
		{"::ffff:192.0.2.0/120", "192.0.2.0/24", 56},
		{"::ffff:192.0.2.1", "192.0.2.1/32", 64},
		{"::ffff:0:0/96", "0.0.0.0/0", 32},
	};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct tg_lpm_key key, again;
		char text[BPF_PREFIX_TEXT];
		memset(&key, 0xaa, sizeof(key));
		assert_int_equal(bpf_prefix_parse(good[i].text, &key), 0);
		assert_int_equal(key.prefixlen, good[i].bits);
		bpf_prefix_format(&key, text);
		assert_string_equal(text, good[i].formatted);
		assert_int_equal(bpf_prefix_parse(text, &again), 0);
		assert_memory_equal(&key, &again, sizeof(key));
	}
}

static void test_bad_prefixes(void **state)
{
	static const char *const bad[] = {"", "/", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1",
		"10.0.0.0/+8", "10.0.0.0/ 8", "10.0.0.0/8x", "10.0.0.0/8/8", "10.0.0/8",
		"10.0.0.1/8", "10.0.0.256", " 10.0.0.1", "2001:db8::/129", "2001:db8::1/64",
		"2001:db8:::/32", "::1/0", "localhost", "0:ffff:a00:1::/64", "0:ffff::/32",
		"10.0.0.0/99999999999999999999",
		"1111111111111111111111111111111111111111111111111111111111111111111111111"};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct tg_lpm_key key, before;
		memset(&key, 0xaa, sizeof(key));
		before = key;
		if (bpf_prefix_parse(bad[i], &key) != -EINVAL)
			print_error("%s\n", bad[i]);
		assert_int_equal(bpf_prefix_parse(bad[i], &key), -EINVAL);
		assert_memory_equal(&key, &before, sizeof(key));
	}
}

static void source_of(const char *address, unsigned bits, const char *want)
{
	struct tg_lpm_key key;
	struct tg_prefix source;
	char text[BPF_PREFIX_TEXT];

	assert_int_equal(bpf_prefix_parse(address, &key), 0);
	bpf_source_key(key.addr, bits, &source);
	assert_int_equal(source.len, bits);
	bpf_source_format(&source, text);
	assert_string_equal(text, want);
}

static void test_source_prefixes(void **state)
{
	source_of("192.0.2.77", 32, "192.0.2.77/32");
	source_of("192.0.2.77", 24, "192.0.2.0/24");
	source_of("192.0.2.77", 1, "128.0.0.0/1");
	source_of("2001:db8:1:2:3:4:5:6", 64, "2001:db8:1:2::/64");
	source_of("2001:db8:1:2ff:3:4:5:6", 56, "2001:db8:1:200::/56");
	source_of("2001:db8:1:2:3:4:5:6", 48, "2001:db8:1::/48");
}

static void test_every_verdict_has_its_own_name(void **state)
{
	for (unsigned i = 0; i < TG_VERDICT_COUNT; i++) {
		enum tg_verdict v = (enum tg_verdict)i;
		assert_true(strlen(bpf_verdict_help(v)) > 10);
		for (unsigned j = 0; j < i; j++)
			assert_true(
				strcmp(bpf_verdict_name(v), bpf_verdict_name((enum tg_verdict)j)) ||
				strcmp(bpf_verdict_program(v),
					bpf_verdict_program((enum tg_verdict)j)));
	}
	assert_string_equal(bpf_verdict_name(TG_VERDICT_COUNT), "unknown");
	assert_true(bpf_verdict_refuses(TG_DROP_DENYLIST));
	assert_true(bpf_verdict_refuses(TG_DROP_CONTENDED));
	assert_false(bpf_verdict_refuses(TG_ADMIT_MALFORMED));
	assert_false(bpf_verdict_refuses(TG_RESET_SENT));
	assert_string_equal(bpf_gate_state_name(TG_GATE_PACED), "paced");
	assert_string_equal(bpf_gate_state_name(77), "unknown");
	assert_string_equal(bpf_gate_reason_name(TG_GATE_BY_MEMORY), "memory");
	assert_string_equal(bpf_gate_reason_name(77), "unknown");
}

static void test_rates(void **state)
{
	struct tg_gate g = {0};

	bpf_gate_set_rate(&g, 1000, 0.5, 100000000);
	assert_int_equal(g.state, TG_GATE_PACED);
	assert_int_equal(g.interval_ns, 1000000);
	assert_int_equal(g.new_interval_ns, 2000000);
	assert_int_equal(g.burst_ns, 100000000);
	/* A burst that the kernel's clock cannot divide. */
	bpf_gate_set_rate(&g, 1000, 0, 5);
	assert_int_equal(g.burst_ns, 40000000);
	/* No reserve, no second rate. A burst that would be one connection at a time. */
	bpf_gate_set_rate(&g, 0.1, 0, 5);
	assert_int_equal(g.interval_ns, 10000000000ull);
	assert_int_equal(g.new_interval_ns, 0);
	assert_int_equal(g.burst_ns, 40000000000ull);
	/* Never 0, which would be no rate. */
	bpf_gate_set_rate(&g, 1e12, 1, 0);
	assert_int_equal(g.interval_ns, 1);
	assert_true(g.new_interval_ns >= 99);
}

static void test_settings_are_checked_before_they_are_written(void **state)
{
	struct tg_settings s;

	bpf_settings_init(&s);
	/* No descriptor: good ones get as far as the kernel. */
	assert_int_equal(bpf_settings_write(-1, &s), -EBADF);
	s.tier[0][1].len = 33;
	assert_int_equal(bpf_settings_write(-1, &s), -EINVAL);
	bpf_settings_init(&s);
	s.tier[1][0].len = 65;
	assert_int_equal(bpf_settings_write(-1, &s), -EINVAL);
	bpf_settings_init(&s);
	s.tier[1][0].len = 0;
	assert_int_equal(bpf_settings_write(-1, &s), -EINVAL);
	bpf_settings_init(&s);
	s.workers = TG_WORKERS_MAX + 1;
	assert_int_equal(bpf_settings_write(-1, &s), -EINVAL);
	bpf_settings_init(&s);
	s.rings = 0;
	assert_int_equal(bpf_settings_write(-1, &s), -EINVAL);
	bpf_settings_init(&s);
	s.flood_limit = BPF_FLOOD_LIMIT_MAX + 1;
	assert_int_equal(bpf_settings_write(-1, &s), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_prefixes_there_and_back),
		cmocka_unit_test(test_bad_prefixes),
		cmocka_unit_test(test_source_prefixes),
		cmocka_unit_test(test_every_verdict_has_its_own_name),
		cmocka_unit_test(test_rates),
		cmocka_unit_test(test_settings_are_checked_before_they_are_written),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
