/* `tidegatectl top`: a gateway at a glance, on a whole screen; a line a second where there is none.
 */
#ifndef TIDEGATECTL_TOP_H
#define TIDEGATECTL_TOP_H

#include <stdbool.h>

struct top_args {
	const char *socket;
	const char *interval, *count; /* as given, seconds and lines; NULL: not */
	bool json;
};

/* The exit code: 1 when the gateway cannot be reached at the start, 2 for bad arguments. */
int top_run(const struct top_args *a);

#endif
