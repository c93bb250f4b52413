/*
 * status: how the broker is, and what is in a namespace.
 *
 *	api_look()		ask Redis, one after the other:
 *	look_on_namespace()	how many queues, agents and breakers there are
 *	look_on_queues()	the numbers of the first STATUS_QUEUES queues, and which of them are worst
 *	look_on_agents()	who of the agents lives
 *	look_on_breakers()	which breakers are open
 *	look_finish()		the only exit
 *
 * It answers whatever Redis does, that is what it is for; what Redis did not tell is left out. With many queues the cost is that of the
 * first ones: the answer says of how many its numbers are.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "api/encode.h"
#include "api/session.h"
#include "base/mem.h"
#include "proto/mp.h"
#include "store/keys.h"

enum {
	STATUS_QUEUES = 1000, /* looked at */
	STATUS_WORST = 10,    /* told of */
	STALLED_US = 30000000 /* nobody came for a message: it is not between two calls */
};
#define LOOP_SLOW_US  100000
#define LOOP_STUCK_US 1000000
#define NEARLY_FULL   80.0 /* per cent */

enum check {
#define CHECK(name, unit, help) CHECK_##name,
#include "base/checks.def"
#undef CHECK
	CHECKS
};
enum unit { STATE, COUNT, MS, SECONDS, PERCENT, NONE };

static const struct {
	const char *name;
	enum unit unit;
} checks[CHECKS] = {
#define CHECK(name, unit, help) { #name, unit },
#include "base/checks.def"
#undef CHECK
};
static const char *const unit_names[] = {
	[STATE] = "", [COUNT] = "", [MS] = "ms", [SECONDS] = "s", [PERCENT] = "%", [NONE] = ""
};

/* A queue, and what is to be told of it. */
struct listed {
	char name[KEY_NAME_MAX]; /* in Redis, not terminated */
	size_t name_len;
	struct queue_stats stats;
	unsigned consumers; /* here */
};

struct look {
	struct api *api;
	struct str ns; /* the owner's */
	bool has_counts, has_queues, has_agents, has_breakers;
	struct namespace_info counts;
	uint64_t counted, paused, ready, delayed, reserved, dead; /* of queues */
	struct listed worst[STATUS_WORST];
	unsigned nworst;
	uint64_t stalled, oldest_us; /* queues; age of a message */
	double fullest;              /* per cent */
	struct buf deadest, oldest_in, fullest_in,
		stalled_in; /* which queues these are, as text */
	uint64_t most_dead;
	uint64_t agents, alive, late;
	struct breaker_counts breakers;
	look_cb *cb;
	void *arg;
};

/* Checks ------------------------------------------------------------------------------------------- */

struct verdict {
	const char *status; /* NULL: Redis did not tell */
	double value;
	bool has_value;
	char message[256];
	struct str worst; /* what it is about most */
};

static struct verdict
judge_count(bool is_known, uint64_t n, const char *what, const struct buf *worst)
{
	struct verdict v = { .status = is_known ? "ok" : NULL,
			     .value = (double)n,
			     .has_value = true };

	if (is_known && n) {
		v.status = "warn";
		snprintf(v.message, sizeof(v.message), "%llu %s", (unsigned long long)n, what);
	}
	if (worst)
		v.worst = buf_str(worst);
	return v;
}

static struct verdict
judge_ready(const struct look *l, const struct store_info *info)
{
	struct verdict v = { .status = "ok", .value = 1, .has_value = true };

	if (info->ready && !l->api->is_draining && !l->api->is_stopping)
		return v;
	v.status = "fail";
	v.value = 0;
	snprintf(v.message, sizeof(v.message), "%s",
		 l->api->is_stopping   ? "the broker stops"
		 : l->api->is_draining ? "the broker drains"
				       : "Redis is not there");
	return v;
}

static struct verdict
judge_redis(const struct store_info *info)
{
	struct verdict v = { .status = info->ready ? "ok" : "fail",
			     .value = info->round_trip_ms,
			     .has_value = info->ready };

	snprintf(v.message, sizeof(v.message), "%s", info->problem);
	return v;
}

static struct verdict
judge_persistence(const struct store_info *info)
{
	struct verdict v = { 0 };

	v.status = store_durability(info, v.message, sizeof(v.message));
	return v;
}

static struct verdict
judge_config(const struct api *api)
{
	struct verdict v = { .status = "ok" };
	struct config_state state = { 0 };

	if (api->control)
		api->control->config(api->control_arg, &state);
	if (state.problem) {
		v.status = "warn";
		snprintf(v.message, sizeof(v.message), "the last reload was refused: %s",
			 state.problem);
	}
	return v;
}

static struct verdict
judge_loop(const struct api *api)
{
	struct verdict v = { .status = api->lag_us >= LOOP_STUCK_US  ? "fail"
				       : api->lag_us >= LOOP_SLOW_US ? "warn"
								     : "ok",
			     .value = (double)api->lag_us / 1e3,
			     .has_value = true };

	if (api->lag_us >= LOOP_SLOW_US)
		snprintf(v.message, sizeof(v.message),
			 "the event loop was %.0f ms late: the host is overloaded, or the "
			 "process was stopped",
			 v.value);
	return v;
}

static struct verdict
judge_age(const struct look *l)
{
	return (struct verdict){ .status = l->has_queues ? "ok" : NULL,
				 .value = (double)l->oldest_us / 1e6,
				 .has_value = true,
				 .worst = buf_str(&l->oldest_in) };
}

static struct verdict
judge_capacity(const struct look *l)
{
	struct verdict v = { .status = l->has_queues ? "ok" : NULL,
			     .value = l->fullest,
			     .has_value = true,
			     .worst = buf_str(&l->fullest_in) };

	if (l->has_queues && l->fullest >= NEARLY_FULL) {
		v.status = l->fullest >= 100 ? "fail" : "warn";
		snprintf(v.message, sizeof(v.message), "a queue is %.0f %% full", l->fullest);
	}
	return v;
}

static struct verdict
judge(const struct look *l, const struct store_info *info, enum check check)
{
	switch (check) {
	case CHECK_ready:
		return judge_ready(l, info);
	case CHECK_redis:
		return judge_redis(info);
	case CHECK_persistence:
		return judge_persistence(info);
	case CHECK_config:
		return judge_config(l->api);
	case CHECK_loop:
		return judge_loop(l->api);
	case CHECK_dlq:
		return judge_count(l->has_queues, l->dead, "dead letters", &l->deadest);
	case CHECK_consumers:
		return judge_count(l->has_queues, l->stalled,
				   "queues have messages and no consumers", &l->stalled_in);
	case CHECK_age:
		return judge_age(l);
	case CHECK_capacity:
		return judge_capacity(l);
	case CHECK_agents:
		return judge_count(l->has_agents, l->agents - l->alive, "agents are dead",
				   NULL);
	case CHECK_breakers:
		return judge_count(l->has_breakers, l->breakers.open + l->breakers.half_open,
				   "circuit breakers are not closed", NULL);
	case CHECKS:
		break;
	}
	return (struct verdict){ 0 };
}

static void
put_checks(struct buf *b, const struct look *l, const struct store_info *info)
{
	struct buf rows = { 0 };
	unsigned n = 0;

	for (unsigned i = 0; i < CHECKS; i++) {
		struct verdict v = judge(l, info, (enum check)i);

		if (!v.status)
			continue;
		n++;
		mp_put_map(&rows, 6);
		put_text(&rows, "name", str_of(checks[i].name));
		put_text(&rows, "status", str_of(v.status));
		mp_put_lit(&rows, "value");
		if (v.has_value && (checks[i].unit == COUNT || checks[i].unit == STATE))
			mp_put_uint(&rows, (uint64_t)v.value);
		else if (v.has_value)
			mp_put_double(&rows, v.value);
		else
			mp_put_nil(&rows);
		put_text_or_nil(&rows, "unit", str_of(unit_names[checks[i].unit]));
		put_text(&rows, "message", str_of(v.message));
		put_text_or_nil(&rows, "worst", v.worst);
	}
	mp_put_array(b, n);
	mp_put_raw(b, buf_str(&rows));
	buf_done(&rows);
}

void
api_put_checks(struct api *api, struct buf *b)
{
	const struct look nothing = { .api = api };
	struct store_info info;

	store_info(api->store, &info);
	put_checks(b, &nothing, &info);
}

/* The answer --------------------------------------------------------------------------------------- */

static void
put_redis(struct buf *b, const struct store_info *info)
{
	mp_put_map(b, 9);
	put_bool(b, "up", info->ready);
	put_text(b, "version", str_of(info->version));
	put_bool(b, "aof", info->aof);
	put_text(b, "appendfsync", str_of(info->appendfsync));
	put_text(b, "policy", str_of(info->policy));
	mp_put_lit(b, "round_trip_ms");
	mp_put_double(b, info->round_trip_ms);
	put_count(b, "pending", info->pending);
	put_count(b, "reconnects", info->reconnects);
	put_text(b, "problem", str_of(info->problem));
}

static void
put_clients(struct buf *b, const struct api *api)
{
	const struct session *s;
	unsigned tcp = 0, local = 0;

	TAILQ_FOREACH (s, &api->sessions, link) {
		if (!s->conn || conn_is_inner(s->conn))
			continue;
		if (conn_is_unix(s->conn))
			local++;
		else
			tcp++;
	}
	mp_put_map(b, 2);
	put_count(b, "tcp", tcp);
	put_count(b, "unix", local);
}

static void
put_worst(struct buf *b, const struct look *l)
{
	struct agent_id none = { STR(""), STR("") };

	mp_put_array(b, l->nworst);
	for (unsigned i = 0; i < l->nworst; i++) {
		const struct listed *w = &l->worst[i];
		struct queue *q =
			queues_get_name(l->api->queues, (struct str){ w->name, w->name_len });

		encode_stats(b, &w->stats, q ? queue_agent(q) : none, w->consumers);
	}
}

static void
put_queues(struct buf *b, const struct look *l)
{
	mp_put_lit(b, "queues");
	mp_put_map(b, 3);
	put_count(b, "known", l->counts.queues > l->counted ? l->counts.queues : l->counted);
	put_count(b, "counted", l->counted);
	put_count(b, "paused", l->paused);
	mp_put_lit(b, "messages");
	mp_put_map(b, 4);
	put_count(b, "ready", l->ready);
	put_count(b, "delayed", l->delayed);
	put_count(b, "reserved", l->reserved);
	put_count(b, "dead", l->dead);
	mp_put_lit(b, "worst");
	put_worst(b, l);
}

static void
put_agents(struct buf *b, const struct look *l)
{
	mp_put_lit(b, "agents");
	mp_put_map(b, 3);
	put_count(b, "known", l->counts.agents > l->agents ? l->counts.agents : l->agents);
	put_count(b, "alive", l->alive);
	put_count(b, "late", l->late);
}

static void
put_breakers(struct buf *b, const struct look *l)
{
	const struct breaker_counts *c = &l->breakers;

	mp_put_lit(b, "breakers");
	mp_put_map(b, 3);
	put_count(b, "known", l->counts.breakers > c->known ? l->counts.breakers : c->known);
	put_count(b, "open", c->open);
	put_count(b, "half_open", c->half_open);
}

void
look_put(struct buf *b, const struct look *l)
{
	const struct api *api = l->api;
	uint64_t up_us = loop_clock_us() - api->started_us;
	struct store_info info;

	store_info(api->store, &info);
	mp_put_map(b, 16u + 3u * l->has_queues + l->has_agents + l->has_breakers);
	put_text(b, "server", STR("coordd"));
	put_text(b, "name", str_of(api->name));
	put_text(b, "version", str_of(COORDD_VERSION));
	put_text(b, "instance_id", str_of(api->instance_id));
	put_count(b, "pid", (uint64_t)getpid());
	mp_put_lit(b, "started");
	encode_time(b, api_time_us(api) - up_us);
	put_seconds(b, "uptime_s", up_us);
	mp_put_lit(b, "time");
	encode_time(b, api_time_us(api));
	put_bool(b, "ready", info.ready && !api->is_draining && !api->is_stopping);
	put_bool(b, "draining", api->is_draining);
	put_text(b, "namespace", l->ns);
	mp_put_lit(b, "clients");
	put_clients(b, api);
	put_count(b, "parked", api->parked);
	put_count(b, "in_flight", api->in_flight - api->parked);
	mp_put_lit(b, "redis");
	put_redis(b, &info);
	mp_put_lit(b, "checks");
	put_checks(b, l, &info);
	if (l->has_queues)
		put_queues(b, l);
	if (l->has_agents)
		put_agents(b, l);
	if (l->has_breakers)
		put_breakers(b, l);
}

/* Asking ------------------------------------------------------------------------------------------- */

static void
look_finish(struct look *l)
{
	l->cb(l->arg, l);
	buf_done(&l->deadest);
	buf_done(&l->oldest_in);
	buf_done(&l->fullest_in);
	buf_done(&l->stalled_in);
	free(l);
}

static void
look_on_breakers(void *arg, enum err err, const struct breaker_counts *counts)
{
	struct look *l = arg;

	l->has_breakers = !err;
	if (!err)
		l->breakers = *counts;
	look_finish(l);
}

static void
look_on_agents(void *arg, enum err err, uint64_t known, uint64_t alive, uint64_t late)
{
	struct look *l = arg;

	l->has_agents = !err;
	l->agents = known;
	l->alive = alive;
	l->late = late;
	if (err)
		look_finish(l);
	else
		breakers_count(l->api->breakers, l->ns, look_on_breakers, l);
}

static uint64_t
ready_of(const struct listed *q)
{
	return q->stats.ready[0] + q->stats.ready[1] + q->stats.ready[2];
}

static uint64_t
size_of(const struct listed *q)
{
	return ready_of(q) + q->stats.delayed + q->stats.reserved;
}

static uint64_t
age_of(const struct listed *q)
{
	return q->stats.oldest_us && q->stats.now_us > q->stats.oldest_us
		       ? q->stats.now_us - q->stats.oldest_us
		       : 0;
}

/* Messages are ready, and nobody is there to take them. */
static bool
is_deserted(const struct listed *q)
{
	return ready_of(q) && !q->consumers && !q->stats.elsewhere && !q->stats.paused;
}

/* First what nobody works on, then where messages wait longest, then where most have died, then the fullest. */
static bool
is_worse(const struct listed *a, const struct listed *b)
{
	if (is_deserted(a) != is_deserted(b))
		return is_deserted(a);
	if (age_of(a) != age_of(b))
		return age_of(a) > age_of(b);
	if (a->stats.dead != b->stats.dead)
		return a->stats.dead > b->stats.dead;
	return size_of(a) > size_of(b);
}

/* Keep it among the worst, which stay in their order. */
static void
keep_worst(struct look *l, const struct listed *q)
{
	unsigned i = l->nworst;

	if (!size_of(q) && !q->stats.dead)
		return;
	if (i == STATUS_WORST && !is_worse(q, &l->worst[--i]))
		return;
	for (; i && is_worse(q, &l->worst[i - 1]); i--)
		l->worst[i] = l->worst[i - 1];
	l->worst[i] = *q;
	if (l->nworst < STATUS_WORST)
		l->nworst++;
}

/* "planner:w1", and what `text` says of it. */
static void
name_it(struct buf *b, const struct listed *q)
{
	const char *colon = memchr(q->name, ':', q->name_len);
	size_t skip = colon ? (size_t)(colon - q->name) + 1 : 0;

	buf_clear(b);
	buf_put(b, q->name + skip, q->name_len - skip);
}

static void
look_at_queue(struct look *l, const struct listed *q)
{
	double full =
		q->stats.capacity ? 100.0 * (double)size_of(q) / (double)q->stats.capacity : 0;

	l->ready += ready_of(q);
	l->delayed += q->stats.delayed;
	l->reserved += q->stats.reserved;
	l->dead += q->stats.dead;
	l->paused += q->stats.paused;
	if (q->stats.dead > l->most_dead) {
		l->most_dead = q->stats.dead;
		name_it(&l->deadest, q);
		buf_printf(&l->deadest, " %llu", (unsigned long long)q->stats.dead);
	}
	if (age_of(q) > l->oldest_us) {
		l->oldest_us = age_of(q);
		name_it(&l->oldest_in, q);
	}
	if (full > l->fullest) {
		l->fullest = full;
		name_it(&l->fullest_in, q);
	}
	if (is_deserted(q) && age_of(q) >= STALLED_US) {
		if (!l->stalled++ || age_of(q) == l->oldest_us)
			name_it(&l->stalled_in, q);
	}
	keep_worst(l, q);
}

static void
look_on_queues(void *arg, enum err err, const struct str *names,
	       const struct queue_stats *stats, unsigned n)
{
	struct look *l = arg;
	struct listed *listed = xcalloc(1, sizeof(*listed)); /* too much for the stack */

	for (unsigned i = 0; !err && i < n; i++) {
		struct queue *q = queues_get_name(l->api->queues, names[i]);

		if (!q || names[i].n > sizeof(listed->name))
			continue;
		memcpy(listed->name, names[i].p, names[i].n);
		listed->name_len = names[i].n;
		listed->stats = stats[i];
		listed->consumers = queue_consumers(q);
		look_at_queue(l, listed);
	}
	free(listed);
	l->counted = n;
	l->has_queues = !err;
	if (err)
		look_finish(l);
	else
		registry_count(l->api->registry, l->ns, look_on_agents, l);
}

static void
look_on_namespace(void *arg, enum err err, const struct namespace_info *infos, unsigned n)
{
	struct look *l = arg;

	l->has_counts = !err && n;
	if (l->has_counts)
		l->counts = infos[0];
	if (err)
		look_finish(l);
	else
		queues_list(l->api->queues, l->ns, STR(""), STR(""), STATUS_QUEUES,
			    look_on_queues, l);
}

void
api_look(struct api *api, struct str ns, look_cb *cb, void *arg)
{
	struct look *l = xcalloc(1, sizeof(*l));

	l->api = api;
	l->ns = ns;
	l->cb = cb;
	l->arg = arg;
	queues_flush_all(api->queues);
	operate_namespace(api->operate, ns, look_on_namespace, l);
}

/* The method ---------------------------------------------------------------------------------------- */

static void
status_done(void *arg, const struct look *look)
{
	struct request *r = arg;
	struct buf *b = request_reply(r);

	if (b)
		look_put(b, look);
	request_done(r);
}

enum err
api_status(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	(void)p;
	(void)why;
	api_look(s->api, str_of(s->namespace), status_done,
		 request_new(s, rpc, METHOD_status, STR("")));
	return OK;
}
