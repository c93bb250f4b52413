#ifndef COORDD_QUEUE_QUEUE_H
#define COORDD_QUEUE_QUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/err.h"
#include "base/loop.h"
#include "proto/fields.h"
#include "queue/item.h"
#include "queue/token.h"
#include "store/store.h"

/*
 * Messages and reservations (docs/PROTOCOL.md, section 4). A queue here is only this broker's view:
 * what it is about to ask of Redis for that queue, and who waits. All truth is in Redis.
 *
 * Every callback runs exactly once and never before the function that took it returns; `err` is
 * OK or one of store_run()'s. What a callback is given dies with it.
 */
struct queues;
struct queue;

/* What applies to a queue where `configure` set nothing. */
struct queue_policy {
	uint64_t queue_size, retry_attempts;
	uint64_t backoff_base_us, backoff_max_us;
	double backoff_factor, backoff_jitter;
	uint64_t visibility_us,
		max_visibility_us; /* of a receive that names none; what it may name */
	uint64_t ttl_us;           /* of a message that is sent without; 0 none */
	uint64_t dedup_window_us;  /* 0 off */
	uint64_t dead_letter_max;  /* 0: all are kept */
	uint64_t forget_after_us;
	uint64_t max_lease_us; /* a heartbeat lease ends at the latest then */
	unsigned
		max_inflight; /* what a consumer holds at most, whatever its prefetch; 0 no limit */
};

/* The policy of queues whose encoded "type:instance" matches, in any namespace (str_glob). */
struct queue_override {
	const char *match;
	struct queue_policy policy;
};

struct queues_ops {
	/* The sweep must look at `due_us` (Redis's clock) at the latest. */
	void (*on_wake)(void *arg, uint64_t due_us);
};

/* `broker` names this one among those that share the Redis: QUEUES_BROKER_LEN characters. */
#define QUEUES_BROKER_LEN 18
struct queues *queues_new(struct loop *loop, struct store *store, const char *key_prefix,
			  const char *broker, const struct queue_policy *policy,
			  size_t max_frame, const struct queues_ops *ops, void *arg);
void queues_free(struct queues *queues);
/* New policies, at once: of each queue the first override that matches it, else `policy`. They are copied. */
void queues_set_policy(struct queues *queues, const struct queue_policy *policy,
		       const struct queue_override *overrides, unsigned n_overrides,
		       size_t max_frame);
/* After stat_limit() of queues: each counts where it does now. */
void queues_count_anew(struct queues *queues);
/* What the script `lead` told: the epoch of the sweep, and whether anybody has set anything (`configure`). Told
 * at least every half second; a setting made here counts at once. `asked_us` (our clock) is when `lead` was asked. */
void
queues_set_epoch(struct queues *queues, uint32_t epoch, uint64_t asked_us, bool has_settings);
/* Somebody set something. */
void queues_note_settings(struct queues *queues);
/* Receivers parked now, over all queues. */
unsigned queues_parked(const struct queues *queues);
/* Every queue somebody waits at is asked again: after a reconnect, and every second. */
void queues_look_all(struct queues *queues);
/* Send what is asked of every queue now, in spite of what is in flight: what comes next must see it. */
void queues_flush_all(struct queues *queues);
/* The bell rang for a queue: something is there for who waits. */
void queues_look(struct queues *queues, struct str name);
/* Answer every parked receiver with `err`: the broker stops, or drains. Consumers get nothing any more, until
 * queues_resume(). */
void queues_end_waits(struct queues *queues, enum err err);
void queues_resume(struct queues *queues);

/* The queue of an agent in a namespace. Valid until the end of this turn, and while it has work. */
struct queue *queues_get(struct queues *queues, struct str ns, const struct agent_id *agent);
/* The same by its name in Redis; NULL when it is none. */
struct queue *queues_get_name(struct queues *queues, struct str name);
struct agent_id queue_agent(const struct queue *q);
struct str queue_name(const struct queue *q);
/* Valid as long as it is, until the next queues_set_policy(). */
const struct queue_policy *queue_policy(const struct queue *q);
/* Keep it beyond this turn; as often as unpinned. */
void queue_pin(struct queue *q);
void queue_unpin(struct queue *q);
/* Who takes messages from it here: receives that wait, and consumers, whether they wait or not. */
unsigned queue_consumers(const struct queue *q);
/* The same of the queue of that name; 0 when nothing is known of it here. */
unsigned queues_consumers(const struct queues *queues, struct str name);

/* Send ------------------------------------------------------------------------------------- */

enum sent { SENT_STORED, SENT_FULL, SENT_DUPLICATE };
typedef void send_cb(void *arg, enum err err, enum sent sent);

/* `ttl_us` counts from when the message is first due; it is looked at when `has_ttl`. */
void queue_send(struct queue *q, const struct agent_id *sender, const struct message *message,
		uint64_t delay_us, bool has_ttl, uint64_t ttl_us, send_cb *cb, void *arg);

/* Receive ---------------------------------------------------------------------------------- */

struct reservation {
	struct token token;
	struct item item;
	uint64_t deadline_us; /* Redis's clock */
};
/* `n` reservations in the order of the queue; 0 when nothing became due in time. */
typedef void receive_cb(void *arg, enum err err, const struct reservation *res, unsigned n);
/* The call is parked (true), or no longer, just before its callback (false). May be NULL. */
typedef void receive_park_cb(void *arg, bool parked);
struct receive;

/*
 * A heartbeat lease, for a registered agent of the queue's namespace: what is reserved with it lives as long as that agent beats, in
 * the incarnation that was in force when it was first asked for with this. It is owned by who made it until it is handed over
 * to one of the functions below.
 */
struct holder;
struct holder *queue_holder(const struct queue *q, const struct agent_id *agent);
void holder_unref(struct holder *holder);

/*
 * Reserve up to `max` due messages, waiting up to `wait_us` for the first. What is given
 * together fits an answer of max_frame bytes (at least one is given).
 *
 * `holder` (NULL: none) is taken over; then `visibility_us` is not looked at.
 *
 * ERR_UNKNOWN: Redis may have reserved some; unsettled, they come back by themselves.
 * ERR_NOT_FOUND: the holder is not registered and alive, or in another incarnation.
 * The handle is valid until `cb` runs. After receive_cancel() `cb` never runs, and what was
 * reserved for it is released.
 */
struct receive *
queue_receive(struct queue *q, uint64_t visibility_us, struct holder *holder, unsigned max,
	      uint64_t wait_us, receive_cb *cb, receive_park_cb *on_park, void *arg);
void receive_cancel(struct receive *r);

/* Consume ---------------------------------------------------------------------------------- */

struct consume;

/* One message that a consumer holds: embedded in what its owner keeps of it. */
struct held {
	TAILQ_ENTRY(held) link;
	struct consume *consume;   /* NULL: of none */
	const struct token *token; /* borrowed */
	uint64_t since_us;         /* our clock */
	unsigned asked;            /* place in the check under way, from 1; 0 it is not in it */
};

struct consume_ops {
	/* Reserved for it, in the order of the queue: each is to be held (consume_hold) or handed back. */
	void (*on_messages)(void *arg, const struct reservation *res, unsigned n);
	/* It was settled through another broker, or taken back: let it go. */
	void (*on_gone)(void *arg, struct held *held);
	/* No more for now: consume_look() says when there may be. */
	bool (*is_blocked)(void *arg);
	/* What was under way when it ended is over; it is gone. */
	void (*on_ended)(void *arg);
};

/*
 * Reserve messages as they become due, as long as fewer than `prefetch` are held. It lasts until consume_end(), and
 * through every failure of Redis. No callback runs before this returns. `holder` as above; while it is not alive nothing is reserved.
 */
struct consume *queue_consume(struct queue *q, uint64_t visibility_us, struct holder *holder,
			      unsigned prefetch, const struct consume_ops *ops, void *arg);
/* Its owner holds a message, until it lets it go. `token` stays where it is in the meantime. */
void consume_hold(struct consume *c, struct held *held, const struct token *token);
void consume_let_go(struct held *held);
/* The one handed out last, NULL when it holds none. */
struct held *consume_last(const struct consume *c);
/* Something has changed for it. Cheap; any number of times a turn. */
void consume_look(struct consume *c);
/*
 * The end; it holds nothing any more. False: it is gone. True: a call is under way, what that brings still comes through
 * on_messages (to be handed back), and then on_ended runs, once.
 */
bool consume_end(struct consume *c);

/* Settle ----------------------------------------------------------------------------------- */

enum settle {
	SETTLE_ACK,
	SETTLE_NACK,    /* failure, error, delay */
	SETTLE_RELEASE, /* delay */
	SETTLE_EXTEND,  /* visibility_us; a heartbeat lease is left as it is */
	SETTLE_FAIL     /* error: a failed delivery that is due again at once */
};
struct settle_how {
	enum settle kind;
	bool permanent, has_delay, has_error;
	uint64_t delay_us, visibility_us;
	struct str error;
};
/* `done` is false when the token is not live; `deadline_us` is of SETTLE_EXTEND. */
typedef void settle_cb(void *arg, enum err err, bool done, uint64_t deadline_us);

/* `cb` may be NULL. */
void queue_settle(struct queue *q, const struct token *token, const struct settle_how *how,
		  settle_cb *cb, void *arg);

/* Look and manage: inspect.c, dlq.c --------------------------------------------------------------- */

/* `reply` is the script's; see the head of src/store/lua/NAME.lua. */
void queue_peek(struct queue *q, unsigned limit, store_cb *cb, void *arg);
/* Hand out nothing any more, or (false) again. The reply is 1 when that changed something, else 0. */
void queue_pause(struct queue *q, bool pause, store_cb *cb, void *arg);
void queue_dlq_list(struct queue *q, uint64_t after, unsigned limit, store_cb *cb, void *arg);

struct queue_stats {
	uint64_t ready[3]; /* priorities 9, 5, 1 */
	uint64_t delayed, reserved, dead, bytes, capacity;
	uint64_t oldest_us, now_us; /* Redis's clock; oldest_us 0 when nothing is ready */
	unsigned elsewhere;         /* receivers parked at other brokers, as they last said */
	bool paused;
};
typedef void stats_cb(void *arg, enum err err, const struct queue_stats *stats);
void queue_stats(struct queue *q, stats_cb *cb, void *arg);

/* Queues of a namespace in the order of their names, `type` n 0 for all, after the name `after`. */
typedef void list_cb(void *arg, enum err err, const struct str *names,
		     const struct queue_stats *stats, unsigned n);
void queues_list(struct queues *queues, struct str ns, struct str type, struct str after,
		 unsigned limit, list_cb *cb, void *arg);

/* The next hundred queues of all namespaces after the one of that name, fewer when there are no more. It does not look after what was asked
 * before, and disturbs nothing. */
void queues_sample(struct queues *queues, struct str after, list_cb *cb, void *arg);

/* Move dead letters back (`redrive`) or drop them: those with one of `ids` or `message_ids`, all
 * when both are empty, at most `limit` (0: all). `count` is how many. On error some may have moved. */
typedef void count_cb(void *arg, enum err err, uint64_t count);
void queue_dlq_move(struct queue *q, bool redrive, struct list ids, struct list message_ids,
		    uint64_t limit, count_cb *cb, void *arg);

/* Drop what is ready and delayed. */
void queue_purge(struct queue *q, count_cb *cb, void *arg);

/* Settings (`configure`): of the namespace when `q` is NULL. `set` says which to change, and `nil`
 * which to take back, in F() bits; the answer is what is now in force there. */
typedef void configure_cb(void *arg, enum err err, const struct queue_policy *in_force);
void queues_configure(struct queues *queues, struct str ns, struct queue *q,
		      const struct params *values, configure_cb *cb, void *arg);

/* Sweep ------------------------------------------------------------------------------------ */

/* Take back what is past its deadline now, in spite of the grace: of one queue, or of all of a namespace. */
void queue_recover(struct queue *q, count_cb *cb, void *arg);
void queues_recover(struct queues *queues, struct str ns, count_cb *cb, void *arg);

/* One sweep of a queue, for the janitor: `again_us` is when to look next (Redis's clock, 0 never),
 * `lead` true when somebody must ask to lead first. False when `name` is none: then `cb` never runs. */
typedef void sweep_cb(void *arg, enum err err, uint64_t again_us, bool lead);
bool queues_sweep_name(struct queues *queues, struct str name, sweep_cb *cb, void *arg);

#endif
