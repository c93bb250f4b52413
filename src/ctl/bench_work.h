#ifndef COORDD_CTL_BENCH_WORK_H
#define COORDD_CTL_BENCH_WORK_H

#include "ctl/bench.h"
#include "ctl/bench_item.h"

/* The inside of a running benchmark: bench_run.c has the loop, bench_work.c the requests. */

#define TOKEN_MAX 128

enum kind { OP_SEND, OP_TAKE, OP_ACK };

/* One of the things that a client has under way; it goes from request to request. */
struct op {
	struct op *next; /* in the worker's `idle` or `ready` */
	struct op *made; /* in the worker's list of all */
	struct worker *worker;
	enum kind kind;
	unsigned queue;
	unsigned n;    /* messages of a send or ack */
	unsigned owed; /* in a circle: still to be taken before the next send */
	uint64_t begun_ns;
	uint64_t numbers[]; /* room for a batch; a send has them in a row from the first */
};

/* Of a message that came by itself. */
struct token {
	uint64_t number;
	unsigned n;
	char text[TOKEN_MAX];
};

struct worker {
	struct run *run;
	struct coord *conn;
	unsigned number;
	unsigned queue;    /* where it takes, and unless in a circle, sends */
	struct op *ready;  /* sends that wait until they may leave */
	struct op *idle;   /* acks that are done; used again */
	struct op *made;   /* all of them, to be freed */
	bool wants_write;  /* what epoll was told */
	uint64_t began_ns; /* `consume` was sent */

	struct token *tokens; /* of consumers that `consume`: not yet acked */
	unsigned n_tokens;
};

enum phase { FILL, RUN, DRAIN, OVER };

struct run {
	struct ctl *ctl;
	struct bench_plan *plan;
	struct bench_result *result;
	struct ledger *ledger;
	enum phase phase;
	int epoll, timer;
	char id[9]; /* of this run, in the names of queues and messages */

	struct worker *workers; /* idle ones, producers or clients, consumers */
	unsigned n_workers, n_connected, next_ready;
	struct bench_queue *queues;
	unsigned n_under_way; /* sends and acks that have no answer */

	uint64_t begun_ns, progress_ns, stall_ns;
	struct bench_shown shown;

	struct coord_params *params; /* of the request that is being made */
	struct bench_item item;
	char sender[64];
	size_t sender_n;
	uint8_t *pattern; /* priorities in their turn */
	unsigned pattern_n;

	uint64_t n_stuck; /* messages that could not be purged: somebody has them */
	int status;       /* not EX_OK: stop */
	bool is_stopping;
};

/* Stop: the broker or the connection says why; the first reason counts. */
void work_fail(struct run *run, const struct coord_error *err);
bool work_is_stopped(const struct run *run);

/* When the next message is meant to leave; `now` where there is no rate. */
uint64_t work_due_ns(const struct run *run, uint64_t now);
/* Whether sending is over for good, the next being due at `due`. */
bool work_is_all_sent(const struct run *run, uint64_t due);

/* An op of the worker, which frees it in the end. */
struct op *work_op(struct worker *w, enum kind kind);
void work_op_put(struct op **list, struct op *op);
struct op *work_op_get(struct op **list); /* NULL: it is empty */

/* Send the next batch; false when it may not leave yet, and nothing was done. */
bool work_send(struct run *run, struct op *op, uint64_t now);
/* Ask for messages, over and over. */
void work_take(struct run *run, struct op *op, uint64_t now);
/* Have messages pushed; what came is acked by batches, and by work_ack_tokens(). */
void work_consume(struct worker *w, uint64_t now);
void work_ack_tokens(struct worker *w, uint64_t now);

#endif
