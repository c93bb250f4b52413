/*
 * consume: keep one consumer supplied, and never with more than its prefetch.
 *
 *	consume_on_look()	are places free? ask for as many as are  <-------.
 *	consume_on_items()	they came: the owner holds them                  |
 *	consume_let_go()	one was settled: its place is free             --'
 *	consume_check()		no place is free: ask Redis for those that were settled
 *	consume_on_checked()	through another broker, or taken back          --'
 *	consume_finish()	the only exit, once no call is under way
 *
 * It asks by one receive that is parked among all others of the queue, so its turn comes as everybody's does. While
 * others wait too it takes small bites, doubled as long as it gets all it asked for: a burst is shared, and a backlog
 * still moves in large calls.
 *
 * When Redis is away, or the holder of its heartbeat leases is not alive, it goes on asking with pauses; nobody has to be told.
 */
#include <assert.h>
#include <stdlib.h>

#include "base/backoff.h"
#include "base/mem.h"
#include "queue/tick.h"

enum {
	FIRST_BITE = 8,
	MAX_BITE = 1024,
	/* A place that was freed elsewhere is seen at most CHECK_US + YOUNG_US later: what was handed out less than
	 * YOUNG_US ago is not asked for, so a consumer that settles fast costs no checks. */
	CHECK_US = 500000,
	YOUNG_US = 200000,
	RETRY_MIN_US = 50000,
	RETRY_MAX_US = 1000000,
};
#define FOREVER_US (100ull * 365 * 86400 * 1000000)

struct consume {
	TAILQ_ENTRY(consume) link; /* in queue->consumers */
	struct queue *queue;       /* pinned */
	uint64_t visibility_us;
	struct holder *holder; /* of heartbeat leases, else NULL */
	unsigned prefetch, nheld;
	unsigned bite;                    /* while others want some, too */
	TAILQ_HEAD(held_list, held) held; /* in the order of their fences */
	struct receive *receive;          /* while it asks or waits */
	struct defer look;
	struct timer again;
	struct backoff backoff;
	uint64_t retry_at_us, check_at_us; /* not before, our clock */
	bool is_checking, is_over;
	const struct consume_ops *ops;
	void *arg;
};

/* Looking at it once a turn is enough, whatever happened to it. */
static void consume_on_look(void *arg);

void
consume_look(struct consume *c)
{
	if (!c->is_over)
		loop_defer(c->queue->queues->loop, &c->look, consume_on_look, c);
}

void
consumers_look(struct queue *q)
{
	struct consume *c;

	TAILQ_FOREACH (c, &q->consumers, link) {
		consume_look(c);
	}
}

static bool
consume_finish(struct consume *c)
{
	if (c->receive || c->is_checking)
		return false;
	queue_unpin(c->queue);
	holder_unref(c->holder);
	free(c);
	return true;
}

/* What it holds --------------------------------------------------------------------------------- */

void
consume_hold(struct consume *c, struct held *held, const struct token *token)
{
	held->consume = c;
	held->token = token;
	held->since_us = loop_now_us(c->queue->queues->loop);
	held->asked = 0;
	TAILQ_INSERT_TAIL(&c->held, held, link);
	c->nheld++;
}

void
consume_let_go(struct held *held)
{
	struct consume *c = held->consume;

	TAILQ_REMOVE(&c->held, held, link);
	held->consume = NULL;
	c->nheld--;
	consume_look(c);
}

struct held *
consume_last(const struct consume *c)
{
	return TAILQ_LAST(&c->held, held_list);
}

/* Places that were freed elsewhere --------------------------------------------------------------- */

static void
consume_on_checked(void *arg, enum err err, const struct reply *reply)
{
	struct consume *c = arg;
	struct str there = reply_str(reply);
	struct held *held, *next;

	c->is_checking = false;
	if (c->is_over) {
		void *owner = c->arg;
		const struct consume_ops *ops = c->ops;

		if (consume_finish(c))
			ops->on_ended(owner);
		return;
	}
	for (held = TAILQ_FIRST(&c->held); !err && held; held = next) {
		next = TAILQ_NEXT(held, link);
		if (held->asked && held->asked <= there.n && there.p[held->asked - 1] == '0')
			c->ops->on_gone(c->arg, held);
	}
	consume_look(c);
}

/* The tokens as the script takes them: a bucket, then all fields in it. Returns how many. */
static unsigned
put_tokens(struct args *args, struct consume *c, uint64_t now)
{
	char bucket[TOKEN_BUCKET_MAX], last[TOKEN_BUCKET_MAX];
	struct buf fields = { 0 };
	size_t last_len = 0;
	unsigned n = 0;
	struct held *held;

	TAILQ_FOREACH (held, &c->held, link) {
		size_t len;

		held->asked = 0;
		if (held->since_us + YOUNG_US > now)
			continue;
		held->asked = ++n;
		len = token_bucket(bucket, held->token);
		if (fields.len && (len != last_len || memcmp(bucket, last, len) != 0)) {
			args_str(args, (struct str){ last, last_len });
			args_str(args, buf_str(&fields));
			buf_clear(&fields);
		}
		memcpy(last, bucket, len);
		last_len = len;
		token_field(buf_reserve(&fields, TOKEN_FIELD_LEN), held->token);
		fields.len += TOKEN_FIELD_LEN;
	}
	if (fields.len) {
		args_str(args, (struct str){ last, last_len });
		args_str(args, buf_str(&fields));
	}
	buf_done(&fields);
	return n;
}

static void
consume_check(struct consume *c, uint64_t now)
{
	struct args args = { 0 };

	if (c->is_checking)
		return;
	if (now < c->check_at_us) {
		timer_at_most(&c->again, c->check_at_us - now);
		return;
	}
	c->check_at_us = now + CHECK_US;
	args_str(&args, (struct str){ c->queue->base, c->queue->base_len });
	if (put_tokens(&args, c, now)) {
		c->is_checking = true;
		store_run(c->queue->queues->store, SCRIPT_HELD, 1, &args, consume_on_checked,
			  c);
	} else {
		timer_at_most(&c->again, CHECK_US);
	}
	args_done(&args);
}

/* Asking ----------------------------------------------------------------------------------------- */

static void
consume_on_items(void *arg, enum err err, const struct reservation *res, unsigned n)
{
	struct consume *c = arg;
	const struct consume_ops *ops = c->ops;
	void *owner = c->arg;
	unsigned asked = c->receive->max;

	c->receive = NULL;
	if (n) {
		backoff_reset(&c->backoff);
		if (n == asked && c->bite < MAX_BITE)
			c->bite *= 2;
		else if (n < asked && c->bite > FIRST_BITE)
			c->bite /= 2;
		ops->on_messages(owner, res, n);
	}
	if (!c->is_over) {
		if (err)
			c->retry_at_us =
				loop_now_us(c->queue->queues->loop) + backoff_next(&c->backoff);
		consume_look(c);
	} else if (consume_finish(c)) {
		ops->on_ended(owner);
	}
}

/* Nobody else wants what comes now. */
static bool
is_alone(const struct consume *c)
{
	const struct queue *q = c->queue;
	struct tick *t;

	if (q->nconsumers > 1 || q->nparked > (c->receive ? 1 : 0))
		return false;
	TAILQ_FOREACH (t, &q->ticks, link) {
		const struct receive *r = TAILQ_FIRST(&t->receives);

		if (r && (r != c->receive || TAILQ_NEXT(r, link)))
			return false;
	}
	return true;
}

/* How many to ask for. */
static unsigned
consume_bite(const struct consume *c, unsigned room)
{
	return room < c->bite || is_alone(c) ? room : c->bite;
}

/* How many more it may hold. */
static unsigned
consume_room(const struct consume *c)
{
	unsigned max = queue_policy(c->queue)->max_inflight;

	if (!max || max > c->prefetch)
		max = c->prefetch;
	return max > c->nheld ? max - c->nheld : 0;
}

static void
consume_on_look(void *arg)
{
	struct consume *c = arg;
	struct queues *queues = c->queue->queues;
	uint64_t now = loop_now_us(queues->loop);
	unsigned room = consume_room(c);

	if (queues->is_ending) {
		if (c->nheld)
			consume_check(c, now); /* somebody may wait until they are settled */
		return;
	}
	if (!room && c->receive && !receive_end_wait(c->receive))
		c->receive = NULL; /* it asked when it might hold more */
	if (!room)
		consume_check(c, now);
	else if (c->receive)
		receive_want(c->receive, consume_bite(c, room));
	else if (now < c->retry_at_us)
		timer_at_most(&c->again, c->retry_at_us - now);
	else if (!c->ops->is_blocked(c->arg))
		c->receive = queue_receive(c->queue, c->visibility_us, holder_ref(c->holder),
					   consume_bite(c, room), FOREVER_US, consume_on_items,
					   NULL, c);
}

static void
consume_on_time(void *arg)
{
	consume_look(arg);
}

/* Begin and end ---------------------------------------------------------------------------------- */

struct consume *
queue_consume(struct queue *q, uint64_t visibility_us, struct holder *holder, unsigned prefetch,
	      const struct consume_ops *ops, void *arg)
{
	struct consume *c = xcalloc(1, sizeof(*c));

	c->queue = q;
	queue_pin(q);
	c->visibility_us = visibility_us;
	c->holder = holder;
	c->prefetch = prefetch;
	c->bite = FIRST_BITE;
	c->backoff = (struct backoff){ .min_us = RETRY_MIN_US, .max_us = RETRY_MAX_US };
	c->ops = ops;
	c->arg = arg;
	TAILQ_INIT(&c->held);
	timer_init(&c->again, q->queues->loop, consume_on_time, c);
	TAILQ_INSERT_TAIL(&q->consumers, c, link);
	if (++q->nconsumers == 2)
		consume_look(TAILQ_FIRST(&q->consumers)); /* it is not alone any more */
	consume_look(c);
	return c;
}

bool
consume_end(struct consume *c)
{
	struct queue *q = c->queue;

	assert(TAILQ_EMPTY(&c->held));
	c->is_over = true;
	TAILQ_REMOVE(&q->consumers, c, link);
	q->nconsumers--;
	defer_cancel(q->queues->loop, &c->look);
	timer_done(&c->again);
	if (c->receive && !receive_end_wait(c->receive))
		c->receive = NULL;
	return !consume_finish(c);
}

void
queues_resume(struct queues *queues)
{
	struct queue *q, *next;
	struct consume *c;

	queues->is_ending = false;
	HASH_ITER (hh, queues->by_name, q, next) {
		TAILQ_FOREACH (c, &q->consumers, link) {
			consume_look(c);
		}
	}
}

unsigned
queue_consumers(const struct queue *q)
{
	unsigned n = q->nparked;
	struct consume *c;

	TAILQ_FOREACH (c, &q->consumers, link) {
		n += !c->receive || c->receive->state != RECEIVE_PARKED;
	}
	return n;
}
