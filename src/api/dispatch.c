/*
 * dispatch: one frame to one method. The method's row says who may call it and which fields it has; they
 * are checked here once, and handlers rely on that.
 */
#include "api/session.h"

#include "base/log.h"

enum { NOTE = 1, DRAINS = 2, HEAVY = 4, AUDITED = 8, HANDS = 16, AGAIN = 32, DEDUP = 64 };

const char *const role_names[] = { "anyone", "viewer", "agent", "operator" };

static const struct {
	struct str name;
	enum role role;
	unsigned flags;
	uint64_t required, optional;
	enum err (*handler)(struct session *, const struct rpc *, struct params *,
			    struct errmsg *);
} methods[METHOD_COUNT] = {
#define METHOD(name, role, flags, required, optional, help) \
	[METHOD_##name] = { { #name, sizeof(#name) - 1 },   \
			    ROLE_##role,                    \
			    flags,                          \
			    required,                       \
			    optional,                       \
			    api_##name },
#include "api/methods.def"
#undef METHOD
};

const char *const method_names[METHOD_COUNT] = {
#define METHOD(name, role, flags, required, optional, help) [METHOD_##name] = #name,
#include "api/methods.def"
#undef METHOD
};

bool
method_is_heavy(enum method method)
{
	return methods[method].flags & HEAVY;
}

static int
find_method(struct str name)
{
	for (int i = 0; i < METHOD_COUNT; i++)
		if (str_eq(methods[i].name, name))
			return i;
	return -1;
}

static enum err
unknown_method(struct str name, struct errmsg *why)
{
	char text[96];

	return errmsg_set(why, ERR_UNKNOWN_METHOD, "there is no method %s",
			  log_quote(text, sizeof(text), name));
}

static enum err
run_method(struct session *s, const struct rpc *rpc, int m, struct errmsg *why)
{
	const struct api_config *config = &s->api->config;
	struct field_rules rules = { !config->portable_payloads, API_MAX_BATCH };
	struct params params;
	enum err err;

	s->api->running = (enum method)m;
	if (s->role < methods[m].role)
		return errmsg_set(why, ERR_FORBIDDEN, "%s needs the role %s", method_names[m],
				  role_names[methods[m].role]);
	if (s->api->is_stopping && !(methods[m].flags & DRAINS))
		return errmsg_set(why, ERR_SHUTTING_DOWN, "%s", err_text(ERR_SHUTTING_DOWN));
	if (s->api->is_draining && (methods[m].flags & HANDS))
		return errmsg_set(why, ERR_SHUTTING_DOWN,
				  "this broker drains and hands out nothing; try another");
	if (rpc->bad.err) {
		*why = rpc->bad;
		return why->err;
	}
	err = params_read(&params, rpc->params, methods[m].required, methods[m].optional,
			  &rules, why);
	if (err)
		return err;
	if (methods[m].flags & AUDITED)
		audit_begin(s, (enum method)m, &params);
	err = methods[m].handler(s, rpc, &params, why);
	audit_if_answered(s, err);
	return err;
}

/* A notification is executed where that makes sense, and never answered. */
static void
on_notification(struct session *s, const struct rpc *rpc)
{
	struct errmsg why;
	int m = find_method(rpc->method);

	if (str_eq(rpc->method, STR("nvim_set_client_info"))) {
		s->errors = RPC_ERRORS_PAIR; /* the only shape Neovim shows */
		return;
	}
	if (m < 0 || !(methods[m].flags & NOTE)) {
		s->api->ignored++;
	} else if (run_method(s, rpc, m, &why)) {
		s->api->ignored++;
		process_stats.requests[m][why.err]++;
	}
}

static void
on_request(struct session *s, const struct rpc *rpc)
{
	struct errmsg why;
	int m = find_method(rpc->method);
	enum err err;

	err = m < 0 ? unknown_method(rpc->method, &why) : run_method(s, rpc, m, &why);
	if (err) {
		process_stats.requests[m < 0 ? METHOD_COUNT : m][err]++;
		session_fail(s, rpc, &why);
	}
}

static void
fail_connection(struct session *s, const struct errmsg *why)
{
	struct rpc nobody = { .type = RPC_REQUEST, .msgid = 0 };

	log_event(LOG_CONN_REFUSED_FRAME, log_uint("conn", conn_id(s->conn)),
		  log_text("peer", conn_peer(s->conn)), log_text("code", err_code(why->err)));
	session_fail(s, &nobody, why);
}

bool
session_on_frame(void *user, const uint8_t *frame, size_t n)
{
	struct session *s = user;
	struct rpc rpc;
	struct errmsg why;

	if (!rpc_read(&rpc, frame, n, &why)) {
		process_stats.frames_rejected[STAT_MALFORMED]++;
		fail_connection(s, &why);
		return false;
	}
	s->asked += rpc.type != RPC_RESPONSE;
	if (rpc.type == RPC_REQUEST)
		on_request(s, &rpc);
	else if (rpc.type == RPC_NOTIFICATION)
		on_notification(s, &rpc);
	else
		s->api->ignored++;
	return true;
}

void
session_on_bad_frame(void *user, enum frame_status status)
{
	struct session *s = user;
	struct errmsg why;

	process_stats.frames_rejected[status == FRAME_TOO_LARGE  ? STAT_TOO_LARGE
				      : status == FRAME_TOO_DEEP ? STAT_TOO_DEEP
								 : STAT_MALFORMED]++;
	if (status == FRAME_TOO_LARGE)
		errmsg_set(&why, ERR_TOO_LARGE,
			   "a frame is larger than max_frame (%zu bytes) or "
			   "has too many elements",
			   s->api->config.max_frame);
	else if (status == FRAME_TOO_DEEP)
		errmsg_set(&why, ERR_PROTOCOL, "a frame is nested deeper than %d",
			   FRAME_MAX_DEPTH);
	else
		errmsg_set(&why, ERR_PROTOCOL, "this is not MessagePack");
	fail_connection(s, &why);
}
