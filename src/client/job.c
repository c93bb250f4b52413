/*
 * A job: one delivery, from the broker's notification until it is settled.
 *
 *	job_new()		held: it is ours, and nobody works on it yet
 *	job_start_first()	the caller has it  <-- there was a place
 *	job_on_timer()		extends the lease, tells that it is lost, gives back what was held too long
 *	job_end()		the caller is done with it; it is being settled
 *	job_on_settled()	the outcome is told; the job goes
 *
 * `until_ms` is when the lease may have ended. It is reckoned from before a request was made, by our own
 * clock, so it is never too late; but that of the delivery itself, whose way may have been long, which is
 * good for the first half of the visibility timeout. Being late is no reason not to ask: the broker alone
 * knows whether a token is still good, so settling is tried unless it is known to be dead (`is_over`).
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/work.h"

#define HELD_MS   1000 /* somebody else may have a place for it by now */
#define EXTEND_MS 100  /* between two tries, at least */
#define ID_MAX    128

enum job_phase {
	JOB_HELD,
	JOB_RUNNING, /* the caller has it */
	JOB_REVOKED, /* and still does, but to the broker it is not ours any more */
	JOB_ENDING,  /* the broker is being told how it ended */
	JOB_GONE     /* and the caller has been told that */
};

struct coord_job {
	TAILQ_ENTRY(coord_job) link;
	struct coord_consumer *consumer;
	struct share *share; /* whose place it has; NULL: of none that is still open */
	uint64_t generation; /* of the connection that it came by */
	enum job_phase phase;
	unsigned owed;
	bool is_lost, is_over;
	bool is_untold; /* the caller is still to be told that it is lost */
	bool is_extending, is_settling;
	int64_t until_ms, extend_ms, asked_ms;
	struct alarm timer;
	coord_lost_fn *lost;
	void *lost_arg;

	/* How it ended. */
	const char *method, *failure;
	char *error; /* of a nack; NULL: none */
	double delay;
	struct coord_error *why; /* why it could not be answered */
	coord_settled_fn *settled;
	void *settled_arg;

	char *token;
	msgpack_sbuffer bytes;
	msgpack_unpacked tree; /* of `bytes` */
};

/* --- begin and end of the struct -------------------------------------------------- */

/* Free it if no answer is owed to it. */
static void
job_put(struct coord_job *job)
{
	struct coord_consumer *consumer = job->consumer;

	if (job->phase != JOB_GONE || job->owed)
		return;
	alarm_done(&job->timer);
	TAILQ_REMOVE(&consumer->jobs, job, link);
	msgpack_unpacked_destroy(&job->tree);
	msgpack_sbuffer_destroy(&job->bytes);
	free(job->token);
	free(job->error);
	free(job->why);
	free(job);
	consumer_put(consumer);
}

/* It is settled, or nothing more can be done about it. */
static void
job_go(struct coord_job *job)
{
	struct coord_consumer *consumer = job->consumer;

	if (job->phase == JOB_HELD) {
		consumer->held--;
		consumer->stray -= !job->share;
	}
	if (job->phase != JOB_REVOKED && job->phase != JOB_GONE)
		consumer->unsettled--;
	job->phase = JOB_GONE;
	if (consumer->client && job->generation != client_generation(consumer->client))
		client_settled(consumer->client);
	if (consumer->is_stopping || !job->share)
		consumer_kick(consumer);
}

static void job_on_timer(evutil_socket_t fd, short what, void *arg);

struct coord_job *
job_new(struct coord_consumer *consumer, struct share *share, const msgpack_object *delivery)
{
	const msgpack_object *token = coord_get(delivery, "token");
	int64_t vt_ms = (int64_t)(consumer->visibility * 1000), now = work_now();
	struct coord_job *job = calloc(1, sizeof(*job));
	msgpack_packer pk;
	size_t off = 0;

	if (!job)
		return NULL;
	msgpack_sbuffer_init(&job->bytes);
	msgpack_unpacked_init(&job->tree);
	msgpack_packer_init(&pk, &job->bytes, msgpack_sbuffer_write);
	if (token && token->type == MSGPACK_OBJECT_STR)
		job->token = strndup(token->via.str.ptr, token->via.str.size);
	if (!job->token || msgpack_pack_object(&pk, *delivery) ||
	    msgpack_unpack_next(&job->tree, job->bytes.data, job->bytes.size, &off) !=
		    MSGPACK_UNPACK_SUCCESS) {
		msgpack_unpacked_destroy(&job->tree);
		msgpack_sbuffer_destroy(&job->bytes);
		free(job->token);
		free(job);
		return NULL;
	}
	alarm_init(&job->timer, client_base(consumer->client), job_on_timer, job);
	job->consumer = consumer;
	job->share = share->is_retired ? NULL : share;
	job->generation = share->generation;
	job->until_ms = consumer->lease == LEASE_HEARTBEAT ? NO_TIME : now + vt_ms;
	job->extend_ms = consumer->lease == LEASE_HEARTBEAT ? NO_TIME : now + vt_ms / 2;
	TAILQ_INSERT_TAIL(&consumer->jobs, job, link);
	consumer->refs++;
	consumer->held++;
	consumer->stray += !job->share;
	consumer->unsettled++;
	alarm_at(&job->timer, now + HELD_MS < job->until_ms ? now + HELD_MS : job->until_ms);
	return job;
}

struct coord_job *
job_next(struct coord_job *job)
{
	return TAILQ_NEXT(job, link);
}

void
job_start_first(struct coord_consumer *consumer)
{
	struct coord_job *job;

	TAILQ_FOREACH (job, &consumer->jobs, link) {
		if (job->phase == JOB_HELD && !job->is_lost)
			break;
	}
	if (!job)
		return;
	job->phase = JOB_RUNNING;
	consumer->held--;
	consumer->running++;
	alarm_at(&job->timer, job->extend_ms);
	consumer->fn(consumer->arg, job);
}

/* --- its lease ---------------------------------------------------------------------- */

void
job_lose(struct coord_job *job, bool is_over)
{
	job->is_over |= is_over;
	if (job->is_lost)
		return;
	job->is_lost = true;
	job->is_untold = job->phase == JOB_RUNNING && job->lost;
	if (job->is_untold || job->phase == JOB_HELD)
		alarm_soon(&job->timer);
}

/* When its timer has something to do. */
static int64_t
job_due(const struct coord_job *job)
{
	int64_t extend = job->is_extending ? NO_TIME : job->extend_ms;

	if (job->is_lost)
		return NO_TIME;
	return extend < job->until_ms ? extend : job->until_ms;
}

static void
job_on_extended(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	struct coord_job *job = arg;
	int64_t vt_ms = (int64_t)(job->consumer->visibility * 1000);

	job->owed--;
	job->is_extending = false;
	if (err) {
		job->extend_ms = work_now() + (vt_ms / 8 > EXTEND_MS ? vt_ms / 8 : EXTEND_MS);
	} else if (result->type == MSGPACK_OBJECT_NIL) {
		job_lose(job, true);
	} else {
		job->until_ms = job->asked_ms + vt_ms;
		job->extend_ms = job->asked_ms + vt_ms / 2;
	}
	if (!job->is_untold)
		alarm_at(&job->timer, job_due(job));
	job_put(job);
}

/* The parameters that all about a token have. */
static struct coord_params *
token_params(const struct coord_job *job)
{
	struct coord_consumer *consumer = job->consumer;

	coord_params_clear(consumer->scratch);
	coord_param_agent(consumer->scratch, "agent", consumer->type, consumer->instance);
	coord_param_str(consumer->scratch, "token", job->token);
	return consumer->scratch;
}

static void
job_extend(struct coord_job *job, int64_t now)
{
	struct coord_consumer *consumer = job->consumer;
	struct coord_params *p = token_params(job);

	coord_param_double(p, "visibility_timeout", consumer->visibility);
	job->extend_ms = now + EXTEND_MS;
	if (!consumer->client || client_call(consumer->client, "extend", p,
					     (int)(job->until_ms - now), job_on_extended, job))
		return;
	job->asked_ms = now;
	job->is_extending = true;
	job->owed++;
}

/* Nobody had a place for it: as if it had never come. */
static void
job_give_back(struct coord_job *job)
{
	if (!job->is_over && job->consumer->client)
		client_call(job->consumer->client, "release", token_params(job), -1,
			    work_ignore, NULL);
	job_go(job);
	job_put(job);
}

/* Tell how it ended, and let it go. */
static void
job_tell(struct coord_job *job, bool is_settled, const struct coord_error *err)
{
	struct coord_error *why = job->why;
	coord_settled_fn *fn = job->settled;
	void *arg = job->settled_arg;

	job->settled = NULL;
	job->why = NULL;
	job_go(job);
	job_put(job);
	if (fn)
		fn(arg, is_settled && !why, why ? why : err);
	free(why);
}

static void
job_on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct coord_job *job = arg;
	int64_t now = work_now();

	(void)fd;
	(void)what;
	if (now >= job->until_ms)
		job_lose(job, false);
	if (job->phase == JOB_HELD) {
		job_give_back(job);
	} else if (job->phase == JOB_ENDING && !job->is_settling) {
		job_tell(job, false, NULL);
	} else if (job->is_untold) {
		job->is_untold = false;
		job->lost(job->lost_arg, job);
	} else if (!job->is_lost) {
		if (!job->is_extending && now >= job->extend_ms)
			job_extend(job, now);
		alarm_at(&job->timer, job_due(job));
	}
}

/* --- what its consumer does with it ------------------------------------------------ */

void
job_stray(struct coord_job *job, const struct share *share)
{
	if (!share || job->share != share)
		return;
	job->share = NULL;
	if (job->phase == JOB_HELD || job->phase == JOB_RUNNING)
		job->consumer->stray++;
}

void
job_on_down(struct coord_job *job, uint64_t generation)
{
	if (job_is_tied(job, generation))
		job_lose(job, true);
}

bool
job_is_tied(const struct coord_job *job, uint64_t generation)
{
	return job->consumer->lease == LEASE_CONNECTION && job->generation == generation &&
	       !job->is_over && job->phase != JOB_GONE;
}

void
job_revoke(struct coord_job *job, bool is_share_cancelled)
{
	struct coord_consumer *consumer = job->consumer;

	if (job->phase != JOB_HELD && job->phase != JOB_RUNNING)
		return;
	if (!job->is_over && consumer->client && !(job->share && is_share_cancelled))
		client_call(consumer->client, "release", token_params(job), -1, work_ignore,
			    NULL);
	if (job->phase == JOB_HELD) {
		job_go(job);
		job_put(job);
		return;
	}
	consumer->running--;
	consumer->stray -= !job->share;
	consumer->unsettled--;
	job_lose(job, true);
	job->phase = JOB_REVOKED;
}

void
job_silence(struct coord_job *job)
{
	job->settled = NULL;
	job->lost = NULL;
	job->is_untold = false;
}

void
job_orphan(struct coord_job *job)
{
	alarm_done(&job->timer); /* the loop may go before the caller is done with it */
	job->owed = 0;
	job_stray(job, job->share);
	job_silence(job);
	job_lose(job, true);
	if (job->phase == JOB_RUNNING)
		job_revoke(job, true);
	else if (job->phase != JOB_REVOKED)
		job_go(job);
	job_put(job);
}

void
job_drop(struct coord_job *job)
{
	if (job->phase == JOB_RUNNING) {
		job->consumer->running--;
		job->consumer->stray -= !job->share;
	}
	job_go(job);
	job_put(job);
}

/* --- what the caller sees ----------------------------------------------------------- */

const msgpack_object *
coord_job_delivery(const struct coord_job *job)
{
	return &job->tree.data;
}

const msgpack_object *
coord_job_message(const struct coord_job *job)
{
	return coord_get(coord_get(&job->tree.data, "queue_message"), "message");
}

const msgpack_object *
coord_job_payload(const struct coord_job *job)
{
	return coord_get(coord_job_message(job), "payload");
}

const char *
coord_job_token(const struct coord_job *job)
{
	return job->token;
}

int64_t
coord_job_fence(const struct coord_job *job)
{
	return work_int(coord_get(&job->tree.data, "fence"), 0);
}

unsigned
coord_job_attempts(const struct coord_job *job)
{
	return (unsigned)work_int(
		coord_get(coord_get(&job->tree.data, "queue_message"), "delivery_attempts"), 0);
}

bool
coord_job_is_lost(const struct coord_job *job)
{
	return job->is_lost;
}

void
coord_job_on_lost(struct coord_job *job, coord_lost_fn *fn, void *arg)
{
	job->lost = fn;
	job->lost_arg = arg;
	job->is_untold &= fn != NULL;
}

/* --- settling ------------------------------------------------------------------------ */

static enum coord_status job_settle(struct coord_job *job);

/*
 * When the time for a request was over, how it ended is not known. Most leases end by themselves; one that
 * lives as long as the agent would not, so the broker is asked on, behind the back of the caller.
 */
static void
job_on_settled(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	struct coord_job *job = arg;

	job->owed--;
	if (err && err->retryable && job->consumer->is_agents_lease && !job->is_over &&
	    job->consumer->client)
		job_settle(job);
	job_tell(job, work_is_true(result), err);
}

static enum coord_status
job_settle(struct coord_job *job)
{
	struct coord_params *p = token_params(job);
	enum coord_status status;

	if (!strcmp(job->method, "nack")) {
		coord_param_str(p, "failure", job->failure);
		if (job->error)
			coord_param_str(p, "error", job->error);
	}
	if (job->delay >= 0)
		coord_param_double(p, "delay", job->delay);
	status = client_call(job->consumer->client, job->method, p, -1, job_on_settled, job);
	if (!status) {
		job->owed++;
		job->is_settling = true;
	}
	return status;
}

/* Nothing can be asked about it: tell that on the next turn. Without a client there is none. */
static void
job_end_dead(struct coord_job *job)
{
	job->is_settling = false;
	alarm_soon(&job->timer);
	if (!job->consumer->client) {
		job_go(job);
		job_put(job);
	}
}

/* The caller has let go of it. */
static void
job_leave_caller(struct coord_job *job, coord_settled_fn *fn, void *arg)
{
	struct coord_consumer *consumer = job->consumer;
	bool was_revoked = job->phase == JOB_REVOKED;

	job->phase = JOB_ENDING;
	job->lost = NULL;
	job->is_untold = false;
	job->settled = fn;
	job->settled_arg = arg;
	if (was_revoked) {
		consumer->unsettled++; /* until it is told */
		return;
	}
	consumer->running--;
	consumer->stray -= !job->share;
	if (!job->share || consumer->held || consumer->is_stopping)
		consumer_kick(consumer);
}

static bool
job_is_callers(const struct coord_job *job)
{
	return job->phase == JOB_RUNNING || job->phase == JOB_REVOKED;
}

static enum coord_status
job_end(struct coord_job *job, const char *method, double delay, coord_settled_fn *fn,
	void *arg)
{
	bool is_dead = job->is_over || !job->consumer->client;
	enum coord_status status = COORD_OK;

	if (!job_is_callers(job) || isnan(delay))
		return COORD_USAGE;
	job->method = method;
	job->delay = delay;
	if (!is_dead)
		status = job_settle(job);
	if (status)
		return status;
	job_leave_caller(job, fn, arg);
	if (is_dead)
		job_end_dead(job);
	return COORD_OK;
}

enum coord_status
coord_job_ack(struct coord_job *job, coord_settled_fn *fn, void *arg)
{
	return job_end(job, "ack", -1, fn, arg);
}

/* Remember what a nack says. */
static enum coord_status
job_set_failure(struct coord_job *job, const char *failure, const char *error)
{
	static const char *const known[] = { "transient", "permanent", "timeout" };

	job->failure = NULL;
	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
		if (!strcmp(failure ? failure : known[0], known[i]))
			job->failure = known[i];
	}
	if (!job->failure || (error && strlen(error) > 1024))
		return COORD_USAGE;
	free(job->error);
	job->error = error ? strdup(error) : NULL;
	return error && !job->error ? COORD_MEMORY : COORD_OK;
}

enum coord_status
coord_job_nack(struct coord_job *job, const char *failure, const char *error, double delay,
	       coord_settled_fn *fn, void *arg)
{
	enum coord_status status = COORD_USAGE;

	if (job_is_callers(job))
		status = job_set_failure(job, failure, error);
	return status ? status : job_end(job, "nack", delay, fn, arg);
}

enum coord_status
coord_job_release(struct coord_job *job, double delay, coord_settled_fn *fn, void *arg)
{
	return job_end(job, "release", delay, fn, arg);
}

/* --- answering ----------------------------------------------------------------------- */

/* Make the id of an answer from that of its request, so that a second one is no other. */
static void
answer_id(char to[ID_MAX + 1], const msgpack_object *id)
{
	uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
	uint32_t n = id->via.str.size;

	if (n <= ID_MAX - 6) {
		snprintf(to, ID_MAX + 1, "%.*s.reply", (int)n, id->via.str.ptr);
		return;
	}
	for (uint32_t i = 0; i < n; i++)
		hash = (hash ^ (uint8_t)id->via.str.ptr[i]) * 0x100000001b3u;
	snprintf(to, ID_MAX + 1, "reply.%016llx", (unsigned long long)hash);
}

static void
job_on_answered(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	struct coord_job *job = arg;
	const msgpack_object *error = coord_get(result, "error");
	struct coord_error full;

	job->owed--;
	if (!err && !work_is_true(coord_get(result, "delivered"))) {
		client_fail(&full, COORD_REFUSED, "overloaded",
			    "the queue for the answer is full");
		full.retryable = true;
		if (error && error->type == MSGPACK_OBJECT_STR &&
		    !work_is_text(error, "queue full"))
			snprintf(full.message, sizeof(full.message), "%.*s",
				 (int)error->via.str.size, error->via.str.ptr);
		err = &full;
	}
	if (err) {
		job->method = "nack";
		job->why = malloc(sizeof(*job->why));
		if (job->why)
			*job->why = *err;
		/* Without memory for its text it goes without one. */
		job_set_failure(job, err->retryable ? "transient" : "permanent", err->message);
	}
	if (job->is_over || !job->consumer->client || job_settle(job))
		job_end_dead(job);
}

/* Where the answer to `message` goes. */
static const msgpack_object *
answer_to(const msgpack_object *message)
{
	const msgpack_object *to = coord_get(message, "reply_to");

	return to ? to : coord_get(message, "sender");
}

enum coord_status
coord_job_reply(struct coord_job *job, const void *payload, size_t n, coord_settled_fn *fn,
		void *arg)
{
	struct coord_consumer *consumer = job->consumer;
	struct coord_agent *agent = consumer->agent;
	const msgpack_object *message = coord_job_message(job);
	const msgpack_object *id = coord_get(message, "message_id"), *to = answer_to(message);
	struct coord_params *p = consumer->scratch;
	enum coord_status status = COORD_OK;
	char answer[ID_MAX + 1];
	msgpack_packer *pk;

	if (!job_is_callers(job) || !work_is_value(payload, n, true) || !to || !id ||
	    id->type != MSGPACK_OBJECT_STR)
		return COORD_USAGE;
	if (consumer->client) {
		answer_id(answer, id);
		coord_params_clear(p);
		coord_param_agent(p, "sender", agent ? agent->type : consumer->type,
				  agent ? agent->instance : consumer->instance);
		msgpack_pack_object(coord_param(p, "recipient"), *to);
		pk = coord_param(p, "message");
		msgpack_pack_map(pk, 4);
		coord_pack_str(pk, "message_id");
		coord_pack_str(pk, answer);
		coord_pack_str(pk, "message_type");
		coord_pack_str(pk, "response");
		coord_pack_str(pk, "correlation_id");
		msgpack_pack_object(pk, *id);
		coord_pack_str(pk, "payload");
		coord_pack_raw(pk, payload, n);
		status = client_call(consumer->client, "send", p, -1, job_on_answered, job);
		if (status)
			return status;
		job->owed++;
		job->is_settling = true;
	}
	job->method = "ack";
	job->delay = -1;
	job_leave_caller(job, fn, arg);
	if (!consumer->client)
		job_end_dead(job);
	return COORD_OK;
}
