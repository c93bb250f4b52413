/* adopt: what is no message. Subscriptions are made anew, open breakers can be tripped; agents register themselves. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ctl/adopt.h"

/* --- subscriptions --------------------------------------------------------------- */

static bool
subscribe(struct adopt *a, json_t *row)
{
	json_t *types = json_object_get(row, "message_types"), *result;
	struct str name = json_str_at(row, "name");
	struct coord_params *p;
	struct agent_id agent;
	struct name to;

	if (!adopt_agent(a, name, &agent)) {
		adopt_problem(a, PROBLEM_KEY, name, STR(""),
			      "subscribes to something, but has more than one colon: whose it "
			      "is cannot be told");
		return true;
	}
	if (a->is_dry || !json_array_size(types))
		return true;
	if (agent.type.n >= sizeof(to.type) || agent.instance.n >= sizeof(to.instance)) {
		adopt_problem(a, PROBLEM_DAMAGED, name, STR(""),
			      "type or instance has more than 128 bytes");
		return true;
	}
	snprintf(to.type, sizeof(to.type), "%.*s", (int)agent.type.n, agent.type.p);
	snprintf(to.instance, sizeof(to.instance), "%.*s", (int)agent.instance.n,
		 agent.instance.p);
	p = ctl_params(&to);
	json_pack_into(coord_param(p, "message_types"), types);
	result = ctl_call(a->ctl, "subscribe", p, 0);
	if (!result)
		a->status = a->ctl->status;
	else
		json_object_set_new(row, "copied", json_true());
	json_decref(result);
	return result != NULL;
}

bool
adopt_subscribe(struct adopt *a)
{
	json_t *row;
	size_t i;

	json_array_foreach(a->subs, i, row)
	{
		if (!adopt_keep_lock(a) || !subscribe(a, row))
			return false;
	}
	return true;
}

/* --- breakers -------------------------------------------------------------------- */

/* Seconds since 1970: a number, or ISO 8601 text; NAN: neither. */
static double
seconds_of(const json_t *at)
{
	struct str s = json_str_at(at, "");
	struct tm tm = { 0 };
	char *rest;

	if (json_is_number(at))
		return json_number_value(at);
	rest = s.n ? strptime(s.p, "%Y-%m-%dT%H:%M:%S", &tm) : NULL;
	return rest ? (double)timegm(&tm) + (*rest == '.' ? strtod(rest, NULL) : 0) : NAN;
}

/* Trip it for what is left of its timeout, which is the one that the new breaker has. */
static bool
trip(struct adopt *a, json_t *row)
{
	const char *name = json_str_at(row, "name").p;
	double since = seconds_of(json_object_get(row, "since")), left;
	struct coord_params *p = ctl_params(NULL);
	json_t *made, *result;
	struct timespec now;

	coord_param_str(p, "name", name);
	msgpack_pack_map(coord_param(p, "config"), 0);
	made = ctl_call(a->ctl, "breaker_configure", p, 0);
	if (!made) {
		a->status = a->ctl->status;
		return false;
	}
	clock_gettime(CLOCK_REALTIME, &now);
	left = since + json_number_at(made, "config.timeout_seconds") - (double)now.tv_sec;
	json_decref(made);
	if (isnan(left) || left < 1)
		return true;
	p = ctl_params(NULL);
	coord_param_str(p, "name", name);
	coord_param_double(p, "for", left);
	result = ctl_call(a->ctl, "breaker_trip", p, 0);
	if (!result)
		a->status = a->ctl->status;
	else
		json_object_set_new(row, "tripped_for", json_real(left));
	json_decref(result);
	return result != NULL;
}

bool
adopt_breakers(struct adopt *a)
{
	json_t *row;
	size_t i;

	json_array_foreach(a->breakers, i, row)
	{
		if (!str_eq(json_str_at(row, "state"), STR("open")))
			continue;
		if (!adopt_keep_lock(a) || !trip(a, row))
			return false;
	}
	return true;
}
