/* Where every key of a YAML file stands: the tree of its keys with their lines, built from
 * libyaml's events.
 *
 * libcyaml loads values but keeps no positions, so the file is read twice: first here, which also
 * refuses what the loader would take silently or describe badly (duplicate keys, values left out,
 * aliases, tags, a second document). One thread. Order: build, line…, fini; fini is right after a
 * failed build too.
 *
 * A path is written as in error messages: "routes[2].heartbeat.interval".
 */
#ifndef TIDEGATE_OPS_CONFIG_INDEX_H
#define TIDEGATE_OPS_CONFIG_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include "ops/config_errors.h"

enum {
	CONFIG_PATH_MAX = 256,      /* bytes of a path with its NUL; longer is cut */
	CONFIG_INDEX_DEPTH_MAX = 8, /* nested mappings and lists; the schema needs 5 */
	CONFIG_INDEX_KEYS_MAX =
		64, /* keys of one mapping, since duplicates are found by a linear search */
	CONFIG_INDEX_NODES_MAX = 250000, /* 1,024 routes with 200 origins each fit */
};

enum config_node_kind {
	CONFIG_NODE_SCALAR,
	CONFIG_NODE_MAPPING,
	CONFIG_NODE_LIST,
};

/* A value; node 0 is the whole file. Links are indices, 0 means none. */
struct config_node {
	char *key;     /* in a mapping; NULL in a list */
	unsigned item; /* its place in a list, from 0 */
	unsigned line; /* of its key, or of the list item, from 1 */
	enum config_node_kind kind;
	uint32_t parent, first, last, next; /* first and last child, next sibling */
	unsigned children;
};

struct config_index {
	struct config_node *node;
	unsigned n, room;
};

/* 0; -EINVAL with at least one error added; -ENOMEM. */
int config_index_build(
	struct config_index *ix, const void *data, size_t len, struct config_errors *errors);
void config_index_fini(struct config_index *ix);

/* The node a path names, or the deepest one on the way to it that exists: of a key that is missing,
 * the mapping that lacks it. */
const struct config_node *config_index_find(const struct config_index *ix, const char *path);

/* The child with exactly this key, whatever characters it is made of; NULL when there is none. */
const struct config_node *config_index_child(
	const struct config_index *ix, const struct config_node *parent, const char *key);

/* printf() into a path, cut where it does not fit; returns it. */
__attribute__((format(printf, 2, 3))) const char *config_index_format(
	char out[CONFIG_PATH_MAX], const char *fmt, ...);

/* A node's path, cut to CONFIG_PATH_MAX. */
void config_index_path(
	const struct config_index *ix, const struct config_node *node, char out[CONFIG_PATH_MAX]);

#endif
