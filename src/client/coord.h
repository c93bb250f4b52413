#ifndef COORD_H
#define COORD_H

/*
 * The client of coordd: one connection to a broker, requests over it, their answers.
 *
 *	struct coord_error err;
 *	struct coord_reply *reply;
 *	struct coord *c = coord_connect("tcp://127.0.0.1:7420", 2000, &err);
 *
 *	if (c && !coord_call(c, "ping", NULL, 2000, &reply, &err))
 *		coord_reply_free(reply);
 *	coord_free(c);
 *
 * The library never exits, logs, installs a signal handler or starts a thread. A connection
 * belongs to one thread at a time. Methods, parameters and results: docs/PROTOCOL.md.
 *
 * It has two layers. The core never blocks: the caller watches coord_fd() and says when it can
 * be read or written. On it stand coord_connect(), coord_recv() and coord_call(), which wait.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <msgpack.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

#define COORD_VERSION_MAJOR 0
#define COORD_VERSION_MINOR 1
#define COORD_VERSION_PATCH 0
#define COORD_VERSION       "0.1.0"

/* The version of the library that runs; COORD_VERSION is that of this header. */
const char *coord_version(void);

#define COORD_PORT "7420"

/* An answer longer than this, or with more values in it, ends the connection. */
#define COORD_MAX_FRAME    (16u << 20)
#define COORD_MAX_ELEMENTS (2u << 20)

enum coord_status {
	COORD_OK = 0,
	COORD_AGAIN,    /* coord_take(): the answer is not there yet */
	COORD_MEMORY,   /* no memory */
	COORD_USAGE,    /* a URL, method, id or call that makes no sense */
	COORD_CONNECT,  /* the broker cannot be reached */
	COORD_TIMEOUT,  /* no answer in time; if one comes later it is dropped */
	COORD_CLOSED,   /* the connection ended before the answer came */
	COORD_PROTOCOL, /* the peer does not speak the protocol */
	COORD_REFUSED   /* the broker answered with an error: see `code` */
};

/* Why something failed; complete in itself, nothing to free. */
struct coord_error {
	enum coord_status status;
	char code[32];   /* COORD_REFUSED: as on the wire ("bad_request"); else "" */
	bool retryable;  /* whether asking again can help */
	char applied[8]; /* whether the request took effect: "no", "unknown", or "" (see `code`)
			  */
	char message[512]; /* one sentence for a person; may quote what a peer chose */
};

struct coord;        /* one connection */
struct coord_params; /* the parameters of a request */
struct coord_reply;  /* one answer */

/* --- parameters -------------------------------------------------------------- */

/*
 * A map that grows by key. Failures to allocate are remembered and reported by whoever sends it
 * (COORD_MEMORY), so they need no check on the way. It can be sent any number of times.
 */
struct coord_params *coord_params_new(void); /* NULL: no memory */
void coord_params_free(struct coord_params *p);

/* Empty it, failures too; memory stays for the next request. */
void coord_params_clear(struct coord_params *p);

/* Add `key`; the caller packs exactly one value into what is returned. */
msgpack_packer *coord_param(struct coord_params *p, const char *key);
void coord_param_str(struct coord_params *p, const char *key, const char *value);
void coord_param_int(struct coord_params *p, const char *key, int64_t value);
void coord_param_double(struct coord_params *p, const char *key, double value);
/* An AgentId; `instance` NULL or "" is the one that all workers of a type share. */
void coord_param_agent(struct coord_params *p, const char *key, const char *type,
		       const char *instance);

/* The same values inside a nested map or array. */
void coord_pack_str(msgpack_packer *pk, const char *value);
void coord_pack_agent(msgpack_packer *pk, const char *type, const char *instance);
/* `n` bytes that are MessagePack already, as many values as belong there. */
void coord_pack_raw(msgpack_packer *pk, const void *bytes, size_t n);

/* --- answers ----------------------------------------------------------------- */

/* The result; lives as long as the reply. Strings in it are not terminated. */
const msgpack_object *coord_reply_result(const struct coord_reply *reply);
void coord_reply_free(struct coord_reply *reply);

/* The value of `key`; NULL when `map` is NULL or no map, or has no such key, or it is nil. */
const msgpack_object *coord_get(const msgpack_object *map, const char *key);

/* --- the core: never blocks -------------------------------------------------- */

/* Take over `fd`, a connected stream socket: it becomes non-blocking and coord_free() closes
 * it. NULL without memory, and then `fd` stays the caller's. */
struct coord *coord_attach(int fd);

/* Close and forget everything; answers already taken stay valid. NULL is fine. */
void coord_free(struct coord *c);

int coord_fd(const struct coord *c);
/* Whether coord_on_writable() has something to do; coord_on_readable() always may. */
bool coord_wants_write(const struct coord *c);
/*
 * Move the bytes that are there; when more are left, poll(2) says so again. When the connection
 * is at its end, so are all its requests: coord_take() hands out what was answered and says
 * COORD_CLOSED of the rest.
 *
 *	COORD_OK, COORD_CLOSED, COORD_PROTOCOL, COORD_MEMORY, COORD_REFUSED (it closed the
 * connection), COORD_USAGE (called by what it has called)
 */
enum coord_status coord_on_readable(struct coord *c);
enum coord_status coord_on_writable(struct coord *c);

/* Why the connection is at its end; NULL while it is not. Lives as long as the connection. */
const struct coord_error *coord_ended(const struct coord *c);

/*
 * Queue a request and give its number in `id`; any number may be under way. `params` may be
 * NULL. Nothing is written before coord_on_writable(), coord_recv() or coord_call(). Each
 * request must be taken, received or forgotten.
 *
 *	COORD_OK, COORD_MEMORY, COORD_USAGE (no method), or why the connection is at its end
 */
enum coord_status coord_send(struct coord *c, const char *method,
			     const struct coord_params *params, uint32_t *id);

/*
 * Take the answer of request `id`. The caller owns `*reply`, which is set on COORD_OK alone;
 *`err` may be NULL and is set on every other outcome but COORD_AGAIN, after which the request
 * is gone.
 *
 *	COORD_OK, COORD_AGAIN, COORD_REFUSED, COORD_USAGE (no such request), or why the
 * connection is at its end
 */
enum coord_status
coord_take(struct coord *c, uint32_t id, struct coord_reply **reply, struct coord_error *err);

/* Nobody wants this answer any more. The broker may still do what was asked. */
void coord_forget(struct coord *c, uint32_t id);

/*
 * What became of a request, for programs with many under way: `result`, or NULL and why in
 * `err`, both valid as long as the call. It runs exactly once, from coord_on_readable() (which
 * the functions that wait call too), never before coord_async() has returned, and not at all
 * once coord_free() was called. It may send more; it must not read from or free this
 * connection.
 */
typedef void
coord_answer_fn(void *arg, const msgpack_object *result, const struct coord_error *err);

/* As coord_send(), with the answer handed to `fn`: cheaper, since nothing of it is kept. */
enum coord_status
coord_async(struct coord *c, const char *method, const struct coord_params *params,
	    coord_answer_fn *fn, void *arg);

/*
 * What the broker sends unasked: `method` ("message" after `consume`) and its one parameter,
 * NULL when it has none. When and with what rules: as coord_answer_fn. Without a handler (the
 * beginning, or `fn` NULL) notifications are dropped.
 */
typedef void coord_notice_fn(void *arg, const char *method, const msgpack_object *param);
void coord_on_notice(struct coord *c, coord_notice_fn *fn, void *arg);

/* --- what waits -------------------------------------------------------------- */

/*
 * Connect to `url`: tcp://HOST[:PORT] (an IPv6 address in brackets) or unix:///PATH. Times are
 * in milliseconds, a negative one has no limit; the lookup of a host name is outside of it.
 * NULL on error (COORD_USAGE, COORD_CONNECT, COORD_TIMEOUT, COORD_MEMORY).
 */
struct coord *coord_connect(const char *url, int timeout_ms, struct coord_error *err);

/* Write what is queued and wait for the answer of `id`; as coord_take(), with COORD_TIMEOUT in
 * the place of COORD_AGAIN: the request is then forgotten, and its outcome unknown. */
enum coord_status coord_recv(struct coord *c, uint32_t id, int timeout_ms,
			     struct coord_reply **reply, struct coord_error *err);

/* coord_send() and coord_recv() in one. */
enum coord_status
coord_call(struct coord *c, const char *method, const struct coord_params *params,
	   int timeout_ms, struct coord_reply **reply, struct coord_error *err);

/* --- a client that connects by itself ---------------------------------------------- */

/*
 * A set of brokers that share one Redis, spoken to over one connection at a time. When that is
 * lost, or its broker says that it stops, the next one is connected to, and what was asked and not
 * answered is asked again where that does no harm.
 *
 *	struct coord_client *c = coord_client_new(base, "tcp://a,tcp://b", &err);
 *
 *	coord_client_set(c, COORD_CLIENT_NAME, "planner");
 *	coord_client_call(c, "queue_stats", params, -1, on_stats, NULL);
 *	event_base_dispatch(base);
 *
 * It lives on an event base of libevent, the caller's or one of its own, and belongs to the thread
 * that runs it. All functions that are handed over run from that loop, never before the function
 * that took them has returned, and may call whatever they like, coord_client_free() too. It does
 * not block: names are looked up by libevent's resolver, which reads /etc/resolv.conf and
 * /etc/hosts.
 */
struct event_base;
struct coord_client;

/*
 * `urls` are of the form that coord_connect() takes, separated by commas or blanks, 16 at most. They
 * are tried in their order, and round again. `base` NULL: it makes one of its own, which moves only
 * while coord_client_ask() or coord_client_run() wait. It connects with the next turn of the loop,
 * and keeps the loop of the caller running until it is freed.
 *
 * NULL: COORD_USAGE (a URL that makes no sense), COORD_MEMORY.
 */
struct coord_client *
coord_client_new(struct event_base *base, const char *urls, struct coord_error *err);

/* Close and forget everything: no callback runs any more, watches are ended. NULL is fine. When a
 * name was just being looked up, the loop of the caller needs three more turns to free that
 * question; without them it is a leak. */
void coord_client_free(struct coord_client *c);

enum coord_option {
	/* Text, at most 256 bytes. Of `hello`: who this is, for people; a token; the namespace. */
	COORD_CLIENT_NAME = 1,
	COORD_TOKEN,
	COORD_NAMESPACE,
	/* Milliseconds, 1 to a day. Until a connection has said hello (2000). */
	COORD_CONNECT_TIMEOUT,
	/* A connection that is silent for so long while something is owed is given up (10000);
	 * after half of it the broker is pinged. */
	COORD_IDLE_TIMEOUT,
	/* Pauses between attempts are random, up to a bound that doubles from MIN to MAX (50,
	 * 5000). */
	COORD_BACKOFF_MIN,
	COORD_BACKOFF_MAX,
	/* More requests without an answer (65536), or bytes of them (64 MiB), are not taken. */
	COORD_MAX_PENDING,
	COORD_MAX_PENDING_BYTES
};

/*
 * Before the first turn of the loop. Text NULL is none.
 *
 *	COORD_OK, COORD_USAGE (no such option, or too late, or out of range), COORD_MEMORY
 */
enum coord_status
coord_client_set(struct coord_client *c, enum coord_option option, const char *text);
enum coord_status
coord_client_set_int(struct coord_client *c, enum coord_option option, int64_t value);

/*
 * Told of each change: `why` NULL: connected to `url`; else why a connection to it could not be
 * made, or has ended. Both are valid as long as the call.
 */
typedef void coord_state_fn(void *arg, const char *url, const struct coord_error *why);
void coord_client_on_state(struct coord_client *c, coord_state_fn *fn, void *arg);

/* The URL that is connected to; NULL while none is. */
const char *coord_client_url(const struct coord_client *c);

/*
 * Ask, and be told in `fn` (may be NULL) what became of it, exactly once unless the client is freed
 * before. `params` is copied, and may be NULL. All attempts together take no longer than `timeout_ms`
 * (negative: 30 s, and the `wait` of the parameters). In between it is asked again, behind a pause
 * that grows:
 *
 *	nothing was done		`applied` is "no", `overloaded`, `shutting_down`, or it
 *					never left: whatever was asked
 *	nobody knows			the connection was lost, or `applied` is "unknown":
 *					where docs/PROTOCOL.md, "Asking again", says that it does
 *					no harm
 *
 * What goes again keeps its order, and a `send` waits for those before it to the same queue. `err`
 * of `fn` has always a code, beside those of the broker (COORD_REFUSED):
 *
 *	"unavailable"	COORD_CONNECT: no broker could be reached in time; COORD_CLOSED: the
 *			connection was lost; `applied` says what is known
 *	"timeout"	COORD_TIMEOUT: no answer in time; `applied`, too
 *	"protocol_error" COORD_PROTOCOL: no broker that speaks our protocol could be reached
 *
 * When the time is over and the broker has refused it before, `err` is that refusal.
 *
 *	COORD_OK, COORD_MEMORY, COORD_USAGE (no method, of more than 255 bytes), COORD_AGAIN (too
 *	much is under way; `fn` will not run)
 */
enum coord_status
coord_client_call(struct coord_client *c, const char *method, const struct coord_params *params,
		  int timeout_ms, coord_answer_fn *fn, void *arg);

/*
 * Tell the broker and hear nothing of it; only some methods may be told (docs/PROTOCOL.md, section
 * 1). It is lost with the connection, and in COORD_AGAIN there is none just now.
 *
 *	COORD_OK, COORD_AGAIN, COORD_MEMORY, COORD_USAGE
 */
enum coord_status coord_client_notify(struct coord_client *c, const char *method,
				      const struct coord_params *params);

/* How many requests have no answer yet. */
size_t coord_client_pending(const struct coord_client *c);

/*
 * Events as they happen (docs/PROTOCOL.md, section 5), of `classes`: words of "agent", "breaker" and
 * "queue", separated by blanks or commas. It is renewed on every connection; what happened in
 * between is told as an `event` "lost" with no `count`. `event` NULL: the broker will not have the watch,
 * for the reason `err`; it is tried again with the next connection.
 *
 * NULL: COORD_USAGE, COORD_MEMORY.
 */
struct coord_watch;
typedef void
coord_event_fn(void *arg, const msgpack_object *event, const struct coord_error *err);
struct coord_watch *coord_client_watch(struct coord_client *c, const char *classes,
				       coord_event_fn *fn, void *arg, struct coord_error *err);
/* `fn` runs no more. After coord_client_free() there is no watch to end. NULL is fine. */
void coord_watch_end(struct coord_watch *watch);

/*
 * As coord_client_call(), and wait. It moves the loop, so other functions may run. Only for a client
 * with a base of its own, and not from a function that its loop runs (COORD_USAGE).
 *
 * The caller owns `*reply`, which is set on COORD_OK alone; `err` may be NULL, and is set on all
 * other outcomes.
 */
enum coord_status
coord_client_ask(struct coord_client *c, const char *method, const struct coord_params *params,
		 int timeout_ms, struct coord_reply **reply, struct coord_error *err);

/*
 * Move a loop of its own for `timeout_ms` (negative: without end), or until coord_client_break(),
 * which the functions that it runs, and signal handlers, may call.
 *
 *	COORD_OK (broken), COORD_TIMEOUT, COORD_USAGE (as coord_client_ask()), COORD_CLOSED (freed)
 */
enum coord_status coord_client_run(struct coord_client *c, int timeout_ms);
void coord_client_break(struct coord_client *c);

/* --- agents, and work for them -------------------------------------------------- */

/*
 * An agent is registered under a name and says all the time that it lives; consumers of it take
 * jobs, messages that are its own until it has settled them. All of it goes on by itself when a
 * broker goes away and another one is there.
 *
 *	static void
 *	work(void *arg, struct coord_job *job)
 *	{
 *		do_it(coord_job_payload(job));
 *		coord_job_ack(job, NULL, NULL);
 *	}
 *
 *	agent = coord_agent_new(client, "worker", "w1", NULL, &err);
 *	coord_agent_consume(agent, "jobs", NULL, 4, NULL, work, NULL, &err);
 *
 * All functions that are handed over here run from the loop of the client, never before the
 * function that took them has returned, and may call whatever they like, also the functions that
 * free what they are about. After coord_client_free() agents, consumers and jobs that are still
 * there do nothing any more; they are freed, or ended, as always.
 */
struct coord_agent;
struct coord_consumer;
struct coord_job;

enum coord_agent_event {
	/* A new incarnation has begun, `result` is what `register` answered (docs/PROTOCOL.md,
	 * section 5: incarnation, state, ...). Not told when a connection was lost and the
	 * incarnation goes on. When it is told again, the broker had forgotten the agent, and the
	 * heartbeat leases of the incarnation before are lost. */
	COORD_AGENT_REGISTERED,
	/* Another has registered under this name. The agent beats no more, its heartbeat leases
	 * are lost, its consumers take nothing new, and it does not try to get its name back. */
	COORD_AGENT_SUPERSEDED,
	/* It could not be registered, `err` says why. It is tried again when that can help
	 * (`retryable`), else this was all. */
	COORD_AGENT_ERROR
};
typedef void coord_change_fn(void *arg, enum coord_agent_event event,
			     const msgpack_object *result, const struct coord_error *err);

/*
 * Register, and beat from then on. `instance` NULL or "" is "default". `registration` has further
 * parameters of `register` (name, ttl, capabilities, metadata, status, state, resume) or is NULL; it
 * is copied. Choose a COORD_IDLE_TIMEOUT of at most half of the ttl, so that a broker that
 * hangs is noticed in time.
 *
 * NULL: COORD_USAGE (no type, parameters that are no such), COORD_MEMORY.
 */
struct coord_agent *
coord_agent_new(struct coord_client *c, const char *type, const char *instance,
		const struct coord_params *registration, struct coord_error *err);

/* At once: no callback runs any more, its consumers are freed, it does not deregister. Jobs stay
 * with who has them, and are lost. NULL is fine. */
void coord_agent_free(struct coord_agent *agent);

void coord_agent_on_change(struct coord_agent *agent, coord_change_fn *fn, void *arg);

/*
 * Say at once what it does, or what is kept for its next registration: `n` bytes that are one
 * value of MessagePack, at most 64 KiB. They are copied, and told again after a registration.
 *
 *	COORD_OK, COORD_USAGE, COORD_MEMORY
 */
enum coord_status
coord_agent_set_status(struct coord_agent *agent, const void *value, size_t n);
enum coord_status coord_agent_set_state(struct coord_agent *agent, const void *value, size_t n);

/* The incarnation in force; 0 while it is not registered. */
int64_t coord_agent_incarnation(const struct coord_agent *agent);

/*
 * Stop as who has time to: take nothing new, wait for the jobs that are under way, after
 * `timeout_ms` (negative: no limit) hand back those that are left, deregister. Then `fn` runs,
 * once: `why` is NULL, or the error that kept the broker from being told. It may free the agent,
 * which does nothing any more. Stopping again sets another limit and another `fn`.
 */
typedef void coord_stopped_fn(void *arg, const struct coord_error *why);
void
coord_agent_stop(struct coord_agent *agent, int timeout_ms, coord_stopped_fn *fn, void *arg);

/* --- consumers ------------------------------------------------------------------ */

/* Each job goes to one of these. It belongs to who gets it, until it is ended by one of
 * coord_job_ack(), _nack(), _release(), _reply(), now or later. */
typedef void coord_handler_fn(void *arg, struct coord_job *job);

#define COORD_MAX_CONCURRENCY 1000

/*
 * Take jobs from a queue, at most `concurrency` (1 to 1000) at once: never are more of them
 * unfinished in this process, also not over a change of connections. `type` NULL is the agent's own
 * queue. `params` has further parameters of `consume` (lease, visibility_timeout, holder) or is NULL;
 * the lease of an agent's consumer is "heartbeat" and its holder the agent when nothing else is
 * said, without an agent it is "connection". It is renewed on every connection. When a broker
 * drains it goes on at another one, if there is one.
 *
 * NULL: COORD_USAGE, COORD_MEMORY.
 */
struct coord_consumer *
coord_agent_consume(struct coord_agent *agent, const char *type, const char *instance,
		    unsigned concurrency, const struct coord_params *params,
		    coord_handler_fn *fn, void *arg, struct coord_error *err);
struct coord_consumer *
coord_client_consume(struct coord_client *c, const char *type, const char *instance,
		     unsigned concurrency, const struct coord_params *params,
		     coord_handler_fn *fn, void *arg, struct coord_error *err);

/* Told once when the broker will not have it (`bad_request`), or there was no memory for a job:
 * it takes nothing any more. */
typedef void coord_failed_fn(void *arg, const struct coord_error *why);
void coord_consumer_on_failed(struct coord_consumer *consumer, coord_failed_fn *fn, void *arg);

/* As coord_agent_stop(), of one consumer. */
void coord_consumer_stop(struct coord_consumer *consumer, int timeout_ms, coord_stopped_fn *fn,
			 void *arg);

/* At once: no callback of it runs any more, and its jobs are handed back and lost. Those of an
 * agent that are still there are freed with it. NULL is fine. */
void coord_consumer_free(struct coord_consumer *consumer);

/* --- jobs ------------------------------------------------------------------------ */

/* What was delivered, a ReceivedMessage; the AgentMessage in it; its payload. They live as long as
 * the job. NULL where a broker left them out. */
const msgpack_object *coord_job_delivery(const struct coord_job *job);
const msgpack_object *coord_job_message(const struct coord_job *job);
const msgpack_object *coord_job_payload(const struct coord_job *job);
const char *coord_job_token(const struct coord_job *job);
int64_t coord_job_fence(const struct coord_job *job);
/* How many deliveries failed before this one. */
unsigned coord_job_attempts(const struct coord_job *job);

/*
 * A job whose lease has a deadline is extended at half of its visibility timeout, again and again.
 * It is lost when its lease has ended, or when it must be feared that it has: its deadline passed
 * with no broker to extend it, the agent has not got through for its ttl, the connection of a
 * "connection" lease broke. Somebody else may work on it by now. It still has to be ended; what that
 * tells is the truth.
 */
bool coord_job_is_lost(const struct coord_job *job);
typedef void coord_lost_fn(void *arg, struct coord_job *job);
/* `fn` runs at most once, and not when the job is lost already. */
void coord_job_on_lost(struct coord_job *job, coord_lost_fn *fn, void *arg);

/*
 * End a job; when COORD_OK is returned it is gone, else (COORD_MEMORY, COORD_USAGE) it is as before.
 * The broker is asked again until it is known what became of it; `fn` (may be NULL) is told once:
 *
 *	is_settled, no `why`	it is settled
 *	not, no `why`		its lease had ended, or what was asked first was applied and its
 *				answer lost; it may be handed out again
 *	not, and `why`		not known; the lease ends by itself
 *
 * nack: `failure` is "transient", "permanent" or "timeout", NULL the first of these; `error` of at most
 * 1024 bytes or NULL. `delay` in seconds; negative: none is said, the rules of the queue apply.
 */
typedef void coord_settled_fn(void *arg, bool is_settled, const struct coord_error *why);
enum coord_status coord_job_ack(struct coord_job *job, coord_settled_fn *fn, void *arg);
enum coord_status coord_job_nack(struct coord_job *job, const char *failure, const char *error,
				 double delay, coord_settled_fn *fn, void *arg);
enum coord_status
coord_job_release(struct coord_job *job, double delay, coord_settled_fn *fn, void *arg);

/*
 * Answer a request, then ack it: a message of the type "response", with `payload` (`n` bytes, one
 * map of MessagePack), whose correlation_id is the message_id of the request, to the queue that its
 * `reply_to` names, or else to its sender. It is the same message when the request is handed out
 * again. When it cannot be sent, the job is nacked and `why` tells the reason.
 */
enum coord_status coord_job_reply(struct coord_job *job, const void *payload, size_t n,
				  coord_settled_fn *fn, void *arg);

/* --- requests -------------------------------------------------------------------- */

/*
 * Send a request and wait for its answer: a message of the type "request" with `payload` (`n` bytes,
 * one map of MessagePack) whose `reply_to` names a queue of this agent, "INSTANCE.replies", of which it takes
 * the answers. `fn` gets the AgentMessage that was answered, or why there was none:
 * COORD_REFUSED (code "overloaded": the queue is full), COORD_TIMEOUT. A request that nobody
 * has begun with by then is not handed out any more.
 *
 *	COORD_OK, COORD_AGAIN (65536 are under way), COORD_USAGE, COORD_MEMORY
 */
enum coord_status coord_agent_request(struct coord_agent *agent, const char *type,
				      const char *instance, const void *payload, size_t n,
				      int timeout_ms, coord_answer_fn *fn, void *arg);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
