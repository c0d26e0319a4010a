/* From the loaded text to struct config: units, ranges, defaults, addresses, names (build), then
 * what concerns several keys at once (check). Both add every error they find and go on; a value
 * that was refused is left zero or NULL, and the checks that would need it are skipped. One thread.
 */
#ifndef TIDEGATE_OPS_CONFIG_BUILD_H
#define TIDEGATE_OPS_CONFIG_BUILD_H

#include "ops/config.h"
#include "ops/config_errors.h"
#include "ops/config_index.h"
#include "ops/config_raw.h"

struct config_build {
	const struct config_index *index;
	struct config_errors *errors;
	bool out_of_memory;
};

/* Fills a zeroed *c, which config_free() releases whatever the outcome. */
void config_build(struct config_build *b, const struct config_raw *raw, struct config *c);
/* After config_build(): resolves names to indices and judges keys against each other. */
void config_check(struct config_build *b, struct config *c);

/* Adds an error; the line is that of the key, or of the mapping that lacks it. */
__attribute__((format(printf, 3, 4))) void config_build_error(
	struct config_build *b, const char *key, const char *fmt, ...);

/* strdup() that notes when memory ran out; NULL stays NULL. */
char *config_build_copy(struct config_build *b, const char *text);

#endif
