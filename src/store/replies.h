#ifndef COORDD_STORE_REPLIES_H
#define COORDD_STORE_REPLIES_H

struct redisReplyObjectFunctions;

/*
 * How hiredis builds our struct reply: one or a few blocks of memory for a whole answer instead of two allocations for each
 * element. A reply is freed by its freeObject().
 */
extern struct redisReplyObjectFunctions reply_functions;

#endif
