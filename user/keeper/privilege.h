/* Giving up privileges, for good: what the gateway does before it reads its first byte from the
 * network.
 *
 * Single-threaded processes only (capabilities and no_new_privs belong to threads). Order: the
 * keeper calls privilege_raise_limits and privilege_find_user once; each child calls privilege_drop
 * right after the fork.
 */
#ifndef TIDEGATE_KEEPER_PRIVILEGE_H
#define TIDEGATE_KEEPER_PRIVILEGE_H

#include <sys/types.h>

struct privilege_user {
	uid_t uid;
	gid_t gid;
};

/* RLIMIT_NOFILE soft to hard; RLIMIT_MEMLOCK to infinity where permitted, else soft to hard. 0, or
 * the first -errno (the other is still tried). */
int privilege_raise_limits(void);

/* Looks a user up (not in the child: it may load libraries). 0, -ENOENT when there is no such user,
 * -EINVAL when it is user or group 0, which would be no drop at all. */
int privilege_find_user(const char *name, struct privilege_user *ret);

/* Becomes user (NULL: stays who it is), without supplementary groups; sets no_new_privs; empties
 * every capability set, the bounding set where CAP_SETPCAP permits; then verifies all of it and
 * that neither user 0 nor the old user can be had back. 0, or -errno with *ret_step naming what
 * failed: the caller must not go on. */
int privilege_drop(const struct privilege_user *user, const char **ret_step);

#endif
