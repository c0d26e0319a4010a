/* The errors of one configuration file, collected and then written out in file order.
 *
 * One thread. Order: init, add…, render, fini. A line reads "FILE:LINE: KEY: what is wrong";
 * control characters that came from the file are shown as '?', so that one error is always one
 * line.
 */
#ifndef TIDEGATE_OPS_CONFIG_ERRORS_H
#define TIDEGATE_OPS_CONFIG_ERRORS_H

#include <stdbool.h>

enum {
	CONFIG_ERRORS_MAX = 100,      /* kept; the rest is only counted */
	CONFIG_ERROR_TEXT_MAX = 1024, /* bytes of "KEY: what is wrong"; longer is cut */
};

struct config_error {
	unsigned line;
	char *text;
};

struct config_errors {
	struct config_error item[CONFIG_ERRORS_MAX];
	unsigned n, held_back;
	bool out_of_memory;
};

void config_errors_init(struct config_errors *e);
void config_errors_fini(struct config_errors *e);

__attribute__((format(printf, 4, 5))) void config_errors_add(
	struct config_errors *e, unsigned line, const char *key, const char *fmt, ...);

/* Sorts by line (errors of one line stay in the order of their adding) and returns the text, each
 * line ended by a newline, to be freed; NULL when memory ran out. */
char *config_errors_render(struct config_errors *e, const char *file);

#endif
