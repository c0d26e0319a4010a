/* A record of the access log as a line of JSON. */
#include <arpa/inet.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "ops/access_log.h"

enum {
	STAMP_MAX = 64,
	UTF8_MAX = 4,
};

static const char *stamp(int64_t unix_ms, char text[STAMP_MAX])
{
	time_t s = (time_t)(unix_ms / 1000);
	struct tm tm;

	gmtime_r(&s, &tm);
	snprintf(text, STAMP_MAX, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", tm.tm_year + 1900,
		tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (int)(unix_ms % 1000));
	return text;
}

/* NULL: it was gone before anybody could ask. */
static const char *peer(const struct access_record *r, char text[INET6_ADDRSTRLEN])
{
	if (IN6_IS_ADDR_UNSPECIFIED(&r->peer))
		return NULL;
	if (IN6_IS_ADDR_V4MAPPED(&r->peer))
		return inet_ntop(AF_INET, &r->peer.s6_addr[12], text, INET6_ADDRSTRLEN);
	return inet_ntop(AF_INET6, &r->peer, text, INET6_ADDRSTRLEN);
}

/* A cut one ends at a whole character. What is no UTF-8 at all is told by its length only. */
static json_t *subject(const struct access_record *r)
{
	char text[64];

	if (!r->subject_len)
		return json_null();
	for (unsigned less = 0; less < (r->subject_cut ? UTF8_MAX : 1) && less < r->subject_len;
		less++) {
		json_t *s = json_stringn(r->subject, r->subject_len - less);

		if (s)
			return s;
	}
	snprintf(text, sizeof text, "(%u bytes, not UTF-8)", r->subject_len);
	return json_string(text);
}

static json_t *positive(uint64_t n)
{
	return n ? json_integer((json_int_t)n) : json_null();
}

static const char *handshake(const struct access_record *r)
{
	if (r->reason == CLOSE_HEALTH)
		return "none";
	if (r->opened)
		return "completed";
	return r->status ? "refused" : "incomplete";
}

static json_t *object(const struct access_record *r)
{
	char time_text[STAMP_MAX], peer_text[INET6_ADDRSTRLEN], session[24];

	snprintf(session, sizeof session, "%" PRIu64, r->session);
	return json_pack(
		"{s:s, s:s?, s:s?, s:o, s:s, s:s?, s:s, s:o, s:i, s:s, s:o, s:I, s:I, s:I, "
		"s:I, s:I, s:I, s:I, s:s, s:o, s:s?}",
		"ts", stamp(r->ended_unix_ms, time_text), "session", r->session ? session : NULL,
		"peer", peer(r, peer_text), "peer_port", positive(ntohs(r->peer_port)), "listener",
		r->listener, "route", *r->route ? r->route : NULL, "protocol", r->protocol,
		"subject", subject(r), "worker", (int)r->worker, "handshake", handshake(r),
		"status", positive(r->status), "duration_us", (json_int_t)r->duration_us,
		"bytes_in", (json_int_t)r->bytes_in, "bytes_out", (json_int_t)r->bytes_out,
		"messages_in", (json_int_t)r->messages_in, "messages_out",
		(json_int_t)r->messages_out, "dropped", (json_int_t)r->dropped, "run_delay_max_us",
		(json_int_t)r->run_delay_max_us, "reason", close_reason_name(r->reason), "code",
		positive(r->code), "error", r->error);
}

size_t access_log_format(const struct access_record *r, char line[ACCESS_LOG_LINE_MAX])
{
	json_t *o = object(r);
	size_t room = ACCESS_LOG_LINE_MAX - 1, len;

	len = o ? json_dumpb(o, line, room, JSON_COMPACT | JSON_ENSURE_ASCII) : 0;
	json_decref(o);
	if (!len || len > room)
		return 0;
	line[len] = '\n';
	return len + 1;
}
