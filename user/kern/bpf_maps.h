/* The maps that the BPF programs share (include/tidegate/abi.h), in one directory of a BPF file
 * system: made once, kept over crashes, taken over by the next start.
 *
 * Keeper, single-threaded; privileged. Order: open, load and attach programs on it (bpf_admit.h and
 * its like, by bpf_maps_reuse), commit, close. A start that finds maps of its own ABI and sizes
 * adopts them. Else it makes its own beside them, in `<dir>_new`, copies what must not be lost, and
 * commit puts them in the place of the old ones, after the links were moved to the new programs:
 * the gate is in force all the while. Closing unpins nothing.
 */
#ifndef TIDEGATE_KERN_BPF_MAPS_H
#define TIDEGATE_KERN_BPF_MAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tidegate/abi.h"

struct bpf_object;

/* X(name): every map of bpf/maps.bpf.h. */
#define BPF_SHARED_MAPS(X)                                                                         \
	X(settings)                                                                                \
	X(ports)                                                                                   \
	X(addresses)                                                                               \
	X(redirects)                                                                               \
	X(allow)                                                                                   \
	X(deny)                                                                                    \
	X(weights)                                                                                 \
	X(gate)                                                                                    \
	X(pace)                                                                                    \
	X(worker_load)                                                                             \
	X(picks)                                                                                   \
	X(penalty)                                                                                 \
	X(penalty_filter)                                                                          \
	X(proven)                                                                                  \
	X(sources)                                                                                 \
	X(open)                                                                                    \
	X(lifetime)                                                                                \
	X(born)                                                                                    \
	X(syn_sketch)                                                                              \
	X(verdicts)                                                                                \
	X(events)                                                                                  \
	X(listeners)                                                                               \
	X(meta)                                                                                    \
	X(sched)                                                                                   \
	X(delays)                                                                                  \
	X(ready)

#define X(name) BPF_MAP_##name,
enum bpf_shared_map {
	BPF_SHARED_MAPS(X) BPF_SHARED_MAP_COUNT
};
#undef X

enum {
	BPF_MAPS_DIR_MAX = 200, /* bytes of the directory's path */
	BPF_MAPS_LIST_DEFAULT = 131072,
	BPF_MAPS_SKETCH_BLOCKS =
		8192, /* 512 KiB, which a core keeps in its cache; 65,536 cells a row */
};

/* Entries; 0 takes the default in brackets. */
struct bpf_maps_opts {
	const char *dir;        /* absolute, on a BPF file system; NULL: nothing is pinned */
	uint32_t sources;       /* source prefixes remembered [65536] */
	uint32_t open;          /* source prefixes with open connections [as sources] */
	uint32_t penalties;     /* [65536] */
	uint32_t list;          /* of allow and of deny [131072] */
	uint32_t weights;       /* [4096] */
	uint32_t addresses;     /* [1024] */
	uint32_t sketch_blocks; /* rounded up to a power of two [8192] */
	uint32_t events_bytes;  /* rounded up to a power of two of pages [262144] */
	uint32_t listeners;     /* listener sockets, all workers and rings [4096] */
	uint64_t generation;    /* of the configuration */
	const char *version;    /* of tidegate, for people */
};

struct bpf_maps;

/* What a start found in the directory. */
enum bpf_maps_found {
	BPF_MAPS_NONE,
	BPF_MAPS_ADOPTED,  /* the same ABI and sizes */
	BPF_MAPS_REPLACED, /* another ABI or other sizes: made anew, lists and penalties copied */
};

/* 0, or -errno: -EPERM without privilege or BPF, -ENOENT when dir's parent does not exist, -EINVAL
 * when it is not on a BPF file system, -ENAMETOOLONG, -ENOMEM. */
int bpf_maps_open(const struct bpf_maps_opts *opts, struct bpf_maps **ret);
enum bpf_maps_found bpf_maps_found(const struct bpf_maps *m);
/* Entries of the old maps that found no room in the new ones. */
uint64_t bpf_maps_lost(const struct bpf_maps *m);

/* The descriptor stays the maps'. */
int bpf_maps_fd(const struct bpf_maps *m, enum bpf_shared_map which);
const char *bpf_maps_name(enum bpf_shared_map which);
uint32_t bpf_maps_entries(const struct bpf_maps *m, enum bpf_shared_map which);

/* Before an object is loaded: gives it these maps for those of its own that bear their names. */
int bpf_maps_reuse(const struct bpf_maps *m, struct bpf_object *obj);

/* Where something of this start is pinned until commit, and after: writes the path of a pin. */
int bpf_maps_pin_path(const struct bpf_maps *m, const char *name, char *path, size_t len);
/* The same in the directory that a former start left, for what is still pinned there. -ENOENT:
 * there is none, or it is the same one. */
int bpf_maps_old_path(const struct bpf_maps *m, const char *name, char *path, size_t len);

/* Everything is in force: writes meta and puts the directory in its place. Idempotent. */
int bpf_maps_commit(struct bpf_maps *m);

/* NULL is allowed. Before commit nothing of this start is left behind. */
void bpf_maps_close(struct bpf_maps *m);

/* Unpins everything in dir, and dir: the kernel frees what nobody else holds, links included. 0
 * also when there is nothing. Without a daemon, too. */
int bpf_maps_remove(const char *dir);

/* An mmapable map, by its descriptor alone: what the unprivileged gateway does with `gate` (writes)
 * and `worker_load`. bytes is the size of all its entries. */
int bpf_maps_mmap(int fd, size_t bytes, bool writable, void **ret);
void bpf_maps_munmap(void *p, size_t bytes);

#endif
