/* drain, undrain, log_level: the broker as a whole. */
#include "api/session.h"
#include "proto/mp.h"

/* Drain -------------------------------------------------------------------------------------------- */

/* What is left to wait for. */
static void
put_drain(struct buf *b, const struct api *api)
{
	mp_put_map(b, 4);
	mp_put_lit(b, "draining");
	mp_put_bool(b, api->is_draining);
	mp_put_lit(b, "connections");
	mp_put_uint(b, conns_count(api->conns));
	mp_put_lit(b, "in_flight");
	mp_put_uint(b, api->in_flight);
	mp_put_lit(b, "unsettled");
	mp_put_uint(b, api_unsettled(api));
}

static enum err
drain(struct session *s, const struct rpc *rpc, bool drain)
{
	const struct api *api = s->api;

	if (!api->control->drain(api->control_arg, drain, conn_peer(s->conn)))
		audit_nothing(s);
	put_drain(session_reply(s, rpc), api);
	return OK;
}

enum err
api_drain(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	(void)p;
	(void)why;
	return drain(s, rpc, true);
}

enum err
api_undrain(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	(void)p;
	(void)why;
	return drain(s, rpc, false);
}

/* The log's level ---------------------------------------------------------------------------------- */

enum err
api_log_level(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	const struct api *api = s->api;
	struct level_info info;
	struct buf *b;

	if (p->have & F(for_time) && !(p->have & F(level)))
		return errmsg_set(why, ERR_BAD_REQUEST, "for needs a level");
	if (p->have & F(level))
		api->control->set_level(api->control_arg, p->level,
					p->have & F(for_time) ? p->for_time : 0,
					conn_peer(s->conn));
	else
		audit_nothing(s);
	api->control->level(api->control_arg, &info);
	b = session_reply(s, rpc);
	mp_put_map(b, 3);
	mp_put_lit(b, "level");
	mp_put_str(b, str_of(log_level_names[info.level]));
	mp_put_lit(b, "configured");
	mp_put_str(b, str_of(log_level_names[info.configured]));
	mp_put_lit(b, "for");
	if (info.for_us)
		mp_put_double(b, (double)info.for_us / 1e6);
	else
		mp_put_nil(b);
	return OK;
}
