/*
 * settle: end, hand back or prolong one reservation. The token alone says where Redis keeps it, so
 * any broker can settle what any other handed out.
 */
#include <stdlib.h>

#include "base/mem.h"
#include "queue/pack.h"
#include "queue/tick.h"

/* What the kind needs besides the token. */
static void
put_extra(struct args *args, const struct token *token, const struct settle_how *how)
{
	char *to;

	switch (how->kind) {
	case SETTLE_ACK:
		break;
	case SETTLE_NACK:
		to = args_reserve(args, 1 + 7 + 8 + how->error.n);
		to = pack_uint(to, 1,
			       (how->permanent ? 1 : 0) | (how->has_delay ? 2 : 0) |
				       (how->has_error ? 4 : 0));
		to = pack_uint(to, 7, how->delay_us);
		to = pack_double(to, 2 * id_random_unit() - 1);
		if (how->error.n)
			memcpy(to, how->error.p, how->error.n);
		break;
	case SETTLE_RELEASE:
		if (how->has_delay && how->delay_us)
			args_uint(args, how->delay_us);
		else
			args_str(args, STR(""));
		break;
	case SETTLE_EXTEND:
		to = args_reserve(args, 14);
		to = pack_uint(to, 7, token->lease ? 0 : how->visibility_us);
		pack_uint(to, 7, token->deadline_us);
		break;
	case SETTLE_FAIL:
		args_str(args, how->error);
		break;
	}
}

void
queue_settle(struct queue *q, const struct token *token, const struct settle_how *how,
	     settle_cb *cb, void *arg)
{
	struct tick *t = tick_open(q, false, how->error.n + 128, 0);
	struct tick_settle *s;

	if (t->nsettles == t->max_settles) {
		t->max_settles = t->max_settles ? 2 * t->max_settles : 8;
		t->settles = xrealloc(t->settles, t->max_settles * sizeof(*t->settles));
	}
	s = &t->settles[t->nsettles++];
	*s = (struct tick_settle){ .cb = cb,
				   .arg = arg,
				   .kind = how->kind,
				   .permanent = how->permanent,
				   .token = *token };
	if (how->kind == SETTLE_ACK) {
		t->acked_bytes += token->size;
		return;
	}
	t->has_others = true;
	t->returns += how->kind != SETTLE_EXTEND;
	s->from = t->settle_args.buf.len;
	put_extra(&t->settle_args, token, how);
	s->len = t->settle_args.buf.len - s->from;
}
