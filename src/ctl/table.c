/*
 * Results on standard output. A row is a JSON object; columns say what of it a table shows.
 * JSON output is the row itself, so nothing that the broker answers is lost there.
 */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "ctl/ctl.h"

/* --- cells ------------------------------------------------------------------- */

void
show_agent(struct buf *b, const json_t *value, bool is_plain)
{
	(void)is_plain;
	text_name(b, json_str_at(value, "type"), json_str_at(value, "instance"));
}

/* 2026-01-05T07:52:10.114123Z: a table drops the fraction, which nobody compares by eye. */
void
show_time(struct buf *b, const json_t *value, bool is_plain)
{
	struct str s = json_str_at(value, "");
	const char *dot = s.n ? memchr(s.p, '.', s.n) : NULL;
	size_t digits = dot ? 1 + strspn(dot + 1, "0123456789") : 0;

	if (is_plain || !dot) {
		buf_put(b, s.p, s.n);
		return;
	}
	buf_put(b, s.p, (size_t)(dot - s.p));
	buf_puts(b, dot + digits);
}

void
show_age(struct buf *b, const json_t *value, bool is_plain)
{
	if (is_plain)
		json_text(b, value, false);
	else
		text_age(b, json_number_value(value));
}

void
show_json(struct buf *b, const json_t *value, bool is_plain)
{
	(void)is_plain;
	json_text(b, value, false);
}

void
show_short_json(struct buf *b, const json_t *value, bool is_plain)
{
	const size_t columns = 60;
	struct buf all = { 0 };
	struct str s;

	json_text(&all, value, false);
	s = buf_str(&all);
	if (!is_plain && text_width(s) > columns) {
		s.n = text_fit(s, columns - 3);
		buf_put(b, s.p, s.n);
		buf_puts(b, "...");
	} else {
		buf_put(b, s.p, s.n);
	}
	buf_done(&all);
}

void
show_priority(struct buf *b, const json_t *value, bool is_plain)
{
	json_int_t p = json_integer_value(value);

	if (is_plain || (p != 1 && p != 5 && p != 9))
		json_text(b, value, false);
	else
		buf_puts(b, p == 9 ? "high" : p == 5 ? "normal" : "low");
}

/* Append one cell; a table's is escaped for a terminal, and "-" when there is nothing. */
static void
cell(struct buf *b, const json_t *row, const struct column *column, bool is_plain)
{
	const json_t *value = json_at(row, column->path);
	struct buf raw = { 0 };

	if (value && column->show)
		column->show(&raw, value, is_plain);
	else if (json_is_string(value))
		buf_put(&raw, json_string_value(value), json_string_length(value));
	else if (json_is_integer(value) && !is_plain)
		text_number(&raw, json_integer_value(value));
	else if (json_is_boolean(value) && !is_plain)
		buf_puts(&raw, json_is_true(value) ? "yes" : "no");
	else if (value)
		json_text(&raw, value, false);

	if (is_plain)
		buf_put(b, raw.data, raw.len);
	else if (raw.len)
		text_escape(b, buf_str(&raw));
	else
		buf_putc(b, '-');
	buf_done(&raw);
}

static void
spaces(struct buf *b, size_t n)
{
	while (n--)
		buf_putc(b, ' ');
}

static void
put_out(struct buf *b)
{
	fwrite(b->data, 1, b->len, stdout);
	buf_done(b);
}

/* --- tables ------------------------------------------------------------------ */

static void
cell_aligned(struct buf *b, struct str text, size_t width, bool is_right, bool is_last)
{
	size_t pad = width - text_width(text);

	if (is_right)
		spaces(b, pad);
	buf_put(b, text.p, text.n);
	if (!is_right && !is_last)
		spaces(b, pad);
	buf_puts(b, is_last ? "\n" : "  ");
}

static void
table(const struct ctl *ctl, const json_t *rows, const struct column *columns, size_t n)
{
	size_t n_rows = json_array_size(rows), i, k;
	struct buf *cells = xcalloc(n * (n_rows + 1), sizeof(*cells)), out = { 0 };
	size_t *widths = xcalloc(n, sizeof(*widths));
	bool has_header = !GIVEN(ctl, no_header);

	for (i = 0; i <= n_rows; i++) {
		for (k = 0; k < n; k++) {
			struct buf *c = &cells[i * n + k];

			if (i == 0)
				buf_puts(c, has_header ? columns[k].title : "");
			else
				cell(c, json_array_get(rows, i - 1), &columns[k], false);
			if (text_width(buf_str(c)) > widths[k])
				widths[k] = text_width(buf_str(c));
		}
	}
	for (i = has_header ? 0 : 1; i <= n_rows; i++) {
		for (k = 0; k < n; k++)
			cell_aligned(&out, buf_str(&cells[i * n + k]), widths[k],
				     columns[k].is_number, k + 1 == n);
	}
	for (i = 0; i < n * (n_rows + 1); i++)
		buf_done(&cells[i]);
	free(cells);
	free(widths);
	put_out(&out);
}

/* One object: a line for each column. */
static void
table_object(const json_t *object, const struct column *columns, size_t n)
{
	struct buf out = { 0 };
	size_t width = 0;

	for (size_t k = 0; k < n; k++)
		width = strlen(columns[k].title) > width ? strlen(columns[k].title) : width;
	for (size_t k = 0; k < n; k++) {
		buf_puts(&out, columns[k].title);
		spaces(&out, width - strlen(columns[k].title) + 2);
		cell(&out, object, &columns[k], false);
		buf_putc(&out, '\n');
	}
	put_out(&out);
}

/* --- other formats ----------------------------------------------------------- */

/* RFC 4180, with \n at the end of lines. */
static void
csv_field(struct buf *b, struct str s, bool is_last)
{
	bool is_quoted = false;

	for (size_t i = 0; i < s.n && !is_quoted; i++)
		is_quoted = strchr("\",\r\n", s.p[i]) != NULL;
	if (is_quoted)
		buf_putc(b, '"');
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '"')
			buf_putc(b, '"');
		buf_putc(b, s.p[i]);
	}
	if (is_quoted)
		buf_putc(b, '"');
	buf_putc(b, is_last ? '\n' : ',');
}

/* "DEAD SINCE" as other programs like it: dead_since. */
static void
csv_title(struct buf *b, const char *title, bool is_last)
{
	struct buf text = { 0 };

	for (title += strspn(title, " "); *title; title++)
		buf_putc(&text, *title == ' ' ? '_' : (char)tolower((unsigned char)*title));
	csv_field(b, buf_str(&text), is_last);
	buf_done(&text);
}

static void
csv(const struct ctl *ctl, const json_t *rows, const struct column *columns, size_t n)
{
	struct buf out = { 0 }, text = { 0 };
	json_t *row;
	size_t i, k;

	for (k = 0; k < n && !GIVEN(ctl, no_header); k++)
		csv_title(&out, columns[k].title, k + 1 == n);
	json_array_foreach(rows, i, row)
	{
		for (k = 0; k < n; k++) {
			buf_clear(&text);
			cell(&text, row, &columns[k], true);
			csv_field(&out, buf_str(&text), k + 1 == n);
		}
	}
	buf_done(&text);
	put_out(&out);
}

static void
names(const json_t *rows, const struct column *columns)
{
	struct buf out = { 0 }, text = { 0 };
	json_t *row;
	size_t i;

	json_array_foreach(rows, i, row)
	{
		buf_clear(&text);
		cell(&text, row, &columns[0], true);
		text_escape(&out, buf_str(&text)); /* one name, one line, whatever is in it */
		buf_putc(&out, '\n');
	}
	buf_done(&text);
	put_out(&out);
}

static void
json_line(const json_t *v, bool is_indented)
{
	struct buf out = { 0 };

	json_text(&out, v, is_indented);
	buf_putc(&out, '\n');
	put_out(&out);
}

void
out_rows(const struct ctl *ctl, const json_t *rows, const struct column *columns, size_t n)
{
	json_t *row;
	size_t i;

	switch (ctl->output) {
	case OUT_JSON:
		json_line(rows, true);
		break;
	case OUT_JSONL:
		json_array_foreach(rows, i, row)
		{
			json_line(row, false);
		}
		break;
	case OUT_CSV:
		csv(ctl, rows, columns, n);
		break;
	case OUT_NAMES:
		names(rows, columns);
		break;
	default:
		table(ctl, rows, columns, n);
		break;
	}
}

void
out_object(const struct ctl *ctl, const json_t *object, const struct column *columns, size_t n)
{
	json_t *rows;

	if (ctl->output == OUT_TABLE) {
		table_object(object, columns, n);
	} else if (ctl->output == OUT_JSON) {
		json_line(object, true);
	} else {
		rows = json_pack("[O]", object);
		if (!rows)
			abort();
		out_rows(ctl, rows, columns, n);
		json_decref(rows);
	}
}

/* Each member of an object is a column of its own; the caller frees them. */
static struct column *
columns_of(const json_t *object, size_t *n)
{
	struct column *columns = xcalloc(json_object_size(object) + 1, sizeof(*columns));
	const char *key;
	json_t *value;

	*n = 0;
	json_object_foreach((json_t *)object, key, value)
	{
		columns[*n].title = columns[*n].path = key;
		(*n)++;
	}
	return columns;
}

void
out_members(const struct ctl *ctl, const json_t *object)
{
	size_t n;
	struct column *columns = columns_of(object, &n);

	if (n)
		out_object(ctl, object, columns, n);
	else if (ctl->output == OUT_JSON || ctl->output == OUT_JSONL)
		json_line(object, false);
	free(columns);
}

void
out_done(const struct ctl *ctl, const json_t *object, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	if (ctl->output != OUT_TABLE) {
		out_members(ctl, object);
	} else if (!GIVEN(ctl, quiet)) {
		struct buf out = { 0 };

		va_start(ap, fmt);
		vsnprintf(text, sizeof(text), fmt, ap);
		va_end(ap);
		text_escape(&out, str_of(text));
		buf_putc(&out, '\n');
		put_out(&out);
	}
}
