#include <check.h>
#include <ctype.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/buf.h"
#include "config/config.h"

/* The table once more, so that what is tested is what it says. */
struct row {
	const char *path, *kind;
	size_t offset;
	const char *otherwise, *min, *max, *reload, *help;
};
static const struct row rows[] = {
#define OPTION(path, member, kind, otherwise, min, max, reload, help) \
	{ path, #kind, offsetof(struct config, member), otherwise, min, max, #reload, help },
#include "config/options.def"
#undef OPTION
};
#define COUNT_OF(a) (sizeof(a) / sizeof((a)[0]))

static bool
is_kind(const struct row *row, const char *kind)
{
	return strcmp(row->kind, kind) == 0;
}

static bool
is_path(const struct row *row, const char *path)
{
	return strcmp(row->path, path) == 0;
}

/* --- a configuration in a directory of its own --------------------------------- */

static char dir[] = "/tmp/test_config.XXXXXX";
static struct config cfg;
static struct config_errors why;

static const char *
path_of(const char *name)
{
	static char paths[16][96];
	static unsigned next;
	char *path = paths[next++ % 16];

	snprintf(path, sizeof(paths[0]), "%s/%s", dir, name);
	return path;
}

static void
write_file(const char *name, const char *text)
{
	FILE *file = fopen(path_of(name), "we");

	ck_assert_ptr_nonnull(file);
	ck_assert_uint_eq(fwrite(text, 1, strlen(text), file), strlen(text));
	ck_assert_int_eq(fclose(file), 0);
}

static void
begin(void)
{
	memcpy(dir, "/tmp/test_config.XXXXXX", sizeof(dir));
	ck_assert_ptr_nonnull(mkdtemp(dir));
	umask(077);
}

static void
end(void)
{
	static const char *const names[] = { "a.yaml", "b.yaml", "secret", "fifo", "link" };

	config_done(&cfg);
	config_errors_done(&why);
	for (size_t i = 0; i < COUNT_OF(names); i++)
		unlink(path_of(names[i]));
	ck_assert_int_eq(rmdir(dir), 0);
}

static enum err
load_from(const char *const *files, unsigned n_files, const struct config_set *sets,
	  unsigned n_sets)
{
	struct config_source source = {
		.files = files, .n_files = n_files, .sets = sets, .n_sets = n_sets
	};
	enum err err = config_load(&cfg, &source, &why);

	config_source_done(&source);
	return err;
}

/* Load a.yaml, and with `set` ("KEY=VALUE KEY=VALUE", or NULL) flags. */
static enum err
load_set(const char *text, const char *set)
{
	const char *file = path_of("a.yaml");
	char copy[256], *rest = copy, *word;
	struct config_set sets[4];
	unsigned n = 0;

	write_file("a.yaml", text);
	config_errors_done(&why);
	snprintf(copy, sizeof(copy), "%s", set ? set : "");
	while (set && n < COUNT_OF(sets) && (word = strsep(&rest, " "))) {
		sets[n].path = strsep(&word, "=");
		sets[n++].value = word;
	}
	return load_from(&file, 1, sets, n);
}

static enum err
load(const char *text)
{
	return load_set(text, NULL);
}

/* What config_errors_print() prints, without the directory. */
static const char *
errors(void)
{
	static char text[8192];
	char *all = NULL, *at;
	size_t n;
	FILE *out = open_memstream(&all, &n);

	config_errors_print(&why, out);
	fclose(out);
	while ((at = strstr(all, dir)))
		memmove(at, at + strlen(dir) + 1, strlen(at + strlen(dir)));
	snprintf(text, sizeof(text), "%s", all);
	free(all);
	return text;
}

static void
refused(const char *text, const char *said)
{
	ck_assert_msg(load(text) == ERR_BAD_REQUEST, "%s", text);
	ck_assert_str_eq(errors(), said);
}

/* "a:\n  b:\n    c: VALUE\n" */
static void
put_yaml(struct buf *b, const char *path, const char *value)
{
	int indent = 0;

	for (const char *dot; (dot = strchr(path, '.')); path = dot + 1, indent += 2)
		buf_printf(b, "%*s%.*s:\n", indent, "", (int)(dot - path), path);
	buf_printf(b, "%*s%s: %s\n", indent, "", path, value);
}

/* --- every key, every mistreatment --------------------------------------------- */

/* Options that must fit together with others: what to set beside an extreme value of the first. */
static const struct {
	const char *path, *set;
} partners[] = {
	{ "limits.max_frame", "limits.output_limit=4GiB" },
	{ "limits.output_high_water", "limits.output_limit=4GiB" },
	{ "limits.output_limit", "limits.output_high_water=4KiB limits.max_frame=4KiB" },
	{ "queues.defaults.visibility_timeout", "queues.defaults.max_visibility_timeout=12h" },
	{ "queues.defaults.max_visibility_timeout", "queues.defaults.visibility_timeout=1ms" },
	{ "redis.reconnect_min", "redis.reconnect_max=1h" },
	{ "redis.reconnect_max", "redis.reconnect_min=1ms" },
	{ "queues.defaults.backoff_base", "queues.defaults.backoff_max=365d" },
	{ "queues.defaults.backoff_max", "queues.defaults.backoff_base=0s" },
};

static const char *
partner_of(const struct row *row)
{
	for (size_t i = 0; i < COUNT_OF(partners); i++) {
		if (is_path(row, partners[i].path))
			return partners[i].set;
	}
	return NULL;
}

/* The value is refused, and the one error is about this key, in the file, and holds `said`. */
static void
key_refused(const struct row *row, const char *value, const char *said)
{
	struct buf b = { 0 };

	put_yaml(&b, row->path, value);
	buf_putc(&b, '\0');
	ck_assert_msg(load_set(b.data, partner_of(row)) == ERR_BAD_REQUEST, "%s: %s", row->path,
		      value);
	ck_assert_msg(why.n == 1, "%s: %s: %s", row->path, value, errors());
	ck_assert_msg(strncmp(errors(), "a.yaml:", 7) == 0, "%s: %s: %s", row->path, value,
		      errors());
	ck_assert_msg(strstr(errors(), row->path) != NULL, "%s: %s: %s", row->path, value,
		      errors());
	ck_assert_msg(strstr(errors(), said) != NULL, "%s: %s: %s", row->path, value, errors());
	buf_done(&b);
}

static void
key_taken(const struct row *row, const char *value)
{
	struct buf b = { 0 };

	put_yaml(&b, row->path, value);
	buf_putc(&b, '\0');
	ck_assert_msg(load_set(b.data, partner_of(row)) == OK, "%s: %s: %s", row->path, value,
		      errors());
	buf_done(&b);
}

static const void *
member_of(const struct row *row)
{
	return (const char *)&cfg + row->offset;
}

/* What `text` ("10s", "4KiB", "7") is in microseconds, bytes or as it is; worked out on its own. */
static uint64_t
amount(const char *text)
{
	static const struct {
		const char *unit;
		double factor;
	} units[] = { { "", 1 },
		      { "B", 1 },
		      { "KiB", 1024 },
		      { "MiB", 1048576 },
		      { "GiB", 1073741824 },
		      { "ms", 1e3 },
		      { "s", 1e6 },
		      { "m", 60e6 },
		      { "h", 3600e6 },
		      { "d", 86400e6 } };
	char *unit;
	double n = strtod(text, &unit);

	for (size_t i = 0; i < COUNT_OF(units); i++) {
		if (strcmp(units[i].unit, unit) == 0)
			return (uint64_t)(n * units[i].factor);
	}
	ck_abort_msg("%s", text);
	return 0;
}

/* The number in `text` changed by `by`, with its unit. */
static const char *
moved(const char *text, long by)
{
	static char out[2][48];
	static unsigned next;
	char *unit;
	long n = strtol(text, &unit, 10);

	snprintf(out[++next % 2], sizeof(out[0]), "%ld%s", n + by, unit);
	return out[next % 2];
}

static void
whole_is(const struct row *row, const char *value)
{
	uint64_t got;

	key_taken(row, value);
	got = is_kind(row, "INT") ? *(const unsigned *)member_of(row)
				  : *(const uint64_t *)member_of(row);
	ck_assert_msg(got == amount(value), "%s: %s", row->path, value);
}

static void
try_whole(const struct row *row)
{
	static const char *const wrong[] = { "true", "x",    "0x10", "1_000",
					     "1e3",  ".inf", "+1",   "1.5" };

	whole_is(row, row->min);
	whole_is(row, row->max);
	whole_is(row, row->otherwise);
	key_refused(row, moved(row->min, -1),
		    strcmp(row->min, row->max) ? "out of range" : "must be");
	key_refused(row, moved(row->max, 1),
		    strcmp(row->min, row->max) ? "out of range" : "must be");
	for (size_t i = 0; i < COUNT_OF(wrong); i++)
		key_refused(row, wrong[i], "is not a ");
	if (is_kind(row, "INT")) {
		key_refused(row, "08", "is not a whole number");
		key_refused(row, "\"5\"", "without quotes");
		key_refused(row, "5s", "is not a whole number");
		key_refused(row, "9223372036854775808", "");
		key_refused(row, "99999999999999999999999", "");
	} else if (is_kind(row, "SIZE")) {
		key_refused(row, "5", "use B, KiB, MiB or GiB");
		key_refused(row, "1k", "use B, KiB, MiB or GiB");
		key_refused(row, "1MB", "use B, KiB, MiB or GiB");
		key_refused(row, "1 MiB", "use B, KiB, MiB or GiB");
		key_refused(row, "18014398509481984KiB", "out of range"); /* 2^64 */
	} else {
		key_refused(row, "5", "use ms, s, m, h or d");
		key_refused(row, "5 s", "use ms, s, m, h or d");
		key_refused(row, "5us", "use ms, s, m, h or d");
		key_refused(row, "1:30", "use ms, s, m, h or d");
		key_refused(row, "999999999999999d", "out of range");
	}
}

static void
try_float(const struct row *row)
{
	static const char *const wrong[] = { "true", "x",   "1e3",     ".inf",  ".nan", "1.",
					     ".5",   "1,5", "\"1.0\"", "0x1p3", "01.5" };
	char value[32];

	key_taken(row, row->min);
	ck_assert(*(const double *)member_of(row) == strtod(row->min, NULL));
	key_taken(row, row->max);
	ck_assert(*(const double *)member_of(row) == strtod(row->max, NULL));
	snprintf(value, sizeof(value), "%.3f", strtod(row->min, NULL) - 0.001);
	key_refused(row, value, "out of range");
	snprintf(value, sizeof(value), "%.3f", strtod(row->max, NULL) + 0.001);
	key_refused(row, value, "out of range");
	for (size_t i = 0; i < COUNT_OF(wrong); i++)
		key_refused(row, wrong[i], "decimal number");
}

static void
try_bool(const struct row *row)
{
	static const char *const wrong[] = { "yes", "no", "on", "off",      "True", "FALSE",
					     "y",   "1",  "x",  "\"true\"", "\"\"", "0x1" };

	key_taken(row, "true");
	ck_assert(*(const bool *)member_of(row));
	key_taken(row, "false");
	ck_assert(!*(const bool *)member_of(row));
	for (size_t i = 0; i < COUNT_OF(wrong); i++)
		key_refused(row, wrong[i], "true or false");
	key_refused(row, "yes", "; write true");
	key_refused(row, "Off", "; write false");
}

static void
try_mode(const struct row *row)
{
	static const char *const wrong[] = { "\"1777\"", "\"0888\"", "\"66\"",  "\"00660\"",
					     "rw",       "\"\"",     "\"-660\"" };

	key_taken(row, "\"0000\"");
	key_taken(row, "'777'");
	ck_assert_uint_eq(*(const unsigned *)member_of(row), 0777);
	key_refused(row, "0660", "put it in quotes");
	for (size_t i = 0; i < COUNT_OF(wrong); i++)
		key_refused(row, wrong[i], "file mode");
}

/* `n` times x, in quotes. */
static const char *
run_of(size_t n)
{
	static char text[8192];

	ck_assert_uint_lt(n + 3, sizeof(text));
	text[0] = '"';
	memset(text + 1, 'x', n);
	memcpy(text + 1 + n, "\"", 2);
	return text;
}

static void
try_text(const struct row *row)
{
	static const char *const wrong[] = { "0660", "1:30", "1_000",     "yes",
					     "true", "5",    "2026-01-05" };
	size_t min = (size_t)atoi(row->min), max = (size_t)atoi(row->max);
	bool is_file = is_path(row, "redis.password_file");

	if (min > 0)
		key_refused(row, "\"\"", "must not be empty");
	else
		key_taken(row, "\"\"");
	if (is_file)
		key_refused(row, run_of(max), "cannot open");
	else
		key_taken(row, run_of(max));
	key_refused(row, run_of(max + 1), "is longer than");
	key_refused(row, "\"a\\nb\"", "control characters");
	for (size_t i = 0; i < COUNT_OF(wrong); i++)
		key_refused(row, wrong[i], "put it in quotes");
	if (!is_file) {
		key_taken(row, "some-text");
		ck_assert_str_eq(*(char *const *)member_of(row), "some-text");
		key_taken(row, "\"0660\"");
		ck_assert_str_eq(*(char *const *)member_of(row), "0660");
	}
	if (is_kind(row, "SECRET")) {
		key_refused(row, "12345", "the value");
		ck_assert_ptr_null(strstr(errors(), "12345"));
	}
}

static void
try_choice(const struct row *row)
{
	char choices[64], *rest = choices, *choice;
	unsigned n = 0;

	snprintf(choices, sizeof(choices), "%s", row->min);
	while ((choice = strsep(&rest, "|"))) {
		key_taken(row, choice);
		if (is_kind(row, "WORD"))
			ck_assert_str_eq(*(char *const *)member_of(row), choice);
		else
			ck_assert_uint_eq(*(const unsigned *)member_of(row), n);
		n++;
	}
	ck_assert_uint_gt(n, 1);
	key_refused(row, "other", row->min);
	key_refused(row, "\"\"", row->min);
	key_refused(row, "5", row->min);
	key_refused(row, row->min, row->min);
}

static void
try_list(const struct row *row)
{
	struct buf b = { 0 };
	unsigned max = (unsigned)atoi(row->max);

	key_refused(row, "[]", "has 0 entries");
	key_refused(row, "a", "must be a list");
	key_refused(row, "[null]", "entry 1 is not text");
	key_refused(row, "[a, [b]]", "entry 2 is not text");
	key_refused(row, "[{a: b}]", "entry 1 is not text");
	key_refused(row, "[5]", "put it in quotes");
	key_refused(row, "[\"\"]", "must not be empty");
	key_taken(row, "[a, \"5\"]");
	ck_assert_uint_eq(((const struct config_list *)member_of(row))->n, 2);
	ck_assert_str_eq(((const struct config_list *)member_of(row))->items[1], "5");
	for (unsigned n = 1; n <= max + 1; n++) {
		buf_printf(&b, "%s\"x%u\"", n == 1 ? "[" : ", ", n);
		if (n < max)
			continue;
		buf_puts(&b, "]");
		buf_putc(&b, '\0');
		if (n == max)
			key_taken(row, b.data);
		else
			key_refused(row, b.data, "entries");
		b.len -= 2;
	}
	buf_done(&b);
}

static void
try_overrides(const struct row *row)
{
	bool is_queues = is_path(row, "queues.overrides");
	const char *key = is_queues ? "queue_size" : "failure_threshold";
	const struct config_overrides *list = member_of(row);
	char value[256];
	struct buf b = { 0 };

	key_taken(row, "[]");
	ck_assert_uint_eq(list->n, 0);
	key_refused(row, "a", "must be a list of maps");
	key_refused(row, "[a]", "[0]: must be a map");
	key_refused(row, "[[]]", "[0]: must be a map");
	key_refused(row, "[{}]", "[0]: has no match");
	key_refused(row, "[{match: \"a:*\"}]", "[0]: sets nothing");
	snprintf(value, sizeof(value), "[{%s: 5}]", key);
	key_refused(row, value, "[0]: has no match");
	snprintf(value, sizeof(value), "[{match: \"a:*\", %s: 5}, {match: \"\", %s: 5}]", key,
		 key);
	key_refused(row, value, "[1].match: must have from 1 to 256 bytes");
	snprintf(value, sizeof(value), "[{match: 5, %s: 5}]", key);
	key_refused(row, value, "[0].match: is no text to YAML; put it in quotes");
	snprintf(value, sizeof(value), "[{match: [a], %s: 5}]", key);
	key_refused(row, value, "[0].match: must be text");
	snprintf(value, sizeof(value), "[{match: \"a\\n:*\", %s: 5}]", key);
	key_refused(row, value, "[0].match: holds control characters");
	snprintf(value, sizeof(value), "[{match: \"a:*\", %s: 0}]", key);
	key_refused(row, value, ": \"0\" is out of range");
	snprintf(value, sizeof(value), "[{match: \"a:*\", %s: \"5\"}]", key);
	key_refused(row, value, "without quotes");
	snprintf(value, sizeof(value), "[{match: \"a:*\", %.6s: 5}]", key);
	key_refused(row, value, "unknown key");
	key_refused(row, "[{match: \"a:*\", forget_after: 5s}]", "unknown key");
	key_refused(row, "[{match: \"a:*\", defaults.queue_size: 5}]", "unknown key");
	if (is_queues)
		key_refused(row, "[{match: a, queue_size: 5}]", "[0].match: matches no queue");
	for (unsigned n = 1; n <= 101; n++)
		buf_printf(&b, "%s{match: \"a%u:*\", %s: %u}", n == 1 ? "[" : ", ", n, key, n);
	buf_puts(&b, "]");
	buf_putc(&b, '\0');
	key_refused(row, b.data, "has more than 100 entries");
	memcpy(strstr(b.data, ", {match: \"a101"), "]", 2);
	key_taken(row, b.data);
	ck_assert_uint_eq(list->n, 100);
	ck_assert_str_eq(list->items[99].match, "a100:*");
	ck_assert_uint_eq(is_queues ? list->items[99].queue.queue_size
				    : list->items[99].breaker.failure_threshold,
			  100);
	buf_done(&b);
}

static const struct {
	const char *kind;
	void (*try)(const struct row *row);
} tries[] = {
	{ "BOOL", try_bool },           { "INT", try_whole },     { "SIZE", try_whole },
	{ "DURATION", try_whole },      { "FLOAT", try_float },   { "MODE", try_mode },
	{ "TEXT", try_text },           { "SECRET", try_text },   { "URL", try_text },
	{ "WORD", try_choice },         { "CHOICE", try_choice }, { "LIST", try_list },
	{ "OVERRIDES", try_overrides },
};

START_TEST(every_key_takes_what_the_table_says_and_nothing_else)
{
	const struct row *row = &rows[_i];
	size_t k = 0;

	while (k < COUNT_OF(tries) && !is_kind(row, tries[k].kind))
		k++;
	ck_assert_msg(k < COUNT_OF(tries), "%s: kind %s is not tried", row->path, row->kind);
	tries[k].try(row);

	key_refused(row, "", "has no value");
	key_refused(row, "~", "has no value");
	key_refused(row, "null", "has no value");
	key_refused(row, "{a: 1}",
		    is_kind(row, "OVERRIDES") ? "must be a list" : "a map is not");
	if (!is_kind(row, "LIST") && !is_kind(row, "OVERRIDES"))
		key_refused(row, "[a]", "a list is not");
}
END_TEST

START_TEST(the_table_is_in_order)
{
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		const char *line = rows[i].help;

		for (size_t k = 0; k < i; k++)
			ck_assert_str_ne(rows[i].path, rows[k].path);
		ck_assert_msg(*line, "%s has no help", rows[i].path);
		ck_assert(!strcmp(rows[i].reload, "RELOADABLE") ||
			  !strcmp(rows[i].reload, "RESTART"));
	}
	/* Without any file or flag, all defaults are accepted. */
	ck_assert_int_eq(load_from(NULL, 0, NULL, 0), OK);
	ck_assert_uint_eq(why.n_warnings, 0);
	ck_assert_uint_eq(cfg.version, 1);
	ck_assert_uint_eq(cfg.server.listen.n, 1);
	ck_assert_str_eq(cfg.server.listen.items[0], "tcp://127.0.0.1:7420");
	ck_assert_uint_eq(cfg.server.unix_mode, 0660);
	ck_assert_uint_eq(cfg.limits.max_frame, 1048576);
	ck_assert_uint_eq(cfg.redis.command_timeout_us, 2000000);
	ck_assert_str_eq(cfg.redis.embedded.appendfsync, "always");
	ck_assert_str_eq(cfg.redis.password, "");
	ck_assert(cfg.queues.defaults.backoff_factor == 2.0);
	ck_assert_int_eq(cfg.log.level, LOG_LEVEL_INFO);
	ck_assert_int_eq(cfg.log.format, LOG_FORMAT_AUTO);
}
END_TEST

START_TEST(the_choices_of_the_log_are_those_of_the_log)
{
	char text[64];

	for (unsigned level = 0; level < LOG_LEVELS; level++) {
		snprintf(text, sizeof(text), "log: {level: %s}\n", log_level_names[level]);
		ck_assert_int_eq(load(text), OK);
		ck_assert_uint_eq(cfg.log.level, level);
	}
	ck_assert_int_eq(load("log: {format: text}\n"), OK);
	ck_assert_int_eq(cfg.log.format, LOG_FORMAT_TEXT);
	ck_assert_int_eq(load("log: {format: logfmt}\n"), OK);
	ck_assert_int_eq(cfg.log.format, LOG_FORMAT_LOGFMT);
}
END_TEST

/* --- documents ----------------------------------------------------------------- */

static char *
read_document(const char *path)
{
	static char text[65536];
	FILE *file = fopen(path, "re");
	size_t n;

	ck_assert_msg(file != NULL, "%s: run this from the top of the source tree", path);
	n = fread(text, 1, sizeof(text) - 1, file);
	text[n] = 0;
	fclose(file);
	return text;
}

START_TEST(the_reference_file_is_what_print_defaults_prints_and_says_the_defaults)
{
	const char *file = "conf/coordd.yaml";
	char *printed = NULL;
	size_t n;
	FILE *out = open_memstream(&printed, &n);

	config_print_defaults(out);
	fclose(out);
	ck_assert_str_eq(printed, read_document(file));
	free(printed);

	ck_assert_int_eq(load_from(&file, 1, NULL, 0), OK);
	ck_assert_uint_eq(why.n_warnings, 0);
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		if (is_kind(&rows[i], "INT"))
			ck_assert_uint_eq(*(const unsigned *)member_of(&rows[i]),
					  amount(rows[i].otherwise));
		if (is_kind(&rows[i], "TEXT") || is_kind(&rows[i], "SECRET") ||
		    is_kind(&rows[i], "URL") || is_kind(&rows[i], "WORD"))
			ck_assert_str_eq(*(char *const *)member_of(&rows[i]),
					 rows[i].otherwise);
		if (is_kind(&rows[i], "DURATION") || is_kind(&rows[i], "SIZE"))
			ck_assert_uint_eq(*(const uint64_t *)member_of(&rows[i]),
					  amount(rows[i].otherwise));
	}
}
END_TEST

static void
put_escaped(struct buf *b, const char *text)
{
	for (; *text; text++) {
		if (*text == '|')
			buf_puts(b, "\\|");
		else
			buf_putc(b, *text == '\n' ? ' ' : *text);
	}
}

/* The row of an option in docs/CONFIG.md. */
static void
put_row(struct buf *b, const struct row *row)
{
	bool is_text = is_kind(row, "TEXT") || is_kind(row, "SECRET") || is_kind(row, "URL");

	buf_printf(b, "| `%s` | ", row->path);
	if (*row->otherwise)
		buf_printf(b, "`%s`", row->otherwise);
	buf_puts(b, " | ");
	if (is_kind(row, "BOOL"))
		buf_puts(b, "true, false");
	else if (is_kind(row, "MODE"))
		buf_puts(b, "\"0000\" to \"0777\"");
	else if (!*row->max)
		put_escaped(b, row->min);
	else if (strcmp(row->min, row->max) == 0)
		buf_puts(b, row->min);
	else
		buf_printf(b, "%s to %s%s", row->min, row->max,
			   is_text                                             ? " bytes"
			   : is_kind(row, "LIST") || is_kind(row, "OVERRIDES") ? " entries"
									       : "");
	buf_printf(b, " | %s | ", strcmp(row->reload, "RESTART") == 0 ? "S" : "R");
	put_escaped(b, row->help);
	buf_puts(b, " |\n");
}

START_TEST(the_table_in_the_documentation_is_the_table)
{
	char *document = read_document("docs/CONFIG.md");

	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		struct buf b = { 0 };

		put_row(&b, &rows[i]);
		buf_putc(&b, '\0');
		ck_assert_msg(strstr(document, b.data) != NULL,
			      "docs/CONFIG.md has no line\n%s", b.data);
		buf_done(&b);
	}
}
END_TEST

/* --- errors -------------------------------------------------------------------- */

START_TEST(errors_tell_their_place_and_what_was_meant)
{
	refused("server:\n  max_conections: 5\n",
		"a.yaml:2:3: unknown key \"server.max_conections\"; did you mean "
		"\"max_connections\"?\n"
		"a.yaml: 1 error\n");
	refused("sever:\n  backlog: 5\n", "a.yaml:1:1: unknown key \"sever\"; did you mean "
					  "\"server\"?\na.yaml: 1 error\n");
	refused("limits:\n  max_frame: 1MB\n",
		"a.yaml:2:14: limits.max_frame: \"1MB\" is not a size; use B, KiB, MiB or GiB\n"
		"a.yaml: 1 error\n");
	refused("redis:\n  url: redis://h:1\n  url: redis://h:2\n",
		"a.yaml:3:3: duplicate key \"redis.url\" (first on line 2)\na.yaml: 1 error\n");
	refused("server: {max_frame: 1MiB}\n", "a.yaml:1:10: unknown key \"server.max_frame\"; "
					       "did you mean \"limits.max_frame\"?\n"
					       "a.yaml: 1 error\n");
	refused("redis: {embeded: {enabled: true}}\n",
		"a.yaml:1:9: unknown key \"redis.embeded\"; did you mean "
		"\"embedded\"?\na.yaml: 1 error\n");
	refused("log: {levle: debug}\n", "a.yaml:1:7: unknown key \"log.levle\"; did you mean "
					 "\"level\"?\na.yaml: 1 error\n");
	refused("log: {zzzzzz: debug}\n",
		"a.yaml:1:7: unknown key \"log.zzzzzz\"\na.yaml: 1 error\n");
	refused("\"a\\nb\\e[31m\": 1\n",
		"a.yaml:1:1: unknown key \"a\\x0ab\\x1b[31m\"\na.yaml: 1 error\n");
	refused("server.backlog: 5\n",
		"a.yaml:1:1: unknown key \"server.backlog\"; write it below its section\n"
		"a.yaml: 1 error\n");
	refused("server: 5\n", "a.yaml:1:9: server: must be a map of keys\na.yaml: 1 error\n");
	refused("server: [a]\n",
		"a.yaml:1:9: server: must be a map of keys\na.yaml: 1 error\n");
	refused("server:\nlog: {level: info}\n",
		"a.yaml:1:1: server: nothing stands below it; leave it out\na.yaml: 1 error\n");
	refused("- a\n", "a.yaml:1:1: must be a map of keys\na.yaml: 1 error\n");
	refused("version: 2\n", "a.yaml:1:10: version: \"2\" is not supported; it must be "
				"1\na.yaml: 1 error\n");
}
END_TEST

START_TEST(an_error_knows_what_it_is_about)
{
	ck_assert_int_eq(load("server: {max_conections: 5}\nlog:\n  level: loud\n- a\n"),
			 ERR_BAD_REQUEST);
	ck_assert_uint_eq(why.n, 1);
	ck_assert_ptr_null(why.list[0].key); /* it is no YAML */
	config_errors_done(&why);
	ck_assert_int_eq(load("server: {max_conections: 5}\nlog:\n  level: loud\n"),
			 ERR_BAD_REQUEST);
	ck_assert_uint_eq(why.n, 2);
	ck_assert_str_eq(why.list[0].key, "server.max_conections");
	ck_assert_str_eq(why.list[0].file, path_of("a.yaml"));
	ck_assert_uint_eq(why.list[0].line, 1);
	ck_assert_uint_eq(why.list[0].column, 10);
	ck_assert_str_eq(why.list[1].key, "log.level");
	ck_assert_uint_eq(why.list[1].line, 3);
	ck_assert_int_eq(strncmp(why.list[1].message, "log.level: ", 11), 0);
}
END_TEST

START_TEST(all_errors_are_counted_and_the_first_twenty_kept)
{
	struct buf b = { 0 };
	const char *last;

	for (int i = 0; i < 25; i++)
		buf_printf(&b, "zz%02dqq: 1\n", i);
	buf_putc(&b, '\0');
	ck_assert_int_eq(load(b.data), ERR_BAD_REQUEST);
	ck_assert_uint_eq(why.n, 25);
	last = strstr(errors(), "a.yaml:20:1: ");
	ck_assert_ptr_nonnull(last);
	ck_assert_str_eq(strchr(last, '\n') + 1, "a.yaml: 25 errors\n");
	buf_done(&b);
}
END_TEST

START_TEST(values_must_fit_together)
{
	refused("queues:\n  defaults:\n    backoff_base: 60s\n",
		"a.yaml:3:19: queues.defaults.backoff_max: must not be below "
		"queues.defaults.backoff_base\n"
		"a.yaml: 1 error\n");
	refused("limits: {output_limit: 1MiB}\n",
		"a.yaml:1:24: limits.output_limit: must not be below limits.output_high_water\n"
		"a.yaml: 1 error\n");
	refused("limits: {output_limit: 1MiB, output_high_water: 1MiB, max_frame: 2MiB}\n",
		"a.yaml:1:24: limits.output_limit: must not be below limits.max_frame\na.yaml: "
		"1 error\n");
	refused("redis:\n  reconnect_max: 50ms\n",
		"a.yaml:2:18: redis.reconnect_max: must not be below "
		"redis.reconnect_min\na.yaml: 1 error\n");
	ck_assert_int_eq(
		load_set("redis:\n  reconnect_max: 50ms\n", "redis.reconnect_min=50ms"), OK);
}
END_TEST

START_TEST(an_override_is_the_defaults_but_for_what_it_sets)
{
	const struct config_override *items;

	ck_assert_msg(load("queues:\n"
			   "  overrides:\n"
			   "    - {match: \"a:*\", queue_size: 5, backoff_factor: 1.5}\n"
			   "    - match: \"*:b\"\n"
			   "      visibility_timeout: 1m\n"
			   "  defaults: {queue_size: 7, retry_attempts: 9}\n"
			   "breakers:\n"
			   "  overrides: [{match: pay*, timeout: 1s}]\n"
			   "  defaults: {failure_threshold: 2}\n") == OK,
		      "%s", errors());
	items = cfg.queues.overrides.items;
	ck_assert_uint_eq(cfg.queues.overrides.n, 2);
	ck_assert_str_eq(items[0].match, "a:*");
	ck_assert_uint_eq(items[0].queue.queue_size, 5);
	ck_assert(items[0].queue.backoff_factor == 1.5);
	ck_assert_uint_eq(items[0].queue.retry_attempts, 9);
	ck_assert_uint_eq(items[0].queue.visibility_timeout_us, 5000000);
	ck_assert_uint_eq(items[1].queue.queue_size, 7);
	ck_assert_uint_eq(items[1].queue.visibility_timeout_us, 60000000);
	ck_assert_uint_eq(cfg.breakers.overrides.n, 1);
	ck_assert_uint_eq(cfg.breakers.overrides.items[0].breaker.timeout_us, 1000000);
	ck_assert_uint_eq(cfg.breakers.overrides.items[0].breaker.failure_threshold, 2);
}
END_TEST

START_TEST(errors_in_overrides_tell_their_place)
{
	refused("queues:\n"
		"  overrides:\n"
		"    - match: \"a:*\"\n"
		"      queue_siz: 5\n"
		"    - match: \"b:*\"\n"
		"      visibility_timeout: 5\n"
		"      queue_size: 5\n",
		"a.yaml:4:7: queues.overrides[0].queue_siz: unknown key; did you mean "
		"\"queue_size\"?\n"
		"a.yaml:6:27: queues.overrides[1].visibility_timeout: \"5\" is not a duration; "
		"use "
		"ms, s, m, h or d\n"
		"a.yaml: 2 errors\n");
	refused("queues:\n"
		"  overrides:\n"
		"    - {match: \"a:*\", backoff_base: 60s}\n",
		"a.yaml:3:5: queues.overrides[0]: backoff_max must not be below backoff_base\n"
		"a.yaml: 1 error\n");
	refused("queues:\n"
		"  defaults: {max_visibility_timeout: 60s}\n"
		"  overrides: [{match: \"a:*\", visibility_timeout: 61s}]\n",
		"a.yaml:3:14: queues.overrides[0]: max_visibility_timeout must not be below "
		"visibility_timeout\na.yaml: 1 error\n");
	refused("queues:\n  overrides:\n    - match: *x\n",
		"a.yaml:3:14: an alias (*); write the value itself, or put text in quotes\n"
		"a.yaml: 1 error\n");
	refused("queues:\n  overrides:\n    - {match: \"a:*\", match: \"b:*\", queue_size: "
		"1}\n",
		"a.yaml:3:22: duplicate key \"queues.overrides.match\" (first on line 3)\n"
		"a.yaml: 1 error\n");
	ck_assert_int_eq(load_set("", "queues.overrides=[{match:a:*}]"), ERR_BAD_REQUEST);
	ck_assert_int_eq(load_set("", "queues.overrides=x"), ERR_BAD_REQUEST);
	ck_assert_str_eq(errors(), "command line: queues.overrides: must be a list of maps\n"
				   "command line: 1 error\n");
	ck_assert_int_eq(load_set("", "queues.overrides=[{match:"), ERR_BAD_REQUEST);
	ck_assert_int_eq(load_set("", "queues.overrides=[{&a"), ERR_BAD_REQUEST);
	ck_assert_str_eq(errors(),
			 "command line: queues.overrides: column 3: an anchor (&); write "
			 "the value where it is meant\ncommand line: 1 error\n");
}
END_TEST

START_TEST(a_refused_configuration_changes_nothing)
{
	ck_assert_int_eq(load("redis: {key_prefix: mine}\nserver: {listen: [a, b]}\n"), OK);
	ck_assert_int_eq(
		load("redis: {key_prefix: other}\nserver: {listen: [c]}\nlog: {level: no}\n"),
		ERR_BAD_REQUEST);
	ck_assert_str_eq(cfg.redis.key_prefix, "mine");
	ck_assert_uint_eq(cfg.server.listen.n, 2);
	ck_assert_str_eq(cfg.server.listen.items[0], "a");
	ck_assert_int_eq(load(""), OK);
	ck_assert_str_eq(cfg.redis.key_prefix, "coordd");
}
END_TEST

/* --- files and flags ----------------------------------------------------------- */

START_TEST(an_empty_file_is_valid)
{
	ck_assert_int_eq(load(""), OK);
	ck_assert_int_eq(load("# nothing\n"), OK);
	ck_assert_int_eq(load("---\n"), OK);
	ck_assert_int_eq(load("{}\n"), OK);
}
END_TEST

START_TEST(later_files_win_over_earlier_ones_and_flags_over_all)
{
	const char *files[] = { path_of("a.yaml"), path_of("b.yaml") };
	struct config_set sets[] = { { "log.level", "debug" },
				     { "server.listen", "tcp://[::1]:1,unix:///x" },
				     { "server.unix_mode", "0600" },
				     { "log.level", "error" },
				     { "redis.username", "12" } };

	write_file("a.yaml",
		   "server: {listen: [a, b], backlog: 5}\nlog: {level: info, rate_limit: 1}\n");
	write_file("b.yaml", "log: {level: notice}\nserver: {backlog: 7}\n");
	ck_assert_int_eq(load_from(files, 2, NULL, 0), OK);
	ck_assert_uint_eq(cfg.server.listen.n, 2);
	ck_assert_uint_eq(cfg.server.backlog, 7);
	ck_assert_uint_eq(cfg.log.rate_limit, 1);
	ck_assert_int_eq(cfg.log.level, LOG_LEVEL_NOTICE);
	ck_assert_int_eq(load_from(files, 2, sets, COUNT_OF(sets)), OK);
	ck_assert_int_eq(cfg.log.level, LOG_LEVEL_ERROR);
	ck_assert_uint_eq(cfg.server.listen.n, 2);
	ck_assert_str_eq(cfg.server.listen.items[1], "unix:///x");
	ck_assert_uint_eq(cfg.server.unix_mode, 0600);
	ck_assert_str_eq(cfg.redis.username, "12");
}
END_TEST

START_TEST(a_bad_flag_is_refused_as_one)
{
	ck_assert_int_eq(load_set("", "log.level=loud"), ERR_BAD_REQUEST);
	ck_assert_str_eq(
		errors(),
		"command line: log.level: \"loud\" is none of debug|info|notice|warning|error\n"
		"command line: 1 error\n");
	ck_assert_int_eq(load_set("", "log.levl=info"), ERR_BAD_REQUEST);
	ck_assert_str_eq(errors(),
			 "command line: unknown key \"log.levl\"; did you mean \"level\"?\n"
			 "command line: 1 error\n");
	ck_assert_int_eq(load_set("", "server=5"), ERR_BAD_REQUEST);
	ck_assert_int_eq(load_set("", "=5"), ERR_BAD_REQUEST);
	ck_assert_int_eq(load_set("", "server.listen="), ERR_BAD_REQUEST);
	ck_assert_int_eq(load_set("", "server.listen=a,,b"), ERR_BAD_REQUEST);
	ck_assert_int_eq(load_set("zz: 1\n", "log.level=loud"), ERR_BAD_REQUEST);
	ck_assert_ptr_nonnull(strstr(errors(), "|error\n2 errors\n"));
}
END_TEST

START_TEST(only_regular_files_are_read)
{
	const char *files[] = { path_of("fifo"), dir, "/dev/zero", path_of("none"),
				path_of("link") };
	static const char *const said[] = { "fifo: not a regular file\n",
					    " not a regular file\n",
					    "/dev/zero: not a regular file\n",
					    "none: cannot open: No such file or directory\n",
					    "link: cannot open: No such file or directory\n" };

	ck_assert_int_eq(mkfifo(path_of("fifo"), 0600), 0);
	ck_assert_int_eq(symlink("gone", path_of("link")), 0);
	for (size_t i = 0; i < COUNT_OF(files); i++) {
		config_errors_done(&why);
		ck_assert_int_eq(load_from(&files[i], 1, NULL, 0), ERR_BAD_REQUEST);
		ck_assert_msg(strstr(errors(), said[i]) != NULL, "%s", errors());
	}
}
END_TEST

START_TEST(standard_input_is_a_file_too)
{
	const char *file = "-";
	int saved = dup(STDIN_FILENO), fd;

	write_file("a.yaml", "server:\n  backlog: 9\n");
	fd = open(path_of("a.yaml"), O_RDONLY | O_CLOEXEC);
	ck_assert_int_eq(dup2(fd, STDIN_FILENO), STDIN_FILENO);
	close(fd);
	ck_assert_int_eq(load_from(&file, 1, NULL, 0), OK);
	ck_assert_uint_eq(cfg.server.backlog, 9);
	dup2(saved, STDIN_FILENO);
	close(saved);
}
END_TEST

/* --- the environment ----------------------------------------------------------- */

static enum err
load_environment(const char *text, const char *const *environment)
{
	const char *file = path_of("a.yaml");
	struct config_source source = { .files = &file,
					.n_files = 1,
					.environment = environment };

	write_file("a.yaml", text);
	config_errors_done(&why);
	return config_load(&cfg, &source, &why);
}

START_TEST(every_key_has_a_variable)
{
	const struct row *row = &rows[_i];
	char text[256] = "COORDD_";
	const char *environment[] = { text, NULL };
	size_t n = strlen(text);

	for (const char *p = row->path; *p; p++) {
		if (*p == '.')
			n += (size_t)sprintf(text + n, "__");
		else
			text[n++] = (char)toupper(*p);
	}
	sprintf(text + n, "=\t");
	ck_assert_int_eq(load_environment("", environment), ERR_BAD_REQUEST);
	text[n] = '\0'; /* the error begins with the name */
	ck_assert_msg(strncmp(errors(), text, n) == 0, "%s", errors());
	ck_assert_msg(strstr(errors(), row->path) != NULL, "%s", errors());
	text[n] = '=';
	sprintf(text + n + 1, "%s", row->otherwise);
	ck_assert_msg(load_environment("", environment) == OK, "%s", errors());
}
END_TEST

START_TEST(the_environment_wins_over_files_and_flags_over_it)
{
	const char *environment[] = { "PATH=/bin",
				      "COORDD_LOG__LEVEL=debug",
				      "COORDD_SERVER__BACKLOG=5",
				      "COORDD_SERVER__LISTEN=tcp://[::1]:1,unix:///x",
				      "COORDD_VERSION=1",
				      "COORDD=x",
				      NULL };
	struct config_set set = { "server.backlog", "6" };
	const char *file = path_of("a.yaml");
	struct config_source source = { &file, 1, environment, &set, 1, NULL, NULL };

	write_file("a.yaml", "log: {level: error, rate_limit: 7}\n");
	ck_assert_int_eq(config_load(&cfg, &source, &why), OK);
	ck_assert_int_eq(cfg.log.level, LOG_LEVEL_DEBUG);
	ck_assert_uint_eq(cfg.log.rate_limit, 7);
	ck_assert_uint_eq(cfg.server.backlog, 6);
	ck_assert_uint_eq(cfg.server.listen.n, 2);
}
END_TEST

START_TEST(a_variable_that_is_no_key_is_an_error)
{
	static const struct {
		const char *variable;
		const char *said;
	} wrong[] = {
		{ "COORDD_LOG_LEVEL=debug", "COORDD_LOG_LEVEL: no key is called so; did you "
					    "mean COORDD_LOG__LEVEL?\n"
					    "COORDD_LOG_LEVEL: 1 error\n" },
		{ "COORDD_SERVER__MAX_CONECTIONS=1",
		  "COORDD_SERVER__MAX_CONECTIONS: no key is called so; did you mean "
		  "COORDD_SERVER__MAX_CONNECTIONS?\nCOORDD_SERVER__MAX_CONECTIONS: 1 error\n" },
		{ "COORDD_log__level=debug", "COORDD_log__level: no key is called so\n"
					     "COORDD_log__level: 1 error\n" },
		{ "COORDD_X=", "COORDD_X: no key is called so\nCOORDD_X: 1 error\n" },
		{ "COORDD_=1", "COORDD_: no key is called so\nCOORDD_: 1 error\n" },
		{ "COORDD_LOG__LEVEL=", "COORDD_LOG__LEVEL: log.level: \"\" is none of "
					"debug|info|notice|warning|error\n"
					"COORDD_LOG__LEVEL: 1 error\n" },
		{ "COORDD_A\n\033=1", "\"COORDD_A\\x0a\\x1b\": no key is called so\n"
				      "\"COORDD_A\\x0a\\x1b\": 1 error\n" },
	};

	for (size_t i = 0; i < COUNT_OF(wrong); i++) {
		const char *environment[] = { wrong[i].variable, NULL };

		ck_assert_int_eq(load_environment("", environment), ERR_BAD_REQUEST);
		ck_assert_str_eq(errors(), wrong[i].said);
	}
}
END_TEST

START_TEST(some_variables_are_for_others)
{
	const char *environment[] = { "COORDD_OPTS=--set a=b",
				      "COORDD_CONFIG=/x",
				      "COORDD_SERVICE_HOST=10.0.0.1",
				      "COORDD_SERVICE_PORT=7420",
				      "COORDD_SERVICE_PORT_RPC=7420",
				      "COORDD_PORT=tcp://10.0.0.1:7420",
				      "COORDD_PORT_7420_TCP_ADDR=10.0.0.1",
				      "COORDD_WITHOUT_A_SIGN",
				      NULL };

	ck_assert_msg(load_environment("", environment) == OK, "%s", errors());
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		ck_assert(strncmp(rows[i].path, "service.", 8) != 0);
		ck_assert(strncmp(rows[i].path, "port.", 5) != 0);
	}
}
END_TEST

/* --- as text ------------------------------------------------------------------- */

/* "PATH=TEXT ORIGIN PLACE" of the one that is asked for. */
struct wanted {
	const char *path;
	char text[512];
	unsigned n;
};

static void
on_value(void *arg, const struct config_value *v)
{
	struct wanted *wanted = arg;

	if (strcmp(v->path, rows[wanted->n].path) != 0)
		ck_abort_msg("%s", v->path);
	ck_assert_int_eq(v->is_reloadable, strcmp(rows[wanted->n].reload, "RELOADABLE") == 0);
	wanted->n++;
	if (wanted->path && strcmp(v->path, wanted->path) == 0)
		snprintf(wanted->text, sizeof(wanted->text), "%s %s %s", v->text, v->origin,
			 v->place);
}

static const char *
shown(const char *path)
{
	static struct wanted wanted;
	char *at;

	wanted = (struct wanted){ .path = path };
	config_each(&cfg, on_value, &wanted);
	ck_assert_uint_eq(wanted.n, COUNT_OF(rows));
	while ((at = strstr(wanted.text, dir)))
		memmove(at, at + strlen(dir) + 1, strlen(at + strlen(dir)));
	return wanted.text;
}

START_TEST(each_value_tells_where_it_comes_from)
{
	const char *environment[] = { "COORDD_SERVER__BACKLOG=5", NULL };
	struct config_set set = { "redis.password", "s3cret" };
	const char *file = path_of("a.yaml");
	struct config_source source = { &file, 1, environment, &set, 1, NULL, NULL };

	write_file("a.yaml", "log: {level: error}\nserver:\n  listen:\n    - a\n    - b\n"
			     "redis: {url: \"redis://u:p@ss@h:1/0\"}\n"
			     "limits: {max_frame: 2048KiB}\nqueues: {forget_after: 90m}\n");
	ck_assert_int_eq(config_load(&cfg, &source, &why), OK);
	ck_assert_str_eq(shown("log.level"), "error a.yaml:1 a.yaml:1:14");
	ck_assert_str_eq(shown("server.backlog"), "5 env COORDD_SERVER__BACKLOG");
	ck_assert_str_eq(shown("server.unix_mode"), "0660 default default");
	ck_assert_str_eq(shown("server.listen"), "a,b a.yaml:4 a.yaml:4:5");
	ck_assert_str_eq(shown("redis.password"), "*** flag command line");
	ck_assert_str_eq(shown("redis.url"), "redis://u:***@h:1/0 a.yaml:6 a.yaml:6:14");
	ck_assert_str_eq(shown("limits.max_frame"), "2MiB a.yaml:7 a.yaml:7:21");
	ck_assert_str_eq(shown("queues.forget_after"), "90m a.yaml:8 a.yaml:8:24");
	ck_assert_str_eq(shown("breakers.state_ttl"), "24h default default");
	ck_assert_str_eq(shown("queues.defaults.backoff_factor"), "2.0 default default");
}
END_TEST

struct texts {
	char *items[COUNT_OF(rows)];
	unsigned n;
};

static void
keep_text(void *arg, const struct config_value *v)
{
	struct texts *texts = arg;

	texts->items[texts->n++] = strdup(v->text);
}

/* Every value in every form comes back from its own text, and is told as changed. */
START_TEST(a_text_that_is_shown_is_one_that_is_read)
{
	static const char *const values[][2] = {
		{ "server.listen", "tcp://127.0.0.1:1,unix:///x" },
		{ "server.unix_mode", "0007" },
		{ "limits.portable_payloads", "false" },
		{ "limits.output_limit", "4294967295B" },
		{ "limits.max_frame", "5000B" },
		{ "redis.url", "unix:///x@y?db=3" },
		{ "redis.embedded.appendfsync", "no" },
		{ "queues.defaults.backoff_factor", "1.0000001" },
		{ "queues.defaults.backoff_jitter", "0.1" },
		{ "queues.defaults.backoff_max", "86401001ms" },
		{ "queues.forget_after", "365d" },
		{ "queues.overrides",
		  "[{match: \"a:*\", queue_size: 5, visibility_timeout: 90s}, "
		  "{match: \"*:\\\"b\", backoff_jitter: 0.5}]" },
		{ "breakers.overrides", "[{match: x, timeout: 1500ms}]" },
		{ "log.level", "error" },
		{ "log.format", "logfmt" },
		{ "log.rate_limit", "1000000" },
	};
	struct config_set sets[COUNT_OF(rows)];
	struct texts texts = { 0 };
	struct config first = { 0 };

	for (size_t i = 0; i < COUNT_OF(values); i++)
		sets[i] = (struct config_set){ values[i][0], values[i][1] };
	ck_assert_int_eq(load_from(NULL, 0, NULL, 0), OK);
	first = cfg;
	cfg = (struct config){ 0 };
	ck_assert_msg(load_from(NULL, 0, sets, COUNT_OF(values)) == OK, "%s", errors());
	ck_assert_uint_eq(config_diff(&first, &cfg, NULL, NULL), COUNT_OF(values));
	config_done(&first);

	config_each(&cfg, keep_text, &texts);
	for (size_t i = 0; i < COUNT_OF(rows); i++)
		sets[i] = (struct config_set){ rows[i].path, texts.items[i] };
	first = cfg;
	cfg = (struct config){ 0 };
	ck_assert_msg(load_from(NULL, 0, sets, COUNT_OF(rows)) == OK, "%s", errors());
	ck_assert_uint_eq(config_diff(&first, &cfg, NULL, NULL), 0);
	for (size_t i = 0; i < COUNT_OF(rows); i++)
		free(texts.items[i]);
	config_done(&first);
}
END_TEST

static void
put_change(void *arg, const struct config_value *from, const struct config_value *to)
{
	buf_printf(arg, "%s: %s -> %s\n", to->path, from->text, to->text);
}

START_TEST(what_has_changed_is_told_and_what_needs_a_restart_refused)
{
	struct config old = { 0 };
	struct buf changes = { 0 };

	ck_assert_int_eq(load("redis: {password: a}\nlog: {level: info}\n"), OK);
	old = cfg;
	cfg = (struct config){ 0 };
	ck_assert_int_eq(load("redis: {password: b}\nlog: {level: debug}\n"), OK);
	ck_assert_uint_eq(config_diff(&old, &cfg, put_change, &changes), 2);
	buf_putc(&changes, '\0');
	ck_assert_str_eq(changes.data,
			 "redis.password: *** -> ***\nlog.level: info -> debug\n");
	ck_assert_int_eq(config_check_reload(&old, &cfg, &why), OK);

	ck_assert_int_eq(load("redis: {password: b}\nserver:\n  backlog: 5\n  listen: [a]\n"),
			 OK);
	ck_assert_int_eq(config_check_reload(&old, &cfg, &why), ERR_BAD_REQUEST);
	ck_assert_str_eq(
		errors(),
		"a.yaml:4:11: server.listen: a change needs a restart; now it is "
		"tcp://127.0.0.1:7420\n"
		"a.yaml:3:12: server.backlog: a change needs a restart; now it is 1024\n"
		"a.yaml: 2 errors\n");
	buf_done(&changes);
	config_done(&old);
}
END_TEST

START_TEST(a_printed_configuration_can_be_read_and_says_the_same)
{
	static const char text[] =
		"server: {listen: [\"a: #b\", \"5\", \"-\"], unix_mode: \"0600\"}\n"
		"redis: {username: \"yes\", key_prefix: \"a\\\\\\\"b\", password_file: \"\"}\n"
		"log: {level: debug, file: \"x:\"}\n"
		"queues: {defaults: {backoff_factor: 1.5}, overrides: [{match: \"*\", "
		"queue_size: 1}]}\n";
	struct config old = { 0 };
	char *printed = NULL;
	size_t n;
	FILE *out = open_memstream(&printed, &n);

	ck_assert_msg(load(text) == OK, "%s", errors());
	config_print(&cfg, out);
	fclose(out);
	old = cfg;
	cfg = (struct config){ 0 };
	ck_assert_msg(load(printed) == OK, "%s\n%s", errors(), printed);
	ck_assert_uint_eq(config_diff(&old, &cfg, NULL, NULL), 0);
	ck_assert_ptr_nonnull(strstr(printed, "a.yaml:3\n"));
	ck_assert_ptr_nonnull(
		strstr(printed, "  backlog: 1024                         # default\n"));
	free(printed);
	config_done(&old);
}
END_TEST

START_TEST(standard_input_is_kept_for_a_reload)
{
	const char *file = "-";
	struct config_source source = { .files = &file, .n_files = 1 };
	int saved = dup(STDIN_FILENO), fd;

	write_file("a.yaml", "server:\n  backlog: 9\n");
	fd = open(path_of("a.yaml"), O_RDONLY | O_CLOEXEC);
	ck_assert_int_eq(dup2(fd, STDIN_FILENO), STDIN_FILENO);
	close(fd);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(config_load(&cfg, &source, &why), OK);
		ck_assert_uint_eq(cfg.server.backlog, 9);
		ck_assert_str_eq(shown("server.backlog"), "9 <stdin>:2 <stdin>:2:12");
	}
	config_source_done(&source);
	dup2(saved, STDIN_FILENO);
	close(saved);
}
END_TEST

/* --- secrets ------------------------------------------------------------------- */

static enum err
load_password_file(void)
{
	char text[160];

	snprintf(text, sizeof(text), "redis:\n  password_file: %s\n", path_of("secret"));
	return load(text);
}

START_TEST(a_password_may_come_from_a_file_that_nobody_else_reads)
{
	write_file("secret", "s3cret\nsecond line\n");
	ck_assert_int_eq(load_password_file(), OK);
	ck_assert_str_eq(cfg.redis.password, "s3cret");
	write_file("secret", "with blank \r\n");
	ck_assert_int_eq(load_password_file(), OK);
	ck_assert_str_eq(cfg.redis.password, "with blank ");
	for (mode_t other = 1; other <= 0070; other <<= 1) {
		chmod(path_of("secret"), 0600 | other);
		ck_assert_int_eq(load_password_file(), ERR_BAD_REQUEST);
		ck_assert_str_eq(
			errors(),
			"a.yaml:2:18: redis.password_file: others may use this file; make "
			"its mode 0600\na.yaml: 1 error\n");
	}
	chmod(path_of("secret"), 0400);
	ck_assert_int_eq(load_password_file(), OK);
}
END_TEST

START_TEST(a_bad_password_file_is_refused)
{
	char text[160];

	ck_assert_int_eq(load_password_file(), ERR_BAD_REQUEST);
	ck_assert_ptr_nonnull(
		strstr(errors(), "a.yaml:2:18: redis.password_file: cannot open"));
	write_file("secret", "");
	ck_assert_int_eq(load_password_file(), ERR_BAD_REQUEST);
	write_file("secret", "\nx\n");
	ck_assert_int_eq(load_password_file(), ERR_BAD_REQUEST);
	ck_assert_ptr_nonnull(strstr(errors(), "first line must hold"));
	for (size_t n = 511; n <= 515; n++) {
		write_file("secret", run_of(n - 2)); /* and its quotes */
		ck_assert_int_eq(load_password_file() == OK, n <= 512);
	}
	write_file("secret", run_of(8000));
	ck_assert_int_eq(load_password_file(), ERR_BAD_REQUEST);
	ck_assert_int_eq(truncate(path_of("secret"), 20), 0);
	ck_assert_int_eq(truncate(path_of("secret"), 22), 0); /* two NUL bytes */
	ck_assert_int_eq(load_password_file(), ERR_BAD_REQUEST);
	snprintf(text, sizeof(text), "redis:\n  password: a\n  password_file: %s\n",
		 path_of("secret"));
	ck_assert_int_eq(load(text), ERR_BAD_REQUEST);
	ck_assert_ptr_nonnull(strstr(errors(), "redis.password is set as well"));
}
END_TEST

START_TEST(a_password_that_everybody_can_read_is_warned_about)
{
	static const char *const texts[] = { "redis:\n  password: s3cret\n",
					     "redis:\n  url: redis://:s3cret@127.0.0.1:1\n" };

	for (size_t i = 0; i < COUNT_OF(texts); i++) {
		unlink(path_of("a.yaml"));
		ck_assert_int_eq(load(texts[i]), OK);
		ck_assert_uint_eq(why.n_warnings, 0);
		chmod(path_of("a.yaml"), 0640); /* a group of its own is usual */
		ck_assert_int_eq(load(texts[i]), OK);
		ck_assert_uint_eq(why.n_warnings, 0);
		chmod(path_of("a.yaml"), 0644);
		ck_assert_int_eq(load(texts[i]), OK);
		ck_assert_uint_eq(why.n_warnings, 1);
		ck_assert_ptr_nonnull(
			strstr(errors(), "everybody on this machine can read this password"));
		ck_assert_ptr_null(strstr(errors(), "s3cret"));
	}
	ck_assert_int_eq(load("redis: {url: redis://127.0.0.1:1}\n"), OK);
	ck_assert_uint_eq(why.n_warnings, 0);
	ck_assert_int_eq(load_set("", "redis.password=s3cret"), OK);
	ck_assert_uint_eq(why.n_warnings, 1);
}
END_TEST

/* --- judges of addresses ------------------------------------------------------- */

static bool
no_x(const char *url, struct errmsg *msg)
{
	if (!strchr(url, 'x'))
		return true;
	errmsg_set(msg, ERR_BAD_REQUEST, "has an x");
	return false;
}

START_TEST(addresses_are_judged_by_those_who_know_them)
{
	static const struct config_checks checks = { no_x, no_x };
	const char *file = path_of("a.yaml");
	struct config_source source = { .files = &file, .n_files = 1, .checks = &checks };

	write_file("a.yaml", "server:\n  listen: [a, bx]\nredis:\n  url: x\n");
	ck_assert_int_eq(config_load(&cfg, &source, &why), ERR_BAD_REQUEST);
	ck_assert_str_eq(
		errors(),
		"a.yaml:2:11: server.listen: has an x\na.yaml:4:8: redis.url: has an x\n"
		"a.yaml: 2 errors\n");
	config_errors_done(&why);
	write_file("a.yaml", "server:\n  listen: [a, b]\nredis:\n  url: z\n");
	ck_assert_int_eq(config_load(&cfg, &source, &why), OK);
}
END_TEST

int
main(void)
{
	Suite *suite = suite_create("config");
	TCase *tc = tcase_create("config");
	SRunner *runner;
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, begin, end);
	tcase_add_loop_test(tc, every_key_takes_what_the_table_says_and_nothing_else, 0,
			    (int)COUNT_OF(rows));
	tcase_add_test(tc, the_table_is_in_order);
	tcase_add_test(tc, the_choices_of_the_log_are_those_of_the_log);
	tcase_add_test(tc,
		       the_reference_file_is_what_print_defaults_prints_and_says_the_defaults);
	tcase_add_test(tc, the_table_in_the_documentation_is_the_table);
	tcase_add_test(tc, errors_tell_their_place_and_what_was_meant);
	tcase_add_test(tc, an_error_knows_what_it_is_about);
	tcase_add_test(tc, all_errors_are_counted_and_the_first_twenty_kept);
	tcase_add_test(tc, values_must_fit_together);
	tcase_add_test(tc, an_override_is_the_defaults_but_for_what_it_sets);
	tcase_add_test(tc, errors_in_overrides_tell_their_place);
	tcase_add_test(tc, a_refused_configuration_changes_nothing);
	tcase_add_test(tc, an_empty_file_is_valid);
	tcase_add_test(tc, later_files_win_over_earlier_ones_and_flags_over_all);
	tcase_add_test(tc, a_bad_flag_is_refused_as_one);
	tcase_add_test(tc, only_regular_files_are_read);
	tcase_add_test(tc, standard_input_is_a_file_too);
	tcase_add_test(tc, standard_input_is_kept_for_a_reload);
	tcase_add_loop_test(tc, every_key_has_a_variable, 0, (int)COUNT_OF(rows));
	tcase_add_test(tc, the_environment_wins_over_files_and_flags_over_it);
	tcase_add_test(tc, a_variable_that_is_no_key_is_an_error);
	tcase_add_test(tc, some_variables_are_for_others);
	tcase_add_test(tc, each_value_tells_where_it_comes_from);
	tcase_add_test(tc, a_text_that_is_shown_is_one_that_is_read);
	tcase_add_test(tc, what_has_changed_is_told_and_what_needs_a_restart_refused);
	tcase_add_test(tc, a_printed_configuration_can_be_read_and_says_the_same);
	tcase_add_test(tc, a_password_may_come_from_a_file_that_nobody_else_reads);
	tcase_add_test(tc, a_bad_password_file_is_refused);
	tcase_add_test(tc, a_password_that_everybody_can_read_is_warned_about);
	tcase_add_test(tc, addresses_are_judged_by_those_who_know_them);
	suite_add_tcase(suite, tc);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
