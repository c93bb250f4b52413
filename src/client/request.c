/*
 * Requests of an agent. Each is sent to some queue with `reply_to`, a queue of the agent's own, and its answer
 * is found by the correlation_id, which is the request's message_id.
 *
 * The answers have a queue for themselves, beside that of the agent: there they would wait behind what others
 * ask, and behind the jobs that wait for these very answers.
 *
 * An id is "NONCE-SLOT-COUNT", so that the slot leads to its request. What carries another id is late, or from
 * an earlier process of this name: it is acked and forgotten.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/work.h"

#define MAX_REQUESTS 65536
#define REPLY_PLACES 64
#define REPLIES      ".replies"
#define INSTANCE_MAX 128
#define ID_SIZE      80
#define PATIENCE_MS  30000

struct coord_request {
	TAILQ_ENTRY(coord_request) link;
	struct coord_agent *agent;
	unsigned slot;
	bool is_over, is_sent; /* `is_sent`: its send was answered */
	char id[ID_SIZE];
	int64_t until_ms;
	struct alarm timer;
	struct coord_error *why; /* another reason to end than the time */
	coord_answer_fn *fn;
	void *arg;
};

/* --- begin and end of one ----------------------------------------------------------- */

/* Free it when nothing is owed to it. */
static void
request_put(struct coord_request *r)
{
	struct coord_agent *agent = r->agent;

	if (!r->is_over || !r->is_sent)
		return;
	TAILQ_REMOVE(&agent->requests, r, link);
	free(r->why);
	free(r);
	agent_put(agent);
}

/* It has its answer, or none comes. The last thing to do. */
static void
request_end(struct coord_request *r, const msgpack_object *answer,
	    const struct coord_error *err)
{
	coord_answer_fn *fn = r->fn;
	void *arg = r->arg;

	if (r->is_over)
		return;
	r->is_over = true;
	alarm_done(&r->timer);
	r->agent->slots[r->slot] = NULL;
	r->agent->n_requests--;
	request_put(r);
	if (fn)
		fn(arg, answer, err);
}

static void
request_on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct coord_request *r = arg;
	struct coord_error why;

	(void)fd;
	(void)what;
	if (r->why) {
		why = *r->why;
	} else if (work_now() < r->until_ms) {
		alarm_at(&r->timer, r->until_ms);
		return;
	} else {
		client_fail(&why, COORD_TIMEOUT, "timeout", "nobody has answered in time");
		snprintf(why.applied, sizeof(why.applied), "unknown");
		why.retryable = true;
	}
	request_end(r, NULL, &why);
}

static void
request_on_sent(void *arg, const msgpack_object *result, const struct coord_error *err)
{
	struct coord_request *r = arg;
	struct coord_error full;

	r->is_sent = true;
	if (!err && !work_is_true(coord_get(result, "delivered"))) {
		client_fail(&full, COORD_REFUSED, "overloaded", "the queue is full");
		full.retryable = true;
		snprintf(full.applied, sizeof(full.applied), "no");
		err = &full;
	}
	if (r->is_over)
		request_put(r);
	else if (err)
		request_end(r, NULL, err);
}

/* --- answers ------------------------------------------------------------------------- */

/* The request that an answer belongs to, or NULL. */
static struct coord_request *
request_find(const struct coord_agent *agent, const msgpack_object *answer)
{
	const msgpack_object *id = coord_get(answer, "correlation_id");
	size_t prefix = strlen(agent->nonce) + 1;
	char text[ID_SIZE];
	unsigned long slot;

	if (!id || id->type != MSGPACK_OBJECT_STR || id->via.str.size >= ID_SIZE ||
	    id->via.str.size <= prefix)
		return NULL;
	memcpy(text, id->via.str.ptr, id->via.str.size);
	text[id->via.str.size] = '\0';
	slot = strtoul(text + prefix, NULL, 10);
	if (slot >= agent->n_slots || !agent->slots[slot] ||
	    strcmp(agent->slots[slot]->id, text) != 0)
		return NULL;
	return agent->slots[slot];
}

static void
on_reply(void *arg, struct coord_job *job)
{
	struct coord_agent *agent = arg;
	const msgpack_object *answer = coord_job_message(job);
	struct coord_request *r = request_find(agent, answer);

	if (r)
		request_end(r, answer, NULL);
	/* Afterwards, since the answer lives as long as the job, which outlives everything. When there
	 * is no memory for this, it comes again. */
	if (coord_job_ack(job, NULL, NULL))
		job_drop(job);
}

static void
on_replies_failed(void *arg, const struct coord_error *why)
{
	struct coord_agent *agent = arg;
	struct coord_consumer *failed = agent->replies;

	coord_consumer_free(failed); /* the next request tries another one */
	requests_end(agent, why);
}

static enum coord_status
replies_open(struct coord_agent *agent)
{
	char instance[INSTANCE_MAX + 1];
	struct coord_params *p;
	struct coord_error why;

	if (agent->replies)
		return COORD_OK;
	if (strlen(agent->instance) + strlen(REPLIES) > INSTANCE_MAX)
		return COORD_USAGE;
	p = coord_params_new();
	if (!p)
		return COORD_MEMORY;
	coord_param_str(p, "lease", "connection");
	snprintf(instance, sizeof(instance), "%s" REPLIES, agent->instance);
	agent->replies = consumer_new(agent->client, agent, agent->type, instance, REPLY_PLACES,
				      p, on_reply, agent, &why);
	coord_params_free(p);
	if (!agent->replies)
		return why.status;
	coord_consumer_on_failed(agent->replies, on_replies_failed, agent);
	return COORD_OK;
}

/* --- asking -------------------------------------------------------------------------- */

/* A free slot, or n_slots when there is no memory for one. */
static unsigned
slot_find(struct coord_agent *agent)
{
	unsigned n = agent->n_slots ? 2 * agent->n_slots : 16, slot = agent->n_slots;
	struct coord_request **slots;

	/* They are given out in turn, so the next one is mostly free. */
	if (agent->n_requests < agent->n_slots) {
		do
			agent->next_slot = (agent->next_slot + 1) % agent->n_slots;
		while (agent->slots[agent->next_slot]);
		return agent->next_slot;
	}
	slots = realloc(agent->slots, n * sizeof(struct coord_request *));
	if (!slots)
		return slot;
	memset(slots + slot, 0, (n - slot) * sizeof(struct coord_request *));
	agent->slots = slots;
	agent->n_slots = n;
	agent->next_slot = slot;
	return slot;
}

static enum coord_status
request_send(struct coord_request *r, const char *type, const char *instance,
	     const void *payload, size_t n, int timeout_ms)
{
	struct coord_agent *agent = r->agent;
	struct coord_params *p = coord_params_new();
	char replies[INSTANCE_MAX + 1];
	enum coord_status status;
	msgpack_packer *pk;

	if (!p)
		return COORD_MEMORY;
	snprintf(replies, sizeof(replies), "%s" REPLIES, agent->instance);
	coord_param_agent(p, "sender", agent->type, agent->instance);
	coord_param_agent(p, "recipient", type, instance);
	coord_param_double(p, "ttl", timeout_ms / 1000.0);
	pk = coord_param(p, "message");
	msgpack_pack_map(pk, 4);
	coord_pack_str(pk, "message_id");
	coord_pack_str(pk, r->id);
	coord_pack_str(pk, "message_type");
	coord_pack_str(pk, "request");
	coord_pack_str(pk, "reply_to");
	coord_pack_agent(pk, agent->type, replies);
	coord_pack_str(pk, "payload");
	coord_pack_raw(pk, payload, n);
	status = coord_client_call(agent->client, "send", p, timeout_ms, request_on_sent, r);
	coord_params_free(p);
	return status;
}

enum coord_status
coord_agent_request(struct coord_agent *agent, const char *type, const char *instance,
		    const void *payload, size_t n, int timeout_ms, coord_answer_fn *fn,
		    void *arg)
{
	enum coord_status status;
	struct coord_request *r;
	unsigned slot;

	if (!agent->client || agent->phase == AGENT_OVER || !type || !*type ||
	    !work_is_value(payload, n, true))
		return COORD_USAGE;
	if (agent->n_requests >= MAX_REQUESTS)
		return COORD_AGAIN;
	timeout_ms = timeout_ms < 0 ? PATIENCE_MS : timeout_ms;
	status = replies_open(agent);
	if (status)
		return status;
	slot = slot_find(agent);
	r = calloc(1, sizeof(*r));
	if (!r || slot == agent->n_slots) {
		free(r);
		return COORD_MEMORY;
	}
	r->agent = agent;
	r->slot = slot;
	r->fn = fn;
	r->arg = arg;
	r->until_ms = work_now() + timeout_ms;
	snprintf(r->id, sizeof(r->id), "%s-%u-%llu", agent->nonce, slot,
		 (unsigned long long)++agent->last_request);
	status = request_send(r, type, instance, payload, n, timeout_ms);
	if (status) {
		free(r);
		return status;
	}
	alarm_init(&r->timer, client_base(agent->client), request_on_timer, r);
	alarm_at(&r->timer, r->until_ms);
	agent->slots[slot] = r;
	agent->n_requests++;
	agent->refs++;
	TAILQ_INSERT_TAIL(&agent->requests, r, link);
	return COORD_OK;
}

/* --- the end of the agent ------------------------------------------------------------ */

void
requests_end(struct coord_agent *agent, const struct coord_error *why)
{
	struct coord_request *r;

	TAILQ_FOREACH (r, &agent->requests, link) {
		if (r->is_over)
			continue;
		free(r->why);
		r->why = malloc(sizeof(*r->why));
		if (r->why)
			*r->why = *why;
		r->until_ms =
			0; /* which is the reason that is told without memory for the other */
		alarm_soon(&r->timer);
	}
}

void
requests_drop(struct coord_agent *agent, bool is_client_gone)
{
	struct coord_request *r, *next;

	agent->refs++; /* the last request does not end it here */
	for (r = TAILQ_FIRST(&agent->requests); r; r = next) {
		next = TAILQ_NEXT(r, link);
		r->fn = NULL;
		r->is_sent |= is_client_gone;
		if (r->is_over)
			request_put(r);
		else
			request_end(r, NULL, NULL);
	}
	agent_put(agent);
}
