/* hello and ping: what concerns the connection. */
#include <stdio.h>
#include <stdlib.h>

#include "api/session.h"
#include "base/mem.h"
#include "proto/mp.h"

static void
put_welcome(struct buf *b, const struct session *s)
{
	const struct api *api = s->api;

	mp_put_map(b, 7);
	mp_put_lit(b, "server");
	mp_put_lit(b, "coordd");
	mp_put_lit(b, "version");
	mp_put_str(b, str_of(COORDD_VERSION));
	mp_put_lit(b, "protocol");
	mp_put_uint(b, 1);
	mp_put_lit(b, "instance_id");
	mp_put_str(b, str_of(api->instance_id));
	mp_put_lit(b, "limits");
	mp_put_map(b, 3);
	mp_put_lit(b, "max_frame");
	mp_put_uint(b, api->config.max_frame);
	mp_put_lit(b, "max_batch");
	mp_put_uint(b, API_MAX_BATCH);
	mp_put_lit(b, "max_wait");
	mp_put_uint(b, 60);
	mp_put_lit(b, "role");
	mp_put_str(b, str_of(role_names[s->role]));
	mp_put_lit(b, "namespace");
	mp_put_str(b, str_of(s->namespace));
}

enum err
api_hello(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	struct str ns = p->have & F(namespace) ? p->namespace : str_of(s->namespace);

	if (s->said_hello && !str_eq(ns, str_of(s->namespace)))
		return errmsg_set(why, ERR_BAD_REQUEST,
				  "namespace was set by the first hello and cannot change");
	if (!s->said_hello) {
		char *copy = xmemdup(ns.p, ns.n);

		free(s->namespace);
		s->namespace = copy;
		s->said_hello = true;
	}
	if (p->have & F(client)) {
		free(s->client);
		s->client = xmemdup(p->client.p, p->client.n);
	}
	if (p->have & F(errors))
		s->errors = p->errors;
	if (rpc->type == RPC_REQUEST)
		put_welcome(session_reply(s, rpc), s);
	return OK;
}

enum err
api_ping(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	(void)p;
	(void)why;
	mp_put_lit(session_reply(s, rpc), "pong");
	return OK;
}
