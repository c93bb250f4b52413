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

const struct control_ops server_control_ops = { on_drain, on_level, on_set_level };
