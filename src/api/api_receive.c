/* receive, receive_batch. */
#include "api/encode.h"
#include "api/session.h"
#include "proto/mp.h"

static void
receive_done(void *arg, enum err err, const struct reservation *res, unsigned n)
{
	struct request *r = arg;
	struct session *s = r->session;
	struct agent_id agent = queue_agent(r->queue);
	struct buf *b;

	if (err) {
		request_fail(r, err);
		return;
	}
	b = request_reply(r);
	if (r->is_batch)
		mp_put_array(b, n);
	else if (!n)
		mp_put_nil(b);
	for (unsigned i = 0; i < n; i++)
		encode_received(b, &res[i], agent);
	for (unsigned i = 0; i < n; i++)
		session_watch(s, r->queue, &res[i], r->is_lease);
	request_done(r);
}

static void
receive_on_park(void *arg, bool parked)
{
	request_parked(arg, parked);
}

static enum err
start(struct session *s, const struct rpc *rpc, const struct params *p, enum method method,
      unsigned max, struct errmsg *why)
{
	uint64_t wait = p->have & F(wait) ? p->wait : 0;
	struct agent_id holder = p->have & F(holder) ? p->holder : p->agent;
	struct request *r;

	if (p->have & F(lease) && p->lease == LEASE_HEARTBEAT)
		return errmsg_set(why, ERR_NOT_FOUND, "holder %.*s:%.*s is not registered",
				  (int)holder.type.n, holder.type.p, (int)holder.instance.n,
				  holder.instance.p);
	if (wait && s->waiting >= s->api->config.max_parked)
		return errmsg_set(why, ERR_OVERLOADED,
				  "this connection has %u receives waiting, which is "
				  "limits.max_parked_per_connection",
				  s->waiting);
	r = request_new(s, rpc, method, STR(""));
	r->is_batch = method == METHOD_receive_batch;
	r->is_lease = p->have & F(lease) && p->lease == LEASE_CONNECTION;
	r->may_park = wait > 0;
	s->waiting += r->may_park;
	r->queue = queues_get(s->api->queues, str_of(s->namespace), &p->agent);
	TAILQ_INSERT_TAIL(&s->receives, r, link);
	r->receive =
		queue_receive(r->queue,
			      p->have & F(visibility_timeout) ? p->visibility_timeout
							      : s->api->config.visibility_us,
			      max, wait, receive_done, receive_on_park, r);
	return OK;
}

enum err
api_receive(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	return start(s, rpc, p, METHOD_receive, 1, why);
}

enum err
api_receive_batch(struct session *s, const struct rpc *rpc, struct params *p,
		  struct errmsg *why)
{
	return start(s, rpc, p, METHOD_receive_batch, (unsigned)p->max, why);
}
