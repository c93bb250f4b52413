#ifndef COORD_WORK_H
#define COORD_WORK_H

/*
 * What agents, consumers, jobs and requests know of each other.
 *
 *	agent.c		a name that is registered and beats; it stops its consumers
 *	consumer.c	takes deliveries from whichever broker is there, and hands them on as jobs
 *	job.c		one delivery, until it is settled
 *	request.c	requests of an agent, and the jobs of its own that bring their answers
 *
 * Each is counted by `refs`: the caller, those below it, and the answers that its functions still wait for.
 * So pointers upwards are always good, whatever was freed: what is freed is silent, and goes when
 * nothing points to it. When the client goes, the answers go with it (`owed`).
 *
 * What the caller handed over is called from the loop alone, and last: afterwards anything may be gone.
 */

#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/str.h"
#include "client/client_impl.h"
#include "client/coord.h"

#define NO_TIME INT64_MAX

/* --- work.c: small things -------------------------------------------------------- */

/* Milliseconds of a clock that also counts while the machine sleeps: leases do not wait for it. */
int64_t work_now(void);

/* A function to be called later, from the loop. Without memory for that it is called early, so it looks at
 * the clock itself. Once it is done with (all zero, too), nothing is called, and the loop may be gone. */
struct alarm {
	struct event event;
	bool is_on;
};
void alarm_init(struct alarm *t, struct event_base *base, event_callback_fn fn, void *arg);
void alarm_done(struct alarm *t);
void alarm_at(struct alarm *t, int64_t at_ms); /* of work_now(); NO_TIME: not at all */
void alarm_soon(struct alarm *t);

/* Pairs of a map: key, value, key, value ... */
struct pairs {
	char *data;
	size_t n;
};

/* Copy those of `from` (NULL: none) that may be absent. COORD_USAGE: `from` holds no such pairs. */
enum coord_status pairs_copy(struct pairs *to, const struct coord_params *from);
void pairs_done(struct pairs *p);
/* The value of `key`, as bytes; n 0: not there. */
struct str pairs_get(const struct pairs *p, const char *key);
/* Add all whose key is none of `but`, which ends with NULL. */
void pairs_put(struct coord_params *to, const struct pairs *p, const char *const *but);

/* Whether the bytes are exactly one value, and a map if it is to be one. */
bool work_is_value(const void *bytes, size_t n, bool is_map);
/* Whether `o` is this text; NULL is none. */
bool work_is_text(const msgpack_object *o, const char *text);
bool work_is_true(const msgpack_object *o);
double work_number(const msgpack_object *o, double otherwise);
int64_t work_int(const msgpack_object *o, int64_t otherwise);

/* For answers that nobody waits for. */
void work_ignore(void *arg, const msgpack_object *result, const struct coord_error *err);

/* --- agents ------------------------------------------------------------------------ */

enum agent_phase {
	AGENT_NEW,   /* not registered, or not any more: it tries to be */
	AGENT_ALIVE, /* it beats */
	AGENT_OVER   /* superseded, refused, stopped or freed: it does nothing by itself */
};

/* What is told with a beat; `n` 0: nothing was ever set. */
struct told {
	const char *key;
	char *value;
	size_t n;
	bool is_due, is_asked;
};

TAILQ_HEAD(consumer_list, coord_consumer);
TAILQ_HEAD(request_list, coord_request);

struct coord_agent {
	struct client_hook hook;
	struct coord_client *client; /* NULL: it is gone */
	unsigned refs, owed;
	char *type, *instance;
	struct pairs registration;
	struct coord_params *scratch; /* of the request that is being made */
	struct told told[2];

	enum agent_phase phase;
	bool is_freed;
	bool is_busy;      /* one request of its own is under way, which `asked_ms` is of */
	bool is_again;     /* and another one is wanted after it */
	bool is_confirmed; /* this connection's broker has said that the incarnation lives */
	int64_t incarnation;
	int64_t ttl_ms, interval_ms, asked_ms;
	int64_t until_ms;  /* what it holds may be another's from then on */
	unsigned failures; /* in a row */
	struct alarm beat, lapse;
	coord_change_fn *change;
	void *change_arg;

	struct consumer_list consumers;
	struct coord_consumer *replies; /* one of them; NULL before the first request */
	struct request_list requests;
	struct coord_request **slots; /* requests by the number in their id */
	unsigned n_slots, n_requests, next_slot;
	uint64_t last_request;
	char nonce[33];

	bool is_stopping;
	struct alarm turn; /* a step of stopping */
	coord_stopped_fn *stopped;
	void *stopped_arg;
};

void agent_put(struct coord_agent *agent);
/* Beat, or register, now. */
void agent_kick(struct coord_agent *agent);
/* One of its consumers has come to its end. */
void agent_consumer_stopped(struct coord_agent *agent);

/* --- consumers --------------------------------------------------------------------- */

enum lease { LEASE_TIMEOUT, LEASE_CONNECTION, LEASE_HEARTBEAT };

/*
 * A consumer as a broker knows it. One of ours can have several: while jobs of a lost connection are
 * unfinished, their places are not asked for, and later they are, by one more.
 */
struct share {
	TAILQ_ENTRY(share) link;
	struct coord_consumer *consumer;
	struct client_sink sink;
	uint64_t generation;
	unsigned prefetch;
	bool is_retired; /* its places are asked for elsewhere: its broker stops */
};
TAILQ_HEAD(share_list, share);
TAILQ_HEAD(job_list, coord_job);

struct coord_consumer {
	TAILQ_ENTRY(coord_consumer) link; /* of its agent's */
	struct client_hook hook;
	struct coord_client *client; /* NULL: it is gone */
	struct coord_agent *agent;   /* NULL: it has none, or is freed */
	unsigned refs, owed;
	char *type, *instance;
	struct pairs params;
	struct coord_params *scratch; /* of the request that is being made */
	enum lease lease;
	bool is_agents_lease; /* it ends with the agent */
	double visibility;    /* seconds */
	unsigned concurrency;
	coord_handler_fn *fn;
	void *arg;
	coord_failed_fn *failed;
	void *failed_arg;

	struct share_list shares;
	struct share *asking; /* for this one no answer has come yet */
	struct job_list jobs;
	unsigned running; /* with the caller, or on their way back from it */
	unsigned held;    /* no place for them yet */
	unsigned stray;   /* of the two, those of no share */
	unsigned unsettled;

	bool is_freed, is_failed, is_stopping, is_stopped;
	unsigned cancels; /* unanswered */
	struct coord_error why;
	unsigned failures; /* in a row */
	int64_t retry_ms;  /* not asked for before */
	int64_t stop_ms;   /* what still runs then is handed back */
	struct alarm turn, stop;
	coord_stopped_fn *stopped;
	void *stopped_arg;
};

/* `agent` may be NULL. */
struct coord_consumer *
consumer_new(struct coord_client *c, struct coord_agent *agent, const char *type,
	     const char *instance, unsigned concurrency, const struct coord_params *params,
	     coord_handler_fn *fn, void *arg, struct coord_error *err);
void consumer_put(struct coord_consumer *consumer);
/* Look on the next turn of the loop what is to be done. */
void consumer_kick(struct coord_consumer *consumer);
/* What it holds by its agent's life is lost; for certain when `is_over`, and then it begins anew. */
void consumer_lapse(struct coord_consumer *consumer, bool is_over);
/* Its agent is over: take nothing new, let what runs come to its end. */
void consumer_quit(struct coord_consumer *consumer);
/* Stop within that time, beside whoever waits for that. */
void consumer_stop_by(struct coord_consumer *consumer, int timeout_ms);
/* There was no memory: it does nothing any more. */
void consumer_fail(struct coord_consumer *consumer, const struct coord_error *why);

/* --- jobs -------------------------------------------------------------------------- */

/* Take a delivery; it is held. NULL: no memory, or it is none. */
struct coord_job *
job_new(struct coord_consumer *consumer, struct share *share, const msgpack_object *delivery);
/* Hand the first that is held to the caller; the last thing to do. */
void job_start_first(struct coord_consumer *consumer);
/* Its place is not one of a share any more. */
void job_stray(struct coord_job *job, const struct share *share);
/* The connection that it came by has ended. */
void job_on_down(struct coord_job *job, uint64_t generation);
/* Whether its lease would end with that connection. */
bool job_is_tied(const struct coord_job *job, uint64_t generation);
/* Its lease has ended: for certain when `is_over`. */
void job_lose(struct coord_job *job, bool is_over);
/* It is not the caller's any more: told as lost, and handed back when the end of its share does not do that. */
void job_revoke(struct coord_job *job, bool is_share_cancelled);
void job_silence(struct coord_job *job);
/* Nothing can be told to the broker: leave it to the lease. */
void job_drop(struct coord_job *job);
/* The client is gone, and no answer comes any more. */
void job_orphan(struct coord_job *job);
struct coord_job *job_next(struct coord_job *job);

/* --- requests ---------------------------------------------------------------------- */

/* All that are under way are told `why`, on the next turn. */
void requests_end(struct coord_agent *agent, const struct coord_error *why);
/* None of them is told anything; when the client is gone no answer comes any more, either. */
void requests_drop(struct coord_agent *agent, bool is_client_gone);

#endif
