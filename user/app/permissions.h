/* Which topics a session may subscribe to and publish to, as its token's claims say. Pure after
 * creation; any thread.
 *
 * A claim is an object of two lists of patterns, either of which may be missing and then grants
 * nothing: {"subscribe":["room/7","prices"],"publish":["room/7"]}. A pattern is a topic, or ends in
 * the level `*`, which is any one level (docs/hub-protocol.md). What is not a pattern grants
 * nothing.
 */
#ifndef TIDEGATE_APP_PERMISSIONS_H
#define TIDEGATE_APP_PERMISSIONS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

enum session_action {
	SESSION_SUBSCRIBE,
	SESSION_PUBLISH,
	SESSION_ACTIONS,
};

enum {
	PERMISSIONS_PATTERN_MAX = 255, /* a topic's length */
};

struct permissions;

/* Of a claim; NULL: one that grants nothing. NULL without memory. */
struct permissions *permissions_create(const json_t *claim);
void permissions_destroy(struct permissions *p); /* NULL is allowed */

/* May it? A subscription with a `*` is allowed when every topic that it can match is; publishing to
 * one never is. */
bool permissions_allow(
	const struct permissions *p, enum session_action action, const char *topic, size_t len);

#endif
