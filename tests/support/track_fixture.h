/* The tracking program on kernel_fixture.h: the test plays both the gateway and its clients. */
#ifndef TIDEGATE_TESTS_TRACK_FIXTURE_H
#define TIDEGATE_TESTS_TRACK_FIXTURE_H

#include "kernel_fixture.h"

#define SEC 1000000000ull

static struct bpf_track *track;

static inline void start(struct kernel *k, const struct bpf_maps_opts *opts)
{
	static const struct bpf_track_opts every = {.sample = 1};
	struct bpf_track_attached attached;
	const char *step = NULL;

	kernel_maps(k, opts);
	kernel_ok(bpf_track_load(k->maps, &every, &track, &step), step);
	kernel_ok(bpf_track_attach(track, &attached, &step), step);
	assert_false(attached.adopted);
}

static inline void stop(struct kernel *k)
{
	kernel_close(k);
	bpf_track_detach(track);
	bpf_track_close(track);
	bpf_maps_close(k->maps);
	if (k->dir[0])
		assert_int_equal(bpf_maps_remove(k->dir), 0);
	k->dir[0] = 0;
	track = NULL;
}

static inline void v4(char text[64], unsigned n)
{
	snprintf(text, 64, "10.7.%u.%u", n / 250, n % 250 + 1);
}

static inline void v6(char text[64], unsigned n)
{
	snprintf(text, 64, "fd07:0:0:%x::%x", n + 1, n + 1);
}

static inline char *with_len(const char *address, unsigned len)
{
	static char text[96];

	snprintf(text, sizeof(text), "%s/%u", address, len);
	return text;
}

static inline void connect_some(struct kernel *k, const char *from, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		kernel_connect(
			k, from, strchr(from, ':') ? NETNS_SERVER6 : NETNS_SERVER4, KERNEL_PORT);
}

static inline int listen_both(void)
{
	return crowd_listen("::", KERNEL_PORT, false);
}

#endif
