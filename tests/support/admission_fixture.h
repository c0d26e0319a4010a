/* An admission with small limits, and short ways to ask it. */
#ifndef TIDEGATE_TESTS_ADMISSION_FIXTURE_H
#define TIDEGATE_TESTS_ADMISSION_FIXTURE_H

#include <arpa/inet.h>
#include <string.h>

#include "net/admission.h"

#define MS  UINT64_C(1000000)
#define SEC UINT64_C(1000000000)

struct fixture {
	struct admission_opts opts;
	struct admission *a;
	struct admission_lists lists;
	struct tg_worker_stats stats;
	uint64_t now_ns;
};

static inline struct in6_addr addr(const char *text)
{
	struct in6_addr a = {0};

	if (inet_pton(AF_INET6, text, &a) == 1)
		return a;
	a.s6_addr[10] = a.s6_addr[11] = 0xff;
	assert_int_equal(inet_pton(AF_INET, text, &a.s6_addr[12]), 1);
	return a;
}

/* No limits but those a test sets before fixture_start. */
static inline void fixture_init(struct fixture *f)
{
	memset(f, 0, sizeof *f);
	f->opts = (struct admission_opts){
		.tier = {{{.len = 32}, {.len = 24}}, {{.len = 64}, {.len = 56}, {.len = 48}}},
		.penalty_ns = 10 * SEC,
		.penalty_max_ns = 60 * SEC,
		.source_burst = 4,
		.sources = 1024,
		.hash_key = {1, 2},
	};
	f->now_ns = 1000 * SEC;
	stats_init(&f->stats);
}

static inline void fixture_start(struct fixture *f)
{
	assert_int_equal(admission_create(&f->opts, &f->a), 0);
}

static inline void fixture_fini(struct fixture *f)
{
	admission_destroy(f->a);
	prefix_list_fini(&f->lists.allow);
	prefix_list_fini(&f->lists.deny);
	prefix_list_fini(&f->lists.weights);
}

static inline void list_add(struct prefix_list *l, const char *text, unsigned len, uint32_t value)
{
	struct prefix_entry e[16];
	size_t n = l->n;

	if (n)
		memcpy(e, l->entry, n * sizeof *e);
	e[n] = (struct prefix_entry){addr(text), (uint8_t)len, value};
	prefix_list_fini(l);
	assert_int_equal(prefix_list_init(l, e, n + 1), 0);
}

static inline struct admission_result judge(struct fixture *f, const char *from)
{
	struct in6_addr peer = addr(from);

	return admission_judge(f->a, &f->lists, &f->stats, &peer, 0, f->now_ns);
}

static inline enum tg_verdict verdict(struct fixture *f, const char *from)
{
	return judge(f, from).verdict;
}

static inline void closed(struct fixture *f, const char *from, uint8_t ticket)
{
	struct in6_addr peer = addr(from);

	admission_closed(f->a, &f->lists, &f->stats, &peer, ticket, f->now_ns);
}

static inline uint8_t served(struct fixture *f, const char *from, uint8_t ticket)
{
	struct in6_addr peer = addr(from);

	return admission_served(f->a, &peer, ticket);
}

/* As the governor would say it now. */
static inline void gate(struct fixture *f, enum tg_gate_state state, uint32_t rate,
	uint32_t reserve, uint32_t permits)
{
	admission_gate(f->a, &(struct governor_gate){.state = state,
				     .rate = rate,
				     .reserve_rate = reserve,
				     .permits = permits,
				     .heartbeat_ns = f->now_ns});
}

#endif
