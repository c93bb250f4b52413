/*
 * breaker: each operation on a circuit breaker is one call of one script, and its answer.
 *
 *	args_head(), args_config()	what the script wants to know
 *	breaker_on_reply()		{} when there is none, else its numbers
 *	list_ask(), list_on_reply()	a hundred at a time
 *	breakers_sweep()		what time alone does
 */
#include "breaker/breaker.h"

#include <stdlib.h>

#include "base/id.h"
#include "base/log.h"
#include "base/mem.h"
#include "store/keys.h"

enum { INFO_NUMBERS = 12 + BREAKER_SETTINGS, PERMIT_BYTES = 16 };
enum {
	MAX_BREAKERS = 10000,
	LIST_STEP = 100,
	COUNT_MAX = 1000,
	SWEEP_STEP = 64,
	SWEEP_US = 250000
};

struct breakers {
	struct store *store;
	char *prefix; /* of all keys */
	struct breaker_config defaults;
	struct breaker_override *overrides; /* whose `match` are ours */
	unsigned noverrides;
	uint64_t state_ttl_us;
	unsigned max;
	bool is_sweeping;
	uint64_t sweep_at_us; /* Redis's clock */
};

struct breakers *
breakers_new(struct store *store, const char *key_prefix, const struct breaker_config *defaults,
	     uint64_t state_ttl_us)
{
	struct breakers *breakers = xcalloc(1, sizeof(*breakers));

	breakers->store = store;
	breakers->prefix = xstrdup(key_prefix);
	breakers->max = MAX_BREAKERS;
	breakers_set_defaults(breakers, defaults, NULL, 0, state_ttl_us);
	return breakers;
}

void
breakers_set_max(struct breakers *breakers, unsigned max)
{
	breakers->max = max;
}

static void
overrides_free(struct breakers *breakers)
{
	for (unsigned i = 0; i < breakers->noverrides; i++)
		free((char *)breakers->overrides[i].match);
	free(breakers->overrides);
}

void
breakers_set_defaults(struct breakers *breakers, const struct breaker_config *defaults,
		      const struct breaker_override *overrides, unsigned n_overrides,
		      uint64_t state_ttl_us)
{
	overrides_free(breakers);
	breakers->overrides = n_overrides ? xcalloc(n_overrides, sizeof(*overrides)) : NULL;
	breakers->noverrides = n_overrides;
	for (unsigned i = 0; i < n_overrides; i++) {
		breakers->overrides[i] = overrides[i];
		breakers->overrides[i].match = xstrdup(overrides[i].match);
	}
	breakers->defaults = *defaults;
	breakers->state_ttl_us = state_ttl_us;
}

void
breakers_free(struct breakers *breakers)
{
	if (!breakers)
		return;
	overrides_free(breakers);
	free(breakers->prefix);
	free(breakers);
}

/* Calls -------------------------------------------------------------------------------------------- */

static void
args_id(struct args *args, struct str ns, struct str name)
{
	struct buf id = { 0 };

	key_put_part(&id, ns);
	buf_putc(&id, ':');
	key_put_part(&id, name);
	args_str(args, buf_str(&id));
	buf_done(&id);
}

static void
args_head(struct args *args, const struct breakers *breakers)
{
	args_str(args, str_of(breakers->prefix));
	args_uint(args, breakers->state_ttl_us);
}

/* What the script `breaker` begins with. */
static void
args_op(struct args *args, const struct breakers *breakers, struct str ns, struct str name,
	struct str op)
{
	args_head(args, breakers);
	args_id(args, ns, name);
	args_str(args, op);
}

static const struct breaker_config *
defaults_of(const struct breakers *breakers, struct str name)
{
	for (unsigned i = 0; i < breakers->noverrides; i++) {
		if (str_glob(str_of(breakers->overrides[i].match), name))
			return &breakers->overrides[i].defaults;
	}
	return &breakers->defaults;
}

static void
args_config(struct args *args, const struct breakers *breakers, struct str name,
	    const struct breaker_config *config)
{
	const struct breaker_config *defaults = defaults_of(breakers, name);

	for (unsigned i = 0; i < BREAKER_SETTINGS; i++)
		args_uint(args, defaults->values[i]);
	for (unsigned i = 0; i < BREAKER_SETTINGS; i++) {
		if (config->have & 1u << i)
			args_uint(args, config->values[i]);
		else
			args_str(args, STR(""));
	}
	args_uint(args, breakers->max);
}

static uint64_t
number(const struct reply *reply, uint32_t i)
{
	int64_t v = reply_int(reply_at(reply, i), 0);

	return v > 0 ? (uint64_t)v : 0;
}

/* From the i-th element on. */
static void
info_read(struct breaker_info *info, const struct reply *reply, uint32_t i)
{
	uint64_t state = number(reply, i);

	*info = (struct breaker_info){
		.state = state == 1   ? BREAKER_OPEN
			 : state == 2 ? BREAKER_HALF_OPEN
				      : BREAKER_CLOSED,
		.failures = number(reply, i + 1),
		.out = number(reply, i + 2),
		.successes = number(reply, i + 3),
		.total = number(reply, i + 4),
		.succeeded = number(reply, i + 5),
		.failed = number(reply, i + 6),
		.rejected = number(reply, i + 7),
		.changes = number(reply, i + 8),
		.failed_us = number(reply, i + 9),
		.succeeded_us = number(reply, i + 10),
		.changed_us = number(reply, i + 11),
	};
	info->config.have = (1u << BREAKER_SETTINGS) - 1;
	for (unsigned k = 0; k < BREAKER_SETTINGS; k++)
		info->config.values[k] = number(reply, i + 12 + k);
}

/* What became of breakers, by the script's reply from the i-th element on: id, event, reason of each. */
static void
log_changes(const struct reply *reply, uint32_t i)
{
	for (; i + 2 < reply->count; i += 3) {
		struct str event = reply_str(reply_at(reply, i + 1));

		log_event(str_eq(event, STR("breaker_opened"))   ? LOG_BREAKER_OPENED
			  : str_eq(event, STR("breaker_closed")) ? LOG_BREAKER_CLOSED
								 : LOG_BREAKER_HALF_OPENED,
			  log_str("breaker", reply_str(reply_at(reply, i))),
			  log_str("reason", reply_str(reply_at(reply, i + 2))));
	}
}

struct breaker_op {
	breaker_cb *cb;
	acquire_cb *acquired;
	void *arg;
	char permit[ID_TEXT_LEN(PERMIT_BYTES)]; /* of acquire */
};

static void
breaker_on_reply(void *arg, enum err err, const struct reply *reply)
{
	struct breaker_op *op = arg;
	struct breaker_info info = { .state = BREAKER_CLOSED };

	if (!err && !reply->count)
		err = ERR_NOT_FOUND;
	else if (!err && reply->count == 1 && reply_int(reply_at(reply, 0), 0) == -1)
		err = ERR_OVERLOADED;
	else if (!err && reply->count < 2 + INFO_NUMBERS)
		err = ERR_INTERNAL;
	if (!err) {
		info_read(&info, reply, 2);
		log_changes(reply, 2 + INFO_NUMBERS);
	}
	if (op->acquired) {
		struct breaker_answer answer = { .permit = STR("") };

		if (!err && reply_int(reply_at(reply, 0), 0) == 1)
			answer.permit = (struct str){ op->permit, sizeof(op->permit) };
		else if (!err)
			answer.retry_us = number(reply, 1);
		if (!err)
			answer.state = info.state;
		op->acquired(op->arg, err, err ? NULL : &answer);
	} else {
		op->cb(op->arg, err, err ? NULL : &info);
	}
	free(op);
}

static void
breaker_run(struct breakers *breakers, enum script script, struct args *args, breaker_cb *cb,
	    void *arg)
{
	struct breaker_op *op = xcalloc(1, sizeof(*op));

	op->cb = cb;
	op->arg = arg;
	store_run(breakers->store, script, 0, args, breaker_on_reply, op);
	args_done(args);
}

/* Ask, report ---------------------------------------------------------------------------------------- */

void
breaker_acquire(struct breakers *breakers, struct str ns, struct str name,
		const struct breaker_config *config, acquire_cb *cb, void *arg)
{
	struct breaker_op *op = xcalloc(1, sizeof(*op));
	uint8_t permit[PERMIT_BYTES];
	struct args args = { 0 };

	id_random(permit, sizeof(permit));
	id_encode(op->permit, permit, sizeof(permit));
	op->acquired = cb;
	op->arg = arg;
	args_op(&args, breakers, ns, name, STR("acquire"));
	args_str(&args, (struct str){ op->permit, sizeof(op->permit) });
	args_config(&args, breakers, name, config);
	store_run(breakers->store, SCRIPT_BREAKER_GIVE, 0, &args, breaker_on_reply, op);
	args_done(&args);
}

void
breaker_report(struct breakers *breakers, struct str ns, struct str name, struct str permit,
	       enum outcome outcome, struct str error, breaker_cb *cb, void *arg)
{
	struct args args = { 0 };

	args_op(&args, breakers, ns, name, STR("report"));
	args_str(&args, permit);
	args_str(&args, outcome == OUTCOME_SUCCESS ? STR("1") : STR("0"));
	args_str(&args, error);
	breaker_run(breakers, SCRIPT_BREAKER, &args, cb, arg);
}

/* Manage --------------------------------------------------------------------------------------------- */

void
breaker_get(struct breakers *breakers, struct str ns, struct str name, breaker_cb *cb,
	    void *arg)
{
	struct args args = { 0 };

	args_op(&args, breakers, ns, name, STR("get"));
	breaker_run(breakers, SCRIPT_BREAKER, &args, cb, arg);
}

void
breaker_configure(struct breakers *breakers, struct str ns, struct str name,
		  const struct breaker_config *config, breaker_cb *cb, void *arg)
{
	struct args args = { 0 };

	args_op(&args, breakers, ns, name, STR("configure"));
	args_str(&args, STR(""));
	args_config(&args, breakers, name, config);
	breaker_run(breakers, SCRIPT_BREAKER_GIVE, &args, cb, arg);
}

void
breaker_trip(struct breakers *breakers, struct str ns, struct str name, uint64_t for_us,
	     breaker_cb *cb, void *arg)
{
	struct args args = { 0 };

	args_op(&args, breakers, ns, name, STR("trip"));
	if (for_us)
		args_uint(&args, for_us);
	else
		args_str(&args, STR(""));
	breaker_run(breakers, SCRIPT_BREAKER, &args, cb, arg);
}

void
breaker_reset(struct breakers *breakers, struct str ns, struct str name, breaker_cb *cb,
	      void *arg)
{
	struct args args = { 0 };

	args_op(&args, breakers, ns, name, STR("reset"));
	breaker_run(breakers, SCRIPT_BREAKER, &args, cb, arg);
}

void
breaker_remove(struct breakers *breakers, struct str ns, struct str name, breaker_cb *cb,
	       void *arg)
{
	struct args args = { 0 };

	args_op(&args, breakers, ns, name, STR("remove"));
	breaker_run(breakers, SCRIPT_BREAKER, &args, cb, arg);
}

/* Look ------------------------------------------------------------------------------------------------ */

struct listing {
	struct breakers *breakers;
	struct buf prefix, after; /* of ids; the one to go on after */
	struct buf names;
	size_t *ends; /* where each ends in `names` */
	struct breaker_row *rows;
	unsigned n, limit;
	breakers_cb *cb;
	void *arg;
};

static void
list_finish(struct listing *l, enum err err)
{
	size_t from = 0;

	for (unsigned i = 0; i < l->n; i++) {
		l->rows[i].name = (struct str){ l->names.data + from, l->ends[i] - from };
		from = l->ends[i];
	}
	l->cb(l->arg, err, l->rows, err ? 0 : l->n);
	buf_done(&l->prefix);
	buf_done(&l->after);
	buf_done(&l->names);
	free(l->ends);
	free(l->rows);
	free(l);
}

static void list_ask(struct listing *l);

static void
list_on_reply(void *arg, enum err err, const struct reply *reply)
{
	struct listing *l = arg;
	struct str after = reply_str(reply_at(reply, 0));
	uint32_t n = err ? 0 : (reply->count - 1) / (1 + INFO_NUMBERS);

	for (uint32_t i = 0; i < n && l->n < l->limit; i++) {
		uint32_t at = 1 + i * (1 + INFO_NUMBERS);
		struct str name = reply_str(reply_at(reply, at));

		buf_put(&l->names, name.p, name.n);
		l->ends[l->n] = l->names.len;
		info_read(&l->rows[l->n++].info, reply, at + 1);
	}
	buf_clear(&l->after);
	buf_put(&l->after, after.p, after.n);
	if (err || !l->after.len || l->n == l->limit)
		list_finish(l, err);
	else
		list_ask(l);
}

static void
list_ask(struct listing *l)
{
	unsigned left = l->limit - l->n;
	struct args args = { 0 };

	args_head(&args, l->breakers);
	args_str(&args, buf_str(&l->prefix));
	args_str(&args, buf_str(&l->after));
	args_uint(&args, left < LIST_STEP ? left : LIST_STEP);
	store_run(l->breakers->store, SCRIPT_BREAKER_LIST, 0, &args, list_on_reply, l);
	args_done(&args);
}

static void
put_prefix(struct buf *b, struct str ns)
{
	key_put_part(b, ns);
	buf_putc(b, ':');
}

void
breakers_list(struct breakers *breakers, struct str ns, struct str after, unsigned limit,
	      breakers_cb *cb, void *arg)
{
	struct listing *l = xcalloc(1, sizeof(*l));

	l->breakers = breakers;
	l->limit = limit;
	l->rows = xcalloc(limit, sizeof(*l->rows));
	l->ends = xcalloc(limit, sizeof(*l->ends));
	l->cb = cb;
	l->arg = arg;
	put_prefix(&l->prefix, ns);
	put_prefix(&l->after, ns);
	key_put_part(&l->after, after);
	list_ask(l);
}

struct counting {
	counts_cb *cb;
	void *arg;
};

static void
count_on_reply(void *arg, enum err err, const struct reply *reply)
{
	struct counting *op = arg;
	struct breaker_counts counts = { number(reply, 0), number(reply, 1), number(reply, 2) };

	op->cb(op->arg, err, err ? NULL : &counts);
	free(op);
}

void
breakers_count(struct breakers *breakers, struct str ns, counts_cb *cb, void *arg)
{
	struct counting *op = xcalloc(1, sizeof(*op));
	struct args args = { 0 };
	struct buf prefix = { 0 };

	op->cb = cb;
	op->arg = arg;
	put_prefix(&prefix, ns);
	args_str(&args, str_of(breakers->prefix));
	args_str(&args, buf_str(&prefix));
	args_uint(&args, COUNT_MAX);
	store_run(breakers->store, SCRIPT_BREAKER_COUNT, 0, &args, count_on_reply, op);
	args_done(&args);
	buf_done(&prefix);
}

/* Sweep ----------------------------------------------------------------------------------------------- */

static void
sweep_on_reply(void *arg, enum err err, const struct reply *reply)
{
	struct breakers *breakers = arg;
	uint64_t due = err ? 0 : number(reply, 0);

	breakers->is_sweeping = false;
	if (!err)
		log_changes(reply, 1);
	/* Another broker may have given a permit meanwhile, so it does not wait for long. */
	breakers->sweep_at_us = store_now_us(breakers->store) + SWEEP_US;
	if (due && due < breakers->sweep_at_us)
		breakers->sweep_at_us = due;
}

void
breakers_sweep(struct breakers *breakers)
{
	struct args args = { 0 };

	if (breakers->is_sweeping || store_now_us(breakers->store) < breakers->sweep_at_us)
		return;
	breakers->is_sweeping = true;
	args_head(&args, breakers);
	args_uint(&args, SWEEP_STEP);
	store_run(breakers->store, SCRIPT_BREAKER_SWEEP, 0, &args, sweep_on_reply, breakers);
	args_done(&args);
}
