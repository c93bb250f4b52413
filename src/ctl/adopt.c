/*
 * coordctl adopt: move over from the Python package that kept its queues in Redis itself. docs/MIGRATION.md is its manual.
 *
 *	adopt_open(), adopt_find()	what is there: queues, subscriptions, breakers, agents
 *	adopt_ask_broker()		can it be done exactly once?
 *	adopt_lock()			one at a time
 *	adopt_copy()			each queue, message by message: adopt_copy.c
 *	adopt_delete()			and then, when asked, what was copied goes
 *	adopt_report()
 */
#include "ctl/adopt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The broker's part of a trial: nothing depends on it. */
static void
look_at_broker(struct adopt *a)
{
	int status;

	a->ctl->is_silent = true;
	status = adopt_ask_broker(a);
	a->ctl->is_silent = false;
	if (status && status != EX_CONFIG)
		ctl_fail(EX_OK, "the broker was not asked: %s", a->ctl->why.message);
}

static bool
copy(struct adopt *a)
{
	bool is_good = true;

	for (size_t i = 0; i < a->n_queues && is_good; i++)
		is_good = adopt_copy(a, a->queues[i]);
	is_good = is_good && adopt_subscribe(a);
	return is_good && (a->is_dry || !GIVEN(a->ctl, breakers) || adopt_breakers(a));
}

static void
remove_copied(struct adopt *a)
{
	uint64_t messages = 0;
	bool is_good = true;

	if (a->outcome) {
		ctl_fail(EX_OK, "nothing was removed from the old Redis: not all was copied");
		return;
	}
	for (size_t i = 0; i < a->n_queues; i++)
		messages += a->queues[i]->copied + a->queues[i]->before;
	a->status = ctl_confirm(a->ctl,
				"remove the %.0f messages that were copied from the old Redis",
				(double)messages);
	for (size_t i = 0; i < a->n_queues && is_good && !a->status; i++)
		is_good = adopt_delete(a, a->queues[i]);
	if (is_good && !a->status)
		adopt_delete_subs(a);
}

static void
done(struct adopt *a)
{
	for (size_t i = 0; i < a->n_queues; i++) {
		free(a->queues[i]->rest);
		mark_set_done(&a->queues[i]->seen);
		free(a->queues[i]);
	}
	free(a->queues);
	for (int kind = 0; kind < PROBLEMS; kind++)
		json_decref(a->problems[kind]);
	json_decref(a->agents);
	json_decref(a->subs);
	json_decref(a->breakers);
	json_decref(a->looked);
	mark_set_done(&a->found);
	buf_done(&a->lock);
	redis_close(a->redis);
}

/* All that comes before the first message is copied. */
static bool
prepare(struct adopt *a)
{
	struct ctl *ctl = a->ctl;

	a->prefix = str_of(GIVEN(ctl, prefix) ? TEXT(ctl, prefix) : "ao");
	while (a->prefix.n && a->prefix.p[a->prefix.n - 1] == ':')
		a->prefix.n--; /* as the package did */
	snprintf(a->namespace, sizeof(a->namespace), "%.*s", (int)a->prefix.n, a->prefix.p);
	if (GIVEN(ctl, namespace))
		snprintf(a->namespace, sizeof(a->namespace), "%s", TEXT(ctl, namespace));
	if (!GIVEN(ctl, redis))
		a->status = ctl_fail(
			EX_USAGE,
			"adopt needs --redis URL: where the Python package kept its queues");
	else if (GIVEN(ctl, uncertain) && strcmp(TEXT(ctl, uncertain), "send") != 0 &&
		 strcmp(TEXT(ctl, uncertain), "skip") != 0)
		a->status = ctl_fail(EX_USAGE, "--uncertain is send or skip");
	else if (!a->prefix.n || a->prefix.n > 512)
		a->status = ctl_fail(EX_USAGE, "--prefix is 1 to 512 bytes");
	if (!a->status)
		a->status = adopt_open(a);
	if (a->status)
		return false;
	ctl->opt[OPT_namespace].text = a->namespace;
	if (a->is_dry)
		look_at_broker(a);
	else if (!(a->status = adopt_ask_broker(a)))
		a->status = adopt_lock(a);
	return !a->status && adopt_find(a);
}

int
ctl_adopt(struct ctl *ctl, char **args, int n)
{
	struct adopt a = {
		.ctl = ctl,
		.is_dry = GIVEN(ctl, dry_run),
		.agents = json_object(),
		.subs = json_array(),
		.breakers = json_array(),
		.looked = json_object(),
		.max_frame = 1 << 20, /* the default, where the broker is not asked */
		.began_s = adopt_now_s(),
	};

	a.shown_s = a.began_s;
	for (int kind = 0; kind < PROBLEMS; kind++)
		a.problems[kind] = json_array();

	(void)args;
	(void)n;
	if (prepare(&a)) {
		bool is_good = copy(&a);

		if (is_good && GIVEN(ctl, delete) && !a.is_dry)
			remove_copied(&a);
		adopt_progress(&a, true);
		if (!a.is_dry)
			adopt_unlock(&a);
		adopt_report(&a);
	}
	done(&a);
	return a.status ? a.status : a.outcome;
}
