/* breaker_acquire, _report, _get, _list, _configure, _trip, _reset, _remove: circuit breakers. */
#include "api/encode.h"
#include "api/session.h"
#include "base/log.h"
#include "proto/mp.h"

/* The request keeps the name: an answer repeats it. */
static struct request *
request_named(struct session *s, const struct rpc *rpc, enum method method,
	      const struct params *p)
{
	return request_new(s, rpc, method, p->name);
}

static struct str
name_of(const struct request *r)
{
	return (struct str){ r->text, r->text_len };
}

static void
refuse_unknown(struct request *r)
{
	char shown[4 * 128 + 3];
	struct errmsg why;

	errmsg_set(&why, ERR_NOT_FOUND, "there is no breaker %s",
		   log_quote(shown, sizeof(shown), name_of(r)));
	request_refuse(r, &why);
}

static void
info_done(void *arg, enum err err, const struct breaker_info *info)
{
	struct request *r = arg;
	struct buf *b = err ? NULL : request_reply(r);

	if (b)
		encode_breaker(b, name_of(r), info);
	if (err == ERR_NOT_FOUND)
		refuse_unknown(r);
	else if (err)
		request_fail(r, err);
	else
		request_done(r);
}

/* acquire, report ------------------------------------------------------------------------------------ */

static void
acquire_done(void *arg, enum err err, const struct breaker_answer *answer)
{
	struct request *r = arg;
	struct buf *b = err ? NULL : request_reply(r);

	if (b) {
		mp_put_map(b, 4);
		mp_put_lit(b, "permitted");
		mp_put_bool(b, answer->permit.n > 0);
		mp_put_lit(b, "state");
		mp_put_str(b, breaker_state_names[answer->state]);
		mp_put_lit(b, "permit");
		if (answer->permit.n)
			mp_put_str(b, answer->permit);
		else
			mp_put_nil(b);
		mp_put_lit(b, "retry_after");
		if (answer->retry_us)
			mp_put_double(b, (double)answer->retry_us / 1e6);
		else
			mp_put_nil(b);
	}
	request_end_with(r, err);
}

enum err
api_breaker_acquire(struct session *s, const struct rpc *rpc, struct params *p,
		    struct errmsg *why)
{
	static const struct breaker_config none;

	(void)why;
	breaker_acquire(s->api->breakers, str_of(s->namespace), p->name,
			p->have & F(config) ? &p->config : &none, acquire_done,
			request_named(s, rpc, METHOD_breaker_acquire, p));
	return OK;
}

enum err
api_breaker_report(struct session *s, const struct rpc *rpc, struct params *p,
		   struct errmsg *why)
{
	(void)why;
	breaker_report(s->api->breakers, str_of(s->namespace), p->name, p->permit, p->outcome,
		       p->have & F(error) ? p->error : STR(""), info_done,
		       request_named(s, rpc, METHOD_breaker_report, p));
	return OK;
}

/* get, list ------------------------------------------------------------------------------------------- */

static void
get_done(void *arg, enum err err, const struct breaker_info *info)
{
	struct request *r = arg;
	struct buf *b;

	if (err != ERR_NOT_FOUND) {
		info_done(arg, err, info);
		return;
	}
	b = request_reply(r);
	if (b)
		mp_put_nil(b);
	request_done(r);
}

enum err
api_breaker_get(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	(void)why;
	breaker_get(s->api->breakers, str_of(s->namespace), p->name, get_done,
		    request_named(s, rpc, METHOD_breaker_get, p));
	return OK;
}

static void
list_done(void *arg, enum err err, const struct breaker_row *rows, unsigned n)
{
	struct request *r = arg;
	struct buf all = { 0 };
	struct buf *b;
	unsigned fit = 0;

	if (err) {
		request_fail(r, err);
		return;
	}
	while (fit < n) {
		size_t before = all.len;

		encode_breaker(&all, rows[fit].name, &rows[fit].info);
		/* The answer ends at max_frame: the envelope takes the rest. */
		if (fit && all.len + 64 > r->session->api->config.max_frame) {
			all.len = before;
			break;
		}
		fit++;
	}
	b = request_reply(r);
	if (b) {
		mp_put_array(b, fit);
		mp_put_raw(b, buf_str(&all));
	}
	buf_done(&all);
	request_done(r);
}

enum err
api_breaker_list(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	(void)why;
	breakers_list(s->api->breakers, str_of(s->namespace),
		      p->have & F(after) ? p->after : STR(""),
		      p->have & F(limit) ? (unsigned)p->limit : 1000, list_done,
		      request_new(s, rpc, METHOD_breaker_list, STR("")));
	return OK;
}

/* configure, trip, reset, remove --------------------------------------------------------------------- */

enum err
api_breaker_configure(struct session *s, const struct rpc *rpc, struct params *p,
		      struct errmsg *why)
{
	(void)why;
	breaker_configure(s->api->breakers, str_of(s->namespace), p->name, &p->config,
			  info_done, request_named(s, rpc, METHOD_breaker_configure, p));
	return OK;
}

enum err
api_breaker_trip(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	(void)why;
	breaker_trip(s->api->breakers, str_of(s->namespace), p->name,
		     p->have & F(for_time) ? p->for_time : 0, info_done,
		     request_named(s, rpc, METHOD_breaker_trip, p));
	return OK;
}

enum err
api_breaker_reset(struct session *s, const struct rpc *rpc, struct params *p,
		  struct errmsg *why)
{
	(void)why;
	breaker_reset(s->api->breakers, str_of(s->namespace), p->name, info_done,
		      request_named(s, rpc, METHOD_breaker_reset, p));
	return OK;
}

static void
remove_done(void *arg, enum err err, const struct breaker_info *info)
{
	struct request *r = arg;
	struct buf *b = err && err != ERR_NOT_FOUND ? NULL : request_reply(r);

	(void)info;
	if (b)
		mp_put_bool(b, !err);
	if (err && err != ERR_NOT_FOUND)
		request_fail(r, err);
	else
		request_done(r);
}

enum err
api_breaker_remove(struct session *s, const struct rpc *rpc, struct params *p,
		   struct errmsg *why)
{
	(void)why;
	breaker_remove(s->api->breakers, str_of(s->namespace), p->name, remove_done,
		       request_named(s, rpc, METHOD_breaker_remove, p));
	return OK;
}
