#ifndef COORDD_BASE_LOG_H
#define COORDD_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

/*
 * One call is one event, and one line: an event of log.def, and typed fields with stable keys.
 *
 *	log_event(LOG_REDIS_DOWN, log_text("error", why), log_ms("retry_in_ms", pause_us));
 *
 * Whatever a text holds, in each format it cannot end a line, forge a field or steer a terminal.
 * Nothing here waits: what nobody takes is dropped, counted, and told by log.dropped later.
 * Formats and events: docs/LOGGING.md.
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

enum log_format {
	LOG_FORMAT_AUTO, /* a file: logfmt; the journal: journal; a terminal: text; else logfmt */
	LOG_FORMAT_TEXT,
	LOG_FORMAT_LOGFMT,
	LOG_FORMAT_JSON,
	LOG_FORMAT_JOURNAL
};

enum log_kind {
#define EVENT(name, text, level, class, id, help) LOG_##name,
#include "base/log.def"
#undef EVENT
	LOG_KINDS
};

enum log_type {
	LOG_TYPE_END,
	LOG_TYPE_TEXT,
	LOG_TYPE_UINT,
	LOG_TYPE_INT,
	LOG_TYPE_MS,
	LOG_TYPE_FLAG
};

/* `key` is a literal of lower-case letters, digits and _. */
struct log_field {
	const char *key;
	enum log_type type;
	union {
		struct str text;
		uint64_t u;
		int64_t i;
	};
};

static inline struct log_field
log_str(const char *key, struct str s)
{
	return (struct log_field){ .key = key, .type = LOG_TYPE_TEXT, .text = s };
}

static inline struct log_field
log_text(const char *key, const char *z)
{
	return log_str(key, str_of(z));
}

static inline struct log_field
log_uint(const char *key, uint64_t v)
{
	return (struct log_field){ .key = key, .type = LOG_TYPE_UINT, .u = v };
}

static inline struct log_field
log_int(const char *key, int64_t v)
{
	return (struct log_field){ .key = key, .type = LOG_TYPE_INT, .i = v };
}

/* Milliseconds, of microseconds; `key` ends in _ms. */
static inline struct log_field
log_ms(const char *key, uint64_t us)
{
	return (struct log_field){ .key = key, .type = LOG_TYPE_MS, .u = us };
}

/* yes or no; in JSON true or false. */
static inline struct log_field
log_flag(const char *key, bool is)
{
	return (struct log_field){ .key = key, .type = LOG_TYPE_FLAG, .u = is };
}

/* log_event(LOG_KIND, field...): any number of fields, none too. */
#define LOG_END             \
	{                   \
		.key = NULL \
	}
#define log_event(kind, ...) \
	log_write((kind), (const struct log_field[]){ LOG_END, ##__VA_ARGS__, LOG_END })
/* What log_event() calls: the fields stand between the first and the next LOG_END. */
void log_write(enum log_kind kind, const struct log_field *fields);

struct log_config {
	const char *file; /* "" is standard error */
	enum log_format format;
	enum log_level level;
	unsigned rate_limit; /* lines of one kind in a second, 0 no limit */
};

/* Put it in force, at the start or later. The file is made with mode 0640 where there is none and
 * appended to. False and errno when it cannot be opened; then nothing has changed. `config` is
 * copied. */
bool log_start(const struct log_config *config);
/* Open the file again, which may have been renamed. False and errno when that fails, and then
 * what was open is written to as before. Of standard error this does nothing. */
bool log_reopen(void);
/* The file's name, "" for standard error. */
const char *log_file(void);
void log_set_level(enum log_level level);
enum log_level log_get_level(void);
bool log_enabled(enum log_level level);
/* Once a second: tell what was left out or dropped, where nothing else is logged. */
void log_on_second(void);

/* For tests: where the journal listens. Before log_start(). */
void log_set_journal(const char *path);

/* Write `s` as a logfmt value to `out` (`n` bytes, at least 8; terminated): bare where it is
 * simple, else in quotes with control bytes and what is no UTF-8 as \xNN; too long, it ends in
 * "...". Returns `out`. */
char *log_quote(char *out, size_t n, struct str s);

#endif
