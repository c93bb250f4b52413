/*
 * log_format: one event as a line of text, of logfmt or JSON, or as a datagram for the journal.
 *
 * Everything goes through put_*(), which stop at the end of the room. A field is put whole or not at
 * all: what it had put is taken back when it did not fit, so that a line is well-formed however long
 * its values are.
 */
#include "base/log_format.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

const char *const log_level_names[LOG_LEVELS] = { "debug", "info", "notice", "warning",
						  "error" };

#define ALWAYS  false
#define LIMITED true
const struct log_row log_rows[LOG_KINDS] = {
#define EVENT(name, text, level, class, id, help) { text, LOG_LEVEL_##level, class, id },
#include "base/log.def"
#undef EVENT
};

struct out {
	char *p;
	size_t n, max;
	bool is_full; /* something did not fit */
};

static void
put(struct out *o, const char *p, size_t n)
{
	if (n > o->max - o->n) {
		o->is_full = true;
		return;
	}
	memcpy(o->p + o->n, p, n);
	o->n += n;
}

static void
puts_to(struct out *o, const char *z)
{
	put(o, z, strlen(z));
}

static void
putc_to(struct out *o, char c)
{
	put(o, &c, 1);
}

/* Values ----------------------------------------------------------------------------------------- */

/* Valid UTF-8 that breaks a line for some reader (U+2028, U+2029), or makes a terminal show text in
 * another order than it stands in: the marks, embeddings and isolates of bidirectional text. */
static bool
is_deceptive(struct str c)
{
	const uint8_t *p = (const uint8_t *)c.p;

	if (c.n == 2)
		return p[0] == 0xd8 && p[1] == 0x9c; /* U+061C */
	if (c.n != 3 || p[0] != 0xe2)
		return false;
	return (p[1] == 0x80 &&
		(p[2] == 0x8e || p[2] == 0x8f || (p[2] >= 0xa8 && p[2] <= 0xae))) ||
	       (p[1] == 0x81 && p[2] >= 0xa6 && p[2] <= 0xa9);
}

/* How many bytes at `s` are one valid character, 0 for none. */
static size_t
character(struct str s)
{
	for (size_t n = 1; n <= 4 && n <= s.n; n++)
		if (str_is_utf8((struct str){ s.p, n }))
			return n;
	return 0;
}

/* The same, and 0 also for one that must be escaped. */
static size_t
printable(struct str s)
{
	struct str c = { s.p, character(s) };

	return str_has_control(c) || is_deceptive(c) ? 0 : c.n;
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

/* One character of a JSON text: at most 6 bytes each that it has. What is no UTF-8 becomes U+FFFD. */
static size_t
json_character(char *to, struct str c)
{
	const uint8_t *p = (const uint8_t *)c.p;
	unsigned code = p[0];

	if (c.n == 1 && (code == '"' || code == '\\'))
		return (size_t)sprintf(to, "\\%c", (char)code);
	if (!str_has_control(c) && !is_deceptive(c)) {
		memcpy(to, c.p, c.n);
		return c.n;
	}
	if (c.n == 2)
		code = (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
	else if (c.n == 3)
		code = (p[0] & 0xfu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
	return (size_t)sprintf(to, "\\u%04x", code);
}

static void
put_json_text(struct out *o, struct str s)
{
	size_t begun = o->n, i = 0;
	char text[8];

	putc_to(o, '"');
	while (i < s.n) {
		size_t len = character((struct str){ s.p + i, s.n - i });

		if (o->n - begun > LOG_VALUE_MAX - 16) {
			puts_to(o, "...");
			break;
		}
		if (len)
			put(o, text, json_character(text, (struct str){ s.p + i, len }));
		else
			puts_to(o, "\xef\xbf\xbd");
		i += len ? len : 1;
	}
	putc_to(o, '"');
}

/* What is no text. */
static void
put_number(struct out *o, const struct log_field *f)
{
	char text[32];

	if (f->type == LOG_TYPE_INT)
		snprintf(text, sizeof(text), "%lld", (long long)f->i);
	else if (f->type == LOG_TYPE_MS && f->u % 1000)
		snprintf(text, sizeof(text), "%llu.%03u", (unsigned long long)(f->u / 1000),
			 (unsigned)(f->u % 1000));
	else
		snprintf(text, sizeof(text), "%llu",
			 (unsigned long long)(f->type == LOG_TYPE_MS ? f->u / 1000 : f->u));
	puts_to(o, text);
}

/* As in text and logfmt. */
static void
put_value(struct out *o, const struct log_field *f)
{
	char text[LOG_VALUE_MAX];

	if (f->type == LOG_TYPE_TEXT)
		puts_to(o, log_quote(text, sizeof(text), f->text));
	else if (f->type == LOG_TYPE_FLAG)
		puts_to(o, f->u ? "yes" : "no");
	else
		put_number(o, f);
}

/* Lines ------------------------------------------------------------------------------------------ */

/* Take back what begins at `begun` if it did not fit; whether it did. */
static bool
keep(struct out *o, size_t begun)
{
	if (!o->is_full)
		return true;
	o->n = begun;
	o->is_full = false;
	return false;
}

static void
put_pairs(struct out *o, const struct log_field *fields)
{
	for (const struct log_field *f = fields; f->key; f++) {
		size_t begun = o->n;

		putc_to(o, ' ');
		puts_to(o, f->key);
		putc_to(o, '=');
		put_value(o, f);
		if (!keep(o, begun))
			return;
	}
}

/* "2026-01-05T12:04:31.118Z" */
static void
put_utc(struct out *o, const struct timeval *at)
{
	char text[32];
	struct tm tm;
	size_t n;

	gmtime_r(&at->tv_sec, &tm);
	n = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text + n, sizeof(text) - n, ".%03dZ", (int)(at->tv_usec / 1000));
	puts_to(o, text);
}

/* "redis.embedded_ended" reads "redis embedded ended". */
static void
put_words(struct out *o, const char *name)
{
	for (; *name; name++)
		putc_to(o, *name == '.' || *name == '_' ? ' ' : *name);
}

size_t
log_put_text(char *out, const struct log_entry *e, bool has_colour)
{
	static const char *const colours[LOG_LEVELS] = { "\033[2m", "", "\033[36m", "\033[33m",
							 "\033[31m" };
	static const char *const shorts[LOG_LEVELS] = { "DEBUG", "INFO ", "NOTE ", "WARN ",
							"ERROR" };
	struct out o = { out, 0, LOG_LINE_MAX - 1, false };
	enum log_level level = e->row->level;
	char text[32];
	struct tm tm;
	size_t n;

	localtime_r(&e->at.tv_sec, &tm);
	n = strftime(text, sizeof(text), "%H:%M:%S", &tm);
	snprintf(text + n, sizeof(text) - n, ".%03d ", (int)(e->at.tv_usec / 1000));
	puts_to(&o, text);
	if (has_colour)
		puts_to(&o, colours[level]);
	puts_to(&o, shorts[level]);
	if (has_colour)
		puts_to(&o, "\033[0m");
	putc_to(&o, ' ');
	put_words(&o, e->row->name);
	if (e->fields->key)
		putc_to(&o, ' ');
	put_pairs(&o, e->fields);
	out[o.n] = '\n';
	return o.n + 1;
}

static void
put_level_and_pairs(struct out *o, const struct log_entry *e)
{
	puts_to(o, "level=");
	puts_to(o, log_level_names[e->row->level]);
	puts_to(o, " event=");
	puts_to(o, e->row->name);
	put_pairs(o, e->fields);
}

size_t
log_put_logfmt(char *out, const struct log_entry *e)
{
	struct out o = { out, 0, LOG_LINE_MAX - 1, false };

	puts_to(&o, "ts=");
	put_utc(&o, &e->at);
	putc_to(&o, ' ');
	put_level_and_pairs(&o, e);
	out[o.n] = '\n';
	return o.n + 1;
}

/* As syslog counts. */
static char
priority(const struct log_entry *e)
{
	return "76543"[e->row->level];
}

size_t
log_put_prefixed(char *out, const struct log_entry *e)
{
	const char prefix[3] = { '<', priority(e), '>' };
	struct out o = { out, 0, LOG_LINE_MAX - 1, false };

	put(&o, prefix, sizeof(prefix));
	put_level_and_pairs(&o, e);
	out[o.n] = '\n';
	return o.n + 1;
}

size_t
log_put_json(char *out, const struct log_entry *e)
{
	struct out o = { out, 0, LOG_LINE_MAX - 2, false };

	puts_to(&o, "{\"ts\":\"");
	put_utc(&o, &e->at);
	puts_to(&o, "\",\"level\":\"");
	puts_to(&o, log_level_names[e->row->level]);
	puts_to(&o, "\",\"event\":\"");
	puts_to(&o, e->row->name);
	putc_to(&o, '"');
	for (const struct log_field *f = e->fields; f->key; f++) {
		size_t begun = o.n;

		puts_to(&o, ",\"");
		puts_to(&o, f->key);
		puts_to(&o, "\":");
		if (f->type == LOG_TYPE_TEXT)
			put_json_text(&o, f->text);
		else if (f->type == LOG_TYPE_FLAG)
			puts_to(&o, f->u ? "true" : "false");
		else
			put_number(&o, f);
		if (!keep(&o, begun))
			break;
	}
	memcpy(out + o.n, "}\n", 2);
	return o.n + 2;
}

/* The journal ------------------------------------------------------------------------------------ */

/* A name and its value. One with control bytes goes by its length, so that a newline in it ends nothing. */
static void
put_journal_text(struct out *o, const char *name, struct str value)
{
	uint8_t length[8];
	bool is_plain = true;

	if (value.n > LOG_VALUE_MAX)
		for (value.n = LOG_VALUE_MAX; value.n && (value.p[value.n] & 0xc0) == 0x80;)
			value.n--; /* not within a character */
	for (size_t i = 0; i < value.n; i++)
		is_plain = is_plain && (uint8_t)value.p[i] >= ' ';
	puts_to(o, name);
	if (is_plain) {
		putc_to(o, '=');
	} else {
		for (unsigned i = 0; i < sizeof(length); i++)
			length[i] = (uint8_t)((uint64_t)value.n >> 8 * i);
		putc_to(o, '\n');
		put(o, (const char *)length, sizeof(length));
	}
	put(o, value.p, value.n);
	putc_to(o, '\n');
}

static void
put_journal_field(struct out *o, const struct log_field *f)
{
	char name[64], text[32];
	struct out value = { text, 0, sizeof(text), false };
	size_t n = (size_t)snprintf(name, sizeof(name), "COORDD_%s", f->key);

	for (size_t i = 0; i < n && i < sizeof(name); i++)
		if (name[i] >= 'a' && name[i] <= 'z')
			name[i] = (char)(name[i] - 'a' + 'A');
	if (f->type != LOG_TYPE_TEXT)
		put_value(&value, f);
	put_journal_text(o, name,
			 f->type == LOG_TYPE_TEXT ? f->text : (struct str){ text, value.n });
}

size_t
log_put_journal(char *out, const struct log_entry *e)
{
	struct out o = { out, 0, LOG_JOURNAL_MAX, false };
	const char level[2] = { priority(e), '\0' };

	puts_to(&o, "SYSLOG_IDENTIFIER=coordd\nPRIORITY=");
	puts_to(&o, level);
	puts_to(&o, "\nCOORDD_EVENT=");
	puts_to(&o, e->row->name);
	if (*e->row->id) {
		puts_to(&o, "\nMESSAGE_ID=");
		puts_to(&o, e->row->id);
	}
	puts_to(&o, "\nMESSAGE=");
	put_words(&o, e->row->name);
	if (e->fields->key)
		putc_to(&o, ' ');
	o.max = LOG_LINE_MAX;
	put_pairs(&o, e->fields);
	o.max = LOG_JOURNAL_MAX;
	putc_to(&o, '\n');
	for (const struct log_field *f = e->fields; f->key; f++) {
		size_t begun = o.n;

		put_journal_field(&o, f);
		if (!keep(&o, begun))
			break;
	}
	return o.n;
}
