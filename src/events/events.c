/*
 * events: what happens in a namespace, from its stream to those who watch it.
 *
 *	events_watch()		where does the stream end?
 *	watch_on_end()		what comes behind that is for this watch
 *	reader_look()		the bell rang, or a second has passed: what is new?   <-.
 *	reader_on_events()	each to each watch; there may be more                 --'
 *	watch_end()		the last one takes the reader along
 *
 * There is one reader for each namespace that is watched here. Ids of events have no holes, so what was trimmed, or is gone with
 * what Redis has lost, is known by them. A watch that takes no more misses events, and is told how many when it takes some
 * again; nothing is kept for it.
 */
#include <stdlib.h>
#include <uthash.h>

#include "base/mem.h"
#include "events/own.h"
#include "store/keys.h"

enum { SECOND_US = 1000000, STEP = 256, SINCE_MAX = 20, ALL = (1 << EVENT_CLASSES) - 1 };

struct watch {
	TAILQ_ENTRY(watch) link;
	struct reader *reader;
	unsigned classes;
	const struct watch_ops *ops; /* NULL once it has ended */
	void *arg;
	bool has_begun;
	uint64_t from; /* only events after this one are its */
	uint64_t lost; /* events missed, and not told yet */
	bool has_lost, is_lost_unknown;
};

struct reader {
	UT_hash_handle hh;
	struct events *events;
	char *ns; /* encoded */
	TAILQ_HEAD(, watch) watches;
	bool is_known; /* the next two are */
	uint64_t last; /* id of the last event that was handed on */
	char since[SINCE_MAX + 1];
	bool is_reading, look;
	unsigned calls; /* under way */
};

/* Lost ------------------------------------------------------------------------------------------- */

/* Tell what was missed, if it takes something again. */
static void
watch_tell_lost(struct watch *w)
{
	uint64_t count = w->is_lost_unknown ? 0 : w->lost;

	if (!w->has_lost || w->ops->is_blocked(w->arg))
		return;
	w->has_lost = w->is_lost_unknown = false;
	w->lost = 0;
	w->ops->on_lost(w->arg, count);
}

static void
watch_miss(struct watch *w, uint64_t count, bool is_unknown)
{
	w->has_lost = true;
	w->lost += count;
	w->is_lost_unknown = w->is_lost_unknown || is_unknown;
	watch_tell_lost(w);
}

/* Events up to `id` are gone. Which classes they were of nobody knows. */
static void
reader_skip(struct reader *r, uint64_t id)
{
	struct watch *w;

	TAILQ_FOREACH (w, &r->watches, link) {
		uint64_t from = w->from > r->last ? w->from : r->last;

		if (w->has_begun && id > from)
			watch_miss(w, id - from, w->classes != ALL);
	}
	r->last = id;
}

/* Redis has lost some of what it told: nobody knows what happened there before `last`. */
static void
reader_start_over(struct reader *r, struct str since, uint64_t last)
{
	struct watch *w;

	TAILQ_FOREACH (w, &r->watches, link) {
		if (w->has_begun) {
			w->from = last;
			watch_miss(w, 0, true);
		}
	}
	memcpy(r->since, since.p, since.n);
	r->since[since.n] = '\0';
	r->last = last;
}

/* What each answer begins with. False when it is none. */
static bool
reader_on_head(struct reader *r, const struct reply *reply, uint64_t *end)
{
	struct str since = reply_str(reply_at(reply, 0));
	int64_t last = reply_int(reply_at(reply, 1), -1);

	if (last < 0 || since.n > SINCE_MAX)
		return false;
	*end = (uint64_t)last;
	if (!r->is_known || (!*r->since && !r->last)) { /* nothing had happened yet */
		uint64_t known = r->is_known ? 0 : *end;

		r->is_known = true;
		memcpy(r->since, since.p, since.n);
		r->since[since.n] = '\0';
		r->last = known;
	} else if (!str_eq(since, str_of(r->since))) {
		reader_start_over(r, since, 0);
	} else if (*end < r->last) {
		reader_start_over(r, since, *end);
	}
	return true;
}

/* Hand on ------------------------------------------------------------------------------------------ */

static struct str
checked(const struct reply *reply)
{
	struct str s = reply_str(reply);

	return str_is_utf8(s) ? s : STR("");
}

/* The class is what its kind begins with, except for those of queues. */
static enum event_class
class_of(struct str kind)
{
	for (unsigned i = 0; i < EVENT_QUEUE; i++) {
		size_t n = event_class_names[i].n;

		if (kind.n > n && kind.p[n] == '_' &&
		    !memcmp(kind.p, event_class_names[i].p, n))
			return (enum event_class)i;
	}
	return EVENT_QUEUE;
}

/* `fields` are those of the script; `names` keeps what the event borrows. */
static void
event_read(struct watch_event *event, const struct reply *fields, struct buf *names)
{
	struct str parts[3];

	*event = (struct watch_event){
		.kind = checked(&fields[1]),
		.name = checked(&fields[3]),
		.reason = checked(&fields[4]),
		.message_id = checked(&fields[5]),
		.at_us = (uint64_t)reply_int(&fields[6], 0),
	};
	event->class = class_of(event->kind);
	buf_clear(names);
	event->has_agent = key_name_split(checked(&fields[2]), names, parts);
	if (event->has_agent)
		event->agent = (struct agent_id){ parts[1], parts[2] };
}

static void
reader_hand_on(struct reader *r, uint64_t id, const struct watch_event *event)
{
	struct watch *w;

	TAILQ_FOREACH (w, &r->watches, link) {
		if (!w->has_begun || id <= w->from || !(w->classes & 1u << event->class))
			continue;
		watch_tell_lost(w);
		if (w->has_lost || w->ops->is_blocked(w->arg))
			watch_miss(w, 1, false);
		else
			w->ops->on_event(w->arg, event);
	}
	r->last = id;
}

static void reader_look(struct reader *r);

/* A call is answered: it may have been the last thing to keep the reader. */
static void
reader_drop(struct reader *r)
{
	if (r->calls || !TAILQ_EMPTY(&r->watches))
		return;
	HASH_DEL(r->events->readers, r);
	free(r->ns);
	free(r);
}

static void
reader_on_events(void *arg, enum err err, const struct reply *reply)
{
	enum { FIELDS = 7 };
	struct reader *r = arg;
	struct buf names = { 0 };
	struct watch_event event;
	uint64_t end;

	r->calls--;
	r->is_reading = false;
	if (!err && reader_on_head(r, reply, &end)) {
		uint32_t n = (reply->count - 2) / FIELDS;

		for (uint32_t i = 0; i < n; i++) {
			const struct reply *fields = reply_at(reply, 2 + i * FIELDS);
			uint64_t id = (uint64_t)reply_int(fields, 0);

			if (id <= r->last)
				continue;
			if (id > r->last + 1)
				reader_skip(r, id - 1);
			event_read(&event, fields, &names);
			reader_hand_on(r, id, &event);
		}
		if (n < STEP && r->last < end)
			reader_skip(r, end);
		r->look = r->look || r->last < end;
	}
	buf_done(&names);
	if (r->look && !err && !TAILQ_EMPTY(&r->watches))
		reader_look(r);
	reader_drop(r);
}

static void
reader_ask(struct reader *r, unsigned at_most, store_cb *cb, void *arg)
{
	struct args args = { 0 };

	args_str(&args, str_of(r->events->prefix));
	args_str(&args, str_of(r->ns));
	args_uint(&args, r->last);
	args_str(&args, str_of(r->since));
	args_uint(&args, at_most);
	r->calls++;
	store_run(r->events->store, SCRIPT_EVENTS, 0, &args, cb, arg);
	args_done(&args);
}

static void
reader_look(struct reader *r)
{
	r->look = r->is_reading || !r->is_known;
	if (r->look)
		return;
	r->is_reading = true;
	reader_ask(r, STEP, reader_on_events, r);
}

/* Watch ------------------------------------------------------------------------------------------ */

static void
watch_free(struct watch *w)
{
	TAILQ_REMOVE(&w->reader->watches, w, link);
	free(w);
}

static void
watch_on_end(void *arg, enum err err, const struct reply *reply)
{
	struct watch *w = arg;
	struct reader *r = w->reader;
	uint64_t end;

	r->calls--;
	if (!err && !reader_on_head(r, reply, &end))
		err = ERR_INTERNAL;
	if (w->ops && !err) {
		w->has_begun = true;
		w->from = end;
	}
	if (w->ops)
		w->ops->on_begun(w->arg, err);
	if (!w->has_begun)
		watch_free(w);
	else if (r->look)
		reader_look(r);
	reader_drop(r);
}

static struct reader *
reader_get(struct events *events, struct str ns)
{
	struct buf b = { 0 };
	struct reader *r;

	key_put_part(&b, ns);
	HASH_FIND(hh, events->readers, b.data, b.len, r);
	if (!r) {
		r = xcalloc(1, sizeof(*r));
		r->events = events;
		r->ns = xmemdup(b.data, b.len);
		TAILQ_INIT(&r->watches);
		HASH_ADD_KEYPTR(hh, events->readers, r->ns, b.len, r);
	}
	buf_done(&b);
	return r;
}

struct watch *
events_watch(struct events *events, struct str ns, unsigned classes,
	     const struct watch_ops *ops, void *arg)
{
	struct watch *w = xcalloc(1, sizeof(*w));

	w->reader = reader_get(events, ns);
	w->classes = classes;
	w->ops = ops;
	w->arg = arg;
	TAILQ_INSERT_TAIL(&w->reader->watches, w, link);
	reader_ask(w->reader, 0, watch_on_end, w);
	return w;
}

void
watch_look(struct watch *w)
{
	watch_tell_lost(w);
}

void
watch_end(struct watch *w)
{
	struct reader *r = w->reader;

	w->ops = NULL;
	if (!w->has_begun)
		return; /* the answer to its call frees it */
	watch_free(w);
	reader_drop(r);
}

/* All ---------------------------------------------------------------------------------------------- */

void
events_ring(struct events *events, struct str ns)
{
	struct reader *r;

	HASH_FIND(hh, events->readers, ns.p, ns.n, r);
	if (r)
		reader_look(r);
}

void
events_look_all(struct events *events)
{
	struct reader *r, *next;

	if (!store_is_ready(events->store))
		return;
	HASH_ITER (hh, events->readers, r, next)
		reader_look(r);
}

static void
events_on_second(void *arg)
{
	struct events *events = arg;

	events_look_all(events);
	timer_set(&events->second, SECOND_US);
}

struct events *
events_new(struct loop *loop, struct store *store, const char *key_prefix)
{
	struct events *events = xcalloc(1, sizeof(*events));

	events->loop = loop;
	events->store = store;
	events->prefix = xstrdup(key_prefix);
	timer_init(&events->second, loop, events_on_second, events);
	timer_set(&events->second, SECOND_US);
	return events;
}

void
events_free(struct events *events)
{
	if (!events)
		return;
	timer_done(&events->second);
	free(events->prefix);
	free(events);
}
