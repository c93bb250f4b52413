/*
 * adopt: the old Redis. Its keys are found by SCAN, its members read page by page, so that neither Redis nor we hold much at a time.
 *
 *	adopt_find()	every key: look_at_keys() -> queue_key(), agent_key(), subs_key(), breaker_key()
 *	adopt_walk()	the members of one part of a queue: walk_sorted(), walk_list(), walk_reserved()
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "ctl/adopt.h"

/* A page is this many members, or fewer where those of the last one were large. */
enum {
	PAGE_MOST = 500,
	PAGE_BYTES = 2 << 20,
	SCAN_COUNT = 500,
	TIMEOUT_MS = 10000,
	VALUE_MAX = 1 << 20
};

bool
adopt_lost(struct adopt *a, const redisReply *reply)
{
	if (reply)
		a->status = ctl_fail(EX_UNAVAILABLE, "the old Redis: %s", redis_str(reply).p);
	else
		a->status = ctl_fail(EX_TEMPFAIL,
				     "the connection to the old Redis is lost: %s. Run it "
				     "again, it goes on.",
				     redis_why(a->redis));
	return false;
}

/* An answer of a type, or NULL after adopt_lost(). */
static redisReply *
expect(struct adopt *a, redisReply *reply, int type)
{
	if (reply && (reply->type == type ||
		      (type != REDIS_REPLY_ARRAY && reply->type == REDIS_REPLY_NIL)))
		return reply;
	adopt_lost(a, reply && reply->type == REDIS_REPLY_ERROR ? reply : NULL);
	if (reply)
		freeReplyObject(reply);
	return NULL;
}

int
adopt_open(struct adopt *a)
{
	struct address at = { 0 };
	struct errmsg bad;
	const char *password = getenv("REDISCLI_AUTH");
	char why[256] = "";

	if (!address_read(&at, TEXT(a->ctl, redis), &bad))
		return ctl_fail(EX_USAGE, "--redis %s", bad.text);
	a->redis = redis_open(&at, at.user, *at.password || !password ? at.password : password,
			      TIMEOUT_MS, why, sizeof(why));
	address_done(&at);
	return a->redis ? EX_OK : ctl_fail(EX_UNAVAILABLE, "the old Redis: %s", why);
}

/* --- names of keys --------------------------------------------------------------- */

static const char *const kinds[PARTS] = {
	"reserved", "sched", "sched", "sched", "dlq", "queue"
};
static const char *const priorities[PARTS] = {
	[PART_HIGH] = ":prio:9", [PART_NORMAL] = ":prio:5", [PART_LOW] = ":prio:1"
};

static void
key_of(const struct adopt *a, struct buf *b, const char *kind, struct str rest)
{
	buf_clear(b);
	buf_put(b, a->prefix.p, a->prefix.n);
	buf_printf(b, ":%s:", kind);
	buf_put(b, rest.p, rest.n);
}

void
adopt_key(const struct adopt *a, struct buf *b, const struct old_queue *q, enum part part)
{
	key_of(a, b, kinds[part], q->name);
	if (priorities[part])
		buf_puts(b, priorities[part]);
}

void
adopt_deadlines_key(const struct adopt *a, struct buf *b, const struct old_queue *q)
{
	key_of(a, b, "reserved_deadlines", q->name);
}

/* --- finding keys ---------------------------------------------------------------- */

static bool
begins(struct str s, const char *with, struct str *rest)
{
	size_t n = strlen(with);

	if (s.n < n || memcmp(s.p, with, n) != 0)
		return false;
	*rest = (struct str){ s.p + n, s.n - n };
	return true;
}

static bool
ends(struct str *s, const char *with)
{
	size_t n = strlen(with);

	if (s->n < n || memcmp(s->p + s->n - n, with, n) != 0)
		return false;
	s->n -= n;
	return true;
}

static int
compare(const void *x, const void *y)
{
	const struct old_queue *const *a = x, *const *b = y;
	size_t n = (*a)->name.n < (*b)->name.n ? (*a)->name.n : (*b)->name.n;
	int order = memcmp((*a)->name.p, (*b)->name.p, n);

	return order ? order
		     : (int)((*a)->name.n > (*b)->name.n) - (int)((*a)->name.n < (*b)->name.n);
}

/* One of several parts' keys says that there is such a queue; they are put together when all are known. */
static struct old_queue *
queue_new(struct adopt *a, struct str rest)
{
	struct old_queue *q = xcalloc(1, sizeof(*q));

	q->rest = xmemdup(rest.p, rest.n);
	q->name = (struct str){ q->rest, rest.n };
	if (!(a->n_queues & (a->n_queues - 1)))
		a->queues = xrealloc(a->queues, (a->n_queues ? 2 * a->n_queues : 1) *
							sizeof(struct old_queue *));
	a->queues[a->n_queues++] = q;
	return q;
}

static void
queues_join(struct adopt *a)
{
	size_t n = 0;

	if (a->n_queues)
		qsort(a->queues, a->n_queues, sizeof(struct old_queue *), compare);
	for (size_t i = 0; i < a->n_queues; i++) {
		struct old_queue *q = a->queues[i], *last = n ? a->queues[n - 1] : NULL;

		if (!last || !str_eq(last->name, q->name)) {
			a->queues[n++] = q;
			continue;
		}
		for (int part = 0; part < PARTS; part++)
			last->has[part] |= q->has[part];
		last->has_deadlines |= q->has_deadlines;
		free(q->rest);
		free(q);
	}
	a->n_queues = n;
}

/* What is expected under a name, and how it is noted. */
enum what {
	WHAT_PART,
	WHAT_DEADLINES,
	WHAT_SUBS,
	WHAT_AGENT,
	WHAT_BREAKER,
	WHAT_KNOWN,
	WHAT_OTHER,
	WHAT_BAD
};

/* What a key is, by its name; `type` is what Redis should have there, "" anything. */
static enum what
what_of(struct str key, struct str *rest, enum part *part, const char **type)
{
	*type = "";
	if (begins(key, "adopt:", rest))
		return WHAT_KNOWN;
	if (begins(key, "sched:", rest)) {
		*type = "zset";
		for (*part = PART_HIGH; *part <= PART_LOW; (*part)++) {
			if (ends(rest, priorities[*part]))
				return WHAT_PART;
		}
		return WHAT_BAD;
	}
	for (*part = PART_RESERVED; *part < PARTS; (*part)++) {
		char kind[16];

		snprintf(kind, sizeof(kind), "%s:", kinds[*part]);
		*type = *part == PART_RESERVED ? "hash" : "list";
		if (!priorities[*part] && begins(key, kind, rest))
			return WHAT_PART;
	}
	*type = "zset";
	if (begins(key, "reserved_deadlines:", rest))
		return WHAT_DEADLINES;
	*type = "set";
	if (begins(key, "subs:", rest))
		return WHAT_SUBS;
	if (str_eq(key, STR("agents:index")) || str_eq(key, STR("capabilities:index")) ||
	    str_eq(key, STR("cb:registry")))
		return WHAT_KNOWN;
	*type = "string";
	if (begins(key, "agents:", rest))
		return WHAT_AGENT;
	if (begins(key, "cb:state:", rest))
		return WHAT_BREAKER;
	*type = "";
	if (begins(key, "cb:metrics:", rest) || begins(key, "capabilities:", rest))
		return WHAT_KNOWN;
	return WHAT_OTHER;
}

static json_t *
json_of_reply(const redisReply *reply)
{
	json_error_t why;
	struct str s = redis_str(reply);

	return s.n <= VALUE_MAX ? json_loadb(s.p, s.n, JSON_ALLOW_NUL | JSON_DECODE_ANY, &why)
				: NULL;
}

static bool
agent_key(struct adopt *a, struct str key, struct str rest)
{
	redisReply *reply;
	json_t *agent, *id;

	redis_cmd(a->redis, "GET");
	redis_arg(a->redis, key);
	reply = expect(a, redis_run(a->redis), REDIS_REPLY_STRING);
	if (!reply)
		return false;
	agent = json_of_reply(reply);
	id = json_object_get(agent, "agent_id");
	if (json_str_at(id, "type").n) {
		struct str instance = json_str_at(id, "instance");

		json_object_set_new(a->agents, rest.p,
				    json_pack("{s:O, s:s%}", "type",
					      json_object_get(id, "type"), "instance",
					      instance.n ? instance.p : "default",
					      instance.n ? instance.n : strlen("default")));
	} else {
		adopt_problem(a, PROBLEM_DAMAGED, key, redis_str(reply), "%s",
			      agent ? "agent_id is no {type, instance}" : "is no JSON");
		json_object_set_new(a->agents, rest.p, json_null());
	}
	json_decref(agent);
	freeReplyObject(reply);
	return true;
}

static bool
subs_key(struct adopt *a, struct str key, struct str rest)
{
	json_t *types = json_array(), *row;
	redisReply *reply;

	/* Three types there are; who has more in it has something else. */
	redis_cmd(a->redis, "SSCAN");
	redis_arg(a->redis, key);
	redis_arg_int(a->redis, 0);
	reply = expect(a, redis_run(a->redis), REDIS_REPLY_ARRAY);
	if (!reply) {
		json_decref(types);
		return false;
	}
	for (size_t i = 0; redis_at(redis_at(reply, 1), i); i++) {
		struct str type = redis_str(redis_at(redis_at(reply, 1), i));

		if (str_eq(type, STR("request")) || str_eq(type, STR("response")) ||
		    str_eq(type, STR("event")))
			json_array_append_new(types, json_stringn(type.p, type.n));
		else
			adopt_problem(a, PROBLEM_DAMAGED, key, type, "is no type of messages");
	}
	row = json_pack("{s:s%, s:o}", "name", rest.p, rest.n, "message_types", types);
	if (row)
		json_array_append_new(a->subs, row);
	else
		adopt_problem(a, PROBLEM_KEY, key, STR(""), "its name is no UTF-8");
	freeReplyObject(reply);
	return true;
}

static bool
breaker_key(struct adopt *a, struct str key, struct str rest)
{
	redisReply *reply;
	json_t *state, *row;
	struct str is;

	redis_cmd(a->redis, "GET");
	redis_arg(a->redis, key);
	reply = expect(a, redis_run(a->redis), REDIS_REPLY_STRING);
	if (!reply)
		return false;
	state = json_of_reply(reply);
	is = json_str_at(state, "state");
	row = is.n ? json_pack("{s:s%, s:s%, s:O?}", "name", rest.p, rest.n, "state", is.p,
			       is.n, "since", json_object_get(state, "state_changed_at"))
		   : NULL;
	if (row)
		json_array_append_new(a->breakers, row);
	else
		adopt_problem(a, PROBLEM_DAMAGED, key, redis_str(reply), "%s",
			      state ? "has no state" : "is no JSON");
	json_decref(state);
	freeReplyObject(reply);
	return true;
}

/* One key, of which Redis says that it is a `type`. */
static bool
look_at_key(struct adopt *a, struct str key, struct str type)
{
	struct str after = { key.p + a->prefix.n + 1, key.n - a->prefix.n - 1 }, rest = STR("");
	struct old_queue *q;
	const char *wanted;
	enum part part = PART_RESERVED;
	enum what what = what_of(after, &rest, &part, &wanted);

	if (str_eq(type, STR("none"))) /* it has gone meanwhile */
		return true;
	if (what != WHAT_OTHER && *wanted && !str_eq(type, str_of(wanted))) {
		adopt_problem(a, PROBLEM_KEY, key, STR(""), "is a %.*s and should be a %s",
			      (int)type.n, type.p, wanted);
		return true;
	}
	if ((what == WHAT_PART || what == WHAT_DEADLINES || what == WHAT_SUBS ||
	     what == WHAT_AGENT) &&
	    (!memchr(rest.p, ':', rest.n) || memchr(rest.p, '\0', rest.n)))
		what = WHAT_BAD;
	switch (what) {
	case WHAT_PART:
		queue_new(a, rest)->has[part] = true;
		return true;
	case WHAT_DEADLINES:
		q = queue_new(a, rest);
		q->has_deadlines = true;
		return true;
	case WHAT_SUBS:
		return subs_key(a, key, rest);
	case WHAT_AGENT: {
		/* A name of the hash of agents ends with a NUL. */
		char *name = xmemdup(rest.p, rest.n);
		bool is_good = agent_key(a, key, (struct str){ name, rest.n });

		free(name);
		return is_good;
	}
	case WHAT_BREAKER:
		return breaker_key(a, key, rest);
	case WHAT_BAD:
		adopt_problem(a, PROBLEM_KEY, key, STR(""),
			      "names no queue, agent or priority that there is");
		return true;
	case WHAT_KNOWN:
		a->n_capabilities +=
			begins(after, "capabilities:", &rest) && !str_eq(rest, STR("index"));
		return true;
	case WHAT_OTHER:
		break;
	}
	a->n_others++;
	return true;
}

/* A page of SCAN: first the types of all, asked at once. */
static bool
look_at_keys(struct adopt *a, const redisReply *keys)
{
	struct str *types;
	bool is_good = true;

	for (size_t i = 0; redis_at(keys, i); i++) {
		redis_cmd(a->redis, "TYPE");
		redis_arg(a->redis, redis_str(redis_at(keys, i)));
		redis_put(a->redis);
	}
	types = xcalloc(keys->elements + 1, sizeof(*types));
	for (size_t i = 0; redis_at(keys, i) && is_good; i++) {
		redisReply *reply = expect(a, redis_get(a->redis), REDIS_REPLY_STATUS);

		is_good = reply != NULL;
		if (reply) {
			types[i].n = redis_str(reply).n;
			types[i].p = xmemdup(redis_str(reply).p, types[i].n);
			freeReplyObject(reply);
		}
	}
	for (size_t i = 0; redis_at(keys, i); i++) {
		is_good = is_good && look_at_key(a, redis_str(redis_at(keys, i)), types[i]);
		free((char *)types[i].p);
	}
	free(types);
	return is_good;
}

bool
adopt_find(struct adopt *a)
{
	struct buf pattern = { 0 };
	char cursor[24] = "0";
	bool is_good = true;

	for (size_t i = 0; i < a->prefix.n; i++) {
		if (strchr("*?[]\\^", a->prefix.p[i]))
			buf_putc(&pattern, '\\');
		buf_putc(&pattern, a->prefix.p[i]);
	}
	buf_puts(&pattern, ":*");
	do {
		redisReply *reply;

		redis_cmd(a->redis, "SCAN");
		redis_arg(a->redis, str_of(cursor));
		redis_arg(a->redis, STR("MATCH"));
		redis_arg(a->redis, buf_str(&pattern));
		redis_arg(a->redis, STR("COUNT"));
		redis_arg_int(a->redis, SCAN_COUNT);
		reply = expect(a, redis_run(a->redis), REDIS_REPLY_ARRAY);
		if (!reply) {
			is_good = false;
			break;
		}
		snprintf(cursor, sizeof(cursor), "%.*s", (int)redis_str(redis_at(reply, 0)).n,
			 redis_str(redis_at(reply, 0)).p);
		if (redis_at(reply, 1) && reply->element[1]->elements)
			is_good = look_at_keys(a, reply->element[1]);
		freeReplyObject(reply);
		adopt_progress(a, false);
	} while (is_good && strcmp(cursor, "0"));
	buf_done(&pattern);
	queues_join(a);
	return is_good;
}

/* --- walking through members ----------------------------------------------------- */

struct walk {
	struct adopt *a;
	struct old_queue *q;
	enum part part;
	page_fn *fn;
	size_t most; /* members of the next page */
};

/* Redis's clock, asked along with the page. */
static void
put_time(struct adopt *a)
{
	redis_cmd(a->redis, "TIME");
	redis_put(a->redis);
}

static bool
get_time(struct adopt *a, int64_t *now_us)
{
	redisReply *reply = expect(a, redis_get(a->redis), REDIS_REPLY_ARRAY);

	if (!reply)
		return false;
	*now_us = redis_int(redis_at(reply, 0)) * 1000000 + redis_int(redis_at(reply, 1));
	freeReplyObject(reply);
	return true;
}

/* Hand a page over; below 0 ends the walk. The next is smaller where this one was large. */
static int64_t
hand_over(struct walk *w, struct old_entry *entries, size_t n, int64_t now_us)
{
	size_t bytes = 1;

	for (size_t i = 0; i < n; i++)
		bytes += entries[i].member.n;
	w->most =
		n && bytes / n > PAGE_BYTES / PAGE_MOST ? PAGE_BYTES / (bytes / n) : PAGE_MOST;
	w->most = w->most ? w->most : 1;
	w->a->read += n;
	adopt_progress(w->a, false);
	return n ? w->fn(w->a, w->q, w->part, entries, n, now_us) : 0;
}

/* Scores are microseconds. What is no time, or one before 1970, is due. */
static int64_t
score_of(const redisReply *reply)
{
	struct str s = redis_str(reply);
	double d = s.n ? strtod(s.p, NULL) : 0;

	return d > 0 && d < 9e18 ? (int64_t)d : d > 0 ? INT64_MAX : 0;
}

/* A sorted set, by rank: its members go out by score, then by their bytes. */
static bool
walk_sorted(struct walk *w)
{
	struct old_entry entries[PAGE_MOST];
	struct buf key = { 0 };
	int64_t from = 0, now_us, removed = 0;
	size_t n;

	adopt_key(w->a, &key, w->q, w->part);
	do {
		redisReply *reply;

		n = 0;
		put_time(w->a);
		redis_cmd(w->a->redis, "ZRANGE");
		redis_arg(w->a->redis, buf_str(&key));
		redis_arg_int(w->a->redis, from);
		redis_arg_int(w->a->redis, from + (int64_t)w->most - 1);
		redis_arg(w->a->redis, STR("WITHSCORES"));
		redis_put(w->a->redis);
		if (!get_time(w->a, &now_us) ||
		    !(reply = expect(w->a, redis_get(w->a->redis), REDIS_REPLY_ARRAY)))
			break;
		for (; n < PAGE_MOST && redis_at(reply, 2 * n + 1); n++)
			entries[n] = (struct old_entry){
				.member = redis_str(redis_at(reply, 2 * n)),
				.at_us = score_of(redis_at(reply, 2 * n + 1))
			};
		removed = hand_over(w, entries, n, now_us);
		from += (int64_t)n - removed;
		freeReplyObject(reply);
	} while (n && removed >= 0);
	buf_done(&key);
	return !w->a->status;
}

static bool
walk_list(struct walk *w)
{
	struct old_entry entries[PAGE_MOST];
	struct buf key = { 0 };
	int64_t from = 0, now_us, removed = 0;
	size_t n;

	adopt_key(w->a, &key, w->q, w->part);
	do {
		redisReply *reply;

		n = 0;
		put_time(w->a);
		redis_cmd(w->a->redis, "LRANGE");
		redis_arg(w->a->redis, buf_str(&key));
		redis_arg_int(w->a->redis, from);
		redis_arg_int(w->a->redis, from + (int64_t)w->most - 1);
		redis_put(w->a->redis);
		if (!get_time(w->a, &now_us) ||
		    !(reply = expect(w->a, redis_get(w->a->redis), REDIS_REPLY_ARRAY)))
			break;
		for (; n < PAGE_MOST && redis_at(reply, n); n++)
			entries[n] =
				(struct old_entry){ .member = redis_str(redis_at(reply, n)),
						    .index = (uint64_t)from + n };
		removed = hand_over(w, entries, n, now_us);
		from += (int64_t)
			n; /* what is removed keeps its place until the end: adopt_delete.c */
		freeReplyObject(reply);
	} while (n && removed >= 0);
	buf_done(&key);
	return !w->a->status;
}

/* Reserved messages with a deadline, in the order of their deadlines. */
static bool
walk_deadlines(struct walk *w)
{
	struct old_entry entries[PAGE_MOST];
	struct buf key = { 0 }, hash = { 0 };
	int64_t from = 0, now_us, removed = 0;
	size_t asked;

	adopt_deadlines_key(w->a, &key, w->q);
	adopt_key(w->a, &hash, w->q, PART_RESERVED);
	do {
		redisReply *tokens, *members = NULL;
		size_t n = 0, most = w->most;

		asked = 0;
		put_time(w->a);
		redis_cmd(w->a->redis, "ZRANGE");
		redis_arg(w->a->redis, buf_str(&key));
		redis_arg_int(w->a->redis, from);
		redis_arg_int(w->a->redis, from + (int64_t)most - 1);
		redis_arg(w->a->redis, STR("WITHSCORES"));
		redis_put(w->a->redis);
		if (!get_time(w->a, &now_us) ||
		    !(tokens = expect(w->a, redis_get(w->a->redis), REDIS_REPLY_ARRAY)))
			break;
		redis_cmd(w->a->redis, "HMGET");
		redis_arg(w->a->redis, buf_str(&hash));
		for (; asked < PAGE_MOST && redis_at(tokens, 2 * asked + 1); asked++)
			redis_arg(w->a->redis, redis_str(redis_at(tokens, 2 * asked)));
		if (asked)
			members = expect(w->a, redis_run(w->a->redis), REDIS_REPLY_ARRAY);
		for (size_t i = 0; i < asked && members; i++) {
			const redisReply *one = redis_at(members, i);
			struct str token = redis_str(redis_at(tokens, 2 * i));

			if (one && one->type == REDIS_REPLY_STRING)
				entries[n++] = (struct old_entry){
					.member = redis_str(one),
					.token = token,
					.at_us = score_of(redis_at(tokens, 2 * i + 1)),
				};
			else if (w->a->is_telling)
				adopt_problem(w->a, PROBLEM_NOTE, buf_str(&key), token,
					      "a deadline without a reserved message");
		}
		removed = members ? hand_over(w, entries, n, now_us) : -1;
		from += (int64_t)asked - removed;
		if (members)
			freeReplyObject(members);
		freeReplyObject(tokens);
	} while (asked && removed >= 0);
	buf_done(&key);
	buf_done(&hash);
	return !w->a->status;
}

/* Of a page of HSCAN those that have no deadline. */
static int64_t
hand_over_undated(struct walk *w, const redisReply *pairs, struct str deadlines,
		  struct str hash, int64_t now_us)
{
	size_t all = pairs->elements / 2, n = 0;
	struct old_entry *entries = xcalloc(all + 1, sizeof(*entries));
	bool is_good = true;
	int64_t removed;

	for (size_t i = 0; i < all; i++) {
		redis_cmd(w->a->redis, "ZSCORE");
		redis_arg(w->a->redis, deadlines);
		redis_arg(w->a->redis, redis_str(redis_at(pairs, 2 * i)));
		redis_put(w->a->redis);
	}
	for (size_t i = 0; i < all && is_good; i++) {
		redisReply *score = expect(w->a, redis_get(w->a->redis), REDIS_REPLY_STRING);
		struct str token = redis_str(redis_at(pairs, 2 * i));

		is_good = score != NULL;
		if (score && score->type == REDIS_REPLY_NIL) {
			entries[n++] = (struct old_entry){
				.member = redis_str(redis_at(pairs, 2 * i + 1)), .token = token
			};
			if (w->a->is_telling)
				adopt_problem(w->a, PROBLEM_NOTE, hash, token,
					      "reserved without a deadline: copied as due now");
		}
		if (score)
			freeReplyObject(score);
	}
	removed = is_good ? hand_over(w, entries, n, now_us) : -1;
	free(entries);
	return removed;
}

static bool
walk_undated(struct walk *w)
{
	struct buf deadlines = { 0 }, hash = { 0 };
	char cursor[24] = "0";
	int64_t now_us, removed = 0;

	adopt_deadlines_key(w->a, &deadlines, w->q);
	adopt_key(w->a, &hash, w->q, PART_RESERVED);
	do {
		redisReply *reply;

		put_time(w->a);
		redis_cmd(w->a->redis, "HSCAN");
		redis_arg(w->a->redis, buf_str(&hash));
		redis_arg(w->a->redis, str_of(cursor));
		redis_put(w->a->redis);
		if (!get_time(w->a, &now_us) ||
		    !(reply = expect(w->a, redis_get(w->a->redis), REDIS_REPLY_ARRAY)))
			break;
		snprintf(cursor, sizeof(cursor), "%.*s", (int)redis_str(redis_at(reply, 0)).n,
			 redis_str(redis_at(reply, 0)).p);
		if (redis_at(reply, 1))
			removed = hand_over_undated(w, redis_at(reply, 1), buf_str(&deadlines),
						    buf_str(&hash), now_us);
		freeReplyObject(reply);
	} while (removed >= 0 && strcmp(cursor, "0"));
	buf_done(&deadlines);
	buf_done(&hash);
	return !w->a->status;
}

bool
adopt_walk(struct adopt *a, struct old_queue *q, enum part part, page_fn *fn)
{
	struct walk w = { .a = a, .q = q, .part = part, .fn = fn, .most = PAGE_MOST };

	if (part == PART_RESERVED)
		return (!q->has_deadlines || walk_deadlines(&w)) &&
		       (!q->has[PART_RESERVED] || walk_undated(&w));
	if (!q->has[part])
		return true;
	return part == PART_DEAD || part == PART_AUDIT ? walk_list(&w) : walk_sorted(&w);
}
