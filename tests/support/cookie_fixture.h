/* SYN cookies: the mode in which they are sent, in a network namespace of its own, whose kernel
 * makes the cookies for a listener of ours. */
#ifndef TIDEGATE_TESTS_COOKIE_FIXTURE_H
#define TIDEGATE_TESTS_COOKIE_FIXTURE_H

#include <netinet/in.h>
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

static const uint8_t several[] = {0, 60, 43, 0xff}; /* extension headers */

/* As SYNs above the trigger switch it on. */
static inline void switch_on(void)
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
static inline uint32_t run_on(const struct packet *p, unsigned len)
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

static inline uint32_t run_opts_on(const struct packet_opts *o)
{
	struct packet p;

	packet_build(&p, o);
	return run_on(&p, p.len);
}

static inline void begin(void)
{
	fx->settings.flood_limit = 0;
	fx->settings.cookie_trigger = TRIGGER;
	fixture_settings();
}

static inline void write_sysctl(const char *value)
{
	FILE *f = fopen(SYSCTL, "w");

	assert_non_null(f);
	assert_true(fputs(value, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static inline int setup(void **state)
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

static inline void listen_on_8080(void)
{
	struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(8080)};

	listener = socket(AF_INET6, SOCK_STREAM, 0);
	assert_true(listener >= 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&any, sizeof(any)), 0);
	assert_int_equal(listen(listener, 128), 0);
}

static inline int setup_group(void **state)
{
	fixture_cookies = true;
	if (netns_new() < 0)
		return 0; /* not permitted: fx stays NULL, every test is skipped */
	write_sysctl("2");
	listen_on_8080();
	return 0;
}

#define cookie_test(f) cmocka_unit_test_setup_teardown(f, setup, fixture_teardown)

#endif
