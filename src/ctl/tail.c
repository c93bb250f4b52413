/* coordctl tail and agent watch: events as they happen, a line each, until it is interrupted. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/ctl.h"

struct tail {
	struct ctl *ctl;
	const char *type; /* of agents; NULL all */
	uint64_t left;    /* to print */
	struct coord_client *client;
	bool is_connected;
	int status;
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
on_event(void *arg, const msgpack_object *param, const struct coord_error *err)
{
	struct tail *t = arg;
	json_t *event;

	if (err) {
		t->status = ctl_refused(err);
		coord_client_break(t->client);
		return;
	}
	if (!t->left)
		return;
	event = json_from(param);
	json_object_del(event, "watch_id");
	if (!t->type || !json_at(event, "agent_id") ||
	    str_eq(json_str_at(event, "agent_id.type"), str_of(t->type))) {
		print(t->ctl, event);
		t->left--;
	}
	json_decref(event);
	if (!t->left || ferror(stdout))
		coord_client_break(t->client);
}

/* Said once for each broker that is lost, not for each attempt. */
static void
on_state(void *arg, const char *url, const struct coord_error *why)
{
	struct tail *t = arg;

	if (why && t->is_connected && !GIVEN(t->ctl, quiet))
		ctl_fail(EX_OK, "%s: %s; connecting again", url, why->message);
	t->is_connected = !why;
}

/* Print the events of `classes` (words of the protocol) until --count of them, also when the broker goes and comes back. */
static int
tail(struct ctl *ctl, const char *classes, const char *type)
{
	struct tail t = { .ctl = ctl, .type = type, .left = UINT64_MAX };
	struct coord_error err;
	int status = ctl_connect(ctl); /* one that is not there at first is told of at once */

	if (status)
		return status;
	coord_free(ctl->conn);
	ctl->conn = NULL;
	if (GIVEN(ctl, count))
		t.left = ctl->opt[OPT_count].count;
	if (ctl->output == OUT_JSON)
		ctl->output = OUT_JSONL; /* it never ends: no list of it */
	t.client = coord_client_new(NULL, ctl->server, &err);
	if (!t.client)
		return ctl_refused(&err);
	if (coord_client_set(t.client, COORD_CLIENT_NAME, "coordctl/" COORD_VERSION) ||
	    coord_client_set(t.client, COORD_NAMESPACE, TEXT(ctl, namespace)) ||
	    !coord_client_watch(t.client, classes, on_event, &t, &err))
		abort();
	coord_client_on_state(t.client, on_state, &t);
	coord_client_run(t.client, -1);
	coord_client_free(t.client);
	return t.status;
}

int
ctl_tail(struct ctl *ctl, char **args, int n)
{
	static const struct {
		const char *word, *class;
	} all[] = { { "queues", "queue" }, { "agents", "agent" }, { "breakers", "breaker" } };
	struct buf classes = { 0 };
	int status;

	for (int i = 0; i < n; i++) {
		size_t k = 0;

		while (k < COUNT_OF(all) && strcmp(args[i], all[k].word) != 0)
			k++;
		if (k == COUNT_OF(all)) {
			buf_done(&classes);
			return ctl_fail(EX_USAGE, "\"%s\" is none of queues, agents, breakers",
					args[i]);
		}
		buf_printf(&classes, "%s ", all[k].class);
	}
	buf_printf(&classes, "%s", n ? "" : "queue agent breaker");
	status = tail(ctl, classes.data, NULL);
	buf_done(&classes);
	return status;
}

int
agent_watch(struct ctl *ctl, char **args, int n)
{
	return tail(ctl, "agent", n ? args[0] : NULL);
}
