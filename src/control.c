/* control: what operators ask of the server over the protocol (api/api.h, struct control_ops). */
#include "own.h"

static bool
on_drain(void *arg, bool drain, const char *by)
{
	return server_drain(arg, drain, by);
}

static void
on_level(void *arg, struct level_info *out)
{
	const struct server *srv = arg;

	*out = (struct level_info){ .level = srv->loglevel.level,
				    .configured = srv->loglevel.configured,
				    .for_us = loglevel_left_us(&srv->loglevel) };
}

static void
on_set_level(void *arg, enum log_level level, uint64_t for_us, const char *by)
{
	struct server *srv = arg;

	loglevel_set(&srv->loglevel, level, for_us, by);
}

static enum err
on_reload(void *arg, bool dry_run, const char *by, struct config_errors *why,
	  config_change_cb *cb, void *cb_arg)
{
	return dry_run ? server_reload_diff(arg, why, cb, cb_arg)
		       : server_reload(arg, by, why, cb, cb_arg);
}

static void
on_config(void *arg, struct config_state *out)
{
	const struct server *srv = arg;

	*out = (struct config_state){ .in_force = srv->cfg,
				      .since_us = srv->reloads.ok_us,
				      .problem = srv->reloads.problem };
}

const struct control_ops server_control_ops = {
	.drain = on_drain,
	.level = on_level,
	.set_level = on_set_level,
	.reload = on_reload,
	.config = on_config,
};
