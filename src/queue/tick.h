#ifndef COORDD_QUEUE_TICK_H
#define COORDD_QUEUE_TICK_H

#include <string.h>
#include <sys/queue.h>
#include <uthash.h>

#include "base/stats.h"
#include "queue/queue.h"

/*
 * Group commit: what one turn of the loop asks of one queue leaves as one script call, one call is in
 * flight for it, and the next one grows meanwhile. So an idle queue pays no delay and a busy one sends
 * ever larger calls. A second call in flight won nothing (docs/BENCHMARKS.md) and would let receivers
 * overtake each other.
 *
 * Within a call, settles go first, then sends, then receives. That is legal: a request sees all
 * that its connection asked before, and may see what it asked later while it is unanswered.
 *
 * Inside src/queue only.
 */
enum {
	TICK_MAX_OPS = 512,          /* sends, and settles, in one call */
	TICK_MAX_HANDED = 1000,      /* messages handed out by one call */
	TICK_MAX_BYTES = 256 * 1024, /* of arguments, a single larger message aside */
	TICK_IN_FLIGHT = 1,
};

struct tick_send {
	send_cb *cb;
	void *arg;
	size_t end; /* of its item, in item_args */
	uint32_t len;
	uint8_t priority; /* 0 high, 1 normal, 2 low */
};

struct tick_settle {
	settle_cb *cb;
	void *arg;
	enum settle kind;
	bool permanent;
	struct token token;
	size_t from, len; /* in settle_args: what its kind needs besides the token */
};

struct holder {
	char *name; /* its NAME in Redis */
	size_t name_len;
	uint64_t incarnation; /* 0: not known yet */
	unsigned refs;
};
struct holder *holder_ref(struct holder *holder);
bool holder_is_same(const struct holder *a, const struct holder *b);

struct receive {
	TAILQ_ENTRY(receive) link;
	struct queue *queue;
	enum { RECEIVE_NEW, RECEIVE_PARKED, RECEIVE_ASKED } state;
	bool was_asked; /* at least once */
	bool is_cancelled;
	uint64_t number;   /* in the order of asking, over all queues */
	uint64_t since_us; /* when it was asked, our clock */
	unsigned max, ask; /* at all, and of the call that carries it */
	unsigned next_max; /* from when it is parked again; 0: the same */
	uint8_t width;     /* of the bucket */
	uint64_t visibility_us;
	struct holder *holder; /* of a heartbeat lease, else NULL */
	uint64_t until_us;     /* when the wait ends, our clock */
	struct timer wait;     /* set while parked */
	receive_cb *cb;
	receive_park_cb *on_park;
	void *arg;
};
TAILQ_HEAD(receives, receive);

/* Receivers in a row that ask for the same; one with max > 1 is a run of its own. */
struct tick_run {
	uint64_t visibility_us;
	uint8_t width;
	unsigned receivers, wanted;
	struct holder *holder; /* a reference, or NULL */
};

struct tick {
	TAILQ_ENTRY(tick) link;
	struct queue *queue;
	struct args settle_args, digest_args, item_args, delay_args;
	struct tick_send *sends;
	struct tick_settle *settles;
	unsigned nsends, max_sends, nsettles, max_settles;
	uint64_t acked_bytes, sent_bytes;
	unsigned returns;         /* settles that may make something ready */
	bool has_others;          /* settles that are no acks */
	bool has_delays, has_ttl; /* among the sends */
	uint8_t priorities;       /* bits of those sent */
	bool has_ttl0;            /* one is of no ttl at all: dead at once */
	struct receives receives;
	unsigned wanted;       /* sum of their max */
	struct tick_run *runs; /* of the call in flight, as the script was told */
	unsigned nruns;
	bool has_holders; /* among the runs */
	uint8_t *random;  /* of the call in flight: TOKEN_RANDOM_LEN for each message wanted */
	uint32_t epoch;   /* of the sweep, as the script was told */
};
TAILQ_HEAD(ticks, tick);

/* A policy and for whom it is: `match` NULL is for all. */
struct policy {
	struct queue_policy values;
	char *match;
	char packed[56]; /* for scripts */
};

struct queue {
	UT_hash_handle hh;
	TAILQ_ENTRY(queue) dirty_link, idle_link, parked_link;
	struct queues *queues;
	const struct policy *policy;
	struct queue_counts *counts; /* kept */
	char *base;                  /* PREFIX:q:NAME, NAME = key of the hash */
	size_t base_len, name_off;   /* the name is base + name_off */
	size_t ns_len;               /* of the namespace, encoded, in the name */
	char *parts;                 /* type, instance and namespace, decoded */
	size_t type_len, instance_len, plain_ns_len;
	struct ticks ticks; /* not sent yet; the last one is open */
	unsigned in_flight; /* calls of ticks */
	unsigned pins;      /* operations that hold on to it */
	struct receives parked;
	unsigned nparked;
	TAILQ_HEAD(, consume) consumers;
	unsigned nconsumers;
	uint64_t noted_until_us;  /* Redis knows until then that somebody waits here */
	uint64_t others_at_us;    /* when to look again whether others were passed over */
	uint64_t yields_until_us; /* they were: let them go first */
	/* Of what is handed out here: when it was is known from its deadline, as long as all ask for the same. */
	uint64_t visibility_us, mixed_until_us;
	bool is_dirty, is_idle, look;
};
TAILQ_HEAD(queue_list, queue);

struct queues {
	struct loop *loop;
	struct store *store;
	char *prefix;
	char broker[QUEUES_BROKER_LEN];
	struct policy *policies; /* the overrides in their order, then the one for all */
	unsigned noverrides;
	size_t max_frame;
	const struct queues_ops *ops;
	void *arg;
	struct queue *by_name;
	struct queue *recent[64]; /* found lately, by a hash of the agent; or NULL */
	struct queue_list dirty, idle, with_parked;
	unsigned nidle, nparked;
	uint64_t nreceives;         /* ever */
	uint32_t epoch;             /* of the sweep, as last told */
	uint64_t epoch_at_us;       /* when that was asked, our clock */
	bool has_settings;          /* scripts must read them */
	uint64_t settings_until_us; /* one was made here: at least until then */
	struct timer yielded;       /* others had their time: look again */
	uint64_t
		apart_until_us; /* Redis refuses sends: they travel alone, so that acks get through */
	bool is_ending;
	enum err end_err;
};

/* The open tick of a queue, with room for one more operation: a send or another, with about `bytes` of
 * arguments, which hands out at most `wanted` messages. */
struct tick *tick_open(struct queue *q, bool is_send, size_t bytes, unsigned wanted);
/* It has something to ask at the end of this turn. */
void queue_mark_dirty(struct queue *q);
/* Send what is asked now, in spite of the limit in flight: what comes next must see it. */
void queue_flush(struct queue *q);
/* What was not sent never will be: tell everybody ERR_UNSENT. */
void queue_give_up(struct queue *q);
/* Nothing is left to do for it: it may be forgotten. */
void queue_settle_down(struct queue *q);
/* At the end of a turn. */
void queues_on_turn_end(void *arg);

/* Run a script other than tick with `base` as its key and the common arguments 1..3 (first, prefix,
 * namespace), after all that was asked of the queue before. `more` (may be NULL) are the rest. */
void queue_script(struct queue *q, enum script script, struct str first, struct args *more,
		  store_cb *cb, void *arg);
void args_policy(struct args *args, const struct queue *q);
/* The first that matches a queue; `name` is its whole name in Redis, with the namespace. */
const struct policy *policy_of(const struct queues *queues, struct str name);
/* What a script tells of those that became dead letters, >HHH by reason, or nothing: counted, and added to `buried`. */
void queue_count_buried(struct queue *q, struct str told, uint64_t buried[3]);

/* consume.c: something has changed for all consumers of a queue. */
void consumers_look(struct queue *q);

/* receive.c: what a call brought for one receiver. It is gone afterwards, or (false) still waits and is to
 * be parked. */
bool
receive_on_items(struct receive *r, enum err err, const struct reservation *res, unsigned n);
void receive_park(struct receive *r);
/* Ask for up to `max` from now on; a call that is under way keeps what it asked for. */
void receive_want(struct receive *r, unsigned max);
/* It waits no longer. One that is parked is gone and its `cb` never runs (false); else what a call brings it is told. */
bool receive_end_wait(struct receive *r);

#endif
