#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
	LINE_MAX_BYTES = 2048, /* with the newline; below PIPE_BUF: a pipe takes a line whole */
	STAMP_BYTES = sizeof("2026-03-01T12:00:00.123Z"),
};

/* Atomic each, since a reload may change them while others log. */
static struct {
	_Atomic int level;
	_Atomic bool json, colour;
	_Atomic unsigned per_kind_per_s;
	_Atomic int fd;
	const char *_Atomic who;
} settings = {.level = LOG_LEVEL_INFO, .fd = STDERR_FILENO};

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static const char *const level_colours[] = {"\033[31m", "\033[33m", "\033[32m", "\033[2m"};

struct line {
	char text[LINE_MAX_BYTES];
	size_t len, limit;
	bool json, cut;
};

void log_init(const struct log_opts *opts)
{
	settings.level = (int)opts->level;
	settings.json = opts->json;
	settings.colour = !opts->json && isatty(opts->fd);
	settings.per_kind_per_s = opts->per_kind_per_s;
	settings.fd = opts->fd;
	settings.who = opts->who;
}

bool log_enabled(enum log_level level)
{
	return (int)level <= atomic_load_explicit(&settings.level, memory_order_relaxed);
}

/* All of it or nothing. */
static bool put(struct line *l, const char *s, size_t n)
{
	if (l->cut || l->limit - l->len < n) {
		l->cut = true;
		return false;
	}
	memcpy(l->text + l->len, s, n);
	l->len += n;
	return true;
}

static void put_text(struct line *l, const char *s)
{
	put(l, s, strlen(s));
}

/* Length of the UTF-8 sequence at s and its code point; 0 when it is not one (RFC 3629 section 4).
 * s ends in NUL, which is no continuation byte. */
static size_t utf8_sequence(const unsigned char *s, uint32_t *ret_code)
{
	static const uint32_t lowest[] = {0, 0, 0x80, 0x800, 0x10000};
	uint32_t code;
	size_t n;

	if (s[0] < 0x80) {
		*ret_code = s[0];
		return 1;
	}
	n = s[0] >= 0xf8 ? 0 : s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : s[0] >= 0xc0 ? 2 : 0;
	if (!n)
		return 0;
	code = s[0] & (0x7fu >> n);
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (s[i] & 0x3f);
	}
	if (code < lowest[n] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
		return 0;
	*ret_code = code;
	return n;
}

/* What could act on a terminal or pretend to be another line: C0 and C1 controls, line and
 * paragraph separators, and the marks that turn the direction of writing. */
static bool is_control(uint32_t code)
{
	return code < 0x20 || (code >= 0x7f && code < 0xa0) || (code >= 0x200e && code <= 0x200f) ||
	       (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
}

/* For people: the bytes as \xNN. */
static bool put_hex(struct line *l, const unsigned char *s, size_t n)
{
	char hex[4 * sizeof("\\xff")];
	size_t len = 0;

	for (size_t i = 0; i < n; i++)
		len += (size_t)snprintf(hex + len, sizeof(hex) - len, "\\x%02x", s[i]);
	return put(l, hex, len);
}

static bool put_json_escape(struct line *l, uint32_t code)
{
	char text[sizeof("\\uffff")];

	switch (code) {
	case '"':
		return put(l, "\\\"", 2);
	case '\\':
		return put(l, "\\\\", 2);
	case '\n':
		return put(l, "\\n", 2);
	case '\t':
		return put(l, "\\t", 2);
	default:
		snprintf(text, sizeof(text), "\\u%04x", code & 0xffff);
		return put(l, text, sizeof(text) - 1);
	}
}

/* One character, or one byte that is part of none (in JSON the code point of the same number). */
static bool put_character(struct line *l, const unsigned char *s, size_t *ret_n)
{
	uint32_t code = s[0];
	size_t n = utf8_sequence(s, &code);
	bool plain = n && !is_control(code) && !(l->json && (code == '"' || code == '\\'));

	*ret_n = n ? n : 1;
	if (plain)
		return put(l, (const char *)s, n);
	return l->json ? put_json_escape(l, code) : put_hex(l, s, *ret_n);
}

/* Text that may come from a peer; cut at a whole character when the line is full. */
static void put_untrusted(struct line *l, const char *text)
{
	const unsigned char *s = (const unsigned char *)text;
	size_t n;

	while (*s && put_character(l, s, &n))
		s += n;
}

static void put_stamp(struct line *l)
{
	struct timespec now;
	struct tm tm;
	char stamp[64];

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	snprintf(stamp, sizeof(stamp), "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ", tm.tm_year + 1900,
		tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, now.tv_nsec / 1000000);
	put(l, stamp, STAMP_BYTES - 1);
}

static void put_json_field(struct line *l, const char *name, const char *value)
{
	put_text(l, ",\"");
	put_text(l, name);
	put_text(l, "\":\"");
	put_untrusted(l, value);
	put_text(l, "\"");
}

static void put_prefix(struct line *l, enum log_level level, const char *subsystem)
{
	const char *who = settings.who;

	if (l->json) {
		put_text(l, "{\"ts\":\"");
		put_stamp(l);
		put_text(l, "\"");
		if (who)
			put_json_field(l, "who", who);
		put_json_field(l, "level", level_names[level]);
		put_json_field(l, "subsystem", subsystem);
		put_text(l, ",\"msg\":\"");
		return;
	}
	put_stamp(l);
	put_text(l, " ");
	if (who) {
		put_text(l, who);
		put_text(l, " ");
	}
	if (settings.colour)
		put_text(l, level_colours[level]);
	put_text(l, level_names[level]);
	if (settings.colour)
		put_text(l, "\033[0m");
	put_text(l, " ");
	put_untrusted(l, subsystem);
	put_text(l, ": ");
}

/* One write a line, so that lines of several threads and processes do not mix. What is left after a
 * short write (a full disk, a signal) is tried again; a descriptor that refuses loses the line,
 * since there is nobody to tell. */
static void write_line(const struct line *l)
{
	size_t done = 0;

	while (done < l->len) {
		ssize_t n = write(settings.fd, l->text + done, l->len - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		done += (size_t)n;
	}
}

__attribute__((format(printf, 4, 0))) static void emit(enum log_level level, const char *subsystem,
	uint64_t held_back, const char *fmt, va_list args)
{
	char msg[LINE_MAX_BYTES], more[64] = "";
	struct line l = {.json = settings.json};
	const char *tail = l.json ? "\"}\n" : "\n";
	int n = vsnprintf(msg, sizeof(msg), fmt, args);
	bool cut = n >= (int)sizeof(msg);

	if (n < 0)
		snprintf(msg, sizeof(msg), "%s", fmt); /* better the bare format than nothing */
	if (held_back)
		snprintf(more, sizeof(more), " (%llu more like this)",
			(unsigned long long)held_back);
	l.limit = sizeof(l.text) - sizeof("...") - strlen(more) - strlen(tail);
	put_prefix(&l, level, subsystem);
	put_untrusted(&l, msg);
	cut |= l.cut;
	l.cut = false;
	l.limit = sizeof(l.text);
	if (cut)
		put_text(&l, "...");
	put_text(&l, more);
	put_text(&l, tail);
	write_line(&l);
}

/* Counts this line against its call site; false when the second's share is used up. */
static bool admit(struct log_site *site, uint64_t *ret_held_back)
{
	unsigned limit = settings.per_kind_per_s;
	uint64_t old = atomic_load_explicit(&site->second_and_count, memory_order_relaxed), new;
	struct timespec now;

	if (!limit)
		return true;
	clock_gettime(CLOCK_MONOTONIC, &now);
	do {
		uint64_t second = (uint64_t)now.tv_sec & UINT32_MAX;
		if (second > old >> 32 || !old)
			new = second << 32 | 1;
		else if ((uint32_t)old < limit)
			new = old + 1;
		else {
			site->held_back++;
			return false;
		}
	} while (!atomic_compare_exchange_weak_explicit(
		&site->second_and_count, &old, new, memory_order_relaxed, memory_order_relaxed));
	*ret_held_back = atomic_exchange_explicit(&site->held_back, 0, memory_order_relaxed);
	return true;
}

void log_write(
	struct log_site *site, enum log_level level, const char *subsystem, const char *fmt, ...)
{
	int saved_errno = errno; /* callers log first and return -errno then */
	uint64_t held_back = 0;
	va_list args;

	if (admit(site, &held_back)) {
		errno = saved_errno; /* for %m */
		va_start(args, fmt);
		emit(level, subsystem, held_back, fmt, args);
		va_end(args);
	}
	errno = saved_errno;
}

void log_line(const char *subsystem, const char *fmt, ...)
{
	int saved_errno = errno;
	va_list args;

	va_start(args, fmt);
	emit(LOG_LEVEL_INFO, subsystem, 0, fmt, args);
	va_end(args);
	errno = saved_errno;
}
