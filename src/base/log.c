#include "base/log.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 2048, KINDS = 64 };

const char *const log_level_names[LOG_LEVELS] = { "debug", "info", "notice", "warning",
						  "error" };

static int log_fd = STDERR_FILENO;
static enum log_level min_level = LOG_LEVEL_INFO;
static bool is_text, has_colour;
static unsigned limit_per_second = 50;

/* Lines of this second, by event. */
static struct kind {
	const char *event; /* NULL: a free place, as all behind it */
	unsigned count;
	unsigned left_out;
} kinds[KINDS];
static time_t this_second;

bool
log_open(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0640);

	if (fd < 0)
		return false;
	if (log_fd != STDERR_FILENO)
		close(log_fd);
	log_fd = fd;
	return true;
}

void
log_init(enum log_format format, enum log_level level, unsigned rate_limit)
{
	bool tty = isatty(log_fd);

	min_level = level;
	limit_per_second = rate_limit;
	is_text = format == LOG_FORMAT_TEXT || (format == LOG_FORMAT_AUTO && tty);
	has_colour = is_text && tty;
}

void
log_set_level(enum log_level level)
{
	min_level = level;
}

bool
log_enabled(enum log_level level)
{
	return level >= min_level;
}

static size_t
put_head(char *line, size_t n, enum log_level level, const char *event,
	 const struct timeval *now)
{
	static const char *const colours[LOG_LEVELS] = { "\033[2m", "", "\033[36m", "\033[33m",
							 "\033[31m" };
	static const char *const shorts[LOG_LEVELS] = { "DEBUG", "INFO ", "NOTE ", "WARN ",
							"ERROR" };
	char stamp[40];
	struct tm tm;
	int len;

	if (is_text) {
		localtime_r(&now->tv_sec, &tm);
		strftime(stamp, sizeof(stamp), "%H:%M:%S", &tm);
		len = snprintf(line, n, "%s.%03d %s%s%s %s", stamp, (int)(now->tv_usec / 1000),
			       has_colour ? colours[level] : "", shorts[level],
			       has_colour ? "\033[0m" : "", event);
		for (char *p = line + len - strlen(event); *p; p++)
			*p = *p == '.' || *p == '_' ? ' ' : *p;
	} else {
		gmtime_r(&now->tv_sec, &tm);
		strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
		len = snprintf(line, n, "ts=%s.%03dZ level=%s event=%s", stamp,
			       (int)(now->tv_usec / 1000), log_level_names[level], event);
	}
	return (size_t)len < n ? (size_t)len : n - 1;
}

static void write_line(enum log_level level, const char *event, const struct timeval *now,
		       const char *fmt, va_list ap) __attribute__((format(printf, 4, 0)));

static void
write_line(enum log_level level, const char *event, const struct timeval *now, const char *fmt,
	   va_list ap)
{
	char line[LINE_MAX_BYTES];
	size_t n = put_head(line, sizeof(line) - 2, level, event, now);

	if (fmt && *fmt) {
		size_t room = sizeof(line) - 2 - n;
		int len;

		line[n++] = ' ';
		if (is_text && room > 2)
			line[n++] = ' ';
		room = sizeof(line) - 1 - n;
		len = vsnprintf(line + n, room, fmt, ap);
		n += (size_t)len < room ? (size_t)len : room - 1;
	}
	line[n++] = '\n';
	/* A log that cannot be written has nobody to be told. */
	if (write(log_fd, line, n) < 0)
		return;
}

static void write_fmt(enum log_level level, const char *event, const struct timeval *now,
		      const char *fmt, ...) __attribute__((format(printf, 4, 5)));

static void
write_fmt(enum log_level level, const char *event, const struct timeval *now, const char *fmt,
	  ...)
{
	va_list ap;

	va_start(ap, fmt);
	write_line(level, event, now, fmt, ap);
	va_end(ap);
}

/* A second is over: tell what was left out in it, and count anew. */
static void
next_second(const struct timeval *now)
{
	this_second = now->tv_sec;
	for (struct kind *k = kinds; k < kinds + KINDS && k->event; k++) {
		if (k->left_out)
			write_fmt(LOG_LEVEL_WARNING, "log.suppressed", now, "like=%s lines=%u",
				  k->event, k->left_out);
		k->count = k->left_out = 0;
	}
}

/* Whether this line is one too many of its kind in this second. */
static bool
is_too_many(const char *event)
{
	struct kind *k = kinds;

	while (k->event && strcmp(k->event, event) != 0 && k < kinds + KINDS - 1)
		k++;
	if (!k->event)
		k->event = event;
	if (limit_per_second && k->count >= limit_per_second) {
		k->left_out++;
		return true;
	}
	k->count++;
	return false;
}

void
log_event(enum log_level level, const char *event, const char *fmt, ...)
{
	struct timeval now;
	va_list ap;

	if (level < min_level)
		return;
	gettimeofday(&now, NULL);
	if (now.tv_sec != this_second)
		next_second(&now);
	if (is_too_many(event))
		return;
	va_start(ap, fmt);
	write_line(level, event, &now, fmt, ap);
	va_end(ap);
}

static bool
is_simple(struct str s)
{
	for (size_t i = 0; i < s.n; i++) {
		uint8_t c = (uint8_t)s.p[i];

		if (c <= ' ' || c >= 0x7f || c == '"' || c == '=' || c == '\\')
			return false;
	}
	return s.n > 0;
}

/* How many bytes at `s` are one valid, printable character; 0 when the first byte must be
 * escaped. */
static size_t
printable(struct str s)
{
	for (size_t n = 1; n <= 4 && n <= s.n; n++) {
		struct str c = { s.p, n };

		if (str_is_utf8(c))
			return str_has_control(c) ? 0 : n;
	}
	return 0;
}

char *
log_quote(char *out, size_t n, struct str s)
{
	size_t at = 0, i = 0;
	bool simple = is_simple(s);

	if (simple && s.n < n) {
		memcpy(out, s.p, s.n);
		out[s.n] = 0;
		return out;
	}
	out[at++] = '"';
	while (i < s.n) {
		size_t len = printable((struct str){ s.p + i, s.n - i });

		if (at + 4 + 5 > n) {
			memcpy(out + at, "...", 3);
			at += 3;
			break;
		}
		if (!len) {
			at += (size_t)snprintf(out + at, 5, "\\x%02x", (uint8_t)s.p[i++]);
		} else {
			if (s.p[i] == '"' || s.p[i] == '\\')
				out[at++] = '\\';
			memcpy(out + at, s.p + i, len);
			at += len;
			i += len;
		}
	}
	out[at++] = '"';
	out[at] = 0;
	return out;
}
