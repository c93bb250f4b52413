/*
 * adopt: the journal, in the old Redis, where it lives as long as what it speaks of.
 *
 *	PREFIX:adopt:lock			who copies now
 *	PREFIX:adopt:NAMESPACE:TYPE:INSTANCE	hash: mark -> "s" and since when (microseconds): being sent; or "d": done
 *
 * A mark is written before its message leaves and settled after the answer. One that stayed in between may be sent again as long as the
 * broker knows a repeat, and only so long: so it keeps the time of the first attempt. All that writes does so in a script that first looks
 * whether the lock is still ours.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/id.h"
#include "ctl/adopt.h"

/* The lock outlasts everything that is done between two renewals, which is one request to the broker. */
enum { LOCK_MS = 5000, RENEW_S = 3, KEPT_S = 7 * 86400 };

static int64_t
lock_ms(const struct adopt *a)
{
	double s = GIVEN(a->ctl, timeout) ? a->ctl->opt[OPT_timeout].seconds : 5;

	return LOCK_MS + (int64_t)(s < 86400 ? s * 1000 : 86400000);
}

static void
marks_key(const struct adopt *a, struct buf *b, const struct old_queue *q)
{
	buf_put(b, a->prefix.p, a->prefix.n);
	buf_printf(b, ":adopt:%s:", a->namespace);
	buf_put(b, q->name.p, q->name.n);
}

static bool
lock_lost(struct adopt *a)
{
	a->status =
		ctl_fail(EX_TEMPFAIL,
			 "another adopt has taken over, or this one was stopped for too long; "
			 "run it again, it goes on");
	return false;
}

void
adopt_script(struct adopt *a, const char *text, struct str key, struct str other)
{
	redis_cmd(a->redis, "EVAL");
	redis_arg(a->redis, str_of(text));
	redis_arg_int(a->redis, 3);
	redis_arg(a->redis, buf_str(&a->lock));
	redis_arg(a->redis, key);
	redis_arg(a->redis, other);
	redis_arg(a->redis, str_of(a->me));
	redis_arg_int(a->redis, lock_ms(a));
}

bool
adopt_script_run(struct adopt *a)
{
	redisReply *reply = redis_run(a->redis);
	bool is_good = reply && reply->type == REDIS_REPLY_INTEGER;

	if (!is_good)
		adopt_lost(a, reply);
	else if (reply->integer < 0)
		is_good = lock_lost(a);
	else
		a->locked_s = adopt_now_s();
	if (reply)
		freeReplyObject(reply);
	return is_good;
}

/* --- the lock -------------------------------------------------------------------- */

/* 1 it is ours, 0 somebody else's for `left_ms`; -1 no connection (said already). */
static int
try_lock(struct adopt *a, int64_t *left_ms)
{
	redisReply *reply;
	int result;

	redis_cmd(a->redis, "SET");
	redis_arg(a->redis, buf_str(&a->lock));
	redis_arg(a->redis, str_of(a->me));
	redis_arg(a->redis, STR("NX"));
	redis_arg(a->redis, STR("PX"));
	redis_arg_int(a->redis, lock_ms(a));
	redis_put(a->redis);
	redis_cmd(a->redis, "PTTL");
	redis_arg(a->redis, buf_str(&a->lock));
	redis_put(a->redis);
	reply = redis_get(a->redis);
	if (!reply || reply->type == REDIS_REPLY_ERROR)
		adopt_lost(a, reply);
	result = !reply || a->status ? -1 : reply->type == REDIS_REPLY_STATUS;
	if (reply)
		freeReplyObject(reply);
	reply = result < 0 ? NULL : redis_get(a->redis);
	*left_ms = redis_int(reply);
	if (!reply && result >= 0)
		adopt_lost(a, NULL);
	if (reply)
		freeReplyObject(reply);
	return a->status ? -1 : result;
}

int
adopt_lock(struct adopt *a)
{
	const struct timespec pause = { .tv_nsec = 100000000 };
	int64_t left = 0, before = INT64_MAX;
	uint64_t random[2];
	int is_ours;

	buf_put(&a->lock, a->prefix.p, a->prefix.n);
	buf_puts(&a->lock, ":adopt:lock");
	id_random(random, sizeof(random));
	snprintf(a->me, sizeof(a->me), "%ld %016" PRIx64 "%016" PRIx64, (long)getpid(),
		 random[0], random[1]);
	/* Somebody who was killed renews it no more. */
	while (!(is_ours = try_lock(a, &left)) && left < before) {
		if (before == INT64_MAX && !GIVEN(a->ctl, quiet))
			ctl_fail(EX_OK,
				 "another adopt runs, or was killed a moment ago: waiting, at "
				 "most %.0f s",
				 (double)left / 1000 + 1);
		before = left;
		nanosleep(&pause, NULL);
	}
	if (is_ours < 0)
		return a->status;
	if (!is_ours)
		return ctl_fail(EX_TEMPFAIL, "another adopt of \"%.*s\" runs", (int)a->prefix.n,
				a->prefix.p);
	a->locked_s = adopt_now_s();
	return EX_OK;
}

void
adopt_unlock(struct adopt *a)
{
	redisReply *reply;

	adopt_script(a, ADOPT_IF_OURS "return redis.call('DEL', KEYS[1])", buf_str(&a->lock),
		     buf_str(&a->lock));
	reply = redis_run(a->redis);
	if (reply)
		freeReplyObject(reply);
}

/* --- marks ----------------------------------------------------------------------- */

static void
put_marks(struct adopt *a, const struct mark *const *marks, size_t n)
{
	for (size_t i = 0; i < n; i++)
		redis_arg(a->redis, (struct str){ (const char *)marks[i]->bytes,
						  sizeof(marks[i]->bytes) });
}

bool
adopt_keep_lock(struct adopt *a)
{
	if (a->is_dry || adopt_now_s() - a->locked_s < RENEW_S)
		return true;
	adopt_script(a, ADOPT_IF_OURS "return 1", buf_str(&a->lock), buf_str(&a->lock));
	return adopt_script_run(a);
}

bool
journal_read(struct adopt *a, const struct old_queue *q, const struct mark *const *marks,
	     size_t n, struct journal_entry *entries)
{
	struct buf key = { 0 };
	redisReply *reply;
	bool is_good;

	if (!n)
		return true;
	marks_key(a, &key, q);
	redis_cmd(a->redis, "HMGET");
	redis_arg(a->redis, buf_str(&key));
	put_marks(a, marks, n);
	reply = redis_run(a->redis);
	buf_done(&key);
	is_good = reply && reply->type == REDIS_REPLY_ARRAY && reply->elements == n;
	if (!is_good)
		adopt_lost(a, reply);
	for (size_t i = 0; i < n && is_good; i++) {
		struct str s = redis_str(redis_at(reply, i));

		entries[i].state = !s.n          ? JOURNAL_NONE
				   : *s.p == 'd' ? JOURNAL_DONE
						 : JOURNAL_SENDING;
		entries[i].since_us = s.n > 1 ? strtoll(s.p + 1, NULL, 10) : 0;
	}
	if (reply)
		freeReplyObject(reply);
	return is_good;
}

/* Run a script on the queue's marks. */
static bool
run(struct adopt *a, const struct old_queue *q, const char *text, const char *value,
    const struct mark *const *marks, size_t n)
{
	struct buf key = { 0 };
	bool is_good;

	marks_key(a, &key, q);
	adopt_script(a, text, buf_str(&key), buf_str(&a->lock));
	redis_arg(a->redis, str_of(value));
	put_marks(a, marks, n);
	is_good = adopt_script_run(a);
	buf_done(&key);
	return is_good;
}

bool
journal_sending(struct adopt *a, const struct old_queue *q, const struct mark *const *marks,
		size_t n, int64_t now_us)
{
	char value[24];

	snprintf(value, sizeof(value), "s%" PRId64, now_us);
	return run(a, q,
		   ADOPT_IF_OURS "for i = 4, #ARGV do redis.call('HSETNX', KEYS[2], ARGV[i], "
				 "ARGV[3]) end return 1",
		   value, marks, n);
}

bool
journal_settle(struct adopt *a, const struct old_queue *q, const struct mark *const *marks,
	       size_t n, bool is_done)
{
	/* What is done is noted whoever has the lock; what is not done may be another's by now. */
	return !n ||
	       run(a, q,
		   is_done ? "for i = 4, #ARGV do redis.call('HSET', KEYS[2], ARGV[i], "
			     "ARGV[3]) end " ADOPT_IF_OURS "return 1"
			   : ADOPT_IF_OURS "for i = 4, #ARGV do redis.call('HDEL', KEYS[2], "
					   "ARGV[i]) end return 1",
		   "d", marks, n);
}

bool
journal_expire(struct adopt *a, const struct old_queue *q)
{
	char value[24];

	snprintf(value, sizeof(value), "%d", KEPT_S);
	return run(a, q, ADOPT_IF_OURS "redis.call('EXPIRE', KEYS[2], ARGV[3]) return 1", value,
		   NULL, 0);
}
