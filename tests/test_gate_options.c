#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kern/bpf_lists.h"
#include "ops/gate_options.h"

/* A prefix becomes a key that the kernel's lists print as the same prefix, and comes back. */
static void test_keys(void **state)
{
	static const struct {
		const char *addr;
		unsigned len;
		const char *text;
	} cases[] = {
		{"::ffff:10.0.0.0", 96 + 8, "10.0.0.0/8"},
		{"::ffff:192.0.2.1", 128, "192.0.2.1/32"},
		{"::ffff:0.0.0.0", 96, "0.0.0.0/0"},
		{"2001:db8::", 32, "2001:db8::/32"},
		{"::", 0, "::/0"},
		{"::1", 128, "::1/128"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct in6_addr addr, back;
		struct tg_lpm_key key;
		char text[BPF_PREFIX_TEXT];
		uint8_t len;

		assert_int_equal(inet_pton(AF_INET6, cases[i].addr, &addr), 1);
		gate_key(&addr, cases[i].len, &key);
		bpf_prefix_format(&key, text);
		assert_string_equal(text, cases[i].text);
		gate_key_prefix(&key, &back, &len);
		assert_memory_equal(&back, &addr, sizeof addr);
		assert_int_equal(len, cases[i].len);
	}
}

static void test_options(void **state)
{
	static const char yaml[] =
		"instance: gate-options\n"
		"admission:\n"
		"  {mode: observe, refuse: reset, interfaces: [eth7], limit_loopback: true, "
		"flood_limit: 9, cookie_trigger: 5000,\n"
		"   v4_32_open: 5, v4_32_churn: 10, v4_24_churn: 0, penalty: 2s, penalty_max: 8s,\n"
		"   allow: [192.0.2.1], deny: [10.0.0.0/8, 2001:db8::/32],\n"
		"   weights: [{prefix: 100.64.0.0/10, weight: 3}, {prefix: 10.9.0.0/16, weight: "
		"0}]}\n"
		"listeners:\n"
		"  - {name: ws, address: 127.0.0.1:8080, proxy_protocol: {from: [127.0.0.2]}}\n"
		"routes: [{path: /, upstream: echo}]\n";
	char path[] = "/tmp/tidegate-test-XXXXXX", *errors = NULL;
	struct kernel_gate_opts o;
	struct config *c;
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, yaml, sizeof yaml - 1), sizeof yaml - 1);
	close(fd);
	if (config_load(path, &c, &errors))
		fail_msg("%s", errors);
	unlink(path);
	assert_true(gate_in_kernel(c));
	assert_int_equal(gate_options_init(c, "1", &o), 0);
	assert_string_equal(o.instance, "gate-options");
	assert_int_equal(o.n_interfaces, 1);
	assert_string_equal(o.interfaces[0], "eth7");
	assert_int_equal(o.settings.flags, TG_SET_FAIR | TG_SET_OBSERVE | TG_SET_RESET);
	assert_int_equal(o.settings.flood_limit, 9);
	assert_int_equal(o.settings.cookie_trigger, 5000);
	assert_int_equal(o.settings.penalty_ns, 2000000000);
	assert_int_equal(o.settings.penalty_max_ns, 8000000000);
	assert_int_equal(o.settings.tier[0][0].len, 32);
	assert_int_equal(o.settings.tier[0][0].open_limit, 5);
	assert_int_equal(o.settings.tier[0][0].churn_interval_ns, 100000000);
	assert_int_equal(o.settings.tier[0][0].churn_burst_ns, 2000000000);
	assert_int_equal(o.settings.tier[0][1].churn_interval_ns, 0);
	assert_int_equal(o.settings.tier[1][2].len, 48);
	assert_int_equal(o.n_allow, 1);
	assert_int_equal(o.n_deny, 2);
	/* Senders of PROXY headers are exempt, and so is a weight of 0. */
	assert_int_equal(o.n_weights, 3);
	assert_int_equal(o.weights[0].weight, TG_WEIGHT_EXEMPT);
	assert_int_equal(o.weights[1].weight, 3);
	assert_int_equal(o.weights[2].weight, TG_WEIGHT_EXEMPT);
	gate_options_fini(&o);
	config_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_options),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
