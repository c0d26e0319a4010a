/* Tells the service manager how we are: the datagram protocol of sd_notify(3). */
#ifndef TIDEGATE_KEEPER_NOTIFY_H
#define TIDEGATE_KEEPER_NOTIFY_H

/* Sends state ("READY=1\nMAINPID=12") to $NOTIFY_SOCKET, a path or "@name" for an abstract one,
 * without blocking. 0, also when the variable is not set, or -errno. */
int notify_send(const char *state);

#endif
