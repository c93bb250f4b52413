/*
 * recipients: who is meant by a message type (subscriptions), and by a type of agents.
 *
 *	events_subscribe(), _unsubscribe(), _subscribers()	one call each
 *	events_live()		some of the agents of that type      <-.
 *	live_on_names()		those that live; enough, or the next --'
 */
#include <stdlib.h>

#include "base/mem.h"
#include "events/own.h"
#include "store/keys.h"

enum { LOOK_AT = 1000 };

/* In the order of their bytes: so the same types make the same text. */
static const enum message_type in_order[MESSAGE_TYPES] = { MESSAGE_EVENT, MESSAGE_REQUEST,
							   MESSAGE_RESPONSE };

static void
args_key(struct args *args, const struct events *events, const char *kind, struct str name)
{
	struct buf b = { 0 };

	buf_printf(&b, "%s:%s:", events->prefix, kind);
	buf_put(&b, name.p, name.n);
	args_str(args, buf_str(&b));
	buf_done(&b);
}

/* What both scripts begin with. */
static void
args_subscription(struct args *args, const struct events *events, struct str ns,
		  const struct agent_id *agent)
{
	char name[KEY_NAME_MAX];
	struct str whole = { name, key_name(name, ns, agent->type, agent->instance) };
	struct buf encoded = { 0 };

	key_put_part(&encoded, ns);
	args_key(args, events, "subs", whole);
	args_str(args, str_of(events->prefix));
	args_str(args, buf_str(&encoded));
	args_str(args, whole);
	buf_done(&encoded);
}

/* Subscribe --------------------------------------------------------------------------------------- */

struct subscribing {
	subscribe_cb *subscribed;
	unsubscribe_cb *unsubscribed;
	void *arg;
};

static void
subscribe_on_reply(void *arg, enum err err, const struct reply *reply)
{
	struct subscribing *op = arg;
	struct str id = reply_str(reply);

	if (!err && id.n != SUBSCRIPTION_ID_LEN)
		err = ERR_INTERNAL;
	op->subscribed(op->arg, err, id);
	free(op);
}

void
events_subscribe(struct events *events, struct str ns, const struct agent_id *agent,
		 unsigned types, subscribe_cb *cb, void *arg)
{
	struct subscribing *op = xcalloc(1, sizeof(*op));
	struct args args = { 0 };
	struct buf text = { 0 };

	op->subscribed = cb;
	op->arg = arg;
	for (unsigned i = 0; i < MESSAGE_TYPES; i++) {
		if (types & 1u << in_order[i]) {
			buf_puts(&text, text.len ? "," : "");
			buf_put(&text, message_type_names[in_order[i]].p,
				message_type_names[in_order[i]].n);
		}
	}
	args_subscription(&args, events, ns, agent);
	args_str(&args, buf_str(&text));
	store_run(events->store, SCRIPT_SUBSCRIBE, 1, &args, subscribe_on_reply, op);
	args_done(&args);
	buf_done(&text);
}

static void
unsubscribe_on_reply(void *arg, enum err err, const struct reply *reply)
{
	struct subscribing *op = arg;

	op->unsubscribed(op->arg, err, !err && reply_int(reply, 0) == 1);
	free(op);
}

void
events_unsubscribe(struct events *events, struct str ns, const struct agent_id *agent,
		   struct str id, unsubscribe_cb *cb, void *arg)
{
	struct subscribing *op = xcalloc(1, sizeof(*op));
	struct args args = { 0 };

	op->unsubscribed = cb;
	op->arg = arg;
	args_subscription(&args, events, ns, agent);
	args_str(&args, id);
	store_run(events->store, SCRIPT_UNSUBSCRIBE, 1, &args, unsubscribe_on_reply, op);
	args_done(&args);
}

/* Agents ------------------------------------------------------------------------------------------- */

struct listing {
	struct events *events;
	struct buf prefix, after; /* of NAMEs */
	struct buf parts;         /* type and instance of each in turn */
	size_t *ends;             /* where each part ends in `parts` */
	unsigned n, limit;
	agents_cb *cb;
	void *arg;
};

static struct listing *
listing_new(struct events *events, struct str ns, unsigned limit, agents_cb *cb, void *arg)
{
	struct listing *l = xcalloc(1, sizeof(*l));

	l->events = events;
	l->limit = limit;
	l->cb = cb;
	l->arg = arg;
	key_put_part(&l->prefix, ns);
	buf_putc(&l->prefix, ':');
	return l;
}

/* Take the names in, from the i-th element on. */
static void
listing_add(struct listing *l, const struct reply *reply, uint32_t i)
{
	l->ends = xrealloc(l->ends, (l->n + reply->count) * 2 * sizeof(*l->ends));
	for (; i < reply->count; i++) {
		struct buf b = { 0 };
		struct str parts[3];

		if (key_name_split(reply_str(reply_at(reply, i)), &b, parts)) {
			buf_put(&l->parts, parts[1].p, parts[1].n);
			l->ends[2 * l->n] = l->parts.len;
			buf_put(&l->parts, parts[2].p, parts[2].n);
			l->ends[2 * l->n++ + 1] = l->parts.len;
		}
		buf_done(&b);
	}
}

static void
listing_finish(struct listing *l, enum err err)
{
	struct agent_id *agents = NULL;
	size_t from = 0;

	if (!err && l->n)
		agents = xcalloc(l->n, sizeof(*agents));
	for (unsigned i = 0; agents && i < l->n; i++) {
		size_t middle = l->ends[2 * i], end = l->ends[2 * i + 1];

		agents[i].type = (struct str){ l->parts.data + from, middle - from };
		agents[i].instance = (struct str){ l->parts.data + middle, end - middle };
		from = end;
	}
	l->cb(l->arg, err, agents, err ? 0 : l->n);
	free(agents);
	free(l->ends);
	buf_done(&l->prefix);
	buf_done(&l->after);
	buf_done(&l->parts);
	free(l);
}

static void
subscribers_on_names(void *arg, enum err err, const struct reply *reply)
{
	struct listing *l = arg;

	if (!err)
		listing_add(l, reply, 0);
	listing_finish(l, err);
}

void
events_subscribers(struct events *events, struct str ns, enum message_type type, unsigned limit,
		   agents_cb *cb, void *arg)
{
	struct listing *l = listing_new(events, ns, limit, cb, arg);
	struct args args = { 0 };
	struct buf key = { 0 };

	buf_put(&key, l->prefix.data, l->prefix.len);
	buf_put(&key, message_type_names[type].p, message_type_names[type].n);
	args_key(&args, events, "sub", buf_str(&key));
	args_str(&args, buf_str(&l->prefix));
	args_str(&args, STR(""));
	args_uint(&args, limit);
	store_run(events->store, SCRIPT_LIST, 1, &args, subscribers_on_names, l);
	args_done(&args);
	buf_done(&key);
}

static void live_ask(struct listing *l);

static void
live_on_names(void *arg, enum err err, const struct reply *reply)
{
	struct listing *l = arg;
	struct str after = reply_str(reply_at(reply, 0));

	if (!err)
		listing_add(l, reply, 1);
	buf_clear(&l->after);
	buf_put(&l->after, after.p, after.n);
	if (err || !l->after.len || l->n >= l->limit)
		listing_finish(l, err);
	else
		live_ask(l);
}

static void
live_ask(struct listing *l)
{
	struct args args = { 0 };
	struct buf key = { 0 };

	buf_printf(&key, "%s:agents", l->events->prefix);
	args_str(&args, buf_str(&key));
	args_str(&args, str_of(l->events->prefix));
	args_str(&args, buf_str(&l->prefix));
	args_str(&args, buf_str(&l->after));
	args_uint(&args, LOOK_AT);
	store_run(l->events->store, SCRIPT_LIVE, 1, &args, live_on_names, l);
	args_done(&args);
	buf_done(&key);
}

void
events_live(struct events *events, struct str ns, struct str type, unsigned limit,
	    agents_cb *cb, void *arg)
{
	struct listing *l = listing_new(events, ns, limit, cb, arg);

	key_put_part(&l->prefix, type);
	buf_putc(&l->prefix, ':');
	live_ask(l);
}
