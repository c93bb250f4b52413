/*
 * janitor: who sweeps, and when.
 *
 *	janitor_ask()		may this broker sweep, and what is due?            <-.
 *	janitor_on_lead()	sweep each of these queues, and the agents          |
 *	janitor_plan()		sleep until something is due, or the lease ends   --'
 *
 * The script `lead` notices when nobody has swept for a second: then all brokers, or Redis, were
 * away, and what was reserved before is left alone for the grace. So nothing is swept without
 * having asked to lead, and a leader asks at least every LEASE / 2.
 */
#include "janitor.h"

#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "queue/pack.h"

enum {
	LEASE_US = 500000,
	SLEEP_MIN_US = 2000,   /* so that a busy queue does not make us spin */
	SLEEP_MAX_US = 250000, /* a leader's */
	SLEEP_OTHERS_US =
		30000, /* a leader's while other brokers are there: what is due at their queues it is not told */
	RETRY_US = 500000,
	SECOND_US = 1000000,
	STEP = 64, /* queues asked for at once */
};

struct janitor {
	struct loop *loop;
	struct store *store;
	struct queues *queues;
	struct api *api;
	struct registry *registry;
	struct breakers *breakers;
	char *sweep_key, *due_key, *settings_key, *beats_key, *bell;
	uint64_t grace_us;
	struct timer ask, second;
	uint64_t second_us; /* when that last ran */
	uint32_t epoch;     /* once `has_epoch` */
	bool has_epoch;
	bool is_asking, is_leading, has_others, is_over;
	unsigned pending;  /* sweeps under way, each of a queue, or of the agents */
	uint64_t asked_us; /* when `lead` was asked last, our clock */
	uint64_t next_us;  /* the earliest that is known to be due, Redis's clock; 0 nothing */
};

static void janitor_ask(void *arg);

static void
note_due(struct janitor *j, uint64_t due_us)
{
	if (due_us && (!j->next_us || due_us < j->next_us))
		j->next_us = due_us;
}

static uint64_t
until(struct janitor *j, uint64_t due_us)
{
	uint64_t now = store_now_us(j->store);

	return due_us > now + SLEEP_MIN_US ? due_us - now : SLEEP_MIN_US;
}

static void
janitor_plan(struct janitor *j, uint64_t at_most_us)
{
	uint64_t in_us = at_most_us;

	if (j->is_over)
		return;
	if (j->is_leading && j->next_us && until(j, j->next_us) < in_us)
		in_us = until(j, j->next_us);
	timer_set(&j->ask, in_us);
}

static void
janitor_settle(struct janitor *j)
{
	if (j->pending)
		return;
	j->is_asking = false;
	janitor_plan(j, j->has_others ? SLEEP_OTHERS_US : SLEEP_MAX_US);
}

static void
janitor_on_swept(void *arg, enum err err, uint64_t again_us, bool lead)
{
	struct janitor *j = arg;

	j->pending--;
	if (!err)
		note_due(j, lead ? store_now_us(j->store) : again_us);
	janitor_settle(j);
}

/* It rises when an outage was found; each broker that was there before tells it. */
static void
note_epoch(struct janitor *j, uint32_t epoch)
{
	if (j->has_epoch && epoch != j->epoch)
		log_event(LOG_SWEEP_OUTAGE, log_ms("grace_ms", j->grace_us),
			  log_uint("epoch", epoch));
	j->has_epoch = true;
	j->epoch = epoch;
}

static void
janitor_on_lead(void *arg, enum err err, const struct reply *reply)
{
	struct janitor *j = arg;
	struct str head = reply_str(reply_at(reply, 0));

	if (err || head.n != 23) {
		j->is_asking = j->is_leading = false;
		janitor_plan(j, RETRY_US);
		return;
	}
	store_saw_time(j->store, unpack_uint(head.p, 7));
	note_epoch(j, (uint32_t)unpack_uint(head.p + 15, 4));
	queues_set_epoch(j->queues, j->epoch, j->asked_us, unpack_uint(head.p + 19, 4) > 0);
	j->is_leading = head.p[7] & 1;
	j->has_others = head.p[7] & 2;
	if (!j->is_leading) {
		j->is_asking = false;
		j->next_us = 0;
		janitor_plan(j, until(j, unpack_uint(head.p + 8, 7)));
		return;
	}
	note_due(j, unpack_uint(head.p + 8, 7));
	breakers_sweep(j->breakers);
	j->pending++;
	if (head.p[7] & 4) {
		j->pending++;
		registry_sweep(j->registry, janitor_on_swept, j);
	}
	for (uint32_t i = 1; i < reply->count; i++) {
		j->pending++;
		if (!queues_sweep_name(j->queues, reply_str(reply_at(reply, i)),
				       janitor_on_swept, j))
			j->pending--;
	}
	j->pending--;
	janitor_settle(j);
}

static void
janitor_call(struct janitor *j, uint64_t lease_us, store_cb *cb)
{
	struct args args = { 0 };

	args_str(&args, str_of(j->sweep_key));
	args_str(&args, str_of(j->due_key));
	args_str(&args, str_of(j->settings_key));
	args_str(&args, str_of(j->beats_key));
	args_str(&args, str_of(api_instance_id(j->api)));
	args_uint(&args, lease_us);
	args_uint(&args, j->grace_us);
	args_uint(&args, STEP);
	args_str(&args, str_of(j->bell));
	store_run(j->store, SCRIPT_LEAD, 4, &args, cb, j);
	args_done(&args);
}

static void
janitor_ask(void *arg)
{
	struct janitor *j = arg;

	if (j->is_asking || j->is_over)
		return;
	j->is_asking = true;
	j->asked_us = loop_now_us(j->loop);
	j->next_us = 0; /* what comes up from now on is noted anew */
	janitor_call(j, LEASE_US, janitor_on_lead);
}

static void
janitor_on_resigned(void *arg, enum err err, const struct reply *reply)
{
	(void)arg; /* if it failed, the lease just ends */
	(void)err;
	(void)reply;
}

void
janitor_resign(struct janitor *j)
{
	j->is_over = true;
	timer_clear(&j->ask);
	janitor_call(j, 0, janitor_on_resigned);
}

void
janitor_look(struct janitor *j)
{
	if (!j->is_asking)
		janitor_plan(j, 0);
}

static void
janitor_on_second(void *arg)
{
	struct janitor *j = arg;

	j->second_us = loop_now_us(j->loop);
	queues_look_all(j->queues);
	api_on_second(j->api);
	log_on_second();
	timer_set(&j->second, SECOND_US);
}

static char *
key(const char *prefix, const char *name)
{
	struct buf b = { 0 };

	buf_printf(&b, "%s:%s", prefix, name);
	buf_putc(&b, 0);
	return b.data;
}

struct janitor *
janitor_new(struct loop *loop, struct store *store, struct queues *queues, struct api *api,
	    const char *key_prefix, uint64_t grace_us)
{
	struct janitor *j = xcalloc(1, sizeof(*j));

	j->loop = loop;
	j->store = store;
	j->queues = queues;
	j->api = api;
	j->grace_us = grace_us;
	j->sweep_key = key(key_prefix, "sweep");
	j->due_key = key(key_prefix, "due");
	j->settings_key = key(key_prefix, "settings");
	j->beats_key = key(key_prefix, "beats");
	j->bell = key(key_prefix, "bell");
	timer_init(&j->ask, loop, janitor_ask, j);
	timer_init(&j->second, loop, janitor_on_second, j);
	j->second_us = loop_now_us(loop);
	timer_set(&j->second, SECOND_US);
	return j;
}

/* The store was freed before: no call is under way. */
void
janitor_free(struct janitor *j)
{
	if (!j)
		return;
	timer_done(&j->ask);
	timer_done(&j->second);
	free(j->sweep_key);
	free(j->due_key);
	free(j->settings_key);
	free(j->beats_key);
	free(j->bell);
	free(j);
}

void
janitor_set_registry(struct janitor *j, struct registry *registry)
{
	j->registry = registry;
}

void
janitor_set_breakers(struct janitor *j, struct breakers *breakers)
{
	j->breakers = breakers;
}

void
janitor_set_grace(struct janitor *j, uint64_t grace_us)
{
	j->grace_us = grace_us;
}

void
janitor_on_ready(struct janitor *j)
{
	janitor_ask(j);
	queues_look_all(j->queues);
}

void
janitor_wake(struct janitor *j, uint64_t due_us)
{
	note_due(j, due_us);
	if (!j->is_asking && j->is_leading)
		timer_at_most(&j->ask, until(j, due_us));
}

/* It asks, or will; before Redis was ever reached it does not. */
bool
janitor_is_alive(const struct janitor *j)
{
	bool will_ask = j->is_asking || j->ask.at_us || !j->asked_us || j->is_over;

	return will_ask && loop_now_us(j->loop) - j->second_us < 5 * SECOND_US;
}
