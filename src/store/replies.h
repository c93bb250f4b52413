#ifndef COORDD_STORE_REPLIES_H
#define COORDD_STORE_REPLIES_H

#include "store/reply.h"

struct redisReplyObjectFunctions;

/*
 * How hiredis builds our struct reply: one or a few blocks of memory for a whole answer,
 * instead of two for each element. What it hands to a callback is no struct reply yet:
 * reply_of() finds it there (NULL in NULL); it is freed by freeObject().
 */
extern struct redisReplyObjectFunctions reply_functions;
const struct reply *reply_of(const void *object);

#endif
