/*
 * coordctl bench: what clients do.
 *
 *	work_send()		a batch leaves when it may                      <-.
 *	on_sent()		its answer; in a circle the same op takes next    |
 *	work_take()		ask for messages                                <-+-.
 *	on_taken()		note each and ack them                            | |
 *	on_acked()		a closed loop goes on from here               ----'-'
 *	on_notice()		consumers that `consume`: a message, unasked; acked as above
 *
 * An op is one of the `pipeline` things that a client has under way at a time. Where receivers
 * keep more than one message under way, acks are ops beside those that take, so that an ack and
 * the next take leave together.
 *
 * A queue never holds more than `limit` messages: producers wait for acks.
 */
#include "ctl/bench_work.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define WAIT_S       10         /* a receiver parks so long */
#define VISIBILITY_S 60         /* more than any answer takes */
#define UNKNOWN      UINT64_MAX /* in the place of a message's number */

static void on_sent(void *arg, const msgpack_object *result, const struct coord_error *err);
static void on_taken(void *arg, const msgpack_object *result, const struct coord_error *err);
static void on_acked(void *arg, const msgpack_object *result, const struct coord_error *err);

/* The run has failed; the first reason counts. */
void
work_fail(struct run *run, const struct coord_error *err)
{
	if (run->status)
		return;
	bench_bar_end(&run->shown);
	run->status = ctl_refused(err);
}

/* The broker's answer makes no sense. */
static void
fail_odd(struct run *run, const char *method)
{
	if (run->status)
		return;
	bench_bar_end(&run->shown);
	run->status = ctl_unexpected(method);
}

static void
fail_memory(struct run *run)
{
	if (run->status)
		return;
	bench_bar_end(&run->shown);
	run->status = ctl_fail(EX_OSERR, "no memory for a request");
}

bool
work_is_stopped(const struct run *run)
{
	return run->status || run->is_stopping;
}

static void
step_add(struct run *run, enum bench_step step, uint64_t since_ns, uint64_t now)
{
	hist_add(&run->result->steps[step].ns, now > since_ns ? now - since_ns : 0);
	run->result->steps[step].ended_ns = now;
}

/* --- requests ---------------------------------------------------------------- */

static void
put_str(msgpack_packer *pk, struct str s)
{
	coord_pack_raw(pk, s.p, s.n);
}

static void
put_agent(struct run *run, unsigned queue)
{
	put_str(coord_param(run->params, "agent"), bench_item_agent(&run->item, queue));
}

static void
ask(struct op *op, const char *method, coord_answer_fn *fn, uint64_t now)
{
	struct run *run = op->worker->run;

	op->begun_ns = now;
	if (coord_async(op->worker->conn, method, run->params, fn, op)) {
		if (coord_ended(op->worker->conn))
			work_fail(run, coord_ended(op->worker->conn));
		else
			fail_memory(run);
	} else if (op->kind != OP_TAKE) {
		run->n_under_way++;
	}
}

void
work_op_put(struct op **list, struct op *op)
{
	op->next = *list;
	*list = op;
}

struct op *
work_op_get(struct op **list)
{
	struct op *op = *list;

	if (op)
		*list = op->next;
	return op;
}

struct op *
work_op(struct worker *w, enum kind kind)
{
	struct op *op = work_op_get(&w->idle);

	if (!op) {
		op = xcalloc(1, sizeof(*op) + w->run->plan->batch * sizeof(op->numbers[0]));
		op->made = w->made;
		w->made = op;
	}
	op->worker = w;
	op->kind = kind;
	op->queue = w->queue;
	return op;
}

/* --- sending ----------------------------------------------------------------- */

/* When the next message is meant to leave; `now` where there is no rate. */
uint64_t
work_due_ns(const struct run *run, uint64_t now)
{
	uint64_t issued = ledger_counts(run->ledger)->issued;

	if (!run->plan->rate)
		return now;
	return run->begun_ns + (uint64_t)((double)issued * 1e9 / (double)run->plan->rate);
}

/* Whether sending is over for good. */
bool
work_is_all_sent(const struct run *run, uint64_t due)
{
	const struct bench_plan *plan = run->plan;

	return (plan->count && ledger_counts(run->ledger)->issued >= plan->count) ||
	       (plan->duration_ns && due >= run->begun_ns + plan->duration_ns);
}

/* How many messages the next request to a queue may hold. */
static unsigned
batch_next(const struct run *run, const struct bench_queue *q)
{
	const struct bench_plan *plan = run->plan;
	uint64_t n = plan->batch, issued = ledger_counts(run->ledger)->issued;

	if (plan->count && plan->count - issued < n)
		n = plan->count - issued;
	return q->held + n <= q->limit ? (unsigned)n : 0;
}

/* Send the next batch if it may leave now. */
bool
work_send(struct run *run, struct op *op, uint64_t now)
{
	uint64_t due = work_due_ns(run, now), issued = ledger_counts(run->ledger)->issued;
	struct bench_queue *q = &run->queues[op->queue];
	struct worker *w = op->worker;
	struct coord_params *p = run->params;
	msgpack_packer *pk;
	unsigned n;

	if (due > now || run->phase > RUN || work_is_stopped(run) || work_is_all_sent(run, due))
		return false;
	n = batch_next(run, q);
	if (!n)
		return false;
	op->kind = OP_SEND;
	op->n = n;
	op->numbers[0] = issued;
	coord_params_clear(p);
	coord_pack_raw(coord_param(p, "sender"), run->sender, run->sender_n);
	pk = run->plan->batch > 1 ? coord_param(p, "messages") : NULL;
	if (pk)
		msgpack_pack_array(pk, n);
	for (unsigned i = 0; i < n; i++) {
		unsigned priority = run->pattern[(issued + i) % run->pattern_n];

		ledger_send(run->ledger, w->number, op->queue, priority, due);
		bench_item_patch(&run->item, w->number, op->queue, priority, issued + i);
		if (pk) {
			msgpack_pack_map(pk, 2);
			coord_pack_raw(pk, run->item.bytes.data, run->item.bytes.size);
			continue;
		}
		put_str(coord_param(p, "recipient"), bench_item_agent(&run->item, op->queue));
		put_str(coord_param(p, "message"), bench_item_message(&run->item));
	}
	q->held += n;
	ask(op, pk ? "send_batch" : "send", on_sent, now);
	op->begun_ns = due;
	return true;
}

/* In a circle each round goes to the next queue. */
static void
send_or_wait(struct run *run, struct op *op, uint64_t now)
{
	if (!work_send(run, op, now))
		work_op_put(&op->worker->ready, op);
}

/* One MessageResult. */
static void
sent_one(struct run *run, struct op *op, unsigned i, const msgpack_object *one, uint64_t now)
{
	const msgpack_object *delivered = coord_get(one, "delivered");
	bool is_ok = delivered && delivered->type == MSGPACK_OBJECT_BOOLEAN &&
		     delivered->via.boolean && !coord_get(one, "duplicate");

	ledger_answer(run->ledger, op->numbers[0] + i, is_ok, now);
	if (is_ok)
		op->owed++;
	else
		run->queues[op->queue].held--;
}

/* The first of op->n results, one for each message of a request; NULL when there are none, and that ends the run. */
static const msgpack_object *
first_of(struct op *op, const msgpack_object *result, const struct coord_error *err,
	 const char *batch)
{
	struct run *run = op->worker->run;

	run->n_under_way--;
	if (err) {
		work_fail(run, err);
		return NULL;
	}
	run->progress_ns = bench_now_ns();
	if (run->plan->batch == 1)
		return result;
	if (result->type == MSGPACK_OBJECT_ARRAY && result->via.array.size == op->n)
		return result->via.array.ptr;
	fail_odd(run, batch);
	return NULL;
}

static void
on_sent(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	struct op *op = arg;
	struct run *run = op->worker->run;
	const msgpack_object *one = first_of(op, result, err, "send_batch");
	uint64_t now = run->progress_ns;

	if (!one)
		return;
	op->owed = 0;
	for (unsigned i = 0; i < op->n; i++) {
		sent_one(run, op, i, &one[i], now);
		step_add(run, STEP_SEND, op->begun_ns, now);
	}
	if (run->plan->mode == BENCH_CIRCLE && op->owed)
		work_take(run, op, now);
	else
		send_or_wait(run, op, now);
}

/* --- taking and acking ------------------------------------------------------- */

/* Ask for as many as are wanted. */
void
work_take(struct run *run, struct op *op, uint64_t now)
{
	unsigned max = run->plan->mode == BENCH_CIRCLE ? op->owed : run->plan->batch;
	struct coord_params *p = run->params;

	if (work_is_stopped(run))
		return;
	op->kind = OP_TAKE;
	coord_params_clear(p);
	put_agent(run, op->queue);
	coord_param_int(p, "visibility_timeout", VISIBILITY_S);
	coord_param_int(p, "wait", WAIT_S);
	if (run->plan->batch > 1)
		coord_param_int(p, "max", max);
	ask(op, run->plan->batch > 1 ? "receive_batch" : "receive", on_taken, now);
}

static bool
is_uint(const msgpack_object *o)
{
	return o && o->type == MSGPACK_OBJECT_POSITIVE_INTEGER;
}

static bool
is_str(const msgpack_object *o)
{
	return o && o->type == MSGPACK_OBJECT_STR;
}

/*
 * Note one ReceivedMessage; its number in `number`, UNKNOWN when it is none of ours, or not as
 * it was sent. The token; NULL when this is no ReceivedMessage.
 */
static const msgpack_object *
take_one(struct run *run, unsigned queue, const msgpack_object *one, uint64_t asked_ns,
	 uint64_t now, uint64_t *number)
{
	const msgpack_object *qm = coord_get(one, "queue_message");
	const msgpack_object *failures = coord_get(qm, "delivery_attempts");
	const msgpack_object *payload = coord_get(coord_get(qm, "message"), "payload");
	const msgpack_object *id = coord_get(payload, "number");
	const msgpack_object *producer = coord_get(payload, "producer");
	const msgpack_object *body = coord_get(payload, "body");
	const msgpack_object *fence = coord_get(one, "fence"), *token = coord_get(one, "token");
	struct delivery d = { .number = UNKNOWN, .asked_ns = asked_ns, .queue = queue };
	uint64_t sent_ns;

	if (!is_str(token) || !is_uint(fence) || !is_uint(failures))
		return NULL;
	d.fence = fence->via.u64;
	d.failures = (unsigned)failures->via.u64;
	if (is_uint(id) && is_uint(producer) && is_str(body) &&
	    str_eq((struct str){ body->via.str.ptr, body->via.str.size },
		   bench_item_body(&run->item))) {
		d.number = id->via.u64;
		d.producer = (unsigned)producer->via.u64;
	}
	sent_ns = ledger_deliver(run->ledger, &d);
	if (sent_ns)
		step_add(run, STEP_DELIVER, sent_ns, now);
	*number = sent_ns ? d.number : UNKNOWN;
	run->progress_ns = now;
	return token;
}

/* Ack what `op` has the numbers of; the caller packs the tokens. */
static msgpack_packer *
ack_begin(struct run *run, const struct op *op)
{
	msgpack_packer *pk;

	coord_params_clear(run->params);
	put_agent(run, op->queue);
	if (run->plan->batch == 1)
		return coord_param(run->params, "token");
	pk = coord_param(run->params, "tokens");
	msgpack_pack_array(pk, op->n);
	return pk;
}

static void
ack_end(struct run *run, struct op *op, uint64_t now)
{
	op->kind = OP_ACK;
	ask(op, run->plan->batch == 1 ? "ack" : "ack_batch", on_acked, now);
}

/* The closed loop of one: the next take waits for the ack. */
static bool
is_closed_loop(const struct run *run)
{
	return run->plan->mode == BENCH_CIRCLE ||
	       (run->plan->pipeline == 1 && run->plan->batch == 1);
}

static void
on_taken(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	struct op *op = arg, *ack = op;
	struct run *run = op->worker->run;
	const msgpack_object *list = result;
	uint64_t now = bench_now_ns(), asked_ns = op->begun_ns;
	msgpack_packer *pk;
	uint32_t n = 1;

	if (err) {
		work_fail(run, err);
		return;
	}
	if (run->plan->batch > 1) {
		n = result->type == MSGPACK_OBJECT_ARRAY ? result->via.array.size : UINT32_MAX;
		list = result->via.array.ptr;
	} else if (result->type == MSGPACK_OBJECT_NIL) {
		n = 0;
	}
	if (n > run->plan->batch) {
		fail_odd(run, "receive_batch");
		return;
	}
	if (!n) {
		work_take(run, op, now);
		return;
	}
	if (!is_closed_loop(run))
		ack = work_op(op->worker, OP_ACK);
	ack->n = n;
	pk = ack_begin(run, ack);
	for (uint32_t i = 0; i < n; i++) {
		const msgpack_object *token =
			take_one(run, op->queue, &list[i], asked_ns, now, &ack->numbers[i]);

		if (!token) {
			fail_odd(run, "receive");
			return;
		}
		msgpack_pack_object(pk, *token);
	}
	ack_end(run, ack, now);
	if (ack != op)
		work_take(run, op, now);
}

static void
on_acked(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	struct op *op = arg;
	struct run *run = op->worker->run;
	const msgpack_object *one = first_of(op, result, err, "ack_batch");
	uint64_t now = run->progress_ns;

	if (!one)
		return;
	for (unsigned i = 0; i < op->n; i++) {
		bool is_live = one[i].type == MSGPACK_OBJECT_BOOLEAN && one[i].via.boolean;
		uint64_t sent_ns;

		step_add(run, STEP_ACK, op->begun_ns, now);
		if (op->numbers[i] == UNKNOWN)
			continue;
		sent_ns = ledger_ack(run->ledger, op->numbers[i], is_live);
		if (!sent_ns)
			continue;
		run->queues[op->queue].held--;
		step_add(run, STEP_LIFECYCLE, sent_ns, now);
	}
	if (run->plan->mode == BENCH_CIRCLE) {
		op->owed -= op->n < op->owed ? op->n : op->owed;
		if (op->owed) {
			work_take(run, op, now);
			return;
		}
		op->queue = (op->queue + 1) % run->plan->queues;
		send_or_wait(run, op, now);
	} else if (is_closed_loop(run) && !run->plan->prefetch) {
		work_take(run, op, now);
	} else {
		work_op_put(&op->worker->idle, op);
	}
}

/* --- consuming --------------------------------------------------------------- */

/* Ack what has come. */
void
work_ack_tokens(struct worker *w, uint64_t now)
{
	struct op *op = work_op(w, OP_ACK);
	msgpack_packer *pk;

	op->n = w->n_tokens;
	pk = ack_begin(w->run, op);
	for (unsigned i = 0; i < op->n; i++) {
		op->numbers[i] = w->tokens[i].number;
		msgpack_pack_str(pk, w->tokens[i].n);
		msgpack_pack_str_body(pk, w->tokens[i].text, w->tokens[i].n);
	}
	w->n_tokens = 0;
	ack_end(w->run, op, now);
}

static void
on_notice(void *arg, const char *method, const msgpack_object *param)
{
	struct worker *w = arg;
	struct run *run = w->run;
	uint64_t now = bench_now_ns();
	const msgpack_object *token;
	struct token *t = &w->tokens[w->n_tokens];

	if (strcmp(method, "message") || run->status)
		return;
	token = take_one(run, w->queue, param, w->began_ns, now, &t->number);
	if (!token || token->via.str.size > TOKEN_MAX) {
		fail_odd(run, "consume");
		return;
	}
	t->n = token->via.str.size;
	memcpy(t->text, token->via.str.ptr, t->n);
	if (++w->n_tokens == run->plan->batch)
		work_ack_tokens(w, now);
}

static void
on_consuming(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	struct worker *w = arg;

	(void)result;
	if (err)
		work_fail(w->run, err);
}

void
work_consume(struct worker *w, uint64_t now)
{
	struct run *run = w->run;

	w->tokens = xcalloc(run->plan->batch, sizeof(*w->tokens));
	w->began_ns = now;
	coord_on_notice(w->conn, on_notice, w);
	coord_params_clear(run->params);
	put_agent(run, w->queue);
	coord_param_int(run->params, "prefetch", run->plan->prefetch);
	coord_param_int(run->params, "visibility_timeout", VISIBILITY_S);
	if (coord_async(w->conn, "consume", run->params, on_consuming, w))
		fail_memory(run);
}
