#ifndef COORDD_ADMIN_SAMPLE_H
#define COORDD_ADMIN_SAMPLE_H

#include "base/loop.h"
#include "queue/queue.h"
#include "store/store.h"

/*
 * The numbers that are in Redis: of queues, agents and circuit breakers, of all namespaces. They are asked for every five seconds
 * while somebody wants them, a page at a time, and taken over into the slots of base/stats.h as a whole; so who reads them
 * never waits. What Redis could not be asked for a minute is not told any more.
 */
struct sample;

struct sample *sample_new(struct loop *loop, struct store *store, struct queues *queues,
			  const char *key_prefix);
/* The store was freed before. */
void sample_free(struct sample *sample);
/* Somebody looks: go on asking for some minutes. */
void sample_want(struct sample *sample);
/* The number that is in `seen` of the slots it told of; 0 when there is none, or it is too old. */
uint64_t sample_number(const struct sample *sample);

#endif
