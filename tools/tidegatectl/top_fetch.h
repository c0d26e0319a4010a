/* The gateway as `tidegatectl top` asks it: in a thread of its own, so that one that hangs does not
 * hang the screen. The thread lives as long as the process. */
#ifndef TIDEGATECTL_TOP_FETCH_H
#define TIDEGATECTL_TOP_FETCH_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

enum {
	TOP_WHY_MAX = 512,
};

/* One question, at once. A new reference to the answer, which is an object or an array; or NULL,
 * and in why the reason, as the gateway or the system says it. */
json_t *top_ask(const char *socket, const char *method, const char *target, char why[TOP_WHY_MAX]);

/* What has happened since it was last taken. */
struct top_news {
	json_t *snapshot; /* a new reference, or NULL */
	bool lost;        /* the last attempt failed: why */
	char why[TOP_WHY_MAX];
	bool answered, good; /* a post was answered, well or not */
	char answer[TOP_WHY_MAX];
};

struct top_fetch;

/* Asks for a snapshot every interval_ms. 0 or -errno. */
int top_fetch_start(const char *socket, unsigned interval_ms, struct top_fetch **ret);
/* Readable while there is news. */
int top_fetch_fd(const struct top_fetch *f);
void top_fetch_take(struct top_fetch *f, struct top_news *ret);
/* False: the last one is still under way. */
bool top_fetch_post(struct top_fetch *f, const char *target);

#endif
