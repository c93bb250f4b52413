#ifndef COORDD_BASE_LOG_FORMAT_H
#define COORDD_BASE_LOG_FORMAT_H

#include <sys/time.h>

#include "base/log.h"

/* An event as the bytes of each format; no I/O. Private to the log. */

enum {
	LOG_LINE_MAX = 4096,     /* PIPE_BUF: such a line enters a pipe whole, or not at all */
	LOG_VALUE_MAX = 1024,    /* of a line, as written; longer, it ends in "..." */
	LOG_JOURNAL_MAX = 16384, /* a datagram */
};

struct log_row {
	const char *name; /* "redis.down" */
	enum log_level level;
	bool is_limited;
	const char *id; /* MESSAGE_ID, "" none */
};
extern const struct log_row log_rows[LOG_KINDS];

/* What a line says. `fields` end with LOG_END. */
struct log_entry {
	const struct log_row *row;
	struct timeval at;
	const struct log_field *fields;
};

/* Each writes at most LOG_LINE_MAX bytes to `out`, of which the last and only the last one is a newline, and returns
 * how many; a field that does not fit is left out, with those behind it. */
size_t log_put_text(char *out, const struct log_entry *e, bool has_colour);
size_t log_put_logfmt(char *out, const struct log_entry *e);
size_t log_put_json(char *out, const struct log_entry *e);
/* Logfmt behind "<N>", the level as syslog counts, and without the time, which the journal knows. */
size_t log_put_prefixed(char *out, const struct log_entry *e);
/* A datagram of the journal's native protocol, at most LOG_JOURNAL_MAX bytes. MESSAGE is for people, escaped as text is;
 * the fields hold their values as they are. */
size_t log_put_journal(char *out, const struct log_entry *e);

/* log.c: in the format that is configured; where that is the journal's, as log_put_prefixed(). */
size_t log_put_line(char *out, const struct log_entry *e);

#endif
