#include "keeper/secrets.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"

static struct secrets_stamp stamp_of(const struct stat *st)
{
	return (struct secrets_stamp){
		.dev = st->st_dev,
		.ino = st->st_ino,
		.size = st->st_size,
		.mtime = st->st_mtim,
		.ctime = st->st_ctim,
	};
}

static bool same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool same_stamp(const struct secrets_stamp *a, const struct secrets_stamp *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
	       same_time(a->mtime, b->mtime) && same_time(a->ctime, b->ctime);
}

void secrets_blob_free(void *blob, size_t len)
{
	if (blob)
		explicit_bzero(blob, len);
	free(blob);
}

/* What is wrong, or NULL with *ret, *ret_len to be freed by secrets_blob_free. */
static const char *read_open(int fd, void **ret, size_t *ret_len)
{
	char *data = malloc(SECRETS_FILE_MAX + 1);
	size_t len = 0;

	if (!data)
		return strerror(ENOMEM);
	while (len <= SECRETS_FILE_MAX) {
		ssize_t n = read(fd, data + len, SECRETS_FILE_MAX + 1 - len);

		if (n == 0) {
			*ret = data;
			*ret_len = len;
			return NULL;
		}
		if (n < 0 && errno != EINTR) {
			const char *why = strerror(errno);

			secrets_blob_free(data, len);
			return why;
		}
		len += n > 0 ? (size_t)n : 0;
	}
	secrets_blob_free(data, len);
	return "is larger than 64 KiB";
}

static const char *read_file(
	const struct secrets_file *f, void **ret, size_t *ret_len, struct stat *ret_stat)
{
	/* Not to wait for the other end of a pipe. */
	int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	const char *why = NULL;

	if (fd < 0)
		return strerror(errno);
	if (fstat(fd, ret_stat))
		why = strerror(errno);
	else if (!S_ISREG(ret_stat->st_mode))
		why = "is not a file";
	if (!why)
		why = read_open(fd, ret, ret_len);
	close(fd);
	return why;
}

/* Reads the file and takes it when it is good; NULL, or what is wrong. */
static const char *take(struct secrets *s, unsigned i, bool *ret_changed)
{
	const struct secrets_file *f = &s->o->files[i];
	struct secrets_content *c = &s->file[i];
	struct stat st;
	void *data = NULL;
	size_t len = 0;
	const char *why = read_file(f, &data, &len, &st);

	if (why)
		return why;
	c->taken = c->seen = stamp_of(&st);
	why = s->o->check(f->what, data, len);
	if (why) {
		secrets_blob_free(data, len);
		return why;
	}
	if (f->confidential && (st.st_mode & S_IROTH))
		log_warn("keeper", "%s: %s may be read by every user; chmod o-r it", f->key,
			f->path);
	*ret_changed = !c->data || c->len != len || memcmp(c->data, data, len);
	secrets_blob_free(c->data, c->len);
	c->data = data;
	c->len = len;
	return NULL;
}

int secrets_load(struct secrets *s, const struct secrets_opts *opts, char *error, size_t error_len)
{
	*s = (struct secrets){.o = opts, .file = calloc(opts->n + 1, sizeof(*s->file))};
	if (!s->file) {
		snprintf(error, error_len, "keys: %s", strerror(ENOMEM));
		return -ENOMEM;
	}
	for (unsigned i = 0; i < opts->n; i++) {
		bool changed;
		const char *why = take(s, i, &changed);

		if (why) {
			snprintf(error, error_len, "%s: %s: %s", opts->files[i].key,
				opts->files[i].path, why);
			return -EINVAL;
		}
	}
	return 0;
}

static void keep_old(const struct secrets_file *f, const char *why)
{
	log_error("keeper", "%s: %s: %s; what it was before stays in use", f->key, f->path, why);
}

static bool look(struct secrets *s, unsigned i)
{
	const struct secrets_file *f = &s->o->files[i];
	struct secrets_content *c = &s->file[i];
	struct secrets_stamp now;
	bool changed = false, rests;
	const char *why;
	struct stat st;

	if (stat(f->path, &st)) {
		if (!c->complained)
			keep_old(f, strerror(errno));
		c->complained = true;
		return false;
	}
	c->complained = false;
	now = stamp_of(&st);
	if (same_stamp(&now, &c->taken))
		return false;
	rests = same_stamp(&now, &c->seen);
	c->seen = now;
	if (!rests)
		return false;
	c->taken = now; /* good or not, it is not looked at again before it changes */
	why = take(s, i, &changed);
	if (why)
		keep_old(f, why);
	else if (changed)
		log_info("keeper", "%s: %s has changed and is in use", f->key, f->path);
	return changed;
}

bool secrets_poll(struct secrets *s, uint64_t now_ms)
{
	bool changed = false;

	if (now_ms - s->looked_ms < SECRETS_POLL_MS)
		return false;
	s->looked_ms = now_ms;
	for (unsigned i = 0; i < s->o->n; i++)
		changed |= look(s, i);
	return changed;
}

static int write_all(int fd, const void *data, size_t len)
{
	const char *p = data;

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			p += n;
			len -= (size_t)n;
		}
	}
	return 0;
}

int secrets_pack(const struct secrets *s)
{
	int fd = memfd_create("tidegate-keys", MFD_CLOEXEC | MFD_ALLOW_SEALING), err = 0;

	if (fd < 0)
		return -errno;
	for (unsigned i = 0; !err && i < s->o->n; i++) {
		uint32_t len = (uint32_t)s->file[i].len;

		err = write_all(fd, &len, sizeof len);
		if (!err)
			err = write_all(fd, s->file[i].data, len);
	}
	if (!err &&
		fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL))
		err = -errno;
	if (!err)
		return fd;
	close(fd);
	return err;
}

void secrets_fini(struct secrets *s)
{
	for (unsigned i = 0; s->file && i < s->o->n; i++)
		secrets_blob_free(s->file[i].data, s->file[i].len);
	free(s->file);
	s->file = NULL;
}

static int slices(const char *p, size_t len, unsigned n, struct secrets_slice *ret)
{
	for (unsigned i = 0; i < n; i++) {
		uint32_t size;

		if (len < sizeof size)
			return -EBADMSG;
		memcpy(&size, p, sizeof size);
		p += sizeof size;
		len -= sizeof size;
		if (size > len)
			return -EBADMSG;
		ret[i] = (struct secrets_slice){p, size};
		p += size;
		len -= size;
	}
	return len ? -EBADMSG : 0;
}

int secrets_unpack(int fd, unsigned n, struct secrets_slice *ret, void **ret_blob, size_t *ret_len)
{
	struct stat st;
	char *blob;
	size_t len;
	int err;

	if (fstat(fd, &st))
		return -errno;
	if (st.st_size < 0 || st.st_size > (off_t)SECRETS_FILES_MAX * (SECRETS_FILE_MAX + 4))
		return -EBADMSG;
	len = (size_t)st.st_size;
	blob = malloc(len + 1);
	if (!blob)
		return -ENOMEM;
	err = pread(fd, blob, len, 0) == (ssize_t)len ? slices(blob, len, n, ret) : -EBADMSG;
	if (err) {
		secrets_blob_free(blob, len);
		return err;
	}
	*ret_blob = blob;
	*ret_len = len;
	return 0;
}
