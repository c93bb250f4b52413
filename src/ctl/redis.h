#ifndef COORDD_CTL_REDIS_H
#define COORDD_CTL_REDIS_H

#include <hiredis/hiredis.h>

#include "base/str.h"
#include "store/address.h"

/*
 * A Redis that is asked one thing after the other, by a program that may wait for it. The arguments of a command are collected and
 * must live until it is put. Everything that goes wrong with the connection is its end: redis_why() says what it was.
 */
struct redis;

/* Connect, log in and select the database. NULL, and why, in `why`. Each answer may take `timeout_ms`. */
struct redis *redis_open(const struct address *at, const char *user, const char *password,
			 int timeout_ms, char *why, size_t size);
void redis_close(struct redis *r); /* NULL is fine */
const char *redis_why(const struct redis *r);

/* Begin a command, add to it. */
void redis_cmd(struct redis *r, const char *word);
void redis_arg(struct redis *r, struct str arg);
void
redis_arg_int(struct redis *r, int64_t v); /* the text is kept here, at most 8 in a command */

/* Hand the command over; it leaves with the next redis_get(). */
void redis_put(struct redis *r);
/* The next answer, the caller's to free; NULL: the connection is at its end. An error is an answer, too. */
redisReply *redis_get(struct redis *r);
/* redis_put() and redis_get(). */
redisReply *redis_run(struct redis *r);

/* What an answer holds; "", 0 where it is something else. */
struct str redis_str(const redisReply *reply);
int64_t redis_int(const redisReply *reply);
/* The i-th of an array; NULL when there is none. */
const redisReply *redis_at(const redisReply *reply, size_t i);

#endif
