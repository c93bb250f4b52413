#ifndef COORDD_API_SESSION_H
#define COORDD_API_SESSION_H

#include <stddef.h>
#include <sys/queue.h>
#include <uthash.h>

#include "api/api.h"
#include "base/stats.h"
#include "proto/fields.h"
#include "proto/rpc.h"

/* One connection's session, and one request from its frame to its answer. Inside src/api only. */

enum role { ROLE_ANYONE, ROLE_VIEWER, ROLE_AGENT, ROLE_OPERATOR };
extern const char *const role_names[];

enum method {
#define METHOD(name, role, flags, required, optional, help) METHOD_##name,
#include "api/methods.def"
#undef METHOD
	METHOD_COUNT
};
_Static_assert((int)METHOD_COUNT < STAT_METHODS,
	       "METHOD_COUNT stands for those that there are not");
extern const char *const method_names[METHOD_COUNT];
bool method_is_heavy(enum method method);

struct api {
	struct loop *loop;
	struct store *store;
	struct queues *queues;
	struct events *events;
	struct registry *registry;
	struct breakers *breakers;
	struct operate *operate;
	struct conns *conns;
	struct api_config config;
	char instance_id[24];
	char name[129]; /* for people */
	uint64_t started_us;
	uint64_t second_us, lag_us;    /* last api_on_second(), and how late it may be */
	bool is_draining, is_stopping; /* the second implies the first */
	const struct control_ops *control;
	void *control_arg;
	unsigned in_flight, parked;
	enum method running;        /* the method whose handler runs */
	uint64_t ignored;           /* notifications nobody asked for, and responses */
	struct buf unheard;         /* a result that nobody reads, see audit_output() */
	struct delivery *unsettled; /* by token: leases, and what consumers hold */
	TAILQ_HEAD(, give_back)
	given_back; /* of closed connections, and Redis was not told yet */
	TAILQ_HEAD(, session) sessions;
};

/* A reservation that was answered: watched until its bytes have left, or, where its lease is the
 * connection or a consumer holds it, until it is settled. */
struct delivery {
	TAILQ_ENTRY(delivery) link;
	UT_hash_handle hh; /* in api->unsettled, by the token's random bytes */
	struct session *session;
	struct queue *queue; /* pinned */
	struct token token;  /* its deadline is the one in force */
	uint64_t ends_at;    /* offset in the connection's output behind its answer */
	bool is_lease;
	struct held held; /* by a consumer, if one does */
};

static inline struct delivery *
delivery_of(struct held *held)
{
	return (struct delivery *)((char *)held - offsetof(struct delivery, held));
}

/* What a closed connection held goes back; asked for again each second until Redis says so, or
 * the deadline does it. */
struct give_back {
	TAILQ_ENTRY(give_back) link;
	struct api *api;
	struct queue *queue; /* pinned */
	struct token token;
	enum settle kind;
	bool is_asked;
	struct consumer *consumer; /* one that has ended, to be told of the first answer */
};

#define CONSUMER_ID_BYTES 9

/* A consumer of a connection; it outlives that, or its cancelling, while something is under way. */
struct consumer {
	TAILQ_ENTRY(consumer) link; /* in session->consumers, until it ends */
	struct session *session;
	struct queue *queue; /* pinned */
	struct consume *consume;
	uint64_t visibility_us;
	unsigned prefetch;
	bool is_lease, has_ended, has_failed;
	unsigned releasing;                      /* give_backs that were not answered yet */
	struct request *cancel;                  /* answered when all is released */
	char id[ID_TEXT_LEN(CONSUMER_ID_BYTES)]; /* not terminated */
};

#define WATCH_ID_BYTES 9

/* A watch of a connection, until it is ended. */
struct watcher {
	TAILQ_ENTRY(watcher) link; /* in session->watchers */
	struct session *session;
	struct watch *watch;
	struct request *request; /* `watch`, until it has begun */
	bool is_behind;          /* the connection is full, or was and has not drained since */
	char id[ID_TEXT_LEN(WATCH_ID_BYTES)]; /* not terminated */
};

struct session {
	TAILQ_ENTRY(session) link;
	struct api *api;
	struct conn *conn; /* NULL once it is closed; the session lives on while requests do */
	char *namespace;
	char *client;           /* as it named itself, "" when it did not */
	struct audit *auditing; /* the call that is handled now is to be kept, see audit.c */
	bool said_hello;
	enum rpc_errors errors;
	enum role role;
	unsigned
		in_flight; /* requests unanswered, without parked ones; a heavy one weighs more */
	unsigned waiting;            /* receives that may park, and consumers */
	unsigned requests;           /* all that hold on to this session */
	unsigned unanswered, parked; /* requests, and how many of them wait */
	uint64_t asked;              /* requests and notifications, ever */
	unsigned pausing; /* reasons not to read from the connection, beside the pressure */
	TAILQ_HEAD(, request) receives;
	TAILQ_HEAD(delivery_list, delivery) deliveries;
	TAILQ_HEAD(, consumer) consumers;
	TAILQ_HEAD(, watcher) watchers;
	unsigned nwatchers;
	struct defer drained; /* tells the watchers */
};

struct request {
	TAILQ_ENTRY(request) link; /* in session->receives, while `receive` is set */
	struct session *session;
	uint32_t msgid;
	enum method method;
	unsigned weight;   /* in session->in_flight */
	uint64_t since_us; /* our clock */
	bool is_note, is_parked, has_parked, is_lease, is_batch, may_park;
	struct queue *queue;
	struct receive *receive;
	struct audit *audit; /* NULL unless it is to be kept */
	uint64_t limit;      /* of a list */
	size_t text_len;
	char text[]; /* what outlives the frame: a message id, say */
};

/*
 * A request that an operation will answer: made by a handler, ended by exactly one of
 * request_reply() + request_done() and request_fail(). `text` is copied into it.
 */
struct request *
request_new(struct session *s, const struct rpc *rpc, enum method method, struct str text);
/* One that may find the holder of a heartbeat lease missing, and its failure, which names that. */
struct request *request_new_held(struct session *s, const struct rpc *rpc, enum method method,
				 const struct params *p);
void request_fail_held(struct request *r, enum err err);
/* Where the result goes, its envelope already written; NULL when nobody waits for it. */
struct buf *request_reply(struct request *r);
void request_done(struct request *r);
void request_fail(struct request *r, enum err err);
/* One of the two: the result, where there is one, was written. */
void request_end_with(struct request *r, enum err err);
/* The same, where the general text of the error says too little. */
void request_refuse(struct request *r, const struct errmsg *why);
/* Its answer may hold so many messages: the more, the fewer such requests are under way at once. */
void request_asks_for(struct request *r, unsigned messages);
/* The receive parked, or no longer. */
void request_parked(struct request *r, bool parked);

/* Answer at once, without a request: for what needs no operation. */
struct buf *session_reply(struct session *s, const struct rpc *rpc);
void session_fail(struct session *s, const struct rpc *rpc, const struct errmsg *why);

/* A session outlives its connection while it is held on to. */
void session_hold(struct session *s);
void session_drop(struct session *s);
/* Read nothing more from the connection, until that is taken back as often: what this request will ask must come first. */
void session_pause(struct session *s, bool pause);
/* Whether one more may wait or consume; `why` is filled when it may not. */
enum err session_may_wait(const struct session *s, struct errmsg *why);
/* The holder of the heartbeat lease that `p` asks for. */
struct holder *session_holder(struct session *s, const struct queue *q, const struct params *p);

/* The visibility timeout that `p` names, else what `us` holds, at most what the queue's policy allows; ERR_BAD_REQUEST
 * when more is named. */
enum err session_visibility(const struct params *p, const struct queue *q, uint64_t *us,
			    struct errmsg *why);

/* Watch a reservation whose answer ends at the present end of the output; `consume` holds it unless that is NULL. */
void session_watch(struct session *s, struct queue *q, const struct reservation *res,
		   bool is_lease, struct consume *consume);
void delivery_free(struct delivery *d);
/* Hand a reservation back, until Redis says so. `consumer` (may be NULL) is told of the first answer. */
void give_back(struct api *api, struct queue *q, const struct token *token, enum settle kind,
	       struct consumer *consumer);

/* api_consume.c */
void consumer_given_back(struct consumer *c, enum err err);
/* It asks no more; it holds nothing any more. */
void consumer_end(struct consumer *c);
/* Tell it that it gets nothing any more. */
void consumer_note_drain(const struct consumer *c);
/* It was settled, or its deadline moved (0: settled). */
void api_settled(struct api *api, const struct token *token, uint64_t deadline_us);

/* api_events.c */
void watcher_end(struct watcher *w);
/* The session's connection is no longer backed up. */
void watchers_look(void *session);

/* dispatch.c: frames of a session (net/conn.h, struct conn_ops). */
bool session_on_frame(void *user, const uint8_t *frame, size_t n);
void session_on_bad_frame(void *user, enum frame_status status);

/*
 * audit.c: what operators did. audit_begin() is called before the handler of a method that is AUDITED; the request that the
 * handler makes takes the audit over and tells how it ended. One that is answered at once is told by audit_if_answered().
 */
struct audit;
void audit_begin(struct session *s, enum method method, const struct params *p);
void audit_if_answered(struct session *s, enum err err);
/* The handler has changed nothing, whatever it answers. */
void audit_nothing(struct session *s);
/* Where the result of a call goes whose connection is gone: it is kept all the same. */
struct buf *audit_output(struct audit *audit, struct session *s, uint32_t msgid);
/* It ended, with a result or so; the audit is gone. NULL is fine. */
void audit_done(struct audit *audit, struct session *s);
void audit_failed(struct audit *audit, enum err err);

/* Redis's clock, as in all answers, and our host's as long as that is not known. */
uint64_t api_time_us(const struct api *api);

/* Handlers, by methods.def. They borrow everything; `why` is filled when they return an error, and then
 * nothing was begun. */
#define METHOD(name, role, flags, required, optional, help)                             \
	enum err api_##name(struct session *s, const struct rpc *rpc, struct params *p, \
			    struct errmsg *why);
#include "api/methods.def"
#undef METHOD

#endif
