#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <poll.h>

#include "support/gateway_harness.h"

static struct gateway_harness h;

enum {
	CLIENTS = 40
};

/* Sessions get 1001 one after the other over the whole period, and answer as they like. */
static void test_spread(void **state)
{
	uint64_t began, first = 0, last = 0, half = 0;
	struct pollfd p[CLIENTS];
	unsigned closed = 0;

	gwh_begin(&h, 800);
	for (unsigned i = 0; i < CLIENTS; i++)
		p[i] = (struct pollfd){.fd = gwh_client(&h, 0, "/a"), .events = POLLIN};
	began = client_now_ms();
	gwh_post(&h, 0, MAIL_DRAIN);
	gwh_post(&h, 0, MAIL_DRAIN); /* once is enough */
	while (closed < CLIENTS) {
		assert_true(poll(p, CLIENTS, 5000) > 0);
		for (unsigned i = 0; i < CLIENTS; i++) {
			if (!p[i].revents)
				continue;
			assert_true(client_ws_closed_with(p[i].fd, WS_CLOSE_GOING_AWAY));
			assert_true(client_ws_send_close(p[i].fd, WS_CLOSE_GOING_AWAY));
			close(p[i].fd);
			p[i].fd = -1;
			last = client_now_ms() - began;
			if (!closed++)
				first = last;
			if (closed == CLIENTS / 2)
				half = last;
		}
	}
	print_message("first after %u ms, half after %u, last after %u\n", (unsigned)first,
		(unsigned)half, (unsigned)last);
	assert_true(first < 400);
	assert_true(half >= 300 && half <= 780);
	assert_true(last >= 600 && last < 3000);
	gwh_end(&h);
	assert_int_equal(h.workers[0].net.draining, true);
}

/* Nobody comes in any more; whoever was still on the way in is let go. */
static void test_no_newcomers(void **state)
{
	int silent, late;

	gwh_begin(&h, 50);
	silent = client_connect(h.ports[0][0], 0);
	assert_true(client_write(silent, "GET /a", 6));
	client_sleep_ms(20);
	gwh_post(&h, 0, MAIL_DRAIN);
	assert_true(client_gone(silent));
	late = client_connect(h.ports[0][0], 0);
	assert_true(late < 0 || client_gone(late));
	if (late >= 0)
		close(late);
	close(silent);
	/* The other worker was not asked. */
	late = gwh_client(&h, 1, "/a");
	assert_true(client_ws_echo(late, "hello"));
	close(late);
	gwh_end(&h);
}

/* A period of nothing: all at once. */
static void test_at_once(void **state)
{
	int fds[CLIENTS];

	gwh_begin(&h, 0);
	for (unsigned i = 0; i < CLIENTS; i++)
		fds[i] = gwh_client(&h, 1, "/b");
	gwh_post(&h, 1, MAIL_DRAIN);
	for (unsigned i = 0; i < CLIENTS; i++) {
		assert_true(client_ws_closed_with(fds[i], WS_CLOSE_GOING_AWAY));
		close(fds[i]);
	}
	gwh_end(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_spread),
		cmocka_unit_test(test_no_newcomers),
		cmocka_unit_test(test_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
