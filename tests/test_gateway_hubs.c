/* Which routes a browser page is told of, as a table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "ops/gateway_internal.h"

static struct config_listener listeners[4]; /* WebSocket, raw, behind a balancer, WebSocket */

static void make_listeners(void)
{
	for (unsigned i = 0; i < 4; i++) {
		struct sockaddr_in6 *in = (struct sockaddr_in6 *)&listeners[i].address.addr;
		*in = (struct sockaddr_in6){
			.sin6_family = i ? AF_INET6 : AF_INET,
			.sin6_port = htons((uint16_t)(8000 + i)),
		};
	}
	listeners[1].protocol = CONFIG_RAW;
	listeners[2].proxy_protocol = true;
}

static void test_table(void **state)
{
	static const struct {
		int upstream;
		char *host, *path;
		int listener, auth;
		const char *want; /* NULL: none */
		uint16_t ports[2];
	} cases[] = {
		{CONFIG_UPSTREAM_HUB, NULL, "/hub", -1, AUTH_NONE, "/hub", {8000, 8003}},
		{CONFIG_UPSTREAM_HUB, NULL, "/hub", 3, AUTH_NONE, "/hub", {8003}},
		{CONFIG_UPSTREAM_HUB, NULL, "/talk/*", 0, AUTH_NONE, "/talk", {8000}},
		{CONFIG_UPSTREAM_HUB, NULL, "/*", 0, AUTH_NONE, "/", {8000}},
		{CONFIG_UPSTREAM_HUB, NULL, "/hub", 1, AUTH_NONE, NULL, {0}},
		{CONFIG_UPSTREAM_HUB, NULL, "/hub", 2, AUTH_NONE, NULL, {0}},
		{CONFIG_UPSTREAM_HUB, NULL, "/hub", -1, AUTH_TOKEN, NULL, {0}},
		{CONFIG_UPSTREAM_HUB, "example.com", "/hub", -1, AUTH_NONE, NULL, {0}},
		{CONFIG_UPSTREAM_ECHO, NULL, "/hub", -1, AUTH_NONE, NULL, {0}},
		{0, NULL, "/hub", -1, AUTH_NONE, NULL, {0}},
	};

	make_listeners();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct config_route route = {
			.upstream_index = cases[i].upstream,
			.host = cases[i].host,
			.path = cases[i].path,
			.listener_index = cases[i].listener,
			.auth_type = cases[i].auth,
		};
		struct config cfg = {
			.listeners = listeners, .n_listeners = 4, .routes = &route, .n_routes = 1};
		struct admin_hub *hubs;
		unsigned n, want = cases[i].ports[1] ? 2 : cases[i].ports[0] ? 1 : 0;

		assert_int_equal(gateway_hubs(&cfg, &hubs, &n), 0);
		assert_int_equal(n, want);
		for (unsigned k = 0; k < n; k++) {
			assert_int_equal(hubs[k].port, cases[i].ports[k]);
			assert_string_equal(hubs[k].path, cases[i].want);
		}
		gateway_hubs_free(hubs, n);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
