/* Log lines to stderr, for people or as JSON, rate-limited per kind of message. Any thread.
 *
 * Called by the edges only (main, ops, keeper, tools): what lies below returns errors and counts. A
 * person reads this at 3 a.m.: say what happened, to which peer, file, line or key, and what the
 * program did about it.
 *
 *     log_warn("upstream", "endpoint %s down: %s; retrying in %u ms", name, strerror(e), ms);
 *
 * human:  2026-03-01T12:00:00.123Z warn upstream: endpoint ... down: ...
 * json:   {"ts":"2026-03-01T12:00:00.123Z","level":"warn","subsystem":"upstream","msg":"..."}
 */
#ifndef TIDEGATE_BASE_LOG_H
#define TIDEGATE_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARN,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG,
};

struct log_opts {
	enum log_level level;
	bool json;
	unsigned per_kind_per_s; /* lines of one call site per second; 0: unlimited. What was held
				    back is said in the next line let through: "(17 more like this)"
				  */
	int fd;                  /* normally STDERR_FILENO */
	const char *who;         /* "keeper" or "gateway", in every line; static */
};

/* One call site's limiter; static, made by the macros. */
struct log_site {
	_Atomic uint64_t second_and_count;
	_Atomic uint64_t held_back;
};

void log_init(const struct log_opts *opts);
bool log_enabled(enum log_level level);
__attribute__((format(printf, 4, 5))) void log_write(
	struct log_site *site, enum log_level level, const char *subsystem, const char *fmt, ...);

#define LOG_AT_(level, subsystem, ...)                                                             \
	do {                                                                                       \
		static struct log_site log_site_;                                                  \
		if (log_enabled(level))                                                            \
			log_write(&log_site_, level, subsystem, __VA_ARGS__);                      \
	} while (0)

#define log_error(subsystem, ...) LOG_AT_(LOG_LEVEL_ERROR, subsystem, __VA_ARGS__)
#define log_warn(subsystem, ...)  LOG_AT_(LOG_LEVEL_WARN, subsystem, __VA_ARGS__)
#define log_info(subsystem, ...)  LOG_AT_(LOG_LEVEL_INFO, subsystem, __VA_ARGS__)
#define log_debug(subsystem, ...) LOG_AT_(LOG_LEVEL_DEBUG, subsystem, __VA_ARGS__)

/* A line that must not be held back and has no prefix beyond the usual (the scheduler line). */
__attribute__((format(printf, 2, 3))) void log_line(const char *subsystem, const char *fmt, ...);

#endif
