/* coordctl agent: who is registered, and who of them lives. (agent watch: tail.c) */
#include <stdlib.h>
#include <string.h>

#include "ctl/ctl.h"

static void
show_state(struct buf *b, const json_t *value, bool is_plain)
{
	(void)is_plain;
	buf_puts(b, json_is_true(value) ? "alive" : "DEAD");
}

int
agent_ls(struct ctl *ctl, char **args, int n)
{
	static const struct column columns[] = {
		{ "AGENT", "agent_id", show_agent, false },
		{ "NAME", "name", NULL, false },
		{ "STATE", "alive", show_state, false },
		{ "BEAT", "heartbeat_age", show_age, true },
		{ "TTL", "ttl", show_age, true },
		{ "STATUS", "status", show_short_json, false },
		{ "CAPABILITIES", "capabilities", show_short_json, false },
	};
	json_t *rows = ctl_list(ctl, "list_registered", "agent_id", n ? args[0] : NULL,
				ctl_limit(ctl), NULL, NULL);

	if (!rows)
		return ctl->status;
	out_rows(ctl, rows, columns, COUNT_OF(columns));
	json_decref(rows);
	return EX_OK;
}

/* EX_OK and the agent (the caller's), or an exit code (said already). */
static int
get(struct ctl *ctl, const char *text, struct name *agent, json_t **info)
{
	int status = ctl_name(agent, text);

	if (status)
		return status;
	*info = ctl_call(ctl, "get_agent", ctl_params(agent), 0);
	if (!*info)
		return ctl->status;
	if (json_is_object(*info))
		return EX_OK;
	status = json_is_null(*info) ? ctl_fail(EXIT_NOT_FOUND, "%s is not registered", text)
				     : ctl_unexpected("get_agent");
	json_decref(*info);
	return status;
}

int
agent_show(struct ctl *ctl, char **args, int n)
{
	static const struct column columns[] = {
		{ "agent", "agent_id", show_agent, false },
		{ "name", "name", NULL, false },
		{ "state", "alive", show_state, false },
		{ "incarnation", "incarnation", NULL, false },
		{ "last heartbeat", "last_heartbeat", show_time, false },
		{ "heartbeat age", "heartbeat_age", show_age, false },
		{ "ttl", "ttl", show_age, false },
		{ "status", "status", show_json, false },
		{ "capabilities", "capabilities", show_json, false },
		{ "metadata", "metadata", show_json, false },
	};
	struct name agent;
	json_t *info;
	int status = get(ctl, args[0], &agent, &info);

	(void)n;
	if (status)
		return status;
	out_object(ctl, info, columns, COUNT_OF(columns));
	json_decref(info);
	return EX_OK;
}

int
agent_rm(struct ctl *ctl, char **args, int n)
{
	struct name agent;
	json_t *info, *answer, *done;
	int status = get(ctl, args[0], &agent, &info);

	(void)n;
	if (status)
		return status;
	json_decref(info);
	if (GIVEN(ctl, dry_run)) {
		done = json_pack("{s:s, s:b, s:b}", "agent", args[0], "removed", 1, "dry_run",
				 1);
		out_done(ctl, done, "would deregister %s", args[0]);
		json_decref(done);
		return EX_OK;
	}
	status = ctl_confirm(ctl, "deregister %s", args[0]);
	if (status)
		return status;
	answer = ctl_call(ctl, "deregister", ctl_params(&agent), 0);
	if (!answer)
		return ctl->status;
	if (json_is_true(answer)) {
		done = json_pack("{s:s, s:b}", "agent", args[0], "removed", 1);
		out_done(ctl, done, "deregistered %s", args[0]);
		json_decref(done);
	} else {
		status = ctl_fail(EXIT_NOT_FOUND, "%s is not registered", args[0]);
	}
	json_decref(answer);
	return status;
}
