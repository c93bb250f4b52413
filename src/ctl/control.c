/* coordctl drain, undrain, loglevel: the broker as a whole. */
#include <stdio.h>
#include <time.h>

#include "ctl/ctl.h"

/* Drain -------------------------------------------------------------------------------------------- */

static bool
is_drained(const json_t *left)
{
	return !json_number_at(left, "in_flight") && !json_number_at(left, "unsettled");
}

static void
say_left(const struct ctl *ctl, const json_t *left)
{
	if (json_bool_at(left, "draining") && is_drained(left))
		out_done(ctl, left, "drained: nothing is in flight, and nothing unsettled");
	else
		out_done(ctl, left, "%s: %.0f requests in flight, %.0f messages unsettled",
			 json_bool_at(left, "draining") ? "draining" : "not draining",
			 json_number_at(left, "in_flight"), json_number_at(left, "unsettled"));
}

int
ctl_drain(struct ctl *ctl, char **args, int n)
{
	const struct timespec step = { .tv_nsec = 100000000 };
	double left_s = ctl->opt[OPT_wait].seconds;
	bool has_end = GIVEN(ctl, wait) && left_s >= 0;
	json_t *left;

	(void)args;
	(void)n;
	while ((left = ctl_call(ctl, "drain", ctl_params(NULL), 0))) {
		if (!GIVEN(ctl, wait) || is_drained(left) || (has_end && left_s <= 0))
			break;
		json_decref(left);
		nanosleep(&step, NULL);
		left_s -= 0.1;
	}
	if (!left)
		return ctl->status;
	say_left(ctl, left);
	if (GIVEN(ctl, wait) && !is_drained(left))
		ctl->status = ctl_fail(
			EX_TEMPFAIL,
			"not everything was settled in time; the broker goes on draining");
	json_decref(left);
	return ctl->status;
}

int
ctl_undrain(struct ctl *ctl, char **args, int n)
{
	json_t *left = ctl_call(ctl, "undrain", ctl_params(NULL), 0);

	(void)args;
	(void)n;
	if (left)
		out_done(ctl, left, "it hands out again");
	json_decref(left);
	return ctl->status;
}

/* The log's level ---------------------------------------------------------------------------------- */

static void
print_level(const json_t *now)
{
	struct buf b = { 0 };

	text_escape(&b, json_str_at(now, "level"));
	if (json_at(now, "for")) {
		buf_puts(&b, " for ");
		text_age(&b, json_number_at(now, "for"));
		buf_puts(&b, ", then ");
		text_escape(&b, json_str_at(now, "configured"));
	}
	printf("%.*s\n", (int)b.len, b.data);
	buf_done(&b);
}

int
ctl_loglevel(struct ctl *ctl, char **args, int n)
{
	struct coord_params *p = ctl_params(NULL);
	json_t *now;

	if (n)
		coord_param_str(p, "level", args[0]);
	if (GIVEN(ctl, for))
		coord_param_double(p, "for", ctl->opt[OPT_for].seconds);
	now = ctl_call(ctl, "log_level", p, 0);
	if (!now)
		return ctl->status;
	if (ctl->output != OUT_TABLE)
		out_members(ctl, now);
	else if (!n || !GIVEN(ctl, quiet))
		print_level(now);
	json_decref(now);
	return EX_OK;
}
