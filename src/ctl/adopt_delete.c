/*
 * adopt --delete: remove from the old Redis what the journal says is done, member by member. What was damaged or is an orphan stays.
 *
 * Members of a list have no name but their place, and removing each by its value would search the list each time. So each is first
 * overwritten by ADOPT_REMOVED, and all of these are removed at the end, also those that an earlier run has left.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "ctl/adopt.h"

#define EACH(command) ADOPT_IF_OURS "for i = 3, #ARGV do " command " end return 1"

/* Of the page what is done, and in `marks` nothing but room. */
static size_t
pick_done(struct adopt *a, struct old_queue *q, enum part part, struct old_entry *entries,
	  size_t n)
{
	struct old_message *messages = xcalloc(n + 1, sizeof(*messages));
	struct journal_entry *states = xcalloc(n + 1, sizeof(*states));
	const struct mark **marks = xcalloc(n + 1, sizeof(struct mark *));
	size_t good = 0, done = 0;
	char why[400];

	for (size_t i = 0; i < n; i++) {
		if (!adopt_message(a, q, part, entries[i].member, &messages[good], why,
				   sizeof(why)))
			continue;
		entries[good] = entries[i];
		marks[good] = &messages[good].mark;
		good++;
	}
	if (journal_read(a, q, marks, good, states)) {
		for (size_t i = 0; i < good; i++) {
			if (states[i].state == JOURNAL_DONE)
				entries[done++] = entries[i];
		}
	}
	for (size_t i = 0; i <= n; i++)
		buf_done(&messages[i].bytes);
	free(messages);
	free(states);
	free(marks);
	return done;
}

static int64_t
delete_page(struct adopt *a, struct old_queue *q, enum part part, struct old_entry *entries,
	    size_t n, int64_t now_us)
{
	struct buf key = { 0 }, deadlines = { 0 }, indexes = { 0 };
	size_t done = pick_done(a, q, part, entries, n);
	bool is_list = part == PART_DEAD || part == PART_AUDIT, is_good = !a->status;

	(void)now_us;
	adopt_key(a, &key, q, part);
	adopt_deadlines_key(a, &deadlines, q);
	adopt_script(a,
		     is_list ? ADOPT_IF_OURS
			     "for i = 3, #ARGV, 2 do "
			     "if redis.call('LINDEX', KEYS[2], ARGV[i]) == ARGV[i + 1] then "
			     "redis.call('LSET', KEYS[2], ARGV[i], '" ADOPT_REMOVED
			     "') end end return 1"
		     : part == PART_RESERVED ? EACH("redis.call('HDEL', KEYS[2], ARGV[i]) "
						    "redis.call('ZREM', KEYS[3], ARGV[i])")
					     : EACH("redis.call('ZREM', KEYS[2], ARGV[i])"),
		     buf_str(&key), buf_str(&deadlines));
	buf_reserve(&indexes, done * 24); /* so that the texts stay where they are */
	for (size_t i = 0; i < done; i++) {
		if (is_list) {
			size_t at = indexes.len;

			buf_printf(&indexes, "%llu", (unsigned long long)entries[i].index);
			redis_arg(a->redis,
				  (struct str){ indexes.data + at, indexes.len - at });
		}
		redis_arg(a->redis,
			  part == PART_RESERVED ? entries[i].token : entries[i].member);
	}
	is_good = is_good && (!done || adopt_script_run(a));
	if (part != PART_AUDIT)
		q->removed += done;
	buf_done(&key);
	buf_done(&deadlines);
	buf_done(&indexes);
	return is_good ? (int64_t)done : -1;
}

/* Take the places of what was removed out of a list. */
static bool
close_gaps(struct adopt *a, struct old_queue *q, enum part part)
{
	struct buf key = { 0 };
	bool is_good;

	adopt_key(a, &key, q, part);
	adopt_script(a,
		     ADOPT_IF_OURS "return redis.call('LREM', KEYS[2], 0, '" ADOPT_REMOVED "')",
		     buf_str(&key), buf_str(&key));
	is_good = adopt_script_run(a);
	buf_done(&key);
	return is_good;
}

/* Whether none of its keys is left. */
static bool
is_gone(struct adopt *a, struct old_queue *q, bool *is_it)
{
	struct buf keys[PARTS] = { { 0 } };
	redisReply *reply;

	redis_cmd(a->redis, "EXISTS");
	for (enum part part = 0; part < PARTS; part++) {
		adopt_key(a, &keys[part], q, part);
		redis_arg(a->redis, buf_str(&keys[part]));
	}
	reply = redis_run(a->redis);
	*is_it = reply && reply->type == REDIS_REPLY_INTEGER && !reply->integer;
	if (!reply || reply->type != REDIS_REPLY_INTEGER)
		adopt_lost(a, reply);
	if (reply)
		freeReplyObject(reply);
	for (enum part part = 0; part < PARTS; part++)
		buf_done(&keys[part]);
	return !a->status;
}

bool
adopt_delete(struct adopt *a, struct old_queue *q)
{
	bool is_it = false;

	for (enum part part = 0; part < PARTS; part++) {
		if (!adopt_walk(a, q, part, delete_page))
			return false;
		if ((part == PART_DEAD || part == PART_AUDIT) && q->has[part] &&
		    !close_gaps(a, q, part))
			return false;
	}
	return is_gone(a, q, &is_it) && (!is_it || journal_expire(a, q));
}

bool
adopt_delete_subs(struct adopt *a)
{
	json_t *row, *type;
	size_t i, k;

	json_array_foreach(a->subs, i, row)
	{
		struct str name = json_str_at(row, "name");
		struct buf key = { 0 };
		bool is_good;

		if (!json_bool_at(row, "copied"))
			continue;
		buf_put(&key, a->prefix.p, a->prefix.n);
		buf_puts(&key, ":subs:");
		buf_put(&key, name.p, name.n);
		adopt_script(a, EACH("redis.call('SREM', KEYS[2], ARGV[i])"), buf_str(&key),
			     buf_str(&key));
		json_array_foreach(json_object_get(row, "message_types"), k, type)
		{
			redis_arg(a->redis, json_str_at(type, ""));
		}
		is_good = adopt_script_run(a);
		buf_done(&key);
		if (!is_good)
			return false;
	}
	return true;
}
