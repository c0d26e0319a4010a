#include "ops/admin_query.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/config_address.h"
#include "proto/hub_codec.h"
#include "proto/utf8.h"
#include "proto/ws.h"

void admin_query_init(struct admin_query *q)
{
	memset(q, 0, sizeof(*q));
	q->kick.which.limit = ADMIN_CONNS_LIMIT_DEFAULT;
	q->kick.code = WS_CLOSE_POLICY;
}

/* Digits only: strtoull would take signs, blanks and "0x". */
static bool parse_number(const char *s, uint64_t min, uint64_t max, uint64_t *ret)
{
	uint64_t v = 0;

	if (!*s)
		return false;
	for (; *s; s++) {
		unsigned digit = (unsigned)(*s - '0');
		if (*s < '0' || *s > '9' || __builtin_mul_overflow(v, 10, &v) ||
			__builtin_add_overflow(v, digit, &v))
			return false;
	}
	if (v < min || v > max)
		return false;
	*ret = v;
	return true;
}

static bool printable(const char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			return false;
	return true;
}

static const char *set_limit(struct admin_query *q, const char *value)
{
	uint64_t v;

	if (!parse_number(value, 1, ADMIN_CONNS_LIMIT_MAX, &v))
		return "must be a number from 1 to 100000";
	q->kick.which.limit = v;
	return NULL;
}

static const char *set_route(struct admin_query *q, const char *value)
{
	if (value[0] != '/' || strlen(value) >= sizeof(q->kick.which.route) || !printable(value))
		return "must be a route's path: begin with '/' and be at most 255 bytes";
	strcpy(q->kick.which.route, value);
	return NULL;
}

static const char *set_listener(struct admin_query *q, const char *value)
{
	if (!value[0] || strlen(value) >= sizeof(q->kick.which.listener) || !printable(value))
		return "must be a listener's name, at most 63 bytes";
	strcpy(q->kick.which.listener, value);
	return NULL;
}

static const char *set_peer(struct admin_query *q, const char *value)
{
	static const char what[] = "must be an IPv4 or IPv6 address, without a port";
	char *out = q->kick.which.peer;
	struct in_addr v4;
	struct in6_addr v6;

	if (inet_pton(AF_INET, value, &v4) == 1) {
		inet_ntop(AF_INET, &v4, out, sizeof(q->kick.which.peer));
		return NULL;
	}
	if (inet_pton(AF_INET6, value, &v6) != 1)
		return what;
	if (IN6_IS_ADDR_V4MAPPED(&v6))
		inet_ntop(AF_INET, &v6.s6_addr[12], out, sizeof(q->kick.which.peer));
	else
		inet_ntop(AF_INET6, &v6, out, sizeof(q->kick.which.peer));
	return NULL;
}

static const char *set_session(struct admin_query *q, const char *value)
{
	uint64_t v;

	if (!parse_number(value, 1, UINT64_MAX, &v))
		return "must be a session's id, a decimal number of up to 64 bits";
	q->kick.which.session = v;
	return NULL;
}

static const char *set_code(struct admin_query *q, const char *value)
{
	uint64_t v;

	if (!parse_number(value, 1000, 4999, &v) || (v >= 1004 && v <= 1006) ||
		(v >= 1015 && v <= 2999))
		return "must be a close code that may be sent: 1000-1003, 1007-1014 or 3000-4999";
	q->kick.code = (uint16_t)v;
	return NULL;
}

static const char *set_reason(struct admin_query *q, const char *value)
{
	if (strlen(value) >= sizeof(q->kick.reason) ||
		!utf8_valid((const uint8_t *)value, strlen(value)))
		return "must be UTF-8 of at most 123 bytes";
	strcpy(q->kick.reason, value);
	return NULL;
}

static const char *set_slow(struct admin_query *q, const char *value)
{
	if (strcmp(value, "true") && strcmp(value, "false"))
		return "must be true or false";
	q->kick.which.slow = !strcmp(value, "true");
	return NULL;
}

static const char *set_prefix(struct admin_query *q, const char *value)
{
	if (strlen(value) >= sizeof(q->prefix) ||
		!utf8_valid((const uint8_t *)value, strlen(value)))
		return "must be UTF-8 of at most 255 bytes";
	strcpy(q->prefix, value);
	return NULL;
}

static const char *set_topic(struct admin_query *q, const char *value)
{
	if (!hub_topic_valid(value, strlen(value), false) ||
		!utf8_valid((const uint8_t *)value, strlen(value)))
		return "must be a topic: UTF-8 of at most 255 bytes, levels separated by '/', no "
		       "'*'";
	strcpy(q->topic, value);
	return NULL;
}

static const char *set_word(struct admin_query *q, const char *value)
{
	for (enum governor_word w = GATE_WORD_AUTO; w <= GATE_WORD_RATE; w++) {
		if (!strcmp(value, governor_word_name(w))) {
			q->word = w;
			return NULL;
		}
	}
	return "must be auto, open, shut or rate";
}

static const char *set_rate(struct admin_query *q, const char *value)
{
	uint64_t v;

	if (!parse_number(value, 0, GOVERNOR_RATE_MAX, &v))
		return "must be connections per second, 0 to 1000000";
	q->rate = (uint32_t)v;
	return NULL;
}

static const char *set_percent(struct admin_query *q, const char *value)
{
	uint64_t v;

	if (!parse_number(value, 0, 100, &v))
		return "must be a whole number from 0 to 100";
	q->percent = (unsigned)v;
	return NULL;
}

static const char *set_source(struct admin_query *q, const char *value)
{
	struct config_prefix p;
	const char *why;

	if (config_prefix_parse(value, &p, &why))
		return why;
	q->source = (struct prefix_entry){.addr = p.addr, .len = (uint8_t)p.len};
	return NULL;
}

static const struct {
	const char *name;
	enum admin_key bit;
	const char *(*set)(
		struct admin_query *q, const char *value); /* NULL, or what the value must be */
} keys[] = {
	{"limit", ADMIN_KEY_LIMIT, set_limit},
	{"route", ADMIN_KEY_ROUTE, set_route},
	{"listener", ADMIN_KEY_LISTENER, set_listener},
	{"peer", ADMIN_KEY_PEER, set_peer},
	{"session", ADMIN_KEY_SESSION, set_session},
	{"code", ADMIN_KEY_CODE, set_code},
	{"reason", ADMIN_KEY_REASON, set_reason},
	{"slow", ADMIN_KEY_SLOW, set_slow},
	{"prefix", ADMIN_KEY_PREFIX, set_prefix},
	{"topic", ADMIN_KEY_TOPIC, set_topic},
	{"word", ADMIN_KEY_WORD, set_word},
	{"rate", ADMIN_KEY_RATE, set_rate},
	{"percent", ADMIN_KEY_PERCENT, set_percent},
	{"prefix", ADMIN_KEY_SOURCE, set_source},
};

/* A stranger's key is shown cut and in ASCII. */
static void unknown_key(const char *key, size_t len, char ret_error[ADMIN_ERROR_MAX])
{
	char shown[65];
	size_t n = len < sizeof(shown) - 1 ? len : sizeof(shown) - 1;

	for (size_t i = 0; i < n; i++)
		shown[i] = key[i] > 0x20 && key[i] < 0x7f ? key[i] : '?';
	shown[n] = '\0';
	snprintf(ret_error, ADMIN_ERROR_MAX, "unknown query key: %s", shown);
}

int admin_query_set(struct admin_query *q, unsigned allowed, const char *key, size_t key_len,
	const char *value, size_t value_len, char ret_error[ADMIN_ERROR_MAX])
{
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		if (!(allowed & keys[i].bit) || strlen(keys[i].name) != key_len ||
			memcmp(keys[i].name, key, key_len))
			continue;
		const char *problem;
		if (q->given & keys[i].bit)
			problem = "is given twice";
		else if (!value)
			problem = "needs a value";
		else if (strlen(value) != value_len)
			problem = "must not hold a NUL";
		else
			problem = keys[i].set(q, value);
		if (problem) {
			snprintf(ret_error, ADMIN_ERROR_MAX, "%s %s", keys[i].name, problem);
			return -EINVAL;
		}
		q->given |= keys[i].bit;
		return 0;
	}
	unknown_key(key, key_len, ret_error);
	return -EINVAL;
}
