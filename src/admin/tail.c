/*
 * tail: a stream of server-sent events.
 *
 *	admin_events()	the stream begins, and with it the watch, which is asked for again until Redis is there
 *	tail_on_event()	one event
 *	tail_on_second()	a comment now and then, so that a client knows that it is there, and we that it is
 *	tail_on_end()	the client is gone, or does not read
 *
 * Nothing is replayed. Whoever comes back with a Last-Event-ID, and whoever missed something here, is told `resync`: look again
 * at all you know.
 */
#include "admin/own.h"

#include <inttypes.h>
#include <stdlib.h>

#include "api/encode.h"
#include "base/mem.h"

enum { STEP_US = 1000000, COMMENT_STEPS = 15 };

struct tail {
	TAILQ_ENTRY(tail) link;
	struct admin *admin;
	struct http_stream *stream;
	struct watch *watch; /* NULL while there is none */
	struct timer second;
	unsigned steps, classes;
	bool is_behind, must_resync;
	size_t ns_len;
	char ns[];
};

static void tail_begin(struct tail *t);

static void
tail_free(struct tail *t)
{
	if (t->watch)
		watch_end(t->watch);
	TAILQ_REMOVE(&t->admin->tails, t, link);
	timer_done(&t->second);
	free(t);
}

void
tails_free(struct admin *a)
{
	struct tail *t;

	while ((t = TAILQ_FIRST(&a->tails)))
		tail_free(t);
}

static void
tail_say(struct tail *t, const char *text)
{
	struct buf b = { 0 };

	buf_puts(&b, text);
	http_stream_put(t->stream, &b);
}

/* An event of a class, with what is in `data`, one MessagePack value. */
static void
tail_put(struct tail *t, struct str class, const struct buf *data)
{
	static const struct json_how how = { .hides_payloads = true };
	struct mp m = mp_of(buf_str(data));
	struct buf b = { 0 };

	buf_printf(&b, "id: %" PRIu64 "\nevent: %.*s\ndata: ", ++t->admin->last_event_id,
		   (int)class.n, class.p);
	json_put(&b, &m, &how);
	buf_puts(&b, "\n\n");
	http_stream_put(t->stream, &b);
}

static void
tail_resync(struct tail *t, uint64_t lost)
{
	struct buf data = { 0 };

	mp_put_map(&data, 1);
	mp_put_lit(&data, "lost");
	if (lost)
		mp_put_uint(&data, lost);
	else
		mp_put_nil(&data);
	tail_put(t, STR("resync"), &data);
	buf_done(&data);
}

/* The watch ------------------------------------------------------------------------------------- */

static void
tail_on_begun(void *arg, enum err err)
{
	struct tail *t = arg;

	if (err) {
		t->watch = NULL; /* it is gone; asked for again within a second */
		t->must_resync = true;
		return;
	}
	if (t->must_resync)
		tail_resync(t, 0);
	t->must_resync = false;
	tail_say(t, ": watching\n\n");
}

static void
tail_on_event(void *arg, const struct watch_event *event)
{
	struct buf data = { 0 };

	mp_put_map(&data, encode_event_pairs(event));
	encode_event(&data, event);
	tail_put(arg, event_class_names[event->class], &data);
	buf_done(&data);
}

static void
tail_on_lost(void *arg, uint64_t count)
{
	tail_resync(arg, count);
}

static bool
tail_is_blocked(void *arg)
{
	struct tail *t = arg;

	t->is_behind = http_stream_is_behind(t->stream);
	return t->is_behind;
}

static const struct watch_ops watch_ops = { tail_on_begun, tail_on_event, tail_on_lost,
					    tail_is_blocked };

static void
tail_begin(struct tail *t)
{
	t->watch = events_watch(t->admin->parts.events, (struct str){ t->ns, t->ns_len },
				t->classes, &watch_ops, t);
}

/* The stream ------------------------------------------------------------------------------------ */

static void
tail_on_second(void *arg)
{
	struct tail *t = arg;

	timer_set(&t->second, STEP_US);
	if (!t->watch)
		tail_begin(t);
	else if (t->is_behind && !http_stream_is_behind(t->stream))
		watch_look(t->watch);
	if (++t->steps % COMMENT_STEPS == 0)
		tail_say(t, ": keep-alive\n\n");
}

static void
tail_on_end(void *arg)
{
	tail_free(arg);
}

/* "queues,agents": in the plural, as paths are. */
static bool
read_kinds(struct str s, unsigned *classes)
{
	for (bool has_more = true; has_more;) {
		const char *comma = s.n ? memchr(s.p, ',', s.n) : NULL;
		struct str word = { s.p, comma ? (size_t)(comma - s.p) : s.n };
		unsigned found = 0;

		for (unsigned i = 0; i < EVENT_CLASSES; i++) {
			struct str name = event_class_names[i];

			if (word.n == name.n + 1 && word.p[name.n] == 's' &&
			    memcmp(word.p, name.p, name.n) == 0)
				found = 1u << i;
		}
		if (!found)
			return false;
		*classes |= found;
		has_more = comma != NULL;
		s.p += word.n + has_more;
		s.n -= word.n + has_more;
	}
	return true;
}

void
admin_events(struct admin *a, struct http_request *req, struct asked *asked)
{
	struct str kinds = asked->query.values[QUERY_kinds],
		   ns = asked->query.values[QUERY_namespace];
	unsigned classes = 0;
	struct buf none = { 0 };
	struct tail *t;

	if (!(asked->query.have & Q(kinds)))
		classes = (1u << EVENT_CLASSES) - 1;
	else if (!read_kinds(kinds, &classes)) {
		problem_say(req, 400, "bad_request",
			    "kinds are queues, agents and breakers, separated by commas");
		return;
	}
	if (!ns.n)
		ns = STR("default");
	if (ns.n > 128 || !str_is_utf8(ns) || str_has_control(ns)) {
		problem_say(req, 400, "bad_request",
			    "namespace must be at most 128 bytes of UTF-8");
		return;
	}
	if (strcmp(http_method(req), "HEAD") == 0) {
		http_reply(req, 200, "text/event-stream", NULL, &none);
		return;
	}
	t = xcalloc(1, sizeof(*t) + ns.n + 1);
	t->admin = a;
	t->classes = classes;
	t->ns_len = ns.n;
	memcpy(t->ns, ns.p, ns.n);
	t->must_resync = http_header(req, "Last-Event-ID") != NULL;
	t->stream = http_stream_begin(req, tail_on_end, t);
	if (!t->stream) {
		problem_say(req, 503, "overloaded",
			    "there are as many streams as admin.max_streams lets");
		free(t);
		return;
	}
	TAILQ_INSERT_TAIL(&a->tails, t, link);
	timer_init(&t->second, a->parts.loop, tail_on_second, t);
	timer_set(&t->second, STEP_US);
	tail_say(t, "retry: 2000\n\n");
	tail_begin(t);
}
