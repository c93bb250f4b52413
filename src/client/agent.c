/*
 * An agent: a name that is registered, and says all the time that it lives.
 *
 *	coord_agent_new()	AGENT_NEW
 *	agent_register()	`register`, until it works; then AGENT_ALIVE
 *	agent_beat()		`heartbeat`, each interval, and at once on a new connection
 *	agent_look()		`get_agent`, when the incarnation is in force no more: forgotten, it
 *				registers anew; superseded, it is AGENT_OVER
 *	agent_stop_step()	its consumers stop, a last beat, `deregister`; AGENT_OVER
 *
 * One of these requests is under way at a time. A beat with its incarnation is all that a new connection needs: it
 * revives an agent that was taken for dead. `resume` would do the same, but would take the name from
 * whoever has registered under it meanwhile, since a number that is not in force begins a new
 * incarnation.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/work.h"

#define RETRY_MS     200
#define MAX_RETRY_MS 5000
#define PARTING_MS   5000 /* for each of the last requests of an agent that stops */
#define MAX_VALUE    65536

enum { TOLD_STATUS, TOLD_STATE, N_TOLD };

/* --- begin and end of the struct -------------------------------------------------- */

void
agent_put(struct coord_agent *agent)
{
	if (--agent->refs)
		return;
	if (agent->client)
		client_hook_remove(agent->client, &agent->hook);
	alarm_done(&agent->beat);
	alarm_done(&agent->lapse);
	alarm_done(&agent->turn);
	for (int i = 0; i < N_TOLD; i++)
		free(agent->told[i].value);
	coord_params_free(agent->scratch);
	pairs_done(&agent->registration);
	free(agent->slots);
	free(agent->type);
	free(agent->instance);
	free(agent);
}

/* The last thing to do. */
static void
agent_tell(struct coord_agent *agent, enum coord_agent_event event,
	   const msgpack_object *result, const struct coord_error *err)
{
	if (agent->change && !agent->is_freed)
		agent->change(agent->change_arg, event, result, err);
}

/* Ask something of its own; the answer holds it. */
static enum coord_status
agent_call(struct coord_agent *agent, const char *method, int timeout_ms, coord_answer_fn *fn)
{
	enum coord_status status =
		client_call(agent->client, method, agent->scratch, timeout_ms, fn, agent);

	if (!status) {
		agent->is_busy = true;
		agent->asked_ms = work_now();
		agent->refs++;
		agent->owed++;
	}
	return status;
}

/* Each answer begins with this, and ends with agent_put(). */
static void
agent_answered(struct coord_agent *agent)
{
	agent->is_busy = false;
	agent->owed--;
	if (agent->is_stopping)
		alarm_soon(&agent->turn);
}

static struct coord_params *
agent_params(struct coord_agent *agent)
{
	coord_params_clear(agent->scratch);
	coord_param_agent(agent->scratch, "agent", agent->type, agent->instance);
	return agent->scratch;
}

static void
agent_try_later(struct coord_agent *agent, int64_t most_ms)
{
	int64_t pause = RETRY_MS << (agent->failures < 6 ? agent->failures : 6);

	agent->failures++;
	alarm_at(&agent->beat, work_now() + (pause < most_ms ? pause : most_ms));
}

/* --- what it holds ------------------------------------------------------------------- */

/* What it holds by its life is lost; for certain when `is_over`. */
static void
agent_lapse(struct coord_agent *agent, bool is_over)
{
	struct coord_consumer *consumer;

	agent->is_confirmed &= !is_over;
	agent->until_ms = NO_TIME;
	alarm_at(&agent->lapse, NO_TIME);
	TAILQ_FOREACH (consumer, &agent->consumers, link) {
		consumer_lapse(consumer, is_over);
	}
}

static void
agent_on_lapse(evutil_socket_t fd, short what, void *arg)
{
	struct coord_agent *agent = arg;

	(void)fd;
	(void)what;
	if (work_now() >= agent->until_ms)
		agent_lapse(agent, false);
	else
		alarm_at(&agent->lapse, agent->until_ms);
}

/* It lived at `asked_ms`, so the broker says. */
static void
agent_confirm(struct coord_agent *agent, const msgpack_object *answer)
{
	double ttl = work_number(coord_get(answer, "ttl"), 30);
	double interval = work_number(coord_get(answer, "heartbeat_interval"), ttl / 3);
	struct coord_consumer *consumer;

	agent_on_lapse(-1, 0,
		       agent); /* if it has been silent for too long it does not come back */
	agent->ttl_ms = (int64_t)(ttl * 1000);
	agent->interval_ms = (int64_t)(interval * 1000);
	agent->until_ms = agent->asked_ms + agent->ttl_ms;
	agent->failures = 0;
	alarm_at(&agent->lapse, agent->until_ms);
	alarm_at(&agent->beat, agent->asked_ms + agent->interval_ms);
	if (!agent->is_confirmed) {
		agent->is_confirmed = true;
		TAILQ_FOREACH (consumer, &agent->consumers, link) {
			consumer_kick(consumer);
		}
	}
}

/* It does nothing by itself any more. What its consumers still work on may end. */
static void
agent_end(struct coord_agent *agent)
{
	struct coord_consumer *consumer;

	agent->phase = AGENT_OVER;
	agent->is_confirmed = false;
	alarm_at(&agent->beat, NO_TIME);
	alarm_at(&agent->lapse, NO_TIME);
	TAILQ_FOREACH (consumer, &agent->consumers, link) {
		consumer_quit(consumer);
	}
}

/* --- registering ---------------------------------------------------------------------- */

/* What is told with a registration or a beat: all that was ever set, or what is due. */
static void
told_put(struct coord_agent *agent, bool is_all)
{
	for (int i = 0; i < N_TOLD; i++) {
		struct told *told = &agent->told[i];

		if (told->n && (is_all || told->is_due))
			coord_pack_raw(coord_param(agent->scratch, told->key), told->value,
				       told->n);
		told->is_asked = told->n && (is_all || told->is_due);
		told->is_due &= !told->is_asked;
	}
}

/* Whether it has arrived. */
static void
told_answered(struct coord_agent *agent, bool has_arrived)
{
	for (int i = 0; i < N_TOLD; i++) {
		agent->told[i].is_due |= agent->told[i].is_asked && !has_arrived;
		agent->told[i].is_asked = false;
	}
}

static void agent_step(struct coord_agent *agent);

static void
agent_on_registered(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	struct coord_agent *agent = arg;
	struct coord_error wrong;

	agent_answered(agent);
	told_answered(agent, !err);
	if (!err && work_int(coord_get(result, "incarnation"), -1) < 0) {
		client_fail(&wrong, COORD_PROTOCOL, "protocol_error",
			    "the broker answered without an incarnation");
		err = &wrong;
	}
	if (agent->phase != AGENT_NEW) { /* freed meanwhile */
	} else if (!err) {
		agent->phase = AGENT_ALIVE;
		agent->incarnation = work_int(coord_get(result, "incarnation"), 0);
		agent_confirm(agent, result);
		if (agent->is_again)
			agent_step(agent);
		agent_tell(agent, COORD_AGENT_REGISTERED, result, NULL);
	} else {
		if (err->retryable)
			agent_try_later(agent, MAX_RETRY_MS);
		else
			agent_end(agent);
		agent_tell(agent, COORD_AGENT_ERROR, NULL, err);
	}
	agent_put(agent);
}

static void
agent_register(struct coord_agent *agent)
{
	const char *but[4] = { "agent" };
	struct coord_params *p = agent_params(agent);
	int n = 1;

	for (int i = 0; i < N_TOLD; i++) {
		if (agent->told[i].n)
			but[n++] = agent->told[i].key;
	}
	pairs_put(p, &agent->registration, but);
	told_put(agent, true);
	if (agent_call(agent, "register", -1, agent_on_registered))
		agent_try_later(agent, MAX_RETRY_MS);
}

/* --- beating ---------------------------------------------------------------------------- */

/* Who has the name now? */
static void
agent_on_looked(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	struct coord_agent *agent = arg;
	bool is_gone = !err && result->type == MSGPACK_OBJECT_NIL;
	int64_t now_in_force = work_int(coord_get(result, "incarnation"), -1);

	agent_answered(agent);
	if (agent->phase != AGENT_ALIVE) {
	} else if (err) {
		agent_try_later(agent, agent->interval_ms);
	} else if (is_gone) {
		agent_lapse(agent, true);
		agent->phase = AGENT_NEW;
		agent->incarnation = 0;
		if (!agent->is_stopping)
			agent_register(agent);
	} else if (now_in_force == agent->incarnation) {
		agent_try_later(agent, agent->interval_ms);
	} else {
		agent_lapse(agent, true);
		agent_end(agent);
		agent_tell(agent, COORD_AGENT_SUPERSEDED, result, NULL);
	}
	agent_put(agent);
}

static void
agent_on_beat(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	struct coord_agent *agent = arg;

	agent_answered(agent);
	told_answered(agent, !err);
	if (agent->phase != AGENT_ALIVE) {
	} else if (!err) {
		agent_confirm(agent, result);
		if (agent->is_again)
			agent_step(agent);
	} else if (!strcmp(err->code, "not_found")) {
		agent_params(agent);
		if (agent_call(agent, "get_agent", -1, agent_on_looked))
			agent_try_later(agent, agent->interval_ms);
	} else {
		agent_try_later(agent, agent->interval_ms);
	}
	agent_put(agent);
}

static void
agent_beat(struct coord_agent *agent)
{
	struct coord_params *p = agent_params(agent);

	coord_param_int(p, "incarnation", agent->incarnation);
	told_put(agent, false);
	if (agent_call(agent, "heartbeat", (int)agent->ttl_ms, agent_on_beat)) {
		told_answered(agent, false);
		agent_try_later(agent, agent->interval_ms);
	}
}

/* Do what is next; without a connection a beat waits for one. */
static void
agent_step(struct coord_agent *agent)
{
	agent->is_again = agent->is_busy;
	if (agent->is_busy || !agent->client || agent->is_stopping)
		return;
	if (agent->phase == AGENT_NEW)
		agent_register(agent);
	else if (agent->phase == AGENT_ALIVE && client_generation(agent->client))
		agent_beat(agent);
}

void
agent_kick(struct coord_agent *agent)
{
	agent_step(agent);
}

static void
agent_on_beat_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	agent_step(arg);
}

/* --- stopping ----------------------------------------------------------------------------- */

/* The last thing to do. */
static void
agent_stop_tell(struct coord_agent *agent, const struct coord_error *why)
{
	coord_stopped_fn *fn = agent->stopped;
	void *arg = agent->stopped_arg;

	agent_end(agent);
	agent->stopped = NULL;
	if (fn && !agent->is_freed)
		fn(arg, why);
}

static void
agent_on_deregistered(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	struct coord_agent *agent = arg;

	(void)result;
	agent->is_busy = false;
	agent->owed--;
	agent_stop_tell(agent, err);
	agent_put(agent);
}

/* `deregister` names no incarnation, so this makes sure that it ends our own. */
static void
agent_on_last_beat(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	struct coord_agent *agent = arg;
	struct coord_error why;

	(void)result;
	agent->is_busy = false;
	agent->owed--;
	if (err) {
		agent_stop_tell(agent, strcmp(err->code, "not_found") != 0 ? err : NULL);
	} else {
		agent_params(agent);
		if (agent_call(agent, "deregister", PARTING_MS, agent_on_deregistered)) {
			client_fail(&why, COORD_MEMORY, "", "no memory to deregister");
			agent_stop_tell(agent, &why);
		}
	}
	agent_put(agent);
}

/* Whether all of its consumers, but those of the answers, have stopped. */
static bool
consumers_have_stopped(const struct coord_agent *agent, bool is_all)
{
	const struct coord_consumer *consumer;

	TAILQ_FOREACH (consumer, &agent->consumers, link) {
		if (!consumer->is_stopped && (is_all || consumer != agent->replies))
			return false;
	}
	return true;
}

static void
agent_on_turn(evutil_socket_t fd, short what, void *arg)
{
	struct coord_agent *agent = arg;
	struct coord_error why;

	(void)fd;
	(void)what;
	if (!agent->is_stopping || !agent->stopped || !consumers_have_stopped(agent, false))
		return;
	/* No job waits for an answer any more. */
	client_fail(&why, COORD_CLOSED, "unavailable", "the agent stops");
	requests_end(agent, &why);
	if (!consumers_have_stopped(agent, true)) {
		if (!agent->replies->is_stopping)
			coord_consumer_stop(agent->replies, 0, NULL, NULL);
		return;
	}
	if (agent->phase == AGENT_OVER ||
	    (agent->phase == AGENT_NEW &&
	     (!agent->is_busy || !client_generation(agent->client)))) {
		agent_stop_tell(agent, NULL);
	} else if (!agent->is_busy) {
		agent_params(agent);
		coord_param_int(agent->scratch, "incarnation", agent->incarnation);
		told_put(agent, false);
		if (agent_call(agent, "heartbeat", PARTING_MS, agent_on_last_beat)) {
			client_fail(&why, COORD_MEMORY, "", "no memory to deregister");
			agent_stop_tell(agent, &why);
		}
	}
}

void
agent_consumer_stopped(struct coord_agent *agent)
{
	if (agent->is_stopping)
		alarm_soon(&agent->turn);
}

static void
stopped_ignore(void *arg, const struct coord_error *why)
{
	(void)arg;
	(void)why;
}

void
coord_agent_stop(struct coord_agent *agent, int timeout_ms, coord_stopped_fn *fn, void *arg)
{
	struct coord_consumer *consumer;

	agent->is_stopping = true;
	agent->stopped = fn ? fn : stopped_ignore;
	agent->stopped_arg = arg;
	TAILQ_FOREACH (consumer, &agent->consumers, link) {
		if (consumer != agent->replies)
			consumer_stop_by(consumer, timeout_ms);
	}
	alarm_soon(&agent->turn);
}

/* --- what the connection tells ------------------------------------------------------------- */

static void
agent_on_up(void *arg, uint64_t generation)
{
	struct coord_agent *agent = arg;

	(void)generation;
	if (agent->phase == AGENT_ALIVE)
		agent_step(agent);
}

static void
agent_on_down(void *arg, uint64_t generation)
{
	struct coord_agent *agent = arg;

	(void)generation;
	if (!client_generation(agent->client))
		agent->is_confirmed = false;
	if (agent->is_stopping)
		alarm_soon(&agent->turn);
}

static void
agent_on_gone(void *arg)
{
	struct coord_agent *agent = arg;

	agent->refs++; /* what it was owed does not end it here */
	agent->client = NULL;
	agent->phase = AGENT_OVER;
	agent->is_confirmed = false;
	requests_drop(agent, true);
	alarm_done(&agent->beat);
	alarm_done(&agent->lapse);
	alarm_done(&agent->turn);
	while (agent->owed) {
		agent->owed--;
		agent_put(agent);
	}
	agent_put(agent);
}

/* --- from and to the caller ------------------------------------------------------------------ */

static enum coord_status
agent_fill(struct coord_agent *agent, const char *type, const char *instance,
	   const struct coord_params *registration)
{
	enum coord_status status = pairs_copy(&agent->registration, registration);
	unsigned char random[16];

	client_random(random, sizeof(random));
	for (size_t i = 0; i < sizeof(random); i++)
		snprintf(agent->nonce + 2 * i, 3, "%02x", random[i]);
	agent->told[TOLD_STATUS].key = "status";
	agent->told[TOLD_STATE].key = "state";
	agent->type = strdup(type);
	agent->instance = strdup(instance && *instance ? instance : "default");
	agent->scratch = coord_params_new();
	if (!status && (!agent->type || !agent->instance || !agent->scratch))
		status = COORD_MEMORY;
	return status;
}

struct coord_agent *
coord_agent_new(struct coord_client *c, const char *type, const char *instance,
		const struct coord_params *registration, struct coord_error *err)
{
	struct coord_agent *agent;
	enum coord_status status;

	if (!c || !type || !*type) {
		client_fail(err, COORD_USAGE, "", "an agent needs a client and a type");
		return NULL;
	}
	agent = calloc(1, sizeof(*agent));
	if (!agent) {
		client_fail(err, COORD_MEMORY, "", "no memory for an agent");
		return NULL;
	}
	agent->refs = 1;
	agent->until_ms = NO_TIME;
	TAILQ_INIT(&agent->consumers);
	TAILQ_INIT(&agent->requests);
	alarm_init(&agent->beat, client_base(c), agent_on_beat_timer, agent);
	alarm_init(&agent->lapse, client_base(c), agent_on_lapse, agent);
	alarm_init(&agent->turn, client_base(c), agent_on_turn, agent);
	status = agent_fill(agent, type, instance, registration);
	if (status) {
		client_fail(err, status, "", "%s",
			    status == COORD_MEMORY
				    ? "no memory for an agent"
				    : "the parameters of an agent are those of `register`");
		agent_put(agent);
		return NULL;
	}
	agent->client = c;
	agent->hook = (struct client_hook){ .arg = agent,
					    .on_up = agent_on_up,
					    .on_down = agent_on_down,
					    .on_gone = agent_on_gone };
	client_hook_add(c, &agent->hook);
	alarm_soon(&agent->beat);
	return agent;
}

void
coord_agent_free(struct coord_agent *agent)
{
	if (!agent)
		return;
	agent->is_freed = true;
	agent->phase = AGENT_OVER;
	while (!TAILQ_EMPTY(&agent->consumers))
		coord_consumer_free(TAILQ_FIRST(&agent->consumers));
	requests_drop(agent, false);
	alarm_done(&agent->beat);
	alarm_done(&agent->lapse);
	alarm_done(&agent->turn);
	agent_put(agent);
}

void
coord_agent_on_change(struct coord_agent *agent, coord_change_fn *fn, void *arg)
{
	agent->change = fn;
	agent->change_arg = arg;
}

int64_t
coord_agent_incarnation(const struct coord_agent *agent)
{
	return agent->phase == AGENT_ALIVE ? agent->incarnation : 0;
}

static enum coord_status
agent_set(struct coord_agent *agent, int which, const void *value, size_t n)
{
	struct told *told = &agent->told[which];
	char *copy;

	if (n > MAX_VALUE || !work_is_value(value, n, false))
		return COORD_USAGE;
	copy = malloc(n);
	if (!copy)
		return COORD_MEMORY;
	memcpy(copy, value, n);
	free(told->value);
	told->value = copy;
	told->n = n;
	told->is_due = true;
	if (agent->phase == AGENT_ALIVE)
		agent_step(agent);
	return COORD_OK;
}

enum coord_status
coord_agent_set_status(struct coord_agent *agent, const void *value, size_t n)
{
	return agent_set(agent, TOLD_STATUS, value, n);
}

enum coord_status
coord_agent_set_state(struct coord_agent *agent, const void *value, size_t n)
{
	return agent_set(agent, TOLD_STATE, value, n);
}

struct coord_consumer *
coord_agent_consume(struct coord_agent *agent, const char *type, const char *instance,
		    unsigned concurrency, const struct coord_params *params,
		    coord_handler_fn *fn, void *arg, struct coord_error *err)
{
	if (agent->phase == AGENT_OVER || agent->is_stopping) {
		client_fail(err, COORD_USAGE, "", "the agent does nothing any more");
		return NULL;
	}
	if (!type) {
		type = agent->type;
		instance = agent->instance;
	}
	return consumer_new(agent->client, agent, type, instance, concurrency, params, fn, arg,
			    err);
}
