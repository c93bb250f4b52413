#ifndef COORD_CLIENT_IMPL_H
#define COORD_CLIENT_IMPL_H

#include <sys/queue.h>

#include "client/coord.h"

/*
 * What agents and consumers need of a client beside coord.h. Inside src/client only.
 *
 * A generation is one connection that has said hello, counted from 1 over the life of a client.
 * When a broker says that it stops, the next one is connected to first: for a while there are two, and
 * what is asked goes over the newer one.
 */

/* Told of the connections of a client. Functions may be NULL, and may add and remove hooks, also
 * their own. */
struct client_hook {
	TAILQ_ENTRY(client_hook) link;
	/* This generation has said hello, it is the newest. What is asked here goes before all that
	 * waited. */
	void (*on_up)(void *arg, uint64_t generation);
	/* This one has ended; its consumers and "connection" leases have, too. */
	void (*on_down)(void *arg, uint64_t generation);
	/* Whether something would be lost with this generation, which could be closed otherwise.
	 * Asked again when client_settled() is called. */
	bool (*is_holding)(const void *arg, uint64_t generation);
	/* coord_client_free() was called: the hook is out of the list, and the client may not be
	 * used any more. */
	void (*on_gone)(void *arg);
	void *arg;
};
/* The hook is the caller's memory. It is not told of the connection that is there already. */
void client_hook_add(struct coord_client *c, struct client_hook *hook);
void client_hook_remove(struct coord_client *c, struct client_hook *hook);

/* The newest generation that is connected; 0: none is. */
uint64_t client_generation(const struct coord_client *c);
/* A hook holds nothing any more of some generation. */
void client_settled(struct coord_client *c);

/*
 * As coord_client_call(), whatever is under way: for what keeps leases and connections in order, of
 * which there is no more than there are agents, consumers and jobs. Refused, a job would stay its
 * agent's for ever.
 */
enum coord_status
client_call(struct coord_client *c, const char *method, const struct coord_params *params,
	    int timeout_ms, coord_answer_fn *fn, void *arg);

/*
 * As client_call(), over the newest connection and no other: what belongs to a connection
 * (consume, watch, cancel). With its end the answer is `unavailable`. What was refused for a while
 * is asked again there.
 *
 *	COORD_AGAIN: there is no connection
 */
enum coord_status
client_call_here(struct coord_client *c, const char *method, const struct coord_params *params,
		 int timeout_ms, coord_answer_fn *fn, void *arg);
/* The same over the connection of this generation, which may be the one that is left just now. */
enum coord_status client_call_on(struct coord_client *c, uint64_t generation,
				 const char *method, const struct coord_params *params,
				 int timeout_ms, coord_answer_fn *fn, void *arg);

/*
 * Notifications that name a `consumer_id` or a `watch_id` go to the sink of that id. To begin one, add
 * it from the answer that gives the id: the first notification comes behind it. It ends with its
 * generation (it is out of the list when on_down is called), or by client_sink_remove().
 */
#define CLIENT_SINK_ID 256
struct client_sink {
	TAILQ_ENTRY(client_sink) link;
	uint64_t generation; /* set by client_sink_add(); 0: in no list */
	uint16_t id_len;
	char id[CLIENT_SINK_ID];
	/* As coord_notice_fn; `param` is a map. */
	void (*fn)(void *arg, const char *method, const msgpack_object *param);
	void *arg;
};
/* `id` is a string of an answer that came over `generation`. COORD_OK; COORD_PROTOCOL: it is no
 * id; COORD_CLOSED: that connection has ended. */
enum coord_status client_sink_add(struct coord_client *c, struct client_sink *sink,
				  uint64_t generation, const msgpack_object *id);
void client_sink_remove(struct coord_client *c, struct client_sink *sink); /* twice is fine */

/* A broker says that it stops or drains: another one is connected to, if there is one. */
void client_leave(struct coord_client *c, uint64_t generation);

/* The loop it lives on, for timers; the time of its clock, in milliseconds. */
struct event_base *client_base(const struct coord_client *c);
int64_t client_now(void);

/* Set `err`, which may be NULL; returns `status`. `code` "" for none. */
enum coord_status
client_fail(struct coord_error *err, enum coord_status status, const char *code,
	    const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* Random bytes (not for secrets: without a source they are of the clock). */
void client_random(void *p, size_t n);
/* What `params` has packed, for who copies it: the pairs, how many there are. NULL `p`: none.
 * COORD_MEMORY: one could not be packed. */
enum coord_status
params_raw(const struct coord_params *p, const char **pairs, size_t *n, uint32_t *count);
/* The pairs of one added to another. */
void params_append(struct coord_params *to, const struct coord_params *from);

#endif
