/*
 * A consumer: takes deliveries from whichever broker is there, never more than there are places for.
 *
 *	consumer_new()
 *	consumer_on_turn()	the step that everything leads to: asks for places, starts what is
 *				held, goes on with stopping
 *	share_ask()		`consume`, for the places that are free
 *	share_on_answer()	a share is open, or why not
 *	consumer_on_notice()	deliveries: to the caller, or held when there is no place
 *	consumer_on_down()	the connection is gone, and all shares with it
 *	consumer_stop_step()	nothing new, what runs ends, `cancel`, and it is told
 *
 * `cancel` hands back all that a consumer has not settled, so it comes last: until then a consumer that
 * stops takes what the broker still sends it, and gives it back a little later.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/work.h"
#include "proto/mp.h"

#define MAX_SHARES       16 /* from then on only as many more as halving allows */
#define RETRY_MS         100
#define MAX_RETRY_MS     5000
#define VISIBILITY       60.0 /* seconds; what `consume` takes when nothing is said */
#define MAX_VISIBILITY_S 43200

/* --- begin and end of the struct -------------------------------------------------- */

void
consumer_put(struct coord_consumer *consumer)
{
	if (--consumer->refs)
		return;
	if (consumer->client)
		client_hook_remove(consumer->client, &consumer->hook);
	alarm_done(&consumer->turn);
	alarm_done(&consumer->stop);
	coord_params_free(consumer->scratch);
	pairs_done(&consumer->params);
	free(consumer->type);
	free(consumer->instance);
	free(consumer);
}

static void
consumer_leave_agent(struct coord_consumer *consumer)
{
	struct coord_agent *agent = consumer->agent;

	if (!agent)
		return;
	consumer->agent = NULL;
	TAILQ_REMOVE(&agent->consumers, consumer, link);
	if (agent->replies == consumer)
		agent->replies = NULL;
	agent_put(agent);
}

void
consumer_kick(struct coord_consumer *consumer)
{
	if (!consumer->is_freed)
		alarm_soon(&consumer->turn);
}

/* Its jobs have places of their own from now on. */
static void
share_retire(struct share *share)
{
	struct coord_consumer *consumer = share->consumer;
	struct coord_job *job;

	share->is_retired = true;
	for (job = TAILQ_FIRST(&consumer->jobs); job; job = job_next(job))
		job_stray(job, share);
}

/* The broker knows it no more. */
static void
share_close(struct share *share)
{
	struct coord_consumer *consumer = share->consumer;

	share_retire(share);
	if (consumer->client)
		client_sink_remove(consumer->client, &share->sink);
	TAILQ_REMOVE(&consumer->shares, share, link);
	free(share);
}

static void
shares_close(struct coord_consumer *consumer)
{
	while (!TAILQ_EMPTY(&consumer->shares))
		share_close(TAILQ_FIRST(&consumer->shares));
}

/* Whatever can go wrong with a broker did: nothing more is asked for. */
void
consumer_fail(struct coord_consumer *consumer, const struct coord_error *why)
{
	if (consumer->is_failed || consumer->is_freed)
		return;
	consumer->is_failed = true;
	consumer->is_stopping = true;
	consumer->why = *why;
	consumer_kick(consumer);
}

/* --- shares ------------------------------------------------------------------------ */

static void
share_on_cancelled(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	struct coord_consumer *consumer = arg;

	(void)result;
	(void)err; /* then its connection has ended, and it with that */
	consumer->cancels--;
	consumer->owed--;
	consumer_kick(consumer);
	consumer_put(consumer);
}

/* Tell the broker to end it. What it has given is handed back by that. */
static void
share_cancel(struct coord_consumer *consumer, uint64_t generation, const char *id, size_t n)
{
	struct coord_params *p = consumer->scratch;
	msgpack_packer *pk;

	coord_params_clear(p);
	pk = coord_param(p, "consumer_id");
	msgpack_pack_str(pk, n);
	msgpack_pack_str_body(pk, id, n);
	if (!consumer->client || client_call_on(consumer->client, generation, "cancel", p, -1,
						share_on_cancelled, consumer))
		return;
	consumer->refs++;
	consumer->owed++;
	consumer->cancels++;
}

static void
shares_cancel(struct coord_consumer *consumer)
{
	struct share *share;

	TAILQ_FOREACH (share, &consumer->shares, link) {
		share_cancel(consumer, share->generation, share->sink.id, share->sink.id_len);
	}
	shares_close(consumer);
}

/* Whether the broker may be asked for more. */
static bool
consumer_may_ask(const struct coord_consumer *consumer)
{
	return !consumer->is_stopping && !consumer->asking && consumer->client &&
	       client_generation(consumer->client) &&
	       (!consumer->is_agents_lease || consumer->agent->is_confirmed);
}

/*
 * How many places to ask for. Those of jobs of a lost connection become free one by one; so that many of
 * them do not become as many shares, from some number on as many are waited for as are still taken.
 */
static unsigned
consumer_free_places(const struct coord_consumer *consumer)
{
	unsigned taken = consumer->stray, shares = 0;
	struct share *share;

	TAILQ_FOREACH (share, &consumer->shares, link) {
		taken += share->is_retired ? 0 : share->prefetch;
		shares++;
	}
	if (taken >= consumer->concurrency)
		return 0;
	if (shares >= MAX_SHARES && consumer->concurrency - taken < consumer->stray)
		return 0;
	return consumer->concurrency - taken;
}

static void
consumer_wait(struct coord_consumer *consumer)
{
	int64_t pause = RETRY_MS << (consumer->failures < 6 ? consumer->failures : 6);

	consumer->failures++;
	consumer->retry_ms = work_now() + (pause < MAX_RETRY_MS ? pause : MAX_RETRY_MS);
}

static void
share_refused(struct coord_consumer *consumer, const struct coord_error *err)
{
	bool is_holders = consumer->lease == LEASE_HEARTBEAT && !strcmp(err->code, "not_found");

	consumer_wait(consumer);
	if (is_holders && consumer->is_agents_lease)
		agent_kick(consumer->agent); /* which finds out whether it is to register */
	else if (!is_holders && !err->retryable)
		consumer_fail(consumer, err);
}

static void share_on_notice(void *arg, const char *method, const msgpack_object *param);

/* The broker has it: from now on it takes deliveries. */
static enum coord_status
share_open(struct share *share, const msgpack_object *id)
{
	struct coord_consumer *consumer = share->consumer;
	enum coord_status status = COORD_PROTOCOL;

	share->sink.fn = share_on_notice;
	share->sink.arg = share;
	if (id)
		status = client_sink_add(consumer->client, &share->sink, share->generation, id);
	if (status)
		return status;
	consumer->failures = 0;
	share->is_retired = share->generation != client_generation(consumer->client);
	TAILQ_INSERT_TAIL(&consumer->shares, share, link);
	return COORD_OK;
}

static void
share_on_answer(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	struct share *share = arg;
	struct coord_consumer *consumer = share->consumer;
	const msgpack_object *id = coord_get(result, "consumer_id");
	bool is_open = false;

	consumer->asking = NULL;
	consumer->owed--;
	if (err && !consumer->is_stopping)
		share_refused(consumer, err);
	else if (!err && consumer->is_stopping && id && id->type == MSGPACK_OBJECT_STR)
		share_cancel(consumer, share->generation, id->via.str.ptr, id->via.str.size);
	else if (!err && !consumer->is_stopping)
		is_open = !share_open(share, id);
	if (!is_open)
		free(share);
	if (!is_open && !err)
		consumer_wait(consumer);
	consumer_kick(consumer);
	consumer_put(consumer);
}

static void
share_ask(struct coord_consumer *consumer, unsigned places)
{
	static const char *const leases[] = { "timeout", "connection", "heartbeat" };
	static const char *const ours[] = { "agent", "prefetch", "lease", "visibility_timeout",
					    NULL };
	struct share *share = calloc(1, sizeof(*share));
	struct coord_params *p = consumer->scratch;

	if (!share) {
		consumer_wait(consumer);
		return;
	}
	share->consumer = consumer;
	share->prefetch = places;
	share->generation = client_generation(consumer->client);
	coord_params_clear(p);
	coord_param_agent(p, "agent", consumer->type, consumer->instance);
	coord_param_int(p, "prefetch", places);
	coord_param_str(p, "lease", leases[consumer->lease]);
	coord_param_double(p, "visibility_timeout", consumer->visibility);
	if (consumer->is_agents_lease)
		coord_param_agent(p, "holder", consumer->agent->type,
				  consumer->agent->instance);
	pairs_put(p, &consumer->params, ours);
	if (client_call_here(consumer->client, "consume", p, -1, share_on_answer, share)) {
		free(share);
		consumer_wait(consumer);
		return;
	}
	consumer->asking = share;
	consumer->refs++;
	consumer->owed++;
}

/* --- stopping ----------------------------------------------------------------------- */

/* Nothing runs any more and nothing is owed: it is told. The last thing to do. */
static void
consumer_stop_tell(struct coord_consumer *consumer)
{
	coord_stopped_fn *fn = consumer->stopped;
	void *arg = consumer->stopped_arg;

	consumer->is_stopped = true;
	consumer->stopped = NULL;
	alarm_at(&consumer->stop, NO_TIME);
	if (consumer->agent)
		agent_consumer_stopped(consumer->agent);
	if (fn)
		fn(arg, NULL);
}

static void
jobs_revoke(struct coord_consumer *consumer, bool is_share_cancelled)
{
	struct coord_job *job, *next;

	for (job = TAILQ_FIRST(&consumer->jobs); job; job = next) {
		next = job_next(job);
		job_revoke(job, is_share_cancelled);
	}
}

/* A step on the way; true when the caller was told and nothing may be touched any more. */
static bool
consumer_stop_step(struct coord_consumer *consumer)
{
	bool is_late = work_now() >= consumer->stop_ms;

	if (consumer->is_stopped && !consumer->stopped)
		return false;
	if (consumer->unsettled > consumer->held && !is_late)
		return false;
	/* What it has sent us and is on its way to be settled went before the `cancel`. */
	jobs_revoke(consumer, false);
	shares_cancel(consumer);
	if (consumer->cancels || consumer->asking)
		return false; /* the end of their connection answers them, too */
	consumer_stop_tell(consumer);
	return true;
}

void
consumer_quit(struct coord_consumer *consumer)
{
	consumer->is_stopping = true;
	consumer_kick(consumer);
}

void
consumer_stop_by(struct coord_consumer *consumer, int timeout_ms)
{
	consumer->is_stopping = true;
	consumer->stop_ms = timeout_ms < 0 ? NO_TIME : work_now() + timeout_ms;
	alarm_at(&consumer->stop, consumer->stop_ms);
	consumer_kick(consumer);
}

void
coord_consumer_stop(struct coord_consumer *consumer, int timeout_ms, coord_stopped_fn *fn,
		    void *arg)
{
	consumer->stopped = fn;
	consumer->stopped_arg = arg;
	consumer_stop_by(consumer, timeout_ms);
}

/* --- the step that everything leads to ----------------------------------------------- */

/* Tell that it takes nothing any more. The last thing to do. */
static void
consumer_failed_tell(struct coord_consumer *consumer)
{
	coord_failed_fn *fn = consumer->failed;
	struct coord_error why = consumer->why;

	consumer->failed = NULL;
	fn(consumer->failed_arg, &why);
}

static void
consumer_on_turn(evutil_socket_t fd, short what, void *arg)
{
	struct coord_consumer *consumer = arg;
	unsigned places = consumer_free_places(consumer);
	int64_t now = work_now();

	(void)fd;
	(void)what;
	if (places && consumer_may_ask(consumer)) {
		if (now >= consumer->retry_ms)
			share_ask(consumer, places);
		if (!consumer->asking)
			alarm_at(&consumer->turn, consumer->retry_ms);
	}
	if (consumer->is_failed && consumer->failed) {
		consumer_kick(consumer);
		consumer_failed_tell(consumer);
	} else if (consumer->is_stopping) {
		consumer_stop_step(consumer);
	} else if (consumer->held && consumer->running < consumer->concurrency) {
		if (consumer->held > 1)
			consumer_kick(consumer);
		job_start_first(consumer);
	}
}

/* --- what the connection tells ------------------------------------------------------- */

/* What an older broker still has of it, when that stops, is asked for here. */
static void
consumer_on_up(void *arg, uint64_t generation)
{
	struct coord_consumer *consumer = arg;
	struct share *share;

	TAILQ_FOREACH (share, &consumer->shares, link) {
		if (share->generation != generation)
			share_retire(share);
	}
	consumer->retry_ms = 0;
	consumer_kick(consumer);
}

static void
consumer_on_down(void *arg, uint64_t generation)
{
	struct coord_consumer *consumer = arg;
	struct share *share, *next;
	struct coord_job *job;

	for (share = TAILQ_FIRST(&consumer->shares); share; share = next) {
		next = TAILQ_NEXT(share, link);
		if (share->generation == generation)
			share_close(share);
	}
	for (job = TAILQ_FIRST(&consumer->jobs); job; job = job_next(job))
		job_on_down(job, generation);
	consumer_kick(consumer);
}

static bool
consumer_is_holding(const void *arg, uint64_t generation)
{
	const struct coord_consumer *consumer = arg;
	struct coord_job *job = TAILQ_FIRST(&consumer->jobs);

	while (job && !job_is_tied(job, generation))
		job = job_next(job);
	return job != NULL;
}

static void
share_on_notice(void *arg, const char *method, const msgpack_object *param)
{
	struct share *share = arg;
	struct coord_consumer *consumer = share->consumer;
	struct coord_error why;

	if (!strcmp(method, "shutting_down")) {
		client_leave(consumer->client, share->generation);
	} else if (!strcmp(method, "message")) {
		if (!job_new(consumer, share, param)) {
			client_fail(&why, COORD_MEMORY, "", "no memory for a job");
			consumer_fail(consumer, &why);
		} else if (!consumer->is_stopping && consumer->held == 1 &&
			   consumer->running < consumer->concurrency) {
			job_start_first(consumer);
		} else {
			consumer_kick(consumer);
		}
	}
}

static void
consumer_on_gone(void *arg)
{
	struct coord_consumer *consumer = arg;
	struct coord_job *job, *next;

	consumer->refs++; /* its jobs and what it was owed do not end it here */
	consumer->client = NULL;
	shares_close(consumer);
	free(consumer->asking);
	consumer->asking = NULL;
	consumer->cancels = 0;
	for (job = TAILQ_FIRST(&consumer->jobs); job; job = next) {
		next = job_next(job);
		job_orphan(job);
	}
	while (consumer->owed) {
		consumer->owed--;
		consumer_put(consumer);
	}
	alarm_done(&consumer->turn);
	alarm_done(&consumer->stop);
	consumer_put(consumer);
}

void
consumer_lapse(struct coord_consumer *consumer, bool is_over)
{
	struct coord_job *job, *next;

	if (!consumer->is_agents_lease)
		return;
	for (job = TAILQ_FIRST(&consumer->jobs); job; job = next) {
		next = job_next(job);
		job_lose(job, is_over);
	}
	if (is_over)
		shares_cancel(consumer);
}

/* --- from and to the caller ----------------------------------------------------------- */

/* What `params` say of the lease. */
static enum coord_status
consumer_read_params(struct coord_consumer *consumer)
{
	static const struct {
		const char *name;
		enum lease lease;
	} names[] = { { "timeout", LEASE_TIMEOUT },
		      { "connection", LEASE_CONNECTION },
		      { "heartbeat", LEASE_HEARTBEAT } };
	struct str lease = pairs_get(&consumer->params, "lease");
	struct str visibility = pairs_get(&consumer->params, "visibility_timeout");
	struct mp m = mp_of(lease);
	bool is_known = lease.n == 0;
	struct str name;

	consumer->lease = consumer->agent ? LEASE_HEARTBEAT : LEASE_CONNECTION;
	for (int i = 0; lease.n && i < 3; i++) {
		m = mp_of(lease);
		if (mp_read_str(&m, &name) && str_eq(name, str_of(names[i].name))) {
			consumer->lease = names[i].lease;
			is_known = true;
		}
	}
	consumer->visibility = VISIBILITY;
	m = mp_of(visibility);
	if (visibility.n &&
	    (!mp_read_double(&m, &consumer->visibility) || !(consumer->visibility > 0) ||
	     consumer->visibility > MAX_VISIBILITY_S))
		is_known = false;
	consumer->is_agents_lease = consumer->agent && consumer->lease == LEASE_HEARTBEAT &&
				    !pairs_get(&consumer->params, "holder").n;
	return is_known ? COORD_OK : COORD_USAGE;
}

static enum coord_status
consumer_fill(struct coord_consumer *consumer, const char *type, const char *instance,
	      const struct coord_params *params)
{
	enum coord_status status = pairs_copy(&consumer->params, params);

	consumer->type = strdup(type);
	consumer->instance = strdup(instance ? instance : "");
	consumer->scratch = coord_params_new();
	if (status)
		return status;
	if (!consumer->type || !consumer->instance || !consumer->scratch)
		return COORD_MEMORY;
	return consumer_read_params(consumer);
}

static void
consumer_on_stop_timer(evutil_socket_t fd, short what, void *arg)
{
	struct coord_consumer *consumer = arg;

	(void)fd;
	(void)what;
	alarm_at(&consumer->stop, consumer->stop_ms > work_now() ? consumer->stop_ms : NO_TIME);
	consumer_kick(consumer);
}

struct coord_consumer *
consumer_new(struct coord_client *c, struct coord_agent *agent, const char *type,
	     const char *instance, unsigned concurrency, const struct coord_params *params,
	     coord_handler_fn *fn, void *arg, struct coord_error *err)
{
	struct coord_consumer *consumer;
	enum coord_status status;

	if (!c || !type || !*type || !fn || !concurrency ||
	    concurrency > COORD_MAX_CONCURRENCY) {
		client_fail(
			err, COORD_USAGE, "",
			"a consumer needs a client, a queue, a function and 1 to 1000 places");
		return NULL;
	}
	consumer = calloc(1, sizeof(*consumer));
	if (!consumer) {
		client_fail(err, COORD_MEMORY, "", "no memory for a consumer");
		return NULL;
	}
	consumer->refs = 1;
	consumer->agent = agent;
	consumer->concurrency = concurrency;
	consumer->fn = fn;
	consumer->arg = arg;
	consumer->stop_ms = NO_TIME;
	TAILQ_INIT(&consumer->shares);
	TAILQ_INIT(&consumer->jobs);
	alarm_init(&consumer->turn, client_base(c), consumer_on_turn, consumer);
	alarm_init(&consumer->stop, client_base(c), consumer_on_stop_timer, consumer);
	status = consumer_fill(consumer, type, instance, params);
	if (status) {
		client_fail(err, status, "", "%s",
			    status == COORD_MEMORY
				    ? "no memory for a consumer"
				    : "the parameters of a consumer are those of `consume`");
		consumer->agent = NULL;
		consumer_put(consumer);
		return NULL;
	}
	consumer->client = c;
	consumer->hook = (struct client_hook){ .arg = consumer,
					       .on_up = consumer_on_up,
					       .on_down = consumer_on_down,
					       .is_holding = consumer_is_holding,
					       .on_gone = consumer_on_gone };
	client_hook_add(c, &consumer->hook);
	if (agent) {
		agent->refs++;
		TAILQ_INSERT_TAIL(&agent->consumers, consumer, link);
	}
	consumer_kick(consumer);
	return consumer;
}

struct coord_consumer *
coord_client_consume(struct coord_client *c, const char *type, const char *instance,
		     unsigned concurrency, const struct coord_params *params,
		     coord_handler_fn *fn, void *arg, struct coord_error *err)
{
	return consumer_new(c, NULL, type, instance, concurrency, params, fn, arg, err);
}

void
coord_consumer_on_failed(struct coord_consumer *consumer, coord_failed_fn *fn, void *arg)
{
	consumer->failed = fn;
	consumer->failed_arg = arg;
	if (fn && consumer->is_failed)
		consumer_kick(consumer);
}

void
coord_consumer_free(struct coord_consumer *consumer)
{
	struct coord_job *job, *next;

	if (!consumer)
		return;
	consumer->is_freed = true;
	consumer->is_stopping = true;
	alarm_done(&consumer->turn);
	alarm_done(&consumer->stop);
	consumer_leave_agent(consumer);
	for (job = TAILQ_FIRST(&consumer->jobs); job; job = next) {
		next = job_next(job);
		job_silence(job);
		job_revoke(job, true);
	}
	shares_cancel(consumer);
	consumer_put(consumer);
}
