#ifndef COORDD_CTL_BENCH_ITEM_H
#define COORDD_CTL_BENCH_ITEM_H

#include <stdint.h>

#include "base/str.h"
#include "client/coord.h"

/* The type of a benchmark's queues and sender; an instance is the run's id and five digits. */
#define BENCH_TYPE "coordctl-bench"

/*
 * One message as bytes, made once. What differs from one message to the next has a fixed width
 * and is patched: the digits of the queue and of the message's id, one byte of priority, the
 * number and the producer in the payload.
 */
struct bench_item {
	msgpack_sbuffer bytes; /* "recipient", AgentId, "message", AgentMessage */
	size_t at_agent, at_queue, at_message_key, at_message, at_id, at_priority, at_number,
		at_producer, at_body, body_n;
};

/* Payloads of `size` bytes (48 or more) for the run `id`. */
void bench_item_make(struct bench_item *item, unsigned size, const char id[9]);
void bench_item_done(struct bench_item *item);

/* `priority` as in the ledger: 0 to 2. */
void bench_item_patch(struct bench_item *item, unsigned producer, unsigned queue,
		      unsigned priority, uint64_t number);

/* The AgentId of a queue, encoded, and the message last patched. Valid until the next call. */
struct str bench_item_agent(struct bench_item *item, unsigned queue);
struct str bench_item_message(const struct bench_item *item);
/* The text that every payload holds under "body". */
struct str bench_item_body(const struct bench_item *item);

/* `value` in exactly so many digits. */
void bench_digits(char *to, uint64_t value, unsigned base, int digits);

#endif
