#ifndef COORDD_BASE_LOG_H
#define COORDD_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>

#include "base/str.h"

/*
 * One line is one event with a stable name and `key=value` pairs, written with one write(2) to
 * standard error or a file. Client bytes reach it through log_quote() alone. Formats:
 * docs/CONFIG.md, "The log".
 */
enum log_level {
	LOG_LEVEL_DEBUG,
	LOG_LEVEL_INFO,
	LOG_LEVEL_NOTICE,
	LOG_LEVEL_WARNING,
	LOG_LEVEL_ERROR,
	LOG_LEVELS
};
extern const char *const log_level_names[LOG_LEVELS];
enum log_format { LOG_FORMAT_AUTO, LOG_FORMAT_TEXT, LOG_FORMAT_LOGFMT };

/* Append to this file from now on, made with mode 0640 when it is not there; again for the same
 * path after it was moved away. False and errno when that fails; then nothing changes. Before
 * log_init(). */
bool log_open(const char *path);
/* AUTO is text on a terminal, else logfmt. At most `rate_limit` lines of one event a second (0:
 * no limit); the next line after that second is preceded by one that tells how many were left
 * out. */
void log_init(enum log_format format, enum log_level level, unsigned rate_limit);
void log_set_level(enum log_level level);
bool log_enabled(enum log_level level);

/* `event` is a literal, "conn.closed". `fmt` makes pairs that are logfmt already, separated by
 * blanks; NULL for none. */
void log_event(enum log_level level, const char *event, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Write `s` as a logfmt value to `out` (`n` bytes, at least 8; terminated): bare where it is
 * simple, else in quotes with control bytes and what is no UTF-8 as \xNN; too long, it ends in
 * "...". Returns `out`. */
char *log_quote(char *out, size_t n, struct str s);

#endif
