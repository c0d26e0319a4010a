/* config_load() for text that is already in memory: tests, fuzzers, and config_load() itself.
 *
 * `path` is what error messages name and config.path becomes; NULL is the built-in demo. Results
 * and errors as config_load() has them. */
#ifndef TIDEGATE_OPS_CONFIG_PARSE_H
#define TIDEGATE_OPS_CONFIG_PARSE_H

#include "ops/config.h"

/* What error messages call the built-in demo. */
#define CONFIG_DEMO_NAME "(demo)"

int config_parse(
	const char *path, const void *data, size_t len, struct config **ret, char **ret_errors);

#endif
