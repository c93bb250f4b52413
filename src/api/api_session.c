/* hello, ping, status: what concerns the connection and the broker. */
#include <stdio.h>
#include <stdlib.h>

#include "api/session.h"
#include "base/mem.h"
#include "proto/mp.h"

enum { STATUS_QUEUES = 1000 };

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

/* status ------------------------------------------------------------------------------------------- */

static void
put_check(struct buf *b, const char *name, const char *status, const char *message)
{
	mp_put_map(b, 3);
	mp_put_lit(b, "name");
	mp_put_str(b, str_of(name));
	mp_put_lit(b, "status");
	mp_put_str(b, str_of(status));
	mp_put_lit(b, "message");
	mp_put_str(b, str_of(message));
}

static void
put_redis(struct buf *b, const struct store_info *info)
{
	mp_put_map(b, 9);
	mp_put_lit(b, "up");
	mp_put_bool(b, info->ready);
	mp_put_lit(b, "version");
	mp_put_str(b, str_of(info->version));
	mp_put_lit(b, "aof");
	mp_put_bool(b, info->aof);
	mp_put_lit(b, "appendfsync");
	mp_put_str(b, str_of(info->appendfsync));
	mp_put_lit(b, "policy");
	mp_put_str(b, str_of(info->policy));
	mp_put_lit(b, "round_trip_ms");
	mp_put_double(b, info->round_trip_ms);
	mp_put_lit(b, "pending");
	mp_put_uint(b, info->pending);
	mp_put_lit(b, "reconnects");
	mp_put_uint(b, info->reconnects);
	mp_put_lit(b, "problem");
	mp_put_str(b, str_of(info->problem));
}

/* What Redis is asked for, one after the other; `request` is answered whatever it says. */
struct status {
	struct request *request;
	bool has_queues, has_agents, has_breakers;
	uint64_t known, ready, delayed, reserved, dead; /* of queues */
	uint64_t agents, alive;
	struct breaker_counts breakers;
};

static void
put_queues(struct buf *b, const struct status *s)
{
	mp_put_lit(b, "queues");
	mp_put_map(b, 5);
	mp_put_lit(b, "known");
	mp_put_uint(b, s->known);
	mp_put_lit(b, "ready");
	mp_put_uint(b, s->ready);
	mp_put_lit(b, "delayed");
	mp_put_uint(b, s->delayed);
	mp_put_lit(b, "reserved");
	mp_put_uint(b, s->reserved);
	mp_put_lit(b, "dead");
	mp_put_uint(b, s->dead);
}

static void
put_agents(struct buf *b, const struct status *s)
{
	mp_put_lit(b, "agents");
	mp_put_map(b, 2);
	mp_put_lit(b, "known");
	mp_put_uint(b, s->agents);
	mp_put_lit(b, "alive");
	mp_put_uint(b, s->alive);
}

static void
put_breakers(struct buf *b, const struct breaker_counts *counts)
{
	mp_put_lit(b, "breakers");
	mp_put_map(b, 3);
	mp_put_lit(b, "known");
	mp_put_uint(b, counts->known);
	mp_put_lit(b, "open");
	mp_put_uint(b, counts->open);
	mp_put_lit(b, "half_open");
	mp_put_uint(b, counts->half_open);
}

static void
put_status(struct buf *b, const struct status *s)
{
	const struct api *api = s->request->session->api;
	struct store_info info;
	char message[200];
	const char *durable;

	store_info(api->store, &info);
	mp_put_map(b, 10u + s->has_queues + s->has_agents + s->has_breakers);
	mp_put_lit(b, "server");
	mp_put_lit(b, "coordd");
	mp_put_lit(b, "version");
	mp_put_str(b, str_of(COORDD_VERSION));
	mp_put_lit(b, "instance_id");
	mp_put_str(b, str_of(api->instance_id));
	mp_put_lit(b, "uptime_s");
	mp_put_double(b, (double)(loop_clock_us() - api->started_us) / 1e6);
	mp_put_lit(b, "ready");
	mp_put_bool(b, info.ready && !api->is_draining);
	mp_put_lit(b, "draining");
	mp_put_bool(b, api->is_draining);
	mp_put_lit(b, "connections");
	mp_put_uint(b, conns_count(api->conns));
	mp_put_lit(b, "parked");
	mp_put_uint(b, api->parked);
	mp_put_lit(b, "redis");
	put_redis(b, &info);
	mp_put_lit(b, "checks");
	mp_put_array(b, 2);
	put_check(b, "redis", info.ready ? "ok" : "fail", info.problem);
	durable = store_durability(&info, message, sizeof(message));
	put_check(b, "persistence", durable, message);
	if (s->has_queues)
		put_queues(b, s);
	if (s->has_agents)
		put_agents(b, s);
	if (s->has_breakers)
		put_breakers(b, &s->breakers);
}

/* It answers whatever Redis does: that is what it is for. */
static void
status_finish(struct status *s)
{
	struct buf *b = request_reply(s->request);

	if (b)
		put_status(b, s);
	request_done(s->request);
	free(s);
}

static void
status_on_breakers(void *arg, enum err err, const struct breaker_counts *counts)
{
	struct status *s = arg;

	s->has_breakers = !err;
	if (!err)
		s->breakers = *counts;
	status_finish(s);
}

static void
status_on_agents(void *arg, enum err err, uint64_t known, uint64_t alive)
{
	struct status *s = arg;
	struct session *session = s->request->session;

	s->has_agents = !err;
	s->agents = known;
	s->alive = alive;
	if (err)
		status_finish(s);
	else
		breakers_count(session->api->breakers, str_of(session->namespace),
			       status_on_breakers, s);
}

static void
status_on_list(void *arg, enum err err, const struct str *names,
	       const struct queue_stats *stats, unsigned n)
{
	struct status *s = arg;
	struct session *session = s->request->session;

	(void)names;
	for (unsigned i = 0; i < n; i++) {
		s->ready += stats[i].ready[0] + stats[i].ready[1] + stats[i].ready[2];
		s->delayed += stats[i].delayed;
		s->reserved += stats[i].reserved;
		s->dead += stats[i].dead;
	}
	s->known = n;
	s->has_queues = !err;
	if (err)
		status_finish(s);
	else
		registry_count(session->api->registry, str_of(session->namespace),
			       status_on_agents, s);
}

enum err
api_status(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	struct status *op = xcalloc(1, sizeof(*op));

	(void)p;
	(void)why;
	op->request = request_new(s, rpc, METHOD_status, STR(""));
	queues_list(s->api->queues, str_of(s->namespace), STR(""), STR(""), STATUS_QUEUES,
		    status_on_list, op);
	return OK;
}
