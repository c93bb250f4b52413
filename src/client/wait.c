/* A client with a loop of its own: what waits. */
#include <event2/event.h>

#include "client/own.h"

/* A signal between two looks at `is_broken` is seen after that. */
enum { TICK_MS = 500 };

struct waiter {
	struct coord_client *client;
	bool is_told;
	struct coord_reply *reply;
	struct coord_error err;
};

static bool
may_wait(const struct coord_client *c)
{
	return c->owns_base && !c->in_turn && !c->is_waiting;
}

static enum coord_status
fail_usage(struct coord_error *err)
{
	return client_fail(err, COORD_USAGE, "",
			   "waiting is for a client with a loop of its own, and not from a "
			   "function that it runs");
}

static void
on_told(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	struct waiter *w = arg;

	(void)result;
	w->is_told = true;
	if (err)
		w->err = *err;
	else if (!(w->reply = core_told(w->client->tells->conn)))
		client_fail(&w->err, COORD_MEMORY, "unavailable", "no memory for the answer");
}

enum coord_status
coord_client_ask(struct coord_client *c, const char *method, const struct coord_params *params,
		 int timeout_ms, struct coord_reply **reply, struct coord_error *err)
{
	struct waiter w = { .client = c };
	enum coord_status status;
	struct ask *a;
	int rc = 0;

	if (!may_wait(c))
		return fail_usage(err);
	status = ask_new(c, 0, true, method, params, timeout_ms, on_told, &w);
	if (status)
		return client_fail(err, status, "",
				   status == COORD_MEMORY  ? "no memory for the request"
				   : status == COORD_AGAIN ? "too much is under way"
							   : "a request needs a method");
	a = TAILQ_LAST(&c->asks, asks);
	c->is_waiting = true;
	c->holds++;
	while (!w.is_told && !c->is_dead && rc >= 0)
		rc = event_base_loop(c->base, EVLOOP_ONCE);
	c->is_waiting = false;
	if (!w.is_told) {
		a->fn = NULL;
		client_fail(&w.err, COORD_CLOSED, "unavailable",
			    c->is_dead ? "the client was freed" : "its loop is broken");
	}
	client_release(c);
	if (w.reply)
		*reply = w.reply;
	else if (err)
		*err = w.err;
	return w.err.status;
}

enum coord_status
coord_client_run(struct coord_client *c, int timeout_ms)
{
	int64_t ends = timeout_ms < 0 ? INT64_MAX : client_now() + timeout_ms, left;
	enum coord_status status = COORD_TIMEOUT;
	int rc = 0;

	if (!may_wait(c))
		return COORD_USAGE;
	c->is_waiting = true;
	c->holds++;
	while (!c->is_broken && !c->is_dead && rc >= 0 && (left = ends - client_now()) > 0) {
		timer_start(c->tick, left < TICK_MS ? left : TICK_MS);
		rc = event_base_loop(c->base, EVLOOP_ONCE);
	}
	if (c->is_dead || rc < 0)
		status = COORD_CLOSED;
	else if (c->is_broken)
		status = COORD_OK;
	event_del(c->tick);
	c->is_broken = false;
	c->is_waiting = false;
	client_release(c);
	return status;
}

void
coord_client_break(struct coord_client *c)
{
	c->is_broken = true;
	if (c->is_waiting)
		event_base_loopbreak(c->base);
}
