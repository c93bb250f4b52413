/* coordctl queue: what is in the queues, emptying and pausing one, and settings. */
#include <stdlib.h>
#include <string.h>

#include "ctl/ctl.h"

/* `ready` is a map from priority to a number. */
static double
sum(const json_t *ready)
{
	const char *key;
	json_t *value;
	double total = 0;

	json_object_foreach((json_t *)ready, key, value)
	{
		total += json_number_value(value);
	}
	return total;
}

static void
show_ready(struct buf *b, const json_t *value, bool is_plain)
{
	if (is_plain)
		buf_printf(b, "%.0f", sum(value));
	else
		text_number(b, (int64_t)sum(value));
}

/* What an operator should look at first. */
static void
show_state(struct buf *b, const json_t *row, bool is_plain)
{
	double capacity = json_number_at(row, "capacity");

	(void)is_plain;
	if (json_bool_at(row, "paused"))
		buf_puts(b, "paused");
	else if (capacity > 0 && json_number_at(row, "size") >= capacity)
		buf_puts(b, "FULL");
	else if (sum(json_at(row, "ready")) > 0 && json_at(row, "consumers") &&
		 json_number_at(row, "consumers") == 0)
		buf_puts(b, "NO CONSUMERS");
	else
		buf_puts(b, "ok");
}

void
out_queues(const struct ctl *ctl, const json_t *rows)
{
	static const struct column columns[] = {
		{ "QUEUE", "agent_id", show_agent, false },
		{ "READY", "ready", show_ready, true },
		{ "DELAYED", "delayed", NULL, true },
		{ "RESERVED", "reserved", NULL, true },
		{ "DEAD", "dead", NULL, true },
		{ "OLDEST", "oldest_age", show_age, true },
		{ "CONSUMERS", "consumers", NULL, true },
		{ "STATE", "", show_state, false },
	};

	out_rows(ctl, rows, columns, COUNT_OF(columns));
}

int
queue_ls(struct ctl *ctl, char **args, int n)
{
	json_t *rows = ctl_pages(ctl, "list_queues", "queues", NULL, n ? args[0] : NULL);

	if (!rows)
		return ctl->status;
	out_queues(ctl, rows);
	json_decref(rows);
	return EX_OK;
}

/* The statistics of one queue; NULL on failure (said already). */
static json_t *
stats(struct ctl *ctl, const struct name *queue)
{
	json_t *s = ctl_call(ctl, "queue_stats", ctl_params(queue), 0);

	if (!s || json_is_object(s))
		return s;
	json_decref(s);
	ctl->status = ctl_unexpected("queue_stats");
	return NULL;
}

int
queue_show(struct ctl *ctl, char **args, int n)
{
	static const struct column columns[] = {
		{ "queue", "agent_id", show_agent, false },
		{ "state", "", show_state, false },
		{ "ready", "ready", show_ready, false },
		{ "  high", "ready.9", NULL, false },
		{ "  normal", "ready.5", NULL, false },
		{ "  low", "ready.1", NULL, false },
		{ "delayed", "delayed", NULL, false },
		{ "reserved", "reserved", NULL, false },
		{ "dead", "dead", NULL, false },
		{ "size", "size", NULL, false },
		{ "capacity", "capacity", NULL, false },
		{ "bytes", "bytes", NULL, false },
		{ "oldest", "oldest_age", show_age, false },
		{ "consumers", "consumers", NULL, false },
		{ "paused", "paused", NULL, false },
	};
	struct name queue;
	json_t *s;
	int status = ctl_name(&queue, args[0]);

	(void)n;
	if (status)
		return status;
	s = stats(ctl, &queue);
	if (!s)
		return ctl->status;
	out_object(ctl, s, columns, COUNT_OF(columns));
	json_decref(s);
	return EX_OK;
}

int
queue_purge(struct ctl *ctl, char **args, int n)
{
	struct name queue;
	json_t *s, *result, *done;
	double there;
	int status = ctl_name(&queue, args[0]);

	(void)n;
	if (status)
		return status;
	s = stats(ctl, &queue);
	if (!s)
		return ctl->status;
	there = sum(json_at(s, "ready")) + json_number_at(s, "delayed");
	json_decref(s);
	if (GIVEN(ctl, dry_run)) {
		done = json_pack("{s:s, s:I, s:b}", "queue", args[0], "removed",
				 (json_int_t)there, "dry_run", 1);
		out_done(ctl, done, "would remove %.0f message%s of %s", there, PLURAL(there),
			 args[0]);
		json_decref(done);
		return EX_OK;
	}
	status = ctl_confirm(ctl, "remove %.0f ready and delayed message%s of %s", there,
			     PLURAL(there), args[0]);
	if (status)
		return status;
	result = ctl_call(ctl, "purge", ctl_params(&queue), 0);
	if (!result)
		return ctl->status;
	done = json_pack("{s:s, s:O}", "queue", args[0], "removed", result);
	out_done(ctl, done, "removed %.0f message%s of %s", json_number_value(result),
		 PLURAL(json_number_value(result)), args[0]);
	json_decref(done);
	json_decref(result);
	return EX_OK;
}

/* Pause a queue, or (false) resume it. */
static int
set_paused(struct ctl *ctl, const char *arg, bool pause)
{
	const char *verb = pause ? "pause" : "resume", *state = pause ? "paused" : "resumed";
	struct name queue;
	json_t *answer, *done;
	bool changes;
	int status = ctl_name(&queue, arg);

	if (status)
		return status;
	if (GIVEN(ctl, dry_run)) {
		answer = stats(ctl, &queue);
		if (!answer)
			return ctl->status;
		changes = json_bool_at(answer, "paused") != pause;
	} else {
		answer = ctl_call(ctl, pause ? "pause_queue" : "resume_queue",
				  ctl_params(&queue), 0);
		if (!answer)
			return ctl->status;
		changes = json_is_true(answer);
	}
	json_decref(answer);
	done = json_pack("{s:s, s:b, s:b}", "queue", arg, "paused", pause, "changed", changes);
	if (GIVEN(ctl, dry_run))
		json_object_set_new(done, "dry_run", json_true());
	if (!changes)
		out_done(ctl, done, "%s is %s", arg, pause ? "paused already" : "not paused");
	else if (GIVEN(ctl, dry_run))
		out_done(ctl, done, "would %s %s", verb, arg);
	else
		out_done(ctl, done, "%s %s", state, arg);
	json_decref(done);
	return EX_OK;
}

int
queue_pause(struct ctl *ctl, char **args, int n)
{
	(void)n;
	return set_paused(ctl, args[0], true);
}

int
queue_resume(struct ctl *ctl, char **args, int n)
{
	(void)n;
	return set_paused(ctl, args[0], false);
}

/* --- settings ---------------------------------------------------------------- */

/* Pack one KEY=VALUE; a KEY= takes the setting back. EX_OK or EX_USAGE. */
static int
setting_pack(struct coord_params *p, const char *pair)
{
	static const struct {
		const char *key;
		enum { WHOLE, TIME, FACTOR } kind;
	} settings[] = {
		{ "queue_size", WHOLE },  { "retry_attempts", WHOLE },
		{ "backoff_base", TIME }, { "backoff_factor", FACTOR },
		{ "backoff_max", TIME },  { "backoff_jitter", FACTOR },
	};
	const char *eq = strchr(pair, '='), *value = eq ? eq + 1 : "";
	size_t i = 0;
	double seconds;
	char *end;

	while (i < COUNT_OF(settings) &&
	       (!eq || strlen(settings[i].key) != (size_t)(eq - pair) ||
		strncmp(settings[i].key, pair, (size_t)(eq - pair))))
		i++;
	if (i == COUNT_OF(settings))
		return ctl_fail(EX_USAGE,
				"\"%s\" is no KEY=VALUE; see \"coordctl help queue set\"",
				pair);

	if (!*value) {
		msgpack_pack_nil(coord_param(p, settings[i].key));
	} else if (settings[i].kind == TIME) {
		if (!text_duration(value, &seconds))
			return ctl_fail(EX_USAGE, "%s: \"%s\" is no time", settings[i].key,
					value);
		coord_param_double(p, settings[i].key, seconds);
	} else if (settings[i].kind == WHOLE) {
		if (strspn(value, "0123456789") != strlen(value) || strlen(value) > 18)
			return ctl_fail(EX_USAGE, "%s: \"%s\" is no whole number",
					settings[i].key, value);
		coord_param_int(p, settings[i].key, strtoll(value, NULL, 10));
	} else {
		double factor = strtod(value, &end);

		if (*end)
			return ctl_fail(EX_USAGE, "%s: \"%s\" is no number", settings[i].key,
					value);
		coord_param_double(p, settings[i].key, factor);
	}
	return EX_OK;
}

int
queue_set(struct ctl *ctl, char **args, int n)
{
	bool is_default = GIVEN(ctl, defaults);
	struct coord_params *p;
	struct name queue;
	json_t *result;
	int status = EX_OK;

	if (!is_default && n < 1)
		return ctl_fail(EX_USAGE, "queue set needs a QUEUE, or --defaults");
	if (!is_default)
		status = ctl_name(&queue, args[0]);
	if (status)
		return status;
	p = ctl_params(is_default ? NULL : &queue);
	for (int i = is_default ? 0 : 1; i < n && !status; i++)
		status = setting_pack(p, args[i]);
	if (status) {
		coord_params_free(p);
		return status;
	}
	result = ctl_call(ctl, "configure", p, 0);
	if (!result)
		return ctl->status;
	if (json_is_object(result))
		out_members(ctl, result);
	else
		status = ctl_unexpected("configure");
	json_decref(result);
	return status;
}
