/*
 * sweep: what is past its deadline comes back, what is due joins, what is idle is forgotten. The script
 * does at most 200 of each in a call; here it is called until there is no more.
 *
 *	queues_sweep_name()	the janitor: one queue is due         } sweep_step <-.
 *	queue_recover()		somebody asks for it now              } sweep_on_reply --'
 *	queues_recover()	for all queues of a namespace, a page at a time
 */
#include <stdlib.h>

#include "base/mem.h"
#include "queue/pack.h"
#include "queue/tick.h"
#include "store/keys.h"

enum { MAX_STEPS = 8 };

struct sweep {
	struct queue *queue;
	bool force;
	unsigned steps;
	uint64_t count;
	count_cb *on_count;
	sweep_cb *on_swept;
	void *arg;
};

static void sweep_step(struct sweep *s);

static void
sweep_finish(struct sweep *s, enum err err, uint64_t again_us, bool lead)
{
	if (s->on_swept)
		s->on_swept(s->arg, err, again_us, lead);
	else
		s->on_count(s->arg, err, s->count);
	queue_unpin(s->queue);
	free(s);
}

static void
sweep_count(struct queue *q, uint64_t taken, struct str told)
{
	uint64_t buried[3] = { 0 };

	queue_count_buried(q, told, buried);
	q->counts->visibility_expired[0] += taken;
	if (taken > buried[STAT_DEAD_ATTEMPTS])
		q->counts->retried[0] += taken - buried[STAT_DEAD_ATTEMPTS];
}

static void
sweep_on_reply(void *arg, enum err err, const struct reply *reply)
{
	struct sweep *s = arg;
	struct str head = reply_str(reply_at(reply, 0));
	unsigned flags;

	if (!err && head.n != 23)
		err = ERR_INTERNAL;
	if (err) {
		sweep_finish(s, err, 0, false);
		return;
	}
	store_saw_time(s->queue->queues->store, unpack_uint(head.p, 7));
	s->count += unpack_uint(head.p + 14, 4);
	sweep_count(s->queue, unpack_uint(head.p + 14, 4), reply_str(reply_at(reply, 1)));
	if (unpack_uint(head.p + 18, 4) && s->queue->nparked) {
		s->queue->look = true;
		queue_mark_dirty(s->queue);
	}
	flags = (unsigned)head.p[22];
	/* The janitor looks after all queues: one with very much to do comes again in its next round. */
	if (flags & 1 && (!s->on_swept || ++s->steps < MAX_STEPS))
		sweep_step(s);
	else
		sweep_finish(s, OK, unpack_uint(head.p + 7, 7), flags & 2);
}

static void
sweep_step(struct sweep *s)
{
	struct args more = { 0 };

	args_policy(&more, s->queue);
	queue_script(s->queue, SCRIPT_SWEEP, s->force ? STR("1") : STR("0"), &more,
		     sweep_on_reply, s);
	args_done(&more);
}

static void
sweep_start(struct queue *q, struct sweep how)
{
	struct sweep *s = xcalloc(1, sizeof(*s));

	*s = how;
	s->queue = q;
	queue_pin(q);
	sweep_step(s);
}

bool
queues_sweep_name(struct queues *queues, struct str name, sweep_cb *cb, void *arg)
{
	struct queue *q = queues_get_name(queues, name);

	if (q)
		sweep_start(q, (struct sweep){ .on_swept = cb, .arg = arg });
	return q;
}

void
queue_recover(struct queue *q, count_cb *cb, void *arg)
{
	sweep_start(q, (struct sweep){ .force = true, .on_count = cb, .arg = arg });
}

/* All of a namespace ----------------------------------------------------------------------------- */

enum { RECOVER_STEP = 100 };

struct recover {
	struct queues *queues;
	char *ns;
	struct buf after;
	unsigned pending, listed;
	uint64_t count;
	enum err err;
	count_cb *cb;
	void *arg;
};

static void recover_on_list(void *arg, enum err err, const struct str *names,
			    const struct queue_stats *stats, unsigned n);

static void
recover_step(struct recover *r)
{
	queues_list(r->queues, str_of(r->ns), STR(""), buf_str(&r->after), RECOVER_STEP,
		    recover_on_list, r);
}

static void
recover_next(struct recover *r)
{
	if (r->pending)
		return;
	if (!r->err && r->listed == RECOVER_STEP) {
		recover_step(r);
		return;
	}
	r->cb(r->arg, r->err, r->count);
	free(r->ns);
	buf_done(&r->after);
	free(r);
}

static void
recover_on_count(void *arg, enum err err, uint64_t count)
{
	struct recover *r = arg;

	r->count += count;
	if (err && r->err != ERR_UNKNOWN)
		r->err = err;
	r->pending--;
	recover_next(r);
}

static void
recover_on_list(void *arg, enum err err, const struct str *names,
		const struct queue_stats *stats, unsigned n)
{
	struct recover *r = arg;

	(void)stats;
	r->err = err;
	r->listed = err ? 0 : n;
	for (unsigned i = 0; !err && i < n; i++) {
		struct queue *q = queues_get_name(r->queues, names[i]);

		if (!q)
			continue;
		r->pending++;
		queue_recover(q, recover_on_count, r);
	}
	if (!err && n) {
		/* `after` is within the namespace: type and instance. */
		const char *colon = memchr(names[n - 1].p, ':', names[n - 1].n);
		size_t skip = (size_t)(colon - names[n - 1].p) + 1;

		buf_clear(&r->after);
		buf_put(&r->after, names[n - 1].p + skip, names[n - 1].n - skip);
	}
	recover_next(r);
}

void
queues_recover(struct queues *queues, struct str ns, count_cb *cb, void *arg)
{
	struct recover *r = xcalloc(1, sizeof(*r));

	r->queues = queues;
	r->ns = xmemdup(ns.p, ns.n);
	r->cb = cb;
	r->arg = arg;
	recover_step(r);
}
