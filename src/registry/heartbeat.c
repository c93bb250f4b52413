/*
 * heartbeat: agents live. There are many of them and each is little work, so they travel together: those of one turn of the
 * loop, and where they come in a steady stream those of 10 ms. A heartbeat is not in a hurry, and what a call costs is
 * mostly that it is one.
 *
 *	registry_heartbeat()	leaves at the end of this turn, or with those of the next milliseconds
 *	registry_flush()	leaves now
 */
#include <stdlib.h>

#include "base/mem.h"
#include "registry/own.h"
#include "store/keys.h"

enum { MAX_BEATS = 512, MAX_BYTES = 256 * 1024 }; /* of one call */
enum { GATHER_US = 10000, LONE = 16 };

struct beat {
	heartbeat_cb *cb;
	void *arg;
};

struct beats {
	struct args args;
	unsigned n;
	struct beat list[MAX_BEATS];
};

static void
beats_finish(struct beats *beats, enum err err, const struct reply *reply)
{
	for (unsigned i = 0; i < beats->n; i++) {
		const struct beat *beat = &beats->list[i];
		int64_t ttl_us = reply_int(reply_at(reply, i), -1);

		if (!err && ttl_us < 0)
			beat->cb(beat->arg, ERR_NOT_FOUND, 0);
		else
			beat->cb(beat->arg, err, err ? 0 : (uint64_t)ttl_us);
	}
	args_done(&beats->args);
	free(beats);
}

static void
beats_on_reply(void *arg, enum err err, const struct reply *reply)
{
	struct beats *beats = arg;

	if (!err && (reply->type != REPLY_ARRAY || reply->count != beats->n))
		err = ERR_INTERNAL;
	beats_finish(beats, err, reply);
}

void
registry_flush(struct registry *r)
{
	struct beats *beats = r->open;

	if (!beats)
		return;
	r->open = NULL;
	r->sent_us = loop_now_us(r->loop);
	defer_cancel(r->loop, &r->turn);
	timer_clear(&r->gather);
	store_run(r->store, SCRIPT_BEAT, 0, &beats->args, beats_on_reply, beats);
}

static void
flush(void *arg)
{
	registry_flush(arg);
}

static void
on_gathered(void *arg)
{
	struct registry *r = arg;

	/* In vain: perhaps somebody sends one after the other, and waits for each. */
	if (r->open && r->open->n == 1)
		r->lone = LONE;
	registry_flush(r);
}

static void
leave_soon(struct registry *r)
{
	uint64_t gone_us = loop_now_us(r->loop) - r->sent_us;

	if (gone_us < GATHER_US && !r->lone) {
		timer_set(&r->gather, GATHER_US - gone_us);
		return;
	}
	if (r->lone)
		r->lone--;
	loop_defer(r->loop, &r->turn, flush, r);
}

void
heartbeats_init(struct registry *r)
{
	timer_init(&r->gather, r->loop, on_gathered, r);
}

void
heartbeats_done(struct registry *r)
{
	defer_cancel(r->loop, &r->turn);
	timer_done(&r->gather);
	if (r->open)
		beats_finish(r->open, ERR_UNSENT, NULL);
	r->open = NULL;
}

void
registry_heartbeat(struct registry *r, struct str ns, const struct heartbeat *heartbeat,
		   heartbeat_cb *cb, void *arg)
{
	char room[KEY_NAME_MAX];
	struct str name = { room, key_name(room, ns, heartbeat->agent.type,
					   heartbeat->agent.instance) };
	struct beats *beats = r->open;

	if (!beats) {
		r->open = beats = xcalloc(1, sizeof(*beats));
		args_str(&beats->args, str_of(r->prefix));
		leave_soon(r);
	}
	agent_counts(name)->heartbeats[0]++;
	args_str(&beats->args, name);
	args_uint_if(&beats->args, heartbeat->has_incarnation, heartbeat->incarnation);
	args_str(&beats->args, heartbeat->status);
	args_str(&beats->args, heartbeat->state);
	beats->list[beats->n++] = (struct beat){ cb, arg };
	if (beats->n == MAX_BEATS || beats->args.buf.len >= MAX_BYTES)
		registry_flush(r);
}
