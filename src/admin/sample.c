/*
 * sample: ask Redis for what it alone knows, and keep it for who reads.
 *
 *	sample_want()		somebody looks
 *	sample_begin()		it is time					<-.
 *	queues_step()		a hundred queues at a time			  |
 *	census_step()		then the agents, then the breakers		  |
 *	sample_finish()		take over all of it, or nothing; sleep		--'
 */
#include "admin/sample.h"

#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "base/mem.h"
#include "base/stats.h"

enum {
	EVERY_US = 5000000,
	WANTED_US = 300000000, /* by then who scrapes has scraped again */
	STALE_US = 60000000,
	MAX_QUEUES = 5000,
	MAX_AGENTS = 20000,
	MAX_BREAKERS = 5000,
	STEP = 500,
	VALUES = 8,
};

/* What was told of one name; what it is depends on the scope. */
struct row {
	enum stat_scope scope;
	size_t name_at, name_len; /* in `names` */
	uint64_t values[VALUES];
};

struct sample {
	struct loop *loop;
	struct store *store;
	struct queues *queues;
	char *agents_key, *breakers_key, *prefix;
	struct timer next;
	uint64_t wanted_until_us, taken_at_us; /* our clock */
	uint64_t number;                       /* of the last one that is whole */
	bool is_running;
	/* The one under way. */
	struct row *rows;
	unsigned n, room;
	unsigned looked_at; /* of the present kind, at most */
	uint64_t nqueues;
	struct buf names, after;
};

static struct row *
add_row(struct sample *s, enum stat_scope scope, struct str name)
{
	struct row *row;

	if (s->n == s->room) {
		s->room = s->room ? 2 * s->room : 64;
		s->rows = xrealloc(s->rows, s->room * sizeof(*s->rows));
	}
	row = &s->rows[s->n++];
	*row = (struct row){ scope, s->names.len, name.n, { 0 } };
	buf_put(&s->names, name.p, name.n);
	return row;
}

static void
go_on_after(struct sample *s, struct str name)
{
	buf_clear(&s->after);
	buf_put(&s->after, name.p, name.n);
}

/* Take it over ------------------------------------------------------------------------------------- */

/* The first time in this sample that something is told of it: what was told before is over. */
static bool
is_new(struct sample *s, struct stat_slot *slot)
{
	if (slot->seen == s->number)
		return false;
	slot->seen = s->number;
	return true;
}

static void
take_queue(struct sample *s, const struct row *row, struct str name)
{
	struct queue_counts *c = (struct queue_counts *)stat_find(STAT_QUEUE, name);
	bool is_first = is_new(s, &c->slot);

	if (is_first) {
		memset(c->messages, 0, sizeof(c->messages));
		c->capacity[0] = c->oldest_age[0] = c->paused[0] = c->consumers[0] = 0;
	}
	for (unsigned i = 0; i < 4; i++)
		c->messages[i] += row->values[i];
	c->capacity[0] += row->values[4];
	if (row->values[5] > c->oldest_age[0])
		c->oldest_age[0] = row->values[5];
	c->paused[0] += row->values[6];
	c->consumers[0] += row->values[7] + queues_consumers(s->queues, name);
}

static void
take_agents(struct sample *s, const struct row *row, struct str name)
{
	struct agent_counts *c = stat_find_agents(name);

	if (is_new(s, &c->slot))
		memset(c->agents, 0, sizeof(c->agents));
	c->agents[0] += row->values[0];
	c->agents[1] += row->values[1];
}

static void
take_breaker(struct sample *s, const struct row *row, struct str name)
{
	struct breaker_seen *c = (struct breaker_seen *)stat_find(STAT_BREAKER, name);

	if (is_new(s, &c->slot)) {
		memset(c->state, 0, sizeof(c->state));
		memset(c->calls, 0, sizeof(c->calls));
		c->transitions[0] = 0;
	}
	c->state[row->values[0] < 3 ? row->values[0] : 0]++;
	for (unsigned i = 0; i < 3; i++)
		c->calls[i] += row->values[1 + i];
	c->transitions[0] += row->values[4];
}

static void
take_over(struct sample *s)
{
	struct timeval now;

	s->number++;
	for (unsigned i = 0; i < s->n; i++) {
		const struct row *row = &s->rows[i];
		struct str name = { s->names.data + row->name_at, row->name_len };

		if (row->scope == STAT_QUEUE)
			take_queue(s, row, name);
		else if (row->scope == STAT_AGENT)
			take_agents(s, row, name);
		else
			take_breaker(s, row, name);
	}
	for (enum stat_scope scope = STAT_QUEUE; scope < STAT_SCOPES; scope++)
		stat_forget(scope, s->number);
	gettimeofday(&now, NULL);
	process_stats.queues[0] = s->nqueues;
	process_stats.sampled_at[0] = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_usec;
	s->taken_at_us = loop_now_us(s->loop);
}

static void
sample_finish(struct sample *s, enum err err)
{
	if (!err)
		take_over(s);
	free(s->rows);
	s->rows = NULL;
	s->n = s->room = 0;
	buf_done(&s->names);
	buf_done(&s->after);
	s->is_running = false;
	timer_set(&s->next, EVERY_US);
}

/* Ask ---------------------------------------------------------------------------------------------- */

static void census_step(struct sample *s, bool of_breakers);

static void
census_on_reply(struct sample *s, bool of_breakers, enum err err, const struct reply *reply)
{
	unsigned columns = of_breakers ? 6 : 3, most = of_breakers ? MAX_BREAKERS : MAX_AGENTS;

	if (err) {
		sample_finish(s, err);
		return;
	}
	for (uint32_t i = 1; i + columns <= reply->count; i += columns) {
		struct row *row = add_row(s, of_breakers ? STAT_BREAKER : STAT_AGENT,
					  reply_str(reply_at(reply, i)));

		for (unsigned j = 0; j + 1 < columns; j++)
			row->values[j] = (uint64_t)reply_int(reply_at(reply, i + 1 + j), 0);
	}
	go_on_after(s, reply_str(reply_at(reply, 0)));
	s->looked_at += STEP;
	if (s->after.len && s->looked_at < most) {
		census_step(s, of_breakers);
	} else if (!of_breakers) {
		go_on_after(s, STR(""));
		s->looked_at = 0;
		census_step(s, true);
	} else {
		sample_finish(s, OK);
	}
}

static void
on_agents(void *arg, enum err err, const struct reply *reply)
{
	census_on_reply(arg, false, err, reply);
}

static void
on_breakers(void *arg, enum err err, const struct reply *reply)
{
	census_on_reply(arg, true, err, reply);
}

static void
census_step(struct sample *s, bool of_breakers)
{
	struct args args = { 0 };

	args_str(&args, str_of(of_breakers ? s->breakers_key : s->agents_key));
	args_str(&args, str_of(s->prefix));
	args_str(&args, buf_str(&s->after));
	args_uint(&args, STEP);
	args_str(&args, of_breakers ? STR("breakers") : STR("agents"));
	store_run(s->store, SCRIPT_CENSUS, 1, &args, of_breakers ? on_breakers : on_agents, s);
	args_done(&args);
}

static void
queues_on_list(void *arg, enum err err, const struct str *names,
	       const struct queue_stats *stats, unsigned n)
{
	struct sample *s = arg;

	if (err) {
		sample_finish(s, err);
		return;
	}
	for (unsigned i = 0; i < n; i++) {
		const struct queue_stats *q = &stats[i];
		struct row *row = add_row(s, STAT_QUEUE, names[i]);

		row->values[STAT_READY] = q->ready[0] + q->ready[1] + q->ready[2];
		row->values[STAT_DELAYED] = q->delayed;
		row->values[STAT_RESERVED] = q->reserved;
		row->values[STAT_DEAD] = q->dead;
		row->values[4] = q->capacity;
		row->values[5] =
			q->oldest_us && q->now_us > q->oldest_us ? q->now_us - q->oldest_us : 0;
		row->values[6] = q->paused;
		row->values[7] = q->elsewhere;
	}
	s->nqueues += n;
	go_on_after(s, n ? names[n - 1] : STR(""));
	if (n && s->nqueues < MAX_QUEUES) {
		queues_sample(s->queues, buf_str(&s->after), queues_on_list, s);
	} else {
		go_on_after(s, STR(""));
		s->looked_at = 0;
		census_step(s, false);
	}
}

static void
sample_begin(void *arg)
{
	struct sample *s = arg;

	if (loop_now_us(s->loop) >= s->wanted_until_us)
		return; /* sample_want() begins anew */
	if (!store_is_ready(s->store)) {
		timer_set(&s->next, EVERY_US);
		return;
	}
	s->is_running = true;
	s->nqueues = 0;
	queues_sample(s->queues, STR(""), queues_on_list, s);
}

void
sample_want(struct sample *s)
{
	s->wanted_until_us = loop_now_us(s->loop) + WANTED_US;
	if (!s->is_running && !s->next.at_us)
		timer_set(&s->next, 0);
}

uint64_t
sample_number(const struct sample *s)
{
	return s->number && loop_now_us(s->loop) - s->taken_at_us < STALE_US ? s->number : 0;
}

static char *
key(const char *prefix, const char *name)
{
	struct buf b = { 0 };

	buf_printf(&b, "%s:%s", prefix, name);
	buf_putc(&b, 0);
	return b.data;
}

struct sample *
sample_new(struct loop *loop, struct store *store, struct queues *queues,
	   const char *key_prefix)
{
	struct sample *s = xcalloc(1, sizeof(*s));

	s->loop = loop;
	s->store = store;
	s->queues = queues;
	s->prefix = xstrdup(key_prefix);
	s->agents_key = key(key_prefix, "agents");
	s->breakers_key = key(key_prefix, "breakers");
	timer_init(&s->next, loop, sample_begin, s);
	return s;
}

void
sample_free(struct sample *s)
{
	if (!s)
		return;
	timer_done(&s->next);
	free(s->rows);
	buf_done(&s->names);
	buf_done(&s->after);
	free(s->prefix);
	free(s->agents_key);
	free(s->breakers_key);
	free(s);
}
