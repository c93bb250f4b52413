/*
 * A client that connects by itself: which broker it speaks to, and what everybody is told of that.
 *
 *	connect_go()		dials the next address
 *	on_dialed()		it is connected: says hello
 *	client_on_hello()	this is the connection from now on: hooks, watches, what waits
 *	attempt_failed()	the next address, or a pause when all were tried
 *	client_leave()		the broker stops or drains: dials another while this one is still there
 *	wire_end()		a connection is gone
 *
 * Whatever the loop runs stands between turn_begin() and turn_end(). Functions of the caller may do
 * anything in between: connections are ended, and the client freed, at the end only.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include <event2/event.h>

#include "client/own.h"

enum {
	ADDRESSES = 16,
	TEXT_MAX = 256,
	DAY_MS = 86400000,
	LEAVE_MS = 1000 /* between one broker that is left and the next */
};

/* --- errors, time, chance ---------------------------------------------------------- */

enum coord_status
client_fail(struct coord_error *err, enum coord_status status, const char *code,
	    const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return status;
	*err = (struct coord_error){ .status = status };
	snprintf(err->code, sizeof(err->code), "%s", code);
	va_start(ap, fmt);
	vsnprintf(err->message, sizeof(err->message), fmt, ap);
	va_end(ap);
	return status;
}

int64_t
client_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000) + ts.tv_nsec / 1000000;
}

void
client_random(void *p, size_t n)
{
	uint8_t *to = p;
	struct timespec ts;
	ssize_t got;

	while (n) {
		got = getrandom(to, n, GRND_NONBLOCK);
		if (got <= 0) {
			/* The kernel has none yet: it is for spreading load only. */
			clock_gettime(CLOCK_MONOTONIC, &ts);
			*to = (uint8_t)((unsigned long)ts.tv_nsec * 2654435761u >> 16);
			got = 1;
		}
		to += got;
		n -= (size_t)got;
	}
}

int64_t
backoff_pause(const struct coord_client *c, struct backoff_state *b)
{
	int64_t bound = c->backoff_min;
	uint32_t r;

	for (unsigned i = 0; i < b->attempts && bound < c->backoff_max; i++)
		bound *= 2;
	if (bound > c->backoff_max)
		bound = c->backoff_max;
	b->attempts++;
	client_random(&r, sizeof(r));
	return 1 + (int64_t)((double)bound * (r / 4294967296.0));
}

void
timer_start(struct event *ev, int64_t ms)
{
	struct timeval tv = { .tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000 };

	if (event_add(ev, &tv))
		event_active(ev, 0, 0);
}

/* --- turns -------------------------------------------------------------------------- */

static void destroy(struct coord_client *c);
static bool tidy(struct coord_client *c);

void
client_wake(struct coord_client *c)
{
	if (c->in_turn || c->is_flush_set)
		return;
	c->is_flush_set = true;
	event_active(c->flush, 0, 0);
}

void
client_release(struct coord_client *c)
{
	if (!--c->holds && c->is_dead)
		destroy(c);
}

void
turn_begin(struct coord_client *c)
{
	c->holds++;
	c->in_turn++;
}

void
turn_end(struct coord_client *c)
{
	do {
		struct wire *wires[] = { c->wire, c->coming, c->leaving };

		/* None is freed before the next round; what they hear may end the client. */
		for (size_t i = 0; i < sizeof(wires) / sizeof(wires[0]); i++) {
			if (wires[i] && !c->is_dead)
				wire_flush(wires[i]);
		}
	} while (!c->is_dead && tidy(c));
	c->in_turn--;
	client_release(c);
}

/* --- who is told ---------------------------------------------------------------------- */

static void
tell_state(struct coord_client *c, const char *url, const struct coord_error *why)
{
	if (c->on_state && !c->is_dead)
		c->on_state(c->on_state_arg, url, why);
}

/* Each hook once, whatever they do to the list. */
#define HOOKS_EACH(c, hook)                                                           \
	for ((hook) = TAILQ_FIRST(&(c)->hooks);                                       \
	     (hook) && !(c)->is_dead && ((c)->hook_next = TAILQ_NEXT(hook, link), 1); \
	     (hook) = (c)->hook_next)

void
client_hook_add(struct coord_client *c, struct client_hook *hook)
{
	TAILQ_INSERT_TAIL(&c->hooks, hook, link);
}

void
client_hook_remove(struct coord_client *c, struct client_hook *hook)
{
	if (c->hook_next == hook)
		c->hook_next = TAILQ_NEXT(hook, link);
	TAILQ_REMOVE(&c->hooks, hook, link);
}

enum coord_status
client_sink_add(struct coord_client *c, struct client_sink *sink, uint64_t generation,
		const msgpack_object *id)
{
	struct wire *l = client_wire(c, generation);

	if (!id || id->type != MSGPACK_OBJECT_STR || !id->via.str.size ||
	    id->via.str.size > CLIENT_SINK_ID)
		return COORD_PROTOCOL;
	if (!l)
		return COORD_CLOSED;
	client_sink_remove(c, sink);
	sink->generation = generation;
	sink->id_len = (uint16_t)id->via.str.size;
	memcpy(sink->id, id->via.str.ptr, sink->id_len);
	TAILQ_INSERT_HEAD(&c->sinks, sink, link);
	wire_owes(l);
	return COORD_OK;
}

void
client_sink_remove(struct coord_client *c, struct client_sink *sink)
{
	if (sink->generation)
		TAILQ_REMOVE(&c->sinks, sink, link);
	sink->generation = 0;
}

static void
sinks_end(struct coord_client *c, uint64_t generation)
{
	struct client_sink *sink, *after;

	for (sink = TAILQ_FIRST(&c->sinks); sink; sink = after) {
		after = TAILQ_NEXT(sink, link);
		if (sink->generation == generation)
			client_sink_remove(c, sink);
	}
}

void
client_on_notice(void *arg, const char *method, const msgpack_object *param)
{
	struct wire *l = arg;
	struct coord_client *c = l->client;
	const msgpack_object *id = coord_get(param, "consumer_id");
	struct client_sink *sink;

	if (c->is_dead)
		return;
	l->has_answered = true;
	if (!strcmp(method, "shutting_down"))
		client_leave(c, l->generation);
	if (!id)
		id = coord_get(param, "watch_id");
	if (!id || id->type != MSGPACK_OBJECT_STR)
		return;
	TAILQ_FOREACH (sink, &c->sinks, link) {
		if (sink->generation == l->generation && sink->id_len == id->via.str.size &&
		    !memcmp(sink->id, id->via.str.ptr, sink->id_len)) {
			sink->fn(sink->arg, method, param);
			return;
		}
	}
}

/* --- connecting ------------------------------------------------------------------------ */

static void
attempt_failed(struct coord_client *c, const char *url, const struct coord_error *err);

static void
on_dialed(void *arg, int fd, const struct coord_error *err)
{
	struct coord_client *c = arg;
	int64_t left = c->attempt_ends - client_now();
	struct coord_error why;

	turn_begin(c);
	c->dial = NULL;
	if (err) {
		why = *err;
		attempt_failed(c, c->at->url, &why);
	} else {
		c->coming = wire_new(c, fd, c->at->url);
		if (!c->coming || wire_hello(c->coming)) {
			client_fail(&why, COORD_MEMORY, "unavailable", "no memory");
			if (c->coming)
				wire_drop(c->coming, &why);
			else
				attempt_failed(c, c->at->url, &why);
		} else {
			timer_start(c->connect, left > 0 ? left : 0);
		}
	}
	turn_end(c);
}

static void
connect_go(struct coord_client *c)
{
	struct coord_error why;

	if (c->dial || c->coming)
		return;
	c->at = &c->addresses[c->next];
	c->next = (c->next + 1) % c->n_addresses;
	if (c->wire && c->wire->url == c->at->url) {
		/* This is the one that is left. */
		c->at = &c->addresses[c->next];
		c->next = (c->next + 1) % c->n_addresses;
		c->tried++;
	}
	c->attempt_ends = client_now() + c->connect_timeout;
	c->dial = dial_new(c->base, c->at, c->connect_timeout, on_dialed, c);
	if (!c->dial) {
		client_fail(&why, COORD_MEMORY, "unavailable", "no memory");
		attempt_failed(c, c->at->url, &why);
	}
}

static void
on_connect(evutil_socket_t fd, short what, void *arg)
{
	struct coord_client *c = arg;
	struct coord_error why;

	(void)fd;
	(void)what;
	turn_begin(c);
	if (c->coming) {
		client_fail(&why, COORD_TIMEOUT, "unavailable",
			    "%s took the connection and does not answer in time",
			    c->coming->url);
		why.retryable = true;
		wire_drop(c->coming, &why);
	} else {
		connect_go(c);
	}
	turn_end(c);
}

/* The next address at once, or a pause when all were tried. */
static void
go_on(struct coord_client *c)
{
	if (c->tried < c->n_addresses) {
		timer_start(c->connect, 0);
		return;
	}
	c->tried = c->hopeless = 0;
	timer_start(c->connect, backoff_pause(c, &c->connects));
}

static void
attempt_failed(struct coord_client *c, const char *url, const struct coord_error *err)
{
	bool is_hopeless = err->status == COORD_PROTOCOL ||
			   (err->status == COORD_REFUSED && !err->retryable);

	c->why = *err;
	c->tried++;
	c->hopeless += is_hopeless;
	tell_state(c, url, err);
	/* When each of them has said so, waiting is no use. */
	if (!c->is_dead && !c->wire && c->hopeless >= c->n_addresses)
		asks_fail(c, err);
	if (!c->is_dead && (!c->wire || c->wire->is_left))
		go_on(c);
}

void
client_on_hello(struct wire *l)
{
	struct coord_client *c = l->client;
	struct client_hook *hook;
	struct coord_error why;

	l->generation = ++c->generations;
	if (c->wire && c->leaving) {
		client_fail(&why, COORD_CLOSED, "unavailable", "the broker was left");
		wire_drop(c->leaving, &why);
		tidy(c);
		if (c->is_dead)
			return;
	}
	if (c->wire)
		c->leaving = c->wire;
	c->wire = l;
	c->coming = NULL;
	c->why.status = COORD_OK;
	c->hopeless = 0;
	event_del(c->connect);
	event_del(c->retry);
	c->is_retrying = false;
	tell_state(c, l->url, NULL);
	HOOKS_EACH(c, hook)
	{
		if (hook->on_up)
			hook->on_up(hook->arg, l->generation);
	}
	if (c->is_dead)
		return;
	watches_begin(c);
	asks_go(c);
}

void
client_leave(struct coord_client *c, uint64_t generation)
{
	struct wire *l = c->wire;
	int64_t now = client_now();

	if (!l || l->generation != generation || c->n_addresses < 2 || l->is_left)
		return;
	l->is_left = true;
	if (c->dial || c->coming)
		return;
	c->tried = 1;
	c->hopeless = 0;
	timer_start(c->connect, c->leave_at > now ? c->leave_at - now : 0);
	c->leave_at = (c->leave_at > now ? c->leave_at : now) + LEAVE_MS;
}

/* --- the end of a connection ------------------------------------------------------------ */

static void
wire_end(struct coord_client *c, struct wire *l)
{
	struct coord_error why = coord_ended(l->conn) ? *coord_ended(l->conn) : l->why;
	bool was_wire = l == c->wire, was_coming = l == c->coming;
	struct client_hook *hook;

	if (!why.code[0])
		snprintf(why.code, sizeof(why.code), "%s",
			 why.status == COORD_PROTOCOL ? "protocol_error" : "unavailable");
	if (was_wire)
		c->wire = NULL;
	else if (was_coming)
		c->coming = NULL;
	else
		c->leaving = NULL;
	if (was_wire)
		c->why = why;
	core_end(l->conn, &why);
	sinks_end(c, l->generation);
	if (l->generation) {
		HOOKS_EACH(c, hook)
		{
			if (hook->on_down)
				hook->on_down(hook->arg, l->generation);
		}
	}
	if (was_coming && !c->is_dead) {
		event_del(c->connect);
		attempt_failed(c, l->url, &why);
	} else if (was_wire && !c->is_dead) {
		tell_state(c, l->url, &why);
		if (l->has_answered)
			c->tried = c->connects.attempts = 0;
		else
			c->tried++;
		if (!c->is_dead && !c->dial && !c->coming)
			go_on(c);
	}
	wire_free(l);
}

/* Whether somebody would lose something with a connection that was left. */
static bool
is_held(const struct coord_client *c, const struct wire *l)
{
	const struct client_hook *hook;

	TAILQ_FOREACH (hook, &c->hooks, link) {
		if (hook->is_holding && hook->is_holding(hook->arg, l->generation))
			return true;
	}
	return false;
}

/* End one connection that is at its end, or that nobody needs. False: there is none. */
static bool
tidy(struct coord_client *c)
{
	struct wire *wires[] = { c->leaving, c->wire, c->coming };

	for (size_t i = 0; i < sizeof(wires) / sizeof(wires[0]); i++) {
		struct wire *l = wires[i];

		if (!l)
			continue;
		if (l == c->leaving && !l->owed && !is_held(c, l)) {
			client_fail(&l->why, COORD_CLOSED, "unavailable",
				    "the broker was left");
			l->is_dropped = true;
		}
		if (l->is_dropped || coord_ended(l->conn)) {
			wire_end(c, l);
			return true;
		}
	}
	return false;
}

/* --- the client -------------------------------------------------------------------------- */

/* The loop turns for the first time, or something was queued outside of it. */
static void
on_flush(evutil_socket_t fd, short what, void *arg)
{
	struct coord_client *c = arg;

	(void)fd;
	(void)what;
	turn_begin(c);
	c->is_flush_set = false;
	if (!c->has_begun) {
		c->has_begun = true;
		connect_go(c);
	}
	turn_end(c);
}

static void
on_tick(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
}

struct coord_client *
coord_client_new(struct event_base *base, const char *urls, struct coord_error *err)
{
	struct coord_client *c = calloc(1, sizeof(*c));

	if (!c) {
		client_fail(err, COORD_MEMORY, "", "no memory");
		return NULL;
	}
	TAILQ_INIT(&c->asks);
	TAILQ_INIT(&c->hooks);
	TAILQ_INIT(&c->sinks);
	TAILQ_INIT(&c->watches);
	c->holds = 1;
	c->connect_timeout = 2000;
	c->idle_timeout = 10000;
	c->backoff_min = 50;
	c->backoff_max = 5000;
	c->max_pending = 65536;
	c->max_bytes = 64u << 20;
	c->deadline_at = INT64_MAX;
	if (brokers_read(urls, ADDRESSES, &c->addresses, &c->n_addresses, err)) {
		destroy(c);
		return NULL;
	}
	c->owns_base = !base;
	c->base = base ? base : event_base_new();
	if (c->base) {
		c->connect = event_new(c->base, -1, 0, on_connect, c);
		c->flush = event_new(c->base, -1, 0, on_flush, c);
		c->retry = event_new(c->base, -1, 0, asks_on_retry, c);
		c->deadline = event_new(c->base, -1, 0, asks_on_deadline, c);
		c->tick = event_new(c->base, -1, 0, on_tick, c);
	}
	if (!c->connect || !c->flush || !c->retry || !c->deadline || !c->tick) {
		destroy(c);
		client_fail(err, COORD_MEMORY, "", "no memory");
		return NULL;
	}
	client_wake(c);
	return c;
}

static void
destroy(struct coord_client *c)
{
	struct event *events[] = { c->connect, c->flush, c->retry, c->deadline, c->tick };

	dial_free(c->dial);
	wire_free(c->wire);
	wire_free(c->coming);
	wire_free(c->leaving);
	asks_forget(c);
	watches_free(c);
	for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
		if (events[i])
			event_free(events[i]);
	}
	/* A question to the resolver that was given up ends within three turns. */
	for (int i = 0; c->owns_base && c->base && i < 3; i++)
		event_base_loop(c->base, EVLOOP_NONBLOCK);
	if (c->owns_base && c->base)
		event_base_free(c->base);
	brokers_free(c->addresses, c->n_addresses);
	free(c->name);
	free(c->token);
	free(c->namespace);
	free(c);
}

void
coord_client_free(struct coord_client *c)
{
	struct client_hook *hook;

	if (!c || c->is_dead)
		return;
	c->is_dead = true;
	while ((hook = TAILQ_FIRST(&c->hooks))) {
		TAILQ_REMOVE(&c->hooks, hook, link);
		if (hook->on_gone)
			hook->on_gone(hook->arg);
	}
	client_release(c);
}

enum coord_status
coord_client_set(struct coord_client *c, enum coord_option option, const char *text)
{
	char **to = option == COORD_CLIENT_NAME ? &c->name
		    : option == COORD_TOKEN     ? &c->token
		    : option == COORD_NAMESPACE ? &c->namespace
						: NULL;
	char *copy = NULL;

	if (!to || c->has_begun || (text && strlen(text) > TEXT_MAX))
		return COORD_USAGE;
	if (text && !(copy = strdup(text)))
		return COORD_MEMORY;
	free(*to);
	*to = copy;
	return COORD_OK;
}

enum coord_status
coord_client_set_int(struct coord_client *c, enum coord_option option, int64_t value)
{
	int64_t *to = option == COORD_CONNECT_TIMEOUT ? &c->connect_timeout
		      : option == COORD_IDLE_TIMEOUT  ? &c->idle_timeout
		      : option == COORD_BACKOFF_MIN   ? &c->backoff_min
		      : option == COORD_BACKOFF_MAX   ? &c->backoff_max
						      : NULL;

	if (c->has_begun || value < 1)
		return COORD_USAGE;
	if (option == COORD_MAX_PENDING)
		c->max_pending = (size_t)value;
	else if (option == COORD_MAX_PENDING_BYTES)
		c->max_bytes = (size_t)value;
	else if (to && value <= DAY_MS)
		*to = value;
	else
		return COORD_USAGE;
	return COORD_OK;
}

void
coord_client_on_state(struct coord_client *c, coord_state_fn *fn, void *arg)
{
	c->on_state = fn;
	c->on_state_arg = arg;
}

const char *
coord_client_url(const struct coord_client *c)
{
	return c->wire ? c->wire->url : NULL;
}

size_t
coord_client_pending(const struct coord_client *c)
{
	return c->n_asks;
}

uint64_t
client_generation(const struct coord_client *c)
{
	return c->wire ? c->wire->generation : 0;
}

struct wire *
client_wire(const struct coord_client *c, uint64_t generation)
{
	if (c->wire && c->wire->generation == generation)
		return c->wire;
	if (c->leaving && c->leaving->generation == generation)
		return c->leaving;
	return NULL;
}

void
client_settled(struct coord_client *c)
{
	client_wake(c);
}

struct event_base *
client_base(const struct coord_client *c)
{
	return c->base;
}

/* --- asking ------------------------------------------------------------------------------- */

enum coord_status
coord_client_call(struct coord_client *c, const char *method, const struct coord_params *params,
		  int timeout_ms, coord_answer_fn *fn, void *arg)
{
	return ask_new(c, 0, true, method, params, timeout_ms, fn, arg);
}

enum coord_status
client_call(struct coord_client *c, const char *method, const struct coord_params *params,
	    int timeout_ms, coord_answer_fn *fn, void *arg)
{
	return ask_new(c, 0, false, method, params, timeout_ms, fn, arg);
}

enum coord_status
client_call_on(struct coord_client *c, uint64_t generation, const char *method,
	       const struct coord_params *params, int timeout_ms, coord_answer_fn *fn,
	       void *arg)
{
	if (!generation || !client_wire(c, generation))
		return COORD_AGAIN;
	return ask_new(c, generation, false, method, params, timeout_ms, fn, arg);
}

enum coord_status
client_call_here(struct coord_client *c, const char *method, const struct coord_params *params,
		 int timeout_ms, coord_answer_fn *fn, void *arg)
{
	return client_call_on(c, client_generation(c), method, params, timeout_ms, fn, arg);
}

enum coord_status
coord_client_notify(struct coord_client *c, const char *method,
		    const struct coord_params *params)
{
	enum coord_status status;
	const char *pairs;
	uint32_t count;
	size_t n;

	if (!method || !*method)
		return COORD_USAGE;
	if (params_raw(params, &pairs, &n, &count))
		return COORD_MEMORY;
	if (!c->wire || core_queued(c->wire->conn) > c->max_bytes)
		return COORD_AGAIN;
	status = core_notify(c->wire->conn, method, params);
	client_wake(c);
	return !status || status == COORD_MEMORY ? status : COORD_AGAIN;
}
