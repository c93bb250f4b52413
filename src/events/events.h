#ifndef COORDD_EVENTS_EVENTS_H
#define COORDD_EVENTS_EVENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/loop.h"
#include "proto/fields.h"
#include "store/store.h"

/*
 * Who watches what, and who is meant by a message type or a type of agents (docs/PROTOCOL.md, sections 4 and 5). What
 * happens is written to a stream in Redis by the scripts that do it; here it is read and handed on.
 *
 * Namespaces are as clients name them, except where said. Callbacks never run before the function that took them
 * returns, and must not call what is declared here; what they are given dies with them. `err` is OK or one of store_run()'s.
 */
struct events;
struct watch;

struct events *events_new(struct loop *loop, struct store *store, const char *key_prefix);
/* The store was freed before, and every watch has ended. */
void events_free(struct events *events);
/* Something happened in a namespace, which is encoded as in keys. */
void events_ring(struct events *events, struct str ns);
/* Every namespace that is watched is looked at: after a reconnect. It is done each second anyway. */
void events_look_all(struct events *events);

/* Watch ------------------------------------------------------------------------------------ */

struct watch_event {
	enum event_class class;
	struct str kind; /* "message_dead" */
	uint64_t at_us;  /* Redis's clock */
	bool has_agent;
	struct agent_id agent;               /* with has_agent: it, or the queue it is about */
	struct str name, reason, message_id; /* valid UTF-8; n 0 where there is none */
};

struct watch_ops {
	/* Once, before all others: OK, from now on; or it could not begin, and is gone. */
	void (*on_begun)(void *arg, enum err err);
	void (*on_event)(void *arg, const struct watch_event *event);
	/* Here it has missed something: so many, 0 when nobody knows. */
	void (*on_lost)(void *arg, uint64_t count);
	/* No more for now: what comes is missed, until watch_look() finds that this is over. */
	bool (*is_blocked)(void *arg);
};

/*
 * Be told of what happens in a namespace from now on, each once and in order: of the `classes` (1 << EVENT_AGENT, ...). It
 * lasts until watch_end(), and through every failure of Redis; `ops` and `arg` as long.
 */
struct watch *events_watch(struct events *events, struct str ns, unsigned classes,
			   const struct watch_ops *ops, void *arg);
/* It may be blocked no longer. */
void watch_look(struct watch *w);
/* No callback runs any more. */
void watch_end(struct watch *w);

/* Recipients ------------------------------------------------------------------------------- */

#define SUBSCRIPTION_ID_LEN 24
/* `id` is of SUBSCRIPTION_ID_LEN bytes. */
typedef void subscribe_cb(void *arg, enum err err, struct str id);
/* `types`: 1 << MESSAGE_REQUEST, ... */
void events_subscribe(struct events *events, struct str ns, const struct agent_id *agent,
		      unsigned types, subscribe_cb *cb, void *arg);
/* `done` is false when the agent has no such subscription. */
typedef void unsubscribe_cb(void *arg, enum err err, bool done);
void events_unsubscribe(struct events *events, struct str ns, const struct agent_id *agent,
			struct str id, unsubscribe_cb *cb, void *arg);

/* Agents in the order of their names in Redis, each once. */
typedef void agents_cb(void *arg, enum err err, const struct agent_id *agents, unsigned n);
/* Who is subscribed to a message type: at most `limit`. */
void events_subscribers(struct events *events, struct str ns, enum message_type type,
			unsigned limit, agents_cb *cb, void *arg);
/* The registered agents of a type that live: at least `limit` when there are as many, maybe more. */
void events_live(struct events *events, struct str ns, struct str type, unsigned limit,
		 agents_cb *cb, void *arg);

#endif
