/*
 * ask: a request that is a method of the protocol.
 *
 *	admin_ask()	path, query and body become its parameters; it goes the way of all requests
 *	ask_done()	its result as JSON, or its error as a problem
 */
#include "admin/own.h"

#include <stdlib.h>

#include "api/call.h"
#include "base/mem.h"

struct ask {
	TAILQ_ENTRY(ask) link;
	struct admin *admin;
	struct http_request *req;
	const struct route *route;
	struct json_how how;
	struct api_call *call;
};

static void
ask_free(struct ask *ask)
{
	TAILQ_REMOVE(&ask->admin->asks, ask, link);
	free(ask);
}

static void
ask_done(void *arg, struct str code, struct str message, struct str result)
{
	struct ask *ask = arg;
	struct http_request *req = ask->req;
	struct buf b = { 0 };

	if (code.n)
		problem_reply(req, problem_status(code), code, message, NULL);
	else if (shape_put(&b, ask->route, result, &ask->how))
		http_reply(req, 200, "application/json", NULL, &b);
	else
		problem_say(req, 404, "not_found", "there is none of that name");
	ask_free(ask);
}

void
asks_free(struct admin *a)
{
	struct ask *ask;

	while ((ask = TAILQ_FIRST(&a->asks))) {
		api_call_cancel(ask->call);
		ask_free(ask);
	}
}

/* Parameters ------------------------------------------------------------------------------------- */

static void
put_agent(struct buf *b, const char *key, struct str type, struct str instance)
{
	mp_put_str(b, str_of(key));
	mp_put_map(b, 2);
	mp_put_lit(b, "type");
	mp_put_str(b, type);
	mp_put_lit(b, "instance");
	mp_put_str(b, instance);
}

static enum err
put_named_agent(struct buf *b, const char *key, const char *what, struct str name,
		struct buf *text, struct errmsg *why)
{
	struct str type, instance;

	if (!agent_read(name, &type, &instance, text))
		return errmsg_set(
			why, ERR_BAD_REQUEST,
			"%s must be type:instance, with : and %% in them as %%3A and %%25",
			what);
	put_agent(b, key, type, instance);
	return OK;
}

static bool
read_count(struct str s, uint64_t *out)
{
	*out = 0;
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
		*out = *out * 10 + (uint64_t)(s.p[i] - '0');
	}
	return s.n && s.n < 19;
}

static enum err
put_path(struct buf *b, uint32_t *n, const struct asked *asked, struct errmsg *why)
{
	const struct route_match *m = &asked->match;
	const struct str *parts = m->parts;
	enum err err = OK;
	uint64_t id;

	if (m->have & 1u << PART_queue) {
		err = put_named_agent(b, "agent", "the queue", parts[PART_queue], asked->text,
				      why);
		++*n;
	}
	if (m->have & 1u << PART_instance) {
		put_agent(b, "agent", parts[PART_type], parts[PART_instance]);
		++*n;
	}
	if (m->have & 1u << PART_name) {
		mp_put_lit(b, "name");
		mp_put_str(b, parts[PART_name]);
		++*n;
	}
	if (m->have & 1u << PART_connection) {
		if (!read_count(parts[PART_connection], &id))
			return errmsg_set(why, ERR_BAD_REQUEST,
					  "the id of a connection is a whole number");
		mp_put_lit(b, "id");
		mp_put_uint(b, id);
		++*n;
	}
	if (m->have & 1u << PART_dead) {
		mp_put_lit(b, "ids");
		mp_put_array(b, 1);
		mp_put_str(b, parts[PART_dead]);
		++*n;
	}
	return err;
}

static enum err
put_query(struct buf *b, enum query_name q, struct str value, struct buf *text,
	  struct errmsg *why)
{
	const char *param = query_param(q);
	bool is_true = str_eq(value, STR("true")) || str_eq(value, STR("1"));
	uint64_t count;

	switch (query_kind(q)) {
	case QUERY_AGENT:
		return put_named_agent(b, param, "cursor", value, text, why);
	case QUERY_COUNT_OF:
		if (!read_count(value, &count))
			return errmsg_set(why, ERR_BAD_REQUEST, "%s must be a whole number",
					  param);
		mp_put_str(b, str_of(param));
		mp_put_uint(b, count);
		return OK;
	case QUERY_BOOL:
		if (!is_true && !str_eq(value, STR("false")) && !str_eq(value, STR("0")))
			return errmsg_set(why, ERR_BAD_REQUEST, "%s must be true or false",
					  param);
		mp_put_str(b, str_of(param));
		mp_put_bool(b, is_true);
		return OK;
	default:
		mp_put_str(b, str_of(param));
		mp_put_str(b, value);
		return OK;
	}
}

/* One map of all. */
static enum err
put_params(struct buf *params, struct http_request *req, const struct asked *asked,
	   struct errmsg *why)
{
	struct buf pairs = { 0 };
	uint32_t n = 0;
	enum err err = put_path(&pairs, &n, asked, why);

	for (unsigned q = 0; !err && q < QUERY_COUNT; q++) {
		if (!(asked->query.have & 1u << q) ||
		    query_kind((enum query_name)q) == QUERY_LOCAL)
			continue;
		err = put_query(&pairs, (enum query_name)q, asked->query.values[q], asked->text,
				why);
		n++;
	}
	if (!err && asked->route->access == ROUTE_WRITE)
		err = body_read(req, &pairs, &n, why);
	mp_put_map(params, n);
	mp_put_raw(params, buf_str(&pairs));
	buf_done(&pairs);
	return err;
}

/* ------------------------------------------------------------------------------------------------ */

static void
ask_begin(struct admin *a, struct http_request *req, const struct asked *asked,
	  bool hides_payloads)
{
	struct str ns = asked->query.values[QUERY_namespace];
	struct api_call_how how = {
		.as_operator = asked->route->access != ROUTE_READ,
		.peer = http_peer(req),
		.uid = (uid_t)-1,
		.namespace = ns,
		.method = str_of(asked->route->method),
	};
	struct buf params = { 0 };
	struct errmsg why;
	struct ask *ask;

	http_peer_uid(req, &how.uid);
	if (put_params(&params, req, asked, &why)) {
		problem_say(req, 400, err_code(why.err), "%s", why.text);
	} else {
		ask = xcalloc(1, sizeof(*ask));
		ask->admin = a;
		ask->req = req;
		ask->route = asked->route;
		ask->how.hides_payloads = hides_payloads;
		TAILQ_INSERT_TAIL(&a->asks, ask, link);
		ask->call = api_call(a->parts.api, &how, buf_str(&params), ask_done, ask);
	}
	buf_done(&params);
}

void
admin_ask(struct admin *a, struct http_request *req, struct asked *asked)
{
	ask_begin(a, req, asked, true);
}

/* The state says which method has them; their bodies are shown to who asks for them. */
void
admin_messages(struct admin *a, struct http_request *req, struct asked *asked)
{
	static const struct route ready = { .method = "peek", .shape = SHAPE_ITEMS }, dead = {
		.method = "dlq_list", .shape = SHAPE_PAGE, .key = "dead"
	};
	struct str state = asked->query.values[QUERY_state],
		   payload = asked->query.values[QUERY_payload];
	bool shows = str_eq(payload, STR("1")) || str_eq(payload, STR("true"));
	bool is_ready = !(asked->query.have & Q(state)) || str_eq(state, STR("ready"));

	asked->route = is_ready ? &ready : &dead;
	if (!is_ready && !str_eq(state, STR("dead")))
		problem_say(req, 400, "bad_request", "state must be ready or dead");
	else if (is_ready && asked->query.have & Q(cursor))
		problem_say(req, 400, "bad_request", "only state=dead has a cursor");
	else if (shows && !a->config.show_payloads)
		problem_say(req, 403, "forbidden", "admin.show_payloads is off");
	else
		ask_begin(a, req, asked, !shows);
}
