/*
 * queue: what this broker knows of each queue that it was asked about lately.
 *
 *	queues_get()		find or make it; it becomes dirty
 *	queues_on_turn_end()	what a turn asked leaves for Redis; a queue with nothing left is idle
 *	queue_trim()		the longest idle ones are forgotten, so memory does not grow with names
 */
#include <stdlib.h>

#include "base/mem.h"
#include "queue/pack.h"
#include "queue/tick.h"
#include "store/keys.h"

enum { MAX_IDLE = 1024, SETTINGS_US = 2000000 /* by then `lead` knows of a setting */ };

static void
policy_set(struct policy *policy, const char *match, const struct queue_policy *p)
{
	char *to = policy->packed;

	policy->values = *p;
	policy->match = match ? xstrdup(match) : NULL;
	to = pack_uint(to, 5, p->queue_size);
	to = pack_uint(to, 7, p->dedup_window_us);
	to = pack_uint(to, 7, p->forget_after_us);
	to = pack_uint(to, 2, p->retry_attempts);
	to = pack_uint(to, 7, p->backoff_base_us);
	to = pack_double(to, p->backoff_factor);
	to = pack_uint(to, 7, p->backoff_max_us);
	to = pack_double(to, p->backoff_jitter);
	pack_uint(to, 5, p->dead_letter_max);
}

static void
on_yielded(void *arg)
{
	struct queues *queues = arg;
	struct queue *q;

	TAILQ_FOREACH (q, &queues->with_parked, parked_link) {
		q->yields_until_us = 0; /* this timer and the loop's clock may differ */
	}
	queues_look_all(queues);
}

struct queues *
queues_new(struct loop *loop, struct store *store, const char *key_prefix, const char *broker,
	   const struct queue_policy *policy, size_t max_frame, const struct queues_ops *ops,
	   void *arg)
{
	struct queues *queues = xcalloc(1, sizeof(*queues));

	queues->loop = loop;
	queues->store = store;
	queues->prefix = xstrdup(key_prefix);
	memcpy(queues->broker, broker, QUEUES_BROKER_LEN);
	queues->has_settings = true; /* until we are told */
	queues->ops = ops;
	queues->arg = arg;
	TAILQ_INIT(&queues->dirty);
	TAILQ_INIT(&queues->idle);
	TAILQ_INIT(&queues->with_parked);
	timer_init(&queues->yielded, loop, on_yielded, queues);
	queues_set_policy(queues, policy, NULL, 0, max_frame);
	loop_at_turn_end(loop, TURN_QUEUES, queues_on_turn_end, queues);
	return queues;
}

static void
policies_free(struct policy *policies)
{
	for (struct policy *p = policies; p && p->match; p++)
		free(p->match);
	free(policies);
}

const struct policy *
policy_of(const struct queues *queues, struct str name)
{
	const char *colon = memchr(name.p, ':', name.n);
	const char *agent_at = colon ? colon + 1 : name.p;
	struct str agent = { agent_at, (size_t)(name.p + name.n - agent_at) };
	const struct policy *p = queues->policies;

	while (p->match && !str_glob(str_of(p->match), agent))
		p++;
	return p;
}

void
queues_set_policy(struct queues *queues, const struct queue_policy *policy,
		  const struct queue_override *overrides, unsigned n_overrides,
		  size_t max_frame)
{
	struct policy *old = queues->policies;
	struct queue *q, *next;

	queues_flush_all(queues); /* what waits was made for the old ones */
	queues->policies = xcalloc(n_overrides + 1, sizeof(*queues->policies));
	for (unsigned i = 0; i < n_overrides; i++)
		policy_set(&queues->policies[i], overrides[i].match, &overrides[i].policy);
	policy_set(&queues->policies[n_overrides], NULL, policy);
	queues->noverrides = n_overrides;
	queues->max_frame = max_frame;
	HASH_ITER (hh, queues->by_name, q, next) {
		q->policy = policy_of(queues, queue_name(q));
		consumers_look(q); /* they may hold more now, or less */
	}
	policies_free(old);
}

void
queues_count_anew(struct queues *queues)
{
	struct queue *q, *next;

	HASH_ITER (hh, queues->by_name, q, next)
		q->counts = (struct queue_counts *)stat_keep_anew(STAT_QUEUE, &q->counts->slot,
								  queue_name(q));
}

void
queues_set_epoch(struct queues *queues, uint32_t epoch, uint64_t asked_us, bool has_settings)
{
	queues->epoch = epoch;
	queues->epoch_at_us = asked_us;
	queues->has_settings =
		has_settings || loop_now_us(queues->loop) < queues->settings_until_us;
}

void
queues_note_settings(struct queues *queues)
{
	queues->has_settings = true;
	queues->settings_until_us = loop_now_us(queues->loop) + SETTINGS_US;
}

void
args_policy(struct args *args, const struct queue *q)
{
	args_str(args, (struct str){ q->policy->packed, sizeof(q->policy->packed) });
}

/* Where a queue of that agent stands among the recent ones, whatever its namespace. */
static struct queue **
recent_of(struct queues *queues, struct agent_id agent)
{
	uint64_t mixed = str_last_word(agent.type) * 31 + str_last_word(agent.instance);

	return &queues->recent[mixed * 0x9e3779b97f4a7c15ull >> 58];
}

static void
queue_free(struct queue *q)
{
	struct queues *queues = q->queues;
	struct queue **recent;

	if (q->is_dirty)
		TAILQ_REMOVE(&queues->dirty, q, dirty_link);
	if (q->is_idle) {
		TAILQ_REMOVE(&queues->idle, q, idle_link);
		queues->nidle--;
	}
	HASH_DEL(queues->by_name, q);
	recent = recent_of(queues, queue_agent(q));
	if (*recent == q)
		*recent = NULL;
	free(q->base);
	stat_drop(&q->counts->slot);
	free(q->parts);
	free(q);
}

/* The store was freed before and answered every call; receivers were ended or cancelled. */
void
queues_free(struct queues *queues)
{
	struct queue *q, *next;

	if (!queues)
		return;
	loop_at_turn_end(queues->loop, TURN_QUEUES, NULL, NULL);
	HASH_ITER (hh, queues->by_name, q, next)
		queue_give_up(q);
	HASH_ITER (hh, queues->by_name, q, next)
		queue_free(q);
	timer_done(&queues->yielded);
	policies_free(queues->policies);
	free(queues->prefix);
	free(queues);
}

static struct queue *
queue_new(struct queues *queues, struct str name, const struct str parts[3], size_t ns_len)
{
	struct queue *q = xcalloc(1, sizeof(*q));
	struct buf b = { 0 };

	buf_puts(&b, queues->prefix);
	buf_puts(&b, ":q:");
	q->name_off = b.len;
	buf_put(&b, name.p, name.n);
	q->base_len = b.len;
	q->base = b.data;
	q->ns_len = ns_len;
	b = (struct buf){ 0 };
	buf_put(&b, parts[1].p, parts[1].n);
	buf_put(&b, parts[2].p, parts[2].n);
	buf_put(&b, parts[0].p, parts[0].n);
	q->parts = b.data;
	q->plain_ns_len = parts[0].n;
	q->type_len = parts[1].n;
	q->instance_len = parts[2].n;
	q->queues = queues;
	q->counts = stat_keep_queue(name);
	q->policy = policy_of(queues, name);
	TAILQ_INIT(&q->ticks);
	TAILQ_INIT(&q->parked);
	TAILQ_INIT(&q->consumers);
	HASH_ADD_KEYPTR(hh, queues->by_name, q->base + q->name_off, name.n, q);
	return q;
}

static size_t
encoded_len(struct str part)
{
	size_t n = part.n;

	for (size_t i = 0; i < part.n; i++)
		if (part.p[i] == ':' || part.p[i] == '%')
			n += 2;
	return n;
}

static struct queue *
find_or_make(struct queues *queues, struct str name, const struct str parts[3])
{
	struct queue *q;

	HASH_FIND(hh, queues->by_name, name.p, name.n, q);
	if (!q)
		q = queue_new(queues, name, parts, encoded_len(parts[0]));
	queue_mark_dirty(q);
	return q;
}

static bool
is_queue_of(const struct queue *q, const struct str parts[3])
{
	const struct agent_id agent = queue_agent(q);

	return str_eq(agent.instance, parts[2]) && str_eq(agent.type, parts[1]) &&
	       str_eq((struct str){ q->parts + q->type_len + q->instance_len, q->plain_ns_len },
		      parts[0]);
}

struct queue *
queues_get(struct queues *queues, struct str ns, const struct agent_id *agent)
{
	struct queue **recent = recent_of(queues, *agent), *q = *recent;
	struct str parts[3] = { ns, agent->type, agent->instance };
	char name[KEY_NAME_MAX];

	if (q && is_queue_of(q, parts)) {
		queue_mark_dirty(q);
		return q;
	}
	q = find_or_make(queues,
			 (struct str){ name, key_name(name, ns, agent->type, agent->instance) },
			 parts);
	*recent = q;
	return q;
}

struct queue *
queues_get_name(struct queues *queues, struct str name)
{
	struct buf b = { 0 };
	struct str parts[3];
	struct queue *q = NULL;

	if (key_name_split(name, &b, parts))
		q = find_or_make(queues, name, parts);
	buf_done(&b);
	return q;
}

struct agent_id
queue_agent(const struct queue *q)
{
	return (struct agent_id){ { q->parts, q->type_len },
				  { q->parts + q->type_len, q->instance_len } };
}

struct str
queue_name(const struct queue *q)
{
	return (struct str){ q->base + q->name_off, q->base_len - q->name_off };
}

const struct queue_policy *
queue_policy(const struct queue *q)
{
	return &q->policy->values;
}

unsigned
queues_parked(const struct queues *queues)
{
	return queues->nparked;
}

void
queue_pin(struct queue *q)
{
	q->pins++;
}

void
queue_unpin(struct queue *q)
{
	q->pins--;
	queue_mark_dirty(q); /* it may be idle now */
}

void
queue_mark_dirty(struct queue *q)
{
	struct queues *queues = q->queues;

	if (q->is_dirty)
		return;
	if (q->is_idle) {
		TAILQ_REMOVE(&queues->idle, q, idle_link);
		queues->nidle--;
		q->is_idle = false;
	}
	q->is_dirty = true;
	TAILQ_INSERT_TAIL(&queues->dirty, q, dirty_link);
}

static bool
has_work(const struct queue *q)
{
	return q->pins || q->in_flight || q->nparked || !TAILQ_EMPTY(&q->ticks);
}

void
queue_settle_down(struct queue *q)
{
	struct queues *queues = q->queues;

	if (has_work(q))
		return;
	q->is_idle = true;
	TAILQ_INSERT_TAIL(&queues->idle, q, idle_link);
	if (++queues->nidle > MAX_IDLE)
		queue_free(TAILQ_FIRST(&queues->idle));
}

void
queues_look_all(struct queues *queues)
{
	struct queue *q;

	TAILQ_FOREACH (q, &queues->with_parked, parked_link) {
		q->look = true;
		queue_mark_dirty(q);
	}
}

unsigned
queues_consumers(const struct queues *queues, struct str name)
{
	struct queue *q;

	HASH_FIND(hh, queues->by_name, name.p, name.n, q);
	return q ? queue_consumers(q) : 0;
}

void
queues_look(struct queues *queues, struct str name)
{
	struct queue *q;

	HASH_FIND(hh, queues->by_name, name.p, name.n, q);
	if (!q)
		return;
	q->look = true;        /* also when who waits is only on his way to park */
	q->noted_until_us = 0; /* who rang has forgotten us */
	queue_mark_dirty(q);
}

void
queues_end_waits(struct queues *queues, enum err err)
{
	struct queue *q;

	queues->is_ending = true;
	queues->end_err = err;
	while ((q = TAILQ_FIRST(&queues->with_parked)))
		receive_on_items(TAILQ_FIRST(&q->parked), err, NULL, 0);
}

void
queue_count_buried(struct queue *q, struct str told, uint64_t buried[3])
{
	for (unsigned i = 0; told.n == 6 && i < 3; i++) {
		uint64_t n = unpack_uint(told.p + 2 * i, 2);

		buried[i] += n;
		q->counts->dead_lettered[i] += n;
	}
}

void
queue_script(struct queue *q, enum script script, struct str first, struct args *more,
	     store_cb *cb, void *arg)
{
	struct args args = { 0 };

	queue_flush(q);
	args_str(&args, (struct str){ q->base, q->base_len });
	args_str(&args, first);
	args_str(&args, str_of(q->queues->prefix));
	args_str(&args, (struct str){ q->base + q->name_off, q->ns_len });
	if (more)
		args_join(&args, more);
	store_run(q->queues->store, script, 1, &args, cb, arg);
	args_done(&args);
}
