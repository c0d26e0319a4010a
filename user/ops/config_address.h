/* Addresses and prefixes of the configuration. Pure but for the copy of the text; any thread.
 *
 * Hosts are numeric: a name would be resolved when the gateway starts and be stale ever after.
 * On -EINVAL *ret_why is a static text that begins with a verb; -ENOMEM leaves it alone.
 */
#ifndef TIDEGATE_OPS_CONFIG_ADDRESS_H
#define TIDEGATE_OPS_CONFIG_ADDRESS_H

#include <stdbool.h>

#include "ops/config.h"

/* "127.0.0.1:8080" or "[::1]:8080". */
int config_address_tcp(const char *text, struct config_address *ret, const char **ret_why);
/* "tcp://127.0.0.1:9300", "tcp://[::1]:9300" or "unix:/run/service.sock" (at most 107 bytes of
 * path). */
int config_address_endpoint(const char *text, struct config_address *ret, const char **ret_why);
void config_address_fini(struct config_address *a);

/* Same family, host and port, or same path; false when either is unset. */
bool config_address_equal(const struct config_address *a, const struct config_address *b);

/* "10.0.0.0/8", "2001:db8::/32", or an address alone. Bits beyond the length must be zero. */
int config_prefix_parse(const char *text, struct config_prefix *ret, const char **ret_why);

/* Bytes of a Unix socket's path that fit struct sockaddr_un with the NUL. */
enum {
	CONFIG_UNIX_PATH_MAX = 107
};

#endif
