/*
 * One connection of a client on its loop: events, hello, silence.
 *
 * While something is owed, an answer or a notification, a connection must not be silent for the idle
 * timeout: after half of it the broker is pinged. A broker that is stopped, or a network that swallows
 * everything, is noticed so, and one that only has nothing to say is not.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>

#include "client/own.h"

/* Behind such a pause a connection may have died without anybody looking. */
enum { STALE_MS = 1000 };

void
wire_drop(struct wire *l, const struct coord_error *why)
{
	if (l->is_dropped)
		return;
	l->is_dropped = true;
	l->why = *why;
	client_wake(l->client);
}

/* --- silence ------------------------------------------------------------------------ */

/* Whether the broker has something to say: an answer, hello, a notification. */
static bool
is_owed(const struct wire *l)
{
	const struct client_sink *sink;

	if (l->owed)
		return true;
	TAILQ_FOREACH (sink, &l->client->sinks, link) {
		if (sink->generation == l->generation)
			return true;
	}
	return false;
}

static void
on_pong(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	struct wire *l = arg;

	(void)result;
	(void)err;
	l->is_pinged = false;
}

static void
on_silence(evutil_socket_t fd, short what, void *arg)
{
	struct wire *l = arg;
	struct coord_client *c = l->client;
	int64_t since = l->heard > l->owed_since ? l->heard : l->owed_since;
	int64_t limit = l->is_pinged ? c->idle_timeout : c->idle_timeout / 2;
	int64_t left = since + limit - client_now();
	struct coord_error why;

	(void)fd;
	(void)what;
	turn_begin(c);
	l->is_watched = is_owed(l);
	if (!l->is_watched) {
		/* until the next request */
	} else if (left > 0) {
		timer_start(l->silence, left);
	} else if (!l->is_pinged) {
		/* Without memory for it it is tried again. */
		l->is_pinged = !coord_async(l->conn, "ping", NULL, on_pong, l);
		timer_start(l->silence, c->idle_timeout - limit);
	} else {
		client_fail(&why, COORD_CLOSED, "unavailable",
			    "%s has not said anything for %lld ms", l->url,
			    (long long)c->idle_timeout);
		why.retryable = true;
		wire_drop(l, &why);
	}
	turn_end(c);
}

void
wire_owes(struct wire *l)
{
	if (l->is_watched || !l->generation)
		return; /* hello has the connect timeout */
	l->is_watched = true;
	l->owed_since = client_now();
	timer_start(l->silence, l->client->idle_timeout / 2);
}

/* --- bytes --------------------------------------------------------------------------- */

static void
wire_read(struct wire *l)
{
	uint64_t before = core_heard(l->conn);

	l->looked = client_now();
	coord_on_readable(l->conn);
	if (core_heard(l->conn) != before)
		l->heard = l->looked;
}

static void
on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct wire *l = arg;
	struct coord_client *c = l->client;

	(void)fd;
	(void)what;
	turn_begin(c);
	wire_read(l);
	turn_end(c);
}

static void
on_writable(evutil_socket_t fd, short what, void *arg)
{
	struct coord_client *c = ((struct wire *)arg)->client;

	(void)fd;
	(void)what;
	turn_begin(c);
	turn_end(c);
}

void
wire_flush(struct wire *l)
{
	struct coord_error why;

	if (!coord_wants_write(l->conn))
		return;
	/* What is written to a connection that has ended unnoticed has an unknown outcome: look first. */
	if (client_now() - l->looked > STALE_MS) {
		wire_read(l);
		if (l->client->is_dead)
			return;
	}
	coord_on_writable(l->conn);
	if (coord_wants_write(l->conn) && event_add(l->writable, NULL)) {
		client_fail(&why, COORD_MEMORY, "unavailable", "no memory to wait for %s",
			    l->url);
		wire_drop(l, &why);
	}
}

/* --- hello ---------------------------------------------------------------------------- */

static bool
is_text(const msgpack_object *o, const char *text)
{
	return o && o->type == MSGPACK_OBJECT_STR && o->via.str.size == strlen(text) &&
	       !memcmp(o->via.str.ptr, text, o->via.str.size);
}

static void
on_hello(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	struct wire *l = arg;
	const msgpack_object *protocol = coord_get(result, "protocol");
	const msgpack_object *max = coord_get(coord_get(result, "limits"), "max_frame");
	struct coord_error why = { .status = COORD_OK };

	if (l->client->is_dead)
		return;
	if (err)
		why = *err;
	else if (!is_text(coord_get(result, "server"), "coordd"))
		client_fail(&why, COORD_PROTOCOL, "protocol_error", "%s is no coordd", l->url);
	else if (!protocol || protocol->type != MSGPACK_OBJECT_POSITIVE_INTEGER ||
		 protocol->via.u64 != 1)
		client_fail(&why, COORD_PROTOCOL, "protocol_error",
			    "%s speaks another version of the protocol than 1", l->url);
	if (max && max->type == MSGPACK_OBJECT_POSITIVE_INTEGER)
		l->max_frame = max->via.u64;
	if (why.status)
		wire_drop(l, &why);
	else
		client_on_hello(l);
}

enum coord_status
wire_hello(struct wire *l)
{
	struct coord_params *p = coord_params_new();
	const struct coord_client *c = l->client;
	enum coord_status status;

	if (!p)
		return COORD_MEMORY;
	if (c->name)
		coord_param_str(p, "client", c->name);
	if (c->token)
		coord_param_str(p, "token", c->token);
	if (c->namespace)
		coord_param_str(p, "namespace", c->namespace);
	status = coord_async(l->conn, "hello", p, on_hello, l);
	coord_params_free(p);
	return status;
}

/* --- its life -------------------------------------------------------------------------- */

struct wire *
wire_new(struct coord_client *c, int fd, const char *url)
{
	struct wire *l = calloc(1, sizeof(*l));

	if (l)
		l->conn = coord_attach(fd);
	if (!l || !l->conn) {
		close(fd);
		free(l);
		return NULL;
	}
	l->client = c;
	l->url = url;
	l->heard = l->looked = client_now();
	l->max_frame = UINT64_MAX;
	coord_on_notice(l->conn, client_on_notice, l);
	l->readable = event_new(c->base, fd, EV_READ | EV_PERSIST, on_readable, l);
	l->writable = event_new(c->base, fd, EV_WRITE, on_writable, l);
	l->silence = event_new(c->base, -1, 0, on_silence, l);
	if (l->readable && l->writable && l->silence && !event_add(l->readable, NULL))
		return l;
	wire_free(l);
	return NULL;
}

void
wire_free(struct wire *l)
{
	if (!l)
		return;
	if (l->readable)
		event_free(l->readable);
	if (l->writable)
		event_free(l->writable);
	if (l->silence)
		event_free(l->silence);
	coord_free(l->conn);
	free(l);
}
