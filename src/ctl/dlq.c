/* coordctl dlq: dead letters. */
#include <string.h>

#include "ctl/ctl.h"

#define IN_MESSAGE "queue_message.message."

int
dlq_ls(struct ctl *ctl, char **args, int n)
{
	static const struct column columns[] = {
		{ "ID", "id", NULL, false },
		{ "MESSAGE", IN_MESSAGE "message_id", NULL, false },
		{ "REASON", "reason", NULL, false },
		{ "FAILED", "queue_message.delivery_attempts", NULL, true },
		{ "DEAD SINCE", "dead_at", show_time, false },
		{ "LAST ERROR", "queue_message.last_error", NULL, false },
	};
	struct name queue;
	json_t *rows;
	int status = ctl_name(&queue, args[0]);

	(void)n;
	if (status)
		return status;
	rows = ctl_pages(ctl, "dlq_list", "dead", &queue, NULL);
	if (!rows)
		return ctl->status;
	out_rows(ctl, rows, columns, COUNT_OF(columns));
	json_decref(rows);
	return EX_OK;
}

int
dlq_show(struct ctl *ctl, char **args, int n)
{
	static const struct column columns[] = {
		{ "id", "id", NULL, false },
		{ "reason", "reason", NULL, false },
		{ "dead since", "dead_at", show_time, false },
		{ "message", IN_MESSAGE "message_id", NULL, false },
		{ "type", IN_MESSAGE "message_type", NULL, false },
		{ "priority", "queue_message.priority", show_priority, false },
		{ "from", IN_MESSAGE "sender", show_agent, false },
		{ "enqueued", "queue_message.enqueued_at", show_time, false },
		{ "failed", "queue_message.delivery_attempts", NULL, false },
		{ "last error", "queue_message.last_error", NULL, false },
		{ "payload", IN_MESSAGE "payload", show_json, false },
	};
	struct name queue;
	json_t *rows, *row;
	int status = ctl_name(&queue, args[0]);
	size_t i;

	(void)n;
	if (status)
		return status;
	rows = ctl_pages(ctl, "dlq_list", "dead", &queue, NULL);
	if (!rows)
		return ctl->status;
	status = EXIT_NOT_FOUND;
	json_array_foreach(rows, i, row)
	{
		if (!str_eq(json_str_at(row, "id"), str_of(args[1])) &&
		    !str_eq(json_str_at(row, IN_MESSAGE "message_id"), str_of(args[1])))
			continue;
		status = EX_OK;
		out_object(ctl, row, columns, COUNT_OF(columns));
		break;
	}
	if (status)
		ctl_fail(status, "%s has no dead letter %s", args[0], args[1]);
	json_decref(rows);
	return status;
}

/* How many dead letters a redrive or purge would reach at most; negative on failure. */
static double
reach(struct ctl *ctl, const struct name *queue, int ids)
{
	double there = ids;

	if (!ids) {
		json_t *s = ctl_call(ctl, "queue_stats", ctl_params(queue), 0);

		if (!s)
			return -1;
		there = json_number_at(s, "dead");
		json_decref(s);
	}
	if (GIVEN(ctl, limit) && (double)ctl->opt[OPT_limit].count < there)
		there = (double)ctl->opt[OPT_limit].count;
	return there;
}

/* dlq_redrive or dlq_purge: `verb` and `did` are its words for a person. */
static int
move(struct ctl *ctl, char **args, int n, const char *method, const char *verb, const char *did)
{
	struct name queue;
	struct coord_params *p;
	json_t *result, *done;
	double there;
	int status = ctl_name(&queue, args[0]);

	if (status)
		return status;
	there = reach(ctl, &queue, n - 1);
	if (there < 0)
		return ctl->status;
	if (GIVEN(ctl, dry_run)) {
		done = json_pack("{s:s, s:I, s:b}", "queue", args[0], did, (json_int_t)there,
				 "dry_run", 1);
		out_done(ctl, done, "would %s %.0f dead letter%s of %s", verb, there,
			 PLURAL(there), args[0]);
		json_decref(done);
		return EX_OK;
	}
	status = ctl_confirm(ctl, "%s %.0f dead letter%s of %s", verb, there, PLURAL(there),
			     args[0]);
	if (status)
		return status;

	p = ctl_params(&queue);
	if (n > 1) {
		msgpack_packer *pk = coord_param(p, "ids");

		msgpack_pack_array(pk, (size_t)n - 1);
		for (int i = 1; i < n; i++)
			coord_pack_str(pk, args[i]);
	}
	if (GIVEN(ctl, limit))
		coord_param_int(p, "limit", (int64_t)ctl->opt[OPT_limit].count);
	result = ctl_call(ctl, method, p, 0);
	if (!result)
		return ctl->status;
	if (!json_is_integer(result))
		status = ctl_unexpected(method);
	else if (n > 1 && json_integer_value(result) < n - 1)
		status = EXIT_REFUSED;
	done = json_pack("{s:s, s:O}", "queue", args[0], did, result);
	out_done(ctl, done, "%s %.0f dead letter%s of %s", did, json_number_value(result),
		 PLURAL(json_number_value(result)), args[0]);
	json_decref(done);
	json_decref(result);
	if (status == EXIT_REFUSED)
		ctl_fail(status, "not all of the ids are dead letters of %s, or it is full",
			 args[0]);
	return status;
}

int
dlq_redrive(struct ctl *ctl, char **args, int n)
{
	return move(ctl, args, n, "dlq_redrive", "redrive", "redriven");
}

int
dlq_purge(struct ctl *ctl, char **args, int n)
{
	return move(ctl, args, n, "dlq_purge", "delete", "deleted");
}
