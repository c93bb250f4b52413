/* coordctl breaker: circuit breakers. */
#include <string.h>

#include "ctl/ctl.h"

/* Closed is as it should be. */
static void
show_state(struct buf *b, const json_t *value, bool is_plain)
{
	struct str state = json_str_at(value, "");

	if (is_plain || str_eq(state, STR("closed")))
		buf_put(b, state.p, state.n);
	else
		buf_puts(b, str_eq(state, STR("open")) ? "OPEN" : "HALF OPEN");
}

/* "3/5": failures in a row, and how many open it. */
static void
show_failures(struct buf *b, const json_t *row, bool is_plain)
{
	(void)is_plain;
	buf_printf(b, "%.0f/%.0f", json_number_at(row, "failure_count"),
		   json_number_at(row, "config.failure_threshold"));
}

static const struct column ls_columns[] = {
	{ "BREAKER", "name", NULL, false },
	{ "STATE", "state", show_state, false },
	{ "FAILURES", "", show_failures, true },
	{ "CALLS", "total_calls", NULL, true },
	{ "FAILED", "failed_calls", NULL, true },
	{ "REJECTED", "rejected_calls", NULL, true },
	{ "SINCE", "state_changed_at", show_time, false },
};

static const struct column show_columns[] = {
	{ "breaker", "name", NULL, false },
	{ "state", "state", show_state, false },
	{ "since", "state_changed_at", show_time, false },
	{ "changes", "state_changes", NULL, false },
	{ "failures in a row", "failure_count", NULL, false },
	{ "trial calls out", "half_open_calls", NULL, false },
	{ "trial successes", "half_open_successes", NULL, false },
	{ "calls", "total_calls", NULL, false },
	{ "  succeeded", "successful_calls", NULL, false },
	{ "  failed", "failed_calls", NULL, false },
	{ "  rejected", "rejected_calls", NULL, false },
	{ "last success", "last_success_time", show_time, false },
	{ "last failure", "last_failure_time", show_time, false },
	{ "failure_threshold", "config.failure_threshold", NULL, false },
	{ "timeout", "config.timeout_seconds", show_age, false },
	{ "recovery timeout", "config.recovery_timeout_seconds", show_age, false },
	{ "half-open calls", "config.half_open_max_calls", NULL, false },
	{ "success threshold", "config.success_threshold", NULL, false },
};

static struct coord_params *
named(const char *name)
{
	struct coord_params *p = ctl_params(NULL);

	coord_param_str(p, "name", name);
	return p;
}

int
breaker_ls(struct ctl *ctl, char **args, int n)
{
	json_t *rows = ctl_list(ctl, "breaker_list", "name", NULL, ctl_limit(ctl), NULL, NULL);

	(void)args;
	(void)n;
	if (!rows)
		return ctl->status;
	out_rows(ctl, rows, ls_columns, COUNT_OF(ls_columns));
	json_decref(rows);
	return EX_OK;
}

/* NULL when there is none, or it is not to be had (said already, with the exit code in ctl->status). */
static json_t *
get(struct ctl *ctl, const char *name)
{
	json_t *info = ctl_call(ctl, "breaker_get", named(name), 0);

	if (!info || json_is_object(info))
		return info;
	ctl->status = json_is_null(info)
			      ? ctl_fail(EXIT_NOT_FOUND, "there is no breaker %s", name)
			      : ctl_unexpected("breaker_get");
	json_decref(info);
	return NULL;
}

int
breaker_show(struct ctl *ctl, char **args, int n)
{
	json_t *info = get(ctl, args[0]);

	(void)n;
	if (!info)
		return ctl->status;
	out_object(ctl, info, show_columns, COUNT_OF(show_columns));
	json_decref(info);
	return EX_OK;
}

/* Say that it would be done to a breaker that is there. */
static int
would(struct ctl *ctl, const char *name, const char *verb)
{
	json_t *info = get(ctl, name), *done;

	if (!info)
		return ctl->status;
	done = json_pack("{s:s, s:O, s:b}", "breaker", name, "state",
			 json_object_get(info, "state"), "dry_run", 1);
	out_done(ctl, done, "would %s %s", verb, name);
	json_decref(done);
	json_decref(info);
	return EX_OK;
}

/* A method that answers what the breaker is now; frees `take_params`. */
static int
change(struct ctl *ctl, const char *name, const char *method, struct coord_params *take_params,
       const char *did)
{
	json_t *info = ctl_call(ctl, method, take_params, 0), *done;

	if (!info)
		return ctl->status;
	done = json_pack("{s:s, s:O?}", "breaker", name, "state",
			 json_object_get(info, "state"));
	out_done(ctl, done, "%s %s", did, name);
	json_decref(done);
	json_decref(info);
	return EX_OK;
}

int
breaker_trip(struct ctl *ctl, char **args, int n)
{
	struct coord_params *p;

	(void)n;
	if (GIVEN(ctl, dry_run))
		return would(ctl, args[0], "open");
	p = named(args[0]);
	if (GIVEN(ctl, for))
		coord_param_double(p, "for", ctl->opt[OPT_for].seconds);
	return change(ctl, args[0], "breaker_trip", p, "opened");
}

int
breaker_reset(struct ctl *ctl, char **args, int n)
{
	(void)n;
	if (GIVEN(ctl, dry_run))
		return would(ctl, args[0], "close");
	return change(ctl, args[0], "breaker_reset", named(args[0]), "closed");
}

int
breaker_rm(struct ctl *ctl, char **args, int n)
{
	json_t *removed, *done;
	int status;

	(void)n;
	if (GIVEN(ctl, dry_run))
		return would(ctl, args[0], "remove");
	status = ctl_confirm(ctl, "remove the breaker %s", args[0]);
	if (status)
		return status;
	removed = ctl_call(ctl, "breaker_remove", named(args[0]), 0);
	if (!removed)
		return ctl->status;
	if (!json_is_true(removed))
		status = ctl_fail(EXIT_NOT_FOUND, "there is no breaker %s", args[0]);
	done = json_pack("{s:s, s:b}", "breaker", args[0], "removed", !status);
	if (!status)
		out_done(ctl, done, "removed %s", args[0]);
	json_decref(done);
	json_decref(removed);
	return status;
}
