/*
 * consume, cancel: messages as notifications.
 *
 *	api_consume()		the answer first, then it begins
 *	consumer_on_messages()	written and watched; what may not be written is handed back
 *	api_cancel()		what it holds is handed back, and what is still on its way to it
 *	consumer_end()		cancelled, or its connection is closed: it asks no more
 *	consumer_over()		the only exit, when no call is under way for it any more
 */
#include <stdlib.h>

#include "api/encode.h"
#include "api/session.h"
#include "base/mem.h"
#include "proto/mp.h"

#define VISIBILITY_US 60000000

static void
put_message(struct buf *b, const struct consumer *c, const struct reservation *res)
{
	char token[TOKEN_TEXT_MAX];

	rpc_put_notification(b, STR("message"));
	mp_put_map(b, 5);
	mp_put_lit(b, "consumer_id");
	mp_put_str(b, (struct str){ c->id, sizeof(c->id) });
	mp_put_lit(b, "token");
	mp_put_str(b, token_write(token, &res->token));
	mp_put_lit(b, "queue_message");
	encode_queue_message(b, &res->item, queue_agent(c->queue));
	mp_put_lit(b, "visibility_deadline");
	if (res->token.lease)
		mp_put_nil(b);
	else
		encode_time(b, res->deadline_us);
	mp_put_lit(b, "fence");
	mp_put_uint(b, res->token.fence);
}

static void
consumer_give_back(struct consumer *c, const struct token *token)
{
	c->releasing++;
	give_back(c->session->api, c->queue, token, SETTLE_RELEASE, c);
}

static void
consumer_on_messages(void *arg, const struct reservation *res, unsigned n)
{
	struct consumer *c = arg;
	struct session *s = c->session;
	struct conn *conn = c->has_ended ? NULL : s->conn;
	unsigned i = 0;

	for (; conn && i < n && !conn_is_full(conn); i++) {
		put_message(conn_output(conn), c, &res[i]);
		session_watch(s, c->queue, &res[i], c->is_lease, c->consume);
	}
	if (i)
		conn_wrote(conn);
	/* The last one first: where they take several calls, the first one is at the head in the end. */
	while (n-- > i)
		consumer_give_back(c, &res[n].token);
}

static void
consumer_on_gone(void *arg, struct held *held)
{
	(void)arg;
	delivery_free(delivery_of(held));
}

static bool
consumer_is_blocked(void *arg)
{
	struct consumer *c = arg;

	return conn_is_backed_up(c->session->conn);
}

void
consumer_note_drain(const struct consumer *c)
{
	struct buf *b = conn_output(c->session->conn);

	rpc_put_notification(b, STR("shutting_down"));
	mp_put_map(b, 1);
	mp_put_lit(b, "consumer_id");
	mp_put_str(b, (struct str){ c->id, sizeof(c->id) });
	conn_wrote(c->session->conn);
}

/* Its last act, unless something is still under way. */
static void
consumer_over(struct consumer *c)
{
	struct request *r = c->cancel;

	if (!c->has_ended || c->consume || c->releasing)
		return;
	if (r && c->has_failed) {
		request_fail(
			r,
			ERR_UNKNOWN); /* it has ended all the same, and we go on handing back */
	} else if (r) {
		struct buf *b = request_reply(r);

		if (b)
			mp_put_bool(b, true);
		request_done(r);
	}
	queue_unpin(c->queue);
	session_drop(c->session);
	free(c);
}

static void
consumer_on_ended(void *arg)
{
	struct consumer *c = arg;

	c->consume = NULL;
	consumer_over(c);
}

void
consumer_given_back(struct consumer *c, enum err err)
{
	c->releasing--;
	if (err)
		c->has_failed = true;
	consumer_over(c);
}

void
consumer_end(struct consumer *c)
{
	struct session *s = c->session;

	c->has_ended = true;
	TAILQ_REMOVE(&s->consumers, c, link);
	s->waiting--;
	if (!consume_end(c->consume))
		c->consume = NULL;
	consumer_over(c);
}

static const struct consume_ops consume_ops = { consumer_on_messages, consumer_on_gone,
						consumer_is_blocked, consumer_on_ended };

static struct consumer *
consumer_new(struct session *s, const struct params *p, struct queue *q, uint64_t visibility_us,
	     bool is_lease)
{
	struct consumer *c = xcalloc(1, sizeof(*c));
	uint8_t id[CONSUMER_ID_BYTES];

	id_random(id, sizeof(id));
	id_encode(c->id, id, sizeof(id));
	c->session = s;
	c->is_lease = is_lease;
	c->prefetch = (unsigned)p->prefetch;
	c->visibility_us = visibility_us;
	c->queue = q;
	queue_pin(q);
	session_hold(s);
	s->waiting++;
	return c;
}

/* Before the answer, which may write: what was written may be a reason to look at all consumers. */
static void
consumer_begin(struct consumer *c, struct holder *holder)
{
	c->consume =
		queue_consume(c->queue, c->visibility_us, holder, c->prefetch, &consume_ops, c);
	TAILQ_INSERT_TAIL(&c->session->consumers, c, link);
}

static void
put_consumer(struct buf *b, const struct consumer *c)
{
	mp_put_map(b, 1);
	mp_put_lit(b, "consumer_id");
	mp_put_str(b, (struct str){ c->id, sizeof(c->id) });
}

/* Of heartbeat leases: whether there is a holder at all is looked up first. */
struct enlist {
	struct request *request;
	struct consumer *consumer;
	struct holder *holder;
};

static void
on_holder(void *arg, enum err err, const struct agent_info *infos, unsigned n)
{
	struct enlist *op = arg;
	struct consumer *c = op->consumer;
	struct session *s = c->session;

	if (!err && (!n || !infos->is_alive))
		err = ERR_NOT_FOUND;
	if (!err && s->api->is_draining)
		err = ERR_SHUTTING_DOWN;
	if (!err && s->conn) {
		consumer_begin(c, op->holder);
		put_consumer(request_reply(op->request), c);
		request_done(op->request);
	} else {
		request_fail_held(op->request, err ? err : ERR_UNSENT);
		holder_unref(op->holder);
		queue_unpin(c->queue);
		s->waiting--;
		session_drop(s);
		free(c);
	}
	free(op);
}

enum err
api_consume(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	enum lease lease = p->have & F(lease) ? p->lease : LEASE_CONNECTION;
	struct queue *q = queues_get(s->api->queues, str_of(s->namespace), &p->agent);
	uint64_t visibility_us = VISIBILITY_US;
	struct consumer *c;
	struct enlist *op;

	if (session_visibility(p, q, &visibility_us, why) || session_may_wait(s, why))
		return why->err;
	c = consumer_new(s, p, q, visibility_us, lease == LEASE_CONNECTION);
	if (lease != LEASE_HEARTBEAT) {
		consumer_begin(c, NULL);
		put_consumer(session_reply(s, rpc), c);
		return OK;
	}
	op = xcalloc(1, sizeof(*op));
	op->request = request_new_held(s, rpc, METHOD_consume, p);
	op->consumer = c;
	op->holder = session_holder(s, c->queue, p);
	registry_get(s->api->registry, str_of(s->namespace),
		     p->have & F(holder) ? &p->holder : &p->agent, on_holder, op);
	return OK;
}

static struct consumer *
consumer_find(const struct session *s, struct str id)
{
	struct consumer *c;

	TAILQ_FOREACH (c, &s->consumers, link) {
		if (str_eq(id, (struct str){ c->id, sizeof(c->id) }))
			return c;
	}
	return NULL;
}

enum err
api_cancel(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	struct consumer *c = consumer_find(s, p->consumer_id);
	struct held *held;

	(void)why;
	if (!c) {
		mp_put_bool(session_reply(s, rpc), false);
		return OK;
	}
	c->cancel = request_new(s, rpc, METHOD_cancel, STR(""));
	while ((held = consume_last(c->consume))) { /* the last one first, see above */
		struct delivery *d = delivery_of(held);

		consumer_give_back(c, &d->token);
		delivery_free(d);
	}
	consumer_end(c);
	return OK;
}
