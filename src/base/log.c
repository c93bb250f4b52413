/*
 * log: which events are written, and in which format.
 *
 *	log_write()	below the level: nothing; too many of its kind in this second: counted
 *	log_emit()	one line, or one entry of the journal; not taken: counted as dropped
 *	log_on_second()	tells what was left out and what was dropped
 */
#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "base/log_format.h"
#include "base/log_sink.h"
#include "base/mem.h"
#include "base/stats.h"

_Static_assert((int)LOG_LEVELS <= (int)STAT_LOG_LEVELS, "one counter for each level");

static char *file;                                 /* NULL is standard error */
static enum log_format format = LOG_FORMAT_LOGFMT; /* never AUTO */
static enum log_level min_level = LOG_LEVEL_INFO;
static bool has_colour;
static unsigned rate_limit;

static time_t this_second;
static struct {
	unsigned count, left_out;
} kinds[LOG_KINDS]; /* of this second */

static uint64_t dropped; /* and not told yet */
static int drop_error;

/* What it is set to ------------------------------------------------------------------------------- */

static bool
wants_colour(void)
{
	const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

	return sink_is_terminal() && !(no && *no) && !(term && strcmp(term, "dumb") == 0);
}

static enum log_format
choose(const struct log_config *config)
{
	if (config->format != LOG_FORMAT_AUTO)
		return config->format;
	if (!*config->file && sink_is_journal())
		return LOG_FORMAT_JOURNAL;
	return sink_is_terminal() ? LOG_FORMAT_TEXT : LOG_FORMAT_LOGFMT;
}

bool
log_start(const struct log_config *config)
{
	if (!sink_open(config->file))
		return false;
	format = choose(config);
	has_colour = format == LOG_FORMAT_TEXT && wants_colour();
	min_level = config->level;
	rate_limit = config->rate_limit;
	free(file);
	file = *config->file ? xstrdup(config->file) : NULL;
	return true;
}

bool
log_reopen(void)
{
	return !file || sink_open(file);
}

const char *
log_file(void)
{
	return file ? file : "";
}

void
log_set_level(enum log_level level)
{
	min_level = level;
}

enum log_level
log_get_level(void)
{
	return min_level;
}

bool
log_enabled(enum log_level level)
{
	return level >= min_level;
}

void
log_set_journal(const char *path)
{
	sink_set_journal(path);
}

/* Writing ---------------------------------------------------------------------------------------- */

size_t
log_put_line(char *out, const struct log_entry *e)
{
	switch (format) {
	case LOG_FORMAT_JOURNAL:
		return log_put_prefixed(out, e);
	case LOG_FORMAT_JSON:
		return log_put_json(out, e);
	case LOG_FORMAT_TEXT:
		return log_put_text(out, e, has_colour);
	default:
		return log_put_logfmt(out, e);
	}
}

/* To the journal; where nobody listens, to standard error, which leads there too as a rule. */
static bool
write_journal(const struct log_entry *entry)
{
	char datagram[LOG_JOURNAL_MAX];

	if (sink_send_journal(datagram, log_put_journal(datagram, entry)))
		return true;
	return errno != EAGAIN && errno != ENOBUFS &&
	       sink_write(datagram, log_put_line(datagram, entry));
}

static bool
write_entry(const struct log_entry *entry)
{
	char line[LOG_LINE_MAX];

	return format == LOG_FORMAT_JOURNAL ? write_journal(entry)
					    : sink_write(line, log_put_line(line, entry));
}

static bool
log_emit(enum log_kind kind, const struct timeval *now, const struct log_field *fields)
{
	struct log_entry entry = { &log_rows[kind], *now, fields };

	if (!write_entry(&entry))
		return false;
	process_stats.log_messages[entry.row->level]++;
	return true;
}

/* Of those that tell about others no loss is counted: they are written again. */
static void
tell_dropped(const struct timeval *now)
{
	const struct log_field fields[] = {
		log_uint("lines", dropped),
		log_text("error", drop_error == EAGAIN || drop_error == ENOBUFS
					  ? "its reader is too slow"
					  : strerror(drop_error)),
		LOG_END,
	};

	if (dropped && min_level <= LOG_LEVEL_WARNING && log_emit(LOG_LOG_DROPPED, now, fields))
		dropped = 0;
}

static void
next_second(const struct timeval *now)
{
	this_second = now->tv_sec;
	for (unsigned i = 0; i < LOG_KINDS; i++) {
		const struct log_field fields[] = {
			log_text("like", log_rows[i].name),
			log_uint("lines", kinds[i].left_out),
			LOG_END,
		};

		kinds[i].count = 0;
		if (kinds[i].left_out && (min_level > LOG_LEVEL_WARNING ||
					  log_emit(LOG_LOG_SUPPRESSED, now, fields)))
			kinds[i].left_out = 0;
	}
}

/* Whether this line is one too many of its kind in this second. */
static bool
is_too_many(enum log_kind kind)
{
	if (!log_rows[kind].is_limited || !rate_limit)
		return false;
	if (kinds[kind].count < rate_limit) {
		kinds[kind].count++;
		return false;
	}
	kinds[kind].left_out++;
	process_stats.log_suppressed[0]++;
	return true;
}

void
log_write(enum log_kind kind, const struct log_field *fields)
{
	struct timeval now;

	if (log_rows[kind].level < min_level)
		return;
	gettimeofday(&now, NULL);
	tell_dropped(&now);
	if (now.tv_sec != this_second)
		next_second(&now);
	if (is_too_many(kind) || log_emit(kind, &now, fields + 1))
		return;
	drop_error = errno;
	dropped++;
	process_stats.log_dropped[0]++;
}

void
log_on_second(void)
{
	struct timeval now;

	gettimeofday(&now, NULL);
	tell_dropped(&now);
	if (now.tv_sec != this_second)
		next_second(&now);
}
