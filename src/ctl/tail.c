/* coordctl tail and agent watch: events as they happen, a line each, until it is interrupted. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/ctl.h"

struct tail {
	struct ctl *ctl;
	const char *type; /* of agents; NULL all */
	uint64_t left;    /* to print */
};

/* A line for a person: when, what, and of whom. */
static void
print_line(const json_t *event)
{
	static const char *const keys[] = { "message_id", "name", "reason" };
	struct str kind = json_str_at(event, "event");
	bool is_lost = str_eq(kind, STR("lost"));
	struct buf raw = { 0 }, out = { 0 };

	if (json_at(event, "at"))
		show_time(&raw, json_at(event, "at"), false);
	buf_puts(&raw, "  ");
	buf_put(&raw, kind.p, kind.n);
	for (size_t n = kind.n; n < strlen("agent_deregistered"); n++)
		buf_putc(&raw, ' ');
	if (json_at(event, "agent_id")) {
		buf_puts(&raw, "  ");
		show_agent(&raw, json_at(event, "agent_id"), false);
	}
	for (size_t i = 0; i < COUNT_OF(keys); i++) {
		struct str s = json_str_at(event, keys[i]);

		if (s.n)
			buf_puts(&raw, "  ");
		buf_put(&raw, s.p, s.n);
	}
	if (is_lost && json_at(event, "count"))
		buf_printf(&raw, "  %.0f events", json_number_at(event, "count"));
	else if (is_lost)
		buf_puts(&raw, "  nobody knows how many events");
	text_escape(&out, buf_str(&raw));
	buf_putc(&out, '\n');
	fwrite(out.data, 1, out.len, stdout);
	buf_done(&raw);
	buf_done(&out);
}

static void
print(struct ctl *ctl, const json_t *event)
{
	static const struct column columns[] = {
		{ "event", "event", NULL, false },
		{ "at", "at", NULL, false },
		{ "agent", "agent_id", show_agent, false },
		{ "name", "name", NULL, false },
		{ "message id", "message_id", NULL, false },
		{ "reason", "reason", NULL, false },
		{ "count", "count", NULL, true },
	};

	if (ctl->output == OUT_TABLE)
		print_line(event);
	else
		out_object(ctl, event, columns, COUNT_OF(columns));
	ctl->opt[OPT_no_header].text = ""; /* once is enough */
	fflush(stdout);
}

static void
on_notice(void *arg, const char *method, const msgpack_object *param)
{
	struct tail *t = arg;
	json_t *event;

	if (strcmp(method, "event") != 0 || !param || !t->left)
		return;
	event = json_from(param);
	json_object_del(event, "watch_id");
	if (!t->type || !json_at(event, "agent_id") ||
	    str_eq(json_str_at(event, "agent_id.type"), str_of(t->type))) {
		print(t->ctl, event);
		t->left--;
	}
	json_decref(event);
}

/* Print the events of `classes` (names of the protocol) until --count of them, or the end of the connection. */
static int
tail(struct ctl *ctl, const char *const *classes, unsigned n, const char *type)
{
	struct tail t = { .ctl = ctl, .type = type, .left = UINT64_MAX };
	struct coord_params *params;
	msgpack_packer *pk;
	json_t *begun;
	int status = ctl_connect(ctl);

	if (status)
		return status;
	if (GIVEN(ctl, count))
		t.left = ctl->opt[OPT_count].count;
	if (ctl->output == OUT_JSON)
		ctl->output = OUT_JSONL; /* it never ends: no list of it */
	coord_on_notice(ctl->conn, on_notice, &t);
	params = ctl_params(NULL);
	pk = coord_param(params, "events");
	msgpack_pack_array(pk, n);
	for (unsigned i = 0; i < n; i++)
		coord_pack_str(pk, classes[i]);
	begun = ctl_call(ctl, "watch", params, 0);
	if (!begun)
		return ctl->status;
	json_decref(begun);
	while (t.left && !coord_ended(ctl->conn) && !ferror(stdout)) {
		struct pollfd p = { .fd = coord_fd(ctl->conn), .events = POLLIN };

		if (poll(&p, 1, -1) > 0)
			coord_on_readable(ctl->conn);
	}
	return t.left && coord_ended(ctl->conn) ? ctl_refused(coord_ended(ctl->conn)) : EX_OK;
}

int
ctl_tail(struct ctl *ctl, char **args, int n)
{
	static const struct {
		const char *word, *class;
	} all[] = { { "queues", "queue" }, { "agents", "agent" }, { "breakers", "breaker" } };
	const char *classes[COUNT_OF(all)];
	unsigned found = 0;

	for (int i = 0; i < n; i++) {
		size_t k = 0;

		while (k < COUNT_OF(all) && strcmp(args[i], all[k].word) != 0)
			k++;
		if (k == COUNT_OF(all))
			return ctl_fail(EX_USAGE, "\"%s\" is none of queues, agents, breakers",
					args[i]);
		classes[found++] = all[k].class;
	}
	for (; !n && found < COUNT_OF(all); found++)
		classes[found] = all[found].class;
	return tail(ctl, classes, found, NULL);
}

int
agent_watch(struct ctl *ctl, char **args, int n)
{
	static const char *const agent = "agent";

	return tail(ctl, &agent, 1, n ? args[0] : NULL);
}
