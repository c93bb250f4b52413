/* drain, undrain, log_level, config_get, config_reload: the broker as a whole. */
#include "api/encode.h"
#include "api/session.h"
#include "proto/mp.h"

/* Drain -------------------------------------------------------------------------------------------- */

/* What is left to wait for. */
static void
put_drain(struct buf *b, const struct api *api)
{
	mp_put_map(b, 4);
	mp_put_lit(b, "draining");
	mp_put_bool(b, api->is_draining);
	mp_put_lit(b, "connections");
	mp_put_uint(b, conns_count(api->conns));
	mp_put_lit(b, "in_flight");
	mp_put_uint(b, api->in_flight);
	mp_put_lit(b, "unsettled");
	mp_put_uint(b, api_unsettled(api));
}

static enum err
drain(struct session *s, const struct rpc *rpc, bool drain)
{
	const struct api *api = s->api;

	if (!api->control->drain(api->control_arg, drain, conn_peer(s->conn)))
		audit_nothing(s);
	put_drain(session_reply(s, rpc), api);
	return OK;
}

enum err
api_drain(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	(void)p;
	(void)why;
	return drain(s, rpc, true);
}

enum err
api_undrain(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	(void)p;
	(void)why;
	return drain(s, rpc, false);
}

/* The log's level ---------------------------------------------------------------------------------- */

enum err
api_log_level(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	const struct api *api = s->api;
	struct level_info info;
	struct buf *b;

	if (p->have & F(for_time) && !(p->have & F(level)))
		return errmsg_set(why, ERR_BAD_REQUEST, "for needs a level");
	if (p->have & F(level))
		api->control->set_level(api->control_arg, p->level,
					p->have & F(for_time) ? p->for_time : 0,
					conn_peer(s->conn));
	else
		audit_nothing(s);
	api->control->level(api->control_arg, &info);
	b = session_reply(s, rpc);
	mp_put_map(b, 3);
	mp_put_lit(b, "level");
	mp_put_str(b, str_of(log_level_names[info.level]));
	mp_put_lit(b, "configured");
	mp_put_str(b, str_of(log_level_names[info.configured]));
	mp_put_lit(b, "for");
	if (info.for_us)
		mp_put_double(b, (double)info.for_us / 1e6);
	else
		mp_put_nil(b);
	return OK;
}

/* The configuration -------------------------------------------------------------------------------- */

/* Maps that are counted while they are written. */
struct maps {
	struct buf buf;
	unsigned n;
};

static void
put_maps(struct buf *b, const char *key, struct maps *maps)
{
	mp_put_str(b, str_of(key));
	mp_put_array(b, maps->n);
	mp_put_raw(b, buf_str(&maps->buf));
	buf_done(&maps->buf);
}

static void
put_value(void *arg, const struct config_value *value)
{
	struct maps *maps = arg;
	struct buf *b = &maps->buf;

	maps->n++;
	mp_put_map(b, 4);
	mp_put_lit(b, "key");
	mp_put_str(b, str_of(value->path));
	mp_put_lit(b, "value");
	mp_put_str(b, str_of(value->text));
	mp_put_lit(b, "origin");
	mp_put_str(b, str_of(value->origin));
	mp_put_lit(b, "reloadable");
	mp_put_bool(b, value->is_reloadable);
}

enum err
api_config_get(struct session *s, const struct rpc *rpc, struct params *p, struct errmsg *why)
{
	const struct api *api = s->api;
	struct config_state state;
	struct maps values = { 0 };
	struct buf *b;

	(void)p;
	(void)why;
	api->control->config(api->control_arg, &state);
	config_each(state.in_force, put_value, &values);
	b = session_reply(s, rpc);
	mp_put_map(b, 3);
	mp_put_lit(b, "since");
	encode_time(b, state.since_us);
	mp_put_lit(b, "problem");
	if (state.problem)
		mp_put_str(b, str_of(state.problem));
	else
		mp_put_nil(b);
	put_maps(b, "values", &values);
	return OK;
}

/* Values that differ: those that are, or can be, in force, and those that need a restart. */
struct differences {
	struct maps changed, restart;
};

static void
put_difference(void *arg, const struct config_value *from, const struct config_value *to)
{
	struct differences *d = arg;
	struct maps *maps = to->is_reloadable ? &d->changed : &d->restart;
	struct buf *b = &maps->buf;

	maps->n++;
	mp_put_map(b, 4);
	mp_put_lit(b, "key");
	mp_put_str(b, str_of(to->path));
	mp_put_lit(b, "from");
	mp_put_str(b, str_of(from->text));
	mp_put_lit(b, "to");
	mp_put_str(b, str_of(to->text));
	mp_put_lit(b, "origin");
	mp_put_str(b, str_of(to->origin));
}

/* The first error; whoever wants all of them has the file checked. */
static enum err
refuse_reload(const struct config_errors *errors, struct errmsg *why)
{
	const char *first = errors->list[0].text;

	if (errors->n == 1)
		return errmsg_set(why, ERR_BAD_REQUEST, "%s", first);
	return errmsg_set(why, ERR_BAD_REQUEST, "%.270s (and %u more)", first, errors->n - 1);
}

enum err
api_config_reload(struct session *s, const struct rpc *rpc, struct params *p,
		  struct errmsg *why)
{
	const struct api *api = s->api;
	bool dry_run = p->have & F(dry_run) && p->dry_run;
	struct differences d = { 0 };
	struct config_errors errors = { 0 };
	enum err err = api->control->reload(api->control_arg, dry_run, conn_peer(s->conn),
					    &errors, put_difference, &d);

	if (dry_run || !d.changed.n)
		audit_nothing(s);
	if (err) {
		err = refuse_reload(&errors, why);
	} else {
		struct buf *b = session_reply(s, rpc);

		mp_put_map(b, 3);
		put_maps(b, "changed", &d.changed);
		put_maps(b, "restart", &d.restart);
		mp_put_lit(b, "warnings");
		mp_put_array(b, errors.n_warnings);
		for (unsigned i = 0; i < errors.n_warnings; i++)
			mp_put_str(b, str_of(errors.warnings[i]));
	}
	config_errors_done(&errors);
	return err;
}
