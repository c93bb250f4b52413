/* queue_stats, list_queues, peek, purge, pause_queue, resume_queue, dlq_list, configure: looking at queues, and their settings. */
#include <stdlib.h>

#include "api/encode.h"
#include "api/session.h"
#include "base/log.h"
#include "base/mem.h"
#include "proto/mp.h"
#include "queue/pack.h"
#include "store/keys.h"

static const char *const reasons[] = { "permanent", "permanent", "attempts", "expired" };

static struct request *
request_on(struct session *s, const struct rpc *rpc, enum method method, const struct params *p)
{
	struct request *r = request_new(s, rpc, method, STR(""));

	r->queue = queues_get(s->api->queues, str_of(s->namespace), &p->agent);
	queue_pin(r->queue);
	return r;
}

/* The only exit of what request_on() began: answered, or failed where `err`. */
static void
request_off(struct request *r, enum err err)
{
	queue_unpin(r->queue);
	request_end_with(r, err);
}

/* queue_stats, list_queues ------------------------------------------------------------------------- */

static void
stats_done(void *arg, enum err err, const struct queue_stats *stats)
{
	struct request *r = arg;
	struct buf *b = err ? NULL : request_reply(r);

	if (b)
		encode_stats(b, stats, queue_agent(r->queue), queue_consumers(r->queue));
	request_off(r, err);
}

enum err
api_queue_stats(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	struct request *r = request_on(s, rpc, METHOD_queue_stats, p);

	(void)why;
	queue_stats(r->queue, stats_done, r);
	return OK;
}

/* What follows the namespace in a name: `type:instance`, encoded. */
static struct str
name_in_namespace(struct str name)
{
	const char *colon = memchr(name.p, ':', name.n);
	size_t skip = colon ? (size_t)(colon - name.p) + 1 : 0;

	return (struct str){ name.p + skip, name.n - skip };
}

static void
put_listed(struct buf *b, struct api *api, struct str name, const struct queue_stats *stats)
{
	struct queue *q = queues_get_name(api->queues, name);
	struct agent_id none = { STR(""), STR("") };

	encode_stats(b, stats, q ? queue_agent(q) : none, q ? queue_consumers(q) : 0);
}

static void
list_done(void *arg, enum err err, const struct str *names, const struct queue_stats *stats,
	  unsigned n)
{
	struct request *r = arg;
	struct api *api = r->session->api;
	struct buf rows = { 0 };
	struct buf *b;
	unsigned fit = 0;

	if (err) {
		request_fail(r, err);
		return;
	}
	while (fit < n) {
		size_t before = rows.len;

		put_listed(&rows, api, names[fit], &stats[fit]);
		/* The answer ends at max_frame: the envelope and `after` take the rest. */
		if (fit && rows.len + KEY_NAME_MAX + 64 > api->config.max_frame) {
			rows.len = before;
			break;
		}
		fit++;
	}
	b = request_reply(r);
	if (b) {
		mp_put_map(b, 2);
		mp_put_lit(b, "queues");
		mp_put_array(b, fit);
		mp_put_raw(b, buf_str(&rows));
		mp_put_lit(b, "after");
		if (fit && (fit < n || n == r->limit))
			mp_put_str(b, name_in_namespace(names[fit - 1]));
		else
			mp_put_nil(b);
	}
	buf_done(&rows);
	request_done(r);
}

enum err
api_list_queues(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	struct request *r = request_new(s, rpc, METHOD_list_queues, STR(""));

	(void)why;
	r->limit = p->have & F(limit) ? p->limit : 1000;
	queues_list(s->api->queues, str_of(s->namespace), p->have & F(type) ? p->type : STR(""),
		    p->have & F(after) ? p->after : STR(""), (unsigned)r->limit, list_done, r);
	return OK;
}

/* peek, purge, pause_queue, resume_queue -------------------------------------------------------------- */

static void
peek_done(void *arg, enum err err, const struct reply *reply)
{
	struct request *r = arg;
	struct buf rows = { 0 };
	struct buf *b;
	uint32_t n = 0;

	for (uint32_t i = 0; !err && i < reply->count; i++) {
		struct item item;

		if (item_read(&item, reply_str(reply_at(reply, i)))) {
			encode_queue_message(&rows, &item, queue_agent(r->queue));
			n++;
		}
	}
	b = err ? NULL : request_reply(r);
	if (b) {
		mp_put_array(b, n);
		mp_put_raw(b, buf_str(&rows));
	}
	buf_done(&rows);
	request_off(r, err);
}

enum err
api_peek(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	struct request *r = request_on(s, rpc, METHOD_peek, p);

	(void)why;
	queue_peek(r->queue, p->have & F(limit) ? (unsigned)p->limit : 10, peek_done, r);
	return OK;
}

static void
purge_done(void *arg, enum err err, uint64_t count)
{
	struct request *r = arg;
	struct buf *b = err ? NULL : request_reply(r);

	if (b)
		mp_put_uint(b, count);
	request_off(r, err);
}

enum err
api_purge(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	struct request *r = request_on(s, rpc, METHOD_purge, p);

	(void)why;
	queue_purge(r->queue, purge_done, r);
	return OK;
}

static void
pause_done(void *arg, enum err err, const struct reply *reply)
{
	struct request *r = arg;
	struct buf *b = err ? NULL : request_reply(r);

	if (b)
		mp_put_bool(b, reply_int(reply, 0) == 1);
	request_off(r, err);
}

static enum err
set_paused(struct session *s, const struct rpc *rpc, const struct params *p, bool pause)
{
	struct request *r =
		request_on(s, rpc, pause ? METHOD_pause_queue : METHOD_resume_queue, p);

	queue_pause(r->queue, pause, pause_done, r);
	return OK;
}

enum err
api_pause_queue(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	(void)why;
	return set_paused(s, rpc, p, true);
}

enum err
api_resume_queue(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	(void)why;
	return set_paused(s, rpc, p, false);
}

/* dlq_list ------------------------------------------------------------------------------------------ */

static bool
put_dead(struct buf *b, struct str id, struct str record, struct agent_id agent)
{
	struct item item;
	unsigned reason;

	if (record.n < 8 || !item_read(&item, (struct str){ record.p + 8, record.n - 8 }))
		return false;
	reason = (uint8_t)record.p[7];
	mp_put_map(b, 4);
	mp_put_lit(b, "id");
	mp_put_str(b, id);
	mp_put_lit(b, "queue_message");
	encode_queue_message(b, &item, agent);
	mp_put_lit(b, "reason");
	mp_put_str(b, str_of(reasons[reason < 4 ? reason : 0]));
	mp_put_lit(b, "dead_at");
	encode_time(b, unpack_uint(record.p, 7));
	return true;
}

static void
dlq_list_done(void *arg, enum err err, const struct reply *reply)
{
	struct request *r = arg;
	uint32_t pairs = err ? 0 : (reply->count - 1) / 2, n = 0;
	struct buf rows = { 0 };
	struct buf *b;

	for (uint32_t i = 0; i < pairs; i++)
		n += put_dead(&rows, reply_str(reply_at(reply, 2 * i + 1)),
			      reply_str(reply_at(reply, 2 * i + 2)), queue_agent(r->queue));
	b = err ? NULL : request_reply(r);
	if (b) {
		mp_put_map(b, 2);
		mp_put_lit(b, "dead");
		mp_put_array(b, n);
		mp_put_raw(b, buf_str(&rows));
		mp_put_lit(b, "after");
		if (reply_int(reply_at(reply, 0), 0) && pairs)
			mp_put_str(b, reply_str(reply_at(reply, 2 * pairs - 1)));
		else
			mp_put_nil(b);
	}
	buf_done(&rows);
	request_off(r, err);
}

enum err
api_dlq_list(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	struct request *r;
	uint64_t after = 0;

	if (p->have & F(after)) {
		for (size_t i = 0; i < p->after.n; i++) {
			if (p->after.p[i] < '0' || p->after.p[i] > '9' || p->after.n > 16)
				return errmsg_set(why, ERR_BAD_REQUEST,
						  "after must be an id that dlq_list gave");
			after = after * 10 + (uint64_t)(p->after.p[i] - '0');
		}
	}
	r = request_on(s, rpc, METHOD_dlq_list, p);
	queue_dlq_list(r->queue, after, p->have & F(limit) ? (unsigned)p->limit : 100,
		       dlq_list_done, r);
	return OK;
}

/* configure ----------------------------------------------------------------------------------------- */

static void
configure_done(void *arg, enum err err, const struct queue_policy *policy)
{
	struct request *r = arg;
	struct buf *b = err ? NULL : request_reply(r);

	if (b)
		encode_policy(b, policy);
	request_end_with(r, err);
}

enum err
api_configure(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	struct str ns = str_of(s->namespace);
	struct queue *q = p->have & F(agent) ? queues_get(s->api->queues, ns, &p->agent) : NULL;

	(void)why;
	queues_configure(s->api->queues, ns, q, p, configure_done,
			 request_new(s, rpc, METHOD_configure, STR("")));
	return OK;
}
