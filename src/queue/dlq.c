/*
 * dlq: put dead letters back, or drop them.
 *
 *	queue_dlq_move()	ask for at most 200 <-.
 *	move_on_reply()		enough, or the rest --'
 */
#include <stdlib.h>

#include "base/mem.h"
#include "queue/tick.h"

struct move {
	struct queue *queue;
	bool redrive;
	struct args wanted; /* ids, then message ids */
	unsigned nids;
	struct buf after;
	uint64_t limit, count; /* limit 0: all */
	count_cb *cb;
	void *arg;
};

static void move_step(struct move *m);

static void
move_finish(struct move *m, enum err err)
{
	m->cb(m->arg, err, m->count);
	args_done(&m->wanted);
	buf_done(&m->after);
	queue_unpin(m->queue);
	free(m);
}

static void
move_on_reply(void *arg, enum err err, const struct reply *reply)
{
	struct move *m = arg;
	struct str last;
	uint64_t moved;

	if (err) {
		move_finish(m, err);
		return;
	}
	moved = (uint64_t)reply_int(reply_at(reply, 0), 0);
	m->count += moved;
	if (m->redrive)
		m->queue->counts->redriven[0] += moved;
	else
		m->queue->counts->purged[1] += moved;
	last = reply_str(reply_at(reply, 1));
	buf_clear(&m->after);
	buf_put(&m->after, last.p, last.n);
	if (reply_int(reply_at(reply, 2), 0) && (!m->limit || m->count < m->limit))
		move_step(m);
	else
		move_finish(m, OK);
}

static void
move_step(struct move *m)
{
	struct args args = { 0 };

	args_policy(&args, m->queue);
	args_str(&args, buf_str(&m->after));
	args_uint(&args, m->limit ? m->limit - m->count : 1000000000);
	args_uint(&args, m->nids);
	args_copy(&args, &m->wanted);
	queue_script(m->queue, m->redrive ? SCRIPT_DLQ_REDRIVE : SCRIPT_DLQ_PURGE,
		     m->redrive ? STR("redrive") : STR("purge"), &args, move_on_reply, m);
	args_done(&args);
}

/* In the form in which the script finds it in an item. */
static void
put_message_id(struct args *args, struct str id)
{
	uint8_t uuid[UUID_BYTES];
	bool is_uuid = uuid_read(uuid, id);
	char *to = args_reserve(args, 1 + (is_uuid ? sizeof(uuid) : id.n));

	*to++ = is_uuid ? 'u' : 't';
	memcpy(to, is_uuid ? (const char *)uuid : id.p, is_uuid ? sizeof(uuid) : id.n);
}

void
queue_dlq_move(struct queue *q, bool redrive, struct list ids, struct list message_ids,
	       uint64_t limit, count_cb *cb, void *arg)
{
	struct move *m = xcalloc(1, sizeof(*m));

	queue_pin(q);
	m->queue = q;
	m->redrive = redrive;
	m->nids = ids.n;
	m->limit = limit;
	m->cb = cb;
	m->arg = arg;
	buf_puts(&m->after, "0");
	for (uint32_t i = 0; i < ids.n; i++)
		args_str(&m->wanted, list_next_text(&ids));
	for (uint32_t i = 0; i < message_ids.n; i++)
		put_message_id(&m->wanted, list_next_text(&message_ids));
	move_step(m);
}
