/*
 * Configurations as text: each value, what differs between two, and both as a file.
 *
 *	config_each()			path, text, origin
 *	config_print()			`--print-config`: the origin beside each value
 *	config_print_defaults()		conf/coordd.yaml: the help beside each value
 */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "config/config.h"
#include "config/option.h"
#include "config/override.h"

/* --- one by one ---------------------------------------------------------------- */

static void
put_origin(struct buf *to, const struct config_origin *origin, bool with_column)
{
	if (origin->kind == ORIGIN_FILE) {
		buf_printf(to, "%s:%u", origin->name, origin->at.line);
		if (with_column)
			buf_printf(to, ":%u", origin->at.column);
	} else if (with_column && origin->name) {
		buf_puts(to, origin->name);
	} else {
		buf_puts(to, origin->kind == ORIGIN_ENVIRONMENT ? "env"
			     : origin->kind == ORIGIN_FLAG      ? "flag"
								: "default");
	}
	buf_putc(to, '\0');
}

/* The texts of a value, which must stay as long as it. */
struct texts {
	struct buf text, origin, place;
};

static struct config_value
value_of(const struct config *cfg, unsigned i, struct texts *texts)
{
	const struct config_option *o = &config_options[i];

	buf_clear(&texts->text);
	buf_clear(&texts->origin);
	buf_clear(&texts->place);
	option_put_text(&texts->text, cfg, o);
	buf_putc(&texts->text, '\0');
	put_origin(&texts->origin, &cfg->origins[i], false);
	put_origin(&texts->place, &cfg->origins[i], true);
	return (struct config_value){ o->path, texts->text.data, texts->origin.data,
				      texts->place.data, o->is_reloadable };
}

static void
texts_done(struct texts *texts)
{
	buf_done(&texts->text);
	buf_done(&texts->origin);
	buf_done(&texts->place);
}

void
config_each(const struct config *cfg, config_value_cb *cb, void *arg)
{
	struct texts texts = { 0 };

	for (unsigned i = 0; i < OPTION_COUNT; i++) {
		struct config_value value = value_of(cfg, i, &texts);

		cb(arg, &value);
	}
	texts_done(&texts);
}

unsigned
config_diff(const struct config *from, const struct config *to, config_change_cb *cb, void *arg)
{
	struct texts before = { 0 }, after = { 0 };
	unsigned n = 0;

	for (unsigned i = 0; i < OPTION_COUNT; i++) {
		struct config_value was, is;

		if (option_is_same(from, to, &config_options[i]))
			continue;
		n++;
		was = value_of(from, i, &before);
		is = value_of(to, i, &after);
		if (cb)
			cb(arg, &was, &is);
	}
	texts_done(&before);
	texts_done(&after);
	return n;
}

/* --- as a file ----------------------------------------------------------------- */

enum { COMMENT_COLUMN = 40, LAST_COLUMN = 80 };

/* The maps that hold `path` and did not hold `before`. */
static void
print_sections(FILE *out, const char *path, const char *before)
{
	size_t same = 0;
	unsigned depth = 0;
	const char *dot;

	for (size_t i = 0; path[i] && path[i] == before[i]; i++) {
		if (path[i] == '.') {
			same = i + 1;
			depth++;
		}
	}
	if (!depth && *before)
		fputc('\n', out);
	while ((dot = strchr(path + same, '.'))) {
		fprintf(out, "%*s%.*s:\n", (int)depth * 2, "", (int)(dot - path - (int)same),
			path + same);
		same = (size_t)(dot + 1 - path);
		depth++;
	}
}

/* How many lines stand below the key: the entries of a list. An empty one stands beside it. */
static unsigned
count_entries(const struct config *cfg, const struct config_option *o)
{
	const void *member = (const char *)cfg + o->offset;

	return o->kind == OPTION_LIST        ? ((const struct config_list *)member)->n
	       : o->kind == OPTION_OVERRIDES ? ((const struct config_overrides *)member)->n
					     : 0;
}

static void
put_entry(struct buf *to, const struct config *cfg, const struct config_option *o, unsigned i)
{
	const void *member = (const char *)cfg + o->offset;

	if (o->kind == OPTION_LIST)
		yaml_put_text(to, ((const struct config_list *)member)->items[i]);
	else
		override_put_text(to, cfg, o, i);
}

static void
put_value(struct buf *to, const struct config *cfg, const struct config_option *o)
{
	struct buf text = { 0 };

	option_put_text(&text, cfg, o);
	buf_putc(&text, '\0');
	if (o->kind == OPTION_BOOL || o->kind == OPTION_INT || o->kind == OPTION_FLOAT ||
	    o->kind == OPTION_OVERRIDES)
		buf_puts(to, text.data); /* in quotes it would be text */
	else
		yaml_put_text(to, text.data);
	buf_done(&text);
}

/* "KEY: VALUE", or "KEY:" and entries below. The lines of the comment are parted by \n. */
static void
print_option(FILE *out, const struct config *cfg, const struct config_option *o,
	     const char *comment)
{
	const char *name = strrchr(o->path, '.'), *line = comment;
	unsigned n = count_entries(cfg, o);
	struct buf key = { 0 };
	size_t column;
	int indent = 0;

	for (const char *p = o->path; *p; p++)
		indent += *p == '.' ? 2 : 0;
	buf_printf(&key, "%*s%s:", indent, "", name ? name + 1 : o->path);
	if (!n) {
		buf_putc(&key, ' ');
		put_value(&key, cfg, o);
	}
	buf_putc(&key, '\0');
	column = key.len + 1 > COMMENT_COLUMN ? key.len + 1 : COMMENT_COLUMN;
	if (!strchr(comment, '\n') && column + 2 + strlen(comment) <= LAST_COLUMN) {
		fprintf(out, "%-*s# %s\n", (int)column, key.data, comment);
	} else {
		for (size_t len; *line; line += len + (line[len] != 0)) {
			len = strcspn(line, "\n");
			fprintf(out, "%*s# %.*s\n", indent, "", (int)len, line);
		}
		fprintf(out, "%s\n", key.data);
	}
	for (unsigned i = 0; i < n; i++) {
		buf_clear(&key);
		put_entry(&key, cfg, o, i);
		buf_putc(&key, '\0');
		fprintf(out, "%*s- %s\n", indent + 2, "", key.data);
	}
	buf_done(&key);
}

void
config_print(const struct config *cfg, FILE *out)
{
	const char *before = "";

	fputs("---\n", out);
	for (unsigned i = 0; i < OPTION_COUNT; i++) {
		struct buf origin = { 0 };

		put_origin(&origin, &cfg->origins[i], false);
		print_sections(out, config_options[i].path, before);
		print_option(out, cfg, &config_options[i], origin.data);
		before = config_options[i].path;
		buf_done(&origin);
	}
}

void
config_print_defaults(FILE *out)
{
	struct config_source nothing = { 0 };
	struct config_errors why = { 0 };
	struct config cfg = { 0 };
	const char *before = "";

	if (config_load(&cfg, &nothing, &why))
		abort(); /* the defaults are ours */
	fputs("---\n"
	      "# coordd.yaml: every key with its built-in default. An empty file is valid.\n"
	      "# Durations: ms s m h d. Sizes: B KiB MiB GiB. Unknown or repeated keys,\n"
	      "# wrong types, aliases and tags are errors (exit 78), never warnings.\n"
	      "# [R] = applied by a reload; [S] = needs a restart, a reload refuses the "
	      "change.\n",
	      out);
	for (unsigned i = 0; i < OPTION_COUNT; i++) {
		const struct config_option *o = &config_options[i];
		struct buf comment = { 0 };

		buf_printf(&comment, "[%c] %s", o->is_reloadable ? 'R' : 'S', o->help);
		buf_putc(&comment, '\0');
		print_sections(out, o->path, before);
		print_option(out, &cfg, o, comment.data);
		before = o->path;
		buf_done(&comment);
	}
	config_done(&cfg);
}
