/* The tracking program (bpf/track.bpf.c): loading it, attaching it, taking it over.
 *
 * Keeper, single-threaded; privileged. Order: bpf_maps_open, settings (with bpf_track_set_netns)
 * and ports (bpf_gate.h), bpf_track_load, bpf_track_attach, bpf_maps_commit, then listeners.
 * bpf_track_close leaves what is pinned in force; bpf_track_detach ends it.
 *
 * Its two links are pinned, as track_link_<number> and track_link_<number>_missed, so that closes
 * go on being counted while nobody is home: else the count of open connections would stay too high
 * for ever. A start that finds the same program on the same maps leaves it alone. Another one takes
 * over in one store, tg_pace.track, and if the maps are new, too, the open connections of the old
 * ones are added to them. */
#ifndef TIDEGATE_KERN_BPF_TRACK_H
#define TIDEGATE_KERN_BPF_TRACK_H

#include <stdbool.h>
#include <stdint.h>

#include "kern/bpf_maps.h"

struct bpf_track;

struct bpf_track_opts {
	/* The lifetime of one connection in this many is taken, a power of two; 0: 64. A program
	 * that is taken over keeps its own. */
	uint32_t sample;
};

/* 0, or -errno, and *ret_step names what failed. maps must outlive it. */
int bpf_track_load(const struct bpf_maps *maps, const struct bpf_track_opts *opts,
	struct bpf_track **ret, const char **ret_step);

struct bpf_track_attached {
	bool adopted;   /* the program of a former start goes on */
	uint64_t moved; /* source prefixes whose open connections came from replaced maps */
	uint64_t lost;  /* … that found no room */
};

/* Once. 0, or -errno: then the program of the former start, if any, still counts. */
int bpf_track_attach(struct bpf_track *t, struct bpf_track_attached *ret, const char **ret_step);

/* Ends the counting, pins included. Harmless to repeat. */
void bpf_track_detach(struct bpf_track *t);
/* NULL is allowed. A link that is not pinned ends. */
void bpf_track_close(struct bpf_track *t);

/* Fills in netns_cookie: the calling thread's network namespace is the one. 0 or -errno. */
int bpf_track_set_netns(struct tg_settings *s);

#endif
