#include "app/permissions.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Both lists, one behind the other: a byte of length and the pattern each, subscribe first. */
struct permissions {
	uint32_t publish_at, len;
	char text[];
};

static const char *const names[SESSION_ACTIONS] = {"subscribe", "publish"};

/* Bytes before the last level. */
static size_t last_level(const char *p, size_t len)
{
	const char *slash = memrchr(p, '/', len);

	return slash ? (size_t)(slash + 1 - p) : 0;
}

static bool ends_in_star(const char *p, size_t len)
{
	return len - last_level(p, len) == 1 && p[len - 1] == '*';
}

/* No empty level, and `*` as a level only, the last. */
static bool pattern_valid(const char *p, size_t len)
{
	if (!len || len > PERMISSIONS_PATTERN_MAX || p[0] == '/' || p[len - 1] == '/' ||
		memmem(p, len, "//", 2))
		return false;
	return !memchr(p, '*', len - ends_in_star(p, len));
}

/* Appends a list's patterns to p, or only counts their bytes where p is NULL. */
static size_t put_list(char *p, const json_t *list)
{
	const json_t *v;
	size_t i, n = 0;

	json_array_foreach(list, i, v)
	{
		size_t len = json_string_length(v);

		if (!json_is_string(v) || !pattern_valid(json_string_value(v), len))
			continue;
		if (p) {
			p[n] = (char)len;
			memcpy(p + n + 1, json_string_value(v), len);
		}
		n += 1 + len;
	}
	return n;
}

struct permissions *permissions_create(const json_t *claim)
{
	const json_t *sub = json_object_get(claim, names[SESSION_SUBSCRIBE]),
		     *pub = json_object_get(claim, names[SESSION_PUBLISH]);
	size_t sub_len = put_list(NULL, sub), pub_len = put_list(NULL, pub);
	struct permissions *p = malloc(sizeof *p + sub_len + pub_len);

	if (!p)
		return NULL;
	p->publish_at = (uint32_t)sub_len;
	p->len = (uint32_t)(sub_len + pub_len);
	put_list(p->text, sub);
	put_list(p->text + sub_len, pub);
	return p;
}

void permissions_destroy(struct permissions *p)
{
	free(p);
}

static bool covers(const char *pattern, size_t n, const char *topic, size_t len)
{
	size_t base;

	if (n == len && !memcmp(pattern, topic, n))
		return true;
	if (!ends_in_star(pattern, n))
		return false;
	base = last_level(topic, len);
	return base == n - 1 && len > base && !memcmp(pattern, topic, base);
}

bool permissions_allow(
	const struct permissions *p, enum session_action action, const char *topic, size_t len)
{
	uint32_t at = action == SESSION_PUBLISH ? p->publish_at : 0;
	uint32_t end = action == SESSION_PUBLISH ? p->len : p->publish_at;

	if (!len || (action == SESSION_PUBLISH && ends_in_star(topic, len)))
		return false;
	while (at < end) {
		size_t n = (uint8_t)p->text[at];

		if (covers(p->text + at + 1, n, topic, len))
			return true;
		at += (uint32_t)(1 + n);
	}
	return false;
}
