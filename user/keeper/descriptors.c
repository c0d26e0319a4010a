#include "keeper/descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct failure {
	const char *what, *name; /* "listener", "ws" */
	const char *address;
	const char *step; /* or NULL */
};

static int describe(const struct failure *f, int r, char *error, size_t error_len)
{
	snprintf(error, error_len, "%s%s%s: %s: %s%s%s", f->what, f->name ? " " : "",
		f->name ? f->name : "", f->address, f->step ? f->step : "", f->step ? ": " : "",
		strerror(-r));
	return r;
}

static int open_listeners(struct descriptors *d, char *error, size_t error_len)
{
	for (unsigned i = 0; i < d->o->n_listeners; i++) {
		const struct descriptors_listener *l = &d->o->listeners[i];
		struct listen_opts o = {
			.addr = l->addr,
			.addr_len = l->addr_len,
			.backlog = l->backlog,
			.copies = d->o->workers,
			.sockopts = d->o->sockopts,
		};
		char text[LISTEN_ADDRESS_TEXT];
		struct failure f = {.what = "listener", .name = l->name};
		int r = listen_tcp(&o, d->listeners + d->n_open, &f.step);
		if (r) {
			f.address = listen_address_text(&l->addr, text);
			return describe(&f, r, error, error_len);
		}
		d->n_open += o.copies;
	}
	return 0;
}

static int open_admin(struct descriptors *d, char *error, size_t error_len)
{
	char text[LISTEN_ADDRESS_TEXT];
	struct failure f = {.what = "admin"};
	int r;

	if (d->o->admin_tcp_len) {
		struct listen_opts o = {
			.addr = d->o->admin_tcp,
			.addr_len = d->o->admin_tcp_len,
			.backlog = DESCRIPTORS_ADMIN_BACKLOG,
			.copies = 1,
			.nonblock = true,
		};
		r = listen_tcp(&o, &d->admin_tcp, &f.step);
		if (r) {
			f.address = listen_address_text(&o.addr, text);
			return describe(&f, r, error, error_len);
		}
	}
	if (d->o->admin_unix) {
		r = listen_unix(
			d->o->admin_unix, DESCRIPTORS_ADMIN_BACKLOG, &d->admin_unix, &f.step);
		if (r) {
			f.name = "socket";
			f.address = d->o->admin_unix;
			return describe(&f, r, error, error_len);
		}
	}
	return 0;
}

/* Not held up by a FIFO that nobody reads: ENXIO then. */
static int open_access_log(const char *path)
{
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK,
		DESCRIPTORS_LOG_MODE);

	return fd < 0 ? -errno : fd;
}

int descriptors_reopen_access_log(struct descriptors *d)
{
	int fd = open_access_log(d->o->access_log);

	if (fd < 0)
		return fd;
	close(d->access_log);
	d->access_log = fd;
	return 0;
}

static int open_log(struct descriptors *d, char *error, size_t error_len)
{
	struct failure f = {.what = "access log", .address = d->o->access_log};

	if (!d->o->access_log)
		return 0;
	d->access_log = open_access_log(d->o->access_log);
	return d->access_log < 0 ? describe(&f, d->access_log, error, error_len) : 0;
}

int descriptors_open(
	struct descriptors *d, const struct descriptors_opts *opts, char *error, size_t error_len)
{
	*d = (struct descriptors){
		.o = opts, .admin_tcp = -1, .admin_unix = {.fd = -1}, .access_log = -1};
	if (opts->n_listeners) {
		d->listeners =
			calloc((size_t)opts->n_listeners * opts->workers, sizeof(*d->listeners));
		if (!d->listeners) {
			snprintf(error, error_len, "listeners: %s", strerror(ENOMEM));
			return -ENOMEM;
		}
	}
	int r = open_listeners(d, error, error_len);
	if (!r)
		r = open_admin(d, error, error_len);
	return r ? r : open_log(d, error, error_len);
}

bool descriptors_record(
	const struct descriptors *d, unsigned i, struct channel_record *ret, int *ret_fd)
{
	unsigned n = d->o->n_listeners * d->o->workers;
	struct channel_record rec = {.kind = CHANNEL_GO};
	int fd = -1;

	if (i < n) {
		rec.kind = CHANNEL_LISTENER;
		rec.index = i / d->o->workers;
		rec.sub = i % d->o->workers;
		fd = d->listeners[i];
	} else {
		i -= n;
		if (d->admin_tcp >= 0 && i-- == 0) {
			rec.kind = CHANNEL_ADMIN_TCP;
			fd = d->admin_tcp;
		} else if (d->admin_unix.fd >= 0 && i-- == 0) {
			rec.kind = CHANNEL_ADMIN_UNIX;
			rec.index = (uint32_t)geteuid();
			fd = d->admin_unix.fd;
		} else if (d->access_log >= 0 && i-- == 0) {
			rec.kind = CHANNEL_ACCESS_LOG;
			fd = d->access_log;
		} else if (i != 0) {
			return false;
		}
	}
	*ret = rec;
	*ret_fd = fd;
	return true;
}

void descriptors_close_listeners(struct descriptors *d)
{
	while (d->n_open > 0)
		close(d->listeners[--d->n_open]);
}

void descriptors_close(struct descriptors *d)
{
	descriptors_close_listeners(d);
	free(d->listeners);
	d->listeners = NULL;
	if (d->admin_tcp >= 0)
		close(d->admin_tcp);
	d->admin_tcp = -1;
	listen_unix_close(&d->admin_unix);
	if (d->access_log >= 0)
		close(d->access_log);
	d->access_log = -1;
}
