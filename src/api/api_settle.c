/* ack, ack_batch, nack, release, extend, recover_pending. A token that is none settles nothing: false. */
#include <stdlib.h>

#include "api/encode.h"
#include "api/session.h"
#include "base/mem.h"
#include "proto/mp.h"

/* One settle of a request; a batch has several. */
struct settling {
	struct settlings *all;
	struct token token;
	bool done;
};

struct settlings {
	struct request *request;
	enum settle kind;
	bool is_batch, has_done;
	unsigned n, pending;
	enum err err;
	uint64_t deadline_us;
	struct settling each[];
};

static size_t
settlings_size(unsigned n)
{
	return sizeof(struct settlings) + n * sizeof(struct settling);
}

static void
settlings_finish(struct settlings *all)
{
	struct request *r = all->request;
	struct buf *b;

	if (all->err) {
		/* Some done and some not: as a whole, that is unknown. */
		request_fail(r, all->has_done ? ERR_UNKNOWN : all->err);
		pool_put(all, settlings_size(all->n));
		return;
	}
	b = request_reply(r);
	if (b && all->is_batch)
		mp_put_array(b, all->n);
	for (unsigned i = 0; b && i < all->n; i++) {
		if (all->kind != SETTLE_EXTEND)
			mp_put_bool(b, all->each[i].done);
		else if (all->each[i].done)
			encode_time(b, all->deadline_us);
		else
			mp_put_nil(b);
	}
	request_done(r);
	pool_put(all, settlings_size(all->n));
}

static void
settle_done(void *arg, enum err err, bool done, uint64_t deadline_us)
{
	struct settling *one = arg;
	struct settlings *all = one->all;

	one->done = done;
	all->deadline_us = deadline_us;
	all->has_done = all->has_done || done;
	if (err && all->err != ERR_UNKNOWN)
		all->err = err;
	if (done)
		api_settled(all->request->session->api, &one->token, deadline_us);
	if (--all->pending == 0)
		settlings_finish(all);
}

static struct settlings *
settlings_new(struct session *s, const struct rpc *rpc, enum method method, enum settle kind,
	      unsigned n)
{
	struct settlings *all = pool_get(settlings_size(n));

	all->request = request_new(s, rpc, method, STR(""));
	all->kind = kind;
	all->is_batch = method == METHOD_ack_batch;
	all->n = n;
	all->pending = 1; /* until all have begun */
	return all;
}

static void
settlings_begun(struct settlings *all)
{
	if (--all->pending == 0)
		settlings_finish(all); /* no token was one */
}

static void
begin_one(struct settlings *all, unsigned i, struct queue *q, struct str text,
	  const struct settle_how *how)
{
	struct settling *one = &all->each[i];

	one->all = all;
	if (!token_read(&one->token, text))
		return;
	all->pending++;
	queue_settle(q, &one->token, how, settle_done, one);
}

static enum err
settle_token(struct session *s, const struct rpc *rpc, const struct params *p,
	     enum method method, const struct settle_how *how)
{
	struct settlings *all = settlings_new(s, rpc, method, how->kind, 1);

	begin_one(all, 0, queues_get(s->api->queues, str_of(s->namespace), &p->agent), p->token,
		  how);
	settlings_begun(all);
	return OK;
}

enum err
api_ack(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	struct settle_how how = { .kind = SETTLE_ACK };

	(void)why;
	return settle_token(s, rpc, p, METHOD_ack, &how);
}

enum err
api_ack_batch(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	struct settle_how how = { .kind = SETTLE_ACK };
	unsigned n = p->tokens.n;
	struct settlings *all = settlings_new(s, rpc, METHOD_ack_batch, SETTLE_ACK, n);
	struct queue *q = queues_get(s->api->queues, str_of(s->namespace), &p->agent);

	(void)why;
	for (unsigned i = 0; i < n; i++)
		begin_one(all, i, q, list_next_text(&p->tokens), &how);
	settlings_begun(all);
	return OK;
}

enum err
api_nack(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	struct settle_how how = { .kind = SETTLE_NACK,
				  .permanent = p->have & F(failure) &&
					       p->failure == FAILURE_PERMANENT,
				  .has_delay = p->have & F(delay) };

	(void)why;
	if (how.has_delay)
		how.delay_us = p->delay;
	how.has_error = p->have & F(error);
	if (how.has_error)
		how.error = p->error;
	return settle_token(s, rpc, p, METHOD_nack, &how);
}

enum err
api_release(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	struct settle_how how = { .kind = SETTLE_RELEASE, .has_delay = p->have & F(delay) };

	(void)why;
	if (how.has_delay)
		how.delay_us = p->delay;
	return settle_token(s, rpc, p, METHOD_release, &how);
}

enum err
api_extend(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	struct queue *q = queues_get(s->api->queues, str_of(s->namespace), &p->agent);
	struct settle_how how = { .kind = SETTLE_EXTEND };

	if (session_visibility(p, q, &how.visibility_us, why))
		return why->err;
	return settle_token(s, rpc, p, METHOD_extend, &how);
}

static void
count_done(void *arg, enum err err, uint64_t count)
{
	struct request *r = arg;
	struct buf *b;

	if (err) {
		request_fail(r, count ? ERR_UNKNOWN : err);
		return;
	}
	b = request_reply(r);
	if (b)
		mp_put_uint(b, count);
	request_done(r);
}

enum err
api_recover_pending(struct session *s, const struct rpc *rpc, struct params *p,
		    struct errmsg *why)
{
	struct request *r = request_new(s, rpc, METHOD_recover_pending, STR(""));
	struct str ns = str_of(s->namespace);

	(void)why;
	if (p->have & F(agent))
		queue_recover(queues_get(s->api->queues, ns, &p->agent), count_done, r);
	else
		queues_recover(s->api->queues, ns, count_done, r);
	return OK;
}

/* dlq_redrive, dlq_purge ---------------------------------------------------------------------------- */

static enum err
dlq_move(struct session *s, const struct rpc *rpc, const struct params *p, enum method method)
{
	struct list none = { 0 };

	/* An empty list asks for nothing, not for all. */
	if ((p->have & (F(ids) | F(message_ids))) && !(p->have & F(ids) ? p->ids.n : 0) &&
	    !(p->have & F(message_ids) ? p->message_ids.n : 0)) {
		mp_put_uint(session_reply(s, rpc), 0);
		return OK;
	}
	queue_dlq_move(queues_get(s->api->queues, str_of(s->namespace), &p->agent),
		       method == METHOD_dlq_redrive, p->have & F(ids) ? p->ids : none,
		       p->have & F(message_ids) ? p->message_ids : none,
		       p->have & F(limit) ? p->limit : 0, count_done,
		       request_new(s, rpc, method, STR("")));
	return OK;
}

enum err
api_dlq_redrive(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	(void)why;
	return dlq_move(s, rpc, p, METHOD_dlq_redrive);
}

enum err
api_dlq_purge(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	(void)why;
	return dlq_move(s, rpc, p, METHOD_dlq_purge);
}
