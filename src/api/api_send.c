/*
 * send, send_batch, broadcast, publish. A batch is a parent with a count of children; the last one answers.
 *
 *	api_publish(), broadcast_type()	to whom? The connection is not read from until that is known, so that its
 *					next sends come behind this one
 *	fanout_on_agents()		from there on it is a batch
 */
#include <stdlib.h>

#include "api/encode.h"
#include "api/session.h"
#include "base/mem.h"
#include "proto/mp.h"

static struct queue *
queue_of(struct session *s, const struct agent_id *agent)
{
	return queues_get(s->api->queues, str_of(s->namespace), agent);
}

/* send --------------------------------------------------------------------------------------------- */

static void
send_done(void *arg, enum err err, enum sent sent)
{
	struct request *r = arg;
	struct buf *b;

	if (err) {
		request_fail(r, err);
		return;
	}
	b = request_reply(r);
	if (b)
		encode_result(b, (struct str){ r->text, r->text_len }, queue_agent(r->queue),
			      sent);
	request_done(r);
}

enum err
api_send(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	struct request *r = request_new(s, rpc, METHOD_send, p->message.id);

	(void)why;
	r->queue = queue_of(s, &p->recipient);
	queue_send(r->queue, &p->sender, &p->message, p->have & F(delay) ? p->delay : 0,
		   p->have & F(ttl), p->ttl, send_done, r);
	return OK;
}

/* Batches ------------------------------------------------------------------------------------------ */

struct batch {
	struct request *request;
	unsigned n, pending;
	enum err err;    /* of a child; an unknown outcome prevails */
	bool has_stored; /* a child is known to be done */
	struct batch_child {
		struct batch *batch;
		struct queue *queue;  /* pinned */
		size_t id_at, id_len; /* in ids */
		enum sent sent;
	} * children;
	struct buf ids;
};

static struct batch *
batch_new(struct request *r, unsigned n)
{
	struct batch *batch = xcalloc(1, sizeof(*batch));

	batch->request = r;
	batch->n = n;
	batch->pending = n;
	batch->children = xcalloc(n, sizeof(*batch->children));
	return batch;
}

static void
batch_finish(struct batch *batch)
{
	struct request *r = batch->request;
	struct buf *b;

	/* Some stored and some not: as a whole, that is unknown to whom it failed. */
	if (batch->err && batch->has_stored)
		batch->err = ERR_UNKNOWN;
	if (!batch->err && (b = request_reply(r))) {
		mp_put_array(b, batch->n);
		for (unsigned i = 0; i < batch->n; i++) {
			const struct batch_child *c = &batch->children[i];

			encode_result(b, (struct str){ batch->ids.data + c->id_at, c->id_len },
				      queue_agent(c->queue), c->sent);
		}
	}
	for (unsigned i = 0; i < batch->n; i++)
		queue_unpin(batch->children[i].queue);
	if (batch->err)
		request_fail(r, batch->err);
	else
		request_done(r);
	free(batch->children);
	buf_done(&batch->ids);
	free(batch);
}

static void
batch_on_sent(void *arg, enum err err, enum sent sent)
{
	struct batch_child *child = arg;
	struct batch *batch = child->batch;

	child->sent = sent;
	if (!err)
		batch->has_stored = true;
	else if (!batch->err || err == ERR_UNKNOWN)
		batch->err = err;
	if (--batch->pending == 0)
		batch_finish(batch);
}

static void
batch_send(struct batch *batch, unsigned i, struct session *s, const struct agent_id *sender,
	   const struct send_item *item)
{
	struct batch_child *child = &batch->children[i];

	child->batch = batch;
	child->queue = queue_of(s, &item->recipient);
	child->id_at = batch->ids.len;
	child->id_len = item->message.id.n;
	buf_put(&batch->ids, item->message.id.p, item->message.id.n);
	queue_pin(child->queue);
	queue_send(child->queue, sender, &item->message, item->delay, item->has_ttl, item->ttl,
		   batch_on_sent, child);
}

enum err
api_send_batch(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	struct batch *batch =
		batch_new(request_new(s, rpc, METHOD_send_batch, STR("")), p->messages.n);

	(void)why;
	for (unsigned i = 0; i < batch->n; i++)
		batch_send(batch, i, s, &p->sender, &p->messages.sends[i]);
	return OK;
}

/* Recipients that Redis names ----------------------------------------------------------------------- */

struct fanout {
	struct request *request;
	struct agent_id sender;
	struct message message;
	struct buf bytes; /* what these two borrow */
};

static struct str
keep(struct buf *b, struct str s)
{
	size_t at = b->len;

	buf_put(b, s.p, s.n);
	return (struct str){ b->data + at, s.n };
}

/* What lies in the message's map lies in the copy of it. */
static void
move_into(struct str *part, struct str from, struct str to)
{
	if (part->n && part->p >= from.p && part->p < from.p + from.n)
		part->p = to.p + (part->p - from.p);
}

static struct fanout *
fanout_new(struct session *s, const struct rpc *rpc, enum method method, const struct params *p)
{
	struct fanout *f = xcalloc(1, sizeof(*f));
	struct str map = p->message.map;

	f->request = request_new(s, rpc, method, STR(""));
	f->message = p->message;
	buf_reserve(&f->bytes, map.n + p->sender.type.n + p->sender.instance.n);
	f->message.map = keep(&f->bytes, map);
	move_into(&f->message.id, map, f->message.map);
	move_into(&f->message.payload, map, f->message.map);
	move_into(&f->message.timestamp, map, f->message.map);
	f->sender.type = keep(&f->bytes, p->sender.type);
	f->sender.instance = keep(&f->bytes, p->sender.instance);
	session_pause(s, true);
	return f;
}

static void
fanout_on_agents(void *arg, enum err err, const struct agent_id *agents, unsigned n)
{
	struct fanout *f = arg;
	struct request *r = f->request;
	struct session *s = r->session;
	struct send_item item = { .message = f->message };
	struct errmsg why;
	struct buf *b;

	session_pause(s, false);
	if (err) {
		request_fail(r, err);
	} else if (n > API_MAX_BATCH) {
		errmsg_set(
			&why, ERR_TOO_LARGE,
			"more than %d agents are meant; nothing was sent: name them in parts",
			API_MAX_BATCH);
		request_refuse(r, &why);
	} else if (!n) {
		b = request_reply(r);
		if (b)
			mp_put_array(b, 0);
		request_done(r);
	} else {
		struct batch *batch = batch_new(r, n);

		for (unsigned i = 0; i < n; i++) {
			item.recipient = agents[i];
			batch_send(batch, i, s, &f->sender, &item);
		}
	}
	buf_done(&f->bytes);
	free(f);
}

enum err
api_publish(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	(void)why;
	events_subscribers(s->api->events, str_of(s->namespace), p->message.type,
			   API_MAX_BATCH + 1, fanout_on_agents,
			   fanout_new(s, rpc, METHOD_publish, p));
	return OK;
}

enum err
api_broadcast(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	struct send_item item = { .message = p->message };
	struct batch *batch;

	if (!(p->have & (F(recipients) | F(type))) ||
	    (p->have & (F(recipients) | F(type))) == (F(recipients) | F(type)))
		return errmsg_set(why, ERR_BAD_REQUEST, "give either recipients or type");
	if (p->have & F(type)) {
		events_live(s->api->events, str_of(s->namespace), p->type, API_MAX_BATCH + 1,
			    fanout_on_agents, fanout_new(s, rpc, METHOD_broadcast, p));
		return OK;
	}
	batch = batch_new(request_new(s, rpc, METHOD_broadcast, STR("")), p->recipients.n);
	for (unsigned i = 0; i < batch->n; i++) {
		list_next_agent(&p->recipients, &item.recipient);
		batch_send(batch, i, s, &p->sender, &item);
	}
	return OK;
}
