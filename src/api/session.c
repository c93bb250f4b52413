/*
 * session: what a connection is to the methods.
 *
 *	request_new()		an operation was begun for a request; enough of them stop the reading
 *	request_reply(), _done()	its answer goes into the connection's output
 *	session_watch()		that answer holds a reservation: until its bytes have left, or, where
 *				the connection is the lease or a consumer holds it, until it is settled
 *	session_on_close()	the connection is gone: receives are cancelled, what was never written
 *				is released, what the connection leased has failed, consumers end
 *
 * A session outlives its connection while operations are under way; their answers find nobody.
 */
#include "api/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"

enum {
	MAX_HEAVY = 4,        /* heavy requests of one connection under way at once */
	LARGEST_BATCH = 1000, /* such a one is heavy */
	SECOND_US = 1000000,
	MAX_OVERDUE = 1000, /* leases past their deadline that one connection keeps */
};

static void
session_unref(struct session *s)
{
	if (s->conn || s->requests)
		return;
	free(s->namespace);
	free(s->client);
	free(s);
}

void
session_hold(struct session *s)
{
	s->requests++;
}

void
session_drop(struct session *s)
{
	s->requests--;
	session_unref(s);
}

enum err
session_may_wait(const struct session *s, struct errmsg *why)
{
	if (s->waiting < s->api->config.max_parked)
		return OK;
	return errmsg_set(why, ERR_OVERLOADED,
			  "this connection has %u receives waiting and consumers, which is "
			  "limits.max_parked_per_connection",
			  s->waiting);
}

struct holder *
session_holder(struct session *s, const struct queue *q, const struct params *p)
{
	registry_flush(s->api->registry); /* heartbeats that came before count */
	return queue_holder(q, p->have & F(holder) ? &p->holder : &p->agent);
}

struct request *
request_new_held(struct session *s, const struct rpc *rpc, enum method method,
		 const struct params *p)
{
	const struct agent_id *holder = p->have & F(holder) ? &p->holder : &p->agent;
	struct buf who = { 0 };
	struct request *r;

	buf_printf(&who, "%.*s:%.*s", (int)holder->type.n, holder->type.p,
		   (int)holder->instance.n, holder->instance.p);
	r = request_new(s, rpc, method, buf_str(&who));
	buf_done(&who);
	return r;
}

enum err
session_visibility(const struct params *p, const struct queue *q, uint64_t *us,
		   struct errmsg *why)
{
	uint64_t max = queue_policy(q)->max_visibility_us;

	if (p->have & F(visibility_timeout)) {
		*us = p->visibility_timeout;
		if (*us > max)
			return errmsg_set(why, ERR_BAD_REQUEST,
					  "visibility_timeout is above %g s, which is "
					  "max_visibility_timeout of this queue",
					  (double)max / 1e6);
	}
	if (*us > max)
		*us = max;
	return OK;
}

static void
check_pressure(struct session *s)
{
	if (s->conn)
		conn_pause(s->conn, s->pausing || s->in_flight >= s->api->config.max_inflight);
}

void
session_pause(struct session *s, bool pause)
{
	s->pausing += pause ? 1u : -1u;
	check_pressure(s);
}

/* Requests --------------------------------------------------------------------------------------- */

static size_t
request_size(size_t text_len)
{
	return sizeof(struct request) + text_len + 1;
}

struct request *
request_new(struct session *s, const struct rpc *rpc, enum method method, struct str text)
{
	struct request *r = pool_get(request_size(text.n));

	r->session = s;
	r->msgid = rpc->msgid;
	r->is_note = rpc->type == RPC_NOTIFICATION;
	r->method = method;
	r->since_us = loop_now_us(s->api->loop);
	if (text.n)
		memcpy(r->text, text.p, text.n);
	r->text_len = text.n;
	r->weight = method_is_heavy(method) ? s->api->config.max_inflight / MAX_HEAVY + 1 : 1;
	r->audit = s->auditing;
	s->auditing = NULL;
	s->requests++;
	s->unanswered++;
	s->in_flight += r->weight;
	s->api->in_flight++;
	if (s->in_flight >= s->api->config.max_inflight)
		check_pressure(s);
	return r;
}

void
request_asks_for(struct request *r, unsigned messages)
{
	struct session *s = r->session;
	unsigned more = messages * (s->api->config.max_inflight / MAX_HEAVY) / LARGEST_BATCH;

	r->weight += more;
	s->in_flight += more;
	if (s->in_flight >= s->api->config.max_inflight)
		check_pressure(s);
}

void
request_parked(struct request *r, bool parked)
{
	struct session *s = r->session;

	if (r->is_parked == parked)
		return;
	r->is_parked = parked;
	r->has_parked = true;
	s->in_flight += parked ? -r->weight : r->weight;
	s->parked += parked ? 1u : -1u;
	s->api->parked += parked ? 1u : -1u;
	check_pressure(s);
}

struct buf *
request_reply(struct request *r)
{
	struct buf *b;

	if (r->audit)
		return audit_output(r->audit, r->session, r->msgid);
	if (r->is_note || !r->session->conn)
		return NULL;
	b = conn_output(r->session->conn);
	rpc_put_result(b, r->msgid);
	return b;
}

static void
request_count(const struct request *r, enum err err)
{
	process_stats.requests[r->method][err]++;
	if (!r->has_parked)
		stat_hist_add(&process_stats.request_duration[r->method],
			      stat_bounds[STAT_FAST],
			      loop_now_us(r->session->api->loop) - r->since_us);
}

/* The request is answered; `wrote` when its answer was put into the output. */
static void
request_end(struct request *r, bool wrote)
{
	struct session *s = r->session;

	request_parked(r, false);
	if (r->receive) {
		TAILQ_REMOVE(&s->receives, r, link);
		if (r->may_park)
			s->waiting--;
	}
	if (wrote)
		conn_wrote(s->conn);
	s->in_flight -= r->weight;
	s->requests--;
	s->unanswered--;
	s->api->in_flight--;
	if (s->in_flight + r->weight >= s->api->config.max_inflight)
		check_pressure(s);
	pool_put(r, request_size(r->text_len));
	session_unref(s);
}

/* An answer that took long is worth a line, unless the client wanted to wait; the time that Redis took is that of its last
 * call. */
static void
note_slow(struct request *r, enum err err)
{
	struct session *s = r->session;
	uint64_t limit_us = s->api->config.slow_request_us, took_us;
	struct store_info info;

	took_us = loop_now_us(s->api->loop) - r->since_us;
	if (!limit_us || took_us <= limit_us || r->has_parked || !s->conn)
		return;
	store_info(s->api->store, &info);
	log_event(LOG_REQUEST_SLOW, log_text("method", method_names[r->method]),
		  log_ms("took_ms", took_us),
		  log_ms("redis_ms", err == ERR_UNSENT || err == ERR_UNKNOWN
					     ? 0
					     : (uint64_t)(info.round_trip_ms * 1e3)),
		  log_text("code", err_code(err)), log_uint("conn", conn_id(s->conn)),
		  log_text("peer", conn_peer(s->conn)));
}

void
request_done(struct request *r)
{
	audit_done(r->audit, r->session);
	request_count(r, OK);
	note_slow(r, OK);
	request_end(r, !r->is_note && r->session->conn);
}

/* What the log and the client both know the defect by. */
static void
name_defect(struct errmsg *why, const char *method)
{
	char text[9];
	uint32_t id;

	id_random(&id, sizeof(id));
	errmsg_set(why, ERR_INTERNAL, "a defect in the broker; its log names it as %08x", id);
	snprintf(text, sizeof(text), "%08x", id);
	log_event(LOG_REQUEST_INTERNAL, log_text("id", text), log_text("method", method));
}

void
request_refuse(struct request *r, const struct errmsg *why)
{
	struct session *s = r->session;
	bool answer = !r->is_note && s->conn;

	audit_failed(r->audit, why->err);
	request_count(r, why->err);
	note_slow(r, why->err);
	if (answer)
		rpc_put_error(conn_output(s->conn), r->msgid, s->errors, why);
	request_end(r, answer);
}

void
request_fail(struct request *r, enum err err)
{
	struct errmsg why;

	if (err == ERR_INTERNAL && !r->is_note && r->session->conn)
		name_defect(&why, method_names[r->method]);
	else if (err == ERR_OVERLOADED) /* of a store: what may be made is bounded */
		errmsg_set(&why, err, "there are as many as %s allows",
			   r->method == METHOD_register ? "registry.max_agents"
							: "breakers.max_breakers");
	else
		errmsg_set(&why, err, "%s", err_text(err));
	request_refuse(r, &why);
}

void
request_end_with(struct request *r, enum err err)
{
	if (err)
		request_fail(r, err);
	else
		request_done(r);
}

void
request_fail_held(struct request *r, enum err err)
{
	struct errmsg why;

	if (err != ERR_NOT_FOUND) {
		request_fail(r, err);
		return;
	}
	errmsg_set(&why, err,
		   "holder %.*s is not registered and alive, or is of another incarnation",
		   (int)r->text_len, r->text);
	request_refuse(r, &why);
}

struct buf *
session_reply(struct session *s, const struct rpc *rpc)
{
	struct buf *b;

	process_stats.requests[s->api->running][OK]++;
	if (rpc->type == RPC_NOTIFICATION)
		return NULL;
	b = conn_output(s->conn);
	rpc_put_result(b, rpc->msgid);
	conn_wrote(s->conn);
	return b;
}

void
session_fail(struct session *s, const struct rpc *rpc, const struct errmsg *why)
{
	if (rpc->type == RPC_NOTIFICATION)
		return;
	rpc_put_error(conn_output(s->conn), rpc->msgid, s->errors, why);
	conn_wrote(s->conn);
}

/* Reservations on their way ------------------------------------------------------------------------ */

/* It is watched until it is settled. */
static bool
is_kept(const struct delivery *d)
{
	return d->is_lease || d->held.consume;
}

void
delivery_free(struct delivery *d)
{
	if (is_kept(d))
		HASH_DEL(d->session->api->unsettled, d);
	if (d->held.consume)
		consume_let_go(&d->held);
	TAILQ_REMOVE(&d->session->deliveries, d, link);
	queue_unpin(d->queue);
	pool_put(d, sizeof(*d));
}

/*
 * Forget those that have left and are not kept: they stand in front, in the order of the output.
 * A lease past its deadline is kept all the same, as another broker may have extended it; who lets
 * very many pass loses the oldest, whose deadline then ends it alone. (A consumer finds out itself.)
 */
static void
forget_written(struct session *s, bool all)
{
	uint64_t written = conn_written_total(s->conn),
		 now = all ? store_now_us(s->api->store) : 0;
	struct delivery *d, *next;
	unsigned overdue = 0;

	for (d = TAILQ_FIRST(&s->deliveries); all && d; d = TAILQ_NEXT(d, link))
		overdue += is_kept(d) && !d->held.consume && d->token.deadline_us < now;
	for (d = TAILQ_FIRST(&s->deliveries); d && d->ends_at <= written; d = next) {
		next = TAILQ_NEXT(d, link);
		if (!is_kept(d)) {
			delivery_free(d);
		} else if (!all) {
			break; /* these are looked through once a second */
		} else if (!d->held.consume && d->token.deadline_us < now &&
			   overdue > MAX_OVERDUE) {
			delivery_free(d);
			overdue--;
		}
	}
}

void
session_watch(struct session *s, struct queue *q, const struct reservation *res, bool is_lease,
	      struct consume *consume)
{
	struct delivery *d = pool_get(sizeof(*d));

	forget_written(s, false);
	d->session = s;
	d->queue = q;
	d->token = res->token;
	d->ends_at = conn_put_total(s->conn);
	d->is_lease = is_lease;
	queue_pin(q);
	TAILQ_INSERT_TAIL(&s->deliveries, d, link);
	if (consume)
		consume_hold(consume, &d->held, &d->token);
	if (is_kept(d))
		HASH_ADD_KEYPTR(hh, s->api->unsettled, d->token.random, TOKEN_RANDOM_LEN, d);
}

void
api_settled(struct api *api, const struct token *token, uint64_t deadline_us)
{
	struct delivery *d;

	if (!api->unsettled)
		return;
	HASH_FIND(hh, api->unsettled, token->random, TOKEN_RANDOM_LEN, d);
	if (!d)
		return;
	if (deadline_us)
		d->token.deadline_us = deadline_us;
	else
		delivery_free(d);
}

static void give_back_ask(struct give_back *g);

void
api_on_second(struct api *api)
{
	uint64_t now_us = loop_clock_us(), late_us = now_us - api->second_us;
	struct give_back *g;
	struct session *s;

	/* The worst of late, which fades: a stall is seen by who looks a few seconds after it. */
	late_us = api->second_us && late_us > SECOND_US ? late_us - SECOND_US : 0;
	api->lag_us = late_us > api->lag_us ? late_us : api->lag_us / 10 * 9;
	api->second_us = now_us;
	TAILQ_FOREACH (s, &api->sessions, link)
		if (!TAILQ_EMPTY(&s->deliveries))
			forget_written(s, true);
	if (!store_is_ready(api->store))
		return;
	TAILQ_FOREACH (g, &api->given_back, link)
		if (!g->is_asked)
			give_back_ask(g);
}

/* Opening and closing ------------------------------------------------------------------------------ */

static void *
session_on_open(void *arg, struct conn *conn)
{
	struct api *api = arg;
	struct session *s = xcalloc(1, sizeof(*s));

	s->api = api;
	s->conn = conn;
	s->namespace = xstrdup("default");
	s->client = xstrdup("");
	s->role = ROLE_OPERATOR;
	TAILQ_INIT(&s->receives);
	TAILQ_INIT(&s->deliveries);
	TAILQ_INIT(&s->consumers);
	TAILQ_INIT(&s->watchers);
	TAILQ_INSERT_TAIL(&api->sessions, s, link);
	log_event(LOG_CONN_OPENED, log_uint("conn", conn_id(conn)),
		  log_text("peer", conn_peer(conn)));
	return s;
}

static void
give_back_end(struct give_back *g)
{
	TAILQ_REMOVE(&g->api->given_back, g, link);
	queue_unpin(g->queue);
	free(g);
}

static void
give_back_done(void *arg, enum err err, bool done, uint64_t deadline_us)
{
	struct give_back *g = arg;

	(void)done;
	(void)deadline_us;
	g->is_asked = false;
	if (g->consumer)
		consumer_given_back(g->consumer, err);
	g->consumer = NULL;
	if (!err || g->api->is_stopping || g->token.deadline_us < store_now_us(g->api->store))
		give_back_end(g);
}

static void
give_back_ask(struct give_back *g)
{
	struct settle_how how = { .kind = g->kind, .error = STR("connection closed") };

	g->is_asked = true;
	queue_settle(g->queue, &g->token, &how, give_back_done, g);
}

void
give_back(struct api *api, struct queue *q, const struct token *token, enum settle kind,
	  struct consumer *consumer)
{
	struct give_back *g = xcalloc(1, sizeof(*g));

	g->api = api;
	g->queue = q;
	g->token = *token;
	g->kind = kind;
	g->consumer = consumer;
	queue_pin(q);
	TAILQ_INSERT_TAIL(&api->given_back, g, link);
	give_back_ask(g);
}

static void
session_on_close(void *user, enum conn_end why)
{
	struct session *s = user;
	uint64_t written = conn_written_total(s->conn);
	struct request *r;
	struct consumer *c;
	struct watcher *w;
	struct delivery *d;

	if (why == CONN_END_SLOW_READER)
		log_event(LOG_CONN_SLOW_READER, log_uint("conn", conn_id(s->conn)),
			  log_text("peer", conn_peer(s->conn)),
			  log_uint("unsent", conn_put_total(s->conn) - written));
	else if (why == CONN_END_SLOW_WRITER)
		log_event(LOG_CONN_SLOW_WRITER, log_uint("conn", conn_id(s->conn)),
			  log_text("peer", conn_peer(s->conn)));
	log_event(LOG_CONN_CLOSED, log_uint("conn", conn_id(s->conn)),
		  log_text("reason", conn_end_names[why]));
	s->conn = NULL;
	session_hold(s); /* so that it is still there below */
	while ((r = TAILQ_FIRST(&s->receives))) {
		receive_cancel(r->receive);
		request_end(r, false);
	}
	/* The last one first: where they take several calls, the first one is at the head in the end. */
	while ((d = TAILQ_LAST(&s->deliveries, delivery_list))) {
		if (d->ends_at > written)
			give_back(s->api, d->queue, &d->token, SETTLE_RELEASE, NULL);
		else if (d->is_lease)
			give_back(s->api, d->queue, &d->token, SETTLE_FAIL, NULL);
		delivery_free(d);
	}
	while ((c = TAILQ_FIRST(&s->consumers)))
		consumer_end(c);
	while ((w = TAILQ_FIRST(&s->watchers)))
		watcher_end(w);
	defer_cancel(s->api->loop, &s->drained);
	TAILQ_REMOVE(&s->api->sessions, s, link);
	session_drop(s);
}

static void
session_on_drained(void *user)
{
	struct session *s = user;
	struct consumer *c;

	TAILQ_FOREACH (c, &s->consumers, link) {
		consume_look(c->consume);
	}
	if (!TAILQ_EMPTY(&s->watchers))
		loop_defer(s->api->loop, &s->drained, watchers_look, s);
}

const struct conn_ops api_conn_ops = {
	.on_open = session_on_open,
	.on_frame = session_on_frame,
	.on_bad_frame = session_on_bad_frame,
	.on_close = session_on_close,
	.on_drained = session_on_drained,
};

/* The api itself ----------------------------------------------------------------------------------- */

struct api *
api_new(struct loop *loop, struct store *store, struct queues *queues, const char *instance_id,
	const struct api_config *config)
{
	struct api *api = xcalloc(1, sizeof(*api));
	api->loop = loop;
	api->store = store;
	api->queues = queues;
	api->config = *config;
	if (*config->name)
		snprintf(api->name, sizeof(api->name), "%s", config->name);
	else if (gethostname(api->name, sizeof(api->name) - 1))
		snprintf(api->name, sizeof(api->name), "coordd");
	api->started_us = loop_clock_us();
	TAILQ_INIT(&api->sessions);
	TAILQ_INIT(&api->given_back);
	snprintf(api->instance_id, sizeof(api->instance_id), "%s", instance_id);
	return api;
}

void
api_set_config(struct api *api, const struct api_config *config)
{
	struct session *s;

	api->config = *config;
	TAILQ_FOREACH (s, &api->sessions, link) {
		check_pressure(s);
	}
}

void
api_set_conns(struct api *api, struct conns *conns)
{
	api->conns = conns;
}

void
api_set_events(struct api *api, struct events *events)
{
	api->events = events;
}

void
api_set_breakers(struct api *api, struct breakers *breakers)
{
	api->breakers = breakers;
}

void
api_set_registry(struct api *api, struct registry *registry)
{
	api->registry = registry;
}

void
api_set_operate(struct api *api, struct operate *operate)
{
	api->operate = operate;
}

/* Connections are closed and every operation has ended. */
void
api_free(struct api *api)
{
	struct give_back *g;

	if (!api)
		return;
	while ((g = TAILQ_FIRST(&api->given_back))) {
		TAILQ_REMOVE(&api->given_back, g, link); /* the deadline does it */
		free(g);
	}
	buf_done(&api->unheard);
	free(api);
}

void
api_set_control(struct api *api, const struct control_ops *ops, void *arg)
{
	api->control = ops;
	api->control_arg = arg;
}

void
api_hold_back(struct api *api, bool hold)
{
	struct session *s;
	struct consumer *c;

	if (api->is_draining == hold || api->is_stopping)
		return;
	api->is_draining = hold;
	if (!hold) {
		queues_resume(api->queues);
		return;
	}
	queues_end_waits(api->queues, ERR_SHUTTING_DOWN);
	TAILQ_FOREACH (s, &api->sessions, link) {
		TAILQ_FOREACH (c, &s->consumers, link) {
			consumer_note_drain(c);
		}
	}
}

void
api_stop(struct api *api)
{
	api_hold_back(api, true);
	api->is_stopping = true;
}

unsigned
api_unsettled(const struct api *api)
{
	uint64_t now = store_now_us(api->store);
	const struct delivery *d;
	unsigned n = 0;

	for (d = api->unsettled; d; d = d->hh.next)
		n += d->token.deadline_us > now;
	return n;
}

uint64_t
api_time_us(const struct api *api)
{
	uint64_t now_us = store_now_us(api->store);
	struct timespec now;

	if (now_us)
		return now_us;
	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

unsigned
api_in_flight(const struct api *api)
{
	return api->in_flight;
}

unsigned
api_parked(const struct api *api)
{
	return api->parked;
}

const char *
api_instance_id(const struct api *api)
{
	return api->instance_id;
}
