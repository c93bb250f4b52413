/*
 * One request of a client, from the function that asks to the function that is told, over as many
 * connections as it takes.
 *
 *	ask_new()	copies it, behind all others, and sends it if there is a connection
 *	on_answer()	a connection has an answer, or has ended; the request is finished, or waits
 *	asks_go()	sends what waits, in the order in which it was asked: on a new connection,
 *			or when the pause after a refusal is over
 *	finish()	its end: told once, and gone
 *
 * When it may go again is told in coord.h; `AGAIN` and `DEDUP` of api/methods.def say which methods
 * may when nobody knows whether they were done.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "client/own.h"
#include "proto/mp.h"

enum {
	DEFAULT_MS = 30000,
	WAIT_MAX_S = 60,
	DEDUP_MS = 50000, /* the broker knows a repetition for 60 s */
	DEADLINES_MS = 5, /* deadlines that are nearer than this to each other come together */
	METHOD_BYTES = 255, /* of a name, at most */
	ENVELOPE = 7        /* bytes around a call: [0, id, ...] */
};

/* What a broker has said to an earlier attempt. */
struct refusal {
	bool is_retryable;
	char code[32], applied[8];
	char message[];
};

/* --- methods ------------------------------------------------------------------------- */

enum { NOTE = 0, DRAINS = 0, HEAVY = 0, AUDITED = 0, HANDS = 0, AGAIN = 1, DEDUP = 2 };

static unsigned
method_flags(struct str name)
{
	static const struct {
		struct str name;
		unsigned flags;
	} methods[] = {
#define METHOD(name, role, flags, required, optional, help) \
	{ { #name, sizeof(#name) - 1 }, flags },
#include "api/methods.def"
#undef METHOD
	};

	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
		if (str_eq(methods[i].name, name))
			return methods[i].flags;
	}
	return 0;
}

static struct str
ask_method(const struct ask *a)
{
	struct mp m = mp_of((struct str){ a->call, a->n });
	struct str name = { NULL, 0 };

	mp_read_str(&m, &name);
	return name;
}

/* Whether it may be sent although it may have been done. */
static bool
may_repeat(const struct ask *a)
{
	unsigned flags = method_flags(ask_method(a));

	return flags & AGAIN && !(flags & DEDUP && client_now() - a->first_sent > DEDUP_MS);
}

/* --- waiting and ending ---------------------------------------------------------------- */

static void
wait_begin(struct ask *a)
{
	a->client->n_waiting++;
	if (a->has_lane)
		a->client->lanes[a->lane]++;
}

static void
wait_end(struct ask *a)
{
	a->client->n_waiting--;
	if (a->has_lane)
		a->client->lanes[a->lane]--;
}

/* It is under way nowhere any more. */
static void
leave(struct ask *a)
{
	a->on->owed--;
	a->on = NULL;
}

static void
finish(struct ask *a, const msgpack_object *result, const struct coord_error *err)
{
	struct coord_client *c = a->client;

	TAILQ_REMOVE(&c->asks, a, link);
	c->n_asks--;
	c->bytes -= a->n;
	if (a->fn)
		a->fn(a->arg, result, err);
	free(a->refused);
	free(a);
}

/* It has failed: what it has failed with is completed by what is known of earlier attempts. */
static void
fail(struct ask *a, const struct coord_error *err)
{
	struct coord_error why = *err;

	if (!why.code[0])
		snprintf(why.code, sizeof(why.code), "%s",
			 why.status == COORD_PROTOCOL  ? "protocol_error"
			 : why.status == COORD_TIMEOUT ? "timeout"
						       : "unavailable");
	if (why.status != COORD_REFUSED && !why.applied[0])
		snprintf(why.applied, sizeof(why.applied), "no");
	if (a->is_unknown)
		snprintf(why.applied, sizeof(why.applied), "unknown");
	if (!strcmp(why.code, "unavailable") || !strcmp(why.code, "timeout"))
		why.retryable = true;
	finish(a, NULL, &why);
}

/* Its time is over. */
static void
expire(struct ask *a)
{
	struct coord_client *c = a->client;
	struct coord_error err;

	if (a->on) {
		coord_forget(a->on->conn, a->id); /* what comes of it is dropped */
		leave(a);
		a->is_unknown = true; /* its bytes may still leave */
		client_fail(&err, COORD_TIMEOUT, "timeout",
			    "no answer in time; the request may have been applied");
	} else {
		wait_end(a);
		client_fail(&err, COORD_TIMEOUT, "timeout", "no answer in time");
		if (!c->wire && c->why.status)
			client_fail(&err, COORD_CONNECT, "unavailable", "%s", c->why.message);
		else if (!c->wire)
			client_fail(&err, COORD_CONNECT, "unavailable",
				    "no connection to a broker in time");
	}
	if (a->refused) {
		client_fail(&err, COORD_REFUSED, a->refused->code, "%s", a->refused->message);
		err.retryable = a->refused->is_retryable;
		snprintf(err.applied, sizeof(err.applied), "%s", a->refused->applied);
	}
	fail(a, &err);
}

static void
deadline_set(struct coord_client *c, int64_t at)
{
	int64_t left;

	if (at >= c->deadline_at)
		return;
	left = at - client_now();
	c->deadline_at = at;
	timer_start(c->deadline, left > 0 ? left : 0);
}

void
asks_on_deadline(evutil_socket_t fd, short what, void *arg)
{
	struct coord_client *c = arg;
	int64_t now = client_now(), next = INT64_MAX;
	struct ask *a, *after;

	(void)fd;
	(void)what;
	turn_begin(c);
	c->deadline_at = INT64_MAX;
	for (a = TAILQ_FIRST(&c->asks); a && !c->is_dead; a = after) {
		after = TAILQ_NEXT(a, link);
		if (a->deadline <= now)
			expire(a);
		else if (a->deadline < next)
			next = a->deadline;
	}
	/* Those that waited for one that is over. */
	if (!c->is_dead && !c->is_retrying)
		asks_go(c);
	if (!c->is_dead && next != INT64_MAX)
		deadline_set(c, next < now + DEADLINES_MS ? now + DEADLINES_MS : next);
	turn_end(c);
}

void
asks_fail(struct coord_client *c, const struct coord_error *why)
{
	struct coord_error err = *why;
	struct ask *a, *after, *last = TAILQ_LAST(&c->asks, asks);

	/* Not what is asked by who is told. */
	for (a = TAILQ_FIRST(&c->asks); a && !c->is_dead; a = after) {
		after = a == last ? NULL : TAILQ_NEXT(a, link);
		if (!a->on) {
			wait_end(a);
			fail(a, &err);
		}
	}
}

void
asks_forget(struct coord_client *c)
{
	struct ask *a;

	while ((a = TAILQ_FIRST(&c->asks))) {
		TAILQ_REMOVE(&c->asks, a, link);
		free(a->refused);
		free(a);
	}
}

/* --- sending ------------------------------------------------------------------------ */

static void on_answer(void *arg, const msgpack_object *result, const struct coord_error *err);

/* Have what waits sent after a pause. */
static void
retry_later(struct coord_client *c)
{
	if (c->is_retrying)
		return;
	c->is_retrying = true;
	timer_start(c->retry, backoff_pause(c, &c->refusals));
}

static struct wire *
way_of(const struct ask *a)
{
	return a->generation ? client_wire(a->client, a->generation) : a->client->wire;
}

static void
note_refusal(struct ask *a, const struct coord_error *err)
{
	struct refusal *r = malloc(sizeof(*r) + strlen(err->message) + 1);

	if (!r)
		return; /* it will be a timeout */
	r->is_retryable = err->retryable;
	memcpy(r->code, err->code, sizeof(r->code));
	memcpy(r->applied, err->applied, sizeof(r->applied));
	memcpy(r->message, err->message, strlen(err->message) + 1);
	free(a->refused);
	a->refused = r;
}

/* The broker would end the connection for it, and with it what others have asked. Told by the loop. */
static void
too_large(struct ask *a, const struct wire *l)
{
	struct coord_error err;

	client_fail(&err, COORD_REFUSED, "too_large",
		    "a request of %zu bytes; the broker takes %llu", a->n + ENVELOPE,
		    (unsigned long long)l->max_frame);
	note_refusal(a, &err);
	a->deadline = client_now();
	deadline_set(a->client, a->deadline);
}

/* Send one that waits; when that is not possible it goes on waiting. */
static void
ask_send(struct ask *a, struct wire *l)
{
	enum coord_status status;

	if (a->n + ENVELOPE > l->max_frame) {
		too_large(a, l);
		return;
	}
	status = core_call(l->conn, (struct str){ a->call, a->n }, on_answer, a, &a->id);
	if (status) {
		/* Else the connection is at its end, which is seen to with this turn. */
		if (status == COORD_MEMORY)
			retry_later(a->client);
		return;
	}
	wait_end(a);
	if (!a->first_sent)
		a->first_sent = client_now();
	a->tries++;
	a->on = l;
	l->owed++;
	wire_owes(l);
}

void
asks_go(struct coord_client *c)
{
	static const struct coord_error gone = {
		.status = COORD_CLOSED,
		.message = "the connection was lost",
	};
	struct ask *a, *after, *last = TAILQ_LAST(&c->asks, asks);
	struct wire *l;

	for (a = c->n_waiting ? TAILQ_FIRST(&c->asks) : NULL; a && !c->is_dead; a = after) {
		after = a == last ? NULL : TAILQ_NEXT(a, link);
		if (a->on)
			continue;
		l = way_of(a);
		if (a->generation && !l) {
			wait_end(a);
			fail(a, &gone);
		} else if (l && a->is_unknown && !may_repeat(a)) {
			wait_end(a);
			fail(a, &gone);
		} else if (l) {
			ask_send(a, l);
		}
	}
}

void
asks_on_retry(evutil_socket_t fd, short what, void *arg)
{
	struct coord_client *c = arg;

	(void)fd;
	(void)what;
	turn_begin(c);
	c->is_retrying = false;
	asks_go(c);
	turn_end(c);
}

/* --- answers ------------------------------------------------------------------------ */

/* The connection ended before an answer came. */
static void
on_lost(struct ask *a, const struct coord_error *err)
{
	if (!strcmp(err->applied, "unknown"))
		a->is_unknown = true;
	if (a->generation || (a->is_unknown && !may_repeat(a)))
		fail(a, err);
	else
		wait_begin(a);
}

/* The broker says why not. */
static void
on_refused(struct ask *a, const struct wire *l, const struct coord_error *err)
{
	bool is_stopping = !strcmp(err->code, "shutting_down");
	bool is_unknown = !strcmp(err->applied, "unknown");

	if (is_unknown)
		a->is_unknown = true;
	if (is_stopping)
		client_leave(a->client, l->generation);
	if (!(is_stopping || !strcmp(err->code, "overloaded") || !strcmp(err->applied, "no") ||
	      (is_unknown && may_repeat(a)))) {
		fail(a, err);
		return;
	}
	note_refusal(a, err);
	wait_begin(a);
	if (a->client->wire != l && a->client->wire && !a->generation)
		ask_send(a, a->client->wire);
	else
		retry_later(a->client);
}

static void
on_answer(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	struct ask *a = arg;
	struct coord_client *c = a->client;
	struct wire *l = a->on;

	if (c->is_dead)
		return;
	leave(a);
	if (err && coord_ended(l->conn)) {
		on_lost(a, err);
		return;
	}
	l->has_answered = true;
	if (err) {
		on_refused(a, l, err);
		return;
	}
	if (a->tries > 1)
		c->refusals.attempts = 0;
	c->tells = l;
	finish(a, result, NULL);
}

/* --- asking ------------------------------------------------------------------------- */

/* The value of a parameter. False: there is none. */
static bool
param_find(const struct coord_params *params, const char *name, struct mp *value)
{
	const char *pairs;
	struct str key;
	uint32_t count;
	struct mp m;
	size_t n;

	if (params_raw(params, &pairs, &n, &count))
		return false;
	m = mp_of((struct str){ pairs, n });
	for (uint32_t i = 0; i < count; i++) {
		if (!mp_read_str(&m, &key))
			return false;
		*value = m;
		if (str_eq(key, str_of(name)))
			return true;
		mp_skip(&m);
	}
	return false;
}

/* Sends to one queue keep their order: their lane is where they go. */
static void
lane_of(struct ask *a, const char *method, const struct coord_params *params)
{
	uint32_t hash = 2166136261u;
	struct str queue;
	struct mp m;

	if (strcmp(method, "send") != 0 || !param_find(params, "recipient", &m))
		return;
	queue = mp_skip(&m);
	for (size_t i = 0; i < queue.n; i++)
		hash = (hash ^ (uint8_t)queue.p[i]) * 16777619u;
	a->has_lane = true;
	a->lane = (uint8_t)(hash ^ hash >> 8 ^ hash >> 16 ^ hash >> 24);
}

/* How long a request that says nothing else may take. */
static int64_t
default_timeout(const char *method, const struct coord_params *params)
{
	double wait = 0;
	int64_t whole;
	struct mp m;

	if (!strncmp(method, "receive", 7) && param_find(params, "wait", &m)) {
		if (mp_read_int(&m, &whole))
			wait = (double)whole;
		else
			mp_read_double(&m, &wait);
	}
	if (!(wait > 0)) /* it may be no number */
		wait = 0;
	return DEFAULT_MS + (int64_t)((wait < WAIT_MAX_S ? wait : WAIT_MAX_S) * 1000);
}

enum coord_status
ask_new(struct coord_client *c, uint64_t generation, bool is_bounded, const char *method,
	const struct coord_params *params, int timeout_ms, coord_answer_fn *fn, void *arg)
{
	const char *pairs;
	struct wire *l;
	struct ask *a;
	uint32_t count;
	size_t n;

	if (!method || !*method || strlen(method) > METHOD_BYTES)
		return COORD_USAGE;
	if (params_raw(params, &pairs, &n, &count))
		return COORD_MEMORY;
	n = call_room(method, params);
	if (is_bounded &&
	    (c->n_asks >= c->max_pending || n > c->max_bytes || c->bytes > c->max_bytes - n))
		return COORD_AGAIN;
	a = malloc(sizeof(*a) + n);
	if (!a)
		return COORD_MEMORY;
	*a = (struct ask){ .client = c, .generation = generation, .fn = fn, .arg = arg };
	a->n = (size_t)(call_write(a->call, method, params) - a->call);
	a->deadline =
		client_now() + (timeout_ms < 0 ? default_timeout(method, params) : timeout_ms);
	lane_of(a, method, params);

	TAILQ_INSERT_TAIL(&c->asks, a, link);
	c->n_asks++;
	c->bytes += a->n;
	l = way_of(a);
	/* It waits for those of its lane that wait. */
	count = a->has_lane ? c->lanes[a->lane] : 0;
	wait_begin(a);
	if (l && !count)
		ask_send(a, l);
	deadline_set(c, a->deadline);
	client_wake(c);
	return COORD_OK;
}
