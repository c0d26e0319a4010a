#include "app/route.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

/* "example.com:8080" -> "example.com"; "[::1]:80" -> "[::1]". */
static struct http_str without_port(struct http_str host)
{
	for (size_t i = host.len; i-- > 0;) {
		char ch = host.data[i];

		if (ch == ':')
			return (struct http_str){host.data, i};
		if (ch < '0' || ch > '9')
			break;
	}
	return host;
}

static bool host_matches(const char *want, struct http_str host)
{
	size_t len = strlen(want);

	if (want[0] == '*' && want[1] == '.')
		return host.len > len - 1 &&
		       !strncasecmp(host.data + host.len - (len - 1), want + 1, len - 1);
	return host.len == len && !strncasecmp(host.data, want, len);
}

/* How well the path fits: 0 not at all; an exact match above every prefix. */
static size_t path_score(const char *want, struct http_str path)
{
	size_t len = strlen(want);

	if (len >= 2 && want[len - 1] == '*' && want[len - 2] == '/') {
		size_t base = len - 2; /* without slash star */

		if (path.len < base || memcmp(path.data, want, base))
			return 0;
		return path.len == base || path.data[base] == '/' ? len : 0;
	}
	return path.len == len && !memcmp(path.data, want, len) ? (size_t)1 << 20 : 0;
}

int route_match(const struct route *routes, size_t n, int listener, struct http_str host,
	struct http_str path)
{
	size_t best_score = 0;
	int best = -1;

	host = without_port(host);
	for (size_t i = 0; i < n; i++) {
		size_t score;

		if (routes[i].listener >= 0 && routes[i].listener != listener)
			continue;
		if (routes[i].host && !host_matches(routes[i].host, host))
			continue;
		score = path_score(routes[i].path, path) * 2;
		if (score && routes[i].host)
			score++;
		if (score > best_score) {
			best_score = score;
			best = (int)i;
		}
	}
	return best;
}
