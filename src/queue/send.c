/*
 * send: accept one message for one queue. It travels with the next call of the queue; how the
 * script decides between stored, full and duplicate stands in src/store/lua/tick.lua.
 */
#include <stdlib.h>

#include "base/mem.h"
#include "queue/tick.h"

static void
put_delay(struct tick *t, uint64_t delay_us)
{
	if (delay_us && !t->has_delays) {
		t->has_delays = true;
		for (unsigned i = 0; i + 1 < t->nsends; i++)
			args_str(&t->delay_args, STR(""));
	}
	if (delay_us)
		args_uint(&t->delay_args, delay_us);
	else if (t->has_delays)
		args_str(&t->delay_args, STR(""));
}

void
queue_send(struct queue *q, const struct agent_id *sender, const struct message *message,
	   uint64_t delay_us, bool has_ttl, uint64_t ttl_us, send_cb *cb, void *arg)
{
	const struct queue_policy *policy = queue_policy(q);
	struct tick *t = tick_open(q, true, message->map.n + 64, 0);
	uint64_t now = store_now_us(q->queues->store);
	struct tick_send *s;

	if (!has_ttl && policy->ttl_us) {
		has_ttl = true;
		ttl_us = policy->ttl_us;
	}
	if (t->nsends == t->max_sends) {
		t->max_sends = t->max_sends ? 2 * t->max_sends : 8;
		t->sends = xrealloc(t->sends, t->max_sends * sizeof(*t->sends));
	}
	s = &t->sends[t->nsends++];
	*s = (struct tick_send){ .cb = cb, .arg = arg };
	t->priorities |= message->priority == 9 ? 4 : message->priority == 5 ? 2 : 1;
	put_delay(t, delay_us);
	s->len = (uint32_t)item_put(
		&t->item_args, sender, message, now, has_ttl ? now + delay_us + ttl_us : 0,
		policy->dedup_window_us
			? (uint8_t *)args_reserve(&t->digest_args, ITEM_DIGEST_LEN)
			: NULL);
	s->end = t->item_args.buf.len - 2; /* the argument's line end */
	s->priority = message->priority == 9 ? 0 : message->priority == 5 ? 1 : 2;
	t->sent_bytes += s->len;
	t->has_ttl = t->has_ttl || has_ttl;
	t->has_ttl0 = t->has_ttl0 || (has_ttl && !ttl_us && !delay_us);
}
