/* Files that the keeper reads for the gateway, which has no file access of its own: keys and
 * secrets. They are looked at again now and then, and travel as one memory file.
 *
 * A changed file is taken when it has not changed for one more look, so that half-written ones are
 * not. One that is missing, unreadable or wrong keeps its old contents, and is logged once per
 * change. Polling, not inotify: what is mounted or linked may change without an event on the name.
 *
 * Keeper only, but for secrets_unpack. Order: load, poll and pack…, fini; fini takes what a failed
 * load left.
 */
#ifndef TIDEGATE_KEEPER_SECRETS_H
#define TIDEGATE_KEEPER_SECRETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

enum {
	SECRETS_POLL_MS = 500,
	SECRETS_FILE_MAX = 64 * 1024,
	SECRETS_FILES_MAX = 128,
};

struct secrets_file {
	const char *path;
	const char *key;   /* of the configuration, for messages */
	bool confidential; /* warns when others may read it */
	int what;          /* for check() */
};

struct secrets_opts {
	const struct secrets_file *files; /* borrowed */
	unsigned n;                       /* SECRETS_FILES_MAX at most */
	/* NULL: good; else what is wrong, static. */
	const char *(*check)(int what, const void *data, size_t len);
};

struct secrets_stamp {
	dev_t dev;
	ino_t ino;
	off_t size;
	struct timespec mtime, ctime;
};

struct secrets_content {
	void *data;
	size_t len;
	struct secrets_stamp taken, seen; /* of the contents; at the last look */
	bool complained;                  /* about it being gone */
};

struct secrets {
	const struct secrets_opts *o;
	struct secrets_content *file;
	uint64_t looked_ms;
};

/* Reads all files. 0, or -errno and in error what is wrong. opts stays in use. */
int secrets_load(struct secrets *s, const struct secrets_opts *opts, char *error, size_t error_len);
/* True when contents changed. Looks once in SECRETS_POLL_MS. */
bool secrets_poll(struct secrets *s, uint64_t now_ms);
/* All contents as a sealed memory file, or -errno. */
int secrets_pack(const struct secrets *s);
void secrets_fini(struct secrets *s);

struct secrets_slice {
	const void *data;
	size_t len;
};

/* The contents of the memory file fd: 0 with n slices of *ret_blob, which is freed with
 * secrets_blob_free; -EBADMSG when they are not n; -errno. */
int secrets_unpack(int fd, unsigned n, struct secrets_slice *ret, void **ret_blob, size_t *ret_len);
void secrets_blob_free(void *blob, size_t len);

#endif
