/* adopt: what is told, while it runs and at its end. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "ctl/adopt.h"

enum { SHOWN = 20, MEMBER_SHOWN = 60 };

static const char *const problem_names[PROBLEMS] = { "uncertain", "damaged", "key", "note",
						     "orphan" };

double
adopt_now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static uint64_t
shown(const struct adopt *a)
{
	return GIVEN(a->ctl, limit) ? a->ctl->opt[OPT_limit].count : SHOWN;
}

/* Bytes of any kind as text that JSON and a terminal take. */
static json_t *
text_json(struct str s, size_t most)
{
	struct str head = { s.p, s.n < most ? s.n : most };
	struct buf b = { 0 };
	json_t *v;

	while (head.n && head.n < s.n && (head.p[head.n] & 0xc0) == 0x80)
		head.n--; /* no half characters */
	text_escape(&b, head);
	if (head.n < s.n)
		buf_puts(&b, "...");
	v = json_stringn(b.len ? b.data : "", b.len);
	buf_done(&b);
	return v;
}

void
adopt_problem(struct adopt *a, enum problem kind, struct str key, struct str member,
	      const char *fmt, ...)
{
	char text[512];
	va_list ap;

	a->n_problems[kind]++;
	if (json_array_size(a->problems[kind]) >= shown(a))
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	json_array_append_new(a->problems[kind],
			      json_pack("{s:s, s:o, s:o, s:o}", "kind", problem_names[kind],
					"key", text_json(key, 300), "member",
					text_json(member, MEMBER_SHOWN), "reason",
					text_json(str_of(text), sizeof(text))));
}

void
adopt_progress(struct adopt *a, bool is_end)
{
	double now = adopt_now_s();
	bool is_tty = isatty(STDERR_FILENO);
	uint64_t copied = 0;

	if (GIVEN(a->ctl, quiet) || now < a->shown_s + (is_tty ? 0.5 : 10) ||
	    (is_end && a->shown_s <= a->began_s))
		return;
	a->shown_s = now;
	for (size_t i = 0; i < a->n_queues; i++)
		copied += a->queues[i]->copied;
	fprintf(stderr, "%scoordctl: %.0f members read, %.0f messages copied, %.0f s%s",
		is_tty ? "\r\033[K" : "", (double)a->read, (double)copied, now - a->began_s,
		is_tty && !is_end ? "" : "\n");
}

/* --- the report ------------------------------------------------------------------ */

static json_t *
queue_json(const struct adopt *a, const struct old_queue *q)
{
	struct agent_id agent;
	struct buf name = { 0 };
	json_t *row;

	if (adopt_agent(a, q->name, &agent))
		text_name(&name, agent.type, agent.instance);
	else
		buf_put(&name, q->name.p, q->name.n);
	row = json_pack("{s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
			"queue", text_json(buf_str(&name), 1024), "ready", (json_int_t)q->ready,
			"delayed", (json_int_t)q->delayed, "reserved", (json_int_t)q->reserved,
			"dead", (json_int_t)q->dead, "copied", (json_int_t)q->copied, "before",
			(json_int_t)q->before, "left", (json_int_t)q->left, "twice",
			(json_int_t)q->twice, "damaged", (json_int_t)q->damaged, "uncertain",
			(json_int_t)q->uncertain, "orphans", (json_int_t)q->orphans, "removed",
			(json_int_t)q->removed);
	buf_done(&name);
	return row;
}

/* The worst come first, and no more than --limit of all kinds together. */
static json_t *
problems_json(const struct adopt *a)
{
	json_t *all = json_array(), *row;
	size_t i;

	for (int kind = 0; kind < PROBLEMS; kind++) {
		json_array_foreach(a->problems[kind], i, row)
		{
			if (json_array_size(all) < shown(a))
				json_array_append(all, row);
		}
	}
	return all;
}

static json_t *
totals_json(const json_t *queues)
{
	json_t *totals = json_object(), *row, *value;
	const char *key;
	size_t i;

	json_array_foreach(queues, i, row)
	{
		json_object_foreach(row, key, value)
		{
			if (json_is_integer(value))
				json_object_set_new(
					totals, key,
					json_integer(json_integer_value(value) +
						     json_integer_value(
							     json_object_get(totals, key))));
		}
	}
	return totals;
}

static void
show_types(struct buf *b, const json_t *value, bool is_plain)
{
	json_t *type;
	size_t i;

	(void)is_plain;
	json_array_foreach(value, i, type)
	{
		buf_printf(b, "%s%s", i ? " " : "", json_str_at(type, "").p);
	}
}

static void
say(const struct adopt *a, const json_t *report)
{
	static const struct column problems[] = {
		{ "WHAT", "kind", NULL, false },
		{ "KEY", "key", NULL, false },
		{ "MEMBER", "member", NULL, false },
		{ "REASON", "reason", NULL, false },
	};
	static const struct column subs[] = {
		{ "SUBSCRIBER", "name", NULL, false },
		{ "TYPES", "message_types", show_types, false },
	};
	static const struct column breakers[] = {
		{ "BREAKER", "name", NULL, false },
		{ "STATE", "state", NULL, false },
		{ "SINCE", "since", NULL, false },
		{ "TRIPPED FOR", "tripped_for", show_age, true },
	};
	json_t *rows = json_object_get(report, "problems");
	uint64_t all = 0;

	if (json_array_size(a->subs)) {
		fputc('\n', stdout);
		out_rows(a->ctl, a->subs, subs, COUNT_OF(subs));
	}
	if (json_array_size(a->breakers)) {
		fputc('\n', stdout);
		out_rows(a->ctl, a->breakers, breakers, COUNT_OF(breakers));
	}
	if (json_array_size(rows)) {
		fputc('\n', stdout);
		out_rows(a->ctl, rows, problems, COUNT_OF(problems));
	}
	for (int kind = 0; kind < PROBLEMS; kind++)
		all += a->n_problems[kind];
	fputc('\n', stdout);
	if (all > json_array_size(rows))
		printf("%.0f more of these are not shown: --limit\n",
		       (double)(all - json_array_size(rows)));
	printf("%s%.0f copied, %.0f copied before, %.0f left, %.0f damaged, %.0f orphans, %.0f "
	       "uncertain",
	       a->is_dry ? "trial, nothing was written: " : "",
	       json_number_at(report, "totals.copied"), json_number_at(report, "totals.before"),
	       json_number_at(report, "totals.left"), json_number_at(report, "totals.damaged"),
	       json_number_at(report, "totals.orphans"),
	       json_number_at(report, "totals.uncertain"));
	if (json_number_at(report, "totals.removed") > 0)
		printf(", %.0f removed from the old Redis",
		       json_number_at(report, "totals.removed"));
	putchar('\n');
	if (json_object_size(a->agents) || a->n_capabilities)
		printf("%zu agents and %.0f capabilities are not copied: agents register "
		       "themselves\n",
		       json_object_size(a->agents), (double)a->n_capabilities);
}

void
adopt_report(const struct adopt *a)
{
	static const struct column columns[] = {
		{ "QUEUE", "queue", NULL, false },
		{ "READY", "ready", NULL, true },
		{ "DELAYED", "delayed", NULL, true },
		{ "RESERVED", "reserved", NULL, true },
		{ "DEAD", "dead", NULL, true },
		{ "COPIED", "copied", NULL, true },
		{ "BEFORE", "before", NULL, true },
		{ "LEFT", "left", NULL, true },
		{ "TWICE", "twice", NULL, true },
		{ "DAMAGED", "damaged", NULL, true },
		{ "UNCERTAIN", "uncertain", NULL, true },
		{ "ORPHANS", "orphans", NULL, true },
	};
	json_t *queues = json_array(), *counts = json_object(), *report;

	for (size_t i = 0; i < a->n_queues; i++)
		json_array_append_new(queues, queue_json(a, a->queues[i]));
	for (int kind = 0; kind < PROBLEMS; kind++)
		json_object_set_new(counts, problem_names[kind],
				    json_integer((json_int_t)a->n_problems[kind]));
	report = json_pack("{s:s%, s:s, s:b, s:o, s:o, s:O, s:O, s:i, s:I, s:I, s:o, s:o}",
			   "prefix", a->prefix.p, a->prefix.n, "namespace", a->namespace,
			   "dry_run", a->is_dry, "totals", totals_json(queues), "queues",
			   queues, "subscriptions", a->subs, "breakers", a->breakers, "agents",
			   (int)json_object_size(a->agents), "capabilities",
			   (json_int_t)a->n_capabilities, "other_keys", (json_int_t)a->n_others,
			   "problem_counts", counts, "problems", problems_json(a));
	if (!report)
		abort();
	if (a->ctl->output == OUT_JSON) {
		out_members(a->ctl, report);
	} else {
		out_rows(a->ctl, queues, columns, COUNT_OF(columns));
		if (a->ctl->output == OUT_TABLE && !GIVEN(a->ctl, quiet))
			say(a, report);
	}
	json_decref(report);
}
