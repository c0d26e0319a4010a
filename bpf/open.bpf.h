/* Open connections by source prefix, in a hash without LRU: see struct tg_open. */
#ifndef TIDEGATE_BPF_OPEN_H
#define TIDEGATE_BPF_OPEN_H

#include "maps.bpf.h"

enum {
	/* Of which each fails only because another CPU moved the same entry meanwhile, or is about
	 * to delete it. That one may be interrupted just then, so they are many. */
	OPEN_TRIES = 2048,

	OPEN_EEXIST = 17,
};

enum open_result {
	OPEN_COUNTED,
	OPEN_ABSENT, /* and was not made */
	OPEN_FAILED, /* the map is full, or others moved the entry at every try */
};

union open_word {
	struct {
		__s32 connections;
		__u32 tag;
	};
	__u64 word;
};

struct open_change {
	struct tg_prefix key;
	__s32 delta;
	__s32 weighted; /* delta of that */
	__u32 make;     /* an absent entry is made */
	/* Out, if counted: */
	__s32 connections;
	__s32 limited; /* those that count towards limits */
};

static __always_inline __u32 open_tag(const struct tg_prefix *key)
{
	const __u32 *w = (const __u32 *)key;
	__u64 h = ((__u64)w[0] << 32 | w[1]) * 0x9e3779b97f4a7c15ULL;

	h = (h ^ h >> 29 ^ w[2]) * 0xbf58476d1ce4e5b9ULL;
	return h >> 32;
}

static __always_inline void open_report(struct tg_open *o, struct open_change *c, __s32 n)
{
	/* Beside the word, hence a little late: limits need no more. */
	__s32 weighted = o->weighted;

	if (c->weighted)
		weighted = __sync_fetch_and_add(&o->weighted, c->weighted) + c->weighted;
	if (n > 0 && o->peak < (__u32)n)
		o->peak = n;
	if (weighted < 0)
		weighted = 0;
	c->connections = n;
	c->limited = n > weighted ? n - weighted : 0;
}

struct open_work {
	struct open_change *c;
	struct tg_prefix key;
	__u32 tag;
	enum open_result result;
};

/* Nobody counts in an entry at zero, so whoever brought it there may delete it. */
static __always_inline bool open_move(struct open_work *w, struct tg_open *o)
{
	union open_word old = {.word = *(volatile __u64 *)o}, new;

	if (old.tag != w->tag || !old.connections)
		return false; /* deleted: its memory may be another prefix's by now */
	new.tag = w->tag;
	new.connections = old.connections + w->c->delta;
	if (__sync_val_compare_and_swap((__u64 *)o, old.word, new.word) != old.word)
		return false;
	if (new.connections)
		open_report(o, w->c, new.connections);
	else
		bpf_map_delete_elem(&open, &w->key);
	return true;
}

static __always_inline long open_make(struct open_work *w)
{
	struct open_change *c = w->c;
	struct tg_open fresh = {.connections = c->delta, .tag = w->tag, .weighted = c->weighted};

	fresh.peak = c->delta > 0 ? c->delta : 0;
	long rc = bpf_map_update_elem(&open, &w->key, &fresh, BPF_NOEXIST);
	if (!rc) {
		c->connections = c->delta;
		c->limited = c->weighted ? 0 : c->delta;
	}
	return rc;
}

/* Returns 1 to end the loop. */
static long open_try(__u32 i, struct open_work *w)
{
	struct tg_open *o = bpf_map_lookup_elem(&open, &w->key);

	if (o) {
		if (!open_move(w, o))
			return 0;
		w->result = OPEN_COUNTED;
		return 1;
	}
	if (!w->c->make) {
		w->result = OPEN_ABSENT;
		return 1;
	}
	long rc = open_make(w);
	if (rc == -OPEN_EEXIST)
		return 0;
	w->result = rc ? OPEN_FAILED : OPEN_COUNTED;
	return 1;
}

/* enum open_result. A global function: the verifier looks at it once, and not once for each way
 * that leads to it. */
__noinline int open_change(struct open_change *c)
{
	if (!c)
		return OPEN_FAILED;
	struct open_work w = {
		.c = c, .key = c->key, .tag = open_tag(&c->key), .result = OPEN_FAILED};

	bpf_loop(OPEN_TRIES, open_try, &w, 0);
	return w.result;
}

#endif
