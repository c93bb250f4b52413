#ifndef COORD_CLIENT_OWN_H
#define COORD_CLIENT_OWN_H

#include <signal.h>
#include <sys/queue.h>

#include <event2/util.h>

#include "base/str.h"
#include "client/client_impl.h"

/* What the files of the connecting client share: core.c, broker.c, dial.c, wire.c, ask.c, client.c,
 * watch.c, wait.c. */

/* --- core.c: one socket ---------------------------------------------------------- */

/* A call as it stands in a request behind its number: method and parameters. */
size_t call_room(const char *method, const struct coord_params *params); /* at most */
char *call_write(char *to, const char *method, const struct coord_params *params);

/* As coord_async(), of a call that was written before. */
enum coord_status
core_call(struct coord *c, struct str call, coord_answer_fn *fn, void *arg, uint32_t *id);
enum coord_status
core_notify(struct coord *c, const char *method, const struct coord_params *params);
/* End it for a reason of ours, and tell all who wait. COORD_USAGE: it is on the stack. */
enum coord_status core_end(struct coord *c, const struct coord_error *why);
/* Bytes that have not left yet. */
size_t core_queued(const struct coord *c);
/* Bytes that have ever come. */
uint64_t core_heard(const struct coord *c);
/* The answer that a coord_answer_fn is told just now, to keep; NULL: no memory. */
struct coord_reply *core_told(const struct coord *c);

/* --- broker.c ------------------------------------------------------------------- */

struct broker {
	char *url;      /* as it was given; the owner's */
	bool is_unix;   /* `host` is its path */
	char host[256]; /* without brackets */
	char port[8];
};

/* Take a URL apart (but for `url`). COORD_OK, COORD_USAGE. */
enum coord_status broker_read(struct broker *a, const char *url, struct coord_error *err);
/* A list of URLs; `*list` has `*n` of them, at most `max`. COORD_OK, COORD_USAGE, COORD_MEMORY. */
enum coord_status brokers_read(const char *urls, unsigned max, struct broker **list,
			       unsigned *n, struct coord_error *err);
void brokers_free(struct broker *list, unsigned n);

/* --- dial.c: connecting ------------------------------------------------------------ */

struct dial;
/* `fd` is the callee's, or negative and `err` says why. Once, from the loop; it frees the dial. */
typedef void dial_fn(void *arg, int fd, const struct coord_error *err);
/* `a` has to live as long as the dial. NULL: no memory. */
struct dial *dial_new(struct event_base *base, const struct broker *a, int64_t timeout_ms,
		      dial_fn *fn, void *arg);
void dial_free(struct dial *d); /* NULL is fine */

/* --- wire.c: one connection of a client ---------------------------------------------- */

struct wire {
	struct coord_client *client;
	struct coord *conn;
	const char *url;
	struct event *readable, *writable, *silence;
	uint64_t generation;               /* 0 until it has said hello */
	unsigned owed;                     /* requests under way */
	int64_t heard, looked, owed_since; /* `heard`: something; `looked`: whether there is */
	uint64_t max_frame;                /* bytes of a request that its broker takes */
	bool is_pinged, is_watched;        /* `silence` waits */
	bool has_answered;                 /* something beside hello */
	bool is_left;                      /* its broker stops: another is looked for */
	bool is_dropped;                   /* to be ended for the reason `why` */
	struct coord_error why;
};

/* `fd` is its own from now on. NULL: no memory. */
struct wire *wire_new(struct coord_client *c, int fd, const char *url);
/* Say hello; the client hears of it by client_on_hello(), or the link is dropped. */
enum coord_status wire_hello(struct wire *l);
void wire_free(struct wire *l); /* requests are told nothing; NULL is fine */
/* A request is under way, or a notification may come: look after its silence. */
void wire_owes(struct wire *l);
/* Write what is queued. */
void wire_flush(struct wire *l);
/* End it with the end of this turn; the first reason counts. */
void wire_drop(struct wire *l, const struct coord_error *why);

/* --- ask.c: requests -------------------------------------------------------------- */

struct refusal;
struct ask {
	TAILQ_ENTRY(ask) link; /* in client->asks: the order in which they were asked */
	struct coord_client *client;
	struct wire *on;     /* under way there; NULL: it waits to be sent */
	uint64_t generation; /* it may go over this connection only; 0: any */
	uint32_t id;
	int64_t deadline, first_sent;
	unsigned tries;
	uint8_t lane;
	bool has_lane, is_unknown; /* the outcome of an earlier attempt is */
	struct refusal *refused;   /* the latest; NULL: none */
	coord_answer_fn *fn;
	void *arg;
	size_t n;
	char call[];
};
TAILQ_HEAD(asks, ask);

#define ASK_LANES 256

/* `is_bounded`: by how much may be under way. */
enum coord_status
ask_new(struct coord_client *c, uint64_t generation, bool is_bounded, const char *method,
	const struct coord_params *params, int timeout_ms, coord_answer_fn *fn, void *arg);
/* Send all that wait, over the connections that are there. */
void asks_go(struct coord_client *c);
/* No connection is to be had: all that wait fail for this reason. */
void asks_fail(struct coord_client *c, const struct coord_error *why);
void asks_forget(struct coord_client *c);
/* Events of the loop: the pause after a refusal is over, a deadline has come. */
void asks_on_retry(evutil_socket_t fd, short what, void *arg);
void asks_on_deadline(evutil_socket_t fd, short what, void *arg);

/* --- client.c --------------------------------------------------------------------- */

struct backoff_state {
	unsigned attempts;
};

struct coord_client {
	struct event_base *base;
	bool owns_base;
	bool has_begun; /* the loop has turned: options are settled */
	bool is_dead;   /* coord_client_free() was called by what is on the stack */
	bool is_flush_set;
	volatile sig_atomic_t is_broken; /* coord_client_break() */
	unsigned in_turn;   /* an event is handled: what is queued leaves at its end */
	unsigned holds;     /* functions on the stack that use the client */
	bool is_waiting;    /* coord_client_ask() or _run() is on the stack */
	struct wire *tells; /* whose answer is told just now */

	char *name, *token, *namespace;
	int64_t connect_timeout, idle_timeout, backoff_min, backoff_max;
	size_t max_pending, max_bytes;

	struct broker *addresses;
	unsigned n_addresses, next; /* the one that is tried next */
	unsigned tried, hopeless;   /* since the last success; of these, for good reason */
	const struct broker *at;    /* the one that is tried now */
	int64_t attempt_ends, leave_at;
	struct backoff_state connects, refusals;
	struct coord_error why; /* there is no connection; status OK: not known */
	struct dial *dial;
	/* The newest that has said hello, the one that says it, and one that is left. */
	struct wire *wire, *coming, *leaving;
	uint64_t generations;
	struct event *connect, *flush, *retry, *deadline, *tick;

	struct asks asks;
	size_t n_asks, bytes, n_waiting;
	unsigned lanes[ASK_LANES]; /* sends that wait, by the hash of their queue */
	bool is_retrying;          /* `retry` waits */
	int64_t deadline_at;       /* of the event; INT64_MAX: it does not wait */

	TAILQ_HEAD(, client_hook) hooks;
	struct client_hook *hook_next;
	TAILQ_HEAD(, client_sink) sinks;
	TAILQ_HEAD(, coord_watch) watches;

	coord_state_fn *on_state;
	void *on_state_arg;
};

/* Around whatever an event of the loop does: at the end what is queued leaves, and what has ended is
 * cleared away; the client may be gone afterwards. */
void turn_begin(struct coord_client *c);
void turn_end(struct coord_client *c);
/* Have the loop turn for what was queued outside of it. */
void client_wake(struct coord_client *c);
/* A connection has said hello to a broker that it can use. */
void client_on_hello(struct wire *l);
/* What a connection hears unasked; `arg` is the link. */
void client_on_notice(void *arg, const char *method, const msgpack_object *param);
struct wire *client_wire(const struct coord_client *c, uint64_t generation);
/* How long to pause now, in milliseconds; counts an attempt. */
int64_t backoff_pause(const struct coord_client *c, struct backoff_state *b);
/* A timer of the loop; when there is no memory for it, its event comes at once. */
void timer_start(struct event *ev, int64_t ms);
/* The end of a function that has used the client: it is freed, if it was asked to be meanwhile. */
void client_release(struct coord_client *c);

/* --- watch.c ----------------------------------------------------------------------- */

/* All that have not ended, begun on the newest connection. */
void watches_begin(struct coord_client *c);
void watches_free(struct coord_client *c);

#endif
