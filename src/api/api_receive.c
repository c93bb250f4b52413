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
	size_t room = 0;
	struct buf *b;

	if (err) {
		request_fail_held(r, err);
		return;
	}
	b = request_reply(r);
	for (unsigned i = 0; i < n; i++)
		room += encode_room(&res[i].item, agent);
	buf_reserve(b, room);
	if (r->is_batch)
		mp_put_array(b, n);
	else if (!n)
		mp_put_nil(b);
	for (unsigned i = 0; i < n; i++)
		encode_received(b, &res[i], agent);
	for (unsigned i = 0; i < n; i++)
		session_watch(s, r->queue, &res[i], r->is_lease, NULL);
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
	struct queue *q = queues_get(s->api->queues, str_of(s->namespace), &p->agent);
	uint64_t wait = p->have & F(wait) ? p->wait : 0;
	enum lease lease = p->have & F(lease) ? p->lease : LEASE_TIMEOUT;
	struct holder *holder = NULL;
	uint64_t visibility_us = queue_policy(q)->visibility_us;
	struct request *r;

	if (session_visibility(p, q, &visibility_us, why) || (wait && session_may_wait(s, why)))
		return why->err;
	r = lease == LEASE_HEARTBEAT ? request_new_held(s, rpc, method, p)
				     : request_new(s, rpc, method, STR(""));
	request_asks_for(r, max);
	r->is_batch = method == METHOD_receive_batch;
	r->is_lease = lease == LEASE_CONNECTION;
	r->may_park = wait > 0;
	s->waiting += r->may_park;
	r->queue = q;
	if (lease == LEASE_HEARTBEAT)
		holder = session_holder(s, q, p);
	TAILQ_INSERT_TAIL(&s->receives, r, link);
	r->receive = queue_receive(q, visibility_us, holder, max, wait, receive_done,
				   receive_on_park, r);
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
