/*
 * receive: reserve the next due messages of one queue.
 *
 *	queue_receive()		the client asked; it joins the next call of the queue
 *	receive_on_items()	that call brought something, or nothing   <-.
 *	receive_park()		wait for a message or the deadline        --'
 *	receive_finish()	the only exit: answer, or release; free
 *
 * The client may leave at any moment. What was reserved for nobody is released at once, so a lost
 * connection costs one round trip and not a whole visibility timeout.
 */
#include <stdlib.h>

#include "base/mem.h"
#include "queue/tick.h"

static void
release_all(struct queue *q, const struct reservation *res, unsigned n)
{
	struct settle_how how = { .kind = SETTLE_RELEASE };

	/* The last one first: where they take several calls, the first one is at the head in the end. */
	while (n)
		queue_settle(q, &res[--n].token, &how, NULL, NULL);
}

static void
leave_parked(struct receive *r)
{
	struct queue *q = r->queue;

	TAILQ_REMOVE(&q->parked, r, link);
	q->queues->nparked--;
	if (--q->nparked == 0)
		TAILQ_REMOVE(&q->queues->with_parked, q, parked_link);
	queue_mark_dirty(q); /* it may be idle now */
}

static void
receive_finish(struct receive *r, enum err err, const struct reservation *res, unsigned n)
{
	bool was_parked = r->wait.loop;

	if (r->state == RECEIVE_PARKED)
		leave_parked(r);
	timer_done(&r->wait);
	if (r->is_cancelled) {
		release_all(r->queue, res, n);
	} else {
		if (r->on_park && was_parked)
			r->on_park(r->arg, false);
		r->cb(r->arg, err, res, n);
	}
	holder_unref(r->holder);
	pool_put(r, sizeof(*r));
}

static bool
is_wait_over(const struct receive *r)
{
	return loop_now_us(r->queue->queues->loop) >= r->until_us;
}

bool
receive_on_items(struct receive *r, enum err err, const struct reservation *res, unsigned n)
{
	struct queues *queues = r->queue->queues;

	if (!err && !n && !r->is_cancelled && !is_wait_over(r)) {
		if (!queues->is_ending)
			return false;
		err = queues->end_err;
	}
	receive_finish(r, err, res, n);
	return true;
}

static void
receive_on_wait_over(void *arg)
{
	struct receive *r = arg;

	/* While a call asks for it, its answer decides. */
	if (r->state == RECEIVE_PARKED)
		receive_finish(r, store_is_ready(r->queue->queues->store) ? OK : ERR_UNSENT,
			       NULL, 0);
}

/* Behind those who asked before: nearly always that is one of the ends. */
static void
insert_parked(struct queue *q, struct receive *r)
{
	struct receive *other = TAILQ_FIRST(&q->parked);

	if (!other || TAILQ_LAST(&q->parked, receives)->number < r->number) {
		TAILQ_INSERT_TAIL(&q->parked, r, link);
		return;
	}
	while (other->number < r->number)
		other = TAILQ_NEXT(other, link);
	TAILQ_INSERT_BEFORE(other, r, link);
}

void
receive_park(struct receive *r)
{
	struct queue *q = r->queue;

	if (!r->wait.loop) {
		uint64_t now = loop_now_us(q->queues->loop);

		timer_init(&r->wait, q->queues->loop, receive_on_wait_over, r);
		timer_set(&r->wait, r->until_us > now ? r->until_us - now : 0);
		if (r->on_park)
			r->on_park(r->arg, true);
	}
	if (r->next_max)
		r->max = r->next_max;
	r->state = RECEIVE_PARKED;
	insert_parked(q, r);
	q->queues->nparked++;
	if (q->nparked++ == 0)
		TAILQ_INSERT_TAIL(&q->queues->with_parked, q, parked_link);
	else if (q->nparked == 2 && q->nconsumers == 1)
		consume_look(TAILQ_FIRST(&q->consumers)); /* it is not alone any more */
}

struct receive *
queue_receive(struct queue *q, uint64_t visibility_us, struct holder *holder, unsigned max,
	      uint64_t wait_us, receive_cb *cb, receive_park_cb *on_park, void *arg)
{
	struct tick *t = tick_open(q, false, 0, max);
	struct receive *r = pool_get(sizeof(*r));

	r->queue = q;
	r->number = ++q->queues->nreceives;
	r->max = max;
	r->holder = holder;
	r->visibility_us = holder ? queue_policy(q)->max_lease_us : visibility_us;
	r->width = token_width(r->visibility_us);
	r->since_us = loop_now_us(q->queues->loop);
	r->until_us = r->since_us + wait_us;
	r->cb = cb;
	r->on_park = on_park;
	r->arg = arg;
	TAILQ_INSERT_TAIL(&t->receives, r, link);
	t->wanted += max;
	if (q->nconsumers == 1)
		consume_look(TAILQ_FIRST(&q->consumers)); /* it is not alone any more */
	return r;
}

void
receive_cancel(struct receive *r)
{
	r->is_cancelled = true;
	if (r->state == RECEIVE_PARKED)
		receive_finish(r, OK, NULL, 0);
	/* Else a call will carry it, or does: its answer finds nobody to tell. */
}

void
receive_want(struct receive *r, unsigned max)
{
	r->next_max = max;
	if (r->state == RECEIVE_PARKED)
		r->max = max;
}

bool
receive_end_wait(struct receive *r)
{
	if (r->state == RECEIVE_PARKED) {
		receive_cancel(r);
		return false;
	}
	r->until_us = 0;
	return true;
}
