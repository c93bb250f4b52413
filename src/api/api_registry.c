/* register, heartbeat, deregister, list_registered, get_agent: who is there, and lives. */
#include <stdlib.h>

#include "api/encode.h"
#include "api/session.h"
#include "base/mem.h"
#include "proto/mp.h"

/* How long it may be silent, and how often it should not be. */
static void
put_rhythm(struct buf *b, uint64_t ttl_us)
{
	mp_put_lit(b, "ttl");
	mp_put_double(b, (double)ttl_us / 1e6);
	mp_put_lit(b, "heartbeat_interval");
	mp_put_double(b, (double)ttl_us / 3e6);
}

/* register ---------------------------------------------------------------------------------------- */

/* The request's text is the agent's type and instance. */
struct enrol {
	struct request *request;
	size_t type_len;
};

static void
register_done(void *arg, enum err err, const struct registered *registered)
{
	struct enrol *op = arg;
	struct request *r = op->request;
	struct buf *b = err ? NULL : request_reply(r);

	if (b) {
		struct agent_id agent = { { r->text, op->type_len },
					  { r->text + op->type_len,
					    r->text_len - op->type_len } };

		mp_put_map(b, 6);
		mp_put_lit(b, "agent_id");
		encode_agent(b, agent);
		mp_put_lit(b, "name");
		mp_put_str(b, registered->name);
		mp_put_lit(b, "incarnation");
		mp_put_uint(b, registered->incarnation);
		put_rhythm(b, registered->ttl_us);
		mp_put_lit(b, "state");
		mp_put_raw(b, registered->state.n ? registered->state : STR("\xc0"));
	}
	request_end_with(r, err);
	free(op);
}

enum err
api_register(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	struct enrol *op = xcalloc(1, sizeof(*op));
	struct registration what = {
		.agent = p->agent,
		.has_ttl = p->have & F(ttl),
		.ttl_us = p->ttl,
		.has_resume = p->have & F(resume),
		.resume = p->resume,
	};
	struct buf names = { 0 };

	(void)why;
	if (p->have & F(name))
		what.name = p->name;
	if (p->have & F(status))
		what.status = p->status;
	if (p->have & F(capabilities))
		what.capabilities = p->capabilities;
	if (p->have & F(metadata))
		what.metadata = p->metadata;
	if (p->have & F(state))
		what.state = p->state;
	buf_put(&names, p->agent.type.p, p->agent.type.n);
	buf_put(&names, p->agent.instance.p, p->agent.instance.n);
	op->request = request_new(s, rpc, METHOD_register, buf_str(&names));
	op->type_len = p->agent.type.n;
	registry_register(s->api->registry, str_of(s->namespace), &what, register_done, op);
	buf_done(&names);
	return OK;
}

/* heartbeat, deregister --------------------------------------------------------------------------- */

static void
heartbeat_done(void *arg, enum err err, uint64_t ttl_us)
{
	struct request *r = arg;
	struct errmsg why;
	struct buf *b;

	if (err == ERR_NOT_FOUND) {
		errmsg_set(&why, err, "the agent is not registered, or in another incarnation");
		request_refuse(r, &why);
		return;
	}
	b = err ? NULL : request_reply(r);
	if (b) {
		mp_put_map(b, 2);
		put_rhythm(b, ttl_us);
	}
	request_end_with(r, err);
}

enum err
api_heartbeat(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	struct heartbeat what = {
		.agent = p->agent,
		.has_incarnation = p->have & F(incarnation),
		.incarnation = p->incarnation,
	};

	(void)why;
	if (p->have & F(status))
		what.status = p->status;
	if (p->have & F(state))
		what.state = p->state;
	registry_heartbeat(s->api->registry, str_of(s->namespace), &what, heartbeat_done,
			   request_new(s, rpc, METHOD_heartbeat, STR("")));
	return OK;
}

static void
deregister_done(void *arg, enum err err, bool done)
{
	struct request *r = arg;
	struct buf *b = err ? NULL : request_reply(r);

	if (b)
		mp_put_bool(b, done);
	request_end_with(r, err);
}

enum err
api_deregister(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	(void)why;
	registry_deregister(s->api->registry, str_of(s->namespace), &p->agent, deregister_done,
			    request_new(s, rpc, METHOD_deregister, STR("")));
	return OK;
}

/* list_registered, get_agent ---------------------------------------------------------------------- */

static void
list_done(void *arg, enum err err, const struct agent_info *infos, unsigned n)
{
	struct request *r = arg;
	struct buf rows = { 0 };
	struct buf *b;
	unsigned fit = 0;

	while (fit < n) {
		size_t before = rows.len;

		encode_agent_info(&rows, &infos[fit]);
		/* The answer ends at max_frame, with one at least; the envelope takes the rest. */
		if (fit && rows.len + 64 > r->session->api->config.max_frame) {
			rows.len = before;
			break;
		}
		fit++;
	}
	b = err ? NULL : request_reply(r);
	if (b) {
		mp_put_array(b, fit);
		mp_put_raw(b, buf_str(&rows));
	}
	buf_done(&rows);
	request_end_with(r, err);
}

enum err
api_list_registered(struct session *s, const struct rpc *rpc, struct params *p,
		    struct errmsg *why)
{
	struct agent_filter filter = {
		.has_capability = p->have & F(capability),
		.capability = p->capability,
		.has_alive = p->have & F(alive),
		.is_alive = p->have & F(alive) && p->alive,
		.after = p->have & F(after_agent) ? &p->after_agent : NULL,
	};

	(void)why;
	if (p->have & F(type))
		filter.type = p->type;
	registry_list(s->api->registry, str_of(s->namespace), &filter,
		      p->have & F(limit) ? (unsigned)p->limit : 1000, list_done,
		      request_new(s, rpc, METHOD_list_registered, STR("")));
	return OK;
}

static void
get_done(void *arg, enum err err, const struct agent_info *infos, unsigned n)
{
	struct request *r = arg;
	struct buf *b = err ? NULL : request_reply(r);

	if (b && n)
		encode_agent_info(b, &infos[0]);
	else if (b)
		mp_put_nil(b);
	request_end_with(r, err);
}

enum err
api_get_agent(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	(void)why;
	registry_get(s->api->registry, str_of(s->namespace), &p->agent, get_done,
		     request_new(s, rpc, METHOD_get_agent, STR("")));
	return OK;
}
