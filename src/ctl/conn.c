/* coordctl conn, audit and namespaces: who is connected, who did what, and which namespaces there are. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ctl/ctl.h"

enum { AUDIT_SHOWN = 50 };

static int
show(struct ctl *ctl, json_t *take_rows, const struct column *columns, size_t n)
{
	if (!take_rows)
		return ctl->status;
	out_rows(ctl, take_rows, columns, n);
	json_decref(take_rows);
	return EX_OK;
}

/* --- conn -------------------------------------------------------------------- */

static void
show_bytes(struct buf *b, const json_t *value, bool is_plain)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	double n = json_number_value(value);
	unsigned i = 0;

	if (is_plain) {
		json_text(b, value, false);
		return;
	}
	for (; n >= 1024 && i + 1 < COUNT_OF(units); i++)
		n /= 1024;
	buf_printf(b, i ? "%.1f %s" : "%.0f %s", n, units[i]);
}

int
conn_ls(struct ctl *ctl, char **args, int n)
{
	static const struct column columns[] = {
		{ "CONN", "id", NULL, true },
		{ "PEER", "peer", NULL, false },
		{ "CLIENT", "client", NULL, false },
		{ "NAMESPACE", "namespace", NULL, false },
		{ "SINCE", "since", show_time, false },
		{ "IDLE", "idle", show_age, true },
		{ "REQUESTS", "requests", NULL, true },
		{ "IN FLIGHT", "in_flight", NULL, true },
		{ "PARKED", "parked", NULL, true },
		{ "CONSUMERS", "consumers", NULL, true },
		{ "BUFFERED", "buffered", show_bytes, true },
	};

	(void)args;
	(void)n;
	return show(ctl,
		    ctl_list(ctl, "list_connections", "id", NULL, ctl_limit(ctl), NULL, NULL),
		    columns, COUNT_OF(columns));
}

/* The number of a connection. EX_OK or EX_USAGE (said already). */
static int
read_id(const char *text, uint64_t *id)
{
	char *end;

	*id = strtoull(text, &end, 10);
	if (*text >= '0' && *text <= '9' && !*end && *id < INT64_MAX)
		return EX_OK;
	return ctl_fail(EX_USAGE,
			"\"%s\" is no number of a connection; \"coordctl conn ls\" has them",
			text);
}

/* EX_OK and the connection (the caller's), or an exit code (said already). */
static int
get(struct ctl *ctl, const char *text, uint64_t *id, json_t **row)
{
	struct coord_params *p;
	int status = read_id(text, id);
	json_t *page;

	if (status)
		return status;
	p = ctl_params(NULL);
	coord_param_int(p, "limit", 1);
	if (*id)
		coord_param_int(p, "after", (int64_t)*id - 1);
	page = ctl_call(ctl, "list_connections", p, 0);
	if (!page)
		return ctl->status;
	*row = json_incref(json_array_get(page, 0));
	if (!json_is_array(page))
		status = ctl_unexpected("list_connections");
	else if (json_number_at(*row, "id") != (double)*id)
		status = ctl_fail(EXIT_NOT_FOUND, "there is no connection %s", text);
	json_decref(page);
	if (status)
		json_decref(*row);
	return status;
}

int
conn_show(struct ctl *ctl, char **args, int n)
{
	static const struct column columns[] = {
		{ "connection", "id", NULL, false },
		{ "peer", "peer", NULL, false },
		{ "listener", "listener", NULL, false },
		{ "uid", "uid", NULL, false },
		{ "client", "client", NULL, false },
		{ "namespace", "namespace", NULL, false },
		{ "role", "role", NULL, false },
		{ "since", "since", show_time, false },
		{ "idle", "idle", show_age, false },
		{ "requests", "requests", NULL, false },
		{ "in flight", "in_flight", NULL, false },
		{ "parked", "parked", NULL, false },
		{ "consumers", "consumers", NULL, false },
		{ "watches", "watches", NULL, false },
		{ "bytes in", "bytes_in", show_bytes, false },
		{ "bytes out", "bytes_out", show_bytes, false },
		{ "buffered", "buffered", show_bytes, false },
	};
	json_t *row = NULL;
	uint64_t id = 0;
	int status = get(ctl, args[0], &id, &row);

	(void)n;
	if (status)
		return status;
	out_object(ctl, row, columns, COUNT_OF(columns));
	json_decref(row);
	return EX_OK;
}

int
conn_kill(struct ctl *ctl, char **args, int n)
{
	json_t *row = NULL, *answer, *done;
	struct coord_params *p;
	struct str peer;
	uint64_t id = 0;
	int status = get(ctl, args[0], &id, &row);

	(void)n;
	if (status)
		return status;
	peer = json_str_at(row, "peer");
	done = json_pack("{s:I, s:s%, s:b}", "id", (json_int_t)id, "peer", peer.p, peer.n,
			 "closed", 1);
	if (GIVEN(ctl, dry_run)) {
		json_object_set_new(done, "dry_run", json_true());
		out_done(ctl, done, "would close connection %s of %.*s", args[0], (int)peer.n,
			 peer.p);
	} else {
		status = ctl_confirm(ctl, "close connection %s of %.*s", args[0], (int)peer.n,
				     peer.p);
	}
	if (!status && !GIVEN(ctl, dry_run)) {
		p = ctl_params(NULL);
		coord_param_int(p, "id", (int64_t)id);
		answer = ctl_call(ctl, "close_connection", p, 0);
		if (!answer)
			status = ctl->status;
		else if (json_is_true(answer))
			out_done(ctl, done, "closed connection %s of %.*s", args[0],
				 (int)peer.n, peer.p);
		else
			status = ctl_fail(EXIT_NOT_FOUND, "there is no connection %s", args[0]);
		json_decref(answer);
	}
	json_decref(done);
	json_decref(row);
	return status;
}

/* --- namespaces -------------------------------------------------------------- */

int
ctl_namespaces(struct ctl *ctl, char **args, int n)
{
	static const struct column columns[] = {
		{ "NAMESPACE", "namespace", NULL, false },
		{ "QUEUES", "queues", NULL, true },
		{ "AGENTS", "agents", NULL, true },
		{ "BREAKERS", "breakers", NULL, true },
	};

	(void)args;
	(void)n;
	return show(
		ctl,
		ctl_list(ctl, "list_namespaces", "namespace", NULL, ctl_limit(ctl), NULL, NULL),
		columns, COUNT_OF(columns));
}

/* --- audit ------------------------------------------------------------------- */

/* "root" is known by its number everywhere; other names only where they were given. */
static void
show_who(struct buf *b, const json_t *row, bool is_plain)
{
	struct str client = json_str_at(row, "client"), peer = json_str_at(row, "peer");

	(void)is_plain;
	buf_put(b, peer.p, peer.n);
	if (client.n) {
		buf_puts(b, " (");
		buf_put(b, client.p, client.n);
		buf_putc(b, ')');
	}
}

struct looked_for {
	char from
		[32]; /* "": no matter when. Times are ISO 8601 in UTC, so their texts are in their order */
	const char *who; /* NULL: no matter who */
};

static enum choice
choose(const json_t *row, const void *arg)
{
	const struct looked_for *wanted = arg;
	struct str at = json_str_at(row, "at");
	struct buf who = { 0 };
	bool is_them;

	if (*wanted->from && (at.n < 19 || strncmp(at.p, wanted->from, 19) < 0))
		return ROW_LAST;
	show_who(&who, row, true);
	is_them = !wanted->who || memmem(who.data, who.len, wanted->who, strlen(wanted->who));
	buf_done(&who);
	return is_them ? ROW_TAKEN : ROW_LEFT_OUT;
}

int
ctl_audit(struct ctl *ctl, char **args, int n)
{
	static const struct column columns[] = {
		{ "AT", "at", show_time, false },          { "METHOD", "method", NULL, false },
		{ "TARGET", "target", NULL, false },       { "RESULT", "result", NULL, false },
		{ "NAMESPACE", "namespace", NULL, false }, { "WHO", "", show_who, false },
	};
	struct looked_for wanted = { .who = TEXT(ctl, who) };
	uint64_t most = GIVEN(ctl, count)   ? ctl->opt[OPT_count].count
			: GIVEN(ctl, since) ? UINT64_MAX
					    : AUDIT_SHOWN;
	time_t from_s = time(NULL) - (time_t)ctl->opt[OPT_since].seconds;
	struct tm tm;

	(void)args;
	(void)n;
	gmtime_r(&from_s, &tm);
	if (GIVEN(ctl, since))
		strftime(wanted.from, sizeof(wanted.from), "%Y-%m-%dT%H:%M:%S", &tm);
	return show(ctl, ctl_list(ctl, "audit", "id", NULL, most, choose, &wanted), columns,
		    COUNT_OF(columns));
}
