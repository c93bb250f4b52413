/* Watches: what the broker tells of a namespace, renewed on every connection. */
#include <stdlib.h>
#include <string.h>

#include "client/own.h"

/* A watch, or what is left of it while the answer to its `watch` is under way. */
struct coord_watch {
	TAILQ_ENTRY(coord_watch) link;
	struct coord_client *client;
	struct client_sink sink;
	uint64_t asked;  /* the generation that was asked last */
	unsigned asking; /* answers that are still to come */
	bool has_begun;  /* events were told before: a new beginning has a gap before it */
	bool has_ended;
	coord_event_fn *fn;
	void *arg;
	struct coord_params *params;
};

static void
watch_free(struct coord_watch *w)
{
	TAILQ_REMOVE(&w->client->watches, w, link);
	coord_params_free(w->params);
	free(w);
}

static void
on_event(void *arg, const char *method, const msgpack_object *param)
{
	struct coord_watch *w = arg;

	if (!strcmp(method, "event"))
		w->fn(w->arg, param, NULL);
}

/* Tell the broker that nobody listens any more; when that fails it tells until the connection ends. */
static void
unwatch(struct coord_client *c, uint64_t generation, const char *id, size_t n)
{
	struct coord_params *p = coord_params_new();

	if (p) {
		msgpack_packer *pk = coord_param(p, "watch_id");

		msgpack_pack_str(pk, n);
		msgpack_pack_str_body(pk, id, n);
		client_call_on(c, generation, "unwatch", p, -1, NULL, NULL);
	}
	coord_params_free(p);
}

/* What happened in between is not known. */
static void
tell_lost(struct coord_watch *w)
{
	static const char event[] = "event", lost[] = "lost", count[] = "count";
	msgpack_object_kv pairs[2] = { 0 };
	msgpack_object map = { .type = MSGPACK_OBJECT_MAP };

	pairs[0].key.type = pairs[0].val.type = pairs[1].key.type = MSGPACK_OBJECT_STR;
	pairs[0].key.via.str = (msgpack_object_str){ sizeof(event) - 1, event };
	pairs[0].val.via.str = (msgpack_object_str){ sizeof(lost) - 1, lost };
	pairs[1].key.via.str = (msgpack_object_str){ sizeof(count) - 1, count };
	pairs[1].val.type = MSGPACK_OBJECT_NIL;
	map.via.map = (msgpack_object_map){ 2, pairs };
	w->fn(w->arg, &map, NULL);
}

static void
on_watching(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	struct coord_watch *w = arg;
	const msgpack_object *id = coord_get(result, "watch_id");
	struct coord_error why;

	w->asking--;
	if (w->has_ended) {
		if (id && id->type == MSGPACK_OBJECT_STR)
			unwatch(w->client, w->client->tells->generation, id->via.str.ptr,
				id->via.str.size);
		if (!w->asking)
			watch_free(w);
		return;
	}
	if (!err && w->client->tells->generation != w->asked)
		return; /* a newer connection was asked in the meantime */
	if (!err) {
		if (!client_sink_add(w->client, &w->sink, w->asked, id)) {
			if (w->has_begun)
				tell_lost(w);
			else
				w->has_begun = true;
			return;
		}
		client_fail(&why, COORD_PROTOCOL, "protocol_error",
			    "the broker's answer to watch has an unexpected form");
		err = &why;
	}
	/* With the end of its connection it is asked for anew. */
	if (err->status != COORD_CLOSED)
		w->fn(w->arg, NULL, err);
}

/* On the connection that is there, if one is. */
static enum coord_status
watch_begin(struct coord_watch *w)
{
	enum coord_status status =
		client_call_here(w->client, "watch", w->params, -1, on_watching, w);

	if (!status) {
		w->asked = client_generation(w->client);
		w->asking++;
	}
	return status == COORD_AGAIN ? COORD_OK : status;
}

struct coord_watch *
coord_client_watch(struct coord_client *c, const char *classes, coord_event_fn *fn, void *arg,
		   struct coord_error *err)
{
	static const char blanks[] = ", \t\n";
	struct coord_watch *w = calloc(1, sizeof(*w));
	msgpack_packer *pk;
	const char *at;
	unsigned n = 0;

	if (w)
		w->params = coord_params_new();
	if (!w || !w->params) {
		free(w);
		client_fail(err, COORD_MEMORY, "", "no memory");
		return NULL;
	}
	w->client = c;
	w->fn = fn;
	w->arg = arg;
	w->sink.fn = on_event;
	w->sink.arg = w;
	for (at = classes + strspn(classes, blanks); *at; at += strspn(at, blanks), n++)
		at += strcspn(at, blanks);
	pk = coord_param(w->params, "events");
	msgpack_pack_array(pk, n);
	for (at = classes + strspn(classes, blanks); *at; at += strspn(at, blanks)) {
		size_t len = strcspn(at, blanks);

		msgpack_pack_str(pk, len);
		msgpack_pack_str_body(pk, at, len);
		at += len;
	}
	TAILQ_INSERT_TAIL(&c->watches, w, link);
	if (!n ||
	    params_raw(w->params, &(const char *){ NULL }, &(size_t){ 0 }, &(uint32_t){ 0 })) {
		client_fail(err, n ? COORD_MEMORY : COORD_USAGE, "", "%s",
			    n ? "no memory" : "no class of events to watch");
		watch_free(w);
		return NULL;
	}
	if (watch_begin(w)) {
		client_fail(err, COORD_MEMORY, "", "no memory");
		watch_free(w);
		return NULL;
	}
	return w;
}

void
coord_watch_end(struct coord_watch *w)
{
	if (!w)
		return;
	if (w->sink.generation)
		unwatch(w->client, w->sink.generation, w->sink.id, w->sink.id_len);
	client_sink_remove(w->client, &w->sink);
	w->has_ended = true;
	if (!w->asking)
		watch_free(w);
}

/* All of them, begun anew on a connection. */
void
watches_begin(struct coord_client *c)
{
	struct coord_error why;
	struct coord_watch *w;

	TAILQ_FOREACH (w, &c->watches, link) {
		client_sink_remove(c, &w->sink);
		if (!w->has_ended && watch_begin(w)) {
			client_fail(&why, COORD_MEMORY, "unavailable", "no memory for a watch");
			wire_drop(c->wire, &why); /* the next connection may have it */
		}
	}
}

void
watches_free(struct coord_client *c)
{
	while (!TAILQ_EMPTY(&c->watches))
		watch_free(TAILQ_FIRST(&c->watches));
}
