/* sweep: the script looks at so many agents in one call, and is called until there is nothing more to do. */
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "registry/own.h"

enum { LOOK_AT = 200, MAX_STEPS = 8 };
enum { MORE = 1, LEAD = 2, DUE = 4 }; /* what the script says */

struct sweep {
	struct registry *registry;
	unsigned steps;
	agents_swept_cb *cb;
	void *arg;
};

static void sweep_step(struct sweep *s);

static void
sweep_on_reply(void *arg, enum err err, const struct reply *reply)
{
	struct sweep *s = arg;
	struct registry *r = s->registry;
	uint64_t now_us = (uint64_t)reply_int(reply_at(reply, 0), 0);
	int64_t flags = reply_int(reply_at(reply, 2), 0);

	if (!err && !now_us)
		err = ERR_INTERNAL;
	if (!err) {
		store_saw_time(r->store, now_us);
		for (uint32_t i = 3; i < reply->count; i++) {
			struct str agent = reply_str(reply_at(reply, i));

			agent_counts(agent)->lost[0]++;
			log_event(LOG_AGENT_LOST, log_str("agent", agent));
		}
		if (flags & DUE)
			r->ops->on_wake(r->arg, now_us);
	}
	/* With very much to do it comes again in the janitor's next round. */
	if (!err && flags & MORE && ++s->steps < MAX_STEPS) {
		sweep_step(s);
		return;
	}
	s->cb(s->arg, err,
	      err            ? 0
	      : flags & MORE ? now_us
			     : (uint64_t)reply_int(reply_at(reply, 1), 0),
	      !err && flags & LEAD);
	free(s);
}

static void
sweep_step(struct sweep *s)
{
	struct registry *r = s->registry;
	struct args args = { 0 };

	args_key(&args, r, "beats");
	args_str(&args, str_of(r->prefix));
	args_uint(&args, r->forget_after_us);
	args_uint(&args, LOOK_AT);
	store_run(r->store, SCRIPT_AGENTS_SWEEP, 1, &args, sweep_on_reply, s);
	args_done(&args);
}

void
registry_sweep(struct registry *r, agents_swept_cb *cb, void *arg)
{
	struct sweep *s = xcalloc(1, sizeof(*s));

	s->registry = r;
	s->cb = cb;
	s->arg = arg;
	sweep_step(s);
}
