#include "keeper/privilege.h"

#include <cap-ng.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
	PASSWD_BYTES_FIRST = 1024,
	PASSWD_BYTES_MAX =
		1 << 20, /* a directory service's entry larger than this is nobody's account */
};

int privilege_raise_limits(void)
{
	struct rlimit lim;
	int r = 0;

	if (getrlimit(RLIMIT_NOFILE, &lim))
		r = -errno;
	else if (lim.rlim_cur != lim.rlim_max) {
		lim.rlim_cur = lim.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &lim))
			r = -errno;
	}

	lim = (struct rlimit){RLIM_INFINITY, RLIM_INFINITY};
	if (setrlimit(RLIMIT_MEMLOCK, &lim) == 0)
		return r;
	if (getrlimit(RLIMIT_MEMLOCK, &lim))
		return r ? r : -errno;
	lim.rlim_cur = lim.rlim_max;
	if (setrlimit(RLIMIT_MEMLOCK, &lim) && !r)
		r = -errno;
	return r;
}

int privilege_find_user(const char *name, struct privilege_user *ret)
{
	struct passwd pw, *found = NULL;
	size_t bytes = PASSWD_BYTES_FIRST;
	char *buf = NULL;
	int r;

	do {
		char *bigger = realloc(buf, bytes);
		if (!bigger) {
			free(buf);
			return -ENOMEM;
		}
		buf = bigger;
		r = getpwnam_r(name, &pw, buf, bytes, &found);
		bytes *= 2;
	} while (r == ERANGE && bytes <= PASSWD_BYTES_MAX);

	if (!found)
		r = r ? -r : -ENOENT;
	else if (pw.pw_uid == 0 || pw.pw_gid == 0)
		r = -EINVAL;
	else
		*ret = (struct privilege_user){.uid = pw.pw_uid, .gid = pw.pw_gid};
	free(buf);
	return r;
}

static int change_user(const struct privilege_user *u, const char **ret_step)
{
	*ret_step = "setgroups";
	if (setgroups(0, NULL))
		return -errno;
	*ret_step = "setresgid";
	if (setresgid(u->gid, u->gid, u->gid))
		return -errno;
	*ret_step = "setresuid";
	if (setresuid(u->uid, u->uid, u->uid))
		return -errno;
	return 0;
}

static int verify_user(const struct privilege_user *u, uid_t old_uid, gid_t old_gid)
{
	uid_t ruid, euid, suid;
	gid_t rgid, egid, sgid;

	if (getresuid(&ruid, &euid, &suid) || getresgid(&rgid, &egid, &sgid))
		return -errno;
	if (ruid != u->uid || euid != u->uid || suid != u->uid)
		return -EPERM;
	if (rgid != u->gid || egid != u->gid || sgid != u->gid || getgroups(0, NULL) != 0)
		return -EPERM;
	/* Succeeding is the failure here. */
	if (setuid(0) == 0 || setgid(0) == 0)
		return -EPERM;
	if (old_uid != u->uid && setresuid(old_uid, old_uid, old_uid) == 0)
		return -EPERM;
	if (old_gid != u->gid && setresgid(old_gid, old_gid, old_gid) == 0)
		return -EPERM;
	return 0;
}

static int verify_capabilities(bool bounding_dropped)
{
	if (capng_get_caps_process())
		return -EPERM;
	if (capng_have_capabilities(CAPNG_SELECT_CAPS) != CAPNG_NONE)
		return -EPERM;
	if (capng_have_capabilities(CAPNG_SELECT_AMBIENT) != CAPNG_NONE)
		return -EPERM;
	if (bounding_dropped && capng_have_capabilities(CAPNG_SELECT_BOUNDS) != CAPNG_NONE)
		return -EPERM;
	return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? 0 : -EPERM;
}

int privilege_drop(const struct privilege_user *user, const char **ret_step)
{
	uid_t old_uid = geteuid();
	gid_t old_gid = getegid();
	bool bounding = false;
	int r;

	/* The bounding set first, while CAP_SETPCAP is still there; without it, no_new_privs says
	 * the same. */
	*ret_step = "reading capabilities";
	if (capng_get_caps_process())
		return -EPERM;
	if (capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP)) {
		capng_clear(CAPNG_SELECT_BOUNDS);
		*ret_step = "dropping the bounding set";
		if (capng_apply(CAPNG_SELECT_BOUNDS))
			return -EPERM;
		bounding = true;
	}
	if (user) {
		r = change_user(user, ret_step);
		if (r)
			return r;
	}
	*ret_step = "dropping capabilities";
	capng_clear(CAPNG_SELECT_ALL);
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
		return -errno;
	if (capng_apply(CAPNG_SELECT_CAPS))
		return -EPERM;
	*ret_step = "no_new_privs";
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;

	*ret_step = "verifying capabilities";
	r = verify_capabilities(bounding);
	if (r || !user)
		return r;
	*ret_step = "verifying the user";
	return verify_user(user, old_uid, old_gid);
}
