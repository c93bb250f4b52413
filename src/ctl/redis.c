/* A Redis that is asked directly: by doctor, and by adopt. */
#include "ctl/redis.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>

#include "base/mem.h"

enum { NUMBERS = 8 };

struct redis {
	redisContext *c;
	const char **args;
	size_t *lens, n, size;
	char numbers[NUMBERS][24];
	unsigned n_numbers;
};

const char *
redis_why(const struct redis *r)
{
	return r->c->err == REDIS_ERR_EOF ? "it hung up"
	       : r->c->err                ? r->c->errstr
					  : "it answered something else";
}

void
redis_close(struct redis *r)
{
	if (!r)
		return;
	if (r->c)
		redisFree(r->c);
	free(r->args);
	free(r->lens);
	free(r);
}

/* Run the command that was begun; false and `why` when it is no OK. */
static bool
expect_ok(struct redis *r, char *why, size_t size)
{
	redisReply *reply = redis_run(r);
	bool is_ok = reply && reply->type != REDIS_REPLY_ERROR;

	if (!is_ok)
		snprintf(why, size, "%s", reply ? reply->str : redis_why(r));
	if (reply)
		freeReplyObject(reply);
	return is_ok;
}

struct redis *
redis_open(const struct address *at, const char *user, const char *password, int timeout_ms,
	   char *why, size_t size)
{
	struct timeval limit = { .tv_sec = timeout_ms / 1000,
				 .tv_usec = timeout_ms % 1000 * 1000 };
	struct redis *r = xcalloc(1, sizeof(*r));
	bool is_good;

	signal(SIGPIPE, SIG_IGN); /* a write to one that has gone is an error as others */
	r->c = at->is_unix ? redisConnectUnixWithTimeout(at->host, limit)
			   : redisConnectWithTimeout(at->host, at->port, limit);
	if (!r->c)
		abort(); /* no memory */
	is_good = !r->c->err && redisSetTimeout(r->c, limit) == REDIS_OK;
	if (!is_good)
		snprintf(why, size, "%s", redis_why(r));
	if (is_good && password && *password) {
		redis_cmd(r, "AUTH");
		if (user && *user)
			redis_arg(r, str_of(user));
		redis_arg(r, str_of(password));
		is_good = expect_ok(r, why, size);
	}
	if (is_good && at->db) {
		redis_cmd(r, "SELECT");
		redis_arg_int(r, at->db);
		is_good = expect_ok(r, why, size);
	}
	if (is_good)
		return r;
	redis_close(r);
	return NULL;
}

void
redis_arg(struct redis *r, struct str arg)
{
	if (r->n == r->size) {
		r->size = r->size ? 2 * r->size : 16;
		r->args = xrealloc(r->args, r->size * sizeof(*r->args));
		r->lens = xrealloc(r->lens, r->size * sizeof(*r->lens));
	}
	r->args[r->n] = arg.n ? arg.p : "";
	r->lens[r->n++] = arg.n;
}

void
redis_cmd(struct redis *r, const char *word)
{
	r->n = 0;
	r->n_numbers = 0;
	redis_arg(r, str_of(word));
}

void
redis_arg_int(struct redis *r, int64_t v)
{
	char *text;

	if (r->n_numbers == NUMBERS)
		abort();
	text = r->numbers[r->n_numbers++];
	snprintf(text, sizeof(r->numbers[0]), "%" PRId64, v);
	redis_arg(r, str_of(text));
}

void
redis_put(struct redis *r)
{
	redisAppendCommandArgv(r->c, (int)r->n, r->args,
			       r->lens); /* what fails is told by redis_get() */
}

redisReply *
redis_get(struct redis *r)
{
	void *reply = NULL;

	return redisGetReply(r->c, &reply) == REDIS_OK ? reply : NULL;
}

redisReply *
redis_run(struct redis *r)
{
	redis_put(r);
	return redis_get(r);
}

struct str
redis_str(const redisReply *reply)
{
	if (!reply || (reply->type != REDIS_REPLY_STRING && reply->type != REDIS_REPLY_STATUS &&
		       reply->type != REDIS_REPLY_ERROR))
		return STR("");
	return (struct str){ reply->str, reply->len };
}

int64_t
redis_int(const redisReply *reply)
{
	return !reply                               ? 0
	       : reply->type == REDIS_REPLY_INTEGER ? reply->integer
	       : reply->type == REDIS_REPLY_STRING  ? strtoll(reply->str, NULL, 10)
						    : 0;
}

const redisReply *
redis_at(const redisReply *reply, size_t i)
{
	return reply && reply->type == REDIS_REPLY_ARRAY && i < reply->elements
		       ? reply->element[i]
		       : NULL;
}
