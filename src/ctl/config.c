/* coordctl config: what a broker is configured with, and files before they are. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/ctl.h"
#include "net/listener.h"
#include "store/address.h"

#define DEFAULT_FILE "/etc/coordd/coordd.yaml"

static void
show_reloadable(struct buf *b, const json_t *value, bool is_plain)
{
	(void)is_plain;
	buf_puts(b, json_is_true(value) ? "reload" : "restart");
}

static const struct column show_columns[] = {
	{ "KEY", "key", NULL, false },
	{ "VALUE", "value", NULL, false },
	{ "ORIGIN", "origin", NULL, false },
	{ "CHANGE BY", "reloadable", show_reloadable, false },
};

static const struct column diff_columns[] = {
	{ "KEY", "key", NULL, false },
	{ "RUNNING", "from", NULL, false },
	{ "NEW", "to", NULL, false },
	{ "ORIGIN", "origin", NULL, false },
	{ "CHANGE BY", "reloadable", show_reloadable, false },
};

/* --- the broker's -------------------------------------------------------------- */

/* Whether `key` is what was asked for, or below it. */
static bool
is_wanted(const json_t *row, const char *wanted)
{
	struct str key = json_str_at(row, "key");
	size_t n = strlen(wanted);

	return key.n >= n && !memcmp(key.p, wanted, n) && (key.n == n || key.p[n] == '.');
}

int
ctl_config_show(struct ctl *ctl, char **args, int n)
{
	json_t *config = ctl_call(ctl, "config_get", ctl_params(NULL), 0), *rows, *row;
	size_t i;

	if (!config)
		return ctl->status;
	rows = json_array();
	json_array_foreach(json_object_get(config, "values"), i, row)
	{
		if (!n || is_wanted(row, args[0]))
			json_array_append(rows, row);
	}
	if (n && !json_array_size(rows))
		ctl->status = ctl_fail(EXIT_NOT_FOUND, "there is no key %s", args[0]);
	else
		out_rows(ctl, rows, show_columns, COUNT_OF(show_columns));
	if (!ctl->status && json_str_at(config, "problem").n)
		fprintf(stderr, "coordctl: the last reload was refused: %.*s\n",
			(int)json_str_at(config, "problem").n,
			json_str_at(config, "problem").p);
	json_decref(rows);
	json_decref(config);
	return ctl->status;
}

static json_t *
reload(struct ctl *ctl, bool dry_run, double wait_s)
{
	struct coord_params *p = ctl_params(NULL);

	if (dry_run)
		msgpack_pack_true(coord_param(p, "dry_run"));
	return ctl_call(ctl, "config_reload", p, wait_s);
}

/* Append the values of one list of the answer. */
static void
collect(json_t *rows, const json_t *answer, const char *list, bool is_reloadable)
{
	json_t *row;
	size_t i;

	json_array_foreach(json_at(answer, list), i, row)
	{
		json_object_set_new(row, "reloadable", json_boolean(is_reloadable));
		json_array_append(rows, row);
	}
}

int
ctl_config_diff(struct ctl *ctl, char **args, int n)
{
	json_t *answer = reload(ctl, true, 0), *rows;

	(void)args;
	(void)n;
	if (!answer)
		return ctl->status;
	rows = json_array();
	collect(rows, answer, "changed", true);
	collect(rows, answer, "restart", false);
	if (json_array_size(rows) || ctl->output != OUT_TABLE)
		out_rows(ctl, rows, diff_columns, COUNT_OF(diff_columns));
	else if (!GIVEN(ctl, quiet))
		puts("nothing would change");
	json_decref(rows);
	json_decref(answer);
	return EX_OK;
}

int
ctl_config_reload(struct ctl *ctl, char **args, int n)
{
	double wait_s = ctl->opt[OPT_wait].seconds;
	json_t *answer, *row;
	size_t i, changed;

	(void)args;
	(void)n;
	if (GIVEN(ctl, dry_run))
		return ctl_config_diff(ctl, args, n);
	answer = reload(ctl, false, wait_s > 0 ? wait_s : 0);
	if (!answer)
		return ctl->status;
	json_array_foreach(json_at(answer, "warnings"), i, row)
	{
		ctl_fail(EX_OK, "%s", json_string_value(row));
	}
	changed = json_array_size(json_at(answer, "changed"));
	out_done(ctl, answer, "in force; %zu value%s changed%s", changed, PLURAL(changed),
		 changed ? ":" : "");
	if (ctl->output == OUT_TABLE && !GIVEN(ctl, quiet)) {
		json_array_foreach(json_at(answer, "changed"), i, row)
		{
			struct buf line = { 0 };

			buf_puts(&line, "  ");
			text_escape(&line, json_str_at(row, "key"));
			buf_puts(&line, ": ");
			text_escape(&line, json_str_at(row, "from"));
			buf_puts(&line, " -> ");
			text_escape(&line, json_str_at(row, "to"));
			printf("%.*s\n", (int)line.len, line.data);
			buf_done(&line);
		}
	}
	json_decref(answer);
	return EX_OK;
}

/* --- files --------------------------------------------------------------------- */

static bool
check_redis(const char *url, struct errmsg *why)
{
	struct address a = { 0 };
	bool is_good = address_read(&a, url, why);

	address_done(&a);
	return is_good;
}

const struct config_checks ctl_config_checks = { listener_check_served, check_redis };

int
ctl_config_check(struct ctl *ctl, char **args, int n)
{
	static const char *const otherwise[] = { DEFAULT_FILE };
	struct config_source source = {
		.files = n ? (const char *const *)args : otherwise,
		.n_files = n ? (unsigned)n : 1,
		.checks = &ctl_config_checks,
	};
	struct config_errors why = { 0 };
	struct config cfg = { 0 };
	int status = config_load(&cfg, &source, &why) ? EX_CONFIG : EX_OK;

	config_errors_print(&why, stderr);
	if (!status && !GIVEN(ctl, quiet))
		puts("the configuration is valid");
	config_errors_done(&why);
	config_done(&cfg);
	config_source_done(&source);
	return status;
}
