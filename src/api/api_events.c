/*
 * watch, unwatch, subscribe, unsubscribe.
 *
 *	api_watch()		where does the stream end?
 *	watcher_on_begun()	the answer; what happens from there on is written as it comes
 *	watcher_end()		unwatch, or the connection is closed
 */
#include <stdlib.h>

#include "api/encode.h"
#include "api/session.h"
#include "base/mem.h"
#include "proto/mp.h"

enum { MAX_WATCHES = 16 }; /* of a connection */

/* Watch -------------------------------------------------------------------------------------------- */

static void
watcher_free(struct watcher *w)
{
	TAILQ_REMOVE(&w->session->watchers, w, link);
	w->session->nwatchers--;
	free(w);
}

static void
watcher_on_begun(void *arg, enum err err)
{
	struct watcher *w = arg;
	struct request *r = w->request;
	struct buf *b = err ? NULL : request_reply(r);

	w->request = NULL;
	if (b) {
		mp_put_map(b, 1);
		mp_put_lit(b, "watch_id");
		mp_put_str(b, (struct str){ w->id, sizeof(w->id) });
	}
	if (err) {
		watcher_free(w);
		request_fail(r, err);
	} else {
		request_done(r);
	}
}

/* Begin a notification of `pairs` pairs besides this one. */
static struct buf *
put_event(const struct watcher *w, uint32_t pairs)
{
	struct buf *b = conn_output(w->session->conn);

	rpc_put_notification(b, STR("event"));
	mp_put_map(b, 1 + pairs);
	mp_put_lit(b, "watch_id");
	mp_put_str(b, (struct str){ w->id, sizeof(w->id) });
	return b;
}

static void
watcher_on_event(void *arg, const struct watch_event *e)
{
	const struct watcher *w = arg;

	encode_event(put_event(w, encode_event_pairs(e)), e);
	conn_wrote(w->session->conn);
}

static void
watcher_on_lost(void *arg, uint64_t count)
{
	const struct watcher *w = arg;
	struct buf *b = put_event(w, 3);

	mp_put_lit(b, "event");
	mp_put_lit(b, "lost");
	mp_put_lit(b, "at");
	encode_time(b, store_now_us(w->session->api->store));
	mp_put_lit(b, "count");
	if (count)
		mp_put_uint(b, count);
	else
		mp_put_nil(b);
	conn_wrote(w->session->conn);
}

/* From being full until it has drained, so that what is missed is missed in one piece. */
static bool
watcher_is_blocked(void *arg)
{
	struct watcher *w = arg;
	struct conn *conn = w->session->conn;

	if (w->is_behind || conn_is_full(conn))
		w->is_behind = conn_is_backed_up(conn);
	return w->is_behind;
}

static const struct watch_ops watch_ops = { watcher_on_begun, watcher_on_event, watcher_on_lost,
					    watcher_is_blocked };

void
watchers_look(void *session)
{
	struct session *s = session;
	struct watcher *w;

	TAILQ_FOREACH (w, &s->watchers, link) {
		if (!w->request)
			watch_look(w->watch);
	}
}

void
watcher_end(struct watcher *w)
{
	struct request *r = w->request;

	watch_end(w->watch);
	watcher_free(w);
	if (r)
		request_fail(r, ERR_UNSENT); /* to nobody */
}

enum err
api_watch(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	uint8_t id[WATCH_ID_BYTES];
	struct watcher *w;

	if (s->nwatchers >= MAX_WATCHES)
		return errmsg_set(why, ERR_OVERLOADED,
				  "this connection has %d watches, which is as many as may be",
				  MAX_WATCHES);
	w = xcalloc(1, sizeof(*w));
	id_random(id, sizeof(id));
	id_encode(w->id, id, sizeof(id));
	w->session = s;
	w->request = request_new(s, rpc, METHOD_watch, STR(""));
	TAILQ_INSERT_TAIL(&s->watchers, w, link);
	s->nwatchers++;
	w->watch = events_watch(s->api->events, str_of(s->namespace), p->events, &watch_ops, w);
	return OK;
}

enum err
api_unwatch(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	struct watcher *w;

	(void)why;
	TAILQ_FOREACH (w, &s->watchers, link) {
		/* One that has not begun nobody knows. */
		if (!w->request && str_eq(p->watch_id, (struct str){ w->id, sizeof(w->id) }))
			break;
	}
	mp_put_bool(session_reply(s, rpc), w != NULL);
	if (w)
		watcher_end(w);
	return OK;
}

/* Subscribe --------------------------------------------------------------------------------------- */

struct subscribe {
	struct request *request;
	unsigned types;
	struct agent_id agent;
	struct buf names; /* of the agent */
};

static void
put_types(struct buf *b, unsigned types)
{
	/* In the order of their names. */
	static const enum message_type all[] = { MESSAGE_EVENT, MESSAGE_REQUEST,
						 MESSAGE_RESPONSE };

	mp_put_array(b, (uint32_t)__builtin_popcount(types));
	for (unsigned i = 0; i < MESSAGE_TYPES; i++)
		if (types & 1u << all[i])
			mp_put_str(b, message_type_names[all[i]]);
}

static void
subscribe_done(void *arg, enum err err, struct str id)
{
	struct subscribe *op = arg;
	struct buf *b = err ? NULL : request_reply(op->request);

	if (b) {
		mp_put_map(b, 3);
		mp_put_lit(b, "subscription_id");
		mp_put_str(b, id);
		mp_put_lit(b, "agent_id");
		encode_agent(b, op->agent);
		mp_put_lit(b, "message_types");
		put_types(b, op->types);
	}
	if (err)
		request_fail(op->request, err);
	else
		request_done(op->request);
	buf_done(&op->names);
	free(op);
}

enum err
api_subscribe(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	struct subscribe *op = xcalloc(1, sizeof(*op));
	struct buf *names = &op->names;

	(void)why;
	op->request = request_new(s, rpc, METHOD_subscribe, STR(""));
	op->types = p->message_types;
	buf_put(names, p->agent.type.p, p->agent.type.n);
	buf_put(names, p->agent.instance.p, p->agent.instance.n);
	op->agent.type = (struct str){ names->data, p->agent.type.n };
	op->agent.instance = (struct str){ names->data + p->agent.type.n, p->agent.instance.n };
	events_subscribe(s->api->events, str_of(s->namespace), &p->agent, op->types,
			 subscribe_done, op);
	return OK;
}

static void
unsubscribe_done(void *arg, enum err err, bool done)
{
	struct request *r = arg;
	struct buf *b = err ? NULL : request_reply(r);

	if (b)
		mp_put_bool(b, done);
	request_end_with(r, err);
}

enum err
api_unsubscribe(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	(void)why;
	events_unsubscribe(s->api->events, str_of(s->namespace), &p->agent, p->subscription_id,
			   unsubscribe_done, request_new(s, rpc, METHOD_unsubscribe, STR("")));
	return OK;
}
