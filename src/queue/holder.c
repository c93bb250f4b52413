/* holder: for whom a heartbeat lease is. Its receives share it, and all of them are of one incarnation. */
#include <stdlib.h>

#include "base/mem.h"
#include "queue/tick.h"
#include "store/keys.h"

struct holder *
queue_holder(const struct queue *q, const struct agent_id *agent)
{
	struct holder *h = xcalloc(1, sizeof(*h));
	struct buf b = { 0 };

	buf_put(&b, q->base + q->name_off, q->ns_len);
	buf_putc(&b, ':');
	key_put_part(&b, agent->type);
	buf_putc(&b, ':');
	key_put_part(&b, agent->instance);
	h->name = b.data;
	h->name_len = b.len;
	h->refs = 1;
	return h;
}

struct holder *
holder_ref(struct holder *h)
{
	if (h)
		h->refs++;
	return h;
}

void
holder_unref(struct holder *h)
{
	if (!h || --h->refs)
		return;
	free(h->name);
	free(h);
}

bool
holder_is_same(const struct holder *a, const struct holder *b)
{
	if (!a || !b)
		return a == b;
	return a == b || (a->incarnation == b->incarnation &&
			  str_eq((struct str){ a->name, a->name_len },
				 (struct str){ b->name, b->name_len }));
}
