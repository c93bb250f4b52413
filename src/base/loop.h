#ifndef COORDD_BASE_LOOP_H
#define COORDD_BASE_LOOP_H

#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

/*
 * The one event loop. A turn waits for events, runs their callbacks, then what was deferred,
 * then the turn hooks in the order of their stage: so everything that one turn asked of a queue
 * leaves as one script call, and everything it answered to a client as one write.
 */
struct loop;

struct loop *loop_new(void); /* NULL when libevent has none to give */
void loop_free(struct loop *loop);
struct event_base *loop_base(struct loop *loop);

/* Turn until loop_stop(). */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop);
/* One turn; `block` false polls. For tests. */
void loop_turn(struct loop *loop, bool block);

/* CLOCK_MONOTONIC in microseconds, read at most once a turn; loop_clock_us() reads it now. */
uint64_t loop_now_us(struct loop *loop);
uint64_t loop_clock_us(void);

/* Run `fn(arg)` after the callbacks of this turn. Embedded; one that waits may not be moved. */
struct defer {
	TAILQ_ENTRY(defer) link;
	void (*fn)(void *arg);
	void *arg;
	bool is_queued;
};
void loop_defer(struct loop *loop, struct defer *d, void (*fn)(void *arg), void *arg);
void defer_cancel(struct loop *loop, struct defer *d);

enum turn_stage { TURN_QUEUES, TURN_STORE, TURN_CONNS, TURN_STAGES };
/* What a stage does at the end of each turn; one function per stage. */
void
loop_at_turn_end(struct loop *loop, enum turn_stage stage, void (*fn)(void *arg), void *arg);

/* A one-shot timer on the loop's clock. */
struct timer {
	struct event ev;
	struct loop *loop; /* NULL while not initialised */
	void (*fn)(void *arg);
	void *arg;
	uint64_t at_us; /* when it is due, 0 while it is not set */
};
void timer_init(struct timer *t, struct loop *loop, void (*fn)(void *arg), void *arg);
void timer_set(struct timer *t, uint64_t in_us); /* replaces an earlier time */
void
timer_at_most(struct timer *t, uint64_t in_us); /* only if that is sooner than what is set */
void timer_clear(struct timer *t);
void timer_done(struct timer *t);

#endif
