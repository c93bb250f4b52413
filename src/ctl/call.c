/* Calls to the broker, and how what goes wrong with them becomes an exit status. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/ctl.h"

enum { PAGE = 1000 }; /* rows asked for at once */

static int
exit_code(const struct coord_error *err)
{
	static const struct {
		const char *code;
		int status;
	} refusals[] = {
		{ "unavailable", EX_TEMPFAIL },    { "overloaded", EX_TEMPFAIL },
		{ "shutting_down", EX_TEMPFAIL },  { "unauthenticated", EX_NOPERM },
		{ "forbidden", EX_NOPERM },        { "not_found", EXIT_NOT_FOUND },
		{ "unknown_method", EX_PROTOCOL }, { "protocol_error", EX_PROTOCOL },
		{ "internal", EX_SOFTWARE },
	};

	switch (err->status) {
	case COORD_MEMORY:
		return EX_OSERR;
	case COORD_USAGE:
		return EX_USAGE;
	case COORD_CONNECT:
		return EX_UNAVAILABLE;
	case COORD_TIMEOUT:
	case COORD_CLOSED:
		return EX_TEMPFAIL;
	case COORD_PROTOCOL:
		return EX_PROTOCOL;
	default:
		break;
	}
	for (size_t i = 0; i < COUNT_OF(refusals); i++) {
		if (!strcmp(err->code, refusals[i].code))
			return refusals[i].status;
	}
	return EXIT_REFUSED;
}

int
ctl_refused(const struct coord_error *err)
{
	if (err->status == COORD_REFUSED)
		return ctl_fail(exit_code(err), "%s: %s", err->code, err->message);
	return ctl_fail(exit_code(err), "%s", err->message);
}

/* The exit code for it; said, unless nobody wants that. */
static int
failed(struct ctl *ctl, const struct coord_error *err)
{
	ctl->why = *err;
	return ctl->is_silent ? exit_code(err) : ctl_refused(err);
}

/* The peer is not what we took it for. */
static int
no_coordd(struct ctl *ctl, const char *what)
{
	struct coord_error err = { .status = COORD_PROTOCOL };

	snprintf(err.message, sizeof(err.message), "%s %s", ctl->server, what);
	return failed(ctl, &err);
}

static int
timeout_ms(const struct ctl *ctl, double wait_s)
{
	double s = (GIVEN(ctl, timeout) ? ctl->opt[OPT_timeout].seconds : 5) + wait_s;

	return s < 86400 ? (int)(s * 1000) : 86400000;
}

/* Connect to the first of the addresses, separated by commas or blanks, that can be reached. */
static struct coord *
connect_any(const struct ctl *ctl, struct coord_error *err)
{
	static const char blanks[] = ", \t\n";
	struct coord *conn = NULL;

	*err = (struct coord_error){ .status = COORD_USAGE, .message = "there is no URL" };
	for (const char *at = ctl->server + strspn(ctl->server, blanks); *at && !conn;
	     at += strspn(at, blanks)) {
		size_t n = strcspn(at, blanks);
		char *url = strndup(at, n);

		if (!url)
			abort();
		conn = coord_connect(url, timeout_ms(ctl, 0), err);
		free(url);
		if (!conn && err->status == COORD_USAGE)
			break;
		at += n;
	}
	return conn;
}

int
ctl_connect(struct ctl *ctl)
{
	struct coord_params *params;
	struct coord_error err;
	json_t *hello;
	int status = EX_OK;

	ctl->conn = connect_any(ctl, &err);
	if (!ctl->conn)
		return failed(ctl, &err);

	params = ctl_params(NULL);
	coord_param_str(params, "client", "coordctl/" COORD_VERSION);
	if (GIVEN(ctl, namespace))
		coord_param_str(params, "namespace", TEXT(ctl, namespace));
	hello = ctl_call(ctl, "hello", params, 0);
	if (!hello)
		return ctl->status;
	if (!str_eq(json_str_at(hello, "server"), STR("coordd")))
		status = no_coordd(ctl, "is no coordd");
	else if (json_number_at(hello, "protocol") != 1)
		status = no_coordd(ctl, "speaks another version of the protocol than 1");
	json_decref(hello);
	return status;
}

struct coord_params *
ctl_params(const struct name *agent)
{
	struct coord_params *p = coord_params_new();

	if (!p)
		abort();
	if (agent)
		coord_param_agent(p, "agent", agent->type, agent->instance);
	return p;
}

json_t *
ctl_call(struct ctl *ctl, const char *method, struct coord_params *take_params, double wait_s)
{
	struct coord_reply *reply;
	struct coord_error err;
	json_t *result = NULL;

	ctl->status = ctl->conn ? EX_OK : ctl_connect(ctl);
	if (ctl->status) {
		/* said already */
	} else if (coord_call(ctl->conn, method, take_params, timeout_ms(ctl, wait_s), &reply,
			      &err)) {
		ctl->status = failed(ctl, &err);
	} else {
		result = json_from(coord_reply_result(reply));
		coord_reply_free(reply);
	}
	coord_params_free(take_params);
	return result;
}

uint64_t
ctl_limit(const struct ctl *ctl)
{
	return GIVEN(ctl, limit) ? ctl->opt[OPT_limit].count : UINT64_MAX;
}

json_t *
ctl_pages(struct ctl *ctl, const char *method, const char *key, const struct name *agent,
	  const char *type)
{
	uint64_t left = ctl_limit(ctl);
	json_t *rows = json_array(), *page = NULL;

	for (;;) {
		struct coord_params *p = ctl_params(agent);
		struct str after = json_str_at(page, "after");
		json_t *list;

		if (type)
			coord_param_str(p, "type", type);
		coord_param_int(p, "limit", left < PAGE ? (int64_t)left : PAGE);
		if (after.n) {
			msgpack_packer *pk = coord_param(p, "after");

			msgpack_pack_str(pk, after.n);
			msgpack_pack_str_body(pk, after.p, after.n);
		}
		json_decref(page);
		page = ctl_call(ctl, method, p, 0);
		list = page ? json_object_get(page, key) : NULL;
		if (page && !json_is_array(list))
			ctl->status = ctl_unexpected(method);
		if (!json_is_array(list))
			break;
		json_array_extend(rows, list);
		left -= json_array_size(list) < left ? json_array_size(list) : left;
		if (!left || !json_array_size(list) || !json_str_at(page, "after").n) {
			json_decref(page);
			return rows;
		}
	}
	json_decref(page);
	json_decref(rows);
	return NULL;
}

json_t *
ctl_list(struct ctl *ctl, const char *method, const char *key, const char *type, uint64_t most,
	 choose_fn *choose, const void *arg)
{
	json_t *rows = json_array(), *page, *row, *after = NULL;
	enum choice choice = ROW_TAKEN;
	size_t n, i;

	do {
		uint64_t left = most - json_array_size(rows);
		struct coord_params *p = ctl_params(NULL);

		if (type)
			coord_param_str(p, "type", type);
		coord_param_int(p, "limit", left < PAGE && !choose ? (int64_t)left : PAGE);
		if (after)
			json_pack_into(coord_param(p, "after"), after);
		page = ctl_call(ctl, method, p, 0);
		if (page && !json_is_array(page))
			ctl->status = ctl_unexpected(method);
		n = json_array_size(page);
		for (i = 0; i < n && choice != ROW_LAST && json_array_size(rows) < most; i++) {
			row = json_array_get(page, i);
			choice = choose ? choose(row, arg) : ROW_TAKEN;
			if (choice == ROW_TAKEN)
				json_array_append(rows, row);
		}
		json_decref(after);
		after = json_incref(json_object_get(json_array_get(page, n - 1), key));
		json_decref(page);
	} while (!ctl->status && choice != ROW_LAST && json_array_size(rows) < most &&
		 n); /* a page may be short because its rows are large */
	json_decref(after);
	if (!ctl->status)
		return rows;
	json_decref(rows);
	return NULL;
}

int
ctl_unexpected(const char *method)
{
	return ctl_fail(EX_SOFTWARE, "the broker's answer to %s has an unexpected form",
			method);
}
