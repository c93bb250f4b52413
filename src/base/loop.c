#include "base/loop.h"

#include <stdlib.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/stats.h"

enum { MAX_ROUNDS = 3 };

struct loop {
	struct event_base *base;
	uint64_t now_us;
	uint64_t
		began_us; /* this turn, or rather when the clock was first read in it; 0 not yet */
	bool is_now_stale; /* the clock is read by the first who asks in a turn */
	bool stop;
	TAILQ_HEAD(, defer) deferred;
	struct {
		void (*fn)(void *arg);
		void *arg;
	} hooks[TURN_STAGES];
};

uint64_t
loop_clock_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* libevent's own troubles go into the log. What it cannot live with is for want of something that the
 * system should have given: it would exit with 1. */
static void
on_library_log(int severity, const char *text)
{
	if (severity >= EVENT_LOG_WARN)
		log_event(LOG_SERVER_LIBRARY, log_text("text", text));
}

static void
on_library_fatal(int err)
{
	(void)err;
	_exit(EX_OSERR);
}

struct loop *
loop_new(void)
{
	struct event_config *cfg = event_config_new();
	struct loop *loop = xcalloc(1, sizeof(*loop));

	event_set_log_callback(on_library_log);
	event_set_fatal_callback(on_library_fatal);
	TAILQ_INIT(&loop->deferred);
	loop->now_us = loop_clock_us();
	if (cfg) {
		event_config_set_flag(cfg, EVENT_BASE_FLAG_NOLOCK);
		loop->base = event_base_new_with_config(cfg);
		event_config_free(cfg);
	}
	if (loop->base)
		return loop;
	free(loop);
	return NULL;
}

void
loop_free(struct loop *loop)
{
	if (!loop)
		return;
	event_base_free(loop->base);
	free(loop);
}

struct event_base *
loop_base(struct loop *loop)
{
	return loop->base;
}

/* What a deferred call defers runs in the same turn too; the bound keeps a ping-pong from starving I/O. */
static void
run_deferred(struct loop *loop)
{
	struct defer *d;

	for (unsigned n = 0; n < 100000 && (d = TAILQ_FIRST(&loop->deferred)); n++) {
		TAILQ_REMOVE(&loop->deferred, d, link);
		d->is_queued = false;
		d->fn(d->arg);
	}
}

void
loop_turn(struct loop *loop, bool block)
{
	int flags = EVLOOP_ONCE;

	if (!block || !TAILQ_EMPTY(&loop->deferred))
		flags |= EVLOOP_NONBLOCK;
	/* What came while this was worked off belongs to this turn as well: fewer, larger calls and writes. Where one
	 * event comes at a time, looking again would find nothing. */
	for (unsigned round = 0; round < MAX_ROUNDS; round++) {
		loop->is_now_stale = true;
		event_base_loop(loop->base, flags);
		run_deferred(loop);
		if (event_base_get_max_events(loop->base, EVENT_BASE_COUNT_ACTIVE, 1) < 2)
			break;
		flags |= EVLOOP_NONBLOCK;
	}
	for (unsigned i = 0; i < TURN_STAGES; i++)
		if (loop->hooks[i].fn)
			loop->hooks[i].fn(loop->hooks[i].arg);
	if (loop->began_us)
		stat_hist_add(process_stats.loop_lag, stat_bounds[STAT_FAST],
			      loop_clock_us() - loop->began_us);
	loop->began_us = 0;
}

void
loop_run(struct loop *loop)
{
	loop->stop = false;
	while (!loop->stop)
		loop_turn(loop, true);
}

void
loop_stop(struct loop *loop)
{
	loop->stop = true;
}

uint64_t
loop_now_us(struct loop *loop)
{
	if (loop->is_now_stale) {
		loop->now_us = loop_clock_us();
		loop->is_now_stale = false;
		if (!loop->began_us)
			loop->began_us = loop->now_us;
	}
	return loop->now_us;
}

void
loop_defer(struct loop *loop, struct defer *d, void (*fn)(void *arg), void *arg)
{
	d->fn = fn;
	d->arg = arg;
	if (d->is_queued)
		return;
	d->is_queued = true;
	TAILQ_INSERT_TAIL(&loop->deferred, d, link);
}

void
defer_cancel(struct loop *loop, struct defer *d)
{
	if (!d->is_queued)
		return;
	d->is_queued = false;
	TAILQ_REMOVE(&loop->deferred, d, link);
}

void
loop_at_turn_end(struct loop *loop, enum turn_stage stage, void (*fn)(void *arg), void *arg)
{
	loop->hooks[stage].fn = fn;
	loop->hooks[stage].arg = arg;
}

static void
timer_on_event(evutil_socket_t fd, short what, void *arg)
{
	struct timer *t = arg;

	(void)fd;
	(void)what;
	t->at_us = 0;
	t->fn(t->arg);
}

void
timer_init(struct timer *t, struct loop *loop, void (*fn)(void *arg), void *arg)
{
	*t = (struct timer){ .loop = loop, .fn = fn, .arg = arg };
	evtimer_assign(&t->ev, loop->base, timer_on_event, t);
}

void
timer_set(struct timer *t, uint64_t in_us)
{
	struct timeval tv = { .tv_sec = (time_t)(in_us / 1000000),
			      .tv_usec = (suseconds_t)(in_us % 1000000) };

	t->at_us = loop_now_us(t->loop) + in_us;
	event_add(&t->ev, &tv);
}

void
timer_at_most(struct timer *t, uint64_t in_us)
{
	if (!t->at_us || loop_now_us(t->loop) + in_us < t->at_us)
		timer_set(t, in_us);
}

void
timer_clear(struct timer *t)
{
	t->at_us = 0;
	event_del(&t->ev);
}

void
timer_done(struct timer *t)
{
	if (t->loop)
		event_del(&t->ev);
	t->loop = NULL;
}
