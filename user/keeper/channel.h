/* The socket pair between keeper and gateway (SOCK_SEQPACKET): small records, descriptors attached
 * by SCM_RIGHTS.
 *
 * Order: the gateway receives every LISTENER (in the order of the configuration, workers
 * innermost), then ADMIN_TCP, ADMIN_UNIX, ACCESS_LOG and KEYS where configured, then GO; it answers
 * READY once, or FAILED and ends. KEYS comes again whenever a file of it has changed, ACCESS_LOG
 * when it was opened anew. DRAIN comes after GO, at
 * any time; STOP may come at any time at all. Both may be repeated. DRAIN need not be answered: the
 * gateway ends.
 *
 * End of file on the gateway's side (channel_recv says 0) means that the keeper is gone, killed
 * perhaps: the gateway ends cleanly and at once, as for STOP, since nobody would restart or command
 * it. No parent-death signal is set.
 */
#ifndef TIDEGATE_KEEPER_CHANNEL_H
#define TIDEGATE_KEEPER_CHANNEL_H

#include <stddef.h>
#include <stdint.h>

enum channel_kind {
	/* keeper -> gateway */
	CHANNEL_LISTENER,   /* one descriptor; index = config listener, sub = worker */
	CHANNEL_ADMIN_TCP,  /* one descriptor */
	CHANNEL_ADMIN_UNIX, /* one descriptor; index = user id of its owner, the keeper's */
	CHANNEL_ACCESS_LOG, /* one descriptor, to be appended to */
	CHANNEL_MAP,        /* one descriptor; index = enum bpf_shared_map (kern/bpf_maps.h) */
	/* One descriptor: the contents of the key and secret files, as secrets_unpack() reads them;
	 * index = how many */
	CHANNEL_KEYS,
	/* Everything was sent. index = restart epoch: seconds of the Unix epoch when this gateway
	 * was started, or more; larger at every start. */
	CHANNEL_GO,
	/* SIGTERM: stop accepting, close sessions spread over drain.period, exit 0. From the
	 * gateway: an operator asked for a drain on the admin socket; the keeper does what it does
	 * for SIGTERM, and sends DRAIN back. */
	CHANNEL_DRAIN,
	CHANNEL_STOP, /* exit now */
	/* gateway -> keeper */
	CHANNEL_READY, /* serving; sub = workers */
	/* Could not start; text says why. At the first start the keeper gives up then. */
	CHANNEL_FAILED,
	/* An operator wants wake delays measured of index per cent of the sockets, 0..100; 0: of
	 * none. What came of it, the map `sched` says. */
	CHANNEL_SAMPLE,
};

struct channel_record {
	uint32_t kind; /* enum channel_kind */
	uint32_t index, sub;
	char text[240];
};

/* 0 or -errno: -EAGAIN on a non-blocking socket whose buffer is full, -EPIPE when the peer is gone
 * (no SIGPIPE). fd -1: no descriptor. */
int channel_send(int sock, const struct channel_record *rec, int fd);
/* 1 with *ret (text terminated) and *ret_fd, close-on-exec, or -1; 0 when the peer is gone, -errno
 * (-EAGAIN on a non-blocking socket, -EBADMSG for a record of the wrong size or with more than one
 * descriptor: consumed, and what came with it closed). What a peer sent before it went is still
 * received. */
int channel_recv(int sock, struct channel_record *ret, int *ret_fd);

#endif
