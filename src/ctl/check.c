/*
 * coordctl check: what `status` says of a broker, in the form that monitoring systems understand (Nagios, Icinga and others): one
 * line, what is wrong first, then performance data, and an exit status.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "ctl/ctl.h"

enum state { STATE_OK, STATE_WARNING, STATE_CRITICAL, STATE_UNKNOWN, STATES };
static const char *const state_names[STATES] = { "OK", "WARNING", "CRITICAL", "UNKNOWN" };
/* UNKNOWN is worse than fine and better than known to be bad. */
static const int severity[STATES] = { 0, 2, 3, 1 };

enum unit { STATE, COUNT, MS, SECONDS, PERCENT, NONE };

enum {
	CHECKS = 0
#define CHECK(name, unit, help) +1
#include "base/checks.def"
#undef CHECK
};
static const struct check {
	const char *name;
	enum unit unit;
	const char *help;
} checks[CHECKS] = {
#define CHECK(name, unit, help) { #name, unit, help },
#include "base/checks.def"
#undef CHECK
};

/* One check as it turned out; thresholds are NAN where none was given. */
struct outcome {
	const struct check *check;
	enum state state;
	double warn, crit;
	bool is_wanted;
	const json_t *row; /* of status; NULL: it is not there */
};

void
check_help(void)
{
	puts("\nChecks, all of them unless some are named:");
	for (int i = 0; i < CHECKS; i++)
		printf("  %-12s %s\n", checks[i].name, checks[i].help);
	puts("\nWithout --warn and --crit a check is judged as the broker does. A threshold of "
	     "age is a\n"
	     "time, as in age=5m. A check that is not there, and a threshold that is none, "
	     "are\n"
	     "UNKNOWN, 3.");
}

/* The place of a check in the table, -1: there is no such check. */
static int
check_find(const char *name, size_t n)
{
	for (int i = 0; i < CHECKS; i++)
		if (strlen(checks[i].name) == n && !strncmp(checks[i].name, name, n))
			return i;
	return -1;
}

/* The exit status; the last line that is printed. */
static int
unknown(const char *what, const char *text)
{
	struct buf out = { 0 };

	text_escape(&out, str_of(text));
	printf("COORDD UNKNOWN - %s: %.*s\n", what, (int)out.len, out.data);
	buf_done(&out);
	return STATE_UNKNOWN;
}

static bool
number_read(const struct check *check, const char *text, double *out)
{
	char *end;

	if (check->unit == STATE || check->unit == NONE)
		return false;
	if (check->unit == SECONDS)
		return text_duration(text, out);
	*out = strtod(text, &end);
	if (check->unit == PERCENT && *end == '%')
		end++;
	return end != text && !*end && isfinite(*out) && *out >= 0;
}

/* "dlq=10,age=5m"; false when it is said that something is wrong. */
static bool
thresholds_read(struct outcome *all, const char *text, bool is_crit)
{
	char *copy = xstrdup(text ? text : ""), *rest = copy, *one;
	bool is_good = true;

	while (is_good && text && (one = strsep(&rest, ","))) {
		char *equals = strchr(one, '=');
		int at = check_find(one, equals ? (size_t)(equals - one) : strlen(one));
		double n;

		is_good = at >= 0 && equals && number_read(&checks[at], equals + 1, &n);
		if (!is_good)
			unknown("a threshold is CHECK=NUMBER, of a check that has a number",
				one);
		else if (is_crit)
			all[at].crit = n;
		else
			all[at].warn = n;
	}
	free(copy);
	return is_good;
}

static bool
wanted_read(struct outcome *all, char **args, int n)
{
	for (int i = 0; i < n; i++) {
		int at = check_find(args[i], strlen(args[i]));

		if (at < 0) {
			unknown("there is no such check", args[i]);
			return false;
		}
		all[at].is_wanted = true;
	}
	for (int i = 0; i < CHECKS && !n; i++)
		all[i].is_wanted = true;
	return true;
}

/* Judging ---------------------------------------------------------------------------------------- */

static double
value_of(const struct outcome *o)
{
	const json_t *value = json_at(o->row, "value");

	return json_is_number(value) ? json_number_value(value) : NAN;
}

static enum state
judge(const struct outcome *o)
{
	struct str status = json_str_at(o->row, "status");
	double value = value_of(o);

	if (!o->row)
		return STATE_UNKNOWN;
	if (!isnan(o->warn) || !isnan(o->crit))
		return isnan(value)       ? STATE_UNKNOWN
		       : value >= o->crit ? STATE_CRITICAL
		       : value >= o->warn ? STATE_WARNING
					  : STATE_OK;
	return str_eq(status, STR("ok"))     ? STATE_OK
	       : str_eq(status, STR("warn")) ? STATE_WARNING
	       : str_eq(status, STR("fail")) ? STATE_CRITICAL
					     : STATE_UNKNOWN;
}

static void
put_number(struct buf *b, const struct check *check, double value)
{
	switch (check->unit) {
	case MS:
		buf_printf(b, "%.2f ms", value);
		break;
	case SECONDS:
		text_age(b, value);
		break;
	case PERCENT:
		buf_printf(b, "%.1f %%", value);
		break;
	default:
		buf_printf(b, "%.0f", value);
	}
}

/* A name that a client chose must neither end the line nor begin the performance data. */
static void
put_safe(struct buf *b, struct str s)
{
	struct buf escaped = { 0 };

	text_escape(&escaped, s);
	for (size_t i = 0; i < escaped.len; i++) {
		if (escaped.data[i] == '|')
			buf_puts(b, "\\x7c");
		else
			buf_putc(b, escaped.data[i]);
	}
	buf_done(&escaped);
}

/* "dlq 17 >= 10 (planner:w1 17)" */
static void
put_text(struct buf *b, const struct outcome *o)
{
	struct str worst = json_str_at(o->row, "worst"),
		   message = json_str_at(o->row, "message");
	bool by_number = !isnan(o->warn) || !isnan(o->crit);
	double value = value_of(o);

	buf_puts(b, o->check->name);
	if (!o->row) {
		buf_puts(b, " is not known");
		return;
	}
	if (o->check->unit != STATE && !isnan(value)) {
		buf_putc(b, ' ');
		put_number(b, o->check, value);
	}
	if (o->state == STATE_OK) {
		if (o->check->unit == STATE || o->check->unit == NONE)
			buf_puts(b, " ok");
		return;
	}
	if (by_number && o->state != STATE_UNKNOWN) {
		buf_puts(b, " >= ");
		put_number(b, o->check, o->state == STATE_CRITICAL ? o->crit : o->warn);
	} else if (message.n) {
		buf_puts(b, ": ");
		put_safe(b, message);
	}
	if (worst.n) {
		buf_puts(b, " (");
		put_safe(b, worst);
		buf_putc(b, ')');
	}
}

/* "dlq=17;10;100;0": value, thresholds, least and most. */
static void
put_performance(struct buf *b, const struct outcome *o)
{
	static const char *const units[] = { [STATE] = "",    [COUNT] = "",    [MS] = "ms",
					     [SECONDS] = "s", [PERCENT] = "%", [NONE] = "" };
	int digits = o->check->unit == STATE || o->check->unit == COUNT ? 0 : 2;

	if (isnan(value_of(o)))
		return;
	buf_printf(b, " %s=%.*f%s;", o->check->name, digits, value_of(o),
		   units[o->check->unit]);
	if (!isnan(o->warn))
		buf_printf(b, "%g", o->warn);
	buf_putc(b, ';');
	if (!isnan(o->crit))
		buf_printf(b, "%g", o->crit);
	buf_puts(b, o->check->unit == STATE     ? ";0;1"
		    : o->check->unit == PERCENT ? ";0;100"
						: ";0");
}

/* The worst first, otherwise as in the table. */
static unsigned
in_order(const struct outcome *all, const struct outcome **sorted)
{
	unsigned n = 0;

	for (int level = severity[STATE_CRITICAL]; level >= 0; level--)
		for (int i = 0; i < CHECKS; i++)
			if (all[i].is_wanted && severity[all[i].state] == level)
				sorted[n++] = &all[i];
	return n;
}

static int
report(struct outcome *all, const json_t *status)
{
	const struct outcome *sorted[CHECKS];
	struct buf text = { 0 }, data = { 0 };
	enum state state;
	json_t *row;
	unsigned n;
	size_t i;

	json_array_foreach(json_at(status, "checks"), i, row)
	{
		struct str name = json_str_at(row, "name");
		int at = name.n ? check_find(name.p, name.n) : -1;

		if (at >= 0)
			all[at].row = row;
	}
	for (i = 0; i < CHECKS; i++)
		all[i].state = judge(&all[i]);
	n = in_order(all, sorted);
	state = sorted[0]->state;
	for (i = 0; i < n; i++) {
		put_performance(&data, sorted[i]);
		if (state != STATE_OK && sorted[i]->state == STATE_OK)
			continue;
		buf_puts(&text, text.len ? ", " : "");
		put_text(&text, sorted[i]);
	}
	printf("COORDD %s - %.*s%s%.*s\n", state_names[state], (int)text.len, text.data,
	       data.len ? " |" : "", (int)data.len, data.len ? data.data : "");
	buf_done(&text);
	buf_done(&data);
	return (int)state;
}

/* No broker is a broker that does not work; one that will not tell is another matter. */
static int
no_answer(const struct ctl *ctl)
{
	enum state state = ctl->status == EX_UNAVAILABLE || ctl->status == EX_TEMPFAIL
				   ? STATE_CRITICAL
				   : STATE_UNKNOWN;
	struct buf text = { 0 };

	put_safe(&text, str_of(ctl->why.message));
	printf("COORDD %s - %.*s\n", state_names[state], (int)text.len,
	       text.len ? text.data : "");
	buf_done(&text);
	return (int)state;
}

int
ctl_check(struct ctl *ctl, char **args, int n)
{
	struct outcome all[CHECKS];
	json_t *status;
	int result;

	for (int i = 0; i < CHECKS; i++)
		all[i] = (struct outcome){ .check = &checks[i], .warn = NAN, .crit = NAN };
	if (!wanted_read(all, args, n) || !thresholds_read(all, TEXT(ctl, warn), false) ||
	    !thresholds_read(all, TEXT(ctl, crit), true))
		return STATE_UNKNOWN;
	ctl->is_silent = true;
	status = ctl_call(ctl, "status", ctl_params(NULL), 0);
	if (!status)
		return no_answer(ctl);
	if (!json_is_array(json_at(status, "checks")))
		result = unknown("the broker's answer to status has an unexpected form",
				 ctl->server);
	else
		result = report(all, status);
	json_decref(status);
	return result;
}
