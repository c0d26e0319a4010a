/* What the keeper opens and every gateway receives: the listeners, the admin sockets and the
 * access log, in the order of channel.h.
 *
 * Keeper only. Order: open, then record and close_listeners as needed, close. close takes what a
 * failed open left.
 */
#ifndef TIDEGATE_KEEPER_DESCRIPTORS_H
#define TIDEGATE_KEEPER_DESCRIPTORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "keeper/channel.h"
#include "keeper/listen.h"

enum {
	DESCRIPTORS_ADMIN_BACKLOG = 128,
	DESCRIPTORS_LOG_MODE = 0640, /* of an access log that is created: who connects is nobody
					else's business */
};

struct descriptors_listener {
	const char *name;             /* in messages */
	struct sockaddr_storage addr; /* AF_INET or AF_INET6 */
	socklen_t addr_len;
	unsigned backlog;
};

struct descriptors_opts {
	const struct descriptors_listener *listeners;
	unsigned n_listeners;
	unsigned workers;                /* 1..LISTEN_COPIES_MAX: sockets per listener */
	struct listen_sockopts sockopts; /* of the listeners */
	struct sockaddr_storage admin_tcp;
	socklen_t admin_tcp_len; /* 0: none */
	const char *admin_unix;  /* NULL: none */
	const char *access_log;  /* path; NULL: none */
};

struct descriptors {
	const struct descriptors_opts *o; /* borrowed */
	int *listeners;                   /* [listener * workers + worker] */
	unsigned n_open;                  /* of them */
	int admin_tcp;                    /* -1: none */
	struct listen_unix admin_unix;    /* fd -1: none */
	int access_log;                   /* -1: none */
};

/* 0, or -errno and in error what failed: "listener ws: 127.0.0.1:8080: Address already in use".
 * opts stays in use. */
int descriptors_open(
	struct descriptors *d, const struct descriptors_opts *opts, char *error, size_t error_len);

/* Record number i of the handover and its descriptor, or -1: listeners (workers innermost), admin
 * sockets, GO (whose index is left to the caller). False: there is no such record. */
bool descriptors_record(
	const struct descriptors *d, unsigned i, struct channel_record *ret, int *ret_fd);

/* Opens the access log's path again: a new file where the old one was moved away. 0, or -errno:
 * then the old one stays. */
int descriptors_reopen_access_log(struct descriptors *d);

/* From here on newcomers are refused, once the gateway has closed its own. */
void descriptors_close_listeners(struct descriptors *d);

/* Closes everything and removes the admin socket's file. */
void descriptors_close(struct descriptors *d);

#endif
